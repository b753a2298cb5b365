/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "loop_support.h"

evloop_t new_loop(void) {
  return OK(evloop_create(NULL));
}

evloop_t loop_with(uint32_t flags) {
  evloop_options_t options;
  memset(&options, 0, sizeof options);
  options.size = sizeof options;
  options.flags = flags;
  return OK(evloop_create(&options));
}

evloop_t virtual_loop(void) {
  return loop_with(EVLOOP_VIRTUAL_TIME);
}

evloop_t jumping_loop(void) {
  return loop_with(EVLOOP_VIRTUAL_TIME | EVLOOP_AUTO_ADVANCE);
}

int turn(evloop_t loop) {
  return (int)OK(evloop_run(loop, EVLOOP_RUN_NOWAIT));
}

void turns(evloop_t loop, int n) {
  while (n-- > 0) turn(loop);
}

void run_to_end(evloop_t loop) {
  CHECK_EQ(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE), 0);
}

void advance(evloop_t loop, int64_t ns) {
  CHECK_EQ(evloop_advance_ns(loop, ns), 0);
}

void close_watcher(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
}

void close_loop(evloop_t loop) {
  CHECK_EQ(evloop_close(loop), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_LOOP), 0);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

void record(const evloop_event_t *event, void *user_data) {
  Seen *seen = (Seen *)user_data;
  seen->count += event->count;
  seen->last = *event;
  seen->user_data = user_data;
  if ((event->events & EVLOOP_ERROR) != 0) seen->errors++;
  RAISE(seen->calls, 1);
}

void record_and_take(const evloop_event_t *event, void *user_data) {
  char byte;
  if ((event->events & EVLOOP_ERROR) == 0) CHECK_EQ(read(event->fd, &byte, 1), 1);
  record(event, user_data);
}

void record_and_close(const evloop_event_t *event, void *user_data) {
  close_watcher(event->watcher);
  record(event, user_data);
}

void expect_plain(const evloop_event_t *event, int64_t watcher, int type, const void *data) {
  CHECK_EQ(event->watcher, watcher);
  CHECK_EQ(event->type, type);
  CHECK_EQ(event->data, (uintptr_t)data);
  CHECK_EQ(event->events, 0);
  CHECK_EQ(event->fd, -1);
  CHECK_EQ(event->result, 0);
  CHECK_EQ(event->count, 1);
  CHECK_EQ(event->time_ns, 0);
  CHECK_EQ(event->deadline_ns, 0);
  CHECK_EQ(event->reserved, 0);
}

char event_log[4096];

void log_word(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  CHECK(strlen(event_log) + strlen((const char *)user_data) < sizeof event_log);
  strcat(event_log, (const char *)user_data);
}

void log_char(char c) {
  char word[2] = {c, '\0'};
  CHECK(strlen(event_log) + 1 < sizeof event_log);
  strcat(event_log, word);
}

void log_first_char(const evloop_event_t *event, void *user_data) {
  CHECK(event != NULL);
  log_char(*(const char *)user_data);
}

void check_log(const char *file, int line, const char *expected) {
  if (strcmp(event_log, expected) != 0) {
    printf("  %s:%d: failed: logged '%s', not '%s'\n", file, line, event_log, expected);
    check_exit();
  }
  event_log[0] = '\0';
}

void ignore(const evloop_event_t *event, void *user_data) {
  (void)event;
  (void)user_data;
}

void *as_data(int64_t number) {
  return (void *)(intptr_t)number;
}

void stop_loop(const evloop_event_t *event, void *user_data) {
  (void)event;
  CHECK_EQ(evloop_stop((evloop_t)(intptr_t)user_data), 0);
}

void stay(const evloop_event_t *event, void *user_data) {
  Gate *gate = (Gate *)user_data;
  (void)event;
  RAISE(gate->entered, 1);
  UNTIL(LOAD(gate->open));
}

void hold(evloop_t loop, Gate *gate) {
  memset(gate, 0, sizeof *gate);
  CHECK_EQ(evloop_post(loop, stay, gate), 0);
  UNTIL(LOAD(gate->entered));
}

void open_gate(Gate *gate) {
  STORE(gate->open, 1);
}

evloop_watcher_t timer(evloop_t loop, int64_t initial_ns, int64_t interval_ns,
                       evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_timer(loop, MONOTONIC, 0, initial_ns, interval_ns, 0, callback, user_data));
}

evloop_watcher_t timer_at(evloop_t loop, int64_t due_ns, evloop_callback_t callback,
                          void *user_data) {
  return OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, due_ns, 0, 0, callback,
                             user_data));
}

evloop_watcher_t readable_io(evloop_t loop, int fd, evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, callback, user_data));
}

evloop_watcher_t async(evloop_t loop, evloop_callback_t callback, void *user_data) {
  return OK(evloop_add_async(loop, callback, user_data));
}

evloop_watcher_t keep_alive(evloop_t loop) {
  return async(loop, log_word, WORD("!"));
}

void count_iterations(evloop_t loop, Seen *seen) {
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_prepare(loop, record, seen))), 0);
}

void set_timer(evloop_watcher_t watcher, int64_t initial_ns, int64_t interval_ns) {
  CHECK_EQ(evloop_timer_set(watcher, 0, initial_ns, interval_ns), 0);
}

void trigger(evloop_watcher_t watcher) {
  CHECK_EQ(evloop_async_send(watcher), 0);
}

uint64_t next_random(uint64_t *state) {
  uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

int64_t random_below(uint64_t *state, int64_t limit) {
  return (int64_t)(next_random(state) % (uint64_t)limit);
}

int64_t run_until_done(evloop_t loop) {
  return evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
}

int64_t run_once(evloop_t loop) {
  return evloop_run(loop, EVLOOP_RUN_ONCE);
}

int64_t run_nowait(evloop_t loop) {
  return evloop_run(loop, EVLOOP_RUN_NOWAIT);
}

int64_t run_without_limit(evloop_t loop) {
  return evloop_run_for_ns(loop, -1);
}

int64_t wait_for_events(evloop_t loop) {
  evloop_event_t events[4];
  return evloop_wait(loop, events, LENGTH(events), -1);
}

int64_t embed_prepare(evloop_t loop) {
  return evloop_embed_prepare(loop);
}

int64_t embed_dispatch(evloop_t loop) {
  return evloop_embed_dispatch(loop);
}

pthread_t start_thread(void *(*main_of)(void *), void *argument) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, main_of, argument), 0);
  return thread;
}

void join(pthread_t thread) {
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void *runner_main(void *argument) {
  Runner *r = (Runner *)argument;
  store_tid(&r->tid);
  r->result = r->run(r->loop);
  return NULL;
}

void start_runner(Runner *r, RunFunction *run, evloop_t loop) {
  memset(r, 0, sizeof *r);
  r->run = run;
  r->loop = loop;
  r->thread = start_thread(runner_main, r);
}

void start_sleeper(Runner *r, RunFunction *run, evloop_t loop) {
  start_runner(r, run, loop);
  wait_until_asleep(&r->tid);
}

int64_t runner_result(Runner *r) {
  join(r->thread);
  return r->result;
}

void stop_runner(Runner *r) {
  CHECK_EQ(evloop_stop(r->loop), 0);
  CHECK_EQ(runner_result(r), 1);
}

evloop_t running_loop(Runner *r, bool busy) {
  evloop_t loop = new_loop();
  if (busy) OK(evloop_add_idle(loop, ignore, NULL));
  else keep_alive(loop);
  start_runner(r, run_until_done, loop);
  return loop;
}

evloop_t sleeping_loop(Runner *r) {
  evloop_t loop = running_loop(r, false);
  wait_until_asleep(&r->tid);
  return loop;
}

void go_round(evloop_t loop) {
  Seen fence;
  int i;
  memset(&fence, 0, sizeof fence);
  for (i = 1; i <= 2; i++) {
    CHECK_EQ(evloop_post(loop, record, &fence), 0);
    UNTIL(LOAD(fence.calls) == i);
  }
}
