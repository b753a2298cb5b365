/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A service that logs when its loop is late, and why.
 *
 *   late_service [LIMIT_MS]
 *
 * Each line of its input is a request: a number of milliseconds, which serving
 * it takes. That is done in a callback, as it should not be: until the callback
 * returns the loop does nothing else. A watchdog reports the callback as soon as
 * it takes longer than the limit (20), and again when it has returned; what was
 * counted is logged every second, and when the input ends.
 */

#define _GNU_SOURCE

#include "must.h"

#include <evloop.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MS INT64_C(1000000)

struct service {
  evloop_t loop;
  char line[64];
  size_t length;
  int served;
};

static double ms(int64_t ns)
{
  return (double)ns / MS;
}

/* On the watchdog's thread, while the loop is stuck. A line at once: stdio
 * has a lock for each of its files. */
static void on_stuck(const evloop_stuck_t *stuck, void *user_data)
{
  (void)user_data;
  if (!stuck->returned)
    printf("late: '%s' has been running for %.1f ms\n", stuck->name, ms(stuck->duration_ns));
  else
    printf("late: '%s' is over, after %.1f ms\n", stuck->name, ms(stuck->duration_ns));
}

static void log_stats(struct service *s)
{
  evloop_stats_t stats;
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  must(evloop_stats(s->loop, &stats));
  printf("stats: %d requests; asleep %.0f%% of the time; timers late by up to %.1f ms; "
         "the longest callback was '%s', %.1f ms\n",
         s->served, 100.0 * (double)stats.asleep_ns / (double)(stats.elapsed_ns + 1),
         ms(stats.latest_ns), stats.longest_name, ms(stats.longest_ns));
}

static void on_second(const evloop_event_t *event, void *user_data)
{
  (void)event;
  log_stats(user_data);
}

static void on_heartbeat(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
}

static void serve(struct service *s)
{
  int64_t ns = atol(s->line) * MS;
  struct timespec time = {ns / (1000 * MS), ns % (1000 * MS)};
  while (nanosleep(&time, &time) < 0)
    continue;
  s->served++;
}

static void on_request(const evloop_event_t *event, void *user_data)
{
  struct service *s = user_data;
  char byte = '\n';
  must_be_watched(event);
  ssize_t got = must_sys(read(event->fd, &byte, 1), "read");
  if (byte != '\n') {
    if (s->length + 1 < sizeof s->line)
      s->line[s->length++] = byte;
    return;
  }
  s->line[s->length] = '\0';
  if (s->length > 0)
    serve(s);
  s->length = 0;
  if (got == 0)
    must(evloop_stop(s->loop));
}

int main(int argc, char **argv)
{
  int64_t limit = argc > 1 ? atol(argv[1]) * MS : 20 * MS;
  if (argc > 2 || limit <= 0) {
    puts("usage: late_service [LIMIT_MS]");
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  struct service s = {.loop = must(evloop_create(NULL))};
  must(evloop_watcher_set_name(
      must(evloop_add_io(s.loop, 0, EVLOOP_EPOLLIN, on_request, &s)), "requests"));
  must(evloop_watcher_set_name(
      must(evloop_add_timer(s.loop, EVLOOP_CLOCK_MONOTONIC, 0, 5 * MS, 5 * MS, 0, on_heartbeat,
                            &s)),
      "heartbeat"));
  must(evloop_watcher_set_name(
      must(evloop_add_timer(s.loop, EVLOOP_CLOCK_MONOTONIC, 0, 1000 * MS, 1000 * MS, 0, on_second,
                            &s)),
      "statistics"));
  must(evloop_set_stats(s.loop, 1));
  must(evloop_set_watchdog(s.loop, limit, on_stuck, NULL));
  puts("ready");
  must(evloop_run(s.loop, EVLOOP_RUN_UNTIL_DONE));
  log_stats(&s);
  must(evloop_close(s.loop));
  return 0;
}
