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

Pipe new_pipe(void);
void put(int fd);
int event_fd(unsigned count);
int regular_file(void);

/* Two connected TCP sockets of the loopback interface. */
void tcp_pair(int pair[2]);
bool readable(int fd, int timeout_ms);
int open_descriptors(void);

/* The kernel's limit of descriptors. A child sets it, since valgrind only
 * pretends to when a process asks for itself. */
void set_limit(rlim_t limit);

/* Has the process have so many descriptors, or skips the case. */
void need_descriptors(rlim_t count);

/* Whether a child may allocate that was forked while other threads did: gcc's
 * AddressSanitizer does not take the locks of its allocator at a fork. */
bool may_fork_beside_allocations(void);

/* Checkers that run at exit need a few descriptors below the limit. */
void leave_room_for_checkers(void);

/* ---- waiting for what another thread does ---- */

/* A thread sleeps in UNTIL() until its condition is true. A thread or a signal
 * handler that changes a variable of such a condition calls notify_change(), or
 * uses STORE() or RAISE(), which call it. The only time limit is that of the
 * case. */
typedef struct ConditionChanges {
  unsigned count; /* a futex */
  int waiting;    /* threads */
} ConditionChanges;

extern ConditionChanges condition_changes;

/* Wakes the threads in UNTIL(). Async-signal-safe. */
void notify_change(void);

/* Returns when there is a change that was not counted in `seen`. */
void wait_for_notification(unsigned seen);

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

bool is_wait(long call);

/* Opens the file of /proc that shows in which system call a thread is. The thread
 * stores its id in `tid`. */
int open_call_file(const pid_t *tid);

/* The system call that the thread sleeps in; -1: it runs. */
long call_of(int call_file);
bool is_asleep(int call_file);

/* Until the thread, which stores its id there, sleeps in a call that waits. */
void wait_until_asleep(const pid_t *tid);

/* The same of the main thread, for another one. */
void wait_until_main_is_asleep(void);
void store_tid(pid_t *tid);

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

void start_waiter_in(Waiter *w, WaitFunction *wait, int64_t object);
int waiter_result(Waiter *w);

/* A waiter that does not wait before let_it_wait(), so that the case can use up
 * all descriptors first: the file that shows whether it sleeps is already
 * open. */
typedef struct HeldBack {
  Waiter waiter;
  pthread_barrier_t gate;
  int call_file;
} HeldBack;

void hold_back(HeldBack *h, WaitFunction *wait, int64_t object);

/* Until it sleeps in its wait. */
void let_it_wait(HeldBack *h);
int held_back_result(HeldBack *h);

/* ---- signals ---- */

extern int signals; /* counted so far */

void count_signal(int number);

/* Without SA_RESTART. */
void handle_signals(void (*handler)(int));

/* Interrupts a thread's wait with a signal that is counted. */
void interrupt(pthread_t thread);

/* ---- a clock that is set ---- */

/* Other processes that step the clock wait here, until this one ends. */
void lock_clock(void);

#endif
