//! Epoll objects: `evloop_epoll_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::{guard, guard_close};
use super::types::*;
use crate::event_loop;
use crate::handle;
use crate::poller::Ready;
use crate::poller::epoll::Epoll;

/// Creates an epoll object.
///
/// @param flags 0 or EVLOOP_EPOLL_CLOEXEC; CLOEXEC is always on.
/// @returns the epoll object; close it with evloop_epoll_close().
///
/// Errors:
///   -EINVAL    an unknown flag
///   -EMFILE, -ENFILE  no descriptor is left; the first epoll object of a
///              process takes two, see "Descriptors"
///   -ENOSPC, -ENOMEM
///
/// Source: epoll_create1(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_create(flags: u32) -> evloop_epoll_t {
    guard("evloop_epoll_create", || {
        arg::flags(flags, EVLOOP_EPOLL_CLOEXEC)?;
        handle::insert(Epoll::create()?)
    })
}

/// Makes a handle for an epoll descriptor that already exists.
///
/// Registrations through this object and by raw epoll_ctl(2) can be mixed. For
/// an event of a registration that the object does not know, fd is -1 and data
/// is the kernel's data word as its owner stored it. The object takes one more
/// descriptor, an eventfd, until it is closed.
///
/// @param fd an epoll descriptor. It stays the caller's, who closes it after
///   the handle. With EVLOOP_FD_OWN it belongs to the handle, and
///   evloop_epoll_close() closes it. On failure it stays the caller's.
/// @param flags 0 or EVLOOP_FD_OWN.
/// @returns the epoll object.
///
/// Errors:
///   -EBADF     fd is not open
///   -EINVAL    fd is not an epoll descriptor, or one of the library's own
///              (except that of evloop_fileno())
///   -EINVAL    an unknown flag
///   -EMFILE, -ENFILE  no descriptor is left for the eventfd
///   -ENOSPC, -ENOMEM
///
/// Fork: as evloop_epoll_create(); a child that inherited fd can call this.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_from_fd(fd: c_int, flags: u32) -> evloop_epoll_t {
    guard("evloop_epoll_from_fd", || {
        arg::flags(flags, EVLOOP_FD_OWN)?;
        event_loop::refuse_own(fd)?;
        let handle = handle::insert(Epoll::adopt(fd)?)?;
        // Only now: an object that found no place leaves it open.
        if flags & EVLOOP_FD_OWN != 0 {
            handle::pin::<Epoll>(handle)?.own_fd();
        }
        Ok(handle)
    })
}

/// Returns the descriptor of an epoll object.
///
/// It belongs to the object: do not close it. It is readable while an event is
/// pending, and can be registered with another epoll, poll or select.
///
/// @param ep an epoll object.
/// @returns the descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_fileno(ep: evloop_epoll_t) -> c_int {
    guard("evloop_epoll_fileno", || handle::descriptor::<Epoll>(ep))
}

/// Registers a descriptor.
///
/// It also affects a wait in progress in another thread. Closing the descriptor
/// ends the registration, unless a duplicate of it is open (epoll(7), Q6):
/// unregister it before close(2).
///
/// @param ep an epoll object.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_EPOLL bits; EVLOOP_EPOLL_DEFAULT is what Python watches
///   by default.
/// @param data returned with each event; the library does not use it.
/// @returns 0.
///
/// Errors:
///   -EEXIST    fd is registered already
///   -EBADF     fd is not open
///   -EPERM     epoll cannot watch fd (a regular file, a directory, /dev/null;
///              a selector can)
///   -EINVAL    an unknown bit
///   -EINVAL    fd is the epoll object itself, or one of the library's own
///              descriptors
///   -EINVAL    EXCLUSIVE for an epoll descriptor, or with other bits than IN,
///              OUT, ERR, HUP, ET and WAKEUP
///   -ELOOP     epoll sets would be nested in a circle or too deep
///   -ENOSPC, -ENOMEM
///
/// Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_register(
    ep: evloop_epoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_epoll_register", || {
        let epoll = handle::pin::<Epoll>(ep)?;
        epoll.register(arg::fd(fd)?, arg::epoll_events(events)?, data).map(|()| 0)
    })
}

/// Changes the registration of a descriptor.
///
/// It also re-arms a ONESHOT registration. An event that another thread's wait
/// collects at the same moment may have the old or the new data.
///
/// @param ep an epoll object.
/// @param fd a registered descriptor.
/// @param events as evloop_epoll_register().
/// @param data as evloop_epoll_register(); replaces the old data.
/// @returns 0.
///
/// Errors:
///   -ENOENT    fd is not registered
///   -EBADF     fd is not open
///   -EPERM     epoll cannot watch fd
///   -EINVAL    an unknown bit
///   -EINVAL    fd is the epoll object itself, or one of the library's own
///              descriptors
///   -EINVAL    the old or the new registration is EXCLUSIVE (unregister and
///              register instead)
///   -ENOMEM
///
/// Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_modify(
    ep: evloop_epoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_epoll_modify", || {
        let epoll = handle::pin::<Epoll>(ep)?;
        epoll.modify(arg::fd(fd)?, arg::epoll_events(events)?, data).map(|()| 0)
    })
}

/// Removes the registration of a descriptor.
///
/// @param ep an epoll object.
/// @param fd a registered descriptor.
/// @returns 0.
///
/// Errors:
///   -ENOENT    fd is not registered
///   -EBADF     fd is not open; the kernel has removed the registration, unless
///              a duplicate is open
///   -EPERM     epoll cannot watch fd, so it was never registered
///   -EINVAL    fd is the epoll object itself, or one of the library's own
///              descriptors
///
/// Source: epoll_ctl(2).
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_unregister(ep: evloop_epoll_t, fd: c_int) -> c_int {
    guard("evloop_epoll_unregister", || {
        handle::pin::<Epoll>(ep)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Waits until registered descriptors are ready.
///
/// For some events fd in out_ready is -1:
/// - an event of a registration that the object does not know, see
///   evloop_epoll_from_fd();
/// - if a descriptor was closed without being unregistered, a duplicate of it
///   is open, and its fd is registered again: an event of the old registration.
///   After that has happened once, fd can also be -1 for an event that the
///   kernel returned just before the program ended the registration.
///
/// The data of these events is the kernel's data word of that registration; it
/// is not the data of evloop_epoll_register().
///
/// @param ep an epoll object.
/// @param out_ready filled from the front, as many entries as returned; events
///   holds EVLOOP_EPOLL bits.
/// @param max size of out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
///   ever.
/// @returns the number of entries filled; 0 if the time ran out.
///
/// Errors:
///   -EINVAL    max is 0 or less, or out_ready is NULL
///   -EBADF     the borrowed descriptor was closed
///   -EINTR, -ENOMEM
///
/// Blocking: up to timeout_ns, never less.
/// Threads: any, several at once.
/// Source: epoll_pwait2(2) where the kernel has it (5.11), else ppoll(2) and
/// epoll_pwait(2); both have nanosecond resolution.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_epoll_wait(
    ep: evloop_epoll_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_epoll_wait", || {
        let epoll = handle::pin::<Epoll>(ep)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        epoll.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Closes an epoll object. Threads that wait in it return -ESTALE.
///
/// The descriptor is closed, unless it is borrowed, as soon as no other thread
/// is in a call with it. Registrations with a borrowed descriptor stay in the
/// kernel's set.
///
/// @param ep an epoll object.
/// @returns 0.
///
/// Fork: works in the child, and changes nothing for the parent.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_close(ep: evloop_epoll_t) -> c_int {
    guard_close("evloop_epoll_close", ep, || handle::close::<Epoll>(ep).map(|()| 0))
}

/// Closes the handle of an epoll object and returns its descriptor.
///
/// The handle is stale, as after evloop_epoll_close(). The descriptor belongs
/// to the caller from now on, who closes it. The registrations stay, but the
/// data words that epoll_wait(2) then returns with events are the library's:
/// set them again with EPOLL_CTL_MOD. Threads that wait in the object return
/// -ESTALE.
///
/// @param ep an epoll object.
/// @returns the descriptor.
///
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_epoll_release(ep: evloop_epoll_t) -> c_int {
    guard("evloop_epoll_release", || handle::release::<Epoll, _>(ep, Epoll::give_fd_away))
}
