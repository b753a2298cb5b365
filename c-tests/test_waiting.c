/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Time and signals: the same cases for every function that waits. */

#define _GNU_SOURCE
#include "support.h"

#include <sys/prctl.h>
#include <sys/timerfd.h>

#define CENTURY (INT64_C(3155760000) * SECOND)

/* ---- the functions that wait ---- */

/* One way to wait, and something to wait for. */
typedef struct Source {
  const struct Kind *kind;
  int64_t object; /* 0 for select, which has none */
  int fd;         /* becomes readable */
  int made_ready;
} Source;

typedef struct Kind {
  void (*open)(Source *source);
  int (*wait)(Source *source, int64_t timeout_ns); /* 1 event, 0 time out, -errno */
} Kind;

static void open_event(Source *source) {
  source->fd = (int)OK(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
}

static int wait_select(Source *source, int64_t timeout_ns) {
  int fd = source->fd, count = 1;
  return evloop_select(&fd, &count, NULL, NULL, NULL, NULL, timeout_ns);
}

static void open_poll(Source *source) {
  open_event(source);
  source->object = OK(evloop_poll_create());
  CHECK_EQ(evloop_poll_register(source->object, source->fd, EVLOOP_POLLIN, 1), 0);
}

static int wait_poll(Source *source, int64_t timeout_ns) {
  evloop_ready_t ready[2];
  return evloop_poll_wait(source->object, ready, 2, timeout_ns);
}

static void open_epoll(Source *source) {
  open_event(source);
  source->object = OK(evloop_epoll_create(0));
  CHECK_EQ(evloop_epoll_register(source->object, source->fd, EVLOOP_EPOLLIN, 1), 0);
}

static int wait_epoll(Source *source, int64_t timeout_ns) {
  evloop_ready_t ready[2];
  return evloop_epoll_wait(source->object, ready, 2, timeout_ns);
}

static void open_devpoll(Source *source) {
  open_event(source);
  source->object = OK(evloop_devpoll_create());
  CHECK_EQ(evloop_devpoll_register(source->object, source->fd, EVLOOP_POLLIN, 1), 0);
}

static int wait_devpoll(Source *source, int64_t timeout_ns) {
  evloop_ready_t ready[2];
  return evloop_devpoll_wait(source->object, ready, 2, timeout_ns);
}

static void open_selector(Source *source, int backend) {
  open_event(source);
  source->object = OK(evloop_selector_create(backend));
  CHECK_EQ(evloop_selector_register(source->object, source->fd, EVLOOP_SELECTOR_READ, 1), 0);
}

static void open_select_selector(Source *source) {
  open_selector(source, EVLOOP_SELECTOR_SELECT);
}

static void open_poll_selector(Source *source) {
  open_selector(source, EVLOOP_SELECTOR_POLL);
}

static void open_epoll_selector(Source *source) {
  open_selector(source, EVLOOP_SELECTOR_EPOLL);
}

static void open_devpoll_selector(Source *source) {
  open_selector(source, EVLOOP_SELECTOR_DEVPOLL);
}

static int wait_selector(Source *source, int64_t timeout_ns) {
  evloop_ready_t ready[2];
  return evloop_selector_wait(source->object, ready, 2, timeout_ns);
}

static void open_timer(Source *source) {
  source->object = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  source->fd = (int)OK(tfd_fileno(source->object));
}

static int wait_timer(Source *source, int64_t timeout_ns) {
  uint64_t expirations;
  return tfd_wait(source->object, timeout_ns, &expirations);
}

/* A read has no timeout of its own: the timer is set to end it. */
static int read_timer(Source *source, int64_t timeout_ns) {
  uint64_t expirations = 0;
  int ready = __atomic_load_n(&source->made_ready, __ATOMIC_ACQUIRE);
  if (!ready && timeout_ns >= 0) {
    int64_t initial_ns = timeout_ns > 0 ? timeout_ns : 1;
    CHECK_EQ(tfd_settime_ns(source->object, 0, initial_ns, 0, NULL, NULL), 0);
  }
  int result = tfd_read(source->object, &expirations);
  if (result == 0) CHECK(expirations >= 1);
  ready = __atomic_load_n(&source->made_ready, __ATOMIC_ACQUIRE);
  return result < 0 ? result : ready;
}

static const Kind select_kind = {open_event, wait_select};
static const Kind poll_kind = {open_poll, wait_poll};
static const Kind epoll_kind = {open_epoll, wait_epoll};
static const Kind devpoll_kind = {open_devpoll, wait_devpoll};
static const Kind select_selector_kind = {open_select_selector, wait_selector};
static const Kind poll_selector_kind = {open_poll_selector, wait_selector};
static const Kind epoll_selector_kind = {open_epoll_selector, wait_selector};
static const Kind devpoll_selector_kind = {open_devpoll_selector, wait_selector};
static const Kind tfd_wait_kind = {open_timer, wait_timer};
static const Kind tfd_read_kind = {open_timer, read_timer};

/* One test for each of them. */
#define ONE_WAIT(name, kind) \
  TEST_TIMEOUT(name##_##kind, 30) { name(&kind##_kind); }
#define EVERY_OBJECT(name)                \
  static void name(const Kind *kind);     \
  ONE_WAIT(name, poll)                    \
  ONE_WAIT(name, epoll)                   \
  ONE_WAIT(name, devpoll)                 \
  ONE_WAIT(name, select_selector)         \
  ONE_WAIT(name, poll_selector)           \
  ONE_WAIT(name, epoll_selector)          \
  ONE_WAIT(name, devpoll_selector)        \
  ONE_WAIT(name, tfd_wait)                \
  ONE_WAIT(name, tfd_read)                \
  static void name(const Kind *kind)
#define EVERY_WAIT(name)                          \
  static void name(const Kind *kind);             \
  ONE_WAIT(name, select)                          \
  EVERY_OBJECT(name)

/* ---- helpers ---- */

static Source new_source(const Kind *kind) {
  Source source = {.kind = kind};
  kind->open(&source);
  return source;
}

/* Only what a signal handler may do. */
static void make_ready(Source *source) {
  __atomic_store_n(&source->made_ready, 1, __ATOMIC_RELEASE);
  if (source->kind->open == open_timer) {
    struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};
    OK(timerfd_settime(source->fd, 0, &at_once, NULL));
  } else {
    OK(eventfd_write(source->fd, 1));
  }
}

static int wait_for(Source *source, int64_t timeout_ns) {
  return source->kind->wait(source, timeout_ns);
}

static void expect_timeout(Source *source, int64_t timeout_ns) {
  int64_t start = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(wait_for(source, timeout_ns), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= timeout_ns);
}

/* A thread that waits, and how to know that it sleeps. */
typedef struct Sleeper {
  Source *source;
  int64_t timeout_ns;
  int mode;
  evloop_interrupt_check_t check;
  void *user_data;
  int result, was_in_mode;
  pid_t tid;
  pthread_t thread;
} Sleeper;

#define NO_RESULT 99

static void *waiting(void *argument) {
  Sleeper *w = argument;
  w->was_in_mode = evloop_set_interrupt_mode(w->mode);
  CHECK_EQ(evloop_set_interrupt_check(w->check, w->user_data), 0);
  store_tid(&w->tid);
  w->result = wait_for(w->source, w->timeout_ns);
  pthread_testcancel();
  return NULL;
}

static void start(Sleeper *w) {
  w->result = NO_RESULT;
  CHECK_EQ(pthread_create(&w->thread, NULL, waiting, w), 0);
  wait_until_asleep(&w->tid);
}

static int result_of(Sleeper *w) {
  CHECK_EQ(pthread_join(w->thread, NULL), 0);
  return w->result;
}

/* Interrupts the sleep of a waiter, and comes back once it sleeps again. */
static void interrupt_sleep(Sleeper *w) {
  interrupt(w->thread);
  wait_until_asleep(&w->tid);
}

/* ---- time ---- */

EVERY_WAIT(zero_does_not_block) {
  Source source = new_source(kind);
  for (int i = 0; i < 100; i++) CHECK_EQ(wait_for(&source, 0), 0);
  make_ready(&source);
  CHECK_EQ(wait_for(&source, 0), 1);
}

EVERY_WAIT(short_waits_are_never_early) {
  static const int64_t waits[] = {1, 999, 1000, 50000, 3 * MS / 2};
  Source source = new_source(kind);
  OK(prctl(PR_SET_TIMERSLACK, 1UL)); /* the kernel adds 50 us, else */
  for (int i = 0; i < LENGTH(waits) * 40; i++) {
    expect_timeout(&source, waits[i / 40]);
  }
  expect_timeout(&source, 40 * MS);
}

EVERY_WAIT(waits_without_an_end_end_with_an_event) {
  static const int64_t waits[] = {-1, -SECOND, INT64_MIN, INT64_MAX, INT64_MAX - 1, CENTURY};
  for (int i = 0; AT_ROW(i, waits); i++) {
    Source source = new_source(kind);
    Sleeper w = {.source = &source, .timeout_ns = waits[i]};
    start(&w);
    make_ready(&source);
    CHECK_EQ(result_of(&w), 1);
  }
}

/* ---- signals, restarting ---- */

static timer_t start_storm(int64_t interval_ns) {
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct itimerspec every = {{0, interval_ns}, {0, interval_ns}};
  timer_t timer;
  OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
  OK(timer_settime(timer, 0, &every, NULL));
  return timer;
}

EVERY_WAIT(a_storm_of_signals_does_not_change_the_timeout) {
  int64_t interval_ns = MS * slow_factor(), timeout_ns = 80 * interval_ns;
  Source source = new_source(kind);
  handle_signals(count_signal);
  timer_t storm = start_storm(interval_ns);
  expect_timeout(&source, timeout_ns);
  OK(timer_delete(storm));
  CHECK(signals > 1);
}

static Source *stormy;

static void make_ready_at_last(int signal) {
  count_signal(signal);
  if (signals == 20) make_ready(stormy);
}

EVERY_WAIT(an_event_is_seen_in_a_storm_of_signals) {
  Source source = new_source(kind);
  stormy = &source;
  handle_signals(make_ready_at_last);
  timer_t storm = start_storm(MS * slow_factor());
  CHECK_EQ(wait_for(&source, -1), 1);
  OK(timer_delete(storm));
  CHECK(signals >= 20);
}

/* ---- signals, returning ---- */

TEST(the_mode_before_is_returned_and_unknown_modes_are_refused) {
  static const int unknown[] = {-1, 2, 1000};
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN), EVLOOP_EINTR_RESTART);
  for (int i = 0; AT_ROW(i, unknown); i++) {
    CHECK_ERR(evloop_set_interrupt_mode(unknown[i]), EINVAL);
  }
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RESTART), EVLOOP_EINTR_RETURN);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RESTART), EVLOOP_EINTR_RESTART);
}

EVERY_WAIT(the_mode_is_each_threads_own) {
  Source source = new_source(kind);
  Sleeper restarts = {.source = &source, .timeout_ns = -1, .mode = EVLOOP_EINTR_RESTART};
  Sleeper returns = {.source = &source, .timeout_ns = -1, .mode = EVLOOP_EINTR_RETURN};
  handle_signals(count_signal);
  start(&returns);
  start(&restarts);
  CHECK_EQ(restarts.was_in_mode, EVLOOP_EINTR_RESTART);
  interrupt_sleep(&restarts);
  CHECK_EQ(pthread_kill(returns.thread, SIGUSR1), 0);
  CHECK_EQ(result_of(&returns), -EINTR);
  interrupt_sleep(&restarts);
  make_ready(&source);
  CHECK_EQ(result_of(&restarts), 1);
  CHECK_EQ(signals, 3);
}

EVERY_WAIT(an_interrupted_wait_changes_nothing) {
  Source source = new_source(kind);
  Sleeper w = {.source = &source, .timeout_ns = -1, .mode = EVLOOP_EINTR_RETURN};
  handle_signals(count_signal);
  for (int i = 0; i < 3; i++) {
    start(&w);
    CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
    CHECK_EQ(result_of(&w), -EINTR);
    w.tid = 0;
  }
  make_ready(&source);
  CHECK_EQ(wait_for(&source, -1), 1);
}

/* ---- the check ---- */

typedef struct Check {
  Source *source; /* closed, or waited for, where the check says so */
  int calls, verdict, result;
  pthread_t thread;
} Check;

static int simple_check(void *user_data) {
  Check *check = user_data;
  check->thread = pthread_self();
  RAISE(check->calls, 1);
  return check->verdict;
}

static void expect_checked(const Kind *kind, int mode) {
  Check check = {.verdict = 0};
  Source source = new_source(kind);
  Sleeper w = {.source = &source, .timeout_ns = -1, .mode = mode, .check = simple_check, .user_data = &check};
  handle_signals(count_signal);
  start(&w);
  for (int call = 1; call <= 3; call++) {
    interrupt_sleep(&w);
    UNTIL(LOAD(check.calls) >= call);
    wait_until_asleep(&w.tid);
    CHECK_EQ(check.calls, call);
    CHECK(pthread_equal(check.thread, w.thread));
  }
  check.verdict = -7;
  CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
  CHECK_EQ(result_of(&w), -EINTR);
  CHECK_EQ(check.calls, 4);
}

EVERY_WAIT(the_check_is_asked_at_each_interruption) {
  expect_checked(kind, EVLOOP_EINTR_RESTART);
}

EVERY_WAIT(the_check_overrides_the_mode) {
  expect_checked(kind, EVLOOP_EINTR_RETURN);
}

EVERY_WAIT(a_removed_check_is_asked_no_more) {
  Check check = {.verdict = 1};
  Source source = new_source(kind);
  handle_signals(count_signal);
  CHECK_EQ(evloop_set_interrupt_check(simple_check, &check), 0);
  timer_t storm = start_storm(MS * slow_factor());
  CHECK_EQ(wait_for(&source, -1), -EINTR);
  CHECK_EQ(check.calls, 1);
  CHECK_EQ(evloop_set_interrupt_check(NULL, &check), 0);
  expect_timeout(&source, 20 * MS * slow_factor());
  OK(timer_delete(storm));
  CHECK_EQ(check.calls, 1);
}

EVERY_WAIT(the_check_is_each_threads_own) {
  Check check = {.verdict = 1};
  Source source = new_source(kind);
  Sleeper w = {.source = &source, .timeout_ns = -1};
  handle_signals(count_signal);
  CHECK_EQ(evloop_set_interrupt_check(simple_check, &check), 0);
  start(&w);
  interrupt_sleep(&w);
  make_ready(&source);
  CHECK_EQ(result_of(&w), 1);
  CHECK_EQ(check.calls, 0);
}

static int closing_check(void *user_data) {
  Check *check = user_data;
  check->result = evloop_handle_close(check->source->object);
  return 0;
}

EVERY_OBJECT(a_check_that_closes_the_object_ends_the_wait) {
  Source source = new_source(kind);
  Check check = {.source = &source, .result = NO_RESULT};
  Sleeper w = {.source = &source, .timeout_ns = -1, .check = closing_check, .user_data = &check};
  handle_signals(count_signal);
  start(&w);
  CHECK_EQ(pthread_kill(w.thread, SIGUSR1), 0);
  CHECK_EQ(result_of(&w), -ESTALE);
  CHECK_EQ(check.result, 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

static int waiting_check(void *user_data) {
  Check *check = user_data;
  check->result = wait_for(check->source, MS);
  RAISE(check->calls, 1);
  return 0;
}

/* The same object, which is not ready, and another one, which is. */
EVERY_WAIT(a_check_may_wait_itself) {
  Source source = new_source(kind), other = new_source(kind);
  Check check = {.source = &source, .result = NO_RESULT};
  Sleeper w = {.source = &source, .timeout_ns = -1, .check = waiting_check, .user_data = &check};
  handle_signals(count_signal);
  start(&w);
  interrupt_sleep(&w);
  UNTIL(LOAD(check.calls) >= 1);
  wait_until_asleep(&w.tid);
  CHECK_EQ(check.result, 0);
  check.source = &other;
  make_ready(&other);
  interrupt_sleep(&w);
  UNTIL(LOAD(check.calls) >= 2);
  wait_until_asleep(&w.tid);
  CHECK_EQ(check.result, 1);
  make_ready(&source);
  CHECK_EQ(result_of(&w), 1);
}

/* ---- cancellation ---- */

EVERY_WAIT(a_wait_is_no_cancellation_point) {
  Source source = new_source(kind);
  Sleeper w = {.source = &source, .timeout_ns = -1};
  void *ended_by;
  start(&w);
  CHECK_EQ(pthread_cancel(w.thread), 0);
  wait_until_asleep(&w.tid);
  CHECK_EQ(w.result, NO_RESULT);
  make_ready(&source);
  CHECK_EQ(pthread_join(w.thread, &ended_by), 0);
  CHECK_EQ(w.result, 1);
  CHECK(ended_by == PTHREAD_CANCELED);
}

CHECK_MAIN()
