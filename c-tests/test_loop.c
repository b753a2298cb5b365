/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop as a state machine: how it is created, run, stopped and woken,
 * how other threads post callbacks to it, and the order of what it does. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <limits.h>
#include <stddef.h>
#include <sys/mman.h>

/* ---- options ---- */

static int64_t create_with_flags(uint32_t flags) {
  evloop_options_t options = {.size = sizeof options, .flags = flags};
  return evloop_create(&options);
}

TEST(flags_that_are_known_and_go_together_are_accepted) {
  static const uint32_t good[] = {0, EVLOOP_VIRTUAL_TIME, EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE,
                                  EVLOOP_PRECISE, EVLOOP_VIRTUAL_TIME | EVLOOP_PRECISE,
                                  EVLOOP_KEEP_ALIVE, EVLOOP_INTERRUPTIBLE, EVLOOP_CHECK_FDS, 63};
  static const uint32_t bad[] = {EVLOOP_AUTO_ADVANCE, EVLOOP_AUTO_ADVANCE | EVLOOP_PRECISE, 64,
                                 EVLOOP_VIRTUAL_TIME | 64, UINT32_C(1) << 31, UINT32_MAX};
  for (int i = 0; AT_ROW(i, good); i++) CHECK_EQ(evloop_close(OK(create_with_flags(good[i]))), 0);
  for (int i = 0; AT_ROW(i, bad); i++) CHECK_ERR(create_with_flags(bad[i]), EINVAL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

TEST(bounds_may_be_zero_or_more) {
  static const int bounds[] = {-1, INT_MIN, 0, 1, 1000000};
  for (int i = 0; i < LENGTH(bounds) * 3; i++) {
    evloop_options_t options = {.size = sizeof options};
    int bound = bounds[i / 3];
    if (i % 3 == 0) options.max_events = bound;
    if (i % 3 == 1) options.max_timers = bound;
    if (i % 3 == 2) options.max_posts = bound;
    int64_t loop = evloop_create(&options);
    if (bound < 0) CHECK_ERR(loop, EINVAL);
    else CHECK_EQ(evloop_close(OK(loop)), 0);
  }
}

/* Two pages; what is behind the first one cannot be read. */
static char *end_of_page(void) {
  size_t page = (size_t)OK(sysconf(_SC_PAGESIZE));
  char *pages = (char *)mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(pages != MAP_FAILED);
  OK(mprotect(pages + page, page, PROT_NONE));
  return pages + page;
}

TEST(a_shorter_structure_is_an_older_headers_and_read_no_further) {
  static const evloop_options_t none = {.size = 0};
  for (size_t size = 8; size <= sizeof none; size += 8) {
    evloop_options_t *options = (evloop_options_t *)(void *)(end_of_page() - size);
    memcpy(options, &none, size);
    options->size = size;
    CHECK_EQ(evloop_close(OK(evloop_create(options))), 0);
  }
}

TEST(what_is_behind_a_shorter_structure_counts_for_nothing) {
  static const size_t sizes[] = {offsetof(evloop_options_t, flags), offsetof(evloop_options_t, max_events),
                                 offsetof(evloop_options_t, max_timers),
                                 offsetof(evloop_options_t, max_posts)};
  for (int i = 0; AT_ROW(i, sizes); i++) {
    evloop_options_t options = {.flags = UINT32_MAX, .max_events = -1, .max_timers = -1, .max_posts = -1};
    memset(&options, 0, sizes[i]);
    options.size = sizes[i];
    CHECK_EQ(evloop_close(OK(evloop_create(&options))), 0);
  }
}

TEST(a_longer_structure_must_be_zero_where_it_is_unknown) {
  struct {
    evloop_options_t known;
    unsigned char unknown[40];
  } options = {.known = {.size = sizeof options}};
  CHECK_EQ(evloop_close(OK(evloop_create(&options.known))), 0);
  for (int i = 0; AT_ROW(i, options.unknown); i++) {
    options.unknown[i] = 1;
    CHECK_ERR(evloop_create(&options.known), E2BIG);
    options.known.size = sizeof options.known + (size_t)i;
    CHECK_EQ(evloop_close(OK(evloop_create(&options.known))), 0);
    options.known.size = sizeof options;
    options.unknown[i] = 0;
  }
}

TEST(an_iteration_dispatches_no_more_than_the_bounds) {
  enum { EACH = 5, BOUND = 2 };
  evloop_options_t options = {
      .size = sizeof options, .max_events = BOUND, .max_timers = BOUND, .max_posts = BOUND};
  evloop_t loop = OK(evloop_create(&options));
  Seen seen[3] = {{.calls = 0}};
  int turns = 0, before[3];
  for (int i = 0; i < EACH; i++) {
    Pipe pipe = new_pipe();
    put(pipe.w);
    OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record_and_take, &seen[0]));
    OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 0, 0, record, &seen[1]));
    CHECK_EQ(evloop_post(loop, record, &seen[2]), 0);
  }
  while (seen[0].calls < EACH || seen[1].calls < EACH || seen[2].calls < EACH) {
    for (int i = 0; i < 3; i++) before[i] = seen[i].calls;
    turn(loop);
    for (int i = 0; i < 3; i++) CHECK(seen[i].calls - before[i] <= BOUND);
    CHECK(++turns < 20);
  }
}

/* ---- run modes ---- */

TEST(a_loop_with_nothing_to_wait_for_returns_zero_at_once) {
  RunFunction *const runs[] = {run_until_done, run_once, run_nowait, run_without_limit, wait_for_events};
  for (int i = 0; AT_ROW(i, runs); i++) {
    evloop_t loop = new_loop();
    CHECK_EQ(runs[i](loop), 0);
    CHECK_EQ(runs[i](loop), 0);
    CHECK_EQ(evloop_close(loop), 0);
  }
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_run_for_ns(loop, 0), 0);
  CHECK_EQ(evloop_run_for_ns(loop, INT64_MAX), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
}

TEST(unknown_modes_are_refused) {
  static const int modes[] = {-1, 3, INT_MIN, INT_MAX};
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, log_word, as_data(0)), 0);
  for (int i = 0; AT_ROW(i, modes); i++) CHECK_ERR(evloop_run(loop, modes[i]), EINVAL);
}

TEST(nowait_dispatches_what_is_ready_and_does_not_wait) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  Seen seen = {.calls = 0};
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record_and_take, &seen));
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(turn(loop), 1);
    CHECK_EQ(seen.calls, i);
    put(pipe.w);
    CHECK_EQ(turn(loop), 1);
    CHECK_EQ(seen.calls, i + 1);
  }
}

TEST(once_waits_until_something_happened) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  Seen seen = {.calls = 0};
  Runner r;
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record_and_take, &seen));
  for (int i = 1; i <= 3; i++) {
    start_sleeper(&r, run_once, loop);
    put(pipe.w);
    CHECK_EQ(runner_result(&r), 1);
    CHECK_EQ(seen.calls, i);
  }
  put(pipe.w);
  put(pipe.w);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.calls, 4);
}

TEST(until_done_ends_with_the_last_watcher) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_watcher_t other = keep_alive(loop);
  for (int i = 0; i < 10; i++) {
    Pipe pipe = new_pipe();
    put(pipe.w);
    OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record_and_close, &seen));
    OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, i * MS, MS, 0, record_and_close, &seen));
  }
  CHECK_EQ(evloop_watcher_disable(other), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(seen.calls, 20);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
}

/* It stays open, and can be set again, but will never expire. */
TEST(a_timer_that_expired_once_does_not_keep_the_loop_alive) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_watcher_t timer = OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, MS, 0, 0, record,
                                               &seen));
  for (int i = 1; i <= 3; i++) {
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
    CHECK_EQ(seen.calls, i);
    CHECK_EQ(evloop_timer_again(timer), 0);
  }
}

TEST(only_enabled_watchers_with_a_reference_keep_the_loop_alive) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = keep_alive(loop);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(evloop_watcher_ref(watcher), 0);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  CHECK_EQ(turn(loop), 0);
}

/* A loop and something that happens in it again and again. */
typedef struct Busy {
  Seen seen;
  evloop_t loop;
} Busy;

static void busy_post(const evloop_event_t *event, void *user_data) {
  Busy *busy = (Busy *)user_data;
  record(event, &busy->seen);
  CHECK_EQ(evloop_post(busy->loop, busy_post, busy), 0);
}

TEST(run_for_zero_is_one_iteration_that_does_not_wait) {
  Busy busy = {.loop = new_loop()};
  keep_alive(busy.loop);
  CHECK_EQ(evloop_run_for_ns(busy.loop, 0), 1);
  CHECK_EQ(evloop_post(busy.loop, busy_post, &busy), 0);
  for (int i = 1; i <= 10; i++) {
    CHECK_EQ(evloop_run_for_ns(busy.loop, 0), 1);
    CHECK_EQ(busy.seen.calls, i);
  }
}

TEST(run_for_some_time_is_never_early_and_dispatches_meanwhile) {
  static const int64_t durations[] = {1, 1000, 100000, 5 * MS, 30 * MS};
  for (int busy_or_idle = 0; busy_or_idle < 2; busy_or_idle++) {
    Busy busy = {.loop = new_loop()};
    keep_alive(busy.loop);
    if (busy_or_idle) CHECK_EQ(evloop_post(busy.loop, busy_post, &busy), 0);
    for (int i = 0; i < LENGTH(durations) * 5; i++) {
      int64_t duration = durations[i / 5], start = now_ns(CLOCK_MONOTONIC);
      CHECK_EQ(evloop_run_for_ns(busy.loop, duration), 1);
      CHECK(now_ns(CLOCK_MONOTONIC) - start >= duration);
    }
    CHECK(busy.seen.calls > 0 || !busy_or_idle);
    CHECK_EQ(evloop_close(busy.loop), 0);
  }
}

TEST(run_for_ends_before_its_time_when_nothing_is_left) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, MS, MS, 0, record_and_close, &seen));
  CHECK_EQ(evloop_run_for_ns(loop, 1000 * SECOND), 0);
  CHECK_EQ(seen.calls, 1);
}

static int64_t run_for_a_second(evloop_t loop) {
  return evloop_run_for_ns(loop, SECOND);
}

TEST(run_for_counts_virtual_time_in_a_virtual_loop) {
  evloop_t loop = virtual_loop();
  Runner r;
  keep_alive(loop);
  start_sleeper(&r, run_for_a_second, loop);
  CHECK_EQ(evloop_advance_ns(loop, SECOND - 1), 0);
  wait_until_asleep(&r.tid);
  CHECK_EQ(evloop_advance_ns(loop, 1), 0);
  CHECK_EQ(runner_result(&r), 1);
  CHECK_EQ(evloop_now_ns(loop), SECOND);
}

TEST(run_for_jumps_through_an_hour_of_automatic_time) {
  evloop_t loop = jumping_loop();
  Seen seen = {.calls = 0};
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 60 * SECOND, 60 * SECOND, 0, record, &seen));
  CHECK_EQ(evloop_run_for_ns(loop, 3599 * SECOND), 1);
  CHECK_EQ(seen.calls, 59);
  CHECK_EQ(evloop_now_ns(loop), 3599 * SECOND);
}

/* ---- stopping ---- */

static void stop_and_say(const evloop_event_t *event, void *user_data) {
  stop_loop(event, user_data);
  log_word(event, WORD("s"));
}

TEST(a_stop_in_a_callback_finishes_the_iteration) {
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  put(pipe.w);
  OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, log_word, WORD("i")));
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_check(loop, log_word, WORD("c")))), 0);
  CHECK_EQ(evloop_post(loop, stop_and_say, as_data(loop)), 0);
  CHECK_EQ(evloop_post(loop, log_word, WORD("o")), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 1);
  EXPECT_LOG("soic");
  CHECK_EQ(turn(loop), 1);
  EXPECT_LOG("ic");
}

static RunFunction *const stopped_runs[] = {run_until_done, run_once, run_without_limit, wait_for_events};

/* evloop_wait() has no event to return. */
static int64_t stopped_result(RunFunction *run) {
  return run == wait_for_events ? 0 : 1;
}

TEST(a_stop_from_another_thread_ends_each_kind_of_run) {
  for (int i = 0; AT_ROW(i, stopped_runs); i++) {
    Runner r;
    evloop_t loop = new_loop();
    keep_alive(loop);
    start_sleeper(&r, stopped_runs[i], loop);
    CHECK_EQ(evloop_stop(loop), 0);
    CHECK_EQ(runner_result(&r), stopped_result(stopped_runs[i]));
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_stop_before_the_run_is_remembered_once) {
  for (int i = 0; AT_ROW(i, stopped_runs); i++) {
    evloop_t loop = new_loop();
    Pipe pipe = new_pipe();
    Seen seen = {.calls = 0};
    OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN, record_and_take, &seen));
    for (int stops = 0; stops < 3; stops++) CHECK_EQ(evloop_stop(loop), 0);
    CHECK_EQ(stopped_runs[i](loop), stopped_result(stopped_runs[i]));
    put(pipe.w);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(what_a_stopped_run_did_not_do_the_next_one_does) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  for (int i = 0; i < 10; i++) CHECK_EQ(evloop_post(loop, record, &seen), 0);
  CHECK_EQ(evloop_stop(loop), 0);
  OK(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(seen.calls, 10);
}

static int64_t run_for_no_time(evloop_t loop) {
  return evloop_run_for_ns(loop, 0);
}

/* Also where the run would have returned anyway. */
/* evloop_wait() has an event to return, and remembers it: test_loop_wait.c. */
TEST(a_stop_in_a_callback_is_not_remembered_for_the_next_run) {
  RunFunction *const runs[] = {run_until_done,    run_once,        run_nowait,
                               run_without_limit, run_for_no_time, embed_dispatch};
  for (int i = 0; AT_ROW(i, runs); i++) {
    evloop_t loop = new_loop();
    keep_alive(loop);
    CHECK_EQ(evloop_post(loop, stop_loop, as_data(loop)), 0);
    CHECK_EQ(runs[i](loop), 1);
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(evloop_run_for_ns(loop, 5 * MS), 1);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= 5 * MS);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

static volatile evloop_t signalled; /* what the handlers work on */
static volatile evloop_watcher_t signalled_async;

static void handle(void (*handler)(int)) {
  struct sigaction action = {.sa_handler = handler};
  OK(sigaction(SIGUSR1, &action, NULL));
}

static void stop_in_handler(int number) {
  (void)number;
  evloop_stop(signalled);
}

static void wake_up_in_handler(int number) {
  (void)number;
  evloop_wakeup(signalled);
}

TEST(a_stop_from_a_signal_handler_ends_each_kind_of_run) {
  handle(stop_in_handler);
  for (int i = 0; AT_ROW(i, stopped_runs); i++) {
    Runner r;
    signalled = new_loop();
    keep_alive(signalled);
    start_sleeper(&r, stopped_runs[i], signalled);
    CHECK_EQ(pthread_kill(r.thread, SIGUSR1), 0);
    CHECK_EQ(runner_result(&r), stopped_result(stopped_runs[i]));
    CHECK_EQ(evloop_close(signalled), 0);
  }
}

static void raise_signal(const evloop_event_t *event, void *user_data) {
  (void)event, (void)user_data;
  OK(raise(SIGUSR1));
}

TEST(a_stop_from_a_handler_in_a_callback_ends_the_run) {
  handle(stop_in_handler);
  signalled = new_loop();
  keep_alive(signalled);
  CHECK_EQ(evloop_post(signalled, raise_signal, NULL), 0);
  CHECK_EQ(evloop_run(signalled, EVLOOP_RUN_UNTIL_DONE), 1);
}

/* ---- waking up ---- */

TEST(a_wakeup_makes_the_run_go_round_once) {
  evloop_t loop = new_loop();
  Seen prepares = {.calls = 0};
  Runner r;
  keep_alive(loop);
  count_iterations(loop, &prepares);
  start_sleeper(&r, run_until_done, loop);
  for (int i = 0; i < 10; i++) {
    int before = LOAD(prepares.calls);
    CHECK_EQ(evloop_wakeup(loop), 0);
    UNTIL(LOAD(prepares.calls) >= before + 1);
    wait_until_asleep(&r.tid);
    CHECK_EQ(LOAD(prepares.calls), before + 1);
  }
  stop_runner(&r);
}

TEST(a_wakeup_makes_once_and_wait_return) {
  RunFunction *const runs[] = {run_once, wait_for_events};
  handle(wake_up_in_handler);
  for (int i = 0; i < LENGTH(runs) * 2; i++) {
    Runner r;
    signalled = new_loop();
    keep_alive(signalled);
    start_sleeper(&r, runs[i / 2], signalled);
    if (i % 2) CHECK_EQ(pthread_kill(r.thread, SIGUSR1), 0);
    else CHECK_EQ(evloop_wakeup(signalled), 0);
    CHECK_EQ(runner_result(&r), i < 2 ? 1 : 0);
    CHECK_EQ(evloop_close(signalled), 0);
  }
}

TEST(wakeups_before_the_wait_count_as_one) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  keep_alive(loop);
  for (int i = 0; i < 3; i++) {
    for (int wakeups = 0; wakeups < 5; wakeups++) CHECK_EQ(evloop_wakeup(loop), 0);
    if (i == 0) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    else CHECK_EQ(evloop_wait(loop, &event, 1, -1), 0);
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(evloop_wait(loop, &event, 1, 10 * MS), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= 10 * MS);
  }
}

static void wake_up(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_wakeup((evloop_t)(intptr_t)user_data), 0);
}

TEST(a_wakeup_in_a_callback_is_for_the_next_wait) {
  evloop_t loop = new_loop();
  keep_alive(loop);
  CHECK_EQ(evloop_post(loop, wake_up, as_data(loop)), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
}

/* ---- a storm of signals ---- */

static void wake_send_and_stop(int number) {
  (void)number;
  evloop_wakeup(signalled);
  evloop_async_send(signalled_async);
  evloop_stop(signalled);
}

/* The handler interrupts every call at every place, also where a lock of the
 * loop is held. */
TEST_TIMEOUT(what_is_safe_in_a_handler_is_safe_at_any_time, 60) {
  enum { ROUNDS = 3000 };
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  struct itimerspec often = {{0, 50000}, {0, 50000}};
  Seen posts = {.calls = 0}, asyncs = {.calls = 0};
  timer_t storm;
  int fd = event_fd(0);
  signalled = new_loop();
  signalled_async = OK(evloop_add_async(signalled, record, &asyncs));
  handle(wake_send_and_stop);
  OK(timer_create(CLOCK_MONOTONIC, &event, &storm));
  OK(timer_settime(storm, 0, &often, NULL));
  for (int i = 0; i < ROUNDS; i++) {
    CHECK_EQ(evloop_post(signalled, record, &posts), 0);
    evloop_watcher_t watcher = OK(evloop_add_io(signalled, fd, EVLOOP_EPOLLIN, record, &posts));
    OK(evloop_run(signalled, EVLOOP_RUN_NOWAIT));
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
  OK(timer_delete(storm));
  CHECK_EQ(evloop_watcher_unref(signalled_async), 0);
  OK(evloop_run(signalled, EVLOOP_RUN_UNTIL_DONE)); /* the last stop, perhaps */
  CHECK_EQ(evloop_run(signalled, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(posts.calls, ROUNDS);
  CHECK(asyncs.calls > 0);
}

/* ---- prepare watchers that close what the loop waits for ---- */

static void close_given(const evloop_event_t *event, void *user_data) {
  close_watcher(event->watcher);
  close_watcher((evloop_watcher_t)(intptr_t)user_data);
}

TEST(a_run_does_not_wait_for_what_a_prepare_watcher_has_closed) {
  static RunFunction *const runs[] = {run_until_done, run_once, run_without_limit};
  evloop_t loop = new_loop();
  evloop_event_t event;
  int i;
  for (i = 0; AT_ROW(i, runs); i++) {
    OK(evloop_add_prepare(loop, close_given, as_data(keep_alive(loop))));
    CHECK_EQ(runs[i](loop), 0);
  }
  OK(evloop_add_prepare(loop, close_given, as_data(keep_alive(loop))));
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 0);
}

CHECK_MAIN()
