/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * An echo server for thousands of connections, which closes a connection that
 * is idle for a while.
 *
 *   echo_server [PORT [IDLE_SECONDS]]      the defaults are 0, any free port,
 *                                          and 60
 *
 * A line "shutdown" on its standard input ends it, as SIGTERM and control-C
 * do. It then says what it has done.
 *
 * How it keeps its memory and its peers' patience in bounds:
 *  - what a peer does not take is kept, and nothing more is read from that
 *    peer until it was taken. TCP then makes the peer wait;
 *  - only a connection with such a rest has a buffer;
 *  - when descriptors run out nothing is accepted until a connection ends;
 *    until then new clients wait in the kernel's queue.
 *
 * A connection has two watchers, its socket and its idle timer. The socket's
 * destroy notification frees it, whichever way it ends.
 */

#define _GNU_SOURCE /* accept4 */

#include "listen.h"
#include "must.h"

#include <errno.h>
#include <evloop.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  WANTED = 10000, /* connections at once */
  RESERVED = 32   /* descriptors for everything else */
};

static const int64_t RETRY_NS = 100000000; /* to accept after EMFILE */

struct connection {
  int fd;
  evloop_watcher_t io, idle;
  char *rest; /* what the peer has not taken yet, or NULL */
  size_t rest_length, rest_sent;
};

/* One of each, so they are plain variables. */
static evloop_t loop;
static evloop_watcher_t listener, retry;
static int64_t idle_ns;
static int64_t most_connections;

static struct {
  int64_t now, peak, accepted, idle, stalled;
  uint64_t bytes;
} count;

/* ---- connections ---- */

/* Frees a connection: nothing refers to it any more. Called when its socket's
 * watcher was closed, by end() or by evloop_close(). */
static void on_closed(const evloop_event_t *event, void *user_data)
{
  struct connection *c = user_data;
  (void)event;
  close(c->fd);
  free(c->rest);
  free(c);
  count.now--;
  /* There is room for another. Nothing happens if it was not disabled, and
   * -ESTALE is fine: during evloop_close() there is no listener any more. */
  evloop_watcher_enable(listener);
}

/* Ends a connection, from any callback, its own too: on_closed() follows
 * once that has returned. */
static void end(struct connection *c)
{
  must(evloop_watcher_close(c->idle, 0));
  must(evloop_watcher_close(c->io, 0));
}

static void on_idle(const evloop_event_t *event, void *user_data)
{
  (void)event;
  count.idle++;
  end(user_data);
}

/* What the peer takes of these bytes now; -1 if it takes none for ever. */
static ssize_t send_some(struct connection *c, const char *bytes, size_t n)
{
  /* MSG_NOSIGNAL: a peer that hung up is an error here, no SIGPIPE. */
  ssize_t sent = send(c->fd, bytes, n, MSG_NOSIGNAL);
  if (sent < 0)
    return errno == EAGAIN || errno == EINTR ? 0 : -1;
  count.bytes += (uint64_t)sent;
  return sent;
}

/* Writable: sends the rest, and goes back to reading when it is sent. */
static void send_rest(struct connection *c)
{
  ssize_t sent = send_some(c, c->rest + c->rest_sent,
                           c->rest_length - c->rest_sent);
  if (sent < 0) {
    end(c);
    return;
  }
  if (sent > 0)
    must(evloop_timer_again(c->idle)); /* taking is a sign of life */
  c->rest_sent += (size_t)sent;
  if (c->rest_sent == c->rest_length) {
    free(c->rest);
    c->rest = NULL;
    must(evloop_io_modify(c->io, EVLOOP_EPOLLIN));
  }
}

/* Readable: sends back what there is. */
static void echo(struct connection *c)
{
  static char buffer[65536]; /* for one callback at a time, so one for all */
  ssize_t received = recv(c->fd, buffer, sizeof buffer, 0);
  if (received < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (received <= 0) { /* the end, or an error such as a reset */
    end(c);
    return;
  }
  must(evloop_timer_again(c->idle));

  size_t length = (size_t)received;
  ssize_t sent = send_some(c, buffer, length);
  if (sent < 0) {
    end(c);
    return;
  }
  length -= (size_t)sent;
  if (length == 0)
    return;

  /* The peer is slow to read: from now on wait for room, not for data. */
  c->rest = malloc(length);
  if (c->rest == NULL) {
    end(c); /* rather this one than all */
    return;
  }
  memcpy(c->rest, buffer + sent, length);
  c->rest_length = length;
  c->rest_sent = 0;
  count.stalled++;
  must(evloop_io_modify(c->io, EVLOOP_EPOLLOUT));
}

static void on_ready(const evloop_event_t *event, void *user_data)
{
  struct connection *c = user_data;
  /* Hang-ups and errors are reported without being asked for, and whatever
   * is asked for; recv() or send() distinguishes them. */
  if (event->events & EVLOOP_ERROR)
    end(c);
  else if (c->rest != NULL)
    send_rest(c);
  else
    echo(c);
}

/* False if there is no memory for it: then the socket is closed. */
static bool begin(int fd)
{
  struct connection *c = calloc(1, sizeof *c);
  if (c != NULL) {
    c->fd = fd;
    c->io = evloop_add_io(loop, fd, EVLOOP_EPOLLIN, on_ready, c);
    /* It may hang up a tenth late: then one wake-up serves many. */
    c->idle = evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, idle_ns, 0,
                               idle_ns / 10, on_idle, c);
    if (c->io > 0 && c->idle > 0 &&
        evloop_watcher_set_destroy(c->io, on_closed, c) == 0) {
      count.accepted++;
      if (++count.now > count.peak)
        count.peak = count.now;
      return true;
    }
    /* A negative number is no handle: closing it does nothing. */
    evloop_watcher_close(c->idle, 0);
    evloop_watcher_close(c->io, 0);
    free(c);
  }
  close(fd);
  return false;
}

/* ---- the listening socket ---- */

static void on_connections(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  must_be_watched(event);
  while (count.now < most_connections) {
    int fd = accept4(event->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && begin(fd))
      continue;
    if (fd < 0 && errno == EAGAIN)
      return; /* that was all of them */
    if (fd < 0 && (errno == EINTR || errno == ECONNABORTED ||
                   errno == EPROTO || errno == EPERM))
      continue; /* only this one is gone */
    if (fd < 0 && errno != EMFILE && errno != ENFILE && errno != ENOBUFS &&
        errno != ENOMEM)
      must_sys(fd, "accept4");

    /* No descriptor or no memory left. The queue would make the listener
     * ready at once, again and again: look away until a connection ends, or
     * for a while, as it may be others who use everything up. */
    printf("cannot accept: %s\n", strerror(fd < 0 ? errno : ENOMEM));
    must(evloop_timer_set(retry, 0, RETRY_NS, 0));
    break;
  }
  must(evloop_watcher_disable(listener));
}

static void on_retry(const evloop_event_t *event, void *user_data)
{
  (void)event;
  (void)user_data;
  must(evloop_watcher_enable(listener));
}

/* ---- ending it ---- */

/* A signal handler may call the functions that say "Signals: safe". */
static void on_signal(int number)
{
  (void)number;
  evloop_stop(loop);
}

static void on_input(const evloop_event_t *event, void *user_data)
{
  static char line[64];
  static size_t length = 0;
  (void)user_data;
  must_be_watched(event);

  ssize_t n = read(event->fd, line + length, sizeof line - length);
  if (n < 0 && (errno == EAGAIN || errno == EINTR))
    return;
  if (n <= 0) { /* no more commands: the signals are left */
    must(evloop_watcher_close(event->watcher, 0));
    return;
  }
  length += (size_t)n;
  char *newline;
  while ((newline = memchr(line, '\n', length)) != NULL) {
    size_t command = (size_t)(newline - line);
    if (command == 8 && memcmp(line, "shutdown", 8) == 0)
      must(evloop_stop(loop));
    else
      printf("the only command is \"shutdown\"\n");
    length -= command + 1;
    memmove(line, newline + 1, length);
  }
  if (length == sizeof line)
    length = 0; /* a line that long is no command */
}

/* ---- the program ---- */

/* Raises the descriptor limit as far as needed and allowed. Returns how many
 * connections it has room for. */
static int64_t make_room(void)
{
  struct rlimit limit;
  must_sys(getrlimit(RLIMIT_NOFILE, &limit), "getrlimit");
  if (limit.rlim_cur < WANTED + RESERVED) { /* RLIM_INFINITY is the largest */
    limit.rlim_cur = limit.rlim_max < WANTED + RESERVED ? limit.rlim_max
                                                        : WANTED + RESERVED;
    must_sys(setrlimit(RLIMIT_NOFILE, &limit), "setrlimit");
  }
  if (limit.rlim_cur <= RESERVED) {
    fprintf(stderr, "the descriptor limit is too low\n");
    exit(1);
  }
  if (limit.rlim_cur >= WANTED + RESERVED)
    return WANTED;
  return (int64_t)limit.rlim_cur - RESERVED;
}

static double number_argument(int argc, char **argv, int which,
                              double otherwise, double least, double most)
{
  if (argc <= which)
    return otherwise;
  char *end;
  double number = strtod(argv[which], &end);
  if (argc > 3 || end == argv[which] || *end != '\0' ||
      !(number >= least && number <= most)) {
    fprintf(stderr, "usage: %s [PORT [IDLE_SECONDS]]  (default 0: any free "
                    "one, and 60)\n", argv[0]);
    exit(2);
  }
  return number;
}

int main(int argc, char **argv)
{
  uint16_t port = (uint16_t)number_argument(argc, argv, 1, 0, 0, 65535);
  idle_ns = (int64_t)(number_argument(argc, argv, 2, 60, 0.001, 1e6) * 1e9);
  setvbuf(stdout, NULL, _IOLBF, 0); /* whole lines, also into a pipe */

  most_connections = make_room();
  printf("room for %" PRId64 " connections\n", most_connections);

  loop = must(evloop_create(NULL));
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = on_signal; /* loop does not change from here on */
  must_sys(sigaction(SIGTERM, &action, NULL), "sigaction");
  must_sys(sigaction(SIGINT, &action, NULL), "sigaction");

  must(evloop_add_io(loop, STDIN_FILENO, EVLOOP_EPOLLIN, on_input, NULL));
  retry = must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0,
                                -1 /* not yet */, 0, 0, on_retry, NULL));
  int fd = listen_on(&port, SO_REUSEADDR);
  printf("listening on 127.0.0.1:%d\n", port);
  listener = must(evloop_add_io(loop, fd, EVLOOP_EPOLLIN, on_connections,
                                NULL));

  must(evloop_run(loop, EVLOOP_RUN_UNTIL_DONE));

  int64_t open = count.now;
  must(evloop_close(loop)); /* on_closed() for each connection is in here */
  close(fd);

  printf("connections: %" PRId64 " in all, %" PRId64 " at once, %" PRId64
         " at the end\n", count.accepted, count.peak, open);
  printf("bytes sent back: %" PRIu64 "\n", count.bytes);
  printf("hung up on for idleness: %" PRId64 "\n", count.idle);
  printf("waits for a slow reader: %" PRId64 "\n", count.stalled);
  printf("connections not freed: %" PRId64 "\n", count.now);
  printf("handles still open: %" PRId64 "\n",
         must(evloop_handle_count(EVLOOP_KIND_ANY)));
  return 0;
}
