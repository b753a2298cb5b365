/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: the filter WRITE, on every kind of descriptor. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <netinet/tcp.h>
#include <sys/stat.h>

#define LOWAT EVLOOP_KQ_NOTE_LOWAT

static void watch(evloop_kqueue_t kq, int fd, int flags) {
  apply(kq, (uint64_t)fd, KQ_WRITE, ADD | flags, 0, 0, 0);
}

static Event expect_write(evloop_kqueue_t kq, int fd) {
  return expect_event(kq, (uint64_t)fd, KQ_WRITE);
}

/* Writes until nothing more fits; how much that was. */
static int64_t fill(int fd) {
  static const char bytes[4096];
  int64_t sum = 0, written;
  OK(fcntl(fd, F_SETFL, OK(fcntl(fd, F_GETFL)) | O_NONBLOCK));
  while ((written = write(fd, bytes, sizeof bytes)) > 0) sum += written;
  while ((written = write(fd, bytes, 1)) > 0) sum += written;
  CHECK_EQ(errno, EAGAIN);
  return sum;
}

/* The same, until nothing more is under way to the peer either: it takes what
 * it has room for, whatever that is. */
static int64_t fill_for_good(int fd) {
  int64_t sum = 0, more;
  do {
    more = fill(fd);
    sum += more;
    usleep(20000);
  } while (more > 0);
  return sum;
}

static int64_t pipe_size(const Pipe *p) {
  return OK(fcntl(p->w, F_GETPIPE_SZ));
}

/* Reads so much. */
static void drain(int fd, int64_t count) {
  static char bytes[4096];
  while (count > 0) {
    ssize_t got = read(fd, bytes, (size_t)(count < 4096 ? count : 4096));
    CHECK(got > 0);
    count -= got;
  }
}

TEST(a_pipe_has_room) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  int64_t size = pipe_size(&p);
  watch(kq, p.w, 0);
  CHECK_EQ(expect_write(kq, p.w).data, size);
  CHECK_EQ(write(p.w, "abc", 3), 3);
  CHECK_EQ(expect_write(kq, p.w).data, size - 3);
  int64_t all = fill(p.w);
  expect_nothing(kq);
  drain(p.r, all - 2 + 3);
  Event event = expect_write(kq, p.w);
  CHECK_EQ(event.data, size - 2);
  CHECK_EQ(event.flags, 0);
  OK(close(p.r));
  event = expect_write(kq, p.w);
  CHECK_EQ(event.flags, KQ_EOF);
  CHECK_EQ(event.data, 0);
}

TEST(a_wait_ends_when_there_is_room_again) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    evloop_kqueue_t kq = new_kqueue();
    Pipe p = new_pipe();
    fill(p.w);
    watch(kq, p.w, flags);
    expect_nothing(kq);
    drain(p.r, 8192);
    expect_write(kq, p.w);
    if (flags & CLEAR) expect_nothing(kq);
    else expect_write(kq, p.w);
  }
}

TEST(sockets_have_room) {
  for (int kind = 0; kind < 3; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2], size = 0;
    socklen_t length = sizeof size;
    if (kind == 0) tcp_pair(pair);
    else OK(socketpair(AF_UNIX, kind == 1 ? SOCK_STREAM : SOCK_DGRAM, 0, pair));
    OK(getsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, &length));
    watch(kq, pair[0], 0);
    Event event = expect_write(kq, pair[0]);
    CHECK_EQ(event.flags, 0);
    CHECK(event.data > size / 2);
    CHECK(event.data <= size);
    int64_t before = event.data;
    if (kind > 0) {
      CHECK_EQ(write(pair[0], "x", 1), 1);
      event = expect_write(kq, pair[0]);
      CHECK(event.data < before);
      CHECK(event.data > 0);
    }
  }
}

TEST(a_full_socket_is_not_ready) {
  for (int kind = 0; kind < 2; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2];
    if (kind) tcp_pair(pair);
    else OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    int64_t all = fill(pair[0]);
    watch(kq, pair[0], 0);
    /* TCP may go on sending for a moment. */
    while (is_pending(kq)) {
      Event event = expect_write(kq, pair[0]);
      CHECK(event.data > 0);
      all += fill(pair[0]);
    }
    expect_nothing(kq);
    drain(pair[1], all);
    CHECK(expect_write(kq, pair[0]).data > 0);
  }
}

TEST(the_end_is_reported_when_the_peer_is_gone) {
  evloop_kqueue_t kq = new_kqueue();
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  watch(kq, pair[0], 0);
  CHECK_EQ(expect_write(kq, pair[0]).flags, 0);
  OK(close(pair[1]));
  CHECK_EQ(expect_write(kq, pair[0]).flags, KQ_EOF);
}

TEST(a_peer_that_only_stopped_sending_can_be_written_to) {
  evloop_kqueue_t kq = new_kqueue();
  int pair[2];
  tcp_pair(pair);
  OK(shutdown(pair[1], SHUT_WR));
  CHECK(readable(pair[0], -1));
  watch(kq, pair[0], 0);
  Event event = expect_write(kq, pair[0]);
  CHECK_EQ(event.flags, 0);
  CHECK(event.data > 0);
  OK(shutdown(pair[0], SHUT_WR));
  CHECK_EQ(expect_write(kq, pair[0]).flags, KQ_EOF);
}

static void stream_pair(int kind, int pair[2]) {
  if (kind == 0) tcp_pair(pair);
  else OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
}

static int tcp_state(int fd) {
  struct tcp_info info = {0};
  socklen_t size = sizeof info;
  OK(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size));
  return info.tcpi_state;
}

/* Ends what is sent; returns when the peer has acknowledged that, as the
 * acknowledgement is an edge of its own. */
static void end_sending(int kind, int fd) {
  OK(shutdown(fd, SHUT_WR));
  if (kind == 0) POLL_UNTIL(tcp_state(fd) == TCP_FIN_WAIT2);
}

TEST(the_programs_own_shutdown_is_the_end_of_writing) {
  static const int flags[] = {0, CLEAR, ONESHOT, DISPATCH};
  for (int kind = 0; kind < 2; kind++) {
    for (int f = 0; AT_ROW(f, flags); f++) {
      evloop_kqueue_t kq = new_kqueue();
      int pair[2];
      stream_pair(kind, pair);
      apply(kq, (uint64_t)pair[0], KQ_READ, ADD, 0, 0, 0);
      end_sending(kind, pair[0]);
      watch(kq, pair[0], flags[f]);
      Event event = expect_write(kq, pair[0]);
      CHECK_EQ(event.flags, flags[f] | KQ_EOF);
      CHECK_EQ(event.data, 0);
      CHECK_EQ(event.fflags, 0);
      if (flags[f] == 0) CHECK_EQ(expect_write(kq, pair[0]).flags, KQ_EOF);
      else expect_nothing(kq);
      /* It is still open for reading. */
      apply(kq, (uint64_t)pair[0], KQ_WRITE, flags[f] == ONESHOT ? ADD | DISABLE : DISABLE, 0, 0, 0);
      put(pair[1]);
      event = expect_event(kq, (uint64_t)pair[0], KQ_READ);
      CHECK_EQ(event.flags, 0);
      CHECK_EQ(event.data, 1);
      OK(close(pair[0]));
      OK(close(pair[1]));
    }
  }
}

static void *shut_down(void *fd) {
  wait_until_main_is_asleep();
  OK(shutdown(*(int *)fd, SHUT_WR));
  return NULL;
}

TEST(a_shutdown_during_a_wait_ends_it) {
  for (int kind = 0; kind < 2; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2];
    pthread_t thread;
    stream_pair(kind, pair);
    watch(kq, pair[0], CLEAR);
    CHECK_EQ(expect_write(kq, pair[0]).flags, CLEAR);
    expect_nothing(kq);
    CHECK_EQ(pthread_create(&thread, NULL, shut_down, pair), 0);
    CHECK_EQ(expect_write(kq, pair[0]).flags, CLEAR | KQ_EOF);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
}

TEST(a_shutdown_is_not_below_a_low_water_mark) {
  for (int kind = 0; kind < 2; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2];
    stream_pair(kind, pair);
    apply(kq, (uint64_t)pair[0], KQ_WRITE, ADD, LOWAT, INT64_MAX, 0);
    expect_nothing_yet(kq);
    OK(shutdown(pair[0], SHUT_WR));
    CHECK_EQ(expect_write(kq, pair[0]).flags, KQ_EOF);
  }
}

/* Asking a socket sends nothing. */
TEST(an_event_leaves_the_stream_alone) {
  for (int kind = 0; kind < 2; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2];
    stream_pair(kind, pair);
    watch(kq, pair[0], 0);
    for (int i = 0; i < 3; i++) CHECK_EQ(expect_write(kq, pair[0]).flags, 0);
    CHECK(!readable(pair[1], 0));
    put(pair[0]);
    char bytes[4];
    CHECK_EQ(read(pair[1], bytes, sizeof bytes), 1);
  }
}

TEST(low_water_marks) {
  for (int kind = 0; kind < 3; kind++) {
    evloop_kqueue_t kq = new_kqueue();
    int pair[2];
    if (kind == 0) {
      Pipe p = new_pipe();
      pair[0] = p.w;
      pair[1] = p.r;
    } else if (kind == 1) {
      tcp_pair(pair);
    } else {
      OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    }
    watch(kq, pair[0], ONESHOT);
    int64_t room = expect_write(kq, pair[0]).data, all = fill_for_good(pair[0]);
    Event event;
    apply(kq, (uint64_t)pair[0], KQ_WRITE, ADD, LOWAT, room - room / 8, 0);
    CHECK_EQ(take(kq, &event, 1, 20 * MS), 0);
    drain(pair[1], all / 2);
    /* How much of that makes room is the business of the two buffers. */
    if (take(kq, &event, 1, 40 * MS) == 1) CHECK(event.data >= room - room / 8);
    drain(pair[1], all - all / 2);
    event = expect_write(kq, pair[0]);
    CHECK(event.data >= room - room / 8);
    event = expect_write(kq, pair[0]);
    CHECK(event.data >= room - room / 8);
    OK(close(pair[1]));
  }
}

TEST(a_low_water_mark_waits_without_spinning) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  Event event;
  int64_t size = pipe_size(&p);
  CHECK_EQ(write(p.w, "x", 1), 1);
  apply(kq, (uint64_t)p.w, KQ_WRITE, ADD, LOWAT, size, 0);
  int64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  CHECK_EQ(take(kq, &event, 1, 100 * MS), 0);
  CHECK(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu < 60 * MS * slow_factor());
  drain(p.r, 1);
  CHECK_EQ(expect_write(kq, p.w).data, size);
  CHECK_EQ(write(p.w, "x", 1), 1);
  apply(kq, (uint64_t)p.w, KQ_WRITE, ADD | DISABLE, LOWAT, size, 0);
  expect_nothing(kq);
}

TEST(files_devices_and_eventfds_have_room) {
  static const char *const paths[] = {"/dev/null", "/dev/zero"};
  for (int i = 0; i < 4; i++) {
    evloop_kqueue_t kq = new_kqueue();
    int fd = i < 2 ? (int)OK(open(paths[i], O_WRONLY | O_CLOEXEC)) : i == 2 ? regular_file() : event_fd(0);
    watch(kq, fd, 0);
    expect_write(kq, fd);
    expect_write(kq, fd);
    apply(kq, (uint64_t)fd, KQ_WRITE, DELETE, 0, 0, 0);
    watch(kq, fd, CLEAR);
    expect_write(kq, fd);
    expect_nothing(kq);
  }
}

TEST(a_full_eventfd_is_not_ready) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = event_fd(0);
  eventfd_t count;
  OK(eventfd_write(fd, UINT64_MAX - 1));
  watch(kq, fd, 0);
  expect_nothing(kq);
  OK(eventfd_read(fd, &count));
  CHECK_EQ((uint64_t)expect_write(kq, fd).data, UINT64_MAX - 1);
  OK(eventfd_write(fd, 3));
  CHECK_EQ((uint64_t)expect_write(kq, fd).data, UINT64_MAX - 4);
}

TEST(a_listener_is_never_ready) {
  evloop_kqueue_t kq = new_kqueue();
  struct sockaddr_in address = {.sin_family = AF_INET};
  int fd = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  OK(bind(fd, (struct sockaddr *)&address, sizeof address));
  OK(listen(fd, 1));
  watch(kq, fd, 0);
  expect_nothing(kq);
}

TEST(low_water_marks_of_files_are_accepted) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = regular_file();
  apply(kq, (uint64_t)fd, KQ_WRITE, ADD, LOWAT, 100, 0);
  expect_write(kq, fd);
  CHECK_ERR(try_change(kq, (uint64_t)fd, KQ_WRITE, ADD, 2, 0, 0), EINVAL);
}

CHECK_MAIN()
