/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of processes share. */
#ifndef PROCESS_SUPPORT_H
#define PROCESS_SUPPORT_H

#include "support.h"

#include <sys/wait.h>

/* As much memory as shows in a process's resident set, which the kernel counts
 * in batches of pages. */
MAYBE_UNUSED static void use_memory(void) {
  static volatile char pages[1 << 20];
  for (size_t i = 0; i < sizeof pages; i += 512) pages[i] = 1;
}

/* A child that does nothing until let_go(), and the writing end of the pipe
 * that it reads from. */
typedef struct Held {
  pid_t pid;
  int rope;
} Held;

/* After let_go() the child calls act(), and exits with the code if act()
 * returns. */
MAYBE_UNUSED static Held held_to(void (*act)(void), int code) {
  Pipe p = new_pipe();
  Held held = {(pid_t)OK(fork()), p.w};
  if (held.pid == 0) {
    char byte;
    use_memory();
    close(p.w);
    while (read(p.r, &byte, 1) < 0) continue;
    if (act != NULL) act();
    _exit(code);
  }
  OK(close(p.r));
  return held;
}

MAYBE_UNUSED static Held hold_child(int code) {
  return held_to(NULL, code);
}

MAYBE_UNUSED static void let_go(const Held *held) {
  /* Not by closing it: others that were forked since have it, too. */
  put(held->rope);
  OK(close(held->rope));
}

MAYBE_UNUSED static int reap(pid_t child) {
  int status;
  CHECK_EQ(OK(waitpid(child, &status, 0)), child);
  return status;
}

#endif
