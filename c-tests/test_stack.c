/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* How much of a thread's stack the library takes. Only of a release build
 * anything is promised. */

#define _GNU_SOURCE
#include "every_call.h"

#include <limits.h>
#include <sys/mman.h>

/* What the header says: of a call, of that before a callback, of a handler. */
enum { PROMISED = 8192, BEFORE_CALLBACK = 4096, OF_HANDLER = 1024 };
/* What the frames of the functions in every_call.h take, those of the C library
 * that they call, and the C library's own part of a thread's stack. */
enum { OWN = 8192 };

#define PAINT UINT64_C(0xa5c3a5c3a5c3a5c3)

static volatile uint64_t *lowest; /* of the stack of the thread */
static volatile char *called_at;  /* the frame that makes a call */
static int most, deepest;
static const char *by;

static int distance(const volatile void *above, const volatile void *below) {
  return (int)((const volatile char *)above - (const volatile char *)below);
}

static void find_stack(void) {
  pthread_attr_t attributes;
  void *start;
  size_t size;
  CHECK_EQ(pthread_getattr_np(pthread_self(), &attributes), 0);
  CHECK_EQ(pthread_attr_getstack(&attributes, &start, &size), 0);
  pthread_attr_destroy(&attributes);
  lowest = (volatile uint64_t *)start;
}

/* The stack below the caller's frame. */
__attribute__((noinline)) static void before_call(void) {
  volatile uint64_t *here = (volatile uint64_t *)__builtin_frame_address(0);
  for (volatile uint64_t *at = lowest; at < here - 32; at++) *at = PAINT;
  called_at = (volatile char *)here;
}

static void in_callback(void) {
  int used = distance(called_at, __builtin_frame_address(0));
  if (used > deepest) deepest = used;
}

__attribute__((noinline)) static void after_call(const char *name) {
  const volatile uint64_t *here = (volatile uint64_t *)__builtin_frame_address(0), *at = lowest;
  while (at < here && *at == PAINT) at++;
  int used = distance(here, at);
  if (used > most) {
    most = used;
    by = name;
  }
  if (getenv("V") != NULL && used > 2048) printf("%6d %s\n", used, name);
  if (used > PROMISED) {
    printf("  %s took %d bytes of the stack, not %d at most\n", name, used, PROMISED);
    check_exit();
  }
}

static int nothing_more(void) {
  return 0;
}

static void *call_all(void *unused) {
  find_stack();
  make_every_call(nothing_more);
  return unused;
}

static void only_of_a_release(void) {
  if (getenv("EVLOOP_TEST_VALGRIND") != NULL || getenv("EVLOOP_TEST_ASAN") != NULL) {
    SKIP("the frames are those of a checked build");
  }
}

TEST_TIMEOUT(every_call_runs_on_a_small_stack, 60) {
  pthread_attr_t attributes;
  pthread_t thread;
  only_of_a_release();
  prepare_every_call();
  CHECK_EQ(pthread_attr_init(&attributes), 0);
  CHECK_EQ(pthread_attr_setstacksize(&attributes, (size_t)PTHREAD_STACK_MIN + OWN), 0);
  CHECK_EQ(pthread_create(&thread, &attributes, call_all, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  after_every_call();
  if (getenv("V") != NULL) {
    printf("%d bytes at most, by %s; %d before a callback\n", most, by, deepest);
  }
  CHECK(deepest <= BEFORE_CALLBACK);
}

/* ---- signal handlers, on a stack of their own ---- */

static uint64_t handler_stack[4096];
static const int watched[] = {SIGUSR1, SIGCHLD, 0 /* SIGRTMIN */};

static void nothing(int number) {
  (void)number;
}

static void use_handler_stack(size_t size) {
  stack_t stack;
  memset(&stack, 0, sizeof stack);
  stack.ss_sp = (char *)handler_stack + sizeof handler_stack - size;
  stack.ss_size = size;
  OK(sigaltstack(&stack, NULL));
}

/* How much a signal takes of it. */
static int taken_by(int number) {
  int at = 0;
  for (int i = 0; AT_ROW(i, handler_stack); i++) handler_stack[i] = PAINT;
  OK(raise(number));
  while (at < LENGTH(handler_stack) && handler_stack[at] == PAINT) at++;
  return (LENGTH(handler_stack) - at) * (int)sizeof *handler_stack;
}

static void handle_all(void) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = nothing;
  action.sa_flags = SA_ONSTACK;
  for (int i = 0; AT_ROW(i, watched); i++) {
    OK(sigaction(watched[i] != 0 ? watched[i] : SIGRTMIN, &action, NULL));
  }
}

static void count_event(const evloop_event_t *event, void *user_data) {
  (void)event;
  (*(int *)user_data)++;
}

TEST(signal_handlers_take_little_of_a_small_stack) {
  int before[LENGTH(watched)], count = 0;
  only_of_a_release();
  use_handler_stack(sizeof handler_stack);
  handle_all();
  for (int i = 0; AT_ROW(i, watched); i++) {
    before[i] = taken_by(watched[i] != 0 ? watched[i] : SIGRTMIN);
    CHECK(before[i] > 0);
  }
  evloop_t loop = new_loop();
  evloop_kqueue_t kq = new_kqueue();
  for (int i = 0; AT_ROW(i, watched); i++) {
    int number = watched[i] != 0 ? watched[i] : SIGRTMIN;
    OK(evloop_add_signal(loop, number, 0, count_event, &count));
    apply(kq, (uint64_t)number, EVLOOP_KQ_FILTER_SIGNAL, ADD, 0, 0, 1);
    int more = taken_by(number) - before[i];
    if (getenv("V") != NULL) printf("signal %d: %d bytes more than %d\n", number, more, before[i]);
    CHECK(more <= OF_HANDLER);
  }
  /* With no more than that. */
  use_handler_stack((size_t)before[0] + OF_HANDLER);
  for (int i = 0; AT_ROW(i, watched); i++) OK(raise(watched[i] != 0 ? watched[i] : SIGRTMIN));
  turn(loop);
  CHECK(count >= LENGTH(watched));
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  CHECK_EQ(evloop_close(loop), 0);
}

/* Before anything else, has the dynamic linker look up all functions: else each
 * first call does, on the caller's stack. */
int main(int argc, char **argv) {
  if (getenv("LD_BIND_NOW") == NULL && getenv("EVLOOP_TEST_VALGRIND") == NULL) {
    OK(setenv("LD_BIND_NOW", "1", 1));
    execv("/proc/self/exe", argv);
  }
  return check_main(argc, argv);
}
