/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timers of event loops on real time: when they expire, in which order, what
 * they report. */

#define _GNU_SOURCE 1
#include "loop_support.h"

#include <sys/timerfd.h>

/* ---- helpers ---- */

static void busy(int64_t ns) {
  int64_t end = now_ns(CLOCK_MONOTONIC) + ns;
  while (now_ns(CLOCK_MONOTONIC) < end) { }
}

static void expect_timer_event(const evloop_event_t *event, evloop_watcher_t watcher,
                               const void *data) {
  CHECK_EQ(event->watcher, watcher);
  CHECK_EQ(event->type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(event->data, (uintptr_t)data);
  CHECK_EQ(event->events, 0);
  CHECK_EQ(event->fd, -1);
  CHECK_EQ(event->result, 0);
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK_EQ(event->reserved, 0);
}

/* ---- when ---- */

TEST(a_relative_timer_expires_once) {
  static Seen seen;
  evloop_t loop = new_loop();
  int64_t before = now_ns(CLOCK_MONOTONIC), after;
  evloop_watcher_t watcher = timer(loop, 2 * MS, 0, record, &seen);
  after = now_ns(CLOCK_MONOTONIC);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
  expect_timer_event(&seen.last, watcher, &seen);
  CHECK_EQ(seen.last.count, 1);
  CHECK(seen.last.deadline_ns >= before + 2 * MS);
  CHECK(seen.last.deadline_ns <= after + 2 * MS);
  CHECK(seen.last.time_ns <= now_ns(CLOCK_MONOTONIC));
  CHECK_EQ(evloop_run_for_ns(loop, 5 * MS), 0);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_handle_kind(watcher), EVLOOP_KIND_WATCHER);
  close_loop(loop);
}

TEST(an_absolute_timer_is_due_at_exactly_that_time) {
  static Seen seen;
  evloop_t loop = new_loop();
  int64_t due = now_ns(CLOCK_MONOTONIC) + 3 * MS;
  evloop_watcher_t watcher = timer_at(loop, due, record, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
  expect_timer_event(&seen.last, watcher, &seen);
  CHECK_EQ(seen.last.deadline_ns, due);
  CHECK(now_ns(CLOCK_MONOTONIC) >= due);
}

TEST(a_time_in_the_past_expires_in_the_next_iteration) {
  static const int64_t times[] = {0, 1, 1000 * MS};
  static Seen seen;
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, times); i++) {
    timer_at(loop, times[i], record, &seen);
    turn(loop);
    CHECK_EQ(seen.calls, i + 1);
    CHECK_EQ(seen.last.deadline_ns, times[i]);
    CHECK_EQ(seen.last.count, 1);
  }
}

TEST(zero_expires_in_the_next_iteration) {
  static Seen seen;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, record, &seen);
  CHECK_EQ(seen.calls, 0);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
}

static void add_zero_timer(const evloop_event_t *event, void *user_data) {
  log_first_char(event, user_data);
  timer(evloop_watcher_loop(event->watcher), 0, 0, log_first_char, WORD("u"));
}

TEST(zero_in_a_callback_is_the_next_iteration) {
  evloop_t loop = new_loop();
  timer(loop, 0, 0, add_zero_timer, WORD("t"));
  OK(evloop_add_check(loop, log_first_char, WORD("c")));
  turn(loop);
  EXPECT_LOG("tc");
  turn(loop);
  EXPECT_LOG("uc");
}

static void set_to_zero(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  set_timer(event->watcher, 0, 0);
}

TEST(zero_timers_and_descriptors_do_not_starve_each_other) {
  static Seen at_once, io;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, set_to_zero, &at_once);
  readable_io(loop, event_fd(1), record, &io);
  turns(loop, 100);
  CHECK_EQ(at_once.calls, 100);
  CHECK_EQ(io.calls, 100);
}

/* ---- never early ---- */

typedef struct Armed {
  int64_t due;
  int64_t delay;
  int calls;
} Armed;

static void expect_due(const evloop_event_t *event, void *user_data) {
  Armed *armed = (Armed *)user_data;
  CHECK(now_ns(CLOCK_MONOTONIC) >= armed->due);
  CHECK(event->deadline_ns >= armed->due);
  CHECK(event->time_ns >= event->deadline_ns);
  armed->calls++;
}

TEST(two_thousand_timers_are_never_early) {
  static Armed armed[2000];
  uint64_t seed = 1;
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, armed); i++) {
    armed[i].delay = random_below(&seed, 100 * MS);
    armed[i].due = now_ns(CLOCK_MONOTONIC) + armed[i].delay;
    timer(loop, armed[i].delay, 0, expect_due, &armed[i]);
  }
  run_to_end(loop);
  for (i = 0; AT_ROW(i, armed); i++) CHECK_EQ(armed[i].calls, 1);
}

static void set_again(const evloop_event_t *event, void *user_data) {
  static uint64_t seed = 2;
  Armed *armed = (Armed *)user_data;
  expect_due(event, user_data);
  if (armed->calls == 20) return;
  armed->delay = random_below(&seed, 2 * MS);
  armed->due = now_ns(CLOCK_MONOTONIC) + armed->delay;
  set_timer(event->watcher, armed->delay, 0);
}

TEST(timers_that_set_themselves_again_are_never_early) {
  static Armed armed[100];
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, armed); i++) timer(loop, 0, 0, set_again, &armed[i]);
  run_to_end(loop);
  for (i = 0; AT_ROW(i, armed); i++) CHECK_EQ(armed[i].calls, 20);
}

TEST(a_timer_that_was_started_again_is_never_early) {
  static Armed armed;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher;
  int i;
  armed.delay = 3 * MS;
  watcher = timer(loop, armed.delay, 0, expect_due, &armed);
  for (i = 0; i < 10; i++) {
    armed.due = now_ns(CLOCK_MONOTONIC) + armed.delay;
    CHECK_EQ(evloop_timer_again(watcher), 0);
    OK(evloop_run_for_ns(loop, MS));
    /* A slow machine may be late, and it had expired. */
    if (armed.calls > 0) return;
  }
  run_to_end(loop);
  CHECK_EQ(armed.calls, 1);
}

/* ---- order ---- */

typedef struct Ordered {
  int64_t due;
  int place; /* in the order of setting */
} Ordered;

static struct {
  Ordered last;
  int dispatched;
} order;

static void expect_next(const evloop_event_t *event, void *user_data) {
  const Ordered *one = (const Ordered *)user_data;
  CHECK_EQ(event->deadline_ns, one->due);
  CHECK(one->due > order.last.due || (one->due == order.last.due && one->place > order.last.place));
  order.last = *one;
  order.dispatched++;
}

/* Two hundred deadlines for ten thousand timers: there are many ties. */
static void add_shuffled(evloop_t loop, Ordered *timers, int n, int64_t first, int64_t step) {
  uint64_t seed = 3;
  int i;
  for (i = 0; i < n; i++) {
    timers[i].due = first + random_below(&seed, 200) * step;
    timers[i].place = i;
    timer_at(loop, timers[i].due, expect_next, &timers[i]);
  }
}

TEST(timers_expire_in_the_order_of_their_deadlines) {
  static Ordered timers[10000];
  evloop_t loop = new_loop();
  order.last.place = -1;
  add_shuffled(loop, timers, LENGTH(timers), now_ns(CLOCK_MONOTONIC) + 10 * MS, MS / 5);
  run_to_end(loop);
  CHECK_EQ(order.dispatched, LENGTH(timers));
}

TEST(timers_of_one_batch_expire_in_the_order_of_their_deadlines) {
  static Ordered timers[10000];
  evloop_t loop = new_loop();
  order.last.place = -1;
  add_shuffled(loop, timers, LENGTH(timers), 1, 1);
  run_to_end(loop);
  CHECK_EQ(order.dispatched, LENGTH(timers));
}

TEST(virtual_timers_expire_in_the_order_of_their_deadlines) {
  static Ordered timers[10000];
  evloop_t loop = virtual_loop();
  order.last.place = -1;
  add_shuffled(loop, timers, LENGTH(timers), SECOND, SECOND);
  advance(loop, 100 * SECOND + 1);
  while (order.dispatched < LENGTH(timers) / 3) turn(loop);
  turns(loop, 5);
  CHECK(order.last.due == 100 * SECOND);
  advance(loop, HOUR);
  run_to_end(loop);
  CHECK_EQ(order.dispatched, LENGTH(timers));
}

/* ---- periodic ---- */

typedef struct Periodic {
  int64_t interval, expected; /* the next deadline */
  uint64_t total;
  int calls;
} Periodic;

static void expect_no_drift(const evloop_event_t *event, Periodic *p) {
  uint64_t late;
  if (p->calls++ == 0) p->expected = event->deadline_ns;
  CHECK_EQ(event->deadline_ns, p->expected);
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK(now_ns(CLOCK_MONOTONIC) >= event->time_ns);
  late = (uint64_t)((event->time_ns - event->deadline_ns) / p->interval);
  CHECK(event->count <= late + 1);
  CHECK(event->count >= 1);
  p->expected += (int64_t)event->count * p->interval;
  p->total += event->count;
}

static void skipping(const evloop_event_t *event, void *user_data) {
  Periodic *p = (Periodic *)user_data;
  expect_no_drift(event, p);
  CHECK_EQ(event->count, (event->time_ns - event->deadline_ns) / p->interval + 1);
  if (p->calls % 5 == 0) busy(7 * p->interval / 2);
  if (p->total >= 60) close_watcher(event->watcher);
}

TEST(a_periodic_timer_counts_what_it_missed_and_does_not_drift) {
  static const uint32_t flags[] = {0, EVLOOP_TIMER_SKIP};
  static Periodic periodic[2];
  int i;
  for (i = 0; i < 2; i++) {
    evloop_t loop = new_loop();
    int64_t before = now_ns(CLOCK_MONOTONIC);
    periodic[i].interval = MS;
    OK(evloop_add_timer(loop, MONOTONIC, flags[i], 2 * MS, MS, 0, skipping, &periodic[i]));
    run_to_end(loop);
    CHECK(periodic[i].total >= 60);
    /* The busy callbacks made it miss some. */
    CHECK(periodic[i].total > (uint64_t)periodic[i].calls);
    CHECK(periodic[i].expected - (int64_t)periodic[i].total * MS >= before + 2 * MS);
  }
}

static void bursting(const evloop_event_t *event, void *user_data) {
  Periodic *p = (Periodic *)user_data;
  expect_no_drift(event, p);
  CHECK_EQ(event->count, 1);
  if (p->calls % 10 == 0) busy(7 * p->interval / 2);
  if (p->calls == 60) close_watcher(event->watcher);
}

TEST(a_bursting_timer_delivers_each_expiration) {
  static Periodic periodic;
  evloop_t loop = new_loop();
  int64_t first = now_ns(CLOCK_MONOTONIC) + MS;
  periodic.interval = MS;
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_BURST | EVLOOP_TIMER_ABSTIME, first, MS, 0,
                      bursting, &periodic));
  run_to_end(loop);
  CHECK_EQ(periodic.calls, 60);
  CHECK_EQ(periodic.expected, first + 60 * MS);
}

static void delaying(const evloop_event_t *event, void *user_data) {
  Periodic *p = (Periodic *)user_data;
  CHECK_EQ(event->count, 1);
  CHECK(event->deadline_ns >= p->expected);
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK(now_ns(CLOCK_MONOTONIC) >= p->expected);
  if (++p->calls == 10) close_watcher(event->watcher);
  busy(2 * p->interval);
  p->expected = now_ns(CLOCK_MONOTONIC) + p->interval;
}

TEST(a_delaying_timer_counts_from_the_end_of_its_callback) {
  static Periodic periodic;
  evloop_t loop = new_loop();
  periodic.interval = MS;
  periodic.expected = now_ns(CLOCK_MONOTONIC);
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_DELAY, 0, MS, 0, delaying, &periodic));
  run_to_end(loop);
  CHECK_EQ(periodic.calls, 10);
}

/* ---- tolerance ---- */

typedef struct Iterations {
  int64_t last; /* loop time of the last iteration that dispatched a timer */
  int count;    /* of such iterations */
  int calls;
  int64_t tolerance;
} Iterations;

static void note_iteration(const evloop_event_t *event, void *user_data) {
  Iterations *it = (Iterations *)user_data;
  int64_t now = evloop_now_ns(evloop_watcher_loop(event->watcher));
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK(now_ns(CLOCK_MONOTONIC) >= event->deadline_ns);
  if (now != it->last) it->count++;
  it->last = now;
  it->calls++;
}

TEST(tolerance_has_several_timers_expire_together) {
  static Iterations it;
  static Seen checks;
  evloop_t loop = new_loop();
  int64_t base = now_ns(CLOCK_MONOTONIC);
  int i;
  for (i = 0; i < 10; i++) {
    OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, base + (10 + i) * MS, 0, 50 * MS,
                        note_iteration, &it));
  }
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_check(loop, record, &checks))), 0);
  run_to_end(loop);
  CHECK_EQ(it.calls, 10);
  CHECK_EQ(it.count, 1);
  /* Nor did the loop wake up for nothing. */
  CHECK(checks.calls <= 2);
}

/* ---- many, and far away ---- */

TEST_TIMEOUT(two_hundred_thousand_timers, 60) {
  enum { N = 200000 };
  static evloop_watcher_t watchers[N];
  static Seen seen;
  evloop_t loop = new_loop();
  uint64_t seed = 4;
  int i, round;
  for (i = 0; i < N; i++) {
    watchers[i] = timer(loop, HOUR + random_below(&seed, HOUR), 0, record, &seen);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), N);
  for (round = 0; round < 3; round++) {
    for (i = 0; i < N; i++) CHECK_EQ(evloop_timer_again(watchers[i]), 0);
    CHECK_EQ(turn(loop), 1);
  }
  for (i = 0; i < N; i += 2) close_watcher(watchers[i]);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(seen.calls, 0);
  for (i = 1; i < N; i += 2) {
    if (i % 4 == 1) set_timer(watchers[i], 0, 0);
    if (i % 4 == 3) close_watcher(watchers[i]);
  }
  run_to_end(loop);
  CHECK_EQ(seen.calls, N / 4);
  close_loop(loop);
}

TEST(the_end_of_time_never_comes) {
  static const uint32_t flags[] = {0, EVLOOP_TIMER_ABSTIME, EVLOOP_TIMER_BURST, EVLOOP_TIMER_DELAY};
  static Seen seen;
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    int64_t tolerance = i % 2 ? INT64_MAX : 0;
    evloop_watcher_t watcher = OK(evloop_add_timer(loop, MONOTONIC, flags[i], INT64_MAX, INT64_MAX,
                                                   tolerance, record, &seen));
    CHECK(OK(evloop_timer_remaining_ns(watcher)) > INT64_MAX / 2);
    CHECK_EQ(evloop_timer_again(watcher), 0);
    CHECK(OK(evloop_timer_remaining_ns(watcher)) > INT64_MAX / 2);
    CHECK_EQ(evloop_timer_set(watcher, flags[i], INT64_MAX - 1, INT64_MAX), 0);
    CHECK(OK(evloop_timer_remaining_ns(watcher)) > INT64_MAX / 2);
  }
  CHECK_EQ(evloop_run_for_ns(loop, 3 * MS), 1);
  CHECK_EQ(seen.calls, 0);
}

TEST(the_longest_interval_passes_once) {
  static const uint32_t flags[] = {0, EVLOOP_TIMER_BURST, EVLOOP_TIMER_DELAY};
  static Seen seen;
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, flags); i++) {
    evloop_watcher_t watcher = OK(evloop_add_timer(loop, MONOTONIC, flags[i], 0, INT64_MAX, 0,
                                                   record,
                                                   &seen));
    turns(loop, 5);
    CHECK_EQ(seen.calls, i + 1);
    CHECK_EQ(seen.last.count, 1);
    CHECK(OK(evloop_timer_remaining_ns(watcher)) > INT64_MAX / 2);
  }
}

TEST(a_periodic_timer_of_long_ago_counts_its_billions) {
  static Seen seen;
  evloop_t loop = new_loop();
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, 0, 1, 0, record, &seen));
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.last.deadline_ns, 0);
  CHECK_EQ(seen.last.count, seen.last.time_ns + 1);
}

CHECK_MAIN()
