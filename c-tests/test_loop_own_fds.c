/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The descriptors that the library has made for a loop: the loop refuses to
 * watch them as the program's, from any calling thread, and goes on to work. */

#define _GNU_SOURCE
#include "loop_io.h"
#include "process_support.h"

#include <sys/stat.h>
#include <sys/timerfd.h>

enum { FDS = 256 };

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

/* Which descriptors are open. */
typedef struct Open {
  bool fds[FDS];
} Open;

static Open open_now(void) {
  Open open;
  for (int fd = 0; fd < FDS; fd++) open.fds[fd] = is_open(fd);
  return open;
}

/* A loop that has made all that it can. */
typedef struct Rich {
  evloop_t loop;
  Seen timers[5], signal, file, process, posts;
  int timer_count;
  evloop_watcher_t signal_watcher, file_watcher, process_watcher;
  int file_fd, trace_fd, lent;
  Held held;
  Open before; /* what is not the loop's */
  int own;     /* how many are */
} Rich;

static const int clocks[] = {EVLOOP_CLOCK_MONOTONIC, EVLOOP_CLOCK_REALTIME, EVLOOP_CLOCK_BOOTTIME,
                             EVLOOP_CLOCK_REALTIME_ALARM, EVLOOP_CLOCK_BOOTTIME_ALARM};

static void add_timers(Rich *r) {
  for (int i = 0; AT_ROW(i, clocks); i++) {
    int64_t timer = evloop_add_timer(r->loop, clocks[i], 0, HOUR, 0, 0, record, &r->timers[i]);
    /* Alarms need a privilege. */
    if (timer < 0) break;
    r->timer_count++;
  }
}

static void block_signal(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
}

static Rich *new_rich(void) {
  static Rich rich;
  Rich *r = &rich;
  memset(r, 0, sizeof *r);
  block_signal();
  r->file_fd = regular_file();
  r->trace_fd = regular_file();
  r->held = hold_child(3);
  r->before = open_now();
  r->loop = new_loop();
  r->lent = (int)OK(evloop_fileno(r->loop));
  add_timers(r);
  r->signal_watcher =
      OK(evloop_add_signal(r->loop, SIGUSR2, EVLOOP_SIGNAL_FD, record, &r->signal));
  r->file_watcher =
      OK(evloop_add_file_fd(r->loop, r->file_fd, EVLOOP_FILE_ATTRIB, 0, record, &r->file));
  r->process_watcher = evloop_add_process(r->loop, r->held.pid, 0, record, &r->process);
  if (r->process_watcher == -ENOSYS) {
    /* valgrind does not know pidfd_open(2). */
    r->process_watcher = async(r->loop, ignore, NULL);
    r->process.calls = 1;
  }
  OK(r->process_watcher);
  /* Not every kernel has it. */
  evloop_add_memory_pressure(r->loop, NULL, EVLOOP_PRESSURE_SOME, 150 * MS, 2 * SECOND, ignore, NULL);
  OK(evloop_trace_start_fd(r->loop, r->trace_fd, 0));
  for (int fd = 0; fd < FDS; fd++) r->own += is_open(fd) && !r->before.fds[fd];
  /* epoll, its outer one, eventfd, three clocks, inotify, signalfd, trace. */
  CHECK(r->own >= 9);
  return r;
}

/* All are refused, and nothing is left. */
static void expect_refused(const Rich *r, int fd) {
  char sentence[200];
  int64_t watchers = evloop_handle_count(EVLOOP_KIND_WATCHER);
  int64_t added = evloop_add_io(r->loop, fd, IN, record, NULL);
  if (added != -EINVAL) {
    printf("  fd %d: %" PRId64 "\n", fd, added);
    check_exit();
  }
  OK(evloop_last_error(sentence, sizeof sentence));
  CHECK(strstr(sentence, "loop's own") != NULL);
  CHECK_ERR(evloop_add_io(r->loop, fd, IN | EXCLUSIVE | ET, NULL, NULL), EINVAL);
  CHECK_ERR(tfd_from_fd(fd, 0), EINVAL);
  if (fd != r->lent) CHECK_ERR(evloop_epoll_from_fd(fd, 0), EINVAL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), watchers);
}

static void expect_all_refused(const Rich *r) {
  int refused = 0;
  for (int fd = 0; fd < FDS; fd++) {
    if (!is_open(fd) || r->before.fds[fd]) continue;
    expect_refused(r, fd);
    refused++;
  }
  CHECK_EQ(refused, r->own);
}

static void *expect_in_thread(void *argument) {
  expect_all_refused((const Rich *)argument);
  return NULL;
}

static void expect_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  expect_all_refused((const Rich *)user_data);
}

static bool has_worked(Rich *r) {
  int timers = 0;
  for (int i = 0; i < r->timer_count; i++) timers += LOAD(r->timers[i].calls) > 0;
  return timers == r->timer_count && LOAD(r->signal.calls) && LOAD(r->file.calls) &&
         LOAD(r->process.calls) && LOAD(r->posts.calls);
}

/* All that the descriptors are for still happens. */
static void expect_work(Rich *r, int64_t (*once)(evloop_t loop)) {
  int status;
  CHECK_EQ(evloop_post(r->loop, record, &r->posts), 0);
  OK(fchmod(r->file_fd, 0600));
  CHECK_EQ(kill(getpid(), SIGUSR2), 0);
  let_go(&r->held);
  for (int i = 0; i < r->timer_count; i++) {
    OK(evloop_add_timer(r->loop, clocks[i], 0, MS, 0, 0, record, &r->timers[i]));
  }
  while (!has_worked(r)) OK(once(r->loop));
  CHECK(r->signal.errors + r->file.errors + r->process.errors == 0);
  OK(waitpid(r->held.pid, &status, 0));
  CHECK_EQ(WEXITSTATUS(status), 3);
}

static void end_rich(Rich *r) {
  close_loop(r->loop);
  for (int fd = 0; fd < FDS; fd++) CHECK(!is_open(fd) || r->before.fds[fd]);
}

TEST_TIMEOUT(a_loop_refuses_its_own_descriptors, 60) {
  Rich *r = new_rich();
  expect_all_refused(r);
  turns(r->loop, 3);
  expect_all_refused(r);
  expect_work(r, run_once);
  end_rich(r);
}

TEST_TIMEOUT(a_loop_refuses_its_own_descriptors_in_a_callback, 60) {
  Rich *r = new_rich();
  CHECK_EQ(evloop_post(r->loop, expect_in_callback, r), 0);
  turns(r->loop, 3);
  expect_work(r, run_once);
  end_rich(r);
}

TEST_TIMEOUT(an_idle_loop_refuses_its_own_descriptors_to_other_threads, 60) {
  Rich *r = new_rich();
  join(start_thread(expect_in_thread, r));
  expect_work(r, run_once);
  end_rich(r);
}

static int64_t let_it_run(evloop_t loop) {
  go_round(loop);
  return 0;
}

TEST_TIMEOUT(a_running_loop_refuses_its_own_descriptors_to_other_threads, 60) {
  Rich *r = new_rich();
  Runner runner;
  start_sleeper(&runner, run_until_done, r->loop);
  expect_all_refused(r);
  expect_work(r, let_it_run);
  stop_runner(&runner);
  end_rich(r);
}

/* Those that evloop_after_fork() has made. */
static void expect_revived(Rich *r) {
  r->before = open_now();
  CHECK_EQ(evloop_after_fork(r->loop), 0);
  r->lent = (int)OK(evloop_fileno(r->loop));
  r->own = 0;
  for (int fd = 0; fd < FDS; fd++) r->own += is_open(fd) && !r->before.fds[fd];
  CHECK(r->own >= 7);
  expect_all_refused(r);
  CHECK_EQ(kill(getpid(), SIGUSR2), 0);
  OK(fchmod(r->file_fd, 0600));
  OK(evloop_add_timer(r->loop, MONOTONIC, 0, MS, 0, 0, record, &r->timers[0]));
  while (!r->signal.calls || !r->file.calls || !r->timers[0].calls) OK(run_once(r->loop));
}

TEST_TIMEOUT(a_revived_loop_refuses_its_own_descriptors, 60) {
  Rich *r = new_rich();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    expect_revived(r);
    fflush(stdout);
    _exit(0);
  }
  CHECK_EQ(reap(child), 0);
  expect_work(r, run_once);
  end_rich(r);
}

/* ---- descriptors that were the loop's ---- */

/* Opens pipes at all descriptors below `below`, and has the loop watch them. */
static void expect_all_watched(evloop_t loop, int below) {
  Seen seen[FDS];
  memset(seen, 0, sizeof seen);
  for (;;) {
    Pipe pipe = full_pipe();
    if (pipe.r >= below) break;
    evloop_watcher_t watcher = OK(evloop_add_io(loop, pipe.r, IN, record, &seen[pipe.r]));
    turns(loop, 2);
    CHECK(seen[pipe.r].calls > 0);
    CHECK_EQ(seen[pipe.r].errors, 0);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
    /* The other end is a former descriptor of the loop, too. */
    watcher = OK(evloop_add_io(loop, pipe.w, OUT, record, &seen[pipe.r]));
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
}

static int highest_open(void) {
  int highest = 0;
  for (int fd = 0; fd < FDS; fd++) highest = is_open(fd) ? fd : highest;
  return highest;
}

TEST_TIMEOUT(descriptors_that_a_loop_has_closed_are_the_programs_again, 60) {
  Rich *r = new_rich();
  int below = highest_open() + 1;
  expect_work(r, run_once);
  CHECK_EQ(evloop_watcher_close(r->signal_watcher, 0), 0);
  CHECK_EQ(evloop_watcher_close(r->file_watcher, 0), 0);
  CHECK_EQ(evloop_watcher_close(r->process_watcher, 0), 0);
  OK(evloop_trace_stop(r->loop));
  turns(r->loop, 2);
  expect_all_watched(r->loop, below);
}

/* A program that closes all that it finds, as daemons do. */
TEST(a_file_at_the_descriptor_of_a_loops_closed_timer_is_accepted) {
  evloop_t loop = new_loop();
  Open before = open_now();
  OK(evloop_add_timer(loop, MONOTONIC, 0, HOUR, 0, 0, ignore, NULL));
  int own = 0;
  while (!is_open(own) || before.fds[own]) own++;
  CHECK_ERR(tfd_from_fd(own, 0), EINVAL);
  OK(close(own));
  CHECK_ERR(tfd_from_fd(own, 0), EBADF);
  CHECK_EQ(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), own);
  tfd_t timer = OK(tfd_from_fd(own, EVLOOP_FD_OWN));
  CHECK_EQ(tfd_close(timer), 0);
  timer = OK(tfd_create(MONOTONIC, 0));
  CHECK_EQ(tfd_fileno(timer), own);
  OK(tfd_from_fd(own, 0));
}

TEST_TIMEOUT(descriptors_of_a_loop_that_is_closed_are_other_loops, 60) {
  Rich *r = new_rich();
  int below = highest_open() + 1;
  CHECK_EQ(evloop_close(r->loop), 0);
  expect_all_watched(new_loop(), below);
}

/* ---- what is not the loop's own ---- */

TEST(descriptors_of_objects_that_a_loop_watches_may_be_watched_besides) {
  evloop_t loop = new_loop(), other = new_loop();
  Seen object = {.calls = 0}, fd = {.calls = 0};
  tfd_t timer = OK(tfd_create(MONOTONIC, 0));
  evloop_kqueue_t queue = OK(evloop_kqueue_create(0));
  OK(evloop_add_tfd(loop, timer, record, &object));
  OK(evloop_add_kqueue(loop, queue, record, &object));
  add(loop, (int)OK(tfd_fileno(timer)), IN | ET, &fd);
  OK(evloop_add_io(loop, (int)OK(evloop_kqueue_fileno(queue)), IN, record, &fd));
  OK(evloop_add_io(other, (int)OK(evloop_fileno(loop)), IN, record, &fd));
  CHECK_EQ(tfd_settime_ns(timer, 0, 1, 0, NULL, NULL), 0);
  while (object.calls == 0 || fd.calls == 0) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(object.errors, 0);
  CHECK_EQ(fd.errors, 0);
}

CHECK_MAIN()
