//! What can be done with every watcher: `evloop_watcher_*`.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::{guard, guard_close, guard_rest};
use super::types::*;
use crate::event_loop::{self, Change, Target, fast_path};

/// Closes a watcher.
///
/// Its handle is stale at once. When this returns, on any thread:
/// - The kernel does not know the descriptor of an io watcher any more, unless
///   another watcher watches it. So the descriptor can be closed, and its fd
///   used again.
/// - The loop dispatches no more events of the watcher. A callback that the
///   loop's thread has already entered may still be running.
///
/// A callback may close its own watcher; this is the usual way to end:
///
///   static void once(const evloop_event_t *event, void *user_data) {
///     free(user_data);
///     evloop_watcher_close(event->watcher, 0);
///   }
///
/// When user_data can be freed:
/// - closed on the thread that runs the loop, or while no thread runs it: at
///   once (in the watcher's own callback, when the callback needs it no more);
/// - closed on another thread: in the notification of
///   evloop_watcher_set_destroy() or, with EVLOOP_CLOSE_WAIT, when this
///   returns.
///
/// @param watcher a watcher. It may be one that is ready in the same iteration,
///   or the one whose callback is running.
/// @param flags 0, or EVLOOP_CLOSE_WAIT to return only when no callback of the
///   watcher is running.
/// @returns 0.
///
/// Errors:
///   -EDEADLK   EVLOOP_CLOSE_WAIT in the watcher's own callback; it is not
///              closed
///   -EINVAL    an unknown flag
///
/// Blocking: no; with EVLOOP_CLOSE_WAIT until the loop's running callback, of
/// whichever watcher, returns. Do not hold a lock that this callback takes, and
/// do not let the callbacks of two loops wait for each other.
/// Threads: any; on the thread that runs the loop no lock is taken.
/// Fork: works in the child, and changes nothing for the parent.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_close(watcher: evloop_watcher_t, flags: u32) -> c_int {
    guard_close("evloop_watcher_close", watcher, || {
        arg::flags(flags, EVLOOP_CLOSE_WAIT)?;
        event_loop::watcher_close(watcher, flags & EVLOOP_CLOSE_WAIT != 0).map(|()| 0)
    })
}

/// Enables a watcher: it delivers events again.
///
/// A timer that became due while it was disabled expires at once, with all
/// expirations counted. A descriptor that is ready is reported, although its
/// edge has passed: see evloop_add_io().
///
/// @param watcher a watcher; nothing happens if it is enabled.
/// @returns 0.
///
/// Errors:
///   -ENOMEM
/// If -ENOMEM was reported in an event: also those of evloop_add_io().
///
/// Threads: any; on the thread that runs the loop no lock is taken; from
/// another thread it takes effect before the loop next dispatches.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_enable(watcher: evloop_watcher_t) -> c_int {
    if fast_path::set_enabled(watcher, true) {
        return 0;
    }
    guard_rest("evloop_watcher_enable", || event_loop::change(watcher, Change::Enable).map(|()| 0))
}

/// Disables a watcher: it delivers no events until it is enabled.
///
/// An event that is ready in the same iteration is dropped; an expiration or an
/// async send, which would be lost, is kept. What is still ready when the
/// watcher is enabled is reported then. A disabled watcher does not keep the
/// loop alive. The loop submits the change to the kernel before its next wait
/// or at the next event, whichever is cheaper.
///
/// @param watcher a watcher; nothing happens if it is disabled.
/// @returns 0.
///
/// Errors:
///   -ENOMEM
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_disable(watcher: evloop_watcher_t) -> c_int {
    if fast_path::set_enabled(watcher, false) {
        return 0;
    }
    guard_rest("evloop_watcher_disable", || {
        event_loop::change(watcher, Change::Disable).map(|()| 0)
    })
}

/// Sets the priority of a watcher.
///
/// Of all that is ready in one iteration the higher priority is dispatched
/// first. Equal priorities keep the order of evloop_create(). Prepare, check,
/// idle and exit watchers are each ordered among themselves. A posted call has
/// priority 0.
///
/// @param watcher a watcher.
/// @param priority any number, 0 by default.
/// @returns 0.
///
/// Errors:
///   -ENOMEM
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_set_priority(watcher: evloop_watcher_t, priority: c_int) -> c_int {
    guard("evloop_watcher_set_priority", || {
        event_loop::change(watcher, Change::Priority(priority)).map(|()| 0)
    })
}

/// Limits how often a watcher is dispatched.
///
/// After burst events in one interval the watcher pauses until the end of the
/// interval. What happens during the pause is then delivered in one event, with
/// the bits of events and the counts merged. A new limit counts from this call.
/// It ends the pause of an earlier limit, as 0 does, and the next iteration
/// delivers what that had delayed.
///
/// @param watcher a watcher.
/// @param interval_ns nanoseconds of the loop's time; 0 removes the limit.
/// @param burst events in an interval; at least 1 unless interval_ns is 0.
/// @returns 0.
///
/// Errors:
///   -EINVAL    the interval is negative, or burst is less than 1
///   -EMFILE, -ENFILE, -ENOSPC  the first limit of a loop, or the removal of
///              one, takes the descriptor of CLOCK_MONOTONIC's timers
///   -ENOMEM
/// If a thread calls this that does not run the loop, these except -EINVAL
/// arrive as an event with EVLOOP_ERROR instead.
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_set_ratelimit(
    watcher: evloop_watcher_t,
    interval_ns: i64,
    burst: c_int,
) -> c_int {
    guard("evloop_watcher_set_ratelimit", || {
        let interval = arg::not_negative(interval_ns, "interval_ns")?;
        let burst = arg::burst(interval, burst)?;
        event_loop::change(watcher, Change::RateLimit { interval, burst }).map(|()| 0)
    })
}

/// Sets the name of a watcher, for statistics, traces and evloop_dump().
///
/// @param watcher a watcher.
/// @param name a NUL-terminated string, which is copied; NULL: no name.
/// @returns 0.
///
/// Errors:
///   -ENOMEM
///
/// Threads: any; takes the loop's lock.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_set_name(
    watcher: evloop_watcher_t,
    name: *const c_char,
) -> c_int {
    guard("evloop_watcher_set_name", || {
        // SAFETY: NULL or a NUL-terminated string (C's duty).
        let name = unsafe { arg::text(name) }?;
        event_loop::set_name(watcher, name).map(|()| 0)
    })
}

/// Returns the name of a watcher.
///
/// @param watcher a watcher.
/// @param buf receives the name, NUL-terminated. It is cut to fit after any
///   byte, also inside a character of UTF-8. May be NULL if cap is 0.
/// @param cap size of buf in bytes.
/// @returns the length of the whole name, without the NUL; 0 if it has none.
///
/// Errors:
///   -EINVAL    buf is NULL, and cap is not 0
///
/// Threads: as evloop_watcher_set_name().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_get_name(
    watcher: evloop_watcher_t,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    guard("evloop_watcher_get_name", || {
        // SAFETY: the caller lends `cap` bytes at `buf`.
        let mut out = unsafe { arg::bytes_out(buf, cap) }?;
        arg::count(event_loop::get_name(watcher, &mut out)?)
    })
}

/// Sets the data of a watcher.
///
/// @param watcher a watcher.
/// @param data from now on the data of its events, and the user_data of its
///   callback.
/// @returns 0.
///
/// Errors:
///   -ENOMEM
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_set_data(watcher: evloop_watcher_t, data: u64) -> c_int {
    if fast_path::set_data(watcher, data) {
        return 0;
    }
    guard_rest("evloop_watcher_set_data", || {
        event_loop::change(watcher, Change::Data(data)).map(|()| 0)
    })
}

/// Lets a watcher keep its loop alive again; see evloop_watcher_unref().
///
/// @param watcher a watcher.
/// @returns 0; also if it keeps the loop alive already.
///
/// Errors:
///   -ENOMEM
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_ref(watcher: evloop_watcher_t) -> c_int {
    if fast_path::set_ref(watcher, true) {
        return 0;
    }
    guard_rest("evloop_watcher_ref", || event_loop::change(watcher, Change::Ref).map(|()| 0))
}

/// Lets a loop end although this watcher is enabled.
///
/// It is for watchers that only serve others, such as a timer that prints
/// statistics. It is a property, not a count.
///
/// @param watcher a watcher.
/// @returns 0; errors as evloop_watcher_ref().
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_unref(watcher: evloop_watcher_t) -> c_int {
    if fast_path::set_ref(watcher, false) {
        return 0;
    }
    guard_rest("evloop_watcher_unref", || event_loop::change(watcher, Change::Unref).map(|()| 0))
}

/// Returns the loop of a watcher, and so whether the watcher is open.
///
/// The library never uses a handle again, so a program that has kept one can
/// check it:
///
///   if (evloop_watcher_loop(watcher) > 0) evloop_watcher_close(watcher, 0);
///
/// (Closing it without the check is as good: -ESTALE does no harm.)
///
/// @param watcher a watcher.
/// @returns the loop.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_loop(watcher: evloop_watcher_t) -> evloop_t {
    match fast_path::loop_of(watcher) {
        Some(evloop) => evloop,
        None => guard_rest("evloop_watcher_loop", || event_loop::loop_of(watcher)),
    }
}

/// Sets the destroy notification of a watcher.
///
/// The loop calls this function when the watcher is closed and the loop does
/// not use it any more. Then what user_data points to can be freed. The
/// function is called exactly once:
/// - if the loop is running: on the thread that runs it, after the current
///   callback and before the next one;
/// - if the loop is not running: in the call that closes the watcher or the
///   loop.
///
/// Several watchers that one callback closes are all out of use by then, so one
/// notification is enough for them.
///
/// Event: type EVLOOP_EVENT_CLOSED, watcher the stale handle, data the
/// watcher's.
///
/// @param watcher a watcher.
/// @param callback called once; NULL: evloop_wait() returns the event. (If the
///   loop is closed there is no event.)
/// @param user_data passed to callback; may be NULL.
/// @returns 0. A second call replaces the first.
///
/// Errors:
///   -ENOMEM
///
/// Threads: as evloop_watcher_enable().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_set_destroy(
    watcher: evloop_watcher_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_watcher_set_destroy", || {
        let destroy = Target { callback, user_data };
        event_loop::set_destroy(watcher, destroy).map(|()| 0)
    })
}
