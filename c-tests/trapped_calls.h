/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* System calls of which one fails where a test wants it (to answer all calls
 * with a system call number, see answered_calls.h):
 *
 *   watch_calls(SYS_eventfd2);                    once in a process
 *   fail_call(2, EMFILE);                         the second from now on
 *   ...
 *   bool failed = end_of_faults();                whether there was a second
 *
 * A seccomp filter has the kernel send SIGSYS for a call that is watched. The
 * handler fails the call, or makes it itself, with a mark in an argument that
 * the call does not use. Such a signal must not be blocked: a thread that
 * blocks it cannot make calls that are watched.
 *
 * Of epoll_ctl only EPOLL_CTL_ADD is watched, and only what the kernel would
 * have accepted fails: it says EEXIST or EBADF before it needs memory. */
#ifndef TRAPPED_CALLS_H
#define TRAPPED_CALLS_H

#include "answered_calls.h"

#include <sys/epoll.h>
#include <ucontext.h>

#define FAULT_MARK 0x6576666cu

#if defined(__x86_64__)
#define FAULT_REGISTERS(context) ((context)->uc_mcontext.gregs)
#define FAULT_ARGUMENTS {REG_RDI, REG_RSI, REG_RDX, REG_R10, REG_R8}
#define FAULT_RESULT REG_RAX
#elif defined(__aarch64__)
#define FAULT_REGISTERS(context) ((context)->uc_mcontext.regs)
#define FAULT_ARGUMENTS {0, 1, 2, 3, 4}
#define FAULT_RESULT 0
#else
#error "the registers of system calls are not known for this machine"
#endif

MAYBE_UNUSED static struct {
  int seen, nth, error; /* atomic */
} fault;

static inline long fault_call(const siginfo_t *info, const long *a) {
  long result = syscall(info->si_syscall, a[0], a[1], a[2], a[3], a[4], (long)FAULT_MARK);
  return result < 0 ? -errno : result;
}

static inline void fault_answer(int number, siginfo_t *info, void *context) {
  static const int places[] = FAULT_ARGUMENTS;
  ucontext_t *ucontext = (ucontext_t *)context;
  int errno_before = errno;
  long a[5], result = 0;
  (void)number;
  for (int i = 0; i < 5; i++) a[i] = (long)FAULT_REGISTERS(ucontext)[places[i]];
  bool adds = info->si_syscall == SYS_epoll_ctl;
  if (adds) result = fault_call(info, a);
  bool fails = result >= 0 && LOAD(fault.nth) > 0 &&
               __atomic_add_fetch(&fault.seen, 1, __ATOMIC_ACQ_REL) == LOAD(fault.nth);
  if (fails && adds) {
    a[1] = EPOLL_CTL_DEL;
    fault_call(info, a);
  }
  if (fails) result = -LOAD(fault.error);
  else if (!adds) result = fault_call(info, a);
  FAULT_REGISTERS(ucontext)[FAULT_RESULT] = (unsigned long)result;
  errno = errno_before;
}

/* Calls with this system call number can fail from now on. */
MAYBE_UNUSED static void watch_calls(long number) {
  struct sigaction action;
  if (getenv("EVLOOP_TEST_VALGRIND")) SKIP("valgrind does not know such signals");
  bool adds = number == SYS_epoll_ctl;
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[5])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FAULT_MARK, 3, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, adds ? EPOLL_CTL_ADD : 0, 0, adds ? 1 : 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  memset(&action, 0, sizeof action);
  action.sa_sigaction = fault_answer;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  OK(sigaction(SIGSYS, &action, NULL));
  answer_by(filter, LENGTH(filter));
}

/* The nth call from now on fails, counting from 1, and no other. */
MAYBE_UNUSED static void fail_call(int nth, int error) {
  STORE(fault.error, error);
  STORE(fault.seen, 0);
  STORE(fault.nth, nth);
}

/* Whether it did. */
MAYBE_UNUSED static bool end_of_faults(void) {
  bool failed = LOAD(fault.seen) >= LOAD(fault.nth);
  STORE(fault.nth, 0);
  return failed;
}

#endif
