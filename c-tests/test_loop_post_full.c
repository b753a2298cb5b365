/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* evloop_post_full(): what a posted call needs is freed exactly once. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <sys/wait.h>

static int calls, destroyed; /* atomic */
static pid_t destroyed_by;

static void count_call(const evloop_event_t *event, void *user_data) {
  CHECK_EQ(event->type, EVLOOP_EVENT_POST);
  CHECK_EQ(event->data, (uintptr_t)user_data);
  RAISE(calls, 1);
}

static void count_destroyed(void *user_data) {
  CHECK(user_data != NULL);
  destroyed_by = (pid_t)syscall(SYS_gettid);
  RAISE(destroyed, 1);
}

static void say_destroyed(void *user_data) {
  log_char(*(const char *)user_data);
}

static void post_counted(evloop_t loop) {
  CHECK_EQ(evloop_post_full(loop, count_call, &calls, count_destroyed), 0);
}

TEST(what_a_call_needs_is_freed_after_it) {
  evloop_t loop = new_loop();
  char *copy = strdup("copy");
  CHECK_EQ(evloop_post_full(loop, log_word, WORD("call "), NULL), 0);
  CHECK_EQ(evloop_post_full(loop, log_word, copy, free), 0);
  CHECK_EQ(evloop_post_full(loop, log_first_char, WORD("a"), say_destroyed), 0);
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("b")), 0);
  CHECK_EQ(evloop_post_full(loop, log_first_char, WORD("c"), say_destroyed), 0);
  EXPECT_LOG("");
  run_to_end(loop);
  EXPECT_LOG("call copyaabcc");
  CHECK_EQ(evloop_close(loop), 0);
  EXPECT_LOG("");
}

TEST(calls_of_both_kinds_are_made_in_one_order) {
  evloop_t loop = new_loop();
  Runner runner;
  Gate gate;
  keep_alive(loop);
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(evloop_post_full(loop, log_first_char, WORD("f"), say_destroyed), 0);
    CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
  }
  open_gate(&gate);
  go_round(loop);
  stop_runner(&runner);
  EXPECT_LOG("ffpffpffpffp");
}

TEST(what_pending_calls_need_is_freed_when_the_loop_is_closed) {
  evloop_t loop = new_loop();
  for (int i = 0; i < 5; i++) post_counted(loop);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(calls, 0);
  CHECK_EQ(destroyed, 5);
  CHECK_ERR(evloop_post_full(loop, count_call, &calls, count_destroyed), ESTALE);
  CHECK_EQ(destroyed, 5);
}

static void close_it(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_close((evloop_t)(intptr_t)user_data), 0);
  CHECK_EQ(destroyed, 0);
}

TEST(a_loop_that_a_call_closes_frees_what_all_need) {
  for (int ranked = 0; ranked < 2; ranked++) {
    evloop_t loop = new_loop();
    calls = destroyed = 0;
    if (ranked) CHECK_EQ(evloop_watcher_set_priority(keep_alive(loop), 1), 0);
    CHECK_EQ(evloop_post_full(loop, close_it, as_data(loop), count_destroyed), 0);
    for (int i = 0; i < 3; i++) post_counted(loop);
    CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), ESTALE);
    CHECK_EQ(calls, 0);
    CHECK_EQ(destroyed, 4);
  }
}

TEST(calls_of_a_loop_with_priorities_are_freed_once) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_watcher_set_priority(keep_alive(loop), 1), 0);
  for (int i = 0; i < 3; i++) post_counted(loop);
  turn(loop);
  CHECK_EQ(calls, 3);
  CHECK_EQ(destroyed, 3);
}

TEST(a_loop_that_another_thread_closes_frees_on_its_own_thread) {
  evloop_t loop = new_loop();
  Runner runner;
  Gate gate;
  keep_alive(loop);
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  post_counted(loop);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(LOAD(destroyed), 0);
  open_gate(&gate);
  CHECK_EQ(runner_result(&runner), -ESTALE);
  CHECK_EQ(destroyed, 1);
  CHECK_EQ(destroyed_by, runner.tid);
  CHECK_EQ(calls, 0);
}

static evloop_t to_post_to;

static void post_again(void *user_data) {
  RAISE(destroyed, 1);
  if (destroyed < 3) CHECK_EQ(evloop_post_full(to_post_to, count_call, user_data, post_again), 0);
}

TEST(a_destroy_function_may_post_and_close) {
  to_post_to = new_loop();
  CHECK_EQ(evloop_post_full(to_post_to, count_call, &calls, post_again), 0);
  run_to_end(to_post_to);
  CHECK_EQ(calls, 3);
  CHECK_EQ(destroyed, 3);
  CHECK_EQ(evloop_close(to_post_to), 0);
}

TEST(a_post_that_fails_frees_nothing) {
  evloop_t loop = new_loop();
  CHECK_ERR(evloop_post_full(loop, NULL, &calls, count_destroyed), EINVAL);
  CHECK_ERR(evloop_post_full(0, count_call, &calls, count_destroyed), ESTALE);
  CHECK_EQ(evloop_post_full(loop, NULL, &calls, NULL), 0);
  evloop_event_t event;
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 1);
  CHECK_EQ(event.type, EVLOOP_EVENT_POST);
  CHECK_EQ(destroyed, 0);
}

/* ---- threads ---- */

enum { THREADS = 3, POSTS = 300 };

static evloop_t shared; /* atomic */
static int posted;      /* atomic */

static void *post_many(void *argument) {
  (void)argument;
  for (int i = 0; i < POSTS; i++) {
    int result = evloop_post_full(LOAD(shared), count_call, &calls, count_destroyed);
    if (result == 0) RAISE(posted, 1);
    else CHECK_EQ(result, -ESTALE);
  }
  return NULL;
}

/* The loop is closed, and another one made, all the time. */
TEST(nothing_is_lost_or_freed_twice_where_the_loop_is_closed_meanwhile) {
  pthread_t threads[THREADS];
  STORE(shared, new_loop());
  for (int i = 0; i < THREADS; i++) threads[i] = start_thread(post_many, NULL);
  for (int i = 0; i < 200; i++) {
    evloop_t old = shared;
    if (i % 2 == 0) turn(old);
    CHECK_EQ(evloop_close(old), 0);
    STORE(shared, new_loop());
  }
  for (int i = 0; i < THREADS; i++) join(threads[i]);
  turn(shared);
  CHECK_EQ(evloop_close(shared), 0);
  CHECK_EQ(destroyed, posted);
  CHECK(calls <= posted);
}

/* ---- fork ---- */

static void expect_child(void (*in_child)(evloop_t), evloop_t loop) {
  int status;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    in_child(loop);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

static void close_in_child(evloop_t loop) {
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(calls + destroyed, 0);
}

static void go_on_in_child(evloop_t loop) {
  CHECK_EQ(evloop_after_fork(loop), 0);
  post_counted(loop);
  turns(loop, 2);
  CHECK_EQ(calls, 1);
  CHECK_EQ(destroyed, 1);
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(destroyed, 1);
}

TEST(a_child_neither_makes_nor_frees_its_parents_calls) {
  evloop_t loop = new_loop();
  post_counted(loop);
  expect_child(close_in_child, loop);
  expect_child(go_on_in_child, loop);
  run_to_end(loop);
  CHECK_EQ(calls, 1);
  CHECK_EQ(destroyed, 1);
}

static void fork_and_go_on(const evloop_event_t *event, void *user_data) {
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  int status;
  pid_t child = (pid_t)OK(fork());
  (void)event;
  if (child != 0) {
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, 0);
    return;
  }
  CHECK_EQ(evloop_after_fork(loop), 0);
  CHECK_EQ(evloop_post(loop, count_call, NULL), 0);
}

TEST(a_child_of_a_call_leaves_its_parents_to_the_parent) {
  evloop_t loop = new_loop();
  pid_t parent = getpid();
  CHECK_EQ(evloop_post_full(loop, fork_and_go_on, as_data(loop), count_destroyed), 0);
  post_counted(loop);
  run_to_end(loop);
  if (getpid() != parent) {
    CHECK_EQ(calls, 1);
    CHECK_EQ(destroyed, 0);
    _exit(0);
  }
  CHECK_EQ(calls, 1);
  CHECK_EQ(destroyed, 2);
}

TEST(calls_are_made_and_freed_in_an_embedded_and_a_virtual_loop) {
  evloop_t loop = jumping_loop();
  post_counted(loop);
  CHECK_EQ(evloop_embed_prepare(loop), 1);
  OK(evloop_embed_dispatch(loop));
  CHECK_EQ(calls, 1);
  CHECK_EQ(destroyed, 1);
  CHECK_EQ(evloop_now_ns(loop), 0);
}

CHECK_MAIN()
