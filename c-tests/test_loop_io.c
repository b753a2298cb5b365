/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers: every bit, files, what is refused, fairness.
 * (test_loop_io_several.c has several on one descriptor, test_loop_fd_lost.c
 * descriptors that go away, test_loop_io_threads.c other threads.) */

#define _GNU_SOURCE
#include "epoll_support.h"
#include "loop_io.h"

#include <limits.h>

/* ---- level, edge, oneshot ---- */

TEST(the_event_of_a_descriptor) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add(loop, pipe.r, IN, &seen);
  expect_events(loop, &seen, IN);
  CHECK_EQ(seen.last.watcher, watcher);
  CHECK_EQ(seen.last.data, (uintptr_t)&seen);
  CHECK_EQ(seen.last.type, EVLOOP_EVENT_IO);
  CHECK_EQ(seen.last.fd, pipe.r);
  CHECK_EQ(seen.last.count, 1);
  CHECK_EQ(seen.last.result, 0);
  CHECK_EQ(seen.last.time_ns, 0);
  CHECK_EQ(seen.last.deadline_ns, 0);
  CHECK(seen.last.reserved == 0);
}

TEST(level_triggered_is_reported_as_long_as_it_is_so) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  add(loop, pipe.r, IN, &seen);
  for (int i = 0; i < 5; i++) expect_events(loop, &seen, IN);
  take_byte(pipe.r);
  expect_calls(loop, &seen, 0);
  expect_quiet(loop);
}

TEST(edge_triggered_is_reported_once_for_each_arrival) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = new_pipe();
  add(loop, pipe.r, IN | ET, &seen);
  for (int i = 0; i < 5; i++) {
    put(pipe.w);
    expect_events(loop, &seen, IN);
    expect_calls(loop, &seen, 0);
  }
  expect_quiet(loop);
}

TEST(oneshot_is_reported_once_and_disabled_until_enabled_or_modified) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_watcher_t watcher = add(loop, full_pipe().r, IN | ONESHOT, &seen);
  for (int i = 0; i < 6; i++) {
    expect_events(loop, &seen, IN);
    expect_calls(loop, &seen, 0);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0); /* it does not keep the loop alive */
    CHECK_EQ(i % 2 ? evloop_watcher_enable(watcher) : evloop_io_modify(watcher, IN | ONESHOT), 0);
    CHECK_EQ(evloop_next_timeout_ns(loop), INT64_MAX);
  }
  keep_alive(loop);
  expect_events(loop, &seen, IN);
  expect_quiet(loop);
}

static void enable_again(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_watcher_enable(event->watcher), 0);
}

static void modify_again(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_io_modify(event->watcher, IN | ONESHOT), 0);
}

TEST(a_oneshot_watcher_arms_itself_again_in_its_callback) {
  const evloop_callback_t callbacks[] = {enable_again, modify_again};
  for (int i = 0; AT_ROW(i, callbacks); i++) {
    evloop_t loop = new_loop();
    Seen seen = {.calls = 0};
    OK(evloop_add_io(loop, full_pipe().r, IN | ONESHOT, callbacks[i], &seen));
    for (int turns = 0; turns < 5; turns++) expect_events(loop, &seen, IN);
  }
}

TEST(a_disabled_oneshot_watcher_is_not_enabled_by_modifying_it) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_watcher_t watcher = add(loop, full_pipe().r, IN | ONESHOT, &seen);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_io_modify(watcher, IN | ONESHOT), 0);
  expect_calls(loop, &seen, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  expect_events(loop, &seen, IN);
}

/* ---- what the bits report ---- */

static void expect_what_the_kernel_reports(int fd, uint32_t bit) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  add(loop, fd, bit, &seen);
  turn(loop);
  CHECK_EQ(seen.last.events, kernel_events(fd, bit));
  CHECK_EQ(seen.errors, 0);
  OK(evloop_close(loop));
}

TEST(each_bit_reports_what_the_kernel_reports) {
  for_each_state_and_bit(expect_what_the_kernel_reports);
}

TEST(every_known_bit_is_accepted_and_no_other) {
  evloop_t loop = new_loop();
  int fd = event_fd(0);
  for (int i = 0; i < 32; i++) {
    uint32_t bit = UINT32_C(1) << i;
    int64_t watcher = evloop_add_io(loop, fd, bit, record, NULL);
    if ((known_bits & bit) == 0) {
      CHECK_ERR(watcher, EINVAL);
      watcher = OK(evloop_add_io(loop, fd, 0, record, NULL));
      CHECK_ERR(evloop_io_modify(watcher, bit), EINVAL);
    } else {
      CHECK_EQ(evloop_io_modify(OK(watcher), 0), 0);
      CHECK_EQ(evloop_io_modify(watcher, bit), 0);
    }
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
}

TEST(rdhup_reports_a_peer_that_shut_its_writing_half) {
  for (int tcp = 0; tcp < 2; tcp++) {
    evloop_t loop = new_loop();
    Seen seen = {.calls = 0};
    int pair[2];
    if (tcp) tcp_pair(pair);
    else OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    add(loop, pair[0], EVLOOP_EPOLLRDHUP, &seen);
    expect_calls(loop, &seen, 0);
    OK(shutdown(pair[1], SHUT_WR));
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    CHECK_EQ(seen.last.events, EVLOOP_EPOLLRDHUP);
  }
}

TEST(pri_reports_urgent_data) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, normal = {.calls = 0};
  int pair[2];
  tcp_pair(pair);
  add(loop, pair[0], EVLOOP_EPOLLPRI, &seen);
  add(loop, pair[0], EVLOOP_EPOLLIN, &normal);
  put(pair[1]);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(normal.calls, 1);
  CHECK_EQ(send(pair[1], "!", 1, MSG_OOB), 1);
  while (seen.calls == 0) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(seen.last.events, EVLOOP_EPOLLPRI);
}

TEST(no_bits_watch_for_errors_and_hang_ups) {
  evloop_t loop = new_loop();
  Seen hang_up = {.calls = 0}, error = {.calls = 0};
  Pipe one = new_pipe(), two = new_pipe();
  add(loop, one.r, 0, &hang_up);
  add(loop, two.w, 0, &error);
  put(one.w);
  expect_quiet(loop);
  OK(close(one.w));
  OK(close(two.r));
  turn(loop);
  CHECK_EQ(hang_up.last.events, EVLOOP_EPOLLHUP);
  CHECK_EQ(error.last.events, EVLOOP_EPOLLERR);
}

/* ---- files ---- */

static int open_path(const char *path) {
  return (int)OK(open(path, O_RDONLY | O_CLOEXEC));
}

TEST(files_are_always_ready) {
  const int fds[] = {regular_file(), open_path("/"), open_path("/dev/null"), open_path("/dev/zero"),
                     open_path("/proc/self/status")};
  static const uint32_t masks[] = {IN, OUT, IN | OUT};
  for (int i = 0; i < LENGTH(fds) * LENGTH(masks); i++) {
    uint32_t mask = masks[i % LENGTH(masks)];
    evloop_t loop = new_loop();
    Seen seen = {.calls = 0};
    evloop_watcher_t watcher = add(loop, fds[i / LENGTH(masks)], mask, &seen);
    for (int turns = 0; turns < 5; turns++) expect_events(loop, &seen, mask);
    CHECK_EQ(seen.last.fd, fds[i / LENGTH(masks)]);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
    CHECK_EQ(evloop_watcher_disable(watcher), 0);
    keep_alive(loop);
    expect_calls(loop, &seen, 0);
    expect_quiet(loop);
    CHECK_EQ(evloop_io_modify(watcher, mask | ONESHOT), 0);
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
    expect_events(loop, &seen, mask);
    expect_calls(loop, &seen, 0);
    expect_quiet(loop);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
}

/* It would read from a file that it never knew. */
TEST(an_old_watcher_of_a_file_never_sees_another_file_at_its_descriptor) {
  for (int is_null = 0; is_null < 2; is_null++) {
    evloop_t loop = new_loop();
    Seen old[2] = {{.calls = 0}, {.calls = 0}}, fresh[2] = {{.calls = 0}, {.calls = 0}};
    int fd = open_path("/");
    for (int i = 0; i < 2; i++) add(loop, fd, IN, &old[i]);
    OK(close(fd));
    CHECK_EQ(open_path(is_null ? "/dev/null" : "/proc/self/status"), fd);
    for (int i = 0; i < 2; i++) add(loop, fd, IN, &fresh[i]);
    for (int turns = 1; turns < 4; turns++) {
      turn(loop);
      for (int i = 0; i < 2; i++) {
        CHECK_EQ(old[i].calls, 1);
        CHECK_EQ(old[i].last.events, EVLOOP_ERROR);
        CHECK_EQ(old[i].last.result, -EBADF);
        CHECK_EQ(fresh[i].calls, turns);
        CHECK_EQ(fresh[i].last.events, IN);
      }
    }
    close_loop(loop);
    OK(close(fd));
  }
}

TEST(files_without_a_callback_are_returned_by_each_wait) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  evloop_watcher_t watchers[2];
  int file = regular_file();
  for (int i = 0; i < 2; i++) watchers[i] = OK(evloop_add_io(loop, file, IN, NULL, NULL));
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(evloop_wait(loop, events, 4, -1), 2);
    CHECK(events[0].watcher != events[1].watcher);
  }
  CHECK_EQ(evloop_watcher_close(watchers[0], 0), 0);
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 1);
  CHECK_EQ(events[0].watcher, watchers[1]);
}

/* A pipe whose callback writes into it again. */
typedef struct Echo {
  Seen seen;
  Pipe pipe;
} Echo;

static void write_back(const evloop_event_t *event, void *user_data) {
  Echo *echo = (Echo *)user_data;
  record_and_take(event, &echo->seen);
  put(echo->pipe.w);
}

static void post_on(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  evloop_t loop = (evloop_t)seen->last.watcher;
  (void)event;
  seen->calls++;
  CHECK_EQ(evloop_post(loop, post_on, seen), 0);
}

/* None of these waits for the others to pause. */
TEST(what_is_always_ready_starves_nothing) {
  evloop_t loop = new_loop();
  Seen file = {.calls = 0}, level = {.calls = 0}, timer = {.calls = 0};
  Seen posts = {.last = {.watcher = loop}};
  Echo echo = {.pipe = full_pipe()};
  OK(evloop_add_io(loop, echo.pipe.r, IN, write_back, &echo));
  add(loop, regular_file(), IN, &file);
  add(loop, event_fd(0), OUT, &level);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, MS, MS, 0, record, &timer));
  CHECK_EQ(evloop_post(loop, post_on, &posts), 0);
  for (int turns = 1; timer.calls < 20; turns++) {
    turn(loop);
    CHECK_EQ(echo.seen.calls, turns);
    CHECK_EQ(file.calls, turns);
    CHECK_EQ(level.calls, turns);
    CHECK_EQ(posts.calls, turns);
  }
}

/* ---- what is refused ---- */

TEST(closed_and_negative_descriptors_are_refused) {
  static const int fds[] = {CLOSED, -1, INT_MIN};
  evloop_t loop = new_loop();
  for (int i = 0; AT_ROW(i, fds); i++) CHECK_ERR(evloop_add_io(loop, fds[i], IN, record, NULL),
                                                  EBADF);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  CHECK_EQ(turn(loop), 0);
}

static long kilobytes_used(void) {
  struct rusage usage;
  OK(getrusage(RUSAGE_SELF, &usage));
  return usage.ru_maxrss;
}

TEST_TIMEOUT(a_wild_descriptor_costs_neither_time_nor_memory, 60) {
  static const int fds[] = {200 * 1000 * 1000, INT_MAX};
  evloop_t loop = new_loop();
  for (int i = 0; AT_ROW(i, fds); i++) {
    long before = kilobytes_used();
    CHECK_ERR(evloop_add_io(loop, fds[i], IN, record, NULL), EBADF);
    CHECK(kilobytes_used() - before < 100 * 1000);
  }
}

TEST(a_loop_does_not_watch_its_own_descriptor) {
  evloop_t loop = new_loop(), other = new_loop();
  int own = (int)OK(evloop_fileno(loop));
  CHECK_ERR(evloop_add_io(loop, own, IN, record, NULL), EINVAL);
  OK(evloop_add_io(other, own, IN, record, NULL));
  CHECK_ERR(evloop_add_io(loop, (int)OK(evloop_fileno(other)), IN, record, NULL), ELOOP);
}

TEST(epoll_objects_nest_in_a_loop_until_it_is_too_deep) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  evloop_epoll_t epoll = OK(evloop_epoll_create(0));
  int fd = event_fd(0), result = 0;
  CHECK_EQ(evloop_epoll_register(epoll, fd, IN, 0), 0);
  add(loop, (int)OK(evloop_epoll_fileno(epoll)), IN, &seen);
  expect_calls(loop, &seen, 0);
  OK(eventfd_write(fd, 1));
  expect_events(loop, &seen, IN);
  for (int depth = 0; depth < 10 && result == 0; depth++) {
    int inner = (int)OK(evloop_epoll_fileno(epoll));
    int64_t watcher = evloop_add_io(loop, inner, IN, record, &seen);
    if (watcher < 0) result = (int)watcher;
    epoll = OK(evloop_epoll_create(0));
    if (evloop_epoll_register(epoll, inner, IN, 0) < 0) break;
  }
  CHECK_EQ(result, -ELOOP);
}

/* ---- many ---- */

TEST_TIMEOUT(of_a_thousand_descriptors_each_one_ready_is_reported, 60) {
  enum { PIPES = 1000 };
  static Pipe pipes[PIPES];
  static Seen seen[PIPES];
  need_descriptors(2 * PIPES + 100);
  evloop_t loop = new_loop();
  for (int i = 0; i < PIPES; i++) {
    pipes[i] = new_pipe();
    OK(evloop_add_io(loop, pipes[i].r, IN, record_and_take, &seen[i]));
  }
  for (int step = 1; step <= 100; step *= 10) {
    for (int i = 0; i < PIPES; i += step) put(pipes[i].w);
    turn(loop); /* the default bound is more than there are */
    for (int i = 0; i < PIPES; i++) {
      CHECK_EQ(seen[i].calls, i % step == 0);
      seen[i].calls = 0;
    }
  }
  expect_quiet(loop);
}

CHECK_MAIN()
