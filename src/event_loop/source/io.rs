//! Descriptors: their registrations with epoll, and when the loop changes them.
//!
//! A registration carries the handle of the watcher it was made for, the
//! first of its descriptor's. Changes are kept until the next wait: only what
//! is different then is submitted to the kernel. A disabled watcher stays
//! registered: if the kernel reports it all the same, the loop disarms the
//! registration. So the loop can always ask whether a descriptor is still the
//! one that was registered: changing a registration fails if it is not.
//!
//! The kernel reports an edge once, and a ONESHOT registration once. What
//! enables, changes or adds a watcher has such a registration armed again,
//! though it looks the same: epoll_ctl(2) then looks at readiness again.

use super::io_epoll::register;
use super::io_slot::*;
use crate::errno::{Errno, Result, fail};
use crate::event_loop::command::RegisteredAs;
use crate::event_loop::flags::*;
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::slot::view::{fd_of, interest, is_edge, set_interest};
use crate::event_loop::slot::{self, LIVE, WatcherSlot};
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::not_pollable::NotPollable;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::util::alloc::{TryVec, TryVecCopy};
use std::os::fd::RawFd;

#[derive(Default)]
pub(in crate::event_loop) struct Io {
    /// The first watcher of each descriptor; 0: none.
    pub(super) first: Vec<u32>,
    /// Watchers whose registrations may have to be changed; and
    /// whether there are others, which are marked, as this had no room.
    pub(super) dirty: Vec<u32>,
    pub(super) dirty_more: bool,
    /// Room for the watchers of one descriptor, while they are called.
    pub sharers: Vec<(i64, u32)>,
    pub not_pollable: NotPollable,
    /// Iterations in a row with events of closed watchers.
    pub stale_rounds: u32,
    /// Events since a registration was last looked at.
    pub unchecked: u32,
}

impl Io {
    /// Notes a watcher whose registration may have to be changed; false: there
    /// is no room right now.
    #[inline(always)]
    pub fn note_dirty(&mut self, index: u32) -> bool {
        let has_room = self.dirty.len() < self.dirty.capacity();
        if has_room {
            self.dirty.push_reserved(index);
        }
        has_room
    }
}

impl Io {
    /// Room to note a watcher of this descriptor.
    fn reserve(&mut self, ctx: &mut SourceCtx, fd: RawFd) -> Result<()> {
        let len = usize::try_from(fd).unwrap_or_default() + 1;
        let has_room_for_sharers = self.reserve_sharers(ctx, fd);
        let more = len.saturating_sub(self.first.len());
        let has_room = has_room_for_sharers
            && self.dirty.try_reserve(1).is_ok()
            && self.not_pollable.try_reserve()
            && (more == 0 || self.first.try_lengthen(len, 0).is_ok());
        if !has_room {
            fail!(ENOMEM, "no memory to watch fd {}", fd);
        }
        Ok(())
    }

    /// Room for all watchers of a descriptor and one more. Those are no more
    /// than the loop has: a chain of very many is not counted each time that
    /// one is added.
    fn reserve_sharers(&mut self, ctx: &mut SourceCtx, fd: RawFd) -> bool {
        if self.first(fd).is_none() {
            return true;
        }
        let all = usize::try_from(ctx.shared.open_watchers()).unwrap_or(0) + 1;
        self.sharers.try_reserve(all).is_ok() || {
            let sharers = self.chain(fd).count() + 1;
            self.sharers.try_reserve(sharers).is_ok()
        }
    }

    #[inline]
    pub fn first(&self, fd: RawFd) -> Option<(u32, &'static WatcherSlot)> {
        let index = self.first_index(fd);
        Some((index, linked(index)?))
    }

    /// The same by its index; 0: none.
    #[inline]
    fn first_index(&self, fd: RawFd) -> u32 {
        usize::try_from(fd).ok().and_then(|fd| self.first.get(fd)).copied().unwrap_or(0)
    }

    /// No descriptor that is watched is as great as this.
    pub fn limit(&self) -> RawFd {
        self.first.len() as RawFd
    }

    fn set_first(&mut self, fd: RawFd, index: u32) {
        if let Some(first) = usize::try_from(fd).ok().and_then(|fd| self.first.get_mut(fd)) {
            *first = index;
        }
    }

    /// The watchers of a descriptor.
    pub fn chain(&self, fd: RawFd) -> impl Iterator<Item = (u32, &'static WatcherSlot)> + use<> {
        let mut cursor = self.first(fd);
        std::iter::from_fn(move || {
            let this = cursor?;
            cursor = following(this.1);
            Some(this)
        })
    }

    /// Checks whether a descriptor may have a watcher with these events beside
    /// its others.
    pub fn may_join(&self, fd: RawFd, events: u32, except: u32) -> Result<()> {
        let mut others = self.chain(fd).filter(|(index, slot)| *index != except && is_open(slot));
        // An exclusive one is the only one.
        let refused = others
            .next()
            .is_some_and(|(_, other)| (events | interest(other).1) & EPOLLEXCLUSIVE != 0);
        if refused {
            fail!(EEXIST, "fd {} has a watcher, and one of the two is EXCLUSIVE", fd);
        }
        Ok(())
    }

    /// Adds a watcher, whose slot is live. `registered`: how its descriptor is
    /// registered.
    pub fn added(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        registered: RegisteredAs,
    ) -> Result<()> {
        slot.unset(JOINS);
        let added = self.take_in(ctx, index, slot, registered);
        if matches!(&added, Err(error) if error.errno != Errno::ENOMEM) {
            slot.set(FD_LOST);
        }
        added
    }

    fn take_in(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        registered: RegisteredAs,
    ) -> Result<()> {
        let (fd, events) = interest(slot);
        self.reserve(ctx, fd)?;
        match registered {
            RegisteredAs::Alone(given) => {
                let was_removed = self.chain(fd).fold(false, |removed, (_, slot)| {
                    // The descriptor is registered again, for the new watcher.
                    slot.take_removed() || removed
                });
                if let Some((first, other)) = self.first(fd)
                    && (mask(other) == ABSENT || was_removed)
                {
                    // Another thread removed the registration of a watcher
                    // that it closed; those that are left share this one.
                    self.may_join(fd, events, 0).inspect_err(|_| {
                        let _ = epoll::delete(ctx.epoll(), fd);
                    })?;
                    // The mark does not say whether that was before this one
                    // was made, or after it and this one was removed.
                    set_mask(other, if was_removed { ABSENT } else { UNKNOWN });
                    self.join(index, slot, first, other);
                    return Ok(());
                }
                // The kernel did not know this descriptor: what was watched
                // under this fd is gone.
                if self.first_index(fd) != 0 {
                    self.lost(ctx, fd, Errno::EBADF);
                }
                self.not_pollable.replaced(ctx, fd);
                set_mask(slot, given);
                self.set_first(fd, index);
            }
            RegisteredAs::Shared => {
                match self.first(fd) {
                    Some((first, other)) => {
                        self.may_join(fd, events, 0)?;
                        self.join(index, slot, first, other);
                    }
                    // Another thread added it beside one that was just closed,
                    // and perhaps closed it, too: then the fd may be another
                    // file by now.
                    None if is_open(slot) => {
                        slot.unset(SHARED);
                        set_mask(slot, ABSENT);
                        self.set_first(fd, index);
                        self.touch(index, slot);
                    }
                    None => slot.set(FD_LOST),
                }
            }
            RegisteredAs::NotPollable => self.added_not_pollable(ctx, index, slot)?,
        }
        Ok(())
    }

    /// Adds a watcher of a descriptor that epoll does not take.
    fn added_not_pollable(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
    ) -> Result<()> {
        slot.set(NOT_POLLABLE);
        // What epoll watched under this fd is gone.
        self.lost(ctx, fd_of(slot), Errno::EBADF);
        self.not_pollable.added(ctx, index, slot)
    }

    /// Adds a watcher that another thread has made. Without memory it is
    /// disabled, and can be enabled later.
    pub fn added_late(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        registered: RegisteredAs,
    ) -> Result<()> {
        let added = self.added(ctx, index, slot, registered);
        if matches!(&added, Err(error) if error.errno == Errno::ENOMEM) {
            if matches!(registered, RegisteredAs::Alone(_)) {
                let _ = epoll::delete(ctx.epoll(), fd_of(slot));
            }
            slot.unset(NOT_POLLABLE | SHARED | ENABLED);
            slot.set(UNTAKEN | AUTO_DISABLED);
            ctx.count_liveness(slot);
        }
        added
    }

    /// Registers and adds a watcher for which there was no memory before.
    pub fn retry(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) -> Result<()> {
        if !slot.has(UNTAKEN) {
            return Ok(());
        }
        let (fd, events) = interest(slot);
        let registered =
            register(ctx.shared, ctx.epoll(), fd, events, slot.handle(Kind::Watcher, index))?;
        if let Err(error) = self.added(ctx, index, slot, registered) {
            if matches!(registered, RegisteredAs::Alone(_)) {
                let _ = epoll::delete(ctx.epoll(), fd);
            }
            return Err(error);
        }
        slot.unset(UNTAKEN);
        Ok(())
    }

    /// Puts a watcher behind the first one of its descriptor.
    fn join(&mut self, index: u32, slot: &WatcherSlot, first: u32, other: &WatcherSlot) {
        slot.set(SHARED);
        other.set(SHARED);
        if let Some(second) = linked(next(other)) {
            set_before(second, index);
        }
        set_next(slot, next(other));
        set_next(other, index);
        set_before(slot, first);
        self.rearm(index, slot);
    }

    /// This fd is a descriptor of the loop's own now: what was watched under it
    /// is gone.
    pub fn claim_fd(&mut self, ctx: &mut SourceCtx, which: OwnFd, fd: RawFd) {
        ctx.shared.own.set(which, fd);
        self.lost(ctx, fd, Errno::EBADF);
        self.not_pollable.replaced(ctx, fd);
    }

    /// Marks a watcher whose registration may have to be changed.
    #[inline]
    pub fn touch(&mut self, index: u32, slot: &WatcherSlot) {
        if slot.flags.load(Relaxed) & (DIRTY | NOT_POLLABLE | FD_LOST) == 0 {
            slot.set(DIRTY);
            if self.dirty.try_push(index).is_err() {
                self.dirty_more = true;
            }
        }
    }

    /// Marks a watcher as `touch` does, and has the kernel report what is
    /// ready.
    #[inline]
    pub fn rearm(&mut self, index: u32, slot: &WatcherSlot) {
        slot.set(REARM);
        self.touch(index, slot);
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty() || self.dirty_more
    }

    /// Stops the kernel's reports for a watcher whose event is kept. Edges are
    /// reported once each: they are not stopped, but added up.
    pub fn suppress(&mut self, index: u32, slot: &WatcherSlot) {
        let flags = slot.flags.load(Relaxed);
        if flags & SUPPRESSED == 0 && Source::of(flags).is_descriptor() && !is_edge(slot) {
            slot.set(SUPPRESSED);
            self.touch(index, slot);
        }
    }

    /// Allows the kernel's reports again. The registration is armed again: if
    /// it watches for edges by now, one may have passed.
    pub fn unsuppress(&mut self, index: u32, slot: &WatcherSlot) {
        if slot.has(SUPPRESSED) {
            slot.unset(SUPPRESSED);
            self.rearm(index, slot);
        }
    }

    /// Changes what an io watcher watches for.
    pub fn modify(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        events: u32,
    ) -> Result<()> {
        let (fd, _) = interest(slot);
        check_events(events)?;
        self.may_join(fd, events, index)?;
        if slot.has(UNTAKEN) {
            set_interest(slot, fd, events);
            self.retry(ctx, index, slot)?;
        }
        set_interest(slot, fd, events);
        if events & EPOLLONESHOT != 0 {
            slot.set(ONESHOT);
        } else {
            slot.unset(ONESHOT);
        }
        if slot.has(AUTO_DISABLED) {
            slot.unset(AUTO_DISABLED);
            slot.set(ENABLED);
            ctx.count_liveness(slot);
        }
        self.rearm(index, slot);
        self.forget_deferred(ctx, index, slot);
        ctx.fail_if_fd_lost(index, slot);
        Ok(())
    }

    /// Drops readiness that a rate limit has deferred: the kernel reports it
    /// again. Errors are kept.
    pub fn forget_deferred(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        if slot.has(EXTRA)
            && Source::of(slot.flags.load(Relaxed)) == Source::Io
            && let Some(extra) = ctx.extras.get_mut(&index)
        {
            extra.deferred_event.take_if(|deferred_event| deferred_event.events & ERROR == 0);
        }
    }

    /// A descriptor is not the one that was registered any more: this error is
    /// reported to its watchers, which refer to no descriptor from now on.
    pub fn lost(&mut self, ctx: &mut SourceCtx, fd: RawFd, errno: Errno) {
        let mut cursor = self.first(fd);
        self.set_first(fd, 0);
        while let Some((index, slot)) = cursor {
            cursor = following(slot);
            set_next(slot, 0);
            set_before(slot, 0);
            slot.unset(SHARED | DIRTY | SUPPRESSED);
            slot.set(FD_LOST);
            if slot.state() == LIVE {
                ctx.count_liveness(slot);
                ctx.fail(slot.handle(Kind::Watcher, index), errno);
            }
        }
    }

    /// A watcher's descriptor is about to be closed by its owner.
    pub fn detach(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        self.close(ctx, index, slot, false);
        set_next(slot, 0);
        slot.unset(SHARED | DIRTY | SUPPRESSED);
        slot.set(FD_LOST);
        ctx.count_liveness(slot);
    }

    /// Handles a spurious event: its watcher does not want it.
    pub fn spurious(&mut self, index: u32, slot: &WatcherSlot) {
        let (flags, known) = (slot.flags.load(Relaxed), mask(slot));
        if flags & (ONESHOT | SHARED) == ONESHOT && known < ABSENT && known & EPOLLONESHOT != 0 {
            // The kernel has disarmed the ONESHOT registration itself.
            return set_mask(slot, DISARMED);
        }
        slot.set(SPURIOUS);
        self.touch(index, slot);
    }

    /// A ONESHOT watcher's event is delivered: no more until it is enabled.
    pub fn auto_disabled(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        slot.unset(ENABLED);
        slot.set(AUTO_DISABLED);
        ctx.count_liveness(slot);
        // As if it were disabled: the kernel has parked its registration
        // itself, unless that is shared, or from before a change.
        if slot.has(SHARED) {
            self.touch(index, slot);
        } else if !slot.has(NOT_POLLABLE) {
            self.spurious(index, slot);
        }
    }

    /// Forgets a watcher; `deregistered`: its registration was removed already.
    pub fn close(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        deregistered: bool,
    ) {
        let flags = slot.flags.load(Relaxed);
        let (fd, _) = interest(slot);
        if flags & NOT_POLLABLE != 0 {
            self.not_pollable.remove(index);
        }
        if flags & (NOT_POLLABLE | FD_LOST | UNTAKEN) != 0 {
            if deregistered {
                self.removed(fd);
            }
            return;
        }
        let (preceding, following) = (before(slot), next(slot));
        let found = preceding != 0 || self.first_index(fd) == index;
        if let Some(after) = linked(following) {
            set_before(after, preceding);
        }
        match linked(preceding) {
            _ if !found => {
                // Not taken in yet: no other watcher watches it.
                if !deregistered && flags & SHARED == 0 {
                    let _ = epoll::delete(ctx.epoll(), fd);
                }
            }
            Some(before) => set_next(before, following),
            None if following != 0 => {
                self.set_first(fd, following);
                if let Some(first) = slot::get(following) {
                    set_mask(first, self.hand_on(ctx, fd, mask(slot), deregistered));
                }
            }
            None => {
                self.set_first(fd, 0);
                if !deregistered && mask(slot) != ABSENT {
                    self.unregister(ctx, fd);
                }
            }
        }
        set_next(slot, 0);
        set_before(slot, 0);
        if found && let Some((first, rest)) = self.first(fd) {
            if next(rest) == 0 {
                rest.unset(SHARED);
            }
            if deregistered {
                set_mask(rest, ABSENT);
            }
            rest.unset(DIRTY);
            self.touch(first, rest);
        }
    }

    /// Another thread removed a registration with a watcher that it closed and
    /// that the loop had taken for lost by then: the fd was used again, and
    /// what was removed may be the registration of the watchers that it has
    /// now.
    #[cold]
    fn removed(&mut self, fd: RawFd) {
        if let Some((index, first)) = self.first(fd) {
            set_mask(first, ABSENT);
            self.touch(index, first);
        }
    }

    /// Returns the mask for the next watcher of a descriptor when the watcher
    /// whose handle the registration carries is closed.
    fn hand_on(&self, ctx: &SourceCtx, fd: RawFd, mask: u32, deregistered: bool) -> u32 {
        match mask {
            _ if deregistered => ABSENT,
            ABSENT => ABSENT,
            // Until it was changed it was the only one, and the kernel's still
            // is. It cannot be changed there.
            mask if is_exclusive(mask) => {
                self.unregister(ctx, fd);
                ABSENT
            }
            _ => UNKNOWN,
        }
    }

    /// The watchers that an event of a shared registration is for.
    pub fn sharers_of(&self, slot: &WatcherSlot, ready: u32, into: &mut Vec<(i64, u32)>) {
        for (index, slot) in self.chain(fd_of(slot)).filter(|(_, slot)| is_open(slot)) {
            let (_, events) = interest(slot);
            let bits = ready & (events | ALWAYS_REPORTED);
            if bits != 0 {
                // Room was made when they came together.
                into.push_reserved((slot.handle(Kind::Watcher, index), bits));
            }
        }
    }
}
