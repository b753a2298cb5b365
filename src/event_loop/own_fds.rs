//! Which descriptors the library has made for a loop: these are not the
//! program's to watch. Any thread may ask.
//!
//! A program only has such an fd by guessing, or from /proc. Added as an
//! io watcher's, the descriptor would be taken out of the loop's epoll when
//! that watcher is closed.

use crate::errno::{Result, fail};
use crate::sync::{AtomicU32, AtomicU64, ForkMutex, Ordering::Relaxed};
use crate::sys::fd::Fd;
use crate::sys::kept::Identity;
use crate::util::alloc::TryVec;
use std::ops::Deref;
use std::os::fd::RawFd;

/// What a loop has one of, at most; clocks come last.
#[derive(Clone, Copy)]
pub(super) enum OwnFd {
    Epoll,
    /// What evloop_fileno returns.
    Outer,
    Eventfd,
    Signalfd,
    Inotify,
    Trace,
    Clock(usize),
}

const OUTER: usize = 1;
const FIRST_CLOCK: usize = 6;
const COUNT: usize = FIRST_CLOCK + super::own_words::CLOCKS;
const NONE: u64 = Identity::none().pack();

/// A descriptor that is not used any more. `is_ours`: this process has made
/// it; else the child may have closed it, and use its fd for another file.
pub(super) fn give_up(fd: Option<Fd>, is_ours: bool) {
    if !is_ours {
        std::mem::forget(fd);
    }
}

pub(super) struct OwnFds {
    /// Identities, packed.
    fds: [AtomicU64; COUNT],
    /// Those that watchers have, of processes for example, and whether they
    /// are in no epoll.
    of_watchers: ForkMutex<Vec<(RawFd, bool)>>,
    /// How many of these are in no epoll, so that the kernel would take them
    /// for the program's.
    unregistered: AtomicU32,
}

impl OwnFds {
    pub fn new() -> Self {
        let fds = [const { AtomicU64::new(NONE) }; COUNT];
        Self { fds, of_watchers: ForkMutex::new(Vec::new()), unregistered: AtomicU32::new(0) }
    }

    /// It has just been made; -1: there is none.
    pub fn set(&self, which: OwnFd, fd: RawFd) {
        let index = match which {
            OwnFd::Epoll => 0,
            OwnFd::Outer => OUTER,
            OwnFd::Eventfd => 2,
            OwnFd::Signalfd => 3,
            OwnFd::Inotify => 4,
            OwnFd::Trace => 5,
            OwnFd::Clock(clock) => FIRST_CLOCK + clock,
        };
        if let Some(index) = self.fds.get(index) {
            index.store(if fd < 0 { NONE } else { Identity::newest(fd).pack() }, Relaxed);
        }
    }

    /// The loop is closed, and they are.
    pub fn clear(&self) {
        self.fds.iter().for_each(|fd| fd.store(NONE, Relaxed));
    }

    /// Whether this is one of the loop's, or of its watchers'.
    pub fn has(&self, fd: RawFd) -> bool {
        self.fds.iter().any(|own| Identity::unpack(own.load(Relaxed)).fd() == fd)
            || self.of_watchers.lock().iter().any(|(own, _)| *own == fd)
    }

    /// Whether this still is one that no program was lent.
    pub fn keeps(&self, fd: RawFd) -> bool {
        let kept = self.fds.iter().enumerate().filter(|(index, _)| *index != OUTER);
        kept.map(|(_, own)| Identity::unpack(own.load(Relaxed)))
            .any(|own| own.fd() == fd && own.is_intact())
    }

    /// The same as `has`, of those that the kernel does not refuse by itself.
    #[inline]
    pub fn has_unregistered(&self, fd: RawFd) -> bool {
        self.unregistered.load(Relaxed) > 0 && self.of_watchers.lock().contains(&(fd, true))
    }

    /// In a forked child, where a thread may have been changing them.
    ///
    /// # Safety
    /// As [`ForkMutex::recover`].
    pub unsafe fn after_fork(&self) {
        let mend = |fds: Option<&mut Vec<(RawFd, bool)>>| fds.is_none().then(Vec::new);
        // SAFETY: this function's contract.
        unsafe { self.of_watchers.recover(mend) };
    }
}

/// A descriptor that a watcher has.
pub(super) struct WatcherFd {
    fd: Fd,
    own: &'static OwnFds,
    /// Whether it is in no epoll.
    unregistered: bool,
}

impl WatcherFd {
    /// One that the loop's epoll does not get.
    pub fn unregistered(fd: Fd, own: &'static OwnFds) -> Result<Self> {
        let made = Self::add(fd, own, true)?;
        own.unregistered.fetch_add(1, Relaxed);
        Ok(made)
    }

    pub fn new(fd: Fd, own: &'static OwnFds) -> Result<Self> {
        Self::add(fd, own, false)
    }

    fn add(fd: Fd, own: &'static OwnFds, unregistered: bool) -> Result<Self> {
        let mut all = own.of_watchers.lock();
        if all.try_push((fd.raw(), unregistered)).is_err() {
            fail!(ENOMEM, "no memory for a watcher");
        }
        Ok(Self { fd, own, unregistered })
    }

    /// Has another descriptor in its place; the one before is closed.
    pub fn replace(&mut self, fd: Fd) {
        let mut all = self.own.of_watchers.lock();
        if let Some((own, _)) = all.iter_mut().find(|(own, _)| *own == self.fd.raw()) {
            *own = fd.raw();
        }
        drop(all);
        self.fd = fd;
    }
}

impl Deref for WatcherFd {
    type Target = Fd;

    fn deref(&self) -> &Fd {
        &self.fd
    }
}

impl Drop for WatcherFd {
    /// Before it is closed, and another file has its fd.
    fn drop(&mut self) {
        let mut all = self.own.of_watchers.lock();
        if let Some(index) = all.iter().position(|(fd, _)| *fd == self.fd.raw()) {
            all.swap_remove(index);
        }
        if self.unregistered {
            self.own.unregistered.fetch_sub(1, Relaxed);
        }
    }
}
