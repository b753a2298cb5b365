/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "kqueue_support.h"

evloop_kqueue_t new_kqueue(void) {
  return OK(evloop_kqueue_create(0));
}

Event change(uint64_t ident, int filter, int flags, uint32_t fflags,
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

int try_change(evloop_kqueue_t kq, uint64_t ident, int filter, int flags, uint32_t fflags,
               int64_t data, uint64_t udata) {
  Event one = change(ident, filter, flags, fflags, data, udata);
  return evloop_kqueue_control(kq, &one, 1, NULL, 0, 0);
}

void apply(evloop_kqueue_t kq, uint64_t ident, int filter, int flags, uint32_t fflags,
           int64_t data, uint64_t udata) {
  CHECK_EQ(try_change(kq, ident, filter, flags, fflags, data, udata), 0);
}

int take(evloop_kqueue_t kq, Event *events, int room, int64_t timeout_ns) {
  return evloop_kqueue_control(kq, NULL, 0, events, room, timeout_ns);
}

Event next_event(evloop_kqueue_t kq) {
  Event events[4];
  CHECK_EQ(take(kq, events, 4, -1), 1);
  return events[0];
}

Event expect_event(evloop_kqueue_t kq, uint64_t ident, int filter) {
  Event event = next_event(kq);
  CHECK_EQ(event.ident, ident);
  CHECK_EQ(event.filter, filter);
  return event;
}

void expect_nothing_yet(evloop_kqueue_t kq) {
  Event events[4];
  CHECK_EQ(take(kq, events, 4, 0), 0);
}

void expect_nothing(evloop_kqueue_t kq) {
  Event events[4];
  CHECK_EQ(take(kq, events, 4, 0), 0);
  CHECK(!readable((int)OK(evloop_kqueue_fileno(kq)), 0));
}

Filling use_up_descriptors(void) {
  Filling all;
  all.first = all.last = (int)OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
  while (all.last < 60) all.last = (int)OK(dup(all.first));
  set_limit((rlim_t)all.last + 1);
  CHECK_ERR(dup(all.first) < 0 ? -errno : 0, EMFILE);
  return all;
}

void give_back_descriptors(Filling all) {
  for (int fd = all.first; fd <= all.last; fd++) close(fd);
}

bool is_pending(evloop_kqueue_t kq) {
  return readable((int)OK(evloop_kqueue_fileno(kq)), 0);
}
