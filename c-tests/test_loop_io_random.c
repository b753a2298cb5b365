/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Io watchers under random changes, against a model of what they must report:
 * what is ready when a watcher is added, enabled or modified, what becomes
 * ready while it is enabled, and no end of it only if it is level-triggered. */

#define _GNU_SOURCE
#include "loop_io.h"

#include <sys/ioctl.h>

enum { SOCKETS = 3, SLOTS = 8, STEPS = 60 };

/* A watcher, and what the model knows of it. */
typedef struct Slot {
  evloop_watcher_t watcher; /* 0: none */
  int socket;
  uint32_t events;
  bool enabled, spent; /* spent: disabled by its ONESHOT event */
  bool limited;
  bool owed; /* what is ready must be reported */
  int calls; /* since the model was last compared */
} Slot;

typedef struct World {
  uint64_t seed, random;
  evloop_t loop;
  int pairs[SOCKETS][2];
  Slot slots[SLOTS];
  int changes; /* how many its callbacks may still make */
  bool records;
} World;

static World world;

static bool chance(int percent) {
  return random_below(&world.random, 100) < percent;
}

static uint32_t random_events(void) {
  static const uint32_t sides[] = {IN, OUT, IN | OUT, EVLOOP_EPOLLPRI};
  static const uint32_t bits[] = {0,  0,          ET,        ET,
                                  ET, ONESHOT, ET | ONESHOT, EXCLUSIVE};
  uint32_t events = sides[random_below(&world.random, LENGTH(sides))];
  uint32_t more = bits[random_below(&world.random, LENGTH(bits))];
  if (more == EXCLUSIVE) return (events & (IN | OUT)) | more | (chance(50) ? ET : 0);
  return events | more;
}

static uint32_t ready_bits(int socket) {
  int bytes = 0;
  OK(ioctl(world.pairs[socket][0], FIONREAD, &bytes));
  return bytes > 0 ? IN | OUT : OUT;
}

static bool is_ready(const Slot *slot) {
  return (slot->events & ready_bits(slot->socket)) != 0;
}

/* Whether another watcher is on its descriptor, and it or that is EXCLUSIVE. */
static bool is_refused(const Slot *slot, uint32_t events) {
  for (int i = 0; i < SLOTS; i++) {
    const Slot *other = &world.slots[i];
    if (other == slot || other->watcher == 0 || other->socket != slot->socket) continue;
    if (((other->events | events) & EXCLUSIVE) != 0) return true;
  }
  return false;
}

static void random_change(void);

static void on_event(const evloop_event_t *event, void *user_data) {
  Slot *slot = (Slot *)user_data;
  CHECK_EQ(event->watcher, slot->watcher);
  CHECK_EQ(event->events & EVLOOP_ERROR, 0);
  /* One that was armed again before its event came has another one. */
  CHECK(slot->enabled || slot->spent);
  slot->calls++;
  slot->owed = false;
  if ((slot->events & ONESHOT) != 0) {
    slot->enabled = false;
    slot->spent = true;
  }
  while (world.changes > 0 && chance(50)) {
    world.changes--;
    random_change();
  }
}

static void add_slot(Slot *slot) {
  evloop_callback_t callback = world.records ? NULL : on_event;
  int64_t watcher;
  slot->socket = (int)random_below(&world.random, SOCKETS);
  slot->events = random_events();
  watcher = evloop_add_io(world.loop, world.pairs[slot->socket][0], slot->events, callback, slot);
  if (is_refused(slot, slot->events)) {
    CHECK_ERR(watcher, EEXIST);
    return;
  }
  slot->watcher = OK(watcher);
  slot->enabled = slot->owed = true;
  slot->spent = slot->limited = false;
}

static void close_slot(Slot *slot) {
  CHECK_EQ(evloop_watcher_close(slot->watcher, 0), 0);
  memset(slot, 0, sizeof *slot);
}

/* A spent ONESHOT watcher is enabled by this, and no other. */
static void modify_slot(Slot *slot, uint32_t events) {
  int result = evloop_io_modify(slot->watcher, events);
  if (is_refused(slot, events)) {
    CHECK_ERR(result, EEXIST);
    return;
  }
  CHECK_EQ(result, 0);
  slot->events = events;
  if (slot->spent) slot->enabled = true;
  slot->spent = false;
  slot->owed = slot->enabled;
}

static void enable_slot(Slot *slot) {
  CHECK_EQ(evloop_watcher_enable(slot->watcher), 0);
  if (!slot->enabled) slot->owed = true;
  slot->enabled = true;
  slot->spent = false;
}

static void disable_slot(Slot *slot) {
  CHECK_EQ(evloop_watcher_disable(slot->watcher), 0);
  slot->enabled = slot->spent = slot->owed = false;
}

static void limit_slot(Slot *slot) {
  slot->limited = chance(50);
  CHECK_EQ(evloop_watcher_set_ratelimit(slot->watcher, slot->limited ? SECOND : 0, 1), 0);
}

static void change_slot(Slot *slot) {
  switch (random_below(&world.random, 9)) {
    case 0: close_slot(slot); break;
    case 1: modify_slot(slot, slot->events); break;
    case 2: modify_slot(slot, random_events()); break;
    case 3:
    case 4: disable_slot(slot); break;
    case 5: enable_slot(slot); break;
    case 6:
      disable_slot(slot);
      enable_slot(slot);
      break;
    case 7: limit_slot(slot); break;
    default:
      CHECK_EQ(evloop_watcher_set_priority(slot->watcher, chance(70) ? 0 : chance(50) ? 1 : -1), 0);
  }
}

/* One end is written to, or read empty. */
static void change_socket(int socket) {
  char bytes[64];
  if (chance(50)) {
    while (read(world.pairs[socket][0], bytes, sizeof bytes) > 0) continue;
    return;
  }
  put(world.pairs[socket][1]);
  for (int i = 0; i < SLOTS; i++) {
    Slot *slot = &world.slots[i];
    if (slot->watcher && slot->socket == socket && slot->enabled && (slot->events & IN)) {
      slot->owed = true;
    }
  }
}

static void random_change(void) {
  Slot *slot = &world.slots[random_below(&world.random, SLOTS)];
  if (chance(20)) change_socket((int)random_below(&world.random, SOCKETS));
  else if (slot->watcher == 0) add_slot(slot);
  else change_slot(slot);
}

static void iterate(void) {
  evloop_event_t events[SLOTS];
  int n;
  if (!world.records) {
    turn(world.loop);
    return;
  }
  n = (int)OK(evloop_wait(world.loop, events, (int)random_below(&world.random, SLOTS) + 1, 0));
  /* A change does not take back what was returned. */
  int changes = world.changes;
  world.changes = 0;
  for (int i = 0; i < n; i++) on_event(&events[i], (void *)(uintptr_t)events[i].data);
  while (changes-- > 0) random_change();
}

static void fail_at(const Slot *slot, int step, const char *what) {
  printf("  seed %" PRIu64 ", step %d: watcher %d with events %x: %s\n", world.seed, step,
         (int)(slot - world.slots), slot->events, what);
  check_exit();
}

/* Beside a level-triggered watcher all of the descriptor are. */
static bool is_level(int socket) {
  bool level = false, ready = false;
  for (int i = 0; i < SLOTS; i++) {
    const Slot *slot = &world.slots[i];
    if (slot->watcher == 0 || slot->socket != socket || !(slot->enabled || slot->spent)) continue;
    level |= (slot->events & ET) == 0;
    ready |= is_ready(slot);
  }
  return level && ready;
}

static bool has_level(void) {
  for (int i = 0; i < SOCKETS; i++) {
    if (is_level(i)) return true;
  }
  return false;
}

/* When nothing changes any more all is reported, level-triggered watchers
 * again and again, and then the loop has nothing to do. */
static void compare(int step) {
  world.changes = 0;
  for (int i = 0; i < 6; i++) {
    advance(world.loop, 2 * SECOND);
    iterate();
    iterate();
  }
  for (int i = 0; i < SLOTS; i++) world.slots[i].calls = 0;
  for (int i = 0; i < 6; i++) {
    advance(world.loop, 2 * SECOND);
    iterate();
    iterate();
  }
  for (int i = 0; i < SLOTS; i++) {
    const Slot *slot = &world.slots[i];
    if (slot->watcher == 0 || !slot->enabled || !is_ready(slot)) continue;
    if (slot->owed) fail_at(slot, step, "not reported");
    if ((slot->events & (ET | ONESHOT)) == 0 && slot->calls == 0) {
      fail_at(slot, step, "not reported again");
    }
  }
  if (has_level() || world.records) return;
  for (int i = 0; i < 3; i++) turn(world.loop);
  if (OK(evloop_embed_prepare(world.loop)) != 0 || readable((int)OK(evloop_fileno(world.loop)), 0)) {
    fail_at(world.slots, step, "there is always something to do");
  }
}

static void run_seed(uint64_t seed, bool records) {
  memset(&world, 0, sizeof world);
  world.seed = seed;
  world.random = seed;
  world.records = records;
  world.loop = virtual_loop();
  keep_alive(world.loop);
  for (int i = 0; i < SOCKETS; i++) {
    OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, world.pairs[i]));
    if (chance(70)) put(world.pairs[i][1]);
  }
  for (int step = 0; step < STEPS; step++) {
    for (int n = (int)random_below(&world.random, 4); n >= 0; n--) random_change();
    world.changes = (int)random_below(&world.random, 4);
    if (chance(70)) iterate();
    if (chance(30)) compare(step);
  }
  CHECK_EQ(evloop_close(world.loop), 0);
  for (int i = 0; i < SOCKETS; i++) {
    OK(close(world.pairs[i][0]));
    OK(close(world.pairs[i][1]));
  }
}

/* SEED=N runs one, SEEDS=N so many. */
static void run_seeds(bool records) {
  const char *one = getenv("SEED"), *many = getenv("SEEDS");
  int seeds = many ? atoi(many) : getenv("EVLOOP_TEST_VALGRIND") ? 30 : 500;
  if (one) run_seed(strtoull(one, NULL, 10), records);
  for (int seed = 1; !one && seed <= seeds; seed++) run_seed((uint64_t)seed, records);
}

TEST_TIMEOUT(callbacks_under_random_changes, 120) {
  run_seeds(false);
}

TEST_TIMEOUT(records_under_random_changes, 120) {
  run_seeds(true);
}

CHECK_MAIN()
