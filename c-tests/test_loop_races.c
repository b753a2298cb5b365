/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Two threads race: the one that loses the race must lose nothing else. The
 * protocols are modelled with loom beside the code; here the real ones run. */

#define _GNU_SOURCE 1
#include "loop_support.h"

enum { ROUNDS = 20000 };

static int rounds(void) {
  return ROUNDS / slow_factor() / slow_factor();
}

static void *run_the_loop(void *argument) {
  run_to_end(*(const evloop_t *)argument);
  return NULL;
}

static void do_nothing(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  CHECK(user_data == NULL);
}

/* Different at each call, between 0 and `most`. */
static void pause_up_to(unsigned *seed, unsigned most) {
  volatile unsigned left;
  *seed = *seed * 1103515245u + 12345u;
  left = (*seed >> 16) % most;
  while (left > 0) left--;
}

/* ---- two threads close one watcher ---- */

typedef struct Contest {
  evloop_t loop;
  evloop_watcher_t watcher;
  int begun, posted;
  unsigned seed;
} Contest;

static void close_it(const evloop_event_t *event, void *user_data) {
  Contest *contest = (Contest *)user_data;
  int result;
  CHECK(event != NULL);
  STORE(contest->begun, 1);
  pause_up_to(&contest->seed, 2000);
  result = evloop_watcher_close(contest->watcher, 0);
  CHECK(result == 0 || result == -ESTALE);
}

static void count_post(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  RAISE(*(int *)user_data, 1);
}

TEST_TIMEOUT(a_close_that_loses_the_race_for_its_watcher_leaves_the_loop_reachable, 120) {
  Contest contest = {0, 0, 0, 0, 1};
  evloop_watcher_t alive;
  pthread_t runner;
  int i, n = rounds();
  contest.loop = new_loop();
  alive = timer(contest.loop, HOUR, 0, do_nothing, NULL);
  runner = start_thread(run_the_loop, &contest.loop);
  for (i = 0; i < n; i++) {
    int result;
    contest.watcher = OK(evloop_add_async(contest.loop, do_nothing, NULL));
    STORE(contest.begun, 0);
    OK(evloop_post(contest.loop, close_it, &contest));
    while (!LOAD(contest.begun)) sched_yield();
    result = evloop_watcher_close(contest.watcher, 0);
    CHECK(result == 0 || result == -ESTALE);
    OK(evloop_post(contest.loop, count_post, &contest.posted));
    while (LOAD(contest.posted) != i + 1) sched_yield();
  }
  close_watcher(alive);
  join(runner);
  close_loop(contest.loop);
}

/* ---- a close beside what else is to be done before a callback ---- */

typedef struct Busy {
  evloop_t loop;
  int begun, round, ended;
} Busy;

static void reset_stats(const evloop_event_t *event, void *user_data) {
  Busy *busy = (Busy *)user_data;
  CHECK(event != NULL);
  evloop_stats_reset(busy->loop);
  STORE(busy->begun, 1);
}

static void *run_each(void *argument) {
  Busy *busy = (Busy *)argument;
  int i, n = rounds() / 4;
  for (i = 1; i <= n; i++) {
    while (LOAD(busy->round) < i) sched_yield();
    CHECK_EQ(evloop_run(busy->loop, EVLOOP_RUN_UNTIL_DONE), -ESTALE);
    STORE(busy->ended, i);
  }
  return NULL;
}

TEST_TIMEOUT(a_close_beside_other_work_of_the_loop_ends_its_run, 120) {
  Busy busy = {0, 0, 0, 0};
  pthread_t runner;
  unsigned seed = 1;
  int i, n = rounds() / 4;
  runner = start_thread(run_each, &busy);
  for (i = 1; i <= n; i++) {
    busy.loop = new_loop();
    CHECK_EQ(evloop_set_stats(busy.loop, 1), 0);
    timer(busy.loop, HOUR, 0, do_nothing, NULL);
    STORE(busy.begun, 0);
    OK(evloop_post(busy.loop, reset_stats, &busy));
    STORE(busy.round, i);
    while (!LOAD(busy.begun)) sched_yield();
    pause_up_to(&seed, 60);
    CHECK_EQ(evloop_close(busy.loop), 0);
    while (LOAD(busy.ended) != i) sched_yield();
  }
  join(runner);
  CHECK_EQ(evloop_handle_count(0), 0);
}

/* ---- a send beside the end of its loop ---- */

typedef struct Sender {
  int64_t watcher; /* atomic */
  int over;
  int refused; /* sends to a watcher that was gone */
} Sender;

static void *send_on(void *argument) {
  Sender *sender = (Sender *)argument;
  while (!LOAD(sender->over)) {
    int result = evloop_async_send(LOAD(sender->watcher));
    CHECK(result == 0 || result == -ESTALE);
    sender->refused += result == -ESTALE;
  }
  return NULL;
}

/* The place of a loop that is closed is used again for the next one, in which
 * a watcher of the last must not turn up: its callback would be called, or
 * the loop's own watchers be lost. */
TEST_TIMEOUT(a_send_beside_the_end_of_its_loop_does_not_reach_the_next_loop, 120) {
  enum { SENDERS = 2 };
  Sender senders[SENDERS];
  pthread_t threads[SENDERS];
  int i, k, n = rounds() / 4;
  memset(senders, 0, sizeof senders);
  for (k = 0; k < SENDERS; k++) {
    threads[k] = start_thread(send_on, &senders[k]);
  }
  for (i = 0; i < n; i++) {
    evloop_t loop = new_loop();
    Seen seen = {0};
    evloop_watcher_t own;
    for (k = 0; k < SENDERS; k++) {
      STORE(senders[k].watcher, OK(evloop_add_async(loop, do_nothing, NULL)));
    }
    own = OK(evloop_add_async(loop, record, &seen));
    CHECK_EQ(evloop_async_send(own), 0);
    turn(loop);
    CHECK_EQ(seen.calls, 1);
    CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), SENDERS + 1);
    CHECK_EQ(evloop_close(loop), 0);
  }
  for (k = 0; k < SENDERS; k++) {
    STORE(senders[k].over, 1);
    join(threads[k]);
  }
  CHECK_EQ(evloop_handle_count(0), 0);
}

CHECK_MAIN()
