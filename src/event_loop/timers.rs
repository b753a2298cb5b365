//! Timers: their clocks, and how they are set.
//!
//! Each clock has a queue and, unless time is virtual, a timerfd, which is
//! set only when something is due earlier than it is set to.
//!
//! A timer that is set in a callback counts from the end of the iteration's
//! callbacks: that needs one reading of the clock for all of them, and is
//! never early. Until then (`ARMING`) it counts from a time before.

use super::clocks::{Clock, MONOTONIC, NEVER, REALTIME};
use super::core::Core;
use super::desk::{CLOCKS, Desk};
use super::flags::*;
use super::record::{self, Record};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::memory;
use crate::timer_queue::{self, Node};
use crate::util::alloc::TryVec;

#[path = "timer_numbers.rs"]
mod numbers;

/// What a timer does about expirations that it missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Period {
    Skip,
    Burst,
    Delay,
}

/// How a timer is set; nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub absolute: bool,
    pub period: Period,
    /// Negative: not at all.
    pub initial: i64,
    pub interval: i64,
}

impl Setting {
    pub fn may_start_again(&self) -> bool {
        self.interval > 0 || !self.absolute
    }

    /// The flags of a timer that is set like this, in this queue.
    fn flags(&self, queue: usize, relative: bool) -> u32 {
        let mut flags = (queue as u32) << QUEUE_SHIFT;
        flags |= if relative { RELATIVE } else { 0 };
        flags |= if self.may_start_again() { AGAIN } else { 0 };
        flags
            | match (self.interval, self.period) {
                (0, _) => 0,
                (_, Period::Skip) => PERIODIC,
                (_, Period::Burst) => PERIODIC | BURST,
                (_, Period::Delay) => PERIODIC | DELAY,
            }
    }

    /// From when it is started again to when it expires.
    pub fn period_ns(&self) -> i64 {
        if self.interval > 0 { self.interval } else { self.initial }
    }
}

/// A timer to be made; see evloop_add_timer.
#[derive(Clone, Copy)]
pub(crate) struct NewTimer {
    pub clock: usize,
    pub setting: Setting,
    pub tolerance: i64,
}

/// A relative timer on the wall clock is not affected by its steps: it
/// counts on the clock that has none, as the kernel's do.
pub(super) fn queue_of(clock: usize, setting: &Setting) -> usize {
    if clock == REALTIME && !setting.absolute { MONOTONIC } else { clock }
}

/// A timer that was set in this iteration.
struct Arming {
    index: u32,
    deadline: i64,
    seq: u64,
}

pub(super) struct Timers {
    pub clocks: [Clock; CLOCKS],
    /// The clocks on which something may be due, as bits, and those whose
    /// queue has changed since their timer was set.
    pub due: u32,
    pub recheck: u32,
    arming: Vec<Arming>,
    /// The tolerance of timers that are added without one; ns.
    pub tolerance: i64,
    /// Some clock has a base.
    based: bool,
    seq: u64,
}

/// The records' nodes, as the queue with this number of this loop wants them:
/// an entry that was left behind is nobody's, whatever its record is now.
pub(super) struct Nodes(pub &'static Desk, pub usize);

impl timer_queue::Timers for Nodes {
    #[inline(always)]
    fn node(&self, id: u32) -> Option<&Node> {
        const MASK: u32 = SOURCE | CLOCK_MASK << QUEUE_SHIFT;
        let record = record::get(id)?;
        let ours = record.desk().is_some_and(|desk| std::ptr::eq(desk, self.0));
        let wanted = Source::Timer as u32 | (self.1 as u32) << QUEUE_SHIFT;
        (ours && record.flags.load(Relaxed) & MASK == wanted).then_some(&record.node)
    }

    #[inline(always)]
    fn prefetch(&self, id: u32) {
        if let Some(record) = record::get(id) {
            memory::prefetch(record);
        }
    }
}

/// The number of the next setting; a node keeps 40 bits of it. They are not
/// used up: see [`Timers::renumber`].
#[inline(always)]
fn after(seq: u64) -> u64 {
    seq.wrapping_add(1) & ((1 << 40) - 1)
}

/// The error for a timer that cannot be started again.
pub(super) fn never_relative() -> Error {
    error!(Errno::EINVAL, "the timer was not set to a relative time before")
}

fn no_memory() -> Error {
    error!(Errno::ENOMEM, "no memory for a timer")
}

fn queue_index(record: &Record) -> usize {
    (record.flags.load(Relaxed) >> QUEUE_SHIFT & CLOCK_MASK) as usize
}

impl Timers {
    pub const fn new(tolerance: i64) -> Self {
        Self {
            clocks: [const { Clock::new() }; CLOCKS],
            due: 0,
            recheck: 0,
            arming: Vec::new(),
            tolerance,
            based: false,
            seq: 0,
        }
    }

    pub fn clock(&mut self, index: usize) -> &mut Clock {
        // An index is always one of a clock.
        let index = index.min(CLOCKS - 1);
        #[allow(clippy::indexing_slicing)]
        &mut self.clocks[index]
    }

    /// Sets a new timer to a relative time, in a callback: its record, and
    /// the flags for it. `None`: that is not that simple, and no record was
    /// taken.
    #[inline(always)]
    pub fn start(
        &mut self,
        new: &NewTimer,
        take: impl FnOnce() -> Option<u32>,
    ) -> Option<(u32, &'static Record, u32)> {
        let queue = queue_of(new.clock, &new.setting);
        let deadline = self.clock(queue).base?.saturating_add(new.setting.initial);
        let listed = self.arming.len();
        let place = self.arming.spare_capacity_mut().first_mut()?;
        let index = take()?;
        let record = record::get(index)?;
        let seq = after(self.seq);
        place.write(Arming { index, deadline, seq });
        // SAFETY: its place has just been filled.
        unsafe { self.arming.set_len(listed + 1) };
        self.seq = seq;
        let tolerance = if new.tolerance == 0 { self.tolerance } else { new.tolerance };
        record.node.begin(seq, tolerance);
        record.aux.store(new.setting.period_ns().cast_unsigned(), Relaxed);
        let of_source = Source::Timer.bits() | ENABLED | SET | ARMING;
        let of_clock = (new.clock as u32) << CLOCK_SHIFT;
        Some((index, record, of_source | of_clock | new.setting.flags(queue, true)))
    }

    /// Starts a queued timer again, in a callback; false: that is not that
    /// simple, and nothing was done.
    #[inline(always)]
    pub fn start_again(&mut self, index: u32, record: &Record, flags: u32) -> bool {
        let queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
        let Some(base) = self.clock(queue).base else { return false };
        let deadline = base.saturating_add(record.aux.load(Relaxed).cast_signed());
        let seq = after(self.seq);
        if flags & ARMING != 0 {
            let armed = record.node.arm_later(deadline, seq);
            self.seq = if armed { seq } else { self.seq };
            return armed;
        }
        let listed = self.arming.len();
        let Some(place) = self.arming.spare_capacity_mut().first_mut() else { return false };
        if !record.node.arm_later(deadline, seq) {
            return false;
        }
        place.write(Arming { index, deadline, seq });
        // SAFETY: its place has just been filled.
        unsafe { self.arming.set_len(listed + 1) };
        self.seq = seq;
        record.flags.store(flags | ARMING, Relaxed);
        true
    }

    fn next_seq(&mut self) -> u64 {
        self.seq = after(self.seq);
        self.seq
    }

    /// One in the list was popped from its queue: only the list has it now.
    fn list_again(&mut self, index: u32, record: &Record, deadline: i64) {
        let seq = self.next_seq();
        record.node.set_seq(seq);
        let again = Arming { index, deadline, seq };
        if self.arming.try_reserve(1).is_ok() {
            return self.arming.push_reserved(again);
        }
        if let Some(listed) = self.arming.iter_mut().rfind(|arming| arming.index == index) {
            *listed = again;
        }
    }

    /// As Core::abandon.
    pub fn abandon(&self) {
        self.clocks.iter().filter_map(|clock| clock.fd.as_ref()).for_each(Fd::abandon);
    }

    /// Whether there is something to settle.
    pub fn is_arming(&self) -> bool {
        self.based || !self.arming.is_empty()
    }
}

impl Core {
    /// Sets, or stops, a timer. `deadline`: where it was found already.
    pub fn timer_set(
        &mut self,
        index: u32,
        record: &Record,
        setting: &Setting,
        deadline: Option<i64>,
    ) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        let clock = (flags >> CLOCK_SHIFT & CLOCK_MASK) as usize;
        let queue = queue_of(clock, setting);
        self.ensure_clock(queue)?;
        if setting.initial < 0 {
            self.timer_stop(index, record);
            record.unset(AGAIN);
            return Ok(());
        }
        // A periodic one waits there if there is no memory to queue it again.
        if setting.interval > 0 && self.timers.arming.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory for a periodic timer");
        }
        if queue != queue_index(record) {
            self.timer_stop(index, record);
            // Its entry is in the other queue, where it is of no use now.
            record.node.forget_entry();
        }
        let relative = !setting.absolute && deadline.is_none();
        let deadline = match deadline {
            Some(deadline) => deadline,
            None if setting.absolute => setting.initial,
            None => self.start_of(record, queue).saturating_add(setting.initial),
        };
        let how = setting.flags(queue, relative);
        let all = RELATIVE | PERIODIC | BURST | DELAY | AGAIN | CLOCK_MASK << QUEUE_SHIFT;
        let before = record.flags.load(Relaxed) & all;
        record.flags.store(record.flags.load(Relaxed) & !all | how, Relaxed);
        if let Err(error) = self.timer_arm(index, record, deadline) {
            record.flags.store(record.flags.load(Relaxed) & !all | before, Relaxed);
            return Err(error);
        }
        let period = match setting.may_start_again() {
            true => setting.period_ns(),
            false => self.delay_until(queue, setting.initial),
        };
        record.aux.store(period.cast_unsigned(), Relaxed);
        self.take_back(index, record);
        Ok(())
    }

    /// Starts a timer again; `deadline` as in `timer_set`.
    #[inline]
    pub fn timer_again(&mut self, index: u32, record: &Record, at: Option<i64>) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        if flags & AGAIN == 0 {
            return Err(never_relative());
        }
        let queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
        let period = record.aux.load(Relaxed).cast_signed();
        let deadline = match at {
            Some(deadline) => deadline,
            None => self.start_of(record, queue).saturating_add(period),
        };
        if at.is_none() {
            record.set(RELATIVE);
        } else {
            record.unset(RELATIVE);
        }
        self.timer_arm(index, record, deadline)?;
        self.take_back(index, record);
        Ok(())
    }

    /// From when on a timer counts that is set now. The time of a disabled one
    /// is not settled: it is kept as it is.
    #[inline]
    fn start_of(&mut self, record: &Record, clock: usize) -> i64 {
        if record.has(ENABLED) { self.base(clock) } else { self.read_clock(clock) }
    }

    /// The same, before it is settled.
    #[inline]
    fn base(&mut self, clock: usize) -> i64 {
        if !self.in_callback {
            return self.read_clock(clock);
        }
        match self.timers.clock(clock).base {
            Some(base) => base,
            None => {
                let base = self.read_clock(clock);
                self.timers.clock(clock).base = Some(base);
                self.timers.based = true;
                base
            }
        }
    }

    /// Puts a timer into its queue, or among those that will be.
    #[inline]
    fn timer_arm(&mut self, index: u32, record: &Record, deadline: i64) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        let timers = &mut self.timers;
        let seq = timers.next_seq();
        if flags & ENABLED == 0 {
            self.timer_park(index, record, deadline)?;
            record.node.set_seq(seq);
            return Ok(());
        }
        let queue = queue_index(record);
        timers.recheck |= 1 << queue;
        if !self.in_callback {
            let nodes = Nodes(self.desk, queue);
            let queue = &mut timers.clock(queue).queue;
            queue.arm(&nodes, index, deadline, seq).map_err(|_| no_memory())?;
            timers.renumber_if_many(self.desk);
            self.timer_is_set(record);
            return Ok(());
        }
        // What is queued already is only made later, or earlier, for now; and
        // what is in the list below already, but not queued, is queued now.
        let queued = record.node.deadline().is_some();
        if flags & ARMING == 0 {
            if timers.arming.try_reserve(1).is_err() {
                return Err(no_memory());
            }
            if queued {
                let nodes = Nodes(self.desk, queue);
                let queue = &mut timers.clock(queue).queue;
                queue.arm(&nodes, index, deadline, seq).map_err(|_| no_memory())?;
            } else {
                record.node.set_seq(seq);
            }
            timers.arming.push_reserved(Arming { index, deadline, seq });
            record.set(ARMING);
        } else {
            let nodes = Nodes(self.desk, queue);
            let queue = &mut timers.clock(queue).queue;
            queue.arm(&nodes, index, deadline, seq).map_err(|_| no_memory())?;
        }
        if flags & SET == 0 {
            self.timer_is_set(record);
        }
        Ok(())
    }

    fn timer_is_set(&mut self, record: &Record) {
        record.set(SET);
        self.count_liveness(record);
    }

    /// Keeps the time of a disabled timer.
    fn timer_park(&mut self, index: u32, record: &Record, deadline: i64) -> Result<()> {
        self.extra(index, record)?.parked = deadline;
        record.set(PARKED | SET);
        Ok(())
    }

    /// Changes how late a timer may be.
    pub fn timer_set_tolerance(
        &mut self,
        index: u32,
        record: &Record,
        tolerance: i64,
    ) -> Result<()> {
        let queue = queue_index(record);
        if record.node.deadline().is_none() {
            record.node.set_tolerance(tolerance);
            // An entry that was left behind is woken for too late, perhaps.
            record.node.forget_entry();
            return Ok(());
        }
        let timers = &mut self.timers;
        timers.recheck |= 1 << queue;
        let nodes = Nodes(self.desk, queue);
        timers.clock(queue).queue.set_tolerance(&nodes, index, tolerance).map_err(|_| no_memory())
    }

    /// Stops a timer.
    pub fn timer_stop(&mut self, index: u32, record: &Record) {
        self.take_back(index, record);
        let timers = &mut self.timers;
        let seq = timers.next_seq();
        if record.flags.load(Relaxed) & SET == 0 {
            // An expiration may be waiting to be dispatched: not of this.
            return record.node.set_seq(seq);
        }
        let queue = queue_index(record);
        timers.clock(queue).queue.disarm(&Nodes(self.desk, queue), index);
        record.node.set_seq(seq);
        record.unset(SET | ARMING | PARKED);
        self.count_liveness(record);
    }

    /// A timer is disabled: what it is set to is kept.
    pub fn timer_disable(&mut self, index: u32, record: &Record) -> Result<()> {
        if record.has(SET) && !record.has(PARKED) {
            let mut deadline = self.timer_deadline(index, record).unwrap_or(NEVER);
            let queue = queue_index(record);
            if record.has(ARMING | RELATIVE)
                && let Some(base) = self.timers.clock(queue).base
            {
                // It counts from now, as `settle` would have it.
                let passed = self.read_clock(queue).saturating_sub(base).max(0);
                deadline = deadline.saturating_add(passed);
            }
            self.timer_park(index, record, deadline)?;
            let timers = &mut self.timers;
            let queue = queue_index(record);
            timers.clock(queue).queue.disarm(&Nodes(self.desk, queue), index);
            record.unset(ARMING);
        }
        Ok(())
    }

    /// An expiration was taken, but the timer was disabled before it was
    /// dispatched: it is as if it was not taken.
    pub fn timer_put_back(&mut self, index: u32, record: &Record, deadline: i64) {
        if self.timer_park(index, record, deadline).is_ok() {
            let timers = &mut self.timers;
            let queue = queue_index(record);
            timers.clock(queue).queue.disarm(&Nodes(self.desk, queue), index);
        } else {
            self.fail(record.handle(Kind::Watcher, index), Errno::ENOMEM);
        }
    }

    /// An expiration was taken that cannot be reported now: it comes again.
    pub fn timer_retry(&mut self, index: u32, record: &Record, deadline: i64) {
        record.unset(RELATIVE);
        if self.timer_arm(index, record, deadline).is_err() {
            self.fail(record.handle(Kind::Watcher, index), Errno::ENOMEM);
        }
    }

    /// It is enabled again (the flag says so already).
    pub fn timer_enable(&mut self, index: u32, record: &Record) -> Result<()> {
        if !record.has(PARKED) {
            return Ok(());
        }
        let deadline = self.extras.get(&index).map_or(NEVER, |extra| extra.parked);
        // Not to be shifted: it counts from when it was set.
        record.unset(RELATIVE);
        self.timer_arm(index, record, deadline)?;
        record.unset(PARKED);
        Ok(())
    }

    /// When a timer that is set expires.
    pub fn timer_deadline(&self, index: u32, record: &Record) -> Option<i64> {
        if record.has(PARKED) {
            return self.extras.get(&index).map(|extra| extra.parked);
        }
        let listed = |timers: &Timers| {
            let last = timers.arming.iter().rev().find(|arming| arming.index == index);
            last.map(|arming| arming.deadline)
        };
        record.node.deadline().or_else(|| listed(&self.timers))
    }

    fn clock_base(&self, clock: usize) -> Option<i64> {
        self.timers.clocks.get(clock)?.base
    }

    pub fn timer_remaining(&self, index: u32, record: &Record) -> i64 {
        match self.timer_deadline(index, record) {
            Some(deadline) if record.has(SET) => {
                let queue = queue_index(record);
                let base =
                    if record.has(ARMING | RELATIVE) { self.clock_base(queue) } else { None };
                // One that counts from later than now has all its time left.
                let now = base.unwrap_or_else(|| self.read_clock(queue));
                deadline.saturating_sub(now).max(0)
            }
            _ => i64::MAX,
        }
    }

    /// Lets the timers that were set in this iteration count from now.
    pub fn settle(&mut self) {
        if !self.timers.is_arming() {
            return;
        }
        self.timers.based = false;
        let mut shift = [0; CLOCKS];
        for (clock, shift) in shift.iter_mut().enumerate() {
            if let Some(base) = self.timers.clock(clock).base.take() {
                let now = self.read_clock(clock);
                *shift = now.saturating_sub(base).max(0);
                self.timers.clock(clock).settled = Some(now);
            }
        }
        let timers = &mut self.timers;
        let desk = self.desk;
        let mut list = std::mem::take(&mut timers.arming);
        list.retain_mut(|arming| {
            let Some(record) = record::get(arming.index) else { return false };
            settle_one(timers, desk, arming, record, &shift).is_err()
        });
        // What found no memory is tried again, from the same time on.
        timers.arming = list;
        if timers.arming.capacity() > 8192 && timers.arming.is_empty() {
            timers.arming = Vec::new();
        }
    }

    /// How long it is until the first timer expires that was set in this
    /// iteration, and is not queued yet.
    pub fn next_unsettled(&self) -> i64 {
        let left = |arming: &Arming| {
            let record = record::get(arming.index)?;
            let flags = record.flags.load(Relaxed);
            let counts = Source::of(flags) == Source::Timer
                && flags & ARMING != 0
                && record.node.deadline().is_none()
                && record.node.seq() == arming.seq;
            counts.then(|| self.timer_remaining(arming.index, record))
        };
        self.timers.arming.iter().filter_map(left).min().unwrap_or(i64::MAX)
    }

    /// Takes the next timer that is due on a clock.
    pub fn pop_due(
        &mut self,
        clock: usize,
        now: i64,
        corrections: &mut u32,
    ) -> timer_queue::Popped {
        let timers = &mut self.timers;
        timers.clock(clock).queue.pop(&Nodes(self.desk, clock), now, corrections)
    }

    /// A timer was popped: its event, and what it is set to next. `None`: it
    /// was set anew by a callback of this iteration.
    pub fn expired(
        &mut self,
        index: u32,
        record: &Record,
        deadline: i64,
        now: i64,
    ) -> Option<(u64, i64)> {
        let flags = record.flags.load(Relaxed);
        if flags & ARMING != 0 {
            self.timers.list_again(index, record, deadline);
            return None;
        }
        if flags & PERIODIC == 0 {
            record.unset(SET);
            self.count_liveness(record);
            return Some((1, deadline));
        }
        let interval = record.aux.load(Relaxed).cast_signed().max(1);
        let late = now.saturating_sub(deadline).max(0);
        let missed = if flags & BURST != 0 { 0 } else { late / interval };
        if flags & DELAY != 0 {
            record.set(RELATIVE);
            let next = self.base(queue_index(record)).saturating_add(interval);
            if self.timer_arm(index, record, next).is_err() {
                self.rearm(index, record, next);
            }
            return Some((1, deadline));
        }
        record.unset(RELATIVE);
        let next = deadline.saturating_add(interval.saturating_mul(missed + 1));
        self.rearm(index, record, next);
        Some((missed.cast_unsigned() + 1, deadline))
    }

    /// Queues a periodic timer for its next time.
    #[inline]
    fn rearm(&mut self, index: u32, record: &Record, next: i64) {
        let seq = self.timers.next_seq();
        let timers = &mut self.timers;
        let nodes = Nodes(self.desk, queue_index(record));
        let queue = &mut timers.clock(queue_index(record)).queue;
        if queue.arm(&nodes, index, next, seq).is_ok() {
            return;
        }
        // It has just left the queue, whose memory is hardly less than before.
        if timers.arming.try_reserve(1).is_ok() {
            record.set(ARMING);
            timers.arming.push_reserved(Arming { index, deadline: next, seq });
            return record.node.set_seq(seq);
        }
        record.unset(SET);
        self.count_liveness(record);
        self.fail(record.handle(Kind::Watcher, index), Errno::ENOMEM);
    }
}

fn settle_one(
    timers: &mut Timers,
    desk: &'static Desk,
    arming: &mut Arming,
    record: &Record,
    shift: &[i64; CLOCKS],
) -> std::result::Result<(), timer_queue::NoMemory> {
    let flags = record.flags.load(Relaxed);
    // Closed, or given to another watcher, or in the list twice.
    if Source::of(flags) != Source::Timer || flags & ARMING == 0 {
        return Ok(());
    }
    let queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
    let relative = flags & RELATIVE != 0;
    let shift = if relative { shift.get(queue).copied().unwrap_or(0) } else { 0 };
    let deadline = match record.node.deadline() {
        Some(deadline) => {
            // It is queued, and later does not change that.
            record.node.delay(deadline.saturating_add(shift));
            record.unset(ARMING);
            return Ok(());
        }
        None if record.node.seq() == arming.seq => arming.deadline,
        None => return Ok(()),
    };
    let seq = record.node.seq();
    timers.recheck |= 1 << queue;
    // If it has to be tried again, then for the same time.
    arming.deadline = deadline.saturating_add(shift);
    record.unset(RELATIVE);
    let (nodes, place) = (Nodes(desk, queue), (arming.index, &record.node));
    timers.clock(queue).queue.arm_node(&nodes, place, arming.deadline, seq)?;
    record.unset(ARMING);
    if relative {
        record.set(RELATIVE);
    }
    Ok(())
}

#[cfg(test)]
#[path = "timers_tests.rs"]
mod tests;
