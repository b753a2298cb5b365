/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchers of memory pressure. Where the kernel has no such thing, they are
 * refused, and that is tested. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define SOME EVLOOP_PRESSURE_SOME
#define FULL EVLOOP_PRESSURE_FULL
#define WINDOW (2 * SECOND)

/* What an attempt to watch the system has to return. */
static bool has_pressure(void) {
  int fd = open("/proc/pressure/memory", O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  close(fd);
  return true;
}

static int64_t add(evloop_t loop, const char *path, int64_t stall, int64_t window, Seen *seen) {
  return evloop_add_memory_pressure(loop, path, SOME, stall, window, see, seen);
}

/* ---- a control group with little memory ---- */

/* Directories for the case, removed at its end: one that counts pressure, and
 * one that limits memory, which may be the same. */
static char group[512], limits[512];

static void remove_groups(void) {
  /* The kernel may be busy with those that were in it. */
  while (group[0] != '\0' && rmdir(group) < 0 && errno == EBUSY) sched_yield();
  while (limits[0] != '\0' && rmdir(limits) < 0 && errno == EBUSY) sched_yield();
}

static bool write_in(const char *dir, const char *name, const char *text) {
  char path[640];
  int fd;
  bool done;
  snprintf(path, sizeof path, "%s/%s", dir, name);
  fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return false;
  done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
  close(fd);
  return done;
}

/* A mount of this type, with this option. */
static bool find_mount(const char *wanted, const char *option, char *where, size_t cap) {
  char type[64], path[256], options[512];
  FILE *mounts = fopen("/proc/self/mounts", "re");
  bool found = false;
  CHECK(mounts != NULL);
  while (!found && fscanf(mounts, "%*s %255s %63s %511s %*d %*d", path, type, options) == 3) {
    found = strcmp(type, wanted) == 0 && strstr(options, option) != NULL;
  }
  fclose(mounts);
  if (found) CHECK(snprintf(where, cap, "%s", path) < (int)cap);
  return found;
}

static bool make_group(char *made, size_t cap, const char *above) {
  CHECK(snprintf(made, cap, "%s/evloop-test-%d", above, (int)getpid()) < (int)cap);
  if (mkdir(made, 0755) == 0) return true;
  made[0] = '\0';
  return false;
}

/* False: this system, or this user, cannot have one. */
static bool own_group(void) {
  char where[256];
  CHECK_EQ(atexit(remove_groups), 0);
  return find_mount("cgroup2", "", where, sizeof where) && make_group(group, sizeof group, where);
}

/* The same, in which memory is short. */
static bool small_group(void) {
  char where[256];
  if (!own_group()) return false;
  if (write_in(group, "memory.max", "16777216")) return true;
  return find_mount("cgroup", ",memory", where, sizeof where) &&
         make_group(limits, sizeof limits, where) &&
         write_in(limits, "memory.limit_in_bytes", "16777216");
}

static void enter_group(void) {
  CHECK(write_in(group, "cgroup.procs", "0"));
  if (limits[0] != '\0') CHECK(write_in(limits, "cgroup.procs", "0"));
}

/* A child that needs more memory than its group has: a file's pages, which
 * the kernel has to read again and again. */
static pid_t start_thrashing(void) {
  enum { BYTES = 64 << 20 };
  pid_t child;
  char name[] = "/var/tmp/evloop-pressure-XXXXXX";
  int fd = (int)OK(mkostemp(name, O_CLOEXEC));
  OK(unlink(name));
  OK(ftruncate(fd, BYTES));
  child = (pid_t)OK(fork());
  if (child == 0) {
    enter_group();
    volatile char *bytes =
        (volatile char *)mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK((void *)bytes != MAP_FAILED);
    for (;;) {
      int i;
      for (i = 0; i < BYTES; i += 4096) bytes[i]++;
    }
  }
  OK(close(fd));
  return child;
}

static void stop_child(pid_t child) {
  int status;
  OK(kill(child, SIGKILL));
  CHECK_EQ(waitpid(child, &status, 0), child);
}

TEST_TIMEOUT(a_shortage_of_memory_is_told_and_not_to_a_disabled_watcher, 120) {
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
  /* What comes while it is disabled is told when it is not. */
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
  int64_t full = evloop_add_memory_pressure(loop, NULL, FULL, SECOND, WINDOW, see, &seen);
  if (has_pressure()) {
    CHECK(some > 0 && full > 0);
    CHECK_EQ(open_descriptors(), before + 2);
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
  CHECK_ERR(evloop_add_memory_pressure(loop, NULL, 2, MS, WINDOW, see, NULL), EINVAL);
  CHECK_ERR(add(0, NULL, MS, WINDOW, NULL), ESTALE);
  close_loop(loop);
}

TEST(what_is_no_pressure_file_is_refused_and_not_written_to) {
  evloop_t loop = new_loop();
  struct stat st;
  int fd, before = open_descriptors();
  char name[] = "/tmp/evloop-pressure-XXXXXX";
  fd = (int)OK(mkostemp(name, O_CLOEXEC));
  CHECK_ERR(add(loop, name, MS, WINDOW, NULL), EINVAL);
  CHECK_EQ(write(fd, "hello, world", 12), 12);
  CHECK_ERR(add(loop, name, MS, WINDOW, NULL), EINVAL);
  OK(fstat(fd, &st));
  CHECK_EQ(st.st_size, 12);
  OK(unlink(name));
  CHECK_ERR(add(loop, name, MS, WINDOW, NULL), ENOENT);
  CHECK_ERR(add(loop, "/tmp", MS, WINDOW, NULL), EISDIR);
  OK(close(fd));
  CHECK_EQ(open_descriptors(), before);
  close_loop(loop);
}

TEST(without_a_descriptor_to_spare_it_is_emfile) {
  evloop_t loop = new_loop();
  if (!has_pressure()) {
    CHECK(add(loop, NULL, MS, WINDOW, NULL) < 0);
    return;
  }
  int spare = (int)OK(open("/", O_RDONLY | O_CLOEXEC));
  set_limit((rlim_t)spare + 1);
  CHECK_ERR(add(loop, NULL, MS, WINDOW, NULL), EMFILE);
  OK(close(spare));
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
