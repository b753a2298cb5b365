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

MAYBE_UNUSED static evloop_watcher_t add(evloop_t loop, int fd, uint32_t events, Seen *seen) {
  return OK(evloop_add_io(loop, fd, events, record, seen));
}

/* An iteration in which it is called so many times. */
MAYBE_UNUSED static void expect_calls(evloop_t loop, const Seen *seen, int calls) {
  int before = seen->calls;
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(seen->calls - before, calls);
}

MAYBE_UNUSED static void expect_events(evloop_t loop, const Seen *seen, uint32_t events) {
  expect_calls(loop, seen, 1);
  CHECK_EQ(seen->last.events, events);
}

/* The loop has something to wait for, and waits. */
MAYBE_UNUSED static void expect_quiet(evloop_t loop) {
  Seen prepares = {.calls = 0};
  evloop_watcher_t prepare = OK(evloop_add_prepare(loop, record, &prepares));
  OK(evloop_run_for_ns(loop, 30 * MS));
  CHECK(prepares.calls > 0 && prepares.calls < 10);
  CHECK_EQ(evloop_watcher_close(prepare, 0), 0);
}

MAYBE_UNUSED static void take(int fd) {
  char byte;
  CHECK_EQ(read(fd, &byte, 1), 1);
}

/* A pipe with a byte in it. */
MAYBE_UNUSED static Pipe full_pipe(void) {
  Pipe pipe = new_pipe();
  put(pipe.w);
  return pipe;
}

#endif
