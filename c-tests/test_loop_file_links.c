/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchers of files in directories that another user may rename: whatever a
 * path leads to from one moment to the next, nothing outside of a tree is
 * read, reported or watched. */

#define _GNU_SOURCE
#include "loop_files.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

enum { RACES = 2000, NAMES = 50, LINKS = 30 };

/*
 * owned/           belongs to the attacker, who exchanges the next two:
 *   way/             a directory
 *     tree/            where directories are made
 *   link             a symbolic link, by many others, to outside/
 * outside/
 *   tree/0..49/secret  the same names, and what may not be read
 */

static int owned; /* a descriptor of it */

static int exchange(void) {
  return (int)syscall(SYS_renameat2, owned, "way", owned, "link", RENAME_EXCHANGE);
}

/* A path that takes the kernel long to follow. */
static void make_long_way(void) {
  char target[3800], name[32], last[32];
  int i, used;
  for (i = 0; i < LINKS; i++) {
    snprintf(name, sizeof name, i == 0 ? "owned/link" : "owned/%d", i);
    snprintf(last, sizeof last, i + 1 < LINKS ? "%d" : "../outside", i + 1);
    for (used = 0; used < (int)sizeof target - 40; used += 2) memcpy(target + used, "./", 2);
    strcpy(target + used, last);
    OK(symlink(target, name));
  }
}

static ino_t outside_inodes[NAMES + 1];

static void note_outside(int place, const char *path) {
  struct stat st;
  OK(stat(path, &st));
  outside_inodes[place] = st.st_ino;
}

static void make_places(void) {
  char name[64];
  int i;
  enter_home();
  make_dir("owned");
  owned = open_file("owned", O_RDONLY | O_DIRECTORY);
  make_dir("owned/way");
  make_dir("owned/way/tree");
  make_dir("outside");
  make_dir("outside/tree");
  note_outside(NAMES, "outside/tree");
  for (i = 0; i < NAMES; i++) {
    snprintf(name, sizeof name, "outside/tree/%d", i);
    make_dir(name);
    note_outside(i, name);
    strcat(name, "/secret");
    make_file(name);
  }
  make_long_way();
  if (exchange() < 0) SKIP("the file system of /tmp cannot exchange: %s", strerror(errno));
  OK(exchange());
}

/* ---- the attacker ---- */

typedef struct Attacker {
  pthread_t thread;
  int pauses, is_paused, stops; /* atomic */
} Attacker;

static void wait_a_moment(uint64_t *seed) {
  struct timespec pause = {0, 1000 + (long)random_below(seed, 40000)};
  nanosleep(&pause, NULL);
}

static void *attack(void *argument) {
  Attacker *attacker = (Attacker *)argument;
  uint64_t seed = 1;
  while (!LOAD(attacker->stops)) {
    if (LOAD(attacker->pauses)) {
      STORE(attacker->is_paused, 1);
      UNTIL(!LOAD(attacker->pauses) || LOAD(attacker->stops));
      STORE(attacker->is_paused, 0);
    }
    OK(exchange());
    wait_a_moment(&seed);
    OK(exchange());
    wait_a_moment(&seed);
  }
  return NULL;
}

/* Then everything is in its place. */
static void pause_attack(Attacker *attacker) {
  STORE(attacker->pauses, 1);
  UNTIL(LOAD(attacker->is_paused));
}

static void resume_attack(Attacker *attacker) {
  STORE(attacker->pauses, 0);
  UNTIL(!LOAD(attacker->is_paused));
}

static void start_attack(Attacker *attacker) {
  memset(attacker, 0, sizeof *attacker);
  attacker->pauses = 1;
  attacker->thread = start_thread(attack, attacker);
  UNTIL(LOAD(attacker->is_paused));
}

static void stop_attack(Attacker *attacker) {
  STORE(attacker->stops, 1);
  join(attacker->thread);
}

/* ---- what may not happen ---- */

static bool is_outside(unsigned long inode) {
  int i;
  for (i = 0; i <= NAMES; i++) {
    if (outside_inodes[i] == inode) return true;
  }
  return false;
}

static int open_inotify_info(void) {
  Inotify inotify = inotify_of_process();
  char path[64];
  CHECK(inotify.fd >= 0);
  snprintf(path, sizeof path, "/proc/self/fdinfo/%d", inotify.fd);
  return open_file(path, O_RDONLY);
}

static void check_nothing_outside_is_watched(void) {
  FILE *info = fdopen(open_inotify_info(), "r");
  char line[256];
  CHECK(info != NULL);
  while (fgets(line, sizeof line, info) != NULL) {
    unsigned long inode;
    if (sscanf(line, "inotify wd:%*x ino:%lx", &inode) == 1) CHECK(!is_outside(inode));
  }
  fclose(info);
}

static bool ended;

static void check_names(const evloop_event_t *event, void *user_data) {
  char name[4096];
  (void)user_data;
  OK(evloop_event_name(event, name, sizeof name));
  CHECK(strstr(name, "secret") == NULL);
  ended |= event->events == FILE_(IGNORED);
}

static int races(void) {
  return RACES / slow_factor();
}

/* ---- races ---- */

/* Directories are made and deleted in the tree, by a descriptor. */
static void race_for_new_directories(const char *watched) {
  Attacker attacker;
  int tree, i;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = -1;
  make_places();
  tree = open_file("owned/way/tree", O_RDONLY | O_DIRECTORY);
  start_attack(&attacker);
  ended = true;
  for (i = 0; i < races(); i++) {
    char name[8];
    if (ended) {
      pause_attack(&attacker);
      if (watcher >= 0) close_watcher(watcher);
      watcher = OK(evloop_add_file(loop, watched, ENTRIES, TREE, check_names, NULL));
      ended = false;
      resume_attack(&attacker);
    }
    snprintf(name, sizeof name, "%d", i % NAMES);
    OK(mkdirat(tree, name, 0755));
    turns(loop, 2);
    OK(unlinkat(tree, name, AT_REMOVEDIR));
    if (i % 20 == 0) check_nothing_outside_is_watched();
  }
  pause_attack(&attacker);
  turns(loop, 3);
  check_nothing_outside_is_watched();
  stop_attack(&attacker);
  OK(close(tree));
  close_loop(loop);
}

TEST_TIMEOUT(a_link_above_a_tree_leads_nowhere, 120) {
  race_for_new_directories("owned/way/tree");
}

TEST_TIMEOUT(a_link_inside_a_tree_leads_nowhere, 120) {
  race_for_new_directories("owned");
}

static ino_t inode_of(const char *path) {
  struct stat st;
  OK(stat(path, &st));
  return st.st_ino;
}

static ino_t watched_inode(void) {
  FILE *info = fdopen(open_inotify_info(), "r");
  char line[256];
  unsigned long inode = 0;
  CHECK(info != NULL);
  while (fgets(line, sizeof line, info) != NULL) sscanf(line, "inotify wd:%*x ino:%lx", &inode);
  fclose(info);
  return inode;
}

/* Whatever its path leads to. */
TEST_TIMEOUT(a_relative_path_is_of_the_current_directory_itself, 120) {
  Attacker attacker;
  int i;
  ino_t tree;
  evloop_t loop = new_loop();
  make_places();
  tree = inode_of("owned/way/tree");
  start_attack(&attacker);
  OK(chdir("owned/way/tree"));
  for (i = 0; i < races(); i++) {
    int64_t watcher;
    resume_attack(&attacker);
    watcher = evloop_add_file(loop, ".", ENTRIES, i % 2 ? TREE : 0, ignore, NULL);
    pause_attack(&attacker);
    if (watcher < 0) {
      CHECK_EQ(watcher, -ENOENT); /* a tree whose path leads elsewhere */
      continue;
    }
    CHECK_EQ(watched_inode(), tree);
    close_watcher(watcher);
  }
  stop_attack(&attacker);
  close_loop(loop);
}

/* What a watch is for becomes less when one of its watchers is closed. */
TEST_TIMEOUT(a_mask_is_changed_of_what_is_watched_and_nothing_else, 120) {
  static const uint32_t flags[] = {0, TREE};
  Attacker attacker;
  int i;
  evloop_t loop = new_loop();
  make_places();
  start_attack(&attacker);
  for (i = 0; i < races(); i++) {
    const char *path = "owned/way/tree";
    evloop_watcher_t stays = OK(evloop_add_file(loop, path, FILE_(CREATE), flags[i % 2], ignore, NULL));
    evloop_watcher_t goes = OK(evloop_add_file(loop, path, FILE_(ALL), 0, ignore, NULL));
    resume_attack(&attacker);
    close_watcher(goes);
    pause_attack(&attacker);
    check_nothing_outside_is_watched();
    CHECK_EQ(inotify_of_process().watches, 1);
    turn(loop);
    close_watcher(stays);
  }
  stop_attack(&attacker);
  close_loop(loop);
}

CHECK_MAIN()
