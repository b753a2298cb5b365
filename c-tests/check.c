/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "check.h"

check_case *check_first;
check_case **check_last = &check_first;

enum { MOST_TABLES = 4 };

/* The rows that the case is at, of tables within tables. */
static struct {
  const char *table; /* NULL: free */
  int index;
} check_rows[MOST_TABLES];

static int check_row_of(const char *table) {
  int i;
  for (i = 0; i < MOST_TABLES; i++) {
    if (check_rows[i].table != NULL && strcmp(check_rows[i].table, table) == 0) return i;
  }
  for (i = 0; i < MOST_TABLES - 1 && check_rows[i].table != NULL; i++) continue;
  return i;
}

int check_row(const char *table, int index, int length) {
  int i = check_row_of(table);
  check_rows[i].table = index < length ? table : NULL;
  check_rows[i].index = index;
  return index < length;
}

void check_exit(void) {
  int i;
  for (i = 0; i < MOST_TABLES; i++) {
    if (check_rows[i].table == NULL) continue;
    printf("    in row %d of %s\n", check_rows[i].index, check_rows[i].table);
  }
  fflush(stdout);
  _exit(1);
}

void check_fail(const char *file, int line, const char *what) {
  printf("  %s:%d: failed: %s\n", file, line, what);
  check_exit();
}

void check_eq(const char *file, int line, const char *what, long long actual, long long expected) {
  if (actual == expected) return;
  printf("  %s:%d: failed: %s: %lld, not %lld\n", file, line, what, actual,
         expected);
  check_exit();
}

const char *check_text(int64_t value) {
  return value < 0 && value >= -4095 ? evloop_strerror((int)value) : "";
}

void check_err(const char *file, int line, const char *what, int64_t actual, int code) {
  if (actual == -code) return;
  printf("  %s:%d: failed: %s: %" PRId64 " %s\n", file, line, what, actual,
         check_text(actual));
  check_exit();
}

int64_t check_ok(const char *file, int line, const char *what, int64_t value) {
  if (value >= 0) return value;
  printf("  %s:%d: failed: %s: %" PRId64 " %s (errno %d)\n", file, line, what,
         value, check_text(value), errno);
  check_exit();
}

int slow_factor(void) {
  const char *text = getenv("EVLOOP_TEST_SLOW");
  int factor = text ? atoi(text) : 1;
  return factor > 0 ? factor : 1;
}

int64_t now_ns(clockid_t clock) {
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

int check_main(int argc, char **argv) {
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
