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
      OK(evloop_add_file(ear->loop, directory, FILE_(CREATE), 0, see, &seen));
  make_file(path);
  while (seen.calls == 0) OK(evloop_run(ear->loop, EVLOOP_RUN_ONCE));
  close_watcher(watcher);
  turns(ear->loop, 2);
  OK(unlink(path));
  OK(rmdir(directory));
}

/* Nothing is told. */
static void quiet(Ear *ear) {
  settle(ear);
  if (ear->text[0] != '\0') {
    printf("  heard '%s'\n", ear->text);
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
    HEARD(&ear, "D");
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
  quiet(&ear);
  write_file("old");
  HEARD(&ear, "w");
  make_file("conf");
  HEARD(&ear, "R");
  write_file("old");
  quiet(&ear);
  /* And back. */
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
    quiet(&ear);
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
  quiet(&ear);
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
  CHECK_EQ(inotify_of_process().watches, 3);
  save("conf");
  HEARD(&ear, "R");
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 3);
  close_watcher(follower);
  settle(&ear);
  CHECK_EQ(inotify_of_process().watches, 1);
  close_loop(ear.loop);
}

TEST(a_disabled_follower_is_told_later) {
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

TEST(what_cannot_be_followed_is_refused) {
  evloop_t loop = new_loop();
  enter_home();
  make_file("file");
  make_dir("dir");
  const char *nameless[] = {"/", ".", "..", "dir/", "dir/.", "dir/.."};
  for (int i = 0; i < LENGTH(nameless); i++) {
    CHECK_ERR(evloop_add_file(loop, nameless[i], FILE_(ALL), FOLLOW, hear, NULL), EINVAL);
  }
  CHECK_ERR(evloop_add_file(loop, "dir", FILE_(ALL), FOLLOW | TREE, hear, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(loop, "no/file", FILE_(ALL), FOLLOW, hear, NULL), ENOENT);
  CHECK_ERR(evloop_add_file(loop, "", FILE_(ALL), FOLLOW, hear, NULL), ENOENT);
  CHECK_ERR(evloop_add_file(loop, "file/file", FILE_(ALL), FOLLOW, hear, NULL), ENOENT);
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
  evloop_watcher_t watcher = OK(evloop_add_file(loop, "conf", FILE_(MODIFY), FOLLOW, see, &seen));
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
