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
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;

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
        if !over.is_empty() {
            core.renumber_suspended();
        }
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
            self.suspend(index, record, limit.map_or(i64::MIN, end));
        }
        // Perhaps only now: it may have been changed in its pause.
        self.io_mask(index, record);
    }

    /// Suspends a watcher, which has extras.
    pub fn suspend(&mut self, index: u32, record: &Record, until: i64) {
        let Some(extra) = self.extras.get_mut(&index) else { return };
        extra.suspended_at = self.suspended.len();
        // For each extra there is room here.
        self.suspended.push_reserved((until, index));
        record.set(SUSPENDED);
        if until == i64::MIN {
            self.goes_on_now();
        }
    }

    /// A suspended watcher is due. A foreign loop that waits for this one has
    /// to hear of it.
    fn goes_on_now(&mut self) {
        self.timers.recheck |= 1 << clocks::MONOTONIC;
    }

    /// Takes a suspended watcher out of the list.
    pub fn forget_suspended(&mut self, index: u32) {
        let Some(at) = self.extras.get(&index).map(|extra| extra.suspended_at) else { return };
        if self.suspended.get(at).is_none_or(|(_, suspended)| *suspended != index) {
            return;
        }
        self.suspended.swap_remove(at);
        let moved = self.suspended.get(at).and_then(|(_, moved)| self.extras.get_mut(moved));
        if let Some(moved) = moved {
            moved.suspended_at = at;
        }
    }

    fn renumber_suspended(&mut self) {
        for (at, (_, index)) in self.suspended.iter().enumerate() {
            if let Some(extra) = self.extras.get_mut(index) {
                extra.suspended_at = at;
            }
        }
    }

    /// A suspended watcher may go on in the next iteration.
    pub fn end_suspension(&mut self, index: u32) {
        let at = self.extras.get(&index).map(|extra| extra.suspended_at);
        let entry = at.and_then(|at| self.suspended.get_mut(at));
        if let Some((until, _)) = entry.filter(|(_, suspended)| *suspended == index) {
            *until = i64::MIN;
            self.goes_on_now();
        }
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
            self.signal_due(index);
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
            let held =
                record.and_then(|record| self.held.get_mut(record.held_place(), event.watcher));
            if let Some(held) = held {
                held.merge(&event);
                return true;
            }
        }
        let Ok(place) = self.held.try_push_back(event) else { return false };
        self.details.set_held(event.reserved, true);
        if let Some(record) = record {
            record.set(HELD);
            record.set_held_place(place);
        }
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
    pub fn has_held(&mut self) -> bool {
        !self.held.is_empty() || !self.unheld.is_empty()
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
        if Source::of(flags) == Source::File && self.held.has_of(handle) {
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
        self.held.remove(record.held_place(), record.handle(Kind::Watcher, index))
    }

    /// What is held of a watcher that is closed will not be seen.
    pub fn forget_held(&mut self, record: &Record, handle: i64) {
        if Source::of(record.flags.load(Relaxed)) == Source::File {
            self.held.forget_file();
        } else if let Some(event) = self.held.remove(record.held_place(), handle) {
            self.details.set_held(event.reserved, false);
        }
    }

    /// The same as `take_back`, of one that is disabled.
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
