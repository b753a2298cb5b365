//! Timers that are disabled: what they are set to is kept.

use super::ctx::SourceCtx;
use super::timer_nodes::TimerNodes;
use super::timers::{TimerSource, no_memory, queue_index};
use crate::errno::{Errno, Result};
use crate::event_loop::clock_ids::NEVER;
use crate::event_loop::flags::*;
use crate::event_loop::slot::WatcherSlot;
use crate::handle::Kind;

impl TimerSource {
    /// Keeps the time of a disabled timer.
    pub(super) fn park(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        deadline: i64,
    ) -> Result<()> {
        ctx.extra(index, slot)?.parked = deadline;
        slot.set(PARKED | SET);
        Ok(())
    }

    /// Changes how late a timer may be.
    pub fn set_tolerance(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        tolerance: i64,
    ) -> Result<()> {
        let queue = queue_index(slot);
        if slot.node.deadline().is_none() {
            slot.node.set_tolerance(tolerance);
            // An entry that was left behind is woken for too late, perhaps.
            slot.node.forget_entry();
            return Ok(());
        }
        self.recheck |= 1 << queue;
        let nodes = TimerNodes(ctx.shared, queue);
        self.clock(queue).queue.set_tolerance(&nodes, index, tolerance).map_err(|_| no_memory())
    }

    /// A timer is disabled: what it is set to is kept.
    pub fn disable(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) -> Result<()> {
        if slot.has(SET) && !slot.has(PARKED) {
            let mut deadline = self.deadline(ctx, index, slot).unwrap_or(NEVER);
            let queue = queue_index(slot);
            if slot.has(ARMING | RELATIVE)
                && let Some(base) = self.clock(queue).base
            {
                // It counts from now, as `settle` would have it.
                let passed = ctx.read_clock(queue).saturating_sub(base).max(0);
                deadline = deadline.saturating_add(passed);
            }
            self.park(ctx, index, slot, deadline)?;
            let queue = queue_index(slot);
            self.clock(queue).queue.disarm(&TimerNodes(ctx.shared, queue), index);
            slot.unset(ARMING);
        }
        Ok(())
    }

    /// An expiration was taken, but the timer was disabled before it was
    /// dispatched: it is as if it was not taken.
    pub fn requeue(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot, deadline: i64) {
        if self.park(ctx, index, slot, deadline).is_ok() {
            let queue = queue_index(slot);
            self.clock(queue).queue.disarm(&TimerNodes(ctx.shared, queue), index);
        } else {
            ctx.fail(slot.handle(Kind::Watcher, index), Errno::ENOMEM);
        }
    }

    /// An expiration was taken that cannot be reported now: it comes again.
    pub fn retry(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot, deadline: i64) {
        slot.unset(RELATIVE);
        if self.arm(ctx, index, slot, deadline).is_err() {
            ctx.fail(slot.handle(Kind::Watcher, index), Errno::ENOMEM);
        }
    }

    /// It is enabled again (the flag says so already).
    pub fn enable(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) -> Result<()> {
        if !slot.has(PARKED) {
            return Ok(());
        }
        let deadline = ctx.extras.get(&index).map_or(NEVER, |extra| extra.parked);
        // Not to be shifted: it counts from when it was set.
        slot.unset(RELATIVE);
        self.arm(ctx, index, slot, deadline)?;
        slot.unset(PARKED);
        Ok(())
    }
}
