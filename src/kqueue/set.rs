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
use crate::sys::kept::Identity;
use crate::wakeup;
use std::os::fd::RawFd;

/// The kinds of registration.
pub(super) const LEVEL: usize = 0;
pub(super) const READ_EDGE: usize = 1;
pub(super) const WRITE_EDGE: usize = 2;
pub(super) const KINDS: usize = 3;

pub(super) const ET: u32 = libc::EPOLLET as u32;
pub(super) const IN: u32 = libc::EPOLLIN as u32;
pub(super) const PRI: u32 = libc::EPOLLPRI as u32;
pub(super) const OUT: u32 = libc::EPOLLOUT as u32;
pub(super) const RDHUP: u32 = libc::EPOLLRDHUP as u32;
pub(super) const HUP: u32 = libc::EPOLLHUP as u32;
pub(super) const ERR: u32 = libc::EPOLLERR as u32;
/// Reported once, then never again.
pub(super) const PARKED: u32 = libc::EPOLLONESHOT as u32;

/// A word of the queue's own, and not a descriptor's: what it is, which one,
/// and above these how often the bell was set, as far as that fits.
const OWN: u64 = 1 << 63;
const BELL: u64 = OWN;
const NESTED: u64 = OWN | 1 << 8;
const TIMER: u64 = OWN | 2 << 8;
const NOTES: u64 = OWN | 3 << 8;
const MOUNTS: u64 = OWN | 4 << 8;
const LINKS: u64 = OWN | 5 << 8;
pub(super) const SIGNALS: u64 = OWN | 6 << 8;
const SIGNALFD: u64 = OWN | 7 << 8;
const CONNECTOR: u64 = OWN | 8 << 8;
pub(super) const AIO: u64 = OWN | 9 << 8;
/// A knote's own descriptor: with its number, and some of its generation.
const KNOTE: u64 = OWN | 1 << 62;
pub(super) const GENERATION: u32 = (1 << 30) - 1;
const WHAT: u64 = OWN | 0xff00;
const TIMES: u32 = 16;
const TIMES_MASK: u64 = (1 << (62 - TIMES)) - 1;

/// What an event is about.
pub(super) enum Source {
    /// A descriptor's record, and its generation.
    Registration(u32, u32),
    /// There are knotes with events; which of the bell's settings.
    Bell(u64),
    /// The epoll of this kind of registration.
    Nested(usize),
    /// The timer of this clock has expired.
    Timer(usize),
    /// Files were changed.
    Notes,
    /// Mounts came or went.
    Mounts,
    /// Links of network interfaces were changed.
    Links,
    /// Signals were counted.
    Signals,
    /// Blocked signals are pending.
    Signalfd,
    /// Something happened to processes.
    Connector,
    /// An operation is done.
    Aio,
    /// The process of a knote ended: its number, and [`GENERATION`] bits of
    /// its generation.
    Process(u32, u32),
}

pub(super) fn source(event: &Event) -> Source {
    let word = event.u64;
    if word & OWN == 0 {
        return Source::Registration(word as u32, (word >> 32) as u32);
    }
    if word & KNOTE == KNOTE {
        return Source::Process(word as u32, (word >> 32) as u32 & GENERATION);
    }
    let which = (word & 0xff) as usize;
    match word & WHAT {
        NESTED => Source::Nested(which),
        TIMER => Source::Timer(which),
        NOTES => Source::Notes,
        MOUNTS => Source::Mounts,
        LINKS => Source::Links,
        SIGNALS => Source::Signals,
        SIGNALFD => Source::Signalfd,
        CONNECTOR => Source::Connector,
        AIO => Source::Aio,
        _ => Source::Bell(word >> TIMES & TIMES_MASK),
    }
}

/// The word of a descriptor's registration.
pub(super) fn word(registration: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(registration)
}

/// Where a kind of a descriptor's registration is, and its word.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub kind: usize,
    pub in_main: bool,
    pub word: u64,
}

/// How the kernel has each kind of a descriptor's registration; 0: not.
pub(super) type Masks = [u32; KINDS];

pub(super) struct Set {
    main: Fd,
    nested: [Option<Fd>; KINDS],
    /// An eventfd that is always readable, and asked for in `main` or not. It
    /// is there from the start: what has an event can be shown.
    bell: Fd,
    /// One thread will be told, and ends it.
    is_rung: bool,
    /// How often that was changed.
    times: u64,
}

impl Set {
    pub fn new() -> Result<Self, Errno> {
        let (main, bell) = (epoll::create()?, eventfd::create(1)?);
        epoll::add(main.raw(), bell.raw(), 0, BELL)?;
        let nested = [const { None }; KINDS];
        Ok(Self { main, nested, bell, is_rung: false, times: 0 })
    }

    pub fn main(&self) -> RawFd {
        self.main.raw()
    }

    pub fn identity(&self) -> Identity {
        self.main.identity()
    }

    /// Whether the program has left `main` alone: see `sys::kept`.
    #[inline]
    pub fn is_intact(&self) -> bool {
        self.main.check().is_some()
    }

    /// Its epolls: those in `main` with their kinds, -1 where there is none.
    pub fn epolls(&self) -> [(usize, RawFd); KINDS + 1] {
        std::array::from_fn(|kind| match kind {
            KINDS => (KINDS, self.main()),
            kind => (kind, self.nested(kind).unwrap_or(-1)),
        })
    }

    pub fn nested(&self, kind: usize) -> Option<RawFd> {
        self.nested.get(kind)?.as_ref().map(Fd::raw)
    }

    /// Whether a descriptor is one of its own.
    pub fn is_own(&self, fd: RawFd) -> bool {
        let own = self.nested.iter().flatten().chain([&self.main, &self.bell]);
        own.into_iter().any(|own| own.is(fd))
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

    fn epoll(&mut self, at: Place) -> Result<RawFd, Errno> {
        if at.in_main { Ok(self.main()) } else { self.nested_or_new(at.kind) }
    }

    /// Registers a descriptor, or changes how it is registered.
    pub fn set(&mut self, at: Place, fd: RawFd, from: u32, to: u32) -> Result<(), Errno> {
        if (from, to) == (0, 0) {
            return Ok(());
        }
        let epoll = self.epoll(at)?;
        match (from, to) {
            (0, _) => epoll::add(epoll, fd, to, at.word),
            (_, 0) => epoll::delete(epoll, fd),
            (_, _) => epoll::modify(epoll, fd, to, at.word),
        }
    }

    pub fn add_timer(&self, clock: u8, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN | ET, TIMER | u64::from(clock))
    }

    pub fn add_notes(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, NOTES)
    }

    pub fn add_mounts(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, MOUNTS)
    }

    pub fn add_links(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, LINKS)
    }

    /// What signal handlers wake it by.
    pub fn add_signals(&self, eventfd: RawFd) -> Result<(), Errno> {
        wakeup::register(self.main(), eventfd, SIGNALS)
    }

    pub fn add_signalfd(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, SIGNALFD)
    }

    pub fn add_connector(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, CONNECTOR)
    }

    pub fn add_aio(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.main(), fd, IN, AIO)
    }

    /// What threads that do operations wake it by.
    pub fn add_aio_threads(&self, eventfd: RawFd) -> Result<(), Errno> {
        wakeup::register(self.main(), eventfd, AIO)
    }

    /// A process, for a knote.
    pub fn add_process(&self, fd: RawFd, knote: u32, generation: u32) -> Result<(), Errno> {
        let word = KNOTE | u64::from(generation & GENERATION) << 32 | u64::from(knote);
        epoll::add(self.main(), fd, IN, word)
    }

    /// Before a descriptor of the queue's own is closed: closing alone does
    /// not do where a forked child has it, too.
    pub fn drop_own(&self, fd: RawFd) {
        // It is registered, and nothing else can fail.
        let _ = epoll::delete(self.main(), fd);
    }

    /// Makes the queue readable, and wakes a thread that waits; until it is
    /// silenced, or one thread was told.
    pub fn ring(&mut self) {
        if !self.is_rung {
            self.set_bell(true);
        }
    }

    pub fn silence(&mut self) {
        if self.is_rung {
            self.set_bell(false);
        }
    }

    pub fn is_rung(&self) -> bool {
        self.is_rung
    }

    /// The kernel told a thread of this setting, and will tell no other.
    pub fn was_heard(&mut self, times: u64) {
        self.is_rung &= self.times & TIMES_MASK != times;
    }

    fn set_bell(&mut self, rung: bool) {
        let events = if rung { IN | ET } else { 0 };
        self.times = self.times.wrapping_add(1);
        let word = BELL | (self.times & TIMES_MASK) << TIMES;
        // It is registered, so that this needs nothing that could fail.
        let _ = epoll::modify(self.main.raw(), self.bell.raw(), events, word);
        self.is_rung = rung;
    }
}

#[cfg(test)]
impl Set {
    /// As if the bell had been set so often.
    pub fn set_times(&mut self, times: u64) {
        self.times = times;
    }
}

/// Whether a descriptor is registered with an epoll: ENOENT, it is not;
/// EBADF, one of them is closed. This changes nothing: unlike a modification
/// it does not make an edge come again.
pub(super) fn probe(epoll: RawFd, fd: RawFd) -> Result<(), Errno> {
    match epoll::add(epoll, fd, PARKED, 0) {
        Err(Errno::EEXIST) => Ok(()),
        Ok(()) => {
            epoll::delete(epoll, fd)?;
            Err(Errno::ENOENT)
        }
        Err(Errno::EBADF) => Err(Errno::EBADF),
        // It is none that an epoll takes.
        Err(_) => Err(Errno::ENOENT),
    }
}
