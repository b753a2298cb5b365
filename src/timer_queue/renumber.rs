//! Other numbers for the timers of queues, before the numbers come to their
//! end.
//!
//! An entry has room for 40 bits of the number that says when its timer was
//! armed: at ten million a second these are used up in thirty hours, and a
//! timer that was armed after that would come up before one with the same
//! deadline that was armed earlier. So the owner of queues that share a
//! counter gives their armed timers the lowest numbers, in the same order,
//! when half of all are used. It needs memory to sort them; without it tries
//! again, and the other half of the numbers is left for that.

use super::entry::TimerEntry;
use super::{NoMemory, Node, NodeLookup, TimerQueue};
use crate::util::alloc::TryVec;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// From this number on timers are to be given other ones.
pub(crate) const MANY: u64 = 1 << 39;

/// Armed timers: their numbers, and which they are.
pub(crate) struct Armed(Vec<(u64, u32)>);

impl Armed {
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    pub fn push(&mut self, seq: u64, id: u32) -> Result<(), NoMemory> {
        self.0.try_push((seq, id)).map_err(|_| NoMemory)
    }

    /// Gives them the numbers from 1 on, in the order of those they had; the
    /// last one. The queues do not know of it until [`TimerQueue::renumber`].
    pub fn number<'n>(mut self, node: impl Fn(u32) -> Option<&'n Node>) -> u64 {
        self.0.sort_unstable();
        let mut last = 0;
        for (_, id) in &self.0 {
            if let Some(node) = node(*id) {
                last += 1;
                node.set_seq(last);
            }
        }
        last
    }
}

impl TimerQueue {
    /// Adds its armed timers. One may be there twice, with one number.
    pub fn list_armed<T: NodeLookup>(&self, timers: &T, armed: &mut Armed) -> Result<(), NoMemory> {
        armed.0.try_reserve(self.entries).map_err(|_| NoMemory)?;
        let mut add = |entry: TimerEntry| {
            let node = timers.node(entry.id()).filter(|node| node.has_entry(entry.key));
            if let Some(node) = node.filter(|node| node.deadline().is_some()) {
                armed.0.push_reserved((node.seq(), entry.id()));
            }
        };
        self.run.iter().for_each(|entry| add(*entry));
        self.near.iter().for_each(|Reverse(entry)| add(*entry));
        for (level, index) in self.occupied() {
            let list = self.slot(level, index).map(|slot| slot.list);
            list.iter().flat_map(|list| self.chunks.iter(list)).for_each(&mut add);
        }
        Ok(())
    }

    /// The nodes of its armed timers have other numbers, in the same order:
    /// the entries get them, too.
    pub fn renumber<T: NodeLookup>(&mut self, timers: &T) {
        let renumber = |entry: &mut TimerEntry| {
            let node = timers.node(entry.id()).filter(|node| node.has_entry(entry.key));
            // One that is outdated comes up before its timer does: it has the
            // lowest number.
            let seq = node.filter(|node| node.deadline() == Some(entry.key)).map_or(0, Node::seq);
            *entry = TimerEntry::new(entry.key, seq, entry.id());
        };
        self.run.iter_mut().for_each(renumber);
        self.run.sort_unstable_by_key(|entry| Reverse(*entry));
        let mut near = std::mem::take(&mut self.near).into_vec();
        near.iter_mut().for_each(|Reverse(entry)| renumber(entry));
        self.near = BinaryHeap::from(near);
        let slots = self.levels.iter().flat_map(|level| &level.slots);
        slots.for_each(|slot| self.chunks.each_mut(&slot.list, renumber));
    }
}
