/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What several test programs use: things to wait for, threads that wait. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define LENGTH(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define MS INT64_C(1000000)
#define MAYBE_UNUSED __attribute__((unused))

/* ---- descriptors ---- */

typedef struct Pipe {
  int r, w;
} Pipe;

MAYBE_UNUSED static Pipe new_pipe(void) {
  int ends[2];
  OK(pipe2(ends, O_CLOEXEC));
  Pipe made = {ends[0], ends[1]};
  return made;
}

MAYBE_UNUSED static void put(int fd) {
  CHECK_EQ(write(fd, "x", 1), 1);
}

MAYBE_UNUSED static int event_fd(unsigned count) {
  return (int)OK(eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK));
}

MAYBE_UNUSED static int regular_file(void) {
  FILE *file = tmpfile();
  CHECK(file != NULL);
  return fileno(file);
}

/* Two connected TCP sockets of the loopback interface. */
MAYBE_UNUSED static void tcp_pair(int pair[2]) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int listener = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  OK(bind(listener, (struct sockaddr *)&address, size));
  OK(listen(listener, 1));
  OK(getsockname(listener, (struct sockaddr *)&address, &size));
  pair[0] = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  OK(connect(pair[0], (struct sockaddr *)&address, size));
  pair[1] = (int)OK(accept(listener, NULL, NULL));
  OK(close(listener));
}

MAYBE_UNUSED static bool readable(int fd, int timeout_ms) {
  struct pollfd pollfd = {fd, POLLIN, 0};
  OK(poll(&pollfd, 1, timeout_ms));
  CHECK((pollfd.revents & ~POLLIN) == 0);
  return pollfd.revents != 0;
}

MAYBE_UNUSED static int open_descriptors(void) {
  int count = 0;
  DIR *directory = opendir("/proc/self/fd");
  CHECK(directory != NULL);
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

/* The kernel's limit of descriptors. A child sets it, since valgrind only
 * pretends to when a process asks for itself. */
MAYBE_UNUSED static void set_limit(rlim_t limit) {
  struct rlimit both;
  int status;
  OK(getrlimit(RLIMIT_NOFILE, &both));
  both.rlim_cur = limit;
  pid_t parent = getpid();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    _exit(prlimit(parent, RLIMIT_NOFILE, &both, NULL) < 0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
}

/* Checkers that run at exit need a few descriptors below the limit. */
MAYBE_UNUSED static void leave_room_for_checkers(void) {
  for (int fd = 3; fd < 10; fd++) close(fd);
}

/* ---- threads that wait ---- */

static inline bool is_wait(long call) {
  /* Not SYS_read: valgrind's threads queue up in one. */
  return call == SYS_ppoll || call == SYS_pselect6 || call == SYS_epoll_pwait ||
         call == SYS_epoll_pwait2;
}

/* Until the thread, which stores its id there, sleeps in a call that waits.
 * /proc is the only one to ask, and it has to be asked again and again. */
MAYBE_UNUSED static void wait_until_asleep(const pid_t *tid) {
  char path[64];
  long call = -1;
  while (!is_wait(call)) {
    FILE *file;
    usleep(1000);
    snprintf(path, sizeof path, "/proc/self/task/%d/syscall", __atomic_load_n(tid, __ATOMIC_ACQUIRE));
    if ((file = fopen(path, "r")) == NULL) continue;
    if (fscanf(file, "%ld", &call) != 1) call = -1;
    fclose(file);
  }
}

MAYBE_UNUSED static void store_tid(pid_t *tid) {
  __atomic_store_n(tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
}

/* A wait function of the library: all have this form. */
typedef int WaitFunction(int64_t object, evloop_ready_t *out_ready, int max, int64_t timeout_ns);

/* A thread that waits in an object without an end. */
typedef struct Waiter {
  WaitFunction *wait;
  int64_t object;
  int result;
  evloop_ready_t ready[4];
  pid_t tid;
  pthread_t thread;
} Waiter;

static inline void *waiter_main(void *argument) {
  Waiter *w = (Waiter *)argument;
  store_tid(&w->tid);
  w->result = w->wait(w->object, w->ready, LENGTH(w->ready), -1);
  return NULL;
}

MAYBE_UNUSED static void start_waiter_in(Waiter *w, WaitFunction *wait, int64_t object) {
  memset(w, 0, sizeof *w);
  w->wait = wait;
  w->object = object;
  CHECK_EQ(pthread_create(&w->thread, NULL, waiter_main, w), 0);
  wait_until_asleep(&w->tid);
}

MAYBE_UNUSED static int waiter_result(Waiter *w) {
  CHECK_EQ(pthread_join(w->thread, NULL), 0);
  return w->result;
}

#endif
