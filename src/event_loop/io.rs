//! Descriptors: what the kernel knows of them, and what it is told when.
//!
//! A registration carries the handle of the watcher it was made for, the
//! first of its descriptor's. Changes are kept until the next wait, where
//! only what is different then reaches the kernel. A disabled watcher stays
//! registered: if it is ready all the same the kernel is told to say so no
//! more. So whether a descriptor is still the one that was registered can
//! always be asked: changing a registration fails if it is not.
//!
//! The kernel reports an edge once, and a ONESHOT registration once. What
//! enables, changes or adds a watcher has such a registration armed again,
//! though it looks the same: epoll_ctl(2) then looks at readiness again.

use super::always::Always;
use super::command::Registered;
use super::core::{Core, INTERNAL};
use super::desk::Desk;
use super::flags::*;
use super::own_fds::OwnFd;
use super::record::{self, CLOSING, LIVE, Record};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::util::alloc::{TryVec, TryVecCopy};
use std::os::fd::RawFd;

const EPOLLONESHOT: u32 = libc::EPOLLONESHOT as u32;
const EPOLLEXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
const EPOLLET: u32 = libc::EPOLLET as u32;
/// What is always reported.
const ALWAYS_REPORTED: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// A registration that is reported once at most, and then no more: what the
/// kernel makes of a ONESHOT one that was reported.
const PARKED: u32 = EPOLLONESHOT;
/// No mask: the registration has to be changed, whatever it is.
const UNKNOWN: u32 = u32::MAX;
/// No mask: there may be no registration, as another thread removed it.
const ABSENT: u32 = u32::MAX - 1;

#[derive(Default)]
pub(super) struct Io {
    /// The first watcher of each descriptor; 0: none.
    first: Vec<u32>,
    /// Watchers whose registrations may have to be changed; and
    /// whether there are others, which are marked, as this had no room.
    dirty: Vec<u32>,
    dirty_more: bool,
    /// Room for the watchers of one descriptor, while they are called.
    pub sharers: Vec<(i64, u32)>,
    pub always: Always,
    /// Iterations in a row that brought events of nobody.
    pub strays: u32,
    /// Events since a registration was last looked at.
    pub unchecked: u32,
}

/// What an io watcher watches: kept in its record.
#[inline(always)]
fn watched(record: &Record) -> (RawFd, u32) {
    let aux = record.aux.load(Relaxed);
    (aux as u32 as RawFd, (aux >> 32) as u32)
}

fn set_watched(record: &Record, fd: RawFd, events: u32) {
    record.aux.store(u64::from(events) << 32 | u64::from(fd.cast_unsigned()), Relaxed);
}

#[inline(always)]
pub(super) fn fd_of(record: &Record) -> RawFd {
    watched(record).0
}

pub(super) fn events_of(record: &Record) -> u32 {
    watched(record).1
}

/// The mask that the kernel has (of a first watcher).
fn mask(record: &Record) -> u32 {
    record.node.spare().load(Relaxed) as u32
}

fn set_mask(record: &Record, mask: u32) {
    let others = record.node.spare().load(Relaxed) & !0xffff_ffff;
    record.node.spare().store(others | u64::from(mask), Relaxed);
}

/// Whether the kernel has a registration for a first watcher's descriptor, as
/// far as the loop knows.
pub(super) fn has_registration(record: &Record) -> bool {
    mask(record) != ABSENT
}

/// The next watcher of the same descriptor; 0: none.
fn next(record: &Record) -> u32 {
    (record.node.spare().load(Relaxed) >> 32) as u32
}

/// The same, with its record.
fn following(record: &Record) -> Option<(u32, &'static Record)> {
    let next = next(record);
    Some((next, linked(next)?))
}

/// The record of an index that is 0 where there is none.
#[inline]
fn linked(index: u32) -> Option<&'static Record> {
    if index == 0 { None } else { record::get(index) }
}

fn set_next(record: &Record, next: u32) {
    let mask = record.node.spare().load(Relaxed) & 0xffff_ffff;
    record.node.spare().store(u64::from(next) << 32 | mask, Relaxed);
}

/// The watcher before it; 0: it is the first, or not in a list.
fn before(record: &Record) -> u32 {
    record.node.second_spare().load(Relaxed) as u32
}

/// Whether it is the first watcher of its descriptor, or in no list.
pub(super) fn is_first(record: &Record) -> bool {
    before(record) == 0
}

fn set_before(record: &Record, before: u32) {
    record.node.second_spare().store(before.into(), Relaxed);
}

/// Refuses what epoll would only refuse at the wait.
pub(super) fn check_events(events: u32) -> Result<()> {
    let rdhup = libc::EPOLLRDHUP as u32;
    if events & EPOLLEXCLUSIVE != 0 && events & (EPOLLONESHOT | rdhup) != 0 {
        fail!(EINVAL, "EXCLUSIVE goes with neither ONESHOT nor RDHUP; events are {}", events);
    }
    Ok(())
}

/// Whether a change from what a watcher watches for to this needs no more
/// than that the kernel is told.
#[inline(always)]
pub(super) fn may_change_quietly(record: &Record, events: u32) -> bool {
    let plain = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;
    (watched(record).1 | events) & !(plain as u32) == 0
}

#[inline(always)]
pub(super) fn set_events(record: &Record, events: u32) {
    set_watched(record, watched(record).0, events);
}

fn explain(errno: Errno, fd: RawFd) -> Error {
    match errno {
        Errno::EBADF => error!(errno, "fd {} is not open", fd),
        Errno::EINVAL => error!(errno, "fd {} cannot be watched like that", fd),
        Errno::ELOOP => {
            error!(errno, "fd {} is an epoll that leads back here, or too deep or too often", fd)
        }
        errno => errno.into(),
    }
}

/// Registers a new watcher's descriptor; any thread may, with the gate's lock
/// or the loop.
pub(super) fn register(
    desk: &Desk,
    epoll: RawFd,
    fd: RawFd,
    events: u32,
    handle: i64,
) -> Result<Registered> {
    match epoll::add(epoll, fd, events, handle.cast_unsigned()) {
        Ok(()) if desk.own.has_unregistered(fd) => {
            let _ = epoll::delete(epoll, fd);
            is_ours(fd)
        }
        Ok(()) => Ok(Registered::Alone(events)),
        Err(errno) => not_alone(desk, fd, errno),
    }
}

/// The kernel takes none of the loop's own for another one.
#[cold]
fn not_alone(desk: &Desk, fd: RawFd, errno: Errno) -> Result<Registered> {
    match errno {
        // A watcher's own descriptor may be refused for these, too.
        Errno::ENOMEM | Errno::ENOSPC => Err(explain(errno, fd)),
        _ if desk.own.has(fd) => is_ours(fd),
        Errno::EEXIST => Ok(Registered::Shared),
        Errno::EPERM => Ok(Registered::Always),
        errno => Err(explain(errno, fd)),
    }
}

fn is_ours<T>(fd: RawFd) -> Result<T> {
    fail!(EINVAL, "fd {} is the loop's own", fd)
}

/// Says in a new record what it watches.
pub(super) fn fill(record: &Record, fd: RawFd, events: u32) {
    set_watched(record, fd, events);
    record.node.spare().store(0, Relaxed);
    set_before(record, 0);
    if events & EPOLLONESHOT != 0 {
        record.set(ONESHOT);
    }
}

impl Io {
    /// Notes a watcher of whose descriptor the kernel may have to be told;
    /// false: there is no room right now.
    #[inline(always)]
    pub fn note_dirty(&mut self, index: u32) -> bool {
        let room = self.dirty.len() < self.dirty.capacity();
        if room {
            self.dirty.push_reserved(index);
        }
        room
    }
}

impl Core {
    /// Room to note a watcher of this descriptor.
    fn io_reserve(&mut self, fd: RawFd) -> Result<()> {
        let len = usize::try_from(fd).unwrap_or_default() + 1;
        let room_for_sharers = self.io_reserve_sharers(fd);
        let io = &mut self.io;
        let more = len.saturating_sub(io.first.len());
        let room = room_for_sharers
            && io.dirty.try_reserve(1).is_ok()
            && io.always.try_reserve()
            && (more == 0 || io.first.try_lengthen(len, 0).is_ok());
        if !room {
            fail!(ENOMEM, "no memory to watch fd {}", fd);
        }
        Ok(())
    }

    /// Room for all watchers of a descriptor and one more. Those are no more
    /// than the loop has: a chain of very many is not counted each time that
    /// one is added.
    fn io_reserve_sharers(&mut self, fd: RawFd) -> bool {
        if self.first(fd).is_none() {
            return true;
        }
        let all = usize::try_from(self.desk.open_watchers()).unwrap_or(0) + 1;
        self.io.sharers.try_reserve(all).is_ok() || {
            let sharers = self.chain(fd).count() + 1;
            self.io.sharers.try_reserve(sharers).is_ok()
        }
    }

    #[inline]
    pub fn first(&self, fd: RawFd) -> Option<(u32, &'static Record)> {
        let index = self.first_index(fd);
        Some((index, linked(index)?))
    }

    /// The same by its index; 0: none.
    #[inline]
    fn first_index(&self, fd: RawFd) -> u32 {
        usize::try_from(fd).ok().and_then(|fd| self.io.first.get(fd)).copied().unwrap_or(0)
    }

    /// No descriptor that is watched is as great as this.
    pub fn io_limit(&self) -> RawFd {
        self.io.first.len() as RawFd
    }

    fn set_first(&mut self, fd: RawFd, index: u32) {
        if let Some(first) = usize::try_from(fd).ok().and_then(|fd| self.io.first.get_mut(fd)) {
            *first = index;
        }
    }

    /// The watchers of a descriptor.
    pub fn chain(&self, fd: RawFd) -> impl Iterator<Item = (u32, &'static Record)> + use<> {
        let mut at = self.first(fd);
        std::iter::from_fn(move || {
            let this = at?;
            at = following(this.1);
            Some(this)
        })
    }

    /// Registers a new watcher's descriptor, on the loop's thread.
    pub fn io_register(&mut self, fd: RawFd, events: u32, handle: i64) -> Result<Registered> {
        let desk = self.desk;
        loop {
            let how = register(desk, self.epoll(), fd, events, handle)?;
            if desk.has_inbox() {
                // Another thread has only just added, or closed, another one.
                self.receive(&mut desk.gate());
                match how {
                    Registered::Alone(_) => return self.io_unsure(fd, events),
                    Registered::Shared if self.first(fd).is_none() => continue,
                    _ => {}
                }
            }
            return match (how, self.first(fd)) {
                (Registered::Shared, None) => is_ours(fd),
                (Registered::Shared, Some(_)) => self.io_may_join(fd, events, 0).map(|()| how),
                _ => Ok(how),
            };
        }
    }

    /// A registration was made which another thread may have removed, with a
    /// watcher of the same descriptor that it has closed.
    #[cold]
    fn io_unsure(&mut self, fd: RawFd, events: u32) -> Result<Registered> {
        if let Some((index, first)) = self.first(fd) {
            set_mask(first, ABSENT);
            self.io_touch(index, first);
            self.io_may_join(fd, events, 0).inspect_err(|_| self.io_unregister(fd))?;
        }
        Ok(Registered::Shared)
    }

    /// Removes a registration, on the loop's thread. Another thread may have
    /// removed it before, and have made one for a watcher that it has added.
    fn io_unregister(&self, fd: RawFd) {
        // What fails here: the descriptor is closed already.
        let _ = epoll::delete(self.epoll(), fd);
        if self.desk.has_inbox() {
            self.desk.gate().deregistered(fd);
        }
    }

    /// Whether a watcher like this may be one of its descriptor's.
    pub fn io_may_join(&self, fd: RawFd, events: u32, but: u32) -> Result<()> {
        let mut others = self.chain(fd).filter(|(index, record)| *index != but && is_open(record));
        // An exclusive one is the only one.
        let refused = others
            .next()
            .is_some_and(|(_, other)| (events | watched(other).1) & EPOLLEXCLUSIVE != 0);
        if refused {
            fail!(EEXIST, "fd {} has a watcher, and one of the two is EXCLUSIVE", fd);
        }
        Ok(())
    }

    /// Takes a new watcher in, registered as it says; its record is live.
    pub fn io_added(&mut self, index: u32, record: &Record, how: Registered) -> Result<()> {
        record.unset(JOINS);
        let added = self.io_take_in(index, record, how);
        if matches!(&added, Err(error) if error.errno != Errno::ENOMEM) {
            record.set(DEAD);
        }
        added
    }

    fn io_take_in(&mut self, index: u32, record: &Record, how: Registered) -> Result<()> {
        let (fd, events) = watched(record);
        self.io_reserve(fd)?;
        match how {
            Registered::Alone(given) => {
                let was_removed = self.chain(fd).fold(false, |removed, (_, record)| {
                    // It is there again.
                    record.take_removed() || removed
                });
                if let Some((first, other)) = self.first(fd)
                    && (mask(other) == ABSENT || was_removed)
                {
                    // Another thread removed the registration of a watcher
                    // that it closed; those that are left share this one.
                    self.io_may_join(fd, events, 0).inspect_err(|_| {
                        let _ = epoll::delete(self.epoll(), fd);
                    })?;
                    // The mark does not say whether that was before this one
                    // was made, or after it and this one was removed.
                    set_mask(other, if was_removed { ABSENT } else { UNKNOWN });
                    self.io_join(index, record, first, other);
                    return Ok(());
                }
                // The kernel did not know this descriptor: what was watched
                // under its number is gone.
                if self.first_index(fd) != 0 {
                    self.io_lost(fd, Errno::EBADF);
                }
                self.always_replaced(fd);
                set_mask(record, given);
                self.set_first(fd, index);
            }
            Registered::Shared => {
                match self.first(fd) {
                    Some((first, other)) => {
                        self.io_may_join(fd, events, 0)?;
                        self.io_join(index, record, first, other);
                    }
                    // Another thread added it beside one that was just closed,
                    // and perhaps closed it, too: then the number may be
                    // another file's by now.
                    None if is_open(record) => {
                        record.unset(SHARED);
                        set_mask(record, ABSENT);
                        self.set_first(fd, index);
                        self.io_touch(index, record);
                    }
                    None => record.set(DEAD),
                }
            }
            Registered::Always => self.always_added(index, record)?,
        }
        Ok(())
    }

    /// The same, of one that another thread has added: without memory it is
    /// disabled, and can be enabled later.
    pub fn io_added_late(&mut self, index: u32, record: &Record, how: Registered) -> Result<()> {
        let added = self.io_added(index, record, how);
        if matches!(&added, Err(error) if error.errno == Errno::ENOMEM) {
            if matches!(how, Registered::Alone(_)) {
                let _ = epoll::delete(self.epoll(), fd_of(record));
            }
            record.unset(ALWAYS | SHARED | ENABLED);
            record.set(UNTAKEN | SPENT);
            self.count_liveness(record);
        }
        added
    }

    /// Takes in what there was no memory for before; its descriptor is
    /// registered now.
    pub fn io_retry(&mut self, index: u32, record: &Record) -> Result<()> {
        if !record.has(UNTAKEN) {
            return Ok(());
        }
        let (fd, events) = watched(record);
        let how =
            register(self.desk, self.epoll(), fd, events, record.handle(Kind::Watcher, index))?;
        if let Err(error) = self.io_added(index, record, how) {
            if matches!(how, Registered::Alone(_)) {
                let _ = epoll::delete(self.epoll(), fd);
            }
            return Err(error);
        }
        record.unset(UNTAKEN);
        Ok(())
    }

    /// Puts a watcher behind the first one of its descriptor.
    fn io_join(&mut self, index: u32, record: &Record, first: u32, other: &Record) {
        record.set(SHARED);
        other.set(SHARED);
        if let Some(second) = linked(next(other)) {
            set_before(second, index);
        }
        set_next(record, next(other));
        set_next(other, index);
        set_before(record, first);
        self.io_rearm(index, record);
    }

    /// A descriptor of the loop's own has this number: what was watched under
    /// it is gone.
    pub fn fd_is_ours(&mut self, which: OwnFd, fd: RawFd) {
        self.desk.own.set(which, fd);
        self.io_lost(fd, Errno::EBADF);
        self.always_replaced(fd);
    }

    /// The kernel may have to be told about this watcher's descriptor.
    #[inline]
    pub fn io_touch(&mut self, index: u32, record: &Record) {
        if record.flags.load(Relaxed) & (DIRTY | ALWAYS | DEAD) == 0 {
            record.set(DIRTY);
            if self.io.dirty.try_push(index).is_err() {
                self.io.dirty_more = true;
            }
        }
    }

    /// The same, and what is ready by now is to be reported.
    #[inline]
    pub fn io_rearm(&mut self, index: u32, record: &Record) {
        record.set(REARM);
        self.io_touch(index, record);
    }

    pub fn is_dirty(&self) -> bool {
        !self.io.dirty.is_empty() || self.io.dirty_more
    }

    /// An event is kept, and the kernel is to report no more of them; edges
    /// only come once, and are added up.
    pub fn io_mask(&mut self, index: u32, record: &Record) {
        let flags = record.flags.load(Relaxed);
        if flags & MASKED == 0 && Source::of(flags).is_descriptor() && !is_edge(record) {
            record.set(MASKED);
            self.io_touch(index, record);
        }
    }

    /// The kernel may report it again. If it watches for edges by now some may
    /// have passed.
    pub fn io_unmask(&mut self, index: u32, record: &Record) {
        if record.has(MASKED) {
            record.unset(MASKED);
            self.io_rearm(index, record);
        }
    }

    /// Changes what an io watcher watches for.
    pub fn io_modify(&mut self, index: u32, record: &Record, events: u32) -> Result<()> {
        let (fd, _) = watched(record);
        check_events(events)?;
        self.io_may_join(fd, events, index)?;
        if record.has(UNTAKEN) {
            set_watched(record, fd, events);
            self.io_retry(index, record)?;
        }
        set_watched(record, fd, events);
        if events & EPOLLONESHOT != 0 {
            record.set(ONESHOT);
        } else {
            record.unset(ONESHOT);
        }
        if record.has(SPENT) {
            record.unset(SPENT);
            record.set(ENABLED);
            self.count_liveness(record);
        }
        self.io_rearm(index, record);
        self.io_forget_kept(index, record);
        self.fail_if_dead(index, record);
        Ok(())
    }

    /// Readiness that a rate limit has kept is reported again.
    pub fn io_forget_kept(&mut self, index: u32, record: &Record) {
        if record.has(EXTRA)
            && Source::of(record.flags.load(Relaxed)) == Source::Io
            && let Some(extra) = self.extras.get_mut(&index)
        {
            extra.kept.take_if(|kept| kept.events & ERROR == 0);
        }
    }

    /// Whose descriptor is gone is told so when events are asked for.
    pub fn fail_if_dead(&mut self, index: u32, record: &Record) {
        if record.has(DEAD | ENABLED) && !record.has(OVER) {
            self.fail(record.handle(Kind::Watcher, index), Errno::EBADF);
        }
    }

    /// Tells the kernel of what has changed. The gate's lock is held: a
    /// watcher that another thread closes is either seen to be, or still
    /// registered when that thread removes it.
    pub fn flush(&mut self) {
        let dirty = std::mem::take(&mut self.io.dirty);
        if std::mem::take(&mut self.io.dirty_more) {
            self.flush_all();
        }
        for index in &dirty {
            let Some(record) = record::get(*index) else { continue };
            if !record.has(DIRTY) || !Source::of(record.flags.load(Relaxed)).is_descriptor() {
                continue;
            }
            record.unset(DIRTY);
            let (fd, events) = watched(record);
            if record.has(DEAD) || self.is_told(*index, record, events) {
                continue;
            }
            self.flush_one(fd);
        }
        if self.io.dirty.is_empty() {
            self.io.dirty = dirty;
            self.io.dirty.clear();
        }
    }

    /// Has the kernel know all that was changed.
    #[cold]
    fn flush_all(&mut self) {
        for fd in 0..self.io.first.len() as RawFd {
            if self.chain(fd).any(|(_, record)| record.has(DIRTY)) {
                self.flush_one(fd);
            }
        }
    }

    fn flush_one(&mut self, fd: RawFd) {
        // Once for all watchers of it.
        let mut rearm = false;
        for (_, record) in self.chain(fd) {
            rearm |= record.has(ENABLED | REARM);
            record.unset(DIRTY | REARM);
        }
        if let Err(errno) = self.io_update(fd, rearm) {
            self.io_refused(fd, errno);
        }
    }

    /// Tells the kernel of a change at its most frequent: the only watcher of
    /// a descriptor, enabled, watches for something else, or for edges. False:
    /// not that, or the kernel refused it.
    #[inline]
    fn is_told(&self, index: u32, record: &Record, events: u32) -> bool {
        const MASK: u32 = SOURCE | ENABLED | NOT_PLAIN | STRAY;
        let before = mask(record);
        let lone = record.flags.load(Relaxed) & MASK == PLAIN_IO && record.state() == LIVE;
        if !lone || before >= ABSENT || !may_change_quietly(record, before) {
            return false;
        }
        let (fd, cookie) = (watched(record).0, record.handle(Kind::Watcher, index));
        if events != before || events & EPOLLET != 0 && record.has(REARM) {
            if epoll::modify(self.epoll(), fd, events, cookie.cast_unsigned()).is_err() {
                return false;
            }
            set_mask(record, events);
        }
        record.unset(REARM);
        true
    }

    /// What the kernel should have for a descriptor.
    fn wanted(&self, fd: RawFd) -> Option<u32> {
        let mut all = 0;
        let (mut edge, mut any, mut stray, mut count) = (EPOLLET, false, false, 0);
        for (_, record) in self.chain(fd).filter(|(_, record)| is_open(record)) {
            let flags = record.flags.load(Relaxed);
            stray |= flags & (STRAY | MASKED) != 0;
            count += 1;
            if flags & (ENABLED | MASKED) == ENABLED {
                let (_, events) = watched(record);
                all |= events;
                edge &= events;
                any = true;
            }
        }
        match (any, count) {
            (true, 1) => Some(all),
            (true, _) => Some(all & !(EPOLLET | EPOLLONESHOT) | edge),
            (false, _) if stray => Some(PARKED),
            (false, _) => None,
        }
    }

    /// `rearm`: readiness is to be looked at again.
    fn io_update(&mut self, fd: RawFd, rearm: bool) -> std::result::Result<(), Errno> {
        let Some((index, first)) = self.first(fd) else { return Ok(()) };
        if !self.chain(fd).any(|(_, record)| is_open(record)) {
            return Ok(());
        }
        let before = mask(first);
        let wanted = match self.wanted(fd) {
            Some(wanted) => wanted,
            // Left as it is it would take a wake-up from another loop.
            None if is_exclusive(before) => PARKED,
            None if before >= ABSENT => PARKED,
            None => return Ok(()),
        };
        if wanted == before && !(rearm && wanted & (EPOLLET | EPOLLONESHOT) != 0) {
            return Ok(());
        }
        let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
        if before == ABSENT {
            match epoll::add(self.epoll(), fd, wanted, cookie) {
                // One that was thought to be removed. The kernel changes none
                // that is exclusive, nor makes one exclusive.
                Err(Errno::EEXIST) if !self.desk.own.has(fd) => {
                    epoll::delete(self.epoll(), fd)?;
                    epoll::add(self.epoll(), fd, wanted, cookie)?;
                }
                added => added?,
            }
        } else if is_exclusive(wanted) || is_exclusive(before) {
            // The kernel cannot change these.
            epoll::delete(self.epoll(), fd)?;
            set_mask(first, ABSENT);
            epoll::add(self.epoll(), fd, wanted, cookie)?;
        } else {
            epoll::modify(self.epoll(), fd, wanted, cookie)?;
        }
        set_mask(first, wanted);
        for (_, record) in self.chain(fd).filter(|(_, record)| record.has(ENABLED)) {
            record.unset(STRAY);
        }
        Ok(())
    }

    fn io_refused(&mut self, fd: RawFd, errno: Errno) {
        match errno {
            errno if is_gone(errno) => self.io_lost(fd, Errno::EBADF),
            // It is registered, and not for a watcher: it is the loop's own.
            Errno::EEXIST => self.io_lost(fd, Errno::EINVAL),
            errno => {
                // Those that are disabled try again when they are enabled.
                for (index, record) in self.chain(fd).filter(|(_, record)| record.has(ENABLED)) {
                    record.unset(ENABLED);
                    record.set(SPENT);
                    self.count_liveness(record);
                    self.fail(record.handle(Kind::Watcher, index), errno);
                }
            }
        }
    }

    /// A descriptor is not the one that was registered any more: its watchers
    /// are told, and refer to no descriptor from now on.
    pub fn io_lost(&mut self, fd: RawFd, errno: Errno) {
        let mut at = self.first(fd);
        self.set_first(fd, 0);
        while let Some((index, record)) = at {
            at = following(record);
            set_next(record, 0);
            set_before(record, 0);
            record.unset(SHARED | DIRTY | MASKED);
            record.set(DEAD);
            if record.state() == LIVE {
                self.count_liveness(record);
                self.fail(record.handle(Kind::Watcher, index), errno);
            }
        }
    }

    /// A watcher's descriptor is about to be closed by who owns it.
    pub fn io_gone(&mut self, index: u32, record: &Record) {
        self.io_close(index, record, false);
        set_next(record, 0);
        record.unset(SHARED | DIRTY | MASKED);
        record.set(DEAD);
        self.count_liveness(record);
    }

    /// An event came for a watcher that does not want it.
    pub fn io_stray(&mut self, index: u32, record: &Record) {
        let (flags, told) = (record.flags.load(Relaxed), mask(record));
        if flags & (ONESHOT | SHARED) == ONESHOT && told < ABSENT && told & EPOLLONESHOT != 0 {
            // The kernel has parked it itself.
            return set_mask(record, PARKED);
        }
        record.set(STRAY);
        self.io_touch(index, record);
    }

    /// A ONESHOT watcher's event is delivered: no more until it is enabled.
    pub fn io_spent(&mut self, index: u32, record: &Record) {
        record.unset(ENABLED);
        record.set(SPENT);
        self.count_liveness(record);
        // As if it were disabled: the kernel has parked its registration
        // itself, unless that is shared, or from before a change.
        if record.has(SHARED) {
            self.io_touch(index, record);
        } else if !record.has(ALWAYS) {
            self.io_stray(index, record);
        }
    }

    /// Forgets a watcher; `told`: its registration was removed already.
    pub fn io_close(&mut self, index: u32, record: &Record, told: bool) {
        let flags = record.flags.load(Relaxed);
        let (fd, _) = watched(record);
        if flags & ALWAYS != 0 {
            self.io.always.remove(index);
        }
        if flags & (ALWAYS | DEAD | UNTAKEN) != 0 {
            if told {
                self.io_removed(fd);
            }
            return;
        }
        let (preceding, following) = (before(record), next(record));
        let found = preceding != 0 || self.first_index(fd) == index;
        if let Some(after) = linked(following) {
            set_before(after, preceding);
        }
        match linked(preceding) {
            _ if !found => {
                // Not taken in yet: nobody else watches it.
                if !told && flags & SHARED == 0 {
                    let _ = epoll::delete(self.epoll(), fd);
                }
            }
            Some(before) => set_next(before, following),
            None if following != 0 => {
                self.set_first(fd, following);
                if let Some(first) = record::get(following) {
                    set_mask(first, self.io_hand_on(fd, mask(record), told));
                }
            }
            None => {
                self.set_first(fd, 0);
                if !told && mask(record) != ABSENT {
                    self.io_unregister(fd);
                }
            }
        }
        set_next(record, 0);
        set_before(record, 0);
        if found && let Some((first, rest)) = self.first(fd) {
            if next(rest) == 0 {
                rest.unset(SHARED);
            }
            if told {
                set_mask(rest, ABSENT);
            }
            rest.unset(DIRTY);
            self.io_touch(first, rest);
        }
    }

    /// Another thread removed a registration with a watcher that it closed and
    /// that the loop had taken for lost by then: the number was used again, and
    /// what was removed may be the registration of the watchers that it has now.
    #[cold]
    fn io_removed(&mut self, fd: RawFd) {
        if let Some((index, first)) = self.first(fd) {
            set_mask(first, ABSENT);
            self.io_touch(index, first);
        }
    }

    /// A registration has the handle of a watcher that is closed; what the
    /// next one has to know of it.
    fn io_hand_on(&self, fd: RawFd, mask: u32, told: bool) -> u32 {
        match mask {
            _ if told => ABSENT,
            ABSENT => ABSENT,
            // Until it was changed it was the only one, and the kernel's still
            // is. It cannot be changed there.
            mask if is_exclusive(mask) => {
                self.io_unregister(fd);
                ABSENT
            }
            _ => UNKNOWN,
        }
    }

    /// The watchers that an event of a shared registration is for.
    pub fn io_sharers(&self, record: &Record, ready: u32, into: &mut Vec<(i64, u32)>) {
        for (index, record) in self.chain(fd_of(record)).filter(|(_, record)| is_open(record)) {
            let (_, events) = watched(record);
            let bits = ready & (events | ALWAYS_REPORTED);
            if bits != 0 {
                // Room was made when they came together.
                into.push_reserved((record.handle(Kind::Watcher, index), bits));
            }
        }
    }

    /// Asks the kernel whether a watcher's descriptor is still the one that
    /// was registered: one that is always ready may have been closed while a
    /// duplicate of it is open.
    pub fn io_check(&mut self, record: &Record) {
        let (fd, _) = watched(record);
        let Some((index, first)) = self.first(fd) else { return };
        let mask = mask(first);
        // Changing these would have effects.
        if mask >= ABSENT || mask & (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE) != 0 {
            return;
        }
        let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
        if !epoll::modify(self.epoll(), fd, mask, cookie).is_err_and(is_gone) {
            return;
        }
        // Or another thread has closed a watcher of it, and removed its
        // registration: that is known with the gate's lock.
        let desk = self.desk;
        let mut gate = desk.gate();
        self.receive(&mut gate);
        let is_there = self.verify(fd);
        drop(gate);
        if !is_there {
            self.rebuild();
        }
    }

    /// Makes the kernel's set anew, without the registrations that nothing
    /// here knows and that cannot be removed. If that cannot be done now, it
    /// is when they are noticed again.
    pub fn rebuild(&mut self) {
        self.io.strays = 0;
        let desk = self.desk;
        let mut gate = desk.gate();
        self.receive(&mut gate);
        if !self.has_own_epoll(&mut gate) {
            return;
        }
        for fd in 0..self.io.first.len() as RawFd {
            self.verify(fd);
        }
        let Ok(fresh) = self.fresh_epoll() else { return };
        for clock in 0..super::desk::CLOCKS {
            let fd = self.timers.clock(clock).fd.as_ref().map(|fd| fd.raw());
            if fd.is_some_and(|fd| self.register_clock(fresh.raw(), clock, fd).is_err()) {
                return;
            }
        }
        if self.register_signals(fresh.raw()).and(self.register_files(fresh.raw())).is_err() {
            return;
        }
        self.io_lost(fresh.raw(), Errno::EBADF);
        let raw = fresh.raw();
        if self.register_all(raw).is_ok() && self.replace_epoll(fresh).is_ok() {
            self.all_are_registered();
            gate.epoll = raw;
        }
        drop(gate);
        // Who closed one of them may have woken the loop in the set before.
        self.look_at_objects();
    }

    /// Whether what is registered under a number still is; with the gate's
    /// lock. If not its watchers are told.
    fn verify(&mut self, fd: RawFd) -> bool {
        let Some((index, first)) = self.first(fd) else { return true };
        let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
        let mask = match mask(first) {
            ABSENT => return true,
            UNKNOWN => PARKED,
            mask => mask,
        };
        let is_lost = epoll::modify(self.epoll(), fd, mask, cookie).is_err_and(is_gone);
        if is_lost {
            self.io_lost(fd, Errno::EBADF);
        }
        !is_lost
    }

    /// Registers all that is watched with another set, which then can take the
    /// place of this one. What is not there any more fails its watchers; any
    /// other failure ends it.
    pub fn register_all(&mut self, epoll: RawFd) -> std::result::Result<(), Errno> {
        for fd in 0..self.io.first.len() as RawFd {
            let Some((index, first)) = self.first(fd) else { continue };
            let wanted = self.wanted(fd).unwrap_or(PARKED);
            let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
            match epoll::add(epoll, fd, wanted, cookie) {
                Err(errno @ (Errno::ENOMEM | Errno::ENOSPC)) => return Err(errno),
                // By an attempt that such a failure ended.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => self.io_lost(fd, errno),
            }
        }
        Ok(())
    }

    /// That set has taken the place of the one before.
    pub fn all_are_registered(&mut self) {
        for fd in 0..self.io.first.len() as RawFd {
            if let Some((_, first)) = self.first(fd) {
                set_mask(first, self.wanted(fd).unwrap_or(PARKED));
            }
        }
    }
}

/// Whether a change was refused because the descriptor is closed; or closed,
/// and the number used again, perhaps for what no epoll takes.
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::EBADF | Errno::ENOENT | Errno::EPERM)
}

/// Whether the kernel's set has its descriptor, as far as its flags tell, and
/// not for others only.
pub(super) fn is_registered(flags: u32) -> bool {
    flags & (ALWAYS | DEAD | UNTAKEN | JOINS) == 0
}

fn is_exclusive(mask: u32) -> bool {
    mask < ABSENT && mask & EPOLLEXCLUSIVE != 0
}

pub(super) fn is_edge(record: &Record) -> bool {
    watched(record).1 & EPOLLET != 0
}

/// Whether a watcher of a chain still counts.
fn is_open(record: &Record) -> bool {
    record.state() != CLOSING
}

/// Whether a word of the kernel's is one of the loop's own.
#[inline(always)]
pub(super) fn is_internal(word: u64) -> bool {
    word & INTERNAL != 0
}
