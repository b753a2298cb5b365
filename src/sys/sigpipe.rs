//! Writing without SIGPIPE.

use super::signal;
use super::syscall;
use crate::errno::Errno;
use crate::sys::signal::Mask;
use std::os::fd::RawFd;
use std::ptr;

/// Writes all of it, without SIGPIPE where there is no reader. If the
/// descriptor does not block and is full: EAGAIN; some bytes may be written by
/// then.
pub(crate) fn write_all(fd: RawFd, mut bytes: &[u8]) -> Result<(), Errno> {
    let pipe = signal::bit(libc::SIGPIPE);
    let before = signal::block(signal::blocked() | pipe);
    let was_pending = pending() & pipe != 0;
    let mut result = Ok(());
    while !bytes.is_empty() && result.is_ok() {
        // SAFETY: as many readable bytes as said.
        match unsafe { syscall!(SYS_write, fd, bytes.as_ptr(), bytes.len()) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(errno) => result = Err(errno),
        }
    }
    if result == Err(Errno::EPIPE) && !was_pending {
        take(pipe);
    }
    signal::block(before);
    result
}

/// The signals that are blocked and pending, for this thread or the process.
fn pending() -> Mask {
    let mut mask: Mask = 0;
    // SAFETY: the mask is writable, and of the size said. It cannot fail.
    let _ = unsafe { syscall!(SYS_rt_sigpending, &raw mut mask, size_of::<Mask>()) };
    mask
}

/// Takes a signal that is pending for this thread, if one is.
fn take(mask: Mask) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let (info, size) = (ptr::null_mut::<libc::siginfo_t>(), size_of::<Mask>());
    // SAFETY: the mask and the time are valid; no information is asked for.
    let _ = unsafe { syscall!(SYS_rt_sigtimedwait, &raw const mask, info, &raw const now, size) };
}
