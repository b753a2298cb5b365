/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* See bench.h. */

#define _GNU_SOURCE

#include "bench.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

struct settings settings = {.raw = true, .evloop = true};

/* ---- ending badly ---- */

void die(const char *format, ...)
{
  va_list arguments;
  fflush(stdout);
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

void refused(int64_t result)
{
  char why[256];
  evloop_last_error(why, sizeof why);
  die("%s (%s)", why, evloop_strerror((int)result));
}

int check(const char *what, int result)
{
  if (result < 0)
    die("%s: %s", what, strerror(errno));
  return result;
}

void expect(const char *what, int64_t seen, int64_t expected)
{
  if (seen != expected)
    die("%s: %lld, not %lld", what, (long long)seen, (long long)expected);
}

/* ---- clocks and counters ---- */

static int64_t read_clock(clockid_t clock)
{
  struct timespec t;
  clock_gettime(clock, &t);
  return (int64_t)t.tv_sec * SECOND + t.tv_nsec;
}

int64_t now_ns(void)
{
  return read_clock(CLOCK_MONOTONIC);
}

int64_t cpu_ns(void)
{
  return read_clock(CLOCK_THREAD_CPUTIME_ID);
}

static int counter = -1;

static void open_counter(void)
{
  static bool tried;
  struct perf_event_attr what = {.type = PERF_TYPE_HARDWARE,
                                 .size = sizeof what,
                                 .config = PERF_COUNT_HW_INSTRUCTIONS,
                                 .disabled = 1,
                                 .exclude_kernel = 1,
                                 .exclude_hv = 1};
  if (!tried)
    counter = (int)syscall(SYS_perf_event_open, &what, 0, -1, -1,
                           PERF_FLAG_FD_CLOEXEC);
  tried = true;
}

void instructions_begin(void)
{
  open_counter();
  if (counter >= 0) {
    ioctl(counter, PERF_EVENT_IOC_RESET, 0);
    ioctl(counter, PERF_EVENT_IOC_ENABLE, 0);
  }
}

double instructions_end(void)
{
  uint64_t count;
  if (counter < 0 || ioctl(counter, PERF_EVENT_IOC_DISABLE, 0) < 0 ||
      read(counter, &count, sizeof count) != sizeof count)
    return NAN;
  return (double)count;
}

/* The events of one iteration have one time_ns, so the clock is read for the
 * first of them: it must not be behind. Then for every 64th, for a lateness
 * that is right but for the time of 64 callbacks. */
void due(struct watch *w, const struct evloop_event_t *event,
         int64_t deadline_ns, int64_t tolerance_ns)
{
  if (event->time_ns != w->seen || ++w->since == 64) {
    w->seen = event->time_ns;
    w->since = 0;
    w->clock = now_ns();
    if (w->clock < event->time_ns)
      die("an event's time_ns is %lld ns in the future",
          (long long)(event->time_ns - w->clock));
    if (w->clock - deadline_ns - tolerance_ns > w->worst)
      w->worst = w->clock - deadline_ns - tolerance_ns;
  }
  if (event->time_ns < deadline_ns)
    die("a timer expired %lld ns early",
        (long long)(deadline_ns - event->time_ns));
  if (event->deadline_ns < deadline_ns)
    die("a timer's event has a deadline that is %lld ns early",
        (long long)(deadline_ns - event->deadline_ns));
  if (event->count != 1)
    die("a timer expired %llu times at once",
        (unsigned long long)event->count);
}

/* ---- processors and descriptors ---- */

static cpu_set_t allowed;
static int allowed_count;

int cpus(void)
{
  if (allowed_count == 0) {
    check("sched_getaffinity", sched_getaffinity(0, sizeof allowed, &allowed));
    allowed_count = CPU_COUNT(&allowed);
  }
  return allowed_count;
}

void bind_to(int number)
{
  cpu_set_t one;
  int skip = number % cpus(), cpu = 0;
  while (!CPU_ISSET(cpu, &allowed) || skip-- > 0)
    cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  check("sched_setaffinity", sched_setaffinity(0, sizeof one, &one));
}

void unbind(void)
{
  cpus();
  check("sched_setaffinity", sched_setaffinity(0, sizeof allowed, &allowed));
}

int descriptors_left(void)
{
  struct rlimit limit;
  check("getrlimit", getrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_cur != limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    check("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
  }
  int next = check("dup", dup(0));
  close(next);
  return (limit.rlim_cur > 1000000 ? 1000000 : (int)limit.rlim_cur) - next -
         64;
}

int *open_eventfds(int n, unsigned value)
{
  int *fds = calloc((size_t)n, sizeof *fds);
  for (int i = 0; i < n; i++)
    fds[i] = check("eventfd", eventfd(value, EFD_NONBLOCK | EFD_CLOEXEC));
  return fds;
}

void close_all(int *fds, int n)
{
  for (int i = 0; i < n; i++)
    close(fds[i]);
  free(fds);
}

void add_one(int eventfd)
{
  const uint64_t one = 1;
  if (write(eventfd, &one, sizeof one) != sizeof one)
    die("write to an eventfd: %s", strerror(errno));
}

/* ---- statistics ---- */

static int ascending(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double median(double *values, int n)
{
  return percentile(values, n, 50);
}

double percentile(double *values, int n, double percent)
{
  int i = (int)(percent / 100 * n);
  qsort(values, (size_t)n, sizeof *values, ascending);
  return values[i < n ? i : n - 1];
}

/* ---- the comparison ---- */

bool wanted(const char *group)
{
  const char *filter = settings.filter;
  return filter == NULL || (strcspn(filter, " ") == strlen(group) &&
                            strncmp(filter, group, strlen(group)) == 0);
}

static bool filtered_out(const char *name)
{
  const char *filter = settings.filter;
  return filter != NULL && strncmp(name, filter, strlen(filter)) != 0;
}

static bool first_figure = true;

static void print_number(const char *key, double value)
{
  if (isnan(value))
    printf(", \"%s\": null", key);
  else
    printf(", \"%s\": %.4g", key, value);
}

static const char *met(const struct figure *f, double evloop, double ratio,
                       double more)
{
  double value = f->goal == RATIO ? ratio : f->goal == MORE ? more : evloop;
  if (f->goal == NO_GOAL || isnan(value))
    return "";
  return value <= f->limit ? "ok" : "OVER";
}

static void print_json(const struct figure *f, const char *verdict,
                       const double *values)
{
  static const char *const goals[] = {"none", "ratio", "at_most", "more"};
  static const char *const keys[] = {"raw", "libevloop", "ratio", "more"};
  printf("%s\n  {\"name\": \"%s\", \"unit\": \"%s\"", first_figure ? "" : ",",
         f->name, f->unit);
  for (int i = 0; i < 4; i++)
    print_number(keys[i], values[i]);
  printf(", \"goal\": \"%s\"", goals[f->goal]);
  print_number("limit", f->goal == NO_GOAL ? NAN : f->limit);
  printf(", \"met\": %s}", *verdict == 0           ? "null"
                           : strcmp(verdict, "ok") ? "false"
                                                   : "true");
}

static void print_line(const struct figure *f, const char *verdict,
                       const double *values)
{
  static const char *const endings[] = {"", "x", "", " more"};
  char columns[3][16];
  for (int i = 0; i < 3; i++) {
    if (isnan(values[i]))
      strcpy(columns[i], "-");
    else
      snprintf(columns[i], sizeof columns[i], i == 2 ? "%.2fx" : "%.4g",
               values[i]);
  }
  printf("%-46s %-11s %8s %8s %7s", f->name, f->unit, columns[0], columns[1],
         columns[2]);
  if (f->goal != NO_GOAL)
    printf("  <= %g%s %s", f->limit, endings[f->goal], verdict);
  putchar('\n');
}

void report(const struct figure *f, double raw, double evloop, double ratio,
            double more)
{
  const double values[] = {raw, evloop, ratio, more};
  const char *verdict = met(f, evloop, ratio, more);
  (settings.json ? print_json : print_line)(f, verdict, values);
  fflush(stdout);
  first_figure = false;
}

void note(const char *text)
{
  fprintf(settings.json ? stderr : stdout, "%s\n", text);
}

void report_begin(void)
{
  if (settings.json)
    printf("[");
  else
    printf("%-46s %-11s %8s %8s %7s  goal\n", "", "", "raw", "evloop",
           "ratio");
}

void report_end(void)
{
  if (settings.json)
    printf("\n]\n");
}

/* The median of what is not NAN. */
static double middle(const double *values, int n)
{
  double numbers[MOST_ROUNDS];
  int count = 0;
  for (int i = 0; i < n; i++)
    if (!isnan(values[i]))
      numbers[count++] = values[i];
  return count == 0 ? NAN : median(numbers, count);
}

/* A count that is not reached may show as a wait that never ends. */
static const char *watched;

static void too_long(int signal)
{
  (void)signal;
  ssize_t ignored = write(STDERR_FILENO, "no end: ", 8);
  ignored += write(STDERR_FILENO, watched, strlen(watched));
  ignored += write(STDERR_FILENO, "\n", 1);
  _exit(ignored < 0 ? 2 : 1);
}

static void watch_over(const char *name)
{
  watched = name;
  signal(SIGALRM, too_long);
  alarm(settings.quick ? 30 : 300);
}

void compare(const struct work *work)
{
  /* By figure: raw, evloop, their ratio and difference in each round. Only
   * what one round compares means anything, so the ratio's median is taken,
   * not the medians' ratio. */
  double seen[MOST_FIGURES][4][MOST_ROUNDS];
  int rounds = settings.quick      ? 1
               : work->rounds != 0 ? work->rounds
                                   : ROUNDS;
  if (filtered_out(work->figures[0].name))
    return;
  watch_over(work->figures[0].name);
  for (int round = 0; round < rounds; round++) {
    double values[2][MOST_FIGURES];
    for (int i = 0; i < MOST_FIGURES; i++)
      values[0][i] = values[1][i] = NAN;
    for (int turn = 0; turn < 2; turn++) {
      int side = (turn + round) % 2;
      measure_t measure = side == 0 ? work->raw : work->evloop;
      if (measure != NULL && (side == 0 ? settings.raw : settings.evloop))
        measure(work->parameters, values[side]);
    }
    for (int i = 0; i < MOST_FIGURES; i++) {
      seen[i][0][round] = values[0][i];
      seen[i][1][round] = values[1][i];
      seen[i][2][round] = values[1][i] / values[0][i];
      seen[i][3][round] = values[1][i] - values[0][i];
    }
  }
  for (int i = 0; i < MOST_FIGURES && work->figures[i].unit != NULL; i++) {
    double raw = middle(seen[i][0], rounds), evloop = middle(seen[i][1], rounds);
    if (!isnan(raw) || !isnan(evloop))
      report(&work->figures[i], raw, evloop, middle(seen[i][2], rounds),
             middle(seen[i][3], rounds));
  }
  alarm(0);
}
