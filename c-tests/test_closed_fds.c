/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Programs that close all descriptors, those of the library too, as daemons do,
 * and then open other files at these descriptors: the library does nothing to
 * these files, objects that had descriptors return -EBADF, and new objects can be
 * created. */

#define _GNU_SOURCE
#include "foreign_files.h"
#include "kqueue_support.h"
#include "loop_support.h"

#include <sys/mman.h>

/* ---- objects in use ---- */

typedef struct Use {
  int64_t object, other, watchers[4];
} Use;

/* What is done with an object of the library: at first; again after all its
 * descriptors were closed; and after one of them was. */
typedef struct Case {
  const char *name;
  void (*begin)(Use *use);
  void (*again)(Use *use);
  void (*go_on)(Use *use);
} Case;

/* Whether calls of OK_OR_CLOSED() may fail with EBADF. */
static bool may_be_closed = true;

#define OK_OR_CLOSED(call) ok_or_closed(__LINE__, call)
static void ok_or_closed(int line, int64_t result) {
  if (result != -EBADF || !may_be_closed) check_ok(__FILE__, line, "it works, or is -EBADF", result);
}

static Pipe ready_pipe(void) {
  Pipe made = new_pipe();
  put(made.w);
  return made;
}

/* A change from another thread ends a wait, which is what the waiting thread
 * has a descriptor for. */
typedef struct Change {
  int64_t set;
  int fd;
  pid_t waiter;
} Change;

static void *register_later(void *argument) {
  Change *change = (Change *)argument;
  wait_until_asleep(&change->waiter);
  CHECK_EQ(evloop_poll_register(change->set, change->fd, EVLOOP_POLLIN, 9), 0);
  return NULL;
}

static void wait_for_change(int64_t set) {
  evloop_ready_t ready;
  pthread_t thread;
  Pipe p = ready_pipe();
  Change change = {set, p.r, 0};
  CHECK_EQ(pthread_create(&thread, NULL, register_later, &change), 0);
  store_tid(&change.waiter);
  CHECK_EQ(evloop_poll_wait(set, &ready, 1, -1), 1);
  CHECK_EQ(ready.data, 9);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(evloop_poll_unregister(set, p.r), 0);
  OK(close(p.r));
  OK(close(p.w));
}

static void begin_poll(Use *use) {
  evloop_ready_t ready;
  use->object = OK(evloop_poll_create());
  CHECK_EQ(evloop_poll_wait(use->object, &ready, 1, MS), 0);
  wait_for_change(use->object);
}

static void again_poll(Use *use) {
  wait_for_change(use->object);
  CHECK_EQ(evloop_poll_close(use->object), 0);
}

static void begin_devpoll(Use *use) {
  evloop_ready_t ready;
  use->object = OK(evloop_devpoll_create());
  CHECK_EQ(evloop_devpoll_register(use->object, regular_file(), EVLOOP_POLLIN, 1), 0);
  CHECK_EQ(evloop_devpoll_wait(use->object, &ready, 1, MS), 1);
  OK(evloop_devpoll_fileno(use->object));
}

static void again_devpoll(Use *use) {
  CHECK_ERR(evloop_devpoll_register(use->object, 0, EVLOOP_POLLIN, 1), EBADF);
  CHECK_EQ(evloop_devpoll_close(use->object), 0);
}

static void go_on_devpoll(Use *use) {
  evloop_ready_t ready;
  OK_OR_CLOSED(evloop_devpoll_register(use->object, regular_file(), EVLOOP_POLLIN, 1));
  CHECK_EQ(evloop_devpoll_wait(use->object, &ready, 1, MS), 1);
  CHECK_EQ(evloop_devpoll_close(use->object), 0);
}

static void begin_epoll(Use *use) {
  evloop_ready_t ready;
  use->object = OK(evloop_epoll_create(0));
  Pipe p = ready_pipe();
  CHECK_EQ(evloop_epoll_register(use->object, p.r, EVLOOP_EPOLLIN, 1), 0);
  CHECK_EQ(evloop_epoll_wait(use->object, &ready, 1, -1), 1);
}

static void again_epoll(Use *use) {
  evloop_ready_t ready;
  CHECK_ERR(evloop_epoll_register(use->object, 0, EVLOOP_EPOLLIN, 1), EBADF);
  CHECK_ERR(evloop_epoll_modify(use->object, 4, EVLOOP_EPOLLIN, 1), EBADF);
  CHECK_ERR(evloop_epoll_unregister(use->object, 4), EBADF);
  CHECK_ERR(evloop_epoll_wait(use->object, &ready, 1, MS), EBADF);
  CHECK_EQ(evloop_epoll_close(use->object), 0);
}

static void go_on_epoll(Use *use) {
  evloop_ready_t ready;
  OK_OR_CLOSED(evloop_epoll_register(use->object, ready_pipe().r, EVLOOP_EPOLLIN, 2));
  OK_OR_CLOSED(evloop_epoll_wait(use->object, &ready, 1, MS));
  CHECK_EQ(evloop_epoll_close(use->object), 0);
}

static void begin_selector(Use *use) {
  evloop_ready_t ready;
  use->object = OK(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT));
  Pipe p = ready_pipe();
  CHECK_EQ(evloop_selector_register(use->object, p.r, EVLOOP_SELECTOR_READ, 1), 0);
  CHECK_EQ(evloop_selector_register(use->object, regular_file(), EVLOOP_SELECTOR_READ, 1), 0);
  CHECK_EQ(evloop_selector_wait(use->object, &ready, 1, -1), 1);
}

static void again_selector(Use *use) {
  evloop_ready_t ready;
  CHECK_ERR(evloop_selector_wait(use->object, &ready, 1, MS), EBADF);
  CHECK_EQ(evloop_selector_close(use->object), 0);
}

static void go_on_selector(Use *use) {
  evloop_ready_t ready;
  OK_OR_CLOSED(evloop_selector_register(use->object, ready_pipe().r, EVLOOP_SELECTOR_READ, 1));
  OK_OR_CLOSED(evloop_selector_register(use->object, regular_file(), EVLOOP_SELECTOR_READ, 1));
  OK_OR_CLOSED(evloop_selector_wait(use->object, &ready, 1, MS));
  CHECK_EQ(evloop_selector_close(use->object), 0);
}

/* The timer's descriptor belongs to the program, which has closed it. */
static void begin_timer(Use *use) {
  uint64_t count;
  use->object = OK(tfd_create(MONOTONIC, 0));
  CHECK_EQ(tfd_settime_ns(use->object, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_wait(use->object, -1, &count), 1);
}

static void again_timer(Use *use) {
  int64_t a, b;
  uint64_t count;
  CHECK_ERR(tfd_settime_ns(use->object, 0, 1, 1, NULL, NULL), EBADF);
  CHECK_ERR(tfd_gettime_ns(use->object, &a, &b), EBADF);
  CHECK_ERR(tfd_wait(use->object, MS, &count), EBADF);
  CHECK_ERR(tfd_read(use->object, &count), EBADF);
  CHECK_EQ(tfd_close(use->object), 0);
}

static void go_on_timer(Use *use) {
  uint64_t count;
  OK_OR_CLOSED(tfd_settime_ns(use->object, 0, 1, 0, NULL, NULL));
  OK_OR_CLOSED(tfd_wait(use->object, -1, &count));
  CHECK_EQ(tfd_close(use->object), 0);
}

static void wake_up(int64_t loop) {
  CHECK(evloop_wakeup(loop) == 0 || evloop_wakeup(loop) == -EBADF);
  OK(evloop_post(loop, NULL, NULL));
}

static Seen seen;

/* So that it comes by a signalfd. */
static void block(int signal) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, signal);
  OK(sigprocmask(SIG_BLOCK, &mask, NULL));
}

static evloop_watcher_t fill_loop(Use *use) {
  Pipe p = new_pipe();
  signal(SIGUSR1, SIG_IGN);
  use->object = new_loop();
  readable_io(use->object, p.r, record, &seen);
  async(use->object, record, &seen);
  OK(evloop_add_file(use->object, "/tmp", EVLOOP_FILE_ATTRIB, 0, record, &seen));
  OK(evloop_add_signal(use->object, SIGUSR1, 0, record, &seen));
  block(SIGUSR2);
  OK(evloop_add_signal(use->object, SIGUSR2, EVLOOP_SIGNAL_FD, record, &seen));
  use->other = OK(tfd_create(MONOTONIC, 0));
  OK(evloop_add_tfd(use->object, use->other, record, &seen));
  return timer(use->object, MS, MS, record, &seen);
}

static void begin_loop(Use *use) {
  fill_loop(use);
  OK(evloop_fileno(use->object));
  while (seen.calls == 0) OK(evloop_run(use->object, EVLOOP_RUN_ONCE));
}

/* A loop that can no longer wait returns -EBADF. */
static void expect_lost(int64_t loop) {
  evloop_event_t event;
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_NOWAIT), EBADF);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), EBADF);
  CHECK_ERR(evloop_run_for_ns(loop, MS), EBADF);
  CHECK_ERR(evloop_wait(loop, &event, 1, MS), EBADF);
  CHECK_ERR(evloop_embed_prepare(loop), EBADF);
  CHECK_ERR(evloop_add_io(loop, 0, EVLOOP_EPOLLIN, record, &seen), EBADF);
  CHECK_ERR(evloop_add_file(loop, "/", EVLOOP_FILE_ATTRIB, 0, record, &seen), EBADF);
}

static void again_loop(Use *use) {
  wake_up(use->object);
  raise(SIGUSR1);
  CHECK_EQ(tfd_close(use->other), 0);
  expect_lost(use->object);
  CHECK_EQ(evloop_close(use->object), 0);
}

static void go_on_loop(Use *use) {
  OK_OR_CLOSED(evloop_wakeup(use->object));
  raise(SIGUSR1);
  raise(SIGUSR2);
  block(SIGCONT);
  for (int i = 0; i < 3; i++) {
    OK_OR_CLOSED(evloop_add_timer(use->object, MONOTONIC, 0, MS, 0, 0, record, &seen));
    OK_OR_CLOSED(evloop_add_timer(use->object, EVLOOP_CLOCK_REALTIME, 0, MS, 0, 0, record, &seen));
    OK_OR_CLOSED(evloop_add_io(use->object, ready_pipe().r, EVLOOP_EPOLLIN, record_and_close,
                               &seen));
    OK_OR_CLOSED(evloop_add_file(use->object, "/", EVLOOP_FILE_ATTRIB, 0, record, &seen));
    OK_OR_CLOSED(evloop_add_signal(use->object, SIGCONT, EVLOOP_SIGNAL_FD, record, &seen));
    OK_OR_CLOSED(evloop_run_for_ns(use->object, 2 * MS));
  }
  CHECK_EQ(tfd_close(use->other), 0);
  OK_OR_CLOSED(evloop_run(use->object, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(evloop_close(use->object), 0);
}

/* Its watchers are closed, one by one. */
static void begin_watchers(Use *use) {
  Pipe p = new_pipe();
  block(SIGUSR2);
  block(SIGCONT);
  use->object = new_loop();
  use->watchers[0] = readable_io(use->object, p.r, record, &seen);
  use->watchers[1] = OK(evloop_add_file(use->object, "/tmp", EVLOOP_FILE_ATTRIB, 0, record, &seen));
  use->watchers[2] = OK(evloop_add_signal(use->object, SIGUSR2, EVLOOP_SIGNAL_FD, record, &seen));
  use->watchers[3] = OK(evloop_add_signal(use->object, SIGCONT, EVLOOP_SIGNAL_FD, record, &seen));
  turn(use->object);
}

static void again_watchers(Use *use) {
  for (int i = 0; AT_ROW(i, use->watchers); i++) close_watcher(use->watchers[i]);
  CHECK_EQ(evloop_close(use->object), 0);
}

static void go_on_watchers(Use *use) {
  OK_OR_CLOSED(evloop_run_for_ns(use->object, MS));
  again_watchers(use);
}

/* Nothing of it was used before. */
static void begin_new_loop(Use *use) {
  fill_loop(use);
}

static void begin_kqueue(Use *use) {
  Pipe p = ready_pipe();
  use->object = new_kqueue();
  signal(SIGUSR1, SIG_IGN);
  apply(use->object, (uint64_t)p.r, KQ_READ, ADD | CLEAR, 0, 0, 1);
  apply(use->object, 1, KQ_TIMER, ADD, 0, 1, 1);
  apply(use->object, 1, KQ_USER, ADD, 0, 0, 1);
  apply(use->object, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 1);
  apply(use->object, (uint64_t)regular_file(), EVLOOP_KQ_FILTER_VNODE, ADD,
        EVLOOP_KQ_NOTE_ATTRIB, 0, 1);
  /* valgrind 3.19 does not know pidfd_open(2). */
  if (getenv("EVLOOP_TEST_VALGRIND") == NULL) {
    apply(use->object, (uint64_t)getppid(), EVLOOP_KQ_FILTER_PROC, ADD, EVLOOP_KQ_NOTE_EXIT, 0, 1);
  }
  Event events[8];
  CHECK(take(use->object, events, 8, -1) > 0);
}

static void again_kqueue(Use *use) {
  Event events[8];
  raise(SIGUSR1);
  CHECK_ERR(take(use->object, events, 8, MS), EBADF);
  CHECK_ERR(try_change(use->object, 1, KQ_TIMER, DELETE, 0, 0, 0), EBADF);
  CHECK_ERR(try_change(use->object, 0, KQ_READ, ADD, 0, 0, 0), EBADF);
  CHECK_EQ(evloop_kqueue_close(use->object), 0);
}

static void go_on_kqueue(Use *use) {
  Event events[8];
  for (int i = 0; i < 3; i++) {
    raise(SIGUSR1);
    OK_OR_CLOSED(take(use->object, events, 8, MS));
    OK_OR_CLOSED(try_change(use->object, 2, KQ_TIMER, ADD, 0, 1, 0));
    OK_OR_CLOSED(try_change(use->object, 1, KQ_USER, 0, TRIGGER, 0, 0));
    OK_OR_CLOSED(try_change(use->object, (uint64_t)ready_pipe().r, KQ_READ, ADD | CLEAR, 0, 0, 0));
    OK_OR_CLOSED(try_change(use->object, (uint64_t)regular_file(), EVLOOP_KQ_FILTER_VNODE, ADD,
                            EVLOOP_KQ_NOTE_ATTRIB, 0, 1));
    wait_for_tick();
  }
  CHECK_EQ(evloop_kqueue_close(use->object), 0);
}

static void begin_bsd(Use *use) {
  Event event = change(1, KQ_USER, ADD, 0, 0, 0);
  use->object = OK(evloop_bsd_kqueue());
  OK(evloop_bsd_kevent((int)use->object, &event, 1, NULL, 0, NULL));
}

static void again_bsd(Use *use) {
  Event event = change(1, KQ_USER, ADD, 0, 0, 0);
  CHECK_EQ(evloop_bsd_kevent((int)use->object, &event, 1, NULL, 0, NULL), -1);
  CHECK_EQ(errno, EBADF);
}

static void go_on_bsd(Use *use) {
  struct timespec now = {0, 0};
  Event event = change(1, KQ_USER, 0, TRIGGER, 0, 0);
  if (evloop_bsd_kevent((int)use->object, &event, 1, &event, 1, &now) < 0) {
    CHECK_EQ(errno, EBADF);
  }
}

/* An operation that is in flight, on a pipe that stays open: a thread may be
 * about to use its descriptor. */
static char byte;

static void begin_aio(Use *use) {
  Pipe p = new_pipe();
  int reader = (int)OK(fcntl(p.r, F_DUPFD_CLOEXEC, 256));
  OK(fcntl(p.w, F_DUPFD_CLOEXEC, 256));
  OK(close(p.r));
  OK(close(p.w));
  use->object = new_kqueue();
  CHECK_EQ(evloop_kqueue_aio_read(use->object, reader, &byte, 1, -1, 1, 1), 0);
}

static void again_aio(Use *use) {
  Event event;
  CHECK_ERR(evloop_kqueue_aio_cancel(use->object, 1), EBADF);
  CHECK_ERR(take(use->object, &event, 1, MS), EBADF);
  CHECK_EQ(evloop_kqueue_close(use->object), 0);
}

static void go_on_aio(Use *use) {
  Event event;
  OK_OR_CLOSED(evloop_kqueue_aio_cancel(use->object, 1));
  OK_OR_CLOSED(take(use->object, &event, 1, MS));
  CHECK_EQ(evloop_kqueue_close(use->object), 0);
}

static void begin_trace(Use *use) {
  char path[64];
  snprintf(path, sizeof path, "/tmp/evloop-closed-%d.trace", (int)getpid());
  use->object = new_loop();
  CHECK_EQ(evloop_trace_start(use->object, path, 0), 0);
  OK(unlink(path));
  timer(use->object, 0, 0, record, &seen);
  turns(use->object, 2);
}

static void again_trace(Use *use) {
  CHECK_ERR(evloop_trace_stop(use->object), EBADF);
  CHECK_EQ(evloop_close(use->object), 0);
}

static void again_trace_of_closed(Use *use) {
  CHECK_EQ(evloop_close(use->object), 0);
}

static const Case cases[] = {
    {"poll set", begin_poll, again_poll, again_poll},
    {"/dev/poll object", begin_devpoll, again_devpoll, go_on_devpoll},
    {"epoll object", begin_epoll, again_epoll, go_on_epoll},
    {"selector", begin_selector, again_selector, go_on_selector},
    {"timer", begin_timer, again_timer, go_on_timer},
    {"loop", begin_loop, again_loop, go_on_loop},
    {"loop that never ran", begin_new_loop, again_loop, go_on_loop},
    {"watchers", begin_watchers, again_watchers, go_on_watchers},
    {"kqueue", begin_kqueue, again_kqueue, go_on_kqueue},
    {"BSD's kqueue", begin_bsd, again_bsd, go_on_bsd},
    {"aio", begin_aio, again_aio, go_on_aio},
    {"trace", begin_trace, again_trace, again_trace_of_closed},
    {"trace of a loop that is closed", begin_trace, again_trace_of_closed, again_trace_of_closed},
};

/* ---- every constructor works again ---- */

static void use_everything(void) {
  for (int i = 0; AT_ROW(i, cases); i++) {
    Use use;
    memset(&use, 0, sizeof use);
    memset(&seen, 0, sizeof seen);
    cases[i].begin(&use);
  }
}

static int highest_descriptor(void) {
  int highest = 2;
  for (int fd = 3; fd < 256; fd++) {
    if (fcntl(fd, F_GETFD) >= 0) highest = fd;
  }
  return highest;
}

/* Runs it in a process of its own; its exit status. */
static int in_child(void (*run)(const Case *, const ForeignKind *), const Case *use,
                    const ForeignKind *kind) {
  int status;
  fflush(stdout);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    close_all_descriptors();
    run(use, kind);
    fflush(stdout);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != CHECK_SKIPPED)) {
    printf("  %s, and then a %s: status %d\n", use->name, kind->name, status);
    check_exit();
  }
  return WEXITSTATUS(status);
}

static void for_each_pair(void (*run)(const Case *, const ForeignKind *)) {
  for (int i = 0; AT_ROW(i, cases); i++) {
    for (int k = 0; AT_ROW(k, foreign_kinds); k++) in_child(run, &cases[i], &foreign_kinds[k]);
  }
}

static void close_all(const Case *one, const ForeignKind *kind) {
  Use use;
  memset(&use, 0, sizeof use);
  one->begin(&use);
  int highest = highest_descriptor();
  close_all_descriptors();
  ForeignFiles foreign = open_foreign(kind, highest);
  wait_for_tick();
  one->again(&use);
  check_foreign(&foreign);
  use_everything();
  check_foreign(&foreign);
}

TEST_TIMEOUT(after_all_descriptors_were_closed_the_programs_files_are_left_alone, 120) {
  for_each_pair(close_all);
}

TEST(after_all_descriptors_were_closed_everything_can_be_made_again) {
  for (int i = 0; AT_ROW(i, cases); i++) {
    Use use;
    memset(&use, 0, sizeof use);
    cases[i].begin(&use);
    close_all_descriptors();
    wait_for_tick();
    cases[i].again(&use);
    use_everything();
    close_all_descriptors();
  }
}

/* ---- descriptors that become the library's again ---- */

static void make_again(const Case *one, const ForeignKind *unused) {
  Use use, later;
  memset(&use, 0, sizeof use);
  memset(&later, 0, sizeof later);
  one->begin(&use);
  close_all_descriptors();
  one->begin(&later);
  wait_for_tick();
  one->again(&use);
  may_be_closed = false;
  one->go_on(&later);
  (void)unused;
}

TEST(later_objects_with_the_same_descriptors_are_left_alone) {
  for (int i = 0; AT_ROW(i, cases); i++) {
    /* BSD's calls take only the descriptor, which is the later queue's. */
    if (cases[i].begin != begin_bsd) in_child(make_again, &cases[i], &foreign_kinds[0]);
  }
}

/* ---- one descriptor becomes another file ---- */

/* The library's descriptors are marked with a signal that is never sent. */
static bool is_the_librarys(int fd) {
  return fcntl(fd, F_GETSIG) == SIGWINCH;
}

/* Counts the descriptors of the library, and stores the one at index `place`. */
static int librarys(int place, int *out_fd) {
  int count = 0;
  for (int fd = 3; fd < 256; fd++) {
    if (is_the_librarys(fd) && count++ == place) *out_fd = fd;
  }
  return count;
}

static int place;

static void replace_one(const Case *one, const ForeignKind *kind) {
  Use use;
  int fd = -1;
  memset(&use, 0, sizeof use);
  one->begin(&use);
  if (place >= librarys(place, &fd)) _exit(CHECK_SKIPPED);
  ForeignFiles foreign = open_foreign(kind, 0);

  OK(dup2(foreign.files[0].fd, fd));
  remember_foreign(&foreign);
  wait_for_tick();
  one->go_on(&use);
  check_foreign(&foreign);
  CHECK(fcntl(fd, F_GETFD) >= 0);
  use_everything();
  check_foreign(&foreign);
}

/* Whether there was such a place. */
static bool replaced(const Case *one, const ForeignKind *kind) {
  return in_child(replace_one, one, kind) != CHECK_SKIPPED;
}

TEST_TIMEOUT(a_descriptor_that_became_another_file_leaves_that_alone, 240) {
  for (int i = 0; AT_ROW(i, cases); i++) {
    for (place = 0; replaced(&cases[i], &foreign_kinds[0]); place++) {
      for (int k = 1; k < LENGTH(foreign_kinds); k++) {
        /* valgrind takes a long time for each of them. */
        bool is_slow = getenv("EVLOOP_TEST_VALGRIND") != NULL;
        if (is_slow && k != 1 + place % (LENGTH(foreign_kinds) - 1)) continue;
        CHECK(replaced(&cases[i], &foreign_kinds[k]));
      }
    }
    CHECK(place > 0);
  }
}

/* ---- threads that wait while their descriptors are closed ---- */

/* They stay asleep: what could wake them is closed. */
typedef struct Sleeper {
  const char *name;
  int64_t (*make)(void);
  int (*wait)(int64_t object);
  void (*wake)(int64_t object);
} Sleeper;

static int64_t make_loop(void) {
  evloop_t loop = new_loop();
  signal(SIGUSR1, SIG_IGN);
  async(loop, record, &seen);
  OK(evloop_add_signal(loop, SIGUSR1, 0, record, &seen));
  return loop;
}

static int wait_loop(int64_t loop) {
  return evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
}

static int wait_embedded(int64_t loop) {
  struct pollfd outer = {(int)OK(evloop_fileno(loop)), POLLIN, 0};
  while (OK(evloop_embed_prepare(loop)) == 1) OK(evloop_embed_dispatch(loop));
  return poll(&outer, 1, -1);
}

static void wake_loop(int64_t loop) {
  for (int i = 0; i < 3; i++) {
    CHECK_ERR(evloop_wakeup(loop), EBADF);
    CHECK_ERR(evloop_stop(loop), EBADF);
    CHECK_EQ(evloop_post(loop, NULL, NULL), 0);
    CHECK_ERR(evloop_add_io(loop, 0, EVLOOP_EPOLLIN, record, &seen), EBADF);
    OK(kill(getpid(), SIGUSR1));
  }
  CHECK_EQ(evloop_close(loop), 0);
}

static int64_t make_kqueue(void) {
  evloop_kqueue_t kq = new_kqueue();
  signal(SIGUSR1, SIG_IGN);
  apply(kq, 1, KQ_USER, ADD, 0, 0, 1);
  apply(kq, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 1);
  return kq;
}

static int wait_kqueue(int64_t kq) {
  Event event;
  return take(kq, &event, 1, -1);
}

static void wake_kqueue(int64_t kq) {
  OK(kill(getpid(), SIGUSR1));
  CHECK_ERR(try_change(kq, 1, KQ_USER, 0, TRIGGER, 0, 0), EBADF);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

#define SET(set)                                                                                   \
  static int wait_##set(int64_t object) {                                                          \
    evloop_ready_t ready;                                                                          \
    return evloop_##set##_wait(object, &ready, 1, -1);                                             \
  }
SET(poll)
SET(epoll)
SET(devpoll)

static int64_t make_poll(void) {
  return OK(evloop_poll_create());
}

static int64_t make_epoll(void) {
  return OK(evloop_epoll_create(0));
}

static int64_t make_devpoll(void) {
  return OK(evloop_devpoll_create());
}

static void wake_poll(int64_t set) {
  CHECK_EQ(evloop_poll_register(set, 0, EVLOOP_POLLIN, 1), 0);
  CHECK_EQ(evloop_poll_close(set), 0);
}

static void wake_by_closing(int64_t object) {
  CHECK_EQ(evloop_handle_close(object), 0);
}

static int64_t make_timer(void) {
  return OK(tfd_create(MONOTONIC, 0));
}

static int wait_timer(int64_t timer) {
  uint64_t count;
  return tfd_wait(timer, -1, &count);
}

static const Sleeper sleepers[] = {
    {"loop", make_loop, wait_loop, wake_loop},
    {"embedded loop", make_loop, wait_embedded, wake_loop},
    {"kqueue", make_kqueue, wait_kqueue, wake_kqueue},
    {"poll set", make_poll, wait_poll, wake_poll},
    {"epoll object", make_epoll, wait_epoll, wake_by_closing},
    {"/dev/poll object", make_devpoll, wait_devpoll, wake_by_closing},
    {"timer", make_timer, wait_timer, wake_by_closing},
};

static const Sleeper *sleeper;
static int64_t sleeper_object;
static pid_t sleeper_tid;

static void *sleep_main(void *unused) {
  store_tid(&sleeper_tid);
  sleeper->wait(sleeper_object);
  return unused;
}

static void close_under(const Case *unused, const ForeignKind *kind) {
  evloop_ready_t ready;
  pthread_t thread;
  (void)unused;
  /* So that no thread makes its descriptor while others are closed. */
  CHECK_EQ(evloop_poll_wait(OK(evloop_poll_create()), &ready, 1, MS), 0);
  sleeper_object = sleeper->make();
  CHECK_EQ(pthread_create(&thread, NULL, sleep_main, NULL), 0);
  int call_file = (int)OK(open_call_file(&sleeper_tid));
  POLL_UNTIL(is_asleep(call_file) || call_of(call_file) == SYS_poll);
  int highest = highest_descriptor();
  close_all_descriptors();
  ForeignFiles foreign = open_foreign(kind, highest);
  wait_for_tick();
  sleeper->wake(sleeper_object);
  check_foreign(&foreign);
  use_everything();
  check_foreign(&foreign);
}

TEST_TIMEOUT(waking_those_whose_descriptors_were_closed_leaves_the_programs_files_alone, 120) {
  for (int i = 0; AT_ROW(i, sleepers); i++) {
    sleeper = &sleepers[i];
    Case named = {sleeper->name, NULL, NULL, NULL};
    for (int k = 0; AT_ROW(k, foreign_kinds); k++) in_child(close_under, &named, &foreign_kinds[k]);
  }
}

CHECK_MAIN()
