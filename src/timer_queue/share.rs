//! Wake-ups that several timers share.
//!
//! Asked only before a sleep, by an owner whose wake-ups for timers have become
//! too many: arming and expiring do nothing for it.

use super::entry::TimerEntry;
use super::{Node, NodeLookup, TimerQueue};
use std::cmp::Reverse;

/// So many entries are looked at for one wake-up. Where more come up in that
/// time, a wake-up is cheap beside what it is for.
pub(super) const MOST_VISITED: usize = 1024;

/// A wake-up for several timers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Shared {
    /// The deadline of the last of them.
    pub wake: i64,
    /// How many wake-ups it saves, at least: timers of one slot count as one.
    pub saved: u32,
}

/// Deadlines up to a time.
struct Upto {
    bound: i64,
    last: i64,
    /// How many places had one, and the last of these.
    places: u32,
    place: u32,
}

impl Upto {
    fn new(first: i64, bound: i64) -> Self {
        Self { bound, last: first, places: 0, place: u32::MAX }
    }

    fn take(&mut self, index: u32, deadline: i64) {
        if deadline <= self.bound {
            self.last = self.last.max(deadline);
            self.places += u32::from(index != self.place);
            self.place = index;
        }
    }
}

impl TimerQueue {
    /// One wake-up for the timers from `first` on, which is when the first of
    /// them has to be woken for; not after `until`. `latest`: when a timer with
    /// this deadline has to be woken for if it shares a wake-up.
    pub fn share_wake<T: NodeLookup>(
        &self,
        timers: &T,
        first: i64,
        until: i64,
        latest: impl Fn(u32, &Node, i64) -> i64,
    ) -> Shared {
        let mut upto = Upto::new(first, until);
        let visited = self.visit(timers, until, |index, id, node, deadline| {
            upto.bound = upto.bound.min(latest(id, node, deadline));
            upto.take(index, deadline);
        });
        let bound = upto.bound.min(visited);
        if upto.last > bound {
            // One that was visited later has to be woken for earlier.
            upto = Upto::new(first, bound);
            self.visit(timers, bound, |index, _, _, deadline| upto.take(index, deadline));
        }
        Shared { wake: upto.last, saved: upto.places.saturating_sub(1) }
    }

    /// Visits the armed timers that may come up by this time: a number for
    /// where they are, which they are, and their deadlines. Up to when all of
    /// them were visited.
    fn visit<T: NodeLookup>(
        &self,
        timers: &T,
        until: i64,
        mut take: impl FnMut(u32, u32, &Node, i64),
    ) -> i64 {
        let mut index = 0;
        let mut visit = |index: u32, entry: TimerEntry| {
            if entry.key <= until
                && let Some(node) = timers.node(entry.id())
                && node.has_entry(entry.key)
                && let Some(deadline) = node.deadline()
            {
                take(index, entry.id(), node, deadline);
            }
        };
        let Some(mut buffer) = MOST_VISITED.checked_sub(self.run.len() + self.near.len()) else {
            return i64::MIN;
        };
        self.run.iter().for_each(|entry| visit(index, *entry));
        self.near.iter().for_each(|Reverse(entry)| visit(index, *entry));
        for (level, i) in self.occupied() {
            let Some(slot) = self.slot(level, i) else { continue };
            if slot.min > until {
                break;
            }
            match buffer.checked_sub(slot.list.len()) {
                Some(less) => buffer = less,
                // What comes later is not earlier than this.
                None => return slot.min,
            }
            index += 1;
            self.chunks.iter(&slot.list).for_each(|entry| visit(index, entry));
        }
        until
    }
}
