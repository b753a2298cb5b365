/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* pthread_cancel(3): no call of the library is a cancellation point, nor is
 * what the program's functions do inside a call; a request acts at the first
 * cancellation point of the thread's own. */

#define _GNU_SOURCE
#include "every_call.h"

static int set_state(int state) {
  int before;
  CHECK_EQ(pthread_setcancelstate(state, &before), 0);
  return before;
}

/* The C library's functions between the calls are cancellation points, too. */
static void before_call(void) {
  set_state(PTHREAD_CANCEL_ENABLE);
}

static void after_call(const char *name) {
  if (set_state(PTHREAD_CANCEL_DISABLE) == PTHREAD_CANCEL_ENABLE) return;
  printf("  %s has left cancellation disabled\n", name);
  check_exit();
}

/* Functions of the program's are full of cancellation points. */
static void in_callback(void) {
  int errno_before = errno;
  CHECK_EQ(set_state(PTHREAD_CANCEL_DISABLE), PTHREAD_CANCEL_DISABLE);
  pthread_testcancel();
  usleep(1);
  CHECK_EQ(write(CLOSED, "x", 1), -1);
  errno = errno_before;
}

/* ---- threads with a request pending ---- */

static int came_to_its_end; /* of what it does with the library */

static void *cancelled_main(void *function) {
  void (*run)(void) = *(void (**)(void))function;
  set_state(PTHREAD_CANCEL_DISABLE);
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  run();
  STORE(came_to_its_end, 1);
  set_state(PTHREAD_CANCEL_ENABLE);
  pthread_testcancel();
  printf("  it was not cancelled\n");
  check_exit();
}

static void in_cancelled_thread(void (*run)(void)) {
  pthread_t thread;
  void *result;
  CHECK_EQ(pthread_create(&thread, NULL, cancelled_main, &run), 0);
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK_EQ(result, PTHREAD_CANCELED);
  CHECK_EQ(LOAD(came_to_its_end), 1);
}

static int nothing_more(void) {
  return 0;
}

static void all_calls(void) {
  make_every_call(nothing_more);
}

TEST_TIMEOUT(no_call_is_a_cancellation_point, 60) {
  prepare_every_call();
  in_cancelled_thread(all_calls);
  after_every_call();
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

/* Watchers are closed, and their destroy notifications called, in many ways. */
static void close_in_all_ways(void) {
  for (int way = 0; way < 4; way++) {
    evloop_t loop = new_loop();
    evloop_watcher_t w = timer(loop, 0, 0, on_event, NULL);
    OK(evloop_watcher_set_destroy(w, on_event, NULL));
    int before = room.callbacks;
    if (way == 0) CALL(evloop_watcher_close, (w, 0));
    if (way == 1) CALL(evloop_handle_close, (w));
    if (way == 2) CALL(evloop_run, (loop, EVLOOP_RUN_UNTIL_DONE));
    CALL(evloop_close, (loop));
    CHECK_EQ(room.callbacks, before + 1 + (way == 2));
  }
}

TEST(destroy_notifications_are_not_cancelled) {
  in_cancelled_thread(close_in_all_ways);
}

/* A loop that is closed by its own callback is freed when its run ends. */
static evloop_t own_loop;

static void close_own(const evloop_event_t *event, void *user_data) {
  on_event(event, user_data);
  OK(evloop_close(own_loop));
}

static void run_until_closed(void) {
  own_loop = new_loop();
  OK(evloop_watcher_set_destroy(timer(own_loop, 0, 0, close_own, NULL), on_event, NULL));
  CHECK_ERR(TRY(evloop_run, (own_loop, EVLOOP_RUN_UNTIL_DONE)), ESTALE);
  CHECK_EQ(room.callbacks, 2);
}

TEST(a_loop_that_its_callback_closes_is_freed) {
  in_cancelled_thread(run_until_closed);
}

/* ---- threads that wait when the request comes ---- */

typedef struct Wait {
  const char *name;
  int64_t (*make)(void);
  int64_t (*wait)(int64_t object);
} Wait;

static int64_t make_loop(void) {
  evloop_t loop = new_loop();
  async(loop, on_event, NULL);
  return loop;
}

static int64_t wait_run(int64_t loop) {
  return evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
}

static int64_t wait_wait(int64_t loop) {
  return evloop_wait(loop, room.loop_events, 8, -1);
}

static int64_t make_poll(void) {
  return OK(evloop_poll_create());
}

static int64_t wait_poll(int64_t set) {
  return evloop_poll_wait(set, room.ready, 8, -1);
}

static int64_t make_epoll(void) {
  return OK(evloop_epoll_create(0));
}

static int64_t wait_epoll(int64_t set) {
  return evloop_epoll_wait(set, room.ready, 8, -1);
}

static int64_t make_kqueue(void) {
  return new_kqueue();
}

static int64_t wait_kqueue(int64_t kq) {
  return evloop_kqueue_control(kq, NULL, 0, room.events, 8, -1);
}

static int64_t make_timer(void) {
  return OK(tfd_create(MONOTONIC, 0));
}

static int64_t wait_timer(int64_t timer) {
  return tfd_read(timer, room.counts);
}

static const Wait waits[] = {
    {"evloop_run", make_loop, wait_run},          {"evloop_wait", make_loop, wait_wait},
    {"evloop_poll_wait", make_poll, wait_poll},   {"evloop_epoll_wait", make_epoll, wait_epoll},
    {"evloop_kqueue_control", make_kqueue, wait_kqueue}, {"tfd_read", make_timer, wait_timer},
};

static const Wait *wait_of;
static int64_t object, result;
static pid_t tid;

static void *waiting_main(void *unused) {
  store_tid(&tid);
  result = wait_of->wait(object);
  STORE(came_to_its_end, 1);
  pthread_testcancel();
  return unused;
}

/* Closing is what ends all of them. */
TEST(a_request_does_not_end_a_wait_and_acts_after_it) {
  for (int i = 0; AT_ROW(i, waits); i++) {
    pthread_t thread;
    void *ended_with;
    wait_of = &waits[i];
    object = wait_of->make();
    STORE(tid, 0);
    STORE(came_to_its_end, 0);
    CHECK_EQ(pthread_create(&thread, NULL, waiting_main, NULL), 0);
    wait_until_asleep(&tid);
    CHECK_EQ(pthread_cancel(thread), 0);
    /* glibc sends a signal, which interrupts the wait; it goes on. */
    wait_until_asleep(&tid);
    CHECK_EQ(LOAD(came_to_its_end), 0);
    CHECK_EQ(evloop_handle_close(object), 0);
    CHECK_EQ(pthread_join(thread, &ended_with), 0);
    CHECK(ended_with == PTHREAD_CANCELED);
    CHECK_EQ(LOAD(came_to_its_end), 1);
    CHECK_ERR(result, ESTALE);
  }
}

/* ---- the program's functions that are no callbacks of watchers ---- */

static int checks;

static int check(void *user_data) {
  in_callback();
  RAISE(checks, 1);
  (void)user_data;
  return 1;
}

static void *checked_main(void *unused) {
  OK(evloop_set_interrupt_check(check, NULL));
  store_tid(&tid);
  CHECK_ERR(evloop_poll_wait(object, room.ready, 8, -1), EINTR);
  STORE(came_to_its_end, 1);
  pthread_testcancel();
  return unused;
}

TEST(an_interrupt_check_is_not_cancelled) {
  pthread_t thread;
  void *ended_with;
  object = OK(evloop_poll_create());
  CHECK_EQ(pthread_create(&thread, NULL, checked_main, NULL), 0);
  wait_until_asleep(&tid);
  CHECK_EQ(pthread_cancel(thread), 0);
  handle_signals(count_signal);
  /* Where the request itself did not interrupt the wait. */
  if (LOAD(checks) == 0) pthread_kill(thread, SIGUSR1);
  CHECK_EQ(pthread_join(thread, &ended_with), 0);
  CHECK_EQ(ended_with, PTHREAD_CANCELED);
  CHECK_EQ(LOAD(came_to_its_end), 1);
  CHECK(checks > 0);
}

/* The thread of a watchdog, which its own callback tries to cancel. */
static int reports, returned;

static void cancel_watchdog(const evloop_stuck_t *stuck, void *user_data) {
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  in_callback();
  if (stuck->returned) {
    RAISE(returned, 1);
  } else {
    RAISE(reports, 1);
  }
  (void)user_data;
}

static void be_stuck(const evloop_event_t *event, void *user_data) {
  int before = LOAD(reports);
  (void)event;
  (void)user_data;
  UNTIL(LOAD(reports) > before);
}

TEST(a_watchdogs_thread_cannot_be_cancelled) {
  evloop_t loop = new_loop();
  OK(evloop_set_watchdog(loop, MS, cancel_watchdog, NULL));
  for (int i = 0; i < 2; i++) {
    timer(loop, 0, 0, be_stuck, NULL);
    turns(loop, 2);
    UNTIL(LOAD(returned) > i);
  }
  OK(evloop_set_watchdog(loop, 0, NULL, NULL));
  close_loop(loop);
}

/* A handler of the program's that the library's has called: there a request
 * acts, as it would without the library. */
static void end_here(int number) {
  (void)number;
  pthread_testcancel();
  printf("  it was not cancelled in the handler\n");
  check_exit();
}

static void *raise_main(void *unused) {
  set_state(PTHREAD_CANCEL_DISABLE);
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  set_state(PTHREAD_CANCEL_ENABLE);
  raise(SIGUSR1);
  return unused;
}

TEST(a_request_acts_in_the_programs_signal_handler) {
  pthread_t thread;
  void *ended_with;
  handle_signals(end_here);
  evloop_t loop = new_loop();
  OK(evloop_add_signal(loop, SIGUSR1, 0, on_event, NULL));
  CHECK_EQ(pthread_create(&thread, NULL, raise_main, NULL), 0);
  CHECK_EQ(pthread_join(thread, &ended_with), 0);
  CHECK(ended_with == PTHREAD_CANCELED);
  turn(loop);
  CHECK_EQ(room.callbacks, 1);
  CHECK_EQ(evloop_close(loop), 0);
}

CHECK_MAIN()
