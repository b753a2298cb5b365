/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Descriptors: W1, the chain of pipes; W2, watchers that come, go and
 * change; W7, what is always ready. */

#define _GNU_SOURCE

#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* What epoll_wait() is given room for; the library's default is the same. */
enum { BATCH = 1024 };

static int wait_raw(int epoll, struct epoll_event *ready, int timeout_ms)
{
  int n = epoll_wait(epoll, ready, BATCH, timeout_ms);
  if (n < 0 && errno == EINTR)
    return 0;
  return check("epoll_wait", n);
}

static void control(int epoll, int operation, int fd, uint32_t events,
                    uint64_t data)
{
  struct epoll_event event = {.events = events, .data = {.u64 = data}};
  check("epoll_ctl", epoll_ctl(epoll, operation, fd, &event));
}

/* ---- W1: each pipe's byte is read and written to the next pipe ---- */

struct hop {
  int in, next_out;
};

static struct hop *hops;
static int *outs;
static int hop_count;
static long to_write, to_read;
static evloop_t chain_loop;

void chain_open(int pipes)
{
  hop_count = pipes;
  hops = calloc((size_t)pipes, sizeof *hops);
  outs = calloc((size_t)pipes, sizeof *outs);
  for (int i = 0; i < pipes; i++) {
    int ends[2];
    check("pipe2", pipe2(ends, O_NONBLOCK | O_CLOEXEC));
    hops[i].in = ends[0];
    outs[i] = ends[1];
  }
  for (int i = 0; i < pipes; i++)
    hops[i].next_out = outs[(i + 1) % pipes];
}

void chain_close(void)
{
  for (int i = 0; i < hop_count; i++) {
    close(hops[i].in);
    close(outs[i]);
  }
  free(hops);
  free(outs);
}

static void put(int out)
{
  if (write(out, "x", 1) != 1)
    die("write to a pipe: %s", strerror(errno));
}

/* The callback of both sides: true at the last byte. */
static inline bool pass_on(const struct hop *hop)
{
  char byte;
  if (read(hop->in, &byte, 1) != 1)
    die("an event without a byte: %s", strerror(errno));
  if (to_write > 0) {
    to_write--;
    put(hop->next_out);
  }
  return --to_read == 0;
}

/* Puts the first bytes in, evenly spread. */
static void chain_begin(const struct chain *chain)
{
  to_read = chain->events;
  to_write = chain->events - chain->active;
  for (int i = 0; i < chain->active; i++)
    put(outs[(long)i * hop_count / chain->active]);
}

static void chain_end(const struct chain *chain)
{
  char byte;
  expect("bytes that were not read", to_read, 0);
  expect("bytes that were not written", to_write, 0);
  for (int i = 0; i < chain->pipes; i++)
    if (read(hops[i].in, &byte, 1) != -1 || errno != EAGAIN)
      die("there is a byte left in a pipe of the chain");
}

/* What an event of a kqueue says, and an epoll does not: how many bytes there
 * are, and that the number still is the pipe that was registered. */
static void look_into(int epoll, const struct hop *hop)
{
  struct epoll_event event = {.events = EPOLLONESHOT};
  int bytes;
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, hop->in, &event) != -1 || errno != EEXIST)
    die("a pipe of the chain is not registered");
  check("FIONREAD", ioctl(hop->in, FIONREAD, &bytes));
  expect("bytes in a pipe", bytes, 1);
}

static void chain_on_epoll(const struct chain *chain, double *out, bool looks)
{
  static struct epoll_event ready[BATCH];
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  bool done = false;
  for (int i = 0; i < chain->pipes; i++)
    control(epoll, EPOLL_CTL_ADD, hops[i].in, EPOLLIN, (uintptr_t)&hops[i]);
  chain_begin(chain);

  instructions_begin();
  int64_t began = now_ns();
  do {
    int n = wait_raw(epoll, ready, -1);
    for (int i = 0; i < n; i++) {
      if (looks)
        look_into(epoll, ready[i].data.ptr);
      done |= pass_on(ready[i].data.ptr);
    }
  } while (!done);
  out[0] = (double)(now_ns() - began) / (double)chain->events;
  out[1] = instructions_end() / (double)chain->events;

  expect("events after the last", wait_raw(epoll, ready, 0), 0);
  chain_end(chain);
  close(epoll);
}

void chain_raw(const void *chain, double *out)
{
  chain_on_epoll(chain, out, false);
}

void chain_raw_as_kqueue(const void *chain, double *out)
{
  chain_on_epoll(chain, out, true);
}

static void on_pipe(const evloop_event_t *event, void *user_data)
{
  (void)event;
  if (pass_on(user_data))
    evloop_stop(chain_loop);
}

static void chain_on_loop(const struct chain *chain, double *out, int stats)
{
  chain_loop = new_loop(0);
  if (stats)
    must(evloop_set_stats(chain_loop, 1));
  for (int i = 0; i < chain->pipes; i++)
    must(evloop_add_io(chain_loop, hops[i].in, EVLOOP_EPOLLIN, on_pipe,
                       &hops[i]));
  chain_begin(chain);

  instructions_begin();
  int64_t began = now_ns();
  must(evloop_run(chain_loop, EVLOOP_RUN_UNTIL_DONE));
  out[0] = (double)(now_ns() - began) / (double)chain->events;
  out[1] = instructions_end() / (double)chain->events;

  must(evloop_run(chain_loop, EVLOOP_RUN_NOWAIT));
  chain_end(chain);
  must(evloop_close(chain_loop));
}

void chain_evloop(const void *parameters, double *out)
{
  chain_on_loop(parameters, out, 0);
}

static void chain_stats(const void *parameters, double *out)
{
  chain_on_loop(parameters, out, 1);
}

static void chain_by_kqueue(const struct chain *chain, uint32_t flags, double *out)
{
  static evloop_kevent_t ready[BATCH];
  evloop_kqueue_t kq = must(evloop_kqueue_create(flags));
  bool done = false;
  for (int i = 0; i < chain->pipes; i++)
    change_kqueue(kq, (uint64_t)hops[i].in, EVLOOP_KQ_FILTER_READ,
                  EVLOOP_KQ_EV_ADD, 0, 0, (uintptr_t)&hops[i]);
  chain_begin(chain);

  instructions_begin();
  int64_t began = now_ns();
  do {
    int n = (int)must(evloop_kqueue_control(kq, NULL, 0, ready, BATCH, -1));
    for (int i = 0; i < n; i++)
      done |= pass_on((const struct hop *)(uintptr_t)ready[i].udata);
  } while (!done);
  out[0] = (double)(now_ns() - began) / (double)chain->events;
  out[1] = instructions_end() / (double)chain->events;

  expect("events after the last",
         must(evloop_kqueue_control(kq, NULL, 0, ready, BATCH, 0)), 0);
  chain_end(chain);
  must(evloop_kqueue_close(kq));
}

void chain_kqueue(const void *chain, double *out)
{
  chain_by_kqueue(chain, 0, out);
}

void chain_trusting_kqueue(const void *chain, double *out)
{
  chain_by_kqueue(chain, EVLOOP_KQ_TRUST_FDS, out);
}

/* The cost of statistics: the loop with them against the loop without. So small
 * a cost shows only in many short rounds. */
static void bench_chain_stats(const struct chain *chain)
{
  struct chain part = *chain;
  struct work work = {.raw = chain_evloop,
                      .evloop = chain_stats,
                      .parameters = &part,
                      .rounds = MOST_ROUNDS,
                      .figures = {{"", "ns/event", RATIO, 1.02}}};
  snprintf(work.figures[0].name, sizeof work.figures[0].name,
           "W1 chain %d/%d, statistics on / off", chain->pipes, chain->active);
  part.events /= 5;
  compare(&work);
}

void bench_chain(void)
{
  static const int pipes[] = {100, 1000, 9900}, actives[] = {1, 100, 1000};
  if (!wanted("W1"))
    return;
  for (int p = 0; p < 3; p++) {
    int most = (descriptors_left() - 8) / 2;
    int n = pipes[p] < most ? pipes[p] : most;
    if (p > 0 && n <= pipes[p - 1])
      break;
    chain_open(n);
    for (int a = 0; a < 3 && actives[a] <= n; a++) {
      struct chain chain = {n, actives[a], settings.quick ? 5000 : 200000};
      struct work work = {.raw = chain_raw,
                          .evloop = chain_evloop,
                          .parameters = &chain,
                          .figures = {{"", "ns/event", RATIO, 1.05},
                                      {"", "user instr", AT_MOST, 80}}};
      for (int i = 0; i < 2; i++)
        snprintf(work.figures[i].name, sizeof work.figures[i].name,
                 "W1 chain %d/%d", n, chain.active);
      compare(&work);
      if (p == 1 && actives[a] < 1000)
        bench_chain_stats(&chain);
    }
    chain_close();
  }
}

/* ---- W2: watchers come, go and change ---- */

/* Quiet descriptors. A step is what one iteration does to all of them; an
 * iteration, waiting not at all, follows each step, so that what a call
 * leaves for later is paid for too. */
enum { QUIET = 1000 };

struct churn {
  void (*raw)(int step), (*evloop)(int step);
  bool registered; /* before the first step, and after the last */
  int divisor;     /* steps that make a pair of all */
};

static int *quiet;
static evloop_watcher_t watchers[QUIET];
static int churn_epoll, steps, step_count;
static evloop_t churn_loop;
static long churn_events;
static int64_t churn_began, churn_ended;
static const struct churn *churning;

static void on_quiet(const evloop_event_t *event, void *user_data)
{
  uint64_t value;
  (void)user_data;
  if (read(event->fd, &value, sizeof value) != sizeof value)
    die("an event of a descriptor that is not ready");
  churn_events++;
}

static void raw_all(int operation, uint32_t events)
{
  for (int i = 0; i < QUIET; i++)
    control(churn_epoll, operation, quiet[i], events, (uint64_t)i);
}

static void evloop_add(int i)
{
  watchers[i] =
      must(evloop_add_io(churn_loop, quiet[i], EVLOOP_EPOLLIN, on_quiet, NULL));
}

static void raw_add_close(int step)
{
  (void)step;
  for (int i = 0; i < QUIET; i++) {
    control(churn_epoll, EPOLL_CTL_ADD, quiet[i], EPOLLIN, (uint64_t)i);
    control(churn_epoll, EPOLL_CTL_DEL, quiet[i], 0, 0);
  }
}

static void evloop_add_close(int step)
{
  (void)step;
  for (int i = 0; i < QUIET; i++) {
    evloop_add(i);
    must(evloop_watcher_close(watchers[i], 0));
  }
}

static void raw_add_close_across(int step)
{
  raw_all(step % 2 == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, EPOLLIN);
}

static void evloop_add_close_across(int step)
{
  for (int i = 0; i < QUIET; i++) {
    if (step % 2 == 0)
      evloop_add(i);
    else
      must(evloop_watcher_close(watchers[i], 0));
  }
}

/* By hand, disabling is removing: with no events a hang-up would still be
 * reported. */
static void raw_disable_enable(int step)
{
  (void)step;
  for (int i = 0; i < QUIET; i++) {
    control(churn_epoll, EPOLL_CTL_DEL, quiet[i], 0, 0);
    control(churn_epoll, EPOLL_CTL_ADD, quiet[i], EPOLLIN, (uint64_t)i);
  }
}

static void evloop_disable_enable(int step)
{
  (void)step;
  for (int i = 0; i < QUIET; i++) {
    must(evloop_watcher_disable(watchers[i]));
    must(evloop_watcher_enable(watchers[i]));
  }
}

static void raw_disable_enable_across(int step)
{
  raw_all(step % 2 == 0 ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, EPOLLIN);
}

static void evloop_disable_enable_across(int step)
{
  for (int i = 0; i < QUIET; i++)
    must(step % 2 == 0 ? evloop_watcher_disable(watchers[i])
                       : evloop_watcher_enable(watchers[i]));
}

static void raw_modify(int step)
{
  raw_all(EPOLL_CTL_MOD, step % 2 == 0 ? EPOLLIN | EPOLLPRI : EPOLLIN);
}

static void evloop_modify(int step)
{
  uint32_t events = step % 2 == 0 ? EVLOOP_EPOLLIN | EVLOOP_EPOLLPRI
                                  : EVLOOP_EPOLLIN;
  for (int i = 0; i < QUIET; i++)
    must(evloop_io_modify(watchers[i], events));
}

static double pair_ns(int64_t elapsed)
{
  return (double)elapsed * churning->divisor / ((double)steps * QUIET);
}

static void churn_raw(const void *parameters, double *out)
{
  static struct epoll_event ready[BATCH];
  churning = parameters;
  churn_epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  if (churning->registered)
    raw_all(EPOLL_CTL_ADD, EPOLLIN);
  int64_t began = now_ns();
  for (int step = 0; step < steps; step++) {
    churning->raw(step);
    expect("events of quiet descriptors", wait_raw(churn_epoll, ready, 0), 0);
  }
  out[0] = pair_ns(now_ns() - began);

  /* All of them are watched, or none. */
  for (int i = 0; i < QUIET; i++)
    add_one(quiet[i]);
  expect("events at the end", wait_raw(churn_epoll, ready, 0),
         churning->registered ? QUIET : 0);
  close(churn_epoll);
  for (int i = 0; i < QUIET; i++) {
    uint64_t value;
    if (read(quiet[i], &value, sizeof value) != sizeof value)
      die("an eventfd lost its value");
  }
}

static void churn_step(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  if (step_count == 0)
    churn_began = now_ns();
  if (step_count == steps) {
    churn_ended = now_ns();
    evloop_stop(churn_loop);
  } else {
    churning->evloop(step_count++);
  }
}

static void churn_evloop(const void *parameters, double *out)
{
  churning = parameters;
  churn_loop = new_loop(0);
  churn_events = 0;
  step_count = 0;
  if (churning->registered)
    for (int i = 0; i < QUIET; i++)
      evloop_add(i);
  evloop_watcher_t idle = must(evloop_add_idle(churn_loop, churn_step, NULL));
  must(evloop_run(churn_loop, EVLOOP_RUN_UNTIL_DONE));
  out[0] = pair_ns(churn_ended - churn_began);
  expect("events of quiet descriptors", churn_events, 0);
  expect("steps", step_count, steps);

  must(evloop_watcher_close(idle, 0));
  for (int i = 0; i < QUIET; i++)
    add_one(quiet[i]);
  for (int i = 0; i < 3; i++)
    must(evloop_run(churn_loop, EVLOOP_RUN_NOWAIT));
  expect("events at the end", churn_events, churning->registered ? QUIET : 0);
  must(evloop_close(churn_loop));
  for (int i = 0; i < QUIET; i++) {
    uint64_t value;
    if ((read(quiet[i], &value, sizeof value) < 0) != churning->registered)
      die("an eventfd was read without an event, or not at all");
  }
}

void bench_churn(void)
{
  static const struct churn churns[] = {
      {raw_add_close, evloop_add_close, false, 1},
      {raw_add_close_across, evloop_add_close_across, false, 2},
      {raw_disable_enable, evloop_disable_enable, true, 1},
      {raw_disable_enable_across, evloop_disable_enable_across, true, 2},
      {raw_modify, evloop_modify, true, 1},
  };
  static const struct figure figures[] = {
      {"W2 add+close, one iteration", "ns/pair", RATIO, 1.05},
      {"W2 add+close, across iterations", "ns/pair", RATIO, 1.05},
      {"W2 disable+enable, one iteration", "ns/pair", AT_MOST, 5},
      {"W2 disable+enable, across iterations", "ns/pair", AT_MOST, 20},
      {"W2 modify, across iterations", "ns/call", RATIO, 1.05},
  };
  if (!wanted("W2"))
    return;
  quiet = open_eventfds(QUIET, 0);
  steps = settings.quick ? 4 : 100;
  for (size_t i = 0; i < sizeof churns / sizeof *churns; i++) {
    struct work work = {.raw = churn_raw,
                        .evloop = churn_evloop,
                        .parameters = &churns[i],
                        .figures = {figures[i]}};
    compare(&work);
  }
  close_all(quiet, QUIET);
}

/* ---- W7: descriptors that are always ready ---- */

struct ready {
  int descriptors;
  long events; /* a multiple of descriptors */
};

static int *always;
static long *ready_counts;
static long ready_left;
static evloop_t ready_loop;

static inline bool count_ready(intptr_t i)
{
  ready_counts[i]++;
  return --ready_left == 0;
}

static void ready_end(const struct ready *r)
{
  expect("events of ready descriptors", r->events - ready_left, r->events);
  for (int i = 0; i < r->descriptors; i++)
    expect("events of one ready descriptor", ready_counts[i],
           r->events / r->descriptors);
  free(ready_counts);
}

static void ready_raw(const void *parameters, double *out)
{
  static struct epoll_event ready[BATCH];
  const struct ready *r = parameters;
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  bool done = false;
  for (int i = 0; i < r->descriptors; i++)
    control(epoll, EPOLL_CTL_ADD, always[i], EPOLLIN, (uint64_t)i);
  ready_left = r->events;
  ready_counts = calloc((size_t)r->descriptors, sizeof *ready_counts);
  int64_t began = now_ns();
  do {
    int n = wait_raw(epoll, ready, -1);
    for (int i = 0; i < n; i++)
      done |= count_ready((intptr_t)ready[i].data.u64);
  } while (!done);
  out[0] = (double)(now_ns() - began) / (double)r->events;
  ready_end(r);
  close(epoll);
}

static void on_ready(const evloop_event_t *event, void *user_data)
{
  (void)event;
  if (count_ready(unbox(user_data)))
    evloop_stop(ready_loop);
}

static void ready_evloop(const void *parameters, double *out)
{
  const struct ready *r = parameters;
  ready_loop = new_loop(0);
  for (int i = 0; i < r->descriptors; i++)
    must(evloop_add_io(ready_loop, always[i], EVLOOP_EPOLLIN, on_ready,
                       box(i)));
  ready_left = r->events;
  ready_counts = calloc((size_t)r->descriptors, sizeof *ready_counts);
  int64_t began = now_ns();
  must(evloop_run(ready_loop, EVLOOP_RUN_UNTIL_DONE));
  out[0] = (double)(now_ns() - began) / (double)r->events;
  ready_end(r);
  must(evloop_close(ready_loop));
}

void ready_count(long count)
{
  const struct ready one = {1, count};
  double ns;
  always = open_eventfds(1, 1);
  ready_evloop(&one, &ns);
  close_all(always, 1);
}

void bench_ready(void)
{
  struct ready one = {1, settings.quick ? 10000 : 500000};
  struct ready many = {64, settings.quick ? 64000 : 1600000};
  struct work work_one = {
      .raw = ready_raw,
      .evloop = ready_evloop,
      .parameters = &one,
      .figures = {{"W7 always ready, 1", "ns/iter", RATIO, 1.05}}};
  struct work work_many = {
      .raw = ready_raw,
      .evloop = ready_evloop,
      .parameters = &many,
      .figures = {{"W7 always ready, 64", "ns/event", RATIO, 1.02}}};
  if (!wanted("W7"))
    return;
  always = open_eventfds(64, 1);
  compare(&work_one);
  compare(&work_many);
  close_all(always, 64);
}
