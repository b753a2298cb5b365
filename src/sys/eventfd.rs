//! eventfd(2).

use super::fd::Fd;
use super::kept::{Identity, RacedIdentity};
use super::syscall;
use crate::errno::Errno;
use std::os::fd::RawFd;

/// A new counter, close-on-exec and non-blocking.
pub(crate) fn create(initial: u32) -> Result<Fd, Errno> {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_eventfd2, initial, flags) };
    Fd::made_by("eventfd(2)", fd)
}

static SHARED: RacedIdentity = RacedIdentity::none();

/// Whether an fd is that of [`always_readable`].
pub(crate) fn is_always_readable(fd: RawFd) -> bool {
    let known = SHARED.get();
    known.fd() == fd && known.is_intact()
}

/// The process's one eventfd that is always readable.
///
/// An epoll set in which it is enabled wakes all its waiters. It is made at
/// first use, and again if the program has closed it, and never closed. It is
/// never read and never written to, so a forked child may use its parent's.
pub(crate) fn always_readable() -> Result<Identity, Errno> {
    let mut known = SHARED.get();
    while !known.is_intact() {
        let fresh = create(1)?;
        let shared = fresh.identity();
        match SHARED.replace(known, shared) {
            Ok(()) => {
                std::mem::forget(fresh);
                return Ok(shared);
            }
            // Another thread's; this one is closed here.
            Err(others) => known = others,
        }
    }
    Ok(known)
}
