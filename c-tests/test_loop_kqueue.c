/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A kqueue in an event loop. */

#define _GNU_SOURCE
#include "loop_support.h"

static void change_user(evloop_kqueue_t kq, int flags, uint32_t fflags) {
  evloop_kevent_t change;
  memset(&change, 0, sizeof change);
  change.ident = 7;
  change.filter = EVLOOP_KQ_FILTER_USER;
  change.flags = (uint16_t)flags;
  change.fflags = fflags;
  CHECK_EQ(evloop_kqueue_control(kq, &change, 1, NULL, 0, 0), 0);
}

static evloop_kqueue_t new_user_queue(void) {
  evloop_kqueue_t kq = OK(evloop_kqueue_create(0));
  change_user(kq, EVLOOP_KQ_EV_ADD | EVLOOP_KQ_EV_CLEAR, 0);
  return kq;
}

static void trigger_user(evloop_kqueue_t kq) {
  change_user(kq, 0, EVLOOP_KQ_NOTE_TRIGGER);
}

typedef struct Queue {
  evloop_kqueue_t kq;
  int calls, events;
  bool leaves_them;
} Queue;

static void take_events(const evloop_event_t *event, void *user_data) {
  Queue *queue = (Queue *)user_data;
  evloop_kevent_t taken[4];
  CHECK_EQ(event->type, EVLOOP_EVENT_KQUEUE);
  CHECK_EQ(event->events, 0);
  CHECK_EQ(event->fd, -1);
  queue->calls++;
  if (queue->leaves_them) return;
  int n = OK(evloop_kqueue_control(queue->kq, NULL, 0, taken, 4, 0));
  CHECK_EQ(n, 1);
  CHECK_EQ(taken[0].ident, 7);
  queue->events += n;
}

TEST(the_events_of_a_kqueue_come_through_a_loop) {
  evloop_t loop = new_loop();
  Queue queue = {.kq = new_user_queue()};
  evloop_watcher_t watcher = OK(evloop_add_kqueue(loop, queue.kq, take_events, &queue));
  CHECK_EQ(turn(loop), 1);
  CHECK_EQ(queue.calls, 0);
  trigger_user(queue.kq);
  turn(loop);
  turn(loop);
  CHECK_EQ(queue.calls, 1);
  CHECK_EQ(queue.events, 1);
  CHECK_EQ(evloop_watcher_close(watcher, 0), 0);
  trigger_user(queue.kq);
  turn(loop);
  CHECK_EQ(queue.calls, 1);
  OK(evloop_kqueue_close(queue.kq));
}

TEST(events_that_are_not_taken_are_reported_again) {
  evloop_t loop = new_loop();
  Queue queue = {.kq = new_user_queue(), .leaves_them = true};
  OK(evloop_add_kqueue(loop, queue.kq, take_events, &queue));
  trigger_user(queue.kq);
  turn(loop);
  turn(loop);
  CHECK_EQ(queue.calls, 2);
  queue.leaves_them = false;
  turn(loop);
  turn(loop);
  CHECK_EQ(queue.calls, 3);
}

TEST(a_kqueue_that_is_closed_is_one_error) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  evloop_kqueue_t kq = new_user_queue();
  evloop_watcher_t watcher = OK(evloop_add_kqueue(loop, kq, NULL, NULL));
  OK(evloop_kqueue_close(kq));
  CHECK_EQ(evloop_wait(loop, &event, 1, 20 * SECOND), 1);
  CHECK_EQ(event.watcher, watcher);
  CHECK_EQ(event.type, EVLOOP_EVENT_KQUEUE);
  CHECK_EQ(event.events, EVLOOP_ERROR);
  CHECK_EQ(event.result, -ESTALE);
  CHECK_EQ(evloop_wait(loop, &event, 1, 0), 0);
}

static void *close_queue(void *argument) {
  OK(evloop_kqueue_close(*(evloop_kqueue_t *)argument));
  return NULL;
}

TEST(a_waiting_loop_reports_a_kqueue_that_another_thread_closes) {
  evloop_t loop = new_loop();
  evloop_event_t event;
  evloop_kqueue_t kq = new_user_queue();
  pthread_t thread;
  OK(evloop_add_kqueue(loop, kq, NULL, NULL));
  CHECK_EQ(pthread_create(&thread, NULL, close_queue, &kq), 0);
  CHECK_EQ(evloop_wait(loop, &event, 1, -1), 1);
  CHECK_EQ(event.result, -ESTALE);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void *trigger_queue(void *argument) {
  trigger_user(*(evloop_kqueue_t *)argument);
  return NULL;
}

TEST(a_loop_that_waits_is_woken_by_a_kqueue) {
  evloop_t loop = new_loop();
  Queue queue = {.kq = new_user_queue()};
  pthread_t thread;
  OK(evloop_add_kqueue(loop, queue.kq, take_events, &queue));
  CHECK_EQ(pthread_create(&thread, NULL, trigger_queue, &queue.kq), 0);
  OK(evloop_run(loop, EVLOOP_RUN_ONCE));
  CHECK_EQ(queue.events, 1);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(a_record_of_a_kqueue_is_one_until_it_was_taken) {
  evloop_t loop = new_loop();
  evloop_event_t events[4];
  evloop_kqueue_t kq = new_user_queue();
  evloop_watcher_t watcher = OK(evloop_add_kqueue(loop, kq, NULL, NULL));
  trigger_user(kq);
  CHECK_EQ(evloop_wait(loop, events, 4, -1), 1);
  CHECK_EQ(events[0].watcher, watcher);
  CHECK_EQ(evloop_watcher_disable(watcher), 0);
  CHECK_EQ(evloop_wait(loop, events, 4, 0), 0);
  CHECK_EQ(evloop_watcher_enable(watcher), 0);
  CHECK_EQ(evloop_wait(loop, events, 4, 0), 1);
}

TEST(what_is_no_kqueue_is_refused) {
  evloop_t loop = new_loop();
  evloop_kqueue_t kq = new_user_queue();
  CHECK_EQ(evloop_add_kqueue(loop, loop, record, NULL), -EDOM);
  CHECK_EQ(evloop_add_kqueue(kq, kq, record, NULL), -EDOM);
  OK(evloop_kqueue_close(kq));
  CHECK_EQ(evloop_add_kqueue(loop, kq, record, NULL), -ESTALE);
  CHECK_EQ(evloop_handle_count(EVLOOP_KIND_WATCHER), 0);
}

CHECK_MAIN()
