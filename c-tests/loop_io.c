/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "loop_io.h"

evloop_watcher_t add(evloop_t loop, int fd, uint32_t events, Seen *seen) {
  return OK(evloop_add_io(loop, fd, events, record, seen));
}

void expect_calls(evloop_t loop, const Seen *seen, int calls) {
  int before = seen->calls;
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(seen->calls - before, calls);
}

void expect_events(evloop_t loop, const Seen *seen, uint32_t events) {
  expect_calls(loop, seen, 1);
  CHECK_EQ(seen->last.events, events);
}

void expect_quiet(evloop_t loop) {
  Seen prepares = {.calls = 0};
  evloop_watcher_t prepare = OK(evloop_add_prepare(loop, record, &prepares));
  OK(evloop_run_for_ns(loop, 30 * MS));
  CHECK(prepares.calls > 0);
  CHECK(prepares.calls < 10);
  CHECK_EQ(evloop_watcher_close(prepare, 0), 0);
}

void take_byte(int fd) {
  char byte;
  CHECK_EQ(read(fd, &byte, 1), 1);
}

Pipe full_pipe(void) {
  Pipe pipe = new_pipe();
  put(pipe.w);
  return pipe;
}
