/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop and fork: the child's copy and its parent's loop. */

#define _GNU_SOURCE
#include "loop_support.h"

/* ---- children ---- */

static pid_t fork_quietly(void) {
  fflush(stdout);
  return (pid_t)OK(fork());
}

static void expect_success_of(pid_t child) {
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
  CHECK_EQ(status, 0);
}

/* Without the handlers of exit(), which are the parent's. */
static void end_child(void) {
  fflush(stdout);
  _exit(0);
}

/* Waits for the child that runs it. */
#define IN_CHILD(call)             \
  do {                             \
    pid_t child_ = fork_quietly(); \
    if (child_ == 0) {             \
      call;                        \
      end_child();                 \
    }                              \
    expect_success_of(child_);     \
  } while (0)

/* The same in a process with other threads. What their stacks refer to is
 * lost in the child, so it ends without giving a checker of leaks the time
 * to look: killed is well. */
#define IN_CHILD_WITHOUT_THREADS(call)                                            \
  do {                                                                            \
    int status_;                                                                  \
    pid_t child_ = fork_quietly();                                                \
    if (child_ == 0) {                                                            \
      call;                                                                       \
      raise(SIGKILL);                                                             \
    }                                                                             \
    while (waitpid(child_, &status_, 0) < 0 && errno == EINTR) { }                \
    CHECK(WIFSIGNALED(status_) && WTERMSIG(status_) == SIGKILL);                  \
  } while (0)

/* ---- a loop with one of each ---- */

typedef struct Full {
  evloop_t loop;
  Pipe pipe;
  evloop_watcher_t io, timer, async, defer;
  Seen io_seen, timer_seen, async_seen, post_seen, defer_seen, destroyed;
} Full;

static void fill_loop(Full *f) {
  *f = (Full){.loop = new_loop(), .pipe = new_pipe()};
  f->io = OK(evloop_add_io(f->loop, f->pipe.r, EVLOOP_EPOLLIN, record_and_take, &f->io_seen));
  f->timer = OK(evloop_add_timer(f->loop, EVLOOP_CLOCK_MONOTONIC, 0, 10 * MS, 0, 0, record,
                                 &f->timer_seen));
  f->async = OK(evloop_add_async(f->loop, record, &f->async_seen));
  CHECK_EQ(evloop_watcher_set_destroy(f->io, record, &f->destroyed), 0);
}

static int calls(const Full *f) {
  return f->io_seen.calls + f->timer_seen.calls + f->async_seen.calls + f->post_seen.calls;
}

/* Io, timer, async and post, each once. */
static void expect_all_work(Full *f) {
  int io = f->io_seen.calls, timer = f->timer_seen.calls, async = f->async_seen.calls, post = f->post_seen.calls;
  put(f->pipe.w);
  CHECK_EQ(evloop_timer_set(f->timer, 0, MS, 0), 0);
  CHECK_EQ(evloop_async_send(f->async), 0);
  CHECK_EQ(evloop_post(f->loop, record, &f->post_seen), 0);
  while (f->timer_seen.calls == timer) CHECK_EQ(evloop_run(f->loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(turn(f->loop), 1);
  CHECK_EQ(f->io_seen.calls, io + 1);
  CHECK_EQ(f->timer_seen.calls, timer + 1);
  CHECK_EQ(f->async_seen.calls, async + 1);
  CHECK_EQ(f->post_seen.calls, post + 1);
}

/* ---- without evloop_after_fork() ---- */

static void expect_loop_is_the_parents(const Full *f) {
  evloop_event_t event;
  evloop_t loop = f->loop;
  CHECK_ERR(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), ECHILD);
  CHECK_ERR(evloop_run_for_ns(loop, 0), ECHILD);
  CHECK_ERR(evloop_wait(loop, &event, 1, 0), ECHILD);
  CHECK_ERR(evloop_stop(loop), ECHILD);
  CHECK_ERR(evloop_wakeup(loop), ECHILD);
  CHECK_ERR(evloop_post(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_now_ns(loop), ECHILD);
  CHECK_ERR(evloop_next_timeout_ns(loop), ECHILD);
  CHECK_ERR(evloop_fileno(loop), ECHILD);
  CHECK_ERR(evloop_embed_prepare(loop), ECHILD);
  CHECK_ERR(evloop_embed_dispatch(loop), ECHILD);
  CHECK_ERR(evloop_add_io(loop, f->pipe.r, EVLOOP_EPOLLIN, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, 0, 0, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_tfd(loop, OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0)), record, NULL), ECHILD);
  CHECK_ERR(evloop_add_async(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_idle(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_prepare(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_check(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_defer(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_exit(loop, record, NULL), ECHILD);
  CHECK_ERR(evloop_add_clock_change(loop, record, NULL), ECHILD);
}

static void expect_watchers_are_the_parents(const Full *f) {
  char name[8];
  CHECK_ERR(evloop_io_modify(f->io, EVLOOP_EPOLLIN), ECHILD);
  CHECK_ERR(evloop_timer_set(f->timer, 0, 1, 0), ECHILD);
  CHECK_ERR(evloop_timer_again(f->timer), ECHILD);
  CHECK_ERR(evloop_timer_remaining_ns(f->timer), ECHILD);
  CHECK_ERR(evloop_async_send(f->async), ECHILD);
  CHECK_ERR(evloop_watcher_enable(f->io), ECHILD);
  CHECK_ERR(evloop_watcher_disable(f->io), ECHILD);
  CHECK_ERR(evloop_watcher_set_priority(f->io, 1), ECHILD);
  CHECK_ERR(evloop_watcher_set_ratelimit(f->io, 0, 0), ECHILD);
  CHECK_ERR(evloop_watcher_set_name(f->io, "io"), ECHILD);
  CHECK_ERR(evloop_watcher_get_name(f->io, name, sizeof name), ECHILD);
  CHECK_ERR(evloop_watcher_set_data(f->io, 1), ECHILD);
  CHECK_ERR(evloop_watcher_ref(f->io), ECHILD);
  CHECK_ERR(evloop_watcher_unref(f->io), ECHILD);
  CHECK_ERR(evloop_watcher_loop(f->io), ECHILD);
  CHECK_ERR(evloop_watcher_set_destroy(f->io, record, NULL), ECHILD);
}

static void close_everything(const Full *f) {
  int before = open_descriptors();
  int64_t handles = OK(evloop_handle_count(EVLOOP_KIND_ANY));
  CHECK_EQ(evloop_watcher_close(f->io, 0), 0);
  CHECK_EQ(evloop_handle_close(f->timer), 0);
  CHECK_ERR(evloop_watcher_close(f->io, 0), ESTALE);
  CHECK_EQ(evloop_close(f->loop), 0);
  CHECK_ERR(evloop_close(f->loop), ESTALE);
  CHECK_ERR(evloop_watcher_close(f->async, 0), ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), handles - 4);
  CHECK_EQ(f->destroyed.calls, 0); /* that is the parent's business */
  CHECK(open_descriptors() < before);
}

static void refuse_and_close(const Full *f) {
  CHECK_EQ(evloop_handle_kind(f->loop), EVLOOP_KIND_LOOP);
  expect_loop_is_the_parents(f);
  expect_watchers_are_the_parents(f);
  close_everything(f);
}

TEST(a_child_can_only_close_its_parents_loop) {
  Full f;
  fill_loop(&f);
  OK(evloop_fileno(f.loop));
  IN_CHILD(refuse_and_close(&f));
  IN_CHILD(close_everything(&f));
  expect_all_work(&f);
  CHECK_EQ(evloop_close(f.loop), 0);
  CHECK_EQ(f.destroyed.calls, 1);
}

TEST(in_a_child_even_a_call_that_the_loop_does_not_support_is_refused) {
  evloop_t loop = new_loop();
  IN_CHILD(CHECK_ERR(evloop_advance_ns(loop, 1), ECHILD));
  loop = virtual_loop();
  IN_CHILD(CHECK_ERR(evloop_advance_ns(loop, 1), ECHILD));
}

static void use_a_loop_of_its_own(void) {
  Full f;
  fill_loop(&f);
  expect_all_work(&f);
  CHECK_EQ(evloop_close(f.loop), 0);
}

TEST(a_child_has_loops_of_its_own_and_grandchildren_not) {
  Full f;
  fill_loop(&f);
  IN_CHILD({
    use_a_loop_of_its_own();
    fill_loop(&f);
    IN_CHILD(refuse_and_close(&f));
    expect_all_work(&f);
  });
  expect_all_work(&f);
}

/* ---- with it ---- */

static void revive(evloop_t loop) {
  CHECK_EQ(evloop_after_fork(loop), 0);
  CHECK_EQ(evloop_after_fork(loop), 0); /* there is nothing to do */
}

static void revive_and_use(Full *f) {
  revive(f->loop);
  for (int i = 0; i < 3; i++) expect_all_work(f);
  CHECK_EQ(evloop_watcher_close(f->io, 0), 0);
  CHECK_EQ(evloop_timer_set(f->timer, 0, 0, 1), 0);
  for (int i = 0; i < 3; i++) turn(f->loop);
  CHECK_EQ(f->destroyed.calls, 1);
  CHECK_EQ(evloop_close(f->loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

TEST(a_revived_copy_works_and_does_not_disturb_the_parent) {
  Full f;
  fill_loop(&f);
  revive(f.loop); /* not needed, and no harm */
  expect_all_work(&f);
  for (int i = 0; i < 3; i++) {
    IN_CHILD(revive_and_use(&f));
    expect_all_work(&f);
  }
  CHECK_EQ(f.destroyed.calls, 0);
}

TEST(what_was_pending_at_the_fork_happens_in_both) {
  Full f;
  fill_loop(&f);
  CHECK_EQ(evloop_async_send(f.async), 0);
  CHECK_EQ(evloop_post(f.loop, record, &f.post_seen), 0);
  pid_t child = fork_quietly();
  if (child == 0) revive(f.loop);
  while (f.timer_seen.calls == 0) CHECK_EQ(evloop_run(f.loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(f.async_seen.calls, 1);
  CHECK_EQ(f.post_seen.calls, 1);
  CHECK_EQ(f.timer_seen.calls, 1);
  CHECK_EQ(calls(&f), 3);
  CHECK(f.timer_seen.last.time_ns >= f.timer_seen.last.deadline_ns);
  if (child == 0) end_child();
  expect_success_of(child);
}

/* Neither sees what is sent to the other's loop. */
TEST(parent_and_child_wake_and_stop_their_own) {
  Full f;
  Pipe ready = new_pipe(), done = new_pipe();
  char byte;
  fill_loop(&f);
  CHECK_EQ(evloop_watcher_close(f.timer, 0), 0);
  pid_t child = fork_quietly();
  if (child == 0) {
    revive(f.loop);
    put(ready.w);
    CHECK_EQ(read(done.r, &byte, 1), 1); /* the parent has sent everything */
    CHECK_EQ(evloop_run_for_ns(f.loop, 20 * MS), 1);
    CHECK_EQ(calls(&f), 0);
    CHECK_EQ(evloop_async_send(f.async), 0);
    CHECK_EQ(evloop_stop(f.loop), 0);
    end_child();
  }
  CHECK_EQ(read(ready.r, &byte, 1), 1);
  CHECK_EQ(evloop_async_send(f.async), 0);
  CHECK_EQ(evloop_post(f.loop, record, &f.post_seen), 0);
  CHECK_EQ(evloop_wakeup(f.loop), 0);
  put(done.w);
  expect_success_of(child);
  CHECK_EQ(evloop_run_for_ns(f.loop, 20 * MS), 1);
  CHECK_EQ(f.async_seen.calls, 1);
  CHECK_EQ(f.post_seen.calls, 1);
}

static void use_another_fileno(const Full *f) {
  revive(f->loop);
  turn(f->loop);
  int own = (int)OK(evloop_fileno(f->loop));
  CHECK_EQ(evloop_embed_prepare(f->loop), 0);
  CHECK(!readable(own, 0));
  put(f->pipe.w);
  CHECK(readable(own, -1));
  CHECK_EQ(evloop_embed_dispatch(f->loop), 1);
  CHECK_EQ(f->io_seen.calls, 1);
}

TEST(a_revived_copy_has_a_descriptor_of_its_own) {
  Full f;
  fill_loop(&f);
  CHECK_EQ(evloop_timer_set(f.timer, 0, -1, 0), 0);
  int fd = (int)OK(evloop_fileno(f.loop));
  IN_CHILD(use_another_fileno(&f));
  CHECK_EQ(evloop_fileno(f.loop), fd);
  CHECK_EQ(evloop_embed_prepare(f.loop), 0);
  CHECK(!readable(fd, 0));
}

static void modify_disable_and_exhaust(Full *f) {
  revive(f->loop);
  CHECK_EQ(evloop_io_modify(f->io, EVLOOP_EPOLLOUT), 0);
  turn(f->loop);
  CHECK_EQ(evloop_watcher_disable(f->io), 0);
  turn(f->loop);
  CHECK_EQ(evloop_timer_set(f->timer, 0, -1, 0), 0);
  turn(f->loop);
  CHECK_EQ(f->io_seen.calls, 0);
}

TEST(changes_of_the_copy_are_not_the_parents) {
  Full f;
  fill_loop(&f);
  IN_CHILD(modify_disable_and_exhaust(&f));
  put(f.pipe.w);
  while (f.timer_seen.calls == 0) CHECK_EQ(evloop_run(f.loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(f.io_seen.calls, 1);
}

static void revive_at_the_limit(Full *f) {
  int fds[1024], count = 0;
  struct rlimit limit = {1000, 1000};
  OK(setrlimit(RLIMIT_NOFILE, &limit));
  while ((fds[count] = dup(0)) >= 0) count++;
  for (int i = 0; i < 3; i++) {
    CHECK_ERR(evloop_after_fork(f->loop), EMFILE);
    CHECK_ERR(evloop_run(f->loop, EVLOOP_RUN_NOWAIT), ECHILD);
  }
  while (count > 0) OK(close(fds[--count]));
  revive_and_use(f);
}

/* valgrind only pretends to set the limit. */
TEST_WITHOUT_VALGRIND(a_child_without_descriptors_can_try_again, 20) {
  Full f;
  fill_loop(&f);
  IN_CHILD(revive_at_the_limit(&f));
  expect_all_work(&f);
}

static void revive_virtual_time(evloop_t loop, const Seen *seen) {
  revive(loop);
  CHECK_EQ(evloop_now_ns(loop), 40);
  CHECK_EQ(evloop_advance_ns(loop, 60), 0);
  turn(loop);
  CHECK_EQ(seen->calls, 1);
}

TEST(a_copy_has_the_virtual_time_of_the_fork) {
  evloop_t loop = virtual_loop();
  Seen seen = {.calls = 0};
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 100, 0, 0, record, &seen));
  CHECK_EQ(evloop_advance_ns(loop, 40), 0);
  IN_CHILD(revive_virtual_time(loop, &seen));
  CHECK_EQ(evloop_now_ns(loop), 40);
}

/* ---- descriptors that the child closed ---- */

static void close_all_descriptors(void) {
  for (int fd = 3; fd < 200; fd++) close(fd);
}

static void revive_without_the_pipe(Full *f) {
  OK(close(f->pipe.r));
  revive(f->loop);
  for (int i = 0; i < 3; i++) turn(f->loop);
  CHECK(f->io_seen.errors == 1);
  CHECK(f->io_seen.calls == 1);
  CHECK_EQ(f->io_seen.last.result, -EBADF);
  CHECK_EQ(f->io_seen.last.fd, f->pipe.r);
}

static void close_without_any(Full *f) {
  close_all_descriptors();
  CHECK_EQ(evloop_watcher_close(f->io, 0), 0);
  CHECK_EQ(evloop_close(f->loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  use_a_loop_of_its_own();
}

static void revive_with_nothing_left(Full *f) {
  close_all_descriptors();
  revive(f->loop);
  while (f->timer_seen.calls == 0) CHECK_EQ(evloop_run(f->loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(f->io_seen.errors, 1);
  CHECK_EQ(evloop_watcher_close(f->io, 0), 0);
  f->pipe = new_pipe();
  f->io = OK(evloop_add_io(f->loop, f->pipe.r, EVLOOP_EPOLLIN, record_and_take, &f->io_seen));
  expect_all_work(f);
  CHECK_EQ(evloop_close(f->loop), 0);
}

TEST(a_child_that_closed_what_is_watched_gets_an_error) {
  Full f;
  fill_loop(&f);
  OK(evloop_fileno(f.loop));
  CHECK(open_descriptors() < 190);
  void (*const children[])(Full *) = {revive_without_the_pipe, revive_with_nothing_left, close_without_any};
  for (int i = 0; AT_ROW(i, children); i++) {
    pid_t child = fork_quietly();
    if (child == 0) {
      children[i](&f);
      end_child();
    }
    expect_success_of(child);
  }
  expect_all_work(&f);
}

/* ---- a fork in a callback ---- */

typedef struct Forker {
  evloop_t loop;
  int revives, closes;
  pid_t parent, child;
  Seen after; /* the call that was posted behind the one that forks */
} Forker;

static void fork_in_callback(const evloop_event_t *event, void *user_data) {
  Forker *f = (Forker *)user_data;
  (void)event;
  f->parent = getpid();
  f->child = fork_quietly();
  if (f->child != 0) return;
  if (f->revives) revive(f->loop);
  else CHECK_ERR(evloop_post(f->loop, record, &f->after), ECHILD);
  if (f->closes) CHECK_EQ(evloop_close(f->loop), 0);
}

static int64_t run_forking(Forker *f, RunFunction *run) {
  f->loop = new_loop();
  CHECK_EQ(evloop_post(f->loop, fork_in_callback, f), 0);
  CHECK_EQ(evloop_post(f->loop, record, &f->after), 0);
  return run(f->loop);
}

static RunFunction *const runs[] = {run_until_done, run_once, run_nowait, run_without_limit, wait_for_events};

TEST(the_run_of_a_child_that_a_callback_forked_ends) {
  for (int i = 0; AT_ROW(i, runs); i++) {
    Forker f = {.closes = 0};
    int64_t result = run_forking(&f, runs[i]);
    if (f.child == 0) {
      CHECK_EQ(result, -ECHILD);
      CHECK_EQ(f.after.calls, 0);
      CHECK_EQ(evloop_close(f.loop), 0);
      end_child();
    }
    CHECK_EQ(result, 0);
    CHECK_EQ(f.after.calls, 1);
    expect_success_of(f.child);
  }
}

TEST(the_run_of_a_child_that_is_revived_in_its_callback_goes_on) {
  for (int i = 0; AT_ROW(i, runs); i++) {
    Forker f = {.revives = 1};
    int64_t result = run_forking(&f, runs[i]);
    CHECK_EQ(result, 0);
    CHECK_EQ(f.after.calls, 1);
    if (f.child == 0) {
      CHECK_EQ(evloop_post(f.loop, record, &f.after), 0);
      CHECK_EQ(turn(f.loop), 0);
      CHECK_EQ(f.after.calls, 2);
      end_child();
    }
    expect_success_of(f.child);
  }
}

TEST(a_child_closes_the_loop_in_the_callback_that_forked) {
  for (int revives = 0; revives < 2; revives++) {
    Forker f = {.closes = 1, .revives = revives};
    int64_t result = run_forking(&f, run_until_done);
    if (f.child == 0) {
      CHECK(result == -ESTALE || (result == -ECHILD && !revives));
      CHECK_EQ(f.after.calls, 0);
      CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
      end_child();
    }
    CHECK_EQ(result, 0);
    expect_success_of(f.child);
    CHECK_EQ(evloop_close(f.loop), 0);
  }
}

/* ---- a callback that forks, and what waits for its end ---- */

/* A thread that waits, in a close, for the end of the callback that forks; and
 * the notification of a watcher that the callback has closed before. */
typedef struct Asker {
  evloop_t loop;
  evloop_watcher_t watcher, closed;
  Seen destroyed;
  int has_entered; /* atomic */
  pid_t tid, child;
} Asker;

static void *close_and_wait(void *argument) {
  Asker *a = (Asker *)argument;
  UNTIL(LOAD(a->has_entered));
  /* The callback polls this, and is not woken: one call of a futex is left. */
  __atomic_store_n(&a->tid, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
  CHECK_EQ(evloop_watcher_close(a->watcher, EVLOOP_CLOSE_WAIT), 0);
  return NULL;
}

static void fork_when_asked(const evloop_event_t *event, void *user_data) {
  Asker *a = (Asker *)user_data;
  (void)event;
  STORE(a->has_entered, 1);
  POLL_UNTIL(LOAD(a->tid) != 0);
  int call_file = (int)OK(open_call_file(&a->tid));
  POLL_UNTIL(call_of(call_file) == SYS_futex);
  OK(close(call_file));
  CHECK_EQ(evloop_watcher_close(a->closed, 0), 0);
  a->child = fork_quietly();
}

/* What the thread waits for in the parent keeps no child's loop from its
 * sleep. */
static void expect_a_quiet_copy(Asker *a) {
  Seen iterations = {.calls = 0};
  revive(a->loop);
  count_iterations(a->loop, &iterations);
  OK(evloop_run_for_ns(a->loop, 50 * MS));
  CHECK_EQ(a->destroyed.calls, 1);
  CHECK(iterations.calls < 10);
}

TEST_WITHOUT_VALGRIND(a_copy_whose_callback_was_waited_for_sleeps_and_notifies, 20) {
  Asker a = {.loop = loop_with(EVLOOP_KEEP_ALIVE)};
  int status;
  a.watcher = async(a.loop, ignore, NULL);
  a.closed = async(a.loop, ignore, NULL);
  CHECK_EQ(evloop_watcher_set_destroy(a.closed, record, &a.destroyed), 0);
  pthread_t thread = start_thread(close_and_wait, &a);
  CHECK_EQ(evloop_post(a.loop, fork_when_asked, &a), 0);
  int result = evloop_run(a.loop, EVLOOP_RUN_NOWAIT);
  if (a.child == 0) {
    CHECK_EQ(result, -ECHILD);
    expect_a_quiet_copy(&a);
    raise(SIGKILL);
  }
  CHECK_EQ(result, 1);
  join(thread);
  CHECK_EQ(a.destroyed.calls, 1);
  while (waitpid(a.child, &status, 0) < 0 && errno == EINTR) { }
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  close_loop(a.loop);
}

/* ---- other threads at the fork ---- */

/* With a pipe of its own: the parent's thread reads the other one. */
static void refuse_then_revive(Full *f) {
  expect_loop_is_the_parents(f);
  revive(f->loop);
  CHECK_EQ(evloop_watcher_close(f->io, 0), 0);
  f->pipe = new_pipe();
  f->io = OK(evloop_add_io(f->loop, f->pipe.r, EVLOOP_EPOLLIN, record_and_take, &f->io_seen));
  for (int i = 0; i < 3; i++) expect_all_work(f);
}

TEST(a_child_revives_a_loop_in_which_another_thread_waited) {
  Full f;
  Runner r;
  fill_loop(&f);
  CHECK_EQ(evloop_timer_set(f.timer, 0, -1, 0), 0);
  for (int i = 0; i < 10; i++) {
    start_sleeper(&r, run_until_done, f.loop);
    if (i % 2) IN_CHILD_WITHOUT_THREADS(refuse_then_revive(&f));
    else IN_CHILD_WITHOUT_THREADS(close_everything(&f));
    wait_until_asleep(&r.tid);
    put(f.pipe.w);
    UNTIL(LOAD(f.io_seen.calls) >= i + 1);
    stop_runner(&r);
  }
}

static void expect_lost(const Full *f) {
  for (int i = 0; i < 2; i++) CHECK_ERR(evloop_after_fork(f->loop), EBUSY);
  expect_loop_is_the_parents(f);
  expect_watchers_are_the_parents(f);
  close_everything(f);
}

TEST(a_child_cannot_revive_a_loop_that_was_in_another_threads_callback) {
  Full f;
  Runner r;
  Gate gate = {0, 0};
  fill_loop(&f);
  CHECK_EQ(evloop_post(f.loop, stay, &gate), 0);
  start_runner(&r, run_until_done, f.loop);
  UNTIL(LOAD(gate.entered) >= 1);
  IN_CHILD_WITHOUT_THREADS(expect_lost(&f));
  open_gate(&gate);
  UNTIL(LOAD(f.timer_seen.calls) >= 1);
  put(f.pipe.w);
  UNTIL(LOAD(f.io_seen.calls) >= 1);
  stop_runner(&r);
}

static int hammering = 1;

static void *hammer(void *argument) {
  Full *f = (Full *)argument;
  while (LOAD(hammering)) {
    CHECK_EQ(evloop_post(f->loop, record, &f->post_seen), 0);
    CHECK_EQ(evloop_timer_set(f->timer, 0, 1, 0), 0);
    evloop_watcher_t watcher = OK(evloop_add_io(f->loop, f->pipe.w, 0, record, NULL));
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  }
  return NULL;
}

/* Whatever the threads were at: revived or lost, and it can be closed. */
static void revive_if_possible(Full *f) {
  int result = evloop_after_fork(f->loop);
  CHECK(result == 0 || result == -EBUSY);
  if (result == 0) {
    Seen seen = {.calls = 0};
    CHECK_EQ(evloop_post(f->loop, record, &seen), 0);
    for (int i = 0; seen.calls == 0; i++) turn(f->loop);
    CHECK_EQ(seen.calls, 1);
  } else {
    CHECK_ERR(evloop_run(f->loop, EVLOOP_RUN_NOWAIT), ECHILD);
  }
  CHECK_EQ(evloop_close(f->loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
  use_a_loop_of_its_own();
}

TEST_TIMEOUT(a_child_of_a_busy_process_does_not_hang, 120) {
  Full f;
  Runner r;
  pthread_t thread;
  int forks = slow_factor() > 1 ? 10 : 200;
  /* What another thread was changing at the fork is lost in the child, on
   * purpose: valgrind would call that a leak. */
  if (getenv("EVLOOP_TEST_VALGRIND") || !may_fork_beside_allocations()) return;
  fill_loop(&f);
  start_runner(&r, run_until_done, f.loop);
  CHECK_EQ(pthread_create(&thread, NULL, hammer, &f), 0);
  for (int i = 0; i < forks; i++) IN_CHILD_WITHOUT_THREADS(revive_if_possible(&f));
  STORE(hammering, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  stop_runner(&r);
  Seen last = {.calls = 0};
  CHECK_EQ(evloop_post(f.loop, record, &last), 0);
  while (last.calls == 0) turn(f.loop);
  expect_all_work(&f);
}

/* ---- a fork in a callback, behind which others are ready ---- */

static pid_t forked = -1;

static void fork_and_record(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  forked = fork_quietly();
}

/* The child goes on with the loop after the run in which it was made. */
static void expect_rest(evloop_t loop, const Seen *rest, int count) {
  int i;
  int result = evloop_run(loop, EVLOOP_RUN_ONCE);
  if (forked == 0) {
    CHECK_EQ(result, -ECHILD);
    for (i = 0; i < count; i++) CHECK_EQ(rest[i].calls, 0);
    OK(evloop_after_fork(loop));
    OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  }
  for (i = 0; i < count; i++) CHECK_EQ(rest[i].calls, 1);
  OK(evloop_close(loop));
  if (forked == 0) end_child();
  expect_success_of(forked);
}

TEST(with_priorities_a_child_gets_the_rest_of_what_was_ready) {
  static Seen first, rest[3];
  evloop_t loop = new_loop();
  evloop_watcher_t forks = timer(loop, 0, 0, fork_and_record, &first);
  CHECK_EQ(evloop_watcher_set_priority(forks, 1), 0);
  timer(loop, 0, 0, record, &rest[0]);
  CHECK_EQ(evloop_post(loop, record, &rest[1]), 0);
  trigger(async(loop, record, &rest[2]));
  keep_alive(loop);
  expect_rest(loop, rest, 3);
}

/* What is level-triggered is still ready, and the child has the memory for
 * the watchers of one descriptor. */
TEST(a_child_gets_the_rest_of_the_watchers_of_one_descriptor) {
  static Seen first, rest[3];
  int i;
  evloop_t loop = new_loop();
  Pipe pipe = new_pipe();
  evloop_watcher_t forks = readable_io(loop, pipe.r, fork_and_record, &first);
  for (i = 0; AT_ROW(i, rest); i++) {
    OK(evloop_add_io(loop, pipe.r, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, record, &rest[i]));
  }
  put(pipe.w);
  i = evloop_run(loop, EVLOOP_RUN_NOWAIT);
  if (forked == 0) {
    CHECK_EQ(i, -ECHILD);
    close_watcher(forks);
    OK(evloop_after_fork(loop));
    OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  }
  for (i = 0; AT_ROW(i, rest); i++) CHECK_EQ(rest[i].calls, 1);
  if (forked == 0) end_child();
  close_watcher(forks);
  expect_success_of(forked);
}

CHECK_MAIN()
