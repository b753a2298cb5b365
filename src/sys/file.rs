//! What files and pipes say of themselves.

use super::{int, syscall};
use crate::errno::Errno;
use std::ffi::c_int;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

pub(crate) fn stat(fd: RawFd) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: room for what the kernel fills in.
    unsafe { syscall!(SYS_fstat, fd, stat.as_mut_ptr()) }?;
    // SAFETY: it was filled in.
    Ok(unsafe { stat.assume_init() })
}

/// Where the next read begins.
pub(crate) fn position(fd: RawFd) -> Result<i64, Errno> {
    // SAFETY: no pointers; nothing is moved.
    let position = unsafe { syscall!(SYS_lseek, fd, 0, libc::SEEK_CUR) }?;
    Ok(i64::try_from(position).unwrap_or(i64::MAX))
}

/// How many bytes can be read, as the kind of file has it.
pub(crate) fn readable(fd: RawFd) -> Result<i64, Errno> {
    ask(fd, libc::FIONREAD)
}

/// How many bytes a terminal has yet to send.
pub(crate) fn unsent(fd: RawFd) -> Result<i64, Errno> {
    ask(fd, libc::TIOCOUTQ)
}

fn ask(fd: RawFd, request: libc::c_ulong) -> Result<i64, Errno> {
    let mut count: c_int = 0;
    // SAFETY: these requests write one int.
    unsafe { syscall!(SYS_ioctl, fd, request, &raw mut count) }?;
    Ok(count.into())
}

/// How many bytes a pipe takes when it is empty.
pub(crate) fn pipe_size(fd: RawFd) -> Result<i64, Errno> {
    // SAFETY: no pointers.
    let size = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETPIPE_SZ) }?;
    Ok(int(size).into())
}

/// The type of the file system that it is on.
pub(crate) fn file_system(fd: RawFd) -> Result<i64, Errno> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: room for what the kernel fills in.
    unsafe { syscall!(SYS_fstatfs, fd, stat.as_mut_ptr()) }?;
    // SAFETY: it was filled in.
    Ok(unsafe { stat.assume_init() }.f_type)
}

/// The beginning of what /proc calls the file, as the kernel prints it.
pub(crate) fn name(fd: RawFd, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    let mut path = [0u8; 32];
    // Room for every number, and for the NUL byte behind it.
    let _ = write!(path.as_mut_slice(), "/proc/self/fd/{fd}");
    let (at, path, len) = (libc::AT_FDCWD, path.as_ptr(), buffer.len());
    // SAFETY: the path is NUL-terminated, as many writable bytes as said.
    let len = unsafe { syscall!(SYS_readlinkat, at, path, buffer.as_mut_ptr(), len) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}
