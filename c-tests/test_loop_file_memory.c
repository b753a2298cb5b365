/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* File watchers for which memory is lacking: nothing ends the process, what
 * cannot be reported is an overflow, and everything is watched again when
 * there is memory. Each allocation is made to fail once.
 *
 * Not under valgrind and AddressSanitizer, which have allocators of their
 * own. */

#define _GNU_SOURCE
#include "faults.h"
#include "loop_files.h"

/* ---- what is reported ---- */

typedef struct Report {
  evloop_t loop;
  int overflows, failures;
  bool ended, probed[4], end;
} Report;

/* Directories of the tree in the end. */
static const char *const directories[] = {"a", "b", "b/c", "moved"};

static void report(const evloop_event_t *event, void *user_data) {
  Report *r = (Report *)user_data;
  char name[256], probe[64];
  int i;
  OK(evloop_event_name(event, name, sizeof name));
  r->overflows += event->events == FILE_(OVERFLOW);
  r->failures += event->events == EVLOOP_ERROR;
  r->ended |= event->events == FILE_(IGNORED);
  if (event->events == EVLOOP_ERROR) CHECK_EQ(event->result, -ENOMEM);
  if (event->events != FILE_(CREATE)) return;
  r->end |= strcmp(name, "end") == 0;
  for (i = 0; AT_ROW(i, directories); i++) {
    snprintf(probe, sizeof probe, "%s/probe", directories[i]);
    r->probed[i] |= strcmp(name, probe) == 0;
  }
}

static void exchange(const char *one, const char *other) {
  OK(syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2 /* RENAME_EXCHANGE */));
}

static void make_places(void) {
  enter_home();
  make_dir("tree");
  make_dir("tree/a");
  make_dir("tree/b");
  make_dir("out");
  make_dir("out/moved");
  make_file("out/moved/file");
}

static void change_tree(void) {
  make_dir("tree/b/c");
  OK(rename("out/moved", "tree/moved"));
  exchange("tree/a", "tree/b/c");
  make_file("tree/a/x");
  OK(unlink("tree/a/x"));
}

static void probe_all(void) {
  char probe[64];
  int i;
  for (i = 0; AT_ROW(i, directories); i++) {
    snprintf(probe, sizeof probe, "tree/%s/probe", directories[i]);
    make_file(probe);
  }
}

static void run_until_end(Report *r) {
  make_file("tree/end");
  while (!r->end) OK(evloop_run(r->loop, EVLOOP_RUN_ONCE));
  OK(unlink("tree/end"));
  r->end = false;
}

/* Runs it in a process of its own for each allocation, until there are no
 * more; `span` of them fail at a time. */
static void for_each_allocation(int span, bool (*run)(int, int)) {
  int first, status = 0;
  for (first = 1; status == 0; first++) {
    pid_t child;
    fflush(stdout);
    child = (pid_t)OK(fork());
    if (child == 0) {
      bool more = run(first, first + span - 1);
      fflush(stdout);
      exit(more ? 0 : CHECK_SKIPPED);
    }
    OK(waitpid(child, &status, 0));
    if (status != 0 && status != CHECK_SKIPPED << 8) {
      printf("  allocation %d fails, of %d: status %x\n", first, span, (unsigned)status);
      check_exit();
    }
  }
  CHECK(first > 2); /* there were some */
}

static void expect_watched_or_named(Report *r) {
  int i;
  run_until_end(r);
  probe_all();
  run_until_end(r);
  for (i = 0; AT_ROW(i, directories); i++) {
    if (!r->probed[i] && r->failures == 0) {
      printf("  %s is not watched, and no event says so\n", directories[i]);
      check_exit();
    }
  }
  CHECK(!r->ended);
}

/* ---- each allocation ---- */

static bool change_without_memory(int first, int last) {
  Report r = {0};
  bool denies;
  make_places();
  r.loop = new_loop();
  OK(evloop_add_file(r.loop, "tree", ENTRIES, TREE, report, &r));
  turn(r.loop);
  change_tree();
  arm_range(&memory, first, last);
  turns(r.loop, 5);
  denies = disarm(&memory);
  expect_watched_or_named(&r);
  close_loop(r.loop);
  return denies;
}

TEST_TIMEOUT(a_tree_that_changes_without_memory_is_watched_or_an_event_says_so, 120) {
  for_each_allocation(1, change_without_memory);
}

TEST_TIMEOUT(so_it_is_where_memory_is_lacking_for_longer, 120) {
  for_each_allocation(40, change_without_memory);
}

static bool add_without_memory(int first, int last) {
  Report r = {0};
  int64_t watcher, other;
  bool denies;
  make_places();
  make_dir("tree/b/c");
  OK(rename("out/moved", "tree/moved"));
  r.loop = new_loop();
  arm_range(&memory, first, last);
  watcher = evloop_add_file(r.loop, "tree", ENTRIES, TREE, report, &r);
  other = evloop_add_file(r.loop, "out", ENTRIES, 0, ignore, NULL);
  denies = disarm(&memory);
  if (other < 0) CHECK_EQ(other, -ENOMEM);
  else close_watcher(other);
  if (watcher < 0) CHECK_EQ(watcher, -ENOMEM);
  else expect_watched_or_named(&r);
  if (watcher < 0) CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  close_loop(r.loop);
  return denies;
}

TEST_TIMEOUT(a_watcher_is_added_or_not_where_memory_is_lacking, 120) {
  for_each_allocation(1, add_without_memory);
}

/* Events that were read when there was memory, and are delivered when there
 * is none: kept for a watcher that is disabled, and for evloop_wait(). */
static bool deliver_without_memory(int first, int last) {
  Report r = {0};
  Seen records = {0};
  evloop_event_t events[4];
  evloop_watcher_t watcher, recorder;
  bool denies;
  int i, n;
  make_places();
  r.loop = new_loop();
  watcher = OK(evloop_add_file(r.loop, "tree", ENTRIES, TREE, report, &r));
  recorder = OK(evloop_add_file(r.loop, "out", FILE_(CREATE), 0, NULL, NULL));
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  change_tree();
  make_file("out/1");
  make_file("out/2");
  turns(r.loop, 3);
  arm_range(&memory, first, last);
  evloop_watcher_enable(watcher);
  turns(r.loop, 3);
  n = evloop_wait(r.loop, events, 1, 0);
  denies = disarm(&memory);
  for (i = 0; i < n; i++) record(&events[i], &records);
  evloop_watcher_enable(watcher);
  while (records.calls < 2 && (records.calls == 0 || records.last.events != FILE_(OVERFLOW))) {
    n = (int)OK(evloop_wait(r.loop, events, 4, 20 * SECOND));
    for (i = 0; i < n; i++) record(&events[i], &records);
  }
  CHECK_EQ(records.errors, 0);
  close_watcher(recorder);
  expect_watched_or_named(&r);
  close_loop(r.loop);
  return denies;
}

TEST_TIMEOUT(what_was_kept_is_delivered_though_memory_was_lacking, 120) {
  for_each_allocation(1, deliver_without_memory);
}

static bool revive_without_memory(int first, int last) {
  Report r = {0};
  bool denies;
  pid_t child;
  int status;
  make_places();
  make_dir("tree/b/c");
  OK(rename("out/moved", "tree/moved"));
  r.loop = new_loop();
  OK(evloop_add_file(r.loop, "tree", ENTRIES, TREE, report, &r));
  turn(r.loop);
  child = (pid_t)OK(fork());
  if (child == 0) {
    int result;
    arm_range(&memory, first, last);
    result = evloop_after_fork(r.loop);
    denies = disarm(&memory);
    if (denies) CHECK(result == -ENOMEM || result == 0);
    CHECK_EQ(evloop_after_fork(r.loop), 0);
    expect_watched_or_named(&r);
    CHECK_EQ(r.failures + r.overflows, 0);
    fflush(stdout);
    _exit(denies ? 0 : CHECK_SKIPPED);
  }
  OK(waitpid(child, &status, 0));
  CHECK(status == 0 || status == CHECK_SKIPPED << 8);
  close_loop(r.loop);
  return status == 0;
}

TEST_TIMEOUT(a_copy_is_complete_in_the_end_though_memory_was_lacking, 120) {
  for_each_allocation(1, revive_without_memory);
}

CHECK_MAIN()
