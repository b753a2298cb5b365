/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Questions about a loop and its watchers: evloop_alive(), evloop_watchers(),
 * evloop_watcher_info(), evloop_find_io(), evloop_dump(). */

#define _GNU_SOURCE
#include "loop_kinds.h"

#include <sys/resource.h>
#include <sys/wait.h>

static evloop_watcher_info_t info_of(evloop_watcher_t watcher) {
  evloop_watcher_info_t info;
  memset(&info, 0x55, sizeof info);
  info.size = sizeof info;
  CHECK_EQ(evloop_watcher_info(watcher, &info), 0);
  return info;
}

static bool lists(evloop_t loop, evloop_watcher_t watcher) {
  evloop_watcher_t all[64];
  int count = (int)OK(evloop_watchers(loop, all, LENGTH(all))), found = 0;
  CHECK(count <= LENGTH(all));
  for (int i = 0; i < count; i++) found += all[i] == watcher;
  CHECK(found <= 1);
  return found == 1;
}

static int count_of(evloop_t loop) {
  return (int)OK(evloop_watchers(loop, NULL, 0));
}

static char text[1 << 16];

/* What a dump says. */
static const char *dump_of(evloop_t loop) {
  int file = regular_file();
  int count = (int)OK(evloop_dump(loop, file));
  CHECK_EQ(count, count_of(loop));
  ssize_t length = OK(pread(file, text, sizeof text - 1, 0));
  text[length] = '\0';
  OK(close(file));
  return text;
}

static void expect_in(const char *whole, const char *part) {
  if (strstr(whole, part) != NULL) return;
  printf("  '%s' is not in:\n%s", part, whole);
  check_exit();
}

/* Asks everything, as a watchdog would. */
static void ask_everything(evloop_t loop) {
  evloop_watcher_t all[64];
  int count = (int)OK(evloop_watchers(loop, all, LENGTH(all)));
  OK(evloop_alive(loop));
  for (int i = 0; i < count; i++) CHECK_EQ(info_of(all[i]).loop, loop);
  CHECK_ERR(evloop_find_io(loop, 123456), ENOENT);
  dump_of(loop);
}

/* ---- each kind ---- */

EACH_KIND(a_watcher_is_listed_until_it_is_closed) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, as_data(77));
  CHECK(lists(fixture.loop, watcher));
  CHECK_EQ(count_of(fixture.loop), 1);
  evloop_watcher_info_t info = info_of(watcher);
  CHECK_EQ(info.size, sizeof info);
  CHECK_EQ(info.loop, fixture.loop);
  CHECK_EQ(info.data, 77);
  CHECK_EQ(info.type, kind->type);
  CHECK_EQ(info.enabled, 1);
  CHECK_EQ(info.referenced, 1);
  CHECK_EQ(info.alive, !kind->alone);
  CHECK_EQ(evloop_alive(fixture.loop), !kind->alone);
  CHECK_EQ(info.priority, 0);
  CHECK_EQ(info.fd, kind->type == EVLOOP_EVENT_IO ? fixture.fds[0] : -1);
  CHECK_EQ(info.events, kind->type == EVLOOP_EVENT_IO ? EVLOOP_EPOLLIN : 0);
  CHECK_EQ(info.clockid, kind->type == EVLOOP_EVENT_TIMER ? MONOTONIC : -1);
  CHECK_EQ(info.subject, kind->type == EVLOOP_EVENT_TFD ? fixture.tfds[0] : 0);
  close_watcher(watcher);
  CHECK(!lists(fixture.loop, watcher));
  CHECK_ERR(evloop_watcher_info(watcher, &info), ESTALE);
  CHECK_EQ(evloop_alive(fixture.loop), 0);
  CHECK_EQ(evloop_close(fixture.loop), 0);
}

EACH_KIND(what_is_changed_about_a_watcher_is_seen) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  CHECK_EQ(evloop_watcher_set_data(watcher, 5), 0);
  CHECK_EQ(evloop_watcher_set_priority(watcher, -9), 0);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  evloop_watcher_info_t info = info_of(watcher);
  CHECK_EQ(info.data, 5);
  CHECK_EQ(info.priority, -9);
  CHECK_EQ(info.referenced, 0);
  CHECK_EQ(info.alive, 0);
  CHECK_EQ(evloop_watcher_ref(watcher), 0);
  CHECK_EQ(evloop_watcher_set_priority(watcher, 0), 0);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  info = info_of(watcher);
  CHECK_EQ(info.priority, 0);
  CHECK_EQ(info.referenced, 1);
  CHECK_EQ(info.enabled, 0);
  CHECK_EQ(info.alive, 0);
  CHECK_EQ(evloop_alive(fixture.loop), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_alive(fixture.loop), !kind->alone);
}

/* A thread that does not run the loop, which is stuck in a callback. */
EACH_KIND(a_loop_that_is_stuck_answers) {
  Fixture fixture = new_fixture();
  Runner runner;
  Gate gate;
  evloop_watcher_t before = kind->add(&fixture, 0, ignore, as_data(1));
  evloop_watcher_t other = kind->add(&fixture, 1, ignore, as_data(2));
  CHECK_EQ(evloop_watcher_set_priority(other, 3), 0);
  keep_alive(fixture.loop);
  start_runner(&runner, run_until_done, fixture.loop);
  hold(fixture.loop, &gate);
  evloop_watcher_t after = kind->add(&fixture, 2, ignore, as_data(3));
  CHECK(lists(fixture.loop, before));
  CHECK(lists(fixture.loop, other));
  CHECK(lists(fixture.loop, after));
  CHECK_EQ(count_of(fixture.loop), 4);
  CHECK_EQ(info_of(before).data, 1);
  CHECK_EQ(info_of(other).priority, 3);
  CHECK_EQ(info_of(after).data, 3);
  CHECK_EQ(info_of(after).type, kind->type);
  CHECK_EQ(evloop_alive(fixture.loop), 1);
  close_watcher(other);
  CHECK(!lists(fixture.loop, other));
  ask_everything(fixture.loop);
  open_gate(&gate);
  stop_runner(&runner);
}

/* What another thread has added keeps a stuck loop alive, as it will once the
 * loop has taken it in. */
EACH_KIND(a_stuck_loop_is_as_alive_as_its_watchers) {
  Fixture fixture = new_fixture();
  Runner runner;
  Gate gate;
  evloop_watcher_t keeper = keep_alive(fixture.loop);
  start_runner(&runner, run_until_done, fixture.loop);
  hold(fixture.loop, &gate);
  close_watcher(keeper);
  CHECK_EQ(evloop_alive(fixture.loop), 0);
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  CHECK_EQ(info_of(watcher).alive, !kind->alone);
  CHECK_EQ(evloop_alive(fixture.loop), !kind->alone);
  close_watcher(watcher);
  CHECK_EQ(evloop_alive(fixture.loop), 0);
  CHECK_EQ(evloop_post(fixture.loop, ignore, NULL), 0);
  CHECK_EQ(evloop_alive(fixture.loop), 1);
  open_gate(&gate);
  CHECK_EQ(runner_result(&runner), 0);
  CHECK_EQ(evloop_alive(fixture.loop), 0);
}

/* ---- alive ---- */

typedef struct Asker {
  evloop_t loop;
  int alive;
  Gate gate;
} Asker;

static void ask_alive(const evloop_event_t *event, void *user_data) {
  Asker *asker = (Asker *)user_data;
  (void)event;
  asker->alive = (int)OK(evloop_alive(asker->loop));
}

TEST(a_callback_asks_whether_something_else_is_left) {
  Asker asker = {.loop = new_loop()};
  CHECK_EQ(evloop_post(asker.loop, ask_alive, &asker), 0);
  run_to_end(asker.loop);
  CHECK_EQ(asker.alive, 0);
  CHECK_EQ(evloop_post(asker.loop, ask_alive, &asker), 0);
  CHECK_EQ(evloop_post(asker.loop, ignore, NULL), 0);
  CHECK_EQ(evloop_alive(asker.loop), 1);
  run_to_end(asker.loop);
  CHECK_EQ(asker.alive, 1);
}

static void post_and_stay(const evloop_event_t *event, void *user_data) {
  Asker *asker = (Asker *)user_data;
  CHECK_EQ(evloop_post(asker->loop, ignore, NULL), 0);
  stay(event, &asker->gate);
}

TEST(a_call_that_a_stuck_callback_has_posted_keeps_its_loop_alive) {
  Asker asker = {.loop = new_loop()};
  Runner runner;
  timer(asker.loop, 0, 0, post_and_stay, &asker);
  start_runner(&runner, run_until_done, asker.loop);
  UNTIL(LOAD(asker.gate.entered));
  CHECK_EQ(evloop_alive(asker.loop), 1);
  expect_in(dump_of(asker.loop), "1 posted calls");
  open_gate(&asker.gate);
  CHECK_EQ(runner_result(&runner), 0);
}

TEST(a_watcher_over_its_rate_limit_keeps_a_stuck_loop_alive) {
  evloop_t loop = new_loop();
  Runner runner;
  Gate gate;
  evloop_watcher_t ticks = timer(loop, 0, MS, ignore, NULL);
  CHECK_EQ(evloop_watcher_set_ratelimit(ticks, HOUR, 1), 0);
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  CHECK_EQ(evloop_alive(loop), 1);
  open_gate(&gate);
  stop_runner(&runner);
}

/* ---- timers ---- */

TEST(a_timer_says_how_it_is_set) {
  evloop_t loop = virtual_loop();
  evloop_watcher_t timers[] = {
      OK(evloop_add_timer(loop, MONOTONIC, 0, SECOND, 0, 0, ignore, NULL)),
      OK(evloop_add_timer(loop, EVLOOP_CLOCK_BOOTTIME, 0, SECOND, MS, 4096, ignore, NULL)),
      OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, 0, SECOND, 0, 0, ignore, NULL)),
      OK(evloop_add_timer(loop, EVLOOP_CLOCK_REALTIME, EVLOOP_TIMER_ABSTIME, SECOND, 0, 0, ignore, NULL))};
  const int clocks[] = {MONOTONIC, EVLOOP_CLOCK_BOOTTIME, MONOTONIC, EVLOOP_CLOCK_REALTIME};
  for (int i = 0; AT_ROW(i, timers); i++) {
    evloop_watcher_info_t info = info_of(timers[i]);
    CHECK_EQ(info.deadline_ns, SECOND);
    CHECK_EQ(info.interval_ns, i == 1 ? MS : 0);
    CHECK_EQ(info.tolerance_ns, i == 1 ? 4096 : 0);
    CHECK_EQ(info.clockid, clocks[i]);
    CHECK_EQ(evloop_watcher_disable(timers[i]), 0);
    CHECK_EQ(info_of(timers[i]).deadline_ns, SECOND);
    CHECK_EQ(evloop_watcher_enable(timers[i]), 0);
    set_timer(timers[i], -1, 0);
    info = info_of(timers[i]);
    CHECK_EQ(info.deadline_ns, INT64_MAX);
    CHECK_EQ(info.alive, 0);
  }
}

TEST(a_stuck_loops_timer_says_when_it_is_due) {
  evloop_t loop = new_loop();
  Runner runner;
  Gate gate;
  int64_t due = OK(evloop_now_ns(loop)) + HOUR;
  evloop_watcher_t watcher = timer_at(loop, due, ignore, NULL);
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  CHECK_EQ(info_of(watcher).deadline_ns, due);
  open_gate(&gate);
  stop_runner(&runner);
}

/* ---- find_io ---- */

TEST(the_io_watcher_of_a_descriptor_is_found) {
  evloop_t loop = new_loop();
  int fd = event_fd(0), file = regular_file();
  CHECK_ERR(evloop_find_io(loop, fd), ENOENT);
  evloop_watcher_t first = readable_io(loop, fd, ignore, NULL);
  evloop_watcher_t second = readable_io(loop, fd, ignore, NULL);
  evloop_watcher_t always = readable_io(loop, file, ignore, NULL);
  CHECK_EQ(evloop_find_io(loop, fd), first);
  CHECK_EQ(evloop_find_io(loop, file), always);
  close_watcher(first);
  CHECK_EQ(evloop_find_io(loop, fd), second);
  close_watcher(second);
  CHECK_ERR(evloop_find_io(loop, fd), ENOENT);
  CHECK_ERR(evloop_find_io(loop, -1), EBADF);
}

TEST(a_tfd_watcher_is_no_io_watcher_of_its_descriptor) {
  evloop_t loop = new_loop();
  tfd_t tfd = OK(tfd_create(MONOTONIC, 0));
  OK(evloop_add_tfd(loop, tfd, ignore, NULL));
  CHECK_ERR(evloop_find_io(loop, (int)OK(tfd_fileno(tfd))), ENOENT);
}

TEST(a_descriptor_that_was_closed_is_not_found_once_that_is_noticed) {
  evloop_t loop = new_loop();
  int fd = event_fd(0);
  Seen seen = {0};
  evloop_watcher_t watcher = readable_io(loop, fd, record, &seen);
  OK(close(fd));
  CHECK_EQ(evloop_io_modify(watcher, EVLOOP_EPOLLOUT), 0);
  turns(loop, 2);
  CHECK_EQ(seen.errors, 1);
  CHECK_ERR(evloop_find_io(loop, fd), ENOENT);
  expect_in(dump_of(loop), "what it watched is gone");
}

TEST(the_io_watcher_of_a_stuck_loop_is_found) {
  evloop_t loop = new_loop();
  Runner runner;
  Gate gate;
  int fd = event_fd(0), file = regular_file(), late = event_fd(0);
  evloop_watcher_t first = readable_io(loop, fd, ignore, NULL);
  evloop_watcher_t second = readable_io(loop, fd, ignore, NULL);
  evloop_watcher_t always = OK(evloop_add_io(loop, file, 0, ignore, NULL));
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  evloop_watcher_t added = readable_io(loop, late, ignore, NULL);
  readable_io(loop, fd, ignore, NULL);
  CHECK_EQ(evloop_find_io(loop, fd), first);
  CHECK_EQ(evloop_find_io(loop, file), always);
  CHECK_EQ(evloop_find_io(loop, late), added);
  close_watcher(first);
  int64_t found = OK(evloop_find_io(loop, fd));
  CHECK(found != first);
  CHECK_ERR(evloop_find_io(loop, event_fd(0)), ENOENT);
  open_gate(&gate);
  go_round(loop);
  found = OK(evloop_find_io(loop, fd));
  CHECK(found != first);
  CHECK(lists(loop, found));
  close_watcher(second);
  CHECK(evloop_find_io(loop, fd) > 0);
  stop_runner(&runner);
}

/* ---- watchers ---- */

TEST(as_many_handles_as_fit_are_written_and_all_are_counted) {
  evloop_t loop = new_loop();
  evloop_watcher_t all[300], more;
  for (int i = 0; i < 200; i++) keep_alive(loop);
  memset(all, 0, sizeof all);
  CHECK_EQ(evloop_watchers(loop, all, 10), 200);
  CHECK(all[9] > 0);
  CHECK_EQ(all[10], 0);
  CHECK_EQ(evloop_watchers(loop, all, LENGTH(all)), 200);
  for (int i = 0; i < 200; i++) CHECK_EQ(evloop_watcher_loop(all[i]), loop);
  CHECK_ERR(evloop_watchers(loop, NULL, 1), EINVAL);
  CHECK_ERR(evloop_watchers(loop, &more, -1), EINVAL);
}

TEST(other_loops_watchers_are_not_listed) {
  evloop_t loops[3];
  for (int i = 0; i < 3; i++) loops[i] = new_loop();
  for (int i = 0; i < 300; i++) keep_alive(loops[i % 3]);
  for (int i = 0; i < 3; i++) CHECK_EQ(count_of(loops[i]), 100);
  CHECK_EQ(evloop_close(loops[1]), 0);
  evloop_t next = new_loop();
  CHECK_EQ(count_of(next), 0);
  keep_alive(next);
  CHECK_EQ(count_of(next), 1);
  CHECK_EQ(count_of(loops[0]), 100);
  CHECK_ERR(evloop_watchers(loops[1], NULL, 0), ESTALE);
}

/* ---- sizes ---- */

TEST(an_information_is_filled_as_far_as_its_size_says) {
  struct {
    evloop_watcher_info_t info;
    unsigned char rest[16];
  } larger;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = keep_alive(loop);
  memset(&larger, 0xff, sizeof larger);
  larger.info.size = sizeof larger;
  CHECK_EQ(evloop_watcher_info(watcher, &larger.info), 0);
  CHECK_EQ(larger.info.size, sizeof larger);
  for (int i = 0; AT_ROW(i, larger.rest); i++) CHECK_EQ(larger.rest[i], 0);
  memset(&larger, 0xff, sizeof larger);
  larger.info.size = offsetof(evloop_watcher_info_t, data);
  CHECK_EQ(evloop_watcher_info(watcher, &larger.info), 0);
  CHECK_EQ(larger.info.loop, loop);
  CHECK_EQ(larger.info.data, UINT64_MAX);
  larger.info.size = 0;
  CHECK_ERR(evloop_watcher_info(watcher, &larger.info), EINVAL);
  CHECK_ERR(evloop_watcher_info(watcher, NULL), EINVAL);
}

/* ---- dump ---- */

TEST(a_dump_has_a_line_for_each_watcher) {
  evloop_t loop = virtual_loop();
  int fd = event_fd(0);
  char line[120];
  evloop_watcher_t io = OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLET, ignore, NULL));
  CHECK_EQ(evloop_watcher_set_name(io, "the\nclient"), 0);
  evloop_watcher_t ticks = timer(loop, 1500 * MS, 2 * SECOND, ignore, NULL);
  CHECK_EQ(evloop_watcher_unref(ticks), 0);
  timer(loop, -1, 0, ignore, NULL);
  CHECK_EQ(evloop_watcher_disable(OK(evloop_add_signal(loop, SIGUSR1, 0, NULL, NULL))), 0);
  const char *said_so = dump_of(loop);
  snprintf(line, sizeof line, "loop %" PRId64 ": 4 watchers, 1 keep it alive\n", loop);
  expect_in(said_so, line);
  snprintf(line, sizeof line, "io %" PRId64 " \"the?client\": fd %d, events IN ET, keeps the loop alive\n", io, fd);
  expect_in(said_so, line);
  snprintf(line, sizeof line, "timer %" PRId64 ": due in 1.500000 s, every 2.000000 s, unreferenced,", ticks);
  expect_in(said_so, line);
  expect_in(said_so, "not set, does not keep the loop alive\n");
  expect_in(said_so, "signal 10, for evloop_wait, disabled, does not keep the loop alive\n");
}

TEST(a_dump_has_what_a_watcher_watches) {
  evloop_t loop = new_loop();
  char deep[3000] = "/tmp", line[400];
  OK(evloop_add_file(loop, "/tmp", EVLOOP_FILE_CREATE | EVLOOP_FILE_DELETE, 0, ignore, NULL));
  OK(evloop_add_file(loop, "/tmp/no such\nfile", EVLOOP_FILE_ALL,
                     EVLOOP_FILE_FOLLOW | EVLOOP_FILE_DONT_FOLLOW, ignore, NULL));
  evloop_watcher_t named =
      OK(evloop_add_file(loop, "/proc/self", EVLOOP_FILE_MOVE_SELF, EVLOOP_FILE_ONLYDIR, ignore, NULL));
  CHECK_EQ(evloop_watcher_set_name(named, "self"), 0);
  for (int i = 0; i < 200; i++) strcat(deep, "/../tmp");
  OK(evloop_add_file(loop, deep, EVLOOP_FILE_ALL & ~(uint32_t)EVLOOP_FILE_ACCESS, 0, ignore, NULL));
  snprintf(line, sizeof line, ": path \"...%s\", events MODIFY ", deep + strlen(deep) - 128);
  const char *said_so = dump_of(loop);
  expect_in(said_so, ": path \"/tmp\", events CREATE DELETE, keeps the loop alive\n");
  expect_in(said_so, ": path \"/tmp/no such?file\" FOLLOW DONT_FOLLOW, events ALL, keeps the loop alive\n");
  expect_in(said_so, " \"self\": path \"/proc/self\" ONLYDIR, events MOVE_SELF, keeps the loop alive\n");
  expect_in(said_so, line);
}

TEST(a_dump_has_what_pressure_is_waited_for) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = evloop_add_memory_pressure(loop, NULL, EVLOOP_PRESSURE_SOME, 200000000,
                                                        2000000000, ignore, NULL);
  if (watcher == -ENOTSUP || watcher == -EACCES) SKIP("no memory pressure here: %s", check_text(watcher));
  OK(watcher);
  expect_in(dump_of(loop), ": some tasks of the system stalled for 200000 us of 2000000 us, ");
  CHECK_EQ(info_of(watcher).subject, 0);
}

TEST(a_long_dump_is_whole) {
  evloop_t loop = new_loop();
  int lines = 0;
  for (int i = 0; i < 500; i++) keep_alive(loop);
  for (const char *at = dump_of(loop); *at != '\0'; at++) lines += *at == '\n';
  CHECK_EQ(lines, 501);
}

TEST(a_dump_into_a_pipe_without_a_reader_fails_without_a_signal) {
  evloop_t loop = new_loop();
  int ends[2];
  OK(pipe(ends));
  OK(close(ends[0]));
  keep_alive(loop);
  CHECK_EQ(signal(SIGPIPE, SIG_DFL), SIG_DFL);
  CHECK_ERR(evloop_dump(loop, ends[1]), EPIPE);
  sigset_t pending, mask;
  CHECK_EQ(sigpending(&pending), 0);
  CHECK_EQ(sigismember(&pending, SIGPIPE), 0);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, NULL, &mask), 0);
  CHECK_EQ(sigismember(&mask, SIGPIPE), 0);
  CHECK_ERR(evloop_dump(loop, ends[0]), EBADF);
}

TEST(a_dump_into_a_full_pipe_that_does_not_block_says_so) {
  evloop_t loop = new_loop();
  int ends[2];
  OK(pipe2(ends, O_NONBLOCK));
  for (int i = 0; i < 2000; i++) keep_alive(loop);
  CHECK_ERR(evloop_dump(loop, ends[1]), EAGAIN);
}

/* ---- threads, fork, embedding, virtual time ---- */

typedef struct Churn {
  evloop_t loop;
  int sink;
  int over; /* atomic */
} Churn;

static void *ask_all_the_time(void *argument) {
  Churn *churn = (Churn *)argument;
  evloop_watcher_t all[64];
  while (!LOAD(churn->over)) {
    int count = (int)OK(evloop_watchers(churn->loop, all, LENGTH(all)));
    OK(evloop_alive(churn->loop));
    for (int i = 0; i < count && i < LENGTH(all); i++) {
      evloop_watcher_info_t info = {.size = sizeof info};
      int result = evloop_watcher_info(all[i], &info);
      if (result == -ESTALE) continue;
      CHECK_EQ(result, 0);
      CHECK_EQ(info.loop, churn->loop);
      /* Of one watcher, not half of another one. */
      CHECK_EQ(info.data, (uint64_t)info.type);
    }
    OK(evloop_dump(churn->loop, churn->sink));
  }
  return NULL;
}

static void churn(const evloop_event_t *event, void *user_data) {
  static evloop_watcher_t open_ones[8];
  static int calls, fd = -1;
  evloop_t loop = (evloop_t)OK(evloop_watcher_loop(event->watcher));
  int place = calls % LENGTH(open_ones);
  if (fd < 0) fd = event_fd(0);
  if (open_ones[place] != 0) close_watcher(open_ones[place]);
  switch (calls % 3) {
    case 0: open_ones[place] = readable_io(loop, fd, ignore, as_data(EVLOOP_EVENT_IO)); break;
    case 1: open_ones[place] = timer(loop, HOUR, 0, ignore, as_data(EVLOOP_EVENT_TIMER)); break;
    default: open_ones[place] = async(loop, ignore, as_data(EVLOOP_EVENT_ASYNC)); break;
  }
  if (++calls >= 20000) CHECK_EQ(evloop_stop(loop), 0);
  (void)user_data;
}

TEST(watchers_that_come_and_go_are_never_seen_half) {
  Churn state = {.loop = new_loop(), .sink = (int)OK(open("/dev/null", O_WRONLY | O_CLOEXEC))};
  OK(evloop_add_idle(state.loop, churn, as_data(EVLOOP_EVENT_IDLE)));
  pthread_t thread = start_thread(ask_all_the_time, &state);
  CHECK_EQ(evloop_run(state.loop, EVLOOP_RUN_UNTIL_DONE), 1);
  STORE(state.over, 1);
  join(thread);
}

TEST(a_child_is_refused_until_it_has_made_the_loop_its_own) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = keep_alive(loop);
  CHECK_EQ(evloop_watcher_set_priority(watcher, 4), 0);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    evloop_watcher_info_t info = {.size = sizeof info};
    CHECK_ERR(evloop_alive(loop), ECHILD);
    CHECK_ERR(evloop_watchers(loop, NULL, 0), ECHILD);
    CHECK_ERR(evloop_watcher_info(watcher, &info), ECHILD);
    CHECK_ERR(evloop_find_io(loop, 0), ECHILD);
    CHECK_ERR(evloop_dump(loop, 1), ECHILD);
    CHECK_EQ(evloop_after_fork(loop), 0);
    CHECK_EQ(evloop_alive(loop), 1);
    CHECK_EQ(info_of(watcher).priority, 4);
    ask_everything(loop);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

TEST(an_embedded_loop_is_asked_between_two_dispatches) {
  evloop_t loop = new_loop();
  keep_alive(loop);
  timer(loop, HOUR, 0, ignore, NULL);
  CHECK_EQ(evloop_embed_prepare(loop), 0);
  int fd = (int)OK(evloop_fileno(loop));
  ask_everything(loop);
  /* Asking is nothing that the foreign loop should come back for. */
  CHECK(!readable(fd, 0));
  CHECK_EQ(evloop_embed_dispatch(loop), 1);
}

TEST(asking_does_not_move_virtual_time) {
  evloop_t loop = jumping_loop();
  timer(loop, HOUR, 0, ignore, NULL);
  ask_everything(loop);
  CHECK_EQ(evloop_now_ns(loop), 0);
}

TEST(a_watchdog_dumps_the_loop_that_is_stuck) {
  evloop_t loop = new_loop();
  Runner runner;
  Gate gate;
  keep_alive(loop);
  start_runner(&runner, run_until_done, loop);
  hold(loop, &gate);
  expect_in(dump_of(loop), "async");
  open_gate(&gate);
  stop_runner(&runner);
  close_loop(loop);
}

CHECK_MAIN()
