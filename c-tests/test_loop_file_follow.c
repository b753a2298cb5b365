/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* File watchers that follow their path: EVLOOP_FILE_FOLLOW. */

#define _GNU_SOURCE
#include "loop_files.h"

#include <sys/wait.h>

#define FOLLOW EVLOOP_FILE_FOLLOW

static void write_file(const char *name) {
  int fd = open_file(name, O_WRONLY | O_CREAT);
  put(fd);
  OK(close(fd));
}

/* As an editor saves. */
static void save(const char *name) {
  char other[64];
  snprintf(other, sizeof other, "%s.new", name);
  write_file(other);
  OK(rename(other, name));
}

/* Until all is dealt with that inotify has reported: what happens now in a
 * directory of its own comes after that. */
static void settle(Ear *ear) {
  char directory[] = "/tmp/evloop-follow-XXXXXX", path[64];
  Seen seen;
  memset(&seen, 0, sizeof seen);
  CHECK(mkdtemp(directory) != NULL);
  snprintf(path, sizeof path, "%s/end", directory);
  evloop_watcher_t watcher =
      OK(evloop_add_file(ear->loop, directory, FILE_(CREATE), 0, record, &seen));
  make_file(path);
  while (seen.calls == 0) OK(evloop_run(ear->loop, EVLOOP_RUN_ONCE));
  close_watcher(watcher);
  turns(ear->loop, 2);
  OK(unlink(path));
  OK(rmdir(directory));
}

/* The loop delivers no event. */
static void quiet(Ear *ear) {
  settle(ear);
  if (ear->text[0] != '\0') {
    printf("  delivered '%s'\n", ear->text);
    check_exit();
  }
}

TEST(a_save_by_rename_is_followed) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  quiet(&ear);
  for (int i = 0; i < 3; i++) {
    save("conf");
    HEARD(&ear, "R");
    write_file("conf");
    HEARD(&ear, "w");
  }
  write_file("other");
  quiet(&ear);
  close_loop(ear.loop);
}

TEST(a_deletion_and_a_new_file_are_followed) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  listen_to(&ear, "conf", FILE_(MODIFY) | FILE_(DELETE_SELF), FOLLOW);
  for (int i = 0; i < 3; i++) {
    OK(unlink("conf"));
    HEARD(&ear, "D G");
    quiet(&ear);
    make_file("conf");
    HEARD(&ear, "R");
    write_file("conf");
    HEARD(&ear, "~");
  }
  close_loop(ear.loop);
}

/* Before the loop has looked: one file for another. */
TEST(several_changes_at_once_end_with_what_is_there) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  for (int i = 0; i < 5; i++) {
    save("conf");
    OK(unlink("conf"));
    make_file("conf");
  }
  settle(&ear);
  CHECK(strstr(ear.text, "R") != NULL);
  ear.text[0] = '\0';
  write_file("conf");
  HEARD(&ear, "w");
  close_loop(ear.loop);
}

TEST(what_is_not_there_yet_is_waited_for) {
  Ear ear = {0};
  enter_home();
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  CHECK_EQ(evloop_alive(ear.loop), 1);
  quiet(&ear);
  make_file("conf");
  HEARD(&ear, "R");
  write_file("conf");
  HEARD(&ear, "w");
  close_loop(ear.loop);
}

TEST(a_file_that_is_renamed_away_is_watched_until_another_comes) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  OK(rename("conf", "old"));
  HEARD(&ear, "G");
  write_file("old");
  HEARD(&ear, "w");
  make_file("conf");
  HEARD(&ear, "R");
  write_file("old");
  quiet(&ear);
  /* And back. */
  OK(rename("old", "conf"));
  HEARD(&ear, "R");
  /* Away and back, with nothing in between. */
  OK(rename("conf", "old"));
  HEARD(&ear, "G");
  OK(rename("old", "conf"));
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

TEST(a_symbolic_link_that_leads_elsewhere_is_followed) {
  Ear ear = {0}, own = {0};
  enter_home();
  make_dir("one");
  make_dir("two");
  make_file("one/conf");
  make_file("two/conf");
  OK(symlink("one", "data"));
  OK(symlink("data/conf", "conf"));
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  own.loop = ear.loop;
  listen_to(&own, "conf", FILE_(ATTRIB), FOLLOW | EVLOOP_FILE_DONT_FOLLOW);
  /* As kubelet does it. */
  OK(symlink("two", "data.new"));
  OK(rename("data.new", "data"));
  HEARD(&ear, "R");
  write_file("one/conf");
  quiet(&ear);
  write_file("two/conf");
  HEARD(&ear, "w");
  CHECK_EQ(own.text[0], '\0');
  close_loop(ear.loop);
}

TEST(a_directory_that_is_deleted_and_made_again_is_followed) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("a/b");
  make_file("a/b/conf");
  listen_to(&ear, "a/b/conf", FILE_(CLOSE_WRITE), FOLLOW);
  for (int i = 0; i < 3; i++) {
    OK(unlink("a/b/conf"));
    OK(rmdir("a/b"));
    OK(rmdir("a"));
    HEARD(&ear, "G");
    make_dir("a");
    if (i % 2) quiet(&ear);
    make_dir("a/b");
    if (i % 2) quiet(&ear);
    make_file("a/b/conf");
    HEARD(&ear, "R");
    write_file("a/b/conf");
    HEARD(&ear, "w");
  }
  close_loop(ear.loop);
}

TEST(a_directory_that_is_replaced_is_followed) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("b");
  make_file("a/conf");
  make_file("b/conf");
  listen_to(&ear, "a/conf", FILE_(CLOSE_WRITE), FOLLOW);
  OK(rename("a", "old"));
  HEARD(&ear, "G");
  OK(rename("b", "a"));
  HEARD(&ear, "R");
  save("old/conf");
  quiet(&ear);
  save("a/conf");
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

TEST(a_directory_may_be_what_is_followed) {
  Ear ear = {0};
  enter_home();
  make_dir("dir");
  listen_to(&ear, "dir", ENTRIES, FOLLOW | EVLOOP_FILE_ONLYDIR);
  make_file("dir/one");
  OK(rename("dir/one", "dir/two"));
  HEARD(&ear, "+one one=>two");
  OK(rename("dir", "old"));
  HEARD(&ear, "G");
  make_dir("dir");
  HEARD(&ear, "R");
  make_file("dir/three");
  HEARD(&ear, "+three");
  make_file("old/four");
  quiet(&ear);
  close_loop(ear.loop);
}

/* Of one file, each with its own bits. */
TEST(watchers_of_all_kinds_share_what_they_watch) {
  Ear follower = {0}, plain = {0}, directory = {0}, second = {0};
  enter_home();
  make_file("conf");
  follower.loop = plain.loop = directory.loop = second.loop = new_loop();
  listen_to(&follower, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  listen_to(&plain, "conf", FILE_(CLOSE_WRITE), 0);
  evloop_watcher_t both = listen_to(&second, "conf", FILE_(MODIFY), FOLLOW);
  listen_to(&directory, ".", ENTRIES, 0);
  write_file("conf");
  HEARD(&follower, "w");
  HEARD(&plain, "w");
  HEARD(&second, "~");
  save("conf");
  HEARD(&follower, "R");
  HEARD(&second, "R");
  HEARD(&plain, "!");
  HEARD(&directory, "+conf.new conf.new=>conf");
  close_watcher(both);
  save("conf");
  HEARD(&follower, "R");
  HEARD(&directory, "+conf.new conf.new=>conf");
  CHECK_EQ(second.text[0], '\0');
  close_loop(follower.loop);
}

TEST(a_closed_follower_leaves_nothing_watched) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  make_file("other");
  evloop_watcher_t follower = listen_to(&ear, "conf", FILE_(MODIFY), FOLLOW);
  listen_to(&ear, "other", FILE_(MODIFY), 0);
  /* The two files, /tmp and the directory in it. */
  CHECK_EQ(inotify_of_process().watches, 4);
  save("conf");
  HEARD(&ear, "R");
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 4);
  close_watcher(follower);
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 1);
  close_loop(ear.loop);
}

TEST(a_disabled_follower_has_its_event_later) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  evloop_watcher_t watcher = listen_to(&ear, "conf", FILE_(MODIFY), FOLLOW);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  save("conf");
  quiet(&ear);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

/* ---- the directories that the path leads through ---- */

TEST(a_directory_that_is_not_there_yet_is_waited_for) {
  Ear ear = {0};
  enter_home();
  listen_to(&ear, "a/b/conf", FILE_(CLOSE_WRITE), FOLLOW);
  quiet(&ear);
  make_dir("a");
  quiet(&ear);
  make_dir("a/b");
  quiet(&ear);
  make_file("a/b/conf");
  HEARD(&ear, "R");
  write_file("a/b/conf");
  HEARD(&ear, "w");
  close_loop(ear.loop);
}

TEST(a_renamed_directory_further_up_is_noticed_at_once) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("a/b");
  make_dir("a/b/c");
  make_file("a/b/c/conf");
  listen_to(&ear, "a/b/c/conf", FILE_(CLOSE_WRITE), FOLLOW);
  OK(rename("a", "old"));
  HEARD(&ear, "G");
  OK(rename("old", "a"));
  HEARD(&ear, "R");
  OK(rename("a/b", "b"));
  HEARD(&ear, "G");
  make_dir("a/b");
  make_dir("a/b/c");
  make_file("a/b/c/conf");
  HEARD(&ear, "R");
  write_file("b/c/conf");
  quiet(&ear);
  write_file("a/b/c/conf");
  HEARD(&ear, "w");
  close_loop(ear.loop);
}

/* The kernel reports its deletion to those who watch it only when it is
 * closed. */
TEST(a_deleted_directory_that_is_open_is_noticed) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  listen_to(&ear, "a/conf", FILE_(CLOSE_WRITE), FOLLOW);
  int open_one = open_file("a", O_RDONLY | O_DIRECTORY);
  OK(rmdir("a"));
  quiet(&ear);
  make_dir("a");
  make_file("a/conf");
  HEARD(&ear, "R");
  OK(close(open_one));
  int open_other = open_file("a", O_RDONLY | O_DIRECTORY);
  OK(unlink("a/conf"));
  OK(rmdir("a"));
  make_dir("a");
  HEARD(&ear, "G");
  make_file("a/conf");
  HEARD(&ear, "R");
  OK(close(open_other));
  close_loop(ear.loop);
}

/* Everything is asked for, and everything is done to what lies around. */
TEST(nothing_is_reported_of_the_directories) {
  Ear ear = {0};
  enter_home();
  make_dir("up");
  make_dir("up/etc");
  make_file("up/etc/c");
  listen_to(&ear, "up/etc/c", FILE_(ALL), FOLLOW);
  listen_to(&ear, "up/etc/d", FILE_(ALL), FOLLOW);
  write_file("up/etc/other");
  OK(chmod("up/etc/other", 0600));
  OK(rename("up/etc/other", "up/other"));
  OK(rename("up/other", "up/etc/another"));
  OK(close(open_file("up/etc", O_RDONLY | O_DIRECTORY)));
  OK(chmod("up/etc", 0700));
  OK(unlink("up/etc/another"));
  quiet(&ear);
  OK(rename("up/etc", "up/gone"));
  HEARD(&ear, "G");
  make_file("up/unrelated");
  make_dir("up/etc.new");
  quiet(&ear);
  OK(rename("up/gone", "up/etc"));
  HEARD(&ear, "R");
  /* Both at once, too. */
  for (int i = 0; i < 20; i++) {
    OK(rename("up/etc", "up/gone"));
    if (i % 2) turn(ear.loop);
    OK(rename("up/gone", "up/etc"));
    OK(rename("up", "down"));
    if (i % 3) turn(ear.loop);
    OK(rename("down", "up"));
  }
  settle(&ear);
  CHECK_EQ(strspn(ear.text, "GR "), strlen(ear.text));
  ear.text[0] = '\0';
  OK(unlink("up/etc/c"));
  HEARD(&ear, "a D G");
  OK(rmdir("up/etc"));
  OK(rmdir("up/etc.new"));
  OK(unlink("up/unrelated"));
  OK(rmdir("up"));
  make_file("unrelated");
  quiet(&ear);
  make_dir("up");
  make_dir("up/etc");
  quiet(&ear);
  make_dir("up/etc/c");
  HEARD(&ear, "R");
  make_file("up/etc/c/entry");
  HEARD(&ear, "+entry oentry wentry");
  OK(rename("up/etc/c/entry", "up/etc/c/entry2"));
  HEARD(&ear, "entry=>entry2");
  OK(rename("up/etc/c/entry2", "up/etc/entry"));
  HEARD(&ear, "<entry2");
  OK(rename("up/etc/entry", "up/etc/c/entry"));
  HEARD(&ear, ">entry");
  close_loop(ear.loop);
}

/* A directory on its own path: its events are reported as the file's. */
TEST(a_directory_that_the_path_leads_through_may_be_what_is_followed) {
  Ear ear = {0};
  enter_home();
  make_dir("dir");
  OK(symlink(".", "dir/self"));
  listen_to(&ear, "dir/self", FILE_(CREATE) | FILE_(MODIFY), FOLLOW);
  make_file("dir/one");
  HEARD(&ear, "+one");
  write_file("dir/one");
  HEARD(&ear, "~one");
  OK(unlink("dir/one"));
  quiet(&ear);
  OK(unlink("dir/self"));
  HEARD(&ear, "G");
  make_file("dir/self");
  HEARD(&ear, "+self R");
  write_file("dir/self");
  HEARD(&ear, "~");
  close_loop(ear.loop);
}

/* Where what a watch is for becomes less, when another watcher is closed. */
TEST(a_directory_stays_watched_for_all_that_it_is_watched_for) {
  Ear ear = {0}, other = {0};
  enter_home();
  make_dir("dir");
  OK(symlink(".", "dir/self"));
  listen_to(&ear, "dir/self", FILE_(ATTRIB) | FILE_(CREATE), FOLLOW);
  other.loop = ear.loop;
  evloop_watcher_t closed = listen_to(&other, "dir", FILE_(ALL), 0);
  close_watcher(closed);
  OK(chmod("dir", 0700));
  HEARD(&ear, "a/");
  OK(rename("dir/self", "dir/gone"));
  HEARD(&ear, "G");
  OK(rename("dir/gone", "dir/self"));
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

/* A busy directory costs a watcher nothing that only passes through it. */
TEST(entries_are_watched_only_where_one_may_change) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  listen_to(&ear, "a/b/conf", FILE_(CLOSE_WRITE), FOLLOW);
  CHECK_EQ(inotify_of_process().watches, 3);
  make_dir("a/b");
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 4);
  make_file("a/b/conf");
  HEARD(&ear, "R");
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 5);
  OK(unlink("a/b/conf"));
  HEARD(&ear, "G");
  settle(&ear);
  OK(rmdir("a/b"));
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 3);
  close_loop(ear.loop);
}

/* ---- symbolic links ---- */

/* As /etc/resolv.conf leads to /run/x/resolv.conf. */
TEST(the_target_of_a_link_is_followed_in_its_own_directory) {
  Ear ear = {0};
  enter_home();
  make_dir("etc");
  make_dir("run");
  make_file("run/target");
  OK(symlink("../run/target", "etc/conf"));
  listen_to(&ear, "etc/conf", FILE_(CLOSE_WRITE), FOLLOW);
  write_file("run/target");
  HEARD(&ear, "w");
  OK(unlink("run/target"));
  HEARD(&ear, "G");
  make_file("run/target");
  HEARD(&ear, "R");
  write_file("run/target");
  HEARD(&ear, "w");
  /* Replaced while it is open. */
  int old = open_file("run/target", O_RDONLY);
  save("run/target");
  HEARD(&ear, "R");
  write_file("run/target");
  HEARD(&ear, "w");
  OK(close(old));
  /* Its directory is replaced. */
  OK(rename("run", "old"));
  HEARD(&ear, "G");
  make_dir("run");
  make_file("run/target");
  HEARD(&ear, "R");
  write_file("old/target");
  quiet(&ear);
  write_file("run/target");
  HEARD(&ear, "w");
  /* And the link. */
  OK(symlink("../old/target", "etc/new"));
  OK(rename("etc/new", "etc/conf"));
  HEARD(&ear, "R");
  save("run/target");
  quiet(&ear);
  save("old/target");
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

/* Links to links, relative and absolute, of files and of directories; each in
 * a directory of its own. */
TEST(a_chain_of_links_is_followed) {
  Ear ear = {0};
  char target[128];
  enter_home();
  for (int i = 0; i < 4; i++) {
    char name[8];
    snprintf(name, sizeof name, "%d", i);
    make_dir(name);
  }
  make_dir("3/v1");
  make_dir("3/v2");
  make_file("3/v1/conf");
  make_file("3/v2/conf");
  OK(symlink("../1/./conf", "0/conf"));
  snprintf(target, sizeof target, "%s//2/../2/./data/conf", home);
  OK(symlink(target, "1/conf"));
  OK(symlink("../3/now", "2/data"));
  OK(symlink("v1/", "3/now"));
  listen_to(&ear, "0/conf", FILE_(CLOSE_WRITE), FOLLOW);
  write_file("3/v1/conf");
  HEARD(&ear, "w");
  /* Each link in turn. */
  OK(symlink("v2", "3/next"));
  OK(rename("3/next", "3/now"));
  HEARD(&ear, "R");
  OK(unlink("2/data"));
  HEARD(&ear, "G");
  OK(symlink("../3/v1", "2/data"));
  HEARD(&ear, "R");
  OK(symlink("../3/v2/conf", "1/next"));
  OK(rename("1/next", "1/conf"));
  HEARD(&ear, "R");
  write_file("3/v2/conf");
  HEARD(&ear, "w");
  OK(unlink("0/conf"));
  HEARD(&ear, "G");
  make_file("0/conf");
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

TEST(a_link_that_leads_nowhere_is_waited_with) {
  Ear ear = {0};
  enter_home();
  OK(symlink("run/x/target", "conf"));
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  quiet(&ear);
  make_dir("run");
  make_dir("run/x");
  make_file("run/x/target");
  HEARD(&ear, "R");
  write_file("run/x/target");
  HEARD(&ear, "w");
  close_loop(ear.loop);
}

/* As many as the kernel follows, and one more. */
TEST(links_are_followed_as_far_as_the_kernel_does) {
  Ear ear = {0};
  char name[8], target[8];
  enter_home();
  for (int i = 1; i <= 41; i++) {
    snprintf(name, sizeof name, "%d", i);
    snprintf(target, sizeof target, "%d", i - 1);
    OK(symlink(target, name));
  }
  make_file("0");
  ear.loop = new_loop();
  CHECK_ERR(evloop_add_file(ear.loop, "41", FILE_(MODIFY), FOLLOW, hear, &ear), ELOOP);
  listen_to(&ear, "40", FILE_(MODIFY), FOLLOW);
  save("0");
  HEARD(&ear, "R");
  /* A circle: that is reported, once. */
  OK(symlink("40", "0.new"));
  OK(rename("0.new", "0"));
  HEARD(&ear, "E");
  save("0");
  HEARD(&ear, "R");
  close_loop(ear.loop);
}

TEST(a_long_path_is_followed_as_far_as_it_is_watched) {
  Ear ear = {0};
  char path[3000] = "";
  enter_home();
  make_file("conf");
  make_dir("d");
  for (int i = 0; i < 300; i++) strcat(path, "d/../");
  strcat(path, "conf");
  listen_to(&ear, path, FILE_(CLOSE_WRITE), FOLLOW);
  write_file("conf");
  HEARD(&ear, "w");
  CHECK_EQ(inotify_of_process().watches, 4);
  close_loop(ear.loop);
}

TEST(directories_that_may_not_be_read_are_passed) {
  Ear ear = {0};
  if (geteuid() == 0) OK(setegid(65534)), OK(seteuid(65534));
  enter_home();
  make_dir("run");
  make_dir("run/closed");
  make_file("run/closed/conf");
  OK(symlink("run/closed/conf", "conf"));
  OK(chmod("run/closed", 0300));
  OK(chmod("run", 0300));
  listen_to(&ear, "conf", FILE_(CLOSE_WRITE), FOLLOW);
  write_file("run/closed/conf");
  HEARD(&ear, "w");
  /* By its own path its directory has to be readable. */
  CHECK_ERR(evloop_add_file(ear.loop, "run/closed/conf", FILE_(ALL), FOLLOW, hear, &ear), EACCES);
  CHECK_ERR(evloop_add_file(ear.loop, "run/x/conf", FILE_(ALL), FOLLOW, hear, &ear), EACCES);
  OK(unlink("run/closed/conf"));
  HEARD(&ear, "E");
  OK(chmod("run", 0700));
  OK(chmod("run/closed", 0700));
  if (getuid() == 0) OK(seteuid(0)), OK(setegid(0));
  close_loop(ear.loop);
}

TEST(what_cannot_be_followed_is_refused) {
  evloop_t loop = new_loop();
  enter_home();
  make_file("file");
  make_dir("dir");
  const char *nameless[] = {"/", ".", "..", "dir/", "dir/.", "dir/.."};
  for (int i = 0; AT_ROW(i, nameless); i++) {
    CHECK_ERR(evloop_add_file(loop, nameless[i], FILE_(ALL), FOLLOW, hear, NULL), EINVAL);
  }
  CHECK_ERR(evloop_add_file(loop, "dir", FILE_(ALL), FOLLOW | TREE, hear, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(loop, "", FILE_(ALL), FOLLOW, hear, NULL), ENOENT);
  CHECK_ERR(evloop_add_file(loop, "file/file", FILE_(ALL), FOLLOW, hear, NULL), ENOTDIR);
  CHECK_ERR(evloop_add_file(loop, "file", FILE_(ALL), FOLLOW | EVLOOP_FILE_ONLYDIR, hear, NULL), ENOTDIR);
  CHECK_ERR(evloop_add_file_fd(loop, 0, FILE_(ALL), FOLLOW, hear, NULL), EINVAL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  CHECK_EQ(inotify_of_process().fd, -1);
  close_loop(loop);
}

/* ---- threads, fork, embedding ---- */

TEST(a_loop_that_runs_hears_of_a_follower_that_another_thread_adds) {
  static Seen seen;
  Runner runner;
  enter_home();
  make_file("conf");
  evloop_t loop = sleeping_loop(&runner);
  evloop_watcher_t watcher = OK(evloop_add_file(loop, "conf", FILE_(MODIFY), FOLLOW, record,
                                                &seen));
  save("conf");
  UNTIL(LOAD(seen.calls) == 1);
  close_watcher(watcher);
  stop_runner(&runner);
}

TEST(a_child_follows_on) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  listen_to(&ear, "conf", FILE_(MODIFY), FOLLOW);
  listen_to(&ear, "absent", FILE_(MODIFY), FOLLOW);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(ear.loop), 0);
    save("conf");
    HEARD(&ear, "R");
    make_file("absent");
    HEARD(&ear, "R");
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  HEARD(&ear, "R R");
  close_loop(ear.loop);
}

TEST(an_embedded_loop_is_readable_when_something_is_replaced) {
  Ear ear = {0};
  enter_home();
  make_file("conf");
  listen_to(&ear, "conf", FILE_(MODIFY), FOLLOW);
  int fd = (int)OK(evloop_fileno(ear.loop));
  while (OK(evloop_embed_prepare(ear.loop)) == 1) OK(evloop_embed_dispatch(ear.loop));
  save("conf");
  for (int i = 0; i < 100 && ear.text[0] == '\0'; i++) {
    CHECK(readable(fd, -1));
    OK(evloop_embed_dispatch(ear.loop));
    while (ear.text[0] == '\0' && OK(evloop_embed_prepare(ear.loop)) == 1) OK(evloop_embed_dispatch(ear.loop));
  }
  CHECK_EQ(strcmp(ear.text, "R"), 0);
}

CHECK_MAIN()
