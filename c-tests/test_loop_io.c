/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers: every bit, files, several on one descriptor, what is refused,
 * fairness. (test_loop_gone.c has descriptors that go away.) */

#define _GNU_SOURCE
#include "epoll_support.h"
#include "loop_support.h"

#include <limits.h>

#define IN EVLOOP_EPOLLIN
#define OUT EVLOOP_EPOLLOUT
#define ET EVLOOP_EPOLLET
#define ONESHOT EVLOOP_EPOLLONESHOT
#define EXCLUSIVE EVLOOP_EPOLLEXCLUSIVE

/* ---- helpers ---- */

static evloop_watcher_t add(evloop_t loop, int fd, uint32_t events, Seen *seen) {
  return OK(evloop_add_io(loop, fd, events, see, seen));
}

/* An iteration in which it is called so many times. */
static void expect_calls(evloop_t loop, const Seen *seen, int calls) {
  int before = seen->calls;
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(seen->calls - before, calls);
}

static void expect_events(evloop_t loop, const Seen *seen, uint32_t events) {
  expect_calls(loop, seen, 1);
  CHECK_EQ(seen->last.events, events);
}

/* The loop has something to wait for, and waits. */
static void expect_quiet(evloop_t loop) {
  Seen prepares = {.calls = 0};
  evloop_watcher_t prepare = OK(evloop_add_prepare(loop, see, &prepares));
  OK(evloop_run_for_ns(loop, 30 * MS));
  CHECK(prepares.calls > 0 && prepares.calls < 10);
  CHECK_EQ(evloop_watcher_close(prepare, 0), 0);
}

static void take(int fd) {
  char byte;
  CHECK_EQ(read(fd, &byte, 1), 1);
}

/* A pipe with a byte in it. */
static Pipe full_pipe(void) {
  Pipe pipe = new_pipe();
  put(pipe.w);
  return pipe;
}

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
  CHECK(seen.last.result == 0 && seen.last.time_ns == 0 && seen.last.deadline_ns == 0);
  CHECK(seen.last.reserved == 0);
}

TEST(level_triggered_is_reported_as_long_as_it_is_so) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  add(loop, pipe.r, IN, &seen);
  for (int i = 0; i < 5; i++) expect_events(loop, &seen, IN);
  take(pipe.r);
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
  see(event, user_data);
  CHECK_EQ(evloop_watcher_enable(event->watcher), 0);
}

static void modify_again(const evloop_event_t *event, void *user_data) {
  see(event, user_data);
  CHECK_EQ(evloop_io_modify(event->watcher, IN | ONESHOT), 0);
}

TEST(a_oneshot_watcher_arms_itself_again_in_its_callback) {
  const evloop_callback_t callbacks[] = {enable_again, modify_again};
  for (int i = 0; i < LENGTH(callbacks); i++) {
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
    int64_t watcher = evloop_add_io(loop, fd, bit, see, NULL);
    if ((known_bits & bit) == 0) {
      CHECK_ERR(watcher, EINVAL);
      watcher = OK(evloop_add_io(loop, fd, 0, see, NULL));
      CHECK_ERR(evloop_io_modify(watcher, bit), EINVAL);
    } else {
      CHECK_EQ(evloop_io_modify(OK(watcher), 0), 0);
      CHECK_EQ(evloop_io_modify(watcher, bit), 0);
    }
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
}

TEST(rdhup_tells_of_a_peer_that_shut_its_writing_half) {
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

TEST(pri_tells_of_urgent_data) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, normal = {.calls = 0};
  int pair[2];
  tcp_pair(pair);
  add(loop, pair[0], EVLOOP_EPOLLPRI, &seen);
  add(loop, pair[0], EVLOOP_EPOLLIN, &normal);
  put(pair[1]);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK(seen.calls == 0 && normal.calls == 1);
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

/* ---- alone on a descriptor ---- */

TEST(an_exclusive_watcher_is_alone_on_its_descriptor) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add(loop, pipe.r, IN | EXCLUSIVE, &seen);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN, see, NULL), EEXIST);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN | EXCLUSIVE, see, NULL), EEXIST);
  expect_events(loop, &seen, IN);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  expect_calls(loop, &seen, 0);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN, see, NULL), EEXIST);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  expect_events(loop, &seen, IN);
  add(new_loop(), pipe.r, IN | EXCLUSIVE, &seen); /* alone in its own loop */
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  watcher = add(loop, pipe.r, IN, &seen);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN | EXCLUSIVE, see, NULL), EEXIST);
  expect_events(loop, &seen, IN);
}

TEST(an_exclusive_watcher_is_modified) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, other = {.calls = 0};
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  evloop_watcher_t watcher = add(loop, pair[0], IN | EXCLUSIVE, &seen);
  expect_calls(loop, &seen, 0);
  CHECK_EQ(evloop_io_modify(watcher, OUT | EXCLUSIVE), 0);
  expect_events(loop, &seen, OUT);
  CHECK_EQ(evloop_io_modify(watcher, IN), 0);
  expect_calls(loop, &seen, 0);
  add(loop, pair[0], OUT, &other);
  expect_events(loop, &other, OUT);
  CHECK_ERR(evloop_io_modify(watcher, IN | EXCLUSIVE), EEXIST);
  put(pair[1]);
  expect_events(loop, &seen, IN);
}

TEST(exclusive_goes_with_some_bits_only) {
  static const uint32_t refused[] = {EXCLUSIVE | ONESHOT, EXCLUSIVE | EVLOOP_EPOLLRDHUP,
                                     EXCLUSIVE | IN | ONESHOT | ET};
  evloop_t loop = new_loop();
  int fd = event_fd(1);
  Seen seen = {.calls = 0};
  evloop_watcher_t watcher = add(loop, event_fd(1), IN, &seen);
  for (int i = 0; i < LENGTH(refused); i++) {
    CHECK_ERR(evloop_add_io(loop, fd, refused[i], see, NULL), EINVAL);
    CHECK_ERR(evloop_io_modify(watcher, refused[i]), EINVAL);
  }
  expect_events(loop, &seen, IN);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  add(loop, fd, EXCLUSIVE | IN | OUT | ET, &seen);
}

/* What only the kernel refuses is -EINVAL of evloop_add_io(), and of a
 * change, or the one event of it. */
TEST(what_the_kernel_refuses_is_told_at_once_or_as_an_event) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, other = {.calls = 0};
  int fd = event_fd(1);
  keep_alive(loop);
  CHECK_ERR(evloop_add_io(loop, fd, EXCLUSIVE | EVLOOP_EPOLLPRI, see, NULL), EINVAL);
  evloop_watcher_t watcher = add(loop, fd, IN, &seen);
  int result = evloop_io_modify(watcher, EXCLUSIVE | EVLOOP_EPOLLPRI);
  CHECK(result == 0 || result == -EINVAL);
  expect_calls(loop, &seen, 1);
  CHECK_EQ(seen.errors, result == 0);
  CHECK_EQ(seen.last.result, result == 0 ? -EINVAL : 0);
  if (result == 0) expect_quiet(loop);
  CHECK_EQ(evloop_io_modify(watcher, OUT), 0);
  expect_events(loop, &seen, OUT);
  add(loop, fd, IN, &other);
  expect_events(loop, &other, IN);
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
  see_and_take(event, &echo->seen);
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
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, MS, MS, 0, see, &timer));
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
  for (int i = 0; i < LENGTH(fds); i++) CHECK_ERR(evloop_add_io(loop, fds[i], IN, see, NULL), EBADF);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  CHECK_EQ(turn(loop), 0);
}

static long kilobytes_used(void) {
  struct rusage usage;
  OK(getrusage(RUSAGE_SELF, &usage));
  return usage.ru_maxrss;
}

TEST_TIMEOUT(a_wild_number_costs_neither_time_nor_memory, 60) {
  static const int fds[] = {200 * 1000 * 1000, INT_MAX};
  evloop_t loop = new_loop();
  for (int i = 0; i < LENGTH(fds); i++) {
    long before = kilobytes_used();
    CHECK_ERR(evloop_add_io(loop, fds[i], IN, see, NULL), EBADF);
    CHECK(kilobytes_used() - before < 100 * 1000);
  }
}

TEST(a_loop_does_not_watch_its_own_descriptor) {
  evloop_t loop = new_loop(), other = new_loop();
  int own = (int)OK(evloop_fileno(loop));
  CHECK_ERR(evloop_add_io(loop, own, IN, see, NULL), EINVAL);
  OK(evloop_add_io(other, own, IN, see, NULL));
  CHECK_ERR(evloop_add_io(loop, (int)OK(evloop_fileno(other)), IN, see, NULL), ELOOP);
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
    int64_t watcher = evloop_add_io(loop, inner, IN, see, &seen);
    if (watcher < 0) result = (int)watcher;
    epoll = OK(evloop_epoll_create(0));
    if (evloop_epoll_register(epoll, inner, IN, 0) < 0) break;
  }
  CHECK_EQ(result, -ELOOP);
}

/* ---- several watchers on one descriptor ---- */

TEST(each_watcher_of_a_descriptor_is_told_what_it_asked_for) {
  evloop_t loop = new_loop();
  Seen in = {.calls = 0}, out = {.calls = 0}, both = {.calls = 0}, none = {.calls = 0};
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  evloop_watcher_t reader = add(loop, pair[0], IN, &in), writer = add(loop, pair[0], OUT, &out);
  add(loop, pair[0], IN | OUT, &both);
  add(loop, pair[0], 0, &none);
  expect_calls(loop, &in, 0);
  CHECK(out.calls == 1 && out.last.events == OUT && both.calls == 1 && both.last.events == OUT);
  put(pair[1]);
  expect_events(loop, &in, IN);
  CHECK(out.last.events == OUT && both.last.events == (IN | OUT) && none.calls == 0);
  CHECK_EQ(evloop_io_modify(writer, IN), 0);
  expect_events(loop, &out, IN);
  CHECK_EQ(evloop_watcher_close(reader, 0), 0);
  expect_events(loop, &out, IN);
  CHECK(in.calls == 2 && both.last.events == (IN | OUT));
  OK(close(pair[1]));
  expect_events(loop, &none, EVLOOP_EPOLLHUP);
  CHECK_EQ(out.last.events, IN | EVLOOP_EPOLLHUP);
}

TEST(closing_one_watcher_of_a_descriptor_keeps_the_others) {
  evloop_t loop = new_loop();
  Seen seen[3] = {{.calls = 0}};
  evloop_watcher_t watchers[3];
  Pipe pipe = full_pipe();
  for (int i = 0; i < 3; i++) watchers[i] = add(loop, pipe.r, IN, &seen[i]);
  expect_events(loop, &seen[2], IN);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(evloop_watcher_close(watchers[i], 0), 0);
    turn(loop);
    for (int other = 0; other < 3; other++) CHECK_EQ(seen[other].calls, 1 + (other <= i ? other : i + 1));
  }
  CHECK_EQ(turn(loop), 0);
}

TEST(a_oneshot_watcher_does_not_silence_its_neighbour) {
  evloop_t loop = new_loop();
  Seen once = {.calls = 0}, always = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add(loop, pipe.r, IN | ONESHOT, &once);
  add(loop, pipe.r, IN, &always);
  for (int i = 1; i <= 3; i++) {
    for (int turns = 0; turns < 3; turns++) expect_events(loop, &always, IN);
    CHECK_EQ(once.calls, i);
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
  }
}

TEST(none_is_edge_triggered_beside_one_that_is_not) {
  evloop_t loop = new_loop();
  Seen edge = {.calls = 0}, level = {.calls = 0};
  Pipe pipe = full_pipe();
  add(loop, pipe.r, IN | ET, &edge);
  evloop_watcher_t watcher = add(loop, pipe.r, IN, &level);
  for (int turns = 0; turns < 3; turns++) expect_events(loop, &edge, IN);
  CHECK_EQ(level.calls, 3);
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  turn(loop);
  expect_calls(loop, &edge, 0);
  put(pipe.w);
  expect_events(loop, &edge, IN);
  expect_calls(loop, &edge, 0);
}

/* ---- disabling and enabling ---- */

TEST(a_disabled_watcher_is_not_called_nor_waited_for) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, gone = {.calls = 0};
  Pipe pipe = full_pipe(), hung_up = new_pipe();
  evloop_watcher_t first = add(loop, pipe.r, IN, &seen), second = add(loop, hung_up.r, IN, &gone);
  OK(close(hung_up.w));
  for (int i = 0; i < 3; i++) {
    expect_events(loop, &seen, IN);
    CHECK_EQ(gone.last.events, EVLOOP_EPOLLHUP);
    CHECK_EQ(evloop_watcher_disable(first), 0);
    CHECK_EQ(evloop_watcher_disable(second), 0);
    int calls = seen.calls + gone.calls;
    CHECK_EQ(turn(loop), i > 0);
    if (i == 0) keep_alive(loop);
    expect_quiet(loop);
    CHECK_EQ(seen.calls + gone.calls, calls);
    CHECK_EQ(evloop_watcher_enable(first), 0);
    CHECK_EQ(evloop_watcher_enable(second), 0);
  }
}

TEST(disabling_and_enabling_at_once_changes_nothing) {
  evloop_t loop = new_loop();
  Seen level = {.calls = 0}, edge = {.calls = 0};
  Pipe one = full_pipe(), two = new_pipe();
  evloop_watcher_t first = add(loop, one.r, IN, &level), second = add(loop, two.r, IN | ET, &edge);
  for (int i = 0; i < 5; i++) {
    put(two.w);
    for (int times = 0; times <= i; times++) {
      CHECK_EQ(evloop_watcher_disable(first), 0);
      CHECK_EQ(evloop_watcher_disable(second), 0);
      CHECK_EQ(evloop_watcher_enable(first), 0);
      CHECK_EQ(evloop_watcher_enable(second), 0);
    }
    expect_calls(loop, &level, 1);
    CHECK_EQ(edge.calls, i + 1);
  }
}

/* Each callback disables and enables all watchers. */
typedef struct Toggler {
  evloop_watcher_t watchers[3];
  int calls;
} Toggler;

static void toggle_all(const evloop_event_t *event, void *user_data) {
  Toggler *t = (Toggler *)user_data;
  CHECK((event->events & EVLOOP_ERROR) == 0);
  t->calls++;
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(evloop_watcher_disable(t->watchers[i]), 0);
    CHECK_EQ(evloop_watcher_enable(t->watchers[i]), 0);
  }
}

/* Also where the event of this iteration is dropped none is lost for good. */
TEST(disabling_and_enabling_in_a_callback_loses_no_edge) {
  for (int edge = 0; edge < 2; edge++) {
    evloop_t loop = new_loop();
    Toggler t = {.calls = 0};
    Pipe pipes[3];
    for (int i = 0; i < 3; i++) {
      pipes[i] = new_pipe();
      t.watchers[i] = OK(evloop_add_io(loop, pipes[i].r, IN | (edge ? ET : 0), toggle_all, &t));
    }
    for (int i = 0; i < 3; i++) put(pipes[i].w);
    for (int turns = 0; turns < 5; turns++) turn(loop);
    CHECK(t.calls >= 3);
  }
}

TEST(an_edge_while_disabled_is_seen_once_enabled) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = new_pipe();
  evloop_watcher_t watcher = add(loop, pipe.r, IN | ET, &seen);
  expect_calls(loop, &seen, 0);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  put(pipe.w);
  for (int turns = 0; turns < 3; turns++) OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(seen.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  expect_events(loop, &seen, IN);
  expect_calls(loop, &seen, 0);
}

/* ---- many ---- */

TEST_TIMEOUT(of_a_thousand_descriptors_each_one_ready_is_reported, 60) {
  enum { PIPES = 1000 };
  static Pipe pipes[PIPES];
  static Seen seen[PIPES];
  evloop_t loop = new_loop();
  for (int i = 0; i < PIPES; i++) {
    pipes[i] = new_pipe();
    OK(evloop_add_io(loop, pipes[i].r, IN, see_and_take, &seen[i]));
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
