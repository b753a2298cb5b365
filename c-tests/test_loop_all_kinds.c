/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What holds for every kind of watcher: events, data, disabling, names,
 * keeping the loop alive, handles that are stale. */

#define _GNU_SOURCE 1
#include "loop_kinds.h"

/* ---- events ---- */

EACH_KIND(the_event_is_as_documented) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, record, &seen);
  int64_t deadline, due;
  CHECK(watcher > 0);
  CHECK(watcher < INT64_C(1) << 53);
  CHECK_EQ(evloop_handle_kind(watcher), EVLOOP_KIND_WATCHER);
  CHECK_EQ(seen.calls, 0);
  kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 1);
  CHECK(seen.user_data == &seen);
  deadline = seen.last.deadline_ns;
  due = seen.last.time_ns;
  if (kind == &kind_timer) CHECK(deadline > 0 && due >= deadline);
  if (kind == &kind_timer) seen.last.deadline_ns = seen.last.time_ns = 0;
  if (kind == &kind_io) {
    CHECK_EQ(seen.last.fd, fixture.fds[0]);
    CHECK_EQ(seen.last.events, EVLOOP_EPOLLIN);
    seen.last.fd = -1;
    seen.last.events = 0;
  }
  if (kind == &kind_file) {
    CHECK_EQ(seen.last.events, EVLOOP_FILE_ATTRIB);
    seen.last.events = 0;
    seen.last.reserved = 0; /* the library's */
  }
  expect_plain(&seen.last, watcher, kind->type, &seen);
}

EACH_KIND(a_NULL_user_data_is_data_0) {
  static evloop_event_t events[4];
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, NULL, NULL);
  if (kind == &kind_exit) return; /* a wait does not call those */
  kind->happen(&fixture, 0, watcher);
  CHECK_EQ(evloop_wait(fixture.loop, events, 4, 0), 1);
  CHECK_EQ(events[0].watcher, watcher);
  CHECK_EQ(events[0].type, kind->type);
  CHECK_EQ(events[0].data, 0);
}

EACH_KIND(the_data_can_be_changed) {
  static Seen before, after;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, record, &before);
  CHECK_EQ(evloop_watcher_set_data(watcher, (uintptr_t)&after), 0);
  kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  CHECK_EQ(before.calls, 0);
  CHECK_EQ(after.calls, 1);
  CHECK_EQ(after.last.data, (uintptr_t)&after);
}

TEST(data_has_64_bits) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, NULL, NULL);
  CHECK_EQ(evloop_watcher_set_data(watcher, UINT64_C(0xfedcba9876543210)), 0);
  trigger(watcher);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  CHECK(event.data == UINT64_C(0xfedcba9876543210));
}

/* ---- disabling ---- */

EACH_KIND(a_disabled_watcher_is_quiet_until_it_is_enabled) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, record, &seen);
  async(fixture.loop, ignore, NULL);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.count, 1);
}

/* Of two that are ready, whichever is first disables the other. */
typedef struct Pair {
  evloop_watcher_t watchers[2];
  int calls;
  int last;
} Pair;

static void disable_other(const evloop_event_t *event, void *user_data) {
  Pair *pair = (Pair *)user_data;
  pair->last = event->watcher == pair->watchers[1];
  pair->calls++;
  CHECK_EQ(evloop_watcher_disable(pair->watchers[1 - pair->last]), 0);
}

EACH_KIND(disabling_a_neighbour_that_is_ready_too) {
  static Pair pair;
  Fixture fixture = new_fixture();
  int i, other;
  async(fixture.loop, ignore, NULL);
  for (i = 0; i < 2; i++) {
    pair.watchers[i] = kind->add(&fixture, i, disable_other, &pair);
    kind->happen(&fixture, i, pair.watchers[i]);
  }
  round_of(&fixture);
  CHECK_EQ(pair.calls, 1);
  other = 1 - pair.last;
  close_watcher(pair.watchers[pair.last]);
  round_of(&fixture);
  CHECK_EQ(pair.calls, 1);
  CHECK_EQ(evloop_watcher_enable(pair.watchers[other]), 0);
  pair.watchers[1 - other] = async(fixture.loop, ignore, NULL);
  round_of(&fixture);
  CHECK_EQ(pair.calls, 2);
  CHECK_EQ(pair.last, other);
}

static void disable_itself(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_watcher_disable(event->watcher), 0);
}

EACH_KIND(disabling_itself_in_its_callback) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, disable_itself, &seen);
  async(fixture.loop, ignore, NULL);
  kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  if (kind != &kind_io) kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 2);
}

static void disable_and_enable(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_watcher_disable(event->watcher), 0);
  if (event->type != EVLOOP_EVENT_DEFER) CHECK_EQ(evloop_watcher_enable(event->watcher), 0);
}

EACH_KIND(disabling_and_enabling_changes_nothing) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, disable_and_enable, &seen);
  async(fixture.loop, ignore, NULL);
  kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 1);
  calm(&fixture);
  if (kind == &kind_defer) CHECK_EQ(evloop_watcher_enable(watcher), 0);
  kind->happen(&fixture, 0, watcher);
  round_of(&fixture);
  CHECK_EQ(seen.calls, 2);
}

TEST(a_timer_that_became_due_while_disabled_counts_all) {
  static Seen once, periodic, burst;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watchers[3];
  int i;
  watchers[0] = timer(loop, SECOND, 0, record, &once);
  watchers[1] = timer(loop, SECOND, SECOND, record, &periodic);
  watchers[2] = OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_BURST, SECOND, SECOND, 0, record,
                                    &burst));
  for (i = 0; i < 3; i++) CHECK_EQ(evloop_watcher_disable(watchers[i]), 0);
  advance(loop, 10 * SECOND);
  turns(loop, 3);
  CHECK_EQ(once.calls + periodic.calls + burst.calls, 0);
  for (i = 0; i < 3; i++) CHECK_EQ(evloop_watcher_enable(watchers[i]), 0);
  turns(loop, 20);
  CHECK_EQ(once.calls, 1);
  CHECK_EQ(once.count, 1);
  CHECK_EQ(periodic.calls, 1);
  CHECK_EQ(periodic.count, 10);
  CHECK_EQ(burst.count, 10);
  CHECK_EQ(once.last.deadline_ns, SECOND);
  CHECK_EQ(periodic.last.deadline_ns, SECOND);
  advance(loop, SECOND);
  turn(loop);
  CHECK_EQ(periodic.last.deadline_ns, 11 * SECOND);
}

TEST(a_disabled_descriptor_does_not_spin) {
  static Seen seen, checks;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = readable_io(loop, event_fd(1), record, &seen);
  OK(evloop_add_check(loop, record, &checks));
  turn(loop);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_run_for_ns(loop, 10 * MS), 1);
  CHECK_EQ(seen.calls, 1);
  CHECK(checks.calls <= 5);
}

/* ---- keeping the loop alive ---- */

EACH_KIND(an_enabled_watcher_keeps_the_loop_alive) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher;
  int alive = kind->alone ? 0 : 1;
  CHECK_EQ(turn(fixture.loop), 0);
  watcher = kind->add(&fixture, 0, ignore, NULL);
  if (kind == &kind_defer) return; /* it is called, and then disabled */
  CHECK_EQ(turn(fixture.loop), alive);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  CHECK_EQ(turn(fixture.loop), 0);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  if (alive) CHECK_EQ(evloop_watcher_ref(watcher), 0);
  CHECK_EQ(turn(fixture.loop), alive);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(turn(fixture.loop), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(turn(fixture.loop), alive);
  close_watcher(watcher);
  CHECK_EQ(turn(fixture.loop), 0);
}

TEST(an_unreferenced_watcher_works_beside_others) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, 0, MS, record, &seen);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  timer(loop, 5 * MS, 0, ignore, NULL);
  run_to_end(loop);
  CHECK(seen.calls > 0);
}

TEST(a_run_ends_when_its_last_watcher_goes) {
  evloop_t loop = new_loop();
  static Pair pair;
  run_to_end(loop);
  pair.watchers[0] = async(loop, disable_other, &pair);
  pair.watchers[1] = timer(loop, 0, 0, disable_other, &pair);
  /* The timer expires, which disables the async watcher. */
  run_to_end(loop);
  CHECK_EQ(pair.calls, 1);
}

/* ---- names ---- */

static void expect_name(evloop_watcher_t watcher, const char *name) {
  size_t length = strlen(name);
  char *buffer = (char *)malloc(length + 2);
  CHECK(buffer != NULL);
  memset(buffer, '#', length + 2);
  CHECK_EQ(evloop_watcher_get_name(watcher, buffer, length + 2), length);
  CHECK(strcmp(buffer, name) == 0);
  CHECK(buffer[length + 1] == '#');
  CHECK_EQ(evloop_watcher_get_name(watcher, buffer, length + 1), length);
  CHECK(strcmp(buffer, name) == 0);
  CHECK_EQ(evloop_watcher_get_name(watcher, NULL, 0), length);
  free(buffer);
}

EACH_KIND(a_watcher_has_a_name) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  char name[] = "door bell";
  expect_name(watcher, "");
  CHECK_EQ(evloop_watcher_set_name(watcher, name), 0);
  name[0] = 'X';
  expect_name(watcher, "door bell");
  CHECK_EQ(evloop_watcher_set_name(watcher, "b"), 0);
  expect_name(watcher, "b");
  CHECK_EQ(evloop_watcher_set_name(watcher, NULL), 0);
  expect_name(watcher, "");
}

TEST(names_are_long_foreign_and_odd) {
  static char name[10000];
  evloop_watcher_t watcher = async(new_loop(), ignore, NULL);
  memset(name, 'n', sizeof name - 1);
  CHECK_EQ(evloop_watcher_set_name(watcher, name), 0);
  expect_name(watcher, name);
  CHECK_EQ(evloop_watcher_set_name(watcher, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), 0);
  expect_name(watcher, "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
  CHECK_EQ(evloop_watcher_set_name(watcher, "\xff\x80 \x01%s\n"), 0);
  expect_name(watcher, "\xff\x80 \x01%s\n");
  CHECK_EQ(evloop_watcher_set_name(watcher, ""), 0);
  expect_name(watcher, "");
}

TEST(a_name_is_cut_to_fit) {
  evloop_watcher_t watcher = async(new_loop(), ignore, NULL);
  char buffer[8];
  size_t cap;
  CHECK_EQ(evloop_watcher_set_name(watcher, "abcdef"), 0);
  for (cap = 0; cap <= 6; cap++) {
    memset(buffer, '#', sizeof buffer);
    CHECK_EQ(evloop_watcher_get_name(watcher, buffer, cap), 6);
    if (cap > 0) CHECK_EQ(strlen(buffer), cap - 1);
    if (cap > 0) CHECK(memcmp(buffer, "abcdef", cap - 1) == 0);
    CHECK(buffer[cap] == '#');
  }
  CHECK_ERR(evloop_watcher_get_name(watcher, NULL, 1), EINVAL);
}

/* ---- which loop ---- */

EACH_KIND(a_watcher_knows_its_loop) {
  Fixture fixture = new_fixture(), other = new_fixture();
  CHECK_EQ(evloop_watcher_loop(kind->add(&fixture, 0, ignore, NULL)), fixture.loop);
  CHECK_EQ(evloop_watcher_loop(kind->add(&other, 0, ignore, NULL)), other.loop);
}

/* ---- wrong handles ---- */

static void expect_everywhere(int64_t handle, int code) {
  char buffer[4] = "abc";
  CHECK_EQ(evloop_watcher_close(handle, 0), -code);
  CHECK_EQ(evloop_watcher_close(handle, EVLOOP_CLOSE_WAIT), -code);
  CHECK_EQ(evloop_watcher_enable(handle), -code);
  CHECK_EQ(evloop_watcher_disable(handle), -code);
  CHECK_EQ(evloop_watcher_set_priority(handle, 1), -code);
  CHECK_EQ(evloop_watcher_set_ratelimit(handle, 1, 1), -code);
  CHECK_EQ(evloop_watcher_set_name(handle, "x"), -code);
  CHECK_EQ(evloop_watcher_get_name(handle, buffer, sizeof buffer), -code);
  CHECK(strcmp(buffer, "abc") == 0);
  CHECK_EQ(evloop_watcher_set_data(handle, 1), -code);
  CHECK_EQ(evloop_watcher_ref(handle), -code);
  CHECK_EQ(evloop_watcher_unref(handle), -code);
  CHECK_EQ(evloop_watcher_loop(handle), -code);
  CHECK_EQ(evloop_watcher_set_destroy(handle, ignore, NULL), -code);
  CHECK_EQ(evloop_io_modify(handle, EVLOOP_EPOLLIN), -code);
  CHECK_EQ(evloop_timer_set(handle, 0, 0, 0), -code);
  CHECK_EQ(evloop_timer_again(handle), -code);
  CHECK_EQ(evloop_timer_remaining_ns(handle), -code);
  CHECK_EQ(evloop_async_send(handle), -code);
}

EACH_KIND(a_closed_watcher_is_stale) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  close_watcher(watcher);
  expect_everywhere(watcher, ESTALE);
  CHECK_ERR(evloop_handle_kind(watcher), ESTALE);
  CHECK_ERR(evloop_handle_close(watcher), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  round_of(&fixture);
  kind->add(&fixture, 0, ignore, NULL);
  expect_everywhere(watcher, ESTALE);
}

EACH_KIND(a_watcher_is_closed_as_any_handle) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  CHECK_EQ(evloop_handle_close(watcher), 0);
  expect_everywhere(watcher, ESTALE);
}

EACH_KIND(the_watchers_of_a_closed_loop_are_stale) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  CHECK_EQ(evloop_close(fixture.loop), 0);
  expect_everywhere(watcher, ESTALE);
}

TEST(other_handles_are_no_watchers) {
  evloop_t loop = new_loop();
  expect_everywhere(loop, EDOM);
  expect_everywhere(OK(tfd_create(MONOTONIC, 0)), EDOM);
  expect_everywhere(0, ESTALE);
  expect_everywhere(-1, ESTALE);
  expect_everywhere(INT64_MAX, ESTALE);
  CHECK_EQ(turn(loop), 0);
}

TEST(a_watcher_is_no_loop) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  evloop_event_t event;
  CHECK_ERR(evloop_close(watcher), EDOM);
  CHECK_ERR(evloop_run(watcher, EVLOOP_RUN_NOWAIT), EDOM);
  CHECK_ERR(evloop_run_for_ns(watcher, 0), EDOM);
  CHECK_ERR(evloop_wait(watcher, &event, 1, 0), EDOM);
  CHECK_ERR(evloop_stop(watcher), EDOM);
  CHECK_ERR(evloop_wakeup(watcher), EDOM);
  CHECK_ERR(evloop_post(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_now_ns(watcher), EDOM);
  CHECK_ERR(evloop_next_timeout_ns(watcher), EDOM);
  CHECK_ERR(evloop_add_async(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_idle(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_prepare(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_check(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_defer(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_exit(watcher, ignore, NULL), EDOM);
  CHECK_ERR(evloop_add_clock_change(watcher, ignore, NULL), EDOM);
}

TEST(an_unknown_flag_does_not_close) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  CHECK_ERR(evloop_watcher_close(watcher, 2), EINVAL);
  CHECK_ERR(evloop_watcher_close(watcher, UINT32_MAX), EINVAL);
  CHECK_EQ(evloop_handle_kind(watcher), EVLOOP_KIND_WATCHER);
  CHECK_EQ(turn(loop), 1);
}

CHECK_MAIN()
