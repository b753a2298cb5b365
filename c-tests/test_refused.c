/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Where a sandbox answers EPERM or ENOSYS to a system call, the sentence says
 * which call that was, and not what the caller might lack. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

static evloop_t loop;
static evloop_kqueue_t kq;

static void ignore_event(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

/* ---- what needs a descriptor ---- */

static int clockid;

static int64_t make_tfd(void) {
  return tfd_create(clockid, 0);
}

static int64_t add_timer(void) {
  return evloop_add_timer(loop, clockid, 0, 1, 0, 0, ignore_event, NULL);
}

static int64_t make_epoll(void) {
  return evloop_epoll_create(0);
}

static int64_t make_selector(void) {
  return evloop_selector_create(EVLOOP_SELECTOR_EPOLL);
}

static int64_t make_kqueue(void) {
  return evloop_kqueue_create(0);
}

static int64_t make_loop(void) {
  return evloop_create(NULL);
}

static int64_t fileno_of_loop(void) {
  return evloop_fileno(loop);
}

static int64_t add_file(void) {
  return evloop_add_file(loop, "/tmp", EVLOOP_FILE_CREATE, 0, ignore_event, NULL);
}

static int64_t add_signal(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
  return evloop_add_signal(loop, SIGUSR1, EVLOOP_SIGNAL_FD, ignore_event, NULL);
}

static int64_t add_process(void) {
  return evloop_add_process(loop, getpid(), 0, ignore_event, NULL);
}

static int64_t change_timer(void) {
  return try_change(kq, 1, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_ABSTIME, INT64_MAX / 1000000, 0);
}

static int64_t change_vnode(void) {
  int fd = (int)OK(open("/", O_RDONLY | O_CLOEXEC));
  int64_t result = try_change(kq, (uint64_t)fd, EVLOOP_KQ_FILTER_VNODE, ADD,
                              EVLOOP_KQ_NOTE_DELETE, 0, 0);
  OK(close(fd));
  return result;
}

static int64_t change_netdev(void) {
  return try_change(kq, 1, EVLOOP_KQ_FILTER_NETDEV, ADD, EVLOOP_KQ_NOTE_LINKUP, 0, 0);
}

typedef struct Refusal {
  int call;
  const char *name;
  int64_t (*make)(void);
} Refusal;

static const Refusal refusals[] = {
    {SYS_epoll_create1, "epoll_create1(2)", make_epoll},
    {SYS_epoll_create1, "epoll_create1(2)", make_selector},
    {SYS_epoll_create1, "epoll_create1(2)", make_kqueue},
    {SYS_epoll_create1, "epoll_create1(2)", make_loop},
    {SYS_epoll_create1, "epoll_create1(2)", fileno_of_loop},
    {SYS_eventfd2, "eventfd(2)", make_loop},
    {SYS_eventfd2, "eventfd(2)", make_kqueue},
    {SYS_timerfd_create, "timerfd_create(2)", make_kqueue},
    {SYS_timerfd_create, "timerfd_create(2)", change_timer},
    {SYS_inotify_init1, "inotify_init1(2)", add_file},
    {SYS_inotify_init1, "inotify_init1(2)", change_vnode},
    {SYS_signalfd4, "signalfd(2)", add_signal},
    {SYS_pidfd_open, "pidfd_open(2)", add_process},
    {SYS_socket, "socket(2)", change_netdev},
};

static void expect_named(const Refusal *refusal, int error) {
  char sentence[200];
  CHECK_EQ(refusal->make(), -error);
  CHECK(evloop_last_error(sentence, sizeof sentence) < (int)sizeof sentence);
  if (strstr(sentence, refusal->name) == NULL) {
    printf("  '%s' does not name %s\n", sentence, refusal->name);
    check_exit();
  }
}

/* In a process of its own, as filters cannot be removed. */
static void expect_refusal(const Refusal *refusal, int error) {
  int status;
  /* valgrind itself answers this call with ENOSYS. */
  if (refusal->call == SYS_pidfd_open && getenv("EVLOOP_TEST_VALGRIND") != NULL) return;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    loop = OK(evloop_create(NULL));
    kq = new_kqueue();
    answer_call(refusal->call, error);
    expect_named(refusal, error);
    fflush(stdout);
    _exit(0);
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIPPED) _exit(CHECK_SKIPPED);
  CHECK_EQ(status, 0);
}

TEST(what_a_sandbox_forbids_is_named) {
  for (int i = 0; AT_ROW(i, refusals); i++) expect_refusal(&refusals[i], EPERM);
}

TEST(what_a_kernel_lacks_is_named) {
  for (int i = 0; AT_ROW(i, refusals); i++) expect_refusal(&refusals[i], ENOSYS);
}

static const int clocks[] = {
    EVLOOP_CLOCK_REALTIME,       EVLOOP_CLOCK_MONOTONIC,      EVLOOP_CLOCK_BOOTTIME,
    EVLOOP_CLOCK_REALTIME_ALARM, EVLOOP_CLOCK_BOOTTIME_ALARM,
};

TEST(a_sandbox_that_forbids_timers_forbids_them_on_every_clock) {
  static int64_t (*const makers[])(void) = {make_tfd, add_timer};
  for (int i = 0; AT_ROW(i, clocks); i++) {
    clockid = clocks[i];
    for (int m = 0; AT_ROW(m, makers); m++) {
      const Refusal refusal = {SYS_timerfd_create, "timerfd_create(2)", makers[m]};
      expect_refusal(&refusal, EPERM);
    }
  }
}

TEST(an_alarm_clock_without_the_capability_names_that) {
  static int64_t (*const makers[])(void) = {make_tfd, add_timer};
  if (geteuid() == 0) OK(setresuid(65534, 65534, 65534));
  loop = OK(evloop_create(NULL));
  for (int i = 3; i < LENGTH(clocks); i++) {
    clockid = clocks[i];
    for (int m = 0; AT_ROW(m, makers); m++) {
      const Refusal refusal = {0, "CAP_WAKE_ALARM", makers[m]};
      expect_named(&refusal, EPERM);
    }
  }
}

/* A call that is not permitted for another reason is not reported as refused. */
TEST(a_refusal_that_did_no_harm_is_not_named_later) {
  char sentence[200];
  answer_call(SYS_eventfd2, EPERM);
  evloop_epoll_t epoll = make_epoll();
  CHECK_ERR(epoll, EPERM);
  OK(evloop_last_error(sentence, sizeof sentence));
  CHECK(strstr(sentence, "eventfd(2)") != NULL);
  CHECK_ERR(evloop_set_interrupt_mode(-1), EINVAL);
  OK(evloop_last_error(sentence, sizeof sentence));
  CHECK(strstr(sentence, "eventfd(2)") == NULL);
}

CHECK_MAIN()
