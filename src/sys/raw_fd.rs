//! Descriptors as bare fds: for what an [`Fd`](super::fd::Fd) itself uses.

use super::{int, syscall};
use crate::errno::Errno;
use std::ffi::CStr;
use std::os::fd::RawFd;

/// The first fd above the standard streams. A program may have closed those,
/// and still write to them.
pub(super) const FIRST: RawFd = 3;

/// A duplicate above the standard streams.
#[cold]
pub(super) fn duplicate(fd: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: no pointers.
    match unsafe { syscall!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, FIRST) } {
        Ok(fd) => Ok(int(fd)),
        // The process may have no such number.
        Err(Errno::EINVAL) => Err(Errno::EMFILE),
        Err(errno) => Err(errno),
    }
}

/// Closes a descriptor.
///
/// # Safety
/// It is the caller's, who does not use it any more.
pub(super) unsafe fn close(fd: RawFd) {
    // SAFETY: this function's contract. Linux frees the fd whatever close(2)
    // returns.
    let _ = unsafe { syscall!(SYS_close, fd) };
}

/// How a file begins; short, if it is one of the kernel's that is read at
/// once.
pub(crate) fn read_start<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path is NUL-terminated.
    let opened = unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) };
    let opened = int(opened?);
    let fd = if opened < FIRST { duplicate(opened) } else { Ok(opened) };
    // SAFETY: as many writable bytes as said.
    let read = |fd| unsafe { syscall!(SYS_read, fd, buffer.as_mut_ptr(), buffer.len()) };
    let len = fd.and_then(read);
    for fd in [Some(opened), fd.ok().filter(|fd| *fd != opened)].into_iter().flatten() {
        // SAFETY: made above, and not used any more.
        unsafe { close(fd) };
    }
    Ok(buffer.get(..len?).unwrap_or_default())
}
