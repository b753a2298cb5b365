/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A server with an event loop for each processor, each in its own thread.
 *
 *   threads_server [PORT [THREADS]]      the defaults are 0, any free port,
 *                                        and one thread for each processor,
 *                                        but at least two
 *
 * It writes to each client which thread serves it, and then reads from it
 * until it hangs up. SIGTERM or control-C ends the server: it accepts no more
 * clients, and those that are connected have one second to hang up.
 *
 * The threads share nothing and need no lock. Each has a listening socket of
 * its own for the same port (SO_REUSEPORT), among which the kernel spreads
 * the connections; who accepts a connection serves it to its end. The main
 * thread talks to the others only through evloop_async_send() and
 * evloop_stop(), which may be called from any thread.
 */

#define _GNU_SOURCE /* accept4 */

#include "listen.h"
#include "must.h"

#include <errno.h>
#include <evloop.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_THREADS = 64 };

static const int64_t GRACE_NS = 1000000000;

struct worker {
  int number; /* for the messages */
  pthread_t thread;
  evloop_t loop;
  evloop_watcher_t listener, quit;
  int listening_fd;
  /* Only its own thread counts; main() looks when that has ended. */
  int64_t connections, cut_off;
};

/* As must_sys(), for pthread functions, which return their error number. */
static void must_pthread(int error, const char *what)
{
  if (error != 0) {
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(1);
  }
}

/* ---- in the threads ---- */

/* The watcher is closed: by on_client(), or at the end by evloop_close(). */
static void on_closed(const evloop_event_t *event, void *user_data)
{
  (void)event;
  close((int)(intptr_t)user_data);
}

static void on_client(const evloop_event_t *event, void *user_data)
{
  char ignored[4096];
  (void)user_data;
  if (!(event->events & EVLOOP_ERROR)) {
    ssize_t n = recv(event->fd, ignored, sizeof ignored, 0);
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR)))
      return;
  }
  must(evloop_watcher_close(event->watcher, 0)); /* on_closed() follows */
}

static void serve(struct worker *w, int fd)
{
  char greeting[64];
  int length = snprintf(greeting, sizeof greeting, "served by thread %d\n",
                        w->number);
  /* A new connection has room for this much. */
  if (send(fd, greeting, (size_t)length, MSG_NOSIGNAL) != length) {
    close(fd);
    return;
  }
  evloop_watcher_t client = must(evloop_add_io(w->loop, fd, EVLOOP_EPOLLIN,
                                               on_client, w));
  must(evloop_watcher_set_destroy(client, on_closed, (void *)(intptr_t)fd));
  w->connections++;
}

static void accept_all(struct worker *w)
{
  for (;;) {
    int fd = accept4(w->listening_fd, NULL, NULL,
                     SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
      serve(w, fd);
    else if (errno == EAGAIN)
      return;
    else if (errno != EINTR && errno != ECONNABORTED)
      must_sys(fd, "accept4"); /* echo_server.c survives EMFILE */
  }
}

static void on_connections(const evloop_event_t *event, void *user_data)
{
  must_be_watched(event);
  accept_all(user_data);
}

static void on_grace_over(const evloop_event_t *event, void *user_data)
{
  struct worker *w = user_data;
  (void)event;
  w->cut_off = 1;
  must(evloop_stop(w->loop));
}

/* main() asks this thread to come to an end. Without these two watchers only
 * the clients keep the loop alive: evloop_run() returns when the last of them
 * has left. */
static void on_quit(const evloop_event_t *event, void *user_data)
{
  struct worker *w = user_data;
  accept_all(w); /* who is in the queue would be reset */
  must(evloop_watcher_close(w->listener, 0));
  close(w->listening_fd);
  must(evloop_watcher_close(event->watcher, 0));

  evloop_watcher_t grace =
      must(evloop_add_timer(w->loop, EVLOOP_CLOCK_MONOTONIC, 0, GRACE_NS, 0,
                            0, on_grace_over, w));
  must(evloop_watcher_unref(grace)); /* it need not be waited for */
}

static void *run(void *argument)
{
  struct worker *w = argument;
  must(evloop_run(w->loop, EVLOOP_RUN_UNTIL_DONE));
  must(evloop_close(w->loop)); /* on_closed() for the clients that stayed */
  return NULL;
}

/* ---- in the main thread ---- */

static void prepare(struct worker *w, int number, uint16_t *port)
{
  w->number = number;
  w->connections = w->cut_off = 0;
  /* The first one finds the port, if it is 0, for the others to join in. */
  w->listening_fd = listen_on(port, SO_REUSEPORT);
  /* A loop may be made in one thread and run in another. */
  w->loop = must(evloop_create(NULL));
  w->listener = must(evloop_add_io(w->loop, w->listening_fd, EVLOOP_EPOLLIN,
                                   on_connections, w));
  w->quit = must(evloop_add_async(w->loop, on_quit, w));
}

static long number_argument(int argc, char **argv, int which, long otherwise,
                            long least, long most)
{
  if (argc <= which)
    return otherwise;
  char *end;
  long number = strtol(argv[which], &end, 10);
  if (argc > 3 || end == argv[which] || *end != '\0' || number < least ||
      number > most) {
    fprintf(stderr, "usage: %s [PORT [THREADS]]  (default 0: any free one, "
                    "and one for each processor)\n", argv[0]);
    exit(2);
  }
  return number;
}

int main(int argc, char **argv)
{
  long processors = sysconf(_SC_NPROCESSORS_ONLN);
  if (processors < 2)
    processors = 2;
  if (processors > MOST_THREADS)
    processors = MOST_THREADS;
  uint16_t port = (uint16_t)number_argument(argc, argv, 1, 0, 0, 65535);
  int threads =
      (int)number_argument(argc, argv, 2, processors, 1, MOST_THREADS);
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  /* Blocked here, so in the threads too: main() waits for them below. */
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  must_pthread(pthread_sigmask(SIG_BLOCK, &signals, NULL), "pthread_sigmask");

  static struct worker workers[MOST_THREADS];
  for (int i = 0; i < threads; i++)
    prepare(&workers[i], i + 1, &port);
  int started = 0, error = 0;
  while (started < threads && error == 0) {
    error = pthread_create(&workers[started].thread, NULL, run,
                           &workers[started]);
    started += error == 0;
  }
  if (error == 0) {
    printf("listening on 127.0.0.1:%d, %d threads\n", port, threads);
    int number;
    must_pthread(sigwait(&signals, &number), "sigwait");
    printf("stopping\n");
    for (int i = 0; i < threads; i++)
      must(evloop_async_send(workers[i].quit));
  } else {
    /* Not even all threads: those that are there end at once, which they do
     * even if they have not begun to run their loops yet. */
    for (int i = 0; i < started; i++)
      must(evloop_stop(workers[i].loop));
  }

  int64_t connections = 0;
  for (int i = 0; i < started; i++) {
    must_pthread(pthread_join(workers[i].thread, NULL), "pthread_join");
    printf("thread %d: %" PRId64 " connections%s\n", workers[i].number,
           workers[i].connections,
           workers[i].cut_off ? ", some cut off at the end" : "");
    connections += workers[i].connections;
  }
  must_pthread(error, "pthread_create");
  printf("%" PRId64 " connections in all\n", connections);
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
