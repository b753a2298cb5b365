//! What is longer than an event: had by a call, until the next wait.
//!
//! An event that has more to it carries the number of that. It is forgotten
//! after the next wait, unless the event is kept for later until then.

use super::core::Core;
use super::event::Event;
use super::flags::{ERROR, Source};
use super::named::named;
use super::process::Ended;
use super::record;
use crate::errno::{Result, fail};
use crate::handle::{Handle, Kind};
use crate::signal_hub::Siginfo;
use crate::util::alloc::TryDeque;
use std::collections::VecDeque;

/// The rest of an event.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    Signal(Siginfo),
    Process(Ended),
}

struct Detail {
    number: u64,
    watcher: i64,
    /// Its event is kept, and was not seen yet.
    held: bool,
    content: Content,
}

/// What belongs to an event of this kind.
pub(super) fn of(event: &Event, source: Source) -> Result<Content> {
    if event.r#type != source as i32 || event.events & ERROR != 0 {
        let (r#type, source) = (event.r#type, source as i32);
        fail!(EINVAL, "the event has type {} or an error, not type {}", r#type, source);
    }
    // In a callback also of a watcher that was closed in it, or by another
    // thread meanwhile; its record may be another's, of another loop, by now.
    let handle = Handle::unpack_as(event.watcher, Kind::Watcher);
    let desk = handle.and_then(|handle| record::get(handle.index)?.desk());
    if let Some(desk) = desk.filter(|desk| desk.is_mine()) {
        // SAFETY: this thread runs the loop, whose run borrows nothing of the
        // core while a callback, which this call is in, runs.
        return unsafe { desk.with_core(|core| core.details.of(event)) }?;
    }
    let named = named(event.watcher, Kind::Watcher)?;
    named.with(
        |core| core.details.of(event),
        |_| fail!(EBUSY, "another thread runs the loop of watcher {}", event.watcher),
    )
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
    let at = number(&new);
    if queue.back().is_none_or(|last| number(last) < at) {
        queue.push_back_reserved(new);
    } else {
        let place = queue.partition_point(|one| number(one) < at);
        queue.insert_reserved(place, new);
    }
}

/// In the order of their numbers.
#[derive(Default)]
pub(super) struct Details {
    last: u64,
    list: VecDeque<Detail>,
}

impl Details {
    /// A number that is greater than all before.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Keeps what belongs to an event of this watcher; its number. 0: there
    /// is no memory for that.
    pub fn add(&mut self, watcher: i64, content: Content) -> u64 {
        let number = self.number();
        self.put(number, watcher, content)
    }

    /// The same, with a number that was given to it before.
    pub fn put(&mut self, number: u64, watcher: i64, content: Content) -> u64 {
        let detail = Detail { number, watcher, held: false, content };
        if let Some(taken) = self.place(number).and_then(|place| self.list.get_mut(place)) {
            *taken = detail;
            return number;
        }
        if self.list.try_reserve(1).is_err() {
            return 0;
        }
        insert(&mut self.list, detail, |detail| detail.number);
        number
    }

    fn place(&self, number: u64) -> Option<usize> {
        self.list.binary_search_by_key(&number, |detail| detail.number).ok()
    }

    fn of(&self, event: &Event) -> Result<Content> {
        let detail = self.place(event.reserved).and_then(|place| self.list.get(place));
        match detail.filter(|detail| detail.watcher == event.watcher) {
            Some(detail) => Ok(detail.content),
            None => forgotten(event),
        }
    }

    /// Puts something else in the place of what belongs to an event.
    pub fn replace(&mut self, number: u64, content: Content) {
        if let Some(place) = self.place(number)
            && let Some(detail) = self.list.get_mut(place)
        {
            detail.content = content;
        }
    }

    /// Takes it away from its event, which will not be seen. Its place is
    /// free after the next wait.
    pub fn take(&mut self, number: u64) -> Option<Content> {
        let place = self.place(number)?;
        let detail = self.list.get_mut(place)?;
        (detail.held, detail.watcher) = (false, 0);
        Some(detail.content)
    }

    /// Whether its event is kept, beyond the next wait.
    pub fn set_held(&mut self, number: u64, held: bool) {
        if number != 0
            && let Some(place) = self.place(number)
            && let Some(detail) = self.list.get_mut(place)
        {
            detail.held = held;
        }
    }
}

/// Room for so many is kept.
const ROOM: usize = 4096;

impl Details {
    fn forget_all(&mut self) {
        self.list.retain(|detail| detail.held);
        if self.list.capacity() > ROOM && self.list.len() < ROOM / 4 {
            self.list.try_shrink(ROOM / 2);
        }
    }
}

impl Core {
    /// There was a wait: what belongs to earlier events is forgotten.
    #[inline]
    pub fn forget_details(&mut self) {
        if !self.details.list.is_empty() {
            self.details.forget_all();
        }
    }
}
