//! Events that are not delivered at once: records for evloop_wait, and what
//! comes faster than a rate limit allows, or to a disabled watcher.

use super::clocks;
use super::core::{Core, Limit};
use super::dispatch::live;
use super::event::Event;
use super::flags::*;
use super::io;
use super::record::{self, Record};
use super::running::Run;
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;
use crate::table::Kind;
use crate::util::alloc::{TryDeque, TryVec};

impl Run {
    /// Lets watchers go on whose rate limit's interval is over.
    pub fn resume(&self) -> Result<()> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if core.suspended.is_empty() {
            return Ok(());
        }
        let now = core.read_clock(clocks::MONOTONIC);
        let mut over = Vec::new();
        core.suspended.retain(|(until, index)| {
            let is_over = *until <= now && over.try_reserve(1).is_ok();
            if is_over {
                over.push_reserved(*index);
            }
            !is_over
        });
        for index in over {
            let Some(record) = record::get(index) else { continue };
            // SAFETY: as above.
            if let Some(event) = unsafe { self.core() }.go_on(index, record) {
                self.emit(event, record)?;
            }
        }
        Ok(())
    }
}

impl Core {
    /// What an iteration can do about an event that has more to it; true: its
    /// callback is to be called.
    #[cold]
    pub fn admit(&mut self, index: u32, record: &Record, event: &mut Event) -> bool {
        if record.has(SUSPENDED) || record.has(LIMITED) && !self.is_within_limit(index) {
            self.keep(index, record, event);
            return false;
        }
        if record.has(RECORDS) {
            self.dispatched += 1;
            if self.watched {
                self.watch_kept(event);
            }
            if !self.hold(*event) {
                self.not_held_now(index, record, event);
            } else if !self.collecting {
                // Or it would be found again and again.
                self.io_mask(index, record);
            }
            return false;
        }
        self.note_delivered(index, record, event);
        true
    }

    /// An event is about to be seen by the program.
    fn note_delivered(&mut self, index: u32, record: &Record, event: &mut Event) {
        if record.has(REAPS) {
            self.deliver_object(index, record, event);
        }
    }

    fn is_within_limit(&mut self, index: u32) -> bool {
        let now = self.read_clock(clocks::MONOTONIC);
        let limit = self.extras.get_mut(&index).and_then(|extra| extra.limit.as_mut());
        let Some(limit) = limit else { return true };
        if limit.since == i64::MIN || now.saturating_sub(limit.since) >= limit.interval {
            limit.since = now;
            limit.count = 0;
        }
        limit.count = limit.count.saturating_add(1);
        limit.count <= limit.burst
    }

    /// Keeps an event of a watcher that is over its rate limit.
    fn keep(&mut self, index: u32, record: &Record, event: &Event) {
        let is_signal = event.r#type == Source::Signal as i32;
        if is_signal {
            self.signal_put_back(index, event);
        }
        let is_back = is_signal || self.put_back_note(event);
        if event.r#type == Source::File as i32 {
            self.ends_later(record, event);
        }
        let Some(extra) = self.extras.get_mut(&index) else { return };
        if !is_back {
            // A note that there was no memory for has lost its names.
            let is_note = event.r#type == Source::File as i32;
            let event = Event { reserved: if is_note { 0 } else { event.reserved }, ..*event };
            extra.keep(&event);
            self.details.set_held(event.reserved, true);
        }
        let limit = extra.limit;
        if !record.has(SUSPENDED) {
            let end = |limit: Limit| limit.since.saturating_add(limit.interval);
            // For each extra there is room here.
            self.suspended.push_reserved((limit.map_or(i64::MIN, end), index));
            record.set(SUSPENDED);
        }
        // Perhaps only now: it may have been changed in its pause.
        self.io_mask(index, record);
    }

    /// A watcher may go on; what happened meanwhile.
    fn go_on(&mut self, index: u32, record: &Record) -> Option<Event> {
        if !record.has(SUSPENDED) {
            return None;
        }
        record.unset(SUSPENDED);
        let flags = record.flags.load(Relaxed);
        let source = Source::of(flags);
        if source == Source::File {
            self.resume_notes(index, record);
        }
        if source.is_descriptor() {
            self.io_unmask(index, record);
        }
        let spent = source.is_descriptor() && flags & SPENT != 0;
        if flags & ENABLED == 0 && !spent {
            // Until it is enabled.
            return None;
        }
        if source == Source::Signal {
            self.signals.due = true;
            return None;
        }
        let kept = self.extras.get_mut(&index)?.kept.take();
        self.details.set_held(kept.map_or(0, |kept| kept.reserved), false);
        if !source.is_told_once() && source.is_descriptor() && !spent {
            // A descriptor says itself whether it is still ready, unless it
            // only speaks once.
            return kept.filter(|kept| kept.events & ERROR != 0 || io::is_edge(record));
        }
        kept
    }

    /// Keeps an event for evloop_wait: one for each watcher. False: there is
    /// no memory, though room was looked for when the watcher was added.
    pub fn hold(&mut self, event: Event) -> bool {
        if event.r#type == Source::File as i32 {
            self.hold_note(&event);
            return true;
        }
        let record = live(event.watcher).map(|(_, record)| record);
        if record.is_some_and(|record| record.has(HELD)) {
            if event.r#type == Source::Signal as i32 {
                self.put_back(&event);
                return true;
            }
            if let Some(held) = self.held.iter_mut().rfind(|held| held.watcher == event.watcher) {
                held.merge(&event);
                return true;
            }
        }
        if self.held.try_push_back(event).is_err() {
            return false;
        }
        self.details.set_held(event.reserved, true);
        record.into_iter().for_each(|record| record.set(HELD));
        true
    }

    /// There was no memory to keep an event: what would not come again by
    /// itself is made to.
    #[cold]
    fn not_held_now(&mut self, index: u32, record: &Record, event: &Event) {
        match Source::of(record.flags.load(Relaxed)) {
            Source::Timer if !record.has(SET) => self.timer_retry(index, record, event.deadline_ns),
            Source::Timer => {}
            _ => self.put_back(event),
        }
    }

    /// Whether there is something for evloop_wait.
    pub fn has_held(&self) -> bool {
        !self.held.is_empty() || !self.unheld.is_empty()
    }

    /// A watcher without a callback is new: room for one event of each. Where
    /// there is no memory it is looked for again when an event is there.
    pub fn expect_record(&mut self) -> bool {
        self.recorders += 1;
        let more = self.recorders.saturating_sub(self.held.len());
        self.held.try_reserve(more).is_ok()
    }

    /// The next event for evloop_wait.
    pub fn take_held(&mut self) -> Option<Event> {
        if let Some(closed) = self.unheld.pop() {
            return Some(closed.event);
        }
        let mut event = self.held.pop_front()?;
        if let Some((index, record)) = live(event.watcher) {
            self.not_held(index, record);
            match Source::of(record.flags.load(Relaxed)) {
                Source::File => self.set_held(&event, false),
                Source::Signal => self.signal_taken(index, record, &mut event),
                _ => self.details.set_held(event.reserved, false),
            }
            self.note_delivered(index, record, &mut event);
        }
        Some(event)
    }

    fn not_held(&mut self, index: u32, record: &Record) {
        let flags = record.flags.load(Relaxed);
        let handle = record.handle(Kind::Watcher, index);
        if Source::of(flags) == Source::File && self.held.iter().any(|e| e.watcher == handle) {
            // Each of its events is a record.
            return;
        }
        record.unset(HELD);
        if Source::of(flags).is_descriptor() && flags & SUSPENDED == 0 {
            self.io_unmask(index, record);
        }
    }

    /// What is held of a watcher that is stopped, set anew or disabled.
    pub fn take_back(&mut self, index: u32, record: &Record) -> Option<Event> {
        if !record.has(HELD) {
            return None;
        }
        self.not_held(index, record);
        let handle = record.handle(Kind::Watcher, index);
        let place = self.held.iter().position(|event| event.watcher == handle)?;
        self.held.remove(place)
    }

    /// The same, of one that is disabled.
    pub fn put_back_held(&mut self, index: u32, record: &Record) {
        if Source::of(record.flags.load(Relaxed)) == Source::File {
            let handle = record.handle(Kind::Watcher, index);
            return self.put_back_held_notes(record, handle);
        }
        if let Some(event) = self.take_back(index, record) {
            self.put_back(&event);
        }
    }

    /// An event whose watcher was disabled in the same batch: what would be
    /// lost is kept.
    pub fn put_back(&mut self, event: &Event) {
        let Some((index, record)) = live(event.watcher) else { return };
        match Source::of(record.flags.load(Relaxed)) {
            Source::Timer => self.timer_put_back(index, record, event.deadline_ns),
            Source::Async => self.async_put_back(record),
            Source::Signal => self.signal_put_back(index, event),
            // It was read: its count would be lost.
            source if source.is_told_once() => match self.extra(index, record) {
                Ok(extra) => {
                    extra.keep(event);
                    self.details.set_held(event.reserved, true);
                }
                Err(error) => self.fail(event.watcher, error.errno),
            },
            source if source.is_descriptor() => self.io_stray(index, record),
            Source::File => {
                self.put_back_note(event);
            }
            _ => {}
        }
    }
}
