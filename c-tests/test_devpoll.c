/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* /dev/poll objects: the meanings of Solaris, and a descriptor of their own. */

#define _GNU_SOURCE
#include "support.h"

#include <limits.h>
#include <sys/epoll.h>
#include <sys/select.h>

/* ---- helpers ---- */

static void drain(int event) {
  eventfd_t count;
  OK(eventfd_read(event, &count));
}

static evloop_devpoll_t new_set(void) {
  return OK(evloop_devpoll_create());
}

static void add(evloop_devpoll_t set, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(evloop_devpoll_register(set, fd, events, data), 0);
}

static void expect_event(evloop_devpoll_t set, int fd, uint32_t events, uint64_t data) {
  evloop_ready_t ready[2];
  CHECK_EQ(evloop_devpoll_wait(set, ready, 2, -1), 1);
  CHECK_EQ(ready[0].fd, fd);
  CHECK_EQ(ready[0].events, events);
  CHECK(ready[0].data == data);
}

static void expect_nothing(evloop_devpoll_t set) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_devpoll_wait(set, &ready, 1, 0), 0);
}

/* Runs a case on a set without a descriptor, then on one that has it. */
static void with_and_without_descriptor(void (*run)(evloop_devpoll_t set)) {
  evloop_devpoll_t plain = new_set(), pollable = new_set();
  OK(evloop_devpoll_fileno(pollable));
  run(plain);
  run(pollable);
  CHECK_EQ(evloop_devpoll_close(plain), 0);
  CHECK_EQ(evloop_devpoll_close(pollable), 0);
}

static void start_waiter(Waiter *w, evloop_devpoll_t object) {
  start_waiter_in(w, evloop_devpoll_wait, object);
}

/* ---- registrations ---- */

static void union_of_registrations(evloop_devpoll_t set) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_EQ(write(pair[1], "x", 1), 1);
  add(set, pair[0], EVLOOP_POLLIN, 1);
  expect_event(set, pair[0], EVLOOP_POLLIN, 1);
  add(set, pair[0], EVLOOP_POLLOUT, 2);
  expect_event(set, pair[0], EVLOOP_POLLIN | EVLOOP_POLLOUT, 2);
  add(set, pair[0], 0, 3);
  expect_event(set, pair[0], EVLOOP_POLLIN | EVLOOP_POLLOUT, 3);
}

TEST(registering_twice_adds_events_up_and_replaces_data) {
  with_and_without_descriptor(union_of_registrations);
}

static void exact_modification(evloop_devpoll_t set) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_EQ(write(pair[1], "x", 1), 1);
  add(set, pair[0], EVLOOP_POLLIN | EVLOOP_POLLOUT, 1);
  CHECK_EQ(evloop_devpoll_modify(set, pair[0], EVLOOP_POLLOUT, 2), 0);
  expect_event(set, pair[0], EVLOOP_POLLOUT, 2);
  CHECK_EQ(evloop_devpoll_modify(set, pair[0], 0, 3), 0);
  expect_nothing(set);
}

TEST(modify_replaces_events_and_data) {
  with_and_without_descriptor(exact_modification);
}

static void strangers(evloop_devpoll_t set) {
  int fd = event_fd(1), other = event_fd(1);
  CHECK_EQ(evloop_devpoll_modify(set, fd, EVLOOP_POLLIN, 4), 0);
  CHECK_EQ(evloop_devpoll_unregister(set, other), 0);
  CHECK_EQ(evloop_devpoll_unregister(set, CLOSED), 0);
  expect_event(set, fd, EVLOOP_POLLIN, 4);
  CHECK_EQ(evloop_devpoll_unregister(set, fd), 0);
  expect_nothing(set);
  CHECK_EQ(evloop_devpoll_unregister(set, fd), 0);
  add(set, fd, EVLOOP_POLLIN, 5);
  expect_event(set, fd, EVLOOP_POLLIN, 5);
}

TEST(modify_registers_a_stranger_and_unregister_ignores_one) {
  with_and_without_descriptor(strangers);
}

static void closed_descriptors(evloop_devpoll_t set) {
  int fd = event_fd(0);
  add(set, CLOSED, EVLOOP_POLLIN, 1);
  expect_event(set, CLOSED, EVLOOP_POLLNVAL, 1);
  CHECK_EQ(evloop_devpoll_modify(set, CLOSED, 0, 2), 0);
  expect_event(set, CLOSED, EVLOOP_POLLNVAL, 2);
  CHECK_EQ(evloop_devpoll_unregister(set, CLOSED), 0);
  add(set, fd, EVLOOP_POLLIN, 3);
  expect_nothing(set);
  OK(close(fd));
  expect_event(set, fd, EVLOOP_POLLNVAL, 3);
}

TEST(closed_descriptors_are_reported_as_nval) {
  with_and_without_descriptor(closed_descriptors);
}

static void reused_number(evloop_devpoll_t set) {
  int fd = event_fd(0);
  add(set, fd, EVLOOP_POLLIN, 6);
  OK(close(fd));
  CHECK_EQ(event_fd(1), fd);
  expect_event(set, fd, EVLOOP_POLLIN, 6);
  drain(fd);
  expect_nothing(set);
}

TEST(a_registration_belongs_to_the_descriptor_not_to_the_file) {
  with_and_without_descriptor(reused_number);
}

static void surviving_duplicate(evloop_devpoll_t set) {
  int fd = event_fd(0), duplicate = (int)OK(dup(fd));
  add(set, fd, EVLOOP_POLLIN, 7);
  OK(close(fd));
  CHECK_EQ(event_fd(0), fd);
  OK(eventfd_write(duplicate, 1));
  expect_nothing(set);
  OK(eventfd_write(fd, 1));
  expect_event(set, fd, EVLOOP_POLLIN, 7);
}

TEST(a_surviving_duplicate_is_not_watched) {
  with_and_without_descriptor(surviving_duplicate);
}

static void always_ready_files(evloop_devpoll_t set) {
  int file = regular_file(), null = (int)OK(open("/dev/null", O_RDWR));
  evloop_ready_t ready[2];
  add(set, file, EVLOOP_POLLIN, 1);
  add(set, null, EVLOOP_POLLIN | EVLOOP_POLLOUT, 2);
  CHECK_EQ(evloop_devpoll_wait(set, ready, 2, -1), 2);
  CHECK_EQ(ready[0].events, EVLOOP_POLLIN);
  CHECK_EQ(ready[1].events, EVLOOP_POLLIN | EVLOOP_POLLOUT);
}

TEST(regular_files_and_dev_null_are_always_ready) {
  with_and_without_descriptor(always_ready_files);
}

static void bits(evloop_devpoll_t set) {
  const uint32_t known = POLLIN | POLLPRI | POLLOUT | POLLERR | POLLHUP | POLLNVAL | POLLRDNORM | POLLRDBAND |
                         POLLWRNORM | POLLWRBAND | POLLMSG | POLLRDHUP;
  int fd = event_fd(0);
  add(set, fd, known, 0);
  for (int i = 0; i < 32; i++) {
    uint32_t bit = UINT32_C(1) << i;
    int expected = (known & bit) != 0 ? 0 : -EINVAL;
    CHECK_EQ(evloop_devpoll_register(set, fd, bit, 0), expected);
    CHECK_EQ(evloop_devpoll_modify(set, fd, EVLOOP_POLLIN | bit, 0), expected);
  }
}

TEST(every_known_bit_is_accepted_and_no_other) {
  with_and_without_descriptor(bits);
}

static void hang_ups(evloop_devpoll_t set) {
  Pipe p = new_pipe();
  add(set, p.r, 0, 8);
  expect_nothing(set);
  OK(close(p.w));
  expect_event(set, p.r, EVLOOP_POLLHUP, 8);
}

TEST(a_hang_up_need_not_be_asked_for) {
  with_and_without_descriptor(hang_ups);
}

TEST(negative_descriptors_are_refused) {
  static const int numbers[] = {-1, INT_MIN};
  evloop_devpoll_t set = new_set();
  for (int i = 0; AT_ROW(i, numbers); i++) {
    CHECK_ERR(evloop_devpoll_register(set, numbers[i], EVLOOP_POLLIN, 0), EBADF);
    CHECK_ERR(evloop_devpoll_modify(set, numbers[i], EVLOOP_POLLIN, 0), EBADF);
    CHECK_ERR(evloop_devpoll_unregister(set, numbers[i]), EBADF);
  }
}

/* ---- how many come back ---- */

TEST(a_maximum_below_1_and_a_null_array_are_refused) {
  evloop_devpoll_t set = new_set();
  evloop_ready_t ready;
  add(set, event_fd(1), EVLOOP_POLLIN, 0);
  CHECK_ERR(evloop_devpoll_wait(set, &ready, 0, 0), EINVAL);
  CHECK_ERR(evloop_devpoll_wait(set, &ready, -1, 0), EINVAL);
  CHECK_ERR(evloop_devpoll_wait(set, NULL, 1, 0), EINVAL);
  CHECK_EQ(evloop_devpoll_wait(set, &ready, INT_MAX, 0), 1);
}

static void fair_turns(evloop_devpoll_t set) {
  enum { MANY = 7 };
  evloop_ready_t ready[MANY];
  int seen[MANY] = {0};
  for (uint64_t i = 0; i < MANY; i++) add(set, event_fd(1), EVLOOP_POLLIN, i);
  for (int wait = 0; wait < 4; wait++) {
    int n = (int)OK(evloop_devpoll_wait(set, ready, 2, -1));
    CHECK(n == 1 || n == 2);
    for (int i = 0; i < n; i++) seen[ready[i].data]++;
  }
  for (int i = 0; i < MANY; i++) CHECK(seen[i] > 0);
}

TEST(successive_waits_starve_no_descriptor) {
  with_and_without_descriptor(fair_turns);
}

TEST(thousands_of_descriptors_in_one_set) {
  enum { MANY = 5000 };
  static evloop_ready_t ready[MANY];
  evloop_devpoll_t set = new_set();
  for (int i = 0; i < MANY; i++) add(set, CLOSED + i, EVLOOP_POLLIN, (uint64_t)i);
  CHECK_EQ(evloop_devpoll_wait(set, ready, MANY, -1), MANY);
  for (int i = 0; i < MANY; i++) {
    CHECK_EQ(ready[i].fd, CLOSED + i);
    CHECK_EQ(ready[i].events, EVLOOP_POLLNVAL);
    CHECK_EQ(ready[i].data, i);
  }
}

/* ---- the descriptor ---- */

TEST(the_descriptor_is_made_by_the_first_call_and_closed_with_the_object) {
  int before = open_descriptors();
  evloop_devpoll_t set = new_set();
  add(set, 0, EVLOOP_POLLIN, 0);
  CHECK_EQ(open_descriptors(), before);
  int own = (int)OK(evloop_devpoll_fileno(set));
  CHECK_EQ(evloop_devpoll_fileno(set), own);
  CHECK_EQ(OK(fcntl(own, F_GETFD)), FD_CLOEXEC);
  CHECK_EQ(evloop_devpoll_close(set), 0);
  CHECK(fcntl(own, F_GETFD) < 0);
  CHECK_EQ(errno, EBADF);
  CHECK_ERR(evloop_devpoll_fileno(set), ESTALE);
}

TEST(the_descriptor_is_readable_while_something_is_ready) {
  evloop_devpoll_t set = new_set();
  int early = event_fd(0), late = event_fd(0);
  add(set, early, EVLOOP_POLLIN, 0);
  int own = (int)OK(evloop_devpoll_fileno(set));
  add(set, late, EVLOOP_POLLIN, 0);
  const int fds[] = {early, late};
  for (int i = 0; i < 4; i++) {
    int fd = fds[i / 2];
    CHECK(!readable(own, 0));
    OK(eventfd_write(fd, 1));
    CHECK(readable(own, 0));
    expect_event(set, fd, EVLOOP_POLLIN, 0);
    CHECK(readable(own, 0));
    drain(fd);
  }
}

TEST(the_descriptor_follows_every_change) {
  evloop_devpoll_t set = new_set();
  int own = (int)OK(evloop_devpoll_fileno(set)), fd = event_fd(1);
  add(set, fd, EVLOOP_POLLPRI, 0);
  CHECK(!readable(own, 0));
  add(set, fd, EVLOOP_POLLIN, 0);
  CHECK(readable(own, 0));
  CHECK_EQ(evloop_devpoll_modify(set, fd, 0, 0), 0);
  CHECK(!readable(own, 0));
  CHECK_EQ(evloop_devpoll_modify(set, fd, EVLOOP_POLLOUT, 0), 0);
  CHECK(readable(own, 0));
  CHECK_EQ(evloop_devpoll_unregister(set, fd), 0);
  CHECK(!readable(own, 0));
}

TEST(the_descriptor_knows_files_that_are_always_ready) {
  for (int early = 0; early < 2; early++) {
    evloop_devpoll_t set = new_set();
    int file = regular_file(), own = -1;
    if (!early) own = (int)OK(evloop_devpoll_fileno(set));
    add(set, file, EVLOOP_POLLIN, 0);
    if (early) own = (int)OK(evloop_devpoll_fileno(set));
    CHECK(readable(own, 0));
    CHECK_EQ(evloop_devpoll_unregister(set, file), 0);
    CHECK(!readable(own, 0));
  }
}

TEST(the_descriptor_watches_a_reused_descriptor_registered_again) {
  evloop_devpoll_t set = new_set();
  int own = (int)OK(evloop_devpoll_fileno(set)), fd = event_fd(0);
  add(set, fd, EVLOOP_POLLIN, 1);
  OK(close(fd));
  CHECK_EQ(event_fd(1), fd);
  add(set, fd, EVLOOP_POLLIN, 2);
  CHECK(readable(own, 0));
  drain(fd);
  CHECK(!readable(own, 0));
}

TEST(the_descriptor_works_in_epoll_and_select) {
  evloop_devpoll_t set = new_set();
  int own = (int)OK(evloop_devpoll_fileno(set)), fd = event_fd(0);
  evloop_epoll_t outer = OK(evloop_epoll_create(0));
  evloop_ready_t ready;
  fd_set fds;
  CHECK_EQ(evloop_epoll_register(outer, own, EVLOOP_EPOLLIN, 0), 0);
  add(set, fd, EVLOOP_POLLIN, 0);
  CHECK_EQ(evloop_epoll_wait(outer, &ready, 1, 0), 0);
  OK(eventfd_write(fd, 1));
  CHECK_EQ(evloop_epoll_wait(outer, &ready, 1, -1), 1);
  FD_ZERO(&fds);
  FD_SET(own, &fds);
  CHECK_EQ(select(own + 1, &fds, NULL, NULL, NULL), 1);
}

/* ---- changes while another thread waits ---- */

static void changes_during_a_wait(evloop_devpoll_t set) {
  Waiter w;
  int fd = event_fd(1), gone = event_fd(0);
  start_waiter(&w, set);
  add(set, fd, EVLOOP_POLLIN, 1);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == fd);
  CHECK_EQ(w.ready[0].data, 1);
  CHECK_EQ(evloop_devpoll_modify(set, fd, 0, 2), 0);
  add(set, gone, EVLOOP_POLLIN, 3);
  start_waiter(&w, set);
  CHECK_EQ(evloop_devpoll_unregister(set, gone), 0);
  OK(eventfd_write(gone, 1));
  wait_until_asleep(&w.tid);
  CHECK_EQ(evloop_devpoll_modify(set, fd, EVLOOP_POLLIN, 4), 0);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == fd);
  CHECK_EQ(w.ready[0].data, 4);
}

TEST(changes_apply_to_a_wait_going_on) {
  with_and_without_descriptor(changes_during_a_wait);
}

TEST(making_the_descriptor_does_not_disturb_a_wait_going_on) {
  Waiter w;
  evloop_devpoll_t set = new_set();
  int fd = event_fd(0);
  add(set, fd, EVLOOP_POLLIN, 5);
  start_waiter(&w, set);
  int own = (int)OK(evloop_devpoll_fileno(set));
  wait_until_asleep(&w.tid);
  CHECK(!readable(own, 0));
  OK(eventfd_write(fd, 1));
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == fd);
  CHECK_EQ(w.ready[0].data, 5);
  CHECK(readable(own, 0));
}

TEST(closing_ends_the_waits_of_all_threads) {
  for (int pollable = 0; pollable < 2; pollable++) {
    Waiter w[4];
    evloop_devpoll_t set = new_set();
    add(set, event_fd(0), EVLOOP_POLLIN, 1);
    if (pollable) OK(evloop_devpoll_fileno(set));
    for (int i = 0; i < 4; i++) start_waiter(&w[i], set);
    CHECK_EQ(evloop_devpoll_close(set), 0);
    for (int i = 0; i < 4; i++) CHECK_EQ(waiter_result(&w[i]), -ESTALE);
    CHECK_ERR(evloop_devpoll_close(set), ESTALE);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_DEVPOLL), 0);
}

CHECK_MAIN()
