/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * What the interfaces make of registering twice, of strangers and of closed
 * descriptors: one row for each interface, one test for each cell.
 *
 *            | register twice | modify   | unregister | a closed
 *            |                | stranger | stranger   | descriptor
 *   poll     | replaces       | -ENOENT  | -ENOENT    | POLLNVAL reported
 *   epoll    | -EEXIST        | -ENOENT  | -ENOENT    | -EBADF
 *   devpoll  | the union      | registers| ignored    | POLLNVAL reported
 *   selector | -EEXIST        | -ENOENT  | -ENOENT    | -EBADF
 */

#define _GNU_SOURCE
#include "support.h"

/* A call's result, and what a wait then reports (0 events: nothing). */
typedef struct Cell {
  int result;
  uint32_t events;
  uint64_t data;
} Cell;

typedef struct Row {
  int64_t (*create)(void);
  int (*add)(int64_t set, int fd, uint32_t events, uint64_t data);
  int (*modify)(int64_t set, int fd, uint32_t events, uint64_t data);
  int (*unregister)(int64_t set, int fd);
  int (*wait)(int64_t set, evloop_ready_t *ready, int max, int64_t timeout_ns);
  uint32_t in, out; /* the bits for reading and for writing */
  Cell register_twice, modify_stranger, unregister_stranger;
  Cell closed_registered, closed_modified, closed_later;
  int closed_later_unregister;
} Row;

static int64_t create_epoll(void) {
  return evloop_epoll_create(0);
}

static int64_t select_selector(void) {
  return evloop_selector_create(EVLOOP_SELECTOR_SELECT);
}

static int64_t poll_selector(void) {
  return evloop_selector_create(EVLOOP_SELECTOR_POLL);
}

static int64_t epoll_selector(void) {
  return evloop_selector_create(EVLOOP_SELECTOR_EPOLL);
}

static int64_t devpoll_selector(void) {
  return evloop_selector_create(EVLOOP_SELECTOR_DEVPOLL);
}

static int64_t default_selector(void) {
  return evloop_selector_create(EVLOOP_SELECTOR_DEFAULT);
}

/* ---- the table ---- */

/* Every row registers for reading with data 1 first, and does the second
 * call for writing with data 2, on a descriptor that is ready for both. */

static const Row poll_row = {
    evloop_poll_create,
    evloop_poll_register,
    evloop_poll_modify,
    evloop_poll_unregister,
    evloop_poll_wait,
    EVLOOP_POLLIN,
    EVLOOP_POLLOUT,
    .register_twice = {0, EVLOOP_POLLOUT, 2},
    .modify_stranger = {-ENOENT, 0, 0},
    .unregister_stranger = {-ENOENT, 0, 0},
    .closed_registered = {0, EVLOOP_POLLNVAL, 1},
    .closed_modified = {-ENOENT, 0, 0},
    .closed_later = {0, EVLOOP_POLLNVAL, 2},
    .closed_later_unregister = 0,
};

static const Row epoll_row = {
    create_epoll,
    evloop_epoll_register,
    evloop_epoll_modify,
    evloop_epoll_unregister,
    evloop_epoll_wait,
    EVLOOP_EPOLLIN,
    EVLOOP_EPOLLOUT,
    .register_twice = {-EEXIST, EVLOOP_EPOLLIN, 1},
    .modify_stranger = {-ENOENT, 0, 0},
    .unregister_stranger = {-ENOENT, 0, 0},
    .closed_registered = {-EBADF, 0, 0},
    .closed_modified = {-EBADF, 0, 0},
    .closed_later = {-EBADF, 0, 0},
    .closed_later_unregister = -EBADF,
};

static const Row devpoll_row = {
    evloop_devpoll_create,
    evloop_devpoll_register,
    evloop_devpoll_modify,
    evloop_devpoll_unregister,
    evloop_devpoll_wait,
    EVLOOP_POLLIN,
    EVLOOP_POLLOUT,
    .register_twice = {0, EVLOOP_POLLIN | EVLOOP_POLLOUT, 2},
    .modify_stranger = {0, EVLOOP_POLLOUT, 2},
    .unregister_stranger = {0, 0, 0},
    .closed_registered = {0, EVLOOP_POLLNVAL, 1},
    .closed_modified = {0, EVLOOP_POLLNVAL, 2},
    .closed_later = {0, EVLOOP_POLLNVAL, 2},
    .closed_later_unregister = 0,
};

#define SELECTOR(name, later_events)                         \
  static const Row name##_row = {                            \
      name,                                                  \
      evloop_selector_register,                              \
      evloop_selector_modify,                                \
      evloop_selector_unregister,                            \
      evloop_selector_wait,                                  \
      EVLOOP_SELECTOR_READ,                                  \
      EVLOOP_SELECTOR_WRITE,                                 \
      .register_twice = {-EEXIST, EVLOOP_SELECTOR_READ, 1},  \
      .modify_stranger = {-ENOENT, 0, 0},                    \
      .unregister_stranger = {-ENOENT, 0, 0},                \
      .closed_registered = {-EBADF, 0, 0},                   \
      .closed_modified = {-ENOENT, 0, 0},                    \
      .closed_later = {-EBADF, later_events, 1},             \
      .closed_later_unregister = 0,                          \
  }

/* Once closed, a registered descriptor is ready, or epoll has forgotten it. */
SELECTOR(select_selector, EVLOOP_SELECTOR_READ);
SELECTOR(poll_selector, EVLOOP_SELECTOR_READ);
SELECTOR(epoll_selector, 0);
SELECTOR(devpoll_selector, EVLOOP_SELECTOR_READ);
SELECTOR(default_selector, 0);

/* ---- the cells ---- */

/* A socket that is ready to read and to write. */
static int busy_socket(void) {
  int pair[2];
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  CHECK_EQ(write(pair[1], "x", 1), 1);
  return pair[0];
}

static void expect(const Row *row, int64_t set, int fd, int result, Cell cell) {
  evloop_ready_t ready[2] = {{.fd = -2}};
  CHECK_EQ(result, cell.result);
  CHECK_EQ(row->wait(set, ready, 2, 0), cell.events != 0);
  if (cell.events == 0) return;
  CHECK_EQ(ready[0].fd, fd);
  CHECK_EQ(ready[0].events, cell.events);
  CHECK(ready[0].data == cell.data);
}

static void register_twice(const Row *row) {
  int64_t set = OK(row->create());
  int fd = busy_socket();
  CHECK_EQ(row->add(set, fd, row->in, 1), 0);
  expect(row, set, fd, row->add(set, fd, row->out, 2), row->register_twice);
  CHECK_EQ(row->unregister(set, fd), 0);
  expect(row, set, fd, 0, (Cell){0, 0, 0});
}

static void modify_a_stranger(const Row *row) {
  int64_t set = OK(row->create());
  int fd = busy_socket();
  expect(row, set, fd, row->modify(set, fd, row->out, 2), row->modify_stranger);
}

static void unregister_a_stranger(const Row *row) {
  int64_t set = OK(row->create());
  int fd = busy_socket();
  expect(row, set, fd, row->unregister(set, fd), row->unregister_stranger);
  CHECK_EQ(row->add(set, fd, row->in, 1), 0);
  CHECK_EQ(row->unregister(set, fd), 0);
  expect(row, set, fd, row->unregister(set, fd), row->unregister_stranger);
}

static void register_a_closed_descriptor(const Row *row) {
  int64_t set = OK(row->create());
  expect(row, set, CLOSED, row->add(set, CLOSED, row->in, 1), row->closed_registered);
}

static void modify_a_closed_stranger(const Row *row) {
  int64_t set = OK(row->create());
  expect(row, set, CLOSED, row->modify(set, CLOSED, row->out, 2), row->closed_modified);
}

static void close_a_registered_descriptor(const Row *row) {
  int64_t set = OK(row->create());
  int fd = (int)OK(eventfd(0, EFD_CLOEXEC));
  CHECK_EQ(row->add(set, fd, row->in, 1), 0);
  expect(row, set, fd, 0, (Cell){0, 0, 0});
  OK(close(fd));
  expect(row, set, fd, row->modify(set, fd, row->in, 2), row->closed_later);
  CHECK_EQ(row->unregister(set, fd), row->closed_later_unregister);
  expect(row, set, fd, 0, (Cell){0, 0, 0});
}

#define ROW(name)                                                             \
  TEST(name##_register_twice) { register_twice(&name##_row); }                \
  TEST(name##_modify_a_stranger) { modify_a_stranger(&name##_row); }          \
  TEST(name##_unregister_a_stranger) { unregister_a_stranger(&name##_row); }  \
  TEST(name##_register_a_closed_descriptor) {                                 \
    register_a_closed_descriptor(&name##_row);                                \
  }                                                                           \
  TEST(name##_modify_a_closed_stranger) {                                     \
    modify_a_closed_stranger(&name##_row);                                    \
  }                                                                           \
  TEST(name##_close_a_registered_descriptor) {                                \
    close_a_registered_descriptor(&name##_row);                               \
  }

ROW(poll)
ROW(epoll)
ROW(devpoll)
ROW(select_selector)
ROW(poll_selector)
ROW(epoll_selector)
ROW(devpoll_selector)
ROW(default_selector)

CHECK_MAIN()
