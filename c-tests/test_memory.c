/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Without memory: -ENOMEM, and everything is as it was before the call. */

#define _GNU_SOURCE
#include "support.h"

#include <sys/epoll.h>

/* ---- a process without memory ---- */

/* Checkers get their memory elsewhere, or not at all under such a limit. */
static bool memory_cannot_be_limited(void) {
  return getenv("EVLOOP_TEST_ASAN") != NULL || getenv("EVLOOP_TEST_VALGRIND") != NULL;
}

typedef struct Block {
  struct Block *next;
} Block;

static Block *taken;
static struct rlimit limit_before;

/* The address space stays as large as it is, and all of it is in use. */
static void take_all_memory(void) {
  static char for_stdout[4096];
  unsigned long pages;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL);
  CHECK(fscanf(file, "%lu", &pages) == 1);
  fclose(file);
  setvbuf(stdout, for_stdout, _IOFBF, sizeof for_stdout);
  OK(getrlimit(RLIMIT_AS, &limit_before));
  struct rlimit limit = limit_before;
  limit.rlim_cur = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
  OK(setrlimit(RLIMIT_AS, &limit));
  for (size_t size = 1 << 20; size >= sizeof(Block); size /= 2) {
    Block *block;
    while ((block = malloc(size)) != NULL) {
      block->next = taken;
      taken = block;
    }
  }
}

static void give_memory_back(void) {
  OK(setrlimit(RLIMIT_AS, &limit_before));
  while (taken != NULL) {
    Block *next = taken->next;
    free(taken);
    taken = next;
  }
}

/* ---- what there is ---- */

enum { IN = EVLOOP_POLLIN, OTHER_LEAF = 700, FAR = 1 << 20 };

typedef struct Objects {
  tfd_t timer;
  evloop_poll_t poll, unused_poll;
  evloop_epoll_t epoll;
  evloop_devpoll_t devpoll;
  evloop_selector_t selector;
  int fd;       /* registered with all of them */
  int far;      /* one whose registration needs memory */
  int file;     /* always ready */
  int raw, tfd; /* to be adopted */
} Objects;

static Objects open_all(void) {
  evloop_ready_t ready;
  Objects all = {.fd = event_fd(0), .file = regular_file()};
  all.far = (int)OK(fcntl(all.fd, F_DUPFD_CLOEXEC, OTHER_LEAF));
  all.raw = (int)OK(epoll_create1(EPOLL_CLOEXEC));
  all.timer = OK(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0));
  all.tfd = OK(tfd_fileno(all.timer));
  all.poll = OK(evloop_poll_create());
  all.unused_poll = OK(evloop_poll_create());
  all.epoll = OK(evloop_epoll_create(0));
  all.devpoll = OK(evloop_devpoll_create());
  all.selector = OK(evloop_selector_create(EVLOOP_SELECTOR_EPOLL));
  OK(evloop_devpoll_fileno(all.devpoll));
  OK(evloop_poll_register(all.poll, all.fd, IN, 1));
  OK(evloop_poll_register(all.unused_poll, all.fd, IN, 1));
  OK(evloop_epoll_register(all.epoll, all.fd, IN, 2));
  OK(evloop_devpoll_register(all.devpoll, all.fd, IN, 3));
  OK(evloop_selector_register(all.selector, all.fd, EVLOOP_SELECTOR_READ, 4));
  CHECK_EQ(evloop_poll_wait(all.poll, &ready, 1, MS), 0);
  return all;
}

static void expect_that_nothing_is_made(const Objects *all) {
  CHECK_ERR(tfd_create(EVLOOP_CLOCK_MONOTONIC, 0), ENOMEM);
  CHECK_ERR(tfd_from_fd(all->tfd, 0), ENOMEM);
  CHECK_ERR(tfd_from_fd(all->tfd, EVLOOP_FD_OWN), ENOMEM);
  CHECK_ERR(evloop_poll_create(), ENOMEM);
  CHECK_ERR(evloop_epoll_create(0), ENOMEM);
  CHECK_ERR(evloop_epoll_from_fd(all->raw, 0), ENOMEM);
  CHECK_ERR(evloop_epoll_from_fd(all->raw, EVLOOP_FD_OWN), ENOMEM);
  CHECK_ERR(evloop_devpoll_create(), ENOMEM);
  for (int backend = EVLOOP_SELECTOR_DEFAULT; backend <= EVLOOP_SELECTOR_KQUEUE; backend++) {
    CHECK_ERR(evloop_selector_create(backend), ENOMEM);
  }
}

static void expect_that_nothing_is_registered(const Objects *all) {
  CHECK_ERR(evloop_poll_register(all->poll, FAR, IN, 9), ENOMEM);
  CHECK_ERR(evloop_epoll_register(all->epoll, all->far, IN, 9), ENOMEM);
  CHECK_ERR(evloop_epoll_unregister(all->epoll, all->far), ENOENT);
  CHECK_ERR(evloop_devpoll_register(all->devpoll, FAR, IN, 9), ENOMEM);
  CHECK_ERR(evloop_devpoll_register(all->devpoll, all->file, IN, 9), ENOMEM);
  CHECK_ERR(evloop_selector_register(all->selector, all->far, EVLOOP_SELECTOR_READ, 9), ENOMEM);
  CHECK_ERR(evloop_selector_register(all->selector, all->file, EVLOOP_SELECTOR_READ, 9), ENOMEM);
  CHECK_EQ(evloop_selector_count(all->selector), 1);
}

static void expect_event(int result, const evloop_ready_t *ready, int fd, uint64_t data) {
  CHECK_EQ(result, 1);
  CHECK(ready->fd == fd);
  CHECK(ready->data == data);
}

/* Waits that need memory say so, and the others go on. */
static void expect_waits(const Objects *all) {
  static evloop_ready_t ready[1000];
  int list = all->fd, count = 1;
  uint64_t expirations;
  CHECK_ERR(evloop_select(&list, &count, NULL, NULL, NULL, NULL, 0), ENOMEM);
  CHECK_EQ(count, 1);
  CHECK_ERR(evloop_poll_wait(all->unused_poll, ready, 1, 0), ENOMEM);
  CHECK_ERR(evloop_epoll_wait(all->epoll, ready, LENGTH(ready), 0), ENOMEM);
  OK(eventfd_write(all->fd, 1));
  expect_event(evloop_poll_wait(all->poll, ready, 4, -1), ready, all->fd, 1);
  expect_event(evloop_epoll_wait(all->epoll, ready, 4, -1), ready, all->fd, 2);
  expect_event(evloop_selector_wait(all->selector, ready, 4, -1), ready, all->fd, 4);
  OK(eventfd_read(all->fd, &(eventfd_t){0}));
  CHECK_EQ(tfd_wait(all->timer, MS, NULL), 0);
  CHECK_EQ(tfd_settime_ns(all->timer, 0, MS, 0, NULL, NULL), 0);
  CHECK_EQ(tfd_read(all->timer, &expirations), 0);
  CHECK_EQ(expirations, 1);
}

TEST(calls_without_memory_fail_and_change_nothing) {
  char sentence[200];
  evloop_ready_t ready[4];
  if (memory_cannot_be_limited()) return;
  Objects all = open_all();
  int64_t handles = evloop_handle_count(EVLOOP_KIND_ANY);
  int descriptors = open_descriptors();
  take_all_memory();
  expect_that_nothing_is_made(&all);
  expect_that_nothing_is_registered(&all);
  expect_waits(&all);
  CHECK_ERR(evloop_poll_create(), ENOMEM);
  CHECK(OK(evloop_last_error(sentence, sizeof sentence)) > 0);
  CHECK(strstr(sentence, "ENOMEM") != NULL);
  give_memory_back();
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_ANY), handles);
  OK(fcntl(all.raw, F_GETFD)); /* not closed with an object that was not made */
  CHECK_EQ(open_descriptors(), descriptors);
  /* Not even a part of a registration was left behind. */
  CHECK_EQ(evloop_poll_wait(all.poll, ready, 4, 0), 0);
  CHECK_EQ(evloop_epoll_wait(all.epoll, ready, 4, 0), 0);
  CHECK_EQ(evloop_devpoll_wait(all.devpoll, ready, 4, 0), 0);
  CHECK_EQ(evloop_selector_wait(all.selector, ready, 4, 0), 0);
  CHECK(!readable((int)OK(evloop_devpoll_fileno(all.devpoll)), 0));
  CHECK_EQ(evloop_selector_register(all.selector, all.file, EVLOOP_SELECTOR_READ, 5), 0);
  expect_event(evloop_selector_wait(all.selector, ready, 4, -1), ready, all.file, 5);
}

TEST(a_first_call_without_memory_does_no_lasting_harm) {
  if (memory_cannot_be_limited()) return;
  take_all_memory();
  CHECK_ERR(evloop_epoll_create(0), ENOMEM);
  give_memory_back();
  evloop_ready_t ready;
  evloop_epoll_t ep = OK(evloop_epoll_create(0));
  CHECK_EQ(evloop_epoll_wait(ep, &ready, 1, 0), 0);
  fflush(stdout);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(evloop_epoll_wait(ep, &ready, 1, 0) != -ECHILD);
  int status;
  CHECK_EQ(OK(waitpid(child, &status, 0)), child);
  CHECK_EQ(status, 0);
  CHECK_EQ(evloop_epoll_close(ep), 0);
}

CHECK_MAIN()
