//! What the kernel watches for a queue.
//!
//! `main` has everything; it lies in the queue's public epoll, and can be
//! replaced. A descriptor has up to three kinds of registration: one that is
//! reported as long as it is ready, and one each for the edges of reading
//! and of writing. An epoll takes a descriptor once, so that the first kind
//! is in `main`, and others are in epolls of their own that lie in it. So no
//! kind's edges come again because another kind was changed.

use crate::errno::Errno;
use crate::sys::epoll::{self, Event};
use crate::sys::eventfd;
use crate::sys::fd::Fd;
use std::os::fd::RawFd;

/// The kinds of registration.
pub(super) const LEVEL: usize = 0;
pub(super) const READ_EDGE: usize = 1;
pub(super) const WRITE_EDGE: usize = 2;
pub(super) const KINDS: usize = 3;

pub(super) const ET: u32 = libc::EPOLLET as u32;
pub(super) const IN: u32 = libc::EPOLLIN as u32;
pub(super) const OUT: u32 = libc::EPOLLOUT as u32;
pub(super) const RDHUP: u32 = libc::EPOLLRDHUP as u32;
pub(super) const HUP: u32 = libc::EPOLLHUP as u32;
pub(super) const ERR: u32 = libc::EPOLLERR as u32;
/// Reported once, then never again.
pub(super) const PARKED: u32 = libc::EPOLLONESHOT as u32;

/// A word of the queue's own, and not a descriptor's.
const OWN: u64 = 1 << 63;
const BELL: u64 = OWN;
const NESTED: u64 = OWN | 1 << 8;
const TIMER: u64 = OWN | 2 << 8;
const ALARM: u64 = OWN | 3 << 8;

const AIO: u64 = OWN | 7 << 8;

/// What an event is about.
pub(super) enum Source {
    /// A descriptor's record, and its generation.
    Registration(u32, u32),
    /// There are knotes with events.
    Bell,
    /// The epoll of this kind of registration.
    Nested(usize),
    /// The timer of this clock has expired.
    Timer(usize),
    /// An operation is done.
    Aio,
    /// All are to look again.
    Alarm,
}

pub(super) fn source(event: &Event) -> Source {
    let word = event.u64;
    match word & !0xff {
        BELL => Source::Bell,
        NESTED => Source::Nested((word & 0xff) as usize),
        TIMER => Source::Timer((word & 0xff) as usize),
        AIO => Source::Aio,
        ALARM => Source::Alarm,
        _ => Source::Registration(word as u32, (word >> 32) as u32),
    }
}

/// The word of a descriptor's registration.
pub(super) fn word(registration: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(registration)
}

pub(super) struct Set {
    main: Fd,
    nested: [Option<Fd>; KINDS],
    /// Always readable; it rings by being asked for in `main`.
    bell: Option<Fd>,
    rung: bool,
}

/// How the kernel has one kind of a descriptor's registration; 0: not at all.
pub(super) type Masks = [u32; KINDS];

impl Set {
    pub fn new() -> Result<Self, Errno> {
        let nested = [const { None }; KINDS];
        Ok(Self { main: epoll::create()?, nested, bell: None, rung: false })
    }

    pub fn main(&self) -> RawFd {
        self.main.raw()
    }

    pub fn nested(&self, kind: usize) -> Option<RawFd> {
        self.nested.get(kind)?.as_ref().map(Fd::raw)
    }

    /// The epoll for a kind of registration that cannot be in `main`.
    fn nested_or_new(&mut self, kind: usize) -> Result<RawFd, Errno> {
        let Some(place) = self.nested.get_mut(kind) else { return Err(Errno::EINVAL) };
        if let Some(fd) = place {
            return Ok(fd.raw());
        }
        let fresh = epoll::create()?;
        epoll::add(self.main.raw(), fresh.raw(), IN, NESTED | kind as u64)?;
        Ok(place.insert(fresh).raw())
    }

    /// Registers a descriptor, or changes how it is registered.
    pub fn set(&mut self, at: Place, fd: RawFd, from: u32, to: u32) -> Result<(), Errno> {
        let epoll = match at.in_main {
            true => self.main(),
            false => self.nested_or_new(at.kind)?,
        };
        match (from, to) {
            (0, 0) => Ok(()),
            (0, _) => epoll::add(epoll, fd, to, at.word),
            (_, 0) => epoll::delete(epoll, fd),
            (_, _) => epoll::modify(epoll, fd, to, at.word),
        }
    }

    /// Whether a descriptor is the one that is registered there. Unlike a
    /// change, this does not make an edge come again.
    pub fn probe(&mut self, at: Place, fd: RawFd) -> Result<(), Errno> {
        let epoll = match at.in_main {
            true => self.main(),
            false => self.nested_or_new(at.kind)?,
        };
        match epoll::add(epoll, fd, PARKED, at.word) {
            Err(Errno::EEXIST) => Ok(()),
            Ok(()) => {
                epoll::delete(epoll, fd)?;
                Err(Errno::ENOENT)
            }
            // It is none that an epoll takes, or that there is.
            Err(Errno::EBADF) => Err(Errno::EBADF),
            Err(_) => Err(Errno::ENOENT),
        }
    }

    pub fn add_timer(&self, clock: u8, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN | ET, TIMER | u64::from(clock))
    }

    pub fn add_aio(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, AIO)
    }

    /// Makes the queue readable, and wakes a thread that waits; until it is
    /// silenced, or one thread was told.
    pub fn ring(&mut self) -> Result<(), Errno> {
        if self.rung {
            return Ok(());
        }
        match &self.bell {
            Some(bell) => epoll::modify(self.main.raw(), bell.raw(), IN | ET, BELL)?,
            None => {
                let bell = eventfd::create(1)?;
                epoll::add(self.main.raw(), bell.raw(), IN | ET, BELL)?;
                self.bell = Some(bell);
            }
        }
        self.rung = true;
        Ok(())
    }

    pub fn silence(&mut self) {
        if let Some(bell) = self.bell.as_ref().filter(|_| self.rung) {
            // It is registered, so that this needs nothing that could fail.
            let _ = epoll::modify(self.main.raw(), bell.raw(), 0, BELL);
            self.rung = false;
        }
    }

    /// Wakes all threads that wait, now and from now on; `other`: a
    /// descriptor that is always readable, for a set without a bell.
    pub fn alarm(&self, other: RawFd) {
        // Nothing that can fail where `main` is open.
        let _ = match &self.bell {
            Some(bell) => epoll::modify(self.main.raw(), bell.raw(), IN, ALARM),
            None => epoll::add(self.main.raw(), other, IN, ALARM),
        };
    }

    /// The kernel told somebody, and will tell nobody else.
    pub fn was_heard(&mut self) {
        self.rung = false;
    }
}

/// Where a kind of a descriptor's registration is, and its word.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub kind: usize,
    pub in_main: bool,
    pub word: u64,
}
