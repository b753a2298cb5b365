/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Makes single system calls of the library fail: its calls go through this
 * program's syscall(), which comes before the C library's. */
#ifndef FAILING_CALLS_H
#define FAILING_CALLS_H

#include "support.h"

#include <stdarg.h>

static struct {
  long call;
  int nth;    /* of the calls from now on; 0: none */
  int last;   /* up to this one */
  int error;
  int made;   /* atomic; how many of them there were */
  int failed; /* atomic; how many of them were refused */
} failing;

/* The nth call with this system call number fails. */
MAYBE_UNUSED static void fail_call(long call, int nth, int error) {
  memset(&failing, 0, sizeof failing);
  failing.call = call;
  failing.error = error;
  failing.nth = nth;
  failing.last = nth;
}

MAYBE_UNUSED static void fail_all_calls(long call, int error) {
  fail_call(call, 1, error);
  failing.last = INT32_MAX;
}

MAYBE_UNUSED static void fail_no_call(void) {
  failing.nth = 0;
}

static inline bool is_refused(long call) {
  int made;
  if (failing.nth == 0 || call != failing.call) return false;
  made = __atomic_add_fetch(&failing.made, 1, __ATOMIC_SEQ_CST);
  if (made < failing.nth || made > failing.last) return false;
  __atomic_add_fetch(&failing.failed, 1, __ATOMIC_SEQ_CST);
  return true;
}

static inline long system_call(long call, const long *args) {
#if defined(__x86_64__)
  register long fourth __asm__("r10") = args[3];
  register long fifth __asm__("r8") = args[4];
  register long sixth __asm__("r9") = args[5];
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(call), "D"(args[0]), "S"(args[1]), "d"(args[2]), "r"(fourth), "r"(fifth),
                     "r"(sixth)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long number __asm__("x8") = call;
  register long first __asm__("x0") = args[0];
  register long second __asm__("x1") = args[1];
  register long third __asm__("x2") = args[2];
  register long fourth __asm__("x3") = args[3];
  register long fifth __asm__("x4") = args[4];
  register long sixth __asm__("x5") = args[5];
  __asm__ volatile("svc 0"
                   : "+r"(first)
                   : "r"(number), "r"(second), "r"(third), "r"(fourth), "r"(fifth), "r"(sixth)
                   : "memory");
  return first;
#else
#error "this machine's way to make system calls is not known"
#endif
}

long syscall(long call, ...) {
  long args[6], result;
  va_list list;
  int i;
  if (is_refused(call)) {
    errno = failing.error;
    return -1;
  }
  va_start(list, call);
  for (i = 0; i < 6; i++) args[i] = va_arg(list, long);
  va_end(list);
  result = system_call(call, args);
  if (result >= 0 || result < -4095) return result;
  errno = (int)-result;
  return -1;
}

#endif
