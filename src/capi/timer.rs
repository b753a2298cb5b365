//! Timers of event loops.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::{guard, guard_rest};
use super::types::*;
use crate::errno::Result;
use crate::event_loop::{self, NewTimer, Period, Target, TimerSetting, fast_path};

/// Adds a timer.
///
/// A timer never expires early. Timers of one clock are dispatched in the order
/// of their deadlines; those with the same deadline in the order in which they
/// were set. A periodic timer does not drift: its deadlines are the first one
/// plus multiples of the interval.
///
/// An expiration is missed when a callback takes long or the watcher is
/// disabled. The flags choose what happens then:
/// - SKIP, the default: one event counts all missed expirations.
/// - BURST: each has an event of its own.
/// - DELAY: the interval begins at the end of the iteration's callbacks. No
///   expiration is missed, count is always 1, and the timer drifts.
///
/// A relative timer counts from this call. One that a callback sets counts from
/// the end of the iteration's callbacks, so that setting it does not read the
/// clock. A step of a wall clock does not affect a relative timer. An absolute
/// timer expires when its clock shows its time.
///
/// Shared wake-ups. As long as timers are sparse the loop wakes up at the
/// deadline of each timer without a tolerance. If it would wake up more than
/// about 1000 times a second only for timers, they share wake-ups. Each is late
/// by at most a tenth of its interval (of its delay, if it expires once; the
/// delay of an absolute timer counts from when it was set) and at most 1 ms.
/// None is early, and the order stays. A timer with no other one in that time is
/// not late. Timers do not share wake-ups with EVLOOP_TIMER_EXACT, in a loop
/// with EVLOOP_PRECISE, and in virtual time. wakeups_saved of evloop_stats()
/// counts the saved wake-ups.
///
/// Event: type EVLOOP_EVENT_TIMER; count, the expirations, at least 1;
/// deadline_ns, when the first of them was due; time_ns, when the loop found
/// that. Both times are on the timer's clock, but on CLOCK_MONOTONIC for a
/// relative timer of CLOCK_REALTIME.
///
/// @param loop a loop.
/// @param clockid an EVLOOP_CLOCK constant. The ALARM clocks wake a suspended
///   system. With EVLOOP_VIRTUAL_TIME every clock shows the virtual time.
/// @param flags 0 or EVLOOP_TIMER_SKIP, or one of BURST and DELAY; and
///   EVLOOP_TIMER_ABSTIME; and (since 0.2.0) EVLOOP_TIMER_EXACT: the loop wakes
///   up at the deadline, whatever other timers there are and whatever
///   timer_tolerance_ns of the loop is. That is a tolerance of 1 ns.
/// @param initial_ns nanoseconds from now or, with ABSTIME, since the clock's
///   epoch. 0, or a time in the past, expires in the next iteration, unless a
///   tolerance lets it be later. A deadline of INT64_MAX, or beyond, is never
///   reached, but such a timer keeps the loop alive. Negative: the timer is not
///   set, and interval_ns is not stored; see evloop_timer_set().
/// @param interval_ns nanoseconds from one expiration to the next; 0 expires
///   once.
/// @param tolerance_ns how much later than its deadline the timer may expire,
///   so that the loop wakes up once for several timers. The loop uses all of
///   it: a timer of 1 s with a tolerance of 0.2 s expires after 1.2 s if it is
///   alone. It expires earlier if the loop is awake between the two times for
///   another reason. 0: timer_tolerance_ns of the loop's options, which is 0 by
///   default (1 is no tolerance in a loop that has one).
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -EINVAL    an unknown clock or flag, or BURST with DELAY
///   -EINVAL    EXACT with a tolerance
///   -EINVAL    the interval or the tolerance is negative
///   -EPERM     an ALARM clock without CAP_WAKE_ALARM
///   -ENOTSUP   this system has no such clock
///   -EMFILE, -ENFILE, -ENOSPC  the first timer of a clock takes a descriptor
///   -ENOMEM
///
/// Threads: any; on the thread that runs the loop no lock is taken.
/// Source: timerfd_create(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_timer(
    r#loop: evloop_t,
    clockid: c_int,
    flags: u32,
    initial_ns: i64,
    interval_ns: i64,
    tolerance_ns: i64,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_timer", || {
        let setting = timer_setting(flags & !EVLOOP_TIMER_EXACT, initial_ns, interval_ns)?;
        let clock = arg::clock(clockid)?;
        let tolerance = timer_tolerance(flags, tolerance_ns)?;
        let new = NewTimer { clock, setting, tolerance };
        event_loop::add_timer(r#loop, new, Target { callback, user_data })
    })
}

/// Calls a function once, after a delay.
///
/// It is evloop_add_timer() on CLOCK_MONOTONIC, relative, once. The watcher
/// stays until it is closed, which its callback may do:
///
///   static void later(const evloop_event_t *event, void *user_data) {
///     evloop_watcher_close(event->watcher, 0);
///   }
///
/// @param loop a loop.
/// @param delay_ns nanoseconds from now; not negative.
/// @param callback called with an EVLOOP_EVENT_TIMER event; NULL: see
///   evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, a timer.
///
/// Errors, besides those of evloop_add_timer():
///   -EINVAL    delay_ns is negative
///
/// Threads: as evloop_add_timer().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_after(
    r#loop: evloop_t,
    delay_ns: i64,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_after", || {
        let delay = arg::not_negative(delay_ns, "delay_ns")?;
        event_loop::add_timer(r#loop, simple_timer(delay, 0), Target { callback, user_data })
    })
}

/// Calls a function periodically.
///
/// It is evloop_add_timer() on CLOCK_MONOTONIC, relative, periodic; the first
/// call comes after one interval. One event counts all missed expirations.
/// evloop_watcher_close() ends the calls.
///
/// @param loop a loop.
/// @param interval_ns nanoseconds from one call to the next; at least 1.
/// @param callback called with an EVLOOP_EVENT_TIMER event; NULL: see
///   evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, a timer.
///
/// Errors, besides those of evloop_add_timer():
///   -EINVAL    interval_ns is 0 or negative
///
/// Threads: as evloop_add_timer().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_every(
    r#loop: evloop_t,
    interval_ns: i64,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_every", || {
        let interval = arg::interval(interval_ns)?;
        event_loop::add_timer(
            r#loop,
            simple_timer(interval, interval),
            Target { callback, user_data },
        )
    })
}

fn simple_timer(initial: i64, interval: i64) -> NewTimer {
    let setting = TimerSetting { absolute: false, period: Period::Skip, initial, interval };
    NewTimer { clock: event_loop::MONOTONIC, setting, tolerance: 0 }
}

fn timer_setting(flags: u32, initial_ns: i64, interval_ns: i64) -> Result<TimerSetting> {
    arg::flags(flags, EVLOOP_TIMER_ABSTIME | EVLOOP_TIMER_BURST | EVLOOP_TIMER_DELAY)?;
    let period = match flags & (EVLOOP_TIMER_BURST | EVLOOP_TIMER_DELAY) {
        EVLOOP_TIMER_SKIP => Period::Skip,
        EVLOOP_TIMER_BURST => Period::Burst,
        EVLOOP_TIMER_DELAY => Period::Delay,
        _ => return Err(arg::contradiction("BURST and DELAY")),
    };
    let interval = arg::not_negative(interval_ns, "interval_ns")?;
    let absolute = flags & EVLOOP_TIMER_ABSTIME != 0;
    Ok(TimerSetting { absolute, period, initial: initial_ns, interval })
}

/// The tolerance of a new timer; an exact timer has the smallest one, whatever
/// that of the loop is.
fn timer_tolerance(flags: u32, tolerance_ns: i64) -> Result<i64> {
    let tolerance = arg::not_negative(tolerance_ns, "tolerance_ns")?;
    match (flags & EVLOOP_TIMER_EXACT, tolerance) {
        (0, tolerance) => Ok(tolerance),
        (_, 0) => Ok(1),
        _ => Err(arg::contradiction("EXACT and a tolerance")),
    }
}

/// Sets a timer to a new time, or stops it.
///
/// The old setting, and an expiration that was not dispatched yet, are dropped.
/// The tolerance stays as it is. A stopped timer has no interval either:
/// evloop_timer_again() returns -EINVAL until the timer is set again.
///
/// Zero expires at once, and a negative time stops the timer; with
/// tfd_settime() zero disarms it:
///
///   evloop_timer_set(watcher, 0, 0, 0);       expires in the next iteration
///   evloop_timer_set(watcher, 0, -1, 0);      is stopped
///
/// @param watcher a timer.
/// @param flags as evloop_add_timer(), but not EVLOOP_TIMER_EXACT.
/// @param initial_ns as evloop_add_timer(); negative stops the timer.
/// @param interval_ns as evloop_add_timer().
/// @returns 0.
///
/// Errors:
///   -EINVAL    an unknown flag, or BURST with DELAY
///   -EINVAL    the interval is negative
///   -EINVAL    not a timer
///   -ENOMEM    no memory; the timer is unchanged
///   -EMFILE, -ENFILE, -ENOSPC  as evloop_add_timer()
///
/// Threads: any; on the thread that runs the loop no lock is taken; from
/// another thread it takes effect before the loop next dispatches, and the time
/// counts from the call.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_set(
    watcher: evloop_watcher_t,
    flags: u32,
    initial_ns: i64,
    interval_ns: i64,
) -> c_int {
    guard("evloop_timer_set", || {
        event_loop::timer_set(watcher, timer_setting(flags, initial_ns, interval_ns)?).map(|()| 0)
    })
}

/// Restarts a timer. This is the cheapest call of the library.
///
/// It is for timeouts that every sign of activity postpones. A periodic timer
/// expires after its interval. A timer that expires once does so after the time
/// that it was last set to, also if it has already expired. The tolerance stays
/// as it is.
///
/// @param watcher a timer that was set to a relative time, or a periodic one,
///   and that evloop_timer_set() has not stopped.
/// @returns 0.
///
/// Errors:
///   -EINVAL    not a timer
///   -EINVAL    the timer was never set (a negative initial_ns sets nothing,
///              whatever interval_ns is), or was stopped
///   -EINVAL    the timer is absolute and expires once
///   -ENOMEM    no memory; the timer is unchanged
///
/// Threads: as evloop_timer_set().
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_again(watcher: evloop_watcher_t) -> c_int {
    if fast_path::timer_again(watcher) {
        return 0;
    }
    guard_rest("evloop_timer_again", || event_loop::timer_again(watcher).map(|()| 0))
}

/// Sets the tolerance of a timer.
///
/// It applies to the current setting of the timer, and to later ones.
///
/// @param watcher a timer.
/// @param tolerance_ns how much later than its deadline it may expire. 0: no
///   later than a timer without a tolerance (see evloop_add_timer()), whatever
///   timer_tolerance_ns of the loop is. 1: as with EVLOOP_TIMER_EXACT.
/// @returns 0.
///
/// Errors:
///   -EINVAL    tolerance_ns is negative
///   -EINVAL    not a timer
///   -ENOMEM    no memory; the timer is unchanged
///
/// Threads: as evloop_timer_set().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_set_tolerance(
    watcher: evloop_watcher_t,
    tolerance_ns: i64,
) -> c_int {
    guard("evloop_timer_set_tolerance", || {
        let tolerance = arg::not_negative(tolerance_ns, "tolerance_ns")?;
        event_loop::timer_set_tolerance(watcher, tolerance).map(|()| 0)
    })
}

/// Returns the time until a timer expires.
///
/// @param watcher a timer.
/// @returns nanoseconds, 0 if it is due; INT64_MAX if it is not set. (A timer
///   that is set to INT64_MAX, never, returns the time until then.)
///
/// Errors:
///   -EINVAL    not a timer
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_remaining_ns(watcher: evloop_watcher_t) -> i64 {
    guard("evloop_timer_remaining_ns", || event_loop::timer_remaining(watcher))
}
