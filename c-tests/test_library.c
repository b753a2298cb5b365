/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What all functions have in common: handles, the last error, errno; and the
 * functions that return facts about the library. */

#define _GNU_SOURCE
#include "support.h"

#include <limits.h>

#define PRESET 4321 /* an errno that nothing sets */

/* ---- every function that takes a handle ---- */

typedef struct Function {
  const char *name;
  int kind;
  int64_t (*call)(int64_t handle);
} Function;

/* None of these calls may do harm or block if it works after all. */
#define CALL(name, expression) \
  static int64_t call_##name(int64_t h) { return expression; }
static evloop_ready_t room;
CALL(tfd_fileno, tfd_fileno(h))
CALL(tfd_close, tfd_close(h))
CALL(tfd_settime, tfd_settime(h, 0, 0, 0, NULL, NULL))
CALL(tfd_settime_ns, tfd_settime_ns(h, 0, 0, 0, NULL, NULL))
CALL(tfd_gettime, tfd_gettime(h, NULL, NULL))
CALL(tfd_gettime_ns, tfd_gettime_ns(h, NULL, NULL))
CALL(tfd_read, tfd_read(h, NULL))
CALL(tfd_wait, tfd_wait(h, 0, NULL))
CALL(tfd_clockid, tfd_clockid(h))
CALL(tfd_set_ticks, tfd_set_ticks(h, 1))
CALL(poll_register, evloop_poll_register(h, 0, 1, 0))
CALL(poll_modify, evloop_poll_modify(h, 0, 1, 0))
CALL(poll_unregister, evloop_poll_unregister(h, 0))
CALL(poll_wait, evloop_poll_wait(h, &room, 1, 0))
CALL(poll_close, evloop_poll_close(h))
CALL(epoll_fileno, evloop_epoll_fileno(h))
CALL(epoll_register, evloop_epoll_register(h, 0, 1, 0))
CALL(epoll_modify, evloop_epoll_modify(h, 0, 1, 0))
CALL(epoll_unregister, evloop_epoll_unregister(h, 0))
CALL(epoll_wait, evloop_epoll_wait(h, &room, 1, 0))
CALL(epoll_close, evloop_epoll_close(h))
CALL(devpoll_fileno, evloop_devpoll_fileno(h))
CALL(devpoll_register, evloop_devpoll_register(h, 0, 1, 0))
CALL(devpoll_modify, evloop_devpoll_modify(h, 0, 1, 0))
CALL(devpoll_unregister, evloop_devpoll_unregister(h, 0))
CALL(devpoll_wait, evloop_devpoll_wait(h, &room, 1, 0))
CALL(devpoll_close, evloop_devpoll_close(h))
CALL(selector_fileno, evloop_selector_fileno(h))
CALL(selector_register, evloop_selector_register(h, 0, 1, 0))
CALL(selector_modify, evloop_selector_modify(h, 0, 1, 0))
CALL(selector_unregister, evloop_selector_unregister(h, 0))
CALL(selector_get, evloop_selector_get(h, 0, NULL, NULL))
CALL(selector_count, evloop_selector_count(h))
CALL(selector_wait, evloop_selector_wait(h, &room, 1, 0))
CALL(selector_close, evloop_selector_close(h))
CALL(handle_kind, evloop_handle_kind(h))
CALL(handle_close, evloop_handle_close(h))

#define TFD(name) {"tfd_" #name, EVLOOP_KIND_TFD, call_tfd_##name}
#define OF(kind, function) {"evloop_" #function, EVLOOP_KIND_##kind, call_##function}
static const Function functions[] = {
    TFD(fileno), TFD(close), TFD(settime), TFD(settime_ns), TFD(gettime), TFD(gettime_ns),
    TFD(read), TFD(wait), TFD(clockid), TFD(set_ticks),
    OF(POLL, poll_register), OF(POLL, poll_modify), OF(POLL, poll_unregister),
    OF(POLL, poll_wait), OF(POLL, poll_close),
    OF(EPOLL, epoll_fileno), OF(EPOLL, epoll_register), OF(EPOLL, epoll_modify),
    OF(EPOLL, epoll_unregister), OF(EPOLL, epoll_wait), OF(EPOLL, epoll_close),
    OF(DEVPOLL, devpoll_fileno), OF(DEVPOLL, devpoll_register), OF(DEVPOLL, devpoll_modify),
    OF(DEVPOLL, devpoll_unregister), OF(DEVPOLL, devpoll_wait), OF(DEVPOLL, devpoll_close),
    OF(SELECTOR, selector_fileno), OF(SELECTOR, selector_register), OF(SELECTOR, selector_modify),
    OF(SELECTOR, selector_unregister), OF(SELECTOR, selector_get), OF(SELECTOR, selector_count),
    OF(SELECTOR, selector_wait), OF(SELECTOR, selector_close),
    OF(ANY, handle_kind), OF(ANY, handle_close)};

static int64_t create(int kind) {
  switch (kind) {
    case EVLOOP_KIND_TFD: return OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
    case EVLOOP_KIND_POLL: return OK(evloop_poll_create());
    case EVLOOP_KIND_EPOLL: return OK(evloop_epoll_create(0));
    case EVLOOP_KIND_DEVPOLL: return OK(evloop_devpoll_create());
    default: return OK(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT));
  }
}

static const int kinds[] = {EVLOOP_KIND_TFD, EVLOOP_KIND_POLL, EVLOOP_KIND_EPOLL,
                            EVLOOP_KIND_DEVPOLL, EVLOOP_KIND_SELECTOR};

/* A close function that is given no handle leaves the sentence. */
static bool is_kept(const Function *function, int64_t handle) {
  return handle <= 0 && strstr(function->name, "_close") != NULL;
}

static void expect_failure(const Function *function, int64_t handle, int code) {
  char text[300] = "", start[100], number[30], end[20];
  int64_t result = (errno = PRESET, function->call(handle));
  int kept = errno == PRESET;
  OK(evloop_last_error(text, sizeof text));
  if (result == -code && kept && is_kept(function, handle)) return;
  snprintf(start, sizeof start, "%s: ", function->name);
  snprintf(number, sizeof number, " %" PRId64 " is ", handle);
  snprintf(end, sizeof end, " (%s)", code == ESTALE ? "ESTALE" : "EDOM");
  if (result == -code && kept && strncmp(text, start, strlen(start)) == 0 &&
      strstr(text, number) != NULL && strstr(text, end) != NULL && strcmp(strstr(text, end), end) == 0) return;
  printf("  %s: %" PRId64 " not %d, errno kept: %d, \"%s\"\n", function->name, result, -code,
         kept, text);
  check_exit();
}

TEST(every_function_knows_what_was_never_a_handle) {
  static const int64_t strangers[] = {0, 1, -1, INT64_MIN, INT64_MAX, INT64_C(1) << 53,
                                      (INT64_C(1) << 53) - 1, INT64_C(1) << 32};
  int i, n;
  for (i = 0; AT_ROW(i, functions); i++) {
    for (n = 0; AT_ROW(n, strangers); n++) expect_failure(&functions[i], strangers[n], ESTALE);
  }
}

TEST(every_function_knows_a_closed_handle) {
  int i, k;
  for (k = 0; AT_ROW(k, kinds); k++) {
    int64_t closed = create(kinds[k]);
    CHECK_EQ(evloop_handle_close(closed), 0);
    int64_t next = create(kinds[k]);
    CHECK(next != closed);
    for (i = 0; AT_ROW(i, functions); i++) expect_failure(&functions[i], closed, ESTALE);
    CHECK_EQ(evloop_handle_close(next), 0);
  }
}

TEST(every_function_knows_a_handle_of_another_kind) {
  int i, k;
  for (k = 0; AT_ROW(k, kinds); k++) {
    int64_t handle = create(kinds[k]);
    for (i = 0; AT_ROW(i, functions); i++) {
      if (functions[i].kind == kinds[k] || functions[i].kind == EVLOOP_KIND_ANY) continue;
      expect_failure(&functions[i], handle, EDOM);
    }
    CHECK_EQ(evloop_handle_kind(handle), kinds[k]);
    CHECK_EQ(evloop_handle_close(handle), 0);
  }
}

TEST(handles_are_counted_by_kind) {
  int k;
  int64_t handles[LENGTH(kinds)];
  for (k = 0; AT_ROW(k, kinds); k++) {
    CHECK_EQ(evloop_handle_count(kinds[k]), 0);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), k);
    handles[k] = create(kinds[k]);
    CHECK(handles[k] >= 1);
    CHECK(handles[k] < INT64_C(1) << 53);
    CHECK_EQ(evloop_handle_count(kinds[k]), 1);
  }
  for (k = 0; AT_ROW(k, kinds); k++) CHECK_EQ(evloop_handle_close(handles[k]), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), 0);
}

/* ---- the last error ---- */

static char whole[300]; /* the sentence of fail_once() */

static void fail_once(void) {
  CHECK_ERR(tfd_fileno(-12), ESTALE);
  OK(evloop_last_error(whole, sizeof whole));
  CHECK(strncmp(whole, "tfd_fileno: ", 12) == 0);
}

static int last_is(const char *expected) {
  char text[300];
  memset(text, 'x', sizeof text);
  CHECK_EQ(evloop_last_error(text, sizeof text), strlen(expected));
  return strcmp(text, expected) == 0;
}

/* Of another call that failed with the same values. */
static int last_is_of(const char *function) {
  char expected[300];
  snprintf(expected, sizeof expected, "%s%s", function, strchr(whole, ':'));
  return last_is(expected);
}

TEST(the_last_error_is_empty_at_first) {
  char text[] = "xyz";
  CHECK_EQ(evloop_last_error(NULL, 0), 0);
  CHECK_EQ(evloop_last_error(text, 1), 0);
  CHECK(memcmp(text, "\0yz", 4) == 0);
  CHECK(last_is(""));
}

TEST(the_last_error_is_cut_to_the_buffer) {
  size_t cap, length;
  fail_once();
  length = strlen(whole);
  for (cap = 1; cap <= length + 5; cap++) {
    char text[sizeof whole + 6];
    size_t kept = cap > length ? length : cap - 1;
    memset(text, 'x', sizeof text);
    CHECK_EQ(evloop_last_error(text, cap), length);
    CHECK(memcmp(text, whole, kept) == 0);
    CHECK_EQ(text[kept], 0);
    CHECK_EQ(text[cap], 'x');
  }
}

TEST(the_length_of_the_last_error_needs_no_buffer) {
  char text[] = "xyz";
  fail_once();
  CHECK_EQ(evloop_last_error(NULL, 0), strlen(whole));
  CHECK_EQ(evloop_last_error(text, 0), strlen(whole));
  CHECK(strcmp(text, "xyz") == 0);
}

TEST(a_null_buffer_with_a_size_is_refused) {
  CHECK_ERR(evloop_last_error(NULL, 1), EINVAL);
  CHECK_ERR(evloop_last_error(NULL, SIZE_MAX), EINVAL);
}

TEST(a_failure_replaces_the_last_error) {
  fail_once();
  CHECK_ERR(evloop_poll_wait(-12, &room, 1, 0), ESTALE);
  CHECK(last_is_of("evloop_poll_wait"));
}

/* A program that cleans up what it has not made asks why that was. */
TEST(a_close_of_no_handle_keeps_the_last_error) {
  static const int64_t numbers[] = {0, -1, -ENOENT, INT64_MIN};
  int64_t timer = create(kinds[0]);
  for (int i = 0; AT_ROW(i, numbers); i++) {
    int64_t number = numbers[i];
    fail_once();
    CHECK_ERR(tfd_close(number), ESTALE);
    CHECK_ERR(evloop_poll_close(number), ESTALE);
    CHECK_ERR(evloop_epoll_close(number), ESTALE);
    CHECK_ERR(evloop_devpoll_close(number), ESTALE);
    CHECK_ERR(evloop_selector_close(number), ESTALE);
    CHECK_ERR(evloop_kqueue_close(number), ESTALE);
    CHECK_ERR(evloop_close(number), ESTALE);
    CHECK_ERR(evloop_watcher_close(number, 0), ESTALE);
    CHECK_ERR(evloop_watcher_close(number, EVLOOP_CLOSE_WAIT), ESTALE);
    CHECK_ERR(evloop_handle_close(number), ESTALE);
    CHECK(last_is(whole));
  }
  /* Of a handle that was closed it is a failure like others. */
  CHECK_EQ(tfd_close(timer), 0);
  CHECK_ERR(tfd_close(timer), ESTALE);
  char text[300];
  OK(evloop_last_error(text, sizeof text));
  CHECK(strstr(text, " is closed, or was never one (ESTALE)") != NULL);
}

TEST(successes_and_timeouts_leave_the_last_error) {
  int k, fd = (int)OK(eventfd(0, EFD_CLOEXEC)), count = 1;
  int64_t handles[LENGTH(kinds)];
  fail_once();
  for (k = 0; AT_ROW(k, kinds); k++) handles[k] = create(kinds[k]);
  CHECK_ERR(tfd_read(handles[0], NULL), EAGAIN);
  CHECK_EQ(tfd_wait(handles[0], MS, NULL), 0);
  CHECK_EQ(evloop_poll_wait(handles[1], &room, 1, MS), 0);
  CHECK_EQ(evloop_epoll_wait(handles[2], &room, 1, MS), 0);
  CHECK_EQ(evloop_devpoll_wait(handles[3], &room, 1, MS), 0);
  CHECK_EQ(evloop_selector_wait(handles[4], &room, 1, MS), 0);
  CHECK_EQ(evloop_select(&fd, &count, NULL, NULL, NULL, NULL, MS), 0);
  CHECK_EQ(evloop_select(NULL, NULL, NULL, NULL, NULL, NULL, 0), 0);
  for (k = 0; AT_ROW(k, kinds); k++) CHECK_EQ(evloop_handle_close(handles[k]), 0);
  CHECK(last_is(whole));
}

static void *fail_elsewhere(void *unused) {
  (void)unused;
  CHECK(last_is(""));
  CHECK_ERR(evloop_epoll_close(-12), ESTALE);
  CHECK(last_is_of("evloop_epoll_close"));
  return NULL;
}

TEST(the_last_error_is_each_threads_own) {
  pthread_t thread;
  fail_once();
  CHECK_EQ(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK(last_is(whole));
}

/* ---- errno ---- */

#define KEEPS(call, result)   \
  do {                        \
    errno = PRESET;           \
    CHECK_EQ(call, result);   \
    CHECK_EQ(errno, PRESET);  \
  } while (0)

TEST(timers_leave_errno_alone) {
  int64_t t = create(EVLOOP_KIND_TFD);
  KEEPS(tfd_create(99, 0), -EINVAL);
  KEEPS(tfd_from_fd(-1, 0), -EBADF);
  KEEPS(tfd_from_fd(0x7ffffff, 0), -EBADF);
  KEEPS(tfd_settime_ns(t, 0, -1, 0, NULL, NULL), -EINVAL);
  KEEPS(tfd_settime_ns(t, 0, 0, 0, NULL, NULL), 0);
  KEEPS(tfd_read(t, NULL), -EAGAIN);
  KEEPS(tfd_wait(t, 0, NULL), 0);
  KEEPS(tfd_wait(t, MS, NULL), 0);
  KEEPS(tfd_clockid(t), EVLOOP_CLOCK_MONOTONIC);
  KEEPS(tfd_settime_ns(t, 0, 1, 0, NULL, NULL), 0);
  KEEPS(tfd_wait(t, -1, NULL), 1);
  KEEPS(tfd_close(t), 0);
}

TEST(select_leaves_errno_alone) {
  int fd = (int)OK(eventfd(0, EFD_CLOEXEC)), closed = 0x7ffffff, count = 1, negative = -1;
  KEEPS(evloop_select(&closed, &count, NULL, NULL, NULL, NULL, 0), -EBADF);
  KEEPS(evloop_select(&closed, &negative, NULL, NULL, NULL, NULL, 0), -EINVAL);
  KEEPS(evloop_select(NULL, NULL, &fd, &count, NULL, NULL, -1), 1);
  KEEPS(evloop_select(&fd, &count, NULL, NULL, NULL, NULL, MS), 0);
}

typedef struct Set {
  int kind;
  int (*add)(int64_t set, int fd, uint32_t events, uint64_t data);
  int (*remove)(int64_t set, int fd);
  int (*wait)(int64_t set, evloop_ready_t *ready, int max, int64_t timeout_ns);
} Set;

static const Set sets[] = {
    {EVLOOP_KIND_POLL, evloop_poll_register, evloop_poll_unregister, evloop_poll_wait},
    {EVLOOP_KIND_EPOLL, evloop_epoll_register, evloop_epoll_unregister, evloop_epoll_wait},
    {EVLOOP_KIND_DEVPOLL, evloop_devpoll_register, evloop_devpoll_unregister, evloop_devpoll_wait},
    {EVLOOP_KIND_SELECTOR, evloop_selector_register, evloop_selector_unregister, evloop_selector_wait}};

TEST(sets_of_descriptors_leave_errno_alone) {
  int i;
  for (i = 0; AT_ROW(i, sets); i++) {
    const Set *one = &sets[i];
    int64_t set = create(one->kind);
    int fd = (int)OK(eventfd(0, EFD_CLOEXEC));
    KEEPS(one->add(set, -1, 1, 0), -EBADF);
    KEEPS(one->add(set, fd, 1 << 30 | 1 << 25, 0), -EINVAL);
    KEEPS(one->add(set, fd, 1, 0), 0);
    KEEPS(one->wait(set, NULL, 1, 0), -EINVAL);
    KEEPS(one->wait(set, &room, 1, 0), 0);
    KEEPS(one->wait(set, &room, 1, MS), 0);
    OK(eventfd_write(fd, 1));
    KEEPS(one->wait(set, &room, 1, -1), 1);
    KEEPS(one->remove(set, fd), 0);
    KEEPS(evloop_handle_close(set), 0);
    KEEPS(one->wait(set, &room, 1, 0), -ESTALE);
  }
}

TEST(the_library_functions_leave_errno_alone) {
  KEEPS(evloop_handle_close(0), -ESTALE);
  KEEPS(evloop_handle_count(-1), -EINVAL);
  KEEPS(evloop_set_interrupt_mode(7), -EINVAL);
  KEEPS(evloop_set_interrupt_mode(0), 0);
  KEEPS(evloop_last_error(NULL, 7), -EINVAL);
  KEEPS(evloop_last_error(NULL, 0) > 0, 1);
  KEEPS(evloop_strerror(12345) != NULL, 1);
  KEEPS(evloop_version() >= 0, 1);
}

/* Locks that are not free, and the kernel's answers to them, set errno too. */
static void *use_what_others_use(void *argument) {
  const int64_t *objects = argument;
  int fd = (int)OK(eventfd(0, EFD_CLOEXEC)), i, round;
  for (round = 0; round < 2000 / slow_factor(); round++) {
    int64_t own;
    for (i = 0; AT_ROW(i, sets); i++) {
      const Set *one = &sets[i];
      KEEPS(one->add(objects[i], fd, 1, 0), 0);
      KEEPS(one->add(objects[i], 0x7ffffff, 1 << 25, 0), -EINVAL);
      KEEPS(one->wait(objects[i], &room, 1, 0), 0);
      KEEPS(one->wait(objects[i], NULL, 1, 0), -EINVAL);
      KEEPS(one->remove(objects[i], fd), 0);
    }
    KEEPS(evloop_epoll_unregister(objects[1], fd), -ENOENT);
    errno = PRESET;
    own = create(EVLOOP_KIND_POLL);
    CHECK_EQ(errno, PRESET);
    KEEPS(evloop_poll_close(own), 0);
    KEEPS(evloop_poll_close(own), -ESTALE);
  }
  OK(close(fd));
  return NULL;
}

TEST_TIMEOUT(threads_that_get_in_each_others_way_leave_errno_alone, 60) {
  pthread_t threads[4];
  int64_t objects[LENGTH(sets)];
  int i;
  for (i = 0; AT_ROW(i, sets); i++) objects[i] = create(sets[i].kind);
  for (i = 0; AT_ROW(i, threads); i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, use_what_others_use, objects), 0);
  }
  for (i = 0; AT_ROW(i, threads); i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- facts about the library ---- */

TEST(strerror_ignores_the_sign) {
  int code;
  for (code = 0; code < 4200; code++) {
    CHECK(evloop_strerror(code) != NULL);
    CHECK(strlen(evloop_strerror(code)) > 0);
    CHECK(strcmp(evloop_strerror(code), evloop_strerror(-code)) == 0);
  }
}

TEST(strerror_names_the_code) {
  static const struct { int code; const char *start; } rows[] = {
      {EBADF, "EBADF: not an open descriptor"}, {EINVAL, "EINVAL: "}, {ESTALE, "ESTALE: "},
      {EDOM, "EDOM: "}, {EAGAIN, "EAGAIN: "}, {EEXIST, "EEXIST: "}, {ENOENT, "ENOENT: "},
      {ECHILD, "ECHILD: "}, {ECANCELED, "ECANCELED: "}, {EINTR, "EINTR: "}, {EPERM, "EPERM: "},
      {ENOTSUP, "ENOTSUP: "}, {EOVERFLOW, "EOVERFLOW: "}, {ENOMEM, "ENOMEM: "},
      {EMFILE, "EMFILE: "}, {ENFILE, "ENFILE: "}, {ENOSPC, "ENOSPC: "}, {ENODEV, "ENODEV: "},
      {ELOOP, "ELOOP: "}, {ENOTRECOVERABLE, "ENOTRECOVERABLE: "}};
  int i;
  for (i = 0; AT_ROW(i, rows); i++) {
    const char *text = evloop_strerror(-rows[i].code);
    CHECK(strncmp(text, rows[i].start, strlen(rows[i].start)) == 0);
    CHECK(strlen(strchr(text, ':')) > 2);
  }
}

TEST(strerror_survives_what_is_no_code) {
  static const int codes[] = {INT_MIN, INT_MIN + 1, INT_MAX, -99999, 99999};
  int i;
  CHECK(strcmp(evloop_strerror(0), "success") == 0);
  for (i = 0; AT_ROW(i, codes); i++) {
    CHECK(evloop_strerror(codes[i]) != NULL);
    CHECK(strlen(evloop_strerror(codes[i])) > 0);
  }
}

TEST(the_versions_agree_with_the_header) {
  char text[40];
  snprintf(text, sizeof text, "%d.%d.%d", EVLOOP_VERSION_MAJOR, EVLOOP_VERSION_MINOR, EVLOOP_VERSION_PATCH);
  CHECK(strcmp(evloop_version_string(), text) == 0);
  CHECK_EQ(evloop_version(),
           EVLOOP_VERSION_MAJOR * 1000000 + EVLOOP_VERSION_MINOR * 1000 + EVLOOP_VERSION_PATCH);
  CHECK_EQ(evloop_version(), EVLOOP_VERSION);
}

TEST(the_interrupt_mode_before_is_returned) {
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN), EVLOOP_EINTR_RESTART);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RETURN), EVLOOP_EINTR_RETURN);
  CHECK_ERR(evloop_set_interrupt_mode(-1), EINVAL);
  CHECK_ERR(evloop_set_interrupt_mode(2), EINVAL);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RESTART), EVLOOP_EINTR_RETURN);
  CHECK_EQ(evloop_set_interrupt_mode(EVLOOP_EINTR_RESTART), EVLOOP_EINTR_RESTART);
}

CHECK_MAIN()
