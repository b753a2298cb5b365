/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What several test programs use: things to wait for, ways to wait for what
 * other threads do, threads that wait. */
#ifndef SUPPORT_H
#define SUPPORT_H

#include "check.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define LENGTH(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define MS INT64_C(1000000)
#define SECOND (1000 * MS)
#define HOUR (3600 * SECOND)
#define CLOSED 900000 /* an fd that is never open in these tests */
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

/* Has the process have so many descriptors, or skips the case. */
MAYBE_UNUSED static void need_descriptors(rlim_t count) {
  struct rlimit both;
  OK(getrlimit(RLIMIT_NOFILE, &both));
  if (both.rlim_max < count) SKIP("%d descriptors cannot be had", (int)count);
  if (both.rlim_cur < count) set_limit(count);
}

/* Whether a child may allocate that was forked while other threads did: gcc's
 * AddressSanitizer does not take the locks of its allocator at a fork. */
MAYBE_UNUSED static bool may_fork_beside_allocations(void) {
  return getenv("EVLOOP_TEST_ASAN") == NULL;
}

/* Checkers that run at exit need a few descriptors below the limit. */
MAYBE_UNUSED static void leave_room_for_checkers(void) {
  for (int fd = 3; fd < 10; fd++) close(fd);
}

/* ---- waiting for what another thread does ---- */

/* A thread sleeps in UNTIL() until its condition is true. A thread or a signal
 * handler that changes a variable of such a condition calls notify_change(), or
 * uses STORE() or RAISE(), which call it. The only time limit is that of the
 * case. */
MAYBE_UNUSED static struct {
  unsigned count; /* a futex */
  int waiting;    /* threads */
} condition_changes;

/* Wakes the threads in UNTIL(). Async-signal-safe. */
MAYBE_UNUSED static void notify_change(void) {
  int errno_before = errno;
  __atomic_add_fetch(&condition_changes.count, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&condition_changes.waiting, __ATOMIC_SEQ_CST) > 0) {
    syscall(SYS_futex, &condition_changes.count, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
  }
  errno = errno_before;
}

/* Returns when there is a change that was not counted in `seen`. */
MAYBE_UNUSED static void wait_for_notification(unsigned seen) {
  syscall(SYS_futex, &condition_changes.count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

#define LOAD(variable) __atomic_load_n(&(variable), __ATOMIC_ACQUIRE)
#define STORE(variable, value)                                                                     \
  do {                                                                                             \
    __atomic_store_n(&(variable), (value), __ATOMIC_RELEASE);                                      \
    notify_change();                                                                               \
  } while (0)
#define RAISE(variable, value)                                                                     \
  do {                                                                                             \
    __atomic_add_fetch(&(variable), (value), __ATOMIC_ACQ_REL);                                    \
    notify_change();                                                                               \
  } while (0)

#define UNTIL(condition)                                                                           \
  do {                                                                                             \
    __atomic_add_fetch(&condition_changes.waiting, 1, __ATOMIC_SEQ_CST);                           \
    for (;;) {                                                                                     \
      unsigned seen_ = __atomic_load_n(&condition_changes.count, __ATOMIC_SEQ_CST);                \
      if (condition) break;                                                                        \
      wait_for_notification(seen_);                                                                \
    }                                                                                              \
    __atomic_sub_fetch(&condition_changes.waiting, 1, __ATOMIC_SEQ_CST);                           \
  } while (0)

/* For a condition that no thread notifies: for example that another thread is
 * inside a call, which only the kernel or the library knows. It is evaluated
 * again and again. The first time is after a pause, in which the other thread
 * may get there. */
#define POLL_UNTIL(condition)                                                                      \
  do {                                                                                             \
    usleep(500);                                                                                   \
  } while (!(condition))

/* ---- threads that wait ---- */

static inline bool is_wait(long call) {
  /* Not SYS_read: valgrind's threads queue up in one. */
  return call == SYS_ppoll || call == SYS_pselect6 || call == SYS_epoll_pwait ||
         call == SYS_epoll_pwait2;
}

/* Opens the file of /proc that shows in which system call a thread is. The thread
 * stores its id in `tid`. */
MAYBE_UNUSED static int open_call_file(const pid_t *tid) {
  char path[64];
  UNTIL(LOAD(*tid) != 0);
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", LOAD(*tid));
  return open(path, O_RDONLY | O_CLOEXEC);
}

/* The system call that the thread sleeps in; -1: it runs. */
static inline long call_of(int call_file) {
  char text[32] = "";
  if (pread(call_file, text, sizeof text - 1, 0) < 1) return -1;
  return text[0] >= '0' && text[0] <= '9' ? atol(text) : -1;
}

static inline bool is_asleep(int call_file) {
  return is_wait(call_of(call_file));
}

/* Until the thread, which stores its id there, sleeps in a call that waits. */
MAYBE_UNUSED static void wait_until_asleep(const pid_t *tid) {
  int call_file = (int)OK(open_call_file(tid));
  POLL_UNTIL(is_asleep(call_file));
  OK(close(call_file));
}

/* The same of the main thread, for another one. */
MAYBE_UNUSED static void wait_until_main_is_asleep(void) {
  int call_file = (int)OK(open("/proc/self/syscall", O_RDONLY | O_CLOEXEC));
  POLL_UNTIL(is_asleep(call_file));
  OK(close(call_file));
}

MAYBE_UNUSED static void store_tid(pid_t *tid) {
  STORE(*tid, (pid_t)syscall(SYS_gettid));
}

/* A wait function of the library: all have this form. */
typedef int WaitFunction(int64_t object, evloop_ready_t *out_ready, int max, int64_t timeout_ns);

/* A thread that waits in an object without an end. */
typedef struct Waiter {
  WaitFunction *wait;
  int64_t object;
  int result;
  bool done; /* atomic; the result is there */
  evloop_ready_t ready[4];
  pid_t tid;
  pthread_t thread;
} Waiter;

static inline void *waiter_main(void *argument) {
  Waiter *w = (Waiter *)argument;
  store_tid(&w->tid);
  w->result = w->wait(w->object, w->ready, LENGTH(w->ready), -1);
  STORE(w->done, true);
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

/* A waiter that does not wait before let_it_wait(), so that the case can use up
 * all descriptors first: the file that shows whether it sleeps is already
 * open. */
typedef struct HeldBack {
  Waiter waiter;
  pthread_barrier_t gate;
  int call_file;
} HeldBack;

static inline void *held_back_main(void *argument) {
  HeldBack *h = (HeldBack *)argument;
  store_tid(&h->waiter.tid);
  pthread_barrier_wait(&h->gate);
  return waiter_main(&h->waiter);
}

MAYBE_UNUSED static void hold_back(HeldBack *h, WaitFunction *wait, int64_t object) {
  memset(h, 0, sizeof *h);
  h->waiter.wait = wait;
  h->waiter.object = object;
  CHECK_EQ(pthread_barrier_init(&h->gate, NULL, 2), 0);
  CHECK_EQ(pthread_create(&h->waiter.thread, NULL, held_back_main, h), 0);
  h->call_file = (int)OK(open_call_file(&h->waiter.tid));
}

/* Until it sleeps in its wait. */
MAYBE_UNUSED static void let_it_wait(HeldBack *h) {
  pthread_barrier_wait(&h->gate);
  POLL_UNTIL(is_asleep(h->call_file));
}

MAYBE_UNUSED static int held_back_result(HeldBack *h) {
  int result = waiter_result(&h->waiter);
  CHECK_EQ(pthread_barrier_destroy(&h->gate), 0);
  OK(close(h->call_file));
  return result;
}

/* ---- signals ---- */

MAYBE_UNUSED static int signals; /* counted so far */

MAYBE_UNUSED static void count_signal(int number) {
  (void)number;
  RAISE(signals, 1);
}

/* Without SA_RESTART. */
MAYBE_UNUSED static void handle_signals(void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  OK(sigaction(SIGUSR1, &action, NULL));
}

/* Interrupts a thread's wait with a signal that is counted. */
MAYBE_UNUSED static void interrupt(pthread_t thread) {
  int before = LOAD(signals);
  CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
  UNTIL(LOAD(signals) > before);
}

/* ---- a clock that is set ---- */

/* Other processes that step the clock wait here, until this one ends. */
MAYBE_UNUSED static void lock_clock(void) {
  int fd = (int)OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
  while (flock(fd, LOCK_EX) < 0) CHECK_EQ(errno, EINTR);
}

#endif
