/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* The examples with which the header answers frequent questions. */

#define _GNU_SOURCE
#include "loop_kinds.h"

/* ---- embedding ---- */

TEST(an_embedded_loop_may_be_prepared_twice_without_a_dispatch) {
  static Seen seen, prepares;
  evloop_t loop = new_loop();
  int fd = (int)OK(evloop_fileno(loop));
  count_iterations(loop, &prepares);
  CHECK_EQ(evloop_embed_prepare(loop), 0);
  readable_io(loop, event_fd(1), record_and_close, &seen);
  OK(evloop_embed_prepare(loop));
  OK(evloop_embed_prepare(loop));
  CHECK_EQ(prepares.calls, 3);
  CHECK(readable(fd, -1));
  OK(evloop_embed_dispatch(loop));
  CHECK_EQ(seen.calls, 1);
}

/* A dialogue: a callback of one loop waits for another one. */
typedef struct Dialogue {
  evloop_t loop, other;
  int answered, nested;
} Dialogue;

static void answer(const evloop_event_t *event, void *user_data) {
  (void)event;
  ((Dialogue *)user_data)->answered = 1;
}

static void ask(const evloop_event_t *event, void *user_data) {
  Dialogue *dialogue = (Dialogue *)user_data;
  dialogue->nested = evloop_run(dialogue->loop, EVLOOP_RUN_ONCE);
  while (!dialogue->answered) {
    int due = (int)OK(evloop_embed_prepare(dialogue->other));
    if (due == 0) CHECK(readable((int)OK(evloop_fileno(dialogue->other)), -1));
    OK(evloop_embed_dispatch(dialogue->other));
  }
  close_watcher(event->watcher);
}

TEST(a_callback_cannot_run_its_own_loop_but_waits_for_another_one) {
  Dialogue dialogue = {new_loop(), new_loop(), 0, 0};
  timer(dialogue.loop, 0, 0, ask, &dialogue);
  timer(dialogue.other, 5 * MS, 0, answer, &dialogue);
  run_to_end(dialogue.loop);
  CHECK_EQ(dialogue.answered, 1);
  CHECK_EQ(dialogue.nested, -EBUSY);
}

/* ---- watchers ---- */

TEST(a_librarys_prepare_and_check_watchers_let_go_of_the_loop) {
  static Seen seen;
  evloop_t loop = new_loop();
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_prepare(loop, record, &seen))), 0);
  CHECK_EQ(evloop_watcher_unref(OK(evloop_add_check(loop, record, &seen))), 0);
  timer(loop, 0, 0, ignore, NULL);
  run_to_end(loop);
  CHECK(seen.calls >= 2);
}

EACH_KIND(a_watcher_that_has_a_loop_is_still_there) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, ignore, NULL);
  CHECK(evloop_watcher_loop(watcher) > 0);
  close_watcher(watcher);
  CHECK_ERR(evloop_watcher_loop(watcher), ESTALE);
  CHECK_ERR(evloop_watcher_close(watcher, 0), ESTALE);
}

static void free_and_close(const evloop_event_t *event, void *user_data) {
  free(user_data);
  close_watcher(event->watcher);
}

EACH_KIND(a_callback_closes_its_own_watcher_and_frees_what_it_had) {
  Fixture fixture = new_fixture();
  evloop_watcher_t watcher = kind->add(&fixture, 0, free_and_close, malloc(1));
  kind->happen(&fixture, 0, watcher);
  for (int i = 0; i < 100 && evloop_watcher_loop(watcher) > 0; i++) round_of(&fixture);
  CHECK_ERR(evloop_watcher_loop(watcher), ESTALE);
}

TEST(a_reader_and_a_writer_watch_one_descriptor) {
  static Seen reader, writer;
  int pair[2];
  evloop_t loop = new_loop();
  OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
  put(pair[1]);
  OK(evloop_add_io(loop, pair[0], EVLOOP_EPOLLIN, record, &reader));
  OK(evloop_add_io(loop, pair[0], EVLOOP_EPOLLOUT, record, &writer));
  turn(loop);
  CHECK_EQ(reader.last.events, EVLOOP_EPOLLIN);
  CHECK_EQ(writer.last.events, EVLOOP_EPOLLOUT);
}

/* ---- timers ---- */

TEST(zero_disarms_a_tfd_and_is_at_once_for_a_timer) {
  static Seen seen;
  evloop_t loop = new_loop();
  tfd_t tfd = OK(tfd_create(MONOTONIC, 0));
  uint64_t ticks;
  CHECK_EQ(tfd_settime_ns(tfd, 0, 0, MS, NULL, NULL), 0);
  CHECK_EQ(tfd_wait(tfd, 5 * MS, &ticks), 0);
  evloop_watcher_t watcher = timer(loop, HOUR, 0, record, &seen);
  set_timer(watcher, 0, 0);
  turn(loop);
  CHECK_EQ(seen.calls, 1);
  set_timer(watcher, -1, 0);
  CHECK_EQ(turn(loop), 0);
}

TEST(a_lone_timer_uses_its_tolerance_up) {
  static Seen seen;
  evloop_t loop = new_loop();
  int64_t due = now_ns(CLOCK_MONOTONIC) + 5 * MS;
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, due, 0, 50 * MS, record, &seen));
  run_to_end(loop);
  /* A tolerance has 18 significant bits. */
  CHECK(seen.last.time_ns >= due + 49 * MS);
}

TEST(a_loop_that_is_awake_lets_a_timer_expire_within_its_tolerance) {
  static Seen seen;
  evloop_t loop = new_loop();
  int64_t due = now_ns(CLOCK_MONOTONIC) + 5 * MS;
  OK(evloop_add_timer(loop, MONOTONIC, EVLOOP_TIMER_ABSTIME, due, 0, HOUR, record, &seen));
  timer_at(loop, due + 5 * MS, ignore, NULL);
  run_to_end(loop);
  CHECK_EQ(seen.calls, 1);
}

/* ---- closed descriptors ---- */

TEST(a_closed_descriptor_is_noticed_when_its_registration_changes) {
  for (int i = 0; i < 2; i++) {
    Seen seen;
    evloop_t loop = new_loop();
    int fd = event_fd(0);
    memset(&seen, 0, sizeof seen);
    evloop_watcher_t watcher = readable_io(loop, fd, record, &seen);
    OK(close(fd));
    turns(loop, 3);
    CHECK_EQ(seen.calls, 0);
    if (i == 0) {
      CHECK_EQ(evloop_io_modify(watcher, EVLOOP_EPOLLOUT), 0);
    } else {
      OK(dup2(event_fd(0), fd));
      readable_io(loop, fd, ignore, NULL);
    }
    turns(loop, 2);
    CHECK_EQ(seen.errors, 1);
    CHECK_EQ(seen.last.result, -EBADF);
    CHECK_EQ(evloop_close(loop), 0);
  }
}

/* ---- the order of an iteration ---- */

static void set_word(evloop_watcher_t watcher, const char *word) {
  CHECK_EQ(evloop_watcher_set_data(watcher, (uintptr_t)word), 0);
}

TEST(an_iteration_calls_its_watchers_in_the_order_that_the_header_has) {
  evloop_t loop = new_loop();
  tfd_t tfd = OK(tfd_create(MONOTONIC, 0));
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &blocked, NULL), 0);
  int file = regular_file(), always = regular_file();
  CHECK_EQ(tfd_settime_ns(tfd, 0, 1, 0, NULL, NULL), 0);
  set_word(OK(evloop_add_check(loop, log_first_char, NULL)), "c");
  set_word(OK(evloop_add_io(loop, always, EVLOOP_EPOLLIN, log_first_char, NULL)), "A");
  set_word(OK(evloop_add_tfd(loop, tfd, log_first_char, NULL)), "i");
  set_word(OK(evloop_add_file_fd(loop, file, EVLOOP_FILE_ATTRIB, 0, log_first_char, NULL)), "f");
  set_word(OK(evloop_add_defer(loop, log_first_char, NULL)), "d");
  CHECK_EQ(evloop_post(loop, log_first_char, WORD("p")), 0);
  set_word(OK(evloop_add_signal(loop, SIGUSR1, EVLOOP_SIGNAL_FD, log_first_char, NULL)), "s");
  evloop_watcher_t async_watcher = async(loop, log_first_char, NULL);
  set_word(async_watcher, "a");
  trigger(async_watcher);
  set_word(timer(loop, 0, 0, log_first_char, NULL), "t");
  set_word(OK(evloop_add_prepare(loop, log_first_char, NULL)), "P");
  set_word(OK(evloop_add_exit(loop, log_first_char, NULL)), "e");
  OK(fchmod(file, 0600));
  CHECK(readable((int)OK(tfd_fileno(tfd)), -1));
  OK(pthread_kill(pthread_self(), SIGUSR1));
  CHECK_EQ(evloop_run_for_ns(loop, 0), 1);
  EXPECT_LOG("PtaspdfiAce");
}

CHECK_MAIN()
