//! What a loop counts, in cells that any thread may read at any time.
//!
//! Only the loop's thread adds to them. A reset keeps their values, which are
//! subtracted from then on: so no thread waits for another.

use super::activity::{Activity, ActivityCell};
use super::cells::Cells;
use super::histogram::{self, BUCKETS};
use super::probe::CallbackRun;
use super::text::cut;
use crate::errno::{Result, fail};
use crate::sync::{AtomicI64, AtomicU32, AtomicU64, Ordering::*};
use crate::sys::clock;
use crate::util::alloc::try_array;
use crate::util::try_arc::TryArc;
use std::ffi::{c_char, c_int};

/// Size of a watcher's name in a structure of the program's, with the NUL byte.
pub(in crate::event_loop) const NAME: usize = 64;
/// Types of events, with room.
const TYPES: usize = 32;

/// What an event loop has done since evloop_set_stats() or
/// evloop_stats_reset(). Set size first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stats {
    /// sizeof(evloop_stats_t).
    pub size: usize,
    /// How long ago that was.
    pub elapsed_ns: i64,
    /// Calls of epoll_wait(), with and without waiting.
    pub iterations: u64,
    /// Those of them that were to wait, and ended.
    pub wakeups: u64,
    /// Time asleep; a sleep that is going on is counted up to now.
    pub asleep_ns: i64,
    /// Time in callbacks that have returned.
    pub callback_ns: i64,
    /// The longest callback that has returned.
    pub longest_ns: i64,
    /// When it began, on CLOCK_MONOTONIC; 0 if there was none.
    pub longest_since_ns: i64,
    /// Its watcher, which may be closed by now; 0 for a posted call.
    pub longest_watcher: i64,
    /// The greatest lateness of a timer.
    pub latest_ns: i64,
    /// Events that were delivered, by their EVLOOP_EVENT type.
    pub events: [u64; 32],
    /// The type of the longest callback's event, 0 if there was none.
    pub longest_type: c_int,
    /// 0.
    pub reserved: c_int,
    /// The longest callback's watcher's name, when it returned; empty if it
    /// had none. NUL-terminated and cut to fit, not inside a character.
    pub longest_name: [c_char; 64],
    /// Since 0.2.0: wake-ups that timers did without, because they shared
    /// others; see evloop_add_timer(). At least so many.
    pub wakeups_saved: u64,
}

/// The histograms there are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum HistogramKind {
    Lateness,
    Callback,
}

const ITERATIONS: usize = 0;
const WAKEUPS: usize = 1;
const ASLEEP_NS: usize = 2;
const CALLBACK_NS: usize = 3;
const EVENTS: usize = 4;
const LATENESS: usize = EVENTS + TYPES;
/// In cells, since they are counted in units of the processor's counter.
const CALLBACK: usize = LATENESS + BUCKETS;
const SAVED: usize = CALLBACK + histogram::CELLS;
const CELLS: usize = SAVED + 1;

/// What the loop's thread counts.
pub(in crate::event_loop) struct Counters {
    cells: Cells,
    /// The longest callback, and the latest timer. A reset may come while they
    /// are set: then either counts.
    longest: AtomicI64,
    latest: AtomicI64,
    /// Nanoseconds of a unit of lengths, times 2^32.
    rate: AtomicU64,
    /// When and how often they were reset.
    since: AtomicI64,
    resets: AtomicU64,
    /// Whether the loop's thread adds to them.
    live: AtomicU32,
}

/// The same, in the command queue.
pub(in crate::event_loop) struct LoopStats {
    pub counters: TryArc<Counters>,
    /// What the cells were when they were last reset.
    base: Box<[u64]>,
    /// Where a histogram is put together.
    buckets: Box<[u64]>,
    since: i64,
    longest: Longest,
    /// Whether they are being counted.
    pub on: bool,
}

#[derive(Clone, Copy)]
struct Longest {
    ns: i64,
    since: i64,
    watcher: i64,
    kind: i32,
    name: [c_char; NAME],
}

const NONE: Longest = Longest { ns: 0, since: 0, watcher: 0, kind: 0, name: [0; NAME] };

impl Counters {
    fn new() -> Result<Self> {
        let Some(cells) = Cells::new(CELLS) else { return no_memory() };
        let zero = AtomicU64::new;
        let (longest, latest, since) = (AtomicI64::new(-1), AtomicI64::new(0), AtomicI64::new(0));
        let (rate, resets, live) = (zero(1), zero(0), AtomicU32::new(0));
        Ok(Self { cells, longest, latest, rate, since, resets, live })
    }

    pub fn resets(&self) -> u64 {
        // Acquire: with the time.
        self.resets.load(Acquire)
    }

    pub fn since(&self) -> i64 {
        self.since.load(Relaxed)
    }

    /// Whether the loop's thread adds to them; said by that.
    pub fn set_live(&self, live: bool) {
        self.live.store(live.into(), Relaxed);
    }

    /// The sleep that is going on and is to be counted when it ends, if any,
    /// and time asleep without it.
    fn asleep(&self, activity: &ActivityCell) -> (Option<Activity>, u64) {
        self.cells.asleep(ASLEEP_NS, activity, || self.live.load(Relaxed) != 0)
    }

    #[inline(always)]
    pub fn event(&self, kind: i32) {
        self.cells.add(EVENTS + (kind as usize & (TYPES - 1)), 1);
    }

    pub fn saved(&self, wakeups: u32) {
        self.cells.add(SAVED, wakeups.into());
    }

    pub fn lateness(&self, ns: i64) {
        self.cells.add(LATENESS + histogram::bucket_of(ns), 1);
        if ns > self.latest.load(Relaxed) {
            self.latest.store(ns, Relaxed);
        }
    }

    /// A callback has returned; true: none has taken longer.
    pub fn callback(&self, ns: i64, rate: u64) -> bool {
        self.cells.add_time(CALLBACK_NS, ns);
        let units = (u128::from(ns.max(0).cast_unsigned()) << 32) / u128::from(rate.max(1));
        // First: who finds the length needs it.
        self.set_rate(rate);
        self.length(units as u64);
        self.is_longest(ns)
    }

    /// What a unit of lengths is.
    pub fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Relaxed);
    }

    /// The same, in parts: how long a callback took; ...
    #[inline(always)]
    pub fn length(&self, units: u64) {
        self.cells.add(CALLBACK + histogram::cell_of(units), 1);
    }

    /// ... so many of a kind, and their time; ...
    #[inline(always)]
    pub fn callbacks(&self, kind: i32, count: usize, ns: i64) {
        self.cells.add(EVENTS + (kind as usize & (TYPES - 1)), count as u64);
        self.cells.add_time(CALLBACK_NS, ns);
    }

    /// ... whether none has taken longer.
    #[inline(always)]
    pub fn is_longest(&self, ns: i64) -> bool {
        ns > self.longest.load(Relaxed)
    }

    pub fn iteration(&self, slept: Option<i64>) {
        self.cells.add(ITERATIONS, 1);
        if let Some(ns) = slept {
            self.cells.add(WAKEUPS, 1);
            self.cells.add_time(ASLEEP_NS, ns);
        }
    }
}

fn no_memory<T>() -> Result<T> {
    fail!(ENOMEM, "no memory for {} counters", CELLS as i64)
}

impl LoopStats {
    pub fn new() -> Result<Self> {
        let (Some(counters), Some(base), Some(buckets)) =
            (TryArc::new(Counters::new()?), try_array(CELLS, |_| 0), try_array(BUCKETS, |_| 0))
        else {
            return no_memory();
        };
        Ok(Self { counters, base, buckets, since: 0, longest: NONE, on: false })
    }

    /// A longer callback than all before has returned.
    pub fn note_longest(&mut self, took: &CallbackRun, name: &[u8]) {
        // Not if they were reset since.
        if took.since >= self.since {
            let &CallbackRun { kind, watcher, since, ns } = took;
            self.counters.longest.store(ns, Relaxed);
            self.longest = Longest { ns, since, watcher, kind, name: short_name(name) };
        }
    }

    pub fn reset(&mut self, activity: &ActivityCell) {
        let counters = &self.counters;
        for (base, now) in self.base.iter_mut().zip(counters.cells.each()) {
            *base = now;
        }
        let (sleep, asleep) = counters.asleep(activity);
        self.since = clock::now_ns();
        // Up to now; all of a sleep is added when it ends.
        let before = sleep.map_or(0, |sleep| self.since.saturating_sub(sleep.since).max(0));
        if let Some(base) = self.base.get_mut(ASLEEP_NS) {
            *base = asleep.wrapping_add(before.cast_unsigned());
        }
        counters.longest.store(-1, Relaxed);
        counters.latest.store(0, Relaxed);
        counters.since.store(self.since, Relaxed);
        // Release: a callback that sees it ends after that time, and is not
        // counted.
        counters.resets.store(counters.resets() + 1, Release);
        self.longest = NONE;
    }

    fn count(&self, i: usize) -> u64 {
        self.counters.cells.read(i).wrapping_sub(self.base.get(i).copied().unwrap_or_default())
    }

    /// A histogram, bucket by bucket.
    pub fn histogram(&mut self, which: HistogramKind) -> &[u64] {
        let mut buckets = std::mem::take(&mut self.buckets);
        buckets.fill(0);
        match which {
            HistogramKind::Lateness => {
                for (bucket, out) in buckets.iter_mut().enumerate() {
                    *out = self.count(LATENESS + bucket);
                }
            }
            HistogramKind::Callback => self.count_callbacks(&mut buckets),
        }
        self.buckets = buckets;
        &self.buckets
    }

    fn count_callbacks(&self, buckets: &mut [u64]) {
        let rate = self.counters.rate.load(Relaxed);
        for cell in 0..histogram::CELLS {
            let count = self.count(CALLBACK + cell);
            if count > 0
                && let Some(out) = buckets.get_mut(histogram::bucket_of_cell(cell, rate))
            {
                *out += count;
            }
        }
    }

    /// A percentile of a histogram; `None`: that is empty.
    pub fn percentile(&mut self, which: HistogramKind, percent: f64) -> Option<i64> {
        let greatest = match which {
            HistogramKind::Lateness => self.counters.latest.load(Relaxed),
            HistogramKind::Callback => self.longest.ns,
        };
        let counts = self.histogram(which);
        let total: u64 = counts.iter().sum();
        if total == 0 {
            return None;
        }
        // How many are not above it; at least one is.
        let wanted = ((total as f64 * percent / 100.0).ceil() as u64).clamp(1, total);
        let mut so_far = 0;
        for (bucket, count) in counts.iter().enumerate() {
            so_far += *count;
            if so_far == total {
                // The last of all, which is known.
                return Some(greatest.max(histogram::least_of(bucket)));
            }
            if so_far >= wanted {
                return Some(histogram::least_of(bucket + 1).saturating_sub(1));
            }
        }
        Some(greatest)
    }

    fn time(&self, i: usize) -> i64 {
        self.count(i).cast_signed().max(0)
    }

    pub fn fill(&self, activity: &ActivityCell) -> Stats {
        let (sleep, asleep) = self.counters.asleep(activity);
        let now = clock::now_ns();
        let elapsed = now.saturating_sub(self.since);
        let going_on = sleep.map_or(0, |sleep| now.saturating_sub(sleep.since));
        // Less than nothing: that sleep began before they were reset.
        let before = self.base.get(ASLEEP_NS).copied().unwrap_or_default();
        let asleep = asleep.wrapping_sub(before).cast_signed().saturating_add(going_on);
        Stats {
            size: size_of::<Stats>(),
            elapsed_ns: elapsed,
            iterations: self.count(ITERATIONS),
            wakeups: self.count(WAKEUPS),
            // The loop's thread may just be between a sleep's end and counting
            // it.
            asleep_ns: asleep.clamp(0, elapsed.max(0)),
            callback_ns: self.time(CALLBACK_NS),
            longest_ns: self.longest.ns,
            longest_since_ns: self.longest.since,
            longest_watcher: self.longest.watcher,
            latest_ns: self.counters.latest.load(Relaxed),
            events: std::array::from_fn(|kind| self.count(EVENTS + kind)),
            longest_type: self.longest.kind,
            reserved: 0,
            longest_name: self.longest.name,
            wakeups_saved: self.count(SAVED),
        }
    }
}

/// A name, cut to fit and NUL-terminated; not inside a character of UTF-8.
pub(in crate::event_loop) fn short_name(name: &[u8]) -> [c_char; NAME] {
    let mut short = [0; NAME];
    for (to, from) in short.iter_mut().zip(cut(name, NAME - 1)) {
        *to = *from as c_char;
    }
    short
}
