//! Async watchers: which were sent to.

use crate::event_loop::flags::*;
use crate::event_loop::pending_stack::{END_OF_STACK, StackLinks};
use crate::event_loop::slot::view::is_unlinked;
use crate::event_loop::slot::{self, CLOSING, LIVE, WatcherSlot};
use crate::event_loop::source::ctx::SourceCtx;
use crate::sync::Ordering::Relaxed;

pub(in crate::event_loop) struct AsyncSource {
    /// The first of the async watchers that were sent to, taken off the stack
    /// and linked in their slots as they were on it.
    drained: u32,
}

impl Default for AsyncSource {
    fn default() -> Self {
        Self { drained: END_OF_STACK }
    }
}

impl AsyncSource {
    pub fn requeue(&mut self, slot: &WatcherSlot) {
        // If it was sent to since, it is on the stack again.
        if !slot.mark_pending_again() {
            slot.set(UNLINKED);
        }
    }

    /// One that was sent to while it was disabled, and taken off the stack, is
    /// enabled: it is put there again.
    pub fn relink(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        slot.unset(UNLINKED);
        // The loop is there: its stack takes it.
        self.push_again(ctx, index);
    }

    /// Whether some that were sent to are off the stack already.
    #[inline]
    pub fn has_drained(&self) -> bool {
        self.drained != END_OF_STACK
    }

    /// Takes all async watchers that were sent to off the stack, for
    /// `next_drained`, the first one first.
    pub fn drain_pending(&mut self, ctx: &mut SourceCtx) {
        // Those of an iteration that a fork ended come before.
        if self.drained != END_OF_STACK {
            return;
        }
        let mut index = ctx.shared.wake_state.take_pending_asyncs();
        while let Some(slot) = slot::get(index).filter(|_| index != END_OF_STACK) {
            let before = link(slot);
            SlotLinks.set_next(index, self.drained);
            self.drained = index;
            index = before;
        }
    }

    pub fn next_drained(&mut self) -> Option<(u32, &'static WatcherSlot)> {
        let index = self.drained;
        let slot = slot::get(index).filter(|_| index != END_OF_STACK)?;
        self.drained = link(slot);
        Some((index, slot))
    }

    /// In a forked child: a thread of the parent's may have marked a watcher
    /// and not put it on the stack yet. It never will here, and as long as the
    /// mark is there no other sender would.
    pub fn find_sent(&mut self, ctx: &mut SourceCtx) {
        let wake_state = &ctx.shared.wake_state;
        // No thread of this process sleeps in the loop: none is to be woken.
        wake_state.set_awake();
        ctx.slots.all().filter(|(_, slot)| is_async(slot)).for_each(|(_, slot)| {
            slot.aux.store(link(slot).into(), Relaxed);
        });
        let mut newest = wake_state.take_pending_asyncs();
        mark_listed(self.drained);
        mark_listed(newest);
        let is_lost = |slot: &WatcherSlot| {
            let flags = slot.flags.load(Relaxed);
            is_async(slot) && slot.is_pending() && !is_unlinked(flags) && !is_listed(slot)
        };
        let lost = ctx.slots.all().filter(|(_, slot)| is_lost(slot));
        lost.for_each(|(index, _)| self.push_again(ctx, index));
        // Back to where they were, in their order.
        let mut oldest = END_OF_STACK;
        while let Some(slot) = slot::get(newest).filter(|_| newest != END_OF_STACK) {
            let before = link(slot);
            SlotLinks.set_next(newest, oldest);
            (oldest, newest) = (newest, before);
        }
        while let Some(slot) = slot::get(oldest).filter(|_| oldest != END_OF_STACK) {
            let after = link(slot);
            self.push_again(ctx, oldest);
            oldest = after;
        }
    }

    fn push_again(&self, ctx: &SourceCtx, index: u32) {
        let wake_state = &ctx.shared.wake_state;
        drop(wake_state.push(ctx.shared, &SlotLinks, index, wake_state.pending_tag()));
    }

    /// For a loop whose watchers are all closed: takes those off the stack
    /// that were sent to, and has every later push refused.
    pub fn discard_all(&mut self, ctx: &mut SourceCtx) {
        let mut index = ctx.shared.wake_state.close_pending_asyncs();
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
    pub fn is_due(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) -> bool {
        let ours = slot.shared().is_some_and(|shared| std::ptr::eq(shared, ctx.shared));
        let flags = slot.flags.load(Relaxed);
        if !ours || Source::of(flags) != Source::Async {
            return false;
        }
        if slot.state() != LIVE {
            // Closed: freed by who comes last, this or the command to close it.
            if slot.clear_pending() && flags & CLOSED_ON_STACK != 0 {
                ctx.slots.free(index);
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

/// The stack of async watchers that were sent to is linked in their slots.
pub(in crate::event_loop) struct SlotLinks;

impl StackLinks for SlotLinks {
    fn set_next(&self, id: u32, next: u32) {
        if let Some(slot) = slot::get(id) {
            slot.aux.store(next.into(), Relaxed);
        }
    }
}
