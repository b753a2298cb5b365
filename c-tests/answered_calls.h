/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* System calls that a filter of seccomp(2) answers in the kernel's place, in
 * the process of one case: with an errno, or with success for a call that did
 * nothing. */
#ifndef ANSWERED_CALLS_H
#define ANSWERED_CALLS_H

#include "support.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "no seccomp architecture number is known for this machine"
#endif

/* ---- calls that wait ---- */

/* From now on such a call of this thread whose second argument is this waits
 * in the kernel; a descriptor for await_call(). Skips the case where that
 * cannot be had. */
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
  struct sock_fprog program = {LENGTH(filter), filter};
  OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  int fd = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER,
                        &program);
  if (fd < 0) SKIP("no filters of system calls here");
  return fd;
}

/* Until one waits; which it is. */
MAYBE_UNUSED static uint64_t await_call(int held) {
  struct seccomp_notif call;
  memset(&call, 0, sizeof call);
  OK(ioctl(held, SECCOMP_IOCTL_NOTIF_RECV, &call));
  return call.id;
}

/* It is made now. */
MAYBE_UNUSED static void let_go_on(int held, uint64_t id) {
  struct seccomp_notif_resp answer;
  memset(&answer, 0, sizeof answer);
  answer.id = id;
  answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  OK(ioctl(held, SECCOMP_IOCTL_NOTIF_SEND, &answer));
}

/* ---- calls that are answered ---- */

/* From now on the call returns -answer, or 0, without being made. Skips the
 * case where the kernel has no filters. */
MAYBE_UNUSED static void answer_call(int number, int answer) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)number, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)answer),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {LENGTH(filter), filter};
  OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) < 0) {
    SKIP("no filters of system calls here");
  }
}

#endif
