/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* What the tests of processes share. */
#ifndef PROCESS_SUPPORT_H
#define PROCESS_SUPPORT_H

#include "support.h"

#include <sys/wait.h>

/* As much memory as shows in a process's resident set, which the kernel counts
 * in batches of pages. */
void use_memory(void);

/* A child that does nothing until let_go(), and the writing end of the pipe
 * that it reads from. */
typedef struct Held {
  pid_t pid;
  int rope;
} Held;

/* After let_go() the child calls act(), and exits with the code if act()
 * returns. */
Held held_to(void (*act)(void), int code);
Held hold_child(int code);
void let_go(const Held *held);
int reap(pid_t child);

#endif
