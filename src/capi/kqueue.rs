//! Kqueues: `evloop_kqueue_*`.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::guard;
use super::kqueue_types::*;
use super::types::*;
use crate::errno::{Errno, Error, Result};
use crate::kqueue::{By, Changes, Collect, Kevent, Kqueue, Operation, Request, Sink, Use};
use crate::signals;
use crate::sys::SavedErrno;
use crate::sys::clock::Deadline;
use crate::table;
use libc::{sigaction, timespec};

/// Create a kqueue.
///
/// @param flags EVLOOP_KQ_CLOEXEC and EVLOOP_KQ_CPONFORK, or 0.
/// @returns the queue, to be closed with evloop_kqueue_close(). -EINVAL: an
///   unknown flag. -EMFILE, -ENFILE: no descriptor left; a queue needs four,
///   and up to eight more for what it is made to watch. -ENOSPC: the user's
///   max_user_watches is used up. -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD from
/// everything but close in the child, whose descriptor of it is closed by
/// the child's first call of the library. With EVLOOP_KQ_CPONFORK the child
/// has a copy under the same handle and descriptor: the descriptor is the
/// parent's until the child's first call with it. But where another thread
/// was changing the queue, or took events, at the fork the child has none:
/// -ECHILD. Since 0.1.0. Source: kqueue(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_create(flags: u32) -> evloop_kqueue_t {
    guard("evloop_kqueue_create", || {
        arg::flags(flags, EVLOOP_KQ_CLOEXEC | EVLOOP_KQ_CPONFORK)?;
        Kqueue::create(flags & EVLOOP_KQ_CPONFORK != 0)
    })
}

/// A second handle for a kqueue that is known by its descriptor.
///
/// Both are the same queue. Closing this handle ends the waits that were
/// begun with it, and leaves the queue as it is, unless EVLOOP_FD_OWN is
/// given.
///
/// @param fd a descriptor from evloop_bsd_kqueue() or evloop_kqueue_fileno(),
///   or a duplicate of one.
/// @param flags 0, or EVLOOP_FD_OWN: closing the handle closes the queue and
///   its descriptor.
/// @returns the handle, to be closed with evloop_kqueue_close(). -EBADF: fd
///   is not a kqueue of this process. -EINVAL: an unknown flag. -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: as the queue.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_from_fd(fd: c_int, flags: u32) -> evloop_kqueue_t {
    guard("evloop_kqueue_from_fd", || {
        arg::flags(flags, EVLOOP_FD_OWN)?;
        Kqueue::lend(arg::fd(fd)?, flags & EVLOOP_FD_OWN != 0)
    })
}

/// The descriptor of a kqueue.
///
/// It is only lent: do not close it. It is readable while an event is
/// pending, and can be registered with another kqueue, epoll, poll or
/// select. The kernel nests so many epolls and no more (-ELOOP): a queue
/// that watches a queue can be polled, but not be watched by a third.
///
/// Where it has to be asked what there is, it may be readable although there
/// is no event, until evloop_kqueue_control() has looked: for a socket that
/// was never connected, below an EVLOOP_KQ_NOTE_LOWAT, and where the filters
/// say so.
///
/// @param kq a kqueue.
/// @returns the descriptor. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_fileno(kq: evloop_kqueue_t) -> c_int {
    guard("evloop_kqueue_fileno", || table::descriptor::<Kqueue>(kq))
}

/// Change what a kqueue watches, and wait for events.
///
/// First the changes are applied, in their order. One that fails gets an
/// entry in events: EVLOOP_KQ_EV_ERROR in flags, the errno in data, all else
/// as in the change. So does each that has EVLOOP_KQ_EV_RECEIPT, with data
/// 0. If there is any such entry, the call returns at once, and events stay
/// for the next one. If there is no room for an entry, the later changes are
/// not applied, and the call returns the error, or, after a receipt, the
/// number of entries. A call that returns an error leaves events as it was.
///
/// Then events are waited for, unless nevents is 0.
///
/// What is different from FreeBSD, where a program may notice:
///
///   EV_ADD         of a disabled knote enables it, as FreeBSD's manual page
///                  has it; its kernel needs EV_ENABLE
///   EV_CLEAR       an event may come once more than something happened
///   close(2)       of a descriptor that is watched: as on FreeBSD; of a
///                  queue's own: see evloop_bsd_kqueue(). Closing a queue
///                  wakes the threads that wait in it
///   the queue's    may be readable though there is no event, until the
///   descriptor     next call (see evloop_kqueue_fileno())
///   nesting        queues and epolls nest as deep as epoll allows
///   READ           data of sockets that keep messages, and of TCP with an
///                  urgent byte in the middle, may be a bound above what
///                  waits, and NOTE_LOWAT goes by it. fflags of a connection
///                  that failed is ECONNREFUSED, ECONNRESET or 0: the error
///                  is left to getsockopt(SO_ERROR). That lseek() moved the
///                  position of a file is not seen, nor what other machines
///                  do to it
///   WRITE          EV_EOF also when the peer has closed. After one's own
///                  shutdown(SHUT_WR) it has EV_EOF for TCP and local stream
///                  sockets, not for others, and data is 0. data is at least
///                  1 otherwise. Below NOTE_LOWAT it is looked every 10 ms
///   EMPTY          up to 20 ms late, but for local sockets
///   VNODE          what happens between two looks at the file is one
///                  happening: NOTE_LINK also when a name is removed,
///                  NOTE_WRITE also when it is truncated. The file must be
///                  readable. Not seen: writing by mmap(2), other machines.
///                  NOTE_REVOKE is for unmounting alone
///   PROC           NOTE_FORK, _EXEC and _TRACK need more than a kernel
///                  must have; an exit status may be unknown
///   SIGNAL         see the filter
///   TIMER          never early; EV_CLEAR is always on, but for NOTE_ABSTIME
///   USER           a change of a knote that has both NOTE_TRIGGER and
///                  EV_CLEAR triggers it; on FreeBSD it does not
///   AIO            operations are begun with evloop_kqueue_aio_read() and
///                  its like: the C library's aio_read() is not seen
///   FS             only VQ_MOUNT and VQ_UNMOUNT
///   NETDEV         is not in FreeBSD any more; its number is another's there
///   EXCEPT         is not in FreeBSD
///   PROCDESC, LIO, -ENOTSUP, and not defined in <sys/event.h>
///   SENDFILE
///   EV_UDATA_      is macOS's; the number is this library's own
///   SPECIFIC
///
/// What Linux cannot do is refused (-ENOTSUP) when it is asked for.
///
/// @param kq a kqueue.
/// @param changes what to change; may be NULL if nchanges is 0.
/// @param nchanges how many changes; 0 or more.
/// @param events where events go; may be NULL if nevents is 0, and may be
///   the same array as changes.
/// @param nevents room in events, in entries; 0 or more. With 0 the changes
///   are applied and nothing is waited for.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits
///   for ever.
/// @returns the number of entries filled; 0 if the time ran out. -EINVAL: a
///   negative count, or an array is NULL. -EINTR: see
///   evloop_set_interrupt_mode(); all changes were applied. -ESTALE: not a
///   live handle, or closed during the wait. -ECHILD: used after fork.
///   -ENOMEM. -EDOM: see "Handles". Of a change: -EBADF: ident is not an
///   open descriptor. -ENOENT: ident is not watched with that filter.
///   -EINVAL: the filter, or something in fflags or data, is unknown; or
///   ident is the queue itself, or one of the library's own descriptors.
///   -ENOTSUP: this system cannot watch that. -ELOOP: queues or epolls would
///   be nested in a circle, or too deep. -EMFILE, -ENFILE, -ENOSPC.
///
/// Blocking: up to timeout_ns, never less. Threads: any, several at once.
/// Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source: kevent(2) of
/// FreeBSD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_kqueue_control(
    kq: evloop_kqueue_t,
    changes: *const Kevent,
    nchanges: c_int,
    events: *mut Kevent,
    nevents: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_kqueue_control", || {
        let queue = Use::of(kq)?;
        let nchanges = arg::entries(changes, nchanges, "changes")?;
        let nevents = arg::entries(events, nevents, "events")?;
        // SAFETY: the caller lends so many entries.
        let mut changes = unsafe { Changes::new(changes, nchanges) };
        // SAFETY: the caller lends room for so many; those that take the
        // place of changes do so after these were read.
        let mut sink = unsafe { Sink::new(events, nevents) };
        let deadline = Deadline::after(timeout_ns);
        let how = Collect { deadline, by: By::Handle };
        arg::count(queue.control(&mut changes, &mut sink, how)?)
    })
}

/// Read in the background.
///
/// When it is done there is one event: EVLOOP_KQ_FILTER_AIO, ident and udata
/// as given here, in data the number of bytes, 0 at the end of the file; or
/// -1, and the errno in fflags (-ECANCELED becomes ECANCELED). Like any
/// other it comes from evloop_kqueue_control() and makes the queue readable.
/// It is on io_uring(7) where the process has that, else on up to four
/// threads of the queue's own, which block all signals and end with it. Both
/// do the same, and report the same errors.
///
/// The buffer is lent until the event was returned or evloop_kqueue_close()
/// was; the descriptor must stay open until then, and so, with io_uring, must
/// the calling thread: what it began and was not done when it ended fails
/// with ECANCELED, but perhaps not before its turn to be done has come.
///
/// @param kq a kqueue.
/// @param fd a descriptor to read from.
/// @param buffer where to read to; at least count bytes.
/// @param count how many bytes at most; 0 or more.
/// @param offset where in the file, in bytes; negative: at its position.
///   What has no positions (a pipe, a terminal) takes any offset, a socket 0
///   or a negative one (ESPIPE in the event).
/// @param ident the operation's number, which no other operation of this
///   queue may have that is in flight or was not collected yet.
/// @param udata handed back with the event.
/// @returns 0: begun. -EEXIST: ident is in use. -EAGAIN: 4096 operations
///   are in flight, or there can be no thread. -EINVAL: a NULL buffer, a
///   negative count, or fd is one of the library's own descriptors. -EMFILE,
///   -ENFILE: no descriptor for the queue's first operation. -ENOMEM.
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles". What else is
///   wrong with fd comes with the event.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD; what is in
/// flight goes on for the parent. Since 0.1.0. Source: aio_read(2) and
/// kqueue(2) of FreeBSD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_kqueue_aio_read(
    kq: evloop_kqueue_t,
    fd: c_int,
    buffer: *mut c_void,
    count: i64,
    offset: i64,
    ident: u64,
    udata: u64,
) -> c_int {
    guard("evloop_kqueue_aio_read", || {
        let count = arg::buffer(buffer, count)?;
        let operation = Operation::Read { buffer: buffer.cast(), count };
        begin(kq, Request { fd, operation, offset }, ident, udata)
    })
}

/// Write in the background; else as evloop_kqueue_aio_read().
///
/// @param kq a kqueue.
/// @param fd a descriptor to write to.
/// @param buffer what to write; at least count bytes, which must not change.
/// @param count how many bytes; 0 or more. Fewer may be written.
/// @param offset as evloop_kqueue_aio_read().
/// @param ident as evloop_kqueue_aio_read().
/// @param udata as evloop_kqueue_aio_read().
/// @returns as evloop_kqueue_aio_read(). Writing to a pipe that nobody reads
///   is EPIPE in the event, and SIGPIPE as with write(2).
///
/// Blocking, threads, signals, fork: as evloop_kqueue_aio_read().
/// Since 0.1.0. Source: aio_write(2) of FreeBSD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_kqueue_aio_write(
    kq: evloop_kqueue_t,
    fd: c_int,
    buffer: *const c_void,
    count: i64,
    offset: i64,
    ident: u64,
    udata: u64,
) -> c_int {
    guard("evloop_kqueue_aio_write", || {
        let count = arg::buffer(buffer, count)?;
        let operation = Operation::Write { buffer: buffer.cast(), count };
        begin(kq, Request { fd, operation, offset }, ident, udata)
    })
}

/// Have what was written to a file reach the disk, in the background.
///
/// @param kq a kqueue.
/// @param fd a descriptor.
/// @param flags 0 or EVLOOP_KQ_AIO_DATASYNC: but for what is not needed to
///   read the data again.
/// @param ident as evloop_kqueue_aio_read().
/// @param udata as evloop_kqueue_aio_read().
/// @returns as evloop_kqueue_aio_read(); -EINVAL: also an unknown flag.
///
/// Blocking, threads, signals, fork: as evloop_kqueue_aio_read().
/// Since 0.1.0. Source: aio_fsync(2) of FreeBSD, fsync(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_aio_fsync(
    kq: evloop_kqueue_t,
    fd: c_int,
    flags: u32,
    ident: u64,
    udata: u64,
) -> c_int {
    guard("evloop_kqueue_aio_fsync", || {
        arg::flags(flags, EVLOOP_KQ_AIO_DATASYNC)?;
        let operation = Operation::Sync { data_only: flags & EVLOOP_KQ_AIO_DATASYNC != 0 };
        begin(kq, Request { fd, operation, offset: 0 }, ident, udata)
    })
}

fn begin(kq: evloop_kqueue_t, request: Request, ident: u64, udata: u64) -> Result<c_int> {
    Use::of(kq)?.begin_operation(request, ident, udata)?;
    Ok(0)
}

/// Have an operation in the background end soon.
///
/// Its event still comes: with ECANCELED in fflags, or with what it did if
/// that was faster. A file's reading or writing that has begun is not
/// interrupted.
///
/// @param kq a kqueue.
/// @param ident the operation's number.
/// @returns 0; also if it is done. -ENOENT: there is none with this number.
///   -EAGAIN, -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0. Source: aio_cancel(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_aio_cancel(kq: evloop_kqueue_t, ident: u64) -> c_int {
    guard("evloop_kqueue_aio_cancel", || Use::of(kq)?.cancel_operation(ident).map(|()| 0))
}

/// Close a kqueue.
///
/// Operations in flight are cancelled, and waited for: a regular file's
/// reading or writing that has begun comes to its end first.
///
/// @param kq a kqueue.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: works in the child, and changes nothing for the
/// parent. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_close(kq: evloop_kqueue_t) -> c_int {
    guard("evloop_kqueue_close", || table::close::<Kqueue>(kq).map(|()| 0))
}

/// Create a kqueue that is known by its descriptor, as on BSD.
///
/// The descriptor is the program's: close(2) closes the queue. The kernel
/// does not notify the library of that. Threads that wait in
/// evloop_bsd_kevent() look every 250 ms, and return. What closed queues hold
/// is given back by the next call that makes a kqueue, and by the next one
/// that waits in a kqueue (which looks at most once a millisecond). A
/// duplicate, dup(2), is the same queue, which lives as long as one of them
/// is open.
///
/// @returns the descriptor, which is close-on-exec. -1 and errno: EMFILE,
///   ENFILE, ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: not inherited: the
/// child's first call of the library closes it there. Since 0.1.0. Source:
/// kqueue(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_bsd_kqueue() -> c_int {
    bsd_guard("evloop_bsd_kqueue", Kqueue::create_number)
}

/// Change what a kqueue watches, and wait for events, as on BSD.
///
/// Everything is as evloop_kqueue_control() has it but what is said here.
///
/// @param kq a descriptor from evloop_bsd_kqueue(), or of any kqueue.
/// @param changes what to change; may be NULL if nchanges is 0.
/// @param nchanges how many changes; 0 or more.
/// @param events where events go; may be NULL if nevents is 0.
/// @param nevents room in events, in entries; 0 or more.
/// @param timeout how long to wait; NULL waits for ever.
/// @returns the number of entries filled; 0 if the time ran out. -1 and
///   errno: EBADF: kq is not a kqueue of this process, or was closed during
///   the wait. EINTR: a signal handler interrupted the wait; all changes
///   were applied. EINVAL, ENOMEM and others as evloop_kqueue_control(), and
///   EINVAL for a timeout that is negative or has 10^9 nanoseconds or more.
///
/// Blocking: up to the timeout, never less. Threads: any, several at once.
/// Signals: not safe. Fork: EBADF. Since 0.1.0. Source: kevent(2) of
/// FreeBSD.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_bsd_kevent(
    kq: c_int,
    changes: *const Kevent,
    nchanges: c_int,
    events: *mut Kevent,
    nevents: c_int,
    timeout: *const timespec,
) -> c_int {
    bsd_guard("evloop_bsd_kevent", || {
        let queue = Use::of_number(kq)?;
        let nchanges = arg::entries(changes, nchanges, "changes")?;
        let nevents = arg::entries(events, nevents, "events")?;
        // SAFETY: NULL, or the caller's structure.
        let deadline = unsafe { arg::deadline(timeout) }?;
        // SAFETY: the caller lends so many entries.
        let mut changes = unsafe { Changes::new(changes, nchanges) };
        // SAFETY: the caller lends room for so many; those that take the
        // place of changes do so after these were read.
        let mut sink = unsafe { Sink::new(events, nevents) };
        let how = Collect { deadline, by: By::Number(kq) };
        arg::count(queue.control(&mut changes, &mut sink, how)?)
    })
}

/// Change what the program does with a signal, as sigaction(2).
///
/// For a library that takes the place of the C library's sigaction(), as
/// libevloop-kqueue does: it passes all calls on to this function. While a
/// signal is watched by a handler, for a kqueue or an event loop, the
/// library's handler stays in place, and does what the program asks for here,
/// from this moment on: so no signal is missed. oldact receives what the
/// program asked for before, as if the library's handler were not there. For
/// other signals this is sigaction(2).
///
/// @param next sigaction(2) itself. The library, too, calls it from now on
///   where it changes a disposition.
/// @param signum the signal.
/// @param act what to do with it; NULL: nothing is changed.
/// @param oldact receives what was done with it; may be NULL.
/// @returns 0. -1 and errno: EINVAL: next is NULL, or signum is no signal, or
///   one that cannot be handled.
///
/// Blocking: no. Threads: any. Signals: safe. Fork: works in the child, where
/// nothing is watched before it watches something itself. Since 0.1.0.
/// Source: sigaction(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_bsd_sigaction(
    next: Option<
        unsafe extern "C" fn(signum: c_int, act: *const sigaction, oldact: *mut sigaction) -> c_int,
    >,
    signum: c_int,
    act: *const sigaction,
    oldact: *mut sigaction,
) -> c_int {
    let errno_before = SavedErrno::now();
    // SAFETY: NULL, or the caller's structure.
    let act = unsafe { act.as_ref() };
    let result = match next {
        Some(next) => signals::sigaction(next, signum, act),
        None => Err(Errno::EINVAL),
    };
    errno_before.restore();
    match result {
        Ok(_) if oldact.is_null() => {}
        // SAFETY: not NULL, so the caller's structure.
        Ok(old) => unsafe { oldact.write(old) },
        Err(errno) => {
            SavedErrno::set(-errno.negated());
            return -1;
        }
    }
    0
}

/// As [`guard`], with errno in place of a negative result.
fn bsd_guard(function: &'static str, body: impl FnOnce() -> Result<c_int>) -> c_int {
    let result = guard(function, || {
        body().map_err(|error| match error.errno {
            // What a handle can be, a descriptor cannot.
            Errno::ESTALE | Errno::ECHILD => Error { errno: Errno::EBADF },
            _ => error,
        })
    });
    if result >= 0 {
        return result;
    }
    SavedErrno::set(-result);
    -1
}
