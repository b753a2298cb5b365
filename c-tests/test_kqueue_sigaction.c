/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* sigaction(2) and its relatives as libevloop-kqueue has them: what a program
 * does with a signal after it was watched. This program has the functions of
 * that library, so that its own calls, and libevloop's, come to them. */

#define _GNU_SOURCE
#include "kqueue_support.h"

/* The sanitizer's own functions of these names come first. */
#ifdef __SANITIZE_ADDRESS__
TEST(calls_come_to_the_library) {
  SKIP("the sanitizer's sigaction comes first");
}
#else
#include "../src/compat/sigaction.c"

#define KQ_SIGNAL EVLOOP_KQ_FILTER_SIGNAL

/* Deprecated, and still there. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* ---- helpers ---- */

static int calls; /* atomic */
static int infos; /* of these, with information; atomic */
static sigset_t mask_in_handler;

static void handle(int number) {
  (void)number;
  RAISE(calls, 1);
}

static void handle_info(int number, siginfo_t *info, void *context) {
  (void)context;
  CHECK_EQ(info->si_signo, number);
  sigprocmask(SIG_BLOCK, NULL, &mask_in_handler);
  RAISE(infos, 1);
  RAISE(calls, 1);
}

static evloop_kqueue_t watching(int number) {
  evloop_kqueue_t kq = new_kqueue();
  apply(kq, (uint64_t)number, KQ_SIGNAL, ADD, 0, 0, 7);
  return kq;
}

static int64_t next_count(evloop_kqueue_t kq, int number) {
  return expect_event(kq, (uint64_t)number, KQ_SIGNAL).data;
}

/* The action that the kernel has, without the C library's changes. */
typedef struct KernelAction {
  void (*handler)(int);
  unsigned long flags;
  void (*restorer)(void);
  uint64_t mask;
} KernelAction;

static void (*in_kernel(int number))(int) {
  KernelAction action;
  OK(syscall(SYS_rt_sigaction, number, NULL, &action, sizeof action.mask));
  return action.handler;
}

static struct sigaction asked_for(int number) {
  struct sigaction action;
  OK(sigaction(number, NULL, &action));
  return action;
}

static void set_plainly(int number, void (*handler)(int), int flags) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  action.sa_flags = flags;
  OK(sigaction(number, &action, NULL));
}

static int status_of(pid_t child) {
  int status;
  CHECK_EQ(OK(waitpid(child, &status, 0)), child);
  return status;
}

/* ---- the ways to set a disposition ---- */

typedef void (*Set(int number, void (*handler)(int)))(int);

static void (*by_sigaction(int number, void (*handler)(int)))(int) {
  struct sigaction action, old;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  OK(sigaction(number, &action, &old));
  return old.sa_handler;
}

static const struct {
  const char *name;
  Set *set;
  bool once; /* a handler is called one time */
} ways[] = {
    {"sigaction", by_sigaction, false}, {"signal", signal, false},
    {"bsd_signal", bsd_signal, false},  {"ssignal", ssignal, false},
    {"sigset", sigset, false},          {"sysv_signal", sysv_signal, true},
    {"__sysv_signal", __sysv_signal, true},
};

TEST(a_signal_that_is_ignored_after_it_was_watched_is_counted) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    evloop_kqueue_t kq = watching(SIGUSR1);
    CHECK(ways[i].set(SIGUSR1, SIG_IGN) == SIG_DFL);
    CHECK(asked_for(SIGUSR1).sa_handler == SIG_IGN);
    /* The first one too, before any call of the library. */
    for (int n = 0; n < 3; n++) {
      raise(SIGUSR1);
      CHECK(is_pending(kq));
      CHECK_EQ(next_count(kq, SIGUSR1), 1);
    }
    CHECK(ways[i].set(SIGUSR1, SIG_DFL) == SIG_IGN);
    CHECK(ways[i].set(SIGUSR1, SIG_IGN) == SIG_DFL);
    apply(kq, SIGUSR1, KQ_SIGNAL, DELETE, 0, 0, 0);
    CHECK(in_kernel(SIGUSR1) == SIG_IGN);
    set_plainly(SIGUSR1, SIG_DFL, 0);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
  }
}

TEST(a_handler_that_is_installed_later_is_called_and_the_signal_counted) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    evloop_kqueue_t kq = watching(SIGUSR1);
    int before = LOAD(calls);
    CHECK(ways[i].set(SIGUSR1, handle) == SIG_DFL);
    CHECK(in_kernel(SIGUSR1) != handle);
    raise(SIGUSR1);
    CHECK_EQ(LOAD(calls), before + 1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
    CHECK(asked_for(SIGUSR1).sa_handler == (ways[i].once ? SIG_DFL : handle));
    CHECK(ways[i].set(SIGUSR1, SIG_IGN) == (ways[i].once ? SIG_DFL : handle));
    raise(SIGUSR1);
    CHECK_EQ(LOAD(calls), before + 1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
    set_plainly(SIGUSR1, SIG_DFL, 0);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
  }
}

TEST(the_default_that_is_set_later_happens) {
  for (int i = 0; AT_ROW(i, ways); i++) {
    pid_t child = (pid_t)OK(fork());
    if (child == 0) {
      set_plainly(SIGTERM, SIG_IGN, 0);
      evloop_kqueue_t kq = watching(SIGTERM);
      raise(SIGTERM);
      CHECK_EQ(next_count(kq, SIGTERM), 1);
      ways[i].set(SIGTERM, SIG_DFL);
      raise(SIGTERM);
      _exit(0);
    }
    int status = status_of(child);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGTERM);
  }
}

TEST(what_cannot_be_is_refused_as_the_c_library_has_it) {
  struct sigaction action;
  int wrong[] = {0, -1, 65, 1000, INT32_MIN};
  for (int i = 0; AT_ROW(i, ways); i++) {
    for (int n = 0; n < LENGTH(wrong) && i > 0; n++) {
      errno = 0;
      CHECK(ways[i].set(wrong[n], handle) == SIG_ERR);
      CHECK_EQ(errno, EINVAL);
      CHECK(ways[i].set(SIGUSR1, SIG_ERR) == SIG_ERR);
    }
    errno = 0;
    if (i > 0) CHECK(ways[i].set(SIGKILL, handle) == SIG_ERR && errno == EINVAL);
  }
  for (int n = 0; AT_ROW(n, wrong); n++) {
    errno = 0;
    CHECK(sigaction(wrong[n], NULL, &action) < 0);
    CHECK_EQ(errno, EINVAL);
    CHECK(sigignore(wrong[n]) < 0);
    CHECK(siginterrupt(wrong[n], 1) < 0);
  }
  memset(&action, 0, sizeof action);
  action.sa_handler = handle;
  CHECK(sigaction(SIGKILL, &action, NULL) < 0);
  CHECK_EQ(errno, EINVAL);
  CHECK(evloop_bsd_sigaction(NULL, SIGUSR1, NULL, NULL) < 0);
  CHECK_EQ(errno, EINVAL);
  errno = 1234;
  OK(sigaction(SIGUSR1, NULL, &action));
  CHECK_EQ(errno, 1234);
}

TEST(signals_that_are_not_watched_are_set_as_ever) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  for (int i = 0; AT_ROW(i, ways); i++) {
    CHECK(ways[i].set(SIGUSR2, handle) == SIG_DFL);
    CHECK(in_kernel(SIGUSR2) == handle);
    CHECK(ways[i].set(SIGUSR2, SIG_DFL) == handle);
  }
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(ways[0].set(SIGUSR1, handle) == SIG_DFL);
  CHECK(in_kernel(SIGUSR1) == handle);
}

TEST(sigset_holds_and_releases) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  CHECK(sigset(SIGUSR1, handle) == SIG_DFL);
  CHECK(sigset(SIGUSR1, SIG_HOLD) == handle);
  raise(SIGUSR1);
  CHECK_EQ(LOAD(calls), 0);
  CHECK(sigset(SIGUSR1, SIG_HOLD) == SIG_HOLD);
  CHECK(sigset(SIGUSR1, handle) == SIG_HOLD);
  CHECK_EQ(LOAD(calls), 1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
  CHECK_EQ(sigignore(SIGUSR1), 0);
  raise(SIGUSR1);
  CHECK_EQ(LOAD(calls), 1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

/* ---- flags, masks and handlers ---- */

TEST(flags_and_masks_are_kept_and_obeyed) {
  struct sigaction action;
  evloop_kqueue_t kq = watching(SIGUSR1);
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handle_info;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigaddset(&action.sa_mask, SIGUSR2);
  sigaddset(&action.sa_mask, SIGKILL);
  OK(sigaction(SIGUSR1, &action, NULL));
  struct sigaction found = asked_for(SIGUSR1);
  CHECK(found.sa_sigaction == handle_info);
  CHECK_EQ(found.sa_flags & action.sa_flags, action.sa_flags);
  CHECK(sigismember(&found.sa_mask, SIGUSR2) == 1);
  CHECK(sigismember(&found.sa_mask, SIGTERM) == 0);
  CHECK(sigismember(&found.sa_mask, SIGKILL) == 0);
  raise(SIGUSR1);
  CHECK_EQ(LOAD(infos), 1);
  CHECK(sigismember(&mask_in_handler, SIGUSR1) == 1);
  CHECK(sigismember(&mask_in_handler, SIGUSR2) == 1);
  CHECK(sigismember(&mask_in_handler, SIGTERM) == 0);
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  OK(sigaction(SIGUSR1, &action, &found));
  CHECK_EQ(found.sa_flags & SA_RESTART, SA_RESTART);
  raise(SIGUSR1);
  CHECK(sigismember(&mask_in_handler, SIGUSR1) == 0);
  CHECK(sigismember(&mask_in_handler, SIGUSR2) == 0);
  CHECK_EQ(next_count(kq, SIGUSR1), 2);
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK(asked_for(SIGUSR1).sa_sigaction == handle_info);
}

TEST(what_was_found_may_be_put_back) {
  struct sigaction found, later;
  set_plainly(SIGUSR1, handle, SA_RESTART);
  evloop_kqueue_t kq = watching(SIGUSR1);
  OK(sigaction(SIGUSR1, NULL, &found));
  CHECK(found.sa_handler == handle);
  set_plainly(SIGUSR1, SIG_IGN, 0);
  OK(sigaction(SIGUSR1, &found, &later));
  CHECK(later.sa_handler == SIG_IGN);
  for (int i = 1; i <= 100; i++) {
    raise(SIGUSR1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
    CHECK_EQ(LOAD(calls), i);
    OK(sigaction(SIGUSR1, &found, &later));
    CHECK(later.sa_handler == handle);
  }
}

/* One call of read, which the signal interrupts. */
static bool read_fails(int number) {
  Pipe p = new_pipe();
  char byte;
  pid_t parent = getpid();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    int call_file = open("/proc/self/syscall", O_RDONLY);
    char path[64];
    close(call_file);
    snprintf(path, sizeof path, "/proc/%d/syscall", (int)parent);
    call_file = (int)OK(open(path, O_RDONLY));
    POLL_UNTIL(call_of(call_file) == SYS_read);
    kill(parent, number);
    POLL_UNTIL(call_of(call_file) == SYS_read || call_of(call_file) == SYS_wait4);
    put(p.w);
    _exit(0);
  }
  bool failed = read(p.r, &byte, 1) < 0;
  CHECK(!failed || errno == EINTR);
  while (waitpid(child, NULL, 0) < 0) CHECK_EQ(errno, EINTR);
  return failed;
}

/* valgrind's threads wait in calls of its own. */
TEST_WITHOUT_VALGRIND(calls_are_interrupted_as_siginterrupt_has_it, 20) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  signal(SIGUSR1, handle);
  CHECK(!read_fails(SIGUSR1));
  CHECK_EQ(siginterrupt(SIGUSR1, 1), 0);
  CHECK(read_fails(SIGUSR1));
  signal(SIGUSR1, handle);
  CHECK(read_fails(SIGUSR1));
  CHECK_EQ(siginterrupt(SIGUSR1, 0), 0);
  signal(SIGUSR1, handle);
  CHECK(!read_fails(SIGUSR1));
  /* What is ignored interrupts no call that can be resumed. */
  CHECK_EQ(siginterrupt(SIGUSR1, 1), 0);
  signal(SIGUSR1, SIG_IGN);
  CHECK(!read_fails(SIGUSR1));
  CHECK_EQ(next_count(kq, SIGUSR1), 5);
}

TEST(children_of_a_program_that_ignores_sigchld_later_leave_no_zombies) {
  evloop_kqueue_t kq = watching(SIGCHLD);
  for (int i = 0; i < 4; i++) {
    bool ignored = i % 2;
    signal(SIGCHLD, ignored ? SIG_IGN : SIG_DFL);
    pid_t child = (pid_t)OK(fork());
    if (child == 0) _exit(5);
    CHECK_EQ(next_count(kq, SIGCHLD), 1);
    if (ignored) CHECK(waitpid(child, NULL, 0) < 0 && errno == ECHILD);
    else CHECK_EQ(WEXITSTATUS(status_of(child)), 5);
  }
}

/* ---- in handlers ---- */

static void handle_and_install_again(int number) {
  RAISE(calls, 1);
  CHECK(signal(number, handle_and_install_again) != SIG_ERR);
}

/* As System V's programs do, since their handlers are for one time. */
TEST(a_handler_may_install_itself_again) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  set_plainly(SIGUSR1, handle_and_install_again, (int)SA_RESETHAND);
  for (int i = 1; i <= 50; i++) {
    raise(SIGUSR1);
    CHECK_EQ(LOAD(calls), i);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
  }
}

static int stop; /* atomic */

static void *change_watches(void *argument) {
  (void)argument;
  while (!LOAD(stop)) {
    evloop_kqueue_t kq = watching(SIGUSR1);
    apply(kq, SIGUSR2, KQ_SIGNAL, ADD, 0, 0, 7);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
  }
  return NULL;
}

/* The handler interrupts calls that have the lock, or allocate memory. */
TEST_TIMEOUT(handlers_may_change_dispositions_while_watches_come_and_go, 60) {
  pthread_t threads[2];
  evloop_kqueue_t kq = watching(SIGUSR1);
  signal(SIGUSR1, handle_and_install_again);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, change_watches, NULL), 0);
  }
  int sent = 0;
  while (sent < 3000 / slow_factor()) {
    int before = LOAD(calls);
    if (sent % 3 < 2) CHECK_EQ(pthread_kill(threads[sent % 3], SIGUSR1), 0);
    else raise(SIGUSR1);
    UNTIL(LOAD(calls) > before);
    sent++;
  }
  STORE(stop, 1);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  int64_t counted = 0;
  while (counted < sent) counted += next_count(kq, SIGUSR1);
  CHECK_EQ(counted, sent);
}

static void *change_dispositions(void *argument) {
  (void)argument;
  for (int i = 0; !LOAD(stop); i++) {
    if (i % 3 == 0) set_plainly(SIGUSR1, handle, 0);
    else if (i % 3 == 1) set_plainly(SIGUSR1, SIG_IGN, 0);
    else signal(SIGUSR1, handle);
  }
  return NULL;
}

TEST_TIMEOUT(no_signal_is_missed_while_dispositions_change, 60) {
  pthread_t threads[2];
  set_plainly(SIGUSR1, SIG_IGN, 0);
  evloop_kqueue_t kq = watching(SIGUSR1);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, change_dispositions, NULL), 0);
  }
  for (int sent = 0; sent < 5000 / slow_factor(); sent++) {
    raise(SIGUSR1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
  }
  STORE(stop, 1);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- other processes ---- */

static bool is_ignored_by_what_is_executed(int number, void (*in_child)(void)) {
  char text[128] = "";
  Pipe p = new_pipe();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    if (in_child != NULL) in_child();
    dup2(p.w, 1);
    execlp("grep", "grep", "SigIgn", "/proc/self/status", (char *)NULL);
    _exit(9);
  }
  CHECK_EQ(status_of(child), 0);
  OK(read(p.r, text, sizeof text - 1));
  CHECK(strncmp(text, "SigIgn:\t", 8) == 0);
  return strtoull(text + 8, NULL, 16) >> (number - 1) & 1;
}

static void ignore_it(void) {
  signal(SIGUSR1, SIG_IGN);
}

static void use_the_default(void) {
  signal(SIGUSR1, SIG_DFL);
}

TEST(what_a_child_executes_ignores_what_was_ignored) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  signal(SIGUSR1, SIG_IGN);
  CHECK(is_ignored_by_what_is_executed(SIGUSR1, NULL));
  CHECK(!is_ignored_by_what_is_executed(SIGUSR1, use_the_default));
  signal(SIGUSR1, handle);
  CHECK(!is_ignored_by_what_is_executed(SIGUSR1, NULL));
  CHECK(is_ignored_by_what_is_executed(SIGUSR1, ignore_it));
  /* Nothing of this has changed the parent's. */
  CHECK(asked_for(SIGUSR1).sa_handler == handle);
  raise(SIGUSR1);
  CHECK_EQ(LOAD(calls), 1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

__attribute__((noinline)) static void set_in_a_vfork_child(void) {
  pid_t child = vfork();
  if (child == 0) {
    struct sigaction action, old;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_IGN;
    sigaction(SIGUSR1, &action, &old);
    _exit(old.sa_handler == handle ? 0 : 9);
  }
  CHECK_EQ(status_of((pid_t)OK(child)), 0);
}

/* valgrind takes it for a fork. */
TEST_WITHOUT_VALGRIND(a_child_that_shares_the_memory_changes_its_own, 20) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  signal(SIGUSR1, handle);
  set_in_a_vfork_child();
  CHECK(asked_for(SIGUSR1).sa_handler == handle);
  raise(SIGUSR1);
  CHECK_EQ(LOAD(calls), 1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

TEST(a_child_that_watches_for_itself_has_its_own) {
  evloop_kqueue_t kq = watching(SIGUSR1);
  signal(SIGUSR1, SIG_IGN);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK(asked_for(SIGUSR1).sa_handler == SIG_IGN);
    CHECK(in_kernel(SIGUSR1) == SIG_IGN);
    evloop_kqueue_t own = watching(SIGUSR1);
    CHECK(signal(SIGUSR1, handle) == SIG_IGN);
    raise(SIGUSR1);
    CHECK_EQ(next_count(own, SIGUSR1), 1);
    CHECK_EQ(LOAD(calls), 1);
    CHECK_EQ(evloop_kqueue_close(own), 0);
    CHECK(in_kernel(SIGUSR1) == handle);
    exit(0);
  }
  CHECK_EQ(status_of(child), 0);
  CHECK(asked_for(SIGUSR1).sa_handler == SIG_IGN);
  raise(SIGUSR1);
  CHECK_EQ(next_count(kq, SIGUSR1), 1);
}

/* ---- libevloop's own calls ---- */

/* As where libevloop does not know yet what comes after this program's. */
static int through_the_programs(int number, const struct sigaction *act,
                                struct sigaction *oldact) {
  if (number > 0) return sigaction(number, act, oldact);
  errno = EINVAL;
  return -1;
}

TEST(the_librarys_own_calls_may_come_to_it) {
  for (int i = 0; i < 3; i++) {
    CHECK(evloop_bsd_sigaction(through_the_programs, 0, NULL, NULL) < 0);
    CHECK_EQ(errno, EINVAL);
    evloop_kqueue_t kq = watching(SIGUSR1);
    /* Another one of the same signal, and after changes. */
    CHECK(evloop_bsd_sigaction(through_the_programs, 0, NULL, NULL) < 0);
    evloop_kqueue_t other = watching(SIGUSR1);
    signal(SIGUSR1, handle);
    CHECK(evloop_bsd_sigaction(through_the_programs, 0, NULL, NULL) < 0);
    raise(SIGUSR1);
    CHECK_EQ(LOAD(calls), i + 1);
    CHECK_EQ(next_count(kq, SIGUSR1), 1);
    CHECK_EQ(next_count(other, SIGUSR1), 1);
    CHECK(evloop_bsd_sigaction(through_the_programs, 0, NULL, NULL) < 0);
    CHECK_EQ(evloop_kqueue_close(kq), 0);
    CHECK(evloop_bsd_sigaction(through_the_programs, 0, NULL, NULL) < 0);
    CHECK_EQ(evloop_kqueue_close(other), 0);
    CHECK(in_kernel(SIGUSR1) == handle);
    set_plainly(SIGUSR1, SIG_DFL, 0);
  }
}

/* ---- event loops ---- */

static uint64_t loop_count;

static void add_to_loop_count(const evloop_event_t *event, void *user_data) {
  (void)user_data;
  loop_count += event->count;
}

TEST(a_loops_watcher_hears_whatever_the_program_does_later) {
  evloop_t loop = OK(evloop_create(NULL));
  evloop_watcher_t watcher = OK(evloop_add_signal(loop, SIGUSR1, 0, add_to_loop_count, NULL));
  void (*handlers[])(int) = {SIG_IGN, handle, SIG_IGN, handle};
  for (int i = 0; AT_ROW(i, handlers); i++) {
    signal(SIGUSR1, handlers[i]);
    raise(SIGUSR1);
    OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
    CHECK_EQ(loop_count, i + 1);
  }
  CHECK_EQ(LOAD(calls), 2);
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  CHECK(in_kernel(SIGUSR1) == handle);
  CHECK_EQ(evloop_close(loop), 0);
}
#endif

CHECK_MAIN()
