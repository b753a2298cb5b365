/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* W11: a call on a watcher, through its handle, over the same call on a bare
 * pointer (see bare.h); inside a callback, and while the loop does not run. */

#define _GNU_SOURCE

#include "bare.h"
#include "bench.h"

#include <stdio.h>
#include <string.h>

enum { CALL_ROUNDS = 201 };

static evloop_t loop;
static evloop_watcher_t io, timer;
static struct bare_watcher *bare;

/* Results are added up here, so that no call can be left out. */
static volatile int64_t sink;

/* A function that evaluates CALL n times. */
#define LOOP(NAME, CALL)                                                      \
  static void NAME(long n)                                                    \
  {                                                                           \
    int64_t sum = 0;                                                          \
    for (long i = 0; i < n; i++)                                              \
      sum += (CALL);                                                          \
    sink += sum;                                                              \
  }

LOOP(h_loop, evloop_watcher_loop(io))
LOOP(b_loop, bare_loop_of(bare))
LOOP(h_data, evloop_watcher_set_data(io, (uint64_t)i))
LOOP(b_data, bare_set_data(bare, (uint64_t)i))
LOOP(h_priority, evloop_watcher_set_priority(io, 0))
LOOP(b_priority, bare_set_priority(bare, 0))
LOOP(h_enable, evloop_watcher_enable(io))
LOOP(b_enable, bare_enable(bare))
LOOP(h_unref, evloop_watcher_unref(io))
LOOP(b_unref, bare_unref(bare))
LOOP(h_again, evloop_timer_again(timer))
LOOP(b_again, bare_again(bare))

/* evloop_timer_again() reads the clock when the loop does not run: no goal of
 * nanoseconds is for that. */
static const struct pair {
  const char *name;
  void (*handle)(long), (*bare)(long);
  bool clock;
} pairs[] = {
    {"evloop_watcher_loop", h_loop, b_loop, false},
    {"evloop_watcher_set_data", h_data, b_data, false},
    {"evloop_watcher_set_priority", h_priority, b_priority, false},
    {"evloop_watcher_enable", h_enable, b_enable, false},
    {"evloop_watcher_unref", h_unref, b_unref, false},
    {"evloop_timer_again", h_again, b_again, true},
};

enum { PAIRS = sizeof pairs / sizeof *pairs };

static double seen[PAIRS][4][CALL_ROUNDS];
static int round_number, rounds_inside;
static long calls;

static double call_ns(void (*function)(long))
{
  int64_t began = now_ns();
  function(calls);
  return (double)(now_ns() - began) / (double)calls;
}

/* Both sides by turns, in rounds so short that what disturbs the machine
 * disturbs both. Round -1 only warms up. */
static void one_round(void)
{
  for (int i = 0; i < PAIRS; i++) {
    double raw = NAN, evloop = NAN;
    for (int turn = 0; turn < 2; turn++) {
      if ((turn + round_number) % 2 == 0)
        raw = call_ns(pairs[i].bare);
      else
        evloop = call_ns(pairs[i].handle);
    }
    if (round_number >= 0) {
      seen[i][0][round_number] = raw;
      seen[i][1][round_number] = evloop;
      seen[i][2][round_number] = evloop / raw;
      seen[i][3][round_number] = evloop - raw;
    }
  }
}

static void on_defer(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  one_round();
  rounds_inside++;
}

static void unexpected(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  die("an unexpected event of type %d", event->type);
}

static void report_calls(bool inside, int rounds)
{
  for (int i = 0; i < PAIRS; i++) {
    bool no_goal = pairs[i].clock && !inside;
    struct figure figure = {.unit = "ns/call",
                            .goal = no_goal ? NO_GOAL : MORE,
                            .limit = inside ? 2 : 12};
    double medians[4];
    snprintf(figure.name, sizeof figure.name, "W11 %s, %s", pairs[i].name,
             inside ? "in callback" : "not running");
    for (int v = 0; v < 4; v++)
      medians[v] = median(seen[i][v], rounds);
    report(&figure, medians[0], medians[1], medians[2], medians[3]);
  }
}

void bench_calls(void)
{
  int rounds = settings.quick ? 5 : CALL_ROUNDS;
  if (!wanted("W11") || !settings.raw || !settings.evloop)
    return;
  bare = bare_watcher();
  calls = settings.quick ? 1000 : 10000;
  loop = new_loop(0);
  int *fds = open_eventfds(1, 0);
  io = must(evloop_add_io(loop, fds[0], EVLOOP_EPOLLIN, unexpected, NULL));
  timer = must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0,
                                60 * (int64_t)SECOND, 0, 0, unexpected, NULL));
  for (int i = 0; i < PAIRS; i++)
    sink = 0, pairs[i].handle(1), expect(pairs[i].name, sink < 0, 0);

  evloop_watcher_t defer = must(evloop_add_defer(loop, on_defer, NULL));
  for (round_number = -1; round_number < rounds; round_number++) {
    must(evloop_watcher_enable(defer));
    must(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  }
  expect("rounds in a callback", rounds_inside, rounds + 1);
  report_calls(true, rounds);
  for (round_number = -1; round_number < rounds; round_number++)
    one_round();
  report_calls(false, rounds);
  must(evloop_close(loop));
  close_all(fds, 1);
}
