/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * libevloop-kqueue: BSD's two names for two functions of libevloop. A library
 * of its own, since a program that has a kqueue() from elsewhere must be able
 * to use libevloop.
 */
#include <evloop.h>
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

__attribute__((visibility("default"))) int
kevent(int kq, const struct kevent *changelist, int nchanges,
       struct kevent *eventlist, int nevents, const struct timespec *timeout) {
  return evloop_bsd_kevent(kq, (const evloop_kevent_t *)changelist, nchanges,
                           (evloop_kevent_t *)eventlist, nevents, timeout);
}
