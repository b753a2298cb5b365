//! The timer queue: deadlines in exact order.
//!
//! A wheel of eight levels of 64 slots. A slot of level 0 is a tick of 2^16
//! ns, one of level n a 64th of one of level n + 1. When the time comes to a
//! slot its entries go down a level; those of a tick are sorted and become
//! the current run. What is armed for the current tick, or before it, goes to
//! a heap beside it.
//!
//! An entry is not looked for when its timer is armed for later, or disarmed:
//! it stays, and is corrected when it comes up. So the entry of a timer is
//! never later than its deadline, and arming again costs two stores. Entries
//! that no timer uses are swept out when they are the larger half.

mod chunks;
mod entry;
mod node;
mod renumber;
mod share;

pub(crate) use crate::util::alloc::NoMemory;
pub(crate) use node::Node;
pub(crate) use renumber::{Armed, MANY};
pub(crate) use share::Shared;

use crate::util::alloc::{TryHeap, TryVec, TryVecCopy};
use chunks::{ChunkList, Chunks};
use entry::{TICK_BITS, TimerEntry, time_of};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const LEVELS: usize = 8;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Room for more entries than this is given back when they are gone, and for
/// so many is kept.
const MOST_KEPT: usize = 1024;
const KEPT: usize = 16;
/// How many timers before one comes up its node is brought nearer.
const AHEAD: usize = 12;

/// Where the timers are.
pub(crate) trait NodeLookup {
    /// What the queue keeps with a timer; `None` for ids that are none.
    fn node(&self, id: u32) -> Option<&Node>;
    /// The node will be asked for soon.
    fn prefetch(&self, id: u32);
}

/// What came up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Popped {
    /// A timer, which is not armed any more.
    Due { id: u32, deadline: i64 },
    /// Something may be due, but the corrections are used up.
    Later,
    /// Nothing is due.
    None,
}

#[derive(Clone, Copy)]
struct WheelSlot {
    list: ChunkList,
    /// No entry has an earlier key, or is to be woken for earlier, or has a
    /// smaller tolerance, or a larger one.
    min: i64,
    urgent: i64,
    slack: i64,
    slack_most: i64,
}

const EMPTY: WheelSlot = WheelSlot {
    list: ChunkList::new(),
    min: i64::MAX,
    urgent: i64::MAX,
    slack: i64::MAX,
    slack_most: 0,
};

/// A level; its slots are made when they are first needed.
struct Level {
    occupied: u64,
    slots: Vec<WheelSlot>,
}

pub(crate) struct TimerQueue {
    levels: [Level; LEVELS],
    chunks: Chunks,
    /// The tick of the current run.
    tick: u64,
    /// The current run, the next one last.
    run: Vec<TimerEntry>,
    /// Used in sorting.
    sorted: Vec<TimerEntry>,
    /// Entries of the current tick, or before. There is room for all others,
    /// too, so that none is lost for want of memory.
    near: BinaryHeap<Reverse<TimerEntry>>,
    /// Some are in there that are later.
    far: bool,
    armed: usize,
    entries: usize,
    /// No entry of the run or the heap has a smaller tolerance.
    slack: i64,
}

impl TimerQueue {
    pub const fn new() -> Self {
        Self {
            levels: [const { Level { occupied: 0, slots: Vec::new() } }; LEVELS],
            chunks: Chunks::new(),
            tick: 0,
            run: Vec::new(),
            sorted: Vec::new(),
            near: BinaryHeap::new(),
            far: false,
            armed: 0,
            entries: 0,
            slack: i64::MAX,
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Arms a timer, or arms it again. `seq`: those with the same deadline
    /// come up in the order of these numbers, of which 40 bits are kept: see
    /// [`Armed`]. On failure it is as before.
    #[inline]
    pub fn arm<T: NodeLookup>(
        &mut self,
        timers: &T,
        id: u32,
        deadline: i64,
        seq: u64,
    ) -> Result<(), NoMemory> {
        match timers.node(id) {
            Some(node) => self.arm_node(timers, (id, node), deadline, seq),
            None => Ok(()),
        }
    }

    /// The same, for a caller that has looked its node up.
    #[inline]
    pub fn arm_node<T: NodeLookup>(
        &mut self,
        timers: &T,
        (id, node): (u32, &Node),
        deadline: i64,
        seq: u64,
    ) -> Result<(), NoMemory> {
        let deadline = deadline.max(i64::MIN + 1);
        if !node.has_entry_until(deadline) {
            self.insert_new(timers, TimerEntry::new(deadline, seq, id), node.tolerance())?;
            node.set_entry(deadline);
        }
        self.armed += usize::from(node.deadline().is_none());
        node.set(deadline, seq);
        Ok(())
    }

    /// Changes the tolerance of an armed timer; on failure it is as before.
    pub fn set_tolerance<T: NodeLookup>(
        &mut self,
        timers: &T,
        id: u32,
        tolerance: i64,
    ) -> Result<(), NoMemory> {
        let Some(node) = timers.node(id) else { return Ok(()) };
        let Some(deadline) = node.deadline() else { return Ok(()) };
        // Another entry, that is woken for by then; the one before is of no
        // use any more, whichever comes up first.
        self.insert_new(timers, TimerEntry::new(deadline, node.seq(), id), tolerance)?;
        node.set_tolerance(tolerance);
        node.set_entry(deadline);
        Ok(())
    }

    /// Disarms a timer.
    #[inline]
    pub fn disarm<T: NodeLookup>(&mut self, timers: &T, id: u32) {
        if let Some(node) = timers.node(id)
            && node.deadline().is_some()
        {
            node.clear();
            self.armed -= 1;
        }
    }

    /// Takes the next timer that is due. `corrections`: how many outdated
    /// entries may be dealt with on the way.
    pub fn pop<T: NodeLookup>(&mut self, timers: &T, now: i64, corrections: &mut u32) -> Popped {
        loop {
            let mut front = self.front();
            if front.is_none() || self.far {
                if self.advance(timers, now) {
                    continue;
                }
                front = self.front();
            }
            let Some(front) = front else { return Popped::None };
            if front.key > now {
                return Popped::None;
            }
            let Some(node) = timers.node(front.id()) else {
                self.drop_front();
                continue;
            };
            let (deadline, seq) = (node.deadline(), node.seq());
            if node.has_entry(front.key)
                && let Some(deadline) = deadline
                && front.is_exact(deadline, seq)
            {
                self.drop_front();
                self.prefetch(timers);
                node.clear();
                node.forget_entry();
                self.armed -= 1;
                return Popped::Due { id: front.id(), deadline };
            }
            if *corrections == 0 {
                return Popped::Later;
            }
            *corrections -= 1;
            self.correct_front(timers, front);
        }
    }

    /// When to wake up: no timer is later than its tolerance then. It may be
    /// too early, where entries are outdated.
    pub fn next_wake(&self) -> Option<i64> {
        if self.armed == 0 {
            return None;
        }
        let mut best = match self.front() {
            Some(front) => front.key.saturating_add(self.slack),
            None => i64::MAX,
        };
        for (level, index) in self.occupied() {
            let Some(slot) = self.slot(level, index) else { continue };
            if slot.min >= best {
                break;
            }
            best = best.min(slot.urgent);
        }
        Some(best)
    }

    /// The earliest deadline, exactly.
    pub fn next_deadline<T: NodeLookup>(&mut self, timers: &T) -> Option<i64> {
        if self.armed == 0 {
            return None;
        }
        let mut best = i64::MAX;
        while let Some(front) = self.front() {
            let Some(node) = timers.node(front.id()) else {
                self.drop_front();
                continue;
            };
            let deadline = node.deadline().filter(|_| node.has_entry(front.key));
            if deadline != Some(front.key) {
                self.correct_front(timers, front);
                continue;
            }
            if !self.far {
                return deadline;
            }
            best = front.key;
            break;
        }
        for (level, index) in self.occupied() {
            if self.slot(level, index).is_some_and(|slot| slot.min >= best) {
                break;
            }
            best = best.min(self.earliest_of(timers, level, index));
        }
        Some(best)
    }

    /// The earliest deadline in a slot.
    fn earliest_of<T: NodeLookup>(&self, timers: &T, level: usize, index: usize) -> i64 {
        let Some(slot) = self.slot(level, index) else { return i64::MAX };
        let deadline = |entry: TimerEntry| {
            timers.node(entry.id()).filter(|node| node.has_entry(entry.key))?.deadline()
        };
        self.chunks.iter(&slot.list).filter_map(deadline).min().unwrap_or(i64::MAX)
    }

    /// What comes up next.
    #[inline]
    fn front(&self) -> Option<TimerEntry> {
        match (self.run.last(), self.near.peek()) {
            (Some(run), Some(Reverse(near))) => Some(*run.min(near)),
            (Some(run), None) => Some(*run),
            (None, Some(Reverse(near))) => Some(*near),
            (None, None) => None,
        }
    }

    fn drop_front(&mut self) {
        match (self.run.last(), self.near.peek()) {
            (Some(run), Some(Reverse(near))) if near < run => drop(self.near.pop()),
            (Some(_), _) => drop(self.run.pop()),
            (None, _) => drop(self.near.pop()),
        }
        self.far = self.far && !(self.near.is_empty() && self.run.is_empty());
        self.entries -= 1;
        if self.entries == 0 {
            self.give_back_memory();
        }
    }

    /// Deals with an outdated entry in front: it is dropped, or put where it
    /// belongs now. On failure it is where it was.
    fn correct_front<T: NodeLookup>(&mut self, timers: &T, front: TimerEntry) {
        if let Some(node) = timers.node(front.id())
            && node.has_entry(front.key)
        {
            if let Some(deadline) = node.deadline() {
                self.insert(TimerEntry::new(deadline, node.seq(), front.id()), node.tolerance());
                node.set_entry(deadline);
                self.entries += 1;
            } else {
                node.forget_entry();
            }
        }
        self.drop_front();
    }

    /// Reserves memory for one more entry: the next `arm` does not fail.
    #[inline]
    pub fn reserve(&mut self) -> Result<(), NoMemory> {
        // For that one, and one that is moved.
        let capacity = self.entries + 2 - self.near.len();
        self.near.try_reserve(capacity).map_err(|_| NoMemory)
    }

    fn insert_new<T: NodeLookup>(
        &mut self,
        timers: &T,
        entry: TimerEntry,
        tolerance: i64,
    ) -> Result<(), NoMemory> {
        if self.entries > 2 * self.armed + 64 {
            self.sweep(timers);
        }
        self.reserve()?;
        self.insert(entry, tolerance);
        self.entries += 1;
        Ok(())
    }

    /// Puts an entry where it belongs; or, if there is no memory for that,
    /// into the heap.
    #[inline]
    fn insert(&mut self, entry: TimerEntry, tolerance: i64) {
        let is_later = entry.tick() > self.tick;
        if is_later && self.insert_later(entry, tolerance).is_ok() {
            return;
        }
        self.near.push_reserved(Reverse(entry));
        self.far |= is_later;
        self.slack = self.slack.min(tolerance);
    }

    /// Puts an entry into the wheel.
    #[inline]
    fn insert_later(&mut self, entry: TimerEntry, tolerance: i64) -> Result<(), NoMemory> {
        let tick = entry.tick();
        // The highest group of bits in which it differs says how far away it
        // is.
        let highest = (tick ^ self.tick).ilog2();
        let (level, index) = (highest / SLOT_BITS, tick >> (highest / SLOT_BITS * SLOT_BITS));
        let index = index as usize % SLOTS;
        let Self { levels, chunks, .. } = self;
        let level = levels.get_mut(level as usize).ok_or(NoMemory)?;
        if level.slots.is_empty() {
            level.slots.try_lengthen(SLOTS, EMPTY)?;
        }
        let slot = level.slots.get_mut(index).ok_or(NoMemory)?;
        chunks.push(&mut slot.list, entry)?;
        slot.min = slot.min.min(entry.key);
        slot.urgent = slot.urgent.min(entry.key.saturating_add(tolerance));
        slot.slack = slot.slack.min(tolerance);
        slot.slack_most = slot.slack_most.max(tolerance);
        level.occupied |= 1 << index;
        Ok(())
    }

    fn slot(&self, level: usize, index: usize) -> Option<&WheelSlot> {
        self.levels.get(level)?.slots.get(index)
    }

    /// The slots with entries, the earliest first.
    fn occupied(&self) -> impl Iterator<Item = (usize, usize)> {
        let levels: [u64; LEVELS] =
            std::array::from_fn(|level| self.levels.get(level).map_or(0, |level| level.occupied));
        levels.into_iter().enumerate().flat_map(|(level, mut bits)| {
            std::iter::from_fn(move || {
                let index = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (index < SLOTS).then_some((level, index))
            })
        })
    }

    fn next_occupied(&self) -> Option<(usize, usize)> {
        self.occupied().next()
    }

    /// The first tick of a slot.
    fn start(&self, level: usize, index: usize) -> u64 {
        let low = level as u32 * SLOT_BITS;
        let above = self.tick >> low >> SLOT_BITS << SLOT_BITS;
        (above | index as u64) << low
    }

    /// Goes on to the next slot with entries, if its time has come.
    fn advance<T: NodeLookup>(&mut self, timers: &T, now: i64) -> bool {
        let Some((level, index)) = self.next_occupied() else { return false };
        let start = self.start(level, index);
        let Some(slot) = self.slot(level, index).copied() else { return false };
        if time_of(start) > now || slot.min > now {
            return false;
        }
        self.tick = start;
        let list = self.take(level, index);
        if level > 0 {
            self.spread(timers, slot, list);
            return true;
        }
        // The run and the heap are empty, unless there was no memory.
        let slack = if self.far { self.slack } else { i64::MAX };
        self.slack = slot.slack.min(slack);
        self.begin_run(list);
        for entry in self.run.iter().rev().take(AHEAD) {
            timers.prefetch(entry.id());
        }
        true
    }

    /// Has the node brought nearer of one that comes up soon.
    #[inline(always)]
    fn prefetch<T: NodeLookup>(&self, timers: &T) {
        let index = self.run.len().wrapping_sub(AHEAD);
        if let Some(entry) = self.run.get(index) {
            timers.prefetch(entry.id());
        }
    }

    fn take(&mut self, level: usize, index: usize) -> ChunkList {
        let Some(level) = self.levels.get_mut(level) else { return ChunkList::new() };
        level.occupied &= !(1 << index);
        let slot = level.slots.get_mut(index).map(|slot| std::mem::replace(slot, EMPTY));
        slot.map_or(ChunkList::new(), |slot| slot.list)
    }

    /// Makes the entries of a tick the current run.
    fn begin_run(&mut self, mut list: ChunkList) {
        const MANY: usize = 96;
        if self.run.try_reserve(list.len()).is_err() {
            while let Some(entry) = self.chunks.pop(&mut list) {
                self.near.push_reserved(Reverse(entry));
            }
            return;
        }
        if list.len() >= MANY && self.run.is_empty() && self.sorted.try_reserve(list.len()).is_ok()
        {
            return self.begin_long_run(list);
        }
        while let Some(entry) = self.chunks.pop(&mut list) {
            self.run.push_reserved(entry);
        }
        self.run.sort_unstable_by_key(|entry| Reverse(*entry));
    }

    /// The same: first by the eight highest bits that differ, then each of
    /// those parts, which are short.
    fn begin_long_run(&mut self, mut list: ChunkList) {
        const PARTS: usize = 256;
        // The next one last: so the latest first.
        let part = |entry: &TimerEntry| PARTS - 1 - (entry.key >> (TICK_BITS - 8)) as usize % PARTS;
        let mut ends = [0u32; PARTS];
        self.sorted.clear();
        while let Some(entry) = self.chunks.pop(&mut list) {
            if let Some(count) = ends.get_mut(part(&entry)) {
                *count += 1;
            }
            self.sorted.push_reserved(entry);
        }
        let mut begin = 0;
        for end in &mut ends {
            let count = std::mem::replace(end, begin);
            begin += count;
        }
        // There is room for them.
        let _ = self.run.try_lengthen(self.sorted.len(), TimerEntry::default());
        for entry in &self.sorted {
            if let Some(next) = ends.get_mut(part(entry)) {
                if let Some(to) = self.run.get_mut(*next as usize) {
                    *to = *entry;
                }
                *next += 1;
            }
        }
        let mut begin = 0;
        for end in ends {
            if let Some(part) = self.run.get_mut(begin..end as usize) {
                part.sort_unstable_by_key(|entry| Reverse(*entry));
            }
            begin = end as usize;
        }
    }

    /// Puts the entries of a slot where they belong now: lower.
    fn spread<T: NodeLookup>(&mut self, timers: &T, slot: WheelSlot, mut list: ChunkList) {
        // The nodes are far apart in memory: not looked at without need.
        let all = (slot.slack == slot.slack_most).then_some(slot.slack);
        let of_one = |entry: TimerEntry| timers.node(entry.id()).map_or(0, Node::tolerance);
        while let Some(entry) = self.chunks.pop(&mut list) {
            let tolerance = all.unwrap_or_else(|| of_one(entry));
            self.insert(entry, tolerance);
        }
    }

    /// Drops the entries that no timer has a use for, and puts the others
    /// where they belong. Not done where there is no memory for it.
    fn sweep<T: NodeLookup>(&mut self, timers: &T) {
        let mut kept = Vec::new();
        if kept.try_reserve_exact(self.armed).is_err() {
            return;
        }
        let mut keep = |entry: TimerEntry| {
            let Some(node) = timers.node(entry.id()).filter(|node| node.has_entry(entry.key))
            else {
                return;
            };
            node.forget_entry();
            if let Some(deadline) = node.deadline() {
                kept.push_reserved(TimerEntry::new(deadline, node.seq(), entry.id()));
            }
        };
        self.run.drain(..).for_each(&mut keep);
        self.near.drain().for_each(|Reverse(entry)| keep(entry));
        while let Some((level, index)) = self.next_occupied() {
            let mut list = self.take(level, index);
            while let Some(entry) = self.chunks.pop(&mut list) {
                keep(entry);
            }
        }
        self.far = false;
        self.chunks.clear();
        self.entries = kept.len();
        for entry in kept {
            let Some(node) = timers.node(entry.id()) else { continue };
            self.insert(entry, node.tolerance());
            node.set_entry(entry.key);
        }
        self.shrink();
    }

    /// There are no entries.
    fn give_back_memory(&mut self) {
        self.chunks.clear();
        self.shrink();
    }

    /// Gives back what was for many timers, and is for few now. Some room
    /// stays: to arm one should not fail because it was the only one.
    fn shrink(&mut self) {
        if self.run.capacity() > MOST_KEPT {
            self.run.try_shrink(KEPT);
            self.sorted = Vec::new();
        }
        let mut smaller = BinaryHeap::new();
        let capacity = KEPT.max(self.entries + 1);
        if self.near.capacity() > MOST_KEPT.max(4 * capacity)
            && self.near.is_empty()
            && smaller.try_reserve(capacity).is_ok()
        {
            self.near = smaller;
        }
    }
}

#[cfg(test)]
mod tests;
