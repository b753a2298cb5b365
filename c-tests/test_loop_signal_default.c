/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A signal watcher replaces the default action of its signal. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <spawn.h>
#include <sys/resource.h>

/* Signals that keep their default action. */
static const int kept[] = {SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP};

static bool is_kept(int number) {
  for (int i = 0; AT_ROW(i, kept); i++) {
    if (kept[i] == number) return true;
  }
  return false;
}

static evloop_watcher_t watch(evloop_t loop, int number, uint32_t flags, Seen *seen) {
  return OK(evloop_add_signal(loop, number, flags, record, seen));
}

static int status_of(pid_t child) {
  int status;
  CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
  return status;
}

static bool ended_by(pid_t child, int number) {
  int status = status_of(child);
  return WIFSIGNALED(status) && WTERMSIG(status) == number;
}

/* A child that raises a signal, which it watches as `watch_it` does, and
 * exits if it goes on. */
static pid_t child_that_raises(int number, void (*watch_it)(int)) {
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    /* As nohup(1) has it, the test may have been started with it ignored. */
    signal(number, SIG_DFL);
    watch_it(number);
    raise(number);
    _exit(0);
  }
  return child;
}

static void watch_replaced(int number) {
  watch(OK(evloop_create(NULL)), number, 0, NULL);
}

static void watch_kept(int number) {
  watch(OK(evloop_create(NULL)), number, EVLOOP_SIGNAL_KEEP_DEFAULT, NULL);
}

static bool can_be_watched(int number) {
  struct sigaction action;
  if (number == SIGKILL || number == SIGSTOP) return false;
  /* valgrind keeps the last one for itself, the C library some others. */
  if (number == SIGRTMAX && getenv("EVLOOP_TEST_VALGRIND")) return false;
  return sigaction(number, NULL, &action) == 0;
}

/* ---- which signals ---- */

TEST(no_watched_signal_ends_or_stops_the_process) {
  evloop_t loop = new_loop();
  for (int number = 1; number < NSIG; number++) {
    Seen seen;
    memset(&seen, 0, sizeof seen);
    if (!can_be_watched(number) || is_kept(number)) continue;
    evloop_watcher_t watcher = watch(loop, number, 0, &seen);
    OK(kill(getpid(), number));
    while (seen.calls == 0) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(seen.last.result, number);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
  close_loop(loop);
}

TEST(signals_of_a_fault_or_an_abort_keep_their_default_action) {
  for (int i = 0; AT_ROW(i, kept); i++) {
    CHECK(ended_by(child_that_raises(kept[i], watch_replaced), kept[i]));
  }
}

TEST(a_watcher_can_keep_the_default_action) {
  const int ends[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGALRM, SIGRTMIN, SIGRTMAX - 1};
  for (int i = 0; AT_ROW(i, ends); i++) {
    CHECK(ended_by(child_that_raises(ends[i], watch_kept), ends[i]));
    CHECK_EQ(status_of(child_that_raises(ends[i], watch_replaced)), 0);
  }
  CHECK_EQ(status_of(child_that_raises(SIGCHLD, watch_kept)), 0);
  CHECK_EQ(status_of(child_that_raises(SIGTSTP, watch_replaced)), 0);
  /* It stops no process, ours or not. */
  if (getenv("EVLOOP_TEST_VALGRIND")) return;
  pid_t stopped = child_that_raises(SIGTSTP, watch_kept);
  int status = status_of(stopped);
  CHECK(WIFSTOPPED(status));
  CHECK_EQ(WSTOPSIG(status), SIGTSTP);
  OK(kill(stopped, SIGCONT));
  CHECK_EQ(status_of(stopped), 0);
}

/* ---- how long ---- */

static void watch_both(int number) {
  evloop_t loop = OK(evloop_create(NULL));
  watch(loop, number, EVLOOP_SIGNAL_KEEP_DEFAULT, NULL);
  watch(loop, number, 0, NULL);
}

static void watch_in_two_loops(int number) {
  watch_kept(number);
  watch_replaced(number);
}

static void close_one_of_two(int number) {
  evloop_t loop = OK(evloop_create(NULL));
  evloop_watcher_t watcher = watch(loop, number, 0, NULL);
  watch(loop, number, 0, NULL);
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
}

static void disable(int number) {
  CHECK_EQ(evloop_watcher_disable(watch(OK(evloop_create(NULL)), number, 0, NULL)), 0);
}

static void *watch_on_a_thread(void *number) {
  watch_replaced(*(int *)number);
  return NULL;
}

static void watch_elsewhere(int number) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, watch_on_a_thread, &number), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(one_watcher_that_replaces_it_is_enough) {
  void (*ways[])(int) = {watch_both, watch_in_two_loops, close_one_of_two, disable,
                         watch_elsewhere};
  for (int i = 0; AT_ROW(i, ways); i++) {
    CHECK_EQ(status_of(child_that_raises(SIGTERM, ways[i])), 0);
  }
}

static void close_last(int number) {
  evloop_t loop = OK(evloop_create(NULL));
  CHECK_EQ(evloop_watcher_close(watch(loop, number, 0, NULL), 0), 0);
}

static void close_its_loop(int number) {
  evloop_t loop = OK(evloop_create(NULL));
  watch(loop, number, 0, NULL);
  CHECK_EQ(evloop_close(loop), 0);
}

static void close_beside_one_that_keeps_it(int number) {
  evloop_t loop = OK(evloop_create(NULL));
  watch(loop, number, EVLOOP_SIGNAL_KEEP_DEFAULT, NULL);
  CHECK_EQ(evloop_watcher_close(watch(loop, number, 0, NULL), 0), 0);
}

TEST(behind_the_last_watcher_the_default_action_is_back) {
  void (*ways[])(int) = {close_last, close_its_loop, close_beside_one_that_keeps_it};
  for (int i = 0; AT_ROW(i, ways); i++) {
    CHECK(ended_by(child_that_raises(SIGTERM, ways[i]), SIGTERM));
  }
}

TEST(a_watcher_over_its_rate_limit_replaces_it) {
  evloop_t loop = new_loop();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  evloop_watcher_t watcher = watch(loop, SIGTERM, 0, &seen);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, 3600 * SECOND, 1), 0);
  for (int i = 0; i < 5; i++) {
    OK(kill(getpid(), SIGTERM));
    OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  }
  CHECK_EQ(seen.calls, 1);
  close_loop(loop);
}

/* ---- with the program's own ---- */

static int handled;

static void handle(int number) {
  (void)number;
  RAISE(handled, 1);
}

TEST(a_handler_of_the_program_is_still_called) {
  struct sigaction action;
  Seen seen;
  evloop_t loop = new_loop();
  memset(&seen, 0, sizeof seen);
  memset(&action, 0, sizeof action);
  action.sa_handler = handle;
  /* For one time: from then on it is the default action that is replaced. */
  action.sa_flags = SA_RESETHAND;
  OK(sigaction(SIGTERM, &action, NULL));
  watch(loop, SIGTERM, 0, &seen);
  for (int i = 0; i < 3; i++) OK(kill(getpid(), SIGTERM));
  while (seen.calls == 0) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(LOAD(handled), 1);
  CHECK_EQ(seen.last.count, 3);
  close_loop(loop);
}

static void watch_in_a_kqueue(int number) {
  evloop_kevent_t change;
  memset(&change, 0, sizeof change);
  change.ident = (uint64_t)number;
  change.filter = EVLOOP_KQ_FILTER_SIGNAL;
  change.flags = EVLOOP_KQ_EV_ADD;
  OK(evloop_kqueue_control(OK(evloop_kqueue_create(0)), &change, 1, NULL, 0, 0));
}

static void watch_in_a_kqueue_and_a_loop(int number) {
  watch_in_a_kqueue(number);
  watch_replaced(number);
}

static void watch_in_a_loop_and_a_kqueue(int number) {
  watch_replaced(number);
  watch_in_a_kqueue(number);
}

TEST(a_kqueue_leaves_the_default_action_to_a_loop) {
  CHECK(ended_by(child_that_raises(SIGTERM, watch_in_a_kqueue), SIGTERM));
  CHECK_EQ(status_of(child_that_raises(SIGTERM, watch_in_a_kqueue_and_a_loop)), 0);
  CHECK_EQ(status_of(child_that_raises(SIGTERM, watch_in_a_loop_and_a_kqueue)), 0);
}

/* ---- children ---- */

TEST(a_forked_child_can_be_ended_until_it_goes_on_with_the_loop) {
  evloop_t loop = new_loop();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  watch(loop, SIGTERM, 0, &seen);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    for (;;) pause();
  }
  OK(kill(child, SIGTERM));
  CHECK(ended_by(child, SIGTERM));
  /* One that makes calls, but does not go on with the loop. */
  child = (pid_t)OK(fork());
  if (child == 0) {
    evloop_t other = OK(evloop_create(NULL));
    OK(evloop_run(other, EVLOOP_RUN_NOWAIT));
    raise(SIGTERM);
    _exit(0);
  }
  CHECK(ended_by(child, SIGTERM));
  child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(loop), 0);
    raise(SIGTERM);
    while (seen.calls == 0) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    fflush(stdout);
    _exit(0);
  }
  CHECK_EQ(status_of(child), 0);
  CHECK_EQ(seen.calls, 0);
  OK(kill(getpid(), SIGTERM));
  while (seen.calls == 0) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  close_loop(loop);
}

TEST(an_executed_program_has_the_default_action) {
  char *const arguments[] = {(char *)"sh", (char *)"-c", (char *)"kill -TERM $$; exit 0", NULL};
  extern char **environ;
  pid_t child;
  watch_replaced(SIGTERM);
  child = (pid_t)OK(fork());
  if (child == 0) {
    execv("/bin/sh", arguments);
    _exit(99);
  }
  CHECK(ended_by(child, SIGTERM));
  CHECK_EQ(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ), 0);
  CHECK(ended_by(child, SIGTERM));
  child = (pid_t)OK(fork());
  if (child == 0) {
    /* Watched by the process that is replaced. */
    watch_replaced(SIGTERM);
    execv("/bin/sh", arguments);
    _exit(99);
  }
  CHECK(ended_by(child, SIGTERM));
}

CHECK_MAIN()
