/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers that are enabled, modified or added when their descriptor is
 * already ready: the loop delivers an event, with any bits and from any calling
 * thread, as with epoll_ctl(2). Edges that have passed are delivered again. */

#define _GNU_SOURCE
#include "loop_io.h"

/* ---- one row of the table ---- */

/* How a watcher is reported. */
typedef struct Mode {
  const char *name;
  uint32_t bits;
} Mode;

static const Mode modes[] = {
    {"level", 0},
    {"ET", ET},
    {"ONESHOT", ONESHOT},
    {"ET|ONESHOT", ET | ONESHOT},
    {"EXCLUSIVE", EXCLUSIVE},
    {"EXCLUSIVE|ET", EXCLUSIVE | ET},
};

static const uint32_t sides[] = {IN, OUT};

/* Another watcher of the same descriptor and with the same bits. */
enum { ALONE, BESIDE_ENABLED, BESIDE_DISABLED, NEIGHBOURS };

typedef struct Way Way;
typedef struct Operation Operation;

/* A watched socket, readable and writable all the time. */
typedef struct Case {
  const Way *way;
  const Mode *mode;
  const Operation *operation;
  uint32_t events;
  int neighbours;
  evloop_t loop;
  int pair[2];
  evloop_watcher_t watcher;
  Seen seen, other;
  Runner runner;
} Case;

typedef void Step(Case *c);

static void enable(Case *c) {
  CHECK_EQ(evloop_watcher_enable(c->watcher), 0);
}

static void disable(Case *c) {
  CHECK_EQ(evloop_watcher_disable(c->watcher), 0);
}

static void modify(Case *c) {
  CHECK_EQ(evloop_io_modify(c->watcher, c->events), 0);
}

/* The kernel always adds this bit, but the masks differ. */
static void modify_to_another(Case *c) {
  CHECK_EQ(evloop_io_modify(c->watcher, c->events | EVLOOP_EPOLLERR), 0);
}

static void modify_to_nothing(Case *c) {
  CHECK_EQ(evloop_io_modify(c->watcher, c->events & ~(IN | OUT)), 0);
}

static void write_and_disable(Case *c) {
  put(c->pair[1]);
  disable(c);
}

static void add_second(Case *c);

/* What is asked for, in one or two steps; between them the loop may have
 * iterations. */
struct Operation {
  const char *name;
  Step *first, *second;
  bool apart;
};

static const Operation operations[] = {
    {"disable; enable", disable, enable, true},
    {"disable and enable at once", disable, enable, false},
    {"write and disable; enable", write_and_disable, enable, true},
    {"modify to the same", modify, NULL, false},
    {"modify; modify back", modify_to_another, modify, true},
    {"modify and back at once", modify_to_another, modify, false},
    {"modify to nothing; back", modify_to_nothing, modify, true},
    {"modify to nothing and back at once", modify_to_nothing, modify, false},
    {"add a second watcher", add_second, NULL, false},
};

/* Who asks, and how the loop runs. */
struct Way {
  const char *name;
  Step *prepare; /* the watcher is added and has had no iteration yet */
  void (*take)(Case *c, Step *step);
  Step *iterate;
  Step *finish; /* the steps are done; NULL: nothing else */
  bool records; /* the watcher has no callback */
};

static evloop_watcher_t add_to(Case *c, Seen *seen) {
  evloop_callback_t callback = c->way->records ? NULL : record;
  return OK(evloop_add_io(c->loop, c->pair[0], c->events, callback, seen));
}

/* Whose events count from then on. */
static void add_second(Case *c) {
  memset(&c->seen, 0, sizeof c->seen);
  add_to(c, &c->seen);
}

static void say_which(const Case *c, const Operation *operation, const char *what) {
  printf("  %s; %s, %s, neighbours %d, %s: %s\n", c->way->name, c->mode->name,
         c->events & IN ? "IN" : "OUT", c->neighbours, operation->name, what);
  check_exit();
}

static void iterate(Case *c, int times) {
  while (times-- > 0) c->way->iterate(c);
}

static void iterate_until_heard(Case *c, const Operation *operation, int calls, const char *what) {
  for (int i = 0; LOAD(c->seen.calls) <= calls; i++) {
    if (i == 20) say_which(c, operation, what);
    c->way->iterate(c);
  }
}

static Case *begin_case(const Way *way, const Mode *mode, uint32_t side, int neighbours) {
  static Case one;
  Case *c = &one;
  memset(c, 0, sizeof *c);
  c->way = way;
  c->mode = mode;
  c->events = side | mode->bits;
  c->neighbours = neighbours;
  c->loop = loop_with(way->finish != NULL ? EVLOOP_VIRTUAL_TIME : 0);
  OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, c->pair));
  put(c->pair[1]);
  keep_alive(c->loop);
  if (neighbours != ALONE) {
    evloop_watcher_t other = add_to(c, &c->other);
    if (neighbours == BESIDE_DISABLED) CHECK_EQ(evloop_watcher_disable(other), 0);
  }
  c->watcher = add_to(c, &c->seen);
  if (way->prepare) way->prepare(c);
  return c;
}

static void end_case(Case *c) {
  close_loop(c->loop);
  OK(close(c->pair[0]));
  OK(close(c->pair[1]));
}

/* What is reported once must not come on and on. */
static void expect_silence(Case *c, const Operation *operation) {
  int calls;
  if ((c->mode->bits & (ET | ONESHOT)) == 0) return;
  iterate(c, 3);
  calls = LOAD(c->seen.calls);
  iterate(c, 3);
  if (LOAD(c->seen.calls) != calls) say_which(c, operation, "reported without an end");
}

static void take_both(Case *c) {
  c->operation->first(c);
  c->operation->second(c);
}

static void take_last_step(Case *c, const Operation *operation) {
  c->operation = operation;
  if (operation->second == NULL) c->way->take(c, operation->first);
  else c->way->take(c, operation->apart ? operation->second : take_both);
}

static void expect_report(Case *c, const Operation *operation) {
  int calls;
  iterate_until_heard(c, operation, 0, "not reported when it was added");
  if (operation->apart) {
    iterate(c, 3);
    c->way->take(c, operation->first);
  }
  iterate(c, 3);
  calls = operation->first == add_second ? 0 : LOAD(c->seen.calls);
  take_last_step(c, operation);
  if (c->way->finish) c->way->finish(c);
  iterate_until_heard(c, operation, calls, "not reported again");
  expect_silence(c, operation);
}

/* A descriptor that an EXCLUSIVE watcher has is no other's. */
static bool is_possible(const Mode *mode, int neighbours, const Operation *operation) {
  return (mode->bits & EXCLUSIVE) == 0 || (neighbours == ALONE && operation->first != add_second);
}

static void try_all(const Way *way) {
  for (int m = 0; AT_ROW(m, modes); m++) {
    for (int s = 0; AT_ROW(s, sides); s++) {
      for (int n = 0; n < NEIGHBOURS; n++) {
        for (int o = 0; AT_ROW(o, operations); o++) {
          if (!is_possible(&modes[m], n, &operations[o])) continue;
          Case *c = begin_case(way, &modes[m], sides[s], n);
          expect_report(c, &operations[o]);
          end_case(c);
        }
      }
    }
  }
}

/* ---- from outside, from callbacks, by other threads ---- */

static void iterate_once(Case *c) {
  turn(c->loop);
}

static void take_here(Case *c, Step *step) {
  step(c);
}

TEST_TIMEOUT(outside_of_a_run, 60) {
  static const Way way = {"outside", NULL, take_here, iterate_once, NULL, false};
  try_all(&way);
}

static Step *posted;

static void on_post(const evloop_event_t *event, void *user_data) {
  (void)event;
  posted((Case *)user_data);
}

static void take_in_callback(Case *c, Step *step) {
  posted = step;
  CHECK_EQ(evloop_post(c->loop, on_post, c), 0);
  turn(c->loop);
}

TEST_TIMEOUT(in_a_callback, 60) {
  static const Way way = {"in a callback", NULL, take_in_callback, iterate_once, NULL, false};
  try_all(&way);
}

/* All that is ready is collected before anything is called. */
static void add_priority(Case *c) {
  CHECK_EQ(evloop_watcher_set_priority(c->watcher, -1), 0);
}

TEST_TIMEOUT(in_a_callback_of_a_higher_priority, 60) {
  static const Way way = {"with a priority", add_priority, take_in_callback, iterate_once, NULL,
                          false};
  try_all(&way);
}

typedef struct Asked {
  Case *c;
  Step *step;
} Asked;

static void *take_step(void *argument) {
  const Asked *asked = (const Asked *)argument;
  asked->step(asked->c);
  return NULL;
}

static void take_in_thread(Case *c, Step *step) {
  Asked asked = {c, step};
  join(start_thread(take_step, &asked));
}

TEST_TIMEOUT(by_another_thread_beside_an_idle_loop, 60) {
  static const Way way = {"another thread", NULL, take_in_thread, iterate_once, NULL, false};
  try_all(&way);
}

static void start_running(Case *c) {
  start_runner(&c->runner, run_until_done, c->loop);
}

static void iterate_beside(Case *c) {
  go_round(c->loop);
}

static void try_beside_a_run(const Mode *mode) {
  static const Way way = {"beside a run", start_running, take_here, iterate_beside, NULL, false};
  for (int n = 0; n < NEIGHBOURS; n++) {
    for (int o = 0; AT_ROW(o, operations); o++) {
      if (!is_possible(mode, n, &operations[o])) continue;
      Case *c = begin_case(&way, mode, sides[o % 2], n);
      expect_report(c, &operations[o]);
      stop_runner(&c->runner);
      end_case(c);
    }
  }
}

TEST_TIMEOUT(by_another_thread_than_that_which_runs_the_loop, 120) {
  for (int m = 0; AT_ROW(m, modes); m++) try_beside_a_run(&modes[m]);
}

/* ---- under a rate limit ---- */

static void add_limit(Case *c) {
  CHECK_EQ(evloop_watcher_set_ratelimit(c->watcher, SECOND, 1), 0);
}

static void end_pause(Case *c) {
  advance(c->loop, SECOND);
}

static void end_limit(Case *c) {
  CHECK_EQ(evloop_watcher_set_ratelimit(c->watcher, 0, 0), 0);
}

TEST_TIMEOUT(in_a_pause_of_a_rate_limit, 60) {
  static const Way way = {"in a pause", add_limit, take_here, iterate_once, end_pause, false};
  try_all(&way);
}

TEST_TIMEOUT(in_a_callback_in_a_pause_of_a_rate_limit, 60) {
  static const Way way = {"in a callback in a pause", add_limit, take_in_callback, iterate_once,
                          end_limit, false};
  try_all(&way);
}

/* ---- without callbacks ---- */

static void count_records(Case *c, int64_t timeout_ns) {
  evloop_event_t events[8];
  int n = (int)OK(evloop_wait(c->loop, events, LENGTH(events), timeout_ns));
  for (int i = 0; i < n; i++) record(&events[i], (void *)(uintptr_t)events[i].data);
}

static void iterate_by_wait(Case *c) {
  count_records(c, 0);
}

TEST_TIMEOUT(as_records_of_wait, 60) {
  static const Way way = {"by wait", NULL, take_here, iterate_by_wait, NULL, true};
  try_all(&way);
}

/* A run keeps the record, which the steps may take back. */
static void iterate_twice(Case *c) {
  turns(c->loop, 2);
  count_records(c, 0);
}

static void take_beside_a_record(Case *c, Step *step) {
  put(c->pair[1]);
  turns(c->loop, 2);
  step(c);
  turns(c->loop, 2);
}

TEST_TIMEOUT(as_records_that_a_run_has_kept, 60) {
  static const Way way = {"kept records", NULL, take_beside_a_record, iterate_twice, NULL, true};
  try_all(&way);
}

/* ---- in a foreign loop ---- */

static void prepare_embedded(Case *c) {
  OK(evloop_fileno(c->loop));
  OK(evloop_embed_prepare(c->loop));
}

/* The foreign loop dispatches only what it was woken for. */
static void iterate_embedded(Case *c) {
  if (!readable((int)OK(evloop_fileno(c->loop)), 0)) return;
  OK(evloop_embed_dispatch(c->loop));
  while (OK(evloop_embed_prepare(c->loop)) > 0) OK(evloop_embed_dispatch(c->loop));
}

TEST_TIMEOUT(embedded_in_a_foreign_loop, 60) {
  static const Way way = {"embedded", prepare_embedded, take_here, iterate_embedded, NULL, false};
  try_all(&way);
}

/* ---- in a child ---- */

static void expect_report_in_child(Case *c, const Operation *operation) {
  iterate_until_heard(c, operation, 0, "not reported when it was added");
  iterate(c, 3);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(c->loop), 0);
    iterate(c, 3);
    expect_report(c, operation);
    fflush(stdout);
    _exit(0);
  }
  int status;
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
}

TEST_TIMEOUT(in_a_child_after_a_fork, 120) {
  static const Way way = {"in a child", NULL, take_here, iterate_once, NULL, false};
  for (int m = 0; AT_ROW(m, modes); m++) {
    for (int o = 0; AT_ROW(o, operations); o++) {
      int neighbours = modes[m].bits & EXCLUSIVE ? ALONE : o % NEIGHBOURS;
      if (!is_possible(&modes[m], neighbours, &operations[o])) continue;
      Case *c = begin_case(&way, &modes[m], sides[o % 2], neighbours);
      expect_report_in_child(c, &operations[o]);
      end_case(c);
    }
  }
}

/* ---- in its own callback ---- */

typedef struct Own {
  Seen seen;
  uint32_t events;
  int times; /* how often it still asks for more */
} Own;

static void disable_itself(const evloop_event_t *event, void *user_data) {
  Own *own = (Own *)user_data;
  record(event, &own->seen);
  CHECK_EQ(evloop_watcher_disable(event->watcher), 0);
}

static void toggle_itself(const evloop_event_t *event, void *user_data) {
  Own *own = (Own *)user_data;
  record(event, &own->seen);
  if (own->times-- <= 0) return;
  CHECK_EQ(evloop_watcher_disable(event->watcher), 0);
  CHECK_EQ(evloop_watcher_enable(event->watcher), 0);
}

static void modify_itself(const evloop_event_t *event, void *user_data) {
  Own *own = (Own *)user_data;
  record(event, &own->seen);
  if (own->times-- <= 0) return;
  CHECK_EQ(evloop_io_modify(event->watcher, own->events), 0);
}

TEST(a_watcher_that_pauses_in_its_callback_is_reported_when_it_is_enabled) {
  for (int m = 0; AT_ROW(m, modes); m++) {
    evloop_t loop = new_loop();
    Own own = {.events = IN | modes[m].bits};
    Pipe pipe = full_pipe();
    evloop_watcher_t watcher = OK(evloop_add_io(loop, pipe.r, own.events, disable_itself, &own));
    for (int i = 1; i <= 5; i++) {
      turns(loop, i);
      CHECK_EQ(own.seen.calls, i);
      if (i % 2) put(pipe.w);
      CHECK_EQ(evloop_watcher_enable(watcher), 0);
    }
    close_loop(loop);
  }
}

TEST(a_watcher_that_asks_again_in_its_callback_is_reported_again) {
  static const evloop_callback_t callbacks[] = {toggle_itself, modify_itself};
  for (int i = 0; i < LENGTH(modes) * LENGTH(callbacks); i++) {
    evloop_t loop = new_loop();
    Own own = {.events = IN | modes[i / 2].bits, .times = 5};
    /* A ONESHOT watcher is disabled already, and enabled by either. */
    OK(evloop_add_io(loop, full_pipe().r, own.events, callbacks[i % 2], &own));
    turns(loop, 6);
    CHECK_EQ(own.seen.calls, 6);
    if ((own.events & (ET | ONESHOT)) != 0) {
      turns(loop, 3);
      CHECK_EQ(own.seen.calls, 6);
    }
    close_loop(loop);
  }
}

CHECK_MAIN()
