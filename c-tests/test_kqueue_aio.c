/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* EVFILT_AIO: reading, writing and syncing in the background. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#include <sys/mman.h>

#define KQ_AIO EVLOOP_KQ_FILTER_AIO

static int new_file(const char *contents) {
  int fd = OK(memfd_create("aio", MFD_CLOEXEC));
  CHECK_EQ(write(fd, contents, strlen(contents)), (ssize_t)strlen(contents));
  return fd;
}

/* The next event, which is of this operation. */
static Event done(evloop_kqueue_t kq, uint64_t ident) {
  return expect_event(kq, ident, KQ_AIO);
}

TEST(what_is_read_in_the_background_arrives_as_an_event) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = new_file("hello, world");
  char buffer[32] = "";
  OK(evloop_kqueue_aio_read(kq, fd, buffer, 5, 7, 11, 0xfeedull << 40));
  Event event = done(kq, 11);
  CHECK_EQ(event.data, 5);
  CHECK_EQ(event.fflags, 0);
  CHECK_EQ(event.udata, 0xfeedull << 40);
  CHECK(strcmp(buffer, "world") == 0);
  expect_nothing(kq);
  OK(evloop_kqueue_close(kq));
}

TEST(the_end_of_the_file_is_no_bytes) {
  evloop_kqueue_t kq = new_kqueue();
  char buffer[4];
  OK(evloop_kqueue_aio_read(kq, new_file("abc"), buffer, 4, 3, 1, 0));
  Event event = done(kq, 1);
  CHECK_EQ(event.data, 0);
  CHECK_EQ(event.fflags, 0);
}

TEST(writing_and_syncing_in_the_background_reach_the_file) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = new_file("----------");
  char buffer[16] = "";
  OK(evloop_kqueue_aio_write(kq, fd, "abc", 3, 4, 1, 0));
  CHECK_EQ(done(kq, 1).data, 3);
  OK(evloop_kqueue_aio_fsync(kq, fd, 0, 2, 0));
  Event event = done(kq, 2);
  CHECK_EQ(event.data, 0);
  CHECK_EQ(event.fflags, 0);
  OK(evloop_kqueue_aio_fsync(kq, fd, EVLOOP_KQ_AIO_DATASYNC, 2, 0));
  CHECK_EQ(done(kq, 2).fflags, 0);
  CHECK_EQ(pread(fd, buffer, 10, 0), 10);
  CHECK(strcmp(buffer, "----abc---") == 0);
}

TEST(a_negative_offset_is_the_position_of_the_file) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = new_file("abcdef");
  char buffer[3] = "";
  CHECK_EQ(lseek(fd, 2, SEEK_SET), 2);
  OK(evloop_kqueue_aio_read(kq, fd, buffer, 2, -1, 1, 0));
  CHECK_EQ(done(kq, 1).data, 2);
  CHECK(strcmp(buffer, "cd") == 0);
  CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
}

TEST(what_fails_says_so_in_its_event) {
  evloop_kqueue_t kq = new_kqueue();
  char buffer[4];
  int fd = OK(open("/dev/null", O_WRONLY | O_CLOEXEC));
  OK(evloop_kqueue_aio_read(kq, fd, buffer, 4, -1, 1, 0));
  Event event = done(kq, 1);
  CHECK_EQ(event.data, -1);
  CHECK_EQ(event.fflags, EBADF);
  OK(evloop_kqueue_aio_read(kq, 1000000, buffer, 4, -1, 1, 0));
  CHECK_EQ(done(kq, 1).fflags, EBADF);
}

enum { NUMBERS = 100 };

static bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

/* Tries operations on each descriptor that was not open before, but for the
 * queue's public one; how many these are. */
static int operate_on_own(evloop_kqueue_t kq, const bool *before) {
  int found = 0;
  char buffer[8] = "";
  for (int fd = 0; fd < NUMBERS; fd++) {
    if (before[fd] || !is_open(fd) || fd == OK(evloop_kqueue_fileno(kq))) continue;
    CHECK_ERR(evloop_kqueue_aio_read(kq, fd, buffer, 8, -1, 1, 0), EINVAL);
    CHECK_ERR(evloop_kqueue_aio_write(kq, fd, buffer, 8, -1, 1, 0), EINVAL);
    CHECK_ERR(evloop_kqueue_aio_fsync(kq, fd, 0, 1, 0), EINVAL);
    found++;
  }
  return found;
}

/* By io_uring, and by threads. */
TEST(the_queues_own_descriptors_are_refused) {
  for (int threads = 0; threads < 2; threads++) {
    if (threads) answer_call(SYS_io_uring_setup, EPERM);
    bool before[NUMBERS];
    for (int fd = 0; fd < NUMBERS; fd++) before[fd] = is_open(fd);
    evloop_kqueue_t kq = new_kqueue();
    apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 1, 5);
    char buffer[8];
    /* The queue's own descriptor for operations may become `unused`. */
    int unused = (int)OK(dup(0));
    OK(close(unused));
    CHECK_ERR(evloop_kqueue_aio_read(kq, unused, buffer, 8, -1, 1, 0), EINVAL);
    CHECK(operate_on_own(kq, before) >= 4);
    CHECK_EQ(expect_event(kq, 1, KQ_TIMER).udata, 5);
    apply(kq, 1, KQ_USER, ADD | ONESHOT, TRIGGER, 0, 6);
    CHECK_EQ(expect_event(kq, 1, KQ_USER).udata, 6);
    expect_nothing(kq);
    OK(evloop_kqueue_close(kq));
  }
}

TEST(a_pipe_is_read_once_there_is_something) {
  evloop_kqueue_t kq = new_kqueue();
  int ends[2];
  char buffer[8] = "";
  OK(pipe2(ends, O_CLOEXEC));
  OK(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0));
  expect_nothing(kq);
  CHECK_EQ(write(ends[1], "hey", 3), 3);
  CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), 20000));
  CHECK_EQ(done(kq, 1).data, 3);
  CHECK(memcmp(buffer, "hey", 3) == 0);
  expect_nothing(kq);
}

TEST(what_waits_can_be_cancelled) {
  evloop_kqueue_t kq = new_kqueue();
  int ends[2];
  char buffer[8], other[8];
  OK(pipe2(ends, O_CLOEXEC));
  OK(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0));
  OK(evloop_kqueue_aio_read(kq, ends[0], other, 8, -1, 2, 0));
  OK(evloop_kqueue_aio_cancel(kq, 1));
  Event event = done(kq, 1);
  CHECK_EQ(event.data, -1);
  CHECK_EQ(event.fflags, ECANCELED);
  CHECK_EQ(evloop_kqueue_aio_cancel(kq, 1), -ENOENT);
  expect_nothing(kq);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(done(kq, 2).data, 1);
}

TEST(a_queue_that_is_closed_gives_the_memory_back) {
  evloop_kqueue_t kq = new_kqueue();
  int ends[2];
  OK(pipe2(ends, O_CLOEXEC));
  char *buffers = (char *)malloc(64 * 8);
  CHECK(buffers != NULL);
  for (int i = 0; i < 64; i++)
    OK(evloop_kqueue_aio_read(kq, ends[0], buffers + 8 * i, 8, -1, (uint64_t)i, 0));
  OK(evloop_kqueue_close(kq));
  free(buffers);
  /* No operation of the queue reads any more. */
  CHECK_EQ(write(ends[1], "abc", 3), 3);
  char rest[4] = "";
  CHECK_EQ(read(ends[0], rest, 3), 3);
  CHECK(strcmp(rest, "abc") == 0);
}

TEST(an_operation_can_be_disabled_but_not_deleted_in_flight) {
  evloop_kqueue_t kq = new_kqueue();
  int ends[2];
  char buffer[8];
  OK(pipe2(ends, O_CLOEXEC));
  OK(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0));
  CHECK_EQ(try_change(kq, 1, KQ_AIO, DELETE, 0, 0, 0), -EBUSY);
  CHECK_EQ(try_change(kq, 1, KQ_AIO, ENABLE | EVLOOP_KQ_EV_FORCEONESHOT, 0, 0, 0), -EBUSY);
  apply(kq, 1, KQ_AIO, DISABLE, 0, 0, 0);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  /* Done, which another operation that is collected after it shows. */
  OK(evloop_kqueue_aio_read(kq, new_file("y"), buffer + 4, 1, 0, 2, 0));
  CHECK_EQ(done(kq, 2).data, 1);
  expect_nothing(kq);
  apply(kq, 1, KQ_AIO, ENABLE, 0, 0, 0);
  CHECK_EQ(done(kq, 1).data, 1);
  CHECK_EQ(try_change(kq, 1, KQ_AIO, DELETE, 0, 0, 0), -ENOENT);
}

TEST(misuse_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  int ends[2];
  char buffer[8];
  OK(pipe2(ends, O_CLOEXEC));
  CHECK_EQ(try_change(kq, 1, KQ_AIO, ADD, 0, 0, 0), -EPERM);
  CHECK_EQ(evloop_kqueue_aio_read(kq, ends[0], NULL, 8, -1, 1, 0), -EINVAL);
  CHECK_EQ(evloop_kqueue_aio_read(kq, ends[0], buffer, -8, -1, 1, 0), -EINVAL);
  CHECK_EQ(evloop_kqueue_aio_write(kq, ends[1], NULL, 8, -1, 1, 0), -EINVAL);
  CHECK_EQ(evloop_kqueue_aio_fsync(kq, ends[1], 2, 1, 0), -EINVAL);
  CHECK_EQ(evloop_kqueue_aio_cancel(kq, 1), -ENOENT);
  OK(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0));
  CHECK_EQ(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0), -EEXIST);
  OK(evloop_kqueue_close(kq));
  CHECK_EQ(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0), -ESTALE);
}

TEST(a_thousand_operations_each_come_once) {
  enum { MANY = 1000, SIZE = 64 };
  evloop_kqueue_t kq = new_kqueue();
  int fd = OK(memfd_create("aio", MFD_CLOEXEC));
  static char written[MANY][SIZE], read_back[MANY][SIZE];
  static Event events[MANY];
  static int seen[MANY];
  for (int i = 0; i < MANY; i++) {
    memset(written[i], 'a' + i % 26, SIZE);
    OK(evloop_kqueue_aio_write(kq, fd, written[i], SIZE, (int64_t)i * SIZE, (uint64_t)i, 0));
  }
  for (int left = MANY; left > 0;) {
    int n = (int)OK(evloop_kqueue_control(kq, NULL, 0, events, MANY, -1));
    CHECK(n > 0);
    for (int i = 0; i < n; i++) {
      CHECK_EQ(events[i].data, SIZE);
      CHECK_EQ(seen[events[i].ident]++, 0);
    }
    left -= n;
  }
  for (int i = 0; i < MANY; i++)
    OK(evloop_kqueue_aio_read(kq, fd, read_back[i], SIZE, (int64_t)i * SIZE, (uint64_t)i, 0));
  for (int left = MANY; left > 0;)
    left -= (int)OK(evloop_kqueue_control(kq, NULL, 0, events, MANY, -1));
  CHECK(memcmp(written, read_back, sizeof written) == 0);
}

static void *read_and_stay(void *argument) {
  evloop_kqueue_t kq = *(evloop_kqueue_t *)argument;
  Event event;
  CHECK_EQ(evloop_kqueue_control(kq, NULL, 0, &event, 1, -1), 1);
  CHECK_EQ(event.ident, 5);
  CHECK_EQ(event.data, 1);
  return NULL;
}

TEST(a_thread_that_waits_is_woken_by_an_operation_of_another) {
  evloop_kqueue_t kq = new_kqueue();
  pthread_t thread;
  char byte = 0;
  CHECK_EQ(pthread_create(&thread, NULL, read_and_stay, &kq), 0);
  OK(evloop_kqueue_aio_read(kq, new_file("z"), &byte, 1, 0, 5, 0));
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(byte, 'z');
}

TEST(in_a_forked_child_the_parents_operations_go_on_for_the_parent) {
  evloop_kqueue_t kq = new_kqueue();
  int ends[2];
  char buffer[8] = "";
  OK(pipe2(ends, O_CLOEXEC));
  OK(evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 1, 0));
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    int64_t refused = evloop_kqueue_aio_read(kq, ends[0], buffer, 8, -1, 2, 0);
    _exit(refused == -ECHILD && evloop_kqueue_close(kq) == 0 ? 0 : 1);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(write(ends[1], "hey", 3), 3);
  CHECK_EQ(done(kq, 1).data, 3);
}

TEST(without_descriptors_the_first_operation_fails_and_later_ones_do_not) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = new_file("a");
  char byte;
  struct rlimit before, none;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  none = before;
  none.rlim_cur = (rlim_t)fd + 1;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  CHECK_EQ(evloop_kqueue_aio_read(kq, fd, &byte, 1, 0, 1, 0), -EMFILE);
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  OK(evloop_kqueue_aio_read(kq, fd, &byte, 1, 0, 1, 0));
  CHECK_EQ(done(kq, 1).data, 1);
}

CHECK_MAIN()
