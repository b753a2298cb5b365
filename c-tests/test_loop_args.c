/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The event loop's functions with handles and arguments that are wrong: the
 * code, the sentence of evloop_last_error(), and nothing else happens. */

#define _GNU_SOURCE
#include "loop_support.h"

#include <limits.h>

static char name_buffer[8];
static evloop_event_t one_event;
static int a_descriptor, a_file;
static tfd_t a_timer;
static evloop_kqueue_t a_queue;
static evloop_stats_t stats = {.size = sizeof stats};

/* ---- every function ---- */

typedef struct Function {
  const char *name;
  int64_t (*call)(int64_t handle);
  int silent; /* safe in a signal handler: sets no sentence */
} Function;

#define CALL(name, ...) \
  static int64_t call_##name(int64_t h) { return name(__VA_ARGS__); }

CALL(evloop_run, h, EVLOOP_RUN_NOWAIT)
CALL(evloop_run_for_ns, h, 0)
CALL(evloop_wait, h, &one_event, 1, 0)
CALL(evloop_stop, h)
CALL(evloop_wakeup, h)
CALL(evloop_post, h, log_word, WORD(""))
CALL(evloop_now_ns, h)
CALL(evloop_advance_ns, h, 0)
CALL(evloop_next_timeout_ns, h)
CALL(evloop_fileno, h)
CALL(evloop_embed_prepare, h)
CALL(evloop_embed_dispatch, h)
CALL(evloop_after_fork, h)
CALL(evloop_add_io, h, a_descriptor, EVLOOP_EPOLLIN, record, NULL)
CALL(evloop_add_timer, h, EVLOOP_CLOCK_MONOTONIC, 0, SECOND, 0, 0, record, NULL)
CALL(evloop_add_tfd, h, a_timer, record, NULL)
CALL(evloop_add_async, h, record, NULL)
CALL(evloop_add_idle, h, record, NULL)
CALL(evloop_add_prepare, h, record, NULL)
CALL(evloop_add_check, h, record, NULL)
CALL(evloop_add_defer, h, record, NULL)
CALL(evloop_add_exit, h, record, NULL)
CALL(evloop_add_clock_change, h, record, NULL)
CALL(evloop_add_file, h, "/", EVLOOP_FILE_CREATE, 0, record, NULL)
CALL(evloop_add_file_fd, h, a_descriptor, EVLOOP_FILE_MODIFY, 0, record, NULL)
CALL(evloop_add_memory_pressure, h, NULL, EVLOOP_PRESSURE_SOME, MS, 2 * SECOND, record, NULL)
CALL(evloop_add_kqueue, h, a_queue, record, NULL)
CALL(evloop_add_signal, h, SIGUSR1, 0, record, NULL)
CALL(evloop_add_process, h, getpid(), 0, record, NULL)
CALL(evloop_set_stats, h, 1)
CALL(evloop_stats, h, &stats)
CALL(evloop_stats_reset, h)
CALL(evloop_stats_histogram, h, EVLOOP_STATS_CALLBACK, NULL, 0)
CALL(evloop_stats_percentile_ns, h, EVLOOP_STATS_CALLBACK, 50)
CALL(evloop_trace_start, h, "/dev/null", 0)
CALL(evloop_trace_stop, h)
CALL(evloop_trace_start_fd, h, a_file, 0)
CALL(evloop_set_watchdog, h, 0, NULL, NULL)
CALL(evloop_post_full, h, log_word, WORD(""), NULL)
CALL(evloop_after, h, SECOND, record, NULL)
CALL(evloop_every, h, SECOND, record, NULL)
CALL(evloop_limit_wait_ns, h, SECOND)
CALL(evloop_set_busy_poll, h, 0, 0, 0)
CALL(evloop_virtual_hold, h, 1)
CALL(evloop_alive, h)
CALL(evloop_watchers, h, NULL, 0)
CALL(evloop_find_io, h, a_descriptor)
CALL(evloop_dump, h, a_file)
CALL(evloop_close, h)

#define ROW(name) {#name, call_##name, 0}
#define SILENT(name) {#name, call_##name, 1}

static const Function loop_functions[] = {
    ROW(evloop_run),           ROW(evloop_run_for_ns),      ROW(evloop_wait),
    SILENT(evloop_stop),       SILENT(evloop_wakeup),       ROW(evloop_post),
    ROW(evloop_now_ns),        ROW(evloop_advance_ns),      ROW(evloop_next_timeout_ns),
    ROW(evloop_fileno),        ROW(evloop_embed_prepare),   ROW(evloop_embed_dispatch),
    ROW(evloop_after_fork),    ROW(evloop_add_io),          ROW(evloop_add_timer),
    ROW(evloop_add_tfd),       ROW(evloop_add_async),       ROW(evloop_add_idle),
    ROW(evloop_add_prepare),   ROW(evloop_add_check),       ROW(evloop_add_defer),
    ROW(evloop_add_exit),      ROW(evloop_add_clock_change), ROW(evloop_add_file),
    ROW(evloop_add_file_fd),   ROW(evloop_add_memory_pressure), ROW(evloop_add_kqueue),
    ROW(evloop_add_signal),    ROW(evloop_add_process),     ROW(evloop_set_stats),
    ROW(evloop_stats),         ROW(evloop_stats_reset),     ROW(evloop_stats_histogram),
    ROW(evloop_stats_percentile_ns), ROW(evloop_trace_start), ROW(evloop_trace_stop),
    ROW(evloop_trace_start_fd), ROW(evloop_set_watchdog),   ROW(evloop_alive),
    ROW(evloop_watchers),      ROW(evloop_find_io),         ROW(evloop_dump),
    ROW(evloop_virtual_hold),  ROW(evloop_post_full),       ROW(evloop_after),
    ROW(evloop_every),         ROW(evloop_limit_wait_ns),   ROW(evloop_set_busy_poll),
    ROW(evloop_close)};

CALL(evloop_io_modify, h, EVLOOP_EPOLLIN)
CALL(evloop_timer_set, h, 0, SECOND, 0)
CALL(evloop_timer_again, h)
CALL(evloop_timer_remaining_ns, h)
CALL(evloop_async_send, h)
CALL(evloop_watcher_enable, h)
CALL(evloop_watcher_disable, h)
CALL(evloop_watcher_set_priority, h, 1)
CALL(evloop_watcher_set_ratelimit, h, 0, 0)
CALL(evloop_watcher_set_name, h, "name")
CALL(evloop_watcher_get_name, h, name_buffer, sizeof name_buffer)
CALL(evloop_watcher_set_data, h, 1)
CALL(evloop_watcher_ref, h)
CALL(evloop_watcher_unref, h)
CALL(evloop_watcher_loop, h)
CALL(evloop_watcher_set_destroy, h, record, NULL)
static evloop_watcher_info_t info = {.size = sizeof info};
CALL(evloop_watcher_info, h, &info)
CALL(evloop_io_set, h, EVLOOP_EPOLLIN)
CALL(evloop_timer_set_tolerance, h, 1)
CALL(evloop_watcher_close, h, 0)

static const evloop_event_t *event_of(int type, int64_t watcher) {
  one_event.type = type;
  one_event.watcher = watcher;
  return &one_event;
}

static evloop_siginfo_t siginfo;
static evloop_process_t process;
CALL(evloop_event_name, event_of(EVLOOP_EVENT_FILE, h), name_buffer, sizeof name_buffer)
CALL(evloop_event_old_name, event_of(EVLOOP_EVENT_FILE, h), name_buffer, sizeof name_buffer)
CALL(evloop_event_siginfo, event_of(EVLOOP_EVENT_SIGNAL, h), &siginfo)
CALL(evloop_event_process, event_of(EVLOOP_EVENT_PROCESS, h), &process)

static const Function watcher_functions[] = {
    ROW(evloop_io_modify),           ROW(evloop_timer_set),           ROW(evloop_timer_again),
    ROW(evloop_timer_remaining_ns),  SILENT(evloop_async_send),       ROW(evloop_watcher_enable),
    ROW(evloop_watcher_disable),     ROW(evloop_watcher_set_priority), ROW(evloop_watcher_set_ratelimit),
    ROW(evloop_watcher_set_name),    ROW(evloop_watcher_get_name),    ROW(evloop_watcher_set_data),
    ROW(evloop_watcher_ref),         ROW(evloop_watcher_unref),       ROW(evloop_watcher_loop),
    ROW(evloop_watcher_set_destroy), ROW(evloop_event_name),          ROW(evloop_event_old_name),
    ROW(evloop_event_siginfo),       ROW(evloop_event_process),       ROW(evloop_watcher_info),
    ROW(evloop_io_set),              ROW(evloop_timer_set_tolerance),
    ROW(evloop_watcher_close)};

/* ---- failing ---- */

/* Another failure than those of the tests. */
static void set_sentence(void) {
  CHECK_ERR(evloop_handle_count(-77), EINVAL);
}

static void expect_sentence(const char *function, const char *code) {
  char sentence[300];
  int length = (int)OK(evloop_last_error(sentence, sizeof sentence));
  CHECK_EQ(length, strlen(sentence));
  if (strncmp(sentence, function, strlen(function)) == 0 && sentence[strlen(function)] == ':' &&
      strstr(sentence, code) != NULL) {
    return;
  }
  printf("  %s, %s: the sentence is '%s'\n", function, code, sentence);
  check_exit();
}

/* Fails with that code and sentence, and leaves errno alone. */
static void expect_failure(const Function *function, int64_t handle, int code, const char *code_name) {
  set_sentence();
  errno = 4321;
  int64_t result = function->call(handle);
  if (result != -code) {
    printf("  %s(%" PRId64 "): %" PRId64 " %s\n", function->name, handle, result, check_text(result));
    check_exit();
  }
  CHECK_EQ(errno, 4321);
  /* What a constructor did not make is closed without a word. */
  bool is_no_handle = handle <= 0 && strstr(function->name, "_close") != NULL;
  if (function->silent || is_no_handle) expect_sentence("evloop_handle_count", "EINVAL");
  else expect_sentence(function->name, code_name);
}

#define ARGUMENT(call_, code)                       \
  do {                                              \
    set_sentence();                                 \
    CHECK_ERR(call_, code);                         \
    expect_sentence(name_of(#call_), #code);        \
  } while (0)

/* The function of a call that was written down. */
static const char *name_of(const char *call) {
  static char name[40];
  size_t length = strcspn(call, "(");
  CHECK(length < sizeof name);
  memcpy(name, call, length);
  name[length] = '\0';
  return name;
}

/* ---- handles ---- */

typedef struct Wrong {
  int64_t handle;
  int code;
  const char *name;
} Wrong;

static void make_arguments(void) {
  a_descriptor = event_fd(0);
  a_file = (int)OK(open("/dev/null", O_WRONLY | O_CLOEXEC));
  a_timer = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  a_queue = OK(evloop_kqueue_create(0));
}

static void expect_all_refuse(const Function *functions, int count, const Wrong *wrong, int wrongs) {
  make_arguments();
  for (int i = 0; i < count * wrongs; i++) {
    const Wrong *one = &wrong[i % wrongs];
    expect_failure(&functions[i / wrongs], one->handle, one->code, one->name);
  }
}

static int64_t stale(int64_t handle) {
  CHECK_EQ(evloop_handle_close(handle), 0);
  return handle;
}

#define STALE(handle) {handle, ESTALE, "ESTALE"}
#define OTHER(handle) {handle, EDOM, "EDOM"}

TEST(every_function_of_loops_refuses_what_is_no_loop) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = keep_alive(loop);
  const Wrong wrong[] = {
      STALE(0), STALE(-1), STALE(INT64_MIN), STALE(INT64_MAX), STALE(1), STALE((INT64_C(1) << 53) - 1),
      STALE(stale(new_loop())), STALE(stale(keep_alive(loop))), STALE(loop + (INT64_C(1) << 53)),
      OTHER(watcher), OTHER(OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0))), OTHER(OK(evloop_poll_create())),
      OTHER(OK(evloop_epoll_create(0))), OTHER(OK(evloop_devpoll_create())),
      OTHER(OK(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT)))};
  expect_all_refuse(loop_functions, LENGTH(loop_functions), wrong, LENGTH(wrong));
  CHECK_EQ(evloop_watcher_loop(watcher), loop);
}

TEST(every_function_of_watchers_refuses_what_is_no_watcher) {
  evloop_t loop = new_loop();
  const Wrong wrong[] = {
      STALE(0), STALE(-1), STALE(INT64_MIN), STALE(INT64_MAX), STALE(1), STALE((INT64_C(1) << 53) - 1),
      STALE(stale(new_loop())), STALE(stale(keep_alive(loop))),
      OTHER(loop), OTHER(OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0))), OTHER(OK(evloop_poll_create())),
      OTHER(OK(evloop_epoll_create(0))), OTHER(OK(evloop_devpoll_create())),
      OTHER(OK(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT)))};
  expect_all_refuse(watcher_functions, LENGTH(watcher_functions), wrong, LENGTH(wrong));
  CHECK_EQ(turn(loop), 0);
}

TEST(watchers_of_a_closed_loop_are_stale) {
  evloop_t loop = new_loop();
  const Wrong wrong[] = {STALE(keep_alive(loop)), STALE(OK(evloop_add_io(loop, event_fd(0), 0,
                                                                         record, NULL))),
                         STALE(OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, 1, 0, record,
                                                   NULL)))};
  CHECK_EQ(evloop_close(loop), 0);
  expect_all_refuse(watcher_functions, LENGTH(watcher_functions), wrong, LENGTH(wrong));
}

TEST(the_functions_of_all_handles_know_loops_and_watchers) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = keep_alive(loop);
  CHECK_EQ(evloop_handle_kind(loop), EVLOOP_KIND_LOOP);
  CHECK_EQ(evloop_handle_kind(watcher), EVLOOP_KIND_WATCHER);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 1);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
  CHECK(loop > 0);
  CHECK(loop < INT64_C(1) << 53);
  CHECK(watcher > 0);
  CHECK(watcher < INT64_C(1) << 53);
  CHECK_EQ(evloop_handle_close(watcher), 0);
  CHECK_EQ(turn(loop), 0);
  CHECK_EQ(evloop_handle_close(loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

/* valgrind 3.19 has none. */
static bool has_pidfds(void) {
  int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);
  return fd >= 0 && close(fd) == 0;
}

TEST(what_succeeds_leaves_errno_and_the_sentence) {
  evloop_t loop = virtual_loop();
  bool pidfds = has_pidfds();
  make_arguments();
  set_sentence();
  errno = 4321;
  for (int i = 0; AT_ROW(i, loop_functions); i++) {
    /* Which virtual loops refuse; and nothing was counted yet. */
    if (loop_functions[i].call == call_evloop_add_tfd) continue;
    if (loop_functions[i].call == call_evloop_stats_percentile_ns) continue;
    if (loop_functions[i].call == call_evloop_add_process && !pidfds) continue;
    /* Which older kernels lack. */
    if (loop_functions[i].call == call_evloop_set_busy_poll) continue;
    OK(loop_functions[i].call(loop));
  }
  CHECK_EQ(errno, 4321);
  expect_sentence("evloop_handle_count", "EINVAL");
}

/* ---- watchers of another kind ---- */

TEST(functions_for_one_kind_refuse_the_others) {
  evloop_t loop = new_loop();
  evloop_watcher_t io = OK(evloop_add_io(loop, event_fd(0), EVLOOP_EPOLLIN, record, NULL));
  evloop_watcher_t timer = OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, SECOND, SECOND, 0,
                                               record, NULL));
  evloop_watcher_t tfd = OK(evloop_add_tfd(loop, OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0)), record,
                                           NULL));
  const evloop_watcher_t others[] = {keep_alive(loop), tfd, OK(evloop_add_prepare(loop, record,
                                                                                  NULL))};
  Function send = {"evloop_async_send", call_evloop_async_send, 1};
  for (int i = 0; AT_ROW(i, others); i++) {
    ARGUMENT(evloop_io_modify(others[i], EVLOOP_EPOLLIN), EINVAL);
    ARGUMENT(evloop_io_set(others[i], 0), EINVAL);
    ARGUMENT(evloop_timer_set_tolerance(others[i], 0), EINVAL);
    ARGUMENT(evloop_timer_set(others[i], 0, 1, 0), EINVAL);
    ARGUMENT(evloop_timer_again(others[i]), EINVAL);
    ARGUMENT(evloop_timer_remaining_ns(others[i]), EINVAL);
    if (i > 0) expect_failure(&send, others[i], EINVAL, "EINVAL");
  }
  ARGUMENT(evloop_io_modify(timer, EVLOOP_EPOLLIN), EINVAL);
  ARGUMENT(evloop_timer_set(io, 0, 1, 0), EINVAL);
  ARGUMENT(evloop_timer_again(io), EINVAL);
  ARGUMENT(evloop_timer_remaining_ns(io), EINVAL);
  expect_failure(&send, io, EINVAL, "EINVAL");
  expect_failure(&send, timer, EINVAL, "EINVAL");
}

/* ---- arguments ---- */

TEST(wrong_arguments_of_loops_are_named) {
  evloop_t loop = new_loop();
  evloop_options_t options = {.size = sizeof options, .flags = 128};
  ARGUMENT(evloop_create(&options), EINVAL);
  options.flags = EVLOOP_AUTO_ADVANCE;
  ARGUMENT(evloop_create(&options), EINVAL);
  options.flags = 0;
  options.max_posts = -1;
  ARGUMENT(evloop_create(&options), EINVAL);
  options.max_posts = 0;
  options.timer_tolerance_ns = -1;
  ARGUMENT(evloop_create(&options), EINVAL);
  options.timer_tolerance_ns = 0;
  options.virtual_grace_ns = 1;
  ARGUMENT(evloop_create(&options), EINVAL);
  ARGUMENT(evloop_run(loop, 99), EINVAL);
  ARGUMENT(evloop_wait(loop, NULL, 1, 0), EINVAL);
  ARGUMENT(evloop_wait(loop, &one_event, 0, 0), EINVAL);
  ARGUMENT(evloop_advance_ns(loop, 1), ENOTSUP);
  ARGUMENT(evloop_advance_ns(virtual_loop(), -1), EINVAL);
  ARGUMENT(evloop_virtual_hold(loop, 1), ENOTSUP);
  ARGUMENT(evloop_virtual_hold(virtual_loop(), -1), EINVAL);
  ARGUMENT(evloop_virtual_hold(virtual_loop(), 3), EINVAL);
  ARGUMENT(evloop_post_full(loop, NULL, NULL, free), EINVAL);
  ARGUMENT(evloop_limit_wait_ns(loop, -1), EINVAL);
  ARGUMENT(evloop_set_busy_poll(loop, UINT32_MAX, 0, 0), EINVAL);
  ARGUMENT(evloop_set_busy_poll(loop, 0, 65536, 0), EINVAL);
  ARGUMENT(evloop_set_busy_poll(loop, 0, 0, -1), EINVAL);
  ARGUMENT(evloop_after(loop, -1, record, NULL), EINVAL);
  ARGUMENT(evloop_every(loop, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_stats(loop, NULL), EINVAL);
  ARGUMENT(evloop_stats(loop, &stats), ENOENT);
  ARGUMENT(evloop_stats_histogram(loop, 7, NULL, 0), EINVAL);
  ARGUMENT(evloop_stats_histogram(loop, EVLOOP_STATS_CALLBACK, NULL, 1), EINVAL);
  ARGUMENT(evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 101), EINVAL);
  ARGUMENT(evloop_trace_start(loop, NULL, 0), EINVAL);
  ARGUMENT(evloop_trace_start(loop, "/dev/null", -1), EINVAL);
  ARGUMENT(evloop_trace_start(loop, "/nowhere/at/all", 0), ENOENT);
  ARGUMENT(evloop_trace_start_fd(loop, CLOSED, 0), EBADF);
  ARGUMENT(evloop_set_watchdog(loop, -1, NULL, NULL), EINVAL);
  ARGUMENT(evloop_watchers(loop, NULL, 1), EINVAL);
  ARGUMENT(evloop_watchers(loop, NULL, -1), EINVAL);
  ARGUMENT(evloop_find_io(loop, -1), EBADF);
  ARGUMENT(evloop_find_io(loop, 0), ENOENT);
  ARGUMENT(evloop_dump(loop, CLOSED), EBADF);
  ARGUMENT(evloop_dump(loop, -1), EBADF);
}

TEST(wrong_arguments_of_watchers_are_named) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = OK(evloop_add_io(loop, event_fd(0), EVLOOP_EPOLLIN, record, NULL));
  evloop_watcher_t timer = OK(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0, 0, record,
                                               NULL));
  tfd_t tfd = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  ARGUMENT(evloop_add_io(loop, -1, EVLOOP_EPOLLIN, record, NULL), EBADF);
  ARGUMENT(evloop_add_io(loop, event_fd(0), 1 << 20, record, NULL), EINVAL);
  ARGUMENT(evloop_io_modify(watcher, 1 << 20), EINVAL);
  ARGUMENT(evloop_io_modify(watcher, EVLOOP_EPOLLEXCLUSIVE | EVLOOP_EPOLLONESHOT), EINVAL);
  ARGUMENT(evloop_add_timer(loop, 77, 0, 1, 0, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 64, 1, 0, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 6, 1, 0, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, EVLOOP_TIMER_EXACT, 1, 0, 1, record,
                            NULL),
           EINVAL);
  ARGUMENT(evloop_timer_set(timer, EVLOOP_TIMER_EXACT, 1, 0), EINVAL);
  ARGUMENT(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, -1, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 1, 0, -1, record, NULL), EINVAL);
  ARGUMENT(evloop_io_set(watcher, 1 << 20), EINVAL);
  ARGUMENT(evloop_timer_set_tolerance(timer, -1), EINVAL);
  ARGUMENT(evloop_watcher_info(watcher, NULL), EINVAL);
  ARGUMENT(evloop_watcher_info(watcher, &(evloop_watcher_info_t){.size = 1}), EINVAL);
  ARGUMENT(evloop_timer_set(timer, 64, 1, 0), EINVAL);
  ARGUMENT(evloop_timer_set(timer, 0, 1, -1), EINVAL);
  ARGUMENT(evloop_timer_again(timer), EINVAL);
  ARGUMENT(evloop_add_tfd(virtual_loop(), tfd, record, NULL), ENOTSUP);
  ARGUMENT(evloop_add_tfd(loop, loop, record, NULL), EDOM);
  ARGUMENT(evloop_add_tfd(loop, stale(tfd), record, NULL), ESTALE);
  ARGUMENT(evloop_watcher_close(watcher, 2), EINVAL);
  ARGUMENT(evloop_watcher_set_ratelimit(watcher, -1, 1), EINVAL);
  ARGUMENT(evloop_watcher_set_ratelimit(watcher, 1, 0), EINVAL);
  ARGUMENT(evloop_watcher_get_name(watcher, NULL, 1), EINVAL);
  ARGUMENT(evloop_add_kqueue(loop, loop, record, NULL), EDOM);
  ARGUMENT(evloop_add_signal(loop, 0, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_signal(loop, SIGKILL, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_signal(loop, SIGUSR1, 64, record, NULL), EINVAL);
  ARGUMENT(evloop_add_signal(loop, SIGUSR1, EVLOOP_SIGNAL_FD, record, NULL), EBUSY);
  ARGUMENT(evloop_add_process(loop, 0, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_process(loop, -1, 0, record, NULL), EINVAL);
  ARGUMENT(evloop_add_process(loop, getpid(), 64, record, NULL), EINVAL);
  if (has_pidfds()) ARGUMENT(evloop_add_process(loop, INT_MAX, 0, record, NULL), ESRCH);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 2);
}

static void call_it_again(const evloop_event_t *event, void *user_data) {
  (void)event, (void)user_data;
  evloop_t loop = (evloop_t)(intptr_t)user_data;
  ARGUMENT(evloop_run(loop, EVLOOP_RUN_NOWAIT), EBUSY);
  ARGUMENT(evloop_run_for_ns(loop, 0), EBUSY);
  ARGUMENT(evloop_wait(loop, &one_event, 1, 0), EBUSY);
  ARGUMENT(evloop_embed_prepare(loop), EBUSY);
  ARGUMENT(evloop_embed_dispatch(loop), EBUSY);
}

TEST(busy_loops_are_named) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_post(loop, call_it_again, as_data(loop)), 0);
  CHECK_EQ(turn(loop), 0);
}

TEST(a_sentence_has_the_descriptor_in_it) {
  char sentence[200];
  CHECK_ERR(evloop_add_io(new_loop(), CLOSED, EVLOOP_EPOLLIN, record, NULL), EBADF);
  OK(evloop_last_error(sentence, sizeof sentence));
  CHECK(strstr(sentence, "900000") != NULL);
}

CHECK_MAIN()
