/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE

#include "bare.h"

#include <errno.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/timerfd.h>
#include <time.h>

enum { SECOND = 1000000000 };

static struct bare timer, epoll;

struct bare *bare_timer(void)
{
  timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  timer.kind = 1;
  return &timer;
}

struct bare *bare_epoll(void)
{
  epoll.fd = epoll_create1(EPOLL_CLOEXEC);
  epoll.kind = 5;
  return &epoll;
}

int bare_fileno(const struct bare *b)
{
  return b->fd;
}

int bare_kind(const struct bare *b)
{
  return b->kind;
}

int bare_gettime_ns(const struct bare *b, int64_t *out_initial_ns,
                    int64_t *out_interval_ns)
{
  struct itimerspec now;
  if (timerfd_gettime(b->fd, &now) < 0)
    return -errno;
  *out_initial_ns = now.it_value.tv_sec * SECOND + now.it_value.tv_nsec;
  *out_interval_ns =
      now.it_interval.tv_sec * SECOND + now.it_interval.tv_nsec;
  return 0;
}

int bare_settime_ns(const struct bare *b, int64_t initial_ns,
                    int64_t interval_ns)
{
  struct itimerspec to = {
      .it_value = {initial_ns / SECOND, initial_ns % SECOND},
      .it_interval = {interval_ns / SECOND, interval_ns % SECOND}};
  return timerfd_settime(b->fd, 0, &to, NULL) < 0 ? -errno : 0;
}

int bare_register(const struct bare *b, int fd, uint32_t events, uint64_t data)
{
  struct epoll_event event = {.events = events, .data = {.u64 = data}};
  return epoll_ctl(b->fd, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int bare_unregister(const struct bare *b, int fd)
{
  return epoll_ctl(b->fd, EPOLL_CTL_DEL, fd, NULL) < 0 ? -errno : 0;
}

int bare_wait(const struct bare *b)
{
  struct epoll_event events[8];
  int n = epoll_wait(b->fd, events, 8, 0);
  return n < 0 ? -errno : n;
}

int bare_poll(int fd)
{
  struct pollfd one = {.fd = fd, .events = POLLIN};
  int n = poll(&one, 1, 0);
  return n < 0 ? -errno : n;
}

int bare_select(int fd)
{
  struct timeval at_once = {0, 0};
  fd_set readable;
  FD_ZERO(&readable);
  FD_SET(fd, &readable);
  int n = select(fd + 1, &readable, NULL, NULL, &at_once);
  return n < 0 ? -errno : n;
}

/* ---- watchers ---- */

static struct bare_loop loop;
static struct bare_watcher watcher = {.loop = &loop, .interval_ns = SECOND};

struct bare_watcher *bare_watcher(void)
{
  return &watcher;
}

int64_t bare_loop_of(const struct bare_watcher *w)
{
  return (int64_t)(intptr_t)w->loop;
}

int bare_set_data(struct bare_watcher *w, uint64_t data)
{
  w->data = data;
  return 0;
}

int bare_set_priority(struct bare_watcher *w, int priority)
{
  w->priority = priority;
  return 0;
}

int bare_enable(struct bare_watcher *w)
{
  w->enabled = 1;
  return 0;
}

int bare_unref(struct bare_watcher *w)
{
  w->keeps_alive = 0;
  return 0;
}

/* The lazy restart: the queue is corrected when the old deadline comes up. */
int bare_again(struct bare_watcher *w)
{
  if (w->interval_ns <= 0)
    return -EINVAL;
  w->deadline_ns = w->loop->now_ns + w->interval_ns;
  return 0;
}
