/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * A program that is not linked with the library, nor built with its header:
 * it loads it by its soname, uses it, and unloads it.
 */

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* ISO C has no conversion from void * to a function's address. */
static void look_up(void *library, const char *name, void *function) {
  void *address = dlsym(library, name);
  memcpy(function, &address, sizeof address);
}

int main(void) {
  void *library = dlopen("libevloop.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  int64_t (*create)(int, uint32_t);
  int (*settime)(int64_t, uint32_t, int64_t, int64_t, int64_t *, int64_t *);
  int (*wait)(int64_t, int64_t, uint64_t *);
  int (*destroy)(int64_t);
  look_up(library, "tfd_create", &create);
  look_up(library, "tfd_settime_ns", &settime);
  look_up(library, "tfd_wait", &wait);
  look_up(library, "evloop_handle_close", &destroy);
  if (!create || !settime || !wait || !destroy) return 2;
  uint64_t expirations = 0;
  int64_t timer = create(1 /* EVLOOP_CLOCK_MONOTONIC */, 0);
  if (settime(timer, 0, 1000000, 0, NULL, NULL) != 0) return 3;
  if (wait(timer, -1, &expirations) != 1 || expirations != 1) return 4;
  if (destroy(timer) != 0) return 5;
  if (dlclose(library) != 0) return 6;
  puts("dlopen");
  return 0;
}
