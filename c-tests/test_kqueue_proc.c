/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: EVFILT_PROC with real processes, and with the kernel's process
 * connector where that can be had. */

#define _GNU_SOURCE
#include "kqueue_support.h"
#include "process_support.h"

#include <sched.h>

#define KQ_PROC EVLOOP_KQ_FILTER_PROC
#define EXIT EVLOOP_KQ_NOTE_EXIT
#define FORK EVLOOP_KQ_NOTE_FORK
#define EXEC EVLOOP_KQ_NOTE_EXEC
#define TRACK EVLOOP_KQ_NOTE_TRACK
#define TRACKERR EVLOOP_KQ_NOTE_TRACKERR
#define CHILD EVLOOP_KQ_NOTE_CHILD
#define UNKNOWN EVLOOP_KQ_NOTE_EXITUNKNOWN

/* ---- helpers ---- */

/* One event, where there may be more. */
static Event one_event(evloop_kqueue_t kq) {
  Event event;
  CHECK_EQ(take(kq, &event, 1, -1), 1);
  CHECK_EQ(event.filter, KQ_PROC);
  CHECK_EQ(event.udata, 9);
  return event;
}

/* Where forks are watched, those of other processes make the descriptor
 * readable. */
static void expect_no_event(evloop_kqueue_t kq) {
  Event event;
  CHECK_EQ(take(kq, &event, 1, 0), 0);
}

/* Until it is a zombie, which stays. */
static void wait_for_zombie(pid_t child) {
  siginfo_t info;
  OK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
}

static void watch(evloop_kqueue_t kq, pid_t pid, uint32_t fflags) {
  apply(kq, (uint64_t)pid, KQ_PROC, ADD, fflags, 0, 9);
}

static Event next_of(evloop_kqueue_t kq, pid_t pid, uint32_t fflags) {
  Event event = expect_event(kq, (uint64_t)pid, KQ_PROC);
  CHECK_EQ(event.fflags, fflags);
  CHECK_EQ(event.udata, 9);
  return event;
}

static Event next_exit(evloop_kqueue_t kq, pid_t pid) {
  Event event = next_of(kq, pid, EXIT);
  CHECK_EQ(event.flags, CLEAR | ONESHOT | KQ_EOF);
  CHECK_ERR(try_change(kq, (uint64_t)pid, KQ_PROC, DELETE, 0, 0, 0), ENOENT);
  return event;
}

/* A grandchild: no child of this process, which its parent never waits for. */
typedef struct Stranger {
  Held parent;
  pid_t pid;
  int rope;
} Stranger;

static Stranger stranger(int code) {
  Stranger made;
  Pipe rope = new_pipe(), life = new_pipe(), name = new_pipe();
  made.parent.pid = (pid_t)OK(fork());
  if (made.parent.pid == 0) {
    char byte;
    close(rope.w);
    close(life.w);
    pid_t child = fork();
    if (child == 0) {
      while (read(rope.r, &byte, 1) < 0) continue;
      _exit(code);
    }
    if (write(name.w, &child, sizeof child) != sizeof child) _exit(1);
    while (read(life.r, &byte, 1) < 0) continue;
    _exit(0);
  }
  OK(close(rope.r));
  OK(close(life.r));
  CHECK_EQ(read(name.r, &made.pid, sizeof made.pid), sizeof made.pid);
  made.parent.rope = life.w;
  made.rope = rope.w;
  return made;
}

static void end_stranger(const Stranger *stranger) {
  let_go(&stranger->parent);
  CHECK_EQ(reap(stranger->parent.pid), 0);
}

/* Whether forks can be watched here: they must be, by root. */
static bool has_connector(evloop_kqueue_t kq) {
  int result = try_change(kq, (uint64_t)getpid(), KQ_PROC, ADD, FORK, 0, 9);
  if (result == 0) {
    apply(kq, (uint64_t)getpid(), KQ_PROC, DELETE, 0, 0, 9);
    return true;
  }
  CHECK_EQ(result, -ENOTSUP);
  CHECK(geteuid() != 0);
  return false;
}

/* ---- exit ---- */

TEST(the_exit_of_a_child_has_its_status) {
  evloop_kqueue_t kq = new_kqueue();
  Held child = hold_child(3);
  watch(kq, child.pid, EXIT);
  expect_nothing(kq);
  let_go(&child);
  CHECK_EQ(next_exit(kq, child.pid).data, 3 << 8);
  expect_nothing(kq);
  /* It is still there to be waited for. */
  CHECK_EQ(WEXITSTATUS(reap(child.pid)), 3);
}

TEST(a_killed_child_has_its_signal) {
  evloop_kqueue_t kq = new_kqueue();
  Held child = hold_child(0);
  watch(kq, child.pid, EXIT | EVLOOP_KQ_NOTE_EXITSTATUS);
  OK(kill(child.pid, SIGKILL));
  Event event = next_of(kq, child.pid, EXIT | EVLOOP_KQ_NOTE_EXITSTATUS);
  CHECK_EQ(event.data, SIGKILL);
  CHECK_EQ(reap(child.pid), SIGKILL);
}

TEST(a_child_that_has_ended_already_fires_at_once) {
  evloop_kqueue_t kq = new_kqueue();
  Held child = hold_child(4);
  let_go(&child);
  wait_for_zombie(child.pid);
  watch(kq, child.pid, EXIT);
  CHECK(is_pending(kq));
  CHECK_EQ(next_exit(kq, child.pid).data, 4 << 8);
  CHECK_EQ(reap(child.pid), 4 << 8);
  CHECK_ERR(try_change(kq, (uint64_t)child.pid, KQ_PROC, ADD, EXIT, 0, 0), ESRCH);
}

TEST(who_is_no_process_is_esrch) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t none[] = {0, 0x7fffffff, UINT64_C(1) << 32, UINT64_MAX};
  for (int i = 0; AT_ROW(i, none); i++) {
    CHECK_ERR(try_change(kq, none[i], KQ_PROC, ADD, EXIT, 0, 0), ESRCH);
    CHECK_ERR(try_change(kq, none[i], KQ_PROC, DELETE, 0, 0, 0), ENOENT);
  }
}

TEST(unknown_bits_are_refused) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t me = (uint64_t)getpid();
  CHECK_ERR(try_change(kq, me, KQ_PROC, ADD, EXIT | 0x100, 0, 0), EINVAL);
  uint32_t macs[] = {0x10000000, 0x08000000, 0x02000000};
  for (int i = 0; i < 3; i++) {
    CHECK_ERR(try_change(kq, me, KQ_PROC, ADD, EXIT | macs[i], 0, 0), ENOTSUP);
  }
}

static void *thread_main(void *argument) {
  pid_t *tid = (pid_t *)argument;
  store_tid(tid);
  UNTIL(LOAD(*tid) == 0);
  return NULL;
}

TEST(a_thread_is_answered_as_the_kernel_does) {
  evloop_kqueue_t kq = new_kqueue();
  pthread_t thread;
  pid_t tid = 0, found;
  CHECK_EQ(pthread_create(&thread, NULL, thread_main, &tid), 0);
  UNTIL((found = LOAD(tid)) != 0);
  long result = syscall(SYS_pidfd_open, found, 0);
  CHECK(result < 0);
  CHECK(errno == EINVAL || errno == ENOENT);
  CHECK_ERR(try_change(kq, (uint64_t)found, KQ_PROC, ADD, EXIT, 0, 0), errno);
  STORE(tid, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(the_exit_of_a_stranger_is_not_held_back) {
  evloop_kqueue_t kq = new_kqueue();
  Stranger other = stranger(6);
  watch(kq, other.pid, EXIT);
  expect_nothing(kq);
  OK(close(other.rope));
  /* Its parent has not waited for it, and the kernel lets this user read its
   * status. */
  CHECK_EQ(next_exit(kq, other.pid).data, 6 << 8);
  expect_nothing(kq);
  end_stranger(&other);
}

TEST(the_status_of_who_may_not_be_looked_at_is_unknown) {
  Stranger other = stranger(0);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(geteuid(), 0);
    OK(setgid(65534));
    OK(setuid(65534));
    evloop_kqueue_t kq = new_kqueue();
    watch(kq, other.pid, EXIT);
    OK(close(other.rope));
    Event event = next_of(kq, other.pid, EXIT | UNKNOWN);
    CHECK_EQ(event.data, 0);
    CHECK_EQ(event.flags, CLEAR | ONESHOT | KQ_EOF);
    exit(0);
  }
  OK(close(other.rope));
  CHECK_EQ(reap(child), 0);
  end_stranger(&other);
}

TEST(a_child_waited_for_first_is_reported) {
  evloop_kqueue_t kq = new_kqueue();
  Held child = hold_child(5);
  watch(kq, child.pid, EXIT);
  let_go(&child);
  CHECK_EQ(reap(child.pid), 5 << 8);
  Event event = expect_event(kq, (uint64_t)child.pid, KQ_PROC);
  CHECK(event.fflags == EXIT ? event.data == 5 << 8 : event.fflags == (EXIT | UNKNOWN));
  expect_nothing(kq);
}

TEST(a_disabled_exit_is_kept_and_does_not_spin) {
  evloop_kqueue_t kq = new_kqueue();
  Held child = hold_child(2);
  apply(kq, (uint64_t)child.pid, KQ_PROC, ADD | DISABLE, EXIT, 0, 9);
  let_go(&child);
  wait_for_zombie(child.pid);
  Event events[2];
  int64_t before = now_ns(CLOCK_PROCESS_CPUTIME_ID), began = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(take(kq, events, 2, 200 * MS), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - began >= 200 * MS);
  CHECK(now_ns(CLOCK_PROCESS_CPUTIME_ID) - before < 100 * MS);
  CHECK(!is_pending(kq));
  CHECK_EQ(reap(child.pid), 2 << 8);
  CHECK(!is_pending(kq));
  apply(kq, (uint64_t)child.pid, KQ_PROC, ENABLE, EXIT, 0, 9);
  CHECK_EQ(next_exit(kq, child.pid).data, 2 << 8);
}

TEST(each_udata_has_its_own_event) {
  evloop_kqueue_t kq = new_kqueue();
  int flags = ADD | EVLOOP_KQ_EV_UDATA_SPECIFIC;
  Held child = hold_child(1);
  apply(kq, (uint64_t)child.pid, KQ_PROC, flags, EXIT, 0, 1);
  apply(kq, (uint64_t)child.pid, KQ_PROC, flags, EXIT, 0, 2);
  let_go(&child);
  wait_for_zombie(child.pid);
  Event events[4];
  CHECK_EQ(take(kq, events, 4, -1), 2);
  CHECK_EQ(events[0].udata + events[1].udata, 3);
  CHECK(events[0].data == 1 << 8);
  CHECK(events[1].data == 1 << 8);
  expect_nothing(kq);
  CHECK_EQ(reap(child.pid), 1 << 8);
}

TEST(descriptors_go_with_the_process) {
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  Held child = hold_child(0);
  watch(kq, child.pid, EXIT);
  CHECK_EQ(open_descriptors(), before + 2);
  apply(kq, (uint64_t)child.pid, KQ_PROC, DELETE, 0, 0, 0);
  CHECK_EQ(open_descriptors(), before + 1);
  watch(kq, child.pid, EXIT);
  let_go(&child);
  next_exit(kq, child.pid);
  CHECK_EQ(open_descriptors(), before);
  if (has_connector(kq)) {
    watch(kq, getpid(), FORK);
    CHECK_EQ(open_descriptors(), before + 2);
    apply(kq, (uint64_t)getpid(), KQ_PROC, DELETE, 0, 0, 0);
  }
  CHECK_EQ(open_descriptors(), before);
  CHECK_EQ(reap(child.pid), 0);
}

TEST(without_a_descriptor_left_nothing_is_left_behind) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t me = (uint64_t)getpid();
  int last = (int)OK(dup(0));
  set_limit((rlim_t)last + 1);
  CHECK_ERR(try_change(kq, me, KQ_PROC, ADD, EXIT, 0, 0), EMFILE);
  CHECK_ERR(try_change(kq, me, KQ_PROC, ADD, EXIT | FORK, 0, 0), EMFILE);
  CHECK_ERR(try_change(kq, me, KQ_PROC, DELETE, 0, 0, 0), ENOENT);
  OK(close(last));
  watch(kq, getpid(), EXIT);
  /* Room for checkers that run at exit. */
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

TEST(a_forked_child_leaves_the_parents_processes_alone) {
  evloop_kqueue_t kq = new_kqueue();
  Held child = hold_child(7);
  watch(kq, child.pid, EXIT);
  Held heir = hold_child(0);
  /* Which has the pidfd, too. */
  let_go(&child);
  CHECK_EQ(next_exit(kq, child.pid).data, 7 << 8);
  CHECK_EQ(reap(child.pid), 7 << 8);
  expect_nothing(kq);
  let_go(&heir);
  CHECK_EQ(reap(heir.pid), 0);
}

TEST(a_kept_queue_watches_processes_in_the_child) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  bool forks = has_connector(kq);
  Held held = hold_child(7);
  watch(kq, held.pid, EXIT);
  if (forks) watch(kq, getpid(), FORK | EXIT);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    /* What the parent did before the child looked is the parent's. */
    expect_no_event(kq);
    if (forks) {
      apply(kq, (uint64_t)getppid(), KQ_PROC, DELETE, 0, 0, 0);
      watch(kq, getpid(), FORK | EXIT);
      pid_t grandchild = (pid_t)OK(fork());
      if (grandchild == 0) _exit(0);
      next_of(kq, getpid(), FORK);
      CHECK_EQ(reap(grandchild), 0);
      apply(kq, (uint64_t)getpid(), KQ_PROC, DELETE, 0, 0, 0);
    }
    let_go(&held);
    CHECK_EQ(next_exit(kq, held.pid).data, 7 << 8);
    exit(0);
  }
  CHECK_EQ(reap(child), 0);
  wait_for_zombie(held.pid);
  for (int left = forks ? 2 : 1; left > 0; left--) {
    Event event = one_event(kq);
    bool is_exit = event.ident == (uint64_t)held.pid;
    CHECK_EQ(event.fflags, is_exit ? EXIT : FORK);
    CHECK_EQ(event.data, is_exit ? 7 << 8 : 0);
  }
  CHECK_EQ(reap(held.pid), 7 << 8);
}

/* ---- forks and executions ---- */

static void fork_once(void) {
  pid_t child = fork();
  if (child == 0) _exit(1);
  waitpid(child, NULL, 0);
}

static void execute(void) {
  execl("/bin/sh", "sh", "-c", "exit 9", (char *)NULL);
}

TEST(forks_and_executions_are_seen_or_refused) {
  evloop_kqueue_t kq = new_kqueue();
  if (!has_connector(kq)) return;
  Held forks = held_to(fork_once, 8), executes = held_to(execute, 8);
  watch(kq, forks.pid, EXIT | FORK | EXEC);
  watch(kq, executes.pid, EXIT | EXEC);
  expect_no_event(kq);
  let_go(&forks);
  uint32_t seen = 0;
  while (!(seen & EXIT)) {
    Event event = expect_event(kq, (uint64_t)forks.pid, KQ_PROC);
    seen |= event.fflags;
    CHECK_EQ(event.data, event.fflags & EXIT ? 8 << 8 : 0);
    CHECK_EQ(event.flags, event.fflags & EXIT ? CLEAR | ONESHOT | KQ_EOF : CLEAR);
  }
  CHECK_EQ(seen, EXIT | FORK);
  let_go(&executes);
  seen = 0;
  while (!(seen & EXIT)) {
    seen |= expect_event(kq, (uint64_t)executes.pid, KQ_PROC).fflags;
  }
  CHECK_EQ(seen, EXIT | EXEC);
  CHECK_EQ(reap(forks.pid), 8 << 8);
  CHECK_EQ(reap(executes.pid), 9 << 8);
}

TEST(what_came_before_the_exit_comes_with_it) {
  evloop_kqueue_t kq = new_kqueue();
  if (!has_connector(kq)) return;
  Held forks = held_to(fork_once, 8);
  watch(kq, forks.pid, EXIT | FORK);
  let_go(&forks);
  wait_for_zombie(forks.pid);
  Event event = next_of(kq, forks.pid, EXIT | FORK);
  CHECK_EQ(event.data, 8 << 8);
  CHECK_EQ(event.flags, CLEAR | ONESHOT | KQ_EOF);
  CHECK_EQ(reap(forks.pid), 8 << 8);
}

TEST(a_knote_that_does_not_watch_the_exit_has_no_event_of_it) {
  evloop_kqueue_t kq = new_kqueue();
  if (!has_connector(kq)) return;
  Held child = hold_child(0);
  watch(kq, child.pid, FORK);
  let_go(&child);
  wait_for_zombie(child.pid);
  expect_no_event(kq);
  CHECK_ERR(try_change(kq, (uint64_t)child.pid, KQ_PROC, DELETE, 0, 0, 0), ENOENT);
  CHECK_ERR(try_change(kq, (uint64_t)child.pid, KQ_PROC, ADD, FORK, 0, 0), ESRCH);
  CHECK_EQ(reap(child.pid), 0);
}

/* A child and a grandchild, each with a status of its own. */
static void fork_a_line(void) {
  pid_t child = fork();
  if (child == 0) {
    pid_t grandchild = fork();
    if (grandchild == 0) _exit(2);
    waitpid(grandchild, NULL, 0);
    _exit(1);
  }
  waitpid(child, NULL, 0);
}

TEST(children_and_theirs_are_tracked) {
  evloop_kqueue_t kq = new_kqueue();
  if (!has_connector(kq)) return;
  Held first = held_to(fork_a_line, 8);
  watch(kq, first.pid, EXIT | TRACK);
  let_go(&first);
  /* All are gone by now, the children waited for. */
  wait_for_zombie(first.pid);
  pid_t line[3] = {first.pid, 0, 0};
  int statuses[3] = {-1, -1, -1};
  int known = 1, ended = 0;
  while (ended < 3) {
    Event event = one_event(kq);
    if (event.fflags == CHILD) {
      CHECK(known < 3);
      CHECK_EQ(event.data, line[known - 1]);
      line[known++] = (pid_t)event.ident;
      continue;
    }
    CHECK_EQ(event.fflags, EXIT);
    for (int i = 0; i < known; i++) {
      if (line[i] == (pid_t)event.ident) statuses[i] = (int)event.data;
    }
    ended++;
  }
  CHECK(statuses[0] == 8 << 8);
  CHECK(statuses[1] == 1 << 8);
  CHECK(statuses[2] == 2 << 8);
  expect_no_event(kq);
  CHECK_EQ(reap(first.pid), 8 << 8);
}

TEST(a_tracked_child_is_watched_like_its_parent) {
  evloop_kqueue_t kq = new_kqueue();
  if (!has_connector(kq)) return;
  watch(kq, getpid(), EXIT | FORK | TRACK);
  Held child = hold_child(3);
  Event events[4];
  CHECK_EQ(take(kq, events, 4, -1), 2);
  for (int i = 0; i < 2; i++) {
    bool is_child = events[i].ident == (uint64_t)child.pid;
    CHECK_EQ(events[i].fflags, is_child ? CHILD : FORK);
    CHECK_EQ(events[i].data, is_child ? getpid() : 0);
  }
  let_go(&child);
  CHECK_EQ(next_exit(kq, child.pid).data, 3 << 8);
  CHECK_EQ(reap(child.pid), 3 << 8);
  apply(kq, (uint64_t)getpid(), KQ_PROC, ADD, EXIT, 0, 9);
  Held other = hold_child(0);
  expect_no_event(kq);
  let_go(&other);
  CHECK_EQ(reap(other.pid), 0);
  expect_no_event(kq);
}

static void fork_many(void) {
  for (int i = 0; i < 6000; i++) fork_once();
}

TEST_TIMEOUT(lost_forks_are_reported, 60) {
  evloop_kqueue_t kq = new_kqueue();
  if (!has_connector(kq)) return;
  Held forks = held_to(fork_many, 8);
  watch(kq, forks.pid, EXIT | TRACK);
  let_go(&forks);
  wait_for_zombie(forks.pid);
  uint32_t seen = 0;
  while (!(seen & EXIT)) {
    Event event = one_event(kq);
    if (event.ident == (uint64_t)forks.pid) seen |= event.fflags;
  }
  CHECK_EQ(seen, EXIT | TRACKERR);
  CHECK_EQ(reap(forks.pid), 8 << 8);
}

TEST(outside_the_first_namespaces_forks_are_refused) {
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    OK(unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWUSER | CLONE_NEWNET));
    evloop_kqueue_t kq = new_kqueue();
    uint32_t bits[] = {FORK, EXEC, TRACK};
    for (int i = 0; i < 3; i++) {
      CHECK_ERR(try_change(kq, (uint64_t)getpid(), KQ_PROC, ADD, EXIT | bits[i], 0, 0), ENOTSUP);
    }
    watch(kq, getpid(), EXIT);
    CHECK_ERR(try_change(kq, (uint64_t)getpid(), KQ_PROC, ADD, EXIT | FORK, 0, 0), ENOTSUP);
    exit(0);
  }
  CHECK_EQ(reap(child), 0);
}

TEST(in_another_pid_namespace_forks_are_refused) {
  CHECK_EQ(geteuid(), 0);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    OK(unshare(CLONE_NEWPID));
    pid_t inner = (pid_t)OK(fork());
    if (inner == 0) {
      evloop_kqueue_t kq = new_kqueue();
      CHECK_ERR(try_change(kq, (uint64_t)getpid(), KQ_PROC, ADD, FORK, 0, 0), ENOTSUP);
      /* Leak checkers cannot find themselves in /proc here. */
      _exit(0);
    }
    CHECK_EQ(reap(inner), 0);
    _exit(0);
  }
  CHECK_EQ(reap(child), 0);
}

TEST(who_has_no_privilege_is_answered_as_the_kernel_does) {
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    OK(setgid(65534));
    OK(setuid(65534));
    evloop_kqueue_t kq = new_kqueue();
    has_connector(kq);
    exit(0);
  }
  CHECK_EQ(reap(child), 0);
}

CHECK_MAIN()
