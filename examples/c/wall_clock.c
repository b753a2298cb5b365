/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A clock that strikes each full second, and follows when the clock is set.
 *
 *   wall_clock [STRIKES]
 *
 * An absolute timer on CLOCK_REALTIME expires when that clock shows its time,
 * however it came to: so if the clock is set back by an hour, the next strike
 * would be in an hour. A clock_change watcher has an event when the clock was
 * set, and the timer begins again at the next full second.
 */

#define _POSIX_C_SOURCE 200809L

#include "must.h"

#include <evloop.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define SECOND INT64_C(1000000000)

struct clock {
  evloop_t loop;
  evloop_watcher_t timer;
  int64_t offset; /* of the wall clock, from one that cannot be set */
  long left;      /* strikes */
};

static int64_t read_ns(clockid_t clock)
{
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * SECOND + now.tv_nsec;
}

static int64_t offset(void)
{
  return read_ns(CLOCK_REALTIME) - read_ns(CLOCK_MONOTONIC);
}

static int64_t next_second(void)
{
  return (read_ns(CLOCK_REALTIME) / SECOND + 1) * SECOND;
}

static void on_strike(const evloop_event_t *event, void *user_data)
{
  struct clock *c = user_data;
  time_t second = (time_t)(event->deadline_ns / SECOND);
  struct tm local;
  char text[16];
  localtime_r(&second, &local);
  strftime(text, sizeof text, "%H:%M:%S", &local);
  printf("%s, %.1f ms late\n", text, (double)(event->time_ns - event->deadline_ns) / 1e6);
  if (event->count > 1)
    printf("%" PRIu64 " seconds were missed\n", event->count - 1);
  if (--c->left == 0)
    must(evloop_stop(c->loop));
}

static void on_clock_set(const evloop_event_t *event, void *user_data)
{
  struct clock *c = user_data;
  int64_t before = c->offset;
  (void)event;
  c->offset = offset();
  printf("the clock was set, by %+.3f s\n", (double)(c->offset - before) / SECOND);
  must(evloop_timer_set(c->timer, EVLOOP_TIMER_ABSTIME, next_second(), SECOND));
}

int main(int argc, char **argv)
{
  struct clock c = {.offset = offset(), .left = argc > 1 ? atol(argv[1]) : -1};
  if (argc > 2 || c.left == 0 || c.left < -1) {
    puts("usage: wall_clock [STRIKES]");
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  c.loop = must(evloop_create(NULL));
  c.timer = must(evloop_add_timer(c.loop, EVLOOP_CLOCK_REALTIME, EVLOOP_TIMER_ABSTIME,
                                  next_second(), SECOND, 0, on_strike, &c));
  must(evloop_add_clock_change(c.loop, on_clock_set, &c));
  puts("ready");
  must(evloop_run(c.loop, EVLOOP_RUN_UNTIL_DONE));
  must(evloop_close(c.loop));
  return 0;
}
