/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A loop without memory: what must not fail does not, and nothing is lost. */

#define _GNU_SOURCE 1
#include "faults.h"
#include "loop_kinds.h"

/* ---- closing watchers ---- */

enum { MANY = 40 };

/* Watchers of one kind, and how often the end of each was reported. */
typedef struct Notified {
  evloop_watcher_t watchers[MANY];
  int closed[MANY], all; /* atomic */
} Notified;

typedef struct End {
  Notified *notified;
  int at;
} End;

static End ends[MANY];

static void on_end(const evloop_event_t *event, void *user_data) {
  End *end = (End *)user_data;
  CHECK_EQ(event->type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(event->watcher, end->notified->watchers[end->at]);
  end->notified->closed[end->at]++;
  RAISE(end->notified->all, 1);
}

static void add_many(Fixture *fixture, const Kind *kind, Notified *notified) {
  memset(notified, 0, sizeof *notified);
  for (int i = 0; i < MANY; i++) {
    ends[i] = (End){notified, i};
    notified->watchers[i] = kind->add(fixture, i % PLACES, ignore, NULL);
    CHECK_EQ(evloop_watcher_set_destroy(notified->watchers[i], on_end, &ends[i]), 0);
    CHECK_EQ(evloop_watcher_unref(notified->watchers[i]), 0);
    if (i % 3 == 0) CHECK_EQ(evloop_watcher_set_name(notified->watchers[i], "a name"), 0);
  }
}

static void close_many(const Notified *notified) {
  for (int i = 0; i < MANY; i++) CHECK_EQ(evloop_watcher_close(notified->watchers[i], 0), 0);
}

/* Each exactly once. */
static void expect_all_notified(const Notified *notified) {
  for (int i = 0; i < MANY; i++) CHECK_EQ(notified->closed[i], 1);
  CHECK_EQ(notified->all, MANY);
}

EACH_KIND(watchers_are_closed_without_memory) {
  Fixture fixture = new_fixture();
  static Notified notified;
  add_many(&fixture, kind, &notified);
  without_memory();
  close_many(&notified);
  with_memory();
  expect_all_notified(&notified);
  close_loop(fixture.loop);
}

typedef struct Closing {
  evloop_t loop;
  Notified *notified;
} Closing;

static void on_post(const evloop_event_t *event, void *user_data) {
  (void)event;
  without_memory();
  close_many(((Closing *)user_data)->notified);
}

EACH_KIND(watchers_are_closed_without_memory_in_a_callback) {
  Fixture fixture = new_fixture();
  static Notified notified;
  Closing closing = {fixture.loop, &notified};
  add_many(&fixture, kind, &notified);
  CHECK_EQ(evloop_post(fixture.loop, on_post, &closing), 0);
  turn(fixture.loop);
  with_memory();
  expect_all_notified(&notified);
  close_loop(fixture.loop);
}

EACH_KIND(watchers_are_closed_without_memory_by_another_thread) {
  Fixture fixture = new_fixture();
  static Notified notified;
  Runner runner;
  Gate gate;
  keep_alive(fixture.loop);
  add_many(&fixture, kind, &notified);
  start_runner(&runner, run_until_done, fixture.loop);
  hold(fixture.loop, &gate);
  without_memory();
  close_many(&notified);
  CHECK_EQ(notified.all, 0);
  /* By the loop's thread, which has no memory either. */
  open_gate(&gate);
  UNTIL(LOAD(notified.all) == MANY);
  with_memory();
  go_round(fixture.loop);
  expect_all_notified(&notified);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  stop_runner(&runner);
  close_loop(fixture.loop);
}

/* Until the loop has applied the close, a closed watcher's handle is neither live
 * nor used again. */
TEST(a_watcher_that_two_threads_close_without_memory_is_closed_once) {
  Fixture fixture = new_fixture();
  static Notified notified;
  Runner runner;
  Gate gate;
  keep_alive(fixture.loop);
  add_many(&fixture, &kind_timer, &notified);
  start_runner(&runner, run_until_done, fixture.loop);
  hold(fixture.loop, &gate);
  without_memory();
  close_many(&notified);
  for (int i = 0; i < MANY; i++) CHECK_ERR(evloop_watcher_close(notified.watchers[i], 0), ESTALE);
  with_memory();
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  open_gate(&gate);
  UNTIL(LOAD(notified.all) == MANY);
  go_round(fixture.loop);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  stop_runner(&runner);
  close_loop(fixture.loop);
}

EACH_KIND(a_loop_is_closed_without_memory) {
  Fixture fixture = new_fixture();
  static Notified notified;
  add_many(&fixture, kind, &notified);
  without_memory();
  CHECK_EQ(evloop_close(fixture.loop), 0);
  with_memory();
  expect_all_notified(&notified);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

static void close_it(const evloop_event_t *event, void *user_data) {
  (void)event;
  without_memory();
  CHECK_EQ(evloop_close(*(evloop_t *)user_data), 0);
}

TEST(a_loop_is_closed_without_memory_in_its_callback) {
  Fixture fixture = new_fixture();
  static Notified notified;
  add_many(&fixture, &kind_io, &notified);
  CHECK_EQ(evloop_post(fixture.loop, close_it, &fixture.loop), 0);
  CHECK_ERR(evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT), ESTALE);
  with_memory();
  expect_all_notified(&notified);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

TEST(a_running_loop_is_closed_without_memory_by_another_thread) {
  Fixture fixture = new_fixture();
  static Notified notified;
  Runner runner;
  keep_alive(fixture.loop);
  add_many(&fixture, &kind_async, &notified);
  start_sleeper(&runner, run_until_done, fixture.loop);
  without_memory();
  CHECK_EQ(evloop_close(fixture.loop), 0);
  CHECK_EQ(runner_result(&runner), -ESTALE);
  with_memory();
  expect_all_notified(&notified);
}

/* Names are kept for traces and watchdogs, and must not stay for ever. */
TEST(names_of_watchers_that_are_closed_without_memory_are_forgotten) {
  evloop_t loop = new_loop();
  evloop_watcher_t watchers[200];
  char name[8];
  for (int i = 0; AT_ROW(i, watchers); i++) {
    watchers[i] = async(loop, ignore, NULL);
    CHECK_EQ(evloop_watcher_set_name(watchers[i], "name"), 0);
  }
  without_memory();
  for (int i = 0; AT_ROW(i, watchers); i++) close_watcher(watchers[i]);
  with_memory();
  turns(loop, 2);
  CHECK_ERR(evloop_watcher_get_name(watchers[0], name, sizeof name), ESTALE);
  close_loop(loop);
}

/* ---- closing a watcher whose descriptor was used again ---- */

/* A watcher of a pipe that is closed, and a later one of the same descriptor. */
typedef struct Again {
  evloop_t loop;
  Pipe pipe;
  evloop_watcher_t first, second;
  Seen seen;
  bool may_close, is_closed, is_added; /* atomic */
  Runner runner;
} Again;

static Again again;

static void begin_again(void) {
  again.loop = new_loop();
  keep_alive(again.loop);
  again.pipe = new_pipe();
  again.first = readable_io(again.loop, again.pipe.r, ignore, NULL);
  start_runner(&again.runner, run_until_done, again.loop);
  go_round(again.loop);
  int number = again.pipe.r;
  OK(close(again.pipe.r));
  OK(close(again.pipe.w));
  again.pipe = new_pipe();
  CHECK_EQ(again.pipe.r, number);
}

static void expect_second_is_called(void) {
  go_round(again.loop);
  put(again.pipe.w);
  UNTIL(LOAD(again.seen.calls) > 0);
  stop_runner(&again.runner);
  CHECK_EQ(again.seen.errors, 0);
  close_loop(again.loop);
}

TEST(a_watcher_that_is_closed_without_memory_silences_no_later_one_of_its_descriptor) {
  Gate gate;
  begin_again();
  hold(again.loop, &gate);
  again.second = readable_io(again.loop, again.pipe.r, record_and_take, &again.seen);
  without_memory();
  close_watcher(again.first);
  with_memory();
  open_gate(&gate);
  expect_second_is_called();
}

/* The loop's thread has registered it, and not yet found that the first one's
 * descriptor is gone. */
static void let_first_be_closed(void) {
  STORE(again.may_close, true);
  UNTIL(LOAD(again.is_closed));
}

static void add_second(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  after_registration = let_first_be_closed;
  again.second = readable_io(again.loop, again.pipe.r, record_and_take, &again.seen);
  STORE(again.is_added, true);
}

static void close_first_while_second_is_added(bool has_memory) {
  begin_again();
  CHECK_EQ(evloop_post(again.loop, add_second, NULL), 0);
  UNTIL(LOAD(again.may_close));
  if (!has_memory) without_memory();
  close_watcher(again.first);
  with_memory();
  STORE(again.is_closed, true);
  UNTIL(LOAD(again.is_added));
  expect_second_is_called();
}

TEST(a_watcher_that_is_closed_while_its_descriptor_is_added_silences_no_later_one) {
  close_first_while_second_is_added(true);
}

TEST(the_same_is_so_where_there_is_no_memory_for_the_command) {
  close_first_while_second_is_added(false);
}

/* ---- notifications ---- */

TEST(a_notification_that_another_thread_asked_for_comes_though_the_loop_has_no_memory) {
  evloop_t loop;
  evloop_watcher_t watchers[MANY];
  Runner runner;
  Gate gate;
  Seen first, last;
  memset(&first, 0, sizeof first);
  memset(&last, 0, sizeof last);
  loop = running_loop(&runner, false);
  for (int i = 0; i < MANY; i++) watchers[i] = async(loop, ignore, NULL);
  hold(loop, &gate);
  for (int i = 0; i < MANY; i++) {
    CHECK_EQ(evloop_watcher_set_destroy(watchers[i], record, &first), 0);
    CHECK_EQ(evloop_watcher_set_destroy(watchers[i], record, &last), 0);
  }
  only_spare_this_thread();
  open_gate(&gate);
  go_round(loop);
  for (int i = 0; i < MANY; i++) close_watcher(watchers[i]);
  UNTIL(LOAD(last.calls) == MANY);
  with_memory();
  go_round(loop);
  CHECK_EQ(first.calls, 0);
  CHECK_EQ(last.calls, MANY);
  stop_runner(&runner);
  close_loop(loop);
}

/* One that is asked for where there is no memory is not there. */
TEST(a_notification_is_asked_for_again_after_there_was_no_memory) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  Seen seen;
  memset(&seen, 0, sizeof seen);
  for (int n = 1; n <= 2; n++) {
    arm(&memory, n, ONLY);
    CHECK_ERR(evloop_watcher_set_destroy(watcher, record, &seen), ENOMEM);
    with_memory();
  }
  CHECK_EQ(evloop_watcher_set_destroy(watcher, record, &seen), 0);
  without_memory();
  close_watcher(watcher);
  with_memory();
  CHECK_EQ(seen.calls, 1);
  close_loop(loop);
}

TEST(evloop_wait_delivers_closed_events_without_memory) {
  evloop_t loop = new_loop();
  evloop_watcher_t watchers[MANY];
  evloop_event_t events[MANY + 1];
  for (int i = 0; i < MANY; i++) {
    watchers[i] = async(loop, ignore, NULL);
    CHECK_EQ(evloop_watcher_set_destroy(watchers[i], NULL, NULL), 0);
  }
  without_memory();
  for (int i = 0; i < MANY; i++) close_watcher(watchers[i]);
  for (int i = 0; i < MANY; i += 8) {
    CHECK_EQ(evloop_wait(loop, events, 8, 0), 8);
    for (int k = 0; k < 8; k++) {
      CHECK_EQ(events[k].type, EVLOOP_EVENT_CLOSED);
      CHECK_EQ(events[k].watcher, watchers[i + k]);
    }
  }
  CHECK_EQ(evloop_wait(loop, events, 8, 0), 0);
  with_memory();
  close_loop(loop);
}

/* ---- events ---- */

/* What was added where there was memory works where there is none. */
TEST(events_are_delivered_without_memory) {
  Fixture fixture = new_fixture();
  const Kind *kinds[] = {&kind_io, &kind_timer, &kind_tfd, &kind_async, &kind_prepare,
                         &kind_check, &kind_defer, &kind_exit};
  static Seen seen[LENGTH(kinds)];
  evloop_watcher_t watchers[LENGTH(kinds)];
  for (int i = 0; AT_ROW(i, kinds); i++) {
    watchers[i] = kinds[i]->add(&fixture, 0, record, &seen[i]);
  }
  turn(fixture.loop);
  memset(seen, 0, sizeof seen);
  for (int round = 1; round <= 3; round++) {
    for (int i = 0; AT_ROW(i, kinds); i++) {
      if (kinds[i]->type == EVLOOP_EVENT_DEFER) OK(evloop_watcher_enable(watchers[i]));
      kinds[i]->happen(&fixture, 0, watchers[i]);
    }
    without_memory();
    round_of(&fixture);
    round_of(&fixture);
    with_memory();
    calm(&fixture);
  }
  for (int i = 0; AT_ROW(i, kinds); i++) {
    if (seen[i].calls < 3) printf("  type %d\n", kinds[i]->type);
    CHECK(seen[i].calls >= 3);
    CHECK_EQ(seen[i].errors, 0);
  }
  close_loop(fixture.loop);
}

TEST(records_are_kept_without_memory) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watchers[3];
  evloop_event_t events[8];
  watchers[0] = kind_io.add(&fixture, 0, NULL, NULL);
  watchers[1] = kind_timer.add(&fixture, 0, NULL, NULL);
  watchers[2] = kind_async.add(&fixture, 0, NULL, NULL);
  CHECK_EQ(evloop_wait(fixture.loop, events, LENGTH(events), 0), 0);
  for (int round = 0; round < 3; round++) {
    kind_io.happen(&fixture, 0, watchers[0]);
    kind_timer.happen(&fixture, 0, watchers[1]);
    kind_async.happen(&fixture, 0, watchers[2]);
    without_memory();
    for (int got = 0; got < 3;) got += (int)OK(evloop_wait(fixture.loop, events, 3 - got, -1));
    with_memory();
    calm(&fixture);
  }
  close_loop(fixture.loop);
}

TEST(posts_without_callbacks_are_kept_until_there_is_memory) {
  evloop_t loop = new_loop();
  evloop_event_t events[MANY];
  keep_alive(loop);
  for (int i = 0; i < MANY; i++) CHECK_EQ(evloop_post(loop, NULL, as_data(i)), 0);
  without_memory();
  turns(loop, 3);
  with_memory();
  for (int got = 0; got < MANY;) {
    int count = (int)OK(evloop_wait(loop, events, LENGTH(events), -1));
    for (int i = 0; i < count; i++) CHECK_EQ(events[i].data, got++);
  }
  close_loop(loop);
}

typedef struct Ticks {
  int64_t last;
  int count;
} Ticks;

static void tick(const evloop_event_t *event, void *user_data) {
  Ticks *ticks = (Ticks *)user_data;
  CHECK_EQ(event->events, 0);
  CHECK(event->deadline_ns > ticks->last);
  ticks->last = event->deadline_ns;
  ticks->count++;
}

/* Of one timer each, those far ahead and those that come next. */
TEST(timers_go_on_in_their_order_without_memory) {
  enum { TIMERS = 500 };
  evloop_t loop = virtual_loop();
  static Ticks ticks[TIMERS];
  for (int i = 0; i < TIMERS; i++) {
    memset(&ticks[i], 0, sizeof ticks[i]);
    timer(loop, (i + 1) * MS, MS << (i % 20), tick, &ticks[i]);
  }
  advance(loop, MS);
  turn(loop);
  without_memory();
  for (int i = 0; i < 2000; i++) {
    advance(loop, MS);
    turn(loop);
  }
  with_memory();
  turn(loop);
  for (int i = 0; i < TIMERS; i++) {
    int64_t period = MS << (i % 20), since = 2001 * MS - (i + 1) * MS;
    CHECK_EQ(ticks[i].count, 1 + since / period);
  }
  close_loop(loop);
}

/* ---- a timer that gets a time of another clock's queue ---- */

enum { HOURS = 100 };

/* Relative times of the wall clock are CLOCK_MONOTONIC's. */
static void set_without_memory(evloop_watcher_t watcher, bool is_enabled) {
  int64_t before = OK(evloop_timer_remaining_ns(watcher));
  int result;
  without_memory();
  result = evloop_timer_set(watcher, EVLOOP_TIMER_ABSTIME, now_ns(CLOCK_REALTIME) + HOUR, 0);
  with_memory();
  if (result == 0) return; /* there was room */
  CHECK_EQ(result, -ENOMEM);
  CHECK(OK(evloop_timer_remaining_ns(watcher)) <= before);
  CHECK(OK(evloop_timer_remaining_ns(watcher)) > HOURS * HOUR - HOUR);
  if (is_enabled) OK(evloop_watcher_disable(watcher));
  OK(evloop_watcher_enable(watcher));
}

TEST(a_timer_is_unchanged_where_there_is_no_memory_for_another_clocks_time) {
  static const bool enabled[] = {true, false};
  int i, k;
  for (i = 0; AT_ROW(i, enabled); i++) {
    evloop_t loop = new_loop();
    evloop_watcher_t watchers[64];
    for (k = 0; AT_ROW(k, watchers); k++) {
      watchers[k] = OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, 0, HOURS * HOUR, 0, 0, ignore,
                                        NULL));
      if (!enabled[i]) OK(evloop_watcher_disable(watchers[k]));
    }
    for (k = 0; AT_ROW(k, watchers); k++) set_without_memory(watchers[k], enabled[i]);
    close_loop(loop);
  }
}

CHECK_MAIN()
