/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Very many knotes of one ident, distinguished by their udata: what costs a time
 * that grows with the square of their number runs into the limit of the case. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#define SPECIFIC EVLOOP_KQ_EV_UDATA_SPECIFIC
#define KQ_SIGNAL EVLOOP_KQ_FILTER_SIGNAL
#define KQ_VNODE EVLOOP_KQ_FILTER_VNODE

enum { MANY = 60000 };

/* Tools are slow. */
static int many(void) {
  return getenv("EVLOOP_TEST_VALGRIND") || getenv("EVLOOP_TEST_ASAN") ? MANY / 50 : MANY;
}

/* In which order: as added, the other way around, mixed. */
enum { ORDERS = 3 };

static uint64_t at(int order, int i) {
  int n = many();
  if (order == 0) return (uint64_t)i;
  if (order == 1) return (uint64_t)(n - 1 - i);
  return (uint64_t)(((int64_t)i * 7919) % n); /* each one once: 7919 is a prime */
}

/* ---- what is watched ---- */

static Pipe pipe_of_test;
static int file_of_test;

static void fill_pipe(void) {
  put(pipe_of_test.w);
}

static void empty_pipe(void) {
  char byte;
  CHECK_EQ(read(pipe_of_test.r, &byte, 1), 1);
}

static void write_file(void) {
  put(file_of_test);
}

static void raise_signal(void) {
  raise(SIGUSR1);
}

static void nothing(void) {
}

static const struct {
  const char *name;
  int filter, flags;
  uint32_t fflags;
  void (*happen)(void), (*end)(void);
} kinds[] = {
    {"what is readable", KQ_READ, 0, 0, fill_pipe, empty_pipe},
    {"what becomes readable", KQ_READ, CLEAR, 0, fill_pipe, empty_pipe},
    {"what is readable, for one event", KQ_READ, DISPATCH, 0, fill_pipe, empty_pipe},
    {"a file", KQ_VNODE, CLEAR, EVLOOP_KQ_NOTE_WRITE, write_file, nothing},
    {"a signal", KQ_SIGNAL, 0, 0, raise_signal, nothing},
    {"a signal, for one event", KQ_SIGNAL, DISPATCH, 0, raise_signal, nothing},
};

static uint64_t ident_of(int filter) {
  if (filter == KQ_SIGNAL) return SIGUSR1;
  return (uint64_t)(filter == KQ_VNODE ? file_of_test : pipe_of_test.r);
}

static void prepare(void) {
  pipe_of_test = new_pipe();
  file_of_test = regular_file();
  signal(SIGUSR1, SIG_IGN);
}

/* ---- cases ---- */

static void expect_all(evloop_kqueue_t kq, Event *events, bool *seen) {
  memset(seen, 0, (size_t)many());
  int n = 0;
  while (n < many()) {
    int taken = take(kq, events, many(), -1);
    CHECK(taken > 0);
    for (int i = 0; i < taken; i++) {
      CHECK(events[i].udata < (uint64_t)many());
      CHECK(!seen[events[i].udata]);
      seen[events[i].udata] = true;
    }
    n += taken;
  }
}

static void many_of_a_kind(int kind) {
  int filter = kinds[kind].filter, flags = SPECIFIC | kinds[kind].flags;
  uint64_t ident = ident_of(filter);
  Event *events = (Event *)calloc((size_t)many(), sizeof *events);
  bool *seen = (bool *)calloc((size_t)many(), 1);
  CHECK(events != NULL);
  CHECK(seen != NULL);
  evloop_kqueue_t kq = new_kqueue();
  for (int order = 0; order < ORDERS; order++) {
    for (int i = 0; i < many(); i++) {
      apply(kq, ident, filter, ADD | flags, kinds[kind].fflags, 0, at(order, i));
    }
    kinds[kind].happen();
    expect_all(kq, events, seen);
    kinds[kind].end();
    for (int i = 0; i < many(); i++) {
      apply(kq, ident, filter, DISABLE | SPECIFIC, kinds[kind].fflags, 0, at(order, i));
    }
    expect_nothing(kq);
    for (int i = 0; i < many(); i++) {
      apply(kq, ident, filter, ENABLE | SPECIFIC, kinds[kind].fflags, 0, at(order, i));
    }
    kinds[kind].happen();
    expect_all(kq, events, seen);
    kinds[kind].end();
    for (int i = 0; i < many(); i++) {
      apply(kq, ident, filter, DELETE | SPECIFIC, 0, 0, at(order, i));
    }
    CHECK_ERR(try_change(kq, ident, filter, DELETE | SPECIFIC, 0, 0, 1), ENOENT);
    kinds[kind].happen();
    expect_nothing(kq);
    kinds[kind].end();
  }
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  free(events);
  free(seen);
}

TEST_TIMEOUT(many_knotes_of_a_descriptor_are_changed_and_deleted_in_any_order, 60) {
  prepare();
  for (int kind = 0; AT_ROW(kind, kinds); kind++) {
    if (kinds[kind].filter == KQ_READ) many_of_a_kind(kind);
  }
}

TEST_TIMEOUT(many_knotes_of_a_file_are_changed_and_deleted_in_any_order, 60) {
  prepare();
  for (int kind = 0; AT_ROW(kind, kinds); kind++) {
    if (kinds[kind].filter == KQ_VNODE) many_of_a_kind(kind);
  }
}

TEST_TIMEOUT(many_knotes_of_a_signal_are_changed_and_deleted_in_any_order, 60) {
  prepare();
  for (int kind = 0; AT_ROW(kind, kinds); kind++) {
    if (kinds[kind].filter == KQ_SIGNAL) many_of_a_kind(kind);
  }
}

/* One without a udata in its key, before, among and after many that have it. */
TEST_TIMEOUT(a_plain_knote_is_found_among_many_of_the_same_ident, 60) {
  prepare();
  static const int filters[] = {KQ_READ, KQ_SIGNAL, KQ_VNODE};
  for (int f = 0; AT_ROW(f, filters); f++) {
    int filter = filters[f];
    uint32_t fflags = filter == KQ_VNODE ? EVLOOP_KQ_NOTE_WRITE : 0;
    uint64_t ident = ident_of(filter);
    evloop_kqueue_t kq = new_kqueue();
    for (int i = 0; i < many(); i++) {
      apply(kq, ident, filter, ADD | SPECIFIC | DISABLE, fflags, 0, at(2, i));
      if (i % 2 == 0) {
        apply(kq, ident, filter, ADD, fflags, 0, 4711);
        apply(kq, ident, filter, DISABLE, fflags, 0, 4711);
        apply(kq, ident, filter, ENABLE, fflags, 0, 4711);
        if (i % 4 == 0) apply(kq, ident, filter, DELETE, 0, 0, 0);
      }
    }
    if (many() % 4 != 3) apply(kq, ident, filter, ADD, fflags, 0, 4711);
    for (int k = 0; AT_ROW(k, kinds); k++) {
      if (kinds[k].filter != filter) continue;
      kinds[k].happen();
      CHECK_EQ(expect_event(kq, ident, filter).udata, 4711);
      kinds[k].end();
      break;
    }
    CHECK_EQ(evloop_kqueue_close(kq), 0);
  }
}

/* What the kernel is asked for is what the knotes that are left need. */
TEST_TIMEOUT(one_knote_that_writes_is_found_among_many_that_read, 60) {
  int pair[2];
  Event events[2];
  tcp_pair(pair);
  evloop_kqueue_t kq = new_kqueue();
  uint64_t ident = (uint64_t)pair[0];
  apply(kq, ident, KQ_WRITE, ADD | SPECIFIC, 0, 0, 1);
  for (int i = 0; i < many(); i++) apply(kq, ident, KQ_READ, ADD | SPECIFIC, 0, 0, at(2, i));
  for (int i = 0; i < many(); i++) apply(kq, ident, KQ_READ, DELETE | SPECIFIC, 0, 0, at(0, i));
  CHECK_EQ(take(kq, events, 2, -1), 1);
  CHECK_EQ(events[0].filter, KQ_WRITE);
  apply(kq, ident, KQ_READ, ADD | SPECIFIC, 0, 0, 2);
  apply(kq, ident, KQ_WRITE, DELETE | SPECIFIC, 0, 0, 1);
  expect_nothing(kq);
  put(pair[1]);
  CHECK_EQ(expect_event(kq, ident, KQ_READ).udata, 2);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

CHECK_MAIN()
