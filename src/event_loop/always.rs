//! Descriptors that no epoll takes, as they are always ready: regular files,
//! directories, /dev/null.
//!
//! They take turns with those that the kernel reports. It goes through its
//! list of ready descriptors and begins again; each time, every watcher here
//! has one turn. As long as some of these turns are left, a part of the room
//! for an iteration's events is kept for them.

use super::core::Core;
use super::flags::*;
use super::io;
use super::record::{self, Record};
use super::running::Run;
use crate::errno::{Errno, Result};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll::{self, Laps};
use crate::sys::file;
use crate::util::alloc::TryVec;
use std::os::fd::RawFd;

/// The watchers of a loop's descriptors that are always ready.
#[derive(Default)]
pub(super) struct Always {
    watchers: Vec<u32>,
    /// Whose turn is next.
    next: usize,
    /// How many turns are left of this lap.
    turns: usize,
    /// How much room of this iteration's is kept for them.
    kept: usize,
    /// Finds out where the kernel's list begins again.
    laps: Laps,
    /// Which one was verified last.
    verified: usize,
}

impl Always {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Whether one of them is to be called.
    #[cold]
    pub fn is_any_ready(&self) -> bool {
        self.watchers.iter().any(|index| ready_events(*index).is_some())
    }

    /// Makes room for another one.
    pub fn try_reserve(&mut self) -> bool {
        self.watchers.try_reserve(1).is_ok()
    }

    /// There is room for it.
    pub fn add(&mut self, index: u32) {
        self.watchers.push_reserved(index);
        self.turns += 1;
    }

    pub fn remove(&mut self, index: u32) {
        if let Some(place) = self.watchers.iter().position(|other| *other == index) {
            self.watchers.remove(place);
            // Whose turn was next is where the others moved.
            self.next -= usize::from(place < self.next);
        }
    }

    /// One whose descriptor has this number.
    pub fn find(&self, fd: RawFd) -> Option<(u32, &'static Record)> {
        let mut records = self.watchers.iter().filter_map(|i| Some((*i, record::get(*i)?)));
        records.find(|(_, record)| io::fd_of(record) == fd)
    }

    /// How much of the room for events is left to the kernel in this
    /// iteration: at least a half, or every other event.
    fn room_beside(&mut self, room: usize) -> usize {
        self.kept = self.turns.min((room / 2).max(1));
        room - self.kept
    }

    /// All have one more turn. The kernel's next lap may end before they had
    /// it; but if it is much shorter its turns do not add up.
    fn begin_lap(&mut self) {
        let ready = self.watchers.iter().filter(|index| ready_events(**index).is_some()).count();
        self.turns = (self.turns + ready).min(2 * ready);
    }

    /// Those who have their turn in this iteration, and what they are called
    /// for; `None`: there is no memory for that now.
    fn take_turns(&mut self, at_most: usize) -> Option<Vec<(i64, u32)>> {
        let wanted = self.turns.min(at_most);
        let mut taken = Vec::new();
        taken.try_reserve(wanted).ok()?;
        for _ in 0..self.watchers.len() {
            if taken.len() == wanted {
                break;
            }
            self.next = if self.next < self.watchers.len() { self.next } else { 0 };
            if let Some(event) = self.watchers.get(self.next).and_then(|i| ready_events(*i)) {
                taken.push_reserved(event);
            }
            self.next += 1;
        }
        // Each is called once in an iteration.
        let all = taken.len() < wanted;
        self.turns = if all { 0 } else { self.turns - wanted };
        Some(taken)
    }
}

/// What a watcher of such a descriptor is reported for, if it is to be called.
fn ready_events(index: u32) -> Option<(i64, u32)> {
    let record = record::get(index)?;
    let plain = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDNORM | libc::EPOLLWRNORM;
    let events = io::events_of(record) & plain as u32;
    let wanted = record.flags.load(Relaxed) & (ENABLED | MASKED) == ENABLED && events != 0;
    wanted.then(|| (record.handle(Kind::Watcher, index), events))
}

impl Core {
    /// Takes a new watcher in, whose descriptor the kernel does not watch.
    pub fn always_added(&mut self, index: u32, record: &Record) -> Result<()> {
        let fd = io::fd_of(record);
        record.set(ALWAYS);
        // What epoll watched under this number is gone.
        self.io_lost(fd, Errno::EBADF);
        let file = file::identity(fd);
        self.others_lost(fd, file);
        match self.extra(index, record) {
            Ok(extra) => extra.file = file,
            Err(error) => {
                record.unset(ALWAYS);
                return Err(error);
            }
        }
        self.io.always.add(index);
        Ok(())
    }

    /// Looks whether a descriptor that is always ready is still what it was:
    /// each time at another one.
    fn verify_one_always(&mut self) {
        let always = &mut self.io.always;
        let Some(last) = always.watchers.len().checked_sub(1) else { return };
        always.verified = if always.verified >= last { 0 } else { always.verified + 1 };
        let Some(index) = always.watchers.get(always.verified).copied() else { return };
        self.verify_one(index);
    }

    /// Looks whether all of them are.
    pub fn verify_always(&mut self) {
        for place in (0..self.io.always.watchers.len()).rev() {
            if let Some(index) = self.io.always.watchers.get(place).copied() {
                self.verify_one(index);
            }
        }
    }

    fn verify_one(&mut self, index: u32) {
        let Some(record) = record::get(index) else { return };
        let file = self.extras.get(&index).and_then(|extra| extra.file);
        if file != file::identity(io::fd_of(record)) {
            self.always_lost(index, record);
        }
    }

    /// A descriptor that epoll takes has this number now.
    pub fn always_replaced(&mut self, fd: RawFd) {
        while let Some((index, record)) = self.io.always.find(fd) {
            self.always_lost(index, record);
        }
    }

    /// This file has the number now: another one that was watched under it is
    /// gone.
    fn others_lost(&mut self, fd: RawFd, file: Option<(u64, u64)>) {
        for place in (0..self.io.always.watchers.len()).rev() {
            let index = self.io.always.watchers.get(place).copied();
            let watcher = index.and_then(|index| Some((index, record::get(index)?)));
            let Some((index, record)) = watcher.filter(|(_, r)| io::fd_of(r) == fd) else {
                continue;
            };
            if self.extras.get(&index).and_then(|extra| extra.file) != file {
                self.always_lost(index, record);
            }
        }
    }

    fn always_lost(&mut self, index: u32, record: &Record) {
        self.io.always.remove(index);
        record.unset(ALWAYS | MASKED);
        record.set(DEAD);
        self.count_liveness(record);
        self.fail(record.handle(Kind::Watcher, index), Errno::EBADF);
    }

    /// Looks what is ready, without waiting, and leaves room for turns.
    #[cold]
    pub fn look_beside_always(&mut self) -> std::result::Result<usize, Errno> {
        let room = self.io.always.room_beside(self.events.len());
        if room == 0 {
            return Ok(0);
        }
        let epoll = self.epoll();
        let places = self.events.get_mut(..room).unwrap_or_default();
        epoll::wait(epoll, places, Some(0)).map(<[_]>::len)
    }

    /// Whose turn it is in an iteration in which so many events were found.
    fn take_turns(&mut self, found: usize) -> Option<Vec<(i64, u32)>> {
        let room = self.events.len();
        let asked = room - std::mem::take(&mut self.io.always.kept);
        if self.has_lap_ended(found, found < asked) {
            self.io.always.begin_lap();
        }
        self.io.always.take_turns(room - found.min(room))
    }

    /// Whether the kernel's list began again among the events that were found,
    /// or will: they were all that it had.
    fn has_lap_ended(&mut self, found: usize, are_all: bool) -> bool {
        // No lap is longer than there are watchers.
        let longest = usize::try_from(self.desk.open_watchers()).unwrap_or_default();
        let mut has_ended = are_all;
        for at in 0..found {
            let Some(word) = self.found(at).map(|event| event.u64) else { break };
            let laps = &mut self.io.always.laps;
            if laps.comes_again(word) || laps.length() > longest {
                has_ended = true;
                *laps = Laps::new();
                laps.comes_again(word);
            }
        }
        if are_all {
            self.io.always.laps = Laps::new();
        }
        has_ended
    }
}

impl Run {
    /// Calls those whose turn it is.
    #[cold]
    pub fn always_ready(&self, found: usize) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        core.verify_one_always();
        for (handle, events) in core.take_turns(found).unwrap_or_default() {
            self.always_event(handle, events)?;
        }
        Ok(())
    }
}
