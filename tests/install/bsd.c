/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/* As it is written for BSD: a timer that ends with a user event. */
#include <sys/types.h>
#include <sys/event.h>
#include <sys/time.h>
#include <stddef.h>

int main(void) {
  struct kevent change[2], event;
  struct timespec limit = {20, 0};
  int kq = kqueue();
  if (kq < 0) return 1;
  EV_SET(&change[0], 1, EVFILT_TIMER, EV_ADD, 0, 5, NULL);
  EV_SET(&change[1], 2, EVFILT_USER, EV_ADD | EV_ONESHOT, 0, 0, NULL);
  if (kevent(kq, change, 2, NULL, 0, NULL) < 0) return 2;
  if (kevent(kq, NULL, 0, &event, 1, &limit) != 1) return 3;
  if (event.filter != EVFILT_TIMER || event.data < 1) return 4;
  EV_SET(&change[0], 1, EVFILT_TIMER, EV_DELETE, 0, 0, NULL);
  EV_SET(&change[1], 2, EVFILT_USER, 0, NOTE_TRIGGER, 0, NULL);
  if (kevent(kq, change, 2, &event, 1, &limit) != 1) return 5;
  return event.filter == EVFILT_USER && event.ident == 2 ? 0 : 6;
}
