/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: EVFILT_SIGNAL beside handlers, SIG_IGN, SIG_DFL, masks, threads. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <setjmp.h>
#include <sys/stat.h>

#define KQ_SIGNAL EVLOOP_KQ_FILTER_SIGNAL

/* ---- helpers ---- */

static volatile sig_atomic_t calls;
static siginfo_t last_info;
static sigset_t last_mask;

static void count_call(int number) {
  (void)number;
  calls++;
}

static void note_call(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  calls++;
  last_info = *info;
  pthread_sigmask(SIG_SETMASK, NULL, &last_mask);
}

static void install(int number, void (*handler)(int), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags;
  OK(sigaction(number, &action, NULL));
}

static struct sigaction installed(int number) {
  struct sigaction action;
  OK(sigaction(number, NULL, &action));
  return action;
}

static void watch(evloop_kqueue_t kq, int number) {
  apply(kq, (uint64_t)number, KQ_SIGNAL, ADD, 0, 0, 7);
}

static int64_t next_count(evloop_kqueue_t kq, int number) {
  Event event = expect_event(kq, (uint64_t)number, KQ_SIGNAL);
  CHECK_EQ(event.udata, 7);
  return event.data;
}

static void set_blocked(int number, bool blocked) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  CHECK_EQ(pthread_sigmask(blocked ? SIG_BLOCK : SIG_UNBLOCK, &set, NULL), 0);
}

static int status_of(pid_t child, int options) {
  int status;
  CHECK_EQ(OK(waitpid(child, &status, options)), child);
  return status;
}

/* ---- counting ---- */

TEST(an_ignored_signal_is_counted_and_ignored) {
  install(SIGUSR1, SIG_IGN, 0);
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGUSR1);
  expect_nothing(kq);
  for (int i = 0; i < 3; i++) raise(SIGUSR1);
  CHECK(is_pending(kq));
  Event event = expect_event(kq, SIGUSR1, KQ_SIGNAL);
  CHECK_EQ(event.data, 3);
  CHECK_EQ(event.flags, CLEAR);
  CHECK_EQ(event.fflags, 0);
  expect_nothing(kq);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

TEST(what_is_no_signal_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  uint64_t wrong[] = {0, 65, SIGKILL, SIGSTOP, UINT64_C(1) << 40, UINT64_MAX};
  for (int i = 0; AT_ROW(i, wrong); i++) {
    CHECK_ERR(try_change(kq, wrong[i], KQ_SIGNAL, ADD, 0, 0, 0), EINVAL);
  }
  CHECK_ERR(try_change(kq, SIGUSR1, KQ_SIGNAL, ADD, 1, 0, 0), EINVAL);
  CHECK(installed(SIGUSR1).sa_handler == SIG_DFL);
  CHECK_ERR(try_change(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 0), ENOENT);
}

TEST(real_time_signals_are_counted_one_by_one) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGRTMIN, SIG_IGN, 0);
  watch(kq, SIGRTMIN);
  set_blocked(SIGRTMIN, true);
  for (int i = 0; i < 5; i++) raise(SIGRTMIN);
  set_blocked(SIGRTMIN, false);
  CHECK_EQ(next_count(kq, SIGRTMIN), 5);
}

TEST(a_disabled_signal_is_counted) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, SIG_IGN, 0);
  watch(kq, SIGUSR1);
  apply(kq, SIGUSR1, KQ_SIGNAL, DISABLE, 0, 0, 7);
  raise(SIGUSR1);
  raise(SIGUSR1);
  CHECK(!is_pending(kq));
  expect_nothing(kq);
  apply(kq, SIGUSR1, KQ_SIGNAL, ENABLE, 0, 0, 7);
  CHECK(is_pending(kq));
  CHECK_EQ(next_count(kq, SIGUSR1), 2);
  apply(kq, SIGUSR2, KQ_SIGNAL, ADD | DISABLE, 0, 0, 7);
  install(SIGUSR2, SIG_IGN, 0);
  expect_nothing(kq);
  raise(SIGUSR2);
  CHECK(!is_pending(kq));
  apply(kq, SIGUSR2, KQ_SIGNAL, ENABLE, 0, 0, 7);
  CHECK_EQ(next_count(kq, SIGUSR2), 1);
}

TEST(oneshot_and_dispatch_are_obeyed) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, SIG_IGN, 0);
  apply(kq, SIGUSR1, KQ_SIGNAL, ADD | DISPATCH, 0, 0, 7);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  raise(SIGUSR1);
  expect_nothing(kq);
  apply(kq, SIGUSR1, KQ_SIGNAL, ENABLE, 0, 0, 7);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  apply(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 0);
  apply(kq, SIGUSR1, KQ_SIGNAL, ADD | ONESHOT, 0, 0, 7);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  CHECK_ERR(try_change(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 0), ENOENT);
  CHECK(installed(SIGUSR1).sa_handler == SIG_IGN);
}

TEST(each_queue_and_each_udata_has_its_own_count) {
  evloop_kqueue_t a = new_kqueue(), b = new_kqueue();
  int specific = EVLOOP_KQ_EV_UDATA_SPECIFIC;
  install(SIGUSR1, SIG_IGN, 0);
  watch(a, SIGUSR1);
  apply(b, SIGUSR1, KQ_SIGNAL, ADD | specific, 0, 0, 1);
  raise(SIGUSR1);
  apply(b, SIGUSR1, KQ_SIGNAL, ADD | specific, 0, 0, 2);
  raise(SIGUSR1);
  CHECK_EQ(next_count(a, SIGUSR1), 2);
  Event events[4];
  CHECK_EQ(take(b, events, 4, -1), 2);
  CHECK_EQ(events[0].udata + events[1].udata, 3);
  for (int i = 0; i < 2; i++) CHECK_EQ(events[i].data, events[i].udata == 1 ? 2 : 1);
  CHECK_EQ(evloop_kqueue_close(a), 0);
  raise(SIGUSR1);
  CHECK_EQ(take(b, events, 4, -1), 2);
  CHECK_EQ(evloop_kqueue_close(b), 0);
  CHECK(installed(SIGUSR1).sa_handler == SIG_IGN);
}

/* ---- beside what the program does with the signal ---- */

TEST(the_programs_handler_is_called_with_its_information) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = note_call;
  action.sa_flags = SA_SIGINFO;
  sigaddset(&action.sa_mask, SIGUSR2);
  OK(sigaction(SIGUSR1, &action, NULL));
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGUSR1);
  union sigval value = {.sival_int = 4711};
  errno = 1234;
  int result = sigqueue(getpid(), SIGUSR1, value);
  CHECK_EQ(errno, 1234);
  CHECK_EQ(result, 0);
  /* valgrind does not deliver it before the call returns. */
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  CHECK_EQ(calls, 1);
  CHECK_EQ(last_info.si_value.sival_int, 4711);
  CHECK_EQ(last_info.si_pid, getpid());
  CHECK(sigismember(&last_mask, SIGUSR1) == 1);
  CHECK(sigismember(&last_mask, SIGUSR2) == 1);
  CHECK(sigismember(&last_mask, SIGTERM) == 0);
  apply(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 0);
  action = installed(SIGUSR1);
  CHECK(action.sa_sigaction == note_call);
  CHECK(sigismember(&action.sa_mask, SIGUSR2) == 1);
}

TEST(a_handlers_flags_are_obeyed) {
  install(SIGUSR1, count_call, SA_RESETHAND | SA_NODEFER | SA_ONSTACK | SA_RESTART);
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGUSR1);
  int flags = installed(SIGUSR1).sa_flags;
  int kept = SA_NODEFER | SA_ONSTACK | SA_RESTART;
  CHECK_EQ(flags & kept, kept);
  CHECK(!(flags & SA_RESETHAND));
  raise(SIGUSR1);
  CHECK_EQ(calls, 1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  /* Now the default, which ends it. */
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    raise(SIGUSR1);
    _exit(0);
  }
  int status = status_of(child, 0);
  CHECK(WIFSIGNALED(status));
  CHECK_EQ(WTERMSIG(status), SIGUSR1);
  apply(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 0);
  CHECK(installed(SIGUSR1).sa_handler == SIG_DFL);
}

static sigjmp_buf back;

static void jump(int number) {
  (void)number;
  siglongjmp(back, 1);
}

TEST(a_handler_may_jump_out) {
  install(SIGUSR1, jump, 0);
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGUSR1);
  for (volatile int i = 0; i < 3; i++) {
    if (sigsetjmp(back, 1) == 0) {
      raise(SIGUSR1);
      CHECK(false);
    }
  }
  CHECK_EQ(next_count(kq, SIGUSR1), 3);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(installed(SIGUSR1).sa_handler == jump);
}

TEST(the_default_ends_the_process) {
  int ends[] = {SIGTERM, SIGHUP, SIGINT, SIGUSR1, SIGALRM};
  for (int i = 0; AT_ROW(i, ends); i++) {
    pid_t child = (pid_t)OK(fork());
    if (child == 0) {
      install(ends[i], SIG_DFL, 0);
      evloop_kqueue_t kq = new_kqueue();
      watch(kq, ends[i]);
      raise(ends[i]);
      _exit(1);
    }
    int status = status_of(child, 0);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), ends[i]);
  }
}

/* valgrind stops no process. */
TEST_WITHOUT_VALGRIND(the_default_stops_the_process, 20) {
  Pipe p = new_pipe();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    /* A group with a parent outside of it, or else it would not stop. */
    setpgid(0, 0);
    evloop_kqueue_t kq = new_kqueue();
    watch(kq, SIGTSTP);
    for (int i = 1; i <= 2; i++) {
      raise(SIGTSTP);
      CHECK_EQ(next_count(kq, SIGTSTP), 1);
    }
    put(p.w);
    exit(0);
  }
  for (int i = 0; i < 2; i++) {
    int status = status_of(child, WUNTRACED);
    CHECK(WIFSTOPPED(status));
    CHECK_EQ(WSTOPSIG(status), SIGTSTP);
    OK(kill(child, SIGCONT));
  }
  CHECK_EQ(status_of(child, 0), 0);
  CHECK(readable(p.r, 0));
}

TEST(what_is_ignored_by_default_is_counted) {
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGCHLD);
  watch(kq, SIGWINCH);
  raise(SIGWINCH);
  CHECK_EQ(next_count(kq, SIGWINCH), 1);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(5);
  CHECK_EQ(next_count(kq, SIGCHLD), 1);
  CHECK_EQ(WEXITSTATUS(status_of(child, 0)), 5);
}

TEST(children_of_who_ignores_sigchld_leave_no_zombies) {
  install(SIGCHLD, SIG_IGN, 0);
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGCHLD);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(5);
  CHECK_EQ(next_count(kq, SIGCHLD), 1);
  CHECK(waitpid(child, NULL, 0) < 0);
  CHECK_EQ(errno, ECHILD);
}

/* ---- handlers that come later ---- */

static struct sigaction found;

static void call_found(int number, siginfo_t *info, void *context) {
  calls++;
  CHECK(found.sa_flags & SA_SIGINFO);
  found.sa_sigaction(number, info, context);
}

TEST(a_handler_installed_later_is_called_too) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, SIG_IGN, 0);
  watch(kq, SIGUSR1);
  install(SIGUSR1, count_call, 0);
  expect_nothing(kq);
  raise(SIGUSR1);
  CHECK_EQ(calls, 1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  /* Back and forth, again and again: nothing runs out. */
  for (int i = 0; i < 100; i++) {
    install(SIGUSR1, i % 2 ? count_call : SIG_IGN, 0);
    expect_nothing(kq);
    raise(SIGUSR1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
  }
  CHECK_EQ(calls, 51);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(installed(SIGUSR1).sa_handler == count_call);
}

TEST(a_handler_that_calls_the_one_before_does_not_count_twice) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, count_call, 0);
  watch(kq, SIGUSR1);
  struct sigaction over;
  memset(&over, 0, sizeof over);
  over.sa_sigaction = call_found;
  over.sa_flags = SA_SIGINFO;
  OK(sigaction(SIGUSR1, &over, &found));
  /* Below: called by the program's handler. */
  raise(SIGUSR1);
  CHECK_EQ(calls, 2);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  /* On top again, and below, too. */
  CHECK(installed(SIGUSR1).sa_sigaction != call_found);
  raise(SIGUSR1);
  CHECK_EQ(calls, 4);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  /* The program puts back what it found. */
  OK(sigaction(SIGUSR1, &found, NULL));
  raise(SIGUSR1);
  expect_event(kq, SIGUSR1, KQ_SIGNAL);
  CHECK_EQ(calls, 5);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(installed(SIGUSR1).sa_handler == count_call);
  OK(sigaction(SIGUSR1, &over, NULL));
  raise(SIGUSR1);
  CHECK_EQ(calls, 7);
}

/* Of the handlers that the program lays one over the other. */
static struct sigaction below[32];
static volatile sig_atomic_t deepest;

#define OVER(n)                                                     \
  static void over_##n(int number, siginfo_t *info, void *context) { \
    calls++;                                                        \
    deepest = n > deepest ? n : deepest;                            \
    below[n].sa_sigaction(number, info, context);                   \
  }
OVER(0) OVER(1) OVER(2) OVER(3) OVER(4) OVER(5) OVER(6) OVER(7) OVER(8) OVER(9) OVER(10)
OVER(11) OVER(12) OVER(13) OVER(14) OVER(15) OVER(16) OVER(17)

TEST(sixteen_handlers_may_lie_over_one_another) {
  void (*handlers[])(int, siginfo_t *, void *) = {
      over_0, over_1,  over_2,  over_3,  over_4,  over_5,  over_6,  over_7,  over_8,
      over_9, over_10, over_11, over_12, over_13, over_14, over_15, over_16, over_17};
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, SIG_IGN, 0);
  watch(kq, SIGUSR1);
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_flags = SA_SIGINFO;
  for (int i = 0; i < 18; i++) {
    Event events[2];
    action.sa_sigaction = handlers[i];
    OK(sigaction(SIGUSR1, &action, &below[i]));
    if (i >= 15) {
      CHECK_ERR(take(kq, events, 2, 0), EBUSY);
      break;
    }
    expect_nothing(kq);
    calls = 0;
    raise(SIGUSR1);
    CHECK_EQ(calls, i + 1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
  }
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

/* ---- waking ---- */

typedef struct Taker {
  evloop_kqueue_t kq;
  Event events[4];
  int result;
  pid_t tid;
  pthread_t thread;
} Taker;

static void *taker_main(void *argument) {
  Taker *t = (Taker *)argument;
  store_tid(&t->tid);
  t->result = take(t->kq, t->events, 4, -1);
  return NULL;
}

static void start_taker(Taker *t, evloop_kqueue_t kq) {
  memset(t, 0, sizeof *t);
  t->kq = kq;
  CHECK_EQ(pthread_create(&t->thread, NULL, taker_main, t), 0);
  wait_until_asleep(&t->tid);
}

TEST(a_signal_wakes_a_thread_that_waits) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, SIG_IGN, 0);
  watch(kq, SIGUSR1);
  Taker t;
  start_taker(&t, kq);
  /* To this thread, and not to the one that waits. */
  raise(SIGUSR1);
  CHECK_EQ(pthread_join(t.thread, NULL), 0);
  CHECK_EQ(t.result, 1);
  CHECK_EQ(t.events[0].data, 1);
}

TEST(a_signal_to_another_thread_is_counted) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, SIG_IGN, 0);
  watch(kq, SIGUSR1);
  Taker t;
  evloop_kqueue_t other = new_kqueue();
  apply(other, 1, KQ_USER, ADD, 0, 0, 0);
  start_taker(&t, other);
  CHECK_EQ(pthread_kill(t.thread, SIGUSR1), 0);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  apply(other, 1, KQ_USER, 0, TRIGGER, 0, 0);
  CHECK_EQ(pthread_join(t.thread, NULL), 0);
}

TEST(an_interrupted_wait_returns_the_signal_that_it_waits_for) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGALRM, SIG_IGN, 0);
  watch(kq, SIGALRM);
  CHECK(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN) >= 0);
  for (int i = 0; i < 20; i++) {
    ualarm(2000, 0);
    CHECK_EQ(next_count(kq, SIGALRM), 1);
  }
}

TEST(the_descriptor_is_readable_while_a_signal_is_counted) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGALRM, SIG_IGN, 0);
  watch(kq, SIGALRM);
  int fd = (int)OK(evloop_kqueue_fileno(kq));
  struct pollfd pollfd = {fd, POLLIN, 0};
  ualarm(2000, 0);
  while (poll(&pollfd, 1, -1) < 0) CHECK_EQ(errno, EINTR);
  CHECK_EQ(pollfd.revents, POLLIN);
  CHECK_EQ(next_count(kq, SIGALRM), 1);
  CHECK(!is_pending(kq));
}

/* ---- blocked ---- */

TEST(a_blocked_signal_is_taken) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, count_call, 0);
  set_blocked(SIGUSR1, true);
  raise(SIGUSR1);
  watch(kq, SIGUSR1);
  CHECK(installed(SIGUSR1).sa_handler == count_call);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  expect_nothing(kq);
  OK(kill(getpid(), SIGUSR1));
  OK(kill(getpid(), SIGUSR1));
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  install(SIGRTMIN, SIG_DFL, 0);
  set_blocked(SIGRTMIN, true);
  watch(kq, SIGRTMIN);
  for (int i = 0; i < 4; i++) raise(SIGRTMIN);
  CHECK_EQ(next_count(kq, SIGRTMIN), 4);
  apply(kq, SIGRTMIN, KQ_SIGNAL, DELETE, 0, 0, 0);
  raise(SIGRTMIN);
  expect_nothing(kq);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK_EQ(calls, 0);
  set_blocked(SIGUSR1, false);
  CHECK_EQ(calls, 0);
}

TEST(a_blocked_signal_is_counted_while_disabled) {
  evloop_kqueue_t kq = new_kqueue();
  set_blocked(SIGUSR1, true);
  apply(kq, SIGUSR1, KQ_SIGNAL, ADD | DISABLE, 0, 0, 7);
  raise(SIGUSR1);
  expect_nothing(kq);
  raise(SIGUSR1);
  expect_nothing(kq);
  apply(kq, SIGUSR1, KQ_SIGNAL, ENABLE, 0, 0, 7);
  CHECK_EQ(next_count(kq, SIGUSR1), 2);
}

/* Pending at once they would be one. */
TEST(blocked_signals_of_before_and_after_a_change_are_two) {
  evloop_kqueue_t kq = new_kqueue();
  set_blocked(SIGUSR1, true);
  apply(kq, SIGUSR1, KQ_SIGNAL, ADD, 0, 0, 7);
  raise(SIGUSR1);
  apply(kq, SIGUSR1, KQ_SIGNAL, DISABLE, 0, 0, 7);
  raise(SIGUSR1);
  apply(kq, SIGUSR1, KQ_SIGNAL, ENABLE, 0, 0, 7);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 3);
  expect_nothing(kq);
}

/* ---- several that watch one signal ---- */

/* However a signal is seen, all queues and loops that watch it count it. */

static uint64_t loop_count;

static void add_to_loop_count(const evloop_event_t *event, void *user_data) {
  (void)user_data;
  loop_count += event->count;
}

TEST(every_queue_and_loop_counts_a_blocked_signal) {
  int numbers[] = {SIGUSR1, SIGRTMIN + 2};
  for (int n = 0; AT_ROW(n, numbers); n++) {
    int number = numbers[n];
    evloop_kqueue_t queues[3];
    evloop_t loop = OK(evloop_create(NULL));
    loop_count = 0;
    set_blocked(number, true);
    for (int i = 0; i < 3; i++) watch(queues[i] = new_kqueue(), number);
    OK(evloop_add_signal(loop, number, EVLOOP_SIGNAL_FD, add_to_loop_count, NULL));
    for (int round = 0; round < 12; round++) {
      OK(kill(getpid(), number));
      /* Each of them is the first to look. */
      for (int i = 0; i < 4; i++) {
        int which = (round + i) % 4;
        if (which == 3) {
          OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
          CHECK_EQ(loop_count, round + 1);
        } else {
          CHECK(is_pending(queues[which]));
          CHECK_EQ(next_count(queues[which], number), 1);
        }
      }
    }
    for (int i = 0; i < 3; i++) {
      expect_nothing(queues[i]);
      CHECK_EQ(evloop_kqueue_close(queues[i]), 0);
    }
    CHECK_EQ(evloop_close(loop), 0);
  }
}

TEST(a_queue_that_waits_is_woken_though_another_one_has_read_the_signal) {
  Taker takers[2];
  set_blocked(SIGUSR1, true);
  evloop_kqueue_t kq = new_kqueue();
  watch(kq, SIGUSR1);
  for (int i = 0; i < 2; i++) {
    evloop_kqueue_t other = new_kqueue();
    watch(other, SIGUSR1);
    start_taker(&takers[i], other);
  }
  OK(kill(getpid(), SIGUSR1));
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_join(takers[i].thread, NULL), 0);
    CHECK_EQ(takers[i].result, 1);
    CHECK_EQ(takers[i].events[0].data, 1);
  }
}

TEST(a_queue_with_a_handler_and_one_with_a_signalfd_both_count) {
  evloop_kqueue_t by_handler = new_kqueue(), by_fd = new_kqueue();
  install(SIGUSR1, count_call, 0);
  watch(by_handler, SIGUSR1);
  set_blocked(SIGUSR1, true);
  watch(by_fd, SIGUSR1);
  /* Read from the signalfd. */
  raise(SIGUSR1);
  CHECK_EQ(next_count(by_fd, SIGUSR1), 1);
  CHECK_EQ(next_count(by_handler, SIGUSR1), 1);
  CHECK_EQ(calls, 0);
  /* Seen by the handler. */
  set_blocked(SIGUSR1, false);
  raise(SIGUSR1);
  CHECK_EQ(next_count(by_handler, SIGUSR1), 1);
  CHECK_EQ(next_count(by_fd, SIGUSR1), 1);
  CHECK_EQ(calls, 1);
  CHECK_EQ(evloop_kqueue_close(by_handler), 0);
  CHECK(installed(SIGUSR1).sa_handler == count_call);
}

/* ---- processes that the subscribers are not of ---- */

/* Makes every free descriptor up to 60 a duplicate of this file. */
static int fill_fds_with(int file) {
  int last = file;
  while (last < 60) last = (int)OK(fcntl(file, F_DUPFD_CLOEXEC, 3));
  return last;
}

static off_t size_of(int fd) {
  struct stat stat;
  OK(fstat(fd, &stat));
  return stat.st_size;
}

static pid_t fork_by_system_call(void) {
  return (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

/* A queue that is closed, one that is open, and a loop: their signal handlers
 * write to descriptors that the child uses for other files. */
static void watch_and_leave(void) {
  evloop_kqueue_t left = new_kqueue();
  watch(left, SIGUSR1);
  watch(new_kqueue(), SIGUSR1);
  OK(evloop_add_signal(OK(evloop_create(NULL)), SIGUSR1, 0, add_to_loop_count, NULL));
  CHECK_EQ(evloop_kqueue_close(left), 0);
}

static void signal_in_a_child(pid_t (*forks)(void)) {
  install(SIGUSR1, count_call, 0);
  watch_and_leave();
  int file = regular_file();
  pid_t child = (pid_t)OK(forks());
  if (child == 0) {
    for (int fd = 3; fd < 60; fd++) {
      if (fd != file) close(fd);
    }
    fill_fds_with(file);
    /* musl's raise() knows only children of its own fork(). */
    kill(getpid(), SIGUSR1);
    _exit(calls == 1 ? 0 : 9);
  }
  CHECK_EQ(status_of(child, 0), 0);
  CHECK_EQ(size_of(file), 0);
}

TEST(a_signal_in_a_child_before_its_first_call_writes_nothing) {
  signal_in_a_child(fork);
}

/* valgrind allows few kinds of clone(2). */
TEST_WITHOUT_VALGRIND(a_signal_in_a_child_of_a_bare_fork_writes_nothing, 20) {
  signal_in_a_child(fork_by_system_call);
}

TEST(a_signal_in_a_child_at_once_finds_no_old_descriptor) {
  install(SIGUSR1, count_call, 0);
  watch_and_leave();
  int file = regular_file();
  fill_fds_with(file);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    raise(SIGUSR1);
    _exit(calls == 1 ? 0 : 9);
  }
  CHECK_EQ(status_of(child, 0), 0);
  CHECK_EQ(size_of(file), 0);
}

/* Where the memory is shared the child calls nothing but the system. */
__attribute__((noinline)) static void signal_in_a_vfork_child(int file) {
  pid_t child = vfork();
  if (child == 0) {
    for (int fd = 3; fd < 60; fd++) {
      if (fd != file) syscall(SYS_dup3, file, fd, 0);
    }
    syscall(SYS_kill, syscall(SYS_getpid), SIGUSR1);
    _exit(0);
  }
  CHECK_EQ(status_of((pid_t)OK(child), 0), 0);
}

/* valgrind takes it for a fork. */
TEST_WITHOUT_VALGRIND(a_signal_in_a_child_that_shares_the_memory_is_not_counted, 20) {
  evloop_kqueue_t kq = new_kqueue();
  evloop_t loop = OK(evloop_create(NULL));
  loop_count = 0;
  install(SIGUSR1, count_call, 0);
  watch(kq, SIGUSR1);
  OK(evloop_add_signal(loop, SIGUSR1, 0, add_to_loop_count, NULL));
  int file = regular_file();
  signal_in_a_vfork_child(file);
  CHECK_EQ(calls, 1);
  CHECK_EQ(size_of(file), 0);
  expect_nothing(kq);
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(loop_count, 0);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  CHECK_EQ(loop_count, 1);
}

TEST_WITHOUT_VALGRIND(a_handler_for_one_time_is_not_used_up_by_a_child_that_shares_the_memory,
                      20) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, count_call, SA_RESETHAND);
  watch(kq, SIGUSR1);
  signal_in_a_vfork_child(regular_file());
  CHECK_EQ(calls, 1);
  raise(SIGUSR1);
  CHECK_EQ(calls, 2);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

TEST(a_signal_writes_nothing_where_the_queues_descriptors_were_closed) {
  install(SIGUSR1, SIG_IGN, 0);
  watch(new_kqueue(), SIGUSR1);
  int file = regular_file();
  for (int fd = 3; fd < 60; fd++) {
    if (fd != file) close(fd);
  }
  fill_fds_with(file);
  raise(SIGUSR1);
  CHECK_EQ(size_of(file), 0);
}

TEST(what_a_child_executes_finds_what_the_program_asked_for) {
  void (*handlers[])(int) = {SIG_IGN, SIG_DFL, count_call};
  for (int i = 0; AT_ROW(i, handlers); i++) {
    char text[128] = "";
    Pipe p = new_pipe();
    install(SIGUSR1, handlers[i], 0);
    evloop_kqueue_t kq = new_kqueue();
    watch(kq, SIGUSR1);
    pid_t child = (pid_t)OK(fork());
    if (child == 0) {
      dup2(p.w, 1);
      execlp("grep", "grep", "SigIgn", "/proc/self/status", (char *)NULL);
      _exit(9);
    }
    CHECK_EQ(status_of(child, 0), 0);
    OK(read(p.r, text, sizeof text - 1));
    CHECK(strncmp(text, "SigIgn:\t", 8) == 0);
    unsigned long long ignored = strtoull(text + 8, NULL, 16);
    CHECK_EQ(ignored >> (SIGUSR1 - 1) & 1, handlers[i] == SIG_IGN);
    CHECK(installed(SIGUSR1).sa_handler != handlers[i]);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
    CHECK(installed(SIGUSR1).sa_handler == handlers[i]);
  }
}

/* ---- descriptors, forks, threads ---- */

TEST(descriptors_go_with_the_last_signal) {
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  watch(kq, SIGUSR1);
  watch(kq, SIGUSR2);
  CHECK_EQ(open_descriptors(), before + 1);
  set_blocked(SIGWINCH, true);
  set_blocked(SIGURG, true);
  watch(kq, SIGWINCH);
  watch(kq, SIGURG);
  CHECK_EQ(open_descriptors(), before + 2);
  int all[] = {SIGUSR1, SIGUSR2, SIGWINCH, SIGURG};
  for (int i = 0; i < 4; i++) apply(kq, (uint64_t)all[i], KQ_SIGNAL, DELETE, 0, 0, 0);
  CHECK_EQ(open_descriptors(), before);
}

TEST(without_a_descriptor_left_nothing_is_left_behind) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, count_call, 0);
  int last = (int)OK(dup(0));
  set_limit((rlim_t)last + 1);
  CHECK_ERR(try_change(kq, SIGUSR1, KQ_SIGNAL, ADD, 0, 0, 7), EMFILE);
  CHECK(installed(SIGUSR1).sa_handler == count_call);
  CHECK_ERR(try_change(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 7), ENOENT);
  OK(close(last));
  watch(kq, SIGUSR1);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  /* Room for checkers that run at exit. */
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

TEST(a_forked_child_counts_for_itself) {
  evloop_kqueue_t kq = new_kqueue();
  install(SIGUSR1, count_call, 0);
  watch(kq, SIGUSR1);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    raise(SIGUSR1);
    CHECK_EQ(calls, 1);
    evloop_kqueue_t own = new_kqueue();
    watch(own, SIGUSR1);
    raise(SIGUSR1);
    CHECK_EQ(next_count(own, SIGUSR1), 1);
    CHECK_EQ(calls, 2);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
    CHECK_EQ(evloop_kqueue_close(own), 0);
    CHECK(installed(SIGUSR1).sa_handler == count_call);
    exit(0);
  }
  CHECK_EQ(status_of(child, 0), 0);
  expect_nothing(kq);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

TEST(a_kept_queue_counts_the_childs_signals_in_the_child) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  install(SIGUSR1, SIG_IGN, 0);
  set_blocked(SIGUSR2, true);
  watch(kq, SIGUSR1);
  watch(kq, SIGUSR2);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    expect_nothing(kq);
    raise(SIGUSR1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
    raise(SIGUSR2);
    CHECK_EQ(next_count(kq, SIGUSR2), 1);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
    CHECK(installed(SIGUSR1).sa_handler == SIG_IGN);
    exit(0);
  }
  CHECK_EQ(status_of(child, 0), 0);
  expect_nothing(kq);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  raise(SIGUSR2);
  CHECK_EQ(next_count(kq, SIGUSR2), 1);
}

typedef struct Sender {
  pthread_t target;
  int left;
} Sender;

static void *sender_main(void *argument) {
  Sender *s = (Sender *)argument;
  /* To each other's threads: handlers run in both at once. */
  while (s->left-- > 0) raise(s->left % 2 ? SIGUSR1 : SIGUSR2);
  return NULL;
}

TEST_TIMEOUT(signals_arrive_while_queues_come_and_go, 60) {
  enum { SENT = 4000 };
  evloop_kqueue_t kq = new_kqueue();
  Sender senders[2] = {{pthread_self(), SENT}, {pthread_self(), SENT}};
  pthread_t threads[2];
  int64_t counted = 0;
  install(SIGUSR1, SIG_IGN, 0);
  install(SIGUSR2, SIG_IGN, 0);
  watch(kq, SIGUSR1);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, sender_main, &senders[i]), 0);
  }
  for (int i = 0; i < 200; i++) {
    evloop_kqueue_t other = new_kqueue();
    watch(other, SIGUSR2);
    watch(other, SIGUSR1);
    Event events[4];
    int taken = (int)OK(take(kq, events, 4, 0));
    if (taken > 0) counted += events[0].data;
    CHECK_EQ(evloop_kqueue_close(other), 0);
  }
  while (counted < SENT) counted += next_count(kq, SIGUSR1);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(counted, SENT);
  expect_nothing(kq);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(installed(SIGUSR2).sa_handler == SIG_IGN);
}

CHECK_MAIN()
