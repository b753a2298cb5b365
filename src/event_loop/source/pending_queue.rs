//! Events that wait for evloop_wait, in their order.
//!
//! A watcher has one at most, whose place its slot knows, so that it is found,
//! merged and removed in the same time however many wait; file watchers have
//! any number, which go when it is seen that their watcher is closed. A place
//! whose event was removed stays until it comes up, or until most places are
//! such.

use crate::event_loop::event::Event;
use crate::event_loop::flags::{HAS_PENDING, Source};
use crate::event_loop::slot::live;
use crate::util::alloc::{NoMemory, TryDeque};
use std::collections::VecDeque;

/// The type of an event that was removed; others are greater.
const REMOVED: i32 = 0;
/// So many removed events do not matter.
const FEW: usize = 16;

#[derive(Default)]
pub(in crate::event_loop) struct PendingQueue {
    events: VecDeque<Event>,
    /// The place of the first.
    start: u64,
    /// How many were removed, about.
    removed: usize,
    /// How many watchers have no callback.
    watchers: usize,
}

fn is_file(event: &Event) -> bool {
    event.r#type == Source::File as i32
}

fn is_removed(event: &Event) -> bool {
    event.r#type == REMOVED || is_file(event) && live(event.watcher).is_none()
}

impl PendingQueue {
    /// Makes room for so many more. In the places of removed ones, if there is
    /// no memory for others.
    pub fn try_reserve(&mut self, count: usize) -> Result<(), NoMemory> {
        if self.events.try_reserve(count).is_err() {
            self.compact();
            self.events.try_reserve(count).map_err(|_| NoMemory)?;
        }
        Ok(())
    }

    /// A watcher without a callback is new: room for one event of each. Where
    /// there is no memory it is looked for again when an event is there.
    pub fn expect_watcher(&mut self) -> bool {
        self.watchers += 1;
        let pending = self.events.len().saturating_sub(self.removed);
        self.try_reserve(self.watchers.saturating_sub(pending)).is_ok()
    }

    /// A watcher without a callback is closed.
    pub fn forget_watcher(&mut self) {
        self.watchers = self.watchers.saturating_sub(1);
    }

    /// Appends an event; its place.
    pub fn try_push_back(&mut self, event: Event) -> Result<u64, NoMemory> {
        self.try_reserve(1)?;
        self.events.push_back_reserved(event);
        Ok(self.start + self.events.len() as u64 - 1)
    }

    fn event_at(&mut self, position: u64) -> Option<&mut Event> {
        self.events.get_mut(usize::try_from(position.checked_sub(self.start)?).ok()?)
    }

    /// The event of a watcher at its place.
    pub fn get_mut(&mut self, position: u64, watcher: i64) -> Option<&mut Event> {
        let event = self.event_at(position)?;
        (event.watcher == watcher && event.r#type != REMOVED).then_some(event)
    }

    /// Removes the event of a watcher at its place.
    pub fn remove(&mut self, position: u64, watcher: i64) -> Option<Event> {
        let event = self.get_mut(position, watcher)?;
        let removed = std::mem::replace(event, Event::new(0, REMOVED));
        self.removed += 1;
        while self.events.back().is_some_and(|last| last.r#type == REMOVED) {
            self.events.pop_back();
            self.removed = self.removed.saturating_sub(1);
        }
        self.tidy();
        Some(removed)
    }

    /// A file watcher that has events here is closed.
    pub fn forget_file(&mut self) {
        self.removed += 1;
        self.tidy();
    }

    /// Makes places free, if most of them are of removed events.
    fn tidy(&mut self) {
        if self.removed <= FEW.max(self.events.len() / 2) {
            return;
        }
        self.compact();
        let capacity = self.watchers.max(2 * self.events.len());
        if self.events.capacity() > 2 * capacity + 64 {
            self.events.try_shrink(capacity);
        }
    }

    /// Makes the places of removed events free; without memory.
    fn compact(&mut self) {
        self.events.retain(|event| !is_removed(event));
        self.removed = 0;
        for (position, event) in (self.start..).zip(&self.events) {
            let pending = live(event.watcher).filter(|(_, slot)| slot.has(HAS_PENDING));
            if let Some((_, slot)) = pending.filter(|_| !is_file(event)) {
                slot.set_pending_index(position);
            }
        }
    }

    fn skip_removed(&mut self) {
        while self.events.front().is_some_and(is_removed) {
            self.events.pop_front();
            self.start += 1;
            self.removed = self.removed.saturating_sub(1);
        }
    }

    pub fn pop_front(&mut self) -> Option<Event> {
        self.skip_removed();
        let event = self.events.pop_front()?;
        self.start += 1;
        Some(event)
    }

    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if !self.events.is_empty() {
            self.skip_removed();
        }
        self.events.is_empty()
    }

    pub fn has_of(&self, watcher: i64) -> bool {
        self.events.iter().any(|event| event.watcher == watcher)
    }

    /// Keeps the events for which this is true; of file watchers.
    pub fn retain_files(&mut self, mut keep: impl FnMut(&Event) -> bool) {
        for event in self.events.iter_mut().filter(|event| is_file(event)) {
            if !keep(event) {
                *event = Event::new(0, REMOVED);
                self.removed += 1;
            }
        }
        self.tidy();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(watcher: i64) -> Event {
        Event::new(watcher, Source::Async as i32)
    }

    fn push(queue: &mut PendingQueue, watcher: i64) -> u64 {
        queue.try_push_back(event(watcher)).unwrap()
    }

    #[test]
    fn what_was_removed_does_not_come() {
        let mut queue = PendingQueue::default();
        let indices: Vec<_> = (1..=9).map(|watcher| push(&mut queue, watcher)).collect();
        for watcher in [1, 5, 9, 8] {
            let removed = queue.remove(indices[watcher - 1], watcher as i64);
            assert_eq!(removed.map(|event| event.watcher), Some(watcher as i64));
            assert!(queue.remove(indices[watcher - 1], watcher as i64).is_none());
        }
        assert!(!queue.is_empty());
        let left: Vec<_> = std::iter::from_fn(|| queue.pop_front()).map(|e| e.watcher).collect();
        assert_eq!(left, [2, 3, 4, 6, 7]);
        assert!(queue.is_empty() && queue.removed == 0);
    }

    #[test]
    fn a_first_event_that_stays_does_not_keep_the_places_of_others() {
        let mut queue = PendingQueue::default();
        push(&mut queue, 1);
        push(&mut queue, 2);
        for _ in 0..1000 {
            let before_last = push(&mut queue, 2) - 1;
            assert!(queue.remove(before_last, 2).is_some());
            assert!(queue.events.len() < 64);
        }
        assert_eq!(queue.pop_front().map(|event| event.watcher), Some(1));
        assert_eq!(queue.pop_front().map(|event| event.watcher), Some(2));
        assert!(queue.is_empty());
    }

    #[test]
    fn an_event_of_each_watcher_needs_no_memory() {
        use crate::util::heap::failing;
        let mut queue = PendingQueue::default();
        (0..100).for_each(|_| assert!(queue.expect_watcher()));
        failing::after(0, || {
            let first = push(&mut queue, 1);
            (2..=100).for_each(|watcher| assert!(push(&mut queue, watcher) > first));
            for (position, watcher) in (first..).zip(1..=40) {
                assert!(queue.remove(position, watcher).is_some());
            }
            (1..=40).for_each(|watcher| assert!(push(&mut queue, watcher) > first));
        });
        let all = std::iter::from_fn(|| queue.pop_front()).map(|event| event.watcher);
        assert!(all.eq((41..=100).chain(1..=40)));
    }
}
