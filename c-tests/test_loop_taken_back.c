/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop, continued: what happened already, and is taken back before
 * it is delivered; and what is asked for in a callback, about what callbacks
 * have just done. */

#define _GNU_SOURCE
#include "loop_support.h"

static evloop_watcher_t add_record_timer(evloop_t loop, int64_t initial_ns, int64_t interval_ns) {
  return OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, initial_ns, interval_ns, 0, NULL, NULL));
}

/* Two timers expire; the record of the first one is taken, that of the second
 * one held. */
typedef struct Pair {
  evloop_t loop;
  evloop_watcher_t taken, held;
} Pair;

static Pair expire_two(void) {
  Pair pair = {.loop = virtual_loop()};
  evloop_event_t event;
  pair.taken = add_record_timer(pair.loop, MS, 0);
  pair.held = add_record_timer(pair.loop, 2 * MS, 10 * MS);
  CHECK_EQ(evloop_advance_ns(pair.loop, 3 * MS), 0);
  CHECK_EQ(evloop_wait(pair.loop, &event, 1, 0), 1);
  CHECK_EQ(event.watcher, pair.taken);
  return pair;
}

static void expect_no_record(evloop_t loop) {
  evloop_event_t event;
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
}

TEST(the_record_of_a_timer_that_is_stopped_is_forgotten) {
  Pair pair = expire_two();
  CHECK_EQ(evloop_timer_set(pair.held, 0, -1, 0), 0);
  expect_no_record(pair.loop);
}

TEST(the_record_of_a_timer_that_is_set_again_is_cancelled) {
  Pair pair = expire_two();
  CHECK_EQ(evloop_timer_set(pair.held, 0, SECOND, 0), 0);
  expect_no_record(pair.loop);
  CHECK_EQ(evloop_advance_ns(pair.loop, SECOND), 0);
  evloop_event_t event;
  CHECK_EQ(evloop_wait(pair.loop, &event, 1, 0), 1);
  CHECK_EQ(event.watcher, pair.held);
  CHECK_EQ(event.count, 1);
}

TEST(the_record_of_a_timer_that_is_started_again_is_forgotten) {
  Pair pair = expire_two();
  CHECK_EQ(evloop_timer_again(pair.held), 0);
  expect_no_record(pair.loop);
}

TEST(the_record_of_a_timer_that_is_disabled_waits_until_it_is_enabled) {
  Pair pair = expire_two();
  CHECK_EQ(evloop_watcher_disable(pair.held), 0);
  expect_no_record(pair.loop);
  CHECK_EQ(evloop_watcher_enable(pair.held), 0);
  evloop_event_t event;
  CHECK_EQ(evloop_wait(pair.loop, &event, 1, 0), 1);
  CHECK_EQ(event.watcher, pair.held);
  CHECK_EQ(event.deadline_ns, 2 * MS);
}

TEST(the_record_of_a_descriptor_that_is_disabled_comes_if_it_is_still_ready_then) {
  evloop_t loop = new_loop();
  int first = OK(eventfd(1, EFD_NONBLOCK)), second = OK(eventfd(1, EFD_NONBLOCK));
  evloop_event_t event;
  OK(evloop_add_io(loop, first, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, NULL, NULL));
  OK(evloop_add_io(loop, second, EVLOOP_EPOLLIN | EVLOOP_EPOLLET, NULL, NULL));
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  /* The other one's record is held: an edge that comes once. */
  evloop_watcher_t held = 0;
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  held = event.watcher;
  uint64_t one = 1;
  CHECK_EQ(write(event.fd, &one, sizeof one), sizeof one);
  CHECK_EQ(evloop_watcher_disable(held), 0);
  expect_no_record(loop);
  CHECK_EQ(evloop_watcher_enable(held), 0);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  CHECK_EQ(event.watcher, held);
}

/* Its slot goes to another watcher, whose data the loop must not take for the
 * links of the list of pending async watchers. */
TEST(an_async_that_was_sent_to_again_and_disabled_and_closed_harms_no_other) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_watcher_t held = async(loop, NULL, NULL), other = async(loop, record, &seen);
  OK(evloop_async_send(held));
  turn(loop);
  OK(evloop_async_send(other));
  OK(evloop_async_send(held));
  CHECK_EQ(evloop_watcher_disable(held), 0);
  CHECK_EQ(evloop_watcher_close(held, 0), 0);
  for (int i = 0; i < 130; i++) timer(loop, 3600 * SECOND, 5, ignore, NULL);
  turn(loop);
  OK(evloop_async_send(other));
  turn(loop);
  CHECK_EQ(seen.calls, 2);
}

static evloop_watcher_t late;

static void set_late(const evloop_event_t *event, void *user_data) {
  (void)event;
  set_timer(late, 300, 0);
  if (*(bool *)user_data) CHECK_EQ(evloop_watcher_enable(late), 0);
}

TEST(a_disabled_timer_counts_from_when_it_is_set_and_not_from_earlier_callbacks) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0};
  bool enable = false;
  late = timer(loop, SECOND, 0, record, &seen);
  CHECK_EQ(evloop_watcher_disable(late), 0);
  OK(evloop_post(loop, set_late, &enable));
  turn(loop);
  advance(loop, 250);
  enable = true;
  OK(evloop_post(loop, set_late, &enable));
  turn(loop);
  advance(loop, 299);
  turn(loop);
  CHECK_EQ(seen.calls, 0);
  advance(loop, 1);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
}

static evloop_watcher_t limited;

static void enable_limited(const evloop_event_t *event, void *user_data) {
  (void)event, (void)user_data;
  CHECK_EQ(evloop_watcher_enable(limited), 0);
}

TEST(an_edge_that_a_rate_limit_kept_comes_when_a_callback_enables_its_watcher) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0};
  int fd = OK(eventfd(1, EFD_NONBLOCK));
  limited = OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLET, record, &seen));
  CHECK_EQ(evloop_watcher_set_ratelimit(limited, 100, 1), 0);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  OK(eventfd_write(fd, 1));
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_watcher_disable(limited), 0);
  advance(loop, 100);
  turn(loop);
  OK(evloop_post(loop, enable_limited, NULL));
  turns(loop, 3);
  CHECK_EQ(seen.calls, 2);
}

static evloop_watcher_t neighbour;

static void disable_neighbour(const evloop_event_t *event, void *user_data) {
  (void)user_data;
  log_word(event, (void *)(uintptr_t)"a");
  CHECK_EQ(evloop_watcher_disable(neighbour), 0);
}

static void disable_and_enable_neighbour(const evloop_event_t *event, void *user_data) {
  disable_neighbour(event, user_data);
  CHECK_EQ(evloop_watcher_enable(neighbour), 0);
}

static evloop_t with_two_deferred(evloop_callback_t first) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_defer(loop, first, NULL));
  CHECK_EQ(evloop_watcher_set_priority(watcher, 1), 0);
  neighbour = OK(evloop_add_defer(loop, log_word, (void *)(uintptr_t)"b"));
  return loop;
}

TEST(a_deferred_call_that_is_disabled_in_its_batch_is_not_made) {
  evloop_t loop = with_two_deferred(disable_neighbour);
  turn(loop);
  EXPECT_LOG("a");
  turn(loop);
  EXPECT_LOG("");
}

TEST(a_deferred_call_that_is_asked_for_again_in_its_batch_is_made_once) {
  evloop_t loop = with_two_deferred(disable_and_enable_neighbour);
  turn(loop);
  EXPECT_LOG("a");
  turn(loop);
  EXPECT_LOG("b");
  turn(loop);
  EXPECT_LOG("");
}

static void ask_how_long(const evloop_event_t *event, void *user_data) {
  evloop_t loop = OK(evloop_watcher_loop(event->watcher));
  evloop_watcher_t timer = add_record_timer(loop, 5 * SECOND, 0);
  int64_t left = evloop_next_timeout_ns(loop);
  CHECK(left > 0);
  CHECK(left <= 5 * SECOND);
  CHECK_EQ(evloop_timer_set(timer, 0, 3 * SECOND, 0), 0);
  left = evloop_next_timeout_ns(loop);
  CHECK(left > 0);
  CHECK(left <= 3 * SECOND);
  CHECK_EQ(evloop_watcher_close(timer, 0), 0);
  CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  record(event, user_data);
}

TEST(the_next_timeout_knows_the_timers_that_a_callback_has_just_set) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  OK(evloop_add_defer(loop, ask_how_long, &seen));
  turn(loop);
  CHECK_EQ(seen.calls, 1);
}

static void count_turns(const evloop_event_t *event, void *user_data) {
  (void)event;
  ++*(long *)user_data;
}

TEST(virtual_time_goes_on_beside_an_idle_watcher) {
  evloop_t loop = jumping_loop();
  long turns = 0;
  Seen seen = {.calls = 0};
  OK(evloop_add_idle(loop, count_turns, &turns));
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, SECOND, SECOND, 0, record, &seen));
  OK(evloop_run_for_ns(loop, 10 * SECOND));
  CHECK_EQ(seen.calls, 10);
  CHECK_EQ(evloop_now_ns(loop), 10 * SECOND);
}

CHECK_MAIN()
