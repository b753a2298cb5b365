/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop, continued: posted calls and evloop_wait(). */

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
  CHECK_EQ(evloop_post(loop, record, &seen), 0);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(seen.calls, 1);
  expect_same_event(&seen.last, &expected);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(seen.calls, 1);
}

static void post_a_word(const evloop_event_t *event, void *user_data) {
  log_word(event, WORD("a"));
  CHECK_EQ(evloop_post((evloop_t)(intptr_t)user_data, log_word, WORD("c")), 0);
}

TEST(a_call_posted_by_a_callback_is_for_the_next_iteration) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, post_a_word, as_data(loop)), 0);
  CHECK_EQ(evloop_post(loop, log_word, WORD("b")), 0);
  CHECK_EQ(turn(loop), 1);
  EXPECT_LOG("ab");
  CHECK_EQ(turn(loop), 0);
  EXPECT_LOG("c");
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
    CHECK(count > 0);
    CHECK(count <= LENGTH(events));
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
    CHECK_EQ(evloop_post(loop, log_word, WORD("o")), 0);
  }
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  EXPECT_LOG("oooooo");
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
  OK(evloop_add_io(loop, loud.r, EVLOOP_EPOLLIN, record_and_take, &seen));
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
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record_and_close, &seen));
  put(pipe.w);
  CHECK_EQ(evloop_post(loop, next_link, &chain), 0);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 0); /* nothing is left */
  CHECK_EQ(chain.calls, 10);
  CHECK_EQ(seen.calls, 1);
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

TEST(a_stop_is_kept_while_there_are_events_to_return) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  int i, left = 6;
  for (i = 0; i < left; i++) {
    Pipe pipe = new_pipe();
    put(pipe.w);
    readable_io(loop, pipe.r, NULL, NULL);
  }
  CHECK_EQ(evloop_wait(loop, events, 1, -1), 1);
  CHECK_EQ(evloop_stop(loop), 0);
  while (--left > 0) CHECK_EQ(evloop_wait(loop, events, 1, -1), 1);
  CHECK_EQ(evloop_wait(loop, events, 1, -1), 0);
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 4); /* it ended one wait */
}

TEST(a_stop_by_a_callback_is_kept_beside_an_event) {
  static const bool stop_first[] = {false, true};
  evloop_t loop = new_loop();
  evloop_event_t event;
  int i;
  keep_alive(loop);
  for (i = 0; AT_ROW(i, stop_first); i++) {
    if (stop_first[i]) CHECK_EQ(evloop_post(loop, stop_loop, as_data(loop)), 0);
    CHECK_EQ(evloop_post(loop, NULL, NULL), 0);
    if (!stop_first[i]) CHECK_EQ(evloop_post(loop, stop_loop, as_data(loop)), 0);
    CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
    CHECK_EQ(evloop_wait(loop, &event, 1, -1), 0);
    CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
  }
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

/* The loop keeps a record that no evloop_wait() takes, and evloop_run() does not
 * spin because of it. */
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
  for (int i = 0; AT_ROW(i, sizes); i++) {
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
  for (int i = 0; AT_ROW(i, runs); i++) {
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
  CHECK_EQ(evloop_post(asked->loop, log_word, WORD("o")), 0);
  if (asked->closes) CHECK_EQ(evloop_close(asked->loop), 0);
  RAISE(asked->calls, 1);
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
  for (int i = 0; AT_ROW(i, results); i++) {
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
    EXPECT_LOG(i == 2 ? "" : "o");
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), i < 2 ? i + 1 : 2);
  }
}

CHECK_MAIN()
