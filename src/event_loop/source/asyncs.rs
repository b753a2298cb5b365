//! Async watchers: who was sent to.

use crate::errno::{Errno, Result};
use crate::event_loop::event::Event;
use crate::event_loop::flags::*;
use crate::event_loop::pending_stack::{END_OF_STACK, StackLinks};
use crate::event_loop::resolve::resolve_signal_safe;
use crate::event_loop::run_guard::RunGuard;
use crate::event_loop::slot::view::is_unlinked;
use crate::event_loop::slot::{self, CLOSING, LIVE, WatcherSlot};
use crate::event_loop::state::LoopState;
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;

impl RunGuard {
    pub fn asyncs(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if !self.shared.wake_state.has_pending_asyncs() && !state.has_drained() {
            return Ok(());
        }
        state.drain_pending();
        if self.shared.has_commands() {
            // What was asked for before one was sent to comes before.
            state.apply_commands(&mut self.shared.lock_commands());
        }
        // SAFETY: as above.
        while let Some((index, slot)) = unsafe { self.state() }.next_drained() {
            self.deliver_async(index, slot)?;
        }
        Ok(())
    }

    fn deliver_async(&self, index: u32, slot: &WatcherSlot) -> Result<()> {
        // SAFETY: no other reference to the state.
        if unsafe { self.state() }.is_due_async(index, slot) {
            let handle = slot.handle(Kind::Watcher, index);
            self.emit(Event::new(handle, Source::Async as i32), slot)?;
        }
        Ok(())
    }
}

impl LoopState {
    pub fn async_requeue(&mut self, slot: &WatcherSlot) {
        // If it was sent to since, it is on the stack again.
        if !slot.mark_pending_again() {
            slot.set(UNLINKED);
        }
    }

    /// One that was sent to while it was disabled, and taken off the stack, is
    /// enabled: it is put there again.
    pub fn relink_async(&mut self, index: u32, slot: &WatcherSlot) {
        slot.unset(UNLINKED);
        // The loop is there: its stack takes it.
        self.push_again(index);
    }

    /// Whether some that were sent to are off the stack already.
    #[inline]
    pub fn has_drained(&self) -> bool {
        self.drained != END_OF_STACK
    }

    /// Takes all async watchers that were sent to off the stack, for
    /// `next_drained`, the first one first.
    fn drain_pending(&mut self) {
        // Those of an iteration that a fork ended come before.
        if self.drained != END_OF_STACK {
            return;
        }
        let mut index = self.ctx.shared.wake_state.take_pending_asyncs();
        while let Some(slot) = slot::get(index).filter(|_| index != END_OF_STACK) {
            let before = link(slot);
            SlotLinks.set_next(index, self.drained);
            self.drained = index;
            index = before;
        }
    }

    fn next_drained(&mut self) -> Option<(u32, &'static WatcherSlot)> {
        let index = self.drained;
        let slot = slot::get(index).filter(|_| index != END_OF_STACK)?;
        self.drained = link(slot);
        Some((index, slot))
    }

    /// In a forked child: a thread of the parent's may have marked a watcher
    /// and not put it on the stack yet. It never will here, and as long as the
    /// mark is there no other sender would.
    pub fn find_sent(&mut self) {
        let wake_state = &self.ctx.shared.wake_state;
        // No thread of this process sleeps in the loop: none is to be woken.
        wake_state.set_awake();
        self.ctx.slots.all().filter(|(_, slot)| is_async(slot)).for_each(|(_, slot)| {
            slot.aux.store(link(slot).into(), Relaxed);
        });
        let mut newest = wake_state.take_pending_asyncs();
        mark_listed(self.drained);
        mark_listed(newest);
        let is_lost = |slot: &WatcherSlot| {
            let flags = slot.flags.load(Relaxed);
            is_async(slot) && slot.is_pending() && !is_unlinked(flags) && !is_listed(slot)
        };
        let lost = self.ctx.slots.all().filter(|(_, slot)| is_lost(slot));
        lost.for_each(|(index, _)| self.push_again(index));
        // Back to where they were, in their order.
        let mut oldest = END_OF_STACK;
        while let Some(slot) = slot::get(newest).filter(|_| newest != END_OF_STACK) {
            let before = link(slot);
            SlotLinks.set_next(newest, oldest);
            (oldest, newest) = (newest, before);
        }
        while let Some(slot) = slot::get(oldest).filter(|_| oldest != END_OF_STACK) {
            let after = link(slot);
            self.push_again(oldest);
            oldest = after;
        }
    }

    fn push_again(&self, index: u32) {
        let wake_state = &self.ctx.shared.wake_state;
        drop(wake_state.push(self.ctx.shared, &SlotLinks, index, wake_state.pending_tag()));
    }

    /// For a loop whose watchers are all closed: takes those off the stack
    /// that were sent to, and has every later push refused.
    pub fn discard_pending_asyncs(&mut self) {
        let mut index = self.ctx.shared.wake_state.close_pending_asyncs();
        while let Some(slot) = slot::get(index).filter(|_| index != END_OF_STACK) {
            index = link(slot);
            slot.clear_pending();
        }
        // What an iteration has left.
        while let Some((_, slot)) = self.next_drained() {
            slot.clear_pending();
        }
    }

    /// Whether an async watcher that was sent to is to be called.
    fn is_due_async(&mut self, index: u32, slot: &WatcherSlot) -> bool {
        let ours = slot.shared().is_some_and(|shared| std::ptr::eq(shared, self.ctx.shared));
        let flags = slot.flags.load(Relaxed);
        if !ours || Source::of(flags) != Source::Async {
            return false;
        }
        if slot.state() != LIVE {
            // Closed: freed by who comes last, this or the command to close it.
            if slot.clear_pending() && flags & CLOSED_ON_STACK != 0 {
                self.ctx.slots.free(index);
            }
            return false;
        }
        if flags & ENABLED == 0 {
            slot.set(UNLINKED);
            return false;
        }
        slot.unset(UNLINKED);
        slot.clear_pending()
    }
}

fn is_async(slot: &WatcherSlot) -> bool {
    matches!(slot.state(), LIVE | CLOSING) && Source::of(slot.flags.load(Relaxed)) == Source::Async
}

/// Beside the link, while the stack is put right: it is in a list.
const LISTED: u64 = 1 << 32;

fn mark_listed(mut index: u32) {
    while let Some(slot) = slot::get(index).filter(|_| index != END_OF_STACK) {
        slot.aux.store(slot.aux.load(Relaxed) | LISTED, Relaxed);
        index = link(slot);
    }
}

fn is_listed(slot: &WatcherSlot) -> bool {
    slot.aux.load(Relaxed) & LISTED != 0
}

/// The next of the stack of async watchers that were sent to.
fn link(slot: &WatcherSlot) -> u32 {
    slot.aux.load(Relaxed) as u32
}

/// See evloop_async_send. A signal handler may call this.
#[inline(always)]
pub(crate) fn async_send(handle: i64) -> std::result::Result<(), Errno> {
    let Some(resolved) = Handle::unpack_as(handle, Kind::Watcher) else {
        return refuse_send(handle);
    };
    let Some(slot) = slot::get(resolved.index) else { return refuse_send(handle) };
    let is_async = Source::of(slot.flags.load(Relaxed)) == Source::Async;
    let Some(shared) = slot.shared().filter(|shared| is_async && shared.is_usable()) else {
        return refuse_send(handle);
    };
    let tag = shared.wake_state.pending_tag();
    match slot.mark_pending(resolved) {
        None => refuse_send(handle),
        Some(false) => Ok(()),
        Some(true) => match shared.wake_state.push(shared, &SlotLinks, resolved.index, tag) {
            Some(wake) => wake.now(),
            None => {
                // The loop was closed since, and has left the slot to this.
                slot::refuse_sent(resolved.index, slot);
                Err(Errno::ESTALE)
            }
        },
    }
}

#[cold]
fn refuse_send(handle: i64) -> std::result::Result<(), Errno> {
    resolve_signal_safe(handle, Kind::Watcher)?;
    Err(Errno::EINVAL)
}

/// The stack of async watchers that were sent to is linked in their slots.
struct SlotLinks;

impl StackLinks for SlotLinks {
    fn set_next(&self, id: u32, next: u32) {
        if let Some(slot) = slot::get(id) {
            slot.aux.store(next.into(), Relaxed);
        }
    }
}
