/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Control groups in which memory is short, and what they count. */
#ifndef PRESSURE_SUPPORT_H
#define PRESSURE_SUPPORT_H

#include "loop_support.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#define SOME EVLOOP_PRESSURE_SOME
#define FULL EVLOOP_PRESSURE_FULL
#define WINDOW (2 * SECOND)

/* What an attempt to watch the system has to return. */
bool has_pressure(void);

/* ---- a control group with little memory ---- */

/* Directories for the case, removed at its end: one that counts pressure, and
 * one that limits memory, which may be the same. */
extern char group[512], limits[512];

/* False: this system, or this user, cannot have one. */
bool own_group(void);

/* The same, in which memory is short. */
bool small_group(void);

/* A child that needs more memory than its group has: a file's pages, which
 * the kernel has to read again and again. It ends with the case. */
pid_t start_thrashing(void);
void stop_child(pid_t child);

#endif
