/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Watchers of files and of single directories. */

#define _GNU_SOURCE
#include "loop_files.h"

#include <sched.h>
#include <sys/mount.h>

/* ---- which events are delivered ---- */

TEST(a_file_watcher_reports_what_happens_to_its_file) {
  Ear ear = {0};
  int fd;
  enter_home();
  make_file("file");
  listen_to(&ear, "file", FILE_(ALL), 0);
  fd = open_file("file", O_RDWR);
  HEARD(&ear, "o");
  put(fd);
  HEARD(&ear, "~");
  OK(lseek(fd, 0, SEEK_SET));
  CHECK_EQ(read(fd, &(char){0}, 1), 1);
  HEARD(&ear, "r");
  OK(fchmod(fd, 0600));
  HEARD(&ear, "a");
  OK(close(fd));
  HEARD(&ear, "w");
  OK(close(open_file("file", O_RDONLY)));
  HEARD(&ear, "o c");
  OK(rename("file", "other"));
  HEARD(&ear, "M");
  close_loop(ear.loop);
}

TEST(a_directory_watcher_reports_the_name_of_the_entry) {
  Ear ear = {0};
  enter_home();
  listen_to(&ear, ".", ENTRIES | FILE_(CLOSE_WRITE), 0);
  make_file("one");
  make_dir("two");
  make_file("two/deeper");
  OK(unlink("one"));
  OK(unlink("two/deeper"));
  OK(rmdir("two"));
  HEARD(&ear, "+one wone +two/ -one -two/");
  close_loop(ear.loop);
}

TEST(a_rename_is_one_event_with_both_names) {
  Ear ear = {0};
  enter_home();
  listen_to(&ear, ".", ENTRIES, 0);
  make_file("old");
  OK(rename("old", "new"));
  make_dir("dir");
  OK(rename("dir", "ectory"));
  make_file("over");
  OK(rename("over", "new"));
  HEARD(&ear, "+old old=>new +dir/ dir=>ectory/ +over over=>new");
  close_loop(ear.loop);
}

TEST(half_a_rename_is_delivered_alone_and_nothing_overtakes_it) {
  Ear ear = {0};
  enter_home();
  make_dir("in");
  make_dir("out");
  listen_to(&ear, "in", ENTRIES, 0);
  make_file("in/a");
  OK(rename("in/a", "out/a"));
  make_file("in/a");
  OK(rename("out/a", "in/b"));
  HEARD(&ear, "+a <a +a >b");
  close_loop(ear.loop);
}

TEST(each_half_of_a_rename_is_for_who_asked_for_it) {
  Ear from = {0}, to = {0};
  enter_home();
  from.loop = to.loop = new_loop();
  listen_to(&from, ".", FILE_(MOVED_FROM), 0);
  listen_to(&to, ".", FILE_(MOVED_TO), 0);
  make_file("old");
  OK(rename("old", "new"));
  HEARD(&from, "<old");
  HEARD(&to, ">new");
  close_loop(from.loop);
}

TEST(a_rename_between_directories_of_two_watchers_is_two_events) {
  Ear ear = {0};
  enter_home();
  make_dir("a");
  make_dir("b");
  listen_to(&ear, "a", ENTRIES, 0);
  listen_to(&ear, "b", ENTRIES, 0);
  make_file("a/old");
  OK(rename("a/old", "b/new"));
  HEARD(&ear, "+old <old >new");
  close_loop(ear.loop);
}

TEST(a_file_is_watched_by_a_descriptor_whatever_its_names_are) {
  Ear ear = {0};
  int fd;
  enter_home();
  fd = open_file("file", O_RDWR | O_CREAT);
  OK(unlink("file"));
  ear.loop = new_loop();
  OK(evloop_add_file_fd(ear.loop, fd, FILE_(MODIFY) | FILE_(CLOSE_WRITE), 0, hear, &ear));
  put(fd);
  HEARD(&ear, "~");
  OK(close(fd));
  HEARD(&ear, "w !");
  close_loop(ear.loop);
}

TEST(a_descriptor_that_is_only_a_path_will_do) {
  Ear ear = {0};
  int fd;
  enter_home();
  fd = open_file(".", O_PATH);
  ear.loop = new_loop();
  OK(evloop_add_file_fd(ear.loop, fd, ENTRIES, EVLOOP_FILE_ONLYDIR, hear, &ear));
  OK(close(fd));
  make_file("x");
  HEARD(&ear, "+x");
  close_loop(ear.loop);
}

TEST(a_link_itself_can_be_watched) {
  Ear ear = {0};
  enter_home();
  make_file("file");
  OK(symlink("file", "link"));
  listen_to(&ear, "link", FILE_(ATTRIB) | FILE_(DELETE_SELF), EVLOOP_FILE_DONT_FOLLOW);
  OK(chmod("file", 0600));
  OK(unlink("link"));
  HEARD(&ear, "a D !"); /* the number of its names */
  close_loop(ear.loop);
}

TEST(a_path_is_of_the_directory_that_was_current) {
  Ear ear = {0};
  evloop_watcher_t first;
  enter_home();
  make_dir("dir");
  listen_to(&ear, "dir", FILE_(DELETE), 0);
  first = listen_to(&ear, "dir", ENTRIES, 0);
  OK(chdir("/"));
  /* Now it is found by its path again, to be for less. */
  close_watcher(first);
  CHECK_EQ(inotify_of_process().mask, FILE_(DELETE));
  close_loop(ear.loop);
}

/* ---- several watchers ---- */

TEST(watchers_of_one_file_share_its_watch_and_hear_their_own_bits) {
  Ear a = {0}, b = {0};
  evloop_watcher_t second;
  int fd;
  enter_home();
  fd = open_file("file", O_RDWR | O_CREAT);
  a.loop = b.loop = new_loop();
  listen_to(&a, "file", FILE_(MODIFY), 0);
  second = OK(evloop_add_file_fd(b.loop, fd, FILE_(ATTRIB), 0, hear, &b));
  CHECK_EQ(inotify_of_process().watches, 1);
  CHECK_EQ(inotify_of_process().mask, FILE_(MODIFY) | FILE_(ATTRIB));
  put(fd);
  OK(fchmod(fd, 0600));
  HEARD(&b, "a");
  HEARD(&a, "~");
  close_watcher(second);
  CHECK_EQ(inotify_of_process().mask, FILE_(MODIFY));
  OK(fchmod(fd, 0640));
  put(fd);
  HEARD(&a, "~");
  close_loop(a.loop);
}

TEST(what_happened_before_a_watcher_was_added_is_not_for_it) {
  Ear a = {0}, b = {0};
  enter_home();
  a.loop = b.loop = new_loop();
  listen_to(&a, ".", ENTRIES, 0);
  make_file("before");
  listen_to(&b, ".", ENTRIES, 0);
  make_file("after");
  HEARD(&a, "+before +after");
  HEARD(&b, "+after");
  close_loop(a.loop);
}

TEST(the_inotify_is_there_from_the_first_watcher_to_the_last) {
  Ear ear = {0};
  evloop_watcher_t first, second;
  int before;
  enter_home();
  ear.loop = new_loop();
  before = open_descriptors();
  CHECK_ERR(evloop_add_file(ear.loop, "missing", ENTRIES, 0, hear, &ear), ENOENT);
  CHECK_EQ(open_descriptors(), before);
  first = listen_to(&ear, ".", ENTRIES, 0);
  second = listen_to(&ear, "/", ENTRIES, 0);
  CHECK_EQ(open_descriptors(), before + 1);
  close_watcher(first);
  CHECK_EQ(inotify_of_process().watches, 1);
  close_watcher(second);
  CHECK_EQ(open_descriptors(), before);
  listen_to(&ear, ".", ENTRIES, 0);
  make_file("again");
  HEARD(&ear, "+again");
  close_loop(ear.loop);
}

static void close_other(const evloop_event_t *event, void *user_data) {
  evloop_watcher_t *pair = (evloop_watcher_t *)user_data;
  int other = pair[0] == event->watcher;
  close_watcher(pair[other]);
  close_watcher(event->watcher);
  pair[other] = -1;
  CHECK_ERR(evloop_event_name(event, NULL, 0), ESTALE);
}

TEST(a_watcher_that_another_one_closes_has_no_more_events) {
  evloop_watcher_t pair[2];
  evloop_t loop = new_loop();
  enter_home();
  pair[0] = OK(evloop_add_file(loop, ".", ENTRIES, 0, close_other, pair));
  pair[1] = OK(evloop_add_file(loop, ".", ENTRIES, 0, close_other, pair));
  make_file("x");
  make_file("y");
  run_to_end(loop);
  CHECK_EQ((pair[0] == -1) + (pair[1] == -1), 1);
  CHECK_EQ(inotify_of_process().fd, -1);
  close_loop(loop);
}

/* ---- the end of what is watched ---- */

TEST(a_deleted_file_is_the_end_of_its_watcher) {
  Ear ear = {0};
  evloop_watcher_t watcher;
  enter_home();
  make_file("file");
  watcher = listen_to(&ear, "file", FILE_(DELETE_SELF), 0);
  OK(unlink("file"));
  run_to_end(ear.loop);
  HEARD(&ear, "D !");
  make_file("file");
  CHECK_EQ(turn(ear.loop), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  HEARD(&ear, "E");
  CHECK_EQ(turn(ear.loop), 0);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  HEARD(&ear, "E");
  close_loop(ear.loop);
}

TEST(a_file_that_is_renamed_over_another_one_ends_that) {
  Ear ear = {0};
  enter_home();
  make_file("old");
  make_file("new");
  listen_to(&ear, "old", FILE_(DELETE_SELF) | FILE_(MOVE_SELF), 0);
  OK(rename("new", "old"));
  HEARD(&ear, "D !");
  close_loop(ear.loop);
}

TEST(an_unmounted_file_system_is_reported) {
  Ear ear = {0};
  enter_home();
  if (unshare(CLONE_NEWNS) < 0) SKIP("no mount namespace can be had: %s", strerror(errno));
  OK(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
  make_dir("point");
  OK(mount("files", "point", "tmpfs", 0, NULL));
  make_file("point/file");
  listen_to(&ear, "point/file", FILE_(MODIFY), 0);
  OK(umount("point"));
  run_to_end(ear.loop);
  HEARD(&ear, "U !");
  close_loop(ear.loop);
}

/* ---- when there are too many ---- */

static void make_and_delete(int pairs) {
  int i;
  for (i = 0; i < pairs; i++) {
    make_file("x");
    OK(unlink("x"));
  }
}

/* How many events there were until the queue ran over. */
static int until_overflow(const char *text) {
  const char *end = strchr(text, '?');
  CHECK(end != NULL);
  return (int)(end - text) / 3;
}

static void count_or_hear(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  if (event->events == FILE_(OVERFLOW)) {
    CHECK_EQ(evloop_event_name(event, NULL, 0), 0);
    seen->errors++;
  }
  record(event, seen);
}

TEST(events_that_the_kernel_lost_are_reported_to_every_watcher) {
  Seen a = {0}, b = {0};
  evloop_t loop = new_loop();
  enter_home();
  OK(evloop_add_file(loop, ".", ENTRIES, 0, count_or_hear, &a));
  OK(evloop_add_file(loop, "/", FILE_(DELETE_SELF), 0, count_or_hear, &b));
  FILE *limit = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
  int queued = 0;
  CHECK(limit != NULL);
  CHECK(fscanf(limit, "%d", &queued) == 1);
  fclose(limit);
  make_and_delete(queued / 2 + 100);
  while (a.errors == 0 || b.errors == 0) turn(loop);
  CHECK_EQ(a.calls, queued + 1);
  CHECK_EQ(b.calls, 1);
  make_file("y");
  while (a.calls < queued + 2) turn(loop);
  close_loop(loop);
}

TEST(what_waits_for_a_disabled_watcher_is_bounded_and_says_so) {
  Ear ear = {0};
  static char text[65536];
  evloop_watcher_t watcher;
  evloop_event_t event;
  enter_home();
  ear.loop = new_loop();
  watcher = OK(evloop_add_file(ear.loop, ".", FILE_(CREATE) | FILE_(DELETE), 0, NULL, NULL));
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  make_and_delete(5000);
  turns(ear.loop, 20);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  do {
    CHECK_EQ(evloop_wait(ear.loop, &event, 1, 20 * SECOND), 1);
    write_down(&event, text, sizeof text);
  } while (event.events != FILE_(OVERFLOW));
  CHECK_EQ(until_overflow(text), 8192);
  make_file("y");
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, 20 * SECOND), 1);
  CHECK_EQ(event.events, FILE_(CREATE));
  close_loop(ear.loop);
}

/* ---- names ---- */

TEST(a_name_that_does_not_fit_is_cut_and_its_length_returned) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  char buf[4] = "....";
  enter_home();
  OK(evloop_add_file(loop, ".", FILE_(CREATE), 0, NULL, NULL));
  make_file("sixsix");
  CHECK_EQ(evloop_wait(loop, &event, 1, 20 * SECOND), 1);
  CHECK_EQ(evloop_event_name(&event, NULL, 0), 6);
  CHECK_EQ(evloop_event_name(&event, buf, sizeof buf), 6);
  CHECK(strcmp(buf, "six") == 0);
  CHECK_EQ(evloop_event_old_name(&event, buf, 1), 0);
  CHECK(strcmp(buf, "") == 0);
  CHECK_ERR(evloop_event_name(&event, NULL, 1), EINVAL);
  CHECK_ERR(evloop_event_name(NULL, buf, sizeof buf), EINVAL);
  close_loop(loop);
}

TEST(names_are_there_until_the_next_wait) {
  evloop_t loop = new_loop();
  evloop_event_t events[8], last;
  char name[8];
  int i;
  enter_home();
  OK(evloop_add_file(loop, ".", FILE_(CREATE), 0, NULL, NULL));
  for (i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%d", i);
    make_file(name);
  }
  CHECK_EQ(evloop_wait(loop, events, 2, 20 * SECOND), 2);
  /* The third is a record that waits, and its name with it. */
  CHECK_EQ(evloop_wait(loop, &last, 1, 20 * SECOND), 1);
  CHECK_EQ(evloop_event_name(&last, name, sizeof name), 1);
  CHECK(strcmp(name, "2") == 0);
  CHECK_EQ(evloop_wait(loop, events + 2, 1, 0), 0);
  for (i = 0; i < 2; i++) CHECK_ERR(evloop_event_name(&events[i], NULL, 0), ENOENT);
  CHECK_ERR(evloop_event_name(&last, NULL, 0), ENOENT);
  close_loop(loop);
}

TEST(events_of_other_kinds_have_no_names) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  timer(loop, 0, 0, NULL, NULL);
  CHECK_EQ(evloop_wait(loop, &event, 1, 20 * SECOND), 1);
  CHECK_ERR(evloop_event_name(&event, NULL, 0), EINVAL);
  CHECK_ERR(evloop_event_old_name(&event, NULL, 0), EINVAL);
  close_loop(loop);
}

/* ---- what cannot be watched ---- */

TEST(bad_arguments_are_refused_and_leave_nothing) {
  evloop_t loop = new_loop();
  int before = open_descriptors();
  char longer[5000];
  enter_home();
  make_file("file");
  memset(longer, 'x', sizeof longer);
  longer[sizeof longer - 1] = '\0';
  CHECK_ERR(evloop_add_file(loop, NULL, ENTRIES, 0, ignore, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(loop, ".", 0, 0, ignore, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(loop, ".", FILE_(OVERFLOW), 0, ignore, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(loop, ".", ENTRIES, 2, ignore, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(loop, "", ENTRIES, 0, ignore, NULL), ENOENT);
  CHECK_ERR(evloop_add_file(loop, "missing", ENTRIES, 0, ignore, NULL), ENOENT);
  CHECK_ERR(evloop_add_file(loop, "file/x", ENTRIES, 0, ignore, NULL), ENOTDIR);
  CHECK_ERR(evloop_add_file(loop, "file", ENTRIES, EVLOOP_FILE_ONLYDIR, ignore, NULL), ENOTDIR);
  CHECK_ERR(evloop_add_file(loop, "file", ENTRIES, TREE, ignore, NULL), ENOTDIR);
  CHECK_ERR(evloop_add_file(loop, longer, ENTRIES, 0, ignore, NULL), ENAMETOOLONG);
  CHECK_ERR(evloop_add_file_fd(loop, -1, ENTRIES, 0, ignore, NULL), EBADF);
  CHECK_ERR(evloop_add_file_fd(loop, CLOSED, ENTRIES, 0, ignore, NULL), EBADF);
  CHECK_ERR(evloop_add_file_fd(loop, 0, ENTRIES, EVLOOP_FILE_DONT_FOLLOW, ignore, NULL), EINVAL);
  CHECK_ERR(evloop_add_file(0, ".", ENTRIES, 0, ignore, NULL), ESTALE);
  CHECK_EQ(open_descriptors(), before);
  close_loop(loop);
}

TEST(a_file_that_may_not_be_read_is_refused) {
  evloop_t loop = new_loop();
  enter_home();
  make_file("secret");
  OK(chmod("secret", 0));
  OK(chmod(home, 0755));
  if (geteuid() == 0) OK(seteuid(65534));
  CHECK_ERR(evloop_add_file(loop, "secret", FILE_(MODIFY), 0, ignore, NULL), EACCES);
  if (getuid() == 0) OK(seteuid(0));
  close_loop(loop);
}

TEST(without_a_descriptor_to_spare_it_is_emfile_and_nothing_is_left) {
  evloop_t loop = new_loop();
  int spare = open_file("/", O_RDONLY);
  enter_home();
  set_limit((rlim_t)spare + 1);
  CHECK_ERR(evloop_add_file(loop, ".", ENTRIES, 0, ignore, NULL), EMFILE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  OK(close(spare));
  OK(evloop_add_file(loop, ".", ENTRIES, 0, ignore, NULL));
  close_loop(loop);
}

CHECK_MAIN()
