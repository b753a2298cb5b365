/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Uses what starts threads, opens files and meets errors, as a set-user-id
 * program would; tests/suites/environment.py looks at its system calls. Exit
 * status 0: all of it worked. Arguments: a file to write a trace to. */

#define _GNU_SOURCE
#include <evloop.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SECOND INT64_C(1000000000)

static int64_t must(const char *what, int64_t result) {
  char sentence[200];
  if (result >= 0) return result;
  evloop_last_error(sentence, sizeof sentence);
  printf("%s: %s\n", what, sentence);
  exit(1);
}
#define MUST(call) must(#call, call)

static int stuck;

static void on_stuck(const evloop_stuck_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  __atomic_store_n(&stuck, 1, __ATOMIC_RELEASE);
}

/* Until the watchdog's thread has noticed. */
static void stick(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  while (!__atomic_load_n(&stuck, __ATOMIC_ACQUIRE)) usleep(100);
}

static void ignore(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

static void use_a_loop(const char *trace) {
  evloop_t loop = MUST(evloop_create(NULL));
  MUST(evloop_trace_start(loop, trace, 100));
  MUST(evloop_add_file(loop, "/", EVLOOP_FILE_CREATE, 0, ignore, NULL));
  MUST(evloop_add_signal(loop, SIGUSR1, 0, ignore, NULL));
  MUST(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, 0, 0, ignore, NULL));
  MUST(evloop_set_stats(loop, 1));
  MUST(evloop_set_watchdog(loop, SECOND / 1000, on_stuck, NULL));
  MUST(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  MUST(evloop_post(loop, stick, NULL));
  MUST(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  MUST(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  MUST(evloop_trace_stop(loop));
  MUST(evloop_close(loop));
}

static void use_a_kqueue(void) {
  static char byte;
  evloop_kevent_t event;
  int fd = (int)must("open", open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  evloop_kqueue_t kq = MUST(evloop_kqueue_create(0));
  memset(&event, 0, sizeof event);
  event.ident = (uint64_t)fd;
  event.filter = EVLOOP_KQ_FILTER_VNODE;
  event.flags = EVLOOP_KQ_EV_ADD;
  event.fflags = EVLOOP_KQ_NOTE_DELETE;
  MUST(evloop_kqueue_control(kq, &event, 1, NULL, 0, 0));
  MUST(evloop_kqueue_aio_read(kq, fd, &byte, 1, 0, 1, 0));
  MUST(evloop_kqueue_control(kq, NULL, 0, &event, 1, -1));
  MUST(evloop_kqueue_close(kq));
  close(fd);
}

static void use_sets(void) {
  evloop_ready_t ready;
  evloop_selector_t selector = MUST(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT));
  evloop_poll_t set = MUST(evloop_poll_create());
  MUST(evloop_selector_wait(selector, &ready, 1, 1));
  MUST(evloop_poll_wait(set, &ready, 1, 1));
  MUST(evloop_selector_close(selector));
  MUST(evloop_poll_close(set));
}

static void make_errors(void) {
  char sentence[200];
  if (evloop_epoll_create(1) >= 0 || tfd_create(99, 0) >= 0) exit(1);
  evloop_last_error(sentence, sizeof sentence);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  use_a_loop(argv[1]);
  use_a_kqueue();
  use_sets();
  make_errors();
  printf("worked as %d for %d\n", (int)geteuid(), (int)getuid());
  return 0;
}
