/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Calls that do what programs would write by hand: evloop_after(),
 * evloop_every(), evloop_io_set(), evloop_timer_set_tolerance(),
 * evloop_limit_wait_ns(), evloop_set_busy_poll(). */

#define _GNU_SOURCE
#include "loop_support.h"

#include <sys/wait.h>

static evloop_watcher_info_t info_of(evloop_watcher_t watcher) {
  evloop_watcher_info_t info;
  memset(&info, 0, sizeof info);
  info.size = sizeof info;
  CHECK_EQ(evloop_watcher_info(watcher, &info), 0);
  return info;
}

/* ---- after, every ---- */

TEST(a_function_is_called_after_some_time) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = OK(evloop_after(loop, SECOND, record, &seen));
  advance(loop, SECOND - 1);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(seen.calls, 0);
  advance(loop, 1);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(seen.last.deadline_ns, SECOND);
  /* It is a timer like any other. */
  CHECK_EQ(evloop_timer_again(watcher), 0);
  CHECK_EQ(evloop_timer_remaining_ns(watcher), SECOND);
  CHECK_ERR(evloop_after(loop, -1, record, &seen), EINVAL);
  OK(evloop_after(loop, 0, record_and_close, &seen));
  turn(loop);
  CHECK_EQ(seen.calls, 2);
}

TEST(a_function_is_called_again_and_again) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = OK(evloop_every(loop, SECOND, record, &seen));
  turn(loop);
  CHECK_EQ(seen.calls, 0);
  advance(loop, SECOND);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  advance(loop, 5 * SECOND);
  turn(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.count, 6);
  CHECK_EQ(info_of(watcher).interval_ns, SECOND);
  CHECK_ERR(evloop_every(loop, 0, record, &seen), EINVAL);
  CHECK_ERR(evloop_every(loop, -SECOND, record, &seen), EINVAL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
}

typedef struct Adder {
  evloop_t loop;
  Seen seen;
} Adder;

static void add_both(const evloop_event_t *event, void *user_data) {
  Adder *adder = (Adder *)user_data;
  (void)event;
  OK(evloop_after(adder->loop, MS, record_and_close, &adder->seen));
  OK(evloop_every(adder->loop, MS, record_and_close, &adder->seen));
}

TEST(a_callback_and_another_thread_add_both) {
  static Adder adder;
  Runner runner;
  adder.loop = new_loop();
  CHECK_EQ(evloop_post(adder.loop, add_both, &adder), 0);
  run_to_end(adder.loop);
  CHECK_EQ(adder.seen.calls, 2);
  keep_alive(adder.loop);
  start_sleeper(&runner, run_until_done, adder.loop);
  add_both(NULL, &adder);
  UNTIL(LOAD(adder.seen.calls) == 4);
  stop_runner(&runner);
}

/* ---- io_set ---- */

TEST(an_io_watcher_is_set_to_what_it_watches_for) {
  static Seen seen;
  evloop_t loop = new_loop();
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  evloop_watcher_t watcher = OK(evloop_add_io(loop, pair[0], EVLOOP_EPOLLIN, record, &seen));
  CHECK_EQ(evloop_io_set(watcher, EVLOOP_EPOLLOUT), 0);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.events, EVLOOP_EPOLLOUT);
  CHECK_EQ(evloop_io_set(watcher, 0), 0);
  CHECK_EQ(info_of(watcher).enabled, 0);
  OK(close(pair[1]));
  /* Not even a hang-up. */
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_io_set(watcher, EVLOOP_EPOLLIN), 0);
  CHECK_EQ(info_of(watcher).enabled, 1);
  turn(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK((seen.last.events & EVLOOP_EPOLLIN) != 0);
}

/* From each state to each of these. */
TEST(io_set_does_what_modify_and_enable_do) {
  const uint32_t wanted[] = {0, EVLOOP_EPOLLIN, EVLOOP_EPOLLIN | EVLOOP_EPOLLET,
                             EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, EVLOOP_EPOLLOUT};
  enum { N = LENGTH(wanted) };
  for (int i = 0; i < 2 * N * N; i++) {
    Seen seen;
    uint32_t first = wanted[i / 2 % N], second = wanted[i / 2 / N];
    evloop_t loop = new_loop();
    int fd = event_fd(1);
    memset(&seen, 0, sizeof seen);
    evloop_watcher_t watcher = OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, record, &seen));
    /* Beside another one, which takes the longer way. */
    if (i % 2) OK(evloop_add_io(loop, fd, EVLOOP_EPOLLPRI, ignore, NULL));
    CHECK_EQ(evloop_io_set(watcher, first), 0);
    turn(loop);
    CHECK_EQ(seen.calls, first != 0);
    seen.calls = 0;
    CHECK_EQ(evloop_io_set(watcher, second), 0);
    turn(loop);
    CHECK_EQ(seen.calls, second != 0);
    if (second != 0) CHECK_EQ(seen.last.events, second & 0xff);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

static void set_in_callback(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  CHECK_EQ(evloop_io_set(event->watcher, seen->calls == 1 ? EVLOOP_EPOLLOUT : 0), 0);
}

TEST(a_callback_sets_its_own_watcher) {
  static Seen seen;
  evloop_t loop = new_loop();
  readable_io(loop, event_fd(1), set_in_callback, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.last.events, EVLOOP_EPOLLOUT);
}

TEST(another_thread_sets_a_watcher_of_a_loop_that_waits) {
  static Seen seen;
  Runner runner;
  evloop_t loop = new_loop();
  keep_alive(loop);
  evloop_watcher_t watcher = OK(evloop_add_io(loop, event_fd(1), EVLOOP_EPOLLPRI, set_in_callback, &seen));
  start_sleeper(&runner, run_until_done, loop);
  CHECK_EQ(evloop_io_set(watcher, EVLOOP_EPOLLIN), 0);
  UNTIL(LOAD(seen.calls) == 2);
  stop_runner(&runner);
  CHECK_EQ(info_of(watcher).enabled, 0);
}

TEST(io_set_refuses_what_modify_refuses) {
  evloop_t loop = new_loop();
  int fd = event_fd(0);
  evloop_watcher_t io = readable_io(loop, fd, ignore, NULL);
  readable_io(loop, fd, ignore, NULL);
  CHECK_ERR(evloop_io_set(io, 1 << 20), EINVAL);
  CHECK_ERR(evloop_io_set(io, EVLOOP_EPOLLEXCLUSIVE | EVLOOP_EPOLLONESHOT), EINVAL);
  CHECK_ERR(evloop_io_set(io, EVLOOP_EPOLLEXCLUSIVE | EVLOOP_EPOLLIN), EEXIST);
  CHECK_ERR(evloop_io_set(keep_alive(loop), 0), EINVAL);
  CHECK_ERR(evloop_io_set(timer(loop, HOUR, 0, ignore, NULL), EVLOOP_EPOLLIN), EINVAL);
  CHECK_EQ(info_of(io).events, EVLOOP_EPOLLIN);
}

/* ---- tolerance ---- */

static void set_tolerance(evloop_watcher_t watcher, int64_t tolerance_ns) {
  CHECK_EQ(evloop_timer_set_tolerance(watcher, tolerance_ns), 0);
  CHECK_EQ(info_of(watcher).tolerance_ns, tolerance_ns);
}

/* Queued, queued and waited for, disabled, periodic: an hour late, else. */
TEST(a_smaller_tolerance_makes_a_timer_expire_in_time) {
  for (int i = 0; i < 4; i++) {
    Seen seen;
    evloop_t loop = new_loop();
    memset(&seen, 0, sizeof seen);
    evloop_watcher_t watcher = OK(evloop_add_timer(loop, MONOTONIC, 0, 20 * MS, i == 3 ?
                                                   20 * MS : 0, HOUR, record, &seen));
    if (i == 1) turn(loop);
    if (i == 2) CHECK_EQ(evloop_watcher_disable(watcher), 0);
    set_tolerance(watcher, 0);
    if (i == 2) CHECK_EQ(evloop_watcher_enable(watcher), 0);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), i == 3);
    if (i == 3) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    CHECK_EQ(seen.calls, i == 3 ? 2 : 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_larger_tolerance_lets_timers_expire_together) {
  static Seen early, late;
  evloop_t loop = new_loop();
  evloop_watcher_t first = timer(loop, 2 * MS, 0, record, &early);
  timer(loop, 60 * MS, 0, record, &late);
  set_tolerance(first, INT64_C(1) << 30);
  run_to_end(loop);
  CHECK_EQ(early.calls, 1);
  CHECK_EQ(late.calls, 1);
}

TEST(a_tolerance_that_changes_often_takes_no_memory) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, HOUR, HOUR, record, &seen);
  for (int i = 0; i < 100000; i++) CHECK_EQ(evloop_timer_set_tolerance(watcher, i % 2 ? HOUR : 0), 0);
  advance(loop, HOUR);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  advance(loop, HOUR);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 2);
}

static void set_and_see(const evloop_event_t *event, void *user_data) {
  evloop_t loop = OK(evloop_watcher_loop(event->watcher));
  evloop_watcher_t fresh = OK(evloop_add_timer(loop, MONOTONIC, 0, MS, 0, HOUR, record, user_data));
  set_tolerance(fresh, 0);
}

TEST(a_callback_and_another_thread_set_a_tolerance) {
  static Seen seen;
  Runner runner;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, set_and_see, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
  evloop_watcher_t watcher = OK(evloop_add_timer(loop, MONOTONIC, 0, MS, 0, HOUR, record, &seen));
  start_sleeper(&runner, run_until_done, loop);
  CHECK_EQ(evloop_timer_set_tolerance(watcher, 0), 0);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(seen.calls, 2);
  CHECK_ERR(evloop_timer_set_tolerance(watcher, -1), EINVAL);
  CHECK_ERR(evloop_timer_set_tolerance(keep_alive(loop), 1), EINVAL);
}

/* ---- limit_wait ---- */

typedef struct Limiter {
  Seen seen;
  evloop_t loop;
  int64_t ns[2];
} Limiter;

static void limit(const evloop_event_t *event, void *user_data) {
  Limiter *limiter = (Limiter *)user_data;
  CHECK_EQ(evloop_limit_wait_ns(limiter->loop, limiter->ns[0]), 0);
  CHECK_EQ(evloop_limit_wait_ns(limiter->loop, limiter->ns[1]), 0);
  record(event, &limiter->seen);
  if (limiter->seen.calls == 4) CHECK_EQ(evloop_stop(limiter->loop), 0);
}

TEST(a_prepare_watcher_limits_the_wait) {
  static Limiter limiter = {.ns = {20 * MS, HOUR}};
  int64_t start = now_ns(CLOCK_MONOTONIC);
  limiter.loop = new_loop();
  OK(evloop_add_prepare(limiter.loop, limit, &limiter));
  timer(limiter.loop, HOUR, 0, ignore, NULL);
  CHECK_EQ(evloop_run(limiter.loop, EVLOOP_RUN_UNTIL_DONE), 1);
  CHECK_EQ(limiter.seen.calls, 4);
  /* The last wait of the four is that of a stopped loop. */
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 3 * 20 * MS);
}

TEST(a_limit_of_0_is_a_look) {
  static Limiter limiter = {.ns = {0, 0}};
  limiter.loop = virtual_loop();
  OK(evloop_add_prepare(limiter.loop, limit, &limiter));
  CHECK_EQ(evloop_run(limiter.loop, EVLOOP_RUN_UNTIL_DONE), 1);
  CHECK_EQ(evloop_now_ns(limiter.loop), 0);
}

TEST(a_limit_is_for_one_wait) {
  evloop_t loop = new_loop();
  Runner runner;
  keep_alive(loop);
  CHECK_EQ(evloop_limit_wait_ns(loop, MS), 0);
  start_sleeper(&runner, run_until_done, loop);
  CHECK_ERR(evloop_limit_wait_ns(loop, MS), EBUSY);
  stop_runner(&runner);
  CHECK_ERR(evloop_limit_wait_ns(loop, -1), EINVAL);
}

TEST(next_timeout_ns_returns_a_limit_to_a_foreign_loop) {
  static Limiter limiter = {.ns = {HOUR, 5 * MS}};
  limiter.loop = new_loop();
  evloop_watcher_t prepare = OK(evloop_add_prepare(limiter.loop, limit, &limiter));
  CHECK_EQ(evloop_embed_prepare(limiter.loop), 0);
  CHECK_EQ(evloop_next_timeout_ns(limiter.loop), 5 * MS);
  OK(evloop_embed_dispatch(limiter.loop));
  CHECK_EQ(evloop_next_timeout_ns(limiter.loop), INT64_MAX);
  close_watcher(prepare);
}

/* ---- busy polling ---- */

TEST(busy_polling_is_set_or_not_supported) {
  evloop_t loop = new_loop();
  int result = evloop_set_busy_poll(loop, 50, 8, 1);
  if (result != -ENOTSUP) CHECK_EQ(result, 0);
  CHECK_ERR(evloop_set_busy_poll(loop, UINT32_C(1) << 31, 8, 0), EINVAL);
  CHECK_ERR(evloop_set_busy_poll(loop, 1, -1, 0), EINVAL);
  CHECK_ERR(evloop_set_busy_poll(loop, 1, 65536, 0), EINVAL);
  CHECK_ERR(evloop_set_busy_poll(loop, 1, 8, 2), EINVAL);
  CHECK_EQ(turn(loop), 0);
}

CHECK_MAIN()
