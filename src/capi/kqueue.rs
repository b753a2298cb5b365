//! Kqueues: `evloop_kqueue_*`.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::{guard, guard_close};
use super::kqueue_types::*;
use super::types::*;
use crate::errno::{Errno, Error, Result};
use crate::handle;
use crate::kqueue::{
    By, Changes, Collect, Kevent, KeventSink, Kqueue, Nature, Operation, Request, Use,
};
use crate::signal_hub;
use crate::sys::SavedErrno;
use crate::sys::clock::Deadline;
use libc::{sigaction, timespec};

/// Creates a kqueue.
///
/// With EVLOOP_KQ_CPONFORK a forked child has a copy of the queue, under the
/// same handle and descriptor; the descriptor is the parent's until the child's
/// first call with it. The child has none, -ECHILD, if another thread was
/// changing the queue or collecting events at the fork. Without the flag only
/// close works in the child, and the child's first call of the library closes
/// the child's descriptor of the queue.
///
/// A watched descriptor may be closed and its number used again: the new file
/// gets no events of the old one. The kernel reports a closed file as long as a
/// duplicate of its descriptor is open, so the queue verifies each event of a
/// descriptor with a system call. With EVLOOP_KQ_TRUST_FDS the program promises
/// to delete (EVLOOP_KQ_EV_DELETE) before it closes a descriptor that has
/// duplicates, and the queue saves that call. Duplicates are those of dup(2),
/// those sent to another process, and those of a forked process until it, or
/// execve(2), closes them. A descriptor without duplicates may be closed without
/// that, also with this flag. If the program breaks the promise, an event of
/// the closed file is reported for its number, which may be another file by
/// then.
///
/// @param flags EVLOOP_KQ_CLOEXEC, EVLOOP_KQ_CPONFORK and (since 0.2.0)
///   EVLOOP_KQ_TRUST_FDS, or 0.
/// @returns the queue; close it with evloop_kqueue_close().
///
/// Errors:
///   -EINVAL    an unknown flag
///   -EMFILE, -ENFILE  no descriptor is left; a queue needs four, and up to
///              eight more for what it watches
///   -ENOSPC, -ENOMEM
///
/// Source: kqueue(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_create(flags: u32) -> evloop_kqueue_t {
    guard("evloop_kqueue_create", || Kqueue::create(nature(flags)?))
}

fn nature(flags: u32) -> Result<Nature> {
    arg::flags(flags, EVLOOP_KQ_CLOEXEC | EVLOOP_KQ_CPONFORK | EVLOOP_KQ_TRUST_FDS)?;
    Ok(Nature {
        keep: flags & EVLOOP_KQ_CPONFORK != 0,
        trusts_fds: flags & EVLOOP_KQ_TRUST_FDS != 0,
    })
}

/// Makes a second handle for a kqueue, from its descriptor.
///
/// Both handles are the same queue. Closing this handle ends the waits that
/// were begun with it. The queue stays open, unless EVLOOP_FD_OWN is given.
///
/// @param fd a descriptor from evloop_bsd_kqueue() or evloop_kqueue_fileno(),
///   or a duplicate of one.
/// @param flags 0, or EVLOOP_FD_OWN: closing the handle closes the queue and
///   its descriptor.
/// @returns the handle; close it with evloop_kqueue_close().
///
/// Errors:
///   -EBADF     fd is not a kqueue of this process
///   -EINVAL    an unknown flag
///   -ENOMEM
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_from_fd(fd: c_int, flags: u32) -> evloop_kqueue_t {
    guard("evloop_kqueue_from_fd", || {
        arg::flags(flags, EVLOOP_FD_OWN)?;
        Kqueue::create_alias(arg::fd(fd)?, flags & EVLOOP_FD_OWN != 0)
    })
}

/// Returns the descriptor of a kqueue.
///
/// It belongs to the queue: do not close it. It is readable while an event is
/// pending, and can be registered with another kqueue, epoll, poll or select.
/// The kernel limits how deep epolls nest (-ELOOP): a queue that watches a
/// queue can be polled, but a third queue cannot watch it.
///
/// In some cases it may be readable without an event, until
/// evloop_kqueue_control() has checked: for a socket that was never connected,
/// below an EVLOOP_KQ_NOTE_LOWAT, and where the filters say so.
///
/// @param kq a kqueue.
/// @returns the descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_fileno(kq: evloop_kqueue_t) -> c_int {
    guard("evloop_kqueue_fileno", || handle::descriptor::<Kqueue>(kq))
}

/// Changes what a kqueue watches, and waits for events.
///
/// First it applies the changes, in their order. A change that fails gets an
/// entry in events: EVLOOP_KQ_EV_ERROR in flags, the errno in data, everything
/// else as in the change. A change with EVLOOP_KQ_EV_RECEIPT gets such an entry
/// too, with data 0. If there is any such entry, the call returns at once, and
/// pending events stay for the next call. If there is no room for an entry, the
/// later changes are not applied, and the call returns the error or, after a
/// receipt, the number of entries. A call that returns an error leaves events
/// unchanged.
///
/// Then it waits for events, unless nevents is 0.
///
/// These are the differences from FreeBSD that a program may notice:
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
///                  urgent byte in the middle, may be a bound above the
///                  exact value, and NOTE_LOWAT uses it. fflags of a
///                  connection that failed is ECONNREFUSED, ECONNRESET or 0:
///                  the error is left to getsockopt(SO_ERROR). Not seen are a
///                  change of a file's position by lseek(), and what other
///                  machines do to the file
///   WRITE          EV_EOF also when the peer has closed. After the
///                  program's own shutdown(SHUT_WR) it has EV_EOF for TCP and
///                  local stream sockets, not for others, and data is 0. data
///                  is at least 1 otherwise. Below NOTE_LOWAT it is polled
///                  every 10 ms
///   EMPTY          up to 20 ms late, but for local sockets
///   VNODE          what happens between two checks of the file is one
///                  event: NOTE_LINK also when a name is removed,
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
///                  functions like it: aio_read() of the C library is not seen
///   FS             only VQ_MOUNT and VQ_UNMOUNT
///   NETDEV         is not in FreeBSD any more; another filter has its value
///   EXCEPT         is not in FreeBSD
///   PROCDESC, LIO, -ENOTSUP, and not defined in <sys/event.h>
///   SENDFILE
///   EV_UDATA_      is macOS's; the value is this library's own
///   SPECIFIC
///
/// A change that Linux cannot do is refused (-ENOTSUP).
///
/// @param kq a kqueue.
/// @param changes the changes; may be NULL if nchanges is 0.
/// @param nchanges how many changes; 0 or more.
/// @param events receives the events; may be NULL if nevents is 0, and may be
///   the same array as changes.
/// @param nevents size of events, in entries; 0 or more. With 0 the call
///   applies the changes and does not wait.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
///   ever.
/// @returns the number of entries filled; 0 if the time ran out.
///
/// Errors:
///   -EINVAL    a count is negative, or an array is NULL and its count is not 0
///   -EINTR     a signal handler interrupted the wait; all changes were applied
///   -ENOMEM
/// Errors of a change:
///   -EBADF     ident is not an open descriptor
///   -ENOENT    the queue has no knote of that ident and filter
///   -EINVAL    the filter, or something in fflags or data, is unknown
///   -EINVAL    ident is the queue itself, or one of the library's own
///              descriptors
///   -ENOTSUP   this system cannot watch that
///   -ELOOP     queues or epolls would be nested in a circle or too deep
///   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
///
/// Blocking: up to timeout_ns, never less.
/// Threads: any, several at once.
/// Source: kevent(2) of FreeBSD.
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
        let mut sink = unsafe { KeventSink::new(events, nevents) };
        let deadline = Deadline::after(timeout_ns);
        let options = Collect { deadline, by: By::Handle };
        arg::count(queue.control(&mut changes, &mut sink, options)?)
    })
}

/// Reads in the background.
///
/// When the operation is complete there is one event of EVLOOP_KQ_FILTER_AIO,
/// with the ident and udata of this call. data is the number of bytes, 0 at the
/// end of the file; or -1, with the errno in fflags (ECANCELED after a
/// cancellation). Like any other event it comes from evloop_kqueue_control()
/// and makes the queue readable. The operation uses io_uring(7) if the process
/// may use that, else up to four threads of the queue, which block all signals
/// and end with it. Both do the same and report the same errors.
///
/// Until the event was returned, or evloop_kqueue_close() has returned:
/// - the buffer belongs to the operation;
/// - the descriptor must stay open;
/// - with io_uring the calling thread must not end. Operations that it began
///   and that are not complete when it ends fail with ECANCELED, possibly only
///   when their turn has come.
///
/// @param kq a kqueue.
/// @param fd a descriptor to read from.
/// @param buffer receives the data; at least count bytes.
/// @param count how many bytes at most; 0 or more.
/// @param offset where in the file, in bytes; negative: at its position. A
///   descriptor without positions (a pipe, a terminal) takes any offset, a
///   socket 0 or a negative one (ESPIPE in the event).
/// @param ident a number that the caller chooses. No other operation of this
///   queue that is in progress, or was not collected yet, may have it.
/// @param udata returned with the event.
/// @returns 0: the operation has begun.
///
/// Errors; other errors of fd come with the event:
///   -EEXIST    ident is in use
///   -EAGAIN    4096 operations are in progress, or no thread can be created
///   -EINVAL    buffer is NULL, or count is negative
///   -EINVAL    fd is one of the library's own descriptors
///   -EMFILE, -ENFILE  no descriptor is left for the queue's first operation
///   -ENOMEM
///
/// Fork: operations in progress continue for the parent.
/// Source: aio_read(2) and kqueue(2) of FreeBSD.
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

/// Writes in the background; else as evloop_kqueue_aio_read().
///
/// @param kq a kqueue.
/// @param fd a descriptor to write to.
/// @param buffer the data; at least count bytes, which must not change.
/// @param count how many bytes; 0 or more. Fewer may be written.
/// @param offset as evloop_kqueue_aio_read().
/// @param ident as evloop_kqueue_aio_read().
/// @param udata as evloop_kqueue_aio_read().
/// @returns 0: the operation has begun; errors as evloop_kqueue_aio_read(). A
///   write to a pipe without a reader is EPIPE in the event, and SIGPIPE as
///   with write(2).
///
/// Fork: as evloop_kqueue_aio_read().
/// Source: aio_write(2) of FreeBSD.
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

/// Writes a file's data to the disk, in the background.
///
/// @param kq a kqueue.
/// @param fd a descriptor.
/// @param flags 0 or EVLOOP_KQ_AIO_DATASYNC, which leaves out what is not
///   needed to read the data again.
/// @param ident as evloop_kqueue_aio_read().
/// @param udata as evloop_kqueue_aio_read().
/// @returns 0: the operation has begun.
///
/// Errors, besides those of evloop_kqueue_aio_read():
///   -EINVAL    an unknown flag
///
/// Fork: as evloop_kqueue_aio_read().
/// Source: aio_fsync(2) of FreeBSD, fsync(2).
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

/// Cancels an operation in the background.
///
/// Its event still comes: with ECANCELED in fflags, or with its result if it
/// was complete first. A read or write of a file that has begun is not
/// interrupted.
///
/// @param kq a kqueue.
/// @param ident the ident of the operation.
/// @returns 0; also if the operation is complete.
///
/// Errors:
///   -ENOENT    no operation has this ident
///   -EAGAIN    the submission queue of io_uring is full
///   -ENOMEM
///
/// Source: aio_cancel(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_aio_cancel(kq: evloop_kqueue_t, ident: u64) -> c_int {
    guard("evloop_kqueue_aio_cancel", || Use::of(kq)?.cancel_operation(ident).map(|()| 0))
}

/// Closes a kqueue. Threads that wait in it return -ESTALE.
///
/// Operations in progress are cancelled, and the call waits for them: a read or
/// write of a regular file that has begun ends first.
///
/// @param kq a kqueue.
/// @returns 0.
///
/// Blocking: until the operations in progress have ended.
/// Fork: works in the child, and changes nothing for the parent.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_kqueue_close(kq: evloop_kqueue_t) -> c_int {
    guard_close("evloop_kqueue_close", kq, || handle::close::<Kqueue>(kq).map(|()| 0))
}

/// Creates a kqueue that is known by its descriptor, as on BSD.
///
/// The descriptor is the program's: close(2) closes the queue. The kernel does
/// not notify the library of that. Threads that wait in evloop_bsd_kevent()
/// check every 250 ms, and return. The resources of closed queues are freed by
/// the next call that makes a kqueue, and by the next one that waits in a
/// kqueue (which checks at most once a millisecond). A duplicate, dup(2), is
/// the same queue; the queue lives as long as one of them is open.
///
/// It takes no flags: see evloop_bsd_kqueue1(). evloop_bsd_kevent() also accepts
/// the evloop_kqueue_fileno() of a queue of evloop_kqueue_create(), which the
/// program closes with evloop_kqueue_close().
///
/// @returns the descriptor, which is close-on-exec. -1 and errno: EMFILE,
///   ENFILE, ENOMEM.
///
/// Fork: not inherited; the child's first call of the library closes it there.
/// Source: kqueue(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_bsd_kqueue() -> c_int {
    bsd_guard("evloop_bsd_kqueue", || Kqueue::create_fd(Nature::default()))
}

/// Creates a kqueue that is known by its descriptor, with flags.
///
/// @param flags EVLOOP_KQ_CLOEXEC, EVLOOP_KQ_CPONFORK and
///   EVLOOP_KQ_TRUST_FDS, as of evloop_kqueue_create(), or 0. The descriptor
///   is close-on-exec in any case: an executed program could not use it.
/// @returns as evloop_bsd_kqueue(); -1 and EINVAL for an unknown flag.
///
/// Fork: as evloop_bsd_kqueue(). With EVLOOP_KQ_CPONFORK the child has a copy,
/// as of evloop_kqueue_create().
/// Since 0.2.0. Source: kqueuex(2) of FreeBSD.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_bsd_kqueue1(flags: u32) -> c_int {
    bsd_guard("evloop_bsd_kqueue1", || Kqueue::create_fd(nature(flags)?))
}

/// Changes what a kqueue watches, and waits for events, as on BSD.
///
/// It is evloop_kqueue_control() with these parameters and results.
///
/// @param kq a descriptor from evloop_bsd_kqueue(), or of any kqueue.
/// @param changes the changes; may be NULL if nchanges is 0.
/// @param nchanges how many changes; 0 or more.
/// @param events receives the events; may be NULL if nevents is 0.
/// @param nevents size of events, in entries; 0 or more.
/// @param timeout how long to wait; NULL waits for ever.
/// @returns the number of entries filled; 0 if the time ran out. On failure -1
///   and errno.
///
/// Values of errno, besides those of evloop_kqueue_control():
///   EBADF      kq is not a kqueue of this process, or was closed during the
///              wait
///   EINTR      a signal handler interrupted the wait; all changes were applied
///   EINVAL     the timeout is negative, or has 10^9 nanoseconds or more
///
/// Blocking: up to the timeout, never less.
/// Threads: any, several at once.
/// Fork: EBADF.
/// Source: kevent(2) of FreeBSD.
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
        let queue = Use::of_fd(kq)?;
        let nchanges = arg::entries(changes, nchanges, "changes")?;
        let nevents = arg::entries(events, nevents, "events")?;
        // SAFETY: NULL, or the caller's structure.
        let deadline = unsafe { arg::deadline(timeout) }?;
        // SAFETY: the caller lends so many entries.
        let mut changes = unsafe { Changes::new(changes, nchanges) };
        // SAFETY: the caller lends room for so many; those that take the
        // place of changes do so after these were read.
        let mut sink = unsafe { KeventSink::new(events, nevents) };
        let options = Collect { deadline, by: By::Descriptor(kq) };
        arg::count(queue.control(&mut changes, &mut sink, options)?)
    })
}

/// Changes the disposition of a signal, as sigaction(2).
///
/// It is for a library that replaces sigaction() of the C library, as
/// libevloop-kqueue does: that library passes all calls to this function. While
/// a kqueue or an event loop watches a signal by a handler, the library's
/// handler stays in place and does what the program sets here, from this moment
/// on. So no signal is missed. oldact receives what the program had set before,
/// as if the library's handler were not there. For other signals this is
/// sigaction(2).
///
/// @param next sigaction(2) itself. The library also calls it from now on to
///   change a disposition.
/// @param signum the signal.
/// @param act the new disposition; NULL: nothing is changed.
/// @param oldact receives the old disposition; may be NULL.
/// @returns 0. On failure -1 and errno.
///
/// Values of errno:
///   EINVAL     next is NULL, or signum is not a signal or cannot be handled
///
/// Signals: safe.
/// Fork: works in the child, where no signal is watched until the child watches
/// it itself.
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
        Some(next) => signal_hub::sigaction(next, signum, act),
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
