/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timers that share wake-ups while they are dense, and those that do not:
 * never early, in order, and late by no more than they may be. How late is
 * compared with what the machine does: only what is true of most of them. */

#define _GNU_SOURCE
#include "loop_support.h"

#define US (MS / 1000)

enum { DENSE = 1000, TRIES = 20 };

#define EVERY (10 * MS)
#define APART (10 * US)

/* What was seen of all timers of a case. */
static struct {
  int64_t expired, events, last_deadline, last_time;
  int64_t late[400000];
} dense;

static void note(const evloop_event_t *event, void *user_data) {
  (void)user_data;
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK(event->deadline_ns >= dense.last_deadline);
  CHECK(event->time_ns >= dense.last_time);
  dense.last_deadline = event->deadline_ns;
  dense.last_time = event->time_ns;
  dense.expired += (int64_t)event->count;
  if (dense.events < LENGTH(dense.late))
    dense.late[dense.events++] = event->time_ns - event->deadline_ns;
}

static int ascending(const void *a, const void *b) {
  int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
  return (x > y) - (x < y);
}

/* So late were so many in a hundred, or less. */
static int64_t percentile(int percent) {
  CHECK(dense.events > 0);
  qsort(dense.late, (size_t)dense.events, sizeof dense.late[0], ascending);
  return dense.late[(dense.events - 1) * percent / 100];
}

static evloop_t counting_loop(uint32_t flags) {
  evloop_t loop = loop_with(flags);
  CHECK_EQ(evloop_set_stats(loop, 1), 0);
  return loop;
}

static evloop_stats_t stats_of(evloop_t loop) {
  evloop_stats_t stats;
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  CHECK_EQ(evloop_stats(loop, &stats), 0);
  return stats;
}

/* So many timers, one every 10 us; from when on they are due. */
static int64_t add_timers(evloop_t loop, int clock, uint32_t flags, int64_t tolerance, int count) {
  int64_t begin = now_ns(clock) + EVERY;
  for (int i = 0; i < count; i++)
    OK(evloop_add_timer(loop, clock, flags | EVLOOP_TIMER_ABSTIME, begin + i * APART,
                        count * APART, tolerance, note, NULL));
  return begin;
}

/* A thousand, of 10 ms each. */
static int64_t add_dense(evloop_t loop, int clock, uint32_t flags, int64_t tolerance) {
  return add_timers(loop, clock, flags, tolerance, DENSE);
}

/* For so long; what it has counted. */
static evloop_stats_t run_for(evloop_t loop, int64_t ns) {
  memset(&dense, 0, sizeof dense);
  CHECK_EQ(evloop_stats_reset(loop), 0);
  OK(evloop_run_for_ns(loop, ns));
  CHECK(dense.events > 0);
  return stats_of(loop);
}

/* Milliseconds that have passed, rounded up. */
static int64_t elapsed_ms(const evloop_stats_t *stats) {
  return stats->elapsed_ns / MS + 1;
}

/* ---- dense timers ---- */

static void expect_shared(int clock) {
  evloop_t loop = counting_loop(0);
  add_dense(loop, clock, 0, 0);
  /* The first wake-ups are not too many yet. */
  run_for(loop, 50 * MS);
  evloop_stats_t stats = run_for(loop, 300 * MS);
  /* One each 10 us was due; the machine may have stood still. */
  CHECK(dense.expired >= 300 * 100 / 2);
  CHECK(stats.wakeups <= (uint64_t)(2 * elapsed_ms(&stats) + 50));
  CHECK(stats.wakeups_saved >= 1);
  CHECK(stats.wakeups + stats.wakeups_saved <= (uint64_t)dense.expired + 50);
  close_loop(loop);
}

TEST(a_thousand_dense_timers_share_wake_ups) {
  expect_shared(CLOCK_MONOTONIC);
}

TEST(those_of_other_clocks_do_so_too) {
  expect_shared(CLOCK_BOOTTIME);
}

/* Timers of this interval are late by so much at most, and by what the machine
 * is late by itself. */
static void expect_late(int64_t interval, int64_t most) {
  evloop_t exact_loop = counting_loop(0), loop = counting_loop(0);
  int64_t usual, late;
  int tries = 0;
  add_timers(exact_loop, CLOCK_MONOTONIC, EVLOOP_TIMER_EXACT, 0, (int)(interval / APART));
  add_timers(loop, CLOCK_MONOTONIC, 0, 0, (int)(interval / APART));
  do {
    CHECK(tries++ < TRIES);
    run_for(exact_loop, 100 * MS);
    usual = percentile(80);
    run_for(loop, 100 * MS);
    late = percentile(80);
  } while (late > most + 2 * usual + 50 * US);
}

TEST(they_are_late_by_a_tenth_of_their_interval_at_most) {
  expect_late(2 * MS, MS / 5);
  expect_late(5 * MS, MS / 2);
}

TEST(they_are_late_by_a_millisecond_at_most) {
  expect_late(10 * MS, MS);
  expect_late(40 * MS, MS);
}

/* A quarter of a millisecond apart, of 1 ms each: more than 1000 a second, and
 * none is near enough to another for a tenth of its interval. */
TEST(timers_that_are_too_short_to_wait_for_each_other_are_not_late) {
  evloop_t loop = counting_loop(0);
  int64_t begin = now_ns(CLOCK_MONOTONIC) + EVERY;
  for (int i = 0; i < 4; i++)
    OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, begin + i * MS / 4, MS, 0, note,
                        NULL));
  evloop_stats_t stats = run_for(loop, 200 * MS);
  CHECK_EQ(stats.wakeups_saved, 0);
  CHECK(stats.wakeups <= (uint64_t)(4 * elapsed_ms(&stats) + 50));
}

TEST(a_timer_of_two_kilohertz_ticks_as_often) {
  evloop_t loop = counting_loop(0);
  int64_t begin = now_ns(CLOCK_MONOTONIC) + MS;
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, begin, MS / 2, 0, note, NULL));
  evloop_stats_t stats = run_for(loop, 500 * MS);
  CHECK_EQ(stats.wakeups_saved, 0);
  /* Those that the machine has missed are counted. */
  CHECK_EQ(dense.expired, (dense.last_time - begin) / (MS / 2) + 1);
}

/* ---- sparse timers ---- */

/* One each 5 ms, of which each may be 1 ms late were they dense. */
TEST(sparse_timers_are_woken_for_one_by_one) {
  evloop_t loop = counting_loop(0);
  int64_t begin = now_ns(CLOCK_MONOTONIC) + EVERY;
  for (int i = 0; i < 20; i++)
    OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, begin + i * 5 * MS, 100 * MS, 0, note,
                        NULL));
  evloop_stats_t stats = run_for(loop, 300 * MS);
  CHECK_EQ(stats.wakeups_saved, 0);
}

/* A few at once are not many. */
TEST(a_few_timers_near_each_other_are_exact) {
  evloop_t loop = counting_loop(0);
  int64_t begin = now_ns(CLOCK_MONOTONIC) + EVERY;
  for (int i = 0; i < 8; i++)
    OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, begin + i * MS / 4, 100 * MS, 0, note,
                        NULL));
  evloop_stats_t stats = run_for(loop, 300 * MS);
  CHECK_EQ(stats.wakeups_saved, 0);
}

TEST(timers_are_exact_again_once_they_are_sparse) {
  evloop_t loop = counting_loop(0);
  evloop_watcher_t watchers[DENSE];
  add_dense(loop, CLOCK_MONOTONIC, 0, 0);
  CHECK(run_for(loop, 100 * MS).wakeups_saved > 0);
  CHECK_EQ(evloop_watchers(loop, watchers, DENSE), DENSE);
  for (int i = 1; i < DENSE; i++) close_watcher(watchers[i]);
  /* What is set now expires late in the next run. */
  run_for(loop, 50 * MS);
  CHECK_EQ(run_for(loop, 200 * MS).wakeups_saved, 0);
}

/* ---- timers that do not share wake-ups ---- */

static void expect_exact(uint32_t loop_flags, uint32_t flags, int64_t tolerance) {
  evloop_t loop = counting_loop(loop_flags);
  add_dense(loop, CLOCK_MONOTONIC, flags, tolerance);
  run_for(loop, 50 * MS);
  CHECK_EQ(run_for(loop, 100 * MS).wakeups_saved, 0);
  close_loop(loop);
}

TEST(exact_timers_share_none) {
  expect_exact(0, EVLOOP_TIMER_EXACT, 0);
  expect_exact(0, 0, 1);
}

TEST(those_of_a_precise_loop_share_none) {
  expect_exact(EVLOOP_PRECISE, 0, 0);
}

enum { EXACT = 60 };

static struct {
  int events;
  int64_t late[EXACT];
} exact;

static void note_exact(const evloop_event_t *event, void *user_data) {
  note(event, user_data);
  if (exact.events < EXACT) exact.late[exact.events++] = event->time_ns - event->deadline_ns;
}

/* How much less late an exact timer is, in the mean, than the dense ones. */
static int64_t gain_of_an_exact_timer(evloop_t loop) {
  memset(&exact, 0, sizeof exact);
  memset(&dense, 0, sizeof dense);
  while (exact.events < EXACT) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  qsort(exact.late, EXACT, sizeof exact.late[0], ascending);
  return percentile(50) - exact.late[EXACT / 2];
}

/* The others, which are late by half a millisecond in the mean, do not keep the
 * loop from waking up for it. */
TEST(an_exact_timer_among_dense_ones_is_woken_for) {
  evloop_t loop = counting_loop(0);
  int64_t begin = add_dense(loop, CLOCK_MONOTONIC, 0, 0);
  int tries = 0;
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_EXACT | EVLOOP_TIMER_ABSTIME,
                      begin + APART / 2, 7 * MS, 0, note_exact, NULL));
  while (gain_of_an_exact_timer(loop) < 250 * US) CHECK(++tries < TRIES);
}

TEST(exact_timers_are_exact_in_a_tolerant_loop) {
  evloop_options_t options;
  evloop_watcher_info_t info;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.timer_tolerance_ns = HOUR;
  evloop_t loop = OK(evloop_create(&options));
  memset(&info, 0, sizeof info);
  info.size = sizeof info;
  evloop_watcher_t watcher = OK(
      evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_EXACT, MS, 0, 0, record_and_close,
                       &(Seen){0}));
  CHECK_EQ(evloop_watcher_info(watcher, &info), 0);
  CHECK_EQ(info.tolerance_ns, 1);
  run_to_end(loop);
}

TEST(virtual_time_stops_at_each_deadline) {
  evloop_t loop = loop_with(EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE);
  for (int i = 0; i < DENSE; i++)
    OK(evloop_add_timer(loop, MONOTONIC, 0, EVERY + i * APART, EVERY, 0, note, NULL));
  OK(evloop_run_for_ns(loop, SECOND));
  CHECK_EQ(dense.expired, 100 * DENSE - DENSE + 1);
  CHECK_EQ(percentile(100), 0);
}

TEST(what_excludes_each_other_is_refused) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, HOUR, 0, ignore, NULL);
  CHECK_ERR(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_EXACT, MS, 0, MS, note, NULL), EINVAL);
  CHECK_ERR(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_EXACT << 1, MS, 0, 0, note, NULL),
            EINVAL);
  CHECK_ERR(evloop_timer_set(watcher, EVLOOP_TIMER_EXACT, MS, 0), EINVAL);
  OK(evloop_add_timer(loop, MONOTONIC,
                      EVLOOP_TIMER_EXACT | EVLOOP_TIMER_BURST | EVLOOP_TIMER_ABSTIME, MS, MS, 0,
                      note, NULL));
}

/* ---- loops in other loops ---- */

/* Woken by the timeout that the loop gives, each call finds what is due. */
TEST(a_foreign_loop_that_waits_by_the_timeout_does_not_spin) {
  evloop_t loop = counting_loop(0);
  add_dense(loop, CLOCK_MONOTONIC, 0, 0);
  run_for(loop, 100 * MS);
  int64_t end = now_ns(CLOCK_MONOTONIC) + 200 * MS, vain = 0, turns_made = 0;
  while (now_ns(CLOCK_MONOTONIC) < end) {
    int64_t left = OK(evloop_next_timeout_ns(loop)), expired = dense.expired;
    struct timespec wait = {0, (long)left};
    CHECK(left < SECOND);
    nanosleep(&wait, NULL);
    turn(loop);
    turns_made++;
    vain += dense.expired == expired;
  }
  CHECK(turns_made > 10);
  /* What was set in the turn before may be due a little later. */
  CHECK(vain <= turns_made / 2);
}

TEST(a_foreign_loop_that_polls_the_descriptor_wakes_up_as_seldom) {
  evloop_t loop = counting_loop(0);
  int fd = (int)OK(evloop_fileno(loop)), waits = 0;
  add_dense(loop, CLOCK_MONOTONIC, 0, 0);
  run_for(loop, 100 * MS);
  int64_t begin = now_ns(CLOCK_MONOTONIC), now = begin;
  dense.expired = 0;
  for (; now < begin + 300 * MS; now = now_ns(CLOCK_MONOTONIC)) {
    if (OK(evloop_embed_prepare(loop)) == 0) {
      CHECK(readable(fd, -1));
      waits++;
    }
    OK(evloop_embed_dispatch(loop));
  }
  CHECK(dense.expired >= 300 * 100 / 2);
  CHECK(waits <= 2 * (now - begin) / MS + 50);
}

/* ---- kqueues ---- */

/* How many of a hundred, 0.2 ms apart, come in time. */
static int timers_of_a_kqueue(evloop_kqueue_t kq) {
  enum { TIMERS = 100 };
  evloop_kevent_t event, change;
  int soon = 0, expired = 0;
  memset(&change, 0, sizeof change);
  change.filter = EVLOOP_KQ_FILTER_TIMER;
  change.flags = EVLOOP_KQ_EV_ADD | EVLOOP_KQ_EV_ONESHOT;
  change.fflags = EVLOOP_KQ_NOTE_NSECONDS;
  int64_t begin = now_ns(CLOCK_MONOTONIC);
  for (int i = 0; i < TIMERS; i++) {
    change.ident = (uint64_t)i;
    change.data = EVERY + i * 200 * US;
    CHECK_EQ(evloop_kqueue_control(kq, &change, 1, NULL, 0, 0), 0);
  }
  int64_t set = now_ns(CLOCK_MONOTONIC) - begin;
  for (; expired < TIMERS; expired++) {
    CHECK_EQ(evloop_kqueue_control(kq, NULL, 0, &event, 1, -1), 1);
    CHECK_EQ(event.ident, expired);
    int64_t late = now_ns(CLOCK_MONOTONIC) - begin - EVERY - expired * 200 * US;
    CHECK(late >= 0);
    soon += late < set + 150 * US;
  }
  return soon;
}

/* It is about a tenth of a millisecond, which slow tools do not keep. */
TEST_WITHOUT(timers_of_a_kqueue_share_none, 20, "EVLOOP_TEST_SLOW") {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(0));
  int tries = 0;
  while (timers_of_a_kqueue(kq) < 50) CHECK(++tries < TRIES);
}

CHECK_MAIN()
