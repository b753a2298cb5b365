/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Trees with directories that cannot be watched: an event names each, with the
 * errno, and the rest is watched. Each system call is made to fail once. */

#define _GNU_SOURCE
#include "failing_calls.h"
#include "loop_files.h"

#include <sched.h>

/* ---- what was reported of directories that came into a tree ---- */

enum { DIRECTORIES = 4 };

static const char *const paths[DIRECTORIES] = {"new", "new/below", "new/below/deeper", "new/beside"};

typedef struct Report {
  evloop_t loop;
  bool failed[DIRECTORIES]; /* this one, or one above it */
  bool probed[DIRECTORIES];
  int failures, last_result, overflows;
  bool ended;
} Report;

static bool is_at_or_below(const char *path, const char *above) {
  size_t len = strlen(above);
  return len == 0 ||
         (strncmp(path, above, len) == 0 && (path[len] == '\0' || path[len] == '/'));
}

static void report(const evloop_event_t *event, void *user_data) {
  Report *r = (Report *)user_data;
  char name[256], probe[256];
  int i;
  OK(evloop_event_name(event, name, sizeof name));
  r->overflows += event->events == FILE_(OVERFLOW);
  r->ended |= event->events == FILE_(IGNORED);
  if (event->events == EVLOOP_ERROR) {
    r->failures++;
    r->last_result = event->result;
    CHECK(event->result < 0);
  }
  for (i = 0; i < DIRECTORIES; i++) {
    snprintf(probe, sizeof probe, "%s/probe", paths[i]);
    if (event->events == EVLOOP_ERROR) r->failed[i] |= is_at_or_below(paths[i], name);
    if (event->events == FILE_(CREATE)) r->probed[i] |= strcmp(name, probe) == 0;
  }
}

static void make_probes(void) {
  char probe[64];
  int i;
  for (i = 0; i < DIRECTORIES; i++) {
    snprintf(probe, sizeof probe, "tree/%s/probe", paths[i]);
    make_file(probe);
  }
}

/* Until this entry of the tree, made now, is reported. */
static bool end_came;

static void await_end(const evloop_event_t *event, void *user_data) {
  char name[256];
  OK(evloop_event_name(event, name, sizeof name));
  end_came |= strcmp(name, "end") == 0;
  report(event, user_data);
}

static void run_until_end(Report *r) {
  end_came = false;
  make_file("tree/end");
  while (!end_came && !r->ended) OK(evloop_run(r->loop, EVLOOP_RUN_ONCE));
  turns(r->loop, 3);
  OK(unlink("tree/end"));
}

static void make_directories(const char *above) {
  char path[64];
  int i;
  for (i = 0; i < DIRECTORIES; i++) {
    snprintf(path, sizeof path, "%s/%s", above, paths[i]);
    make_dir(path);
  }
}

static void begin(Report *r) {
  memset(r, 0, sizeof *r);
  enter_home();
  make_dir("tree");
  make_dir("out");
  r->loop = new_loop();
}

/* Everything that was not named in an error is watched. */
static void expect_watched_or_named(Report *r) {
  int i;
  make_probes();
  run_until_end(r);
  for (i = 0; i < DIRECTORIES; i++) {
    if (!r->probed[i] && !r->failed[i]) {
      printf("  %s is not watched, and no event says so\n", paths[i]);
      check_exit();
    }
  }
}

/* ---- a call that fails once ---- */

typedef struct Refusal {
  const char *name;
  long call;
  int error;
} Refusal;

static const Refusal refusals[] = {
  {"inotify_add_watch", SYS_inotify_add_watch, ENOMEM},
  {"inotify_add_watch", SYS_inotify_add_watch, ENOSPC},
  {"inotify_add_watch", SYS_inotify_add_watch, EACCES},
  {"openat", SYS_openat, EMFILE},
  {"openat", SYS_openat, ENFILE},
  {"openat", SYS_openat, EACCES},
  {"openat2", SYS_openat2, EMFILE},
  {"openat2", SYS_openat2, ENOMEM},
  {"fstat", SYS_fstat, ENOMEM},
  {"getdents64", SYS_getdents64, ENOMEM},
  {"getdents64", SYS_getdents64, EIO},
};

/* Runs a function for the first such call, the second, and so on, each in a
 * process of its own, until there are no more; how many there were. */
static int for_each_call(const Refusal *refusal, bool (*run)(const Refusal *, int)) {
  int nth, status = 0;
  for (nth = 1; status == 0; nth++) {
    pid_t child;
    fflush(stdout);
    child = (pid_t)OK(fork());
    if (child == 0) {
      bool more = run(refusal, nth);
      fflush(stdout);
      exit(more ? 0 : CHECK_SKIPPED);
    }
    OK(waitpid(child, &status, 0));
    if (status != 0 && status != CHECK_SKIPPED << 8) {
      printf("  %s, number %d, fails with %d\n", refusal->name, nth, refusal->error);
      check_exit();
    }
  }
  return nth - 2;
}

static bool move_in_and_fail(const Refusal *refusal, int nth) {
  Report r;
  begin(&r);
  make_directories("out");
  OK(evloop_add_file(r.loop, "tree", ENTRIES, TREE, await_end, &r));
  turn(r.loop);
  OK(rename("out/new", "tree/new"));
  fail_call(refusal->call, nth, refusal->error);
  run_until_end(&r);
  fail_no_call();
  expect_watched_or_named(&r);
  CHECK(!r.ended);
  CHECK_EQ(r.overflows, 0);
  /* Where a mere look at what is known already fails nothing is missed. */
  CHECK(r.failures <= (failing.failed > 0 ? 1 : 0));
  if (r.failures > 0) CHECK_EQ(r.last_result, -refusal->error);
  close_loop(r.loop);
  return failing.failed > 0;
}

TEST_TIMEOUT(a_new_directory_that_cannot_be_watched_is_named_with_the_errno, 120) {
  int i;
  for (i = 0; AT_ROW(i, refusals); i++) {
    CHECK(for_each_call(&refusals[i], move_in_and_fail) > 0);
  }
}

static bool add_and_fail(const Refusal *refusal, int nth) {
  const bool is_shortage = refusal->error != EACCES && refusal->error != EIO;
  int before;
  int64_t watcher;
  Report r;
  begin(&r);
  make_directories("tree");
  before = open_descriptors();
  fail_call(refusal->call, nth, refusal->error);
  watcher = evloop_add_file(r.loop, "tree", ENTRIES, TREE, await_end, &r);
  fail_no_call();
  if (watcher < 0) {
    CHECK_EQ(watcher, -refusal->error);
    CHECK_EQ(open_descriptors(), before);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
    CHECK(is_shortage || nth <= 2); /* the tree itself */
  } else {
    expect_watched_or_named(&r);
    if (failing.failed > 0) CHECK(!is_shortage && r.failures == 1);
  }
  close_loop(r.loop);
  return failing.failed > 0;
}

TEST_TIMEOUT(a_tree_is_added_whole_or_not_at_all_where_something_is_short, 120) {
  int i;
  for (i = 0; AT_ROW(i, refusals); i++) CHECK(for_each_call(&refusals[i], add_and_fail) > 0);
}

/* ---- directories that are too deep ---- */

#define LONG "dddddddddddddddddddddddddddddddddddddddd" /* 40 bytes */

enum { LEVELS = 150 }; /* much more than PATH_MAX */

/* As others can, without ever naming the whole path. */
static void make_too_deep(const char *above) {
  int at = open_file(above, O_RDONLY | O_DIRECTORY), level;
  for (level = 0; level < LEVELS; level++) {
    int below;
    OK(mkdirat(at, LONG, 0755));
    below = (int)OK(openat(at, LONG, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    OK(close(at));
    at = below;
  }
  OK(close(at));
}

/* From the top, as the path of the last one is too long. */
static void remove_too_deep(const char *above) {
  char first[128], second[256];
  snprintf(first, sizeof first, "%s/" LONG, above);
  snprintf(second, sizeof second, "%s/" LONG, first);
  while (rename(second, "rest") == 0) {
    OK(rmdir(first));
    OK(rename("rest", first));
  }
  OK(rmdir(first));
}

typedef struct Deep {
  evloop_t loop;
  int failures, length;
  char last[8];
} Deep;

static void hear_of_depth(const evloop_event_t *event, void *user_data) {
  Deep *deep = (Deep *)user_data;
  char name[8192];
  int64_t length = OK(evloop_event_name(event, name, sizeof name));
  if (event->events == EVLOOP_ERROR) {
    CHECK_EQ(event->result, -ENAMETOOLONG);
    deep->failures++;
    deep->length = (int)length;
  }
  snprintf(deep->last, sizeof deep->last, "%.7s", name);
}

static void run_until_last(Deep *deep, const char *name) {
  while (strcmp(deep->last, name) != 0) OK(evloop_run(deep->loop, EVLOOP_RUN_ONCE));
}

TEST(a_directory_that_is_too_deep_is_an_error_and_the_rest_is_watched) {
  static const bool later[] = {false, true};
  int i;
  enter_home();
  make_dir("tree");
  make_dir("tree/user");
  make_dir("tree/other");
  for (i = 0; AT_ROW(i, later); i++) {
    Deep deep = {0};
    deep.loop = new_loop();
    if (!later[i]) make_too_deep("tree/user");
    OK(evloop_add_file(deep.loop, "tree", FILE_(CREATE), TREE, hear_of_depth, &deep));
    if (later[i]) make_too_deep("tree/user");
    make_file("tree/other/x");
    run_until_last(&deep, "other/x");
    turns(deep.loop, 3);
    /* One is named, the first for which there is no room; nothing below it. */
    CHECK_EQ(deep.failures, 1);
    CHECK(deep.length > 4096 - 100);
    CHECK(deep.length < 4096 + 100);
    CHECK(inotify_of_process().watches > 90);
    /* What is not too deep is watched. */
    make_file("tree/user/y");
    run_until_last(&deep, "user/y");
    close_loop(deep.loop);
    OK(unlink("tree/other/x"));
    OK(unlink("tree/user/y"));
    remove_too_deep("tree/user");
  }
}

TEST(errors_of_directories_have_a_text) {
  static const int errors[] = {EACCES, ENAMETOOLONG, ENOTDIR, EROFS, ENOSPC, EMFILE, ENFILE, ENOMEM};
  int i;
  for (i = 0; AT_ROW(i, errors); i++) {
    CHECK(strcmp(evloop_strerror(-errors[i]), "unknown error") != 0);
  }
}

/* ---- calls that fail always ---- */

TEST(a_tree_is_watched_without_openat2) {
  static const int errors[] = {ENOSYS, EPERM};
  Report r;
  int i;
  begin(&r);
  make_directories("out");
  fail_all_calls(SYS_openat2, errors[0]);
  for (i = 0; AT_ROW(i, errors); i++) {
    evloop_watcher_t watcher;
    failing.error = errors[i];
    watcher = OK(evloop_add_file(r.loop, "tree", ENTRIES, TREE, await_end, &r));
    OK(rename("out/new", "tree/new"));
    run_until_end(&r);
    expect_watched_or_named(&r);
    CHECK_EQ(r.failures, 0);
    close_watcher(watcher);
    CHECK_EQ(nftw("tree", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
    make_dir("tree");
    make_directories("out");
    memset(r.probed, 0, sizeof r.probed);
  }
  CHECK(failing.failed > 0);
  close_loop(r.loop);
}

static void watch_without_proc(void) {
  Report r;
  int fd;
  memset(&r, 0, sizeof r);
  r.loop = new_loop();
  OK(evloop_add_file(r.loop, "tree", ENTRIES, TREE, await_end, &r));
  OK(rename("out/new", "tree/new"));
  run_until_end(&r);
  expect_watched_or_named(&r);
  CHECK_EQ(r.failures, 0);
  fd = open_file("tree", O_PATH | O_DIRECTORY);
  CHECK_ERR(evloop_add_file_fd(r.loop, fd, ENTRIES, TREE, ignore, NULL), ENOTSUP);
  close_loop(r.loop);
}

/* Where the case's directory is all that there is. */
TEST(a_tree_is_watched_without_proc) {
  int status;
  pid_t child;
  enter_home();
  make_dir("tree");
  make_dir("out");
  make_directories("out");
  fflush(stdout);
  child = (pid_t)OK(fork());
  if (child == 0) {
    if (chroot(".") < 0) _exit(CHECK_SKIPPED);
    watch_without_proc();
    fflush(stdout);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  if (status == CHECK_SKIPPED << 8) SKIP("no other root can be had");
  CHECK_EQ(status, 0);
}

CHECK_MAIN()
