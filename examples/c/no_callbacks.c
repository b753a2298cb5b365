/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * An event loop without a callback: evloop_wait() returns the events, and
 * the program looks at them one after the other.
 *
 *   no_callbacks
 *
 * A timer that writes into a pipe three times, the reading end of that pipe,
 * and one posted call. python/loop_ctypes.py and lua/loop.lua do the same in
 * languages that have callbacks from C only at a price, or not at all.
 */

#define _GNU_SOURCE /* pipe2 */

#include "must.h"

#include <errno.h>
#include <evloop.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { EVENTS = 8 };

int main(void)
{
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */
  int ends[2];
  must_sys(pipe2(ends, O_CLOEXEC | O_NONBLOCK), "pipe2");

  /* NULL in place of a callback: the event goes to evloop_wait(). */
  evloop_t loop = must(evloop_create(NULL));
  evloop_watcher_t timer =
      must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 50000000,
                            50000000, 0, NULL, NULL));
  evloop_watcher_t reader =
      must(evloop_add_io(loop, ends[0], EVLOOP_EPOLLIN, NULL, NULL));
  /* Usually another thread does this. A posted call has no watcher: what is
   * given as user_data says what it is about. */
  must(evloop_post(loop, NULL, (void *)(uintptr_t)42));

  /* 0 events, without a timeout and a stop: nothing is left to wait for. */
  evloop_event_t events[EVENTS];
  uint64_t ticks = 0;
  int n;
  while ((n = (int)must(evloop_wait(loop, events, EVENTS, -1))) > 0) {
    for (int i = 0; i < n; i++) {
      const evloop_event_t *e = &events[i];

      if (e->events & EVLOOP_ERROR) {
        fprintf(stderr, "%s\n", evloop_strerror(e->result));
        return 1;

      } else if (e->type == EVLOOP_EVENT_POST) {
        printf("posted: %" PRIu64 "\n", e->data);

      } else if (e->watcher == timer) {
        char text[32];
        ticks += e->count;
        int length = snprintf(text, sizeof text, "tick %" PRIu64, ticks);
        printf("timer: %" PRIu64 " new, %" PRIu64 " in all\n", e->count,
               ticks);
        must_sys(write(ends[1], text, (size_t)length), "write");
        if (ticks >= 3) {
          must(evloop_watcher_close(timer, 0));
          close(ends[1]);
        }

      } else if (e->watcher == reader) {
        char text[256];
        ssize_t length = read(ends[0], text, sizeof text);
        if (length < 0 && (errno == EAGAIN || errno == EINTR))
          continue;
        if (must_sys(length, "read") > 0) {
          printf("pipe: %.*s\n", (int)length, text);
        } else {
          printf("pipe: closed\n");
          must(evloop_watcher_close(reader, 0)); /* before close() */
          close(ends[0]);
        }
      }
    }
  }

  printf("nothing is left to wait for\n");
  must(evloop_close(loop));
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
