/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of event loops use: loops, callbacks that record their
 * events, watchers, ways and threads to run a loop. */
#ifndef LOOP_SUPPORT_H
#define LOOP_SUPPORT_H

#include "support.h"

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

/* One iteration that does not wait; 1: something keeps the loop alive. */
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

/* The last one. */
MAYBE_UNUSED static void close_loop(evloop_t loop) {
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

/* ---- callbacks that count ---- */

/* What a watcher has delivered. */
typedef struct Seen {
  int calls;      /* atomic */
  int errors;     /* of these with EVLOOP_ERROR */
  uint64_t count; /* added up */
  evloop_event_t last;
  void *user_data;
} Seen;

MAYBE_UNUSED static void record(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  seen->count += event->count;
  seen->last = *event;
  seen->user_data = user_data;
  if ((event->events & EVLOOP_ERROR) != 0) seen->errors++;
  RAISE(seen->calls, 1);
}

/* As well takes the byte that made the descriptor readable. */
MAYBE_UNUSED static void record_and_take(const evloop_event_t *event, void *user_data) {
  char byte;
  if ((event->events & EVLOOP_ERROR) == 0) CHECK_EQ(read(event->fd, &byte, 1), 1);
  record(event, user_data);
}

MAYBE_UNUSED static void record_and_close(const evloop_event_t *event, void *user_data) {
  close_watcher(event->watcher);
  record(event, user_data);
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

/* ---- callbacks that log a word ---- */

/* The words that callbacks have logged since the last EXPECT_LOG(). */
static char event_log[4096];

/* A word as user_data. */
#define WORD(text) ((void *)(uintptr_t)(text))

MAYBE_UNUSED static void log_word(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  CHECK(strlen(event_log) + strlen((const char *)user_data) < sizeof event_log);
  strcat(event_log, (const char *)user_data);
}

MAYBE_UNUSED static void log_char(char c) {
  char word[2] = {c, '\0'};
  CHECK(strlen(event_log) + 1 < sizeof event_log);
  strcat(event_log, word);
}

/* Adds the first character of its word to the log. */
MAYBE_UNUSED static void log_first_char(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  log_char(*(const char *)user_data);
}

#define EXPECT_LOG(expected) check_log(__FILE__, __LINE__, expected)

MAYBE_UNUSED static void check_log(const char *file, int line, const char *expected) {
  if (strcmp(event_log, expected) != 0) {
    printf("  %s:%d: failed: logged '%s', not '%s'\n", file, line, event_log, expected);
    check_exit();
  }
  event_log[0] = '\0';
}

/* ---- callbacks that do something ---- */

MAYBE_UNUSED static void ignore(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

/* A number as user_data. */
MAYBE_UNUSED static void *as_data(int64_t number) {
  return (void *)(intptr_t)number;
}

/* user_data: a loop's handle. */
MAYBE_UNUSED static void stop_loop(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_stop((evloop_t)(intptr_t)user_data), 0);
}

/* A callback that stays until it is let out. */
typedef struct Gate {
  int entered, open; /* atomic */
} Gate;

MAYBE_UNUSED static void stay(const evloop_event_t *event, void *user_data) {
  Gate *gate = (Gate *)user_data;
  (void)event;
  RAISE(gate->entered, 1);
  UNTIL(LOAD(gate->open));
}

/* Returns when a loop, which another thread runs, is in a callback; it is
 * until the gate is opened. */
MAYBE_UNUSED static void hold(evloop_t loop, Gate *gate) {
  memset(gate, 0, sizeof *gate);
  CHECK_EQ(evloop_post(loop, stay, gate), 0);
  UNTIL(LOAD(gate->entered));
}

MAYBE_UNUSED static void open_gate(Gate *gate) {
  STORE(gate->open, 1);
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

/* Keeps the loop alive and is never ready. */
MAYBE_UNUSED static evloop_watcher_t keep_alive(evloop_t loop) {
  return async(loop, log_word, WORD("!"));
}

/* Counts iterations, and does not keep the loop alive. */
MAYBE_UNUSED static void count_iterations(evloop_t loop, Seen *seen) {
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_prepare(loop, record, seen))), 0);
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

/* ---- all the ways to run a loop ---- */

typedef int64_t RunFunction(evloop_t loop);

static inline int64_t run_until_done(evloop_t loop) {
  return evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
}

static inline int64_t run_once(evloop_t loop) {
  return evloop_run(loop, EVLOOP_RUN_ONCE);
}

static inline int64_t run_nowait(evloop_t loop) {
  return evloop_run(loop, EVLOOP_RUN_NOWAIT);
}

static inline int64_t run_without_limit(evloop_t loop) {
  return evloop_run_for_ns(loop, -1);
}

static inline int64_t wait_for_events(evloop_t loop) {
  evloop_event_t events[4];
  return evloop_wait(loop, events, LENGTH(events), -1);
}

static inline int64_t embed_prepare(evloop_t loop) {
  return evloop_embed_prepare(loop);
}

static inline int64_t embed_dispatch(evloop_t loop) {
  return evloop_embed_dispatch(loop);
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

/* A thread that runs a loop. */
typedef struct Runner {
  RunFunction *run;
  evloop_t loop;
  int64_t result;
  pid_t tid;
  pthread_t thread;
} Runner;

static inline void *runner_main(void *argument) {
  Runner *r = (Runner *)argument;
  store_tid(&r->tid);
  r->result = r->run(r->loop);
  return NULL;
}

MAYBE_UNUSED static void start_runner(Runner *r, RunFunction *run, evloop_t loop) {
  memset(r, 0, sizeof *r);
  r->run = run;
  r->loop = loop;
  r->thread = start_thread(runner_main, r);
}

/* One that is asleep in its wait: the loop has nothing to do yet. */
MAYBE_UNUSED static void start_sleeper(Runner *r, RunFunction *run, evloop_t loop) {
  start_runner(r, run, loop);
  wait_until_asleep(&r->tid);
}

MAYBE_UNUSED static int64_t runner_result(Runner *r) {
  join(r->thread);
  return r->result;
}

/* Stops a loop whose run has something left to keep it alive. */
MAYBE_UNUSED static void stop_runner(Runner *r) {
  CHECK_EQ(evloop_stop(r->loop), 0);
  CHECK_EQ(runner_result(r), 1);
}

/* A loop that another thread runs, and which never sleeps if it is busy. */
MAYBE_UNUSED static evloop_t running_loop(Runner *r, bool busy) {
  evloop_t loop = new_loop();
  if (busy) OK(evloop_add_idle(loop, ignore, NULL));
  else keep_alive(loop);
  start_runner(r, run_until_done, loop);
  return loop;
}

/* A loop in which another thread sleeps. */
MAYBE_UNUSED static evloop_t sleeping_loop(Runner *r) {
  evloop_t loop = running_loop(r, false);
  wait_until_asleep(&r->tid);
  return loop;
}

/* Returns when a loop, which another thread runs, has finished an iteration
 * that began after this. */
MAYBE_UNUSED static void go_round(evloop_t loop) {
  Seen fence;
  int i;
  memset(&fence, 0, sizeof fence);
  for (i = 1; i <= 2; i++) {
    CHECK_EQ(evloop_post(loop, record, &fence), 0);
    UNTIL(LOAD(fence.calls) == i);
  }
}

#endif
