/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop, continued: posted calls, evloop_wait(), the time, runs in
 * runs, and the order of one iteration. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <limits.h>

/* ---- posted calls ---- */

static evloop_event_t event_of_post(void *user_data) {
  return (evloop_event_t){
      .type = EVLOOP_EVENT_POST, .data = (uint64_t)(uintptr_t)user_data, .fd = -1, .count = 1};
}

static void expect_same_event(const evloop_event_t *event, const evloop_event_t *expected) {
  CHECK_EQ(event->watcher, expected->watcher);
  CHECK_EQ(event->data, expected->data);
  CHECK_EQ(event->type, expected->type);
  CHECK_EQ(event->events, expected->events);
  CHECK_EQ(event->fd, expected->fd);
  CHECK_EQ(event->result, expected->result);
  CHECK_EQ(event->count, expected->count);
  CHECK_EQ(event->time_ns, expected->time_ns);
  CHECK_EQ(event->deadline_ns, expected->deadline_ns);
  CHECK_EQ(event->reserved, expected->reserved);
}

TEST(a_posted_call_is_made_once_with_its_event) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_event_t expected = event_of_post(&seen);
  CHECK_EQ(sizeof expected, 64);
  CHECK_EQ(evloop_post(loop, see, &seen), 0);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(seen.calls, 1);
  expect_same_event(&seen.last, &expected);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(seen.calls, 1);
}

static void post_a_word(const evloop_event_t *event, void *user_data) {
  say(event, WORD("a"));
  CHECK_EQ(evloop_post((evloop_t)(intptr_t)user_data, say, WORD("c")), 0);
}

TEST(a_call_posted_by_a_callback_is_for_the_next_iteration) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, post_a_word, as_data(loop)), 0);
  CHECK_EQ(evloop_post(loop, say, WORD("b")), 0);
  CHECK_EQ(turn(loop), 1);
  SAID("ab");
  CHECK_EQ(turn(loop), 0);
  SAID("c");
}

/* Posts itself until it was called so many times. */
typedef struct Chain {
  evloop_t loop;
  int calls, end;
} Chain;

static void next_link(const evloop_event_t *event, void *user_data) {
  Chain *chain = (Chain *)user_data;
  (void)event;
  if (++chain->calls < chain->end) CHECK_EQ(evloop_post(chain->loop, next_link, chain), 0);
}

TEST(a_pending_call_keeps_the_loop_alive) {
  Chain chain = {.loop = new_loop(), .end = 100};
  CHECK_EQ(evloop_post(chain.loop, next_link, &chain), 0);
  for (int i = 1; i <= 5; i++) {
    CHECK_EQ(turn(chain.loop), 1);
    CHECK_EQ(chain.calls, i);
  }
  CHECK_EQ(evloop_run(chain.loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(chain.calls, 100);
}

enum { POSTERS = 4, EACH = 10000, ALL = POSTERS * EACH };

typedef struct Posters {
  evloop_t loop;
  evloop_callback_t callback;
  int started;
  pthread_t threads[POSTERS];
} Posters;

static int next_of[POSTERS]; /* what is expected of each thread */
static int in_order_calls;

static void in_order(uint64_t data) {
  uint64_t thread = data / EACH;
  CHECK(thread < POSTERS);
  CHECK_EQ(data % EACH, next_of[thread]++);
  in_order_calls++;
}

static void post_in_order(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(event->data, (uintptr_t)user_data);
  in_order(event->data);
}

static void *poster(void *argument) {
  Posters *p = (Posters *)argument;
  int64_t thread = __atomic_fetch_add(&p->started, 1, __ATOMIC_RELAXED);
  for (int64_t i = 0; i < EACH; i++) CHECK_EQ(evloop_post(p->loop, p->callback, as_data(thread * EACH + i)), 0);
  return NULL;
}

static void start_posters(Posters *p, evloop_callback_t callback) {
  *p = (Posters){.loop = new_loop(), .callback = callback};
  keep_alive(p->loop);
  for (int i = 0; i < POSTERS; i++) CHECK_EQ(pthread_create(&p->threads[i], NULL, poster, p), 0);
}

static void end_posters(const Posters *p) {
  CHECK_EQ(in_order_calls, ALL);
  for (int i = 0; i < POSTERS; i++) CHECK_EQ(pthread_join(p->threads[i], NULL), 0);
  CHECK_EQ(turn(p->loop), 1);
  CHECK_EQ(in_order_calls, ALL);
}

TEST_TIMEOUT(calls_of_each_thread_are_made_in_order_and_once, 60) {
  Posters p;
  start_posters(&p, post_in_order);
  while (in_order_calls < ALL) CHECK_EQ(evloop_run(p.loop, EVLOOP_RUN_ONCE), 1);
  end_posters(&p);
}

TEST_TIMEOUT(posted_events_of_each_thread_are_returned_in_order_and_once, 60) {
  Posters p;
  evloop_event_t events[33];
  start_posters(&p, NULL);
  while (in_order_calls < ALL) {
    int count = (int)OK(evloop_wait(p.loop, events, LENGTH(events), -1));
    CHECK(count > 0 && count <= LENGTH(events));
    for (int i = 0; i < count; i++) in_order(events[i].data);
  }
  end_posters(&p);
}

TEST(a_post_without_a_callback_is_an_event_for_wait) {
  evloop_t loop = new_loop();
  evloop_event_t events[2], expected = event_of_post(&loop);
  CHECK_EQ(evloop_post(loop, NULL, &loop), 0);
  CHECK_EQ(evloop_wait(loop, events, 2, -1), 1);
  expect_same_event(&events[0], &expected);
  CHECK_EQ(evloop_wait(loop, events, 2, -1), 0);
}

TEST(a_run_keeps_the_events_of_posts_for_wait) {
  evloop_t loop = new_loop();
  evloop_event_t events[8];
  for (int i = 0; i < 6; i++) {
    CHECK_EQ(evloop_post(loop, NULL, as_data(i)), 0);
    CHECK_EQ(evloop_post(loop, say, WORD("o")), 0);
  }
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  SAID("oooooo");
  CHECK_EQ(evloop_wait(loop, events, LENGTH(events), 0), 6);
  for (int i = 0; i < 6; i++) CHECK_EQ(events[i].data, i);
}

/* ---- waiting for events ---- */

TEST(events_without_a_callback_are_returned_and_others_called) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  Seen seen = {.calls = 0};
  Pipe quiet = new_pipe(), loud = new_pipe();
  evloop_watcher_t watcher = OK(evloop_add_io(loop, quiet.r, EVLOOP_EPOLLIN, NULL, &loop));
  OK(evloop_add_io(loop, loud.r, EVLOOP_EPOLLIN, see_and_take, &seen));
  put(loud.w);
  CHECK_EQ(evloop_wait(loop, events, 4, MS), 0);
  CHECK_EQ(seen.calls, 1);
  put(loud.w);
  put(quiet.w);
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 1);
  evloop_event_t expected = {.watcher = watcher, .data = (uint64_t)(uintptr_t)&loop,
                             .type = EVLOOP_EVENT_IO, .events = EVLOOP_EPOLLIN, .fd = quiet.r, .count = 1};
  expect_same_event(&events[0], &expected);
  OK(evloop_wait(loop, events, 4, 0));
  CHECK_EQ(seen.calls, 2);
}

TEST(a_wait_goes_on_while_only_callbacks_are_called) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  Chain chain = {.loop = loop, .end = 10};
  Pipe pipe = new_pipe();
  Seen seen = {.calls = 0};
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, see_and_close, &seen));
  put(pipe.w);
  CHECK_EQ(evloop_post(loop, next_link, &chain), 0);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 0); /* nothing is left */
  CHECK(chain.calls == 10 && seen.calls == 1);
}

TEST(waits_with_a_timeout_are_never_early) {
  static const int64_t timeouts[] = {0, 1, 1000, 500000, 20 * MS};
  evloop_t loop = new_loop();
  evloop_event_t event;
  keep_alive(loop);
  for (int i = 0; i < LENGTH(timeouts) * 10; i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(evloop_wait(loop, &event, 1, timeouts[i / 10]), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= timeouts[i / 10]);
  }
}

static int64_t wait_for_centuries(evloop_t loop) {
  evloop_event_t event;
  return evloop_wait(loop, &event, 1, INT64_MAX);
}

TEST(a_wait_of_centuries_ends_with_an_event) {
  evloop_t loop = new_loop();
  Runner r;
  evloop_watcher_t async = OK(evloop_add_async(loop, NULL, NULL));
  start_sleeper(&r, wait_for_centuries, loop);
  CHECK_EQ(evloop_async_send(async), 0);
  CHECK_EQ(runner_result(&r), 1);
}

TEST(what_does_not_fit_is_kept_for_the_next_wait) {
  enum { PIPES = 10 };
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  int seen[PIPES] = {0};
  for (int i = 0; i < PIPES; i++) {
    Pipe pipe = new_pipe();
    put(pipe.w);
    OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, NULL, as_data(i)));
  }
  for (int left = PIPES; left > 0; left -= 3) {
    memset(events, 0x55, sizeof events);
    int expected = left < 3 ? left : 3;
    CHECK_EQ(evloop_wait(loop, events, 3, -1), expected);
    for (int i = 0; i < expected; i++) CHECK_EQ(seen[events[i].data]++, 0);
    for (int i = expected; i < 4; i++) CHECK_EQ(events[i].type, 0x55555555);
  }
  CHECK_EQ(evloop_wait(loop, events, 3, 0), 0);
}

TEST(a_level_triggered_descriptor_is_returned_until_it_is_read) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  Pipe pipe = new_pipe();
  char byte;
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, NULL, NULL));
  put(pipe.w);
  for (int i = 0; i < 5; i++) CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  CHECK_EQ(read(pipe.r, &byte, 1), 1);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
}

/* What nobody fetches is kept, and does not make the run turn like mad. */
TEST(a_run_keeps_one_event_of_a_watcher_and_waits) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  Seen prepares = {.calls = 0};
  Pipe pipe = new_pipe();
  put(pipe.w);
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, NULL, as_data(1)));
  count_iterations(loop, &prepares);
  CHECK_EQ(evloop_run_for_ns(loop, 20 * MS), 1);
  CHECK(prepares.calls < 10);
  CHECK_EQ(evloop_wait(loop, events, LENGTH(events), -1), 1);
  CHECK_EQ(events[0].data, 1);
}

TEST(a_kept_event_of_a_closed_watcher_is_dropped) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  evloop_watcher_t first = OK(evloop_add_async(loop, NULL, as_data(1)));
  evloop_watcher_t second = OK(evloop_add_async(loop, NULL, as_data(2)));
  CHECK_EQ(evloop_async_send(first), 0);
  CHECK_EQ(evloop_async_send(second), 0);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(evloop_watcher_close(first, 0), 0);
  CHECK_EQ(evloop_wait(loop, events, 4, 0), 1);
  CHECK_EQ(events[0].watcher, second);
}

TEST(an_array_is_needed_and_room_in_it) {
  static const int sizes[] = {0, -1, INT_MIN};
  evloop_t loop = new_loop();
  evloop_event_t event;
  memset(&event, 0x55, sizeof event);
  CHECK_EQ(evloop_post(loop, NULL, NULL), 0);
  CHECK_ERR(evloop_wait(loop, NULL, 1, 0), EINVAL);
  for (int i = 0; i < LENGTH(sizes); i++) {
    CHECK_ERR(evloop_wait(loop, &event, sizes[i], 0), EINVAL);
    CHECK_ERR(evloop_wait(loop, NULL, sizes[i], 0), EINVAL);
  }
  CHECK_EQ(event.type, 0x55555555);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
}

static int64_t in_mode_return(evloop_t loop, RunFunction *run) {
  evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN);
  return run(loop);
}

static int64_t interrupted_run(evloop_t loop) {
  return in_mode_return(loop, run_until_done);
}

static int64_t interrupted_wait(evloop_t loop) {
  return in_mode_return(loop, wait_for_events);
}

TEST(an_interrupted_run_goes_on_or_returns_and_loses_nothing) {
  RunFunction *const runs[] = {run_until_done, wait_for_events, interrupted_run, interrupted_wait};
  handle_signals(count_signal);
  for (int i = 0; i < LENGTH(runs); i++) {
    evloop_t loop = new_loop();
    Runner r;
    keep_alive(loop);
    start_sleeper(&r, runs[i], loop);
    interrupt(r.thread);
    if (i < 2) {
      wait_until_asleep(&r.tid);
      CHECK_EQ(evloop_stop(loop), 0);
    }
    CHECK_EQ(runner_result(&r), i == 0 ? 1 : i == 1 ? 0 : -EINTR);
    CHECK_EQ(turn(loop), 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

/* What the check does; it is asked by the thread that waits. */
typedef struct Asked {
  evloop_t loop;
  int calls, closes, verdict;
} Asked;

static int be_asked(void *user_data) {
  Asked *asked = (Asked *)user_data;
  CHECK_ERR(evloop_run(asked->loop, EVLOOP_RUN_NOWAIT), EBUSY);
  CHECK_EQ(evloop_post(asked->loop, say, WORD("o")), 0);
  if (asked->closes) CHECK_EQ(evloop_close(asked->loop), 0);
  ADD(asked->calls, 1);
  return asked->verdict;
}

static Asked asked;

static int64_t run_with_check(evloop_t loop) {
  CHECK_EQ(evloop_set_interrupt_check(be_asked, &asked), 0);
  return evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
}

TEST(an_interrupted_run_asks_its_check_which_may_even_close_the_loop) {
  static const int64_t results[] = {1, -EINTR, -ESTALE};
  handle_signals(count_signal);
  for (int i = 0; i < LENGTH(results); i++) {
    Runner r;
    asked = (Asked){.loop = new_loop(), .verdict = i == 1, .closes = i == 2};
    keep_alive(asked.loop);
    start_sleeper(&r, run_with_check, asked.loop);
    interrupt(r.thread);
    UNTIL(LOAD(asked.calls) >= 1);
    if (i == 0) wait_until_asleep(&r.tid);
    if (i == 0) CHECK_EQ(evloop_stop(asked.loop), 0);
    CHECK_EQ(runner_result(&r), results[i]);
    CHECK_EQ(asked.calls, 1);
    if (i == 1) CHECK_EQ(turn(asked.loop), 1);
    SAID(i == 2 ? "" : "o");
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), i < 2 ? i + 1 : 2);
  }
}

/* ---- time ---- */

typedef struct Clock {
  evloop_t loop;
  int64_t first, last;
  int calls;
} Clock;

/* Reads it twice, with some time between. */
static void read_clock(const evloop_event_t *event, void *user_data) {
  Clock *clock = (Clock *)user_data;
  int64_t start = now_ns(CLOCK_MONOTONIC), now = OK(evloop_now_ns(clock->loop));
  (void)event;
  while (now_ns(CLOCK_MONOTONIC) - start < 2 * MS) { }
  CHECK_EQ(evloop_now_ns(clock->loop), now);
  if (clock->calls++ == 0) clock->first = now;
  clock->last = now;
}

TEST(the_time_stands_still_during_an_iteration) {
  Clock clock = {.loop = new_loop()};
  Pipe pipe = new_pipe();
  put(pipe.w);
  OK(evloop_add_io(clock.loop, pipe.r, EVLOOP_EPOLLIN, read_clock, &clock));
  CHECK_EQ(evloop_post(clock.loop, read_clock, &clock), 0);
  CHECK_EQ(evloop_post(clock.loop, read_clock, &clock), 0);
  CHECK_EQ(turn(clock.loop), 1);
  CHECK_EQ(clock.calls, 3);
  CHECK_EQ(clock.first, clock.last);
  int64_t before = now_ns(CLOCK_MONOTONIC), now = OK(evloop_now_ns(clock.loop));
  CHECK(now >= before && now <= now_ns(CLOCK_MONOTONIC));
  CHECK_EQ(turn(clock.loop), 1);
  CHECK(clock.last >= now);
}

TEST(the_time_of_an_iteration_is_when_it_found_its_events) {
  Clock clock = {.loop = new_loop()};
  Pipe pipe = new_pipe();
  Runner r;
  OK(evloop_add_io(clock.loop, pipe.r, EVLOOP_EPOLLIN, read_clock, &clock));
  start_sleeper(&r, run_once, clock.loop);
  int64_t written = now_ns(CLOCK_MONOTONIC);
  put(pipe.w);
  CHECK_EQ(runner_result(&r), 1);
  CHECK(clock.last >= written);
}

TEST(virtual_time_begins_with_zero_and_moves_when_it_is_told_to) {
  evloop_t loop = virtual_loop();
  CHECK_EQ(evloop_now_ns(loop), 0);
  CHECK_EQ(evloop_advance_ns(loop, 0), 0);
  CHECK_EQ(evloop_now_ns(loop), 0);
  CHECK_EQ(evloop_advance_ns(loop, 7), 0);
  CHECK_ERR(evloop_advance_ns(loop, -1), EINVAL);
  CHECK_EQ(evloop_now_ns(loop), 7);
  CHECK_ERR(evloop_advance_ns(new_loop(), 1), ENOTSUP);
}

TEST(the_next_timeout_is_that_of_the_earliest_timer) {
  evloop_t loop = virtual_loop();
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  keep_alive(loop);
  OK(evloop_add_io(loop, event_fd(0), EVLOOP_EPOLLIN, see, NULL));
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 500, 0, 0, say, WORD("5")));
  CHECK_EQ(evloop_next_timeout_ns(loop), 500);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_BOOTTIME, 0, 200, 0, 0, say, WORD("2")));
  CHECK_EQ(evloop_next_timeout_ns(loop), 200);
  CHECK_EQ(evloop_advance_ns(loop, 150), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 50);
  CHECK_EQ(evloop_advance_ns(loop, 50), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  CHECK_EQ(turn(loop), 1);
  SAID("2");
  CHECK_EQ(evloop_next_timeout_ns(loop), 300);
}

TEST(the_next_timeout_of_real_timers_runs_down) {
  evloop_t loop = new_loop();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 100 * SECOND, 0, 0, see, NULL));
  int64_t left = OK(evloop_next_timeout_ns(loop));
  CHECK(left <= 100 * SECOND && left >= 100 * SECOND - (now_ns(CLOCK_MONOTONIC) - start));
}

TEST(what_need_not_be_waited_for_has_a_timeout_of_zero) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, say, WORD("o")), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  evloop_watcher_t idle = OK(evloop_add_idle(loop, say, WORD("l")));
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  CHECK_EQ(evloop_watcher_disable(idle), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
}

/* ---- runs in runs ---- */

static RunFunction *const all_runs[] = {run_until_done,    run_once,        run_nowait,    run_without_limit,
                                        wait_for_events,   embed_prepare,   embed_dispatch};

static void expect_busy(evloop_t loop) {
  for (int i = 0; i < LENGTH(all_runs); i++) CHECK_ERR(all_runs[i](loop), EBUSY);
}

static void run_again(const evloop_event_t *event, void *user_data) {
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  (void)event;
  expect_busy(loop);
  OK(evloop_next_timeout_ns(loop));
  OK(evloop_fileno(loop));
  said[0]++;
}

TEST(a_loop_is_not_run_again_by_its_callbacks) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  put(pipe.w);
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, run_again, as_data(loop)));
  evloop_watcher_t async = OK(evloop_add_async(loop, run_again, as_data(loop)));
  OK(evloop_add_prepare(loop, run_again, as_data(loop)));
  CHECK_EQ(evloop_async_send(async), 0);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(said[0], 3);
}

TEST(a_loop_is_not_run_by_two_threads) {
  Gate gate;
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int in_callback = 0; in_callback < 2; in_callback++) {
    expect_busy(loop);
    CHECK_ERR(evloop_next_timeout_ns(loop), EBUSY);
    CHECK_ERR(evloop_fileno(loop), EBUSY);
    if (in_callback) break;
    hold(loop, &gate);
  }
  open_gate(&gate);
  stop_runner(&r);
}

typedef struct Nest {
  evloop_t outer, inner;
  int64_t result;
} Nest;

static void in_the_inner(const evloop_event_t *event, void *user_data) {
  Nest *nest = (Nest *)user_data;
  expect_busy(nest->outer);
  expect_busy(nest->inner);
  CHECK_EQ(evloop_stop(nest->outer), 0);
  CHECK_EQ(evloop_post(nest->outer, say, WORD("later ")), 0);
  CHECK_EQ(evloop_post(nest->inner, say, WORD("inner ")), 0);
  CHECK_EQ(evloop_watcher_close(event->watcher, 0), 0);
}

static void run_the_inner(const evloop_event_t *event, void *user_data) {
  Nest *nest = (Nest *)user_data;
  (void)event;
  nest->result = evloop_run(nest->inner, EVLOOP_RUN_UNTIL_DONE);
}

TEST(a_callback_may_run_another_loop_and_stop_its_own_there) {
  Nest nest = {.outer = new_loop(), .inner = new_loop(), .result = -1};
  OK(evloop_add_timer(nest.inner, EVLOOP_CLOCK_MONOTONIC, 0, MS, 0, 0, in_the_inner, &nest));
  CHECK_EQ(evloop_post(nest.outer, run_the_inner, &nest), 0);
  CHECK_EQ(evloop_post(nest.outer, say, WORD("outer ")), 0);
  CHECK_EQ(evloop_run(nest.outer, EVLOOP_RUN_UNTIL_DONE), 1);
  CHECK_EQ(nest.result, 0);
  SAID("inner outer ");
  CHECK_EQ(evloop_run(nest.outer, EVLOOP_RUN_UNTIL_DONE), 0);
  SAID("later ");
}

/* ---- the order of an iteration ---- */

static evloop_watcher_t add_timer(evloop_t loop, int64_t initial_ns, const char *word) {
  return OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, EVLOOP_TIMER_ABSTIME, initial_ns, 0, 0,
                             say, WORD(word)));
}

static void add_one_of_each(evloop_t loop, const Pipe *pipe) {
  OK(evloop_add_exit(loop, say, WORD("exit")));
  OK(evloop_add_idle(loop, say, WORD("idle ")));
  OK(evloop_add_check(loop, say, WORD("check ")));
  OK(evloop_add_io(loop, pipe->r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, say, WORD("io ")));
  OK(evloop_add_defer(loop, say, WORD("defer ")));
  CHECK_EQ(evloop_post(loop, say, WORD("post ")), 0);
  CHECK_EQ(evloop_async_send(OK(evloop_add_async(loop, say, WORD("async ")))), 0);
  add_timer(loop, 2, "timer2 ");
  add_timer(loop, 1, "timer1 ");
  OK(evloop_add_prepare(loop, say, WORD("prepare ")));
}

TEST(an_iteration_has_the_order_of_the_documentation) {
  for (int is_virtual = 0; is_virtual < 2; is_virtual++) {
    evloop_t loop = is_virtual ? virtual_loop() : new_loop();
    Pipe pipe = new_pipe();
    put(pipe.w);
    add_one_of_each(loop, &pipe);
    if (is_virtual) CHECK_EQ(evloop_advance_ns(loop, 2), 0);
    CHECK_EQ(turn(loop), 1);
    SAID("prepare timer1 timer2 async post defer io check ");
    CHECK_EQ(turn(loop), 1);
    SAID("prepare check idle ");
    CHECK_EQ(evloop_stop(loop), 0);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 1);
    CHECK(strlen(said) >= 4 && strcmp(said + strlen(said) - 4, "exit") == 0);
    said[0] = '\0';
    CHECK_EQ(evloop_close(loop), 0);
    SAID("");
  }
}

TEST(timers_are_called_in_the_order_of_deadlines_then_of_setting) {
  static const int64_t deadlines[] = {30, 10, 20, 10, 30, 0, 20, 10};
  static const char *const words[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
  evloop_t loop = virtual_loop();
  for (int i = 0; i < LENGTH(deadlines); i++) add_timer(loop, deadlines[i], words[i]);
  CHECK_EQ(evloop_advance_ns(loop, 10), 0);
  turn(loop);
  SAID("fbdh");
  CHECK_EQ(evloop_advance_ns(loop, 100), 0);
  turn(loop);
  SAID("cgae");
}

CHECK_MAIN()
