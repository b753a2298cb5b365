/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Closing: a watcher, a neighbour that is ready in the same batch, the loop;
 * in callbacks, from other threads, while the loop waits. */

#define _GNU_SOURCE
#include "loop_support.h"

/* ---- things that happen in one iteration ---- */

enum { IO, TIMER, ASYNC, POST, KINDS };

typedef struct Subject {
  int kind, calls;
  evloop_t loop;
  evloop_watcher_t watcher; /* 0: a post */
  Pipe pipe;
  void (*act)(struct Subject *subject); /* in the first call */
  struct Subject *victim;
  int victims_calls; /* when it was closed; -1: it was not yet */
} Subject;

static void called(const evloop_event_t *event, void *user_data) {
  Subject *subject = (Subject *)user_data;
  CHECK_EQ(event->watcher, subject->watcher);
  RAISE(subject->calls, 1);
  if (subject->calls == 1 && subject->act != NULL) subject->act(subject);
}

/* Ready for the next iteration, and for each one after it if it can be. */
static void start(Subject *subject, evloop_t loop, int kind) {
  *subject = (Subject){.kind = kind, .loop = loop, .victims_calls = -1};
  if (kind == IO) {
    subject->pipe = new_pipe();
    put(subject->pipe.w);
    subject->watcher = OK(evloop_add_io(loop, subject->pipe.r, EVLOOP_EPOLLIN, called, subject));
  } else if (kind == TIMER) {
    subject->watcher = OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 1, 0, called,
                                           subject));
  } else if (kind == ASYNC) {
    subject->watcher = OK(evloop_add_async(loop, called, subject));
    CHECK_EQ(evloop_async_send(subject->watcher), 0);
  } else {
    CHECK_EQ(evloop_post(loop, called, subject), 0);
  }
}

/* After the loop. */
static void end(const Subject *subject) {
  if (subject->kind != IO) return;
  OK(close(subject->pipe.r));
  OK(close(subject->pipe.w));
}

static void close_victim(Subject *subject) {
  Subject *victim = subject->victim;
  CHECK_EQ(evloop_watcher_close(victim->watcher, 0), 0);
  CHECK_ERR(evloop_watcher_close(victim->watcher, 0), ESTALE);
  CHECK_ERR(evloop_watcher_enable(victim->watcher), ESTALE);
  CHECK_ERR(evloop_handle_kind(victim->watcher), ESTALE);
  subject->victims_calls = victim->calls;
}

static void close_its_loop(Subject *subject) {
  CHECK_EQ(evloop_close(subject->loop), 0);
  CHECK_ERR(evloop_close(subject->loop), ESTALE);
  CHECK_ERR(evloop_post(subject->loop, called, subject), ESTALE);
  if (subject->victim == NULL) return;
  subject->victims_calls = subject->victim->calls;
  if (subject->victim->watcher == 0) return;
  CHECK_ERR(evloop_watcher_close(subject->victim->watcher, 0), ESTALE);
}

/* ---- watchers ---- */

TEST(a_watcher_closes_itself_in_its_callback) {
  for (int kind = IO; kind <= ASYNC; kind++) {
    evloop_t loop = new_loop();
    Subject subject;
    start(&subject, loop, kind);
    subject.act = close_victim;
    subject.victim = &subject;
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(turn(loop), 0);
    CHECK_EQ(subject.calls, 1);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
    CHECK_EQ(evloop_close(loop), 0);
    end(&subject);
  }
}

/* Every kind closes every kind, the older one and the younger one. */
TEST(a_callback_closes_what_is_ready_in_the_same_iteration) {
  for (int i = 0; i < KINDS * POST * 2; i++) {
    int kind = i / 2 / POST, victims_kind = i / 2 % POST;
    evloop_t loop = new_loop();
    Subject subject, victim;
    if (i % 2) start(&victim, loop, victims_kind);
    start(&subject, loop, kind);
    if (!(i % 2)) start(&victim, loop, victims_kind);
    subject.act = close_victim;
    subject.victim = &victim;
    for (int turns = 0; turns < 4; turns++) OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
    CHECK(subject.victims_calls == 0 || subject.victims_calls == 1);
    CHECK_EQ(victim.calls, subject.victims_calls);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), kind != POST);
    CHECK_EQ(evloop_close(loop), 0);
    end(&subject);
    end(&victim);
  }
}

/* By the order of an iteration these are dispatched after the closing one. */
TEST(what_was_closed_before_its_turn_is_not_called) {
  static const struct {
    int kind, victim;
  } pairs[] = {{TIMER, ASYNC}, {TIMER, IO}, {ASYNC, IO}, {POST, IO}};
  for (int i = 0; AT_ROW(i, pairs); i++) {
    evloop_t loop = new_loop();
    Subject subject, victim;
    start(&victim, loop, pairs[i].victim);
    start(&subject, loop, pairs[i].kind);
    subject.act = close_victim;
    subject.victim = &victim;
    for (int turns = 0; turns < 3; turns++) turn(loop);
    CHECK_EQ(subject.victims_calls, 0);
    CHECK_EQ(victim.calls, 0);
  }
}

enum { MANY = 50 };
static Subject many[MANY];

static void close_all_others(Subject *subject) {
  for (int i = 0; i < MANY; i++) {
    if (&many[i] != subject) CHECK_EQ(evloop_watcher_close(many[i].watcher, 0), 0);
  }
}

TEST(the_first_of_many_closes_all_the_others) {
  for (int kind = IO; kind <= ASYNC; kind++) {
    evloop_t loop = new_loop();
    int called_ones = 0;
    for (int i = 0; i < MANY; i++) start(&many[i], loop, kind);
    for (int i = 0; i < MANY; i++) many[i].act = close_all_others;
    for (int turns = 0; turns < 3; turns++) turn(loop);
    for (int i = 0; i < MANY; i++) called_ones += many[i].calls > 0;
    CHECK_EQ(called_ones, 1);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
    CHECK_EQ(evloop_close(loop), 0);
    for (int i = 0; i < MANY; i++) end(&many[i]);
  }
}

static uint64_t random_state = 1;

static int open_things;

/* Closes some and starts others in their place, itself perhaps. */
static void shuffle(Subject *caller) {
  evloop_t loop = caller->loop;
  for (int i = 0; i < 3; i++) {
    Subject *subject = &many[random_below(&random_state, MANY)];
    if (subject->watcher != 0) {
      CHECK_EQ(evloop_watcher_close(subject->watcher, 0), 0);
      end(subject);
      *subject = (Subject){.kind = -1};
      open_things--;
    } else {
      start(subject, loop, (int)random_below(&random_state, POST));
      subject->act = shuffle;
      open_things++;
    }
  }
}

static void shuffle_again(const evloop_event_t *event, void *user_data) {
  Subject *base = (Subject *)user_data;
  (void)event;
  shuffle(base);
}

/* A late call would find another watcher in its place. */
TEST(closing_and_adding_at_random_calls_nothing_that_was_closed) {
  Subject base = {.loop = new_loop()};
  for (int i = 0; i < 3000; i++) {
    CHECK_EQ(evloop_post(base.loop, shuffle_again, &base), 0);
    turn(base.loop);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), open_things);
  }
}

/* ---- the loop, in a callback ---- */

static RunFunction *const running[] = {run_until_done, run_once, run_nowait, run_without_limit,
                                       wait_for_events, embed_dispatch};

TEST(a_callback_closes_its_loop_and_nothing_more_is_called) {
  for (int i = 0; i < KINDS * KINDS * LENGTH(running); i++) {
    int kind = i % KINDS, others_kind = i / KINDS % KINDS, before = open_descriptors();
    evloop_t loop = new_loop();
    Subject subject, other;
    start(&other, loop, others_kind);
    start(&subject, loop, kind);
    subject.act = close_its_loop;
    subject.victim = &other;
    CHECK_ERR(running[i / (KINDS * KINDS)](loop), ESTALE);
    CHECK_EQ(subject.calls, 1);
    CHECK_EQ(other.calls, subject.victims_calls);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
    end(&subject);
    end(&other);
    CHECK_EQ(open_descriptors(), before);
  }
}

static void close_the_loop_in(const evloop_event_t *event, void *user_data) {
  Subject *subject = (Subject *)user_data;
  (void)event;
  subject->calls++;
  close_its_loop(subject);
}

TEST(the_watchers_around_the_wait_may_close_the_loop_too) {
  evloop_watcher_t (*const adds[])(evloop_t, evloop_callback_t, void *) = {
      evloop_add_prepare, evloop_add_check, evloop_add_idle, evloop_add_defer, evloop_add_exit};
  int before = open_descriptors();
  for (int i = 0; AT_ROW(i, adds); i++) {
    Subject subject = {.loop = new_loop()};
    OK(adds[i](subject.loop, close_the_loop_in, &subject));
    CHECK_EQ(evloop_wakeup(subject.loop), 0);
    CHECK_ERR(evloop_run(subject.loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
    CHECK_EQ(subject.calls, 1);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  CHECK_EQ(open_descriptors(), before);
}

static void run_inner(Subject *subject) {
  CHECK_ERR(evloop_run(subject->victim->loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
}

TEST(a_callback_of_an_inner_loop_closes_both) {
  Subject outer, inner, closer = {.loop = new_loop()};
  start(&outer, closer.loop, IO);
  start(&inner, new_loop(), IO);
  outer.act = run_inner;
  outer.victim = &inner;
  CHECK_EQ(evloop_post(inner.loop, close_the_loop_in, &closer), 0);
  inner.act = close_its_loop;
  CHECK_ERR(evloop_run(closer.loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
  CHECK_EQ(outer.calls, 1);
  CHECK_EQ(inner.calls, 1);
  CHECK_EQ(closer.calls, 1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

/* ---- the loop, when it is not running ---- */

static Seen destroyed;

static void add_everything(evloop_t loop, tfd_t timer, const Pipe *pipe) {
  evloop_watcher_t (*const adds[])(evloop_t, evloop_callback_t, void *) = {
      evloop_add_prepare, evloop_add_check, evloop_add_idle,        evloop_add_defer,
      evloop_add_exit,    evloop_add_async, evloop_add_clock_change};
  static const int clocks[] = {EVLOOP_CLOCK_REALTIME, EVLOOP_CLOCK_MONOTONIC, EVLOOP_CLOCK_BOOTTIME};
  for (int i = 0; AT_ROW(i, adds); i++) OK(adds[i](loop, log_word, WORD("")));
  for (int i = 0; AT_ROW(i, clocks); i++) {
    evloop_watcher_t w = OK(evloop_add_timer(loop, clocks[i], 0, i * SECOND, 1, 0, log_word,
                                             WORD("")));
    CHECK_EQ(evloop_watcher_set_destroy(w, record, &destroyed), 0);
  }
  OK(evloop_add_tfd(loop, timer, log_word, WORD("")));
  OK(evloop_add_io(loop, pipe->w, EVLOOP_EPOLLOUT, NULL, NULL));
  OK(evloop_add_io(loop, pipe->r, EVLOOP_EPOLLIN, log_word, WORD("")));
  CHECK_EQ(evloop_post(loop, log_word, WORD("not called")), 0);
  CHECK_EQ(evloop_post(loop, NULL, NULL), 0);
}

TEST(a_closed_loop_leaves_nothing_behind) {
  tfd_t timer = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  Pipe pipe = new_pipe();
  int before = open_descriptors();
  for (int i = 0; i < 100; i++) {
    evloop_t loop = new_loop();
    if (i % 2) OK(evloop_fileno(loop));
    add_everything(loop, timer, &pipe);
    CHECK(evloop_handle_count(EVLOOP_KIND_WATCHER) > 10);
    if (i % 3 == 0) OK(evloop_embed_prepare(loop));
    CHECK_EQ(i % 4 == 3 ? evloop_handle_close(loop) : evloop_close(loop), 0);
    CHECK_EQ(destroyed.calls, 3 * (i + 1));
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
    CHECK_EQ(open_descriptors(), before);
  }
  EXPECT_LOG("");
}

static void expect_at_most(int descriptors) {
  CHECK(open_descriptors() <= descriptors);
}

TEST(a_loop_takes_no_more_descriptors_than_documented) {
  int fd = event_fd(0), before = open_descriptors();
  evloop_t loop = new_loop();
  expect_at_most(before + 2);
  for (int i = 0; i < 3; i++) OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, SECOND, 0, 0,
                                                  record, NULL));
  expect_at_most(before + 3);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_BOOTTIME, 0, SECOND, 0, 0, record, NULL));
  expect_at_most(before + 4);
  CHECK_EQ(evloop_fileno(loop), OK(evloop_fileno(loop)));
  expect_at_most(before + 6);
  for (int i = 0; i < 1000; i++) {
    evloop_watcher_t watcher = OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, record, NULL));
    turn(loop);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
  CHECK_EQ(evloop_run_for_ns(loop, MS), 1);
  expect_at_most(before + 6);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(open_descriptors(), before);
}

TEST(a_watched_descriptor_stays_the_callers) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record, NULL));
  CHECK_EQ(evloop_watcher_close(OK(evloop_add_io(loop, pipe.w, 0, record, NULL)), 0), 0);
  CHECK_EQ(evloop_close(loop), 0);
  put(pipe.w);
  CHECK(readable(pipe.r, 0));
}

/* ---- the loop, from another thread ---- */

static int64_t run_for_an_hour(evloop_t loop) {
  return evloop_run_for_ns(loop, 3600 * SECOND);
}

static RunFunction *const waiting[] = {run_until_done, run_once, run_for_an_hour, wait_for_events};

TEST(a_loop_is_closed_while_another_thread_waits_in_it) {
  for (int i = 0; AT_ROW(i, waiting); i++) {
    int before = open_descriptors();
    Runner r;
    Subject timer = {.loop = new_loop(), .kind = TIMER};
    evloop_watcher_t watcher = OK(evloop_add_timer(timer.loop, EVLOOP_CLOCK_MONOTONIC, 0, 3600 * SECOND, 0, 0,
                                                   called, &timer));
    start_sleeper(&r, waiting[i], timer.loop);
    CHECK_EQ(evloop_close(timer.loop), 0);
    CHECK_ERR(evloop_watcher_loop(watcher), ESTALE);
    CHECK_ERR(evloop_stop(timer.loop), ESTALE);
    CHECK_EQ(runner_result(&r), -ESTALE);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
    CHECK_EQ(open_descriptors(), before);
  }
}

TEST(a_loop_is_closed_while_another_thread_is_in_a_callback) {
  for (int i = 0; AT_ROW(i, waiting); i++) {
    int before = open_descriptors();
    Gate gate = {0, 0};
    Runner r;
    evloop_t loop = new_loop();
    evloop_watcher_t watcher = keep_alive(loop);
    CHECK_EQ(evloop_post(loop, stay, &gate), 0);
    CHECK_EQ(evloop_post(loop, log_word, WORD("not called")), 0);
    start_runner(&r, waiting[i], loop);
    UNTIL(LOAD(gate.entered) >= 1);
    CHECK_EQ(evloop_close(loop), 0); /* does not wait for the callback */
    CHECK_ERR(evloop_async_send(watcher), ESTALE);
    open_gate(&gate);
    CHECK_EQ(runner_result(&r), -ESTALE);
    EXPECT_LOG("");
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
    CHECK_EQ(open_descriptors(), before);
  }
}

static int closed_once;

static void *close_and_count(void *argument) {
  int result = evloop_close((evloop_t)(intptr_t)argument);
  CHECK(result == 0 || result == -ESTALE);
  if (result == 0) __atomic_add_fetch(&closed_once, 1, __ATOMIC_RELAXED);
  return NULL;
}

TEST_TIMEOUT(of_many_threads_that_close_a_running_loop_one_does, 60) {
  int before = open_descriptors();
  for (int i = 0; i < 300; i++) {
    pthread_t threads[3];
    Runner r;
    Subject busy;
    closed_once = 0;
    start(&busy, new_loop(), i % POST);
    keep_alive(busy.loop);
    start_runner(&r, run_until_done, busy.loop);
    if (i % 2) UNTIL(LOAD(busy.calls) >= 1);
    for (int t = 0; t < 3; t++) {
      CHECK_EQ(pthread_create(&threads[t], NULL, close_and_count, as_data(busy.loop)), 0);
    }
    for (int t = 0; t < 3; t++) CHECK_EQ(pthread_join(threads[t], NULL), 0);
    CHECK_EQ(closed_once, 1);
    CHECK_EQ(runner_result(&r), -ESTALE);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
    end(&busy);
  }
  CHECK_EQ(open_descriptors(), before);
}

/* ---- the loop, while others call it ---- */

typedef struct Caller {
  evloop_t loop;
  evloop_watcher_t async;
  int rounds; /* atomic */
  pthread_t thread;
} Caller;

static void expect_success_or_stale(int64_t result) {
  CHECK(result >= 0 || result == -ESTALE);
}

static void *call_without_end(void *argument) {
  Caller *c = (Caller *)argument;
  while (evloop_handle_kind(c->loop) >= 0) {
    expect_success_or_stale(evloop_post(c->loop, log_word, WORD("")));
    expect_success_or_stale(evloop_async_send(c->async));
    expect_success_or_stale(evloop_wakeup(c->loop));
    int64_t watcher = evloop_add_timer(c->loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, 0, 0, log_word,
                                       WORD(""));
    expect_success_or_stale(watcher);
    if (watcher > 0) expect_success_or_stale(evloop_watcher_close(watcher, 0));
    RAISE(c->rounds, 1);
  }
  return NULL;
}

TEST_TIMEOUT(a_loop_is_closed_while_threads_call_it, 60) {
  int before = open_descriptors();
  for (int i = 0; i < 100; i++) {
    Caller c[2];
    Runner r;
    evloop_t loop = new_loop();
    for (int t = 0; t < 2; t++) {
      c[t] = (Caller){.loop = loop, .async = OK(evloop_add_async(loop, log_word, WORD("")))};
    }
    start_runner(&r, run_until_done, loop);
    for (int t = 0; t < 2; t++) CHECK_EQ(pthread_create(&c[t].thread, NULL, call_without_end, &c[t]), 0);
    UNTIL(LOAD(c[0].rounds) + LOAD(c[1].rounds) >= 5 * i);
    CHECK_EQ(evloop_close(loop), 0);
    CHECK_EQ(runner_result(&r), -ESTALE);
    for (int t = 0; t < 2; t++) CHECK_EQ(pthread_join(c[t].thread, NULL), 0);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  }
  CHECK_EQ(open_descriptors(), before);
}

CHECK_MAIN()
