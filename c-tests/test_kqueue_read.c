/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the filter READ, on every kind of descriptor. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <netinet/tcp.h>
#include <pty.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>

#define LOWAT EVLOOP_KQ_NOTE_LOWAT

static void watch(evloop_kqueue_t kq, int fd, int flags) {
  apply(kq, (uint64_t)fd, KQ_READ, ADD | flags, 0, 0, 0);
}

static Event expect_read(evloop_kqueue_t kq, int fd) {
  return expect_event(kq, (uint64_t)fd, KQ_READ);
}

static void send_bytes(int fd, int count) {
  char bytes[1000] = {0};
  CHECK_EQ(write(fd, bytes, (size_t)count), count);
}

static void read_bytes(int fd, int count) {
  char bytes[1000];
  CHECK_EQ(read(fd, bytes, (size_t)count), count);
}

/* ---- pipes ---- */

TEST(a_pipe_has_bytes_and_an_end) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  watch(kq, p.r, 0);
  expect_nothing(kq);
  send_bytes(p.w, 100);
  Event event = expect_read(kq, p.r);
  CHECK_EQ(event.data, 100);
  CHECK_EQ(event.flags, 0);
  read_bytes(p.r, 40);
  CHECK_EQ(expect_read(kq, p.r).data, 60);
  OK(close(p.w));
  event = expect_read(kq, p.r);
  CHECK_EQ(event.data, 60);
  CHECK_EQ(event.flags, KQ_EOF);
  CHECK_EQ(event.fflags, 0);
  read_bytes(p.r, 60);
  event = expect_read(kq, p.r);
  CHECK_EQ(event.data, 0);
  CHECK_EQ(event.flags, KQ_EOF);
}

TEST(a_fifo_has_an_end_until_a_new_writer_comes) {
  evloop_kqueue_t kq = new_kqueue();
  char path[64];
  snprintf(path, sizeof path, "/tmp/kqueue-fifo-%d", (int)getpid());
  unlink(path);
  OK(mkfifo(path, 0600));
  int r = (int)OK(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  int w = (int)OK(open(path, O_WRONLY | O_CLOEXEC));
  watch(kq, r, 0);
  expect_nothing(kq);
  OK(close(w));
  CHECK_EQ(expect_read(kq, r).flags, KQ_EOF);
  w = (int)OK(open(path, O_WRONLY | O_CLOEXEC));
  expect_nothing(kq);
  send_bytes(w, 3);
  Event event = expect_read(kq, r);
  CHECK_EQ(event.flags, 0);
  CHECK_EQ(event.data, 3);
  OK(unlink(path));
}

/* ---- sockets ---- */

TEST(streams_have_bytes_and_an_end) {
  for (int kind = 0; kind < 2; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2];
    if (kind) tcp_pair(pair);
    else OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    watch(kq, pair[0], 0);
    expect_nothing(kq);
    send_bytes(pair[1], 500);
    CHECK_EQ(expect_read(kq, pair[0]).data, 500);
    read_bytes(pair[0], 500);
    expect_nothing(kq);
    send_bytes(pair[1], 2);
    OK(shutdown(pair[1], SHUT_WR));
    Event event;
    do event = expect_read(kq, pair[0]);
    while (!(event.flags & KQ_EOF));
    CHECK_EQ(event.data, 2);
    CHECK_EQ(event.fflags, 0);
    read_bytes(pair[0], 2);
    event = expect_read(kq, pair[0]);
    CHECK_EQ(event.data, 0);
    CHECK_EQ(event.flags, KQ_EOF);
  }
}

TEST(datagrams_are_there_though_they_are_empty) {
  evloop_kqueue_t kq = new_kqueue();
  int pair[2];
  char byte;
  OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
  watch(kq, pair[0], 0);
  expect_nothing(kq);
  CHECK_EQ(send(pair[1], "", 0, 0), 0);
  CHECK(expect_read(kq, pair[0]).data >= 1);
  CHECK_EQ(recv(pair[0], &byte, 1, 0), 0);
  expect_nothing(kq);
  CHECK_EQ(send(pair[1], "abc", 3, 0), 3);
  CHECK(expect_read(kq, pair[0]).data >= 3);
}

static int tcp_listener(struct sockaddr_in *address, int backlog) {
  socklen_t size = sizeof *address;
  int listener = (int)OK(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  memset(address, 0, sizeof *address);
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  OK(bind(listener, (struct sockaddr *)address, size));
  if (backlog > 0) OK(listen(listener, backlog));
  OK(getsockname(listener, (struct sockaddr *)address, &size));
  return listener;
}

TEST(a_tcp_listener_has_connections) {
  evloop_kqueue_t kq = new_kqueue();
  struct sockaddr_in address;
  int listener = tcp_listener(&address, 10);
  watch(kq, listener, 0);
  expect_nothing(kq);
  for (int i = 1; i <= 3; i++) {
    int client = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
    OK(connect(client, (struct sockaddr *)&address, sizeof address));
    CHECK_EQ(expect_read(kq, listener).data, i);
  }
  OK(accept(listener, NULL, NULL));
  CHECK_EQ(expect_read(kq, listener).data, 2);
  OK(accept(listener, NULL, NULL));
  OK(accept(listener, NULL, NULL));
  expect_nothing(kq);
}

/* Whether the kernel reports how many connections wait (CONFIG_UNIX_DIAG). */
static bool counts_unix_connections(void) {
  struct {
    struct nlmsghdr header;
    struct unix_diag_req diag;
  } request;
  char answer[8192];
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
  if (fd < 0) return false;
  memset(&request, 0, sizeof request);
  request.header.nlmsg_len = sizeof request;
  request.header.nlmsg_type = SOCK_DIAG_BY_FAMILY;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
  request.diag.sdiag_family = AF_UNIX;
  request.diag.udiag_states = UINT32_MAX;
  OK(send(fd, &request, sizeof request, 0));
  OK(recv(fd, answer, sizeof answer, 0));
  OK(close(fd));
  return ((struct nlmsghdr *)(void *)answer)->nlmsg_type != NLMSG_ERROR;
}

TEST(a_unix_listener_has_connections) {
  static const int types[] = {SOCK_STREAM, SOCK_SEQPACKET};
  bool counts = counts_unix_connections();
  for (int t = 0; AT_ROW(t, types); t++) {
    evloop_kqueue_t kq = new_kqueue();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    socklen_t size = sizeof(sa_family_t);
    int listener = (int)OK(socket(AF_UNIX, types[t] | SOCK_CLOEXEC, 0));
    OK(bind(listener, (struct sockaddr *)&address, size));
    OK(listen(listener, 10));
    size = sizeof address;
    OK(getsockname(listener, (struct sockaddr *)&address, &size));
    watch(kq, listener, 0);
    expect_nothing(kq);
    for (int i = 1; i <= 3; i++) {
      int client = (int)OK(socket(AF_UNIX, types[t], 0));
      OK(connect(client, (struct sockaddr *)&address, size));
      CHECK_EQ(expect_read(kq, listener).data, counts ? i : 1);
    }
    for (int i = 0; i < 3; i++) OK(accept(listener, NULL, NULL));
    expect_nothing(kq);
  }
}

TEST(a_socket_that_is_not_connected_is_not_ready) {
  evloop_kqueue_t kq = new_kqueue();
  static const int families[] = {AF_INET, AF_UNIX};
  for (int i = 0; AT_ROW(i, families); i++) {
    int fd = (int)OK(socket(families[i], SOCK_STREAM, 0));
    Event event;
    watch(kq, fd, 0);
    apply(kq, (uint64_t)fd, KQ_WRITE, ADD, 0, 0, 0);
    int64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
    CHECK_EQ(take(kq, &event, 1, 50 * MS), 0);
    CHECK(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu < 40 * MS * slow_factor());
  }
}

TEST(a_watch_from_before_the_connection_holds) {
  evloop_kqueue_t kq = new_kqueue();
  struct sockaddr_in address;
  int listener = tcp_listener(&address, 10), fd = (int)OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  Event event;
  watch(kq, fd, 0);
  apply(kq, (uint64_t)fd, KQ_WRITE, ADD, 0, 0, 0);
  CHECK_EQ(take(kq, &event, 1, 0), 0);
  CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EINPROGRESS);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, KQ_WRITE).flags, 0);
  apply(kq, (uint64_t)fd, KQ_WRITE, DELETE, 0, 0, 0);
  int peer = (int)OK(accept(listener, NULL, NULL));
  expect_nothing(kq);
  send_bytes(peer, 5);
  CHECK_EQ(expect_read(kq, fd).data, 5);
  CHECK_EQ(expect_read(kq, fd).data, 5);
}

/* ---- errors are left to the program ---- */

static int pending_error(int fd) {
  int error = -1;
  socklen_t size = sizeof error;
  OK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
  return error;
}

TEST(a_refused_connection_is_inferred_and_its_error_left_alone) {
  evloop_kqueue_t kq = new_kqueue();
  struct sockaddr_in address;
  int closed = tcp_listener(&address, 0), fd = (int)OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  Event events[2];
  CHECK(connect(fd, (struct sockaddr *)&address, sizeof address) < 0);
  CHECK_EQ(errno, EINPROGRESS);
  watch(kq, fd, 0);
  apply(kq, (uint64_t)fd, KQ_WRITE, ADD, 0, 0, 0);
  int got = 0;
  while (got < 2) got = (int)OK(take(kq, events, 2, -1));
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(events[i].flags, KQ_EOF);
    CHECK_EQ(events[i].fflags, ECONNREFUSED);
  }
  CHECK_EQ(pending_error(fd), ECONNREFUSED);
  OK(close(closed));
}

TEST(a_reset_connection_is_inferred_and_its_error_left_alone) {
  evloop_kqueue_t kq = new_kqueue();
  struct linger at_once = {1, 0};
  int pair[2];
  tcp_pair(pair);
  watch(kq, pair[0], 0);
  OK(setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once));
  OK(close(pair[1]));
  Event event = expect_read(kq, pair[0]);
  CHECK_EQ(event.flags, KQ_EOF);
  CHECK_EQ(event.fflags, ECONNRESET);
  CHECK_EQ(pending_error(pair[0]), ECONNRESET);
}

TEST(an_error_of_a_datagram_socket_is_an_event) {
  evloop_kqueue_t kq = new_kqueue();
  struct sockaddr_in address;
  int closed = tcp_listener(&address, 0), fd = (int)OK(socket(AF_INET, SOCK_DGRAM, 0));
  OK(connect(fd, (struct sockaddr *)&address, sizeof address));
  watch(kq, fd, 0);
  CHECK_EQ(send(fd, "x", 1, 0), 1);
  CHECK_EQ(expect_read(kq, fd).data, 0);
  CHECK_EQ(pending_error(fd), ECONNREFUSED);
  expect_nothing(kq);
  OK(close(closed));
}

/* ---- NOTE_LOWAT ---- */

TEST(low_water_marks_are_each_knotes_own) {
  for (int kind = 0; kind < 3; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2], mark = -1;
    socklen_t size = sizeof mark;
    if (kind == 0) {
      Pipe p = new_pipe();
      pair[0] = p.r;
      pair[1] = p.w;
    } else if (kind == 1) {
      tcp_pair(pair);
    } else {
      OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    }
    apply(kq, (uint64_t)pair[0], KQ_READ, ADD, LOWAT, 10, 0);
    send_bytes(pair[1], 9);
    CHECK(readable(pair[0], -1));
    Event event;
    CHECK_EQ(take(kq, &event, 1, 20 * MS), 0);
    send_bytes(pair[1], 1);
    CHECK_EQ(expect_read(kq, pair[0]).data, 10);
    /* It is still so. */
    CHECK_EQ(expect_read(kq, pair[0]).data, 10);
    CHECK(is_pending(kq));
    read_bytes(pair[0], 1);
    CHECK_EQ(take(kq, &event, 1, 0), 0);
    expect_nothing(kq);
    send_bytes(pair[1], 5);
    CHECK_EQ(expect_read(kq, pair[0]).data, 14);
    if (kind > 0) {
      OK(getsockopt(pair[0], SOL_SOCKET, SO_RCVLOWAT, &mark, &size));
      CHECK_EQ(mark, 1);
    }
    read_bytes(pair[0], 10);
    CHECK_EQ(take(kq, &event, 1, 0), 0);
    OK(close(pair[1]));
    event = expect_read(kq, pair[0]);
    CHECK_EQ(event.flags, KQ_EOF);
    CHECK_EQ(event.data, 4);
  }
}

TEST(two_low_water_marks_on_one_descriptor) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  Event events[4];
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | EVLOOP_KQ_EV_UDATA_SPECIFIC, LOWAT, 10, 10);
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | EVLOOP_KQ_EV_UDATA_SPECIFIC | CLEAR, LOWAT, 20, 20);
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | ONESHOT, 0, 0, 1);
  send_bytes(p.w, 5);
  CHECK_EQ(expect_read(kq, p.r).udata, 1);
  expect_nothing(kq);
  send_bytes(p.w, 5);
  CHECK_EQ(expect_read(kq, p.r).udata, 10);
  send_bytes(p.w, 10);
  CHECK_EQ(take(kq, events, 4, -1), 2);
  CHECK_EQ(expect_read(kq, p.r).udata, 10);
}

/* ---- other descriptors ---- */

TEST(an_eventfd_has_its_counter) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = event_fd(0);
  eventfd_t count;
  watch(kq, fd, 0);
  expect_nothing(kq);
  OK(eventfd_write(fd, 1000));
  CHECK_EQ(expect_read(kq, fd).data, 1000);
  OK(eventfd_write(fd, 5));
  CHECK_EQ(expect_read(kq, fd).data, 1005);
  OK(eventfd_read(fd, &count));
  expect_nothing(kq);
}

TEST(a_timerfd_has_its_expirations) {
  evloop_kqueue_t kq = new_kqueue();
  struct itimerspec once = {{0, 0}, {0, 1}};
  int fd = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  watch(kq, fd, 0);
  expect_nothing(kq);
  OK(timerfd_settime(fd, 0, &once, NULL));
  CHECK_EQ(expect_read(kq, fd).data, 1);
}

TEST(a_terminal_has_bytes_and_an_end) {
  evloop_kqueue_t kq = new_kqueue();
  int master = (int)OK(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  OK(grantpt(master));
  OK(unlockpt(master));
  int slave = (int)OK(open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC));
  watch(kq, slave, 0);
  expect_nothing(kq);
  CHECK_EQ(write(master, "word\n", 5), 5);
  CHECK_EQ(expect_read(kq, slave).data, 5);
  read_bytes(slave, 5);
  expect_nothing(kq);
  OK(close(master));
  CHECK(expect_read(kq, slave).flags & KQ_EOF);
}

TEST(a_file_is_ready_until_its_end_and_again_when_it_grows) {
  evloop_kqueue_t kq = new_kqueue();
  char path[64];
  snprintf(path, sizeof path, "/tmp/kqueue-file-%d", (int)getpid());
  int w = (int)OK(open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  int r = (int)OK(open(path, O_RDONLY | O_CLOEXEC));
  OK(unlink(path));
  watch(kq, r, 0);
  expect_nothing(kq);
  send_bytes(w, 100);
  CHECK_EQ(expect_read(kq, r).data, 100);
  read_bytes(r, 30);
  CHECK_EQ(expect_read(kq, r).data, 70);
  CHECK(is_pending(kq));
  read_bytes(r, 70);
  expect_nothing(kq);
  for (int i = 0; i < 3; i++) {
    send_bytes(w, 7);
    CHECK_EQ(expect_read(kq, r).data, 7);
    read_bytes(r, 7);
    expect_nothing(kq);
  }
  /* Beyond the end. */
  OK(ftruncate(w, 10));
  CHECK(expect_read(kq, r).data < 0);
}

TEST(a_file_with_clear_fires_when_it_grows) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = regular_file();
  send_bytes(fd, 10);
  OK(lseek(fd, 0, SEEK_SET));
  watch(kq, fd, CLEAR);
  CHECK_EQ(expect_read(kq, fd).data, 10);
  expect_nothing(kq);
  CHECK_EQ(pwrite(fd, "x", 1, 10), 1);
  CHECK_EQ(expect_read(kq, fd).data, 11);
  expect_nothing(kq);
}

TEST(a_file_that_is_polled_is_always_ready) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = regular_file();
  apply(kq, (uint64_t)fd, KQ_READ, ADD, EVLOOP_KQ_NOTE_FILE_POLL, 0, 0);
  CHECK_EQ(expect_read(kq, fd).data, 0);
  CHECK_EQ(expect_read(kq, fd).data, 0);
}

static void *write_later(void *argument) {
  wait_until_main_is_asleep();
  CHECK_EQ(write(*(int *)argument, "x", 1), 1);
  return NULL;
}

TEST(a_growing_file_wakes_a_wait_and_the_descriptor) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = regular_file(), other;
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  other = (int)OK(open(path, O_WRONLY | O_CLOEXEC));
  watch(kq, fd, 0);
  watch(kq, other, DISABLE);
  expect_nothing(kq);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, write_later, &other), 0);
  CHECK_EQ(expect_read(kq, fd).data, 1);
  CHECK(is_pending(kq));
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(two_descriptors_of_one_file) {
  evloop_kqueue_t kq = new_kqueue();
  int a = regular_file();
  char path[64];
  snprintf(path, sizeof path, "/proc/self/fd/%d", a);
  int b = (int)OK(open(path, O_RDWR | O_CLOEXEC));
  Event events[4];
  watch(kq, a, 0);
  watch(kq, b, 0);
  expect_nothing(kq);
  CHECK_EQ(pwrite(a, "x", 1, 0), 1);
  CHECK_EQ(take(kq, events, 4, -1), 2);
  apply(kq, (uint64_t)a, KQ_READ, DELETE, 0, 0, 0);
  read_bytes(b, 1);
  expect_nothing(kq);
  CHECK_EQ(pwrite(a, "x", 1, 1), 1);
  CHECK_EQ(expect_read(kq, b).data, 1);
  apply(kq, (uint64_t)b, KQ_READ, DELETE, 0, 0, 0);
  CHECK_EQ(pwrite(a, "x", 1, 2), 1);
  expect_nothing(kq);
}

TEST(devices_and_directories_are_accepted) {
  static const char *const paths[] = {"/dev/null", "/dev/zero", "/"};
  for (int i = 0; AT_ROW(i, paths); i++) {
    evloop_kqueue_t kq = new_kqueue();
    int fd = (int)OK(open(paths[i], O_RDONLY | O_CLOEXEC));
    watch(kq, fd, 0);
    expect_read(kq, fd);
    expect_read(kq, fd);
    CHECK(is_pending(kq));
    apply(kq, (uint64_t)fd, KQ_READ, DELETE, 0, 0, 0);
    expect_nothing(kq);
  }
}

TEST(fflags_of_other_filters_are_refused) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, ADD, 0x100, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, (uint64_t)p.r, KQ_READ, DELETE, 0, 0, 0), ENOENT);
}

/* inotify ends its watch where the last name is not the first. */
TEST(a_file_without_names_still_grows) {
  char name[] = "/tmp/kqueue-read-XXXXXX", other[64];
  int fd = (int)OK(mkstemp(name));
  evloop_kqueue_t kq = new_kqueue();
  snprintf(other, sizeof other, "%s.other", name);
  OK(link(name, other));
  apply(kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0);
  expect_nothing(kq);
  OK(unlink(name));
  OK(unlink(other));
  expect_nothing(kq);
  CHECK_EQ(pwrite(fd, "12", 2, 0), 2);
  CHECK_EQ(expect_event(kq, (uint64_t)fd, KQ_READ).data, 2);
  apply(kq, (uint64_t)fd, KQ_READ, DELETE, 0, 0, 0);
}

CHECK_MAIN()
