//! eventfd(2).

use super::fd::Fd;
use super::{int, syscall};
use crate::errno::Errno;
use once_cell::race::OnceNonZeroUsize;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;

/// A new counter, close-on-exec and non-blocking.
pub(crate) fn create(initial: u32) -> Result<Fd, Errno> {
    let flags = libc::EFD_CLOEXEC | libc::EFD_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_eventfd2, initial, flags) }?;
    Ok(Fd::owned(int(fd)))
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

/// The process's one eventfd that is always readable.
///
/// An epoll set in which it is enabled wakes all its waiters. It is made at
/// first use and never closed; nobody reads it, so a forked child shares it
/// without harm.
pub(crate) fn always_readable() -> Result<RawFd, Errno> {
    // Raced, not locked: a fork in the middle must not leave a lock behind.
    static SHARED: OnceNonZeroUsize = OnceNonZeroUsize::new();
    let mut made = None;
    let shared = SHARED.get_or_try_init(|| {
        let raw = made.insert(create(1)?).raw();
        // Never zero: shifted by one.
        Ok(usize::try_from(raw)
            .map_or(NonZeroUsize::MIN, |raw| NonZeroUsize::MIN.saturating_add(raw)))
    })?;
    let raw = int(shared.get() - 1);
    if let Some(fd) = made
        && fd.raw() == raw
    {
        // Ours won the race; a loser's is closed here.
        std::mem::forget(fd);
    }
    Ok(raw)
}
