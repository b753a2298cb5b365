/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Every call, with each of its allocations failing, or each registration with
 * an epoll: it ends with a documented error or does what it is for, takes
 * nothing along, and works the next time.
 *
 * The n-th one of a call fails, alone or with all that follow, for every n
 * that there is. */

#define _GNU_SOURCE 1
#include "faults.h"
#include "kqueue_support.h"
#include "loop_support.h"

#include <sys/inotify.h>
#include <sys/stat.h>

/* ---- what calls work on ---- */

enum { FDS = 24, FAR = 900 };

/* Made by the loop's side of a test, and by each case once more. */
typedef struct Fixture {
  evloop_t loop;
  int fds[FDS]; /* never ready */
  int far;      /* so high a descriptor that tables must grow */
  int file;     /* always ready */
  char directory[32];
  tfd_t tfd;
  evloop_kqueue_t kqueue;
  evloop_poll_t poll;
  evloop_epoll_t epoll;
  evloop_devpoll_t devpoll;
  evloop_selector_t selectors[5];
  evloop_watcher_t watcher, timer; /* of the loop */
} Fixture;

static Fixture fixture;

static void make_bed(void) {
  int i;
  memset(&fixture, 0, sizeof fixture);
  fixture.loop = new_loop();
  for (i = 0; i < FDS; i++) fixture.fds[i] = event_fd(0);
  fixture.far = (int)OK(fcntl(fixture.fds[0], F_DUPFD_CLOEXEC, FAR));
  fixture.file = regular_file();
  strcpy(fixture.directory, "/tmp/evloop-faults-XXXXXX");
  CHECK(mkdtemp(fixture.directory) != NULL);
  fixture.tfd = OK(tfd_create(MONOTONIC, 0));
  fixture.kqueue = OK(evloop_kqueue_create(0));
  fixture.poll = OK(evloop_poll_create());
  fixture.epoll = OK(evloop_epoll_create(0));
  fixture.devpoll = OK(evloop_devpoll_create());
  for (i = 0; AT_ROW(i, fixture.selectors); i++) fixture.selectors[i] =
      OK(evloop_selector_create(i));
  fixture.watcher = OK(evloop_add_io(fixture.loop, fixture.fds[0], EVLOOP_EPOLLIN, ignore, NULL));
  fixture.timer = timer(fixture.loop, HOUR, 0, ignore, NULL);
}

static void remove_directory(void) {
  OK(rmdir(fixture.directory));
}

/* ---- calls ---- */

/* What makes or changes something; a handle that is to be closed, or 0, or an
 * error. */
typedef int64_t CallFunction(void);

typedef struct Call {
  const char *name;
  CallFunction *call;
  CallFunction *undo; /* what is left after it succeeded, and is no handle */
} Call;

#define LOOP_CALL(name, call)                                                                      \
  static int64_t call_##name(void) {                                                               \
    return call;                                                                                   \
  }

LOOP_CALL(create, evloop_create(NULL))
LOOP_CALL(io, evloop_add_io(fixture.loop, fixture.fds[1], EVLOOP_EPOLLIN, ignore, NULL))
LOOP_CALL(io_shared, evloop_add_io(fixture.loop, fixture.fds[0], EVLOOP_EPOLLOUT, ignore, NULL))
LOOP_CALL(io_far, evloop_add_io(fixture.loop, fixture.far, EVLOOP_EPOLLIN, ignore, NULL))
LOOP_CALL(io_file, evloop_add_io(fixture.loop, fixture.file, EVLOOP_EPOLLIN, ignore, NULL))
LOOP_CALL(io_record, evloop_add_io(fixture.loop, fixture.fds[2], EVLOOP_EPOLLIN, NULL, NULL))
LOOP_CALL(timer, evloop_add_timer(fixture.loop, MONOTONIC, 0, HOUR, HOUR, 0, ignore, NULL))
LOOP_CALL(timer_of_wall_clock, evloop_add_timer(fixture.loop, EVLOOP_CLOCK_REALTIME,
                                                EVLOOP_TIMER_ABSTIME,
                                                INT64_MAX / 2, 0, 0, ignore, NULL))
LOOP_CALL(tfd_watcher, evloop_add_tfd(fixture.loop, fixture.tfd, ignore, NULL))
LOOP_CALL(kqueue_watcher, evloop_add_kqueue(fixture.loop, fixture.kqueue, ignore, NULL))
LOOP_CALL(async, evloop_add_async(fixture.loop, ignore, NULL))
LOOP_CALL(idle, evloop_add_idle(fixture.loop, ignore, NULL))
LOOP_CALL(prepare, evloop_add_prepare(fixture.loop, ignore, NULL))
LOOP_CALL(check, evloop_add_check(fixture.loop, ignore, NULL))
LOOP_CALL(defer, evloop_add_defer(fixture.loop, ignore, NULL))
LOOP_CALL(exit, evloop_add_exit(fixture.loop, ignore, NULL))
LOOP_CALL(clock_change, evloop_add_clock_change(fixture.loop, ignore, NULL))
LOOP_CALL(signal, evloop_add_signal(fixture.loop, SIGUSR1, 0, ignore, NULL))
LOOP_CALL(signal_real_time, evloop_add_signal(fixture.loop, SIGRTMIN + 1, 0, ignore, NULL))
LOOP_CALL(signal_by_descriptor, evloop_add_signal(fixture.loop, SIGUSR2, EVLOOP_SIGNAL_FD, ignore,
                                                  NULL))
LOOP_CALL(process, evloop_add_process(fixture.loop, getppid(), 0, ignore, NULL))
LOOP_CALL(file, evloop_add_file(fixture.loop, fixture.directory, EVLOOP_FILE_ALL, 0, ignore, NULL))
LOOP_CALL(tree, evloop_add_file(fixture.loop, fixture.directory, EVLOOP_FILE_ALL,
                                EVLOOP_FILE_RECURSIVE,
                                ignore, NULL))
LOOP_CALL(file_fd, evloop_add_file_fd(fixture.loop, fixture.file, EVLOOP_FILE_ATTRIB, 0, ignore,
                                      NULL))

/* Of each kind of watcher. */
static const Call adding[] = {
    {"io", call_io, NULL},
    {"io of a shared descriptor", call_io_shared, NULL},
    {"io of a high number", call_io_far, NULL},
    {"io of a file", call_io_file, NULL},
    {"io without a callback", call_io_record, NULL},
    {"timer", call_timer, NULL},
    {"timer of the wall clock", call_timer_of_wall_clock, NULL},
    {"tfd", call_tfd_watcher, NULL},
    {"kqueue", call_kqueue_watcher, NULL},
    {"async", call_async, NULL},
    {"idle", call_idle, NULL},
    {"prepare", call_prepare, NULL},
    {"check", call_check, NULL},
    {"defer", call_defer, NULL},
    {"exit", call_exit, NULL},
    {"clock change", call_clock_change, NULL},
    {"signal", call_signal, NULL},
    {"real-time signal", call_signal_real_time, NULL},
    {"signal by descriptor", call_signal_by_descriptor, NULL},
    {"process", call_process, NULL},
    {"file", call_file, NULL},
    {"tree", call_tree, NULL},
    {"file by descriptor", call_file_fd, NULL},
};

LOOP_CALL(post, evloop_post(fixture.loop, ignore, NULL))
LOOP_CALL(set_destroy, evloop_watcher_set_destroy(fixture.watcher, ignore, NULL))
LOOP_CALL(set_name, evloop_watcher_set_name(fixture.watcher, "a name"))
LOOP_CALL(set_no_name, evloop_watcher_set_name(fixture.watcher, NULL))
LOOP_CALL(set_priority, evloop_watcher_set_priority(fixture.watcher, 3))
LOOP_CALL(set_ratelimit, evloop_watcher_set_ratelimit(fixture.watcher, SECOND, 1))
LOOP_CALL(disable, evloop_watcher_disable(fixture.timer))
LOOP_CALL(enable, evloop_watcher_enable(fixture.timer))
LOOP_CALL(timer_set, evloop_timer_set(fixture.timer, 0, HOUR, 0))
LOOP_CALL(timer_again, evloop_timer_again(fixture.timer))
LOOP_CALL(io_modify, evloop_io_modify(fixture.watcher, EVLOOP_EPOLLIN | EVLOOP_EPOLLPRI))
LOOP_CALL(run, evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT))
LOOP_CALL(next_timeout, evloop_next_timeout_ns(fixture.loop))
LOOP_CALL(embed_prepare, evloop_embed_prepare(fixture.loop))
LOOP_CALL(embed_dispatch, evloop_embed_dispatch(fixture.loop))
LOOP_CALL(fileno, evloop_fileno(fixture.loop))
LOOP_CALL(stats, evloop_set_stats(fixture.loop, 1))
LOOP_CALL(no_stats, evloop_set_stats(fixture.loop, 0))
LOOP_CALL(stats_reset, evloop_stats_reset(fixture.loop))
LOOP_CALL(trace, evloop_trace_start(fixture.loop, "/dev/null", 64))
LOOP_CALL(no_trace, evloop_trace_stop(fixture.loop))
LOOP_CALL(watchdog, evloop_set_watchdog(fixture.loop, HOUR,
                                        (evloop_watchdog_t)(void (*)(void))ignore, NULL))
LOOP_CALL(no_watchdog, evloop_set_watchdog(fixture.loop, 0, NULL, NULL))

static int64_t call_wait(void) {
  evloop_event_t events[4];
  return evloop_wait(fixture.loop, events, LENGTH(events), 0);
}

/* Of a loop and its watchers. */
static const Call changing[] = {
    {"post", call_post, NULL},
    {"set_destroy", call_set_destroy, NULL},
    {"set_name", call_set_name, call_set_no_name},
    {"set_priority", call_set_priority, NULL},
    {"set_ratelimit", call_set_ratelimit, NULL},
    {"disable", call_disable, call_enable},
    {"enable", call_enable, NULL},
    {"timer_set", call_timer_set, NULL},
    {"timer_again", call_timer_again, NULL},
    {"io_modify", call_io_modify, NULL},
    {"run", call_run, NULL},
    {"wait", call_wait, NULL},
    {"next_timeout", call_next_timeout, NULL},
    {"embed_prepare", call_embed_prepare, NULL},
    {"embed_dispatch", call_embed_dispatch, NULL},
    {"set_stats", call_stats, call_no_stats},
    {"stats_reset", call_stats_reset, NULL},
    {"trace_start", call_trace, call_no_trace},
    {"set_watchdog", call_watchdog, call_no_watchdog},
    {"fileno", call_fileno, NULL},
};

LOOP_CALL(tfd_create, tfd_create(MONOTONIC, 0))
LOOP_CALL(poll_create, evloop_poll_create())
LOOP_CALL(poll_register, evloop_poll_register(fixture.poll, FAR, EVLOOP_POLLIN, 1))
LOOP_CALL(poll_unregister, evloop_poll_unregister(fixture.poll, FAR))
LOOP_CALL(epoll_create, evloop_epoll_create(0))
LOOP_CALL(epoll_register, evloop_epoll_register(fixture.epoll, fixture.far, EVLOOP_EPOLLIN, 1))
LOOP_CALL(epoll_unregister, evloop_epoll_unregister(fixture.epoll, fixture.far))
LOOP_CALL(devpoll_create, evloop_devpoll_create())
LOOP_CALL(devpoll_fileno, evloop_devpoll_fileno(fixture.devpoll))
LOOP_CALL(devpoll_register, evloop_devpoll_register(fixture.devpoll, fixture.far, EVLOOP_POLLIN, 1))
LOOP_CALL(devpoll_unregister, evloop_devpoll_unregister(fixture.devpoll, fixture.far))
LOOP_CALL(kqueue_create, evloop_kqueue_create(0))
LOOP_CALL(interrupt_mode, evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN))
LOOP_CALL(interrupt_check, evloop_set_interrupt_check(NULL, NULL))

#define SELECTOR_CALLS(backend)                                                                    \
  LOOP_CALL(selector_create_##backend, evloop_selector_create(backend))                            \
  LOOP_CALL(selector_register_##backend,                                                           \
            evloop_selector_register(fixture.selectors[backend], fixture.far,                      \
                                     EVLOOP_SELECTOR_READ, 1))                                     \
  LOOP_CALL(selector_unregister_##backend,                                                         \
            evloop_selector_unregister(fixture.selectors[backend], fixture.far))                   \
  static int64_t call_selector_wait_##backend(void) {                                              \
    static evloop_ready_t ready[200];                                                              \
    return evloop_selector_wait(fixture.selectors[backend], ready, LENGTH(ready), 0);              \
  }
SELECTOR_CALLS(1)
SELECTOR_CALLS(2)
SELECTOR_CALLS(3)
SELECTOR_CALLS(4)

static int64_t call_poll_wait(void) {
  static evloop_ready_t ready[200];
  return evloop_poll_wait(fixture.poll, ready, LENGTH(ready), MS);
}

static int64_t call_epoll_wait(void) {
  static evloop_ready_t ready[200];
  return evloop_epoll_wait(fixture.epoll, ready, LENGTH(ready), 0);
}

static int64_t call_tfd_wait(void) {
  return tfd_wait(fixture.tfd, MS, NULL);
}

static int64_t call_select(void) {
  int list[1] = {fixture.fds[0]}, count = 1;
  return evloop_select(list, &count, NULL, NULL, NULL, NULL, 0);
}

#define KQUEUE_CALLS(name, ident, filter, fflags, data)                                            \
  LOOP_CALL(kq_##name, try_change(fixture.kqueue, ident, filter, ADD, fflags, data, 0))            \
  LOOP_CALL(kq_no_##name, try_change(fixture.kqueue, ident, filter, DELETE, 0, 0, 0))
KQUEUE_CALLS(read, (uint64_t)fixture.far, EVLOOP_KQ_FILTER_READ, 0, 0)
KQUEUE_CALLS(write, (uint64_t)fixture.far, EVLOOP_KQ_FILTER_WRITE, 0, 0)
KQUEUE_CALLS(timer, 1, EVLOOP_KQ_FILTER_TIMER, 0, 1000000)
KQUEUE_CALLS(user, 1, EVLOOP_KQ_FILTER_USER, 0, 0)
KQUEUE_CALLS(signal, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, 0, 0)
KQUEUE_CALLS(process, (uint64_t)getppid(), EVLOOP_KQ_FILTER_PROC, EVLOOP_KQ_NOTE_EXIT, 0)
KQUEUE_CALLS(vnode, (uint64_t)fixture.file, EVLOOP_KQ_FILTER_VNODE, EVLOOP_KQ_NOTE_ATTRIB, 0)

/* Of everything else. */
static const Call others[] = {
    {"create", call_create, NULL},
    {"tfd_create", call_tfd_create, NULL},
    {"tfd_wait", call_tfd_wait, NULL},
    {"poll_create", call_poll_create, NULL},
    {"poll_register", call_poll_register, call_poll_unregister},
    {"poll_wait", call_poll_wait, NULL},
    {"epoll_create", call_epoll_create, NULL},
    {"epoll_register", call_epoll_register, call_epoll_unregister},
    {"epoll_wait", call_epoll_wait, NULL},
    {"devpoll_create", call_devpoll_create, NULL},
    {"devpoll_register", call_devpoll_register, call_devpoll_unregister},
    {"devpoll_fileno", call_devpoll_fileno, NULL},
    {"devpoll_register with a fileno", call_devpoll_register, call_devpoll_unregister},
    {"select", call_select, NULL},
    {"selector_create of select", call_selector_create_1, NULL},
    {"selector_register of select", call_selector_register_1, call_selector_unregister_1},
    {"selector_wait of select", call_selector_wait_1, NULL},
    {"selector_create of poll", call_selector_create_2, NULL},
    {"selector_register of poll", call_selector_register_2, call_selector_unregister_2},
    {"selector_wait of poll", call_selector_wait_2, NULL},
    {"selector_create of epoll", call_selector_create_3, NULL},
    {"selector_register of epoll", call_selector_register_3, call_selector_unregister_3},
    {"selector_wait of epoll", call_selector_wait_3, NULL},
    {"selector_create of devpoll", call_selector_create_4, NULL},
    {"selector_register of devpoll", call_selector_register_4, call_selector_unregister_4},
    {"selector_wait of devpoll", call_selector_wait_4, NULL},
    {"kqueue_create", call_kqueue_create, NULL},
    {"kqueue READ", call_kq_read, call_kq_no_read},
    {"kqueue WRITE", call_kq_write, call_kq_no_write},
    {"kqueue TIMER", call_kq_timer, call_kq_no_timer},
    {"kqueue USER", call_kq_user, call_kq_no_user},
    {"kqueue SIGNAL", call_kq_signal, call_kq_no_signal},
    {"kqueue PROC", call_kq_process, call_kq_no_process},
    {"kqueue VNODE", call_kq_vnode, call_kq_no_vnode},
    {"set_interrupt_mode", call_interrupt_mode, NULL},
    {"set_interrupt_check", call_interrupt_check, NULL},
};

/* ---- making them fail ---- */

static const char *failing; /* for the output */
static long failing_at;

static void explain(void) {
  if (failing != NULL) printf("  in %s, fault %ld\n", failing, failing_at);
}

#define SAME(actual, expected)                                                                     \
  do {                                                                                             \
    if ((actual) != (expected)) explain();                                                         \
    CHECK_EQ(actual, expected);                                                                    \
  } while (0)

/* -EAGAIN: no thread could be made. */
static void expect_documented(int64_t result, const Faults *faults) {
  int expected = faults == &memory ? ENOMEM : faults->errno_of;
  if (result >= 0 || result == -expected) return;
  if (faults == &memory && result == -EAGAIN) return;
  explain();
  CHECK_ERR(result, expected);
}

static void undo(const Call *one, int64_t result) {
  if (evloop_handle_kind(result) > 0) CHECK_EQ(evloop_handle_close(result), 0);
  if (one->undo != NULL) OK(one->undo());
}

/* What the process has. Nothing is made by a call that fails. */
typedef struct Inventory {
  int64_t handles;
  int descriptors;
} Inventory;

static Inventory inventory(void) {
  Inventory now = {evloop_handle_count(EVLOOP_KIND_ANY), open_descriptors()};
  return now;
}

/* Where the calls are made. */
typedef enum Place { OUTSIDE, IN_CALLBACK, OTHER_THREAD } Place;

static void let_it_run(Place place) {
  if (place == OUTSIDE) OK(evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT));
}

/* A call with each fault that there is. */
static void walk(const Call *one, Place place, Faults *faults, Mode mode) {
  Inventory before;
  int64_t result;
  long n;
  failing = one->name;
  /* What is made once and stays. */
  undo(one, OK(one->call()));
  let_it_run(place);
  before = inventory();
  for (n = 1;; n++) {
    failing_at = n;
    arm(faults, n, mode);
    result = one->call();
    if (!disarm(faults)) break;
    expect_documented(result, faults);
    if (result >= 0) undo(one, result);
    let_it_run(place);
    SAME(evloop_handle_count(EVLOOP_KIND_ANY), before.handles);
    /* Others' descriptors are closed by the loop. */
    if (place != OTHER_THREAD) SAME(open_descriptors(), before.descriptors);
    CHECK(n < 1000);
  }
  undo(one, OK(result));
  failing = NULL;
}

typedef struct Table {
  const Call *calls;
  int count;
} Table;

static void walk_all(Table table, Place place) {
  EACH_MODE(mode) {
    for (int i = 0; i < table.count; i++) {
      walk(&table.calls[i], place, &memory, mode);
      walk(&table.calls[i], place, &registrations, mode);
    }
  }
}

static void expect_that_it_works(void) {
  Seen seen;
  memset(&seen, 0, sizeof seen);
  CHECK_EQ(evloop_post(fixture.loop, record, &seen), 0);
  OK(evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(seen.calls, 1);
}

#define TABLE(calls) ((Table){calls, LENGTH(calls)})

static void block_signals(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
}

static void walk_outside(Table table) {
  block_signals();
  make_bed();
  walk_all(table, OUTSIDE);
  expect_that_it_works();
  remove_directory();
}

TEST_TIMEOUT(watchers_are_added_or_not_at_all, 60) {
  walk_outside(TABLE(adding));
}

TEST_TIMEOUT(loops_and_watchers_are_changed_or_not_at_all, 60) {
  walk_outside(TABLE(changing));
}

TEST_TIMEOUT(all_else_is_made_and_changed_or_not_at_all, 60) {
  walk_outside(TABLE(others));
}

static void walk_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  walk_all(*(Table *)user_data, IN_CALLBACK);
}

TEST_TIMEOUT(callbacks_add_watchers_or_none, 60) {
  Table table = TABLE(adding);
  block_signals();
  make_bed();
  CHECK_EQ(evloop_post(fixture.loop, walk_in_callback, &table), 0);
  OK(evloop_run(fixture.loop, EVLOOP_RUN_NOWAIT));
  expect_that_it_works();
  remove_directory();
}

TEST_TIMEOUT(other_threads_add_watchers_or_none, 60) {
  Runner runner;
  Gate gate;
  block_signals();
  make_bed();
  start_runner(&runner, run_until_done, fixture.loop);
  hold(fixture.loop, &gate);
  walk_all(TABLE(adding), OTHER_THREAD);
  open_gate(&gate);
  go_round(fixture.loop);
  stop_runner(&runner);
  expect_that_it_works();
  CHECK_EQ(evloop_close(fixture.loop), 0);
  remove_directory();
}

CHECK_MAIN()
