/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Memory pressure is reported for stalls that there were. The kernel begins a
 * trigger of a process without CAP_SYS_RESOURCE with a wrong total, and fires
 * it at the first stall of any length. */

#define _GNU_SOURCE
#include "pressure_support.h"

#include <linux/capability.h>

/* How long tasks have to be stalled in a window: an eighth of what they are
 * where a child thrashes, which is half of the time on one system, and a
 * hundredth of it on another. */
static int64_t enough;

/* ---- the process, its control group, and what that has counted ---- */

static char path[640];

/* As most programs are. */
static void drop_capability(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  OK(syscall(SYS_capget, &header, data));
  data[0].effective &= ~(1U << CAP_SYS_RESOURCE);
  OK(syscall(SYS_capset, &header, data));
}

static int64_t total_ns(int kind) {
  char text[512], *at;
  int fd = (int)OK(open(path, O_RDONLY | O_CLOEXEC));
  ssize_t length = OK(read(fd, text, sizeof text - 1));
  text[length] = '\0';
  OK(close(fd));
  at = strstr(text, kind == SOME ? "some" : "full");
  CHECK(at != NULL);
  CHECK((at = strstr(at, "total=")) != NULL);
  return atoll(at + 6) * 1000;
}

/* Tasks are stalled for so long. */
static void stall(int64_t ns) {
  int64_t before = total_ns(FULL);
  pid_t child = start_thrashing();
  POLL_UNTIL(total_ns(FULL) - before >= ns);
  stop_child(child);
}

/* A group whose total would be more than enough. */
static void stalled_group(void) {
  int64_t begin, full, share;
  pid_t child;
  if (!has_pressure() || !small_group()) SKIP("no control group of its own");
  snprintf(path, sizeof path, "%s/memory.pressure", group);
  drop_capability();
  child = start_thrashing();
  POLL_UNTIL(total_ns(FULL) > 0);
  begin = now_ns(CLOCK_MONOTONIC);
  full = total_ns(FULL);
  POLL_UNTIL(now_ns(CLOCK_MONOTONIC) - begin >= SECOND / 2 && total_ns(FULL) - full >= MS);
  share = (total_ns(FULL) - full) * (WINDOW / MS) / ((now_ns(CLOCK_MONOTONIC) - begin) / MS);
  enough = share / 8 / MS * MS;
  if (enough < MS) enough = MS;
  POLL_UNTIL(total_ns(FULL) >= enough + enough / 2);
  stop_child(child);
}

/* A trigger as the library's are, made before them. */
static int raw_trigger(void) {
  char text[64];
  int fd = (int)OK(open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  int length = snprintf(text, sizeof text, "some %lld 2000000", (long long)(enough / 1000)) + 1;
  CHECK_EQ(write(fd, text, (size_t)length), length);
  return fd;
}

/* Until the kernel has fired it, or has looked at it and not fired it. */
static void await_look(int trigger) {
  struct pollfd ready = {trigger, POLLPRI, 0};
  OK(poll(&ready, 1, 6000));
}

/* ---- watchers ---- */

typedef struct Watch {
  evloop_t loop;
  int fd; /* where it is embedded in a foreign loop */
  int kind;
  int64_t before, stall;
  evloop_watcher_t watcher;
  Seen seen;
} Watch;

static void add_watch(Watch *watch, int kind, bool embedded, int64_t ns) {
  memset(watch, 0, sizeof *watch);
  watch->loop = new_loop();
  watch->fd = embedded ? (int)OK(evloop_fileno(watch->loop)) : -1;
  watch->kind = kind;
  watch->stall = ns;
  watch->before = total_ns(kind);
  watch->watcher = OK(evloop_add_memory_pressure(watch->loop, path, kind, ns, WINDOW, record,
                                                 &watch->seen));
}

static void iterate(Watch *watch, bool blocks) {
  if (watch->fd < 0) {
    OK(evloop_run(watch->loop, blocks ? EVLOOP_RUN_ONCE : EVLOOP_RUN_NOWAIT));
    return;
  }
  if (OK(evloop_embed_prepare(watch->loop)) == 0) {
    bool is_ready = readable(watch->fd, blocks ? -1 : 0);
    /* As any number of foreign loops, one in another, do. */
    if (is_ready) readable(watch->fd, 0);
  }
  OK(evloop_embed_dispatch(watch->loop));
}

/* What was reported had a reason. */
static void expect_reason(const Watch *watch) {
  CHECK(watch->seen.calls == 0 || total_ns(watch->kind) - watch->before >= watch->stall);
  CHECK_EQ(watch->seen.errors, 0);
}

static void expect_reported(Watch *watch) {
  while (watch->seen.calls == 0) iterate(watch, true);
  expect_reason(watch);
}

/* ---- cases ---- */

TEST_TIMEOUT(a_stall_that_is_shorter_than_asked_for_is_not_reported, 120) {
  Watch watches[4];
  stalled_group();
  int trigger = raw_trigger();
  for (int i = 0; AT_ROW(i, watches); i++) {
    add_watch(&watches[i], i % 2 == 0 ? SOME : FULL, i >= 2, enough);
    iterate(&watches[i], false);
  }
  for (int round = 0; round < 3; round++) {
    stall(MS);
    await_look(trigger);
    for (int i = 0; AT_ROW(i, watches); i++) {
      for (int n = 0; n < 3; n++) iterate(&watches[i], false);
      expect_reason(&watches[i]);
    }
  }
}

TEST_TIMEOUT(a_stall_that_is_long_enough_is_reported, 120) {
  Watch watches[4];
  pid_t child;
  stalled_group();
  for (int i = 0; AT_ROW(i, watches); i++) {
    add_watch(&watches[i], i % 2 == 0 ? SOME : FULL, i >= 2, enough);
    iterate(&watches[i], false);
  }
  child = start_thrashing();
  for (int i = 0; AT_ROW(i, watches); i++) expect_reported(&watches[i]);
  /* And again, as long as it goes on. */
  for (int i = 0; AT_ROW(i, watches); i++) {
    watches[i].before = total_ns(watches[i].kind);
    watches[i].seen.calls = 0;
    while (watches[i].seen.calls == 0) iterate(&watches[i], true);
  }
  stop_child(child);
}

TEST_TIMEOUT(a_long_stall_after_a_short_one_is_reported, 120) {
  Watch watch;
  pid_t child;
  stalled_group();
  int trigger = raw_trigger();
  add_watch(&watch, SOME, false, enough);
  stall(MS);
  await_look(trigger);
  iterate(&watch, false);
  expect_reason(&watch);
  child = start_thrashing();
  expect_reported(&watch);
  stop_child(child);
}

TEST_TIMEOUT(each_of_several_triggers_has_its_own_stall, 120) {
  Watch little, much;
  pid_t child;
  stalled_group();
  add_watch(&little, SOME, false, enough);
  add_watch(&much, SOME, false, WINDOW);
  child = start_thrashing();
  expect_reported(&little);
  stop_child(child);
  for (int n = 0; n < 3; n++) iterate(&much, false);
  expect_reason(&much);
}

TEST_TIMEOUT(a_disabled_watcher_keeps_no_stall_that_is_too_short, 120) {
  Watch watch;
  stalled_group();
  int trigger = raw_trigger();
  add_watch(&watch, SOME, false, enough);
  CHECK_EQ(evloop_watcher_disable(watch.watcher), 0);
  stall(MS);
  await_look(trigger);
  for (int n = 0; n < 3; n++) iterate(&watch, false);
  CHECK_EQ(watch.seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watch.watcher), 0);
  for (int n = 0; n < 3; n++) iterate(&watch, false);
  expect_reason(&watch);
}

TEST_TIMEOUT(a_disabled_watcher_keeps_a_stall_that_is_long_enough, 120) {
  Watch watch;
  pid_t child;
  stalled_group();
  add_watch(&watch, SOME, false, enough);
  CHECK_EQ(evloop_watcher_disable(watch.watcher), 0);
  /* The kernel has fired this one, too. */
  int trigger = raw_trigger();
  child = start_thrashing();
  POLL_UNTIL(total_ns(SOME) - watch.before >= enough);
  await_look(trigger);
  stop_child(child);
  for (int n = 0; n < 3; n++) iterate(&watch, false);
  CHECK_EQ(watch.seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watch.watcher), 0);
  expect_reported(&watch);
}

TEST_TIMEOUT(a_forked_child_counts_from_its_own_beginning, 120) {
  Watch watch;
  int status;
  stalled_group();
  add_watch(&watch, SOME, false, enough);
  stall(enough);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    watch.before = total_ns(SOME);
    int trigger = raw_trigger();
    CHECK_EQ(evloop_after_fork(watch.loop), 0);
    stall(MS);
    await_look(trigger);
    for (int n = 0; n < 3; n++) iterate(&watch, false);
    expect_reason(&watch);
    fflush(stdout);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  expect_reported(&watch);
}

TEST_TIMEOUT(the_system_is_counted_as_groups_are, 120) {
  Watch watch;
  stalled_group();
  strcpy(path, "/proc/pressure/memory");
  /* Others may have stalled. */
  add_watch(&watch, SOME, false, WINDOW / 2);
  stall(MS);
  iterate(&watch, false);
  CHECK_EQ(evloop_run_for_ns(watch.loop, WINDOW + SECOND), 1);
  expect_reason(&watch);
}

CHECK_MAIN()
