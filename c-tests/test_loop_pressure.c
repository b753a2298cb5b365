/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchers of memory pressure. Where the kernel has no such thing, they are
 * refused, and that is tested. */

#define _GNU_SOURCE
#include "pressure_support.h"

static int64_t add(evloop_t loop, const char *path, int64_t stall, int64_t window, Seen *seen) {
  return evloop_add_memory_pressure(loop, path, SOME, stall, window, record, seen);
}

TEST_TIMEOUT(a_shortage_of_memory_is_reported_but_not_to_a_disabled_watcher, 120) {
  Seen seen = {0};
  char path[640];
  evloop_watcher_t watcher;
  pid_t child;
  evloop_t loop = new_loop();
  if (!has_pressure() || !small_group()) {
    /* Then nothing can be short here: but it is watched, or refused. */
    int64_t added = add(loop, NULL, 1000, WINDOW, &seen);
    CHECK(has_pressure() ? added > 0 : added == -ENOTSUP || added == -EACCES);
    return;
  }
  snprintf(path, sizeof path, "%s/memory.pressure", group);
  watcher = OK(add(loop, path, MS, WINDOW, &seen));
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(seen.calls, 0);
  child = start_thrashing();
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(seen.calls, 1);
  expect_plain(&seen.last, watcher, EVLOOP_EVENT_MEMORY_PRESSURE, &seen);
  /* What comes while the watcher is disabled is delivered when it is enabled. */
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
  CHECK_EQ(write(fd, "some 1000 2000000", 18), 18);
  struct pollfd ready = {fd, POLLPRI, 0};
  CHECK_EQ(poll(&ready, 1, -1), 1);
  turns(loop, 3);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  /* What was kept, or comes now; or both. */
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK(seen.calls >= 2);
  stop_child(child);
  OK(close(fd));
  close_loop(loop);
}

TEST(a_control_group_that_is_removed_is_an_error) {
  Seen seen = {0};
  char path[640];
  evloop_t loop = new_loop();
  if (!has_pressure() || !own_group()) {
    CHECK_ERR(add(loop, "/nowhere/memory.pressure", MS, WINDOW, &seen), ENOENT);
    return;
  }
  snprintf(path, sizeof path, "%s/memory.pressure", group);
  OK(add(loop, path, MS, WINDOW, &seen));
  turns(loop, 2);
  CHECK_EQ(seen.calls, 0);
  OK(rmdir(group));
  run_to_end(loop);
  CHECK_EQ(seen.errors, 1);
  CHECK_EQ(seen.last.result, -ENODEV);
  CHECK_EQ(seen.calls, 1);
  close_loop(loop);
}

TEST(the_whole_system_is_watched_or_refused) {
  Seen seen = {0};
  evloop_t loop = new_loop();
  int before = open_descriptors();
  int64_t some = add(loop, NULL, SECOND, WINDOW, &seen);
  int64_t full = evloop_add_memory_pressure(loop, NULL, FULL, SECOND, WINDOW, record, &seen);
  if (has_pressure()) {
    CHECK(some > 0);
    CHECK(full > 0);
    CHECK_EQ(open_descriptors(), before + 4);
    CHECK_EQ(turn(loop), 1);
    close_watcher(some);
    close_watcher(full);
    CHECK_EQ(turn(loop), 0);
  } else {
    CHECK(some == -ENOTSUP || some == -EACCES);
    CHECK_EQ(full, some);
  }
  CHECK_EQ(open_descriptors(), before);
  close_loop(loop);
}

TEST(windows_and_stalls_that_there_cannot_be_are_refused) {
  evloop_t loop = new_loop();
  CHECK_ERR(add(loop, NULL, MS, 499 * MS, NULL), EINVAL);
  CHECK_ERR(add(loop, NULL, MS, 10001 * MS, NULL), EINVAL);
  CHECK_ERR(add(loop, NULL, MS, -1, NULL), EINVAL);
  CHECK_ERR(add(loop, NULL, 0, WINDOW, NULL), EINVAL);
  CHECK_ERR(add(loop, NULL, -1, WINDOW, NULL), EINVAL);
  CHECK_ERR(add(loop, NULL, WINDOW + 1, WINDOW, NULL), EINVAL);
  CHECK_ERR(evloop_add_memory_pressure(loop, NULL, 2, MS, WINDOW, record, NULL), EINVAL);
  CHECK_ERR(add(0, NULL, MS, WINDOW, NULL), ESTALE);
  close_loop(loop);
}

/* ---- what is no file of memory pressure ---- */

static evloop_t refusing;

static void expect_path(const char *path, int error) {
  int before = open_descriptors();
  CHECK_EQ(add(refusing, path, MS, WINDOW, NULL), -error);
  CHECK_EQ(open_descriptors(), before);
}

TEST(what_is_no_pressure_file_is_refused_and_not_written_to) {
  static const char *const texts[] = {"", "hello, world", "some avg10=0.00\n",
                                      "some avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"
                                      "full avg10=0.00 avg60=0.00 avg300=0.00 total=1\n"};
  refusing = new_loop();
  for (int i = 0; AT_ROW(i, texts); i++) {
    struct stat st;
    char name[] = "/tmp/evloop-pressure-XXXXXX";
    int fd = (int)OK(mkostemp(name, O_CLOEXEC));
    ssize_t length = (ssize_t)strlen(texts[i]);
    CHECK_EQ(write(fd, texts[i], (size_t)length), length);
    expect_path(name, EINVAL);
    OK(fstat(fd, &st));
    CHECK_EQ(st.st_size, length);
    OK(unlink(name));
    expect_path(name, ENOENT);
    OK(close(fd));
  }
  close_loop(refusing);
}

TEST(what_only_looks_like_a_pressure_file_is_refused) {
  static const char *const paths[] = {
      "/tmp",      "/proc",     "/proc/pressure", "/proc/pressure/cpu", "/proc/pressure/io",
      "/dev/null", "/dev/ptmx", "/dev/tty",       "/proc/self/status",  "/proc/self/mem",
  };
  refusing = new_loop();
  for (int i = 0; AT_ROW(i, paths); i++) {
    if (access(paths[i], F_OK) == 0) expect_path(paths[i], EINVAL);
  }
  if (own_group()) {
    static const char *const files[] = {"", "/cgroup.procs", "/cpu.pressure", "/io.pressure"};
    for (int i = 0; AT_ROW(i, files); i++) {
      char path[640];
      snprintf(path, sizeof path, "%s%s", group, files[i]);
      if (access(path, F_OK) == 0) expect_path(path, EINVAL);
    }
  }
  close_loop(refusing);
}

TEST(a_path_that_leads_nowhere_is_its_errno) {
  char name[] = "/tmp/evloop-pressure-XXXXXX", longer[5000];
  OK(close((int)OK(mkostemp(name, O_CLOEXEC))));
  refusing = new_loop();
  snprintf(longer, sizeof longer, "%s/x", name);
  expect_path(longer, ENOTDIR);
  OK(unlink(name));
  OK(symlink(name, name));
  expect_path(name, ELOOP);
  OK(unlink(name));
  expect_path(name, ENOENT);
  expect_path("", ENOENT);
  memset(longer, 'p', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  expect_path(longer, ENAMETOOLONG);
  close_loop(refusing);
}

TEST(a_link_to_a_pressure_file_is_followed) {
  Seen seen = {0};
  char name[] = "/tmp/evloop-pressure-XXXXXX";
  if (!has_pressure()) SKIP("no pressure stall information");
  OK(close((int)OK(mkostemp(name, O_CLOEXEC))));
  OK(unlink(name));
  OK(symlink("/proc/pressure/memory", name));
  refusing = new_loop();
  close_watcher(OK(add(refusing, name, SECOND, WINDOW, &seen)));
  OK(unlink(name));
  close_loop(refusing);
}

/* Opens a FIFO, which lasts until another one does. */
typedef struct Opener {
  const char *path;
  pid_t tid;
  int opened; /* atomic */
} Opener;

static void *open_fifo(void *argument) {
  Opener *opener = (Opener *)argument;
  store_tid(&opener->tid);
  /* musl makes another call of open(). */
  OK(close((int)OK(syscall(SYS_openat, AT_FDCWD, opener->path, O_RDONLY | O_CLOEXEC))));
  STORE(opener->opened, 1);
  return NULL;
}

TEST(a_fifo_is_not_even_opened) {
  char name[] = "/tmp/evloop-pressure-XXXXXX";
  Opener opener = {name, 0, 0};
  OK(close((int)OK(mkostemp(name, O_CLOEXEC))));
  OK(unlink(name));
  OK(mkfifo(name, 0600));
  refusing = new_loop();
  expect_path(name, EINVAL);
  pthread_t thread = start_thread(open_fifo, &opener);
  int call_file = (int)OK(open_call_file(&opener.tid));
  POLL_UNTIL(call_of(call_file) == SYS_openat);
  expect_path(name, EINVAL);
  CHECK_EQ(call_of(call_file), SYS_openat);
  CHECK_EQ(LOAD(opener.opened), 0);
  OK(close((int)OK(open(name, O_WRONLY | O_CLOEXEC))));
  join(thread);
  OK(close(call_file));
  OK(unlink(name));
  close_loop(refusing);
}

TEST(without_the_right_to_write_to_it_it_is_eacces) {
  char path[640];
  if (!has_pressure() || !own_group()) SKIP("no control group of its own");
  snprintf(path, sizeof path, "%s/memory.pressure", group);
  refusing = new_loop();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    evloop_t loop = new_loop();
    OK(setresuid(65534, 65534, 65534));
    CHECK_ERR(add(loop, path, MS, WINDOW, NULL), EACCES);
    fflush(stdout);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  close_loop(refusing);
}

TEST(without_a_descriptor_to_spare_it_is_emfile) {
  evloop_t loop = new_loop();
  if (!has_pressure()) {
    CHECK(add(loop, NULL, MS, WINDOW, NULL) < 0);
    return;
  }
  int first = (int)OK(open("/", O_RDONLY | O_CLOEXEC));
  int spare = (int)OK(open("/", O_RDONLY | O_CLOEXEC));
  CHECK_EQ(spare, first + 1);
  set_limit((rlim_t)spare + 1);
  CHECK_ERR(add(loop, NULL, MS, WINDOW, NULL), EMFILE);
  OK(close(spare));
  CHECK_ERR(add(loop, NULL, MS, WINDOW, NULL), EMFILE);
  OK(close(first));
  OK(add(loop, NULL, MS, WINDOW, NULL));
  close_loop(loop);
}

TEST(a_forked_child_has_a_trigger_of_its_own) {
  Seen seen = {0};
  char path[640];
  evloop_t loop = new_loop();
  pid_t child;
  int status;
  if (!has_pressure() || !small_group()) {
    add(loop, NULL, MS, WINDOW, &seen);
  } else {
    snprintf(path, sizeof path, "%s/memory.pressure", group);
    OK(add(loop, path, MS, WINDOW, &seen));
  }
  int before = open_descriptors();
  child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(loop), 0);
    /* And the two of the loop, which it left as they were. */
    CHECK_EQ(open_descriptors(), before + 2);
    turns(loop, 2);
    CHECK_EQ(seen.errors, 0);
    if (group[0] != '\0') {
      pid_t thrashing = start_thrashing();
      OK(evloop_run(loop, EVLOOP_RUN_ONCE));
      stop_child(thrashing);
      CHECK_EQ(seen.calls, 1);
    }
    CHECK_EQ(evloop_close(loop), 0);
    fflush(stdout);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  /* The child took nothing from the parent. */
  if (group[0] != '\0') {
    OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    CHECK_EQ(seen.calls, 1);
  }
  close_loop(loop);
}

CHECK_MAIN()
