/* SPDX-License-Identifier: MIT OR Apache-2.0 */

#define _GNU_SOURCE
#include "process_support.h"

void use_memory(void) {
  static volatile char pages[1 << 20];
  for (size_t i = 0; i < sizeof pages; i += 512) pages[i] = 1;
}

Held held_to(void (*act)(void), int code) {
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

Held hold_child(int code) {
  return held_to(NULL, code);
}

void let_go(const Held *held) {
  /* Not by closing it: others that were forked since have it, too. */
  put(held->rope);
  OK(close(held->rope));
}

int reap(pid_t child) {
  int status;
  CHECK_EQ(OK(waitpid(child, &status, 0)), child);
  return status;
}
