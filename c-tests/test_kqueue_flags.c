/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: what each flag of a change does, to every filter. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#define SPECIFIC EVLOOP_KQ_EV_UDATA_SPECIFIC
#define KEEPUDATA EVLOOP_KQ_EV_KEEPUDATA

/* A descriptor that is readable, or not, as often as it is asked. */
static int ready_fd(void) {
  return event_fd(1);
}

/* ---- ADD ---- */

TEST(adding_again_changes_udata_and_fflags) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  uint64_t fd = (uint64_t)p.r;
  put(p.w);
  apply(kq, fd, KQ_READ, ADD, 0, 0, 1);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 1);
  apply(kq, fd, KQ_READ, ADD, 0, 0, 2);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 2);
  apply(kq, fd, KQ_READ, ADD, EVLOOP_KQ_NOTE_LOWAT, 2, 2);
  expect_nothing(kq);
  put(p.w);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).data, 2);
  apply(kq, fd, KQ_READ, ADD, 0, 0, 3);
  expect_event(kq, fd, KQ_READ);
}

/* An ident of each filter, which has an event as often as it is asked. */
static uint64_t ready_ident(int filter) {
  switch (filter) {
    case KQ_READ:
    case KQ_WRITE: return (uint64_t)ready_fd();
    case EVLOOP_KQ_FILTER_EMPTY: {
      int pair[2];
      OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
      return (uint64_t)pair[0];
    }
    case EVLOOP_KQ_FILTER_EXCEPT: {
      int pair[2];
      tcp_pair(pair);
      OK(shutdown(pair[1], SHUT_WR));
      CHECK(readable(pair[0], -1));
      return (uint64_t)pair[0];
    }
    default: return 1;
  }
}

static const struct {
  int filter;
  uint32_t fflags;
  int64_t data;
} ready_filters[] = {
  {KQ_READ, 0, 0},
  {KQ_WRITE, 0, 0},
  {EVLOOP_KQ_FILTER_EMPTY, 0, 0},
  {EVLOOP_KQ_FILTER_EXCEPT, 0, 0},
  {KQ_USER, TRIGGER, 0},
  {KQ_TIMER, EVLOOP_KQ_NOTE_ABSTIME | EVLOOP_KQ_NOTE_SECONDS, 1},
};

/* Whether there is an event after the first one. That depends on a knote's own
 * flags, not on those of a later change. */
static bool comes_again(int flags) {
  return (flags & (ONESHOT | CLEAR | DISPATCH)) == 0;
}

TEST(adding_again_leaves_the_flags_as_they_were) {
  static const int flags[] = {0, ONESHOT, CLEAR, DISPATCH, ONESHOT | CLEAR, CLEAR | DISPATCH};
  for (int f = 0; AT_ROW(f, ready_filters); f++) {
    for (int first = 0; AT_ROW(first, flags); first++) {
      for (int then = 0; AT_ROW(then, flags); then++) {
        int filter = ready_filters[f].filter, clear = filter == KQ_USER ? flags[then] & CLEAR : 0;
        uint32_t fflags = ready_filters[f].fflags;
        int64_t data = ready_filters[f].data;
        evloop_kqueue_t kq = new_kqueue();
        uint64_t ident = ready_ident(filter);
        Event event;
        apply(kq, ident, filter, ADD | flags[first], fflags, data, 1);
        apply(kq, ident, filter, ADD | (flags[then] & ~clear), fflags, data, 2);
        event = expect_event(kq, ident, filter);
        CHECK_EQ(event.flags & ~KQ_EOF, flags[first]);
        CHECK_EQ(event.udata, 2);
        if (comes_again(flags[first])) expect_event(kq, ident, filter);
        else expect_nothing(kq);
        OK(evloop_kqueue_close(kq));
        if (ident != 1) OK(close((int)ident));
      }
    }
  }
}

TEST(the_flag_of_a_receipt_is_kept_and_a_receipt_is_asked_for_each_time) {
  evloop_kqueue_t kq = new_kqueue();
  Event one = change(1, KQ_USER, ADD | RECEIPT, TRIGGER, 0, 0), receipt;
  CHECK_EQ(evloop_kqueue_control(kq, &one, 1, &receipt, 1, 0), 1);
  CHECK_EQ(receipt.flags & KQ_ERROR, KQ_ERROR);
  CHECK_EQ(expect_event(kq, 1, KQ_USER).flags, RECEIPT);
  /* Without the flag there is no receipt, and the events have it all the same. */
  apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_USER).flags, RECEIPT);
}

TEST(adding_again_enables_a_dispatched_knote) {
  for (int f = 0; AT_ROW(f, ready_filters); f++) {
    evloop_kqueue_t kq = new_kqueue();
    int filter = ready_filters[f].filter;
    uint64_t ident = ready_ident(filter);
    for (int i = 0; i < 3; i++) {
      apply(kq, ident, filter, ADD | DISPATCH, ready_filters[f].fflags, ready_filters[f].data, 1);
      expect_event(kq, ident, filter);
      expect_nothing(kq);
    }
    apply(kq, ident, filter, ADD | DISABLE, ready_filters[f].fflags, ready_filters[f].data, 1);
    expect_nothing(kq);
  }
}

TEST(adding_again_makes_one_knote_not_two) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  apply(kq, fd, KQ_READ, ADD, 0, 0, 1);
  apply(kq, fd, KQ_READ, ADD, 0, 0, 1);
  expect_event(kq, fd, KQ_READ);
  apply(kq, fd, KQ_READ, DELETE, 0, 0, 0);
  expect_nothing(kq);
}

TEST(read_and_write_are_two) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  Event events[4];
  apply(kq, fd, KQ_READ, ADD, 0, 0, 1);
  apply(kq, fd, KQ_WRITE, ADD, 0, 0, 2);
  CHECK_EQ(take(kq, events, 4, 0), 2);
  CHECK(events[0].filter != events[1].filter);
  apply(kq, fd, KQ_READ, DELETE, 0, 0, 0);
  CHECK_EQ(expect_event(kq, fd, KQ_WRITE).udata, 2);
}

TEST(ext_comes_back) {
  evloop_kqueue_t kq = new_kqueue();
  Event one = change(1, KQ_USER, ADD, TRIGGER, 0, 0);
  for (int i = 0; i < 4; i++) one.ext[i] = 10 + (uint64_t)i;
  CHECK_EQ(evloop_kqueue_control(kq, &one, 1, NULL, 0, 0), 0);
  Event event = expect_event(kq, 1, KQ_USER);
  for (int i = 0; i < 4; i++) CHECK_EQ(event.ext[i], 10 + i);
  memset(one.ext, 0, sizeof one.ext);
  CHECK_EQ(evloop_kqueue_control(kq, &one, 1, NULL, 0, 0), 0);
  CHECK_EQ(expect_event(kq, 1, KQ_USER).ext[2], 0);
}

/* ---- DISABLE and ENABLE ---- */

TEST(a_disabled_knote_delivers_nothing_and_forgets_nothing) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  uint64_t fd = (uint64_t)p.r;
  apply(kq, fd, KQ_READ, ADD, 0, 0, 0);
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 0);
  apply(kq, fd, KQ_READ, DISABLE, 0, 0, 0);
  apply(kq, 1, KQ_USER, DISABLE, 0, 0, 0);
  put(p.w);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  expect_nothing(kq);
  apply(kq, fd, KQ_READ, ENABLE, 0, 0, 0);
  expect_event(kq, fd, KQ_READ);
  apply(kq, fd, KQ_READ, DISABLE, 0, 0, 0);
  apply(kq, 1, KQ_USER, ENABLE, 0, 0, 0);
  expect_event(kq, 1, KQ_USER);
  expect_nothing(kq);
}

TEST(added_disabled_it_never_fires_in_between) {
  for (int i = 0; i < 200; i++) {
    evloop_kqueue_t kq = new_kqueue();
    uint64_t fd = (uint64_t)ready_fd();
    apply(kq, fd, KQ_READ, ADD | DISABLE, 0, 0, 0);
    apply(kq, fd, KQ_WRITE, ADD | DISABLE | CLEAR, 0, 0, 0);
    apply(kq, 1, KQ_TIMER, ADD | DISABLE, EVLOOP_KQ_NOTE_NSECONDS, 1, 0);
    apply(kq, 2, KQ_USER, ADD | DISABLE, TRIGGER, 0, 0);
    expect_nothing(kq);
    apply(kq, 2, KQ_USER, ENABLE, 0, 0, 0);
    expect_event(kq, 2, KQ_USER);
    apply(kq, 2, KQ_USER, DISABLE, 0, 0, 0);
    apply(kq, fd, KQ_WRITE, ENABLE, 0, 0, 0);
    expect_event(kq, fd, KQ_WRITE);
    apply(kq, 1, KQ_TIMER, ENABLE, 0, 0, 0);
    expect_event(kq, 1, KQ_TIMER);
    apply(kq, 1, KQ_TIMER, DISABLE, 0, 0, 0);
    apply(kq, fd, KQ_READ, ENABLE, 0, 0, 0);
    expect_event(kq, fd, KQ_READ);
    close((int)fd);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
  }
}

TEST(disabling_and_enabling_twice_is_no_error) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  static const int filters[] = {KQ_READ, KQ_WRITE, KQ_USER, KQ_TIMER};
  for (int i = 0; AT_ROW(i, filters); i++) {
    apply(kq, fd, filters[i], ADD, TRIGGER * (filters[i] == KQ_USER), 0, 0);
    apply(kq, fd, filters[i], ENABLE, 0, 0, 0);
    apply(kq, fd, filters[i], ADD | ENABLE, TRIGGER * (filters[i] == KQ_USER), 0, 0);
    expect_event(kq, fd, filters[i]);
    apply(kq, fd, filters[i], DISABLE, 0, 0, 0);
    apply(kq, fd, filters[i], DISABLE, 0, 0, 0);
    expect_nothing(kq);
    apply(kq, fd, filters[i], DELETE, 0, 0, 0);
  }
}

TEST(adding_enables_unless_it_disables) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  apply(kq, fd, KQ_READ, ADD | DISABLE, 0, 0, 0);
  expect_nothing(kq);
  apply(kq, fd, KQ_READ, ADD | DISABLE, 0, 0, 0);
  expect_nothing(kq);
  apply(kq, fd, KQ_READ, ADD, 0, 0, 0);
  expect_event(kq, fd, KQ_READ);
  CHECK_ERR(try_change(kq, fd, KQ_READ, ADD | ENABLE | DISABLE, 0, 0, 0), EINVAL);
}

TEST(a_descriptor_hung_up_does_not_wake_for_a_disabled_knote) {
  evloop_kqueue_t kq = new_kqueue();
  int pair[2];
  Event event;
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  apply(kq, (uint64_t)pair[0], KQ_READ, ADD | DISABLE, 0, 0, 0);
  OK(close(pair[1]));
  int64_t began = now_ns(CLOCK_MONOTONIC), cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  CHECK_EQ(take(kq, &event, 1, 50 * MS), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - began >= 50 * MS);
  CHECK(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu < 40 * MS * slow_factor());
  expect_nothing(kq);
}

/* ---- ONESHOT, DISPATCH, CLEAR ---- */

TEST(oneshot_is_deleted_by_its_event) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  static const int filters[] = {KQ_READ, KQ_WRITE, KQ_USER, KQ_TIMER};
  for (int i = 0; AT_ROW(i, filters); i++) {
    apply(kq, fd, filters[i], ADD | ONESHOT, TRIGGER * (filters[i] == KQ_USER), 0, 0);
    CHECK(expect_event(kq, fd, filters[i]).flags & ONESHOT);
    expect_nothing(kq);
    CHECK_ERR(try_change(kq, fd, filters[i], ENABLE, 0, 0, 0), ENOENT);
  }
}

TEST(dispatch_disables_until_enabled) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  static const int filters[] = {KQ_READ, KQ_WRITE, KQ_USER, KQ_TIMER};
  for (int i = 0; AT_ROW(i, filters); i++) {
    apply(kq, fd, filters[i], ADD | DISPATCH, TRIGGER * (filters[i] == KQ_USER), 1, 0);
    for (int j = 0; j < 3; j++) {
      CHECK(expect_event(kq, fd, filters[i]).flags & DISPATCH);
      expect_nothing(kq);
      apply(kq, fd, filters[i], ENABLE, 0, 0, 0);
    }
    expect_event(kq, fd, filters[i]);
    apply(kq, fd, filters[i], DELETE, 0, 0, 0);
  }
}

TEST(oneshot_and_dispatch_together_are_oneshot) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  apply(kq, fd, KQ_READ, ADD | ONESHOT | DISPATCH, 0, 0, 0);
  expect_event(kq, fd, KQ_READ);
  expect_nothing(kq);
  CHECK_ERR(try_change(kq, fd, KQ_READ, ENABLE, 0, 0, 0), ENOENT);
}

TEST(clear_waits_for_something_new) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  uint64_t fd = (uint64_t)p.r;
  put(p.w);
  apply(kq, fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).data, 1);
  expect_nothing(kq);
  put(p.w);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).data, 2);
  expect_nothing(kq);
  /* Nothing new for reading in these. */
  apply(kq, fd, KQ_WRITE, ADD | DISABLE, 0, 0, 0);
  apply(kq, (uint64_t)p.w, KQ_WRITE, ADD | CLEAR, 0, 0, 0);
  expect_event(kq, (uint64_t)p.w, KQ_WRITE);
  expect_nothing(kq);
}

TEST(one_filters_edges_do_not_come_again_for_another) {
  evloop_kqueue_t kq = new_kqueue();
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  uint64_t fd = (uint64_t)pair[0];
  put(pair[1]);
  apply(kq, fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
  expect_event(kq, fd, KQ_READ);
  apply(kq, fd, KQ_WRITE, ADD | CLEAR, 0, 0, 0);
  expect_event(kq, fd, KQ_WRITE);
  expect_nothing(kq);
  apply(kq, fd, KQ_WRITE, ADD | ONESHOT, 0, 0, 0);
  expect_event(kq, fd, KQ_WRITE);
  expect_nothing(kq);
  apply(kq, fd, KQ_READ, ADD | SPECIFIC | DISPATCH, 0, 0, 5);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 5);
  expect_nothing(kq);
  put(pair[1]);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 0);
}

TEST(an_edge_is_kept_where_there_was_no_room) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fds[5];
  Event event;
  int seen = 0;
  for (int i = 0; i < 5; i++) {
    fds[i] = (uint64_t)ready_fd();
    apply(kq, fds[i], KQ_READ, ADD | CLEAR, 0, 0, (uint64_t)i);
    apply(kq, fds[i], KQ_WRITE, ADD | CLEAR, 0, 0, (uint64_t)i + 5);
  }
  for (int i = 0; i < 10; i++) {
    CHECK(is_pending(kq));
    CHECK_EQ(take(kq, &event, 1, 0), 1);
    seen |= 1 << event.udata;
  }
  CHECK_EQ(seen, 1023);
  expect_nothing(kq);
}

TEST(touching_an_edge_fires_it_again) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  apply(kq, fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
  expect_event(kq, fd, KQ_READ);
  expect_nothing(kq);
  apply(kq, fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
  expect_event(kq, fd, KQ_READ);
  expect_nothing(kq);
}

TEST(force_oneshot_fires_at_once) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  apply(kq, (uint64_t)p.r, KQ_READ, ADD, 0, 0, 6);
  expect_nothing(kq);
  apply(kq, (uint64_t)p.r, KQ_READ, EVLOOP_KQ_EV_FORCEONESHOT, 0, 0, 6);
  Event event = expect_event(kq, (uint64_t)p.r, KQ_READ);
  CHECK_EQ(event.udata, 6);
  CHECK_EQ(event.data, 0);
  CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0), ENOENT);
}

/* ---- udata ---- */

TEST(changes_set_udata_unless_it_is_kept) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  apply(kq, fd, KQ_READ, ADD, 0, 0, 1);
  apply(kq, fd, KQ_READ, ADD | KEEPUDATA, 0, 0, 2);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 1);
  apply(kq, fd, KQ_READ, ENABLE, 0, 0, 3);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 3);
  apply(kq, fd, KQ_READ, ENABLE | KEEPUDATA, 0, 0, 4);
  CHECK_EQ(expect_event(kq, fd, KQ_READ).udata, 3);
}

TEST(udata_can_distinguish_knotes) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t fd = (uint64_t)ready_fd();
  Event events[8];
  int seen = 0;
  static const int filters[] = {KQ_READ, KQ_USER};
  for (int f = 0; AT_ROW(f, filters); f++) {
    uint32_t trigger = filters[f] == KQ_USER ? TRIGGER : 0;
    seen = 0;
    apply(kq, fd, filters[f], ADD, trigger, 0, 1);
    apply(kq, fd, filters[f], ADD | SPECIFIC, trigger, 0, 1);
    apply(kq, fd, filters[f], ADD | SPECIFIC, trigger, 0, 2);
    apply(kq, fd, filters[f], ADD | SPECIFIC | ONESHOT, trigger, 0, 3);
    CHECK_EQ(take(kq, events, 8, 0), 4);
    for (int i = 0; i < 4; i++) seen += 1 << 4 * events[i].udata;
    CHECK_EQ(seen, 0x1120);
    CHECK_EQ(take(kq, events, 8, 0), 3);
    CHECK_ERR(try_change(kq, fd, filters[f], DELETE | SPECIFIC, 0, 0, 3), ENOENT);
    apply(kq, fd, filters[f], DELETE | SPECIFIC, 0, 0, 1);
    CHECK_EQ(take(kq, events, 8, 0), 2);
    apply(kq, fd, filters[f], DELETE, 0, 0, 77);
    CHECK_EQ(expect_event(kq, fd, filters[f]).udata, 2);
    CHECK_ERR(try_change(kq, fd, filters[f], DELETE, 0, 0, 2), ENOENT);
    apply(kq, fd, filters[f], DELETE | SPECIFIC, 0, 0, 2);
    expect_nothing(kq);
  }
}

TEST(system_flags_are_ignored) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | EVLOOP_KQ_EV_SYSFLAGS, TRIGGER, 0, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_USER).flags, 0);
}

CHECK_MAIN()
