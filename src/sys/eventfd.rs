//! eventfd(2).

use super::fd::Fd;
use super::fork::Epoch;
use super::syscall;
use crate::errno::Errno;
use crate::sync::{AtomicU64, Ordering};
use std::os::fd::RawFd;

/// A new counter, close-on-exec and non-blocking.
pub(crate) fn create(initial: u32) -> Result<Fd, Errno> {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_eventfd2, initial, flags) };
    Fd::made_by("eventfd(2)", fd)
}

/// Makes it readable.
pub(crate) fn signal(fd: RawFd) {
    let one = 1u64;
    // SAFETY: eight readable bytes. The only failure is a full counter
    // (EAGAIN), and then it is readable already.
    let _ = unsafe { syscall!(SYS_write, fd, &raw const one, size_of_val(&one)) };
}

/// Makes it unreadable.
pub(crate) fn clear(fd: RawFd) {
    let mut count = 0u64;
    // SAFETY: eight writable bytes. The only failure is EAGAIN: another got
    // it first.
    let _ = unsafe { syscall!(SYS_read, fd, &raw mut count, size_of_val(&count)) };
}

// Raced, not locked: a fork in the middle must not leave a lock behind.
static SHARED: AtomicU64 = AtomicU64::new(0);
const FD_BITS: u32 = 31;

fn made_in(shared: u64) -> Epoch {
    shared >> FD_BITS
}

fn raw(shared: u64) -> RawFd {
    (shared & ((1 << FD_BITS) - 1)) as RawFd
}

/// Whether a number is that of [`always_readable`].
pub(crate) fn is_always_readable(epoch: Epoch, fd: RawFd) -> bool {
    let shared = SHARED.load(Ordering::Relaxed);
    made_in(shared) == epoch && raw(shared) == fd
}

/// The process's one eventfd that is always readable.
///
/// An epoll set in which it is enabled wakes all its waiters. It is made at
/// first use and never closed. A forked child makes its own: it may have
/// closed all descriptors it inherited, and use the number for another.
pub(crate) fn always_readable(epoch: Epoch) -> Result<RawFd, Errno> {
    let seen = SHARED.load(Ordering::Relaxed);
    if made_in(seen) == epoch {
        return Ok(raw(seen));
    }
    let fresh = create(1)?;
    let shared = epoch << FD_BITS | u64::from(fresh.raw().cast_unsigned());
    match SHARED.compare_exchange(seen, shared, Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => {
            std::mem::forget(fresh);
            Ok(raw(shared))
        }
        // Another thread's; ours is closed here.
        Err(others) => Ok(raw(others)),
    }
}
