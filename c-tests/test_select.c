/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* evloop_select(): what is ready, how the lists come back, how long it waits. */

#define _GNU_SOURCE
#include "support.h"

#include <limits.h>
#include <pty.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/un.h>

/* ---- helpers ---- */

static Pipe full_pipe(void) {
  Pipe p = new_pipe();
  char block[4096] = "";
  OK(fcntl(p.w, F_SETFL, O_NONBLOCK));
  while (write(p.w, block, sizeof block) > 0) { }
  CHECK_EQ(errno, EAGAIN);
  return p;
}

static int select_read(int *list, int *count, int64_t timeout_ns) {
  return evloop_select(list, count, NULL, NULL, NULL, NULL, timeout_ns);
}

/* Is this descriptor alone ready, now, to read, to write, exceptional? */
static bool ready_to_read(int fd) {
  int count = 1;
  return OK(evloop_select(&fd, &count, NULL, NULL, NULL, NULL, 0)) == 1;
}

static bool ready_to_write(int fd) {
  int count = 1;
  return OK(evloop_select(NULL, NULL, &fd, &count, NULL, NULL, 0)) == 1;
}

static bool exceptional(int fd) {
  int count = 1;
  return OK(evloop_select(NULL, NULL, NULL, NULL, &fd, &count, 0)) == 1;
}

/* Raises the limit for descriptors up to `wanted`, or as near as allowed. */
static int room_for(int wanted) {
  struct rlimit limit;
  OK(getrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_max <= (rlim_t)wanted) {
    struct rlimit more = {(rlim_t)wanted + 1, (rlim_t)wanted + 1};
    if (setrlimit(RLIMIT_NOFILE, &more) == 0) return wanted;
  }
  limit.rlim_cur = limit.rlim_max;
  OK(setrlimit(RLIMIT_NOFILE, &limit));
  return limit.rlim_max > (rlim_t)wanted ? wanted : (int)limit.rlim_max - 1;
}

/* ---- the lists ---- */

TEST(lists_are_cut_down_in_place_with_order_and_duplicates) {
  Pipe a = new_pipe(), empty = new_pipe(), c = new_pipe();
  put(a.w);
  put(c.w);
  int r[] = {empty.r, c.r, a.r, empty.r, c.r}, nr = LENGTH(r);
  int w[] = {a.w, a.w}, nw = LENGTH(w);
  int x[] = {a.r, c.r}, nx = LENGTH(x);
  CHECK_EQ(evloop_select(r, &nr, w, &nw, x, &nx, -1), 5);
  CHECK_EQ(nr, 3);
  CHECK(r[0] == c.r);
  CHECK(r[1] == a.r);
  CHECK(r[2] == c.r);
  CHECK_EQ(nw, 2);
  CHECK(w[0] == a.w);
  CHECK(w[1] == a.w);
  CHECK_EQ(nx, 0);
}

TEST(a_list_that_is_all_ready_comes_back_whole) {
  Pipe p = new_pipe();
  int w[] = {p.w, p.w}, nw = LENGTH(w);
  CHECK_EQ(evloop_select(NULL, NULL, w, &nw, NULL, NULL, 0), 2);
  CHECK_EQ(nw, 2);
  CHECK(w[0] == p.w);
  CHECK(w[1] == p.w);
}

TEST(nothing_ready_leaves_three_counts_of_zero) {
  Pipe p = new_pipe(), full = full_pipe();
  int r = p.r, w = full.w, x = p.r, nr = 1, nw = 1, nx = 1;
  CHECK_EQ(evloop_select(&r, &nr, &w, &nw, &x, &nx, 1), 0);
  CHECK_EQ(nr, 0);
  CHECK_EQ(nw, 0);
  CHECK_EQ(nx, 0);
}

TEST(one_descriptor_may_stand_in_all_lists) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  put(pair[1]);
  int r = pair[0], w = pair[0], x = pair[0], nr = 1, nw = 1, nx = 1;
  CHECK_EQ(evloop_select(&r, &nr, &w, &nw, &x, &nx, -1), 2);
  CHECK_EQ(nr, 1);
  CHECK_EQ(nw, 1);
  CHECK_EQ(nx, 0);
}

TEST(duplicates_outnumber_the_descriptor_limit) {
  enum { MANY = 5000 };
  static int w[MANY];
  int nw = MANY;
  Pipe p = new_pipe();
  for (int i = 0; i < MANY; i++) w[i] = p.w;
  set_limit(32);
  CHECK_EQ(evloop_select(NULL, NULL, w, &nw, NULL, NULL, -1), MANY);
  CHECK_EQ(nw, MANY);
  for (int i = 0; i < MANY; i++) CHECK_EQ(w[i], p.w);
}

TEST(more_descriptors_than_the_limit_are_allowed) {
  enum { LIMIT = 40, OVER = 60 };
  int r[OVER], n = OVER, last;
  for (int i = 0; i < OVER; i++) r[i] = (int)OK(eventfd(0, EFD_CLOEXEC));
  last = r[OVER - 1];
  OK(eventfd_write(last, 1));
  set_limit(LIMIT);
  CHECK_EQ(select_read(r, &n, -1), 1);
  CHECK_EQ(n, 1);
  CHECK_EQ(r[0], last);
  leave_room_for_checkers();
}

TEST(thousands_of_descriptors_keep_their_order) {
  enum { MANY = 3000, STEP = 7 };
  static int r[MANY], expected[MANY];
  int all = room_for(MANY + 100) - 100, n = all, ready = 0;
  for (int i = all - 1; i >= 0; i--) {
    r[i] = (int)OK(eventfd(i % STEP == 0, EFD_CLOEXEC));
  }
  for (int i = 0; i < all; i += STEP) expected[ready++] = r[i];
  CHECK(ready > 100);
  CHECK_EQ(select_read(r, &n, -1), ready);
  CHECK_EQ(n, ready);
  CHECK(memcmp(expected, r, (size_t)ready * sizeof r[0]) == 0);
}

TEST(descriptors_above_FD_SETSIZE) {
  static const int wanted[] = {1023, 1024, 1500, 5000};
  Pipe p = new_pipe();
  for (int i = 0; AT_ROW(i, wanted); i++) {
    int r = (int)OK(dup2(p.r, room_for(wanted[i]))), nr = 1;
    int w = (int)OK(dup2(p.w, r - 1)), nw = 1;
    CHECK(r > FD_SETSIZE || wanted[i] <= FD_SETSIZE || geteuid() != 0 ||
          getenv("EVLOOP_TEST_VALGRIND") != NULL);
    CHECK_EQ(evloop_select(&r, &nr, &w, &nw, NULL, NULL, -1), 1);
    CHECK_EQ(nr, 0);
    put(p.w);
    nr = nw = 1;
    CHECK_EQ(evloop_select(&r, &nr, &w, &nw, NULL, NULL, -1), 2);
    char byte;
    OK(read(p.r, &byte, 1));
  }
}

/* ---- what makes a descriptor ready ---- */

TEST(end_of_file_and_hang_up_are_ready_to_read) {
  Pipe p = new_pipe();
  int tcp[2], un[2], master, slave;
  tcp_pair(tcp);
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, un));
  OK(openpty(&master, &slave, NULL, NULL, NULL));
  CHECK(!ready_to_read(p.r));
  CHECK(!ready_to_read(un[0]));
  CHECK(!ready_to_read(master));
  OK(close(p.w));
  OK(shutdown(tcp[1], SHUT_WR));
  OK(close(un[1]));
  OK(close(slave));
  int ended[] = {p.r, un[0], master, tcp[0]};
  for (int i = 0; AT_ROW(i, ended); i++) {
    int fd = ended[i], one = 1;
    CHECK_EQ(select_read(&fd, &one, -1), 1);
  }
}

TEST(an_error_is_ready_to_write_and_to_read) {
  Pipe p = full_pipe();
  CHECK(!ready_to_write(p.w));
  OK(close(p.r));
  CHECK(ready_to_write(p.w));
  CHECK(ready_to_read(p.w));
  CHECK(!exceptional(p.w));
}

TEST(a_refused_connection_is_ready_to_write) {
  struct sockaddr_in address = {.sin_family = AF_INET};
  socklen_t size = sizeof address;
  int unheard = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  OK(bind(unheard, (struct sockaddr *)&address, size));
  OK(getsockname(unheard, (struct sockaddr *)&address, &size));
  int fd = (int)OK(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)), one = 1;
  int rc = connect(fd, (struct sockaddr *)&address, size);
  CHECK(rc < 0);
  CHECK(errno == EINPROGRESS || errno == ECONNREFUSED);
  CHECK_EQ(evloop_select(NULL, NULL, &fd, &one, NULL, NULL, -1), 1);
}

TEST(a_listening_socket_with_a_client_is_ready_to_read) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  socklen_t size = sizeof address;
  int listener = (int)OK(socket(AF_UNIX, SOCK_STREAM, 0));
  int client = (int)OK(socket(AF_UNIX, SOCK_STREAM, 0));
  OK(bind(listener, (struct sockaddr *)&address, sizeof(sa_family_t)));
  OK(getsockname(listener, (struct sockaddr *)&address, &size));
  OK(listen(listener, 1));
  CHECK(!ready_to_read(listener));
  OK(connect(client, (struct sockaddr *)&address, size));
  CHECK(ready_to_read(listener));
}

TEST(out_of_band_data_is_exceptional_and_not_ready_to_read) {
  int tcp[2];
  char byte;
  tcp_pair(tcp);
  CHECK_EQ(send(tcp[0], "!", 1, MSG_OOB), 1);
  int r = tcp[1], x = tcp[1], nr = 1, nx = 1;
  CHECK_EQ(evloop_select(&r, &nr, NULL, NULL, &x, &nx, -1), 1);
  CHECK_EQ(nr, 0);
  CHECK_EQ(nx, 1);
  CHECK_EQ(x, tcp[1]);
  CHECK_EQ(recv(tcp[1], &byte, 1, MSG_OOB), 1);
  CHECK_EQ(byte, '!');
  CHECK(!exceptional(tcp[1]));
}

TEST(regular_files_directories_and_dev_null_are_always_ready) {
  char path[] = "/tmp/evloop-test-XXXXXX";
  int file = (int)OK(mkstemp(path));
  OK(unlink(path));
  int null = (int)OK(open("/dev/null", O_RDWR));
  int directory = (int)OK(open("/", O_RDONLY));
  int r[] = {null, file, directory}, nr = LENGTH(r);
  int w[] = {file, null}, nw = LENGTH(w);
  CHECK_EQ(evloop_select(r, &nr, w, &nw, NULL, NULL, -1), 5);
  CHECK(!exceptional(file));
  CHECK(!exceptional(null));
}

/* poll(2) reports hang-ups without being asked; select(2) does not. */
TEST_TIMEOUT(a_hang_up_that_was_not_asked_for_neither_returns_nor_spins, 60) {
  Pipe gone = new_pipe();
  OK(close(gone.w));
  int w = gone.r, x = gone.r, nw = 1, nx = 1;
  int64_t wait = 300 * MS * slow_factor();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  int64_t cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  CHECK_EQ(evloop_select(NULL, NULL, &w, &nw, &x, &nx, wait), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= wait);
  CHECK(now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu < wait / 2);
}

/* ---- misuse ---- */

static void expect_untouched(int bad, int error) {
  Pipe p = new_pipe();
  put(p.w);
  for (int list = 0; list < 3; list++) {
    int lists[3][3] = {{p.r, p.r, p.r}, {p.w, p.w, p.w}, {p.r, p.r, p.r}};
    int n[3] = {3, 3, 3}, before[3][3];
    lists[list][1] = bad;
    memcpy(before, lists, sizeof lists);
    CHECK_ERR(evloop_select(lists[0], &n[0], lists[1], &n[1], lists[2], &n[2], -1), error);
    CHECK(memcmp(before, lists, sizeof lists) == 0);
    CHECK_EQ(n[0], 3);
    CHECK_EQ(n[1], 3);
    CHECK_EQ(n[2], 3);
  }
}

TEST(a_closed_descriptor_fails_and_changes_nothing) {
  expect_untouched(CLOSED, EBADF);
  expect_untouched(INT_MAX, EBADF);
}

TEST(a_negative_descriptor_fails_and_changes_nothing) {
  expect_untouched(-1, EBADF);
  expect_untouched(INT_MIN, EBADF);
}

TEST(a_negative_count_is_refused_in_each_list) {
  Pipe p = new_pipe();
  put(p.w);
  for (int list = 0; list < 3; list++) {
    int fds[3] = {p.r, p.w, p.r}, n[3] = {1, 1, 1};
    n[list] = list == 1 ? INT_MIN : -1;
    int wrong = n[list];
    CHECK_ERR(evloop_select(&fds[0], &n[0], &fds[1], &n[1], &fds[2], &n[2], 0), EINVAL);
    CHECK_EQ(n[list], wrong);
    CHECK_EQ(n[(list + 1) % 3], 1);
    CHECK(fds[0] == p.r);
    CHECK(fds[1] == p.w);
    CHECK(fds[2] == p.r);
  }
}

TEST(a_null_list_must_be_empty) {
  Pipe p = new_pipe();
  int w = p.w, nw = 1, one = 1, zero = 0;
  CHECK_ERR(evloop_select(NULL, &one, &w, &nw, NULL, NULL, 0), EINVAL);
  CHECK_ERR(evloop_select(&w, &nw, NULL, &one, NULL, NULL, 0), EINVAL);
  CHECK_ERR(evloop_select(NULL, NULL, &w, &nw, NULL, &one, 0), EINVAL);
  CHECK_EQ(one, 1);
  CHECK_EQ(evloop_select(NULL, &zero, &w, &nw, NULL, &zero, 0), 1);
}

TEST(a_null_count_is_an_empty_list) {
  Pipe p = new_pipe();
  int closed = 99999, w = p.w, nw = 1;
  CHECK_EQ(evloop_select(&closed, NULL, &w, &nw, &closed, NULL, 0), 1);
  CHECK_EQ(closed, 99999);
}

/* ---- time ---- */

TEST(three_empty_lists_sleep) {
  static const int64_t waits[] = {0, 1, 999, 1000, 3 * MS / 2, 30 * MS};
  for (int i = 0; AT_ROW(i, waits); i++) {
    int none = 0, list = -1;
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(evloop_select(NULL, NULL, NULL, NULL, NULL, NULL, waits[i]), 0);
    int64_t middle = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(evloop_select(&list, &none, &list, &none, &list, &none, waits[i]), 0);
    CHECK(middle - start >= waits[i]);
    CHECK(now_ns(CLOCK_MONOTONIC) - middle >= waits[i]);
  }
}

TEST(a_timeout_is_never_early) {
  static const int64_t waits[] = {1, 999, 1000, 3 * MS / 2, 30 * MS};
  Pipe p = new_pipe();
  OK(prctl(PR_SET_TIMERSLACK, 1UL)); /* the kernel adds 50 us, else */
  for (int i = 0; i < LENGTH(waits) * 4; i++) {
    int fd = p.r, count = 1;
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(select_read(&fd, &count, waits[i / 4]), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= waits[i / 4]);
  }
}

/* A thread that selects, and how to know that it sleeps there. */
typedef struct Selecting {
  Pipe pipe;
  int64_t timeout_ns;
  pid_t tid;
  int result;
} Selecting;

static void *selecting(void *argument) {
  Selecting *s = argument;
  int fd = s->pipe.r, count = 1;
  store_tid(&s->tid);
  s->result = select_read(&fd, &count, s->timeout_ns);
  return NULL;
}

static void expect_woken_by_data(int64_t timeout_ns) {
  Selecting s = {.pipe = new_pipe(), .timeout_ns = timeout_ns};
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, selecting, &s), 0);
  wait_until_asleep(&s.tid);
  put(s.pipe.w);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(s.result, 1);
}

TEST(negative_timeouts_wait_for_ever) {
  expect_woken_by_data(-1);
  expect_woken_by_data(-1000000000);
  expect_woken_by_data(INT64_MIN);
}

TEST(centuries_do_not_overflow) {
  expect_woken_by_data(INT64_MAX);
  expect_woken_by_data(INT64_MAX - 1);
  expect_woken_by_data(INT64_C(3153600000) * 1000000000);
}

CHECK_MAIN()
