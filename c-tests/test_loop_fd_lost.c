/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers whose descriptors are closed, duplicated or replaced. */

#define _GNU_SOURCE
#include "loop_io.h"

/* What is ready all the time may be reported for a while until the loop
 * notices, but not for ever. */
enum { A_WHILE = 1000 };

static void turns_until_error(evloop_t loop, const Seen *seen) {
  for (int i = 0; i < A_WHILE && seen->errors == 0; i++) OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
}

/* The loop waits, and does not spin. */
static void expect_asleep(evloop_t loop) {
  Seen prepares = {.calls = 0};
  evloop_watcher_t prepare = OK(evloop_add_prepare(loop, record, &prepares));
  CHECK_EQ(evloop_run_for_ns(loop, 40 * MS), 1);
  CHECK(prepares.calls > 0);
  CHECK(prepares.calls < 10);
  CHECK_EQ(evloop_watcher_close(prepare, 0), 0);
}

/* Exactly one, and nothing after it. */
static void expect_one_error(const Seen *seen, int fd) {
  CHECK_EQ(seen->errors, 1);
  CHECK_EQ(seen->last.type, EVLOOP_EVENT_IO);
  CHECK((seen->last.events & EVLOOP_ERROR) != 0);
  CHECK_EQ(seen->last.result, -EBADF);
  CHECK_EQ(seen->last.fd, fd);
}

/* ---- a descriptor that goes away ---- */

/* A watched pipe, whose reading end is closed. With REUSE_FD the descriptor
 * is then one of another pipe, with a byte in it. With KEEP_DUPLICATE a duplicate
 * of the reading end stays open. */
typedef struct Gone {
  evloop_t loop;
  Pipe pipe, other;
  int duplicate;
  Seen seen;
  evloop_watcher_t watcher;
} Gone;

enum { KEEP_DUPLICATE = 1, REUSE_FD = 2, EDGE = 4, FULL = 8, ALL_WAYS = 16 };

/* Static: a late event would be seen, and not be a stray write. */
static Gone *lose_descriptor(int how) {
  static Gone g;
  g = (Gone){.loop = new_loop(), .pipe = new_pipe(), .other = new_pipe(), .duplicate = -1};
  keep_alive(g.loop);
  g.watcher = add(g.loop, g.pipe.r, IN | (how & EDGE ? ET : 0), &g.seen);
  turns(g.loop, 5);
  if (how & KEEP_DUPLICATE) g.duplicate = (int)OK(dup(g.pipe.r));
  OK(close(g.pipe.r));
  if (how & FULL && how & KEEP_DUPLICATE) put(g.pipe.w);
  put(g.other.w);
  if (how & REUSE_FD) CHECK_EQ(dup2(g.other.r, g.pipe.r), g.pipe.r);
  return &g;
}

static void end(const Gone *g, int how) {
  CHECK_EQ(evloop_watcher_close(g->watcher, 0), 0);
  expect_asleep(g->loop);
  CHECK_EQ(evloop_close(g->loop), 0);
  if (how & REUSE_FD) OK(close(g->pipe.r));
  if (how & KEEP_DUPLICATE) OK(close(g->duplicate));
  OK(close(g->pipe.w));
  OK(close(g->other.r));
  OK(close(g->other.w));
}

/* No event and no call informs the loop, so it need not notice. */
TEST_TIMEOUT(a_descriptor_that_went_away_is_an_error_or_nothing, 60) {
  for (int how = 0; how < FULL; how++) {
    Gone *g = lose_descriptor(how);
    turns(g->loop, 5);
    expect_asleep(g->loop);
    CHECK_EQ(g->seen.calls, g->seen.errors);
    if (g->seen.errors > 0) expect_one_error(&g->seen, g->pipe.r);
    end(g, how);
  }
}

/* The kernel goes on reporting the open file, whose descriptor is closed or
 * another file's, and would do so for ever. */
TEST_TIMEOUT(a_duplicate_that_stays_readable_is_one_error_and_then_nothing, 60) {
  for (int reuse = 0; reuse <= REUSE_FD; reuse += REUSE_FD) {
    Gone *g = lose_descriptor(KEEP_DUPLICATE | FULL | reuse);
    turns_until_error(g->loop, &g->seen);
    expect_one_error(&g->seen, g->pipe.r);
    int calls = g->seen.calls;
    for (int i = 0; i < 100; i++) {
      put(g->pipe.w);
      turn(g->loop);
    }
    expect_asleep(g->loop);
    CHECK_EQ(g->seen.calls, calls);
    CHECK(readable(g->duplicate, 0));
    end(g, KEEP_DUPLICATE | FULL | reuse);
  }
}

/* The kernel refuses a change of what no epoll takes in other words. */
TEST_TIMEOUT(a_duplicate_whose_descriptor_is_a_files_now_is_one_error, 60) {
  Gone *g = lose_descriptor(KEEP_DUPLICATE | FULL);
  int file = (int)OK(open("/dev/zero", O_RDONLY | O_CLOEXEC));
  if (file != g->pipe.r) {
    CHECK_EQ(dup2(file, g->pipe.r), g->pipe.r);
    OK(close(file));
  }
  turns_until_error(g->loop, &g->seen);
  expect_one_error(&g->seen, g->pipe.r);
  end(g, KEEP_DUPLICATE | REUSE_FD);
}

/* Its descriptor is closed, so each call of the callback is spurious, but there
 * are only as many calls as bytes that are written. */
TEST(a_duplicate_with_edges_is_reported_no_more_often_than_it_changes) {
  for (int reuse = 0; reuse <= REUSE_FD; reuse += REUSE_FD) {
    Gone *g = lose_descriptor(KEEP_DUPLICATE | EDGE | reuse);
    for (int i = 0; i < 10; i++) {
      put(g->pipe.w);
      turns(g->loop, 5);
    }
    CHECK(g->seen.calls <= 11);
    CHECK(g->seen.errors <= 1);
    expect_asleep(g->loop);
    end(g, KEEP_DUPLICATE | EDGE | reuse);
  }
}

TEST(a_duplicate_that_becomes_readable_ends_the_wait_with_one_error) {
  for (int reuse = 0; reuse <= REUSE_FD; reuse += REUSE_FD) {
    Gone *g = lose_descriptor(KEEP_DUPLICATE | reuse);
    Runner r;
    start_sleeper(&r, run_until_done, g->loop);
    put(g->pipe.w);
    UNTIL(LOAD(g->seen.errors) >= 1);
    wait_until_asleep(&r.tid);
    stop_runner(&r);
    expect_one_error(&g->seen, g->pipe.r);
    CHECK(g->seen.calls <= A_WHILE);
    end(g, KEEP_DUPLICATE | reuse);
  }
}

static void disable(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
}

static void close_it(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
}

static void no_duplicate_is_seen_after(void (*change)(evloop_watcher_t)) {
  for (int reuse = 0; reuse <= REUSE_FD; reuse += REUSE_FD) {
    Gone *g = lose_descriptor(KEEP_DUPLICATE | FULL | reuse);
    change(g->watcher);
    turns(g->loop, 5);
    expect_asleep(g->loop);
    put(g->pipe.w);
    expect_asleep(g->loop);
    CHECK_EQ(g->seen.calls, 0);
    CHECK_EQ(evloop_close(g->loop), 0);
  }
}

TEST(a_duplicate_is_not_seen_by_a_disabled_watcher) {
  no_duplicate_is_seen_after(disable);
}

TEST(a_duplicate_is_not_seen_by_a_closed_watcher) {
  no_duplicate_is_seen_after(close_it);
}

TEST(a_lost_descriptor_without_a_callback_is_an_event_for_wait) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  Pipe pipe = new_pipe();
  evloop_watcher_t watcher = OK(evloop_add_io(loop, pipe.r, IN, NULL, as_data(5)));
  keep_alive(loop);
  OK(dup(pipe.r));
  OK(close(pipe.r));
  put(pipe.w);
  for (int i = 0; i < A_WHILE; i++) {
    CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
    CHECK(event.watcher == watcher);
    CHECK_EQ(event.data, 5);
    CHECK(event.fd == pipe.r);
    if ((event.events & EVLOOP_ERROR) != 0) break;
  }
  CHECK((event.events & EVLOOP_ERROR) != 0);
  CHECK_EQ(event.result, -EBADF);
  CHECK_EQ(evloop_wait(loop, &event, 1, 20 * MS), 0);
}

/* ---- changes of a watcher whose descriptor went away ---- */

static void modify(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_io_modify(watcher, IN | OUT), 0);
}

static void disable_and_enable_later(evloop_watcher_t watcher) {
  disable(watcher);
  turns(OK(evloop_watcher_loop(watcher)), 5);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
}

/* The loop never applies a change to the file that has the descriptor now. */
TEST_TIMEOUT(a_modified_watcher_finds_out_that_its_descriptor_went_away, 60) {
  for (int how = 0; how < ALL_WAYS; how++) {
    Gone *g = lose_descriptor(how);
    modify(g->watcher);
    turns(g->loop, 5);
    expect_one_error(&g->seen, g->pipe.r);
    int calls = g->seen.calls;
    if ((how & FULL) == 0) CHECK_EQ(calls, 1);
    turns(g->loop, 5);
    CHECK_EQ(g->seen.calls, calls);
    if (how & REUSE_FD) CHECK(readable(g->pipe.r, 0));
    end(g, how);
  }
}

TEST_TIMEOUT(an_enabled_watcher_does_not_watch_the_new_descriptor, 60) {
  for (int how = 0; how < ALL_WAYS; how++) {
    Gone *g = lose_descriptor(how);
    disable_and_enable_later(g->watcher);
    turns_until_error(g->loop, &g->seen);
    if ((how & FULL) == 0 || (how & KEEP_DUPLICATE) == 0) CHECK_EQ(g->seen.calls, g->seen.errors);
    else if ((how & EDGE) == 0) expect_one_error(&g->seen, g->pipe.r);
    int calls = g->seen.calls;
    expect_asleep(g->loop);
    CHECK_EQ(g->seen.calls, calls);
    end(g, how);
  }
}

TEST(a_watcher_with_an_error_does_not_keep_the_loop_alive) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = new_pipe();
  add(loop, pipe.r, IN, &seen);
  OK(dup(pipe.r));
  OK(close(pipe.r));
  put(pipe.w);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  expect_one_error(&seen, pipe.r);
}

/* It is an error once more, and not the new descriptor's watcher. */
TEST(a_watcher_with_an_error_that_is_enabled_watches_no_new_descriptor) {
  Gone *g = lose_descriptor(REUSE_FD);
  void (*const enables[])(evloop_watcher_t) = {modify, disable_and_enable_later};
  modify(g->watcher);
  turns(g->loop, 5);
  expect_one_error(&g->seen, g->pipe.r);
  for (int i = 0; i < 2; i++) {
    enables[i](g->watcher);
    turns(g->loop, 5);
    CHECK_EQ(g->seen.calls, g->seen.errors);
    expect_asleep(g->loop);
  }
  end(g, REUSE_FD);
}

/* ---- another file at its descriptor ---- */

/* The new watcher's events are the new file's, the old one's are not,
 * whichever of them is closed first. */
TEST_TIMEOUT(a_new_watcher_of_the_descriptor_is_another_files, 60) {
  for (int i = 0; i < ALL_WAYS * 3; i++) {
    int how = (i % ALL_WAYS) | REUSE_FD, old_closed = i / ALL_WAYS;
    Gone *g = lose_descriptor(how);
    Seen fresh = {.calls = 0};
    if (old_closed == 2) turns(g->loop, 5);
    evloop_watcher_t watcher = add(g->loop, g->pipe.r, IN, &fresh);
    if (old_closed == 1) turns(g->loop, 5);
    if (old_closed) CHECK_EQ(evloop_watcher_close(g->watcher, 0), 0);
    fresh.calls = 0;
    int calls = g->seen.calls;
    turns(g->loop, 5);
    CHECK_EQ(fresh.calls, 5);
    CHECK_EQ(fresh.errors, 0);
    CHECK_EQ(fresh.last.events, IN);
    if (old_closed) CHECK_EQ(g->seen.calls, calls);
    else expect_one_error(&g->seen, g->pipe.r);
    if (!old_closed) CHECK_EQ(evloop_watcher_close(g->watcher, 0), 0);
    turns(g->loop, 5);
    CHECK_EQ(fresh.calls, 10);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
    g->watcher = keep_alive(g->loop);
    end(g, how);
  }
}

/* The loop's own timer gets a descriptor that the program has closed. */
TEST(a_closed_descriptor_may_become_the_loops_own) {
  for (int how = 0; how < 3; how++) {
    evloop_t loop = new_loop();
    Pipe pipe = new_pipe();
    Seen seen = {.calls = 0}, timer = {.calls = 0};
    evloop_watcher_t watcher = add(loop, pipe.r, IN, &seen);
    int duplicate = how == 2 ? (int)OK(dup(pipe.r)) : -1;
    turns(loop, 5);
    OK(close(pipe.r));
    evloop_watcher_t tick =
        OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, MS, 0, record, &timer));
    CHECK_ERR(fcntl(pipe.r, F_GETFD) < 0 ? -EBADF : -EEXIST, EEXIST);
    if (how == 0) CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
    if (how == 1) CHECK_EQ(evloop_io_modify(watcher, OUT), 0);
    if (how == 2) put(pipe.w);
    while (timer.calls < 3) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    if (how > 0) expect_one_error(&seen, pipe.r);
    CHECK_EQ(seen.calls, how > 0);
    CHECK_EQ(evloop_watcher_close(tick, 0), 0);
    CHECK_EQ(evloop_close(loop), 0);
    if (duplicate >= 0) OK(close(duplicate));
    OK(close(pipe.w));
  }
}

/* Closed in the right order there is nothing to notice at all. */
TEST(descriptors_are_used_again_and_again) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  for (int i = 0; i < 1000; i++) {
    Seen seen = {.calls = 0};
    evloop_watcher_t watcher = add(loop, pipe.r, IN | (i % 2 ? ET : 0), &seen);
    if (i % 3 == 0) turn(loop);
    if (i % 5 == 0) put(pipe.w);
    turn(loop);
    CHECK_EQ(seen.calls, i % 5 == 0);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
    int number = pipe.r;
    OK(close(pipe.r));
    OK(close(pipe.w));
    pipe = new_pipe();
    CHECK_EQ(pipe.r, number);
    turn(loop);
    CHECK_EQ(seen.errors, 0);
    CHECK(seen.calls <= 1);
  }
}

static Pipe replaced;
static Seen replacement;

static void replace_descriptor(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  evloop_t loop = OK(evloop_watcher_loop(event->watcher));
  Pipe other = new_pipe();
  CHECK_EQ(evloop_watcher_close(event->watcher, 0), 0);
  OK(close(event->fd));
  CHECK_EQ(dup2(other.r, event->fd), event->fd);
  replaced = other;
  add(loop, event->fd, IN, &replacement);
}

/* Two callbacks are ready in one batch, and each replaces its descriptor. */
TEST(a_callback_replaces_its_descriptor) {
  evloop_t loop = new_loop();
  Seen seen[2] = {{.calls = 0}};
  for (int i = 0; i < 2; i++) {
    Pipe pipe = new_pipe();
    put(pipe.w);
    OK(evloop_add_io(loop, pipe.r, IN, replace_descriptor, &seen[i]));
  }
  turns(loop, 5);
  CHECK_EQ(seen[0].calls, 1);
  CHECK_EQ(seen[1].calls, 1);
  CHECK_EQ(replacement.calls, 0);
  put(replaced.w);
  turn(loop);
  CHECK_EQ(replacement.calls, 1);
  CHECK_EQ(replacement.errors, 0);
}

/* ---- files, which the kernel does not watch ---- */

static evloop_t new_living_loop(void) {
  evloop_t loop = new_loop();
  keep_alive(loop);
  return loop;
}

TEST(a_file_that_was_closed_is_one_error) {
  evloop_t loop = new_living_loop();
  Seen seen = {.calls = 0};
  int file = (int)OK(dup(regular_file()));
  add(loop, file, IN, &seen);
  turns(loop, 5);
  CHECK_EQ(seen.calls, 5);
  OK(close(file));
  turns_until_error(loop, &seen);
  expect_one_error(&seen, file);
  expect_asleep(loop);
}

TEST(a_pipe_at_the_descriptor_of_a_file_is_not_always_ready) {
  evloop_t loop = new_living_loop();
  Seen seen = {.calls = 0};
  int file = (int)OK(dup(regular_file()));
  Pipe pipe = new_pipe();
  add(loop, file, IN, &seen);
  turns(loop, 5);
  CHECK_EQ(dup2(pipe.r, file), file);
  turns_until_error(loop, &seen);
  expect_one_error(&seen, file);
  expect_asleep(loop);
}

TEST(a_new_watcher_of_a_files_descriptor_is_a_pipes) {
  evloop_t loop = new_living_loop();
  Seen seen = {.calls = 0}, fresh = {.calls = 0};
  int file = (int)OK(dup(regular_file()));
  Pipe pipe = new_pipe();
  add(loop, file, IN, &seen);
  turns(loop, 5);
  CHECK_EQ(dup2(pipe.r, file), file);
  add(loop, file, IN, &fresh);
  turns_until_error(loop, &seen);
  expect_one_error(&seen, file);
  CHECK_EQ(fresh.calls, 0);
  put(pipe.w);
  turns(loop, 5);
  CHECK_EQ(fresh.calls, 5);
}

TEST(a_file_at_the_descriptor_of_a_pipe_is_always_ready) {
  Gone *g = lose_descriptor(0);
  Seen fresh = {.calls = 0};
  CHECK_EQ(dup2(regular_file(), g->pipe.r), g->pipe.r);
  evloop_watcher_t watcher = add(g->loop, g->pipe.r, IN, &fresh);
  turns(g->loop, 5);
  CHECK_EQ(fresh.calls, 5);
  CHECK(g->seen.calls == g->seen.errors);
  CHECK(g->seen.errors <= 1);
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  end(g, REUSE_FD);
}

CHECK_MAIN()
