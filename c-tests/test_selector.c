/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Selectors: the same cases on every backend. */

#define _GNU_SOURCE
#include "support.h"

#include <limits.h>
#include <semaphore.h>

#define READ EVLOOP_SELECTOR_READ
#define WRITE EVLOOP_SELECTOR_WRITE
#define BOTH (READ | WRITE)

/* One test for each backend. */
#define EVERY_BACKEND(name)                                              \
  static void name(evloop_selector_t s, int backend);                    \
  TEST(name##_select) { on_backend(EVLOOP_SELECTOR_SELECT, name); }      \
  TEST(name##_poll) { on_backend(EVLOOP_SELECTOR_POLL, name); }          \
  TEST(name##_epoll) { on_backend(EVLOOP_SELECTOR_EPOLL, name); }        \
  TEST(name##_devpoll) { on_backend(EVLOOP_SELECTOR_DEVPOLL, name); }    \
  TEST(name##_kqueue) { on_backend(EVLOOP_SELECTOR_KQUEUE, name); }      \
  TEST(name##_default) { on_backend(EVLOOP_SELECTOR_DEFAULT, name); }    \
  static void name(evloop_selector_t s, int backend)

/* ---- helpers ---- */

static void on_backend(int backend, void (*run)(evloop_selector_t s, int backend)) {
  evloop_selector_t s = OK(evloop_selector_create(backend));
  run(s, backend);
  CHECK_EQ(evloop_selector_close(s), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

static bool has_descriptor(int backend) {
  return backend != EVLOOP_SELECTOR_SELECT && backend != EVLOOP_SELECTOR_POLL;
}

static bool forgets_closed(int backend) {
  return backend == EVLOOP_SELECTOR_EPOLL || backend == EVLOOP_SELECTOR_DEFAULT ||
         backend == EVLOOP_SELECTOR_KQUEUE;
}

/* A socket that is ready to read and to write. */
static int busy_socket(void) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_EQ(write(pair[1], "x", 1), 1);
  return pair[0];
}

static void add(evloop_selector_t s, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(evloop_selector_register(s, fd, events, data), 0);
}

static void expect_event(evloop_selector_t s, int fd, uint32_t events, uint64_t data) {
  evloop_ready_t ready[2];
  CHECK_EQ(evloop_selector_wait(s, ready, 2, -1), 1);
  CHECK_EQ(ready[0].fd, fd);
  CHECK_EQ(ready[0].events, events);
  CHECK(ready[0].data == data);
}

static void expect_nothing(evloop_selector_t s) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_selector_wait(s, &ready, 1, 0), 0);
}

static void expect_registered(evloop_selector_t s, int fd, uint32_t events, uint64_t data) {
  uint32_t got_events = 99;
  uint64_t got_data = 99;
  CHECK_EQ(evloop_selector_get(s, fd, &got_events, &got_data), 0);
  CHECK_EQ(got_events, events);
  CHECK(got_data == data);
}

static void expect_woken(Waiter *w, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(pthread_join(w->thread, NULL), 0);
  CHECK_EQ(w->result, 1);
  CHECK_EQ(w->ready[0].fd, fd);
  CHECK_EQ(w->ready[0].events, events);
  CHECK(w->ready[0].data == data);
}

static void start_waiter(Waiter *w, evloop_selector_t object) {
  start_waiter_in(w, evloop_selector_wait, object);
}

/* ---- creation ---- */

TEST(unknown_backends_are_refused) {
  static const int unknown[] = {-1, 6, 100, INT_MAX, INT_MIN};
  for (int i = 0; AT_ROW(i, unknown); i++) {
    CHECK_ERR(evloop_selector_create(unknown[i]), EINVAL);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

/* ---- registrations ---- */

EVERY_BACKEND(get_and_count_return_what_is_registered) {
  int a = event_fd(0), b = event_fd(0);
  (void)backend;
  CHECK_EQ(evloop_selector_count(s), 0);
  add(s, a, READ, 1);
  add(s, b, BOTH, UINT64_MAX);
  CHECK_EQ(evloop_selector_count(s), 2);
  expect_registered(s, a, READ, 1);
  expect_registered(s, b, BOTH, UINT64_MAX);
  CHECK_EQ(evloop_selector_get(s, a, NULL, NULL), 0);
  CHECK_EQ(evloop_selector_modify(s, a, WRITE, 3), 0);
  expect_registered(s, a, WRITE, 3);
  CHECK_EQ(evloop_selector_unregister(s, b), 0);
  CHECK_EQ(evloop_selector_count(s), 1);
  CHECK_ERR(evloop_selector_get(s, b, NULL, NULL), ENOENT);
}

EVERY_BACKEND(registering_twice_is_refused_and_changes_nothing) {
  int fd = busy_socket();
  (void)backend;
  add(s, fd, READ, 1);
  CHECK_ERR(evloop_selector_register(s, fd, WRITE, 2), EEXIST);
  CHECK_EQ(evloop_selector_count(s), 1);
  expect_registered(s, fd, READ, 1);
  expect_event(s, fd, READ, 1);
}

EVERY_BACKEND(strangers_are_not_found) {
  int fd = event_fd(1);
  uint32_t events = 77;
  uint64_t data = 78;
  (void)backend;
  CHECK_ERR(evloop_selector_modify(s, fd, READ, 0), ENOENT);
  CHECK_ERR(evloop_selector_unregister(s, fd), ENOENT);
  CHECK_ERR(evloop_selector_get(s, fd, &events, &data), ENOENT);
  CHECK_EQ(events, 77);
  CHECK_EQ(data, 78);
  CHECK_ERR(evloop_selector_get(s, CLOSED, NULL, NULL), ENOENT);
  expect_nothing(s);
}

EVERY_BACKEND(closed_and_negative_descriptors_are_refused) {
  static const int fds[] = {CLOSED, INT_MAX, -1, INT_MIN};
  (void)backend;
  for (int i = 0; AT_ROW(i, fds); i++) {
    CHECK_ERR(evloop_selector_register(s, fds[i], READ, 0), EBADF);
  }
  CHECK_ERR(evloop_selector_modify(s, -1, READ, 0), EBADF);
  CHECK_ERR(evloop_selector_unregister(s, -1), EBADF);
  CHECK_ERR(evloop_selector_get(s, -1, NULL, NULL), EBADF);
  CHECK_EQ(evloop_selector_count(s), 0);
}

EVERY_BACKEND(events_other_than_read_and_write_are_refused) {
  static const uint32_t wrong[] = {0, 4, READ | 4, 0x80000000, UINT32_MAX};
  int fd = event_fd(0), known = event_fd(1);
  (void)backend;
  add(s, known, READ, 9);
  for (int i = 0; AT_ROW(i, wrong); i++) {
    CHECK_ERR(evloop_selector_register(s, fd, wrong[i], 0), EINVAL);
    CHECK_ERR(evloop_selector_modify(s, known, wrong[i], 0), EINVAL);
  }
  CHECK_EQ(evloop_selector_count(s), 1);
  expect_event(s, known, READ, 9);
}

EVERY_BACKEND(a_descriptor_closed_while_registered) {
  int fd = event_fd(0);
  add(s, fd, READ, 1);
  OK(close(fd));
  CHECK_ERR(evloop_selector_modify(s, fd, READ, 2), EBADF);
  if (forgets_closed(backend)) expect_nothing(s);
  else expect_event(s, fd, READ, 1);
  CHECK_EQ(evloop_selector_unregister(s, fd), 0);
  CHECK_EQ(evloop_selector_count(s), 0);
  expect_nothing(s);
  CHECK_EQ(event_fd(1), fd);
  add(s, fd, READ, 3);
  expect_event(s, fd, READ, 3);
}

EVERY_BACKEND(a_descriptor_used_again_is_unregistered_and_registered) {
  int fd = event_fd(0);
  (void)backend;
  add(s, fd, READ, 1);
  OK(close(fd));
  CHECK_EQ(event_fd(1), fd);
  CHECK_ERR(evloop_selector_register(s, fd, READ, 2), EEXIST);
  CHECK_EQ(evloop_selector_unregister(s, fd), 0);
  expect_nothing(s);
  add(s, fd, READ, 3);
  expect_event(s, fd, READ, 3);
}

/* ---- events ---- */

EVERY_BACKEND(only_what_is_watched_is_reported) {
  int fd = busy_socket();
  (void)backend;
  add(s, fd, READ, 1);
  expect_event(s, fd, READ, 1);
  CHECK_EQ(evloop_selector_modify(s, fd, WRITE, 2), 0);
  expect_event(s, fd, WRITE, 2);
  CHECK_EQ(evloop_selector_modify(s, fd, BOTH, 3), 0);
  expect_event(s, fd, BOTH, 3);
  CHECK_EQ(evloop_selector_unregister(s, fd), 0);
  expect_nothing(s);
}

EVERY_BACKEND(readiness_comes_and_goes) {
  int fd = event_fd(0);
  eventfd_t count;
  (void)backend;
  add(s, fd, READ, 1);
  for (int i = 0; i < 3; i++) {
    expect_nothing(s);
    OK(eventfd_write(fd, 1));
    expect_event(s, fd, READ, 1);
    expect_event(s, fd, READ, 1);
    OK(eventfd_read(fd, &count));
  }
}

EVERY_BACKEND(data_comes_back_bit_for_bit) {
  static const uint64_t words[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63};
  int fd = event_fd(1), file = regular_file();
  (void)backend;
  for (int i = 0; AT_ROW(i, words); i++) {
    add(s, fd, READ, words[i]);
    expect_event(s, fd, READ, words[i]);
    CHECK_EQ(evloop_selector_unregister(s, fd), 0);
    add(s, file, READ, words[i]);
    expect_event(s, file, READ, words[i]);
    CHECK_EQ(evloop_selector_unregister(s, file), 0);
  }
}

EVERY_BACKEND(a_hang_up_is_ready_for_whatever_is_watched) {
  static const uint32_t watched[] = {READ, WRITE, BOTH};
  (void)backend;
  for (int i = 0; AT_ROW(i, watched); i++) {
    Pipe p = new_pipe();
    add(s, p.r, watched[i], 1);
    expect_nothing(s);
    OK(close(p.w));
    expect_event(s, p.r, watched[i], 1);
    CHECK_EQ(evloop_selector_unregister(s, p.r), 0);
  }
}

EVERY_BACKEND(an_error_is_ready_for_whatever_is_watched) {
  static const uint32_t watched[] = {READ, WRITE, BOTH};
  (void)backend;
  for (int i = 0; AT_ROW(i, watched); i++) {
    Pipe p = new_pipe();
    OK(close(p.r));
    add(s, p.w, watched[i], 1);
    expect_event(s, p.w, watched[i], 1);
    CHECK_EQ(evloop_selector_unregister(s, p.w), 0);
  }
}

EVERY_BACKEND(files_directories_and_dev_null_are_always_ready) {
  int file = regular_file(), null = (int)OK(open("/dev/null", O_RDWR)), directory = (int)OK(open("/", O_RDONLY));
  evloop_ready_t ready[4];
  (void)backend;
  add(s, event_fd(0), READ, 0);
  add(s, file, READ, 1);
  expect_event(s, file, READ, 1);
  CHECK_ERR(evloop_selector_register(s, file, READ, 0), EEXIST);
  CHECK_EQ(evloop_selector_modify(s, file, BOTH, 2), 0);
  expect_event(s, file, BOTH, 2);
  add(s, null, WRITE, 3);
  add(s, directory, READ, 4);
  CHECK_EQ(evloop_selector_count(s), 4);
  CHECK_EQ(evloop_selector_wait(s, ready, 4, -1), 3);
  CHECK_EQ(evloop_selector_unregister(s, file), 0);
  CHECK_EQ(evloop_selector_unregister(s, directory), 0);
  expect_event(s, null, WRITE, 3);
  CHECK_EQ(evloop_selector_unregister(s, null), 0);
  expect_nothing(s);
}

EVERY_BACKEND(files_and_pipes_do_not_starve_each_other) {
  enum { EACH = 3, ALL = 2 * EACH };
  (void)backend;
  for (uint64_t i = 0; i < EACH; i++) {
    add(s, event_fd(1), READ, i);
    add(s, regular_file(), BOTH, EACH + i);
  }
  for (int max = 1; max <= ALL; max++) {
    evloop_ready_t ready[ALL];
    int seen[ALL] = {0};
    for (int wait = 0; wait < 2 * ALL; wait++) {
      int n = (int)OK(evloop_selector_wait(s, ready, max, -1));
      CHECK(n > 0);
      CHECK(n <= max);
      for (int i = 0; i < n; i++) seen[ready[i].data]++;
    }
    for (int i = 0; i < ALL; i++) CHECK(seen[i] > 0);
  }
}

/* First the descriptor of a file that epoll cannot watch, then the same one of an
 * eventfd, which it can. */
TEST(a_change_finds_that_what_was_always_ready_is_gone) {
  for (int is_null = 0; is_null < 2; is_null++) {
    evloop_selector_t s = OK(evloop_selector_create(EVLOOP_SELECTOR_EPOLL));
    int fd = (int)OK(open(is_null ? "/dev/null" : "/", O_RDONLY | O_CLOEXEC));
    add(s, fd, READ, 5);
    CHECK_EQ(evloop_selector_modify(s, fd, BOTH, 6), 0);
    expect_event(s, fd, BOTH, 6);
    OK(close(fd));
    CHECK_EQ(event_fd(0), fd);
    for (int i = 0; i < 2; i++) CHECK_ERR(evloop_selector_modify(s, fd, BOTH, 7), ENOENT);
    expect_registered(s, fd, BOTH, 6);
    expect_nothing(s);
    CHECK_EQ(evloop_selector_unregister(s, fd), 0);
    add(s, fd, WRITE, 8);
    expect_event(s, fd, WRITE, 8);
    CHECK_EQ(evloop_selector_close(s), 0);
    OK(close(fd));
  }
}

EVERY_BACKEND(a_maximum_below_1_and_a_null_array_are_refused) {
  evloop_ready_t ready[3], before[3];
  (void)backend;
  add(s, event_fd(1), READ, 1);
  memset(ready, 0xa5, sizeof ready);
  memcpy(before, ready, sizeof ready);
  CHECK_ERR(evloop_selector_wait(s, ready, 0, 0), EINVAL);
  CHECK_ERR(evloop_selector_wait(s, ready, -1, 0), EINVAL);
  CHECK_ERR(evloop_selector_wait(s, NULL, 1, 0), EINVAL);
  CHECK(memcmp(ready, before, sizeof ready) == 0);
  CHECK_EQ(evloop_selector_wait(s, ready, 3, 0), 1);
  CHECK(memcmp(ready + 1, before + 1, 2 * sizeof ready[0]) == 0);
}

EVERY_BACKEND(a_timeout_is_never_early) {
  static const int64_t waits[] = {0, 1, 1000, 3 * MS / 2, 20 * MS};
  evloop_ready_t ready;
  (void)backend;
  add(s, event_fd(0), READ, 1);
  for (int i = 0; AT_ROW(i, waits); i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(evloop_selector_wait(s, &ready, 1, waits[i]), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= waits[i]);
  }
}

/* ---- the descriptor ---- */

EVERY_BACKEND(the_descriptor_is_readable_while_something_is_ready) {
  int fd = event_fd(0), file = regular_file();
  eventfd_t count;
  if (!has_descriptor(backend)) {
    CHECK_ERR(evloop_selector_fileno(s), ENOTSUP);
    return;
  }
  add(s, fd, READ, 1);
  int own = (int)OK(evloop_selector_fileno(s));
  CHECK_EQ(OK(fcntl(own, F_GETFD)), FD_CLOEXEC);
  CHECK(!readable(own, 0));
  OK(eventfd_write(fd, 1));
  CHECK(readable(own, 0));
  OK(eventfd_read(fd, &count));
  CHECK(!readable(own, 0));
  add(s, file, READ, 2);
  CHECK(readable(own, 0));
  CHECK_EQ(evloop_selector_unregister(s, file), 0);
  CHECK(!readable(own, 0));
}

EVERY_BACKEND(a_selector_cannot_watch_itself) {
  if (!has_descriptor(backend)) return;
  int own = (int)OK(evloop_selector_fileno(s));
  CHECK_ERR(evloop_selector_register(s, own, READ, 1), EINVAL);
  CHECK_EQ(evloop_selector_count(s), 0);
  expect_nothing(s);
}

/* ---- other threads ---- */

EVERY_BACKEND(changes_apply_to_a_wait_going_on) {
  Waiter w;
  int fd = event_fd(1), gone = event_fd(0), file = regular_file();
  (void)backend;
  start_waiter(&w, s);
  add(s, fd, READ, 1);
  expect_woken(&w, fd, READ, 1);
  OK(eventfd_read(fd, &(eventfd_t){0}));
  add(s, gone, READ, 2);
  start_waiter(&w, s);
  CHECK_EQ(evloop_selector_unregister(s, gone), 0);
  OK(eventfd_write(gone, 1));
  wait_until_asleep(&w.tid);
  CHECK_EQ(evloop_selector_modify(s, fd, WRITE, 3), 0);
  expect_woken(&w, fd, WRITE, 3);
  CHECK_EQ(evloop_selector_unregister(s, fd), 0);
  start_waiter(&w, s);
  add(s, file, READ, 4);
  expect_woken(&w, file, READ, 4);
}

static void close_under_waiters(int backend) {
  Waiter w[4];
  evloop_selector_t s = OK(evloop_selector_create(backend));
  add(s, event_fd(0), READ, 1);
  for (int i = 0; AT_ROW(i, w); i++) start_waiter(&w[i], s);
  CHECK_EQ(evloop_selector_close(s), 0);
  for (int i = 0; AT_ROW(i, w); i++) {
    CHECK_EQ(pthread_join(w[i].thread, NULL), 0);
    CHECK_EQ(w[i].result, -ESTALE);
  }
  CHECK_ERR(evloop_selector_count(s), ESTALE);
  CHECK_ERR(evloop_selector_close(s), ESTALE);
}

EVERY_BACKEND(closing_ends_the_waits_of_all_threads) {
  (void)s;
  close_under_waiters(backend);
}

/* Closing wakes by what a regular file's registration also turns on, and its
 * end turns off. */
typedef struct Race {
  evloop_selector_t s;
  int file;
  sem_t under_way;
} Race;

static void *wait_until_closed(void *argument) {
  const Race *race = argument;
  evloop_ready_t ready;
  int n;
  while ((n = evloop_selector_wait(race->s, &ready, 1, -1)) >= 0) { }
  CHECK_EQ(n, -ESTALE);
  return NULL;
}

static void *unregister_until_closed(void *argument) {
  Race *race = argument;
  int result = 0;
  while (result == 0) {
    result = evloop_selector_register(race->s, race->file, READ, 1);
    if (result == 0) result = evloop_selector_unregister(race->s, race->file);
    sem_post(&race->under_way);
  }
  CHECK_EQ(result, -ESTALE);
  return NULL;
}

TEST_TIMEOUT(closing_wakes_all_while_the_last_regular_file_is_unregistered, 60) {
  Race race = {.file = regular_file()};
  pthread_t waiters[2], changer;
  for (int round = 0; round < 1000 / slow_factor(); round++) {
    race.s = OK(evloop_selector_create(EVLOOP_SELECTOR_EPOLL));
    OK(sem_init(&race.under_way, 0, 0));
    for (int i = 0; AT_ROW(i, waiters); i++) {
      CHECK_EQ(pthread_create(&waiters[i], NULL, wait_until_closed, &race), 0);
    }
    CHECK_EQ(pthread_create(&changer, NULL, unregister_until_closed, &race), 0);
    for (int i = 0; i <= round % 8; i++) OK(sem_wait(&race.under_way));
    CHECK_EQ(evloop_selector_close(race.s), 0);
    for (int i = 0; AT_ROW(i, waiters); i++) CHECK_EQ(pthread_join(waiters[i], NULL), 0);
    CHECK_EQ(pthread_join(changer, NULL), 0);
  }
}

CHECK_MAIN()
