/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of the event loop share: loops, callbacks that keep what
 * they were told, threads that run a loop. */
#ifndef LOOP_SUPPORT_H
#define LOOP_SUPPORT_H

#include "support.h"

#define SECOND (1000 * MS)

MAYBE_UNUSED static evloop_t new_loop(void) {
  return OK(evloop_create(NULL));
}

MAYBE_UNUSED static evloop_t new_virtual_loop(uint32_t more_flags) {
  evloop_options_t options = {.size = sizeof options, .flags = EVLOOP_VIRTUAL_TIME | more_flags};
  return OK(evloop_create(&options));
}

/* One iteration that does not wait; 1: something keeps the loop alive. */
MAYBE_UNUSED static int turn(evloop_t loop) {
  return (int)OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
}

/* ---- callbacks ---- */

/* The words that callbacks said since they were last compared. */
static char said[1000];

/* user_data: a word. */
MAYBE_UNUSED static void say(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK(strlen(said) + strlen((const char *)user_data) < sizeof said);
  strcat(said, (const char *)user_data);
}

#define SAID(expected) check_said(__FILE__, __LINE__, expected)

MAYBE_UNUSED static void check_said(const char *file, int line, const char *expected) {
  if (strcmp(said, expected) != 0) {
    printf("  %s:%d: failed: said '%s', not '%s'\n", file, line, said, expected);
    check_exit();
  }
  said[0] = '\0';
}

/* What a watcher's callback was told. */
typedef struct Seen {
  int calls;  /* atomic */
  int errors; /* of these with EVLOOP_ERROR */
  evloop_event_t last;
} Seen;

MAYBE_UNUSED static void see(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  seen->last = *event;
  if ((event->events & EVLOOP_ERROR) != 0) seen->errors++;
  __atomic_add_fetch(&seen->calls, 1, __ATOMIC_RELEASE);
}

/* As well takes the byte that made the descriptor readable. */
MAYBE_UNUSED static void see_and_take(const evloop_event_t *event, void *user_data) {
  char byte;
  if ((event->events & EVLOOP_ERROR) == 0) CHECK_EQ(read(event->fd, &byte, 1), 1);
  see(event, user_data);
}

MAYBE_UNUSED static void see_and_close(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(evloop_watcher_close(event->watcher, 0), 0);
  see(event, user_data);
}

/* user_data: a loop's handle (see as_data). */
MAYBE_UNUSED static void stop_loop(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_stop((evloop_t)(intptr_t)user_data), 0);
}

MAYBE_UNUSED static void *as_data(int64_t number) {
  return (void *)(intptr_t)number;
}

/* A callback that stays until it is let out. */
typedef struct Gate {
  int entered, open; /* atomic */
} Gate;

MAYBE_UNUSED static void wait_until(const int *counter, int value) {
  while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < value) usleep(100);
}

MAYBE_UNUSED static void stay(const evloop_event_t *event, void *user_data) {
  Gate *gate = (Gate *)user_data;
  (void)event;
  __atomic_add_fetch(&gate->entered, 1, __ATOMIC_RELEASE);
  wait_until(&gate->open, 1);
}

MAYBE_UNUSED static void open_gate(Gate *gate) {
  __atomic_store_n(&gate->open, 1, __ATOMIC_RELEASE);
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
  *r = (Runner){.run = run, .loop = loop};
  CHECK_EQ(pthread_create(&r->thread, NULL, runner_main, r), 0);
}

/* A thread that runs a loop which has nothing to do yet. */
MAYBE_UNUSED static void start_sleeper(Runner *r, RunFunction *run, evloop_t loop) {
  start_runner(r, run, loop);
  wait_until_asleep(&r->tid);
}

MAYBE_UNUSED static int64_t runner_result(Runner *r) {
  CHECK_EQ(pthread_join(r->thread, NULL), 0);
  return r->result;
}

/* Stops a loop whose run has something left to keep it alive. */
MAYBE_UNUSED static void stop_runner(Runner *r) {
  CHECK_EQ(evloop_stop(r->loop), 0);
  CHECK_EQ(runner_result(r), 1);
}

/* Counts iterations, and does not keep the loop alive. */
MAYBE_UNUSED static void count_iterations(evloop_t loop, Seen *seen) {
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_prepare(loop, see, seen))), 0);
}

/* Keeps the loop alive and is never ready. */
MAYBE_UNUSED static evloop_watcher_t keep_alive(evloop_t loop) {
  return OK(evloop_add_async(loop, say, (void *)(uintptr_t)"!"));
}

#endif
