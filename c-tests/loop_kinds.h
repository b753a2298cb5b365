/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The kinds of watchers that a test can make happen, to run one test for
 * each of them. */
#ifndef LOOP_KINDS_H
#define LOOP_KINDS_H

#include "loop_support.h"

#include <sys/stat.h>

enum { PLACES = 3 };

/* A loop, and what several watchers of each kind watch. */
typedef struct Fixture {
  evloop_t loop;
  int fds[PLACES];
  tfd_t tfds[PLACES];
  int files[PLACES]; /* without names */
} Fixture;

typedef evloop_watcher_t AddFunction(Fixture *fixture, int place, evloop_callback_t callback,
                                     void *user_data);
typedef void HappenFunction(Fixture *fixture, int place, evloop_watcher_t watcher);

typedef struct Kind {
  int type;         /* of its events */
  AddFunction *add; /* nothing happens yet, but to idle, prepare, check, defer, exit */
  HappenFunction *happen;
  bool alone;       /* it does not keep the loop alive */
} Kind;

static inline evloop_watcher_t add_io(Fixture *fixture, int place, evloop_callback_t callback,
                                      void *user_data) {
  return readable_io(fixture->loop, fixture->fds[place], callback, user_data);
}

static inline void happen_io(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)watcher;
  OK(eventfd_write(fixture->fds[place], 1));
}

static inline evloop_watcher_t add_timer(Fixture *fixture, int place, evloop_callback_t callback,
                                         void *user_data) {
  (void)place;
  return timer(fixture->loop, HOUR, 0, callback, user_data);
}

static inline void happen_timer(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)fixture;
  (void)place;
  set_timer(watcher, 0, 0);
}

static inline evloop_watcher_t add_tfd(Fixture *fixture, int place, evloop_callback_t callback,
                                       void *user_data) {
  return OK(evloop_add_tfd(fixture->loop, fixture->tfds[place], callback, user_data));
}

static inline void happen_tfd(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)watcher;
  CHECK_EQ(tfd_settime_ns(fixture->tfds[place], 0, 1, 0, NULL, NULL), 0);
  CHECK(readable((int)OK(tfd_fileno(fixture->tfds[place])), -1));
}

static inline evloop_watcher_t add_file(Fixture *fixture, int place, evloop_callback_t callback,
                                        void *user_data) {
  return OK(evloop_add_file_fd(fixture->loop, fixture->files[place], EVLOOP_FILE_ATTRIB, 0,
                               callback,
                               user_data));
}

static inline void happen_file(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)watcher;
  OK(fchmod(fixture->files[place], 0600));
}

static inline evloop_watcher_t add_async(Fixture *fixture, int place, evloop_callback_t callback,
                                         void *user_data) {
  (void)place;
  return async(fixture->loop, callback, user_data);
}

static inline void happen_async(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)fixture;
  (void)place;
  trigger(watcher);
}

static inline void happen_by_itself(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)fixture;
  (void)place;
  (void)watcher;
}

#define ADD_PLAIN(kind)                                                                            \
  static inline evloop_watcher_t add_##kind(Fixture *fixture, int place,                           \
                                            evloop_callback_t callback,                            \
                                            void *user_data) {                                     \
    (void)place;                                                                                   \
    return OK(evloop_add_##kind(fixture->loop, callback, user_data));                              \
  }
ADD_PLAIN(idle)
ADD_PLAIN(prepare)
ADD_PLAIN(check)
ADD_PLAIN(defer)
ADD_PLAIN(exit)

static const Kind kind_io = {EVLOOP_EVENT_IO, add_io, happen_io, false};
static const Kind kind_timer = {EVLOOP_EVENT_TIMER, add_timer, happen_timer, false};
static const Kind kind_tfd = {EVLOOP_EVENT_TFD, add_tfd, happen_tfd, false};
static const Kind kind_file = {EVLOOP_EVENT_FILE, add_file, happen_file, false};
static const Kind kind_async = {EVLOOP_EVENT_ASYNC, add_async, happen_async, false};
static const Kind kind_idle = {EVLOOP_EVENT_IDLE, add_idle, happen_by_itself, false};
static const Kind kind_prepare = {EVLOOP_EVENT_PREPARE, add_prepare, happen_by_itself, false};
static const Kind kind_check = {EVLOOP_EVENT_CHECK, add_check, happen_by_itself, false};
static const Kind kind_defer = {EVLOOP_EVENT_DEFER, add_defer, happen_by_itself, false};
static const Kind kind_exit = {EVLOOP_EVENT_EXIT, add_exit, happen_by_itself, true};

/* One case for each kind: EACH_KIND(name) { ... kind ... } */
#define EACH_KIND(name)                                                                            \
  static void name(const Kind *kind);                                                              \
  TEST(name##_io) { name(&kind_io); }                                                              \
  TEST(name##_timer) { name(&kind_timer); }                                                        \
  TEST(name##_tfd) { name(&kind_tfd); }                                                            \
  TEST(name##_file) { name(&kind_file); }                                                          \
  TEST(name##_async) { name(&kind_async); }                                                        \
  TEST(name##_idle) { name(&kind_idle); }                                                          \
  TEST(name##_prepare) { name(&kind_prepare); }                                                    \
  TEST(name##_check) { name(&kind_check); }                                                        \
  TEST(name##_defer) { name(&kind_defer); }                                                        \
  TEST(name##_exit) { name(&kind_exit); }                                                          \
  static void name(const Kind *kind)

MAYBE_UNUSED static Fixture new_fixture(void) {
  Fixture fixture;
  int i;
  fixture.loop = new_loop();
  for (i = 0; i < PLACES; i++) {
    fixture.fds[i] = event_fd(0);
    fixture.tfds[i] = OK(tfd_create(MONOTONIC, 0));
    fixture.files[i] = regular_file();
  }
  return fixture;
}

/* One iteration, at whose end exit watchers are called. */
MAYBE_UNUSED static void round_of(Fixture *fixture) {
  OK(evloop_run_for_ns(fixture->loop, 0));
}

/* io watchers are level-triggered. */
MAYBE_UNUSED static void calm(Fixture *fixture) {
  eventfd_t count;
  int i;
  for (i = 0; i < PLACES; i++) {
    if (eventfd_read(fixture->fds[i], &count) < 0) CHECK_EQ(errno, EAGAIN);
  }
}

#endif
