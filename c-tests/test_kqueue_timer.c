/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the filter TIMER. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#define SECONDS EVLOOP_KQ_NOTE_SECONDS
#define MSECONDS EVLOOP_KQ_NOTE_MSECONDS
#define USECONDS EVLOOP_KQ_NOTE_USECONDS
#define NSECONDS EVLOOP_KQ_NOTE_NSECONDS
#define ABSTIME EVLOOP_KQ_NOTE_ABSTIME

static int64_t now(void) {
  return now_ns(CLOCK_MONOTONIC);
}

static void wait_ns(int64_t ns) {
  struct timespec time = {ns / 1000000000, ns % 1000000000};
  CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, 0, &time, NULL), 0);
}

TEST(every_unit_and_never_early) {
  static const struct {
    uint32_t unit;
    int64_t data, ns;
  } cases[] = {{0, 20, 20 * MS},          {MSECONDS, 20, 20 * MS},     {USECONDS, 20000, 20 * MS},
               {NSECONDS, 20000000, 20 * MS}, {NSECONDS, 1, 1},            {SECONDS, 1, 1000 * MS}};
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; AT_ROW(i, cases); i++) {
    int64_t began = now();
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, cases[i].unit, cases[i].data, 7);
    Event event = expect_event(kq, 1, KQ_TIMER);
    CHECK(now() - began >= cases[i].ns);
    CHECK_EQ(event.data, 1);
    CHECK_EQ(event.udata, 7);
    CHECK_EQ(event.fflags, 0);
    CHECK_EQ(event.flags, ONESHOT | CLEAR);
    expect_nothing(kq);
  }
}

TEST(units_exclude_each_other) {
  static const uint32_t fflags[] = {SECONDS | USECONDS,  SECONDS | MSECONDS, MSECONDS | NSECONDS, 15,
                                    0x20, 0x80000000,    ABSTIME | 0x40,     ABSTIME | SECONDS | NSECONDS};
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 2, KQ_TIMER, ADD, 0, 1000000, 0);
  for (int i = 0; AT_ROW(i, fflags); i++) {
    CHECK_ERR(try_change(kq, 1, KQ_TIMER, ADD, fflags[i], 1, 0), EINVAL);
    CHECK_ERR(try_change(kq, 1, KQ_TIMER, DELETE, 0, 0, 0), ENOENT);
    CHECK_ERR(try_change(kq, 2, KQ_TIMER, ADD, fflags[i], 1, 0), EINVAL);
  }
  CHECK_ERR(try_change(kq, 1, KQ_TIMER, ADD, 0, -1, 0), EINVAL);
  CHECK_ERR(try_change(kq, 1, KQ_TIMER, ADD, ABSTIME, INT64_MIN, 0), EINVAL);
  apply(kq, 2, KQ_TIMER, DELETE, 0, 0, 0);
}

TEST(zero_is_one_unit) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t began = now();
  apply(kq, 1, KQ_TIMER, ADD, 0, 0, 0);
  CHECK(expect_event(kq, 1, KQ_TIMER).data >= 1);
  CHECK(now() - began >= 1 * MS);
  apply(kq, 1, KQ_TIMER, ADD, SECONDS, 0, 0);
  expect_nothing(kq);
  began = now();
  /* Once and zero is at once, as on FreeBSD. */
  apply(kq, 2, KQ_TIMER, ADD | ONESHOT, SECONDS, 0, 0);
  Event event = expect_event(kq, 2, KQ_TIMER);
  CHECK_EQ(event.data, 1);
  CHECK(now() - began < 900 * MS);
}

TEST(enormous_times_do_not_overflow) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_TIMER, ADD, SECONDS, INT64_MAX, 0);
  apply(kq, 2, KQ_TIMER, ADD | ONESHOT, SECONDS, INT64_MAX / 2, 0);
  apply(kq, 3, KQ_TIMER, ADD, NSECONDS, INT64_MAX, 0);
  apply(kq, 4, KQ_TIMER, ADD, ABSTIME | SECONDS, INT64_MAX, 0);
  expect_nothing(kq);
}

TEST(a_period_does_not_drift_and_is_counted) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t began = now(), count = 0;
  apply(kq, 1, KQ_TIMER, ADD, 0, 10, 0);
  wait_ns(55 * MS);
  while (count < 12) {
    Event event = expect_event(kq, 1, KQ_TIMER);
    int64_t elapsed = now() - began;
    CHECK_EQ(event.flags, CLEAR);
    CHECK(event.data >= (count == 0 ? 5 : 1));
    count += event.data;
    CHECK(elapsed >= count * 10 * MS);
  }
}

TEST(it_counts_while_disabled) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t began = now();
  apply(kq, 1, KQ_TIMER, ADD, 0, 100, 0);
  int64_t count = expect_event(kq, 1, KQ_TIMER).data;
  apply(kq, 1, KQ_TIMER, DISABLE, 0, 0, 0);
  wait_ns(250 * MS);
  expect_nothing(kq);
  apply(kq, 1, KQ_TIMER, ENABLE, 0, 0, 0);
  CHECK(is_pending(kq));
  int64_t meanwhile = expect_event(kq, 1, KQ_TIMER).data;
  CHECK(meanwhile >= 2);
  count += meanwhile;
  while (now() - began < 650 * MS) {
    count += expect_event(kq, 1, KQ_TIMER).data;
    CHECK(now() - began >= count * 100 * MS);
  }
}

TEST(it_counts_while_dispatch_has_disabled_it) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_TIMER, ADD | DISPATCH, 0, 100, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_TIMER).flags, CLEAR | DISPATCH);
  wait_ns(250 * MS);
  expect_nothing(kq);
  apply(kq, 1, KQ_TIMER, ENABLE, 0, 0, 0);
  CHECK(expect_event(kq, 1, KQ_TIMER).data >= 2);
}

TEST(an_expiry_while_disabled_is_kept) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 5, 0);
  CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), -1));
  apply(kq, 1, KQ_TIMER, DISABLE, 0, 0, 0);
  expect_nothing(kq);
  wait_ns(20 * MS);
  expect_nothing(kq);
  apply(kq, 1, KQ_TIMER, ENABLE, 0, 0, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_TIMER).data, 1);
}

TEST(adding_again_restarts_and_drops_the_count) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_TIMER, ADD, 0, 5, 0);
  CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), -1));
  apply(kq, 1, KQ_TIMER, ADD, SECONDS, 1000, 0);
  expect_nothing(kq);
  apply(kq, 1, KQ_TIMER, ADD, 0, 5, 0);
  wait_ns(20 * MS);
  int64_t began = now();
  apply(kq, 1, KQ_TIMER, ADD, 0, 50, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_TIMER).data, 1);
  CHECK(now() - began >= 50 * MS);
}

TEST(the_old_expiry_never_surfaces) {
  evloop_kqueue_t kq = new_kqueue();
  Event event;
  for (int i = 0; i < 50; i++) {
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, USECONDS, 500, 0);
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, SECONDS, 1000, 0);
    CHECK_EQ(take(kq, &event, 1, MS), 0);
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, USECONDS, 500, 0);
    apply(kq, 1, KQ_TIMER, DELETE, 0, 0, 0);
    CHECK_EQ(take(kq, &event, 1, MS), 0);
  }
}

TEST(adding_again_leaves_it_periodic_or_once) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_TIMER, ADD, 0, 5, 0);
  expect_event(kq, 1, KQ_TIMER);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 5, 0);
  for (int i = 0; i < 3; i++) CHECK_EQ(expect_event(kq, 1, KQ_TIMER).flags, CLEAR);
  apply(kq, 1, KQ_TIMER, DELETE, 0, 0, 0);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 1000, 0);
  apply(kq, 1, KQ_TIMER, ADD, 0, 5, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_TIMER).flags, ONESHOT | CLEAR);
  CHECK_ERR(try_change(kq, 1, KQ_TIMER, DELETE, 0, 0, 0), ENOENT);
}

TEST(a_change_without_add_does_not_restart) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t began = now();
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 50, 1);
  apply(kq, 1, KQ_TIMER, ENABLE, SECONDS, 1000, 2);
  Event event = expect_event(kq, 1, KQ_TIMER);
  CHECK(now() - began >= 50 * MS);
  CHECK_EQ(event.udata, 2);
}

TEST(a_time_of_the_wall_clock) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t when = now_ns(CLOCK_REALTIME) + 50 * MS * slow_factor();
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, ABSTIME | NSECONDS, when, 0);
  expect_nothing(kq);
  CHECK_EQ(expect_event(kq, 1, KQ_TIMER).data, 1);
  CHECK(now_ns(CLOCK_REALTIME) >= when);
  expect_nothing(kq);
}

TEST(a_time_that_has_passed_is_now) {
  static const int64_t times[] = {0, 1, 1000000000};
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; AT_ROW(i, times); i++) {
    apply(kq, 1, KQ_TIMER, ADD, ABSTIME | SECONDS, times[i], 0);
    Event event = expect_event(kq, 1, KQ_TIMER);
    CHECK_EQ(event.data, 1);
    CHECK_EQ(event.flags, 0);
    /* It has come, and that stays so. */
    expect_event(kq, 1, KQ_TIMER);
    apply(kq, 1, KQ_TIMER, DELETE, 0, 0, 0);
    apply(kq, 1, KQ_TIMER, ADD | CLEAR, ABSTIME | SECONDS, times[i], 0);
    expect_event(kq, 1, KQ_TIMER);
    expect_nothing(kq);
    apply(kq, 1, KQ_TIMER, DELETE, 0, 0, 0);
    expect_nothing(kq);
  }
}

/* The kernel's timers are of no help: what they are set to is ignored. */
TEST(a_deadline_that_has_passed_is_due_when_it_is_armed) {
  static const struct {
    int flags;
    uint32_t fflags;
    int64_t data;
  } cases[] = {
    {ADD | ONESHOT, 0, 0},
    {ADD | ONESHOT, SECONDS, 0},
    {ADD, ABSTIME | SECONDS, 0},
    {ADD | ONESHOT, ABSTIME | SECONDS, 1},
    {ADD | CLEAR, ABSTIME | NSECONDS, 1},
  };
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 2, KQ_TIMER, ADD, SECONDS, 1000, 0);
  answer_call(SYS_timerfd_settime, 0);
  for (int i = 0; i < 200; i++) {
    int c = i % LENGTH(cases);
    apply(kq, 1, KQ_TIMER, cases[c].flags, cases[c].fflags, cases[c].data, 0);
    CHECK(is_pending(kq));
    CHECK_EQ(expect_event(kq, 1, KQ_TIMER).data, 1);
    if (!(cases[c].flags & ONESHOT)) apply(kq, 1, KQ_TIMER, DELETE, 0, 0, 0);
    expect_nothing(kq);
  }
}

TEST(a_deadline_that_passed_while_disabled_is_due_when_it_is_enabled) {
  evloop_kqueue_t kq = new_kqueue();
  answer_call(SYS_timerfd_settime, 0);
  for (int i = 0; i < 200; i++) {
    apply(kq, 1, KQ_TIMER, ADD | DISABLE, NSECONDS, 1, 0);
    expect_nothing(kq);
    apply(kq, 1, KQ_TIMER, ENABLE, 0, 0, 0);
    CHECK(is_pending(kq));
    expect_event(kq, 1, KQ_TIMER);
    apply(kq, 1, KQ_TIMER, DELETE, 0, 0, 0);
  }
}

TEST(between_the_clocks) {
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; i < 20; i++) {
    int64_t began = now();
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, ABSTIME | NSECONDS, now_ns(CLOCK_REALTIME) + 2 * MS, 0);
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 3, 0);
    if (i % 2) {
      apply(kq, 1, KQ_TIMER, ADD | ONESHOT, ABSTIME | NSECONDS, now_ns(CLOCK_REALTIME) + 4 * MS, 0);
    }
    CHECK_EQ(expect_event(kq, 1, KQ_TIMER).data, 1);
    CHECK(now() - began >= 3 * MS);
    expect_nothing(kq);
  }
}

TEST(timers_come_in_the_order_of_their_deadlines) {
  enum { N = 200 };
  evloop_kqueue_t kq = new_kqueue();
  Event changes[N], events[N];
  int64_t when = now_ns(CLOCK_REALTIME);
  for (int i = 0; i < N; i++) {
    changes[i] = change((uint64_t)i, KQ_TIMER, ADD | ONESHOT, ABSTIME | NSECONDS, when + i * 53 % N * 1000, 0);
  }
  CHECK_EQ(evloop_kqueue_control(kq, changes, N, NULL, 0, 0), 0);
  wait_ns(MS);
  CHECK_EQ(take(kq, events, N, -1), N);
  for (int i = 0; i < N; i++) CHECK_EQ(events[i].ident * 53 % N, i);
}

TEST(an_absolute_time_comes_once) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_TIMER, ADD | CLEAR, EVLOOP_KQ_NOTE_ABSTIME | EVLOOP_KQ_NOTE_SECONDS, 1, 0);
  expect_event(kq, 1, KQ_TIMER);
  apply(kq, 1, KQ_TIMER, DISABLE, 0, 0, 0);
  apply(kq, 1, KQ_TIMER, ENABLE, 0, 0, 0);
  expect_nothing(kq);
  apply(kq, 1, KQ_TIMER, ADD | CLEAR, EVLOOP_KQ_NOTE_ABSTIME | EVLOOP_KQ_NOTE_SECONDS, 2, 0);
  expect_event(kq, 1, KQ_TIMER);
  expect_nothing(kq);
}

TEST(many_timers_share_a_few_descriptors) {
  enum { N = 20000 };
  static Event changes[N];
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors(), got = 0;
  for (int i = 0; i < N; i++) changes[i] = change((uint64_t)i, KQ_TIMER, ADD | ONESHOT, USECONDS, i % 1000 * 10, 0);
  CHECK_EQ(evloop_kqueue_control(kq, changes, N, NULL, 0, 0), 0);
  CHECK(open_descriptors() - before <= 2);
  while (got < N) got += (int)OK(take(kq, changes, N, -1));
  CHECK_EQ(got, N);
  expect_nothing(kq);
}

TEST(refreshing_many_timers_keeps_them_from_expiring) {
  enum { N = 200 };
  evloop_kqueue_t kq = new_kqueue();
  Event event;
  for (int i = 0; i < N; i++) apply(kq, (uint64_t)i, KQ_TIMER, ADD | ONESHOT, 0, 1000, 0);
  int64_t began = now();
  while (now() - began < 1500 * MS) {
    for (int i = 0; i < N; i++) apply(kq, (uint64_t)i, KQ_TIMER, ADD | ONESHOT, 0, 10000, 0);
    CHECK_EQ(take(kq, &event, 1, 10 * MS), 0);
  }
}

CHECK_MAIN()
