/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Kqueues: random changes, compared with a plain model. */

#define _GNU_SOURCE
#include "kqueue_support.h"

#define SPECIFIC EVLOOP_KQ_EV_UDATA_SPECIFIC
#define KEEPUDATA EVLOOP_KQ_EV_KEEPUDATA
#define FORCE EVLOOP_KQ_EV_FORCEONESHOT
#define LASTING (ONESHOT | CLEAR | DISPATCH | RECEIPT | SPECIFIC)

enum { USERS = 4, FDS = 3, TIMERS = 2, UDATAS = 2, MOST = 6, ROOM = 80 };

/* ---- numbers ---- */

static uint64_t random_state;

static unsigned below(unsigned limit) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return (unsigned)(random_state >> 33) % limit;
}

/* ---- the model ---- */

typedef struct Note {
  bool exists, disabled, triggered, forced;
  /* Something happened since its last event; it has to be delivered. */
  bool edge;
  int flags;
  uint32_t fflags;
  int64_t data;
  uint64_t udata;
} Note;

typedef struct Model {
  evloop_kqueue_t kq;
  int fds[FDS];
  uint64_t counters[FDS];
  /* By filter, ident, and udata for knotes with EV_UDATA_SPECIFIC (or none). */
  Note notes[4][4][UDATAS + 1];
} Model;

static const int filters[4] = {KQ_READ, KQ_WRITE, KQ_USER, KQ_TIMER};
static const int idents[4] = {FDS, FDS, USERS, TIMERS};

static uint64_t ident_of(const Model *m, int filter, int place) {
  return filter < 2 ? (uint64_t)m->fds[place] : (uint64_t)place;
}

static bool is_ready(const Model *m, int filter, int place, const Note *note) {
  switch (filter) {
  case 0: return m->counters[place] > 0;
  case 1: return true;
  case 2: return note->triggered;
  default: return true;
  }
}

/* What a call with room for it has to deliver. */
static bool must_fire(const Model *m, int filter, int place, const Note *note) {
  if (!note->exists || note->disabled) return false;
  if (note->forced) return true;
  if (!is_ready(m, filter, place, note)) return false;
  return filter > 1 || !(note->flags & CLEAR) || note->edge;
}

/* What it may deliver: edges may come more often than they have to. */
static bool may_fire(const Model *m, int filter, int place, const Note *note) {
  if (!note->exists || note->disabled) return false;
  return note->forced || is_ready(m, filter, place, note);
}

static void touch_user(Note *note, const Event *change) {
  uint32_t bits = change->fflags & EVLOOP_KQ_NOTE_FFLAGSMASK;
  switch (change->fflags & EVLOOP_KQ_NOTE_FFCTRLMASK) {
  case EVLOOP_KQ_NOTE_FFAND: note->fflags &= bits; break;
  case EVLOOP_KQ_NOTE_FFOR: note->fflags |= bits; break;
  case EVLOOP_KQ_NOTE_FFCOPY: note->fflags = bits; break;
  default: break;
  }
  note->data = change->data;
  if (change->fflags & TRIGGER) note->triggered = true;
  else if (change->flags & CLEAR) note->triggered = note->forced = false;
}

static void touch_other(int filter, Note *note, const Event *change) {
  if (filter == 3 && (change->flags & ADD)) note->forced = false;
}

/* Applies a change; the errno. */
static int model_change(Model *m, int filter, int place, const Event *change) {
  int which = change->flags & SPECIFIC ? 1 + (int)change->udata : 0;
  Note *note = &m->notes[filter][place][which];
  if ((change->flags & ENABLE) && (change->flags & DISABLE)) return EINVAL;
  if (!note->exists) {
    if (!(change->flags & ADD)) return ENOENT;
    memset(note, 0, sizeof *note);
    note->exists = true;
    note->flags = change->flags & LASTING;
    note->disabled = (change->flags & DISABLE) != 0;
    note->udata = change->udata;
    note->data = filter == 2 ? change->data : 0;
    if (filter == 2) {
      note->fflags = change->fflags & EVLOOP_KQ_NOTE_FFLAGSMASK;
      note->triggered = (change->fflags & TRIGGER) != 0;
    }
    if (filter == 3) note->flags |= CLEAR;
  } else if (change->flags & DELETE) {
    note->exists = false;
    return 0;
  } else {
    if (filter == 2) touch_user(note, change);
    else touch_other(filter, note, change);
    if (!(change->flags & KEEPUDATA)) note->udata = change->udata;
    if (change->flags & DISABLE) note->disabled = true;
    else if (change->flags & (ENABLE | ADD)) note->disabled = false;
  }
  if (change->flags & FORCE) {
    note->forced = true;
    note->flags |= ONESHOT;
  }
  note->edge = true;
  return 0;
}

static void model_deliver(Note *note, int filter) {
  note->edge = note->forced = false;
  if (filter == 2 && (note->flags & CLEAR)) note->triggered = false;
  if (note->flags & ONESHOT) note->exists = false;
  else if (note->flags & DISPATCH) note->disabled = true;
}

/* ---- one step ---- */

static Event random_change(const Model *m, int *filter, int *place) {
  static const int actions[] = {ADD,    ADD,    ADD, ADD | DISABLE, DELETE,        ENABLE,
                                DISABLE, ENABLE, 0,   ADD | ENABLE,  ENABLE | DISABLE, ADD | DELETE};
  static const int lasting[] = {0, 0, 0, ONESHOT, CLEAR, DISPATCH, CLEAR | DISPATCH, ONESHOT | CLEAR};
  *filter = (int)below(4);
  *place = (int)below((unsigned)idents[*filter]);
  int flags = actions[below(LENGTH(actions))] | lasting[below(LENGTH(lasting))];
  if (below(4) == 0) flags |= SPECIFIC;
  if (below(4) == 0) flags |= RECEIPT;
  if (below(6) == 0) flags |= KEEPUDATA;
  if (below(20) == 0) flags |= FORCE;
  uint32_t fflags = 0;
  if (*filter == 2) fflags = (below(4) << 30) | (below(2) ? TRIGGER : 0) | below(256);
  if (*filter == 3) fflags = EVLOOP_KQ_NOTE_NSECONDS;
  return change(ident_of(m, *filter, *place), filters[*filter], flags, fflags, *filter == 3 ? 1 : below(100),
                below(UDATAS));
}

static void random_io(Model *m) {
  int place = (int)below(FDS);
  eventfd_t count;
  if (below(2)) {
    OK(eventfd_write(m->fds[place], 1));
    m->counters[place]++;
    for (int i = 0; i <= UDATAS; i++) m->notes[0][place][i].edge = true;
  } else if (m->counters[place] > 0) {
    OK(eventfd_read(m->fds[place], &count));
    CHECK_EQ(count, m->counters[place]);
    m->counters[place] = 0;
  }
}

/* Says where a difference was found. */
static int seed_now, step_now;

static bool seen(bool condition) {
  if (!condition) printf("  seed %d, step %d:\n", seed_now, step_now);
  return condition;
}

static Note *find(Model *m, const Event *event, int *filter, int *place) {
  for (*filter = 0; *filter < 4 && filters[*filter] != event->filter; ++*filter) continue;
  CHECK(seen(*filter < 4));
  for (*place = 0; *place < idents[*filter]; ++*place) {
    if (ident_of(m, *filter, *place) == event->ident) break;
  }
  CHECK(seen(*place < idents[*filter]));
  int which = event->flags & SPECIFIC ? 1 + (int)event->udata : 0;
  return &m->notes[*filter][*place][which];
}

static void check_event(Model *m, const Event *event) {
  int filter, place;
  Note *note = find(m, event, &filter, &place);
  CHECK(seen(may_fire(m, filter, place, note)));
  CHECK(seen(event->udata == note->udata));
  CHECK(seen(event->flags == note->flags));
  if (filter == 0) CHECK(seen((uint64_t)event->data == m->counters[place]));
  if (filter == 2) {
    CHECK(seen(event->fflags == note->fflags));
    CHECK(seen(event->data == note->data));
  }
  if (filter == 3 && !note->forced) CHECK(seen(event->data >= 1));
  model_deliver(note, filter);
}

static int count(const Model *m, bool (*counts)(const Model *, int, int, const Note *)) {
  int sum = 0;
  for (int f = 0; f < 4; f++) {
    for (int p = 0; p < idents[f]; p++) {
      for (int i = 0; i <= UDATAS; i++) sum += counts(m, f, p, &m->notes[f][p][i]);
    }
  }
  return sum;
}

/* Timers take a moment before they can be seen from outside. */
static bool is_timer(const Model *m, int filter, int place, const Note *note) {
  return filter == 3 && must_fire(m, filter, place, note);
}

/* What was read by the program after the queue had seen it is found out when
 * it is to be delivered, as on BSD. */
static bool may_seem_ready(const Model *m, int filter, int place, const Note *note) {
  return may_fire(m, filter, place, note) || (filter == 0 && note->exists && !note->disabled);
}

static void check_descriptor(const Model *m) {
  bool pending = is_pending(m->kq);
  if (count(m, must_fire) > count(m, is_timer)) CHECK(seen(pending));
  if (count(m, may_seem_ready) == 0) CHECK(seen(!pending));
}

/* Every event at most once. */
static void check_distinct(const Event *events, int got) {
  for (int i = 0; i < got; i++) {
    for (int j = 0; j < i; j++) {
      bool same = events[i].ident == events[j].ident && events[i].filter == events[j].filter &&
                  (events[i].flags & SPECIFIC) == (events[j].flags & SPECIFIC) &&
                  (!(events[i].flags & SPECIFIC) || events[i].udata == events[j].udata);
      CHECK(seen(!same));
    }
  }
}

static void step(Model *m) {
  Event changes[MOST], events[ROOM], expected[MOST];
  int changed = (int)below(MOST + 1), room = below(3) ? ROOM : (int)below(8), entries = 0, failed = -1;
  bool ended = false;
  if (below(2)) random_io(m);
  check_descriptor(m);
  for (int i = 0; i < changed; i++) {
    int filter, place;
    changes[i] = random_change(m, &filter, &place);
    if (ended) continue;
    int result = model_change(m, filter, place, &changes[i]);
    if (result == 0 && !(changes[i].flags & RECEIPT)) continue;
    if (entries == room) {
      ended = true;
      failed = result;
      continue;
    }
    expected[entries] = changes[i];
    expected[entries].flags = KQ_ERROR;
    expected[entries++].data = result;
  }
  int got = evloop_kqueue_control(m->kq, changes, changed, events, room, 0);
  if (ended && failed > 0) {
    CHECK(seen(got == -failed));
    return;
  }
  if (entries > 0 || ended) {
    CHECK(seen(got == entries));
    CHECK(seen(memcmp(events, expected, sizeof *events * (size_t)entries) == 0));
    return;
  }
  int must = count(m, must_fire);
  CHECK(seen(got >= (must < room ? must : room)));
  CHECK(seen(got <= room));
  check_distinct(events, got);
  for (int i = 0; i < got; i++) check_event(m, &events[i]);
}

static void run(uint64_t seed, int steps) {
  Model m;
  memset(&m, 0, sizeof m);
  random_state = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
  m.kq = new_kqueue();
  for (int i = 0; i < FDS; i++) m.fds[i] = event_fd(0);
  for (step_now = 0; step_now < steps; step_now++) step(&m);
  for (int i = 0; i < FDS; i++) OK(close(m.fds[i]));
  CHECK_EQ(evloop_kqueue_close(m.kq), 0);
}

TEST_TIMEOUT(random_changes_do_what_the_model_does, 120) {
  const char *text = getenv("EVLOOP_TEST_SEEDS");
  int seeds = text ? atoi(text) : 300 / slow_factor();
  for (int seed = 1; seed <= seeds; seed++) {
    seed_now = seed;
    run((uint64_t)seed, 300);
  }
}

/* ---- nonsense ---- */

TEST(any_bytes_are_changes) {
  evloop_kqueue_t kq = new_kqueue();
  int fd = event_fd(1);
  random_state = 99;
  for (int i = 0; i < 20000; i++) {
    Event list[4], out[4];
    for (int j = 0; j < 4; j++) {
      unsigned char *bytes = (unsigned char *)&list[j];
      for (size_t k = 0; k < sizeof list[j]; k++) bytes[k] = (unsigned char)below(256);
      list[j].filter = (int16_t)(below(25) - 20);
      list[j].ident = below(4) ? (uint64_t)fd : below(2) ? below(3) : list[j].ident;
      /* Neither the checks' own descriptors nor standard ones. */
      if (list[j].ident < 3 && list[j].filter >= -2) list[j].ident = (uint64_t)fd;
    }
    int got = evloop_kqueue_control(kq, list, 4, out, (int)below(5), 0);
    CHECK(got <= 4);
    CHECK(got > -4096);
    CHECK(got != -ENOTRECOVERABLE);
  }
  CHECK_EQ(evloop_kqueue_close(kq), 0);
}

CHECK_MAIN()
