/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Async, idle, prepare, check, defer and exit watchers. */

#define _GNU_SOURCE 1
#include "loop_support.h"

/* ---- async ---- */

TEST(any_number_of_sends_is_one_event) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  int i;
  turns(loop, 3);
  CHECK_EQ(seen.calls, 0);
  for (i = 0; i < 5; i++) trigger(watcher);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  expect_plain(&seen.last, watcher, EVLOOP_EVENT_ASYNC, &seen);
  trigger(watcher);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.calls, 2);
}

TEST(several_async_watchers_have_events_of_their_own) {
  static Seen seen[100];
  evloop_watcher_t watchers[100];
  evloop_t loop = new_loop();
  int i, round;
  for (i = 0; i < 100; i++) watchers[i] = async(loop, record, &seen[i]);
  for (round = 1; round <= 3; round++) {
    for (i = 0; i < 100; i += round) trigger(watchers[i]);
    turn(loop);
  }
  for (i = 0; i < 100; i++) {
    CHECK_EQ(seen[i].calls, 1 + (i % 2 == 0) + (i % 3 == 0));
    CHECK_EQ(seen[i].last.watcher, watchers[i]);
  }
}

static void send_to_itself(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  log_char('a');
  if (seen->calls < 3) trigger(event->watcher);
}

TEST(a_send_in_its_own_callback_is_delivered_in_the_next_iteration) {
  static Seen seen;
  evloop_t loop = new_loop();
  trigger(async(loop, send_to_itself, &seen));
  OK(evloop_add_check(loop, log_first_char, WORD("c")));
  turns(loop, 4);
  EXPECT_LOG("acacacc");
}

TEST(a_send_to_a_disabled_watcher_is_kept) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  trigger(watcher);
  trigger(watcher);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
}

TEST(a_sent_event_survives_disable_and_enable) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  trigger(watcher);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  turn(loop);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 1);
}

TEST(only_async_watchers_can_be_sent_to) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  CHECK_ERR(evloop_async_send(timer(loop, HOUR, 0, ignore, NULL)), EINVAL);
  CHECK_ERR(evloop_async_send(readable_io(loop, event_fd(0), ignore, NULL)), EINVAL);
  CHECK_ERR(evloop_async_send(OK(evloop_add_defer(loop, ignore, NULL))), EINVAL);
  CHECK_ERR(evloop_async_send(loop), EDOM);
  CHECK_ERR(evloop_async_send(0), ESTALE);
  close_watcher(watcher);
  CHECK_ERR(evloop_async_send(watcher), ESTALE);
}

typedef struct Senders {
  evloop_watcher_t watcher;
  int64_t sent, seen;
} Senders;

static void *send_often(void *argument) {
  Senders *s = (Senders *)argument;
  int i;
  for (i = 0; i < 20000; i++) {
    int result;
    RAISE(s->sent, 1);
    result = evloop_async_send(s->watcher);
    /* The last ones may find it closed already. */
    CHECK(result == 0 || (result == -ESTALE && LOAD(s->sent) == 4 * 20000));
  }
  return NULL;
}

/* The last send is followed by a callback, which sees all. */
static void expect_all(const evloop_event_t *event, void *user_data) {
  Senders *s = (Senders *)user_data;
  int64_t sent = LOAD(s->sent);
  CHECK_EQ(event->count, 1);
  CHECK(sent >= s->seen);
  s->seen = sent;
  if (sent == 4 * 20000) close_watcher(event->watcher);
}

TEST(no_send_of_a_thread_is_lost) {
  static Senders s;
  evloop_t loop = new_loop();
  pthread_t threads[4];
  int i;
  s.watcher = async(loop, expect_all, &s);
  for (i = 0; i < 4; i++) threads[i] = start_thread(send_often, &s);
  run_to_end(loop);
  CHECK_EQ(s.seen, 4 * 20000);
  for (i = 0; i < 4; i++) join(threads[i]);
}

static evloop_watcher_t sent_by_handler;

static void send_from_handler(int number) {
  if (number != SIGUSR1 || evloop_async_send(sent_by_handler) != 0) _exit(1);
}

TEST(a_signal_handler_sends) {
  static Seen seen;
  evloop_t loop = new_loop();
  sent_by_handler = async(loop, record, &seen);
  handle_signals(send_from_handler);
  raise(SIGUSR1);
  raise(SIGUSR1);
  CHECK_EQ(seen.calls, 0);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 1);
}

TEST(a_signal_handler_sends_on_the_sleeping_thread) {
  static Seen seen;
  static Runner runner;
  evloop_t loop = new_loop();
  int i;
  sent_by_handler = async(loop, record, &seen);
  handle_signals(send_from_handler);
  start_runner(&runner, run_until_done, loop);
  for (i = 1; i <= 100; i++) {
    if (i % 10 == 0) wait_until_asleep(&runner.tid);
    CHECK_EQ(pthread_kill(runner.thread, SIGUSR1), 0);
    UNTIL(LOAD(seen.calls) >= i);
  }
  stop_runner(&runner);
  CHECK_EQ(seen.calls, 100);
}

/* ---- prepare and check ---- */

static void make_readable(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(event->type, EVLOOP_EVENT_PREPARE);
  OK(eventfd_write(*(const int *)user_data, 1));
  log_char('p');
}

TEST(prepare_is_before_the_wait_and_check_after_it) {
  evloop_t loop = new_loop();
  int fd = event_fd(0);
  OK(evloop_add_check(loop, log_first_char, WORD("c")));
  readable_io(loop, fd, log_first_char, WORD("i"));
  OK(evloop_add_prepare(loop, make_readable, &fd));
  turn(loop);
  EXPECT_LOG("pic");
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  EXPECT_LOG("pic");
}

TEST(prepare_and_check_run_in_each_iteration) {
  static Seen prepare, check;
  evloop_t loop = new_loop();
  evloop_watcher_t before = OK(evloop_add_prepare(loop, record, &prepare));
  evloop_watcher_t after = OK(evloop_add_check(loop, record, &check));
  turns(loop, 10);
  CHECK_EQ(prepare.calls, 10);
  CHECK_EQ(check.calls, 10);
  expect_plain(&prepare.last, before, EVLOOP_EVENT_PREPARE, &prepare);
  expect_plain(&check.last, after, EVLOOP_EVENT_CHECK, &check);
}

TEST(a_wakeup_makes_the_loop_go_round) {
  static Seen prepare, check;
  static Runner runner;
  evloop_t loop = new_loop();
  int rounds;
  OK(evloop_add_prepare(loop, record, &prepare));
  OK(evloop_add_check(loop, record, &check));
  start_sleeper(&runner, run_until_done, loop);
  rounds = LOAD(prepare.calls);
  CHECK_EQ(LOAD(check.calls), rounds - 1);
  CHECK_EQ(evloop_wakeup(loop), 0);
  UNTIL(LOAD(prepare.calls) > rounds);
  CHECK(LOAD(check.calls) >= rounds);
  stop_runner(&runner);
}

/* ---- the order of one iteration ---- */

TEST(one_iteration_has_its_order) {
  evloop_t loop = new_loop();
  OK(evloop_add_check(loop, log_first_char, WORD("c")));
  OK(evloop_add_idle(loop, log_first_char, WORD("z")));
  readable_io(loop, event_fd(1), log_first_char, WORD("i"));
  OK(evloop_add_defer(loop, log_first_char, WORD("d")));
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
  trigger(async(loop, log_first_char, WORD("a")));
  timer(loop, 0, 0, log_first_char, WORD("t"));
  OK(evloop_add_prepare(loop, log_first_char, WORD("b")));
  turn(loop);
  EXPECT_LOG("btapdic");
  turn(loop);
  EXPECT_LOG("bic");
}

/* ---- idle ---- */

TEST(idle_is_called_when_there_is_nothing_else) {
  static Seen idle;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_idle(loop, record, &idle));
  turns(loop, 3);
  CHECK_EQ(idle.calls, 3);
  expect_plain(&idle.last, watcher, EVLOOP_EVENT_IDLE, &idle);
  CHECK_EQ(evloop_next_timeout_ns(loop), 0);
}

TEST(idle_is_not_called_when_there_is_something) {
  static Seen idle;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL), io, deferred;
  OK(evloop_add_idle(loop, record, &idle));
  trigger(watcher);
  turn(loop);
  timer(loop, 0, 0, ignore, NULL);
  turn(loop);
  CHECK_EQ(evloop_post(loop, ignore, NULL), 0);
  turn(loop);
  deferred = OK(evloop_add_defer(loop, ignore, NULL));
  turn(loop);
  io = readable_io(loop, event_fd(1), ignore, NULL);
  turn(loop);
  CHECK_EQ(idle.calls, 0);
  close_watcher(io);
  close_watcher(deferred);
  OK(evloop_add_prepare(loop, ignore, NULL));
  OK(evloop_add_check(loop, ignore, NULL));
  turn(loop);
  CHECK_EQ(idle.calls, 1);
}

static void close_after_ten(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  if (((Seen *)user_data)->calls == 10) close_watcher(event->watcher);
}

TEST(the_loop_does_not_wait_while_a_watcher_is_idle) {
  static Seen idle;
  evloop_t loop = new_loop();
  OK(evloop_add_idle(loop, close_after_ten, &idle));
  run_to_end(loop);
  CHECK_EQ(idle.calls, 10);
}

TEST(idle_works_beside_timers_that_wait) {
  static Seen idle, due;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, HOUR, 0, record, &due);
  OK(evloop_add_idle(loop, record, &idle));
  turns(loop, 5);
  CHECK_EQ(idle.calls, 5);
  set_timer(watcher, 2 * MS, 0);
  while (due.calls == 0) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
}

/* ---- defer ---- */

TEST(defer_is_called_once) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_defer(loop, record, &seen));
  CHECK_EQ(seen.calls, 0);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
  expect_plain(&seen.last, watcher, EVLOOP_EVENT_DEFER, &seen);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 2);
}

static void enable_itself(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  log_char('d');
  if (seen->calls < 3) CHECK_EQ(evloop_watcher_enable(event->watcher), 0);
}

TEST(defer_in_its_own_callback_is_the_next_iteration) {
  static Seen seen;
  evloop_t loop = new_loop();
  OK(evloop_add_defer(loop, enable_itself, &seen));
  OK(evloop_add_check(loop, log_first_char, WORD("c")));
  turns(loop, 4);
  EXPECT_LOG("dcdcdcc");
}

TEST(a_pending_defer_does_not_wait) {
  static Seen seen;
  evloop_t loop = new_loop();
  async(loop, ignore, NULL);
  OK(evloop_add_defer(loop, record, &seen));
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.calls, 1);
}

static void add_defer(const evloop_event_t *event, void *user_data) {
  log_first_char(event, user_data);
  OK(evloop_add_defer(evloop_watcher_loop(event->watcher), log_first_char, WORD("d")));
}

TEST(a_defer_added_in_a_callback_is_the_next_iteration) {
  evloop_t loop = new_loop();
  timer(loop, 0, 0, add_defer, WORD("t"));
  OK(evloop_add_check(loop, log_first_char, WORD("c")));
  turns(loop, 3);
  EXPECT_LOG("tcdcc");
}

/* ---- exit ---- */

TEST(exit_is_called_when_nothing_is_left) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_exit(loop, record, &seen));
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
  expect_plain(&seen.last, watcher, EVLOOP_EVENT_EXIT, &seen);
  timer(loop, 0, 0, log_first_char, WORD("t"));
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
  EXPECT_LOG("t");
}

TEST(exit_is_the_last_that_is_called) {
  evloop_t loop = new_loop();
  OK(evloop_add_exit(loop, log_first_char, WORD("e")));
  OK(evloop_add_defer(loop, log_first_char, WORD("d")));
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_check(loop, log_first_char, WORD("c")))), 0);
  run_to_end(loop);
  EXPECT_LOG("dce");
}

TEST(exit_is_called_when_the_loop_is_stopped) {
  static Seen seen;
  evloop_t loop = new_loop();
  OK(evloop_add_exit(loop, record, &seen));
  timer(loop, 0, 0, stop_loop, as_data(loop));
  async(loop, ignore, NULL);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 1);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_stop(loop), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 1);
  CHECK_EQ(seen.calls, 2);
}

TEST(exit_is_called_when_the_time_is_over) {
  static Seen seen;
  evloop_t loop = new_loop();
  OK(evloop_add_exit(loop, record, &seen));
  async(loop, ignore, NULL);
  CHECK_EQ(evloop_run_for_ns(loop, 0), 1);
  CHECK_EQ(evloop_run_for_ns(loop, MS), 1);
  CHECK_EQ(seen.calls, 2);
}

TEST(exit_is_not_called_by_other_runs) {
  static Seen seen;
  evloop_event_t event;
  evloop_t loop = new_loop();
  OK(evloop_add_exit(loop, record, &seen));
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_NOWAIT), 0);
  timer(loop, 0, 0, ignore, NULL);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 0);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 0);
  timer(loop, 0, 0, NULL, NULL);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(seen.calls, 0);
}

static void close_own_loop(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_close(OK(evloop_watcher_loop(event->watcher))), 0);
}

TEST(exit_is_not_called_when_the_loop_is_closed) {
  static Seen seen, closing;
  evloop_t loop = new_loop();
  OK(evloop_add_exit(loop, record, &seen));
  timer(loop, 0, 0, close_own_loop, &closing);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
  CHECK_EQ(closing.calls, 1);
  CHECK_EQ(seen.calls, 0);
}

TEST(exit_watchers_have_priorities) {
  evloop_t loop = new_loop();
  static const char *const words[] = {"c", "a", "d", "b"};
  static const int priorities[] = {0, INT32_MAX, INT32_MIN, 5};
  int i;
  for (i = 0; i < 4; i++) {
    evloop_watcher_t watcher = OK(evloop_add_exit(loop, log_first_char, WORD(words[i])));
    CHECK_EQ(evloop_watcher_set_priority(watcher, priorities[i]), 0);
  }
  run_to_end(loop);
  EXPECT_LOG("abcd");
}

TEST(a_disabled_exit_watcher_is_not_called) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_exit(loop, record, &seen));
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
}

CHECK_MAIN()
