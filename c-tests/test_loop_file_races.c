/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Trees whose directories changed before the loop looked, which are large, or
 * which are read again while something is short. */

#define _GNU_SOURCE
#include "loop_files.h"

#include <sys/resource.h>

/* ---- names that were overtaken ---- */

/* The new x is read when its p is known under another name still. */
TEST(a_directory_that_moved_into_a_new_one_is_watched_there) {
  Ear ear = {0};
  enter_home();
  make_dir("x");
  make_dir("x/p");
  make_dir("x/p/q");
  listen_to(&ear, ".", ENTRIES, TREE);
  OK(rename("x", "y"));
  make_dir("x");
  OK(rename("y/p", "x/p"));
  OK(rmdir("y"));
  HEARD(&ear, "x=>y/ +x/ +x/p/ <y/p/ +x/p/q/ -y/");
  make_file("x/p/1");
  make_file("x/p/q/2");
  HEARD(&ear, "+x/p/1 +x/p/q/2");
  CHECK_EQ(inotify_of_process().watches, 4);
  close_loop(ear.loop);
}

TEST(what_happened_after_a_rename_has_the_new_name_though_that_is_gone) {
  Ear ear = {0};
  enter_home();
  make_dir("x");
  make_dir("new");
  make_file("x/f");
  make_file("new/f");
  listen_to(&ear, ".", ENTRIES, TREE);
  OK(rename("x", "old"));
  OK(rename("new", "x"));
  OK(unlink("old/f"));
  OK(rmdir("old"));
  HEARD(&ear, "x=>old/ new=>x/ -old/f -old/");
  make_file("x/g");
  HEARD(&ear, "+x/g");
  CHECK_EQ(inotify_of_process().watches, 2);
  close_loop(ear.loop);
}

/* A deleted directory keeps its watch while a process has it open. */
TEST(a_name_is_free_when_its_directory_is_deleted_though_that_is_open) {
  Ear ear = {0};
  int fd;
  enter_home();
  make_dir("a");
  fd = open_file("a", O_RDONLY | O_DIRECTORY);
  listen_to(&ear, ".", ENTRIES, TREE);
  OK(rmdir("a"));
  make_dir("a");
  HEARD(&ear, "-a/ +a/");
  make_file("a/x");
  HEARD(&ear, "+a/x");
  OK(close(fd));
  make_file("a/y");
  HEARD(&ear, "+a/y");
  CHECK_EQ(inotify_of_process().watches, 2);
  close_loop(ear.loop);
}

/* The directory that replaces b comes from outside the tree, and b keeps its
 * watch until its last descriptor is closed. */
TEST(a_directory_that_replaces_another_is_watched) {
  Ear ear = {0};
  int fd;
  enter_home();
  make_dir("out");
  make_dir("out/x");
  make_dir("tree");
  make_dir("tree/b");
  fd = open_file("tree/b", O_RDONLY | O_DIRECTORY);
  listen_to(&ear, "tree", ENTRIES, TREE);
  OK(rename("out/x", "tree/b"));
  HEARD(&ear, ">b/");
  make_file("tree/b/1");
  HEARD(&ear, "+b/1");
  OK(close(fd));
  OK(rename("tree/b", "out/x"));
  make_dir("tree/b");
  HEARD(&ear, "<b/ +b/");
  fd = open_file("tree/b", O_RDONLY | O_DIRECTORY);
  OK(rename("out/x", "tree/a"));
  OK(rename("tree/a", "tree/b"));
  HEARD(&ear, ">a/ a=>b/ +b/1");
  make_file("tree/b/2");
  HEARD(&ear, "+b/2");
  OK(close(fd));
  CHECK_EQ(inotify_of_process().watches, 2);
  close_loop(ear.loop);
}

enum { STEPS = 60, ROUNDS = 40 };

static unsigned at_random(unsigned *seed, unsigned below) {
  *seed = *seed * 1103515245u + 12345u;
  return (*seed >> 16) % below;
}

static void some_path(unsigned *seed, char *path, size_t cap) {
  unsigned depth = 1 + at_random(seed, 3), i;
  size_t used = (size_t)snprintf(path, cap, "tree");
  for (i = 0; i < depth; i++) {
    used += (size_t)snprintf(path + used, cap - used, "/%c", (int)('a' + at_random(seed, 4)));
  }
}

/* Most of these fail: there is no such directory, or it is not empty. */
static void juggle(unsigned seed) {
  char from[64], to[64], out[16];
  int i;
  for (i = 0; i < STEPS; i++) {
    int failed = 0;
    some_path(&seed, from, sizeof from);
    some_path(&seed, to, sizeof to);
    snprintf(out, sizeof out, "out/%c", (int)('a' + at_random(&seed, 4)));
    switch (at_random(&seed, 7)) {
      case 0:
      case 1: failed = mkdir(from, 0755); break;
      case 2: failed = rename(from, to); break;
      case 3: failed = mkdir(to, 0755); break;
      case 4: failed = rmdir(from); break;
      case 5: failed = rename(from, out); break;
      default: failed = rename(out, from); break;
    }
    (void)failed;
  }
}

static char probes[8192];
static char found_probes[8192];

/* Makes a file in each directory. */
static int probe_one(const char *path, const struct stat *st, int kind, struct FTW *place) {
  char file[96];
  size_t used = strlen(probes);
  (void)st;
  (void)place;
  if (kind != FTW_D) return 0;
  snprintf(file, sizeof file, "%s/probe", path);
  make_file(file);
  snprintf(probes + used, sizeof probes - used, "%s ", file + strlen("tree/"));
  return 0;
}

static void hear_probe(const evloop_event_t *event, void *user_data) {
  char name[96];
  size_t len, used = strlen(found_probes);
  (void)user_data;
  len = (size_t)OK(evloop_event_name(event, name, sizeof name));
  CHECK((event->events & (FILE_(IGNORED) | FILE_(OVERFLOW) | EVLOOP_ERROR)) == 0);
  if (event->events != FILE_(CREATE) || len < 5 || strcmp(name + len - 5, "probe") != 0) return;
  snprintf(found_probes + used, sizeof found_probes - used, "%s ", name);
}

TEST_TIMEOUT(every_directory_is_known_by_its_name_whatever_came_before, 120) {
  unsigned round;
  enter_home();
  for (round = 1; round <= ROUNDS; round++) {
    evloop_t loop = new_loop();
    make_dir("tree");
    make_dir("out");
    OK(evloop_add_file(loop, "tree", ENTRIES, TREE, hear_probe, NULL));
    juggle(round);
    make_file("tree/probe");
    while (found_probes[0] == '\0') OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    OK(unlink("tree/probe"));
    found_probes[0] = '\0';
    CHECK_EQ(nftw("tree", probe_one, 64, FTW_PHYS), 0);
    while (strlen(found_probes) < strlen(probes)) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    CHECK(strcmp(found_probes, probes) == 0);
    probes[0] = found_probes[0] = '\0';
    close_loop(loop);
    CHECK_EQ(nftw("tree", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
    CHECK_EQ(nftw("out", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
  }
}

/* ---- large trees ---- */

static int queue_limit(void) {
  int queued = 0;
  FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
  CHECK(limit != NULL);
  CHECK(fscanf(limit, "%d", &queued) == 1);
  fclose(limit);
  return queued;
}

/* Each of so many directories takes a watch. */
static void need_watches(int count) {
  int most = 0;
  FILE *limit = fopen("/proc/sys/fs/inotify/max_user_watches", "re");
  CHECK(limit != NULL);
  CHECK(fscanf(limit, "%d", &most) == 1);
  fclose(limit);
  if (most < 2 * count) SKIP("a user has %d watches", most);
}

static void make_dirs(const char *above, int count) {
  char name[64];
  int i;
  make_dir(above);
  for (i = 0; i < count; i++) {
    if (i % 500 == 0) {
      snprintf(name, sizeof name, "%s/%d", above, i / 500);
      make_dir(name);
    }
    snprintf(name, sizeof name, "%s/%d/%d", above, i / 500, i);
    make_dir(name);
  }
}

/* Each change is another than the one before: they are not made one. */
static void overflow_the_queue(const char *one, const char *other) {
  int i, count = queue_limit() + 100;
  for (i = 0; i < count; i++) OK(chmod(i % 2 == 0 ? one : other, 0755));
}

static int overflows;

static void count_overflows(const evloop_event_t *event, void *user_data) {
  if ((event->events & FILE_(OVERFLOW)) != 0) overflows++;
  if ((event->events & FILE_(CREATE)) != 0) hear(event, user_data);
}

TEST_TIMEOUT(a_tree_of_more_directories_than_notes_is_read_again_once, 120) {
  Ear ear = {0};
  need_watches(queue_limit());
  enter_home();
  make_dirs("tree", queue_limit() + 100);
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, "tree", FILE_(CREATE) | FILE_(ATTRIB), TREE, count_overflows, &ear));
  overflow_the_queue("tree/0", "tree/1");
  while (overflows == 0) OK(evloop_run(ear.loop, EVLOOP_RUN_ONCE));
  make_file("tree/0/0/file");
  HEARD(&ear, "+0/0/file");
  make_file("tree/1/end");
  HEARD(&ear, "+1/end");
  CHECK_EQ(overflows, 1);
  close_loop(ear.loop);
}

TEST_TIMEOUT(the_end_of_a_large_tree_is_no_overflow_for_others, 120) {
  Ear ear = {0};
  evloop_watcher_t large;
  need_watches(queue_limit());
  enter_home();
  make_dir("small");
  make_dirs("large", queue_limit() + 100);
  ear.loop = new_loop();
  large = OK(evloop_add_file(ear.loop, "large", ENTRIES, TREE, ignore, NULL));
  OK(evloop_add_file(ear.loop, "small", ENTRIES, 0, hear, &ear));
  close_watcher(large);
  make_file("small/file");
  HEARD(&ear, "+file");
  /* All of the watches go, a part at a time. */
  while (inotify_of_process().watches > 1) turn(ear.loop);
  make_file("small/end");
  HEARD(&ear, "+end");
  close_loop(ear.loop);
}

/* ---- while others run the loop ---- */

typedef struct Adding {
  evloop_t loop;
  int goes_on, turns;
  evloop_watcher_t watcher;
} Adding;

static void *add_tree(void *argument) {
  Adding *adding = (Adding *)argument;
  STORE(adding->goes_on, 1);
  adding->watcher = OK(evloop_add_file(adding->loop, "tree", ENTRIES, TREE, ignore, NULL));
  STORE(adding->goes_on, 0);
  CHECK_EQ(evloop_stop(adding->loop), 0);
  return NULL;
}

static void count_turn(const evloop_event_t *event, void *user_data) {
  Adding *adding = (Adding *)user_data;
  (void)event;
  if (LOAD(adding->goes_on)) adding->turns++;
}

/* It may be that the threads never ran at the same time: several tries. */
TEST_TIMEOUT(a_loop_goes_on_while_another_thread_adds_a_tree, 120) {
  Adding adding = {0};
  int tries, turns = 1000 / slow_factor();
  enter_home();
  make_dirs("tree", 4000);
  adding.loop = new_loop();
  OK(evloop_add_idle(adding.loop, count_turn, &adding));
  for (tries = 0; tries < 20 && adding.turns < turns; tries++) {
    pthread_t thread;
    adding.turns = 0;
    thread = start_thread(add_tree, &adding);
    OK(evloop_run(adding.loop, EVLOOP_RUN_UNTIL_DONE));
    join(thread);
    close_watcher(adding.watcher);
  }
  CHECK(adding.turns >= turns);
  close_loop(adding.loop);
}

/* ---- while something is short ---- */

static int errors;

static void hear_of_errors(const evloop_event_t *event, void *user_data) {
  if ((event->events & EVLOOP_ERROR) != 0) {
    CHECK_EQ(event->result, -EMFILE);
    errors++;
  }
  if ((event->events & FILE_(ATTRIB)) == 0) hear(event, user_data);
}

TEST_TIMEOUT(an_overflow_without_a_free_descriptor_is_not_the_end, 60) {
  Ear ear = {0};
  struct rlimit before, none;
  int lowest;
  enter_home();
  make_dir("a");
  make_dir("a/b");
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, ".", ENTRIES | FILE_(ATTRIB), TREE, hear_of_errors, &ear));
  overflow_the_queue("a", "a/b");
  lowest = (int)OK(dup(0));
  OK(close(lowest));
  OK(getrlimit(RLIMIT_NOFILE, &before));
  none = before;
  none.rlim_cur = (rlim_t)lowest;
  OK(setrlimit(RLIMIT_NOFILE, &none));
  while (strchr(ear.text, '?') == NULL) turn(ear.loop);
  OK(setrlimit(RLIMIT_NOFILE, &before));
  CHECK(strcmp(ear.text, "E Ea Ea/b ?") == 0);
  CHECK_EQ(errors, 3);
  ear.text[0] = '\0';
  make_file("a/b/file");
  HEARD(&ear, "+a/b/file");
  close_loop(ear.loop);
}

CHECK_MAIN()
