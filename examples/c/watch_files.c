/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Watching a tree of directories, as a build tool does: each change is
 * printed, and when there was none for a moment, the work begins.
 *
 *   watch_files DIRECTORY [QUIET_MS [COMMAND]]
 *
 * Saving one file is easily five changes (a temporary file made, written,
 * closed, renamed over the old one), and a checkout is thousands. To begin at
 * the first would be too early, and once for each too often. So every change
 * pushes a timer back, QUIET_MS into the future (200 if not given), and what
 * is to be done is done when that timer comes to expire: here a line is
 * printed, and COMMAND run.
 *
 * It ends when the directory is gone, or with SIGINT or SIGTERM.
 */

#define _GNU_SOURCE /* sigaction */

#include "must.h"

#include <evloop.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Watch {
  evloop_watcher_t quiet; /* expires when nothing has happened for a while */
  int64_t quiet_ns;
  const char *command;
  int changes;            /* since the last time that it was quiet */
  bool everything;        /* what has changed is not known */
} Watch;

/* ---- what is printed ---- */

/* What happened to an entry, in a word. CLOSE_WRITE and not MODIFY: the writer
 * has written all that it wanted to, and not one buffer of it. */
static const char *word_for(uint32_t events)
{
  switch (events & ~EVLOOP_FILE_ISDIR) {
  case EVLOOP_FILE_CREATE: return "made";
  case EVLOOP_FILE_DELETE: return "deleted";
  case EVLOOP_FILE_CLOSE_WRITE: return "written";
  case EVLOOP_FILE_ATTRIB: return "attributes";
  case EVLOOP_FILE_MOVED_FROM: return "moved out";
  case EVLOOP_FILE_MOVED_TO: return "moved in";
  case EVLOOP_FILE_UNMOUNT: return "unmounted";
  default: return "something else";
  }
}

/* Names may have any bytes in them but NUL, those that a terminal obeys, too:
 * such are printed as question marks. */
static void print_name(const char *name)
{
  for (; *name != '\0'; name++)
    putchar((unsigned char)*name < ' ' || *name == 127 ? '?' : *name);
}

static void print_change(const evloop_event_t *event)
{
  const uint32_t renamed = EVLOOP_FILE_MOVED_FROM | EVLOOP_FILE_MOVED_TO;
  bool is_rename = (event->events & renamed) == renamed;
  char name[PATH_MAX];

  /* The event has no room for names: they are asked for, now. Later, when the
   * loop waits for more, they are gone. */
  must(evloop_event_name(event, name, sizeof name));
  printf("%s: ", is_rename ? "renamed" : word_for(event->events));
  if (is_rename) {
    char old_name[PATH_MAX];
    must(evloop_event_old_name(event, old_name, sizeof old_name));
    print_name(old_name);
    printf(" -> ");
  }
  print_name(name[0] == '\0' ? "." : name);
  printf("%s\n", (event->events & EVLOOP_FILE_ISDIR) ? "/" : "");
}

/* ---- what happens ---- */

static void changed(const evloop_event_t *event, void *user_data)
{
  Watch *watch = user_data;

  if (event->events & EVLOOP_ERROR) {
    /* A directory that could not be watched, because too many are, or
     * because we may not read it. The others still are. */
    char name[PATH_MAX];
    must(evloop_event_name(event, name, sizeof name));
    printf("not watched: ");
    print_name(name);
    printf(": %s\n", evloop_strerror(event->result));
    return;
  }
  if (event->events & EVLOOP_FILE_IGNORED) {
    /* The last event: with its watcher gone, and the timer when it has
     * expired, nothing is left that keeps the loop running. */
    printf("the directory is gone\n");
    must(evloop_watcher_close(event->watcher, 0));
    return;
  }
  if (event->events & EVLOOP_FILE_OVERFLOW) {
    /* We were too slow, and events were lost. A program that keeps a picture
     * of the tree would read it again: from here on all is reported again. */
    printf("too many changes\n");
    watch->everything = true;
  } else {
    print_change(event);
  }
  watch->changes++;
  /* Pushed back again. That costs next to nothing: the timer stays where it
   * is in its queue, and is looked at when its old time has come. */
  must(evloop_timer_set(watch->quiet, 0, watch->quiet_ns, 0));
}

/* Nothing has happened for a while. */
static void calm(const evloop_event_t *event, void *user_data)
{
  Watch *watch = user_data;
  (void)event;
  if (watch->everything)
    printf("quiet: everything may have changed\n");
  else
    printf("quiet: %d change%s\n", watch->changes,
           watch->changes == 1 ? "" : "s");
  watch->changes = 0;
  watch->everything = false;
  /* A real tool would not wait for it here, where nothing else can happen
   * until it ends, but start it and watch for its end. What it changes in the
   * tree is reported afterwards; a build is best kept elsewhere. */
  if (watch->command != NULL && system(watch->command) != 0)
    printf("%s has failed\n", watch->command);
}

/* ---- the program ---- */

static evloop_t loop;

/* A signal handler may call this, and few other functions. */
static void stop(int number)
{
  (void)number;
  evloop_stop(loop);
}

static void stop_at_signals(void)
{
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = stop;
  sigemptyset(&action.sa_mask);
  must_sys(sigaction(SIGINT, &action, NULL), "sigaction");
  must_sys(sigaction(SIGTERM, &action, NULL), "sigaction");
}

static int usage(void)
{
  fprintf(stderr, "usage: watch_files DIRECTORY [QUIET_MS [COMMAND]]\n");
  return 2;
}

int main(int argc, char **argv)
{
  long quiet_ms = 200;
  if (argc < 2 || argc > 4)
    return usage();
  if (argc > 2) {
    char *end;
    quiet_ms = strtol(argv[2], &end, 10);
    if (end == argv[2] || *end != '\0' || quiet_ms < 1 || quiet_ms > 3600000)
      return usage();
  }
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  Watch watch = {0};
  watch.quiet_ns = quiet_ms * INT64_C(1000000);
  watch.command = argc > 3 ? argv[3] : NULL;

  loop = must(evloop_create(NULL));
  stop_at_signals();
  /* Not set yet: the first change does that. */
  watch.quiet = must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0,
                                      0, calm, &watch));
  must(evloop_add_file(loop, argv[1],
                       EVLOOP_FILE_CREATE | EVLOOP_FILE_DELETE |
                           EVLOOP_FILE_MOVED_FROM | EVLOOP_FILE_MOVED_TO |
                           EVLOOP_FILE_CLOSE_WRITE | EVLOOP_FILE_ATTRIB,
                       EVLOOP_FILE_RECURSIVE, changed, &watch));
  /* What is in the tree by now a program that needs to know reads here, after
   * it began to watch: so nothing can come between. */
  printf("watching %s\n", argv[1]);
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));

  must(evloop_close(loop)); /* and its watchers */
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
