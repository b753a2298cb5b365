/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The other side of the comparison in calls.c and bench_call.c: the same
 * calls on a pointer to a plain struct, with no check of any kind, in a shared
 * library of its own, because the library's calls cross such a boundary too.
 */

#ifndef BARE_H
#define BARE_H

#include <stdint.h>

struct bare {
  int fd;
  int kind;
};

struct bare *bare_timer(void);
struct bare *bare_epoll(void);
int bare_fileno(const struct bare *b);
int bare_kind(const struct bare *b);
int bare_gettime_ns(const struct bare *b, int64_t *out_initial_ns,
                    int64_t *out_interval_ns);
int bare_settime_ns(const struct bare *b, int64_t initial_ns,
                    int64_t interval_ns);
int bare_register(const struct bare *b, int fd, uint32_t events,
                  uint64_t data);
int bare_unregister(const struct bare *b, int fd);
int bare_wait(const struct bare *b);
int bare_poll(int fd);
int bare_select(int fd);

/* A watcher of a loop, as a pointer: for bench_call.c. */
struct bare_watcher {
  const struct bare_loop *loop;
  uint64_t data;
  int64_t deadline_ns, interval_ns;
  int priority, enabled, keeps_alive;
};

struct bare_loop {
  int64_t now_ns;
};

struct bare_watcher *bare_watcher(void);
int64_t bare_loop_of(const struct bare_watcher *w);
int bare_set_data(struct bare_watcher *w, uint64_t data);
int bare_set_priority(struct bare_watcher *w, int priority);
int bare_enable(struct bare_watcher *w);
int bare_unref(struct bare_watcher *w);
int bare_again(struct bare_watcher *w);

#endif
