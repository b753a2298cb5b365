/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A program that has closed standard input, output or error still writes to
 * them: no descriptor of the library is 0, 1 or 2. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#include <sys/select.h>
#include <sys/stat.h>

enum { STREAMS = 3, COPIES = 100 };

/* Closes some of them, as bits, and keeps copies for the end of the case. */
static void close_streams(int which) {
  for (int fd = 0; fd < STREAMS; fd++) {
    OK(fcntl(fd, F_DUPFD_CLOEXEC, COPIES));
    if (which >> fd & 1) OK(close(fd));
  }
}

/* Which of them are open again; from here on all are what they were. */
static int reopened(int which) {
  int found = 0;
  for (int fd = 0; fd < STREAMS; fd++) {
    if ((which >> fd & 1) == 0) continue;
    if (fcntl(fd, F_GETFD) >= 0) found |= 1 << fd;
    OK(dup2(COPIES + fd, fd));
  }
  for (int fd = 0; fd < STREAMS; fd++) OK(close(COPIES + fd));
  return found;
}

/* Made before the streams are closed. */
static Pipe pipes;
static int file;
static char name[] = "/tmp/evloop-streams-XXXXXX";

static void ignore_event(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

static void ignore_stuck(const evloop_stuck_t *stuck, void *user_data) {
  (void)stuck;
  (void)user_data;
}

/* ---- what makes descriptors: each leaves what it has made open ---- */

static void make_timers(void) {
  static const int clocks[] = {EVLOOP_CLOCK_REALTIME,
                               EVLOOP_CLOCK_MONOTONIC,
                               EVLOOP_CLOCK_BOOTTIME,
                               EVLOOP_CLOCK_REALTIME_ALARM,
                               EVLOOP_CLOCK_BOOTTIME_ALARM};
  evloop_t loop = OK(evloop_create(NULL));
  for (int i = 0; AT_ROW(i, clocks); i++) {
    uint64_t count;
    tfd_t timer = tfd_create(clocks[i], 0);
    if (timer < 0) continue;
    OK(tfd_wait(timer, 0, &count));
    OK(evloop_add_timer(loop, clocks[i], 0, 1, 0, 0, ignore_event, NULL));
  }
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
}

static void make_sets(void) {
  evloop_ready_t ready;
  int none[1] = {0}, count = 0;
  evloop_poll_t poll_set = OK(evloop_poll_create());
  evloop_epoll_t epoll_set = OK(evloop_epoll_create(0));
  evloop_devpoll_t devpoll = OK(evloop_devpoll_create());
  OK(evloop_poll_register(poll_set, pipes.r, EVLOOP_POLLIN, 0));
  OK(evloop_epoll_register(epoll_set, pipes.r, EVLOOP_EPOLLIN, 0));
  OK(evloop_devpoll_register(devpoll, pipes.r, EVLOOP_POLLIN, 0));
  OK(evloop_devpoll_fileno(devpoll));
  OK(evloop_poll_wait(poll_set, &ready, 1, 1));
  OK(evloop_epoll_wait(epoll_set, &ready, 1, 1));
  OK(evloop_devpoll_wait(devpoll, &ready, 1, 1));
  OK(evloop_select(none, &count, NULL, NULL, NULL, NULL, 1));
}

static void make_selectors(void) {
  static const int backends[] = {EVLOOP_SELECTOR_DEFAULT, EVLOOP_SELECTOR_SELECT,
                                 EVLOOP_SELECTOR_POLL, EVLOOP_SELECTOR_EPOLL,
                                 EVLOOP_SELECTOR_DEVPOLL};
  for (int i = 0; AT_ROW(i, backends); i++) {
    evloop_ready_t ready;
    evloop_selector_t selector = OK(evloop_selector_create(backends[i]));
    OK(evloop_selector_register(selector, pipes.r, EVLOOP_SELECTOR_READ, 0));
    OK(evloop_selector_wait(selector, &ready, 1, 1));
  }
}

static void make_loop(void) {
  evloop_t loop = OK(evloop_create(NULL));
  OK(evloop_fileno(loop));
  OK(evloop_add_signal(loop, SIGUSR1, 0, ignore_event, NULL));
  OK(evloop_add_file(loop, "/tmp", EVLOOP_FILE_CREATE, 0, ignore_event, NULL));
  OK(evloop_add_file_fd(loop, file, EVLOOP_FILE_ATTRIB, 0, ignore_event, NULL));
  /* Refused, where there is none; valgrind knows no pidfds. */
  evloop_add_process(loop, getpid(), 0, ignore_event, NULL);
  evloop_add_memory_pressure(loop, NULL, 0, MS, 2 * SECOND, ignore_event, NULL);
  OK(evloop_trace_start(loop, name, 10));
  OK(evloop_set_watchdog(loop, SECOND, ignore_stuck, NULL));
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  OK(evloop_trace_stop(loop));
  OK(evloop_trace_start_fd(loop, file, 10));
}

static void make_signal_descriptor(void) {
  sigset_t set;
  evloop_t loop = OK(evloop_create(NULL));
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
  OK(evloop_add_signal(loop, SIGUSR2, EVLOOP_SIGNAL_FD, ignore_event, NULL));
}

static void make_forked_loop(void) {
  evloop_t loop = OK(evloop_create(NULL));
  int status;
  OK(evloop_fileno(loop));
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, 0, 0, ignore_event, NULL));
  OK(evloop_add_file(loop, "/tmp", EVLOOP_FILE_CREATE, 0, ignore_event, NULL));
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    OK(evloop_after_fork(loop));
    for (int fd = 0; fd < STREAMS; fd++) {
      if (fcntl(fd, F_GETFD) >= 0) _exit(1 + fd);
    }
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  /* Those that are to be closed are: all, in that case. */
  if (fcntl(0, F_GETFD) < 0 && fcntl(1, F_GETFD) < 0 && fcntl(2, F_GETFD) < 0) CHECK_EQ(status, 0);
}

static void make_kqueue(void) {
  evloop_kqueue_t kq = new_kqueue();
  OK(evloop_bsd_kqueue());
  apply(kq, (uint64_t)pipes.r, KQ_READ, ADD, 0, 0, 0);
  apply(kq, (uint64_t)file, EVLOOP_KQ_FILTER_VNODE, ADD, EVLOOP_KQ_NOTE_ATTRIB, 0, 0);
  apply(kq, 1, KQ_TIMER, ADD, 0, 1, 0);
  apply(kq, 2, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_ABSTIME, SECOND, 0);
  apply(kq, 1, KQ_USER, ADD, 0, 0, 0);
  apply(kq, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 0);
  apply(kq, 1, EVLOOP_KQ_FILTER_NETDEV, ADD, EVLOOP_KQ_NOTE_LINKDOWN, 0, 0);
  /* Refused, where /proc, pidfds or a privilege are not there. */
  try_change(kq, (uint64_t)getpid(), EVLOOP_KQ_FILTER_PROC, ADD, EVLOOP_KQ_NOTE_EXIT, 0, 0);
  try_change(kq, 0, EVLOOP_KQ_FILTER_FS, ADD, 0, 0, 0);
  try_change(kq, (uint64_t)getppid(), EVLOOP_KQ_FILTER_PROC, ADD, EVLOOP_KQ_NOTE_FORK, 0, 0);
  Event events[8];
  OK(take(kq, events, LENGTH(events), 0));
}

static void make_aio(void) {
  static char byte;
  evloop_kqueue_t kq = new_kqueue();
  OK(evloop_kqueue_aio_read(kq, file, &byte, 1, 0, 1, 0));
  expect_event(kq, 1, EVLOOP_KQ_FILTER_AIO);
}

static void make_aio_by_threads(void) {
  answer_call(SYS_io_uring_setup, ENOSYS);
  make_aio();
}

/* ---- cases ---- */

/* For each selection of streams, in a process of its own. */
static void expect_none_taken(void (*make)(void)) {
  for (int which = 1; which < 1 << STREAMS; which++) {
    int status;
    pid_t child = (pid_t)OK(fork());
    if (child == 0) {
      pipes = new_pipe();
      file = (int)OK(mkostemp(name, O_CLOEXEC));
      close_streams(which);
      make();
      int found = reopened(which);
      OK(unlink(name));
      CHECK_EQ(found, 0);
      fflush(stdout);
      _exit(0);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIPPED) _exit(CHECK_SKIPPED);
    CHECK_EQ(status, 0);
  }
}

TEST(timers_take_none_of_them) { expect_none_taken(make_timers); }
TEST(sets_take_none_of_them) { expect_none_taken(make_sets); }
TEST(selectors_take_none_of_them) { expect_none_taken(make_selectors); }
TEST(an_event_loop_takes_none_of_them) { expect_none_taken(make_loop); }
TEST(a_signalfd_is_none_of_them) { expect_none_taken(make_signal_descriptor); }
TEST(a_forked_loop_takes_none_of_them) { expect_none_taken(make_forked_loop); }
TEST(a_kqueue_takes_none_of_them) { expect_none_taken(make_kqueue); }
TEST(the_ring_of_aio_is_none_of_them) { expect_none_taken(make_aio); }
TEST(threads_of_aio_take_none_of_them) { expect_none_taken(make_aio_by_threads); }

TEST(without_a_descriptor_above_them_it_is_emfile) {
  int before = open_descriptors();
  close_streams(1);
  struct rlimit both;
  OK(getrlimit(RLIMIT_NOFILE, &both));
  both.rlim_cur = STREAMS;
  OK(setrlimit(RLIMIT_NOFILE, &both));
  int64_t made = evloop_epoll_create(0);
  both.rlim_cur = both.rlim_max;
  OK(setrlimit(RLIMIT_NOFILE, &both));
  CHECK_EQ(reopened(1), 0);
  CHECK_ERR(made, EMFILE);
  CHECK_EQ(open_descriptors(), before);
}

CHECK_MAIN()
