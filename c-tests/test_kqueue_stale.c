/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: descriptors that are closed, or used again, while they are
 * watched. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <sys/mman.h>
#include <sys/stat.h>

static void watch(evloop_kqueue_t kq, int fd, int filter, int flags, uint64_t udata) {
  apply(kq, (uint64_t)fd, filter, ADD | flags, 0, 0, udata);
}

/* Replaces the file at a descriptor with `other`. */
static void reuse(int fd, int other) {
  CHECK_EQ(dup2(other, fd), fd);
}

/* Whether nothing comes for a while, and the waits sleep. */
static bool is_silent(evloop_kqueue_t kq) {
  Event events[4];
  int64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  for (int i = 0; i < 3; i++) CHECK_EQ(take(kq, events, 4, 20 * MS), 0);
  return now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu < 40 * MS * slow_factor();
}

/* Nothing of what is gone, however often it is asked. What spins does so each
 * time; a machine that stands still now and then counts that as work. */
static void expect_silence(evloop_kqueue_t kq) {
  int tries = 1;
  while (!is_silent(kq)) CHECK(tries++ < 5);
  expect_nothing(kq);
}

TEST(closing_ends_the_watch) {
  static const int flags[] = {0, CLEAR, ONESHOT, DISPATCH, DISABLE};
  for (int i = 0; AT_ROW(i, flags); i++) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe p = new_pipe();
    watch(kq, p.r, KQ_READ, flags[i], 0);
    put(p.w);
    OK(close(p.r));
    expect_silence(kq);
    CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0), EBADF);
    CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, ENABLE, 0, 0, 0), EBADF);
    CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 0), EBADF);
  }
}

TEST(closing_with_a_duplicate_left_ends_the_watch_too) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe p = new_pipe();
    OK(dup(p.r));
    watch(kq, p.r, KQ_READ, flags, 0);
    put(p.w);
    OK(close(p.r));
    expect_silence(kq);
  }
}

TEST(a_descriptor_used_again_is_another_file) {
  static const int flags[] = {0, CLEAR, ONESHOT, DISPATCH, DISABLE};
  for (int i = 0; AT_ROW(i, flags); i++) {
    for (int duplicate = 0; duplicate < 2; duplicate++) {
      evloop_kqueue_t kq = new_kqueue();
      Pipe old = new_pipe(), fresh = new_pipe();
      watch(kq, old.r, KQ_READ, flags[i], 1);
      put(old.w);
      if (duplicate) OK(dup(old.r));
      reuse(old.r, fresh.r);
      expect_silence(kq);
      CHECK_ERR(try_change(kq, (uint64_t)old.r, KQ_READ, DELETE, 0, 0, 0), ENOENT);
      CHECK_ERR(try_change(kq, (uint64_t)old.r, KQ_READ, ENABLE, 0, 0, 0), ENOENT);
      watch(kq, old.r, KQ_READ, 0, 2);
      expect_silence(kq);
      CHECK_EQ(write(fresh.w, "abcde", 5), 5);
      Event event = expect_event(kq, (uint64_t)old.r, KQ_READ);
      CHECK_EQ(event.udata, 2);
      CHECK_EQ(event.data, 5);
      apply(kq, (uint64_t)old.r, KQ_READ, DELETE, 0, 0, 0);
      expect_silence(kq);
    }
  }
}

TEST(adding_replaces_a_watch_of_the_descriptor_before) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe old = new_pipe(), fresh = new_pipe();
    watch(kq, old.r, KQ_READ, flags, 1);
    watch(kq, old.r, KQ_READ, flags | EVLOOP_KQ_EV_UDATA_SPECIFIC, 3);
    OK(dup(old.r));
    put(old.w);
    reuse(old.r, fresh.r);
    watch(kq, old.r, KQ_READ, flags, 2);
    expect_silence(kq);
    CHECK_EQ(write(fresh.w, "ab", 2), 2);
    Event event = expect_event(kq, (uint64_t)old.r, KQ_READ);
    CHECK_EQ(event.udata, 2);
    CHECK_EQ(event.data, 2);
  }
}

TEST(the_new_file_at_a_descriptor_has_no_event_of_the_old_one) {
  /* The new descriptor is ready itself. */
  static const int flags[] = {0, CLEAR, ONESHOT, DISPATCH};
  for (int i = 0; AT_ROW(i, flags); i++) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe old = new_pipe(), fresh = new_pipe();
    watch(kq, old.r, KQ_READ, flags[i], 1);
    OK(dup(old.r));
    put(old.w);
    put(fresh.w);
    reuse(old.r, fresh.r);
    expect_silence(kq);
  }
}

TEST(the_new_file_at_the_descriptor_of_an_eventfd_neither) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    evloop_kqueue_t kq = new_kqueue();
    int old = event_fd(1), fresh = event_fd(1);
    watch(kq, old, KQ_READ, flags, 1);
    OK(dup(old));
    reuse(old, fresh);
    expect_silence(kq);
  }
}

TEST(a_descriptor_reused_for_a_regular_file_is_watched_again) {
  static const int first[] = {0, CLEAR, ONESHOT, DISPATCH}, second[] = {0, CLEAR};
  for (int i = 0; i < LENGTH(first) * LENGTH(second); i++) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe p = new_pipe();
    int file = regular_file();
    CHECK_EQ(pwrite(file, "abc", 3, 0), 3);
    CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
    watch(kq, p.r, KQ_READ, first[i / LENGTH(second)], 1);
    reuse(p.r, file);
    if (i % 3 == 0) CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0), ENOENT);
    watch(kq, p.r, KQ_READ, second[i % LENGTH(second)], 2);
    Event event = expect_event(kq, (uint64_t)p.r, KQ_READ);
    CHECK_EQ(event.udata, 2);
    CHECK_EQ(event.data, 3);
  }
}

static int local_socket(void) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  return pair[0];
}

static int pipe_to_read(void) {
  return new_pipe().r;
}

static int memory_file(void) {
  return (int)OK(memfd_create("stale", MFD_CLOEXEC));
}

static int counter(void) {
  return event_fd(0);
}

/* A filter that depends on the kind of file returns for a reused descriptor what
 * it returns for one that is new to the queue. */
TEST(sorts_of_what_was_closed_count_no_more) {
  static const struct {
    int filter;
    uint32_t fflags;
  } filters[] = {{EVLOOP_KQ_FILTER_VNODE, EVLOOP_KQ_NOTE_ATTRIB},
                 {EVLOOP_KQ_FILTER_EMPTY, 0},
                 {EVLOOP_KQ_FILTER_EXCEPT, EVLOOP_KQ_NOTE_OOB}};
  static const struct {
    int (*open)(void);
    int results[3];
  } sorts[] = {{local_socket, {-EINVAL, 0, 0}},
               {pipe_to_read, {-EINVAL, -EINVAL, -EINVAL}},
               {regular_file, {0, -EINVAL, -EINVAL}},
               {memory_file, {-ENOTSUP, -EINVAL, -EINVAL}},
               {counter, {-EINVAL, -EINVAL, -EINVAL}}};
  enum { SORTS = LENGTH(sorts), FILTERS = LENGTH(filters) };
  for (int i = 0; i < SORTS * SORTS * FILTERS * 2; i++) {
    int old = i % SORTS, fresh = i / SORTS % SORTS, at = i / SORTS / SORTS % FILTERS;
    bool duplicate = i >= SORTS * SORTS * FILTERS;
    evloop_kqueue_t kq = new_kqueue();
    int fd = sorts[old].open(), other = sorts[fresh].open(), copy = duplicate ? dup(fd) : -1;
    Event event;
    watch(kq, fd, KQ_READ, 0, 1);
    reuse(fd, other);
    int wanted = sorts[fresh].results[at];
    for (int times = 0; times < 2; times++) {
      Event one = change((uint64_t)fd, filters[at].filter, ADD | CLEAR, filters[at].fflags, 0, 2);
      CHECK_EQ(evloop_kqueue_control(kq, &one, 1, NULL, 0, 0), wanted);
    }
    /* What was watched before is gone. */
    CHECK_ERR(try_change(kq, (uint64_t)fd, KQ_READ, DELETE, 0, 0, 0), ENOENT);
    if (wanted == 0) apply(kq, (uint64_t)fd, filters[at].filter, DELETE, 0, 0, 0);
    CHECK_EQ(take(kq, &event, 1, 0), 0);
    OK(evloop_kqueue_close(kq));
    OK(close(fd));
    OK(close(other));
    if (duplicate) OK(close(copy));
  }
}

TEST(a_file_at_the_descriptor_of_a_socket_is_watched_for_changes) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = local_socket(), file = regular_file();
  watch(kq, fd, KQ_READ, 0, 1);
  OK(close(fd));
  CHECK_ERR(try_change(kq, (uint64_t)fd, EVLOOP_KQ_FILTER_VNODE, ADD, 0, 0, 0), EBADF);
  reuse(fd, file);
  apply(kq, (uint64_t)fd, EVLOOP_KQ_FILTER_VNODE, ADD | CLEAR, EVLOOP_KQ_NOTE_WRITE, 0, 2);
  CHECK_EQ(write(file, "a", 1), 1);
  Event event = expect_event(kq, (uint64_t)fd, EVLOOP_KQ_FILTER_VNODE);
  CHECK_EQ(event.udata, 2);
  CHECK(event.fflags & EVLOOP_KQ_NOTE_WRITE);
  expect_silence(kq);
}

TEST(the_descriptor_of_a_file_that_is_another_files_is_silent) {
  int others[] = {regular_file(), (int)OK(open("/dev/zero", O_RDONLY))};
  CHECK_EQ(pwrite(others[0], "other", 5, 0), 5);
  CHECK_EQ(lseek(others[0], 0, SEEK_SET), 0);
  for (int i = 0; AT_ROW(i, others); i++) {
    evloop_kqueue_t kq = new_kqueue();
    int file = i == 0 ? regular_file() : (int)OK(open("/dev/null", O_RDONLY));
    CHECK(i > 0 || pwrite(file, "a", 1, 0) == 1);
    watch(kq, file, KQ_READ, 0, 1);
    reuse(file, others[i]);
    expect_silence(kq);
  }
}

TEST(kinds_of_files_are_distinguished_at_once) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  const int others[] = {pair[0], regular_file(), (int)OK(open("/dev/null", O_RDWR)), event_fd(1)};
  for (int i = 0; AT_ROW(i, others); i++) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe old = new_pipe();
    Event event;
    watch(kq, old.r, KQ_READ, 0, 1);
    OK(dup(old.r));
    put(old.w);
    reuse(old.r, others[i]);
    CHECK_EQ(take(kq, &event, 1, 0), 0);
    expect_silence(kq);
  }
}

TEST(many_leftovers_do_not_pile_up) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe ready = new_pipe();
  set_limit(4000);
  for (int i = 0; i < 500; i++) {
    int fd = (int)OK(dup(ready.r));
    watch(kq, fd, KQ_READ, 0, 0);
    OK(close(fd));
  }
  put(ready.w);
  expect_silence(kq);
  watch(kq, ready.r, KQ_READ, 0, 5);
  CHECK_EQ(expect_event(kq, (uint64_t)ready.r, KQ_READ).udata, 5);
}

TEST(what_else_is_watched_survives) {
  /* Leftover registrations make the queue rebuild its epoll set. */
  evloop_kqueue_t kq = new_kqueue();
  Pipe level = new_pipe(), edge = new_pipe(), leftover = new_pipe();
  Event events[8];
  int file = regular_file();
  watch(kq, level.r, KQ_READ, 0, 1);
  watch(kq, edge.r, KQ_READ, CLEAR, 2);
  watch(kq, edge.w, KQ_WRITE, CLEAR, 3);
  watch(kq, file, KQ_READ, 0, 4);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, EVLOOP_KQ_NOTE_SECONDS, 1000, 5);
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 6);
  CHECK_EQ(take(kq, events, 8, 0), 1);
  for (int i = 0; i < 60; i++) {
    int fd = (int)OK(dup(leftover.r));
    watch(kq, fd, KQ_READ, 0, 0);
    OK(close(fd));
  }
  put(leftover.w);
  for (int i = 0; i < 5; i++) CHECK(OK(take(kq, events, 8, MS)) <= 1);
  expect_nothing(kq);
  put(level.w);
  CHECK_EQ(expect_event(kq, (uint64_t)level.r, KQ_READ).udata, 1);
  apply(kq, (uint64_t)level.r, KQ_READ, DISABLE, 0, 0, 1);
  put(edge.w);
  CHECK_EQ(expect_event(kq, (uint64_t)edge.r, KQ_READ).udata, 2);
  expect_nothing(kq);
  CHECK_EQ(pwrite(file, "x", 1, 0), 1);
  CHECK_EQ(expect_event(kq, (uint64_t)file, KQ_READ).udata, 4);
  apply(kq, (uint64_t)file, KQ_READ, DELETE, 0, 0, 0);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 6);
  CHECK_EQ(expect_event(kq, 1, KQ_USER).udata, 6);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 1, 5);
  CHECK_EQ(expect_event(kq, 1, KQ_TIMER).udata, 5);
  expect_nothing(kq);
}

static evloop_kqueue_t shared_kq;
static pid_t waiting_tid;

static void *wait_for_user(void *argument) {
  (void)argument;
  store_tid(&waiting_tid);
  Event event = expect_event(shared_kq, 1, KQ_USER);
  CHECK_EQ(event.udata, 6);
  return NULL;
}

/* Nothing happened to what has edges; but what does is not lost. */
TEST(edges_do_not_come_again_when_leftovers_are_dropped) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe reported = new_pipe(), news = new_pipe();
  int ends[2];
  Event events[100];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends));
  put(reported.w);
  put(ends[1]);
  watch(kq, reported.r, KQ_READ, CLEAR, 0);
  watch(kq, ends[0], KQ_READ, CLEAR, 0);
  watch(kq, ends[0], KQ_WRITE, CLEAR, 0);
  watch(kq, news.r, KQ_READ, CLEAR, 0);
  CHECK_EQ(take(kq, events, 100, 0), 3);
  for (int i = 0; i < 100; i++) {
    Pipe p = new_pipe();
    put(p.w);
    watch(kq, p.r, KQ_READ, 0, 0);
    OK(dup(p.r));
    OK(close(p.r));
    if (i % 10 == 0) put(news.w);
    int count = take(kq, events, 100, 0);
    CHECK_EQ(count, i % 10 == 0);
    if (count > 0) CHECK_EQ(events[0].ident, news.r);
  }
}

TEST(an_edge_behind_many_leftovers_is_not_lost) {
  enum { N = 400 };
  evloop_kqueue_t kq = new_kqueue();
  Pipe level = new_pipe(), edge = new_pipe();
  int fds[N], seen = 0;
  set_limit(4 * N);
  for (int i = 0; i < N; i++) {
    fds[i] = event_fd(1);
    OK(dup(fds[i]));
    watch(kq, fds[i], KQ_READ, 0, 0);
  }
  put(level.w);
  watch(kq, level.r, KQ_READ, 0, 0);
  put(edge.w);
  watch(kq, edge.r, KQ_READ, CLEAR, 0);
  for (int i = 0; i < N; i++) OK(close(fds[i]));
  for (int i = 0; i < 50; i++) {
    Event event;
    CHECK_EQ(take(kq, &event, 1, -1), 1);
    seen += event.ident == (uint64_t)edge.r;
  }
  CHECK_EQ(seen, 1);
}

TEST(threads_that_wait_move_to_the_new_set) {
  pthread_t threads[3];
  Pipe leftover = new_pipe();
  shared_kq = new_kqueue();
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, wait_for_user, NULL), 0);
    wait_until_asleep(&waiting_tid);
    waiting_tid = 0;
  }
  for (int i = 0; i < 60; i++) {
    int fd = (int)OK(dup(leftover.r));
    watch(shared_kq, fd, KQ_READ, 0, 0);
    OK(close(fd));
  }
  put(leftover.w);
  while (is_pending(shared_kq)) sched_yield();
  for (int i = 0; i < 3; i++) {
    apply(shared_kq, 1, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 6);
    while (is_pending(shared_kq)) sched_yield();
  }
  /* A trigger may have been seen together with another. */
  for (int i = 0; i < 3; i++) {
    while (pthread_tryjoin_np(threads[i], NULL) != 0) {
      apply(shared_kq, 1, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 6);
      sched_yield();
    }
  }
}

TEST(a_duplicate_that_comes_back_to_its_descriptor_is_the_same) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  int copy = (int)OK(dup(p.r));
  watch(kq, p.r, KQ_READ, 0, 1);
  OK(close(p.r));
  CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, ENABLE, 0, 0, 0), EBADF);
  CHECK_EQ(dup2(copy, p.r), p.r);
  watch(kq, p.r, KQ_READ, 0, 2);
  put(p.w);
  CHECK_EQ(expect_event(kq, (uint64_t)p.r, KQ_READ).udata, 2);
  apply(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0);
  expect_silence(kq);
}

TEST(a_closed_file_is_forgotten) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = regular_file(), copy = (int)OK(dup(fd));
  CHECK_EQ(write(fd, "abc", 3), 3);
  OK(lseek(fd, 0, SEEK_SET));
  watch(kq, fd, KQ_READ, 0, 1);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, KQ_READ).data, 3);
  OK(close(fd));
  expect_silence(kq);
  CHECK_EQ(pwrite(copy, "x", 1, 3), 1);
  expect_silence(kq);
  CHECK_ERR(try_change(kq, (uint64_t)fd, KQ_READ, DELETE, 0, 0, 0), EBADF);
}

TEST(a_file_used_again_is_another) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = regular_file(), other = regular_file();
  CHECK_EQ(write(other, "abc", 3), 3);
  OK(lseek(other, 0, SEEK_SET));
  watch(kq, fd, KQ_READ, 0, 1);
  expect_nothing(kq);
  reuse(fd, other);
  CHECK_ERR(try_change(kq, (uint64_t)fd, KQ_READ, ENABLE, 0, 0, 0), ENOENT);
  expect_silence(kq);
  watch(kq, fd, KQ_READ, 0, 2);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, KQ_READ).udata, 2);
}

TEST(writers_too) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  OK(dup(p.w));
  watch(kq, p.w, KQ_WRITE, 0, 1);
  expect_event(kq, (uint64_t)p.w, KQ_WRITE);
  OK(close(p.w));
  expect_silence(kq);
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  watch(kq, pair[0], KQ_WRITE, 0, 1);
  watch(kq, pair[0], KQ_READ, CLEAR, 2);
  OK(dup(pair[0]));
  OK(close(pair[0]));
  put(pair[1]);
  expect_silence(kq);
}

CHECK_MAIN()
