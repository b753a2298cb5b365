/* SPDX-License-Identifier: MIT OR Apache-2.0 */

/*
 * libevloop: waiting on Linux.
 *
 * cbindgen writes this file from the Rust sources: do not edit it. Link with
 * -levloop (pkg-config evloop), or load libevloop.so.0 with dlopen(3). A
 * program needs no macro and no inline function of this header, and the
 * header defines no name that a system header has. A binding for another
 * language must declare the types: handles, times and data have 64 bits.
 *
 * First come two programs and the conventions, which hold for every function.
 * Then come these sections:
 *
 *   The library: version, errors, handles, interrupted waits
 *   Timer file descriptors (timerfd_create(2), Python's os.timerfd_*)
 *   The event loop
 *   Watchers of descriptors
 *   Watchers of time
 *   Watchers of objects of the library
 *   Watchers of the loop's own steps, and of other threads
 *   Watchers of signals
 *   Watchers of processes
 *   Watchers of files
 *   Watchers of memory pressure
 *   Every watcher
 *   Inspecting an event loop
 *   Statistics, traces and the watchdog of an event loop
 *   select (select(2), Python's select.select)
 *   Poll sets (poll(2), Python's select.poll)
 *   Epoll objects (epoll(7), Python's select.epoll)
 *   /dev/poll objects (Solaris poll(7d), Python's select.devpoll)
 *   Selectors (Python's selectors module)
 *   Kqueues (FreeBSD's kqueue(2), Python's select.kqueue)
 *
 * A first program: a timer that expires twice a second, three times.
 *
 *   #include <evloop.h>
 *   #include <stdio.h>
 *
 *   int main(void) {
 *     tfd_t timer = tfd_create(EVLOOP_CLOCK_MONOTONIC, 0);
 *     tfd_settime(timer, 0, 0.5, 0.5, NULL, NULL);
 *     for (int i = 0; i < 3; i++) {
 *       uint64_t expirations;
 *       if (tfd_read(timer, &expirations) < 0) return 1;
 *       printf("%llu\n", (unsigned long long)expirations);
 *     }
 *     return tfd_close(timer) < 0;
 *   }
 *
 *
 * A second program: an event loop whose timer counts down and closes itself.
 *
 *   #include <evloop.h>
 *   #include <stdio.h>
 *
 *   static void tick(const evloop_event_t *event, void *user_data) {
 *     int *left = user_data;
 *     printf("%d\n", *left);
 *     if (--*left == 0) evloop_watcher_close(event->watcher, 0);
 *   }
 *
 *   int main(void) {
 *     int left = 3;
 *     evloop_t loop = evloop_create(NULL);
 *     evloop_add_timer(loop, EVLOOP_CLOCK_MONOTONIC, 0, 500000000, 500000000,
 *                      0, tick, &left);
 *     int result = evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
 *     evloop_close(loop);
 *     return result < 0;
 *   }
 *
 *
 * Comments. The comment of a function has its parameters, its result and its
 * errors. Where it says nothing else:
 * - the function does not block;
 * - any thread may call it at any time, also while other threads use the same
 *   object;
 * - a signal handler must not call it;
 * - in a forked child it behaves as "Fork" says of its object;
 * - its pointers must be valid, and must not be NULL;
 * - it is in the library since version 0.1.0.
 *
 * Return values. A function returns int or int64_t. A value >= 0 is success, a
 * value < 0 is -errno, with the constants of <errno.h>. The functions neither
 * read nor write errno itself. On failure outputs are unchanged; on success
 * all of them are set. A timeout is not an error: the result is 0 events.
 * evloop_strerror() describes an error, and evloop_last_error() describes the
 * last failure of the calling thread with the values involved. Only
 * evloop_version(), evloop_version_string(), evloop_strerror(),
 * evloop_last_error() and the evloop_bsd functions return something else; the
 * latter set errno.
 *
 * Errors. These have the same cause everywhere, and comments do not list them
 * again. Every function that takes a handle may return the first three:
 *   -ESTALE          the handle is not live: the object was closed before, or
 *                    another thread closed it during the call
 *   -EDOM            the handle is live, and of another kind of object
 *   -ECHILD          the object cannot be used in this forked child: see
 *                    "Fork"
 *   -ENOTRECOVERABLE a bug of the library; from any function. Every later
 *                    call on the object involved returns it too, except close
 *   -ENOSYS, -EPERM  from any constructor: a sandbox forbids a system call,
 *                    which the sentence of evloop_last_error() names
 * These stand in the lists without a text when their cause is this one:
 *   -ENOMEM          no memory is left
 *   -EMFILE          the process has no descriptor left
 *   -ENFILE          the system has no descriptor left
 *   -ENOSPC          the user has no epoll registration left
 *                    (/proc/sys/fs/epoll/max_user_watches)
 *   -EINTR           a signal handler interrupted the wait: see
 *                    evloop_set_interrupt_mode()
 *
 * Handles. A handle is an int64_t from 1 to 2^53-1 that names an object in one
 * table of the process. A constructor returns the handle, or -errno in its
 * place. No misuse of a handle is undefined behaviour: it is -ESTALE or -EDOM.
 * If one thread closes an object while another waits in it, the waiting call
 * returns -ESTALE. The library never issues a handle twice in a process. There
 * are about 2^48 handles for loops and watchers, and as many for all other
 * objects. A process that opens ten million objects in each second has used
 * them up after 326 days; from then on its constructors return -ENOMEM.
 *
 * Memory. Without memory a call returns -ENOMEM and leaves its object as it
 * was; no call ends the process. Closing or freeing an object needs no memory,
 * and neither does the delivery of destroy notifications: none is lost. A loop
 * that is short of memory delivers an event later, or reports it with
 * EVLOOP_ERROR.
 *
 * Time. Times are int64_t nanoseconds; some timer functions take double
 * seconds as well. A timeout < 0 waits for ever, 0 does not wait, and
 * INT64_MAX is 292 years. Waits have nanosecond resolution, use
 * CLOCK_MONOTONIC and never return early.
 *
 * Descriptors. A descriptor that is passed in stays the caller's. The caller
 * keeps it open while it is used. A *_from_fd function wraps that very
 * descriptor, and closing the handle closes it only with EVLOOP_FD_OWN. A
 * *_fileno function returns a descriptor that belongs to the object: do not
 * close it. Descriptors that the library makes are close-on-exec, and none of
 * them becomes 0, 1 or 2 in a program that has closed those.
 *
 * The library itself keeps these descriptors open:
 * - one eventfd for the process, from the first kqueue, epoll object, EPOLL
 *   selector, descriptor of a /dev/poll object or waiting thread on;
 * - one epoll for each thread that has waited in a timer, a poll set, a
 *   /dev/poll object or a selector that is not EPOLL, until that thread ends.
 * The program must not close them. A forked child inherits them, and makes
 * epolls of its own.
 *
 * Closed descriptors. Some programs close all descriptors, or open other files
 * under the same fds, as daemons do. The library then neither writes to, reads
 * from nor closes a file that has the fd of one of its own descriptors. It
 * notices when a wait fails, and otherwise within some milliseconds. From then
 * on:
 * - all constructors work, and so do poll sets and timers;
 * - an object whose own descriptors were closed (an event loop and its
 *   watchers, a kqueue, an epoll object, an EPOLL selector) returns -EBADF, and
 *   can be closed;
 * - the library no longer wakes a thread that was waiting when the descriptors
 *   were closed.
 * The library marks its descriptors, to know them from other files. The mark
 * is the signal of F_SETSIG (fcntl(2)), which has no effect on them. Do not
 * set it.
 *
 * Flags. Flags are bits of a uint32_t, written in hexadecimal; unknown bits are
 * -EINVAL. Constants have the values of the system, so a C program may use the
 * system's names (EPOLLIN for EVLOOP_EPOLLIN).
 *
 * Threads. One thread at a time runs an event loop; several may wait in a
 * kqueue. The library starts a thread only on request: evloop_set_watchdog()
 * starts one, and evloop_kqueue_aio_read() and the functions like it start
 * some where io_uring is not available. These threads block all signals. The
 * library changes no signal mask and prints nothing. It installs signal
 * handlers only for signals that it is asked to watch, and the program's
 * handlers of these still run. It reads no environment variable, so a
 * set-user-id program may use it.
 *
 * Cancellation (pthread_cancel(3)). No function is a cancellation point, and a
 * request does not end a wait of the library. To stop a thread, request its
 * cancellation, then end its wait: with evloop_stop(), with evloop_wakeup(),
 * or by closing the object. While a call runs functions of the program
 * (callbacks, destroy notifications, interrupt checks), cancellation is
 * disabled. When the call returns the cancellation state is what it was, and
 * the request acts at the next cancellation point. Threads that the library
 * starts cannot be cancelled. Not supported are:
 * - asynchronous cancellation (pthread_setcanceltype(3)) of a thread that is
 *   in a call;
 * - functions of the program that enable cancellation and return in that
 *   state, or reach a cancellation point in it.
 *
 * Stack. A call uses at most 8 KB of the caller's stack, so it works on a
 * thread with little more than PTHREAD_STACK_MIN. When the library calls a
 * function of the program, the call has used at most 4 KB. The function needs
 * its own stack besides, and 8 KB more if it calls the library. The library's
 * signal handlers use 1 KB, besides what the kernel saves on the stack. They
 * run on an alternate stack (sigaltstack(2)), except over handlers of the
 * program that do not. These are the figures of a release build.
 *
 * Signals. A wait that a signal handler interrupts continues with the rest of
 * its timeout; evloop_set_interrupt_mode() changes that. A signal handler may
 * call only functions whose comment says "Signals: safe". A signal handler
 * that interrupts a call of the library and forks must not return in the
 * child: the call might wait there for ever for a lock of another thread. (An
 * evloop_interrupt_check_t may fork.)
 *
 * Control-C. The signal handler of a language runtime sets a flag, and the
 * runtime reads the flag when the wait has returned. A watcher over that
 * handler misses no signal, at whatever moment it arrives:
 * evloop_add_signal(loop, SIGINT, 0, NULL, NULL). The handler runs as well,
 * and the wait returns with the watcher's event. With EVLOOP_INTERRUPTIBLE or
 * EVLOOP_EINTR_RETURN a wait returns -EINTR, but a signal that arrives just
 * before its system call does not interrupt it.
 *
 * Fork. In a forked child:
 * - timer file descriptors and poll sets work;
 * - epoll objects, /dev/poll objects and selectors return -ECHILD, because
 *   the kernel would let the child change the parent's registrations;
 * - kqueues return -ECHILD, except those with EVLOOP_KQ_CPONFORK;
 * - event loops and their watchers return -ECHILD until evloop_after_fork().
 * The child can close all of them; that changes nothing for the parent. The
 * library's own threads stay in the parent: evloop_after_fork() starts a
 * watchdog again, and reads and writes that a kqueue has begun continue in the
 * parent.
 *
 * System. Linux 5.10 or newer, 64-bit. A function that uses a newer system
 * call has a fallback.
 */

#ifndef EVLOOP_H
#define EVLOOP_H

#include <stddef.h>
#include <stdint.h>

struct timespec;
struct sigaction;

#ifdef __cplusplus
extern "C" {
#endif /* __cplusplus */

/* ------------------------------------------------------------------------
 * The library: version, errors, handles, interrupted waits
 * ------------------------------------------------------------------------
 *
 * A program handles the objects of all sections in the same way:
 * constructors return handles, and failures are negative numbers. The
 * functions here describe failures, close any object and count open ones.
 * They also choose what a signal handler does to a wait.
 *
 *   tfd_t timer = tfd_create(EVLOOP_CLOCK_MONOTONIC, 0x8000);
 *   char text[200];
 *   evloop_last_error(text, sizeof text);
 *   printf("%s: %s\n", evloop_strerror((int)timer), text);
 *   if (timer > 0) evloop_handle_close(timer);
 */

/** Version of this header: incompatible changes. */
#define EVLOOP_VERSION_MAJOR 0

/** Version of this header: additions. */
#define EVLOOP_VERSION_MINOR 2

/** Version of this header: corrections. */
#define EVLOOP_VERSION_PATCH 0

/**
 * The version of this header as one number, for `#if EVLOOP_VERSION >= 2000`:
 * a million for each major version, a thousand for each minor one.
 * evloop_version() returns that of the loaded library.
 */
#define EVLOOP_VERSION 2000

/**
 * The version of the loaded library.
 *
 * A program that was built with another header compares it with
 * EVLOOP_VERSION.
 *
 * @returns major * 1000000 + minor * 1000 + patch; never negative.
 *
 * Signals: safe.
 */
int evloop_version(void);

/**
 * The version of the loaded library, as text.
 *
 * @returns a string such as "0.2.0". It belongs to the library, is valid as
 *   long as the process lives, and is never NULL.
 *
 * Signals: safe.
 */
const char *evloop_version_string(void);

/**
 * Describes an error in English.
 *
 * Unlike strerror(3) it is safe in every thread, does not depend on the
 * locale, and uses the terms of this library: -ESTALE, for instance, is "the
 * handle is not live". evloop_last_error() has more detail.
 *
 * @param code a value that a function returned; the sign does not matter.
 * @returns a string such as "EBADF: not an open descriptor"; "success" for 0.
 *   It belongs to the library, is valid as long as the process lives, and is
 *   never NULL.
 *
 * Signals: safe.
 */
const char *evloop_strerror(int code);

/**
 * Describes the last failure of the calling thread in one sentence.
 *
 * The English sentence names the function, the cause and the values, such as
 * "evloop_epoll_register: fd 7 is already registered with this epoll
 * (EEXIST)". It stays until the next failure of this thread: successes,
 * timeouts and -EAGAIN leave it. A close function leaves it too if it gets 0 or
 * an error code of a constructor instead of a handle: a program may clean up
 * before it asks why the constructor failed. Each thread has its own sentence;
 * the child of a fork keeps that of the forking thread. The sentence is built
 * here, so a failing call costs nothing for it.
 *
 * @param buf receives the sentence, always terminated by a NUL byte and cut if
 *   it does not fit; may be NULL if cap is 0.
 * @param cap size of buf in bytes.
 * @returns the length of the whole sentence in bytes without its NUL, so a
 *   value >= cap means that the sentence was cut; 0, and an empty string, if
 *   no call of this thread has failed.
 *
 * Errors:
 *   -EINVAL    buf is NULL and cap is not 0. Only this failure does not
 *              replace the sentence
 */
int evloop_last_error(char *buf,
                      size_t cap);

/**
 * Any object of the library: an integer from 1 to 2^53-1, never 0.
 *
 * The value encodes the kind of the object and the generation of its table
 * entry. So the library never takes a closed handle for a newer object
 * (-ESTALE), and recognises a handle of another kind (-EDOM). A double
 * represents the value exactly, so JavaScript and Lua can hold it.
 */
typedef int64_t evloop_handle_t;

/**
 * Closes an object of any kind.
 *
 * It does the same as the close function of that kind, for wrappers that hold
 * handles of several kinds. Threads that wait in the object return -ESTALE.
 *
 * @param handle any live handle.
 * @returns 0.
 *
 * Fork: works in the child, and does nothing to the parent's object.
 */
int evloop_handle_close(evloop_handle_t handle);

/** evloop_handle_count(): every kind together. */
#define EVLOOP_KIND_ANY 0

/** evloop_handle_kind(): a timer file descriptor. */
#define EVLOOP_KIND_TFD 1

/** evloop_handle_kind(): an event loop. */
#define EVLOOP_KIND_LOOP 2

/** evloop_handle_kind(): a watcher of an event loop. */
#define EVLOOP_KIND_WATCHER 3

/** evloop_handle_kind(): a poll set. */
#define EVLOOP_KIND_POLL 4

/** evloop_handle_kind(): an epoll object. */
#define EVLOOP_KIND_EPOLL 5

/** evloop_handle_kind(): a /dev/poll object. */
#define EVLOOP_KIND_DEVPOLL 6

/** evloop_handle_kind(): a kqueue. */
#define EVLOOP_KIND_KQUEUE 7

/** evloop_handle_kind(): a selector. */
#define EVLOOP_KIND_SELECTOR 8

/**
 * Returns the kind of an open object.
 *
 * It returns -ESTALE if the object is closed. Another thread may close the
 * object before the caller uses the result.
 *
 * @param handle any number.
 * @returns EVLOOP_KIND_TFD or another EVLOOP_KIND constant.
 *
 * Fork: works in the child, for every kind.
 */
int evloop_handle_kind(evloop_handle_t handle);

/**
 * Counts the open objects of a kind, to find leaks.
 *
 * @param kind an EVLOOP_KIND constant; EVLOOP_KIND_ANY counts all.
 * @returns the number of open handles at the moment of the call.
 *
 * Errors:
 *   -EINVAL    an unknown kind
 *
 * Fork: the child begins with the parent's objects, until it closes them.
 */
int64_t evloop_handle_count(int kind);

/** evloop_set_interrupt_mode(): resume interrupted waits (the default). */
#define EVLOOP_EINTR_RESTART 0

/** evloop_set_interrupt_mode(): interrupted waits return -EINTR. */
#define EVLOOP_EINTR_RETURN 1

/**
 * Sets what an interrupted wait of the calling thread does.
 *
 * - EVLOOP_EINTR_RESTART, the default: a wait that a signal handler interrupts
 *   continues with the rest of its timeout, as PEP 475 describes it for
 *   Python.
 * - EVLOOP_EINTR_RETURN: the wait returns -EINTR. A language runtime uses it
 *   to run its own signal handlers; the caller then waits again for the rest
 *   of its timeout.
 *
 * A wait of an event loop with EVLOOP_INTERRUPTIBLE returns -EINTR in either
 * mode. Waits of epoll objects and of EPOLL selectors are interrupted without
 * a handler too, by SIGCONT after a stop signal such as SIGSTOP (signal(7)).
 *
 * A signal that arrives just before the system call does not interrupt it. A
 * program that must not miss one watches the signal, with evloop_add_signal()
 * or EVFILT_SIGNAL, or its handler writes to a descriptor that the program
 * waits for as well (the self-pipe trick).
 *
 * @param mode EVLOOP_EINTR_RESTART or EVLOOP_EINTR_RETURN.
 * @returns the previous mode.
 *
 * Errors:
 *   -EINVAL    an unknown mode
 *   -ENOMEM    no memory to store a thread's first choice
 *
 * Threads: affects the calling thread only.
 * Fork: the child's thread keeps the mode.
 */
int evloop_set_interrupt_mode(int mode);

/**
 * Decides what an interrupted wait does; see evloop_set_interrupt_check().
 *
 * Returns 0 to continue the wait with the rest of its timeout, anything else
 * to make the wait return -EINTR. It runs on the waiting thread, and the
 * library holds no lock. It may call every function of the library, and may
 * even close the object that the thread waits in; the wait then returns
 * -ESTALE. It must return: neither longjmp(), pthread_exit() nor a C++
 * exception may leave it.
 */
typedef int (*evloop_interrupt_check_t)(void *user_data);

/**
 * Sets a function that decides what interrupted waits of a thread do.
 *
 * The library calls it at each interruption, and ignores
 * evloop_set_interrupt_mode() while it is set. An embedder of CPython passes a
 * function that calls PyErr_CheckSignals().
 *
 * @param check see evloop_interrupt_check_t; NULL removes the function.
 * @param user_data passed to check; may be NULL. It must stay valid until
 *   check is replaced or removed, or the thread ends.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM    no memory to store a thread's first choice
 *
 * Threads: affects the calling thread only.
 * Fork: the child's thread keeps the function.
 */
int evloop_set_interrupt_check(evloop_interrupt_check_t check,
                               void *user_data);

/* ------------------------------------------------------------------------
 * Timer file descriptors (timerfd_create(2), Python's os.timerfd_*)
 * ------------------------------------------------------------------------
 *
 * A timer file descriptor is a timer of the kernel that a program waits for
 * like a socket: it is readable when it has expired. The program sets it,
 * once or periodically, and reads how often it has expired; it can also wait
 * for it in a select, a poll or an epoll. A program that has an event loop
 * adds timers to the loop instead, with evloop_add_timer().
 *
 *   uint64_t expirations;
 *   tfd_t timer = tfd_create(EVLOOP_CLOCK_MONOTONIC, 0);
 *   tfd_settime_ns(timer, 0, 1000000000, 0, NULL, NULL);
 *   tfd_read(timer, &expirations);
 *   tfd_close(timer);
 */

/** A timer file descriptor; see tfd_create(). */
typedef evloop_handle_t tfd_t;

/** CLOCK_REALTIME: the wall clock, which can be set and stepped. */
#define EVLOOP_CLOCK_REALTIME 0

/** CLOCK_MONOTONIC: cannot be set; stops while the system is suspended. */
#define EVLOOP_CLOCK_MONOTONIC 1

/** CLOCK_BOOTTIME: monotonic, and runs while the system is suspended. */
#define EVLOOP_CLOCK_BOOTTIME 7

/** CLOCK_REALTIME_ALARM: the wall clock; a timer wakes a suspended system. */
#define EVLOOP_CLOCK_REALTIME_ALARM 8

/** CLOCK_BOOTTIME_ALARM: boot time; a timer wakes a suspended system. */
#define EVLOOP_CLOCK_BOOTTIME_ALARM 9

/** tfd_create(): tfd_read() returns -EAGAIN instead of waiting. */
#define EVLOOP_TFD_NONBLOCK 0x800

/** tfd_create(): close on exec; always on, accepted for completeness. */
#define EVLOOP_TFD_CLOEXEC 0x80000

/**
 * Creates a timer file descriptor, disarmed.
 *
 * The descriptor, tfd_fileno(), becomes readable when the timer expires, in
 * every select, poll or epoll, the caller's own included.
 *
 * @param clockid EVLOOP_CLOCK_REALTIME, _MONOTONIC, _BOOTTIME, _REALTIME_ALARM
 *   or _BOOTTIME_ALARM.
 * @param flags 0, EVLOOP_TFD_NONBLOCK, EVLOOP_TFD_CLOEXEC or both. CLOEXEC is
 *   always on. NONBLOCK is for event loops where another reader (another
 *   thread, or a process that shares the timer) may read the timer first.
 * @returns the timer; close it with tfd_close().
 *
 * Errors:
 *   -EINVAL    an unknown clock or flag
 *   -EPERM     an ALARM clock without CAP_WAKE_ALARM
 *   -ENODEV    the kernel cannot mount its anonymous inode device
 *   -EMFILE, -ENFILE, -ENOMEM
 *
 * Fork: the child shares the timer, as it shares any open file. Both processes
 * see and set the same timer.
 * Source: timerfd_create(2).
 */
tfd_t tfd_create(int clockid,
                 uint32_t flags);

/** `*_from_fd`: closing the handle also closes the descriptor. */
#define EVLOOP_FD_OWN 0x1

/**
 * Makes a handle for a timer file descriptor that already exists.
 *
 * The handle works on that very descriptor. Its CLOEXEC and O_NONBLOCK flags
 * stay as they are, and tfd_read() obeys O_NONBLOCK.
 *
 * @param fd a timer file descriptor. It stays the caller's, who closes it
 *   after the handle. With EVLOOP_FD_OWN it belongs to the handle, and
 *   tfd_close() closes it. On failure it stays the caller's.
 * @param flags 0 or EVLOOP_FD_OWN.
 * @returns the timer.
 *
 * Errors:
 *   -EBADF     fd is not open
 *   -EINVAL    fd is not a timer file descriptor, or an event loop's own
 *   -EINVAL    an unknown flag
 *   -ENOMEM
 *
 * Fork: as tfd_create().
 */
tfd_t tfd_from_fd(int fd, uint32_t flags);

/**
 * Returns the descriptor of a timer, to wait for it.
 *
 * It belongs to the timer: do not close it. tfd_close() wakes a thread in
 * tfd_read(), but not one that blocks in a raw read(2) on this descriptor.
 *
 * @param t a timer.
 * @returns the descriptor.
 */
int tfd_fileno(tfd_t t);

/**
 * Closes a timer.
 *
 * The descriptor is closed as soon as no other thread is in a call with the
 * timer, so the kernel cannot reuse the fd under such a thread. A borrowed
 * descriptor stays open; see tfd_from_fd(). Threads in tfd_read() or
 * tfd_wait() return -ESTALE.
 *
 * If an event loop watches the timer (evloop_add_tfd()), close that watcher
 * first. Otherwise the descriptor is closed when the loop has run and noticed,
 * and the watcher gets an event with EVLOOP_ERROR and the result -ESTALE.
 *
 * @param t a timer.
 * @returns 0.
 *
 * Fork: the parent's timer runs on.
 */
int tfd_close(tfd_t t);

/**
 * Closes the handle of a timer and returns its descriptor.
 *
 * The handle is stale, as after tfd_close(). The descriptor belongs to the
 * caller from now on, who closes it; the timer keeps its setting. Threads in
 * tfd_read() or tfd_wait() return -ESTALE.
 *
 * @param t a timer.
 * @returns the descriptor.
 *
 * Since 0.2.0.
 */
int tfd_release(tfd_t t);

/** tfd_settime(): the initial time is a time of the timer's clock. */
#define EVLOOP_TFD_TIMER_ABSTIME 0x1

/**
 * tfd_settime(), with ABSTIME on a wall clock: a clock step cancels the timer.
 */
#define EVLOOP_TFD_TIMER_CANCEL_ON_SET 0x2

/**
 * Arms or disarms a timer, in seconds.
 *
 * As tfd_settime_ns(), with times in seconds. A fraction of a nanosecond is
 * rounded up. So a timer is never early, and a positive time never becomes 0,
 * which would disarm the timer. (Python's os.timerfd_settime() rounds down,
 * and does disarm it.)
 *
 * @param t a timer.
 * @param flags as tfd_settime_ns().
 * @param initial_s seconds until the first expiration; 0 disarms.
 * @param interval_s seconds between later expirations; 0 means only one.
 * @param out_old_initial_s seconds that were left until the next expiration, 0
 *   if the timer was disarmed; may be NULL.
 * @param out_old_interval_s the previous interval; may be NULL.
 * @returns 0.
 *
 * Errors, besides those of tfd_settime_ns():
 *   -EINVAL    a time is NaN
 *   -EOVERFLOW a time is infinite or above 2^63 ns (292 years)
 *
 * Fork: sets the timer that parent and child share.
 * Source: timerfd_settime(2).
 */
int tfd_settime(tfd_t t,
                uint32_t flags,
                double initial_s,
                double interval_s,
                double *out_old_initial_s,
                double *out_old_interval_s);

/**
 * Arms or disarms a timer, in nanoseconds.
 *
 * Expirations that were not read yet are dropped.
 *
 * With EVLOOP_TFD_TIMER_ABSTIME initial_ns is a time of the timer's clock, not
 * a duration. A time in the past expires at once, and a periodic timer then
 * counts every interval since. With EVLOOP_TFD_TIMER_CANCEL_ON_SET besides, a
 * step of a wall clock cancels the timer, and tfd_read() returns -ECANCELED
 * once. On other clocks, or without ABSTIME, the kernel ignores CANCEL_ON_SET.
 *
 * @param t a timer.
 * @param flags 0, EVLOOP_TFD_TIMER_ABSTIME, EVLOOP_TFD_TIMER_CANCEL_ON_SET or
 *   both.
 * @param initial_ns nanoseconds until the first expiration. 0 disarms the
 *   timer, also with ABSTIME; to expire at once pass 1. (With
 *   evloop_timer_set() 0 means at once, and -1 stops the timer.)
 * @param interval_ns nanoseconds between later expirations, without drift; 0
 *   means only one.
 * @param out_old_initial_ns nanoseconds that were left until the next
 *   expiration, 0 if the timer was disarmed; may be NULL.
 * @param out_old_interval_ns the previous interval; may be NULL.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    a time is negative
 *   -EINVAL    an unknown flag
 *   -EBADF     the borrowed descriptor was closed
 *   -ECANCELED the clock was stepped since a CANCEL_ON_SET timer was last read
 *              or set. The kernel has set the new time nevertheless; only the
 *              old values are not known
 *
 * Fork: sets the timer that parent and child share.
 * Source: timerfd_settime(2).
 */
int tfd_settime_ns(tfd_t t,
                   uint32_t flags,
                   int64_t initial_ns,
                   int64_t interval_ns,
                   int64_t *out_old_initial_ns,
                   int64_t *out_old_interval_ns);

/**
 * Returns the time until a timer expires, in seconds.
 *
 * As tfd_gettime_ns(), in seconds.
 *
 * @param t a timer.
 * @param out_initial_s seconds until the next expiration; may be NULL.
 * @param out_interval_s the interval; may be NULL.
 * @returns 0; errors as tfd_gettime_ns().
 *
 * Source: timerfd_gettime(2).
 */
int tfd_gettime(tfd_t t, double *out_initial_s, double *out_interval_s);

/**
 * Returns the time until a timer expires, in nanoseconds.
 *
 * It is always a duration from now, also for a timer that was set with
 * ABSTIME. The call consumes no expirations.
 *
 * @param t a timer.
 * @param out_initial_ns nanoseconds until the next expiration. 0 if the timer
 *   is disarmed, or expires once and has expired; may be NULL.
 * @param out_interval_ns the interval, 0 if none; may be NULL.
 * @returns 0.
 *
 * Errors:
 *   -EBADF     the borrowed descriptor was closed
 *
 * Source: timerfd_gettime(2).
 */
int tfd_gettime_ns(tfd_t t,
                   int64_t *out_initial_ns,
                   int64_t *out_interval_ns);

/**
 * Reads how often a timer has expired; waits for the first expiration.
 *
 * The count begins at the last read or setting, and reading resets it: two
 * threads that read one timer share its expirations.
 *
 * Before Linux 6.10 there is a race. If at the same moment the timer is set,
 * or another process, another handle or a raw read(2) reads it, this call can
 * wait for the next expiration. A tfd_wait() then exceeds its time limit, and
 * tfd_close() does not wake the call. EVLOOP_TFD_NONBLOCK prevents it.
 *
 * @param t a timer. If its descriptor has O_NONBLOCK, as after
 *   EVLOOP_TFD_NONBLOCK, the call does not wait.
 * @param out_expirations the number of expirations, at least 1; may be NULL.
 * @returns 0.
 *
 * Errors:
 *   -EAGAIN    no expiration yet, and the timer does not block
 *   -ECANCELED the clock was stepped, see EVLOOP_TFD_TIMER_CANCEL_ON_SET;
 *              reported once, and the timer stays armed
 *   -ECHILD    an interrupt check forked during this wait, and this is the
 *              child; a new call works
 *   -EBADF     the borrowed descriptor was closed
 *   -EINTR
 *
 * Blocking: until the timer expires; for ever if it is disarmed.
 * Fork: parent and child share the expirations; each goes to one of them.
 * Source: timerfd_create(2).
 */
int tfd_read(tfd_t t, uint64_t *out_expirations);

/**
 * Waits a limited time for a timer to expire, and reads it.
 *
 * As tfd_read() with a time limit; O_NONBLOCK has no effect.
 *
 * @param t a timer.
 * @param timeout_ns nanoseconds to wait, measured on CLOCK_MONOTONIC; 0 does
 *   not wait, negative waits for ever.
 * @param out_expirations the number of expirations, 0 if the time ran out; may
 *   be NULL.
 * @returns 1 if the timer expired, 0 if the time ran out first; errors as
 *   tfd_read(), except -EAGAIN.
 *
 * Blocking: up to timeout_ns, never less.
 * Fork: as tfd_read().
 */
int tfd_wait(tfd_t t,
             int64_t timeout_ns,
             uint64_t *out_expirations);

/**
 * Returns the clock of a timer.
 *
 * @param t a timer.
 * @returns an EVLOOP_CLOCK constant.
 *
 * Errors:
 *   -EBADF     the borrowed descriptor was closed
 * For a timer from tfd_from_fd(), whose clock only /proc knows:
 *   -ENOTSUP   /proc is not mounted
 *   -EMFILE, -ENFILE, -ENOMEM
 *
 * Source: proc_pid_fdinfo(5).
 */
int tfd_clockid(tfd_t t);

/**
 * Sets how many expirations the next read returns, and wakes readers.
 *
 * It is meant for checkpoint and restore; a test can expire a timer with it.
 *
 * @param t a timer.
 * @param ticks the number of expirations, not 0.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    ticks is 0
 *   -ENOTSUP   the kernel has no CONFIG_CHECKPOINT_RESTORE
 *   -EBADF     the borrowed descriptor was closed
 *
 * Fork: sets the timer that parent and child share.
 * Source: TFD_IOC_SET_TICKS of timerfd_create(2).
 */
int tfd_set_ticks(tfd_t t, uint64_t ticks);

/* ------------------------------------------------------------------------
 * The event loop
 * ------------------------------------------------------------------------
 *
 * An event loop waits for many sources at once: descriptors, timers,
 * signals, processes, files and calls from other threads. For each source
 * the program adds a watcher with a callback, then runs the loop on one
 * thread. The loop calls the callbacks one after the other, when their
 * sources have events. It ends when nothing is left to wait for, or at
 * evloop_stop(). A program without callbacks takes the events from
 * evloop_wait().
 *
 *   evloop_t loop = evloop_create(NULL);
 *   evloop_after(loop, 1000000000, on_event, NULL);
 *   evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
 *   evloop_close(loop);
 */

/** An event loop; see evloop_create(). */
typedef evloop_handle_t evloop_t;

/**
 * evloop_options_t: the loop's time is virtual. It stands still until
 * evloop_advance_ns() or EVLOOP_AUTO_ADVANCE moves it.
 */
#define EVLOOP_VIRTUAL_TIME 0x1

/**
 * evloop_options_t: virtual time jumps to the next deadline (of a timer, a
 * timeout or a rate limit) when a run would have to wait: the loop has polled
 * the descriptors, none is ready, and no call is posted. It does not jump with
 * EVLOOP_RUN_NOWAIT, with a time of 0 (evloop_wait(), evloop_run_for_ns()), or
 * while an idle watcher is enabled.
 */
#define EVLOOP_AUTO_ADVANCE 0x2

/**
 * evloop_options_t: the loop wakes up early for timers and spins until they
 * are due, up to 0.12 ms each time. Timers are less late, at the cost of
 * processor time.
 */
#define EVLOOP_PRECISE 0x4

/**
 * evloop_options_t: a run does not end, and a wait does not return, because
 * nothing keeps the loop alive. For loops of worker threads, which wait for
 * posted calls; evloop_stop() ends them. Since 0.2.0.
 */
#define EVLOOP_KEEP_ALIVE 0x8

/**
 * evloop_options_t: a wait of this loop that a signal handler interrupts
 * returns -EINTR. This holds for every thread that runs the loop, whatever it
 * has chosen with evloop_set_interrupt_mode() or evloop_set_interrupt_check().
 * Since 0.2.0.
 */
#define EVLOOP_INTERRUPTIBLE 0x10

/**
 * evloop_options_t: the loop checks all descriptors that it watches, before
 * each wait and every 100 milliseconds of a longer one; for tests and
 * debugging. A watcher whose descriptor was closed, or refers to another file
 * now, gets its event with EVLOOP_ERROR and -EBADF at once, even if a
 * duplicate of the descriptor is open. In its callback evloop_last_error() has
 * a sentence with the descriptor and the watcher's name. The check costs one
 * system call for each descriptor and wait; it does not re-arm an
 * edge-triggered or ONESHOT registration. Since 0.2.0.
 */
#define EVLOOP_CHECK_FDS 0x20

/**
 * How an event loop is made. Set the structure to zero, then `size`, then the
 * fields that should not have their defaults.
 */
typedef struct evloop_options_t {
  /** sizeof(evloop_options_t). */
  size_t size;
  /**
   * EVLOOP_VIRTUAL_TIME, EVLOOP_AUTO_ADVANCE, EVLOOP_PRECISE,
   * EVLOOP_KEEP_ALIVE, EVLOOP_INTERRUPTIBLE, EVLOOP_CHECK_FDS.
   */
  uint32_t flags;
  /** The most descriptors that one iteration dispatches; 0: 1024. */
  int max_events;
  /** The most timers that one iteration dispatches; 0: 4096. */
  int max_timers;
  /** The most posted calls that one iteration makes; 0: 4096. */
  int max_posts;
  /**
   * Since 0.2.0: the tolerance, in nanoseconds, of timers that are added
   * with a tolerance of 0; see evloop_add_timer(). 0: none.
   */
  int64_t timer_tolerance_ns;
  /**
   * Since 0.2.0, with EVLOOP_AUTO_ADVANCE: virtual time jumps only when
   * nothing has happened for this many nanoseconds of real time. For tests
   * with threads, processes or sockets, which need real time to respond.
   * Each jump takes that time, also the jump to a timer's deadline. 0: it
   * jumps at once. See also evloop_virtual_hold().
   */
  int64_t virtual_grace_ns;
} evloop_options_t;

/**
 * Creates an event loop.
 *
 * A loop waits for its watchers and dispatches their events: to the watcher's
 * callback or, for a watcher that was added with a NULL callback, to the array
 * of evloop_wait(). One iteration does the following, in this order:
 *
 *   prepare watchers; the wait
 *   timers: clock by clock, those of a clock in the order of their deadlines
 *   clock_change watchers, async watchers, signal watchers
 *   posted calls; defer watchers; events that a rate limit has delayed
 *   file watchers
 *   descriptors: io, tfd, kqueue, process and memory_pressure watchers, then
 *     those of descriptors that are always ready
 *   failures: events with EVLOOP_ERROR that the loop itself has found
 *   check watchers; idle watchers, if nothing since the wait was dispatched
 *
 * Exit watchers are called at the end of a run. The notifications of
 * evloop_watcher_set_destroy() come before the next callback of any kind. A
 * priority changes the order: see evloop_watcher_set_priority().
 *
 * Fairness: an iteration dispatches at most max_timers timers of each clock,
 * max_posts posted calls and max_events descriptors. The next iteration
 * dispatches the rest, and does not wait. Descriptors come last: while very
 * many timers are due, as many callbacks as the limits allow run between two
 * polls of the descriptors. If that is too long, set lower limits. If more
 * than max_events descriptors are ready they take turns, including those that
 * are always ready (see evloop_add_io()).
 *
 * Memory: the library keeps the slots of closed watchers, 64 bytes each, for
 * the next watchers of any loop. So their number is the greatest number of
 * watchers that were open at once. All other memory of a loop is freed with
 * it.
 *
 * @param options NULL for the defaults, else see evloop_options_t.
 * @returns the loop; close it with evloop_close().
 *
 * Errors:
 *   -EINVAL    an unknown flag
 *   -EINVAL    a limit or a time is negative
 *   -EINVAL    AUTO_ADVANCE without VIRTUAL_TIME, or virtual_grace_ns without
 *              AUTO_ADVANCE
 *   -EINVAL    size is less than sizeof(size_t), such as 0: it was not set
 *   -E2BIG     the structure is larger than this version's, and not zero there
 *   -EMFILE, -ENFILE  a loop takes two descriptors, one more for each clock
 *              with the first timer on it, and one more with evloop_fileno()
 *   -ENOSPC, -ENOMEM
 */
evloop_t evloop_create(const struct evloop_options_t *options);

/**
 * Closes an event loop and all its watchers.
 *
 * The handles of the loop and of all its watchers are stale at once. If the
 * loop is not running, this call frees everything and runs the destroy
 * notifications. If it is running, in another thread or because this is one of
 * its callbacks, the call returns at once. The run then frees everything,
 * after its current callback, and returns -ESTALE.
 *
 * Posted calls that were not made yet are never made. If their user_data must
 * be freed, post them with evloop_post_full(). Everything that was passed to
 * the loop can be freed when the loop is closed and its run, if there is one,
 * has returned.
 *
 * @param loop a loop.
 * @returns 0.
 *
 * Fork: works in the child, and changes nothing for the parent. The child's
 * destroy notifications do not run.
 */
int evloop_close(evloop_t loop);

/** evloop_run(): run until nothing keeps the loop alive, or evloop_stop(). */
#define EVLOOP_RUN_UNTIL_DONE 0

/** evloop_run(): run until at least one event was dispatched. */
#define EVLOOP_RUN_ONCE 1

/** evloop_run(): dispatch what is ready, without waiting. */
#define EVLOOP_RUN_NOWAIT 2

/**
 * Runs an event loop on the calling thread.
 *
 * - UNTIL_DONE runs until evloop_stop(), or until nothing keeps the loop
 *   alive. If nothing does at its beginning, it runs no iteration.
 * - ONCE returns after the first iteration that dispatched an event, or after
 *   evloop_wakeup() or evloop_stop(). Calls of prepare, check and idle
 *   watchers do not count as events. If nothing keeps the loop alive it does
 *   not wait.
 * - NOWAIT runs one iteration that does not wait. What exceeds the limits of
 *   evloop_options_t remains for the next one.
 *
 * If a watcher has no callback the loop stores its event, and evloop_wait()
 * returns it later. Events of one watcher are merged into one; real-time
 * signals are not merged. A stored event does not end a ONCE run. When
 * evloop_wait() returns it, the descriptor may no longer be ready. Disabling
 * or closing an io watcher drops its stored event.
 *
 * A loop is kept alive by posted calls and by each enabled watcher, except:
 * - a timer that is not set, or has expired for the last time;
 * - a defer watcher that was called;
 * - a process watcher whose process has ended;
 * - exit and clock_change watchers;
 * - a watcher after evloop_watcher_unref().
 *
 * A callback cannot run its own loop (-EBUSY). A dialogue that returns only
 * when it is answered needs that. It runs another loop with this one embedded
 * in it, see evloop_fileno(), or waits itself:
 *
 *   while (!answered) {           in a callback of another loop
 *     int due = evloop_embed_prepare(loop);
 *     struct pollfd fd = {evloop_fileno(loop), POLLIN, 0};
 *     if (due == 0) poll(&fd, 1, -1);
 *     evloop_embed_dispatch(loop);
 *   }
 *
 * @param loop a loop.
 * @param mode EVLOOP_RUN_UNTIL_DONE, ONCE or NOWAIT.
 * @returns 1 if something still keeps the loop alive, else 0.
 *
 * Errors:
 *   -EBUSY     the loop is running already, on this thread (in a callback) or
 *              on another
 *   -EINVAL    an unknown mode
 *   -ECHILD    also in the child of a callback that forked, unless the
 *              callback called evloop_after_fork()
 *   -EBADF     the program has closed the loop's own descriptors
 *   -EINTR, -ENOMEM
 *
 * Blocking: as the mode says.
 * Threads: any, one at a time, and not always the same one.
 */
int evloop_run(evloop_t loop, int mode);

/**
 * Runs an event loop on the calling thread for a limited time.
 *
 * As evloop_run(UNTIL_DONE), and it also returns at the end of the time. If
 * nothing keeps the loop alive it returns at once and does not move virtual
 * time; evloop_advance_ns() does that.
 *
 * @param loop a loop.
 * @param duration_ns nanoseconds of the loop's time (virtual time with
 *   EVLOOP_VIRTUAL_TIME); 0 runs one iteration that does not wait, negative
 *   means no limit.
 * @returns as evloop_run().
 *
 * Blocking: up to duration_ns.
 * Threads: as evloop_run().
 */
int evloop_run_for_ns(evloop_t loop, int64_t duration_ns);

/** evloop_event_t type: a descriptor is ready. */
#define EVLOOP_EVENT_IO 1

/** evloop_event_t type: a timer expired. */
#define EVLOOP_EVENT_TIMER 2

/** evloop_event_t type: a timer file descriptor expired. */
#define EVLOOP_EVENT_TFD 3

/** evloop_event_t type: evloop_async_send() was called. */
#define EVLOOP_EVENT_ASYNC 4

/** evloop_event_t type: the iteration dispatched nothing else. */
#define EVLOOP_EVENT_IDLE 5

/** evloop_event_t type: the loop is about to wait. */
#define EVLOOP_EVENT_PREPARE 6

/** evloop_event_t type: the loop has waited and dispatched. */
#define EVLOOP_EVENT_CHECK 7

/** evloop_event_t type: a deferred call. */
#define EVLOOP_EVENT_DEFER 8

/** evloop_event_t type: evloop_run() is about to return. */
#define EVLOOP_EVENT_EXIT 9

/** evloop_event_t type: the wall clock was set. */
#define EVLOOP_EVENT_CLOCK_CHANGE 10

/** evloop_event_t type: a call of evloop_post() without a callback. */
#define EVLOOP_EVENT_POST 11

/**
 * evloop_event_t type: the watcher is closed, and the loop does not use it any
 * more.
 */
#define EVLOOP_EVENT_CLOSED 12

/** evloop_event_t type: a kqueue has events. */
#define EVLOOP_EVENT_KQUEUE 13

/** evloop_event_t type: a signal arrived. */
#define EVLOOP_EVENT_SIGNAL 14

/** evloop_event_t type: a process ended. */
#define EVLOOP_EVENT_PROCESS 15

/**
 * evloop_event_t type: something happened to a file; see evloop_add_file().
 */
#define EVLOOP_EVENT_FILE 16

/** evloop_event_t type: memory is short; see evloop_add_memory_pressure(). */
#define EVLOOP_EVENT_MEMORY_PRESSURE 17

/**
 * evloop_event_t events: the watcher's source failed, and result has the
 * cause:
 * - -EBADF: the descriptor was closed while the loop watched it;
 * - an error of epoll_ctl(2) after evloop_io_modify();
 * - -EEXIST, -EMFILE or -ENOMEM: the loop could not do what another thread
 *   requested;
 * - what the comment of the evloop_add function lists, as evloop_add_tfd().
 *
 * It disables an io watcher. The system has no such bit: an error of a socket
 * is EVLOOP_EPOLLERR.
 */
#define EVLOOP_ERROR 0x1000000

/**
 * What happened to a watcher. It has 64 bytes, the same for every kind of
 * source. A field that the comment of the evloop_add function does not mention
 * is 0.
 */
typedef struct evloop_event_t {
  /** The watcher; 0 for a posted call. */
  int64_t watcher;
  /** The watcher's data: its user_data, or see evloop_watcher_set_data(). */
  uint64_t data;
  /** EVLOOP_EVENT_IO or another EVLOOP_EVENT constant. */
  int type;
  /**
   * IO: EVLOOP_EPOLL bits. FILE: EVLOOP_FILE bits. PROCESS:
   * EVLOOP_PROCESS_STATUS_UNKNOWN. Any: EVLOOP_ERROR.
   */
  uint32_t events;
  /** IO: the descriptor; else -1. */
  int fd;
  /**
   * With EVLOOP_ERROR: the cause, -errno. SIGNAL: the signal. PROCESS: the
   * wait status of waitpid(2).
   */
  int result;
  /**
   * TIMER, TFD: the number of expirations. SIGNAL: the number of signals.
   * Else 1.
   */
  uint64_t count;
  /** TIMER: when the loop found that it was due, on its clock. */
  int64_t time_ns;
  /** TIMER: when it was due, on its clock. */
  int64_t deadline_ns;
  /**
   * SIGNAL, PROCESS, FILE: the key by which evloop_event_siginfo(),
   * evloop_event_process() and evloop_event_name() find the rest; else 0.
   */
  uint64_t reserved;
} evloop_event_t;

/**
 * Called by an event loop for each event, one call at a time, on the thread
 * that runs the loop.
 *
 * The library holds no lock. The callback may call every function of the
 * library on every object. It may close its own watcher, other watchers that
 * are ready in the same iteration (their events are dropped), or the loop
 * itself. It must return, or end the process: neither longjmp(),
 * pthread_exit() nor a C++ exception may leave it.
 *
 * event is valid until the callback returns. user_data is the pointer that was
 * passed with the callback; event->data has the same value, for programs
 * without callbacks. Check event->events for EVLOOP_ERROR first: with it
 * result has the cause, and nothing else happened.
 */
typedef void (*evloop_callback_t)(const struct evloop_event_t *event,
                                  void *user_data);

/**
 * Runs an event loop on the calling thread until it has events to return.
 *
 * It returns the events of watchers that were added with a NULL callback;
 * callbacks of other watchers run as in evloop_run(). A call returns all
 * events that are there and fit. The loop stores the others for the next
 * call, which returns them at once and runs no iteration.
 *
 * @param loop a loop.
 * @param out_events filled from the front, as many as returned.
 * @param max size of out_events, in events; at least 1.
 * @param timeout_ns nanoseconds of the loop's time to wait; 0 does not wait,
 *   negative waits for ever.
 * @returns the number of events. 0 if the time ran out, evloop_stop() or
 *   evloop_wakeup() was called, or nothing keeps the loop alive
 *   (evloop_run(NOWAIT) returns whether it is that).
 *
 * Errors, besides those of evloop_run():
 *   -EINVAL    max is 0 or less, or out_events is NULL
 *
 * Blocking: up to timeout_ns.
 * Threads: any, one at a time (-EBUSY); each call may come from another
 * thread.
 */
int evloop_wait(evloop_t loop,
                struct evloop_event_t *out_events,
                int max,
                int64_t timeout_ns);

/**
 * Ends the run of an event loop.
 *
 * The run finishes its current iteration, with all its callbacks, and returns
 * 1 or 0 as usual. (To end it at once, close the loop.) If the loop is not
 * running, the stop is remembered: the next run or wait returns without an
 * iteration. In both cases an UNTIL_DONE run still calls the exit watchers.
 * Several stops before that count as one, and end one run.
 *
 * evloop_wait() first returns the events that the loop has stored. The first
 * call without any returns 0 for the stop.
 *
 * Posted calls that this iteration does not make stay pending, for the next
 * run or the end of the loop. To stop after them, post a last call that calls
 * evloop_stop(): the calls that the same thread has posted before are made
 * first.
 *
 * In an embedded loop each evloop_embed_dispatch() is such a run. After a stop
 * evloop_embed_prepare() returns 1 and the next dispatch dispatches nothing;
 * the stop is then used up. It does not stop the outer loop: the program must
 * do that by other means.
 *
 * @param loop a loop.
 * @returns 0.
 *
 * Errors:
 *   -EBADF     as evloop_wakeup()
 *
 * Signals: safe (evloop_last_error() is not set).
 */
int evloop_stop(evloop_t loop);

/**
 * Wakes an event loop that waits.
 *
 * The current wait ends, or the next one does if the loop does not wait. So
 * the loop runs its prepare and check watchers, and evloop_wait() and a ONCE
 * run return. Several wake-ups before that count as one. An iteration that
 * does not wait (a NOWAIT run, a timeout of 0, evloop_embed_dispatch()) uses
 * up a wake-up too.
 *
 * @param loop a loop.
 * @returns 0.
 *
 * Errors:
 *   -EBADF     the loop waits and cannot be woken, because the program has
 *              closed the loop's own descriptors
 *
 * Signals: safe (evloop_last_error() is not set).
 */
int evloop_wakeup(evloop_t loop);

/**
 * Queues one call of a function on the thread that runs an event loop.
 *
 * The loop makes the calls of one posting thread in their order, each exactly
 * once. If the loop is closed first it never makes them, and nothing frees
 * user_data (see evloop_close()). A call that a callback posts is made in the
 * next iteration; a call that a prepare callback posts, in the same one. A
 * pending call keeps the loop alive.
 * A posted call cannot be withdrawn: for that use an async or a defer watcher,
 * which can be closed.
 *
 * @param loop a loop.
 * @param callback called with an EVLOOP_EVENT_POST event, whose watcher is 0;
 *   NULL: evloop_wait() returns that event.
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM    the call is not queued
 *
 * Signals: not safe; use evloop_wakeup() or evloop_async_send().
 */
int evloop_post(evloop_t loop,
                evloop_callback_t callback,
                void *user_data);

/**
 * Frees what user_data points to; see evloop_post_full(). free(3) is one.
 *
 * The library holds no lock, and the function may call every function of the
 * library. It must return: neither longjmp() nor a C++ exception may leave it.
 */
typedef void (*evloop_destroy_t)(void *user_data);

/**
 * Queues one call of a function, with a function that frees its data.
 *
 * As evloop_post(), in one order with its calls. destroy is called with
 * user_data exactly once:
 * - on the thread that runs the loop, when callback has returned;
 * - if the loop is closed first, by the call that closes it (evloop_close(),
 *   or the run that ends); callback is then never called;
 * - if this call races with evloop_close() and comes too late, by this call or
 *   by a thread that runs another loop; this call has returned 0 all the same.
 *
 * On failure neither function is called.
 *
 *   evloop_post_full(loop, use, strdup("a copy"), free);
 *
 * @param loop a loop.
 * @param callback as evloop_post(); not NULL if destroy is not.
 * @param user_data passed to callback, in the event's data, then to destroy;
 *   may be NULL.
 * @param destroy see evloop_destroy_t; NULL: as evloop_post().
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    callback is NULL, and destroy is not
 *   -ENOMEM    the call is not queued
 *
 * Fork: of a call that is pending at a fork the child calls neither callback
 * nor destroy, also after evloop_after_fork().
 * Since 0.2.0.
 */
int evloop_post_full(evloop_t loop,
                     evloop_callback_t callback,
                     void *user_data,
                     evloop_destroy_t destroy);

/**
 * Returns the time of an event loop.
 *
 * In a callback it is the time of the iteration. The loop reads the clock when
 * the time is first needed, and the time then stays the same until the next
 * wait or evloop_advance_ns(). So it may be slightly before the time from
 * which a timer counts that the same callback sets. Outside of callbacks this
 * call reads the clock.
 *
 * @param loop a loop.
 * @returns nanoseconds of CLOCK_MONOTONIC or, with EVLOOP_VIRTUAL_TIME, of
 *   virtual time, which begins with 0.
 */
int64_t evloop_now_ns(evloop_t loop);

/**
 * Moves the virtual time of an event loop.
 *
 * The next run or wait dispatches the timers that become due: clock by clock,
 * those of a clock in the order of their deadlines. A time beyond INT64_MAX
 * becomes INT64_MAX. A run that waits in another thread is woken.
 *
 * @param loop a loop with EVLOOP_VIRTUAL_TIME.
 * @param ns nanoseconds to add to all its clocks; not negative.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    ns is negative
 *   -ENOTSUP   the loop has real time
 *   -ENOMEM
 */
int evloop_advance_ns(evloop_t loop, int64_t ns);

/**
 * Adds or removes a hold that keeps virtual time from jumping.
 *
 * A loop with EVLOOP_AUTO_ADVANCE must not jump ahead of work in real time,
 * such as a thread that computes or a request to another process. Hold the
 * time before the work begins, and release it when the result is there. The
 * loop then waits in real time. Holds are counted: while there is one, the
 * time does not jump; evloop_advance_ns() still moves it. A loop without
 * AUTO_ADVANCE only counts.
 *
 *   evloop_virtual_hold(loop, +1);     before the work is queued
 *   evloop_virtual_hold(loop, -1);     in the callback of its result
 *
 * @param loop a loop with EVLOOP_VIRTUAL_TIME.
 * @param change +1 or -1.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    change is neither +1 nor -1
 *   -EINVAL    change is -1 and there is no hold
 *   -ENOTSUP   the loop has real time
 *
 * Fork: after evloop_after_fork() the child's loop has the same holds.
 * Since 0.2.0.
 */
int evloop_virtual_hold(evloop_t loop, int change);

/**
 * Returns how long an event loop may wait for its next timer.
 *
 * It considers timers by their deadlines, without tolerances and without the
 * time for which timers share wake-ups, and watchers that a rate limit delays,
 * whether they keep the loop alive or not. It ignores what only descriptors
 * report: io and tfd watchers, ready or not. Timers that callbacks of the same
 * iteration have set have all their time left.
 *
 * @param loop a loop.
 * @returns nanoseconds of the loop's time until the earliest timer. 0 if a
 *   timer is due, or the loop need not wait for another reason: posted calls,
 *   triggered async watchers, enabled idle and defer watchers, descriptors
 *   that are always ready, events kept for evloop_wait(), a stop or a wake-up.
 *   INT64_MAX if the loop waits only for descriptors and other threads. (A
 *   timer that is set to INT64_MAX, never, counts as due when the clock shows
 *   that.)
 *
 * Errors:
 *   -EBUSY     another thread is running the loop
 *
 * Threads: any, but not while another thread runs the loop.
 */
int64_t evloop_next_timeout_ns(evloop_t loop);

/**
 * Limits how long the next wait of an event loop may last.
 *
 * Call it in a prepare watcher: the wait that follows lasts at most that long,
 * in real time, whatever timers there are. It is for sources that must be
 * polled from time to time and have neither a descriptor nor a timer. After
 * the limited wait the iteration continues as after a wake-up; a ONCE run
 * continues until an event was dispatched. Of several limits the shortest
 * holds. A limit that another callback sets, or that is set while the loop is
 * not running, holds for the next wait. In an embedded loop
 * evloop_next_timeout_ns() includes the limit until the next dispatch.
 *
 * @param loop a loop.
 * @param ns nanoseconds of real time; 0 does not wait.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    ns is negative
 *   -EBUSY     another thread is running the loop
 *
 * Threads: any, but not while another thread runs the loop.
 * Since 0.2.0.
 */
int evloop_limit_wait_ns(evloop_t loop,
                         int64_t ns);

/**
 * Lets the waits of an event loop busy-poll the queues of network devices.
 *
 * It is for servers that spend a processor core to reduce latency. Instead of
 * waiting for an interrupt, the kernel polls the queues that the packets of
 * the loop's sockets came from. See EPIOCSPARAMS of ioctl_eventpoll(2).
 *
 * @param loop a loop.
 * @param usecs microseconds to poll before it waits; 0: not at all.
 * @param budget packets at a time, up to 65535; 0: the kernel's choice, 8. A
 *   budget above 64 needs CAP_NET_ADMIN.
 * @param prefer 1 to keep the device's interrupts off while polling, else 0.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    usecs is above 2^31-1, budget is negative or too large, or
 *              prefer is neither 0 nor 1
 *   -ENOTSUP   before Linux 6.9, or without CONFIG_NET_RX_BUSY_POLL
 *   -EPERM     the kernel refuses the budget
 *
 * Fork: evloop_after_fork() keeps the setting.
 * Since 0.2.0.
 * Source: ioctl_eventpoll(2).
 */
int evloop_set_busy_poll(evloop_t loop,
                         uint32_t usecs,
                         int budget,
                         int prefer);

/**
 * Returns a descriptor that is readable while a loop has events.
 *
 * It embeds the loop in another event loop, such as that of a toolkit. The
 * outer loop waits for this descriptor to be readable. The program calls
 * evloop_embed_prepare() before each wait of the outer loop, and
 * evloop_embed_dispatch() after it. The descriptor belongs to the loop: do not
 * close it.
 *
 * @param loop a loop.
 * @returns the descriptor; the first call makes it.
 *
 * Errors:
 *   -EBUSY     another thread is running the loop
 *   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
 *
 * Fork: it is another descriptor after evloop_after_fork().
 */
int evloop_fileno(evloop_t loop);

/**
 * Prepares an event loop for a wait of an outer loop.
 *
 * It submits all changes to the kernel, sets the timers and runs the prepare
 * watchers. From now until evloop_embed_dispatch() every event makes the
 * descriptor of evloop_fileno() readable. Calls on the loop in between are
 * submitted to the kernel at once where that is possible; otherwise they make
 * the descriptor readable.
 *
 * It may be called again before a dispatch, as an outer loop does that polls
 * its own sources several times before it waits. The prepare watchers run each
 * time:
 *
 *   evloop_embed_prepare(loop);
 *   evloop_add_io(loop, fd, EVLOOP_EPOLLIN, callback, NULL);
 *   int due = evloop_embed_prepare(loop);       counts from here
 *
 * @param loop a loop.
 * @returns 1 if something is ready to dispatch, or evloop_stop() was called:
 *   the outer loop must not block then. The descriptor is readable then too,
 *   but not always with EVLOOP_VIRTUAL_TIME. Else 0. Errors as evloop_run().
 *
 * Threads: any, one at a time (-EBUSY).
 */
int evloop_embed_prepare(evloop_t loop);

/**
 * Dispatches what is ready, after a wait of an outer loop.
 *
 * As evloop_run(NOWAIT), without the prepare watchers, which
 * evloop_embed_prepare() has run.
 *
 * @param loop a loop.
 * @returns as evloop_run().
 *
 * Threads: any, one at a time (-EBUSY).
 */
int evloop_embed_dispatch(evloop_t loop);

/**
 * Makes an event loop usable in a forked child.
 *
 * In a child every call on an inherited loop and its watchers returns -ECHILD
 * until this call; only closing them works. The call makes new descriptors for
 * the loop and registers what it watches with them. The child continues with a
 * copy of the loop, and the parent's loop is not affected.
 *
 * The loop registers descriptors by their fds. A watcher whose descriptor the
 * child has closed gets one EVLOOP_ERROR event; but if the fd refers to
 * another file by then, the loop watches that file. So call this before
 * closing inherited descriptors.
 *
 * The child may miss calls that other threads posted just before the fork. The
 * callback that forked may make this call: the child's run then continues.
 *
 * @param loop a loop that was made before the fork.
 * @returns 0; also if there is nothing to do.
 *
 * Errors:
 *   -EBUSY     at the fork another thread of the parent was in a callback of
 *              the loop, or in a call on it. The state was lost: the loop can
 *              only be closed
 *   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM  it could not do all of it, perhaps for
 *              only one watcher. The loop still belongs to the parent and
 *              nothing is lost: call this again until it succeeds
 */
int evloop_after_fork(evloop_t loop);

/* ------------------------------------------------------------------------
 * Watchers of descriptors
 * ------------------------------------------------------------------------
 *
 * An io watcher calls its callback while a descriptor is ready: a socket has
 * data, a pipe has room. event->events has the bits of what it is ready for.
 * These are the bits of epoll objects, too.
 *
 *   evloop_watcher_t watcher =
 *       evloop_add_io(loop, fd, EVLOOP_EPOLLIN, on_event, NULL);
 *   evloop_io_modify(watcher, EVLOOP_EPOLLIN | EVLOOP_EPOLLOUT);
 *   evloop_run(loop, EVLOOP_RUN_ONCE);
 *   evloop_watcher_close(watcher, 0);
 */

/** A watcher: one source of events in an event loop; see evloop_add_io(). */
typedef evloop_handle_t evloop_watcher_t;

/** Data to read. */
#define EVLOOP_EPOLLIN 0x1

/** Urgent (out-of-band) data, or an exceptional condition. */
#define EVLOOP_EPOLLPRI 0x2

/** Room to write. */
#define EVLOOP_EPOLLOUT 0x4

/** Error; always reported, need not be requested. */
#define EVLOOP_EPOLLERR 0x8

/** Hang-up; always reported, need not be requested. */
#define EVLOOP_EPOLLHUP 0x10

/** Normal data to read. */
#define EVLOOP_EPOLLRDNORM 0x40

/** Priority band data to read. */
#define EVLOOP_EPOLLRDBAND 0x80

/** Room to write normal data. */
#define EVLOOP_EPOLLWRNORM 0x100

/** Room to write priority data. */
#define EVLOOP_EPOLLWRBAND 0x200

/** Unused by Linux; accepted. */
#define EVLOOP_EPOLLMSG 0x400

/** The peer shut down its writing half. */
#define EVLOOP_EPOLLRDHUP 0x2000

/** Wake only some of the epoll sets that watch this descriptor. */
#define EVLOOP_EPOLLEXCLUSIVE 0x10000000

/** Keep the system awake while the event is pending (CAP_BLOCK_SUSPEND). */
#define EVLOOP_EPOLLWAKEUP 0x20000000

/** Disable the registration after one event, until it is modified. */
#define EVLOOP_EPOLLONESHOT 0x40000000

/** Edge-triggered. */
#define EVLOOP_EPOLLET 0x80000000

/**
 * Watches a descriptor.
 *
 * The watcher is level-triggered, unless events has EVLOOP_EPOLLET. With
 * EVLOOP_EPOLLONESHOT its first event disables it, until
 * evloop_watcher_enable() or evloop_io_modify(). Regular files, directories
 * and /dev/null are always ready: every iteration reports them, with
 * EVLOOP_EPOLLET too. If more than max_events descriptors are ready, these
 * take turns with the others.
 *
 * Several watchers may watch one descriptor, but none beside one with
 * EVLOOP_EPOLLEXCLUSIVE. They are all level-triggered if one of them is. So a
 * reader and a writer need not know of each other:
 *
 *   evloop_add_io(loop, fd, EVLOOP_EPOLLIN, read_some, reader);
 *   evloop_add_io(loop, fd, EVLOOP_EPOLLOUT, write_some, writer);
 *
 * Three calls check readiness again, as EPOLL_CTL_MOD and EPOLL_CTL_ADD do:
 * enabling a watcher, modifying it (also to the same events), and adding
 * another watcher for its descriptor. What is ready then is reported, although
 * its edge has passed. Edge-triggered watchers that share the descriptor may
 * be reported once more. For watchers with ET or ONESHOT the check costs one
 * system call before the next wait, with EXCLUSIVE two. A disabled watcher
 * with EXCLUSIVE takes no wake-up from other loops.
 *
 * So an edge-triggered callback that has read enough for now lets other
 * watchers have their turn, and is called again in the next iteration:
 *
 *   evloop_io_modify(event->watcher, EVLOOP_EPOLLIN | EVLOOP_EPOLLET);
 *   return;
 *
 * Close the watcher before the descriptor:
 *
 *   evloop_watcher_close(watcher, 0);
 *   close(fd);
 *
 * If the descriptor was closed first, the watcher gets one event with
 * EVLOOP_ERROR and result -EBADF when the loop notices, and is disabled. The
 * kernel reports nothing of a closed descriptor. The loop notices:
 * - when it next changes the registration, for instance after
 *   evloop_io_modify() to other events;
 * - when a descriptor with the same fd is added;
 * - with EVLOOP_CHECK_FDS, before each wait.
 *
 * The loop does not take a new descriptor with the same fd for the old one.
 * But while a duplicate of the old descriptor is open, the kernel continues to
 * report it under its old fd: event->fd may then be closed, or refer to
 * another file. The loop needs some hundred events to notice that; with
 * EVLOOP_EPOLLET, ONESHOT or EXCLUSIVE it does not notice.
 *
 * Event: type EVLOOP_EVENT_IO, fd, events.
 *
 * @param loop a loop.
 * @param fd the descriptor; it stays the caller's.
 * @param events EVLOOP_EPOLL bits; 0 watches for errors and hang-ups.
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EBADF     fd is not open
 *   -EINVAL    an unknown bit
 *   -EINVAL    a descriptor that the library has made for this loop (that of
 *              evloop_fileno(), or of a watcher), or that it waits with
 *   -EINVAL    EXCLUSIVE for an epoll descriptor, or with other bits than IN,
 *              OUT, ERR, HUP, ET and WAKEUP
 *   -EEXIST    another watcher of the loop watches fd, and one of the two is
 *              EXCLUSIVE. If a thread calls this that does not run the loop,
 *              the error arrives as an event with EVLOOP_ERROR instead
 *   -ELOOP     epoll sets would be nested in a circle or too deep
 *   -ENOMEM    no memory. If only the loop's own thread finds this, the error
 *              arrives as an event with EVLOOP_ERROR, and the watcher is
 *              disabled until it is enabled
 *   -ENOSPC
 *
 * Threads: any; on the thread that runs the loop no lock is taken.
 * Source: epoll_ctl(2).
 */
evloop_watcher_t evloop_add_io(evloop_t loop,
                               int fd,
                               uint32_t events,
                               evloop_callback_t callback,
                               void *user_data);

/**
 * Changes the events that an io watcher watches for.
 *
 * The loop changes the kernel's registration before its next wait, if the
 * events differ by then. What is ready is reported, although its edge has
 * passed: see evloop_add_io(). If the kernel refuses the change, the error
 * arrives as one event with EVLOOP_ERROR.
 *
 * The call enables a watcher that an EVLOOP_EPOLLONESHOT event or an error has
 * disabled. It does not enable one that evloop_watcher_disable() has disabled.
 *
 * @param watcher an io watcher.
 * @param events as evloop_add_io(). With 0 every iteration still reports
 *   errors and hang-ups; to report none call evloop_watcher_disable().
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    an unknown bit, or EXCLUSIVE with ONESHOT or RDHUP. Other
 *              combinations that evloop_add_io() refuses arrive as an event
 *   -EINVAL    not an io watcher
 *   -EEXIST    as evloop_add_io()
 *   -ENOMEM
 *
 * Threads: any; on the thread that runs the loop no lock is taken; from
 * another thread it takes effect before the loop next dispatches.
 */
int evloop_io_modify(evloop_watcher_t watcher,
                     uint32_t events);

/**
 * Sets the events of an io watcher, where 0 disables it.
 *
 * Adapters to other libraries need this. With 0 it is
 * evloop_watcher_disable(); with other events it is evloop_io_modify() and
 * then evloop_watcher_enable().
 *
 * @param watcher an io watcher.
 * @param events as evloop_add_io(); 0 disables the watcher, which then reports
 *   no errors and hang-ups either.
 * @returns 0; errors as evloop_io_modify() and evloop_watcher_enable().
 *
 * Threads: as evloop_io_modify().
 * Since 0.2.0.
 */
int evloop_io_set(evloop_watcher_t watcher,
                  uint32_t events);

/* ------------------------------------------------------------------------
 * Watchers of time
 * ------------------------------------------------------------------------
 *
 * A timer of an event loop calls its callback at a deadline: once, or
 * periodically. evloop_after() and evloop_every() are the short forms of
 * evloop_add_timer(). A timer takes no descriptor of its own, so a loop may
 * have many thousands of them.
 *
 *   evloop_watcher_t timer = evloop_every(loop, 1000000000, on_event, NULL);
 *   evloop_run_for_ns(loop, 3000000000);
 *   evloop_timer_again(timer);
 *   evloop_watcher_close(timer, 0);
 */

/** evloop_add_timer(): the initial time is a time of the timer's clock. */
#define EVLOOP_TIMER_ABSTIME 0x1

/** evloop_add_timer(): one event for each missed expiration. */
#define EVLOOP_TIMER_BURST 0x2

/** evloop_add_timer(): the interval begins at the end of the callbacks. */
#define EVLOOP_TIMER_DELAY 0x4

/** evloop_add_timer(): one event for all missed expirations (the default). */
#define EVLOOP_TIMER_SKIP 0x0

/**
 * evloop_add_timer(): the loop wakes up at the deadline, however dense its
 * timers are. Since 0.2.0.
 */
#define EVLOOP_TIMER_EXACT 0x10

/**
 * Adds a timer.
 *
 * A timer never expires early. Timers of one clock are dispatched in the order
 * of their deadlines; those with the same deadline in the order in which they
 * were set. A periodic timer does not drift: its deadlines are the first one
 * plus multiples of the interval.
 *
 * An expiration is missed when a callback takes long or the watcher is
 * disabled. The flags choose what happens then:
 * - SKIP, the default: one event counts all missed expirations.
 * - BURST: each has an event of its own.
 * - DELAY: the interval begins at the end of the iteration's callbacks. No
 *   expiration is missed, count is always 1, and the timer drifts.
 *
 * A relative timer counts from this call. One that a callback sets counts from
 * the end of the iteration's callbacks, so that setting it does not read the
 * clock. A step of a wall clock does not affect a relative timer. An absolute
 * timer expires when its clock shows its time.
 *
 * Shared wake-ups. As long as timers are sparse the loop wakes up at the
 * deadline of each timer without a tolerance. If it would wake up more than
 * about 1000 times a second only for timers, they share wake-ups. Each is late
 * by at most a tenth of its interval (of its delay, if it expires once; the
 * delay of an absolute timer counts from when it was set) and at most 1 ms.
 * None is early, and the order stays. A timer with no other one in that time is
 * not late. Timers do not share wake-ups with EVLOOP_TIMER_EXACT, in a loop
 * with EVLOOP_PRECISE, and in virtual time. wakeups_saved of evloop_stats()
 * counts the saved wake-ups.
 *
 * Event: type EVLOOP_EVENT_TIMER; count, the expirations, at least 1;
 * deadline_ns, when the first of them was due; time_ns, when the loop found
 * that. Both times are on the timer's clock, but on CLOCK_MONOTONIC for a
 * relative timer of CLOCK_REALTIME.
 *
 * @param loop a loop.
 * @param clockid an EVLOOP_CLOCK constant. The ALARM clocks wake a suspended
 *   system. With EVLOOP_VIRTUAL_TIME every clock shows the virtual time.
 * @param flags 0 or EVLOOP_TIMER_SKIP, or one of BURST and DELAY; and
 *   EVLOOP_TIMER_ABSTIME; and (since 0.2.0) EVLOOP_TIMER_EXACT: the loop wakes
 *   up at the deadline, whatever other timers there are and whatever
 *   timer_tolerance_ns of the loop is. That is a tolerance of 1 ns.
 * @param initial_ns nanoseconds from now or, with ABSTIME, since the clock's
 *   epoch. 0, or a time in the past, expires in the next iteration, unless a
 *   tolerance lets it be later. A deadline of INT64_MAX, or beyond, is never
 *   reached, but such a timer keeps the loop alive. Negative: the timer is not
 *   set, and interval_ns is not stored; see evloop_timer_set().
 * @param interval_ns nanoseconds from one expiration to the next; 0 expires
 *   once.
 * @param tolerance_ns how much later than its deadline the timer may expire,
 *   so that the loop wakes up once for several timers. The loop uses all of
 *   it: a timer of 1 s with a tolerance of 0.2 s expires after 1.2 s if it is
 *   alone. It expires earlier if the loop is awake between the two times for
 *   another reason. 0: timer_tolerance_ns of the loop's options, which is 0 by
 *   default (1 is no tolerance in a loop that has one).
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EINVAL    an unknown clock or flag, or BURST with DELAY
 *   -EINVAL    EXACT with a tolerance
 *   -EINVAL    the interval or the tolerance is negative
 *   -EPERM     an ALARM clock without CAP_WAKE_ALARM
 *   -ENOTSUP   this system has no such clock
 *   -EMFILE, -ENFILE, -ENOSPC  the first timer of a clock takes a descriptor
 *   -ENOMEM
 *
 * Threads: any; on the thread that runs the loop no lock is taken.
 * Source: timerfd_create(2).
 */
evloop_watcher_t evloop_add_timer(evloop_t loop,
                                  int clockid,
                                  uint32_t flags,
                                  int64_t initial_ns,
                                  int64_t interval_ns,
                                  int64_t tolerance_ns,
                                  evloop_callback_t callback,
                                  void *user_data);

/**
 * Calls a function once, after a delay.
 *
 * It is evloop_add_timer() on CLOCK_MONOTONIC, relative, once. The watcher
 * stays until it is closed, which its callback may do:
 *
 *   static void later(const evloop_event_t *event, void *user_data) {
 *     evloop_watcher_close(event->watcher, 0);
 *   }
 *
 * @param loop a loop.
 * @param delay_ns nanoseconds from now; not negative.
 * @param callback called with an EVLOOP_EVENT_TIMER event; NULL: see
 *   evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, a timer.
 *
 * Errors, besides those of evloop_add_timer():
 *   -EINVAL    delay_ns is negative
 *
 * Threads: as evloop_add_timer().
 * Since 0.2.0.
 */
evloop_watcher_t evloop_after(evloop_t loop,
                              int64_t delay_ns,
                              evloop_callback_t callback,
                              void *user_data);

/**
 * Calls a function periodically.
 *
 * It is evloop_add_timer() on CLOCK_MONOTONIC, relative, periodic; the first
 * call comes after one interval. One event counts all missed expirations.
 * evloop_watcher_close() ends the calls.
 *
 * @param loop a loop.
 * @param interval_ns nanoseconds from one call to the next; at least 1.
 * @param callback called with an EVLOOP_EVENT_TIMER event; NULL: see
 *   evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, a timer.
 *
 * Errors, besides those of evloop_add_timer():
 *   -EINVAL    interval_ns is 0 or negative
 *
 * Threads: as evloop_add_timer().
 * Since 0.2.0.
 */
evloop_watcher_t evloop_every(evloop_t loop,
                              int64_t interval_ns,
                              evloop_callback_t callback,
                              void *user_data);

/**
 * Sets a timer to a new time, or stops it.
 *
 * The old setting, and an expiration that was not dispatched yet, are dropped.
 * The tolerance stays as it is. A stopped timer has no interval either:
 * evloop_timer_again() returns -EINVAL until the timer is set again.
 *
 * Zero expires at once, and a negative time stops the timer; with
 * tfd_settime() zero disarms it:
 *
 *   evloop_timer_set(watcher, 0, 0, 0);       expires in the next iteration
 *   evloop_timer_set(watcher, 0, -1, 0);      is stopped
 *
 * @param watcher a timer.
 * @param flags as evloop_add_timer(), but not EVLOOP_TIMER_EXACT.
 * @param initial_ns as evloop_add_timer(); negative stops the timer.
 * @param interval_ns as evloop_add_timer().
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    an unknown flag, or BURST with DELAY
 *   -EINVAL    the interval is negative
 *   -EINVAL    not a timer
 *   -ENOMEM    no memory; the timer is unchanged
 *   -EMFILE, -ENFILE, -ENOSPC  as evloop_add_timer()
 *
 * Threads: any; on the thread that runs the loop no lock is taken; from
 * another thread it takes effect before the loop next dispatches, and the time
 * counts from the call.
 */
int evloop_timer_set(evloop_watcher_t watcher,
                     uint32_t flags,
                     int64_t initial_ns,
                     int64_t interval_ns);

/**
 * Restarts a timer. This is the cheapest call of the library.
 *
 * It is for timeouts that every sign of activity postpones. A periodic timer
 * expires after its interval. A timer that expires once does so after the time
 * that it was last set to, also if it has already expired. The tolerance stays
 * as it is.
 *
 * @param watcher a timer that was set to a relative time, or a periodic one,
 *   and that evloop_timer_set() has not stopped.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    not a timer
 *   -EINVAL    the timer was never set (a negative initial_ns sets nothing,
 *              whatever interval_ns is), or was stopped
 *   -EINVAL    the timer is absolute and expires once
 *   -ENOMEM    no memory; the timer is unchanged
 *
 * Threads: as evloop_timer_set().
 */
int evloop_timer_again(evloop_watcher_t watcher);

/**
 * Sets the tolerance of a timer.
 *
 * It applies to the current setting of the timer, and to later ones.
 *
 * @param watcher a timer.
 * @param tolerance_ns how much later than its deadline it may expire. 0: no
 *   later than a timer without a tolerance (see evloop_add_timer()), whatever
 *   timer_tolerance_ns of the loop is. 1: as with EVLOOP_TIMER_EXACT.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    tolerance_ns is negative
 *   -EINVAL    not a timer
 *   -ENOMEM    no memory; the timer is unchanged
 *
 * Threads: as evloop_timer_set().
 * Since 0.2.0.
 */
int evloop_timer_set_tolerance(evloop_watcher_t watcher,
                               int64_t tolerance_ns);

/**
 * Returns the time until a timer expires.
 *
 * @param watcher a timer.
 * @returns nanoseconds, 0 if it is due; INT64_MAX if it is not set. (A timer
 *   that is set to INT64_MAX, never, returns the time until then.)
 *
 * Errors:
 *   -EINVAL    not a timer
 */
int64_t evloop_timer_remaining_ns(evloop_watcher_t watcher);

/**
 * Adds a watcher that is called when the wall clock is set.
 *
 * It is called when CLOCK_REALTIME makes a step, by clock_settime(2) or after
 * a suspend; not when the clock is slewed, and never with EVLOOP_VIRTUAL_TIME.
 * It does not keep the loop alive.
 *
 * Event: type EVLOOP_EVENT_CLOCK_CHANGE.
 *
 * @param loop, callback, user_data as evloop_add_async().
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EMFILE, -ENFILE, -ENOSPC  the first of a loop takes a descriptor
 *   -ENOMEM
 *
 * Source: TFD_TIMER_CANCEL_ON_SET of timerfd_create(2).
 */
evloop_watcher_t evloop_add_clock_change(evloop_t loop,
                                         evloop_callback_t callback,
                                         void *user_data);

/* ------------------------------------------------------------------------
 * Watchers of objects of the library
 * ------------------------------------------------------------------------
 *
 * An event loop can watch a timer file descriptor and a kqueue of this
 * library. It delivers the expirations of the timer, and reports that the
 * queue has events.
 *
 *   tfd_t tfd = tfd_create(EVLOOP_CLOCK_REALTIME, 0);
 *   tfd_settime(tfd, 0, 0.5, 0.5, NULL, NULL);
 *   evloop_watcher_t watcher = evloop_add_tfd(loop, tfd, on_event, NULL);
 *   evloop_run(loop, EVLOOP_RUN_ONCE);
 *   evloop_watcher_close(watcher, 0);
 */

/**
 * Watches a timer file descriptor.
 *
 * The loop reads it; no other reader should. If the timer is closed before the
 * watcher, its descriptor stays open until the loop has run and noticed.
 *
 * Event: type EVLOOP_EVENT_TFD; count, the expirations. With EVLOOP_ERROR,
 * result is:
 * - -ECANCELED: a step of the clock has cancelled the timer; the watcher stays
 *   enabled;
 * - -ESTALE: the timer was closed.
 *
 * @param loop a loop.
 * @param tfd a timer; it stays the caller's, who closes the watcher first.
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -ENOTSUP   the loop has virtual time, which the kernel's timers do not
 *              follow
 *   -EBADF, -EEXIST  as evloop_add_io()
 *   -ENOSPC, -ENOMEM
 */
evloop_watcher_t evloop_add_tfd(evloop_t loop,
                                tfd_t tfd,
                                evloop_callback_t callback,
                                void *user_data);

/** A kqueue; see evloop_kqueue_create(). */
typedef evloop_handle_t evloop_kqueue_t;

/**
 * Watches a kqueue.
 *
 * The loop calls the callback while the queue has events. The callback takes
 * them with evloop_kqueue_control() and a timeout of 0.
 *
 * Event: type EVLOOP_EVENT_KQUEUE; events is 0, fd -1. If the queue is closed
 * there is one event with EVLOOP_ERROR and result -ESTALE; then the watcher is
 * disabled.
 *
 * @param loop a loop.
 * @param kq a kqueue. It stays the caller's, and is freed when the watcher is
 *   closed too. Of a handle of evloop_kqueue_from_fd() the loop notices only
 *   that this handle is closed.
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EEXIST    as evloop_add_io()
 *   -ENOSPC, -ENOMEM
 *
 * Threads: any; on the thread that runs the loop no lock is taken.
 */
evloop_watcher_t evloop_add_kqueue(evloop_t loop,
                                   evloop_kqueue_t kq,
                                   evloop_callback_t callback,
                                   void *user_data);

/* ------------------------------------------------------------------------
 * Watchers of the loop's own steps, and of other threads
 * ------------------------------------------------------------------------
 *
 * An async watcher lets another thread, or a signal handler, trigger a
 * callback. The other watchers here are called at a step of the loop itself:
 * before a wait, after it, when nothing else is ready, once in the next
 * iteration, or at the end of a run.
 *
 *   evloop_watcher_t async = evloop_add_async(loop, on_event, NULL);
 *   evloop_add_defer(loop, on_event, NULL);
 *   evloop_async_send(async);
 *   evloop_run(loop, EVLOOP_RUN_ONCE);
 */

/**
 * Adds a watcher that any thread, and any signal handler, can trigger.
 *
 * evloop_async_send() triggers it. It keeps the loop alive while it is
 * enabled. To have each single call delivered use evloop_post().
 *
 * Event: type EVLOOP_EVENT_ASYNC.
 *
 * @param loop a loop.
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -ENOMEM
 */
evloop_watcher_t evloop_add_async(evloop_t loop,
                                  evloop_callback_t callback,
                                  void *user_data);

/**
 * Triggers an async watcher.
 *
 * The thread that runs the loop calls the callback. A callback that begins
 * after this call sees all writes that the calling thread made before the
 * call. Several calls before the callback begins count as one. A disabled
 * watcher delivers the event when it is enabled.
 *
 * @param watcher an async watcher.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    not an async watcher
 *   -EBADF     as evloop_wakeup()
 *
 * Signals: safe (evloop_last_error() is not set).
 */
int evloop_async_send(evloop_watcher_t watcher);

/**
 * Adds a watcher that is called while nothing else is ready.
 *
 * It is called in each iteration that dispatched no timer, clock_change, async
 * or defer watcher, posted call or descriptor. While one is enabled the loop
 * is alive and does not wait, so disable or close it when its work is done. An
 * idle watcher without a callback is for evloop_wait(), which returns its
 * event; evloop_run() would spin and keep the processor busy.
 *
 * Event: type EVLOOP_EVENT_IDLE.
 *
 * Parameters, result and errors: as evloop_add_async().
 */
evloop_watcher_t evloop_add_idle(evloop_t loop,
                                 evloop_callback_t callback,
                                 void *user_data);

/**
 * Adds a watcher that is called before each wait.
 *
 * It keeps the loop alive while it is enabled. A library that adds one (or a
 * check watcher) for its own purposes should unreference it. The loop then
 * ends when the program's watchers do:
 *
 *   evloop_watcher_t before = evloop_add_prepare(loop, flush, state);
 *   evloop_watcher_unref(before);
 *
 * Event: type EVLOOP_EVENT_PREPARE.
 *
 * Parameters, result and errors: as evloop_add_async().
 */
evloop_watcher_t evloop_add_prepare(evloop_t loop,
                                    evloop_callback_t callback,
                                    void *user_data);

/**
 * Adds a watcher that is called after each wait.
 *
 * It is called when everything that the wait found was dispatched. It keeps
 * the loop alive while it is enabled. A library that adds one for its own
 * purposes calls evloop_watcher_unref(), as with evloop_add_prepare().
 *
 * Event: type EVLOOP_EVENT_CHECK.
 *
 * Parameters, result and errors: as evloop_add_async().
 */
evloop_watcher_t evloop_add_check(evloop_t loop,
                                  evloop_callback_t callback,
                                  void *user_data);

/**
 * Adds a watcher that is called once, in the next iteration.
 *
 * It is then disabled; after evloop_watcher_enable() it is called once more.
 *
 * Event: type EVLOOP_EVENT_DEFER.
 *
 * Parameters, result and errors: as evloop_add_async().
 */
evloop_watcher_t evloop_add_defer(evloop_t loop,
                                  evloop_callback_t callback,
                                  void *user_data);

/**
 * Adds a watcher that is called when a run ends.
 *
 * It is called just before evloop_run(UNTIL_DONE) or evloop_run_for_ns()
 * returns 0 or 1: because nothing keeps the loop alive, the time is over, or
 * evloop_stop() was called. Exit watchers are called in the order of their
 * priorities. They do not keep the loop alive.
 *
 * Event: type EVLOOP_EVENT_EXIT.
 *
 * Parameters, result and errors: as evloop_add_async().
 */
evloop_watcher_t evloop_add_exit(evloop_t loop,
                                 evloop_callback_t callback,
                                 void *user_data);

/* ------------------------------------------------------------------------
 * Watchers of signals
 * ------------------------------------------------------------------------
 *
 * A signal watcher calls its callback in the event loop, outside of the
 * signal handler, so the callback may call any function. The library
 * installs the handler; the program's own handler of the signal still runs.
 *
 *   evloop_watcher_t watcher =
 *       evloop_add_signal(loop, SIGINT, 0, on_event, NULL);
 *   raise(SIGINT);
 *   evloop_run(loop, EVLOOP_RUN_ONCE);
 *   evloop_watcher_close(watcher, 0);
 */

/**
 * evloop_add_signal(): the signal is blocked, and the loop reads it from a
 * signalfd.
 */
#define EVLOOP_SIGNAL_FD 0x1

/** evloop_add_signal(): the default action of the signal happens as well. */
#define EVLOOP_SIGNAL_KEEP_DEFAULT 0x2

/**
 * Watches a signal.
 *
 * There are two ways to watch it.
 *
 * Without EVLOOP_SIGNAL_FD the library installs a handler over what the
 * program does with the signal:
 * - A handler of the program still runs, and SIG_IGN still ignores.
 * - The default action is replaced: a watched SIGTERM does not end the
 *   process. It is replaced from this call until the watcher is closed, also
 *   while the watcher is disabled or over its rate limit, and in a loop that
 *   no thread runs.
 * - With EVLOOP_SIGNAL_KEEP_DEFAULT the default action happens as well, unless
 *   another watcher of the signal replaces it. SIGABRT, SIGBUS, SIGFPE,
 *   SIGILL, SIGSEGV, SIGSYS and SIGTRAP always keep it.
 * - When the last watcher of the signal is closed, the previous disposition is
 *   back.
 * - A handler that the program installs later replaces the library's, and the
 *   watcher gets no events. It does get them if that handler calls the one
 *   that sigaction(2) has returned, or if the program's calls of sigaction(2)
 *   go through evloop_bsd_sigaction().
 *
 * With EVLOOP_SIGNAL_FD the loop reads the signal from a signalfd. The signal
 * must be blocked in all threads; otherwise it does what it does without a
 * watcher.
 *
 * A handler has side effects, which EVLOOP_SIGNAL_FD does not have:
 * - It interrupts calls that are never resumed (poll, nanosleep, epoll_wait).
 * - A program that is executed without a fork(), or by posix_spawn() or
 *   vfork(), finds the default where the signal was ignored.
 * - The kernel does not send SIGTTIN and SIGTTOU to a process that ignores
 *   them; with a handler they stop a background process that uses the
 *   terminal.
 *
 * The two ways compared:
 *
 *                      the handler               EVLOOP_SIGNAL_FD
 *   handlers           run as before             none, it is blocked
 *   SIG_IGN            delivered                 delivered
 *   SIG_DFL            replaced, see above       does not happen
 *   blocked            delivered once unblocked  must be
 *   sent to process    delivered                 delivered once
 *   sent to a thread   delivered                 delivered if that thread
 *                                                runs the loop
 *   several watchers   each gets each, of all loops and kqueues, with either
 *                      way
 *   counts             each run of the handler   each read: the kernel keeps
 *                                                one of each standard signal
 *                                                until it is read
 *   descriptors        none                      one for each loop
 *
 * Standard signals are counted: event->count is how many arrived since the
 * last event, and evloop_event_siginfo() describes the last one. Each
 * real-time signal has an event of its own, in their order. The library keeps
 * up to 512 of each signal for the loop, and 512 more for each watcher. It
 * counts those beyond, and reports them with one event with EVLOOP_ERROR and
 * result -EOVERFLOW, where event->count is how many were lost.
 *
 * A signal that arrives while the loop does not wait, or while the watcher is
 * disabled or over its rate limit, is not missed: it is delivered later. The
 * watcher keeps the loop alive while it is enabled; see
 * evloop_watcher_unref().
 *
 * Event: type EVLOOP_EVENT_SIGNAL, result (the signal), count.
 *
 * @param loop a loop.
 * @param signum the signal, from 1 to 64.
 * @param flags 0, EVLOOP_SIGNAL_FD or EVLOOP_SIGNAL_KEEP_DEFAULT; both
 *   together are the same as EVLOOP_SIGNAL_FD.
 * @param callback called with each event, on the thread that runs the loop and
 *   outside of signal handlers; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EINVAL    signum is less than 1 or greater than 64
 *   -EINVAL    SIGKILL, SIGSTOP, or a signal that the C library reserves
 *   -EINVAL    an unknown flag
 *   -EBUSY     SIGNAL_FD, and the calling thread has not blocked the signal
 *   -EBUSY     the signal's chain already has 16 handlers of the library: the
 *              program has put its own between them that often
 *   -EMFILE, -ENFILE  the first watcher with SIGNAL_FD takes a descriptor
 *   -ENOSPC, -ENOMEM
 *
 * Threads: any. If a thread closes the watcher that does not run the loop, the
 * previous disposition is back before the loop next dispatches.
 * Fork: in a child of fork() the signal does what it did before it was
 * watched, the default action included, so that a child can be ended; the
 * parent's loop does not see the child's signals. After evloop_after_fork()
 * the child's loop sees the child's signals, and not those from before the
 * fork.
 * Source: sigaction(2), signalfd(2).
 */
evloop_watcher_t evloop_add_signal(evloop_t loop,
                                   int signum,
                                   uint32_t flags,
                                   evloop_callback_t callback,
                                   void *user_data);

/**
 * What arrived with a signal. signo and code determine which fields have a
 * meaning, as sigaction(2) says of siginfo_t; the others are 0.
 */
typedef struct evloop_siginfo_t {
  /** The signal's number. */
  int signo;
  /**
   * Where it comes from: SI_USER (0) for kill(2), SI_QUEUE (-1) for
   * sigqueue(3), CLD_EXITED and others; 0x80 for the kernel itself.
   */
  int code;
  /** si_errno, which is hardly ever set. */
  int error;
  /** Kill, sigqueue, SIGCHLD: the sender, or the child. */
  int pid;
  /** The real user id of that. */
  uint32_t uid;
  /** SIGCHLD: the exit status or the signal. */
  int status;
  /** Sigqueue, timers: si_value, as an int. */
  int value_int;
  /** POSIX timers: how many expirations were missed. */
  int overrun;
  /** Sigqueue, timers: si_value, as a pointer. */
  uint64_t value_ptr;
  /** SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP: the address. */
  uint64_t addr;
  /** SIGIO: si_band. */
  int64_t band;
  /** SIGCHLD: the child's processor time in clock ticks, its own. */
  int64_t utime;
  /** SIGCHLD: the same, the system's. */
  int64_t stime;
  /** SIGIO: the descriptor; else 0, also where there is none. */
  int fd;
  /** POSIX timers: the kernel's number of the timer. */
  int timerid;
  /** SIGSYS: the number of the system call. */
  int syscall;
  /** SIGSYS: AUDIT_ARCH of the call. */
  uint32_t arch;
  /** 0; room for later versions. */
  uint64_t spare[5];
} evloop_siginfo_t;

/**
 * Returns what arrived with a signal.
 *
 * It is available from the delivery of the event, to a callback or by
 * evloop_wait(), until the loop has waited again. Outside of callbacks it is
 * not available after its watcher is closed. If one event has several standard
 * signals it describes the last.
 *
 * @param event an event of a signal watcher: the callback's, or a copy.
 * @param out_info receives it.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    event or out_info is NULL
 *   -EINVAL    event is of another type, or has EVLOOP_ERROR
 *   -ENOENT    the loop has waited since, or there was no memory to keep it
 *   -EBUSY     another thread runs the loop
 *   -ESTALE    the watcher is closed, and this is not a callback
 *
 * Threads: in the callback, or any while no thread runs the loop.
 * Source: sigaction(2).
 */
int evloop_event_siginfo(const struct evloop_event_t *event,
                         struct evloop_siginfo_t *out_info);

/* ------------------------------------------------------------------------
 * Watchers of processes
 * ------------------------------------------------------------------------
 *
 * A process watcher calls its callback when a process ends, with its exit
 * status. It needs no handler of SIGCHLD, and leaves waitpid(2) to the
 * program unless it is asked to wait for the child itself.
 *
 *   pid_t child = fork();
 *   if (child == 0) _exit(3);
 *   evloop_add_process(loop, child, EVLOOP_PROCESS_REAP, on_event, NULL);
 *   evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
 */

/** evloop_add_process(): wait for the child when it has ended. */
#define EVLOOP_PROCESS_REAP 0x1

/** evloop_event_t events, of a process: its status is not known. */
#define EVLOOP_PROCESS_STATUS_UNKNOWN 0x1

/**
 * Watches a process, with one event when it ends.
 *
 * It may be any process that this one can see, a child or not; also one that
 * has ended but was not waited for. The loop watches it by a pidfd, so it
 * never takes another process with a reused id for it. No handler of SIGCHLD
 * is needed or changed.
 *
 * The event has the status of waitpid(2), and the zombie stays until the
 * program waits for it. With EVLOOP_PROCESS_REAP, for children only, the
 * library waits for the child just before it delivers the event; the event has
 * the status that it got. If the watcher is closed before that, the zombie
 * stays the program's.
 *
 * Limits of the status:
 * - Without REAP, before Linux 5.17: if a child's first thread ended before
 *   others, the status is that of the thread and not of the process.
 * - A process that is not a child: the status is known if this process may
 *   inspect it (ptrace(2) access) while it is a zombie or, since Linux 6.15,
 *   once its parent has waited for it. The event comes when the process ends,
 *   and does not wait for that.
 * - On older kernels the status of a child is unknown if other code has waited
 *   for it first, or if SIGCHLD is ignored, so that there are no zombies.
 *
 * While a zombie exists no other process gets its id. So with REAP, kill(pid)
 * on the thread that runs the loop cannot hit another process before the event
 * is delivered, if no other code of the program waits for the child and SIGCHLD
 * is not ignored. Without REAP that holds until the program has waited for the
 * child. On another thread, or for a process that is not a child, it does not
 * hold: use pidfd_open(2) and pidfd_send_signal(2).
 *
 * For an unknown status event->events has EVLOOP_PROCESS_STATUS_UNKNOWN, and
 * event->result is 0.
 *
 * After its event the watcher has closed its descriptor, no longer keeps the
 * loop alive, and does nothing until it is closed. If the process ends while
 * the watcher is disabled, the event comes when it is enabled.
 *
 * Event: type EVLOOP_EVENT_PROCESS; result, the wait status: the exit code
 * times 256, or the signal, plus 128 with a core dump; events.
 * evloop_event_process() has more.
 *
 * @param loop a loop.
 * @param pid the process.
 * @param flags 0 or EVLOOP_PROCESS_REAP.
 * @param callback called with the event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EINVAL    pid is 0 or negative
 *   -EINVAL    an unknown flag
 *   -ESRCH     there is no such process; the id of a thread that is not the id
 *              of a process does not count
 *   -EPERM     REAP, and the process is not a child, or was already waited for
 *   -EMFILE, -ENFILE  a watcher takes a descriptor, until its event
 *   -ENOSPC, -ENOMEM
 *
 * Fork: after evloop_after_fork() the child's loop continues to watch the
 * processes. They are not its children: it reaps none, and their status is
 * that of any other process. If the child has closed the descriptor there is
 * one event with EVLOOP_ERROR and -EBADF.
 * Source: pidfd_open(2), waitid(2).
 */
evloop_watcher_t evloop_add_process(evloop_t loop,
                                    int pid,
                                    uint32_t flags,
                                    evloop_callback_t callback,
                                    void *user_data);

/** evloop_process_t how: it returned from main, or called exit(3). */
#define EVLOOP_PROCESS_EXITED 1

/** evloop_process_t how: a signal ended it. */
#define EVLOOP_PROCESS_KILLED 2

/** evloop_process_t how: a signal ended it, with a core dump. */
#define EVLOOP_PROCESS_DUMPED 3

/** How a process ended, and which resources it used. */
typedef struct evloop_process_t {
  /** The process id, which may be another process's by now. */
  int pid;
  /** EVLOOP_PROCESS_EXITED, KILLED, DUMPED; 0: not known. */
  int how;
  /**
   * EXITED: what it returned from main or gave to exit(3), 0 to 255.
   * KILLED, DUMPED: the signal that ended it. Else 0.
   */
  int status;
  /** 0. */
  int reserved;
  /**
   * Processor time of its own, and of its children that it has waited
   * for, in nanoseconds; -1: not known, as it was no child.
   */
  int64_t user_ns;
  /** The same, the system's on its behalf. */
  int64_t system_ns;
  /** The most memory that it had at a time, in bytes; -1: not known. */
  int64_t max_rss;
  /** 0; room for later versions. */
  uint64_t spare[3];
} evloop_process_t;

/**
 * Returns how a process ended, and which resources it used.
 *
 * It is available from the delivery of the event, to a callback or by
 * evloop_wait(), until the loop has waited again. Outside of callbacks it is
 * not available after its watcher is closed.
 *
 * @param event an event of a process watcher: the callback's, or a copy.
 * @param out_process receives it.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    event or out_process is NULL
 *   -EINVAL    event is of another type, or has EVLOOP_ERROR
 *   -ENOENT    the loop has waited since, or there was no memory to keep it
 *   -EBUSY     another thread runs the loop
 *   -ESTALE    the watcher is closed, and this is not a callback
 *
 * Threads: in the callback, or any while no thread runs the loop.
 * Source: waitid(2).
 */
int evloop_event_process(const struct evloop_event_t *event,
                         struct evloop_process_t *out_process);

/* ------------------------------------------------------------------------
 * Watchers of files
 * ------------------------------------------------------------------------
 *
 * A file watcher calls its callback when a file, a directory or a tree of
 * directories changes. It is built on inotify(7); it also follows new
 * directories of a tree, joins the two halves of a rename, and can follow a
 * path whose file an editor replaces.
 *
 *   evloop_add_file(loop, "/etc/my.conf", EVLOOP_FILE_CLOSE_WRITE,
 *                   EVLOOP_FILE_FOLLOW, on_event, NULL);
 *   evloop_add_file(loop, "/srv/mail", EVLOOP_FILE_CREATE,
 *                   EVLOOP_FILE_RECURSIVE, on_event, NULL);
 *   evloop_run(loop, EVLOOP_RUN_UNTIL_DONE);
 */

/** evloop_add_file(): the file was read. */
#define EVLOOP_FILE_ACCESS 0x1

/** evloop_add_file(): the file was written or truncated. */
#define EVLOOP_FILE_MODIFY 0x2

/**
 * evloop_add_file(): the mode, owner, times, extended attributes or number of
 * links changed.
 */
#define EVLOOP_FILE_ATTRIB 0x4

/**
 * evloop_add_file(): a descriptor that could write to the file was closed.
 */
#define EVLOOP_FILE_CLOSE_WRITE 0x8

/**
 * evloop_add_file(): a descriptor that could not write to the file was closed.
 */
#define EVLOOP_FILE_CLOSE_NOWRITE 0x10

/** evloop_add_file(): the file was opened. */
#define EVLOOP_FILE_OPEN 0x20

/**
 * evloop_add_file(): an entry was moved out of the directory. Together with
 * MOVED_TO: it was renamed.
 */
#define EVLOOP_FILE_MOVED_FROM 0x40

/** evloop_add_file(): an entry was moved into the directory. */
#define EVLOOP_FILE_MOVED_TO 0x80

/** evloop_add_file(): an entry of the directory was created. */
#define EVLOOP_FILE_CREATE 0x100

/** evloop_add_file(): an entry of the directory was deleted. */
#define EVLOOP_FILE_DELETE 0x200

/**
 * evloop_add_file(): the watched file was deleted, and no process has it open.
 */
#define EVLOOP_FILE_DELETE_SELF 0x400

/** evloop_add_file(): the watched file was renamed. */
#define EVLOOP_FILE_MOVE_SELF 0x800

/** evloop_add_file(): all bits that can be requested. */
#define EVLOOP_FILE_ALL 0xfff

/** Only reported: the file system was unmounted. */
#define EVLOOP_FILE_UNMOUNT 0x2000

/**
 * Only reported: events were lost; the program has to check the files itself.
 */
#define EVLOOP_FILE_OVERFLOW 0x4000

/**
 * Only reported, with EVLOOP_FILE_FOLLOW: the path names another file now,
 * which is watched from now on. Since 0.2.0.
 */
#define EVLOOP_FILE_REPLACED 0x10000

/**
 * Only reported, with EVLOOP_FILE_FOLLOW: the path names no file now; the
 * watcher waits for one. Since 0.2.0.
 */
#define EVLOOP_FILE_GONE 0x20000

/** Only reported: the watched file is gone; this is the last event. */
#define EVLOOP_FILE_IGNORED 0x8000

/** Only reported, with other bits: it is a directory. */
#define EVLOOP_FILE_ISDIR 0x40000000

/** evloop_add_file() flag: watch all directories below as well. */
#define EVLOOP_FILE_RECURSIVE 0x1

/**
 * evloop_add_file() flag: watch whatever file the path names. Since 0.2.0.
 */
#define EVLOOP_FILE_FOLLOW 0x2

/** evloop_add_file() flag: -ENOTDIR if it is not a directory. */
#define EVLOOP_FILE_ONLYDIR 0x1000000

/** evloop_add_file() flag: watch a symbolic link itself, not its target. */
#define EVLOOP_FILE_DONT_FOLLOW 0x2000000

/**
 * Watches a file, a directory, or a tree of directories.
 *
 * A file is watched under every name that it gets. A directory also reports
 * what happens to its entries, but not deeper. With EVLOOP_FILE_RECURSIVE all
 * directories below are watched too, including those that appear later.
 * Changes through a mapping of the file, or by other machines on a network
 * file system, are not seen.
 *
 * Event: type EVLOOP_EVENT_FILE; events, the EVLOOP_FILE bit of what happened,
 * and EVLOOP_FILE_ISDIR. evloop_event_name() returns the entry it happened to.
 * Each change has an event of its own, in the order of the changes.
 *
 * Renames. A rename is one event with both MOVED_FROM and MOVED_TO, if the
 * watcher requested both bits and watches both directories.
 * evloop_event_name() returns the new name, evloop_event_old_name() the old
 * one. Otherwise it is one of the two. A MOVED_FROM without its MOVED_TO is
 * delivered 2 ms late, with all events after it, since the other half may
 * still arrive. If that takes longer, they are two events.
 *
 * An exchange (renameat2(2) with RENAME_EXCHANGE) is two renames, as the
 * kernel reports it: old to new, then new to old. If one side is outside of
 * what is watched, it is a MOVED_FROM and a MOVED_TO of the same name, in the
 * order of renameat2()'s arguments. So the last of them does not show whether
 * the name still exists. A tree follows the directories in either case; a
 * program that keeps a copy of the tree checks both names again.
 *
 * These are always reported, whether requested or not:
 * - EVLOOP_FILE_IGNORED: the watched file is gone (deleted and closed by all
 *   processes; or unmounted, after EVLOOP_FILE_UNMOUNT). It is the last event.
 *   The watcher is disabled, does not keep the loop alive, and can only be
 *   closed. If it is enabled, it gets EVLOOP_ERROR with -ENOENT.
 * - EVLOOP_FILE_OVERFLOW: events were lost. They arrived faster than the loop
 *   read them: the kernel keeps max_queued_events for a loop. Or more than
 *   8192 were pending for a watcher that is disabled, over its rate limit, or
 *   has no callback while evloop_wait() is not called. Or there was no memory
 *   for them, or a large directory was renamed while the loop read it. After a
 *   loss in the kernel a recursive watcher has scanned for directories again
 *   before it reports the overflow, though not all in one iteration: what the
 *   program finds from then on is watched.
 * - EVLOOP_ERROR, with the cause in result: a directory of a tree cannot be
 *   watched; evloop_event_name() returns its name. -ENOSPC, -EMFILE, -ENFILE,
 *   -ENOMEM: a resource is used up. -EACCES: the program may not read it.
 *   -ENAMETOOLONG: its path is longer than PATH_MAX, 4096. Or another error of
 *   its file system, such as -EIO. The watcher continues without the
 *   directory, and stays enabled. The same is reported if a directory could be
 *   watched but not be read again after an overflow; the name is empty for the
 *   root of the tree. When a tree is added, only errors other than used-up
 *   resources are reported for its directories.
 *
 * Trees:
 * - The entries of a directory that was created or moved in are reported as
 *   CREATE, as the loop finds them when it reads the directory after it has
 *   begun to watch it. Earlier changes of these entries are not reported. An
 *   entry that is created during the scan is reported once; if directories are
 *   renamed during the scan it may be reported again.
 * - Names are those of the time of the change, not of the time of delivery.
 * - Of a directory that is moved out, nothing more is reported.
 * - Symbolic links are not followed; mounts are. A file system that is mounted
 *   in two places is reported in one of them. What lay under an unmounted file
 *   system is watched, and reported, as if it was created then.
 * - The loop's own reads of directories are reported as OPEN, ACCESS and
 *   CLOSE_NOWRITE, if these are requested.
 * - The loop finds the tree by its path. If the path leads elsewhere because
 *   of a rename, the loop notices at the rename of the tree itself, at the
 *   next new directory, or after an overflow, and reports EVLOOP_FILE_IGNORED.
 *
 * With EVLOOP_FILE_FOLLOW the watcher follows its path, as a program needs
 * that reloads its configuration. An editor saves by writing another file and
 * renaming it over the first one. The watcher then watches the new file and
 * reports EVLOOP_FILE_REPLACED. If no file has the path any more, it reports
 * EVLOOP_FILE_GONE and waits for the next file, which is REPLACED; until then
 * it watches the previous file. Neither the file nor its directory has to
 * exist when the watcher is added: then the first event is REPLACED. IGNORED
 * is not reported: the watcher ends when it is closed.
 *
 * Read the file again at REPLACED: earlier changes of the new file are not
 * reported. A file that was created there, and not renamed, may be half
 * written: CLOSE_WRITE follows when its writer closes it. To see every save,
 * request CLOSE_WRITE too:
 *
 *   evloop_add_file(loop, "/etc/my.conf", EVLOOP_FILE_CLOSE_WRITE,
 *                   EVLOOP_FILE_FOLLOW, reload, NULL);
 *
 * Symbolic links are followed in every directory of the path, unless
 * DONT_FOLLOW is set for the last name. So the target of a link, the link, or
 * a directory of the path may be replaced. The loop does not notice a change
 * - in a directory that the program may not read. If a name is missing in
 *   such a directory, the watcher gets EVLOOP_ERROR with -EACCES. For the
 *   directory of the given path that is always an error.
 * - of a mount over a directory of the path;
 * - behind the first 512 names of the path, where the names of links count;
 * - by another machine on a network file system.
 *
 * A failure to resolve the path is reported once as EVLOOP_ERROR, and the loop
 * tries again when something happens in one of the directories. Nothing else
 * is reported of these directories. Each of them takes an inotify watch, which
 * all watchers of the loop share.
 *
 * Security. The loop opens directories from the root of the tree, with
 * openat2(2) or step by step, and watches and reads them by that descriptor.
 * So a user who may rename directories, in the tree or above it, cannot make
 * the loop watch, read or report what is outside. (Without /proc inotify must
 * find a directory by its path. The loop checks the path before and after, and
 * two renames in that moment can deceive it.) This takes two descriptors for a
 * moment, and one more while a large directory is read. The loop reads a
 * directory that comes into the tree, and forgets one that leaves it, in
 * pieces over several iterations. Of the names in it the loop keeps none but
 * those of requested events.
 *
 * A loop has one inotify for all its file watchers, opened with the first and
 * closed with the last. Watchers of the same file share its kernel watch. Each
 * gets only the events that it requested, and none from before it was added.
 *
 * @param loop a loop.
 * @param path of the file; it is copied. A relative path starts at the current
 *   directory at the time of this call.
 * @param mask EVLOOP_FILE bits up to MOVE_SELF, at least one.
 * @param flags 0, or EVLOOP_FILE_RECURSIVE, ONLYDIR, DONT_FOLLOW, FOLLOW.
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -EINVAL    path is NULL
 *   -EINVAL    mask is 0, or an unknown bit in mask or flags
 *   -EINVAL    RECURSIVE with FOLLOW
 *   -EINVAL    FOLLOW, and path does not end with a name ("/", "..",
 *              "directory/")
 *   -ENOENT    there is no such file, and FOLLOW is not set; or path is empty
 *   -EACCES    the file may not be read, or path may not be searched
 *   -ENOTDIR   RECURSIVE or ONLYDIR, and it is not a directory
 *   -ENOTDIR   a name before the last one of path is not a directory
 *   -ENAMETOOLONG  path is too long
 *   -ELOOP     path has too many symbolic links
 *   -ENOSPC    the user's max_user_watches of inotify is used up
 *   -EMFILE    no descriptor is left, or the user's max_user_instances is used
 *              up
 *   -ENFILE, -ENOMEM
 * -ENOSPC, -EMFILE, -ENFILE and -ENOMEM can also occur in the middle of a
 * tree; the call then watches nothing.
 *
 * Blocking: while the file system resolves the path and, with RECURSIVE, lists
 * all directories. A loop that another thread runs continues, but its file
 * events may wait a little.
 * Fork: evloop_after_fork() watches everything again; what happened since the
 * fork is not reported.
 * Source: inotify(7).
 */
evloop_watcher_t evloop_add_file(evloop_t loop,
                                 const char *path,
                                 uint32_t mask,
                                 uint32_t flags,
                                 evloop_callback_t callback,
                                 void *user_data);

/**
 * Watches the file behind a descriptor.
 *
 * The file is watched whatever its names are, also if it was deleted.
 * Everything else is as with evloop_add_file(), except that the loop finds a
 * tree by the descriptor, so the tree may be renamed. If the descriptor of a
 * tree is closed while the watcher is open, the tree ends at the next new
 * directory.
 *
 * @param loop a loop.
 * @param fd a descriptor, opened in any way (O_PATH too); it stays the
 *   caller's. Without RECURSIVE it may be closed after the call, but
 *   evloop_after_fork() needs it.
 * @param mask, callback, user_data as evloop_add_file().
 * @param flags 0, or EVLOOP_FILE_RECURSIVE, ONLYDIR.
 * @returns the watcher, enabled.
 *
 * Errors, besides those of evloop_add_file():
 *   -EBADF     fd is not open
 *   -ENOTSUP   /proc is not mounted, which the loop needs to find the file
 *
 * Blocking, fork: as evloop_add_file().
 */
evloop_watcher_t evloop_add_file_fd(evloop_t loop,
                                    int fd,
                                    uint32_t mask,
                                    uint32_t flags,
                                    evloop_callback_t callback,
                                    void *user_data);

/**
 * Returns the entry that an event of a file watcher is about.
 *
 * It is the path below the watched file: "name", or "directory/name" in a
 * tree; empty for the watched file itself. It may have any bytes but NUL.
 *
 * @param event an event of type EVLOOP_EVENT_FILE that its watcher, which is
 *   still open, has delivered.
 * @param buf receives the name, always terminated by a NUL byte and cut if it
 *   does not fit; may be NULL if cap is 0.
 * @param cap size of buf in bytes. The path of a watched file is never longer
 *   than PATH_MAX, 4096; that of a directory which is too deep for that is
 *   longer by one name.
 * @returns the length of the whole name in bytes without its NUL, so a value
 *   >= cap means that it was cut.
 *
 * Errors:
 *   -EINVAL    event is NULL or of another type
 *   -EINVAL    buf is NULL and cap is not 0
 *   -ENOENT    the loop has waited since the callback was called, or since
 *              evloop_wait() returned the event
 *
 * Threads: any; but only the thread that runs the loop knows when the loop
 * waits.
 */
int evloop_event_name(const struct evloop_event_t *event,
                      char *buf,
                      size_t cap);

/**
 * Returns the previous name of an entry that was renamed.
 *
 * The name is empty if the event does not have both EVLOOP_FILE_MOVED_FROM and
 * EVLOOP_FILE_MOVED_TO.
 *
 * Parameters, result, errors and threads: as evloop_event_name().
 */
int evloop_event_old_name(const struct evloop_event_t *event,
                          char *buf,
                          size_t cap);

/* ------------------------------------------------------------------------
 * Watchers of memory pressure
 * ------------------------------------------------------------------------
 *
 * A watcher of memory pressure calls its callback when processes stall
 * because memory is short, early enough to free caches. It uses the pressure
 * stall information of the kernel, for the whole system or for one control
 * group.
 *
 *   evloop_watcher_t watcher = evloop_add_memory_pressure(
 *       loop, NULL, EVLOOP_PRESSURE_SOME, 200000000, 2000000000, on_event,
 *       NULL);
 *   evloop_run(loop, EVLOOP_RUN_ONCE);
 *   evloop_watcher_close(watcher, 0);
 */

/** evloop_add_memory_pressure(): at least one task was stalled. */
#define EVLOOP_PRESSURE_SOME 0

/**
 * evloop_add_memory_pressure(): all tasks that were not idle were stalled at
 * the same time.
 */
#define EVLOOP_PRESSURE_FULL 1

/**
 * Watches for a shortage of memory.
 *
 * The loop calls the callback when tasks were stalled for lack of memory for
 * stall_ns of any window_ns, at most once in a window. It is the time to free
 * caches, before the system gets slow or a process is killed. A shortage while
 * the watcher is disabled is reported when it is enabled.
 *
 * Without CAP_SYS_RESOURCE the kernel checks only every 2 s, and at first
 * reports stalls of any length. The loop then compares the total in the file,
 * and calls the callback only if tasks were stalled for stall_ns since the
 * watcher was added or was called.
 *
 * A watcher takes two descriptors.
 *
 * Event: type EVLOOP_EVENT_MEMORY_PRESSURE. With EVLOOP_ERROR and result
 * -ENODEV the control group is gone and the watcher is disabled; close it.
 *
 * @param loop a loop.
 * @param path of the memory.pressure of a control group (version 2); NULL: the
 *   whole system's, /proc/pressure/memory.
 * @param kind EVLOOP_PRESSURE_SOME or EVLOOP_PRESSURE_FULL.
 * @param stall_ns how much of a window; rounded up to microseconds.
 * @param window_ns 500 ms to 10 s, in nanoseconds. Without CAP_SYS_RESOURCE a
 *   multiple of 2 s.
 * @param callback called with each event; NULL: see evloop_wait().
 * @param user_data passed to callback, and in the event's data; may be NULL.
 * @returns the watcher, enabled.
 *
 * Errors:
 *   -ENOTSUP   the kernel has no pressure stall information (CONFIG_PSI),
 *              psi=0 has disabled it, or the kernel accepts no trigger for
 *              another reason
 *   -EINVAL    an unknown kind
 *   -EINVAL    a window that is not allowed, or a stall that is not between 1
 *              ns and the window
 *   -EINVAL    path leads to anything but a file of memory pressure, such as a
 *              FIFO, a directory or /proc/pressure/cpu; the call neither waits
 *              for it nor writes to it
 *   -EACCES, -EPERM, -EROFS  the file is not writable. On kernels older than
 *              6.4 also without CAP_SYS_RESOURCE
 *   -ENOENT, -ENOTDIR, -ELOOP, -ENAMETOOLONG  path cannot be resolved
 *   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
 *
 * Fork: evloop_after_fork() opens the file again, so path must still lead
 * there from the current directory.
 * Source: the kernel's Documentation/accounting/psi.rst.
 */
evloop_watcher_t evloop_add_memory_pressure(evloop_t loop,
                                            const char *path,
                                            int kind,
                                            int64_t stall_ns,
                                            int64_t window_ns,
                                            evloop_callback_t callback,
                                            void *user_data);

/* ------------------------------------------------------------------------
 * Every watcher
 * ------------------------------------------------------------------------
 *
 * These functions work on watchers of every kind: they close, disable,
 * enable, name and order them, and limit their rate.
 *
 *   evloop_watcher_t watcher = evloop_every(loop, 1000000, on_event, NULL);
 *   evloop_watcher_set_name(watcher, "heartbeat");
 *   evloop_watcher_set_priority(watcher, 10);
 *   evloop_watcher_disable(watcher);
 *   evloop_watcher_close(watcher, 0);
 */

/**
 * evloop_watcher_close(): return when no callback of the watcher is running.
 */
#define EVLOOP_CLOSE_WAIT 0x1

/**
 * Closes a watcher.
 *
 * Its handle is stale at once. When this returns, on any thread:
 * - The kernel does not know the descriptor of an io watcher any more, unless
 *   another watcher watches it. So the descriptor can be closed, and its fd
 *   used again.
 * - The loop dispatches no more events of the watcher. A callback that the
 *   loop's thread has already entered may still be running.
 *
 * A callback may close its own watcher; this is the usual way to end:
 *
 *   static void once(const evloop_event_t *event, void *user_data) {
 *     free(user_data);
 *     evloop_watcher_close(event->watcher, 0);
 *   }
 *
 * When user_data can be freed:
 * - closed on the thread that runs the loop, or while no thread runs it: at
 *   once (in the watcher's own callback, when the callback needs it no more);
 * - closed on another thread: in the notification of
 *   evloop_watcher_set_destroy() or, with EVLOOP_CLOSE_WAIT, when this
 *   returns.
 *
 * @param watcher a watcher. It may be one that is ready in the same iteration,
 *   or the one whose callback is running.
 * @param flags 0, or EVLOOP_CLOSE_WAIT to return only when no callback of the
 *   watcher is running.
 * @returns 0.
 *
 * Errors:
 *   -EDEADLK   EVLOOP_CLOSE_WAIT in the watcher's own callback; it is not
 *              closed
 *   -EINVAL    an unknown flag
 *
 * Blocking: no; with EVLOOP_CLOSE_WAIT until the loop's running callback, of
 * whichever watcher, returns. Do not hold a lock that this callback takes, and
 * do not let the callbacks of two loops wait for each other.
 * Threads: any; on the thread that runs the loop no lock is taken.
 * Fork: works in the child, and changes nothing for the parent.
 */
int evloop_watcher_close(evloop_watcher_t watcher,
                         uint32_t flags);

/**
 * Enables a watcher: it delivers events again.
 *
 * A timer that became due while it was disabled expires at once, with all
 * expirations counted. A descriptor that is ready is reported, although its
 * edge has passed: see evloop_add_io().
 *
 * @param watcher a watcher; nothing happens if it is enabled.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM
 * If -ENOMEM was reported in an event: also those of evloop_add_io().
 *
 * Threads: any; on the thread that runs the loop no lock is taken; from
 * another thread it takes effect before the loop next dispatches.
 */
int evloop_watcher_enable(evloop_watcher_t watcher);

/**
 * Disables a watcher: it delivers no events until it is enabled.
 *
 * An event that is ready in the same iteration is dropped; an expiration or an
 * async send, which would be lost, is kept. What is still ready when the
 * watcher is enabled is reported then. A disabled watcher does not keep the
 * loop alive. The loop submits the change to the kernel before its next wait
 * or at the next event, whichever is cheaper.
 *
 * @param watcher a watcher; nothing happens if it is disabled.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_disable(evloop_watcher_t watcher);

/**
 * Sets the priority of a watcher.
 *
 * Of all that is ready in one iteration the higher priority is dispatched
 * first. Equal priorities keep the order of evloop_create(). Prepare, check,
 * idle and exit watchers are each ordered among themselves. A posted call has
 * priority 0.
 *
 * @param watcher a watcher.
 * @param priority any number, 0 by default.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_set_priority(evloop_watcher_t watcher, int priority);

/**
 * Limits how often a watcher is dispatched.
 *
 * After burst events in one interval the watcher pauses until the end of the
 * interval. What happens during the pause is then delivered in one event, with
 * the bits of events and the counts merged. A new limit counts from this call.
 * It ends the pause of an earlier limit, as 0 does, and the next iteration
 * delivers what that had delayed.
 *
 * @param watcher a watcher.
 * @param interval_ns nanoseconds of the loop's time; 0 removes the limit.
 * @param burst events in an interval; at least 1 unless interval_ns is 0.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    the interval is negative, or burst is less than 1
 *   -EMFILE, -ENFILE, -ENOSPC  the first limit of a loop, or the removal of
 *              one, takes the descriptor of CLOCK_MONOTONIC's timers
 *   -ENOMEM
 * If a thread calls this that does not run the loop, these except -EINVAL
 * arrive as an event with EVLOOP_ERROR instead.
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_set_ratelimit(evloop_watcher_t watcher,
                                 int64_t interval_ns,
                                 int burst);

/**
 * Sets the name of a watcher, for statistics, traces and evloop_dump().
 *
 * @param watcher a watcher.
 * @param name a NUL-terminated string, which is copied; NULL: no name.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM
 *
 * Threads: any; takes the loop's lock.
 */
int evloop_watcher_set_name(evloop_watcher_t watcher, const char *name);

/**
 * Returns the name of a watcher.
 *
 * @param watcher a watcher.
 * @param buf receives the name, NUL-terminated. It is cut to fit after any
 *   byte, also inside a character of UTF-8. May be NULL if cap is 0.
 * @param cap size of buf in bytes.
 * @returns the length of the whole name, without the NUL; 0 if it has none.
 *
 * Errors:
 *   -EINVAL    buf is NULL, and cap is not 0
 *
 * Threads: as evloop_watcher_set_name().
 */
int evloop_watcher_get_name(evloop_watcher_t watcher, char *buf, size_t cap);

/**
 * Sets the data of a watcher.
 *
 * @param watcher a watcher.
 * @param data from now on the data of its events, and the user_data of its
 *   callback.
 * @returns 0.
 *
 * Errors:
 *   -ENOMEM
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_set_data(evloop_watcher_t watcher, uint64_t data);

/**
 * Lets a watcher keep its loop alive again; see evloop_watcher_unref().
 *
 * @param watcher a watcher.
 * @returns 0; also if it keeps the loop alive already.
 *
 * Errors:
 *   -ENOMEM
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_ref(evloop_watcher_t watcher);

/**
 * Lets a loop end although this watcher is enabled.
 *
 * It is for watchers that only serve others, such as a timer that prints
 * statistics. It is a property, not a count.
 *
 * @param watcher a watcher.
 * @returns 0; errors as evloop_watcher_ref().
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_unref(evloop_watcher_t watcher);

/**
 * Returns the loop of a watcher, and so whether the watcher is open.
 *
 * The library never uses a handle again, so a program that has kept one can
 * check it:
 *
 *   if (evloop_watcher_loop(watcher) > 0) evloop_watcher_close(watcher, 0);
 *
 * (Closing it without the check is as good: -ESTALE does no harm.)
 *
 * @param watcher a watcher.
 * @returns the loop.
 */
evloop_t evloop_watcher_loop(evloop_watcher_t watcher);

/**
 * Sets the destroy notification of a watcher.
 *
 * The loop calls this function when the watcher is closed and the loop does
 * not use it any more. Then what user_data points to can be freed. The
 * function is called exactly once:
 * - if the loop is running: on the thread that runs it, after the current
 *   callback and before the next one;
 * - if the loop is not running: in the call that closes the watcher or the
 *   loop.
 *
 * Several watchers that one callback closes are all out of use by then, so one
 * notification is enough for them.
 *
 * Event: type EVLOOP_EVENT_CLOSED, watcher the stale handle, data the
 * watcher's.
 *
 * @param watcher a watcher.
 * @param callback called once; NULL: evloop_wait() returns the event. (If the
 *   loop is closed there is no event.)
 * @param user_data passed to callback; may be NULL.
 * @returns 0. A second call replaces the first.
 *
 * Errors:
 *   -ENOMEM
 *
 * Threads: as evloop_watcher_enable().
 */
int evloop_watcher_set_destroy(evloop_watcher_t watcher,
                               evloop_callback_t callback,
                               void *user_data);

/* ------------------------------------------------------------------------
 * Inspecting an event loop
 * ------------------------------------------------------------------------
 *
 * These functions return what a loop watches and what keeps it alive. They
 * answer the question why a loop does not end, also while it is stuck in a
 * callback.
 *
 *   evloop_watcher_info_t info;
 *   info.size = sizeof info;
 *   evloop_watcher_info(evloop_find_io(loop, fd), &info);
 *   if (evloop_alive(loop) == 1) evloop_dump(loop, 2);
 */

/**
 * Returns whether something keeps an event loop alive.
 *
 * It is what evloop_run() would return now; nothing is dispatched.
 *
 * Every thread can call the functions of this section, also that of a watchdog
 * (evloop_set_watchdog()), while the loop waits, runs, or is stuck in a
 * callback. They read what the loop has stored and never wait for the loop. On
 * a thread that does not run the loop the result may be slightly old. It does
 * not include what other threads have requested since the current callback
 * began, except watchers that they have added or closed.
 *
 * To find out why a loop does not end:
 *
 *   evloop_dump(loop, 2);
 *
 * @param loop a loop.
 * @returns 1 or 0; 1 for a loop with EVLOOP_KEEP_ALIVE.
 *
 * Threads: any; takes no lock that a callback or a wait holds.
 * Since 0.2.0.
 */
int evloop_alive(evloop_t loop);

/**
 * Returns the watchers of an event loop.
 *
 * They are all open watchers, disabled ones included, in no particular order.
 * A watcher that another thread adds or closes during the call may be included
 * or not.
 *
 * @param loop a loop.
 * @param out_watchers filled from the front; may be NULL if max is 0.
 * @param max size of out_watchers, in handles; 0 only counts.
 * @returns the number of watchers, which may be more than max.
 *
 * Errors:
 *   -EINVAL    max is negative
 *   -EINVAL    out_watchers is NULL, and max is not 0
 *
 * Threads: as evloop_alive().
 * Since 0.2.0.
 */
int evloop_watchers(evloop_t loop,
                    evloop_watcher_t *out_watchers,
                    int max);

/**
 * The properties and the state of a watcher; see evloop_watcher_info(). Set
 * size first.
 */
typedef struct evloop_watcher_info_t {
  /** sizeof(evloop_watcher_info_t). */
  size_t size;
  /** Its loop. */
  int64_t loop;
  /** Its user_data, or what evloop_watcher_set_data() has set. */
  uint64_t data;
  /** The EVLOOP_EVENT type of its events. */
  int type;
  /** IO: the descriptor; else -1. */
  int fd;
  /** IO: what is watched for, EVLOOP_EPOLL bits; else 0. */
  uint32_t events;
  /**
   * 1 if it is enabled, else 0. An EVLOOP_EPOLLONESHOT event, an error and
   * its last event disable a watcher too.
   */
  int enabled;
  /** 0 after evloop_watcher_unref(), else 1. */
  int referenced;
  /** 1 if it keeps the loop alive now, else 0. */
  int alive;
  /** See evloop_watcher_set_priority(). */
  int priority;
  /** TIMER: the EVLOOP_CLOCK that deadline_ns is on; else -1. */
  int clockid;
  /**
   * TIMER: when it expires next; INT64_MAX if it is not set. If another
   * thread runs the loop, it is INT64_MAX too for a timer that is disabled,
   * or that the running callback has set: that counts from the end of the
   * callback.
   */
  int64_t deadline_ns;
  /** TIMER: its interval, 0 if it expires once; else 0. */
  int64_t interval_ns;
  /**
   * TIMER: how much later than that it may expire, rounded down to 18
   * significant bits; else 0.
   */
  int64_t tolerance_ns;
  /**
   * SIGNAL: the signal. PROCESS: the process id. TFD, KQUEUE: the handle of
   * the watched object. Else 0.
   */
  int64_t subject;
} evloop_watcher_info_t;

/**
 * Returns the properties and the state of a watcher.
 *
 * @param watcher a watcher.
 * @param out_info set its size first; it is filled up to that. What is beyond
 *   this version's evloop_watcher_info_t becomes 0.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    out_info is NULL
 *   -EINVAL    size is less than sizeof(size_t), such as 0: it was not set
 *
 * Threads: as evloop_alive().
 * Since 0.2.0.
 */
int evloop_watcher_info(evloop_watcher_t watcher,
                        struct evloop_watcher_info_t *out_info);

/**
 * Returns the io watcher of a descriptor.
 *
 * @param loop a loop.
 * @param fd a descriptor.
 * @returns the watcher. Of several it is the first that was added or, after
 *   that is closed, one of the others.
 *
 * Errors:
 *   -ENOENT    no watcher watches fd; also if the watched descriptor is closed
 *              and the loop has noticed
 *   -EBADF     fd is negative
 *
 * Threads: as evloop_alive(). While another thread runs the loop, this
 * searches all of its watchers.
 * Since 0.2.0.
 */
evloop_watcher_t evloop_find_io(evloop_t loop,
                                int fd);

/**
 * Writes a list of an event loop's watchers as text.
 *
 * One line describes the loop. Then each watcher has a line: its kind, handle
 * and name, what it watches, and whether it keeps the loop alive. For a file
 * that is its absolute path, at most the last 128 bytes of it, with flags and
 * bits. The text is for people, and may change.
 *
 *   loop 562949953421313: 3 watchers, 2 keep it alive
 *     io 844424930131969 "client": fd 7, events IN, keeps the loop alive
 *     timer 844424930131970: due in 0.250000 s, unreferenced, does not keep
 *       the loop alive
 *     file 844424930131971: path "/etc/my.conf" FOLLOW, events CLOSE_WRITE,
 *       keeps the loop alive
 *
 * (The last two of either are one line.)
 *
 * @param loop a loop.
 * @param fd where to write to; 2 is standard error.
 * @returns the number of watchers in the list.
 *
 * Errors. After a failure some lines may be written:
 *   -EBADF     fd is not open, or not for writing
 *   -EAGAIN    fd does not block, and is full
 *   -EPIPE     fd is a pipe without a reader; no SIGPIPE is raised
 *   -ENOSPC, -EIO  fd cannot be written to; also other errors of write(2)
 *
 * Blocking: as write(2) to fd.
 * Threads: as evloop_alive().
 * Since 0.2.0.
 */
int evloop_dump(evloop_t loop, int fd);

/* ------------------------------------------------------------------------
 * Statistics, traces and the watchdog of an event loop
 * ------------------------------------------------------------------------
 *
 * Statistics count what a loop does and how long its callbacks take. A trace
 * records each wait and each callback, for a viewer. A watchdog reports a
 * callback that runs too long while it is still running.
 *
 *   evloop_set_stats(loop, 1);
 *   evloop_trace_start(loop, "loop.json", 0);
 *   evloop_run_for_ns(loop, 1000000000);
 *   evloop_trace_stop(loop);
 *   evloop_stats_percentile_ns(loop, EVLOOP_STATS_CALLBACK, 99);
 */

/**
 * Turns the counters of an event loop on or off.
 *
 * Turning them on sets them to zero. Before the first call the loop counts
 * nothing, at no cost. While it counts, each callback costs one more read of
 * the processor's time stamp counter (of the clock, where the kernel does not
 * trust that counter): some twenty to thirty nanoseconds.
 *
 * A callback is counted when it has returned, and only if it was called while
 * the counters were on; so a callback that turns them on is not counted. After
 * they are turned off the values can still be read.
 *
 * @param loop a loop.
 * @param on 1 or 0; nothing happens if they are in that state already.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    on is neither 1 nor 0
 *   -ENOMEM    no memory; 150 KB are needed
 *
 * Threads: any; from a thread that does not run the loop it takes effect
 * before the loop next dispatches.
 * Fork: after evloop_after_fork() the child's loop continues to count.
 */
int evloop_set_stats(evloop_t loop,
                     int on);

/**
 * What an event loop has done since evloop_set_stats() or
 * evloop_stats_reset(). Set size first.
 */
typedef struct evloop_stats_t {
  /** sizeof(evloop_stats_t). */
  size_t size;
  /** How long ago that was. */
  int64_t elapsed_ns;
  /** Calls of epoll_wait(), with and without waiting. */
  uint64_t iterations;
  /** Those of them that were to wait, and ended. */
  uint64_t wakeups;
  /** Time asleep; a sleep that is going on is counted up to now. */
  int64_t asleep_ns;
  /** Time in callbacks that have returned. */
  int64_t callback_ns;
  /** The longest callback that has returned. */
  int64_t longest_ns;
  /** When it began, on CLOCK_MONOTONIC; 0 if there was none. */
  int64_t longest_since_ns;
  /** Its watcher, which may be closed by now; 0 for a posted call. */
  int64_t longest_watcher;
  /** The greatest lateness of a timer. */
  int64_t latest_ns;
  /** Events that were delivered, by their EVLOOP_EVENT type. */
  uint64_t events[32];
  /** The type of the longest callback's event, 0 if there was none. */
  int longest_type;
  /** 0. */
  int reserved;
  /**
   * The longest callback's watcher's name, when it returned; empty if it
   * had none. NUL-terminated and cut to fit, not inside a character.
   */
  char longest_name[64];
  /**
   * Since 0.2.0: wake-ups that timers did without, because they shared
   * others; see evloop_add_timer(). At least so many.
   */
  uint64_t wakeups_saved;
} evloop_stats_t;

/**
 * Returns the counters of an event loop.
 *
 * The call neither stops nor delays the loop. Each value is correct, but the
 * values are read one after the other: one may include an event that another
 * does not. The loop counts callbacks of descriptors in groups: a thread that
 * does not run the loop may miss up to 32 of them until the loop next waits,
 * or calls a callback of another kind. The thread that runs the loop misses
 * only the callback that is running.
 *
 * iterations counts all calls of epoll_wait(); wakeups counts those that were
 * to wait, whether an event ended them or not. Events that evloop_wait()
 * returns are counted when the loop stores them for it. Callbacks outside of a
 * run (a notification of evloop_watcher_set_destroy() in the call that closes
 * a watcher of an idle loop) are not counted, not traced, and not seen by a
 * watchdog.
 *
 * Only the longest callback has a name here, that of
 * evloop_watcher_set_name(). For the others set names and make a trace.
 *
 * Times are real time with EVLOOP_VIRTUAL_TIME too; but lateness is on the
 * timer's clock, so it is virtual there.
 *
 * @param loop a loop.
 * @param out_stats set its size first; it is filled up to that. What is beyond
 *   this version's evloop_stats_t becomes 0.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    out_stats is NULL
 *   -EINVAL    size is less than sizeof(size_t), such as 0: it was not set
 *   -ENOENT    evloop_set_stats() was never called
 */
int evloop_stats(evloop_t loop,
                 struct evloop_stats_t *out_stats);

/**
 * Resets the counters of an event loop to zero.
 *
 * A callback that is running is not counted when it returns; of a wait in
 * progress the rest is counted.
 *
 * @param loop a loop.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    evloop_set_stats() was never called
 *
 * Threads: any; it has taken effect when it returns.
 */
int evloop_stats_reset(evloop_t loop);

/**
 * evloop_stats_histogram(): how late timers were, on their clocks, when their
 * callbacks were called.
 */
#define EVLOOP_STATS_LATENESS 0

/** evloop_stats_histogram(): the duration of callbacks. */
#define EVLOOP_STATS_CALLBACK 1

/** The number of buckets of a histogram; later versions may have more. */
#define EVLOOP_STATS_BUCKETS 1630

/**
 * Returns a histogram of an event loop: how many times of each length.
 *
 * Buckets have two significant decimal digits: the first 100 are for 0 to 99
 * ns, the next 90 for 100 ns, 110 ns and so on to 990 ns, the next 90 for 1 us
 * to 9.9 us, and so on; see evloop_stats_bucket_ns().
 *
 * @param loop a loop.
 * @param which EVLOOP_STATS_LATENESS or EVLOOP_STATS_CALLBACK.
 * @param out_counts filled from the front; may be NULL if cap is 0.
 * @param cap size of out_counts, in buckets.
 * @returns the number of buckets that there are, EVLOOP_STATS_BUCKETS.
 *
 * Errors:
 *   -EINVAL    an unknown histogram
 *   -EINVAL    cap is negative, or out_counts is NULL and cap is not 0
 *   -ENOENT    evloop_set_stats() was never called
 */
int evloop_stats_histogram(evloop_t loop,
                           int which,
                           uint64_t *out_counts,
                           int cap);

/**
 * Returns the lower bound of a bucket of a histogram.
 *
 * @param bucket 0 to EVLOOP_STATS_BUCKETS; a bucket ends where the next one
 *   begins.
 * @returns nanoseconds.
 *
 * Errors:
 *   -EINVAL    there is no such bucket
 */
int64_t evloop_stats_bucket_ns(int bucket);

/**
 * Returns a percentile of a histogram.
 *
 * It is the time that this percentage of the counted times did not exceed.
 *
 * @param loop a loop.
 * @param which EVLOOP_STATS_LATENESS or EVLOOP_STATS_CALLBACK.
 * @param percent 0 to 100: 50 is the median, 100 the maximum.
 * @returns nanoseconds: the maximum exactly, other percentiles as the last
 *   value of their bucket, so up to a tenth more.
 *
 * Errors:
 *   -EINVAL    an unknown histogram
 *   -EINVAL    percent is not from 0 to 100
 *   -ENOENT    nothing was counted
 */
int64_t evloop_stats_percentile_ns(evloop_t loop, int which, double percent);

/**
 * Starts a trace of an event loop.
 *
 * The loop records its waits, its callbacks with the names of their watchers,
 * and its iterations, each from the end of a wait to the beginning of the next
 * one. It keeps the last max_events of them in memory. evloop_trace_stop()
 * writes them to the file, as JSON for ui.perfetto.dev and Chrome's
 * about:tracing. So the loop never waits for a disk, and a trace can run until
 * something has happened. The trace does not include callbacks that are
 * running when it starts, nor their iteration.
 *
 * The slices of the trace:
 * - A callback has the name of its watcher, see evloop_watcher_set_name().
 *   Without a name it has the type and the handle, such as "timer
 *   844424930131969"; a posted call is "post".
 * - A wait is "wait", or "look" if it was not to sleep; an iteration is
 *   "iteration".
 * - The category (cat) is always the type.
 * - The args of callbacks are watcher, the handle; of timers late_us; of io
 *   watchers fd and events, bits of EVLOOP_EPOLLIN and the like; of waits
 *   found, the number of ready descriptors, the loop's own included; of
 *   iterations dispatched, the number of events.
 *
 * The loop keeps the names of the last max_events watchers that were closed.
 *
 * If a trace is running when the loop is closed, the thread that closes the
 * loop or ends its run writes it, if there is memory for the text. A failure
 * of that is not reported. If the process ends first, nothing is written.
 *
 * Names are cut at 128 bytes of UTF-8. The file has at most 1200 bytes for
 * each of max_events, and 2400 more.
 *
 * @param loop a loop.
 * @param path a file, which this call creates or empties. Only this user may
 *   read a file that it creates. A symbolic link is not followed (for
 *   /dev/stdout see evloop_trace_start_fd()).
 * @param max_events the number of events to keep, 40 bytes each; 0: 100000.
 * @returns 0.
 *
 * Errors:
 *   -EEXIST    a trace of the loop is running or starting; the file is
 *              unchanged
 *   -EINVAL    path is NULL, or max_events is negative
 *   -ENOENT, -ENOTDIR, -ENAMETOOLONG  path leads to no directory for the file
 *   -ELOOP     path is a symbolic link, or leads through too many
 *   -EACCES, -EPERM, -EROFS, -EISDIR, -ETXTBSY  the file is not writable
 *   -ENXIO     path is a FIFO without a reader, or a socket
 *   -EBUSY     another process has a lease of the file (fcntl(2)), or it is a
 *              device in use
 *   -ENODEV, -ENOSPC, -EDQUOT, -EIO  the file cannot be created or opened
 *   -EMFILE, -ENFILE, -ENOMEM
 *
 * Blocking: while the file system opens a file; it waits for no other process.
 * Threads: any; from a thread that does not run the loop the trace starts
 * before the loop next dispatches.
 * Fork: the trace does not continue in the child of evloop_after_fork().
 */
int evloop_trace_start(evloop_t loop,
                       const char *path,
                       int max_events);

/**
 * Starts a trace of an event loop that goes to a descriptor.
 *
 * As evloop_trace_start(), with a descriptor in place of the path.
 *
 * @param loop a loop.
 * @param fd open for writing. It is duplicated: the caller may close it.
 * @param max_events as evloop_trace_start().
 * @returns 0.
 *
 * Errors:
 *   -EEXIST    a trace of the loop is running or starting
 *   -EBADF     fd is not open, or not for writing
 *   -EINVAL    max_events is negative, or fd is one of the library's own
 *   -EMFILE, -ENOMEM
 *
 * Threads, fork: as evloop_trace_start().
 */
int evloop_trace_start_fd(evloop_t loop, int fd, int max_events);

/**
 * Stops a trace and writes it to its file.
 *
 * The trace includes a callback that is running, marked "running", so it shows
 * a stuck callback too. Events before the last max_events are missing; the
 * result and the file have their number.
 *
 * @param loop a loop.
 * @returns the number of missing events.
 *
 * Errors:
 *   -ENOENT    no trace is running
 *   -ENOMEM    no memory. Recording has stopped and nothing was written: call
 *              this again
 *   -ENOSPC, -EDQUOT, -EFBIG, -EPIPE, -EIO  the trace has ended, but the file
 *              is not complete; also other errors of write(2)
 *   -EBADF     the trace has ended, and its descriptor was closed: nothing was
 *              written
 *   -ESTALE    also if another thread closed the loop during the call, and so
 *              wrote the file
 *
 * Blocking: until the file is written. A pipe without a reader raises SIGPIPE,
 * as with write(2).
 */
int64_t evloop_trace_stop(evloop_t loop);

/** A callback of an event loop that has run for too long. */
typedef struct evloop_stuck_t {
  /** The loop. */
  int64_t loop;
  /** Whose callback it is; 0 for a posted call. */
  int64_t watcher;
  /** Since when it runs, on CLOCK_MONOTONIC. */
  int64_t since_ns;
  /** For how long: until now, or in all. */
  int64_t duration_ns;
  /** The EVLOOP_EVENT type of what it was called for. */
  int type;
  /** 0: it is running. 1: it has returned. */
  int returned;
  /**
   * The watcher's name, NUL-terminated and cut to fit, not inside a
   * character; empty if it has none.
   */
  char name[64];
  /** 0; room for later versions. */
  uint64_t spare[3];
} evloop_stuck_t;

/**
 * Called by the thread of a watchdog for a callback that is stuck, and once
 * more when that callback has returned; see evloop_set_watchdog().
 *
 * stuck is valid until it returns.
 */
typedef void (*evloop_watchdog_t)(const struct evloop_stuck_t *stuck,
                                  void *user_data);

/**
 * Sets a watchdog: a thread that reports callbacks which run too long.
 *
 * The thread, "evloop-watchdog", checks the loop once in limit_ns. It blocks
 * all signals and has a stack of 2 MiB, whatever the environment says. It
 * calls callback once for a callback of the loop that has run longer than the
 * limit, and once more when that has returned (not if the watchdog is removed
 * first). So it needs no help from a stuck loop. It does not check a callback
 * that is running when the watchdog is set, also not the one that sets it, but
 * all later ones.
 *
 * callback runs on the watchdog's thread. The library holds no lock, and
 * callback may call every function on every object, also this one and
 * evloop_close(). It must not wait for the stuck callback (EVLOOP_CLOSE_WAIT
 * does that) if that one may wait for the end of the watchdog. It must return:
 * neither longjmp() nor a C++ exception may leave it.
 *
 * @param loop a loop.
 * @param limit_ns nanoseconds of real time; 0 removes the watchdog.
 * @param callback see evloop_watchdog_t; NULL removes the watchdog.
 * @param user_data passed to callback; may be NULL. It must stay valid until
 *   another call of this, or evloop_close(), has returned; if the loop is
 *   running at evloop_close(), until its run has returned.
 * @returns 0.
 *
 * Errors:
 *   -EINVAL    limit_ns is negative
 *   -EAGAIN    no thread can be created
 *   -ENOMEM    no memory; the previous watchdog stays
 *
 * Blocking: until a running call of the watchdog's callback has returned,
 * unless this is that callback. So do evloop_close(), and the end of the run
 * of a closed loop.
 * Fork: after evloop_after_fork() the child's loop has a thread of its own.
 */
int evloop_set_watchdog(evloop_t loop,
                        int64_t limit_ns,
                        evloop_watchdog_t callback,
                        void *user_data);

/* ------------------------------------------------------------------------
 * select (select(2), Python's select.select)
 * ------------------------------------------------------------------------
 *
 * evloop_select() waits for the descriptors in up to three lists, and leaves
 * the ready ones in them. It keeps no state between calls. It suits a few
 * descriptors, and descriptors of any value.
 *
 *   int readable[2] = {0, fd}, count = 2;
 *   int ready =
 *       evloop_select(readable, &count, NULL, NULL, NULL, NULL, 1000000000);
 *   for (int i = 0; i < count; i++) printf("%d of %d\n", readable[i], ready);
 */

/**
 * Waits until descriptors are ready, with lists instead of sets.
 *
 * On return each list holds only its ready descriptors, in their order and
 * with duplicates, and its count is set. Descriptors of any value are allowed,
 * also at and above FD_SETSIZE. With three empty lists the call sleeps.
 *
 * A descriptor is ready
 * - to read when a read would not block (data, end of file, hang-up, error);
 * - to write when a write would not block (room, error);
 * - exceptional when it has urgent data.
 *
 * @param rlist descriptors to watch for reading; may be NULL if the count is
 *   0.
 * @param nr number of entries in rlist, in and out; NULL counts as 0.
 * @param wlist descriptors to watch for writing; as rlist.
 * @param nw number of entries in wlist; as nr.
 * @param xlist descriptors to watch for urgent data; as rlist.
 * @param nx number of entries in xlist; as nr.
 * @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
 *   ever.
 * @returns how many entries are left in the three lists together; 0, and three
 *   counts of 0, if the time ran out.
 *
 * Errors. On failure the lists and the counts are unchanged:
 *   -EBADF     a descriptor is negative or not open
 *   -EINVAL    a count is negative
 *   -EINVAL    a list is NULL and its count is not 0
 *   -EINTR, -ENOMEM
 *
 * Blocking: up to timeout_ns, never less.
 * Source: select(2). It is built on pselect6(2), whose sets have no
 * FD_SETSIZE.
 */
int evloop_select(int *rlist,
                  int *nr,
                  int *wlist,
                  int *nw,
                  int *xlist,
                  int *nx,
                  int64_t timeout_ns);

/**
 * The number of bytes that a pipe takes without blocking when it is reported
 * writable.
 */
#define EVLOOP_PIPE_BUF 4096

/* ------------------------------------------------------------------------
 * Poll sets (poll(2), Python's select.poll)
 * ------------------------------------------------------------------------
 *
 * A poll set keeps a list of descriptors between waits. It takes every
 * descriptor, regular files included, and no descriptor of its own. Other
 * threads may change it during a wait.
 *
 *   evloop_ready_t ready[8];
 *   evloop_poll_t set = evloop_poll_create();
 *   evloop_poll_register(set, fd, EVLOOP_POLLIN, 0);
 *   int count = evloop_poll_wait(set, ready, 8, 1000000000);
 *   evloop_poll_close(set);
 */

/** A poll set; see evloop_poll_create(). */
typedef evloop_handle_t evloop_poll_t;

/**
 * Creates an empty poll set.
 *
 * It takes no descriptor. Any descriptor can be registered, including regular
 * files (always ready) and fds that are not open (EVLOOP_POLLNVAL). The cost
 * of a wait is proportional to the number of descriptors.
 *
 * @returns the poll set; close it with evloop_poll_close().
 *
 * Errors:
 *   -ENOMEM
 *
 * Fork: the child has a copy of its own.
 */
evloop_poll_t evloop_poll_create(void);

/** Data to read. */
#define EVLOOP_POLLIN 0x1

/** Urgent (out-of-band) data, or an exceptional condition. */
#define EVLOOP_POLLPRI 0x2

/** Room to write. */
#define EVLOOP_POLLOUT 0x4

/** Error; always reported, need not be requested. */
#define EVLOOP_POLLERR 0x8

/** Hang-up; always reported, need not be requested. */
#define EVLOOP_POLLHUP 0x10

/** Not an open descriptor; always reported, need not be requested. */
#define EVLOOP_POLLNVAL 0x20

/** Normal data to read. */
#define EVLOOP_POLLRDNORM 0x40

/** Priority band data to read. */
#define EVLOOP_POLLRDBAND 0x80

/** Room to write normal data. */
#define EVLOOP_POLLWRNORM 0x100

/** Room to write priority data. */
#define EVLOOP_POLLWRBAND 0x200

/** Unused by Linux; accepted. */
#define EVLOOP_POLLMSG 0x400

/** The peer shut down its writing half. */
#define EVLOOP_POLLRDHUP 0x2000

/** What Python's poll objects watch by default: IN, PRI and OUT. */
#define EVLOOP_POLL_DEFAULT 0x7

/**
 * Registers a descriptor, or replaces its registration.
 *
 * It also affects a wait in progress in another thread.
 *
 * @param p a poll set.
 * @param fd the descriptor; it stays the caller's.
 * @param events EVLOOP_POLL bits; EVLOOP_POLL_DEFAULT is what Python watches
 *   by default, 0 only errors and hang-ups.
 * @param data returned with each event; the library does not use it.
 * @returns 0.
 *
 * Errors:
 *   -EBADF     fd is negative
 *   -EINVAL    an unknown bit
 *   -EINVAL    fd is one of the library's own descriptors
 *   -ENOMEM
 *
 * Fork: changes the copy of the calling process.
 */
int evloop_poll_register(evloop_poll_t p,
                         int fd,
                         uint32_t events,
                         uint64_t data);

/**
 * Changes the registration of a descriptor.
 *
 * @param p a poll set.
 * @param fd a registered descriptor.
 * @param events as evloop_poll_register().
 * @param data as evloop_poll_register(); replaces the old data.
 * @returns 0.
 *
 * Errors, besides those of evloop_poll_register():
 *   -ENOENT    fd is not registered
 *
 * Fork: as evloop_poll_register().
 */
int evloop_poll_modify(evloop_poll_t p,
                       int fd,
                       uint32_t events,
                       uint64_t data);

/**
 * Removes the registration of a descriptor.
 *
 * @param p a poll set.
 * @param fd a registered descriptor, open or not.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    fd is not registered
 *   -EBADF     fd is negative
 *
 * Fork: as evloop_poll_register().
 */
int evloop_poll_unregister(evloop_poll_t p, int fd);

/** One ready descriptor, as the waits of all interfaces report it. */
typedef struct evloop_ready_t {
  /** The descriptor, as it was registered. */
  int32_t fd;
  /** What it is ready for: the bits of the interface that reports it. */
  uint32_t events;
  /** The data of its registration. */
  uint64_t data;
} evloop_ready_t;

/**
 * Waits until registered descriptors are ready.
 *
 * Descriptors are reported in ascending order. If more than max are ready, the
 * next wait begins after the last one reported, so that none is starved. A
 * wait on an empty set sleeps, and sees what other threads register.
 *
 * @param p a poll set.
 * @param out_ready filled from the front, as many entries as returned; events
 *   holds EVLOOP_POLL bits.
 * @param max size of out_ready, in entries; at least 1.
 * @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
 *   ever.
 * @returns the number of entries filled; 0 if the time ran out.
 *
 * Errors:
 *   -EINVAL    max is 0 or less, or out_ready is NULL
 *   -EINVAL    more descriptors are registered than RLIMIT_NOFILE allows, and
 *              none of them is ready
 *   -ECHILD    the process forked during the wait, and this is the child
 *   -EINTR, -ENOMEM
 *
 * Blocking: up to timeout_ns, never less.
 * Threads: any, several at once; changes by other threads take effect at once.
 * For that each waiting thread has an epoll, made at its first blocking wait
 * and closed with the thread. If no descriptor is left for it, changes take
 * effect within 20 ms.
 * Source: ppoll(2).
 */
int evloop_poll_wait(evloop_poll_t p,
                     struct evloop_ready_t *out_ready,
                     int max,
                     int64_t timeout_ns);

/**
 * Closes a poll set. Threads that wait in it return -ESTALE.
 *
 * @param p a poll set.
 * @returns 0.
 *
 * Fork: closes the copy of the calling process.
 */
int evloop_poll_close(evloop_poll_t p);

/* ------------------------------------------------------------------------
 * Epoll objects (epoll(7), Python's select.epoll)
 * ------------------------------------------------------------------------
 *
 * An epoll object keeps its list of descriptors in the kernel, so a wait
 * costs the same for ten descriptors and for ten thousand. It does not take
 * regular files. The event bits, EVLOOP_EPOLLIN and others, stand with
 * evloop_add_io().
 *
 *   evloop_ready_t ready[8];
 *   evloop_epoll_t epoll = evloop_epoll_create(0);
 *   evloop_epoll_register(epoll, fd, EVLOOP_EPOLLIN, 0);
 *   int count = evloop_epoll_wait(epoll, ready, 8, 1000000000);
 *   evloop_epoll_close(epoll);
 */

/** An epoll object; see evloop_epoll_create(). */
typedef evloop_handle_t evloop_epoll_t;

/** evloop_epoll_create(): close on exec; always on, accepted. */
#define EVLOOP_EPOLL_CLOEXEC 0x80000

/**
 * Creates an epoll object.
 *
 * @param flags 0 or EVLOOP_EPOLL_CLOEXEC; CLOEXEC is always on.
 * @returns the epoll object; close it with evloop_epoll_close().
 *
 * Errors:
 *   -EINVAL    an unknown flag
 *   -EMFILE, -ENFILE  no descriptor is left; the first epoll object of a
 *              process takes two, see "Descriptors"
 *   -ENOSPC, -ENOMEM
 *
 * Source: epoll_create1(2).
 */
evloop_epoll_t evloop_epoll_create(uint32_t flags);

/**
 * Makes a handle for an epoll descriptor that already exists.
 *
 * Registrations through this object and by raw epoll_ctl(2) can be mixed. For
 * an event of a registration that the object does not know, fd is -1 and data
 * is the kernel's data word as its owner stored it. The object takes one more
 * descriptor, an eventfd, until it is closed.
 *
 * @param fd an epoll descriptor. It stays the caller's, who closes it after
 *   the handle. With EVLOOP_FD_OWN it belongs to the handle, and
 *   evloop_epoll_close() closes it. On failure it stays the caller's.
 * @param flags 0 or EVLOOP_FD_OWN.
 * @returns the epoll object.
 *
 * Errors:
 *   -EBADF     fd is not open
 *   -EINVAL    fd is not an epoll descriptor, or one of the library's own
 *              (except that of evloop_fileno())
 *   -EINVAL    an unknown flag
 *   -EMFILE, -ENFILE  no descriptor is left for the eventfd
 *   -ENOSPC, -ENOMEM
 *
 * Fork: as evloop_epoll_create(); a child that inherited fd can call this.
 */
evloop_epoll_t evloop_epoll_from_fd(int fd, uint32_t flags);

/**
 * Returns the descriptor of an epoll object.
 *
 * It belongs to the object: do not close it. It is readable while an event is
 * pending, and can be registered with another epoll, poll or select.
 *
 * @param ep an epoll object.
 * @returns the descriptor.
 */
int evloop_epoll_fileno(evloop_epoll_t ep);

/** What Python's epoll objects watch by default: IN, PRI and OUT. */
#define EVLOOP_EPOLL_DEFAULT 0x7

/**
 * Registers a descriptor.
 *
 * It also affects a wait in progress in another thread. Closing the descriptor
 * ends the registration, unless a duplicate of it is open (epoll(7), Q6):
 * unregister it before close(2).
 *
 * @param ep an epoll object.
 * @param fd the descriptor; it stays the caller's.
 * @param events EVLOOP_EPOLL bits; EVLOOP_EPOLL_DEFAULT is what Python watches
 *   by default.
 * @param data returned with each event; the library does not use it.
 * @returns 0.
 *
 * Errors:
 *   -EEXIST    fd is registered already
 *   -EBADF     fd is not open
 *   -EPERM     epoll cannot watch fd (a regular file, a directory, /dev/null;
 *              a selector can)
 *   -EINVAL    an unknown bit
 *   -EINVAL    fd is the epoll object itself, or one of the library's own
 *              descriptors
 *   -EINVAL    EXCLUSIVE for an epoll descriptor, or with other bits than IN,
 *              OUT, ERR, HUP, ET and WAKEUP
 *   -ELOOP     epoll sets would be nested in a circle or too deep
 *   -ENOSPC, -ENOMEM
 *
 * Source: epoll_ctl(2).
 */
int evloop_epoll_register(evloop_epoll_t ep,
                          int fd,
                          uint32_t events,
                          uint64_t data);

/**
 * Changes the registration of a descriptor.
 *
 * It also re-arms a ONESHOT registration. An event that another thread's wait
 * collects at the same moment may have the old or the new data.
 *
 * @param ep an epoll object.
 * @param fd a registered descriptor.
 * @param events as evloop_epoll_register().
 * @param data as evloop_epoll_register(); replaces the old data.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    fd is not registered
 *   -EBADF     fd is not open
 *   -EPERM     epoll cannot watch fd
 *   -EINVAL    an unknown bit
 *   -EINVAL    fd is the epoll object itself, or one of the library's own
 *              descriptors
 *   -EINVAL    the old or the new registration is EXCLUSIVE (unregister and
 *              register instead)
 *   -ENOMEM
 *
 * Source: epoll_ctl(2).
 */
int evloop_epoll_modify(evloop_epoll_t ep,
                        int fd,
                        uint32_t events,
                        uint64_t data);

/**
 * Removes the registration of a descriptor.
 *
 * @param ep an epoll object.
 * @param fd a registered descriptor.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    fd is not registered
 *   -EBADF     fd is not open; the kernel has removed the registration, unless
 *              a duplicate is open
 *   -EPERM     epoll cannot watch fd, so it was never registered
 *   -EINVAL    fd is the epoll object itself, or one of the library's own
 *              descriptors
 *
 * Source: epoll_ctl(2).
 */
int evloop_epoll_unregister(evloop_epoll_t ep,
                            int fd);

/**
 * Waits until registered descriptors are ready.
 *
 * For some events fd in out_ready is -1:
 * - an event of a registration that the object does not know, see
 *   evloop_epoll_from_fd();
 * - if a descriptor was closed without being unregistered, a duplicate of it
 *   is open, and its fd is registered again: an event of the old registration.
 *   After that has happened once, fd can also be -1 for an event that the
 *   kernel returned just before the program ended the registration.
 *
 * The data of these events is the kernel's data word of that registration; it
 * is not the data of evloop_epoll_register().
 *
 * @param ep an epoll object.
 * @param out_ready filled from the front, as many entries as returned; events
 *   holds EVLOOP_EPOLL bits.
 * @param max size of out_ready, in entries; at least 1.
 * @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
 *   ever.
 * @returns the number of entries filled; 0 if the time ran out.
 *
 * Errors:
 *   -EINVAL    max is 0 or less, or out_ready is NULL
 *   -EBADF     the borrowed descriptor was closed
 *   -EINTR, -ENOMEM
 *
 * Blocking: up to timeout_ns, never less.
 * Threads: any, several at once.
 * Source: epoll_pwait2(2) where the kernel has it (5.11), else ppoll(2) and
 * epoll_pwait(2); both have nanosecond resolution.
 */
int evloop_epoll_wait(evloop_epoll_t ep,
                      struct evloop_ready_t *out_ready,
                      int max,
                      int64_t timeout_ns);

/**
 * Closes an epoll object. Threads that wait in it return -ESTALE.
 *
 * The descriptor is closed, unless it is borrowed, as soon as no other thread
 * is in a call with it. Registrations with a borrowed descriptor stay in the
 * kernel's set.
 *
 * @param ep an epoll object.
 * @returns 0.
 *
 * Fork: works in the child, and changes nothing for the parent.
 */
int evloop_epoll_close(evloop_epoll_t ep);

/**
 * Closes the handle of an epoll object and returns its descriptor.
 *
 * The handle is stale, as after evloop_epoll_close(). The descriptor belongs
 * to the caller from now on, who closes it. The registrations stay, but the
 * data words that epoll_wait(2) then returns with events are the library's:
 * set them again with EPOLL_CTL_MOD. Threads that wait in the object return
 * -ESTALE.
 *
 * @param ep an epoll object.
 * @returns the descriptor.
 *
 * Since 0.2.0.
 */
int evloop_epoll_release(evloop_epoll_t ep);

/* ------------------------------------------------------------------------
 * /dev/poll objects (Solaris poll(7d), Python's select.devpoll)
 * ------------------------------------------------------------------------
 *
 * A /dev/poll object behaves as Solaris' /dev/poll, for programs and tests
 * that expect it: registering a descriptor twice adds events, and closed
 * descriptors are reported. New programs use an epoll object. The event
 * bits, EVLOOP_POLLIN and others, stand with poll sets.
 *
 *   evloop_ready_t ready[8];
 *   evloop_devpoll_t devpoll = evloop_devpoll_create();
 *   evloop_devpoll_register(devpoll, fd, EVLOOP_POLLIN, 0);
 *   int count = evloop_devpoll_wait(devpoll, ready, 8, 1000000000);
 *   evloop_devpoll_close(devpoll);
 */

/** A /dev/poll object; see evloop_devpoll_create(). */
typedef evloop_handle_t evloop_devpoll_t;

/**
 * Creates a /dev/poll object.
 *
 * Linux has no such device. The object has its semantics: registering a
 * descriptor twice adds events, a registration belongs to the value of the fd,
 * and closed descriptors are reported. The cost of a wait is proportional to
 * the number of descriptors; for a large set use epoll.
 *
 * @returns the object; close it with evloop_devpoll_close().
 *
 * Errors:
 *   -ENOMEM
 *
 * Source: poll(7d) of Solaris.
 */
evloop_devpoll_t evloop_devpoll_create(void);

/**
 * Returns a descriptor that is readable while a registered one is ready.
 *
 * The first call makes it. It belongs to the object: do not close it. It is
 * meant for registration with another poll, select or epoll. If a registered
 * descriptor was closed, and its fd reused without a call on this object,
 * evloop_devpoll_wait() reports that, but the readiness of this descriptor
 * does not.
 *
 * @param dp a /dev/poll object.
 * @returns the descriptor.
 *
 * Errors:
 *   -ELOOP     a registered epoll descriptor is nested too deep
 *   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
 */
int evloop_devpoll_fileno(evloop_devpoll_t dp);

/**
 * Registers a descriptor, or adds events to its registration.
 *
 * @param dp a /dev/poll object.
 * @param fd the descriptor; it stays the caller's.
 * @param events EVLOOP_POLL bits; added to those registered already.
 * @param data returned with each event; the library does not use it. It
 *   replaces that of an earlier registration.
 * @returns 0.
 *
 * Errors:
 *   -EBADF     fd is negative
 *   -EINVAL    an unknown bit
 *   -EINVAL    fd is the object's own descriptor, or another one of the
 *              library's own
 *   -ENOMEM
 * After evloop_devpoll_fileno() also:
 *   -ELOOP     epoll sets would be nested in a circle or too deep
 *   -ENOSPC
 *
 * Threads: any; also affects waits in progress.
 */
int evloop_devpoll_register(evloop_devpoll_t dp,
                            int fd,
                            uint32_t events,
                            uint64_t data);

/**
 * Registers a descriptor for exactly these events.
 *
 * It replaces the events of an earlier registration, if there is one.
 *
 * @param dp a /dev/poll object.
 * @param fd the descriptor; it stays the caller's.
 * @param events EVLOOP_POLL bits; they replace those registered.
 * @param data as evloop_devpoll_register().
 * @returns 0; errors as evloop_devpoll_register().
 *
 * Threads: any; also affects waits in progress.
 */
int evloop_devpoll_modify(evloop_devpoll_t dp,
                          int fd,
                          uint32_t events,
                          uint64_t data);

/**
 * Removes the registration of a descriptor.
 *
 * A descriptor that is not registered is ignored.
 *
 * @param dp a /dev/poll object.
 * @param fd the descriptor, open or not.
 * @returns 0.
 *
 * Errors:
 *   -EBADF     fd is negative
 *
 * Threads: any; also affects waits in progress.
 */
int evloop_devpoll_unregister(evloop_devpoll_t dp, int fd);

/**
 * Waits until registered descriptors are ready.
 *
 * @param dp a /dev/poll object.
 * @param out_ready filled from the front, as many entries as returned; events
 *   holds EVLOOP_POLL bits, EVLOOP_POLLNVAL for a registration whose
 *   descriptor is not open.
 * @param max size of out_ready, in entries; at least 1.
 * @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
 *   ever.
 * @returns the number of entries filled, 0 if the time ran out; errors as
 *   evloop_poll_wait().
 *
 * Blocking: up to timeout_ns, never less.
 * Threads: as evloop_poll_wait().
 */
int evloop_devpoll_wait(evloop_devpoll_t dp,
                        struct evloop_ready_t *out_ready,
                        int max,
                        int64_t timeout_ns);

/**
 * Closes a /dev/poll object, and its descriptor if it has one.
 *
 * Threads that wait in it return -ESTALE.
 *
 * @param dp a /dev/poll object.
 * @returns 0.
 *
 * Fork: works in the child, and changes nothing for the parent.
 */
int evloop_devpoll_close(evloop_devpoll_t dp);

/* ------------------------------------------------------------------------
 * Selectors (Python's selectors module)
 * ------------------------------------------------------------------------
 *
 * A selector reports readiness to read and to write in the same way on every
 * backend: select, poll, epoll, /dev/poll or kqueue. It takes every
 * descriptor, regular files included.
 *
 *   evloop_ready_t ready[8];
 *   evloop_selector_t set = evloop_selector_create(EVLOOP_SELECTOR_DEFAULT);
 *   evloop_selector_register(set, fd, EVLOOP_SELECTOR_READ, 0);
 *   int count = evloop_selector_wait(set, ready, 8, 1000000000);
 *   evloop_selector_close(set);
 */

/** A selector; see evloop_selector_create(). */
typedef evloop_handle_t evloop_selector_t;

/** evloop_selector_create(): the best backend, today EPOLL. */
#define EVLOOP_SELECTOR_DEFAULT 0

/** evloop_selector_create(): the events of select(2), on a poll set. */
#define EVLOOP_SELECTOR_SELECT 1

/** evloop_selector_create(): on a poll set. */
#define EVLOOP_SELECTOR_POLL 2

/** evloop_selector_create(): on an epoll object. */
#define EVLOOP_SELECTOR_EPOLL 3

/** evloop_selector_create(): on a /dev/poll object. */
#define EVLOOP_SELECTOR_DEVPOLL 4

/** evloop_selector_create(): on a kqueue. */
#define EVLOOP_SELECTOR_KQUEUE 5

/**
 * Creates a selector: readiness to read and to write, with any backend.
 *
 * Regular files, directories and /dev/null can be registered with every
 * backend, and are always ready.
 *
 * @param backend EVLOOP_SELECTOR_DEFAULT (the best one), _SELECT, _POLL,
 *   _EPOLL, _DEVPOLL or _KQUEUE.
 * @returns the selector; close it with evloop_selector_close().
 *
 * Errors:
 *   -EINVAL    an unknown backend
 *   -ENOMEM
 * With the EPOLL and the KQUEUE backend, as evloop_epoll_create() and
 * evloop_kqueue_create():
 *   -EMFILE, -ENFILE, -ENOSPC
 *
 * Source: Python's selectors module.
 */
evloop_selector_t evloop_selector_create(int backend);

/** Selector event: a read would not block. */
#define EVLOOP_SELECTOR_READ 0x1

/** Selector event: a write would not block. */
#define EVLOOP_SELECTOR_WRITE 0x2

/**
 * Registers a descriptor.
 *
 * It also affects a wait in progress in another thread.
 *
 * @param s a selector.
 * @param fd the descriptor; it stays the caller's, who unregisters it before
 *   closing it.
 * @param events EVLOOP_SELECTOR_READ, EVLOOP_SELECTOR_WRITE or both.
 * @param data returned with each event; the library does not use it.
 * @returns 0.
 *
 * Errors:
 *   -EEXIST    fd is registered already
 *   -EBADF     fd is not open
 *   -EINVAL    no events, or an unknown bit
 *   -EINVAL    fd is the selector's own descriptor, or another one of the
 *              library's own
 *   -ENOMEM
 * With the EPOLL and the DEVPOLL backend, as evloop_epoll_register() and
 * evloop_devpoll_register():
 *   -ELOOP, -ENOSPC
 */
int evloop_selector_register(evloop_selector_t s,
                             int fd,
                             uint32_t events,
                             uint64_t data);

/**
 * Changes the registration of a descriptor.
 *
 * @param s a selector.
 * @param fd a registered descriptor.
 * @param events as evloop_selector_register().
 * @param data as evloop_selector_register(); replaces the old data.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    fd is not registered
 *   -EBADF     fd is not open
 *   -EINVAL    no events, or an unknown bit
 *   -ENOMEM
 * If fd was closed and refers to another file now, with the EPOLL backend
 * also:
 *   -ENOENT    the new file is not registered
 *   -EPERM     epoll cannot watch the new file
 * In that case with the DEVPOLL backend, as evloop_selector_register():
 *   -EINVAL, -ELOOP, -ENOSPC
 */
int evloop_selector_modify(evloop_selector_t s,
                           int fd,
                           uint32_t events,
                           uint64_t data);

/**
 * Removes the registration of a descriptor.
 *
 * @param s a selector.
 * @param fd a registered descriptor, open or not.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    fd is not registered
 *   -EBADF     fd is negative
 */
int evloop_selector_unregister(evloop_selector_t s, int fd);

/**
 * Returns the registration of a descriptor.
 *
 * @param s a selector.
 * @param fd a descriptor.
 * @param out_events its events; may be NULL.
 * @param out_data its data; may be NULL.
 * @returns 0.
 *
 * Errors:
 *   -ENOENT    fd is not registered
 *   -EBADF     fd is negative
 */
int evloop_selector_get(evloop_selector_t s,
                        int fd,
                        uint32_t *out_events,
                        uint64_t *out_data);

/**
 * Returns the number of registered descriptors.
 *
 * @param s a selector.
 * @returns the number.
 */
int evloop_selector_count(evloop_selector_t s);

/**
 * Waits until registered descriptors are ready.
 *
 * An error or a hang-up makes a descriptor ready for its registered events, so
 * that the next read or write returns the error.
 *
 * A descriptor that was closed without being unregistered is reported in the
 * same way with the SELECT, POLL and DEVPOLL backends. With EPOLL the kernel
 * forgets it, unless it is always ready (a regular file) or a duplicate is
 * open. If such a duplicate, of a descriptor that is not registered any more,
 * is all that is ready, EPOLL polls every 10 ms.
 *
 * @param s a selector.
 * @param out_ready filled from the front, as many entries as returned; events
 *   holds EVLOOP_SELECTOR bits, never other ones than registered.
 * @param max size of out_ready, in entries; at least 1.
 * @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
 *   ever.
 * @returns the number of entries filled; 0 if the time ran out.
 *
 * Errors:
 *   -EINVAL    max is 0 or less, or out_ready is NULL; also as
 *              evloop_poll_wait()
 *   -EINTR, -ENOMEM
 *
 * Blocking: up to timeout_ns, never less.
 * Threads: any, several at once.
 */
int evloop_selector_wait(evloop_selector_t s,
                         struct evloop_ready_t *out_ready,
                         int max,
                         int64_t timeout_ns);

/**
 * Returns a descriptor that is readable while a registered one is ready.
 *
 * It belongs to the selector: do not close it.
 *
 * @param s a selector.
 * @returns the descriptor.
 *
 * Errors:
 *   -ENOTSUP   the SELECT and POLL backends have none
 * With the DEVPOLL backend, as evloop_devpoll_fileno():
 *   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
 */
int evloop_selector_fileno(evloop_selector_t s);

/**
 * Closes a selector. Threads that wait in it return -ESTALE.
 *
 * @param s a selector.
 * @returns 0.
 *
 * Fork: works in the child, and changes nothing for the parent.
 */
int evloop_selector_close(evloop_selector_t s);

/* ------------------------------------------------------------------------
 * Kqueues (FreeBSD's kqueue(2), Python's select.kqueue)
 * ------------------------------------------------------------------------
 *
 * A kqueue watches descriptors, timers, signals, processes, files and more
 * through one call, evloop_kqueue_control(). It takes a list of changes and
 * returns a list of events. Each thing that it watches is called a knote: an
 * ident (a descriptor, a signal, a process id) with a filter (the kind of
 * event). evloop_bsd_kqueue() and evloop_bsd_kevent() have the interface of
 * BSD, and <sys/event.h> of this library its names.
 *
 *   evloop_kevent_t change = {1, EVLOOP_KQ_FILTER_TIMER, EVLOOP_KQ_EV_ADD,
 *                             EVLOOP_KQ_NOTE_SECONDS, 1, 0, {0, 0, 0, 0}};
 *   evloop_kqueue_t queue = evloop_kqueue_create(0);
 *   int count = evloop_kqueue_control(queue, &change, 1, &change, 1, -1);
 *   evloop_kqueue_close(queue);
 */

/** evloop_kqueue_create(): close on exec; always on, accepted. */
#define EVLOOP_KQ_CLOEXEC 0x1

/** evloop_kqueue_create(): a forked child has a copy of the queue. */
#define EVLOOP_KQ_CPONFORK 0x2

/**
 * Creates a kqueue.
 *
 * With EVLOOP_KQ_CPONFORK a forked child has a copy of the queue, under the
 * same handle and descriptor; the descriptor is the parent's until the child's
 * first call with it. The child has none, -ECHILD, if another thread was
 * changing the queue or collecting events at the fork. Without the flag only
 * close works in the child, and the child's first call of the library closes
 * the child's descriptor of the queue.
 *
 * A watched descriptor may be closed and its number used again: the new file
 * gets no events of the old one. The kernel reports a closed file as long as a
 * duplicate of its descriptor is open, so the queue verifies each event of a
 * descriptor with a system call. With EVLOOP_KQ_TRUST_FDS the program promises
 * to delete (EVLOOP_KQ_EV_DELETE) before it closes a descriptor that has
 * duplicates, and the queue saves that call. Duplicates are those of dup(2),
 * those sent to another process, and those of a forked process until it, or
 * execve(2), closes them. A descriptor without duplicates may be closed without
 * that, also with this flag. If the program breaks the promise, an event of
 * the closed file is reported for its number, which may be another file by
 * then.
 *
 * @param flags EVLOOP_KQ_CLOEXEC, EVLOOP_KQ_CPONFORK and (since 0.2.0)
 *   EVLOOP_KQ_TRUST_FDS, or 0.
 * @returns the queue; close it with evloop_kqueue_close().
 *
 * Errors:
 *   -EINVAL    an unknown flag
 *   -EMFILE, -ENFILE  no descriptor is left; a queue needs four, and up to
 *              eight more for what it watches
 *   -ENOSPC, -ENOMEM
 *
 * Source: kqueue(2) of FreeBSD.
 */
evloop_kqueue_t evloop_kqueue_create(uint32_t flags);

/**
 * Makes a second handle for a kqueue, from its descriptor.
 *
 * Both handles are the same queue. Closing this handle ends the waits that
 * were begun with it. The queue stays open, unless EVLOOP_FD_OWN is given.
 *
 * @param fd a descriptor from evloop_bsd_kqueue() or evloop_kqueue_fileno(),
 *   or a duplicate of one.
 * @param flags 0, or EVLOOP_FD_OWN: closing the handle closes the queue and
 *   its descriptor.
 * @returns the handle; close it with evloop_kqueue_close().
 *
 * Errors:
 *   -EBADF     fd is not a kqueue of this process
 *   -EINVAL    an unknown flag
 *   -ENOMEM
 */
evloop_kqueue_t evloop_kqueue_from_fd(int fd, uint32_t flags);

/**
 * Returns the descriptor of a kqueue.
 *
 * It belongs to the queue: do not close it. It is readable while an event is
 * pending, and can be registered with another kqueue, epoll, poll or select.
 * The kernel limits how deep epolls nest (-ELOOP): a queue that watches a
 * queue can be polled, but a third queue cannot watch it.
 *
 * In some cases it may be readable without an event, until
 * evloop_kqueue_control() has checked: for a socket that was never connected,
 * below an EVLOOP_KQ_NOTE_LOWAT, and where the filters say so.
 *
 * @param kq a kqueue.
 * @returns the descriptor.
 */
int evloop_kqueue_fileno(evloop_kqueue_t kq);

/**
 * A change to a queue, or an event from it.
 *
 * It has the layout of FreeBSD's struct kevent.
 */
typedef struct evloop_kevent_t {
  /**
   * What the knote is about: a descriptor, a signal, a process id, or a
   * number that the caller chooses; the filter says which.
   */
  uint64_t ident;
  /** One of EVLOOP_KQ_FILTER. */
  int16_t filter;
  /** EVLOOP_KQ_EV bits. */
  uint16_t flags;
  /** EVLOOP_KQ_NOTE bits of the filter. */
  uint32_t fflags;
  /** A value of the filter; an errno if flags has EV_ERROR. */
  int64_t data;
  /** The caller's value, returned with each event. */
  uint64_t udata;
  /** The filter's values (0 and 1, if it uses them) and the caller's. */
  uint64_t ext[4];
} evloop_kevent_t;

/**
 * Filter: there is something to read. ident is a descriptor.
 *
 * It works for everything that can be polled, and for files. data is:
 *
 *   stream sockets,  the bytes that can be read, without an urgent one; an
 *   local SEQPACKET  upper bound if an urgent byte is in their middle
 *   other sockets    exact, or an upper bound: see below
 *   listening        the number of connections to accept; 1 where the kernel
 *   sockets          does not report it (other than TCP and local ones)
 *   pipes, FIFOs,    the bytes that can be read
 *   ttys
 *   regular files    from the position to the end, which may be negative;
 *                    at the end there is no event until the file grows
 *   directories      the same, by the size that fstat() reports
 *   devices that     0: always ready (/dev/null)
 *   are not polled
 *   eventfds,        the counter, the expirations, of 64 bits without a
 *   timerfds         sign; 1 without a /proc
 *   kqueues          the number of its events, about
 *   other            1
 *
 * Of a socket that keeps messages (UDP, raw, packet, netlink, local datagrams
 * and others) Linux reports the length of the first message, and not the sum.
 * data is exact if the memory that the socket uses has no room for a second
 * message. Otherwise it is an upper bound, and never less than the sum: a
 * program that receives until it has used up data, or until EAGAIN, receives
 * everything. EAGAIN is the surer sign. An empty message counts as one byte.
 * For local datagram sockets the bound is the first message plus the size of
 * the receive buffer, and without a peer plus sixteen times that size. Only
 * senders with larger send buffers, or more of them than
 * net.unix.max_dgram_qlen allows by default, exceed it. EVLOOP_KQ_NOTE_LOWAT
 * is compared with data, so it may be reached early.
 *
 * When the other side has closed, EVLOOP_KQ_EV_EOF is set, data is what is
 * left, and fflags is the errno of a failed TCP connection, as far as the
 * library can read it without taking it from getsockopt(SO_ERROR):
 * ECONNREFUSED, ECONNRESET or 0. A socket that was never connected has no
 * event. fflags of the change may have EVLOOP_KQ_NOTE_LOWAT or
 * EVLOOP_KQ_NOTE_FILE_POLL.
 *
 * Not seen are a change of the position by lseek(), and what other machines do
 * to a network file system. A file that the process may not read is polled
 * every 100 ms.
 */
#define EVLOOP_KQ_FILTER_READ -1

/**
 * Filter: there is room to write. ident is a descriptor.
 *
 * data is the number of bytes that there is room for: in a socket's send
 * buffer; in a pipe, at least 1; what can be added to an eventfd, of 64 bits
 * without a sign; 1 where the kernel does not report it; 0 for files and
 * devices that are not polled, which are always ready.
 *
 * EVLOOP_KQ_EV_EOF: a write would be EPIPE, because the other side has closed,
 * or because the program has called shutdown(SHUT_WR) (TCP and local stream
 * sockets). data is then 0, and fflags as for EVLOOP_KQ_FILTER_READ. A socket
 * that was never connected has no event. With EVLOOP_KQ_NOTE_LOWAT, while
 * there is some room but less than that, the descriptor is polled every 10 ms.
 */
#define EVLOOP_KQ_FILTER_WRITE -2

/**
 * Filter: an operation of evloop_kqueue_aio_read() or a function like it is
 * complete. These functions add the knote; a change with EVLOOP_KQ_EV_ADD is
 * -EPERM. It can be disabled and enabled. It is deleted when its event was
 * delivered, and cannot be deleted while the operation is in progress
 * (-EBUSY).
 */
#define EVLOOP_KQ_FILTER_AIO -3

/**
 * Filter: a file changes or is used, whatever its names are. ident is a
 * descriptor of a regular file, a directory, a device or a named pipe; any
 * other is -EINVAL, and a memfd -ENOTSUP.
 *
 * When one of the requested bits has happened, fflags has all bits of what
 * happened: EVLOOP_KQ_NOTE_WRITE and _EXTEND of a file that was written and
 * grew, even if only one of them was requested.
 *
 * A queue has one inotify(7) for this. The process must have read permission
 * for the file (-EACCES), and there must be a /proc (-ENOTSUP). Not seen are
 * writes through mmap(2), and what other machines do to a network file system.
 * A change that happens twice before the library reads it is one event. If a
 * descriptor was closed and opened again, with the same fd for the same file,
 * the watch continues. If the kernel drops events
 * (fs.inotify.max_queued_events), each knote gets all requested bits that may
 * have happened; that is all but DELETE and LINK, for which the library counts
 * the names.
 *
 * The queue's descriptor also becomes readable after a change that is no
 * event, such as the use of a directory's entry, until the next call.
 */
#define EVLOOP_KQ_FILTER_VNODE -4

/**
 * Filter: processes. ident is the id of any process that can be seen.
 *
 * -ESRCH: there is no such process. An event of EVLOOP_KQ_NOTE_EXIT has
 * EVLOOP_KQ_EV_EOF and EVLOOP_KQ_EV_ONESHOT, and the knote is deleted after
 * it. EVLOOP_KQ_EV_CLEAR is always on. The bits of fflags:
 *
 *   NOTE_EXIT        works. data is the status, as waitpid() has it. For a
 *                    child it is always known, unless the program waited for
 *                    it first and the kernel is older than 6.15. For another
 *                    process it is known if this process may inspect it (the
 *                    same user) or, since Linux 6.15, once it was waited for;
 *                    else fflags has EVLOOP_KQ_NOTE_EXITUNKNOWN and data
 *                    is 0. The event comes when the process has ended,
 *                    not when it is waited for; one that has ended
 *                    already, and was not waited for, has it at once.
 *                    Before Linux 5.17 the status is that of the first
 *                    thread, if that ended before others
 *   NOTE_EXITSTATUS  works: nothing more than NOTE_EXIT (macOS requires it),
 *                    in the event if the status is known
 *   NOTE_FORK        works where the kernel reports forks: with
 *                    CAP_NET_ADMIN (since Linux 6.6 without), in the
 *                    first network, process and user namespaces;
 *                    -ENOTSUP elsewhere
 *   NOTE_EXEC        as NOTE_FORK
 *   NOTE_TRACK       as NOTE_FORK: children, and theirs, are watched in
 *                    the same way, each after an event NOTE_CHILD with
 *                    the parent's id in data
 *   NOTE_TRACKERR    in an event: a child is not watched; or forks and
 *                    executions were lost, as there were too many at once
 *   NOTE_CHILD       in an event: ident is a child of a tracked process
 *   NOTE_REAP, NOTE_SIGNAL, NOTE_EXIT_DETAIL (macOS)
 *                    refused, -ENOTSUP: the kernel does not report it
 *
 * While forks are watched, those of other processes may make the queue's
 * descriptor readable without an event.
 */
#define EVLOOP_KQ_FILTER_PROC -5

/**
 * Filter: signals. ident is the signal.
 *
 * data is how often it arrived since the last event. EVLOOP_KQ_EV_CLEAR is
 * always on. -EINVAL: no signal, one that cannot be watched (SIGKILL,
 * SIGSTOP), or fflags is not 0. How the queue sees the signal is decided when
 * the knote is added:
 *
 *                   the calling thread does    it does: a signalfd takes
 *                   not block it: a handler    it from there
 *                   counts it
 *   count           each delivery; a signal    the same
 *                   that is sent while it is
 *                   pending comes once (not
 *                   those from SIGRTMIN on)
 *   SIG_IGN         counted, and ignored       counted
 *   SIG_DFL         counted, then what the     counted, and nothing more
 *                   kernel does by default:
 *                   it ends, stops or ignores;
 *                   nothing where a loop
 *                   watches it, too
 *   a handler       counted, then called, as   counted, and not called:
 *                   the kernel would have      it is not pending any more
 *   set later       see below                  as a handler
 *   several queues  each counts it, and so     the same
 *   and loops       does each event loop that
 *                   watches it
 *   sent to a       counted                    counted if that thread
 *   thread                                     waits in the queue
 *   blocked by a    counted when a thread      (all must block it, or it
 *   thread          takes it that does not     goes to one that does not)
 *
 * If one queue or loop sees a signal by a handler and another one by a
 * signalfd, both count it, whichever way it is seen.
 *
 * With a handler, the library has a handler of the signal. When the last event
 * that needs it is deleted, in any queue or loop, the library restores the
 * disposition that the program has set. Calls that are never resumed (poll,
 * nanosleep) are interrupted by a signal that was ignored. In a child of
 * fork() nothing is counted, and the signal does what the program has set,
 * SIG_IGN too; a program that such a child executes finds the same. A program
 * that is executed without a fork(), or by posix_spawn() or vfork(), finds the
 * default where the signal was ignored, because the kernel replaces the
 * library's handler with that.
 *
 * The program may change the disposition later, to a handler, SIG_IGN or
 * SIG_DFL. In programs that are linked with the shared library
 * libevloop-kqueue the change has effect at once, and every signal is still
 * counted. That library has sigaction(), signal() and their relatives
 * (bsd_signal, ssignal, sysv_signal, sigset, sigignore, siginterrupt). They
 * keep the library's handler in place and answer as if it were not there: see
 * evloop_bsd_sigaction(). They replace those of the C library if the linker
 * finds libevloop-kqueue before the C library. So they do not in these cases:
 * - libevloop-kqueue is loaded with dlopen() or linked statically;
 * - code makes the system call itself, or has the C library's address from
 *   elsewhere, as system() has;
 * - a sanitizer's functions of these names come first.
 *
 * Then, and in programs without that library, the later change replaces the
 * library's handler, and nothing is counted until the next
 * evloop_kqueue_control() that collects. That call puts the library's handler
 * over the new disposition; it returns -EBUSY if 16 handlers of the library
 * lie over one another.
 */
#define EVLOOP_KQ_FILTER_SIGNAL -6

/**
 * Filter: a timer. ident is a number that the caller chooses.
 *
 * The change's data is the period, in milliseconds or the unit in fflags; 0
 * means 1. With EVLOOP_KQ_EV_ONESHOT the timer expires once, after 0 at once.
 * With EVLOOP_KQ_NOTE_ABSTIME data is a time of the wall clock, whose steps
 * the timer follows, and it expires once. data of an event is the number of
 * expirations since the last one, also while it was disabled. Adding the timer
 * again restarts it and drops its expirations. EVLOOP_KQ_EV_CLEAR is always
 * on, except with ABSTIME. -EINVAL: data is negative, or fflags has two units.
 *
 * Timers do not expire early. They share one descriptor for each clock. With
 * more than 64 of them the queue's descriptor may be readable at a time that a
 * timer was set to before, until the next call.
 */
#define EVLOOP_KQ_FILTER_TIMER -7

/**
 * Filter: file systems are mounted or unmounted, in the mount namespace of the
 * thread that added it first. ident is a number that the caller chooses;
 * fflags are EVLOOP_KQ_VQ bits, 0 for all. EVLOOP_KQ_EV_CLEAR is always set. A
 * mount that appears and disappears before the library reads the list of
 * mounts is not seen.
 */
#define EVLOOP_KQ_FILTER_FS -9

/**
 * Filter: triggered by the program. ident is a number that the caller chooses.
 *
 * A change with EVLOOP_KQ_NOTE_TRIGGER, from any thread, makes an event, also
 * while the knote is disabled. The event stays until the knote is deleted;
 * with EVLOOP_KQ_EV_CLEAR until it is delivered. data and fflags of the event
 * are what changes have set.
 */
#define EVLOOP_KQ_FILTER_USER -11

/**
 * Filter: a socket has nothing left to send. ident is its descriptor; -EINVAL
 * for others, and for sockets that do not count what they have to send
 * (netlink).
 *
 * For a TCP connection it means that the peer has acknowledged all bytes, or
 * that the connection broke; for a local socket that its peer has received
 * them. data and fflags are 0. The kernel notifies the queue of changes of
 * local sockets. Others are polled after 1 ms, and then after twice as long
 * each time, up to 20 ms, while something is left to send and the knote is
 * enabled. After an event with EVLOOP_KQ_EV_CLEAR only the next call that
 * collects notices that more was sent.
 */
#define EVLOOP_KQ_FILTER_EMPTY -13

/**
 * Filter: the link of a network interface goes up or down. ident is the
 * interface's index, in the network namespace of the thread that added the
 * first one; -ENXIO if there is none. data is the current state of the link,
 * one of the three bits. Before Linux 6.12 a link that goes up may have a
 * state in between, so that LINKINV comes before LINKUP. When the interface is
 * removed, there is a last event with LINKINV and EVLOOP_KQ_EV_EOF.
 */
#define EVLOOP_KQ_FILTER_NETDEV -16

/**
 * Filter: a socket has out-of-band data, EVLOOP_KQ_NOTE_OOB, or its peer sends
 * no more, EVLOOP_KQ_EV_EOF. ident is a descriptor of a socket (-EINVAL). data
 * is 0. It is one event as long as the urgent byte is not received.
 */
#define EVLOOP_KQ_FILTER_EXCEPT -17

/**
 * Change: add a knote. If the queue has the ident with this filter already,
 * fflags, data, udata and ext are replaced; EVLOOP_KQ_EV_ONESHOT, _CLEAR,
 * _DISPATCH and _RECEIPT stay as they were when it was added first. The knote
 * is enabled, unless EVLOOP_KQ_EV_DISABLE is given.
 */
#define EVLOOP_KQ_EV_ADD 0x1

/** Change: delete the knote. */
#define EVLOOP_KQ_EV_DELETE 0x2

/** Change: deliver events. */
#define EVLOOP_KQ_EV_ENABLE 0x4

/** Change: deliver no events; what happens is kept. */
#define EVLOOP_KQ_EV_DISABLE 0x8

/**
 * Flag: after one event the knote is deleted. This flag and the three after it
 * are fixed when the ident is added first.
 */
#define EVLOOP_KQ_EV_ONESHOT 0x10

/** Flag: an event is only delivered again when something happens. */
#define EVLOOP_KQ_EV_CLEAR 0x20

/**
 * Flag of a change: it gets an EVLOOP_KQ_EV_ERROR entry, with data 0 if it
 * succeeded.
 */
#define EVLOOP_KQ_EV_RECEIPT 0x40

/** Flag: after one event the knote is disabled. */
#define EVLOOP_KQ_EV_DISPATCH 0x80

/**
 * Change: deliver one event at once, pending or not, then delete the knote.
 */
#define EVLOOP_KQ_EV_FORCEONESHOT 0x100

/** Change: udata and ext stay as they are. */
#define EVLOOP_KQ_EV_KEEPUDATA 0x200

/**
 * Flag: udata is part of the identity: knotes with the same ident and filter
 * but different udata are different. (macOS has it, under a value that is
 * EVLOOP_KQ_EV_FORCEONESHOT on FreeBSD.)
 */
#define EVLOOP_KQ_EV_UDATA_SPECIFIC 0x400

/** The bits that a change cannot set. */
#define EVLOOP_KQ_EV_SYSFLAGS 0xf000

/** Of EVLOOP_KQ_EV_SYSFLAGS; not used. */
#define EVLOOP_KQ_EV_DROP 0x1000

/** Of EVLOOP_KQ_EV_SYSFLAGS; not used. */
#define EVLOOP_KQ_EV_FLAG1 0x2000

/** Of EVLOOP_KQ_EV_SYSFLAGS; not used. */
#define EVLOOP_KQ_EV_FLAG2 0x4000

/**
 * In an entry: the change failed with the errno in data or, if data is 0, it
 * succeeded.
 */
#define EVLOOP_KQ_EV_ERROR 0x4000

/** In an event: the other side has closed. */
#define EVLOOP_KQ_EV_EOF 0x8000

/** READ, WRITE: only with at least as many bytes as data has. */
#define EVLOOP_KQ_NOTE_LOWAT 0x1

/** READ of a regular file: also at the end of the file. */
#define EVLOOP_KQ_NOTE_FILE_POLL 0x2

/**
 * EXCEPT: out-of-band data. Works; TCP's urgent byte, and those of local
 * stream sockets since Linux 5.15.
 */
#define EVLOOP_KQ_NOTE_OOB 0x2

/**
 * VNODE: a name of it was removed, or another file was renamed to it. Works.
 * For a directory its parent directory must be readable too.
 */
#define EVLOOP_KQ_NOTE_DELETE 0x1

/**
 * VNODE: it was written; of a directory, its entries changed. Works.
 * Truncating it is reported as a write too, and so is setting only the time of
 * its last modification.
 */
#define EVLOOP_KQ_NOTE_WRITE 0x2

/**
 * VNODE: it became longer; an entry was moved into a directory, or out of it.
 * Works, by its size when the library checks it.
 */
#define EVLOOP_KQ_NOTE_EXTEND 0x4

/**
 * VNODE: its attributes changed, or it became shorter. Works; an extended
 * attribute that is set together with a new link may be missed.
 */
#define EVLOOP_KQ_NOTE_ATTRIB 0x8

/**
 * VNODE: its number of links changed; a subdirectory of it was created or
 * removed. Works. A link that is created and removed before the library checks
 * is an ATTRIB.
 */
#define EVLOOP_KQ_NOTE_LINK 0x10

/** VNODE: it was renamed. Works. */
#define EVLOOP_KQ_NOTE_RENAME 0x20

/**
 * VNODE: its file system was unmounted, with EVLOOP_KQ_EV_EOF. Works in part:
 * Linux cannot revoke files, and unmounts a file system in use only by
 * MNT_DETACH. It is not reported if the mount was in another namespace from
 * the beginning.
 */
#define EVLOOP_KQ_NOTE_REVOKE 0x40

/** VNODE: it was opened. Works. */
#define EVLOOP_KQ_NOTE_OPEN 0x80

/** VNODE: a descriptor of it was closed that could not write. Works. */
#define EVLOOP_KQ_NOTE_CLOSE 0x100

/** VNODE: a descriptor of it was closed that could write. Works. */
#define EVLOOP_KQ_NOTE_CLOSE_WRITE 0x200

/** VNODE: it was read. Works. */
#define EVLOOP_KQ_NOTE_READ 0x400

/** PROC: the process ended. */
#define EVLOOP_KQ_NOTE_EXIT 0x80000000

/** PROC: it forked. */
#define EVLOOP_KQ_NOTE_FORK 0x40000000

/** PROC: it executed another program. */
#define EVLOOP_KQ_NOTE_EXEC 0x20000000

/** PROC: it ended, and data is its status (macOS). */
#define EVLOOP_KQ_NOTE_EXITSTATUS 0x4000000

/** PROC: it ended, and its status is not known. */
#define EVLOOP_KQ_NOTE_EXITUNKNOWN 0x100000

/** PROC: the mask of the bits for events. */
#define EVLOOP_KQ_NOTE_PCTRLMASK 0xf0000000

/** PROC: the mask of the bits for data. */
#define EVLOOP_KQ_NOTE_PDATAMASK 0xfffff

/** PROC: children too. */
#define EVLOOP_KQ_NOTE_TRACK 0x1

/** PROC: a child could not be watched. */
#define EVLOOP_KQ_NOTE_TRACKERR 0x2

/** PROC: the process is a child of a tracked one. */
#define EVLOOP_KQ_NOTE_CHILD 0x4

/** FS: a server does not respond; -ENOTSUP. */
#define EVLOOP_KQ_VQ_NOTRESP 0x1

/** FS: a server wants authentication; -ENOTSUP. */
#define EVLOOP_KQ_VQ_NEEDAUTH 0x2

/** FS: there is little space left; -ENOTSUP. */
#define EVLOOP_KQ_VQ_LOWDISK 0x4

/** FS: a file system was mounted, or a mount moved. Works. */
#define EVLOOP_KQ_VQ_MOUNT 0x8

/** FS: a file system was unmounted, or a mount moved. Works. */
#define EVLOOP_KQ_VQ_UNMOUNT 0x10

/** FS: a file system is dead; -ENOTSUP. */
#define EVLOOP_KQ_VQ_DEAD 0x20

/** FS: a file system needs help; -ENOTSUP. */
#define EVLOOP_KQ_VQ_ASSIST 0x40

/** FS: the locks of a server do not respond; -ENOTSUP. */
#define EVLOOP_KQ_VQ_NOTRESPLOCK 0x80

/** NETDEV: the link is up. Works. */
#define EVLOOP_KQ_NOTE_LINKUP 0x1

/** NETDEV: the link is down, or the interface is. Works. */
#define EVLOOP_KQ_NOTE_LINKDOWN 0x2

/**
 * NETDEV: the state of the link is not known: the driver does not report it,
 * as for the loopback interface, or the interface is removed. Works.
 */
#define EVLOOP_KQ_NOTE_LINKINV 0x4

/** TIMER: data is seconds. */
#define EVLOOP_KQ_NOTE_SECONDS 0x1

/** TIMER: data is milliseconds, as without any unit. */
#define EVLOOP_KQ_NOTE_MSECONDS 0x2

/** TIMER: data is microseconds. */
#define EVLOOP_KQ_NOTE_USECONDS 0x4

/** TIMER: data is nanoseconds. */
#define EVLOOP_KQ_NOTE_NSECONDS 0x8

/**
 * TIMER: data is a time of the wall clock; the timer expires once, at that
 * time.
 */
#define EVLOOP_KQ_NOTE_ABSTIME 0x10

/** USER: fflags are unchanged. */
#define EVLOOP_KQ_NOTE_FFNOP 0x0

/** USER: fflags are combined by AND with those of the change. */
#define EVLOOP_KQ_NOTE_FFAND 0x40000000

/** USER: fflags are combined by OR with those of the change. */
#define EVLOOP_KQ_NOTE_FFOR 0x80000000

/** USER: fflags are replaced by those of the change. */
#define EVLOOP_KQ_NOTE_FFCOPY 0xc0000000

/** USER: the mask of these four. */
#define EVLOOP_KQ_NOTE_FFCTRLMASK 0xc0000000

/** USER: the mask of the bits that the program may use. */
#define EVLOOP_KQ_NOTE_FFLAGSMASK 0xffffff

/** USER: trigger the event. */
#define EVLOOP_KQ_NOTE_TRIGGER 0x1000000

/**
 * evloop_kqueue_create(): the program deletes before it closes what has
 * duplicates. Since 0.2.0.
 */
#define EVLOOP_KQ_TRUST_FDS 0x100

/**
 * Changes what a kqueue watches, and waits for events.
 *
 * First it applies the changes, in their order. A change that fails gets an
 * entry in events: EVLOOP_KQ_EV_ERROR in flags, the errno in data, everything
 * else as in the change. A change with EVLOOP_KQ_EV_RECEIPT gets such an entry
 * too, with data 0. If there is any such entry, the call returns at once, and
 * pending events stay for the next call. If there is no room for an entry, the
 * later changes are not applied, and the call returns the error or, after a
 * receipt, the number of entries. A call that returns an error leaves events
 * unchanged.
 *
 * Then it waits for events, unless nevents is 0.
 *
 * These are the differences from FreeBSD that a program may notice:
 *
 *   EV_ADD         of a disabled knote enables it, as FreeBSD's manual page
 *                  has it; its kernel needs EV_ENABLE
 *   EV_CLEAR       an event may come once more than something happened
 *   close(2)       of a descriptor that is watched: as on FreeBSD; of a
 *                  queue's own: see evloop_bsd_kqueue(). Closing a queue
 *                  wakes the threads that wait in it
 *   the queue's    may be readable though there is no event, until the
 *   descriptor     next call (see evloop_kqueue_fileno())
 *   nesting        queues and epolls nest as deep as epoll allows
 *   READ           data of sockets that keep messages, and of TCP with an
 *                  urgent byte in the middle, may be a bound above the
 *                  exact value, and NOTE_LOWAT uses it. fflags of a
 *                  connection that failed is ECONNREFUSED, ECONNRESET or 0:
 *                  the error is left to getsockopt(SO_ERROR). Not seen are a
 *                  change of a file's position by lseek(), and what other
 *                  machines do to the file
 *   WRITE          EV_EOF also when the peer has closed. After the
 *                  program's own shutdown(SHUT_WR) it has EV_EOF for TCP and
 *                  local stream sockets, not for others, and data is 0. data
 *                  is at least 1 otherwise. Below NOTE_LOWAT it is polled
 *                  every 10 ms
 *   EMPTY          up to 20 ms late, but for local sockets
 *   VNODE          what happens between two checks of the file is one
 *                  event: NOTE_LINK also when a name is removed,
 *                  NOTE_WRITE also when it is truncated. The file must be
 *                  readable. Not seen: writing by mmap(2), other machines.
 *                  NOTE_REVOKE is for unmounting alone
 *   PROC           NOTE_FORK, _EXEC and _TRACK need more than a kernel
 *                  must have; an exit status may be unknown
 *   SIGNAL         see the filter
 *   TIMER          never early; EV_CLEAR is always on, but for NOTE_ABSTIME
 *   USER           a change of a knote that has both NOTE_TRIGGER and
 *                  EV_CLEAR triggers it; on FreeBSD it does not
 *   AIO            operations are begun with evloop_kqueue_aio_read() and
 *                  functions like it: aio_read() of the C library is not seen
 *   FS             only VQ_MOUNT and VQ_UNMOUNT
 *   NETDEV         is not in FreeBSD any more; another filter has its value
 *   EXCEPT         is not in FreeBSD
 *   PROCDESC, LIO, -ENOTSUP, and not defined in <sys/event.h>
 *   SENDFILE
 *   EV_UDATA_      is macOS's; the value is this library's own
 *   SPECIFIC
 *
 * A change that Linux cannot do is refused (-ENOTSUP).
 *
 * @param kq a kqueue.
 * @param changes the changes; may be NULL if nchanges is 0.
 * @param nchanges how many changes; 0 or more.
 * @param events receives the events; may be NULL if nevents is 0, and may be
 *   the same array as changes.
 * @param nevents size of events, in entries; 0 or more. With 0 the call
 *   applies the changes and does not wait.
 * @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
 *   ever.
 * @returns the number of entries filled; 0 if the time ran out.
 *
 * Errors:
 *   -EINVAL    a count is negative, or an array is NULL and its count is not 0
 *   -EINTR     a signal handler interrupted the wait; all changes were applied
 *   -ENOMEM
 * Errors of a change:
 *   -EBADF     ident is not an open descriptor
 *   -ENOENT    the queue has no knote of that ident and filter
 *   -EINVAL    the filter, or something in fflags or data, is unknown
 *   -EINVAL    ident is the queue itself, or one of the library's own
 *              descriptors
 *   -ENOTSUP   this system cannot watch that
 *   -ELOOP     queues or epolls would be nested in a circle or too deep
 *   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
 *
 * Blocking: up to timeout_ns, never less.
 * Threads: any, several at once.
 * Source: kevent(2) of FreeBSD.
 */
int evloop_kqueue_control(evloop_kqueue_t kq,
                          const struct evloop_kevent_t *changes,
                          int nchanges,
                          struct evloop_kevent_t *events,
                          int nevents,
                          int64_t timeout_ns);

/**
 * Reads in the background.
 *
 * When the operation is complete there is one event of EVLOOP_KQ_FILTER_AIO,
 * with the ident and udata of this call. data is the number of bytes, 0 at the
 * end of the file; or -1, with the errno in fflags (ECANCELED after a
 * cancellation). Like any other event it comes from evloop_kqueue_control()
 * and makes the queue readable. The operation uses io_uring(7) if the process
 * may use that, else up to four threads of the queue, which block all signals
 * and end with it. Both do the same and report the same errors.
 *
 * Until the event was returned, or evloop_kqueue_close() has returned:
 * - the buffer belongs to the operation;
 * - the descriptor must stay open;
 * - with io_uring the calling thread must not end. Operations that it began
 *   and that are not complete when it ends fail with ECANCELED, possibly only
 *   when their turn has come.
 *
 * @param kq a kqueue.
 * @param fd a descriptor to read from.
 * @param buffer receives the data; at least count bytes.
 * @param count how many bytes at most; 0 or more.
 * @param offset where in the file, in bytes; negative: at its position. A
 *   descriptor without positions (a pipe, a terminal) takes any offset, a
 *   socket 0 or a negative one (ESPIPE in the event).
 * @param ident a number that the caller chooses. No other operation of this
 *   queue that is in progress, or was not collected yet, may have it.
 * @param udata returned with the event.
 * @returns 0: the operation has begun.
 *
 * Errors; other errors of fd come with the event:
 *   -EEXIST    ident is in use
 *   -EAGAIN    4096 operations are in progress, or no thread can be created
 *   -EINVAL    buffer is NULL, or count is negative
 *   -EINVAL    fd is one of the library's own descriptors
 *   -EMFILE, -ENFILE  no descriptor is left for the queue's first operation
 *   -ENOMEM
 *
 * Fork: operations in progress continue for the parent.
 * Source: aio_read(2) and kqueue(2) of FreeBSD.
 */
int evloop_kqueue_aio_read(evloop_kqueue_t kq,
                           int fd,
                           void *buffer,
                           int64_t count,
                           int64_t offset,
                           uint64_t ident,
                           uint64_t udata);

/**
 * Writes in the background; else as evloop_kqueue_aio_read().
 *
 * @param kq a kqueue.
 * @param fd a descriptor to write to.
 * @param buffer the data; at least count bytes, which must not change.
 * @param count how many bytes; 0 or more. Fewer may be written.
 * @param offset as evloop_kqueue_aio_read().
 * @param ident as evloop_kqueue_aio_read().
 * @param udata as evloop_kqueue_aio_read().
 * @returns 0: the operation has begun; errors as evloop_kqueue_aio_read(). A
 *   write to a pipe without a reader is EPIPE in the event, and SIGPIPE as
 *   with write(2).
 *
 * Fork: as evloop_kqueue_aio_read().
 * Source: aio_write(2) of FreeBSD.
 */
int evloop_kqueue_aio_write(evloop_kqueue_t kq,
                            int fd,
                            const void *buffer,
                            int64_t count,
                            int64_t offset,
                            uint64_t ident,
                            uint64_t udata);

/** evloop_kqueue_aio_fsync(): only what is needed to read the data again. */
#define EVLOOP_KQ_AIO_DATASYNC 0x1

/**
 * Writes a file's data to the disk, in the background.
 *
 * @param kq a kqueue.
 * @param fd a descriptor.
 * @param flags 0 or EVLOOP_KQ_AIO_DATASYNC, which leaves out what is not
 *   needed to read the data again.
 * @param ident as evloop_kqueue_aio_read().
 * @param udata as evloop_kqueue_aio_read().
 * @returns 0: the operation has begun.
 *
 * Errors, besides those of evloop_kqueue_aio_read():
 *   -EINVAL    an unknown flag
 *
 * Fork: as evloop_kqueue_aio_read().
 * Source: aio_fsync(2) of FreeBSD, fsync(2).
 */
int evloop_kqueue_aio_fsync(evloop_kqueue_t kq,
                            int fd,
                            uint32_t flags,
                            uint64_t ident,
                            uint64_t udata);

/**
 * Cancels an operation in the background.
 *
 * Its event still comes: with ECANCELED in fflags, or with its result if it
 * was complete first. A read or write of a file that has begun is not
 * interrupted.
 *
 * @param kq a kqueue.
 * @param ident the ident of the operation.
 * @returns 0; also if the operation is complete.
 *
 * Errors:
 *   -ENOENT    no operation has this ident
 *   -EAGAIN    the submission queue of io_uring is full
 *   -ENOMEM
 *
 * Source: aio_cancel(2) of FreeBSD.
 */
int evloop_kqueue_aio_cancel(evloop_kqueue_t kq, uint64_t ident);

/**
 * Closes a kqueue. Threads that wait in it return -ESTALE.
 *
 * Operations in progress are cancelled, and the call waits for them: a read or
 * write of a regular file that has begun ends first.
 *
 * @param kq a kqueue.
 * @returns 0.
 *
 * Blocking: until the operations in progress have ended.
 * Fork: works in the child, and changes nothing for the parent.
 */
int evloop_kqueue_close(evloop_kqueue_t kq);

/**
 * Creates a kqueue that is known by its descriptor, as on BSD.
 *
 * The descriptor is the program's: close(2) closes the queue. The kernel does
 * not notify the library of that. Threads that wait in evloop_bsd_kevent()
 * check every 250 ms, and return. The resources of closed queues are freed by
 * the next call that makes a kqueue, and by the next one that waits in a
 * kqueue (which checks at most once a millisecond). A duplicate, dup(2), is
 * the same queue; the queue lives as long as one of them is open.
 *
 * It takes no flags: see evloop_bsd_kqueue1(). evloop_bsd_kevent() also accepts
 * the evloop_kqueue_fileno() of a queue of evloop_kqueue_create(), which the
 * program closes with evloop_kqueue_close().
 *
 * @returns the descriptor, which is close-on-exec. -1 and errno: EMFILE,
 *   ENFILE, ENOMEM.
 *
 * Fork: not inherited; the child's first call of the library closes it there.
 * Source: kqueue(2) of FreeBSD.
 */
int evloop_bsd_kqueue(void);

/**
 * Creates a kqueue that is known by its descriptor, with flags.
 *
 * @param flags EVLOOP_KQ_CLOEXEC, EVLOOP_KQ_CPONFORK and
 *   EVLOOP_KQ_TRUST_FDS, as of evloop_kqueue_create(), or 0. The descriptor
 *   is close-on-exec in any case: an executed program could not use it.
 * @returns as evloop_bsd_kqueue(); -1 and EINVAL for an unknown flag.
 *
 * Fork: as evloop_bsd_kqueue(). With EVLOOP_KQ_CPONFORK the child has a copy,
 * as of evloop_kqueue_create().
 * Since 0.2.0. Source: kqueuex(2) of FreeBSD.
 */
int evloop_bsd_kqueue1(uint32_t flags);

/**
 * Changes what a kqueue watches, and waits for events, as on BSD.
 *
 * It is evloop_kqueue_control() with these parameters and results.
 *
 * @param kq a descriptor from evloop_bsd_kqueue(), or of any kqueue.
 * @param changes the changes; may be NULL if nchanges is 0.
 * @param nchanges how many changes; 0 or more.
 * @param events receives the events; may be NULL if nevents is 0.
 * @param nevents size of events, in entries; 0 or more.
 * @param timeout how long to wait; NULL waits for ever.
 * @returns the number of entries filled; 0 if the time ran out. On failure -1
 *   and errno.
 *
 * Values of errno, besides those of evloop_kqueue_control():
 *   EBADF      kq is not a kqueue of this process, or was closed during the
 *              wait
 *   EINTR      a signal handler interrupted the wait; all changes were applied
 *   EINVAL     the timeout is negative, or has 10^9 nanoseconds or more
 *
 * Blocking: up to the timeout, never less.
 * Threads: any, several at once.
 * Fork: EBADF.
 * Source: kevent(2) of FreeBSD.
 */
int evloop_bsd_kevent(int kq,
                      const struct evloop_kevent_t *changes,
                      int nchanges,
                      struct evloop_kevent_t *events,
                      int nevents,
                      const struct timespec *timeout);

/**
 * Changes the disposition of a signal, as sigaction(2).
 *
 * It is for a library that replaces sigaction() of the C library, as
 * libevloop-kqueue does: that library passes all calls to this function. While
 * a kqueue or an event loop watches a signal by a handler, the library's
 * handler stays in place and does what the program sets here, from this moment
 * on. So no signal is missed. oldact receives what the program had set before,
 * as if the library's handler were not there. For other signals this is
 * sigaction(2).
 *
 * @param next sigaction(2) itself. The library also calls it from now on to
 *   change a disposition.
 * @param signum the signal.
 * @param act the new disposition; NULL: nothing is changed.
 * @param oldact receives the old disposition; may be NULL.
 * @returns 0. On failure -1 and errno.
 *
 * Values of errno:
 *   EINVAL     next is NULL, or signum is not a signal or cannot be handled
 *
 * Signals: safe.
 * Fork: works in the child, where no signal is watched until the child watches
 * it itself.
 * Source: sigaction(2).
 */
int evloop_bsd_sigaction(int (*next)(int signum,
                                     const struct sigaction *act,
                                     struct sigaction *oldact),
                         int signum,
                         const struct sigaction *act,
                         struct sigaction *oldact);

#ifdef __cplusplus
} /* extern "C" */
#endif /* __cplusplus */

#endif  /* EVLOOP_H */
