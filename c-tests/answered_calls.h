/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* System calls that a filter of seccomp(2) answers in the kernel's place, in
 * the process of one case: with an errno, or with success for a call that did
 * nothing. */
#ifndef ANSWERED_CALLS_H
#define ANSWERED_CALLS_H

#include "support.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

/* ---- calls that wait ---- */

/* From now on the calls of this thread that a filter notifies of wait in the
 * kernel; a descriptor for await_call(). Skips the case where that cannot be
 * had. */
MAYBE_UNUSED static int listen_to_calls(struct sock_filter *filter, int length) {
  struct sock_fprog program = {(unsigned short)length, filter};
  OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
  if (fd < 0) SKIP("no filters of system calls here");
  return fd;
}

/* Holds calls with this system call number whose second argument is this. */
MAYBE_UNUSED static int hold_calls(int number, const void *second) {
  const unsigned low = (unsigned)(uintptr_t)second, high = (unsigned)((uintptr_t)second >> 32);
  const unsigned place = offsetof(struct seccomp_data, args[1]);
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, low, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, place + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, high, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  return listen_to_calls(filter, LENGTH(filter));
}

/* Holds calls with this system call number whose fourth argument has one of
 * these bits. */
MAYBE_UNUSED static int hold_calls_with(int number, unsigned bits) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  return listen_to_calls(filter, LENGTH(filter));
}

/* Until one waits. */
MAYBE_UNUSED static struct seccomp_notif await_call(int held) {
  struct seccomp_notif call;
  memset(&call, 0, sizeof call);
  OK(syscall(SYS_ioctl, held, SECCOMP_IOCTL_NOTIF_RECV, &call));
  return call;
}

/* It is made now; or, without the flag to continue, returns 0 and is not. */
MAYBE_UNUSED static void end_call(int held, const struct seccomp_notif *call, unsigned flags) {
  struct seccomp_notif_resp answer;
  memset(&answer, 0, sizeof answer);
  answer.id = call->id;
  answer.flags = flags;
  OK(syscall(SYS_ioctl, held, SECCOMP_IOCTL_NOTIF_SEND, &answer));
}

MAYBE_UNUSED static void let_go_on(int held, const struct seccomp_notif *call) {
  end_call(held, call, SECCOMP_USER_NOTIF_FLAG_CONTINUE);
}

/* ---- calls that are answered ---- */

static inline void answer_by(struct sock_filter *filter, int length) {
  struct sock_fprog program = {(unsigned short)length, filter};
  OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0) {
    SKIP("no filters of system calls here");
  }
}

/* From now on the call returns -answer, or 0, without being made. Skips the
 * case where the kernel has no filters. */
MAYBE_UNUSED static void answer_call(int number, int answer) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)answer),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  answer_by(filter, LENGTH(filter));
}

/* The same, if its second argument is this. */
MAYBE_UNUSED static void answer_call_of(int number, int second, int answer) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)second, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)answer),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  answer_by(filter, LENGTH(filter));
}

#endif
