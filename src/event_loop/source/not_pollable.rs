//! Descriptors that no epoll takes, as they are always ready: regular files,
//! directories, /dev/null.
//!
//! They take turns with those that the kernel reports. It goes through its
//! list of ready descriptors and begins again; each time, every watcher here
//! has one turn. As long as some of these turns are left, a part of the room
//! for an iteration's events is kept for them.

use crate::errno::{Errno, Result};
use crate::event_loop::flags::*;
use crate::event_loop::slot::view;
use crate::event_loop::slot::{self, WatcherSlot};
use crate::event_loop::source::ctx::SourceCtx;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll::{self, RoundDetector};
use crate::sys::file;
use crate::util::alloc::TryVec;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The watchers of a loop's descriptors that are always ready.
#[derive(Default)]
pub(in crate::event_loop) struct NotPollable {
    watchers: Vec<u32>,
    /// Whose turn is next.
    next: usize,
    /// How many turns are left of this lap.
    turns: usize,
    /// How much room of this iteration's is kept for them.
    kept: usize,
    /// Finds out where the kernel's list begins again.
    rounds: RoundDetector,
    /// Which one was verified last.
    verified: usize,
}

impl NotPollable {
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
        if let Some(position) = self.watchers.iter().position(|other| *other == index) {
            self.watchers.remove(position);
            // Whose turn was next is where the others moved.
            self.next -= usize::from(position < self.next);
        }
    }

    /// A watcher of this fd, if there is one here.
    pub fn find(&self, fd: RawFd) -> Option<(u32, &'static WatcherSlot)> {
        let mut slots = self.watchers.iter().filter_map(|i| Some((*i, slot::get(*i)?)));
        slots.find(|(_, slot)| view::fd_of(slot) == fd)
    }

    /// How much of the room for events is left to the kernel in this
    /// iteration: at least a half, or every other event.
    pub fn kernel_share(&mut self, capacity: usize) -> usize {
        self.kept = self.turns.min((capacity / 2).max(1));
        capacity - self.kept
    }

    /// All have one more turn. The kernel's next lap may end before they had
    /// it; but if it is much shorter its turns do not add up.
    fn begin_lap(&mut self) {
        let ready = self.watchers.iter().filter(|index| ready_events(**index).is_some()).count();
        self.turns = (self.turns + ready).min(2 * ready);
    }

    /// Those who have their turn in this iteration, and what they are called
    /// for; `None`: there is no memory for that now.
    fn take_ready(&mut self, at_most: usize) -> Option<Vec<(i64, u32)>> {
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
    let slot = slot::get(index)?;
    let plain = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLRDNORM | libc::EPOLLWRNORM;
    let events = view::events_of(slot) & plain as u32;
    let wanted = slot.flags.load(Relaxed) & (ENABLED | SUPPRESSED) == ENABLED && events != 0;
    wanted.then(|| (slot.handle(Kind::Watcher, index), events))
}

impl NotPollable {
    /// Takes a new watcher in, whose descriptor the kernel does not watch.
    pub fn added(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) -> Result<()> {
        let fd = view::fd_of(slot);
        let file = file::identity(fd);
        self.others_lost(ctx, fd, file);
        match ctx.extra(index, slot) {
            Ok(extra) => extra.file = file,
            Err(error) => {
                slot.unset(NOT_POLLABLE);
                return Err(error);
            }
        }
        self.add(index);
        Ok(())
    }

    /// Looks whether a descriptor that is always ready is still what it was:
    /// each time at another one.
    pub fn verify_next(&mut self, ctx: &mut SourceCtx) {
        let Some(last) = self.watchers.len().checked_sub(1) else { return };
        self.verified = if self.verified >= last { 0 } else { self.verified + 1 };
        let Some(index) = self.watchers.get(self.verified).copied() else { return };
        self.verify_one(ctx, index);
    }

    /// Looks whether all of them are.
    pub fn verify_all(&mut self, ctx: &mut SourceCtx) {
        for position in (0..self.watchers.len()).rev() {
            if let Some(index) = self.watchers.get(position).copied() {
                self.verify_one(ctx, index);
            }
        }
    }

    fn verify_one(&mut self, ctx: &mut SourceCtx, index: u32) {
        let Some(slot) = slot::get(index) else { return };
        let file = ctx.extras.get(&index).and_then(|extra| extra.file);
        if file != file::identity(view::fd_of(slot)) {
            self.lost(ctx, index, slot);
        }
    }

    /// This fd is a descriptor that epoll takes now.
    pub fn replaced(&mut self, ctx: &mut SourceCtx, fd: RawFd) {
        while let Some((index, slot)) = self.find(fd) {
            self.lost(ctx, index, slot);
        }
    }

    /// The fd is this file now: another one that was watched under it is gone.
    fn others_lost(&mut self, ctx: &mut SourceCtx, fd: RawFd, file: Option<(u64, u64)>) {
        for position in (0..self.watchers.len()).rev() {
            let index = self.watchers.get(position).copied();
            let watcher = index.and_then(|index| Some((index, slot::get(index)?)));
            let Some((index, slot)) = watcher.filter(|(_, r)| view::fd_of(r) == fd) else {
                continue;
            };
            if ctx.extras.get(&index).and_then(|extra| extra.file) != file {
                self.lost(ctx, index, slot);
            }
        }
    }

    fn lost(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        self.remove(index);
        slot.unset(NOT_POLLABLE | SUPPRESSED);
        slot.set(FD_LOST);
        ctx.count_liveness(slot);
        ctx.fail(slot.handle(Kind::Watcher, index), Errno::EBADF);
    }

    /// Whose turn it is in an iteration in which so many events were found, of
    /// those that there is room for.
    pub fn take_turns(
        &mut self,
        ctx: &SourceCtx,
        events: &[MaybeUninit<epoll::Event>],
        found: usize,
    ) -> Option<Vec<(i64, u32)>> {
        let capacity = events.len();
        let asked = capacity - std::mem::take(&mut self.kept);
        let found_events = events.get(..found.min(capacity)).unwrap_or_default();
        if self.has_lap_ended(ctx, found_events, found < asked) {
            self.begin_lap();
        }
        self.take_ready(capacity - found.min(capacity))
    }

    /// Whether the kernel's list began again among the events that were found,
    /// or will: they were all that it had.
    fn has_lap_ended(
        &mut self,
        ctx: &SourceCtx,
        found: &[MaybeUninit<epoll::Event>],
        are_all: bool,
    ) -> bool {
        // No lap is longer than there are watchers.
        let longest = usize::try_from(ctx.shared.open_watchers()).unwrap_or_default();
        let mut has_ended = are_all;
        for event in found {
            // SAFETY: the kernel filled in as many as were found.
            let word = unsafe { event.assume_init() }.u64;
            if self.rounds.comes_again(word) || self.rounds.length() > longest {
                has_ended = true;
                self.rounds = RoundDetector::new();
                self.rounds.comes_again(word);
            }
        }
        if are_all {
            self.rounds = RoundDetector::new();
        }
        has_ended
    }
}
