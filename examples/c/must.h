/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What most of these examples do about errors: say what went wrong, and end
 * the program. A larger program would hand them on.
 */

#ifndef MUST_H
#define MUST_H

#include <evloop.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>

/* Ends the program if a call of the library failed. Results are never -1
 * with errno: they are the negative error number itself, and the library has
 * a sentence with the values that were wrong, for each thread its own. */
static inline int64_t must(int64_t result)
{
  if (result < 0) {
    char why[256];
    evloop_last_error(why, sizeof why);
    fprintf(stderr, "%s\n", why);
    exit(1);
  }
  return result;
}

/* The same for system calls. */
static inline ssize_t must_sys(ssize_t result, const char *what)
{
  if (result < 0) {
    perror(what);
    exit(1);
  }
  return result;
}

/* Ends the program if a descriptor cannot be watched any more. Hang-ups and
 * errors of the descriptor itself do not count: reading reports those. */
static inline void must_be_watched(const evloop_event_t *event)
{
  if (event->events & EVLOOP_ERROR) {
    fprintf(stderr, "fd %d: %s\n", event->fd, evloop_strerror(event->result));
    exit(1);
  }
}

#endif
