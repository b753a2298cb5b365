//! Timers: their clocks, and how they are set.
//!
//! Each clock has a queue and, unless time is virtual, a timerfd, which is
//! set only when something is due earlier than it is set to.
//!
//! A timer that is set in a callback counts from the end of the iteration's
//! callbacks: that needs one reading of the clock for all of them, and is
//! never early. Until then (`ARMING`) it counts from a time before.

use crate::errno::{Errno, Error, Result, error, fail};
use crate::event_loop::flags::*;
use crate::event_loop::own_words::CLOCKS;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::{self, WatcherSlot};
use crate::event_loop::source::clocks::LoopClock;
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::timer_nodes::TimerNodes;
use crate::event_loop::timer_setting::{NewTimer, TimerSetting, never_relative, queue_of};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::timer_queue::{self};
use crate::util::alloc::TryVec;

#[path = "timer_numbers.rs"]
mod numbers;

/// A timer that was set in this iteration.
struct Arming {
    index: u32,
    deadline: i64,
    seq: u64,
}

pub(in crate::event_loop) struct TimerSource {
    pub clocks: [LoopClock; CLOCKS],
    /// The clocks on which something may be due, as bits, and those whose
    /// queue has changed since their timer was set.
    pub due: u32,
    pub recheck: u32,
    arming: Vec<Arming>,
    /// The tolerance of timers that are added without one; ns.
    pub tolerance: i64,
    /// The wall clock was stepped.
    pub clock_changed: bool,
    /// Whether a clock has a base, from which timers count until `settle`.
    based: bool,
    seq: u64,
}

/// The number of the next setting; a node keeps 40 bits of it. They are not
/// used up: see [`TimerSource::renumber`].
#[inline(always)]
fn after(seq: u64) -> u64 {
    seq.wrapping_add(1) & ((1 << 40) - 1)
}

pub(super) fn no_memory() -> Error {
    error!(Errno::ENOMEM, "no memory for a timer")
}

pub(super) fn queue_index(slot: &WatcherSlot) -> usize {
    (slot.flags.load(Relaxed) >> QUEUE_SHIFT & CLOCK_MASK) as usize
}

impl TimerSource {
    pub const fn new(tolerance: i64) -> Self {
        Self {
            clocks: [const { LoopClock::new() }; CLOCKS],
            due: 0,
            recheck: 0,
            arming: Vec::new(),
            tolerance,
            clock_changed: false,
            based: false,
            seq: 0,
        }
    }

    pub fn clock(&mut self, index: usize) -> &mut LoopClock {
        // An index is always one of a clock.
        let index = index.min(CLOCKS - 1);
        #[allow(clippy::indexing_slicing)]
        &mut self.clocks[index]
    }

    /// Sets a new timer to a relative time, in a callback. Returns its slot and
    /// the flags for it. `None`: the fast path does not apply.
    #[inline(always)]
    pub fn start(
        &mut self,
        new: &NewTimer,
        take: impl FnOnce() -> Option<u32>,
    ) -> Option<(u32, &'static WatcherSlot, u32)> {
        let queue = queue_of(new.clock, &new.setting);
        let deadline = self.clock(queue).base?.saturating_add(new.setting.initial);
        let listed = self.arming.len();
        let out = self.arming.spare_capacity_mut().first_mut()?;
        let index = take()?;
        let slot = slot::get(index)?;
        let seq = after(self.seq);
        out.write(Arming { index, deadline, seq });
        // SAFETY: its place has just been filled.
        unsafe { self.arming.set_len(listed + 1) };
        self.seq = seq;
        let tolerance = if new.tolerance == 0 { self.tolerance } else { new.tolerance };
        slot.node.begin(seq, tolerance);
        slot.aux.store(new.setting.period_ns().cast_unsigned(), Relaxed);
        let of_source = Source::Timer.bits() | ENABLED | SET | ARMING;
        let of_clock = (new.clock as u32) << CLOCK_SHIFT;
        Some((index, slot, of_source | of_clock | new.setting.flags(queue, true)))
    }

    /// Starts a queued timer again, in a callback; false: the fast path does
    /// not apply, and nothing was done.
    #[inline(always)]
    pub fn start_again(&mut self, index: u32, slot: &WatcherSlot, flags: u32) -> bool {
        let queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
        let Some(base) = self.clock(queue).base else { return false };
        let deadline = base.saturating_add(slot.aux.load(Relaxed).cast_signed());
        let seq = after(self.seq);
        if flags & ARMING != 0 {
            let armed = slot.node.arm_later(deadline, seq);
            self.seq = if armed { seq } else { self.seq };
            return armed;
        }
        let listed = self.arming.len();
        let Some(out) = self.arming.spare_capacity_mut().first_mut() else { return false };
        if !slot.node.arm_later(deadline, seq) {
            return false;
        }
        out.write(Arming { index, deadline, seq });
        // SAFETY: its place has just been filled.
        unsafe { self.arming.set_len(listed + 1) };
        self.seq = seq;
        slot.flags.store(flags | ARMING, Relaxed);
        true
    }

    fn next_seq(&mut self) -> u64 {
        self.seq = after(self.seq);
        self.seq
    }

    /// Lists a timer again that was popped from its queue before it was
    /// settled.
    fn list_again(&mut self, index: u32, slot: &WatcherSlot, deadline: i64) {
        let seq = self.next_seq();
        slot.node.set_seq(seq);
        let again = Arming { index, deadline, seq };
        if self.arming.try_reserve(1).is_ok() {
            return self.arming.push_reserved(again);
        }
        if let Some(listed) = self.arming.iter_mut().rfind(|arming| arming.index == index) {
            *listed = again;
        }
    }

    /// As LoopState::abandon.
    pub fn abandon(&self) {
        self.clocks.iter().filter_map(|clock| clock.fd.as_ref()).for_each(Fd::close_now);
    }

    /// Whether there is something to settle.
    pub fn is_arming(&self) -> bool {
        self.based || !self.arming.is_empty()
    }
}

impl TimerSource {
    /// Sets, or stops, a timer. `deadline`: if it was computed already.
    pub fn set(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        setting: &TimerSetting,
        deadline: Option<i64>,
    ) -> Result<()> {
        let flags = slot.flags.load(Relaxed);
        let clock = (flags >> CLOCK_SHIFT & CLOCK_MASK) as usize;
        let queue = queue_of(clock, setting);
        if setting.initial < 0 {
            self.stop(ctx, index, slot);
            slot.unset(AGAIN);
            return Ok(());
        }
        // A periodic timer waits in `arming` if there is no memory to queue it.
        if setting.interval > 0 && self.arming.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory for a periodic timer");
        }
        if queue != queue_index(slot) {
            self.reserve(ctx, index, slot, queue)?;
            self.stop(ctx, index, slot);
            // Its entry is in the other queue, where it is of no use now.
            slot.node.forget_entry();
        }
        let relative = !setting.absolute && deadline.is_none();
        let deadline = match deadline {
            Some(deadline) => deadline,
            None if setting.absolute => setting.initial,
            None => self.start_of(ctx, slot, queue).saturating_add(setting.initial),
        };
        let new_flags = setting.flags(queue, relative);
        let all = RELATIVE | PERIODIC | BURST | DELAY | AGAIN | CLOCK_MASK << QUEUE_SHIFT;
        let before = slot.flags.load(Relaxed) & all;
        slot.flags.store(slot.flags.load(Relaxed) & !all | new_flags, Relaxed);
        if let Err(error) = self.arm(ctx, index, slot, deadline) {
            slot.flags.store(slot.flags.load(Relaxed) & !all | before, Relaxed);
            return Err(error);
        }
        let period = match setting.may_start_again() {
            true => setting.period_ns(),
            false => self.delay_until(ctx, queue, setting.initial),
        };
        slot.aux.store(period.cast_unsigned(), Relaxed);
        ctx.cancel_record(index, slot);
        Ok(())
    }

    /// Starts a timer again. `given`: the deadline, if it was computed already.
    #[inline]
    pub fn again(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        given: Option<i64>,
    ) -> Result<()> {
        let flags = slot.flags.load(Relaxed);
        if flags & AGAIN == 0 {
            return Err(never_relative());
        }
        let queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
        let period = slot.aux.load(Relaxed).cast_signed();
        let deadline = match given {
            Some(deadline) => deadline,
            None => self.start_of(ctx, slot, queue).saturating_add(period),
        };
        if given.is_none() {
            slot.set(RELATIVE);
        } else {
            slot.unset(RELATIVE);
        }
        self.arm(ctx, index, slot, deadline)?;
        ctx.cancel_record(index, slot);
        Ok(())
    }

    /// The time from which a timer counts that is set now. The deadline of a
    /// disabled timer is not settled later.
    #[inline]
    fn start_of(&mut self, ctx: &mut SourceCtx, slot: &WatcherSlot, clock: usize) -> i64 {
        if slot.has(ENABLED) { self.base(ctx, clock) } else { ctx.read_clock(clock) }
    }

    /// The base of a clock: in a callback, the provisional time until `settle`.
    #[inline]
    fn base(&mut self, ctx: &mut SourceCtx, clock: usize) -> i64 {
        if !ctx.in_callback {
            return ctx.read_clock(clock);
        }
        match self.clock(clock).base {
            Some(base) => base,
            None => {
                let base = ctx.read_clock(clock);
                self.clock(clock).base = Some(base);
                self.based = true;
                base
            }
        }
    }

    /// Reserves what `arm` needs to put a timer into another queue: where that
    /// has no memory the timer must not be stopped before.
    fn reserve(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        queue: usize,
    ) -> Result<()> {
        if !slot.has(ENABLED) {
            return ctx.extra(index, slot).map(drop);
        }
        let is_reserved = self.arming.try_reserve(1).is_ok();
        let is_reserved = is_reserved && self.clock(queue).queue.reserve().is_ok();
        if is_reserved { Ok(()) } else { Err(no_memory()) }
    }

    /// Queues a timer; in a callback, lists it to be settled.
    #[inline]
    pub(super) fn arm(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        deadline: i64,
    ) -> Result<()> {
        let flags = slot.flags.load(Relaxed);
        let seq = self.next_seq();
        if flags & ENABLED == 0 {
            self.park(ctx, index, slot, deadline)?;
            slot.node.set_seq(seq);
            return Ok(());
        }
        let queue = queue_index(slot);
        self.recheck |= 1 << queue;
        if !ctx.in_callback {
            let nodes = TimerNodes(ctx.shared, queue);
            let queue = &mut self.clock(queue).queue;
            queue.arm(&nodes, index, deadline, seq).map_err(|_| no_memory())?;
            self.renumber_if_many(ctx.shared);
            self.note_set(ctx, slot);
            return Ok(());
        }
        // A timer that is queued gets a provisional deadline in its queue. One
        // that is listed in `arming`, but not queued, is queued now.
        let queued = slot.node.deadline().is_some();
        if flags & ARMING == 0 {
            if self.arming.try_reserve(1).is_err() {
                return Err(no_memory());
            }
            if queued {
                let nodes = TimerNodes(ctx.shared, queue);
                let queue = &mut self.clock(queue).queue;
                queue.arm(&nodes, index, deadline, seq).map_err(|_| no_memory())?;
            } else {
                slot.node.set_seq(seq);
            }
            self.arming.push_reserved(Arming { index, deadline, seq });
            slot.set(ARMING);
        } else {
            let nodes = TimerNodes(ctx.shared, queue);
            let queue = &mut self.clock(queue).queue;
            queue.arm(&nodes, index, deadline, seq).map_err(|_| no_memory())?;
        }
        if flags & SET == 0 {
            self.note_set(ctx, slot);
        }
        Ok(())
    }

    fn note_set(&mut self, ctx: &mut SourceCtx, slot: &WatcherSlot) {
        slot.set(SET);
        ctx.count_liveness(slot);
    }

    /// Stops a timer.
    pub fn stop(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        ctx.cancel_record(index, slot);
        let seq = self.next_seq();
        if slot.flags.load(Relaxed) & SET == 0 {
            // An expiration that waits in the batch is dropped: its seq
            // differs.
            return slot.node.set_seq(seq);
        }
        let queue = queue_index(slot);
        self.clock(queue).queue.disarm(&TimerNodes(ctx.shared, queue), index);
        slot.node.set_seq(seq);
        slot.unset(SET | ARMING | PARKED);
        ctx.count_liveness(slot);
    }

    /// When a timer that is set expires.
    pub fn deadline(&self, ctx: &SourceCtx, index: u32, slot: &WatcherSlot) -> Option<i64> {
        if slot.has(PARKED) {
            return ctx.extras.get(&index).map(|extra| extra.parked);
        }
        let listed = |timers: &TimerSource| {
            let last = timers.arming.iter().rev().find(|arming| arming.index == index);
            last.map(|arming| arming.deadline)
        };
        slot.node.deadline().or_else(|| listed(self))
    }

    fn clock_base(&self, clock: usize) -> Option<i64> {
        self.clocks.get(clock)?.base
    }

    pub fn remaining(&self, ctx: &SourceCtx, index: u32, slot: &WatcherSlot) -> i64 {
        match self.deadline(ctx, index, slot) {
            Some(deadline) if slot.has(SET) => {
                let queue = queue_index(slot);
                let base = if slot.has(ARMING | RELATIVE) { self.clock_base(queue) } else { None };
                // One that counts from later than now has all its time left.
                let now = base.unwrap_or_else(|| ctx.read_clock(queue));
                deadline.saturating_sub(now).max(0)
            }
            _ => i64::MAX,
        }
    }

    /// Takes the next timer that is due on a clock.
    pub fn pop_due(
        &mut self,
        ctx: &mut SourceCtx,
        clock: usize,
        now: i64,
        corrections: &mut u32,
    ) -> timer_queue::Popped {
        self.clock(clock).queue.pop(&TimerNodes(ctx.shared, clock), now, corrections)
    }

    /// A timer was popped: its event, and what it is set to next. `None`: it
    /// was set again by a callback of this iteration.
    pub fn expired(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        deadline: i64,
        now: i64,
    ) -> Option<(u64, i64)> {
        let flags = slot.flags.load(Relaxed);
        if flags & ARMING != 0 {
            self.list_again(index, slot, deadline);
            return None;
        }
        if flags & PERIODIC == 0 {
            slot.unset(SET);
            ctx.count_liveness(slot);
            return Some((1, deadline));
        }
        let interval = slot.aux.load(Relaxed).cast_signed().max(1);
        let late = now.saturating_sub(deadline).max(0);
        let missed = if flags & BURST != 0 { 0 } else { late / interval };
        if flags & DELAY != 0 {
            slot.set(RELATIVE);
            let next = self.base(ctx, queue_index(slot)).saturating_add(interval);
            if self.arm(ctx, index, slot, next).is_err() {
                self.rearm(ctx, index, slot, next);
            }
            return Some((1, deadline));
        }
        slot.unset(RELATIVE);
        let next = deadline.saturating_add(interval.saturating_mul(missed + 1));
        self.rearm(ctx, index, slot, next);
        Some((missed.cast_unsigned() + 1, deadline))
    }

    /// Queues a periodic timer for its next time.
    #[inline]
    fn rearm(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot, next: i64) {
        let seq = self.next_seq();
        let nodes = TimerNodes(ctx.shared, queue_index(slot));
        let queue = &mut self.clock(queue_index(slot)).queue;
        if queue.arm(&nodes, index, next, seq).is_ok() {
            return;
        }
        // The timer has just left the queue: it is unlikely to need more
        // memory.
        if self.arming.try_reserve(1).is_ok() {
            slot.set(ARMING);
            self.arming.push_reserved(Arming { index, deadline: next, seq });
            return slot.node.set_seq(seq);
        }
        slot.unset(SET);
        ctx.count_liveness(slot);
        ctx.fail(slot.handle(Kind::Watcher, index), Errno::ENOMEM);
    }
}

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

#[cfg(test)]
#[path = "timers_tests.rs"]
mod tests;
