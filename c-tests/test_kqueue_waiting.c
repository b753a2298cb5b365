/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: how many bytes wait in a socket, as the filter READ has it. FIONREAD
 * reports less than that for sockets that keep messages, and for a TCP socket with
 * an urgent byte. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#define LOWAT EVLOOP_KQ_NOTE_LOWAT

/* ---- sockets that keep messages ---- */

/* Two sockets: what is sent to `to` by `from` arrives at `fd`. */
typedef struct Path {
  int fd, from;
  struct sockaddr_storage to;
  socklen_t length;
} Path;

static void bind_and_ask(Path *p, const void *address, socklen_t length) {
  OK(bind(p->fd, (const struct sockaddr *)address, length));
  p->length = sizeof p->to;
  OK(getsockname(p->fd, (struct sockaddr *)&p->to, &p->length));
}

static bool open_udp(Path *p) {
  struct sockaddr_in any = {.sin_family = AF_INET};
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  p->fd = (int)OK(socket(AF_INET, SOCK_DGRAM, 0));
  p->from = (int)OK(socket(AF_INET, SOCK_DGRAM, 0));
  bind_and_ask(p, &any, sizeof any);
  return true;
}

static bool open_udp6(Path *p) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
  p->fd = socket(AF_INET6, SOCK_DGRAM, 0);
  p->from = socket(AF_INET6, SOCK_DGRAM, 0);
  if (p->fd < 0 || bind(p->fd, (struct sockaddr *)&any, sizeof any) < 0) return false;
  p->length = sizeof p->to;
  OK(getsockname(p->fd, (struct sockaddr *)&p->to, &p->length));
  return true;
}

static bool open_pair(Path *p, int type) {
  int pair[2];
  OK(socketpair(AF_UNIX, type, 0, pair));
  p->fd = pair[0];
  p->from = pair[1];
  p->length = 0;
  return true;
}

static bool open_unix_pair(Path *p) {
  return open_pair(p, SOCK_DGRAM);
}

static bool open_seqpacket(Path *p) {
  return open_pair(p, SOCK_SEQPACKET);
}

static bool open_unix_bound(Path *p) {
  struct sockaddr_un any = {.sun_family = AF_UNIX};
  p->fd = (int)OK(socket(AF_UNIX, SOCK_DGRAM, 0));
  p->from = (int)OK(socket(AF_UNIX, SOCK_DGRAM, 0));
  bind_and_ask(p, &any, sizeof(sa_family_t));
  return true;
}

static bool open_netlink(Path *p) {
  struct sockaddr_nl any = {.nl_family = AF_NETLINK};
  p->fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
  p->from = socket(AF_NETLINK, SOCK_RAW, NETLINK_USERSOCK);
  if (p->fd < 0 || p->from < 0) return false;
  bind_and_ask(p, &any, sizeof any);
  return true;
}

/* These two are root's. */
static bool open_raw(Path *p) {
  enum { FOR_EXPERIMENTS = 253 };
  struct sockaddr_in any = {.sin_family = AF_INET};
  any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  p->fd = socket(AF_INET, SOCK_RAW, FOR_EXPERIMENTS);
  p->from = socket(AF_INET, SOCK_RAW, FOR_EXPERIMENTS);
  if (p->fd < 0 || p->from < 0) return false;
  bind_and_ask(p, &any, sizeof any);
  /* It would keep what it sends. */
  OK(shutdown(p->from, SHUT_RD) < 0 && errno != ENOTCONN ? -1 : 0);
  return true;
}

static bool open_packet(Path *p) {
  const uint16_t for_experiments = htons(0x88b5);
  struct sockaddr_ll loopback = {.sll_family = AF_PACKET, .sll_protocol = for_experiments};
  loopback.sll_ifindex = (int)if_nametoindex("lo");
  loopback.sll_halen = 6;
  p->fd = socket(AF_PACKET, SOCK_DGRAM, for_experiments);
  p->from = socket(AF_PACKET, SOCK_DGRAM, 0);
  if (p->fd < 0 || p->from < 0 || loopback.sll_ifindex == 0) return false;
  OK(bind(p->fd, (struct sockaddr *)&loopback, sizeof loopback));
  memcpy(&p->to, &loopback, sizeof loopback);
  p->length = sizeof loopback;
  return true;
}

typedef struct Kind {
  const char *name;
  bool (*open)(Path *p);
  bool takes_empty;
} Kind;

static const Kind kinds[] = {
  {"UDP", open_udp, true},
  {"UDP on IPv6", open_udp6, true},
  {"local datagrams, a pair", open_unix_pair, true},
  {"local datagrams", open_unix_bound, true},
  {"local seqpacket", open_seqpacket, false},
  {"netlink", open_netlink, false},
  {"raw", open_raw, false},
  {"packet", open_packet, false},
};

static void close_path(const Path *p) {
  OK(close(p->fd));
  OK(close(p->from));
}

static void send_message(const Path *p, size_t length) {
  static const char bytes[65536];
  const struct sockaddr *to = p->length > 0 ? (const struct sockaddr *)&p->to : NULL;
  CHECK_EQ(sendto(p->from, bytes, length, 0, to, p->length), (ssize_t)length);
}

/* Receives one message; its length, or -1: there is none. */
static ssize_t receive(int fd) {
  char bytes[64];
  ssize_t length = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT | MSG_TRUNC);
  if (length < 0) CHECK_EQ(errno, EAGAIN);
  return length;
}

/* Receives as a program does that trusts `data`: how many messages. */
static int receive_until_used_up(int fd, int64_t data) {
  int count = 0;
  while (data > 0) {
    ssize_t length = receive(fd);
    if (length < 0) break;
    data -= length;
    count++;
  }
  return count;
}

static const struct {
  int count, lengths[8];
} batches[] = {
  {1, {1}},
  {2, {8, 5}},
  {2, {1, 60000}},
  {3, {100, 1000, 10000}},
  {8, {1, 1, 1, 1, 1, 1, 1, 1}},
  {4, {1400, 1400, 1400, 1400}},
};

/* All of it, or the wait never ends: there is no second event for what waits
 * already. */
TEST(a_program_that_reads_what_data_says_gets_every_message) {
  for (int k = 0; AT_ROW(k, kinds); k++) {
    for (int b = 0; AT_ROW(b, batches); b++) {
      evloop_kqueue_t kq = new_kqueue();
      Path p;
      if (!kinds[k].open(&p)) continue;
      apply(kq, (uint64_t)p.fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
      expect_nothing(kq);
      for (int i = 0; i < batches[b].count; i++) send_message(&p, (size_t)batches[b].lengths[i]);
      for (int got = 0; got < batches[b].count;) {
        got += receive_until_used_up(p.fd, expect_event(kq, (uint64_t)p.fd, KQ_READ).data);
      }
      close_path(&p);
      OK(evloop_kqueue_close(kq));
    }
  }
}

TEST(empty_messages_count_one_byte_each) {
  static const int orders[][3] = {{0, 0, 0}, {0, 8, 0}, {8, 0, 0}, {8, 0, 8}};
  for (int k = 0; AT_ROW(k, kinds); k++) {
    for (int o = 0; o < LENGTH(orders) && kinds[k].takes_empty; o++) {
      evloop_kqueue_t kq = new_kqueue();
      Path p;
      if (!kinds[k].open(&p)) continue;
      apply(kq, (uint64_t)p.fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
      for (int i = 0; i < 3; i++) send_message(&p, (size_t)orders[o][i]);
      for (int got = 0; got < 3;) {
        int64_t data = expect_event(kq, (uint64_t)p.fd, KQ_READ).data;
        ssize_t length;
        while (data > 0 && (length = receive(p.fd)) >= 0) {
          data -= length > 0 ? length : 1;
          got++;
        }
      }
      close_path(&p);
    }
  }
}

TEST(one_message_of_udp_is_counted_exactly) {
  static const int lengths[] = {0, 1, 8, 100, 500, 1400};
  for (int k = 0; k < 2; k++) {
    for (int i = 0; AT_ROW(i, lengths); i++) {
      evloop_kqueue_t kq = new_kqueue();
      Path p;
      if (!kinds[k].open(&p)) continue;
      apply(kq, (uint64_t)p.fd, KQ_READ, ADD, 0, 0, 0);
      send_message(&p, (size_t)lengths[i]);
      CHECK_EQ(expect_event(kq, (uint64_t)p.fd, KQ_READ).data, lengths[i] > 0 ? lengths[i] : 1);
      receive(p.fd);
      expect_nothing(kq);
      close_path(&p);
    }
  }
}

TEST(a_pair_of_local_datagram_sockets_has_a_bound) {
  evloop_kqueue_t kq = new_kqueue();
  Path p;
  int buffer = 0;
  socklen_t size = sizeof buffer;
  CHECK(open_unix_pair(&p));
  OK(setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &(int){200000}, sizeof(int)));
  OK(getsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &buffer, &size));
  apply(kq, (uint64_t)p.fd, KQ_READ, ADD, 0, 0, 0);
  send_message(&p, 3);
  send_message(&p, 60000);
  CHECK_EQ(expect_event(kq, (uint64_t)p.fd, KQ_READ).data, 3 + buffer);
}

/* Each has a send buffer of its own; the receiver's is none of theirs. */
TEST(several_senders_of_local_datagrams_fit_into_the_bound) {
  enum { SENDERS = 8, SIZE = 60000 };
  evloop_kqueue_t kq = new_kqueue();
  Path p;
  CHECK(open_unix_bound(&p));
  OK(setsockopt(p.fd, SOL_SOCKET, SO_RCVBUF, &(int){1}, sizeof(int)));
  apply(kq, (uint64_t)p.fd, KQ_READ, ADD | CLEAR, 0, 0, 0);
  for (int i = 0; i < SENDERS; i++) {
    p.from = (int)OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    send_message(&p, SIZE);
  }
  int64_t data = expect_event(kq, (uint64_t)p.fd, KQ_READ).data;
  CHECK(data >= SENDERS * SIZE);
  CHECK_EQ(receive_until_used_up(p.fd, data), SENDERS);
}

TEST(local_seqpacket_sockets_count_all_their_bytes) {
  evloop_kqueue_t kq = new_kqueue();
  Path p;
  CHECK(open_seqpacket(&p));
  apply(kq, (uint64_t)p.fd, KQ_READ, ADD, 0, 0, 0);
  send_message(&p, 0);
  CHECK_EQ(expect_event(kq, (uint64_t)p.fd, KQ_READ).data, 1);
  send_message(&p, 100);
  send_message(&p, 20);
  CHECK_EQ(expect_event(kq, (uint64_t)p.fd, KQ_READ).data, 120);
  OK(close(p.from));
  Event event = expect_event(kq, (uint64_t)p.fd, KQ_READ);
  CHECK_EQ(event.flags, KQ_EOF);
  CHECK_EQ(event.data, 120);
  for (int i = 0; i < 3; i++) CHECK(receive(p.fd) >= 0);
  CHECK_EQ(expect_event(kq, (uint64_t)p.fd, KQ_READ).data, 0);
}

TEST(what_was_received_meanwhile_is_no_event) {
  for (int k = 0; AT_ROW(k, kinds); k++) {
    evloop_kqueue_t kq = new_kqueue();
    Path p;
    if (!kinds[k].open(&p)) continue;
    apply(kq, (uint64_t)p.fd, KQ_READ, ADD, 0, 0, 0);
    send_message(&p, 8);
    expect_event(kq, (uint64_t)p.fd, KQ_READ);
    CHECK(receive(p.fd) > 0);
    while (receive(p.fd) >= 0) continue;
    expect_nothing(kq);
    close_path(&p);
  }
}

TEST(low_water_marks_go_by_the_same_count) {
  for (int k = 0; AT_ROW(k, kinds); k++) {
    evloop_kqueue_t kq = new_kqueue();
    Event event;
    Path p;
    if (!kinds[k].open(&p)) continue;
    apply(kq, (uint64_t)p.fd, KQ_READ, ADD, LOWAT, 20000, 0);
    for (int i = 0; i < 10; i++) send_message(&p, 2000);
    CHECK(expect_event(kq, (uint64_t)p.fd, KQ_READ).data >= 20000);
    while (receive(p.fd) >= 0) continue;
    CHECK_EQ(take(kq, &event, 1, 0), 0);
    close_path(&p);
  }
}

TEST(one_message_of_udp_can_be_below_a_low_water_mark) {
  static const int lengths[] = {0, 9};
  for (int i = 0; AT_ROW(i, lengths); i++) {
    evloop_kqueue_t kq = new_kqueue();
    Event event;
    Path p;
    CHECK(open_udp(&p));
    apply(kq, (uint64_t)p.fd, KQ_READ, ADD, LOWAT, 10, 0);
    send_message(&p, (size_t)lengths[i]);
    CHECK(readable(p.fd, -1));
    CHECK_EQ(take(kq, &event, 1, 20 * MS), 0);
  }
}

/* ---- urgent bytes ---- */

typedef struct Connection {
  evloop_kqueue_t kq;
  int fd, peer;
} Connection;

static Connection connection(int flags, uint32_t fflags, int64_t low) {
  Connection c;
  int pair[2];
  tcp_pair(pair);
  c.kq = new_kqueue();
  c.fd = pair[0];
  c.peer = pair[1];
  apply(c.kq, (uint64_t)c.fd, KQ_READ, ADD | flags, fflags, low, 0);
  return c;
}

static void close_connection(const Connection *c) {
  OK(evloop_kqueue_close(c->kq));
  OK(close(c->fd));
  OK(close(c->peer));
}

static void send_text(const Connection *c, const char *text, int flags) {
  CHECK_EQ(send(c->peer, text, strlen(text), flags), (ssize_t)strlen(text));
}

/* Until all that was sent has arrived. */
static void wait_until_received(const Connection *c) {
  int left = -1;
  POLL_UNTIL(ioctl(c->peer, SIOCOUTQ, &left) == 0 && left == 0);
}

/* Receives as much as `data` says, or less if there is less. */
static int64_t receive_bytes(int fd, int64_t data) {
  char bytes[4096];
  int64_t sum = 0;
  while (data > 0) {
    size_t room = data < 4096 ? (size_t)data : sizeof bytes;
    ssize_t length = recv(fd, bytes, room, MSG_DONTWAIT);
    if (length < 0) {
      CHECK_EQ(errno, EAGAIN);
      break;
    }
    sum += length;
    data -= length;
  }
  return sum;
}

TEST(what_follows_an_urgent_byte_is_counted) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    for (int low = 0; low <= 4; low++) {
      Connection c = connection(flags, low > 0 ? LOWAT : 0, low);
      Event event;
      send_text(&c, "!", MSG_OOB);
      send_text(&c, "xyz", 0);
      wait_until_received(&c);
      int count = take(c.kq, &event, 1, low == 4 ? 0 : -1);
      CHECK_EQ(count, low <= 3);
      if (count == 1) CHECK_EQ(event.data, 3);
      close_connection(&c);
    }
  }
}

TEST(many_bytes_after_an_urgent_one_are_counted_or_fewer_than_a_bound) {
  static const char many[5001] = {0};
  char text[5001];
  Connection c = connection(0, 0, 0);
  memset(text, 'x', sizeof text - 1);
  text[sizeof many - 1] = '\0';
  send_text(&c, "!", MSG_OOB);
  send_text(&c, text, 0);
  wait_until_received(&c);
  int64_t data = expect_event(c.kq, (uint64_t)c.fd, KQ_READ).data;
  CHECK(data >= 5000);
  CHECK_EQ(receive_bytes(c.fd, data), 5000);
  close_connection(&c);
}

TEST(an_urgent_byte_alone_is_no_event) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    Connection c = connection(flags, 0, 0);
    Event event;
    send_text(&c, "!", MSG_OOB);
    wait_until_received(&c);
    CHECK_EQ(take(c.kq, &event, 1, 20 * MS), 0);
    expect_nothing(c.kq);
    send_text(&c, "x", 0);
    CHECK_EQ(expect_event(c.kq, (uint64_t)c.fd, KQ_READ).data, 1);
    close_connection(&c);
  }
}

/* A receive stops before the mark, and the edge has passed. */
TEST(a_mark_in_the_middle_does_not_hide_what_follows) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    for (int low = 0; low <= 6; low += 6) {
      Connection c = connection(flags, low > 0 ? LOWAT : 0, low);
      send_text(&c, "abc", 0);
      send_text(&c, "!", MSG_OOB);
      send_text(&c, "xyz", 0);
      wait_until_received(&c);
      int64_t got = 0;
      while (got < 6) got += receive_bytes(c.fd, expect_event(c.kq, (uint64_t)c.fd, KQ_READ).data);
      CHECK_EQ(got, 6);
      expect_nothing(c.kq);
      close_connection(&c);
    }
  }
}

TEST(an_urgent_byte_inline_is_one_of_the_others) {
  for (int flags = 0; flags <= CLEAR; flags += CLEAR) {
    Connection c = connection(flags, 0, 0);
    OK(setsockopt(c.fd, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int)));
    send_text(&c, "abc", 0);
    send_text(&c, "!", MSG_OOB);
    send_text(&c, "xyz", 0);
    wait_until_received(&c);
    CHECK_EQ(expect_event(c.kq, (uint64_t)c.fd, KQ_READ).data, 7);
    close_connection(&c);
  }
}

TEST(what_follows_an_urgent_byte_is_counted_at_the_end_too) {
  Connection c = connection(0, 0, 0);
  Event event;
  send_text(&c, "!", MSG_OOB);
  send_text(&c, "xyz", 0);
  OK(shutdown(c.peer, SHUT_WR));
  do event = expect_event(c.kq, (uint64_t)c.fd, KQ_READ);
  while (!(event.flags & KQ_EOF));
  CHECK_EQ(event.data, 3);
  CHECK_EQ(receive_bytes(c.fd, 3), 3);
  CHECK_EQ(expect_event(c.kq, (uint64_t)c.fd, KQ_READ).data, 0);
  close_connection(&c);
}

TEST(an_urgent_byte_that_was_received_leaves_the_rest) {
  Connection c = connection(0, 0, 0);
  char byte;
  send_text(&c, "!", MSG_OOB);
  send_text(&c, "xyz", 0);
  wait_until_received(&c);
  CHECK_EQ(recv(c.fd, &byte, 1, MSG_OOB), 1);
  CHECK_EQ(expect_event(c.kq, (uint64_t)c.fd, KQ_READ).data, 3);
  close_connection(&c);
}

CHECK_MAIN()
