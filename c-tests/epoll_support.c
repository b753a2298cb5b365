/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "epoll_support.h"

uint32_t kernel_events(int fd, uint32_t events) {
  int epoll_fd = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  struct epoll_event event = {.events = events};
  OK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event));
  event.events = 0;
  OK(epoll_wait(epoll_fd, &event, 1, 0));
  OK(close(epoll_fd));
  return event.events;
}

void for_each_state_and_bit(void (*check)(int fd, uint32_t bit)) {
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

evloop_epoll_t new_epoll(void) {
  return OK(evloop_epoll_create(0));
}

void epoll_add(evloop_epoll_t ep, int fd, uint32_t events, uint64_t data) {
  CHECK_EQ(evloop_epoll_register(ep, fd, events, data), 0);
}

evloop_ready_t next_epoll_event(evloop_epoll_t ep) {
  evloop_ready_t ready[2];
  CHECK_EQ(evloop_epoll_wait(ep, ready, 2, -1), 1);
  return ready[0];
}

void expect_epoll_event(evloop_epoll_t ep, int fd, uint32_t events, uint64_t data) {
  evloop_ready_t ready = next_epoll_event(ep);
  CHECK_EQ(ready.fd, fd);
  CHECK_EQ(ready.events, events);
  CHECK(ready.data == data);
}

void expect_no_epoll_event(evloop_epoll_t ep) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_epoll_wait(ep, &ready, 1, 0), 0);
}

void start_epoll_waiter(Waiter *w, evloop_epoll_t object) {
  start_waiter_in(w, evloop_epoll_wait, object);
}
