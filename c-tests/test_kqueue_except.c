/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* EVFILT_EXCEPT: out-of-band data. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <sys/ioctl.h>

#define EXCEPT EVLOOP_KQ_FILTER_EXCEPT
#define OOB EVLOOP_KQ_NOTE_OOB

typedef struct Pair {
  evloop_kqueue_t kq;
  int fd, peer;
} Pair;

/* A connected socket that is watched, and its peer. */
static Pair watched_pair(int flags, uint32_t notes) {
  Pair made;
  int pair[2];
  tcp_pair(pair);
  made.fd = pair[0];
  made.peer = pair[1];
  made.kq = new_kqueue();
  apply(made.kq, (uint64_t)made.fd, EXCEPT, ADD | flags, notes, 0, 7);
  return made;
}

static void send_urgent(const Pair *p) {
  CHECK_EQ(send(p->peer, "!", 1, MSG_OOB), 1);
}

static void receive_urgent(const Pair *p) {
  char byte = 0;
  CHECK_EQ(recv(p->fd, &byte, 1, MSG_OOB), 1);
  CHECK_EQ(byte, '!');
}

static Event expect_urgent(const Pair *p) {
  Event event = expect_event(p->kq, (uint64_t)p->fd, EXCEPT);
  CHECK_EQ(event.fflags, OOB);
  CHECK_EQ(event.data, 0);
  CHECK_EQ(event.udata, 7);
  return event;
}

TEST(urgent_data_is_an_event_until_it_is_received) {
  Pair p = watched_pair(0, OOB);
  expect_nothing(p.kq);
  put(p.peer);
  expect_nothing(p.kq);
  send_urgent(&p);
  CHECK_EQ(expect_urgent(&p).flags, 0);
  CHECK(is_pending(p.kq));
  expect_urgent(&p);
  receive_urgent(&p);
  expect_nothing(p.kq);
}

TEST(each_urgent_byte_is_an_event_with_clear) {
  Pair p = watched_pair(CLEAR, OOB);
  send_urgent(&p);
  expect_urgent(&p);
  expect_nothing(p.kq);
  receive_urgent(&p);
  expect_nothing(p.kq);
  send_urgent(&p);
  expect_urgent(&p);
}

TEST(ordinary_data_is_not_an_event_and_does_not_keep_the_queue_busy) {
  Pair p = watched_pair(0, OOB);
  for (int i = 0; i < 10; i++) {
    put(p.peer);
    CHECK_EQ(take(p.kq, &(Event){0}, 1, 2 * MS), 0);
  }
  CHECK(!is_pending(p.kq));
}

TEST(read_and_except_of_one_socket) {
  Pair p = watched_pair(0, OOB);
  apply(p.kq, (uint64_t)p.fd, KQ_READ, ADD, 0, 0, 8);
  put(p.peer);
  CHECK_EQ(expect_event(p.kq, (uint64_t)p.fd, KQ_READ).data, 1);
  send_urgent(&p);
  Event events[4];
  int seen = 0;
  while (seen != 3) {
    int count = (int)OK(take(p.kq, events, 4, -1));
    for (int i = 0; i < count; i++) seen |= events[i].filter == EXCEPT ? 2 : 1;
  }
  receive_urgent(&p);
  CHECK_EQ(expect_event(p.kq, (uint64_t)p.fd, KQ_READ).data, 1);
}

TEST(the_peers_end_is_eof) {
  Pair p = watched_pair(0, OOB);
  OK(shutdown(p.peer, SHUT_WR));
  Event event = expect_event(p.kq, (uint64_t)p.fd, EXCEPT);
  CHECK_EQ(event.flags, KQ_EOF);
  CHECK_EQ(event.fflags, 0);
}

TEST(urgent_data_before_the_end_is_reported_with_it) {
  Pair p = watched_pair(0, OOB);
  send_urgent(&p);
  OK(shutdown(p.peer, SHUT_WR));
  while (!(expect_event(p.kq, (uint64_t)p.fd, EXCEPT).flags & KQ_EOF)) continue;
  Event event = expect_event(p.kq, (uint64_t)p.fd, EXCEPT);
  CHECK_EQ(event.flags, KQ_EOF);
  CHECK_EQ(event.fflags, OOB);
}

TEST(without_oob_only_the_end_is_reported) {
  Pair p = watched_pair(0, 0);
  send_urgent(&p);
  expect_nothing(p.kq);
  OK(close(p.peer));
  CHECK_EQ(expect_event(p.kq, (uint64_t)p.fd, EXCEPT).flags, KQ_EOF);
}

TEST(a_pending_error_is_left_to_the_program) {
  Pair p = watched_pair(CLEAR, OOB);
  struct linger reset = {1, 0};
  OK(setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &reset, sizeof reset));
  OK(close(p.peer));
  Event event = expect_event(p.kq, (uint64_t)p.fd, EXCEPT);
  CHECK_EQ(event.flags, CLEAR | KQ_EOF);
  CHECK_EQ(event.fflags, 0);
  int error = 0;
  socklen_t size = sizeof error;
  OK(getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &error, &size));
  CHECK_EQ(error, ECONNRESET);
}

TEST(disabled_and_enabled_again) {
  Pair p = watched_pair(DISABLE, OOB);
  send_urgent(&p);
  expect_nothing(p.kq);
  apply(p.kq, (uint64_t)p.fd, EXCEPT, ENABLE, OOB, 0, 7);
  expect_urgent(&p);
  apply(p.kq, (uint64_t)p.fd, EXCEPT, DELETE, 0, 0, 0);
  expect_nothing(p.kq);
}

TEST(what_is_no_socket_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe ends = new_pipe();
  CHECK_ERR(try_change(kq, (uint64_t)ends.r, EXCEPT, ADD, OOB, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)regular_file(), EXCEPT, ADD, OOB, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 999, EXCEPT, ADD, OOB, 0, 0), EBADF);
  int fd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  CHECK_ERR(try_change(kq, (uint64_t)fd, EXCEPT, ADD, OOB | 1, 0, 0), EINVAL);
}

/* Linux calls it hung up, which is found out to mean nothing. */
TEST(a_socket_that_was_never_connected_has_no_end) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  apply(kq, (uint64_t)fd, EXCEPT, ADD, OOB, 0, 0);
  CHECK_EQ(take(kq, &(Event){0}, 1, 50 * MS), 0);
  expect_nothing(kq);
}

CHECK_MAIN()
