/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Process watchers, with real processes. */

#define _GNU_SOURCE
#include "loop_support.h"
#include "process_support.h"

/* ---- helpers ---- */

static pid_t child_that_exits(int code) {
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    use_memory();
    _exit(code);
  }
  return child;
}

/* Until it is a zombie, which stays. */
static void wait_for_zombie(pid_t child) {
  siginfo_t info;
  OK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
}

static void expect_no_child(pid_t pid) {
  CHECK_EQ(waitpid(pid, NULL, WNOHANG), -1);
  CHECK_EQ(errno, ECHILD);
}

static evloop_watcher_t watch(evloop_t loop, pid_t pid, uint32_t flags,
                              evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_process(loop, pid, flags, callback, user_data));
}

/* The events of a watcher. */
typedef struct Story {
  int calls; /* atomic */
  evloop_event_t event;
  evloop_process_t process;
} Story;

static void record_story(const evloop_event_t *event, void *user_data) {
  Story *s = (Story *)user_data;
  CHECK_EQ(event->type, EVLOOP_EVENT_PROCESS);
  CHECK_EQ(event->fd, -1);
  CHECK_EQ(event->count, 1);
  s->event = *event;
  if ((event->events & EVLOOP_ERROR) == 0)
    CHECK_EQ(evloop_event_process(event, &s->process), 0);
  RAISE(s->calls, 1);
}

static Story new_story(void) {
  Story s;
  memset(&s, 0, sizeof s);
  return s;
}

/* ---- children ---- */

TEST(the_end_of_a_child_is_reported_and_its_status_left_to_waitpid) {
  evloop_t loop = new_loop();
  Story s = new_story();
  Held child = hold_child(41);
  evloop_watcher_t watcher = watch(loop, child.pid, 0, record_story, &s);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(s.calls, 0);
  let_go(&child);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(s.event.watcher, watcher);
  CHECK_EQ(s.event.data, (uintptr_t)&s);
  CHECK_EQ(s.event.events, 0);
  CHECK_EQ(s.event.result, 41 << 8);
  CHECK_EQ(s.process.pid, child.pid);
  CHECK_EQ(s.process.how, EVLOOP_PROCESS_EXITED);
  CHECK_EQ(s.process.status, 41);
  CHECK(s.process.user_ns >= 0);
  CHECK(s.process.system_ns >= 0);
  CHECK(s.process.max_rss > 4096);
  CHECK_EQ(reap(child.pid), 41 << 8);
  turns(loop, 3);
  CHECK_EQ(s.calls, 1);
  close_watcher(watcher);
  close_loop(loop);
}

TEST(a_child_that_a_signal_ends) {
  evloop_t loop = new_loop();
  Story s = new_story();
  Held child = hold_child(0);
  watch(loop, child.pid, 0, record_story, &s);
  OK(kill(child.pid, SIGKILL));
  run_to_end(loop);
  CHECK_EQ(s.event.result, SIGKILL);
  CHECK_EQ(s.process.how, EVLOOP_PROCESS_KILLED);
  CHECK_EQ(s.process.status, SIGKILL);
  CHECK_EQ(reap(child.pid), SIGKILL);
}

TEST(a_zombie_is_reported_at_once) {
  evloop_t loop = new_loop();
  Story s = new_story();
  pid_t child = child_that_exits(3);
  wait_for_zombie(child);
  watch(loop, child, 0, record_story, &s);
  turn(loop);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(s.event.result, 3 << 8);
  CHECK_EQ(reap(child), 3 << 8);
}

TEST(a_child_is_reaped_when_that_is_asked_for) {
  evloop_t loop = new_loop();
  Story s = new_story();
  pid_t child = child_that_exits(5);
  watch(loop, child, EVLOOP_PROCESS_REAP, record_story, &s);
  run_to_end(loop);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(s.event.result, 5 << 8);
  CHECK_EQ(s.process.status, 5);
  CHECK(s.process.max_rss > 4096);
  expect_no_child(child);
}

TEST(a_watcher_that_is_closed_first_reaps_nothing) {
  evloop_t loop = new_loop();
  pid_t child = child_that_exits(5);
  wait_for_zombie(child);
  close_watcher(watch(loop, child, EVLOOP_PROCESS_REAP, ignore, NULL));
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(reap(child), 5 << 8);
}

TEST(each_watcher_of_a_process_has_an_event) {
  evloop_t loops[2] = {new_loop(), new_loop()};
  Story s[4];
  memset(s, 0, sizeof s);
  Held child = hold_child(6);
  for (int i = 0; i < 4; i++) watch(loops[i % 2], child.pid, 0, record_story, &s[i]);
  let_go(&child);
  for (int i = 0; i < 2; i++) run_to_end(loops[i]);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(s[i].calls, 1);
    CHECK_EQ(s[i].event.result, 6 << 8);
  }
  CHECK_EQ(reap(child.pid), 6 << 8);
}

/* ---- others ---- */

/* A child of a child. This process learns its pid, and may end its parent, which
 * waits for it. */
typedef struct Grandchild {
  pid_t parent, pid;
  int rope;
} Grandchild;

static Grandchild new_grandchild(int code) {
  Grandchild g;
  Pipe number = new_pipe(), rope = new_pipe();
  g.rope = rope.w;
  g.parent = (pid_t)OK(fork());
  if (g.parent == 0) {
    pid_t pid = (pid_t)OK(fork());
    if (pid == 0) {
      char byte;
      close(rope.w);
      while (read(rope.r, &byte, 1) < 0) continue;
      _exit(code);
    }
    CHECK_EQ(write(number.w, &pid, sizeof pid), sizeof pid);
    while (waitpid(pid, NULL, 0) < 0) continue;
    _exit(0);
  }
  CHECK_EQ(read(number.r, &g.pid, sizeof g.pid), sizeof g.pid);
  return g;
}

TEST(the_end_of_a_process_that_is_no_child) {
  evloop_t loop = new_loop();
  Story s = new_story();
  Grandchild g = new_grandchild(9);
  CHECK_EQ(evloop_add_process(loop, g.pid, EVLOOP_PROCESS_REAP, record_story, &s), -EPERM);
  watch(loop, g.pid, 0, record_story, &s);
  put(g.rope);
  run_to_end(loop);
  CHECK_EQ(s.calls, 1);
  /* Known unless its parent was faster and the kernel is old. */
  if (s.event.events == 0) {
    CHECK_EQ(s.event.result, 9 << 8);
    CHECK_EQ(s.process.how, EVLOOP_PROCESS_EXITED);
    CHECK_EQ(s.process.status, 9);
  } else {
    CHECK_EQ(s.event.events, EVLOOP_PROCESS_STATUS_UNKNOWN);
    CHECK_EQ(s.event.result, 0);
    CHECK_EQ(s.process.how, 0);
  }
  CHECK_EQ(s.process.pid, g.pid);
  CHECK_EQ(s.process.user_ns, -1);
  CHECK_EQ(s.process.system_ns, -1);
  CHECK_EQ(s.process.max_rss, -1);
  CHECK_EQ(reap(g.parent), 0);
}

TEST(the_status_that_another_has_taken_is_the_kernels_or_unknown) {
  evloop_t loop = new_loop();
  Story s = new_story();
  pid_t child = child_that_exits(4);
  watch(loop, child, EVLOOP_PROCESS_REAP, record_story, &s);
  CHECK_EQ(reap(child), 4 << 8);
  run_to_end(loop);
  CHECK_EQ(s.calls, 1);
  if (s.event.events == 0) CHECK_EQ(s.event.result, 4 << 8);
  else CHECK_EQ(s.event.events, EVLOOP_PROCESS_STATUS_UNKNOWN);
}

TEST(a_process_can_watch_itself_and_has_no_event) {
  evloop_t loop = new_loop();
  watch(loop, getpid(), 0, ignore, NULL);
  watch(loop, 1, 0, ignore, NULL);
  CHECK_EQ(turn(loop), 1);
}

/* ---- when the event is delivered ---- */

TEST(a_loop_that_sleeps_in_another_thread_is_woken) {
  Runner r;
  Story s = new_story();
  Held child = hold_child(2);
  evloop_t loop = sleeping_loop(&r);
  watch(loop, child.pid, EVLOOP_PROCESS_REAP, record_story, &s);
  wait_until_asleep(&r.tid);
  let_go(&child);
  UNTIL(LOAD(s.calls) == 1);
  stop_runner(&r);
  CHECK_EQ(s.event.result, 2 << 8);
}

TEST(a_process_that_ends_while_its_watcher_is_disabled_is_reported_later) {
  evloop_t loop = new_loop();
  keep_alive(loop);
  Story s = new_story();
  pid_t child = child_that_exits(8);
  evloop_watcher_t watcher = watch(loop, child, 0, record_story, &s);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  wait_for_zombie(child);
  turns(loop, 3);
  CHECK_EQ(s.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  turn(loop);
  turn(loop);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  turns(loop, 3);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(s.event.result, 8 << 8);
  reap(child);
}

static evloop_watcher_t victim;

static void disable_victim(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_watcher_disable(victim), 0);
}

TEST(a_watcher_that_one_of_a_higher_priority_disables_keeps_its_event) {
  evloop_t loop = new_loop();
  Story s = new_story();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  pid_t child = child_that_exits(8);
  victim = watch(loop, child, EVLOOP_PROCESS_REAP, record_story, &s);
  evloop_watcher_t first = async(loop, disable_victim, &seen);
  CHECK_EQ(evloop_watcher_set_priority(first, 5), 0);
  wait_for_zombie(child);
  trigger(first);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(s.calls, 0);
  turn(loop);
  CHECK_EQ(evloop_watcher_enable(victim), 0);
  turn(loop);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(s.process.status, 8);
  CHECK(s.process.max_rss > 4096);
}

TEST(a_record_is_one_and_has_the_rest_until_the_next_wait) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  evloop_process_t process;
  pid_t child = child_that_exits(11);
  evloop_watcher_t watcher = watch(loop, child, EVLOOP_PROCESS_REAP, NULL, WORD("w"));
  wait_for_zombie(child);
  turns(loop, 3);
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 1);
  CHECK_EQ(events[0].watcher, watcher);
  CHECK_EQ(events[0].type, EVLOOP_EVENT_PROCESS);
  CHECK_EQ(events[0].result, 11 << 8);
  memset(&process, 0x5a, sizeof process);
  CHECK_EQ(evloop_event_process(&events[0], &process), 0);
  CHECK_EQ(process.status, 11);
  for (int i = 0; AT_ROW(i, process.spare); i++) CHECK_EQ(process.spare[i], 0);
  CHECK_EQ(sizeof process, 64);
  CHECK_EQ(evloop_wait(loop, events + 1, 3, 0), 0);
  CHECK_EQ(evloop_event_process(&events[0], &process), -ENOENT);
  close_watcher(watcher);
  CHECK_EQ(evloop_event_process(&events[0], &process), -ESTALE);
}

static void close_and_ask(const evloop_event_t *event, void *user_data) {
  evloop_process_t process;
  record_story(event, user_data);
  close_watcher(event->watcher);
  CHECK_EQ(evloop_event_process(event, &process), 0);
  CHECK_EQ(process.pid, ((Story *)user_data)->process.pid);
}

TEST(a_watcher_is_closed_by_its_own_event) {
  evloop_t loop = new_loop();
  Story s = new_story();
  int before = open_descriptors();
  watch(loop, child_that_exits(1), EVLOOP_PROCESS_REAP, close_and_ask, &s);
  run_to_end(loop);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(open_descriptors(), before);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

TEST(the_descriptor_is_given_up_with_the_event) {
  evloop_t loop = new_loop();
  Story s = new_story();
  int before = open_descriptors();
  evloop_watcher_t watcher = watch(loop, child_that_exits(1), EVLOOP_PROCESS_REAP, record_story,
                                   &s);
  CHECK_EQ(open_descriptors(), before + 1);
  run_to_end(loop);
  CHECK_EQ(open_descriptors(), before);
  /* The descriptor that the loop has closed is then the pipe's. */
  Pipe p = new_pipe();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  evloop_watcher_t io = readable_io(loop, p.r, record_and_take, &seen);
  close_watcher(watcher);
  put(p.w);
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(seen.calls, 1);
  close_watcher(io);
}

TEST_TIMEOUT(watchers_are_closed_by_another_thread_as_their_processes_end, 60) {
  Runner r;
  Story s = new_story();
  evloop_t loop = running_loop(&r, true);
  Pipe p = new_pipe();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  readable_io(loop, p.r, record_and_take, &seen);
  for (int i = 0; i < 200; i++) {
    pid_t child = child_that_exits(0);
    evloop_watcher_t watcher = watch(loop, child, 0, record_story, &s);
    wait_for_zombie(child);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    reap(child);
    put(p.w);
    UNTIL(LOAD(seen.calls) == i + 1);
  }
  stop_runner(&r);
  close_loop(loop);
}

/* ---- many ---- */

enum { CHILDREN = 1000 };

static int ended[CHILDREN];

static void note_end(const evloop_event_t *event, void *user_data) {
  int number = (int)(intptr_t)user_data;
  evloop_process_t process;
  CHECK_EQ(event->events, 0);
  CHECK_EQ(evloop_event_process(event, &process), 0);
  CHECK_EQ(process.status, number % 256);
  ended[number]++;
  close_watcher(event->watcher);
}

TEST_TIMEOUT(a_thousand_children_end_at_once, 120) {
  evloop_t loop = new_loop();
  Pipe rope = new_pipe();
  set_limit(CHILDREN + 100);
  for (int i = 0; i < CHILDREN; i++) {
    pid_t child = (pid_t)OK(fork());
    if (child == 0) {
      char byte;
      close(rope.w);
      while (read(rope.r, &byte, 1) < 0) continue;
      _exit(i % 256);
    }
    watch(loop, child, EVLOOP_PROCESS_REAP, note_end, as_data(i));
  }
  CHECK_EQ(turn(loop), 1);
  OK(close(rope.w));
  run_to_end(loop);
  for (int i = 0; i < CHILDREN; i++) CHECK_EQ(ended[i], 1);
  expect_no_child(-1);
  close_loop(loop);
}

/* ---- fork ---- */

TEST(a_forked_child_watches_on_but_is_not_the_parent) {
  evloop_t loop = new_loop();
  Story s = new_story();
  Held held = hold_child(13);
  watch(loop, held.pid, EVLOOP_PROCESS_REAP, record_story, &s);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_NOWAIT), -ECHILD);
    CHECK_EQ(evloop_after_fork(loop), 0);
    CHECK_EQ(turn(loop), 1);
    CHECK_EQ(s.calls, 0);
    CHECK_EQ(evloop_add_process(loop, held.pid, EVLOOP_PROCESS_REAP, record, NULL), -EPERM);
    let_go(&held);
    run_to_end(loop);
    CHECK_EQ(s.calls, 1);
    CHECK_EQ(s.process.pid, held.pid);
    close_loop(loop);
    _exit(7);
  }
  CHECK_EQ(reap(child), 7 << 8);
  run_to_end(loop);
  CHECK_EQ(s.calls, 1);
  CHECK_EQ(s.event.result, 13 << 8);
  expect_no_child(-1);
}

TEST(a_child_that_has_closed_the_descriptors_has_an_error) {
  evloop_t loop = new_loop();
  Story s = new_story();
  Held held = hold_child(0);
  evloop_watcher_t watcher = watch(loop, held.pid, 0, record_story, &s);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    for (int fd = 3; fd < 30; fd++) close(fd);
    int others[30];
    for (int i = 0; i < 30; i++) others[i] = (int)OK(dup(0));
    CHECK_EQ(evloop_after_fork(loop), 0);
    OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    CHECK_EQ(s.calls, 1);
    CHECK_EQ(s.event.events, EVLOOP_ERROR);
    CHECK_EQ(s.event.result, -EBADF);
    close_watcher(watcher);
    for (int i = 0; i < 30; i++) OK(fcntl(others[i], F_GETFD));
    _exit(7);
  }
  CHECK_EQ(reap(child), 7 << 8);
  let_go(&held);
  run_to_end(loop);
  CHECK_EQ(s.calls, 1);
  reap(held.pid);
}

/* ---- what is refused ---- */

static void *sleep_in_thread(void *argument) {
  store_tid((pid_t *)argument);
  for (;;) pause();
  return NULL;
}

TEST(what_is_no_process_is_refused) {
  evloop_t loop = new_loop();
  char text[200];
  pid_t gone = child_that_exits(0), tid = 0;
  reap(gone);
  CHECK_EQ(evloop_add_process(loop, 0, 0, record, NULL), -EINVAL);
  CHECK_EQ(evloop_add_process(loop, -1, 0, record, NULL), -EINVAL);
  CHECK_EQ(evloop_add_process(loop, INT32_MIN, 0, record, NULL), -EINVAL);
  CHECK_EQ(evloop_add_process(loop, getpid(), 2, record, NULL), -EINVAL);
  CHECK_EQ(evloop_add_process(loop, gone, 0, record, NULL), -ESRCH);
  CHECK(evloop_last_error(text, sizeof text) > 0);
  CHECK(strstr(text, "there is no process ") != NULL);
  CHECK_EQ(evloop_add_process(loop, INT32_MAX, 0, record, NULL), -ESRCH);
  CHECK_EQ(evloop_add_process(loop, 1, EVLOOP_PROCESS_REAP, record, NULL), -EPERM);
  pthread_t thread = start_thread(sleep_in_thread, &tid);
  UNTIL(LOAD(tid) != 0);
  CHECK_EQ(evloop_add_process(loop, tid, 0, record, NULL), -ESRCH);
  CHECK_EQ(pthread_cancel(thread), 0);
  join(thread);
  CHECK_EQ(evloop_add_process(loop + 1, getpid(), 0, record, NULL), -ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

TEST(without_descriptors_nothing_is_left) {
  leave_room_for_checkers();
  evloop_t loop = new_loop();
  int fd = (int)OK(dup(0));
  set_limit((rlim_t)fd + 1);
  CHECK_EQ(evloop_add_process(loop, getpid(), 0, record, NULL), -EMFILE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  OK(close(fd));
  watch(loop, getpid(), 0, record, NULL);
  CHECK_EQ(evloop_add_process(loop, getpid(), 0, record, NULL), -EMFILE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  close_loop(loop);
}

/* ---- reaped when the event is delivered, not before ---- */

static int64_t to_close;

static pid_t ended_child(int code) {
  pid_t child = child_that_exits(code);
  wait_for_zombie(child);
  return child;
}

static void never(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  CHECK(!"called");
}

static void close_another(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  OK(evloop_watcher_close(to_close, 0));
}

TEST(a_child_is_not_reaped_when_its_event_is_not_delivered) {
  evloop_t loop = OK(evloop_create(NULL));
  /* As a record that no evloop_wait() takes. */
  pid_t child = ended_child(3);
  int64_t watcher = OK(evloop_add_process(loop, child, EVLOOP_PROCESS_REAP, NULL, NULL));
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  OK(evloop_watcher_close(watcher, 0));
  CHECK_EQ(WEXITSTATUS(reap(child)), 3);
  /* Closed by a neighbour of the same batch. */
  child = ended_child(4);
  to_close = OK(evloop_add_process(loop, child, EVLOOP_PROCESS_REAP, never, NULL));
  OK(evloop_watcher_set_priority(OK(evloop_add_defer(loop, close_another, NULL)), 1));
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_ERR(evloop_watcher_close(to_close, 0), ESTALE);
  CHECK_EQ(WEXITSTATUS(reap(child)), 4);
  /* Taken as a record. */
  evloop_event_t record;
  child = ended_child(5);
  OK(evloop_add_process(loop, child, EVLOOP_PROCESS_REAP, NULL, NULL));
  CHECK_EQ(evloop_wait(loop, &record, 1, -1), 1);
  CHECK_EQ(WEXITSTATUS(record.result), 5);
  expect_no_child(child);
}

CHECK_MAIN()
