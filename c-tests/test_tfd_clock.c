/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timer file descriptors: what they are set to, and what they then do, when
 * their clock is stepped too. */

#define _GNU_SOURCE
#include "support.h"

#include <math.h>
#include <stddef.h>
#include <sys/un.h>

#define ABSTIME EVLOOP_TFD_TIMER_ABSTIME
#define CANCEL_ON_SET (EVLOOP_TFD_TIMER_ABSTIME | EVLOOP_TFD_TIMER_CANCEL_ON_SET)

/* ---- helpers ---- */

/* A timer whose reads do not wait: tfd_wait does. */
static tfd_t timer_of(int clock) {
  return OK(tfd_create(clock, EVLOOP_TFD_NONBLOCK));
}

static tfd_t new_timer(void) {
  return timer_of(EVLOOP_CLOCK_MONOTONIC);
}

static void set(tfd_t t, uint32_t flags, int64_t initial_ns, int64_t interval_ns) {
  CHECK_EQ(tfd_settime_ns(t, flags, initial_ns, interval_ns, NULL, NULL), 0);
}

static void set_s(tfd_t t, uint32_t flags, double initial_s, double interval_s) {
  CHECK_EQ(tfd_settime(t, flags, initial_s, interval_s, NULL, NULL), 0);
}

static int64_t remaining(tfd_t t) {
  int64_t initial_ns = -1;
  CHECK_EQ(tfd_gettime_ns(t, &initial_ns, NULL), 0);
  CHECK(initial_ns >= 0);
  return initial_ns;
}

static int64_t interval_of(tfd_t t) {
  int64_t interval_ns = -1;
  CHECK_EQ(tfd_gettime_ns(t, NULL, &interval_ns), 0);
  return interval_ns;
}

static uint64_t wait_for(tfd_t t) {
  uint64_t expirations = 0;
  CHECK_EQ(tfd_wait(t, -1, &expirations), 1);
  CHECK(expirations >= 1);
  return expirations;
}

static int fd_of(tfd_t t) {
  return (int)OK(tfd_fileno(t));
}

static void expect_disarmed(tfd_t t) {
  CHECK_EQ(remaining(t), 0);
  CHECK(!readable(fd_of(t), 0));
}

/* ---- the old values ---- */

TEST(settime_ns_returns_what_was_left) {
  tfd_t t = new_timer();
  int64_t initial_ns = -1, interval_ns = -1, start = now_ns(CLOCK_MONOTONIC), elapsed;
  CHECK_EQ(tfd_settime_ns(t, 0, 2 * HOUR, 3 * HOUR, &initial_ns, &interval_ns), 0);
  CHECK_EQ(initial_ns, 0);
  CHECK_EQ(interval_ns, 0);
  CHECK_EQ(tfd_settime_ns(t, 0, 0, 0, &initial_ns, &interval_ns), 0);
  elapsed = now_ns(CLOCK_MONOTONIC) - start;
  CHECK(initial_ns <= 2 * HOUR);
  CHECK(initial_ns >= 2 * HOUR - elapsed);
  CHECK_EQ(interval_ns, 3 * HOUR);
  CHECK_EQ(tfd_settime_ns(t, 0, 0, 0, &initial_ns, NULL), 0);
  CHECK_EQ(initial_ns, 0);
}

TEST(settime_returns_what_was_left) {
  tfd_t t = new_timer();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  double initial_s = -1, interval_s = -1, elapsed;
  CHECK_EQ(tfd_settime(t, 0, 1000.5, 0.25, &initial_s, &interval_s), 0);
  CHECK_EQ(initial_s, 0);
  CHECK_EQ(interval_s, 0);
  CHECK_EQ(tfd_settime(t, 0, 0, 0, &initial_s, &interval_s), 0);
  elapsed = (double)(now_ns(CLOCK_MONOTONIC) - start) / 1e9;
  CHECK(initial_s <= 1000.5);
  CHECK(initial_s >= 1000.5 - elapsed - 1e-6);
  CHECK(interval_s == 0.25);
  CHECK_EQ(tfd_settime(t, 0, 0, 0, NULL, &interval_s), 0);
  CHECK(interval_s == 0);
}

TEST(what_was_left_is_a_duration_under_abstime_too) {
  tfd_t t = timer_of(EVLOOP_CLOCK_REALTIME);
  int64_t initial_ns = -1;
  set(t, ABSTIME, now_ns(CLOCK_REALTIME) + 10 * HOUR, 0);
  CHECK(remaining(t) > 9 * HOUR);
  CHECK(remaining(t) < 11 * HOUR);
  CHECK_EQ(tfd_settime_ns(t, 0, HOUR, 0, &initial_ns, NULL), 0);
  CHECK(initial_ns > 9 * HOUR);
  CHECK(initial_ns < 11 * HOUR);
}

TEST(gettime_returns_seconds) {
  tfd_t t = new_timer();
  double initial_s = -1, interval_s = -1;
  set(t, 0, HOUR, 1500 * MS);
  CHECK_EQ(tfd_gettime(t, &initial_s, &interval_s), 0);
  CHECK(initial_s > 1800);
  CHECK(initial_s <= 3600);
  CHECK(interval_s == 1.5);
  CHECK_EQ(tfd_gettime(t, NULL, NULL), 0);
  CHECK_EQ(tfd_gettime_ns(t, NULL, NULL), 0);
}

TEST(gettime_does_not_take_expirations) {
  tfd_t t = new_timer();
  set(t, 0, 1, 0);
  CHECK(readable(fd_of(t), -1));
  CHECK_EQ(remaining(t), 0);
  CHECK_EQ(tfd_gettime(t, NULL, NULL), 0);
  CHECK(readable(fd_of(t), 0));
  CHECK_EQ(wait_for(t), 1);
}

/* ---- disarming ---- */

TEST(zero_disarms_whatever_the_interval_and_the_flags) {
  tfd_t t = new_timer();
  static const uint32_t flags[] = {0, ABSTIME, CANCEL_ON_SET};
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    set(t, 0, HOUR, HOUR);
    set(t, flags[i], 0, 0);
    expect_disarmed(t);
    set(t, 0, HOUR, HOUR);
    set(t, flags[i], 0, 1);
    expect_disarmed(t);
    set(t, 0, HOUR, HOUR);
    set_s(t, flags[i], 0.0, 1.5);
    expect_disarmed(t);
  }
}

TEST(minus_zero_disarms) {
  tfd_t t = new_timer();
  set(t, 0, HOUR, HOUR);
  set_s(t, 0, -0.0, -0.0);
  expect_disarmed(t);
  CHECK_EQ(interval_of(t), 0);
}

TEST(setting_drops_expirations_that_were_not_read) {
  tfd_t t = new_timer();
  static const int64_t times[] = {0, HOUR};
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    set(t, 0, 1, 0);
    CHECK(readable(fd_of(t), -1));
    set(t, 0, times[i], 0);
    CHECK(!readable(fd_of(t), 0));
    CHECK_ERR(tfd_read(t, NULL), EAGAIN);
  }
}

/* ---- times that are refused ---- */

static void expect_hour_left(tfd_t t) {
  int64_t left = remaining(t);
  CHECK(left > 0);
  CHECK(left <= HOUR);
  CHECK_EQ(interval_of(t), 2 * HOUR);
}

static void refuse_ns(tfd_t t, uint32_t flags, int64_t initial, int64_t interval, int code) {
  int64_t old_initial = 77, old_interval = 78;
  CHECK_ERR(tfd_settime_ns(t, flags, initial, interval, &old_initial, &old_interval), code);
  CHECK_EQ(old_initial, 77);
  CHECK_EQ(old_interval, 78);
  expect_hour_left(t);
}

static void refuse_s(tfd_t t, uint32_t flags, double initial, double interval, int code) {
  double old_initial = 77, old_interval = 78;
  CHECK_ERR(tfd_settime(t, flags, initial, interval, &old_initial, &old_interval), code);
  CHECK_EQ(old_initial, 77);
  CHECK_EQ(old_interval, 78);
  expect_hour_left(t);
}

static tfd_t hour_timer(void) {
  tfd_t t = new_timer();
  set(t, 0, HOUR, 2 * HOUR);
  return t;
}

TEST(negative_nanoseconds_are_refused_and_change_nothing) {
  static const int64_t times[] = {-1, -SECOND, INT64_MIN};
  tfd_t t = hour_timer();
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    refuse_ns(t, 0, times[i], 0, EINVAL);
    refuse_ns(t, 0, SECOND, times[i], EINVAL);
    refuse_ns(t, 0, 0, times[i], EINVAL);
    refuse_ns(t, ABSTIME, times[i], 0, EINVAL);
  }
}

TEST(seconds_that_are_no_time_are_refused_and_change_nothing) {
  static const struct { double seconds; int code; } rows[] = {
      {-1, EINVAL},         {-1e-10, EINVAL},       {-1e300, EINVAL},
      {-INFINITY, EINVAL},  {NAN, EINVAL},          {INFINITY, EOVERFLOW},
      {1e300, EOVERFLOW},   {9.3e9, EOVERFLOW},     {9223372036.8547764, EOVERFLOW}};
  tfd_t t = hour_timer();
  int i;
  for (i = 0; AT_ROW(i, rows); i++) {
    refuse_s(t, 0, rows[i].seconds, 0, rows[i].code);
    refuse_s(t, 0, 1, rows[i].seconds, rows[i].code);
    refuse_s(t, 0, 0, rows[i].seconds, rows[i].code);
    refuse_s(t, ABSTIME, rows[i].seconds, 0, rows[i].code);
  }
}

TEST(unknown_settime_flags_are_refused_and_change_nothing) {
  tfd_t t = hour_timer();
  uint32_t bit;
  for (bit = 4; bit != 0; bit <<= 1) {
    refuse_ns(t, bit, SECOND, 0, EINVAL);
    refuse_s(t, bit | ABSTIME, 1, 0, EINVAL);
  }
}

/* ---- times that are accepted ---- */

TEST(the_longest_times_are_accepted) {
  static const uint32_t flags[] = {0, ABSTIME};
  tfd_t t = new_timer();
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    set(t, flags[i], INT64_MAX, INT64_MAX);
    CHECK(remaining(t) > INT64_MAX / 2);
    CHECK(interval_of(t) > INT64_MAX / 2);
    set_s(t, flags[i], 9.2e9, 9.2e9);
    CHECK(remaining(t) > INT64_MAX / 2);
    CHECK(interval_of(t) == INT64_C(9200000000) * SECOND);
    CHECK(!readable(fd_of(t), 0));
  }
}

TEST(the_shortest_seconds_are_not_zero) {
  static const double times[] = {1e-10, 1e-9, 1e-300, 4.9406564584124654e-324};
  tfd_t t = new_timer();
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    set_s(t, 0, times[i], 0);
    CHECK_EQ(wait_for(t), 1);
    set_s(t, 0, 3600, times[i]);
    CHECK_EQ(interval_of(t), 1);
  }
}

TEST(fractions_of_a_nanosecond_are_rounded_up) {
  static const struct { double seconds; int64_t ns; } rows[] = {
      {0.5, 500 * MS}, {1.5e-9, 2}, {2.25e-9, 3}, {3, 3 * SECOND}, {1e9 + 0.25, SECOND * SECOND + 250 * MS}};
  tfd_t t = new_timer();
  int i;
  for (i = 0; AT_ROW(i, rows); i++) {
    set_s(t, 0, 3600, rows[i].seconds);
    CHECK_EQ(interval_of(t), rows[i].ns);
  }
}

/* ---- expiring ---- */

static void expect_expiry(int clock, clockid_t measured) {
  static const int64_t times[] = {1, 1000, 3 * MS};
  tfd_t t = timer_of(clock);
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC), due;
    set(t, 0, times[i], 0);
    CHECK_EQ(wait_for(t), 1);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= times[i]);
    due = now_ns(measured) + times[i];
    set(t, ABSTIME, due, 0);
    CHECK_EQ(wait_for(t), 1);
    CHECK(now_ns(measured) >= due);
  }
}

TEST(timers_of_the_monotonic_clock_are_never_early) {
  expect_expiry(EVLOOP_CLOCK_MONOTONIC, CLOCK_MONOTONIC);
}

TEST(timers_of_the_boot_clock_are_never_early) {
  expect_expiry(EVLOOP_CLOCK_BOOTTIME, CLOCK_BOOTTIME);
}

TEST(seconds_are_never_early) {
  static const double times[] = {1e-9, 0.0000123, 0.003, 0.0200000001};
  tfd_t t = new_timer();
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    set_s(t, 0, times[i], 0);
    CHECK_EQ(wait_for(t), 1);
    CHECK((double)(now_ns(CLOCK_MONOTONIC) - start) >= times[i] * 1e9);
  }
}

TEST(a_time_in_the_past_expires_at_once) {
  static const int clocks[] = {EVLOOP_CLOCK_REALTIME, EVLOOP_CLOCK_MONOTONIC, EVLOOP_CLOCK_BOOTTIME};
  int i;
  for (i = 0; AT_ROW(i, clocks); i++) {
    tfd_t t = timer_of(clocks[i]);
    set(t, ABSTIME, 1, 0);
    CHECK_EQ(wait_for(t), 1);
    CHECK_EQ(remaining(t), 0);
    set_s(t, ABSTIME, 1e-9, 0);
    CHECK_EQ(wait_for(t), 1);
  }
}

TEST(a_periodic_timer_of_the_past_counts_every_interval_since) {
  tfd_t t = timer_of(EVLOOP_CLOCK_REALTIME);
  int64_t past = now_ns(CLOCK_REALTIME) - 100 * HOUR - HOUR / 2;
  set(t, ABSTIME, past, HOUR);
  CHECK_EQ(wait_for(t), 101);
  CHECK(remaining(t) <= HOUR / 2 + 60 * SECOND);
  CHECK_ERR(tfd_read(t, NULL), EAGAIN);
}

/* ---- a clock that is set ---- */

/* Sets the wall clock to what it is. Without the privilege that fails, and
 * the timers must notice nothing. */
static int step_clock(void) {
  struct timespec now;
  OK(clock_gettime(CLOCK_REALTIME, &now));
  if (clock_settime(CLOCK_REALTIME, &now) == 0) return 1;
  CHECK_EQ(errno, EPERM);
  return 0;
}

static tfd_t cancellable(int64_t after_ns) {
  tfd_t t = timer_of(EVLOOP_CLOCK_REALTIME);
  set(t, CANCEL_ON_SET, now_ns(CLOCK_REALTIME) + after_ns, 0);
  return t;
}

TEST(a_step_is_read_once_and_the_timer_stays_armed) {
  lock_clock();
  tfd_t t = cancellable(HOUR);
  uint64_t expirations = 77;
  int stepped = step_clock();
  CHECK_EQ(readable(fd_of(t), 0), stepped);
  CHECK_EQ(tfd_read(t, &expirations), stepped ? -ECANCELED : -EAGAIN);
  CHECK_EQ(expirations, 77);
  CHECK(!readable(fd_of(t), 0));
  CHECK_ERR(tfd_read(t, &expirations), EAGAIN);
  CHECK(remaining(t) > HOUR / 2);
}

TEST(every_step_is_read) {
  int i;
  lock_clock();
  tfd_t t = cancellable(HOUR);
  for (i = 0; i < 3; i++) {
    int stepped = step_clock();
    CHECK_EQ(tfd_read(t, NULL), stepped ? -ECANCELED : -EAGAIN);
  }
}

TEST(a_wait_reports_a_step_too) {
  lock_clock();
  tfd_t t = cancellable(HOUR);
  int stepped = step_clock();
  CHECK_EQ(tfd_wait(t, 0, NULL), stepped ? -ECANCELED : 0);
  CHECK_EQ(tfd_wait(t, 0, NULL), 0);
}

TEST(a_stepped_timer_expires_later) {
  int64_t after, due;
  int result;
  lock_clock();
  /* A slow machine may be late for the first times. */
  for (after = 50 * MS;; after *= 4) {
    tfd_t t = timer_of(EVLOOP_CLOCK_REALTIME);
    due = now_ns(CLOCK_REALTIME) + after;
    set(t, CANCEL_ON_SET, due, 0);
    result = step_clock() ? -ECANCELED : -EAGAIN;
    if (tfd_read(t, NULL) != result || now_ns(CLOCK_REALTIME) >= due) {
      CHECK(now_ns(CLOCK_REALTIME) >= due);
      continue;
    }
    CHECK_EQ(wait_for(t), 1);
    CHECK(now_ns(CLOCK_REALTIME) >= due);
    return;
  }
}

TEST(setting_a_stepped_timer_says_so_and_sets_it) {
  lock_clock();
  tfd_t t = cancellable(HOUR);
  int64_t initial = 77, interval = 78, due = now_ns(CLOCK_REALTIME) + 10 * HOUR;
  int stepped = step_clock();
  CHECK_EQ(tfd_settime_ns(t, CANCEL_ON_SET, due, 3 * HOUR, &initial, &interval),
           stepped ? -ECANCELED : 0);
  if (stepped) CHECK(initial == 77 && interval == 78);
  CHECK(remaining(t) > 9 * HOUR);
  CHECK_EQ(interval_of(t), 3 * HOUR);
  CHECK_ERR(tfd_read(t, NULL), EAGAIN);
}

TEST(setting_a_stepped_timer_in_seconds_says_so_and_sets_it) {
  lock_clock();
  tfd_t t = cancellable(HOUR);
  double initial = 77, interval = 78, due = (double)now_ns(CLOCK_REALTIME) / 1e9 + 36000;
  int stepped = step_clock();
  CHECK_EQ(tfd_settime(t, CANCEL_ON_SET, due, 1.5, &initial, &interval), stepped ? -ECANCELED : 0);
  if (stepped) CHECK(initial == 77 && interval == 78);
  CHECK(remaining(t) > 9 * HOUR);
  CHECK_EQ(interval_of(t), 1500 * MS);
}

TEST(steps_pass_other_timers_by) {
  tfd_t unasked = timer_of(EVLOOP_CLOCK_REALTIME), relative = timer_of(EVLOOP_CLOCK_REALTIME);
  tfd_t monotonic = timer_of(EVLOOP_CLOCK_MONOTONIC), boot = timer_of(EVLOOP_CLOCK_BOOTTIME);
  tfd_t timers[] = {unasked, relative, monotonic, boot};
  int i;
  lock_clock();
  set(unasked, ABSTIME, now_ns(CLOCK_REALTIME) + HOUR, 0);
  set(relative, EVLOOP_TFD_TIMER_CANCEL_ON_SET, HOUR, 0);
  set(monotonic, CANCEL_ON_SET, now_ns(CLOCK_MONOTONIC) + HOUR, 0);
  set(boot, CANCEL_ON_SET, now_ns(CLOCK_BOOTTIME) + HOUR, 0);
  step_clock();
  for (i = 0; AT_ROW(i, timers); i++) {
    CHECK(!readable(fd_of(timers[i]), 0));
    CHECK_ERR(tfd_read(timers[i], NULL), EAGAIN);
    CHECK(remaining(timers[i]) > HOUR / 2);
  }
}

TEST(setting_the_clock_needs_a_privilege) {
  lock_clock();
  tfd_t t = cancellable(HOUR);
  if (geteuid() == 0) OK(setresuid(65534, 65534, 65534));
  CHECK_EQ(step_clock(), 0);
  CHECK_EQ(tfd_settime_ns(t, CANCEL_ON_SET, now_ns(CLOCK_REALTIME) + 9 * HOUR, 0, NULL, NULL), 0);
  CHECK(remaining(t) > 8 * HOUR);
}

/* ---- a step under a waiting thread ---- */

typedef struct Reader {
  tfd_t timer;
  int result;
  pid_t tid;
} Reader;

static void *reading(void *argument) {
  Reader *r = argument;
  store_tid(&r->tid);
  r->result = tfd_wait(r->timer, -1, NULL);
  return NULL;
}

TEST(a_step_wakes_a_waiting_thread) {
  lock_clock();
  Reader reader = {.timer = cancellable(HOUR)};
  pthread_t thread;
  int expected = -ECANCELED;
  CHECK_EQ(pthread_create(&thread, NULL, reading, &reader), 0);
  wait_until_asleep(&reader.tid);
  if (!step_clock()) {
    expected = -ESTALE;
    CHECK_EQ(tfd_close(reader.timer), 0);
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(reader.result, expected);
}

CHECK_MAIN()
