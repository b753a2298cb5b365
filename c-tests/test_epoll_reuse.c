/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Epoll objects: sets that several objects use, and descriptors that are
 * closed and used again. */

#define _GNU_SOURCE
#include "epoll_support.h"

#include <semaphore.h>

/* ---- several objects on one set ---- */

TEST(two_objects_on_one_descriptor_do_not_know_each_others_registrations) {
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC)), of_a = event_fd(0), of_b = event_fd(0);
  evloop_epoll_t a = OK(evloop_epoll_from_fd(raw, 0));
  evloop_epoll_t b = OK(evloop_epoll_from_fd(raw, 0));
  epoll_add(a, of_a, EVLOOP_EPOLLIN, 1);
  epoll_add(b, of_b, EVLOOP_EPOLLIN, 2);
  OK(eventfd_write(of_a, 1));
  expect_epoll_event(a, of_a, EVLOOP_EPOLLIN, 1);
  CHECK_EQ(next_epoll_event(b).fd, -1);
}

TEST(two_objects_on_one_descriptor_close_independently) {
  Waiter of_a, of_b;
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC)), fd = event_fd(0);
  evloop_epoll_t a = OK(evloop_epoll_from_fd(raw, 0));
  evloop_epoll_t b = OK(evloop_epoll_from_fd(raw, 0));
  epoll_add(b, fd, EVLOOP_EPOLLIN, 9);
  start_epoll_waiter(&of_a, a);
  start_epoll_waiter(&of_b, b);
  CHECK_EQ(evloop_epoll_close(a), 0);
  CHECK_EQ(waiter_result(&of_a), -ESTALE);
  wait_until_asleep(&of_b.tid);
  OK(eventfd_write(fd, 1));
  CHECK_EQ(waiter_result(&of_b), 1);
  CHECK(of_b.ready[0].fd == fd);
  CHECK_EQ(of_b.ready[0].data, 9);
  expect_epoll_event(b, fd, EVLOOP_EPOLLIN, 9);
}

/* A thread that is in a wait of an object, but in its interrupt check: the
 * object, closed, stays until it returns, and so does its alarm. */
typedef struct Holder {
  evloop_epoll_t object;
  int result;
  sem_t inside, go_on;
  pid_t tid;
  pthread_t thread;
} Holder;

static int hold(void *argument) {
  Holder *h = argument;
  sem_post(&h->inside);
  while (sem_wait(&h->go_on) < 0) { }
  return 0;
}

static void *holder_main(void *argument) {
  Holder *h = argument;
  evloop_ready_t ready;
  CHECK_EQ(evloop_set_interrupt_check(hold, h), 0);
  store_tid(&h->tid);
  h->result = evloop_epoll_wait(h->object, &ready, 1, -1);
  return NULL;
}

static void close_and_keep_alarmed(Holder *h, evloop_epoll_t object) {
  *h = (Holder){.object = object};
  handle_signals(count_signal);
  OK(sem_init(&h->inside, 0, 0));
  OK(sem_init(&h->go_on, 0, 0));
  CHECK_EQ(pthread_create(&h->thread, NULL, holder_main, h), 0);
  wait_until_asleep(&h->tid);
  CHECK_EQ(pthread_kill(h->thread, SIGUSR1), 0);
  while (sem_wait(&h->inside) < 0) { }
  CHECK_EQ(evloop_epoll_close(object), 0);
}

static void let_go(Holder *h) {
  OK(sem_post(&h->go_on));
  CHECK_EQ(pthread_join(h->thread, NULL), 0);
  CHECK_EQ(h->result, -ESTALE);
}

/* It waits for the whole time, asleep for the most of it. */
static void expect_timeout(WaitFunction *wait, int64_t object) {
  evloop_ready_t ready[4];
  int64_t start = now_ns(CLOCK_MONOTONIC), busy = now_ns(CLOCK_THREAD_CPUTIME_ID);
  CHECK_EQ(wait(object, ready, 4, 200 * MS), 0);
  CHECK(now_ns(CLOCK_MONOTONIC) - start >= 200 * MS);
  CHECK(now_ns(CLOCK_THREAD_CPUTIME_ID) - busy < 100 * MS);
}

TEST(a_closed_objects_alarm_does_not_end_the_waits_of_another) {
  Waiter w;
  Holder h;
  int raw = (int)OK(epoll_create1(EPOLL_CLOEXEC)), fd = event_fd(0);
  evloop_epoll_t a = OK(evloop_epoll_from_fd(raw, 0));
  evloop_epoll_t b = OK(evloop_epoll_from_fd(raw, 0));
  epoll_add(b, fd, EVLOOP_EPOLLIN, 9);
  close_and_keep_alarmed(&h, a);
  expect_timeout(evloop_epoll_wait, b);
  start_epoll_waiter(&w, b);
  OK(eventfd_write(fd, 1));
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == fd);
  CHECK_EQ(w.ready[0].data, 9);
  OK(eventfd_read(fd, &(eventfd_t){0}));
  let_go(&h);
  start_epoll_waiter(&w, b);
  CHECK_EQ(evloop_epoll_close(b), 0);
  CHECK_EQ(waiter_result(&w), -ESTALE);
}

TEST(a_selectors_regular_file_does_not_end_the_waits_of_an_object_on_its_set) {
  Waiter w;
  evloop_ready_t ready[2];
  evloop_selector_t s = OK(evloop_selector_create(EVLOOP_SELECTOR_EPOLL));
  evloop_epoll_t ep = OK(evloop_epoll_from_fd((int)OK(evloop_selector_fileno(s)), 0));
  int fd = event_fd(0), file = regular_file();
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 5);
  CHECK_EQ(evloop_selector_register(s, file, EVLOOP_SELECTOR_READ, 6), 0);
  expect_timeout(evloop_epoll_wait, ep);
  OK(eventfd_write(fd, 1));
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 5);
  OK(eventfd_read(fd, &(eventfd_t){0}));
  start_epoll_waiter(&w, ep);
  CHECK_EQ(evloop_epoll_close(ep), 0);
  CHECK_EQ(waiter_result(&w), -ESTALE);
  CHECK_EQ(evloop_selector_wait(s, ready, 2, -1), 1);
  CHECK(ready[0].fd == file);
  CHECK_EQ(ready[0].data, 6);
}

TEST(an_object_closed_on_a_selectors_set_does_not_end_the_selectors_waits) {
  Waiter w;
  Holder h;
  evloop_ready_t ready[2];
  evloop_selector_t s = OK(evloop_selector_create(EVLOOP_SELECTOR_EPOLL));
  int file = regular_file();
  close_and_keep_alarmed(&h, OK(evloop_epoll_from_fd((int)OK(evloop_selector_fileno(s)), 0)));
  expect_timeout(evloop_selector_wait, s);
  start_waiter_in(&w, evloop_selector_wait, s);
  CHECK_EQ(evloop_selector_register(s, file, EVLOOP_SELECTOR_READ, 6), 0);
  CHECK_EQ(waiter_result(&w), 1);
  CHECK(w.ready[0].fd == file);
  CHECK_EQ(w.ready[0].data, 6);
  let_go(&h);
  CHECK_EQ(evloop_selector_wait(s, ready, 2, -1), 1);
  CHECK_EQ(evloop_selector_unregister(s, file), 0);
  start_waiter_in(&w, evloop_selector_wait, s);
  CHECK_EQ(evloop_selector_close(s), 0);
  CHECK_EQ(waiter_result(&w), -ESTALE);
}

/* ---- descriptors that are closed and come again ---- */

TEST(a_leftover_is_never_taken_for_the_new_registration) {
  evloop_epoll_t ep = new_epoll();
  int fd = event_fd(0);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 1);
  int duplicate = (int)OK(dup(fd));
  OK(close(fd));
  CHECK_EQ(event_fd(0), fd);
  epoll_add(ep, fd, EVLOOP_EPOLLIN, 2);
  OK(eventfd_write(duplicate, 1));
  evloop_ready_t leftover = next_epoll_event(ep);
  CHECK_EQ(leftover.fd, -1);
  CHECK(leftover.data != 2);
  OK(close(duplicate));
  expect_no_epoll_event(ep);
  OK(eventfd_write(fd, 1));
  expect_epoll_event(ep, fd, EVLOOP_EPOLLIN, 2);
}

enum { SLOTS = 8, ROUNDS = 500, ENOUGH = 50 };

typedef struct Churn {
  evloop_epoll_t ep;
  int seed;
} Churn;

static int collected; /* events of registrations that were known */

static int enough(void) {
  return __atomic_load_n(&collected, __ATOMIC_RELAXED) >= ENOUGH;
}

/* The data of every registration contains the descriptor it was made for. */
static uint64_t word_for(int fd, int round) {
  return (uint64_t)fd << 32 | (uint32_t)round;
}

static void *churning(void *argument) {
  const Churn *c = argument;
  for (int round = 0; round < ROUNDS || !enough(); round++) {
    int fd = event_fd(1), duplicate = (round + c->seed) % 3 == 0 ? dup(fd) : -1;
    epoll_add(c->ep, fd, EVLOOP_EPOLLIN, word_for(fd, round));
    CHECK_EQ(evloop_epoll_modify(c->ep, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLET, word_for(fd, round)), 0);
    if (round % 2 == 0) CHECK_EQ(evloop_epoll_unregister(c->ep, fd), 0);
    OK(close(fd));
    if (duplicate >= 0) OK(close(duplicate));
  }
  return NULL;
}

static void *collecting(void *argument) {
  const evloop_epoll_t ep = *(evloop_epoll_t *)argument;
  evloop_ready_t ready[SLOTS];
  int n;
  while ((n = evloop_epoll_wait(ep, ready, SLOTS, -1)) > 0) {
    for (int i = 0; i < n; i++) {
      if (ready[i].fd == -1) continue;
      CHECK_EQ(ready[i].data >> 32, ready[i].fd);
      __atomic_add_fetch(&collected, 1, __ATOMIC_RELAXED);
    }
  }
  CHECK_EQ(n, -ESTALE);
  return NULL;
}

TEST_TIMEOUT(no_event_ever_carries_the_data_of_another_descriptor, 60) {
  enum { THREADS = 3 };
  evloop_epoll_t ep = new_epoll();
  pthread_t changers[THREADS], waiters[THREADS];
  Churn churn[THREADS];
  for (int i = 0; i < THREADS; i++) {
    churn[i] = (Churn){ep, i};
    CHECK_EQ(pthread_create(&waiters[i], NULL, collecting, &ep), 0);
    CHECK_EQ(pthread_create(&changers[i], NULL, churning, &churn[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(changers[i], NULL), 0);
  CHECK_EQ(evloop_epoll_close(ep), 0);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(waiters[i], NULL), 0);
  CHECK(enough());
}

CHECK_MAIN()
