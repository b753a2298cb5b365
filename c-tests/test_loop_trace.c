/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Traces: what is in the file, what is missing, what goes wrong. */

#define _GNU_SOURCE 1
#include "answered_calls.h"
#include "loop_support.h"

#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>

/* ---- reading the file: JSON, as strict as it is written ---- */

static char *at; /* what is not read yet */

static void space(void) {
  at += strspn(at, " \n");
}

static void expect_char(char c) {
  space();
  CHECK_EQ(*at, c);
  at++;
}

/* A string, decoded as far as these tests need it. */
static void string(char *out, size_t cap) {
  size_t len = 0;
  unsigned code;
  expect_char('"');
  while (*at != '"') {
    CHECK((unsigned char)*at >= 0x20);
    if (*at == '\\' && at[1] == 'u') {
      CHECK_EQ(sscanf(at + 2, "%4x", &code), 1);
      at += 5;
      CHECK(code < 0x80);
    } else {
      if (*at == '\\') {
        at++;
        CHECK(strchr("\"\\/bfnrt", *at) != NULL);
      }
      code = (unsigned char)*at;
    }
    at++;
    CHECK(len + 1 < cap);
    out[len++] = (char)code;
  }
  at++;
  out[len] = '\0';
}

/* An event of the file. */
typedef struct Slice {
  char ph[4], name[256], cat[32];
  int64_t ts, dur; /* ns */
  int pid, tid;
  int64_t watcher, found, late, dispatched;
  bool running;
} Slice;

static int64_t number(void) {
  char *end;
  double value = strtod(at, &end);
  CHECK(end > at);
  at = end;
  return (int64_t)(value * 1000 + (value < 0 ? -0.5 : 0.5));
}

static void object(Slice *slice);

static void value(const char *key, Slice *slice) {
  space();
  if (strcmp(key, "ph") == 0) string(slice->ph, sizeof slice->ph);
  else if (strcmp(key, "name") == 0) string(slice->name, sizeof slice->name);
  else if (strcmp(key, "cat") == 0) string(slice->cat, sizeof slice->cat);
  else if (strcmp(key, "ts") == 0) slice->ts = number();
  else if (strcmp(key, "dur") == 0) slice->dur = number();
  else if (strcmp(key, "late_us") == 0) slice->late = number();
  else if (strcmp(key, "pid") == 0) slice->pid = (int)(number() / 1000);
  else if (strcmp(key, "tid") == 0) slice->tid = (int)(number() / 1000);
  else if (strcmp(key, "found") == 0) slice->found = number() / 1000;
  else if (strcmp(key, "dispatched") == 0) slice->dispatched = number() / 1000;
  else if (strcmp(key, "watcher") == 0) slice->watcher = strtoll(at, &at, 10);
  else if (strncmp(at, "true", 4) == 0) {
    at += 4;
    slice->running = true;
  } else if (*at == '{') {
    Slice inner = *slice;
    inner.name[0] = '\0';
    object(&inner);
    slice->watcher = inner.watcher, slice->found = inner.found, slice->late = inner.late;
    slice->running = inner.running;
    slice->dispatched = inner.dispatched;
  } else if (*at == '"') {
    char text[256];
    string(text, sizeof text);
  } else {
    number();
  }
}

static void object(Slice *slice) {
  char key[64];
  expect_char('{');
  space();
  while (*at != '}') {
    string(key, sizeof key);
    expect_char(':');
    value(key, slice);
    space();
    if (*at == ',') at++;
    else CHECK_EQ(*at, '}');
    space();
  }
  at++;
}

static Slice *slices;
static int slice_count;

static char *contents(const char *path) {
  FILE *file = fopen(path, "r");
  char *text = (char *)calloc(1, 8 << 20);
  CHECK(file != NULL);
  CHECK(text != NULL);
  CHECK(fread(text, 1, (8 << 20) - 1, file) < (8 << 20) - 1);
  fclose(file);
  return text;
}

/* Reads all of a file, or the case has failed. */
static void load(const char *path) {
  Slice other;
  char key[64], *text = contents(path);
  at = text;
  slice_count = 0;
  slices = (Slice *)calloc(20000, sizeof *slices);
  expect_char('{');
  for (;;) {
    string(key, sizeof key);
    expect_char(':');
    space();
    if (strcmp(key, "traceEvents") == 0) break;
    value(key, &other);
    expect_char(',');
  }
  expect_char('[');
  for (;;) {
    CHECK(slice_count < 20000);
    object(&slices[slice_count++]);
    space();
    if (*at == ']') break;
    expect_char(',');
  }
  at++;
  expect_char('}');
  space();
  CHECK_EQ(*at, '\0');
  free(text);
}

static int count(const char *name) {
  int found = 0, i;
  for (i = 0; i < slice_count; i++) found += strcmp(slices[i].name, name) == 0;
  return found;
}

static const Slice *the(const char *name) {
  int i;
  CHECK_EQ(count(name), 1);
  for (i = 0; strcmp(slices[i].name, name) != 0;) i++;
  return &slices[i];
}

/* Slices of a thread follow, or contain, each other. */
static void check_nesting(void) {
  int64_t ends[16];
  int depth = 0, i;
  for (i = 0; i < slice_count; i++) {
    const Slice *one = &slices[i];
    if (strcmp(one->ph, "X") != 0) continue;
    CHECK_EQ(one->pid, getpid());
    CHECK(one->dur >= 0);
    while (depth > 0 && ends[depth - 1] <= one->ts) depth--;
    CHECK(depth == 0 || one->ts + one->dur <= ends[depth - 1]);
    CHECK(depth < 3);
    ends[depth++] = one->ts + one->dur;
  }
}

static char path[64];

/* A file that does not exist yet. */
static const char *new_path(void) {
  snprintf(path, sizeof path, "/tmp/evloop-trace-XXXXXX");
  OK(close((int)OK(mkstemp(path))));
  OK(unlink(path));
  return path;
}

static void stop_and_load(evloop_t loop) {
  CHECK_EQ(evloop_trace_stop(loop), 0);
  load(path);
  OK(unlink(path));
  check_nesting();
}

/* ---- what is in it ---- */

static void spin(const evloop_event_t *event, void *user_data) {
  int64_t end = now_ns(CLOCK_MONOTONIC) + (intptr_t)user_data;
  (void)event;
  while (now_ns(CLOCK_MONOTONIC) < end) continue;
}

TEST(a_trace_has_waits_iterations_and_callbacks_by_their_names) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t io, nameless;
  int64_t due = now_ns(CLOCK_MONOTONIC) + 20 * MS * slow_factor();
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  OK(evloop_watcher_set_name(timer_at(loop, due, spin, as_data(3 * MS)), "three ms"));
  nameless = timer_at(loop, due, ignore, NULL);
  io = readable_io(loop, event_fd(1), record_and_close, &seen);
  OK(evloop_watcher_set_name(io, "the io watcher"));
  OK(evloop_post(loop, record, &seen));
  run_to_end(loop);
  stop_and_load(loop);
  CHECK(the("three ms")->dur >= 3 * MS);
  CHECK(the("three ms")->ts >= due);
  CHECK_EQ(strcmp(the("three ms")->cat, "timer"), 0);
  CHECK_EQ(the("the io watcher")->watcher, io);
  CHECK_EQ(strcmp(the("the io watcher")->cat, "io"), 0);
  CHECK_EQ(the("the io watcher")->tid, (int)syscall(SYS_gettid));
  CHECK_EQ(strcmp(the("post")->cat, "post"), 0);
  CHECK(count("wait") + count("look") >= 1);
  CHECK(count("iteration") >= 1);
  CHECK_EQ(count("thread_name"), 1);
  CHECK_EQ(count("process_name"), 1);
  snprintf(path, sizeof path, "timer %" PRId64, nameless);
  CHECK_EQ(the(path)->watcher, nameless);
  CHECK(the(path)->late >= 2 * MS);
  close_loop(loop);
}

TEST(odd_names_are_escaped) {
  const char *odd = "a \"quoted\" \\ name\n\t\x01, {}[]: \x7f";
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), odd));
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), "\xff\xfe broken"));
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), "Grüße"));
  run_to_end(loop);
  stop_and_load(loop);
  the(odd);
  the("\xef\xbf\xbd\xef\xbf\xbd broken");
  the("Grüße");
  close_loop(loop);
}

TEST(a_file_has_no_more_bytes_than_its_events_may_take) {
  enum { KEPT = 50, EACH = 1200, MORE = 2400, LONG = 1 << 20 };
  static const char bytes[] = {'x', 1, '"', '\\', (char)0xff};
  static char name[LONG];
  struct stat st;
  for (int i = 0; AT_ROW(i, bytes); i++) {
    evloop_t loop = new_loop();
    memset(name, bytes[i], LONG - 1);
    CHECK_EQ(evloop_trace_start(loop, new_path(), KEPT), 0);
    evloop_watcher_t watcher = timer(loop, 0, 1, i % 2 == 0 ? ignore : record_and_close,
                                     &(Seen){0});
    OK(evloop_watcher_set_name(watcher, name));
    OK(evloop_watcher_unref(watcher));
    for (int n = 0; n < 2 * KEPT; n++) turn(loop);
    OK(evloop_trace_stop(loop));
    OK(stat(path, &st));
    CHECK(st.st_size <= KEPT * EACH + MORE);
    load(path);
    free(slices);
    OK(unlink(path));
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(only_the_last_events_are_kept_and_the_file_says_how_many_are_missing) {
  enum { KEPT = 50, TIMERS = 200 };
  char note[64];
  int i, before;
  int64_t dropped;
  evloop_t loop = new_loop();
  for (i = 0; i < TIMERS; i++) timer(loop, 0, 0, ignore, NULL);
  OK(evloop_watcher_set_name(timer(loop, MS, 0, ignore, NULL), "the last"));
  CHECK_EQ(evloop_trace_start(loop, new_path(), KEPT), 0);
  run_to_end(loop);
  dropped = OK(evloop_trace_stop(loop));
  CHECK(dropped >= TIMERS - KEPT);
  load(path);
  check_nesting();
  the("the last");
  snprintf(note, sizeof note, "%" PRId64 " earlier events were dropped", dropped);
  the(note);
  for (before = 0, i = 0; i < slice_count; i++) before += strcmp(slices[i].ph, "X") == 0;
  CHECK_EQ(before, KEPT);
  OK(unlink(path));
  close_loop(loop);
}

/* Closes its watcher, and makes another one, so many times. */
typedef struct Requests {
  evloop_t loop;
  int made, most;
} Requests;

static void request(const evloop_event_t *event, void *user_data) {
  Requests *requests = (Requests *)user_data;
  char name[64];
  if (event != NULL) close_watcher(event->watcher);
  if (requests->made == requests->most) return;
  snprintf(name, sizeof name, "request %d", requests->made++);
  OK(evloop_watcher_set_name(timer(requests->loop, 0, 0, request, requests), name));
}

TEST(the_last_watchers_to_be_closed_have_names) {
  static Requests requests;
  int i, timers = 0;
  requests.loop = new_loop();
  requests.most = 200;
  CHECK_EQ(evloop_trace_start(requests.loop, new_path(), 20), 0);
  request(NULL, &requests);
  run_to_end(requests.loop);
  CHECK(evloop_trace_stop(requests.loop) > 0);
  load(path);
  OK(unlink(path));
  the("request 199");
  for (i = 0; i < slice_count; i++) {
    if (strcmp(slices[i].cat, "timer") != 0) continue;
    CHECK_EQ(strncmp(slices[i].name, "request ", 8), 0);
    timers++;
  }
  CHECK(timers >= 3);
  close_loop(requests.loop);
}

TEST(iterations_begin_with_the_end_of_a_wait) {
  Seen seen;
  evloop_t loop = new_loop();
  int i, iterations = 0, waits = 0;
  memset(&seen, 0, sizeof seen);
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  for (i = 0; i < 5; i++) {
    OK(evloop_post(loop, record, &seen));
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 0);
  }
  for (i = 0; i < 5; i++) {
    OK(evloop_post(loop, record, &seen));
    OK(evloop_embed_prepare(loop));
    OK(evloop_embed_dispatch(loop));
  }
  stop_and_load(loop);
  CHECK_EQ(seen.calls, 10);
  for (i = 0; i < slice_count; i++) {
    waits += strcmp(slices[i].cat, "wait") == 0 || strcmp(slices[i].cat, "look") == 0;
    if (strcmp(slices[i].cat, "iteration") != 0) continue;
    CHECK_EQ(slices[i].dispatched, 1);
    iterations++;
  }
  CHECK_EQ(iterations, 10);
  CHECK_EQ(waits, 10);
  close_loop(loop);
}

TEST(a_callback_that_is_stuck_is_in_the_trace) {
  static Gate gate;
  Runner runner;
  evloop_t loop = running_loop(&runner, false);
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  go_round(loop);
  hold(loop, &gate);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  open_gate(&gate);
  load(path);
  OK(unlink(path));
  CHECK(slices[slice_count - 1].running);
  CHECK_EQ(strcmp(slices[slice_count - 1].name, "post"), 0);
  CHECK_EQ(slices[slice_count - 1].tid, runner.tid);
  stop_runner(&runner);
  close_loop(loop);
}

static void start_trace(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_trace_start((evloop_t)(intptr_t)user_data, path, 1000), 0);
}

static void stop_trace(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_trace_stop((evloop_t)(intptr_t)user_data), 0);
}

TEST(a_trace_is_started_and_stopped_in_callbacks) {
  evloop_t loop = new_loop();
  new_path();
  timer(loop, 0, 0, start_trace, as_data(loop));
  OK(evloop_watcher_set_name(timer(loop, MS, 0, ignore, NULL), "between"));
  OK(evloop_watcher_set_name(timer(loop, 2 * MS, 0, stop_trace, as_data(loop)), "stops"));
  timer(loop, 3 * MS, 0, ignore, NULL);
  run_to_end(loop);
  load(path);
  OK(unlink(path));
  check_nesting();
  the("between");
  CHECK(the("stops")->running);
  close_loop(loop);
}

TEST(a_trace_is_written_when_its_loop_is_closed) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), "once"));
  run_to_end(loop);
  close_loop(loop);
  load(path);
  OK(unlink(path));
  the("once");
}

TEST(a_trace_goes_into_a_descriptor) {
  FILE *file = tmpfile();
  int fd = fileno(file);
  char link[64];
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_trace_start_fd(loop, fd, 0), 0);
  run_to_end(loop);
  turn(loop);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  load(link);
  CHECK(count("look") >= 1);
  close_loop(loop);
}

TEST(each_thread_that_runs_the_loop_has_a_tid_of_its_own) {
  Runner runner;
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), "first"));
  run_to_end(loop);
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), "second"));
  start_runner(&runner, run_until_done, loop);
  CHECK_EQ(runner_result(&runner), 0);
  stop_and_load(loop);
  CHECK_EQ(the("first")->tid, (int)syscall(SYS_gettid));
  CHECK_EQ(the("second")->tid, runner.tid);
  close_loop(loop);
}

/* ---- what goes wrong ---- */

TEST(wrong_arguments_of_a_trace_are_refused) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = keep_alive(loop);
  int before = open_descriptors();
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  CHECK_ERR(evloop_trace_start(loop, NULL, 0), EINVAL);
  CHECK_ERR(evloop_trace_start(loop, new_path(), -1), EINVAL);
  CHECK_ERR(evloop_trace_start(loop, "/nonexistent/trace.json", 0), ENOENT);
  CHECK_ERR(evloop_trace_start(loop, "/tmp", 0), EISDIR);
  CHECK_ERR(evloop_trace_start(watcher, path, 0), EDOM);
  CHECK_ERR(evloop_trace_start(0, path, 0), ESTALE);
  CHECK_ERR(evloop_trace_start_fd(loop, -1, 0), EBADF);
  CHECK_ERR(evloop_trace_start_fd(loop, CLOSED, 0), EBADF);
  CHECK_ERR(evloop_trace_start_fd(loop, new_pipe().r, 0), EBADF);
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  CHECK_ERR(access(path, F_OK) == 0 ? 0 : -ENOENT, ENOENT);
  CHECK_EQ(open_descriptors(), before + 2);
  CHECK_EQ(evloop_trace_start(loop, path, 0), 0);
  CHECK_ERR(evloop_trace_start(loop, "/tmp/evloop-not-made", 0), EEXIST);
  CHECK(access("/tmp/evloop-not-made", F_OK) < 0);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  OK(unlink(path));
  close_loop(loop);
}

static void expect_refused(evloop_t loop, const char *where, int error) {
  char sentence[200];
  int before = open_descriptors();
  CHECK_EQ(evloop_trace_start(loop, where, 0), -error);
  CHECK_EQ(open_descriptors(), before);
  CHECK(evloop_last_error(sentence, sizeof sentence) > 0);
  CHECK(strncmp(sentence, "evloop_trace_start: ", 20) == 0);
}

TEST(paths_to_which_no_trace_is_written_are_refused) {
  evloop_t loop = new_loop();
  char other[80], longer[5000];
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  new_path();
  snprintf(other, sizeof other, "%s.other", path);
  /* A link to what is not there, and to a file. */
  OK(symlink(other, path));
  expect_refused(loop, path, ELOOP);
  CHECK(access(other, F_OK) < 0);
  OK(close((int)OK(open(other, O_WRONLY | O_CREAT | O_CLOEXEC, 0600))));
  expect_refused(loop, path, ELOOP);
  snprintf(longer, sizeof longer, "%s/x", other);
  expect_refused(loop, longer, ENOTDIR);
  OK(unlink(path));
  OK(unlink(other));
  expect_refused(loop, "", ENOENT);
  expect_refused(loop, "/tmp", EISDIR);
  memset(longer, 'p', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  expect_refused(loop, longer, ENAMETOOLONG);
  int listener = (int)OK(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
  OK(bind(listener, (struct sockaddr *)&address, sizeof address));
  expect_refused(loop, path, ENXIO);
  OK(unlink(path));
  close_loop(loop);
}

TEST(a_fifo_without_a_reader_is_not_waited_for) {
  evloop_t loop = new_loop();
  char byte;
  OK(mkfifo(new_path(), 0600));
  expect_refused(loop, path, ENXIO);
  int fd = (int)OK(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  CHECK_EQ(evloop_trace_start(loop, path, 0), 0);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  CHECK_EQ(read(fd, &byte, 1), 1);
  CHECK_EQ(byte, '{');
  OK(unlink(path));
  close_loop(loop);
}

TEST(a_lease_is_not_waited_for) {
  evloop_t loop = new_loop();
  CHECK(signal(SIGIO, SIG_IGN) != SIG_ERR);
  OK(close((int)OK(open(new_path(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600))));
  int fd = (int)OK(open(path, O_RDONLY | O_CLOEXEC));
  if (fcntl(fd, F_SETLEASE, F_RDLCK) < 0) {
    OK(unlink(path));
    SKIP("no leases here");
  }
  expect_refused(loop, path, EBUSY);
  OK(fcntl(fd, F_SETLEASE, F_UNLCK));
  CHECK_EQ(evloop_trace_start(loop, path, 0), 0);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  OK(unlink(path));
  close_loop(loop);
}

TEST(who_may_not_write_to_a_file_makes_no_trace_of_it) {
  evloop_t loop = new_loop();
  OK(close((int)OK(open(new_path(), O_WRONLY | O_CREAT | O_CLOEXEC, 0400))));
  if (geteuid() == 0) OK(seteuid(65534));
  expect_refused(loop, path, EACCES);
  expect_refused(loop, "/evloop-trace.json", EACCES);
  if (getuid() == 0) OK(seteuid(0));
  OK(unlink(path));
  close_loop(loop);
}

TEST(only_its_user_may_read_a_trace) {
  struct stat st;
  evloop_t loop = new_loop();
  umask(0);
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  OK(stat(path, &st));
  CHECK_EQ(st.st_mode & 07777, 0600);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  OK(unlink(path));
  close_loop(loop);
}

static int held; /* atomic */

/* As a slow disk would have it. */
static void *start_slowly(void *argument) {
  STORE(held, hold_calls(SYS_openat, path));
  CHECK_EQ(evloop_trace_start(*(evloop_t *)argument, path, 10), 0);
  return NULL;
}

/* valgrind knows no filters of system calls. */
TEST_WITHOUT_VALGRIND(while_a_trace_is_being_started_no_other_file_is_emptied, 20) {
  evloop_t loop = new_loop();
  char byte, other[80];
  new_path();
  pthread_t thread = start_thread(start_slowly, &loop);
  UNTIL(LOAD(held) != 0);
  struct seccomp_notif opening = await_call(held);
  snprintf(other, sizeof other, "%s.other", path);
  CHECK_ERR(evloop_trace_start(loop, other, 0), EEXIST);
  CHECK(access(other, F_OK) < 0);
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  let_go_on(held, &opening);
  join(thread);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  int fd = (int)OK(open(path, O_RDONLY | O_CLOEXEC));
  CHECK_EQ(read(fd, &byte, 1), 1);
  CHECK_EQ(byte, '{');
  OK(unlink(path));
  close_loop(loop);
}

TEST(a_trace_that_cannot_be_started_does_not_keep_the_next_one_out) {
  evloop_t loop = new_loop();
  CHECK_ERR(evloop_trace_start(loop, "/nonexistent/trace.json", 0), ENOENT);
  CHECK_EQ(evloop_trace_start(loop, "/dev/null", 0), 0);
  CHECK_EQ(evloop_trace_stop(loop), 0);
  close_loop(loop);
}

TEST(a_full_disk_is_reported_and_the_trace_has_ended) {
  evloop_t loop = new_loop();
  int before = open_descriptors();
  CHECK_EQ(evloop_trace_start(loop, "/dev/full", 0), 0);
  turns(loop, 3);
  CHECK_ERR(evloop_trace_stop(loop), ENOSPC);
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  CHECK_EQ(open_descriptors(), before);
  close_loop(loop);
}

TEST(without_a_descriptor_left_a_trace_is_refused) {
  evloop_t loop = new_loop();
  set_limit((rlim_t)OK(dup(0)));
  CHECK_ERR(evloop_trace_start(loop, "/dev/null", 0), EMFILE);
  CHECK_ERR(evloop_trace_stop(loop), ENOENT);
  close_loop(loop);
  leave_room_for_checkers();
}

TEST(a_forked_child_does_not_write_to_its_parents_file) {
  evloop_t loop = new_loop();
  int status;
  CHECK_EQ(evloop_trace_start(loop, new_path(), 0), 0);
  OK(evloop_watcher_set_name(timer(loop, 0, 0, ignore, NULL), "the parent's"));
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_ERR(evloop_trace_stop(loop), ECHILD);
    CHECK_EQ(evloop_after_fork(loop), 0);
    CHECK_ERR(evloop_trace_stop(loop), ENOENT);
    run_to_end(loop);
    CHECK_EQ(evloop_close(loop), 0);
    exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  run_to_end(loop);
  stop_and_load(loop);
  the("the parent's");
  close_loop(loop);
}

CHECK_MAIN()
