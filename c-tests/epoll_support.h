/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of epoll objects and of io watchers use: the kernel's own
 * interface, to compare with. */
#ifndef EPOLL_SUPPORT_H
#define EPOLL_SUPPORT_H

#include "support.h"

#include <sys/epoll.h>

/* ---- the kernel ---- */

/* What evloop_epoll_register() and evloop_add_io() take. */
static const uint32_t known_bits =
    EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM |
    EPOLLRDBAND | EPOLLWRNORM | EPOLLWRBAND | EPOLLMSG | EPOLLRDHUP |
    (uint32_t)EPOLLEXCLUSIVE | (uint32_t)EPOLLWAKEUP | (uint32_t)EPOLLONESHOT |
    (uint32_t)EPOLLET;

/* The bits that the kernel's own interface reports. */
MAYBE_UNUSED static uint32_t kernel_events(int fd, uint32_t events) {
  int epoll_fd = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  struct epoll_event event = {.events = events};
  OK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event));
  event.events = 0;
  OK(epoll_wait(epoll_fd, &event, 1, 0));
  OK(close(epoll_fd));
  return event.events;
}

/* Calls it with descriptors in all kinds of states, and each known bit. */
MAYBE_UNUSED static void for_each_state_and_bit(void (*check)(int fd, uint32_t bit)) {
  Pipe data = new_pipe(), hung_up = new_pipe(), broken = new_pipe();
  int half[2], gone[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, half));
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, gone));
  put(data.w);
  OK(close(hung_up.w));
  OK(close(broken.r));
  OK(shutdown(half[1], SHUT_WR));
  OK(close(gone[1]));
  const int fds[] = {data.r, data.w, hung_up.r, broken.w, half[0], gone[0], event_fd(1)};
  for (int i = 0; i < LENGTH(fds) * 32; i++) {
    uint32_t bit = UINT32_C(1) << (i % 32);
    if ((known_bits & bit) != 0) check(fds[i / 32], bit);
  }
}

/* ---- epoll objects ---- */

MAYBE_UNUSED static evloop_epoll_t new_epoll(void) {
  return OK(evloop_epoll_create(0));
}

MAYBE_UNUSED static void epoll_add(evloop_epoll_t ep, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(evloop_epoll_register(ep, fd, events, data), 0);
}

/* The one event that a wait finds, waiting for it if need be. */
MAYBE_UNUSED static evloop_ready_t next_event(evloop_epoll_t ep) {
  evloop_ready_t ready[2];
  CHECK_EQ(evloop_epoll_wait(ep, ready, 2, -1), 1);
  return ready[0];
}

MAYBE_UNUSED static void expect_event(evloop_epoll_t ep, int fd, uint32_t events, uint64_t data) {
  evloop_ready_t ready = next_event(ep);
  CHECK_EQ(ready.fd, fd);
  CHECK_EQ(ready.events, events);
  CHECK(ready.data == data);
}

MAYBE_UNUSED static void expect_nothing(evloop_epoll_t ep) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_epoll_wait(ep, &ready, 1, 0), 0);
}

MAYBE_UNUSED static void start_epoll_waiter(Waiter *w, evloop_epoll_t object) {
  start_waiter_in(w, evloop_epoll_wait, object);
}

#endif
