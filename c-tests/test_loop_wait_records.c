/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Event loops whose watchers have no callbacks: evloop_wait() returns what
 * happens. */

#define _GNU_SOURCE 1
#include "loop_kinds.h"

/* ---- helpers ---- */

static int wait_for(evloop_t loop, evloop_event_t *events, int max, int64_t timeout_ns) {
  memset(events, 0xa5, (size_t)max * sizeof *events);
  return (int)OK(evloop_wait(loop, events, max, timeout_ns));
}

/* Adds the data of all pending events, a character each, to the log. */
static void collect(evloop_t loop, int max) {
  evloop_event_t events[16];
  int i, n;
  CHECK(max <= LENGTH(events));
  while ((n = wait_for(loop, events, max, 0)) > 0) {
    CHECK(n <= max);
    for (i = 0; i < n; i++) log_char(*(const char *)(uintptr_t)events[i].data);
  }
}

static void expect_nothing(evloop_t loop) {
  evloop_event_t event;
  CHECK_EQ(wait_for(loop, &event, 1, 0), 0);
}

/* ---- a whole program ---- */

typedef struct Program {
  evloop_t loop;
  evloop_watcher_t io, ticks, wake;
  Pipe pipe;
  bool sent; /* and did not arrive yet */
  int lines, expirations, wakes, posts, closed;
} Program;

static void on_line(Program *p, const evloop_event_t *event) {
  char byte;
  CHECK_EQ(event->fd, p->pipe.r);
  CHECK_EQ(event->events & EVLOOP_EPOLLIN, EVLOOP_EPOLLIN);
  CHECK_EQ(read(event->fd, &byte, 1), 1);
  p->lines++;
  p->sent = true;
  trigger(p->wake);
}

static void on_tick(Program *p, const evloop_event_t *event) {
  p->expirations += (int)event->count;
  put(p->pipe.w);
  if (p->expirations < 5) return;
  close_watcher(p->ticks);
  p->ticks = 0;
  CHECK_EQ(evloop_post(p->loop, NULL, p), 0);
}

static void close_all(Program *p) {
  close_watcher(p->io);
  close_watcher(p->wake);
}

static void on_event(Program *p, const evloop_event_t *event) {
  switch (event->type) {
    case EVLOOP_EVENT_IO:
      CHECK_EQ(event->watcher, p->io);
      on_line(p, event);
      break;
    case EVLOOP_EVENT_TIMER:
      CHECK_EQ(event->watcher, p->ticks);
      on_tick(p, event);
      break;
    case EVLOOP_EVENT_ASYNC:
      CHECK_EQ(event->watcher, p->wake);
      CHECK_EQ(event->data, (uintptr_t)p);
      p->sent = false;
      p->wakes++;
      break;
    case EVLOOP_EVENT_POST:
      expect_plain(event, 0, EVLOOP_EVENT_POST, p);
      p->posts++;
      break;
    case EVLOOP_EVENT_CLOSED:
      CHECK_EQ(event->data, (uintptr_t)p);
      CHECK_ERR(evloop_handle_kind(event->watcher), ESTALE);
      p->closed++;
      break;
    default:
      CHECK(!"an event of another type");
  }
}

static void run_program(Program *p, int max) {
  evloop_event_t events[8];
  int i, n;
  memset(p, 0, sizeof *p);
  p->loop = new_loop();
  p->pipe = new_pipe();
  p->io = readable_io(p->loop, p->pipe.r, NULL, p);
  p->ticks = timer(p->loop, MS, MS, NULL, p);
  p->wake = async(p->loop, NULL, p);
  CHECK_EQ(evloop_watcher_set_destroy(p->io, NULL, NULL), 0);
  CHECK_EQ(evloop_watcher_set_destroy(p->ticks, NULL, NULL), 0);
  CHECK_EQ(evloop_watcher_set_destroy(p->wake, NULL, NULL), 0);
  while ((n = wait_for(p->loop, events, max, -1)) > 0) {
    for (i = 0; i < n; i++) on_event(p, &events[i]);
    /* The timer is closed, its last lines and wake-ups are done. */
    if (p->ticks == 0 && p->posts == 1 && p->lines > 0 && !p->sent && p->closed == 1 &&
        !readable(p->pipe.r, 0) && evloop_handle_kind(p->io) >= 0) {
      close_all(p);
    }
  }
  CHECK(p->expirations >= 5);
  CHECK(p->lines >= 1);
  CHECK(p->lines <= p->expirations);
  CHECK(p->wakes >= 1);
  CHECK(p->wakes <= p->lines);
  CHECK_EQ(p->posts, 1);
  CHECK_EQ(p->closed, 3);
  close_loop(p->loop);
}

TEST(a_whole_program_has_no_callback) {
  static Program program;
  run_program(&program, 8);
}

TEST(a_whole_program_takes_one_event_at_a_time) {
  static Program program;
  run_program(&program, 1);
}

/* ---- what a wait returns ---- */

TEST(arguments_of_a_wait) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, NULL, &loop);
  memset(&event, 0xa5, sizeof event);
  CHECK_ERR(evloop_wait(loop, &event, 0, 0), EINVAL);
  CHECK_ERR(evloop_wait(loop, &event, -1, 0), EINVAL);
  CHECK_ERR(evloop_wait(loop, NULL, 1, 0), EINVAL);
  CHECK_ERR(evloop_wait(0, &event, 1, 0), ESTALE);
  CHECK_EQ(event.type, (int)0xa5a5a5a5);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  CHECK_EQ(event.data, (uintptr_t)&loop);
}

TEST(a_periodic_timer_is_returned_again_and_again) {
  static const uint32_t flags[] = {EVLOOP_TIMER_SKIP, EVLOOP_TIMER_BURST, EVLOOP_TIMER_DELAY};
  evloop_event_t event;
  int i, round;
  for (i = 0; AT_ROW(i, flags); i++) {
    evloop_t loop = new_loop();
    int64_t last = 0;
    OK(evloop_add_timer(loop, MONOTONIC, flags[i], 0, MS / 5, 0, NULL, NULL));
    for (round = 0; round < 20; round++) {
      CHECK_EQ(wait_for(loop, &event, 1, -1), 1);
      CHECK(event.deadline_ns > last);
      last = event.deadline_ns;
    }
  }
}

TEST(a_record_is_returned_though_nothing_is_left) {
  static evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, NULL, NULL);
  CHECK_EQ(evloop_watcher_set_destroy(watcher, NULL, NULL), 0);
  close_watcher(watcher);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 1);
  CHECK_EQ(event.type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(event.watcher, watcher);
}

TEST(only_what_is_returned_is_written) {
  evloop_event_t events[4];
  evloop_t loop = new_loop();
  timer(loop, 0, 0, NULL, NULL);
  CHECK_EQ(wait_for(loop, events, 4, 0), 1);
  CHECK_EQ(events[1].type, (int)0xa5a5a5a5);
  CHECK(events[1].reserved == UINT64_C(0xa5a5a5a5a5a5a5a5));
}

TEST(a_wait_is_never_early) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  int64_t ns;
  async(loop, NULL, NULL);
  for (ns = 1; ns <= 10 * MS; ns *= 10) {
    int64_t start = now_ns(CLOCK_MONOTONIC);
    CHECK_EQ(wait_for(loop, &event, 1, ns), 0);
    CHECK(now_ns(CLOCK_MONOTONIC) - start >= ns);
  }
}

TEST(a_wait_for_nothing_returns) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
  CHECK_EQ(wait_for(loop, &event, 1, HOUR), 0);
  CHECK_EQ(evloop_watcher_unref(async(loop, NULL, NULL)), 0);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
}

TEST(each_event_is_returned_once) {
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g"};
  evloop_t loop = new_loop();
  int max, i;
  for (i = 0; AT_ROW(i, names); i++) timer_at(loop, i, NULL, WORD(names[i]));
  collect(loop, 1);
  EXPECT_LOG("abcdefg");
  for (max = 1; max <= 8; max++) {
    for (i = 0; AT_ROW(i, names); i++) {
      CHECK_EQ(evloop_post(loop, NULL, WORD(names[i])), 0);
    }
    collect(loop, max);
    EXPECT_LOG("abcdefg");
  }
  expect_nothing(loop);
}

TEST(a_wait_returns_as_many_as_are_there) {
  evloop_event_t events[100];
  evloop_t loop = new_loop();
  int i;
  for (i = 0; i < 100; i++) trigger(async(loop, NULL, NULL));
  CHECK_EQ(wait_for(loop, events, 100, -1), 100);
  for (i = 0; i < 100; i++) CHECK_EQ(events[i].type, EVLOOP_EVENT_ASYNC);
  expect_nothing(loop);
}

TEST(events_are_in_the_order_of_dispatching) {
  evloop_t loop = new_loop();
  evloop_watcher_t first;
  evloop_event_t events[8];
  int i, n;
  readable_io(loop, event_fd(1), NULL, WORD("i"));
  OK(evloop_add_defer(loop, NULL, WORD("d")));
  CHECK_EQ(evloop_post(loop, NULL, WORD("p")), 0);
  trigger(async(loop, NULL, WORD("a")));
  timer(loop, 0, 0, NULL, WORD("t"));
  first = readable_io(loop, event_fd(1), NULL, WORD("1"));
  CHECK_EQ(evloop_watcher_set_priority(first, 1), 0);
  n = wait_for(loop, events, 8, -1);
  for (i = 0; i < n; i++) log_char(*(const char *)(uintptr_t)events[i].data);
  EXPECT_LOG("1tapdi");
}

TEST(what_stays_ready_is_returned_by_each_wait) {
  evloop_event_t events[4];
  evloop_t loop = new_loop();
  int fd = event_fd(1), i;
  evloop_watcher_t watcher = readable_io(loop, fd, NULL, NULL);
  for (i = 0; i < 5; i++) {
    CHECK_EQ(wait_for(loop, events, 4, -1), 1);
    CHECK_EQ(events[0].watcher, watcher);
    CHECK_EQ(events[0].fd, fd);
    CHECK_EQ(events[0].events, EVLOOP_EPOLLIN);
    CHECK_EQ(events[0].count, 1);
  }
}

TEST(events_that_did_not_fit_are_dropped_with_their_watcher) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t a = timer_at(loop, 1, NULL, NULL), b = timer_at(loop, 2, NULL, NULL);
  timer_at(loop, 3, NULL, WORD("c"));
  CHECK_EQ(wait_for(loop, &event, 1, -1), 1);
  CHECK_EQ(event.watcher, a);
  close_watcher(b);
  collect(loop, 1);
  EXPECT_LOG("c");
}

EACH_KIND(a_watcher_without_a_callback) {
  evloop_event_t events[2];
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, NULL, &fixture);
  if (kind == &kind_exit) return; /* see below */
  kind->happen(&fixture, 0, watcher);
  /* A check watcher is called after a wait: that must not be for ever. */
  CHECK_EQ(wait_for(fixture.loop, events, 2, kind == &kind_check ? 0 : -1), 1);
  CHECK_EQ(events[0].watcher, watcher);
  CHECK_EQ(events[0].type, kind->type);
  CHECK_EQ(events[0].data, (uintptr_t)&fixture);
  if (kind != &kind_file) CHECK_EQ(events[0].reserved, 0);
  calm(&fixture);
  close_watcher(watcher);
  CHECK_EQ(wait_for(fixture.loop, events, 2, -1), 0);
}

TEST(an_exit_watcher_without_a_callback) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_exit(loop, NULL, &loop));
  expect_nothing(loop);
  run_to_end(loop);
  CHECK_EQ(wait_for(loop, &event, 1, 0), 1);
  expect_plain(&event, watcher, EVLOOP_EVENT_EXIT, &loop);
  expect_nothing(loop);
}

/* ---- beside callbacks ---- */

TEST(callbacks_run_inside_a_wait) {
  static Seen seen;
  evloop_event_t events[4];
  evloop_t loop = new_loop();
  evloop_watcher_t without_callback;
  timer_at(loop, 1, record, &seen);
  without_callback = timer_at(loop, 2, NULL, NULL);
  timer_at(loop, 3, record, &seen);
  CHECK_EQ(wait_for(loop, events, 4, -1), 1);
  CHECK_EQ(events[0].watcher, without_callback);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(evloop_post(loop, record, &seen), 0);
  CHECK_EQ(evloop_post(loop, NULL, &loop), 0);
  CHECK_EQ(wait_for(loop, events, 4, -1), 1);
  expect_plain(&events[0], 0, EVLOOP_EVENT_POST, &loop);
  CHECK_EQ(seen.calls, 3);
}

TEST(a_wait_goes_on_while_only_callbacks_run) {
  static Seen seen;
  evloop_event_t event;
  evloop_t loop = jumping_loop();
  timer(loop, SECOND, SECOND, record, &seen);
  timer(loop, 10 * SECOND + 1, 0, NULL, NULL);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 1);
  CHECK_EQ(seen.calls, 10);
  CHECK_EQ(event.deadline_ns, 10 * SECOND + 1);
}

static void wait_inside(const evloop_event_t *event, void *user_data) {
  evloop_t loop = evloop_watcher_loop(event->watcher);
  evloop_event_t other;
  CHECK_ERR(evloop_wait(loop, &other, 1, 0), EBUSY);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_NOWAIT), EBUSY);
  CHECK_ERR(evloop_run_for_ns(loop, 0), EBUSY);
  record(event, user_data);
}

TEST(a_wait_in_a_callback_is_refused) {
  static Seen seen;
  evloop_event_t event;
  evloop_t loop = new_loop();
  timer(loop, 0, 0, wait_inside, &seen);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
  CHECK_EQ(seen.calls, 1);
}

TEST(a_callback_stops_and_wakes_a_wait) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  async(loop, NULL, NULL);
  timer(loop, 0, 0, stop_loop, as_data(loop));
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
  CHECK_EQ(evloop_stop(loop), 0);
  CHECK_EQ(evloop_stop(loop), 0);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
  CHECK_EQ(evloop_wakeup(loop), 0);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
}

/* ---- under evloop_run ---- */

TEST(a_run_keeps_one_event_for_each_watcher_and_does_not_spin) {
  static Seen checks;
  evloop_event_t events[8];
  evloop_t loop = new_loop();
  evloop_watcher_t io = readable_io(loop, event_fd(1), NULL, NULL), wake = async(loop, NULL, NULL);
  evloop_watcher_t check = OK(evloop_add_check(loop, record, &checks));
  int i, n, seen_io = 0;
  trigger(wake);
  CHECK_EQ(evloop_run_for_ns(loop, 20 * MS), 1);
  CHECK(checks.calls <= 6);
  turns(loop, 10);
  trigger(wake);
  turns(loop, 10);
  close_watcher(check);
  n = wait_for(loop, events, 8, 0);
  CHECK_EQ(n, 2);
  for (i = 0; i < n; i++) {
    CHECK(events[i].watcher == io || events[i].watcher == wake);
    seen_io += events[i].watcher == io;
  }
  CHECK_EQ(seen_io, 1);
}

TEST(a_kept_descriptor_is_watched_again_after_a_wait) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  int fd = event_fd(1), i;
  eventfd_t count;
  evloop_watcher_t watcher = readable_io(loop, fd, NULL, NULL);
  for (i = 0; i < 3; i++) {
    CHECK_EQ(evloop_run_for_ns(loop, MS), 1);
    CHECK_EQ(wait_for(loop, &event, 1, -1), 1);
    CHECK_EQ(event.watcher, watcher);
    OK(eventfd_read(fd, &count));
    CHECK_EQ(evloop_run_for_ns(loop, MS), 1);
    expect_nothing(loop);
    OK(eventfd_write(fd, 1));
  }
}

TEST(a_run_keeps_one_event_of_a_periodic_timer) {
  evloop_event_t events[4];
  evloop_t loop = jumping_loop();
  evloop_watcher_t watcher = timer(loop, SECOND, SECOND, NULL, NULL);
  CHECK_EQ(evloop_run_for_ns(loop, 10 * SECOND + 1), 1);
  CHECK_EQ(wait_for(loop, events, 4, 0), 1);
  CHECK_EQ(events[0].watcher, watcher);
  CHECK(events[0].count >= 1);
  CHECK(events[0].count <= 10);
}

TEST(a_run_keeps_every_posted_call) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, NULL, WORD("a")), 0);
  CHECK_EQ(evloop_post(loop, NULL, WORD("b")), 0);
  run_to_end(loop);
  CHECK_EQ(evloop_post(loop, NULL, WORD("c")), 0);
  run_to_end(loop);
  collect(loop, 2);
  EXPECT_LOG("abc");
}

TEST(a_wait_returns_what_a_finished_run_kept) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, 0, 0, NULL, NULL);
  run_to_end(loop);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 1);
  CHECK_EQ(event.watcher, watcher);
  CHECK_EQ(wait_for(loop, &event, 1, -1), 0);
}

TEST(a_once_run_ends_with_an_event_that_it_keeps) {
  evloop_t loop = new_loop();
  trigger(async(loop, NULL, WORD("a")));
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  collect(loop, 1);
  EXPECT_LOG("a");
}

TEST(what_a_run_kept_goes_with_its_watcher) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, 0, 0, NULL, WORD("t"));
  run_to_end(loop);
  close_watcher(watcher);
  collect(loop, 4);
  EXPECT_LOG("");
}

/* ---- other threads ---- */

TEST(other_threads_end_a_wait) {
  static Runner runner;
  evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, NULL, NULL);
  start_sleeper(&runner, wait_for_events, loop);
  CHECK_ERR(evloop_wait(loop, &event, 1, 0), EBUSY);
  CHECK_EQ(evloop_stop(loop), 0);
  CHECK_EQ(runner_result(&runner), 0);
  start_sleeper(&runner, wait_for_events, loop);
  CHECK_EQ(evloop_wakeup(loop), 0);
  CHECK_EQ(runner_result(&runner), 0);
  start_sleeper(&runner, wait_for_events, loop);
  trigger(watcher);
  CHECK_EQ(runner_result(&runner), 1);
  start_sleeper(&runner, wait_for_events, loop);
  CHECK_EQ(evloop_post(loop, NULL, NULL), 0);
  CHECK_EQ(runner_result(&runner), 1);
}

TEST(closing_a_watcher_ends_a_wait_with_its_record) {
  static Runner runner;
  int i;
  for (i = 0; i < 2; i++) {
    evloop_t loop = new_loop();
    evloop_watcher_t watcher = async(loop, NULL, NULL);
    CHECK_EQ(evloop_watcher_set_destroy(watcher, NULL, NULL), 0);
    if (i == 0) async(loop, NULL, NULL); /* keeps the loop alive */
    start_sleeper(&runner, wait_for_events, loop);
    close_watcher(watcher);
    CHECK_EQ(runner_result(&runner), 1);
  }
}

TEST(closing_the_last_watcher_ends_a_wait) {
  static Runner runner;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, NULL, NULL);
  start_sleeper(&runner, wait_for_events, loop);
  close_watcher(watcher);
  CHECK_EQ(runner_result(&runner), 0);
}

TEST(closing_the_loop_ends_a_wait) {
  static Runner runner;
  evloop_t loop = new_loop();
  async(loop, NULL, NULL);
  start_sleeper(&runner, wait_for_events, loop);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(runner_result(&runner), -ESTALE);
}

CHECK_MAIN()
