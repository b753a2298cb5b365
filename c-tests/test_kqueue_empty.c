/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the filter EMPTY, a socket that has nothing left to send. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <linux/netlink.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#define EMPTY EVLOOP_KQ_FILTER_EMPTY

typedef struct Pair {
  int fd, peer;
} Pair;

enum { TCP, STREAM, SEQPACKET, DATAGRAM, KINDS };

static Pair new_pair(int kind) {
  static const int types[] = {0, SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM};
  int pair[2];
  if (kind == TCP) tcp_pair(pair);
  else OK(socketpair(AF_UNIX, types[kind], 0, pair));
  Pair made = {pair[0], pair[1]};
  return made;
}

static void close_pair(Pair p) {
  OK(close(p.fd));
  OK(close(p.peer));
}

static int unsent(int fd) {
  int left = -1;
  OK(ioctl(fd, SIOCOUTQ, &left));
  return left;
}

/* Writes until something is left to send, and stays so while the peer does
 * not receive. */
static void fill(int fd) {
  static const char bytes[4096];
  OK(fcntl(fd, F_SETFL, OK(fcntl(fd, F_GETFL)) | O_NONBLOCK));
  do {
    while (write(fd, bytes, sizeof bytes) > 0) continue;
    CHECK_EQ(errno, EAGAIN);
    usleep(10000);
  } while (unsent(fd) == 0 || write(fd, bytes, 1) > 0);
}

/* Receives until nothing comes for a while. */
static void drain(int fd) {
  static char bytes[65536];
  struct timeval while_ = {0, 200000};
  OK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &while_, sizeof while_));
  while (recv(fd, bytes, sizeof bytes, 0) > 0) continue;
}

static void *drain_in_thread(void *fd) {
  wait_until_main_is_asleep();
  drain(*(int *)fd);
  return NULL;
}

static void watch(evloop_kqueue_t kq, int fd, int flags) {
  apply(kq, (uint64_t)fd, EMPTY, ADD | flags, 0, 0, 9);
}

static Event expect_empty(evloop_kqueue_t kq, int fd) {
  Event event = expect_event(kq, (uint64_t)fd, EMPTY);
  CHECK_EQ(event.data, 0);
  CHECK_EQ(event.fflags, 0);
  CHECK_EQ(event.udata, 9);
  return event;
}

TEST(a_socket_that_has_sent_nothing_is_empty) {
  for (int kind = 0; kind < KINDS; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    Pair p = new_pair(kind);
    watch(kq, p.fd, 0);
    CHECK(is_pending(kq));
    CHECK_EQ(expect_empty(kq, p.fd).flags, 0);
    /* It is still so. */
    expect_empty(kq, p.fd);
    CHECK(is_pending(kq));
    apply(kq, (uint64_t)p.fd, EMPTY, DELETE, 0, 0, 0);
    expect_nothing(kq);
    close_pair(p);
  }
}

TEST_TIMEOUT(a_wait_ends_when_all_was_sent, 60) {
  static const int flags[] = {0, CLEAR, ONESHOT, DISPATCH};
  for (int kind = 0; kind < KINDS; kind++) {
    for (int f = 0; AT_ROW(f, flags); f++) {
      evloop_kqueue_t kq = new_kqueue();
      Pair p = new_pair(kind);
      pthread_t thread;
      fill(p.fd);
      watch(kq, p.fd, flags[f]);
      expect_nothing_yet(kq);
      CHECK_EQ(pthread_create(&thread, NULL, drain_in_thread, &p.peer), 0);
      expect_empty(kq, p.fd);
      CHECK_EQ(unsent(p.fd), 0);
      CHECK_EQ(pthread_join(thread, NULL), 0);
      if (flags[f] == 0) expect_empty(kq, p.fd);
      /* The edge of what was received last may come after the event. */
      if (flags[f] == CLEAR) take(kq, &(Event){0}, 1, 0);
      if (flags[f] != 0) expect_nothing(kq);
      close_pair(p);
    }
  }
}

TEST(what_was_sent_meanwhile_is_an_event_again_with_clear) {
  for (int kind = 0; kind < KINDS; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    Pair p = new_pair(kind);
    char byte;
    watch(kq, p.fd, CLEAR);
    for (int i = 0; i < 3; i++) {
      expect_empty(kq, p.fd);
      expect_nothing(kq);
      put(p.fd);
      CHECK_EQ(read(p.peer, &byte, 1), 1);
    }
    expect_empty(kq, p.fd);
    close_pair(p);
  }
}

TEST(dispatch_and_disable_stop_it_until_it_is_enabled) {
  for (int kind = 0; kind < KINDS; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    Pair p = new_pair(kind);
    watch(kq, p.fd, DISPATCH);
    expect_empty(kq, p.fd);
    expect_nothing(kq);
    apply(kq, (uint64_t)p.fd, EMPTY, ENABLE, 0, 0, 9);
    expect_empty(kq, p.fd);
    expect_nothing(kq);
    fill(p.fd);
    apply(kq, (uint64_t)p.fd, EMPTY, ENABLE, 0, 0, 9);
    expect_nothing_yet(kq);
    drain(p.peer);
    expect_empty(kq, p.fd);
    close_pair(p);
  }
}

/* How often the calling thread slept during a wait. */
static long sleeps_during(evloop_kqueue_t kq, int64_t timeout_ns) {
  struct rusage before, after;
  Event event;
  OK(getrusage(RUSAGE_THREAD, &before));
  CHECK_EQ(take(kq, &event, 1, timeout_ns), 0);
  OK(getrusage(RUSAGE_THREAD, &after));
  return after.ru_nvcsw - before.ru_nvcsw;
}

TEST(only_what_is_left_to_send_is_looked_at) {
  evloop_kqueue_t kq = new_kqueue();
  Pair p = new_pair(TCP), local = new_pair(STREAM);
  /* Nothing is left, and the event was delivered. */
  watch(kq, p.fd, CLEAR);
  expect_empty(kq, p.fd);
  CHECK(sleeps_during(kq, 200 * MS) < 5);
  /* Every 20 ms in the end. */
  fill(p.fd);
  long sleeps = sleeps_during(kq, 400 * MS);
  CHECK(sleeps < 40);
  /* It is not enabled. */
  apply(kq, (uint64_t)p.fd, EMPTY, DISABLE, 0, 0, 9);
  CHECK(sleeps_during(kq, 200 * MS) < 5);
  /* The kernel notifies of local sockets. */
  fill(local.fd);
  watch(kq, local.fd, 0);
  CHECK(sleeps_during(kq, 200 * MS) < 5);
  close_pair(p);
  close_pair(local);
}

TEST(a_connection_that_broke_has_nothing_left_to_send) {
  evloop_kqueue_t kq = new_kqueue();
  Pair p = new_pair(TCP);
  struct linger at_once = {1, 0};
  fill(p.fd);
  watch(kq, p.fd, 0);
  expect_nothing_yet(kq);
  OK(setsockopt(p.peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
  OK(close(p.peer));
  expect_empty(kq, p.fd);
}

TEST(read_write_and_empty_of_one_socket) {
  for (int kind = 0; kind < KINDS; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    Pair p = new_pair(kind);
    Event events[4];
    int seen = 0;
    watch(kq, p.fd, CLEAR);
    apply(kq, (uint64_t)p.fd, KQ_WRITE, ADD | CLEAR, 0, 0, 1);
    apply(kq, (uint64_t)p.fd, KQ_READ, ADD | CLEAR, 0, 0, 2);
    put(p.peer);
    while (seen != 7) {
      int count = take(kq, events, 4, -1);
      CHECK(count > 0);
      for (int i = 0; i < count; i++) {
        seen |= events[i].filter == EMPTY ? 1 : events[i].filter == KQ_WRITE ? 2 : 4;
      }
    }
    /* An edge that is shared may come once more. */
    take(kq, events, 4, 0);
    expect_nothing(kq);
    close_pair(p);
  }
}

TEST(a_listener_has_nothing_to_send) {
  evloop_kqueue_t kq = new_kqueue();
  struct sockaddr_in any = {.sin_family = AF_INET};
  int fd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  OK(bind(fd, (struct sockaddr *)&any, sizeof any));
  OK(listen(fd, 1));
  watch(kq, fd, ONESHOT);
  expect_empty(kq, fd);
  /* Nor has one that was never connected. */
  fd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  watch(kq, fd, ONESHOT);
  expect_empty(kq, fd);
}

TEST(what_is_no_such_socket_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  Pair pair = new_pair(STREAM);
  int netlink = (int)OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK));
  CHECK_ERR(try_change(kq, (uint64_t)p.w, EMPTY, ADD, 0, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)regular_file(), EMPTY, ADD, 0, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)netlink, EMPTY, ADD, 0, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, CLOSED, EMPTY, ADD, 0, 0, 0), EBADF);
  CHECK_ERR(try_change(kq, (uint64_t)pair.fd, EMPTY, ADD, 1, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)pair.fd, EMPTY, DELETE, 0, 0, 0), ENOENT);
}

CHECK_MAIN()
