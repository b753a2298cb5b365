/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Closing watchers and loops from other threads. */

#define _GNU_SOURCE 1
#include "loop_support.h"

/* ---- helpers ---- */

static void count_call(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  RAISE(*(int *)user_data, 1);
}

/* What a callback must not touch once it was poisoned. */
#define ALIVE UINT32_C(0x11551155)
#define POISON UINT32_C(0xdeaddead)

typedef struct Data {
  uint32_t magic;
  int calls;
} Data;

static void use_data(const evloop_event_t *event, void *user_data) {
  Data *data = (Data *)user_data;
  CHECK_EQ(event->data, (uintptr_t)data);
  CHECK_EQ(LOAD(data->magic), ALIVE);
  RAISE(data->calls, 1);
  CHECK_EQ(LOAD(data->magic), ALIVE);
}

static Data *new_data(void) {
  Data *data = (Data *)malloc(sizeof *data);
  CHECK(data != NULL);
  data->magic = ALIVE;
  data->calls = 0;
  return data;
}

/* A watcher that is called all the time, of one kind or another; the last two
 * only if the loop is busy. */
static evloop_watcher_t lively(evloop_t loop, int kind, int ready_fd, void *data) {
  switch (kind) {
    case 0: return timer(loop, 0, 1000, use_data, data);
    case 1: return readable_io(loop, ready_fd, use_data, data);
    case 2: return OK(evloop_add_idle(loop, use_data, data));
    case 3: return OK(evloop_add_prepare(loop, use_data, data));
    default: return OK(evloop_add_check(loop, use_data, data));
  }
}

/* ---- closing with WAIT ---- */

typedef struct Closer {
  evloop_t loop;
  int number, kinds, destroyed;
} Closer;

enum { ROUNDS = 300 };

static void *close_and_free(void *argument) {
  const Closer *closer = (const Closer *)argument;
  int fd = event_fd(1), i;
  for (i = 0; i < ROUNDS; i++) {
    Data *data = new_data();
    evloop_watcher_t watcher = lively(closer->loop, (i + closer->number) % closer->kinds, fd,
                                      data);
    if (i % 3) UNTIL(LOAD(data->calls) > 0);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    STORE(data->magic, POISON);
    free(data);
    CHECK_ERR(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), ESTALE);
  }
  return NULL;
}

static void close_from_four(void *(*main_of)(void *), bool busy) {
  static Runner runner;
  static Closer closers[4];
  pthread_t threads[4];
  evloop_t loop = running_loop(&runner, busy);
  int i;
  for (i = 0; i < 4; i++) {
    closers[i].loop = loop;
    closers[i].number = i;
    closers[i].kinds = busy ? 5 : 3;
    threads[i] = start_thread(main_of, &closers[i]);
  }
  for (i = 0; i < 4; i++) join(threads[i]);
  for (i = 0; i < 4; i++) {
    if (main_of != close_and_free) UNTIL(LOAD(closers[i].destroyed) == ROUNDS);
  }
  stop_runner(&runner);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  close_loop(loop);
}

TEST_TIMEOUT(data_is_free_after_a_close_that_waited_while_it_runs, 40) {
  close_from_four(close_and_free, true);
}

TEST_TIMEOUT(data_is_free_after_a_close_that_waited_while_it_sleeps, 40) {
  close_from_four(close_and_free, false);
}

/* ---- closing without a wait, and freeing in the destroy notification ---- */

typedef struct Notified {
  Data data;
  Closer *closer;
} Notified;

static void use_notified(const evloop_event_t *event, void *user_data) {
  Notified *notified = (Notified *)user_data;
  use_data(event, &notified->data);
}

static void free_notified(const evloop_event_t *event, void *user_data) {
  Notified *notified = (Notified *)user_data;
  CHECK_EQ(event->type, EVLOOP_EVENT_CLOSED);
  CHECK_EQ(notified->data.magic, ALIVE);
  RAISE(notified->closer->destroyed, 1);
  STORE(notified->data.magic, POISON);
  free(notified);
}

static void *close_and_be_notified(void *argument) {
  Closer *closer = (Closer *)argument;
  int fd = event_fd(1), i;
  for (i = 0; i < ROUNDS; i++) {
    Notified *notified = (Notified *)calloc(1, sizeof *notified);
    evloop_watcher_t watcher;
    notified->data.magic = ALIVE;
    notified->closer = closer;
    watcher = i % 2 ? timer(closer->loop, 0, 1000, use_notified, notified)
                    : readable_io(closer->loop, fd, use_notified, notified);
    CHECK_EQ(evloop_watcher_set_destroy(watcher, free_notified, notified), 0);
    /* A moment in which it may be called. */
    if (i % 3 == 0) go_round(closer->loop);
    close_watcher(watcher);
  }
  return NULL;
}

TEST_TIMEOUT(data_is_freed_by_the_destroy_notification_while_it_runs, 40) {
  close_from_four(close_and_be_notified, true);
}

TEST_TIMEOUT(data_is_freed_by_the_destroy_notification_while_it_sleeps, 40) {
  close_from_four(close_and_be_notified, false);
}

TEST(no_callback_begins_after_a_close) {
  static Runner runner;
  evloop_t loop = running_loop(&runner, true);
  int fd = event_fd(1), i;
  for (i = 0; i < 500; i++) {
    Data *data = new_data();
    evloop_watcher_t watcher = lively(loop, i % 5, fd, data);
    int calls;
    UNTIL(LOAD(data->calls) > 0);
    close_watcher(watcher);
    go_round(loop);
    calls = LOAD(data->calls);
    STORE(data->magic, POISON);
    go_round(loop);
    CHECK_EQ(LOAD(data->calls), calls);
    free(data);
  }
  stop_runner(&runner);
}

/* ---- where the notification runs ---- */

typedef struct Place {
  pid_t callback, notification;
} Place;

static void store_callback_thread(const evloop_event_t *event, void *user_data) {
  CHECK(event->type == EVLOOP_EVENT_TIMER);
  store_tid(&((Place *)user_data)->callback);
}

static void store_notification_thread(const evloop_event_t *event, void *user_data) {
  CHECK(event->type == EVLOOP_EVENT_CLOSED);
  store_tid(&((Place *)user_data)->notification);
}

static void close_elsewhere(bool whole_loop, uint32_t flags) {
  static Runner runner;
  static Place place;
  evloop_t loop = running_loop(&runner, false);
  evloop_watcher_t watcher = timer(loop, 0, 0, store_callback_thread, &place);
  UNTIL(LOAD(place.callback) != 0);
  CHECK_EQ(evloop_watcher_set_destroy(watcher, store_notification_thread, &place), 0);
  if (whole_loop) {
    CHECK_EQ(evloop_close(loop), 0);
    CHECK_EQ(runner_result(&runner), -ESTALE);
  } else {
    CHECK_EQ(evloop_watcher_close(watcher, flags), 0);
  }
  UNTIL(LOAD(place.notification) != 0);
  CHECK_EQ(place.callback, runner.tid);
  CHECK_EQ(place.notification, runner.tid);
  if (!whole_loop) stop_runner(&runner);
}

TEST(the_notification_runs_on_the_thread_of_the_loop) {
  close_elsewhere(false, 0);
}

TEST(the_notification_runs_on_the_thread_of_the_loop_after_a_wait) {
  close_elsewhere(false, EVLOOP_CLOSE_WAIT);
}

TEST(closing_a_running_loop_notifies_on_its_thread) {
  close_elsewhere(true, 0);
}

/* ---- a callback that takes its time ---- */

typedef struct Slow {
  evloop_watcher_t watcher;
  Gate gate;
  int left, waiting; /* atomic */
} Slow;

static void take_time(const evloop_event_t *event, void *user_data) {
  Slow *slow = (Slow *)user_data;
  stay(event, &slow->gate);
  STORE(slow->left, 1);
}

static void start_slow(Slow *slow, evloop_t loop) {
  memset(slow, 0, sizeof *slow);
  slow->watcher = async(loop, take_time, slow);
  trigger(slow->watcher);
  UNTIL(LOAD(slow->gate.entered));
}

/* Another thread closes it, and does not return from that yet. */
static void wait_until_closed(evloop_watcher_t watcher) {
  POLL_UNTIL(evloop_handle_kind(watcher) == -ESTALE);
}

static void *close_waiting(void *argument) {
  Slow *slow = (Slow *)argument;
  STORE(slow->waiting, 1);
  CHECK_EQ(evloop_watcher_close(slow->watcher, EVLOOP_CLOSE_WAIT), 0);
  CHECK_EQ(LOAD(slow->left), 1);
  return NULL;
}

TEST(a_close_that_waits_outlasts_the_callback) {
  static Runner runner;
  static Slow slow;
  evloop_t loop = running_loop(&runner, false);
  int i;
  for (i = 0; i < 100; i++) {
    pthread_t thread;
    start_slow(&slow, loop);
    thread = start_thread(close_waiting, &slow);
    wait_until_closed(slow.watcher);
    open_gate(&slow.gate);
    join(thread);
  }
  stop_runner(&runner);
}

TEST(a_close_that_does_not_wait_returns_at_once) {
  static Runner runner;
  static Slow slow;
  evloop_t loop = running_loop(&runner, false);
  start_slow(&slow, loop);
  close_watcher(slow.watcher);
  CHECK_EQ(LOAD(slow.left), 0);
  open_gate(&slow.gate);
  UNTIL(LOAD(slow.left) == 1);
  stop_runner(&runner);
}

static void stop_slowly(const evloop_event_t *event, void *user_data) {
  Slow *slow = (Slow *)user_data;
  evloop_t loop = OK(evloop_watcher_loop(event->watcher));
  stay(event, &slow->gate);
  CHECK_EQ(evloop_stop(loop), 0);
  STORE(slow->left, 1);
}

/* The loop stops running while another thread waits for its callback. */
TEST(a_close_that_waits_survives_the_end_of_the_run) {
  static Runner runner;
  static Slow slow;
  evloop_t loop = new_loop();
  int i;
  async(loop, ignore, NULL);
  for (i = 0; i < 300; i++) {
    pthread_t thread;
    memset(&slow, 0, sizeof slow);
    slow.watcher = async(loop, stop_slowly, &slow);
    trigger(slow.watcher);
    start_runner(&runner, run_until_done, loop);
    UNTIL(LOAD(slow.gate.entered));
    thread = start_thread(close_waiting, &slow);
    UNTIL(LOAD(slow.waiting) == 1);
    if (i % 2) wait_until_closed(slow.watcher);
    open_gate(&slow.gate);
    CHECK_EQ(runner_result(&runner), 1);
    join(thread);
  }
}

static void close_in_other_loop(const evloop_event_t *event, void *user_data) {
  Slow *slow = (Slow *)user_data;
  CHECK(event != NULL);
  CHECK_EQ(evloop_watcher_close(slow->watcher, EVLOOP_CLOSE_WAIT), 0);
  CHECK_EQ(LOAD(slow->left), 1);
  STORE(slow->waiting, 1);
}

TEST(a_callback_of_one_loop_waits_for_that_of_another) {
  static Runner runners[2];
  static Slow slow;
  evloop_t loops[2];
  int i;
  for (i = 0; i < 2; i++) loops[i] = running_loop(&runners[i], false);
  for (i = 0; i < 100; i++) {
    start_slow(&slow, loops[0]);
    CHECK_EQ(evloop_post(loops[1], close_in_other_loop, &slow), 0);
    wait_until_closed(slow.watcher);
    open_gate(&slow.gate);
    UNTIL(LOAD(slow.waiting) == 1);
  }
  for (i = 0; i < 2; i++) stop_runner(&runners[i]);
}

/* ---- two that close the same ---- */

typedef struct Rivals {
  evloop_t loop;
  evloop_watcher_t watcher;
  pthread_barrier_t start, end;
  int won;
} Rivals;

enum { MATCHES = 1000 };

static void *compete(void *argument) {
  Rivals *rivals = (Rivals *)argument;
  int i, result;
  for (i = 0; i < MATCHES; i++) {
    pthread_barrier_wait(&rivals->start);
    result = evloop_watcher_close(rivals->watcher, i % 2 ? EVLOOP_CLOSE_WAIT : 0);
    CHECK(result == 0 || result == -ESTALE);
    if (result == 0) RAISE(rivals->won, 1);
    pthread_barrier_wait(&rivals->end);
  }
  return NULL;
}

TEST_TIMEOUT(one_of_two_closes_succeeds, 40) {
  static Runner runner;
  static Rivals rivals;
  static int destroyed;
  pthread_t threads[2];
  int fd = event_fd(1), i;
  Data *data = new_data();
  evloop_t loop = running_loop(&runner, true);
  CHECK_EQ(pthread_barrier_init(&rivals.start, NULL, 3), 0);
  CHECK_EQ(pthread_barrier_init(&rivals.end, NULL, 3), 0);
  for (i = 0; i < 2; i++) threads[i] = start_thread(compete, &rivals);
  for (i = 1; i <= MATCHES; i++) {
    rivals.watcher = lively(loop, i % 5, fd, data);
    CHECK_EQ(evloop_watcher_set_destroy(rivals.watcher, count_call, &destroyed), 0);
    pthread_barrier_wait(&rivals.start);
    pthread_barrier_wait(&rivals.end);
    CHECK_EQ(LOAD(rivals.won), i);
  }
  for (i = 0; i < 2; i++) join(threads[i]);
  UNTIL(LOAD(destroyed) == MATCHES);
  go_round(loop);
  CHECK_EQ(LOAD(destroyed), MATCHES);
  stop_runner(&runner);
  free(data);
}

/* ---- closing the loop under calls ---- */

typedef struct Race {
  evloop_t loop;
  int added, destroyed, posted;
} Race;

static void *call_until_stale(void *argument) {
  Race *race = (Race *)argument;
  int result = 0;
  while (result == 0) {
    evloop_watcher_t watcher = evloop_add_timer(race->loop, MONOTONIC, 0, 1000, 1000, 0, ignore, NULL);
    CHECK(watcher > 0 || watcher == -ESTALE);
    if (watcher < 0) break;
    result = evloop_watcher_set_destroy(watcher, count_call, &race->destroyed);
    CHECK(result == 0 || result == -ESTALE);
    if (result < 0) break;
    RAISE(race->added, 1);
    result = evloop_post(race->loop, count_call, &race->posted);
    CHECK(result == 0 || result == -ESTALE);
    result = evloop_watcher_set_priority(watcher, 1);
    CHECK(result == 0 || result == -ESTALE);
    result = evloop_timer_set(watcher, 0, 500, 0);
    CHECK(result == 0 || result == -ESTALE);
    result = evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT);
    CHECK(result == 0 || result == -ESTALE);
    result = evloop_wakeup(race->loop);
    CHECK(result == 0 || result == -ESTALE);
  }
  CHECK_ERR(evloop_post(race->loop, ignore, NULL), ESTALE);
  return NULL;
}

TEST_TIMEOUT(a_loop_is_closed_under_the_calls_of_three_threads, 40) {
  int i, j;
  for (i = 0; i < 200; i++) {
    static Runner runner;
    static Race race;
    pthread_t threads[3];
    memset(&race, 0, sizeof race);
    race.loop = running_loop(&runner, i % 2);
    for (j = 0; j < 3; j++) threads[j] = start_thread(call_until_stale, &race);
    UNTIL(LOAD(race.added) >= i % 20);
    CHECK_EQ(evloop_close(race.loop), 0);
    CHECK_EQ(runner_result(&runner), -ESTALE);
    for (j = 0; j < 3; j++) join(threads[j]);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
    CHECK_EQ(LOAD(race.destroyed), race.added);
  }
}

static pthread_barrier_t both_close;

static void *close_one_loop(void *argument) {
  Race *race = (Race *)argument;
  int result;
  pthread_barrier_wait(&both_close);
  result = evloop_close(race->loop);
  CHECK(result == 0 || result == -ESTALE);
  if (result == 0) RAISE(race->posted, 1);
  return NULL;
}

TEST(one_of_two_closes_of_a_loop_succeeds) {
  int i, j;
  for (i = 0; i < 200; i++) {
    static Runner runner;
    static Race race;
    pthread_t threads[2];
    memset(&race, 0, sizeof race);
    CHECK_EQ(pthread_barrier_init(&both_close, NULL, 2), 0);
    race.loop = running_loop(&runner, i % 2);
    CHECK_EQ(evloop_watcher_set_destroy(async(race.loop, ignore, NULL), count_call, &race.destroyed), 0);
    for (j = 0; j < 2; j++) threads[j] = start_thread(close_one_loop, &race);
    for (j = 0; j < 2; j++) join(threads[j]);
    CHECK_EQ(runner_result(&runner), -ESTALE);
    CHECK_EQ(race.posted, 1);
    CHECK_EQ(race.destroyed, 1);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  }
}

/* ---- descriptors that are closed at once ---- */

typedef struct Reused {
  Data data;
  int fd;
} Reused;

static void expect_its_own(const evloop_event_t *event, void *user_data) {
  Reused *reused = (Reused *)user_data;
  char byte;
  CHECK_EQ(event->fd, reused->fd);
  use_data(event, &reused->data);
  CHECK(event->events & EVLOOP_EPOLLIN);
  (void)!read(event->fd, &byte, 1);
}

/* With WAIT no callback is left that would read from the new descriptor. */
TEST(a_descriptor_is_closed_and_used_again) {
  static Runner runner;
  static Reused rounds[1000];
  evloop_t loop = running_loop(&runner, false);
  int i, first = -1;
  for (i = 0; AT_ROW(i, rounds); i++) {
    Reused *reused = &rounds[i];
    Pipe pipe = new_pipe();
    evloop_watcher_t watcher;
    if (first < 0) first = pipe.r;
    CHECK_EQ(pipe.r, first);
    reused->fd = pipe.r;
    reused->data.magic = ALIVE;
    OK(fcntl(pipe.r, F_SETFL, O_NONBLOCK));
    watcher = readable_io(loop, pipe.r, expect_its_own, reused);
    if (i % 2) put(pipe.w);
    if (i % 4 == 1) UNTIL(LOAD(reused->data.calls) > 0);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    STORE(reused->data.magic, POISON);
    OK(close(pipe.r));
    OK(close(pipe.w));
    /* The same descriptor, of another file: readable, and not watched. */
    pipe = new_pipe();
    CHECK_EQ(pipe.r, first);
    put(pipe.w);
    if (i % 10 == 0) go_round(loop);
    CHECK(readable(pipe.r, 0));
    OK(close(pipe.r));
    OK(close(pipe.w));
  }
  stop_runner(&runner);
}

TEST(an_own_descriptor_is_closed_and_used_again) {
  static Seen seen[2];
  evloop_t loop = new_loop();
  int i;
  for (i = 1; i <= 100; i++) {
    int fd = event_fd(1);
    evloop_watcher_t watcher = readable_io(loop, fd, record, &seen[0]);
    if (i % 2) turn(loop);
    close_watcher(watcher);
    OK(close(fd));
    CHECK_EQ(event_fd(1), fd);
    turn(loop);
    CHECK_EQ(seen[0].calls, (i + 1) / 2);
    watcher = readable_io(loop, fd, record, &seen[1]);
    turn(loop);
    CHECK_EQ(seen[1].calls, i);
    close_watcher(watcher);
    OK(close(fd));
  }
}

CHECK_MAIN()
