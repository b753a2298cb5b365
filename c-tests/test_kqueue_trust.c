/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues whose program promises to delete before it closes a descriptor that
 * has duplicates: EVLOOP_KQ_TRUST_FDS. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#include <sys/epoll.h>

static evloop_kqueue_t trusting_kqueue(void) {
  return OK(evloop_kqueue_create(EVLOOP_KQ_TRUST_FDS));
}

static void watch(evloop_kqueue_t kq, int fd, int filter, int flags, uint64_t udata) {
  apply(kq, (uint64_t)fd, filter, ADD | flags, 0, 0, udata);
}

static const int ways[] = {0, CLEAR, ONESHOT, DISPATCH};

TEST(the_flag_goes_with_the_others_and_no_unknown_one) {
  OK(evloop_kqueue_create(EVLOOP_KQ_TRUST_FDS | EVLOOP_KQ_CLOEXEC | EVLOOP_KQ_CPONFORK));
  CHECK_ERR(evloop_kqueue_create(EVLOOP_KQ_TRUST_FDS | 0x4), EINVAL);
  CHECK_ERR(evloop_kqueue_create(EVLOOP_KQ_TRUST_FDS << 1), EINVAL);
  CHECK_ERR(evloop_kqueue_from_fd(OK(evloop_kqueue_fileno(trusting_kqueue())), EVLOOP_KQ_TRUST_FDS),
            EINVAL);
}

/* ---- what it saves ---- */

/* To check that an event belongs to the file that a descriptor has now, the
 * library calls EPOLL_CTL_ADD, which fails with EEXIST if it does. From now on it
 * fails with EBADF, as for a closed descriptor. */
static void make_no_descriptor_known(void) {
  answer_call_of(SYS_epoll_ctl, EPOLL_CTL_ADD, EBADF);
}

/* valgrind knows no filters of system calls. */
TEST_WITHOUT_VALGRIND(the_kernel_is_not_asked_whose_an_event_is, 20) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    pid_t child = (pid_t)OK(fork());
    if (child > 0) {
      int status;
      CHECK_EQ(waitpid(child, &status, 0), child);
      if (status == CHECK_SKIPPED << 8) SKIP("no filters of system calls here");
      CHECK_EQ(status, 0);
      continue;
    }
    evloop_kqueue_t trusting = trusting_kqueue(), other = new_kqueue();
    Pipe p = new_pipe();
    Event event;
    watch(trusting, p.r, KQ_READ, ways[i], 1);
    watch(trusting, p.w, KQ_WRITE, ways[i], 2);
    watch(other, p.r, KQ_READ, ways[i], 3);
    CHECK_EQ(expect_event(trusting, (uint64_t)p.w, KQ_WRITE).udata, 2);
    if (ways[i] != ONESHOT) apply(trusting, (uint64_t)p.w, KQ_WRITE, DELETE, 0, 0, 0);
    make_no_descriptor_known();
    put(p.w);
    CHECK_EQ(take(other, &event, 1, 0), 0);
    Event seen = expect_event(trusting, (uint64_t)p.r, KQ_READ);
    CHECK_EQ(seen.udata, 1);
    CHECK_EQ(seen.data, 1);
    _exit(0);
  }
}

/* ---- what stays ---- */

TEST(events_are_as_without_the_flag) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    evloop_kqueue_t kq = trusting_kqueue();
    Pipe p = new_pipe();
    char text[8];
    watch(kq, p.r, KQ_READ, ways[i], 1);
    expect_nothing(kq);
    CHECK_EQ(write(p.w, "abc", 3), 3);
    Event event = expect_event(kq, (uint64_t)p.r, KQ_READ);
    CHECK_EQ(event.data, 3);
    CHECK_EQ(event.udata, 1);
    if (ways[i] == 0) CHECK_EQ(expect_event(kq, (uint64_t)p.r, KQ_READ).data, 3);
    else expect_nothing(kq);
    CHECK_EQ(read(p.r, text, sizeof text), 3);
    if (ways[i] == DISPATCH) apply(kq, (uint64_t)p.r, KQ_READ, ENABLE, 0, 0, 1);
    if (ways[i] == ONESHOT) watch(kq, p.r, KQ_READ, ONESHOT, 1);
    expect_nothing(kq);
    OK(close(p.w));
    CHECK(expect_event(kq, (uint64_t)p.r, KQ_READ).flags & KQ_EOF);
  }
}

TEST(what_has_no_duplicate_may_be_closed_as_it_is) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    evloop_kqueue_t kq = trusting_kqueue();
    Pipe p = new_pipe();
    watch(kq, p.r, KQ_READ, ways[i], 0);
    put(p.w);
    OK(close(p.r));
    expect_nothing(kq);
    CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0), EBADF);
    CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 0), EBADF);
  }
}

/* The new file at a reused descriptor, which is ready, is watched only after it
 * is added. */
TEST(a_descriptor_that_is_used_again_is_another_files) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    for (int deleted = 0; deleted < 2; deleted++) {
      evloop_kqueue_t kq = trusting_kqueue();
      Pipe old = new_pipe(), fresh = new_pipe();
      watch(kq, old.r, KQ_READ, ways[i], 1);
      put(old.w);
      if (deleted) {
        OK(dup(old.r));
        apply(kq, (uint64_t)old.r, KQ_READ, DELETE, 0, 0, 0);
      }
      put(fresh.w);
      put(fresh.w);
      CHECK_EQ(dup2(fresh.r, old.r), old.r);
      expect_nothing(kq);
      CHECK_ERR(try_change(kq, (uint64_t)old.r, KQ_READ, ENABLE, 0, 0, 0), ENOENT);
      watch(kq, old.r, KQ_READ, ways[i], 2);
      Event event = expect_event(kq, (uint64_t)old.r, KQ_READ);
      CHECK_EQ(event.udata, 2);
      CHECK_EQ(event.data, 2);
    }
  }
}

/* Events that did not fit in the caller's array wait in the queue. When they are
 * taken, the queue checks that the descriptor still has the same file. */
TEST(an_event_that_waited_is_not_that_of_a_descriptors_new_file) {
  evloop_kqueue_t kq = trusting_kqueue();
  Pipe first = new_pipe(), second = new_pipe(), fresh = new_pipe();
  Event event;
  watch(kq, first.r, KQ_READ, CLEAR, 1);
  watch(kq, first.r, KQ_READ, CLEAR | EVLOOP_KQ_EV_UDATA_SPECIFIC, 2);
  watch(kq, second.r, KQ_READ, CLEAR, 3);
  put(first.w);
  CHECK_EQ(take(kq, &event, 1, 0), 1);
  CHECK_EQ(event.ident, first.r);
  put(fresh.w);
  CHECK_EQ(dup2(fresh.r, first.r), first.r);
  expect_nothing(kq);
  put(second.w);
  CHECK_EQ(expect_event(kq, (uint64_t)second.r, KQ_READ).udata, 3);
}

TEST(the_descriptor_of_a_file_that_is_another_files_is_silent) {
  evloop_kqueue_t kq = trusting_kqueue();
  int file = regular_file(), other = regular_file();
  CHECK_EQ(pwrite(file, "ab", 2, 0), 2);
  CHECK_EQ(pwrite(other, "abc", 3, 0), 3);
  watch(kq, file, KQ_READ, 0, 1);
  CHECK_EQ(expect_event(kq, (uint64_t)file, KQ_READ).data, 2);
  CHECK_EQ(dup2(other, file), file);
  expect_nothing(kq);
  watch(kq, file, KQ_READ, 0, 2);
  CHECK_EQ(expect_event(kq, (uint64_t)file, KQ_READ).data, 3);
}

TEST(a_forked_child_has_a_queue_that_trusts_it) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(EVLOOP_KQ_TRUST_FDS | EVLOOP_KQ_CPONFORK));
  Pipe p = new_pipe();
  int status;
  watch(kq, p.r, KQ_READ, 0, 1);
  put(p.w);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(expect_event(kq, (uint64_t)p.r, KQ_READ).udata, 1);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(expect_event(kq, (uint64_t)p.r, KQ_READ).udata, 1);
}

/* ---- BSD's calls ---- */

TEST(the_bsd_pair_uses_such_a_queue_by_its_descriptor) {
  static const struct timespec none = {0, 0};
  evloop_kqueue_t kq = trusting_kqueue();
  int number = (int)OK(evloop_kqueue_fileno(kq));
  Pipe p = new_pipe();
  Event list[2] = {change((uint64_t)p.r, KQ_READ, ADD, 0, 0, 7)};
  CHECK_EQ(evloop_bsd_kevent(number, list, 1, list, 2, &none), 0);
  put(p.w);
  CHECK_EQ(evloop_bsd_kevent(number, NULL, 0, list, 2, NULL), 1);
  CHECK_EQ(list[0].ident, p.r);
  CHECK_EQ(list[0].udata, 7);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK_EQ(evloop_bsd_kevent(number, NULL, 0, list, 2, &none), -1);
}

CHECK_MAIN()
