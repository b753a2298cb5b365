/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Event loops and the system's clocks: timers on each of them, steps of the
 * wall clock, timer file descriptors. */

#define _GNU_SOURCE 1
#include "loop_support.h"

#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#define ABSTIME EVLOOP_TIMER_ABSTIME

/* ---- helpers ---- */

/* Moves the wall clock; 0 sets it to what it is. Whether that is allowed. */
static bool shift_clock(int64_t ns) {
  int64_t now = now_ns(CLOCK_REALTIME) + ns;
  struct timespec time;
  time.tv_sec = now / SECOND;
  time.tv_nsec = now % SECOND;
  if (clock_settime(CLOCK_REALTIME, &time) == 0) return true;
  CHECK_EQ(errno, EPERM);
  return false;
}

static void need_to_step(void) {
  lock_clock();
  if (!shift_clock(0)) SKIP("setting the clock is not permitted");
}

/* 0, or the error of the kernel for a timerfd on this clock. */
static int clock_error(int clock) {
  int fd = timerfd_create(clock, TFD_CLOEXEC);
  if (fd < 0) return -errno;
  OK(close(fd));
  return 0;
}

/* ---- the five clocks ---- */

typedef struct Clock {
  int id;
  clockid_t shows;    /* what can be read of it */
  clockid_t relative; /* what relative timers count on */
} Clock;

static const Clock clocks[] = {
    {EVLOOP_CLOCK_REALTIME, CLOCK_REALTIME, CLOCK_MONOTONIC},
    {EVLOOP_CLOCK_MONOTONIC, CLOCK_MONOTONIC, CLOCK_MONOTONIC},
    {EVLOOP_CLOCK_BOOTTIME, CLOCK_BOOTTIME, CLOCK_BOOTTIME},
    {EVLOOP_CLOCK_REALTIME_ALARM, CLOCK_REALTIME, CLOCK_BOOTTIME},
    {EVLOOP_CLOCK_BOOTTIME_ALARM, CLOCK_BOOTTIME, CLOCK_BOOTTIME},
};

static void expect_refused(int clock, int error) {
  static const int64_t times[] = {0, -1, HOUR};
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    int64_t result = evloop_add_timer(loop, clock, 0, times[i], 0, 0, ignore, NULL);
    CHECK_EQ(result, error == -EPERM ? -EPERM : -ENOTSUP);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

static void expect_relative(const Clock *clock) {
  static Seen seen;
  evloop_t loop = new_loop();
  int64_t due = now_ns(clock->relative) + 2 * MS, monotonic = now_ns(CLOCK_MONOTONIC) + 2 * MS;
  memset(&seen, 0, sizeof seen);
  OK(evloop_add_timer(loop, clock->id, 0, 2 * MS, 0, 0, record, &seen));
  run_to_end(loop);
  CHECK(now_ns(CLOCK_MONOTONIC) >= monotonic);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.count, 1);
  CHECK(seen.last.time_ns >= seen.last.deadline_ns);
  /* The header does not say which clock shows these for REALTIME_ALARM. */
  if (clock->id == EVLOOP_CLOCK_REALTIME_ALARM) return;
  CHECK(seen.last.deadline_ns >= due);
  CHECK(seen.last.time_ns <= now_ns(clock->relative));
}

static void expect_absolute(const Clock *clock) {
  static Seen seen;
  evloop_t loop = new_loop();
  int64_t due = now_ns(clock->shows) + 2 * MS;
  memset(&seen, 0, sizeof seen);
  OK(evloop_add_timer(loop, clock->id, ABSTIME, due, 0, 0, record, &seen));
  run_to_end(loop);
  CHECK(now_ns(clock->shows) >= due);
  CHECK_EQ(seen.last.deadline_ns, due);
  CHECK(seen.last.time_ns >= due);
  CHECK(seen.last.time_ns <= now_ns(clock->shows));
  OK(evloop_add_timer(loop, clock->id, ABSTIME, 1, 0, 0, record, &seen));
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.last.deadline_ns, 1);
}

static void expect_clock(int i) {
  int error = clock_error(clocks[i].id);
  if (error != 0) {
    expect_refused(clocks[i].id, error);
    return;
  }
  lock_clock();
  expect_relative(&clocks[i]);
  expect_absolute(&clocks[i]);
}

TEST(timers_of_the_wall_clock) { expect_clock(0); }
TEST(timers_of_the_monotonic_clock) { expect_clock(1); }
TEST(timers_of_the_boot_clock) { expect_clock(2); }
TEST(timers_of_the_wall_clock_that_wake_the_system) { expect_clock(3); }
TEST(timers_of_the_boot_clock_that_wake_the_system) { expect_clock(4); }

TEST(alarm_clocks_need_a_privilege) {
  if (geteuid() == 0) OK(setresuid(65534, 65534, 65534));
  CHECK_EQ(clock_error(CLOCK_REALTIME_ALARM), -EPERM);
  expect_refused(EVLOOP_CLOCK_REALTIME_ALARM, -EPERM);
  expect_refused(EVLOOP_CLOCK_BOOTTIME_ALARM, -EPERM);
}

TEST(each_clock_takes_one_descriptor) {
  evloop_t loop = new_loop();
  int before = open_descriptors(), i, usable = 0;
  for (i = 0; AT_ROW(i, clocks); i++) {
    if (clock_error(clocks[i].id) != 0) continue;
    usable++;
    OK(evloop_add_timer(loop, clocks[i].id, 0, HOUR, 0, 0, ignore, NULL));
    OK(evloop_add_timer(loop, clocks[i].id, ABSTIME, INT64_MAX / 2, HOUR, 0, ignore, NULL));
    turn(loop);
  }
  CHECK(open_descriptors() - before <= usable);
  close_loop(loop);
  CHECK(open_descriptors() < before);
}

/* ---- steps of the wall clock ---- */

static void expect_wall_clock(const evloop_event_t *event, void *user_data) {
  CHECK(now_ns(CLOCK_REALTIME) >= *(const int64_t *)user_data);
  CHECK_EQ(event->deadline_ns, *(const int64_t *)user_data);
  log_char('a');
}

static void expect_monotonic_clock(const evloop_event_t *event, void *user_data) {
  CHECK(now_ns(CLOCK_MONOTONIC) >= *(const int64_t *)user_data);
  CHECK(event->deadline_ns >= *(const int64_t *)user_data);
  log_char('r');
}

/* Whether the timers expired in this order (a character each) when the clock
 * was shifted: before the loop runs, or while it sleeps. */
static bool shifted(int64_t absolute_ns, int64_t relative_ns, int64_t shift_ns, bool asleep,
                    const char *order) {
  static Runner runner;
  evloop_t loop = new_loop();
  int64_t wall = now_ns(CLOCK_REALTIME) + absolute_ns;
  int64_t due = now_ns(CLOCK_MONOTONIC) + relative_ns;
  bool as_expected;
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, ABSTIME, wall, 0, 0, expect_wall_clock, &wall));
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, 0, relative_ns, 0, 0, expect_monotonic_clock,
                      &due));
  if (asleep) start_sleeper(&runner, run_until_done, loop);
  CHECK(shift_clock(shift_ns));
  if (asleep) {
    CHECK_EQ(runner_result(&runner), 0);
  } else {
    run_to_end(loop);
  }
  CHECK(shift_clock(-shift_ns));
  CHECK_EQ(strlen(event_log), 2);
  as_expected = strcmp(event_log, order) == 0;
  event_log[0] = '\0';
  close_loop(loop);
  return as_expected;
}

/* A slow machine may be late for the first times. */
static void expect_forward(bool asleep) {
  int64_t step = 200 * MS;
  need_to_step();
  while (!shifted(step, step * 3 / 4, step, asleep, "ar")) {
    step *= 3;
    CHECK(step < 6 * SECOND);
  }
}

static void expect_backward(bool asleep) {
  int64_t step = 200 * MS;
  need_to_step();
  while (!shifted(step / 2, step, -step, asleep, "ra")) {
    step *= 3;
    CHECK(step < 6 * SECOND);
  }
}

TEST(absolute_timers_follow_a_step_forward) { expect_forward(false); }
/* The step is given up and tried again too often where threads take turns. */
TEST_WITHOUT_VALGRIND(absolute_timers_follow_a_step_forward_while_the_loop_sleeps, 20) {
  expect_forward(true);
}
TEST(absolute_timers_follow_a_step_backward) { expect_backward(false); }
TEST(absolute_timers_follow_a_step_backward_while_the_loop_sleeps) { expect_backward(true); }

TEST(remaining_of_an_absolute_timer_follows_a_step) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher;
  int64_t left;
  need_to_step();
  watcher = OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, ABSTIME, now_ns(CLOCK_REALTIME) + HOUR,
                                0, 0, ignore, NULL));
  CHECK(shift_clock(200 * MS));
  left = OK(evloop_timer_remaining_ns(watcher));
  CHECK(shift_clock(-200 * MS));
  CHECK(left <= HOUR - 200 * MS);
}

TEST(a_step_to_the_same_time_expires_nothing) {
  static Seen seen;
  evloop_t loop = new_loop();
  lock_clock();
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, ABSTIME, now_ns(CLOCK_REALTIME) + HOUR, 0, 0,
                      record,
                      &seen));
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, 0, HOUR, 0, 0, record, &seen));
  OK(evloop_add_timer(loop, MONOTONIC, 0, HOUR, 0, 0, record, &seen));
  turn(loop);
  shift_clock(0);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 0);
}

TEST(a_clock_change_watcher_has_an_event_for_each_step) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_clock_change(loop, record, &seen));
  int i;
  CHECK_EQ(evloop_handle_kind(watcher), EVLOOP_KIND_WATCHER);
  timer(loop, HOUR, 0, ignore, NULL);
  turn(loop);
  lock_clock();
  turn(loop);
  seen.calls = 0; /* of those that had the lock */
  for (i = 0; i < 3; i++) {
    bool stepped = shift_clock(0);
    CHECK_EQ(evloop_run(loop, stepped ? EVLOOP_RUN_ONCE : EVLOOP_RUN_NOWAIT), 1);
    turns(loop, 2);
    CHECK_EQ(seen.calls, stepped ? i + 1 : 0);
    if (stepped) expect_plain(&seen.last, watcher, EVLOOP_EVENT_CLOCK_CHANGE, &seen);
  }
}

TEST(a_clock_change_wakes_a_sleeping_loop) {
  static Runner runner;
  evloop_t loop = new_loop();
  need_to_step();
  OK(evloop_add_clock_change(loop, stop_loop, as_data(loop)));
  timer(loop, HOUR, 0, ignore, NULL);
  start_sleeper(&runner, run_until_done, loop);
  CHECK(shift_clock(0));
  CHECK_EQ(runner_result(&runner), 1);
}

TEST(a_clock_change_watcher_does_not_keep_the_loop_alive) {
  evloop_t loop = new_loop();
  OK(evloop_add_clock_change(loop, ignore, NULL));
  run_to_end(loop);
  CHECK_EQ(evloop_run_for_ns(loop, HOUR), 0);
}

TEST(the_virtual_clock_is_never_set) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  OK(evloop_add_clock_change(loop, record, &seen));
  timer(loop, HOUR, 0, ignore, NULL);
  turn(loop);
  lock_clock();
  shift_clock(0);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 0);
}

/* ---- timer file descriptors ---- */

static tfd_t new_tfd(int clock) {
  return OK(tfd_create(clock, 0));
}

static void set_tfd(tfd_t tfd, uint32_t flags, int64_t initial_ns, int64_t interval_ns) {
  CHECK_EQ(tfd_settime_ns(tfd, flags, initial_ns, interval_ns, NULL, NULL), 0);
}

static evloop_watcher_t watch_tfd(evloop_t loop, tfd_t tfd, Seen *seen) {
  return OK(evloop_add_tfd(loop, tfd, record, seen));
}

static void expect_tfd_event(const evloop_event_t *event, int64_t watcher, const void *data) {
  CHECK_EQ(event->watcher, watcher);
  CHECK_EQ(event->type, EVLOOP_EVENT_TFD);
  CHECK_EQ(event->data, (uintptr_t)data);
  CHECK_EQ(event->fd, -1);
  CHECK_EQ(event->time_ns, 0);
  CHECK_EQ(event->deadline_ns, 0);
  CHECK_EQ(event->reserved, 0);
}

TEST(expirations_of_a_tfd_are_counted) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(MONOTONIC);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  set_tfd(tfd, EVLOOP_TFD_TIMER_ABSTIME, start + MS, MS);
  while (seen.count < 20) {
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    CHECK((int64_t)seen.count <= (now_ns(CLOCK_MONOTONIC) - start) / MS);
  }
  expect_tfd_event(&seen.last, watcher, &seen);
  CHECK_EQ(seen.last.events, 0);
  CHECK_EQ(seen.last.result, 0);
  set_tfd(tfd, 0, 0, 0);
  close_watcher(watcher);
  CHECK_EQ(tfd_close(tfd), 0);
}

TEST(a_single_expiration_of_a_tfd_is_one_event) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(MONOTONIC);
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  set_tfd(tfd, 0, 1, 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.count, 1);
  close_watcher(watcher);
  CHECK_EQ(tfd_settime_ns(tfd, 0, HOUR, 0, NULL, NULL), 0);
}

TEST(missed_expirations_of_a_tfd_come_in_one_event) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(EVLOOP_CLOCK_REALTIME);
  lock_clock();
  watch_tfd(loop, tfd, &seen);
  set_tfd(tfd, EVLOOP_TFD_TIMER_ABSTIME, now_ns(CLOCK_REALTIME) - 100 * HOUR - HOUR / 2, HOUR);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.count, 101);
}

TEST(a_cancelled_tfd_is_reported_and_stays_watched) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(EVLOOP_CLOCK_REALTIME);
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  need_to_step();
  set_tfd(tfd, EVLOOP_TFD_TIMER_ABSTIME | EVLOOP_TFD_TIMER_CANCEL_ON_SET,
          now_ns(CLOCK_REALTIME) + HOUR, 0);
  turn(loop);
  CHECK(shift_clock(0));
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  expect_tfd_event(&seen.last, watcher, &seen);
  CHECK_EQ(seen.last.events, EVLOOP_ERROR);
  CHECK_EQ(seen.last.result, -ECANCELED);
  set_tfd(tfd, 0, 1, 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.last.result, 0);
  CHECK_EQ(seen.last.count, 1);
}

static void expect_closed(evloop_t loop, Seen *seen, evloop_watcher_t watcher) {
  run_to_end(loop); /* it is disabled, and nothing else is there */
  CHECK_EQ(seen->calls, 1);
  expect_tfd_event(&seen->last, watcher, seen);
  CHECK_EQ(seen->last.events, EVLOOP_ERROR);
  CHECK_EQ(seen->last.result, -ESTALE);
  close_watcher(watcher);
}

TEST(a_tfd_that_was_closed_is_reported) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(MONOTONIC);
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  set_tfd(tfd, 0, HOUR, 0);
  turn(loop);
  CHECK_EQ(tfd_close(tfd), 0);
  expect_closed(loop, &seen, watcher);
}

TEST(a_borrowed_tfd_that_was_closed_is_reported) {
  static Seen seen;
  evloop_t loop = new_loop();
  int fd = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  tfd_t tfd = OK(tfd_from_fd(fd, 0));
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  CHECK_EQ(tfd_settime_ns(tfd, 0, MS, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_close(tfd), 0);
  expect_closed(loop, &seen, watcher);
  OK(fcntl(fd, F_GETFD));
}

TEST(a_new_tfd_is_not_taken_for_the_closed_one) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(MONOTONIC), other;
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  turn(loop);
  CHECK_EQ(tfd_close(tfd), 0);
  /* It has the same descriptor, unless the loop still keeps that open. */
  other = new_tfd(MONOTONIC);
  set_tfd(other, 0, 1, 0);
  CHECK(readable((int)OK(tfd_fileno(other)), -1));
  expect_closed(loop, &seen, watcher);
  CHECK_EQ(tfd_read(other, NULL), 0);
}

TEST(a_closed_tfd_does_not_keep_its_descriptor) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(MONOTONIC);
  int fd = (int)OK(tfd_fileno(tfd));
  evloop_watcher_t watcher = watch_tfd(loop, tfd, &seen);
  turn(loop);
  CHECK_EQ(tfd_close(tfd), 0);
  expect_closed(loop, &seen, watcher);
  CHECK_EQ(fcntl(fd, F_GETFD), -1);
}

TEST(what_is_no_tfd_cannot_be_watched_as_one) {
  evloop_t loop = new_loop();
  tfd_t tfd = new_tfd(MONOTONIC);
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  CHECK_ERR(evloop_add_tfd(loop, loop, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_tfd(loop, watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_tfd(tfd, tfd, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_tfd(watcher, tfd, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_tfd(loop, 0, ignore, NULL), ESTALE);
  CHECK_ERR(evloop_add_tfd(loop, OK(tfd_fileno(tfd)), ignore, NULL), ESTALE);
  CHECK_ERR(evloop_add_tfd(virtual_loop(), tfd, ignore, NULL), ENOTSUP);
  CHECK_EQ(tfd_close(tfd), 0);
  CHECK_ERR(evloop_add_tfd(loop, tfd, ignore, NULL), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
}

CHECK_MAIN()
