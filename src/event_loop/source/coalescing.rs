//! Adaptive coalescing: timers that share wake-ups while they are dense.
//!
//! A timer without a tolerance is woken for at its deadline as long as wake-ups
//! for nothing but timers are few. Were they more than about a thousand a
//! second, the loop wakes up for several timers at once: each is late by at
//! most a tenth of its delay or interval, and by at most a millisecond. Their
//! order stays as it is, and one that has no other near it is not late at all.
//!
//! This costs two comparisons a sleep, and an addition a wake-up. Only while
//! there are too many does the loop look through the timers that come up next,
//! before it sleeps. Nothing is kept with a timer: what it is set to says how
//! late it may be.

use crate::event_loop::slot;
use crate::event_loop::source::clocks::LoopClock;
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::timer_nodes::TimerNodes;
use crate::event_loop::source::timers::TimerSource;
use crate::sync::Ordering::Relaxed;
use crate::timer_queue::{Node, Shared};

/// One wake-up for timers alone in this time is not too many,
const EACH_NS: i64 = 1_000_000;
/// nor are so many at once.
const AT_ONCE: i64 = 16;
/// The most that a timer is late for the sake of others, and that its delay or
/// interval is divided by for the same.
const MOST_LATE_NS: i64 = 1_000_000;
const PART: i64 = 10;

/// How often a clock's timers, and nothing else, woke up the loop.
pub(in crate::event_loop) struct Pace {
    /// When the wake-ups so far would have been over, had they come one by one
    /// in their time: a leaky bucket.
    over: i64,
    /// This iteration is one of them.
    is_woken: bool,
    /// How many wake-ups the next one saves.
    saved: u32,
}

impl Pace {
    pub const fn new() -> Self {
        Self { over: i64::MIN, is_woken: false, saved: 0 }
    }

    /// The clock's timer ended a wait; `alone`: and nothing else did.
    #[inline]
    pub fn ended_wait(&mut self, alone: bool) {
        self.is_woken = alone;
    }

    /// What is due at this time is called. It is counted if it was slept for;
    /// how many wake-ups that has saved.
    #[inline]
    pub fn look(&mut self, now: i64) -> u32 {
        if !std::mem::take(&mut self.is_woken) {
            return 0;
        }
        // No more is kept than what it takes to be too many: a clock may be set
        // back, too.
        let most = now.saturating_add((AT_ONCE + 1) * EACH_NS);
        self.over = self.over.max(now).saturating_add(EACH_NS).min(most);
        std::mem::take(&mut self.saved)
    }

    /// From when on another wake-up is not too many.
    #[inline]
    fn free_from(&self) -> i64 {
        self.over.saturating_sub(AT_ONCE * EACH_NS)
    }
}

/// How late a timer without a tolerance may be.
fn allowance(id: u32) -> i64 {
    // Of one that is set once this is its delay, else its interval.
    let period = slot::get(id).map_or(0, |slot| slot.aux.load(Relaxed).cast_signed());
    (period / PART).clamp(0, MOST_LATE_NS)
}

/// When a timer has to be woken for at the latest.
fn latest(id: u32, node: &Node, deadline: i64) -> i64 {
    let late = match node.tolerance() {
        0 => allowance(id),
        tolerance => tolerance,
    };
    deadline.saturating_add(late)
}

impl TimerSource {
    /// The delay of a timer that expires once, at this time of a clock.
    #[inline(never)]
    pub fn delay_until(&self, ctx: &SourceCtx, clock: usize, time: i64) -> i64 {
        match ctx.precise || ctx.virtual_time {
            // Of no use.
            true => 0,
            false => time.saturating_sub(ctx.read_clock(clock)),
        }
    }

    /// When to wake up for a clock's timers, of which one has to be woken for
    /// at `first`; not after `until`.
    #[inline]
    pub fn coalesce(&mut self, ctx: &mut SourceCtx, clock: usize, first: i64, until: i64) -> i64 {
        let shared = ctx.shared;
        let LoopClock { queue, pace, .. } = self.clock(clock);
        let free = pace.free_from();
        if first >= free {
            pace.saved = 0;
            return first;
        }
        let until = until.min(free).min(first.saturating_add(MOST_LATE_NS));
        let Shared { wake, saved } =
            queue.share_wake(&TimerNodes(shared, clock), first, until, latest);
        pace.saved = saved;
        wake
    }
}
