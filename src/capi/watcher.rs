//! What can be done with every watcher: `evloop_watcher_*`.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::{guard, guard_rest};
use super::types::*;
use crate::reactor::{self, Change, Target, quick};

/// Close a watcher.
///
/// Its handle is stale at once. When this returns, from any thread, the
/// kernel does not know the descriptor of an io watcher any more (unless
/// another watcher watches it), so that it can be closed, and its number
/// used again, and no event of it will be dispatched; a callback of it that
/// the loop's thread has entered may still be running.
///
/// A callback may close its own watcher; that is the normal way to be done:
///
///   static void once(const evloop_event_t *event, void *user_data) {
///     free(user_data);
///     evloop_watcher_close(event->watcher, 0);
///   }
///
/// When its user_data can be freed: at once, where this is called on the
/// thread that runs the loop, or while nobody runs it (in its own callback,
/// once that needs it no more). Closed from another thread: in the
/// notification of evloop_watcher_set_destroy(), or when this returns, with
/// EVLOOP_CLOSE_WAIT.
///
/// @param watcher a watcher; one that is ready in the same iteration, or
///   the one whose callback is running, may be closed too.
/// @param flags 0, or EVLOOP_CLOSE_WAIT to return only when no callback of
///   it is running.
/// @returns 0. -EDEADLK: EVLOOP_CLOSE_WAIT inside its own callback; it is
///   not closed. -EINVAL: an unknown flag. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no; with EVLOOP_CLOSE_WAIT until the callback that is running,
/// whosever it is, returns: do not hold a lock that it takes, and do not let
/// the callbacks of two loops wait for each other. Threads: any;
/// on the thread that runs the loop no lock is taken. Signals: not safe.
/// Fork: works in the child, and changes nothing for the parent.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_close(watcher: evloop_watcher_t, flags: u32) -> c_int {
    guard("evloop_watcher_close", || {
        arg::flags(flags, EVLOOP_CLOSE_WAIT)?;
        reactor::watcher_close(watcher, flags & EVLOOP_CLOSE_WAIT != 0).map(|()| 0)
    })
}

/// Let a watcher deliver events again.
///
/// A timer that became due while it was disabled expires at once, with all
/// expirations counted. A descriptor that is ready is reported, although its
/// edge has passed: see evloop_add_io().
///
/// @param watcher a watcher; nothing happens if it is enabled.
/// @returns 0. -ENOMEM. As evloop_add_io(), where -ENOMEM was reported in an
///   event. -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; on the thread that runs the loop no lock is
/// taken; from another thread it takes effect before the loop next
/// dispatches. Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_enable(watcher: evloop_watcher_t) -> c_int {
    if quick::set_enabled(watcher, true) {
        return 0;
    }
    guard_rest("evloop_watcher_enable", || reactor::change(watcher, Change::Enable).map(|()| 0))
}

/// Keep a watcher from delivering events, until it is enabled.
///
/// An event that is ready in the same iteration is dropped, or kept where it
/// would be lost: an expiration, an async send. What is still ready when the
/// watcher is enabled is reported then. A disabled watcher does not
/// keep the loop alive. The kernel is told before the loop's next wait, or
/// at the next event, whichever is cheaper.
///
/// @param watcher a watcher; nothing happens if it is disabled.
/// @returns 0. -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_disable(watcher: evloop_watcher_t) -> c_int {
    if quick::set_enabled(watcher, false) {
        return 0;
    }
    guard_rest("evloop_watcher_disable", || reactor::change(watcher, Change::Disable).map(|()| 0))
}

/// Have a watcher dispatched before, or after, others.
///
/// Of all that is ready in one iteration what has the higher priority is
/// dispatched first; the order is as evloop_create() has it where they are
/// the same. Prepare, check, idle and exit watchers are ordered among
/// themselves. A posted call has priority 0.
///
/// @param watcher a watcher.
/// @param priority any number, 0 by default.
/// @returns 0. -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_set_priority(watcher: evloop_watcher_t, priority: c_int) -> c_int {
    guard("evloop_watcher_set_priority", || {
        reactor::change(watcher, Change::Priority(priority)).map(|()| 0)
    })
}

/// Limit how often a watcher is dispatched.
///
/// After burst events in one interval the watcher pauses until the interval
/// is over. What happens meanwhile is then delivered in one event: the bits
/// of events and the counts are added up. A new limit counts from this call
/// on: it ends the pause that an earlier one has begun, as 0 does, and what
/// was kept is delivered in the next iteration.
///
/// @param watcher a watcher.
/// @param interval_ns nanoseconds of the loop's time; 0 ends the limit.
/// @param burst events in an interval; at least 1 unless interval_ns is 0.
/// @returns 0. -EINVAL: a negative interval, or no burst. -EMFILE, -ENFILE,
///   -ENOSPC: as evloop_add_timer(), since the first limit of a loop, or the
///   end of one, takes the descriptor of CLOCK_MONOTONIC's timers. -ENOMEM.
///   Asked for by another thread than that which runs the loop, these arrive
///   as an event with EVLOOP_ERROR instead. -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_set_ratelimit(
    watcher: evloop_watcher_t,
    interval_ns: i64,
    burst: c_int,
) -> c_int {
    guard("evloop_watcher_set_ratelimit", || {
        let interval = arg::not_negative(interval_ns, "interval_ns")?;
        let burst = arg::burst(interval, burst)?;
        reactor::change(watcher, Change::RateLimit { interval, burst }).map(|()| 0)
    })
}

/// Give a watcher a name, for whoever looks inside.
///
/// @param watcher a watcher.
/// @param name a NUL-terminated string, which is copied; NULL: none.
/// @returns 0. -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any; takes the loop's lock. Signals: not safe.
/// Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_set_name(
    watcher: evloop_watcher_t,
    name: *const c_char,
) -> c_int {
    guard("evloop_watcher_set_name", || {
        // SAFETY: NULL or a NUL-terminated string (C's duty).
        let name = unsafe { arg::text(name) }?;
        reactor::set_name(watcher, name).map(|()| 0)
    })
}

/// The name of a watcher.
///
/// @param watcher a watcher.
/// @param buf receives the name, NUL-terminated and cut to fit after
///   any byte, inside a character of UTF-8 too; may be NULL if cap is 0.
/// @param cap room in buf, in bytes.
/// @returns the length of the whole name, without the NUL; 0 if it has none.
///   -EINVAL: buf is NULL. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_set_name().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_get_name(
    watcher: evloop_watcher_t,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    guard("evloop_watcher_get_name", || {
        // SAFETY: the caller lends `cap` bytes at `buf`.
        let mut out = unsafe { arg::bytes_out(buf, cap) }?;
        arg::count(reactor::get_name(watcher, &mut out)?)
    })
}

/// Change the data of a watcher.
///
/// @param watcher a watcher.
/// @param data from now on its event's data, and the user_data of its
///   callback.
/// @returns 0. -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_set_data(watcher: evloop_watcher_t, data: u64) -> c_int {
    if quick::set_data(watcher, data) {
        return 0;
    }
    guard_rest("evloop_watcher_set_data", || {
        reactor::change(watcher, Change::Data(data)).map(|()| 0)
    })
}

/// Let a watcher keep its loop alive again; see evloop_watcher_unref().
///
/// @param watcher a watcher.
/// @returns 0; also if it does already. -ENOMEM. -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_ref(watcher: evloop_watcher_t) -> c_int {
    if quick::set_ref(watcher, true) {
        return 0;
    }
    guard_rest("evloop_watcher_ref", || reactor::change(watcher, Change::Ref).map(|()| 0))
}

/// Let a loop end although this watcher is enabled.
///
/// For what only serves others, such as a timer that prints statistics.
/// This is a property, not a count.
///
/// @param watcher a watcher.
/// @returns as evloop_watcher_ref().
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_unref(watcher: evloop_watcher_t) -> c_int {
    if quick::set_ref(watcher, false) {
        return 0;
    }
    guard_rest("evloop_watcher_unref", || reactor::change(watcher, Change::Unref).map(|()| 0))
}

/// The loop of a watcher; and whether the watcher is still there.
///
/// A handle is never used again, so a program that has kept one may ask:
///
///   if (evloop_watcher_loop(watcher) > 0) evloop_watcher_close(watcher, 0);
///
/// (To close it without asking is as good: -ESTALE does no harm.)
///
/// @param watcher a watcher.
/// @returns the loop. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_watcher_loop(watcher: evloop_watcher_t) -> evloop_t {
    match quick::loop_of(watcher) {
        Some(evloop) => evloop,
        None => guard_rest("evloop_watcher_loop", || reactor::loop_of(watcher)),
    }
}

/// Be told when a watcher is closed and nothing refers to it any more.
///
/// Then what user_data points to can be freed. It happens exactly once: on
/// the thread that runs the loop, before its next callback and after the one
/// that is running; inside the call that closes the watcher, or the loop, if
/// the loop is not running. Several watchers that are closed in one callback
/// are all out of use by then: one notification is enough for them. Event:
/// type EVLOOP_EVENT_CLOSED, watcher the stale handle, data the watcher's.
///
/// @param watcher a watcher.
/// @param callback called once; NULL: evloop_wait() returns the event.
///   (There is none if the loop is closed.)
/// @param user_data handed to callback; may be NULL.
/// @returns 0. -ENOMEM. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking, threads, signals, fork: as evloop_watcher_enable(). A second
/// call replaces the first. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_set_destroy(
    watcher: evloop_watcher_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_watcher_set_destroy", || {
        let destroy = Target { callback, user_data };
        reactor::set_destroy(watcher, destroy).map(|()| 0)
    })
}
