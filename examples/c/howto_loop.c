/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Three timers and a TCP server on the event loop: the second program of
 * Python's timer file descriptor HOWTO, as howto_epoll.c has it.
 *
 *   howto_loop [PORT]       the default is 1234; 0 picks a free port
 *
 * In another terminal "telnet 127.0.0.1 1234", and type "stop" to end it.
 *
 * It says and does what howto_epoll.c does; what it differs in from the
 * HOWTO's version is listed there. Here the program has no loop of its own,
 * and no numbers by which it distinguishes events: each watcher is added with
 * the callback for its events. The timers need no descriptor each.
 */

#define _GNU_SOURCE /* accept4 */

#include "howto.h"

#include <inttypes.h>

enum { TIMERS = 3 };

struct timer {
  int64_t period_ns;
  uint64_t total;
};

static void on_timer(const evloop_event_t *event, void *user_data)
{
  struct timer *timer = user_data;
  timer->total += event->count; /* more than 1 if it was kept from running */
  printf("timer %.2f s: %" PRIu64 " new, %" PRIu64 " in all\n",
         (double)timer->period_ns / 1e9, event->count, timer->total);
}

static void on_client(const evloop_event_t *event, void *user_data)
{
  struct client *c = user_data;
  must_be_watched(event);
  enum outcome outcome = serve(c);
  if (outcome == GONE) {
    /* Before close(), and allowed although this is its own callback. No
     * event of the old client can arrive after this, so that its entry may
     * have a new one at once. */
    must(evloop_watcher_close(event->watcher, 0));
    close_client(c);
  } else if (outcome == SAID_STOP) {
    /* Who is ready in the same iteration is still served, then evloop_run()
     * returns. */
    must(evloop_stop(evloop_watcher_loop(event->watcher)));
  }
}

static void on_connection(const evloop_event_t *event, void *user_data)
{
  must_be_watched(event);
  struct client *c = accept_client(event->fd, user_data);
  if (c != NULL)
    must(evloop_add_io(evloop_watcher_loop(event->watcher), c->fd,
                       EVLOOP_EPOLLIN, on_client, c));
}

int main(int argc, char **argv)
{
  long port = port_argument(argc, argv);
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  evloop_t loop = must(evloop_create(NULL));

  struct client clients[CLIENTS];
  for (int i = 0; i < CLIENTS; i++)
    clients[i].fd = -1;
  int listener = listen_and_say(port);
  must(evloop_add_io(loop, listener, EVLOOP_EPOLLIN, on_connection, clients));

  struct timer timers[TIMERS] = {
      {.period_ns = 250000000}, {.period_ns = 500000000},
      {.period_ns = 750000000}};
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < TIMERS; i++)
    must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0,
                          timers[i].period_ns, timers[i].period_ns, 0,
                          on_timer, &timers[i]));

  /* Runs until evloop_stop(): there is always something to wait for. */
  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));

  printf("stopped after %.6f s\n", seconds_since(&start));
  for (int i = 0; i < TIMERS; i++)
    printf("timer %.2f s: total %" PRIu64 "\n",
           (double)timers[i].period_ns / 1e9, timers[i].total);
  must(evloop_close(loop)); /* and all its watchers */
  for (int i = 0; i < CLIENTS; i++)
    if (clients[i].fd >= 0)
      close_client(&clients[i]);
  close(listener);
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
