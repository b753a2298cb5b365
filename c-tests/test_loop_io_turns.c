/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers, more of which are ready than an iteration dispatches: those
 * that the kernel reports, and those of descriptors that are always ready,
 * which no epoll takes. They take turns. */

#define _GNU_SOURCE
#include "loop_io.h"

enum { MOST = 800 };

/* Watchers that are ready all the time, the always ready ones first. */
typedef struct Crowd {
  evloop_t loop;
  int max_events, files, pipes;
  evloop_watcher_t watchers[MOST];
  int fds[MOST];
  int calls[MOST];
  int this_iteration, most; /* events of an iteration */
} Crowd;

static Crowd crowd;

/* Its place in the crowd as user_data. */
static void on_ready(const evloop_event_t *event, void *user_data) {
  CHECK((event->events & EVLOOP_ERROR) == 0);
  crowd.calls[(intptr_t)user_data]++;
  crowd.this_iteration++;
  if (crowd.this_iteration > crowd.most) crowd.most = crowd.this_iteration;
}

static void on_check(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  crowd.this_iteration = 0;
}

static evloop_t bounded_loop(int max_events) {
  evloop_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.max_events = max_events;
  return OK(evloop_create(&options));
}

static void new_crowd(int max_events, int files, int pipes, evloop_callback_t callback) {
  Pipe pipe = full_pipe();
  memset(&crowd, 0, sizeof crowd);
  crowd.loop = bounded_loop(max_events);
  crowd.max_events = max_events;
  crowd.files = files;
  crowd.pipes = pipes;
  CHECK(files + pipes <= MOST);
  for (int i = 0; i < files + pipes; i++) {
    crowd.fds[i] = (int)OK(i < files ? open("/dev/null", O_RDONLY | O_CLOEXEC) : dup(pipe.r));
    crowd.watchers[i] = OK(evloop_add_io(crowd.loop, crowd.fds[i], IN, callback, as_data(i)));
  }
  OK(evloop_add_check(crowd.loop, on_check, NULL));
  OK(close(pipe.r));
  OK(close(pipe.w));
}

static void end_crowd(void) {
  CHECK_EQ(evloop_close(crowd.loop), 0);
  for (int i = 0; i < crowd.files + crowd.pipes; i++) OK(close(crowd.fds[i]));
}

typedef struct Range {
  int least, most, sum;
} Range;

static Range calls_of(int first, int count) {
  Range range = {count > 0 ? crowd.calls[first] : 0, 0, 0};
  for (int i = first; i < first + count; i++) {
    if (crowd.calls[i] < range.least) range.least = crowd.calls[i];
    if (crowd.calls[i] > range.most) range.most = crowd.calls[i];
    range.sum += crowd.calls[i];
  }
  return range;
}

/* Each has its turn in every lap, whichever it is of the two kinds. */
static void expect_turns(void) {
  Range files = calls_of(0, crowd.files), pipes = calls_of(crowd.files, crowd.pipes);
  bool served = (crowd.files == 0 || files.least > 0) && (crowd.pipes == 0 || pipes.least > 0);
  if (!served || files.most - files.least > 2 || pipes.most - pipes.least > 2) {
    printf("  max_events %d: %d files had %d to %d events, %d pipes %d to %d\n", crowd.max_events,
           crowd.files, files.least, files.most, crowd.pipes, pipes.least, pipes.most);
    check_exit();
  }
}

/* The bound and both kinds. */
static const int crowds[][3] = {
    {1, 1, 1},  {1, 1, 10},   {1, 10, 1},    {1, 7, 7},   {2, 1, 1},    {2, 2, 10},
    {3, 5, 5},  {4, 5, 100},  {4, 250, 500}, {16, 8, 8},  {16, 16, 16}, {16, 32, 32},
    {16, 3, 600}, {16, 600, 3}, {64, 100, 300}, {256, 300, 300}, {16, 100, 0}, {16, 0, 100},
};

/* On average each had ten; where both kinds are more than there is room for,
 * all had about that. */
static void expect_equal_shares(void) {
  Range all = calls_of(0, crowd.files + crowd.pipes);
  if (crowd.files <= crowd.max_events || crowd.pipes <= crowd.max_events) return;
  CHECK(all.least >= 5);
  CHECK(all.most <= 20);
}

TEST_TIMEOUT(what_is_always_ready_and_what_is_reported_take_turns, 60) {
  for (int i = 0; AT_ROW(i, crowds); i++) {
    int all = crowds[i][1] + crowds[i][2];
    new_crowd(crowds[i][0], crowds[i][1], crowds[i][2], on_ready);
    while (calls_of(0, all).sum < 10 * all) turn(crowd.loop);
    CHECK(crowd.most <= crowd.max_events);
    expect_turns();
    expect_equal_shares();
    end_crowd();
  }
}

/* There is room for both: all are called in each iteration. */
TEST(what_has_room_is_called_in_every_iteration) {
  new_crowd(64, 20, 20, on_ready);
  for (int i = 1; i <= 20; i++) {
    turn(crowd.loop);
    Range all = calls_of(0, 40);
    CHECK(all.least == i);
    CHECK(all.most == i);
  }
  end_crowd();
}

/* Few that the kernel reports are not kept waiting by many that are always
 * ready. */
TEST(few_pipes_are_called_in_every_iteration_beside_many_files) {
  new_crowd(16, 300, 4, on_ready);
  for (int i = 1; i <= 60; i++) {
    turn(crowd.loop);
    Range pipes = calls_of(300, 4);
    CHECK(pipes.least == i);
    CHECK(pipes.most == i);
  }
  expect_turns();
  end_crowd();
}

static void take_events(int room) {
  evloop_event_t events[32];
  CHECK(room <= LENGTH(events));
  int n = (int)OK(evloop_wait(crowd.loop, events, room, 0));
  for (int i = 0; i < n; i++) crowd.calls[events[i].data]++;
}

TEST_TIMEOUT(records_take_turns, 60) {
  static const int rooms[] = {1, 8, 32};
  for (int i = 0; AT_ROW(i, rooms); i++) {
    new_crowd(16, 100, 200, NULL);
    while (calls_of(0, 300).sum < 10 * 300) take_events(rooms[i]);
    expect_turns();
    end_crowd();
  }
}

TEST_TIMEOUT(a_priority_takes_no_turns_from_others, 60) {
  new_crowd(8, 60, 90, on_ready);
  for (int i = 0; i < 150; i++) {
    CHECK_EQ(evloop_watcher_set_priority(crowd.watchers[i], i % 3 - 1), 0);
  }
  while (calls_of(0, 150).sum < 10 * 150) turn(crowd.loop);
  CHECK(crowd.most <= 8);
  expect_turns();
  end_crowd();
}

/* ---- what comes, goes and pauses ---- */

/* Only one in three of those that are always ready is enabled, or left. */
static void thin_out(int (*change)(evloop_watcher_t)) {
  new_crowd(8, 90, 90, on_ready);
  turns(crowd.loop, 5);
  for (int i = 0; i < 90; i++) {
    if (i % 3) CHECK_EQ(change(crowd.watchers[i]), 0);
  }
  memset(crowd.calls, 0, sizeof crowd.calls);
  while (calls_of(0, 180).sum < 10 * 120) turn(crowd.loop);
  Range pipes = calls_of(90, 90);
  CHECK(pipes.least > 0);
  CHECK(pipes.most - pipes.least <= 2);
  for (int i = 0; i < 90; i++) CHECK(i % 3 ? crowd.calls[i] == 0 : crowd.calls[i] > 3);
  end_crowd();
}

static int close_one(evloop_watcher_t watcher) {
  return evloop_watcher_close(watcher, 0);
}

TEST(those_that_are_disabled_have_no_turn) {
  thin_out(evloop_watcher_disable);
}

TEST(those_that_are_closed_have_no_turn) {
  thin_out(close_one);
}

/* Closes itself, and another one is added in its place. */
static void replace_itself(const evloop_event_t *event, void *user_data) {
  int place = (int)(intptr_t)user_data;
  on_ready(event, user_data);
  CHECK_EQ(evloop_watcher_close(event->watcher, 0), 0);
  crowd.watchers[place] =
      OK(evloop_add_io(crowd.loop, crowd.fds[place], IN, replace_itself, user_data));
}

TEST_TIMEOUT(watchers_that_come_and_go_starve_none, 60) {
  new_crowd(8, 60, 60, replace_itself);
  while (calls_of(0, 120).sum < 20 * 120) turn(crowd.loop);
  CHECK(crowd.most <= 8);
  CHECK(calls_of(0, 60).least > 0);
  CHECK(calls_of(60, 60).least > 0);
  end_crowd();
}

/* Events that do not stay, of watchers that are new all the time, do not keep
 * the kernel's list from beginning again. */
static void write_on(const evloop_event_t *event, void *user_data) {
  char byte;
  Pipe *pipe = (Pipe *)user_data;
  CHECK_EQ(read(event->fd, &byte, 1), 1);
  put(pipe->w);
  CHECK_EQ(evloop_watcher_close(event->watcher, 0), 0);
  OK(evloop_add_io(crowd.loop, pipe->r, IN | ONESHOT, write_on, pipe));
}

TEST_TIMEOUT(a_file_has_its_turn_beside_watchers_that_are_new_all_the_time, 60) {
  static Pipe pipes[32];
  new_crowd(4, 2, 0, on_ready);
  for (int i = 0; AT_ROW(i, pipes); i++) {
    pipes[i] = full_pipe();
    OK(evloop_add_io(crowd.loop, pipes[i].r, IN | ONESHOT, write_on, &pipes[i]));
  }
  turns(crowd.loop, 500);
  CHECK(calls_of(0, 2).least > 10);
  end_crowd();
}

/* Neither delays what else a loop does. */
TEST_TIMEOUT(timers_and_posts_have_their_turn_at_the_smallest_bound, 60) {
  Seen timer = {.calls = 0}, posts = {.calls = 0};
  new_crowd(1, 20, 20, on_ready);
  OK(evloop_add_timer(crowd.loop, MONOTONIC, 0, MS, MS, 0, record, &timer));
  for (int i = 1; timer.calls < 10; i++) {
    CHECK_EQ(evloop_post(crowd.loop, record, &posts), 0);
    turn(crowd.loop);
    CHECK_EQ(posts.calls, i);
  }
  end_crowd();
}

CHECK_MAIN()
