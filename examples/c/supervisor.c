/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A process supervisor: starts commands, and starts them again when they end.
 *
 *   supervisor [-k MILLISECONDS] COMMAND...
 *
 * Each COMMAND is run by sh. One that ends is started again after 0.1 s, then
 * 0.2 s, and so on up to 10 s; if it has run for 10 s it begins with 0.1 s
 * again. SIGHUP ends all of them and starts them again. SIGTERM or SIGINT ends
 * them, and then the supervisor; a second one does not wait for them. To end a
 * command the supervisor sends SIGTERM; if it has not ended after MILLISECONDS,
 * by default 5000, it is killed.
 *
 * There is one watcher for each thing that can happen: a signal, the end of a
 * process, the time to start or to kill one. No SIGCHLD, no waitpid().
 */

#define _GNU_SOURCE

#include "must.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

#define MS INT64_C(1000000)
#define SHORTEST (100 * MS)
#define LONGEST (10000 * MS)

struct service {
  int number;
  char *command;
  pid_t pid;              /* 0: it does not run */
  int64_t started_ns;
  int64_t delay_ns;       /* before it is started the next time */
  bool at_once;           /* the next time it is */
  evloop_watcher_t start; /* timers */
  evloop_watcher_t kill;
};

static evloop_t loop;
static struct service *services;
static int count;
static int64_t patience_ns = 5000 * MS;
static bool stopping;

static void on_end(const evloop_event_t *event, void *user_data);

/* ---- one service ---- */

/* In a process group of its own, so that what it has started itself can be
 * signalled with it. Returns 0 or an error number. */
static int spawn(struct service *s)
{
  char *argv[] = {"sh", "-c", s->command, NULL};
  posix_spawnattr_t how;
  int error = posix_spawnattr_init(&how);
  if (error != 0)
    return error;
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&how, 0);
  error = posix_spawn(&s->pid, "/bin/sh", NULL, &how, argv, environ);
  posix_spawnattr_destroy(&how);
  return error;
}

static void start_later(struct service *s)
{
  printf("%d: again in %.1f s\n", s->number, (double)s->delay_ns / 1e9);
  must(evloop_timer_set(s->start, 0, s->delay_ns, 0));
  s->delay_ns = s->delay_ns < LONGEST / 2 ? 2 * s->delay_ns : LONGEST;
}

static void start(struct service *s)
{
  int error = spawn(s);
  if (error != 0) {
    s->pid = 0;
    printf("%d: not started: %s\n", s->number, strerror(error));
    start_later(s);
    return;
  }
  /* Its zombie, and so its number, stays until the library takes its status:
   * just before on_end() is called. So it can have ended by now. */
  int64_t watcher =
      evloop_add_process(loop, s->pid, EVLOOP_PROCESS_REAP, on_end, s);
  if (watcher < 0) { /* no descriptor is left, perhaps */
    printf("%d: not watched: %s\n", s->number, evloop_strerror((int)watcher));
    kill(-s->pid, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
    start_later(s);
    return;
  }
  s->started_ns = must(evloop_now_ns(loop));
  printf("%d: started, pid %d\n", s->number, (int)s->pid);
}

/* Asks it to end; kills it if it has not by the deadline. */
static void end(struct service *s)
{
  if (s->pid == 0)
    return;
  kill(-s->pid, SIGTERM);
  must(evloop_timer_set(s->kill, 0, patience_ns, 0));
}

static void say_how(const struct service *s, const evloop_process_t *process)
{
  switch (process->how) {
  case EVLOOP_PROCESS_EXITED:
    printf("%d: exit status %d\n", s->number, process->status);
    break;
  case EVLOOP_PROCESS_KILLED:
  case EVLOOP_PROCESS_DUMPED:
    printf("%d: ended by signal %d\n", s->number, process->status);
    break;
  default: /* other code has waited for it */
    printf("%d: ended\n", s->number);
  }
}

static void on_end(const evloop_event_t *event, void *user_data)
{
  struct service *s = user_data;
  evloop_process_t process;
  must(evloop_event_process(event, &process));
  must(evloop_watcher_close(event->watcher, 0));
  must(evloop_timer_set(s->kill, 0, -1, 0));
  say_how(s, &process);
  kill(-s->pid, SIGKILL); /* what it has left behind in its group */
  s->pid = 0;
  if (stopping)
    return;
  if (must(evloop_now_ns(loop)) - s->started_ns >= LONGEST)
    s->delay_ns = SHORTEST;
  if (s->at_once)
    start(s);
  else
    start_later(s);
  s->at_once = false;
}

static void on_start(const evloop_event_t *event, void *user_data)
{
  (void)event;
  start(user_data);
}

static void on_kill(const evloop_event_t *event, void *user_data)
{
  struct service *s = user_data;
  (void)event;
  printf("%d: does not end, killed\n", s->number);
  kill(-s->pid, SIGKILL);
}

/* ---- all of them ---- */

static void on_hangup(const evloop_event_t *event, void *user_data)
{
  (void)event, (void)user_data;
  if (stopping)
    return;
  printf("restarting all\n");
  for (int i = 0; i < count; i++) {
    struct service *s = &services[i];
    s->delay_ns = SHORTEST;
    s->at_once = s->pid != 0;
    if (s->pid != 0)
      end(s);
    else
      must(evloop_timer_set(s->start, 0, 0, 0));
  }
}

static void on_stop(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  evloop_siginfo_t info;
  must(evloop_event_siginfo(event, &info));
  /* Several may have come before the loop looked. */
  bool at_once = stopping || event->count > 1;
  printf("%s, signal %d from pid %d\n", at_once ? "killing" : "stopping",
         info.signo, info.pid);
  stopping = true;
  for (int i = 0; i < count; i++) {
    must(evloop_timer_set(services[i].start, 0, -1, 0));
    end(&services[i]);
    if (at_once && services[i].pid != 0)
      kill(-services[i].pid, SIGKILL);
  }
  /* The loop ends by itself with the last of them: see watch_signal(). */
}

static void nothing(int number)
{
  (void)number;
}

static void watch_signal(int number, evloop_callback_t callback)
{
  /* By default these end the process, and a watcher does not change what a
   * signal does. So they get a handler. (Ignored, they would be ignored in
   * the commands, too.) */
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = nothing;
  action.sa_flags = SA_RESTART;
  must_sys(sigaction(number, &action, NULL), "sigaction");
  int64_t watcher = must(evloop_add_signal(loop, number, 0, callback, NULL));
  /* It is no reason for the loop to go on. */
  must(evloop_watcher_unref(watcher));
}

static int64_t timer(evloop_callback_t callback, struct service *s)
{
  /* Not set yet; and only a timer that is set keeps the loop alive. */
  return must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0, 0,
                               callback, s));
}

static int usage(const char *name)
{
  fprintf(stderr, "usage: %s [-k MILLISECONDS] COMMAND...\n", name);
  return 2;
}

int main(int argc, char **argv)
{
  int first = 1;
  if (argc > 2 && strcmp(argv[1], "-k") == 0) {
    char *rest;
    long ms = strtol(argv[2], &rest, 10);
    if (*rest != '\0' || ms < 0 || ms > 3600000)
      return usage(argv[0]);
    patience_ns = ms * MS;
    first = 3;
  }
  count = argc - first;
  if (count < 1 || argv[first][0] == '-')
    return usage(argv[0]);
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  loop = must(evloop_create(NULL));
  watch_signal(SIGTERM, on_stop);
  watch_signal(SIGINT, on_stop);
  watch_signal(SIGHUP, on_hangup);

  services = calloc((size_t)count, sizeof *services);
  if (services == NULL)
    return 1;
  for (int i = 0; i < count; i++) {
    struct service *s = &services[i];
    s->number = i + 1;
    s->command = argv[first + i];
    s->delay_ns = SHORTEST;
    s->start = timer(on_start, s);
    s->kill = timer(on_kill, s);
    start(s);
  }

  /* Until no process runs and none is to be started. */
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));

  printf("all have ended\n");
  must(evloop_close(loop)); /* and all its watchers */
  free(services);
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
