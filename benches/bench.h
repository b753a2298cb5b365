/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What the benchmarks of the event loop share: clocks, counters, and the
 * comparison of two backends. "raw" is epoll, timerfd and eventfd called
 * directly; "evloop" is the library. Both do the same work in the same
 * program, by turns inside each round, and count their events: one that is
 * lost, invented or early ends the program.
 */

#ifndef BENCH_H
#define BENCH_H

#include <evloop.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

enum { MS = 1000000, SECOND = 1000000000 };

extern struct settings {
  bool quick;         /* small counts, one round: only the counting counts */
  bool json;
  bool raw, evloop;   /* the sides that are measured */
  const char *filter; /* only works whose name begins with it, or NULL */
} settings;

/* ---- ending badly ---- */

void die(const char *format, ...)
    __attribute__((noreturn, format(printf, 1, 2)));

void refused(int64_t result) __attribute__((noreturn, cold));

/* The result of a call of the library, or of a system call, that must
 * succeed. */
static inline int64_t must(int64_t result)
{
  if (result < 0)
    refused(result);
  return result;
}

int check(const char *what, int result);

/* `what` happened `seen` times. */
void expect(const char *what, int64_t seen, int64_t expected);

/* ---- clocks and counters ---- */

int64_t now_ns(void);

/* CPU time of this thread. */
int64_t cpu_ns(void);

/* Instructions of this thread in user space; NAN where they cannot be
 * counted. Between the two calls nothing of the bench's may be done that is
 * not to be counted. */
void instructions_begin(void);
double instructions_end(void);

/* A clock that is honest at the price of few readings: see due() */
struct watch {
  int64_t seen;       /* the last event's time_ns */
  int64_t clock;      /* the last reading */
  unsigned since;     /* events since then */
  int64_t worst;      /* greatest lateness */
};

/* Checks that a timer is not early, neither by its event nor by the clock,
 * and keeps the worst lateness beyond `tolerance_ns`. */
void due(struct watch *w, const struct evloop_event_t *event,
         int64_t deadline_ns, int64_t tolerance_ns);

/* ---- processors and descriptors ---- */

/* The CPUs this process may use; the calling thread is bound to one of them,
 * the number taken modulo how many there are. unbind() undoes it. */
int cpus(void);
void bind_to(int number);
void unbind(void);

/* How many descriptors may still be opened, some kept back. */
int descriptors_left(void);

/* `n` eventfds, non-blocking, all with the same initial value. */
int *open_eventfds(int n, unsigned value);
void close_all(int *fds, int n);
void add_one(int eventfd);

/* ---- statistics ---- */

/* Sorts the values. */
double median(double *values, int n);
double percentile(double *values, int n, double percent);

/* ---- the comparison ---- */

enum { ROUNDS = 5, MOST_ROUNDS = 51, MOST_FIGURES = 3 };

enum goal {
  NO_GOAL,
  RATIO,    /* of evloop to raw: at most */
  AT_MOST,  /* evloop's value */
  MORE      /* evloop's value minus raw's: at most */
};

struct figure {
  char name[56];
  const char *unit;
  enum goal goal;
  double limit;
};

/* Measures once: writes a value for each figure; NAN leaves one out. */
typedef void (*measure_t)(const void *parameters, double *out_values);

struct work {
  struct figure figures[MOST_FIGURES]; /* those with a unit */
  measure_t raw, evloop;               /* NULL: there is none */
  const void *parameters;
  int rounds;                          /* 0: ROUNDS */
};

/* Measures and reports one work. */
void compare(const struct work *work);

/* Whether the filter wants a group such as "W1", or something of it. */
bool wanted(const char *group);

/* Reports a figure that was measured in another way. */
void report(const struct figure *figure, double raw, double evloop,
            double ratio, double more);
void note(const char *text);
void report_begin(void);
void report_end(void);

/* ---- the works ---- */

void bench_chain(void);   /* W1 */
void bench_churn(void);   /* W2 */
void bench_timers(void);  /* W3, W3L */
void bench_expiry(void);  /* W4 */
void bench_density(void); /* W4d */
void bench_late(void);    /* W5 */
void bench_wakeup(void);  /* W6 */
void bench_ready(void);   /* W7 */
void bench_kqueue(void);  /* W8 */
void bench_signal(void);  /* W9 */
void bench_memory(void);  /* W10 */
void bench_calls(void);   /* W11 */

/* W10 in a process of its own: prints bytes for each. */
int memory_of(const char *kind, long count);

/* The chain of W1, also for the instruction counter. */
struct chain {
  int pipes, active;
  long events;
};
void chain_open(int pipes);
void chain_close(void);
void chain_raw(const void *chain, double *out_values);
void chain_raw_as_kqueue(const void *chain, double *out_values);
void chain_evloop(const void *chain, double *out_values);
void chain_kqueue(const void *chain, double *out_values);
void chain_trusting_kqueue(const void *chain, double *out_values);

/* `count` events of one descriptor that is always ready. */
void ready_count(long count);

/* guard.c: makes one of its calls `count` times, for an instruction counter.
 * guard_run() is false if no call has that name. */
void guard_names(void);
bool guard_run(const char *name, long count);

/* ---- shorthand ---- */

static inline evloop_t new_loop(uint32_t flags)
{
  evloop_options_t options = {.size = sizeof options, .flags = flags};
  return must(evloop_create(&options));
}

/* One change, that must succeed. */
static inline void change_kqueue(evloop_kqueue_t kq, uint64_t ident, int filter,
                                 int flags, uint32_t fflags, int64_t data,
                                 uint64_t udata)
{
  evloop_kevent_t change = {.ident = ident,
                            .filter = (int16_t)filter,
                            .flags = (uint16_t)flags,
                            .fflags = fflags,
                            .data = data,
                            .udata = udata};
  must(evloop_kqueue_control(kq, &change, 1, NULL, 0, 0));
}

/* An int in a user_data, and back. */
static inline void *box(intptr_t number)
{
  return (void *)number;
}

static inline intptr_t unbox(const void *user_data)
{
  return (intptr_t)user_data;
}

#endif
