/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* W8, kqueues: the chain of W1 through kevent, also against a program that
 * asks the kernel for all that a kqueue's event says; a user event that is
 * triggered and collected; a change and a look; a great many timers. */

#define _GNU_SOURCE

#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

static long turns;

/* ---- a user event ---- */

static void user_raw(const void *parameters, double *out)
{
  struct epoll_event ready, event = {.events = EPOLLIN};
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  int fd = check("eventfd", eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  uint64_t value = 1;
  (void)parameters;
  check("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
  int64_t began = now_ns();
  for (long i = 0; i < turns; i++) {
    value = 1;
    if (write(fd, &value, sizeof value) != sizeof value)
      die("write to an eventfd: %s", strerror(errno));
    expect("eventfds that are ready", epoll_wait(epoll, &ready, 1, -1), 1);
    if (read(fd, &value, sizeof value) != sizeof value)
      die("read of an eventfd: %s", strerror(errno));
  }
  out[0] = (double)(now_ns() - began) / (double)turns;
  close(fd);
  close(epoll);
}

static void user_kqueue(const void *parameters, double *out)
{
  evloop_kqueue_t kq = must(evloop_kqueue_create(0));
  evloop_kevent_t event;
  (void)parameters;
  change_kqueue(kq, 1, EVLOOP_KQ_FILTER_USER, EVLOOP_KQ_EV_ADD | EVLOOP_KQ_EV_CLEAR,
                0, 0, 0);
  int64_t began = now_ns();
  for (long i = 0; i < turns; i++) {
    change_kqueue(kq, 1, EVLOOP_KQ_FILTER_USER, 0, EVLOOP_KQ_NOTE_TRIGGER, 0, 0);
    expect("user events", must(evloop_kqueue_control(kq, NULL, 0, &event, 1, -1)), 1);
  }
  out[0] = (double)(now_ns() - began) / (double)turns;
  expect("user events in the end",
         must(evloop_kqueue_control(kq, NULL, 0, &event, 1, 0)), 0);
  must(evloop_kqueue_close(kq));
}

/* ---- a change, and a look ---- */

static void change_raw(const void *parameters, double *out)
{
  struct epoll_event ready, event = {.events = EPOLLIN};
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  int *fds = open_eventfds(1, 0);
  (void)parameters;
  int64_t began = now_ns();
  for (long i = 0; i < turns; i++) {
    int operation = i % 2 == 0 ? EPOLL_CTL_ADD : EPOLL_CTL_DEL;
    check("epoll_ctl", epoll_ctl(epoll, operation, fds[0], &event));
    expect("events of what is quiet", epoll_wait(epoll, &ready, 1, 0), 0);
  }
  out[0] = (double)(now_ns() - began) / (double)turns;
  close_all(fds, 1);
  close(epoll);
}

static void change_and_look(const void *parameters, double *out)
{
  evloop_kqueue_t kq = must(evloop_kqueue_create(0));
  evloop_kevent_t event, change = {.filter = EVLOOP_KQ_FILTER_READ};
  int *fds = open_eventfds(1, 0);
  (void)parameters;
  change.ident = (uint64_t)fds[0];
  int64_t began = now_ns();
  for (long i = 0; i < turns; i++) {
    change.flags = i % 2 == 0 ? EVLOOP_KQ_EV_ADD : EVLOOP_KQ_EV_DELETE;
    expect("events of what is quiet",
           must(evloop_kqueue_control(kq, &change, 1, &event, 1, 0)), 0);
  }
  out[0] = (double)(now_ns() - began) / (double)turns;
  close_all(fds, 1);
  must(evloop_kqueue_close(kq));
}

/* ---- timers ---- */

static void many_timers(const void *parameters, double *out)
{
  enum { MINUTE_S = 60, PASSES = 4 };
  long n = *(const long *)parameters;
  evloop_kqueue_t kq = must(evloop_kqueue_create(0));
  evloop_kevent_t event;
  int64_t times[2] = {0, 0};
  for (int pass = 0; pass <= PASSES; pass++) {
    int64_t began = now_ns();
    for (long i = 0; i < n; i++)
      change_kqueue(kq, (uint64_t)i, EVLOOP_KQ_FILTER_TIMER, EVLOOP_KQ_EV_ADD,
                    EVLOOP_KQ_NOTE_SECONDS, MINUTE_S, 0);
    times[pass > 0] += now_ns() - began;
    if (times[0] + times[1] < (int64_t)MINUTE_S * SECOND)
      expect("timers of a minute that expired",
             must(evloop_kqueue_control(kq, NULL, 0, &event, 1, 0)), 0);
  }
  out[0] = (double)times[0] / (double)n;
  out[1] = (double)times[1] / ((double)n * PASSES);
  must(evloop_kqueue_close(kq));
}

void bench_kqueue(void)
{
  static const struct chain chains[] = {{1000, 1, 0}, {1000, 100, 0}};
  static const long counts[] = {10000, 1000000};
  static const struct work works[] = {
      {.raw = user_raw,
       .evloop = user_kqueue,
       .figures = {{"W8 user event, triggered and collected", "ns", RATIO, 1.2}}},
      {.raw = change_raw,
       .evloop = change_and_look,
       .figures = {{"W8 a change and a look", "ns", RATIO, 1.2}}}};
  if (!wanted("W8"))
    return;
  turns = settings.quick ? 1000 : 200000;
  chain_open(1000);
  for (int i = 0; i < 2; i++) {
    struct chain chain = chains[i];
    chain.events = settings.quick ? 5000 : 200000;
    struct work work = {.raw = chain_raw,
                        .evloop = chain_kqueue,
                        .parameters = &chain,
                        .figures = {{"", "ns/event", RATIO, 1.2}}};
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W8 chain %d/%d through kevent", chain.pipes, chain.active);
    compare(&work);
    work.evloop = chain_trusting_kqueue;
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W8 chain %d/%d, EVLOOP_KQ_TRUST_FDS", chain.pipes, chain.active);
    compare(&work);
    work.evloop = chain_kqueue;
    work.raw = chain_raw_as_kqueue;
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W8 chain %d/%d, raw asks the same", chain.pipes, chain.active);
    compare(&work);
  }
  chain_close();
  for (int i = 0; i < 2; i++)
    compare(&works[i]);
  for (int i = 0; i < (settings.quick ? 1 : 2); i++) {
    struct work work = {
        .evloop = many_timers,
        .parameters = &counts[i],
        .rounds = 3,
        .figures = {{"", "ns/timer", NO_GOAL, 0}, {"", "ns/call", NO_GOAL, 0}}};
    snprintf(work.figures[0].name, sizeof work.figures[0].name,
             "W8 timers, added, %ld", counts[i]);
    snprintf(work.figures[1].name, sizeof work.figures[1].name,
             "W8 timers, set again, %ld", counts[i]);
    compare(&work);
  }
}
