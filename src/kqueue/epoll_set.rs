//! What the kernel watches for a queue.
//!
//! `inner` has everything; it lies in the queue's public epoll, and can be
//! replaced. A descriptor has up to three kinds of registration: one that is
//! reported as long as it is ready, and one each for the edges of reading
//! and of writing. An epoll takes a descriptor once, so that the first kind
//! is in `inner`, and others are in epolls of their own that lie in it. So no
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
/// and above these how often the ready event was set, as far as that fits.
const OWN: u64 = 1 << 63;
const READY_EVENT: u64 = OWN;
const NESTED: u64 = OWN | 1 << 8;
const TIMER: u64 = OWN | 2 << 8;
const VNODE: u64 = OWN | 3 << 8;
const MOUNTS: u64 = OWN | 4 << 8;
const NETLINK: u64 = OWN | 5 << 8;
pub(super) const SIGNALS: u64 = OWN | 6 << 8;
const SIGNALFD: u64 = OWN | 7 << 8;
const CONNECTOR: u64 = OWN | 8 << 8;
pub(super) const AIO: u64 = OWN | 9 << 8;
/// A knote's own descriptor: with its number, and some of its generation.
const KNOTE: u64 = OWN | 1 << 62;
pub(super) const GENERATION: u32 = (1 << 30) - 1;
const WHAT: u64 = OWN | 0xff00;
const SEQ_SHIFT: u32 = 16;
const SEQ_MASK: u64 = (1 << (62 - SEQ_SHIFT)) - 1;

/// What an event is about.
pub(super) enum EventSource {
    /// A descriptor's record, and its generation.
    Registration(u32, u32),
    /// There are knotes with events; the number of the setting.
    ReadyEvent(u64),
    /// The epoll of this kind of registration.
    Nested(usize),
    /// The timer of this clock has expired.
    Timer(usize),
    /// inotify has events of files.
    Vnode,
    /// Mounts came or went.
    Mounts,
    /// Links of network interfaces have changed.
    Netlink,
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

pub(super) fn source(event: &Event) -> EventSource {
    let word = event.u64;
    if word & OWN == 0 {
        return EventSource::Registration(word as u32, (word >> 32) as u32);
    }
    if word & KNOTE == KNOTE {
        return EventSource::Process(word as u32, (word >> 32) as u32 & GENERATION);
    }
    let which = (word & 0xff) as usize;
    match word & WHAT {
        NESTED => EventSource::Nested(which),
        TIMER => EventSource::Timer(which),
        VNODE => EventSource::Vnode,
        MOUNTS => EventSource::Mounts,
        NETLINK => EventSource::Netlink,
        SIGNALS => EventSource::Signals,
        SIGNALFD => EventSource::Signalfd,
        CONNECTOR => EventSource::Connector,
        AIO => EventSource::Aio,
        _ => EventSource::ReadyEvent(word >> SEQ_SHIFT & SEQ_MASK),
    }
}

/// The word of a descriptor's registration.
pub(super) fn word(registration: u32, generation: u32) -> u64 {
    u64::from(generation) << 32 | u64::from(registration)
}

/// Where a kind of a descriptor's registration is, and its word.
#[derive(Clone, Copy)]
pub(super) struct EpollEntry {
    pub kind: usize,
    pub in_inner: bool,
    pub word: u64,
}

/// How the kernel has each kind of a descriptor's registration; 0: not.
pub(super) type Masks = [u32; KINDS];

pub(super) struct EpollSet {
    inner: Fd,
    nested: [Option<Fd>; KINDS],
    /// An eventfd that is always readable, and asked for in `inner` or not. It
    /// is there from the start: what has an event can be shown.
    ready_event: Fd,
    /// It will be delivered to one thread, which clears it.
    is_raised: bool,
    /// How often that was changed.
    seq: u64,
}

impl EpollSet {
    pub fn new() -> Result<Self, Errno> {
        let (inner, ready_event) = (epoll::create()?, eventfd::create(1)?);
        epoll::add(inner.raw(), ready_event.raw(), 0, READY_EVENT)?;
        let nested = [const { None }; KINDS];
        Ok(Self { inner, nested, ready_event, is_raised: false, seq: 0 })
    }

    pub fn inner(&self) -> RawFd {
        self.inner.raw()
    }

    pub fn identity(&self) -> Identity {
        self.inner.identity()
    }

    /// Whether the program has left `inner` alone: see `sys::kept`.
    #[inline]
    pub fn is_intact(&self) -> bool {
        self.inner.check().is_some()
    }

    /// Its epolls: those in `inner` with their kinds, -1 where there is none.
    pub fn epolls(&self) -> [(usize, RawFd); KINDS + 1] {
        std::array::from_fn(|kind| match kind {
            KINDS => (KINDS, self.inner()),
            kind => (kind, self.nested(kind).unwrap_or(-1)),
        })
    }

    pub fn nested(&self, kind: usize) -> Option<RawFd> {
        self.nested.get(kind)?.as_ref().map(Fd::raw)
    }

    /// Whether a descriptor is one of its own.
    pub fn is_own(&self, fd: RawFd) -> bool {
        let own = self.nested.iter().flatten().chain([&self.inner, &self.ready_event]);
        own.into_iter().any(|own| own.is(fd))
    }

    /// The epoll for a kind of registration that cannot be in `inner`.
    fn nested_or_new(&mut self, kind: usize) -> Result<RawFd, Errno> {
        let Some(slot) = self.nested.get_mut(kind) else { return Err(Errno::EINVAL) };
        if let Some(fd) = slot {
            return Ok(fd.raw());
        }
        let fresh = epoll::create()?;
        epoll::add(self.inner.raw(), fresh.raw(), IN, NESTED | kind as u64)?;
        Ok(slot.insert(fresh).raw())
    }

    fn epoll(&mut self, entry: EpollEntry) -> Result<RawFd, Errno> {
        if entry.in_inner { Ok(self.inner()) } else { self.nested_or_new(entry.kind) }
    }

    /// Registers a descriptor, or changes how it is registered.
    pub fn set(&mut self, entry: EpollEntry, fd: RawFd, from: u32, to: u32) -> Result<(), Errno> {
        if (from, to) == (0, 0) {
            return Ok(());
        }
        let epoll = self.epoll(entry)?;
        match (from, to) {
            (0, _) => epoll::add(epoll, fd, to, entry.word),
            (_, 0) => epoll::delete(epoll, fd),
            (_, _) => epoll::modify(epoll, fd, to, entry.word),
        }
    }

    pub fn add_timer(&self, clock: u8, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN | ET, TIMER | u64::from(clock))
    }

    pub fn add_vnode_watches(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN, VNODE)
    }

    pub fn add_mounts(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN, MOUNTS)
    }

    pub fn add_netlink(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN, NETLINK)
    }

    /// What signal handlers wake it by.
    pub fn add_signals(&self, eventfd: RawFd) -> Result<(), Errno> {
        wakeup::register(self.inner(), eventfd, SIGNALS)
    }

    pub fn add_signalfd(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN, SIGNALFD)
    }

    pub fn add_connector(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN, CONNECTOR)
    }

    pub fn add_aio(&self, fd: RawFd) -> Result<(), Errno> {
        epoll::add(self.inner(), fd, IN, AIO)
    }

    /// What threads that do operations wake it by.
    pub fn add_aio_threads(&self, eventfd: RawFd) -> Result<(), Errno> {
        wakeup::register(self.inner(), eventfd, AIO)
    }

    /// A process, for a knote.
    pub fn add_process(&self, fd: RawFd, knote: u32, generation: u32) -> Result<(), Errno> {
        let word = KNOTE | u64::from(generation & GENERATION) << 32 | u64::from(knote);
        epoll::add(self.inner(), fd, IN, word)
    }

    /// Before a descriptor of the queue's own is closed: closing alone does
    /// not do where a forked child has it, too.
    pub fn drop_own(&self, fd: RawFd) {
        // It is registered, and nothing else can fail.
        let _ = epoll::delete(self.inner(), fd);
    }

    /// Makes the queue readable and wakes a thread that waits, until this is
    /// cleared or was delivered to one thread.
    pub fn raise(&mut self) {
        if !self.is_raised {
            self.set_raised(true);
        }
    }

    pub fn clear(&mut self) {
        if self.is_raised {
            self.set_raised(false);
        }
    }

    pub fn is_raised(&self) -> bool {
        self.is_raised
    }

    /// The kernel delivered this setting to a thread, and delivers it to no
    /// other.
    pub fn was_delivered(&mut self, seq: u64) {
        self.is_raised &= self.seq & SEQ_MASK != seq;
    }

    fn set_raised(&mut self, raised: bool) {
        let events = if raised { IN | ET } else { 0 };
        self.seq = self.seq.wrapping_add(1);
        let word = READY_EVENT | (self.seq & SEQ_MASK) << SEQ_SHIFT;
        // It is registered, so that this needs nothing that could fail.
        let _ = epoll::modify(self.inner.raw(), self.ready_event.raw(), events, word);
        self.is_raised = raised;
    }
}

#[cfg(test)]
impl EpollSet {
    /// As if the ready event had been set so often.
    pub fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
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
