/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A small test harness: each case runs in a process of its own, with a time
 * limit, so that a crash or a hang is one failed case.
 *
 *   TEST(name) { CHECK_EQ(1 + 1, 2); }
 *   CHECK_MAIN()
 *
 * Arguments name the cases to run; -l lists them. V=1 also shows those that
 * passed, NOFORK=1 runs in this process (for a debugger), EVLOOP_TEST_SLOW=N
 * multiplies the time limits. The last line counts.
 */
#ifndef CHECK_H
#define CHECK_H

#include <evloop.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK_SKIPPED 77

typedef struct check_case {
  const char *name;
  void (*run)(void);
  int seconds;
  const char *without; /* left out where this variable is set; or NULL */
  struct check_case *next;
} check_case;

static check_case *check_first;
static check_case **check_last = &check_first;

#define TEST(name) TEST_TIMEOUT(name, 20)
#define TEST_TIMEOUT(name_, seconds_) TEST_WITHOUT(name_, seconds_, NULL)
/* What the case is about is not done, or not known, by valgrind. */
#define TEST_WITHOUT_VALGRIND(name_, seconds_)                                \
  TEST_WITHOUT(name_, seconds_, "EVLOOP_TEST_VALGRIND")
#define TEST_WITHOUT(name_, seconds_, variable_)                              \
  static void test_##name_(void);                                             \
  static check_case case_##name_ = {#name_, test_##name_, seconds_,           \
                                    variable_, NULL};                         \
  __attribute__((constructor)) static void register_##name_(void) {           \
    *check_last = &case_##name_;                                              \
    check_last = &case_##name_.next;                                          \
  }                                                                           \
  static void test_##name_(void)

#define CHECK(condition)                                                      \
  ((condition) ? (void)0 : check_fail(__FILE__, __LINE__, #condition))
#define CHECK_EQ(actual, expected)                                            \
  check_eq(__FILE__, __LINE__, #actual " == " #expected,                      \
           (long long)(actual), (long long)(expected))
#define CHECK_ERR(call, code)                                                 \
  check_err(__FILE__, __LINE__, #call " is -" #code, (call), (code))
#define OK(call) check_ok(__FILE__, __LINE__, #call, (call))
#define SKIP(...)                                                             \
  do {                                                                        \
    printf("  skipped: " __VA_ARGS__);                                        \
    putchar('\n');                                                            \
    fflush(stdout);                                                           \
    _exit(CHECK_SKIPPED);                                                     \
  } while (0)

__attribute__((unused, noreturn)) static void check_exit(void) {
  fflush(stdout);
  _exit(1);
}

__attribute__((unused, noreturn)) static void
check_fail(const char *file, int line, const char *what) {
  printf("  %s:%d: failed: %s\n", file, line, what);
  check_exit();
}

__attribute__((unused)) static void check_eq(const char *file, int line,
                                             const char *what, long long actual,
                                             long long expected) {
  if (actual == expected) return;
  printf("  %s:%d: failed: %s: %lld, not %lld\n", file, line, what, actual,
         expected);
  check_exit();
}

__attribute__((unused)) static const char *check_text(int64_t value) {
  return value < 0 && value >= -4095 ? evloop_strerror((int)value) : "";
}

__attribute__((unused)) static void check_err(const char *file, int line,
                                              const char *what, int64_t actual,
                                              int code) {
  if (actual == -code) return;
  printf("  %s:%d: failed: %s: %" PRId64 " %s\n", file, line, what, actual,
         check_text(actual));
  check_exit();
}

__attribute__((unused)) static int64_t check_ok(const char *file, int line,
                                                const char *what,
                                                int64_t value) {
  if (value >= 0) return value;
  printf("  %s:%d: failed: %s: %" PRId64 " %s (errno %d)\n", file, line, what,
         value, check_text(value), errno);
  check_exit();
}

__attribute__((unused)) static int slow_factor(void) {
  const char *text = getenv("EVLOOP_TEST_SLOW");
  int factor = text ? atoi(text) : 1;
  return factor > 0 ? factor : 1;
}

__attribute__((unused)) static int64_t now_ns(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* The exit status of the case, in waitpid's form. */
static int check_run(const check_case *one) {
  pid_t child;
  int status = 0;
  if (getenv("NOFORK")) {
    one->run();
    return 0;
  }
  fflush(stdout);
  child = fork();
  if (child == 0) {
    setpgid(0, 0);
    signal(SIGALRM, SIG_DFL);
    alarm((unsigned)(one->seconds * slow_factor()));
    one->run();
    fflush(stdout);
    /* exit() and not _exit(): leak checkers report at exit. */
    exit(0);
  }
  if (child < 0) return 1 << 8;
  setpgid(child, child);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  /* What the case started and did not end. */
  kill(-child, SIGKILL);
  return status;
}

static int check_selected(const check_case *one, int argc, char **argv) {
  int i;
  if (one->without && getenv(one->without)) return 0;
  for (i = 1; i < argc; i++) {
    if (strcmp(argv[i], one->name) == 0) return 1;
  }
  return argc <= 1;
}

static int check_main(int argc, char **argv) {
  int passed = 0, failed = 0, skipped = 0, status;
  const check_case *one;
  int list = argc > 1 && strcmp(argv[1], "-l") == 0;
  for (one = check_first; one; one = one->next) {
    if (list) puts(one->name);
    if (list || !check_selected(one, argc, argv)) continue;
    status = check_run(one);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
      passed++;
      if (getenv("V")) printf("ok   %s\n", one->name);
    } else if (WIFEXITED(status) && WEXITSTATUS(status) == CHECK_SKIPPED) {
      skipped++;
      printf("SKIP %s\n", one->name);
    } else {
      failed++;
      if (WIFSIGNALED(status)) {
        printf("FAIL %s: %s\n", one->name,
               WTERMSIG(status) == SIGALRM ? "timed out"
                                           : strsignal(WTERMSIG(status)));
      } else {
        printf("FAIL %s: exit status %d\n", one->name, WEXITSTATUS(status));
      }
    }
  }
  if (list) return 0;
  printf("%d passed, %d failed, %d skipped\n", passed, failed, skipped);
  return failed > 0 || passed + skipped == 0;
}

#define CHECK_MAIN()                                                          \
  int main(int argc, char **argv) { return check_main(argc, argv); }

#endif
