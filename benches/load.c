/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * From nothing to a timer that has fired, once.
 *
 *   load              with system calls alone
 *   load LIBRARY      loading the library first
 *
 * Prints the nanoseconds it took, without starting the program.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <evloop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

static void by_hand(void)
{
  struct itimerspec at_once = {.it_value = {0, 1}};
  uint64_t expirations;
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
  if (fd < 0 || timerfd_settime(fd, 0, &at_once, NULL) < 0 ||
      read(fd, &expirations, sizeof expirations) != sizeof expirations) {
    perror("timerfd");
    exit(1);
  }
  close(fd);
}

static void function(void *library, const char *name, void *out_function)
{
  void *symbol = dlsym(library, name);
  if (symbol == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  memcpy(out_function, &symbol, sizeof symbol);
}

static void by_library(const char *path)
{
  tfd_t (*create)(int, uint32_t);
  int (*set)(tfd_t, uint32_t, int64_t, int64_t, int64_t *, int64_t *);
  int (*wait)(tfd_t, uint64_t *);
  int (*finish)(tfd_t);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
  }
  function(library, "tfd_create", &create);
  function(library, "tfd_settime_ns", &set);
  function(library, "tfd_read", &wait);
  function(library, "tfd_close", &finish);

  uint64_t expirations;
  tfd_t timer = create(EVLOOP_CLOCK_MONOTONIC, 0);
  if (timer < 0 || set(timer, 0, 1, 0, NULL, NULL) < 0 ||
      wait(timer, &expirations) < 0 || finish(timer) < 0) {
    fprintf(stderr, "a call of the library failed\n");
    exit(1);
  }
}

int main(int argc, char **argv)
{
  struct timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  if (argc > 1)
    by_library(argv[1]);
  else
    by_hand();
  clock_gettime(CLOCK_MONOTONIC, &after);
  printf("%ld\n", (long)(after.tv_sec - before.tv_sec) * 1000000000 +
                      (after.tv_nsec - before.tv_nsec));
  return 0;
}
