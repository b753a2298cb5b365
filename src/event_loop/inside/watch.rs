//! The ways of a loop that is watched: around each wait and each callback.
//!
//! Who only counts reads the processor's counter after each callback of a
//! descriptor, and that is all: readings are worked up some at a time. They
//! would cost more one by one, between callbacks that make system calls.

use super::Look;
use super::published::ASLEEP;
use super::stats::Counters;
use super::trace::{self, Entry, Ring};
use super::watchdog::Dog;
use crate::errno::{Errno, Result};
use crate::event_loop::core::Core;
use crate::event_loop::desk::{Desk, Gate};
use crate::event_loop::event::{Callback, Destroy, Event};
use crate::event_loop::flags::Source;
use crate::event_loop::letters::Letters;
use crate::event_loop::running::Run;
use crate::sys::ticks::Ticks;
use crate::sys::{clock, thread};
use crate::util::try_arc::TryArc;
use std::ffi::c_void;

/// How many callbacks are worked up at once.
const READINGS: usize = 32;

/// For whom a loop's thread does what, and when it last read the clock.
#[derive(Default)]
pub(in crate::event_loop) struct Watch {
    stats: Option<TryArc<Counters>>,
    ring: Option<TryArc<Ring>>,
    dog: Option<Dog>,
    ticks: Option<Ticks>,
    /// The time is the clock's own: others compare theirs with it.
    exact: bool,
    /// Counting began anew, in the callback that is running perhaps.
    begun_anew: bool,
    /// How often what is counted was set back before what is pending began.
    set_back: u64,
    /// When what came last ended, and the reading of that time.
    last: i64,
    last_reading: u64,
    pending: Pending,
    /// When timers that are due were last looked for.
    looked: i64,
    /// Since when the loop is awake; 0: not known.
    awake: i64,
    /// The longest callback that was not told of yet.
    longest: Option<Took>,
    /// The thread, as the kernel numbers it.
    thread: i32,
}

/// Readings at the ends of callbacks of descriptors, and their watchers.
#[derive(Default)]
#[repr(C, align(64))]
struct Pending {
    count: usize,
    all: [(u64, i64); READINGS],
}

/// A callback that has returned.
#[derive(Clone, Copy)]
pub(in crate::event_loop) struct Took {
    pub kind: i32,
    pub watcher: i64,
    pub since: i64,
    pub ns: i64,
}

/// How a callback began: whoever looks at its end has looked at its beginning.
struct Began {
    since: i64,
    published: bool,
    /// In which trace it is to be.
    ring: Option<TryArc<Ring>>,
    /// How often what is counted had been set back.
    counted: Option<u64>,
}

impl Watch {
    /// Nothing is pending.
    pub fn change(&mut self, look: Look) {
        let anew = matches!(look, Look::Stats(_));
        match look {
            Look::Stats(stats) => {
                self.stats.iter().for_each(|stats| stats.set_live(false));
                self.stats = stats;
                self.stats.iter().for_each(|stats| stats.set_live(true));
            }
            Look::Trace(ring) => {
                self.ring = ring;
                // What has begun before is in no trace.
                self.awake = 0;
            }
            Look::Watchdog(dog) => self.dog = dog,
        }
        self.exact = self.ring.is_some() || self.dog.is_some();
        if self.is_wanted() && self.ticks.is_none() {
            self.ticks = Some(Ticks::new());
        }
        self.look_at_thread();
        if anew {
            self.anew();
        }
    }

    /// Counting begins anew: a callback that is running is not counted.
    pub fn anew(&mut self) {
        self.begun_anew = true;
        self.pending.count = 0;
        self.last = self.now();
    }

    /// Callbacks of descriptors, which are only counted, are called next.
    pub fn begin_counted(&mut self) {
        self.begun_anew = false;
        self.set_back = self.times_set_back().unwrap_or_default();
    }

    fn times_set_back(&self) -> Option<u64> {
        self.stats.as_ref().map(|stats| stats.times_set_back())
    }

    pub fn is_wanted(&self) -> bool {
        self.stats.is_some() || self.ring.is_some() || self.dog.is_some()
    }

    /// The time; nothing is pending.
    fn now(&mut self) -> i64 {
        let Some(ticks) = &mut self.ticks else { return clock::now_ns() };
        let mut reading = ticks.reading();
        let now = match ticks.is_far(reading) {
            true => {
                let (now, at) = ticks.look();
                reading = at;
                now
            }
            false => ticks.time_of(reading),
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
    fn begin(&mut self) {
        self.last = self.now();
        self.looked = self.last;
        // An iteration begins with the end of a wait.
        self.awake = 0;
        self.look_at_thread();
    }

    fn look_at_thread(&mut self) {
        if self.ring.is_some() {
            self.thread = thread::id();
        }
    }

    /// In a forked child: the parent's file is not written to, and its
    /// watchdog does not exist.
    pub fn forget_parent(&mut self, dog: Option<Dog>) {
        (self.ring, self.dog) = (None, dog);
        self.exact = self.dog.is_some();
    }

    fn note(&self, entry: Entry) {
        if let Some(ring) = &self.ring {
            ring.push(self.thread, &entry);
        }
    }

    /// The loop was awake until now.
    fn end_iteration(&mut self, now: i64, dispatched: u64) {
        if self.ring.is_some() && self.awake != 0 {
            let (start, extra) = (self.awake, dispatched);
            self.note(Entry { kind: trace::ITERATION, handle: 0, start, end: now, extra });
        }
        self.awake = 0;
    }

    /// A callback of a descriptor has returned, and only that is counted.
    /// True: enough of them are pending.
    #[inline(always)]
    fn read(&mut self, watcher: i64) -> bool {
        let reading = self.ticks.as_ref().map_or(0, Ticks::reading);
        let Pending { count, all } = &mut self.pending;
        if let Some(place) = all.get_mut(*count) {
            *place = (reading, watcher);
            *count = count.wrapping_add(1);
        }
        *count == READINGS
    }

    /// Counts what is pending.
    #[inline(always)]
    fn work_up(&mut self) {
        if self.pending.count == 0 {
            return;
        }
        if self.times_set_back().is_none_or(|times| times != self.set_back) {
            self.drop_old();
        }
        let (Some(ticks), Some(stats)) = (&mut self.ticks, &self.stats) else { return };
        let readings = self.pending.all.get(..self.pending.count).unwrap_or_default();
        let Some((reading, _)) = readings.last() else { return };
        stats.set_rate(ticks.rate());
        let (mut last, mut longest) = (self.last_reading, (0, 0, 0));
        for (reading, watcher) in readings {
            let units = reading.saturating_sub(last);
            stats.length(units);
            if units >= longest.0 {
                longest = (units, last, *watcher);
            }
            last = *reading;
        }
        let now = ticks.time_of(*reading);
        let kind = Source::Io as i32;
        stats.callbacks(kind, readings.len(), now.wrapping_sub(self.last));
        let (units, reading_before, watcher) = longest;
        let since = ticks.time_of(reading_before);
        let ns = ticks.time_of(reading_before.wrapping_add(units)).wrapping_sub(since);
        if stats.is_longest(ns) {
            keep_longer(&mut self.longest, Took { kind, watcher, since, ns });
        }
        (self.last, self.last_reading) = (now, last);
        if ticks.is_far(last) {
            (self.last, self.last_reading) = ticks.look();
        }
        self.pending.count = 0;
    }

    /// What is counted was set back, by another thread, since the first of
    /// what is pending began: all that began before that is not counted.
    #[cold]
    fn drop_old(&mut self) {
        let (Some(ticks), Some(stats)) = (&self.ticks, &self.stats) else {
            self.pending.count = 0;
            return;
        };
        self.set_back = stats.times_set_back();
        let readings = self.pending.all.get(..self.pending.count).unwrap_or_default();
        let since = stats.since();
        let mut old = 0;
        for (reading, _) in readings {
            if self.last >= since {
                break;
            }
            (self.last, self.last_reading) = (ticks.time_of(*reading), *reading);
            old += 1;
        }
        let left = readings.len() - old;
        self.pending.all.copy_within(old..old + left, 0);
        self.pending.count = left;
    }

    /// A callback is about to run.
    fn enter(&mut self, desk: &Desk, event: &Event, virtual_time: bool) -> Began {
        self.last = self.now();
        if self.exact {
            desk.published.enter(event.r#type, event.watcher, self.last);
        }
        let counted = self.times_set_back();
        self.count(event, virtual_time);
        let (since, published, ring) = (self.last, self.exact, self.ring.clone());
        Began { since, published, ring, counted }
    }

    /// Counts an event that is delivered now.
    fn count(&self, event: &Event, virtual_time: bool) {
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
    fn leave(&mut self, desk: &Desk, event: &Event, began: &Began, virtual_time: bool) {
        self.last = self.now();
        match &self.dog {
            _ if !began.published => {}
            Some(dog) => dog.has_returned(desk.published.leave_watched(), self.last),
            None => desk.published.leave(),
        }
        let since = began.since;
        let (kind, watcher, ns) = (event.r#type, event.watcher, self.last - since);
        let rate = self.ticks.as_ref().map_or(1 << 32, Ticks::rate);
        if let Some(stats) = &self.stats
            && began.counted == Some(stats.times_set_back())
            && stats.callback(ns, rate)
        {
            keep_longer(&mut self.longest, Took { kind, watcher, since, ns });
        }
        if let Some(ring) = &began.ring {
            let extra = if kind == Source::Timer as i32 {
                self.lateness(event, since, virtual_time).max(0).cast_unsigned()
            } else {
                u64::from(event.events) << 32 | u64::from(event.fd.cast_unsigned())
            };
            let (start, end) = (since, self.last);
            // Nothing is written to one that was stopped.
            ring.push(self.thread, &Entry { kind, handle: watcher, start, end, extra });
        }
    }

    fn before_wait(&mut self, desk: &Desk, may_sleep: bool, quiet: bool, dispatched: u64) {
        // Nothing else was done since the last callback, if the loop is quiet.
        if !quiet || self.exact {
            self.last = self.now();
        }
        self.end_iteration(self.last, dispatched);
        if may_sleep {
            desk.published.enter(ASLEEP, 0, self.last);
        }
    }

    fn after_wait(&mut self, desk: &Desk, slept: bool, found: usize) {
        let start = self.last;
        self.last = self.now();
        self.awake = self.last;
        if slept {
            desk.published.leave();
        }
        if let Some(stats) = &self.stats {
            stats.iteration(slept.then_some(self.last - start));
        }
        let kind = if slept { trace::WAIT } else { trace::LOOK };
        let (end, extra) = (self.last, found as u64);
        self.note(Entry { kind, handle: 0, start, end, extra });
    }
}

fn keep_longer(longest: &mut Option<Took>, took: Took) {
    if longest.is_none_or(|longest| took.ns > longest.ns) {
        *longest = Some(took);
    }
}

impl Core {
    /// A run begins.
    #[cold]
    pub fn watch_begin(&mut self) {
        self.watch.begin();
    }

    /// A run ends.
    #[cold]
    pub fn watch_end(&mut self) {
        self.watch_pending();
        let now = self.watch.now();
        self.watch.end_iteration(now, self.dispatched);
    }

    /// Timers that are due are looked for now; how many wake-ups they have
    /// saved.
    #[cold]
    pub fn watch_timers(&mut self, saved: u32) {
        self.watch_pending();
        if let Some(stats) = &self.watch.stats {
            stats.saved(saved);
        }
        self.watch.looked = self.watch.now();
    }

    /// An event was kept for evloop_wait.
    #[cold]
    pub fn watch_kept(&mut self, event: &Event) {
        self.watch_pending();
        self.watch.last = self.watch.now();
        self.watch.count(event, self.virtual_time);
    }

    /// The same of one that was closed: by a callback, or with the gate's lock.
    #[cold]
    pub fn watch_closed(&mut self, event: &Event) {
        self.watch.count(event, self.virtual_time);
    }

    /// Works up what is pending.
    fn watch_pending(&mut self) {
        self.watch.work_up();
        if let Some(took) = self.watch.longest.take() {
            note_longest(&mut self.desk.gate(), &took);
        }
    }

    /// The same, with the gate's lock.
    #[cold]
    pub fn watch_pending_at(&mut self, gate: &mut Gate) {
        self.watch.work_up();
        if let Some(took) = self.watch.longest.take() {
            note_longest(gate, &took);
        }
    }
}

/// A callback took longer than all before.
#[cold]
fn note_longest(gate: &mut Gate, took: &Took) {
    let Gate { names, stats, .. } = gate;
    if let Some(kept) = stats {
        let name = names.get(&took.watcher).map(|name| &**name).unwrap_or_default();
        kept.note_longest(took, name);
    }
}

impl Run {
    /// Whether this is a forked child that nobody made the loop's process: it
    /// has no use for any of this, and locks that are not its own.
    #[inline(always)]
    fn is_lost(&self) -> bool {
        self.has_forked() && self.desk.is_inherited()
    }

    /// Calls a callback of a loop that is watched, and no more.
    fn call_watched(&self, callback: Callback, event: &Event, user_data: *mut c_void) {
        // SAFETY: no other reference to the core, and not kept.
        let core = unsafe { self.core() };
        core.watch_pending();
        let began = core.watch.enter(core.desk, event, core.virtual_time);
        // SAFETY: the program's function and argument, as it promised; no
        // reference into the core is in use.
        unsafe { callback(event, user_data) };
        if self.is_lost() {
            return;
        }
        // SAFETY: as above.
        let core = unsafe { self.core() };
        core.watch.leave(core.desk, event, &began, core.virtual_time);
        core.watch_pending();
    }

    /// Calls the callback of a descriptor, right after another one or a wait,
    /// where it is only counted.
    #[inline(always)]
    pub fn call_counted(
        &self,
        callback: Callback,
        event: &Event,
        user_data: *mut c_void,
    ) -> Result<()> {
        // SAFETY: the program's function and argument, as it promised; no
        // reference into the core is in use.
        unsafe { callback(event, user_data) };
        if self.is_attention_due() {
            return self.attend_counted(event);
        }
        // SAFETY: no other reference to the core, and not kept.
        let core = unsafe { self.core() };
        if core.watch.read(event.watcher) {
            core.watch_pending();
        }
        Ok(())
    }

    /// After a callback that has done something unusual: perhaps forked, or
    /// changed who watches.
    #[cold]
    #[inline(never)]
    fn attend_counted(&self, event: &Event) -> Result<()> {
        // SAFETY: no other reference to the core, and not kept.
        let core = unsafe { self.core() };
        if !self.is_lost() && core.watched {
            if core.watch.begun_anew {
                core.watch.last = core.watch.now();
                core.watch.begin_counted();
            } else {
                core.watch.read(event.watcher);
            }
            core.watch_pending();
        }
        self.attend()
    }

    #[inline(never)]
    pub fn call_one_watched(
        &self,
        callback: Callback,
        event: &Event,
        user_data: *mut c_void,
    ) -> Result<()> {
        self.call_watched(callback, event, user_data);
        self.attend_if_due()
    }

    /// Tells of watchers that are closed.
    #[cold]
    pub fn notify_watched(&self, mut closed: Letters<Destroy>) {
        while let Some(Destroy { target, event }) = closed.pop() {
            if let Some(callback) = target.callback {
                self.call_watched(callback, &event, target.user_data);
            }
        }
    }

    /// Waits, or only looks.
    #[inline(never)]
    pub fn wait_watched(
        &self,
        may_sleep: bool,
        wait: impl FnOnce(&mut Core) -> std::result::Result<usize, Errno>,
    ) -> std::result::Result<usize, Errno> {
        // SAFETY: no other reference to the core; nor below.
        let core = unsafe { self.core() };
        core.watch_pending();
        core.watch.before_wait(core.desk, may_sleep, core.quiet, core.dispatched);
        let result = wait(core);
        // A signal handler may have forked.
        if !self.is_lost() {
            let found = result.as_ref().copied().unwrap_or_default();
            core.watch.after_wait(core.desk, may_sleep, found);
        }
        result
    }
}
