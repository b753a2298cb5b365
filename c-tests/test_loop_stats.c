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
  for (i = 0; i < LENGTH(counts); i++) sum += counts[i];
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
  readable_io(loop, fd, see, &seen);
  for (i = 0; i < 3; i++) timer(loop, 0, 0, see, &seen);
  trigger(async(loop, see, &seen));
  OK(evloop_post(loop, see, &seen));
  OK(evloop_add_defer(loop, see, &seen));
  OK(evloop_add_prepare(loop, see, &seen));
  OK(evloop_add_check(loop, see, &seen));
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

TEST(the_longest_callback_is_told_with_the_name_of_its_watcher) {
  evloop_stats_t stats;
  evloop_t loop = counting(new_loop());
  int64_t began = now_ns(CLOCK_MONOTONIC);
  evloop_watcher_t slow;
  timer(loop, 0, 0, spin, as_data(0));
  slow = timer(loop, MS, 0, spin, as_data(30 * MS));
  OK(evloop_watcher_set_name(slow, "the slow one"));
  timer(loop, 2 * MS, 0, spin, as_data(MS));
  run_to_end(loop);
  stats = stats_of(loop);
  CHECK_EQ(stats.longest_watcher, slow);
  CHECK_EQ(stats.longest_type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(strcmp(stats.longest_name, "the slow one"), 0);
  CHECK(stats.longest_ns >= 30 * MS - MS);
  CHECK(stats.longest_since_ns >= began && stats.longest_since_ns <= now_ns(CLOCK_MONOTONIC));
  CHECK(stats.callback_ns >= stats.longest_ns);
  /* The third one had to wait for it. */
  CHECK(stats.latest_ns >= 28 * MS);
  CHECK(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 100) >= stats.longest_ns);
  CHECK(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 0) < 30 * MS);
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
  CHECK(stats.asleep_ns >= 25 * MS * slow_factor());
  CHECK(stats.callback_ns >= 19 * MS);
  CHECK(stats.elapsed_ns >= stats.asleep_ns + stats.callback_ns);
  CHECK(stats.wakeups >= 1 && stats.wakeups <= stats.iterations);
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
  CHECK(stats.longest_ns > 0 && stats.longest_ns < 5 * MS * slow_factor());
  counting(loop);
  CHECK_EQ(stats_of(loop).events[EVLOOP_EVENT_TIMER], 0);
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
