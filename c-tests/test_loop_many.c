/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Very many watchers of one kind, closed in any order: what costs a time that
 * grows with the square of their number runs into the limit of the case; and
 * the memory of signal watchers, which is given back. */

#define _GNU_SOURCE
#include "loop_support.h"

enum { MANY = 100000 };

/* Tools are slow, and count otherwise. */
static int many(void) {
  return getenv("EVLOOP_TEST_VALGRIND") || getenv("EVLOOP_TEST_ASAN") ? MANY / 50 : MANY;
}

static evloop_watcher_t watchers[MANY];

/* ---- orders ---- */

typedef enum Order { AS_ADDED, REVERSE, MIXED, ORDERS } Order;

static int at(Order order, int i) {
  int n = many();
  if (order == AS_ADDED) return i;
  if (order == REVERSE) return n - 1 - i;
  return (int)(((int64_t)i * 7919) % n); /* each one once: 7919 is a prime */
}

static void close_all(Order order) {
  for (int i = 0; i < many(); i++) close_watcher(watchers[at(order, i)]);
}

/* ---- kinds ---- */

static void ignore_signal(void) {
  signal(SIGUSR1, SIG_IGN);
}

typedef evloop_watcher_t AddOne(evloop_t loop, evloop_callback_t callback, void *user_data);

static evloop_watcher_t add_signal(evloop_t loop, evloop_callback_t callback, void *user_data) {
  return evloop_add_signal(loop, SIGUSR1, 0, callback, user_data);
}

static evloop_watcher_t add_real_time(evloop_t loop, evloop_callback_t callback, void *user_data) {
  return evloop_add_signal(loop, SIGRTMIN + 1, 0, callback, user_data);
}

static evloop_watcher_t add_a_timer(evloop_t loop, evloop_callback_t callback, void *user_data) {
  return evloop_add_timer(loop, MONOTONIC, 0, HOUR, 0, 0, callback, user_data);
}

static const struct {
  const char *name;
  AddOne *add;
} kinds[] = {
    {"signal", add_signal},
    {"real-time signal", add_real_time},
    {"prepare", evloop_add_prepare},
    {"check", evloop_add_check},
    {"idle", evloop_add_idle},
    {"defer", evloop_add_defer},
    {"exit", evloop_add_exit},
    {"clock_change", evloop_add_clock_change},
    {"async", evloop_add_async},
    {"timer", add_a_timer},
};

static void add_all(evloop_t loop, AddOne *add, evloop_callback_t callback, void *user_data) {
  for (int i = 0; i < many(); i++) watchers[i] = OK(add(loop, callback, user_data));
}

TEST_TIMEOUT(watchers_of_each_kind_are_closed_in_any_order, 60) {
  ignore_signal();
  signal(SIGRTMIN + 1, SIG_IGN);
  evloop_t loop = new_loop();
  for (int kind = 0; AT_ROW(kind, kinds); kind++) {
    for (Order order = AS_ADDED; order < ORDERS; order = (Order)(order + 1)) {
      add_all(loop, kinds[kind].add, ignore, NULL);
      close_all(order);
      turn(loop);
    }
  }
  close_loop(loop);
}

TEST_TIMEOUT(one_signal_is_delivered_to_all_watchers, 60) {
  Seen seen;
  memset(&seen, 0, sizeof seen);
  ignore_signal();
  evloop_t loop = new_loop();
  add_all(loop, add_signal, record, &seen);
  for (int round = 1; round <= 3; round++) {
    raise(SIGUSR1);
    turn(loop);
    CHECK_EQ(seen.calls, round * many());
  }
  /* What came with the last ones is still there. */
  close_all(REVERSE);
  close_loop(loop);
}

TEST_TIMEOUT(records_of_signals_are_taken_and_dropped, 60) {
  evloop_event_t event;
  ignore_signal();
  evloop_t loop = new_loop();
  add_all(loop, add_signal, NULL, NULL);
  raise(SIGUSR1);
  turn(loop);
  for (int i = 0; i < many() / 2; i++) CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  close_all(REVERSE);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
  close_loop(loop);
}

/* ---- what is held, or over its rate limit ---- */

static void send_to_all(void) {
  for (int i = 0; i < many(); i++) CHECK_EQ(evloop_async_send(watchers[i]), 0);
}

TEST_TIMEOUT(watchers_with_records_are_closed_in_any_order, 60) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  for (Order order = AS_ADDED; order < ORDERS; order = (Order)(order + 1)) {
    add_all(loop, evloop_add_async, NULL, NULL);
    send_to_all();
    turn(loop);
    /* The same record once more. */
    send_to_all();
    turn(loop);
    close_all(order);
    CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
  }
  close_loop(loop);
}

TEST_TIMEOUT(records_of_watchers_that_are_disabled_are_taken_back, 60) {
  evloop_event_t *events = (evloop_event_t *)calloc((size_t)many() + 1, sizeof *events);
  CHECK(events != NULL);
  evloop_t loop = new_loop();
  add_all(loop, evloop_add_async, NULL, NULL);
  for (Order order = AS_ADDED; order < ORDERS; order = (Order)(order + 1)) {
    send_to_all();
    turn(loop);
    for (int i = 0; i < many(); i++) CHECK_EQ(evloop_watcher_disable(watchers[at(order, i)]), 0);
    CHECK_EQ(evloop_wait(loop, events, 1, 0), 0);
    for (int i = 0; i < many(); i++) CHECK_EQ(evloop_watcher_enable(watchers[at(order, i)]), 0);
    CHECK_EQ(evloop_wait(loop, events, many() + 1, 0), many());
  }
  close_loop(loop);
  free(events);
}

/* Half of the records are of watchers that are closed by then. */
TEST_TIMEOUT(records_of_those_that_are_left_come_in_order, 60) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  add_all(loop, evloop_add_async, NULL, NULL);
  send_to_all();
  turn(loop);
  for (int i = 0; i < many(); i++) {
    if (at(MIXED, i) % 2 == 0) close_watcher(watchers[at(MIXED, i)]);
  }
  for (int i = 1; i < many(); i += 2) {
    CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
    CHECK_EQ(event.watcher, watchers[i]);
  }
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
  close_loop(loop);
}

TEST_TIMEOUT(watchers_over_their_rate_limit_are_closed_in_any_order, 60) {
  Seen seen;
  for (Order order = AS_ADDED; order < ORDERS; order = (Order)(order + 1)) {
    memset(&seen, 0, sizeof seen);
    evloop_t loop = virtual_loop();
    add_all(loop, evloop_add_async, record, &seen);
    for (int i = 0; i < many(); i++) {
      CHECK_EQ(evloop_watcher_set_ratelimit(watchers[i], i % 2 ? HOUR : SECOND, 1), 0);
    }
    for (int round = 0; round < 2; round++) {
      send_to_all();
      turn(loop);
    }
    CHECK_EQ(seen.calls, many());
    /* Half of them may go on, some without a limit. */
    for (int i = 1; i < many(); i += 4) {
      CHECK_EQ(evloop_watcher_set_ratelimit(watchers[i], 0, 0), 0);
    }
    advance(loop, SECOND);
    turn(loop);
    CHECK_EQ(seen.calls, 2 * many() - many() / 4);
    close_all(order);
    CHECK_EQ(turn(loop), 0);
    close_loop(loop);
  }
}

/* ---- failures ---- */

TEST_TIMEOUT(a_descriptor_that_was_closed_fails_for_all_its_watchers, 60) {
  Seen seen;
  Pipe p = new_pipe();
  memset(&seen, 0, sizeof seen);
  evloop_t loop = new_loop();
  for (int i = 0; i < many(); i++) {
    watchers[i] = OK(evloop_add_io(loop, p.r, EVLOOP_EPOLLIN, record, &seen));
  }
  turn(loop);
  OK(close(p.r));
  for (int i = 0; i < many(); i++) {
    CHECK_EQ(evloop_io_modify(watchers[i], EVLOOP_EPOLLIN | EVLOOP_EPOLLPRI), 0);
  }
  turns(loop, 2);
  CHECK_EQ(seen.errors, many());
  CHECK_EQ(seen.calls, many());
  close_all(MIXED);
  close_loop(loop);
}

CHECK_MAIN()
