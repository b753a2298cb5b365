//! Paths, as bytes.

use super::types::WatchRoot;
use crate::errno::Errno;
use crate::sys::directory;
use crate::util::alloc::{TryVec, TryVecCopy, try_concat};
use std::ffi::CStr;
use std::os::fd::RawFd;

/// The path of what is to be watched, whatever the current directory will be.
pub(super) fn absolute(root: WatchRoot<'_>) -> Result<Box<[u8]>, Errno> {
    // Not on the stack, of which a call takes little.
    let mut buffer = Vec::new();
    let mut number = [0u8; 32];
    let (before, path) = match root {
        WatchRoot::Path(path) if path.starts_with(b"/") => (&[][..], path),
        WatchRoot::Path(b"") => return Err(Errno::ENOENT),
        WatchRoot::Path(path) => {
            buffer.try_lengthen(libc::PATH_MAX as usize, 0)?;
            (directory::current(&mut buffer)?, path)
        }
        WatchRoot::Descriptor(fd) => (&[][..], proc_path(fd, &mut number)),
    };
    let before = before.split(|byte| *byte == 0).next().unwrap_or_default();
    join(before, path)
}

fn proc_path(fd: RawFd, buffer: &mut [u8; 32]) -> &[u8] {
    use std::io::Write as _;
    let mut rest = &mut buffer[..];
    // Room for every number.
    let _ = write!(rest, "/proc/self/fd/{fd}");
    let left = rest.len();
    buffer.get(..32 - left).unwrap_or_default()
}

/// A path below another one; either may be empty.
pub(super) fn join(above: &[u8], below: &[u8]) -> Result<Box<[u8]>, Errno> {
    let between: &[u8] = if above.is_empty() || below.is_empty() { b"" } else { b"/" };
    try_concat([above, between, below].into_iter()).ok_or(Errno::ENOMEM)
}

/// The same bytes with a NUL byte behind them.
pub(super) fn terminated(bytes: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len() + 1).map_err(|_| Errno::ENOMEM)?;
    copy.try_copy_from(bytes)?;
    copy.push_reserved(0);
    Ok(copy)
}

pub(super) fn c_str(terminated: &[u8]) -> Result<&CStr, Errno> {
    CStr::from_bytes_with_nul(terminated).map_err(|_| Errno::ENOENT)
}
