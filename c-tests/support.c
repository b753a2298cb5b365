/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "support.h"

ConditionChanges condition_changes;

Pipe new_pipe(void) {
  int ends[2];
  OK(pipe2(ends, O_CLOEXEC));
  Pipe made = {ends[0], ends[1]};
  return made;
}

void put(int fd) {
  CHECK_EQ(write(fd, "x", 1), 1);
}

int event_fd(unsigned count) {
  return (int)OK(eventfd(count, EFD_CLOEXEC | EFD_NONBLOCK));
}

int regular_file(void) {
  FILE *file = tmpfile();
  CHECK(file != NULL);
  return fileno(file);
}

void tcp_pair(int pair[2]) {
  struct sockaddr_in address;
  socklen_t size = sizeof address;
  int listener = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  OK(bind(listener, (struct sockaddr *)&address, size));
  OK(listen(listener, 1));
  OK(getsockname(listener, (struct sockaddr *)&address, &size));
  pair[0] = (int)OK(socket(AF_INET, SOCK_STREAM, 0));
  OK(connect(pair[0], (struct sockaddr *)&address, size));
  pair[1] = (int)OK(accept(listener, NULL, NULL));
  OK(close(listener));
}

bool readable(int fd, int timeout_ms) {
  struct pollfd pollfd = {fd, POLLIN, 0};
  OK(poll(&pollfd, 1, timeout_ms));
  CHECK((pollfd.revents & ~POLLIN) == 0);
  return pollfd.revents != 0;
}

int open_descriptors(void) {
  int count = 0;
  DIR *directory = opendir("/proc/self/fd");
  CHECK(directory != NULL);
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

void set_limit(rlim_t limit) {
  struct rlimit both;
  int status;
  OK(getrlimit(RLIMIT_NOFILE, &both));
  both.rlim_cur = limit;
  pid_t parent = getpid();
  pid_t child = (pid_t)OK(fork());
  if (child == 0) {
    _exit(prlimit(parent, RLIMIT_NOFILE, &both, NULL) < 0);
  }
  OK(waitpid(child, &status, 0));
  CHECK_EQ(status, 0);
}

void need_descriptors(rlim_t count) {
  struct rlimit both;
  OK(getrlimit(RLIMIT_NOFILE, &both));
  if (both.rlim_max < count) SKIP("%d descriptors cannot be had", (int)count);
  if (both.rlim_cur < count) set_limit(count);
}

bool may_fork_beside_allocations(void) {
  return getenv("EVLOOP_TEST_ASAN") == NULL;
}

void leave_room_for_checkers(void) {
  for (int fd = 3; fd < 10; fd++) close(fd);
}

void notify_change(void) {
  int errno_before = errno;
  __atomic_add_fetch(&condition_changes.count, 1, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&condition_changes.waiting, __ATOMIC_SEQ_CST) > 0) {
    syscall(SYS_futex, &condition_changes.count, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
  }
  errno = errno_before;
}

void wait_for_notification(unsigned seen) {
  syscall(SYS_futex, &condition_changes.count, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

bool is_wait(long call) {
  /* Not SYS_read: valgrind's threads queue up in one. */
  return call == SYS_ppoll || call == SYS_pselect6 || call == SYS_epoll_pwait ||
         call == SYS_epoll_pwait2;
}

int open_call_file(const pid_t *tid) {
  char path[64];
  UNTIL(LOAD(*tid) != 0);
  snprintf(path, sizeof path, "/proc/self/task/%d/syscall", LOAD(*tid));
  return open(path, O_RDONLY | O_CLOEXEC);
}

long call_of(int call_file) {
  char text[32] = "";
  if (pread(call_file, text, sizeof text - 1, 0) < 1) return -1;
  return text[0] >= '0' && text[0] <= '9' ? atol(text) : -1;
}

bool is_asleep(int call_file) {
  return is_wait(call_of(call_file));
}

void wait_until_asleep(const pid_t *tid) {
  int call_file = (int)OK(open_call_file(tid));
  POLL_UNTIL(is_asleep(call_file));
  OK(close(call_file));
}

void wait_until_main_is_asleep(void) {
  int call_file = (int)OK(open("/proc/self/syscall", O_RDONLY | O_CLOEXEC));
  POLL_UNTIL(is_asleep(call_file));
  OK(close(call_file));
}

void store_tid(pid_t *tid) {
  STORE(*tid, (pid_t)syscall(SYS_gettid));
}

static void *waiter_main(void *argument) {
  Waiter *w = (Waiter *)argument;
  store_tid(&w->tid);
  w->result = w->wait(w->object, w->ready, LENGTH(w->ready), -1);
  STORE(w->done, true);
  return NULL;
}

void start_waiter_in(Waiter *w, WaitFunction *wait, int64_t object) {
  memset(w, 0, sizeof *w);
  w->wait = wait;
  w->object = object;
  CHECK_EQ(pthread_create(&w->thread, NULL, waiter_main, w), 0);
  wait_until_asleep(&w->tid);
}

int waiter_result(Waiter *w) {
  CHECK_EQ(pthread_join(w->thread, NULL), 0);
  return w->result;
}

static void *held_back_main(void *argument) {
  HeldBack *h = (HeldBack *)argument;
  store_tid(&h->waiter.tid);
  pthread_barrier_wait(&h->gate);
  return waiter_main(&h->waiter);
}

void hold_back(HeldBack *h, WaitFunction *wait, int64_t object) {
  memset(h, 0, sizeof *h);
  h->waiter.wait = wait;
  h->waiter.object = object;
  CHECK_EQ(pthread_barrier_init(&h->gate, NULL, 2), 0);
  CHECK_EQ(pthread_create(&h->waiter.thread, NULL, held_back_main, h), 0);
  h->call_file = (int)OK(open_call_file(&h->waiter.tid));
}

void let_it_wait(HeldBack *h) {
  pthread_barrier_wait(&h->gate);
  POLL_UNTIL(is_asleep(h->call_file));
}

int held_back_result(HeldBack *h) {
  int result = waiter_result(&h->waiter);
  CHECK_EQ(pthread_barrier_destroy(&h->gate), 0);
  OK(close(h->call_file));
  return result;
}

int signals;

void count_signal(int number) {
  (void)number;
  RAISE(signals, 1);
}

void handle_signals(void (*handler)(int)) {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_handler = handler;
  OK(sigaction(SIGUSR1, &action, NULL));
}

void interrupt(pthread_t thread) {
  int before = LOAD(signals);
  CHECK_EQ(pthread_kill(thread, SIGUSR1), 0);
  UNTIL(LOAD(signals) > before);
}

void lock_clock(void) {
  int fd = (int)OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
  while (flock(fd, LOCK_EX) < 0) CHECK_EQ(errno, EINTR);
}
