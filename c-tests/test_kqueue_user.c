/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the filter USER. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#define FFAND EVLOOP_KQ_NOTE_FFAND
#define FFOR EVLOOP_KQ_NOTE_FFOR
#define FFCOPY EVLOOP_KQ_NOTE_FFCOPY

static uint32_t fflags_now(evloop_kqueue_t kq) {
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  return expect_event(kq, 1, KQ_USER).fflags;
}

TEST(fflags_are_combined) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0xf0, 0, 0);
  CHECK_EQ(fflags_now(kq), 0xf0);
  apply(kq, 1, KQ_USER, 0, EVLOOP_KQ_NOTE_FFNOP | 0x1234, 0, 0);
  CHECK_EQ(fflags_now(kq), 0xf0);
  apply(kq, 1, KQ_USER, 0, FFOR | 0x0f, 0, 0);
  CHECK_EQ(fflags_now(kq), 0xff);
  apply(kq, 1, KQ_USER, 0, FFAND | 0x3c, 0, 0);
  CHECK_EQ(fflags_now(kq), 0x3c);
  apply(kq, 1, KQ_USER, 0, FFCOPY | 0xabcdef, 0, 0);
  CHECK_EQ(fflags_now(kq), 0xabcdef);
  apply(kq, 1, KQ_USER, 0, FFCOPY, 0, 0);
  CHECK_EQ(fflags_now(kq), 0);
  expect_nothing(kq);
}

TEST(control_bits_are_not_reported) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | CLEAR, FFCOPY | TRIGGER | 5, 0, 0);
  CHECK_EQ(expect_event(kq, 1, KQ_USER).fflags, 5);
}

TEST(data_is_that_of_the_last_change) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 5, 0);
  apply(kq, 1, KQ_USER, 0, TRIGGER, INT64_MIN, 0);
  CHECK(expect_event(kq, 1, KQ_USER).data == INT64_MIN);
}

TEST(it_stays_triggered_until_it_is_cleared) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD, 0, 0, 0);
  expect_nothing(kq);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  for (int i = 0; i < 5; i++) expect_event(kq, 1, KQ_USER);
  CHECK(is_pending(kq));
  apply(kq, 1, KQ_USER, CLEAR, 0, 0, 0);
  expect_nothing(kq);
}

TEST(clear_is_reset_by_its_event) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 0);
  for (int i = 0; i < 3; i++) {
    apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
    apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
    CHECK_EQ(expect_event(kq, 1, KQ_USER).flags, CLEAR);
    expect_nothing(kq);
  }
}

TEST(a_trigger_with_add_leaves_clear_alone) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | CLEAR, 0, 0, 0);
  for (int i = 0; i < 3; i++) {
    apply(kq, 1, KQ_USER, ADD, TRIGGER, 0, 0);
    expect_event(kq, 1, KQ_USER);
    expect_nothing(kq);
  }
  apply(kq, 1, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  expect_event(kq, 1, KQ_USER);
  expect_nothing(kq);
}

TEST(a_trigger_when_added_counts) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 0);
  expect_event(kq, 1, KQ_USER);
  expect_nothing(kq);
}

TEST(a_trigger_while_disabled_is_remembered) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 1, KQ_USER, ADD | CLEAR | DISABLE, 0, 0, 0);
  apply(kq, 1, KQ_USER, 0, TRIGGER, 0, 0);
  expect_nothing(kq);
  apply(kq, 1, KQ_USER, ENABLE, 0, 0, 0);
  expect_event(kq, 1, KQ_USER);
  apply(kq, 1, KQ_USER, DISABLE, TRIGGER, 0, 0);
  expect_nothing(kq);
  apply(kq, 1, KQ_USER, ENABLE, 0, 0, 0);
  expect_event(kq, 1, KQ_USER);
  expect_nothing(kq);
}

TEST(any_number_is_an_ident) {
  static const uint64_t idents[] = {0, 1, INT64_MAX, UINT64_MAX, 1ull << 63};
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; AT_ROW(i, idents); i++) apply(kq, idents[i], KQ_USER, ADD | CLEAR, 0, 0, 0);
  for (int i = 0; AT_ROW(i, idents); i++) {
    apply(kq, idents[i], KQ_USER, 0, TRIGGER, 0, 0);
    CHECK(next_event(kq).ident == idents[i]);
  }
}

TEST(events_come_in_the_order_of_their_triggers) {
  enum { N = 100 };
  evloop_kqueue_t kq = new_kqueue();
  Event events[N];
  for (int i = 0; i < N; i++) apply(kq, (uint64_t)i, KQ_USER, ADD | CLEAR, 0, 0, 0);
  for (int i = 0; i < N; i++) apply(kq, (uint64_t)(i * 37 % N), KQ_USER, 0, TRIGGER, 0, 0);
  CHECK_EQ(take(kq, events, N, 0), N);
  for (int i = 0; i < N; i++) CHECK_EQ(events[i].ident, i * 37 % N);
}

/* ---- from other threads ---- */

enum { TRIGGERS = 2000 };

static void *trigger_main(void *argument) {
  evloop_kqueue_t kq = *(const evloop_kqueue_t *)argument;
  for (int i = 0; i < TRIGGERS; i++) {
    apply(kq, (uint64_t)i, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 0);
  }
  return NULL;
}

TEST(no_trigger_of_another_thread_is_lost) {
  evloop_kqueue_t kq = new_kqueue();
  static bool seen[TRIGGERS];
  pthread_t thread;
  int count = 0;
  CHECK_EQ(pthread_create(&thread, NULL, trigger_main, &kq), 0);
  while (count < TRIGGERS) {
    Event events[3];
    int got = take(kq, events, 3, -1);
    CHECK(got > 0);
    for (int i = 0; i < got; i++) {
      CHECK(!seen[events[i].ident]);
      seen[events[i].ident] = true;
    }
    count += got;
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  expect_nothing(kq);
}

CHECK_MAIN()
