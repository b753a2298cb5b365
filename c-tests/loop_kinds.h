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

evloop_watcher_t add_io(Fixture *fixture, int place, evloop_callback_t callback, void *user_data);
void happen_io(Fixture *fixture, int place, evloop_watcher_t watcher);
evloop_watcher_t add_tfd(Fixture *fixture, int place, evloop_callback_t callback, void *user_data);
void happen_tfd(Fixture *fixture, int place, evloop_watcher_t watcher);

extern const Kind kind_io;
extern const Kind kind_timer;
extern const Kind kind_tfd;
extern const Kind kind_file;
extern const Kind kind_async;
extern const Kind kind_idle;
extern const Kind kind_prepare;
extern const Kind kind_check;
extern const Kind kind_defer;
extern const Kind kind_exit;

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

Fixture new_fixture(void);

/* One iteration, at whose end exit watchers are called. */
void round_of(Fixture *fixture);

/* io watchers are level-triggered. */
void calm(Fixture *fixture);

#endif
