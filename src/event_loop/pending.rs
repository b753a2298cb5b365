//! Events that are not delivered at once: records for evloop_wait, and what
//! comes faster than a rate limit allows, or to a disabled watcher.

use super::clock_ids;
use super::event::Event;
use super::flags::*;
use super::slot::WatcherSlot;
use super::slot::live;
use super::slot::view;
use super::source::ctx::Limit;
use super::state::LoopState;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;

impl LoopState {
    /// What an iteration can do about an event that has more to it; true: its
    /// callback is to be called.
    #[cold]
    pub fn admit(&mut self, index: u32, slot: &WatcherSlot, event: &mut Event) -> bool {
        if slot.has(RATE_LIMITED_NOW) || slot.has(HAS_RATE_LIMIT) && !self.is_within_limit(index) {
            self.defer(index, slot, event);
            return false;
        }
        if slot.has(RECORDS) {
            self.dispatched += 1;
            if self.instrumented {
                self.probe_pending(event);
            }
            if !self.add_pending(*event) {
                self.requeue_unqueued(index, slot, event);
            } else if !self.ctx.collecting {
                // Or it would be found again and again.
                self.io.suppress(index, slot);
            }
            return false;
        }
        self.note_delivered(index, slot, event);
        true
    }

    /// An event is about to be seen by the program.
    fn note_delivered(&mut self, index: u32, slot: &WatcherSlot, event: &mut Event) {
        if slot.has(REAPS) {
            self.fd_sources.deliver(&mut self.ctx, index, slot, event);
        }
    }

    fn is_within_limit(&mut self, index: u32) -> bool {
        let now = self.ctx.read_clock(clock_ids::MONOTONIC);
        let limit = self.ctx.extras.get_mut(&index).and_then(|extra| extra.limit.as_mut());
        let Some(limit) = limit else { return true };
        if limit.since == i64::MIN || now.saturating_sub(limit.since) >= limit.interval {
            limit.since = now;
            limit.count = 0;
        }
        limit.count = limit.count.saturating_add(1);
        limit.count <= limit.burst
    }

    /// Keeps an event of a watcher that is over its rate limit.
    fn defer(&mut self, index: u32, slot: &WatcherSlot, event: &Event) {
        let is_signal = event.r#type == Source::Signal as i32;
        if is_signal {
            self.signals.requeue(&mut self.ctx, index, event);
        }
        let is_back = is_signal || self.files.requeue(&mut self.ctx, event);
        if event.r#type == Source::File as i32 {
            self.files.ends_later(&mut self.ctx, slot, event);
        }
        let Some(extra) = self.ctx.extras.get_mut(&index) else { return };
        if !is_back {
            // A note that there was no memory for has lost its names.
            let is_note = event.r#type == Source::File as i32;
            let event = Event { reserved: if is_note { 0 } else { event.reserved }, ..*event };
            extra.defer_event(&event);
            self.ctx.payloads.set_retained(event.reserved, true);
        }
        let limit = extra.limit;
        if !slot.has(RATE_LIMITED_NOW) {
            let end = |limit: Limit| limit.since.saturating_add(limit.interval);
            self.suspend(index, slot, limit.map_or(i64::MIN, end));
        }
        // Perhaps only now: it may have been changed in its pause.
        self.io.suppress(index, slot);
    }

    /// Suspends a watcher, which has extras.
    pub fn suspend(&mut self, index: u32, slot: &WatcherSlot, until: i64) {
        let Some(extra) = self.ctx.extras.get_mut(&index) else { return };
        extra.suspended_at = self.ctx.suspended.len();
        // For each extra there is room here.
        self.ctx.suspended.push_reserved((until, index));
        slot.set(RATE_LIMITED_NOW);
        if until == i64::MIN {
            self.goes_on_now();
        }
    }

    /// A suspended watcher is due. This ends the wait of a foreign loop for
    /// this one.
    fn goes_on_now(&mut self) {
        self.timers.recheck |= 1 << clock_ids::MONOTONIC;
    }

    /// Takes a suspended watcher out of the list.
    pub fn forget_suspended(&mut self, index: u32) {
        let Some(i) = self.ctx.extras.get(&index).map(|extra| extra.suspended_at) else { return };
        if self.ctx.suspended.get(i).is_none_or(|(_, suspended)| *suspended != index) {
            return;
        }
        self.ctx.suspended.swap_remove(i);
        let moved = self.ctx.suspended.get(i).and_then(|(_, moved)| self.ctx.extras.get_mut(moved));
        if let Some(moved) = moved {
            moved.suspended_at = i;
        }
    }

    pub fn renumber_suspended(&mut self) {
        for (i, (_, index)) in self.ctx.suspended.iter().enumerate() {
            if let Some(extra) = self.ctx.extras.get_mut(index) {
                extra.suspended_at = i;
            }
        }
    }

    /// A suspended watcher may go on in the next iteration.
    pub fn end_suspension(&mut self, index: u32) {
        let i = self.ctx.extras.get(&index).map(|extra| extra.suspended_at);
        let entry = i.and_then(|i| self.ctx.suspended.get_mut(i));
        if let Some((until, _)) = entry.filter(|(_, suspended)| *suspended == index) {
            *until = i64::MIN;
            self.goes_on_now();
        }
    }

    /// Ends a watcher's suspension. Returns the event that was kept.
    pub fn go_on(&mut self, index: u32, slot: &WatcherSlot) -> Option<Event> {
        if !slot.has(RATE_LIMITED_NOW) {
            return None;
        }
        slot.unset(RATE_LIMITED_NOW);
        let flags = slot.flags.load(Relaxed);
        let source = Source::of(flags);
        if source == Source::File {
            self.files.resume(&mut self.ctx, index, slot);
        }
        if source.is_descriptor() {
            self.io.unsuppress(index, slot);
        }
        let spent = source.is_descriptor() && flags & AUTO_DISABLED != 0;
        if flags & ENABLED == 0 && !spent {
            // Until it is enabled.
            return None;
        }
        if source == Source::Signal {
            self.signals.note_due(index);
            return None;
        }
        let deferred_event = self.ctx.extras.get_mut(&index)?.deferred_event.take();
        self.ctx.payloads.set_retained(
            deferred_event.map_or(0, |deferred_event| deferred_event.reserved),
            false,
        );
        if !source.is_reported_once() && source.is_descriptor() && !spent {
            // The kernel reports again that a descriptor is still ready, unless
            // it reports it only once.
            return deferred_event.filter(|deferred_event| {
                deferred_event.events & ERROR != 0 || view::is_edge(slot)
            });
        }
        deferred_event
    }

    /// Keeps an event for evloop_wait: one for each watcher. False: there is
    /// no memory, though room was looked for when the watcher was added.
    pub fn add_pending(&mut self, event: Event) -> bool {
        if event.r#type == Source::File as i32 {
            self.files.add_pending(&mut self.ctx, &event);
            return true;
        }
        let slot = live(event.watcher).map(|(_, slot)| slot);
        if slot.is_some_and(|slot| slot.has(HAS_PENDING)) {
            if event.r#type == Source::Signal as i32 {
                self.requeue(&event);
                return true;
            }
            let pending =
                slot.and_then(|slot| self.ctx.pending.get_mut(slot.pending_index(), event.watcher));
            if let Some(pending) = pending {
                pending.merge(&event);
                return true;
            }
        }
        let Ok(position) = self.ctx.pending.try_push_back(event) else { return false };
        self.ctx.payloads.set_retained(event.reserved, true);
        if let Some(slot) = slot {
            slot.set(HAS_PENDING);
            slot.set_pending_index(position);
        }
        true
    }

    /// There was no memory to keep an event: what would not come again by
    /// itself is made to.
    #[cold]
    fn requeue_unqueued(&mut self, index: u32, slot: &WatcherSlot, event: &Event) {
        match Source::of(slot.flags.load(Relaxed)) {
            Source::Timer if !slot.has(SET) => {
                self.timers.retry(&mut self.ctx, index, slot, event.deadline_ns)
            }
            Source::Timer => {}
            _ => self.requeue(event),
        }
    }

    /// Whether there is something for evloop_wait.
    pub fn has_pending(&mut self) -> bool {
        !self.ctx.pending.is_empty() || !self.unqueued_destroys.is_empty()
    }

    /// The next event for evloop_wait.
    pub fn take_pending(&mut self) -> Option<Event> {
        if let Some(closed) = self.unqueued_destroys.pop() {
            return Some(closed.event);
        }
        let mut event = self.ctx.pending.pop_front()?;
        if let Some((index, slot)) = live(event.watcher) {
            self.on_pending_taken(index, slot);
            match Source::of(slot.flags.load(Relaxed)) {
                Source::File => self.files.set_retained(&mut self.ctx, &event, false),
                Source::Signal => {
                    let later = self.signals.taken(&mut self.ctx, index, slot, &mut event);
                    if let Some(later) = later {
                        self.add_pending(later);
                    }
                }
                _ => self.ctx.payloads.set_retained(event.reserved, false),
            }
            self.note_delivered(index, slot, &mut event);
        }
        Some(event)
    }

    fn on_pending_taken(&mut self, index: u32, slot: &WatcherSlot) {
        let flags = slot.flags.load(Relaxed);
        let handle = slot.handle(Kind::Watcher, index);
        if Source::of(flags) == Source::File && self.ctx.pending.has_of(handle) {
            // Each of its events is a record.
            return;
        }
        slot.unset(HAS_PENDING);
        if Source::of(flags).is_descriptor() && flags & RATE_LIMITED_NOW == 0 {
            self.io.unsuppress(index, slot);
        }
    }

    /// Cancels the pending record of a watcher that is stopped, set again or
    /// disabled.
    pub fn cancel_record(&mut self, index: u32, slot: &WatcherSlot) -> Option<Event> {
        if !slot.has(HAS_PENDING) {
            return None;
        }
        self.on_pending_taken(index, slot);
        self.ctx.pending.remove(slot.pending_index(), slot.handle(Kind::Watcher, index))
    }

    /// The pending record of a watcher that is closed is discarded.
    pub fn discard_pending(&mut self, slot: &WatcherSlot, handle: i64) {
        if Source::of(slot.flags.load(Relaxed)) == Source::File {
            self.ctx.pending.forget_file();
        } else if let Some(event) = self.ctx.pending.remove(slot.pending_index(), handle) {
            self.ctx.payloads.set_retained(event.reserved, false);
        }
    }

    /// The same as `cancel_record`, of one that is disabled.
    pub fn requeue_pending(&mut self, index: u32, slot: &WatcherSlot) {
        if Source::of(slot.flags.load(Relaxed)) == Source::File {
            let handle = slot.handle(Kind::Watcher, index);
            return self.files.requeue_pending(&mut self.ctx, slot, handle);
        }
        if let Some(event) = self.cancel_record(index, slot) {
            self.requeue(&event);
        }
    }

    /// An event whose watcher was disabled in the same batch: what would be
    /// lost is kept.
    pub fn requeue(&mut self, event: &Event) {
        let Some((index, slot)) = live(event.watcher) else { return };
        match Source::of(slot.flags.load(Relaxed)) {
            Source::Timer => self.timers.requeue(&mut self.ctx, index, slot, event.deadline_ns),
            Source::Async => self.asyncs.requeue(slot),
            Source::Signal => self.signals.requeue(&mut self.ctx, index, event),
            // It was read: its count would be lost.
            source if source.is_reported_once() => match self.ctx.extra(index, slot) {
                Ok(extra) => {
                    extra.defer_event(event);
                    self.ctx.payloads.set_retained(event.reserved, true);
                }
                Err(error) => self.ctx.fail(event.watcher, error.errno),
            },
            source if source.is_descriptor() => self.io.spurious(index, slot),
            Source::File => {
                self.files.requeue(&mut self.ctx, event);
            }
            _ => {}
        }
    }
}
