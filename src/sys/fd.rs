//! Descriptors: owned or borrowed, and their flags.

use super::kept::{Identity, SharedIdentity};
use super::{int, syscall};
use crate::errno::Errno;
use crate::sync::{AtomicBool, Ordering};
use std::os::fd::RawFd;

/// A descriptor that is closed when it is dropped, if it is ours.
#[derive(Debug)]
pub(crate) struct Fd {
    raw: RawFd,
    owned: AtomicBool,
    /// Of one that is kept.
    identity: SharedIdentity,
}

impl Fd {
    fn new(raw: RawFd, owned: bool, identity: Identity) -> Self {
        Self { raw, owned: AtomicBool::new(owned), identity: SharedIdentity::of(identity) }
    }

    /// One that is not kept for long: what has its number is closed.
    pub fn owned(raw: RawFd) -> Self {
        Self::new(raw, true, Identity::none())
    }

    /// A new one that is kept: it is closed if its number still is it.
    pub fn kept(raw: RawFd) -> Result<Self, Errno> {
        match Identity::mark(raw) {
            Ok(identity) => Ok(Self::new(raw, true, identity)),
            Err(errno) => {
                drop(Self::owned(raw));
                Err(errno)
            }
        }
    }

    pub fn borrowed(raw: RawFd) -> Self {
        Self::new(raw, false, Identity::none())
    }

    pub fn raw(&self) -> RawFd {
        self.raw
    }

    /// Of one that is kept; else none.
    pub fn identity(&self) -> Identity {
        self.identity.get()
    }

    /// Whether the number still is the descriptor that was made, as far as
    /// that can be known.
    pub fn is_intact(&self) -> bool {
        self.identity() == Identity::none() || self.identity().is_intact()
    }

    /// The number, if it is intact as far as that can be known: asked before
    /// it is changed or read from. See [`SharedIdentity::check`].
    #[inline]
    pub fn check(&self) -> Option<RawFd> {
        if self.identity() == Identity::none() { Some(self.raw) } else { self.identity.check() }
    }

    /// From now on dropping it closes the descriptor.
    pub fn own(&self) {
        self.owned.store(true, Ordering::Relaxed);
    }

    /// From now on dropping it does not close the descriptor.
    pub fn disown(&self) {
        self.owned.store(false, Ordering::Relaxed);
    }

    /// Closes it without dropping it, for an object whose memory must stay;
    /// it must not be used or dropped afterwards.
    pub fn abandon(&self) {
        if self.owned.load(Ordering::Relaxed) && self.is_intact() {
            // SAFETY: the descriptor is ours, and this is its last use. Linux
            // frees the number whatever close(2) returns.
            let _ = unsafe { syscall!(SYS_close, self.raw) };
        }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Whether a number is an open descriptor.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only looks.
    unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFD) }.is_ok()
}

/// A duplicate of a descriptor that can be written to.
pub(crate) fn duplicate_to_write(fd: RawFd) -> Result<Fd, Errno> {
    // SAFETY: F_GETFL only looks.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }?;
    if int(flags) & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(Errno::EBADF);
    }
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, 0) }?;
    Ok(Fd::owned(int(fd)))
}

/// Has a number be a duplicate of a descriptor, whatever it was.
pub(crate) fn replace(fd: &Fd, number: RawFd) -> Result<(), Errno> {
    // SAFETY: the caller gives the number up.
    unsafe { syscall!(SYS_dup3, fd.raw(), number, libc::O_CLOEXEC) }.map(drop)
}

/// Whether the descriptor has O_NONBLOCK.
pub(crate) fn is_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    // SAFETY: F_GETFL only looks.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }?;
    Ok(int(flags) & libc::O_NONBLOCK != 0)
}
