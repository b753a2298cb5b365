/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of io watchers use. */
#ifndef LOOP_IO_H
#define LOOP_IO_H

#include "loop_support.h"

#define IN EVLOOP_EPOLLIN
#define OUT EVLOOP_EPOLLOUT
#define ET EVLOOP_EPOLLET
#define ONESHOT EVLOOP_EPOLLONESHOT
#define EXCLUSIVE EVLOOP_EPOLLEXCLUSIVE

evloop_watcher_t add(evloop_t loop, int fd, uint32_t events, Seen *seen);

/* An iteration in which it is called so many times. */
void expect_calls(evloop_t loop, const Seen *seen, int calls);
void expect_events(evloop_t loop, const Seen *seen, uint32_t events);

/* The loop has something to wait for, and waits. */
void expect_quiet(evloop_t loop);
void take_byte(int fd);

/* A pipe with a byte in it. */
Pipe full_pipe(void);

#endif
