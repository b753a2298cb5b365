/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Calls to be counted by an instruction counter, by name; run.py takes the
 * difference of two counts, which is free of what setting up costs. Nothing
 * here depends on the time. */

#define _GNU_SOURCE

#include "bench.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MANY = 100, MOST = 2000 }; /* timers; most calls */

static evloop_t loop;
static long calls, events;
static int fd;
static evloop_watcher_t io, timers[MANY], asyncs[MOST];

static void never(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  die("an unexpected event of type %d", event->type);
}

static void counted(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  events++;
}

static evloop_watcher_t add_timer(evloop_callback_t callback)
{
  return must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0,
                               60 * (int64_t)SECOND, 0, 0, callback, NULL));
}

/* ---- what is called in a callback: `calls` times ---- */

static void refresh(void)
{
  for (long i = 0; i < calls; i++)
    must(evloop_timer_again(timers[i % MANY]));
}

static void add_close_io(void)
{
  for (long i = 0; i < calls; i++)
    must(evloop_watcher_close(
        must(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, never, NULL)), 0));
}

static void add_close_timer(void)
{
  for (long i = 0; i < calls; i++)
    must(evloop_watcher_close(add_timer(never), 0));
}

static void disable_enable(void)
{
  for (long i = 0; i < calls; i++) {
    must(evloop_watcher_disable(io));
    must(evloop_watcher_enable(io));
  }
}

static void post(void)
{
  for (long i = 0; i < calls; i++)
    must(evloop_post(loop, counted, NULL));
}

static void send(void)
{
  for (long i = 0; i < calls; i++)
    must(evloop_async_send(asyncs[i]));
}

static void send_again(void)
{
  for (long i = 0; i < calls; i++)
    must(evloop_async_send(asyncs[0]));
}

static void *in_thread(void *function)
{
  (*(void (**)(void))function)();
  return NULL;
}

static const struct guarded *guarded;

/* ---- the names ---- */

static void chain(long n, void (*run)(const void *, double *))
{
  const struct chain c = {1000, 100, n};
  double values[MOST_FIGURES];
  chain_open(c.pipes);
  run(&c, values);
  chain_close();
}

static void chain_by_library(long n)
{
  chain(n, chain_evloop);
}

static void chain_by_hand(long n)
{
  chain(n, chain_raw);
}

static void chain_by_kqueue(long n)
{
  chain(n, chain_kqueue);
}

static void chain_by_trusting_kqueue(long n)
{
  chain(n, chain_trusting_kqueue);
}

/* Sets its timer again, to expire in the next iteration. */
static void expire(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  if (++events == calls)
    evloop_stop(loop);
  else
    must(evloop_timer_set(event->watcher, 0, 0, 0));
}

/* A hundred in each iteration. */
static void expirations(long n)
{
  calls = n / MANY * MANY;
  loop = new_loop(0);
  for (int i = 0; i < MANY; i++)
    must(evloop_timer_set(add_timer(expire), 0, 0, 0));
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  expect("expirations", events, calls);
  must(evloop_close(loop));
}

/* A timer keeps the loop from being done. */
static void empty_waits(long n)
{
  evloop_event_t event;
  loop = new_loop(0);
  add_timer(never);
  for (long i = 0; i < n; i++)
    expect("events", must(evloop_wait(loop, &event, 1, 0)), 0);
  must(evloop_close(loop));
}

static const struct guarded {
  const char *name;
  void (*whole)(long);    /* does all of it; or */
  void (*in_callback)(void);
  bool thread;            /* in another thread, while the callback waits */
  enum { NONE, ONE, ALL } events;
} guards[] = {
    {"W1 chain 1000/100, an event", chain_by_library, NULL, false, NONE},
    {"W1 chain 1000/100, an event by hand", chain_by_hand, NULL, false, NONE},
    {"W8 chain 1000/100, an event", chain_by_kqueue, NULL, false, NONE},
    {"W8 chain 1000/100, an event, TRUST_FDS", chain_by_trusting_kqueue, NULL, false, NONE},
    {"an iteration with one event", ready_count, NULL, false, NONE},
    {"evloop_wait, nothing ready", empty_waits, NULL, false, NONE},
    {"evloop_timer_set and its event", expirations, NULL, false, NONE},
    {"evloop_timer_again", NULL, refresh, false, NONE},
    {"evloop_add_timer+close", NULL, add_close_timer, false, NONE},
    {"evloop_add_io+close", NULL, add_close_io, false, NONE},
    {"evloop_watcher_disable+enable", NULL, disable_enable, false, NONE},
    {"evloop_async_send, pending", NULL, send_again, true, ONE},
    {"evloop_async_send and its event", NULL, send, true, ALL},
    {"evloop_post and its event", NULL, post, true, ALL},
    {"evloop_post in a callback, and its event", NULL, post, false, ALL},
};

enum { GUARDS = sizeof guards / sizeof *guards };

static void on_defer(const evloop_event_t *event, void *user_data)
{
  pthread_t thread;
  (void)event, (void)user_data;
  if (!guarded->thread) {
    guarded->in_callback();
  } else {
    void (*function)(void) = guarded->in_callback;
    if (pthread_create(&thread, NULL, in_thread, &function) != 0)
      die("pthread_create failed");
    pthread_join(thread, NULL);
  }
}

static void in_a_callback(long n)
{
  int *fds = open_eventfds(2, 0);
  fd = fds[0];
  calls = n;
  loop = new_loop(0);
  if (n > MOST)
    die("at most %d calls", MOST);
  io = must(evloop_add_io(loop, fds[1], EVLOOP_EPOLLIN, never, NULL));
  for (int i = 0; i < MANY; i++)
    timers[i] = add_timer(never);
  for (int i = 0; i < MOST; i++)
    asyncs[i] = must(evloop_add_async(loop, counted, NULL));
  must(evloop_add_defer(loop, on_defer, NULL));
  for (int i = 0; i < 4; i++)
    must(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  expect("events", events,
         guarded->events == ALL ? calls : guarded->events == ONE);
  must(evloop_close(loop));
  close_all(fds, 2);
}

void guard_names(void)
{
  for (int i = 0; i < GUARDS; i++)
    puts(guards[i].name);
}

bool guard_run(const char *name, long count)
{
  for (int i = 0; i < GUARDS; i++) {
    if (strcmp(name, guards[i].name) == 0) {
      guarded = &guards[i];
      (guarded->whole != NULL ? guarded->whole : in_a_callback)(count);
      return true;
    }
  }
  return false;
}
