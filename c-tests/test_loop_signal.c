/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Signal watchers: by handlers over the program's, and by signalfd. */

#define _GNU_SOURCE
#include "loop_support.h"

/* ---- helpers ---- */

static int handled; /* calls of the program's own handler; atomic */
static siginfo_t handled_info;

static void handle(int number) {
  (void)number;
  RAISE(handled, 1);
}

static void handle_info(int number, siginfo_t *info, void *context) {
  (void)number;
  (void)context;
  handled_info = *info;
  RAISE(handled, 1);
}

static void install(int number, void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  OK(sigaction(number, &action, NULL));
}

static void (*installed(int number))(int) {
  struct sigaction action;
  OK(sigaction(number, NULL, &action));
  return action.sa_handler;
}

static bool has_handle_info(int number) {
  struct sigaction action;
  OK(sigaction(number, NULL, &action));
  return action.sa_sigaction == handle_info;
}

static void set_blocked(int number, int how) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, number);
  CHECK_EQ(pthread_sigmask(how, &set, NULL), 0);
}

static evloop_watcher_t watch(evloop_t loop, int number, evloop_callback_t callback,
                              void *user_data) {
  return OK(evloop_add_signal(loop, number, 0, callback, user_data));
}

static evloop_watcher_t watch_blocked(evloop_t loop, int number, evloop_callback_t callback,
                                      void *user_data) {
  set_blocked(number, SIG_BLOCK);
  return OK(evloop_add_signal(loop, number, EVLOOP_SIGNAL_FD, callback, user_data));
}

/* As sigqueue(3), which leaves some of it as it happens to be. */
static int try_to_queue(int number, int value) {
  siginfo_t info;
  memset(&info, 0, sizeof info);
  info.si_signo = number;
  info.si_code = SI_QUEUE;
  info.si_pid = getpid();
  info.si_uid = getuid();
  info.si_value.sival_int = value;
  return (int)syscall(SYS_rt_sigqueueinfo, getpid(), number, &info);
}

static void queue_signal(int number, int value) {
  OK(try_to_queue(number, value));
}

/* The events of callbacks. */
enum { MOST_SEEN = 2000 };
typedef struct Story {
  int calls; /* atomic */
  uint64_t count, lost;
  evloop_event_t events[MOST_SEEN];
  evloop_siginfo_t infos[MOST_SEEN];
} Story;
static Story story;

static void record_story(const evloop_event_t *event, void *user_data) {
  Story *s = (Story *)user_data;
  CHECK_EQ(event->type, EVLOOP_EVENT_SIGNAL);
  CHECK_EQ(event->fd, -1);
  CHECK(s->calls < MOST_SEEN);
  s->events[s->calls] = *event;
  if ((event->events & EVLOOP_ERROR) != 0) {
    s->lost += event->count;
  } else {
    s->count += event->count;
    CHECK_EQ(evloop_event_siginfo(event, &s->infos[s->calls]), 0);
    CHECK_EQ(s->infos[s->calls].signo, event->result);
  }
  RAISE(s->calls, 1);
}

/* Both ways, one case each. */
typedef evloop_watcher_t WatchFunction(evloop_t loop, int number, evloop_callback_t callback,
                                       void *user_data);
#define EACH_WAY(name)                                                                             \
  static void name(WatchFunction *add, bool by_fd);                                                \
  TEST(name##_by_a_handler) {                                                                      \
    install(SIGUSR1, SIG_IGN);                                                                     \
    name(watch, false);                                                                            \
  }                                                                                                \
  TEST(name##_by_signalfd) { name(watch_blocked, true); }                                          \
  static void name(WatchFunction *add, bool by_fd)

/* ---- which events are delivered ---- */

EACH_WAY(a_signal_is_an_event_with_its_siginfo) {
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = add(loop, SIGUSR1, record_story, &story);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(story.calls, 0);
  OK(kill(getpid(), SIGUSR1));
  turn(loop);
  CHECK_EQ(story.calls, 1);
  CHECK_EQ(story.events[0].watcher, watcher);
  CHECK_EQ(story.events[0].data, (uintptr_t)&story);
  CHECK_EQ(story.events[0].result, SIGUSR1);
  CHECK_EQ(story.events[0].count, 1);
  CHECK_EQ(story.events[0].events, 0);
  CHECK_EQ(story.infos[0].code, SI_USER);
  CHECK_EQ(story.infos[0].pid, getpid());
  CHECK_EQ(story.infos[0].uid, getuid());
  turns(loop, 3);
  CHECK_EQ(story.calls, 1);
  close_watcher(watcher);
  CHECK_EQ(turn(loop), 0);
  close_loop(loop);
  (void)by_fd;
}

TEST(standard_signals_are_counted_and_the_last_siginfo_is_delivered) {
  install(SIGUSR1, handle);
  evloop_t loop = new_loop();
  watch(loop, SIGUSR1, record_story, &story);
  for (int i = 0; i < 100; i++) {
    queue_signal(SIGUSR1, i);
    UNTIL(LOAD(handled) == i + 1);
  }
  turn(loop);
  CHECK_EQ(story.calls, 1);
  CHECK_EQ(story.count, 100);
  CHECK_EQ(story.infos[0].code, SI_QUEUE);
  CHECK_EQ(story.infos[0].value_int, 99);
  queue_signal(SIGUSR1, 7);
  UNTIL(LOAD(handled) == 101);
  turn(loop);
  CHECK_EQ(story.events[1].count, 1);
  CHECK_EQ(story.infos[1].value_int, 7);
}

EACH_WAY(real_time_signals_are_an_event_each_in_their_order) {
  int number = SIGRTMIN + 3;
  evloop_t loop = new_loop();
  if (!by_fd) install(number, SIG_IGN);
  add(loop, number, record_story, &story);
  for (int i = 0; i < 300; i++) queue_signal(number, i);
  turns(loop, 3);
  CHECK_EQ(story.calls, 300);
  for (int i = 0; i < 300; i++) {
    CHECK_EQ(story.events[i].count, 1);
    CHECK_EQ(story.infos[i].value_int, i);
    CHECK_EQ(story.infos[i].value_ptr & 0xffffffff, (unsigned)i);
  }
}

TEST(real_time_signals_beyond_the_bound_are_counted_and_said) {
  int number = SIGRTMIN;
  install(number, SIG_IGN);
  evloop_t loop = new_loop();
  evloop_siginfo_t info;
  watch(loop, number, record_story, &story);
  for (int i = 0; i < 600; i++) queue_signal(number, i);
  for (int i = 0; i < 5; i++) turn(loop);
  CHECK_EQ(story.count, 512);
  CHECK_EQ(story.lost, 88);
  CHECK_EQ(story.calls, 513);
  for (int i = 0; i < 512; i++) CHECK_EQ(story.infos[i].value_int, i);
  CHECK_EQ(story.events[512].events, EVLOOP_ERROR);
  CHECK_EQ(story.events[512].result, -EOVERFLOW);
  CHECK_EQ(evloop_event_siginfo(&story.events[512], &info), -EINVAL);
  queue_signal(number, 1000);
  turn(loop);
  CHECK_EQ(story.infos[513].value_int, 1000);
}

EACH_WAY(every_watcher_of_a_signal_gets_each) {
  evloop_t loop = new_loop();
  Seen seen[3];
  memset(seen, 0, sizeof seen);
  for (int i = 0; i < 3; i++) add(loop, SIGUSR1, record, &seen[i]);
  for (int round = 1; round <= 4; round++) {
    OK(kill(getpid(), SIGUSR1));
    turn(loop);
    for (int i = 0; i < 3; i++) CHECK_EQ(seen[i].count, round);
  }
  (void)by_fd;
}

TEST(every_loop_gets_each_by_handlers) {
  install(SIGUSR1, SIG_IGN);
  evloop_t loops[3];
  Seen seen[3];
  memset(seen, 0, sizeof seen);
  for (int i = 0; i < 3; i++) watch(loops[i] = new_loop(), SIGUSR1, record, &seen[i]);
  raise(SIGUSR1);
  raise(SIGUSR1);
  for (int i = 0; i < 3; i++) {
    turn(loops[i]);
    CHECK_EQ(seen[i].calls, 1);
    CHECK_EQ(seen[i].count, 2);
  }
}

/* Several loops watch a signal, each in one of the ways. Some are asleep in
 * threads of their own, which must be woken although another one has read it. */
TEST(every_loop_gets_each_in_whichever_way_it_is_seen) {
  static const struct {
    const char *name;
    int number;
    WatchFunction *ways[3];
  } table[] = {
      {"a standard signal by signalfd", 0, {watch_blocked, watch_blocked, watch_blocked}},
      {"a real-time signal by signalfd", 5, {watch_blocked, watch_blocked, watch_blocked}},
      {"a standard signal both ways", 0, {watch, watch_blocked, watch}},
      {"a real-time signal both ways", 5, {watch_blocked, watch, watch_blocked}},
  };
  for (int i = 0; AT_ROW(i, table); i++) {
    int number = table[i].number == 0 ? SIGUSR1 : SIGRTMIN + table[i].number;
    install(number, SIG_IGN);
    set_blocked(number, SIG_BLOCK);
    Runner runners[2];
    Seen seen[3];
    memset(seen, 0, sizeof seen);
    evloop_t loops[3] = {new_loop(), sleeping_loop(&runners[0]), sleeping_loop(&runners[1])};
    for (int l = 0; l < 3; l++) table[i].ways[l](loops[l], number, record, &seen[l]);
    for (uint64_t round = 1; round <= 20; round++) {
      OK(kill(getpid(), number));
      while (seen[0].count < round) turn(loops[0]);
      for (int l = 1; l < 3; l++) UNTIL(LOAD(seen[l].calls) == (int)round);
      for (int l = 0; l < 3; l++) {
        if (seen[l].count != round) printf("  %s, loop %d\n", table[i].name, l);
        CHECK_EQ(seen[l].count, round);
      }
    }
    for (int l = 0; l < 2; l++) stop_runner(&runners[l]);
    for (int l = 0; l < 3; l++) OK(evloop_close(loops[l]));
    set_blocked(number, SIG_UNBLOCK);
    CHECK(installed(number) == SIG_IGN);
  }
}

/* A watcher has events of the signals that came after it was added, also where
 * another watcher watched the signal before, and from whichever thread it was
 * added. */
static void add_beside_signals_that_wait(bool from_outside) {
  int numbers[] = {SIGUSR1, SIGRTMIN + 3};
  for (int i = 0; AT_ROW(i, numbers); i++) {
    Runner r;
    Gate gate;
    Seen before, after;
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    install(numbers[i], SIG_IGN);
    evloop_t loop = from_outside ? sleeping_loop(&r) : new_loop();
    watch(loop, numbers[i], record, &before);
    if (from_outside) hold(loop, &gate);
    for (int n = 0; n < 5; n++) raise(numbers[i]);
    evloop_watcher_t watcher = watch(loop, numbers[i], record, &after);
    for (int n = 0; n < 3; n++) raise(numbers[i]);
    if (from_outside) {
      open_gate(&gate);
      while (LOAD(before.calls) == 0) go_round(loop);
      for (int n = 0; n < 3; n++) go_round(loop);
    } else {
      turns(loop, 4);
    }
    CHECK_EQ(before.count, 8);
    CHECK_EQ(after.count, 3);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT * from_outside), 0);
    if (from_outside) stop_runner(&r);
    close_loop(loop);
  }
}

TEST(a_watcher_hears_what_comes_after_it_was_added) {
  add_beside_signals_that_wait(false);
}

TEST(a_watcher_that_another_thread_adds_hears_what_comes_after_that) {
  add_beside_signals_that_wait(true);
}

TEST(a_disabled_watcher_keeps_as_many_real_time_signals_as_the_bound) {
  int number = SIGRTMIN + 2;
  Story *stories = (Story *)calloc(2, sizeof *stories);
  CHECK(stories != NULL);
  install(number, SIG_IGN);
  evloop_t loop = new_loop();
  evloop_watcher_t idle = watch(loop, number, record_story, &stories[0]);
  watch(loop, number, record_story, &stories[1]);
  CHECK_EQ(evloop_watcher_disable(idle), 0);
  for (int i = 0; i < 700; i++) {
    queue_signal(number, i);
    if (i % 100 == 99) turn(loop);
  }
  CHECK_EQ(stories[1].count, 700);
  CHECK_EQ(stories[1].lost, 0);
  CHECK_EQ(stories[0].calls, 0);
  CHECK_EQ(evloop_watcher_enable(idle), 0);
  turns(loop, 4);
  CHECK_EQ(stories[0].count, 512);
  CHECK_EQ(stories[0].lost, 188);
  for (int i = 0; i < 512; i++) CHECK_EQ(stories[0].infos[i].value_int, i);
  for (int i = 0; i < 700; i++) CHECK_EQ(stories[1].infos[i].value_int, i);
  close_loop(loop);
  free(stories);
}

/* Closes these in its callback: those before it and those behind it. */
static evloop_watcher_t to_be_closed[8];

static void close_others(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  for (int i = 0; AT_ROW(i, to_be_closed); i++) {
    if (to_be_closed[i] != event->watcher) close_watcher(to_be_closed[i]);
  }
}

EACH_WAY(a_callback_may_close_all_other_watchers_of_the_signal) {
  for (int which = 0; AT_ROW(which, to_be_closed); which++) {
    Seen seen[LENGTH(to_be_closed)];
    memset(seen, 0, sizeof seen);
    evloop_t loop = new_loop();
    for (int i = 0; AT_ROW(i, to_be_closed); i++) {
      to_be_closed[i] = add(loop, SIGUSR1, i == which ? close_others : record, &seen[i]);
    }
    for (int round = 0; round < 2; round++) {
      OK(kill(getpid(), SIGUSR1));
      turn(loop);
      for (int i = 0; AT_ROW(i, to_be_closed); i++) {
        CHECK_EQ(seen[i].calls, i < which ? 1 : i == which ? round + 1 : 0);
      }
      if (round == 0) {
        for (int i = 0; AT_ROW(i, to_be_closed); i++) to_be_closed[i] = to_be_closed[which];
      }
    }
    close_loop(loop);
  }
  (void)by_fd;
}

TEST(the_siginfo_of_a_child_and_of_a_timer) {
  evloop_t loop = new_loop();
  watch(loop, SIGCHLD, record_story, &story);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) _exit(41);
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(story.calls, 1);
  CHECK_EQ(story.infos[0].code, CLD_EXITED);
  CHECK_EQ(story.infos[0].pid, child);
  CHECK_EQ(story.infos[0].status, 41);
  OK(waitpid(child, NULL, 0));
  install(SIGUSR2, SIG_IGN);
  watch(loop, SIGUSR2, record_story, &story);
  struct sigevent how;
  timer_t timer_id;
  struct itimerspec soon = {{0, 0}, {0, 1}};
  memset(&how, 0, sizeof how);
  how.sigev_notify = SIGEV_SIGNAL;
  how.sigev_signo = SIGUSR2;
  how.sigev_value.sival_int = 77;
  OK(timer_create(CLOCK_MONOTONIC, &how, &timer_id));
  OK(timer_settime(timer_id, 0, &soon, NULL));
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(story.calls, 2);
  CHECK_EQ(story.infos[1].code, SI_TIMER);
  CHECK_EQ(story.infos[1].value_int, 77);
  OK(timer_delete(timer_id));
}

/* ---- the program's dispositions ---- */

TEST(the_handler_of_before_runs_and_is_put_back) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = handle_info;
  action.sa_flags = SA_SIGINFO;
  OK(sigaction(SIGUSR1, &action, NULL));
  evloop_t loop = new_loop();
  evloop_watcher_t watchers[2];
  for (int i = 0; i < 2; i++) watchers[i] = watch(loop, SIGUSR1, record_story, &story);
  queue_signal(SIGUSR1, 5);
  UNTIL(LOAD(handled) == 1);
  CHECK_EQ(handled_info.si_value.sival_int, 5);
  turn(loop);
  CHECK_EQ(story.calls, 2);
  close_watcher(watchers[0]);
  CHECK(!has_handle_info(SIGUSR1));
  close_watcher(watchers[1]);
  CHECK(has_handle_info(SIGUSR1));
  raise(SIGUSR1);
  CHECK_EQ(handled, 2);
  turn(loop);
  CHECK_EQ(story.calls, 2);
}

/* The program has put its own action over the library's handler. */
TEST(another_watcher_puts_the_handler_back_over_the_programs) {
  static void (*const actions[])(int) = {SIG_DFL, SIG_IGN, handle};
  static Seen first, second;
  evloop_t loop = new_loop();
  int i;
  OK(evloop_add_signal(loop, SIGUSR1, 0, record, &first));
  for (i = 0; AT_ROW(i, actions); i++) {
    evloop_watcher_t added;
    install(SIGUSR1, actions[i]);
    added = OK(evloop_add_signal(loop, SIGUSR1, 0, record, &second));
    OK(raise(SIGUSR1));
    turn(loop);
    CHECK_EQ(first.calls, i + 1);
    CHECK_EQ(second.calls, i + 1);
    close_watcher(added);
  }
  CHECK_EQ(handled, 1);
}

TEST(closing_the_loop_puts_the_handler_back) {
  install(SIGUSR1, handle);
  evloop_t loop = new_loop();
  watch(loop, SIGUSR1, record, NULL);
  CHECK(installed(SIGUSR1) != handle);
  close_loop(loop);
  CHECK(installed(SIGUSR1) == handle);
}

TEST(the_default_does_not_happen_with_signalfd) {
  evloop_t loop = new_loop();
  watch_blocked(loop, SIGTERM, record_story, &story);
  OK(kill(getpid(), SIGTERM));
  turn(loop);
  CHECK_EQ(story.calls, 1);
}

TEST(a_signal_directed_at_another_thread_is_seen_by_handlers) {
  Runner r;
  install(SIGUSR1, SIG_IGN);
  evloop_t loop = new_loop();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  watch(loop, SIGUSR1, record, &seen);
  evloop_t other = sleeping_loop(&r);
  CHECK_EQ(pthread_kill(r.thread, SIGUSR1), 0);
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(seen.count, 1);
  stop_runner(&r);
  OK(evloop_close(other));
}

TEST(an_ignored_signal_that_is_blocked_is_seen_by_signalfd) {
  install(SIGUSR1, SIG_IGN);
  evloop_t loop = new_loop();
  watch_blocked(loop, SIGUSR1, record_story, &story);
  OK(kill(getpid(), SIGUSR1));
  turn(loop);
  CHECK_EQ(story.calls, 1);
}

/* ---- when it comes ---- */

EACH_WAY(a_signal_before_the_loop_waits_is_not_missed) {
  evloop_t loop = new_loop();
  add(loop, SIGUSR1, record_story, &story);
  OK(kill(getpid(), SIGUSR1));
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(story.calls, 1);
  (void)by_fd;
}

EACH_WAY(a_signal_wakes_a_loop_that_sleeps_in_another_thread) {
  Runner r;
  Seen seen;
  memset(&seen, 0, sizeof seen);
  set_blocked(SIGUSR1, SIG_BLOCK); /* in that thread */
  evloop_t loop = sleeping_loop(&r);
  add(loop, SIGUSR1, record, &seen);
  wait_until_asleep(&r.tid);
  if (!by_fd) set_blocked(SIGUSR1, SIG_UNBLOCK);
  for (int i = 1; i <= 20; i++) {
    OK(kill(getpid(), SIGUSR1));
    UNTIL(LOAD(seen.calls) == i);
  }
  stop_runner(&r);
}

static void raise_in_callback(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
  raise(SIGUSR1);
}

TEST(a_signal_in_a_callback_of_its_loop_comes_in_the_next_iteration) {
  install(SIGUSR1, SIG_IGN);
  evloop_t loop = new_loop();
  watch(loop, SIGUSR1, record_story, &story);
  CHECK_EQ(evloop_post(loop, raise_in_callback, NULL), 0);
  turn(loop);
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(story.calls, 1);
}

EACH_WAY(signals_that_come_while_a_watcher_is_disabled_are_delivered_later) {
  evloop_t loop = new_loop();
  keep_alive(loop);
  evloop_watcher_t watcher = add(loop, SIGUSR1, record_story, &story);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  for (int i = 0; i < 3; i++) {
    OK(kill(getpid(), SIGUSR1));
    turn(loop);
  }
  CHECK_EQ(story.calls, 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  turn(loop);
  CHECK_EQ(story.calls, 1);
  CHECK_EQ(story.count, 3);
  (void)by_fd;
}

TEST(a_rate_limit_adds_up_standard_signals_and_loses_none) {
  install(SIGUSR1, SIG_IGN);
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = watch(loop, SIGUSR1, record_story, &story);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, SECOND, 1), 0);
  for (int i = 0; i < 5; i++) {
    raise(SIGUSR1);
    turn(loop);
  }
  CHECK_EQ(story.calls, 1);
  CHECK_EQ(story.count, 1);
  advance(loop, SECOND);
  turns(loop, 2);
  CHECK_EQ(story.calls, 2);
  CHECK_EQ(story.count, 5);
}

TEST(a_rate_limit_lets_so_many_real_time_signals_through) {
  int number = SIGRTMIN + 1;
  install(number, SIG_IGN);
  evloop_t loop = virtual_loop();
  evloop_watcher_t watcher = watch(loop, number, record_story, &story);
  CHECK_EQ(evloop_watcher_set_ratelimit(watcher, SECOND, 2), 0);
  for (int i = 0; i < 5; i++) queue_signal(number, i);
  for (int done = 2; done <= 6; done += 2) {
    turns(loop, 3);
    CHECK_EQ(story.calls, done > 5 ? 5 : done);
    advance(loop, SECOND);
  }
  for (int i = 0; i < 5; i++) CHECK_EQ(story.infos[i].value_int, i);
}

static evloop_watcher_t victim;

static void disable_victim(const evloop_event_t *event, void *user_data) {
  record(event, user_data);
  CHECK_EQ(evloop_watcher_disable(victim), 0);
}

TEST(a_watcher_that_one_of_a_higher_priority_disables_keeps_its_signals) {
  int number = SIGRTMIN + 1;
  Seen seen;
  memset(&seen, 0, sizeof seen);
  install(number, SIG_IGN);
  evloop_t loop = new_loop();
  victim = watch(loop, number, record_story, &story);
  evloop_watcher_t first = async(loop, disable_victim, &seen);
  CHECK_EQ(evloop_watcher_set_priority(first, 5), 0);
  for (int i = 0; i < 4; i++) queue_signal(number, i);
  trigger(first);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  CHECK_EQ(story.calls, 0);
  CHECK_EQ(evloop_watcher_enable(victim), 0);
  queue_signal(number, 4);
  turn(loop);
  CHECK_EQ(story.calls, 5);
  for (int i = 0; i < 5; i++) CHECK_EQ(story.infos[i].value_int, i);
}

TEST(a_signal_keeps_the_loop_alive_unless_unreferenced) {
  install(SIGUSR1, SIG_IGN);
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = watch(loop, SIGUSR1, ignore, NULL);
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(evloop_watcher_unref(watcher), 0);
  CHECK_EQ(turn(loop), 0);
}

/* ---- records ---- */

EACH_WAY(records_have_their_siginfo_until_the_next_wait) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  evloop_siginfo_t info;
  evloop_watcher_t watcher = add(loop, SIGUSR1, NULL, WORD("w"));
  for (int i = 0; i < 3; i++) {
    OK(kill(getpid(), SIGUSR1));
    turn(loop);
  }
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 1);
  CHECK_EQ(events[0].watcher, watcher);
  CHECK_EQ(events[0].type, EVLOOP_EVENT_SIGNAL);
  CHECK_EQ(events[0].result, SIGUSR1);
  CHECK_EQ(events[0].count, 3);
  memset(&info, 0x5a, sizeof info);
  CHECK_EQ(evloop_event_siginfo(&events[0], &info), 0);
  CHECK_EQ(info.signo, SIGUSR1);
  CHECK_EQ(info.pid, getpid());
  for (int i = 0; AT_ROW(i, info.spare); i++) CHECK_EQ(info.spare[i], 0);
  CHECK_EQ(sizeof info, 128);
  CHECK_EQ(evloop_wait(loop, events + 1, 3, 0), 0);
  CHECK_EQ(evloop_event_siginfo(&events[0], &info), -ENOENT);
  (void)by_fd;
}

TEST(records_of_real_time_signals_are_one_each) {
  int number = SIGRTMIN + 2;
  install(number, SIG_IGN);
  evloop_t loop = new_loop();
  evloop_event_t events[8];
  evloop_siginfo_t info;
  evloop_watcher_t watcher = watch(loop, number, NULL, NULL);
  for (int i = 0; i < 10; i++) queue_signal(number, i);
  int next = 0;
  while (next < 10) {
    int n = (int)OK(evloop_wait(loop, events, 4, -1));
    CHECK(n == 4 || next + n == 10);
    for (int i = 0; i < n; i++) {
      CHECK_EQ(events[i].watcher, watcher);
      CHECK_EQ(events[i].count, 1);
      CHECK_EQ(evloop_event_siginfo(&events[i], &info), 0);
      CHECK_EQ(info.value_int, next++);
    }
  }
  CHECK_EQ(evloop_wait(loop, events, 4, 0), 0);
}

TEST(a_record_of_a_watcher_that_is_disabled_is_taken_back) {
  int number = SIGRTMIN + 2;
  install(number, SIG_IGN);
  evloop_t loop = new_loop();
  evloop_event_t events[8];
  evloop_siginfo_t info;
  evloop_watcher_t watcher = watch(loop, number, NULL, NULL);
  for (int i = 0; i < 3; i++) queue_signal(number, i);
  turn(loop);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_wait(loop, events, 8, 0), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_wait(loop, events, 8, -1), 3);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(evloop_event_siginfo(&events[i], &info), 0);
    CHECK_EQ(info.value_int, i);
  }
  turn(loop);
  queue_signal(number, 9);
  turn(loop);
  close_watcher(watcher);
  CHECK_EQ(evloop_wait(loop, events, 8, 0), 0);
}

/* ---- threads ---- */

typedef struct Pourer {
  int stop; /* atomic */
  int sent;
  int number;
  pthread_t thread;
} Pourer;

static void *pour(void *argument) {
  Pourer *p = (Pourer *)argument;
  while (!LOAD(p->stop)) {
    OK(kill(getpid(), p->number));
    p->sent++;
  }
  return NULL;
}

TEST_TIMEOUT(watchers_are_closed_by_other_threads_while_signals_pour_in, 60) {
  Runner r;
  Pourer pourers[2];
  Seen seen;
  memset(&seen, 0, sizeof seen);
  install(SIGUSR1, handle);
  evloop_t loop = running_loop(&r, false);
  memset(pourers, 0, sizeof pourers);
  for (int i = 0; i < 2; i++) {
    pourers[i].number = SIGUSR1;
    pourers[i].thread = start_thread(pour, &pourers[i]);
  }
  for (int i = 0; i < 200; i++) {
    evloop_watcher_t watcher = watch(loop, SIGUSR1, record, &seen);
    int before = LOAD(seen.calls);
    if (i % 4 == 0) UNTIL(LOAD(seen.calls) > before);
    CHECK_EQ(evloop_watcher_close(watcher, EVLOOP_CLOSE_WAIT), 0);
    int after = LOAD(seen.calls);
    sched_yield();
    CHECK_EQ(LOAD(seen.calls), after);
  }
  for (int i = 0; i < 2; i++) STORE(pourers[i].stop, 1);
  for (int i = 0; i < 2; i++) join(pourers[i].thread);
  go_round(loop);
  CHECK(installed(SIGUSR1) == handle);
  stop_runner(&r);
  close_loop(loop);
}

static void *queue_to_self(void *argument) {
  Pourer *p = (Pourer *)argument;
  for (int i = 0; i < 5000; i++) {
    while (try_to_queue(p->number, i) < 0) CHECK_EQ(errno, EAGAIN);
    p->sent++;
  }
  return NULL;
}

TEST_TIMEOUT(no_real_time_signal_is_lost_unsaid, 60) {
  int number = SIGRTMIN + 4;
  Pourer pourers[3];
  evloop_t loop = new_loop();
  evloop_event_t events[64];
  uint64_t delivered = 0, lost = 0, sent = 0;
  install(number, handle);
  watch(loop, number, NULL, NULL);
  memset(pourers, 0, sizeof pourers);
  for (int i = 0; i < 3; i++) {
    pourers[i].number = number;
    pourers[i].thread = start_thread(queue_to_self, &pourers[i]);
  }
  while (delivered + lost < 15000) {
    int n = (int)OK(evloop_wait(loop, events, 64, -1));
    for (int i = 0; i < n; i++) {
      if ((events[i].events & EVLOOP_ERROR) != 0) lost += events[i].count;
      else delivered += events[i].count;
    }
  }
  for (int i = 0; i < 3; i++) {
    join(pourers[i].thread);
    sent += (uint64_t)pourers[i].sent;
  }
  CHECK_EQ(delivered + lost, sent);
  CHECK_EQ(handled, (int)sent);
  CHECK(delivered >= 512);
  CHECK_EQ(evloop_wait(loop, events, 64, 0), 0);
}

TEST_TIMEOUT(every_run_of_the_handler_is_counted, 60) {
  Pourer p;
  Runner r;
  Seen seen;
  memset(&seen, 0, sizeof seen);
  memset(&p, 0, sizeof p);
  install(SIGUSR1, handle);
  evloop_t loop = running_loop(&r, false);
  watch(loop, SIGUSR1, record, &seen);
  p.number = SIGUSR1;
  p.thread = start_thread(pour, &p);
  UNTIL(LOAD(seen.calls) > 500);
  STORE(p.stop, 1);
  join(p.thread);
  /* The last may not have been handled yet. */
  set_blocked(SIGUSR1, SIG_BLOCK);
  POLL_UNTIL((go_round(loop), (int)seen.count == LOAD(handled)));
  stop_runner(&r);
}

/* ---- fork ---- */

static int child_status(pid_t child) {
  int status;
  OK(waitpid(child, &status, 0));
  CHECK(WIFEXITED(status));
  return WEXITSTATUS(status);
}

TEST(a_forked_child_has_the_handlers_and_not_the_watchers) {
  install(SIGUSR1, handle);
  evloop_t loop = new_loop();
  evloop_watcher_t watcher = watch(loop, SIGUSR1, record_story, &story);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    raise(SIGUSR1);
    CHECK_EQ(handled, 1);
    CHECK_EQ(evloop_run(loop, EVLOOP_RUN_NOWAIT), -ECHILD);
    CHECK_EQ(evloop_add_signal(loop, SIGUSR1, 0, record, NULL), -ECHILD);
    CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
    CHECK_EQ(evloop_close(loop), 0);
    raise(SIGUSR1);
    CHECK_EQ(handled, 2);
    evloop_t mine = new_loop();
    watch(mine, SIGUSR1, record_story, &story);
    raise(SIGUSR1);
    turn(mine);
    CHECK_EQ(story.calls, 1);
    CHECK_EQ(handled, 3);
    _exit(7);
  }
  CHECK_EQ(child_status(child), 7);
  turn(loop);
  CHECK_EQ(story.calls, 0);
  raise(SIGUSR1);
  turn(loop);
  CHECK_EQ(story.calls, 1);
}

EACH_WAY(a_child_that_takes_the_loop_over_hears_its_own_signals) {
  evloop_t loop = new_loop();
  add(loop, SIGUSR1, record_story, &story);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    CHECK_EQ(evloop_after_fork(loop), 0);
    turn(loop);
    CHECK_EQ(story.calls, 0);
    OK(kill(getpid(), SIGUSR1));
    OK(evloop_run(loop, EVLOOP_RUN_ONCE));
    CHECK_EQ(story.calls, 1);
    CHECK_EQ(story.infos[0].pid, getpid());
    close_loop(loop);
    _exit(7);
  }
  CHECK_EQ(child_status(child), 7);
  turn(loop);
  CHECK_EQ(story.calls, 0);
  OK(kill(getpid(), SIGUSR1));
  turn(loop);
  CHECK_EQ(story.calls, 1);
  (void)by_fd;
}

static void close_and_ask(const evloop_event_t *event, void *user_data) {
  evloop_siginfo_t info;
  close_watcher(event->watcher);
  record_story(event, user_data);
  evloop_t other = new_loop();
  watch(other, SIGUSR2, record, NULL); /* may have its place */
  CHECK_EQ(evloop_event_siginfo(event, &info), 0);
  CHECK_EQ(info.pid, getpid());
}

TEST(a_fault_that_is_ignored_ends_the_process_as_without_a_watcher) {
  int status;
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGILL, SIG_IGN);
    evloop_t loop = OK(evloop_create(NULL));
    OK(evloop_add_signal(loop, SIGILL, 0, record_story, NULL));
    /* Sent, it is ignored. */
    raise(SIGILL);
    __builtin_trap();
  }
  CHECK_EQ(waitpid(child, &status, 0), child);
  CHECK(WIFSIGNALED(status));
}

/* ---- control-C ---- */

static int rounds_begun; /* atomic */

static void *interrupt_each_round(void *data) {
  unsigned seed = 1;
  int rounds = *(int *)data;
  set_blocked(SIGINT, SIG_BLOCK);
  for (int round = 1; round <= rounds; round++) {
    while (LOAD(rounds_begun) < round) sched_yield();
    seed = seed * 1103515245 + 12345;
    for (unsigned spins = seed >> 16 & 0x3fff; spins > 0; spins--) __asm__ volatile("");
    OK(kill(getpid(), SIGINT));
  }
  return NULL;
}

/* What a language runtime does: its handler sets a flag, at which it looks
 * when the wait has returned. */
TEST(control_c_at_any_moment_around_the_start_of_a_wait_ends_it) {
  int rounds = 2000;
  pthread_t thread;
  evloop_t loop = new_loop();
  install(SIGINT, handle);
  OK(evloop_add_signal(loop, SIGINT, 0, NULL, NULL));
  CHECK_EQ(pthread_create(&thread, NULL, interrupt_each_round, &rounds), 0);
  for (int round = 1; round <= rounds; round++) {
    evloop_event_t event;
    STORE(rounds_begun, round);
    CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
    CHECK_EQ(event.result, SIGINT);
    CHECK_EQ(LOAD(handled), round);
  }
  CHECK_EQ(pthread_join(thread, NULL), 0);
  close_loop(loop);
}

TEST(a_watcher_is_closed_by_its_own_event) {
  install(SIGUSR1, SIG_IGN);
  evloop_t loop = new_loop();
  Seen seen;
  memset(&seen, 0, sizeof seen);
  watch(loop, SIGUSR1, close_and_ask, &story);
  watch(loop, SIGUSR1, record, &seen);
  for (int i = 0; i < 2; i++) {
    raise(SIGUSR1);
    turns(loop, 2);
  }
  CHECK_EQ(story.calls, 1);
  CHECK_EQ(seen.count, 2);
}

/* ---- what is refused ---- */

TEST(bad_signals_and_flags_are_refused) {
  evloop_t loop = new_loop();
  static const int bad[] = {0, -1, 65, SIGKILL, SIGSTOP, 32, 33, INT32_MAX, INT32_MIN};
  for (int i = 0; AT_ROW(i, bad); i++) {
    CHECK_EQ(evloop_add_signal(loop, bad[i], 0, record, NULL), -EINVAL);
    CHECK_EQ(evloop_add_signal(loop, bad[i], EVLOOP_SIGNAL_FD, record, NULL), -EINVAL);
  }
  CHECK_EQ(evloop_add_signal(loop, SIGUSR1, 4, record, NULL), -EINVAL);
  CHECK_EQ(evloop_add_signal(loop + 1, SIGUSR1, 0, record, NULL), -ESTALE);
  CHECK_EQ(evloop_add_signal(keep_alive(loop), SIGUSR1, 0, record, NULL), -EDOM);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 1);
}

TEST(signalfd_needs_the_signal_to_be_blocked) {
  char text[200];
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_add_signal(loop, SIGUSR1, EVLOOP_SIGNAL_FD, record, NULL), -EBUSY);
  CHECK(evloop_last_error(text, sizeof text) > 0);
  CHECK(strstr(text, "this thread has not blocked signal 10") != NULL);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

TEST(the_siginfo_of_other_events_is_refused) {
  evloop_t loop = new_loop();
  evloop_siginfo_t info;
  evloop_process_t process;
  evloop_event_t event;
  install(SIGUSR1, SIG_IGN);
  evloop_watcher_t watcher = watch(loop, SIGUSR1, NULL, NULL);
  evloop_watcher_t other = async(loop, NULL, NULL);
  trigger(other);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  CHECK_EQ(evloop_event_siginfo(&event, &info), -EINVAL);
  raise(SIGUSR1);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  CHECK_EQ(evloop_event_siginfo(NULL, &info), -EINVAL);
  CHECK_EQ(evloop_event_siginfo(&event, NULL), -EINVAL);
  CHECK_EQ(evloop_event_process(&event, &process), -EINVAL);
  CHECK_EQ(evloop_event_siginfo(&event, &info), 0);
  close_watcher(watcher);
  CHECK_EQ(evloop_event_siginfo(&event, &info), -ESTALE);
}

TEST(without_descriptors_signalfd_is_refused_and_handlers_are_not) {
  leave_room_for_checkers();
  evloop_t loop = new_loop();
  set_blocked(SIGUSR2, SIG_BLOCK);
  install(SIGUSR1, SIG_IGN);
  int spare[4];
  for (int i = 0; i < 4; i++) spare[i] = (int)OK(dup(0));
  set_limit((rlim_t)spare[3] + 1);
  CHECK_EQ(evloop_add_signal(loop, SIGUSR2, EVLOOP_SIGNAL_FD, record, NULL), -EMFILE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
  watch(loop, SIGUSR1, record_story, &story);
  raise(SIGUSR1);
  turn(loop);
  CHECK_EQ(story.calls, 1);
  for (int i = 0; i < 4; i++) OK(close(spare[i]));
}

TEST(signalfds_are_one_for_each_loop_and_go_with_the_last_watcher) {
  evloop_t loop = new_loop();
  int before = open_descriptors();
  evloop_watcher_t watchers[4];
  for (int i = 0; i < 4; i++) watchers[i] = watch_blocked(loop, SIGUSR1 + 2 * (i % 2), record,
                                                          NULL);
  CHECK_EQ(open_descriptors(), before + 1);
  for (int i = 0; i < 4; i++) close_watcher(watchers[i]);
  CHECK_EQ(open_descriptors(), before);
}

CHECK_MAIN()
