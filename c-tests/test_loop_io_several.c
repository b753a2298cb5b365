/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers: alone on a descriptor, several on one; disabled and enabled. */

#define _GNU_SOURCE
#include "loop_io.h"

/* ---- alone on a descriptor ---- */

TEST(an_exclusive_watcher_is_alone_on_its_descriptor) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = full_pipe();
  evloop_watcher_t watcher = add(loop, pipe.r, IN | EXCLUSIVE, &seen);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN, record, NULL), EEXIST);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN | EXCLUSIVE, record, NULL), EEXIST);
  expect_events(loop, &seen, IN);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  expect_calls(loop, &seen, 0);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN, record, NULL), EEXIST);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  expect_events(loop, &seen, IN);
  add(new_loop(), pipe.r, IN | EXCLUSIVE, &seen); /* alone in its own loop */
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  watcher = add(loop, pipe.r, IN, &seen);
  CHECK_ERR(evloop_add_io(loop, pipe.r, IN | EXCLUSIVE, record, NULL), EEXIST);
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

/* The kernel's registration is exclusive still, and cannot be changed. */
TEST(a_watcher_that_was_exclusive_may_be_joined_and_closed_at_once) {
  static const uint32_t bits[] = {EXCLUSIVE, EXCLUSIVE | ET};
  for (int i = 0; AT_ROW(i, bits); i++) {
    evloop_t loop = new_loop();
    Seen seen = {.calls = 0}, other = {.calls = 0};
    int fd = event_fd(1);
    evloop_watcher_t watcher = add(loop, fd, IN | bits[i], &seen);
    turn(loop);
    CHECK_EQ(evloop_io_modify(watcher, OUT), 0);
    add(loop, fd, IN | ET, &other);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
    expect_events(loop, &other, IN);
    expect_calls(loop, &other, 0);
  }
}

TEST(exclusive_goes_with_some_bits_only) {
  static const uint32_t refused[] = {EXCLUSIVE | ONESHOT, EXCLUSIVE | EVLOOP_EPOLLRDHUP,
                                     EXCLUSIVE | IN | ONESHOT | ET};
  evloop_t loop = new_loop();
  int fd = event_fd(1);
  Seen seen = {.calls = 0};
  evloop_watcher_t watcher = add(loop, event_fd(1), IN, &seen);
  for (int i = 0; AT_ROW(i, refused); i++) {
    CHECK_ERR(evloop_add_io(loop, fd, refused[i], record, NULL), EINVAL);
    CHECK_ERR(evloop_io_modify(watcher, refused[i]), EINVAL);
  }
  expect_events(loop, &seen, IN);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  add(loop, fd, EXCLUSIVE | IN | OUT | ET, &seen);
}

/* What only the kernel refuses is -EINVAL of evloop_add_io(), and of a
 * change, or the one event of it. */
TEST(what_the_kernel_refuses_is_reported_at_once_or_as_an_event) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, other = {.calls = 0};
  int fd = event_fd(1);
  keep_alive(loop);
  CHECK_ERR(evloop_add_io(loop, fd, EXCLUSIVE | EVLOOP_EPOLLPRI, record, NULL), EINVAL);
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

/* ---- several watchers on one descriptor ---- */

TEST(each_watcher_of_a_descriptor_has_the_events_it_asked_for) {
  evloop_t loop = new_loop();
  Seen in = {.calls = 0}, out = {.calls = 0}, both = {.calls = 0}, none = {.calls = 0};
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  evloop_watcher_t reader = add(loop, pair[0], IN, &in), writer = add(loop, pair[0], OUT, &out);
  add(loop, pair[0], IN | OUT, &both);
  add(loop, pair[0], 0, &none);
  expect_calls(loop, &in, 0);
  CHECK_EQ(out.calls, 1);
  CHECK_EQ(out.last.events, OUT);
  CHECK_EQ(both.calls, 1);
  CHECK_EQ(both.last.events, OUT);
  put(pair[1]);
  expect_events(loop, &in, IN);
  CHECK_EQ(out.last.events, OUT);
  CHECK(both.last.events == (IN | OUT));
  CHECK_EQ(none.calls, 0);
  CHECK_EQ(evloop_io_modify(writer, IN), 0);
  expect_events(loop, &out, IN);
  CHECK_EQ(evloop_watcher_close(reader, 0), 0);
  expect_events(loop, &out, IN);
  CHECK_EQ(in.calls, 2);
  CHECK(both.last.events == (IN | OUT));
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

TEST(an_edge_is_one_also_beside_a_disabled_watcher_of_the_descriptor) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0}, disabled = {.calls = 0};
  Pipe pipe = new_pipe();
  add(loop, pipe.r, IN | ET, &seen);
  CHECK_EQ(evloop_watcher_disable(add(loop, pipe.r, IN, &disabled)), 0);
  turns(loop, 3);
  put(pipe.w);
  turns(loop, 20);
  CHECK(seen.calls >= 1);
  CHECK(seen.calls <= 2);
  CHECK_EQ(disabled.calls, 0);
}

static void close_it(const evloop_event_t *event, void *user_data) {
  (void)event;
  OK(evloop_watcher_close(*(evloop_watcher_t *)user_data, 0));
}

/* What the first one leaves ready must not keep the loop from sleeping. */
TEST(a_oneshot_whose_neighbour_is_closed_by_its_event_is_reported_no_more) {
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  Pipe pipe = new_pipe();
  evloop_watcher_t other = 0;
  evloop_watcher_t once =
      OK(evloop_add_io(loop, pipe.r, IN | EVLOOP_EPOLLONESHOT, close_it, &other));
  other = add(loop, pipe.r, IN, &seen);
  put(pipe.w);
  turns(loop, 3);
  CHECK(!readable((int)OK(evloop_fileno(loop)), 0));
  /* It is armed again, and no watcher is left for the loop to close. */
  other = add(loop, new_pipe().r, IN, &seen);
  CHECK_EQ(evloop_watcher_enable(once), 0);
  turns(loop, 3);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
}

CHECK_MAIN()
