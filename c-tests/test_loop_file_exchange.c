/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Trees whose entries are exchanged: renameat2(RENAME_EXCHANGE). What the
 * events' names must be is computed by a model of the directories. */

#define _GNU_SOURCE
#include "loop_files.h"

#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE 2
#endif

static int exchange(const char *one, const char *other) {
  return (int)syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE);
}

/* The case's own directory, on a file system that can exchange. */
static void enter_exchanging_home(void) {
  enter_home();
  make_dir("a");
  make_dir("b");
  if (exchange("a", "b") < 0) SKIP("the file system of /tmp cannot exchange: %s", strerror(errno));
  OK(rmdir("a"));
  OK(rmdir("b"));
}

/* ---- one exchange of each kind ---- */

typedef struct Kind {
  const char *one, *other; /* with a '/' at the end: directories */
  const char *events, *later_events;
} Kind;

/* `tree` is watched, `out` is not. Both directories have a file in them. */
static const Kind kinds[] = {
  {"tree/a/", "tree/b/", "a=>b/ b=>a/", "+b/1 +a/2"},
  {"tree/a/", "tree/x/b/", "a=>x/b/ x/b=>a/", "+x/b/1 +a/2"},
  {"tree/x/a/", "tree/b/", "x/a=>b/ b=>x/a/", "+b/1 +x/a/2"},
  {"tree/x/a/", "tree/y/b/", "x/a=>y/b/ y/b=>x/a/", "+y/b/1 +x/a/2"},
  {"tree/a/", "tree/b", "a=>b/ b=>a", "+b/1"},
  {"tree/a", "tree/b/", "a=>b b=>a/", "+a/2"},
  {"tree/a/", "tree/x/b", "a=>x/b/ x/b=>a", "+x/b/1"},
  {"tree/x/a", "tree/b/", "x/a=>b b=>x/a/", "+x/a/2"},
  {"tree/a", "tree/b", "a=>b b=>a", ""},
  {"tree/a/", "out/b/", "<a/ >a/ +a/inside", "+a/2"},
  {"out/a/", "tree/b/", ">b/ +b/inside <b/", "+b/1"},
  {"tree/a/", "out/b", "<a/ >a", ""},
  {"out/a", "tree/b/", ">b <b/", ""},
  {"tree/a", "out/b/", "<a >a/ +a/inside", "+a/2"},
  {"out/a/", "tree/b", ">b/ +b/inside <b", "+b/1"},
};

static void make_either(const char *name, char *path, size_t cap) {
  size_t len = strlen(name);
  snprintf(path, cap, "%s", name);
  if (name[len - 1] != '/') {
    make_file(path);
    return;
  }
  path[len - 1] = '\0';
  make_dir(path);
  make_file(strcat(path, "/inside"));
  path[len - 1] = '\0';
}

static void touch_in(const char *path, const char *name) {
  char file[96];
  struct stat st;
  OK(lstat(path, &st));
  if (!S_ISDIR(st.st_mode)) return;
  snprintf(file, sizeof file, "%.64s/%.8s", path, name);
  make_file(file);
}

static void check_kind(const Kind *kind) {
  Ear ear = {0};
  char one[64], other[64];
  make_dir("tree");
  make_dir("tree/x");
  make_dir("tree/y");
  make_dir("out");
  make_either(kind->one, one, sizeof one);
  make_either(kind->other, other, sizeof other);
  listen_to(&ear, "tree", ENTRIES, TREE);
  OK(exchange(one, other));
  HEARD(&ear, kind->events);
  touch_in(other, "1");
  touch_in(one, "2");
  HEARD(&ear, kind->later_events);
  /* Nothing else. */
  make_file("tree/end");
  HEARD(&ear, "+end");
  close_loop(ear.loop);
  CHECK_EQ(nftw("tree", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
  CHECK_EQ(nftw("out", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
}

TEST(what_is_exchanged_is_two_renames_and_is_watched_under_its_new_name) {
  int i;
  enter_exchanging_home();
  for (i = 0; AT_ROW(i, kinds); i++) check_kind(&kinds[i]);
}

TEST(an_exchange_and_back_leaves_everything_as_it_was) {
  Ear ear = {0};
  enter_exchanging_home();
  make_dir("a");
  make_dir("b");
  listen_to(&ear, ".", ENTRIES, TREE);
  OK(exchange("a", "b"));
  OK(exchange("a", "b"));
  make_file("a/1");
  make_file("b/2");
  HEARD(&ear, "a=>b/ b=>a/ a=>b/ b=>a/ +a/1 +b/2");
  CHECK_EQ(inotify_of_process().watches, 3);
  close_loop(ear.loop);
}

/* The same names in the same order as an exchange: but it was one directory
 * twice, which replaced an empty one the first time. */
TEST(a_rename_and_back_is_not_taken_for_an_exchange) {
  Ear ear = {0};
  int fd;
  enter_exchanging_home();
  make_dir("a");
  make_dir("b");
  fd = open_file("b", O_RDONLY | O_DIRECTORY); /* keeps its watch */
  listen_to(&ear, ".", ENTRIES, TREE);
  OK(rename("a", "b"));
  OK(rename("b", "a"));
  make_file("a/1");
  make_dir("b");
  make_file("b/2");
  HEARD(&ear, "a=>b/ b=>a/ +a/1 +b/ +b/2");
  make_file("b/3");
  HEARD(&ear, "+b/3");
  OK(close(fd));
  make_file("a/4");
  HEARD(&ear, "+a/4");
  CHECK_EQ(inotify_of_process().watches, 3);
  close_loop(ear.loop);
}

/* The loop has not seen it when it is exchanged. */
TEST(a_new_directory_is_exchanged_before_it_is_watched) {
  static const char *const pairs[][2] = {{"old", "new"}, {"new", "old"}};
  int i;
  enter_exchanging_home();
  for (i = 0; AT_ROW(i, pairs); i++) {
    Ear ear = {0};
    make_dir("tree");
    make_dir("tree/old");
    OK(chdir("tree"));
    listen_to(&ear, ".", ENTRIES, TREE);
    make_dir("new");
    OK(exchange(pairs[i][0], pairs[i][1]));
    HEARD(&ear, i == 0 ? "+new/ old=>new/ new=>old/" : "+new/ new=>old/ old=>new/");
    make_file("new/1");
    make_file("old/2");
    HEARD(&ear, "+new/1 +old/2");
    CHECK_EQ(inotify_of_process().watches, 3);
    close_loop(ear.loop);
    OK(chdir(".."));
    CHECK_EQ(nftw("tree", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
  }
}

TEST(each_of_two_trees_knows_what_was_exchanged_between_them) {
  Ear a = {0}, b = {0}, both = {0};
  enter_exchanging_home();
  make_dir("a");
  make_dir("a/x");
  make_dir("b");
  make_dir("b/y");
  a.loop = b.loop = both.loop = new_loop();
  listen_to(&a, "a", ENTRIES, TREE);
  listen_to(&b, "b", ENTRIES, TREE);
  listen_to(&both, ".", ENTRIES, TREE);
  OK(exchange("a/x", "b/y"));
  HEARD(&both, "a/x=>b/y/ b/y=>a/x/");
  HEARD(&a, "<x/ >x/");
  HEARD(&b, ">y/ <y/");
  make_file("a/x/1");
  make_file("b/y/2");
  HEARD(&both, "+a/x/1 +b/y/2");
  HEARD(&a, "+x/1");
  HEARD(&b, "+y/2");
  CHECK_EQ(inotify_of_process().watches, 5);
  close_loop(a.loop);
}

/* ---- a model of the directories ---- */

enum { MOST_ENTRIES = 128, PATH_ROOM = 48 };

typedef struct Entry {
  char path[PATH_ROOM];
  bool is_directory;
} Entry;

typedef struct Model {
  Entry entries[MOST_ENTRIES];
  int count;
} Model;

static Entry *entry_at(Model *model, const char *path) {
  int i;
  for (i = 0; i < model->count; i++) {
    if (strcmp(model->entries[i].path, path) == 0) return &model->entries[i];
  }
  return NULL;
}

static bool is_at_or_below(const char *path, const char *above) {
  size_t len = strlen(above);
  return strncmp(path, above, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

static void add_entry(Model *model, const char *path, bool is_directory) {
  Entry *entry = &model->entries[model->count++];
  CHECK(model->count <= MOST_ENTRIES);
  snprintf(entry->path, sizeof entry->path, "%s", path);
  entry->is_directory = is_directory;
}

static void remove_entry(Model *model, const char *path) {
  Entry *entry = entry_at(model, path);
  if (entry != NULL) *entry = model->entries[--model->count];
}

/* An entry and all that is below it get another path. */
static void move_entries(Model *model, const char *from, const char *to) {
  int i;
  for (i = 0; i < model->count; i++) {
    char path[2 * PATH_ROOM];
    Entry *entry = &model->entries[i];
    if (!is_at_or_below(entry->path, from)) continue;
    snprintf(path, sizeof path, "%s%s", to, entry->path + strlen(from));
    CHECK(strlen(path) < PATH_ROOM);
    memcpy(entry->path, path, strlen(path) + 1);
  }
}

static void exchange_entries(Model *model, const char *one, const char *other) {
  move_entries(model, one, "?");
  move_entries(model, other, one);
  move_entries(model, "?", other);
}

/* ---- the events of a change ---- */

/* Words as write_down() has them, in any order. */
typedef struct Words {
  char text[MOST_ENTRIES][3 * PATH_ROOM];
  int count;
} Words;

/* The name of a path in events, where what is below `watched` is watched, or
 * everything if that is ""; NULL: the path is not watched. */
static const char *name_of(const char *watched, const char *path) {
  size_t len = strlen(watched);
  if (len == 0) return path;
  return strncmp(path, watched, len) == 0 && path[len] == '/' ? path + len + 1 : NULL;
}

static void add_word(Words *words, const char *old, const char *sign, const char *name,
                     bool is_directory) {
  CHECK(words->count < MOST_ENTRIES);
  snprintf(words->text[words->count++], sizeof words->text[0], "%s%s%s%s", old, sign, name,
           is_directory ? "/" : "");
}

/* What came into the tree is reported as created. */
static void add_contents(Words *words, const Model *model, const char *watched, const char *path) {
  int i;
  for (i = 0; i < model->count; i++) {
    const Entry *entry = &model->entries[i];
    if (strcmp(entry->path, path) == 0 || !is_at_or_below(entry->path, path)) continue;
    add_word(words, "", "+", name_of(watched, entry->path), entry->is_directory);
  }
}

/* `model` is as it is after the rename, of which an exchange has two. */
static void add_rename(Words *words, const Model *model, const char *watched, const char *from,
                       const char *to, bool is_directory) {
  const char *old = name_of(watched, from), *name = name_of(watched, to);
  if (old != NULL && name != NULL) add_word(words, old, "=>", name, is_directory);
  if (old != NULL && name == NULL) add_word(words, "", "<", old, is_directory);
  if (old != NULL || name == NULL) return;
  add_word(words, "", ">", name, is_directory);
  add_contents(words, model, watched, to);
}

/* ---- random changes ---- */

static void random_path(uint64_t *seed, char *path) {
  int64_t depth = 1 + random_below(seed, 3);
  size_t used = (size_t)sprintf(path, random_below(seed, 4) == 0 ? "out" : "tree");
  while (depth-- > 0) used += (size_t)sprintf(path + used, "/%c", (int)('a' + random_below(seed, 3)));
}

/* Moving it would make paths too long for the model. */
static bool is_too_deep(const Model *model, const char *path) {
  int i;
  for (i = 0; i < model->count; i++) {
    const char *one = model->entries[i].path;
    if (is_at_or_below(one, path) && strlen(one) > PATH_ROOM / 2) return true;
  }
  return model->count > MOST_ENTRIES - 2;
}

/* One change, of the disk and of the model; false: it cannot be, as where one
 * path is above the other, and nothing happened. */
static bool change(Model *model, uint64_t *seed, const char *watched, Words *words) {
  char from[PATH_ROOM], to[PATH_ROOM];
  Entry *entry;
  bool from_is_directory, to_is_directory;
  random_path(seed, from);
  random_path(seed, to);
  if (is_too_deep(model, from) || is_too_deep(model, to)) return false;
  switch (random_below(seed, 10)) {
    case 0:
    case 1:
    case 2:
      if (mkdir(from, 0755) < 0) return false;
      add_entry(model, from, true);
      if (name_of(watched, from)) add_word(words, "", "+", name_of(watched, from), true);
      return true;
    case 3:
      if (mknod(from, S_IFREG | 0644, 0) < 0) return false;
      add_entry(model, from, false);
      if (name_of(watched, from)) add_word(words, "", "+", name_of(watched, from), false);
      return true;
    case 4:
      if (remove(from) < 0) return false;
      if (name_of(watched, from)) {
        add_word(words, "", "-", name_of(watched, from), entry_at(model, from)->is_directory);
      }
      remove_entry(model, from);
      return true;
    case 5:
    case 6:
      if (strcmp(from, to) == 0 || rename(from, to) < 0) return false;
      from_is_directory = entry_at(model, from)->is_directory;
      remove_entry(model, to);
      move_entries(model, from, to);
      add_rename(words, model, watched, from, to, from_is_directory);
      return true;
    default:
      if (strcmp(from, to) == 0 || exchange(from, to) < 0) return false;
      from_is_directory = entry_at(model, from)->is_directory;
      entry = entry_at(model, to);
      to_is_directory = entry->is_directory;
      exchange_entries(model, from, to);
      add_rename(words, model, watched, from, to, from_is_directory);
      add_rename(words, model, watched, to, from, to_is_directory);
      return true;
  }
}

/* ---- the events that came ---- */

/* Until this event comes no event is kept. */
static char awaited[3 * PATH_ROOM];

static void record_event(const evloop_event_t *event, void *user_data) {
  Words *seen = (Words *)user_data;
  char *word = seen->text[seen->count];
  CHECK(seen->count < MOST_ENTRIES);
  word[0] = '\0';
  write_down(event, word, sizeof seen->text[0]);
  CHECK(strchr("E?!", word[0]) == NULL);
  if (awaited[0] == '\0') seen->count++;
  else if (strcmp(awaited, word) == 0) awaited[0] = '\0';
}


static int by_text(const void *one, const void *other) {
  return strcmp((const char *)one, (const char *)other);
}

static void check_words(Words *seen, Words *expected, uint64_t seed) {
  int i;
  qsort(seen->text, (size_t)seen->count, sizeof seen->text[0], by_text);
  qsort(expected->text, (size_t)expected->count, sizeof expected->text[0], by_text);
  for (i = 0; i < expected->count && i < seen->count; i++) {
    if (strcmp(seen->text[i], expected->text[i]) == 0) continue;
    printf("  seed %" PRIu64 ": seen '%s', not '%s'\n", seed, seen->text[i], expected->text[i]);
    check_exit();
  }
  CHECK_EQ(seen->count, expected->count);
  seen->count = expected->count = 0;
}

static void expect_events(evloop_t loop, Words *seen, Words *expected, uint64_t seed) {
  while (seen->count < expected->count) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  check_words(seen, expected, seed);
}

/* A file is made in every directory, and taken away. */
static void check_every_directory(evloop_t loop, const Model *model, const char *watched,
                                  Words *seen, uint64_t seed) {
  static Words expected;
  int i, step;
  for (step = 0; step < 2; step++) {
    for (i = 0; i < model->count; i++) {
      char probe[2 * PATH_ROOM];
      const Entry *entry = &model->entries[i];
      if (!entry->is_directory) continue;
      snprintf(probe, sizeof probe, "%s/probe", entry->path);
      if (step == 0) make_file(probe);
      else OK(unlink(probe));
      if (name_of(watched, probe) == NULL) continue;
      add_word(&expected, "", step == 0 ? "+" : "-", name_of(watched, probe), false);
    }
    expect_events(loop, seen, &expected, seed);
  }
}

static int watched_directories(const Model *model, const char *watched) {
  int i, count = 1;
  for (i = 0; i < model->count; i++) {
    const Entry *entry = &model->entries[i];
    if (entry->is_directory && name_of(watched, entry->path) != NULL) count++;
  }
  return count;
}

static void make_end(void) {
  make_file("tree/end");
  OK(unlink("tree/end"));
}

/* Other events are not looked at, nor are those that come right behind it: a
 * directory that was moved while the loop looked is found last. */
static void run_until_end_is_reported(evloop_t loop, const char *watched, Words *seen) {
  snprintf(awaited, sizeof awaited, "-%s", name_of(watched, "tree/end"));
  while (awaited[0] != '\0') OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  turns(loop, 3);
  seen->count = 0;
}

/* Two directories, empty; only one is watched, or that in which both are. */
static evloop_t begin_round(Model *model, uint64_t seed, const char **watched, Words *seen) {
  evloop_t loop = new_loop();
  model->count = seen->count = 0;
  make_dir("tree");
  make_dir("out");
  add_entry(model, "tree", true);
  add_entry(model, "out", true);
  *watched = seed % 3 == 0 ? "" : "tree";
  OK(evloop_add_file(loop, seed % 3 == 0 ? "." : "tree", ENTRIES, TREE, record_event, seen));
  return loop;
}

static void end_round(evloop_t loop) {
  close_loop(loop);
  CHECK_EQ(nftw("tree", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
  CHECK_EQ(nftw("out", remove_one, 64, FTW_DEPTH | FTW_PHYS), 0);
}

static int seeds(void) {
  return 1000 / slow_factor();
}

TEST_TIMEOUT(random_exchanges_are_reported_with_the_names_of_a_model, 300) {
  static Model model;
  static Words seen, expected;
  int seed;
  enter_exchanging_home();
  for (seed = 1; seed <= seeds(); seed++) {
    uint64_t state = (uint64_t)seed;
    const char *watched;
    evloop_t loop = begin_round(&model, state, &watched, &seen);
    int step;
    for (step = 0; step < 20; step++) {
      if (change(&model, &state, watched, &expected)) expect_events(loop, &seen, &expected, (uint64_t)seed);
    }
    check_every_directory(loop, &model, watched, &seen, (uint64_t)seed);
    CHECK_EQ(inotify_of_process().watches, watched_directories(&model, watched));
    end_round(loop);
  }
}

/* The events are not compared, since directories may be gone again before the
 * loop looks: what is watched in the end is. */
TEST_TIMEOUT(after_exchanges_that_the_loop_sees_at_once_every_directory_is_known, 300) {
  static Model model;
  static Words seen, expected;
  int seed;
  enter_exchanging_home();
  for (seed = 1; seed <= seeds(); seed++) {
    uint64_t state = (uint64_t)seed;
    const char *watched;
    evloop_t loop = begin_round(&model, state, &watched, &seen);
    int step, burst;
    for (step = 0; step < 4; step++) {
      int64_t size = 1 + random_below(&state, 12);
      for (burst = 0; burst < size; burst++) {
        change(&model, &state, watched, &expected);
        expected.count = 0;
      }
      make_end();
      run_until_end_is_reported(loop, watched, &seen);
    }
    check_every_directory(loop, &model, watched, &seen, (uint64_t)seed);
    CHECK_EQ(inotify_of_process().watches, watched_directories(&model, watched));
    end_round(loop);
  }
}

/* ---- while the loop looks ---- */

typedef struct Changer {
  Model *model;
  uint64_t state;
} Changer;

static void *change_much(void *argument) {
  static Words ignored;
  Changer *changer = (Changer *)argument;
  int step;
  for (step = 0; step < 600; step++) {
    change(changer->model, &changer->state, "", &ignored);
    ignored.count = 0;
  }
  make_end();
  return NULL;
}

TEST_TIMEOUT(after_exchanges_while_the_loop_looks_every_directory_is_known, 120) {
  static Model model;
  static Words seen;
  int seed;
  enter_exchanging_home();
  for (seed = 1; seed <= seeds() / 20; seed++) {
    Changer changer = {&model, (uint64_t)seed};
    const char *watched;
    evloop_t loop = begin_round(&model, (uint64_t)seed, &watched, &seen);
    pthread_t thread = start_thread(change_much, &changer);
    run_until_end_is_reported(loop, watched, &seen);
    join(thread);
    check_every_directory(loop, &model, watched, &seen, (uint64_t)seed);
    CHECK_EQ(inotify_of_process().watches, watched_directories(&model, watched));
    end_round(loop);
  }
}

CHECK_MAIN()
