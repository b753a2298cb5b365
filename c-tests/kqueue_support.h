/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of kqueues share. */
#ifndef KQUEUE_SUPPORT_H
#define KQUEUE_SUPPORT_H

#include "support.h"

#define KQ_READ EVLOOP_KQ_FILTER_READ
#define KQ_WRITE EVLOOP_KQ_FILTER_WRITE
#define KQ_TIMER EVLOOP_KQ_FILTER_TIMER
#define KQ_USER EVLOOP_KQ_FILTER_USER
#define ADD EVLOOP_KQ_EV_ADD
#define DELETE EVLOOP_KQ_EV_DELETE
#define ENABLE EVLOOP_KQ_EV_ENABLE
#define DISABLE EVLOOP_KQ_EV_DISABLE
#define ONESHOT EVLOOP_KQ_EV_ONESHOT
#define CLEAR EVLOOP_KQ_EV_CLEAR
#define RECEIPT EVLOOP_KQ_EV_RECEIPT
#define DISPATCH EVLOOP_KQ_EV_DISPATCH
#define KQ_ERROR EVLOOP_KQ_EV_ERROR
#define KQ_EOF EVLOOP_KQ_EV_EOF
#define TRIGGER EVLOOP_KQ_NOTE_TRIGGER

typedef evloop_kevent_t Event;

MAYBE_UNUSED static evloop_kqueue_t new_kqueue(void) {
  return OK(evloop_kqueue_create(0));
}

MAYBE_UNUSED static Event change(uint64_t ident, int filter, int flags, uint32_t fflags,
                                 int64_t data, uint64_t udata) {
  Event made;
  memset(&made, 0, sizeof made);
  made.ident = ident;
  made.filter = (int16_t)filter;
  made.flags = (uint16_t)flags;
  made.fflags = fflags;
  made.data = data;
  made.udata = udata;
  return made;
}

/* Applies one change; its result. */
MAYBE_UNUSED static int try_change(evloop_kqueue_t kq, uint64_t ident, int filter, int flags,
                                   uint32_t fflags, int64_t data, uint64_t udata) {
  Event one = change(ident, filter, flags, fflags, data, udata);
  return evloop_kqueue_control(kq, &one, 1, NULL, 0, 0);
}

MAYBE_UNUSED static void apply(evloop_kqueue_t kq, uint64_t ident, int filter, int flags,
                               uint32_t fflags, int64_t data, uint64_t udata) {
  CHECK_EQ(try_change(kq, ident, filter, flags, fflags, data, udata), 0);
}

MAYBE_UNUSED static int take(evloop_kqueue_t kq, Event *events, int room, int64_t timeout_ns) {
  return evloop_kqueue_control(kq, NULL, 0, events, room, timeout_ns);
}

/* The one event that a wait finds, waiting for it if need be. */
MAYBE_UNUSED static Event next_event(evloop_kqueue_t kq) {
  Event events[4];
  CHECK_EQ(take(kq, events, 4, -1), 1);
  return events[0];
}

MAYBE_UNUSED static Event expect_event(evloop_kqueue_t kq, uint64_t ident, int filter) {
  Event event = next_event(kq);
  CHECK_EQ(event.ident, ident);
  CHECK_EQ(event.filter, filter);
  return event;
}

/* No event now. Where the kernel does not notify, the queue looks again after a
 * while, and its descriptor may be readable for that. */
MAYBE_UNUSED static void expect_nothing_yet(evloop_kqueue_t kq) {
  Event events[4];
  CHECK_EQ(take(kq, events, 4, 0), 0);
}

/* No event now, and the descriptor says so too. */
MAYBE_UNUSED static void expect_nothing(evloop_kqueue_t kq) {
  Event events[4];
  CHECK_EQ(take(kq, events, 4, 0), 0);
  CHECK(!readable((int)OK(evloop_kqueue_fileno(kq)), 0));
}

/* Descriptors that leave none to others. */
typedef struct Filling {
  int first, last;
} Filling;

MAYBE_UNUSED static Filling use_up_descriptors(void) {
  Filling all;
  all.first = all.last = (int)OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
  while (all.last < 60) all.last = (int)OK(dup(all.first));
  set_limit((rlim_t)all.last + 1);
  CHECK_ERR(dup(all.first) < 0 ? -errno : 0, EMFILE);
  return all;
}

/* All of them, or those that are left: checkers that run at exit need a few,
 * too, and cannot set the limit by a child then. */
MAYBE_UNUSED static void give_back_descriptors(Filling all) {
  for (int fd = all.first; fd <= all.last; fd++) close(fd);
}

MAYBE_UNUSED static bool is_pending(evloop_kqueue_t kq) {
  return readable((int)OK(evloop_kqueue_fileno(kq)), 0);
}

#endif
