//! What is longer than an event: had by a call, until the next wait.
//!
//! An event that has more to it carries the number of that. It is forgotten
//! after the next wait, unless the event is kept for later until then.

use super::event::Event;
use super::process_end::Ended;
use crate::errno::{Result, fail};
use crate::signal_hub::Siginfo;
use crate::util::alloc::TryDeque;
use std::collections::VecDeque;

/// The rest of an event.
#[derive(Clone, Copy)]
pub(crate) enum EventPayload {
    Signal(Siginfo),
    Process(Ended),
}

struct PayloadEntry {
    number: u64,
    watcher: i64,
    /// Its event is kept, and was not seen yet.
    retained: bool,
    payload: EventPayload,
}

pub(super) fn forgotten<T>(event: &Event) -> Result<T> {
    fail!(
        ENOENT,
        "the loop has waited since, and forgotten this event of watcher {}",
        event.watcher
    )
}

/// Puts something where its number has it, which mostly is at the end; there
/// is room for it.
pub(super) fn insert<T>(queue: &mut VecDeque<T>, new: T, number: impl Fn(&T) -> u64) {
    let key = number(&new);
    if queue.back().is_none_or(|last| number(last) < key) {
        queue.push_back_reserved(new);
    } else {
        let position = queue.partition_point(|one| number(one) < key);
        queue.insert_reserved(position, new);
    }
}

/// In the order of their numbers.
#[derive(Default)]
pub(super) struct Payloads {
    last: u64,
    list: VecDeque<PayloadEntry>,
}

impl Payloads {
    /// A number that is greater than all before.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps what belongs to an event of this watcher; its number. 0: there
    /// is no memory for that.
    pub fn add(&mut self, watcher: i64, payload: EventPayload) -> u64 {
        let number = self.number();
        self.put(number, watcher, payload)
    }

    /// The same, with a number that was given to it before.
    pub fn put(&mut self, number: u64, watcher: i64, payload: EventPayload) -> u64 {
        let entry = PayloadEntry { number, watcher, retained: false, payload };
        if let Some(taken) = self.position(number).and_then(|position| self.list.get_mut(position))
        {
            *taken = entry;
            return number;
        }
        if self.list.try_reserve(1).is_err() {
            return 0;
        }
        insert(&mut self.list, entry, |entry| entry.number);
        number
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.list.binary_search_by_key(&number, |entry| entry.number).ok()
    }

    pub fn of(&self, event: &Event) -> Result<EventPayload> {
        let entry = self.position(event.reserved).and_then(|position| self.list.get(position));
        match entry.filter(|entry| entry.watcher == event.watcher) {
            Some(entry) => Ok(entry.payload),
            None => forgotten(event),
        }
    }

    /// Puts something else in the place of what belongs to an event.
    pub fn replace(&mut self, number: u64, payload: EventPayload) {
        if let Some(position) = self.position(number)
            && let Some(entry) = self.list.get_mut(position)
        {
            entry.payload = payload;
        }
    }

    /// Takes it away from its event, which will not be seen. Its place is
    /// free after the next wait.
    pub fn take(&mut self, number: u64) -> Option<EventPayload> {
        let position = self.position(number)?;
        let entry = self.list.get_mut(position)?;
        (entry.retained, entry.watcher) = (false, 0);
        Some(entry.payload)
    }

    /// Whether its event is kept, beyond the next wait.
    pub fn set_retained(&mut self, number: u64, retained: bool) {
        if number != 0
            && let Some(position) = self.position(number)
            && let Some(entry) = self.list.get_mut(position)
        {
            entry.retained = retained;
        }
    }
}

/// Room for so many is kept.
const MAX_KEPT: usize = 4096;

impl Payloads {
    /// There was a wait: what belongs to earlier events is forgotten.
    #[inline]
    pub fn forget(&mut self) {
        if !self.list.is_empty() {
            self.forget_all();
        }
    }

    fn forget_all(&mut self) {
        self.list.retain(|entry| entry.retained);
        if self.list.capacity() > MAX_KEPT && self.list.len() < MAX_KEPT / 4 {
            self.list.try_shrink(MAX_KEPT / 2);
        }
    }
}
