/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Which of the watchers that are ready comes first, and how often one may:
 * priorities and rate limits. */

#define _GNU_SOURCE 1
#include "loop_kinds.h"

/* ---- helpers ---- */

static void set_priority(evloop_watcher_t watcher, int priority) {
  CHECK_EQ(evloop_watcher_set_priority(watcher, priority), 0);
}

static void limit(evloop_watcher_t watcher, int64_t interval_ns, int burst) {
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, interval_ns, burst), 0);
}

/* ---- priorities of different kinds ---- */

/* One of each of the five that are ordered together, and a posted call. */
static void make_all_ready(evloop_t loop, const int priorities[4]) {
  evloop_watcher_t t = timer(loop, 0, 0, log_first_char, WORD("t"));
  evloop_watcher_t a = async(loop, log_first_char, WORD("a"));
  evloop_watcher_t d = OK(evloop_add_defer(loop, log_first_char, WORD("d")));
  evloop_watcher_t i = readable_io(loop, event_fd(1), log_first_char, WORD("i"));
  set_priority(t, priorities[0]);
  set_priority(a, priorities[1]);
  set_priority(d, priorities[2]);
  set_priority(i, priorities[3]);
  trigger(a);
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
}

TEST(the_highest_priority_of_all_kinds_comes_first) {
  static const struct {
    int priorities[4];
    const char *order;
  } rows[] = {
      {{0, 0, 0, 0}, "tapdi"},
      {{1, 2, 3, 4}, "idatp"},
      {{-1, -2, -3, -4}, "ptadi"},
      {{0, 0, 0, 1}, "itapd"},
      {{-1, 0, 0, 0}, "apdit"},
      {{5, -5, 5, -5}, "tdpai"},
      {{INT32_MIN, INT32_MAX, INT32_MIN, INT32_MAX}, "aiptd"},
  };
  int i;
  for (i = 0; AT_ROW(i, rows); i++) {
    evloop_t loop = new_loop();
    make_all_ready(loop, rows[i].priorities);
    turn(loop);
    EXPECT_LOG(rows[i].order);
    close_loop(loop);
  }
}

TEST(a_tfd_has_a_priority) {
  static Fixture fixture;
  evloop_watcher_t watcher;
  fixture = new_fixture();
  add_io(&fixture, 0, log_first_char, WORD("i"));
  watcher = add_tfd(&fixture, 0, log_first_char, WORD("f"));
  add_io(&fixture, 1, log_first_char, WORD("i"));
  set_priority(watcher, 1);
  happen_io(&fixture, 0, 0);
  happen_io(&fixture, 1, 0);
  happen_tfd(&fixture, 0, watcher);
  timer(fixture.loop, 0, 0, log_first_char, WORD("t"));
  turn(fixture.loop);
  EXPECT_LOG("ftii");
}

/* ---- priorities of one kind ---- */

static const char *const six[] = {"a", "b", "c", "d", "e", "f"};

/* Added in alphabetical order; f has the highest priority. */
EACH_KIND(the_higher_priority_comes_first) {
  static const int priorities[] = {-3, 0, INT32_MIN, 2, 1, INT32_MAX};
  evloop_watcher_t watchers[LENGTH(priorities)];
  bool one_each = kind == &kind_tfd || kind == &kind_file;
  Fixture fixture = new_fixture();
  int i;
  for (i = 0; AT_ROW(i, priorities); i++) {
    /* Three are enough for what needs a place for each. */
    if (one_each && i >= PLACES) break;
    watchers[i] = kind->add(&fixture, i % PLACES, log_first_char, WORD(six[i]));
    set_priority(watchers[i], priorities[i]);
    kind->happen(&fixture, i % PLACES, watchers[i]);
  }
  round_of(&fixture);
  EXPECT_LOG(one_each ? "bac" : "fdebac");
}

/* The header promises an order only for timers and posted calls; this is what
 * everybody expects of the kinds that are not triggered. */
static void expect_stable(const Kind *kind) {
  static const int priorities[] = {0, 1, 0, 1, 0, 1};
  Fixture fixture = new_fixture();
  int i;
  for (i = 0; AT_ROW(i, priorities); i++) {
    evloop_watcher_t watcher = kind->add(&fixture, 0, log_first_char, WORD(six[i]));
    if (priorities[i] != 0) set_priority(watcher, priorities[i]);
    kind->happen(&fixture, 0, watcher);
  }
  round_of(&fixture);
  EXPECT_LOG("bdface");
}

TEST(prepare_watchers_are_called_in_the_order_of_adding) { expect_stable(&kind_prepare); }
TEST(check_watchers_are_called_in_the_order_of_adding) { expect_stable(&kind_check); }
TEST(idle_watchers_are_called_in_the_order_of_adding) { expect_stable(&kind_idle); }
TEST(defer_watchers_are_called_in_the_order_of_adding) { expect_stable(&kind_defer); }
TEST(exit_watchers_are_called_in_the_order_of_adding) { expect_stable(&kind_exit); }
TEST(timers_of_equal_priority_keep_their_order) { expect_stable(&kind_timer); }

typedef struct Ranked {
  int priority;
  int64_t due;
  int place;
} Ranked;

static Ranked last_ranked;
static int ranked_calls;

static void expect_rank(const evloop_event_t *event, void *user_data) {
  const Ranked *one = (const Ranked *)user_data, *last = &last_ranked;
  CHECK_EQ(event->deadline_ns, one->due);
  if (ranked_calls++ > 0) {
    CHECK(one->priority <= last->priority);
    if (one->priority == last->priority) CHECK(one->due >= last->due);
    if (one->priority == last->priority && one->due == last->due) CHECK(one->place > last->place);
  }
  last_ranked = *one;
}

TEST(a_thousand_timers_are_ordered_by_priority_and_deadline) {
  static Ranked ranked[1000];
  evloop_t loop = virtual_loop();
  uint64_t seed = 5;
  int i;
  for (i = 0; AT_ROW(i, ranked); i++) {
    evloop_watcher_t watcher;
    ranked[i].priority = (int)random_below(&seed, 5) - 2;
    ranked[i].due = SECOND * (1 + random_below(&seed, 20));
    ranked[i].place = i;
    watcher = timer_at(loop, ranked[i].due, expect_rank, &ranked[i]);
    set_priority(watcher, ranked[i].priority);
  }
  advance(loop, HOUR);
  turn(loop);
  CHECK_EQ(ranked_calls, LENGTH(ranked));
}

TEST(a_priority_can_be_taken_back) {
  evloop_t loop = new_loop();
  evloop_watcher_t a, b;
  a = timer_at(loop, 1, log_first_char, WORD("a"));
  b = timer_at(loop, 2, log_first_char, WORD("b"));
  set_priority(b, 7);
  set_priority(b, 0);
  turn(loop);
  EXPECT_LOG("ab");
  set_priority(a, -7);
  CHECK_EQ(evloop_timer_set(a, EVLOOP_TIMER_ABSTIME, 1, 0), 0);
  CHECK_EQ(evloop_timer_set(b, EVLOOP_TIMER_ABSTIME, 2, 0), 0);
  turn(loop);
  EXPECT_LOG("ba");
}

TEST(posted_calls_keep_their_order) {
  evloop_t loop = new_loop();
  int i;
  for (i = 0; AT_ROW(i, six); i++) CHECK_EQ(evloop_post(loop, log_first_char, WORD(six[i])), 0);
  turn(loop);
  EXPECT_LOG("abcdef");
}

/* ---- rate limits ---- */

typedef struct Limited {
  evloop_t loop;
  int calls;
  uint64_t count;
  int64_t times[64];
} Limited;

static void note_time(const evloop_event_t *event, void *user_data) {
  Limited *limited = (Limited *)user_data;
  CHECK(limited->calls < LENGTH(limited->times));
  limited->times[limited->calls++] = OK(evloop_now_ns(limited->loop));
  limited->count += event->count;
}

/* Two in a second: the third waits for the next second. */
static void expect_two_a_second(const Limited *limited) {
  int i;
  CHECK(limited->calls > 10);
  CHECK(limited->times[2] >= SECOND);
  for (i = 4; i < limited->calls; i++) CHECK(limited->times[i] - limited->times[i - 4] >= SECOND);
}

static void expect_limit(uint32_t flags) {
  static Limited limited;
  evloop_watcher_t watcher;
  evloop_t loop = jumping_loop();
  limited.loop = loop;
  watcher = OK(evloop_add_timer(loop, MONOTONIC, flags, 100 * MS, 100 * MS, 0, note_time, &limited));
  limit(watcher, SECOND, 2);
  CHECK_EQ(evloop_run_for_ns(loop, 950 * MS), 1);
  CHECK_EQ(limited.calls, 2);
  CHECK_EQ(evloop_run_for_ns(loop, 9100 * MS), 1);
  expect_two_a_second(&limited);
  /* At 10050 ms: what is held back comes when the limit ends. */
  CHECK(limited.calls <= 22);
  limit(watcher, 0, 0);
  turns(loop, 30);
  CHECK_EQ(limited.count, 100);
}

TEST(a_limited_timer_loses_no_expiration) { expect_limit(0); }
TEST(a_limited_bursting_timer_loses_no_expiration) { expect_limit(EVLOOP_TIMER_BURST); }

TEST(what_happens_in_a_pause_is_one_event) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = timer(loop, SECOND, SECOND, record, &seen);
  int i;
  limit(watcher, 10 * SECOND, 1);
  for (i = 0; i < 9; i++) {
    advance(loop, SECOND);
    turn(loop);
  }
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(seen.count, 1);
  advance(loop, 10 * SECOND);
  turn(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(seen.count, 19);
  CHECK_EQ(seen.last.deadline_ns, 2 * SECOND);
}

TEST(a_limited_async_watcher_loses_no_send) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  int i;
  limit(watcher, SECOND, 1);
  for (i = 0; i < 5; i++) {
    trigger(watcher);
    turns(loop, 2);
    CHECK_EQ(seen.calls, 1);
  }
  advance(loop, SECOND);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 2);
  advance(loop, 5 * SECOND);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 2);
}

TEST(a_limited_descriptor_does_not_spin) {
  static Seen io, checks;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = readable_io(loop, event_fd(1), record, &io);
  limit(watcher, HOUR, 3);
  turns(loop, 20);
  CHECK_EQ(io.calls, 3);
  OK(evloop_add_check(loop, record, &checks));
  CHECK_EQ(evloop_run_for_ns(loop, 20 * MS), 1);
  CHECK(checks.calls <= 5);
  CHECK_EQ(io.calls, 3);
  limit(watcher, 0, 0);
  turns(loop, 10);
  CHECK(io.calls >= 12); /* the first turn submits the change to the kernel */
}

TEST(a_paused_descriptor_goes_on_by_itself) {
  static Seen io;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = readable_io(loop, event_fd(1), record, &io);
  limit(watcher, 5 * MS, 2);
  while (io.calls < 7) CHECK_EQ(evloop_run(loop, EVLOOP_RUN_ONCE), 1);
  CHECK_EQ(io.last.events, EVLOOP_EPOLLIN);
}

TEST(a_paused_descriptor_that_calms_down_is_quiet) {
  static Seen io;
  Pipe pipe = new_pipe();
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = readable_io(loop, pipe.r, record, &io);
  char byte;
  limit(watcher, SECOND, 1);
  put(pipe.w);
  turns(loop, 3);
  CHECK_EQ(io.calls, 1);
  CHECK_EQ(read(pipe.r, &byte, 1), 1);
  advance(loop, SECOND);
  turns(loop, 3);
  /* It was readable in the pause, so one more may come, but not two. */
  CHECK(io.calls <= 2);
}

TEST(an_edge_in_a_pause_is_delivered) {
  static Seen io;
  evloop_t loop = virtual_loop();
  int fd = event_fd(0);
  evloop_watcher_t watcher = OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN | EVLOOP_EPOLLET, record,
                                              &io));
  limit(watcher, SECOND, 1);
  OK(eventfd_write(fd, 1));
  turns(loop, 3);
  CHECK_EQ(io.calls, 1);
  OK(eventfd_write(fd, 1));
  turns(loop, 3);
  CHECK_EQ(io.calls, 1);
  advance(loop, SECOND);
  turns(loop, 3);
  CHECK_EQ(io.calls, 2);
}

TEST(the_bits_of_a_pause_are_added_up) {
  static Seen io;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher;
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
  watcher = OK(evloop_add_io(loop, pair[0],
                             EVLOOP_EPOLLIN | EVLOOP_EPOLLRDHUP | EVLOOP_EPOLLET, record, &io));
  limit(watcher, SECOND, 1);
  put(pair[1]);
  turns(loop, 2);
  CHECK_EQ(io.calls, 1);
  CHECK_EQ(io.last.events, EVLOOP_EPOLLIN);
  put(pair[1]);
  turns(loop, 2);
  OK(shutdown(pair[1], SHUT_WR));
  turns(loop, 2);
  CHECK_EQ(io.calls, 1);
  advance(loop, SECOND);
  turns(loop, 2);
  CHECK_EQ(io.calls, 2);
  CHECK_EQ(io.last.events, EVLOOP_EPOLLIN | EVLOOP_EPOLLRDHUP);
}

TEST(a_pause_holds_back_no_other_watcher) {
  static Seen paused, other;
  evloop_t loop = new_loop();
  int fd = event_fd(1);
  limit(readable_io(loop, fd, record, &paused), HOUR, 1);
  readable_io(loop, fd, record, &other);
  turns(loop, 10);
  CHECK_EQ(paused.calls, 1);
  CHECK_EQ(other.calls, 10);
}

static void close_second(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  record(event, user_data);
  if (seen->calls == 1) trigger(event->watcher);
  if (seen->calls == 2) close_watcher(event->watcher);
}

TEST(virtual_time_jumps_to_the_end_of_a_pause) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  evloop_watcher_t watcher = async(loop, close_second, &seen);
  limit(watcher, SECOND, 1);
  trigger(watcher);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
  CHECK_EQ(evloop_now_ns(loop), SECOND);
}

TEST(real_time_passes_in_a_pause) {
  static Seen seen;
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = async(loop, close_second, &seen);
  limit(watcher, 3 * MS, 1);
  trigger(watcher);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 2);
}

TEST(closing_a_paused_watcher_ends_the_pause) {
  static Seen seen;
  evloop_t loop = jumping_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  limit(watcher, SECOND, 1);
  trigger(watcher);
  turn(loop);
  trigger(watcher);
  turn(loop);
  close_watcher(watcher);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
}

EACH_KIND(a_limit_of_one_in_an_hour) {
  static Seen seen;
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, record, &seen);
  int i;
  async(fixture.loop, ignore, NULL);
  limit(watcher, HOUR, 1);
  for (i = 0; i < 5; i++) {
    calm(&fixture);
    if (kind == &kind_defer) CHECK_EQ(evloop_watcher_enable(watcher), 0);
    kind->happen(&fixture, 0, watcher);
    round_of(&fixture);
  }
  CHECK_EQ(seen.calls, 1);
}

TEST(wrong_limits_are_refused) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  limit(watcher, SECOND, 1);
  CHECK_ERR(evloop_watcher_set_ratelimit(watcher, -1, 1), EINVAL);
  CHECK_ERR(evloop_watcher_set_ratelimit(watcher, SECOND, 0), EINVAL);
  CHECK_ERR(evloop_watcher_set_ratelimit(watcher, SECOND, -1), EINVAL);
  trigger(watcher);
  turn(loop);
  trigger(watcher);
  turn(loop);
  CHECK_EQ(seen.calls, 1); /* the limit is as it was */
  limit(watcher, 0, 5);
  turns(loop, 2);
  CHECK_EQ(seen.calls, 2);
}

TEST(the_longest_limit_does_not_overflow) {
  static Seen seen;
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = async(loop, record, &seen);
  advance(loop, SECOND);
  limit(watcher, INT64_MAX, INT32_MAX);
  trigger(watcher);
  turn(loop);
  limit(watcher, INT64_MAX, 1);
  trigger(watcher);
  turn(loop);
  trigger(watcher);
  advance(loop, HOUR);
  turn(loop);
  CHECK(seen.calls == 1 || seen.calls == 2);
}

CHECK_MAIN()
