/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the queue itself, control, errors and receipts, threads, close. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <limits.h>

TEST(a_queue_is_made_and_closed) {
  evloop_kqueue_t kq = new_kqueue();
  CHECK_EQ(evloop_handle_kind(kq), EVLOOP_KIND_KQUEUE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_KQUEUE), 1);
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  CHECK_EQ(OK(fcntl(fd, F_GETFD)), FD_CLOEXEC);
  expect_nothing(kq);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
  CHECK_ERR(evloop_kqueue_close(kq), ESTALE);
  CHECK_ERR(evloop_kqueue_fileno(kq), ESTALE);
  CHECK_ERR(evloop_kqueue_control(kq, NULL, 0, NULL, 0, 0), ESTALE);
  CHECK_ERR(evloop_kqueue_create(0x100), EINVAL);
}

TEST(user_events_are_delivered) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 7, KQ_USER, ADD | CLEAR, 0, 0, 42);
  expect_nothing(kq);
  apply(kq, 7, KQ_USER, 0, TRIGGER, 0, 42);
  CHECK(is_pending(kq));
  Event event = expect_event(kq, 7, KQ_USER);
  CHECK_EQ(event.udata, 42);
  CHECK_EQ(event.flags, CLEAR);
  expect_nothing(kq);
}

TEST(a_pipe_is_readable_and_writable) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  apply(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 1);
  expect_nothing(kq);
  put(p.w);
  CHECK_EQ(expect_event(kq, (uint64_t)p.r, KQ_READ).data, 1);
  CHECK_EQ(expect_event(kq, (uint64_t)p.r, KQ_READ).data, 1);
  apply(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 1);
  expect_nothing(kq);
  CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 1), ENOENT);
  apply(kq, (uint64_t)p.w, KQ_WRITE, ADD, 0, 0, 1);
  CHECK_EQ(expect_event(kq, (uint64_t)p.w, KQ_WRITE).data, 65535);
}

TEST(timers_expire) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t began = now_ns(CLOCK_MONOTONIC);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 20, 5);
  Event event = expect_event(kq, 1, KQ_TIMER);
  CHECK(now_ns(CLOCK_MONOTONIC) - began >= 20 * MS);
  CHECK_EQ(event.data, 1);
  CHECK_EQ(event.flags, ONESHOT | CLEAR);
  expect_nothing(kq);
  CHECK_ERR(try_change(kq, 1, KQ_TIMER, DELETE, 0, 0, 0), ENOENT);
}

TEST(what_fails_gets_an_entry_and_the_call_returns_at_once) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 1);
  Event list[3] = {change(2, KQ_USER, DELETE, 0, 0, 9), change(3, KQ_USER, ADD | RECEIPT, 0, 0, 8)};
  CHECK_EQ(evloop_kqueue_control(kq, list, 2, list, 3, -1), 2);
  CHECK_EQ(list[0].flags, KQ_ERROR);
  CHECK_EQ(list[0].data, ENOENT);
  CHECK_EQ(list[0].ident, 2);
  CHECK_EQ(list[0].udata, 9);
  CHECK_EQ(list[1].flags, KQ_ERROR);
  CHECK_EQ(list[1].data, 0);
  CHECK_EQ(list[1].ident, 3);
  expect_event(kq, 1, KQ_USER);
}

TEST(unknown_filters_are_refused) {
  evloop_kqueue_t kq = new_kqueue();
  CHECK_ERR(try_change(kq, 1, 5, ADD, 0, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 1, -100, ADD, 0, 0, 0), EINVAL);
}

CHECK_MAIN()
