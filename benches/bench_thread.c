/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Other threads: W6, the round trip, and what a send costs its sender. */

#define _GNU_SOURCE

#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void start(pthread_t *thread, void *(*run)(void *), void *argument)
{
  int error = pthread_create(thread, NULL, run, argument);
  if (error != 0)
    die("pthread_create: %s", strerror(error));
}

/* An eventfd in an epoll set of its own. */
struct line {
  int epoll, eventfd;
};

static struct line open_line(void)
{
  struct epoll_event event = {.events = EPOLLIN};
  struct line line = {check("epoll_create1", epoll_create1(EPOLL_CLOEXEC)),
                      check("eventfd", eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC))};
  check("epoll_ctl",
        epoll_ctl(line.epoll, EPOLL_CTL_ADD, line.eventfd, &event));
  return line;
}

static void close_line(struct line line)
{
  close(line.epoll);
  close(line.eventfd);
}

/* What was written since the last time; 0 if nothing was, without waiting. */
static int64_t receive(struct line line, int timeout_ms)
{
  struct epoll_event event;
  uint64_t value;
  int n;
  do
    n = epoll_wait(line.epoll, &event, 1, timeout_ms);
  while (n < 0 && errno == EINTR);
  if (check("epoll_wait", n) == 0)
    return 0;
  if (read(line.eventfd, &value, sizeof value) != sizeof value)
    die("an event of an eventfd that is not ready");
  return (int64_t)value;
}

/* ---- the round trip, both threads on one CPU, or each on its own ---- */

struct trip {
  long count;
  int there_cpu;
};

static long trips, here_count, there_count;
static int there_cpu;
static struct line here_line, there_line;
static evloop_t here_loop, there_loop;
static evloop_watcher_t here, there;

static void begin_trips(const struct trip *trip)
{
  trips = trip->count;
  there_cpu = trip->there_cpu;
}

static void *there_raw(void *argument)
{
  (void)argument;
  bind_to(there_cpu);
  while (there_count < trips) {
    there_count += receive(there_line, -1);
    add_one(here_line.eventfd);
  }
  return NULL;
}

static void trip_raw(const void *parameters, double *out)
{
  pthread_t thread;
  begin_trips(parameters);
  here_count = there_count = 0;
  here_line = open_line();
  there_line = open_line();
  bind_to(0);
  start(&thread, there_raw, NULL);
  int64_t began = now_ns();
  while (here_count < trips) {
    add_one(there_line.eventfd);
    here_count += receive(here_line, -1);
  }
  out[0] = (double)(now_ns() - began) / 1e3 / (double)trips;
  pthread_join(thread, NULL);
  unbind();
  expect("events here", here_count, trips);
  expect("events there", there_count, trips);
  expect("events after the last", receive(here_line, 0), 0);
  close_line(here_line);
  close_line(there_line);
}

static void on_there(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  if (++there_count == trips)
    evloop_stop(there_loop);
  must(evloop_async_send(here));
}

static void on_here(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  if (++here_count == trips)
    evloop_stop(here_loop);
  else
    must(evloop_async_send(there));
}

static void *there_evloop(void *argument)
{
  (void)argument;
  bind_to(there_cpu);
  must(evloop_run(there_loop, EVLOOP_RUN_UNTIL_DONE));
  return NULL;
}

static void trip_evloop(const void *parameters, double *out)
{
  pthread_t thread;
  begin_trips(parameters);
  here_count = there_count = 0;
  here_loop = new_loop(0);
  there_loop = new_loop(0);
  here = must(evloop_add_async(here_loop, on_here, NULL));
  there = must(evloop_add_async(there_loop, on_there, NULL));
  bind_to(0);
  start(&thread, there_evloop, NULL);
  int64_t began = now_ns();
  must(evloop_async_send(there));
  must(evloop_run(here_loop, EVLOOP_RUN_UNTIL_DONE));
  out[0] = (double)(now_ns() - began) / 1e3 / (double)trips;
  pthread_join(thread, NULL);
  unbind();
  must(evloop_run(here_loop, EVLOOP_RUN_NOWAIT));
  must(evloop_run(there_loop, EVLOOP_RUN_NOWAIT));
  expect("events here", here_count, trips);
  expect("events there", there_count, trips);
  must(evloop_close(here_loop));
  must(evloop_close(there_loop));
}

/* ---- a send when one is pending, while the loop is in a callback ---- */

/* The callback starts the sender and waits for its end. */
struct pending {
  long sends;
  int64_t elapsed;
  evloop_watcher_t watcher;
  evloop_t loop;
  long delivered;
};

static void *pending_sender(void *argument)
{
  struct pending *p = argument;
  must(evloop_async_send(p->watcher));
  int64_t began = now_ns();
  for (long i = 1; i < p->sends; i++)
    must(evloop_async_send(p->watcher));
  p->elapsed = now_ns() - began;
  return NULL;
}

static void pending_hold(const evloop_event_t *event, void *user_data)
{
  pthread_t thread;
  (void)event;
  start(&thread, pending_sender, user_data);
  pthread_join(thread, NULL);
}

static void pending_delivered(const evloop_event_t *event, void *user_data)
{
  struct pending *p = user_data;
  (void)event;
  p->delivered++;
  evloop_stop(p->loop);
}

static void pending_raw(const void *parameters, double *out)
{
  long sends = *(const long *)parameters;
  struct line line = open_line();
  add_one(line.eventfd);
  int64_t began = now_ns();
  for (long i = 1; i < sends; i++)
    add_one(line.eventfd);
  out[0] = (double)(now_ns() - began) / (double)(sends - 1);
  expect("what was sent", receive(line, 0), sends);
  close_line(line);
}

static void pending_evloop(const void *parameters, double *out)
{
  struct pending p = {.sends = *(const long *)parameters};
  p.loop = new_loop(0);
  p.watcher = must(evloop_add_async(p.loop, pending_delivered, &p));
  must(evloop_add_defer(p.loop, pending_hold, &p));
  must(evloop_run(p.loop, EVLOOP_RUN_UNTIL_DONE));
  must(evloop_run(p.loop, EVLOOP_RUN_NOWAIT));
  expect("events of many sends", p.delivered, 1);
  must(evloop_close(p.loop));
  out[0] = (double)p.elapsed / (double)(p.sends - 1);
}

/* ---- sends and posts when none is pending, and the loop is awake ---- */

/* The loop spins on another CPU, on an idle watcher (raw: epoll_wait() with
 * no timeout), while this thread sends a burst: each send to another watcher
 * (raw: each is a write). Then it waits until all arrived. The median of the
 * bursts is taken. */
enum { BURST = 1000, MOST_BURSTS = 400 };

static struct {
  struct line line;
  evloop_t loop;
  evloop_watcher_t watchers[BURST];
  long counts[BURST];
  _Alignas(64) atomic_long arrived;
  _Alignas(64) atomic_bool finish;
  atomic_bool running;
} awake;

static double bursts(int n, void (*burst)(void))
{
  double times[MOST_BURSTS];
  while (!awake.running)
    sched_yield();
  for (int i = 0; i < n; i++) {
    int64_t began = now_ns();
    burst();
    times[i] = (double)(now_ns() - began) / BURST;
    int64_t patience = now_ns() + 10 * (int64_t)SECOND;
    while (atomic_load(&awake.arrived) < (long)(i + 1) * BURST) {
      if (now_ns() > patience)
        die("of %ld events %ld arrived", (long)(i + 1) * BURST,
            atomic_load(&awake.arrived));
      sched_yield();
    }
  }
  return median(times, n);
}

static void arrived(long n)
{
  atomic_store_explicit(&awake.arrived,
                        atomic_load_explicit(&awake.arrived,
                                             memory_order_relaxed) + n,
                        memory_order_release);
}

static void *awake_raw_thread(void *argument)
{
  (void)argument;
  bind_to(1);
  awake.running = true;
  while (!atomic_load_explicit(&awake.finish, memory_order_relaxed)) {
    long n = receive(awake.line, 0);
    if (n > 0)
      arrived(n);
  }
  return NULL;
}

static void burst_raw(void)
{
  for (int i = 0; i < BURST; i++)
    add_one(awake.line.eventfd);
}

static void awake_raw(const void *parameters, double *out)
{
  int n = *(const int *)parameters;
  pthread_t thread;
  memset(&awake, 0, sizeof awake);
  awake.line = open_line();
  bind_to(0);
  start(&thread, awake_raw_thread, NULL);
  out[0] = bursts(n, burst_raw);
  awake.finish = true;
  pthread_join(thread, NULL);
  unbind();
  expect("what was sent", awake.arrived, (long)n * BURST);
  close_line(awake.line);
}

static void awake_idle(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  awake.running = true;
  if (atomic_load_explicit(&awake.finish, memory_order_relaxed))
    evloop_stop(awake.loop);
}

static void *awake_evloop_thread(void *argument)
{
  (void)argument;
  bind_to(1);
  must(evloop_run(awake.loop, EVLOOP_RUN_UNTIL_DONE));
  return NULL;
}

static void on_sent(const evloop_event_t *event, void *user_data)
{
  (void)event;
  awake.counts[unbox(user_data)]++;
  arrived(1);
}

static void burst_send(void)
{
  for (int i = 0; i < BURST; i++)
    must(evloop_async_send(awake.watchers[i]));
}

static void on_posted(const evloop_event_t *event, void *user_data)
{
  long i = unbox(user_data);
  (void)event;
  if (atomic_load_explicit(&awake.arrived, memory_order_relaxed) % BURST != i)
    die("posted calls were made out of order");
  awake.counts[i]++;
  arrived(1);
}

static void burst_post(void)
{
  for (int i = 0; i < BURST; i++)
    must(evloop_post(awake.loop, on_posted, box(i)));
}

static void awake_evloop(int n, void (*burst)(void), double *out)
{
  pthread_t thread;
  memset(&awake, 0, sizeof awake);
  awake.loop = new_loop(0);
  for (int i = 0; i < BURST; i++)
    awake.watchers[i] = must(evloop_add_async(awake.loop, on_sent, box(i)));
  must(evloop_add_idle(awake.loop, awake_idle, NULL));
  bind_to(0);
  start(&thread, awake_evloop_thread, NULL);
  out[0] = bursts(n, burst);
  awake.finish = true;
  pthread_join(thread, NULL);
  unbind();
  must(evloop_run(awake.loop, EVLOOP_RUN_NOWAIT));
  for (int i = 0; i < BURST; i++)
    expect("events of one in each burst", awake.counts[i], n);
  must(evloop_close(awake.loop));
}

static void awake_send(const void *parameters, double *out)
{
  awake_evloop(*(const int *)parameters, burst_send, out);
}

static void awake_post(const void *parameters, double *out)
{
  awake_evloop(*(const int *)parameters, burst_post, out);
}

/* ---- two loops that have nothing to do with each other ---- */

/* Each spins on an idle watcher, on its own CPU. What one of them costs an
 * iteration is what the other one's writes cost it, too. */
static struct apart {
  _Alignas(128) evloop_t loop;
  long left;
  int cpu;
  double ns;
} apart[2];
static pthread_barrier_t both;

static void apart_idle(const evloop_event_t *event, void *user_data)
{
  struct apart *one = user_data;
  (void)event;
  if (--one->left == 0)
    evloop_stop(one->loop);
}

static void *apart_run(void *argument)
{
  struct apart *one = argument;
  long count = one->left;
  bind_to(one->cpu);
  pthread_barrier_wait(&both);
  int64_t began = cpu_ns();
  must(evloop_run(one->loop, EVLOOP_RUN_UNTIL_DONE));
  one->ns = (double)(cpu_ns() - began) / (double)count;
  return NULL;
}

static void apart_evloop(const void *parameters, double *out)
{
  pthread_t threads[2];
  pthread_barrier_init(&both, NULL, 2);
  for (int i = 0; i < 2; i++) {
    apart[i] = (struct apart){new_loop(0), *(const long *)parameters, i, 0};
    must(evloop_add_idle(apart[i].loop, apart_idle, &apart[i]));
  }
  for (int i = 0; i < 2; i++)
    start(&threads[i], apart_run, &apart[i]);
  for (int i = 0; i < 2; i++) {
    pthread_join(threads[i], NULL);
    expect("iterations left", apart[i].left, 0);
    must(evloop_close(apart[i].loop));
  }
  pthread_barrier_destroy(&both);
  out[0] = (apart[0].ns + apart[1].ns) / 2;
}

/* ---- a loop that another thread looks at all the time ---- */

/* The looker reads only what a loop hardly ever changes, as every sender
 * does first. A cache line that has this and what the loop writes goes to and
 * fro between the two. */
static atomic_bool looking;
static double look_ns;

static void *looker(void *argument)
{
  evloop_t loop = *(evloop_t *)argument;
  long looks = 0;
  bind_to(0);
  int64_t began = cpu_ns();
  for (; atomic_load_explicit(&looking, memory_order_relaxed); looks++)
    must(evloop_handle_kind(loop));
  look_ns = (double)(cpu_ns() - began) / (double)looks;
  return NULL;
}

static void looked_at_evloop(const void *parameters, double *out)
{
  pthread_t thread;
  struct apart *one = &apart[1];
  pthread_barrier_init(&both, NULL, 1);
  *one = (struct apart){new_loop(0), *(const long *)parameters, 1, 0};
  must(evloop_add_idle(one->loop, apart_idle, one));
  looking = true;
  start(&thread, looker, &one->loop);
  apart_run(one);
  looking = false;
  pthread_join(thread, NULL);
  unbind();
  pthread_barrier_destroy(&both);
  expect("iterations left", one->left, 0);
  must(evloop_close(one->loop));
  out[0] = one->ns;
  out[1] = look_ns;
}

void bench_wakeup(void)
{
  static const char *const no_second_cpu =
      "W6: one CPU only: the loop cannot spin beside the sender";
  const struct trip on_one = {settings.quick ? 500 : 30000, 0};
  const struct trip on_two = {settings.quick ? 500 : 30000, 1};
  long iterations = settings.quick ? 1000 : 300000;
  long sends = settings.quick ? 10000 : 1000000;
  int burst_count = settings.quick ? 5 : MOST_BURSTS;
  const struct work works[] = {
      {.raw = trip_raw,
       .evloop = trip_evloop,
       .parameters = &on_one,
       .figures = {{"W6 round trip, one CPU", "us", RATIO, 0.95}}},
      {.raw = trip_raw,
       .evloop = trip_evloop,
       .parameters = &on_two,
       .figures = {{"W6 round trip, two CPUs", "us", NO_GOAL, 0}}},
      {.evloop = apart_evloop,
       .parameters = &iterations,
       .figures = {{"W6 iteration beside another loop", "CPU ns", NO_GOAL, 0}}},
      {.evloop = looked_at_evloop,
       .parameters = &iterations,
       .figures = {{"W6 iteration beside a looker", "CPU ns", NO_GOAL, 0},
                   {"W6 a look at a spinning loop", "CPU ns", NO_GOAL, 0}}},
      {.raw = pending_raw,
       .evloop = pending_evloop,
       .parameters = &sends,
       .figures = {{"W6 send, one is pending", "ns/call", AT_MOST, 2}}},
      {.raw = awake_raw,
       .evloop = awake_send,
       .parameters = &burst_count,
       .figures = {{"W6 send, none pending, loop awake", "ns/call", AT_MOST,
                    15}}},
      {.evloop = awake_post,
       .parameters = &burst_count,
       .figures = {{"W6 post, loop awake", "ns/call", AT_MOST, 40}}},
  };
  if (!wanted("W6"))
    return;
  if (cpus() < 2)
    note(no_second_cpu);
  for (size_t i = 0; i < sizeof works / sizeof *works; i++)
    compare(&works[i]);
}
