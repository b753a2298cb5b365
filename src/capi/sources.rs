//! What an event loop waits for: `evloop_add_*`.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::{guard, guard_rest, signal_safe};
use super::types::*;
use crate::errno::Result;
use crate::kqueue::{self, Kqueue};
use crate::reactor::{self, NewTimer, Period, Setting, Source, Target, Watch, quick};
use crate::table;
use crate::timerfd::{self, Timer};

/// Watch a descriptor.
///
/// Level-triggered, unless EVLOOP_EPOLLET is among the events. With
/// EVLOOP_EPOLLONESHOT the watcher is disabled by its first event, until
/// evloop_watcher_enable() or evloop_io_modify(). Regular files, directories
/// and /dev/null are always ready, which is reported in every iteration,
/// with EVLOOP_EPOLLET too; where more than max_events descriptors are ready
/// these take turns with the others. Several watchers may watch one
/// descriptor, but none beside one with EVLOOP_EPOLLEXCLUSIVE; they are all
/// level-triggered if one of them is. So a reader and a writer need not know
/// of each other:
///
///   evloop_add_io(loop, fd, EVLOOP_EPOLLIN, read_some, reader);
///   evloop_add_io(loop, fd, EVLOOP_EPOLLOUT, write_some, writer);
///
/// Enabling a watcher, modifying it (to the same events, too) and adding
/// another one to its descriptor look at readiness again, as EPOLL_CTL_MOD
/// and EPOLL_CTL_ADD do: what is ready by then is reported, although its edge
/// has passed. Edge-triggered watchers that share the descriptor may be
/// reported once more. For watchers with ET or ONESHOT this takes one system
/// call before the next wait, with EXCLUSIVE two. A disabled watcher with
/// EXCLUSIVE takes no wake-up from other loops.
///
/// Close the watcher before the descriptor:
///
///   evloop_watcher_close(watcher, 0);
///   close(fd);
///
/// If the descriptor was closed first, the watcher gets one event with
/// EVLOOP_ERROR and result -EBADF when the loop notices, and is disabled. The
/// kernel reports nothing of such a descriptor, so the loop notices when it
/// next changes the registration (after evloop_io_modify() to other events,
/// say), or when a descriptor of the same number is added; a loop with
/// EVLOOP_CHECK_FDS looks before each wait. A new descriptor of the same
/// number is not taken for the old one. But while a duplicate of the old one
/// is open the kernel goes on reporting that one, under the number that it
/// had: event->fd may by then be closed, or another file. The loop takes
/// some hundred events to notice; with EVLOOP_EPOLLET, ONESHOT or EXCLUSIVE
/// it does not.
///
/// Event: type EVLOOP_EVENT_IO, fd, events.
///
/// @param loop a loop.
/// @param fd the descriptor; it stays the caller's.
/// @param events EVLOOP_EPOLL bits; 0 watches for errors and hang-ups.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -EBADF: fd is not open. -EINVAL: an
///   unknown bit, a descriptor that the library has made for this loop (that
///   of evloop_fileno(), or of a watcher) or waits with, or EXCLUSIVE for an
///   epoll descriptor or with other bits than IN, OUT, ERR, HUP, ET and WAKEUP.
///   -EEXIST: another watcher of the loop watches fd, and one of the two is
///   EXCLUSIVE; asked for by another thread than that which runs the loop,
///   this arrives as an event with EVLOOP_ERROR instead. -ELOOP: epoll sets
///   nested in a circle or too deep. -ENOSPC: the user's max_user_watches is
///   used up. -ENOMEM; if only the loop's own thread finds that there is none,
///   this arrives as an event with EVLOOP_ERROR, and the watcher is disabled
///   until it is enabled. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any; on the thread that runs the loop no lock is
/// taken. Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source:
/// epoll_ctl(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_io(
    r#loop: evloop_t,
    fd: c_int,
    events: u32,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_io", || {
        let (fd, events) = (arg::fd(fd)?, arg::epoll_events(events)?);
        reactor::add_io(r#loop, fd, events, Target { callback, user_data })
    })
}

/// Change what an io watcher watches for.
///
/// The kernel's registration is changed before the loop's next wait, if it
/// differs by then. What is ready is reported, although its edge has passed:
/// see evloop_add_io(). What the kernel refuses only then arrives as one
/// event with EVLOOP_ERROR. A watcher that an EVLOOP_EPOLLONESHOT event or an
/// error disabled is enabled; one that evloop_watcher_disable() disabled is
/// not.
///
/// @param watcher an io watcher.
/// @param events as evloop_add_io(). With 0 errors and hang-ups are still
///   reported, and in every iteration: for none evloop_watcher_disable().
/// @returns 0. -EINVAL: an unknown bit, EXCLUSIVE with ONESHOT or RDHUP, or
///   no io watcher (what else evloop_add_io() refuses to combine arrives as
///   an event). -EEXIST: as evloop_add_io(). -ENOMEM. -ECHILD: used after
///   fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; on the thread that runs the loop no lock is
/// taken; from another thread it takes effect before the loop next
/// dispatches. Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_io_modify(watcher: evloop_watcher_t, events: u32) -> c_int {
    if quick::io_modify(watcher, events) {
        return 0;
    }
    guard_rest("evloop_io_modify", || {
        reactor::io_modify(watcher, arg::epoll_events(events)?).map(|()| 0)
    })
}

/// Say what an io watcher is to watch for; nothing disables it.
///
/// What every adapter to another library needs: with 0 it is
/// evloop_watcher_disable(), with anything else evloop_io_modify() and then
/// evloop_watcher_enable().
///
/// @param watcher an io watcher.
/// @param events as evloop_add_io(); 0 disables the watcher, and reports no
///   errors and hang-ups either.
/// @returns as evloop_io_modify(), and as evloop_watcher_enable().
///
/// Blocking, threads, signals, fork: as evloop_io_modify(). Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_io_set(watcher: evloop_watcher_t, events: u32) -> c_int {
    if quick::io_set(watcher, events) {
        return 0;
    }
    guard_rest("evloop_io_set", || reactor::io_set(watcher, arg::epoll_events(events)?).map(|()| 0))
}

/// Add a timer.
///
/// A timer never expires early. Timers of one clock are dispatched in the
/// order of their deadlines, those with the same deadline in the order in
/// which they were set. A periodic timer does not drift: its deadlines are
/// the first one plus multiples of the interval. Expirations that were
/// missed, because a callback took long or the watcher was disabled, are
/// counted in one event (SKIP, the default), or delivered one by one
/// (BURST). With DELAY the interval counts from the end of the iteration's
/// callbacks: no expiration is missed, count is always 1, and it drifts.
///
/// A relative timer counts from the call or, set in a callback, from the
/// end of the iteration's callbacks, which costs no reading of the clock for
/// each. One on a wall clock is not affected by a step of that clock, an
/// absolute one is: it expires when the clock shows its time.
///
/// Event: type EVLOOP_EVENT_TIMER; count, the expirations, at least 1;
/// deadline_ns, when the first of them was due, and time_ns, when it was
/// found to be, both on the timer's clock (CLOCK_MONOTONIC for a relative
/// timer of CLOCK_REALTIME).
///
/// @param loop a loop.
/// @param clockid an EVLOOP_CLOCK constant. The ALARM clocks wake a
///   suspended system. With EVLOOP_VIRTUAL_TIME all of them show the virtual
///   time.
/// @param flags 0 or EVLOOP_TIMER_SKIP, or one of BURST and DELAY, and
///   EVLOOP_TIMER_ABSTIME.
/// @param initial_ns nanoseconds from now or, with ABSTIME, since the
///   clock's epoch; 0, or a time in the past, expires in the next
///   iteration, unless a tolerance lets it be later; a deadline of
///   INT64_MAX, or beyond, is never (but such a timer keeps the loop
///   alive); negative: not set yet, and interval_ns is not kept, see
///   evloop_timer_set().
/// @param interval_ns nanoseconds from one expiration to the next; 0
///   expires once.
/// @param tolerance_ns how much later than its deadline it may expire, so
///   that the loop wakes up once for several timers; 0: the
///   timer_tolerance_ns of the loop's options, which is 0 unless it was set
///   (1 is none, in a loop that has one). It is used to the full: a timer of
///   1 s with a tolerance of 0.2 s that is alone expires after 1.2 s. It is
///   earlier if the loop is awake between the two for anything else.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -EINVAL: an unknown clock or flag, BURST
///   with DELAY, a negative interval or tolerance. -EPERM: an ALARM clock
///   without CAP_WAKE_ALARM. -EMFILE, -ENFILE, -ENOSPC: the first timer on a
///   clock takes a descriptor. -ENOMEM. -ECHILD: used after fork. -ENOTSUP:
///   this system has no such clock. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; on the thread that runs the loop no lock is
/// taken. Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source:
/// timerfd_create(2).
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
        let setting = timer_setting(flags, initial_ns, interval_ns)?;
        let clock = arg::clock(clockid)?;
        let tolerance = arg::not_negative(tolerance_ns, "tolerance_ns")?;
        let new = NewTimer { clock, setting, tolerance };
        reactor::add_timer(r#loop, new, Target { callback, user_data })
    })
}

/// Call a function once, after some time.
///
/// evloop_add_timer() on CLOCK_MONOTONIC, relative, once. The watcher stays
/// until it is closed, which its callback may do:
///
///   static void later(const evloop_event_t *event, void *user_data) {
///     evloop_watcher_close(event->watcher, 0);
///   }
///
/// @param loop a loop.
/// @param delay_ns nanoseconds from now; not negative.
/// @param callback called with an EVLOOP_EVENT_TIMER event; NULL: see
///   evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, a timer. -EINVAL: delay_ns is negative. Others: as
///   evloop_add_timer().
///
/// Blocking, threads, signals, fork: as evloop_add_timer(). Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_after(
    r#loop: evloop_t,
    delay_ns: i64,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_after", || {
        let delay = arg::not_negative(delay_ns, "delay_ns")?;
        reactor::add_timer(r#loop, simple_timer(delay, 0), Target { callback, user_data })
    })
}

/// Call a function again and again.
///
/// evloop_add_timer() on CLOCK_MONOTONIC, relative, periodic: first after one
/// interval. Expirations that were missed come in one event, with their
/// count; evloop_watcher_close() ends it.
///
/// @param loop a loop.
/// @param interval_ns nanoseconds from one call to the next; at least 1.
/// @param callback called with an EVLOOP_EVENT_TIMER event; NULL: see
///   evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, a timer. -EINVAL: interval_ns is 0 or negative.
///   Others: as evloop_add_timer().
///
/// Blocking, threads, signals, fork: as evloop_add_timer(). Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_every(
    r#loop: evloop_t,
    interval_ns: i64,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_every", || {
        let interval = arg::interval(interval_ns)?;
        reactor::add_timer(r#loop, simple_timer(interval, interval), Target { callback, user_data })
    })
}

fn simple_timer(initial: i64, interval: i64) -> NewTimer {
    let setting = Setting { absolute: false, period: Period::Skip, initial, interval };
    NewTimer { clock: reactor::MONOTONIC, setting, tolerance: 0 }
}

fn timer_setting(flags: u32, initial_ns: i64, interval_ns: i64) -> Result<Setting> {
    arg::flags(flags, EVLOOP_TIMER_ABSTIME | EVLOOP_TIMER_BURST | EVLOOP_TIMER_DELAY)?;
    let period = match flags & (EVLOOP_TIMER_BURST | EVLOOP_TIMER_DELAY) {
        EVLOOP_TIMER_SKIP => Period::Skip,
        EVLOOP_TIMER_BURST => Period::Burst,
        EVLOOP_TIMER_DELAY => Period::Delay,
        _ => return Err(arg::contradiction("BURST and DELAY")),
    };
    let interval = arg::not_negative(interval_ns, "interval_ns")?;
    let absolute = flags & EVLOOP_TIMER_ABSTIME != 0;
    Ok(Setting { absolute, period, initial: initial_ns, interval })
}

/// Set a timer anew, or stop it.
///
/// What it was set to, and an expiration that was not dispatched yet, is
/// forgotten. The tolerance stays as it is. A timer that is stopped has no
/// interval either: evloop_timer_again() is -EINVAL until it is set anew.
///
/// Zero is at once, a negative time stops it; for tfd_settime() it is zero
/// that disarms:
///
///   evloop_timer_set(watcher, 0, 0, 0);       expires in the next iteration
///   evloop_timer_set(watcher, 0, -1, 0);      is stopped
///
/// @param watcher a timer.
/// @param flags as evloop_add_timer().
/// @param initial_ns as evloop_add_timer(); negative stops the timer.
/// @param interval_ns as evloop_add_timer().
/// @returns 0. -EINVAL: an unknown flag, BURST with DELAY, a negative
///   interval, or no timer. -ENOMEM: the timer is as it was. -EMFILE,
///   -ENFILE, -ENOSPC: as evloop_add_timer(). -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; on the thread that runs the loop no lock is
/// taken; from another thread it takes effect before the loop next
/// dispatches, counting from the call. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_set(
    watcher: evloop_watcher_t,
    flags: u32,
    initial_ns: i64,
    interval_ns: i64,
) -> c_int {
    guard("evloop_timer_set", || {
        reactor::timer_set(watcher, timer_setting(flags, initial_ns, interval_ns)?).map(|()| 0)
    })
}

/// Start a timer again: the cheapest call of the library.
///
/// For timeouts that are pushed back at every sign of life: a periodic timer
/// is set to expire after its interval, one that expires once after the
/// time that it was last set to, also if it has expired. Its tolerance stays.
///
/// @param watcher a timer that was set to a relative time, or a periodic
///   one, and not stopped by evloop_timer_set().
/// @returns 0. -EINVAL: no timer, or it was never set (a negative initial_ns
///   sets nothing, whatever interval_ns is), was stopped, or is absolute and
///   expires once. -ENOMEM: the timer is as it was. -ECHILD: used after
///   fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: as evloop_timer_set(). Signals: not safe. Fork:
/// -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_again(watcher: evloop_watcher_t) -> c_int {
    if quick::timer_again(watcher) {
        return 0;
    }
    guard_rest("evloop_timer_again", || reactor::timer_again(watcher).map(|()| 0))
}

/// Change how late a timer may be.
///
/// @param watcher a timer.
/// @param tolerance_ns how much later than its deadline it may expire; 0:
///   not at all, whatever the loop's timer_tolerance_ns is. It holds for what
///   the timer is set to now, and later.
/// @returns 0. -EINVAL: tolerance_ns is negative, or no timer. -ENOMEM: the
///   timer is as it was. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: as evloop_timer_set(). Signals: not safe. Fork:
/// -ECHILD. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_set_tolerance(
    watcher: evloop_watcher_t,
    tolerance_ns: i64,
) -> c_int {
    guard("evloop_timer_set_tolerance", || {
        let tolerance = arg::not_negative(tolerance_ns, "tolerance_ns")?;
        reactor::timer_set_tolerance(watcher, tolerance).map(|()| 0)
    })
}

/// How long it is until a timer expires.
///
/// @param watcher a timer.
/// @returns nanoseconds, 0 if it is due; INT64_MAX if it is not set. (One
///   that is set to INT64_MAX, never, has what is left until then.)
///   -EINVAL: no timer. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_timer_remaining_ns(watcher: evloop_watcher_t) -> i64 {
    guard("evloop_timer_remaining_ns", || reactor::timer_remaining(watcher))
}

/// Watch a timer file descriptor.
///
/// The loop reads it: nobody else should. If it is closed first, its
/// descriptor stays open until the loop has run and noticed.
///
/// Event: type EVLOOP_EVENT_TFD; count, the expirations; or, with
/// EVLOOP_ERROR, result -ECANCELED where a discontinuous change of the clock
/// cancelled the timer (the watcher is not disabled by that), -ESTALE where
/// the timer was closed.
///
/// @param loop a loop.
/// @param tfd a timer; it stays the caller's, who closes the watcher first.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -ENOTSUP: the loop has virtual time, which
///   the kernel's timers do not follow. -EBADF, -EEXIST, -ENOSPC, -ENOMEM: as
///   evloop_add_io(). -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_tfd(
    r#loop: evloop_t,
    tfd: tfd_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_tfd", || {
        let watch = || {
            let fd = table::descriptor::<Timer>(tfd)?;
            Ok(Watch { handle: tfd, fd, pin: timerfd::watchable })
        };
        reactor::add_object(r#loop, Source::Tfd, watch, Target { callback, user_data })
    })
}

/// Add a watcher of a kqueue.
///
/// Its callback is called while the queue has events, which stay there: it
/// takes them with evloop_kqueue_control() and a timeout of 0. event->events
/// is 0 and event->fd -1. If the queue is closed there is one event with
/// EVLOOP_ERROR, and -ESTALE in event->result; then the watcher is disabled.
///
/// @param loop a loop.
/// @param kq a kqueue; it stays the caller's, and is freed once the watcher
///   is closed, too. Of one that evloop_kqueue_from_fd() made, only closing
///   this handle is noticed.
/// @param callback called with each event, on the thread that runs the
///   loop; NULL: see evloop_wait().
/// @param user_data handed to the callback.
/// @returns the watcher. -EEXIST, -ENOSPC, -ENOMEM: as evloop_add_io().
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles"; of either.
///
/// Blocking: no. Threads: any; on the thread that runs the loop no lock is
/// taken. Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_kqueue(
    r#loop: evloop_t,
    kq: evloop_kqueue_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_kqueue", || {
        let watch = || {
            let fd = table::descriptor::<Kqueue>(kq)?;
            Ok(Watch { handle: kq, fd, pin: kqueue::watchable })
        };
        reactor::add_object(r#loop, Source::Kqueue, watch, Target { callback, user_data })
    })
}

/// Add a watcher that any thread, and any signal handler, can trigger.
///
/// It keeps the loop alive while it is enabled. Event: type
/// EVLOOP_EVENT_ASYNC. To have every single call delivered use
/// evloop_post().
///
/// @param loop a loop.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -ENOMEM. -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_async(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_async", || {
        reactor::add_plain(r#loop, Source::Async, Target { callback, user_data })
    })
}

/// Trigger an async watcher.
///
/// The callback begins after this call, on the thread that runs the loop,
/// and sees what this thread wrote before it. Any number of calls before
/// that count as one. Sent to a disabled watcher, it is delivered once that
/// is enabled.
///
/// @param watcher an async watcher.
/// @returns 0. -EINVAL: no async watcher. -ECHILD: used after fork. -EBADF: as
///   evloop_wakeup(). -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: safe (evloop_last_error() is not
/// set). Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_async_send(watcher: evloop_watcher_t) -> c_int {
    signal_safe(reactor::async_send(watcher))
}

/// Add a watcher that is called while there is nothing else to do.
///
/// In each iteration in which no timer, clock_change, async or defer
/// watcher, posted call or descriptor was dispatched; while one is enabled
/// the loop is alive and does not wait. So disable or close it when its work
/// is done. One without a callback is for evloop_wait(), which returns its
/// event; evloop_run() would go round for nothing, with a busy processor.
/// Event: type EVLOOP_EVENT_IDLE.
///
/// Parameters, result, threads, signals and fork: as evloop_add_async().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_idle(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_idle", || {
        reactor::add_plain(r#loop, Source::Idle, Target { callback, user_data })
    })
}

/// Add a watcher that is called before each wait.
///
/// It keeps the loop alive while it is enabled. A library that has one (or a
/// check watcher) for its own purposes lets go of the loop, which ends then
/// when the program's watchers do:
///
///   evloop_watcher_t before = evloop_add_prepare(loop, flush, state);
///   evloop_watcher_unref(before);
///
/// Event: type EVLOOP_EVENT_PREPARE.
///
/// Parameters, result, threads, signals and fork: as evloop_add_async().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_prepare(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_prepare", || {
        reactor::add_plain(r#loop, Source::Prepare, Target { callback, user_data })
    })
}

/// Add a watcher that is called after each wait.
///
/// When everything that the wait found was dispatched. It keeps the loop
/// alive while it is enabled; one for a library's own purposes wants
/// evloop_watcher_unref(), as in evloop_add_prepare(). Event: type
/// EVLOOP_EVENT_CHECK.
///
/// Parameters, result, threads, signals and fork: as evloop_add_async().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_check(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_check", || {
        reactor::add_plain(r#loop, Source::Check, Target { callback, user_data })
    })
}

/// Add a watcher that is called once, in the next iteration.
///
/// It is then disabled; evloop_watcher_enable() has it called once more.
/// Event: type EVLOOP_EVENT_DEFER.
///
/// Parameters, result, threads, signals and fork: as evloop_add_async().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_defer(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_defer", || {
        reactor::add_plain(r#loop, Source::Defer, Target { callback, user_data })
    })
}

/// Add a watcher that is called when a run ends.
///
/// Just before evloop_run(UNTIL_DONE) or evloop_run_for_ns() returns 0 or 1,
/// because nothing is left, the time is over or evloop_stop() was called; in
/// the order of their priorities. It does not keep the loop alive. Event:
/// type EVLOOP_EVENT_EXIT.
///
/// Parameters, result, threads, signals and fork: as evloop_add_async().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_exit(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_exit", || {
        reactor::add_plain(r#loop, Source::Exit, Target { callback, user_data })
    })
}

/// Add a watcher that is told when the wall clock is set.
///
/// When CLOCK_REALTIME makes a step, by clock_settime(2) or after a
/// suspend; not when it is slewed. It does not keep the loop alive. With
/// EVLOOP_VIRTUAL_TIME it never is. Event: type EVLOOP_EVENT_CLOCK_CHANGE.
///
/// @param loop, callback, user_data as evloop_add_async().
/// @returns as evloop_add_async(); -EMFILE, -ENFILE, -ENOSPC: the first
///   takes a descriptor.
///
/// Blocking, threads, signals and fork: as evloop_add_async().
/// Since 0.1.0. Source: TFD_TIMER_CANCEL_ON_SET of timerfd_create(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_clock_change(
    r#loop: evloop_t,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_clock_change", || {
        reactor::add_plain(r#loop, Source::ClockChange, Target { callback, user_data })
    })
}
