//! The ways of a loop that is instrumented: around each wait and each callback.
//!
//! Who only counts reads the processor's counter after each callback of a
//! descriptor, and that is all: samples are flushed some at a time. They would
//! cost more one by one, between callbacks that make system calls.

use super::activity::{ASLEEP, ActivityCell};
use super::stats::Counters;
use super::trace::{self, TraceEntry, TraceRing};
use super::watchdog::WatchdogHandle;
use crate::event_loop::event::Event;
use crate::event_loop::flags::Source;
use crate::sys::tsc::TscClock;
use crate::sys::{clock, thread};
use crate::util::try_arc::TryArc;

/// What a loop's thread begins or ceases to do for telemetry.
pub(in crate::event_loop) enum ProbeChange {
    Stats(Option<TryArc<Counters>>),
    Trace(Option<TryArc<TraceRing>>),
    Watchdog(Option<WatchdogHandle>),
}

/// How many samples are flushed at once.
const READINGS: usize = 32;

/// For whom a loop's thread does what, and when it last read the clock.
#[derive(Default)]
pub(in crate::event_loop) struct Probe {
    stats: Option<TryArc<Counters>>,
    ring: Option<TryArc<TraceRing>>,
    watchdog_handle: Option<WatchdogHandle>,
    tsc: Option<TscClock>,
    /// The time is the clock's own: others compare theirs with it.
    exact: bool,
    /// Counting was restarted, in the callback that is running perhaps.
    pub restarted: bool,
    /// The number of resets before the first of the samples.
    resets_seen: u64,
    /// When what came last ended, and the reading of that time.
    pub last: i64,
    last_reading: u64,
    samples: SampleBuffer,
    /// When timers that are due were last looked for.
    looked: i64,
    /// Since when the loop is awake; 0: not known.
    awake: i64,
    /// The longest callback, until the statistics have it.
    pub longest: Option<CallbackRun>,
    /// The thread, as the kernel numbers it.
    thread: i32,
}

/// Readings at the ends of callbacks of descriptors, and their watchers.
#[derive(Default)]
#[repr(C, align(64))]
struct SampleBuffer {
    count: usize,
    all: [(u64, i64); READINGS],
}

/// A callback that has returned.
#[derive(Clone, Copy)]
pub(in crate::event_loop) struct CallbackRun {
    pub kind: i32,
    pub watcher: i64,
    pub since: i64,
    pub ns: i64,
}

/// How a callback began: only what recorded its beginning records its end.
pub(in crate::event_loop) struct CallbackStart {
    since: i64,
    is_published: bool,
    /// In which trace it is to be.
    ring: Option<TryArc<TraceRing>>,
    /// The number of resets by then.
    counted: Option<u64>,
}

impl Probe {
    /// Nothing is pending.
    pub fn change(&mut self, change: ProbeChange) {
        let restarts = matches!(change, ProbeChange::Stats(_));
        match change {
            ProbeChange::Stats(stats) => {
                self.stats.iter().for_each(|stats| stats.set_live(false));
                self.stats = stats;
                self.stats.iter().for_each(|stats| stats.set_live(true));
            }
            ProbeChange::Trace(ring) => {
                self.ring = ring;
                // What has begun before is in no trace.
                self.awake = 0;
            }
            ProbeChange::Watchdog(watchdog_handle) => self.watchdog_handle = watchdog_handle,
        }
        self.exact = self.ring.is_some() || self.watchdog_handle.is_some();
        if self.is_wanted() && self.tsc.is_none() {
            self.tsc = Some(TscClock::new());
        }
        self.note_thread();
        if restarts {
            self.restart();
        }
    }

    /// Restarts counting: a callback that is running is not counted.
    pub fn restart(&mut self) {
        self.restarted = true;
        self.samples.count = 0;
        self.last = self.now();
    }

    /// Callbacks of descriptors, which are only counted, are called next.
    pub fn begin_counted(&mut self) {
        self.restarted = false;
        self.resets_seen = self.resets().unwrap_or_default();
    }

    fn resets(&self) -> Option<u64> {
        self.stats.as_ref().map(|stats| stats.resets())
    }

    pub fn is_wanted(&self) -> bool {
        self.stats.is_some() || self.ring.is_some() || self.watchdog_handle.is_some()
    }

    /// The time; nothing is pending.
    pub fn now(&mut self) -> i64 {
        let Some(tsc) = &mut self.tsc else { return clock::now_ns() };
        let mut reading = tsc.reading();
        let now = match tsc.is_far(reading) {
            true => {
                let (now, newest) = tsc.look();
                reading = newest;
                now
            }
            false => tsc.time_of(reading),
        };
        self.last_reading = reading;
        if self.exact { clock::now_ns() } else { now }
    }

    /// Whether callbacks are counted, and nothing else is done about them.
    #[inline(always)]
    pub fn only_counts(&self) -> bool {
        !self.exact
    }

    /// A run begins.
    pub fn begin(&mut self) {
        self.last = self.now();
        self.looked = self.last;
        // An iteration begins with the end of a wait.
        self.awake = 0;
        self.note_thread();
    }

    fn note_thread(&mut self) {
        if self.ring.is_some() {
            self.thread = thread::id();
        }
    }

    /// In a forked child: the parent's file is not written to, and its
    /// watchdog does not exist.
    pub fn forget_parent(&mut self, watchdog_handle: Option<WatchdogHandle>) {
        (self.ring, self.watchdog_handle) = (None, watchdog_handle);
        self.exact = self.watchdog_handle.is_some();
    }

    fn note(&self, entry: TraceEntry) {
        if let Some(ring) = &self.ring {
            ring.push(self.thread, &entry);
        }
    }

    /// The loop was awake until now.
    pub fn end_iteration(&mut self, now: i64, dispatched: u64) {
        if self.ring.is_some() && self.awake != 0 {
            let (start, extra) = (self.awake, dispatched);
            self.note(TraceEntry { kind: trace::ITERATION, handle: 0, start, end: now, extra });
        }
        self.awake = 0;
    }

    /// A callback of a descriptor has returned, and only that is counted.
    /// True: enough of them are pending.
    #[inline(always)]
    pub fn sample(&mut self, watcher: i64) -> bool {
        let reading = self.tsc.as_ref().map_or(0, TscClock::reading);
        let SampleBuffer { count, all } = &mut self.samples;
        if let Some(out) = all.get_mut(*count) {
            *out = (reading, watcher);
            *count = count.wrapping_add(1);
        }
        *count == READINGS
    }

    /// Counts what is pending.
    #[inline(always)]
    pub fn flush_samples(&mut self) {
        if self.samples.count == 0 {
            return;
        }
        if self.resets().is_none_or(|times| times != self.resets_seen) {
            self.drop_old();
        }
        let (Some(tsc), Some(stats)) = (&mut self.tsc, &self.stats) else { return };
        let readings = self.samples.all.get(..self.samples.count).unwrap_or_default();
        let Some((reading, _)) = readings.last() else { return };
        stats.set_rate(tsc.rate());
        let (mut last, mut longest) = (self.last_reading, (0, 0, 0));
        for (reading, watcher) in readings {
            let units = reading.saturating_sub(last);
            stats.length(units);
            if units >= longest.0 {
                longest = (units, last, *watcher);
            }
            last = *reading;
        }
        let now = tsc.time_of(*reading);
        let kind = Source::Io as i32;
        stats.callbacks(kind, readings.len(), now.wrapping_sub(self.last));
        let (units, reading_before, watcher) = longest;
        let since = tsc.time_of(reading_before);
        let ns = tsc.time_of(reading_before.wrapping_add(units)).wrapping_sub(since);
        if stats.is_longest(ns) {
            keep_longer(&mut self.longest, CallbackRun { kind, watcher, since, ns });
        }
        (self.last, self.last_reading) = (now, last);
        if tsc.is_far(last) {
            (self.last, self.last_reading) = tsc.look();
        }
        self.samples.count = 0;
    }

    /// The counters were reset, by another thread, since the first of the
    /// samples began: all that began before that is not counted.
    #[cold]
    fn drop_old(&mut self) {
        let (Some(tsc), Some(stats)) = (&self.tsc, &self.stats) else {
            self.samples.count = 0;
            return;
        };
        self.resets_seen = stats.resets();
        let readings = self.samples.all.get(..self.samples.count).unwrap_or_default();
        let since = stats.since();
        let mut old = 0;
        for (reading, _) in readings {
            if self.last >= since {
                break;
            }
            (self.last, self.last_reading) = (tsc.time_of(*reading), *reading);
            old += 1;
        }
        let left = readings.len() - old;
        self.samples.all.copy_within(old..old + left, 0);
        self.samples.count = left;
    }

    /// Timers that are due are looked for now; how many wake-ups they have
    /// saved.
    pub fn on_timers(&mut self, saved: u32) {
        if let Some(stats) = &self.stats {
            stats.saved(saved);
        }
        self.looked = self.now();
    }

    /// A callback is about to run.
    pub fn before_callback(
        &mut self,
        activity: &ActivityCell,
        event: &Event,
        virtual_time: bool,
    ) -> CallbackStart {
        self.last = self.now();
        if self.exact {
            activity.enter(event.r#type, event.watcher, self.last);
        }
        let counted = self.resets();
        self.count(event, virtual_time);
        let (since, is_published, ring) = (self.last, self.exact, self.ring.clone());
        CallbackStart { since, is_published, ring, counted }
    }

    /// Counts an event that is delivered now.
    pub fn count(&self, event: &Event, virtual_time: bool) {
        let Some(stats) = &self.stats else { return };
        stats.event(event.r#type);
        if event.r#type == Source::Timer as i32 {
            stats.lateness(self.lateness(event, self.last, virtual_time));
        }
    }

    /// How late a timer is, whose callback is called then; on its clock: until
    /// it was found to be due, and since.
    fn lateness(&self, event: &Event, called: i64, virtual_time: bool) -> i64 {
        let found = event.time_ns.saturating_sub(event.deadline_ns);
        let since = if virtual_time { 0 } else { (called - self.looked).max(0) };
        found.saturating_add(since)
    }

    /// A callback has returned. In between anything may have been changed.
    pub fn after_callback(
        &mut self,
        activity: &ActivityCell,
        event: &Event,
        began: &CallbackStart,
        virtual_time: bool,
    ) {
        self.last = self.now();
        match &self.watchdog_handle {
            _ if !began.is_published => {}
            Some(watchdog_handle) => watchdog_handle.on_return(activity.exit_ordered(), self.last),
            None => activity.exit(),
        }
        let since = began.since;
        let (kind, watcher, ns) = (event.r#type, event.watcher, self.last - since);
        let rate = self.tsc.as_ref().map_or(1 << 32, TscClock::rate);
        if let Some(stats) = &self.stats
            && began.counted == Some(stats.resets())
            && stats.callback(ns, rate)
        {
            keep_longer(&mut self.longest, CallbackRun { kind, watcher, since, ns });
        }
        if let Some(ring) = &began.ring {
            let extra = if kind == Source::Timer as i32 {
                self.lateness(event, since, virtual_time).max(0).cast_unsigned()
            } else {
                u64::from(event.events) << 32 | u64::from(event.fd.cast_unsigned())
            };
            let (start, end) = (since, self.last);
            // Nothing is written to one that was stopped.
            ring.push(self.thread, &TraceEntry { kind, handle: watcher, start, end, extra });
        }
    }

    pub fn before_wait(
        &mut self,
        activity: &ActivityCell,
        may_sleep: bool,
        fds_only: bool,
        dispatched: u64,
    ) {
        // Nothing else was done since the last callback, in a round of
        // descriptors only.
        if !fds_only || self.exact {
            self.last = self.now();
        }
        self.end_iteration(self.last, dispatched);
        if may_sleep {
            activity.enter(ASLEEP, 0, self.last);
        }
    }

    pub fn after_wait(&mut self, activity: &ActivityCell, slept: bool, found: usize) {
        let start = self.last;
        self.last = self.now();
        self.awake = self.last;
        if slept {
            activity.exit();
        }
        if let Some(stats) = &self.stats {
            stats.iteration(slept.then_some(self.last - start));
        }
        let kind = if slept { trace::WAIT } else { trace::POLL };
        let (end, extra) = (self.last, found as u64);
        self.note(TraceEntry { kind, handle: 0, start, end, extra });
    }
}

fn keep_longer(longest: &mut Option<CallbackRun>, took: CallbackRun) {
    if longest.is_none_or(|longest| took.ns > longest.ns) {
        *longest = Some(took);
    }
}
