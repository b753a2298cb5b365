//! Timers that were set in an iteration's callbacks: they count from its end,
//! and are queued then.

use super::ctx::SourceCtx;
use super::timer_nodes::TimerNodes;
use super::timers::{Arming, TimerSource};
use crate::event_loop::flags::*;
use crate::event_loop::own_words::CLOCKS;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::{self, WatcherSlot};
use crate::sync::Ordering::Relaxed;
use crate::timer_queue;

impl TimerSource {
    /// Lets the timers that were set in this iteration count from now.
    pub fn settle(&mut self, ctx: &mut SourceCtx) {
        if !self.is_arming() {
            return;
        }
        self.based = false;
        let mut shift = [0; CLOCKS];
        for (clock, shift) in shift.iter_mut().enumerate() {
            if let Some(base) = self.clock(clock).base.take() {
                let now = ctx.read_clock(clock);
                *shift = now.saturating_sub(base).max(0);
                self.clock(clock).settled = Some(now);
            }
        }
        let shared = ctx.shared;
        let mut list = std::mem::take(&mut self.arming);
        list.retain_mut(|arming| {
            let Some(slot) = slot::get(arming.index) else { return false };
            settle_one(self, shared, arming, slot, &shift).is_err()
        });
        // What found no memory is tried again, from the same time on.
        self.arming = list;
        if self.arming.capacity() > 8192 && self.arming.is_empty() {
            self.arming = Vec::new();
        }
    }

    /// How long it is until the first timer expires that was set in this
    /// iteration, and is not queued yet.
    pub fn next_unsettled(&self, ctx: &SourceCtx) -> i64 {
        let left = |arming: &Arming| {
            let slot = slot::get(arming.index)?;
            let flags = slot.flags.load(Relaxed);
            let counts = Source::of(flags) == Source::Timer
                && flags & ARMING != 0
                && slot.node.deadline().is_none()
                && slot.node.seq() == arming.seq;
            counts.then(|| self.remaining(ctx, arming.index, slot))
        };
        self.arming.iter().filter_map(left).min().unwrap_or(i64::MAX)
    }
}

fn settle_one(
    timers: &mut TimerSource,
    shared: &'static LoopShared,
    arming: &mut Arming,
    slot: &WatcherSlot,
    shift: &[i64; CLOCKS],
) -> std::result::Result<(), timer_queue::NoMemory> {
    let flags = slot.flags.load(Relaxed);
    // Closed, or given to another watcher, or in the list twice.
    if Source::of(flags) != Source::Timer || flags & ARMING == 0 {
        return Ok(());
    }
    let queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
    let relative = flags & RELATIVE != 0;
    let shift = if relative { shift.get(queue).copied().unwrap_or(0) } else { 0 };
    let deadline = match slot.node.deadline() {
        Some(deadline) => {
            // It is queued, and later does not change that.
            slot.node.delay(deadline.saturating_add(shift));
            slot.unset(ARMING);
            return Ok(());
        }
        None if slot.node.seq() == arming.seq => arming.deadline,
        None => return Ok(()),
    };
    let seq = slot.node.seq();
    timers.recheck |= 1 << queue;
    // If it has to be tried again, then for the same time.
    arming.deadline = deadline.saturating_add(shift);
    slot.unset(RELATIVE);
    let (nodes, out) = (TimerNodes(shared, queue), (arming.index, &slot.node));
    timers.clock(queue).queue.arm_node(&nodes, out, arming.deadline, seq)?;
    slot.unset(ARMING);
    if relative {
        slot.set(RELATIVE);
    }
    Ok(())
}
