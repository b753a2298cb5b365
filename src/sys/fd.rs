//! Descriptors: owned or borrowed, and their flags.

use super::kept::{Identity, SharedIdentity};
use super::raw_fd::{self, FIRST};
use super::{int, syscall};
use crate::errno::{Errno, refused};
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

    /// What a system call has made, to be kept: the library's own, never one
    /// of the standard streams, and only closed if its fd still is it.
    pub fn made(raw: usize) -> Result<Self, Errno> {
        if let Ok(raw @ FIRST..) = RawFd::try_from(raw) {
            return Self::marked(raw);
        }
        let fd = Self::brief(raw)?;
        fd.set_borrowed();
        Self::marked(fd.raw)
    }

    fn marked(raw: RawFd) -> Result<Self, Errno> {
        match Identity::mark(raw) {
            Ok(identity) => Ok(Self::new(raw, true, identity)),
            Err(errno) => {
                drop(Self::owned(raw));
                Err(errno)
            }
        }
    }

    /// The same; an error of it names the call.
    #[inline]
    pub fn made_by(call: &'static str, result: Result<usize, Errno>) -> Result<Self, Errno> {
        match result {
            Ok(raw) => Self::made(raw),
            Err(errno) => Err(refused(call, errno)),
        }
    }

    /// One that is closed by the call that has made it. It is no standard
    /// stream, but not marked.
    #[inline]
    pub fn brief(raw: usize) -> Result<Self, Errno> {
        let fd = Self::owned(int(raw));
        Ok(above_streams(fd.raw)?.unwrap_or(fd))
    }

    /// Whatever file has the fd then is closed when this is dropped.
    pub fn owned(raw: RawFd) -> Self {
        Self::new(raw, true, Identity::none())
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

    /// Whether the fd still is the descriptor that was made, as far as that
    /// can be known.
    pub fn is_intact(&self) -> bool {
        let identity = self.identity();
        identity == Identity::none() || identity.is_intact()
    }

    /// Whether an fd is this descriptor.
    pub fn is(&self, fd: RawFd) -> bool {
        self.raw == fd && self.is_intact()
    }

    /// The number, if it is intact as far as that can be known: asked before
    /// it is changed or read from. See [`SharedIdentity::check`].
    #[inline(always)]
    pub fn check(&self) -> Option<RawFd> {
        (self.identity.is_known() || self.ask()).then_some(self.raw)
    }

    #[cold]
    fn ask(&self) -> bool {
        self.identity() == Identity::none() || self.identity.check().is_some()
    }

    /// From now on dropping it closes the descriptor.
    pub fn set_owned(&self) {
        self.owned.store(true, Ordering::Relaxed);
    }

    /// From now on dropping it does not close the descriptor.
    pub fn set_borrowed(&self) {
        self.owned.store(false, Ordering::Relaxed);
    }

    /// Closes it without dropping it, for an object whose memory must stay;
    /// it must not be used or dropped afterwards.
    pub fn close_now(&self) {
        if self.owned.load(Ordering::Relaxed) && self.is_intact() {
            // SAFETY: the descriptor is ours, and this is its last use.
            unsafe { raw_fd::close(self.raw) };
        }
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        self.close_now();
    }
}

/// Whether an fd is open.
pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only looks.
    unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFD) }.is_ok()
}

/// All descriptors that the process can open are below this.
pub(crate) fn limit() -> RawFd {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for the limit; none is set.
    let _ = unsafe { syscall!(SYS_prlimit64, 0, libc::RLIMIT_NOFILE, 0, &raw mut limit) };
    RawFd::try_from(limit.rlim_cur).unwrap_or(RawFd::MAX)
}

/// A duplicate above the standard streams, of a descriptor that has the fd of
/// one of them; `None`: it has not.
#[inline]
pub(crate) fn above_streams(fd: RawFd) -> Result<Option<Fd>, Errno> {
    if fd >= FIRST { Ok(None) } else { duplicate(fd).map(Some) }
}

fn duplicate(fd: RawFd) -> Result<Fd, Errno> {
    raw_fd::duplicate(fd).map(Fd::owned)
}

/// A duplicate of a descriptor that can be written to.
pub(crate) fn duplicate_to_write(fd: RawFd) -> Result<Fd, Errno> {
    // SAFETY: F_GETFL only looks.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }?;
    if int(flags) & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(Errno::EBADF);
    }
    duplicate(fd)
}

/// Makes `target` a duplicate of a descriptor, whatever it was before.
pub(crate) fn replace(fd: &Fd, target: RawFd) -> Result<(), Errno> {
    // SAFETY: the caller gives up what `target` was.
    unsafe { syscall!(SYS_dup3, fd.raw(), target, libc::O_CLOEXEC) }.map(drop)
}

/// Whether two fds are known to be duplicates of one descriptor.
pub(crate) fn are_one(one: RawFd, other: RawFd) -> bool {
    const KCMP_FILE: i32 = 0;
    let me = std::process::id();
    // SAFETY: no pointers.
    let order = unsafe { syscall!(SYS_kcmp, me, me, KCMP_FILE, one, other) };
    one == other || order == Ok(0)
}

/// Whether the descriptor has O_NONBLOCK.
pub(crate) fn is_nonblocking(fd: RawFd) -> Result<bool, Errno> {
    // SAFETY: F_GETFL only looks.
    let flags = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }?;
    Ok(int(flags) & libc::O_NONBLOCK != 0)
}
