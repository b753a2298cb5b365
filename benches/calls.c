/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What a call through a handle costs over the same call on a bare pointer.
 *
 *   calls                 time every pair; a line for each (see main)
 *   calls NAME COUNT      make one of the calls COUNT times and end, for an
 *                         instruction counter: the difference of two counts
 *                         is free of what starting up costs
 *   calls -l              the names
 */

#define _GNU_SOURCE

#include "bare.h"

#include <evloop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 201, FAR_AWAY = 1000000000 };

static tfd_t timer, stale;
static evloop_epoll_t epoll;
static evloop_poll_t poll_set;
static evloop_selector_t selector;
static struct bare *bare_t, *bare_e;
static int pipe_fd; /* readable */

/* Results are added up here, so that no call can be left out. */
static volatile int64_t sink;

/* A function that evaluates CALL n times. */
#define LOOP(NAME, CALL)                                                     \
  static void NAME(long n)                                                   \
  {                                                                          \
    int64_t sum = 0;                                                         \
    for (long i = 0; i < n; i++)                                             \
      sum += (CALL);                                                         \
    sink += sum;                                                             \
  }

static int gettime_of_handle(void)
{
  int64_t initial, interval;
  return tfd_gettime_ns(timer, &initial, &interval);
}

static int gettime_of_pointer(void)
{
  int64_t initial, interval;
  return bare_gettime_ns(bare_t, &initial, &interval);
}

static int epoll_wait_0(void)
{
  evloop_ready_t ready[8];
  return evloop_epoll_wait(epoll, ready, 8, 0);
}

static int poll_wait_0(void)
{
  evloop_ready_t ready[8];
  return evloop_poll_wait(poll_set, ready, 8, 0);
}

static int selector_wait_0(void)
{
  evloop_ready_t ready[8];
  return evloop_selector_wait(selector, ready, 8, 0);
}

static int select_0(void)
{
  int fd = pipe_fd, n = 1;
  return evloop_select(&fd, &n, NULL, NULL, NULL, NULL, 0);
}

/* h_ through a handle, b_ on a bare pointer. What is registered and
 * unregistered is the bare timer's descriptor, on both sides. */
LOOP(h_fileno, tfd_fileno(timer))
LOOP(b_fileno, bare_fileno(bare_t))
LOOP(h_clockid, tfd_clockid(timer))
LOOP(h_epoll_fileno, evloop_epoll_fileno(epoll))
LOOP(h_kind, evloop_handle_kind(timer))
LOOP(b_kind, bare_kind(bare_t))
LOOP(h_gettime, gettime_of_handle())
LOOP(b_gettime, gettime_of_pointer())
LOOP(h_settime, tfd_settime_ns(timer, 0, FAR_AWAY, FAR_AWAY, NULL, NULL))
LOOP(b_settime, bare_settime_ns(bare_t, FAR_AWAY, FAR_AWAY))
LOOP(h_epoll_pair, evloop_epoll_register(epoll, bare_t->fd, 1, 7) +
                       evloop_epoll_unregister(epoll, bare_t->fd))
LOOP(b_epoll_pair, bare_register(bare_e, bare_t->fd, 1, 7) +
                       bare_unregister(bare_e, bare_t->fd))
LOOP(h_epoll_wait, epoll_wait_0())
LOOP(b_epoll_wait, bare_wait(bare_e))
LOOP(h_poll_wait, poll_wait_0())
LOOP(h_selector_wait, selector_wait_0())
LOOP(h_select, select_0())
LOOP(b_poll, bare_poll(pipe_fd))
LOOP(b_select, bare_select(pipe_fd))
LOOP(h_poll_pair, evloop_poll_register(poll_set, bare_t->fd, 1, 7) +
                      evloop_poll_unregister(poll_set, bare_t->fd))
LOOP(h_selector_modify, evloop_selector_modify(selector, pipe_fd, 1, 7))
LOOP(h_create, tfd_close(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0)))
LOOP(h_poll_create, evloop_poll_close(evloop_poll_create()))
LOOP(h_stale, tfd_fileno(stale))

static const struct bench {
  const char *name;
  char group;                  /* p: pinned, the goal; s: a system call inside;
                                  -: no counterpart, only counted */
  long calls;                  /* in a round */
  void (*handle)(long), (*bare)(long);
} benches[] = {
    {"tfd_fileno", 'p', 20000, h_fileno, b_fileno},
    {"tfd_clockid", 'p', 20000, h_clockid, b_fileno},
    {"evloop_epoll_fileno", 'p', 20000, h_epoll_fileno, b_fileno},
    {"evloop_handle_kind", 'p', 20000, h_kind, b_kind},
    {"tfd_gettime_ns", 's', 500, h_gettime, b_gettime},
    {"tfd_settime_ns", 's', 500, h_settime, b_settime},
    {"evloop_epoll_register+unregister", 's', 200, h_epoll_pair,
     b_epoll_pair},
    {"evloop_epoll_wait", 's', 500, h_epoll_wait, b_epoll_wait},
    {"evloop_poll_wait, 1 descriptor", 's', 500, h_poll_wait, b_poll},
    {"evloop_select, 1 descriptor", 's', 500, h_select, b_select},
    {"evloop_selector_wait", 's', 500, h_selector_wait, b_epoll_wait},
    {"evloop_poll_register+unregister", '-', 0, h_poll_pair, NULL},
    {"evloop_selector_modify", '-', 0, h_selector_modify, NULL},
    {"tfd_create+close", '-', 0, h_create, NULL},
    {"evloop_poll_create+close", '-', 0, h_poll_create, NULL},
    {"tfd_fileno of a closed handle", '-', 0, h_stale, NULL},
    {"a bare call", '-', 0, b_fileno, NULL},
};

enum { BENCHES = sizeof benches / sizeof *benches };

static int64_t must(int64_t result)
{
  if (result < 0) {
    char why[256];
    evloop_last_error(why, sizeof why);
    fprintf(stderr, "%s\n", why);
    exit(1);
  }
  return result;
}

static void prepare(void)
{
  int ends[2];
  if (pipe(ends) < 0 || write(ends[1], "x", 1) != 1) {
    perror("pipe");
    exit(1);
  }
  pipe_fd = ends[0];
  bare_t = bare_timer();
  bare_e = bare_epoll();
  if (bare_t->fd < 0 || bare_e->fd < 0 ||
      bare_register(bare_e, pipe_fd, 1, 7) < 0) {
    perror("the bare objects");
    exit(1);
  }
  timer = must(tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
  stale = must(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  must(tfd_close(stale));
  epoll = must(evloop_epoll_create(0));
  must(evloop_epoll_register(epoll, pipe_fd, EVLOOP_EPOLLIN, 7));
  poll_set = must(evloop_poll_create());
  must(evloop_poll_register(poll_set, pipe_fd, EVLOOP_POLLIN, 7));
  selector = must(evloop_selector_create(EVLOOP_SELECTOR_EPOLL));
  must(evloop_selector_register(selector, pipe_fd, EVLOOP_SELECTOR_READ, 7));
  h_settime(1);
  b_settime(1);
}

static double ns_per_call(void (*loop)(long), long calls)
{
  struct timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  loop(calls);
  clock_gettime(CLOCK_MONOTONIC, &after);
  return ((double)(after.tv_sec - before.tv_sec) * 1e9 +
          (double)(after.tv_nsec - before.tv_nsec)) /
         (double)calls;
}

static int ascending(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values)
{
  qsort(values, ROUNDS, sizeof *values, ascending);
  return values[ROUNDS / 2];
}

static double bare_ns[BENCHES][ROUNDS], handle_ns[BENCHES][ROUNDS];
static double differences[BENCHES][ROUNDS];

int main(int argc, char **argv)
{
  if (argc == 2 && strcmp(argv[1], "-l") == 0) {
    for (int i = 0; i < BENCHES; i++)
      puts(benches[i].name);
    return 0;
  }
  prepare();
  if (argc == 3) {
    for (int i = 0; i < BENCHES; i++) {
      if (strcmp(argv[1], benches[i].name) == 0) {
        benches[i].handle(atol(argv[2]));
        return 0;
      }
    }
    fprintf(stderr, "no bench is called %s\n", argv[1]);
    return 2;
  }

  /* Both sides in every round, the first one by turns, and rounds so short
   * (tens of microseconds) that what disturbs the machine disturbs both.
   * Round -1 only warms up. */
  for (int round = -1; round < ROUNDS; round++) {
    for (int i = 0; i < BENCHES; i++) {
      const struct bench *b = &benches[i];
      double bare = 0, handle = 0;
      if (b->calls == 0)
        continue;
      for (int turn = 0; turn < 2; turn++) {
        if ((turn + round) % 2 == 0)
          bare = ns_per_call(b->bare, b->calls);
        else
          handle = ns_per_call(b->handle, b->calls);
      }
      if (round >= 0) {
        bare_ns[i][round] = bare;
        handle_ns[i][round] = handle;
        differences[i][round] = handle - bare;
      }
    }
  }

  /* Group, name, bare, handle, difference: medians, in ns. */
  for (int i = 0; i < BENCHES; i++)
    if (benches[i].calls != 0)
      printf("%c\t%s\t%.2f\t%.2f\t%.2f\n", benches[i].group, benches[i].name,
             median(bare_ns[i]), median(handle_ns[i]), median(differences[i]));
  return 0;
}
