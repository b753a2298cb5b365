//! /dev/poll objects: `evloop_devpoll_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::poller::Ready;
use crate::poller::devpoll::DevPoll;
use crate::table;

/// Create a /dev/poll object.
///
/// Linux has no such device. The object has its meanings: registering twice
/// adds events up, a registration belongs to the descriptor's number, and
/// closed descriptors are reported. A wait costs time in proportion to the
/// number of descriptors; a large set is better off with epoll.
///
/// @returns the object, to be closed with evloop_devpoll_close(). -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD from
/// everything but close in the child. Since 0.1.0. Source: poll(7d) of
/// Solaris.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_create() -> evloop_devpoll_t {
    guard("evloop_devpoll_create", || table::insert(DevPoll::new()))
}

/// A descriptor that is readable while a registered one is ready.
///
/// It is made by the first call, belongs to the object and is only lent: do
/// not close it. It is meant for registration with another poll, select or
/// epoll. Registrations that were closed, and whose numbers were reused
/// without a call here, show in evloop_devpoll_wait() but not in this
/// descriptor's readiness.
///
/// @param dp a /dev/poll object.
/// @returns the descriptor. -EMFILE, -ENFILE: none left. -ENOSPC: the
///   user's max_user_watches is used up. -ELOOP: a registered epoll
///   descriptor is nested too deep. -ENOMEM. -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_fileno(dp: evloop_devpoll_t) -> c_int {
    guard("evloop_devpoll_fileno", || table::pin::<DevPoll>(dp)?.fileno())
}

/// Watch a descriptor, or watch a registered one for more.
///
/// @param dp a /dev/poll object.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_POLL bits; added to those registered already.
/// @param data handed back with each event, not looked at; replaces that of
///   an earlier registration.
/// @returns 0. -EBADF: fd is negative. -EINVAL: an unknown bit, or the
///   object's own descriptor, or another one of the library's own. Once
///   evloop_devpoll_fileno() was called, -ELOOP: epoll sets nested too deep
///   or in a circle; -ENOSPC: max_user_watches. -ENOMEM. -ECHILD: used after
///   fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; applies to waits going on. Signals: not
/// safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_register(
    dp: evloop_devpoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_devpoll_register", || {
        let set = table::pin::<DevPoll>(dp)?;
        set.register(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Watch a descriptor for exactly these events, registered or not.
///
/// @param dp a /dev/poll object.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_POLL bits; they replace those registered.
/// @param data as evloop_devpoll_register().
/// @returns as evloop_devpoll_register().
///
/// Blocking: no. Threads: any; applies to waits going on. Signals: not
/// safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_modify(
    dp: evloop_devpoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_devpoll_modify", || {
        let set = table::pin::<DevPoll>(dp)?;
        set.modify(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Stop watching a descriptor; one that is not registered is ignored.
///
/// @param dp a /dev/poll object.
/// @param fd the descriptor, open or not.
/// @returns 0. -EBADF: fd is negative. -ECHILD: used after fork. -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; applies to waits going on. Signals: not
/// safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_unregister(dp: evloop_devpoll_t, fd: c_int) -> c_int {
    guard("evloop_devpoll_unregister", || {
        table::pin::<DevPoll>(dp)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Wait until registered descriptors are ready.
///
/// @param dp a /dev/poll object.
/// @param out_ready filled from the front, as many entries as returned;
///   events holds EVLOOP_POLL bits, EVLOOP_POLLNVAL for a registration
///   whose descriptor is not open.
/// @param max room in out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits
///   for ever.
/// @returns as evloop_poll_wait(); -ECHILD: used after fork.
///
/// Blocking: up to timeout_ns, never less. Threads: as evloop_poll_wait().
/// Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_devpoll_wait(
    dp: evloop_devpoll_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_devpoll_wait", || {
        let set = table::pin::<DevPoll>(dp)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        set.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Close a /dev/poll object, and its descriptor if it has one.
///
/// @param dp a /dev/poll object.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: works in the child, and changes nothing for the
/// parent. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_close(dp: evloop_devpoll_t) -> c_int {
    guard("evloop_devpoll_close", || table::close::<DevPoll>(dp).map(|()| 0))
}
