/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Misuses: what each returns, what evloop_last_error() says of it, and that
 * errno stays as it was. */

#define _GNU_SOURCE
#include "support.h"

#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdarg.h>

#define PRESET 4321 /* an errno that nothing sets */

/* ---- the sentence ---- */

static char sentence[512];

static const char *last_sentence(void) {
  int length = (int)OK(evloop_last_error(sentence, sizeof sentence));
  CHECK(length < (int)sizeof sentence);
  CHECK_EQ(strlen(sentence), length);
  return sentence;
}

/* What a misuse's sentence must contain. */
static char needles[4][40];
static int needle_count;

__attribute__((format(printf, 1, 2))) static void says(const char *format, ...) {
  va_list values;
  CHECK(needle_count < LENGTH(needles));
  va_start(values, format);
  vsnprintf(needles[needle_count++], sizeof needles[0], format, values);
  va_end(values);
}

/* Not as a part of a longer word or number. */
static int contains(const char *text, const char *needle) {
  size_t length = strlen(needle);
  const char *at;
  for (at = text; (at = strstr(at, needle)) != NULL; at++) {
    int before = at > text ? at[-1] : ' ', after = at[length];
    if (!isalnum(before) && before != '-' && !isalnum(after)) return 1;
  }
  return 0;
}

static void fail_sentence(const char *what) {
  printf("  the sentence lacks \"%s\": %s\n", what, sentence);
  check_exit();
}

/* "function: what was wrong (ENAME)" */
static void expect_sentence(const char *function, int code) {
  char start[64], end[64];
  const char *name = evloop_strerror(code);
  const char *text = last_sentence();
  snprintf(start, sizeof start, "%s: ", function);
  snprintf(end, sizeof end, " (%.*s)", (int)strcspn(name, ":"), name);
  if (strncmp(text, start, strlen(start)) != 0) fail_sentence(start);
  if (strlen(text) <= strlen(start) + strlen(end)) fail_sentence("what was wrong");
  if (strcmp(text + strlen(text) - strlen(end), end) != 0) fail_sentence(end);
  while (needle_count > 0) {
    if (!contains(text, needles[--needle_count])) fail_sentence(needles[needle_count]);
  }
}

/* ---- one test for each misuse ---- */

#define MISUSE(name, function, code)       \
  static int64_t misuse_##name(void);      \
  TEST(name) {                             \
    CHECK_ERR(misuse_##name(), code);      \
    CHECK_EQ(errno, PRESET);               \
    expect_sentence(function, code);       \
  }                                        \
  static int64_t misuse_##name(void)

/* The last step before the misuse. */
#define NOW(call) (errno = PRESET, (call))

static int new_fd(void) {
  return (int)OK(eventfd(0, EFD_CLOEXEC));
}

/* A closed descriptor, so high that no later one takes its place. */
static int closed_fd(void) {
  int fd = new_fd(), high = (int)OK(fcntl(fd, F_DUPFD_CLOEXEC, 700));
  OK(close(fd));
  OK(close(high));
  return high;
}

static tfd_t new_timer(void) {
  return OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
}

static int64_t new_epoll(void) {
  return OK(evloop_epoll_create(0));
}

static int64_t new_selector(void) {
  return OK(evloop_selector_create(EVLOOP_SELECTOR_DEFAULT));
}

MISUSE(a_timer_of_an_unknown_clock, "tfd_create", EINVAL) {
  says("55");
  return NOW(tfd_create(55, 0));
}

MISUSE(a_timer_with_an_unknown_flag, "tfd_create", EINVAL) {
  says("0x10");
  return NOW(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0x10 | EVLOOP_TFD_NONBLOCK));
}

MISUSE(adopting_what_is_no_timer, "tfd_from_fd", EINVAL) {
  int fd = new_fd();
  says("%d", fd);
  return NOW(tfd_from_fd(fd, 0));
}

MISUSE(adopting_a_closed_timer, "tfd_from_fd", EBADF) {
  int fd = closed_fd();
  says("%d", fd);
  return NOW(tfd_from_fd(fd, EVLOOP_FD_OWN));
}

MISUSE(adopting_with_an_unknown_flag, "tfd_from_fd", EINVAL) {
  says("0x80");
  return NOW(tfd_from_fd(new_fd(), 0x80));
}

MISUSE(a_negative_time, "tfd_settime_ns", EINVAL) {
  tfd_t t = new_timer();
  says("-12345");
  return NOW(tfd_settime_ns(t, 0, -12345, 0, NULL, NULL));
}

MISUSE(a_negative_interval, "tfd_settime_ns", EINVAL) {
  tfd_t t = new_timer();
  says("-678");
  return NOW(tfd_settime_ns(t, 0, 1, -678, NULL, NULL));
}

MISUSE(negative_seconds, "tfd_settime", EINVAL) {
  tfd_t t = new_timer();
  says("-1.5");
  return NOW(tfd_settime(t, 0, -1.5, 0, NULL, NULL));
}

MISUSE(seconds_that_are_not_a_number, "tfd_settime", EINVAL) {
  tfd_t t = new_timer();
  says("not a number");
  return NOW(tfd_settime(t, 0, NAN, 0, NULL, NULL));
}

MISUSE(infinite_seconds, "tfd_settime", EOVERFLOW) {
  tfd_t t = new_timer();
  says("inf");
  return NOW(tfd_settime(t, 0, 0, INFINITY, NULL, NULL));
}

MISUSE(an_unknown_settime_flag, "tfd_settime_ns", EINVAL) {
  tfd_t t = new_timer();
  says("0x20");
  return NOW(tfd_settime_ns(t, 0x21, 1, 0, NULL, NULL));
}

MISUSE(a_negative_descriptor_in_select, "evloop_select", EBADF) {
  int fds[] = {-7}, count = 1;
  says("-7");
  return NOW(evloop_select(fds, &count, NULL, NULL, NULL, NULL, 0));
}

MISUSE(a_closed_descriptor_in_select, "evloop_select", EBADF) {
  int fd = closed_fd(), count = 1;
  says("%d", fd);
  return NOW(evloop_select(NULL, NULL, &fd, &count, NULL, NULL, 0));
}

MISUSE(a_negative_count_in_select, "evloop_select", EINVAL) {
  int fds[] = {0}, count = -3;
  says("-3");
  says("nx");
  return NOW(evloop_select(NULL, NULL, NULL, NULL, fds, &count, 0));
}

MISUSE(a_list_that_is_null_in_select, "evloop_select", EINVAL) {
  int count = 9;
  says("9");
  says("NULL");
  says("nr");
  return NOW(evloop_select(NULL, &count, NULL, NULL, NULL, NULL, 0));
}

MISUSE(polling_a_negative_descriptor, "evloop_poll_register", EBADF) {
  int64_t p = OK(evloop_poll_create());
  says("-5");
  return NOW(evloop_poll_register(p, -5, EVLOOP_POLLIN, 0));
}

MISUSE(polling_for_an_unknown_event, "evloop_poll_register", EINVAL) {
  int64_t p = OK(evloop_poll_create());
  says("0x800");
  return NOW(evloop_poll_register(p, 0, EVLOOP_POLLIN | 0x800, 0));
}

MISUSE(modifying_what_is_not_polled, "evloop_poll_modify", ENOENT) {
  int64_t p = OK(evloop_poll_create());
  says("23");
  return NOW(evloop_poll_modify(p, 23, EVLOOP_POLLIN, 0));
}

MISUSE(unregistering_what_is_not_polled, "evloop_poll_unregister", ENOENT) {
  int64_t p = OK(evloop_poll_create());
  says("23");
  return NOW(evloop_poll_unregister(p, 23));
}

MISUSE(a_poll_wait_without_room, "evloop_poll_wait", EINVAL) {
  evloop_ready_t ready;
  int64_t p = OK(evloop_poll_create());
  says("-4");
  return NOW(evloop_poll_wait(p, &ready, -4, 0));
}

MISUSE(a_poll_wait_without_output, "evloop_poll_wait", EINVAL) {
  int64_t p = OK(evloop_poll_create());
  says("NULL");
  return NOW(evloop_poll_wait(p, NULL, 1, 0));
}

MISUSE(an_epoll_with_an_unknown_flag, "evloop_epoll_create", EINVAL) {
  says("0x2");
  return NOW(evloop_epoll_create(2));
}

MISUSE(adopting_what_is_no_epoll, "evloop_epoll_from_fd", EINVAL) {
  int fd = new_fd();
  says("%d", fd);
  return NOW(evloop_epoll_from_fd(fd, 0));
}

MISUSE(registering_twice_with_epoll, "evloop_epoll_register", EEXIST) {
  int64_t ep = new_epoll();
  int fd = new_fd();
  says("%d", fd);
  CHECK_EQ(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 0), 0);
  return NOW(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 0));
}

MISUSE(registering_a_closed_descriptor_with_epoll, "evloop_epoll_register", EBADF) {
  int64_t ep = new_epoll();
  int fd = closed_fd();
  says("%d", fd);
  return NOW(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 0));
}

MISUSE(registering_a_directory_with_epoll, "evloop_epoll_register", EPERM) {
  int64_t ep = new_epoll();
  int fd = (int)OK(open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  says("%d", fd);
  return NOW(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 0));
}

MISUSE(an_epoll_that_watches_itself, "evloop_epoll_register", EINVAL) {
  int64_t ep = new_epoll();
  int fd = (int)OK(evloop_epoll_fileno(ep));
  says("%d", fd);
  return NOW(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, 0));
}

MISUSE(an_unknown_epoll_event, "evloop_epoll_register", EINVAL) {
  int64_t ep = new_epoll();
  says("0x1000");
  return NOW(evloop_epoll_register(ep, new_fd(), EVLOOP_EPOLLIN | 0x1000, 0));
}

MISUSE(modifying_what_epoll_does_not_watch, "evloop_epoll_modify", ENOENT) {
  int64_t ep = new_epoll();
  int fd = new_fd();
  says("%d", fd);
  return NOW(evloop_epoll_modify(ep, fd, EVLOOP_EPOLLIN, 0));
}

MISUSE(unregistering_what_epoll_does_not_watch, "evloop_epoll_unregister", ENOENT) {
  int64_t ep = new_epoll();
  int fd = new_fd();
  says("%d", fd);
  return NOW(evloop_epoll_unregister(ep, fd));
}

MISUSE(an_epoll_wait_without_room, "evloop_epoll_wait", EINVAL) {
  evloop_ready_t ready;
  int64_t ep = new_epoll();
  says("0");
  return NOW(evloop_epoll_wait(ep, &ready, 0, 0));
}

MISUSE(a_negative_descriptor_with_devpoll, "evloop_devpoll_register", EBADF) {
  int64_t dp = OK(evloop_devpoll_create());
  says("-6");
  return NOW(evloop_devpoll_register(dp, -6, EVLOOP_POLLIN, 0));
}

MISUSE(an_unknown_devpoll_event, "evloop_devpoll_modify", EINVAL) {
  int64_t dp = OK(evloop_devpoll_create());
  says("0x4000");
  return NOW(evloop_devpoll_modify(dp, 0, 0x4000, 0));
}

MISUSE(a_devpoll_wait_without_room, "evloop_devpoll_wait", EINVAL) {
  evloop_ready_t ready;
  int64_t dp = OK(evloop_devpoll_create());
  says("%d", INT_MIN);
  return NOW(evloop_devpoll_wait(dp, &ready, INT_MIN, 0));
}

MISUSE(an_unknown_selector_backend, "evloop_selector_create", EINVAL) {
  says("66");
  return NOW(evloop_selector_create(66));
}

MISUSE(an_unknown_flag_beside_trust, "evloop_kqueue_create", EINVAL) {
  return NOW(evloop_kqueue_create(EVLOOP_KQ_TRUST_FDS | 0x200));
}

MISUSE(trust_for_a_second_handle, "evloop_kqueue_from_fd", EINVAL) {
  int fd = (int)OK(evloop_kqueue_fileno(OK(evloop_kqueue_create(0))));
  return NOW(evloop_kqueue_from_fd(fd, EVLOOP_KQ_TRUST_FDS));
}

MISUSE(an_event_of_a_filter_that_there_is_not, "evloop_kqueue_control", EINVAL) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(0));
  evloop_kevent_t change = {.filter = -100, .flags = EVLOOP_KQ_EV_ADD};
  says("filter -100");
  return NOW(evloop_kqueue_control(kq, &change, 1, NULL, 0, 0));
}

MISUSE(a_user_event_that_is_not_watched, "evloop_kqueue_control", ENOENT) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(0));
  evloop_kevent_t change = {.ident = 77, .filter = EVLOOP_KQ_FILTER_USER};
  says("ident 77");
  return NOW(evloop_kqueue_control(kq, &change, 1, NULL, 0, 0));
}

MISUSE(registering_twice_with_a_selector, "evloop_selector_register", EEXIST) {
  int64_t s = new_selector();
  int fd = new_fd();
  says("%d", fd);
  CHECK_EQ(evloop_selector_register(s, fd, EVLOOP_SELECTOR_READ, 0), 0);
  return NOW(evloop_selector_register(s, fd, EVLOOP_SELECTOR_READ, 0));
}

MISUSE(selecting_a_closed_descriptor, "evloop_selector_register", EBADF) {
  int64_t s = new_selector();
  int fd = closed_fd();
  says("%d", fd);
  return NOW(evloop_selector_register(s, fd, EVLOOP_SELECTOR_READ, 0));
}

MISUSE(selecting_for_nothing, "evloop_selector_register", EINVAL) {
  return NOW(evloop_selector_register(new_selector(), 0, 0, 0));
}

MISUSE(an_unknown_selector_event, "evloop_selector_modify", EINVAL) {
  int64_t s = new_selector();
  says("0x4");
  return NOW(evloop_selector_modify(s, 0, 5, 0));
}

MISUSE(asking_a_selector_for_a_stranger, "evloop_selector_get", ENOENT) {
  int64_t s = new_selector();
  says("31");
  return NOW(evloop_selector_get(s, 31, NULL, NULL));
}

MISUSE(unregistering_a_stranger_from_a_selector, "evloop_selector_unregister", ENOENT) {
  int64_t s = new_selector();
  says("31");
  return NOW(evloop_selector_unregister(s, 31));
}

MISUSE(the_descriptor_of_a_selector_without_one, "evloop_selector_fileno", ENOTSUP) {
  int64_t s = OK(evloop_selector_create(EVLOOP_SELECTOR_POLL));
  return NOW(evloop_selector_fileno(s));
}

MISUSE(an_unknown_interrupt_mode, "evloop_set_interrupt_mode", EINVAL) {
  says("2");
  return NOW(evloop_set_interrupt_mode(2));
}

MISUSE(counting_an_unknown_kind, "evloop_handle_count", EINVAL) {
  says("77");
  return NOW(evloop_handle_count(77));
}

static evloop_t new_loop(void) {
  return OK(evloop_create(NULL));
}

MISUSE(counting_watchers_into_nothing, "evloop_watchers", EINVAL) {
  evloop_t loop = new_loop();
  says("watchers");
  says("7");
  return NOW(evloop_watchers(loop, NULL, 7));
}

MISUSE(asking_about_a_watcher_without_a_size, "evloop_watcher_info", EINVAL) {
  evloop_watcher_info_t info = {0};
  evloop_watcher_t watcher = OK(evloop_add_async(new_loop(), NULL, NULL));
  says("size is 0");
  return NOW(evloop_watcher_info(watcher, &info));
}

MISUSE(finding_what_no_io_watcher_watches, "evloop_find_io", ENOENT) {
  evloop_t loop = new_loop();
  int fd = new_fd();
  says("fd %d", fd);
  return NOW(evloop_find_io(loop, fd));
}

MISUSE(dumping_into_a_closed_descriptor, "evloop_dump", EBADF) {
  evloop_t loop = new_loop();
  int fd = closed_fd();
  says("fd %d", fd);
  return NOW(evloop_dump(loop, fd));
}

MISUSE(whether_a_closed_loop_is_alive, "evloop_alive", ESTALE) {
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_close(loop), 0);
  return NOW(evloop_alive(loop));
}

MISUSE(holding_a_loop_twice_at_once, "evloop_virtual_hold", EINVAL) {
  evloop_t loop = new_loop();
  says("change is 2");
  return NOW(evloop_virtual_hold(loop, 2));
}

MISUSE(a_negative_tolerance_of_a_loop, "evloop_create", EINVAL) {
  evloop_options_t options = {.size = sizeof options, .timer_tolerance_ns = -9};
  says("timer_tolerance_ns is -9");
  return NOW(evloop_create(&options));
}

MISUSE(posting_nothing_to_be_destroyed, "evloop_post_full", EINVAL) {
  evloop_t loop = new_loop();
  says("callback");
  return NOW(evloop_post_full(loop, NULL, NULL, free));
}

MISUSE(after_a_negative_time, "evloop_after", EINVAL) {
  evloop_t loop = new_loop();
  says("delay_ns is -3");
  return NOW(evloop_after(loop, -3, NULL, NULL));
}

MISUSE(every_0_nanoseconds, "evloop_every", EINVAL) {
  evloop_t loop = new_loop();
  says("interval_ns is 0");
  return NOW(evloop_every(loop, 0, NULL, NULL));
}

MISUSE(setting_a_timer_to_events, "evloop_io_set", EINVAL) {
  evloop_watcher_t timer = OK(evloop_after(new_loop(), 1, NULL, NULL));
  says("io");
  return NOW(evloop_io_set(timer, 0));
}

MISUSE(a_negative_tolerance, "evloop_timer_set_tolerance", EINVAL) {
  evloop_watcher_t timer = OK(evloop_after(new_loop(), 1, NULL, NULL));
  says("tolerance_ns is -2");
  return NOW(evloop_timer_set_tolerance(timer, -2));
}

MISUSE(an_exact_timer_with_a_tolerance, "evloop_add_timer", EINVAL) {
  evloop_t loop = new_loop();
  says("EXACT and a tolerance");
  return NOW(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, EVLOOP_TIMER_EXACT, 1, 0, 5, NULL,
                              NULL));
}

MISUSE(setting_a_timer_to_be_exact, "evloop_timer_set", EINVAL) {
  evloop_watcher_t timer = OK(evloop_after(new_loop(), 1, NULL, NULL));
  return NOW(evloop_timer_set(timer, EVLOOP_TIMER_EXACT, 1, 0));
}

MISUSE(a_negative_limit_of_a_wait, "evloop_limit_wait_ns", EINVAL) {
  evloop_t loop = new_loop();
  says("ns is -4");
  return NOW(evloop_limit_wait_ns(loop, -4));
}

MISUSE(busy_polling_with_a_huge_budget, "evloop_set_busy_poll", EINVAL) {
  evloop_t loop = new_loop();
  says("budget is 70000");
  return NOW(evloop_set_busy_poll(loop, 1, 70000, 0));
}

MISUSE(releasing_a_timer_twice, "tfd_release", ESTALE) {
  tfd_t t = new_timer();
  OK(tfd_release(t));
  return NOW(tfd_release(t));
}

MISUSE(releasing_what_is_no_epoll, "evloop_epoll_release", EDOM) {
  tfd_t t = new_timer();
  says("an epoll object");
  return NOW(evloop_epoll_release(t));
}

CHECK_MAIN()
