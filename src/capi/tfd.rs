//! Timer file descriptors: `tfd_*`.

use std::ffi::c_int;

use super::arg;
use super::guard::{guard, guard_close};
use super::types::*;
use crate::event_loop;
use crate::handle;
use crate::timerfd::{TfdSetting, Timer, seconds};

/// Creates a timer file descriptor, disarmed.
///
/// The descriptor, tfd_fileno(), becomes readable when the timer expires, in
/// every select, poll or epoll, the caller's own included.
///
/// @param clockid EVLOOP_CLOCK_REALTIME, _MONOTONIC, _BOOTTIME, _REALTIME_ALARM
///   or _BOOTTIME_ALARM.
/// @param flags 0, EVLOOP_TFD_NONBLOCK, EVLOOP_TFD_CLOEXEC or both. CLOEXEC is
///   always on. NONBLOCK is for event loops where another reader (another
///   thread, or a process that shares the timer) may read the timer first.
/// @returns the timer; close it with tfd_close().
///
/// Errors:
///   -EINVAL    an unknown clock or flag
///   -EPERM     an ALARM clock without CAP_WAKE_ALARM
///   -ENODEV    the kernel cannot mount its anonymous inode device
///   -EMFILE, -ENFILE, -ENOMEM
///
/// Fork: the child shares the timer, as it shares any open file. Both processes
/// see and set the same timer.
/// Source: timerfd_create(2).
#[unsafe(no_mangle)]
pub extern "C" fn tfd_create(clockid: c_int, flags: u32) -> tfd_t {
    guard("tfd_create", || {
        arg::flags(flags, EVLOOP_TFD_NONBLOCK | EVLOOP_TFD_CLOEXEC)?;
        let nonblocking = flags & EVLOOP_TFD_NONBLOCK != 0;
        handle::insert(Timer::create(clockid, nonblocking)?)
    })
}

/// Makes a handle for a timer file descriptor that already exists.
///
/// The handle works on that very descriptor. Its CLOEXEC and O_NONBLOCK flags
/// stay as they are, and tfd_read() obeys O_NONBLOCK.
///
/// @param fd a timer file descriptor. It stays the caller's, who closes it
///   after the handle. With EVLOOP_FD_OWN it belongs to the handle, and
///   tfd_close() closes it. On failure it stays the caller's.
/// @param flags 0 or EVLOOP_FD_OWN.
/// @returns the timer.
///
/// Errors:
///   -EBADF     fd is not open
///   -EINVAL    fd is not a timer file descriptor, or an event loop's own
///   -EINVAL    an unknown flag
///   -ENOMEM
///
/// Fork: as tfd_create().
#[unsafe(no_mangle)]
pub extern "C" fn tfd_from_fd(fd: c_int, flags: u32) -> tfd_t {
    guard("tfd_from_fd", || {
        arg::flags(flags, EVLOOP_FD_OWN)?;
        event_loop::refuse_own(fd)?;
        let handle = handle::insert(Timer::adopt(fd)?)?;
        // Only now: an object that found no place leaves it open.
        if flags & EVLOOP_FD_OWN != 0 {
            handle::pin::<Timer>(handle)?.own_fd();
        }
        Ok(handle)
    })
}

/// Returns the descriptor of a timer, to wait for it.
///
/// It belongs to the timer: do not close it. tfd_close() wakes a thread in
/// tfd_read(), but not one that blocks in a raw read(2) on this descriptor.
///
/// @param t a timer.
/// @returns the descriptor.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_fileno(t: tfd_t) -> c_int {
    guard("tfd_fileno", || handle::descriptor::<Timer>(t))
}

/// Closes a timer.
///
/// The descriptor is closed as soon as no other thread is in a call with the
/// timer, so the kernel cannot reuse the fd under such a thread. A borrowed
/// descriptor stays open; see tfd_from_fd(). Threads in tfd_read() or
/// tfd_wait() return -ESTALE.
///
/// If an event loop watches the timer (evloop_add_tfd()), close that watcher
/// first. Otherwise the descriptor is closed when the loop has run and noticed,
/// and the watcher gets an event with EVLOOP_ERROR and the result -ESTALE.
///
/// @param t a timer.
/// @returns 0.
///
/// Fork: the parent's timer runs on.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_close(t: tfd_t) -> c_int {
    guard_close("tfd_close", t, || handle::close::<Timer>(t).map(|()| 0))
}

/// Closes the handle of a timer and returns its descriptor.
///
/// The handle is stale, as after tfd_close(). The descriptor belongs to the
/// caller from now on, who closes it; the timer keeps its setting. Threads in
/// tfd_read() or tfd_wait() return -ESTALE.
///
/// @param t a timer.
/// @returns the descriptor.
///
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn tfd_release(t: tfd_t) -> c_int {
    guard("tfd_release", || handle::release::<Timer, _>(t, Timer::give_fd_away))
}

/// Arms or disarms a timer, in seconds.
///
/// As tfd_settime_ns(), with times in seconds. A fraction of a nanosecond is
/// rounded up. So a timer is never early, and a positive time never becomes 0,
/// which would disarm the timer. (Python's os.timerfd_settime() rounds down,
/// and does disarm it.)
///
/// @param t a timer.
/// @param flags as tfd_settime_ns().
/// @param initial_s seconds until the first expiration; 0 disarms.
/// @param interval_s seconds between later expirations; 0 means only one.
/// @param out_old_initial_s seconds that were left until the next expiration, 0
///   if the timer was disarmed; may be NULL.
/// @param out_old_interval_s the previous interval; may be NULL.
/// @returns 0.
///
/// Errors, besides those of tfd_settime_ns():
///   -EINVAL    a time is NaN
///   -EOVERFLOW a time is infinite or above 2^63 ns (292 years)
///
/// Fork: sets the timer that parent and child share.
/// Source: timerfd_settime(2).
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
        let timer = handle::pin::<Timer>(t)?;
        let new = TfdSetting::from_seconds(initial_s, interval_s)?;
        let old = timer.settime(arg::settime_flags(flags)?, new)?;
        // SAFETY: the caller lends a writable double, or NULL.
        unsafe { arg::write_out(out_old_initial_s, seconds(old.initial_ns)) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_old_interval_s, seconds(old.interval_ns)) };
        Ok(0)
    })
}

/// Arms or disarms a timer, in nanoseconds.
///
/// Expirations that were not read yet are dropped.
///
/// With EVLOOP_TFD_TIMER_ABSTIME initial_ns is a time of the timer's clock, not
/// a duration. A time in the past expires at once, and a periodic timer then
/// counts every interval since. With EVLOOP_TFD_TIMER_CANCEL_ON_SET besides, a
/// step of a wall clock cancels the timer, and tfd_read() returns -ECANCELED
/// once. On other clocks, or without ABSTIME, the kernel ignores CANCEL_ON_SET.
///
/// @param t a timer.
/// @param flags 0, EVLOOP_TFD_TIMER_ABSTIME, EVLOOP_TFD_TIMER_CANCEL_ON_SET or
///   both.
/// @param initial_ns nanoseconds until the first expiration. 0 disarms the
///   timer, also with ABSTIME; to expire at once pass 1. (With
///   evloop_timer_set() 0 means at once, and -1 stops the timer.)
/// @param interval_ns nanoseconds between later expirations, without drift; 0
///   means only one.
/// @param out_old_initial_ns nanoseconds that were left until the next
///   expiration, 0 if the timer was disarmed; may be NULL.
/// @param out_old_interval_ns the previous interval; may be NULL.
/// @returns 0.
///
/// Errors:
///   -EINVAL    a time is negative
///   -EINVAL    an unknown flag
///   -EBADF     the borrowed descriptor was closed
///   -ECANCELED the clock was stepped since a CANCEL_ON_SET timer was last read
///              or set. The kernel has set the new time nevertheless; only the
///              old values are not known
///
/// Fork: sets the timer that parent and child share.
/// Source: timerfd_settime(2).
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
        let timer = handle::pin::<Timer>(t)?;
        let new = TfdSetting::from_ns(initial_ns, interval_ns)?;
        let old = timer.settime(arg::settime_flags(flags)?, new)?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_old_initial_ns, old.initial_ns) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_old_interval_ns, old.interval_ns) };
        Ok(0)
    })
}

/// Returns the time until a timer expires, in seconds.
///
/// As tfd_gettime_ns(), in seconds.
///
/// @param t a timer.
/// @param out_initial_s seconds until the next expiration; may be NULL.
/// @param out_interval_s the interval; may be NULL.
/// @returns 0; errors as tfd_gettime_ns().
///
/// Source: timerfd_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_gettime(
    t: tfd_t,
    out_initial_s: *mut f64,
    out_interval_s: *mut f64,
) -> c_int {
    guard("tfd_gettime", || {
        let now = handle::pin::<Timer>(t)?.gettime()?;
        // SAFETY: the caller lends a writable double, or NULL.
        unsafe { arg::write_out(out_initial_s, seconds(now.initial_ns)) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_interval_s, seconds(now.interval_ns)) };
        Ok(0)
    })
}

/// Returns the time until a timer expires, in nanoseconds.
///
/// It is always a duration from now, also for a timer that was set with
/// ABSTIME. The call consumes no expirations.
///
/// @param t a timer.
/// @param out_initial_ns nanoseconds until the next expiration. 0 if the timer
///   is disarmed, or expires once and has expired; may be NULL.
/// @param out_interval_ns the interval, 0 if none; may be NULL.
/// @returns 0.
///
/// Errors:
///   -EBADF     the borrowed descriptor was closed
///
/// Source: timerfd_gettime(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_gettime_ns(
    t: tfd_t,
    out_initial_ns: *mut i64,
    out_interval_ns: *mut i64,
) -> c_int {
    guard("tfd_gettime_ns", || {
        let now = handle::pin::<Timer>(t)?.gettime()?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_initial_ns, now.initial_ns) };
        // SAFETY: as above.
        unsafe { arg::write_out(out_interval_ns, now.interval_ns) };
        Ok(0)
    })
}

/// Reads how often a timer has expired; waits for the first expiration.
///
/// The count begins at the last read or setting, and reading resets it: two
/// threads that read one timer share its expirations.
///
/// Before Linux 6.10 there is a race. If at the same moment the timer is set,
/// or another process, another handle or a raw read(2) reads it, this call can
/// wait for the next expiration. A tfd_wait() then exceeds its time limit, and
/// tfd_close() does not wake the call. EVLOOP_TFD_NONBLOCK prevents it.
///
/// @param t a timer. If its descriptor has O_NONBLOCK, as after
///   EVLOOP_TFD_NONBLOCK, the call does not wait.
/// @param out_expirations the number of expirations, at least 1; may be NULL.
/// @returns 0.
///
/// Errors:
///   -EAGAIN    no expiration yet, and the timer does not block
///   -ECANCELED the clock was stepped, see EVLOOP_TFD_TIMER_CANCEL_ON_SET;
///              reported once, and the timer stays armed
///   -ECHILD    an interrupt check forked during this wait, and this is the
///              child; a new call works
///   -EBADF     the borrowed descriptor was closed
///   -EINTR
///
/// Blocking: until the timer expires; for ever if it is disarmed.
/// Fork: parent and child share the expirations; each goes to one of them.
/// Source: timerfd_create(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_read(t: tfd_t, out_expirations: *mut u64) -> c_int {
    guard("tfd_read", || {
        let expirations = handle::pin::<Timer>(t)?.read()?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_expirations, expirations) };
        Ok(0)
    })
}

/// Waits a limited time for a timer to expire, and reads it.
///
/// As tfd_read() with a time limit; O_NONBLOCK has no effect.
///
/// @param t a timer.
/// @param timeout_ns nanoseconds to wait, measured on CLOCK_MONOTONIC; 0 does
///   not wait, negative waits for ever.
/// @param out_expirations the number of expirations, 0 if the time ran out; may
///   be NULL.
/// @returns 1 if the timer expired, 0 if the time ran out first; errors as
///   tfd_read(), except -EAGAIN.
///
/// Blocking: up to timeout_ns, never less.
/// Fork: as tfd_read().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tfd_wait(t: tfd_t, timeout_ns: i64, out_expirations: *mut u64) -> c_int {
    guard("tfd_wait", || {
        let expirations = handle::pin::<Timer>(t)?.wait(timeout_ns)?;
        // SAFETY: the caller lends a writable integer, or NULL.
        unsafe { arg::write_out(out_expirations, expirations) };
        Ok(c_int::from(expirations > 0))
    })
}

/// Returns the clock of a timer.
///
/// @param t a timer.
/// @returns an EVLOOP_CLOCK constant.
///
/// Errors:
///   -EBADF     the borrowed descriptor was closed
/// For a timer from tfd_from_fd(), whose clock only /proc knows:
///   -ENOTSUP   /proc is not mounted
///   -EMFILE, -ENFILE, -ENOMEM
///
/// Source: proc_pid_fdinfo(5).
#[unsafe(no_mangle)]
pub extern "C" fn tfd_clockid(t: tfd_t) -> c_int {
    guard("tfd_clockid", || handle::pin::<Timer>(t)?.clockid())
}

/// Sets how many expirations the next read returns, and wakes readers.
///
/// It is meant for checkpoint and restore; a test can expire a timer with it.
///
/// @param t a timer.
/// @param ticks the number of expirations, not 0.
/// @returns 0.
///
/// Errors:
///   -EINVAL    ticks is 0
///   -ENOTSUP   the kernel has no CONFIG_CHECKPOINT_RESTORE
///   -EBADF     the borrowed descriptor was closed
///
/// Fork: sets the timer that parent and child share.
/// Source: TFD_IOC_SET_TICKS of timerfd_create(2).
#[unsafe(no_mangle)]
pub extern "C" fn tfd_set_ticks(t: tfd_t, ticks: u64) -> c_int {
    guard("tfd_set_ticks", || handle::pin::<Timer>(t)?.set_ticks(ticks).map(|()| 0))
}
