/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* Idents that others have chosen, for a hash that they know, to collide: they
 * take no longer than any. */

#define _GNU_SOURCE
#include "kqueue_support.h"

enum { IDENTS = 30000 };

#define FACTOR UINT64_C(0x9e3779b97f4a7c15)

/* The factor's inverse, modulo 2^64. */
static uint64_t inverse(void) {
  uint64_t found = 1;
  for (int i = 0; i < 6; i++) found *= 2 - FACTOR * found;
  return found;
}

/* Such that multiplying, folding and multiplying again, as an earlier version
 * of the library did, gives all of them the same low bits and high ones. */
static uint64_t chosen(uint64_t i) {
  uint64_t back = inverse(), hash = (UINT64_C(0x5a) << 56 | i << 24) * back;
  uint64_t second = (hash ^ hash >> 32) * back ^ (uint16_t)KQ_USER;
  uint64_t first = second >> 5 | second << 59;
  return (first ^ first >> 32) * back;
}

static uint64_t plain(uint64_t i) {
  return i * 7919;
}

/* A multiple of the page size, as addresses and offsets are. */
static uint64_t aligned(uint64_t i) {
  return i << 40;
}

/* How long it takes to add them, look them up and delete them. */
static int64_t duration(uint64_t (*ident)(uint64_t)) {
  evloop_kqueue_t kq = new_kqueue();
  int64_t start = now_ns(CLOCK_MONOTONIC);
  for (uint64_t i = 0; i < IDENTS; i++) apply(kq, ident(i), KQ_USER, ADD, 0, 0, 0);
  for (uint64_t i = 0; i < IDENTS; i++) apply(kq, ident(i), KQ_USER, 0, 0, 0, 0);
  for (uint64_t i = 0; i < IDENTS; i++) apply(kq, ident(i), KQ_USER, DELETE, 0, 0, 0);
  int64_t took = now_ns(CLOCK_MONOTONIC) - start;
  CHECK_EQ(evloop_kqueue_close(kq), 0);
  return took;
}

TEST_TIMEOUT(idents_that_are_chosen_take_no_longer_than_others, 60) {
  int64_t usual = duration(plain);
  CHECK(duration(chosen) < 8 * usual + SECOND);
  CHECK(duration(aligned) < 8 * usual + SECOND);
}

CHECK_MAIN()
