/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Events of file watchers are not lost: disabled, limited, ranked, recorded,
 * added and closed by other threads, after a fork. */

#define _GNU_SOURCE
#include "loop_files.h"

static void make_files(int from, int to) {
  char name[16];
  int i;
  for (i = from; i < to; i++) {
    snprintf(name, sizeof name, "%d", i);
    make_file(name);
  }
}

/* ---- later ---- */

TEST(what_happens_while_a_watcher_is_disabled_is_delivered_when_it_is_enabled) {
  Ear ear = {0};
  evloop_watcher_t watcher;
  enter_home();
  watcher = listen_to(&ear, ".", FILE_(CREATE), 0);
  make_files(0, 2);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  make_files(2, 3);
  CHECK_EQ(turn(ear.loop), 0);
  make_files(3, 5);
  CHECK_EQ(turn(ear.loop), 0);
  CHECK(ear.text[0] == '\0');
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  HEARD(&ear, "+0 +1 +2 +3 +4");
  close_loop(ear.loop);
}

/* Disables its watcher at each event. */
static void hear_one(const evloop_event_t *event, void *user_data) {
  hear(event, user_data);
  CHECK_EQ(evloop_watcher_disable(event->watcher), 0);
}

static void check_one_by_one(int priority) {
  Ear ear = {0};
  evloop_watcher_t watcher;
  char expected[8];
  int i;
  enter_home();
  ear.loop = new_loop();
  watcher = OK(evloop_add_file(ear.loop, ".", FILE_(CREATE), 0, hear_one, &ear));
  CHECK_EQ(evloop_watcher_set_priority(watcher, priority), 0);
  make_files(0, 6);
  for (i = 0; i < 6; i++) {
    if (i == 3) make_files(6, 9);
    turns(ear.loop, 2);
    snprintf(expected, sizeof expected, "+%d", i);
    CHECK(strcmp(ear.text, expected) == 0);
    ear.text[0] = '\0';
    CHECK_EQ(evloop_watcher_enable(watcher), 0);
  }
  close_loop(ear.loop);
}

TEST(a_watcher_that_disables_itself_hears_the_rest_in_order_later) {
  check_one_by_one(0);
}

TEST(a_watcher_with_a_priority_does_too) {
  check_one_by_one(1);
}

TEST(priorities_are_obeyed) {
  evloop_t loop = new_loop();
  enter_home();
  OK(evloop_add_file(loop, ".", FILE_(CREATE), 0, log_word, WORD("a")));
  CHECK_EQ(evloop_watcher_set_priority(
               OK(evloop_add_file(loop, ".", FILE_(CREATE), 0, log_word, WORD("b"))), 1), 0);
  make_files(0, 3);
  turn(loop);
  EXPECT_LOG("bbbaaa");
  close_loop(loop);
}

TEST(over_its_rate_limit_a_watcher_hears_the_rest_later_in_order) {
  Ear ear = {0};
  evloop_watcher_t watcher;
  enter_home();
  ear.loop = virtual_loop();
  watcher = listen_to(&ear, ".", FILE_(CREATE), 0);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, SECOND, 2), 0);
  make_files(0, 5);
  HEARD(&ear, "+0 +1");
  make_files(5, 6);
  turns(ear.loop, 3);
  CHECK(ear.text[0] == '\0');
  advance(ear.loop, SECOND);
  HEARD(&ear, "+2 +3");
  turns(ear.loop, 3);
  CHECK(ear.text[0] == '\0');
  advance(ear.loop, SECOND);
  HEARD(&ear, "+4 +5");
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, 0, 0), 0);
  make_files(6, 9);
  HEARD(&ear, "+6 +7 +8");
  close_loop(ear.loop);
}

/* The rate limit delays the last event of a watcher as any other, and the
 * watcher lives until the loop has delivered it. */
TEST(over_its_rate_limit_a_watcher_hears_of_its_end_too) {
  Ear ear = {0};
  evloop_watcher_t watcher;
  enter_home();
  make_dir("a");
  ear.loop = virtual_loop();
  watcher = listen_to(&ear, "a", FILE_(DELETE_SELF), 0);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, SECOND, 1), 0);
  OK(rmdir("a"));
  HEARD(&ear, "D");
  turns(ear.loop, 3);
  CHECK(ear.text[0] == '\0');
  advance(ear.loop, SECOND);
  turns(ear.loop, 3);
  CHECK(strcmp(ear.text, "!") == 0);
  run_to_end(ear.loop);
  close_loop(ear.loop);
}

/* ---- records ---- */

/* Takes so many records at a time, and writes them down. */
static void take_records(Ear *ear, int max) {
  evloop_event_t events[8];
  int64_t n = OK(evloop_wait(ear->loop, events, max, 20 * SECOND));
  int i;
  for (i = 0; i < n; i++) write_down(&events[i], ear->text, sizeof ear->text);
}

#define RECORDS(ear, max, expected)                                      \
  do {                                                                   \
    while (strlen((ear)->text) < strlen(expected)) take_records(ear, max); \
    HEARD(ear, expected);                                                \
  } while (0)

TEST(each_event_is_a_record_of_its_own) {
  Ear ear = {0};
  enter_home();
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, ".", ENTRIES, 0, NULL, NULL));
  make_files(0, 3);
  OK(rename("0", "x"));
  RECORDS(&ear, 2, "+0 +1 +2 0=>x");
  close_loop(ear.loop);
}

TEST(records_that_come_while_callbacks_run_wait_for_evloop_wait) {
  Ear ear = {0};
  evloop_event_t event;
  enter_home();
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, ".", ENTRIES, 0, NULL, NULL));
  make_files(0, 2);
  turns(ear.loop, 3);
  make_files(2, 4);
  turns(ear.loop, 3);
  RECORDS(&ear, 3, "+0 +1 +2 +3");
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, 0), 0);
  close_loop(ear.loop);
}

TEST(records_of_a_watcher_that_is_disabled_are_taken_back) {
  Ear ear = {0};
  evloop_event_t event;
  evloop_watcher_t watcher;
  enter_home();
  ear.loop = new_loop();
  watcher = OK(evloop_add_file(ear.loop, ".", ENTRIES, 0, NULL, NULL));
  make_files(0, 5);
  RECORDS(&ear, 1, "+0");
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  make_files(5, 6);
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, 0), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  RECORDS(&ear, 2, "+1 +2 +3 +4 +5");
  close_loop(ear.loop);
}

TEST(records_of_a_watcher_that_is_closed_are_gone) {
  Ear ear = {0};
  evloop_event_t event;
  evloop_watcher_t watcher;
  enter_home();
  ear.loop = new_loop();
  watcher = OK(evloop_add_file(ear.loop, ".", ENTRIES, 0, NULL, NULL));
  OK(evloop_add_file(ear.loop, ".", FILE_(DELETE), 0, NULL, NULL));
  make_files(0, 5);
  RECORDS(&ear, 1, "+0");
  close_watcher(watcher);
  OK(unlink("0"));
  RECORDS(&ear, 8, "-0");
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, 0), 0);
  close_loop(ear.loop);
}

TEST(the_end_is_a_record_and_keeps_the_loop_alive_until_it_is_taken) {
  Ear ear = {0};
  evloop_event_t event;
  enter_home();
  make_file("file");
  ear.loop = new_loop();
  OK(evloop_add_file(ear.loop, "file", FILE_(DELETE_SELF), 0, NULL, NULL));
  OK(unlink("file"));
  CHECK_EQ(turn(ear.loop), 1);
  RECORDS(&ear, 8, "D !");
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, -1), 0);
  close_loop(ear.loop);
}

TEST(an_end_that_was_taken_back_comes_again) {
  Ear ear = {0};
  evloop_event_t event;
  evloop_watcher_t watcher;
  enter_home();
  make_file("file");
  ear.loop = new_loop();
  watcher = OK(evloop_add_file(ear.loop, "file", FILE_(DELETE_SELF), 0, NULL, NULL));
  OK(unlink("file"));
  RECORDS(&ear, 1, "D");
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, -1), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  RECORDS(&ear, 1, "!");
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, -1), 1);
  CHECK_EQ(event.events, EVLOOP_ERROR);
  CHECK_EQ(event.result, -ENOENT);
  CHECK_EQ(evloop_wait(ear.loop, &event, 1, -1), 0);
  close_loop(ear.loop);
}

/* ---- how loops are run ---- */

TEST(half_a_rename_is_delivered_by_an_embedded_loop_too) {
  Ear ear = {0};
  int fd;
  enter_home();
  make_dir("in");
  listen_to(&ear, "in", ENTRIES, 0);
  fd = (int)OK(evloop_fileno(ear.loop));
  make_file("in/x");
  OK(rename("in/x", "x"));
  while (strlen(ear.text) < strlen("+x <x")) {
    if (OK(evloop_embed_prepare(ear.loop)) == 0) CHECK(readable(fd, -1));
    OK(evloop_embed_dispatch(ear.loop));
  }
  HEARD(&ear, "+x <x");
  close_loop(ear.loop);
}

TEST(a_loop_with_virtual_time_delivers_file_events_in_real_time) {
  Ear ear = {0};
  Seen seen = {0};
  enter_home();
  make_dir("in");
  ear.loop = jumping_loop();
  listen_to(&ear, "in", ENTRIES, 0);
  timer(ear.loop, HOUR, 0, record, &seen);
  make_file("in/x");
  OK(rename("in/x", "x"));
  HEARD(&ear, "+x <x");
  while (seen.calls == 0) OK(evloop_run(ear.loop, EVLOOP_RUN_ONCE));
  close_loop(ear.loop);
}

TEST(a_loop_that_waits_wakes_up_for_the_other_half_that_does_not_come) {
  Ear ear = {0};
  Runner r;
  enter_home();
  make_dir("in");
  listen_to(&ear, "in", FILE_(MOVED_FROM), 0);
  make_file("in/x");
  start_sleeper(&r, run_once, ear.loop);
  OK(rename("in/x", "x"));
  CHECK(runner_result(&r) >= 0);
  HEARD(&ear, "<x");
  close_loop(ear.loop);
}

/* ---- threads ---- */

TEST(another_thread_adds_watchers_and_learns_what_is_wrong) {
  Runner r;
  Seen seen = {0};
  evloop_t loop = sleeping_loop(&r);
  evloop_watcher_t watcher;
  enter_home();
  make_dir("a");
  CHECK_ERR(evloop_add_file(loop, "missing", ENTRIES, 0, record, &seen), ENOENT);
  CHECK_ERR(evloop_add_file(loop, "missing", ENTRIES, TREE, record, &seen), ENOENT);
  CHECK_EQ(inotify_of_process().fd, -1);
  watcher = OK(evloop_add_file(loop, ".", FILE_(CREATE), TREE, record, &seen));
  CHECK_EQ(inotify_of_process().watches, 2);
  make_file("a/x");
  UNTIL(LOAD(seen.calls) == 1);
  CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
  make_file("a/y");
  go_round(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(inotify_of_process().fd, -1);
  stop_runner(&r);
  close_loop(loop);
}

/* Adds and closes watchers of one directory all the time. */
static void *churn(void *argument) {
  evloop_t loop = *(evloop_t *)argument;
  Seen seen = {0};
  int i;
  for (i = 0; i < 200; i++) {
    evloop_watcher_t one = OK(evloop_add_file(loop, ".", ENTRIES, i % 2 ? TREE : 0, record, &seen));
    evloop_watcher_t two = OK(evloop_add_file(loop, "/", FILE_(DELETE_SELF), 0, record, &seen));
    CHECK_EQ(evloop_watcher_close(one, EVLOOP_CLOSE_WAIT), 0);
    CHECK_EQ(evloop_watcher_close(two, EVLOOP_CLOSE_WAIT), 0);
  }
  return NULL;
}

TEST_TIMEOUT(watchers_come_and_go_in_threads_while_others_hear_everything, 60) {
  Runner r;
  Seen seen = {0};
  evloop_t loop = running_loop(&r, false);
  pthread_t threads[2];
  int i;
  enter_home();
  make_dir("a");
  make_dir("a/b");
  OK(evloop_add_file(loop, "a", FILE_(CREATE), TREE, record, &seen));
  for (i = 0; i < 2; i++) threads[i] = start_thread(churn, &loop);
  for (i = 0; i < 500; i++) {
    char name[32];
    snprintf(name, sizeof name, "a/b/%d", i);
    make_file(name);
  }
  for (i = 0; i < 2; i++) join(threads[i]);
  UNTIL(LOAD(seen.calls) == 500);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 2);
  stop_runner(&r);
  close_loop(loop);
}

static void *close_the_loop(void *argument) {
  CHECK_EQ(evloop_close(*(evloop_t *)argument), 0);
  return NULL;
}

TEST(a_loop_with_file_watchers_is_closed_by_another_thread) {
  Runner r;
  evloop_t loop = new_loop();
  int before = open_descriptors();
  enter_home();
  OK(evloop_add_file(loop, ".", ENTRIES, TREE, ignore, NULL));
  start_sleeper(&r, run_until_done, loop);
  join(start_thread(close_the_loop, &loop));
  CHECK_EQ(runner_result(&r), -ESTALE);
  CHECK(open_descriptors() < before);
}

/* ---- forks ---- */

static void expect_child_ok(pid_t child) {
  int status;
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK_EQ(status, 0);
}

static void end_child(void) {
  fflush(stdout);
  _exit(0);
}

TEST(a_child_that_closes_its_watchers_takes_nothing_from_the_parent) {
  Ear ear = {0};
  evloop_watcher_t watcher;
  pid_t child;
  enter_home();
  make_dir("a");
  watcher = listen_to(&ear, ".", ENTRIES, TREE);
  child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_ERR(evloop_add_file(ear.loop, ".", ENTRIES, 0, hear, &ear), ECHILD);
    close_watcher(watcher);
    CHECK_EQ(evloop_close(ear.loop), 0);
    end_child();
  }
  expect_child_ok(child);
  CHECK_EQ(inotify_of_process().watches, 2);
  make_file("a/x");
  HEARD(&ear, "+a/x");
  close_loop(ear.loop);
}

TEST(after_a_fork_the_child_watches_with_an_inotify_of_its_own) {
  Ear ear = {0}, lost = {0};
  evloop_watcher_t gone;
  pid_t child;
  enter_home();
  make_dir("a");
  make_dir("b");
  listen_to(&ear, ".", ENTRIES, TREE);
  lost.loop = ear.loop;
  gone = listen_to(&lost, "b", ENTRIES, 0);
  child = (pid_t)OK(fork());
  if (child == 0) {
    OK(rmdir("b"));
    CHECK_EQ(evloop_after_fork(ear.loop), 0);
    make_file("a/child");
    HEARD(&ear, "+a/child");
    HEARD(&lost, "!");
    close_watcher(gone);
    OK(evloop_close(ear.loop));
    end_child();
  }
  expect_child_ok(child);
  HEARD(&ear, "-b/ +a/child");
  HEARD(&lost, "!");
  make_file("a/parent");
  HEARD(&ear, "+a/parent");
  close_loop(ear.loop);
}

TEST(a_child_without_a_descriptor_to_spare_stays_the_parents) {
  Ear ear = {0};
  pid_t child;
  enter_home();
  listen_to(&ear, ".", ENTRIES, 0);
  child = (pid_t)OK(fork());
  if (child == 0) {
    int first = open_file("/", O_RDONLY), second = open_file("/", O_RDONLY);
    set_limit((rlim_t)second + 3); /* an eventfd and an epoll */
    CHECK_ERR(evloop_after_fork(ear.loop), EMFILE);
    OK(close(first));
    CHECK_EQ(evloop_after_fork(ear.loop), 0);
    OK(close(second));
    make_file("x");
    HEARD(&ear, "+x");
    end_child();
  }
  expect_child_ok(child);
  HEARD(&ear, "+x");
  close_loop(ear.loop);
}

CHECK_MAIN()
