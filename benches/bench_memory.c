/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* W10: the memory of watchers. Each kind is measured in a process of its own,
 * whose memory nothing has used before. */

#define _GNU_SOURCE

#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static int64_t private_bytes(void)
{
  char line[256];
  long kilobytes = -1;
  FILE *file = fopen("/proc/self/smaps_rollup", "r");
  if (file == NULL)
    die("/proc/self/smaps_rollup cannot be read");
  while (fgets(line, sizeof line, file) != NULL)
    if (sscanf(line, "Private_Dirty: %ld", &kilobytes) == 1)
      break;
  fclose(file);
  if (kilobytes < 0)
    die("/proc/self/smaps_rollup has no Private_Dirty");
  return (int64_t)kilobytes * 1024;
}

static void unexpected(const evloop_event_t *event, void *user_data)
{
  (void)user_data;
  die("an unexpected event of type %d", event->type);
}

static void add_timers(evloop_t loop, long count)
{
  for (long i = 0; i < count; i++)
    must(evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0,
                          60 * (int64_t)SECOND + i * 1000, 0, 0, unexpected,
                          NULL));
}

/* Duplicates of a quiet eventfd: a descriptor for each watcher, as long as
 * there are any. They are the kernel's memory, not this process'. */
static void add_ios(evloop_t loop, long count)
{
  int fd = check("eventfd", eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  for (long i = 0; i < count; i++)
    must(evloop_add_io(loop, check("dup", dup(fd)), EVLOOP_EPOLLIN, unexpected,
                       NULL));
}

int memory_of(const char *kind, long count)
{
  bool io = strcmp(kind, "io") == 0;
  if (io && count > descriptors_left())
    count = descriptors_left();
  evloop_t loop = new_loop(0);
  must(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  private_bytes();
  int64_t before = private_bytes();
  (io ? add_ios : add_timers)(loop, count);
  must(evloop_run(loop, EVLOOP_RUN_NOWAIT));
  int64_t after = private_bytes();
  expect("watchers", evloop_handle_count(EVLOOP_KIND_WATCHER), count);
  printf("%.1f %ld\n", (double)(after - before) / (double)count, count);
  must(evloop_close(loop));
  return 0;
}

static void measure(const char *kind, long count, double limit)
{
  char self[4096], command[4200];
  struct figure figure = {.unit = "bytes", .goal = AT_MOST, .limit = limit};
  double bytes;
  long measured;
  ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length < 0)
    die("/proc/self/exe cannot be read");
  self[length] = 0;
  snprintf(command, sizeof command, "'%s' --memory %s %ld", self, kind, count);
  FILE *child = popen(command, "r");
  if (child == NULL || fscanf(child, "%lf %ld", &bytes, &measured) != 2 ||
      pclose(child) != 0)
    die("%s failed", command);
  snprintf(figure.name, sizeof figure.name, "W10 memory, one of %ld %s%s",
           measured, kind, strcmp(kind, "io") == 0 ? " watchers" : "s");
  report(&figure, NAN, bytes, NAN, NAN);
}

void bench_memory(void)
{
  if (!wanted("W10") || !settings.evloop)
    return;
  measure("timer", settings.quick ? 50000 : 1000000, 80);
  measure("io", settings.quick ? 5000 : 1000000, 64);
}
