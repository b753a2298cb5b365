/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timer file descriptors: making, adopting and reading them. What they are
 * set to is in test_tfd_clock.c, several threads are in test_tfd_threads.c. */

#define _GNU_SOURCE
#include "support.h"

#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/timerfd.h>

#define UNTOUCHED UINT64_C(0xabababababababab)

/* ---- helpers ---- */

static tfd_t new_timer(uint32_t flags) {
  return OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, flags));
}

static void set(tfd_t t, int64_t initial_ns, int64_t interval_ns) {
  CHECK_EQ(tfd_settime_ns(t, 0, initial_ns, interval_ns, NULL, NULL), 0);
}

static int fd_of(tfd_t t) {
  return (int)OK(tfd_fileno(t));
}

static int is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

/* A timer that has expired once, and has not been read. */
static tfd_t expired_timer(uint32_t flags) {
  tfd_t t = new_timer(flags);
  set(t, 1, 0);
  CHECK(readable(fd_of(t), -1));
  return t;
}

static int raw_timer(int flags) {
  return (int)OK(timerfd_create(CLOCK_MONOTONIC, flags));
}

/* A timerfd so high that no later descriptor takes its place. */
static int high_timer(int flags) {
  int fd = raw_timer(flags), high = (int)OK(fcntl(fd, F_DUPFD, 500));
  OK(close(fd));
  return high;
}

/* ---- making ---- */

static void expect_clock(int clock, int64_t timer) {
  uint64_t expirations = 0;
  CHECK_EQ(tfd_clockid(timer), clock);
  CHECK_EQ(tfd_settime_ns(timer, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(timer, &expirations), 0);
  CHECK_EQ(expirations, 1);
  CHECK_EQ(tfd_close(timer), 0);
}

TEST(timers_of_every_plain_clock_expire) {
  static const int clocks[] = {EVLOOP_CLOCK_REALTIME, EVLOOP_CLOCK_MONOTONIC,
                               EVLOOP_CLOCK_BOOTTIME};
  int i;
  for (i = 0; AT_ROW(i, clocks); i++) expect_clock(clocks[i], OK(tfd_create(clocks[i], 0)));
}

static const int alarm_clocks[] = {EVLOOP_CLOCK_REALTIME_ALARM, EVLOOP_CLOCK_BOOTTIME_ALARM};

TEST(alarm_timers_are_made_where_the_kernel_allows_them) {
  int i;
  for (i = 0; AT_ROW(i, alarm_clocks); i++) {
    int raw = timerfd_create(alarm_clocks[i], TFD_CLOEXEC), code = errno;
    tfd_t t = tfd_create(alarm_clocks[i], 0);
    if (raw >= 0) {
      expect_clock(alarm_clocks[i], OK(t));
      OK(close(raw));
    } else {
      CHECK_EQ(code, EPERM);
      CHECK_ERR(t, EPERM);
    }
  }
}

TEST(alarm_timers_need_a_privilege) {
  int i;
  if (geteuid() == 0) OK(setresuid(65534, 65534, 65534));
  for (i = 0; AT_ROW(i, alarm_clocks); i++) CHECK_ERR(tfd_create(alarm_clocks[i], 0), EPERM);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_TFD), 0);
}

TEST(other_clocks_are_refused) {
  static const int clocks[] = {CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID,
                               CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
                               CLOCK_MONOTONIC_COARSE, CLOCK_TAI, 10, 12, -1, 1000};
  int i;
  for (i = 0; AT_ROW(i, clocks); i++) CHECK_ERR(tfd_create(clocks[i], 0), EINVAL);
}

TEST(unknown_flags_are_refused) {
  uint32_t known = EVLOOP_TFD_NONBLOCK | EVLOOP_TFD_CLOEXEC, bit;
  for (bit = 1; bit != 0; bit <<= 1) {
    if (bit & known) continue;
    CHECK_ERR(tfd_create(EVLOOP_CLOCK_MONOTONIC, bit), EINVAL);
    CHECK_ERR(tfd_create(EVLOOP_CLOCK_MONOTONIC, bit | known), EINVAL);
  }
}

TEST(descriptors_are_close_on_exec_and_block_unless_asked) {
  uint32_t cloexec = EVLOOP_TFD_CLOEXEC, nonblock = EVLOOP_TFD_NONBLOCK;
  uint32_t flags[] = {0, cloexec, nonblock, cloexec | nonblock};
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    int fd = fd_of(new_timer(flags[i]));
    CHECK_EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
    CHECK_EQ((OK(fcntl(fd, F_GETFL)) & O_NONBLOCK) != 0, (flags[i] & nonblock) != 0);
  }
}

TEST(the_constants_are_those_of_the_system) {
  CHECK_EQ(EVLOOP_CLOCK_REALTIME, CLOCK_REALTIME);
  CHECK_EQ(EVLOOP_CLOCK_MONOTONIC, CLOCK_MONOTONIC);
  CHECK_EQ(EVLOOP_CLOCK_BOOTTIME, CLOCK_BOOTTIME);
  CHECK_EQ(EVLOOP_CLOCK_REALTIME_ALARM, CLOCK_REALTIME_ALARM);
  CHECK_EQ(EVLOOP_CLOCK_BOOTTIME_ALARM, CLOCK_BOOTTIME_ALARM);
  CHECK_EQ(EVLOOP_TFD_NONBLOCK, TFD_NONBLOCK);
  CHECK_EQ(EVLOOP_TFD_CLOEXEC, TFD_CLOEXEC);
  CHECK_EQ(EVLOOP_TFD_TIMER_ABSTIME, TFD_TIMER_ABSTIME);
  CHECK_EQ(EVLOOP_TFD_TIMER_CANCEL_ON_SET, TFD_TIMER_CANCEL_ON_SET);
}

/* ---- the descriptor in waits of the caller's own ---- */

TEST(an_expiration_ends_the_callers_select) {
  tfd_t t = new_timer(0);
  int fd = fd_of(t);
  struct timeval none = {0, 0};
  fd_set set_of_fds;
  FD_ZERO(&set_of_fds);
  FD_SET(fd, &set_of_fds);
  CHECK_EQ(select(fd + 1, &set_of_fds, NULL, NULL, &none), 0);
  set(t, 5 * MS, 0);
  FD_SET(fd, &set_of_fds);
  CHECK_EQ(select(fd + 1, &set_of_fds, NULL, NULL, NULL), 1);
  CHECK(FD_ISSET(fd, &set_of_fds));
}

TEST(an_expiration_ends_the_callers_poll) {
  tfd_t t = new_timer(0);
  CHECK(!readable(fd_of(t), 0));
  set(t, 5 * MS, 0);
  CHECK(readable(fd_of(t), -1));
  CHECK_EQ(tfd_read(t, NULL), 0);
  CHECK(!readable(fd_of(t), 0));
}

TEST(an_expiration_ends_the_callers_epoll) {
  tfd_t t = new_timer(0);
  int ep = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 42}};
  OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd_of(t), &event));
  CHECK_EQ(epoll_wait(ep, &event, 1, 0), 0);
  set(t, 5 * MS, 0);
  event.data.u64 = 0;
  CHECK_EQ(epoll_wait(ep, &event, 1, -1), 1);
  CHECK_EQ(event.data.u64, 42);
}

TEST(a_raw_read_gives_the_same_count) {
  tfd_t t = OK(tfd_create(EVLOOP_CLOCK_REALTIME, 0));
  uint64_t count = 0;
  int64_t start = now_ns(CLOCK_REALTIME) - 10 * HOUR;
  CHECK_EQ(tfd_settime_ns(t, EVLOOP_TFD_TIMER_ABSTIME, start, 4 * HOUR, NULL, NULL), 0);
  CHECK_EQ(read(fd_of(t), &count, sizeof count), (int)sizeof count);
  CHECK_EQ(count, 3);
  CHECK_EQ(tfd_wait(t, 0, &count), 0);
  CHECK_EQ(tfd_settime_ns(t, EVLOOP_TFD_TIMER_ABSTIME, start, 4 * HOUR, NULL, NULL), 0);
  CHECK_EQ(tfd_read(t, &count), 0);
  CHECK_EQ(count, 3);
}

/* ---- reading ---- */

TEST(a_read_waits_and_is_never_early) {
  static const int64_t times[] = {1, 1000, MS, 20 * MS};
  tfd_t t = new_timer(0);
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    uint64_t expirations = 0;
    set(t, times[i], 0);
    CHECK_EQ(tfd_read(t, &expirations), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= times[i]);
    CHECK_EQ(expirations, 1);
  }
}

TEST(a_read_takes_the_expirations) {
  tfd_t t = expired_timer(EVLOOP_TFD_NONBLOCK);
  CHECK_EQ(tfd_read(t, NULL), 0);
  CHECK_ERR(tfd_read(t, NULL), EAGAIN);
}

TEST(a_nonblocking_read_of_nothing_is_no_failure) {
  tfd_t t = new_timer(EVLOOP_TFD_NONBLOCK);
  uint64_t expirations = UNTOUCHED;
  char before[200] = "", after[200] = "";
  CHECK_ERR(tfd_close(1), ESTALE);
  CHECK(OK(evloop_last_error(before, sizeof before)) > 0);
  CHECK_ERR(tfd_read(t, &expirations), EAGAIN);
  set(t, HOUR, HOUR);
  CHECK_ERR(tfd_read(t, &expirations), EAGAIN);
  CHECK(expirations == UNTOUCHED);
  OK(evloop_last_error(after, sizeof after));
  CHECK(strcmp(before, after) == 0);
}

TEST(o_nonblock_set_later_is_obeyed) {
  tfd_t t = new_timer(0);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  OK(fcntl(fd_of(t), F_SETFL, O_NONBLOCK));
  CHECK_ERR(tfd_read(t, NULL), EAGAIN);
  OK(fcntl(fd_of(t), F_SETFL, 0));
  set(t, 5 * MS, 0);
  CHECK_EQ(tfd_read(t, NULL), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 5 * MS);
}

/* Expirations of a timer that began at `start`, up to `now`. */
static uint64_t expirations_until(int64_t now, int64_t start, int64_t interval) {
  return now < start ? 0 : (uint64_t)((now - start) / interval) + 1;
}

TEST(a_periodic_timer_counts_every_interval) {
  int64_t interval = MS, start = now_ns(CLOCK_MONOTONIC) + interval;
  tfd_t t = new_timer(0);
  uint64_t total = 0, expirations;
  CHECK_EQ(tfd_settime_ns(t, EVLOOP_TFD_TIMER_ABSTIME, start, interval, NULL, NULL), 0);
  while (total < 30) {
    int64_t before, after;
    CHECK(readable(fd_of(t), -1));
    before = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(tfd_read(t, &expirations), 0);
    after = now_ns(CLOCK_MONOTONIC);
    total += expirations;
    CHECK(expirations >= 1);
    CHECK(total >= expirations_until(before, start, interval));
    CHECK(total <= expirations_until(after, start, interval));
  }
}

/* ---- waiting ---- */

TEST(a_wait_that_runs_out_is_never_early_and_stores_0) {
  static const int64_t times[] = {0, 1, 999, 1000001, 5 * MS};
  tfd_t t = new_timer(0);
  int i, armed;
  for (armed = 0; armed < 2; armed++) {
    if (armed) set(t, HOUR, 0);
    for (i = 0; AT_ROW(i, times); i++) {
      int64_t start = now_ns(CLOCK_MONOTONIC);
      uint64_t expirations = UNTOUCHED;
      CHECK_EQ(tfd_wait(t, times[i], &expirations), 0);
      CHECK(now_ns(CLOCK_MONOTONIC) - start >= times[i]);
      CHECK_EQ(expirations, 0);
      CHECK_EQ(tfd_wait(t, times[i], NULL), 0);
    }
  }
}

TEST(a_wait_of_0_takes_what_has_expired) {
  tfd_t t = expired_timer(0);
  uint64_t expirations = 0;
  CHECK_EQ(tfd_wait(t, 0, &expirations), 1);
  CHECK_EQ(expirations, 1);
  CHECK_EQ(tfd_wait(t, 0, &expirations), 0);
}

TEST(a_wait_waits_on_a_nonblocking_timer_too) {
  static const int64_t timeouts[] = {-1, INT64_MIN, HOUR, INT64_MAX};
  tfd_t t = new_timer(EVLOOP_TFD_NONBLOCK);
  int i;
  for (i = 0; AT_ROW(i, timeouts); i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    uint64_t expirations = 0;
    set(t, 5 * MS, 0);
    CHECK_EQ(tfd_wait(t, timeouts[i], &expirations), 1);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= 5 * MS);
    CHECK_EQ(expirations, 1);
  }
  CHECK_EQ(tfd_wait(t, 2 * MS, NULL), 0);
}

/* ---- adopting ---- */

TEST(a_borrowed_descriptor_outlives_its_handle) {
  int fd = raw_timer(0);
  tfd_t t = OK(tfd_from_fd(fd, 0));
  CHECK_EQ(tfd_fileno(t), fd);
  CHECK_EQ(tfd_close(t), 0);
  CHECK(is_open(fd));
}

TEST(an_owned_descriptor_is_closed_with_its_handle) {
  int fd = raw_timer(0);
  tfd_t t = OK(tfd_from_fd(fd, EVLOOP_FD_OWN));
  CHECK_EQ(tfd_fileno(t), fd);
  CHECK(is_open(fd));
  CHECK_EQ(tfd_close(t), 0);
  CHECK(!is_open(fd));
}

TEST(an_adopted_descriptor_keeps_its_flags) {
  static const int flags[] = {0, TFD_NONBLOCK, TFD_CLOEXEC, TFD_NONBLOCK | TFD_CLOEXEC};
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    int fd = raw_timer(flags[i]);
    tfd_t t = OK(tfd_from_fd(fd, 0));
    set(t, 1, 0);
    CHECK_EQ(tfd_wait(t, -1, NULL), 1);
    CHECK_EQ(tfd_wait(t, MS, NULL), 0);
    CHECK_EQ((OK(fcntl(fd, F_GETFL)) & O_NONBLOCK) != 0, (flags[i] & TFD_NONBLOCK) != 0);
    CHECK_EQ(OK(fcntl(fd, F_GETFD)), flags[i] & TFD_CLOEXEC ? FD_CLOEXEC : 0);
  }
}

TEST(an_adopted_timer_is_the_same_timer) {
  int fd = raw_timer(TFD_NONBLOCK);
  struct itimerspec setting = {.it_interval = {.tv_sec = 7}, .it_value = {.tv_nsec = 1}};
  uint64_t expirations = 0;
  int64_t interval_ns = 0;
  tfd_t t = OK(tfd_from_fd(fd, 0));
  CHECK_ERR(tfd_read(t, NULL), EAGAIN);
  OK(timerfd_settime(fd, 0, &setting, NULL));
  CHECK_EQ(tfd_gettime_ns(t, NULL, &interval_ns), 0);
  CHECK_EQ(interval_ns, 7 * SECOND);
  CHECK_EQ(tfd_wait(t, -1, &expirations), 1);
  CHECK(expirations >= 1);
  set(t, 0, 0);
  OK(timerfd_gettime(fd, &setting));
  CHECK_EQ(setting.it_value.tv_sec, 0);
  CHECK_EQ(setting.it_interval.tv_sec, 0);
}

TEST(an_adopted_timer_knows_its_clock) {
  static const int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME};
  int i, known = access("/proc/self/fdinfo", R_OK) == 0;
  for (i = 0; AT_ROW(i, clocks); i++) {
    int fd = (int)OK(timerfd_create(clocks[i], TFD_CLOEXEC));
    tfd_t t = OK(tfd_from_fd(fd, EVLOOP_FD_OWN));
    CHECK_EQ(tfd_clockid(t), known ? clocks[i] : -ENOTSUP);
  }
}

static void expect_refused(int fd, int code) {
  CHECK_ERR(tfd_from_fd(fd, 0), code);
  CHECK_ERR(tfd_from_fd(fd, EVLOOP_FD_OWN), code);
}

TEST(only_timers_are_adopted_and_others_stay_open) {
  int fds[5], pair[2], i;
  OK(pipe(pair));
  fds[0] = pair[0];
  fds[1] = pair[1];
  fds[2] = (int)OK(eventfd(1, EFD_CLOEXEC));
  fds[3] = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  fds[4] = (int)OK(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  for (i = 0; AT_ROW(i, fds); i++) {
    expect_refused(fds[i], EINVAL);
    CHECK(is_open(fds[i]));
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_TFD), 0);
}

TEST(closed_descriptors_are_not_adopted) {
  int fd = high_timer(0);
  OK(close(fd));
  expect_refused(fd, EBADF);
  expect_refused(-1, EBADF);
  expect_refused(INT32_MIN, EBADF);
  expect_refused(INT32_MAX, EBADF);
}

TEST(unknown_flags_of_adoption_are_refused) {
  int fd = raw_timer(0);
  uint32_t bit;
  for (bit = 2; bit != 0; bit <<= 1) {
    CHECK_ERR(tfd_from_fd(fd, bit), EINVAL);
    CHECK_ERR(tfd_from_fd(fd, bit | EVLOOP_FD_OWN), EINVAL);
  }
  CHECK(is_open(fd));
}

/* ---- every call on what it cannot work with ---- */

static void expect_from_each_call(tfd_t t, int code) {
  double s = 5, s2 = 6;
  int64_t ns = 5, ns2 = 6;
  uint64_t expirations = UNTOUCHED;
  CHECK_ERR(tfd_settime(t, 0, 1, 1, &s, &s2), code);
  CHECK_ERR(tfd_gettime(t, &s, &s2), code);
  CHECK_ERR(tfd_settime_ns(t, 0, SECOND, SECOND, &ns, &ns2), code);
  CHECK_ERR(tfd_gettime_ns(t, &ns, &ns2), code);
  CHECK_ERR(tfd_read(t, &expirations), code);
  CHECK_ERR(tfd_wait(t, 0, &expirations), code);
  CHECK_ERR(tfd_wait(t, -1, &expirations), code);
  CHECK_ERR(tfd_clockid(t), code);
  CHECK_ERR(tfd_set_ticks(t, 1), code);
  CHECK_EQ(s, 5);
  CHECK_EQ(s2, 6);
  CHECK_EQ(ns, 5);
  CHECK_EQ(ns2, 6);
  CHECK_EQ(expirations, UNTOUCHED);
}

TEST(a_closed_timer_is_stale) {
  tfd_t t = new_timer(0);
  CHECK_EQ(tfd_close(t), 0);
  expect_from_each_call(t, ESTALE);
  CHECK_ERR(tfd_fileno(t), ESTALE);
  CHECK_ERR(tfd_close(t), ESTALE);
}

TEST(another_kind_of_object_is_no_timer) {
  int64_t other = OK(evloop_poll_create());
  expect_from_each_call(other, EDOM);
  CHECK_ERR(tfd_fileno(other), EDOM);
  CHECK_ERR(tfd_close(other), EDOM);
  CHECK_EQ(evloop_poll_close(other), 0);
}

TEST(a_borrowed_descriptor_closed_by_its_owner_is_reported) {
  static const int flags[] = {0, TFD_NONBLOCK};
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    int fd = high_timer(flags[i]);
    tfd_t t = OK(tfd_from_fd(fd, 0));
    OK(close(fd));
    expect_from_each_call(t, EBADF);
    CHECK_EQ(tfd_close(t), 0);
  }
}

CHECK_MAIN()
