/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Event loops used by several threads: added and changed from outside while
 * they run and while they sleep, handed on, sent to. */

#define _GNU_SOURCE 1
#include "loop_support.h"

#include <semaphore.h>

/* ---- helpers ---- */

static void count_call(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  RAISE(*(int *)user_data, 1);
}

static evloop_t some_loop(Runner *runner, int busy) {
  return busy ? running_loop(runner, true) : sleeping_loop(runner);
}

#define BOTH(name)                                                                                 \
  static void name(evloop_t loop);                                                                 \
  static void name##_in(int busy) {                                                                \
    static Runner runner;                                                                          \
    evloop_t loop = some_loop(&runner, busy);                                                      \
    name(loop);                                                                                    \
    stop_runner(&runner);                                                             \
    close_loop(loop);                                                                              \
  }                                                                                                \
  TEST(name##_while_it_sleeps) { name##_in(0); }                                                   \
  TEST(name##_while_it_runs) { name##_in(1); }                                                     \
  static void name(evloop_t loop)

/* ---- one change from outside ---- */

TEST(one_thread_adds_and_another_runs) {
  static Runner runner;
  static Seen due, io, sent;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, record, &sent);
  timer(loop, MS, 0, record, &due);
  readable_io(loop, event_fd(1), record, &io);
  trigger(watcher);
  start_runner(&runner, run_until_done, loop);
  UNTIL(LOAD(due.calls) == 1 && LOAD(io.calls) >= 1 && LOAD(sent.calls) == 1);
  stop_runner(&runner);
  CHECK_EQ(sent.calls, 1);
}

BOTH(each_kind_is_added) {
  static int calls[8];
  int i;
  tfd_t tfd = OK(tfd_create(MONOTONIC, 0));
  CHECK_EQ(tfd_settime_ns(tfd, 0, 1, 0, NULL, NULL), 0);
  readable_io(loop, event_fd(1), count_call, &calls[0]);
  timer(loop, 0, 0, count_call, &calls[1]);
  timer(loop, MS, MS, count_call, &calls[2]);
  trigger(async(loop, count_call, &calls[3]));
  OK(evloop_add_prepare(loop, count_call, &calls[4]));
  OK(evloop_add_check(loop, count_call, &calls[5]));
  OK(evloop_add_defer(loop, count_call, &calls[6]));
  OK(evloop_add_tfd(loop, tfd, count_call, &calls[7]));
  for (i = 0; AT_ROW(i, calls); i++) UNTIL(LOAD(calls[i]) >= 1);
}

TEST(timers_added_while_the_loop_is_busy_share_a_descriptor) {
  enum { MANY = 100 };
  static Runner runner;
  static int calls;
  static Gate gate;
  evloop_t loop = sleeping_loop(&runner);
  hold(loop, &gate);
  int before = open_descriptors();
  for (int i = 0; i < MANY; i++) timer(loop, MS, 0, count_call, &calls);
  CHECK_EQ(open_descriptors(), before + 1);
  open_gate(&gate);
  UNTIL(LOAD(calls) == MANY);
  stop_runner(&runner);
  close_loop(loop);
}

BOTH(an_idle_watcher_is_added) {
  static int calls;
  evloop_watcher_t watcher = OK(evloop_add_idle(loop, count_call, &calls));
  UNTIL(LOAD(calls) >= 10);
  close_watcher(watcher);
}

BOTH(a_timer_is_set) {
  static int calls;
  int i;
  evloop_watcher_t watcher = timer(loop, -1, 0, count_call, &calls);
  for (i = 1; i <= 300; i++) {
    if (i % 3 == 0) set_timer(watcher, HOUR, 0);
    set_timer(watcher, i % 2 ? 0 : 1000, 0);
    UNTIL(LOAD(calls) >= i);
  }
  set_timer(watcher, 3 * MS, 0);
  set_timer(watcher, HOUR, 0);
  set_timer(watcher, -1, 0);
  go_round(loop);
  CHECK_EQ(LOAD(calls), 300);
  CHECK_EQ(evloop_timer_remaining_ns(watcher), INT64_MAX);
}

BOTH(a_timer_is_started_again) {
  static int calls;
  int i;
  evloop_watcher_t watcher = timer(loop, 0, 0, count_call, &calls);
  for (i = 1; i <= 300; i++) {
    UNTIL(LOAD(calls) >= i);
    CHECK_EQ(evloop_timer_again(watcher), 0);
  }
  UNTIL(LOAD(calls) == 301);
}

typedef struct Early {
  int64_t due;
  int calls;
} Early;

static void expect_not_early(const evloop_event_t *event, void *user_data) {
  Early *early = (Early *)user_data;
  CHECK(event->time_ns >= event->deadline_ns);
  CHECK(now_ns(CLOCK_MONOTONIC) >= LOAD(early->due));
  RAISE(early->calls, 1);
}

BOTH(a_timer_from_outside_is_never_early) {
  static Early early;
  uint64_t seed = 6;
  int i;
  evloop_watcher_t watcher = timer(loop, -1, 0, expect_not_early, &early);
  for (i = 1; i <= 300; i++) {
    int64_t delay = random_below(&seed, MS);
    STORE(early.due, now_ns(CLOCK_MONOTONIC) + delay);
    set_timer(watcher, delay, 0);
    UNTIL(LOAD(early.calls) >= i);
  }
  CHECK_EQ(LOAD(early.calls), 300);
}

BOTH(a_descriptor_is_disabled_and_enabled) {
  static int calls;
  int i, seen;
  evloop_watcher_t watcher = readable_io(loop, event_fd(1), count_call, &calls);
  for (i = 0; i < 100; i++) {
    seen = LOAD(calls);
    UNTIL(LOAD(calls) > seen);
    CHECK_EQ(evloop_watcher_disable(watcher), 0);
    go_round(loop);
    seen = LOAD(calls);
    go_round(loop);
    CHECK_EQ(LOAD(calls), seen);
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
  }
  close_watcher(watcher);
}

BOTH(a_descriptor_is_watched_for_something_else) {
  static int calls;
  int pair[2], i, seen;
  evloop_watcher_t watcher;
  OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  watcher = readable_io(loop, pair[0], count_call, &calls);
  for (i = 0; i < 100; i++) {
    CHECK_EQ(evloop_io_modify(watcher, EVLOOP_EPOLLOUT), 0);
    seen = LOAD(calls);
    UNTIL(LOAD(calls) > seen);
    CHECK_EQ(evloop_io_modify(watcher, EVLOOP_EPOLLIN), 0);
    go_round(loop);
    seen = LOAD(calls);
    go_round(loop);
    CHECK_EQ(LOAD(calls), seen);
  }
}

/* "Takes effect before the loop next dispatches": what this thread causes
 * after a change finds it changed, wherever in its iteration the loop is. */
BOTH(a_change_comes_before_what_is_sent_after_it) {
  static int calls[2];
  int i;
  evloop_watcher_t watcher = async(loop, count_call, &calls[0]);
  for (i = 1; i <= 3000; i++) {
    int seen = LOAD(calls[i % 2]);
    CHECK_EQ(evloop_watcher_set_data(watcher, (uintptr_t)&calls[i % 2]), 0);
    trigger(watcher);
    UNTIL(LOAD(calls[0]) + LOAD(calls[1]) == i);
    CHECK_EQ(LOAD(calls[i % 2]), seen + 1);
  }
}

BOTH(a_disabled_watcher_is_quiet_when_sent_to_after_it) {
  static int calls;
  int i;
  evloop_watcher_t watcher = async(loop, count_call, &calls);
  for (i = 1; i <= 3000; i++) {
    CHECK_EQ(evloop_watcher_disable(watcher), 0);
    trigger(watcher);
    if (i % 100 == 0) go_round(loop);
    CHECK_EQ(LOAD(calls), i - 1);
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
    UNTIL(LOAD(calls) == i);
  }
}

BOTH(what_was_set_can_be_read) {
  int i;
  evloop_watcher_t watcher = timer(loop, HOUR, 0, ignore, NULL);
  for (i = 0; i < 300; i++) {
    int64_t left = OK(evloop_timer_remaining_ns(watcher));
    CHECK(left <= HOUR);
    CHECK(left > HOUR / 2);
    set_timer(watcher, -1, 0);
    CHECK_EQ(evloop_timer_remaining_ns(watcher), INT64_MAX);
    set_timer(watcher, HOUR, 0);
  }
}

BOTH(errors_are_reported) {
  evloop_watcher_t watcher = timer(loop, -1, 0, ignore, NULL);
  CHECK_ERR(evloop_timer_again(watcher), EINVAL);
  CHECK_EQ(evloop_timer_set(watcher, EVLOOP_TIMER_ABSTIME, INT64_MAX / 2, 0), 0);
  CHECK_ERR(evloop_timer_again(watcher), EINVAL);
  CHECK_ERR(evloop_timer_set(watcher, 0, 0, -1), EINVAL);
  CHECK_ERR(evloop_timer_set(watcher, 8, 0, 0), EINVAL);
  CHECK_ERR(evloop_io_modify(watcher, EVLOOP_EPOLLIN), EINVAL);
  CHECK_ERR(evloop_async_send(watcher), EINVAL);
  CHECK_ERR(evloop_watcher_set_ratelimit(watcher, -1, 1), EINVAL);
  CHECK_ERR(evloop_watcher_close(watcher, 8), EINVAL);
  CHECK_ERR(evloop_add_io(loop, -1, EVLOOP_EPOLLIN, ignore, NULL), EBADF);
}

BOTH(a_priority_is_changed) {
  static Gate gate;
  evloop_watcher_t a = timer(loop, -1, 0, log_first_char, WORD("a"));
  evloop_watcher_t b = timer(loop, -1, 0, log_first_char, WORD("b"));
  hold(loop, &gate);
  CHECK_EQ(evloop_timer_set(a, EVLOOP_TIMER_ABSTIME, 1, 0), 0);
  CHECK_EQ(evloop_timer_set(b, EVLOOP_TIMER_ABSTIME, 2, 0), 0);
  CHECK_EQ(evloop_watcher_set_priority(b, 1), 0);
  open_gate(&gate);
  go_round(loop);
  EXPECT_LOG("ba");
}

BOTH(a_rate_is_limited) {
  static int calls;
  evloop_watcher_t watcher = readable_io(loop, event_fd(1), count_call, &calls);
  int seen;
  UNTIL(LOAD(calls) >= 3);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, HOUR, 1), 0);
  go_round(loop);
  seen = LOAD(calls);
  go_round(loop);
  CHECK(LOAD(calls) <= seen + 1);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, 0, 0), 0);
  UNTIL(LOAD(calls) > seen + 10);
}

TEST(unref_ends_a_sleeping_run) {
  static Runner runner;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  start_sleeper(&runner, run_until_done, loop);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(evloop_watcher_ref(watcher), 0);
  start_sleeper(&runner, run_until_done, loop);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  start_sleeper(&runner, run_until_done, loop);
  close_watcher(watcher);
  CHECK_EQ(runner_result(&runner), 0);
}

TEST(another_thread_cannot_run_it_too) {
  static Runner runner;
  evloop_event_t event;
  evloop_t loop = sleeping_loop(&runner);
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_NOWAIT), EBUSY);
  CHECK_ERR(evloop_run_for_ns(loop, 0), EBUSY);
  CHECK_ERR(evloop_wait(loop, &event, 1, 0), EBUSY);
  CHECK_ERR(evloop_next_timeout_ns(loop), EBUSY);
  CHECK_ERR(evloop_fileno(loop), EBUSY);
  CHECK_ERR(evloop_embed_prepare(loop), EBUSY);
  CHECK_ERR(evloop_embed_dispatch(loop), EBUSY);
  CHECK(OK(evloop_now_ns(loop)) <= now_ns(CLOCK_MONOTONIC));
  stop_runner(&runner);
  CHECK_EQ(turn(loop), 1);
}

/* ---- a slow callback blocks no other thread ---- */

TEST(no_call_waits_for_a_callback) {
  static Runner runner;
  static Gate gate;
  static int calls[4];
  char name[8];
  evloop_t loop = sleeping_loop(&runner);
  evloop_watcher_t watcher, due, io;
  hold(loop, &gate);
  watcher = async(loop, count_call, &calls[0]);
  due = timer(loop, HOUR, 0, count_call, &calls[1]);
  io = readable_io(loop, event_fd(1), count_call, &calls[2]);
  CHECK_EQ(evloop_io_modify(io, 0), 0);
  set_timer(due, 0, 0);
  CHECK_EQ(evloop_watcher_set_name(watcher, "name"), 0);
  CHECK_EQ(evloop_watcher_get_name(watcher, name, sizeof name), 4);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_watcher_loop(watcher), loop);
  trigger(watcher);
  CHECK_EQ(evloop_post(loop, count_call, &calls[3]), 0);
  CHECK_EQ(evloop_wakeup(loop), 0);
  CHECK(OK(evloop_now_ns(loop)) <= now_ns(CLOCK_MONOTONIC));
  close_watcher(io); /* with WAIT it would wait */
  CHECK_EQ(LOAD(calls[0]) + LOAD(calls[1]) + LOAD(calls[2]) + LOAD(calls[3]), 0);
  open_gate(&gate);
  UNTIL(LOAD(calls[0]) == 1 && LOAD(calls[1]) == 1 && LOAD(calls[3]) == 1);
  stop_runner(&runner);
  CHECK_EQ(calls[2], 0);
}

/* ---- from thread to thread ---- */

TEST(every_wait_is_on_another_thread) {
  evloop_event_t event;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = timer(loop, 0, 0, NULL, NULL);
  int i;
  for (i = 0; i < 100; i++) {
    static Runner runner;
    set_timer(watcher, i % 3 ? 0 : MS, 0);
    start_runner(&runner, run_until_done, loop);
    CHECK_EQ(runner_result(&runner), 0);
    CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
    CHECK_EQ(event.watcher, watcher);
  }
}

typedef struct Baton {
  evloop_t loop;
  evloop_watcher_t watcher;
  sem_t turn[3];
  Seen seen;
} Baton;

typedef struct Carrier {
  Baton *baton;
  int number;
} Carrier;

/* Three threads in turn; every third time by another kind of wait. */
static void *carry(void *argument) {
  const Carrier *carrier = (const Carrier *)argument;
  Baton *baton = carrier->baton;
  evloop_event_t event;
  int i;
  for (i = 0; i < 400; i++) {
    OK(sem_wait(&baton->turn[carrier->number]));
    trigger(baton->watcher);
    if ((i + carrier->number) % 2) {
      CHECK_EQ(evloop_run(baton->loop, EVLOOP_RUN_ONCE), 1);
    } else {
      CHECK_EQ(evloop_wait(baton->loop, &event, 1, 0), 0);
    }
    CHECK_EQ(baton->seen.calls, i * 3 + carrier->number + 1);
    OK(sem_post(&baton->turn[(carrier->number + 1) % 3]));
  }
  return NULL;
}

TEST(a_loop_is_handed_on_a_thousand_times) {
  static Baton baton;
  static Carrier carriers[3];
  pthread_t threads[3];
  int i;
  baton.loop = new_loop();
  baton.watcher = async(baton.loop, record, &baton.seen);
  for (i = 0; i < 3; i++) OK(sem_init(&baton.turn[i], 0, i == 0));
  for (i = 0; i < 3; i++) {
    carriers[i].baton = &baton;
    carriers[i].number = i;
    threads[i] = start_thread(carry, &carriers[i]);
  }
  for (i = 0; i < 3; i++) join(threads[i]);
  CHECK_EQ(baton.seen.calls, 1200);
}

/* ---- storms ---- */

typedef struct Storm {
  evloop_t loop;
  evloop_watcher_t watcher;
  int posted[4]; /* the next number of each thread */
  int total;
} Storm;

typedef struct Post {
  Storm *storm;
  int thread, number;
} Post;

enum { POSTS = 10000 };
static Post posts[4][POSTS];

static void expect_in_order(const evloop_event_t *event, void *user_data) {
  const Post *post = (const Post *)user_data;
  CHECK_EQ(event->data, (uintptr_t)post);
  CHECK_EQ(post->number, post->storm->posted[post->thread]);
  post->storm->posted[post->thread]++;
  if (++post->storm->total == 4 * POSTS) close_watcher(post->storm->watcher);
}

static void *post_often(void *argument) {
  Post *mine = (Post *)argument;
  int i;
  for (i = 0; i < POSTS; i++) {
    CHECK_EQ(evloop_post(mine[i].storm->loop, expect_in_order, &mine[i]), 0);
    if (i % 7 == 0) CHECK_EQ(evloop_wakeup(mine[i].storm->loop), 0);
    if (i % 11 == 0) evloop_async_send(mine[i].storm->watcher);
  }
  return NULL;
}

TEST(every_posted_call_is_made_once_and_in_order) {
  static Storm storm;
  static Runner runner;
  pthread_t threads[4];
  int i, j;
  storm.loop = new_loop();
  storm.watcher = async(storm.loop, ignore, NULL);
  start_runner(&runner, run_until_done, storm.loop);
  for (i = 0; i < 4; i++) {
    for (j = 0; j < POSTS; j++) {
      Post post = {&storm, i, j};
      posts[i][j] = post;
    }
    threads[i] = start_thread(post_often, posts[i]);
  }
  for (i = 0; i < 4; i++) join(threads[i]);
  CHECK_EQ(runner_result(&runner), 0);
  for (i = 0; i < 4; i++) CHECK_EQ(storm.posted[i], POSTS);
}

static void close_counting(const evloop_event_t *event, void *user_data) {
  close_watcher(event->watcher);
  RAISE(*(int *)user_data, 1);
}

typedef struct Adder {
  evloop_t loop;
  int calls;
} Adder;

enum { ADDED = 2000 };

static void *add_often(void *argument) {
  Adder *adder = (Adder *)argument;
  int fd = event_fd(1), i;
  for (i = 0; i < ADDED; i++) {
    switch (i % 4) {
      case 0: timer(adder->loop, i % 1000, 0, close_counting, &adder->calls); break;
      case 1: trigger(async(adder->loop, close_counting, &adder->calls)); break;
      case 2: readable_io(adder->loop, fd, close_counting, &adder->calls); break;
      default: OK(evloop_add_defer(adder->loop, close_counting, &adder->calls)); break;
    }
  }
  return NULL;
}

static void add_from_four(int busy) {
  static Runner runner;
  static Adder adders[4];
  evloop_t loop = some_loop(&runner, busy);
  pthread_t threads[4];
  int i;
  for (i = 0; i < 4; i++) {
    adders[i].loop = loop;
    threads[i] = start_thread(add_often, &adders[i]);
  }
  for (i = 0; i < 4; i++) join(threads[i]);
  for (i = 0; i < 4; i++) UNTIL(LOAD(adders[i].calls) == ADDED);
  stop_runner(&runner);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
}

TEST(four_threads_add_to_a_busy_loop) { add_from_four(1); }
TEST(four_threads_add_to_a_sleeping_loop) { add_from_four(0); }

/* ---- names ---- */

static evloop_watcher_t named;
static int names_done;

static void *set_names(void *argument) {
  char name[200];
  int i;
  for (i = 0; i < 3000; i++) {
    int length = 1 + i % 199;
    memset(name, 'a' + length % 26, (size_t)length);
    name[length] = 0;
    CHECK_EQ(evloop_watcher_set_name(named, name), 0);
  }
  RAISE(names_done, 1);
  return argument;
}

static void *get_names(void *argument) {
  char name[200];
  while (LOAD(names_done) < 2) {
    int length = (int)OK(evloop_watcher_get_name(named, name, sizeof name)), i;
    CHECK_EQ(strlen(name), length);
    for (i = 0; i < length; i++) CHECK(name[i] == 'a' + length % 26);
  }
  return argument;
}

TEST(names_are_never_torn) {
  static Runner runner;
  pthread_t threads[4];
  evloop_t loop = running_loop(&runner, true);
  int i;
  named = async(loop, ignore, NULL);
  for (i = 0; i < 4; i++) threads[i] = start_thread(i < 2 ? set_names : get_names, NULL);
  for (i = 0; i < 4; i++) join(threads[i]);
  stop_runner(&runner);
}

CHECK_MAIN()
