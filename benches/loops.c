/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * The event loop against epoll, timerfd and eventfd called directly.
 *
 *   loops               measure everything; a line for each figure
 *   loops W1 W4         measure these; "W1 chain 1000/100" measures one
 *     --json            print JSON
 *     --quick           small and once: a test that no event is lost, early
 *                       or too many, not a measurement
 *     --raw, --evloop   measure this side only
 *   loops NAME COUNT    make one of the guarded calls COUNT times and end, for
 *                       an instruction counter
 *   loops -l            their names
 *
 * A goal that is not met is printed, and is no failure: times are the
 * machine's. A count that is wrong is one.
 */

#include "bench.h"

#include <stdio.h>
#include <string.h>

static void everything(void)
{
  bench_chain();
  bench_churn();
  bench_ready();
  bench_timers();
  bench_expiry();
  bench_density();
  bench_late();
  bench_kqueue();
  bench_signal();
  bench_calls();
  bench_memory();
  bench_wakeup(); /* last: from then on the C library counts on threads */
}

static bool option(const char *word)
{
  if (strcmp(word, "--quick") == 0)
    settings.quick = true;
  else if (strcmp(word, "--json") == 0)
    settings.json = true;
  else if (strcmp(word, "--raw") == 0)
    settings.evloop = false;
  else if (strcmp(word, "--evloop") == 0)
    settings.raw = false;
  else
    return false;
  return true;
}

int main(int argc, char **argv)
{
  const char *filters[16];
  int count = 0;
  descriptors_left(); /* raises the limit */
  if (argc == 2 && strcmp(argv[1], "-l") == 0) {
    guard_names();
    return 0;
  }
  if (argc == 4 && strcmp(argv[1], "--memory") == 0)
    return memory_of(argv[2], atol(argv[3]));
  if (argc == 3 && guard_run(argv[1], atol(argv[2])))
    return 0;
  for (int i = 1; i < argc; i++) {
    if (option(argv[i]))
      continue;
    if (argv[i][0] != 'W' || count == 16) {
      fprintf(stderr, "not understood: %s\n", argv[i]);
      return 2;
    }
    filters[count++] = argv[i];
  }
  report_begin();
  if (count == 0)
    everything();
  for (int i = 0; i < count; i++) {
    settings.filter = filters[i];
    everything();
  }
  report_end();
  if (settings.evloop)
    expect("handles that were left open", evloop_handle_count(EVLOOP_KIND_ANY),
           0);
  return 0;
}
