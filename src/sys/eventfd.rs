//! eventfd(2).

use super::fd::Fd;
use super::kept::Identity;
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

// Raced, not locked: a fork in the middle must not leave a lock behind.
static SHARED: AtomicU64 = AtomicU64::new(Identity::none().pack());

/// Whether a number is that of [`always_readable`].
pub(crate) fn is_always_readable(fd: RawFd) -> bool {
    let known = Identity::unpack(SHARED.load(Ordering::Relaxed));
    known.fd() == fd && known.is_intact()
}

/// The process's one eventfd that is always readable.
///
/// An epoll set in which it is enabled wakes all its waiters. It is made at
/// first use, and again if the program has closed it, and never closed. It is
/// never read and never written to, so a forked child may use its parent's.
pub(crate) fn always_readable() -> Result<Identity, Errno> {
    let mut seen = SHARED.load(Ordering::Relaxed);
    loop {
        let known = Identity::unpack(seen);
        if known.is_intact() {
            return Ok(known);
        }
        let fresh = create(1)?;
        let shared = fresh.identity().pack();
        match SHARED.compare_exchange(seen, shared, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                std::mem::forget(fresh);
                return Ok(Identity::unpack(shared));
            }
            // Another thread's; ours is closed here.
            Err(others) => seen = others,
        }
    }
}
