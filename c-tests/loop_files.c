/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "loop_files.h"

char home[64];

int remove_one(const char *path, const struct stat *st, int kind, struct FTW *place) {
  (void)st;
  (void)kind;
  (void)place;
  return remove(path);
}

void leave_home(void) {
  if (chdir("/") < 0 || nftw(home, remove_one, 3, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0) {
    perror(home);
  }
}

void enter_home(void) {
  snprintf(home, sizeof home, "/tmp/evloop-files-XXXXXX");
  CHECK(mkdtemp(home) != NULL);
  OK(chdir(home));
  CHECK_EQ(atexit(leave_home), 0);
}

int open_file(const char *name, int flags) {
  return (int)OK(open(name, flags | O_CLOEXEC, 0644));
}

void make_file(const char *name) {
  OK(close(open_file(name, O_WRONLY | O_CREAT)));
}

void make_dir(const char *name) {
  OK(mkdir(name, 0755));
}

void write_down(const evloop_event_t *event, char *text, size_t cap) {
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

void hear(const evloop_event_t *event, void *user_data) {
  Ear *ear = (Ear *)user_data;
  write_down(event, ear->text, sizeof ear->text);
}

evloop_watcher_t listen_to(Ear *ear, const char *path, uint32_t mask, uint32_t flags) {
  if (ear->loop == 0) ear->loop = new_loop();
  return OK(evloop_add_file(ear->loop, path, mask, flags, hear, ear));
}

void check_heard(const char *file, int line, Ear *ear, const char *expected) {
  while (strlen(ear->text) < strlen(expected)) OK(evloop_run(ear->loop, EVLOOP_RUN_ONCE));
  if (strcmp(ear->text, expected) != 0) {
    printf("  %s:%d: failed: delivered '%s', not '%s'\n", file, line, ear->text, expected);
    check_exit();
  }
  ear->text[0] = '\0';
}

Inotify inotify_of_process(void) {
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
