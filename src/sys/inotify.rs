//! inotify(7).

use super::fd::Fd;
use super::{int, syscall};
use crate::errno::Errno;
use std::io::Write as _;
use std::os::fd::RawFd;

pub(crate) fn create() -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_inotify_init1, libc::IN_CLOEXEC | libc::IN_NONBLOCK) }?;
    Ok(Fd::owned(int(fd)))
}

/// Watches the file behind a descriptor, whatever its names are, or changes
/// what a watch of it is for; the watch's number.
pub(crate) fn watch(inotify: RawFd, fd: RawFd, mask: u32) -> Result<i32, Errno> {
    let mut path = [0u8; 32];
    // Room for every number, and for the NUL byte behind it.
    let _ = write!(path.as_mut_slice(), "/proc/self/fd/{fd}");
    // SAFETY: the path is NUL-terminated.
    let watch = unsafe { syscall!(SYS_inotify_add_watch, inotify, path.as_ptr(), mask) }?;
    Ok(int(watch))
}

pub(crate) fn unwatch(inotify: RawFd, watch: i32) {
    // The only failure is that the watch is gone already.
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(SYS_inotify_rm_watch, inotify, watch) };
}

/// Some of what happened; empty: nothing more.
pub(crate) fn read(inotify: RawFd, buffer: &mut [u8]) -> &[u8] {
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_read, inotify, buffer.as_mut_ptr(), buffer.len()) };
    buffer.get(..len.unwrap_or(0)).unwrap_or_default()
}

/// Takes the first event off: its watch, its bits, and the rest.
pub(crate) fn split(bytes: &[u8]) -> Option<(i32, u32, &[u8])> {
    let (watch, rest) = bytes.split_first_chunk()?;
    let (mask, rest) = rest.split_first_chunk()?;
    let (_cookie, rest) = rest.split_first_chunk::<4>()?;
    let (name, rest) = rest.split_first_chunk()?;
    let rest = rest.get(u32::from_ne_bytes(*name) as usize..)?;
    Some((i32::from_ne_bytes(*watch), u32::from_ne_bytes(*mask), rest))
}
