/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Epolls that nest too deep are ELOOP, also where the kernel calls that
 * EINVAL, as Linux 5.10 does: here a filter answers EINVAL. */

#define _GNU_SOURCE
#include "answered_calls.h"
#include "kqueue_support.h"

#include <sys/epoll.h>

static void ignore_event(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

static void expect_sentence(const char *words, bool expected) {
  char sentence[200];
  CHECK(evloop_last_error(sentence, sizeof sentence) > 0);
  CHECK_EQ(strstr(sentence, words) != NULL, expected);
}

/* ---- what an epoll is registered with ---- */

typedef struct Outer {
  evloop_epoll_t epoll;
  evloop_selector_t selector;
  evloop_devpoll_t devpoll;
  evloop_kqueue_t kq;
  evloop_t loop;
} Outer;

typedef int64_t AddFunction(const Outer *outer, int fd);

static int64_t add_to_epoll(const Outer *outer, int fd) {
  return evloop_epoll_register(outer->epoll, fd, EVLOOP_EPOLLIN, 0);
}

static int64_t add_to_selector(const Outer *outer, int fd) {
  return evloop_selector_register(outer->selector, fd, EVLOOP_SELECTOR_READ, 0);
}

static int64_t add_to_devpoll(const Outer *outer, int fd) {
  return evloop_devpoll_register(outer->devpoll, fd, EVLOOP_POLLIN, 0);
}

static int64_t add_to_kqueue(const Outer *outer, int fd) {
  return try_change(outer->kq, (uint64_t)fd, KQ_READ, ADD, 0, 0, 0);
}

static int64_t add_to_loop(const Outer *outer, int fd) {
  return evloop_add_io(outer->loop, fd, EVLOOP_EPOLLIN, ignore_event, NULL);
}

static AddFunction *const adds[] = {
    add_to_epoll, add_to_selector, add_to_devpoll, add_to_kqueue, add_to_loop,
};

static Outer new_outer(void) {
  Outer made = {OK(evloop_epoll_create(0)), OK(evloop_selector_create(EVLOOP_SELECTOR_EPOLL)),
                OK(evloop_devpoll_create()), new_kqueue(), OK(evloop_create(NULL))};
  /* Each has something in it, and what that takes. */
  Pipe pipe = new_pipe();
  for (int i = 0; AT_ROW(i, adds); i++) OK(adds[i](&made, pipe.r));
  OK(evloop_devpoll_fileno(made.devpoll));
  return made;
}

TEST(too_deep_a_nest_is_distinguished_from_other_wrong_arguments) {
  if (access("/proc/self/fd", F_OK) != 0) SKIP("no /proc");
  Outer outer = new_outer();
  int inner = (int)OK(evloop_epoll_fileno(OK(evloop_epoll_create(0))));
  int pipe = new_pipe().r;
  answer_call_of(SYS_epoll_ctl, EPOLL_CTL_ADD, EINVAL);
  for (int i = 0; AT_ROW(i, adds); i++) {
    CHECK_ERR(adds[i](&outer, inner), ELOOP);
    expect_sentence("too deep", true);
    CHECK_ERR(adds[i](&outer, pipe), EINVAL);
    expect_sentence("too deep", false);
  }
}

TEST(an_epoll_in_itself_is_no_nest) {
  evloop_epoll_t epoll = OK(evloop_epoll_create(0));
  int own = (int)OK(evloop_epoll_fileno(epoll)), duplicate = (int)OK(dup(own));
  CHECK_ERR(evloop_epoll_register(epoll, own, EVLOOP_EPOLLIN, 0), EINVAL);
  expect_sentence("itself", true);
  CHECK_ERR(evloop_epoll_register(epoll, duplicate, EVLOOP_EPOLLIN, 0), EINVAL);
  expect_sentence("itself", true);
  /* What the kernel has against it is the bit. */
  int other = (int)OK(evloop_epoll_fileno(OK(evloop_epoll_create(0))));
  CHECK_ERR(evloop_epoll_register(epoll, other, EVLOOP_EPOLLIN | EVLOOP_EPOLLEXCLUSIVE, 0), EINVAL);
  expect_sentence("do not go together", true);
}

/* Until the kernel refuses it, one way round and the other. */
TEST(every_way_to_nest_too_deep_is_eloop) {
  int64_t result = 0;
  evloop_epoll_t inner = OK(evloop_epoll_create(0)), outer = 0;
  for (int depth = 0; depth < 20 && result == 0; depth++) {
    outer = OK(evloop_epoll_create(0));
    result = evloop_epoll_register(outer, (int)OK(evloop_epoll_fileno(inner)), EVLOOP_EPOLLIN, 0);
    inner = outer;
  }
  CHECK_ERR(result, ELOOP);
  result = 0;
  outer = OK(evloop_epoll_create(0));
  for (int depth = 0; depth < 20 && result == 0; depth++) {
    inner = OK(evloop_epoll_create(0));
    result = evloop_epoll_register(outer, (int)OK(evloop_epoll_fileno(inner)), EVLOOP_EPOLLIN, 0);
    outer = inner;
  }
  CHECK_ERR(result, ELOOP);
}

CHECK_MAIN()
