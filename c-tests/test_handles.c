/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The handle table as its users see it: numbers, ages, counts, leaks, and
 * many threads on a few handles. (test_library.c has every function with
 * stale handles and handles of another kind.) */

#define _GNU_SOURCE
#include "support.h"

#define KINDS 6

static int64_t open_kind(int kind) {
  switch (kind % KINDS) {
    case 0: return tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK);
    case 1: return evloop_poll_create();
    case 2: return evloop_epoll_create(0);
    case 3: return evloop_devpoll_create();
    case 4: return evloop_kqueue_create(0);
    default: return evloop_selector_create(EVLOOP_SELECTOR_DEFAULT);
  }
}

static const int codes[KINDS] = {EVLOOP_KIND_TFD, EVLOOP_KIND_POLL, EVLOOP_KIND_EPOLL,
                                 EVLOOP_KIND_DEVPOLL, EVLOOP_KIND_KQUEUE,
                                 EVLOOP_KIND_SELECTOR};

static int close_kind(int kind, int64_t handle) {
  switch (kind % KINDS) {
    case 0: return tfd_close(handle);
    case 1: return evloop_poll_close(handle);
    case 2: return evloop_epoll_close(handle);
    case 3: return evloop_devpoll_close(handle);
    case 4: return evloop_kqueue_close(handle);
    default: return evloop_selector_close(handle);
  }
}

/* ---- numbers ---- */

TEST(handles_are_positive_and_survive_a_double) {
  for (int kind = 0; kind < KINDS; kind++) {
    int64_t handle = OK(open_kind(kind));
    CHECK(handle > 0);
    CHECK(handle < INT64_C(1) << 53);
    CHECK_EQ((int64_t)(double)handle, handle);
    CHECK_EQ(evloop_handle_kind(handle), codes[kind]);
    CHECK_EQ(close_kind(kind, handle), 0);
  }
}

static int compare(const void *a, const void *b) {
  const int64_t *x = a, *y = b;
  return (*x > *y) - (*x < *y);
}

TEST(a_number_is_not_issued_twice) {
  enum { ROUNDS = 5000 };
  static int64_t issued[ROUNDS];
  for (int i = 0; i < ROUNDS; i++) {
    issued[i] = OK(open_kind(1));
    CHECK_EQ(close_kind(1, issued[i]), 0);
  }
  qsort(issued, ROUNDS, sizeof issued[0], compare);
  for (int i = 1; i < ROUNDS; i++) CHECK(issued[i - 1] != issued[i]);
}

TEST_TIMEOUT(an_old_handle_stays_stale_whatever_its_slot_is_used_for, 60) {
  int64_t old = OK(open_kind(1));
  CHECK_EQ(close_kind(1, old), 0);
  for (int i = 0; i < 100000; i++) {
    int64_t fresh = OK(open_kind(1));
    CHECK_ERR(evloop_handle_kind(old), ESTALE);
    CHECK_EQ(evloop_handle_close(fresh), 0);
  }
  CHECK_ERR(evloop_poll_close(old), ESTALE);
}

TEST(closing_twice_is_stale_the_second_time) {
  for (int kind = 0; kind < KINDS; kind++) {
    int64_t handle = OK(open_kind(kind));
    CHECK_EQ(close_kind(kind, handle), 0);
    CHECK_ERR(close_kind(kind, handle), ESTALE);
    CHECK_ERR(evloop_handle_close(handle), ESTALE);
  }
}

TEST(a_refused_close_leaves_the_object_open) {
  int64_t timer = OK(open_kind(0)), set = OK(open_kind(1));
  CHECK_ERR(tfd_close(set), EDOM);
  CHECK_ERR(evloop_poll_close(timer), EDOM);
  CHECK_EQ(evloop_poll_close(set), 0);
  CHECK_EQ(tfd_close(timer), 0);
}

/* ---- counts and leaks ---- */

TEST(counts_go_up_and_down_by_kind) {
  int64_t handles[KINDS];
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  for (int kind = 0; kind < KINDS; kind++) {
    handles[kind] = OK(open_kind(kind));
    CHECK_EQ(evloop_handle_count(codes[kind]), 1);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), kind + 1);
  }
  for (int kind = 0; kind < KINDS; kind++) {
    CHECK_EQ(evloop_handle_close(handles[kind]), 0);
    CHECK_EQ(evloop_handle_count(codes[kind]), 0);
  }
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
  CHECK_ERR(evloop_handle_count(-1), EINVAL);
  CHECK_ERR(evloop_handle_count(10), EINVAL);
  CHECK_ERR(evloop_handle_count(1000), EINVAL);
}

static void use_all(void) {
  evloop_ready_t ready[2];
  int fd = event_fd(1), file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  for (int backend = EVLOOP_SELECTOR_SELECT; backend <= EVLOOP_SELECTOR_KQUEUE; backend++) {
    evloop_selector_t s = OK(evloop_selector_create(backend));
    CHECK_EQ(evloop_selector_register(s, fd, EVLOOP_SELECTOR_READ, 1), 0);
    CHECK_EQ(evloop_selector_register(s, file, EVLOOP_SELECTOR_READ, 2), 0);
    CHECK(OK(evloop_selector_wait(s, ready, 2, -1)) > 0);
    CHECK_EQ(evloop_selector_close(s), 0);
  }
  evloop_devpoll_t devpoll = OK(evloop_devpoll_create());
  CHECK_EQ(evloop_devpoll_register(devpoll, fd, EVLOOP_POLLIN, 1), 0);
  OK(evloop_devpoll_fileno(devpoll));
  CHECK_EQ(evloop_devpoll_wait(devpoll, ready, 2, -1), 1);
  CHECK_EQ(evloop_devpoll_close(devpoll), 0);
  tfd_t timer = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  CHECK_EQ(tfd_settime_ns(timer, 0, 1, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(timer, NULL), 0);
  CHECK_EQ(tfd_close(timer), 0);
  OK(close(fd));
  OK(close(file));
}

/* Makes what the library keeps for a thread: when it waits for the first time,
 * which nothing else here is sure to do. */
static void wait_once(void) {
  evloop_ready_t ready;
  evloop_poll_t set = OK(evloop_poll_create());
  CHECK_EQ(evloop_poll_wait(set, &ready, 1, 1), 0);
  CHECK_EQ(evloop_poll_close(set), 0);
}

TEST(nothing_is_left_of_closed_objects) {
  wait_once();
  use_all(); /* makes what the library keeps for the process */
  int before = open_descriptors();
  for (int round = 0; round < 20; round++) use_all();
  CHECK_EQ(open_descriptors(), before);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

static void *use_all_in_a_thread(void *unused) {
  wait_once();
  use_all();
  return unused;
}

TEST(a_thread_takes_its_descriptor_with_it) {
  wait_once();
  use_all();
  int before = open_descriptors();
  for (int round = 0; round < 20; round++) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, use_all_in_a_thread, NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
  CHECK_EQ(open_descriptors(), before);
}

TEST_TIMEOUT(tens_of_thousands_are_open_at_once, 60) {
  int count = 40000 / slow_factor();
  int64_t *handles = calloc((size_t)count, sizeof *handles);
  CHECK(handles != NULL);
  for (int i = 0; i < count; i++) handles[i] = OK(evloop_poll_create());
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_POLL), count);
  for (int i = 0; i < count; i++) CHECK_EQ(evloop_poll_close(handles[i]), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_POLL), 0);
  free(handles);
}

/* ---- many threads on a few handles ---- */

enum { SHARED = 2 * KINDS, THREADS = 4 };

static int64_t shared[SHARED];
static int shared_fd;

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static int change_kqueue(int64_t handle, int flags) {
  evloop_kevent_t change = {.ident = (uint64_t)shared_fd,
                            .filter = EVLOOP_KQ_FILTER_READ,
                            .flags = (uint16_t)flags};
  return evloop_kqueue_control(handle, &change, 1, NULL, 0, 0);
}

static int random_call(int kind, int64_t handle, unsigned choice) {
  evloop_kevent_t event;
  evloop_ready_t ready[2];
  uint64_t expirations;
  switch (kind * 4 + (int)(choice % 4)) {
    case 0: return tfd_fileno(handle);
    case 1: return tfd_settime_ns(handle, 0, 1, 1, NULL, NULL);
    case 2: return tfd_read(handle, &expirations);
    case 3: return tfd_wait(handle, 0, NULL);
    case 4: return evloop_poll_register(handle, shared_fd, EVLOOP_POLLIN, 1);
    case 5: return evloop_poll_unregister(handle, shared_fd);
    case 6: return evloop_poll_modify(handle, shared_fd, 0, 1);
    case 7: return evloop_poll_wait(handle, ready, 2, 0);
    case 8: return evloop_epoll_register(handle, shared_fd, EVLOOP_EPOLLIN, 1);
    case 9: return evloop_epoll_unregister(handle, shared_fd);
    case 10: return evloop_epoll_fileno(handle);
    case 11: return evloop_epoll_wait(handle, ready, 2, 0);
    case 12: return evloop_devpoll_register(handle, shared_fd, EVLOOP_POLLIN, 1);
    case 13: return evloop_devpoll_fileno(handle);
    case 14: return evloop_devpoll_unregister(handle, shared_fd);
    case 15: return evloop_devpoll_wait(handle, ready, 2, 0);
    case 16: return change_kqueue(handle, EVLOOP_KQ_EV_ADD);
    case 17: return change_kqueue(handle, EVLOOP_KQ_EV_DELETE);
    case 18: return evloop_kqueue_fileno(handle);
    case 19: return evloop_kqueue_control(handle, NULL, 0, &event, 1, 0);
    case 20: return evloop_selector_register(handle, shared_fd, EVLOOP_SELECTOR_READ, 1);
    case 21: return evloop_selector_unregister(handle, shared_fd);
    case 22: return evloop_selector_count(handle);
    default: return evloop_selector_wait(handle, ready, 2, 0);
  }
}

static bool is_allowed(int result) {
  return result >= 0 || result == -ESTALE || result == -EDOM || result == -EAGAIN ||
         result == -EEXIST || result == -ENOENT;
}

static void *hammer(void *argument) {
  uint64_t random = UINT64_C(0x9e3779b97f4a7c15) * (uint64_t)(intptr_t)argument;
  long calls = 500000 / (slow_factor() * slow_factor());
  for (long i = 0; i < calls; i++) {
    int place = (int)(next_random(&random) % SHARED), kind = place % KINDS;
    int64_t handle = __atomic_load_n(&shared[place], __ATOMIC_RELAXED);
    unsigned choice = (unsigned)(next_random(&random) >> 40);
    int result;
    if (choice % 64 == 0) {
      int64_t fresh = OK(open_kind(kind));
      int64_t old = __atomic_exchange_n(&shared[place], fresh, __ATOMIC_RELAXED);
      result = evloop_handle_close(old);
    } else if (choice % 64 == 1) {
      result = close_kind(kind, handle);
    } else if (choice % 64 == 2) {
      result = random_call((kind + 1) % KINDS, handle, choice);
    } else {
      result = random_call(kind, handle, choice);
    }
    if (!is_allowed(result)) {
      printf("  %s from call %u on kind %d\n", evloop_strerror(result), choice, kind);
      CHECK(is_allowed(result));
    }
  }
  return NULL;
}

TEST_TIMEOUT(millions_of_calls_of_several_threads_on_shared_handles, 120) {
  pthread_t threads[THREADS];
  shared_fd = event_fd(1);
  for (int i = 0; i < SHARED; i++) shared[i] = OK(open_kind(i));
  for (intptr_t i = 0; i < THREADS; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)), 0);
  }
  for (int i = 0; i < THREADS; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
  for (int i = 0; i < SHARED; i++) evloop_handle_close(shared[i]);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

CHECK_MAIN()
