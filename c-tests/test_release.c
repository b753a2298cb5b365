/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* tfd_release() and evloop_epoll_release(): the handle is given up, and the
 * descriptor stays. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <sys/wait.h>

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

TEST(a_released_timer_goes_on_without_its_handle) {
  tfd_t t = OK(tfd_create(MONOTONIC, 0));
  int fd = (int)OK(tfd_fileno(t));
  uint64_t ticks;
  CHECK_EQ(tfd_settime_ns(t, 0, MS, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_release(t), fd);
  CHECK_ERR(tfd_release(t), ESTALE);
  CHECK_ERR(tfd_close(t), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_TFD), 0);
  CHECK(readable(fd, -1));
  CHECK_EQ(read(fd, &ticks, sizeof ticks), sizeof ticks);
  CHECK_EQ(ticks, 1);
  OK(close(fd));
}

TEST(a_released_epoll_goes_on_without_its_handle) {
  int64_t ep = OK(evloop_epoll_create(0));
  int fd = (int)OK(evloop_epoll_fileno(ep)), ready = event_fd(1);
  struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = 77}};
  CHECK_EQ(evloop_epoll_register(ep, ready, EVLOOP_EPOLLIN, 5), 0);
  CHECK_EQ(evloop_epoll_release(ep), fd);
  CHECK_ERR(evloop_epoll_release(ep), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_EPOLL), 0);
  OK(epoll_ctl(fd, EPOLL_CTL_MOD, ready, &event));
  event.data.u64 = 0;
  CHECK_EQ(epoll_wait(fd, &event, 1, -1), 1);
  CHECK_EQ(event.data.u64, 77);
  /* Nothing of the library's is left in it. */
  OK(epoll_ctl(fd, EPOLL_CTL_DEL, ready, NULL));
  CHECK_EQ(epoll_wait(fd, &event, 1, 0), 0);
  OK(close(fd));
}

TEST(what_was_adopted_is_released_too) {
  int timer_fd = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  int epoll_fd = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  for (uint32_t flags = 0; flags <= EVLOOP_FD_OWN; flags++) {
    CHECK_EQ(tfd_release(OK(tfd_from_fd(timer_fd, flags))), timer_fd);
    CHECK_EQ(evloop_epoll_release(OK(evloop_epoll_from_fd(epoll_fd, flags))), epoll_fd);
    CHECK(is_open(timer_fd));
    CHECK(is_open(epoll_fd));
  }
}

TEST(handles_of_other_kinds_are_refused) {
  evloop_t loop = new_loop();
  CHECK_ERR(tfd_release(0), ESTALE);
  CHECK_ERR(evloop_epoll_release(-1), ESTALE);
  CHECK_ERR(tfd_release(loop), EDOM);
  CHECK_ERR(evloop_epoll_release(OK(tfd_create(MONOTONIC, 0))), EDOM);
}

/* ---- threads ---- */

typedef struct Sleeper {
  int64_t handle, result;
  pid_t tid; /* atomic */
} Sleeper;

static void *wait_for_timer(void *argument) {
  Sleeper *waiter = (Sleeper *)argument;
  uint64_t ticks;
  store_tid(&waiter->tid);
  waiter->result = tfd_wait(waiter->handle, -1, &ticks);
  return NULL;
}

static void *wait_for_epoll(void *argument) {
  Sleeper *waiter = (Sleeper *)argument;
  evloop_ready_t ready;
  store_tid(&waiter->tid);
  waiter->result = evloop_epoll_wait(waiter->handle, &ready, 1, -1);
  return NULL;
}

static void release_under(void *(*wait)(void *), int64_t handle, int (*release)(int64_t)) {
  Sleeper waiters[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    memset(&waiters[i], 0, sizeof waiters[i]);
    waiters[i].handle = handle;
    threads[i] = start_thread(wait, &waiters[i]);
    wait_until_asleep(&waiters[i].tid);
  }
  int fd = (int)OK(release(handle));
  for (int i = 0; i < 2; i++) {
    join(threads[i]);
    CHECK_EQ(waiters[i].result, -ESTALE);
  }
  CHECK(is_open(fd));
  OK(close(fd));
}

TEST(threads_that_wait_come_back) {
  release_under(wait_for_timer, OK(tfd_create(MONOTONIC, 0)), tfd_release);
  release_under(wait_for_epoll, OK(evloop_epoll_create(0)), evloop_epoll_release);
}

enum { ROUNDS = 500 };
static int64_t contested; /* atomic */

static void *release_all(void *argument) {
  int *released = (int *)argument;
  int64_t last = 0;
  while (last != -1) {
    int64_t handle = LOAD(contested);
    if (handle == last) continue;
    last = handle;
    int fd = handle > 0 ? tfd_release(handle) : -ESTALE;
    if (fd < 0) {
      CHECK_EQ(fd, -ESTALE);
      continue;
    }
    (*released)++;
    OK(close(fd));
  }
  return NULL;
}

/* One of several that close or release it does, and nothing is left open. */
TEST(a_timer_is_released_or_closed_once) {
  int released = 0, closed = 0, before = open_descriptors();
  pthread_t thread = start_thread(release_all, &released);
  for (int i = 0; i < ROUNDS; i++) {
    tfd_t t = OK(tfd_create(MONOTONIC, 0));
    STORE(contested, t);
    int result = tfd_close(t);
    if (result == 0) closed++;
    else CHECK_EQ(result, -ESTALE);
  }
  STORE(contested, -1);
  join(thread);
  CHECK_EQ(released + closed, ROUNDS);
  CHECK_EQ(open_descriptors(), before);
}

/* ---- loops ---- */

TEST(a_loop_that_watches_a_released_timer_reports_it) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t t = OK(tfd_create(MONOTONIC, 0));
  OK(evloop_add_tfd(loop, t, record, &seen));
  int fd = (int)OK(tfd_release(t));
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 0);
  CHECK_EQ(seen.errors, 1);
  CHECK_EQ(seen.last.result, -ESTALE);
  CHECK(is_open(fd));
}

/* ---- fork ---- */

TEST(a_child_may_release_its_timers_and_not_its_epolls) {
  tfd_t t = OK(tfd_create(MONOTONIC, 0));
  int64_t ep = OK(evloop_epoll_create(0));
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    int fd = tfd_fileno(t);
    CHECK_EQ(tfd_release(t), fd);
    CHECK_ERR(evloop_epoll_release(ep), ECHILD);
    CHECK_EQ(evloop_epoll_close(ep), 0);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK(tfd_release(t) >= 0);
  CHECK(evloop_epoll_release(ep) >= 0);
}

CHECK_MAIN()
