/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A timer that expires twice a second, read with blocking calls: the first
 * program of Python's timer file descriptor HOWTO.
 *
 *   howto_blocking [EXPIRATIONS]
 *
 * EXPIRATIONS is how many to wait for, 10 by default.
 */

#define _POSIX_C_SOURCE 200809L

#include <evloop.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* Ends the program if a call of the library failed. Results are never -1
 * with errno: they are the negative error number itself. */
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

static double seconds_since(const struct timespec *start)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - start->tv_sec) +
         (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

int main(int argc, char **argv)
{
  const char *text = argc > 1 ? argv[1] : "10";
  char *end;
  long wanted = strtol(text, &end, 10);
  if (argc > 2 || end == text || *end != '\0' || wanted < 1) {
    fprintf(stderr, "usage: %s [EXPIRATIONS]\n", argv[0]);
    return 2;
  }
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  /* The HOWTO takes the wall clock. Durations are better measured by a clock
   * that cannot be set. */
  tfd_t timer = must(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));

  /* The first expiration after one second, then every half a second.
   * tfd_settime() takes seconds; tfd_settime_ns() takes nanoseconds. */
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  must(tfd_settime(timer, 0, 1.0, 0.5, NULL, NULL));

  double left, interval;
  must(tfd_gettime(timer, &left, &interval));
  printf("armed: first expiration in %.3f s, then every %.3f s\n", left,
         interval);

  uint64_t total = 0;
  while (total < (uint64_t)wanted) {
    /* Blocks until the timer has expired at least once. A program that was
     * kept from running learns here how many it missed. */
    uint64_t expirations;
    must(tfd_read(timer, &expirations));
    total += expirations;
    printf("%.6f s: %" PRIu64 " new, %" PRIu64 " in all\n",
           seconds_since(&start), expirations, total);
  }

  must(tfd_close(timer));
  return 0;
}
