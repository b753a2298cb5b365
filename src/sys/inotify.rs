//! inotify(7).

use super::fd::Fd;
use super::{int, syscall};
use crate::errno::Errno;
use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::RawFd;

pub(crate) fn create() -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_inotify_init1, libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
    Fd::made_by("inotify_init1(2)", fd)
}

/// What a watch is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    /// The file behind a descriptor, whatever its names are.
    File(RawFd),
    /// The directory that the directory behind a descriptor lies in.
    Parent(RawFd),
}

/// Watches a file, or changes what a watch of it is for; the watch's number.
pub(crate) fn watch(inotify: RawFd, of: Of, mask: u32) -> Result<i32, Errno> {
    let mut path = [0u8; 40];
    // Room for every number, and for the NUL byte behind it.
    let _ = match of {
        Of::File(fd) => write!(path.as_mut_slice(), "/proc/self/fd/{fd}"),
        Of::Parent(fd) => write!(path.as_mut_slice(), "/proc/self/fd/{fd}/.."),
    };
    // SAFETY: the path is NUL-terminated.
    let watch = unsafe { syscall!(SYS_inotify_add_watch, inotify, path.as_ptr(), mask) }?;
    Ok(int(watch))
}

/// The same, by a path of the file.
pub(crate) fn watch_path(inotify: RawFd, path: &CStr, mask: u32) -> Result<i32, Errno> {
    // SAFETY: the path is NUL-terminated.
    let watch = unsafe { syscall!(SYS_inotify_add_watch, inotify, path.as_ptr(), mask) }?;
    Ok(int(watch))
}

pub(crate) fn unwatch(inotify: RawFd, watch: i32) {
    // SAFETY: no pointers. The only failure is that the watch is gone
    // already.
    let _ = unsafe { syscall!(SYS_inotify_rm_watch, inotify, watch) };
}

/// Some of what happened; empty: nothing more.
pub(crate) fn read(inotify: RawFd, buffer: &mut [u8]) -> &[u8] {
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_read, inotify, buffer.as_mut_ptr(), buffer.len()) };
    buffer.get(..len.unwrap_or(0)).unwrap_or_default()
}

/// One event.
#[derive(Clone, Copy)]
pub(crate) struct InotifyEvent<'a> {
    pub watch: i32,
    pub mask: u32,
    /// The same in both halves of a rename.
    pub cookie: u32,
    /// Of the entry of the directory that is watched that it is about; else
    /// empty.
    pub name: &'a [u8],
}

/// Takes the first event off; it, and the rest.
pub(crate) fn split(bytes: &[u8]) -> Option<(InotifyEvent<'_>, &[u8])> {
    let (watch, rest) = bytes.split_first_chunk()?;
    let (mask, rest) = rest.split_first_chunk()?;
    let (cookie, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(u32::from_ne_bytes(*length) as usize)?;
    let event = InotifyEvent {
        watch: i32::from_ne_bytes(*watch),
        mask: u32::from_ne_bytes(*mask),
        cookie: u32::from_ne_bytes(*cookie),
        // It is filled up with NUL bytes.
        name: name.split(|byte| *byte == 0).next().unwrap_or_default(),
    };
    Some((event, rest))
}
