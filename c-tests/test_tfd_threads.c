/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timer file descriptors that several threads use: closing under waiting
 * threads, sharing expirations, and expirations by hand. */

#define _GNU_SOURCE
#include "support.h"

#include <sys/ioctl.h>
#include <sys/timerfd.h>

#define NO_RESULT 99
#define UNTOUCHED UINT64_C(0xabababababababab)

/* ---- a thread that waits, and how to know that it sleeps ---- */

typedef struct Reader {
  tfd_t timer;
  int waits; /* by tfd_wait, not by tfd_read */
  int result;
  uint64_t expirations;
  pid_t tid;
  pthread_t thread;
} Reader;

static void *reading(void *argument) {
  Reader *r = argument;
  store_tid(&r->tid);
  int result = r->waits ? tfd_wait(r->timer, -1, &r->expirations)
                        : tfd_read(r->timer, &r->expirations);
  STORE(r->result, result);
  return NULL;
}

static void start(Reader *r, tfd_t timer, int waits) {
  *r = (Reader){.timer = timer, .waits = waits, .result = NO_RESULT, .expirations = UNTOUCHED};
  CHECK_EQ(pthread_create(&r->thread, NULL, reading, r), 0);
  wait_until_asleep(&r->tid);
}

static int result_of(Reader *r) {
  CHECK_EQ(pthread_join(r->thread, NULL), 0);
  return r->result;
}

static tfd_t new_timer(void) {
  return OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
}

/* ---- closing ---- */

static void start_readers(Reader readers[4], tfd_t t) {
  int i;
  for (i = 0; i < 4; i++) start(&readers[i], t, i % 2);
}

static void expect_stale(Reader readers[4]) {
  int i;
  for (i = 0; i < 4; i++) {
    CHECK_EQ(result_of(&readers[i]), -ESTALE);
    CHECK(readers[i].expirations == UNTOUCHED);
  }
}

TEST(closing_wakes_every_waiting_thread) {
  tfd_t t = new_timer();
  int fd = (int)OK(tfd_fileno(t));
  Reader readers[4];
  start_readers(readers, t);
  CHECK_EQ(tfd_close(t), 0);
  expect_stale(readers);
  CHECK_EQ(fcntl(fd, F_GETFD), -1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_TFD), 0);
}

TEST(closing_an_armed_timer_wakes_them_too) {
  tfd_t t = new_timer();
  Reader readers[4];
  CHECK_EQ(tfd_settime_ns(t, 0, HOUR, HOUR, NULL, NULL), 0);
  start_readers(readers, t);
  CHECK_EQ(evloop_handle_close(t), 0);
  expect_stale(readers);
}

TEST(closing_a_borrowed_timer_wakes_them_and_leaves_the_descriptor) {
  int fd = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  tfd_t t = OK(tfd_from_fd(fd, 0));
  Reader readers[4];
  start_readers(readers, t);
  CHECK_EQ(tfd_close(t), 0);
  expect_stale(readers);
  OK(fcntl(fd, F_GETFD));
}

TEST(closing_one_handle_leaves_the_readers_of_another) {
  tfd_t t = new_timer();
  tfd_t twin = OK(tfd_from_fd((int)OK(tfd_fileno(t)), 0));
  Reader stays, goes;
  start(&stays, t, 0);
  start(&goes, twin, 0);
  CHECK_EQ(tfd_close(twin), 0);
  CHECK_EQ(result_of(&goes), -ESTALE);
  CHECK_EQ(tfd_settime_ns(t, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(result_of(&stays), 0);
  CHECK_EQ(stays.expirations, 1);
}

/* ---- sharing ---- */

static int finished(Reader readers[4]) {
  int i, count = 0;
  for (i = 0; i < 4; i++) count += LOAD(readers[i].result) != NO_RESULT;
  return count;
}

TEST(one_expiration_goes_to_one_thread) {
  tfd_t t = new_timer();
  Reader readers[4];
  int i, served = 0;
  start_readers(readers, t);
  CHECK_EQ(tfd_settime_ns(t, 0, 1, 0, NULL, NULL), 0);
  UNTIL(finished(readers) > 0);
  CHECK_EQ(tfd_close(t), 0);
  for (i = 0; i < 4; i++) {
    if (result_of(&readers[i]) == -ESTALE) continue;
    CHECK_EQ(readers[i].result, readers[i].waits);
    CHECK_EQ(readers[i].expirations, 1);
    served++;
  }
  CHECK_EQ(served, 1);
}

/* A periodic timer, and what its readers have read of it together. */
typedef struct Shared {
  tfd_t timer;
  int64_t start, interval;
  uint64_t total;
} Shared;

static void *read_often(void *argument) {
  Shared *shared = argument;
  uint64_t expirations;
  while (__atomic_load_n(&shared->total, __ATOMIC_ACQUIRE) < 100) {
    CHECK_EQ(tfd_read(shared->timer, &expirations), 0);
    CHECK(expirations >= 1);
    __atomic_add_fetch(&shared->total, expirations, __ATOMIC_RELEASE);
  }
  return NULL;
}

static uint64_t due(const Shared *shared, int64_t now) {
  return (uint64_t)((now - shared->start) / shared->interval) + 1;
}

TEST(the_expirations_that_two_threads_read_add_up) {
  Shared shared = {.timer = new_timer(), .interval = MS / 2};
  pthread_t threads[2];
  uint64_t last = 0;
  int64_t before;
  int i;
  shared.start = now_ns(CLOCK_MONOTONIC) + MS;
  CHECK_EQ(tfd_settime_ns(shared.timer, EVLOOP_TFD_TIMER_ABSTIME, shared.start, shared.interval,
                          NULL, NULL), 0);
  for (i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, read_often, &shared), 0);
  for (i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  struct pollfd watched = {.fd = (int)OK(tfd_fileno(shared.timer)), .events = POLLIN};
  CHECK_EQ(poll(&watched, 1, -1), 1);
  before = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(tfd_read(shared.timer, &last), 0);
  CHECK(shared.total + last >= due(&shared, before));
  CHECK(shared.total + last <= due(&shared, now_ns(CLOCK_MONOTONIC)));
}

TEST(setting_a_timer_that_a_thread_reads_wakes_it) {
  int waits;
  for (waits = 0; waits < 2; waits++) {
    tfd_t t = new_timer();
    Reader reader;
    start(&reader, t, waits);
    CHECK_EQ(tfd_settime_ns(t, 0, 2 * MS, 0, NULL, NULL), 0);
    CHECK_EQ(result_of(&reader), waits);
    CHECK_EQ(reader.expirations, 1);
  }
}

/* ---- expirations by hand ---- */

/* What the kernel says to it, as the library passes it on. */
static int ticks_result(void) {
  uint64_t ticks = 1;
  int fd = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  int result = ioctl(fd, _IOW('T', 0, uint64_t), &ticks);
  if (result < 0) CHECK_EQ(errno, ENOTTY);
  OK(close(fd));
  return result < 0 ? -ENOTSUP : 0;
}

TEST(ticks_set_by_hand_are_read) {
  static const uint64_t ticks[] = {1, 42, UINT64_C(1) << 63, UINT64_MAX};
  tfd_t t = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
  int i, expected = ticks_result();
  for (i = 0; AT_ROW(i, ticks); i++) {
    uint64_t expirations = UNTOUCHED;
    CHECK_EQ(tfd_set_ticks(t, ticks[i]), expected);
    CHECK_EQ(tfd_read(t, &expirations), expected == 0 ? 0 : -EAGAIN);
    CHECK(expirations == (expected == 0 ? ticks[i] : UNTOUCHED));
  }
}

TEST(zero_ticks_are_refused) {
  CHECK_EQ(tfd_set_ticks(new_timer(), 0), ticks_result() == 0 ? -EINVAL : -ENOTSUP);
}

TEST(ticks_set_by_hand_wake_a_reader) {
  int waits, expected = ticks_result();
  for (waits = 0; waits < 2; waits++) {
    tfd_t t = new_timer();
    Reader reader;
    start(&reader, t, waits);
    CHECK_EQ(tfd_set_ticks(t, 7), expected);
    if (expected < 0) CHECK_EQ(tfd_settime_ns(t, 0, 1, 0, NULL, NULL), 0);
    CHECK_EQ(result_of(&reader), waits);
    CHECK_EQ(reader.expirations, expected < 0 ? 1 : 7);
  }
}

CHECK_MAIN()
