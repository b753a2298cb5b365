/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* EVFILT_VNODE: what happens to a file, by a descriptor of it. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <limits.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#define VNODE EVLOOP_KQ_FILTER_VNODE
#define NOTE(name) EVLOOP_KQ_NOTE_##name
#define USES (NOTE(OPEN) | NOTE(CLOSE) | NOTE(CLOSE_WRITE) | NOTE(READ))
#define CHANGES                                                                      \
  (NOTE(DELETE) | NOTE(WRITE) | NOTE(EXTEND) | NOTE(ATTRIB) | NOTE(LINK) | NOTE(RENAME) | NOTE(REVOKE))
#define ALL (CHANGES | USES)

/* A directory of the case's own, and it is the working directory. */
static char home[64];

static void leave_home(void) {
  char command[96];
  if (chdir("/") < 0) return;
  snprintf(command, sizeof command, "rm -rf %s", home);
  if (system(command) != 0) perror(command);
}

static void enter_home(void) {
  snprintf(home, sizeof home, "/tmp/kqueue-vnode-XXXXXX");
  CHECK(mkdtemp(home) != NULL);
  OK(chdir(home));
  CHECK_EQ(atexit(leave_home), 0);
}

static int open_file(const char *name, int flags) {
  return (int)OK(open(name, flags | O_CLOEXEC, 0644));
}

/* A queue that watches a new file; the file. */
typedef struct Watched {
  evloop_kqueue_t kq;
  int fd;
} Watched;

static void watch(evloop_kqueue_t kq, int fd, int flags, uint32_t notes) {
  apply(kq, (uint64_t)fd, VNODE, ADD | flags, notes, 0, 9);
}

static Watched watch_file(uint32_t notes) {
  Watched made;
  enter_home();
  made.fd = open_file("file", O_RDWR | O_CREAT);
  made.kq = new_kqueue();
  watch(made.kq, made.fd, CLEAR, notes);
  return made;
}

static Watched watch_directory(uint32_t notes) {
  Watched made;
  enter_home();
  OK(mkdir("dir", 0755));
  made.fd = open_file("dir", O_RDONLY | O_DIRECTORY);
  made.kq = new_kqueue();
  watch(made.kq, made.fd, CLEAR, notes);
  return made;
}

static uint32_t notes_of(const Watched *w) {
  Event event = expect_event(w->kq, (uint64_t)w->fd, VNODE);
  CHECK_EQ(event.udata, 9);
  CHECK_EQ(event.data, 0);
  return event.fflags;
}

/* This one thing happened, and no other. */
static void expect_notes(const Watched *w, uint32_t notes) {
  CHECK_EQ(notes_of(w), notes);
  expect_nothing(w->kq);
}

/* ---- files ---- */

TEST(writing_that_makes_a_file_longer_is_write_and_extend) {
  Watched w = watch_file(CHANGES);
  expect_nothing(w.kq);
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  CHECK_EQ(pwrite(w.fd, "y", 1, 0), 1);
  expect_notes(&w, NOTE(WRITE));
}

TEST(truncating_is_a_change_of_attributes_too) {
  Watched w = watch_file(CHANGES);
  OK(ftruncate(w.fd, 100));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  OK(ftruncate(w.fd, 1));
  expect_notes(&w, NOTE(WRITE) | NOTE(ATTRIB));
}

TEST(truncating_is_seen_by_who_asks_for_attributes_alone) {
  Watched w = watch_file(NOTE(ATTRIB));
  OK(ftruncate(w.fd, 100));
  expect_nothing(w.kq);
  OK(ftruncate(w.fd, 1));
  expect_notes(&w, NOTE(WRITE) | NOTE(ATTRIB));
}

TEST(mode_owner_and_extended_attributes_are_attrib) {
  Watched w = watch_file(CHANGES);
  OK(fchmod(w.fd, 0600));
  expect_notes(&w, NOTE(ATTRIB));
  OK(fchown(w.fd, getuid(), getgid()));
  expect_notes(&w, NOTE(ATTRIB));
  if (fsetxattr(w.fd, "user.kqueue", "x", 1, 0) == 0) expect_notes(&w, NOTE(ATTRIB));
  OK(futimens(w.fd, NULL));
  expect_notes(&w, NOTE(ATTRIB));
}

TEST(a_new_name_is_link_and_the_loss_of_one_is_delete) {
  Watched w = watch_file(CHANGES);
  OK(link("file", "other"));
  expect_notes(&w, NOTE(LINK));
  OK(unlink("other"));
  expect_notes(&w, NOTE(DELETE) | NOTE(LINK));
  OK(unlink("file"));
  expect_notes(&w, NOTE(DELETE));
}

TEST(a_link_and_a_change_of_mode_at_once_are_both_reported) {
  Watched w = watch_file(CHANGES);
  OK(link("file", "other"));
  OK(fchmod(w.fd, 0600));
  expect_notes(&w, NOTE(LINK) | NOTE(ATTRIB));
}

TEST(changes_in_a_row_are_reported_once_each) {
  Watched w = watch_file(CHANGES);
  OK(fchmod(w.fd, 0600));
  CHECK_EQ(write(w.fd, "1234", 4), 4);
  expect_notes(&w, NOTE(ATTRIB) | NOTE(WRITE) | NOTE(EXTEND));
  OK(fchmod(w.fd, 0644));
  OK(ftruncate(w.fd, 1000));
  expect_notes(&w, NOTE(ATTRIB) | NOTE(WRITE) | NOTE(EXTEND));
  OK(ftruncate(w.fd, 2000));
  OK(link("file", "other"));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND) | NOTE(LINK));
}

/* Where inotify ends its watch, as the last name is not the first. */
TEST(a_file_that_loses_all_its_names_at_once_is_watched_on) {
  Watched w = watch_file(CHANGES);
  int same = (int)OK(dup(w.fd));
  OK(link("file", "other"));
  expect_notes(&w, NOTE(LINK));
  watch(w.kq, same, CLEAR, NOTE(EXTEND));
  OK(unlink("file"));
  OK(unlink("other"));
  expect_notes(&w, NOTE(DELETE));
  CHECK_EQ(write(w.fd, "1234", 4), 4);
  Event events[3];
  CHECK_EQ(take(w.kq, events, 3, -1), 2);
  for (int i = 0; i < 2; i++) CHECK_EQ(events[i].fflags, NOTE(WRITE) | NOTE(EXTEND));
  expect_nothing(w.kq);
  apply(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0);
  apply(w.kq, (uint64_t)same, VNODE, DELETE, 0, 0, 0);
}

TEST(only_the_loss_of_all_names_is_asked_for) {
  Watched w = watch_file(NOTE(DELETE));
  OK(link("file", "other"));
  OK(unlink("file"));
  OK(unlink("other"));
  expect_notes(&w, NOTE(DELETE));
}

/* A file system may give a new one the inode of the last. */
TEST(a_file_in_place_of_another_is_not_watched) {
  Watched w = watch_file(CHANGES);
  OK(close(w.fd));
  OK(unlink("file"));
  CHECK_EQ(open_file("other", O_RDWR | O_CREAT), w.fd);
  CHECK_EQ(write(w.fd, "1234", 4), 4);
  expect_nothing(w.kq);
  CHECK_ERR(try_change(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0), ENOENT);
  watch(w.kq, w.fd, CLEAR, CHANGES);
  OK(close(w.fd));
  OK(unlink("other"));
  CHECK_EQ(open_file("third", O_RDWR | O_CREAT), w.fd);
  watch(w.kq, w.fd, CLEAR, CHANGES);
  expect_nothing(w.kq);
  CHECK_EQ(write(w.fd, "1234", 4), 4);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(renaming_is_rename_and_the_file_is_followed) {
  Watched w = watch_file(CHANGES);
  OK(rename("file", "other"));
  expect_notes(&w, NOTE(RENAME));
  close(open_file("file", O_RDWR | O_CREAT));
  int fd = open_file("file", O_RDWR);
  put(fd);
  expect_nothing(w.kq);
  fd = open_file("other", O_RDWR);
  put(fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(renaming_another_file_over_it_is_delete) {
  Watched w = watch_file(CHANGES);
  close(open_file("other", O_RDWR | O_CREAT));
  OK(rename("other", "file"));
  expect_notes(&w, NOTE(DELETE));
}

TEST(an_unlinked_file_is_watched_on) {
  Watched w;
  enter_home();
  w.fd = open_file("file", O_RDWR | O_CREAT);
  OK(unlink("file"));
  w.kq = new_kqueue();
  watch(w.kq, w.fd, CLEAR, CHANGES);
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  OK(fchmod(w.fd, 0600));
  expect_notes(&w, NOTE(ATTRIB));
}

TEST(a_file_that_never_had_a_name_is_watched) {
  Watched w;
  enter_home();
  w.fd = open_file(".", O_TMPFILE | O_RDWR);
  w.kq = new_kqueue();
  watch(w.kq, w.fd, CLEAR, CHANGES);
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(opening_reading_and_closing_are_distinguished) {
  Watched w = watch_file(USES);
  put(w.fd);
  expect_nothing(w.kq);
  int fd = open_file("file", O_RDONLY);
  expect_notes(&w, NOTE(OPEN));
  char byte;
  CHECK_EQ(read(fd, &byte, 1), 1);
  expect_notes(&w, NOTE(READ));
  OK(close(fd));
  expect_notes(&w, NOTE(CLOSE));
  fd = open_file("file", O_WRONLY);
  OK(close(fd));
  expect_notes(&w, NOTE(OPEN) | NOTE(CLOSE_WRITE));
}

/* One thing that happens to the file of a case, or to its directory. */
static void append(const Watched *w) {
  CHECK_EQ(pwrite(w->fd, "12345678", 8, 0), 8);
}

static void overwrite(const Watched *w) {
  CHECK_EQ(pwrite(w->fd, "1", 1, 0), 1);
}

static void shorten(const Watched *w) {
  OK(ftruncate(w->fd, 1));
}

static void change_mode(const Watched *w) {
  OK(fchmod(w->fd, 0600));
}

static void add_name(const Watched *w) {
  (void)w;
  OK(link("file", "name"));
}

static void remove_name(const Watched *w) {
  (void)w;
  OK(unlink("other"));
}

static void rename_file(const Watched *w) {
  (void)w;
  OK(rename("file", "renamed"));
}

static void create_in_directory(const Watched *w) {
  (void)w;
  OK(close(open_file("dir/new", O_RDWR | O_CREAT)));
}

static void make_subdirectory(const Watched *w) {
  (void)w;
  OK(mkdir("dir/sub", 0755));
}

static void move_into_directory(const Watched *w) {
  (void)w;
  OK(rename("plain", "dir/moved"));
}

static const struct {
  void (*act)(const Watched *w);
  bool is_directory;
  uint32_t notes;
} happenings[] = {
  {append, false, NOTE(WRITE) | NOTE(EXTEND)},
  {overwrite, false, NOTE(WRITE)},
  {shorten, false, NOTE(WRITE) | NOTE(ATTRIB)},
  {change_mode, false, NOTE(ATTRIB)},
  {add_name, false, NOTE(LINK)},
  {remove_name, false, NOTE(DELETE) | NOTE(LINK)},
  {rename_file, false, NOTE(RENAME)},
  {create_in_directory, true, NOTE(WRITE)},
  {make_subdirectory, true, NOTE(WRITE) | NOTE(LINK)},
  {move_into_directory, true, NOTE(WRITE) | NOTE(EXTEND)},
};

/* A file of four bytes and two names, or a directory. */
static Watched watch_subject(bool is_directory, uint32_t notes) {
  Watched made;
  char directory[] = "subject-XXXXXX";
  OK(chdir(home));
  CHECK(mkdtemp(directory) != NULL);
  OK(chdir(directory));
  OK(mkdir("dir", 0755));
  OK(close(open_file("plain", O_RDWR | O_CREAT)));
  int file = open_file("file", O_RDWR | O_CREAT);
  CHECK_EQ(write(file, "1234", 4), 4);
  OK(link("file", "other"));
  made.fd = is_directory ? open_file("dir", O_RDONLY | O_DIRECTORY) : file;
  made.kq = new_kqueue();
  watch(made.kq, made.fd, CLEAR, notes);
  return made;
}

TEST(one_bit_that_is_asked_for_brings_all_that_happened_with_it) {
  static const uint32_t bits[] = {NOTE(DELETE), NOTE(WRITE), NOTE(EXTEND),
                                  NOTE(ATTRIB), NOTE(LINK),  NOTE(RENAME)};
  enter_home();
  for (int h = 0; AT_ROW(h, happenings); h++) {
    for (int b = 0; AT_ROW(b, bits); b++) {
      Watched w = watch_subject(happenings[h].is_directory, bits[b]);
      happenings[h].act(&w);
      if (happenings[h].notes & bits[b]) expect_notes(&w, happenings[h].notes);
      else CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
      OK(close(w.fd));
      OK(evloop_kqueue_close(w.kq));
    }
  }
}

TEST(only_what_is_asked_for_is_an_event) {
  Watched w = watch_file(NOTE(DELETE));
  put(w.fd);
  OK(fchmod(w.fd, 0600));
  OK(link("file", "other"));
  expect_nothing(w.kq);
  OK(unlink("file"));
  expect_notes(&w, NOTE(DELETE) | NOTE(LINK));
}

TEST(what_happens_between_two_looks_is_one_event) {
  Watched w = watch_file(ALL);
  put(w.fd);
  OK(fchmod(w.fd, 0600));
  OK(rename("file", "other"));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND) | NOTE(ATTRIB) | NOTE(RENAME));
}

TEST(symbolic_links_are_watched_themselves) {
  Watched w;
  enter_home();
  OK(symlink("nowhere", "link"));
  w.fd = open_file("link", O_PATH | O_NOFOLLOW);
  w.kq = new_kqueue();
  watch(w.kq, w.fd, CLEAR, CHANGES);
  OK(rename("link", "other"));
  expect_notes(&w, NOTE(RENAME));
  OK(unlink("other"));
  expect_notes(&w, NOTE(DELETE));
}

/* ---- directories ---- */

TEST(entries_of_a_directory_are_write) {
  Watched w = watch_directory(CHANGES);
  int fd = open_file("dir/a", O_RDWR | O_CREAT);
  expect_notes(&w, NOTE(WRITE));
  put(fd);
  OK(fchmod(fd, 0600));
  expect_nothing(w.kq);
  OK(rename("dir/a", "dir/b"));
  expect_notes(&w, NOTE(WRITE));
  OK(unlink("dir/b"));
  expect_notes(&w, NOTE(WRITE));
  OK(symlink("x", "dir/c"));
  expect_notes(&w, NOTE(WRITE));
}

TEST(subdirectories_are_links) {
  Watched w = watch_directory(CHANGES);
  OK(mkdir("dir/sub", 0755));
  expect_notes(&w, NOTE(WRITE) | NOTE(LINK));
  OK(rename("dir/sub", "dir/renamed"));
  expect_notes(&w, NOTE(WRITE));
  OK(rmdir("dir/renamed"));
  expect_notes(&w, NOTE(WRITE) | NOTE(LINK));
}

TEST(moving_into_a_directory_and_out_of_it_is_extend) {
  Watched w = watch_directory(CHANGES);
  close(open_file("a", O_RDWR | O_CREAT));
  OK(rename("a", "dir/a"));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  OK(rename("dir/a", "b"));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  OK(mkdir("sub", 0755));
  OK(rename("sub", "dir/sub"));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND) | NOTE(LINK));
}

TEST(removing_an_open_directory_is_delete) {
  Watched w = watch_directory(CHANGES);
  OK(mkdir("another", 0755));
  OK(rmdir("another"));
  expect_nothing(w.kq);
  OK(rmdir("dir"));
  expect_notes(&w, NOTE(DELETE));
}

TEST(a_directory_is_followed_to_where_it_is_moved) {
  Watched w = watch_directory(NOTE(DELETE));
  OK(mkdir("elsewhere", 0755));
  OK(rename("dir", "elsewhere/dir"));
  expect_nothing(w.kq);
  OK(rmdir("elsewhere/dir"));
  expect_notes(&w, NOTE(DELETE));
}

TEST(a_directory_that_another_replaces_is_deleted) {
  Watched w = watch_directory(CHANGES);
  OK(mkdir("other", 0755));
  OK(rename("other", "dir"));
  expect_notes(&w, NOTE(DELETE));
}

TEST(a_directory_and_the_one_that_it_lies_in_are_both_watched) {
  Watched w = watch_directory(CHANGES);
  int parent = open_file(".", O_RDONLY | O_DIRECTORY);
  watch(w.kq, parent, CLEAR, CHANGES);
  OK(rmdir("dir"));
  Event events[4];
  CHECK_EQ(take(w.kq, events, 4, -1), 2);
  for (int i = 0; i < 2; i++) {
    bool is_parent = events[i].ident == (uint64_t)parent;
    CHECK_EQ(events[i].fflags, is_parent ? NOTE(WRITE) | NOTE(LINK) : NOTE(DELETE));
  }
  CHECK(events[0].ident != events[1].ident);
  expect_nothing(w.kq);
  apply(w.kq, (uint64_t)parent, VNODE, DELETE, 0, 0, 0);
  OK(mkdir("x", 0755));
  expect_nothing(w.kq);
}

/* ---- how knotes work together ---- */

TEST(without_clear_an_event_stays) {
  Watched w;
  enter_home();
  w.fd = open_file("file", O_RDWR | O_CREAT);
  w.kq = new_kqueue();
  watch(w.kq, w.fd, 0, CHANGES);
  put(w.fd);
  CHECK_EQ(notes_of(&w), NOTE(WRITE) | NOTE(EXTEND));
  CHECK(is_pending(w.kq));
  OK(fchmod(w.fd, 0600));
  CHECK_EQ(take(w.kq, &(Event){0}, 1, -1), 1);
  CHECK_EQ(notes_of(&w), NOTE(WRITE) | NOTE(EXTEND) | NOTE(ATTRIB));
}

TEST(once_is_once) {
  Watched w;
  enter_home();
  w.fd = open_file("file", O_RDWR | O_CREAT);
  w.kq = new_kqueue();
  int before = open_descriptors();
  watch(w.kq, w.fd, ONESHOT, CHANGES);
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  put(w.fd);
  expect_nothing(w.kq);
  CHECK_ERR(try_change(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0), ENOENT);
  CHECK_EQ(open_descriptors(), before);
}

TEST(what_happens_while_disabled_is_kept) {
  Watched w = watch_file(CHANGES);
  apply(w.kq, (uint64_t)w.fd, VNODE, DISABLE, CHANGES, 0, 9);
  put(w.fd);
  OK(fchmod(w.fd, 0600));
  CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
  apply(w.kq, (uint64_t)w.fd, VNODE, ENABLE, CHANGES, 0, 9);
  CHECK_EQ(notes_of(&w), NOTE(WRITE) | NOTE(EXTEND) | NOTE(ATTRIB));
}

TEST(dispatch_disables_after_one_event) {
  Watched w = watch_file(CHANGES);
  apply(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0);
  watch(w.kq, w.fd, CLEAR | DISPATCH, CHANGES);
  put(w.fd);
  CHECK_EQ(notes_of(&w), NOTE(WRITE) | NOTE(EXTEND));
  put(w.fd);
  CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
  apply(w.kq, (uint64_t)w.fd, VNODE, ENABLE, CHANGES, 0, 9);
  CHECK_EQ(notes_of(&w), NOTE(WRITE) | NOTE(EXTEND));
}

TEST(a_knote_added_later_has_no_event_of_earlier_changes) {
  Watched w = watch_file(NOTE(ATTRIB));
  int second = open_file("file", O_RDWR);
  OK(fchmod(w.fd, 0600));
  put(w.fd);
  watch(w.kq, second, CLEAR, CHANGES);
  expect_notes(&w, NOTE(ATTRIB));
  CHECK_EQ(pwrite(w.fd, "y", 1, 0), 1);
  Event event = expect_event(w.kq, (uint64_t)second, VNODE);
  CHECK_EQ(event.fflags, NOTE(WRITE));
}

TEST(what_is_asked_for_can_be_changed) {
  Watched w = watch_file(NOTE(WRITE));
  OK(fchmod(w.fd, 0600));
  expect_nothing(w.kq);
  watch(w.kq, w.fd, CLEAR, NOTE(ATTRIB));
  expect_nothing(w.kq);
  OK(fchmod(w.fd, 0644));
  expect_notes(&w, NOTE(ATTRIB));
  CHECK_EQ(pwrite(w.fd, "y", 1, 0), 1);
  expect_nothing(w.kq);
}

/* One inotify watch for the file: each has its own share of it. */
TEST(descriptors_of_one_file_have_knotes_of_their_own) {
  Watched w = watch_file(NOTE(WRITE));
  int second = open_file("file", O_RDONLY);
  watch(w.kq, second, CLEAR, NOTE(ATTRIB));
  OK(fchmod(w.fd, 0600));
  Event event = expect_event(w.kq, (uint64_t)second, VNODE);
  CHECK_EQ(event.fflags, NOTE(ATTRIB));
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
  apply(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0);
  put(w.fd);
  expect_nothing(w.kq);
  OK(fchmod(w.fd, 0644));
  CHECK_EQ(expect_event(w.kq, (uint64_t)second, VNODE).fflags, NOTE(ATTRIB));
}

TEST(a_queue_has_one_inotify_and_closes_it) {
  enter_home();
  evloop_kqueue_t kq = new_kqueue();
  int files[20], before = 0;
  for (int i = 0; i < 20; i++) {
    char name[8];
    snprintf(name, sizeof name, "f%d", i);
    files[i] = open_file(name, O_RDWR | O_CREAT);
  }
  before = open_descriptors();
  for (int i = 0; i < 20; i++) watch(kq, files[i], CLEAR, CHANGES & ~NOTE(REVOKE));
  CHECK_EQ(open_descriptors(), before + 1);
  for (int i = 0; i < 20; i++) apply(kq, (uint64_t)files[i], VNODE, DELETE, 0, 0, 0);
  CHECK_EQ(open_descriptors(), before);
  for (int i = 0; i < 20; i++) watch(kq, files[i], CLEAR, CHANGES);
  CHECK_EQ(open_descriptors(), before + 3);
  OK(evloop_kqueue_close(kq));
  CHECK_EQ(open_descriptors(), before - 4);
}

TEST(read_and_vnode_share_a_watch) {
  Watched w = watch_file(CHANGES);
  int end = open_file("file", O_RDONLY);
  apply(w.kq, (uint64_t)end, KQ_READ, ADD | CLEAR, 0, 0, 5);
  expect_nothing(w.kq);
  put(w.fd);
  Event events[4];
  CHECK_EQ(take(w.kq, events, 4, -1), 2);
  int read_first = events[0].filter == KQ_READ;
  CHECK_EQ(events[!read_first].filter, KQ_READ);
  CHECK_EQ(events[!read_first].data, 1);
  CHECK_EQ(events[read_first].fflags, NOTE(WRITE) | NOTE(EXTEND));
  apply(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0);
  put(w.fd);
  CHECK_EQ(expect_event(w.kq, (uint64_t)end, KQ_READ).data, 2);
}

TEST(read_and_vnode_of_one_descriptor) {
  Watched w = watch_file(NOTE(ATTRIB));
  apply(w.kq, (uint64_t)w.fd, KQ_READ, ADD | CLEAR, 0, 0, 5);
  expect_nothing(w.kq);
  CHECK_EQ(pwrite(w.fd, "abc", 3, 0), 3);
  CHECK_EQ(expect_event(w.kq, (uint64_t)w.fd, KQ_READ).data, 3);
  OK(fchmod(w.fd, 0600));
  expect_notes(&w, NOTE(ATTRIB));
}

/* ---- descriptors that go ---- */

TEST(a_closed_descriptor_has_no_events) {
  Watched w = watch_file(CHANGES);
  OK(close(w.fd));
  int fd = open_file("file", O_RDWR);
  put(dup2(fd, w.fd + 5));
  close(fd);
  CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
  expect_nothing(w.kq);
}

TEST(a_descriptor_used_for_another_file_has_no_events_of_the_first) {
  Watched w = watch_file(CHANGES);
  int keep = (int)OK(fcntl(w.fd, F_DUPFD_CLOEXEC, 50));
  int other = open_file("other", O_RDWR | O_CREAT);
  OK(dup2(other, w.fd));
  put(keep);
  put(w.fd);
  CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
  expect_nothing(w.kq);
  watch(w.kq, w.fd, CLEAR, CHANGES);
  put(keep);
  expect_nothing(w.kq);
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(a_descriptor_used_again_before_anything_happens_is_watched_again) {
  Watched w = watch_file(NOTE(ATTRIB));
  int other = open_file("other", O_RDWR | O_CREAT);
  OK(dup2(other, w.fd));
  watch(w.kq, w.fd, CLEAR, NOTE(WRITE));
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(a_file_that_is_no_more_leaves_nothing) {
  Watched w = watch_file(CHANGES);
  OK(unlink("file"));
  OK(close(w.fd));
  CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
  expect_nothing(w.kq);
  int again = open_file("file", O_RDWR | O_CREAT);
  CHECK_EQ(again, w.fd);
  CHECK_ERR(try_change(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0), ENOENT);
}

/* ---- what is refused ---- */

TEST(what_is_no_file_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  Pipe p = new_pipe();
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_ERR(try_change(kq, (uint64_t)p.r, VNODE, ADD, CHANGES, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)pair[0], VNODE, ADD, CHANGES, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)event_fd(0), VNODE, ADD, CHANGES, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 999, VNODE, ADD, CHANGES, 0, 0), EBADF);
  CHECK_EQ(open_descriptors(), before + 5);
}

TEST(memory_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = (int)OK(memfd_create("x", MFD_CLOEXEC));
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, ADD, CHANGES, 0, 0), ENOTSUP);
}

TEST(unknown_notes_are_refused) {
  enter_home();
  evloop_kqueue_t kq = new_kqueue();
  int fd = open_file("file", O_RDWR | O_CREAT);
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, ADD, 0x800, 0, 0), EINVAL);
  watch(kq, fd, CLEAR, NOTE(WRITE));
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, ADD | CLEAR, 0x800, 0, 0), EINVAL);
  put(fd);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, VNODE).fflags, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(named_pipes_and_devices_are_files) {
  enter_home();
  evloop_kqueue_t kq = new_kqueue();
  OK(mkfifo("fifo", 0600));
  int fifo = open_file("fifo", O_RDWR), null = open_file("/dev/null", O_RDWR);
  watch(kq, fifo, CLEAR, CHANGES);
  watch(kq, null, CLEAR, NOTE(DELETE));
  OK(chmod("fifo", 0644));
  CHECK_EQ(expect_event(kq, (uint64_t)fifo, VNODE).fflags, NOTE(ATTRIB));
}

TEST(without_descriptors_nothing_is_left_behind) {
  int fd = regular_file();
  evloop_kqueue_t kq = new_kqueue();
  Filling all = use_up_descriptors();
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, ADD | CLEAR, CHANGES, 0, 0), EMFILE);
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, DELETE, 0, 0, 0), ENOENT);
  OK(close(all.last));
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, ADD | CLEAR, CHANGES, 0, 0), EMFILE);
  watch(kq, fd, CLEAR, NOTE(WRITE));
  put(fd);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, VNODE).fflags, NOTE(WRITE) | NOTE(EXTEND));
  give_back_descriptors(all);
}

/* A child that may not open the file has a descriptor of it. */
static void without_read_permission(int fd) {
  evloop_kqueue_t kq = new_kqueue();
  OK(setuid(65534));
  CHECK_ERR(try_change(kq, (uint64_t)fd, VNODE, ADD, NOTE(WRITE), 0, 0), EACCES);
  /* READ looks for itself. */
  CHECK_EQ(lseek(fd, 0, SEEK_END), 0);
  apply(kq, (uint64_t)fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
  CHECK_EQ(take(kq, &(Event){0}, 1, 0), 0);
  CHECK_EQ(pwrite(fd, "ab", 2, 0), 2);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, KQ_READ).data, 2);
}

TEST(a_file_that_may_not_be_read_is_refused) {
  if (getuid() != 0) SKIP("only root can give up its rights");
  int status;
  enter_home();
  int fd = open_file("file", O_RDWR | O_CREAT);
  OK(fchmod(fd, 0));
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    without_read_permission(fd);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
}

/* ---- the rest ---- */

static void *unlink_later(void *argument) {
  (void)argument;
  wait_until_main_is_asleep();
  OK(unlink("file"));
  return NULL;
}

TEST(a_thread_that_waits_is_woken) {
  Watched w = watch_file(NOTE(DELETE));
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, unlink_later, NULL), 0);
  CHECK_EQ(notes_of(&w), NOTE(DELETE));
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(the_queues_descriptor_says_that_there_is_an_event) {
  Watched w = watch_file(CHANGES);
  CHECK(!is_pending(w.kq));
  put(w.fd);
  CHECK(is_pending(w.kq));
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST_TIMEOUT(nothing_is_lost_when_inotify_overflows, 60) {
  long limit = 0;
  FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
  CHECK(file != NULL);
  CHECK_EQ(fscanf(file, "%ld", &limit), 1);
  fclose(file);
  Watched w = watch_file(CHANGES);
  int other = open_file("other", O_RDWR | O_CREAT), third = open_file("third", O_RDWR | O_CREAT);
  watch(w.kq, other, CLEAR, NOTE(ATTRIB));
  watch(w.kq, third, CLEAR, CHANGES);
  OK(mkdir("dir", 0755));
  int directory = open_file("dir", O_RDONLY | O_DIRECTORY);
  watch(w.kq, directory, CLEAR, NOTE(DELETE));
  /* Two files in turn, so that no event is like the one before. */
  for (long i = 0; i < limit / 2 + 2; i++) {
    OK(fchmod(w.fd, 0600));
    OK(fchmod(other, 0600));
  }
  OK(unlink("file"));
  OK(rename("third", "fourth"));
  OK(rmdir("dir"));
  uint32_t seen[4] = {0, 0, 0, 0};
  const int files[4] = {w.fd, other, third, directory};
  Event events[4];
  for (int count; (count = take(w.kq, events, 4, 0)) > 0;) {
    for (int i = 0; i < count; i++) {
      for (int file = 0; file < 4; file++) {
        if (events[i].ident == (uint64_t)files[file]) seen[file] |= events[i].fflags;
      }
    }
  }
  /* The queue reports every change that inotify may have lost. Only links and
   * deletions are known exactly: the queue compares the counts of links. */
  uint32_t perhaps = NOTE(WRITE) | NOTE(EXTEND) | NOTE(ATTRIB) | NOTE(RENAME);
  CHECK_EQ(seen[0], NOTE(DELETE) | perhaps);
  CHECK_EQ(seen[1], NOTE(ATTRIB));
  CHECK_EQ(seen[2], perhaps);
  CHECK_EQ(seen[3], NOTE(DELETE));
  CHECK(!is_pending(w.kq));
}

TEST(a_forked_child_leaves_the_parents_watches_alone) {
  Watched w = watch_file(CHANGES);
  int status;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_ERR(try_change(w.kq, (uint64_t)w.fd, VNODE, DELETE, 0, 0, 0), ECHILD);
    OK(evloop_kqueue_close(w.kq));
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  put(w.fd);
  expect_notes(&w, NOTE(WRITE) | NOTE(EXTEND));
}

TEST(a_copy_of_a_queue_after_a_fork_watches_for_itself) {
  Watched w;
  int status;
  enter_home();
  w.fd = open_file("file", O_RDWR | O_CREAT);
  w.kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  watch(w.kq, w.fd, CLEAR, CHANGES);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    expect_nothing(w.kq);
    OK(fchmod(w.fd, 0600));
    expect_notes(&w, NOTE(ATTRIB));
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  expect_notes(&w, NOTE(ATTRIB));
}

/* ---- everything at once ---- */

typedef struct Busy {
  evloop_kqueue_t kq;
  unsigned seed;
  bool stop;
  pthread_t thread;
} Busy;

static bool is_over(Busy *b) {
  return __atomic_load_n(&b->stop, __ATOMIC_RELAXED);
}

/* Files and directories come, go and are moved. */
static void *change_files(void *argument) {
  Busy *b = (Busy *)argument;
  char file[16], directory[16], inside[48];
  while (!is_over(b)) {
    snprintf(file, sizeof file, "f%d", rand_r(&b->seed) % 8);
    snprintf(directory, sizeof directory, "d%d", rand_r(&b->seed) % 4);
    snprintf(inside, sizeof inside, "%s/x%d", directory, rand_r(&b->seed) % 4);
    int fd = open(file, O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (fd >= 0 && ftruncate(fd, rand_r(&b->seed) % 9) == 0) close(fd);
    int results[] = {mkdir(directory, 0755), mkdir(inside, 0755), rename(file, inside)};
    if (results[2] < 0) unlink(file);
    if (rand_r(&b->seed) % 2) rename(inside, file);
    rmdir(inside);
    unlink(inside);
    rmdir(directory);
  }
  return NULL;
}

static void *take_events(void *argument) {
  Busy *b = (Busy *)argument;
  Event events[8];
  while (!is_over(b)) OK(take(b->kq, events, 8, MS));
  return NULL;
}

/* Opens another file at a descriptor that a queue may have watched. */
static void reopen(int *fd, unsigned *seed) {
  char name[32];
  if (*fd > 0) close(*fd);
  snprintf(name, sizeof name, "%c%d", rand_r(seed) % 2 ? 'd' : 'f', rand_r(seed) % 4);
  *fd = open(name, O_RDONLY | O_CLOEXEC);
}

static void change_at_random(evloop_kqueue_t kq, int fd, unsigned *seed) {
  static const int flags[] = {CLEAR, 0, ONESHOT, DISPATCH, CLEAR | DISPATCH};
  bool is_vnode = rand_r(seed) % 3 != 0;
  int what = rand_r(seed) % 4 ? ADD | flags[rand_r(seed) % LENGTH(flags)] : DELETE;
  uint32_t notes = is_vnode ? (uint32_t)rand_r(seed) & ALL : 0;
  int result = try_change(kq, (uint64_t)fd, is_vnode ? VNODE : KQ_READ, what, notes, 0, 0);
  if (result < 0) {
    CHECK_EQ(result, -ENOENT);
    CHECK_EQ(what, DELETE);
  }
}

TEST_TIMEOUT(files_that_come_and_go_while_others_change_and_wait, 60) {
  Busy busy[4];
  unsigned seed = 1;
  int fds[32] = {0};
  enter_home();
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; i < 4; i++) {
    Busy one = {kq, (unsigned)i, false, 0};
    busy[i] = one;
    CHECK_EQ(pthread_create(&busy[i].thread, NULL, i < 2 ? change_files : take_events, &busy[i]), 0);
  }
  for (int i = 0; i < 4000; i++) {
    int *fd = &fds[rand_r(&seed) % 32];
    if (*fd <= 0 || rand_r(&seed) % 6 == 0) reopen(fd, &seed);
    if (*fd > 0) change_at_random(kq, *fd, &seed);
  }
  for (int i = 0; i < 4; i++) __atomic_store_n(&busy[i].stop, true, __ATOMIC_RELAXED);
  for (int i = 0; i < 4; i++) CHECK_EQ(pthread_join(busy[i].thread, NULL), 0);
  /* It still works. */
  int fd = open_file("last", O_RDWR | O_CREAT);
  for (int i = 0; i < 32; i++) {
    if (fds[i] > 0) close(fds[i]);
  }
  Event events[64];
  while (take(kq, events, 64, 0) > 0) continue;
  watch(kq, fd, CLEAR, CHANGES);
  put(fd);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, VNODE).fflags, NOTE(WRITE) | NOTE(EXTEND));
  OK(evloop_kqueue_close(kq));
}

/* ---- unmounting ---- */

static void own_mounts(void) {
  if (unshare(CLONE_NEWNS) < 0) SKIP("no mount namespace can be had: %s", strerror(errno));
  OK(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
  OK(mkdir("mount", 0755));
  OK(mount("kqueue", "mount", "tmpfs", 0, NULL));
}

TEST(unmounting_is_revoke) {
  Watched w;
  enter_home();
  own_mounts();
  w.fd = open_file("mount/file", O_RDWR | O_CREAT);
  w.kq = new_kqueue();
  watch(w.kq, w.fd, CLEAR, NOTE(REVOKE));
  OK(mkdir("second", 0755));
  OK(mount("second", "second", "tmpfs", 0, NULL));
  OK(umount("second"));
  CHECK_EQ(take(w.kq, &(Event){0}, 1, 0), 0);
  OK(umount2("mount", MNT_DETACH));
  Event event = expect_event(w.kq, (uint64_t)w.fd, VNODE);
  CHECK_EQ(event.fflags, NOTE(REVOKE));
  CHECK_EQ(event.flags, CLEAR | KQ_EOF);
  expect_nothing(w.kq);
}

CHECK_MAIN()
