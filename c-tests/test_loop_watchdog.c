/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchdogs: who is told of a callback that is stuck, and when. */

#define _GNU_SOURCE 1
#include "loop_support.h"

/* What a watchdog has told. */
typedef struct Told {
  int sticks;
  int stuck, returned; /* atomic */
  evloop_stuck_t last[2];
  pid_t tid;
  evloop_t close; /* in the callback */
} Told;

static void on_stuck(const evloop_stuck_t *stuck, void *user_data) {
  Told *told = (Told *)user_data;
  told->tid = (pid_t)syscall(SYS_gettid);
  told->last[stuck->returned] = *stuck;
  if (told->close != 0 && !stuck->returned) CHECK_EQ(evloop_close(told->close), 0);
  if (stuck->returned) RAISE(told->returned, 1);
  else RAISE(told->stuck, 1);
}

static void watch(evloop_t loop, int64_t limit_ns, Told *told) {
  CHECK_EQ(evloop_set_watchdog(loop, limit_ns, on_stuck, told), 0);
}

/* A callback that is stuck until its watchdog has told of it, which it may do
 * before the first line of this runs. */
static void stick(const evloop_event_t *event, void *user_data) {
  Told *told = (Told *)user_data;
  int due = ++told->sticks;
  (void)event;
  UNTIL(LOAD(told->stuck) >= due);
}

TEST(a_stuck_callback_is_told_of_once_and_once_more_when_it_has_returned) {
  static Told told;
  const evloop_stuck_t *first = &told.last[0], *second = &told.last[1];
  evloop_t loop = new_loop();
  int64_t began = now_ns(CLOCK_MONOTONIC);
  evloop_watcher_t slow = timer(loop, 0, 0, stick, &told);
  OK(evloop_watcher_set_name(slow, "slow"));
  watch(loop, 5 * MS, &told);
  run_to_end(loop);
  UNTIL(LOAD(told.returned) == 1);
  CHECK_EQ(told.stuck, 1);
  CHECK_EQ(first->loop, loop);
  CHECK_EQ(first->watcher, slow);
  CHECK_EQ(first->type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(first->returned, 0);
  for (int i = 0; i < LENGTH(first->spare); i++) CHECK_EQ(first->spare[i], 0);
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
  static Told told;
  evloop_t loop = new_loop();
  evloop_watcher_t io = readable_io(loop, event_fd(1), record_and_close, &(Seen){0});
  /* Longer than what does not stick takes. */
  watch(loop, 50 * MS * slow_factor(), &told);
  CHECK_EQ(evloop_watcher_set_destroy(io, stick, &told), 0);
  OK(evloop_post(loop, stick, &told));
  run_to_end(loop);
  UNTIL(LOAD(told.returned) == 2);
  CHECK_EQ(told.last[0].type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(told.last[0].watcher, io);
  readable_io(loop, event_fd(1), stick, &told);
  turn(loop);
  UNTIL(LOAD(told.returned) == 3);
  CHECK_EQ(told.last[1].type, EVLOOP_EVENT_IO);
  CHECK_EQ(told.last[1].name[0], '\0');
  close_loop(loop);
}

TEST(what_is_not_stuck_is_not_told_of) {
  static Told told;
  Runner runner;
  evloop_t loop = running_loop(&runner, true);
  int i;
  /* Longer than anything here takes, and the loop does a lot. */
  watch(loop, 10 * SECOND, &told);
  for (i = 0; i < 20; i++) go_round(loop);
  stop_runner(&runner);
  /* Asleep is not stuck. */
  watch(loop, MS, &told);
  OK(evloop_run_for_ns(loop, 0));
  CHECK_EQ(evloop_set_watchdog(loop, 0, NULL, NULL), 0);
  close_loop(loop);
}

TEST(a_loop_that_sleeps_is_not_stuck) {
  static Told told;
  evloop_t loop = new_loop();
  timer(loop, 50 * MS, 0, ignore, NULL);
  watch(loop, 20 * MS, &told);
  run_to_end(loop);
  CHECK_EQ(evloop_set_watchdog(loop, 0, NULL, NULL), 0);
  /* Its callback may be, where the machine has no time for it. */
  if (told.stuck > 0) CHECK_EQ(told.last[0].type, EVLOOP_EVENT_TIMER);
  close_loop(loop);
}

TEST(its_thread_has_a_name_and_blocks_all_signals_and_ends_with_the_loop) {
  static Told told;
  char path[64], text[64] = "";
  unsigned long long blocked = 0;
  evloop_t loop = new_loop();
  FILE *file;
  timer(loop, 0, 0, stick, &told);
  watch(loop, MS, &told);
  run_to_end(loop);
  UNTIL(LOAD(told.returned) == 1);
  CHECK(told.tid != (pid_t)syscall(SYS_gettid));
  snprintf(path, sizeof path, "/proc/self/task/%d/status", told.tid);
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
  static Told told;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, stick, &told);
  told.close = loop;
  watch(loop, MS, &told);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
  CHECK_EQ(told.stuck, 1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

static void remove_itself(const evloop_stuck_t *stuck, void *user_data) {
  Told *told = (Told *)user_data;
  CHECK_EQ(evloop_set_watchdog(stuck->loop, 0, NULL, NULL), 0);
  RAISE(told->stuck, 1);
}

TEST(a_watchdog_removes_itself) {
  static Told told;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, stick, &told);
  CHECK_EQ(evloop_set_watchdog(loop, MS, remove_itself, &told), 0);
  run_to_end(loop);
  CHECK_EQ(told.stuck, 1);
  close_loop(loop);
}

static evloop_t told_loop;

static void set_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  watch(told_loop, MS, (Told *)user_data);
}

TEST(a_watchdog_is_replaced_from_callbacks_and_other_threads) {
  static Told told;
  Runner runner;
  int i;
  evloop_t loop = running_loop(&runner, false);
  told_loop = loop;
  for (i = 0; i < 50; i++) {
    OK(evloop_post(loop, set_in_callback, &told));
    watch(loop, MS, &told);
  }
  go_round(loop);
  watch(loop, 2 * MS, &told);
  told.stuck = told.returned = 0;
  OK(evloop_post(loop, stick, &told));
  UNTIL(LOAD(told.returned) >= 1);
  stop_runner(&runner);
  close_loop(loop);
}

/* A callback is in the gate when a watchdog is set, or set anew. */
static void set_while_stuck(evloop_t loop, Runner *runner) {
  static Told told;
  static Gate gate;
  int64_t until;
  memset(&told, 0, sizeof told);
  go_round(loop);
  hold(loop, &gate);
  watch(loop, 5 * MS, &told);
  /* It would have looked long since. */
  for (until = now_ns(CLOCK_MONOTONIC) + 30 * MS; now_ns(CLOCK_MONOTONIC) < until;) continue;
  open_gate(&gate);
  go_round(loop);
  /* Those that come are told of, each with its end. */
  OK(evloop_post(loop, stick, &told));
  UNTIL(LOAD(told.returned) >= 1);
  CHECK(told.last[0].since_ns > until - 30 * MS);
  OK(evloop_post(loop, stick, &told));
  UNTIL(LOAD(told.returned) >= 2);
  stop_runner(runner);
  close_loop(loop);
}

TEST(a_watchdog_that_is_set_while_a_trace_is_made_tells_of_later_callbacks) {
  Runner runner;
  evloop_t loop = running_loop(&runner, false);
  CHECK_EQ(evloop_trace_start(loop, "/dev/null", 0), 0);
  set_while_stuck(loop, &runner);
}

TEST(a_watchdog_that_replaces_another_tells_of_later_callbacks) {
  static Told other;
  Runner runner;
  evloop_t loop = running_loop(&runner, false);
  watch(loop, 1000 * SECOND, &other);
  set_while_stuck(loop, &runner);
}

/* The same where nothing else is told of: also where the watchdog is faster
 * than this. */
static void stick_first(const evloop_event_t *event, void *user_data) {
  Told *told = (Told *)user_data;
  (void)event;
  UNTIL(LOAD(told->stuck) >= 1);
}

/* Replaces the watchdog of the loop that it is called by, and stays; another
 * one stays after it. */
static void set_and_stay(const evloop_event_t *event, void *user_data) {
  int64_t end;
  set_in_callback(event, user_data);
  OK(evloop_watcher_set_name(timer(told_loop, 0, 0, stick_first, user_data), "later"));
  for (end = now_ns(CLOCK_MONOTONIC) + 30 * MS; now_ns(CLOCK_MONOTONIC) < end;) continue;
}

TEST(a_callback_that_sets_a_watchdog_is_not_told_of) {
  static Told before, told;
  told_loop = new_loop();
  watch(told_loop, 1000 * SECOND, &before);
  OK(evloop_post(told_loop, set_and_stay, &told));
  run_to_end(told_loop);
  UNTIL(LOAD(told.returned) >= 1);
  CHECK_EQ(told.stuck, 1);
  CHECK_EQ(strcmp(told.last[0].name, "later"), 0);
  CHECK_EQ(told.last[0].type, EVLOOP_EVENT_TIMER);
  close_loop(told_loop);
}

static void stop_trace_of(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  CHECK(evloop_trace_stop(told_loop) >= 0);
}

TEST(a_callback_that_ended_a_trace_is_not_stuck_for_ever) {
  static Told told;
  int64_t end;
  told_loop = new_loop();
  CHECK_EQ(evloop_set_stats(told_loop, 1), 0);
  CHECK_EQ(evloop_trace_start(told_loop, "/dev/null", 0), 0);
  OK(evloop_post(told_loop, stop_trace_of, NULL));
  run_to_end(told_loop);
  watch(told_loop, MS, &told);
  for (end = now_ns(CLOCK_MONOTONIC) + 20 * MS; now_ns(CLOCK_MONOTONIC) < end;) continue;
  timer(told_loop, 0, 0, stick_first, &told);
  run_to_end(told_loop);
  UNTIL(LOAD(told.returned) >= 1);
  CHECK_EQ(told.stuck, 1);
  CHECK_EQ(told.last[0].type, EVLOOP_EVENT_TIMER);
  CHECK_EQ(evloop_set_watchdog(told_loop, 0, NULL, NULL), 0);
  /* Nor is it a callback of the next loop. */
  CHECK_EQ(evloop_trace_start(told_loop, "/dev/null", 0), 0);
  OK(evloop_post(told_loop, stop_trace_of, NULL));
  run_to_end(told_loop);
  close_loop(told_loop);
  told_loop = new_loop();
  watch(told_loop, MS, &told);
  for (end = now_ns(CLOCK_MONOTONIC) + 20 * MS; now_ns(CLOCK_MONOTONIC) < end;) continue;
  CHECK_EQ(evloop_set_watchdog(told_loop, 0, NULL, NULL), 0);
  CHECK_EQ(told.stuck, 1);
  close_loop(told_loop);
}

static void close_and_stick(const evloop_event_t *event, void *user_data) {
  Gate *gate = (Gate *)user_data;
  close_watcher(event->watcher);
  stay(event, gate);
  /* Takes what others have left. */
  OK(evloop_watcher_loop(keep_alive(told_loop)));
}

TEST(the_end_of_a_callback_that_closed_its_watcher_is_told_with_its_name) {
  static Told told;
  static Gate gate;
  Runner runner;
  evloop_watcher_t slow, other;
  evloop_t loop = running_loop(&runner, false);
  told_loop = loop;
  other = keep_alive(loop);
  watch(loop, 2 * MS, &told);
  slow = timer(loop, HOUR, 0, close_and_stick, &gate);
  OK(evloop_watcher_set_name(slow, "gone"));
  set_timer(slow, 0, 0);
  UNTIL(LOAD(told.stuck) >= 1);
  CHECK_EQ(evloop_watcher_set_priority(other, 0), 0);
  open_gate(&gate);
  UNTIL(LOAD(told.returned) >= 1);
  CHECK_EQ(strcmp(told.last[0].name, "gone"), 0);
  CHECK_EQ(strcmp(told.last[1].name, "gone"), 0);
  stop_runner(&runner);
  close_loop(loop);
}

TEST(wrong_arguments_of_a_watchdog_are_refused) {
  static Told told;
  evloop_t loop = new_loop();
  CHECK_ERR(evloop_set_watchdog(loop, -1, on_stuck, &told), EINVAL);
  CHECK_ERR(evloop_set_watchdog(0, MS, on_stuck, &told), ESTALE);
  CHECK_ERR(evloop_set_watchdog(keep_alive(loop), MS, on_stuck, &told), EDOM);
  CHECK_EQ(evloop_set_watchdog(loop, 0, on_stuck, &told), 0);
  CHECK_EQ(evloop_set_watchdog(loop, MS, NULL, NULL), 0);
  close_loop(loop);
}

/* Has a child end well, but for the checkers, which would look for what the
 * thread of its parent's watchdog had of its own: that is lost in a fork. */
static void end_child(void) {
  kill(getpid(), SIGKILL);
}

/* The same, and its thread is in nobody's code but the library's after that:
 * while one begins it may have locks of gcc's AddressSanitizer, which a child
 * that is forked meanwhile would wait for in vain. */
static void watch_before_fork(evloop_t loop, Told *told) {
  watch(loop, 5 * MS, told);
  OK(evloop_post(loop, stick, told));
  run_to_end(loop);
  UNTIL(LOAD(told->returned) == 1);
}

/* In the child, where the watchdog has told of nothing yet. */
static void forget(Told *told) {
  told->sticks = told->stuck = told->returned = 0;
}

static void fork_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  *(pid_t *)user_data = (pid_t)OK(fork());
}

TEST(a_forked_child_has_a_watchdog_of_its_own) {
  static Told told;
  static pid_t child;
  evloop_t loop = new_loop();
  int status;
  watch_before_fork(loop, &told);
  OK(evloop_post(loop, fork_in_callback, &child));
  if (evloop_run(loop, EVLOOP_RUN_UNTIL_DONE) == -ECHILD) {
    CHECK_EQ(child, 0);
    forget(&told);
    CHECK_EQ(evloop_after_fork(loop), 0);
    OK(evloop_post(loop, stick, &told));
    run_to_end(loop);
    UNTIL(LOAD(told.returned) >= 1);
    close_loop(loop);
    end_child();
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, SIGKILL);
  close_loop(loop);
}

static void fork_and_stick(const evloop_event_t *event, void *user_data) {
  Told *told = (Told *)user_data;
  int status;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    forget(told);
    CHECK_EQ(evloop_after_fork(told_loop), 0);
    stick(event, user_data);
    return;
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, SIGKILL);
}

TEST(a_child_that_goes_on_in_the_callback_that_forked_is_told_of_it) {
  static Told told;
  pid_t parent = getpid();
  told_loop = new_loop();
  watch_before_fork(told_loop, &told);
  OK(evloop_post(told_loop, fork_and_stick, &told));
  run_to_end(told_loop);
  if (getpid() != parent) {
    UNTIL(LOAD(told.returned) >= 1);
    CHECK_EQ(evloop_set_watchdog(told_loop, 0, NULL, NULL), 0);
    CHECK_EQ(evloop_close(told_loop), 0);
    end_child();
  }
  CHECK_EQ(evloop_set_watchdog(told_loop, 0, NULL, NULL), 0);
  close_loop(told_loop);
}

TEST(a_forked_child_closes_the_loop_without_its_watchdog) {
  static Told told;
  evloop_t loop = new_loop();
  int status;
  watch_before_fork(loop, &told);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_ERR(evloop_set_watchdog(loop, 0, NULL, NULL), ECHILD);
    CHECK_EQ(evloop_close(loop), 0);
    end_child();
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, SIGKILL);
  timer(loop, 0, 0, stick, &told);
  run_to_end(loop);
  close_loop(loop);
}

CHECK_MAIN()
