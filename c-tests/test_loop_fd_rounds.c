/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop, continued: a loop that has been busy with descriptors alone
 * goes round without looking at anything else. What callbacks then ask for
 * must be seen all the same, and as soon. */

#define _GNU_SOURCE
#include "loop_support.h"

/* A pipe that keeps a loop busy: each event writes the next byte, until there
 * were so many; then it does something. */
typedef struct Busy {
  evloop_t loop;
  int r, w, events;
  void (*then)(struct Busy *busy);
  int other_r, other_w; /* of another pipe */
  evloop_watcher_t watcher;
} Busy;

enum { QUIET = 5 }; /* after so many events */

static void put_byte(int fd) {
  CHECK_EQ(write(fd, "x", 1), 1);
}

static void be_busy(const evloop_event_t *event, void *user_data) {
  Busy *busy = (Busy *)user_data;
  char byte;
  CHECK_EQ(read(event->fd, &byte, 1), 1);
  busy->events++;
  if (busy->events < QUIET) put_byte(busy->w);
  if (busy->events == QUIET) busy->then(busy);
  if (busy->events == QUIET + 1) OK(evloop_stop(busy->loop));
}

static Busy *new_busy(void (*then)(Busy *busy)) {
  static Busy busy;
  int ends[2];
  busy.loop = new_loop();
  busy.then = then;
  OK(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  busy.r = ends[0], busy.w = ends[1];
  OK(pipe2(ends, O_CLOEXEC | O_NONBLOCK));
  busy.other_r = ends[0], busy.other_w = ends[1];
  busy.watcher = readable_io(busy.loop, busy.r, be_busy, &busy);
  put_byte(busy.w);
  return &busy;
}

static void run_busy(const Busy *busy) {
  OK(evloop_run(busy->loop, EVLOOP_RUN_UNTIL_DONE));
}

static void say_and_stop(const evloop_event_t *event, void *user_data) {
  log_word(event, WORD("seen"));
  stop_loop(event, user_data);
}

static void add_check(Busy *busy) {
  OK(evloop_add_check(busy->loop, say_and_stop, as_data(busy->loop)));
}

TEST(a_check_watcher_that_is_added_then_is_called_in_the_same_iteration) {
  Busy *busy = new_busy(add_check);
  run_busy(busy);
  EXPECT_LOG("seen");
  CHECK_EQ(busy->events, QUIET);
}

static void add_prepare(Busy *busy) {
  OK(evloop_add_prepare(busy->loop, say_and_stop, as_data(busy->loop)));
}

static void add_idle(Busy *busy) {
  OK(evloop_add_idle(busy->loop, say_and_stop, as_data(busy->loop)));
}

static void add_defer(Busy *busy) {
  OK(evloop_add_defer(busy->loop, say_and_stop, as_data(busy->loop)));
}

static void add_timer(Busy *busy) {
  OK(evloop_add_timer(busy->loop, MONOTONIC, 0, 1, 0, 0, say_and_stop, as_data(busy->loop)));
}

static void post_call(Busy *busy) {
  OK(evloop_post(busy->loop, say_and_stop, as_data(busy->loop)));
}

static void send_async(Busy *busy) {
  OK(evloop_async_send(async(busy->loop, say_and_stop, as_data(busy->loop))));
}

static void add_file(Busy *busy) {
  int file = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
  readable_io(busy->loop, file, say_and_stop, as_data(busy->loop));
}

static void wake(Busy *busy) {
  OK(evloop_wakeup(busy->loop));
  add_check(busy);
}

static void say_it(void) {
  static const evloop_event_t nothing;
  log_word(&nothing, WORD("seen"));
}

static void stop(Busy *busy) {
  say_it();
  OK(evloop_stop(busy->loop));
}

static void unref_last(Busy *busy) {
  say_it();
  OK(evloop_watcher_unref(busy->watcher));
}

static void close_last(Busy *busy) {
  say_it();
  OK(evloop_watcher_close(busy->watcher, 0));
}

TEST(whatever_is_asked_for_then_happens) {
  static void (*const asked[])(Busy *busy) = {
      add_prepare, add_idle, add_defer, add_timer, post_call, send_async,
      add_file, wake, stop, unref_last, close_last,
  };
  for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
    Busy *busy = new_busy(asked[i]);
    busy->events = 0;
    run_busy(busy);
    EXPECT_LOG("seen");
    CHECK_EQ(busy->events, QUIET);
    close_loop(busy->loop);
  }
}

/* The second pipe's event comes in the same wait as the one that makes the
 * first priority of the loop. */
static void rank(Busy *busy) {
  OK(evloop_watcher_set_priority(busy->watcher, 5));
}

static void be_busy_with_two(const evloop_event_t *event, void *user_data) {
  Busy *busy = (Busy *)user_data;
  be_busy(event, user_data);
  if (busy->events == QUIET - 1) put_byte(busy->other_w);
}

TEST(a_priority_that_is_set_then_strands_no_event_of_the_same_wait) {
  Busy *busy = new_busy(rank);
  close_watcher(busy->watcher);
  busy->watcher = readable_io(busy->loop, busy->r, be_busy_with_two, busy);
  OK(evloop_add_io(busy->loop, busy->other_r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, say_and_stop,
                   as_data(busy->loop)));
  run_busy(busy);
  EXPECT_LOG("seen");
  CHECK_EQ(busy->events, QUIET);
}

static void stay_quiet(Busy *busy) {
  (void)busy;
}

static void *ask_from_outside(void *argument) {
  const Busy *busy = (const Busy *)argument;
  OK(evloop_add_timer(busy->loop, MONOTONIC, 0, 1, 0, 0, say_and_stop, as_data(busy->loop)));
  return NULL;
}

TEST(what_another_thread_asks_for_then_happens) {
  Busy *busy = new_busy(stay_quiet);
  pthread_t thread = start_thread(ask_from_outside, busy);
  run_busy(busy);
  EXPECT_LOG("seen");
  join(thread);
}

CHECK_MAIN()
