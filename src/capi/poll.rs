//! Poll sets: `evloop_poll_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::poller::Ready;
use crate::poller::poll::PollSet;
use crate::table;

/// Create an empty poll set.
///
/// It takes no descriptor. Any descriptor can be registered, regular files
/// (always ready) and numbers that are not open (EVLOOP_POLLNVAL) included.
/// A wait costs time in proportion to the number of descriptors.
///
/// @returns the poll set, to be closed with evloop_poll_close(). -ENOMEM.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: the child has a
/// copy of its own. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_create() -> evloop_poll_t {
    guard("evloop_poll_create", || table::insert(PollSet::new()))
}

/// Watch a descriptor, or replace how it is watched.
///
/// Applies to a wait that is going on in another thread, too.
///
/// @param p a poll set.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_POLL bits; EVLOOP_POLL_DEFAULT is what Python
///   watches by default, 0 only errors and hang-ups.
/// @param data handed back with each event, not looked at.
/// @returns 0. -EBADF: fd is negative. -EINVAL: an unknown bit, or
///   one of the library's own descriptors. -ENOMEM. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: changes the copy of
/// the process that calls. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_register(
    p: evloop_poll_t,
    fd: c_int,
    events: u32,
    data: u64,
) -> c_int {
    guard("evloop_poll_register", || {
        let set = table::pin::<PollSet>(p)?;
        set.register(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Change how a registered descriptor is watched.
///
/// @param p a poll set.
/// @param fd a registered descriptor.
/// @param events as evloop_poll_register().
/// @param data as evloop_poll_register(); replaces the old one.
/// @returns 0. -ENOENT: fd is not registered. Others as
///   evloop_poll_register().
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: as
/// evloop_poll_register(). Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_modify(p: evloop_poll_t, fd: c_int, events: u32, data: u64) -> c_int {
    guard("evloop_poll_modify", || {
        let set = table::pin::<PollSet>(p)?;
        set.modify(arg::fd(fd)?, arg::poll_events(events)?, data).map(|()| 0)
    })
}

/// Stop watching a descriptor.
///
/// @param p a poll set.
/// @param fd a registered descriptor, open or not.
/// @returns 0. -ENOENT: fd is not registered. -EBADF: fd is negative.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: as
/// evloop_poll_register(). Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_unregister(p: evloop_poll_t, fd: c_int) -> c_int {
    guard("evloop_poll_unregister", || {
        table::pin::<PollSet>(p)?.unregister(arg::fd(fd)?).map(|()| 0)
    })
}

/// Wait until registered descriptors are ready.
///
/// Descriptors are reported in the order of their numbers; if more are
/// ready than max, the next wait begins after the last one reported, so
/// that none is starved. An empty set sleeps, and sees what other threads
/// register.
///
/// @param p a poll set.
/// @param out_ready filled from the front, as many entries as returned;
///   events holds EVLOOP_POLL bits.
/// @param max room in out_ready, in entries; at least 1.
/// @param timeout_ns nanoseconds to wait; 0 does not wait, negative waits
///   for ever.
/// @returns the number of entries filled; 0 if the time ran out. -EINVAL:
///   max is 0 or less, out_ready is NULL, or more descriptors are
///   registered than RLIMIT_NOFILE allows and none of them is ready.
///   -EINTR: see evloop_set_interrupt_mode(). -ESTALE: not a live handle,
///   or closed during the wait. -ECHILD: the process forked during the wait
///   and this is the child. -ENOMEM. -EDOM: see "Handles".
///
/// Blocking: up to timeout_ns, never less. Threads: any, several at once;
/// changes by other threads take effect at once (each waiting thread has an
/// epoll for that, made at its first blocking wait and closed with the
/// thread; without a descriptor left for it, within 20 ms). Signals: not
/// safe. Fork: works in the child. Since 0.1.0. Source: ppoll(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_poll_wait(
    p: evloop_poll_t,
    out_ready: *mut Ready,
    max: c_int,
    timeout_ns: i64,
) -> c_int {
    guard("evloop_poll_wait", || {
        let set = table::pin::<PollSet>(p)?;
        // SAFETY: the caller lends room for `max` entries at `out_ready`.
        let mut out = unsafe { arg::results_out(out_ready, max, "out_ready") }?;
        set.wait(&mut out, timeout_ns)?;
        arg::count(out.filled())
    })
}

/// Close a poll set.
///
/// @param p a poll set.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads waiting in it return -ESTALE.
/// Signals: not safe. Fork: closes the copy of the process that calls.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_poll_close(p: evloop_poll_t) -> c_int {
    guard("evloop_poll_close", || table::close::<PollSet>(p).map(|()| 0))
}
