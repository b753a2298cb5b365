/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* evloop_after_fork() that lacks something: it returns an error, loses nothing,
 * and can be called again. Each of its system calls is made to fail once. */

#define _GNU_SOURCE
#include "failing_calls.h"
#include "loop_files.h"

#include <signal.h>

/* ---- a loop with everything that has a descriptor ---- */

static const int32_t clocks[] = {EVLOOP_CLOCK_MONOTONIC, EVLOOP_CLOCK_REALTIME,
                                 EVLOOP_CLOCK_BOOTTIME};

enum { FILES = 3 };

/* Directories that are watched, or below one that is. */
static const char *const directories[FILES] = {"single", "tree", "tree/below"};

typedef struct Full {
  evloop_t loop;
  Pipe pipes[2];
  tfd_t tfd;
  evloop_watcher_t timers[LENGTH(clocks)];
  Seen io[2], timer[LENGTH(clocks)], signals[2], tfd_seen, file[2], pressure, process;
} Full;

static int by_handler, by_descriptor;

static void add_signals(Full *f) {
  sigset_t blocked;
  by_handler = SIGWINCH; /* ignored where it is not watched */
  by_descriptor = SIGRTMIN + 3;
  sigemptyset(&blocked);
  sigaddset(&blocked, by_descriptor);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &blocked, NULL), 0);
  OK(evloop_add_signal(f->loop, by_handler, 0, record, &f->signals[0]));
  OK(evloop_add_signal(f->loop, by_descriptor, EVLOOP_SIGNAL_FD, record, &f->signals[1]));
}

static void add_files(Full *f) {
  int i;
  for (i = 0; i < FILES; i++) make_dir(directories[i]);
  OK(evloop_add_file(f->loop, "single", FILE_(CREATE) | FILE_(DELETE), 0, record, &f->file[0]));
  OK(evloop_add_file(f->loop, "tree", FILE_(CREATE) | FILE_(DELETE), TREE, record, &f->file[1]));
}

static void fill_loop(Full *f) {
  int i;
  memset(f, 0, sizeof *f);
  f->loop = new_loop();
  OK(evloop_fileno(f->loop));
  for (i = 0; i < 2; i++) {
    f->pipes[i] = new_pipe();
    OK(evloop_add_io(f->loop, f->pipes[i].r, EVLOOP_EPOLLIN, record_and_take, &f->io[i]));
  }
  for (i = 0; AT_ROW(i, clocks); i++) {
    f->timers[i] = OK(evloop_add_timer(f->loop, clocks[i], 0, HOUR, 0, 0, record, &f->timer[i]));
  }
  f->tfd = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  OK(evloop_add_tfd(f->loop, f->tfd, record, &f->tfd_seen));
  add_signals(f);
  add_files(f);
  /* Neither has events in these cases; the kernel may not support them. */
  evloop_add_memory_pressure(f->loop, NULL, EVLOOP_PRESSURE_FULL, 1900 * MS, 2 * SECOND, record,
                             &f->pressure);
  evloop_add_process(f->loop, getppid(), 0, record, &f->process);
  turn(f->loop);
}

static void touch_all(void) {
  char path[64];
  int i;
  for (i = 0; i < FILES; i++) {
    snprintf(path, sizeof path, "%s/file", directories[i]);
    make_file(path);
    OK(unlink(path));
  }
}

static int calls(const Full *f) {
  int i, sum = f->tfd_seen.calls + f->file[0].calls + f->file[1].calls;
  for (i = 0; i < 2; i++) sum += f->io[i].calls + f->signals[i].calls;
  for (i = 0; AT_ROW(i, clocks); i++) sum += f->timer[i].calls;
  return sum;
}

/* Everything happens once, and is reported once. */
static void expect_all_work(Full *f) {
  const int events = 2 + LENGTH(clocks) + 1 + 2 + 2 * FILES;
  int i, before = calls(f);
  for (i = 0; i < 2; i++) put(f->pipes[i].w);
  for (i = 0; AT_ROW(i, clocks); i++) CHECK_EQ(evloop_timer_set(f->timers[i], 0, 1, 0), 0);
  CHECK_EQ(tfd_settime_ns(f->tfd, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(raise(by_handler), 0);
  CHECK_EQ(raise(by_descriptor), 0);
  touch_all();
  while (calls(f) < before + events) CHECK_EQ(evloop_run(f->loop, EVLOOP_RUN_ONCE), 1);
  turns(f->loop, 2);
  CHECK_EQ(calls(f), before + events);
  CHECK_EQ(f->pressure.errors + f->process.errors, 0);
}

/* ---- calls that fail ---- */

typedef struct Refusal {
  long call;
  int error;
} Refusal;

static const Refusal refusals[] = {
  {SYS_eventfd2, EMFILE},
  {SYS_epoll_create1, ENFILE},
  {SYS_epoll_ctl, ENOSPC},
  {SYS_epoll_ctl, ENOMEM},
  {SYS_timerfd_create, EMFILE},
  {SYS_signalfd4, ENFILE},
  {SYS_inotify_init1, EMFILE},
  {SYS_inotify_add_watch, ENOMEM},
  {SYS_inotify_add_watch, ENOSPC},
  {SYS_openat2, EMFILE},
  {SYS_openat, EMFILE},
  {SYS_getdents64, ENOMEM},
};

/* In the child; false: there are not so many of these calls. */
static bool fail_once(Full *f, const Refusal *refusal, int nth) {
  int result;
  fail_call(refusal->call, nth, refusal->error);
  result = evloop_after_fork(f->loop);
  fail_no_call();
  if (failing.failed == 0) {
    CHECK_EQ(result, 0);
    return false;
  }
  CHECK_EQ(result, -refusal->error);
  CHECK_ERR(evloop_run(f->loop, EVLOOP_RUN_NOWAIT), ECHILD);
  return true;
}

enum { MADE_ALL = 3 };

/* Fails in each of these calls, in a child for each; how many there are. */
static int fail_each(Full *f, const Refusal *refusal, int descriptors) {
  int nth, status = 0;
  for (nth = 1; status == 0; nth++) {
    pid_t child;
    fflush(stdout);
    child = (pid_t)OK(fork());
    if (child == 0) {
      bool more = fail_once(f, refusal, nth);
      CHECK_EQ(evloop_after_fork(f->loop), 0);
      CHECK_EQ(open_descriptors(), descriptors);
      expect_all_work(f);
      fflush(stdout);
      _exit(more ? 0 : MADE_ALL);
    }
    OK(waitpid(child, &status, 0));
    if (status != 0 && status != MADE_ALL << 8) {
      printf("  call %ld, number %d, fails with %d\n", refusal->call, nth, refusal->error);
      check_exit();
    }
  }
  return nth - 2;
}

/* How many descriptors a child has that lacked nothing: the parent's, which
 * may be another's by then and are not closed, and its own. */
static int descriptors_of_a_child(Full *f) {
  Pipe answer = new_pipe();
  int count = 0;
  pid_t child;
  fflush(stdout);
  child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(f->loop), 0);
    count = open_descriptors();
    CHECK_EQ(write(answer.w, &count, sizeof count), (ssize_t)sizeof count);
    _exit(0);
  }
  CHECK_EQ(read(answer.r, &count, sizeof count), (ssize_t)sizeof count);
  OK(waitpid(child, NULL, 0));
  OK(close(answer.r));
  OK(close(answer.w));
  return count - 2;
}

TEST_TIMEOUT(a_copy_that_lacked_something_is_complete_when_it_is_tried_again, 120) {
  static Full f;
  int i, descriptors;
  enter_home();
  fill_loop(&f);
  expect_all_work(&f);
  descriptors = descriptors_of_a_child(&f);
  for (i = 0; AT_ROW(i, refusals); i++) {
    int made = fail_each(&f, &refusals[i], descriptors);
    /* valgrind, for one, has no openat2. */
    CHECK(made > 0 || refusals[i].call == SYS_openat2);
  }
  /* The children have reported to the parent's loop what they did to files. */
  close_loop(f.loop);
}

/* ---- in a callback, and when it is closed instead ---- */

typedef struct Forker {
  evloop_t loop;
  pid_t child;
  Seen after; /* the call that was posted behind the one that forks */
} Forker;

static void fork_and_fail_once(const evloop_event_t *event, void *user_data) {
  Forker *f = (Forker *)user_data;
  (void)event;
  fflush(stdout);
  f->child = (pid_t)OK(fork());
  if (f->child != 0) return;
  fail_call(SYS_timerfd_create, 1, EMFILE);
  CHECK_ERR(evloop_after_fork(f->loop), EMFILE);
  fail_call(SYS_epoll_ctl, 2, ENOSPC);
  CHECK_ERR(evloop_after_fork(f->loop), ENOSPC);
  fail_no_call();
  CHECK_ERR(evloop_post(f->loop, record, &f->after), ECHILD);
  CHECK_EQ(evloop_after_fork(f->loop), 0);
}

TEST(a_copy_that_lacked_something_goes_on_with_the_callback_that_forked) {
  Forker f = {0};
  Seen seen = {0};
  int status;
  f.loop = new_loop();
  timer(f.loop, MS, 0, record, &seen);
  CHECK_EQ(evloop_post(f.loop, fork_and_fail_once, &f), 0);
  CHECK_EQ(evloop_post(f.loop, record, &f.after), 0);
  run_to_end(f.loop);
  CHECK_EQ(f.after.calls, 1);
  CHECK_EQ(seen.calls, 1);
  close_loop(f.loop);
  if (f.child == 0) {
    fflush(stdout);
    _exit(0);
  }
  OK(waitpid(f.child, &status, 0));
  CHECK_EQ(status, 0);
}

TEST(a_copy_that_lacked_something_can_be_closed) {
  static Full f;
  pid_t child;
  int status;
  enter_home();
  fill_loop(&f);
  fflush(stdout);
  child = (pid_t)OK(fork());
  if (child == 0) {
    fail_call(SYS_inotify_init1, 1, EMFILE);
    CHECK_ERR(evloop_after_fork(f.loop), EMFILE);
    fail_call(SYS_openat, 1, EMFILE);
    CHECK_ERR(evloop_after_fork(f.loop), EMFILE);
    fail_no_call();
    close_watcher(f.timers[0]);
    CHECK_EQ(evloop_close(f.loop), 0);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
    fflush(stdout);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  expect_all_work(&f);
  close_loop(f.loop);
}

CHECK_MAIN()
