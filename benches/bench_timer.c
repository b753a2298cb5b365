/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Timers: W3, made and refreshed; W3L, refreshed with nothing deferred left
 * out; W4, a great many that expire; W4d, a thousand that are dense; W5, how
 * late one is. */

#define _GNU_SOURCE

#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { NO_INTERVAL = 0, EXACT = 0 };

static const int64_t MINUTE = 60 * (int64_t)SECOND;

static evloop_t loop;

static void set_raw(int timerfd, int flags, int64_t ns)
{
  struct itimerspec to = {.it_value = {ns / SECOND, ns % SECOND}};
  check("timerfd_settime", timerfd_settime(timerfd, flags, &to, NULL));
}

/* ---- W3: timers of a minute, made and refreshed in a callback ---- */

static long count;  /* timers */
static int passes;  /* over all of them */
static evloop_watcher_t *timers;
static int phase;
static int64_t made_ns, refreshed_ns;

static void never(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  die("a timer of a minute expired %lld ns after its time",
      (long long)(event->time_ns - event->deadline_ns));
}

static void make_raw(const void *parameters, double *out)
{
  int n = (int)*(const long *)parameters, rounds = 4;
  int *fds = calloc((size_t)n, sizeof *fds);
  struct epoll_event ready;
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  int64_t began = now_ns();
  for (int i = 0; i < n; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = (unsigned)i}};
    fds[i] = check("timerfd_create",
                   timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
    set_raw(fds[i], 0, MINUTE);
    check("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fds[i], &event));
  }
  int64_t made = now_ns();
  for (int round = 0; round < rounds; round++)
    for (int i = 0; i < n; i++)
      set_raw(fds[i], 0, MINUTE);
  int64_t refreshed = now_ns();
  out[0] = (double)(made - began) / n;
  out[1] = (double)(refreshed - made) / ((double)n * rounds);
  expect("timers of a minute that expired", epoll_wait(epoll, &ready, 1, 0), 0);
  close_all(fds, n);
  close(epoll);
}

/* An idle watcher: each pass is an iteration's. Only the calls are timed; the
 * iterations between them are W3L's business. */
static void make_step(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  int64_t began = now_ns();
  if (phase == 0) {
    for (long i = 0; i < count; i++)
      timers[i] = must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, MINUTE,
                                        NO_INTERVAL, EXACT, never, NULL));
    made_ns = now_ns() - began;
  } else {
    for (long i = 0; i < count; i++)
      must(evloop_timer_again(timers[i]));
    refreshed_ns += now_ns() - began;
  }
  if (phase++ == passes)
    evloop_stop(loop);
}

static void make_evloop(const void *parameters, double *out)
{
  count = *(const long *)parameters;
  passes = count >= 250000 ? 4 : (int)(1000000 / count);
  timers = malloc((size_t)count * sizeof *timers);
  memset(timers, 1, (size_t)count * sizeof *timers);
  phase = 0;
  refreshed_ns = 0;
  loop = new_loop(0);
  must(evloop_add_idle(loop, make_step, NULL));
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  expect("passes over the timers", phase, passes + 1);
  expect("timers left", must(evloop_handle_count(EVLOOP_KIND_WATCHER)),
           count + 1);
  int64_t left = must(evloop_timer_remaining_ns(timers[0]));
  if (left > MINUTE || left < MINUTE - 10 * (int64_t)SECOND)
    die("a refreshed timer expires in %lld ns", (long long)left);
  must(evloop_close(loop));
  free(timers);
  out[0] = (double)made_ns / (double)count;
  out[1] = (double)refreshed_ns / ((double)count * passes);
}

static void bench_make(void)
{
  static const struct {
    long count;
    double refresh;
  } sizes[] = {{10000, 2}, {100000, 2}, {1000000, 15}};
  for (int i = 0; i < (settings.quick ? 2 : 3); i++) {
    long n = sizes[i].count;
    struct work work = {.raw = n < descriptors_left() ? make_raw : NULL,
                        .evloop = make_evloop,
                        .parameters = &n,
                        .figures = {{"", "ns/timer", AT_MOST, 15},
                                    {"", "ns/call", AT_MOST,
                                     sizes[i].refresh}}};
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W3 create+start, in a callback, %ld", n);
    snprintf(work.figures[1].name, sizeof work.figures[1].name,
             "W3 refresh of 60 s, in a callback, %ld", n);
    compare(&work);
  }
}

/* ---- W3L: refreshed round robin by a running loop ---- */

/* An idle watcher refreshes a batch in each iteration, for some time, and in
 * the end every timer once more. Then all of them expire. The CPU time of all
 * of it, waits and expirations included, is divided by the refreshes. */
enum { REFRESH_BATCH = 1000 };

static const int64_t TIMEOUT = 50 * MS;

static struct {
  int64_t *stamps;      /* by batch: the time before its last refresh */
  unsigned char *fired; /* by timer, after the end */
  long batches, batch, refreshes, expired, stalled;
  long ending;          /* batches that were refreshed for the last time */
  int64_t lasts_ns, until, cpu;
  bool last_pass;
  evloop_watcher_t idle;
  struct watch watch;
} robin;

static void robin_expired(const evloop_event_t *event, void *user_data)
{
  long i = unbox(user_data), batch = i / REFRESH_BATCH;
  due(&robin.watch, event, robin.stamps[batch] + TIMEOUT, 0);
  if (!robin.last_pass || batch >= robin.ending) {
    robin.stalled++; /* a round took so long, or the machine stood still */
    return;
  }
  if (robin.fired[i]++ != 0)
    die("a timer expired twice");
  if (++robin.expired == count)
    evloop_stop(loop);
}

static void robin_begin(void)
{
  for (long i = 0; i < count; i++)
    timers[i] = must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, TIMEOUT,
                                      NO_INTERVAL, EXACT, robin_expired,
                                      box(i)));
  int64_t now = now_ns();
  for (long i = 0; i < robin.batches; i++)
    robin.stamps[i] = now;
  robin.until = now + robin.lasts_ns;
  robin.cpu = cpu_ns();
}

static void robin_step(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  if (robin.until == 0) {
    robin_begin();
    return;
  }
  if (robin.batch == robin.batches) {
    robin.batch = 0;
    if (robin.last_pass) {
      must(evloop_watcher_disable(robin.idle));
      return;
    }
    robin.last_pass = now_ns() > robin.until;
  }
  const evloop_watcher_t *first = &timers[robin.batch * REFRESH_BATCH];
  robin.stamps[robin.batch] = now_ns();
  for (int i = 0; i < REFRESH_BATCH; i++)
    must(evloop_timer_again(first[i]));
  robin.refreshes += REFRESH_BATCH;
  robin.batch++;
  if (robin.last_pass)
    robin.ending = robin.batch;
}

static void robin_evloop(const void *parameters, double *out)
{
  count = *(const long *)parameters;
  memset(&robin, 0, sizeof robin);
  robin.batches = count / REFRESH_BATCH;
  robin.lasts_ns = settings.quick ? 150 * MS : SECOND;
  robin.stamps = calloc((size_t)robin.batches, sizeof *robin.stamps);
  robin.fired = calloc((size_t)count, 1);
  timers = calloc((size_t)count, sizeof *timers);
  loop = new_loop(0);
  robin.idle = must(evloop_add_idle(loop, robin_step, NULL));
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  out[0] = (double)(cpu_ns() - robin.cpu) / (double)robin.refreshes;
  expect("timers that expired in the end", robin.expired, count);
  must(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  expect("timers that expired in all", robin.expired, count);
  must(evloop_close(loop));
  out[1] = (double)robin.watch.worst / 1e3;
  out[2] = (double)robin.stalled;
  free(robin.stamps);
  free(robin.fired);
  free(timers);
}

static void bench_robin(void)
{
  static const long sizes[] = {10000, 100000};
  for (int i = 0; i < 2; i++) {
    struct work work = {.evloop = robin_evloop,
                        .parameters = &sizes[i],
                        .rounds = 3,
                        .figures = {{"", "CPU ns/call", AT_MOST, 6},
                                    {"", "us", NO_GOAL, 0},
                                    {"", "timers", NO_GOAL, 0}}};
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W3L refresh of 50 ms, round robin, %ld", sizes[i]);
    snprintf(work.figures[1].name, sizeof work.figures[1].name,
             "W3L worst lateness in the end, %ld", sizes[i]);
    snprintf(work.figures[2].name, sizeof work.figures[2].name,
             "W3L expired between two refreshes, %ld", sizes[i]);
    compare(&work);
  }
}

void bench_timers(void)
{
  if (wanted("W3"))
    bench_make();
  if (wanted("W3L"))
    bench_robin();
}

/* ---- W4: a great many expire within 100 ms ---- */

struct expiry {
  long count;
  int64_t tolerance_ns;
};

static const int64_t SPREAD = 100 * MS, LEAD = MS;

static struct {
  long left;
  uint64_t digest;     /* of the timers that are to expire, then of none */
  int64_t since, last; /* counted from; the last deadline */
  int64_t cpu;
  bool made;
  struct watch watch;
} expiring;

static uint64_t digest(uint64_t x)
{
  x *= 0x9e3779b97f4a7c15u;
  return x ^ (x >> 29);
}

/* user_data is the time that the timer was set to, so that nothing needs to
 * be looked up. Each time occurs once: the digests cancel out if each timer
 * expires once. */
static void expire(const evloop_event_t *event, void *user_data)
{
  int64_t after = unbox(user_data);
  due(&expiring.watch, event, expiring.since + after, 0);
  if (event->deadline_ns < expiring.last)
    die("a timer expired out of order, %lld ns behind",
        (long long)(expiring.last - event->deadline_ns));
  expiring.last = event->deadline_ns;
  expiring.digest -= digest((uint64_t)after);
  if (--expiring.left == 0) {
    expiring.cpu = cpu_ns() - expiring.cpu;
    evloop_stop(loop);
  }
}

/* With a tolerance what may wait is passed by what may not. */
static void expire_tolerant(const evloop_event_t *event, void *user_data)
{
  expiring.last = 0;
  expire(event, user_data);
}

static void expiry_begin(const evloop_event_t *event, void *user_data)
{
  const struct expiry *e = user_data;
  int64_t apart = SPREAD / e->count;
  (void)event;
  if (expiring.made)
    return;
  for (long i = 0; i < e->count; i++) {
    /* Odd and no multiple of five, so every place is taken once. */
    long place = (long)((uint64_t)i * 104729 % (uint64_t)e->count);
    int64_t after = LEAD + place * apart;
    expiring.digest += digest((uint64_t)after);
    must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, after, NO_INTERVAL,
                          e->tolerance_ns,
                          e->tolerance_ns == 0 ? expire : expire_tolerant,
                          box(after)));
  }
  /* Set in a callback they count from its end, which is not before now. */
  expiring.made = true;
  expiring.since = now_ns();
  expiring.cpu = cpu_ns();
}

static void expiry_evloop(const void *parameters, double *out)
{
  struct expiry e = *(const struct expiry *)parameters;
  memset(&expiring, 0, sizeof expiring);
  expiring.left = e.count;
  loop = new_loop(0);
  must(evloop_add_defer(loop, expiry_begin, &e));
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  expect("timers that did not expire", expiring.left, 0);
  must(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  expect("timers that expired once more", -expiring.left, 0);
  expect("the digest of the timers", (int64_t)expiring.digest, 0);
  must(evloop_close(loop));
  out[0] = (double)expiring.cpu / (double)e.count;
  out[1] = (double)(expiring.watch.worst - e.tolerance_ns) / 1e3;
}

void bench_expiry(void)
{
  static const struct expiry expiries[] = {
      {1000000, 0}, {1000000, MS}, {100000, 0}, {100000, MS}};
  if (!wanted("W4"))
    return;
  for (int i = settings.quick ? 2 : 0; i < 4; i++) {
    const struct expiry *e = &expiries[i];
    bool goal = (e->count == 1000000) == (e->tolerance_ns == 0);
    struct work work = {
        .evloop = expiry_evloop,
        .parameters = e,
        .rounds = e->count == 1000000 ? 3 : ROUNDS,
        .figures = {{"", "CPU ns/tmr", goal ? AT_MOST : NO_GOAL, 60},
                    {"", "us", i == 0 ? AT_MOST : NO_GOAL, 1000}}};
    const char *tolerance = e->tolerance_ns == 0 ? "exact" : "1 ms tolerance";
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W4 expiry of %ld in 100 ms, %s", e->count, tolerance);
    snprintf(work.figures[1].name, sizeof work.figures[1].name,
             "W4 worst overrun of %ld, %s", e->count, tolerance);
    compare(&work);
  }
}

/* ---- W4d: timers that are dense, as they are by default and exact ---- */

enum { DENSE = 1000 };

static const int64_t EVERY = 10 * MS;

static struct {
  long expired;
  int64_t last; /* the last deadline */
} dense;

static void tick(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  if (event->time_ns < event->deadline_ns)
    die("a timer expired %lld ns early",
        (long long)(event->deadline_ns - event->time_ns));
  if (event->deadline_ns < dense.last)
    die("a timer expired out of order, %lld ns behind",
        (long long)(dense.last - event->deadline_ns));
  dense.last = event->deadline_ns;
  dense.expired += (long)event->count;
}

/* One is due every 10 us. The share of a core in percent, and wake-ups a
 * second. */
static void density(const void *parameters, double *out)
{
  uint32_t flags = *(const uint32_t *)parameters | EVLOOP_TIMER_ABSTIME;
  int64_t length = settings.quick ? 200 * MS : SECOND;
  evloop_stats_t stats = {.size = sizeof stats};
  memset(&dense, 0, sizeof dense);
  loop = new_loop(0);
  must(evloop_set_stats(loop, 1));
  int64_t begin = now_ns() + EVERY;
  for (int i = 0; i < DENSE; i++)
    must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, flags, begin + EVERY / DENSE * i,
                          EVERY, 0, tick, NULL));
  int64_t cpu = cpu_ns(), began = now_ns();
  must(evloop_run_for_ns(loop, begin - began + length));
  cpu = cpu_ns() - cpu;
  double took = (double)(now_ns() - began);
  must(evloop_stats(loop, &stats));
  if (dense.expired < length / EVERY * DENSE - DENSE)
    die("%ld expirations were counted, not %lld", dense.expired,
        (long long)(length / EVERY * DENSE));
  out[0] = 100 * (double)cpu / took;
  out[1] = (double)stats.wakeups * SECOND / took;
  must(evloop_close(loop));
}

void bench_density(void)
{
  static const uint32_t flags[] = {0, EVLOOP_TIMER_EXACT};
  if (!wanted("W4d"))
    return;
  for (int i = 0; i < 2; i++) {
    struct work work = {
        .evloop = density,
        .parameters = &flags[i],
        .figures = {{"", "% of a core", NO_GOAL, 0}, {"", "wake-ups/s", NO_GOAL, 0}}};
    const char *how = i == 0 ? "by default" : "exact";
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W4d %d timers of 10 ms, %s", DENSE, how);
    snprintf(work.figures[1].name, sizeof work.figures[1].name,
             "W4d wake-ups for them, %s", how);
    compare(&work);
  }
}

/* ---- W5: how late a one-shot timer is ---- */

struct late {
  int64_t delay_ns;
  int samples;
  uint32_t flags; /* of the loop */
};

static double *lateness;
static int sample;
static int64_t late_deadline;
static const struct late *late;

/* Called as soon as the timer is known to have expired; true at the end. */
static inline bool late_sample(void)
{
  int64_t now = now_ns();
  if (now < late_deadline)
    die("a timer expired %lld ns early", (long long)(late_deadline - now));
  lateness[sample++] = (double)(now - late_deadline) / 1e3;
  late_deadline = now_ns() + late->delay_ns;
  return sample == late->samples;
}

static void late_begin(const void *parameters)
{
  late = parameters;
  lateness = calloc((size_t)late->samples, sizeof *lateness);
  sample = 0;
  late_deadline = now_ns() + late->delay_ns;
}

static void late_end(double *out)
{
  expect("expirations", sample, late->samples);
  out[0] = percentile(lateness, sample, 50);
  out[1] = percentile(lateness, sample, 99);
  free(lateness);
}

/* Setting a timerfd again makes it unreadable: no read is needed. */
static void late_raw(const void *parameters, double *out)
{
  struct epoll_event event = {.events = EPOLLIN};
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  int fd = check("timerfd_create",
                 timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  check("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
  late_begin(parameters);
  do {
    set_raw(fd, TFD_TIMER_ABSTIME, late_deadline);
    while (epoll_wait(epoll, &event, 1, -1) != 1)
      if (errno != EINTR)
        die("epoll_wait: %s", strerror(errno));
  } while (!late_sample());
  late_end(out);
  close(fd);
  close(epoll);
}

static void on_late(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  if (late_sample())
    evloop_stop(loop);
  else
    must(evloop_timer_set(event->watcher, EVLOOP_TIMER_ABSTIME, late_deadline,
                          NO_INTERVAL));
}

static void late_evloop(const void *parameters, double *out)
{
  loop = new_loop(((const struct late *)parameters)->flags);
  late_begin(parameters);
  must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, EVLOOP_TIMER_ABSTIME,
                        late_deadline, NO_INTERVAL, EXACT, on_late, NULL));
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  late_end(out);
  must(evloop_close(loop));
}

void bench_late(void)
{
  static const struct {
    const char *text;
    int64_t ns;
    int samples;
  } delays[] = {{"100 us", 100000, 2000}, {"1 ms", MS, 400}, {"10 ms", 10 * MS, 80}};
  if (!wanted("W5"))
    return;
  for (int precise = 0; precise < 2; precise++) {
    for (int i = 0; i < 3; i++) {
      struct late parameters = {delays[i].ns,
                                settings.quick ? 10 : delays[i].samples,
                                precise ? EVLOOP_PRECISE : 0};
      struct work work = {
          .raw = late_raw,
          .evloop = late_evloop,
          .parameters = &parameters,
          .rounds = 3,
          .figures = {{"", "us late", precise ? AT_MOST : RATIO,
                       precise ? 1 : 1.15},
                      {"", "us late", NO_GOAL, 0}}};
      for (int f = 0; f < 2; f++)
        snprintf(work.figures[f].name, sizeof work.figures[f].name,
                 "W5 one-shot of %s%s, p%s", delays[i].text,
                 precise ? ", precise" : "", f == 0 ? "50" : "99");
      compare(&work);
    }
  }
}
