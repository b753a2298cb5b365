/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchers of trees of directories. */

#define _GNU_SOURCE
#include "loop_files.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>

#define ALL_OF_A_TREE (ENTRIES | FILE_(CLOSE_WRITE))

/* ---- what comes and goes ---- */

TEST(what_is_deep_in_a_tree_is_reported_with_its_path) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("a/b");
  make_dir("a/b/c");
  listen_to(&ear, ".", ALL_OF_A_TREE, TREE);
  CHECK_EQ(inotify_of_process().watches, 4);
  make_file("a/b/c/file");
  make_file("top");
  OK(unlink("a/b/c/file"));
  HEARD(&ear, "+a/b/c/file wa/b/c/file +top wtop -a/b/c/file");
  close_loop(ear.loop);
}

TEST(a_new_directory_is_watched_and_what_is_in_it_reported) {
  Ear ear = {0};
  enter_home();
  listen_to(&ear, ".", ALL_OF_A_TREE, TREE);
  make_dir("a");
  make_dir("a/b");
  make_file("a/b/early");
  HEARD(&ear, "+a/ +a/b/ +a/b/early");
  make_file("a/b/late");
  HEARD(&ear, "+a/b/late wa/b/late");
  close_loop(ear.loop);
}

TEST(deleted_directories_are_watched_no_more) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("a/b");
  listen_to(&ear, ".", ALL_OF_A_TREE | FILE_(DELETE_SELF), TREE);
  OK(rmdir("a/b"));
  OK(rmdir("a"));
  make_dir("a");
  make_file("a/again");
  HEARD(&ear, "-a/b/ -a/ +a/ +a/again");
  CHECK_EQ(inotify_of_process().watches, 2);
  close_loop(ear.loop);
}

TEST(a_directory_that_is_moved_in_is_reported_with_all_that_is_in_it) {
  Ear ear = {0};
  enter_home();
  make_dir("tree");
  make_dir("out");
  make_dir("out/deeper");
  make_file("out/deeper/file");
  listen_to(&ear, "tree", ALL_OF_A_TREE, TREE);
  OK(rename("out", "tree/in"));
  HEARD(&ear, ">in/ +in/deeper/ +in/deeper/file");
  make_file("tree/in/deeper/more");
  HEARD(&ear, "+in/deeper/more win/deeper/more");
  close_loop(ear.loop);
}

TEST(a_directory_that_is_moved_out_is_watched_no_more) {
  Ear ear = {0};
  enter_home();
  make_dir("tree");
  make_dir("tree/a");
  make_dir("tree/a/b");
  listen_to(&ear, "tree", ALL_OF_A_TREE, TREE);
  OK(rename("tree/a", "out"));
  HEARD(&ear, "<a/");
  CHECK_EQ(inotify_of_process().watches, 1);
  make_file("out/b/unheard");
  make_file("tree/end");
  HEARD(&ear, "+end wend");
  close_loop(ear.loop);
}

TEST(a_directory_that_is_renamed_takes_its_names_with_it) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("a/b");
  make_dir("other");
  listen_to(&ear, ".", ALL_OF_A_TREE, TREE);
  OK(rename("a", "other/z"));
  make_file("other/z/b/file");
  HEARD(&ear, "a=>other/z/ +other/z/b/file wother/z/b/file");
  OK(rename("other/z/b/file", "file"));
  OK(rename("other/z/b", "b"));
  make_file("b/file");
  HEARD(&ear, "other/z/b/file=>file other/z/b=>b/ +b/file wb/file");
  CHECK_EQ(inotify_of_process().watches, 4);
  close_loop(ear.loop);
}

/* All of it before the loop looks: its names lead elsewhere by then. */
TEST(names_that_were_used_again_meanwhile_are_not_mistaken) {
  Ear ear = {0};
  enter_home();
  make_dir("x");
  make_file("x/old");
  listen_to(&ear, ".", ALL_OF_A_TREE, TREE);
  OK(rename("x", "y"));
  make_dir("x");
  make_file("x/new");
  HEARD(&ear, "x=>y/ +x/ +x/new");
  make_file("y/1");
  make_file("x/2");
  HEARD(&ear, "+y/1 wy/1 +x/2 wx/2");
  OK(rename("x", "z"));
  OK(rename("y", "x"));
  OK(rename("z", "y"));
  make_file("y/3");
  HEARD(&ear, "x=>z/ y=>x/ z=>y/ +y/3 wy/3");
  make_file("x/4");
  HEARD(&ear, "+x/4 wx/4");
  CHECK_EQ(inotify_of_process().watches, 3);
  close_loop(ear.loop);
}

TEST(a_directory_that_was_moved_on_before_it_was_seen_is_found) {
  Ear ear = {0};
  enter_home();
  listen_to(&ear, ".", ALL_OF_A_TREE, TREE);
  make_dir("a");
  OK(rename("a", "b"));
  make_file("b/file");
  HEARD(&ear, "+a/ a=>b/ +b/file");
  make_file("b/more");
  HEARD(&ear, "+b/more wb/more");
  close_loop(ear.loop);
}

TEST(symbolic_links_are_not_followed) {
  Ear ear = {0};
  enter_home();
  make_dir("tree");
  make_dir("out");
  OK(symlink("../out", "tree/before"));
  listen_to(&ear, "tree", ALL_OF_A_TREE, TREE);
  OK(symlink("../out", "tree/after"));
  OK(symlink(".", "tree/circle"));
  make_file("out/unheard");
  make_file("tree/end");
  HEARD(&ear, "+after +circle +end wend");
  CHECK_EQ(inotify_of_process().watches, 1);
  close_loop(ear.loop);
}

TEST(the_root_may_be_a_link_unless_that_is_not_wanted) {
  Ear ear = {0};
  enter_home();
  make_dir("tree");
  make_dir("tree/a");
  OK(symlink("tree", "link"));
  CHECK_ERR(evloop_add_file(OK(evloop_create(NULL)), "link", ENTRIES,
                            TREE | EVLOOP_FILE_DONT_FOLLOW, ignore, NULL), ENOTDIR);
  listen_to(&ear, "link", ENTRIES, TREE);
  make_file("tree/a/x");
  HEARD(&ear, "+a/x");
}

TEST(an_event_is_delivered_once_though_two_watches_see_it) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  listen_to(&ear, ".", FILE_(ATTRIB) | FILE_(MOVE_SELF) | FILE_(DELETE_SELF), TREE);
  OK(chmod("a", 0700));
  OK(rename("a", "b"));
  OK(chmod("b", 0755));
  OK(rmdir("b"));
  OK(chmod(".", 0700));
  HEARD(&ear, "aa/ ab/ a/");
  close_loop(ear.loop);
}

/* ---- the end of a tree ---- */

TEST(a_tree_that_is_deleted_is_the_end_of_its_watcher) {
  Ear ear = {0};
  enter_home();
  make_dir("tree");
  make_dir("tree/a");
  listen_to(&ear, "tree", ENTRIES, TREE);
  OK(rmdir("tree/a"));
  OK(rmdir("tree"));
  run_to_end(ear.loop);
  HEARD(&ear, "-a/ !");
  CHECK_EQ(inotify_of_process().watches, 0);
  close_loop(ear.loop);
}

TEST(a_tree_that_is_renamed_is_the_end_of_its_watcher) {
  Ear ear = {0};
  enter_home();
  make_dir("tree");
  make_dir("tree/a");
  listen_to(&ear, "tree", ENTRIES | FILE_(MOVE_SELF), TREE);
  OK(rename("tree", "other"));
  run_to_end(ear.loop);
  HEARD(&ear, "M !");
  close_loop(ear.loop);
}

TEST(a_tree_whose_path_leads_elsewhere_ends_at_the_next_directory) {
  Ear ear = {0};
  enter_home();
  make_dir("above");
  make_dir("above/tree");
  listen_to(&ear, "above/tree", ENTRIES, TREE);
  OK(rename("above", "moved"));
  make_file("moved/tree/file");
  HEARD(&ear, "+file");
  make_dir("moved/tree/dir");
  run_to_end(ear.loop);
  HEARD(&ear, "+dir/ !");
  close_loop(ear.loop);
}

TEST(a_tree_of_a_descriptor_may_be_renamed) {
  Ear ear = {0};
  int fd;
  enter_home();
  make_dir("tree");
  fd = open_file("tree", O_PATH | O_DIRECTORY);
  ear.loop = new_loop();
  OK(evloop_add_file_fd(ear.loop, fd, ENTRIES, TREE, hear, &ear));
  OK(rename("tree", "other"));
  make_dir("other/a");
  make_file("other/a/b");
  HEARD(&ear, "+a/ +a/b");
  OK(close(fd));
  make_dir("other/c");
  run_to_end(ear.loop);
  HEARD(&ear, "+c/ !");
  close_loop(ear.loop);
}

TEST(an_unmounted_part_of_a_tree_is_reported_and_the_rest_goes_on) {
  Ear ear = {0};
  enter_home();
  if (unshare(CLONE_NEWNS) < 0) SKIP("no mount namespace can be had: %s", strerror(errno));
  OK(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
  make_dir("a");
  make_dir("a/point");
  OK(mount("files", "a/point", "tmpfs", 0, NULL));
  make_dir("a/point/x");
  listen_to(&ear, ".", ENTRIES, TREE);
  make_file("a/point/x/file");
  HEARD(&ear, "+a/point/x/file");
  OK(umount("a/point"));
  make_file("end");
  /* The order of the two is the kernel's. */
  HEARD(&ear, "Ua/point/x/ Ua/point/ +end");
  /* The directory beneath is watched from now on. */
  CHECK_EQ(inotify_of_process().watches, 3);
  make_file("a/point/file");
  HEARD(&ear, "+a/point/file");
  close_loop(ear.loop);
}

TEST(a_directory_in_two_places_is_reported_in_one) {
  Ear ear = {0};
  enter_home();
  if (unshare(CLONE_NEWNS) < 0) SKIP("no mount namespace can be had: %s", strerror(errno));
  OK(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
  make_dir("a");
  make_dir("loop");
  OK(mount(".", "loop", "none", MS_BIND, NULL));
  listen_to(&ear, ".", ENTRIES, TREE);
  make_file("loop/a/x");
  HEARD(&ear, "+a/x");
  OK(umount("loop"));
  close_loop(ear.loop);
}

/* ---- two watchers ---- */

TEST(trees_that_overlap_have_events_of_their_own) {
  Ear outer = {0}, inner = {0};
  evloop_watcher_t watcher;
  enter_home();
  make_dir("a");
  make_dir("a/b");
  outer.loop = inner.loop = new_loop();
  watcher = listen_to(&outer, ".", ENTRIES, TREE);
  listen_to(&inner, "a", ENTRIES, TREE);
  CHECK_EQ(inotify_of_process().watches, 3);
  make_file("a/b/x");
  HEARD(&outer, "+a/b/x");
  HEARD(&inner, "+b/x");
  make_dir("a/c");
  make_file("a/c/y");
  HEARD(&outer, "+a/c/ +a/c/y");
  HEARD(&inner, "+c/ +c/y");
  close_watcher(watcher);
  CHECK_EQ(inotify_of_process().watches, 3);
  make_file("a/c/z");
  HEARD(&inner, "+c/z");
  close_loop(outer.loop);
}

TEST(renames_out_of_one_tree_into_another_are_halves) {
  Ear a = {0}, b = {0};
  enter_home();
  make_dir("a");
  make_dir("b");
  make_dir("a/dir");
  a.loop = b.loop = new_loop();
  listen_to(&a, "a", ENTRIES, TREE);
  listen_to(&b, "b", ENTRIES, TREE);
  OK(rename("a/dir", "b/dir"));
  make_file("b/dir/file");
  HEARD(&b, ">dir/ +dir/file");
  HEARD(&a, "<dir/");
  make_file("b/dir/more");
  HEARD(&b, "+dir/more");
  close_loop(a.loop);
}

/* ---- limits ---- */

static void write_to(const char *path, const char *text) {
  int fd = (int)OK(open(path, O_WRONLY | O_CLOEXEC));
  CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
  OK(close(fd));
}

/* So many watches, for this case alone. */
static void own_limits(const char *watches, const char *instances) {
  char map[32];
  unsigned uid = geteuid(), gid = getegid();
  if (unshare(CLONE_NEWUSER) < 0) SKIP("no user namespace can be had: %s", strerror(errno));
  snprintf(map, sizeof map, "%u %u 1", uid, uid);
  write_to("/proc/self/uid_map", map);
  write_to("/proc/self/setgroups", "deny");
  snprintf(map, sizeof map, "%u %u 1", gid, gid);
  write_to("/proc/self/gid_map", map);
  write_to("/proc/sys/user/max_inotify_watches", watches);
  write_to("/proc/sys/user/max_inotify_instances", instances);
}

TEST(a_tree_that_has_more_directories_than_watches_is_enospc_and_none_is_left) {
  evloop_t loop = new_loop();
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("a/b");
  make_dir("a/b/c");
  own_limits("3", "9");
  CHECK_ERR(evloop_add_file(loop, ".", ENTRIES, TREE, ignore, NULL), ENOSPC);
  CHECK_EQ(inotify_of_process().fd, -1);
  ear.loop = loop;
  listen_to(&ear, "a/b/c", ENTRIES, 0);
  CHECK_ERR(evloop_add_file(loop, ".", ENTRIES, TREE, ignore, NULL), ENOSPC);
  CHECK_EQ(inotify_of_process().watches, 1);
  make_file("a/b/c/x");
  HEARD(&ear, "+x");
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  close_loop(loop);
}

static void note_error(const evloop_event_t *event, void *user_data) {
  hear(event, user_data);
  if (event->events == EVLOOP_ERROR) CHECK_EQ(event->result, -ENOSPC);
}

TEST(a_new_directory_without_a_watch_is_an_error_that_names_it) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  own_limits("2", "9");
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, ".", ENTRIES, TREE, note_error, &ear));
  make_dir("a/b");
  HEARD(&ear, "+a/b/ Ea/b");
  make_file("a/b/unheard");
  make_file("a/end");
  HEARD(&ear, "+a/end");
  close_loop(ear.loop);
}

TEST(without_an_inotify_to_spare_it_is_emfile) {
  evloop_t loop = new_loop(), other = new_loop();
  evloop_watcher_t watcher;
  enter_home();
  own_limits("9", "1");
  watcher = OK(evloop_add_file(loop, ".", ENTRIES, 0, ignore, NULL));
  CHECK_ERR(evloop_add_file(other, ".", ENTRIES, 0, ignore, NULL), EMFILE);
  close_watcher(watcher);
  OK(evloop_add_file(other, ".", ENTRIES, 0, ignore, NULL));
  CHECK_EQ(evloop_close(other), 0);
  close_loop(loop);
}

TEST(a_directory_that_may_not_be_read_is_an_error_and_the_rest_is_watched) {
  Ear ear = {0};
  enter_home();
  make_dir("secret");
  make_dir("open");
  OK(chmod("secret", 0));
  OK(chmod("open", 0777));
  OK(chmod(".", 0777));
  if (geteuid() == 0) OK(seteuid(65534));
  listen_to(&ear, ".", ENTRIES, TREE);
  HEARD(&ear, "Esecret");
  make_file("open/x");
  HEARD(&ear, "+open/x");
  if (getuid() == 0) OK(seteuid(0));
  close_loop(ear.loop);
}

/* ---- no race is lost ---- */

enum { BRANCHES = 40, LEAVES = 12 };

/* The files that events were delivered for, by their names. */
typedef struct Census {
  evloop_t loop;
  unsigned char files[BRANCHES][LEAVES];
  int found, done;
} Census;

static void count_file(const evloop_event_t *event, void *user_data) {
  Census *census = (Census *)user_data;
  char name[256];
  const char *last;
  int branch, leaf;
  CHECK_EQ(event->events & ~FILE_(ISDIR), FILE_(CREATE));
  OK(evloop_event_name(event, name, sizeof name));
  last = strrchr(name, '/');
  last = last == NULL ? name : last + 1;
  if (sscanf(last, "f%d_%d", &branch, &leaf) != 2) return;
  CHECK(branch < BRANCHES);
  CHECK(leaf < LEAVES);
  CHECK_EQ(census->files[branch][leaf]++, 0); /* no one twice */
  if (++census->found == BRANCHES * LEAVES) CHECK_EQ(evloop_stop(census->loop), 0);
}

static void *grow(void *argument) {
  char path[256];
  int branch, leaf;
  (void)argument;
  for (branch = 0; branch < BRANCHES; branch++) {
    size_t len = (size_t)snprintf(path, sizeof path, "b%d", branch);
    make_dir(path);
    for (leaf = 0; leaf < LEAVES; leaf++) {
      snprintf(path + len, sizeof path - len, "/f%d_%d", branch, leaf);
      make_file(path);
      if (leaf % 3 == 2) {
        len += (size_t)snprintf(path + len, sizeof path - len, "/d%d", leaf);
        make_dir(path);
      }
    }
  }
  return NULL;
}

TEST_TIMEOUT(each_file_is_reported_once_however_fast_its_directories_are_made, 60) {
  Census census;
  pthread_t thread;
  enter_home();
  memset(&census, 0, sizeof census);
  census.loop = new_loop();
  OK(evloop_add_file(census.loop, ".", FILE_(CREATE), TREE, count_file, &census));
  thread = start_thread(grow, NULL);
  OK(evloop_run(census.loop, EVLOOP_RUN_UNTIL_DONE));
  join(thread);
  CHECK_EQ(census.found, BRANCHES * LEAVES);
  turns(census.loop, 3);
  close_loop(census.loop);
}

/* Directories that are renamed while the loop looks. */
static void *juggle(void *argument) {
  int i;
  char from[32], to[32];
  for (i = 0; i < 400; i++) {
    snprintf(from, sizeof from, "d%d", i % 7);
    snprintf(to, sizeof to, "%sd%d", i % 3 == 0 ? "side/" : "", (i * 3 + 1) % 7);
    if (mkdir(from, 0755) < 0) CHECK_EQ(errno, EEXIST);
    if (rename(from, to) < 0) CHECK(errno == ENOTEMPTY || errno == EEXIST || errno == EINVAL);
    if (i % 5 == 0) rmdir(to);
  }
  STORE(*(int *)argument, 1);
  return NULL;
}

static void check_tree(Ear *ear, const char *path) {
  char file[128], expected[160];
  struct dirent *entry;
  DIR *dir = opendir(path[0] == '\0' ? "." : path);
  CHECK(dir != NULL);
  while ((entry = readdir(dir)) != NULL) {
    struct stat st;
    if (entry->d_name[0] == '.') continue;
    snprintf(file, sizeof file, "%.40s%.40s", path, entry->d_name);
    OK(lstat(file, &st));
    if (!S_ISDIR(st.st_mode)) continue;
    strcat(file, "/");
    check_tree(ear, file);
    strcat(file, "probe");
    make_file(file);
    snprintf(expected, sizeof expected, "+%s", file);
    HEARD(ear, expected);
    OK(unlink(file));
    expected[0] = '-';
    HEARD(ear, expected);
  }
  closedir(dir);
}

static void hear_when_calm(const evloop_event_t *event, void *user_data) {
  Ear *ear = (Ear *)user_data;
  /* What the other thread did is not looked at. */
  if (strlen(ear->text) > sizeof ear->text / 2) ear->text[0] = '\0';
  hear(event, ear);
}

TEST_TIMEOUT(a_tree_is_known_again_after_its_directories_were_juggled, 60) {
  Ear ear = {0};
  pthread_t thread;
  int done = 0;
  enter_home();
  make_dir("side");
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, ".", ENTRIES, TREE, hear_when_calm, &ear));
  thread = start_thread(juggle, &done);
  while (!LOAD(done)) turn(ear.loop);
  join(thread);
  make_file("end");
  while (strstr(ear.text, "+end") == NULL) OK(evloop_run(ear.loop, EVLOOP_RUN_ONCE));
  ear.text[0] = '\0';
  check_tree(&ear, "");
  close_loop(ear.loop);
}

TEST_TIMEOUT(a_tree_is_read_again_after_an_overflow, 60) {
  Ear ear = {0};
  char name[32];
  int i, queued = 0;
  FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
  CHECK(limit != NULL);
  CHECK(fscanf(limit, "%d", &queued) == 1);
  fclose(limit);
  enter_home();
  make_dir("before");
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, ".", ENTRIES, TREE, hear_when_calm, &ear));
  for (i = 0; i < queued / 2 + 100; i++) {
    make_file("x");
    OK(unlink("x"));
  }
  OK(rename("before", "after"));
  make_dir("new");
  for (i = 0; i < 5; i++) {
    snprintf(name, sizeof name, "new/%d", i);
    make_dir(name);
  }
  while (strchr(ear.text, '?') == NULL) turn(ear.loop);
  ear.text[0] = '\0';
  check_tree(&ear, "");
  CHECK_EQ(inotify_of_process().watches, 8);
  close_loop(ear.loop);
}

CHECK_MAIN()
