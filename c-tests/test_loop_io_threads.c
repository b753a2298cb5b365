/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers that other threads add, change and close, while the loop waits
 * and while it is busy. */

#define _GNU_SOURCE
#include "loop_io.h"

TEST(a_waiting_loop_delivers_events_of_new_watchers) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int i = 0; i < 100; i++) {
    Seen seen = {.calls = 0};
    Pipe pipe = new_pipe();
    if (i % 2) put(pipe.w);
    evloop_watcher_t watcher = OK(evloop_add_io(loop, pipe.r, IN, record_and_take, &seen));
    if (!(i % 2)) put(pipe.w);
    UNTIL(LOAD(seen.calls) >= 1);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    OK(close(pipe.r));
    OK(close(pipe.w));
  }
  stop_runner(&r);
}

TEST(a_waiting_loop_applies_changes) {
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

/* A pipe that is never ready, then one at the same descriptor that always is: an
 * event for the watcher of the first would belong to the second. */
static void reuse_rounds(evloop_t loop, uint32_t flags, int rounds) {
  static Seen never, always[2];
  Pipe pipe = new_pipe();
  for (int i = 0; i < rounds; i++) {
    int fd = pipe.r;
    Seen *seen = &always[i % 2];
    evloop_watcher_t watcher = add(loop, pipe.r, IN, &never);
    if (i % 3 == 0) CHECK_EQ(evloop_wakeup(loop), 0);
    CHECK_EQ(evloop_watcher_close(watcher, flags), 0);
    OK(close(pipe.r));
    OK(close(pipe.w));
    pipe = new_pipe();
    CHECK_EQ(pipe.r, fd);
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

TEST_TIMEOUT(descriptors_are_used_again_at_once_beside_a_waiting_loop, 120) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  reuse_rounds(loop, 0, 1000);
  reuse_rounds(loop, EVLOOP_CLOSE_WAIT, 1000);
  stop_runner(&r);
}

/* The same beside a loop that never waits. */
TEST_TIMEOUT(descriptors_are_used_again_at_once_beside_a_busy_loop, 120) {
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

/* After a close with EVLOOP_CLOSE_WAIT no callback uses user_data any more. */
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

/* ---- one descriptor, and what several threads do to its watchers ---- */

/* The bits of three watchers; of the third, when the loop has not looked. */
static const uint32_t neighbours[][2] = {
    {IN, IN}, {IN, IN | EXCLUSIVE}, {IN | EXCLUSIVE, IN}, {IN | ET, IN | ET}, {IN, IN | ONESHOT},
};

/* Another thread adds and closes it before the loop has looked: perhaps it
 * would have been refused. */
TEST(a_watcher_that_was_there_for_a_moment_silences_no_neighbour) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int i = 0; AT_ROW(i, neighbours); i++) {
    Seen seen = {.calls = 0}, other = {.calls = 0};
    Gate gate;
    Pipe pipe = new_pipe();
    evloop_watcher_t watcher = add(loop, pipe.r, neighbours[i][0], &seen);
    go_round(loop);
    hold(loop, &gate);
    CHECK_EQ(evloop_watcher_close(add(loop, pipe.r, neighbours[i][1], &other), 0), 0);
    open_gate(&gate);
    go_round(loop);
    put(pipe.w);
    UNTIL(LOAD(seen.calls) > 0);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    CHECK_EQ(seen.errors, 0);
    CHECK_EQ(other.calls, 0);
  }
  stop_runner(&r);
}

/* The registration is another thread's for a moment. */
TEST(a_refused_watcher_beside_one_that_was_closed_silences_no_neighbour) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  Seen seen = {.calls = 0}, closed = {.calls = 0}, refused = {.calls = 0};
  Gate gate;
  Pipe pipe = new_pipe();
  evloop_watcher_t first = add(loop, pipe.r, IN, &closed);
  add(loop, pipe.r, IN, &seen);
  go_round(loop);
  hold(loop, &gate);
  CHECK_EQ(evloop_watcher_close(first, 0), 0);
  add(loop, pipe.r, IN | EXCLUSIVE, &refused);
  open_gate(&gate);
  UNTIL(LOAD(refused.calls) > 0);
  CHECK_EQ(refused.last.result, -EEXIST);
  put(pipe.w);
  UNTIL(LOAD(seen.calls) > 0);
  stop_runner(&r);
  CHECK_EQ(seen.errors, 0);
}

typedef struct Closer {
  Gate gate;
  evloop_watcher_t watcher;
} Closer;

static void stay_and_close(const evloop_event_t *event, void *user_data) {
  Closer *closer = (Closer *)user_data;
  stay(event, &closer->gate);
  CHECK_EQ(evloop_watcher_close(closer->watcher, 0), 0);
}

/* The first one's place, and the registration that the kernel has not. */
TEST(watchers_closed_by_two_threads_at_once_silence_no_neighbour) {
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int which = 0; which < 3; which++) {
    Seen seen[3] = {{.calls = 0}};
    evloop_watcher_t watchers[3];
    Closer closer = {.watcher = 0};
    Pipe pipe = new_pipe();
    int left = which, here = (which + 1) % 3, there = (which + 2) % 3;
    for (int i = 0; i < 3; i++) watchers[i] = add(loop, pipe.r, IN, &seen[i]);
    closer.watcher = watchers[here];
    CHECK_EQ(evloop_post(loop, stay_and_close, &closer), 0);
    UNTIL(LOAD(closer.gate.entered));
    CHECK_EQ(evloop_watcher_close(watchers[there], 0), 0);
    open_gate(&closer.gate);
    go_round(loop);
    put(pipe.w);
    UNTIL(LOAD(seen[left].calls) > 0);
    CHECK_EQ(evloop_watcher_close(watchers[left], EVLOOP_CLOSE_WAIT), 0);
    CHECK_EQ(seen[left].errors, 0);
  }
  stop_runner(&r);
}

/* Puts another pipe in the place of one that is watched. */
static void use_fd_again(Pipe *pipe) {
  int fd = pipe->r;
  OK(close(pipe->r));
  OK(close(pipe->w));
  *pipe = new_pipe();
  CHECK_EQ(pipe->r, fd);
}

/* The kernel finds a registration by its descriptor, and so removes that of the
 * later watcher. */
TEST(closing_the_watcher_of_a_descriptor_that_was_used_again_silences_no_later_one) {
  static const uint32_t flags[] = {IN, IN | EXCLUSIVE, IN | ET, IN | ONESHOT};
  Runner r;
  evloop_t loop = sleeping_loop(&r);
  for (int i = 0; i < 2 * LENGTH(flags); i++) {
    bool adds_first = i % 2;
    Seen closed = {.calls = 0}, seen = {.calls = 0};
    Gate gate;
    Pipe pipe = new_pipe();
    evloop_watcher_t first = add(loop, pipe.r, IN, &closed), second = 0;
    go_round(loop);
    hold(loop, &gate);
    use_fd_again(&pipe);
    if (adds_first) second = add(loop, pipe.r, flags[i / 2], &seen);
    CHECK_EQ(evloop_watcher_close(first, 0), 0);
    if (!adds_first) second = add(loop, pipe.r, flags[i / 2], &seen);
    open_gate(&gate);
    go_round(loop);
    put(pipe.w);
    UNTIL(LOAD(seen.calls) > 0);
    CHECK_EQ(evloop_watcher_close(second, EVLOOP_CLOSE_WAIT), 0);
    CHECK_EQ(seen.errors, 0);
    CHECK_EQ(closed.calls, 0);
    CHECK_EQ(seen.last.events, IN);
    OK(close(pipe.r));
    OK(close(pipe.w));
  }
  stop_runner(&r);
}

/* A watcher that its loop closes and adds again and again. */
typedef struct Flicker {
  evloop_t loop;
  int fd;
  Seen seen;
  evloop_watcher_t watcher;
} Flicker;

static void flicker(const evloop_event_t *event, void *user_data) {
  Flicker *f = (Flicker *)user_data;
  (void)event;
  if (f->watcher) CHECK_EQ(evloop_watcher_close(f->watcher, 0), 0);
  f->watcher = f->watcher ? 0 : add(f->loop, f->fd, IN | ONESHOT, &f->seen);
}

/* Another thread adds one beside it, and perhaps another one for a moment. */
static void add_beside(const Flicker *f, Seen *seen, uint32_t flags, bool twice) {
  static Seen never;
  evloop_watcher_t watcher = add(f->loop, f->fd, IN, seen);
  UNTIL(LOAD(seen->calls) > 0);
  if (twice) CHECK_EQ(evloop_watcher_close(add(f->loop, f->fd, IN, &never), 0), 0);
  CHECK_EQ(evloop_watcher_close(watcher, flags), 0);
}

TEST_TIMEOUT(watchers_that_two_threads_add_and_close_at_once_are_all_called, 120) {
  enum { ROUNDS = 1500 };
  static Seen seen[ROUNDS]; /* a late event would be seen */
  static Flicker f;
  Runner r;
  f.loop = new_loop();
  f.fd = event_fd(1);
  OK(evloop_add_idle(f.loop, ignore, NULL));
  OK(evloop_add_check(f.loop, flicker, &f));
  start_runner(&r, run_until_done, f.loop);
  for (int i = 0; i < ROUNDS; i++) {
    add_beside(&f, &seen[i], i % 2 ? EVLOOP_CLOSE_WAIT : 0, i % 3 == 0);
    CHECK_EQ(LOAD(seen[i].errors), 0);
  }
  stop_runner(&r);
  CHECK_EQ(f.seen.errors, 0);
}

CHECK_MAIN()
