/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers that other threads add, change and close, while the loop waits
 * and while it is busy. */

#define _GNU_SOURCE
#include "loop_io.h"

TEST(a_waiting_loop_is_told_of_new_watchers) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int i = 0; i < 100; i++) {
    Seen seen = {.calls = 0};
    Pipe pipe = new_pipe();
    if (i % 2) put(pipe.w);
    evloop_watcher_t watcher = OK(evloop_add_io(loop, pipe.r, IN, see_and_take, &seen));
    if (!(i % 2)) put(pipe.w);
    UNTIL(LOAD(seen.calls) >= 1);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    OK(close(pipe.r));
    OK(close(pipe.w));
  }
  stop_runner(&r);
}

TEST(a_waiting_loop_is_told_of_changes) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  Seen seen = {.calls = 0};
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  evloop_watcher_t watcher = add(loop, pair[0], IN | ONESHOT, &seen);
  for (int i = 0; i < 50; i++) {
    int calls = LOAD(seen.calls);
    CHECK_EQ(evloop_io_modify(watcher, OUT | ONESHOT), 0);
    UNTIL(LOAD(seen.calls) >= calls + 1);
    CHECK_EQ(evloop_io_modify(watcher, IN | ONESHOT), 0);
    CHECK_EQ(evloop_watcher_disable(watcher), 0);
    put(pair[1]);
    go_round(loop);
    CHECK_EQ(LOAD(seen.calls), calls + 1);
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
    UNTIL(LOAD(seen.calls) >= calls + 2);
    char byte;
    CHECK_EQ(read(pair[0], &byte, 1), 1);
  }
  stop_runner(&r);
  CHECK_EQ(seen.errors, 0);
}

TEST(a_closed_watcher_is_not_called_although_its_descriptor_is_ready) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int i = 0; i < 100; i++) {
    Seen seen = {.calls = 0};
    Pipe pipe = new_pipe();
    evloop_watcher_t watcher = add(loop, pipe.r, IN, &seen);
    if (i % 2) go_round(loop);
    CHECK_EQ(evloop_watcher_close(watcher, i % 4 < 2 ? EVLOOP_CLOSE_WAIT : 0), 0);
    put(pipe.w);
    go_round(loop);
    CHECK_EQ(LOAD(seen.calls), 0);
    OK(close(pipe.r));
    OK(close(pipe.w));
  }
  stop_runner(&r);
}

/* A pipe that is never ready, then one of the same number that always is:
 * what is reported of the first one is the second one's event. */
static void reuse_rounds(evloop_t loop, uint32_t flags, int rounds) {
  static Seen never, always[2];
  Pipe pipe = new_pipe();
  for (int i = 0; i < rounds; i++) {
    int number = pipe.r;
    Seen *seen = &always[i % 2];
    evloop_watcher_t watcher = add(loop, pipe.r, IN, &never);
    if (i % 3 == 0) CHECK_EQ(evloop_wakeup(loop), 0);
    CHECK_EQ(evloop_watcher_close(watcher, flags), 0);
    OK(close(pipe.r));
    OK(close(pipe.w));
    pipe = new_pipe();
    CHECK_EQ(pipe.r, number);
    put(pipe.w);
    int calls = LOAD(seen->calls);
    watcher = add(loop, pipe.r, IN, seen);
    UNTIL(LOAD(seen->calls) >= calls + 1);
    CHECK_EQ(evloop_watcher_close(watcher, flags), 0);
    OK(close(pipe.r));
    OK(close(pipe.w));
    pipe = new_pipe();
    CHECK_EQ(LOAD(never.calls), 0);
  }
  go_round(loop);
  CHECK_EQ(never.calls, 0);
  CHECK_EQ(always[0].errors + always[1].errors, 0);
  OK(close(pipe.r));
  OK(close(pipe.w));
}

TEST_TIMEOUT(numbers_are_used_again_at_once_beside_a_waiting_loop, 120) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  reuse_rounds(loop, 0, 1000);
  reuse_rounds(loop, EVLOOP_CLOSE_WAIT, 1000);
  stop_runner(&r);
}

/* The same beside a loop that never waits. */
TEST_TIMEOUT(numbers_are_used_again_at_once_beside_a_busy_loop, 120) {
  Runner r;
  evloop_t loop = new_loop();
  Seen file = {.calls = 0};
  add(loop, event_fd(0), OUT, &file);
  start_runner(&r, run_until_done, loop);
  reuse_rounds(loop, 0, 500);
  reuse_rounds(loop, EVLOOP_CLOSE_WAIT, 500);
  stop_runner(&r);
  CHECK(file.calls > 0);
}

/* After a close that waited, user_data is nobody's. */
TEST_TIMEOUT(after_a_close_that_waited_no_callback_runs, 60) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  Pipe pipe = new_pipe();
  put(pipe.w);
  for (int i = 0; i < 1000; i++) {
    Seen *seen = (Seen *)calloc(1, sizeof *seen);
    CHECK(seen != NULL);
    evloop_watcher_t watcher = add(loop, pipe.r, IN, seen);
    if (i % 2) UNTIL(LOAD(seen->calls) >= 1);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    int calls = seen->calls;
    memset(seen, 0x55, sizeof *seen);
    if (i % 10 == 0) go_round(loop);
    CHECK_EQ(seen->calls, 0x55555555);
    CHECK(calls >= i % 2);
    free(seen);
  }
  stop_runner(&r);
}

CHECK_MAIN()
