//! Poll sets: `evloop_poll_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::{guard, guard_close};
use super::types::*;
use crate::handle;
use crate::poller::Ready;
use crate::poller::poll::PollSet;

/// Creates an empty poll set.
///
/// It takes no descriptor. Any descriptor can be registered, including regular
/// files (always ready) and fds that are not open (EVLOOP_POLLNVAL). The cost
/// of a wait is proportional to the number of descriptors.
///
/// @returns the poll set; close it with evloop_poll_close().
///
/// Errors:
///   -ENOMEM
///
/// Fork: the child has a copy of its own.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_create() -> evloop_poll_t {
    guard("evloop_poll_create", || handle::insert(PollSet::new()))
}

/// Registers a descriptor, or replaces its registration.
///
/// It also affects a wait in progress in another thread.
///
/// @param p a poll set.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_POLL bits; EVLOOP_POLL_DEFAULT is what Python watches
///   by default, 0 only errors and hang-ups.
/// @param data returned with each event; the library does not use it.
/// @returns 0.
///
/// Errors:
///   -EBADF     fd is negative
///   -EINVAL    an unknown bit
///   -EINVAL    fd is one of the library's own descriptors
///   -ENOMEM
///
/// Fork: changes the copy of the calling process.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_register(
    p: evloop_poll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_poll_register", || {
        let set = handle::pin::<PollSet>(p)?;
        set.register(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Changes the registration of a descriptor.
///
/// @param p a poll set.
/// @param fd a registered descriptor.
/// @param events as evloop_poll_register().
/// @param data as evloop_poll_register(); replaces the old data.
/// @returns 0.
///
/// Errors, besides those of evloop_poll_register():
///   -ENOENT    fd is not registered
///
/// Fork: as evloop_poll_register().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_modify(p: evloop_poll_t, fd: c_int, events: u32, data: u64) -> c_int {
    guard("evloop_poll_modify", || {
        let set = handle::pin::<PollSet>(p)?;
        set.modify(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Removes the registration of a descriptor.
///
/// @param p a poll set.
/// @param fd a registered descriptor, open or not.
/// @returns 0.
///
/// Errors:
///   -ENOENT    fd is not registered
///   -EBADF     fd is negative
///
/// Fork: as evloop_poll_register().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_unregister(p: evloop_poll_t, fd: c_int) -> c_int {
    guard("evloop_poll_unregister", || {
        handle::pin::<PollSet>(p)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Waits until registered descriptors are ready.
///
/// Descriptors are reported in ascending order. If more than max are ready, the
/// next wait begins after the last one reported, so that none is starved. A
/// wait on an empty set sleeps, and sees what other threads register.
///
/// @param p a poll set.
/// @param out_ready filled from the front, as many entries as returned; events
///   holds EVLOOP_POLL bits.
/// @param max size of out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits for
///   ever.
/// @returns the number of entries filled; 0 if the time ran out.
///
/// Errors:
///   -EINVAL    max is 0 or less, or out_ready is NULL
///   -EINVAL    more descriptors are registered than RLIMIT_NOFILE allows, and
///              none of them is ready
///   -ECHILD    the process forked during the wait, and this is the child
///   -EINTR, -ENOMEM
///
/// Blocking: up to timeout_ns, never less.
/// Threads: any, several at once; changes by other threads take effect at once.
/// For that each waiting thread has an epoll, made at its first blocking wait
/// and closed with the thread. If no descriptor is left for it, changes take
/// effect within 20 ms.
/// Source: ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_poll_wait(
    p: evloop_poll_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_poll_wait", || {
        let set = handle::pin::<PollSet>(p)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        set.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Closes a poll set. Threads that wait in it return -ESTALE.
///
/// @param p a poll set.
/// @returns 0.
///
/// Fork: closes the copy of the calling process.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_close(p: evloop_poll_t) -> c_int {
    guard_close("evloop_poll_close", p, || handle::close::<PollSet>(p).map(|()| 0))
}
