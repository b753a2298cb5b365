//! ppoll(2).

use super::{clock, syscall};
use crate::errno::Errno;
use std::ptr;

/// The events that are reported whether asked for or not.
pub(crate) const ALWAYS_REPORTED: u32 = (libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) as u32;

/// An entry of [`ppoll`]'s array; only the low 16 bits of `events` exist.
pub(crate) fn entry(fd: i32, events: u32) -> libc::pollfd {
    libc::pollfd { fd, events: (events & 0xffff) as u16 as i16, revents: 0 }
}

/// What the kernel said about an entry.
pub(crate) fn revents(entry: &libc::pollfd) -> u32 {
    u32::from(entry.revents as u16)
}

/// Waits; how many entries have `revents`. `None` waits for ever.
pub(crate) fn ppoll(fds: &mut [libc::pollfd], timeout_ns: Option<i64>) -> Result<usize, Errno> {
    let mut timeout = timeout_ns.map(clock::to_timespec);
    let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    // SAFETY: the array has as many entries as said, the timeout is valid or
    // NULL (the kernel may write what is left to it), no signal mask.
    unsafe { syscall!(SYS_ppoll, fds.as_mut_ptr(), fds.len(), timeout, 0, 0) }
}

/// Looks without waiting. (ppoll(2) says EINTR even then.)
pub(crate) fn look(fds: &mut [libc::pollfd]) -> Result<usize, Errno> {
    loop {
        match ppoll(fds, Some(0)) {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
