//! Selectors: `evloop_selector_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::{guard, guard_close};
use super::types::*;
use crate::handle;
use crate::poller::Ready;
use crate::poller::selector::Selector;

/// Creates a selector: readiness to read and to write, with any backend.
///
/// Regular files, directories and /dev/null can be registered with every
/// backend, and are always ready.
///
/// @param backend EVLOOP_SELECTOR_DEFAULT (the best one), _SELECT, _POLL,
///   _EPOLL, _DEVPOLL or _KQUEUE.
/// @returns the selector; close it with evloop_selector_close().
///
/// Errors:
///   -EINVAL    an unknown backend
///   -ENOMEM
/// With the EPOLL and the KQUEUE backend, as evloop_epoll_create() and
/// evloop_kqueue_create():
///   -EMFILE, -ENFILE, -ENOSPC
///
/// Source: Python's selectors module.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_create(backend: c_int) -> evloop_selector_t {
    guard("evloop_selector_create", || {
        handle::insert_box(Some(Selector::create(arg::backend(backend)?)?))
    })
}

/// Registers a descriptor.
///
/// It also affects a wait in progress in another thread.
///
/// @param s a selector.
/// @param fd the descriptor; it stays the caller's, who unregisters it before
///   closing it.
/// @param events EVLOOP_SELECTOR_READ, EVLOOP_SELECTOR_WRITE or both.
/// @param data returned with each event; the library does not use it.
/// @returns 0.
///
/// Errors:
///   -EEXIST    fd is registered already
///   -EBADF     fd is not open
///   -EINVAL    no events, or an unknown bit
///   -EINVAL    fd is the selector's own descriptor, or another one of the
///              library's own
///   -ENOMEM
/// With the EPOLL and the DEVPOLL backend, as evloop_epoll_register() and
/// evloop_devpoll_register():
///   -ELOOP, -ENOSPC
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_register(
    s: evloop_selector_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_selector_register", || {
        let selector = handle::pin::<Selector>(s)?;
        selector.register(arg::fd(fd)?, arg::selector_events(events)?, data).map(|()| 0)
    })
}

/// Changes the registration of a descriptor.
///
/// @param s a selector.
/// @param fd a registered descriptor.
/// @param events as evloop_selector_register().
/// @param data as evloop_selector_register(); replaces the old data.
/// @returns 0.
///
/// Errors:
///   -ENOENT    fd is not registered
///   -EBADF     fd is not open
///   -EINVAL    no events, or an unknown bit
///   -ENOMEM
/// If fd was closed and refers to another file now, with the EPOLL backend
/// also:
///   -ENOENT    the new file is not registered
///   -EPERM     epoll cannot watch the new file
/// In that case with the DEVPOLL backend, as evloop_selector_register():
///   -EINVAL, -ELOOP, -ENOSPC
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_modify(
    s: evloop_selector_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_selector_modify", || {
        let selector = handle::pin::<Selector>(s)?;
        selector.modify(arg::fd(fd)?, arg::selector_events(events)?, data).map(|()| 0)
    })
}

/// Removes the registration of a descriptor.
///
/// @param s a selector.
/// @param fd a registered descriptor, open or not.
/// @returns 0.
///
/// Errors:
///   -ENOENT    fd is not registered
///   -EBADF     fd is negative
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_unregister(s: evloop_selector_t, fd: c_int) -> c_int {
    guard("evloop_selector_unregister", || {
        handle::pin::<Selector>(s)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Returns the registration of a descriptor.
///
/// @param s a selector.
/// @param fd a descriptor.
/// @param out_events its events; may be NULL.
/// @param out_data its data; may be NULL.
/// @returns 0.
///
/// Errors:
///   -ENOENT    fd is not registered
///   -EBADF     fd is negative
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_selector_get(
    s: evloop_selector_t,
    fd: c_int,
    out_events: *mut u32,
    out_data: *mut u64,
) -> c_int {
    guard("evloop_selector_get", || {
        let (events, data) = handle::pin::<Selector>(s)?.get(arg::fd(fd)?)?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_events, events) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_data, data) };
        Ok(0)
    })
}

/// Returns the number of registered descriptors.
///
/// @param s a selector.
/// @returns the number.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_count(s: evloop_selector_t) -> c_int {
    guard("evloop_selector_count", || arg::count(handle::pin::<Selector>(s)?.count()))
}

/// Waits until registered descriptors are ready.
///
/// An error or a hang-up makes a descriptor ready for its registered events, so
/// that the next read or write returns the error.
///
/// A descriptor that was closed without being unregistered is reported in the
/// same way with the SELECT, POLL and DEVPOLL backends. With EPOLL the kernel
/// forgets it, unless it is always ready (a regular file) or a duplicate is
/// open. If such a duplicate, of a descriptor that is not registered any more,
/// is all that is ready, EPOLL polls every 10 ms.
///
/// @param s a selector.
/// @param out_ready filled from the front, as many entries as returned; events
///   holds EVLOOP_SELECTOR bits, never other ones than registered.
/// @param max size of out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
///   ever.
/// @returns the number of entries filled; 0 if the time ran out.
///
/// Errors:
///   -EINVAL    max is 0 or less, or out_ready is NULL; also as
///              evloop_poll_wait()
///   -EINTR, -ENOMEM
///
/// Blocking: up to timeout_ns, never less.
/// Threads: any, several at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_selector_wait(
    s: evloop_selector_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_selector_wait", || {
        let selector = handle::pin::<Selector>(s)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        selector.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Returns a descriptor that is readable while a registered one is ready.
///
/// It belongs to the selector: do not close it.
///
/// @param s a selector.
/// @returns the descriptor.
///
/// Errors:
///   -ENOTSUP   the SELECT and POLL backends have none
/// With the DEVPOLL backend, as evloop_devpoll_fileno():
///   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_fileno(s: evloop_selector_t) -> c_int {
    guard("evloop_selector_fileno", || handle::pin::<Selector>(s)?.fileno())
}

/// Closes a selector. Threads that wait in it return -ESTALE.
///
/// @param s a selector.
/// @returns 0.
///
/// Fork: works in the child, and changes nothing for the parent.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_close(s: evloop_selector_t) -> c_int {
    guard_close("evloop_selector_close", s, || handle::close::<Selector>(s).map(|()| 0))
}
