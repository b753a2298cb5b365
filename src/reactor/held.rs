//! Events that are not delivered at once: records for evloop_wait, and what
//! comes faster than a rate limit allows, or to a disabled watcher.

use super::clocks;
use super::core::Core;
use super::dispatch::live;
use super::event::Event;
use super::flags::*;
use super::io;
use super::record::{self, Record};
use super::running::Run;
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;
use crate::table::Kind;

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
                over.push(*index);
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
    pub fn admit(&mut self, index: u32, record: &Record, event: &Event) -> bool {
        if record.has(SUSPENDED) || record.has(LIMITED) && !self.is_within_limit(index) {
            self.keep(index, record, event);
            return false;
        }
        if record.has(RECORDS) {
            self.dispatched += 1;
            if self.watched {
                self.watch_kept(event);
            }
            self.hold(*event);
            if !self.collecting && Source::of(record.flags.load(Relaxed)).is_descriptor() {
                // Or it would be found again and again.
                record.set(MASKED);
                self.io_touch(index, record);
            }
            return false;
        }
        self.note_delivered(index, record);
        true
    }

    /// An event is about to be seen by the program.
    fn note_delivered(&mut self, index: u32, record: &Record) {
        if record.has(REAPS) {
            self.object_delivered(index, record);
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
        if record.has(SUSPENDED) {
            return;
        }
        let until =
            extra.limit.map_or(i64::MIN, |limit| limit.since.saturating_add(limit.interval));
        // Room was made when the limit was set.
        if self.suspend(index, record, until) {
            // What only speaks once must be heard.
            if Source::of(record.flags.load(Relaxed)).is_descriptor() && !io::is_edge(record) {
                record.set(MASKED);
                self.io_touch(index, record);
            }
        }
    }

    /// Suspends a watcher, which has extras; false: there is no memory.
    pub fn suspend(&mut self, index: u32, record: &Record, until: i64) -> bool {
        let Some(extra) = self.extras.get_mut(&index) else { return false };
        if self.suspended.try_reserve(1).is_err() {
            return false;
        }
        extra.suspended_at = self.suspended.len();
        self.suspended.push((until, index));
        record.set(SUSPENDED);
        true
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
            record.unset(MASKED);
            self.io_touch(index, record);
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

    /// Keeps an event for evloop_wait: one for each watcher.
    pub fn hold(&mut self, event: Event) {
        if event.r#type == Source::File as i32 {
            return self.hold_note(&event);
        }
        if let Some((_, record)) = live(event.watcher) {
            if record.has(HELD) && event.r#type == Source::Signal as i32 {
                return self.put_back(&event);
            }
            if record.has(HELD)
                && let Some(held) = self.held.get_mut(record.held_place(), event.watcher)
            {
                return held.merge(&event);
            }
            if self.held.try_reserve(1).is_ok() {
                self.details.set_held(event.reserved, true);
                record.set(HELD);
                record.set_held_place(self.held.push_back(event));
            }
        } else if self.held.try_reserve(1).is_ok() {
            self.held.push_back(event);
        }
    }

    /// The next event for evloop_wait.
    pub fn take_held(&mut self) -> Option<Event> {
        let mut event = self.held.pop_front()?;
        if let Some((index, record)) = live(event.watcher) {
            self.not_held(index, record);
            match Source::of(record.flags.load(Relaxed)) {
                Source::File => self.set_held(&event, false),
                Source::Signal => self.signal_taken(index, record, &mut event),
                _ => self.details.set_held(event.reserved, false),
            }
            self.note_delivered(index, record);
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
        if Source::of(flags).is_descriptor() && flags & (MASKED | SUSPENDED) == MASKED {
            record.unset(MASKED);
            self.io_touch(index, record);
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
            source if source.is_told_once() => {
                if let Ok(extra) = self.extra(index, record) {
                    extra.keep(event);
                    self.details.set_held(event.reserved, true);
                }
            }
            source if source.is_descriptor() => self.io_stray(index, record),
            Source::File => {
                self.put_back_note(event);
            }
            _ => {}
        }
    }
}
