/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * libevloop-kqueue, the shared library only: sigaction() and the functions
 * that are made of it, in the place of the C library's. On BSD a signal is
 * counted whatever the program does with it, also if it is ignored after it
 * was watched. Here an ignored signal would never reach the process, so
 * libevloop's handler has to stay where it is; see evloop_bsd_sigaction().
 *
 * A signal handler may call all of them. What they do is what the C library's
 * do, which are not called, since those do not come here.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <evloop.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef int Sigaction(int, const struct sigaction *, struct sigaction *);
typedef void Handler(int);

/* The C library's, or that of another library in between. */
static Sigaction *next_sigaction(void) {
  static Sigaction *known; /* atomic */
  Sigaction *next = __atomic_load_n(&known, __ATOMIC_RELAXED);
  if (next == NULL) {
    *(void **)&next = dlsym(RTLD_NEXT, "sigaction");
    __atomic_store_n(&known, next, __ATOMIC_RELAXED);
  }
  return next;
}

/* No signal handler is to be the first to ask for it; and libevloop's own
 * calls, which come here otherwise, are to go there, too. */
__attribute__((constructor)) static void at_load(void) {
  evloop_bsd_sigaction(next_sigaction(), 0, NULL, NULL);
}

EXPORT int sigaction(int number, const struct sigaction *act,
                     struct sigaction *oldact) {
  return evloop_bsd_sigaction(next_sigaction(), number, act, oldact);
}

/* Whether calls that a signal interrupts fail: see siginterrupt(3). */
static unsigned char interrupts[_NSIG]; /* atomic */

static int is_signal(int number) {
  return number > 0 && number < _NSIG;
}

static Handler *install(int number, Handler *handler, int flags) {
  struct sigaction act, oldact;
  memset(&act, 0, sizeof act);
  act.sa_handler = handler;
  act.sa_flags = flags;
  if (handler == SIG_ERR || !is_signal(number)) {
    errno = EINVAL;
    return SIG_ERR;
  }
  return sigaction(number, &act, &oldact) < 0 ? SIG_ERR : oldact.sa_handler;
}

EXPORT Handler *signal(int number, Handler *handler) {
  int restarts = !is_signal(number) ||
                 !__atomic_load_n(&interrupts[number], __ATOMIC_RELAXED);
  return install(number, handler, restarts ? SA_RESTART : 0);
}

EXPORT Handler *bsd_signal(int number, Handler *handler);
EXPORT Handler *bsd_signal(int number, Handler *handler) {
  return signal(number, handler);
}

EXPORT Handler *ssignal(int number, Handler *handler) {
  return signal(number, handler);
}

/* What signal() is in programs that ask for System V, or for ISO C alone. */
EXPORT Handler *__sysv_signal(int number, Handler *handler) {
  return install(number, handler, (int)(SA_RESETHAND | SA_NODEFER));
}

EXPORT Handler *sysv_signal(int number, Handler *handler) {
  return __sysv_signal(number, handler);
}

EXPORT int siginterrupt(int number, int on) {
  struct sigaction act;
  if (!is_signal(number)) {
    errno = EINVAL;
    return -1;
  }
  if (sigaction(number, NULL, &act) < 0) return -1;
  __atomic_store_n(&interrupts[number], on != 0, __ATOMIC_RELAXED);
  act.sa_flags = on ? act.sa_flags & ~SA_RESTART : act.sa_flags | SA_RESTART;
  return sigaction(number, &act, NULL);
}

EXPORT int sigignore(int number) {
  return install(number, SIG_IGN, 0) == SIG_ERR ? -1 : 0;
}

EXPORT Handler *sigset(int number, Handler *handler) {
  struct sigaction oldact;
  sigset_t set, before;
  Handler *old;
  if (handler == SIG_ERR || !is_signal(number)) {
    errno = EINVAL;
    return SIG_ERR;
  }
  sigemptyset(&set);
  sigaddset(&set, number);
  if (handler == SIG_HOLD) {
    if (sigprocmask(SIG_BLOCK, &set, &before) < 0) return SIG_ERR;
    if (sigismember(&before, number) == 1) return SIG_HOLD;
    return sigaction(number, NULL, &oldact) < 0 ? SIG_ERR : oldact.sa_handler;
  }
  old = install(number, handler, 0);
  if (old == SIG_ERR) return SIG_ERR;
  if (sigprocmask(SIG_UNBLOCK, &set, &before) < 0) return SIG_ERR;
  return sigismember(&before, number) == 1 ? SIG_HOLD : old;
}
