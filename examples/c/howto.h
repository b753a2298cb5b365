/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What howto_epoll.c, howto_select.c and howto_loop.c have in common: the TCP
 * side, in plain sockets, and the commands. All waiting is in the programs
 * themselves.
 *
 * The commands. A command is a line, ended by "\n" or "\r\n" (telnet sends
 * the latter). TCP is a stream: it keeps the order of the bytes, but cuts
 * them where it likes, so bytes are collected until a command is whole.
 *
 * "stop" is the exception: a line that begins with it stops the server as
 * soon as these four bytes are there, because clients of the HOWTO's servers
 * send it bare, without a line end. The price is that no other command may
 * begin with "stop"; in return what happens depends on the bytes alone,
 * never on how they were cut.
 */

#ifndef HOWTO_H
#define HOWTO_H

#include "listen.h"
#include "must.h"

#include <errno.h>
#include <evloop.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 16, LONGEST_COMMAND = 256 };

struct client {
  int fd;                     /* -1: this entry is free */
  int number;                 /* for the messages */
  size_t length;              /* bytes in line */
  char line[LONGEST_COMMAND]; /* received, but not a whole command yet */
};

enum outcome { STAYS, GONE, SAID_STOP };

static double seconds_since(const struct timespec *start)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)(now.tv_sec - start->tv_sec) +
         (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static long port_argument(int argc, char **argv)
{
  const char *text = argc > 1 ? argv[1] : "1234";
  char *end;
  long port = strtol(text, &end, 10);
  if (argc > 2 || end == text || *end != '\0' || port < 0 || port > 65535) {
    fprintf(stderr, "usage: %s [PORT]  (default 1234; 0: any free one)\n",
            argv[0]);
    exit(2);
  }
  return port;
}

/* A listening socket on the loopback address; says on which port. */
static int listen_and_say(long wanted)
{
  uint16_t port = (uint16_t)wanted;
  int fd = listen_on(&port, SO_REUSEADDR);
  printf("listening on 127.0.0.1:%d\n", port);
  return fd;
}

/* Sends a line. False if the client is gone, or lets so many answers pile up
 * that there is no room for this one: then it is dropped, rather than
 * waited for. */
static bool answer(const struct client *c, const char *text)
{
  char line[LONGEST_COMMAND + 32];
  int length = snprintf(line, sizeof line, "%s\n", text);
  /* MSG_NOSIGNAL: a client that hung up is an error here, no SIGPIPE. */
  return send(c->fd, line, (size_t)length, MSG_NOSIGNAL) == length;
}

/* Accepts one connection into a free entry of clients. NULL if there is none
 * (the client left before it was accepted), or no entry for it. */
static struct client *accept_client(int listener, struct client *clients)
{
  static int number = 0;
  int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
      must_sys(fd, "accept4");
    return NULL;
  }
  for (int i = 0; i < CLIENTS; i++) {
    if (clients[i].fd < 0) {
      clients[i].fd = fd;
      clients[i].number = ++number;
      clients[i].length = 0;
      printf("client %d: connected\n", number);
      return &clients[i];
    }
  }
  struct client extra = {.fd = fd};
  answer(&extra, "too many clients");
  close(fd);
  printf("a client was turned away: there are %d already\n", CLIENTS);
  return NULL;
}

/* Answers one command; it is not "stop". */
static bool unknown_command(const struct client *c, size_t length)
{
  char text[LONGEST_COMMAND + 20] = "unknown command: ";
  size_t at = strlen(text);
  for (size_t i = 0; i < length; i++) /* no control codes to a terminal */
    text[at++] = c->line[i] >= ' ' && c->line[i] <= '~' ? c->line[i] : '?';
  text[at] = '\0';
  printf("client %d: %s\n", c->number, text);
  return answer(c, text);
}

/* Reads what a client has sent, and does the commands that are whole. */
static enum outcome serve(struct client *c)
{
  ssize_t received = recv(c->fd, c->line + c->length,
                          sizeof c->line - c->length, 0);
  if (received < 0 && (errno == EAGAIN || errno == EINTR))
    return STAYS;
  if (received <= 0) {
    /* The last line may lack its end. A client that has only shut down its
     * writing half (nc -N) still gets the answer. */
    if (received == 0 && c->length > 0)
      unknown_command(c, c->length);
    return GONE;
  }
  c->length += (size_t)received;

  for (;;) {
    if (c->length >= 4 && memcmp(c->line, "stop", 4) == 0) {
      printf("client %d: stop\n", c->number);
      answer(c, "stopping");
      return SAID_STOP;
    }
    char *end = memchr(c->line, '\n', c->length);
    if (end == NULL)
      break;
    size_t length = (size_t)(end - c->line);
    size_t text = length > 0 && end[-1] == '\r' ? length - 1 : length;
    if (text > 0 && !unknown_command(c, text)) {
      printf("client %d: dropped, its answer cannot be sent\n", c->number);
      return GONE;
    }
    c->length -= length + 1;
    memmove(c->line, end + 1, c->length);
  }

  if (c->length == sizeof c->line) {
    printf("client %d: dropped, its command is too long\n", c->number);
    answer(c, "command too long");
    return GONE;
  }
  if (c->length > 0)
    printf("client %d: %zu bytes, not a whole command yet\n", c->number,
           c->length);
  return STAYS;
}

static void close_client(struct client *c)
{
  close(c->fd);
  c->fd = -1;
  printf("client %d: closed\n", c->number);
}

#endif
