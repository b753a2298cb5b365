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

evloop_kqueue_t new_kqueue(void);
Event change(uint64_t ident, int filter, int flags, uint32_t fflags, int64_t data, uint64_t udata);

/* Applies one change; its result. */
int try_change(evloop_kqueue_t kq, uint64_t ident, int filter, int flags, uint32_t fflags,
               int64_t data, uint64_t udata);
void apply(evloop_kqueue_t kq, uint64_t ident, int filter, int flags, uint32_t fflags,
           int64_t data, uint64_t udata);
int take(evloop_kqueue_t kq, Event *events, int room, int64_t timeout_ns);

/* The one event that a wait finds, waiting for it if need be. */
Event next_event(evloop_kqueue_t kq);
Event expect_event(evloop_kqueue_t kq, uint64_t ident, int filter);

/* No event now. Where the kernel does not notify, the queue looks again after a
 * while, and its descriptor may be readable for that. */
void expect_nothing_yet(evloop_kqueue_t kq);

/* No event now, and the descriptor says so too. */
void expect_nothing(evloop_kqueue_t kq);

/* Descriptors that leave none to others. */
typedef struct Filling {
  int first, last;
} Filling;

Filling use_up_descriptors(void);

/* All of them, or those that are left: checkers that run at exit need a few,
 * too, and cannot set the limit by a child then. */
void give_back_descriptors(Filling all);
bool is_pending(evloop_kqueue_t kq);

#endif
