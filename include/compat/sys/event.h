/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * <sys/event.h> of FreeBSD, for Linux: put the directory above into the
 * compiler's search path (-I), and link with -levloop-kqueue.
 *
 *   cc -I/usr/local/include/evloop-compat program.c -levloop-kqueue
 *   cc $(pkg-config --cflags --libs evloop-kqueue) program.c
 *
 * The structure and the constants have FreeBSD's layout and values. What each
 * filter does here, bit by bit, is said in <evloop.h>, at
 * evloop_kqueue_control(); what Linux cannot do is refused when it is asked
 * for. EVFILT_PROCDESC, EVFILT_LIO and EVFILT_SENDFILE are not to be had, and
 * not defined, since programs ask with #ifdef. Filters that FreeBSD does not
 * have, and EV_UDATA_SPECIFIC, have numbers that it does not use.
 *
 * The shared library has sigaction(), signal() and their relatives, too, in
 * the place of the C library's, so that a watched signal is counted whatever
 * the program does with it later: see EVLOOP_KQ_FILTER_SIGNAL.
 */
#ifndef EVLOOP_COMPAT_SYS_EVENT_H
#define EVLOOP_COMPAT_SYS_EVENT_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

/* kqueuex(). */
#define KQUEUE_CLOEXEC 0x00000001
#define KQUEUE_CPONFORK 0x00000002

/* Filters. */
#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_AIO (-3)
#define EVFILT_VNODE (-4)
#define EVFILT_PROC (-5)
#define EVFILT_SIGNAL (-6)
#define EVFILT_TIMER (-7)
#define EVFILT_FS (-9)
#define EVFILT_USER (-11)
#define EVFILT_EMPTY (-13)
#define EVFILT_NETDEV (-16)
#define EVFILT_EXCEPT (-17)
#define EVFILT_SYSCOUNT 17

/* What a change does. */
#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_FORCEONESHOT 0x0100
#define EV_KEEPUDATA 0x0200

/* What it sets. */
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_DISPATCH 0x0080
#define EV_UDATA_SPECIFIC 0x0400

/* What is returned. */
#define EV_SYSFLAGS 0xF000
#define EV_DROP 0x1000
#define EV_FLAG1 0x2000
#define EV_FLAG2 0x4000
#define EV_ERROR 0x4000
#define EV_EOF 0x8000
#define EV_OOBAND EV_FLAG1

/* fflags: READ and WRITE. */
#define NOTE_LOWAT 0x00000001
#define NOTE_FILE_POLL 0x00000002

/* EXCEPT. */
#define NOTE_OOB 0x00000002

/* VNODE. */
#define NOTE_DELETE 0x00000001
#define NOTE_WRITE 0x00000002
#define NOTE_EXTEND 0x00000004
#define NOTE_ATTRIB 0x00000008
#define NOTE_LINK 0x00000010
#define NOTE_RENAME 0x00000020
#define NOTE_REVOKE 0x00000040
#define NOTE_OPEN 0x00000080
#define NOTE_CLOSE 0x00000100
#define NOTE_CLOSE_WRITE 0x00000200
#define NOTE_READ 0x00000400

/* PROC. NOTE_EXITSTATUS is macOS's: data of NOTE_EXIT has the status anyway.
 * Its NOTE_REAP is not to be had, and not defined. */
#define NOTE_EXIT 0x80000000
#define NOTE_EXITSTATUS 0x04000000
#define NOTE_FORK 0x40000000
#define NOTE_EXEC 0x20000000
#define NOTE_PCTRLMASK 0xf0000000
#define NOTE_PDATAMASK 0x000fffff
#define NOTE_TRACK 0x00000001
#define NOTE_TRACKERR 0x00000002
#define NOTE_CHILD 0x00000004

/* FS; FreeBSD has them in <sys/mount.h>. */
#define VQ_NOTRESP 0x0001
#define VQ_NEEDAUTH 0x0002
#define VQ_LOWDISK 0x0004
#define VQ_MOUNT 0x0008
#define VQ_UNMOUNT 0x0010
#define VQ_DEAD 0x0020
#define VQ_ASSIST 0x0040
#define VQ_NOTRESPLOCK 0x0080

/* NETDEV. */
#define NOTE_LINKUP 0x00000001
#define NOTE_LINKDOWN 0x00000002
#define NOTE_LINKINV 0x00000004

/* TIMER; the last is macOS's word for the one before it. */
#define NOTE_SECONDS 0x00000001
#define NOTE_MSECONDS 0x00000002
#define NOTE_USECONDS 0x00000004
#define NOTE_NSECONDS 0x00000008
#define NOTE_ABSTIME 0x00000010
#define NOTE_ABSOLUTE NOTE_ABSTIME

/* USER. */
#define NOTE_FFNOP 0x00000000
#define NOTE_FFAND 0x40000000
#define NOTE_FFOR 0x80000000
#define NOTE_FFCOPY 0xc0000000
#define NOTE_FFCTRLMASK 0xc0000000
#define NOTE_FFLAGSMASK 0x00ffffff
#define NOTE_TRIGGER 0x01000000

struct kevent {
  uintptr_t ident;
  short filter;
  unsigned short flags;
  unsigned int fflags;
  int64_t data;
  void *udata;
  uint64_t ext[4];
};

#define EV_SET(kevp_, ident_, filter_, flags_, fflags_, data_, udata_)        \
  do {                                                                        \
    struct kevent *const ev_set_ = (kevp_);                                   \
    ev_set_->ident = (uintptr_t)(ident_);                                     \
    ev_set_->filter = (short)(filter_);                                       \
    ev_set_->flags = (unsigned short)(flags_);                                \
    ev_set_->fflags = (unsigned int)(fflags_);                                \
    ev_set_->data = (int64_t)(data_);                                         \
    ev_set_->udata = (void *)(udata_);                                        \
    ev_set_->ext[0] = 0;                                                      \
    ev_set_->ext[1] = 0;                                                      \
    ev_set_->ext[2] = 0;                                                      \
    ev_set_->ext[3] = 0;                                                      \
  } while (0)

struct timespec;

#ifdef __cplusplus
extern "C" {
#endif

/* As evloop_bsd_kqueue(). */
int kqueue(void);

/* NetBSD's, with O_CLOEXEC and O_NONBLOCK of <fcntl.h>. All queues are
 * close-on-exec. O_NONBLOCK is a flag of the descriptor, which kevent() does
 * not look at. Other flags: -1 and EINVAL. */
int kqueue1(int flags);

/* FreeBSD's, with KQUEUE flags. Other flags: -1 and EINVAL. */
int kqueuex(unsigned int flags);

/* As evloop_bsd_kevent(). */
int kevent(int kq, const struct kevent *changelist, int nchanges,
           struct kevent *eventlist, int nevents,
           const struct timespec *timeout);

#ifdef __cplusplus
}
#endif

#endif
