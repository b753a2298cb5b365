/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The options of loops of version 0.2: EVLOOP_KEEP_ALIVE,
 * EVLOOP_INTERRUPTIBLE, EVLOOP_CHECK_FDS, timer_tolerance_ns,
 * virtual_grace_ns; and evloop_virtual_hold(). */

#define _GNU_SOURCE
#include "loop_support.h"

#include <sys/time.h>
#include <sys/wait.h>

static evloop_options_t options_of(uint32_t flags) {
  evloop_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.flags = flags;
  return options;
}

TEST(times_of_options_are_checked) {
  evloop_options_t options = options_of(0);
  options.timer_tolerance_ns = -1;
  CHECK_ERR(evloop_create(&options), EINVAL);
  options = options_of(EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE);
  options.virtual_grace_ns = -1;
  CHECK_ERR(evloop_create(&options), EINVAL);
  options = options_of(EVLOOP_VIRTUAL_TIME);
  options.virtual_grace_ns = 1;
  CHECK_ERR(evloop_create(&options), EINVAL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

TEST(the_options_of_version_0_1_are_enough) {
  evloop_options_t options = options_of(EVLOOP_VIRTUAL_TIME);
  options.size = offsetof(evloop_options_t, timer_tolerance_ns);
  options.timer_tolerance_ns = -77;
  CHECK_EQ(evloop_close(OK(evloop_create(&options))), 0);
}

/* ---- KEEP_ALIVE ---- */

TEST(a_loop_that_is_kept_alive_runs_until_it_is_stopped) {
  static Seen seen;
  RunFunction *const runs[] = {run_until_done, run_without_limit, run_once, wait_for_events};
  for (int i = 0; AT_ROW(i, runs); i++) {
    Runner runner;
    evloop_t loop = loop_with(EVLOOP_KEEP_ALIVE);
    CHECK_EQ(evloop_alive(loop), 1);
    start_sleeper(&runner, runs[i], loop);
    CHECK_EQ(evloop_alive(loop), 1);
    if (i < 2) {
      CHECK_EQ(evloop_post(loop, record, &seen), 0);
      UNTIL(LOAD(seen.calls) > i);
    }
    CHECK_EQ(evloop_stop(loop), 0);
    CHECK_EQ(runner_result(&runner), runs[i] == wait_for_events ? 0 : 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_kept_loop_that_does_not_wait_says_that_it_is_alive) {
  evloop_t loop = loop_with(EVLOOP_KEEP_ALIVE);
  CHECK_EQ(turn(loop), 1);
  evloop_watcher_t watcher = keep_alive(loop);
  close_watcher(watcher);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(evloop_run_for_ns(loop, MS), 1);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(turn(new_loop()), 0);
}

TEST(a_child_keeps_a_kept_loop_alive) {
  evloop_t loop = loop_with(EVLOOP_KEEP_ALIVE);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(loop), 0);
    CHECK_EQ(evloop_alive(loop), 1);
    CHECK_EQ(turn(loop), 1);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

/* ---- INTERRUPTIBLE ---- */

static int handlings; /* atomic */

static void note_signal(int number) {
  (void)number;
  RAISE(handlings, 1);
}

static int asked;

static int go_on(void *user_data) {
  (void)user_data;
  asked++;
  return 0;
}

/* With the check of this thread, which would go on. */
static int64_t run_with_check(evloop_t loop) {
  CHECK_EQ(evloop_set_interrupt_check(go_on, NULL), 0);
  return evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
}

static void interrupt_runner(Runner *runner) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = note_signal;
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  CHECK_EQ(pthread_kill(runner->thread, SIGUSR1), 0);
  UNTIL(LOAD(handlings) > 0);
}

TEST(an_interruptible_loops_wait_is_interrupted_on_every_thread) {
  RunFunction *const runs[] = {run_until_done, run_without_limit, run_once, wait_for_events,
                               run_with_check};
  for (int i = 0; AT_ROW(i, runs); i++) {
    Runner runner;
    evloop_t loop = loop_with(EVLOOP_INTERRUPTIBLE);
    keep_alive(loop);
    STORE(handlings, 0);
    start_sleeper(&runner, runs[i], loop);
    interrupt_runner(&runner);
    CHECK_EQ(runner_result(&runner), -EINTR);
    CHECK_EQ(asked, 0);
    /* It can be run again. */
    CHECK_EQ(turn(loop), 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(another_loops_wait_is_resumed) {
  Runner runner;
  evloop_t loop = sleeping_loop(&runner);
  OK(loop_with(EVLOOP_INTERRUPTIBLE));
  interrupt_runner(&runner);
  go_round(loop);
  stop_runner(&runner);
}

TEST(an_interrupted_wait_says_why) {
  char sentence[200];
  struct sigaction action;
  struct itimerval soon = {{0, 1000}, {0, 1000}};
  evloop_t loop = loop_with(EVLOOP_INTERRUPTIBLE);
  keep_alive(loop);
  memset(&action, 0, sizeof action);
  action.sa_handler = note_signal;
  CHECK_EQ(sigaction(SIGVTALRM, &action, NULL), 0);
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  CHECK_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), EINTR);
  memset(&soon, 0, sizeof soon);
  CHECK_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
  OK(evloop_last_error(sentence, sizeof sentence));
  CHECK(strstr(sentence, "evloop_run: a signal handler interrupted the wait (EINTR)") != NULL);
}

/* ---- timer_tolerance_ns ---- */

static int64_t tolerance_of(evloop_watcher_t watcher) {
  evloop_watcher_info_t info;
  memset(&info, 0, sizeof info);
  info.size = sizeof info;
  CHECK_EQ(evloop_watcher_info(watcher, &info), 0);
  return info.tolerance_ns;
}

static evloop_t tolerant_loop(int64_t tolerance_ns) {
  evloop_options_t options = options_of(0);
  options.timer_tolerance_ns = tolerance_ns;
  return OK(evloop_create(&options));
}

static evloop_watcher_t with_tolerance(evloop_t loop, int64_t tolerance_ns) {
  return OK(evloop_add_timer(loop, MONOTONIC, 0, HOUR, 0, tolerance_ns, ignore, NULL));
}

static void expect_tolerances(evloop_t loop) {
  CHECK_EQ(tolerance_of(with_tolerance(loop, 0)), 8192);
  CHECK_EQ(tolerance_of(with_tolerance(loop, 1)), 1);
  CHECK_EQ(tolerance_of(with_tolerance(loop, 4096)), 4096);
}

static void add_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  for (int i = 0; i < 3; i++) expect_tolerances((evloop_t)(intptr_t)user_data);
}

TEST(timers_without_a_tolerance_have_the_loops) {
  evloop_t loop = tolerant_loop(8192);
  Runner runner;
  Gate gate;
  expect_tolerances(loop);
  CHECK_EQ(evloop_post(loop, add_in_callback, as_data(loop)), 0);
  turn(loop);
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  expect_tolerances(loop);
  open_gate(&gate);
  stop_runner(&runner);
  CHECK_EQ(tolerance_of(with_tolerance(new_loop(), 0)), 0);
}

TEST(timers_of_a_tolerant_loop_expire_together) {
  static Seen early, late;
  evloop_t loop = tolerant_loop(200 * MS);
  timer(loop, 1 * MS, 0, record, &early);
  timer(loop, 60 * MS, 0, record, &late);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 0);
  CHECK_EQ(early.calls, 1);
  CHECK_EQ(late.calls, 1);
}

/* ---- virtual time ---- */

static evloop_t graceful_loop(int64_t grace_ns) {
  evloop_options_t options = options_of(EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE);
  options.virtual_grace_ns = grace_ns;
  return OK(evloop_create(&options));
}

TEST(virtual_time_jumps_after_its_grace) {
  static Seen seen;
  evloop_t loop = graceful_loop(20 * MS);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  timer(loop, HOUR, HOUR, record, &seen);
  while (seen.calls < 3) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(evloop_now_ns(loop), 3 * HOUR);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 3 * 20 * MS);
}

static void *write_late(void *argument) {
  const int *fd = (const int *)argument;
  struct timespec pause = {0, 5 * MS};
  for (int i = 0; i < 4; i++) {
    nanosleep(&pause, NULL);
    OK(eventfd_write(*fd, 1));
  }
  return NULL;
}

static void take_and_say(const evloop_event_t *event, void *user_data) {
  eventfd_t count;
  OK(eventfd_read(event->fd, &count));
  record(event, user_data);
}

/* The answers of a thread come before a timer that is due much earlier, in
 * virtual time. */
TEST(what_happens_in_real_time_comes_before_a_jump) {
  static Seen answers, timeout;
  int fd = event_fd(0);
  evloop_t loop = graceful_loop(10 * SECOND);
  evloop_watcher_t io = readable_io(loop, fd, take_and_say, &answers);
  timer(loop, 1, 0, record, &timeout);
  pthread_t thread = start_thread(write_late, &fd);
  while (answers.count < 4 && answers.calls < 1) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(timeout.calls, 0);
  CHECK_EQ(evloop_now_ns(loop), 0);
  join(thread);
  close_watcher(io);
}

TEST(an_interrupted_grace_goes_on) {
  static Seen seen;
  struct sigaction action;
  struct itimerval often = {{0, 1000}, {0, 1000}};
  evloop_t loop = graceful_loop(30 * MS);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  memset(&action, 0, sizeof action);
  action.sa_handler = note_signal;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
  timer(loop, HOUR, 0, record, &seen);
  run_to_end(loop);
  memset(&often, 0, sizeof often);
  CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
  CHECK_EQ(seen.calls, 1);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 30 * MS);
}

TEST(an_embedded_loop_has_its_grace_too) {
  static Seen seen;
  evloop_t loop = graceful_loop(20 * MS);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  timer(loop, HOUR, 0, record, &seen);
  while (seen.calls == 0) {
    CHECK_EQ(evloop_embed_prepare(loop), 1);
    OK(evloop_embed_dispatch(loop));
  }
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 20 * MS);
  CHECK_EQ(evloop_now_ns(loop), HOUR);
}

TEST(virtual_time_that_is_held_does_not_jump) {
  static Seen seen;
  Runner runner;
  evloop_t loop = jumping_loop();
  CHECK_EQ(evloop_virtual_hold(loop, 1), 0);
  CHECK_EQ(evloop_virtual_hold(loop, 1), 0);
  timer(loop, HOUR, 0, record, &seen);
  CHECK_EQ(evloop_run_for_ns(loop, 0), 1);
  CHECK_EQ(evloop_now_ns(loop), 0);
  start_sleeper(&runner, run_until_done, loop);
  CHECK_EQ(evloop_virtual_hold(loop, -1), 0);
  go_round(loop);
  wait_until_asleep(&runner.tid);
  CHECK_EQ(LOAD(seen.calls), 0);
  CHECK_EQ(evloop_virtual_hold(loop, -1), 0);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_now_ns(loop), HOUR);
}

static void let_go(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(evloop_virtual_hold((evloop_t)(intptr_t)user_data, -1), 0);
  close_watcher(event->watcher);
}

TEST(a_callback_lets_time_go_on) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  CHECK_EQ(evloop_virtual_hold(loop, 1), 0);
  readable_io(loop, event_fd(1), let_go, as_data(loop));
  timer(loop, HOUR, 0, record, &seen);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
}

TEST(a_held_embedded_loop_is_waited_for_and_woken) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  int fd = (int)OK(evloop_fileno(loop));
  timer(loop, HOUR, 0, record, &seen);
  CHECK_EQ(evloop_virtual_hold(loop, 1), 0);
  CHECK_EQ(evloop_embed_prepare(loop), 0);
  CHECK(!readable(fd, 0));
  CHECK_EQ(evloop_virtual_hold(loop, -1), 0);
  CHECK(readable(fd, -1));
  for (int i = 0; i < 3 && seen.calls == 0; i++) {
    OK(evloop_embed_dispatch(loop));
    OK(evloop_embed_prepare(loop));
  }
  CHECK_EQ(seen.calls, 1);
}

TEST(holds_are_counted_and_checked) {
  evloop_t loop = virtual_loop(), real = new_loop();
  CHECK_ERR(evloop_virtual_hold(loop, -1), EINVAL);
  CHECK_ERR(evloop_virtual_hold(loop, 0), EINVAL);
  CHECK_ERR(evloop_virtual_hold(loop, 2), EINVAL);
  CHECK_ERR(evloop_virtual_hold(real, 1), ENOTSUP);
  CHECK_EQ(evloop_virtual_hold(loop, 1), 0);
  CHECK_EQ(evloop_virtual_hold(loop, -1), 0);
  CHECK_ERR(evloop_virtual_hold(loop, -1), EINVAL);
  /* The next loop that uses its memory has no hold. */
  CHECK_EQ(evloop_virtual_hold(loop, 1), 0);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_ERR(evloop_virtual_hold(virtual_loop(), -1), EINVAL);
}

/* ---- CHECK_FDS ---- */

typedef struct Lost {
  Seen seen;
  char sentence[200];
} Lost;

static void record_and_keep_sentence(const evloop_event_t *event, void *user_data) {
  Lost *lost = (Lost *)user_data;
  OK(evloop_last_error(lost->sentence, sizeof lost->sentence));
  record(event, &lost->seen);
}

static evloop_watcher_t named_io(evloop_t loop, int fd, uint32_t events, const char *name, Lost *lost) {
  evloop_watcher_t watcher = OK(evloop_add_io(loop, fd, events, record_and_keep_sentence, lost));
  CHECK_EQ(evloop_watcher_set_name(watcher, name), 0);
  return watcher;
}

static void expect_lost(const Lost *lost, int fd, const char *name) {
  char part[100];
  CHECK_EQ(lost->seen.errors, 1);
  CHECK_EQ(lost->seen.last.result, -EBADF);
  snprintf(part, sizeof part, "fd %d was closed, or is another file by now;", fd);
  CHECK(strstr(lost->sentence, part) != NULL);
  CHECK(strstr(lost->sentence, name) != NULL);
}

/* Whether or not a duplicate of what was closed is open. */
TEST(a_descriptor_that_was_closed_is_reported_before_the_wait) {
  const uint32_t kinds[] = {EVLOOP_EPOLLIN, EVLOOP_EPOLLIN | EVLOOP_EPOLLET,
                            EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT,
                            EVLOOP_EPOLLIN | EVLOOP_EPOLLEXCLUSIVE};
  for (int i = 0; i < 2 * LENGTH(kinds); i++) {
    Lost lost;
    evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
    int fd = event_fd(0), other = event_fd(0);
    memset(&lost, 0, sizeof lost);
    named_io(loop, fd, kinds[i / 2], "the early one", &lost);
    readable_io(loop, other, record, &lost.seen);
    turns(loop, 3);
    CHECK_EQ(lost.seen.calls, 0);
    if (i % 2 == 1) OK(dup(fd));
    OK(close(fd));
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    expect_lost(&lost, fd, "'the early one'");
    CHECK_ERR(evloop_find_io(loop, fd), ENOENT);
    CHECK(evloop_find_io(loop, other) > 0);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_descriptor_that_was_replaced_is_reported) {
  for (int i = 0; i < 3; i++) {
    Lost lost;
    evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
    int fd = event_fd(0);
    memset(&lost, 0, sizeof lost);
    named_io(loop, fd, EVLOOP_EPOLLIN, "the old one", &lost);
    keep_alive(loop);
    /* Another one that is ready, one that no epoll takes, and the same. */
    int next = i == 0 ? event_fd(1) : i == 1 ? regular_file() : (int)OK(dup(fd));
    OK(dup2(next, fd));
    turns(loop, 2);
    if (i == 2) {
      CHECK_EQ(lost.seen.calls, 0);
    } else {
      CHECK_EQ(lost.seen.calls, 1);
      expect_lost(&lost, fd, "'the old one'");
      /* The new one is not the loop's. */
      CHECK_EQ(lost.seen.errors, 1);
    }
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_regular_file_that_was_replaced_is_reported) {
  Lost lost;
  evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
  int fd = regular_file();
  memset(&lost, 0, sizeof lost);
  evloop_watcher_t files[3];
  for (int i = 0; i < 3; i++) files[i] = OK(evloop_add_io(loop, i == 2 ? fd : regular_file(), 0,
                                                          record_and_keep_sentence, &lost));
  CHECK_EQ(evloop_watcher_set_name(files[2], "the file"), 0);
  OK(dup2(regular_file(), fd));
  turns(loop, 1);
  expect_lost(&lost, fd, "'the file'");
  CHECK_EQ(lost.seen.last.watcher, files[2]);
}

TEST(a_descriptor_that_is_closed_during_a_wait_is_reported) {
  static Lost lost;
  Runner runner;
  evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
  int fd = event_fd(0);
  named_io(loop, fd, EVLOOP_EPOLLIN, "the late one", &lost);
  keep_alive(loop);
  start_sleeper(&runner, run_until_done, loop);
  OK(close(fd));
  UNTIL(LOAD(lost.seen.calls) == 1);
  stop_runner(&runner);
  expect_lost(&lost, fd, "'the late one'");
}

/* A check does not make an edge out of what is ready. */
TEST(checks_arm_nothing) {
  const uint32_t kinds[] = {EVLOOP_EPOLLIN | EVLOOP_EPOLLET, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT};
  for (int i = 0; AT_ROW(i, kinds); i++) {
    Seen seen;
    evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
    memset(&seen, 0, sizeof seen);
    OK(evloop_add_io(loop, event_fd(1), kinds[i], record, &seen));
    turns(loop, 10);
    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_loop_that_checks_waits_as_long_as_others) {
  static Seen ticks, prepares;
  evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
  int64_t start = now_ns(CLOCK_MONOTONIC);
  readable_io(loop, event_fd(0), ignore, NULL);
  count_iterations(loop, &prepares);
  CHECK_EQ(evloop_run_for_ns(loop, 350 * MS), 1);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 350 * MS);
  /* Checking is no iteration. */
  CHECK(prepares.calls <= 2);
  start = now_ns(CLOCK_MONOTONIC);
  timer(loop, 250 * MS, 0, record, &ticks);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(ticks.calls, 1);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 250 * MS);
}

TEST(a_foreign_loop_hears_of_a_closed_descriptor) {
  Lost lost;
  evloop_t loop = loop_with(EVLOOP_CHECK_FDS);
  int fd = event_fd(0);
  memset(&lost, 0, sizeof lost);
  named_io(loop, fd, EVLOOP_EPOLLIN, "embedded", &lost);
  CHECK_EQ(evloop_embed_prepare(loop), 0);
  OK(evloop_embed_dispatch(loop));
  OK(close(fd));
  CHECK_EQ(evloop_embed_prepare(loop), 1);
  OK(evloop_embed_dispatch(loop));
  expect_lost(&lost, fd, "'embedded'");
}

/* While other threads add and close watchers, none is reported that is not
 * lost. */
typedef struct Changer {
  evloop_t loop;
  Seen seen;
} Changer;

static void *add_and_close(void *argument) {
  Changer *changer = (Changer *)argument;
  for (int i = 0; i < 2000; i++) {
    int fd = event_fd(0);
    evloop_watcher_t watcher = readable_io(changer->loop, fd, record, &changer->seen);
    if (i % 3 == 0) close_watcher(readable_io(changer->loop, fd, record, &changer->seen));
    CHECK_EQ(evloop_wakeup(changer->loop), 0);
    close_watcher(watcher);
    OK(close(fd));
  }
  return NULL;
}

TEST(watchers_that_other_threads_add_and_close_are_not_lost) {
  static Changer changer;
  Runner runner;
  changer.loop = loop_with(EVLOOP_CHECK_FDS);
  keep_alive(changer.loop);
  start_runner(&runner, run_until_done, changer.loop);
  pthread_t threads[] = {start_thread(add_and_close, &changer), start_thread(add_and_close, &changer)};
  for (int i = 0; i < 2; i++) join(threads[i]);
  stop_runner(&runner);
  CHECK_EQ(changer.seen.calls, 0);
}

CHECK_MAIN()
