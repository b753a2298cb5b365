//! Watchers in the order in which they were added.
//!
//! They are linked in their records, so that inserting needs no memory, and
//! removing one takes the same time wherever it is. A watcher is in one list
//! at most; its record's `aux` is the list's.

use super::record::{self, Record};
use crate::sync::Ordering::Relaxed;

/// No watcher has this index.
const NONE: u32 = 0;

#[derive(Default)]
pub(super) struct List {
    first: u32,
    last: u32,
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

    /// Appends a watcher that is in no list.
    pub fn push(&mut self, index: u32, record: &Record) {
        set_links(record, self.last, NONE);
        match at(self.last) {
            Some(last) => set_links(last, links(last).0, index),
            None => self.first = index,
        }
        self.last = index;
    }

    /// Removes a watcher that was appended.
    pub fn remove(&mut self, record: &Record) {
        let (before, after) = links(record);
        match at(before) {
            Some(before) => set_links(before, links(before).0, after),
            None => self.first = after,
        }
        match at(after) {
            Some(after) => set_links(after, before, links(after).1),
            None => self.last = before,
        }
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
    use crate::reactor::record::{records_of, take_block};

    #[test]
    fn watchers_are_removed_in_any_order_and_the_others_keep_theirs() {
        let block = take_block().unwrap();
        let first = block * record::PER_BLOCK + 1;
        let all: Vec<_> = (first..).zip(records_of(block)).take(5).collect();
        for order in [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0], [2, 0, 4, 1, 3]] {
            let mut list = List::default();
            all.iter().for_each(|(index, record)| list.push(*index, record));
            let mut left: Vec<_> = all.iter().map(|(index, _)| *index).collect();
            for place in order {
                assert!(list.iter().map(|(index, _)| index).eq(left.iter().copied()));
                let (index, record) = all[place];
                list.remove(record);
                left.retain(|other| *other != index);
            }
            assert!(list.is_empty() && list.last == NONE);
        }
        record::give_back_block(block);
    }
}
