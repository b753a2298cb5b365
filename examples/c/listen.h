/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* How the servers among these examples listen: plain sockets, nothing of the
 * library. */

#ifndef LISTEN_H
#define LISTEN_H

#include "must.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/*
 * A non-blocking listening socket on the loopback address. With port 0 the
 * kernel picks a free one, which is stored there.
 *
 * The option is SO_REUSEADDR, so that the port can be had although
 * connections of an earlier server linger; or SO_REUSEPORT, with which
 * several sockets listen on one port and share its connections.
 */
static inline int listen_on(uint16_t *port, int option)
{
  int fd = (int)must_sys(
      socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
      "socket");
  int on = 1;
  must_sys(setsockopt(fd, SOL_SOCKET, option, &on, sizeof on), "setsockopt");

  struct sockaddr_in address;
  socklen_t size = sizeof address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(*port);
  must_sys(bind(fd, (struct sockaddr *)&address, sizeof address), "bind");
  must_sys(listen(fd, SOMAXCONN), "listen");
  must_sys(getsockname(fd, (struct sockaddr *)&address, &size),
           "getsockname");
  *port = ntohs(address.sin_port);
  return fd;
}

#endif
