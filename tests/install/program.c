/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* A user's C program, built against the installed library. */

#include <evloop.h>
#include <stdio.h>

int main(void) {
  uint64_t expirations = 0;
  tfd_t timer = tfd_create(EVLOOP_CLOCK_MONOTONIC, 0);
  if (tfd_settime_ns(timer, 0, 1000000, 0, NULL, NULL) < 0) return 1;
  if (tfd_read(timer, &expirations) < 0 || expirations != 1) return 2;
  if (tfd_close(timer) < 0) return 3;
  if (evloop_version() != EVLOOP_VERSION) return 4;
  printf("C %s\n", evloop_version_string());
  return 0;
}
