/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A program with libevloop.a and another static library of Rust's. */
#include <evloop.h>
#include <stddef.h>

int other(int count);

int main(void) {
  evloop_t loop = evloop_create(NULL);
  if (loop < 0 || evloop_run(loop, EVLOOP_RUN_NOWAIT) != 0) return 1;
  if (other(3) != 3 || other(9) != -1) return 2;
  return evloop_close(loop) < 0 ? 3 : 0;
}
