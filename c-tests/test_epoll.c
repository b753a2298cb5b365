/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Epoll objects: every bit, every error, borrowed descriptors, threads. */

#define _GNU_SOURCE
#include "epoll_support.h"

#include <limits.h>

/* ---- helpers ---- */

static void raw_add(int epoll_fd, int fd, uint64_t data) {
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data};
  OK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event));
}

/* ---- creation and the descriptor ---- */

TEST(created_descriptors_are_close_on_exec_and_unknown_flags_refused) {
  static const uint32_t flags[] = {0, EVLOOP_EPOLL_CLOEXEC};
  for (int i = 0; AT_ROW(i, flags); i++) {
    int fd = (int)OK(evloop_epoll_fileno(OK(evloop_epoll_create(flags[i]))));
    CHECK_EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
  }
  CHECK_ERR(evloop_epoll_create(1), EINVAL);
  CHECK_ERR(evloop_epoll_create(EVLOOP_EPOLL_CLOEXEC | 2), EINVAL);
  CHECK_ERR(evloop_epoll_create(UINT32_MAX), EINVAL);
}

TEST(the_descriptor_is_readable_while_an_event_is_pending) {
  evloop_epoll_t ep = new_epoll(), outer = new_epoll();
  int fd = event_fd(0), own = (int)OK(evloop_epoll_fileno(ep));
  struct pollfd pollfd = {.fd = own, .events = POLLIN};
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 1);
  epoll_add(outer, own, EVLOOP_EPOLLIN, 2);
  CHECK_EQ(poll(&pollfd, 1, 0), 0);
  expect_no_epoll_event(outer);
  OK(eventfd_write(fd, 1));
  CHECK_EQ(poll(&pollfd, 1, 0), 1);
  expect_epoll_event(outer, own, EVLOOP_EPOLLIN, 2);
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 1);
}

TEST(closing_closes_the_descriptor) {
  evloop_epoll_t ep = new_epoll();
  int own = (int)OK(evloop_epoll_fileno(ep));
  CHECK_EQ(evloop_epoll_close(ep), 0);
  CHECK(fcntl(own, F_GETFD) < 0);
  CHECK_EQ(errno, EBADF);
  CHECK_ERR(evloop_epoll_close(ep), ESTALE);
  CHECK_ERR(evloop_epoll_fileno(ep), ESTALE);
  CHECK_ERR(evloop_epoll_register(ep, 0, EVLOOP_EPOLLIN, 0), ESTALE);
}

/* ---- errors of the calls ---- */

TEST(strangers_and_acquaintances) {
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(0);
  CHECK_ERR(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN, 0), ENOENT);
  CHECK_ERR(evloop_epoll_unregister(ep, fd), ENOENT);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 1);
  CHECK_ERR(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 2), EEXIST);
  OK(eventfd_write(fd, 1));
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 1);
  CHECK_EQ(evloop_epoll_unregister(ep, fd), 0);
  CHECK_ERR(evloop_epoll_unregister(ep, fd), ENOENT);
  expect_no_epoll_event(ep);
}

TEST(files_that_cannot_be_waited_for_are_refused) {
  evloop_epoll_t ep = new_epoll();
  FILE *file = tmpfile();
  CHECK(file != NULL);
  const int fds[] = {fileno(file), open("/dev/null", O_RDWR), open("/", O_RDONLY)};
  for (int i = 0; AT_ROW(i, fds); i++) {
    CHECK_ERR(evloop_epoll_register(ep, fds[i], EVLOOP_EPOLLIN, 0), EPERM);
    CHECK_ERR(evloop_epoll_modify(ep, fds[i], EVLOOP_EPOLLIN, 0), EPERM);
    CHECK_ERR(evloop_epoll_unregister(ep, fds[i]), EPERM);
  }
}

TEST(closed_and_negative_descriptors_are_refused) {
  static const int fds[] = {CLOSED, INT_MAX, -1, INT_MIN};
  evloop_epoll_t ep = new_epoll();
  for (int i = 0; AT_ROW(i, fds); i++) {
    CHECK_ERR(evloop_epoll_register(ep, fds[i], EVLOOP_EPOLLIN, 0), EBADF);
    CHECK_ERR(evloop_epoll_modify(ep, fds[i], EVLOOP_EPOLLIN, 0), EBADF);
    CHECK_ERR(evloop_epoll_unregister(ep, fds[i]), EBADF);
  }
}

TEST(a_descriptor_closed_while_registered_is_forgotten) {
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(1);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 1);
  OK(close(fd));
  expect_no_epoll_event(ep);
  CHECK_ERR(evloop_epoll_unregister(ep, fd), EBADF);
  CHECK_EQ(event_fd(1), fd);
  CHECK_ERR(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN, 2), ENOENT);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 3);
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 3);
}

TEST(an_epoll_object_cannot_watch_itself) {
  evloop_epoll_t ep = new_epoll();
  int own = (int)OK(evloop_epoll_fileno(ep));
  CHECK_ERR(evloop_epoll_register(ep, own, EVLOOP_EPOLLIN, 0), EINVAL);
  CHECK_ERR(evloop_epoll_modify(ep, own, EVLOOP_EPOLLIN, 0), EINVAL);
}

TEST(circles_and_deep_nests_are_refused) {
  evloop_epoll_t a = new_epoll(), b = new_epoll(), outer = a;
  int result = 0;
  epoll_add(a, (int)OK(evloop_epoll_fileno(b)), EVLOOP_EPOLLIN, 0);
  CHECK_ERR(evloop_epoll_register(b, (int)OK(evloop_epoll_fileno(a)), EVLOOP_EPOLLIN, 0), ELOOP);
  for (int depth = 0; depth < 10 && result == 0; depth++) {
    int inner = (int)OK(evloop_epoll_fileno(outer));
    outer = new_epoll();
    result = evloop_epoll_register(outer, inner, EVLOOP_EPOLLIN, 0);
  }
  CHECK_EQ(result, -ELOOP);
}

/* ---- bits ---- */

TEST(every_known_bit_is_accepted_and_no_other) {
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(0);
  for (int i = 0; i < 32; i++) {
    uint32_t bit = UINT32_C(1) << i;
    int expected = (known_bits & bit) != 0 ? 0 : -EINVAL;
    CHECK_EQ(evloop_epoll_register(ep, fd, bit, 0), expected);
    if (expected == 0) CHECK_EQ(evloop_epoll_unregister(ep, fd), 0);
    if (bit == EVLOOP_EPOLLEXCLUSIVE) continue;
    epoll_add(ep, fd, 0, 0);
    CHECK_EQ(evloop_epoll_modify(ep, fd, bit, 0), expected);
    CHECK_EQ(evloop_epoll_unregister(ep, fd), 0);
  }
}

static void expect_what_the_kernel_reports(int fd, uint32_t bit) {
  evloop_epoll_t ep = new_epoll();
  evloop_ready_t ready = {.events = 0};
  epoll_add(ep, fd, bit, 0);
  OK(evloop_epoll_wait(ep, &ready, 1, 0));
  CHECK_EQ(ready.events, kernel_events(fd, bit));
  OK(evloop_epoll_close(ep));
}

TEST(each_bit_reports_what_the_kernel_reports) {
  for_each_state_and_bit(expect_what_the_kernel_reports);
}

TEST(edge_triggered_reports_each_arrival_once) {
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(0);
  epoll_add(ep, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLET, 1);
  for (int i = 0; i < 3; i++) {
    OK(eventfd_write(fd, 1));
    expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 1);
    expect_no_epoll_event(ep);
  }
}

TEST(oneshot_reports_once_until_modified) {
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(1);
  epoll_add(ep, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, 1);
  for (uint64_t data = 1; data < 4; data++) {
    expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, data);
    OK(eventfd_write(fd, 1));
    expect_no_epoll_event(ep);
    CHECK_EQ(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, data + 1), 0);
  }
}

TEST(rdhup_reports_a_peer_that_shut_its_writing_half) {
  for (int tcp = 0; tcp < 2; tcp++) {
    evloop_epoll_t ep = new_epoll();
    int pair[2];
    if (tcp) tcp_pair(pair);
    else OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    epoll_add(ep, pair[0], EVLOOP_EPOLLRDHUP, 1);
    expect_no_epoll_event(ep);
    OK(shutdown(pair[1], SHUT_WR));
    expect_epoll_event(ep, pair[0], EVLOOP_EPOLLRDHUP, 1);
  }
}

TEST(pri_reports_out_of_band_data) {
  evloop_epoll_t ep = new_epoll();
  int pair[2];
  tcp_pair(pair);
  epoll_add(ep, pair[1], EVLOOP_EPOLLIN | EVLOOP_EPOLLPRI, 1);
  CHECK_EQ(send(pair[0], "!", 1, MSG_OOB), 1);
  expect_epoll_event(ep, pair[1], EVLOOP_EPOLLPRI, 1);
}

TEST(hang_up_and_error_need_not_be_asked_for) {
  evloop_epoll_t ep = new_epoll();
  Pipe hung_up = new_pipe(), broken = new_pipe();
  epoll_add(ep, hung_up.r, 0, 1);
  OK(close(hung_up.w));
  expect_epoll_event(ep, hung_up.r, EVLOOP_EPOLLHUP, 1);
  CHECK_EQ(evloop_epoll_unregister(ep, hung_up.r), 0);
  epoll_add(ep, broken.w, 0, 2);
  OK(close(broken.r));
  expect_epoll_event(ep, broken.w, EVLOOP_EPOLLERR, 2);
}

TEST(exclusive_stands_alone) {
  const uint32_t exclusive = EVLOOP_EPOLLIN | EVLOOP_EPOLLEXCLUSIVE;
  evloop_epoll_t ep = new_epoll(), inner = new_epoll();
  int fd = event_fd(1);
  CHECK_ERR(evloop_epoll_register(ep, fd, exclusive | EVLOOP_EPOLLONESHOT, 0), EINVAL);
  CHECK_ERR(evloop_epoll_register(ep, fd, exclusive | EVLOOP_EPOLLRDHUP, 0), EINVAL);
  CHECK_ERR(evloop_epoll_register(ep, (int)OK(evloop_epoll_fileno(inner)), exclusive, 0), EINVAL);
  epoll_add(ep, fd, exclusive | EVLOOP_EPOLLOUT | EVLOOP_EPOLLET, 1);
  CHECK_ERR(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN, 2), EINVAL);
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLOUT, 1);
  CHECK_EQ(evloop_epoll_unregister(ep, fd), 0);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 3);
  CHECK_ERR(evloop_epoll_modify(ep, fd, exclusive, 4), EINVAL);
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 3);
}

TEST(exclusive_wakes_at_least_one_of_several_sets) {
  Waiter w[2];
  int fd = event_fd(0), woken = 0;
  for (int i = 0; i < 2; i++) {
    evloop_epoll_t ep = new_epoll();
    epoll_add(ep, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLEXCLUSIVE, 1);
    start_epoll_waiter(&w[i], ep);
  }
  OK(eventfd_write(fd, 1));
  UNTIL(LOAD(w[0].done) || LOAD(w[1].done));
  if (!LOAD(w[0].done)) woken = 1;
  CHECK_EQ(waiter_result(&w[woken]), 1);
  CHECK_EQ(w[woken].ready[0].fd, fd);
  OK(evloop_epoll_close(w[!woken].object));
  int other = waiter_result(&w[!woken]);
  CHECK(other == 1 || other == -ESTALE);
}

/* ---- data, maxima ---- */

TEST(data_comes_back_bit_for_bit) {
  static const uint64_t words[] = {0, 1, UINT64_MAX, UINT64_C(1) << 63, UINT64_C(0x0123456789abcdef)};
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(1);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 77);
  for (int i = 0; AT_ROW(i, words); i++) {
    CHECK_EQ(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN, words[i]), 0);
    expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, words[i]);
    CHECK_EQ(evloop_epoll_unregister(ep, fd), 0);
    epoll_add(ep, fd, EVLOOP_EPOLLIN, words[i]);
    expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, words[i]);
  }
}

TEST(a_maximum_below_1_and_a_null_array_are_refused) {
  evloop_epoll_t ep = new_epoll();
  evloop_ready_t ready;
  epoll_add(ep, event_fd(1), EVLOOP_EPOLLIN, 0);
  CHECK_ERR(evloop_epoll_wait(ep, &ready, 0, 0), EINVAL);
  CHECK_ERR(evloop_epoll_wait(ep, &ready, -1, 0), EINVAL);
  CHECK_ERR(evloop_epoll_wait(ep, &ready, INT_MIN, 0), EINVAL);
  CHECK_ERR(evloop_epoll_wait(ep, NULL, 1, 0), EINVAL);
}

TEST(entries_behind_the_returned_ones_are_untouched) {
  evloop_epoll_t ep = new_epoll();
  evloop_ready_t ready[4], before[4];
  memset(ready, 0xa5, sizeof ready);
  memcpy(before, ready, sizeof ready);
  CHECK_EQ(evloop_epoll_wait(ep, ready, 4, 1), 0);
  CHECK(memcmp(ready, before, sizeof ready) == 0);
  epoll_add(ep, event_fd(1), EVLOOP_EPOLLIN, 0);
  CHECK_EQ(evloop_epoll_wait(ep, ready, 4, 1), 1);
  CHECK(memcmp(ready + 1, before + 1, sizeof ready - sizeof ready[0]) == 0);
}

static int many_ready(evloop_epoll_t ep, int wanted) {
  struct rlimit limit;
  OK(getrlimit(RLIMIT_NOFILE, &limit));
  limit.rlim_cur = limit.rlim_max;
  OK(setrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_max < (rlim_t)wanted + 100) wanted = (int)limit.rlim_max - 100;
  for (int i = 0; i < wanted; i++) epoll_add(ep, event_fd(1), EVLOOP_EPOLLIN, (uint64_t)i);
  return wanted;
}

static void expect_each_once(const evloop_ready_t *ready, int count) {
  static char seen[4096];
  memset(seen, 0, sizeof seen);
  for (int i = 0; i < count; i++) {
    CHECK(ready[i].data < (uint64_t)count);
    CHECK_EQ(seen[ready[i].data]++, 0);
  }
}

TEST(thousands_of_events_come_back_from_one_call) {
  static evloop_ready_t ready[2048];
  evloop_epoll_t ep = new_epoll();
  int all = many_ready(ep, 2000);
  CHECK(all > 900);
  CHECK_EQ(evloop_epoll_wait(ep, ready, 2048, -1), all);
  expect_each_once(ready, all);
  CHECK_EQ(evloop_epoll_wait(ep, ready, INT_MAX, -1), all);
  expect_each_once(ready, all);
}

TEST(successive_waits_starve_no_descriptor) {
  static evloop_ready_t ready[12];
  evloop_epoll_t ep = new_epoll();
  int all = many_ready(ep, 10);
  for (int i = 0; i < all; i += 3) {
    CHECK_EQ(evloop_epoll_wait(ep, &ready[i], 3, -1), 3);
  }
  expect_each_once(ready, all);
}

/* ---- descriptors from elsewhere ---- */

TEST(only_epoll_descriptors_can_be_adopted) {
  Pipe p = new_pipe();
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  CHECK_ERR(evloop_epoll_from_fd(p.r, 0), EINVAL);
  CHECK_ERR(evloop_epoll_from_fd(p.r, EVLOOP_FD_OWN), EINVAL);
  CHECK_ERR(evloop_epoll_from_fd(event_fd(0), 0), EINVAL);
  CHECK_ERR(evloop_epoll_from_fd(open("/dev/null", O_RDWR), 0), EINVAL);
  CHECK_ERR(evloop_epoll_from_fd(CLOSED, EVLOOP_FD_OWN), EBADF);
  CHECK_ERR(evloop_epoll_from_fd(-1, 0), EBADF);
  CHECK_ERR(evloop_epoll_from_fd(INT_MIN, 0), EBADF);
  CHECK_ERR(evloop_epoll_from_fd(raw, 2), EINVAL);
  CHECK_ERR(evloop_epoll_from_fd(raw, EVLOOP_FD_OWN | 0x80000000), EINVAL);
  OK(fcntl(raw, F_GETFD));
  OK(fcntl(p.r, F_GETFD));
}

TEST(a_borrowed_descriptor_stays_open_and_an_owned_one_does_not) {
  int raw = (int)OK(epoll_create1(0));
  evloop_epoll_t borrowed = OK(evloop_epoll_from_fd(raw, 0));
  CHECK_EQ(evloop_epoll_fileno(borrowed), raw);
  CHECK_EQ(OK(fcntl(raw, F_GETFD)), 0);
  CHECK_EQ(evloop_epoll_close(borrowed), 0);
  OK(fcntl(raw, F_GETFD));
  evloop_epoll_t owned = OK(evloop_epoll_from_fd(raw, EVLOOP_FD_OWN));
  CHECK_EQ(evloop_epoll_close(owned), 0);
  CHECK(fcntl(raw, F_GETFD) < 0);
  CHECK_EQ(errno, EBADF);
}

TEST(a_borrowed_descriptor_that_was_closed_is_noticed) {
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  evloop_epoll_t ep = OK(evloop_epoll_from_fd(raw, 0));
  evloop_ready_t ready;
  int fd = event_fd(1);
  OK(close(raw));
  CHECK_ERR(evloop_epoll_wait(ep, &ready, 1, 0), EBADF);
  CHECK_ERR(evloop_epoll_wait(ep, &ready, 1, -1), EBADF);
  CHECK_ERR(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 0), EBADF);
  CHECK_EQ(evloop_epoll_close(ep), 0);
}

TEST(words_of_raw_registrations_come_through_whatever_they_are) {
  static const uint64_t words[] = {0, 7, UINT64_C(1) << 63, (uint64_t)INT64_MIN + 7, UINT64_MAX};
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  evloop_epoll_t ep = OK(evloop_epoll_from_fd(raw, 0));
  for (int i = 0; AT_ROW(i, words); i++) {
    int fd = event_fd(1);
    raw_add(raw, fd, words[i]);
    expect_epoll_event(ep, -1, EVLOOP_EPOLLIN, words[i]);
    OK(close(fd));
  }
}

TEST(raw_registrations_mix_with_those_of_the_object) {
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  evloop_epoll_t ep = OK(evloop_epoll_from_fd(raw, 0));
  int foreign = event_fd(1);
  raw_add(raw, foreign, (uint64_t)foreign);
  CHECK_ERR(evloop_epoll_register(ep, foreign, EVLOOP_EPOLLIN, 0), EEXIST);
  OK(close(foreign));
  int fd = event_fd(0), other = event_fd(1);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 42);
  raw_add(raw, other, (uint64_t)fd); /* as programs do that store data.fd */
  expect_epoll_event(ep, -1, EVLOOP_EPOLLIN, (uint64_t)fd);
  OK(close(other));
  OK(eventfd_write(fd, 1));
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 42);
}

/* ---- changes and closes while threads wait ---- */

TEST(changes_apply_to_a_wait_going_on) {
  Waiter w;
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(1), gone = event_fd(0);
  start_epoll_waiter(&w, ep);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 1);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == fd);
  CHECK_EQ(w.ready[0].data, 1);
  CHECK_EQ(evloop_epoll_modify(ep, fd, 0, 2), 0);
  epoll_add(ep, gone, EVLOOP_EPOLLIN, 3);
  start_epoll_waiter(&w, ep);
  CHECK_EQ(evloop_epoll_unregister(ep, gone), 0);
  OK(eventfd_write(gone, 1));
  CHECK_EQ(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN, 4), 0);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == fd);
  CHECK_EQ(w.ready[0].data, 4);
}

TEST(closing_ends_the_waits_of_all_threads) {
  Waiter w[4];
  evloop_epoll_t ep = new_epoll();
  int own = (int)OK(evloop_epoll_fileno(ep));
  epoll_add(ep, event_fd(0), EVLOOP_EPOLLIN, 1);
  for (int i = 0; i < 4; i++) start_epoll_waiter(&w[i], ep);
  CHECK_EQ(evloop_epoll_close(ep), 0);
  for (int i = 0; i < 4; i++) CHECK_EQ(waiter_result(&w[i]), -ESTALE);
  CHECK(fcntl(own, F_GETFD) < 0);
  CHECK_EQ(errno, EBADF);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_EPOLL), 0);
}

TEST(closing_a_borrowed_descriptors_object_leaves_the_set_usable) {
  Waiter w[2];
  struct epoll_event events[4];
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC)), fd = event_fd(0), own = event_fd(0);
  evloop_epoll_t ep = OK(evloop_epoll_from_fd(raw, 0));
  raw_add(raw, fd, 5);
  epoll_add(ep, own, EVLOOP_EPOLLIN, 6);
  for (int i = 0; i < 2; i++) start_epoll_waiter(&w[i], ep);
  CHECK_EQ(evloop_epoll_close(ep), 0);
  for (int i = 0; i < 2; i++) CHECK_EQ(waiter_result(&w[i]), -ESTALE);
  CHECK_EQ(epoll_wait(raw, events, 4, 0), 0);
  OK(eventfd_write(fd, 1));
  CHECK_EQ(epoll_wait(raw, events, 4, -1), 1);
  CHECK_EQ(events[0].data.u64, 5);
  /* What the object registered stays in the set, until it is taken out. */
  OK(epoll_ctl(raw, EPOLL_CTL_DEL, own, NULL));
}

CHECK_MAIN()
