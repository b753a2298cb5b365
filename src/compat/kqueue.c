/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * libevloop-kqueue: BSD's names for the functions of libevloop. A library
 * of its own, since a program that has a kqueue() from elsewhere must be able
 * to use libevloop.
 */
#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L /* O_CLOEXEC */
#endif

#include <errno.h>
#include <evloop.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/event.h>

/* The two structures are one. */
#define SAME(member)                                                          \
  typedef char same_##member[offsetof(struct kevent, member) ==               \
                                     offsetof(evloop_kevent_t, member) &&     \
                                 sizeof(((struct kevent *)0)->member) ==      \
                                     sizeof(((evloop_kevent_t *)0)->member)   \
                             ? 1                                              \
                             : -1]
SAME(ident);
SAME(filter);
SAME(flags);
SAME(fflags);
SAME(data);
SAME(udata);
SAME(ext);

__attribute__((visibility("default"))) int kqueue(void) {
  return evloop_bsd_kqueue();
}

/* NetBSD's. The queue is close-on-exec in any case. */
__attribute__((visibility("default"))) int kqueue1(int flags) {
  int kq;
  if ((flags & ~(O_CLOEXEC | O_NONBLOCK)) != 0) {
    errno = EINVAL;
    return -1;
  }
  kq = evloop_bsd_kqueue();
  /* That cannot fail: the descriptor is there, and the flag is known. */
  if (kq >= 0 && (flags & O_NONBLOCK) != 0) fcntl(kq, F_SETFL, O_NONBLOCK);
  return kq;
}

typedef char same_cloexec[KQUEUE_CLOEXEC == EVLOOP_KQ_CLOEXEC ? 1 : -1];
typedef char same_cponfork[KQUEUE_CPONFORK == EVLOOP_KQ_CPONFORK ? 1 : -1];

/* FreeBSD's. */
__attribute__((visibility("default"))) int kqueuex(unsigned int flags) {
  return evloop_bsd_kqueue1(flags);
}

__attribute__((visibility("default"))) int
kevent(int kq, const struct kevent *changelist, int nchanges,
       struct kevent *eventlist, int nevents, const struct timespec *timeout) {
  return evloop_bsd_kevent(kq, (const evloop_kevent_t *)changelist, nchanges,
                           (evloop_kevent_t *)eventlist, nevents, timeout);
}
