/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* BSD's <sys/event.h>: its layout, its constants, its two functions. */

#define _GNU_SOURCE
#include "support.h"

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
  EQUAL(NOTE_FORK, NOTE_FORK);
  EQUAL(NOTE_EXEC, NOTE_EXEC);
  EQUAL(NOTE_PCTRLMASK, NOTE_PCTRLMASK);
  EQUAL(NOTE_PDATAMASK, NOTE_PDATAMASK);
  EQUAL(NOTE_TRACK, NOTE_TRACK);
  EQUAL(NOTE_TRACKERR, NOTE_TRACKERR);
  EQUAL(NOTE_CHILD, NOTE_CHILD);
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

CHECK_MAIN()
