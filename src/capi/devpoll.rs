//! /dev/poll objects: `evloop_devpoll_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::{guard, guard_close};
use super::types::*;
use crate::handle;
use crate::poller::Ready;
use crate::poller::devpoll::DevPoll;

/// Creates a /dev/poll object.
///
/// Linux has no such device. The object has its semantics: registering a
/// descriptor twice adds events, a registration belongs to the value of the fd,
/// and closed descriptors are reported. The cost of a wait is proportional to
/// the number of descriptors; for a large set use epoll.
///
/// @returns the object; close it with evloop_devpoll_close().
///
/// Errors:
///   -ENOMEM
///
/// Source: poll(7d) of Solaris.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_create() -> evloop_devpoll_t {
    guard("evloop_devpoll_create", || handle::insert(DevPoll::new()))
}

/// Returns a descriptor that is readable while a registered one is ready.
///
/// The first call makes it. It belongs to the object: do not close it. It is
/// meant for registration with another poll, select or epoll. If a registered
/// descriptor was closed, and its fd reused without a call on this object,
/// evloop_devpoll_wait() reports that, but the readiness of this descriptor
/// does not.
///
/// @param dp a /dev/poll object.
/// @returns the descriptor.
///
/// Errors:
///   -ELOOP     a registered epoll descriptor is nested too deep
///   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_fileno(dp: evloop_devpoll_t) -> c_int {
    guard("evloop_devpoll_fileno", || handle::pin::<DevPoll>(dp)?.fileno())
}

/// Registers a descriptor, or adds events to its registration.
///
/// @param dp a /dev/poll object.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_POLL bits; added to those registered already.
/// @param data returned with each event; the library does not use it. It
///   replaces that of an earlier registration.
/// @returns 0.
///
/// Errors:
///   -EBADF     fd is negative
///   -EINVAL    an unknown bit
///   -EINVAL    fd is the object's own descriptor, or another one of the
///              library's own
///   -ENOMEM
/// After evloop_devpoll_fileno() also:
///   -ELOOP     epoll sets would be nested in a circle or too deep
///   -ENOSPC
///
/// Threads: any; also affects waits in progress.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_register(
    dp: evloop_devpoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_devpoll_register", || {
        let set = handle::pin::<DevPoll>(dp)?;
        set.register(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Registers a descriptor for exactly these events.
///
/// It replaces the events of an earlier registration, if there is one.
///
/// @param dp a /dev/poll object.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_POLL bits; they replace those registered.
/// @param data as evloop_devpoll_register().
/// @returns 0; errors as evloop_devpoll_register().
///
/// Threads: any; also affects waits in progress.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_modify(
    dp: evloop_devpoll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_devpoll_modify", || {
        let set = handle::pin::<DevPoll>(dp)?;
        set.modify(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Removes the registration of a descriptor.
///
/// A descriptor that is not registered is ignored.
///
/// @param dp a /dev/poll object.
/// @param fd the descriptor, open or not.
/// @returns 0.
///
/// Errors:
///   -EBADF     fd is negative
///
/// Threads: any; also affects waits in progress.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_unregister(dp: evloop_devpoll_t, fd: c_int) -> c_int {
    guard("evloop_devpoll_unregister", || {
        handle::pin::<DevPoll>(dp)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Waits until registered descriptors are ready.
///
/// @param dp a /dev/poll object.
/// @param out_ready filled from the front, as many entries as returned; events
///   holds EVLOOP_POLL bits, EVLOOP_POLLNVAL for a registration whose
///   descriptor is not open.
/// @param max size of out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
///   ever.
/// @returns the number of entries filled, 0 if the time ran out; errors as
///   evloop_poll_wait().
///
/// Blocking: up to timeout_ns, never less.
/// Threads: as evloop_poll_wait().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_devpoll_wait(
    dp: evloop_devpoll_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_devpoll_wait", || {
        let set = handle::pin::<DevPoll>(dp)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        set.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Closes a /dev/poll object, and its descriptor if it has one.
///
/// Threads that wait in it return -ESTALE.
///
/// @param dp a /dev/poll object.
/// @returns 0.
///
/// Fork: works in the child, and changes nothing for the parent.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_devpoll_close(dp: evloop_devpoll_t) -> c_int {
    guard_close("evloop_devpoll_close", dp, || handle::close::<DevPoll>(dp).map(|()| 0))
}
