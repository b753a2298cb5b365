/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues that several threads use: edges, which the kernel reports only once;
 * forks and closing while other threads use the queue; and no descriptor left. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>

typedef struct Taker {
  evloop_kqueue_t kq;
  int result;
  pid_t tid;
  pthread_t thread;
} Taker;

static void *take_main(void *argument) {
  Taker *t = (Taker *)argument;
  Event events[4];
  store_tid(&t->tid);
  t->result = take(t->kq, events, 4, -1);
  return NULL;
}

static void start_taker(Taker *t, evloop_kqueue_t kq) {
  memset(t, 0, sizeof *t);
  t->kq = kq;
  CHECK_EQ(pthread_create(&t->thread, NULL, take_main, t), 0);
  wait_until_asleep(&t->tid);
}

TEST(what_is_added_while_a_thread_waits_reaches_it) {
  static const int flags[] = {0, CLEAR, CLEAR | ONESHOT, CLEAR | DISPATCH};
  for (int f = 0; AT_ROW(f, flags); f++) {
    evloop_kqueue_t kq = new_kqueue();
    Taker t;
    Pipe p = new_pipe();
    put(p.w);
    start_taker(&t, kq);
    apply(kq, (uint64_t)p.r, KQ_READ, ADD | flags[f], 0, 0, 0);
    CHECK_EQ(pthread_join(t.thread, NULL), 0);
    CHECK_EQ(t.result, 1);
  }
}

TEST(each_edge_wakes_one_of_those_that_wait) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  Taker first, second;
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | CLEAR, 0, 0, 0);
  start_taker(&first, kq);
  start_taker(&second, kq);
  put(p.w);
  while (is_pending(kq)) sched_yield();
  put(p.w);
  CHECK_EQ(pthread_join(first.thread, NULL), 0);
  CHECK_EQ(pthread_join(second.thread, NULL), 0);
  CHECK_EQ(first.result + second.result, 2);
}

/* ---- nothing is lost ---- */

enum { PIPES = 16, ROUNDS = 20000, LAST = 1 };

static struct {
  evloop_kqueue_t kq;
  int64_t received;
  int64_t wanted;
} shared;

/* Reads what is there, until the last of all was read. */
static void *drain(void *unused) {
  Event event;
  char bytes[64];
  while (take(shared.kq, &event, 1, -1) == 1 && event.filter == KQ_READ) {
    ssize_t length;
    while ((length = read((int)event.ident, bytes, sizeof bytes)) > 0) {
      int64_t now = __atomic_add_fetch(&shared.received, length, __ATOMIC_ACQ_REL);
      if (now == shared.wanted) apply(shared.kq, LAST, KQ_USER, 0, TRIGGER, 0, 0);
    }
    CHECK_EQ(errno, EAGAIN);
  }
  return unused;
}

TEST_TIMEOUT(no_edge_is_lost_between_threads, 60) {
  enum { THREADS = 4 };
  int64_t rounds = ROUNDS / slow_factor();
  Pipe pipes[PIPES];
  pthread_t threads[THREADS];
  shared.kq = new_kqueue();
  shared.wanted = rounds * PIPES;
  /* Without CLEAR: all threads see it. */
  apply(shared.kq, LAST, KQ_USER, ADD, 0, 0, 0);
  for (int i = 0; i < PIPES; i++) {
    pipes[i] = new_pipe();
    OK(fcntl(pipes[i].r, F_SETFL, O_NONBLOCK));
    apply(shared.kq, (uint64_t)pipes[i].r, KQ_READ, ADD | CLEAR, 0, 0, 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, drain, NULL), 0);
  for (int64_t i = 0; i < rounds; i++)
    for (int j = 0; j < PIPES; j++) put(pipes[j].w);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(shared.received, shared.wanted);
}

enum { MANY = 600 };

/* Takes all that is ready, again and again: each once in a call. */
static void *take_all(void *argument) {
  Event *events = (Event *)malloc(2 * MANY * sizeof *events);
  (void)argument;
  CHECK(events != NULL);
  for (int i = 0; i < 200 / slow_factor(); i++) {
    char seen[4 * MANY] = {0};
    int count = take(shared.kq, events, 2 * MANY, -1);
    CHECK_EQ(count, MANY);
    for (int j = 0; j < count; j++) CHECK_EQ(seen[events[j].ident]++, 0);
  }
  free(events);
  return NULL;
}

TEST_TIMEOUT(an_event_comes_once_in_a_call_while_other_threads_collect, 60) {
  enum { THREADS = 3 };
  pthread_t threads[THREADS];
  set_limit(3 * MANY);
  shared.kq = new_kqueue();
  for (int i = 0; i < MANY; i++) apply(shared.kq, (uint64_t)event_fd(1), KQ_READ, ADD, 0, 0, 0);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&threads[i], NULL, take_all, NULL), 0);
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* A call by a handle that another thread closes concurrently has all events, or
 * none. */
static void *take_by(void *argument) {
  static Event events[MANY];
  Taker *t = (Taker *)argument;
  STORE(t->tid, 1);
  t->result = take(t->kq, events, MANY, 0);
  return NULL;
}

TEST_TIMEOUT(nothing_is_lost_with_a_handle, 60) {
  static Event changes[MANY], events[MANY];
  evloop_kqueue_t kq = new_kqueue();
  set_limit(3 * MANY);
  for (int i = 0; i < MANY; i++) changes[i] = change((uint64_t)event_fd(1), KQ_READ, ADD | ONESHOT, 0, 0, 0);
  for (int i = 0; i < 200 / slow_factor(); i++) {
    Taker t = {OK(evloop_kqueue_from_fd((int)evloop_kqueue_fileno(kq), 0)), 0, 0, 0};
    CHECK_EQ(evloop_kqueue_control(kq, changes, MANY, NULL, 0, 0), 0);
    CHECK_EQ(pthread_create(&t.thread, NULL, take_by, &t), 0);
    UNTIL(LOAD(t.tid) != 0);
    CHECK_EQ(evloop_kqueue_close(t.kq), 0);
    CHECK_EQ(pthread_join(t.thread, NULL), 0);
    CHECK(t.result == -ESTALE || t.result == MANY);
    CHECK_EQ(take(kq, events, MANY, 0), t.result == MANY ? 0 : MANY);
  }
}

/* ---- forks ---- */

/* Parent and child each have the events there were, in whichever order they
 * take them. */
TEST(a_child_that_keeps_the_queue_takes_nothing_from_its_parent) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  Pipe p = new_pipe();
  Event events[4];
  int status;
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | CLEAR, 0, 0, 0);
  apply(kq, 1, KQ_TIMER, ADD | ONESHOT, 0, 0, 0);
  apply(kq, 2, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  put(p.w);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(take(kq, events, 4, -1) == 3 ? 0 : 1);
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), -1));
  CHECK_EQ(take(kq, events, 4, -1), 3);
  CHECK_EQ(take(kq, events, 4, 0), 0);
}

static bool over;
static int begun; /* atomic */

static void *change_all_the_time(void *argument) {
  int kq = *(int *)argument;
  RAISE(begun, 1);
  Event one = change(1, KQ_USER, ADD | CLEAR, 0, 0, 0);
  while (!LOAD(over)) CHECK_EQ(evloop_bsd_kevent(kq, &one, 1, NULL, 0, NULL), 0);
  return NULL;
}

TEST_TIMEOUT(a_child_of_a_busy_process_uses_queues_at_once, 60) {
  int kq = evloop_bsd_kqueue();
  pthread_t threads[2];
  CHECK(kq >= 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, change_all_the_time, &kq), 0);
  /* Not while they begin: see may_fork_beside_allocations(). */
  UNTIL(LOAD(begun) == 2);
  for (int i = 0; i < 300 / slow_factor(); i++) {
    int status;
    Event event;
    pid_t child = (pid_t)OK(fork());
    if (child == 0) {
      alarm((unsigned)(20 * slow_factor()));
      /* Inherited it is not. */
      bool good = i % 2 ? evloop_bsd_kqueue() >= 0
                        : evloop_bsd_kevent(kq, NULL, 0, &event, 1, NULL) == -1 && errno == EBADF;
      /* What a thread of the parent was changing belongs to no thread of the
       * child: checkers that run at exit would report it. */
      if (good) raise(SIGKILL);
      _exit(1);
    }
    CHECK_EQ(waitpid(child, &status, 0), child);
    CHECK_EQ(status, SIGKILL);
  }
  STORE(over, true);
  for (int i = 0; i < 2; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- closing ---- */

static Pipe gates[2];
static __thread int gate;
static int parked; /* atomic */
static void *page; /* where changes are that cannot be read yet */

/* Keeps a thread where it is until its gate is opened. */
static void park(int number) {
  char byte;
  (void)number;
  RAISE(parked, 1);
  while (read(gates[gate].r, &byte, 1) < 0) continue;
}

static void park_thread(pthread_t thread) {
  int before = LOAD(parked);
  CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
  UNTIL(LOAD(parked) > before);
}

static void park_and_let_read(int number) {
  park(number);
  CHECK_EQ(mprotect(page, 4096, PROT_READ | PROT_WRITE), 0);
}

/* It reads its changes with the queue's lock, and cannot go on. */
static void *change_with_lock(void *kq) {
  CHECK_EQ(evloop_kqueue_control(*(evloop_kqueue_t *)kq, (Event *)page, 1, NULL, 0, 0), 0);
  return NULL;
}

static void make_page(void) {
  page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  *(Event *)page = change(1, KQ_USER, ADD, 0, 0, 0);
  CHECK_EQ(mprotect(page, 4096, PROT_NONE), 0);
  OK(signal(SIGSEGV, park_and_let_read) == SIG_ERR ? -1 : 0);
}

static void *take_at_gate(void *argument) {
  gate = 1;
  return take_main(argument);
}

static void *close_main(void *argument) {
  Taker *t = (Taker *)argument;
  store_tid(&t->tid);
  t->result = evloop_kqueue_close(t->kq);
  return NULL;
}

/* Returns in which call the thread sleeps. */
static long start(Taker *t, evloop_kqueue_t kq, void *role(void *)) {
  long call;
  memset(t, 0, sizeof *t);
  t->kq = kq;
  CHECK_EQ(pthread_create(&t->thread, NULL, role, t), 0);
  int call_file = (int)OK(open_call_file(&t->tid));
  POLL_UNTIL((call = call_of(call_file)) == SYS_futex || is_wait(call));
  OK(close(call_file));
  return call;
}

static int result_of(Taker *t) {
  CHECK_EQ(pthread_join(t->thread, NULL), 0);
  return t->result;
}

TEST(who_is_about_to_wait_sees_that_it_is_closed) {
  handle_signals(park);
  gates[0] = new_pipe();
  gates[1] = new_pipe();
  for (int kind = 0; kind < 2; kind++) {
    evloop_kqueue_t kq = new_kqueue(), by = kq;
    pthread_t changer;
    Taker taker, closer;
    int before = LOAD(parked);
    if (kind == 1) by = OK(evloop_kqueue_from_fd((int)OK(evloop_kqueue_fileno(kq)), 0));
    make_page();
    CHECK_EQ(pthread_create(&changer, NULL, change_with_lock, &kq), 0);
    UNTIL(LOAD(parked) > before);
    CHECK_EQ(start(&taker, by, take_at_gate), SYS_futex);
    park_thread(taker.thread);
    CHECK_EQ(start(&closer, by, close_main), SYS_futex);
    put(gates[0].w);
    CHECK_EQ(result_of(&closer), 0);
    put(gates[1].w);
    CHECK_EQ(result_of(&taker), -ESTALE);
    if (kind == 1) CHECK_EQ(evloop_kqueue_close(kq), 0);
    CHECK_EQ(pthread_join(changer, NULL), 0);
  }
}

/* ---- descriptors that run out ---- */

static void close_without_descriptors(evloop_kqueue_t kq) {
  Taker t;
  start_taker(&t, kq);
  Filling all = use_up_descriptors();
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK_EQ(result_of(&t), -ESTALE);
  give_back_descriptors(all);
}

TEST(closing_wakes_who_waits_without_a_descriptor_left) {
  close_without_descriptors(new_kqueue());
}

TEST(closing_a_second_handle_wakes_who_waits_without_a_descriptor_left) {
  int fd = (int)OK(evloop_kqueue_fileno(new_kqueue()));
  close_without_descriptors(OK(evloop_kqueue_from_fd(fd, 0)));
}

TEST(what_is_left_of_an_edge_is_seen_without_a_descriptor_left) {
  evloop_kqueue_t kq = new_kqueue();
  Pipe p = new_pipe();
  Event event;
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | CLEAR, 0, 0, 0);
  apply(kq, (uint64_t)p.r, KQ_READ, ADD | CLEAR | EVLOOP_KQ_EV_UDATA_SPECIFIC, 0, 0, 7);
  Filling all = use_up_descriptors();
  put(p.w);
  CHECK_EQ(take(kq, &event, 1, -1), 1);
  CHECK(readable((int)OK(evloop_kqueue_fileno(kq)), 0));
  CHECK_EQ(take(kq, &event, 1, 0), 1);
  expect_nothing(kq);
  give_back_descriptors(all);
}

/* The kernel goes on reporting what was closed while a duplicate lives, and
 * there is no descriptor to be rid of it with. */
TEST(what_cannot_be_got_rid_of_does_not_keep_a_thread_busy) {
  evloop_kqueue_t kq = new_kqueue();
  struct rusage before, after;
  Event event;
  int fd = event_fd(1);
  apply(kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0);
  OK(dup(fd));
  Filling all = use_up_descriptors();
  OK(close(fd));
  OK(dup(0));
  OK(getrusage(RUSAGE_THREAD, &before));
  CHECK_EQ(take(kq, &event, 1, 500 * MS), 0);
  OK(getrusage(RUSAGE_THREAD, &after));
  /* How often it slept. */
  CHECK(after.ru_nvcsw - before.ru_nvcsw > 2);
  give_back_descriptors(all);
}

TEST(a_change_that_fails_for_want_of_a_descriptor_was_not_made) {
  evloop_kqueue_t kq = new_kqueue();
  Event event, timer = change(2, KQ_TIMER, ADD, EVLOOP_KQ_NOTE_ABSTIME, 1, 7);
  Filling all = use_up_descriptors();
  CHECK_EQ(evloop_kqueue_control(kq, &timer, 1, &event, 1, 0), 1);
  CHECK_EQ(event.flags, KQ_ERROR);
  CHECK_EQ(event.data, EMFILE);
  CHECK_EQ(event.udata, 7);
  CHECK_ERR(try_change(kq, 2, KQ_TIMER, DELETE, 0, 0, 0), ENOENT);
  CHECK_ERR(try_change(kq, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 0), EMFILE);
  CHECK_ERR(try_change(kq, SIGUSR1, EVLOOP_KQ_FILTER_SIGNAL, DELETE, 0, 0, 0), ENOENT);
  /* This needs none. */
  apply(kq, 1, KQ_USER, ADD | CLEAR, TRIGGER, 0, 0);
  expect_event(kq, 1, KQ_USER);
  apply(kq, 2, KQ_TIMER, ADD | ONESHOT, 0, 1, 0);
  expect_event(kq, 2, KQ_TIMER);
  give_back_descriptors(all);
  apply(kq, 2, KQ_TIMER, ADD | ONESHOT, EVLOOP_KQ_NOTE_ABSTIME, 1, 0);
  expect_event(kq, 2, KQ_TIMER);
}

CHECK_MAIN()
