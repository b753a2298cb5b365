//! What the kernel's set has for a loop's descriptors: changes are submitted
//! here, before a wait, and compared with what the loop knows.

use super::ctx::SourceCtx;
use super::io::Io;
use super::io_epoll::{is_gone, on_deregistered};
use super::io_slot::*;
use crate::errno::{Errno, Result};
use crate::event_loop::command::RegisteredAs;
use crate::event_loop::flags::*;
use crate::event_loop::slot::view::interest;
use crate::event_loop::slot::{self, LIVE, WatcherSlot};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use std::os::fd::RawFd;

impl Io {
    /// Submits the changes to the kernel. The command queue's lock is held: a
    /// watcher that another thread closes is either seen to be closed, or still
    /// registered when that thread removes it.
    pub fn flush(&mut self, ctx: &mut SourceCtx) {
        let dirty = std::mem::take(&mut self.dirty);
        if std::mem::take(&mut self.dirty_more) {
            self.flush_all(ctx);
        }
        for index in &dirty {
            let Some(slot) = slot::get(*index) else { continue };
            if !slot.has(DIRTY) || !Source::of(slot.flags.load(Relaxed)).is_descriptor() {
                continue;
            }
            slot.unset(DIRTY);
            let (fd, events) = interest(slot);
            if slot.has(FD_LOST) || self.flush_fast(ctx, *index, slot, events) {
                continue;
            }
            self.flush_one(ctx, fd);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
            self.dirty.clear();
        }
    }

    /// Submits the changes of all watchers that are marked, noted or not.
    #[cold]
    fn flush_all(&mut self, ctx: &mut SourceCtx) {
        for fd in 0..self.first.len() as RawFd {
            if self.chain(fd).any(|(_, slot)| slot.has(DIRTY)) {
                self.flush_one(ctx, fd);
            }
        }
    }

    fn flush_one(&mut self, ctx: &mut SourceCtx, fd: RawFd) {
        // Once for all watchers of it.
        let mut rearm = false;
        for (_, slot) in self.chain(fd) {
            rearm |= slot.has(ENABLED | REARM);
            slot.unset(DIRTY | REARM);
        }
        if let Err(errno) = self.update(ctx, fd, rearm) {
            self.refused(ctx, fd, errno);
        }
    }

    /// Submits a change of the most frequent kind: the only watcher of a
    /// descriptor, enabled, watches for something else, or for edges. False:
    /// it is of another kind, or the kernel refused it.
    #[inline]
    fn flush_fast(&self, ctx: &SourceCtx, index: u32, slot: &WatcherSlot, events: u32) -> bool {
        const MASK: u32 = SOURCE | ENABLED | NOT_PLAIN | SPURIOUS;
        let before = mask(slot);
        let lone = slot.flags.load(Relaxed) & MASK == PLAIN_IO && slot.state() == LIVE;
        if !lone || before >= ABSENT || !is_simple_change(slot, before) {
            return false;
        }
        let (fd, cookie) = (interest(slot).0, slot.handle(Kind::Watcher, index));
        if events != before || events & EPOLLET != 0 && slot.has(REARM) {
            if epoll::modify(ctx.epoll(), fd, events, cookie.cast_unsigned()).is_err() {
                return false;
            }
            set_mask(slot, events);
        }
        slot.unset(REARM);
        true
    }

    /// What the kernel should have for a descriptor.
    fn wanted(&self, fd: RawFd) -> Option<u32> {
        let mut all = 0;
        let (mut edge, mut any, mut spurious, mut count) = (EPOLLET, false, false, 0);
        for (_, slot) in self.chain(fd).filter(|(_, slot)| is_open(slot)) {
            let flags = slot.flags.load(Relaxed);
            spurious |= flags & (SPURIOUS | SUPPRESSED) != 0;
            count += 1;
            if flags & (ENABLED | SUPPRESSED) == ENABLED {
                let (_, events) = interest(slot);
                all |= events;
                edge &= events;
                any = true;
            }
        }
        match (any, count) {
            (true, 1) => Some(all),
            (true, _) => Some(all & !(EPOLLET | EPOLLONESHOT) | edge),
            (false, _) if spurious => Some(DISARMED),
            (false, _) => None,
        }
    }

    /// `rearm`: readiness is to be looked at again.
    fn update(
        &mut self,
        ctx: &mut SourceCtx,
        fd: RawFd,
        rearm: bool,
    ) -> std::result::Result<(), Errno> {
        let Some((index, first)) = self.first(fd) else { return Ok(()) };
        if !self.chain(fd).any(|(_, slot)| is_open(slot)) {
            return Ok(());
        }
        let before = mask(first);
        let wanted = match self.wanted(fd) {
            Some(wanted) => wanted,
            // Left as it is it would take a wake-up from another loop.
            None if is_exclusive(before) => DISARMED,
            None if before >= ABSENT => DISARMED,
            None => return Ok(()),
        };
        if wanted == before && !(rearm && wanted & (EPOLLET | EPOLLONESHOT) != 0) {
            return Ok(());
        }
        let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
        if before == ABSENT {
            match epoll::add(ctx.epoll(), fd, wanted, cookie) {
                // One that was thought to be removed. The kernel changes none
                // that is exclusive, nor makes one exclusive.
                Err(Errno::EEXIST) if !ctx.shared.own.has(fd) => {
                    epoll::delete(ctx.epoll(), fd)?;
                    epoll::add(ctx.epoll(), fd, wanted, cookie)?;
                }
                added => added?,
            }
        } else if is_exclusive(wanted) || is_exclusive(before) {
            // The kernel cannot change these.
            epoll::delete(ctx.epoll(), fd)?;
            set_mask(first, ABSENT);
            epoll::add(ctx.epoll(), fd, wanted, cookie)?;
        } else {
            epoll::modify(ctx.epoll(), fd, wanted, cookie)?;
        }
        set_mask(first, wanted);
        for (_, slot) in self.chain(fd).filter(|(_, slot)| slot.has(ENABLED)) {
            slot.unset(SPURIOUS);
        }
        Ok(())
    }

    fn refused(&mut self, ctx: &mut SourceCtx, fd: RawFd, errno: Errno) {
        match errno {
            errno if is_gone(errno) => self.lost(ctx, fd, Errno::EBADF),
            // It is registered, and not for a watcher: it is the loop's own.
            Errno::EEXIST => self.lost(ctx, fd, Errno::EINVAL),
            errno => {
                // Those that are disabled try again when they are enabled.
                for (index, slot) in self.chain(fd).filter(|(_, slot)| slot.has(ENABLED)) {
                    slot.unset(ENABLED);
                    slot.set(AUTO_DISABLED);
                    ctx.count_liveness(slot);
                    ctx.fail(slot.handle(Kind::Watcher, index), errno);
                }
            }
        }
    }

    /// Asks the kernel whether a watcher's descriptor is still the one that was
    /// registered: one that is always ready may have been closed while a
    /// duplicate of it is open. Returns the descriptor if it is not, or another
    /// thread has closed a watcher of it, and removed its registration.
    pub fn missing(&self, ctx: &SourceCtx, slot: &WatcherSlot) -> Option<RawFd> {
        let (fd, _) = interest(slot);
        let (index, first) = self.first(fd)?;
        let mask = mask(first);
        // Changing these would have effects.
        if mask >= ABSENT || mask & (EPOLLET | EPOLLONESHOT | EPOLLEXCLUSIVE) != 0 {
            return None;
        }
        let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
        epoll::modify(ctx.epoll(), fd, mask, cookie).is_err_and(is_gone).then_some(fd)
    }

    /// Whether an fd is still what was registered; with the command queue's
    /// lock. If not, EBADF is reported to its watchers.
    pub fn verify(&mut self, ctx: &mut SourceCtx, fd: RawFd) -> bool {
        let Some((index, first)) = self.first(fd) else { return true };
        let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
        let mask = match mask(first) {
            ABSENT => return true,
            UNKNOWN => DISARMED,
            mask => mask,
        };
        let is_lost = epoll::modify(ctx.epoll(), fd, mask, cookie).is_err_and(is_gone);
        if is_lost {
            self.lost(ctx, fd, Errno::EBADF);
        }
        !is_lost
    }

    /// Registers all that is watched with another set, which then can take the
    /// place of this one. What is not there any more fails its watchers; any
    /// other failure ends it.
    pub fn register_all(
        &mut self,
        ctx: &mut SourceCtx,
        epoll: RawFd,
    ) -> std::result::Result<(), Errno> {
        for fd in 0..self.first.len() as RawFd {
            let Some((index, first)) = self.first(fd) else { continue };
            let wanted = self.wanted(fd).unwrap_or(DISARMED);
            let cookie = first.handle(Kind::Watcher, index).cast_unsigned();
            match epoll::add(epoll, fd, wanted, cookie) {
                Err(errno @ (Errno::ENOMEM | Errno::ENOSPC)) => return Err(errno),
                // By an attempt that such a failure ended.
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => self.lost(ctx, fd, errno),
            }
        }
        Ok(())
    }

    /// That set has taken the place of the one before.
    pub fn all_are_registered(&mut self) {
        for fd in 0..self.first.len() as RawFd {
            if let Some((_, first)) = self.first(fd) {
                set_mask(first, self.wanted(fd).unwrap_or(DISARMED));
            }
        }
    }

    /// Removes a registration, on the loop's thread. Another thread may have
    /// removed it before, and have made one for a watcher that it has added.
    pub fn unregister(&self, ctx: &SourceCtx, fd: RawFd) {
        // What fails here: the descriptor is closed already.
        let _ = epoll::delete(ctx.epoll(), fd);
        if ctx.shared.has_commands() {
            on_deregistered(&mut ctx.shared.lock_commands(), fd);
        }
    }

    /// A registration was made which another thread may have removed, with a
    /// watcher of the same descriptor that it has closed.
    #[cold]
    pub fn unsure(&mut self, ctx: &mut SourceCtx, fd: RawFd, events: u32) -> Result<RegisteredAs> {
        if let Some((index, first)) = self.first(fd) {
            set_mask(first, ABSENT);
            self.touch(index, first);
            self.may_join(fd, events, 0).inspect_err(|_| self.unregister(ctx, fd))?;
        }
        Ok(RegisteredAs::Shared)
    }
}
