/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Files of the program at descriptors that the library had opened, and checks
 * that nothing was done to them. */
#ifndef FOREIGN_FILES_H
#define FOREIGN_FILES_H

#include "support.h"

#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

enum { FOREIGN_MOST = 40 };

/* What /proc says of a descriptor, but for the time that a timer has left. */
typedef struct Foreign {
  int fd;
  char link[128];
  char info[2048];
  off_t size;
  int unread;
} Foreign;

typedef struct ForeignFiles {
  const char *kind;
  int count;
  Foreign files[FOREIGN_MOST];
} ForeignFiles;

static inline Foreign look_at_foreign(int fd) {
  Foreign seen;
  char path[64], line[256];
  struct stat stat;
  memset(&seen, 0, sizeof seen);
  seen.fd = fd;
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK(readlink(path, seen.link, sizeof seen.link - 1) > 0);
  OK(fstat(fd, &stat));
  seen.size = stat.st_size;
  if (ioctl(fd, FIONREAD, &seen.unread) < 0) seen.unread = 0;
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
  FILE *info = fopen(path, "re");
  CHECK(info != NULL);
  while (fgets(line, sizeof line, info) != NULL) {
    if (strncmp(line, "it_value", 8) == 0) continue;
    CHECK(strlen(seen.info) + strlen(line) < sizeof seen.info);
    strcat(seen.info, line);
  }
  fclose(info);
  return seen;
}

MAYBE_UNUSED static void add_foreign(ForeignFiles *all, int fd) {
  CHECK(all->count < FOREIGN_MOST);
  all->files[all->count++].fd = fd;
}

/* ---- the kinds of files ---- */

static inline int foreign_data_file(ForeignFiles *all) {
  char path[] = "/tmp/evloop-foreign-XXXXXX";
  int fd = (int)OK(mkstemp(path));
  OK(unlink(path));
  CHECK_EQ(write(fd, "precious data\n", 14), 14);
  OK(lseek(fd, 0, SEEK_SET));
  (void)all;
  return fd;
}

/* Two, with something to read. */
static inline int foreign_pipe(ForeignFiles *all) {
  int ends[2];
  OK(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  CHECK_EQ(write(ends[1], "precious", 8), 8);
  add_foreign(all, ends[1]);
  return ends[0];
}

/* A pipe that is not ready, and a full one. */
static inline int foreign_quiet_pipe(ForeignFiles *all) {
  int ends[2];
  OK(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  add_foreign(all, ends[1]);
  return ends[0];
}

static inline int foreign_socket(ForeignFiles *all) {
  int ends[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
  CHECK_EQ(write(ends[1], "precious", 8), 8);
  CHECK_EQ(write(ends[0], "precious", 8), 8);
  add_foreign(all, ends[1]);
  return ends[0];
}

static inline int foreign_eventfd(ForeignFiles *all) {
  (void)all;
  return event_fd(7);
}

static inline int foreign_timerfd(ForeignFiles *all) {
  struct itimerspec hour = {{0, 0}, {3600, 0}};
  int fd = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  OK(timerfd_settime(fd, 0, &hour, NULL));
  (void)all;
  return fd;
}

/* Each epoll has all files registered that were opened before it: so any two
 * descriptors that the library had may be an epoll and a file registered there. */
static inline int foreign_epoll(ForeignFiles *all) {
  int epoll = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  if (all->count == 0) {
    add_foreign(all, epoll);
    return event_fd(0);
  }
  for (int i = 0; i < all->count; i++) {
    struct epoll_event event = {EPOLLIN | EPOLLPRI, {.u64 = 1000 + (uint64_t)i}};
    /* Those that would nest too deep are not. */
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, all->files[i].fd, &event) < 0) {
      CHECK(errno == EINVAL || errno == ELOOP);
    }
  }
  return epoll;
}

static inline int foreign_signalfd(ForeignFiles *all) {
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  (void)all;
  return (int)OK(signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK));
}

static inline int foreign_inotify(ForeignFiles *all) {
  int fd = (int)OK(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  OK(inotify_add_watch(fd, "/tmp", IN_DELETE_SELF));
  (void)all;
  return fd;
}

typedef struct ForeignKind {
  const char *name;
  int (*open)(ForeignFiles *all);
} ForeignKind;

MAYBE_UNUSED static const ForeignKind foreign_kinds[] = {
    {"data file", foreign_data_file}, {"pipe", foreign_pipe},
    {"quiet pipe", foreign_quiet_pipe}, {"socket", foreign_socket},
    {"eventfd", foreign_eventfd}, {"timerfd", foreign_timerfd},
    {"epoll", foreign_epoll}, {"signalfd", foreign_signalfd},
    {"inotify", foreign_inotify},
};

/* ---- what a daemon does ---- */

MAYBE_UNUSED static void close_all_descriptors(void) {
  for (int fd = 3; fd < 256; fd++) close(fd);
}

/* Descriptors that the library uses often are only verified every few
 * milliseconds. */
MAYBE_UNUSED static void wait_for_tick(void) {
  int64_t now = now_ns(CLOCK_MONOTONIC_COARSE);
  while (now_ns(CLOCK_MONOTONIC_COARSE) < now + 5 * MS) usleep(1000);
}

MAYBE_UNUSED static void remember_foreign(ForeignFiles *all) {
  for (int i = 0; i < all->count; i++) all->files[i] = look_at_foreign(all->files[i].fd);
}

/* Opens files until all descriptors up to `highest` are open. */
MAYBE_UNUSED static ForeignFiles open_foreign(const ForeignKind *kind, int highest) {
  ForeignFiles all;
  memset(&all, 0, sizeof all);
  all.kind = kind->name;
  do {
    int fd = kind->open(&all);
    add_foreign(&all, fd);
  } while (all.files[all.count - 1].fd < highest);
  remember_foreign(&all);
  return all;
}

MAYBE_UNUSED static void check_foreign(const ForeignFiles *all) {
  for (int i = 0; i < all->count; i++) {
    const Foreign *before = &all->files[i];
    Foreign now = look_at_foreign(before->fd);
    if (memcmp(before, &now, sizeof now) != 0) {
      printf("  a foreign %s, fd %d, was changed:\n%s%s(%d)\n is now\n%s%s(%d)\n", all->kind,
             before->fd, before->link, before->info, before->unread, now.link, now.info,
             now.unread);
      check_exit();
    }
  }
}

#endif
