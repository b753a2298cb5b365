/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* An event loop inside a foreign one: prepare, wait for its descriptor,
 * dispatch. (test_loop_limits.c has what fails when something runs out.) */

#define _GNU_SOURCE
#include "loop_support.h"

#include <sys/epoll.h>

/* ---- helpers ---- */

/* An embedded loop, whose descriptor a foreign loop polls. */
typedef struct Guest {
  evloop_t loop;
  int fd;
} Guest;

static Guest guest_of(evloop_t loop) {
  return (Guest){loop, (int)OK(evloop_fileno(loop))};
}

static Guest new_guest(void) {
  Guest guest = guest_of(new_loop());
  keep_alive(guest.loop);
  return guest;
}

static int prepare(Guest guest) {
  return (int)OK(evloop_embed_prepare(guest.loop));
}

static int dispatch(Guest guest) {
  return (int)OK(evloop_embed_dispatch(guest.loop));
}

/* One turn of a foreign loop. It blocks unless evloop_embed_prepare() returns
 * 1. */
static void foreign_turn(Guest guest) {
  if (prepare(guest) == 0) CHECK(readable(guest.fd, -1));
  dispatch(guest);
}

static void foreign_turns_until(Guest guest, const Seen *seen, int calls) {
  for (int turns = 0; seen->calls < calls; turns++) {
    CHECK(turns < 1000);
    foreign_turn(guest);
  }
}

/* Dispatches what is pending, until the descriptor is no longer readable. */
static void settle(Guest guest) {
  for (int i = 0; i < 3; i++) {
    if (prepare(guest) == 0 && !readable(guest.fd, 0)) return;
    dispatch(guest);
  }
  check_fail(__FILE__, __LINE__, "there is always something to do");
}

/* Expects that the descriptor wakes a foreign loop that waits, and that the loop
 * delivers exactly one event. */
static void expect_noticed(Guest guest, const Seen *seen) {
  int calls = seen->calls;
  CHECK(readable(guest.fd, -1));
  CHECK_EQ(dispatch(guest), 1);
  if (seen->calls == calls) foreign_turns_until(guest, seen, calls + 1);
  CHECK_EQ(seen->calls, calls + 1);
  settle(guest);
}

/* ---- the descriptor ---- */

TEST(the_descriptor_stays_the_same_and_is_close_on_exec) {
  Guest guest = new_guest();
  CHECK_EQ(OK(fcntl(guest.fd, F_GETFD)), FD_CLOEXEC);
  CHECK_EQ(evloop_fileno(guest.loop), guest.fd);
  CHECK_EQ(turn(guest.loop), 1);
  CHECK_EQ(evloop_fileno(guest.loop), guest.fd);
  CHECK_EQ(evloop_close(guest.loop), 0);
  CHECK(fcntl(guest.fd, F_GETFD) < 0);
  CHECK_EQ(errno, EBADF);
}

TEST(the_descriptor_of_an_idle_loop_is_not_readable) {
  Guest guest = new_guest();
  Seen seen = {.calls = 0};
  OK(evloop_add_io(guest.loop, new_pipe().r, EVLOOP_EPOLLIN, record, &seen));
  OK(evloop_add_timer(guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, 3600 * SECOND, 0, 0, record, &seen));
  settle(guest);
  for (int i = 0; i < 10; i++) {
    CHECK_EQ(prepare(guest), 0);
    CHECK(!readable(guest.fd, 0));
    CHECK_EQ(dispatch(guest), 1);
  }
  CHECK_EQ(seen.calls, 0);
}

TEST(an_empty_loop_is_dispatched_in_vain) {
  Guest guest = guest_of(new_loop());
  CHECK_EQ(prepare(guest), 0);
  CHECK(!readable(guest.fd, 0));
  CHECK_EQ(dispatch(guest), 0);
}

/* ---- what makes it readable ---- */

TEST(a_ready_descriptor_is_noticed) {
  Guest guest = new_guest();
  Seen seen = {.calls = 0};
  Pipe pipe = new_pipe();
  OK(evloop_add_io(guest.loop, pipe.r, EVLOOP_EPOLLIN, record_and_take, &seen));
  settle(guest);
  for (int i = 0; i < 5; i++) {
    put(pipe.w);
    expect_noticed(guest, &seen);
  }
}

TEST(a_timer_is_noticed_and_never_early) {
  Guest guest = new_guest();
  Seen seen = {.calls = 0};
  evloop_watcher_t timer = OK(evloop_add_timer(guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0, 0,
                                               record, &seen));
  for (int i = 0; i < 20; i++) {
    int64_t start = now_ns(CLOCK_MONOTONIC), delay = i * 300000;
    CHECK_EQ(evloop_timer_set(timer, 0, delay, 0), 0);
    foreign_turns_until(guest, &seen, i + 1);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= delay);
    CHECK(seen.last.time_ns >= seen.last.deadline_ns);
  }
  settle(guest);
}

TEST(what_is_pending_before_the_preparation_need_not_be_waited_for) {
  Guest guest = new_guest();
  Seen seen = {.calls = 0};
  evloop_watcher_t async = OK(evloop_add_async(guest.loop, record, &seen));
  settle(guest);
  dispatch(guest);
  CHECK_EQ(evloop_post(guest.loop, record, &seen), 0);
  CHECK_EQ(prepare(guest), 1);
  CHECK_EQ(dispatch(guest), 1);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_async_send(async), 0);
  foreign_turn(guest);
  CHECK_EQ(seen.calls, 2);
  OK(evloop_add_timer(guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 0, 0, record, &seen));
  foreign_turn(guest);
  CHECK_EQ(seen.calls, 3);
  OK(evloop_add_defer(guest.loop, record, &seen));
  foreign_turn(guest);
  CHECK_EQ(seen.calls, 4);
  settle(guest);
  OK(evloop_add_idle(guest.loop, record, &seen));
  CHECK_EQ(prepare(guest), 1);
}

/* Everything that may be done between the two calls. */
typedef struct Between {
  Guest guest;
  Seen seen;
  Pipe pipe; /* with a byte in it */
  evloop_watcher_t async, timer, io;
} Between;

typedef void Action(Between *b);

static void do_post(Between *b) {
  CHECK_EQ(evloop_post(b->guest.loop, record, &b->seen), 0);
}

static void do_send(Between *b) {
  CHECK_EQ(evloop_async_send(b->async), 0);
}

static void do_set_timer(Between *b) {
  CHECK_EQ(evloop_timer_set(b->timer, 0, MS, 0), 0);
}

static void do_set_due_timer(Between *b) {
  CHECK_EQ(evloop_timer_set(b->timer, 0, 0, 0), 0);
}

static void do_add_timer(Between *b) {
  OK(evloop_add_timer(b->guest.loop, EVLOOP_CLOCK_REALTIME, 0, MS, 0, 0, record, &b->seen));
}

static void do_add_io(Between *b) {
  OK(evloop_add_io(b->guest.loop, b->pipe.r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, record,
                   &b->seen));
}

static void do_add_file(Between *b) {
  OK(evloop_add_io(b->guest.loop, regular_file(), EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, record,
                   &b->seen));
}

static void do_modify(Between *b) {
  CHECK_EQ(evloop_io_modify(b->io, EVLOOP_EPOLLOUT | EVLOOP_EPOLLONESHOT), 0);
}

static void do_disable_and_enable(Between *b) {
  CHECK_EQ(evloop_watcher_disable(b->io), 0);
  do_modify(b);
  CHECK_EQ(evloop_watcher_enable(b->io), 0);
}

static void do_add_defer(Between *b) {
  OK(evloop_add_defer(b->guest.loop, record, &b->seen));
}

static Action *const actions[] = {do_post,    do_send,     do_set_timer, do_set_due_timer,      do_add_timer,
                                  do_add_io,  do_add_file, do_modify,    do_disable_and_enable, do_add_defer};

/* One at a time. */
static Between *new_between(void) {
  static Between between;
  Between *b = &between;
  *b = (Between){.guest = new_guest(), .pipe = new_pipe()};
  put(b->pipe.w);
  b->async = OK(evloop_add_async(b->guest.loop, record, &b->seen));
  b->timer = OK(evloop_add_timer(b->guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0, 0, record,
                                 &b->seen));
  b->io = OK(evloop_add_io(b->guest.loop, b->pipe.w, EVLOOP_EPOLLPRI, record, &b->seen));
  return b;
}

static void end(const Between *b) {
  CHECK_EQ(evloop_close(b->guest.loop), 0);
  OK(close(b->pipe.r));
  OK(close(b->pipe.w));
}

TEST(what_is_done_between_preparation_and_dispatch_is_noticed) {
  for (int i = 0; AT_ROW(i, actions); i++) {
    Between *b = new_between();
    settle(b->guest); /* prepared, and waiting from now on */
    actions[i](b);
    expect_noticed(b->guest, &b->seen);
    end(b);
  }
}

static void ask_fileno(Between *b) {
  CHECK_EQ(evloop_fileno(b->guest.loop), b->guest.fd);
}

static void ask_time(Between *b) {
  OK(evloop_now_ns(b->guest.loop));
}

static void ask_timeout(Between *b) {
  CHECK_EQ(evloop_next_timeout_ns(b->guest.loop), INT64_MAX);
}

static void ask_timer(Between *b) {
  CHECK_EQ(evloop_timer_remaining_ns(b->timer), INT64_MAX);
}

static void ask_watcher(Between *b) {
  CHECK_EQ(evloop_watcher_loop(b->timer), b->guest.loop);
}

/* As in poll(evloop_fileno(), evloop_next_timeout_ns()): the foreign loop
 * must not go round and round because it asks each time. */
TEST(a_question_between_preparation_and_dispatch_is_nothing_to_do) {
  Action *const questions[] = {ask_fileno, ask_time, ask_timeout, ask_timer, ask_watcher};
  Between *b = new_between();
  settle(b->guest);
  for (int i = 0; i < LENGTH(questions) * 3; i++) {
    CHECK_EQ(prepare(b->guest), 0);
    questions[i / 3](b);
    CHECK(!readable(b->guest.fd, 0));
    dispatch(b->guest);
  }
}

typedef struct Actor {
  Action *action;
  Between *between;
  pthread_t thread;
} Actor;

static void *act(void *argument) {
  Actor *a = (Actor *)argument;
  a->action(a->between);
  return NULL;
}

/* The foreign loop is in poll(2) when another thread acts. */
TEST(what_another_thread_does_is_noticed) {
  for (int i = 0; AT_ROW(i, actions); i++) {
    Between *b = new_between();
    Actor a = {.action = actions[i], .between = b};
    settle(b->guest);
    CHECK_EQ(pthread_create(&a.thread, NULL, act, &a), 0);
    expect_noticed(b->guest, &b->seen);
    CHECK_EQ(pthread_join(a.thread, NULL), 0);
    end(b);
  }
}

/* ---- rate limits that end ---- */

static void do_end_limit(Between *b) {
  CHECK_EQ(evloop_watcher_set_ratelimit(b->async, 0, 0), 0);
}

static void do_set_another_limit(Between *b) {
  CHECK_EQ(evloop_watcher_set_ratelimit(b->async, 3600 * SECOND, 5), 0);
}

static void do_enable(Between *b) {
  CHECK_EQ(evloop_watcher_enable(b->async), 0);
}

/* An event is held back, by a limit that would end very much later. */
static void send_too_much(Between *b) {
  CHECK_EQ(evloop_watcher_set_ratelimit(b->async, 3600 * SECOND, 1), 0);
  for (int i = 0; i < 2; i++) {
    do_send(b);
    for (int turns = 0; turns < 3; turns++) {
      prepare(b->guest);
      dispatch(b->guest);
    }
  }
  CHECK_EQ(b->seen.calls, 1);
}

/* The end of the limit itself came while it was disabled. */
static void hold_disabled(Between *b) {
  send_too_much(b);
  CHECK_EQ(evloop_watcher_disable(b->async), 0);
  do_end_limit(b);
  for (int turns = 0; turns < 3; turns++) {
    prepare(b->guest);
    dispatch(b->guest);
  }
  CHECK_EQ(b->seen.calls, 1);
}

static const struct {
  Action *before, *action;
} endings[] = {{send_too_much, do_end_limit}, {send_too_much, do_set_another_limit}, {hold_disabled, do_enable}};

TEST(a_rate_limit_that_is_ended_between_preparation_and_dispatch_is_noticed) {
  for (int i = 0; AT_ROW(i, endings); i++) {
    Between *b = new_between();
    endings[i].before(b);
    settle(b->guest);
    endings[i].action(b);
    CHECK_EQ(evloop_next_timeout_ns(b->guest.loop), 0);
    expect_noticed(b->guest, &b->seen);
    end(b);
  }
}

TEST(a_rate_limit_that_another_thread_ends_is_noticed) {
  for (int i = 0; AT_ROW(i, endings); i++) {
    Between *b = new_between();
    Actor a = {.action = endings[i].action, .between = b};
    endings[i].before(b);
    settle(b->guest);
    CHECK_EQ(pthread_create(&a.thread, NULL, act, &a), 0);
    expect_noticed(b->guest, &b->seen);
    CHECK_EQ(pthread_join(a.thread, NULL), 0);
    end(b);
  }
}

static int acted;

static void *act_again_and_again(void *argument) {
  Between *b = (Between *)argument;
  for (int i = 0; i < 500; i++) {
    int calls = LOAD(b->seen.calls);
    actions[i % LENGTH(actions)](b);
    UNTIL(LOAD(b->seen.calls) >= calls + 1);
  }
  STORE(acted, 1);
  CHECK_EQ(evloop_wakeup(b->guest.loop), 0);
  return NULL;
}

/* At whatever place of its turn the foreign loop is. */
TEST_TIMEOUT(nothing_that_another_thread_does_is_lost, 60) {
  Between *b = new_between();
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, act_again_and_again, b), 0);
  while (!LOAD(acted)) foreign_turn(b->guest);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(b->seen.calls, 500);
}

static volatile evloop_watcher_t signalled;

static void send_in_handler(int number) {
  (void)number;
  evloop_async_send(signalled);
}

TEST(what_a_signal_handler_sends_is_noticed) {
  struct sigaction action = {.sa_handler = send_in_handler};
  Between *b = new_between();
  signalled = b->async;
  OK(sigaction(SIGUSR1, &action, NULL));
  for (int i = 0; i < 5; i++) {
    settle(b->guest);
    OK(raise(SIGUSR1));
    expect_noticed(b->guest, &b->seen);
  }
}

TEST(wakeups_and_stops_are_noticed_and_done_with) {
  Guest guest = new_guest();
  int (*const calls[])(evloop_t) = {evloop_wakeup, evloop_stop};
  for (int i = 0; i < LENGTH(calls) * 2; i++) {
    settle(guest);
    CHECK_EQ(calls[i / 2](guest.loop), 0);
    CHECK(readable(guest.fd, -1));
    dispatch(guest);
    settle(guest);
  }
}

/* ---- the protocol ---- */

TEST(prepare_watchers_run_in_the_preparation_and_check_watchers_after_it) {
  Guest guest = new_guest();
  OK(evloop_add_prepare(guest.loop, log_word, WORD("p")));
  OK(evloop_add_check(guest.loop, log_word, WORD("c")));
  for (int i = 0; i < 3; i++) {
    prepare(guest);
    EXPECT_LOG("p");
    dispatch(guest);
    EXPECT_LOG("c");
  }
}

TEST(a_dispatch_returns_whether_the_loop_is_alive) {
  Guest guest = guest_of(new_loop());
  Seen seen = {.calls = 0};
  OK(evloop_add_timer(guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, MS, 0, record_and_close, &seen));
  foreign_turn(guest);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(dispatch(guest), 0);
}

static void run_in_callback(const evloop_event_t *event, void *user_data) {
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  (void)event;
  CHECK_ERR(evloop_embed_prepare(loop), EBUSY);
  CHECK_ERR(evloop_embed_dispatch(loop), EBUSY);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_NOWAIT), EBUSY);
  event_log[0]++;
}

TEST(a_loop_is_busy_while_it_prepares_and_dispatches) {
  Guest guest = new_guest();
  OK(evloop_add_prepare(guest.loop, run_in_callback, as_data(guest.loop)));
  CHECK_EQ(evloop_post(guest.loop, run_in_callback, as_data(guest.loop)), 0);
  CHECK_EQ(prepare(guest), 1);
  dispatch(guest);
  CHECK_EQ(event_log[0], 2);
}

TEST(an_embedded_loop_can_be_run_in_between_and_go_on) {
  Between *b = new_between();
  settle(b->guest);
  do_set_timer(b);
  while (b->seen.calls == 0) CHECK_EQ(evloop_run(b->guest.loop, EVLOOP_RUN_ONCE), 1);
  settle(b->guest);
  do_send(b);
  expect_noticed(b->guest, &b->seen);
  CHECK_EQ(b->seen.calls, 2);
}

TEST(events_without_a_callback_are_kept_for_a_wait) {
  Guest guest = new_guest();
  evloop_event_t events[4];
  Pipe pipe = new_pipe();
  OK(evloop_add_io(guest.loop, pipe.r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, NULL, as_data(1)));
  settle(guest);
  put(pipe.w);
  CHECK_EQ(evloop_post(guest.loop, NULL, as_data(2)), 0);
  CHECK(readable(guest.fd, -1));
  dispatch(guest);
  CHECK_EQ(evloop_wait(guest.loop, events, 4, 0), 2);
  CHECK_EQ(events[0].data + events[1].data, 3);
  settle(guest);
}

TEST(a_loop_closed_between_preparation_and_dispatch_is_stale) {
  Guest guest = new_guest();
  settle(guest);
  CHECK_EQ(evloop_close(guest.loop), 0);
  CHECK_ERR(evloop_embed_dispatch(guest.loop), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

/* ---- virtual time ---- */

TEST(virtual_time_that_moves_is_noticed) {
  Guest guest = guest_of(virtual_loop());
  Seen seen = {.calls = 0};
  keep_alive(guest.loop);
  OK(evloop_add_timer(guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, 100, 100, 0, record, &seen));
  settle(guest);
  CHECK_EQ(evloop_advance_ns(guest.loop, 99), 0);
  settle(guest);
  CHECK_EQ(seen.calls, 0);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(evloop_advance_ns(guest.loop, i ? 100 : 1), 0);
    expect_noticed(guest, &seen);
  }
}

TEST(automatic_time_goes_on_though_it_is_asked_for_before_each_dispatch) {
  evloop_t loop = jumping_loop();
  Seen seen = {.calls = 0};
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 100, 0, 0, record, &seen));
  for (int i = 0; i < 4; i++) {
    OK(evloop_embed_prepare(loop));
    OK(evloop_now_ns(loop));
    OK(evloop_embed_dispatch(loop));
  }
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_now_ns(loop), 100);
}

/* The loop may wait for ever, or jump. It must not report pending work again and
 * again and then do nothing. */
TEST(automatic_time_does_not_keep_a_foreign_loop_busy_for_nothing) {
  Guest guest = guest_of(jumping_loop());
  Seen seen = {.calls = 0};
  OK(evloop_add_timer(guest.loop, EVLOOP_CLOCK_MONOTONIC, 0, 100, 0, 0, record, &seen));
  for (int turns = 0; seen.calls == 0; turns++) {
    if (prepare(guest) == 0 && !readable(guest.fd, 0)) break;
    dispatch(guest);
    CHECK(turns < 100);
  }
}

/* ---- other foreign loops ---- */

TEST(an_epoll_set_waits_for_the_descriptor) {
  Between *b = new_between();
  int epoll_fd = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  struct epoll_event event = {.events = EPOLLIN};
  evloop_epoll_t epoll = OK(evloop_epoll_create(0));
  OK(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, b->guest.fd, &event));
  CHECK_EQ(evloop_epoll_register(epoll, b->guest.fd, EVLOOP_EPOLLIN, 1), 0);
  for (int i = 0; AT_ROW(i, actions); i++) {
    evloop_ready_t ready;
    int calls = b->seen.calls;
    settle(b->guest);
    CHECK_EQ(epoll_wait(epoll_fd, &event, 1, 0), 0);
    actions[i](b);
    CHECK_EQ(epoll_wait(epoll_fd, &event, 1, -1), 1);
    CHECK_EQ(evloop_epoll_wait(epoll, &ready, 1, -1), 1);
    dispatch(b->guest);
    foreign_turns_until(b->guest, &b->seen, calls + 1);
  }
  OK(close(epoll_fd));
}

static void prepare_guest(const evloop_event_t *event, void *user_data) {
  const Between *b = (const Between *)user_data;
  (void)event;
  if (prepare(b->guest) == 1) CHECK_EQ(evloop_wakeup(OK(evloop_watcher_loop(event->watcher))), 0);
}

static void dispatch_guest(const evloop_event_t *event, void *user_data) {
  const Between *b = (const Between *)user_data;
  (void)event;
  dispatch(b->guest);
}

/* Its check watchers dispatch, so that nothing is forgotten. */
TEST(an_event_loop_waits_for_the_descriptor_of_another_one) {
  evloop_t host = new_loop();
  Between *b = new_between();
  Seen host_seen = {.calls = 0};
  OK(evloop_add_prepare(host, prepare_guest, b));
  OK(evloop_add_check(host, dispatch_guest, b));
  OK(evloop_add_io(host, b->guest.fd, EVLOOP_EPOLLIN, record, &host_seen));
  for (int i = 0; AT_ROW(i, actions); i++) {
    int calls = b->seen.calls;
    actions[i](b);
    for (int turns = 0; b->seen.calls == calls; turns++) {
      CHECK(turns < 1000);
      CHECK_EQ(evloop_run(host, EVLOOP_RUN_ONCE), 1);
    }
    CHECK_EQ(b->seen.calls, calls + 1);
  }
  CHECK(host_seen.calls > 0);
}

/* ---- many threads ---- */

enum { ROUNDS = 20000 };

static void *post_many(void *argument) {
  Between *b = (Between *)argument;
  for (int i = 0; i < ROUNDS; i++) {
    do_post(b);
    if (i % 64 == 0) sched_yield();
  }
  return NULL;
}

/* No wakeup is lost between a preparation and the poll behind it. */
TEST_TIMEOUT(posts_of_threads_are_noticed_by_a_foreign_poll, 60) {
  Between *b = new_between();
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_create(&threads[i], NULL, post_many, b), 0);
  while (b->seen.calls < 2 * ROUNDS) foreign_turn(b->guest);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  settle(b->guest);
  CHECK_EQ(b->seen.calls, 2 * ROUNDS);
}

CHECK_MAIN()
