/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues whose system calls fail, one after the other: a change that returns
 * an error was not made, one that returns success works, and what was watched
 * before goes on being watched. */

#define _GNU_SOURCE
#include "trapped_calls.h"
#include "kqueue_support.h"

#include <sys/stat.h>

#define VNODE EVLOOP_KQ_FILTER_VNODE
#define PROC EVLOOP_KQ_FILTER_PROC
#define SIGNAL EVLOOP_KQ_FILTER_SIGNAL
#define FS EVLOOP_KQ_FILTER_FS
#define NETDEV EVLOOP_KQ_FILTER_NETDEV
#define EXCEPT EVLOOP_KQ_FILTER_EXCEPT
#define EMPTY EVLOOP_KQ_FILTER_EMPTY
#define LOWAT EVLOOP_KQ_NOTE_LOWAT
#define NOTE(name) EVLOOP_KQ_NOTE_##name

/* ---- what is watched ---- */

/* The two ends of what a subject is about. */
typedef struct Target {
  int fd, other;
  uint64_t ident;
} Target;

typedef struct Subject {
  const char *name;
  int filter, flags;
  uint32_t fflags;
  int64_t data;
  void (*open)(Target *t);
  void (*happen)(const Target *t); /* NULL: nothing can be made to happen */
} Subject;

static void open_pipe(Target *t) {
  Pipe p = new_pipe();
  t->fd = p.r;
  t->other = p.w;
  t->ident = (uint64_t)p.r;
}

static void open_writer(Target *t) {
  Pipe p = new_pipe();
  t->fd = p.w;
  t->other = p.r;
  t->ident = (uint64_t)p.w;
}

static void open_connection(Target *t) {
  int pair[2];
  tcp_pair(pair);
  t->fd = pair[0];
  t->other = pair[1];
  t->ident = (uint64_t)pair[0];
}

static void open_temporary(Target *t) {
  t->fd = regular_file();
  t->other = (int)OK(dup(t->fd));
  t->ident = (uint64_t)t->fd;
}

static void open_child(Target *t) {
  Pipe p = new_pipe();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    char byte;
    OK(close(p.w));
    _exit(read(p.r, &byte, 1) < 0);
  }
  t->fd = p.r;
  t->other = p.w;
  t->ident = (uint64_t)child;
}

static void open_nothing(Target *t) {
  t->fd = t->other = -1;
  t->ident = 1;
}

static void open_signal(Target *t) {
  open_nothing(t);
  t->ident = SIGUSR1;
  OK(signal(SIGUSR1, SIG_IGN) == SIG_ERR ? -1 : 0);
}

static void open_blocked_signal(Target *t) {
  sigset_t set;
  open_nothing(t);
  t->ident = SIGUSR2;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  OK(sigprocmask(SIG_BLOCK, &set, NULL));
}

static void write_other(const Target *t) {
  CHECK_EQ(write(t->other, "12345678", 8), 8);
}

static void send_urgent(const Target *t) {
  CHECK_EQ(send(t->other, "!", 1, MSG_OOB), 1);
}

static void append(const Target *t) {
  CHECK_EQ(pwrite(t->fd, "12345678", 8, 0), 8);
}

static void end_child(const Target *t) {
  CHECK_EQ(write(t->other, "x", 1), 1);
}

static void send_signal(const Target *t) {
  OK(kill(getpid(), (int)t->ident));
}

static void nothing_more(const Target *t) {
  (void)t;
}

static const Subject subjects[] = {
  {"READ", KQ_READ, 0, 0, 0, open_pipe, write_other},
  {"READ, CLEAR", KQ_READ, CLEAR, 0, 0, open_pipe, write_other},
  {"READ, LOWAT", KQ_READ, 0, LOWAT, 5, open_pipe, write_other},
  {"READ, DISPATCH", KQ_READ, DISPATCH, 0, 0, open_pipe, write_other},
  {"READ of a file", KQ_READ, CLEAR, 0, 0, open_temporary, append},
  {"WRITE", KQ_WRITE, 0, 0, 0, open_writer, nothing_more},
  {"WRITE, CLEAR", KQ_WRITE, CLEAR, 0, 0, open_writer, nothing_more},
  {"EMPTY", EMPTY, CLEAR, 0, 0, open_connection, nothing_more},
  {"EXCEPT", EXCEPT, CLEAR, NOTE(OOB), 0, open_connection, send_urgent},
  {"VNODE", VNODE, CLEAR, NOTE(WRITE), 0, open_temporary, append},
  {"VNODE, REVOKE", VNODE, CLEAR, NOTE(WRITE) | NOTE(REVOKE), 0, open_temporary, append},
  {"PROC", PROC, 0, NOTE(EXIT), 0, open_child, end_child},
  {"SIGNAL", SIGNAL, 0, 0, 0, open_signal, send_signal},
  {"SIGNAL, blocked", SIGNAL, 0, 0, 0, open_blocked_signal, send_signal},
  {"TIMER", KQ_TIMER, 0, NOTE(NSECONDS), 1, open_nothing, nothing_more},
  {"TIMER of the wall clock", KQ_TIMER, CLEAR, NOTE(ABSTIME), 1, open_nothing, nothing_more},
  {"USER", KQ_USER, CLEAR, TRIGGER, 0, open_nothing, nothing_more},
  {"FS", FS, 0, 0, 0, open_nothing, NULL},
  {"NETDEV", NETDEV, 0, NOTE(LINKUP), 0, open_nothing, NULL},
};

/* ---- a queue, and what it watched before ---- */

enum { WITNESS = 77 };

typedef struct Fixture {
  evloop_kqueue_t kq;
  const Subject *subject;
  Target target, witness;
} Fixture;

static Fixture new_fixture(const Subject *subject) {
  Fixture fixture = {new_kqueue(), subject, {-1, -1, 0}, {-1, -1, 0}};
  open_pipe(&fixture.witness);
  apply(fixture.kq, fixture.witness.ident, KQ_READ, ADD, 0, 0, 0);
  apply(fixture.kq, WITNESS, KQ_USER, ADD | CLEAR, 0, 0, 0);
  subject->open(&fixture.target);
  return fixture;
}

static int change_subject(const Fixture *fixture, int flags) {
  const Subject *s = fixture->subject;
  return try_change(fixture->kq, fixture->target.ident, s->filter, flags, s->fflags, s->data, 5);
}

/* An event of the subject comes, whatever else does. */
static void expect_subject(const Fixture *fixture) {
  Event events[4];
  if (fixture->subject->happen == NULL) return;
  fixture->subject->happen(&fixture->target);
  for (;;) {
    int count = (int)OK(take(fixture->kq, events, 4, -1));
    for (int i = 0; i < count; i++) {
      if (events[i].filter != fixture->subject->filter || events[i].ident !=
          fixture->target.ident) continue;
      CHECK_EQ(events[i].udata, 5);
      return;
    }
  }
}

/* The knotes that were added before are still watched, and make the descriptor
 * readable. */
static void expect_witnesses(const Fixture *fixture) {
  Event events[4];
  int seen = 0;
  char byte;
  put(fixture->witness.other);
  apply(fixture->kq, WITNESS, KQ_USER, 0, TRIGGER, 0, 0);
  CHECK(readable((int)OK(evloop_kqueue_fileno(fixture->kq)), -1));
  while (seen != 3) {
    int count = (int)OK(take(fixture->kq, events, 4, -1));
    for (int i = 0; i < count; i++) {
      seen |= events[i].ident == WITNESS ? 1 : events[i].ident == fixture->witness.ident ? 2 : 0;
    }
  }
  CHECK_EQ(read(fixture->witness.fd, &byte, 1), 1);
}

static void close_thing(const Target *t) {
  if (t->fd >= 0) OK(close(t->fd));
  if (t->other >= 0) OK(close(t->other));
}

static void close_bed(Fixture *fixture) {
  OK(evloop_kqueue_close(fixture->kq));
  close_thing(&fixture->target);
  close_thing(&fixture->witness);
  while (waitpid(-1, NULL, WNOHANG) > 0) continue;
}

/* Expects success, or the error that was injected. */
static void check_failure(const Fixture *fixture, int nth, int result, int error) {
  if (result == -error || result == 0) return;
  printf("  %s, call %d:\n", fixture->subject->name, nth);
  CHECK_EQ(result, -error);
}

/* ---- each call of a change in turn ---- */

static void add_with_faults(const Subject *subject, int error) {
  bool failed = true;
  for (int nth = 1; failed; nth++) {
    Fixture fixture = new_fixture(subject);
    fail_call(nth, error);
    int result = change_subject(&fixture, ADD | subject->flags);
    failed = end_of_faults();
    check_failure(&fixture, nth, result, error);
    if (result < 0) {
      CHECK(failed);
      CHECK_ERR(change_subject(&fixture, DELETE), ENOENT);
      expect_witnesses(&fixture);
      CHECK_EQ(change_subject(&fixture, ADD | subject->flags), 0);
    }
    expect_subject(&fixture);
    expect_witnesses(&fixture);
    close_bed(&fixture);
  }
}

/* Beside a knote of the same descriptor, whose registration is in the way. */
static void add_beside_with_faults(const Subject *subject, int error) {
  enum { SPECIFIC = EVLOOP_KQ_EV_UDATA_SPECIFIC, OTHER = 9 };
  bool failed = subject->filter != PROC && subject->filter != SIGNAL && subject->open != open_nothing;
  for (int nth = 1; failed; nth++) {
    Fixture fixture = new_fixture(subject);
    uint64_t ident = fixture.target.ident;
    apply(fixture.kq, ident, KQ_READ, ADD | SPECIFIC, 0, 0, OTHER);
    fail_call(nth, error);
    int result = change_subject(&fixture, ADD | subject->flags);
    failed = end_of_faults();
    check_failure(&fixture, nth, result, error);
    if (result < 0) CHECK_EQ(change_subject(&fixture, ADD | subject->flags), 0);
    apply(fixture.kq, ident, KQ_READ, DELETE | SPECIFIC, 0, 0, OTHER);
    expect_subject(&fixture);
    expect_witnesses(&fixture);
    close_bed(&fixture);
  }
}

static void enable_with_faults(const Subject *subject, int error) {
  bool failed = true;
  for (int nth = 1; failed; nth++) {
    Fixture fixture = new_fixture(subject);
    CHECK_EQ(change_subject(&fixture, ADD | DISABLE | subject->flags), 0);
    fail_call(nth, error);
    int result = change_subject(&fixture, ENABLE);
    failed = end_of_faults();
    check_failure(&fixture, nth, result, error);
    if (result < 0) {
      /* It is still there, and disabled. */
      expect_witnesses(&fixture);
      CHECK_EQ(change_subject(&fixture, ENABLE), 0);
    }
    expect_subject(&fixture);
    expect_witnesses(&fixture);
    close_bed(&fixture);
  }
}

/* A change that is not made leaves what was there. */
static void add_again_with_faults(const Subject *subject, int error) {
  bool failed = true;
  for (int nth = 1; failed; nth++) {
    Fixture fixture = new_fixture(subject);
    CHECK_EQ(change_subject(&fixture, ADD | subject->flags), 0);
    uint32_t fflags = subject->filter == KQ_READ ? subject->fflags ^ LOWAT
                      : subject->filter == VNODE ? subject->fflags | NOTE(DELETE) | NOTE(REVOKE)
                      : subject->filter == PROC  ? subject->fflags | NOTE(FORK)
                                                 : subject->fflags;
    fail_call(nth, error);
    int result = try_change(fixture.kq, fixture.target.ident, subject->filter, ADD, fflags, 1, 5);
    failed = end_of_faults();
    /* Forks cannot be watched everywhere. */
    if (result != -ENOTSUP || subject->filter != PROC) check_failure(&fixture, nth, result, error);
    expect_subject(&fixture);
    expect_witnesses(&fixture);
    close_bed(&fixture);
  }
}

static void delete_with_faults(const Subject *subject, int error) {
  bool failed = true;
  for (int nth = 1; failed; nth++) {
    Fixture fixture = new_fixture(subject);
    CHECK_EQ(change_subject(&fixture, ADD | subject->flags), 0);
    fail_call(nth, error);
    int result = change_subject(&fixture, DELETE);
    failed = end_of_faults();
    CHECK_EQ(result, 0);
    CHECK_ERR(change_subject(&fixture, DELETE), ENOENT);
    expect_witnesses(&fixture);
    close_bed(&fixture);
  }
}

static void each_change_with_faults(long number, int error) {
  watch_calls(number);
  for (int i = 0; AT_ROW(i, subjects); i++) {
    add_with_faults(&subjects[i], error);
    add_beside_with_faults(&subjects[i], error);
    enable_with_faults(&subjects[i], error);
    add_again_with_faults(&subjects[i], error);
    delete_with_faults(&subjects[i], error);
  }
}

TEST_TIMEOUT(changes_when_nothing_more_can_be_registered_with_epoll, 60) {
  each_change_with_faults(SYS_epoll_ctl, ENOSPC);
}

TEST_TIMEOUT(changes_when_epoll_has_no_memory, 60) {
  each_change_with_faults(SYS_epoll_ctl, ENOMEM);
}

TEST_TIMEOUT(changes_when_there_is_no_epoll_to_be_had, 60) {
  each_change_with_faults(SYS_epoll_create1, EMFILE);
}

TEST_TIMEOUT(changes_when_there_is_no_eventfd_to_be_had, 60) {
  each_change_with_faults(SYS_eventfd2, ENOMEM);
}

TEST_TIMEOUT(changes_when_there_is_no_timerfd_to_be_had, 60) {
  each_change_with_faults(SYS_timerfd_create, EMFILE);
}

TEST_TIMEOUT(changes_when_there_is_no_inotify_to_be_had, 60) {
  each_change_with_faults(SYS_inotify_init1, EMFILE);
}

TEST_TIMEOUT(changes_when_inotify_has_no_watch_left, 60) {
  each_change_with_faults(SYS_inotify_add_watch, ENOSPC);
}

TEST_TIMEOUT(changes_when_there_is_no_socket_to_be_had, 60) {
  each_change_with_faults(SYS_socket, EMFILE);
}

TEST_TIMEOUT(changes_when_there_is_no_pidfd_to_be_had, 60) {
  each_change_with_faults(SYS_pidfd_open, EMFILE);
}

TEST_TIMEOUT(changes_when_there_is_no_signalfd_to_be_had, 60) {
  each_change_with_faults(SYS_signalfd4, EMFILE);
}

/* ---- making ---- */

static const struct {
  long number;
  int error;
} makers[] = {{SYS_epoll_create1, EMFILE},
              {SYS_epoll_ctl, ENOSPC},
              {SYS_eventfd2, ENOMEM},
              {SYS_timerfd_create, EMFILE}};

TEST(a_queue_that_cannot_be_made_leaves_nothing) {
  for (int m = 0; AT_ROW(m, makers); m++) watch_calls(makers[m].number);
  int before = open_descriptors();
  bool failed = true;
  /* Of all these calls in their order. */
  for (int nth = 1; failed; nth++) {
    fail_call(nth, EMFILE);
    int64_t kq = evloop_kqueue_create(0);
    failed = end_of_faults();
    if (failed && kq < 0) CHECK_EQ(kq, -EMFILE);
    if (kq > 0) OK(evloop_kqueue_close(kq));
    CHECK_EQ(open_descriptors(), before);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_KQUEUE), 0);
  }
}

/* ---- closing ---- */

typedef struct Taker {
  evloop_kqueue_t kq;
  int result;
  pid_t tid;
  pthread_t thread;
} Taker;

static void *take_main(void *argument) {
  Taker *t = (Taker *)argument;
  Event events[4];
  store_tid(&t->tid);
  t->result = take(t->kq, events, 4, -1);
  return NULL;
}

static void start_taker(Taker *t, evloop_kqueue_t kq) {
  memset(t, 0, sizeof *t);
  t->kq = kq;
  CHECK_EQ(pthread_create(&t->thread, NULL, take_main, t), 0);
  wait_until_asleep(&t->tid);
}

static int result_of(Taker *t) {
  CHECK_EQ(pthread_join(t->thread, NULL), 0);
  return t->result;
}

enum { WAITING = 5 };

TEST(closing_wakes_all_that_wait_without_a_call_of_epoll) {
  evloop_kqueue_t kq = new_kqueue();
  Taker takers[WAITING];
  for (int i = 0; i < WAITING; i++) start_taker(&takers[i], kq);
  /* Of this thread alone. */
  answer_call(SYS_epoll_ctl, ENOSPC);
  OK(evloop_kqueue_close(kq));
  for (int i = 0; i < WAITING; i++) CHECK_EQ(result_of(&takers[i]), -ESTALE);
}

/* The last that has come to wait is the first that is woken. */
TEST(closing_a_second_handle_wakes_its_own_among_others) {
  for (int own = 0; own < WAITING; own++) {
    evloop_kqueue_t kq = new_kqueue();
    evloop_kqueue_t by = OK(evloop_kqueue_from_fd((int)OK(evloop_kqueue_fileno(kq)), 0));
    Taker takers[WAITING];
    for (int i = 0; i < WAITING; i++) start_taker(&takers[i], i == own || i == 0 ? by : kq);
    OK(evloop_kqueue_close(by));
    CHECK_EQ(result_of(&takers[0]), -ESTALE);
    if (own != 0) CHECK_EQ(result_of(&takers[own]), -ESTALE);
    OK(evloop_kqueue_close(kq));
    for (int i = 1; i < WAITING; i++) {
      if (i != own) CHECK_EQ(result_of(&takers[i]), -ESTALE);
    }
  }
}

/* A timer goes on after the timerfd was used to wake. */
TEST(a_timer_expires_after_a_second_handle_was_closed) {
  evloop_kqueue_t kq = new_kqueue();
  evloop_kqueue_t by = OK(evloop_kqueue_from_fd((int)OK(evloop_kqueue_fileno(kq)), 0));
  Taker leaves, stays;
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 300, 0);
  start_taker(&stays, kq);
  start_taker(&leaves, by);
  OK(evloop_kqueue_close(by));
  CHECK_EQ(result_of(&leaves), -ESTALE);
  CHECK_EQ(result_of(&stays), 1);
}

/* ---- a set of epolls that is replaced ---- */

/* Descriptors that were closed while duplicates live, and are ready. */
static void make_strays(evloop_kqueue_t kq) {
  enum { STRAYS = 40 };
  for (int i = 0; i < STRAYS; i++) {
    int fd = event_fd(1);
    apply(kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0);
    OK(dup(fd));
    OK(close(fd));
    OK(dup2(0, fd));
  }
}

static void replace_with_faults(long number, int error) {
  static const Subject *const watched[] = {&subjects[1], &subjects[9], &subjects[12], &subjects[14]};
  Event events[8];
  watch_calls(number);
  set_limit(1024);
  bool failed = true;
  for (int nth = 1; failed; nth++) {
    Fixture beds[LENGTH(watched)];
    evloop_kqueue_t kq = 0;
    for (int i = 0; AT_ROW(i, watched); i++) {
      beds[i] = new_fixture(watched[i]);
      if (i > 0) {
        OK(evloop_kqueue_close(beds[i].kq));
        beds[i].kq = kq;
      }
      kq = beds[0].kq;
      CHECK_EQ(change_subject(&beds[i], ADD | watched[i]->flags), 0);
    }
    make_strays(kq);
    fail_call(nth, error);
    for (int i = 0; i < 3; i++) OK(take(kq, events, 8, 0));
    failed = end_of_faults();
    for (int i = 0; AT_ROW(i, watched); i++) expect_subject(&beds[i]);
    expect_witnesses(&beds[0]);
    OK(evloop_kqueue_close(kq));
    for (int fd = 3; fd < 1000; fd++) close(fd);
  }
}

TEST_TIMEOUT(a_set_that_cannot_be_replaced_goes_on, 60) {
  replace_with_faults(SYS_epoll_ctl, ENOSPC);
}

TEST_TIMEOUT(a_set_without_another_epoll_goes_on, 60) {
  replace_with_faults(SYS_epoll_create1, EMFILE);
}

/* ---- a copy in a forked child ---- */

static void copy_with_faults(long number, int error) {
  static const int kinds[] = {0, 1, 4, 9, 10, 11, 12, 13, 14, 15, 16, 17};
  watch_calls(number);
  for (int k = 0; AT_ROW(k, kinds); k++) {
    bool failed = true;
    for (int nth = 1; failed; nth++) {
      int status;
      Fixture fixture = new_fixture(&subjects[kinds[k]]);
      OK(evloop_kqueue_close(fixture.kq));
      fixture.kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
      apply(fixture.kq, fixture.witness.ident, KQ_READ, ADD, 0, 0, 0);
      apply(fixture.kq, WITNESS, KQ_USER, ADD | CLEAR, 0, 0, 0);
      CHECK_EQ(change_subject(&fixture, ADD | fixture.subject->flags), 0);
      fflush(stdout);
      pid_t child = (pid_t)OK(fork());
      if (child == 0) {
        Event events[4];
        alarm((unsigned)(20 * slow_factor()));
        fail_call(nth, error);
        int result = take(fixture.kq, events, 0, 0);
        failed = end_of_faults();
        check_failure(&fixture, nth, result, error);
        if (result < 0) {
          CHECK(failed);
          CHECK_EQ(take(fixture.kq, events, 0, 0), 0);
        }
        expect_subject(&fixture);
        expect_witnesses(&fixture);
        fflush(stdout);
        _exit(failed ? 2 : 0);
      }
      CHECK_EQ(waitpid(child, &status, 0), child);
      CHECK(WIFEXITED(status));
      CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 2);
      failed = WEXITSTATUS(status) == 2;
      close_bed(&fixture);
    }
  }
}

TEST_TIMEOUT(a_child_gets_its_copy_at_last_when_epoll_is_full, 60) {
  copy_with_faults(SYS_epoll_ctl, ENOSPC);
}

TEST_TIMEOUT(a_child_gets_its_copy_at_last_without_descriptors, 60) {
  for (int m = 0; AT_ROW(m, makers); m++) {
    if (makers[m].number != SYS_epoll_ctl) watch_calls(makers[m].number);
  }
  copy_with_faults(SYS_inotify_init1, EMFILE);
}

/* ---- operations in the background ---- */

/* An operation has begun, and its event comes; or it has not. */
static void operate_with_faults(void) {
  char path[] = "/tmp/kqueue-faults-XXXXXX";
  int fd = (int)OK(mkstemp(path));
  OK(unlink(path));
  bool failed = true;
  for (int nth = 1; failed; nth++) {
    evloop_kqueue_t kq = new_kqueue();
    struct stat file;
    OK(ftruncate(fd, 0));
    fail_call(nth, ENOSPC);
    int result = evloop_kqueue_aio_write(kq, fd, "hello", 5, 0, 1, 2);
    failed = end_of_faults();
    if (result == 0) {
      CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), -1));
      CHECK_EQ(expect_event(kq, 1, EVLOOP_KQ_FILTER_AIO).data, 5);
    } else {
      CHECK(failed);
      CHECK_EQ(result, -ENOSPC);
    }
    expect_nothing(kq);
    OK(evloop_kqueue_close(kq));
    OK(fstat(fd, &file));
    CHECK_EQ(file.st_size, result == 0 ? 5 : 0);
  }
}

TEST(an_operation_that_fails_to_begin_is_not_done) {
  watch_calls(SYS_epoll_ctl);
  for (int i = 0; i < 20; i++) operate_with_faults();
}

TEST(an_operation_of_threads_that_fails_to_begin_is_not_done) {
  answer_call(SYS_io_uring_setup, ENOSYS);
  watch_calls(SYS_epoll_ctl);
  for (int i = 0; i < 20; i++) operate_with_faults();
}

TEST(a_queue_is_closed_although_the_kernel_refuses_to_wait_for_operations) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe pipe = new_pipe();
  static char buffer[8];
  OK(evloop_kqueue_aio_read(kq, pipe.r, buffer, sizeof buffer, 0, 1, 2));
  answer_call(SYS_io_uring_enter, EPERM);
  OK(evloop_kqueue_close(kq));
}

CHECK_MAIN()
