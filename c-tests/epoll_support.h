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
uint32_t kernel_events(int fd, uint32_t events);

/* Calls it with descriptors in all kinds of states, and each known bit. */
void for_each_state_and_bit(void (*check)(int fd, uint32_t bit));

/* ---- epoll objects ---- */

evloop_epoll_t new_epoll(void);
void epoll_add(evloop_epoll_t ep, int fd, uint32_t events, uint64_t data);

/* The one event that a wait finds, waiting for it if need be. */
evloop_ready_t next_epoll_event(evloop_epoll_t ep);
void expect_epoll_event(evloop_epoll_t ep, int fd, uint32_t events, uint64_t data);
void expect_no_epoll_event(evloop_epoll_t ep);
void start_epoll_waiter(Waiter *w, evloop_epoll_t object);

#endif
