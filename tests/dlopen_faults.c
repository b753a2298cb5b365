/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* dlopen_faults LIBRARY: a thread without memory makes its first calls of a
 * library that was loaded by dlopen(3). The C library makes the thread's
 * variables of such a library then, and ends the process where it cannot: so
 * there must be none that the calls use. */

#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *before, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

/* How many allocations succeed yet; negative: all. */
static int left = -1;

static int fails(void) {
  if (left != 0) {
    left -= left > 0;
    return 0;
  }
  errno = ENOMEM;
  return 1;
}

void *malloc(size_t size) {
  return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
  return fails() ? NULL : __libc_calloc(count, size);
}

void *realloc(void *before, size_t size) {
  return fails() ? NULL : __libc_realloc(before, size);
}

int posix_memalign(void **out, size_t alignment, size_t size) {
  void *made = fails() ? NULL : __libc_memalign(alignment, size);
  if (made == NULL) return ENOMEM;
  *out = made;
  return 0;
}

typedef int64_t CreateFunction(void *options);
typedef int CloseFunction(int64_t handle);
typedef int LastErrorFunction(char *buf, size_t cap);
typedef int ModeFunction(int mode);

static CreateFunction *create;
static CloseFunction *close_loop;
static LastErrorFunction *last_error;
static ModeFunction *set_interrupt_mode;
static char sentence[200];
static int failures;

static void expect(const char *what, int64_t got, int64_t expected) {
  if (got == expected) return;
  failures++;
  printf("%s: %lld, not %lld\n", what, (long long)got, (long long)expected);
}

/* With so many allocations. */
static void *first_calls(void *count) {
  int64_t made, closed, mode, length;
  left = *(int *)count;
  made = create(NULL);
  left = 0;
  closed = close_loop(made < 0 ? 0 : made);
  mode = set_interrupt_mode(1);
  length = last_error(sentence, sizeof sentence);
  left = -1;
  expect("evloop_create", made < 0 ? made : 0, made < 0 ? -ENOMEM : 0);
  expect("evloop_close", closed, made < 0 ? -ESTALE : 0);
  expect("evloop_set_interrupt_mode", mode, -ENOMEM);
  expect("evloop_last_error", length, (int64_t)strlen(sentence));
  expect("a sentence", length > 0, 1);
  return made < 0 ? NULL : count;
}

static void find(void *library, const char *name, void *place) {
  void *found = dlsym(library, name);
  if (found == NULL) printf("no %s\n", name);
  failures += found == NULL;
  memcpy(place, &found, sizeof found);
}

int main(int argc, char **argv) {
  pthread_t thread;
  void *made = NULL;
  int count;
  void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (library == NULL) {
    printf("the library cannot be loaded\n");
    return 2;
  }
  find(library, "evloop_create", &create);
  find(library, "evloop_close", &close_loop);
  find(library, "evloop_last_error", &last_error);
  find(library, "evloop_set_interrupt_mode", &set_interrupt_mode);
  if (failures > 0) return 1;
  for (count = 0; made == NULL && count < 100; count++) {
    if (pthread_create(&thread, NULL, first_calls, &count) != 0) return 2;
    pthread_join(thread, &made);
  }
  expect("a loop is made at last", made != NULL, 1);
  return failures > 0;
}
