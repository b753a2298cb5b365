/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * nosys SYSCALL[=ERRNO][,SYSCALL[=ERRNO]...] -- program [argument...]
 *
 * Runs a program on a kernel that seems to lack system calls: a seccomp
 * filter answers them with ENOSYS, or with the errno given by name or number
 * (old container sandboxes, for one, say EPERM to calls they do not know).
 * Children inherit the filter.
 *
 * Exit status: the program's; 125 if it could not be started, 77 if this
 * kernel has no seccomp filters.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#error "no seccomp architecture number is known for this machine"
#endif

/* Younger than the oldest C library that this is built with. */
#ifndef SYS_io_uring_setup
#define SYS_io_uring_setup 425
#endif
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

#define EXIT_NO_SECCOMP 77
#define EXIT_NOT_STARTED 125
#define MAX_RULES 32
#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

struct name {
  const char *text;
  int number;
};

static const struct name syscalls[] = {
  {"epoll_create1", SYS_epoll_create1},
  {"epoll_ctl", SYS_epoll_ctl},
  {"epoll_pwait", SYS_epoll_pwait},
  {"epoll_pwait2", SYS_epoll_pwait2},
  {"eventfd2", SYS_eventfd2},
  {"fcntl", SYS_fcntl},
  {"io_uring_setup", SYS_io_uring_setup},
  {"ioctl", SYS_ioctl},
  {"madvise", SYS_madvise},
  {"pidfd_open", SYS_pidfd_open},
  {"ppoll", SYS_ppoll},
  {"preadv2", SYS_preadv2},
  {"timerfd_create", SYS_timerfd_create},
  {"timerfd_gettime", SYS_timerfd_gettime},
  {"timerfd_settime", SYS_timerfd_settime},
};

static const struct name errnos[] = {
  {"EACCES", EACCES},         {"EAGAIN", EAGAIN}, {"EINVAL", EINVAL},
  {"EMFILE", EMFILE},         {"ENFILE", ENFILE}, {"ENODEV", ENODEV},
  {"ENOMEM", ENOMEM},         {"ENOSYS", ENOSYS}, {"ENOTTY", ENOTTY},
  {"EOPNOTSUPP", EOPNOTSUPP}, {"EPERM", EPERM},
};

static void fail(const char *what, const char *value) {
  fprintf(stderr, "nosys: %s: %s\n", what, value);
  exit(EXIT_NOT_STARTED);
}

/* A name of the table, or a plain number. */
static int number_of(const struct name *table, size_t length,
                     const char *what, const char *text) {
  for (size_t i = 0; i < length; i++) {
    if (strcmp(table[i].text, text) == 0) return table[i].number;
  }
  char *end;
  long number = strtol(text, &end, 10);
  if (*text == '\0' || *end != '\0' || number < 0 || number > 4095) {
    fail(what, text);
  }
  return (int)number;
}

/* The filter: two instructions for each system call named in `list`. */
struct program {
  struct sock_filter code[2 * MAX_RULES + 5];
  unsigned short length;
};

static void add(struct program *program, struct sock_filter instruction) {
  program->code[program->length++] = instruction;
}

static void add_rule(struct program *program, char *item) {
  int error = ENOSYS;
  char *equals = strchr(item, '=');
  if (equals != NULL) {
    *equals = '\0';
    error = number_of(errnos, LENGTH(errnos), "unknown errno", equals + 1);
  }
  unsigned call = (unsigned)number_of(syscalls, LENGTH(syscalls),
                                      "unknown system call", item);
  add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
  add(program, (struct sock_filter)BPF_STMT(
                   BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error));
}

static void build(struct program *program, char *list) {
  unsigned arch = offsetof(struct seccomp_data, arch);
  unsigned call = offsetof(struct seccomp_data, nr);
  int rules = 0;
  /* Numbers of another architecture mean other calls: let them through. */
  add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, arch));
  add(program, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, THIS_ARCH, 1, 0));
  add(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
  add(program, (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, call));
  for (char *item = strtok(list, ","); item != NULL; item = strtok(NULL, ",")) {
    if (++rules > MAX_RULES) fail("too many system calls, at", item);
    add_rule(program, item);
  }
  add(program, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
}

static void install(struct program *program) {
  struct sock_fprog filter = {program->length, program->code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
    fail("PR_SET_NO_NEW_PRIVS", strerror(errno));
  }
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    fprintf(stderr, "nosys: no seccomp filters here: %s\n", strerror(errno));
    exit(EXIT_NO_SECCOMP);
  }
}

int main(int argc, char **argv) {
  if (argc < 4 || strcmp(argv[2], "--") != 0) {
    fail("usage", "nosys SYSCALL[=ERRNO],... -- program [argument...]");
  }
  struct program program = {.length = 0};
  build(&program, argv[1]);
  install(&program);
  execvp(argv[3], argv + 3);
  fail(argv[3], strerror(errno));
}
