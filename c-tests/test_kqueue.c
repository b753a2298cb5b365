/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the queue itself, control, errors and receipts, nesting, threads,
 * close, second handles. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <limits.h>
#include <sys/epoll.h>
#include <sys/select.h>

/* ---- creation ---- */

TEST(a_queue_is_made_and_closed) {
  evloop_kqueue_t kq = new_kqueue();
  CHECK_EQ(evloop_handle_kind(kq), EVLOOP_KIND_KQUEUE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_KQUEUE), 1);
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  CHECK_EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
  expect_nothing(kq);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(fcntl(fd, F_GETFD) < 0);
  CHECK_EQ(errno, EBADF);
  CHECK_ERR(evloop_kqueue_close(kq), ESTALE);
  CHECK_ERR(evloop_kqueue_fileno(kq), ESTALE);
  CHECK_ERR(evloop_kqueue_control(kq, NULL, 0, NULL, 0, 0), ESTALE);
}

TEST(flags_of_creation) {
  int fd = (int)OK(evloop_kqueue_fileno(OK(evloop_kqueue_create(EVLOOP_KQ_CLOEXEC))));
  CHECK_EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
  OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  CHECK_ERR(evloop_kqueue_create(4), EINVAL);
  CHECK_ERR(evloop_kqueue_create(UINT32_MAX), EINVAL);
}

TEST(closing_gives_back_all_descriptors) {
  /* The first makes one for the process. */
  CHECK_EQ(evloop_kqueue_close(new_kqueue()), 0);
  int before = open_descriptors();
  for (int i = 0; i < 100; i++) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe p = new_pipe();
    int file = (int)OK(open("/tmp", O_TMPFILE | O_RDWR, 0600));
    apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 0);
    apply(kq, 1, KQ_TIMER, ADD, 0, 1000, 0);
    apply(kq, 2, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_ABSTIME, INT32_MAX, 0);
    apply(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 0);
    apply(kq, (uint64_t)p.r, KQ_READ, ADD | EVLOOP_KQ_EV_UDATA_SPECIFIC | CLEAR, 0, 0, 1);
    apply(kq, (uint64_t)file, KQ_READ, ADD, 0, 0, 0);
    close(p.r);
    close(p.w);
    close(file);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
  }
  CHECK_EQ(open_descriptors(), before);
}

/* ---- arguments ---- */

TEST(counts_and_arrays_are_checked) {
  evloop_kqueue_t kq = new_kqueue();
  Event one = change(1, KQ_USER, ADD, 0, 0, 0);
  CHECK_ERR(evloop_kqueue_control(kq, &one, -1, NULL, 0, 0), EINVAL);
  CHECK_ERR(evloop_kqueue_control(kq, NULL, 0, &one, -1, 0), EINVAL);
  CHECK_ERR(evloop_kqueue_control(kq, NULL, 1, NULL, 0, 0), EINVAL);
  CHECK_ERR(evloop_kqueue_control(kq, NULL, 0, NULL, 1, 0), EINVAL);
  CHECK_ERR(evloop_kqueue_control(kq, &one, INT_MIN, &one, INT_MIN, 0), EINVAL);
  CHECK_ERR(try_change(kq, 1, KQ_USER, DELETE, 0, 0, 0), ENOENT);
}

TEST(without_room_nothing_is_waited_for) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  CHECK_EQ(evloop_kqueue_control(kq, NULL, 0, NULL, 0, -1), 0);
  expect_event(kq, 1, KQ_USER);
}

TEST(unknown_filters_are_refused) {
  evloop_kqueue_t kq = new_kqueue();
  CHECK_ERR(try_change(kq, 1, 5, ADD, 0, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 1, -100, ADD, 0, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 1, INT16_MIN, ADD, 0, 0, 0), EINVAL);
  /* As on FreeBSD, an empty entry is skipped. */
  CHECK_EQ(try_change(kq, 1, 0, ADD, 0, 0, 0), 0);
}

TEST(descriptors_that_are_not_open_are_refused) {
  static const uint64_t idents[] = {900000, INT_MAX, (uint64_t)INT_MAX + 1, UINT64_MAX, 1ull << 32};
  static const int flags[] = {ADD, DELETE, ENABLE, DISABLE, 0, ADD | ONESHOT};
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; AT_ROW(i, idents); i++) {
    for (int j = 0; AT_ROW(j, flags); j++) {
      CHECK_ERR(try_change(kq, idents[i], KQ_READ, flags[j], 0, 0, 0), EBADF);
      CHECK_ERR(try_change(kq, idents[i], KQ_WRITE, flags[j], 0, 0, 0), EBADF);
    }
  }
}

TEST(what_is_not_watched_is_enoent) {
  static const int flags[] = {DELETE, ENABLE, DISABLE, 0};
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  apply(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 0);
  for (int i = 0; AT_ROW(i, flags); i++) {
    CHECK_ERR(try_change(kq, (uint64_t)p.w, KQ_READ, flags[i], 0, 0, 0), ENOENT);
    CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_WRITE, flags[i], 0, 0, 0), ENOENT);
    CHECK_ERR(try_change(kq, 1, KQ_USER, flags[i], 0, 0, 0), ENOENT);
    CHECK_ERR(try_change(kq, 1, KQ_TIMER, flags[i], 0, 0, 0), ENOENT);
  }
}

TEST(errors_say_what_was_wrong) {
  evloop_kqueue_t kq = new_kqueue();
  char text[200];
  CHECK_ERR(try_change(kq, 900000, KQ_READ, ADD, 0, 0, 0), EBADF);
  evloop_last_error(text, sizeof text);
  CHECK(strcmp(text, "evloop_kqueue_control: fd 900000 is not open (EBADF)") == 0);
  CHECK_ERR(try_change(kq, 7, KQ_USER, DELETE, 0, 0, 0), ENOENT);
  evloop_last_error(text, sizeof text);
  CHECK(strcmp(text, "evloop_kqueue_control: ident 7 is not watched with filter -11 (ENOENT)") == 0);
}

/* ---- entries for errors and receipts ---- */

TEST(what_fails_gets_an_entry_and_the_call_returns_at_once) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 1);
  Event list[8] = {change(2, KQ_USER, DELETE, 5, 6, 9)};
  list[0].ext[3] = 77;
  CHECK_EQ(evloop_kqueue_control(kq, list, 1, list, 8, -1), 1);
  CHECK_EQ(list[0].flags, KQ_ERROR);
  CHECK_EQ(list[0].data, ENOENT);
  CHECK_EQ(list[0].ident, 2);
  CHECK_EQ(list[0].filter, KQ_USER);
  CHECK_EQ(list[0].fflags, 5);
  CHECK_EQ(list[0].udata, 9);
  CHECK_EQ(list[0].ext[3], 77);
  /* The event was not drained. */
  expect_event(kq, 1, KQ_USER);
}

TEST(an_entry_is_returned_where_nothing_else_is_ready) {
  evloop_kqueue_t kq = new_kqueue();
  Event list[8] = {change(2, KQ_USER, DELETE, 0, 0, 0)};
  int64_t began = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(evloop_kqueue_control(kq, list, 1, list, 8, 60000 * MS), 1);
  CHECK(now_ns(CLOCK_MONOTONIC) - began < 30000 * MS);
}

TEST(receipts_are_given_for_success_too) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 9, KQ_USER, ADD, TRIGGER, 0, 0);
  Event list[3] = {change(1, KQ_USER, ADD | RECEIPT, 0, 0, 0), change(2, KQ_USER, DELETE | RECEIPT, 0, 0, 0),
                   change(3, KQ_USER, ADD, 0, 0, 0)};
  Event out[8];
  CHECK_EQ(evloop_kqueue_control(kq, list, 3, out, 8, -1), 2);
  CHECK_EQ(out[0].ident, 1);
  CHECK_EQ(out[0].flags, KQ_ERROR);
  CHECK_EQ(out[0].data, 0);
  CHECK_EQ(out[1].ident, 2);
  CHECK_EQ(out[1].flags, KQ_ERROR);
  CHECK_EQ(out[1].data, ENOENT);
  apply(kq, 3, KQ_USER, DELETE, 0, 0, 0);
  apply(kq, 1, KQ_USER, DELETE, 0, 0, 0);
}

TEST(without_room_an_error_ends_the_changes) {
  evloop_kqueue_t kq = new_kqueue();
  Event list[3] = {change(1, KQ_USER, ADD, 0, 0, 0), change(2, KQ_USER, DELETE, 0, 0, 0),
                   change(3, KQ_USER, ADD, 0, 0, 0)};
  CHECK_ERR(evloop_kqueue_control(kq, list, 3, NULL, 0, 0), ENOENT);
  apply(kq, 1, KQ_USER, DELETE, 0, 0, 0);
  CHECK_ERR(try_change(kq, 3, KQ_USER, DELETE, 0, 0, 0), ENOENT);
}

TEST(the_room_may_end_in_the_middle) {
  evloop_kqueue_t kq = new_kqueue();
  Event list[3] = {change(1, KQ_USER, DELETE, 0, 0, 0), change(2, KQ_USER, DELETE, 0, 0, 0),
                   change(3, KQ_USER, ADD, 0, 0, 0)};
  Event out[1];
  CHECK_ERR(evloop_kqueue_control(kq, list, 3, out, 1, 0), ENOENT);
  CHECK_ERR(try_change(kq, 3, KQ_USER, DELETE, 0, 0, 0), ENOENT);
}

TEST(a_receipt_without_room_ends_the_changes_too) {
  evloop_kqueue_t kq = new_kqueue();
  Event list[3] = {change(1, KQ_USER, ADD | RECEIPT, 0, 0, 0), change(2, KQ_USER, ADD | RECEIPT, 0, 0, 0),
                   change(3, KQ_USER, ADD, 0, 0, 0)};
  Event out[1];
  CHECK_EQ(evloop_kqueue_control(kq, list, 3, out, 1, -1), 1);
  CHECK_EQ(out[0].ident, 1);
  apply(kq, 2, KQ_USER, DELETE, 0, 0, 0);
  CHECK_ERR(try_change(kq, 3, KQ_USER, DELETE, 0, 0, 0), ENOENT);
  CHECK_EQ(evloop_kqueue_control(kq, list, 3, NULL, 0, 0), 0);
  CHECK_ERR(try_change(kq, 2, KQ_USER, DELETE, 0, 0, 0), ENOENT);
}

TEST(two_thousand_receipts_fit_in_one_call) {
  enum { N = 2000 };
  static Event list[N], out[N];
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; i < N; i++) list[i] = change((uint64_t)i, KQ_USER, ADD | RECEIPT, 0, 0, (uint64_t)i);
  CHECK_EQ(evloop_kqueue_control(kq, list, N, out, N, -1), N);
  for (int i = 0; i < N; i++) {
    CHECK_EQ(out[i].ident, i);
    CHECK_EQ(out[i].flags, KQ_ERROR);
    CHECK_EQ(out[i].data, 0);
  }
}

TEST(one_array_serves_for_changes_and_events) {
  evloop_kqueue_t kq = new_kqueue();
  Event list[4];
  for (int i = 0; i < 4; i++) list[i] = change((uint64_t)i, KQ_USER, ADD | ONESHOT, TRIGGER | (uint32_t)i, i, 100);
  CHECK_EQ(evloop_kqueue_control(kq, list, 4, list, 4, 0), 4);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(list[i].ident, i);
    CHECK_EQ(list[i].data, i);
    CHECK_EQ(list[i].fflags, i);
    CHECK_EQ(list[i].udata, 100);
    CHECK_EQ(list[i].flags, ONESHOT);
  }
  for (int i = 0; i < 4; i++) list[i] = change((uint64_t)i, KQ_USER, i % 2 ? ADD : DELETE, 0, 0, 0);
  CHECK_EQ(evloop_kqueue_control(kq, list, 4, list, 4, 0), 2);
  CHECK_EQ(list[0].ident, 0);
  CHECK_EQ(list[1].ident, 2);
  apply(kq, 1, KQ_USER, DELETE, 0, 0, 0);
  apply(kq, 3, KQ_USER, DELETE, 0, 0, 0);
}

/* ---- how many, and in which order ---- */

TEST(ten_thousand_events_come_in_one_call) {
  enum { N = 10000 };
  static Event list[N];
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; i < N; i++) list[i] = change((uint64_t)i, KQ_USER, ADD, TRIGGER, 0, 0);
  CHECK_EQ(evloop_kqueue_control(kq, list, N, NULL, 0, 0), 0);
  memset(list, 0, sizeof list);
  CHECK_EQ(take(kq, list, N, 0), N);
  for (int i = 0; i < N; i++) CHECK_EQ(list[i].ident, i);
}

TEST(all_ready_descriptors_come_in_one_call) {
  enum { N = 700 };
  static Event list[N + 10];
  evloop_kqueue_t kq = new_kqueue();
  set_limit(2000);
  for (int i = 0; i < N; i++) apply(kq, (uint64_t)event_fd(1), KQ_READ, ADD, 0, 0, 0);
  CHECK_EQ(take(kq, list, N + 10, -1), N);
  CHECK_EQ(take(kq, list, 3, -1), 3);
}

/* More than are asked of the kernel at once. */
static void expect_each_once(uint16_t flags) {
  enum { N = 700 };
  static Event list[N + 10];
  static int seen[2000];
  evloop_kqueue_t kq = new_kqueue();
  memset(seen, 0, sizeof seen);
  for (int i = 0; i < N; i++) apply(kq, (uint64_t)event_fd(1), KQ_READ, ADD | flags, 0, 0, 0);
  CHECK_EQ(take(kq, list, N + 10, -1), N);
  for (int i = 0; i < N; i++) CHECK_EQ(seen[list[i].ident]++, 0);
  CHECK_EQ(take(kq, list, N + 10, 0), 0);
  for (int i = 0; i < N; i++) close((int)list[i].ident);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

TEST(all_edges_come_in_one_call) {
  set_limit(2000);
  expect_each_once(CLEAR);
  expect_each_once(ONESHOT);
  expect_each_once(DISPATCH);
}

/* Of sockets whose edges came first, so that the kernel has what is ready
 * elsewhere. */
TEST(all_come_in_one_call_beside_edges) {
  enum { N = 300 };
  static Event list[3 * N];
  evloop_kqueue_t kq = new_kqueue();
  int reads = 0;
  set_limit(2000);
  for (int i = 0; i < N; i++) {
    int ends[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
    put(ends[1]);
    apply(kq, (uint64_t)ends[0], KQ_WRITE, ADD | CLEAR, 0, 0, 0);
    apply(kq, (uint64_t)ends[0], KQ_READ, ADD, 0, 0, 0);
  }
  CHECK_EQ(take(kq, list, 3 * N, 0), 2 * N);
  CHECK_EQ(take(kq, list, 3 * N, 0), N);
  for (int i = 0; i < N; i++) reads += list[i].filter == KQ_READ;
  CHECK_EQ(reads, N);
}

/* What the kernel reports first is no event. */
static void expect_behind(evloop_kqueue_t kq, int room) {
  static Event list[400];
  int ready = event_fd(1);
  apply(kq, (uint64_t)ready, KQ_READ, ADD, 0, 0, 0);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(take(kq, list, room, 0), 1);
    CHECK_EQ(list[0].ident, ready);
  }
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

TEST(an_event_behind_others_that_are_none_is_found_at_once) {
  enum { N = 300 };
  set_limit(2000);
  for (int room = 1; room < 400; room += 398) {
    evloop_kqueue_t kq = new_kqueue();
    for (int i = 0; i < N; i++) {
      Pipe p = new_pipe();
      put(p.w);
      apply(kq, (uint64_t)p.r, KQ_READ, ADD, EVLOOP_KQ_NOTE_LOWAT, 10, 0);
    }
    expect_behind(kq, room);
    kq = new_kqueue();
    for (int i = 0; i < N; i++) {
      int fd = event_fd(1), other = (int)OK(dup(fd));
      apply(kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0);
      OK(close(fd));
      CHECK(other != fd);
    }
    expect_behind(kq, room);
  }
}

TEST(with_room_for_one_everything_has_its_turn) {
  evloop_kqueue_t kq = new_kqueue();
  int a = event_fd(1), b = event_fd(1), seen_a = 0, seen_b = 0, seen_write = 0, seen_user = 0, seen_other = 0;
  apply(kq, (uint64_t)a, KQ_READ, ADD, 0, 0, 0);
  apply(kq, (uint64_t)a, KQ_WRITE, ADD, 0, 0, 0);
  apply(kq, (uint64_t)b, KQ_READ, ADD, 0, 0, 0);
  apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  apply(kq, 2, KQ_USER, ADD, TRIGGER, 0, 0);
  for (int i = 0; i < 40; i++) {
    Event event;
    CHECK_EQ(take(kq, &event, 1, 0), 1);
    if (event.filter == KQ_USER) (event.ident == 1 ? &seen_user : &seen_other)[0]++;
    else if (event.filter == KQ_WRITE) seen_write++;
    else (event.ident == (uint64_t)a ? &seen_a : &seen_b)[0]++;
  }
  CHECK(seen_a >= 3);
  CHECK(seen_b >= 3);
  CHECK(seen_write >= 3);
  CHECK(seen_user >= 3);
  CHECK(seen_other >= 3);
}

TEST(an_event_comes_once_in_a_call) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = event_fd(1);
  apply(kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0);
  apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  apply(kq, 1, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_NSECONDS, 1, 0);
  for (int i = 0; i < 20; i++) {
    Event events[8];
    CHECK_EQ(take(kq, events, 8, 0), 3);
  }
}

/* ---- timeouts ---- */

TEST(timeouts_are_kept) {
  static const int64_t timeouts[] = {0, 1, 1000, 1500000, 30 * MS};
  evloop_kqueue_t kq = new_kqueue();
  Event event;
  apply(kq, (uint64_t)new_pipe().r, KQ_READ, ADD, 0, 0, 0);
  for (int i = 0; AT_ROW(i, timeouts); i++) {
    int64_t began = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(take(kq, &event, 1, timeouts[i]), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - began >= timeouts[i]);
  }
}

static void *trigger_later(void *argument) {
  const int64_t *kq = (const int64_t *)argument;
  wait_until_main_is_asleep();
  apply(*kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  return NULL;
}

TEST(very_long_timeouts_do_not_overflow) {
  static const int64_t timeouts[] = {INT64_MAX, INT64_C(4294967297000000), INT64_C(2147483648000000), -1};
  for (int i = 0; AT_ROW(i, timeouts); i++) {
    evloop_kqueue_t kq = new_kqueue();
    pthread_t thread;
    Event event;
    apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 0);
    CHECK_EQ(pthread_create(&thread, NULL, trigger_later, &kq), 0);
    CHECK_EQ(take(kq, &event, 1, timeouts[i]), 1);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
}

/* ---- the descriptor ---- */

TEST(the_descriptor_is_readable_while_an_event_is_pending) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  CHECK(!is_pending(kq));
  apply(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 0);
  CHECK(!is_pending(kq));
  put(p.w);
  CHECK(is_pending(kq));
  expect_event(kq, (uint64_t)p.r, KQ_READ);
  CHECK(is_pending(kq));
  apply(kq, (uint64_t)p.r, KQ_READ, DISABLE, 0, 0, 0);
  CHECK(!is_pending(kq));
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 0);
  CHECK(!is_pending(kq));
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  CHECK(is_pending(kq));
  expect_event(kq, 1, KQ_USER);
  CHECK(!is_pending(kq));
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  apply(kq, 1, KQ_USER, DELETE, 0, 0, 0);
  CHECK(!is_pending(kq));
}

TEST(timers_make_the_descriptor_readable) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  int64_t after = 30 * slow_factor(), began = now_ns(CLOCK_MONOTONIC);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, after, 0);
  CHECK(!is_pending(kq));
  CHECK(readable(fd, -1));
  CHECK(now_ns(CLOCK_MONOTONIC) - began >= after * MS);
  expect_event(kq, 1, KQ_TIMER);
  CHECK(!is_pending(kq));
}

TEST(a_queue_in_an_epoll_and_in_select) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(evloop_kqueue_fileno(kq)), ep = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  struct epoll_event event = {.events = EPOLLIN, .data.fd = 5};
  struct timeval none = {0, 0};
  fd_set set;
  OK(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event));
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 0);
  CHECK_EQ(epoll_wait(ep, &event, 1, 0), 0);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  CHECK_EQ(epoll_wait(ep, &event, 1, -1), 1);
  FD_ZERO(&set);
  FD_SET(fd, &set);
  CHECK_EQ(select(fd + 1, &set, NULL, NULL, &none), 1);
  expect_event(kq, 1, KQ_USER);
  CHECK_EQ(epoll_wait(ep, &event, 1, 0), 0);
}

TEST(a_queue_in_a_queue) {
  evloop_kqueue_t outer = new_kqueue(), inner = new_kqueue();
  uint64_t fd = (uint64_t)OK(evloop_kqueue_fileno(inner));
  apply(outer, fd, KQ_READ, ADD, 0, 0, 3);
  expect_nothing(outer);
  apply(inner, 1, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  apply(inner, 2, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  Event event = expect_event(outer, fd, KQ_READ);
  CHECK_EQ(event.data, 2);
  CHECK_EQ(event.udata, 3);
  Event events[4];
  CHECK_EQ(take(inner, events, 4, 0), 2);
  expect_nothing(outer);
}

TEST(a_queue_cannot_watch_itself_or_a_circle) {
  evloop_kqueue_t a = new_kqueue(), b = new_kqueue();
  uint64_t fd_a = (uint64_t)OK(evloop_kqueue_fileno(a)), fd_b = (uint64_t)OK(evloop_kqueue_fileno(b));
  CHECK_ERR(try_change(a, fd_a, KQ_READ, ADD, 0, 0, 0), EINVAL);
  apply(a, fd_b, KQ_READ, ADD, 0, 0, 0);
  CHECK_ERR(try_change(b, fd_a, KQ_READ, ADD, 0, 0, 0), ELOOP);
  expect_nothing(a);
}

/* ---- threads ---- */

typedef struct Taker {
  evloop_kqueue_t kq;
  int room;
  int result;
  Event events[4];
  pid_t tid;
  pthread_t thread;
} Taker;

static int takers_done;

static void *take_main(void *argument) {
  Taker *t = (Taker *)argument;
  store_tid(&t->tid);
  t->result = take(t->kq, t->events, t->room, -1);
  __atomic_fetch_add(&takers_done, 1, __ATOMIC_RELEASE);
  return NULL;
}

static void start_taker_for(Taker *t, evloop_kqueue_t kq, int room) {
  memset(t, 0, sizeof *t);
  t->kq = kq;
  t->room = room;
  CHECK_EQ(pthread_create(&t->thread, NULL, take_main, t), 0);
  wait_until_asleep(&t->tid);
}

static void start_taker(Taker *t, evloop_kqueue_t kq) {
  start_taker_for(t, kq, 4);
}

static int taken(Taker *t) {
  CHECK_EQ(pthread_join(t->thread, NULL), 0);
  return t->result;
}

TEST(a_change_applies_to_a_wait_that_is_going_on) {
  evloop_kqueue_t kq = new_kqueue();
  Taker t;
  Pipe p = new_pipe();
  put(p.w);
  start_taker(&t, kq);
  apply(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 0);
  CHECK_EQ(taken(&t), 1);
  apply(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0);
  start_taker(&t, kq);
  apply(kq, 1, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 0);
  CHECK_EQ(taken(&t), 1);
  start_taker(&t, kq);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 1, 0);
  CHECK_EQ(taken(&t), 1);
  CHECK_EQ(t.events[0].filter, KQ_TIMER);
}

TEST(several_threads_share_the_events) {
  enum { THREADS = 4 };
  evloop_kqueue_t kq = new_kqueue();
  Taker t[THREADS];
  bool seen[THREADS] = {false};
  for (int i = 0; i < THREADS; i++) apply(kq, (uint64_t)i, KQ_USER, ADD | CLEAR, 0, 0, 0);
  for (int i = 0; i < THREADS; i++) start_taker_for(&t[i], kq, 1);
  for (int i = 0; i < THREADS; i++) apply(kq, (uint64_t)i, KQ_USER, 0, TRIGGER, 0, 0);
  for (int i = 0; i < THREADS; i++) {
    CHECK_EQ(taken(&t[i]), 1);
    CHECK(!seen[t[i].events[0].ident]);
    seen[t[i].events[0].ident] = true;
  }
}

TEST(what_one_thread_leaves_another_gets) {
  enum { THREADS = 3 };
  evloop_kqueue_t kq = new_kqueue();
  Taker t[THREADS];
  Event all[THREADS];
  for (int i = 0; i < THREADS; i++) {
    all[i] = change((uint64_t)i, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
    start_taker_for(&t[i], kq, 1);
  }
  CHECK_EQ(evloop_kqueue_control(kq, all, THREADS, NULL, 0, 0), 0);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(taken(&t[i]), 1);
}

TEST(oneshot_and_dispatch_go_to_one_thread) {
  static const int flags[] = {ONESHOT, DISPATCH, CLEAR};
  enum { THREADS = 4 };
  for (int f = 0; AT_ROW(f, flags); f++) {
    evloop_kqueue_t kq = new_kqueue();
    Taker t[THREADS];
    int got = 0, fd = event_fd(0);
    apply(kq, (uint64_t)fd, KQ_READ, ADD | flags[f], 0, 0, 0);
    for (int i = 0; i < THREADS; i++) start_taker(&t[i], kq);
    __atomic_store_n(&takers_done, 0, __ATOMIC_RELEASE);
    OK(eventfd_write(fd, 1));
    while (__atomic_load_n(&takers_done, __ATOMIC_ACQUIRE) == 0) sched_yield();
    while (is_pending(kq)) sched_yield();
    CHECK_EQ(evloop_kqueue_close(kq), 0);
    for (int i = 0; i < THREADS; i++) {
      int result = taken(&t[i]);
      CHECK(result == 1 || result == -ESTALE);
      got += result == 1;
    }
    CHECK_EQ(got, 1);
  }
}

TEST(closing_wakes_all_that_wait) {
  enum { THREADS = 4 };
  for (int kind = 0; kind < 3; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    Taker t[THREADS];
    if (kind > 0) apply(kq, (uint64_t)new_pipe().r, KQ_READ, ADD, 0, 0, 0);
    if (kind > 1) {
      apply(kq, 1, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
      expect_event(kq, 1, KQ_USER);
    }
    for (int i = 0; i < THREADS; i++) start_taker(&t[i], kq);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
    for (int i = 0; i < THREADS; i++) CHECK_ERR(taken(&t[i]), ESTALE);
  }
}

/* ---- second handles ---- */

TEST(a_second_handle_is_the_same_queue) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  evloop_kqueue_t other = OK(evloop_kqueue_from_fd(fd, 0));
  CHECK_EQ(evloop_kqueue_fileno(other), fd);
  apply(other, 1, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  expect_event(kq, 1, KQ_USER);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  expect_event(other, 1, KQ_USER);
  CHECK_EQ(evloop_kqueue_close(other), 0);
  CHECK_ERR(evloop_kqueue_control(other, NULL, 0, NULL, 0, 0), ESTALE);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  expect_event(kq, 1, KQ_USER);
}

TEST(closing_a_second_handle_wakes_those_that_wait_by_it) {
  evloop_kqueue_t kq = new_kqueue();
  evloop_kqueue_t other = OK(evloop_kqueue_from_fd((int)OK(evloop_kqueue_fileno(kq)), 0));
  Taker by_other[2], by_first;
  start_taker(&by_other[0], other);
  start_taker(&by_other[1], other);
  start_taker(&by_first, kq);
  CHECK_EQ(evloop_kqueue_close(other), 0);
  CHECK_ERR(taken(&by_other[0]), ESTALE);
  CHECK_ERR(taken(&by_other[1]), ESTALE);
  wait_until_asleep(&by_first.tid);
  CHECK(!is_pending(kq));
  apply(kq, 1, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  CHECK_EQ(taken(&by_first), 1);
}

TEST(a_second_handle_may_own_the_queue) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  evloop_kqueue_t other = OK(evloop_kqueue_from_fd(fd, EVLOOP_FD_OWN));
  CHECK_EQ(evloop_kqueue_close(other), 0);
  CHECK(fcntl(fd, F_GETFD) < 0);
  CHECK_ERR(evloop_kqueue_control(kq, NULL, 0, NULL, 0, 0), ESTALE);
}

TEST(a_second_handle_of_a_closed_queue_is_ebadf) {
  evloop_kqueue_t kq = new_kqueue();
  evloop_kqueue_t other = OK(evloop_kqueue_from_fd((int)OK(evloop_kqueue_fileno(kq)), 0));
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK_ERR(evloop_kqueue_control(other, NULL, 0, NULL, 0, 0), EBADF);
  CHECK_EQ(evloop_kqueue_close(other), 0);
}

TEST(only_queues_have_second_handles) {
  Pipe p = new_pipe();
  int ep = (int)OK(epoll_create1(0)), fd = (int)OK(evloop_kqueue_fileno(new_kqueue()));
  CHECK_ERR(evloop_kqueue_from_fd(p.r, 0), EBADF);
  CHECK_ERR(evloop_kqueue_from_fd(ep, 0), EBADF);
  CHECK_ERR(evloop_kqueue_from_fd(-1, 0), EBADF);
  CHECK_ERR(evloop_kqueue_from_fd(900000, 0), EBADF);
  CHECK_ERR(evloop_kqueue_from_fd(fd, 2), EINVAL);
  CHECK_EQ(evloop_kqueue_close(OK(evloop_kqueue_from_fd(dup(fd), 0))), 0);
}

/* ---- signals ---- */

static void on_signal(int number) {
  (void)number;
}

/* Sends a signal to the thread that made it, once that sleeps. */
static void *interrupter_main(void *argument) {
  pid_t tid = *(const pid_t *)argument;
  wait_until_asleep(&tid);
  OK(syscall(SYS_tgkill, getpid(), tid, SIGUSR1));
  return NULL;
}

static pid_t interrupted_tid;

static pthread_t interrupt_me(void) {
  struct sigaction action;
  pthread_t thread;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  OK(sigaction(SIGUSR1, &action, NULL));
  store_tid(&interrupted_tid);
  CHECK_EQ(pthread_create(&thread, NULL, interrupter_main, &interrupted_tid), 0);
  return thread;
}

TEST(an_interrupted_wait_is_resumed) {
  evloop_kqueue_t kq = new_kqueue();
  Event event;
  int64_t began = now_ns(CLOCK_MONOTONIC);
  pthread_t thread = interrupt_me();
  CHECK_EQ(take(kq, &event, 1, 200 * MS), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - began >= 200 * MS);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(an_interrupted_wait_returns_where_that_is_wanted) {
  evloop_kqueue_t kq = new_kqueue();
  Event event = change(1, KQ_USER, ADD, 0, 0, 0);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN), EVLOOP_EINTR_RESTART);
  pthread_t thread = interrupt_me();
  CHECK_ERR(evloop_kqueue_control(kq, &event, 1, &event, 1, -1), EINTR);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  apply(kq, 1, KQ_USER, DELETE, 0, 0, 0);
}

/* ---- what fails leaves the array alone ---- */

enum { ENTRIES = 10 };

/* Changes of which the last has no room for its error. */
static void fill_changes(Event *list, int count, bool receipts) {
  for (int i = 0; i < count; i++) {
    bool good = receipts && i < count - 1;
    list[i] = change(good ? 1 : CLOSED, good ? KQ_USER : KQ_READ, good ? ADD | RECEIPT : DELETE, 0, 0, 7);
  }
}

TEST(a_call_that_fails_leaves_the_events_as_they_were) {
  for (int receipts = 0; receipts < 2; receipts++) {
    for (int count = 1; count <= ENTRIES; count++) {
      evloop_kqueue_t kq = new_kqueue();
      Event changes[ENTRIES], events[ENTRIES], before[ENTRIES];
      fill_changes(changes, count, receipts);
      memset(events, 0xab, sizeof events);
      memcpy(before, events, sizeof before);
      CHECK_ERR(evloop_kqueue_control(kq, changes, count, events, count - 1, 0), EBADF);
      CHECK(memcmp(events, before, sizeof before) == 0);
      /* With one entry more it does not fail. */
      CHECK_EQ(evloop_kqueue_control(kq, changes, count, events, count, 0), count);
      for (int i = 0; i < count; i++) CHECK_EQ(events[i].flags, KQ_ERROR);
    }
  }
}

TEST(a_call_that_fails_leaves_changes_that_are_the_events_too) {
  for (int count = 1; count <= ENTRIES; count++) {
    evloop_kqueue_t kq = new_kqueue();
    Event list[ENTRIES], before[ENTRIES];
    memset(list, 0, sizeof list);
    fill_changes(list, count, false);
    memcpy(before, list, sizeof before);
    CHECK_ERR(evloop_kqueue_control(kq, list, count, list, count - 1, 0), EBADF);
    CHECK(memcmp(list, before, sizeof before) == 0);
    int number = (int)OK(evloop_kqueue_fileno(kq));
    CHECK_EQ(evloop_bsd_kevent(number, list, count, list, count - 1, NULL), -1);
    CHECK_EQ(errno, EBADF);
    CHECK(memcmp(list, before, sizeof before) == 0);
  }
}

CHECK_MAIN()
