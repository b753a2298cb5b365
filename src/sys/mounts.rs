//! Mounts, as /proc/self/mountinfo has them.

use super::fd::Fd;
use super::syscall;
use crate::errno::Errno;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The table of the mounts of this thread's mount namespace. The kernel reports
/// every change of it to an epoll.
pub(crate) fn open() -> Result<Fd, Errno> {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let path = c"/proc/self/mountinfo";
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) };
    match fd {
        Ok(fd) => Fd::made(fd),
        Err(Errno::ENOENT) => Err(Errno::ENOTSUP),
        Err(errno) => Err(errno),
    }
}

/// All of the table, as text.
pub(crate) fn read(table: RawFd) -> Result<Vec<u8>, Errno> {
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_lseek, table, 0, libc::SEEK_SET) }?;
    let mut text = Vec::new();
    loop {
        const PIECE: usize = 16 << 10;
        text.try_reserve(PIECE).map_err(|_| Errno::ENOMEM)?;
        let buffer = text.spare_capacity_mut();
        // SAFETY: as many writable bytes as said.
        match unsafe { syscall!(SYS_read, table, buffer.as_mut_ptr(), buffer.len()) }? {
            0 => return Ok(text),
            // SAFETY: the kernel wrote so many.
            len => unsafe { text.set_len(text.len() + len) },
        }
    }
}

/// The number of the mount that a descriptor's file was opened through.
pub(crate) fn of(fd: RawFd) -> Option<u64> {
    let mut statx = MaybeUninit::<libc::statx>::zeroed();
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_MNT_ID);
    // SAFETY: an empty path, and room for what the kernel fills in.
    unsafe { syscall!(SYS_statx, fd, c"".as_ptr(), flags, mask, statx.as_mut_ptr()) }.ok()?;
    // SAFETY: filled in, or zero: any bytes are good for it.
    let statx = unsafe { statx.assume_init() };
    (statx.stx_mask & libc::STATX_MNT_ID != 0).then_some(statx.stx_mnt_id)
}
