/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timers of event loops that are set again, restarted, stopped, queried and
 * refused; mostly on virtual time, where every number is exact. */

#define _GNU_SOURCE 1
#include "loop_support.h"

#define UNSET INT64_MAX

/* ---- helpers ---- */

static int64_t remaining(evloop_watcher_t watcher) {
  return OK(evloop_timer_remaining_ns(watcher));
}

static void again(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_timer_again(watcher), 0);
}

static void expect_calls(evloop_t loop, const Seen *seen, int64_t ns, int calls) {
  if (ns > 0) advance(loop, ns);
  turn(loop);
  CHECK_EQ(seen->calls, calls);
}

/* ---- remaining ---- */

TEST(remaining_is_what_is_left) {
  evloop_t loop = virtual_loop();
  evloop_watcher_t once = timer(loop, 10 * SECOND, 0, ignore, NULL);
  evloop_watcher_t periodic = timer(loop, 10 * SECOND, 3 * SECOND, ignore, NULL);
  CHECK_EQ(remaining(once), 10 * SECOND);
  advance(loop, 4 * SECOND);
  CHECK_EQ(remaining(once), 6 * SECOND);
  advance(loop, 7 * SECOND);
  CHECK_EQ(remaining(once), 0);
  CHECK_EQ(remaining(periodic), 0);
  turn(loop);
  CHECK_EQ(remaining(once), UNSET);
  CHECK_EQ(remaining(periodic), 2 * SECOND);
}

TEST(remaining_of_absolute_timers_is_a_duration) {
  evloop_t loop = new_loop();
  int64_t now = now_ns(CLOCK_MONOTONIC), left;
  evloop_watcher_t watcher = timer_at(loop, now + HOUR, ignore, NULL);
  left = remaining(watcher);
  CHECK(left <= HOUR);
  CHECK(left >= HOUR - (now_ns(CLOCK_MONOTONIC) - now));
  CHECK_EQ(remaining(timer_at(loop, now, ignore, NULL)), 0);
  CHECK_EQ(remaining(timer(loop, 0, 0, ignore, NULL)), 0);
}

TEST(remaining_goes_on_while_disabled) {
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 10 * SECOND, 0, ignore, NULL);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(remaining(watcher), 10 * SECOND);
  advance(loop, 4 * SECOND);
  turn(loop);
  CHECK_EQ(remaining(watcher), 6 * SECOND);
  advance(loop, 10 * SECOND);
  turn(loop);
  CHECK_EQ(remaining(watcher), 0);
}

/* ---- not set ---- */

TEST(a_timer_that_is_not_set_never_expires) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, -1, 3 * SECOND, record, &seen);
  CHECK_EQ(remaining(watcher), UNSET);
  expect_calls(loop, &seen, HOUR, 0);
  CHECK_EQ(remaining(OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, INT64_MIN, 0, 0,
                                         record, &seen))), UNSET);
  expect_calls(loop, &seen, HOUR, 0);
  set_timer(watcher, 2 * SECOND, 0);
  expect_calls(loop, &seen, 2 * SECOND - 1, 0);
  expect_calls(loop, &seen, 1, 1);
  expect_calls(loop, &seen, HOUR, 1);
}

TEST(a_timer_that_is_not_set_lets_the_loop_end) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, -1, 0, ignore, NULL);
  run_to_end(loop);
  set_timer(watcher, HOUR, 0);
  CHECK_EQ(turn(loop), 1);
  set_timer(watcher, -1, 0);
  run_to_end(loop);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
}

/* ---- set ---- */

TEST(set_forgets_the_old_time) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 5 * SECOND, SECOND, record, &seen);
  set_timer(watcher, 10 * SECOND, 0);
  expect_calls(loop, &seen, 10 * SECOND - 1, 0);
  expect_calls(loop, &seen, 1, 1);
  CHECK_EQ(seen.last.deadline_ns, 10 * SECOND);
  set_timer(watcher, 2 * SECOND, 3 * SECOND);
  expect_calls(loop, &seen, 2 * SECOND, 2);
  expect_calls(loop, &seen, 3 * SECOND, 3);
  CHECK_EQ(seen.last.deadline_ns, 15 * SECOND);
  CHECK_EQ(evloop_timer_set(watcher, EVLOOP_TIMER_ABSTIME, 20 * SECOND, 0), 0);
  expect_calls(loop, &seen, 4 * SECOND, 3);
  expect_calls(loop, &seen, SECOND, 4);
  CHECK_EQ(seen.last.deadline_ns, 20 * SECOND);
}

TEST(set_forgets_what_was_due) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, SECOND, SECOND, record, &seen);
  advance(loop, 10 * SECOND);
  set_timer(watcher, SECOND, 0);
  expect_calls(loop, &seen, 0, 0);
  expect_calls(loop, &seen, SECOND, 1);
  CHECK_EQ(seen.last.count, 1);
  CHECK_EQ(seen.last.deadline_ns, 11 * SECOND);
}

TEST(set_changes_how_missed_expirations_are_delivered) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, SECOND, SECOND, record, &seen);
  expect_calls(loop, &seen, 5 * SECOND, 1);
  CHECK_EQ(seen.last.count, 5);
  CHECK_EQ(evloop_timer_set(watcher, EVLOOP_TIMER_BURST, SECOND, SECOND), 0);
  advance(loop, 5 * SECOND);
  turns(loop, 10);
  CHECK_EQ(seen.calls, 6);
  CHECK_EQ(seen.count, 10);
  CHECK_EQ(seen.last.deadline_ns, 10 * SECOND);
  CHECK_EQ(evloop_timer_set(watcher, EVLOOP_TIMER_DELAY, SECOND, SECOND), 0);
  expect_calls(loop, &seen, 5 * SECOND, 7);
  CHECK_EQ(seen.last.count, 1);
  CHECK_EQ(seen.last.deadline_ns, 11 * SECOND);
  expect_calls(loop, &seen, SECOND, 8);
  CHECK_EQ(seen.last.deadline_ns, 16 * SECOND);
}

TEST(an_absolute_periodic_timer_counts_since_its_first_time) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  advance(loop, 100 * SECOND);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, EVLOOP_TIMER_ABSTIME, 30 * SECOND, 20 * SECOND,
                      0, record, &seen));
  expect_calls(loop, &seen, 0, 1);
  CHECK_EQ(seen.last.count, 4); /* 30, 50, 70, 90 */
  CHECK_EQ(seen.last.deadline_ns, 30 * SECOND);
  CHECK_EQ(seen.last.time_ns, 100 * SECOND);
  expect_calls(loop, &seen, 10 * SECOND, 2);
  CHECK_EQ(seen.last.count, 1);
  CHECK_EQ(seen.last.deadline_ns, 110 * SECOND);
}

TEST(ties_expire_in_the_order_of_setting) {
  evloop_t loop = virtual_loop();
  evloop_watcher_t a = timer(loop, SECOND, 0, log_first_char, WORD("a"));
  evloop_watcher_t b = timer(loop, SECOND, 0, log_first_char, WORD("b"));
  timer_at(loop, SECOND, log_first_char, WORD("c"));
  timer(loop, SECOND, 0, log_first_char, WORD("d"));
  set_timer(a, SECOND, 0);
  again(b);
  advance(loop, SECOND);
  turn(loop);
  EXPECT_LOG("cdab");
}

TEST(a_stopped_timer_is_quiet_until_it_is_set) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, SECOND, SECOND, record, &seen);
  expect_calls(loop, &seen, SECOND, 1);
  set_timer(watcher, -5, 7);
  CHECK_EQ(remaining(watcher), UNSET);
  expect_calls(loop, &seen, HOUR, 1);
  set_timer(watcher, SECOND, 0);
  expect_calls(loop, &seen, SECOND, 2);
}

/* ---- again ---- */

TEST(again_counts_from_now) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 10 * SECOND, 0, record, &seen);
  int i;
  for (i = 0; i < 5; i++) {
    advance(loop, 9 * SECOND);
    turn(loop);
    again(watcher);
    CHECK_EQ(remaining(watcher), 10 * SECOND);
  }
  expect_calls(loop, &seen, 10 * SECOND - 1, 0);
  expect_calls(loop, &seen, 1, 1);
  CHECK_EQ(seen.last.deadline_ns, 55 * SECOND);
  CHECK_EQ(remaining(watcher), UNSET);
}

TEST(again_starts_an_expired_timer) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 10 * SECOND, 0, record, &seen);
  expect_calls(loop, &seen, 10 * SECOND, 1);
  again(watcher);
  expect_calls(loop, &seen, 10 * SECOND, 2);
  set_timer(watcher, 3 * SECOND, 0);
  again(watcher);
  CHECK_EQ(remaining(watcher), 3 * SECOND);
}

TEST(again_has_a_periodic_timer_expire_after_its_interval) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 100 * SECOND, 10 * SECOND, record, &seen);
  advance(loop, SECOND);
  again(watcher);
  CHECK_EQ(remaining(watcher), 10 * SECOND);
  expect_calls(loop, &seen, 10 * SECOND, 1);
  CHECK_EQ(seen.last.deadline_ns, 11 * SECOND);
  expect_calls(loop, &seen, 10 * SECOND, 2);
  CHECK_EQ(seen.last.deadline_ns, 21 * SECOND);
}

TEST(again_on_an_absolute_periodic_timer) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, 100 * SECOND,
                                                 10 * SECOND, 0, record, &seen));
  advance(loop, 3 * SECOND);
  again(watcher);
  expect_calls(loop, &seen, 10 * SECOND, 1);
  CHECK_EQ(seen.last.deadline_ns, 13 * SECOND);
}

TEST(again_forgets_what_was_due) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, SECOND, 0, record, &seen);
  advance(loop, 5 * SECOND);
  again(watcher);
  expect_calls(loop, &seen, 0, 0);
  expect_calls(loop, &seen, SECOND, 1);
  CHECK_EQ(seen.last.deadline_ns, 6 * SECOND);
}

TEST(again_with_a_delay_of_zero_expires_in_the_next_iteration) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 0, 0, record, &seen);
  expect_calls(loop, &seen, 0, 1);
  again(watcher);
  expect_calls(loop, &seen, 0, 2);
  expect_calls(loop, &seen, 0, 2);
}

static void again_from_callback(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  if (seen->calls < 5) again(event->watcher);
}

TEST(again_in_its_own_callback) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, 0, again_from_callback, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 5);
  CHECK_EQ(evloop_now_ns(loop), 5 * SECOND);
}

TEST(again_needs_a_time_to_start_from) {
  evloop_t loop = virtual_loop();
  evloop_watcher_t never = timer(loop, -1, 0, ignore, NULL);
  evloop_watcher_t at = timer_at(loop, HOUR, ignore, NULL);
  CHECK_ERR(evloop_timer_again(never), EINVAL);
  CHECK_EQ(remaining(never), UNSET);
  CHECK_ERR(evloop_timer_again(at), EINVAL);
  CHECK_EQ(remaining(at), HOUR);
  set_timer(never, SECOND, 0);
  CHECK_EQ(evloop_timer_set(never, EVLOOP_TIMER_ABSTIME, HOUR, 0), 0);
  CHECK_ERR(evloop_timer_again(never), EINVAL);
  set_timer(at, SECOND, 0);
  again(at);
  CHECK_EQ(remaining(at), SECOND);
}

/* ---- inside callbacks ---- */

/* What the callback of one timer does to another that is due as well. */
typedef struct Victim {
  evloop_watcher_t watcher;
  void (*harm)(evloop_watcher_t watcher);
} Victim;

static void harm(const evloop_event_t *event, void *user_data) {
  Victim *victim = (Victim *)user_data;
  CHECK(event->type == EVLOOP_EVENT_TIMER);
  victim->harm(victim->watcher);
  log_char('h');
}

static void stop_it(evloop_watcher_t watcher) {
  set_timer(watcher, -1, 0);
}

static void postpone_it(evloop_watcher_t watcher) {
  set_timer(watcher, HOUR, 0);
}

static void disable_it(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
}

static void set_it_to_zero(evloop_watcher_t watcher) {
  set_timer(watcher, 0, 0);
}

TEST(a_neighbour_that_is_due_too_is_not_dispatched_after_a_change) {
  static void (*const harms[])(evloop_watcher_t) = {stop_it, postpone_it, disable_it,
                                                    close_watcher, again};
  static Victim victims[LENGTH(harms)];
  evloop_t loop = virtual_loop();
  int i;
  for (i = 0; AT_ROW(i, harms); i++) {
    timer(loop, SECOND, 0, harm, &victims[i]);
    victims[i].watcher = timer(loop, 2 * SECOND, 0, log_first_char, WORD("v"));
    victims[i].harm = harms[i];
    advance(loop, 3 * SECOND);
    turns(loop, 3);
    EXPECT_LOG("h");
  }
}

TEST(a_neighbour_that_is_set_to_zero_is_dispatched_in_the_next_iteration) {
  static Victim victim;
  evloop_t loop = virtual_loop();
  victim.harm = set_it_to_zero;
  timer(loop, SECOND, 0, harm, &victim);
  victim.watcher = timer(loop, 2 * SECOND, 0, log_first_char, WORD("v"));
  advance(loop, 3 * SECOND);
  turn(loop);
  EXPECT_LOG("h");
  turns(loop, 3);
  EXPECT_LOG("v");
}

static void change_period(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  set_timer(event->watcher, 5 * SECOND, 2 * SECOND);
}

TEST(a_periodic_timer_changes_itself) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  timer(loop, SECOND, SECOND, change_period, &seen);
  expect_calls(loop, &seen, SECOND, 1);
  expect_calls(loop, &seen, 4 * SECOND, 1);
  expect_calls(loop, &seen, SECOND, 2);
  CHECK_EQ(seen.last.deadline_ns, 6 * SECOND);
}

static void end_burst(const evloop_event_t *event, void *user_data) {
  Victim *victim = (Victim *)user_data;
  log_char('b');
  victim->harm(event->watcher);
}

TEST(a_burst_ends_when_its_timer_is_changed) {
  static Victim victims[] = {{0, stop_it}, {0, postpone_it}, {0, close_watcher},
                             {0, disable_it}, {0, again}};
  evloop_t loop = virtual_loop();
  int i;
  for (i = 0; AT_ROW(i, victims); i++) {
    OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_BURST, SECOND, SECOND, 0, end_burst,
                        &victims[i]));
    advance(loop, 5 * SECOND + 1);
    turns(loop, 10);
    EXPECT_LOG("b");
  }
}

static void close_itself(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  close_watcher(event->watcher);
  CHECK_ERR(evloop_timer_set(event->watcher, 0, 0, 0), ESTALE);
  CHECK_ERR(evloop_timer_again(event->watcher), ESTALE);
  CHECK_ERR(evloop_timer_remaining_ns(event->watcher), ESTALE);
}

TEST(a_timer_closes_itself_in_its_callback) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, SECOND, close_itself, &seen);
  timer(loop, SECOND, 0, close_itself, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

static void add_two(const evloop_event_t *event, void *user_data) {
  evloop_t loop = evloop_watcher_loop(event->watcher);
  log_first_char(event, user_data);
  timer(loop, 2 * SECOND, 0, log_first_char, WORD("y"));
  timer(loop, SECOND, 0, log_first_char, WORD("x"));
  timer(loop, 2 * SECOND, 0, log_first_char, WORD("z"));
}

TEST(timers_set_in_a_callback_count_from_its_iteration) {
  evloop_t loop = virtual_loop();
  timer(loop, SECOND, 0, add_two, WORD("a"));
  advance(loop, SECOND);
  turn(loop);
  EXPECT_LOG("a");
  advance(loop, SECOND);
  turn(loop);
  EXPECT_LOG("x");
  advance(loop, SECOND - 1);
  turn(loop);
  EXPECT_LOG("");
  advance(loop, 1);
  turn(loop);
  EXPECT_LOG("yz");
}

/* ---- tolerance ---- */

TEST(tolerance_has_an_upper_limit_and_keeps_the_order) {
  static Seen early, late;
  evloop_t loop = jumping_loop();
  OK(evloop_add_timer(loop, MONOTONIC, 0, 10 * SECOND, 0, 20 * SECOND, record, &early));
  OK(evloop_add_timer(loop, MONOTONIC, 0, 50 * SECOND, 0, 3 * SECOND, record, &late));
  run_to_end(loop);
  CHECK_EQ(early.calls, 1);
  CHECK_EQ(early.last.deadline_ns, 10 * SECOND);
  CHECK(early.last.time_ns >= 10 * SECOND);
  CHECK(early.last.time_ns <= 30 * SECOND);
  CHECK_EQ(late.calls, 1);
  CHECK(late.last.time_ns >= 50 * SECOND);
  CHECK(late.last.time_ns <= 53 * SECOND);
}

TEST(a_tolerant_timer_comes_before_a_later_one) {
  evloop_t loop = jumping_loop();
  OK(evloop_add_timer(loop, MONOTONIC, 0, 10 * SECOND, 0, HOUR, log_first_char, WORD("a")));
  timer(loop, 20 * SECOND, 0, log_first_char, WORD("b"));
  OK(evloop_add_timer(loop, MONOTONIC, 0, 15 * SECOND, 0, HOUR, log_first_char, WORD("c")));
  OK(evloop_add_timer(loop, MONOTONIC, 0, 30 * SECOND, 0, 0, log_first_char, WORD("d")));
  CHECK_EQ(evloop_run_for_ns(loop, 25 * SECOND), 1);
  EXPECT_LOG("acb");
  run_to_end(loop);
  EXPECT_LOG("d");
}

/* ---- errors ---- */

static void expect_refused(evloop_t loop, int clock, uint32_t flags, int64_t interval,
                           int64_t tolerance) {
  CHECK_ERR(evloop_add_timer(loop, clock, flags, HOUR, interval, tolerance, ignore, NULL), EINVAL);
}

TEST(wrong_arguments_are_refused) {
  static const int clocks[] = {-1, 2, 3, 4, 5, 6, 10, 11, 99, INT32_MAX};
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, clocks); i++) expect_refused(loop, clocks[i], 0, 0, 0);
  expect_refused(loop, MONOTONIC, EVLOOP_TIMER_BURST | EVLOOP_TIMER_DELAY, 1, 0);
  expect_refused(loop, MONOTONIC, 8, 0, 0);
  expect_refused(loop, MONOTONIC, UINT32_MAX, 0, 0);
  expect_refused(loop, MONOTONIC, 0, -1, 0);
  expect_refused(loop, MONOTONIC, 0, INT64_MIN, 0);
  expect_refused(loop, MONOTONIC, 0, 0, -1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  run_to_end(loop);
}

TEST(a_refused_set_leaves_the_timer_as_it_was) {
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, 7 * SECOND, 0, ignore, NULL);
  CHECK_ERR(evloop_timer_set(watcher, 8, SECOND, 0), EINVAL);
  CHECK_ERR(evloop_timer_set(watcher, 6, SECOND, SECOND), EINVAL);
  CHECK_ERR(evloop_timer_set(watcher, 0, SECOND, -1), EINVAL);
  CHECK_ERR(evloop_timer_set(watcher, 0, -1, -1), EINVAL);
  CHECK_EQ(remaining(watcher), 7 * SECOND);
}

static void expect_no_timer(int64_t handle, int code) {
  CHECK_EQ(evloop_timer_set(handle, 0, 0, 0), -code);
  CHECK_EQ(evloop_timer_again(handle), -code);
  CHECK_EQ(evloop_timer_remaining_ns(handle), -code);
}

TEST(only_timers_are_timers) {
  evloop_t loop = new_loop();
  evloop_watcher_t closed = timer(loop, HOUR, 0, ignore, NULL);
  expect_no_timer(async(loop, ignore, NULL), EINVAL);
  expect_no_timer(readable_io(loop, event_fd(0), ignore, NULL), EINVAL);
  expect_no_timer(loop, EDOM);
  close_watcher(closed);
  expect_no_timer(closed, ESTALE);
  expect_no_timer(0, ESTALE);
  expect_no_timer(-1, ESTALE);
  CHECK_ERR(evloop_add_timer(async(loop, ignore, NULL), MONOTONIC, 0, 0, 0, 0, ignore, NULL), EDOM);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_ERR(evloop_add_timer(loop, MONOTONIC, 0, 0, 0, 0, ignore, NULL), ESTALE);
}

CHECK_MAIN()
