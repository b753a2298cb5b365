/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A program whose loop is late now and then. Which of its five watchers is it?
 *
 *   five_watchers TRACE.json [CULPRIT]
 *
 * It runs for a second. It prints what evloop_stats() returns, and writes the
 * trace for ui.perfetto.dev; docs/tracing.md explains both. The culprit is a
 * number from 1 to 5; without one the process id decides.
 */

#define _GNU_SOURCE

#include "must.h"

#include <evloop.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define MS INT64_C(1000000)

enum { WATCHERS = 5, NOW_AND_THEN = 7 };

static const char *const names[WATCHERS] = {
    "heartbeat", "requests", "cache cleaner", "metrics", "log writer"};

static int culprit, calls;
static int request_fd;

static void work(int64_t ns)
{
  struct timespec now;
  int64_t end = 0, time;
  do {
    clock_gettime(CLOCK_MONOTONIC, &now);
    time = now.tv_sec * 1000 * MS + now.tv_nsec;
    if (end == 0)
      end = time + ns;
  } while (time < end);
}

/* All five do a little; one of them sometimes does much more. */
static void on_event(const evloop_event_t *event, void *user_data)
{
  int me = (int)(intptr_t)user_data;
  uint64_t count;
  if (event->type == EVLOOP_EVENT_IO) {
    must_be_watched(event);
    must_sys(read(event->fd, &count, sizeof count), "read");
  }
  /* A request comes with every other heartbeat. */
  if (me == 0 && calls % 2 == 0) {
    count = 1;
    must_sys(write(request_fd, &count, sizeof count), "write");
  }
  work(MS / 20);
  if (me == culprit && ++calls % NOW_AND_THEN == 0)
    work(30 * MS);
  else if (me != culprit && me == 0)
    calls++;
}

static evloop_watcher_t add(evloop_t loop, int which)
{
  void *me = (void *)(intptr_t)which;
  if (which == 1)
    return must(evloop_add_io(loop, request_fd, EVLOOP_EPOLLIN, on_event, me));
  return must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, (which + 5) * MS,
                               (which + 5) * MS, 0, on_event, me));
}

static void print_histogram(evloop_t loop, const char *title, int which)
{
  printf("%-22s p50 %9.3f ms   p99 %9.3f ms   most %9.3f ms\n", title,
         (double)must(evloop_stats_percentile_ns(loop, which, 50)) / MS,
         (double)must(evloop_stats_percentile_ns(loop, which, 99)) / MS,
         (double)must(evloop_stats_percentile_ns(loop, which, 100)) / MS);
}

int main(int argc, char **argv)
{
  evloop_stats_t stats;
  culprit = argc > 2 ? atoi(argv[2]) - 1 : (int)getpid() % WATCHERS;
  if (argc < 2 || argc > 3 || culprit < 0 || culprit >= WATCHERS) {
    puts("usage: five_watchers TRACE.json [CULPRIT, 1 to 5]");
    return 2;
  }
  request_fd = (int)must_sys(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd");
  evloop_t loop = must(evloop_create(NULL));
  for (int i = 0; i < WATCHERS; i++)
    must(evloop_watcher_set_name(add(loop, i), names[i]));

  must(evloop_set_stats(loop, 1));
  must(evloop_trace_start(loop, argv[1], 0));
  must(evloop_run_for_ns(loop, 1000 * MS));
  int64_t missing = must(evloop_trace_stop(loop));

  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  must(evloop_stats(loop, &stats));
  printf("%" PRIu64 " iterations, %" PRIu64 " timers, %" PRIu64 " requests\n",
         stats.iterations, stats.events[EVLOOP_EVENT_TIMER], stats.events[EVLOOP_EVENT_IO]);
  printf("asleep %.0f ms, in callbacks %.0f ms\n", (double)stats.asleep_ns / MS,
         (double)stats.callback_ns / MS);
  print_histogram(loop, "lateness of timers:", EVLOOP_STATS_LATENESS);
  print_histogram(loop, "callbacks:", EVLOOP_STATS_CALLBACK);
  printf("the longest callback: %s, %.3f ms\n", stats.longest_name,
         (double)stats.longest_ns / MS);
  printf("%s has all but %" PRId64 " events\n", argv[1], missing);
  must(evloop_close(loop));
  close(request_fd);
  return 0;
}
