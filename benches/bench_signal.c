/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* W9, signals: the time from just before kill(2) to the callback, on one
 * thread whose loop is awake. */

#define _GNU_SOURCE

#include "bench.h"

#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

static pid_t self;
static int64_t sent_at;
static double *delays;
static int samples, taken;

static void send_signal(void)
{
  sent_at = now_ns();
  check("kill", kill(self, SIGUSR1));
}

static void seen(void)
{
  delays[taken++] = (double)(now_ns() - sent_at) / 1e3;
}

static void begin(const void *parameters)
{
  samples = *(const int *)parameters;
  taken = 0;
  self = getpid();
  delays = calloc((size_t)samples, sizeof *delays);
  if (delays == NULL)
    die("no memory");
}

static void end(double *out)
{
  expect("signals", taken, samples);
  out[0] = percentile(delays, samples, 50);
  out[1] = percentile(delays, samples, 99);
  free(delays);
}

static void set_blocked(int how)
{
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  check("sigprocmask", sigprocmask(how, &set, NULL));
}

static void install(void (*handler)(int))
{
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  check("sigaction", sigaction(SIGUSR1, &action, NULL));
}

/* ---- raw ---- */

static int open_epoll(int fd)
{
  struct epoll_event event = {.events = EPOLLIN};
  int epoll = check("epoll_create1", epoll_create1(EPOLL_CLOEXEC));
  check("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
  return epoll;
}

static void wait_and_read(int epoll, int fd, size_t size)
{
  struct signalfd_siginfo room;
  struct epoll_event event;
  expect("ready", check("epoll_wait", epoll_wait(epoll, &event, 1, 1000)), 1);
  expect("bytes", read(fd, &room, size), (int64_t)size);
}

static int bell;

static void ring(int number)
{
  (void)number;
  add_one(bell);
}

static void handler_raw(const void *parameters, double *out)
{
  begin(parameters);
  bell = check("eventfd", eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  int epoll = open_epoll(bell);
  install(ring);
  for (int i = 0; i < samples; i++) {
    send_signal();
    wait_and_read(epoll, bell, sizeof(uint64_t));
    seen();
  }
  install(SIG_IGN);
  close(epoll);
  close(bell);
  end(out);
}

static void signalfd_raw(const void *parameters, double *out)
{
  sigset_t set;
  begin(parameters);
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  set_blocked(SIG_BLOCK);
  int fd = check("signalfd", signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  int epoll = open_epoll(fd);
  for (int i = 0; i < samples; i++) {
    send_signal();
    wait_and_read(epoll, fd, sizeof(struct signalfd_siginfo));
    seen();
  }
  close(epoll);
  close(fd);
  set_blocked(SIG_UNBLOCK);
  end(out);
}

/* ---- the library ---- */

static void on_signal(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  seen();
  expect("deliveries", (int64_t)event->count, 1);
  if (taken < samples)
    send_signal();
  else
    must(evloop_watcher_close(event->watcher, 0));
}

static void watch(uint32_t flags)
{
  evloop_t loop = new_loop(0);
  must(evloop_add_signal(loop, SIGUSR1, flags, on_signal, NULL));
  send_signal();
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));
  must(evloop_close(loop));
}

static void handler_evloop(const void *parameters, double *out)
{
  begin(parameters);
  install(SIG_IGN);
  watch(0);
  end(out);
}

static void signalfd_evloop(const void *parameters, double *out)
{
  begin(parameters);
  set_blocked(SIG_BLOCK);
  watch(EVLOOP_SIGNAL_FD);
  set_blocked(SIG_UNBLOCK);
  end(out);
}

void bench_signal(void)
{
  int count = settings.quick ? 20 : 20000;
  if (!wanted("W9"))
    return;
  compare(&(struct work){
      .raw = handler_raw, .evloop = handler_evloop, .parameters = &count,
      .figures = {{"W9 signal to callback, handler, p50", "us", RATIO, 1.1},
                  {"W9 signal to callback, handler, p99", "us", NO_GOAL, 0}}});
  compare(&(struct work){
      .raw = signalfd_raw, .evloop = signalfd_evloop, .parameters = &count,
      .figures = {{"W9 signal to callback, signalfd, p50", "us", RATIO, 1.1},
                  {"W9 signal to callback, signalfd, p99", "us", NO_GOAL, 0}}});
}
