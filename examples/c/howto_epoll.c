/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Three timers and a TCP server in one epoll loop: the second program of
 * Python's timer file descriptor HOWTO.
 *
 *   howto_epoll [PORT]      the default is 1234; 0 picks a free port
 *
 * In another terminal "telnet 127.0.0.1 1234", and type "stop" to end it.
 *
 * What it does otherwise than the HOWTO's version, which
 *  - knows one connection: a second client takes the first one's place, whose
 *    socket is forgotten. Here each client has its entry, and is unregistered
 *    and closed when it hangs up. The clients that are left at the end are
 *    closed too, as is the listening socket;
 *  - takes what one recv() returns for one command, so that "st" and "op" in
 *    two segments are two unknown commands. howto.h collects whole commands;
 *  - does not answer. Here unknown commands are answered as well as printed;
 *  - takes the wall clock for durations. Here it is the monotonic one.
 */

#define _GNU_SOURCE /* accept4 */

#include "howto.h"

#include <inttypes.h>

enum { TIMERS = 3 };

/* 0.25 s, 0.5 s and 0.75 s, in nanoseconds. */
static const int64_t periods[TIMERS] = {250000000, 500000000, 750000000};

/* The data that epoll hands back says what is ready: 0 to 2 a timer, then the
 * listening socket, then the clients. */
enum { LISTENER = TIMERS, FIRST_CLIENT };

int main(int argc, char **argv)
{
  long port = port_argument(argc, argv);
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  evloop_epoll_t ep = must(evloop_epoll_create(0));

  int listener = listen_and_say(port);
  must(evloop_epoll_register(ep, listener, EVLOOP_EPOLLIN, LISTENER));

  struct client clients[CLIENTS];
  for (int i = 0; i < CLIENTS; i++)
    clients[i].fd = -1;

  /* A timer is readable from its expiration until it is read. It is watched
   * through its descriptor, which the handle only lends. */
  tfd_t timers[TIMERS];
  uint64_t totals[TIMERS] = {0};
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < TIMERS; i++) {
    timers[i] = must(tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
    must(tfd_settime_ns(timers[i], 0, periods[i], periods[i], NULL, NULL));
    int fd = (int)must(tfd_fileno(timers[i]));
    must(evloop_epoll_register(ep, fd, EVLOOP_EPOLLIN, (uint64_t)i));
  }

  bool stopping = false;
  while (!stopping) {
    /* Several timers may expire at once: after 1.5 s it is all three. More
     * than fit into the array are reported by the next call. */
    evloop_ready_t ready[8];
    int n = (int)must(evloop_epoll_wait(ep, ready, 8, -1));

    for (int i = 0; i < n && !stopping; i++) {
      uint64_t who = ready[i].data;

      if (who < TIMERS) {
        uint64_t expirations;
        must(tfd_read(timers[who], &expirations));
        totals[who] += expirations;
        printf("timer %.2f s: %" PRIu64 " new, %" PRIu64 " in all\n",
               (double)periods[who] / 1e9, expirations, totals[who]);

      } else if (who == LISTENER) {
        struct client *c = accept_client(listener, clients);
        if (c != NULL)
          must(evloop_epoll_register(ep, c->fd, EVLOOP_EPOLLIN,
                                     FIRST_CLIENT + (uint64_t)(c - clients)));

      } else {
        /* Hang-ups and errors are reported here too, without being asked
         * for; reading distinguishes them. */
        struct client *c = &clients[who - FIRST_CLIENT];
        enum outcome outcome = serve(c);
        if (outcome == GONE) {
          must(evloop_epoll_unregister(ep, c->fd)); /* before close() */
          close_client(c);
        }
        stopping = outcome == SAID_STOP;
      }
    }
  }

  printf("stopped after %.6f s\n", seconds_since(&start));
  for (int i = 0; i < TIMERS; i++) {
    printf("timer %.2f s: total %" PRIu64 "\n",
           (double)periods[i] / 1e9, totals[i]);
    must(tfd_close(timers[i]));
  }
  must(evloop_epoll_close(ep));
  for (int i = 0; i < CLIENTS; i++)
    if (clients[i].fd >= 0)
      close_client(&clients[i]);
  close(listener);
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
