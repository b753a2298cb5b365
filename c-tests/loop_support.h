/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of event loops use: loops, callbacks that record their
 * events, watchers, ways and threads to run a loop. */
#ifndef LOOP_SUPPORT_H
#define LOOP_SUPPORT_H

#include "support.h"

#define MONOTONIC EVLOOP_CLOCK_MONOTONIC

/* ---- loops ---- */

evloop_t new_loop(void);
evloop_t loop_with(uint32_t flags);
evloop_t virtual_loop(void);
evloop_t jumping_loop(void);

/* One iteration that does not wait; 1: something keeps the loop alive. */
int turn(evloop_t loop);
void turns(evloop_t loop, int n);

/* Until nothing is left. */
void run_to_end(evloop_t loop);
void advance(evloop_t loop, int64_t ns);
void close_watcher(evloop_watcher_t watcher);

/* The last one. */
void close_loop(evloop_t loop);

/* ---- callbacks that count ---- */

/* What a watcher has delivered. */
typedef struct Seen {
  int calls;      /* atomic */
  int errors;     /* of these with EVLOOP_ERROR */
  uint64_t count; /* added up */
  evloop_event_t last;
  void *user_data;
} Seen;

void record(const evloop_event_t *event, void *user_data);

/* As well takes the byte that made the descriptor readable. */
void record_and_take(const evloop_event_t *event, void *user_data);
void record_and_close(const evloop_event_t *event, void *user_data);

/* The fields that are the same for most kinds of watchers. */
void expect_plain(const evloop_event_t *event, int64_t watcher, int type, const void *data);

/* ---- callbacks that log a word ---- */

/* The words that callbacks have logged since the last EXPECT_LOG(). */
extern char event_log[4096];

/* A word as user_data. */
#define WORD(text) ((void *)(uintptr_t)(text))

void log_word(const evloop_event_t *event, void *user_data);
void log_char(char c);

/* Adds the first character of its word to the log. */
void log_first_char(const evloop_event_t *event, void *user_data);

#define EXPECT_LOG(expected) check_log(__FILE__, __LINE__, expected)

void check_log(const char *file, int line, const char *expected);

/* ---- callbacks that do something ---- */

void ignore(const evloop_event_t *event, void *user_data);

/* A number as user_data. */
void *as_data(int64_t number);

/* user_data: a loop's handle. */
void stop_loop(const evloop_event_t *event, void *user_data);

/* A callback that stays until it is let out. */
typedef struct Gate {
  int entered, open; /* atomic */
} Gate;

void stay(const evloop_event_t *event, void *user_data);

/* Returns when a loop, which another thread runs, is in a callback; it is
 * until the gate is opened. */
void hold(evloop_t loop, Gate *gate);
void open_gate(Gate *gate);

/* ---- watchers ---- */

evloop_watcher_t timer(evloop_t loop, int64_t initial_ns, int64_t interval_ns,
                       evloop_callback_t callback, void *user_data);
evloop_watcher_t timer_at(evloop_t loop, int64_t due_ns, evloop_callback_t callback,
                          void *user_data);
evloop_watcher_t readable_io(evloop_t loop, int fd, evloop_callback_t callback, void *user_data);
evloop_watcher_t async(evloop_t loop, evloop_callback_t callback, void *user_data);

/* Keeps the loop alive and is never ready. */
evloop_watcher_t keep_alive(evloop_t loop);

/* Counts iterations, and does not keep the loop alive. */
void count_iterations(evloop_t loop, Seen *seen);
void set_timer(evloop_watcher_t watcher, int64_t initial_ns, int64_t interval_ns);
void trigger(evloop_watcher_t watcher);

/* ---- numbers ---- */

/* The same in every run: splitmix64. */
uint64_t next_random(uint64_t *state);
int64_t random_below(uint64_t *state, int64_t limit);

/* ---- all the ways to run a loop ---- */

typedef int64_t RunFunction(evloop_t loop);
int64_t run_until_done(evloop_t loop);
int64_t run_once(evloop_t loop);
int64_t run_nowait(evloop_t loop);
int64_t run_without_limit(evloop_t loop);
int64_t wait_for_events(evloop_t loop);
int64_t embed_prepare(evloop_t loop);
int64_t embed_dispatch(evloop_t loop);

/* ---- threads ---- */

pthread_t start_thread(void *(*main_of)(void *), void *argument);
void join(pthread_t thread);

/* A thread that runs a loop. */
typedef struct Runner {
  RunFunction *run;
  evloop_t loop;
  int64_t result;
  pid_t tid;
  pthread_t thread;
} Runner;

void start_runner(Runner *r, RunFunction *run, evloop_t loop);

/* One that is asleep in its wait: the loop has nothing to do yet. */
void start_sleeper(Runner *r, RunFunction *run, evloop_t loop);
int64_t runner_result(Runner *r);

/* Stops a loop whose run has something left to keep it alive. */
void stop_runner(Runner *r);

/* A loop that another thread runs, and which never sleeps if it is busy. */
evloop_t running_loop(Runner *r, bool busy);

/* A loop in which another thread sleeps. */
evloop_t sleeping_loop(Runner *r);

/* Returns when a loop, which another thread runs, has finished an iteration
 * that began after this. */
void go_round(evloop_t loop);

#endif
