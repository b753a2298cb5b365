/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* No object accepts the library's own descriptors, which a program may find by
 * trying every integer. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#include <sys/epoll.h>

enum { MOST = 128 }; /* no descriptor of these tests is above */

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

typedef struct Descriptors {
  bool open[MOST];
} Descriptors;

static Descriptors all_open(void) {
  Descriptors now;
  for (int fd = 0; fd < MOST; fd++) now.open[fd] = is_open(fd);
  return now;
}

/* Those that were opened since: of the library, as long as a test opens none. */
static int opened_since(const Descriptors *before, int *fds) {
  int count = 0;
  for (int fd = 0; fd < MOST; fd++) {
    if (is_open(fd) && !before->open[fd]) fds[count++] = fd;
  }
  return count;
}

/* ---- kqueues ---- */

typedef struct Rich {
  evloop_kqueue_t kq;
  Pipe pipe;
  int pair[2], file;
  pid_t child;
} Rich;

/* What makes a queue open descriptors of its own. */
static void enrich(Rich *r) {
  static char byte;
  sigset_t set;
  apply(r->kq, 1, KQ_TIMER, ADD | DISABLE, EVLOOP_KQ_NOTE_SECONDS, 1000, 0);
  apply(r->kq, 2, KQ_TIMER, ADD | DISABLE, EVLOOP_KQ_NOTE_ABSTIME, INT64_MAX, 0);
  apply(r->kq, 3, KQ_USER, ADD | CLEAR, 0, 0, 0);
  apply(r->kq, (uint64_t)r->pair[0], KQ_READ, ADD, 0, 0, 0);
  apply(r->kq, (uint64_t)r->pair[0], KQ_READ, ADD | CLEAR | EVLOOP_KQ_EV_UDATA_SPECIFIC, 0, 0, 1);
  apply(r->kq, (uint64_t)r->pair[0], KQ_WRITE, ADD | CLEAR | DISABLE, 0, 0, 0);
  apply(r->kq, (uint64_t)r->file, EVLOOP_KQ_FILTER_VNODE, ADD, EVLOOP_KQ_NOTE_REVOKE, 0, 0);
  apply(r->kq, 1, EVLOOP_KQ_FILTER_NETDEV, ADD, EVLOOP_KQ_NOTE_LINKUP, 0, 0);
  apply(r->kq, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 0);
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  OK(sigprocmask(SIG_BLOCK, &set, NULL));
  apply(r->kq, SIGUSR2, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 0);
  if (!getenv("EVLOOP_TEST_VALGRIND")) {
    apply(r->kq, (uint64_t)r->child, EVLOOP_KQ_FILTER_PROC, ADD, EVLOOP_KQ_NOTE_EXIT, 0, 0);
  }
  OK(evloop_kqueue_aio_read(r->kq, r->pipe.r, &byte, 1, -1, 1, 0));
}

static Rich open_rich(void) {
  Rich r;
  Pipe stay = new_pipe();
  r.pipe = new_pipe();
  r.file = regular_file();
  /* The process's one eventfd is there before. */
  OK(evloop_epoll_close(OK(evloop_epoll_create(0))));
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, r.pair));
  fflush(stdout);
  r.child = (pid_t)OK(fork());
  if (r.child == 0) {
    char byte;
    close(stay.w);
    _exit(read(stay.r, &byte, 1) != 0);
  }
  r.kq = 0;
  return r;
}

static void try_own(evloop_kqueue_t kq, int fd) {
  static const struct {
    int filter;
    uint32_t fflags;
  } filters[] = {{KQ_READ, 0},
                 {KQ_WRITE, 0},
                 {EVLOOP_KQ_FILTER_VNODE, EVLOOP_KQ_NOTE_WRITE},
                 {EVLOOP_KQ_FILTER_EXCEPT, EVLOOP_KQ_NOTE_OOB},
                 {EVLOOP_KQ_FILTER_EMPTY, 0}};
  for (int f = 0; AT_ROW(f, filters); f++) {
    for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
      int result = try_change(kq, (uint64_t)fd, filters[f].filter, ADD | flags, filters[f].fflags, 0, 0);
      if (result != -EINVAL) printf("  fd %d, filter %d:\n", fd, filters[f].filter);
      CHECK_EQ(result, -EINVAL);
      CHECK(try_change(kq, (uint64_t)fd, filters[f].filter, DELETE, 0, 0, 0) < 0);
      CHECK(try_change(kq, (uint64_t)fd, filters[f].filter, ENABLE, 0, 0, 0) < 0);
    }
  }
}

static void check_rich(void) {
  Rich r = open_rich();
  Descriptors before = all_open();
  int fds[MOST];
  r.kq = new_kqueue();
  enrich(&r);
  int count = opened_since(&before, fds);
  CHECK(count >= 11);
  for (int i = 0; i < count; i++) try_own(r.kq, fds[i]);
  /* All of it works as before. */
  apply(r.kq, 3, KQ_USER, 0, TRIGGER, 0, 0);
  expect_event(r.kq, 3, KQ_USER);
  put(r.pipe.w);
  CHECK_EQ(expect_event(r.kq, 1, EVLOOP_KQ_FILTER_AIO).data, 1);
  OK(kill(getpid(), SIGUSR2));
  expect_event(r.kq, SIGUSR2, EVLOOP_KQ_FILTER_SIGNAL);
  put(r.pair[1]);
  Event events[4];
  CHECK_EQ(take(r.kq, events, 4, -1), 2);
  OK(evloop_kqueue_close(r.kq));
  CHECK_EQ(opened_since(&before, fds), 0);
  OK(kill(r.child, SIGKILL));
}

TEST(a_kqueue_takes_none_of_its_own_descriptors) {
  check_rich();
}

TEST(a_kqueue_with_threads_takes_none_of_its_own_descriptors) {
  answer_call(SYS_io_uring_setup, EPERM);
  check_rich();
}

/* A descriptor of the library that the program has closed and opened again is
 * the program's. */
TEST(a_reused_descriptor_is_accepted) {
  Descriptors before = all_open();
  int fds[MOST];
  evloop_kqueue_t kq = new_kqueue();
  int own = (int)OK(evloop_kqueue_fileno(kq)), count = opened_since(&before, fds);
  Pipe p = new_pipe();
  put(p.w);
  for (int i = 0; i < count; i++) {
    /* Not the two epolls. */
    if (fds[i] == own || fds[i] == own + 1) continue;
    CHECK_EQ(dup2(p.r, fds[i]), fds[i]);
    apply(kq, (uint64_t)fds[i], KQ_READ, ADD | ONESHOT, 0, 0, 0);
    expect_event(kq, (uint64_t)fds[i], KQ_READ);
  }
  OK(evloop_kqueue_close(kq));
  /* And is not closed with the queue. */
  CHECK(is_open(fds[2]));
}

/* ---- what all objects share ---- */

/* The process's descriptor, and the calling thread's. */
static int open_shared(int *fds) {
  Descriptors before = all_open();
  evloop_ready_t ready;
  OK(evloop_epoll_close(OK(evloop_epoll_create(0))));
  evloop_poll_t set = OK(evloop_poll_create());
  CHECK_EQ(evloop_poll_wait(set, &ready, 1, MS), 0);
  OK(evloop_poll_close(set));
  int count = opened_since(&before, fds);
  CHECK(count >= 1);
  return count;
}

TEST(no_object_takes_what_the_library_waits_with) {
  static const int backends[] = {EVLOOP_SELECTOR_SELECT, EVLOOP_SELECTOR_POLL, EVLOOP_SELECTOR_EPOLL,
                                 EVLOOP_SELECTOR_DEVPOLL, EVLOOP_SELECTOR_KQUEUE};
  int fds[MOST], count = open_shared(fds);
  evloop_poll_t set = OK(evloop_poll_create());
  evloop_epoll_t epoll = OK(evloop_epoll_create(0));
  evloop_epoll_t adopted = OK(evloop_epoll_from_fd((int)OK(epoll_create1(EPOLL_CLOEXEC)), EVLOOP_FD_OWN));
  evloop_devpoll_t devpoll = OK(evloop_devpoll_create());
  evloop_kqueue_t kq = new_kqueue();
  evloop_t loop = OK(evloop_create(NULL));
  for (int mirrored = 0; mirrored < 2; mirrored++) {
    for (int i = 0; i < count; i++) {
      int fd = fds[i];
      CHECK_ERR(evloop_poll_register(set, fd, EVLOOP_POLLIN, 0), EINVAL);
      CHECK_ERR(evloop_epoll_register(epoll, fd, EVLOOP_EPOLLIN, 0), EINVAL);
      CHECK_ERR(evloop_epoll_register(adopted, fd, EVLOOP_EPOLLIN, 0), EINVAL);
      CHECK_ERR(evloop_devpoll_register(devpoll, fd, EVLOOP_POLLIN, 0), EINVAL);
      CHECK_ERR(evloop_devpoll_modify(devpoll, fd, EVLOOP_POLLIN, 0), EINVAL);
      CHECK_ERR(try_change(kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0), EINVAL);
      CHECK_ERR(evloop_epoll_from_fd(fd, 0), EINVAL);
      CHECK_ERR(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, NULL, NULL), EINVAL);
      CHECK_ERR(evloop_trace_start_fd(loop, fd, 0), EINVAL);
      for (int b = 0; AT_ROW(b, backends); b++) {
        evloop_selector_t selector = OK(evloop_selector_create(backends[b]));
        CHECK_ERR(evloop_selector_register(selector, fd, EVLOOP_SELECTOR_READ, 0), EINVAL);
        OK(evloop_selector_close(selector));
      }
    }
    OK(evloop_devpoll_fileno(devpoll));
  }
}

/* Also not to change it, or to take it away: closing would wake no thread. */
TEST(an_epoll_object_keeps_its_alarm) {
  for (int kind = 0; kind < 2; kind++) {
    Descriptors before = all_open();
    int fds[MOST], own = (int)OK(epoll_create1(EPOLL_CLOEXEC));
    evloop_epoll_t epoll = kind == 0 ? OK(evloop_epoll_create(0)) : OK(evloop_epoll_from_fd(own, 0));
    int count = opened_since(&before, fds);
    for (int i = 0; i < count; i++) {
      if (fds[i] == own) continue;
      CHECK_ERR(evloop_epoll_register(epoll, fds[i], EVLOOP_EPOLLIN, 0), EINVAL);
      CHECK_ERR(evloop_epoll_modify(epoll, fds[i], EVLOOP_EPOLLIN, 0), EINVAL);
      CHECK_ERR(evloop_epoll_unregister(epoll, fds[i]), EINVAL);
    }
    Waiter waiter;
    start_waiter_in(&waiter, evloop_epoll_wait, epoll);
    OK(evloop_epoll_close(epoll));
    CHECK_EQ(waiter_result(&waiter), -ESTALE);
    OK(close(own));
  }
}

CHECK_MAIN()
