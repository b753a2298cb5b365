//! Watchers in the order in which they were added.
//!
//! They are linked in their slots, so that inserting needs no memory, and
//! removing one takes the same time wherever it is. A watcher is in one list at
//! most; its slot's `aux` is the list's.

use crate::event_loop::slot::{self, WatcherSlot};
use crate::sync::Ordering::Relaxed;

/// No watcher has this index.
const NONE: u32 = 0;
/// The links of a watcher that could not be added to its list.
const LEFT_OUT: u64 = u64::MAX;

#[derive(Default)]
pub(in crate::event_loop) struct WatcherList {
    first: u32,
    last: u32,
    len: usize,
}

/// The watchers before and after one.
fn links(slot: &WatcherSlot) -> (u32, u32) {
    let links = slot.aux.load(Relaxed);
    ((links >> 32) as u32, links as u32)
}

fn set_links(slot: &WatcherSlot, before: u32, after: u32) {
    slot.aux.store(u64::from(before) << 32 | u64::from(after), Relaxed);
}

fn slot_at(index: u32) -> Option<&'static WatcherSlot> {
    if index == NONE { None } else { slot::get(index) }
}

impl WatcherList {
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends a watcher that is in no list.
    pub fn push(&mut self, index: u32, slot: &WatcherSlot) {
        set_links(slot, self.last, NONE);
        match slot_at(self.last) {
            Some(last) => set_links(last, links(last).0, index),
            None => self.first = index,
        }
        self.last = index;
        self.len += 1;
    }

    /// A watcher that is in no list stays out of this one.
    pub fn leave_out(slot: &WatcherSlot) {
        slot.aux.store(LEFT_OUT, Relaxed);
    }

    /// Removes a watcher that was appended; false: it was left out.
    pub fn remove(&mut self, slot: &WatcherSlot) -> bool {
        if slot.aux.load(Relaxed) == LEFT_OUT {
            return false;
        }
        let (before, after) = links(slot);
        match slot_at(before) {
            Some(before) => set_links(before, links(before).0, after),
            None => self.first = after,
        }
        match slot_at(after) {
            Some(after) => set_links(after, before, links(after).1),
            None => self.last = before,
        }
        self.len -= 1;
        true
    }

    /// The first watcher, or 0.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The watcher after this one, or 0.
    pub fn after(slot: &WatcherSlot) -> u32 {
        links(slot).1
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &'static WatcherSlot)> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let (index, slot) = (next, slot_at(next)?);
            next = links(slot).1;
            Some((index, slot))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::slot::{slots_of, take_block};

    #[test]
    fn watchers_are_removed_in_any_order_and_the_others_keep_theirs() {
        let block = take_block(None).unwrap();
        let first = block * slot::PER_BLOCK + 1;
        let all: Vec<_> = (first..).zip(slots_of(block)).take(5).collect();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
            let mut list = WatcherList::default();
            all.iter().for_each(|(index, slot)| list.push(*index, slot));
            let mut left: Vec<_> = all.iter().map(|(index, _)| *index).collect();
            for position in order {
                assert!(list.iter().map(|(index, _)| index).eq(left.iter().copied()));
                let (index, slot) = all[position];
                assert!(list.remove(slot));
                left.retain(|other| *other != index);
            }
            assert_eq!((list.first, list.last, list.len), (NONE, NONE, 0));
        }
        let mut list = WatcherList::default();
        let [(index, slot), (_, other), ..] = all[..] else { panic!() };
        list.push(index, slot);
        WatcherList::leave_out(other);
        assert!(!list.remove(other));
        assert!(list.iter().map(|(index, _)| index).eq([index]));
        slot::free_block(block);
    }
}
