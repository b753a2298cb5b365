/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "loop_kinds.h"

evloop_watcher_t add_io(Fixture *fixture, int place, evloop_callback_t callback, void *user_data) {
  return readable_io(fixture->loop, fixture->fds[place], callback, user_data);
}

void happen_io(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)watcher;
  OK(eventfd_write(fixture->fds[place], 1));
}

static evloop_watcher_t add_timer(Fixture *fixture, int place, evloop_callback_t callback,
                                  void *user_data) {
  (void)place;
  return timer(fixture->loop, HOUR, 0, callback, user_data);
}

static void happen_timer(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)fixture;
  (void)place;
  set_timer(watcher, 0, 0);
}

evloop_watcher_t add_tfd(Fixture *fixture, int place, evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_tfd(fixture->loop, fixture->tfds[place], callback, user_data));
}

void happen_tfd(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)watcher;
  CHECK_EQ(tfd_settime_ns(fixture->tfds[place], 0, 1, 0, NULL, NULL), 0);
  CHECK(readable((int)OK(tfd_fileno(fixture->tfds[place])), -1));
}

static evloop_watcher_t add_file(Fixture *fixture, int place, evloop_callback_t callback,
                                 void *user_data) {
  return OK(evloop_add_file_fd(fixture->loop, fixture->files[place], EVLOOP_FILE_ATTRIB, 0,
                               callback,
                               user_data));
}

static void happen_file(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)watcher;
  OK(fchmod(fixture->files[place], 0600));
}

static evloop_watcher_t add_async(Fixture *fixture, int place, evloop_callback_t callback,
                                  void *user_data) {
  (void)place;
  return async(fixture->loop, callback, user_data);
}

static void happen_async(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)fixture;
  (void)place;
  trigger(watcher);
}

static void happen_by_itself(Fixture *fixture, int place, evloop_watcher_t watcher) {
  (void)fixture;
  (void)place;
  (void)watcher;
}

#define ADD_PLAIN(kind)                                                                            \
  static evloop_watcher_t add_##kind(Fixture *fixture, int place,                           \
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

const Kind kind_io = {EVLOOP_EVENT_IO, add_io, happen_io, false};

const Kind kind_timer = {EVLOOP_EVENT_TIMER, add_timer, happen_timer, false};

const Kind kind_tfd = {EVLOOP_EVENT_TFD, add_tfd, happen_tfd, false};

const Kind kind_file = {EVLOOP_EVENT_FILE, add_file, happen_file, false};

const Kind kind_async = {EVLOOP_EVENT_ASYNC, add_async, happen_async, false};

const Kind kind_idle = {EVLOOP_EVENT_IDLE, add_idle, happen_by_itself, false};

const Kind kind_prepare = {EVLOOP_EVENT_PREPARE, add_prepare, happen_by_itself, false};

const Kind kind_check = {EVLOOP_EVENT_CHECK, add_check, happen_by_itself, false};

const Kind kind_defer = {EVLOOP_EVENT_DEFER, add_defer, happen_by_itself, false};

const Kind kind_exit = {EVLOOP_EVENT_EXIT, add_exit, happen_by_itself, true};

Fixture new_fixture(void) {
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

void round_of(Fixture *fixture) {
  OK(evloop_run_for_ns(fixture->loop, 0));
}

void calm(Fixture *fixture) {
  eventfd_t count;
  int i;
  for (i = 0; i < PLACES; i++) {
    if (eventfd_read(fixture->fds[i], &count) < 0) CHECK_EQ(errno, EAGAIN);
  }
}
