//! What can be done with watchers: add, change, close.

use super::asyncs::off_stack;
use super::clocks;
use super::command::{Change, Registered};
use super::core::{Core, Limit, MANY_NAMES};
use super::desk;
use super::event::{Event, Target};
use super::flags::*;
use super::io;
use super::list::List;
use super::named::Named;
use super::objects::Watched;
use super::record::{self, LIVE, Record};
use super::timers::{self, Setting};
use crate::errno::{Result, fail};
use crate::handle::{self, Kind};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::util::alloc::{TryMap, TryVec};
use std::os::fd::RawFd;

/// A new record for a watcher, filled in but not live.
pub(super) struct Fresh {
    pub index: u32,
    pub record: &'static Record,
}

impl Fresh {
    pub fn new(
        desk: &'static desk::Desk,
        index: u32,
        source: Source,
        target: Target,
    ) -> Result<Self> {
        let Some(record) = record::get(index) else { fail!(ENOMEM, "no memory for a watcher") };
        let records = if target.callback.is_none() { RECORDS } else { 0 };
        record.flags.store(source.bits() | ENABLED | records, Relaxed);
        record.set_desk(desk);
        record.set_target(target);
        Ok(Self { index, record })
    }

    pub fn handle(&self) -> i64 {
        self.record.handle(Kind::Watcher, self.index)
    }
}

impl Core {
    #[inline]
    pub fn fresh(&mut self, source: Source, target: Target) -> Result<Fresh> {
        let index = self.slots.take(self.desk)?;
        let fresh = Fresh::new(self.desk, index, source, target)?;
        if target.callback.is_none() && !self.held.expect_watcher() {
            self.give_back(&fresh);
            fail!(ENOMEM, "no memory for a watcher's events");
        }
        Ok(fresh)
    }

    pub fn give_back(&mut self, fresh: &Fresh) {
        self.forget_record(fresh.record);
        self.slots.give_back(fresh.index);
    }

    fn forget_record(&mut self, record: &Record) {
        if record.has(RECORDS) {
            self.held.forget_watcher();
        }
    }

    #[inline]
    pub fn publish(&mut self, fresh: &Fresh) -> i64 {
        fresh.record.set_state(LIVE);
        self.desk.count(1);
        self.count_liveness(fresh.record);
        fresh.handle()
    }

    pub fn add_io(
        &mut self,
        source: Source,
        fd: RawFd,
        events: u32,
        target: Target,
        watch: Option<Box<dyn Watched>>,
    ) -> Result<i64> {
        let fresh = self.fresh(source, target)?;
        io::fill(fresh.record, fd, events);
        set_subject(fresh.record, watch.as_deref());
        let added = self.watch_object(&fresh, watch).and_then(|()| {
            let how = self.io_register(fd, events, fresh.handle())?;
            let added = self.io_added(fresh.index, fresh.record, how);
            if added.is_err() && matches!(how, Registered::Alone(_)) {
                let _ = epoll::delete(self.epoll(), fd);
            }
            added
        });
        match added {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.take_object(fresh.index);
                self.give_back(&fresh);
                Err(error)
            }
        }
    }

    fn watch_object(&mut self, fresh: &Fresh, watch: Option<Box<dyn Watched>>) -> Result<()> {
        let Some(mut watched) = watch else { return Ok(()) };
        watched.begin(self.desk.handle())?;
        self.keep_object(fresh.index, watched)
    }

    pub fn add_timer(
        &mut self,
        clock: usize,
        setting: &Setting,
        tolerance: i64,
        target: Target,
    ) -> Result<i64> {
        let fresh = self.fresh(Source::Timer, target)?;
        prepare_timer(fresh.record, clock, setting);
        let tolerance = if tolerance == 0 { self.timers.tolerance } else { tolerance };
        fresh.record.node.set_tolerance(tolerance);
        match self.timer_set(fresh.index, fresh.record, setting, None) {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.uncount(fresh.record);
                self.give_back(&fresh);
                Err(error)
            }
        }
    }

    pub fn add_plain(&mut self, source: Source, target: Target) -> Result<i64> {
        if source == Source::ClockChange {
            self.ensure_clock(clocks::REALTIME)?;
        }
        let fresh = self.fresh(source, target)?;
        if source == Source::Async {
            fresh.record.aux.store(0, Relaxed);
        }
        if let Err(error) = self.add_to_list(fresh.index, fresh.record) {
            self.give_back(&fresh);
            return Err(error);
        }
        Ok(self.publish(&fresh))
    }

    /// Notes a watcher of a kind that is called in turn.
    pub fn add_to_list(&mut self, index: u32, record: &Record) -> Result<()> {
        let source = Source::of(record.flags.load(Relaxed));
        if let Some(list) = self.list(source) {
            let len = list.len() + 1;
            if self.turn.try_reserve(len).is_err() {
                List::leave_out(record);
                fail!(ENOMEM, "no memory for a watcher");
            }
            if let Some(list) = self.list(source) {
                list.push(index, record);
            }
        }
        match source {
            Source::ClockChange => self.timers.recheck |= 1 << clocks::REALTIME,
            Source::Idle => self.idlers += 1,
            Source::Defer => {
                self.deferred += 1;
                record.set(WAITING | NEXT_TIME);
                self.count_liveness(record);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes a change to a watcher.
    pub fn change(&mut self, index: u32, record: &Record, change: Change) -> Result<()> {
        match change {
            Change::Enable => self.enable(index, record),
            Change::Disable => self.disable(index, record),
            Change::Priority(priority) => {
                self.extra(index, record)?;
                self.publish_priority(record.handle(Kind::Watcher, index), priority)?;
                self.extra(index, record)?.priority = priority;
                let ranked = record.has(RANKED);
                if priority != 0 && !ranked {
                    record.set(RANKED);
                    self.ranked += 1;
                } else if priority == 0 && ranked {
                    record.unset(RANKED);
                    self.ranked -= 1;
                }
                Ok(())
            }
            Change::RateLimit { interval, burst } => self.limit(index, record, interval, burst),
            Change::Named => {
                record.set(NAMED);
                Ok(())
            }
            Change::Data(data) => {
                record.data.store(data, Relaxed);
                Ok(())
            }
            Change::Ref => {
                record.unset(UNREF);
                self.count_liveness(record);
                Ok(())
            }
            Change::Unref => {
                record.set(UNREF);
                self.count_liveness(record);
                Ok(())
            }
            Change::Events(events) => self.io_modify(index, record, events),
            Change::IoSet(0) => self.disable(index, record),
            Change::IoSet(events) => {
                self.io_modify(index, record, events)?;
                self.enable(index, record)
            }
            Change::Tolerance(tolerance) => self.timer_set_tolerance(index, record, tolerance),
        }
    }

    /// Lets other threads see a watcher's priority.
    fn publish_priority(&self, handle: i64, priority: i32) -> Result<()> {
        let mut priorities = self.desk.priorities.lock();
        if priority == 0 {
            priorities.remove(&handle);
        } else if priorities.try_put(handle, priority).is_err() {
            fail!(ENOMEM, "no memory for a priority");
        }
        Ok(())
    }

    fn limit(&mut self, index: u32, record: &Record, interval: i64, burst: i32) -> Result<()> {
        // It wakes the loop when a watcher may go on.
        self.ensure_clock(clocks::MONOTONIC)?;
        let extra = self.extra(index, record)?;
        if interval > 0 {
            extra.limit = Some(Limit { interval, burst, since: i64::MIN, count: 0 });
            record.set(LIMITED);
        } else {
            extra.limit = None;
            record.unset(LIMITED);
        }
        if record.has(SUSPENDED) {
            // What was kept comes now, as the first event of a new limit.
            self.end_suspension(index);
        }
        Ok(())
    }

    #[inline]
    fn enable(&mut self, index: u32, record: &Record) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        let source = Source::of(flags);
        if flags & ENABLED != 0 {
            return Ok(());
        }
        if source.is_descriptor() {
            self.io_retry(index, record)?;
        }
        record.set(ENABLED);
        match source {
            source if source.is_descriptor() => {
                record.unset(SPENT);
                self.io_rearm(index, record);
                self.io_forget_kept(index, record);
                self.fail_if_dead(index, record);
            }
            Source::File => {
                record.unset(SPENT);
                self.resume_notes(index, record);
            }
            Source::Timer => {
                if let Err(error) = self.timer_enable(index, record) {
                    record.unset(ENABLED);
                    return Err(error);
                }
            }
            Source::Async if record.is_sent() && off_stack(flags) => self.send_again(index, record),
            Source::Signal => self.signal_due(index),
            Source::Idle => self.idlers += 1,
            Source::Defer => {
                record.set(WAITING | NEXT_TIME);
                self.deferred += 1;
            }
            _ => {}
        }
        self.count_liveness(record);
        if flags & EXTRA != 0 {
            self.deliver_kept(index, record);
        }
        Ok(())
    }

    /// What was kept while the watcher was disabled comes now.
    fn deliver_kept(&mut self, index: u32, record: &Record) {
        let kept = self.extras.get(&index).is_some_and(|extra| extra.kept.is_some());
        if kept && !record.has(SUSPENDED) {
            self.suspend(index, record, i64::MIN);
        }
    }

    #[inline]
    fn disable(&mut self, index: u32, record: &Record) -> Result<()> {
        let flags = record.flags.load(Relaxed);
        if flags & ENABLED == 0 {
            match Source::of(flags) {
                source if source.is_descriptor() || source == Source::File => {
                    record.unset(SPENT);
                }
                Source::Defer => record.unset(DUE),
                _ => {}
            }
            self.put_back_held(index, record);
            return Ok(());
        }
        match Source::of(flags) {
            source if source.is_descriptor() => self.io_touch(index, record),
            Source::Timer => self.timer_disable(index, record)?,
            Source::Idle => self.idlers -= 1,
            Source::Defer if flags & WAITING != 0 => self.deferred -= 1,
            _ => {}
        }
        record.unset(ENABLED);
        self.count_liveness(record);
        self.put_back_held(index, record);
        Ok(())
    }

    fn uncount(&mut self, record: &Record) {
        if record.has(COUNTED) {
            record.unset(COUNTED);
            self.active -= 1;
        }
    }

    /// Closes a watcher. Others may be closing it, too, or sending to it, at
    /// this moment.
    #[inline]
    pub fn close(&mut self, named: &Named) -> Result<()> {
        let record = named.record;
        if !record.close(named.handle) {
            return handle::stale(named.handle.pack());
        }
        self.desk.count(-1);
        self.finish_close(named.handle.index, record, false);
        Ok(())
    }

    /// Takes a watcher that is marked closing out of everything; `told`: its
    /// registration was removed already.
    pub fn finish_close(&mut self, index: u32, record: &Record, told: bool) {
        let flags = record.flags.load(Relaxed);
        self.uncount(record);
        match Source::of(flags) {
            Source::Io => self.io_close(index, record, told),
            source if source.is_object() => {
                self.io_close(index, record, told);
                self.take_object(index);
            }
            Source::Timer => self.timer_stop(index, record),
            Source::Signal => self.signal_close(index, record),
            Source::File => self.close_file(index, told),
            source => self.remove_from_list(record, source),
        }
        if flags & (EXTRA | NAMED | HELD | RECORDS) != 0 {
            self.close_extras(index, record);
        }
        if record.is_sent() && !off_stack(flags) {
            // It is on the stack of those sent to, or will be in a moment.
            record.set(FINISHED);
            return;
        }
        self.slots.give_back(index);
    }

    /// Takes the watchers out of everything that others have closed without
    /// memory for a command.
    #[cold]
    pub fn close_unlisted(&mut self) {
        let mut place = usize::MAX;
        while let Some((next, index, record)) = self.slots.find_before(place, Record::is_unlisted) {
            place = next;
            let was_removed = record.take_unlisted();
            self.finish_close(index, record, was_removed);
        }
    }

    fn remove_from_list(&mut self, record: &Record, source: Source) {
        let flags = record.flags.load(Relaxed);
        let Some(list) = self.list(source) else { return };
        if !list.remove(record) {
            return;
        }
        match source {
            Source::Idle if flags & ENABLED != 0 => self.idlers -= 1,
            Source::Defer if flags & (ENABLED | WAITING) == ENABLED | WAITING => {
                self.deferred -= 1;
            }
            _ => {}
        }
    }

    #[cold]
    fn close_extras(&mut self, index: u32, record: &Record) {
        let handle = record.handle(Kind::Watcher, index);
        self.forget_record(record);
        if record.has(NAMED) {
            self.unnamed_more |= self.unnamed.try_push(handle).is_err();
            if self.unnamed.len() >= MANY_NAMES || self.unnamed_more {
                self.desk.attention.set();
            }
        }
        if record.has(RANKED) {
            self.ranked -= 1;
            self.desk.priorities.lock().remove(&handle);
        }
        if record.has(SUSPENDED) {
            self.forget_suspended(index);
        }
        if record.has(HELD) {
            self.forget_held(record, handle);
        }
        if record.has(EXTRA)
            && let Some(letter) = self.take_destroy(index, handle)
        {
            self.note_destroy(letter, closed_event(index, record));
        }
        let kept = self.extras.remove(&index).and_then(|extra| extra.kept);
        // What is longer than an event that will not be seen.
        self.details.set_held(kept.map_or(0, |kept| kept.reserved), false);
        if self.extras.capacity() > 1024 && self.extras.capacity() > 8 * self.extras.len() {
            self.extras.try_shrink();
        }
    }
}

/// The event of a watcher that is closed.
pub(super) fn closed_event(index: u32, record: &Record) -> Event {
    let mut event = Event::new(record.handle(Kind::Watcher, index), CLOSED);
    event.data = record.data.load(Relaxed);
    event
}

pub(super) fn prepare_timer(record: &Record, clock: usize, setting: &Setting) {
    let queue = timers::queue_of(clock, setting);
    record.set((clock as u32) << CLOCK_SHIFT | (queue as u32) << QUEUE_SHIFT);
    record.node.reset();
    record.aux.store(0, Relaxed);
}

/// Notes what an object watcher watches, for threads that ask.
pub(super) fn set_subject(record: &Record, watched: Option<&dyn Watched>) {
    let subject = watched.map_or(0, Watched::subject);
    record.node.third_spare().store(subject, Relaxed);
}
