/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Children whose first thread ends before others do. Before Linux 5.17
 * waitid(2) with WNOWAIT says how that thread ended, and without it how the
 * process did. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "loop_support.h"
#include "process_support.h"

#define REAP EVLOOP_PROCESS_REAP

enum { CODE = 9 };

static evloop_process_t reported;

static void record_process(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(evloop_event_process(event, &reported), 0);
  record(event, user_data);
}

static void expect_status(const evloop_event_t *event) {
  CHECK_EQ(event->result, CODE << 8);
  CHECK_EQ(event->events, 0);
  CHECK_EQ(reported.how, EVLOOP_PROCESS_EXITED);
  CHECK_EQ(reported.status, CODE);
}

/* The process's last event, by a callback or as a record. */
static void watch_to_end(pid_t child, bool record) {
  Seen seen = {.calls = 0};
  evloop_t loop = new_loop();
  OK(evloop_add_process(loop, child, REAP, record ? NULL : record_process, &seen));
  if (record) {
    CHECK_EQ(evloop_wait(loop, &seen.last, 1, -1), 1);
    CHECK_EQ(evloop_event_process(&seen.last, &reported), 0);
  } else {
    run_to_end(loop);
    CHECK_EQ(seen.calls, 1);
  }
  expect_status(&seen.last);
  CHECK_ERR(waitpid(child, NULL, WNOHANG) < 0 ? -errno : 0, ECHILD);
  CHECK_EQ(evloop_close(loop), 0);
}

/* ---- as this kernel does it ---- */

static bool has_first_ended(void) {
  char text[256] = "";
  int fd = (int)OK(open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
  OK(read(fd, text, sizeof text - 1));
  OK(close(fd));
  return strstr(text, ") Z ") != NULL;
}

/* With musl a thread that was forked cannot be joined. */
static void *outlive_the_first(void *unused) {
  POLL_UNTIL(has_first_ended());
  _exit(CODE);
  return unused;
}

static void end_first(void) {
  start_thread(outlive_the_first, NULL);
  pthread_exit(NULL);
}

TEST(the_status_is_that_of_the_last_thread) {
  for (int record = 0; record <= 1; record++) {
    Held child = held_to(end_first, 0);
    let_go(&child);
    watch_to_end(child.pid, record != 0);
  }
}

/* ---- as older ones do ---- */

static int held; /* atomic */

static void *watch_in_a_thread(void *record) {
  Held child = hold_child(CODE);
  STORE(held, hold_calls_with(SYS_waitid, WNOWAIT));
  let_go(&child);
  watch_to_end(child.pid, record != NULL);
  OK(close(held));
  return NULL;
}

/* That it ended with 0. */
static void answer_wrongly(const struct seccomp_notif *call) {
  siginfo_t *info = (siginfo_t *)(uintptr_t)call->data.args[2];
  info->si_signo = SIGCHLD;
  info->si_code = CLD_EXITED;
  info->si_status = 0;
}

static void expect_right_though_waitid_is_wrong(bool record) {
  pthread_t thread = start_thread(watch_in_a_thread, record ? &held : NULL);
  UNTIL(LOAD(held) != 0);
  /* One that is not waited for, when it is added; and when it has ended. */
  for (int calls = 0; calls < 2; calls++) {
    struct seccomp_notif call = await_call(held);
    if (calls > 0) answer_wrongly(&call);
    end_call(held, &call, calls > 0 ? 0 : SECCOMP_USER_NOTIF_FLAG_CONTINUE);
  }
  join(thread);
}

TEST(a_callback_has_the_status_that_was_reaped) { expect_right_though_waitid_is_wrong(false); }
TEST(a_record_has_the_status_that_was_reaped) { expect_right_though_waitid_is_wrong(true); }

CHECK_MAIN()
