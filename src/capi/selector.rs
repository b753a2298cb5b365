//! Selectors: `evloop_selector_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::poller::Ready;
use crate::poller::selector::Selector;
use crate::table;

/// Create a selector: read and write readiness, whatever is underneath.
///
/// Regular files, directories and /dev/null can be registered with every
/// backend and are always ready.
///
/// @param backend EVLOOP_SELECTOR_DEFAULT (the best there is), _SELECT,
///   _POLL, _EPOLL, _DEVPOLL or _KQUEUE.
/// @returns the selector, to be closed with evloop_selector_close().
///   -EINVAL: an unknown backend. -EMFILE, -ENFILE, -ENOSPC, -ENOMEM: as
///   evloop_epoll_create(), with the EPOLL backend, and as
///   evloop_kqueue_create() with KQUEUE.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD from
/// everything but close in the child. Since 0.1.0. Source: Python's
/// selectors module.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_create(backend: c_int) -> evloop_selector_t {
    guard("evloop_selector_create", || {
        table::insert_box(Some(Selector::create(arg::backend(backend)?)?))
    })
}

/// Watch a descriptor.
///
/// Applies to a wait that is going on in another thread, too.
///
/// @param s a selector.
/// @param fd the descriptor; it stays the caller's, who unregisters it
///   before closing it.
/// @param events EVLOOP_SELECTOR_READ, EVLOOP_SELECTOR_WRITE or both.
/// @param data handed back with each event, not looked at.
/// @returns 0. -EEXIST: fd is registered already. -EBADF: fd is not open.
///   -EINVAL: no events, or an unknown bit; or fd is the selector's own, or
///   another one of the library's own.
///   -ELOOP, -ENOSPC: as evloop_epoll_register(), with the EPOLL backend; as
///   evloop_devpoll_register(), with the DEVPOLL backend. -ENOMEM. -ECHILD:
///   used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_register(
    s: evloop_selector_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_selector_register", || {
        let selector = table::pin::<Selector>(s)?;
        selector.register(arg::fd(fd)?, arg::selector_events(events)?, data).map(|()| 0)
    })
}

/// Change how a registered descriptor is watched.
///
/// @param s a selector.
/// @param fd a registered descriptor.
/// @param events as evloop_selector_register().
/// @param data as evloop_selector_register(); replaces the old one.
/// @returns 0. -ENOENT: fd is not registered. -EBADF: fd is not open.
///   -EINVAL: no events, or an unknown bit. -ENOMEM. If fd was closed and
///   its number is another file's now, with the EPOLL backend also -ENOENT,
///   and -EPERM for one that epoll cannot watch; with the DEVPOLL backend
///   -EINVAL, -ELOOP, -ENOSPC as evloop_selector_register(). -ECHILD: used
///   after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_modify(
    s: evloop_selector_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_selector_modify", || {
        let selector = table::pin::<Selector>(s)?;
        selector.modify(arg::fd(fd)?, arg::selector_events(events)?, data).map(|()| 0)
    })
}

/// Stop watching a descriptor.
///
/// @param s a selector.
/// @param fd a registered descriptor, open or not.
/// @returns 0. -ENOENT: fd is not registered. -EBADF: fd is negative.
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_unregister(s: evloop_selector_t, fd: c_int) -> c_int {
    guard("evloop_selector_unregister", || {
        table::pin::<Selector>(s)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// How a descriptor is registered.
///
/// @param s a selector.
/// @param fd a descriptor.
/// @param out_events the events it is watched for; may be NULL.
/// @param out_data its data; may be NULL.
/// @returns 0. -ENOENT: fd is not registered. -EBADF: fd is negative.
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_selector_get(
    s: evloop_selector_t,
    fd: c_int,
    out_events: *mut u32,
    out_data: *mut u64,
) -> c_int {
    guard("evloop_selector_get", || {
        let (events, data) = table::pin::<Selector>(s)?.get(arg::fd(fd)?)?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_events, events) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_data, data) };
        Ok(0)
    })
}

/// How many descriptors are registered.
///
/// @param s a selector.
/// @returns the number. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_count(s: evloop_selector_t) -> c_int {
    guard("evloop_selector_count", || arg::count(table::pin::<Selector>(s)?.count()))
}

/// Wait until registered descriptors are ready.
///
/// An error or a hang-up makes a descriptor ready for what it is watched
/// for, so that the next read or write tells. A descriptor that was closed
/// without being unregistered does so too with the SELECT, POLL and DEVPOLL
/// backends. EPOLL forgets it, unless it is one that is always ready (a
/// regular file), or a duplicate is open. Where such a duplicate, of a
/// descriptor that is not registered any more, is all that is ready, EPOLL
/// looks every 10 ms.
///
/// @param s a selector.
/// @param out_ready filled from the front, as many entries as returned;
///   events holds EVLOOP_SELECTOR bits, never other ones than registered.
/// @param max room in out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits
///   for ever.
/// @returns the number of entries filled; 0 if the time ran out. -EINVAL:
///   max is 0 or less, or out_ready is NULL; also as evloop_poll_wait().
///   -EINTR: see evloop_set_interrupt_mode(). -ESTALE: not a live handle,
///   or closed during the wait. -ECHILD: used after fork. -ENOMEM. -EDOM:
///   see "Handles".
///
/// Blocking: up to timeout_ns, never less. Threads: any, several at once.
/// Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_selector_wait(
    s: evloop_selector_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_selector_wait", || {
        let selector = table::pin::<Selector>(s)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        selector.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// A descriptor that is readable while a registered one is ready.
///
/// It is only lent: do not close it.
///
/// @param s a selector.
/// @returns the descriptor. -ENOTSUP: the SELECT and POLL backends have
///   none. -EMFILE, -ENFILE, -ENOSPC, -ENOMEM: as evloop_devpoll_fileno(),
///   with the DEVPOLL backend. -ECHILD: used after fork. -ESTALE, -EDOM:
///   see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_fileno(s: evloop_selector_t) -> c_int {
    guard("evloop_selector_fileno", || table::pin::<Selector>(s)?.fileno())
}

/// Close a selector.
///
/// @param s a selector.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: works in the child, and changes nothing for the
/// parent. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_selector_close(s: evloop_selector_t) -> c_int {
    guard("evloop_selector_close", || table::close::<Selector>(s).map(|()| 0))
}
