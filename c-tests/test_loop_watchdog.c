/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchdogs: which callbacks they report as stuck, and when. */

#define _GNU_SOURCE 1
#include "loop_support.h"

/* What a watchdog has reported. */
typedef struct Reports {
  int sticks;
  int stuck, returned; /* atomic */
  evloop_stuck_t last[2];
  pid_t tid;
  evloop_t close; /* in the callback */
} Reports;

static void on_stuck(const evloop_stuck_t *stuck, void *user_data) {
  Reports *reports = (Reports *)user_data;
  reports->tid = (pid_t)syscall(SYS_gettid);
  reports->last[stuck->returned] = *stuck;
  if (reports->close != 0 && !stuck->returned) CHECK_EQ(evloop_close(reports->close), 0);
  if (stuck->returned) RAISE(reports->returned, 1);
  else RAISE(reports->stuck, 1);
}

static void watch(evloop_t loop, int64_t limit_ns, Reports *reports) {
  CHECK_EQ(evloop_set_watchdog(loop, limit_ns, on_stuck, reports), 0);
}

/* A callback that is stuck until the watchdog has reported it. The watchdog may
 * do so before the first line of this function runs. */
static void stick(const evloop_event_t *event, void *user_data) {
  Reports *reports = (Reports *)user_data;
  int due = ++reports->sticks;
  (void)event;
  UNTIL(LOAD(reports->stuck) >= due);
}

TEST(a_stuck_callback_is_reported_once_and_once_more_when_it_has_returned) {
  static Reports reports;
  const evloop_stuck_t *first = &reports.last[0], *second = &reports.last[1];
  evloop_t loop = new_loop();
  int64_t began = now_ns(CLOCK_MONOTONIC);
  evloop_watcher_t slow = timer(loop, 0, 0, stick, &reports);
  OK(evloop_watcher_set_name(slow, "slow"));
  watch(loop, 5 * MS, &reports);
  run_to_end(loop);
  UNTIL(LOAD(reports.returned) == 1);
  CHECK_EQ(reports.stuck, 1);
  CHECK_EQ(first->loop, loop);
  CHECK_EQ(first->watcher, slow);
  CHECK_EQ(first->type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(first->returned, 0);
  for (int i = 0; AT_ROW(i, first->spare); i++) CHECK_EQ(first->spare[i], 0);
  CHECK_EQ(sizeof *first, 128);
  CHECK_EQ(strcmp(first->name, "slow"), 0);
  CHECK(first->since_ns >= began);
  CHECK(first->duration_ns > 5 * MS);
  CHECK_EQ(second->watcher, slow);
  CHECK_EQ(second->since_ns, first->since_ns);
  CHECK_EQ(second->returned, 1);
  CHECK(second->duration_ns >= first->duration_ns);
  CHECK_EQ(strcmp(second->name, "slow"), 0);
  close_loop(loop);
}

TEST(posts_descriptors_and_destroy_notifications_are_looked_at) {
  static Reports reports;
  evloop_t loop = new_loop();
  evloop_watcher_t io = readable_io(loop, event_fd(1), record_and_close, &(Seen){0});
  /* Longer than what does not stick takes. */
  watch(loop, 50 * MS * slow_factor(), &reports);
  CHECK_EQ(evloop_watcher_set_destroy(io, stick, &reports), 0);
  OK(evloop_post(loop, stick, &reports));
  run_to_end(loop);
  UNTIL(LOAD(reports.returned) == 2);
  CHECK_EQ(reports.last[0].type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(reports.last[0].watcher, io);
  readable_io(loop, event_fd(1), stick, &reports);
  turn(loop);
  UNTIL(LOAD(reports.returned) == 3);
  CHECK_EQ(reports.last[1].type, EVLOOP_EVENT_IO);
  CHECK_EQ(reports.last[1].name[0], '\0');
  close_loop(loop);
}

TEST(a_callback_that_is_not_stuck_is_not_reported) {
  static Reports reports;
  Runner runner;
  evloop_t loop = running_loop(&runner, true);
  int i;
  /* Longer than anything here takes, and the loop does a lot. */
  watch(loop, 10 * SECOND, &reports);
  for (i = 0; i < 20; i++) go_round(loop);
  stop_runner(&runner);
  /* Asleep is not stuck. */
  watch(loop, MS, &reports);
  OK(evloop_run_for_ns(loop, 0));
  CHECK_EQ(evloop_set_watchdog(loop, 0, NULL, NULL), 0);
  close_loop(loop);
}

TEST(a_loop_that_sleeps_is_not_stuck) {
  static Reports reports;
  evloop_t loop = new_loop();
  timer(loop, 50 * MS, 0, ignore, NULL);
  watch(loop, 20 * MS, &reports);
  run_to_end(loop);
  CHECK_EQ(evloop_set_watchdog(loop, 0, NULL, NULL), 0);
  /* Its callback may be, where the machine has no time for it. */
  if (reports.stuck > 0) CHECK_EQ(reports.last[0].type, EVLOOP_EVENT_TIMER);
  close_loop(loop);
}

TEST(its_thread_has_a_name_and_blocks_all_signals_and_ends_with_the_loop) {
  static Reports reports;
  char path[64], text[64] = "";
  unsigned long long blocked = 0;
  evloop_t loop = new_loop();
  FILE *file;
  timer(loop, 0, 0, stick, &reports);
  watch(loop, MS, &reports);
  run_to_end(loop);
  UNTIL(LOAD(reports.returned) == 1);
  CHECK(reports.tid != (pid_t)syscall(SYS_gettid));
  snprintf(path, sizeof path, "/proc/self/task/%d/status", reports.tid);
  file = fopen(path, "r");
  CHECK(file != NULL);
  CHECK(fgets(text, sizeof text, file) != NULL);
  CHECK_EQ(strcmp(text, "Name:\tevloop-watchdog\n"), 0);
  while (fgets(text, sizeof text, file) != NULL) sscanf(text, "SigBlk: %llx", &blocked);
  fclose(file);
  CHECK_EQ(blocked >> (SIGTERM - 1) & 1, 1);
  CHECK_EQ(blocked >> (SIGUSR1 - 1) & 1, 1);
  close_loop(loop);
  /* Joined; the kernel may list it for a moment more. */
  POLL_UNTIL(access(path, F_OK) != 0);
}

TEST(a_watchdog_closes_the_loop_that_is_stuck) {
  static Reports reports;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, stick, &reports);
  reports.close = loop;
  watch(loop, MS, &reports);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
  CHECK_EQ(reports.stuck, 1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

static void remove_itself(const evloop_stuck_t *stuck, void *user_data) {
  Reports *reports = (Reports *)user_data;
  CHECK_EQ(evloop_set_watchdog(stuck->loop, 0, NULL, NULL), 0);
  RAISE(reports->stuck, 1);
}

TEST(a_watchdog_removes_itself) {
  static Reports reports;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, stick, &reports);
  CHECK_EQ(evloop_set_watchdog(loop, MS, remove_itself, &reports), 0);
  run_to_end(loop);
  CHECK_EQ(reports.stuck, 1);
  close_loop(loop);
}

static evloop_t watched_loop;

static void set_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  watch(watched_loop, MS, (Reports *)user_data);
}

TEST(a_watchdog_is_replaced_from_callbacks_and_other_threads) {
  static Reports reports;
  Runner runner;
  int i;
  evloop_t loop = running_loop(&runner, false);
  watched_loop = loop;
  for (i = 0; i < 50; i++) {
    OK(evloop_post(loop, set_in_callback, &reports));
    watch(loop, MS, &reports);
  }
  go_round(loop);
  watch(loop, 2 * MS, &reports);
  reports.stuck = reports.returned = 0;
  OK(evloop_post(loop, stick, &reports));
  UNTIL(LOAD(reports.returned) >= 1);
  stop_runner(&runner);
  close_loop(loop);
}

/* A callback waits at the gate while the watchdog is set, or replaced. The
 * watchdog does not report this callback, only later ones. */
static void set_while_stuck(evloop_t loop, Runner *runner) {
  static Reports reports;
  static Gate gate;
  int64_t until;
  memset(&reports, 0, sizeof reports);
  go_round(loop);
  hold(loop, &gate);
  watch(loop, 5 * MS, &reports);
  /* By then the watchdog has looked at the loop. */
  for (until = now_ns(CLOCK_MONOTONIC) + 30 * MS; now_ns(CLOCK_MONOTONIC) < until;) continue;
  open_gate(&gate);
  go_round(loop);
  /* The watchdog reports later callbacks, and the end of each. */
  OK(evloop_post(loop, stick, &reports));
  UNTIL(LOAD(reports.returned) >= 1);
  CHECK(reports.last[0].since_ns > until - 30 * MS);
  OK(evloop_post(loop, stick, &reports));
  UNTIL(LOAD(reports.returned) >= 2);
  stop_runner(runner);
  close_loop(loop);
}

TEST(a_watchdog_that_is_set_while_a_trace_is_made_reports_later_callbacks) {
  Runner runner;
  evloop_t loop = running_loop(&runner, false);
  CHECK_EQ(evloop_trace_start(loop, "/dev/null", 0), 0);
  set_while_stuck(loop, &runner);
}

TEST(a_watchdog_that_replaces_another_reports_later_callbacks) {
  static Reports other;
  Runner runner;
  evloop_t loop = running_loop(&runner, false);
  watch(loop, 1000 * SECOND, &other);
  set_while_stuck(loop, &runner);
}

/* As stick(), in cases in which the watchdog reports no other callback. It may
 * do so before the first line of this function runs, too. */
static void stick_first(const evloop_event_t *event, void *user_data) {
  Reports *reports = (Reports *)user_data;
  (void)event;
  UNTIL(LOAD(reports->stuck) >= 1);
}

/* Replaces the watchdog of the loop that calls it, and takes longer than the limit
 * of the new one. So does stick_first(), which the loop calls after it. */
static void set_and_stay(const evloop_event_t *event, void *user_data) {
  int64_t end;
  set_in_callback(event, user_data);
  OK(evloop_watcher_set_name(timer(watched_loop, 0, 0, stick_first, user_data), "later"));
  for (end = now_ns(CLOCK_MONOTONIC) + 30 * MS; now_ns(CLOCK_MONOTONIC) < end;) continue;
}

TEST(a_callback_that_sets_a_watchdog_is_not_reported) {
  static Reports before, reports;
  watched_loop = new_loop();
  watch(watched_loop, 1000 * SECOND, &before);
  OK(evloop_post(watched_loop, set_and_stay, &reports));
  run_to_end(watched_loop);
  UNTIL(LOAD(reports.returned) >= 1);
  CHECK_EQ(reports.stuck, 1);
  CHECK_EQ(strcmp(reports.last[0].name, "later"), 0);
  CHECK_EQ(reports.last[0].type, EVLOOP_EVENT_TIMER);
  close_loop(watched_loop);
}

static void stop_trace_of(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  CHECK(evloop_trace_stop(watched_loop) >= 0);
}

TEST(a_callback_that_ended_a_trace_is_not_stuck_for_ever) {
  static Reports reports;
  int64_t end;
  watched_loop = new_loop();
  CHECK_EQ(evloop_set_stats(watched_loop, 1), 0);
  CHECK_EQ(evloop_trace_start(watched_loop, "/dev/null", 0), 0);
  OK(evloop_post(watched_loop, stop_trace_of, NULL));
  run_to_end(watched_loop);
  watch(watched_loop, MS, &reports);
  for (end = now_ns(CLOCK_MONOTONIC) + 20 * MS; now_ns(CLOCK_MONOTONIC) < end;) continue;
  timer(watched_loop, 0, 0, stick_first, &reports);
  run_to_end(watched_loop);
  UNTIL(LOAD(reports.returned) >= 1);
  CHECK_EQ(reports.stuck, 1);
  CHECK_EQ(reports.last[0].type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(evloop_set_watchdog(watched_loop, 0, NULL, NULL), 0);
  /* Nor is it a callback of the next loop. */
  CHECK_EQ(evloop_trace_start(watched_loop, "/dev/null", 0), 0);
  OK(evloop_post(watched_loop, stop_trace_of, NULL));
  run_to_end(watched_loop);
  close_loop(watched_loop);
  watched_loop = new_loop();
  watch(watched_loop, MS, &reports);
  for (end = now_ns(CLOCK_MONOTONIC) + 20 * MS; now_ns(CLOCK_MONOTONIC) < end;) continue;
  CHECK_EQ(evloop_set_watchdog(watched_loop, 0, NULL, NULL), 0);
  CHECK_EQ(reports.stuck, 1);
  close_loop(watched_loop);
}

static void close_and_stick(const evloop_event_t *event, void *user_data) {
  Gate *gate = (Gate *)user_data;
  close_watcher(event->watcher);
  stay(event, gate);
  /* Takes what others have left. */
  OK(evloop_watcher_loop(keep_alive(watched_loop)));
}

TEST(the_end_of_a_callback_that_closed_its_watcher_is_reported_with_its_name) {
  static Reports reports;
  static Gate gate;
  Runner runner;
  evloop_watcher_t slow, other;
  evloop_t loop = running_loop(&runner, false);
  watched_loop = loop;
  other = keep_alive(loop);
  watch(loop, 2 * MS, &reports);
  slow = timer(loop, HOUR, 0, close_and_stick, &gate);
  OK(evloop_watcher_set_name(slow, "gone"));
  set_timer(slow, 0, 0);
  UNTIL(LOAD(reports.stuck) >= 1);
  CHECK_EQ(evloop_watcher_set_priority(other, 0), 0);
  open_gate(&gate);
  UNTIL(LOAD(reports.returned) >= 1);
  CHECK_EQ(strcmp(reports.last[0].name, "gone"), 0);
  CHECK_EQ(strcmp(reports.last[1].name, "gone"), 0);
  stop_runner(&runner);
  close_loop(loop);
}

TEST(wrong_arguments_of_a_watchdog_are_refused) {
  static Reports reports;
  evloop_t loop = new_loop();
  CHECK_ERR(evloop_set_watchdog(loop, -1, on_stuck, &reports), EINVAL);
  CHECK_ERR(evloop_set_watchdog(0, MS, on_stuck, &reports), ESTALE);
  CHECK_ERR(evloop_set_watchdog(keep_alive(loop), MS, on_stuck, &reports), EDOM);
  CHECK_EQ(evloop_set_watchdog(loop, 0, on_stuck, &reports), 0);
  CHECK_EQ(evloop_set_watchdog(loop, MS, NULL, NULL), 0);
  close_loop(loop);
}

/* Ends a child that has passed, with a signal: the memory that belonged to the
 * thread of the parent's watchdog is lost in a fork, and checkers that run at
 * exit would report it. */
static void end_child(void) {
  kill(getpid(), SIGKILL);
}

/* Sets a watchdog, and waits for its first report: after that its thread runs
 * no code but the library's. A thread that is starting may hold locks of gcc's
 * AddressSanitizer, and a child that is forked then would wait for them for
 * ever. */
static void watch_before_fork(evloop_t loop, Reports *reports) {
  watch(loop, 5 * MS, reports);
  OK(evloop_post(loop, stick, reports));
  run_to_end(loop);
  UNTIL(LOAD(reports->returned) == 1);
}

/* In the child, where the watchdog has reported nothing yet. */
static void forget(Reports *reports) {
  reports->sticks = reports->stuck = reports->returned = 0;
}

static void fork_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  *(pid_t *)user_data = (pid_t)OK(fork());
}

TEST(a_forked_child_has_a_watchdog_of_its_own) {
  static Reports reports;
  static pid_t child;
  evloop_t loop = new_loop();
  int status;
  watch_before_fork(loop, &reports);
  OK(evloop_post(loop, fork_in_callback, &child));
  if (evloop_run(loop, EVLOOP_RUN_UNTIL_DONE) == -ECHILD) {
    CHECK_EQ(child, 0);
    forget(&reports);
    CHECK_EQ(evloop_after_fork(loop), 0);
    OK(evloop_post(loop, stick, &reports));
    run_to_end(loop);
    UNTIL(LOAD(reports.returned) >= 1);
    close_loop(loop);
    end_child();
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, SIGKILL);
  close_loop(loop);
}

static void fork_and_stick(const evloop_event_t *event, void *user_data) {
  Reports *reports = (Reports *)user_data;
  int status;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    forget(reports);
    CHECK_EQ(evloop_after_fork(watched_loop), 0);
    stick(event, user_data);
    return;
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, SIGKILL);
}

TEST(a_callback_that_forked_and_goes_on_in_the_child_is_reported_there) {
  static Reports reports;
  pid_t parent = getpid();
  watched_loop = new_loop();
  watch_before_fork(watched_loop, &reports);
  OK(evloop_post(watched_loop, fork_and_stick, &reports));
  run_to_end(watched_loop);
  if (getpid() != parent) {
    UNTIL(LOAD(reports.returned) >= 1);
    CHECK_EQ(evloop_set_watchdog(watched_loop, 0, NULL, NULL), 0);
    CHECK_EQ(evloop_close(watched_loop), 0);
    end_child();
  }
  CHECK_EQ(evloop_set_watchdog(watched_loop, 0, NULL, NULL), 0);
  close_loop(watched_loop);
}

TEST(a_forked_child_closes_the_loop_without_its_watchdog) {
  static Reports reports;
  evloop_t loop = new_loop();
  int status;
  watch_before_fork(loop, &reports);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_ERR(evloop_set_watchdog(loop, 0, NULL, NULL), ECHILD);
    CHECK_EQ(evloop_close(loop), 0);
    end_child();
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, SIGKILL);
  timer(loop, 0, 0, stick, &reports);
  run_to_end(loop);
  close_loop(loop);
}

CHECK_MAIN()
