/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timers whose deadline has passed are due, whether the kernel's timer has
 * expired or not: here it never does, since setting it does nothing. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "loop_support.h"

#include <sys/timerfd.h>

#define ABSTIME EVLOOP_TIMER_ABSTIME

/* The kernel's timers are made, and never expire. */
static void without_kernel_timers(void) {
  answer_call(SYS_timerfd_settime, 0);
}

/* ---- the ways to set a timer to what has passed ---- */

typedef struct Past {
  uint32_t flags;
  int64_t initial_ns, interval_ns;
} Past;

static const Past pasts[] = {
    {0, 0, 0}, {0, 0, HOUR}, {ABSTIME, 0, 0}, {ABSTIME, 1, 0}, {ABSTIME, 1, HOUR},
};

static const int clocks[] = {
    EVLOOP_CLOCK_REALTIME,       EVLOOP_CLOCK_MONOTONIC,      EVLOOP_CLOCK_BOOTTIME,
    EVLOOP_CLOCK_REALTIME_ALARM, EVLOOP_CLOCK_BOOTTIME_ALARM,
};

static bool has_clock(int clock) {
  int fd = timerfd_create(clock, TFD_CLOEXEC);
  if (fd >= 0) OK(close(fd));
  return fd >= 0;
}

/* ---- the ways to run one iteration ---- */

static int64_t run_for_nothing(evloop_t loop) {
  return evloop_run_for_ns(loop, 0);
}

static int64_t wait_for_nothing(evloop_t loop) {
  evloop_event_t event;
  return evloop_wait(loop, &event, 1, 0);
}

static int64_t embedded(evloop_t loop) {
  OK(evloop_fileno(loop));
  CHECK_EQ(evloop_embed_prepare(loop), 1);
  return evloop_embed_dispatch(loop);
}

/* A foreign loop that only looks at the descriptor. */
static int64_t embedded_by_descriptor(evloop_t loop) {
  int fd = (int)OK(evloop_fileno(loop));
  OK(evloop_embed_prepare(loop));
  CHECK(readable(fd, -1));
  return evloop_embed_dispatch(loop);
}

static RunFunction *const iterations[] = {
    run_nowait, run_for_nothing, wait_for_nothing, run_once, embedded, embedded_by_descriptor,
};

static evloop_t loop;
static Seen seen;

/* Each way to iterate calls what `set` has set, in one iteration. */
static void expect_due(void (*set)(void)) {
  for (int i = 0; AT_ROW(i, iterations); i++) {
    set();
    seen.calls = 0;
    CHECK_EQ(evloop_next_timeout_ns(loop), 0);
    OK(iterations[i](loop));
    CHECK_EQ(seen.calls, 1);
  }
}

/* ---- set from outside ---- */

static evloop_watcher_t watcher;
static const Past *past;

static void set_it(void) {
  CHECK_EQ(evloop_timer_set(watcher, past->flags, past->initial_ns, past->interval_ns), 0);
}

static void add_it(void) {
  static int clock;
  do clock = (clock + 1) % LENGTH(clocks);
  while (!has_clock(clocks[clock]));
  OK(evloop_add_timer(loop, clocks[clock], past->flags, past->initial_ns, past->interval_ns, 0,
                      record_and_close, &seen));
}

TEST(a_timer_that_is_set_to_what_has_passed_is_called_in_the_next_iteration) {
  without_kernel_timers();
  for (int c = 0; AT_ROW(c, clocks); c++) {
    if (!has_clock(clocks[c])) continue;
    loop = new_loop();
    watcher = OK(evloop_add_timer(loop, clocks[c], 0, HOUR, 0, 0, record, &seen));
    for (past = pasts; past < pasts + LENGTH(pasts); past++) expect_due(set_it);
    close_loop(loop);
  }
}

TEST(a_timer_that_is_added_in_the_past_is_called_in_the_next_iteration) {
  without_kernel_timers();
  loop = new_loop();
  keep_alive(loop);
  for (past = pasts; past < pasts + LENGTH(pasts); past++) expect_due(add_it);
  close_loop(loop);
}

/* Before another one whose deadline has passed as well. */
static void set_it_behind_another(void) {
  static evloop_watcher_t other;
  if (other == 0) other = timer(loop, HOUR, 0, ignore, NULL);
  int64_t due = now_ns(CLOCK_MONOTONIC) + MS / 4;
  CHECK_EQ(evloop_timer_set(other, ABSTIME, due, 0), 0);
  turn(loop);
  while (now_ns(CLOCK_MONOTONIC) < due) continue;
  CHECK_EQ(evloop_timer_set(watcher, ABSTIME, now_ns(CLOCK_MONOTONIC), 0), 0);
}

TEST(a_deadline_that_passed_before_one_that_the_kernel_has_not_reported_is_due) {
  without_kernel_timers();
  loop = new_loop();
  watcher = timer(loop, HOUR, 0, record, &seen);
  expect_due(set_it_behind_another);
  close_loop(loop);
}

/* ---- set in a callback, and by another thread ---- */

static void set_on_post(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  set_it();
}

static void set_in_callback(void) {
  CHECK_EQ(evloop_post(loop, set_on_post, NULL), 0);
  turn(loop);
}

/* The deadline is not over when it is set, and is before the next run. */
static int64_t soon;

static void set_soon_on_post(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  soon = now_ns(CLOCK_MONOTONIC) + MS;
  CHECK_EQ(evloop_timer_set(watcher, ABSTIME, soon, 0), 0);
}

static void set_soon_in_callback(void) {
  CHECK_EQ(evloop_post(loop, set_soon_on_post, NULL), 0);
  turn(loop);
  while (now_ns(CLOCK_MONOTONIC) < soon) continue;
}

static void *set_in_thread(void *argument) {
  set_it();
  return argument;
}

static void set_by_thread(void) {
  join(start_thread(set_in_thread, NULL));
}

TEST(wherever_it_is_set_a_passed_deadline_is_due) {
  static void (*const ways[])(void) = {set_in_callback, set_soon_in_callback, set_by_thread};
  without_kernel_timers();
  loop = new_loop();
  keep_alive(loop);
  watcher = timer(loop, HOUR, 0, record, &seen);
  for (int i = 0; AT_ROW(i, ways); i++) {
    for (past = pasts; past < pasts + LENGTH(pasts); past++) expect_due(ways[i]);
  }
  close_loop(loop);
}

TEST(with_precise_timers_a_passed_deadline_is_due) {
  without_kernel_timers();
  loop = loop_with(EVLOOP_PRECISE);
  keep_alive(loop);
  watcher = timer(loop, HOUR, 0, record, &seen);
  for (past = pasts; past < pasts + LENGTH(pasts); past++) {
    expect_due(set_it);
    expect_due(set_in_callback);
  }
  close_loop(loop);
}

TEST(in_virtual_time_a_passed_deadline_is_due) {
  loop = virtual_loop();
  keep_alive(loop);
  watcher = timer(loop, HOUR, 0, record, &seen);
  advance(loop, SECOND);
  for (past = pasts; past < pasts + LENGTH(pasts); past++) {
    for (int i = 0; AT_ROW(i, iterations); i++) {
      if (iterations[i] == embedded_by_descriptor) continue;
      set_it();
      seen.calls = 0;
      OK(iterations[i](loop));
      CHECK_EQ(seen.calls, 1);
    }
  }
  close_loop(loop);
}

/* ---- deadlines that pass while the loop does not sleep ---- */

TEST(a_loop_that_never_sleeps_finds_what_has_expired_itself) {
  static RunFunction *const polls[] = {run_nowait, run_for_nothing, wait_for_nothing};
  without_kernel_timers();
  for (int c = 0; AT_ROW(c, clocks); c++) {
    if (!has_clock(clocks[c])) continue;
    loop = new_loop();
    watcher = OK(evloop_add_timer(loop, clocks[c], 0, HOUR, 0, 0, record, &seen));
    for (int i = 0; AT_ROW(i, polls); i++) {
      set_timer(watcher, MS, 0);
      seen.calls = 0;
      while (seen.calls == 0 && evloop_timer_remaining_ns(watcher) > 0) OK(polls[i](loop));
      if (seen.calls == 0) OK(polls[i](loop));
      CHECK_EQ(seen.calls, 1);
    }
    close_loop(loop);
  }
}

TEST(an_idle_watcher_does_not_keep_a_timer_from_expiring) {
  without_kernel_timers();
  loop = new_loop();
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_idle(loop, ignore, NULL))), 0);
  timer(loop, MS, 0, record, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
  close_loop(loop);
}

CHECK_MAIN()
