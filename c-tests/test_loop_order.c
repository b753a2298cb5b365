/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop, continued: the time, runs in runs, and the order of one
 * iteration. */

#define _GNU_SOURCE
#include "loop_support.h"

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
  CHECK(now >= before);
  CHECK(now <= now_ns(CLOCK_MONOTONIC));
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

TEST(virtual_time_begins_with_zero_and_moves_by_advance_ns) {
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
  OK(evloop_add_io(loop, event_fd(0), EVLOOP_EPOLLIN, record, NULL));
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 500, 0, 0, log_word, WORD("5")));
  CHECK_EQ(evloop_next_timeout_ns(loop), 500);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_BOOTTIME, 0, 200, 0, 0, log_word, WORD("2")));
  CHECK_EQ(evloop_next_timeout_ns(loop), 200);
  CHECK_EQ(evloop_advance_ns(loop, 150), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 50);
  CHECK_EQ(evloop_advance_ns(loop, 50), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  CHECK_EQ(turn(loop), 1);
  EXPECT_LOG("2");
  CHECK_EQ(evloop_next_timeout_ns(loop), 300);
}

TEST(the_next_timeout_of_real_timers_runs_down) {
  evloop_t loop = new_loop();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 100 * SECOND, 0, 0, record, NULL));
  int64_t left = OK(evloop_next_timeout_ns(loop));
  CHECK(left <= 100 * SECOND);
  CHECK(left >= 100 * SECOND - (now_ns(CLOCK_MONOTONIC) - start));
}

TEST(what_need_not_be_waited_for_has_a_timeout_of_zero) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, log_word, WORD("o")), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  evloop_watcher_t idle = OK(evloop_add_idle(loop, log_word, WORD("l")));
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  CHECK_EQ(evloop_watcher_disable(idle), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
}

/* ---- runs in runs ---- */

static RunFunction *const all_runs[] = {run_until_done,    run_once,        run_nowait,    run_without_limit,
                                        wait_for_events,   embed_prepare,   embed_dispatch};

static void expect_busy(evloop_t loop) {
  for (int i = 0; AT_ROW(i, all_runs); i++) CHECK_ERR(all_runs[i](loop), EBUSY);
}

static void run_again(const evloop_event_t *event, void *user_data) {
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  (void)event;
  expect_busy(loop);
  OK(evloop_next_timeout_ns(loop));
  OK(evloop_fileno(loop));
  event_log[0]++;
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
  CHECK_EQ(event_log[0], 3);
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
  CHECK_EQ(evloop_post(nest->outer, log_word, WORD("later ")), 0);
  CHECK_EQ(evloop_post(nest->inner, log_word, WORD("inner ")), 0);
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
  CHECK_EQ(evloop_post(nest.outer, log_word, WORD("outer ")), 0);
  CHECK_EQ(evloop_run(nest.outer, EVLOOP_RUN_UNTIL_DONE), 1);
  CHECK_EQ(nest.result, 0);
  EXPECT_LOG("inner outer ");
  CHECK_EQ(evloop_run(nest.outer, EVLOOP_RUN_UNTIL_DONE), 0);
  EXPECT_LOG("later ");
}

/* ---- the order of an iteration ---- */

static evloop_watcher_t add_timer(evloop_t loop, int64_t initial_ns, const char *word) {
  return OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, EVLOOP_TIMER_ABSTIME, initial_ns, 0, 0,
                             log_word, WORD(word)));
}

static void add_one_of_each(evloop_t loop, const Pipe *pipe) {
  OK(evloop_add_exit(loop, log_word, WORD("exit")));
  OK(evloop_add_idle(loop, log_word, WORD("idle ")));
  OK(evloop_add_check(loop, log_word, WORD("check ")));
  OK(evloop_add_io(loop, pipe->r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, log_word, WORD("io ")));
  OK(evloop_add_defer(loop, log_word, WORD("defer ")));
  CHECK_EQ(evloop_post(loop, log_word, WORD("post ")), 0);
  CHECK_EQ(evloop_async_send(OK(evloop_add_async(loop, log_word, WORD("async ")))), 0);
  add_timer(loop, 2, "timer2 ");
  add_timer(loop, 1, "timer1 ");
  OK(evloop_add_prepare(loop, log_word, WORD("prepare ")));
}

TEST(an_iteration_has_the_order_of_the_documentation) {
  for (int is_virtual = 0; is_virtual < 2; is_virtual++) {
    evloop_t loop = is_virtual ? virtual_loop() : new_loop();
    Pipe pipe = new_pipe();
    put(pipe.w);
    add_one_of_each(loop, &pipe);
    if (is_virtual) CHECK_EQ(evloop_advance_ns(loop, 2), 0);
    CHECK_EQ(turn(loop), 1);
    EXPECT_LOG("prepare timer1 timer2 async post defer io check ");
    CHECK_EQ(turn(loop), 1);
    EXPECT_LOG("prepare check idle ");
    CHECK_EQ(evloop_stop(loop), 0);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 1);
    CHECK(strlen(event_log) >= 4);
    CHECK_EQ(strcmp(event_log + strlen(event_log) - 4, "exit"), 0);
    event_log[0] = '\0';
    CHECK_EQ(evloop_close(loop), 0);
    EXPECT_LOG("");
  }
}

TEST(timers_are_called_in_the_order_of_deadlines_then_of_setting) {
  static const int64_t deadlines[] = {30, 10, 20, 10, 30, 0, 20, 10};
  static const char *const words[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
  evloop_t loop = virtual_loop();
  for (int i = 0; AT_ROW(i, deadlines); i++) add_timer(loop, deadlines[i], words[i]);
  CHECK_EQ(evloop_advance_ns(loop, 10), 0);
  turn(loop);
  EXPECT_LOG("fbdh");
  CHECK_EQ(evloop_advance_ns(loop, 100), 0);
  turn(loop);
  EXPECT_LOG("cgae");
}

CHECK_MAIN()
