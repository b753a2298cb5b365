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

extern check_case *check_first;
extern check_case **check_last;

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

/* The condition of a loop over the rows of a table, which a failure names:
 * for (i = 0; AT_ROW(i, table); i++). */
#define AT_ROW(index, table) \
  check_row(#table, (index), (int)(sizeof(table) / sizeof((table)[0])))

int check_row(const char *table, int index, int length);
__attribute__((noreturn)) void check_exit(void);
__attribute__((noreturn)) void check_fail(const char *file, int line, const char *what);
void check_eq(const char *file, int line, const char *what, long long actual, long long expected);
const char *check_text(int64_t value);
void check_err(const char *file, int line, const char *what, int64_t actual, int code);
int64_t check_ok(const char *file, int line, const char *what, int64_t value);
int slow_factor(void);
int64_t now_ns(clockid_t clock);

int check_main(int argc, char **argv);

#define CHECK_MAIN()                                                          \
  int main(int argc, char **argv) { return check_main(argc, argv); }

#endif
