/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of event loops use: loops, callbacks that write down what
 * they were told, threads that run a loop. Compiles as C++ too. */
#ifndef LOOP_SUPPORT2_H
#define LOOP_SUPPORT2_H

#include "support.h"

#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)
#define MONOTONIC EVLOOP_CLOCK_MONOTONIC

/* ---- loops ---- */

MAYBE_UNUSED static evloop_t new_loop(void) {
  return OK(evloop_create(NULL));
}

MAYBE_UNUSED static evloop_t loop_with(uint32_t flags) {
  evloop_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.flags = flags;
  return OK(evloop_create(&options));
}

MAYBE_UNUSED static evloop_t virtual_loop(void) {
  return loop_with(EVLOOP_VIRTUAL_TIME);
}

MAYBE_UNUSED static evloop_t jumping_loop(void) {
  return loop_with(EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE);
}

/* One iteration that does not wait. */
MAYBE_UNUSED static int turn(evloop_t loop) {
  return (int)OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
}

MAYBE_UNUSED static void turns(evloop_t loop, int n) {
  while (n-- > 0) turn(loop);
}

/* Until nothing is left. */
MAYBE_UNUSED static void run_to_end(evloop_t loop) {
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
}

MAYBE_UNUSED static void advance(evloop_t loop, int64_t ns) {
  CHECK_EQ(evloop_advance_ns(loop, ns), 0);
}

MAYBE_UNUSED static void close_watcher(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
}

MAYBE_UNUSED static void close_loop(evloop_t loop) {
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

/* ---- callbacks that write down ---- */

/* What a watcher has delivered. */
typedef struct Seen {
  int calls;
  uint64_t count; /* added up */
  evloop_event_t last;
  void *user_data;
} Seen;

MAYBE_UNUSED static void see(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  seen->count += event->count;
  seen->last = *event;
  seen->user_data = user_data;
  __atomic_add_fetch(&seen->calls, 1, __ATOMIC_RELEASE); /* others may wait for it */
}

/* The fields that are the same for most kinds of watchers. */
MAYBE_UNUSED static void expect_plain(const evloop_event_t *event, int64_t watcher, int type,
                                      const void *data) {
  CHECK_EQ(event->watcher, watcher);
  CHECK_EQ(event->type, type);
  CHECK_EQ(event->data, (uintptr_t)data);
  CHECK_EQ(event->events, 0);
  CHECK_EQ(event->fd, -1);
  CHECK_EQ(event->result, 0);
  CHECK_EQ(event->count, 1);
  CHECK_EQ(event->time_ns, 0);
  CHECK_EQ(event->deadline_ns, 0);
  CHECK_EQ(event->reserved, 0);
}

/* The first letters of what was handed to callbacks, in their order. */
static char called[4096];

MAYBE_UNUSED static void write_letter(char letter) {
  size_t n = strlen(called);
  CHECK(n + 1 < sizeof called);
  called[n] = letter;
}

MAYBE_UNUSED static void letter(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  write_letter(*(const char *)user_data);
}

#define LETTER(text) ((void *)(uintptr_t)(text))
#define EXPECT_CALLED(text) expect_called(__FILE__, __LINE__, text)

MAYBE_UNUSED static void expect_called(const char *file, int line, const char *expected) {
  if (strcmp(called, expected) != 0) {
    printf("  %s:%d: failed: called \"%s\", not \"%s\"\n", file, line, called, expected);
    check_exit();
  }
  memset(called, 0, sizeof called);
}

MAYBE_UNUSED static void ignore(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

/* Stops the loop whose handle it points to. */
MAYBE_UNUSED static void stop(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_stop(*(evloop_t *)user_data), 0);
}

/* ---- watchers ---- */

MAYBE_UNUSED static evloop_watcher_t timer(evloop_t loop, int64_t initial_ns, int64_t interval_ns,
                                           evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_timer(loop, MONOTONIC, 0, initial_ns, interval_ns, 0, callback, user_data));
}

MAYBE_UNUSED static evloop_watcher_t timer_at(evloop_t loop, int64_t due_ns,
                                              evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, due_ns, 0, 0, callback,
                             user_data));
}

MAYBE_UNUSED static evloop_watcher_t readable_io(evloop_t loop, int fd, evloop_callback_t callback,
                                                 void *user_data) {
  return OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, callback, user_data));
}

MAYBE_UNUSED static evloop_watcher_t async(evloop_t loop, evloop_callback_t callback,
                                           void *user_data) {
  return OK(evloop_add_async(loop, callback, user_data));
}

MAYBE_UNUSED static void set_timer(evloop_watcher_t watcher, int64_t initial_ns,
                                   int64_t interval_ns) {
  CHECK_EQ(evloop_timer_set(watcher, 0, initial_ns, interval_ns), 0);
}

MAYBE_UNUSED static void trigger(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_async_send(watcher), 0);
}

/* ---- numbers ---- */

/* The same in every run: splitmix64. */
MAYBE_UNUSED static uint64_t next_random(uint64_t *state) {
  uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

MAYBE_UNUSED static int64_t random_below(uint64_t *state, int64_t limit) {
  return (int64_t)(next_random(state) % (uint64_t)limit);
}

/* ---- threads ---- */

MAYBE_UNUSED static pthread_t start_thread(void *(*main_of)(void *), void *argument) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, main_of, argument), 0);
  return thread;
}

MAYBE_UNUSED static void join(pthread_t thread) {
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

#define LOAD(variable) __atomic_load_n(&(variable), __ATOMIC_ACQUIRE)
#define STORE(variable, value) __atomic_store_n(&(variable), (value), __ATOMIC_RELEASE)
#define ADD(variable, value) __atomic_add_fetch(&(variable), (value), __ATOMIC_ACQ_REL)
/* Another thread makes it true; the time limit of the case is the only one. */
#define UNTIL(condition)                                                                           \
  do {                                                                                             \
    while (!(condition)) usleep(100);                                                              \
  } while (0)

/* A thread that runs a loop until it is done, stopped or closed. */
typedef struct Runner {
  evloop_t loop;
  int result;
  pid_t tid;
  pthread_t thread;
} Runner;

static inline void *runner_main(void *argument) {
  Runner *r = (Runner *)argument;
  store_tid(&r->tid);
  r->result = evloop_run(r->loop, EVLOOP_RUN_UNTIL_DONE);
  return NULL;
}

MAYBE_UNUSED static void start_runner(Runner *r, evloop_t loop) {
  memset(r, 0, sizeof *r);
  r->loop = loop;
  r->thread = start_thread(runner_main, r);
}

/* One that is asleep in its wait. */
MAYBE_UNUSED static void start_sleeper(Runner *r, evloop_t loop) {
  start_runner(r, loop);
  wait_until_asleep(&r->tid);
}

MAYBE_UNUSED static int runner_result(Runner *r) {
  join(r->thread);
  return r->result;
}

MAYBE_UNUSED static int stop_runner(Runner *r) {
  CHECK_EQ(evloop_stop(r->loop), 0);
  return runner_result(r);
}

#endif
