/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* EVFILT_AIO: io_uring and the library's threads do the same, and say the same
 * of what cannot be done. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#include <pty.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

#define KQ_AIO EVLOOP_KQ_FILTER_AIO

/* ---- what is operated on ---- */

static int pipe_with_data(void) {
  Pipe p = new_pipe();
  CHECK_EQ(write(p.w, "abc", 3), 3);
  return p.r;
}

static int empty_pipe(void) {
  return new_pipe().r;
}

static int pipe_to_write(void) {
  return new_pipe().w;
}

static int pipe_without_readers(void) {
  Pipe p = new_pipe();
  OK(close(p.r));
  return p.w;
}

static int socket_with_data(void) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_EQ(write(pair[1], "abc", 3), 3);
  return pair[0];
}

static int socket_without_peer(void) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  OK(close(pair[1]));
  return pair[0];
}

static int empty_socket(void) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  return pair[0];
}

static int listener(void) {
  int fd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  OK(listen(fd, 1));
  return fd;
}

static int unconnected(void) {
  return (int)OK(socket(AF_INET, SOCK_STREAM, 0));
}

static int datagrams_without_peer(void) {
  return (int)OK(socket(AF_INET, SOCK_DGRAM, 0));
}

static int counter(void) {
  return (int)OK(eventfd(5, EFD_CLOEXEC));
}

static int counter_of_nothing(void) {
  return (int)OK(eventfd(0, EFD_CLOEXEC));
}

static int file_opened(int flags) {
  char name[] = "/tmp/kqueue-aio-XXXXXX", path[64];
  int fd = (int)OK(mkstemp(name));
  OK(unlink(name));
  CHECK_EQ(write(fd, "abcdef", 6), 6);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  return (int)OK(open(path, flags | O_CLOEXEC));
}

static int file(void) {
  return file_opened(O_RDWR);
}

static int file_to_read(void) {
  return file_opened(O_RDONLY);
}

static int file_to_write(void) {
  return file_opened(O_WRONLY);
}

static int file_only_named(void) {
  return file_opened(O_PATH);
}

static int directory(void) {
  return (int)OK(open("/tmp", O_RDONLY | O_CLOEXEC));
}

static int null_device(void) {
  return (int)OK(open("/dev/null", O_RDWR | O_CLOEXEC));
}

static int terminal_with_data(void) {
  int master, slave;
  OK(openpty(&master, &slave, NULL, NULL, NULL));
  CHECK_EQ(write(master, "hi\n", 3), 3);
  return slave;
}

static int idle_epoll(void) {
  return (int)OK(epoll_create1(EPOLL_CLOEXEC));
}

static int idle_process(void) {
  return (int)OK(syscall(SYS_pidfd_open, getpid(), 0));
}

static int idle_timer(void) {
  return (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
}

static int idle_kqueue(void) {
  return (int)OK(dup((int)OK(evloop_kqueue_fileno(new_kqueue()))));
}

static int closed(void) {
  return CLOSED;
}

/* ---- what is done to it ---- */

enum { READING, WRITING, SYNCING, SYNCING_DATA };

typedef struct Row {
  const char *name;
  int (*open)(void);
  int operation;
  int64_t count, offset;
  int64_t data;
  uint32_t fflags;
  int pipe_signals;
} Row;

#define FAILS -1
static const Row rows[] = {
  {"a pipe", pipe_with_data, READING, 10, -1, 3, 0, 0},
  {"a pipe, at 0", pipe_with_data, READING, 10, 0, 3, 0, 0},
  {"a pipe, at 7", pipe_with_data, READING, 10, 7, 3, 0, 0},
  {"writing to a pipe", pipe_to_write, WRITING, 5, -1, 5, 0, 0},
  {"writing to a pipe, at 7", pipe_to_write, WRITING, 5, 7, 5, 0, 0},
  {"reading a pipe's other end", pipe_to_write, READING, 5, -1, FAILS, EBADF, 0},
  {"reading a pipe's other end, at 0", pipe_to_write, READING, 5, 0, FAILS, EBADF, 0},
  {"writing to a pipe's other end", empty_pipe, WRITING, 5, -1, FAILS, EBADF, 0},
  {"nothing of an empty pipe", empty_pipe, READING, 0, -1, 0, 0, 0},
  {"writing to a pipe without readers", pipe_without_readers, WRITING, 5, -1, FAILS, EPIPE, 1},
  {"syncing a pipe", empty_pipe, SYNCING, 0, 0, FAILS, EINVAL, 0},
  {"a socket", socket_with_data, READING, 10, -1, 3, 0, 0},
  {"a socket, at 0", socket_with_data, READING, 10, 0, 3, 0, 0},
  {"a socket, at 2", socket_with_data, READING, 10, 2, FAILS, ESPIPE, 0},
  {"writing to a socket, at 0", empty_socket, WRITING, 5, 0, 5, 0, 0},
  {"writing to a socket, at 2", empty_socket, WRITING, 5, 2, FAILS, ESPIPE, 0},
  {"nothing of an empty socket", empty_socket, READING, 0, -1, 0, 0, 0},
  {"a socket without a peer", socket_without_peer, READING, 5, -1, 0, 0, 0},
  {"writing without a peer", socket_without_peer, WRITING, 5, -1, FAILS, EPIPE, 1},
  {"syncing a socket", empty_socket, SYNCING, 0, 0, FAILS, EINVAL, 0},
  {"a listener", listener, READING, 5, -1, FAILS, ENOTCONN, 0},
  {"writing to a listener", listener, WRITING, 5, -1, FAILS, EPIPE, 1},
  {"a socket that is not connected", unconnected, READING, 5, -1, FAILS, ENOTCONN, 0},
  {"writing without a connection", unconnected, WRITING, 5, -1, FAILS, EPIPE, 1},
  {"datagrams to no one", datagrams_without_peer, WRITING, 5, -1, FAILS, EDESTADDRREQ, 0},
  {"a counter", counter, READING, 8, -1, 8, 0, 0},
  {"a counter, at 3", counter, READING, 8, 3, 8, 0, 0},
  {"four bytes of a counter", counter, READING, 4, -1, FAILS, EINVAL, 0},
  {"four bytes of a counter of 0", counter_of_nothing, READING, 4, -1, FAILS, EINVAL, 0},
  {"adding to a counter", counter_of_nothing, WRITING, 8, -1, 8, 0, 0},
  {"four bytes to a counter", counter_of_nothing, WRITING, 4, -1, FAILS, EINVAL, 0},
  {"syncing a counter", counter, SYNCING, 0, 0, FAILS, EINVAL, 0},
  {"a file", file, READING, 3, 1, 3, 0, 0},
  {"a file at its end", file, READING, 3, 6, 0, 0, 0},
  {"nothing of a file", file, READING, 0, 0, 0, 0, 0},
  {"a file at its position", file_to_read, READING, 3, -7, 3, 0, 0},
  {"a file at the largest offset", file, READING, 3, INT64_MAX, FAILS, EINVAL, 0},
  {"writing to a file", file, WRITING, 3, 100, 3, 0, 0},
  {"writing beyond all offsets", file, WRITING, 3, INT64_MAX - 1, FAILS, EINVAL, 0},
  {"a file that was opened to write", file_to_write, READING, 3, 0, FAILS, EBADF, 0},
  {"a file that was opened to read", file_to_read, WRITING, 3, 0, FAILS, EBADF, 0},
  {"O_PATH", file_only_named, READING, 3, 0, FAILS, EBADF, 0},
  {"writing to O_PATH", file_only_named, WRITING, 3, 0, FAILS, EBADF, 0},
  {"syncing O_PATH", file_only_named, SYNCING, 0, 0, FAILS, EBADF, 0},
  {"syncing a file", file, SYNCING, 0, 0, 0, 0, 0},
  {"syncing a file's data", file, SYNCING_DATA, 0, 0, 0, 0, 0},
  {"a directory", directory, READING, 3, 0, FAILS, EISDIR, 0},
  {"writing to a directory", directory, WRITING, 3, 0, FAILS, EBADF, 0},
  {"/dev/null", null_device, READING, 3, 9, 0, 0, 0},
  {"writing to /dev/null", null_device, WRITING, 3, 9, 3, 0, 0},
  {"syncing /dev/null", null_device, SYNCING, 0, 0, FAILS, EINVAL, 0},
  {"a terminal", terminal_with_data, READING, 9, -1, 3, 0, 0},
  {"a terminal, at 3", terminal_with_data, READING, 9, 3, 3, 0, 0},
  {"writing to a terminal, at 3", terminal_with_data, WRITING, 3, 3, 3, 0, 0},
  {"an epoll", idle_epoll, READING, 8, -1, FAILS, EINVAL, 0},
  {"an epoll, at 0", idle_epoll, READING, 8, 0, FAILS, EINVAL, 0},
  {"nothing of an epoll", idle_epoll, READING, 0, -1, FAILS, EINVAL, 0},
  {"writing to an epoll", idle_epoll, WRITING, 8, -1, FAILS, EINVAL, 0},
  {"a kqueue", idle_kqueue, READING, 8, -1, FAILS, EINVAL, 0},
  {"a process", idle_process, READING, 8, -1, FAILS, EINVAL, 0},
  {"writing to a process", idle_process, WRITING, 8, -1, FAILS, EINVAL, 0},
  {"writing to a timer", idle_timer, WRITING, 8, -1, FAILS, EINVAL, 0},
  {"what is closed", closed, READING, 3, 0, FAILS, EBADF, 0},
  {"writing to what is closed", closed, WRITING, 3, 0, FAILS, EBADF, 0},
  {"syncing what is closed", closed, SYNCING, 0, 0, FAILS, EBADF, 0},
};

/* What a row does without waiting: all rows end by themselves. */
static Event done(evloop_kqueue_t kq, const Row *row) {
  static char buffer[64];
  int fd = row->open();
  switch (row->operation) {
    case READING: OK(evloop_kqueue_aio_read(kq, fd, buffer, row->count, row->offset, 1, 2)); break;
    case WRITING: OK(evloop_kqueue_aio_write(kq, fd, buffer, row->count, row->offset, 1, 2)); break;
    default:
      OK(evloop_kqueue_aio_fsync(kq, fd, row->operation == SYNCING ? 0 : EVLOOP_KQ_AIO_DATASYNC, 1, 2));
  }
  Event event = expect_event(kq, 1, KQ_AIO);
  if (fd != CLOSED) OK(close(fd));
  return event;
}

static int pipe_signals; /* atomic */

static void count_pipe_signal(int number) {
  (void)number;
  RAISE(pipe_signals, 1);
}

/* Without preadv2 threads cannot try this before there is something. */
static bool is_tried_late(const Row *row) {
  const char *refused = getenv("EVLOOP_TEST_NOSYS");
  return refused != NULL && strstr(refused, "preadv2") != NULL &&
         row->open == counter_of_nothing && row->operation == READING;
}

static void check_rows(void) {
  evloop_kqueue_t kq = new_kqueue();
  signal(SIGPIPE, count_pipe_signal);
  for (int i = 0; AT_ROW(i, rows); i++) {
    const Row *row = &rows[i];
    if (is_tried_late(row)) continue;
    STORE(pipe_signals, 0);
    Event event = done(kq, row);
    if (event.data != row->data || event.fflags != row->fflags) printf("  %s:\n", row->name);
    CHECK_EQ(event.data, row->data);
    CHECK_EQ(event.fflags, row->fflags);
    /* It may come a moment later. */
    UNTIL(LOAD(pipe_signals) >= row->pipe_signals);
    CHECK_EQ(LOAD(pipe_signals), row->pipe_signals);
  }
}

/* valgrind 3.19 does not know pidfd_open(2). */
TEST_WITHOUT_VALGRIND(io_uring_does_what_the_table_says, 20) {
  check_rows();
}

TEST_WITHOUT_VALGRIND(threads_do_what_the_table_says, 20) {
  answer_call(SYS_io_uring_setup, EPERM);
  check_rows();
}

/* What is waited for ends with what comes, and so does O_NONBLOCK. */
static void check_waiting(void) {
  for (int flags = 0; flags <= O_NONBLOCK; flags += O_NONBLOCK) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe p = new_pipe();
    char buffer[8] = "";
    OK(fcntl(p.r, F_SETFL, flags));
    OK(evloop_kqueue_aio_read(kq, p.r, buffer, 8, 5, 1, 0));
    expect_nothing(kq);
    CHECK_EQ(write(p.w, "hey", 3), 3);
    CHECK_EQ(expect_event(kq, 1, KQ_AIO).data, 3);
    CHECK(memcmp(buffer, "hey", 3) == 0);
    OK(evloop_kqueue_aio_read(kq, p.r, buffer, 8, -1, 1, 0));
    OK(close(p.w));
    Event event = expect_event(kq, 1, KQ_AIO);
    CHECK_EQ(event.data, 0);
    CHECK_EQ(event.fflags, 0);
  }
}

TEST(io_uring_waits_for_what_comes) {
  check_waiting();
}

TEST(threads_wait_for_what_comes) {
  answer_call(SYS_io_uring_setup, EPERM);
  check_waiting();
}

CHECK_MAIN()
