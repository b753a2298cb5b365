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

static char home[64];

static inline int remove_one(const char *path, const struct stat *st, int kind, struct FTW *place) {
  (void)st;
  (void)kind;
  (void)place;
  return remove(path);
}

/* Without a command: some cases have no descriptors left for one. */
static inline void leave_home(void) {
  if (chdir("/") < 0 || nftw(home, remove_one, 3, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0) {
    perror(home);
  }
}

/* A directory of the case's own is the current one. */
MAYBE_UNUSED static void enter_home(void) {
  snprintf(home, sizeof home, "/tmp/evloop-files-XXXXXX");
  CHECK(mkdtemp(home) != NULL);
  OK(chdir(home));
  CHECK_EQ(atexit(leave_home), 0);
}

MAYBE_UNUSED static int open_file(const char *name, int flags) {
  return (int)OK(open(name, flags | O_CLOEXEC, 0644));
}

MAYBE_UNUSED static void make_file(const char *name) {
  OK(close(open_file(name, O_WRONLY | O_CREAT)));
}

MAYBE_UNUSED static void make_dir(const char *name) {
  OK(mkdir(name, 0755));
}

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
static inline void write_down(const evloop_event_t *event, char *text, size_t cap) {
  char name[4096], old[4096];
  size_t used = strlen(text);
  int64_t name_len, old_len;
  CHECK_EQ(event->type, EVLOOP_EVENT_FILE);
  CHECK_EQ(event->fd, -1);
  CHECK_EQ(event->count, 1);
  name_len = OK(evloop_event_name(event, name, sizeof name));
  old_len = OK(evloop_event_old_name(event, old, sizeof old));
  CHECK_EQ(name_len, strlen(name));
  CHECK_EQ(old_len, strlen(old));
  CHECK_EQ(event->result != 0, event->events == EVLOOP_ERROR);
  CHECK(snprintf(text + used, cap - used, "%s%s%s%s%s", used > 0 ? " " : "", old,
                 sign_of(event->events), name,
                 (event->events & FILE_(ISDIR)) != 0 ? "/" : "") < (int)(cap - used));
}

MAYBE_UNUSED static void hear(const evloop_event_t *event, void *user_data) {
  Ear *ear = (Ear *)user_data;
  write_down(event, ear->text, sizeof ear->text);
}

MAYBE_UNUSED static evloop_watcher_t listen_to(Ear *ear, const char *path, uint32_t mask,
                                               uint32_t flags) {
  if (ear->loop == 0) ear->loop = new_loop();
  return OK(evloop_add_file(ear->loop, path, mask, flags, hear, ear));
}

/* The loop delivers these events, in this order, and none before or between. */
#define HEARD(ear, expected) check_heard(__FILE__, __LINE__, ear, expected)

MAYBE_UNUSED static void check_heard(const char *file, int line, Ear *ear, const char *expected) {
  while (strlen(ear->text) < strlen(expected)) OK(evloop_run(ear->loop, EVLOOP_RUN_ONCE));
  if (strcmp(ear->text, expected) != 0) {
    printf("  %s:%d: failed: delivered '%s', not '%s'\n", file, line, ear->text, expected);
    check_exit();
  }
  ear->text[0] = '\0';
}

/* What inotify has for a loop, as the kernel says: the masks of its watches,
 * added up, and how many there are. */
typedef struct Inotify {
  int fd;      /* -1: there is none */
  int watches;
  unsigned mask;
} Inotify;

MAYBE_UNUSED static Inotify inotify_of_process(void) {
  Inotify found = {-1, 0, 0};
  char path[64], target[64], line[256];
  int fd;
  for (fd = 0; fd < 64; fd++) {
    ssize_t len;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    len = readlink(path, target, sizeof target - 1);
    if (len < 0) continue;
    target[len] = '\0';
    if (strcmp(target, "anon_inode:inotify") != 0) continue;
    CHECK_EQ(found.fd, -1); /* one for a loop */
    found.fd = fd;
  }
  if (found.fd < 0) return found;
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", found.fd);
  FILE *info = fopen(path, "re");
  CHECK(info != NULL);
  while (fgets(line, sizeof line, info) != NULL) {
    unsigned mask;
    const char *at = strstr(line, " mask:");
    if (strncmp(line, "inotify ", 8) != 0 || at == NULL) continue;
    CHECK_EQ(sscanf(at, " mask:%x", &mask), 1);
    found.watches++;
    found.mask |= mask & 0xfff;
  }
  fclose(info);
  return found;
}

#endif
