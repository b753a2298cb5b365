//! Timer file descriptors: `tfd_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::reactor;
use crate::table;
use crate::timerfd::{Setting, Timer, seconds};

/// Create a timer file descriptor, disarmed.
///
/// The descriptor (tfd_fileno()) becomes readable when the timer has
/// expired, in every select, poll or epoll, the caller's own included.
///
/// @param clockid EVLOOP_CLOCK_REALTIME, _MONOTONIC, _BOOTTIME,
///   _REALTIME_ALARM or _BOOTTIME_ALARM.
/// @param flags 0 or EVLOOP_TFD_NONBLOCK, EVLOOP_TFD_CLOEXEC. CLOEXEC is
///   always on. NONBLOCK is for event loops in which somebody else (another
///   thread, a process that shares the timer) may read it first.
/// @returns the timer, to be closed with tfd_close().
///   -EINVAL: unknown clock or flag. -EPERM: an ALARM clock without
///   CAP_WAKE_ALARM. -EMFILE, -ENFILE: no descriptor left. -ENODEV,
///   -ENOMEM: the kernel is out of something.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: the child shares
/// the timer, as it shares any open file: both see and set the same one.
/// Since 0.1.0. Source: timerfd_create(2).
#[unsafe(no_mangle)]
pub extern "C" fn tfd_create(clockid: c_int, flags: u32) -> tfd_t {
    guard("tfd_create", || {
        arg::flags(flags, EVLOOP_TFD_NONBLOCK | EVLOOP_TFD_CLOEXEC)?;
        let nonblocking = flags & EVLOOP_TFD_NONBLOCK != 0;
        table::insert(Timer::create(clockid, nonblocking)?)
    })
}

/// Use a timer file descriptor that something else created.
///
/// The handle works on that very descriptor. Its CLOEXEC and O_NONBLOCK
/// flags are left as they are, and O_NONBLOCK is obeyed by tfd_read().
///
/// @param fd a timer file descriptor. It stays the caller's, who closes it
///   after the handle; with EVLOOP_FD_OWN it is the handle's, and
///   tfd_close() closes it.
/// @param flags 0 or EVLOOP_FD_OWN.
/// @returns the timer. -EBADF: fd is not open. -EINVAL: fd is no timer file
///   descriptor, a loop's own, or an unknown flag. -ENOMEM. On failure fd
///   stays the caller's.
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: as tfd_create().
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_from_fd(fd: c_int, flags: u32) -> tfd_t {
    guard("tfd_from_fd", || {
        arg::flags(flags, EVLOOP_FD_OWN)?;
        reactor::refuse_own(fd)?;
        let handle = table::insert(Timer::adopt(fd)?)?;
        // Only now: an object that found no place leaves it open.
        if flags & EVLOOP_FD_OWN != 0 {
            table::pin::<Timer>(handle)?.own_fd();
        }
        Ok(handle)
    })
}

/// The descriptor of a timer, to be waited for.
///
/// It is only lent: do not close it. (A raw read(2) that blocks on it is not
/// woken by tfd_close(); tfd_read() is.)
///
/// @param t a timer.
/// @returns the descriptor. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_fileno(t: tfd_t) -> c_int {
    guard("tfd_fileno", || table::descriptor::<Timer>(t))
}

/// Close a timer.
///
/// The descriptor is closed (unless it is only borrowed, see tfd_from_fd())
/// as soon as no other thread is in a call with it, so its number is never
/// reused under such a thread. If an event loop watches it (see
/// evloop_add_tfd(); better close that watcher first), it is closed once the
/// loop has run and noticed, and the watcher gets an event with EVLOOP_ERROR
/// and result -ESTALE.
///
/// @param t a timer.
/// @returns 0. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads in tfd_read() or tfd_wait() return
/// -ESTALE. Signals: not safe. Fork: works in the child; the parent's timer
/// runs on. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_close(t: tfd_t) -> c_int {
    guard("tfd_close", || table::close::<Timer>(t).map(|()| 0))
}

/// Give up a timer, but keep its descriptor.
///
/// The handle is stale, as after tfd_close(), and the descriptor is the
/// caller's from now on, who closes it; it goes on as it is set.
///
/// @param t a timer.
/// @returns the descriptor. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; threads in tfd_read() or tfd_wait() return
/// -ESTALE. Signals: not safe. Fork: works in the child. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_release(t: tfd_t) -> c_int {
    guard("tfd_release", || table::release::<Timer, _>(t, Timer::give_fd_away))
}

/// Arm or disarm a timer, in seconds.
///
/// As tfd_settime_ns(), with times in seconds. A fraction of a nanosecond
/// is rounded up, so a timer is never early and a positive time never
/// becomes 0, which would disarm it (Python's os.timerfd_settime() rounds
/// down, and does).
///
/// @param t a timer.
/// @param flags as tfd_settime_ns().
/// @param initial_s seconds until the first expiration; 0 disarms.
/// @param interval_s seconds between later ones; 0 means only one.
/// @param out_old_initial_s seconds that were left until the next
///   expiration, 0 if the timer was disarmed; may be NULL.
/// @param out_old_interval_s the interval before; may be NULL.
/// @returns as tfd_settime_ns(), and -EINVAL for NaN, -EOVERFLOW for a time
///   that is infinite or above 2^63 ns (292 years).
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: sets the timer that
/// parent and child share. Since 0.1.0. Source: timerfd_settime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_settime(
    t: tfd_t,
    flags: u32,
    initial_s: f64,
    interval_s: f64,
    out_old_initial_s: *mut f64,
    out_old_interval_s: *mut f64,
) -> c_int {
    guard("tfd_settime", || {
        let timer = table::pin::<Timer>(t)?;
        let new = Setting::from_seconds(initial_s, interval_s)?;
        let old = timer.settime(arg::settime_flags(flags)?, new)?;
        // SAFETY: the caller lends a writable double, or NULL.
        unsafe { arg::write_out(out_old_initial_s, seconds(old.initial_ns)) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_old_interval_s, seconds(old.interval_ns)) };
        Ok(0)
    })
}

/// Arm or disarm a timer, in nanoseconds.
///
/// Expirations not read yet are dropped.
///
/// @param t a timer.
/// @param flags 0, or EVLOOP_TFD_TIMER_ABSTIME: initial_ns is a time of the
///   timer's clock, not a duration; one in the past expires at once, and a
///   periodic timer then counts every interval since. With it
///   EVLOOP_TFD_TIMER_CANCEL_ON_SET: a wall-clock timer is cancelled by a
///   step of that clock, and tfd_read() then returns -ECANCELED once (on
///   other clocks, or without ABSTIME, the kernel ignores the flag).
/// @param initial_ns nanoseconds until the first expiration. 0 disarms the
///   timer, also under ABSTIME; to expire at once pass 1. (With
///   evloop_timer_set() 0 is at once, and -1 stops the timer.)
/// @param interval_ns nanoseconds between later expirations, without
///   drift; 0 means only one.
/// @param out_old_initial_ns nanoseconds that were left until the next
///   expiration, 0 if the timer was disarmed; may be NULL.
/// @param out_old_interval_ns the interval before; may be NULL.
/// @returns 0. -EINVAL: a negative time or an unknown flag. -EBADF: the
///   borrowed descriptor was closed. -ECANCELED: the clock was stepped
///   since a CANCEL_ON_SET timer was last read or set; the new time IS set
///   nevertheless (a property of the kernel), only the old values are not
///   known. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: sets the timer that
/// parent and child share. Since 0.1.0. Source: timerfd_settime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_settime_ns(
    t: tfd_t,
    flags: u32,
    initial_ns: i64,
    interval_ns: i64,
    out_old_initial_ns: *mut i64,
    out_old_interval_ns: *mut i64,
) -> c_int {
    guard("tfd_settime_ns", || {
        let timer = table::pin::<Timer>(t)?;
        let new = Setting::from_ns(initial_ns, interval_ns)?;
        let old = timer.settime(arg::settime_flags(flags)?, new)?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_old_initial_ns, old.initial_ns) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_old_interval_ns, old.interval_ns) };
        Ok(0)
    })
}

/// When a timer expires next, in seconds.
///
/// As tfd_gettime_ns(), in seconds.
///
/// @param t a timer.
/// @param out_initial_s seconds until the next expiration; may be NULL.
/// @param out_interval_s the interval; may be NULL.
/// @returns as tfd_gettime_ns().
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child.
/// Since 0.1.0. Source: timerfd_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_gettime(
    t: tfd_t,
    out_initial_s: *mut f64,
    out_interval_s: *mut f64,
) -> c_int {
    guard("tfd_gettime", || {
        let now = table::pin::<Timer>(t)?.gettime()?;
        // SAFETY: the caller lends a writable double, or NULL.
        unsafe { arg::write_out(out_initial_s, seconds(now.initial_ns)) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_interval_s, seconds(now.interval_ns)) };
        Ok(0)
    })
}

/// When a timer expires next, in nanoseconds.
///
/// Always a duration from now, also for a timer set with ABSTIME. It does
/// not consume expirations.
///
/// @param t a timer.
/// @param out_initial_ns nanoseconds until the next expiration, 0 if the
///   timer is disarmed or was a single one that has expired; may be NULL.
/// @param out_interval_ns the interval, 0 if none; may be NULL.
/// @returns 0. -EBADF: the borrowed descriptor was closed. -ESTALE, -EDOM:
///   see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child.
/// Since 0.1.0. Source: timerfd_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_gettime_ns(
    t: tfd_t,
    out_initial_ns: *mut i64,
    out_interval_ns: *mut i64,
) -> c_int {
    guard("tfd_gettime_ns", || {
        let now = table::pin::<Timer>(t)?.gettime()?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_initial_ns, now.initial_ns) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_interval_ns, now.interval_ns) };
        Ok(0)
    })
}

/// Read how often a timer has expired; wait for the first time if need be.
///
/// What is read is counted since the last read or setting, and is then
/// gone: two threads that read one timer share its expirations.
///
/// Before Linux 6.10, if the timer is set at the same moment, or read by
/// somebody else (another process or handle, a raw read(2)), the call may
/// wait on for the next expiration, past the time of a tfd_wait(), and
/// tfd_close() does not wake it. EVLOOP_TFD_NONBLOCK prevents that.
///
/// @param t a timer. If its descriptor has O_NONBLOCK (as one created with
///   EVLOOP_TFD_NONBLOCK), the call does not wait.
/// @param out_expirations how many expirations, >= 1; may be NULL.
/// @returns 0. -EAGAIN: none yet, and the timer does not block. -ECANCELED:
///   the clock was stepped, see EVLOOP_TFD_TIMER_CANCEL_ON_SET; reported
///   once, the timer stays armed. -EINTR: see
///   evloop_set_interrupt_mode(). -ESTALE: not a live handle, or another
///   thread closed it during the wait. -ECHILD: the process forked during
///   the wait and this is the child. -EBADF: the borrowed descriptor was
///   closed. -EDOM: see "Handles".
///
/// Blocking: yes, until the timer expires; for ever if it is disarmed.
/// Threads: any. Signals: not safe. Fork: in parent and child, each
/// expiration goes to one of them. Since 0.1.0. Source: timerfd_create(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_read(t: tfd_t, out_expirations: *mut u64) -> c_int {
    guard("tfd_read", || {
        let expirations = table::pin::<Timer>(t)?.read()?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_expirations, expirations) };
        Ok(0)
    })
}

/// Wait a limited time for a timer to expire, and read it.
///
/// As tfd_read() with a time limit; O_NONBLOCK plays no part.
///
/// @param t a timer.
/// @param timeout_ns nanoseconds to wait, measured on CLOCK_MONOTONIC; 0
///   does not wait, negative waits for ever.
/// @param out_expirations how many expirations, 0 if the time ran out; may
///   be NULL.
/// @returns 1 if the timer expired, 0 if the time ran out first; errors as
///   tfd_read(), -EAGAIN excepted.
///
/// Blocking: up to timeout_ns, never less. Threads: any. Signals: not safe.
/// Fork: as tfd_read(). Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_wait(t: tfd_t, timeout_ns: i64, out_expirations: *mut u64) -> c_int {
    guard("tfd_wait", || {
        let expirations = table::pin::<Timer>(t)?.wait(timeout_ns)?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_expirations, expirations) };
        Ok(c_int::from(expirations > 0))
    })
}

/// The clock of a timer.
///
/// @param t a timer.
/// @returns an EVLOOP_CLOCK constant. -ENOTSUP: the timer was adopted with
///   tfd_from_fd() and /proc, which knows its clock, is not mounted; for
///   such a timer also -EMFILE, -ENFILE, -ENOMEM: no descriptor left to ask
///   /proc with. -EBADF: the borrowed descriptor was closed. -ESTALE, -EDOM:
///   see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child.
/// Since 0.1.0. Source: proc_pid_fdinfo(5).
#[unsafe(no_mangle)]
pub extern "C" fn tfd_clockid(t: tfd_t) -> c_int {
    guard("tfd_clockid", || table::pin::<Timer>(t)?.clockid())
}

/// Set how many expirations the next read returns, and wake readers.
///
/// Meant for checkpoint and restore; in a test it makes a timer expire by
/// hand.
///
/// @param t a timer.
/// @param ticks the number of expirations, not 0.
/// @returns 0. -EINVAL: ticks is 0. -ENOTSUP: a kernel without
///   CONFIG_CHECKPOINT_RESTORE. -EBADF: the borrowed descriptor was closed.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: sets the timer that
/// parent and child share. Since 0.1.0. Source: timerfd_create(2),
/// TFD_IOC_SET_TICKS.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_set_ticks(t: tfd_t, ticks: u64) -> c_int {
    guard("tfd_set_ticks", || table::pin::<Timer>(t)?.set_ticks(ticks).map(|()| 0))
}
