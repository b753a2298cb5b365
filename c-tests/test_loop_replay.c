/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A day of virtual time, a hundred times: every day is the same. */

#define _GNU_SOURCE 1
#include "loop_support.h"

#define DAY (24 * HOUR)
#define TIMERS 1000

typedef struct Day Day;

typedef struct Actor {
  Day *day;
  int index;
  evloop_watcher_t watcher; /* 0: closed */
} Actor;

struct Day {
  evloop_t loop;
  uint64_t seed, hash;
  int64_t events, posts, last_time;
  Actor actors[TIMERS];
};

static void mix(Day *day, uint64_t value) {
  day->hash = (day->hash ^ value) * UINT64_C(0x100000001b3);
  day->hash ^= day->hash >> 29;
}

static void on_timer(const evloop_event_t *event, void *user_data);

static int64_t some_time(Day *day) {
  return random_below(&day->seed, 4) == 0 ? random_below(&day->seed, 10) * 600 * SECOND
                                          : random_below(&day->seed, 6 * HOUR);
}

static int64_t some_interval(Day *day) {
  if (day->seed % 3 == 0) return 0;
  return 600 * SECOND + random_below(&day->seed, 6 * HOUR);
}

static void add_actor(Actor *actor) {
  static const uint32_t flags[] = {0, 0, EVLOOP_TIMER_BURST, EVLOOP_TIMER_DELAY};
  Day *day = actor->day;
  int64_t tolerance = random_below(&day->seed, 5) == 0 ? 60 * SECOND : 0;
  int64_t initial = some_time(day), interval = some_interval(day);
  actor->watcher = OK(evloop_add_timer(day->loop, MONOTONIC, flags[random_below(&day->seed, 4)],
                                       initial, interval, tolerance, on_timer, actor));
}

static void on_post(const evloop_event_t *event, void *user_data) {
  Actor *actor = (Actor *)user_data;
  Day *day = actor->day;
  mix(day, (uint64_t)event->type);
  mix(day, (uint64_t)actor->index);
  mix(day, (uint64_t)evloop_now_ns(day->loop));
  day->posts++;
  if (actor->watcher == 0) add_actor(actor);
}

/* What one timer does to itself or another. */
static void act(Actor *actor) {
  Day *day = actor->day;
  int64_t initial = some_time(day), interval = some_interval(day);
  int64_t deed = random_below(&day->seed, 10);
  if (deed == 0) CHECK_EQ(evloop_post(day->loop, on_post, actor), 0);
  if (actor->watcher == 0) return;
  switch (deed) {
    case 1:
      close_watcher(actor->watcher);
      actor->watcher = 0;
      break;
    case 2:
      set_timer(actor->watcher, initial, interval);
      break;
    case 3:
      CHECK_EQ(evloop_timer_again(actor->watcher), 0);
      break;
    case 4:
      CHECK_EQ(evloop_watcher_disable(actor->watcher), 0);
      break;
    case 5:
      CHECK_EQ(evloop_watcher_enable(actor->watcher), 0);
      break;
    case 6:
      CHECK_EQ(evloop_watcher_set_priority(actor->watcher, (int)(initial % 3) - 1), 0);
      break;
    case 7:
      CHECK_EQ(evloop_watcher_set_ratelimit(actor->watcher, initial, 1 + (int)(initial % 4)), 0);
      break;
    default:
      break;
  }
}

static void on_timer(const evloop_event_t *event, void *user_data) {
  Actor *actor = (Actor *)user_data;
  Day *day = actor->day;
  int64_t now = OK(evloop_now_ns(day->loop));
  CHECK_EQ(event->watcher, actor->watcher);
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK(event->time_ns <= now);
  CHECK(now >= day->last_time);
  day->last_time = now;
  mix(day, (uint64_t)actor->index);
  mix(day, event->count);
  mix(day, (uint64_t)event->deadline_ns);
  mix(day, (uint64_t)event->time_ns);
  day->events++;
  act(&day->actors[random_below(&day->seed, TIMERS)]);
  act(&day->actors[random_below(&day->seed, TIMERS)]);
  if (random_below(&day->seed, 4) == 0) act(actor);
}

static uint64_t live_through(Day *day, uint64_t seed, uint32_t flags) {
  int i;
  memset(day, 0, sizeof *day);
  day->loop = loop_with(flags);
  day->seed = seed;
  for (i = 0; i < TIMERS; i++) {
    day->actors[i].day = day;
    day->actors[i].index = i;
    add_actor(&day->actors[i]);
  }
  if (flags & EVLOOP_AUTO_ADVANCE) {
    OK(evloop_run_for_ns(day->loop, DAY));
  } else {
    for (i = 0; i < 24 * 60; i++) {
      advance(day->loop, 60 * SECOND);
      turn(day->loop);
    }
  }
  CHECK_EQ(evloop_now_ns(day->loop), DAY);
  CHECK(day->events > TIMERS);
  CHECK(day->posts > 10);
  close_loop(day->loop);
  return day->hash;
}

static void expect_same_days(uint32_t flags) {
  static Day day;
  uint64_t first = live_through(&day, 7, flags);
  int i;
  for (i = 1; i < 100; i++) CHECK(live_through(&day, 7, flags) == first);
  CHECK(live_through(&day, 8, flags) != first);
}

TEST_TIMEOUT(a_day_of_jumps_is_the_same_a_hundred_times, 60) {
  expect_same_days(EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE);
}

TEST_TIMEOUT(a_day_of_minutes_is_the_same_a_hundred_times, 60) {
  expect_same_days(EVLOOP_VIRTUAL_TIME);
}

/* ---- a few things in exactly this order ---- */

static void log_and_post(const evloop_event_t *event, void *user_data) {
  evloop_t loop = evloop_watcher_loop(event->watcher);
  log_first_char(event, user_data);
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
  timer(loop, 0, 0, log_first_char, WORD("z"));
}

TEST(timers_and_posts_have_one_order) {
  int i;
  for (i = 0; i < 100; i++) {
    evloop_t loop = jumping_loop();
    timer(loop, 2 * SECOND, 0, log_first_char, WORD("b"));
    timer(loop, SECOND, 0, log_and_post, WORD("a"));
    timer(loop, 2 * SECOND, 0, log_and_post, WORD("c"));
    timer(loop, 2 * SECOND, 0, log_first_char, WORD("d"));
    CHECK_EQ(evloop_post(loop, log_first_char, WORD("x")), 0);
    CHECK_EQ(evloop_post(loop, log_first_char, WORD("y")), 0);
    run_to_end(loop);
    EXPECT_LOG("xyazpbcdzp");
    close_loop(loop);
  }
}

CHECK_MAIN()
