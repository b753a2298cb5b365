/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop when descriptors or memory run out: the call that needs
 * them fails and nothing else, and works again later. */

#define _GNU_SOURCE
#include "loop_support.h"

/* ---- a full table of descriptors ---- */

enum { SPARE = 12 };
static int fillers[4096], filled;

/* Sets the limit of descriptors to SPARE above the newest one, and opens files
 * until none is left. */
static void fill_table(void) {
  int newest = event_fd(0);
  set_limit((rlim_t)(newest + 1 + SPARE));
  fillers[0] = newest;
  for (filled = 1; (fillers[filled] = dup(newest)) >= 0; filled++) CHECK(filled < LENGTH(fillers) - 1);
  CHECK_EQ(errno, EMFILE);
}

/* Leaves so many free. */
static void free_some(int count) {
  while (count-- > 0) {
    CHECK(filled > 0);
    OK(close(fillers[--filled]));
  }
}

/* So many are free, no more and no less; they are filled again. */
static void expect_free(int count) {
  while (count-- > 0) fillers[filled++] = (int)OK(dup(0));
  CHECK(dup(0) < 0);
  CHECK_EQ(errno, EMFILE);
}

/* ---- helpers ---- */

typedef struct Parts {
  evloop_t loop;
  Pipe pipe;
  Seen io, timer, async, post;
  evloop_watcher_t timer_watcher, async_watcher;
} Parts;

/* Its timers' descriptor is there. */
static void open_parts(Parts *p) {
  *p = (Parts){.loop = new_loop(), .pipe = new_pipe()};
  OK(evloop_add_io(p->loop, p->pipe.r, EVLOOP_EPOLLIN, record_and_take, &p->io));
  p->timer_watcher = OK(evloop_add_timer(p->loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0, 0, record,
                                         &p->timer));
  p->async_watcher = OK(evloop_add_async(p->loop, record, &p->async));
}

static void expect_all_work(Parts *p) {
  int before = p->io.calls + p->timer.calls + p->async.calls + p->post.calls;
  put(p->pipe.w);
  CHECK_EQ(evloop_timer_set(p->timer_watcher, 0, 1, 0), 0);
  CHECK_EQ(evloop_async_send(p->async_watcher), 0);
  CHECK_EQ(evloop_post(p->loop, record, &p->post), 0);
  while (p->io.calls + p->timer.calls + p->async.calls + p->post.calls < before + 4) {
    CHECK_EQ(evloop_run(p->loop, EVLOOP_RUN_ONCE), 1);
  }
  CHECK_EQ(evloop_run_for_ns(p->loop, MS), 1);
  CHECK_EQ(p->io.calls + p->timer.calls + p->async.calls + p->post.calls, before + 4);
}

/* ---- descriptors ---- */

TEST(a_loop_is_not_made_of_too_few_descriptors) {
  fill_table();
  int64_t loop = -EMFILE;
  for (int count = 0; count <= 2 && loop == -EMFILE; count++) {
    CHECK_ERR(evloop_create(NULL), EMFILE);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
    expect_free(count);
    free_some(count + 1);
    if (count == 1) break;
  }
  loop = OK(evloop_create(NULL));
  expect_free(0);
  CHECK_EQ(evloop_close(loop), 0);
  expect_free(2);
  free_some(filled);
  leave_room_for_checkers();
}

TEST(a_running_loop_needs_no_more_descriptors) {
  Parts p;
  open_parts(&p);
  fill_table();
  expect_all_work(&p);
  for (int i = 0; i < 10; i++) {
    Seen seen = {.calls = 0};
    evloop_watcher_t io = OK(evloop_add_io(p.loop, p.pipe.w, EVLOOP_EPOLLOUT, record, &seen));
    evloop_watcher_t file = OK(evloop_add_io(p.loop, 0, 0, record, &seen));
    OK(evloop_add_timer(p.loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 0, 0, record, &seen));
    turn(p.loop);
    CHECK_EQ(seen.calls, 2);
    CHECK_EQ(evloop_watcher_close(io, 0), 0);
    CHECK_EQ(evloop_watcher_close(file, 0), 0);
  }
  expect_all_work(&p);
  CHECK_EQ(evloop_close(p.loop), 0);
  free_some(filled);
  leave_room_for_checkers();
}

TEST(the_first_timer_of_a_clock_fails_alone) {
  Parts p;
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  open_parts(&p);
  evloop_watcher_t async = OK(evloop_add_async(loop, record, &seen));
  fill_table();
  int64_t watchers = evloop_handle_count(EVLOOP_KIND_WATCHER);
  for (int i = 0; i < 3; i++) {
    CHECK_ERR(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 0, 0, record, &seen), EMFILE);
    CHECK_ERR(evloop_add_timer(p.loop, EVLOOP_CLOCK_BOOTTIME, 0, 0, 0, 0, record, &seen), EMFILE);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), watchers);
  }
  CHECK_EQ(evloop_async_send(async), 0);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(seen.calls, 1);
  expect_all_work(&p);
  free_some(1);
  OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 0, 0, record, &seen));
  expect_free(0);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(seen.calls, 2);
  free_some(filled);
  leave_room_for_checkers();
}

/* However many it takes: all of them or none. */
TEST(the_descriptor_for_embedding_fails_alone) {
  Parts p;
  int64_t fd = -EMFILE;
  open_parts(&p);
  fill_table();
  for (int count = 0; fd == -EMFILE; count++) {
    CHECK(count <= 2);
    if (count > 0) free_some(count);
    fd = evloop_fileno(p.loop);
    if (fd == -EMFILE) expect_free(count);
    expect_all_work(&p);
  }
  OK(fd);
  CHECK_EQ(evloop_embed_prepare(p.loop), 0);
  put(p.pipe.w);
  CHECK(readable((int)fd, -1));
  CHECK_EQ(evloop_embed_dispatch(p.loop), 1);
  CHECK_EQ(evloop_close(p.loop), 0);
  free_some(filled);
  leave_room_for_checkers();
}

/* The loop has to get rid of what it cannot name any more, and may need a
 * descriptor for that. */
TEST(a_lost_descriptor_is_an_error_also_where_none_is_left) {
  Parts p;
  Seen seen = {.calls = 0}, prepares = {.calls = 0};
  Pipe lost = new_pipe();
  open_parts(&p);
  OK(evloop_add_io(p.loop, lost.r, EVLOOP_EPOLLIN, record, &seen));
  OK(dup(lost.r));
  OK(close(lost.r));
  put(lost.w);
  fill_table();
  for (int i = 0; i < 1000 && seen.errors == 0; i++) turn(p.loop);
  CHECK_EQ(seen.errors, 1);
  CHECK_EQ(seen.last.result, -EBADF);
  int calls = seen.calls;
  count_iterations(p.loop, &prepares);
  CHECK_EQ(evloop_run_for_ns(p.loop, 50 * MS), 1);
  CHECK_EQ(seen.calls, calls);
  expect_all_work(&p);
  free_some(filled);
  prepares.calls = 0;
  CHECK_EQ(evloop_run_for_ns(p.loop, 50 * MS), 1);
  CHECK(prepares.calls < 20);
  expect_all_work(&p);
  leave_room_for_checkers();
}

/* ---- memory ---- */

/* The address space may not grow by more than this. */
static void limit_memory(rlim_t more) {
  static char line[200];
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL);
  CHECK(fgets(line, sizeof line, file) != NULL);
  CHECK_EQ(sscanf(line, "%lu", &pages), 1);
  fclose(file);
  struct rlimit limit;
  OK(getrlimit(RLIMIT_AS, &limit));
  limit.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + more;
  OK(setrlimit(RLIMIT_AS, &limit));
}

static void unlimit_memory(void) {
  struct rlimit limit;
  OK(getrlimit(RLIMIT_AS, &limit));
  limit.rlim_cur = limit.rlim_max;
  OK(setrlimit(RLIMIT_AS, &limit));
}

static void skip_where_memory_is_a_tools(void) {
  if (getenv("EVLOOP_TEST_VALGRIND") || getenv("EVLOOP_TEST_ASAN")) SKIP("the tool needs memory itself");
}

enum { LITTLE = 1024 * 1024, MUCH = 32 * LITTLE, TOO_MANY = 20 * 1000 * 1000 };

TEST_TIMEOUT(each_post_before_memory_ran_out_is_made, 60) {
  skip_where_memory_is_a_tools();
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  int posted = 0, result = 0;
  limit_memory(MUCH);
  while (posted < TOO_MANY && (result = evloop_post(loop, record, &seen)) == 0) posted++;
  CHECK_EQ(result, -ENOMEM);
  CHECK(posted > 1000);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(seen.calls, posted);
  CHECK_EQ(evloop_post(loop, record, &seen), 0);
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
  CHECK_EQ(seen.calls, posted + 1);
  unlimit_memory();
}

static int64_t add_async(evloop_t loop, Seen *seen) {
  return evloop_add_async(loop, record, seen);
}

static int64_t add_due_timer(evloop_t loop, Seen *seen) {
  return evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 0, 0, 0, record, seen);
}

/* Each on a descriptor of its own. */
static int64_t add_io(evloop_t loop, Seen *seen) {
  int fd = event_fd(1);
  int64_t watcher = evloop_add_io(loop, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLONESHOT, record, seen);
  if (watcher < 0) OK(close(fd));
  return watcher;
}

/* As many as there is room for work, can be closed, and make room again. */
static void use_up_memory(rlim_t memory, int64_t (*add)(evloop_t, Seen *), int is_ready) {
  skip_where_memory_is_a_tools();
  enum { ALL = 2000000 };
  static evloop_watcher_t watchers[ALL];
  evloop_t loop = new_loop();
  Seen seen = {.calls = 0};
  int count = 0;
  int64_t watcher = OK(add(loop, &seen));
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  limit_memory(memory);
  while (count < ALL && (watcher = add(loop, &seen)) >= 0) watchers[count++] = watcher;
  CHECK_ERR(watcher, ENOMEM);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), count);
  for (int i = 0; i < 10; i++) CHECK_ERR(add(loop, &seen), ENOMEM);
  unlimit_memory();
  while (is_ready && seen.calls < count) OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(seen.calls, is_ready ? count : 0);
  for (int i = 0; i < count; i++) CHECK_EQ(evloop_watcher_close(watchers[i], 0), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  CHECK_EQ(turn(loop), 0);
  OK(add(loop, &seen));
  CHECK_EQ(evloop_close(loop), 0);
}

TEST_TIMEOUT(asyncs_are_added_until_memory_runs_out, 60) {
  use_up_memory(MUCH, add_async, 0);
}

TEST_TIMEOUT(timers_are_added_until_memory_runs_out, 60) {
  use_up_memory(MUCH, add_due_timer, 1);
}

TEST_TIMEOUT(io_watchers_are_added_until_memory_runs_out, 60) {
  /* A watcher takes more than 64 bytes, and a descriptor. */
  need_descriptors(LITTLE / 64);
  use_up_memory(LITTLE, add_io, 1);
}

static void *volatile taken; /* of no use, but a compiler must not see that */

/* Without any memory a run does what it can, or says so; nothing is lost. */
TEST(a_loop_without_memory_loses_nothing) {
  skip_where_memory_is_a_tools();
  Parts p;
  open_parts(&p);
  expect_all_work(&p);
  CHECK_EQ(evloop_timer_set(p.timer_watcher, 0, MS, MS), 0);
  limit_memory(0);
  while ((taken = malloc(100000)) != NULL) { }
  while ((taken = malloc(10)) != NULL) { }
  int io = p.io.calls, timer = p.timer.calls, async = p.async.calls;
  put(p.pipe.w);
  CHECK_EQ(evloop_async_send(p.async_watcher), 0);
  /* Not ONCE: a periodic timer may wait for memory, and nothing else come. */
  for (int i = 0; i < 10; i++) {
    int64_t result = evloop_run_for_ns(p.loop, MS);
    CHECK(result == 1 || result == -ENOMEM);
  }
  int64_t result = 0;
  for (int i = 0; i < TOO_MANY && result >= 0; i++) result = evloop_add_async(p.loop, record,
                                                                              &p.async);
  CHECK_ERR(result, ENOMEM);
  unlimit_memory();
  while (p.io.calls == io || p.timer.calls == timer || p.async.calls == async) {
    CHECK_EQ(evloop_run(p.loop, EVLOOP_RUN_ONCE), 1);
  }
  CHECK_EQ(p.io.calls, io + 1);
  CHECK_EQ(p.async.calls, async + 1);
}

/* In kilobytes, of anonymous memory. */
static long resident(void) {
  char line[128];
  long kilobytes = 0;
  FILE *status = fopen("/proc/self/status", "r");
  CHECK(status != NULL);
  while (fgets(line, sizeof line, status) != NULL)
    if (sscanf(line, "RssAnon: %ld", &kilobytes) == 1) break;
  OK(fclose(status));
  CHECK(kilobytes > 0);
  return kilobytes;
}

/* 64 bytes each, and some more. */
TEST_TIMEOUT(the_memory_of_closed_watchers_goes_back_to_the_system, 60) {
  enum { MANY = 300000, OF_RECORDS_KB = MANY / 1024 * 64 };
  evloop_t loop = new_loop();
  evloop_watcher_t *watchers = (evloop_watcher_t *)malloc(MANY * sizeof *watchers);
  CHECK(watchers != NULL);
  memset(watchers, 1, MANY * sizeof *watchers);
  skip_where_memory_is_a_tools();
  long before = resident();
  for (int i = 0; i < MANY; i++) watchers[i] = OK(evloop_add_async(loop, record, NULL));
  CHECK(resident() > before + OF_RECORDS_KB);
  for (int i = 0; i < MANY; i++) OK(evloop_watcher_close(watchers[i], 0));
  CHECK(resident() < before + OF_RECORDS_KB / 4);
  free(watchers);
}

enum { NAMES = 50000, OF_A_NAME = 400, OF_NAMES_KB = NAMES / 1024 * OF_A_NAME };

static int requests;

/* Closes its watcher, and makes the next one, with a name. */
static void next_request(const evloop_event_t *event, void *user_data) {
  static char name[OF_A_NAME];
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  memset(name, 'n', sizeof name - 1);
  if (event != NULL) close_watcher(event->watcher);
  if (++requests > NAMES) return;
  OK(evloop_watcher_set_name(timer(loop, 0, 0, next_request, user_data), name));
}

TEST_TIMEOUT(the_names_of_closed_watchers_are_forgotten_during_the_run, 60) {
  evloop_t loop = new_loop();
  skip_where_memory_is_a_tools();
  long before = resident();
  next_request(NULL, as_data(loop));
  timer(loop, 0, 0, ignore, NULL);
  run_to_end(loop);
  CHECK(resident() < before + OF_NAMES_KB / 4);
  close_loop(loop);
}

TEST_TIMEOUT(the_names_of_closed_watchers_of_a_loop_that_is_not_run_are_forgotten, 60) {
  evloop_t loop = new_loop();
  static char name[OF_A_NAME];
  memset(name, 'n', sizeof name - 1);
  skip_where_memory_is_a_tools();
  long before = resident();
  for (int i = 0; i < NAMES; i++) {
    evloop_watcher_t watcher = timer(loop, HOUR, 0, ignore, NULL);
    OK(evloop_watcher_set_name(watcher, name));
    close_watcher(watcher);
  }
  CHECK(resident() < before + OF_NAMES_KB / 4);
  close_loop(loop);
}

/* ---- what signal watchers take ---- */

static long resident_kb(void) {
  long pages = 0, resident = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL);
  CHECK_EQ(fscanf(file, "%ld %ld", &pages, &resident), 2);
  fclose(file);
  return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

TEST(memory_of_signal_watchers_is_given_back) {
  enum { LOOPS = 400 };
  static evloop_t loops[LOOPS];
  int numbers[] = {SIGUSR1, SIGRTMIN + 3};
  for (int n = 0; AT_ROW(n, numbers); n++) {
    signal(numbers[n], SIG_IGN);
    long before = resident_kb();
    for (int i = 0; i < LOOPS; i++) {
      loops[i] = new_loop();
      for (int w = 0; w < 20; w++) {
        OK(evloop_add_signal(loops[i], numbers[n], 0, ignore, NULL));
      }
    }
    /* Each signal waits with all of them. */
    for (int i = 0; i < 500; i++) raise(numbers[n]);
    for (int i = 0; i < LOOPS; i++) CHECK_EQ(evloop_close(loops[i]), 0);
    CHECK(resident_kb() - before < 16000);
  }
}

/* Watchers of one signal in one loop share what waits for the loop. */
TEST(watchers_of_one_signal_share_their_memory) {
  signal(SIGRTMIN + 3, SIG_IGN);
  evloop_t loop = new_loop();
  long before = resident_kb();
  for (int i = 0; i < 5000; i++) OK(evloop_add_signal(loop, SIGRTMIN + 3, 0, ignore, NULL));
  for (int i = 0; i < 10; i++) raise(SIGRTMIN + 3);
  turn(loop);
  /* What came with the events is kept until the next wait. */
  turn(loop);
  CHECK(resident_kb() - before < 32000);
  close_loop(loop);
}

CHECK_MAIN()
