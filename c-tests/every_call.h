/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Every function of the header, called in what it has most to do in. A test
 * compares the names with the header's.
 *
 * The program that includes this defines before_call() and after_call(name),
 * which run right before and after each call, and in_callback(), which runs in
 * every function of the program's that the library calls. */
#ifndef EVERY_CALL_H
#define EVERY_CALL_H

#include "kqueue_support.h"
#include "loop_support.h"

#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/timerfd.h>

static void before_call(void);
static void after_call(const char *name);
static void in_callback(void);

static inline int64_t result_of(const char *name, int64_t result) {
  after_call(name);
  return result;
}

/* The result of a call, whatever it is. */
#define TRY(function, arguments)                                                                   \
  (before_call(), result_of(#function, (int64_t)(function arguments)))
/* The same of one that has to succeed. */
#define CALL(function, arguments) OK(TRY(function, arguments))

/* Not on the stack of the thread that calls. */
static struct {
  char text[512], directory[64], path[128];
  Event events[8];
  evloop_ready_t ready[8];
  evloop_event_t loop_events[8];
  uint64_t counts[512];
  evloop_stats_t stats;
  evloop_siginfo_t siginfo;
  evloop_process_t process;
  evloop_options_t options;
  evloop_event_t event;
  struct sigaction action;
  int callbacks;
  evloop_watcher_info_t info;
  evloop_watcher_t watchers[8];
} room;

static void on_event(const evloop_event_t *event, void *user_data) {
  in_callback();
  room.event = *event;
  room.callbacks++;
  (void)user_data;
}

static void on_stuck(const evloop_stuck_t *stuck, void *user_data) {
  (void)stuck;
  (void)user_data;
}

static int go_on(void *user_data) {
  in_callback();
  (void)user_data;
  return 0;
}

static void call_library(void) {
  TRY(evloop_version, ());
  TRY(evloop_version_string, ());
  TRY(evloop_strerror, (-EBADF));
  TRY(evloop_strerror, (-4000));
  CALL(evloop_set_interrupt_mode, (EVLOOP_EINTR_RETURN));
  CALL(evloop_set_interrupt_mode, (EVLOOP_EINTR_RESTART));
  CALL(evloop_set_interrupt_check, (go_on, NULL));
  CALL(evloop_set_interrupt_check, (NULL, NULL));
  CHECK_ERR(TRY(evloop_epoll_register, (12345, 1, 1, 1)), ESTALE);
  CALL(evloop_last_error, (room.text, sizeof room.text));
  CHECK_ERR(TRY(evloop_handle_kind, (12345)), ESTALE);
  CALL(evloop_handle_count, (EVLOOP_KIND_ANY));
}

static void call_timers(int fd) {
  uint64_t count;
  int64_t a, b;
  double x, y;
  tfd_t t = CALL(tfd_create, (MONOTONIC, EVLOOP_TFD_NONBLOCK));
  CALL(evloop_handle_kind, (t));
  CALL(tfd_fileno, (t));
  CALL(tfd_settime, (t, 0, 1e-9, 0.5, &x, &y));
  CALL(tfd_settime_ns, (t, 0, 1, 0, &a, &b));
  CALL(tfd_gettime, (t, &x, &y));
  CALL(tfd_gettime_ns, (t, &a, &b));
  CALL(tfd_wait, (t, -1, &count));
  CALL(tfd_settime_ns, (t, 0, MS, 0, NULL, NULL));
  CHECK(readable((int)OK(tfd_fileno(t)), -1));
  CALL(tfd_read, (t, &count));
  CALL(tfd_clockid, (t));
  TRY(tfd_set_ticks, (t, 1));
  tfd_t other = CALL(tfd_from_fd, (fd, 0));
  CALL(tfd_clockid, (other));
  CALL(tfd_close, (other));
  other = OK(tfd_create(MONOTONIC, 0));
  OK(close((int)CALL(tfd_release, (other))));
  CALL(evloop_handle_close, (t));
}

static void call_select(int fd) {
  int list[1] = {fd}, n = 1, none = 0;
  CALL(evloop_select, (list, &n, NULL, &none, NULL, &none, -1));
}

static void call_poll(int fd) {
  evloop_poll_t p = CALL(evloop_poll_create, ());
  TRY(evloop_poll_wait, (p, room.ready, 8, MS));
  CALL(evloop_poll_register, (p, fd, EVLOOP_POLLIN, 1));
  CALL(evloop_poll_modify, (p, fd, EVLOOP_POLLIN, 2));
  CHECK_EQ(CALL(evloop_poll_wait, (p, room.ready, 8, -1)), 1);
  CALL(evloop_poll_unregister, (p, fd));
  CALL(evloop_poll_close, (p));
}

static void call_epoll(int fd, int epoll) {
  evloop_epoll_t e = CALL(evloop_epoll_create, (0));
  CALL(evloop_epoll_fileno, (e));
  CALL(evloop_epoll_register, (e, fd, EVLOOP_EPOLLIN, 1));
  CALL(evloop_epoll_modify, (e, fd, EVLOOP_EPOLLIN, 2));
  CHECK_EQ(CALL(evloop_epoll_wait, (e, room.ready, 8, -1)), 1);
  CALL(evloop_epoll_unregister, (e, fd));
  TRY(evloop_epoll_wait, (e, room.ready, 8, MS));
  CALL(evloop_epoll_close, (e));
  e = CALL(evloop_epoll_create, (0));
  OK(close((int)CALL(evloop_epoll_release, (e))));
  e = CALL(evloop_epoll_from_fd, (epoll, 0));
  CALL(evloop_epoll_close, (e));
}

static void call_devpoll(int fd, int file) {
  evloop_devpoll_t d = CALL(evloop_devpoll_create, ());
  CALL(evloop_devpoll_register, (d, file, EVLOOP_POLLIN, 1));
  CALL(evloop_devpoll_fileno, (d));
  CALL(evloop_devpoll_register, (d, fd, EVLOOP_POLLIN, 1));
  CALL(evloop_devpoll_modify, (d, fd, EVLOOP_POLLIN, 2));
  CALL(evloop_devpoll_wait, (d, room.ready, 8, -1));
  CALL(evloop_devpoll_unregister, (d, fd));
  CALL(evloop_devpoll_close, (d));
}

static void call_selectors(int fd, int file) {
  uint32_t events;
  uint64_t data;
  for (int backend = EVLOOP_SELECTOR_DEFAULT; backend <= EVLOOP_SELECTOR_KQUEUE; backend++) {
    evloop_selector_t s = CALL(evloop_selector_create, (backend));
    CALL(evloop_selector_register, (s, fd, EVLOOP_SELECTOR_READ, 1));
    CALL(evloop_selector_register, (s, file, EVLOOP_SELECTOR_READ, 1));
    CALL(evloop_selector_modify, (s, fd, EVLOOP_SELECTOR_READ | EVLOOP_SELECTOR_WRITE, 2));
    CALL(evloop_selector_get, (s, fd, &events, &data));
    CALL(evloop_selector_count, (s));
    CALL(evloop_selector_wait, (s, room.ready, 8, -1));
    TRY(evloop_selector_fileno, (s));
    CALL(evloop_selector_unregister, (s, file));
    CALL(evloop_selector_close, (s));
  }
}

static int64_t kqueue_add(evloop_kqueue_t kq, uint64_t ident, int filter, int flags,
                          uint32_t fflags, int64_t data) {
  room.events[0] = change(ident, filter, flags | ADD, fflags, data, 1);
  return TRY(evloop_kqueue_control, (kq, room.events, 1, NULL, 0, 0));
}

static void fill_kqueue(evloop_kqueue_t kq, int fd, int file, pid_t child) {
  OK(kqueue_add(kq, (uint64_t)fd, KQ_READ, 0, 0, 0));
  OK(kqueue_add(kq, (uint64_t)fd, KQ_READ, EVLOOP_KQ_EV_UDATA_SPECIFIC | CLEAR, 0, 0));
  OK(kqueue_add(kq, (uint64_t)fd, KQ_WRITE, CLEAR, 0, 0));
  OK(kqueue_add(kq, 1, KQ_TIMER, 0, 0, 1));
  OK(kqueue_add(kq, 1, KQ_USER, CLEAR, TRIGGER, 0));
  OK(kqueue_add(kq, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, 0, 0, 0));
  OK(kqueue_add(kq, SIGUSR2, EVLOOP_KQ_FILTER_SIGNAL, 0, 0, 0));
  kqueue_add(kq, (uint64_t)child, EVLOOP_KQ_FILTER_PROC, 0,
             EVLOOP_KQ_NOTE_EXIT | EVLOOP_KQ_NOTE_EXITSTATUS, 0);
  OK(kqueue_add(kq, (uint64_t)file, EVLOOP_KQ_FILTER_VNODE, 0, 0x7ff, 0));
  kqueue_add(kq, 1, EVLOOP_KQ_FILTER_NETDEV, 0, EVLOOP_KQ_NOTE_LINKUP, 0);
  kqueue_add(kq, 0, EVLOOP_KQ_FILTER_FS, 0, 0xffff, 0);
}

static pid_t ended_child(void) {
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(3);
  siginfo_t info;
  OK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
  return child;
}

static void call_kqueues(int fd, int file) {
  pid_t child = ended_child();
  evloop_kqueue_t kq = CALL(evloop_kqueue_create, (0));
  int number = (int)CALL(evloop_kqueue_fileno, (kq));
  evloop_kqueue_t second = CALL(evloop_kqueue_from_fd, (number, 0));
  CALL(evloop_kqueue_close, (second));
  fill_kqueue(kq, fd, file, child);
  raise(SIGUSR1);
  raise(SIGUSR2);
  OK(fchmod(file, 0600));
  CALL(evloop_kqueue_aio_read, (kq, file, room.text, 10, 0, 1, 1));
  CALL(evloop_kqueue_aio_write, (kq, file, room.text, 10, 0, 2, 1));
  CALL(evloop_kqueue_aio_fsync, (kq, file, 0, 3, 1));
  TRY(evloop_kqueue_aio_cancel, (kq, 3));
  for (int i = 0; i < 5; i++) CALL(evloop_kqueue_control, (kq, NULL, 0, room.events, 8, 2 * MS));
  CHECK_ERR(kqueue_add(kq, CLOSED, KQ_READ, 0, 0, 0), EBADF);
  CALL(evloop_kqueue_close, (kq));
  OK(waitpid(child, NULL, 0));
  static const struct timespec moment = {0, MS};
  int bsd = (int)CALL(evloop_bsd_kqueue, ());
  room.events[0] = change((uint64_t)fd, KQ_READ, ADD, 0, 0, 1);
  CALL(evloop_bsd_kevent, (bsd, room.events, 1, room.events, 8, &moment));
  OK(close(bsd));
  /* Which finds that the one before was closed. */
  bsd = (int)CALL(evloop_bsd_kqueue, ());
  OK(close(bsd));
  bsd = (int)CALL(evloop_bsd_kqueue1, (EVLOOP_KQ_CPONFORK));
  OK(close(bsd));
  CALL(evloop_handle_close, (OK(evloop_kqueue_create(0))));
  CALL(evloop_bsd_sigaction, (sigaction, SIGUSR1, NULL, &room.action));
}

/* ---- the event loop ---- */

static evloop_watcher_t add_plain_watchers(evloop_t loop, evloop_callback_t callback) {
  CALL(evloop_add_idle, (loop, callback, NULL));
  CALL(evloop_add_prepare, (loop, callback, NULL));
  CALL(evloop_add_check, (loop, callback, NULL));
  CALL(evloop_add_defer, (loop, callback, NULL));
  CALL(evloop_add_exit, (loop, callback, NULL));
  CALL(evloop_add_clock_change, (loop, callback, NULL));
  evloop_watcher_t async = CALL(evloop_add_async, (loop, callback, NULL));
  CALL(evloop_async_send, (async));
  return async;
}

static void add_signals(evloop_t loop, evloop_callback_t callback) {
  CALL(evloop_add_signal, (loop, SIGUSR1, 0, callback, NULL));
  CALL(evloop_add_signal, (loop, SIGUSR2, EVLOOP_SIGNAL_FD, callback, NULL));
  CALL(evloop_add_signal, (loop, SIGRTMIN, 0, callback, NULL));
}

static void add_files(evloop_t loop, int file, evloop_callback_t callback) {
  uint32_t mask = EVLOOP_FILE_ATTRIB | EVLOOP_FILE_CREATE | EVLOOP_FILE_MOVED_TO;
  CALL(evloop_add_file, (loop, room.directory, mask, EVLOOP_FILE_RECURSIVE, callback, NULL));
  CALL(evloop_add_file_fd, (loop, file, EVLOOP_FILE_ATTRIB, 0, callback, NULL));
  snprintf(room.path, sizeof room.path, "%s/followed", room.directory);
  CALL(evloop_add_file, (loop, room.path, mask, EVLOOP_FILE_FOLLOW, callback, NULL));
}

static void change_watcher(evloop_watcher_t w) {
  CALL(evloop_watcher_disable, (w));
  CALL(evloop_watcher_enable, (w));
  CALL(evloop_watcher_set_priority, (w, 3));
  CALL(evloop_watcher_set_ratelimit, (w, SECOND, 1000));
  CALL(evloop_watcher_set_name, (w, "a watcher with a name"));
  CALL(evloop_watcher_get_name, (w, room.text, sizeof room.text));
  CALL(evloop_watcher_set_data, (w, 7));
  CALL(evloop_watcher_ref, (w));
  CALL(evloop_watcher_unref, (w));
  CALL(evloop_watcher_loop, (w));
  CALL(evloop_watcher_set_destroy, (w, on_event, NULL));
  room.info.size = sizeof room.info;
  CALL(evloop_watcher_info, (w, &room.info));
}

static void nothing_to_free(void *user_data) {
  (void)user_data;
}

/* Of what the loop has. */
static void ask_loop(evloop_t loop) {
  int null = (int)OK(open("/dev/null", O_WRONLY | O_CLOEXEC));
  CALL(evloop_alive, (loop));
  CALL(evloop_watchers, (loop, room.watchers, LENGTH(room.watchers)));
  TRY(evloop_find_io, (loop, null));
  CALL(evloop_dump, (loop, null));
  OK(close(null));
}

static void add_shorthands(evloop_t loop, evloop_callback_t callback) {
  evloop_watcher_t watcher = CALL(evloop_every, (loop, MS, callback, NULL));
  CALL(evloop_timer_set_tolerance, (watcher, MS));
  CALL(evloop_after, (loop, MS, callback, NULL));
  CALL(evloop_post_full, (loop, on_event, NULL, nothing_to_free));
  CALL(evloop_limit_wait_ns, (loop, MS));
  TRY(evloop_set_busy_poll, (loop, 0, 0, 0));
}

static void look_inside(evloop_t loop) {
  room.stats.size = sizeof room.stats;
  CALL(evloop_stats, (loop, &room.stats));
  for (int which = 0; which < 2; which++) {
    CALL(evloop_stats_histogram, (loop, which, room.counts, LENGTH(room.counts)));
    TRY(evloop_stats_percentile_ns, (loop, which, 50.0));
  }
  CALL(evloop_stats_bucket_ns, (5));
}

static void make_files_happen(int file) {
  snprintf(room.path, sizeof room.path, "%s/sub/made", room.directory);
  OK(mkdir(room.path, 0700));
  OK(fchmod(file, 0600));
  OK(chmod(room.directory, 0700));
}

/* What is longer than an event, of whichever kind came last. */
static void look_at_event(void) {
  TRY(evloop_event_siginfo, (&room.event, &room.siginfo));
  TRY(evloop_event_process, (&room.event, &room.process));
  TRY(evloop_event_name, (&room.event, room.text, sizeof room.text));
  TRY(evloop_event_old_name, (&room.event, room.text, sizeof room.text));
}

typedef struct Subjects {
  int fd, file, epoll, timer;
} Subjects;

/* A loop with watchers of all kinds. */
static evloop_t fill_loop(const Subjects *subjects, evloop_callback_t callback, tfd_t *out_tfd,
                          evloop_kqueue_t *out_kq) {
  memset(&room.options, 0, sizeof room.options);
  room.options.size = sizeof room.options;
  evloop_t loop = CALL(evloop_create, (&room.options));
  evloop_watcher_t io =
      CALL(evloop_add_io, (loop, subjects->fd, EVLOOP_EPOLLIN, callback, NULL));
  CALL(evloop_add_io, (loop, subjects->file, EVLOOP_EPOLLIN, callback, NULL));
  change_watcher(io);
  CALL(evloop_io_modify, (io, EVLOOP_EPOLLIN | EVLOOP_EPOLLET));
  evloop_watcher_t timer =
      CALL(evloop_add_timer, (loop, MONOTONIC, 0, MS, MS, 0, callback, NULL));
  CALL(evloop_add_timer, (loop, EVLOOP_CLOCK_REALTIME, 0, MS, 0, 0, callback, NULL));
  CALL(evloop_io_set, (io, 0));
  CALL(evloop_io_set, (io, EVLOOP_EPOLLIN | EVLOOP_EPOLLET));
  add_shorthands(loop, callback);
  CALL(evloop_timer_set, (timer, 0, 0, MS));
  CALL(evloop_timer_again, (timer));
  CALL(evloop_timer_remaining_ns, (timer));
  *out_tfd = OK(tfd_create(MONOTONIC, 0));
  OK(tfd_settime_ns(*out_tfd, 0, 1, 0, NULL, NULL));
  CALL(evloop_add_tfd, (loop, *out_tfd, callback, NULL));
  *out_kq = OK(evloop_kqueue_create(0));
  apply(*out_kq, 1, KQ_USER, ADD, TRIGGER, 0, 1);
  CALL(evloop_add_kqueue, (loop, *out_kq, callback, NULL));
  add_plain_watchers(loop, callback);
  add_signals(loop, callback);
  add_files(loop, subjects->file, callback);
  ask_loop(loop);
  TRY(evloop_add_memory_pressure, (loop, NULL, EVLOOP_PRESSURE_SOME, 100 * MS, 2 * SECOND, callback,
      NULL));
  return loop;
}

static void run_loop(evloop_t loop, const Subjects *subjects) {
  raise(SIGUSR1);
  raise(SIGUSR2);
  raise(SIGRTMIN);
  make_files_happen(subjects->file);
  CALL(evloop_post, (loop, on_event, NULL));
  CALL(evloop_run_for_ns, (loop, 5 * MS));
  OK(rmdir(room.path));
  CALL(evloop_run, (loop, EVLOOP_RUN_NOWAIT));
  CALL(evloop_run, (loop, EVLOOP_RUN_ONCE));
  for (int i = 0; i < 4; i++) {
    int n = (int)CALL(evloop_wait, (loop, room.loop_events, 8, MS));
    if (n > 0) room.event = room.loop_events[0];
    look_at_event();
  }
}

static void call_loop(const Subjects *subjects, evloop_callback_t callback) {
  tfd_t tfd;
  evloop_kqueue_t kq;
  evloop_t loop = fill_loop(subjects, callback, &tfd, &kq);
  pid_t child = ended_child();
  TRY(evloop_add_process, (loop, child, EVLOOP_PROCESS_REAP, callback, NULL));
  CALL(evloop_now_ns, (loop));
  CALL(evloop_next_timeout_ns, (loop));
  CALL(evloop_fileno, (loop));
  CALL(evloop_embed_prepare, (loop));
  CALL(evloop_embed_dispatch, (loop));
  CALL(evloop_set_stats, (loop, 1));
  CALL(evloop_trace_start, (loop, "/dev/null", 100));
  CALL(evloop_set_watchdog, (loop, HOUR, on_stuck, NULL));
  run_loop(loop, subjects);
  look_inside(loop);
  CALL(evloop_stats_reset, (loop));
  CALL(evloop_trace_stop, (loop));
  int null = (int)OK(open("/dev/null", O_WRONLY | O_CLOEXEC));
  CALL(evloop_trace_start_fd, (loop, null, 100));
  OK(close(null));
  run_loop(loop, subjects);
  CALL(evloop_trace_stop, (loop));
  CALL(evloop_set_watchdog, (loop, 0, NULL, NULL));
  CALL(evloop_set_stats, (loop, 0));
  CALL(evloop_wakeup, (loop));
  CALL(evloop_stop, (loop));
  CALL(evloop_run, (loop, EVLOOP_RUN_UNTIL_DONE));
  CALL(evloop_watcher_close, (OK(evloop_add_io(loop, subjects->epoll, 1, callback, NULL)), 0));
  CALL(evloop_close, (loop));
  waitpid(child, NULL, WNOHANG);
  OK(tfd_close(tfd));
  OK(evloop_kqueue_close(kq));
}

static void call_virtual_loop(void) {
  evloop_t loop = loop_with(EVLOOP_VIRTUAL_TIME);
  timer(loop, SECOND, 0, on_event, NULL);
  CALL(evloop_virtual_hold, (loop, 1));
  CALL(evloop_virtual_hold, (loop, -1));
  CALL(evloop_advance_ns, (loop, SECOND));
  CALL(evloop_run, (loop, EVLOOP_RUN_UNTIL_DONE));
  CALL(evloop_handle_close, (loop));
}

/* In a child, whose exit status is what `end` returns. */
static void call_in_child(const Subjects *subjects, int (*end)(void)) {
  tfd_t tfd;
  evloop_kqueue_t kq, keep = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  int status;
  evloop_t loop = fill_loop(subjects, on_event, &tfd, &kq);
  apply(keep, 1, KQ_USER, ADD, 0, 0, 1);
  /* What the thread takes over when it begins, if it has not, is lost in the
   * child, and valgrind says so. */
  if (getenv("EVLOOP_TEST_VALGRIND") == NULL) {
    OK(evloop_set_watchdog(loop, HOUR, on_stuck, NULL));
  }
  OK(evloop_set_stats(loop, 1));
  fflush(stdout);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CALL(evloop_after_fork, (loop));
    CALL(evloop_run_for_ns, (loop, 2 * MS));
    CALL(evloop_close, (loop));
    CALL(evloop_kqueue_control, (keep, NULL, 0, room.events, 8, MS));
    CALL(evloop_kqueue_close, (keep));
    fflush(stdout);
    _exit(end());
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  OK(evloop_close(loop));
  OK(tfd_close(tfd));
  OK(evloop_kqueue_close(kq));
  OK(evloop_kqueue_close(keep));
}

/* ---- all ---- */

static Subjects subjects;

/* What is done on another thread, before. */
MAYBE_UNUSED static void prepare_every_call(void) {
  sigset_t mask;
  signal(SIGUSR1, SIG_IGN);
  signal(SIGRTMIN, SIG_IGN);
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  OK(sigprocmask(SIG_BLOCK, &mask, NULL));
  strcpy(room.directory, "/tmp/evloop-every-XXXXXX");
  CHECK(mkdtemp(room.directory) != NULL);
  snprintf(room.path, sizeof room.path, "%s/sub", room.directory);
  OK(mkdir(room.path, 0700));
  int sockets[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  put(sockets[1]);
  subjects.fd = sockets[0];
  subjects.file = regular_file();
  subjects.epoll = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  subjects.timer = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
}

MAYBE_UNUSED static void make_every_call(int (*end)(void)) {
  call_library();
  call_timers(subjects.timer);
  call_select(subjects.fd);
  call_poll(subjects.fd);
  call_epoll(subjects.fd, subjects.epoll);
  call_devpoll(subjects.fd, subjects.file);
  call_selectors(subjects.fd, subjects.file);
  call_kqueues(subjects.fd, subjects.file);
  call_loop(&subjects, on_event);
  call_loop(&subjects, NULL);
  call_virtual_loop();
  call_in_child(&subjects, end);
  CHECK(room.callbacks > 0);
}

MAYBE_UNUSED static void after_every_call(void) {
  snprintf(room.path, sizeof room.path, "%s/sub", room.directory);
  OK(rmdir(room.path));
  OK(rmdir(room.directory));
}

#endif
