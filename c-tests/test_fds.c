/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Without a descriptor left: what fails, what goes on working, what is lost. */

#define _GNU_SOURCE
#include "support.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

/* ---- a full table of descriptors ---- */

enum { SPARE = 8 };

static int fillers[200], filled;

/* Sets the limit of descriptors to SPARE above the newest one, and opens files
 * until none is left. */
static void fill_table(void) {
  int newest = event_fd(0);
  set_limit((rlim_t)(newest + 1 + SPARE));
  fillers[0] = newest;
  for (filled = 1; (fillers[filled] = dup(newest)) >= 0; filled++) {
    CHECK(filled < LENGTH(fillers) - 1);
  }
  CHECK_EQ(errno, EMFILE);
  CHECK(filled > 2); /* some of the descriptors may have been inherited */
}

static void free_one(void) {
  CHECK(filled > 0);
  OK(close(fillers[--filled]));
}

static void empty_table(void) {
  while (filled > 0) free_one();
}

/* Takes it for a filler again. */
static void expect_one_free(void) {
  fillers[filled++] = (int)OK(dup(0));
  CHECK(dup(0) < 0);
  CHECK_EQ(errno, EMFILE);
}

/* ---- what descriptors are waited for with ---- */

typedef struct Set {
  int64_t (*create)(int argument);
  int argument;
  int (*add)(int64_t set, int fd, uint32_t events, uint64_t data);
  WaitFunction *wait;
} Set;

static int64_t new_poll(int unused) {
  (void)unused;
  return evloop_poll_create();
}

static int64_t new_devpoll(int unused) {
  (void)unused;
  return evloop_devpoll_create();
}

static int64_t new_epoll(int unused) {
  (void)unused;
  return evloop_epoll_create(0);
}

static int64_t new_selector(int backend) {
  return evloop_selector_create(backend);
}

static int64_t new_timer(int unused) {
  (void)unused;
  return tfd_create(EVLOOP_CLOCK_MONOTONIC, 0);
}

#define SELECTOR(backend) \
  {new_selector, EVLOOP_SELECTOR_##backend, evloop_selector_register, evloop_selector_wait}

/* They need no descriptor, */
static const Set poll_set = {new_poll, 0, evloop_poll_register, evloop_poll_wait};
static const Set devpoll = {new_devpoll, 0, evloop_devpoll_register, evloop_devpoll_wait};
static const Set select_selector = SELECTOR(SELECT);
static const Set poll_selector = SELECTOR(POLL);
static const Set devpoll_selector = SELECTOR(DEVPOLL);

/* and these have one. */
static const Set epoll = {new_epoll, 0, evloop_epoll_register, evloop_epoll_wait};
static const Set epoll_selector = SELECTOR(EPOLL);
static const Set default_selector = SELECTOR(DEFAULT);
static const Set timer_fd = {new_timer, 0, NULL, NULL};

static const Set *const frugal[] = {&poll_set, &devpoll, &select_selector, &poll_selector,
                                    &devpoll_selector};
static const Set *const owning[] = {&timer_fd, &epoll, &epoll_selector, &default_selector};

/* One test for each, since the limit can be lowered only once in a process
 * (by set_limit, under valgrind). */
#define ONE_SET(name, set) \
  TEST(name##_##set) { name(&set); }
#define EVERY_SET(name)                 \
  static void name(const Set *set);     \
  ONE_SET(name, poll_set)               \
  ONE_SET(name, devpoll)                \
  ONE_SET(name, epoll)                  \
  ONE_SET(name, select_selector)        \
  ONE_SET(name, poll_selector)          \
  ONE_SET(name, devpoll_selector)       \
  ONE_SET(name, epoll_selector)         \
  static void name(const Set *set)

#define IN 1 /* EVLOOP_POLLIN, EVLOOP_EPOLLIN, EVLOOP_SELECTOR_READ */

static int64_t create(const Set *set) {
  return set->create(set->argument);
}

static void add(const Set *set, int64_t object, int fd, uint64_t data) {
  CHECK_EQ(set->add(object, fd, IN, data), 0);
}

static void expect_event(const Set *set, int64_t object, int fd, uint64_t data) {
  evloop_ready_t ready[2];
  CHECK_EQ(set->wait(object, ready, 2, -1), 1);
  CHECK(ready[0].fd == fd);
  CHECK(ready[0].data == data);
  CHECK_EQ(ready[0].events, IN);
}

static void expect_timeout(const Set *set, int64_t object, int64_t timeout_ns) {
  evloop_ready_t ready;
  int64_t start = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(set->wait(object, &ready, 1, timeout_ns), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= timeout_ns);
}

/* ---- a thread that finds no descriptor left ---- */

/* ---- creating ---- */

TEST(what_has_a_descriptor_cannot_be_made_without_one) {
  int before = open_descriptors();
  fill_table();
  for (int i = 0; i < 3 * LENGTH(owning); i++) {
    CHECK_ERR(create(owning[i % LENGTH(owning)]), EMFILE);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  empty_table();
  CHECK_EQ(open_descriptors(), before);
}

TEST(what_has_a_descriptor_can_be_made_with_the_last_one) {
  CHECK_EQ(evloop_epoll_close(OK(evloop_epoll_create(0))), 0); /* makes what is kept */
  fill_table();
  for (int i = 0; AT_ROW(i, owning); i++) {
    CHECK_ERR(create(owning[i]), EMFILE);
    free_one();
    int64_t object = OK(create(owning[i]));
    CHECK_ERR(create(owning[i]), EMFILE);
    CHECK_EQ(evloop_handle_close(object), 0);
    expect_one_free();
  }
  empty_table();
}

TEST(the_first_epoll_object_needs_two_and_keeps_none_if_it_fails) {
  fill_table();
  free_one();
  CHECK_ERR(evloop_epoll_create(0), EMFILE);
  CHECK_ERR(evloop_selector_create(EVLOOP_SELECTOR_EPOLL), EMFILE);
  expect_one_free();
  free_one();
  free_one();
  evloop_epoll_t ep = OK(evloop_epoll_create(0));
  CHECK_EQ(evloop_epoll_close(ep), 0);
  empty_table();
}

TEST(an_epoll_descriptor_that_cannot_be_adopted_stays_the_callers) {
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  fill_table();
  CHECK_ERR(evloop_epoll_from_fd(raw, EVLOOP_FD_OWN), EMFILE);
  CHECK_ERR(evloop_epoll_from_fd(raw, 0), EMFILE);
  OK(fcntl(raw, F_GETFD));
  free_one();
  evloop_epoll_t ep = OK(evloop_epoll_from_fd(raw, EVLOOP_FD_OWN));
  CHECK_EQ(evloop_epoll_close(ep), 0);
  CHECK(fcntl(raw, F_GETFD) < 0);
  empty_table();
}

TEST(adopting_a_timer_takes_no_descriptor) {
  int raw = (int)OK(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC));
  fill_table();
  tfd_t timer = OK(tfd_from_fd(raw, EVLOOP_FD_OWN));
  CHECK_EQ(tfd_settime_ns(timer, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(timer, NULL), 0);
  CHECK_EQ(tfd_wait(timer, MS, NULL), 0);
  CHECK_ERR(tfd_clockid(timer), EMFILE); /* /proc cannot be asked */
  free_one();
  CHECK_EQ(tfd_clockid(timer), CLOCK_MONOTONIC);
  CHECK_EQ(tfd_close(timer), 0);
  CHECK(fcntl(raw, F_GETFD) < 0);
  empty_table();
}

/* ---- using ---- */

static void use_frugal(const Set *set, int ready_fd, int idle_fd) {
  int64_t object = OK(create(set));
  expect_timeout(set, object, 30 * MS); /* empty */
  add(set, object, idle_fd, 1);
  expect_timeout(set, object, 0);
  expect_timeout(set, object, 30 * MS);
  add(set, object, ready_fd, 2);
  expect_event(set, object, ready_fd, 2);
  CHECK_EQ(evloop_handle_close(object), 0);
}

TEST(what_has_no_descriptor_is_made_and_used_without_one) {
  int ready_fd = event_fd(1), idle_fd = event_fd(0);
  int before = open_descriptors();
  fill_table();
  for (int i = 0; AT_ROW(i, frugal); i++) use_frugal(frugal[i], ready_fd, idle_fd);
  empty_table();
  CHECK_EQ(open_descriptors(), before);
}

TEST(select_works_without_a_descriptor_left) {
  int fd = event_fd(0), writable[] = {fd}, readable_ones[] = {fd}, one = 1, count = 1;
  fill_table();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(evloop_select(readable_ones, &count, NULL, NULL, NULL, NULL, 30 * MS), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 30 * MS);
  CHECK_EQ(evloop_select(NULL, NULL, writable, &one, NULL, NULL, -1), 1);
  CHECK_EQ(writable[0], fd);
  empty_table();
}

TEST(epoll_objects_go_on_working_without_a_descriptor_left) {
  int ready_fd = event_fd(1), idle_fd = event_fd(0);
  evloop_epoll_t ep = OK(evloop_epoll_create(0));
  fill_table();
  add(&epoll, ep, idle_fd, 1);
  expect_timeout(&epoll, ep, 30 * MS);
  add(&epoll, ep, ready_fd, 2);
  expect_event(&epoll, ep, ready_fd, 2);
  CHECK_EQ(evloop_epoll_close(ep), 0);
  expect_one_free();
  empty_table();
}

TEST(timers_time_out_without_a_descriptor_left) {
  tfd_t timer = OK(new_timer(0));
  fill_table();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  CHECK_EQ(tfd_wait(timer, 30 * MS, NULL), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 30 * MS);
  CHECK_EQ(tfd_settime_ns(timer, 0, 30 * MS, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(timer, NULL), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 60 * MS);
  CHECK_EQ(tfd_close(timer), 0);
  empty_table();
}

static void wait_for_a_closed_number(const Set *set) {
  evloop_ready_t ready;
  int64_t object = OK(create(set));
  fill_table();
  int number = fillers[filled - 1];
  CHECK_EQ(set->add(object, number, EVLOOP_POLLIN, 6), 0);
  free_one();
  CHECK_EQ(set->wait(object, &ready, 1, -1), 1);
  CHECK(ready.fd == number);
  CHECK_EQ(ready.data, 6);
  CHECK_EQ(ready.events, EVLOOP_POLLNVAL);
  CHECK_EQ(evloop_handle_close(object), 0);
  empty_table();
}

TEST(a_poll_set_waits_without_taking_the_descriptor_it_waits_for) {
  wait_for_a_closed_number(&poll_set);
}

TEST(a_devpoll_waits_without_taking_the_descriptor_it_waits_for) {
  wait_for_a_closed_number(&devpoll);
}

/* ---- waiting threads ---- */

EVERY_SET(a_starved_thread_sees_an_event_in) {
  HeldBack s;
  int fd = event_fd(0);
  int64_t object = OK(create(set));
  add(set, object, fd, 7);
  hold_back(&s, set->wait, object);
  fill_table();
  let_it_wait(&s);
  OK(eventfd_write(fd, 1));
  CHECK_EQ(held_back_result(&s), 1);
  CHECK(s.waiter.ready[0].fd == fd);
  CHECK_EQ(s.waiter.ready[0].data, 7);
  empty_table();
  CHECK_EQ(evloop_handle_close(object), 0);
}

EVERY_SET(a_starved_thread_sees_a_registration_in) {
  HeldBack s;
  int fd = event_fd(1), idle = event_fd(0);
  int64_t object = OK(create(set));
  add(set, object, idle, 1);
  hold_back(&s, set->wait, object);
  fill_table();
  let_it_wait(&s);
  add(set, object, fd, 8);
  CHECK_EQ(held_back_result(&s), 1);
  CHECK(s.waiter.ready[0].fd == fd);
  CHECK_EQ(s.waiter.ready[0].data, 8);
  empty_table();
  CHECK_EQ(evloop_handle_close(object), 0);
}

static void wait_starved_until_closed(WaitFunction *wait, int64_t object) {
  HeldBack s;
  hold_back(&s, wait, object);
  fill_table();
  let_it_wait(&s);
  CHECK_EQ(evloop_handle_close(object), 0);
  CHECK_EQ(held_back_result(&s), -ESTALE);
  empty_table();
}

static int wait_timer(int64_t timer, evloop_ready_t *ready, int max, int64_t timeout_ns) {
  uint64_t expirations = 0;
  int result = tfd_wait(timer, timeout_ns, &expirations);
  (void)max;
  ready[0].data = expirations;
  return result;
}

static int read_timer(int64_t timer, evloop_ready_t *ready, int max, int64_t timeout_ns) {
  (void)max, (void)timeout_ns;
  return tfd_read(timer, &ready[0].data);
}

EVERY_SET(closing_wakes_a_starved_thread_in) {
  wait_starved_until_closed(set->wait, OK(create(set)));
}

TEST(closing_wakes_a_starved_thread_in_tfd_wait) {
  wait_starved_until_closed(wait_timer, OK(new_timer(0)));
}

TEST(closing_wakes_a_starved_thread_in_tfd_read) {
  wait_starved_until_closed(read_timer, OK(new_timer(0)));
}

static void wait_starved_for_a_timer(WaitFunction *wait, int result) {
  HeldBack s;
  tfd_t timer = OK(new_timer(0));
  hold_back(&s, wait, timer);
  fill_table();
  let_it_wait(&s);
  CHECK_EQ(tfd_settime_ns(timer, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(held_back_result(&s), result);
  CHECK_EQ(s.waiter.ready[0].data, 1);
  empty_table();
  CHECK_EQ(tfd_close(timer), 0);
}

TEST(a_starved_thread_in_tfd_wait_sees_the_timer_expire) {
  wait_starved_for_a_timer(wait_timer, 1);
}

TEST(a_starved_thread_in_tfd_read_sees_the_timer_expire) {
  wait_starved_for_a_timer(read_timer, 0);
}

TEST(a_thread_that_was_starved_leaves_nothing_behind) {
  const Set *set = &poll_set;
  int fd = event_fd(1);
  int64_t object = OK(create(set));
  fill_table();
  expect_timeout(set, object, 30 * MS);
  empty_table();
  int before = open_descriptors();
  for (int i = 0; i < 5; i++) expect_timeout(set, object, MS);
  CHECK_EQ(open_descriptors(), before + 2); /* its epoll, at last, and the process's eventfd */
  add(set, object, fd, 3);
  expect_event(set, object, fd, 3);
  CHECK_EQ(evloop_handle_close(object), 0);
}

/* ---- a child ---- */

typedef struct Registration {
  int64_t set;
  int fd;
} Registration;

static void *register_elsewhere(void *argument) {
  const Registration *one = argument;
  CHECK_EQ(evloop_poll_register(one->set, one->fd, EVLOOP_POLLIN, 4), 0);
  return NULL;
}

TEST(a_child_without_a_descriptor_left_waits_too) {
  const Set *set = &poll_set;
  Registration one = {OK(create(set)), event_fd(1)};
  int status;
  expect_timeout(set, one.set, MS); /* the child cannot use this thread's eventfd */
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    pthread_t thread;
    fill_table();
    expect_timeout(set, one.set, 30 * MS);
    CHECK_EQ(pthread_create(&thread, NULL, register_elsewhere, &one), 0);
    expect_event(set, one.set, one.fd, 4);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(evloop_poll_close(one.set), 0);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  CHECK_EQ(evloop_poll_close(one.set), 0);
}

/* ---- the descriptor of a /dev/poll object ---- */

typedef int Fileno(int64_t object);

static void get_fileno_later(const Set *set, Fileno *fileno_of) {
  int fd = event_fd(1), before = open_descriptors();
  int64_t object = OK(create(set));
  add(set, object, fd, 5);
  fill_table();
  CHECK_ERR(fileno_of(object), EMFILE);
  CHECK_ERR(fileno_of(object), EMFILE);
  expect_event(set, object, fd, 5);
  empty_table();
  CHECK_EQ(open_descriptors(), before);
  int fileno = (int)OK(fileno_of(object));
  CHECK(readable(fileno, -1));
  CHECK_EQ(fileno_of(object), fileno);
  CHECK_EQ(evloop_handle_close(object), 0);
  CHECK(fcntl(fileno, F_GETFD) < 0);
  OK(close(fd));
}

TEST(the_descriptor_of_devpoll_is_made_when_there_is_one) {
  CHECK_EQ(evloop_epoll_close(OK(evloop_epoll_create(0))), 0); /* makes what is kept */
  get_fileno_later(&devpoll, evloop_devpoll_fileno);
}

TEST(the_descriptor_of_a_selector_on_devpoll_is_made_when_there_is_one) {
  CHECK_EQ(evloop_epoll_close(OK(evloop_epoll_create(0))), 0);
  get_fileno_later(&devpoll_selector, evloop_selector_fileno);
}

/* ---- as many descriptors as the limit allows ---- */

enum { LIMIT = 64 };

/* Then there is no room for the waiting thread's eventfd in ppoll(2). */
static evloop_poll_t set_up_to_the_limit(int fds[LIMIT]) {
  evloop_poll_t set = OK(evloop_poll_create());
  for (int i = 0; i < LIMIT; i++) {
    fds[i] = event_fd(0);
    CHECK_EQ(evloop_poll_register(set, fds[i], EVLOOP_POLLIN, (uint64_t)i), 0);
  }
  return set;
}

static void start_at_the_limit(HeldBack *s, evloop_poll_t set) {
  hold_back(s, evloop_poll_wait, set);
  set_limit(LIMIT);
  let_it_wait(s);
}

static void close_fds(const int fds[LIMIT]) {
  for (int i = 0; i < LIMIT; i++) OK(close(fds[i]));
}

TEST(a_wait_for_as_many_as_the_limit_sees_events) {
  int fds[LIMIT];
  HeldBack s;
  evloop_poll_t set = set_up_to_the_limit(fds);
  start_at_the_limit(&s, set);
  OK(eventfd_write(fds[LIMIT - 1], 1));
  CHECK_EQ(held_back_result(&s), 1);
  CHECK_EQ(s.waiter.ready[0].data, LIMIT - 1);
  close_fds(fds);
}

TEST(a_wait_for_as_many_as_the_limit_sees_changes) {
  int fds[LIMIT];
  HeldBack s;
  evloop_poll_t set = set_up_to_the_limit(fds);
  start_at_the_limit(&s, set);
  CHECK_EQ(evloop_poll_modify(set, fds[0], EVLOOP_POLLOUT, 1000), 0);
  CHECK_EQ(held_back_result(&s), 1);
  CHECK_EQ(s.waiter.ready[0].data, 1000);
  close_fds(fds);
}

TEST(a_wait_for_as_many_as_the_limit_is_woken_by_close) {
  int fds[LIMIT];
  HeldBack s;
  evloop_poll_t set = set_up_to_the_limit(fds);
  start_at_the_limit(&s, set);
  CHECK_EQ(evloop_poll_close(set), 0);
  CHECK_EQ(held_back_result(&s), -ESTALE);
  close_fds(fds);
}

CHECK_MAIN()
