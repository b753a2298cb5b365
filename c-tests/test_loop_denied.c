/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What a loop could not do for want of memory, or because the kernel refused
 * a registration, is reported, and can be done later. */

#define _GNU_SOURCE 1
#include "faults.h"
#include "loop_kinds.h"

/* ---- what the loop cannot take in ---- */

/* Watchers that another thread adds while the loop's has no memory report
 * an error, and can be enabled later. */
TEST(an_io_watcher_that_there_was_no_memory_for_is_enabled_later) {
  enum { IOS = 30, HIGH = 700 };
  evloop_watcher_t watchers[IOS];
  static Seen seen[IOS];
  Runner runner;
  Gate gate;
  Pipe pipe = new_pipe();
  evloop_t loop = running_loop(&runner, false);
  int failed = 0;
  memset(seen, 0, sizeof seen);
  put(pipe.w);
  hold(loop, &gate);
  for (int i = 0; i < IOS; i++) {
    int fd = (int)OK(fcntl(pipe.r, F_DUPFD_CLOEXEC, HIGH + i));
    watchers[i] = readable_io(loop, fd, record, &seen[i]);
  }
  only_spare_this_thread();
  open_gate(&gate);
  go_round(loop);
  go_round(loop);
  with_memory();
  hold(loop, &gate);
  for (int i = 0; i < IOS; i++) {
    if (seen[i].errors == 0) continue;
    failed++;
    CHECK_EQ(seen[i].calls, 1);
    CHECK_EQ(seen[i].last.result, -ENOMEM);
    /* As often as one likes. */
    CHECK_EQ(evloop_watcher_disable(watchers[i]), 0);
    CHECK_EQ(evloop_watcher_enable(watchers[i]), 0);
  }
  CHECK(failed > 0);
  open_gate(&gate);
  for (int i = 0; i < IOS; i++) UNTIL(LOAD(seen[i].calls) >= 3);
  for (int i = 0; i < IOS; i++) close_watcher(watchers[i]);
  stop_runner(&runner);
  close_loop(loop);
}

/* The same, and it is closed without having been enabled. */
TEST(an_io_watcher_that_there_was_no_memory_for_is_closed) {
  enum { HIGH = 700 };
  Runner runner;
  Gate gate;
  Pipe pipe = new_pipe();
  evloop_t loop = running_loop(&runner, false);
  int fd = (int)OK(fcntl(pipe.r, F_DUPFD_CLOEXEC, HIGH));
  Seen first, second;
  memset(&first, 0, sizeof first);
  memset(&second, 0, sizeof second);
  hold(loop, &gate);
  evloop_watcher_t lost = readable_io(loop, fd, record, &first);
  only_spare_this_thread();
  open_gate(&gate);
  UNTIL(LOAD(first.errors) == 1);
  with_memory();
  evloop_watcher_t other = readable_io(loop, fd, record_and_take, &second);
  close_watcher(lost);
  put(pipe.w);
  UNTIL(LOAD(second.calls) == 1);
  CHECK_EQ(second.errors, 0);
  CHECK_EQ(first.calls, 1);
  close_watcher(other);
  stop_runner(&runner);
  close_loop(loop);
}

/* Another thread closes one of two watchers of a descriptor, without memory. The
 * other one goes on. A third one is added, before or after the loop has applied
 * the close. */
static void close_one_of_two(int closed, bool joins_before) {
  static Seen seen[3];
  evloop_watcher_t watchers[3];
  Runner runner;
  Gate gate;
  int fd = event_fd(0);
  evloop_t loop = running_loop(&runner, false);
  memset(seen, 0, sizeof seen);
  for (int i = 0; i < 2; i++) watchers[i] = readable_io(loop, fd, record, &seen[i]);
  go_round(loop);
  hold(loop, &gate);
  without_memory();
  close_watcher(watchers[closed]);
  with_memory();
  if (joins_before) watchers[2] = readable_io(loop, fd, record, &seen[2]);
  open_gate(&gate);
  go_round(loop);
  if (!joins_before) watchers[2] = readable_io(loop, fd, record, &seen[2]);
  OK(eventfd_write(fd, 1));
  UNTIL(LOAD(seen[1 - closed].calls) > 0 && LOAD(seen[2].calls) > 0);
  stop_runner(&runner);
  CHECK_EQ(seen[closed].calls, 0);
  CHECK_EQ(seen[1 - closed].errors + seen[2].errors, 0);
  close_loop(loop);
}

TEST(a_descriptor_goes_on_when_one_of_its_watchers_is_closed_without_memory) {
  for (int closed = 0; closed < 2; closed++) {
    close_one_of_two(closed, false);
    close_one_of_two(closed, true);
  }
}

/* ---- registrations that the kernel refuses ---- */

/* It cannot change these: they are removed and added again. */
TEST(a_watcher_whose_registration_is_refused_has_an_error_and_is_enabled_later) {
  enum { EXCLUSIVE = (int)EVLOOP_EPOLLEXCLUSIVE };
  evloop_t loop = new_loop();
  int fd = event_fd(1);
  Seen seen;
  memset(&seen, 0, sizeof seen);
  keep_alive(loop);
  evloop_watcher_t watcher = readable_io(loop, fd, record, &seen);
  for (int round = 1; round <= 3; round++) {
    uint32_t bits = EVLOOP_EPOLLIN | (round % 2 == 1 ? EVLOOP_EPOLLEXCLUSIVE : 0);
    memset(&seen, 0, sizeof seen);
    CHECK_EQ(evloop_io_modify(watcher, bits), 0);
    arm(&registrations, 1, FROM);
    turns(loop, 3);
    disarm(&registrations);
    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(seen.last.result, -ENOSPC);
    turns(loop, 3);
    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
    turns(loop, 2);
    CHECK(seen.calls >= 2);
    CHECK_EQ(seen.errors, 1);
  }
  close_loop(loop);
}

/* Another thread has closed the watcher that it was registered for. */
TEST(a_descriptor_that_cannot_be_registered_again_is_an_error_of_its_other_watchers) {
  static Seen seen[3];
  evloop_watcher_t watchers[3];
  Runner runner;
  Gate gate;
  int fd = event_fd(1);
  evloop_t loop = running_loop(&runner, false);
  memset(seen, 0, sizeof seen);
  hold(loop, &gate);
  for (int i = 0; i < 3; i++) watchers[i] = readable_io(loop, fd, record, &seen[i]);
  open_gate(&gate);
  UNTIL(LOAD(seen[2].calls) > 0);
  hold(loop, &gate);
  close_watcher(watchers[0]);
  arm(&registrations, 1, FROM);
  open_gate(&gate);
  UNTIL(LOAD(seen[1].errors) == 1 && LOAD(seen[2].errors) == 1);
  disarm(&registrations);
  CHECK_EQ(seen[1].last.result, -ENOSPC);
  hold(loop, &gate);
  int before[] = {seen[1].calls, seen[2].calls};
  CHECK_EQ(evloop_watcher_enable(watchers[1]), 0);
  CHECK_EQ(evloop_watcher_enable(watchers[2]), 0);
  open_gate(&gate);
  UNTIL(LOAD(seen[1].calls) > before[0] && LOAD(seen[2].calls) > before[1]);
  stop_runner(&runner);
  CHECK_EQ(seen[1].errors + seen[2].errors, 2);
  close_loop(loop);
}

/* A descriptor that was closed while a duplicate lives goes when the loop
 * replaces its epoll. Until it can, it goes on with the one that it has. */
TEST(a_loop_that_cannot_replace_its_epoll_goes_on) {
  evloop_t loop = new_loop();
  int fd = event_fd(1), duplicate, others[10];
  static Seen lost, seen[LENGTH(others)];
  memset(&lost, 0, sizeof lost);
  memset(seen, 0, sizeof seen);
  readable_io(loop, fd, record, &lost);
  for (int i = 0; AT_ROW(i, others); i++) {
    others[i] = event_fd(0);
    readable_io(loop, others[i], record, &seen[i]);
  }
  turns(loop, 3);
  duplicate = (int)OK(dup(fd));
  OK(close(fd));
  for (long first = 1; first <= LENGTH(others) + 2; first++) {
    arm(&registrations, first, FROM);
    turns(loop, 600);
    disarm(&registrations);
    memset(seen, 0, sizeof seen);
    for (int i = 0; AT_ROW(i, others); i++) OK(eventfd_write(others[i], 1));
    turns(loop, 2);
    for (int i = 0; AT_ROW(i, others); i++) {
      eventfd_t count;
      CHECK(seen[i].calls > 0);
      CHECK_EQ(seen[i].errors, 0);
      OK(eventfd_read(others[i], &count));
    }
  }
  while (lost.errors == 0) turn(loop);
  OK(close(duplicate));
  close_loop(loop);
}

/* ---- a forked child ---- */

/* A loop with a bit of all. */
static void add_all(Fixture *fixture, Seen *seen) {
  const Kind *kinds[] = {&kind_io, &kind_timer, &kind_tfd, &kind_file, &kind_async};
  for (int i = 0; AT_ROW(i, kinds); i++) kinds[i]->add(fixture, 0, record, seen);
  OK(evloop_add_signal(fixture->loop, SIGUSR1, 0, record, seen));
  OK(evloop_fileno(fixture->loop));
}

/* In the child: with each fault that there is, until it works; then the loop
 * does. */
static void revive_with(Faults *faults, Mode mode) {
  Fixture fixture = new_fixture();
  Seen seen, late;
  int status;
  memset(&seen, 0, sizeof seen);
  memset(&late, 0, sizeof late);
  add_all(&fixture, &seen);
  turn(fixture.loop);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    int result = -1;
    for (long n = 1; result != 0; n++) {
      arm(faults, n, mode);
      result = evloop_after_fork(fixture.loop);
      if (!disarm(faults)) CHECK_EQ(result, 0);
      if (result < 0 && result != -ENOSPC) CHECK_ERR(result, ENOMEM);
      if (result < 0) CHECK_ERR(evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT), ECHILD);
    }
    OK(eventfd_write(fixture.fds[0], 1));
    while (seen.calls == 0) OK(evloop_run(fixture.loop, EVLOOP_RUN_ONCE));
    CHECK_EQ(seen.last.type, EVLOOP_EVENT_IO);
    CHECK_EQ(seen.errors, 0);
    timer(fixture.loop, 0, 0, record, &late);
    while (late.calls == 0) turn(fixture.loop);
    CHECK_EQ(evloop_close(fixture.loop), 0);
    fflush(stdout);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  /* The parent's is as it was. */
  OK(eventfd_write(fixture.fds[0], 1));
  turn(fixture.loop);
  CHECK_EQ(seen.calls, 1);
  close_loop(fixture.loop);
}

TEST(a_loop_is_made_a_childs_in_as_many_attempts_as_that_takes) {
  EACH_MODE(mode) {
    revive_with(&registrations, mode);
    revive_with(&memory, mode);
  }
}

/* ---- seeing inside ---- */

TEST(a_trace_that_could_not_be_written_for_want_of_memory_is_stopped_again) {
  evloop_t loop = new_loop();
  FILE *file = tmpfile();
  char text[4096] = "";
  CHECK(file != NULL);
  evloop_watcher_t watcher = async(loop, ignore, NULL);
  CHECK_EQ(evloop_watcher_set_name(watcher, "the name of it"), 0);
  CHECK_EQ(evloop_trace_start_fd(loop, fileno(file), 0), 0);
  trigger(watcher);
  turn(loop);
  for (long n = 1;; n++) {
    arm(&memory, n, ONLY);
    int64_t result = evloop_trace_stop(loop);
    int has_failed = disarm(&memory);
    if (result >= 0) break;
    CHECK(has_failed);
    CHECK_ERR(result, ENOMEM);
    CHECK_ERR(evloop_trace_start_fd(loop, fileno(file), 0), EEXIST);
  }
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  rewind(file);
  CHECK(fread(text, 1, sizeof text - 1, file) > 0);
  CHECK(strstr(text, "the name of it") != NULL);
  fclose(file);
  close_loop(loop);
}

/* ---- a thread's first calls ---- */

typedef struct First {
  evloop_poll_t poll;
  tfd_t tfd;
  char sentence[200];
} First;

static void *first_calls(void *argument) {
  First *first = (First *)argument;
  evloop_ready_t ready;
  spared = 0;
  without_memory();
  CHECK_EQ(evloop_poll_wait(first->poll, &ready, 1, 2 * MS), 0);
  CHECK_EQ(tfd_wait(first->tfd, 2 * MS, NULL), 0);
  CHECK_ERR(tfd_close(0), ESTALE);
  OK(evloop_last_error(first->sentence, sizeof first->sentence));
  CHECK_ERR(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN), ENOMEM);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RESTART), EVLOOP_EINTR_RESTART);
  with_memory();
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN), EVLOOP_EINTR_RESTART);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RESTART), EVLOOP_EINTR_RETURN);
  return NULL;
}

TEST(a_thread_begins_without_memory) {
  static First first;
  evloop_ready_t ready;
  spared = 1;
  first.poll = OK(evloop_poll_create());
  first.tfd = OK(tfd_create(MONOTONIC, 0));
  OK(evloop_poll_register(first.poll, event_fd(0), EVLOOP_POLLIN, 0));
  /* Its array of descriptors is there then. */
  CHECK_EQ(evloop_poll_wait(first.poll, &ready, 1, 0), 0);
  join(start_thread(first_calls, &first));
  CHECK_EQ(strcmp(first.sentence, "tfd_close: 0 is not a handle (ESTALE)"), 0);
}

CHECK_MAIN()
