/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Event loops with virtual time, which moves only by evloop_advance_ns() or by
 * jumps to the next timer. */

#define _GNU_SOURCE 1
#include "loop_support.h"

#include <sys/timerfd.h>

/* ---- helpers ---- */

static int64_t now_of(evloop_t loop) {
  return OK(evloop_now_ns(loop));
}

/* ---- time ---- */

TEST(time_begins_with_0_and_stands_still) {
  static Seen seen;
  int64_t start = now_ns(CLOCK_MONOTONIC);
  evloop_t loop = virtual_loop();
  CHECK_EQ(now_of(loop), 0);
  timer(loop, 1, 0, record, &seen);
  turns(loop, 100);
  while (now_ns(CLOCK_MONOTONIC) < start + 2 * MS) turn(loop);
  turns(loop, 100);
  CHECK_EQ(now_of(loop), 0);
  CHECK_EQ(seen.calls, 0);
}

TEST(time_moves_by_what_advance_ns_adds) {
  evloop_t loop = virtual_loop(), other = virtual_loop();
  advance(loop, 0);
  CHECK_EQ(now_of(loop), 0);
  advance(loop, 7);
  advance(loop, 5 * SECOND);
  CHECK_EQ(now_of(loop), 5 * SECOND + 7);
  turns(loop, 3);
  CHECK_EQ(now_of(loop), 5 * SECOND + 7);
  CHECK_EQ(now_of(other), 0);
}

TEST(only_virtual_time_can_be_moved) {
  evloop_t loop = virtual_loop(), real = new_loop();
  CHECK_ERR(evloop_advance_ns(real, 1), ENOTSUP);
  CHECK_ERR(evloop_advance_ns(real, 0), ENOTSUP);
  CHECK_ERR(evloop_advance_ns(loop, -1), EINVAL);
  CHECK_ERR(evloop_advance_ns(loop, INT64_MIN), EINVAL);
  CHECK_EQ(now_of(loop), 0);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_ERR(evloop_advance_ns(loop, 1), ESTALE);
  CHECK_ERR(evloop_advance_ns(async(real, ignore, NULL), 1), EDOM);
}

TEST(jumping_needs_virtual_time) {
  evloop_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.flags = EVLOOP_AUTO_ADVANCE;
  CHECK_ERR(evloop_create(&options), EINVAL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
}

TEST(time_ends_at_the_largest_number) {
  static Seen finite, infinite;
  evloop_t loop = virtual_loop();
  timer(loop, INT64_MAX - 1, 0, record, &finite);
  timer(loop, INT64_MAX, 0, record, &infinite);
  advance(loop, SECOND);
  timer(loop, INT64_MAX - 5, 7, record, &infinite);
  advance(loop, INT64_MAX);
  CHECK_EQ(now_of(loop), INT64_MAX);
  advance(loop, INT64_MAX);
  CHECK_EQ(now_of(loop), INT64_MAX);
  turns(loop, 5);
  CHECK_EQ(finite.calls, 1);
  CHECK_EQ(infinite.calls, 0);
}

static void expect_time(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(evloop_now_ns(evloop_watcher_loop(event->watcher)), event->time_ns);
  record(event, user_data);
}

TEST(timers_expire_at_the_time_they_are_found) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  timer(loop, SECOND, SECOND, expect_time, &seen);
  advance(loop, SECOND - 1);
  turn(loop);
  CHECK_EQ(seen.calls, 0);
  advance(loop, 1);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.time_ns, SECOND);
  advance(loop, 10 * SECOND + 5);
  turn(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.last.count, 10);
  CHECK_EQ(seen.last.deadline_ns, 2 * SECOND);
  CHECK_EQ(seen.last.time_ns, 11 * SECOND + 5);
  CHECK_EQ(evloop_next_timeout_ns(loop), SECOND - 5);
}

TEST(every_clock_shows_the_virtual_time) {
  static const int clocks[] = {EVLOOP_CLOCK_REALTIME, EVLOOP_CLOCK_MONOTONIC, EVLOOP_CLOCK_BOOTTIME};
  static Seen seen[2 * LENGTH(clocks)];
  evloop_t loop = virtual_loop();
  int i;
  advance(loop, SECOND);
  for (i = 0; AT_ROW(i, seen); i++) {
    bool absolute = i % 2;
    OK(evloop_add_timer(loop, clocks[i / 2], absolute ? EVLOOP_TIMER_ABSTIME : 0,
                        absolute ? 5 * SECOND : 4 * SECOND, 0, 0, record, &seen[i]));
  }
  advance(loop, 4 * SECOND - 1);
  turn(loop);
  for (i = 0; AT_ROW(i, seen); i++) CHECK_EQ(seen[i].calls, 0);
  advance(loop, 1);
  turn(loop);
  for (i = 0; AT_ROW(i, seen); i++) {
    CHECK_EQ(seen[i].calls, 1);
    CHECK_EQ(seen[i].last.deadline_ns, 5 * SECOND);
    CHECK_EQ(seen[i].last.time_ns, 5 * SECOND);
  }
}

TEST(the_next_timeout_is_virtual) {
  evloop_t loop = virtual_loop();
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  async(loop, ignore, NULL);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  timer(loop, HOUR, 0, ignore, NULL);
  CHECK_EQ(evloop_next_timeout_ns(loop), HOUR);
  advance(loop, HOUR - 1);
  CHECK_EQ(evloop_next_timeout_ns(loop), 1);
  advance(loop, 1);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
  turn(loop);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  CHECK_EQ(evloop_post(loop, ignore, NULL), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
}

/* ---- jumping ---- */

TEST(a_jumping_loop_visits_each_deadline) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, 0, expect_time, &seen);
  timer(loop, 1000 * HOUR, 0, expect_time, &seen);
  timer(loop, HOUR, 0, expect_time, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 3);
  CHECK_EQ(seen.last.deadline_ns, 1000 * HOUR);
  CHECK_EQ(seen.last.time_ns, 1000 * HOUR);
  CHECK_EQ(now_of(loop), 1000 * HOUR);
}

TEST(a_jumping_loop_misses_nothing) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, SECOND, expect_time, &seen);
  CHECK_EQ(evloop_run_for_ns(loop, HOUR + 1), 1);
  CHECK_EQ(seen.calls, 3600);
  CHECK_EQ(seen.count, 3600);
  CHECK_EQ(seen.last.deadline_ns, HOUR);
  CHECK_EQ(now_of(loop), HOUR + 1);
}

TEST(a_jumping_loop_can_be_advanced_too) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, SECOND, record, &seen);
  advance(loop, 10 * SECOND);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.count, 10);
  CHECK_EQ(evloop_run_for_ns(loop, 2 * SECOND + 1), 1);
  CHECK_EQ(seen.count, 12);
}

typedef struct Posts {
  Seen seen;
  evloop_t loop;
} Posts;

static void post_again(const evloop_event_t *event, void *user_data) {
  Posts *posts = (Posts *)user_data;
  record(event, &posts->seen);
  if (posts->seen.calls < 100) CHECK_EQ(evloop_post(posts->loop, post_again, posts), 0);
}

static void expect_quiet(const evloop_event_t *event, void *user_data) {
  const Seen *other = (const Seen *)user_data;
  CHECK(event->type == EVLOOP_EVENT_TIMER);
  CHECK(other->calls == 100);
  log_char('q');
}

TEST(time_does_not_jump_while_calls_are_posted) {
  static Posts posts;
  posts.loop = jumping_loop();
  timer(posts.loop, 1, 0, expect_quiet, &posts.seen);
  CHECK_EQ(evloop_post(posts.loop, post_again, &posts), 0);
  run_to_end(posts.loop);
  CHECK_EQ(posts.seen.calls, 100);
  EXPECT_LOG("q");
}

/* Readable for a hundred rounds. */
static void read_one(const evloop_event_t *event, void *user_data) {
  char byte;
  record(event, user_data);
  CHECK_EQ(read(event->fd, &byte, 1), 1);
  if (((Seen *)user_data)->calls == 100) close_watcher(event->watcher);
}

TEST(time_does_not_jump_while_descriptors_are_ready) {
  static Seen io;
  evloop_t loop = jumping_loop();
  Pipe pipe = new_pipe();
  int i;
  for (i = 0; i < 100; i++) put(pipe.w);
  timer(loop, 1, 0, expect_quiet, &io);
  readable_io(loop, pipe.r, read_one, &io);
  run_to_end(loop);
  CHECK_EQ(io.calls, 100);
  EXPECT_LOG("q");
}

static void send_again(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  if (seen->calls < 100) {
    trigger(event->watcher);
  } else {
    close_watcher(event->watcher);
  }
}

TEST(time_does_not_jump_while_an_async_watcher_is_triggered) {
  static Seen sent;
  evloop_t loop = jumping_loop();
  timer(loop, 1, 0, expect_quiet, &sent);
  trigger(async(loop, send_again, &sent));
  run_to_end(loop);
  CHECK_EQ(sent.calls, 100);
  EXPECT_LOG("q");
}

/* ---- limited runs and waits ---- */

TEST(a_run_for_a_time_ends_at_that_time) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, SECOND, record, &seen);
  CHECK_EQ(evloop_run_for_ns(loop, 5 * SECOND + 500 * MS), 1);
  CHECK_EQ(seen.calls, 5);
  CHECK_EQ(now_of(loop), 5 * SECOND + 500 * MS);
  CHECK_EQ(evloop_run_for_ns(loop, 600 * MS), 1);
  CHECK_EQ(seen.calls, 6);
  CHECK_EQ(now_of(loop), 6 * SECOND + 100 * MS);
}

TEST(a_wait_ends_at_its_time) {
  evloop_event_t events[2];
  evloop_t loop = jumping_loop();
  async(loop, NULL, NULL);
  timer(loop, 10 * SECOND, 0, NULL, &loop);
  CHECK_EQ(evloop_wait(loop, events, 2, 3 * SECOND), 0);
  CHECK_EQ(now_of(loop), 3 * SECOND);
  CHECK_EQ(evloop_wait(loop, events, 2, 0), 0);
  CHECK_EQ(now_of(loop), 3 * SECOND);
  CHECK_EQ(evloop_wait(loop, events, 2, HOUR), 1);
  CHECK_EQ(now_of(loop), 10 * SECOND);
  CHECK_EQ(events[0].type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(events[0].deadline_ns, 10 * SECOND);
  CHECK_EQ(events[0].data, (uintptr_t)&loop);
}

/* ---- other threads ---- */

static int64_t run_for_5_seconds(evloop_t loop) {
  return evloop_run_for_ns(loop, 5 * SECOND);
}

static int64_t wait_for_5_seconds(evloop_t loop) {
  evloop_event_t event;
  return evloop_wait(loop, &event, 1, 5 * SECOND);
}

TEST(advancing_wakes_a_waiting_loop) {
  static Seen seen;
  static Runner runner;
  evloop_t loop = virtual_loop();
  timer(loop, HOUR, 0, record, &seen);
  start_sleeper(&runner, run_until_done, loop);
  advance(loop, HOUR - 1);
  wait_until_asleep(&runner.tid);
  CHECK_EQ(LOAD(seen.calls), 0);
  advance(loop, 1);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.deadline_ns, HOUR);
}

TEST(advancing_ends_a_limited_run_and_a_wait) {
  RunFunction *const runs[] = {run_for_5_seconds, wait_for_5_seconds};
  int i;
  for (i = 0; AT_ROW(i, runs); i++) {
    Runner r;
    evloop_t loop = virtual_loop();
    async(loop, ignore, NULL);
    start_sleeper(&r, runs[i], loop);
    advance(loop, 5 * SECOND - 1);
    wait_until_asleep(&r.tid);
    advance(loop, 1);
    CHECK_EQ(runner_result(&r), i == 0);
    CHECK_EQ(now_of(loop), 5 * SECOND);
  }
}

static void *advance_often(void *argument) {
  evloop_t loop = *(evloop_t *)argument;
  int i;
  for (i = 0; i < 10000; i++) advance(loop, MS);
  return NULL;
}

static void close_at_the_end(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK(event->time_ns - event->deadline_ns < (int64_t)event->count * MS);
  if (((Seen *)user_data)->count == 40000) close_watcher(event->watcher);
}

TEST(advancing_from_four_threads_adds_up) {
  static Seen seen;
  static Runner runner;
  evloop_t loop = virtual_loop();
  pthread_t threads[4];
  int i;
  timer(loop, MS, MS, close_at_the_end, &seen);
  start_runner(&runner, run_until_done, loop);
  for (i = 0; i < 4; i++) threads[i] = start_thread(advance_often, &loop);
  for (i = 0; i < 4; i++) join(threads[i]);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(now_of(loop), 40 * SECOND);
}

/* ---- beside the real world ---- */

TEST(descriptors_are_real_beside_virtual_timers) {
  static Seen io, due;
  evloop_t loop = virtual_loop();
  Pipe pipe = new_pipe();
  char byte;
  readable_io(loop, pipe.r, record, &io);
  timer(loop, SECOND, 0, record, &due);
  turn(loop);
  CHECK_EQ(io.calls, 0);
  put(pipe.w);
  turn(loop);
  CHECK_EQ(io.calls, 1);
  CHECK_EQ(read(pipe.r, &byte, 1), 1);
  turn(loop);
  CHECK_EQ(io.calls, 1);
  CHECK_EQ(due.calls, 0);
  advance(loop, SECOND);
  put(pipe.w);
  turn(loop);
  CHECK_EQ(io.calls, 2);
  CHECK_EQ(due.calls, 1);
}

TEST(a_descriptor_wakes_a_loop_whose_time_stands_still) {
  static Runner runner;
  evloop_t loop = virtual_loop();
  Pipe pipe = new_pipe();
  readable_io(loop, pipe.r, stop_loop, as_data(loop));
  timer(loop, 1, 0, ignore, NULL);
  start_sleeper(&runner, run_until_done, loop);
  put(pipe.w);
  CHECK_EQ(runner_result(&runner), 1);
  CHECK_EQ(now_of(loop), 0);
}

TEST(a_post_wakes_a_loop_whose_time_stands_still) {
  static Runner runner;
  static Seen posted;
  evloop_t loop = virtual_loop();
  timer(loop, HOUR, 0, ignore, NULL);
  start_sleeper(&runner, run_until_done, loop);
  CHECK_EQ(evloop_post(loop, record, &posted), 0);
  UNTIL(LOAD(posted.calls) == 1);
  advance(loop, HOUR);
  CHECK_EQ(runner_result(&runner), 0);
  expect_plain(&posted.last, 0, EVLOOP_EVENT_POST, &posted);
}

static void advance_an_hour(const evloop_event_t *event, void *user_data) {
  CHECK(event->type == EVLOOP_EVENT_POST);
  log_char('p');
  advance(*(evloop_t *)user_data, HOUR);
}

TEST(advancing_inside_a_callback_makes_timers_due) {
  evloop_t loop = virtual_loop();
  timer(loop, HOUR, 0, log_first_char, WORD("t"));
  timer(loop, HOUR + 1, 0, log_first_char, WORD("u"));
  CHECK_EQ(evloop_post(loop, advance_an_hour, &loop), 0);
  turns(loop, 3);
  EXPECT_LOG("pt");
  CHECK_EQ(now_of(loop), HOUR);
}

/* Each clock has a queue, and in virtual time they show the same numbers. */
static void count_it(const evloop_event_t *event, void *user_data) {
  (void)event;
  ++*(int *)user_data;
}

TEST(a_timer_that_changes_its_clock_expires_once) {
  static int calls, others;
  evloop_t loop = virtual_loop();
  evloop_watcher_t timer;
  int i;
  timer = OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, 0, 100, 0, 0, count_it, &calls));
  CHECK_EQ(evloop_timer_set(timer, EVLOOP_TIMER_ABSTIME, 100, 0), 0);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 100, 0, 0, count_it, &others));
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 150, 0, 0, count_it, &others));
  for (i = 0; i < 4; i++) {
    CHECK_EQ(evloop_advance_ns(loop, 50), 0);
    OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
    CHECK_EQ(calls, i >= 1);
    CHECK_EQ(others, i < 1 ? 0 : i < 2 ? 1 : 2);
  }
  CHECK_EQ(evloop_close(loop), 0);
}

CHECK_MAIN()
