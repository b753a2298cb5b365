//! Waking the threads that wait in an epoll.
//!
//! The epoll has an eventfd in it that is always readable, and that it is
//! asked for nothing about. Asking for its readability, by edges, reports it
//! once. Unlike a write(2) this changes no file: where another file has
//! one of the fds by now, there is no such registration to be changed.

use crate::errno::Errno;
use crate::in_use::InUse;
use crate::sync::{AtomicI32, Ordering::*};
use crate::sys::kept::{Identity, SharedIdentity};
use crate::sys::{epoll, eventfd};
use std::os::fd::RawFd;

const EDGE: u32 = (libc::EPOLLIN | libc::EPOLLET) as u32;

/// Registers what an epoll is woken by; its event has this word.
pub(crate) fn register(epoll: RawFd, source: RawFd, word: u64) -> Result<(), Errno> {
    epoll::add(epoll, source, 0, word)
}

/// Wakes those that wait in an epoll, which is known to be intact.
pub(crate) fn wake(epoll: RawFd, source: RawFd, word: u64) -> Result<(), Errno> {
    epoll::modify(epoll, source, EDGE, word)
}

/// What makes an epoll readable, and wakes all that wait in it, for as long as
/// it is wanted.
pub(crate) struct Alarm(Identity);

impl Alarm {
    /// Registers the process's one always readable eventfd.
    pub fn shared(epoll: RawFd, word: u64) -> Result<Self, Errno> {
        Self::new(epoll, eventfd::always_readable()?, word)
    }

    /// Registers one that is always readable.
    pub fn new(epoll: RawFd, eventfd: Identity, word: u64) -> Result<Self, Errno> {
        register(epoll, eventfd.fd(), word)?;
        Ok(Self(eventfd))
    }

    /// Turns it on or off. If the program has closed the eventfd, the process's
    /// one takes its place.
    pub fn set(&mut self, epoll: RawFd, on: bool, word: u64) -> Result<(), Errno> {
        let events = if on { libc::EPOLLIN as u32 } else { 0 };
        if !self.0.is_intact() {
            self.0 = eventfd::always_readable()?;
        }
        match epoll::modify(epoll, self.0.fd(), events, word) {
            Err(Errno::ENOENT) => epoll::add(epoll, self.0.fd(), events, word),
            result => result,
        }
    }

    /// Whether a descriptor is what it is made of.
    pub fn is(&self, fd: RawFd) -> bool {
        self.0.fd() == fd && self.0.is_intact()
    }

    pub fn remove(&self, epoll: RawFd) {
        if self.0.is_intact() {
            // What fails here: the epoll was closed.
            let _ = epoll::delete(epoll, self.0.fd());
        }
    }
}

/// An epoll that other threads wake, and signal handlers, while it may be
/// replaced or closed.
pub(crate) struct Wakeup {
    epoll: SharedIdentity,
    source: AtomicI32,
    /// Those that are waking it.
    waking: InUse,
}

impl Wakeup {
    pub const fn new() -> Self {
        Self {
            epoll: SharedIdentity::of(Identity::none()),
            source: AtomicI32::new(-1),
            waking: InUse::new(),
        }
    }

    /// Wakes those that wait, if any can. EBADF: the program has closed a
    /// descriptor, which may be another file by now.
    pub fn wake(&self, word: u64) -> Result<(), Errno> {
        self.waking.enter();
        let woken = match self.epoll.check() {
            Some(epoll) => wake(epoll, self.source.load(Relaxed), word),
            // As long as this is in use it is not aimed at another one.
            None if self.epoll.get() == Identity::none() => Ok(()),
            None => Err(Errno::EBADF),
        };
        self.waking.leave();
        woken.map_err(|_| Errno::EBADF)
    }

    /// Has another epoll woken from now on; no thread is waking the one before
    /// any more. A thread that still finds that one may find the new source:
    /// it is the same as long as threads wait.
    pub fn aim(&self, epoll: Identity, source: RawFd) {
        self.source.store(source, Relaxed);
        self.replace(epoll);
    }

    /// No thread waits any more.
    pub fn stop(&self) {
        self.replace(Identity::none());
    }

    /// The program has closed the epoll: waking it fails.
    pub fn lose(&self) {
        self.replace(Identity::lost());
    }

    fn replace(&self, epoll: Identity) {
        self.epoll.set(epoll);
        self.waking.wait();
    }

    /// In a forked child: those that were waking it are not there.
    pub fn after_fork(&self) {
        self.waking.forget();
    }

    /// Whether the epoll is intact, and there is one: see
    /// [`SharedIdentity::check`].
    #[inline]
    pub fn is_intact(&self) -> bool {
        self.epoll.check().is_some()
    }
}
