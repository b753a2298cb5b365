/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* EVFILT_FS: mounts and unmounts, in a mount namespace of the case's own. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define FS EVLOOP_KQ_FILTER_FS
#define MOUNTED EVLOOP_KQ_VQ_MOUNT
#define UNMOUNTED EVLOOP_KQ_VQ_UNMOUNT

static char point[64];

static void remove_point(void) {
  umount2(point, MNT_DETACH);
  rmdir(point);
}

static void own_mounts(void) {
  if (unshare(CLONE_NEWNS) < 0) SKIP("no mount namespace can be had: %s", strerror(errno));
  OK(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL));
  snprintf(point, sizeof point, "/tmp/kqueue-fs-XXXXXX");
  CHECK(mkdtemp(point) != NULL);
  CHECK_EQ(atexit(remove_point), 0);
}

static void mount_one(void) {
  OK(mount("kqueue", point, "tmpfs", 0, NULL));
}

static evloop_kqueue_t watching(uint32_t bits) {
  own_mounts();
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 0, FS, ADD, bits, 0, 4);
  expect_nothing(kq);
  return kq;
}

static void expect_bits(evloop_kqueue_t kq, uint32_t bits) {
  Event event = expect_event(kq, 0, FS);
  CHECK_EQ(event.fflags, bits);
  CHECK_EQ(event.flags, CLEAR);
  CHECK_EQ(event.data, 0);
  CHECK_EQ(event.udata, 4);
  expect_nothing(kq);
}

TEST(mounts_and_unmounts_are_reported) {
  evloop_kqueue_t kq = watching(0);
  mount_one();
  expect_bits(kq, MOUNTED);
  OK(umount(point));
  expect_bits(kq, UNMOUNTED);
}

TEST(only_what_is_asked_for_is_reported) {
  evloop_kqueue_t kq = watching(UNMOUNTED);
  mount_one();
  CHECK_EQ(take(kq, &(Event){0}, 1, 0), 0);
  expect_nothing(kq);
  OK(umount(point));
  expect_bits(kq, UNMOUNTED);
}

/* The kernel reports a change once, to the first poll of any caller. The queue
 * keeps it for the next wait. */
TEST(who_polls_the_queue_takes_nothing_from_it) {
  evloop_kqueue_t kq = watching(MOUNTED);
  CHECK(!is_pending(kq));
  mount_one();
  CHECK(is_pending(kq));
  CHECK(is_pending(kq));
  expect_bits(kq, MOUNTED);
}

TEST(it_is_not_pending_before_anything_happens) {
  own_mounts();
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 0, FS, ADD, 0, 0, 4);
  CHECK(!is_pending(kq));
}

TEST(mounts_that_were_moved_came_and_went) {
  char inside[96];
  own_mounts();
  mount_one();
  snprintf(inside, sizeof inside, "%s/a", point);
  OK(mkdir(inside, 0755));
  OK(mount("second", inside, "tmpfs", 0, NULL));
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, 0, FS, ADD, 0, 0, 4);
  char other[96];
  snprintf(other, sizeof other, "%s/b", point);
  OK(mkdir(other, 0755));
  OK(mount(inside, other, "none", MS_MOVE, NULL));
  expect_bits(kq, MOUNTED | UNMOUNTED);
  OK(umount(other));
}

TEST(remounting_is_nothing) {
  evloop_kqueue_t kq = watching(0);
  mount_one();
  expect_bits(kq, MOUNTED);
  OK(mount("none", point, "none", MS_REMOUNT | MS_RDONLY | MS_BIND, NULL));
  CHECK_EQ(take(kq, &(Event){0}, 1, 0), 0);
  expect_nothing(kq);
}

static void *mount_and_poll(void *argument) {
  struct pollfd pollfd = {*(int *)argument, POLLIN, 0};
  wait_until_main_is_asleep();
  mount_one();
  for (int i = 0; i < 1000; i++) poll(&pollfd, 1, 0);
  return NULL;
}

TEST(a_thread_that_waits_is_woken_while_others_poll) {
  evloop_kqueue_t kq = watching(0);
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, mount_and_poll, &fd), 0);
  expect_bits(kq, MOUNTED);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(each_knote_has_its_event_and_the_last_closes_all) {
  own_mounts();
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  apply(kq, 0, FS, ADD, MOUNTED, 0, 1);
  apply(kq, 1, FS, ADD, UNMOUNTED, 0, 2);
  CHECK_EQ(open_descriptors(), before + 2);
  mount_one();
  CHECK_EQ(expect_event(kq, 0, FS).udata, 1);
  OK(umount(point));
  CHECK_EQ(expect_event(kq, 1, FS).udata, 2);
  apply(kq, 0, FS, DELETE, 0, 0, 0);
  apply(kq, 1, FS, DELETE, 0, 0, 0);
  CHECK_EQ(open_descriptors(), before);
}

TEST(what_happens_while_disabled_is_kept) {
  evloop_kqueue_t kq = watching(0);
  apply(kq, 0, FS, DISABLE, 0, 0, 4);
  mount_one();
  CHECK_EQ(take(kq, &(Event){0}, 1, 0), 0);
  apply(kq, 0, FS, ENABLE, 0, 0, 4);
  expect_bits(kq, MOUNTED);
}

TEST(a_copy_of_a_queue_after_a_fork_watches_for_itself) {
  int status;
  own_mounts();
  evloop_kqueue_t kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  apply(kq, 0, FS, ADD, 0, 0, 4);
  expect_nothing(kq);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    expect_nothing(kq);
    mount_one();
    expect_bits(kq, MOUNTED);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  expect_bits(kq, MOUNTED);
}

TEST(what_cannot_be_seen_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  for (uint32_t bit = 1; bit < 0x100; bit <<= 1) {
    if (bit & (MOUNTED | UNMOUNTED)) continue;
    CHECK_ERR(try_change(kq, 0, FS, ADD, MOUNTED | bit, 0, 0), ENOTSUP);
  }
  CHECK_ERR(try_change(kq, 0, FS, ADD, 0x100, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 0, FS, DELETE, 0, 0, 0), ENOENT);
  CHECK_EQ(open_descriptors(), before);
}

TEST(without_descriptors_nothing_is_left_behind) {
  evloop_kqueue_t kq = new_kqueue();
  Filling all = use_up_descriptors();
  CHECK_ERR(try_change(kq, 0, FS, ADD, 0, 0, 0), EMFILE);
  OK(close(all.last));
  CHECK_ERR(try_change(kq, 0, FS, ADD, 0, 0, 0), EMFILE);
  OK(close(all.last - 1));
  apply(kq, 0, FS, ADD, 0, 0, 0);
  give_back_descriptors(all);
}

CHECK_MAIN()
