/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues as BSD has them: descriptors that the program closes. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <sys/epoll.h>

#define CHECK_ERRNO(call, code)                                               \
  do {                                                                        \
    errno = 0;                                                                \
    CHECK_EQ((call), -1);                                                     \
    CHECK_EQ(errno, code);                                                    \
  } while (0)

static const struct timespec none = {0, 0};

static int bsd_kqueue(void) {
  int kq = evloop_bsd_kqueue();
  CHECK(kq >= 0);
  return kq;
}

static int bsd_change(int kq, uint64_t ident, int filter, int flags, uint32_t fflags) {
  Event one = change(ident, filter, flags, fflags, 0, 0);
  return evloop_bsd_kevent(kq, &one, 1, NULL, 0, NULL);
}

static int poll_kq(int kq) {
  Event events[4];
  return evloop_bsd_kevent(kq, NULL, 0, events, 4, &none);
}

/* A queue with as much behind it as possible. */
static int rich_kqueue(int file) {
  int kq = bsd_kqueue();
  CHECK_EQ(bsd_change(kq, 1, KQ_USER, ADD | CLEAR, TRIGGER), 0);
  CHECK_EQ(bsd_change(kq, 1, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_SECONDS), 0);
  CHECK_EQ(bsd_change(kq, 2, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_ABSTIME), 0);
  CHECK_EQ(bsd_change(kq, (uint64_t)file, KQ_READ, ADD, 0), 0);
  return kq;
}

/* ---- the pair of calls ---- */

TEST(events_and_changes) {
  int kq = bsd_kqueue();
  Event list[2] = {change(1, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 5)};
  CHECK_EQ(OK(fcntl(kq, F_GETFD)), FD_CLOEXEC);
  CHECK_EQ(evloop_bsd_kevent(kq, list, 1, list, 2, NULL), 1);
  CHECK_EQ(list[0].udata, 5);
  CHECK_EQ(poll_kq(kq), 0);
  list[0] = change(1, KQ_USER, DELETE, 0, 0, 0);
  CHECK_ERRNO(evloop_bsd_kevent(kq, list, 1, NULL, 0, NULL), ENOENT);
  CHECK_EQ(evloop_bsd_kevent(kq, list, 1, list, 2, NULL), 1);
  CHECK_EQ(list[0].data, ENOENT);
  OK(close(kq));
}

TEST(errno_is_left_alone_by_success) {
  int kq = bsd_kqueue();
  errno = 77;
  CHECK_EQ(poll_kq(kq), 0);
  CHECK_EQ(errno, 77);
  CHECK(evloop_bsd_kqueue() >= 0);
  CHECK_EQ(errno, 77);
}

TEST(timeouts) {
  static const struct timespec bad[] = {{-1, 0}, {0, -1}, {0, 1000000000}, {INT64_MIN, 0}, {0, INT64_MAX}};
  static const struct timespec good = {0, 30000000};
  int kq = bsd_kqueue();
  Event events[2];
  for (int i = 0; AT_ROW(i, bad); i++) {
    CHECK_ERRNO(evloop_bsd_kevent(kq, NULL, 0, events, 2, &bad[i]), EINVAL);
  }
  int64_t began = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(evloop_bsd_kevent(kq, NULL, 0, events, 2, &good), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - began >= 30 * MS);
  CHECK_ERRNO(evloop_bsd_kevent(kq, NULL, -1, NULL, 0, NULL), EINVAL);
  CHECK_ERRNO(evloop_bsd_kevent(kq, NULL, 0, events, -1, NULL), EINVAL);
}

TEST(what_is_no_queue_is_ebadf) {
  Pipe p = new_pipe();
  int ep = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  /* Before there ever was a queue. */
  for (int i = 0; i < 2; i++) {
    CHECK_ERRNO(poll_kq(-1), EBADF);
    CHECK_ERRNO(poll_kq(900000), EBADF);
    CHECK_ERRNO(poll_kq(p.r), EBADF);
    CHECK_ERRNO(poll_kq(ep), EBADF);
    CHECK_ERRNO(poll_kq(regular_file()), EBADF);
    bsd_kqueue();
  }
}

TEST(a_closed_queue_is_ebadf) {
  int kq = bsd_kqueue();
  OK(close(kq));
  CHECK_ERRNO(poll_kq(kq), EBADF);
  int other = bsd_kqueue();
  CHECK_EQ(other, kq);
  OK(close(other));
  CHECK_EQ(new_pipe().r, kq);
  CHECK_ERRNO(poll_kq(kq), EBADF);
  OK(fcntl(kq, F_GETFD));
}

TEST(a_new_queue_at_an_old_descriptor_is_new) {
  int kq = rich_kqueue(regular_file());
  OK(close(kq));
  int other = bsd_kqueue();
  CHECK_EQ(other, kq);
  CHECK_EQ(poll_kq(other), 0);
  CHECK_ERRNO(bsd_change(other, 1, KQ_USER, DELETE, 0), ENOENT);
}

TEST(a_queue_put_over_another_by_dup2) {
  int a = bsd_kqueue(), b = bsd_kqueue();
  CHECK_EQ(bsd_change(a, 1, KQ_USER, ADD, TRIGGER), 0);
  CHECK_EQ(dup2(a, b), b);
  CHECK_EQ(poll_kq(b), 1);
  CHECK_EQ(poll_kq(a), 1);
  OK(close(a));
  CHECK_EQ(poll_kq(b), 1);
  CHECK_ERRNO(poll_kq(a), EBADF);
}

TEST(handles_have_descriptors_that_are_queues_too) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  CHECK_EQ(bsd_change(fd, 1, KQ_USER, ADD | CLEAR, TRIGGER), 0);
  expect_event(kq, 1, KQ_USER);
  int number = bsd_kqueue();
  evloop_kqueue_t handle = OK(evloop_kqueue_from_fd(number, EVLOOP_FD_OWN));
  apply(handle, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  CHECK_EQ(poll_kq(number), 1);
  CHECK_EQ(evloop_kqueue_close(handle), 0);
  CHECK_ERRNO(poll_kq(number), EBADF);
  CHECK(fcntl(number, F_GETFD) < 0);
}

/* ---- duplicates ---- */

TEST(a_duplicate_is_the_same_queue) {
  int kq = bsd_kqueue(), copy = (int)OK(dup(kq));
  CHECK_EQ(bsd_change(kq, 1, KQ_USER, ADD, TRIGGER), 0);
  CHECK_EQ(poll_kq(copy), 1);
  CHECK_EQ(bsd_change(copy, 1, KQ_USER, DELETE, 0), 0);
  CHECK_EQ(poll_kq(kq), 0);
  OK(close(copy));
  CHECK_ERRNO(poll_kq(copy), EBADF);
  CHECK_EQ(poll_kq(kq), 0);
}

TEST(a_queue_lives_as_long_as_a_duplicate) {
  for (int known = 0; known < 2; known++) {
    int kq = bsd_kqueue(), copy = (int)OK(dup(kq));
    CHECK_EQ(bsd_change(kq, 1, KQ_USER, ADD, TRIGGER), 0);
    if (known) CHECK_EQ(poll_kq(copy), 1);
    OK(close(kq));
    /* These look for queues that were closed. */
    for (int i = 0; i < 10; i++) OK(close(bsd_kqueue()));
    CHECK_EQ(poll_kq(copy), 1);
    OK(close(copy));
    CHECK_ERRNO(poll_kq(copy), EBADF);
  }
}

/* ---- close(2) ---- */

/* The kernel takes its time to close an inotify. */
TEST_TIMEOUT(thousands_of_queues_fit_in_32_descriptors, 120) {
  set_limit(32);
  leave_room_for_checkers();
  int file = regular_file();
  for (int i = 0; i < 5000; i++) {
    int kq = i % 4 ? bsd_kqueue() : rich_kqueue(file);
    OK(close(kq));
  }
  CHECK(evloop_handle_count(EVLOOP_KIND_KQUEUE) <= 8);
}

TEST_TIMEOUT(several_at_a_time_fit_in_32_descriptors, 120) {
  enum { AT_A_TIME = 3 };
  set_limit(32);
  leave_room_for_checkers();
  int file = regular_file();
  for (int i = 0; i < 200; i++) {
    int kqs[AT_A_TIME], pipes[6];
    for (int j = 0; j < AT_A_TIME; j++) kqs[j] = rich_kqueue(file);
    for (int j = 0; j < AT_A_TIME; j++) CHECK_EQ(poll_kq(kqs[j]), 2);
    for (int j = 0; j < AT_A_TIME; j++) OK(close(kqs[j]));
    /* Their descriptors are the pipes' now, and stay open. */
    for (int j = 0; j < 6; j += 2) OK(pipe(pipes + j));
    OK(close(bsd_kqueue()));
    for (int j = 0; j < 6; j++) OK(close(pipes[j]));
  }
}

TEST(a_bare_queue_has_four_descriptors) {
  int before = open_descriptors();
  for (int i = 0; i < 10; i++) bsd_kqueue();
  CHECK_EQ(open_descriptors() - before, 40);
}

TEST(what_is_behind_a_closed_queue_is_given_back) {
  int file = regular_file(), before = open_descriptors();
  for (int i = 0; i < 20; i++) OK(close(rich_kqueue(file)));
  OK(close(bsd_kqueue()));
  CHECK(open_descriptors() - before <= 10);
  for (int i = 0; i < 20; i++) OK(close(bsd_kqueue()));
  CHECK(open_descriptors() - before <= 3);
}

TEST(a_reused_descriptor_is_not_closed) {
  int kq = rich_kqueue(regular_file()), eventfds[20];
  OK(close(kq));
  for (int i = 0; i < 20; i++) eventfds[i] = event_fd(1);
  CHECK_EQ(eventfds[0], kq);
  for (int i = 0; i < 20; i++) OK(close(bsd_kqueue()));
  for (int i = 0; i < 20; i++) {
    eventfd_t count;
    CHECK_EQ(eventfd_read(eventfds[i], &count), 0);
  }
}

TEST(descriptors_that_were_all_closed_are_not_closed_again) {
  int eventfds[40];
  evloop_kqueue_t handle = new_kqueue();
  apply(handle, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  rich_kqueue(regular_file());
  bsd_kqueue();
  for (int fd = 3; fd < 100; fd++) close(fd);
  for (int i = 0; i < 40; i++) eventfds[i] = event_fd(1);
  for (int i = 0; i < 20; i++) OK(close(bsd_kqueue()));
  CHECK_EQ(evloop_kqueue_close(handle), 0);
  for (int i = 0; i < 40; i++) {
    eventfd_t count;
    CHECK_EQ(eventfd_read(eventfds[i], &count), 0);
  }
}

typedef struct Waiting {
  int kq;
  int result, error;
  pid_t tid;
  pthread_t thread;
} Waiting;

static void *wait_main(void *argument) {
  Waiting *w = (Waiting *)argument;
  Event events[4];
  store_tid(&w->tid);
  w->result = evloop_bsd_kevent(w->kq, NULL, 0, events, 4, NULL);
  w->error = errno;
  return NULL;
}

static void start_waiting(Waiting *w, int kq) {
  memset(w, 0, sizeof *w);
  w->kq = kq;
  CHECK_EQ(pthread_create(&w->thread, NULL, wait_main, w), 0);
  wait_until_asleep(&w->tid);
}

TEST(threads_that_wait_in_a_closed_queue_are_woken_by_the_next_calls) {
  int kq = bsd_kqueue();
  Waiting w[3];
  for (int i = 0; i < 3; i++) start_waiting(&w[i], kq);
  OK(close(kq));
  for (int i = 0; i < 3; i++) OK(close(bsd_kqueue()));
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(pthread_join(w[i].thread, NULL), 0);
    CHECK_EQ(w[i].result, -1);
    CHECK_EQ(w[i].error, EBADF);
  }
}

TEST(threads_that_wait_in_a_closed_queue_are_woken_by_themselves) {
  int kq = bsd_kqueue();
  Waiting w;
  start_waiting(&w, kq);
  OK(close(kq));
  CHECK_EQ(pthread_join(w.thread, NULL), 0);
  CHECK_EQ(w.result, -1);
  CHECK_EQ(w.error, EBADF);
}

/* Opens queues with an inner descriptor each, and closes all with close(2).
 * Returns the count of open descriptors before that. */
enum { CLOSED_AT_ONCE = 150 };

static int close_many(void) {
  int kqs[CLOSED_AT_ONCE];
  set_limit(1024);
  OK(close(bsd_kqueue()));
  int before = open_descriptors();
  for (int i = 0; i < CLOSED_AT_ONCE; i++) {
    kqs[i] = bsd_kqueue();
    CHECK_EQ(bsd_change(kqs[i], 1, KQ_TIMER, ADD, 0), 0);
  }
  for (int i = 0; i < CLOSED_AT_ONCE; i++) OK(close(kqs[i * 7 % CLOSED_AT_ONCE]));
  CHECK(open_descriptors() > before + CLOSED_AT_ONCE);
  return before;
}

/* valgrind cannot fork below the limit that it found at its start. */
TEST_WITHOUT_VALGRIND(all_that_were_closed_are_given_back_when_one_is_made, 20) {
  int before = close_many();
  evloop_kqueue_t kq = new_kqueue();
  OK(evloop_kqueue_close(kq));
  CHECK(open_descriptors() <= before);
  before = close_many();
  OK(close(bsd_kqueue()));
  OK(close(bsd_kqueue()));
  /* But for the last one. */
  CHECK(open_descriptors() <= before + 3);
}

TEST_WITHOUT_VALGRIND(all_that_were_closed_are_given_back_by_a_wait, 20) {
  int kq = bsd_kqueue();
  evloop_kqueue_t handle = new_kqueue();
  int before = close_many();
  usleep(2000);
  CHECK_EQ(poll_kq(kq), 0);
  CHECK(open_descriptors() <= before);
  before = close_many();
  usleep(2000);
  expect_nothing(handle);
  CHECK(open_descriptors() <= before);
}

/* Some of them live on by a duplicate, which is found without /proc too. */
TEST_WITHOUT_VALGRIND(duplicates_of_many_closed_queues_live_on, 20) {
  enum { N = 40 };
  for (int full = 0; full < 2; full++) {
    int kqs[N], duplicates[N];
    set_limit(full ? 60 + 6 * N : 1024);
    for (int i = 0; i < N; i++) {
      kqs[i] = bsd_kqueue();
      CHECK_EQ(bsd_change(kqs[i], (uint64_t)i, KQ_USER, ADD, TRIGGER), 0);
      duplicates[i] = i % 4 == 0 ? (int)OK(dup(kqs[i])) : -1;
    }
    for (int i = 0; i < N; i++) OK(close(kqs[i]));
    Filling all = {0, -1};
    if (full) {
      all.first = all.last = (int)OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
      for (int fd; (fd = dup(all.first)) >= 0;) continue;
      CHECK_EQ(errno, EMFILE);
    }
    int fresh = bsd_kqueue();
    for (int i = 0; i < N; i += 4) CHECK_EQ(poll_kq(duplicates[i]), 1);
    for (int i = 0; i < N; i += 4) OK(close(duplicates[i]));
    OK(close(fresh));
    OK(close(bsd_kqueue()));
    CHECK(evloop_handle_count(EVLOOP_KIND_KQUEUE) <= 1);
    if (full) {
      for (int fd = all.first; fd < 60 + 6 * N; fd++) close(fd);
    }
  }
}

TEST(a_thousand_queues_at_once) {
  enum { N = 1000 };
  static int kqs[N];
  set_limit(6000);
  for (int i = 0; i < N; i++) {
    kqs[i] = bsd_kqueue();
    CHECK_EQ(bsd_change(kqs[i], (uint64_t)i, KQ_USER, ADD | CLEAR, TRIGGER), 0);
  }
  for (int i = 0; i < N; i++) CHECK_EQ(poll_kq(kqs[i]), 1);
  for (int i = 0; i < N; i++) CHECK_EQ(poll_kq(kqs[i]), 0);
  for (int i = 0; i < N; i++) OK(close(kqs[i]));
  OK(close(bsd_kqueue()));
  CHECK(evloop_handle_count(EVLOOP_KIND_KQUEUE) <= 1);
}

/* ---- signals ---- */

static void on_signal(int number) {
  (void)number;
}

static void *interrupt_main(void *argument) {
  const pid_t *tid = (const pid_t *)argument;
  wait_until_asleep(tid);
  OK(syscall(SYS_tgkill, getpid(), *tid, SIGUSR1));
  return NULL;
}

TEST(an_interrupted_wait_is_eintr_and_its_changes_are_applied) {
  int kq = bsd_kqueue();
  struct sigaction action;
  static pid_t tid;
  pthread_t thread;
  Event list[1] = {change(1, KQ_USER, ADD, 0, 0, 0)};
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  OK(sigaction(SIGUSR1, &action, NULL));
  store_tid(&tid);
  CHECK_EQ(pthread_create(&thread, NULL, interrupt_main, &tid), 0);
  CHECK_ERRNO(evloop_bsd_kevent(kq, list, 1, list, 1, NULL), EINTR);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(bsd_change(kq, 1, KQ_USER, DELETE, 0), 0);
}

/* ---- fork ---- */

/* Runs it in a child, whose CHECKs count. */
static void in_child(void (*run)(void)) {
  int status;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    run();
    fflush(stdout);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
}

static int forked_kq;
static evloop_kqueue_t forked_handle, kept_handle;

static void child_has_no_queue(void) {
  CHECK_ERRNO(poll_kq(forked_kq), EBADF);
  CHECK(fcntl(forked_kq, F_GETFD) < 0);
  CHECK_ERR(evloop_kqueue_control(forked_handle, NULL, 0, NULL, 0, 0), ECHILD);
  CHECK_ERR(evloop_kqueue_fileno(forked_handle), ECHILD);
  CHECK_EQ(evloop_kqueue_close(forked_handle), 0);
  int kq = bsd_kqueue();
  CHECK_EQ(bsd_change(kq, 1, KQ_USER, ADD, TRIGGER), 0);
  CHECK_EQ(poll_kq(kq), 1);
}

static void child_reuses_the_number(void) {
  OK(close(forked_kq));
  int fd = event_fd(1);
  CHECK_EQ(fd, forked_kq);
  CHECK_ERRNO(poll_kq(fd), EBADF);
  eventfd_t count;
  CHECK_EQ(eventfd_read(fd, &count), 0);
}

static void child_closes_everything(void) {
  int eventfds[40];
  eventfd_t count;
  for (int fd = 3; fd < 100; fd++) close(fd);
  for (int i = 0; i < 40; i++) eventfds[i] = event_fd(1);
  CHECK_ERRNO(poll_kq(forked_kq), EBADF);
  CHECK_EQ(evloop_kqueue_close(forked_handle), 0);
  CHECK_EQ(evloop_kqueue_close(kept_handle), 0);
  for (int i = 0; i < 40; i++) CHECK_EQ(eventfd_read(eventfds[i], &count), 0);
}

TEST(a_forked_child_has_no_queue_and_the_parent_keeps_its) {
  static void (*const children[])(void) = {child_has_no_queue, child_reuses_the_number, child_closes_everything};
  forked_handle = new_kqueue();
  kept_handle = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  forked_kq = rich_kqueue(regular_file());
  Pipe p = new_pipe();
  CHECK_EQ(bsd_change(forked_kq, (uint64_t)p.r, KQ_READ, ADD, 0), 0);
  CHECK_EQ(bsd_change(forked_kq, (uint64_t)p.w, KQ_WRITE, ADD | CLEAR, 0), 0);
  CHECK_EQ(poll_kq(forked_kq), 3);
  apply(forked_handle, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  for (int i = 0; AT_ROW(i, children); i++) {
    in_child(children[i]);
    /* The ABSTIME timer and nothing else: nothing came again. */
    CHECK_EQ(poll_kq(forked_kq), 1);
    put(p.w);
    CHECK_EQ(poll_kq(forked_kq), 2);
    char byte;
    CHECK_EQ(read(p.r, &byte, 1), 1);
    expect_event(forked_handle, 1, KQ_USER);
  }
}

static Pipe kept_pipe;
static int kept_file;

static void child_has_a_copy(void) {
  evloop_kqueue_t kq = kept_handle;
  Event events[8];
  CHECK_EQ(take(kq, events, 8, 0), 2);
  apply(kq, 1, KQ_USER, DELETE, 0, 0, 0);
  CHECK_EQ(expect_event(kq, (uint64_t)kept_pipe.r, KQ_READ).data, 1);
  apply(kq, (uint64_t)kept_pipe.r, KQ_READ, DELETE, 0, 0, 0);
  expect_nothing(kq);
  CHECK_EQ(pwrite(kept_file, "x", 1, 0), 1);
  expect_event(kq, (uint64_t)kept_file, KQ_READ);
  apply(kq, (uint64_t)kept_file, KQ_READ, DELETE, 0, 0, 0);
  expect_event(kq, 3, KQ_TIMER);
  CHECK_EQ(ftruncate(kept_file, 0), 0);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

TEST(a_kept_queue_is_copied_to_the_child) {
  kept_handle = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  kept_pipe = new_pipe();
  kept_file = regular_file();
  put(kept_pipe.w);
  apply(kept_handle, (uint64_t)kept_pipe.r, KQ_READ, ADD, 0, 0, 0);
  apply(kept_handle, (uint64_t)kept_pipe.w, KQ_WRITE, ADD | DISABLE, 0, 0, 0);
  apply(kept_handle, (uint64_t)kept_file, KQ_READ, ADD, 0, 0, 0);
  apply(kept_handle, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  apply(kept_handle, 3, KQ_TIMER, ADD | ONESHOT, 0, 300, 0);
  Event events[8];
  CHECK_EQ(take(kept_handle, events, 8, 0), 2);
  in_child(child_has_a_copy);
  /* The child has waited for its own timer. */
  CHECK_EQ(take(kept_handle, events, 8, 0), 3);
  apply(kept_handle, 1, KQ_USER, DELETE, 0, 0, 0);
  apply(kept_handle, (uint64_t)kept_pipe.r, KQ_READ, DELETE, 0, 0, 0);
  expect_nothing(kept_handle);
}

CHECK_MAIN()
