/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Three timers and a TCP server in one select loop: the third program of
 * Python's timer file descriptor HOWTO.
 *
 *   howto_select [PORT]     the default is 1234; 0 picks a free port
 *
 * In another terminal "telnet 127.0.0.1 1234", and type "stop" to end it.
 *
 * What it does otherwise than the HOWTO's version, which
 *  - selects for writing too. A connection can nearly always be written to,
 *    so that select never waits again once a client is there, and the program
 *    takes a whole processor. Here it watches for reading only;
 *  - knows one connection: with a second client the first one is never read
 *    again, nor closed, but stays in the list and is ready for ever once it
 *    sends something. Here each client has its entry, and the clients that are
 *    left at the end are closed;
 *  - takes what one recv() returns for one command, so that "st" and "op" in
 *    two segments are two unknown commands. howto.h collects whole commands;
 *  - does not answer. Here unknown commands are answered as well as printed;
 *  - takes the wall clock for durations. Here it is the monotonic one.
 */

#define _GNU_SOURCE /* accept4 */

#include "howto.h"

#include <inttypes.h>

enum { TIMERS = 3 };

/* 0.25 s, 0.5 s and 0.75 s, as tfd_settime() takes them. */
static const double periods[TIMERS] = {0.25, 0.5, 0.75};

int main(int argc, char **argv)
{
  long port = port_argument(argc, argv);
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  int listener = listen_and_say(port);

  struct client clients[CLIENTS];
  for (int i = 0; i < CLIENTS; i++)
    clients[i].fd = -1;

  tfd_t timers[TIMERS];
  int timer_fds[TIMERS];
  uint64_t totals[TIMERS] = {0};
  struct timespec start;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (int i = 0; i < TIMERS; i++) {
    timers[i] = must(tfd_create(EVLOOP_CLOCK_MONOTONIC, EVLOOP_TFD_NONBLOCK));
    timer_fds[i] = (int)must(tfd_fileno(timers[i]));
    must(tfd_settime(timers[i], 0, periods[i], periods[i], NULL, NULL));
  }

  bool stopping = false;
  while (!stopping) {
    /* evloop_select() cuts the list down to what is ready, so it is filled
     * again each time. It is an array of descriptors, no fd_set: it may have
     * descriptors of 1024 and above. */
    int list[TIMERS + 1 + CLIENTS];
    int n = 0;
    for (int i = 0; i < TIMERS; i++)
      list[n++] = timer_fds[i];
    list[n++] = listener;
    for (int i = 0; i < CLIENTS; i++)
      if (clients[i].fd >= 0)
        list[n++] = clients[i].fd;

    must(evloop_select(list, &n, NULL, NULL, NULL, NULL, -1));

    /* The order of the list is kept, the listening socket before the clients:
     * a client accepted now cannot be taken for one that is in the list and
     * closed later in this round, whose number it might get. */
    for (int i = 0; i < n && !stopping; i++) {
      if (list[i] == listener) {
        accept_client(listener, clients);
        continue;
      }
      for (int t = 0; t < TIMERS; t++) {
        if (list[i] == timer_fds[t]) {
          uint64_t expirations;
          must(tfd_read(timers[t], &expirations));
          totals[t] += expirations;
          printf("timer %.2f s: %" PRIu64 " new, %" PRIu64 " in all\n",
                 periods[t], expirations, totals[t]);
        }
      }
      for (int c = 0; c < CLIENTS; c++) {
        if (list[i] == clients[c].fd) {
          enum outcome outcome = serve(&clients[c]);
          if (outcome == GONE)
            close_client(&clients[c]);
          stopping = outcome == SAID_STOP;
          break;
        }
      }
    }
  }

  printf("stopped after %.6f s\n", seconds_since(&start));
  for (int i = 0; i < TIMERS; i++) {
    printf("timer %.2f s: total %" PRIu64 "\n", periods[i], totals[i]);
    must(tfd_close(timers[i]));
  }
  for (int i = 0; i < CLIENTS; i++)
    if (clients[i].fd >= 0)
      close_client(&clients[i]);
  close(listener);
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
