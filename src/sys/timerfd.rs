//! timerfd_create(2) and its companions.

use super::fd::Fd;
use super::syscall;
use crate::errno::Errno;
use crate::sync::{AtomicBool, Ordering};
use std::os::fd::RawFd;

/// `_IOW('T', 0, u64)`; not in the libc crate.
const TFD_IOC_SET_TICKS: usize = 0x4008_5400;

const ZERO: libc::itimerspec = {
    let zero = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    libc::itimerspec { it_interval: zero, it_value: zero }
};

pub(crate) fn create(clockid: i32, nonblocking: bool) -> Result<Fd, Errno> {
    let flags = libc::TFD_CLOEXEC | if nonblocking { libc::TFD_NONBLOCK } else { 0 };
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_timerfd_create, clockid, flags) };
    Fd::made_by("timerfd_create(2)", fd)
}

/// Sets the timer; what it was set to before.
pub(crate) fn settime(
    fd: RawFd,
    flags: u32,
    new: &libc::itimerspec,
) -> Result<libc::itimerspec, Errno> {
    let mut old = ZERO;
    // SAFETY: both structures are valid for the call.
    unsafe { syscall!(SYS_timerfd_settime, fd, flags, &raw const *new, &raw mut old) }?;
    Ok(old)
}

pub(crate) fn gettime(fd: RawFd) -> Result<libc::itimerspec, Errno> {
    let mut now = ZERO;
    // SAFETY: the structure is writable.
    unsafe { syscall!(SYS_timerfd_gettime, fd, &raw mut now) }?;
    Ok(now)
}

pub(crate) fn set_ticks(fd: RawFd, ticks: u64) -> Result<(), Errno> {
    // SAFETY: the argument points to eight readable bytes.
    unsafe { syscall!(SYS_ioctl, fd, TFD_IOC_SET_TICKS, &raw const ticks) }.map(drop)
}

/// read(2): the expirations; blocks unless the descriptor has O_NONBLOCK.
pub(crate) fn read(fd: RawFd) -> Result<u64, Errno> {
    let mut ticks = 0u64;
    // SAFETY: eight writable bytes.
    unsafe { syscall!(SYS_read, fd, &raw mut ticks, size_of_val(&ticks)) }?;
    Ok(ticks)
}

/// Whether [`read_nowait`] is known not to work here.
static NO_NOWAIT: AtomicBool = AtomicBool::new(false);

/// As [`read`] without blocking, whatever the descriptor's O_NONBLOCK.
///
/// `None`: this kernel cannot do that for timers (before 6.10 or so), or a
/// sandbox forbids it.
pub(crate) fn read_nowait(fd: RawFd) -> Option<Result<u64, Errno>> {
    if NO_NOWAIT.load(Ordering::Relaxed) {
        return None;
    }
    let mut ticks = 0u64;
    let buffer = libc::iovec { iov_base: (&raw mut ticks).cast(), iov_len: size_of_val(&ticks) };
    // The offset -1, in two halves, means "not positioned".
    // SAFETY: one buffer of eight writable bytes.
    let result = unsafe {
        syscall!(SYS_preadv2, fd, &raw const buffer, 1, -1isize, -1isize, libc::RWF_NOWAIT)
    };
    match result {
        Err(Errno::ENOTSUP | Errno::ENOSYS | Errno::EPERM) => {
            NO_NOWAIT.store(true, Ordering::Relaxed);
            None
        }
        result => Some(result.map(|_| ticks)),
    }
}

/// Has a timer not expire any more; what it has expired is forgotten.
pub(crate) fn disarm(fd: RawFd) -> Result<(), Errno> {
    settime(fd, 0, &ZERO).map(drop)
}

/// Has a timer expire once, at a time of its clock; before now: at once.
///
/// With `cancel`, it becomes ready when the clock is stepped, too. True: it
/// was stepped, and no read had reported that yet.
pub(crate) fn arm_at(fd: RawFd, deadline_ns: i64, cancel: bool) -> Result<bool, Errno> {
    let cancel = if cancel { libc::TFD_TIMER_CANCEL_ON_SET } else { 0 };
    let flags = (libc::TFD_TIMER_ABSTIME | cancel) as u32;
    // Zero would disarm it.
    let it_value = super::clock::to_timespec(deadline_ns.max(1));
    match settime(fd, flags, &libc::itimerspec { it_value, ..ZERO }) {
        Ok(_) => Ok(false),
        // The timer is armed all the same.
        Err(Errno::ECANCELED) => Ok(true),
        Err(errno) => Err(errno),
    }
}
