//! Watchers in the order in which they were added.
//!
//! They are linked in their records, so that inserting needs no memory, and
//! removing one takes the same time wherever it is. A watcher is in one list
//! at most; its record's `aux` is the list's.

use super::record::{self, Record};
use crate::sync::Ordering::Relaxed;

/// No watcher has this index.
const NONE: u32 = 0;
/// The links of a watcher that could not be added to its list.
const LEFT_OUT: u64 = u64::MAX;

#[derive(Default)]
pub(super) struct List {
    first: u32,
    last: u32,
    len: usize,
}

/// The watchers before and after one.
fn links(record: &Record) -> (u32, u32) {
    let links = record.aux.load(Relaxed);
    ((links >> 32) as u32, links as u32)
}

fn set_links(record: &Record, before: u32, after: u32) {
    record.aux.store(u64::from(before) << 32 | u64::from(after), Relaxed);
}

fn at(index: u32) -> Option<&'static Record> {
    if index == NONE { None } else { record::get(index) }
}

impl List {
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// Appends a watcher that is in no list.
    pub fn push(&mut self, index: u32, record: &Record) {
        set_links(record, self.last, NONE);
        match at(self.last) {
            Some(last) => set_links(last, links(last).0, index),
            None => self.first = index,
        }
        self.last = index;
        self.len += 1;
    }

    /// A watcher that is in no list stays out of this one.
    pub fn leave_out(record: &Record) {
        record.aux.store(LEFT_OUT, Relaxed);
    }

    /// Removes a watcher that was appended; false: it was left out.
    pub fn remove(&mut self, record: &Record) -> bool {
        if record.aux.load(Relaxed) == LEFT_OUT {
            return false;
        }
        let (before, after) = links(record);
        match at(before) {
            Some(before) => set_links(before, links(before).0, after),
            None => self.first = after,
        }
        match at(after) {
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
    pub fn after(record: &Record) -> u32 {
        links(record).1
    }

    pub fn iter(&self) -> impl Iterator<Item = (u32, &'static Record)> {
        let mut next = self.first;
        std::iter::from_fn(move || {
            let (index, record) = (next, at(next)?);
            next = links(record).1;
            Some((index, record))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event_loop::record::{records_of, take_block};

    #[test]
    fn watchers_are_removed_in_any_order_and_the_others_keep_theirs() {
        let block = take_block(None).unwrap();
        let first = block * record::PER_BLOCK + 1;
        let all: Vec<_> = (first..).zip(records_of(block)).take(5).collect();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
            let mut list = List::default();
            all.iter().for_each(|(index, record)| list.push(*index, record));
            let mut left: Vec<_> = all.iter().map(|(index, _)| *index).collect();
            for place in order {
                assert!(list.iter().map(|(index, _)| index).eq(left.iter().copied()));
                let (index, record) = all[place];
                assert!(list.remove(record));
                left.retain(|other| *other != index);
            }
            assert_eq!((list.first, list.last, list.len), (NONE, NONE, 0));
        }
        let mut list = List::default();
        let [(index, record), (_, other), ..] = all[..] else { panic!() };
        list.push(index, record);
        List::leave_out(other);
        assert!(!list.remove(other));
        assert!(list.iter().map(|(index, _)| index).eq([index]));
        record::give_back_block(block);
    }
}
