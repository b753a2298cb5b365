/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* BSD's <sys/event.h>: its layout, its constants, its functions. */

#define _GNU_SOURCE
#include "support.h"

#include <fcntl.h>
#include <sys/wait.h>

#include "../src/compat/kqueue.c"

#define EQUAL(name, other) CHECK_EQ((uint64_t)(name), (uint64_t)(EVLOOP_KQ_##other))

TEST(the_constants_are_the_librarys) {
  EQUAL(EVFILT_READ, FILTER_READ);
  EQUAL(EVFILT_WRITE, FILTER_WRITE);
  EQUAL(EVFILT_AIO, FILTER_AIO);
  EQUAL(EVFILT_VNODE, FILTER_VNODE);
  EQUAL(EVFILT_PROC, FILTER_PROC);
  EQUAL(EVFILT_SIGNAL, FILTER_SIGNAL);
  EQUAL(EVFILT_TIMER, FILTER_TIMER);
  EQUAL(EVFILT_FS, FILTER_FS);
  EQUAL(EVFILT_USER, FILTER_USER);
  EQUAL(EVFILT_EMPTY, FILTER_EMPTY);
  EQUAL(EVFILT_NETDEV, FILTER_NETDEV);
  EQUAL(EVFILT_EXCEPT, FILTER_EXCEPT);
  EQUAL(EV_ADD, EV_ADD);
  EQUAL(EV_DELETE, EV_DELETE);
  EQUAL(EV_ENABLE, EV_ENABLE);
  EQUAL(EV_DISABLE, EV_DISABLE);
  EQUAL(EV_ONESHOT, EV_ONESHOT);
  EQUAL(EV_CLEAR, EV_CLEAR);
  EQUAL(EV_RECEIPT, EV_RECEIPT);
  EQUAL(EV_DISPATCH, EV_DISPATCH);
  EQUAL(EV_FORCEONESHOT, EV_FORCEONESHOT);
  EQUAL(EV_KEEPUDATA, EV_KEEPUDATA);
  EQUAL(EV_UDATA_SPECIFIC, EV_UDATA_SPECIFIC);
  EQUAL(EV_SYSFLAGS, EV_SYSFLAGS);
  EQUAL(EV_DROP, EV_DROP);
  EQUAL(EV_FLAG1, EV_FLAG1);
  EQUAL(EV_FLAG2, EV_FLAG2);
  EQUAL(EV_ERROR, EV_ERROR);
  EQUAL(EV_EOF, EV_EOF);
  EQUAL(NOTE_LOWAT, NOTE_LOWAT);
  EQUAL(NOTE_FILE_POLL, NOTE_FILE_POLL);
  EQUAL(NOTE_DELETE, NOTE_DELETE);
  EQUAL(NOTE_WRITE, NOTE_WRITE);
  EQUAL(NOTE_EXTEND, NOTE_EXTEND);
  EQUAL(NOTE_ATTRIB, NOTE_ATTRIB);
  EQUAL(NOTE_LINK, NOTE_LINK);
  EQUAL(NOTE_RENAME, NOTE_RENAME);
  EQUAL(NOTE_REVOKE, NOTE_REVOKE);
  EQUAL(NOTE_OPEN, NOTE_OPEN);
  EQUAL(NOTE_CLOSE, NOTE_CLOSE);
  EQUAL(NOTE_CLOSE_WRITE, NOTE_CLOSE_WRITE);
  EQUAL(NOTE_READ, NOTE_READ);
  EQUAL(NOTE_EXIT, NOTE_EXIT);
  EQUAL(NOTE_EXITSTATUS, NOTE_EXITSTATUS);
  EQUAL(NOTE_FORK, NOTE_FORK);
  EQUAL(NOTE_EXEC, NOTE_EXEC);
  EQUAL(NOTE_PCTRLMASK, NOTE_PCTRLMASK);
  EQUAL(NOTE_PDATAMASK, NOTE_PDATAMASK);
  EQUAL(NOTE_TRACK, NOTE_TRACK);
  EQUAL(NOTE_TRACKERR, NOTE_TRACKERR);
  EQUAL(NOTE_CHILD, NOTE_CHILD);
  EQUAL(VQ_NOTRESP, VQ_NOTRESP);
  EQUAL(VQ_NEEDAUTH, VQ_NEEDAUTH);
  EQUAL(VQ_LOWDISK, VQ_LOWDISK);
  EQUAL(VQ_MOUNT, VQ_MOUNT);
  EQUAL(VQ_UNMOUNT, VQ_UNMOUNT);
  EQUAL(VQ_DEAD, VQ_DEAD);
  EQUAL(VQ_ASSIST, VQ_ASSIST);
  EQUAL(VQ_NOTRESPLOCK, VQ_NOTRESPLOCK);
  EQUAL(NOTE_LINKUP, NOTE_LINKUP);
  EQUAL(NOTE_LINKDOWN, NOTE_LINKDOWN);
  EQUAL(NOTE_LINKINV, NOTE_LINKINV);
  EQUAL(NOTE_SECONDS, NOTE_SECONDS);
  EQUAL(NOTE_MSECONDS, NOTE_MSECONDS);
  EQUAL(NOTE_USECONDS, NOTE_USECONDS);
  EQUAL(NOTE_NSECONDS, NOTE_NSECONDS);
  EQUAL(NOTE_ABSTIME, NOTE_ABSTIME);
  EQUAL(NOTE_FFNOP, NOTE_FFNOP);
  EQUAL(NOTE_FFAND, NOTE_FFAND);
  EQUAL(NOTE_FFOR, NOTE_FFOR);
  EQUAL(NOTE_FFCOPY, NOTE_FFCOPY);
  EQUAL(NOTE_FFCTRLMASK, NOTE_FFCTRLMASK);
  EQUAL(NOTE_FFLAGSMASK, NOTE_FFLAGSMASK);
  EQUAL(NOTE_TRIGGER, NOTE_TRIGGER);
}

TEST(the_structure_is_freebsds) {
  CHECK_EQ(sizeof(struct kevent), 64);
  CHECK_EQ(offsetof(struct kevent, filter), 8);
  CHECK_EQ(offsetof(struct kevent, flags), 10);
  CHECK_EQ(offsetof(struct kevent, fflags), 12);
  CHECK_EQ(offsetof(struct kevent, data), 16);
  CHECK_EQ(offsetof(struct kevent, udata), 24);
  CHECK_EQ(offsetof(struct kevent, ext), 32);
}

TEST(ev_set_sets_everything_and_evaluates_once) {
  struct kevent list[2], *next = list;
  memset(list, 0xff, sizeof list);
  EV_SET(next++, 5, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_FFCOPY | 3, -7, list);
  CHECK(next == list + 1);
  CHECK_EQ(list[0].ident, 5);
  CHECK_EQ(list[0].filter, EVFILT_USER);
  CHECK_EQ(list[0].flags, EV_ADD | EV_CLEAR);
  CHECK_EQ(list[0].fflags, NOTE_FFCOPY | 3);
  CHECK_EQ(list[0].data, -7);
  CHECK(list[0].udata == list);
  for (int i = 0; i < 4; i++) CHECK_EQ(list[0].ext[i], 0);
}

TEST(the_two_functions_work) {
  int kq = kqueue();
  struct kevent list[2];
  struct timespec none = {0, 0};
  CHECK(kq >= 0);
  Pipe p = new_pipe();
  EV_SET(&list[0], p.r, EVFILT_READ, EV_ADD, 0, 0, &p);
  CHECK_EQ(kevent(kq, list, 1, NULL, 0, NULL), 0);
  CHECK_EQ(kevent(kq, NULL, 0, list, 2, &none), 0);
  put(p.w);
  CHECK_EQ(kevent(kq, NULL, 0, list, 2, NULL), 1);
  CHECK_EQ(list[0].ident, p.r);
  CHECK(list[0].udata == &p);
  EV_SET(&list[0], p.w, EVFILT_READ, EV_DELETE, 0, 0, NULL);
  CHECK_EQ(kevent(kq, list, 1, NULL, 0, NULL), -1);
  CHECK_EQ(errno, ENOENT);
  OK(close(kq));
  CHECK_EQ(kevent(kq, NULL, 0, list, 2, &none), -1);
  CHECK_EQ(errno, EBADF);
}

/* ---- making queues with flags ---- */

#define CHECK_ERRNO(call, code) (errno = 0, CHECK_EQ(call, -1), CHECK_EQ(errno, code))

/* A user event that is triggered. */
static void trigger(int kq) {
  struct kevent one;
  EV_SET(&one, 1, EVFILT_USER, EV_ADD | EV_CLEAR, NOTE_TRIGGER, 0, NULL);
  CHECK_EQ(kevent(kq, &one, 1, NULL, 0, NULL), 0);
}

static int count(int kq) {
  static const struct timespec at_once = {0, 0};
  struct kevent one;
  return kevent(kq, NULL, 0, &one, 1, &at_once);
}

static void expect_works(int kq) {
  CHECK_EQ(OK(fcntl(kq, F_GETFD)) & FD_CLOEXEC, FD_CLOEXEC);
  trigger(kq);
  CHECK_EQ(count(kq), 1);
  CHECK_EQ(count(kq), 0);
}

TEST(kqueue1_takes_the_flags_of_netbsd) {
  static const int flags[] = {0, O_CLOEXEC, O_NONBLOCK, O_CLOEXEC | O_NONBLOCK};
  for (int i = 0; AT_ROW(i, flags); i++) {
    int kq = (int)OK(kqueue1(flags[i]));
    CHECK_EQ(OK(fcntl(kq, F_GETFL)) & O_NONBLOCK, flags[i] & O_NONBLOCK);
    expect_works(kq);
    OK(close(kq));
  }
  CHECK_ERRNO(kqueue1(O_APPEND), EINVAL);
  CHECK_ERRNO(kqueue1(O_CLOEXEC | 1), EINVAL);
  CHECK_ERRNO(kqueue1(-1), EINVAL);
}

/* In a forked child: its exit status is 0 if all is well. */
static int in_child(int kq, int is_copied) {
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    errno = 0;
    if (!is_copied) _exit(count(kq) == -1 && errno == EBADF ? 0 : 1);
    expect_works(kq);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  return status;
}

TEST(kqueuex_takes_the_flags_of_freebsd) {
  static const unsigned flags[] = {0, KQUEUE_CLOEXEC, KQUEUE_CPONFORK, KQUEUE_CLOEXEC | KQUEUE_CPONFORK};
  for (int i = 0; AT_ROW(i, flags); i++) {
    int kq = (int)OK(kqueuex(flags[i]));
    expect_works(kq);
    CHECK_EQ(in_child(kq, (flags[i] & KQUEUE_CPONFORK) != 0), 0);
    trigger(kq);
    CHECK_EQ(count(kq), 1);
    OK(close(kq));
  }
  CHECK_ERRNO(kqueuex(4), EINVAL);
  CHECK_ERRNO(kqueuex(~0u), EINVAL);
  CHECK_ERRNO(evloop_bsd_kqueue1(~0u), EINVAL);
}

/* The child's copy ends when it is closed, and leaves the parent's. */
TEST(a_copy_is_closed_like_any_queue) {
  int kq = (int)OK(kqueuex(KQUEUE_CPONFORK));
  trigger(kq);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(count(kq), 1);
    OK(close(kq));
    int next = (int)OK(kqueue());
    CHECK_EQ(next, kq);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_KQUEUE), 1);
    CHECK_EQ(count(next), 0);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(count(kq), 1);
  OK(close(kq));
}

CHECK_MAIN()
