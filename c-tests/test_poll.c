/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Poll sets: registrations, events, many descriptors, changes during a wait. */

#define _GNU_SOURCE
#include "support.h"

#include <limits.h>
#include <pty.h>
#include <sched.h>

/* ---- helpers ---- */

static evloop_poll_t new_set(void) {
  return OK(evloop_poll_create());
}

/* What a wait of 0 ns says of a set in which one descriptor is ready. */
static evloop_ready_t only_ready(evloop_poll_t set) {
  evloop_ready_t ready[2];
  CHECK_EQ(evloop_poll_wait(set, ready, 2, 0), 1);
  return ready[0];
}

static void expect_nothing(evloop_poll_t set) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_poll_wait(set, &ready, 1, 0), 0);
}

static void start_waiter(Waiter *w, evloop_poll_t object) {
  start_waiter_in(w, evloop_poll_wait, object);
}

/* ---- registrations ---- */

TEST(the_default_is_in_pri_and_out) {
  int pair[2];
  evloop_poll_t set = new_set();
  CHECK_EQ(EVLOOP_POLL_DEFAULT, POLLIN | POLLPRI | POLLOUT);
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_EQ(evloop_poll_register(set, pair[0], EVLOOP_POLL_DEFAULT, 5), 0);
  CHECK_EQ(only_ready(set).events, POLLOUT);
  put(pair[1]);
  CHECK_EQ(only_ready(set).events, POLLIN | POLLOUT);
  OK(evloop_poll_close(set));
}

TEST(registering_again_replaces_events_and_data) {
  int pair[2];
  evloop_poll_t set = new_set();
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  put(pair[1]);
  CHECK_EQ(evloop_poll_register(set, pair[0], EVLOOP_POLLIN, 1), 0);
  CHECK_EQ(evloop_poll_register(set, pair[0], EVLOOP_POLLOUT, 2), 0);
  evloop_ready_t ready = only_ready(set);
  CHECK_EQ(ready.fd, pair[0]);
  CHECK_EQ(ready.events, EVLOOP_POLLOUT);
  CHECK_EQ(ready.data, 2);
}

TEST(modify_replaces_events_and_data) {
  Pipe p = new_pipe();
  evloop_poll_t set = new_set();
  CHECK_EQ(evloop_poll_register(set, p.w, EVLOOP_POLLOUT, 1), 0);
  CHECK_EQ(evloop_poll_modify(set, p.w, 0, 2), 0);
  expect_nothing(set);
  CHECK_EQ(evloop_poll_modify(set, p.w, EVLOOP_POLLOUT, 3), 0);
  CHECK_EQ(only_ready(set).data, 3);
}

TEST(unregistered_descriptors_are_strangers) {
  Pipe p = new_pipe();
  evloop_poll_t set = new_set();
  CHECK_ERR(evloop_poll_modify(set, p.w, EVLOOP_POLLOUT, 0), ENOENT);
  CHECK_ERR(evloop_poll_unregister(set, p.w), ENOENT);
  CHECK_EQ(evloop_poll_register(set, p.w, EVLOOP_POLLOUT, 0), 0);
  CHECK_EQ(evloop_poll_unregister(set, p.w), 0);
  expect_nothing(set);
  CHECK_ERR(evloop_poll_unregister(set, p.w), ENOENT);
  CHECK_ERR(evloop_poll_modify(set, p.w, EVLOOP_POLLOUT, 0), ENOENT);
}

TEST(data_comes_back_bit_for_bit) {
  static const uint64_t words[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63, UINT64_C(0x0123456789abcdef)};
  evloop_poll_t set = new_set();
  int fd = event_fd(1);
  for (int i = 0; AT_ROW(i, words); i++) {
    CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, words[i]), 0);
    CHECK(only_ready(set).data == words[i]);
  }
}

TEST(every_known_bit_is_accepted_and_no_other) {
  const uint32_t known = POLLIN | POLLPRI | POLLOUT | POLLERR | POLLHUP | POLLNVAL | POLLRDNORM | POLLRDBAND |
                         POLLWRNORM | POLLWRBAND | POLLMSG | POLLRDHUP;
  evloop_poll_t set = new_set();
  int fd = event_fd(0);
  CHECK_EQ(evloop_poll_register(set, fd, known, 0), 0);
  for (int bit = 0; bit < 32; bit++) {
    uint32_t events = UINT32_C(1) << bit;
    int expected = (known & events) != 0 ? 0 : -EINVAL;
    CHECK_EQ(evloop_poll_register(set, fd, events, 0), expected);
    CHECK_EQ(evloop_poll_modify(set, fd, EVLOOP_POLLIN | events, 0), expected);
  }
}

TEST(a_refused_change_leaves_the_registration) {
  evloop_poll_t set = new_set();
  int fd = event_fd(1);
  CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, 7), 0);
  CHECK_ERR(evloop_poll_register(set, fd, 0x80000000, 8), EINVAL);
  CHECK_ERR(evloop_poll_modify(set, fd, 0x1000, 9), EINVAL);
  CHECK_EQ(only_ready(set).data, 7);
}

TEST(negative_descriptors_are_refused) {
  static const int numbers[] = {-1, -2, INT_MIN};
  evloop_poll_t set = new_set();
  for (int i = 0; AT_ROW(i, numbers); i++) {
    CHECK_ERR(evloop_poll_register(set, numbers[i], EVLOOP_POLLIN, 0), EBADF);
    CHECK_ERR(evloop_poll_modify(set, numbers[i], EVLOOP_POLLIN, 0), EBADF);
    CHECK_ERR(evloop_poll_unregister(set, numbers[i]), EBADF);
  }
}

/* ---- events ---- */

TEST(each_bit_reports_what_poll_2_reports) {
  Pipe data = new_pipe(), hung_up = new_pipe(), broken = new_pipe();
  int pair[2], master, slave;
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  OK(openpty(&master, &slave, NULL, NULL, NULL));
  put(data.w);
  OK(close(hung_up.w));
  OK(close(broken.r));
  OK(close(slave));
  OK(shutdown(pair[1], SHUT_WR));
  const int fds[] = {data.r, data.w, hung_up.r, broken.w, pair[0], master, event_fd(0), CLOSED};
  for (int i = 0; AT_ROW(i, fds); i++) {
    for (int bit = 0; bit < 14; bit++) {
      evloop_poll_t set = new_set();
      evloop_ready_t ready = {.events = 0};
      struct pollfd kernel = {.fd = fds[i], .events = (short)(1 << bit)};
      if (bit == 11 || bit == 12) continue;
      CHECK_EQ(evloop_poll_register(set, fds[i], UINT32_C(1) << bit, 0), 0);
      CHECK_EQ(evloop_poll_wait(set, &ready, 1, 0), OK(poll(&kernel, 1, 0)));
      CHECK_EQ(ready.events, kernel.revents);
      OK(evloop_poll_close(set));
    }
  }
}

TEST(hang_up_error_and_nval_need_not_be_asked_for) {
  Pipe hung_up = new_pipe(), broken = new_pipe();
  evloop_poll_t set = new_set();
  evloop_ready_t ready[3];
  OK(close(hung_up.w));
  OK(close(broken.r));
  CHECK_EQ(evloop_poll_register(set, hung_up.r, 0, 0), 0);
  CHECK_EQ(evloop_poll_register(set, broken.w, 0, 0), 0);
  CHECK_EQ(evloop_poll_register(set, CLOSED, 0, 0), 0);
  CHECK_EQ(evloop_poll_wait(set, ready, 3, -1), 3);
  CHECK_EQ(ready[0].events, EVLOOP_POLLHUP);
  CHECK_EQ(ready[1].events, EVLOOP_POLLERR);
  CHECK_EQ(ready[2].events, EVLOOP_POLLNVAL);
}

TEST(regular_files_and_dev_null_are_always_ready) {
  evloop_poll_t set = new_set();
  evloop_ready_t ready[2];
  FILE *file = tmpfile();
  CHECK(file != NULL);
  int null = (int)OK(open("/dev/null", O_RDWR));
  CHECK_EQ(evloop_poll_register(set, fileno(file), EVLOOP_POLLIN | EVLOOP_POLLOUT, 0), 0);
  CHECK_EQ(evloop_poll_register(set, null, EVLOOP_POLLIN, 0), 0);
  CHECK_EQ(evloop_poll_wait(set, ready, 2, -1), 2);
  CHECK_EQ(ready[0].events, EVLOOP_POLLIN | EVLOOP_POLLOUT);
  CHECK_EQ(ready[1].events, EVLOOP_POLLIN);
}

TEST(a_closed_descriptor_is_nval_until_it_is_used_again) {
  evloop_poll_t set = new_set();
  int fd = event_fd(0);
  CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, 4), 0);
  expect_nothing(set);
  OK(close(fd));
  evloop_ready_t ready;
  /* The first wait of a thread opens an eventfd, which must not take this fd. */
  CHECK_EQ(evloop_poll_wait(set, &ready, 1, 1000 * MS), 1);
  CHECK_EQ(ready.fd, fd);
  CHECK_EQ(ready.events, EVLOOP_POLLNVAL);
  CHECK_EQ(ready.data, 4);
  CHECK_EQ(event_fd(1), fd);
  CHECK_EQ(only_ready(set).events, EVLOOP_POLLIN);
}

TEST(huge_descriptors_are_registered_and_reported_as_nval) {
  static const int numbers[] = {100000, 1000000, INT_MAX - 1, INT_MAX};
  evloop_poll_t set = new_set();
  evloop_ready_t ready[5];
  for (int i = 0; AT_ROW(i, numbers); i++) {
    CHECK_EQ(evloop_poll_register(set, numbers[i], EVLOOP_POLLIN, (uint64_t)i), 0);
  }
  CHECK_EQ(evloop_poll_wait(set, ready, 5, -1), 4);
  for (int i = 0; AT_ROW(i, numbers); i++) {
    CHECK_EQ(ready[i].fd, numbers[i]);
    CHECK_EQ(ready[i].events, EVLOOP_POLLNVAL);
    CHECK_EQ(ready[i].data, i);
    CHECK_EQ(evloop_poll_unregister(set, numbers[i]), 0);
  }
  expect_nothing(set);
}

/* ---- how many come back ---- */

TEST(a_maximum_below_1_and_a_null_array_are_refused) {
  evloop_poll_t set = new_set();
  evloop_ready_t ready;
  CHECK_EQ(evloop_poll_register(set, event_fd(1), EVLOOP_POLLIN, 0), 0);
  CHECK_ERR(evloop_poll_wait(set, &ready, 0, 0), EINVAL);
  CHECK_ERR(evloop_poll_wait(set, &ready, -1, 0), EINVAL);
  CHECK_ERR(evloop_poll_wait(set, &ready, INT_MIN, 0), EINVAL);
  CHECK_ERR(evloop_poll_wait(set, NULL, 1, 0), EINVAL);
  CHECK_EQ(evloop_poll_wait(set, &ready, INT_MAX, 0), 1);
}

TEST(events_come_in_the_order_of_the_descriptors) {
  enum { MANY = 20 };
  evloop_poll_t set = new_set();
  evloop_ready_t ready[MANY];
  int fds[MANY];
  for (int i = 0; i < MANY; i++) fds[i] = event_fd(1);
  for (int i = 0; i < MANY; i++) {
    int fd = fds[(i * 7) % MANY];
    CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, (uint64_t)fd), 0);
  }
  CHECK_EQ(evloop_poll_wait(set, ready, MANY, 0), MANY);
  for (int i = 0; i < MANY; i++) {
    CHECK_EQ(ready[i].fd, fds[i]);
    CHECK_EQ(ready[i].data, fds[i]);
  }
}

TEST(successive_waits_starve_no_descriptor) {
  enum { MANY = 7 };
  for (int max = 1; max <= MANY; max++) {
    evloop_poll_t set = new_set();
    evloop_ready_t ready[MANY];
    int fds[MANY], seen[MANY] = {0};
    for (int i = 0; i < MANY; i++) {
      fds[i] = event_fd(1);
      CHECK_EQ(evloop_poll_register(set, fds[i], EVLOOP_POLLIN, (uint64_t)i), 0);
    }
    for (int wait = 0; wait < (MANY + max - 1) / max; wait++) {
      int n = (int)OK(evloop_poll_wait(set, ready, max, -1));
      CHECK(n > 0);
      CHECK(n <= max);
      for (int i = 0; i < n; i++) seen[ready[i].data]++;
    }
    for (int i = 0; i < MANY; i++) CHECK(seen[i] > 0);
    OK(evloop_poll_close(set));
  }
}

TEST(entries_behind_the_returned_ones_are_untouched) {
  evloop_poll_t set = new_set();
  evloop_ready_t ready[8], before[8];
  memset(ready, 0xa5, sizeof ready);
  memcpy(before, ready, sizeof ready);
  expect_nothing(set);
  CHECK_EQ(evloop_poll_wait(set, ready, 8, 1), 0);
  CHECK(memcmp(ready, before, sizeof ready) == 0);
  CHECK_EQ(evloop_poll_register(set, event_fd(1), EVLOOP_POLLIN, 0), 0);
  CHECK_EQ(evloop_poll_register(set, event_fd(0), EVLOOP_POLLIN, 0), 0);
  CHECK_EQ(evloop_poll_register(set, event_fd(1), EVLOOP_POLLIN, 0), 0);
  CHECK_EQ(evloop_poll_wait(set, ready, 8, -1), 2);
  CHECK(memcmp(ready + 2, before + 2, sizeof ready - 2 * sizeof ready[0]) == 0);
}

/* ---- RLIMIT_NOFILE ---- */

enum { OVER = 60, LIMIT = 50 };

static evloop_poll_t set_of(int fds[], int count, uint32_t events) {
  evloop_poll_t set = new_set();
  for (int i = 0; i < count; i++) {
    fds[i] = event_fd(0);
    CHECK_EQ(evloop_poll_register(set, fds[i], events, (uint64_t)i), 0);
  }
  return set;
}

TEST(more_registered_than_the_limit_and_none_ready_is_an_error) {
  int fds[OVER];
  evloop_ready_t ready[OVER];
  evloop_poll_t set = set_of(fds, OVER, EVLOOP_POLLIN);
  set_limit(LIMIT);
  CHECK_ERR(evloop_poll_wait(set, ready, OVER, MS), EINVAL);
  CHECK_ERR(evloop_poll_wait(set, ready, OVER, -1), EINVAL);
  leave_room_for_checkers();
}

TEST(more_registered_than_the_limit_and_some_ready_works) {
  int fds[OVER];
  evloop_ready_t ready[OVER];
  evloop_poll_t set = set_of(fds, OVER, EVLOOP_POLLIN);
  set_limit(LIMIT);
  for (int i = OVER - 1; i >= 0; i--) {
    OK(eventfd_write(fds[i], 1));
    CHECK_EQ(evloop_poll_wait(set, ready, OVER, -1), OVER - i);
    CHECK_EQ(ready[0].data, i);
  }
  leave_room_for_checkers();
}

TEST(as_many_registered_as_the_limit_can_wait) {
  int fds[LIMIT];
  evloop_ready_t ready[LIMIT];
  evloop_poll_t set = set_of(fds, LIMIT, EVLOOP_POLLIN);
  set_limit(LIMIT);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(evloop_poll_wait(set, ready, LIMIT, 50 * MS), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 50 * MS);
  leave_room_for_checkers();
}

TEST(thousands_of_descriptors_in_one_set) {
  enum { MANY = 5000 };
  static evloop_ready_t ready[MANY];
  evloop_poll_t set = new_set();
  int open = event_fd(1);
  CHECK_EQ(evloop_poll_register(set, open, EVLOOP_POLLIN, 1), 0);
  for (int i = 1; i < MANY; i++) {
    CHECK_EQ(evloop_poll_register(set, CLOSED + i, EVLOOP_POLLIN, 0), 0);
  }
  CHECK_EQ(evloop_poll_wait(set, ready, MANY, -1), MANY);
  CHECK_EQ(ready[0].events, EVLOOP_POLLIN);
  for (int i = 1; i < MANY; i++) {
    CHECK_EQ(ready[i].fd, CLOSED + i);
    CHECK_EQ(ready[i].events, EVLOOP_POLLNVAL);
  }
}

/* ---- changes while another thread waits ---- */

TEST(registering_applies_to_a_wait_going_on) {
  Waiter w;
  evloop_poll_t set = new_set();
  int fd = event_fd(1);
  start_waiter(&w, set);
  CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, 11), 0);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK_EQ(w.ready[0].fd, fd);
  CHECK_EQ(w.ready[0].data, 11);
}

TEST(modifying_applies_to_a_wait_going_on) {
  Waiter w;
  evloop_poll_t set = new_set();
  int fd = event_fd(1);
  CHECK_EQ(evloop_poll_register(set, fd, 0, 1), 0);
  start_waiter(&w, set);
  CHECK_EQ(evloop_poll_modify(set, fd, EVLOOP_POLLIN, 2), 0);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK_EQ(w.ready[0].data, 2);
}

TEST(taking_bits_away_applies_to_a_wait_going_on) {
  Waiter w;
  evloop_poll_t set = new_set();
  int quiet = event_fd(0), loud = event_fd(0);
  CHECK_EQ(evloop_poll_register(set, quiet, EVLOOP_POLLIN, 1), 0);
  CHECK_EQ(evloop_poll_register(set, loud, EVLOOP_POLLIN, 2), 0);
  start_waiter(&w, set);
  CHECK_EQ(evloop_poll_modify(set, quiet, 0, 1), 0);
  OK(eventfd_write(quiet, 1));
  wait_until_asleep(&w.tid);
  OK(eventfd_write(loud, 1));
  CHECK_EQ(waiter_result(&w), 1);
  CHECK_EQ(w.ready[0].fd, loud);
}

TEST(unregistering_applies_to_a_wait_going_on) {
  Waiter w;
  evloop_poll_t set = new_set();
  int gone = event_fd(0), stays = event_fd(0);
  CHECK_EQ(evloop_poll_register(set, gone, EVLOOP_POLLIN, 1), 0);
  CHECK_EQ(evloop_poll_register(set, stays, EVLOOP_POLLIN, 2), 0);
  start_waiter(&w, set);
  CHECK_EQ(evloop_poll_unregister(set, gone), 0);
  OK(eventfd_write(gone, 1));
  wait_until_asleep(&w.tid);
  OK(eventfd_write(stays, 1));
  CHECK_EQ(waiter_result(&w), 1);
  CHECK_EQ(w.ready[0].fd, stays);
}

TEST(closing_ends_the_waits_of_all_threads) {
  enum { THREADS = 4 };
  Waiter w[THREADS];
  evloop_poll_t set = new_set();
  CHECK_EQ(evloop_poll_register(set, event_fd(0), EVLOOP_POLLIN, 1), 0);
  for (int i = 0; i < THREADS; i++) start_waiter(&w[i], set);
  CHECK_EQ(evloop_poll_close(set), 0);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(waiter_result(&w[i]), -ESTALE);
  CHECK_ERR(evloop_poll_close(set), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_POLL), 0);
}

TEST(all_threads_waiting_see_one_change) {
  enum { THREADS = 4 };
  Waiter w[THREADS];
  evloop_poll_t set = new_set();
  int fd = event_fd(1);
  for (int i = 0; i < THREADS; i++) start_waiter(&w[i], set);
  CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, 3), 0);
  for (int i = 0; i < THREADS; i++) {
    CHECK_EQ(waiter_result(&w[i]), 1);
    CHECK_EQ(w[i].ready[0].fd, fd);
  }
}

static void use_up_descriptors(int highest) {
  set_limit((rlim_t)highest + 1);
  while (dup(highest) >= 0) { }
  CHECK_EQ(errno, EMFILE);
}

TEST(changes_arrive_without_a_descriptor_left) {
  HeldBack h;
  evloop_poll_t set = new_set();
  int fd = event_fd(1), idle = event_fd(0);
  CHECK_EQ(evloop_poll_register(set, idle, EVLOOP_POLLIN, 1), 0);
  hold_back(&h, evloop_poll_wait, set);
  use_up_descriptors(h.call_file);
  let_it_wait(&h);
  CHECK_EQ(evloop_poll_register(set, fd, EVLOOP_POLLIN, 2), 0);
  CHECK_EQ(held_back_result(&h), 1);
  CHECK_EQ(h.waiter.ready[0].fd, fd);
  leave_room_for_checkers();
}

/* ---- a set that changes all the time ---- */

enum { ROUNDS = 50, ENOUGH = 50 };

static int collected; /* events so far */

static int enough(void) {
  return __atomic_load_n(&collected, __ATOMIC_RELAXED) >= ENOUGH;
}

typedef struct Churn {
  evloop_poll_t set;
  const int *fds;
  int first, step, count;
} Churn;

static void *churning(void *argument) {
  const Churn *c = argument;
  for (int round = 0; round < ROUNDS || !enough(); round++) {
    for (int i = c->first; i < c->count; i += c->step) {
      int fd = c->fds[i];
      CHECK_EQ(evloop_poll_register(c->set, fd, EVLOOP_POLLIN, (uint64_t)fd), 0);
      CHECK_EQ(evloop_poll_modify(c->set, fd, EVLOOP_POLLIN | EVLOOP_POLLPRI, (uint64_t)fd), 0);
      sched_yield();
      CHECK_EQ(evloop_poll_unregister(c->set, fd), 0);
    }
  }
  return NULL;
}

static void *collecting(void *argument) {
  const evloop_poll_t set = *(evloop_poll_t *)argument;
  evloop_ready_t ready[4];
  int n;
  while ((n = evloop_poll_wait(set, ready, 4, -1)) > 0) {
    for (int i = 0; i < n; i++) CHECK_EQ(ready[i].data, ready[i].fd);
    __atomic_add_fetch(&collected, n, __ATOMIC_RELAXED);
  }
  CHECK_EQ(n, -ESTALE);
  return NULL;
}

TEST_TIMEOUT(registrations_come_and_go_under_waiting_threads, 60) {
  enum { FDS = 12, THREADS = 3 };
  int fds[FDS];
  evloop_poll_t set = new_set();
  pthread_t changers[THREADS], waiters[THREADS];
  Churn churn[THREADS];
  for (int i = 0; i < FDS; i++) fds[i] = event_fd(1);
  for (int i = 0; i < THREADS; i++) {
    churn[i] = (Churn){set, fds, i, THREADS, FDS};
    CHECK_EQ(pthread_create(&waiters[i], NULL, collecting, &set), 0);
    CHECK_EQ(pthread_create(&changers[i], NULL, churning, &churn[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(changers[i], NULL), 0);
  CHECK_EQ(evloop_poll_close(set), 0);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(waiters[i], NULL), 0);
}

CHECK_MAIN()
