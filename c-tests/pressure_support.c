/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "pressure_support.h"

bool has_pressure(void) {
  int fd = open("/proc/pressure/memory", O_RDWR | O_CLOEXEC);
  if (fd < 0) return false;
  close(fd);
  return true;
}

char group[512], limits[512];

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
  /* One that was ended has left its group behind. */
  for (int number = 0; number < 100; number++) {
    CHECK(snprintf(made, cap, "%s/evloop-test-%d-%d", above, (int)getpid(), number) < (int)cap);
    if (mkdir(made, 0755) == 0) return true;
    if (errno != EEXIST) break;
  }
  made[0] = '\0';
  return false;
}

bool own_group(void) {
  char where[256];
  CHECK_EQ(atexit(remove_groups), 0);
  return find_mount("cgroup2", "", where, sizeof where) && make_group(group, sizeof group, where);
}

bool small_group(void) {
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

pid_t start_thrashing(void) {
  enum { BYTES = 64 << 20 };
  pid_t child;
  char name[] = "/var/tmp/evloop-pressure-XXXXXX";
  int fd = (int)OK(mkostemp(name, O_CLOEXEC));
  OK(unlink(name));
  OK(ftruncate(fd, BYTES));
  child = (pid_t)OK(fork());
  if (child == 0) {
    OK(prctl(PR_SET_PDEATHSIG, SIGKILL));
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

void stop_child(pid_t child) {
  int status;
  OK(kill(child, SIGKILL));
  CHECK_EQ(waitpid(child, &status, 0), child);
}
