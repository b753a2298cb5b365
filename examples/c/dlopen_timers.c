/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Three timers in a program that is not linked with the library: it loads it
 * while it runs. Only types and constants are taken from the header.
 *
 *   dlopen_timers [LIBRARY]      the default is libevloop.so.0
 *
 * Ends when the slowest timer has expired twice, after 1.5 s.
 */

#define _POSIX_C_SOURCE 200809L

#include <dlfcn.h>
#include <evloop.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TIMERS = 3 };

static const double periods[TIMERS] = {0.25, 0.5, 0.75};

static const char *(*version_string)(void);
static int (*last_error)(char *, size_t);
static tfd_t (*create)(int, uint32_t);
static int (*set)(tfd_t, uint32_t, double, double, double *, double *);
static int (*fileno_of)(tfd_t);
static int (*read_timer)(tfd_t, uint64_t *);
static int (*close_any)(evloop_handle_t);
static evloop_poll_t (*poll_create)(void);
static int (*poll_register)(evloop_poll_t, int, uint32_t, uint64_t);
static int (*poll_wait)(evloop_poll_t, evloop_ready_t *, int, int64_t);

/* Copies the address, because ISO C knows no conversion from void * to a
 * pointer to a function. */
static void load(void *library, const char *name, void *out_function)
{
  void *symbol = dlsym(library, name);
  if (symbol == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  memcpy(out_function, &symbol, sizeof symbol);
}

static int64_t must(int64_t result)
{
  if (result < 0) {
    char why[256];
    last_error(why, sizeof why);
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
  const char *path = argc > 1 ? argv[1] : "libevloop.so.0";
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  load(library, "evloop_version_string", &version_string);
  load(library, "evloop_last_error", &last_error);
  load(library, "evloop_handle_close", &close_any);
  load(library, "tfd_create", &create);
  load(library, "tfd_settime", &set);
  load(library, "tfd_fileno", &fileno_of);
  load(library, "tfd_read", &read_timer);
  load(library, "evloop_poll_create", &poll_create);
  load(library, "evloop_poll_register", &poll_register);
  load(library, "evloop_poll_wait", &poll_wait);
  setvbuf(stdout, NULL, _IOLBF, 0);
  printf("libevloop %s\n", version_string());

  evloop_poll_t poll = must(poll_create());
  tfd_t timers[TIMERS];
  uint64_t totals[TIMERS] = {0};
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < TIMERS; i++) {
    timers[i] = must(create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
    must(set(timers[i], 0, periods[i], periods[i], NULL, NULL));
    must(poll_register(poll, (int)must(fileno_of(timers[i])), EVLOOP_POLLIN,
                       (uint64_t)i));
  }

  while (totals[TIMERS - 1] < 2) {
    evloop_ready_t ready[TIMERS];
    int n = (int)must(poll_wait(poll, ready, TIMERS, -1));
    for (int i = 0; i < n; i++) {
      uint64_t expirations, which = ready[i].data;
      must(read_timer(timers[which], &expirations));
      totals[which] += expirations;
      printf("timer %.2f s: %" PRIu64 " new, %" PRIu64 " in all\n",
             periods[which], expirations, totals[which]);
    }
  }

  printf("stopped after %.6f s\n", seconds_since(&start));
  for (int i = 0; i < TIMERS; i++) {
    printf("timer %.2f s: total %" PRIu64 "\n", periods[i], totals[i]);
    must(close_any(timers[i])); /* closes handles of every kind */
  }
  must(close_any(poll));
  dlclose(library);
  return 0;
}
