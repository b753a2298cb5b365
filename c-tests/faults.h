/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Allocations and registrations that fail when a test wants them to: the
 * program has its own malloc() and syscall(), which the library then calls.
 *
 * Not under valgrind or AddressSanitizer, which have theirs. */
#ifndef FAULTS_H
#define FAULTS_H

#include "support.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/epoll.h>

/* Which fail: those from the n-th on, or only that one. */
typedef enum Mode { FROM, ONLY } Mode;

#define EACH_MODE(mode) for (Mode mode = FROM; mode <= ONLY; mode++)

typedef struct Faults {
  int armed;         /* atomic; in all threads */
  long count, first, last; /* how many there were; which fail */
  int errno_of; /* what a system call says */
} Faults;

MAYBE_UNUSED static Faults memory, registrations;
/* Nothing of this thread's fails. */
MAYBE_UNUSED static __thread int spared;

static inline int fails(Faults *faults) {
  long count;
  if (!LOAD(faults->armed) || spared) return 0;
  count = __atomic_add_fetch(&faults->count, 1, __ATOMIC_RELAXED);
  return count >= faults->first && count <= faults->last;
}

/* From here on these fail. */
static inline void arm_range(Faults *faults, long first, long last) {
#ifndef __GLIBC__
  SKIP("only glibc's malloc and syscall can be replaced here");
#endif
  faults->count = 0;
  faults->first = first;
  faults->last = last;
  faults->errno_of = ENOSPC;
  __atomic_store_n(&faults->armed, 1, __ATOMIC_SEQ_CST);
}

/* From here on the first-th fails. */
static inline void arm(Faults *faults, long first, Mode mode) {
  arm_range(faults, first, mode == FROM ? LONG_MAX : first);
}

/* From here on none does; whether one did. */
static inline int disarm(Faults *faults) {
  __atomic_store_n(&faults->armed, 0, __ATOMIC_SEQ_CST);
  return __atomic_load_n(&faults->count, __ATOMIC_RELAXED) >= faults->first;
}

/* ---- memory ---- */

/* What this thread does once: at its first allocation after it has registered
 * a descriptor. */
typedef void Action(void);

MAYBE_UNUSED static __thread Action *after_registration, *at_allocation;

/* Takes it, so that it may allocate itself. */
static inline Action *take_action(Action **place) {
  Action *action = *place;
  *place = NULL;
  return action;
}

/* Whether an allocation of this thread's fails. */
static inline int has_no_memory(void) {
  if (at_allocation != NULL) take_action(&at_allocation)();
  return fails(&memory);
}

#ifdef __GLIBC__
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *before, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static inline void *no_memory(void) {
  errno = ENOMEM;
  return NULL;
}

void *malloc(size_t size) {
  return has_no_memory() ? no_memory() : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  return has_no_memory() ? no_memory() : __libc_calloc(count, size);
}

void *realloc(void *before, size_t size) {
  return has_no_memory() ? no_memory() : __libc_realloc(before, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  return has_no_memory() ? no_memory() : __libc_memalign(alignment, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
  void *made = has_no_memory() ? NULL : __libc_memalign(alignment, size);
  if (made == NULL) return ENOMEM;
  *out = made;
  return 0;
}
#endif

MAYBE_UNUSED static void without_memory(void) {
  arm(&memory, 1, FROM);
}

MAYBE_UNUSED static void with_memory(void) {
  disarm(&memory);
}

/* From here on this thread has memory, and no other one has. */
MAYBE_UNUSED static void only_spare_this_thread(void) {
  spared = 1;
  without_memory();
}

/* ---- registrations: EPOLL_CTL_ADD ---- */

#ifdef __GLIBC__
typedef long SyscallFunction(long number, ...);

static SyscallFunction *real_syscall;

__attribute__((constructor)) static void find_syscall(void) {
  void *found = dlsym(RTLD_NEXT, "syscall");
  memcpy(&real_syscall, &found, sizeof found);
}

long syscall(long number, ...) {
  long given[6];
  va_list list;
  va_start(list, number);
  for (int i = 0; i < 6; i++) given[i] = va_arg(list, long);
  va_end(list);
  if (number == SYS_epoll_ctl && given[1] == EPOLL_CTL_ADD && fails(&registrations)) {
    errno = registrations.errno_of;
    return -1;
  }
  long result = real_syscall(number, given[0], given[1], given[2], given[3], given[4], given[5]);
  if (number == SYS_epoll_ctl && given[1] == EPOLL_CTL_ADD && result == 0 && after_registration) {
    at_allocation = take_action(&after_registration);
  }
  return result;
}
#endif

#endif
