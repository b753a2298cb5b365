/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* EVFILT_NETDEV: links of interfaces, in a network namespace of the case's
 * own. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#define NETDEV EVLOOP_KQ_FILTER_NETDEV
#define UP EVLOOP_KQ_NOTE_LINKUP
#define DOWN EVLOOP_KQ_NOTE_LINKDOWN
#define INV EVLOOP_KQ_NOTE_LINKINV
#define ANY (UP | DOWN | INV)

/* ---- interfaces ---- */

typedef struct Request {
  struct nlmsghdr header;
  struct ifinfomsg info;
  char attributes[256];
} Request;

static struct rtattr *add_attribute(Request *r, int kind, const void *data, size_t size) {
  struct rtattr *attribute = (struct rtattr *)((char *)r + NLMSG_ALIGN(r->header.nlmsg_len));
  attribute->rta_type = (unsigned short)kind;
  attribute->rta_len = (unsigned short)RTA_LENGTH(size);
  if (size > 0) memcpy(RTA_DATA(attribute), data, size);
  r->header.nlmsg_len = NLMSG_ALIGN(r->header.nlmsg_len) + (uint32_t)RTA_ALIGN(RTA_LENGTH(size));
  return attribute;
}

static void end_attribute(Request *r, struct rtattr *attribute) {
  attribute->rta_len = (unsigned short)((char *)r + r->header.nlmsg_len - (char *)attribute);
}

static Request request(int kind, int flags) {
  Request made;
  memset(&made, 0, sizeof made);
  made.header.nlmsg_len = NLMSG_LENGTH(sizeof made.info);
  made.header.nlmsg_type = (unsigned short)kind;
  made.header.nlmsg_flags = (unsigned short)(NLM_F_REQUEST | NLM_F_ACK | flags);
  return made;
}

/* The kernel's answer: 0 or -errno. */
static int ask_kernel(Request *r) {
  char answer[4096];
  int fd = (int)OK(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  OK(send(fd, r, r->header.nlmsg_len, 0));
  OK(recv(fd, answer, sizeof answer, 0));
  OK(close(fd));
  struct nlmsghdr *header = (struct nlmsghdr *)(void *)answer;
  CHECK_EQ(header->nlmsg_type, NLMSG_ERROR);
  return ((struct nlmsgerr *)NLMSG_DATA(header))->error;
}

/* Two interfaces, joined; a kernel may lack them. */
static void make_pair(void) {
  Request r = request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
  add_attribute(&r, IFLA_IFNAME, "left", 5);
  struct rtattr *info = add_attribute(&r, IFLA_LINKINFO, NULL, 0);
  add_attribute(&r, IFLA_INFO_KIND, "veth", 4);
  struct rtattr *data = add_attribute(&r, IFLA_INFO_DATA, NULL, 0);
  struct rtattr *peer = add_attribute(&r, VETH_INFO_PEER, NULL, 0);
  r.header.nlmsg_len += (uint32_t)sizeof(struct ifinfomsg);
  add_attribute(&r, IFLA_IFNAME, "right", 6);
  end_attribute(&r, peer);
  end_attribute(&r, data);
  end_attribute(&r, info);
  int error = ask_kernel(&r);
  if (error == -EOPNOTSUPP) SKIP("this kernel has no veth");
  CHECK_EQ(error, 0);
}

static void remove_interface(unsigned index) {
  Request r = request(RTM_DELLINK, 0);
  r.info.ifi_index = (int)index;
  CHECK_EQ(ask_kernel(&r), 0);
}

static void set_up(const char *name, bool up) {
  struct ifreq request_;
  int fd = (int)OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  memset(&request_, 0, sizeof request_);
  snprintf(request_.ifr_name, sizeof request_.ifr_name, "%s", name);
  OK(ioctl(fd, SIOCGIFFLAGS, &request_));
  if (up) {
    request_.ifr_flags = (short)(request_.ifr_flags | IFF_UP);
  } else {
    request_.ifr_flags = (short)(request_.ifr_flags & ~IFF_UP);
  }
  OK(ioctl(fd, SIOCSIFFLAGS, &request_));
  OK(close(fd));
}

static void own_network(void) {
  if (unshare(CLONE_NEWNET) < 0) SKIP("no network namespace can be had: %s", strerror(errno));
}

/* The kernel may report something else that is no event. Before Linux 6.12 a
 * link that goes up may be in a state in between for a moment, which is INV. */
static void expect_no_event(evloop_kqueue_t kq) {
  Event event;
  if (take(kq, &event, 1, 0) == 1) CHECK_EQ(event.fflags, INV);
}

/* A queue that watches `left`, and what it watches. */
typedef struct Watched {
  evloop_kqueue_t kq;
  unsigned index;
} Watched;

static Watched watch_pair(int flags, uint32_t bits) {
  Watched made;
  own_network();
  make_pair();
  made.index = if_nametoindex("left");
  CHECK(made.index > 0);
  made.kq = new_kqueue();
  apply(made.kq, made.index, NETDEV, ADD | flags, bits, 0, 3);
  expect_no_event(made.kq);
  return made;
}

static Event expect_link(const Watched *w, uint32_t bits) {
  Event event;
  uint32_t also = bits & INV ? 0 : INV;
  do {
    event = expect_event(w->kq, w->index, NETDEV);
    CHECK_EQ(event.udata, 3);
  } while (event.fflags == also);
  CHECK_EQ(event.fflags & ~also, bits);
  return event;
}

/* ---- */

TEST(a_link_that_goes_up_and_down_is_reported) {
  Watched w = watch_pair(CLEAR, ANY);
  set_up("left", true);
  expect_no_event(w.kq);
  set_up("right", true);
  CHECK_EQ(expect_link(&w, UP).data, UP);
  set_up("right", false);
  CHECK_EQ(expect_link(&w, DOWN).data, DOWN);
  set_up("right", true);
  CHECK_EQ(expect_link(&w, UP).data, UP);
  set_up("left", false);
  CHECK_EQ(expect_link(&w, DOWN).data, DOWN);
}

TEST(only_what_is_asked_for_is_reported) {
  Watched w = watch_pair(CLEAR, DOWN), other = w;
  other.kq = new_kqueue();
  apply(other.kq, other.index, NETDEV, ADD | CLEAR, UP, 0, 3);
  set_up("left", true);
  set_up("right", true);
  /* The kernel reports link changes late, and no state that has passed. */
  expect_link(&other, UP);
  expect_no_event(w.kq);
  set_up("right", false);
  CHECK_EQ(expect_link(&w, DOWN).data, DOWN);
  expect_no_event(w.kq);
}

TEST(without_clear_the_bits_stay) {
  Watched w = watch_pair(0, UP);
  set_up("left", true);
  set_up("right", true);
  expect_link(&w, UP);
  CHECK_EQ(expect_link(&w, UP).data, UP);
}

TEST(drivers_that_report_no_link_state_are_invalid) {
  Watched w;
  own_network();
  w.kq = new_kqueue();
  w.index = if_nametoindex("lo");
  apply(w.kq, w.index, NETDEV, ADD | CLEAR, ANY, 0, 3);
  set_up("lo", true);
  CHECK_EQ(expect_link(&w, INV).data, INV);
  set_up("lo", false);
  CHECK_EQ(expect_link(&w, DOWN).data, DOWN);
}

TEST(an_interface_that_goes_has_a_last_event) {
  Watched w = watch_pair(CLEAR, UP);
  apply(w.kq, w.index, NETDEV, ADD | CLEAR | EVLOOP_KQ_EV_UDATA_SPECIFIC, ANY, 0, 5);
  remove_interface(w.index);
  Event events[4];
  CHECK_EQ(take(w.kq, events, 4, -1), 2);
  for (int i = 0; i < 2; i++) {
    CHECK(events[i].flags & KQ_EOF);
    CHECK(events[i].flags & ONESHOT);
    CHECK_EQ(events[i].data, INV);
    CHECK_EQ(events[i].fflags, events[i].udata == 3 ? 0 : INV);
  }
  expect_no_event(w.kq);
  CHECK_ERR(try_change(w.kq, w.index, NETDEV, DELETE, 0, 0, 0), ENOENT);
}

TEST(other_interfaces_are_not_reported) {
  Watched w = watch_pair(CLEAR, ANY);
  set_up("lo", true);
  expect_no_event(w.kq);
}

TEST(what_happens_while_disabled_is_kept) {
  Watched w = watch_pair(CLEAR, ANY);
  apply(w.kq, w.index, NETDEV, DISABLE, ANY, 0, 3);
  set_up("left", true);
  set_up("right", true);
  expect_no_event(w.kq);
  apply(w.kq, w.index, NETDEV, ENABLE, ANY, 0, 3);
  expect_link(&w, UP);
}

TEST(the_queues_descriptor_says_that_there_is_an_event) {
  Watched w = watch_pair(CLEAR, ANY);
  set_up("left", true);
  set_up("right", true);
  CHECK(readable((int)OK(evloop_kqueue_fileno(w.kq)), -1));
  expect_link(&w, UP);
  expect_no_event(w.kq);
}

TEST_TIMEOUT(lost_messages_are_made_up_for, 60) {
  Watched w = watch_pair(CLEAR, ANY);
  set_up("left", true);
  /* More than the socket's buffer takes. */
  for (int i = 0; i < 400; i++) {
    set_up("right", true);
    set_up("right", false);
  }
  set_up("right", true);
  Event event = expect_event(w.kq, w.index, NETDEV);
  while (event.data != UP) event = expect_event(w.kq, w.index, NETDEV);
}

TEST(a_copy_of_a_queue_after_a_fork_watches_for_itself) {
  Watched w;
  int status;
  own_network();
  make_pair();
  set_up("left", true);
  w.index = if_nametoindex("left");
  w.kq = OK(evloop_kqueue_create(EVLOOP_KQ_CPONFORK));
  apply(w.kq, w.index, NETDEV, ADD | CLEAR, ANY, 0, 3);
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    expect_no_event(w.kq);
    set_up("right", true);
    expect_link(&w, UP);
    _exit(0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
  expect_link(&w, UP);
}

/* A change that is refused is none of the users of the queue's socket. */
TEST(an_interface_that_is_refused_leaves_the_others_watched) {
  static const uint64_t none[] = {0, 1000000, UINT64_MAX};
  Watched w = watch_pair(CLEAR, ANY);
  for (int i = 0; AT_ROW(i, none); i++) {
    for (int j = 0; j < 3; j++) {
      CHECK_ERR(try_change(w.kq, none[i], NETDEV, ADD, ANY, 0, 0), ENXIO);
    }
  }
  set_up("left", true);
  set_up("right", true);
  expect_link(&w, UP);
}

TEST(the_last_knote_closes_the_socket) {
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  unsigned index = if_nametoindex("lo");
  apply(kq, index, NETDEV, ADD, ANY, 0, 0);
  CHECK_EQ(open_descriptors(), before + 1);
  apply(kq, index, NETDEV, DELETE, 0, 0, 0);
  CHECK_EQ(open_descriptors(), before);
}

TEST(what_there_is_not_is_refused) {
  evloop_kqueue_t kq = new_kqueue();
  int before = open_descriptors();
  CHECK_ERR(try_change(kq, 1000000, NETDEV, ADD, ANY, 0, 0), ENXIO);
  CHECK_ERR(try_change(kq, 0, NETDEV, ADD, ANY, 0, 0), ENXIO);
  CHECK_ERR(try_change(kq, UINT64_MAX, NETDEV, ADD, ANY, 0, 0), ENXIO);
  CHECK_ERR(try_change(kq, if_nametoindex("lo"), NETDEV, ADD, 8, 0, 0), EINVAL);
  CHECK_ERR(try_change(kq, 1000000, NETDEV, DELETE, 0, 0, 0), ENOENT);
  CHECK_EQ(open_descriptors(), before);
  expect_no_event(kq);
}

CHECK_MAIN()
