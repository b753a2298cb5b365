/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What others can cause is bounded: large directories that come and go are
 * read in pieces and take no memory, and many watchers cost what they are. */

#define _GNU_SOURCE
#include "loop_files.h"

/* ---- large directories ---- */

enum { MANY = 20000, PIECE = 4096 };

static bool measures_memory(void) {
  return getenv("EVLOOP_TEST_VALGRIND") == NULL && getenv("EVLOOP_TEST_ASAN") == NULL;
}

static long resident_kib(void) {
  long size, resident = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  CHECK(file != NULL);
  CHECK(fscanf(file, "%ld %ld", &size, &resident) == 2);
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Entries with long names: links to one file, which are quickly made. */
static void fill_directory(const char *path, int count) {
  char name[256];
  int i;
  make_dir(path);
  make_file("file");
  for (i = 0; i < count; i++) {
    snprintf(name, sizeof name, "%.32s/%0150d", path, i);
    OK(link("file", name));
  }
}

typedef struct Bulk {
  unsigned char *seen; /* of each number: how often */
  int events, overflows;
} Bulk;

static void count_number(const evloop_event_t *event, void *user_data) {
  Bulk *bulk = (Bulk *)user_data;
  char name[512];
  const char *last;
  OK(evloop_event_name(event, name, sizeof name));
  bulk->overflows += event->events == FILE_(OVERFLOW);
  last = strrchr(name, '/');
  if (last == NULL) return;
  bulk->seen[atoi(last + 1)]++;
  bulk->events++;
}

static void count_call(const evloop_event_t *event, void *user_data) {
  (void)event;
  ++*(int *)user_data;
}

static int many(void) {
  return MANY / slow_factor();
}

/* Runs the loop until so many entries were reported; how many iterations that
 * took, none of which reported more than a piece. */
static int run_in_pieces(evloop_t loop, Bulk *bulk, int count) {
  int iterations = 0;
  while (bulk->events < count) {
    int before = bulk->events;
    turn(loop);
    CHECK(bulk->events - before <= PIECE);
    iterations++;
  }
  return iterations;
}

TEST_TIMEOUT(a_large_directory_that_is_moved_in_is_reported_in_pieces, 120) {
  Bulk bulk = {calloc(MANY, 1), 0, 0};
  evloop_t loop = new_loop();
  long memory;
  int i;
  enter_home();
  make_dir("tree");
  fill_directory("large", many());
  OK(evloop_add_file(loop, "tree", FILE_(CREATE), TREE, count_number, &bulk));
  turn(loop);
  memory = resident_kib();
  OK(rename("large", "tree/large"));
  CHECK(run_in_pieces(loop, &bulk, many()) >= many() / PIECE);
  if (measures_memory()) CHECK(resident_kib() - memory < 2048);
  turns(loop, 3);
  for (i = 0; i < many(); i++) CHECK_EQ(bulk.seen[i], 1);
  CHECK_EQ(bulk.overflows, 0);
  close_loop(loop);
  free(bulk.seen);
}

TEST_TIMEOUT(names_that_no_watcher_asked_for_are_not_kept, 120) {
  static const uint32_t masks[] = {FILE_(MODIFY), FILE_(CREATE)};
  int i;
  enter_home();
  make_dir("tree");
  fill_directory("large", many());
  /* The second asks, but is disabled: there is a limit, which is reported. */
  for (i = 0; AT_ROW(i, masks); i++) {
    Bulk bulk = {calloc(MANY, 1), 0, 0};
    evloop_t loop = new_loop();
    evloop_watcher_t watcher =
        OK(evloop_add_file(loop, "tree", masks[i], TREE, count_number, &bulk));
    long memory;
    CHECK_EQ(evloop_watcher_disable(watcher), 0);
    turn(loop);
    memory = resident_kib();
    OK(rename("large", "tree/large"));
    turns(loop, 200);
    if (measures_memory()) CHECK(resident_kib() - memory < (i == 0 ? 2048 : 6144));
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
    turns(loop, 20);
    CHECK_EQ(bulk.events, i == 0 ? 0 : many() < 8192 ? many() : 8192);
    CHECK_EQ(bulk.overflows, i == 1 && many() > 8192);
    close_loop(loop);
    free(bulk.seen);
    OK(rename("tree/large", "large"));
  }
}

/* What is not reported is lost, and that is reported. */
TEST_TIMEOUT(a_large_directory_that_is_renamed_while_it_is_read_is_complete_or_an_overflow, 120) {
  Bulk bulk = {calloc(MANY, 1), 0, 0};
  evloop_t loop = new_loop();
  int i;
  enter_home();
  make_dir("tree");
  fill_directory("large", many());
  OK(evloop_add_file(loop, "tree", FILE_(CREATE), TREE, count_number, &bulk));
  OK(rename("large", "tree/large"));
  while (bulk.events == 0) turn(loop);
  OK(rename("tree/large", "tree/other"));
  for (i = 0; i < 100 || (bulk.events < many() && bulk.overflows == 0); i++) turn(loop);
  CHECK(bulk.events == many() || bulk.overflows == 1);
  for (i = 0; i < many(); i++) CHECK(bulk.seen[i] <= 1);
  /* It is watched under its new name. */
  bulk.events = 0;
  make_file("tree/other/0");
  while (bulk.events == 0) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  close_loop(loop);
  free(bulk.seen);
}

static void check_no_secret(const evloop_event_t *event, void *user_data) {
  char name[512];
  OK(evloop_event_name(event, name, sizeof name));
  CHECK(strstr(name, "secret") == NULL);
  count_call(event, user_data);
}

TEST_TIMEOUT(a_large_directory_that_is_moved_out_while_it_is_read_is_not_read_on, 120) {
  evloop_t loop = new_loop();
  char name[64];
  int i, events = 0;
  enter_home();
  make_dir("tree");
  fill_directory("large", many());
  OK(evloop_add_file(loop, "tree", FILE_(CREATE), TREE, check_no_secret, &events));
  OK(rename("large", "tree/large"));
  while (events == 0) turn(loop);
  OK(rename("tree/large", "large"));
  for (i = 0; i < many() / 10; i++) {
    snprintf(name, sizeof name, "large/secret%d", i);
    make_file(name);
  }
  turns(loop, 100);
  CHECK(events < many());
  CHECK_EQ(inotify_of_process().watches, 1);
  close_loop(loop);
}

/* ---- changes while a directory is read ---- */

enum { SLOTS = 4000 };

/* What the entries are by what was reported. */
typedef struct Replica {
  bool is_there[SLOTS];
  int events;
} Replica;

static int slot_of(const char *name) {
  const char *last = strrchr(name, '/');
  return last == NULL ? -1 : atoi(last + 1);
}

static void follow(const evloop_event_t *event, void *user_data) {
  Replica *replica = (Replica *)user_data;
  char name[256], old[256];
  int slot, old_slot;
  OK(evloop_event_name(event, name, sizeof name));
  OK(evloop_event_old_name(event, old, sizeof old));
  slot = slot_of(name);
  old_slot = slot_of(old);
  if (slot < 0) return;
  replica->events++;
  switch (event->events & ~FILE_(ISDIR)) {
    case FILE_(CREATE):
      CHECK(!replica->is_there[slot]); /* once */
      replica->is_there[slot] = true;
      break;
    case FILE_(DELETE): replica->is_there[slot] = false; break;
    case FILE_(MOVED_FROM) | FILE_(MOVED_TO):
      replica->is_there[old_slot] = false;
      replica->is_there[slot] = true;
      break;
    default: CHECK(false);
  }
}

static void change_at_random(uint64_t *seed) {
  char one[64], other[64];
  int result;
  snprintf(one, sizeof one, "tree/large/%d", (int)random_below(seed, SLOTS));
  snprintf(other, sizeof other, "tree/large/%d", (int)random_below(seed, SLOTS));
  switch (random_below(seed, 4)) {
    case 0: result = mknod(one, S_IFREG | 0644, 0); break;
    case 1: result = mkdir(one, 0755); break;
    case 2: result = remove(one); break;
    default: result = rename(one, other); break;
  }
  (void)result;
}

TEST_TIMEOUT(what_changes_while_a_directory_is_read_is_reported_once, 120) {
  static Replica replica;
  int seed, i;
  enter_home();
  for (seed = 1; seed <= 4; seed++) {
    uint64_t state = (uint64_t)seed;
    evloop_t loop = new_loop();
    char name[64];
    make_dir("tree");
    make_dir("large");
    for (i = 0; i < SLOTS; i += 2) {
      snprintf(name, sizeof name, "large/%d", i);
      if (i % 20 == 0) make_dir(name);
      else make_file(name);
    }
    memset(&replica, 0, sizeof replica);
    OK(evloop_add_file(loop, "tree", ENTRIES, TREE, follow, &replica));
    OK(rename("large", "tree/large"));
    while (replica.events < SLOTS) {
      for (i = 0; i < 100; i++) change_at_random(&state);
      turn(loop);
    }
    turns(loop, 20);
    for (i = 0; i < SLOTS; i++) {
      snprintf(name, sizeof name, "tree/large/%d", i);
      CHECK_EQ(replica.is_there[i], access(name, F_OK) == 0);
    }
    close_loop(loop);
    CHECK_EQ(nftw("tree", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
  }
}

/* ---- large trees that go ---- */

static void make_tree(const char *above, int count) {
  char path[64];
  int i;
  make_dir(above);
  for (i = 0; i < count; i++) {
    snprintf(path, sizeof path, "%.16s/%d", above, i / 50);
    if (i % 50 == 0) make_dir(path);
    snprintf(path, sizeof path, "%.16s/%d/%d", above, i / 50, i);
    make_dir(path);
  }
}

typedef struct Farewell {
  int moves, unexpected;
  bool file, end;
} Farewell;

static void take_leave(const evloop_event_t *event, void *user_data) {
  Farewell *farewell = (Farewell *)user_data;
  char name[256];
  OK(evloop_event_name(event, name, sizeof name));
  farewell->moves += (event->events & FILE_(MOVED_FROM)) != 0;
  farewell->file |= strcmp(name, "file") == 0;
  farewell->end |= event->events == FILE_(IGNORED);
  farewell->unexpected += strstr(name, "outside") != NULL || event->result != 0;
}

TEST_TIMEOUT(a_large_tree_that_is_moved_out_is_forgotten_in_pieces, 120) {
  const int count = 3000 / slow_factor();
  Farewell farewell = {0};
  evloop_t loop = new_loop();
  enter_home();
  make_dir("tree");
  make_tree("tree/large", count);
  OK(evloop_add_file(loop, "tree", ENTRIES, TREE, take_leave, &farewell));
  OK(rename("tree/large", "out"));
  make_file("out/0/outside");
  make_file("tree/file");
  while (!farewell.file) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(farewell.moves, 1);
  while (inotify_of_process().watches > 1) turn(loop);
  OK(unlink("out/0/outside"));
  OK(rename("out", "tree/large"));
  while (inotify_of_process().watches < count + (count + 49) / 50 + 2) turn(loop);
  /* The end of the whole tree. */
  OK(rename("tree", "other"));
  run_to_end(loop);
  CHECK(farewell.end);
  CHECK_EQ(farewell.unexpected, 0);
  close_loop(loop);
}

/* ---- many watchers ---- */

static int64_t cpu_ns(void) {
  return now_ns(CLOCK_PROCESS_CPUTIME_ID);
}

/* Adds so many, has one event reported to each, and closes them in the order
 * in which they were added; the processor time. */
static int64_t time_of_watchers(int count, uint32_t flags) {
  evloop_watcher_t *watchers = calloc((size_t)count, sizeof *watchers);
  evloop_t loop = new_loop();
  int i, calls = 0;
  int64_t begin = cpu_ns();
  CHECK(watchers != NULL);
  for (i = 0; i < count; i++) {
    uint32_t mask = i % 2 ? FILE_(CREATE) : FILE_(CREATE) | FILE_(DELETE);
    watchers[i] = OK(evloop_add_file(loop, ".", mask, flags, count_call, &calls));
  }
  make_file("file");
  while (calls < count) turn(loop);
  CHECK_EQ(inotify_of_process().watches, 1);
  for (i = 0; i < count; i++) close_watcher(watchers[i]);
  begin = cpu_ns() - begin;
  OK(unlink("file"));
  close_loop(loop);
  free(watchers);
  return begin;
}

static int64_t least_time(int count, uint32_t flags) {
  int64_t least = INT64_MAX;
  int i;
  for (i = 0; i < 3; i++) {
    int64_t time = time_of_watchers(count, flags);
    if (time < least) least = time;
  }
  return least;
}

/* Eight times as many take 64 times as long where each looks at all others. */
TEST_TIMEOUT(many_watchers_of_one_directory_cost_what_they_are, 120) {
  static const uint32_t flags[] = {0, TREE};
  int i;
  enter_home();
  for (i = 0; AT_ROW(i, flags); i++) {
    int count = 1500 / slow_factor();
    int64_t few = least_time(count, flags[i]), most = least_time(8 * count, flags[i]);
    if (most > 30 * few) {
      printf("  %d: %" PRId64 " us, %d: %" PRId64 " us\n", count, few / 1000, 8 * count,
             most / 1000);
      check_exit();
    }
  }
}

CHECK_MAIN()
