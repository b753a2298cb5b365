/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What an event loop counts: evloop_set_stats, evloop_stats and their like. */

#define _GNU_SOURCE 1
#include "loop_support.h"

static evloop_stats_t stats_of(evloop_t loop) {
  evloop_stats_t stats;
  memset(&stats, 0xff, sizeof stats);
  stats.size = sizeof stats;
  CHECK_EQ(evloop_stats(loop, &stats), 0);
  CHECK_EQ(stats.size, sizeof stats);
  return stats;
}

static evloop_t counting(evloop_t loop) {
  CHECK_EQ(evloop_set_stats(loop, 1), 0);
  return loop;
}

/* How many times a histogram has counted. */
static uint64_t total(evloop_t loop, int which) {
  static uint64_t counts[EVLOOP_STATS_BUCKETS];
  uint64_t sum = 0;
  int i;
  CHECK_EQ(evloop_stats_histogram(loop, which, counts, LENGTH(counts)), EVLOOP_STATS_BUCKETS);
  for (i = 0; AT_ROW(i, counts); i++) sum += counts[i];
  return sum;
}

/* A callback that takes so many nanoseconds. */
static void spin(const evloop_event_t *event, void *user_data) {
  int64_t end = now_ns(CLOCK_MONOTONIC) + (intptr_t)user_data;
  (void)event;
  while (now_ns(CLOCK_MONOTONIC) < end) continue;
}

TEST(nothing_is_counted_before_it_is_asked_for) {
  evloop_stats_t stats;
  evloop_t loop = new_loop();
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  CHECK_ERR(evloop_stats(loop, &stats), ENOENT);
  CHECK_ERR(evloop_stats_reset(loop), ENOENT);
  CHECK_ERR(evloop_stats_histogram(loop, EVLOOP_STATS_CALLBACK, NULL, 0), ENOENT);
  CHECK_ERR(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 50), ENOENT);
  counting(loop);
  CHECK_ERR(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 50), ENOENT);
  stats = stats_of(loop);
  CHECK_EQ(stats.iterations, 0);
  CHECK_EQ(stats.longest_ns, 0);
  close_loop(loop);
}

TEST(wrong_arguments_of_stats_are_refused) {
  evloop_stats_t stats;
  uint64_t count = 77;
  evloop_t loop = counting(new_loop());
  evloop_watcher_t watcher = keep_alive(loop);
  memset(&stats, 0, sizeof stats);
  CHECK_ERR(evloop_set_stats(loop, 2), EINVAL);
  CHECK_ERR(evloop_set_stats(loop, -1), EINVAL);
  CHECK_ERR(evloop_set_stats(watcher, 1), EDOM);
  CHECK_ERR(evloop_set_stats(0, 1), ESTALE);
  CHECK_ERR(evloop_stats(loop, NULL), EINVAL);
  CHECK_ERR(evloop_stats(loop, &stats), EINVAL);
  stats.size = sizeof stats;
  CHECK_ERR(evloop_stats(watcher, &stats), EDOM);
  CHECK_ERR(evloop_stats_reset(0), ESTALE);
  CHECK_ERR(evloop_stats_histogram(loop, 2, &count, 1), EINVAL);
  CHECK_ERR(evloop_stats_histogram(loop, 0, &count, -1), EINVAL);
  CHECK_ERR(evloop_stats_histogram(loop, 0, NULL, 1), EINVAL);
  CHECK_ERR(evloop_stats_percentile_ns(loop, 0, -0.1), EINVAL);
  CHECK_ERR(evloop_stats_percentile_ns(loop, 0, 100.1), EINVAL);
  CHECK_ERR(evloop_stats_percentile_ns(loop, 7, 50), EINVAL);
  CHECK_ERR(evloop_stats_bucket_ns(-1), EINVAL);
  CHECK_ERR(evloop_stats_bucket_ns(EVLOOP_STATS_BUCKETS + 1), EINVAL);
  CHECK_EQ(count, 77);
  close_loop(loop);
}

TEST(a_structure_of_another_size_is_filled_as_far_as_it_goes) {
  struct {
    evloop_stats_t stats;
    uint64_t later[4];
  } larger;
  union {
    size_t size;
    uint64_t words[4];
  } smaller;
  int i;
  evloop_t loop = counting(new_loop());
  turns(loop, 3);
  memset(&larger, 0xff, sizeof larger);
  larger.stats.size = sizeof larger - 8;
  CHECK_EQ(evloop_stats(loop, &larger.stats), 0);
  for (i = 0; i < 3; i++) CHECK_EQ(larger.later[i], 0);
  CHECK_EQ(larger.later[3], UINT64_MAX);
  memset(&smaller, 0xff, sizeof smaller);
  smaller.size = 24; /* size, elapsed_ns, iterations */
  CHECK_EQ(evloop_stats(loop, (evloop_stats_t *)(void *)&smaller), 0);
  CHECK_EQ(smaller.words[2], 3);
  CHECK_EQ(smaller.words[3], UINT64_MAX);
}

TEST(events_are_counted_by_their_type) {
  static Seen seen;
  evloop_event_t events[2];
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  int fd = event_fd(1), i;
  readable_io(loop, fd, record, &seen);
  for (i = 0; i < 3; i++) timer(loop, 0, 0, record, &seen);
  trigger(async(loop, record, &seen));
  OK(evloop_post(loop, record, &seen));
  OK(evloop_add_defer(loop, record, &seen));
  OK(evloop_add_prepare(loop, record, &seen));
  OK(evloop_add_check(loop, record, &seen));
  timer(loop, 0, 0, NULL, NULL);
  while (seen.count < 9) turn(loop);
  CHECK_EQ(evloop_wait(loop, events, 2, -1), 1);
  stats = stats_of(loop);
  CHECK_EQ(stats.events[EVLOOP_EVENT_TIMER], 4);
  CHECK_EQ(stats.events[EVLOOP_EVENT_ASYNC], 1);
  CHECK_EQ(stats.events[EVLOOP_EVENT_POST], 1);
  CHECK_EQ(stats.events[EVLOOP_EVENT_DEFER], 1);
  CHECK(stats.events[EVLOOP_EVENT_IO] >= 1);
  CHECK(stats.events[EVLOOP_EVENT_PREPARE] >= 1);
  CHECK_EQ(stats.events[EVLOOP_EVENT_PREPARE], stats.iterations);
  CHECK_EQ(total(loop, EVLOOP_STATS_LATENESS), 4);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), (uint64_t)seen.calls);
  close_loop(loop);
}

/* Passes a byte on, so many times. */
typedef struct Ring {
  evloop_t loop;
  Pipe pipes[3];
  int left;
} Ring;

static void pass(const evloop_event_t *event, void *user_data) {
  Ring *ring = (Ring *)user_data;
  char byte;
  int i;
  CHECK_EQ(read(event->fd, &byte, 1), 1);
  for (i = 0; i < 3; i++) {
    if (ring->pipes[i].r == event->fd && ring->left > 0) put(ring->pipes[(i + 1) % 3].w);
  }
  if (--ring->left == -1) OK(evloop_stop(ring->loop));
}

TEST(a_loop_that_is_busy_with_descriptors_counts_each_event) {
  static Ring ring;
  evloop_stats_t stats;
  int64_t began;
  int i;
  ring.loop = counting(new_loop());
  for (i = 0; i < 3; i++) {
    ring.pipes[i] = new_pipe();
    readable_io(ring.loop, ring.pipes[i].r, pass, &ring);
  }
  ring.left = 1000;
  put(ring.pipes[0].w);
  began = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(evloop_run(ring.loop, EVLOOP_RUN_UNTIL_DONE), 1);
  stats = stats_of(ring.loop);
  CHECK_EQ(stats.events[EVLOOP_EVENT_IO], 1001);
  CHECK_EQ(total(ring.loop, EVLOOP_STATS_CALLBACK), 1001);
  CHECK(stats.iterations >= 1001);
  CHECK(stats.callback_ns > 0);
  CHECK(stats.callback_ns + stats.asleep_ns <= now_ns(CLOCK_MONOTONIC) - began + MS);
  close_loop(ring.loop);
}

TEST(the_longest_callback_is_reported_with_the_name_of_its_watcher) {
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  int64_t began = now_ns(CLOCK_MONOTONIC);
  evloop_watcher_t slow;
  timer_at(loop, began, spin, as_data(0));
  slow = timer_at(loop, began + MS, spin, as_data(150 * MS));
  OK(evloop_watcher_set_name(slow, "the slow one"));
  timer_at(loop, began + 2 * MS, spin, as_data(MS));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(stats.longest_watcher, slow);
  CHECK_EQ(stats.longest_type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(strcmp(stats.longest_name, "the slow one"), 0);
  CHECK(stats.longest_ns >= 150 * MS - MS);
  CHECK(stats.longest_since_ns >= began);
  CHECK(stats.longest_since_ns <= now_ns(CLOCK_MONOTONIC));
  CHECK(stats.callback_ns >= stats.longest_ns);
  /* The third one had to wait for it. */
  CHECK(stats.latest_ns >= 148 * MS);
  CHECK(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 100) >= stats.longest_ns);
  CHECK(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 0) < 150 * MS);
  close_loop(loop);
}

static void close_and_spin(const evloop_event_t *event, void *user_data) {
  close_watcher(event->watcher);
  spin(event, user_data);
}

TEST(a_slow_io_callback_that_closes_its_watcher_is_named_all_the_same) {
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  int fd = event_fd(1);
  evloop_watcher_t slow = readable_io(loop, fd, close_and_spin, as_data(10 * MS));
  OK(evloop_watcher_set_name(slow, "gone"));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(stats.longest_watcher, slow);
  CHECK_EQ(stats.longest_type, EVLOOP_EVENT_IO);
  CHECK_EQ(strcmp(stats.longest_name, "gone"), 0);
  close_loop(loop);
}

static evloop_watcher_t another;

static void *change_another(void *argument) {
  (void)argument;
  CHECK_EQ(evloop_watcher_set_priority(another, 0), 0);
  return NULL;
}

static int64_t call_took;

/* Calls the loop when another thread has left something for it. */
static void close_spin_and_call(const evloop_event_t *event, void *user_data) {
  int64_t began = now_ns(CLOCK_MONOTONIC);
  close_and_spin(event, user_data);
  join(start_thread(change_another, NULL));
  CHECK_EQ(evloop_watcher_set_data(another, 1), 0);
  call_took = now_ns(CLOCK_MONOTONIC) - began;
}

/* Takes longer than that. */
static void spin_longer(const evloop_event_t *event, void *user_data) {
  (void)user_data;
  spin(event, as_data(2 * call_took + 10 * MS));
}

TEST(a_callback_that_closes_its_watcher_and_calls_the_loop_is_named_all_the_same) {
  evloop_t loop = counting(new_loop());
  evloop_watcher_t slow = timer(loop, 0, 0, close_spin_and_call, as_data(10 * MS));
  another = timer(loop, HOUR, 0, ignore, NULL);
  OK(evloop_watcher_set_name(slow, "one shot"));
  turn(loop);
  CHECK_EQ(strcmp(stats_of(loop).longest_name, "one shot"), 0);
  CHECK_EQ(evloop_stats_reset(loop), 0);
  /* Nor is its name forgotten before its destroy notification. */
  slow = timer(loop, 0, 0, close_spin_and_call, as_data(0));
  OK(evloop_watcher_set_name(slow, "notified"));
  CHECK_EQ(evloop_watcher_set_destroy(slow, spin_longer, NULL), 0);
  turn(loop);
  CHECK_EQ(stats_of(loop).longest_type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(strcmp(stats_of(loop).longest_name, "notified"), 0);
  close_loop(loop);
}

TEST(a_long_name_is_not_cut_inside_a_character) {
  char name[80];
  int i;
  evloop_t loop = counting(new_loop());
  for (i = 0; i < 4; i++) {
    evloop_stats_t stats;
    size_t kept = 60 + (size_t)i;
    memset(name, 'n', sizeof name);
    strcpy(name + kept, "\xf0\x9f\x90\x8c, a snail");
    CHECK_EQ(evloop_stats_reset(loop), 0);
    OK(evloop_watcher_set_name(timer(loop, 0, 0, spin, as_data(MS)), name));
    run_to_end(loop);
    stats = stats_of(loop);
    CHECK_EQ(strlen(stats.longest_name), kept);
    CHECK_EQ(strncmp(stats.longest_name, name, kept), 0);
  }
  close_loop(loop);
}

TEST(a_long_name_is_cut) {
  static char name[200];
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  memset(name, 'n', sizeof name - 1);
  OK(evloop_watcher_set_name(timer(loop, 0, 0, spin, as_data(MS)), name));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(strlen(stats.longest_name), sizeof stats.longest_name - 1);
  CHECK_EQ(strncmp(stats.longest_name, name, sizeof stats.longest_name - 1), 0);
}

TEST(times_asleep_and_in_callbacks_add_up) {
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  timer(loop, 50 * MS * slow_factor(), 0, spin, as_data(20 * MS));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK(stats.asleep_ns > 0);
  CHECK(stats.callback_ns >= 19 * MS);
  CHECK(stats.elapsed_ns >= stats.asleep_ns + stats.callback_ns);
  CHECK(stats.wakeups >= 1);
  CHECK(stats.wakeups <= stats.iterations);
}

TEST(stats_are_read_while_the_loop_sleeps_and_its_sleep_is_in_them) {
  Runner runner;
  evloop_stats_t before, after;
  evloop_t loop = counting(sleeping_loop(&runner));
  go_round(loop);
  wait_until_asleep(&runner.tid);
  before = stats_of(loop);
  do after = stats_of(loop);
  while (after.asleep_ns < before.asleep_ns + 5 * MS);
  CHECK_EQ(after.iterations, before.iterations);
  CHECK_EQ(after.wakeups, before.wakeups);
  CHECK(after.elapsed_ns >= after.asleep_ns);
  stop_runner(&runner);
  close_loop(loop);
}

TEST(stats_are_read_while_a_callback_is_stuck) {
  static Gate gate;
  Runner runner;
  evloop_t loop = counting(running_loop(&runner, false));
  go_round(loop);
  hold(loop, &gate);
  CHECK(stats_of(loop).events[EVLOOP_EVENT_POST] >= 1);
  CHECK_EQ(evloop_stats_reset(loop), 0);
  CHECK_EQ(stats_of(loop).events[EVLOOP_EVENT_POST], 0);
  open_gate(&gate);
  stop_runner(&runner);
  close_loop(loop);
}

TEST(a_reset_begins_with_zeros_and_turning_off_keeps_what_there_is) {
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  timer(loop, 0, 0, spin, as_data(5 * MS));
  run_to_end(loop);
  CHECK_EQ(evloop_stats_reset(loop), 0);
  int64_t reset = now_ns(CLOCK_MONOTONIC);
  stats = stats_of(loop);
  CHECK_EQ(stats.iterations + stats.wakeups + stats.events[EVLOOP_EVENT_TIMER], 0);
  CHECK_EQ(stats.callback_ns + stats.asleep_ns + stats.longest_ns + stats.latest_ns, 0);
  CHECK_EQ(stats.longest_watcher, 0);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), 0);
  timer(loop, 0, 0, spin, as_data(MS));
  run_to_end(loop);
  CHECK_EQ(evloop_set_stats(loop, 0), 0);
  timer(loop, 0, 0, spin, as_data(MS));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(stats.events[EVLOOP_EVENT_TIMER], 1);
  CHECK(stats.longest_ns > 0);
  CHECK(stats.longest_since_ns >= reset);
  counting(loop);
  CHECK_EQ(stats_of(loop).events[EVLOOP_EVENT_TIMER], 0);
  close_loop(loop);
}

/* user_data: the loop. */
static void stop_trace(const evloop_event_t *event, void *user_data) {
  spin(event, as_data(5 * MS));
  CHECK(evloop_trace_stop((evloop_t)(intptr_t)user_data) >= 0);
}

static void start_trace(const evloop_event_t *event, void *user_data) {
  spin(event, as_data(5 * MS));
  CHECK_EQ(evloop_trace_start((evloop_t)(intptr_t)user_data, "/dev/null", 0), 0);
}

static void start_counting(const evloop_event_t *event, void *user_data) {
  counting((evloop_t)(intptr_t)user_data);
  spin(event, as_data(5 * MS));
}

TEST(callbacks_that_begin_and_end_traces_are_counted) {
  evloop_watcher_t io;
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  OK(evloop_post(loop, start_trace, as_data(loop)));
  OK(evloop_post(loop, stop_trace, as_data(loop)));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(stats.events[EVLOOP_EVENT_POST], 2);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), 2);
  CHECK(stats.callback_ns >= 10 * MS - MS);
  CHECK(stats.longest_ns >= 5 * MS - MS);
  /* One that is only counted, too. */
  io = readable_io(loop, event_fd(1), start_trace, as_data(loop));
  turn(loop);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  stats = stats_of(loop);
  CHECK_EQ(stats.events[EVLOOP_EVENT_IO], 1);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), 3);
  CHECK(stats.callback_ns >= 15 * MS - MS);
  close_watcher(io);
  close_loop(loop);
}

TEST(a_callback_that_begins_to_count_is_not_counted_with_a_trace_either) {
  evloop_stats_t stats;
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_trace_start(loop, "/dev/null", 0), 0);
  OK(evloop_post(loop, start_counting, as_data(loop)));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(stats.events[EVLOOP_EVENT_POST], 0);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), 0);
  CHECK_EQ(stats.callback_ns, 0);
  OK(evloop_post(loop, ignore, NULL));
  run_to_end(loop);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), 1);
  close_loop(loop);
}

TEST(a_reset_in_a_sleep_cuts_it) {
  Runner runner;
  evloop_stats_t stats;
  int64_t began = now_ns(CLOCK_MONOTONIC);
  evloop_t loop = counting(sleeping_loop(&runner));
  go_round(loop);
  wait_until_asleep(&runner.tid);
  while (stats_of(loop).asleep_ns < 20 * MS) continue;
  began = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(evloop_stats_reset(loop), 0);
  stats = stats_of(loop);
  CHECK(stats.asleep_ns <= now_ns(CLOCK_MONOTONIC) - began + MS);
  /* It ends, and is counted from the reset on. */
  while (stats_of(loop).asleep_ns < 3 * MS) continue;
  go_round(loop);
  stats = stats_of(loop);
  CHECK(stats.asleep_ns >= 2 * MS);
  CHECK(stats.asleep_ns <= stats.elapsed_ns);
  CHECK(stats.asleep_ns < now_ns(CLOCK_MONOTONIC) - began + MS);
  stop_runner(&runner);
  close_loop(loop);
}

/* Resets what is counted while a callback is in the gate. */
static void reset_in_callback(evloop_t loop, Runner *runner, Gate *gate) {
  evloop_stats_t stats;
  UNTIL(LOAD(gate->entered));
  CHECK_EQ(evloop_stats_reset(loop), 0);
  open_gate(gate);
  go_round(loop);
  stop_runner(runner);
  stats = stats_of(loop);
  /* The posts of go_round. */
  CHECK_EQ(stats.events[EVLOOP_EVENT_IO] + stats.events[EVLOOP_EVENT_TIMER], 0);
  CHECK_EQ(stats.events[EVLOOP_EVENT_POST], 2);
  CHECK_EQ(total(loop, EVLOOP_STATS_CALLBACK), 2);
  CHECK_EQ(stats.longest_type, EVLOOP_EVENT_POST);
  CHECK(stats.longest_ns > 0);
  CHECK(stats.callback_ns <= stats.elapsed_ns);
  CHECK(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 100) <= stats.elapsed_ns);
  close_loop(loop);
}

TEST(a_callback_that_runs_during_a_reset_is_not_counted) {
  static Gate gate;
  Runner runner;
  evloop_t loop = counting(running_loop(&runner, false));
  timer(loop, 0, 0, stay, &gate);
  reset_in_callback(loop, &runner, &gate);
}

static void take_and_stay(const evloop_event_t *event, void *user_data) {
  uint64_t count;
  CHECK_EQ(read(event->fd, &count, sizeof count), sizeof count);
  stay(event, user_data);
}

TEST(callbacks_of_descriptors_before_a_reset_are_not_counted) {
  static Gate open, gate, before;
  Runner runner;
  int i, fds[4];
  evloop_t loop = counting(running_loop(&runner, false));
  STORE(open.open, 1);
  go_round(loop);
  /* The last one stays, when those before it are not worked up yet. */
  for (i = 0; i < 4; i++) fds[i] = event_fd(0);
  for (i = 0; i < 4; i++) readable_io(loop, fds[i], take_and_stay, i < 3 ? &open : &gate);
  /* All in one iteration. */
  hold(loop, &before);
  for (i = 0; i < 4; i++) CHECK_EQ(eventfd_write(fds[i], 1), 0);
  open_gate(&before);
  reset_in_callback(loop, &runner, &gate);
}

/* What its loop has counted when it is called. */
typedef struct Reader {
  evloop_t loop;
  uint64_t io;
  int calls, reset_at;
} Reader;

static void take_and_read(const evloop_event_t *event, void *user_data) {
  Reader *reader = (Reader *)user_data;
  uint64_t count;
  CHECK_EQ(read(event->fd, &count, sizeof count), sizeof count);
  reader->calls++;
  reader->io = stats_of(reader->loop).events[EVLOOP_EVENT_IO];
  CHECK_EQ(total(reader->loop, EVLOOP_STATS_CALLBACK), reader->io);
  if (reader->calls == reader->reset_at) CHECK_EQ(evloop_stats_reset(reader->loop), 0);
}

TEST(a_callback_reads_and_resets_all_that_came_before_it) {
  static Reader reader;
  int i;
  reader.loop = counting(new_loop());
  for (i = 0; i < 10; i++) readable_io(reader.loop, event_fd(1), take_and_read, &reader);
  turn(reader.loop);
  CHECK_EQ(reader.calls, 10);
  CHECK_EQ(reader.io, 9);
  CHECK_EQ(stats_of(reader.loop).events[EVLOOP_EVENT_IO], 10);
  close_loop(reader.loop);
  memset(&reader, 0, sizeof reader);
  reader.reset_at = 7;
  reader.loop = counting(new_loop());
  for (i = 0; i < 10; i++) readable_io(reader.loop, event_fd(1), take_and_read, &reader);
  turn(reader.loop);
  CHECK_EQ(reader.calls, 10);
  CHECK_EQ(reader.io, 2);
  CHECK_EQ(stats_of(reader.loop).events[EVLOOP_EVENT_IO], 3);
  CHECK_EQ(total(reader.loop, EVLOOP_STATS_CALLBACK), 3);
  close_loop(reader.loop);
}

TEST(events_of_closed_watchers_for_evloop_wait_are_counted) {
  evloop_event_t event;
  evloop_t loop = counting(new_loop());
  evloop_watcher_t watcher = timer(loop, HOUR, 0, NULL, NULL);
  CHECK_EQ(evloop_watcher_set_destroy(watcher, NULL, NULL), 0);
  close_watcher(watcher);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  CHECK_EQ(event.type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(stats_of(loop).events[EVLOOP_EVENT_CLOSED], 1);
  close_loop(loop);
}

/* Turns counting on and off in the middle of things. */
static void toggle(const evloop_event_t *event, void *user_data) {
  static int calls;
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  char byte;
  if (event->type == EVLOOP_EVENT_IO) CHECK_EQ(read(event->fd, &byte, 1), 1);
  CHECK_EQ(evloop_set_stats(loop, ++calls % 3 != 0), 0);
}

TEST(counting_is_turned_on_and_off_in_callbacks) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  int i;
  readable_io(loop, pipe.r, toggle, as_data(loop));
  timer(loop, MS, MS, toggle, as_data(loop));
  for (i = 0; i < 100; i++) {
    put(pipe.w);
    if (i % 4 == 0) OK(evloop_run_for_ns(loop, MS));
    turn(loop);
  }
  counting(loop);
  CHECK(stats_of(loop).iterations <= 100);
  close_loop(loop);
}

TEST(lateness_is_on_the_clock_of_the_timer_with_virtual_time) {
  evloop_t loop = counting(virtual_loop());
  timer(loop, HOUR, 0, ignore, NULL);
  advance(loop, HOUR + 250 * MS);
  turn(loop);
  CHECK_EQ(stats_of(loop).latest_ns, 250 * MS);
  CHECK_EQ(evloop_stats_percentile_ns(loop, EVLOOP_STATS_LATENESS, 50), 250 * MS);
  close_loop(loop);
}

TEST(buckets_have_two_digits) {
  int i;
  CHECK_EQ(evloop_stats_bucket_ns(0), 0);
  CHECK_EQ(evloop_stats_bucket_ns(99), 99);
  CHECK_EQ(evloop_stats_bucket_ns(100), 100);
  CHECK_EQ(evloop_stats_bucket_ns(101), 110);
  CHECK_EQ(evloop_stats_bucket_ns(190), 1000);
  CHECK_EQ(evloop_stats_bucket_ns(191), 1100);
  CHECK_EQ(evloop_stats_bucket_ns(EVLOOP_STATS_BUCKETS), INT64_MAX);
  for (i = 1; i <= EVLOOP_STATS_BUCKETS; i++) {
    CHECK(evloop_stats_bucket_ns(i) >= evloop_stats_bucket_ns(i - 1));
  }
}

static void *read_often(void *argument) {
  evloop_t loop = *(evloop_t *)argument;
  evloop_stats_t last = stats_of(loop);
  int i;
  for (i = 0; i < 300; i++) {
    evloop_stats_t stats = stats_of(loop);
    CHECK(stats.iterations >= last.iterations);
    CHECK(stats.asleep_ns >= last.asleep_ns);
    CHECK(stats.callback_ns >= last.callback_ns);
    CHECK(stats.asleep_ns <= stats.elapsed_ns + MS);
    last = stats;
  }
  return NULL;
}

TEST(several_threads_read_while_the_loop_runs) {
  Runner runner;
  pthread_t readers[2];
  int i;
  evloop_t loop = counting(running_loop(&runner, true));
  timer(loop, 0, MS, ignore, NULL);
  for (i = 0; i < 2; i++) readers[i] = start_thread(read_often, &loop);
  for (i = 0; i < 2; i++) join(readers[i]);
  stop_runner(&runner);
  close_loop(loop);
}

TEST(a_forked_child_goes_on_counting_after_evloop_after_fork) {
  evloop_t loop = counting(new_loop());
  int status;
  timer(loop, 0, 0, ignore, NULL);
  run_to_end(loop);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    evloop_stats_t stats;
    stats.size = sizeof stats;
    CHECK_ERR(evloop_stats(loop, &stats), ECHILD);
    CHECK_EQ(evloop_after_fork(loop), 0);
    timer(loop, 0, 0, ignore, NULL);
    run_to_end(loop);
    CHECK_EQ(stats_of(loop).events[EVLOOP_EVENT_TIMER], 2);
    close_loop(loop);
    exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  CHECK_EQ(stats_of(loop).events[EVLOOP_EVENT_TIMER], 1);
}

CHECK_MAIN()
