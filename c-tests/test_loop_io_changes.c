/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers that are changed when the kernel has reported them already, or
 * in the pause of a rate limit, or beside other loops.
 * (test_loop_io_rearm.c has the table of all ways to ask for readiness.) */

#define _GNU_SOURCE
#include "loop_io.h"

/* ---- what is asked for between a wait and the event that it found ---- */

/* Two watchers are ready; the first callback changes the other one's. */
typedef struct Two {
  Seen seen[2];
  evloop_watcher_t watchers[2];
  uint32_t masks[2]; /* one after the other; UNCHANGED: not */
} Two;

enum { UNCHANGED = 1 << 30 };

static void change_the_other(const evloop_event_t *event, void *user_data) {
  Two *two = (Two *)user_data;
  int which = event->watcher == two->watchers[1];
  record(event, &two->seen[which]);
  if (two->seen[!which].calls > 0) {
    /* The other was first. */
    if (two->masks[1] != UNCHANGED) CHECK_EQ(evloop_io_modify(event->watcher, two->masks[1]), 0);
    return;
  }
  CHECK_EQ(evloop_watcher_disable(event->watcher), 0);
  CHECK_EQ(evloop_io_modify(two->watchers[!which], two->masks[0]), 0);
}

static evloop_t with_two(Two *two, uint32_t events) {
  evloop_t loop = new_loop();
  keep_alive(loop);
  for (int i = 0; i < 2; i++) {
    two->watchers[i] = OK(evloop_add_io(loop, full_pipe().r, events, change_the_other, two));
  }
  turn(loop);
  CHECK(two->seen[0].calls == 1);
  CHECK(two->seen[1].calls == 1);
  return loop;
}

/* The registration that has reported it is not ONESHOT yet. */
TEST(a_ready_watcher_that_becomes_oneshot_is_reported_once_and_waited_for) {
  static const uint32_t before[] = {IN, IN | ET};
  static const uint32_t after[] = {IN | ONESHOT, IN | ONESHOT | ET};
  for (int i = 0; i < 4; i++) {
    Two two = {.masks = {after[i / 2], UNCHANGED}};
    evloop_t loop = with_two(&two, before[i % 2]);
    expect_quiet(loop);
    CHECK_EQ(two.seen[0].calls, 1);
    CHECK_EQ(two.seen[1].calls, 1);
    close_loop(loop);
  }
}

/* The registration that has reported it is spent, though its mask is what it
 * is to be. */
TEST(a_oneshot_watcher_that_was_none_for_a_moment_is_reported_again) {
  static const uint32_t masks[] = {IN | ONESHOT, IN | ONESHOT | ET};
  for (int i = 0; AT_ROW(i, masks); i++) {
    Two two = {.masks = {IN, masks[i]}};
    evloop_t loop = with_two(&two, masks[i]);
    turn(loop);
    CHECK_EQ(two.seen[0].calls + two.seen[1].calls, 3);
    close_loop(loop);
  }
}

/* ---- pauses of a rate limit ---- */

static evloop_watcher_t add_limited(evloop_t loop, int fd, uint32_t events, Seen *seen) {
  evloop_watcher_t watcher = add(loop, fd, events, seen);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, SECOND, 1), 0);
  turn(loop);
  CHECK_EQ(seen->calls, 1);
  return watcher;
}

/* Edges are added up in a pause, for which the kernel goes on to report. */
TEST(a_watcher_that_becomes_level_triggered_in_its_pause_does_not_spin) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add_limited(loop, pipe.r, IN | ET, &seen);
  put(pipe.w);
  turn(loop);
  CHECK_EQ(evloop_io_modify(watcher, IN), 0);
  turns(loop, 3);
  CHECK_EQ(evloop_embed_prepare(loop), 0);
  CHECK(!readable((int)OK(evloop_fileno(loop)), 0));
  CHECK_EQ(seen.calls, 1);
  advance(loop, SECOND);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 2);
}

/* Its neighbour's edges are reported in the pause, and not to it. */
TEST(a_watcher_that_becomes_edge_triggered_in_its_pause_is_reported_after_it) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0}, other = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add_limited(loop, pipe.r, IN, &seen);
  add(loop, pipe.r, IN | ET, &other);
  turns(loop, 2);
  CHECK_EQ(evloop_io_modify(watcher, IN | ET), 0);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  CHECK(other.calls > 0);
  advance(loop, SECOND);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 2);
}

/* What is ready then is reported, and what was kept is not besides. */
TEST(an_edge_of_a_pause_is_reported_once_by_a_watcher_that_was_disabled) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add_limited(loop, pipe.r, IN | ET, &seen);
  put(pipe.w);
  turn(loop);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  advance(loop, SECOND);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  for (int i = 0; i < 5; i++) {
    turn(loop);
    advance(loop, SECOND);
  }
  CHECK_EQ(seen.calls, 2);
}

/* The bits that it does not watch for any more are of no use to it. */
TEST(what_a_pause_has_kept_is_not_reported_to_a_watcher_that_was_modified) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0};
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  put(pair[1]);
  evloop_watcher_t watcher = add_limited(loop, pair[0], IN | ET, &seen);
  put(pair[1]);
  turn(loop);
  CHECK_EQ(evloop_io_modify(watcher, OUT | ET), 0);
  turn(loop);
  advance(loop, SECOND);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.last.events, OUT);
}

/* ---- several loops, one of whose watchers is to be called ---- */

/* The kernel wakes one of the loops, and not the one that is disabled. */
TEST(a_disabled_exclusive_watcher_takes_no_connection_from_other_loops) {
  static const uint32_t bits[] = {EXCLUSIVE, EXCLUSIVE | ET};
  for (int i = 0; i < 4; i++) {
    Runner runners[2];
    Seen seen[2] = {{.calls = 0}};
    evloop_watcher_t watchers[2];
    int fd = event_fd(0), off = i % 2;
    for (int k = 0; k < 2; k++) {
      evloop_t loop = new_loop();
      keep_alive(loop);
      watchers[k] = add(loop, fd, IN | bits[i / 2], &seen[k]);
      start_sleeper(&runners[k], run_until_done, loop);
    }
    CHECK_EQ(evloop_watcher_disable(watchers[off]), 0);
    go_round(runners[off].loop);
    wait_until_asleep(&runners[off].tid);
    OK(eventfd_write(fd, 1));
    UNTIL(LOAD(seen[!off].calls) > 0);
    for (int k = 0; k < 2; k++) {
      stop_runner(&runners[k]);
      CHECK_EQ(evloop_close(runners[k].loop), 0);
    }
    CHECK_EQ(seen[off].calls, 0);
    OK(close(fd));
  }
}

CHECK_MAIN()
