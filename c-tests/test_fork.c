/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Fork: what works in the child, what refuses, what the parent notices. */

#define _GNU_SOURCE
#include "support.h"

#include <sys/stat.h>

/* ---- helpers ---- */

typedef struct Objects {
  tfd_t timer;
  evloop_poll_t poll;
  evloop_epoll_t epoll;
  evloop_devpoll_t devpoll;
  evloop_selector_t selector;
  int fd; /* registered with all of them */
} Objects;

static Objects open_all(void) {
  Objects all = {.fd = event_fd(0)};
  all.timer = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  all.poll = OK(evloop_poll_create());
  all.epoll = OK(evloop_epoll_create(0));
  all.devpoll = OK(evloop_devpoll_create());
  all.selector = OK(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT));
  CHECK_EQ(evloop_poll_register(all.poll, all.fd, EVLOOP_POLLIN, 1), 0);
  CHECK_EQ(evloop_epoll_register(all.epoll, all.fd, EVLOOP_EPOLLIN, 2), 0);
  CHECK_EQ(evloop_devpoll_register(all.devpoll, all.fd, EVLOOP_POLLIN, 3), 0);
  CHECK_EQ(evloop_selector_register(all.selector, all.fd, EVLOOP_SELECTOR_READ, 4), 0);
  return all;
}

static void close_all(const Objects *all) {
  CHECK_EQ(tfd_close(all->timer), 0);
  CHECK_EQ(evloop_poll_close(all->poll), 0);
  CHECK_EQ(evloop_epoll_close(all->epoll), 0);
  CHECK_EQ(evloop_devpoll_close(all->devpoll), 0);
  CHECK_EQ(evloop_selector_close(all->selector), 0);
}

static void expect_ready(WaitFunction *wait, int64_t object, int fd, uint64_t data) {
  evloop_ready_t ready[2];
  CHECK_EQ(wait(object, ready, 2, -1), 1);
  CHECK(ready[0].fd == fd);
  CHECK(ready[0].data == data);
}

/* The objects work, and with nothing ready they wait instead of spinning. */
static void expect_all_work(const Objects *all) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_poll_wait(all->poll, &ready, 1, 0), 0);
  CHECK_EQ(evloop_epoll_wait(all->epoll, &ready, 1, 0), 0);
  CHECK_EQ(evloop_devpoll_wait(all->devpoll, &ready, 1, 0), 0);
  CHECK_EQ(evloop_selector_wait(all->selector, &ready, 1, 0), 0);
  OK(eventfd_write(all->fd, 1));
  expect_ready(evloop_poll_wait, all->poll, all->fd, 1);
  expect_ready(evloop_epoll_wait, all->epoll, all->fd, 2);
  expect_ready(evloop_devpoll_wait, all->devpoll, all->fd, 3);
  expect_ready(evloop_selector_wait, all->selector, all->fd, 4);
  eventfd_t count;
  OK(eventfd_read(all->fd, &count));
  CHECK_EQ(tfd_settime_ns(all->timer, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(all->timer, NULL), 0);
}

static void expect_parents(const Objects *all) {
  evloop_ready_t ready;
  uint32_t events;
  CHECK_ERR(evloop_epoll_fileno(all->epoll), ECHILD);
  CHECK_ERR(evloop_epoll_register(all->epoll, all->fd, EVLOOP_EPOLLIN, 1), ECHILD);
  CHECK_ERR(evloop_epoll_modify(all->epoll, all->fd, EVLOOP_EPOLLIN, 1), ECHILD);
  CHECK_ERR(evloop_epoll_unregister(all->epoll, all->fd), ECHILD);
  CHECK_ERR(evloop_epoll_wait(all->epoll, &ready, 1, 0), ECHILD);
  CHECK_ERR(evloop_devpoll_fileno(all->devpoll), ECHILD);
  CHECK_ERR(evloop_devpoll_register(all->devpoll, all->fd, EVLOOP_POLLIN, 1), ECHILD);
  CHECK_ERR(evloop_devpoll_modify(all->devpoll, all->fd, EVLOOP_POLLIN, 1), ECHILD);
  CHECK_ERR(evloop_devpoll_unregister(all->devpoll, all->fd), ECHILD);
  CHECK_ERR(evloop_devpoll_wait(all->devpoll, &ready, 1, 0), ECHILD);
  CHECK_ERR(evloop_selector_fileno(all->selector), ECHILD);
  CHECK_ERR(evloop_selector_register(all->selector, 0, EVLOOP_SELECTOR_READ, 1), ECHILD);
  CHECK_ERR(evloop_selector_modify(all->selector, all->fd, EVLOOP_SELECTOR_READ, 1), ECHILD);
  CHECK_ERR(evloop_selector_unregister(all->selector, all->fd), ECHILD);
  CHECK_ERR(evloop_selector_get(all->selector, all->fd, &events, NULL), ECHILD);
  CHECK_ERR(evloop_selector_count(all->selector), ECHILD);
  CHECK_ERR(evloop_selector_wait(all->selector, &ready, 1, 0), ECHILD);
  CHECK_EQ(evloop_handle_kind(all->epoll), EVLOOP_KIND_EPOLL);
}

static pid_t fork_quietly(void) {
  fflush(stdout);
  return (pid_t)OK(fork());
}

static void expect_success_of(pid_t child) {
  int status;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
  CHECK_EQ(status, 0);
}

static void in_child(void (*run)(const Objects *all), const Objects *all) {
  pid_t child = fork_quietly();
  if (child == 0) {
    run(all);
    fflush(stdout);
    _exit(0);
  }
  expect_success_of(child);
}

/* The same in a process with other threads. What their stacks and thread
 * locals refer to is lost in the child, so it ends without giving a checker
 * of leaks the time to look: killed is well. */
static void in_child_without_threads(void (*run)(const Objects *all), const Objects *all) {
  int status;
  pid_t child = fork_quietly();
  if (child == 0) {
    run(all);
    raise(SIGKILL);
  }
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ---- in the child ---- */

TEST(epoll_devpoll_and_selectors_are_the_parents) {
  Objects all = open_all();
  OK(evloop_devpoll_fileno(all.devpoll));
  in_child(expect_parents, &all);
  expect_all_work(&all);
  close_all(&all);
}

static void use_timer_and_poll_set(const Objects *all) {
  evloop_ready_t ready[2];
  CHECK_EQ(tfd_settime_ns(all->timer, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(all->timer, NULL), 0);
  int other = event_fd(1);
  CHECK_EQ(evloop_poll_register(all->poll, other, EVLOOP_POLLIN, 9), 0);
  expect_ready(evloop_poll_wait, all->poll, other, 9);
  CHECK_EQ(evloop_poll_modify(all->poll, all->fd, EVLOOP_POLLOUT, 8), 0);
  CHECK_EQ(evloop_poll_unregister(all->poll, other), 0);
  CHECK_EQ(evloop_poll_wait(all->poll, ready, 2, 0), 1);
  CHECK(ready[0].fd == all->fd);
  CHECK_EQ(ready[0].data, 8);
}

TEST(timers_go_on_and_poll_sets_are_copies) {
  Objects all = open_all();
  in_child(use_timer_and_poll_set, &all);
  expect_all_work(&all);
  close_all(&all);
}

static void close_inherited(const Objects *all) {
  int own = open_descriptors();
  close_all(all);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  CHECK_EQ(open_descriptors(), own - 4); /* timer, epoll, devpoll, selector */
  CHECK_ERR(evloop_epoll_close(all->epoll), ESTALE);
}

TEST(a_child_that_closes_everything_is_not_noticed) {
  Objects all = open_all();
  OK(evloop_devpoll_fileno(all.devpoll));
  in_child(close_inherited, &all);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 5);
  expect_all_work(&all);
  close_all(&all);
}

static void use_new_objects(const Objects *all) {
  (void)all;
  Objects own = open_all();
  OK(evloop_devpoll_fileno(own.devpoll));
  expect_all_work(&own);
  close_all(&own);
}

static void use_new_objects_in_a_grandchild(const Objects *all) {
  Objects own = open_all();
  in_child(use_new_objects, &own);
  in_child(expect_parents, &own);
  in_child(expect_parents, all);
  expect_all_work(&own);
  close_all(&own);
}

TEST(children_and_grandchildren_make_their_own) {
  Objects all = open_all();
  in_child(use_new_objects, &all);
  in_child(use_new_objects_in_a_grandchild, &all);
  expect_all_work(&all);
  close_all(&all);
}

/* What the library kept from before the fork may be anything by now. */
static void use_new_objects_on_reused_numbers(const Objects *all) {
  struct stat file;
  int last = event_fd(0);
  for (int fd = 3; fd <= last; fd++) close(fd);
  CHECK_EQ(regular_file(), 3);
  for (int fd = 4; fd <= last; fd++) CHECK_EQ(dup(3), fd);
  use_new_objects(all);
  for (int fd = 3; fd <= last; fd++) OK(fcntl(fd, F_GETFD));
  OK(fstat(3, &file));
  CHECK_EQ(file.st_size, 0);
}

static void wait_a_little(const Objects *all) {
  evloop_ready_t ready;
  CHECK_EQ(evloop_poll_wait(all->poll, &ready, 1, MS), 0);
}

TEST(a_child_that_closed_all_descriptors_uses_new_objects) {
  Objects all = open_all();
  wait_a_little(&all); /* this thread has its eventfd now */
  in_child(use_new_objects_on_reused_numbers, &all);
  expect_all_work(&all);
  close_all(&all);
}

TEST(a_child_made_by_a_raw_system_call_is_noticed) {
  Objects all = open_all();
  fflush(stdout);
  pid_t child = (pid_t)OK(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
  if (child == 0) {
    evloop_ready_t ready;
    _exit(evloop_epoll_wait(all.epoll, &ready, 1, 0) != -ECHILD);
  }
  expect_success_of(child);
  close_all(&all);
}

TEST(no_descriptor_of_the_library_survives_exec) {
  Objects all = open_all();
  OK(evloop_devpoll_fileno(all.devpoll));
  expect_all_work(&all);
  OK(close(all.fd));
  pid_t child = fork_quietly();
  if (child == 0) {
    /* Any descriptor above the standard ones makes it fail. */
    execl("/bin/sh", "sh", "-c",
          "for fd in /proc/$$/fd/*; do case ${fd##*/} in [012]) ;; "
          "*) readlink $fd | grep -q 'anon_inode' && exit 1 ;; esac; done; exit 0",
          (char *)NULL);
    _exit(2);
  }
  expect_success_of(child);
}

/* ---- other threads at the fork ---- */

static Objects busy_objects;
static int stop_hammering;

static void *hammer(void *argument) {
  const Objects *all = argument;
  for (uint64_t i = 0; !__atomic_load_n(&stop_hammering, __ATOMIC_RELAXED); i++) {
    evloop_ready_t ready;
    evloop_poll_register(all->poll, (int)(i % 500), EVLOOP_POLLIN, i);
    evloop_poll_unregister(all->poll, (int)((i + 250) % 500));
    evloop_poll_wait(all->poll, &ready, 1, 1000);
    evloop_epoll_modify(all->epoll, all->fd, EVLOOP_EPOLLIN, i);
    evloop_devpoll_modify(all->devpoll, all->fd, EVLOOP_POLLIN, i);
    tfd_wait(all->timer, 0, NULL);
    evloop_handle_close(OK(evloop_poll_create()));
  }
  return NULL;
}

static void use_what_was_busy(const Objects *all) {
  evloop_ready_t ready[4];
  int fd = event_fd(1);
  CHECK_EQ(evloop_poll_register(all->poll, fd, EVLOOP_POLLIN, 77), 0);
  CHECK(OK(evloop_poll_wait(all->poll, ready, 4, -1)) >= 1);
  /* The parent's threads may take the shared timer's expirations first. */
  OK(tfd_wait(all->timer, 0, NULL));
  CHECK_ERR(evloop_epoll_wait(all->epoll, ready, 1, 0), ECHILD);
  close_all(all);
  use_new_objects(all);
}

TEST_TIMEOUT(a_child_of_a_busy_process_does_not_hang, 120) {
  pthread_t threads[3];
  int forks = slow_factor() > 1 ? 10 : 100;
  if (!may_fork_beside_allocations()) return;
  busy_objects = open_all();
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, hammer, &busy_objects), 0);
  }
  for (int i = 0; i < forks; i++) in_child_without_threads(use_what_was_busy, &busy_objects);
  __atomic_store_n(&stop_hammering, 1, __ATOMIC_RELAXED);
  for (int i = 0; i < 3; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  close_all(&busy_objects);
}

static int read_timer(int64_t object, evloop_ready_t *ready, int max, int64_t timeout_ns) {
  (void)ready, (void)max, (void)timeout_ns;
  return tfd_read(object, NULL);
}

static int wait_for_timer(int64_t object, evloop_ready_t *ready, int max, int64_t timeout_ns) {
  (void)ready, (void)max;
  return tfd_wait(object, timeout_ns, NULL);
}

static void start_waiters(Waiter waiters[4], const Objects *all) {
  start_waiter_in(&waiters[0], evloop_poll_wait, all->poll);
  start_waiter_in(&waiters[1], evloop_epoll_wait, all->epoll);
  start_waiter_in(&waiters[2], evloop_devpoll_wait, all->devpoll);
  start_waiter_in(&waiters[3], evloop_selector_wait, all->selector);
}

TEST(a_child_closes_what_threads_of_the_parent_wait_in) {
  Waiter waiters[4];
  Objects all = open_all();
  OK(evloop_devpoll_fileno(all.devpoll));
  start_waiters(waiters, &all);
  in_child_without_threads(close_inherited, &all);
  for (int i = 0; i < 4; i++) wait_until_asleep(&waiters[i].tid);
  OK(eventfd_write(all.fd, 1));
  for (int i = 0; i < 4; i++) CHECK_EQ(waiter_result(&waiters[i]), 1);
  close_all(&all);
}

enum { TIMERS = 2, SLEEPERS = 6 };

/* A tfd_wait, a tfd_read and a wait in a selector of each backend. */
static Waiter sleepers[SLEEPERS];

static void start_sleepers(int fd) {
  static WaitFunction *const timer_waits[TIMERS] = {wait_for_timer, read_timer};
  for (int i = 0; i < SLEEPERS; i++) {
    if (i < TIMERS) {
      start_waiter_in(&sleepers[i], timer_waits[i], OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0)));
      continue;
    }
    int64_t s = OK(evloop_selector_create(EVLOOP_SELECTOR_SELECT + i - TIMERS));
    CHECK_EQ(evloop_selector_register(s, fd, EVLOOP_SELECTOR_READ, 4), 0);
    start_waiter_in(&sleepers[i], evloop_selector_wait, s);
  }
}

static void close_sleepers(void) {
  for (int i = 0; i < SLEEPERS; i++) CHECK_EQ(evloop_handle_close(sleepers[i].object), 0);
}

static void close_what_threads_sleep_in(const Objects *all) {
  for (int i = TIMERS; i < SLEEPERS; i++) {
    CHECK_ERR(evloop_selector_count(sleepers[i].object), ECHILD);
  }
  close_sleepers();
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  start_sleepers(all->fd);
  OK(eventfd_write(all->fd, 1));
  for (int i = 0; i < SLEEPERS; i++) {
    if (i < TIMERS) CHECK_EQ(tfd_settime_ns(sleepers[i].object, 0, 1, 0, NULL, NULL), 0);
    CHECK(waiter_result(&sleepers[i]) >= 0);
  }
  close_sleepers();
  OK(eventfd_read(all->fd, &(eventfd_t){0}));
}

/* None of the threads looks again and again, for nothing: for a while they
 * use no processor time. */
static void expect_all_asleep(void) {
  struct timespec tenth = {0, 100 * MS};
  for (int i = 0; i < SLEEPERS; i++) wait_until_asleep(&sleepers[i].tid);
  int64_t busy = now_ns(CLOCK_PROCESS_CPUTIME_ID);
  while (nanosleep(&tenth, &tenth) < 0) { }
  CHECK(now_ns(CLOCK_PROCESS_CPUTIME_ID) - busy < 50 * MS);
}

TEST(a_child_closes_every_timer_and_selector_that_threads_of_the_parent_wait_in) {
  Objects no_objects = {.fd = event_fd(0)};
  start_sleepers(no_objects.fd);
  for (int i = 0; i < 3; i++) {
    /* One of its own: an event that the child makes is the parent's too. */
    Objects childs = {.fd = event_fd(0)};
    in_child_without_threads(close_what_threads_sleep_in, &childs);
    OK(close(childs.fd));
    expect_all_asleep();
  }
  for (int i = 0; i < TIMERS; i++) {
    CHECK_EQ(tfd_settime_ns(sleepers[i].object, 0, 1, 0, NULL, NULL), 0);
  }
  OK(eventfd_write(no_objects.fd, 1));
  CHECK_EQ(waiter_result(&sleepers[0]), 1);
  CHECK_EQ(waiter_result(&sleepers[1]), 0);
  for (int i = TIMERS; i < SLEEPERS; i++) {
    CHECK_EQ(waiter_result(&sleepers[i]), 1);
    CHECK_EQ(sleepers[i].ready[0].fd, no_objects.fd);
  }
  close_sleepers();
}

/* The thread that forks has an eventfd of the library, which the child must
 * not share: each is woken by its own change. */
static void be_woken_by_an_own_change(const Objects *all) {
  Waiter waiter;
  int fd = event_fd(1);
  start_waiter_in(&waiter, evloop_poll_wait, all->poll);
  CHECK_EQ(evloop_poll_register(all->poll, fd, EVLOOP_POLLIN, 5), 0);
  CHECK_EQ(waiter_result(&waiter), 1);
  CHECK_EQ(waiter.ready[0].fd, fd);
  CHECK_EQ(evloop_poll_unregister(all->poll, fd), 0);
  OK(close(fd));
}

TEST(parent_and_child_wake_their_own_threads) {
  Objects all = open_all();
  wait_a_little(&all);
  for (int i = 0; i < 10; i++) {
    in_child(wait_a_little, &all);
    in_child(be_woken_by_an_own_change, &all);
    be_woken_by_an_own_change(&all);
  }
  close_all(&all);
}

/* ---- a fork in the middle of a wait ---- */

typedef struct Forker {
  const Objects *all;
  int closes; /* the child closes everything before its check returns */
  pid_t parent, child; /* atomic */
} Forker;

static int fork_in_check(void *argument) {
  Forker *forker = argument;
  if (forker->child != 0) return 0; /* interrupted again */
  STORE(forker->child, fork());
  if (forker->child == 0 && forker->closes) close_all(forker->all);
  return 0;
}

static void interrupt_soon(void) {
  struct itimerspec often = {{0, 2000000}, {0, 2000000}};
  struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
  timer_t timer;
  handle_signals(count_signal);
  OK(timer_create(CLOCK_MONOTONIC, &event, &timer));
  OK(timer_settime(timer, 0, &often, NULL));
}

/* The child's wait ends with -ECHILD; the parent's goes on. */
static void fork_in(WaitFunction *wait, int64_t object, Forker *forker) {
  evloop_ready_t ready[4];
  CHECK_EQ(evloop_set_interrupt_check(fork_in_check, forker), 0);
  int result = wait(object, ready, 4, -1);
  if (getpid() != forker->parent) {
    _exit(result == -ECHILD ? 0 : 1);
  }
  /* An event ends the parent's wait only after the child has ended. */
  CHECK(result >= 0);
  expect_success_of(forker->child);
  CHECK_EQ(evloop_set_interrupt_check(NULL, NULL), 0);
}

/* Makes everything ready once the child was made and has ended. */
static void *make_ready_later(void *argument) {
  const Forker *forker = argument;
  siginfo_t info;
  UNTIL(LOAD(forker->child) != 0);
  OK(waitid(P_PID, (id_t)forker->child, &info, WEXITED | WNOWAIT));
  OK(eventfd_write(forker->all->fd, 1));
  CHECK_EQ(tfd_settime_ns(forker->all->timer, 0, 1, 0, NULL, NULL), 0);
  return NULL;
}

static void fork_in_every_wait(int closes) {
  WaitFunction *const waits[] = {evloop_poll_wait,     evloop_epoll_wait, evloop_devpoll_wait,
                                 evloop_selector_wait, read_timer,        wait_for_timer};
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  interrupt_soon();
  for (int i = 0; AT_ROW(i, waits); i++) {
    Objects all = open_all();
    int64_t objects[] = {all.poll, all.epoll, all.devpoll, all.selector, all.timer, all.timer};
    Forker forker = {.all = &all, .closes = closes, .parent = getpid()};
    pthread_t thread;
    /* The signals are for the thread that waits. */
    OK(sigprocmask(SIG_BLOCK, &usr1, NULL));
    CHECK_EQ(pthread_create(&thread, NULL, make_ready_later, &forker), 0);
    OK(sigprocmask(SIG_UNBLOCK, &usr1, NULL));
    fork_in(waits[i], objects[i], &forker);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    close_all(&all);
    OK(close(all.fd));
  }
}

TEST(a_wait_that_forks_in_its_check_ends_in_the_child) {
  fork_in_every_wait(0);
}

TEST(the_child_may_even_close_what_it_was_waiting_in) {
  fork_in_every_wait(1);
}

/* ---- a fork in the middle of a wait, of a busy process ---- */

typedef int ChangeFunction(int64_t object, int fd, uint32_t events, uint64_t data);

typedef struct Changer {
  ChangeFunction *change;
  int64_t object;
  int fd;
} Changer;

/* Changes one object, so that its locks are held while the thread that waits on
 * it forks. That thread forks when a signal has interrupted its wait; until the
 * signal this thread may sleep. */
static void *change_all_the_time(void *argument) {
  const Changer *c = argument;
  for (uint64_t i = 0; !__atomic_load_n(&stop_hammering, __ATOMIC_RELAXED); i++) {
    CHECK_EQ(c->change(c->object, c->fd, EVLOOP_POLLIN, i), 0);
    if (i % 512 == 0) {
      int before = LOAD(signals);
      UNTIL(LOAD(signals) > before);
    }
  }
  return NULL;
}

/* The child's wait goes on, the parent's ends. */
static int fork_once_in_check(void *argument) {
  Forker *forker = argument;
  if (forker->child == 0) forker->child = fork();
  return forker->child != 0;
}

static void fork_once_in(WaitFunction *wait, int64_t object) {
  Forker forker = {.parent = getpid()};
  evloop_ready_t ready;
  int status;
  CHECK_EQ(evloop_set_interrupt_check(fork_once_in_check, &forker), 0);
  int result = wait(object, &ready, 1, -1);
  if (getpid() != forker.parent) {
    if (result == -ECHILD) raise(SIGKILL); /* as in_child_without_threads() */
    _exit(1);
  }
  CHECK_EQ(result, -EINTR);
  while (waitpid(forker.child, &status, 0) < 0 && errno == EINTR) { }
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CHECK_EQ(evloop_set_interrupt_check(NULL, NULL), 0);
}

static void fork_in_a_busy(WaitFunction *wait, ChangeFunction *change, int64_t object, int fd) {
  Changer changer = {change, object, fd};
  pthread_t threads[2];
  sigset_t usr1;
  sigemptyset(&usr1);
  sigaddset(&usr1, SIGUSR1);
  __atomic_store_n(&stop_hammering, 0, __ATOMIC_RELAXED);
  OK(sigprocmask(SIG_BLOCK, &usr1, NULL));
  for (int i = 0; AT_ROW(i, threads); i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, change_all_the_time, &changer), 0);
  }
  OK(sigprocmask(SIG_UNBLOCK, &usr1, NULL));
  for (int i = 0; i < (slow_factor() > 1 ? 5 : 100); i++) fork_once_in(wait, object);
  __atomic_store_n(&stop_hammering, 1, __ATOMIC_RELAXED);
  for (int i = 0; AT_ROW(i, threads); i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST_TIMEOUT(a_wait_that_forks_in_its_check_meets_no_lock_of_the_parents_threads, 60) {
  Objects all = open_all();
  interrupt_soon();
  fork_in_a_busy(evloop_poll_wait, evloop_poll_modify, all.poll, all.fd);
  fork_in_a_busy(evloop_epoll_wait, evloop_epoll_modify, all.epoll, all.fd);
  fork_in_a_busy(evloop_devpoll_wait, evloop_devpoll_modify, all.devpoll, all.fd);
  fork_in_a_busy(evloop_selector_wait, evloop_selector_modify, all.selector, all.fd);
  close_all(&all);
}

CHECK_MAIN()
