/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A client that tries again, after longer and longer pauses, and its test:
 * hours of pauses in some milliseconds.
 *
 *   retry_test
 *
 * The client knows nothing of the test. It takes its time from an event loop,
 * and a loop made with EVLOOP_VIRTUAL_TIME has a time that stands still while
 * the program works and, with EVLOOP_AUTO_ADVANCE, jumps to the next timer
 * when there is nothing else to do. So the test never waits, and everything
 * happens at a time that is known to the nanosecond, however loaded the machine
 * is.
 * The last test runs the same client in real time.
 */

#define _POSIX_C_SOURCE 200809L

#include "must.h"

#include <evloop.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the client ---- */

/*
 *              attempt succeeds
 *   TRYING  ------------------->  CONNECTED
 *   |  ^ ^                            |
 *   |  | '----------------------------'  retry_lost(): the backoff is
 *   |  |                                 the first one again
 *   |  '-- the pause is over
 *   |
 *   |-- attempt fails: pauses, twice as long as the last time
 *   '-- it was the last one allowed: GAVE_UP
 */
enum retry_state { TRYING, CONNECTED, GAVE_UP };

struct retry {
  /* For the caller to fill in. */
  int64_t first_ns, longest_ns; /* pauses, before the jitter */
  bool jitter;           /* takes off up to a half, so that the clients of a
                            service that is back do not all come at once */
  int most_attempts;     /* in a row */
  uint64_t random;       /* the seed */
  bool (*attempt)(void *context);
  void (*settled)(void *context, enum retry_state state); /* not TRYING */
  void *context;

  /* The client's own. */
  enum retry_state state;
  evloop_watcher_t timer;
  int failures; /* in a row */
  int64_t backoff_ns;
};

/* splitmix64: small, and the same everywhere. */
static uint64_t next_random(uint64_t *state)
{
  uint64_t z = *state += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

/* An attempt begins: the first one, or a pause is over. */
static void on_pause_over(const evloop_event_t *event, void *user_data)
{
  struct retry *r = user_data;
  if (r->attempt(r->context)) {
    r->state = CONNECTED;
    r->settled(r->context, r->state);
  } else if (++r->failures == r->most_attempts) {
    r->state = GAVE_UP;
    r->settled(r->context, r->state);
  } else {
    int64_t pause_ns = r->backoff_ns;
    if (r->jitter)
      pause_ns -= (int64_t)(next_random(&r->random) %
                            (uint64_t)(pause_ns / 2 + 1));
    must(evloop_timer_set(event->watcher, 0, pause_ns, 0));
    r->backoff_ns = r->backoff_ns > r->longest_ns / 2 ? r->longest_ns
                                                      : 2 * r->backoff_ns;
  }
}

/* The first attempt follows when the loop runs, not in here. */
static void try_now(struct retry *r)
{
  r->state = TRYING;
  r->failures = 0;
  r->backoff_ns = r->first_ns;
  must(evloop_timer_set(r->timer, 0, 0, 0));
}

static void retry_start(struct retry *r, evloop_t loop)
{
  r->timer = must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, -1, 0, 0,
                                   on_pause_over, r));
  try_now(r);
}

/* The connection was lost. */
static void retry_lost(struct retry *r)
{
  try_now(r);
}

static void retry_end(struct retry *r)
{
  must(evloop_watcher_close(r->timer, 0));
}

/* ---- a service to test it with ---- */

enum { MOST_RECORDED = 64 };

static const int64_t SECOND = 1000000000, HOUR = 3600 * INT64_C(1000000000);

struct service {
  evloop_t loop;
  int down_for;  /* so many attempts fail */
  int attempts;
  int64_t at_ns[MOST_RECORDED]; /* when they were made */
};

static bool attempt(void *context)
{
  struct service *s = context;
  if (s->attempts < MOST_RECORDED)
    s->at_ns[s->attempts] = must(evloop_now_ns(s->loop));
  return s->attempts++ >= s->down_for;
}

static void settled(void *context, enum retry_state state)
{
  struct service *s = context;
  (void)state;
  must(evloop_stop(s->loop));
}

/* Ends the program unless two numbers are the same. */
static void expect(const char *what, int64_t got, int64_t wanted)
{
  if (got != wanted) {
    fprintf(stderr, "%s: %" PRId64 ", not %" PRId64 "\n", what, got, wanted);
    exit(1);
  }
}

static evloop_t virtual_loop(void)
{
  evloop_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.flags = EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE;
  return must(evloop_create(&options)); /* its time begins with 0 */
}

/* Runs until the client has settled. */
static void run(struct service *s)
{
  must(evloop_run(s->loop, EVLOOP_RUN_UNTIL_DONE));
}

/* Advances the time itself: evloop_run() would end at once where there is
 * nothing left to wait for. What becomes due is done. */
static void let_pass(struct service *s, int64_t ns)
{
  must(evloop_advance_ns(s->loop, ns));
  must(evloop_run(s->loop, EVLOOP_RUN_NOWAIT));
}

/* ---- the tests ---- */

/* 1, 2, 4, ... 512 s, then always 10 minutes, until 40 attempts failed. */
static int64_t test_gives_up(void)
{
  struct service s = {.loop = virtual_loop(), .down_for = 1000};
  struct retry r = {.first_ns = SECOND, .longest_ns = 600 * SECOND,
                    .most_attempts = 40, .attempt = attempt,
                    .settled = settled, .context = &s};
  retry_start(&r, s.loop);
  run(&s);

  expect("state", r.state, GAVE_UP);
  expect("attempts", s.attempts, 40);
  static const int64_t first_s[] = {0,  1,   3,   7,   15,  31,
                                    63, 127, 255, 511, 1023};
  for (int i = 0; i <= 10; i++)
    expect("time of an attempt", s.at_ns[i], first_s[i] * SECOND);
  for (int i = 11; i < 40; i++)
    expect("time of an attempt", s.at_ns[i],
           1023 * SECOND + (i - 10) * 600 * SECOND);
  expect("end", must(evloop_now_ns(s.loop)), 18423 * SECOND);

  /* Nothing follows: it has really given up. */
  let_pass(&s, 24 * HOUR);
  expect("attempts, a day later", s.attempts, 40);
  int64_t took_ns = must(evloop_now_ns(s.loop));
  expect("that day", took_ns, 18423 * SECOND + 24 * HOUR);
  retry_end(&r);
  must(evloop_close(s.loop));
  return took_ns;
}

/* The pauses of a seed are always the same, and between a half and all of
 * the backoff. */
static int64_t test_jitter(void)
{
  uint64_t known = 1234567; /* the generator's published first number */
  expect("generator", next_random(&known) == 6457827717110365317u, true);

  int64_t took_ns = 0;
  for (uint64_t seed = 1; seed <= 100; seed++) {
    struct service s = {.loop = virtual_loop(), .down_for = 19};
    struct retry r = {.first_ns = SECOND, .longest_ns = 600 * SECOND,
                      .most_attempts = 20, .jitter = true, .random = seed,
                      .attempt = attempt, .settled = settled, .context = &s};
    retry_start(&r, s.loop);
    run(&s);
    expect("state", r.state, CONNECTED); /* at the last attempt allowed */
    expect("attempts", s.attempts, 20);

    uint64_t random = seed;
    int64_t due_ns = 0;
    for (int i = 0; i < 20; i++) {
      expect("time of an attempt", s.at_ns[i], due_ns);
      int64_t backoff_ns = i < 10 ? SECOND << i : 600 * SECOND;
      uint64_t most_off = (uint64_t)backoff_ns / 2 + 1;
      int64_t pause_ns =
          backoff_ns - (int64_t)(next_random(&random) % most_off);
      expect("pause in bounds",
             pause_ns >= backoff_ns / 2 && pause_ns <= backoff_ns, true);
      due_ns += pause_ns;
    }
    took_ns += must(evloop_now_ns(s.loop));
    retry_end(&r);
    must(evloop_close(s.loop));
  }
  return took_ns;
}

/* After a connection was made the next trouble begins with the first backoff,
 * and the attempts are counted from 0 again. */
static int64_t test_success_resets(void)
{
  struct service s = {.loop = virtual_loop(), .down_for = 5};
  struct retry r = {.first_ns = SECOND, .longest_ns = 600 * SECOND,
                    .most_attempts = 6, .attempt = attempt,
                    .settled = settled, .context = &s};
  retry_start(&r, s.loop);
  run(&s);
  expect("state", r.state, CONNECTED);
  expect("time of the connection", s.at_ns[5], 31 * SECOND);

  let_pass(&s, 3 * HOUR);
  expect("attempts while connected", s.attempts, 6);

  s.down_for = s.attempts + 2;
  retry_lost(&r);
  run(&s);
  expect("state", r.state, CONNECTED);
  expect("attempts", s.attempts, 9);
  int64_t lost_ns = 31 * SECOND + 3 * HOUR;
  expect("time of an attempt", s.at_ns[6], lost_ns);
  expect("time of an attempt", s.at_ns[7], lost_ns + SECOND);
  expect("time of an attempt", s.at_ns[8], lost_ns + 3 * SECOND);
  int64_t took_ns = must(evloop_now_ns(s.loop));
  retry_end(&r);
  must(evloop_close(s.loop));
  return took_ns;
}

/* The same client and service with a loop that keeps real time: never early,
 * and what "late" means is the machine's affair. */
static int64_t test_in_real_time(void)
{
  struct service s = {.loop = must(evloop_create(NULL)), .down_for = 4};
  struct retry r = {.first_ns = SECOND / 1000, .longest_ns = SECOND / 250,
                    .most_attempts = 10, .attempt = attempt,
                    .settled = settled, .context = &s};
  int64_t start_ns = must(evloop_now_ns(s.loop));
  retry_start(&r, s.loop);
  run(&s);
  expect("state", r.state, CONNECTED);
  expect("attempts", s.attempts, 5);
  expect("not early", s.at_ns[0] >= start_ns, true);
  for (int i = 1; i < 5; i++) {
    int64_t backoff_ns = i < 3 ? (SECOND / 1000) << (i - 1) : SECOND / 250;
    expect("not early", s.at_ns[i] - s.at_ns[i - 1] >= backoff_ns, true);
  }
  int64_t took_ns = must(evloop_now_ns(s.loop)) - start_ns;
  retry_end(&r);
  must(evloop_close(s.loop));
  return took_ns;
}

static void timed(const char *name, int64_t (*test)(void))
{
  struct timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  int64_t took_ns = test();
  clock_gettime(CLOCK_MONOTONIC, &after);
  printf("%-15s %13.3f s in %.3f ms\n", name, (double)took_ns / 1e9,
         (double)(after.tv_sec - before.tv_sec) * 1e3 +
             (double)(after.tv_nsec - before.tv_nsec) / 1e6);
}

int main(void)
{
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */
  timed("gives up", test_gives_up);
  timed("jitter", test_jitter);
  timed("success resets", test_success_resets);
  timed("in real time", test_in_real_time);
  expect("handles still open", must(evloop_handle_count(EVLOOP_KIND_ANY)), 0);
  return 0;
}
