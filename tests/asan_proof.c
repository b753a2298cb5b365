/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * Proof that AddressSanitizer watches the library and not only the C
 * programs around it: the library is made to write into freed memory. If
 * this program ends with 0, it was not noticed.
 */

#include <evloop.h>
#include <stdlib.h>

int main(void) {
  tfd_t timer = tfd_create(EVLOOP_CLOCK_MONOTONIC, 0);
  if (timer < 0) return 0;
  /* volatile: the compiler must not see through the mistake. */
  int64_t *volatile stale = malloc(sizeof *stale);
  free(stale);
  tfd_gettime_ns(timer, stale, NULL);
  return 0;
}
