/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What the library says when the kernel refuses it something; run under
 * nosys. Prints "name value" lines, which the suite compares. That this
 * program ends with 0 is half of the test: a refusal is an error to return,
 * never a crash.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <evloop.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#define WAIT_NS INT64_C(2000000)

static int64_t show(const char *name, int64_t value) {
  printf("%s %" PRId64 "\n", name, value < 0 ? value : 0);
  return value;
}

/* A failure must have been put into words, and name its function. */
static void show_sentence(const char *function) {
  char sentence[256];
  int length = evloop_last_error(sentence, sizeof sentence);
  int named = length > 0 && strstr(sentence, function) != NULL;
  printf("sentence %s\n", named ? "ok" : sentence);
}

/* The raw calls: is the filter in force, does the kernel know the call? */
static void raw(void) {
  long result = syscall(SYS_epoll_pwait2, -1, NULL, 1, NULL, NULL, 0);
  show("raw_epoll_pwait2", result < 0 ? -errno : result);
  result = syscall(SYS_preadv2, -1, NULL, 0, 0L, 0L, 0);
  show("raw_preadv2", result < 0 ? -errno : result);
}

static void timer(void) {
  uint64_t expirations;
  tfd_t timer = show("tfd_create", tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  if (timer < 0) {
    show_sentence("tfd_create");
    return;
  }
  show("tfd_settime_ns", tfd_settime_ns(timer, 0, WAIT_NS, 0, NULL, NULL));
  show("tfd_wait", tfd_wait(timer, 50 * WAIT_NS, &expirations));
  show("tfd_close", tfd_close(timer));
}

static void epoll(void) {
  evloop_ready_t ready;
  evloop_epoll_t set = show("evloop_epoll_create", evloop_epoll_create(0));
  if (set < 0) {
    show_sentence("evloop_epoll_create");
    return;
  }
  show("evloop_epoll_wait", evloop_epoll_wait(set, &ready, 1, WAIT_NS));
  show("evloop_epoll_close", evloop_epoll_close(set));
}

static void poll_set(void) {
  evloop_ready_t ready;
  evloop_poll_t set = show("evloop_poll_create", evloop_poll_create());
  if (set < 0) return;
  show("evloop_poll_wait", evloop_poll_wait(set, &ready, 1, WAIT_NS));
  show("evloop_poll_close", evloop_poll_close(set));
}

int main(void) {
  raw();
  timer();
  epoll();
  poll_set();
  show("left_open", evloop_handle_count(EVLOOP_KIND_ANY));
  return 0;
}
