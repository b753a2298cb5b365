/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Closing watchers, and destroy notifications: exactly one, at the time that the
 * header promises. */

#define _GNU_SOURCE 1
#include "loop_kinds.h"

/* ---- helpers ---- */

static void set_destroy(evloop_watcher_t watcher, evloop_callback_t callback, void *user_data) {
  CHECK_EQ(evloop_watcher_set_destroy(watcher, callback, user_data), 0);
}

static void see_destroyed(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(event->type, EVLOOP_EVENT_CLOSED);
  CHECK_ERR(evloop_handle_kind(event->watcher), ESTALE);
  CHECK_ERR(evloop_watcher_loop(event->watcher), ESTALE);
  record(event, user_data);
}

static void first_priority(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_watcher_set_priority(watcher, 1), 0);
}

/* ---- closed while the loop is not running ---- */

EACH_KIND(it_happens_inside_the_closing_call) {
  static Seen seen, destroyed;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, record, &seen);
  set_destroy(watcher, see_destroyed, &destroyed);
  round_of(&fixture);
  CHECK_EQ(destroyed.calls, 0);
  close_watcher(watcher);
  CHECK_EQ(destroyed.calls, 1);
  expect_plain(&destroyed.last, watcher, EVLOOP_EVENT_CLOSED, &seen);
  CHECK(destroyed.user_data == &destroyed);
  round_of(&fixture);
  CHECK_EQ(evloop_close(fixture.loop), 0);
  CHECK_EQ(destroyed.calls, 1);
}

EACH_KIND(it_happens_when_the_loop_is_closed) {
  static Seen seen, destroyed[10];
  evloop_watcher_t watchers[10];
  Fixture fixture = new_fixture();
  int i;
  for (i = 0; i < 10; i++) {
    watchers[i] = kind->add(&fixture, i % 3, record, &seen);
    set_destroy(watchers[i], see_destroyed, &destroyed[i]);
  }
  CHECK_EQ(evloop_close(fixture.loop), 0);
  for (i = 0; i < 10; i++) {
    CHECK_EQ(destroyed[i].calls, 1);
    expect_plain(&destroyed[i].last, watchers[i], EVLOOP_EVENT_CLOSED, &seen);
  }
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

TEST(its_event_has_the_data_that_was_set_last) {
  static Seen destroyed;
  evloop_watcher_t watcher = async(new_loop(), ignore, &destroyed);
  set_destroy(watcher, see_destroyed, &destroyed);
  CHECK_EQ(evloop_watcher_set_data(watcher, 4711), 0);
  CHECK_EQ(evloop_handle_close(watcher), 0);
  CHECK_EQ(destroyed.calls, 1);
  CHECK_EQ(destroyed.last.data, 4711);
}

TEST(a_second_notification_replaces_the_first) {
  static Seen first, second;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  set_destroy(watcher, see_destroyed, &first);
  set_destroy(watcher, see_destroyed, &second);
  close_watcher(watcher);
  CHECK_EQ(first.calls, 0);
  CHECK_EQ(second.calls, 1);
}

/* ---- closed in callbacks ---- */

static void close_itself(const evloop_event_t *event, void *user_data) {
  log_char('(');
  close_watcher(event->watcher);
  CHECK_ERR(evloop_watcher_close(event->watcher, 0), ESTALE);
  CHECK_EQ(event->data, (uintptr_t)user_data);
  log_char(')');
}

/* What is closed in its own callback: the notification is between that
 * callback and the next. */
EACH_KIND(it_happens_after_its_own_callback) {
  Fixture fixture = new_fixture();
  evloop_watcher_t own = kind->add(&fixture, 0, close_itself, WORD("a"));
  evloop_watcher_t next = kind->add(&fixture, 1, log_first_char, WORD("b"));
  first_priority(own);
  set_destroy(own, log_first_char, WORD("D"));
  kind->happen(&fixture, 0, own);
  kind->happen(&fixture, 1, next);
  round_of(&fixture);
  EXPECT_LOG("()Db");
}

static evloop_watcher_t victim;

static void close_victim(const evloop_event_t *event, void *user_data) {
  log_char('(');
  close_watcher(victim);
  CHECK(event->watcher != victim);
  CHECK(user_data == NULL);
  log_char(')');
}

EACH_KIND(closing_a_neighbour_that_is_ready_too) {
  Fixture fixture = new_fixture();
  evloop_watcher_t first = kind->add(&fixture, 0, close_victim, NULL), last;
  victim = kind->add(&fixture, 1, log_first_char, WORD("v"));
  last = kind->add(&fixture, 2, log_first_char, WORD("z"));
  first_priority(first);
  CHECK_EQ(evloop_watcher_set_priority(last, -1), 0);
  set_destroy(victim, log_first_char, WORD("D"));
  kind->happen(&fixture, 0, first);
  kind->happen(&fixture, 1, victim);
  kind->happen(&fixture, 2, last);
  round_of(&fixture);
  EXPECT_LOG("()Dz");
}

static void close_with_wait(const evloop_event_t *event, void *user_data) {
  (void)event;
  log_char(*(const char *)user_data);
  CHECK_EQ(evloop_watcher_close(victim, EVLOOP_CLOSE_WAIT), 0);
}

EACH_KIND(waiting_for_a_neighbour_does_not_block) {
  Fixture fixture = new_fixture();
  evloop_watcher_t first = kind->add(&fixture, 0, close_with_wait, WORD("a"));
  victim = kind->add(&fixture, 1, log_first_char, WORD("v"));
  first_priority(first);
  set_destroy(victim, log_first_char, WORD("D"));
  kind->happen(&fixture, 0, first);
  kind->happen(&fixture, 1, victim);
  round_of(&fixture);
  EXPECT_LOG("aD");
}

static void try_to_wait_for_itself(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_ERR(evloop_watcher_close(event->watcher, EVLOOP_CLOSE_WAIT), EDEADLK);
  CHECK_EQ(evloop_handle_kind(event->watcher), EVLOOP_KIND_WATCHER);
  if (event->type == EVLOOP_EVENT_DEFER) CHECK_EQ(evloop_watcher_enable(event->watcher), 0);
}

EACH_KIND(waiting_for_its_own_callback_is_refused) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, try_to_wait_for_itself, &seen);
  int i;
  async(fixture.loop, ignore, NULL);
  for (i = 1; i <= 3; i++) {
    calm(&fixture);
    kind->happen(&fixture, 0, watcher);
    round_of(&fixture);
    CHECK_EQ(seen.calls, i);
  }
  CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
}

static void close_and_add(const evloop_event_t *event, void *user_data) {
  Fixture *fixture = (Fixture *)user_data;
  close_watcher(event->watcher);
  log_char('x');
  readable_io(fixture->loop, fixture->fds[0], log_first_char, WORD("n"));
}

TEST(a_new_watcher_of_the_same_descriptor_works) {
  static Fixture fixture;
  fixture = new_fixture();
  add_io(&fixture, 0, close_and_add, &fixture);
  OK(eventfd_write(fixture.fds[0], 1));
  turn(fixture.loop);
  turn(fixture.loop);
  CHECK(strcmp(event_log, "xn") == 0 || strcmp(event_log, "xnn") == 0);
}

/* ---- the loop is closed in a callback ---- */

static void close_its_loop(const evloop_event_t *event, void *user_data) {
  evloop_t loop = OK(evloop_watcher_loop(event->watcher));
  CHECK(user_data == NULL);
  log_char('(');
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_ERR(evloop_close(loop), ESTALE);
  CHECK_ERR(evloop_watcher_enable(event->watcher), ESTALE);
  CHECK_ERR(evloop_add_async(loop, ignore, NULL), ESTALE);
  CHECK_ERR(evloop_post(loop, ignore, NULL), ESTALE);
  log_char(')');
}

EACH_KIND(closing_the_loop_in_a_callback) {
  static Seen destroyed[3];
  Fixture fixture = new_fixture();
  evloop_watcher_t watchers[3];
  int i;
  watchers[0] = kind->add(&fixture, 0, close_its_loop, NULL);
  watchers[1] = kind->add(&fixture, 1, log_first_char, WORD("n"));
  watchers[2] = OK(evloop_add_timer(fixture.loop, MONOTONIC, 0, HOUR, 0, 0, log_first_char,
                                    WORD("t")));
  first_priority(watchers[0]);
  for (i = 0; i < 3; i++) set_destroy(watchers[i], see_destroyed, &destroyed[i]);
  for (i = 0; i < 2; i++) kind->happen(&fixture, i, watchers[i]);
  CHECK_ERR(evloop_run_for_ns(fixture.loop, 0), ESTALE);
  EXPECT_LOG("()");
  for (i = 0; i < 3; i++) CHECK_EQ(destroyed[i].calls, 1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  CHECK_ERR(evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT), ESTALE);
}

static void close_loop_of(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(event->watcher, 0);
  CHECK_EQ(evloop_close(*(evloop_t *)user_data), 0);
  log_char('x');
}

TEST(posted_calls_of_a_closed_loop_are_not_made) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  CHECK_EQ(evloop_post(loop, close_loop_of, &loop), 0);
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
  CHECK_ERR(evloop_wait(loop, &event, 1, -1), ESTALE);
  EXPECT_LOG("x");
  loop = new_loop();
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
  CHECK_EQ(evloop_close(loop), 0);
  EXPECT_LOG("");
}

/* ---- what is freed in the notification ---- */

static void free_data(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(event->data, (uintptr_t)user_data);
  memset(user_data, 0xdd, sizeof(Seen));
  free(user_data);
}

static void see_three_times(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  if (seen->calls == 3) close_watcher(event->watcher);
  CHECK(seen->calls <= 3);
}

TEST(a_thousand_watchers_free_their_data) {
  evloop_t loop = new_loop();
  int i;
  for (i = 0; i < 1000; i++) {
    Seen *seen = (Seen *)calloc(1, sizeof *seen);
    evloop_watcher_t watcher = timer(loop, i % 7, 1, see_three_times, seen);
    set_destroy(watcher, free_data, seen);
    if (i % 10 == 0) close_watcher(watcher);
  }
  run_to_end(loop);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

/* ---- notifications that do things ---- */

typedef struct Chain {
  evloop_watcher_t watchers[1000];
  int closed;
} Chain;

static void close_next(const evloop_event_t *event, void *user_data) {
  Chain *chain = (Chain *)user_data;
  CHECK(event->type == EVLOOP_EVENT_CLOSED);
  if (++chain->closed < LENGTH(chain->watchers)) close_watcher(chain->watchers[chain->closed]);
}

static void make_chain(Chain *chain, evloop_t loop) {
  int i;
  memset(chain, 0, sizeof *chain);
  for (i = 0; AT_ROW(i, chain->watchers); i++) {
    chain->watchers[i] = async(loop, ignore, NULL);
    set_destroy(chain->watchers[i], close_next, chain);
  }
}

TEST(a_notification_closes_the_next_watcher) {
  static Chain chain;
  evloop_t loop = new_loop();
  make_chain(&chain, loop);
  close_watcher(chain.watchers[0]);
  CHECK_EQ(chain.closed, LENGTH(chain.watchers));
  make_chain(&chain, loop);
  victim = chain.watchers[0];
  timer(loop, 0, 0, close_victim, NULL);
  timer(loop, 1, 0, ignore, NULL);
  run_to_end(loop);
  CHECK_EQ(chain.closed, LENGTH(chain.watchers));
}

static void add_another(const evloop_event_t *event, void *user_data) {
  CHECK(event->type == EVLOOP_EVENT_CLOSED);
  timer(*(evloop_t *)user_data, 0, 0, log_first_char, WORD("t"));
}

TEST(a_notification_adds_a_watcher) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, 0, 0, close_itself, NULL);
  set_destroy(watcher, add_another, &loop);
  run_to_end(loop);
  EXPECT_LOG("()t");
  watcher = async(loop, ignore, NULL);
  set_destroy(watcher, add_another, &loop);
  close_watcher(watcher);
  run_to_end(loop);
  EXPECT_LOG("t");
}

static void close_loop_in_notification(const evloop_event_t *event, void *user_data) {
  CHECK(event->type == EVLOOP_EVENT_CLOSED);
  CHECK_EQ(evloop_close(*(evloop_t *)user_data), 0);
  log_char('D');
}

TEST(a_notification_closes_the_loop) {
  static Seen destroyed;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, 0, 0, close_itself, NULL);
  set_destroy(async(loop, ignore, NULL), see_destroyed, &destroyed);
  set_destroy(watcher, close_loop_in_notification, &loop);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
  EXPECT_LOG("()D");
  CHECK_EQ(destroyed.calls, 1);
  loop = new_loop();
  watcher = async(loop, ignore, NULL);
  set_destroy(async(loop, ignore, NULL), see_destroyed, &destroyed);
  set_destroy(watcher, close_loop_in_notification, &loop);
  close_watcher(watcher);
  EXPECT_LOG("D");
  CHECK_EQ(destroyed.calls, 2);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

/* ---- without a callback ---- */

static void expect_record(evloop_t loop, int64_t watcher, const void *data) {
  evloop_event_t events[4];
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 1);
  expect_plain(&events[0], watcher, EVLOOP_EVENT_CLOSED, data);
  CHECK_EQ(evloop_wait(loop, events, 4, 0), 0);
}

EACH_KIND(without_a_callback_it_is_a_record) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, record, &seen);
  set_destroy(watcher, NULL, &fixture);
  close_watcher(watcher);
  expect_record(fixture.loop, watcher, &seen);
  CHECK_EQ(seen.calls, 0);
}

TEST(a_record_replaces_a_callback_and_a_callback_a_record) {
  static Seen destroyed;
  evloop_t loop = new_loop();
  evloop_event_t event;
  evloop_watcher_t watcher = async(loop, ignore, &loop);
  set_destroy(watcher, see_destroyed, &destroyed);
  set_destroy(watcher, NULL, NULL);
  close_watcher(watcher);
  CHECK_EQ(destroyed.calls, 0);
  expect_record(loop, watcher, &loop);
  watcher = async(loop, ignore, &loop);
  set_destroy(watcher, NULL, NULL);
  set_destroy(watcher, see_destroyed, &destroyed);
  close_watcher(watcher);
  CHECK_EQ(destroyed.calls, 1);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
}

TEST(records_of_a_closed_loop_are_gone) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  set_destroy(watcher, NULL, NULL);
  set_destroy(async(loop, ignore, NULL), NULL, NULL);
  close_watcher(watcher);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_ERR(evloop_wait(loop, &event, 1, 0), ESTALE);
}

TEST(a_record_of_a_callback_that_closed_itself) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  evloop_watcher_t watcher = timer(loop, 0, 0, close_itself, NULL);
  set_destroy(watcher, NULL, NULL);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  EXPECT_LOG("()");
  expect_plain(&event, watcher, EVLOOP_EVENT_CLOSED, NULL);
}

CHECK_MAIN()
