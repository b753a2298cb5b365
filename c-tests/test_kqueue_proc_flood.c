/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The kernel's process connector where messages never end, as if others
 * forked faster than anybody reads. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"
#include "process_support.h"

#define KQ_PROC EVLOOP_KQ_FILTER_PROC
#define EXIT EVLOOP_KQ_NOTE_EXIT
#define FORK EVLOOP_KQ_NOTE_FORK

/* Watches what only the process connector reports. */
static int watch_forks(evloop_kqueue_t kq, pid_t pid) {
  return try_change(kq, (uint64_t)pid, KQ_PROC, ADD, FORK | EXIT, 0, 9);
}

static evloop_kqueue_t queue_of_forks(pid_t pid) {
  evloop_kqueue_t kq = new_kqueue();
  if (watch_forks(kq, pid) == -ENOTSUP) SKIP("forks are not reported here");
  return kq;
}

/* From here on every message is one of nothing. */
static void begin_flood(void) {
  answer_call(SYS_recvfrom, 0);
}

TEST(a_look_at_the_connector_ends) {
  Event event;
  int status;
  evloop_kqueue_t kq = queue_of_forks(getpid());
  begin_flood();
  /* So that there is something to read. */
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(0);
  CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), -1));
  CHECK_EQ(take(kq, &event, 1, 0), 0);
  CHECK_EQ(take(kq, &event, 1, MS), 0);
  OK(waitpid(child, &status, 0));
}

TEST(the_end_of_a_process_is_found_behind_the_flood) {
  Held child = hold_child(3);
  evloop_kqueue_t kq = queue_of_forks(child.pid);
  begin_flood();
  let_go(&child);
  Event event = expect_event(kq, (uint64_t)child.pid, KQ_PROC);
  CHECK_EQ(event.fflags, EXIT);
  CHECK_EQ(WEXITSTATUS((int)event.data), 3);
  reap(child.pid);
}

TEST(the_connector_is_opened_in_a_flood) {
  evloop_kqueue_close(queue_of_forks(getpid()));
  evloop_kqueue_t kq = new_kqueue();
  begin_flood();
  CHECK_EQ(watch_forks(kq, getpid()), 0);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

CHECK_MAIN()
