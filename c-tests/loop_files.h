/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of file watchers share: a directory of the case's own, and
 * callbacks that record their events as text. */
#ifndef LOOP_FILES_H
#define LOOP_FILES_H

#include "loop_support.h"

#include <fcntl.h>
#include <ftw.h>
#include <sys/stat.h>

#define FILE_(name) EVLOOP_FILE_##name
#define ENTRIES (FILE_(CREATE) | FILE_(DELETE) | FILE_(MOVED_FROM) | FILE_(MOVED_TO))
#define TREE EVLOOP_FILE_RECURSIVE

/* ---- files ---- */

extern char home[64];

int remove_one(const char *path, const struct stat *st, int kind, struct FTW *place);

/* Without a command: some cases have no descriptors left for one. */
void leave_home(void);

/* A directory of the case's own is the current one. */
void enter_home(void);
int open_file(const char *name, int flags);
void make_file(const char *name);
void make_dir(const char *name);

/* ---- the events of a loop, as text ---- */

/* A sign for what happened, and the name: "+made -deleted old=>new". */
typedef struct Ear {
  evloop_t loop;
  char text[8192];
} Ear;

static inline const char *sign_of(uint32_t events) {
  switch (events & ~FILE_(ISDIR)) {
    case FILE_(CREATE): return "+";
    case FILE_(DELETE): return "-";
    case FILE_(MOVED_FROM): return "<";
    case FILE_(MOVED_TO): return ">";
    case FILE_(MOVED_FROM) | FILE_(MOVED_TO): return "=>";
    case FILE_(ACCESS): return "r";
    case FILE_(MODIFY): return "~";
    case FILE_(ATTRIB): return "a";
    case FILE_(OPEN): return "o";
    case FILE_(CLOSE_WRITE): return "w";
    case FILE_(CLOSE_NOWRITE): return "c";
    case FILE_(DELETE_SELF): return "D";
    case FILE_(MOVE_SELF): return "M";
    case FILE_(UNMOUNT): return "U";
    case FILE_(OVERFLOW): return "?";
    case FILE_(IGNORED): return "!";
    case FILE_(REPLACED): return "R";
    case FILE_(GONE): return "G";
    case EVLOOP_ERROR: return "E";
    default: return "unknown:";
  }
}

/* Adds the words of an event to a text. */
void write_down(const evloop_event_t *event, char *text, size_t cap);
void hear(const evloop_event_t *event, void *user_data);
evloop_watcher_t listen_to(Ear *ear, const char *path, uint32_t mask, uint32_t flags);

/* The loop delivers these events, in this order, and none before or between. */
#define HEARD(ear, expected) check_heard(__FILE__, __LINE__, ear, expected)

void check_heard(const char *file, int line, Ear *ear, const char *expected);

/* What inotify has for a loop, as the kernel says: the masks of its watches,
 * added up, and how many there are. */
typedef struct Inotify {
  int fd;      /* -1: there is none */
  int watches;
  unsigned mask;
} Inotify;

Inotify inotify_of_process(void);

#endif
