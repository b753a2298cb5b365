/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * supervise FILE COMMAND [ARGUMENT...]
 *
 * Runs a command for as long as this program runs: starts it again, a moment
 * later, when it ends; sends it SIGHUP when FILE, its configuration, is
 * changed or replaced; answers lines on standard input; and ends the command
 * and itself at SIGTERM, SIGINT or the end of the input.
 *
 * It is written for FreeBSD: one kqueue, and no signal handler, loop or
 * polling beside it. On Linux it is built as it is, against libevloop's
 * <sys/event.h> (see the README).
 */

#include <sys/types.h>
#include <sys/event.h>
#include <sys/time.h>
#include <sys/wait.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { RESTART = 1, REOPEN = 2 };  /* the timers' idents */
enum { PAUSE_MS = 200 };

static int kq;
static const char *file;
static char **command;
static int file_fd = -1;
static pid_t child;
static int starts, ending;

static void fail(const char *what)
{
  perror(what);
  exit(1);
}

static void say(const char *text, long number)
{
  printf("%s %ld\n", text, number);
  fflush(stdout);
}

/* One change; its failure ends the program. */
static void change(uintptr_t ident, short filter, unsigned short flags,
                   unsigned int fflags, intptr_t data)
{
  struct kevent event;
  EV_SET(&event, ident, filter, flags, fflags, data, NULL);
  if (kevent(kq, &event, 1, NULL, 0, NULL) < 0)
    fail("kevent");
}

static void start(void)
{
  if ((child = fork()) < 0)
    fail("fork");
  if (child == 0) {
    /* What was ignored stays so in a program that is executed. */
    signal(SIGTERM, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    execvp(command[0], command);
    perror(command[0]);
    _exit(127);
  }
  starts++;
  say("started", child);
  /* It may have ended by now: then the event comes at once. */
  change((uintptr_t)child, EVFILT_PROC, EV_ADD | EV_ONESHOT, NOTE_EXIT, 0);
}

static void ended(const struct kevent *event)
{
  int status;
  waitpid(child, &status, 0);
  child = 0;
  say("ended with", WIFEXITED((int)event->data) ? WEXITSTATUS((int)event->data)
                                                : -WTERMSIG((int)event->data));
  if (ending)
    exit(0);
  change(RESTART, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, PAUSE_MS);
}

/* Follows the file by its name: editors put another one in its place. */
static void watch_file(void)
{
  if (file_fd >= 0)
    close(file_fd); /* and with it goes what was watched */
  file_fd = open(file, O_RDONLY | O_CLOEXEC);
  if (file_fd < 0) {
    if (errno != ENOENT)
      fail(file);
    change(REOPEN, EVFILT_TIMER, EV_ADD | EV_ONESHOT, 0, PAUSE_MS);
    return;
  }
  change((uintptr_t)file_fd, EVFILT_VNODE, EV_ADD | EV_CLEAR,
         NOTE_WRITE | NOTE_EXTEND | NOTE_DELETE | NOTE_RENAME, 0);
}

static void changed(const struct kevent *event)
{
  if (event->fflags & (NOTE_DELETE | NOTE_RENAME))
    watch_file();
  if (child > 0)
    kill(child, SIGHUP);
  say("notified of a change", child);
}

static void timer(const struct kevent *event)
{
  if (event->ident == REOPEN)
    watch_file();
  else
    start();
}

static void end(void)
{
  ending = 1;
  if (child > 0)
    kill(child, SIGTERM);
  else
    exit(0);
}

static void answer(const struct kevent *event)
{
  char line[256];
  ssize_t n = read(STDIN_FILENO, line, sizeof line - 1);
  if (n <= 0 && (event->flags & EV_EOF)) {
    change(STDIN_FILENO, EVFILT_READ, EV_DELETE, 0, 0);
    end();
    return;
  }
  if (n > 0) {
    line[n] = '\0';
    if (strncmp(line, "status", 6) == 0)
      say(child > 0 ? "running, starts:" : "waiting, starts:", starts);
  }
}

int main(int argc, char **argv)
{
  struct kevent events[8];
  int i, n;

  if (argc < 3) {
    fprintf(stderr, "usage: supervise FILE COMMAND [ARGUMENT...]\n");
    return 2;
  }
  file = argv[1];
  command = argv + 2;
  if ((kq = kqueue()) < 0)
    fail("kqueue");

  /* Counted by the queue, and otherwise without effect. */
  signal(SIGTERM, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  change(SIGTERM, EVFILT_SIGNAL, EV_ADD, 0, 0);
  change(SIGINT, EVFILT_SIGNAL, EV_ADD, 0, 0);
  change(STDIN_FILENO, EVFILT_READ, EV_ADD, 0, 0);
  watch_file();
  start();

  for (;;) {
    if ((n = kevent(kq, NULL, 0, events, 8, NULL)) < 0) {
      if (errno == EINTR)
        continue;
      fail("kevent");
    }
    for (i = 0; i < n; i++) {
      switch (events[i].filter) {
      case EVFILT_PROC: ended(&events[i]); break;
      case EVFILT_TIMER: timer(&events[i]); break;
      case EVFILT_VNODE: changed(&events[i]); break;
      case EVFILT_READ: answer(&events[i]); break;
      case EVFILT_SIGNAL: end(); break;
      }
    }
  }
}
