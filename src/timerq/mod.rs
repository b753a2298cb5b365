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
//! never later than its deadline, and arming again costs two stores. Those
//! that nobody has a use for are swept out when they are the larger half.

mod chunks;
mod node;

pub(crate) use node::Node;

use chunks::{Chunks, List};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const LEVELS: usize = 8;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// A tick is 2^16 ns.
const TICK_BITS: u32 = 16;
const ID_BITS: u32 = 24;
/// How many timers before one comes up its node is brought nearer.
const AHEAD: usize = 12;

/// Where the timers are.
pub(crate) trait Timers {
    /// What the queue keeps with a timer; `None` for ids that are none.
    fn node(&self, id: u32) -> Option<&Node>;
    /// The node will be asked for soon.
    fn prefetch(&self, id: u32);
}

/// There is no memory for another timer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// What came up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Popped {
    /// A timer, which is not armed any more.
    Due { id: u32, deadline: i64 },
    /// Something may be due, but the corrections are used up, or the memory.
    Later,
    /// Nothing is due.
    None,
}

/// A timer's place in the order: its deadline when it was put there, and
/// below it when it was armed (40 bits) and which it is (24 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
struct Entry {
    key: i64,
    tag: u64,
}

impl Entry {
    fn new(key: i64, seq: u64, id: u32) -> Self {
        Self { key, tag: seq << ID_BITS | u64::from(id) }
    }

    fn id(self) -> u32 {
        (self.tag & ((1 << ID_BITS) - 1)) as u32
    }

    fn is_exact(self, deadline: i64, seq: u64) -> bool {
        self == Self::new(deadline, seq, self.id())
    }

    /// The tick it belongs to; the order of times is that of ticks.
    fn tick(self) -> u64 {
        tick_of(self.key)
    }
}

fn tick_of(time: i64) -> u64 {
    (time.cast_unsigned() ^ 1 << 63) >> TICK_BITS
}

/// The first time of a tick.
fn time_of(tick: u64) -> i64 {
    (tick << TICK_BITS ^ 1 << 63).cast_signed()
}

#[derive(Clone, Copy)]
struct Slot {
    list: List,
    /// No entry has an earlier key, or is to be woken for earlier, or has a
    /// smaller tolerance, or a larger one.
    min: i64,
    urgent: i64,
    slack: i64,
    slack_most: i64,
}

const EMPTY: Slot =
    Slot { list: List::new(), min: i64::MAX, urgent: i64::MAX, slack: i64::MAX, slack_most: 0 };

/// A level; its slots are made when they are first needed.
struct Level {
    occupied: u64,
    slots: Vec<Slot>,
}

pub(crate) struct TimerQueue {
    levels: [Level; LEVELS],
    chunks: Chunks,
    /// The tick of the current run.
    tick: u64,
    /// The current run, the next one last.
    run: Vec<Entry>,
    /// Used in sorting.
    sorted: Vec<Entry>,
    near: BinaryHeap<Reverse<Entry>>,
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
            armed: 0,
            entries: 0,
            slack: i64::MAX,
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Arms a timer, or arms it anew. `seq`: those with the same deadline
    /// come up in the order of these numbers. On failure it is as before.
    #[inline]
    pub fn arm<T: Timers>(
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

    /// The same, for who has looked its node up.
    #[inline]
    pub fn arm_node<T: Timers>(
        &mut self,
        timers: &T,
        (id, node): (u32, &Node),
        deadline: i64,
        seq: u64,
    ) -> Result<(), NoMemory> {
        let deadline = deadline.max(i64::MIN + 1);
        if !node.has_entry_until(deadline) {
            self.insert_new(timers, Entry::new(deadline, seq, id), node.tolerance())?;
            node.set_entry(deadline);
        }
        self.armed += usize::from(node.deadline().is_none());
        node.set(deadline, seq);
        Ok(())
    }

    /// Disarms a timer.
    #[inline]
    pub fn disarm<T: Timers>(&mut self, timers: &T, id: u32) {
        if let Some(node) = timers.node(id)
            && node.deadline().is_some()
        {
            node.clear();
            self.armed -= 1;
        }
    }

    /// Takes the next timer that is due. `corrections`: how many outdated
    /// entries may be dealt with on the way.
    pub fn pop<T: Timers>(&mut self, timers: &T, now: i64, corrections: &mut u32) -> Popped {
        loop {
            let Some(front) = self.front() else {
                match self.advance(timers, now) {
                    Ok(true) => continue,
                    Ok(false) => return Popped::None,
                    Err(NoMemory) => return Popped::Later,
                }
            };
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
            if self.correct_front(timers, front).is_err() {
                return Popped::Later;
            }
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
        for (level, place) in self.occupied() {
            let Some(slot) = self.slot(level, place) else { continue };
            if slot.min >= best {
                break;
            }
            best = best.min(slot.urgent);
        }
        Some(best)
    }

    /// The earliest deadline, exactly.
    pub fn next_deadline<T: Timers>(&mut self, timers: &T) -> Option<i64> {
        if self.armed == 0 {
            return None;
        }
        while let Some(front) = self.front() {
            let Some(node) = timers.node(front.id()) else {
                self.drop_front();
                continue;
            };
            let deadline = node.deadline().filter(|_| node.has_entry(front.key));
            if deadline == Some(front.key) || self.correct_front(timers, front).is_err() {
                return Some(front.key);
            }
        }
        let mut best = i64::MAX;
        for (level, place) in self.occupied() {
            let Some(slot) = self.slot(level, place) else { continue };
            if slot.min >= best {
                break;
            }
            for entry in self.chunks.iter(&slot.list) {
                let node = timers.node(entry.id()).filter(|node| node.has_entry(entry.key));
                if let Some(deadline) = node.and_then(Node::deadline) {
                    best = best.min(deadline);
                }
            }
        }
        Some(best)
    }

    /// What comes up next.
    #[inline]
    fn front(&self) -> Option<Entry> {
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
        self.entries -= 1;
        if self.entries == 0 {
            self.give_back_memory();
        }
    }

    /// Deals with an outdated entry in front: it is dropped, or put where it
    /// belongs now. On failure it is where it was.
    fn correct_front<T: Timers>(&mut self, timers: &T, front: Entry) -> Result<(), NoMemory> {
        if let Some(node) = timers.node(front.id())
            && node.has_entry(front.key)
        {
            if let Some(deadline) = node.deadline() {
                self.insert(Entry::new(deadline, node.seq(), front.id()), node.tolerance())?;
                node.set_entry(deadline);
                self.entries += 1;
            } else {
                node.forget_entry();
            }
        }
        self.drop_front();
        Ok(())
    }

    fn insert_new<T: Timers>(
        &mut self,
        timers: &T,
        entry: Entry,
        tolerance: i64,
    ) -> Result<(), NoMemory> {
        if self.entries > 2 * self.armed + 64 {
            self.sweep(timers);
        }
        self.insert(entry, tolerance)?;
        self.entries += 1;
        Ok(())
    }

    /// Puts an entry where it belongs.
    #[inline]
    fn insert(&mut self, entry: Entry, tolerance: i64) -> Result<(), NoMemory> {
        let tick = entry.tick();
        if tick <= self.tick {
            self.near.try_reserve(1).map_err(|_| NoMemory)?;
            self.near.push(Reverse(entry));
            self.slack = self.slack.min(tolerance);
            return Ok(());
        }
        // The highest group of bits in which it differs says how far away it
        // is.
        let highest = (tick ^ self.tick).ilog2();
        let (level, place) = (highest / SLOT_BITS, tick >> (highest / SLOT_BITS * SLOT_BITS));
        let place = place as usize % SLOTS;
        let Self { levels, chunks, .. } = self;
        let level = levels.get_mut(level as usize).ok_or(NoMemory)?;
        if level.slots.is_empty() {
            level.slots.try_reserve_exact(SLOTS).map_err(|_| NoMemory)?;
            level.slots.resize(SLOTS, EMPTY);
        }
        let slot = level.slots.get_mut(place).ok_or(NoMemory)?;
        chunks.push(&mut slot.list, entry)?;
        slot.min = slot.min.min(entry.key);
        slot.urgent = slot.urgent.min(entry.key.saturating_add(tolerance));
        slot.slack = slot.slack.min(tolerance);
        slot.slack_most = slot.slack_most.max(tolerance);
        level.occupied |= 1 << place;
        Ok(())
    }

    fn slot(&self, level: usize, place: usize) -> Option<&Slot> {
        self.levels.get(level)?.slots.get(place)
    }

    /// The slots with entries, the earliest first.
    fn occupied(&self) -> impl Iterator<Item = (usize, usize)> {
        let levels: [u64; LEVELS] =
            std::array::from_fn(|level| self.levels.get(level).map_or(0, |level| level.occupied));
        levels.into_iter().enumerate().flat_map(|(level, mut bits)| {
            std::iter::from_fn(move || {
                let place = bits.trailing_zeros() as usize;
                bits &= bits.wrapping_sub(1);
                (place < SLOTS).then_some((level, place))
            })
        })
    }

    /// The first tick of a slot.
    fn start(&self, level: usize, place: usize) -> u64 {
        let low = level as u32 * SLOT_BITS;
        let above = self.tick >> low >> SLOT_BITS << SLOT_BITS;
        (above | place as u64) << low
    }

    /// Goes on to the next slot with entries, if its time has come.
    fn advance<T: Timers>(&mut self, timers: &T, now: i64) -> Result<bool, NoMemory> {
        let Some((level, place)) = self.occupied().next() else {
            return Ok(false);
        };
        let start = self.start(level, place);
        let Some(slot) = self.slot(level, place).copied() else { return Ok(false) };
        if time_of(start) > now || slot.min > now {
            return Ok(false);
        }
        if level == 0 {
            self.run.try_reserve(slot.list.len()).map_err(|_| NoMemory)?;
        }
        self.tick = start;
        let list = self.take(level, place);
        if level == 0 {
            // The run and the heap are empty.
            self.slack = slot.slack;
        }
        if level == 0 {
            self.begin_run(list);
            for entry in self.run.iter().rev().take(AHEAD) {
                timers.prefetch(entry.id());
            }
        } else {
            self.spread(timers, level, place, slot, list)?
        }
        Ok(true)
    }

    /// Has the node brought nearer of one that comes up soon.
    #[inline(always)]
    fn prefetch<T: Timers>(&self, timers: &T) {
        let place = self.run.len().wrapping_sub(AHEAD);
        if let Some(entry) = self.run.get(place) {
            timers.prefetch(entry.id());
        }
    }

    fn take(&mut self, level: usize, place: usize) -> List {
        let Some(level) = self.levels.get_mut(level) else { return List::new() };
        level.occupied &= !(1 << place);
        let slot = level.slots.get_mut(place).map(|slot| std::mem::replace(slot, EMPTY));
        slot.map_or(List::new(), |slot| slot.list)
    }

    /// Makes the entries of a tick the current run; there is room for them.
    fn begin_run(&mut self, mut list: List) {
        const MANY: usize = 96;
        if list.len() >= MANY && self.sorted.try_reserve(list.len()).is_ok() {
            return self.begin_long_run(list);
        }
        while let Some(entry) = self.chunks.pop(&mut list) {
            self.run.push(entry);
        }
        self.run.sort_unstable_by_key(|entry| Reverse(*entry));
    }

    /// The same: first by the eight highest bits that differ, then each of
    /// those parts, which are short.
    fn begin_long_run(&mut self, mut list: List) {
        const PARTS: usize = 256;
        // The next one last: so the latest first.
        let part = |entry: &Entry| PARTS - 1 - (entry.key >> (TICK_BITS - 8)) as usize % PARTS;
        let mut ends = [0u32; PARTS];
        self.sorted.clear();
        while let Some(entry) = self.chunks.pop(&mut list) {
            if let Some(count) = ends.get_mut(part(&entry)) {
                *count += 1;
            }
            self.sorted.push(entry);
        }
        let mut begin = 0;
        for end in &mut ends {
            let count = std::mem::replace(end, begin);
            begin += count;
        }
        self.run.resize(self.sorted.len(), Entry::default());
        for entry in &self.sorted {
            if let Some(place) = ends.get_mut(part(entry)) {
                if let Some(to) = self.run.get_mut(*place as usize) {
                    *to = *entry;
                }
                *place += 1;
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
    fn spread<T: Timers>(
        &mut self,
        timers: &T,
        level: usize,
        place: usize,
        slot: Slot,
        mut list: List,
    ) -> Result<(), NoMemory> {
        // The nodes are far apart in memory: not looked at without need.
        let all = (slot.slack == slot.slack_most).then_some(slot.slack);
        let of_one = |entry: Entry| timers.node(entry.id()).map_or(0, Node::tolerance);
        while let Some(entry) = self.chunks.pop(&mut list) {
            let tolerance = all.unwrap_or_else(|| of_one(entry));
            if self.insert(entry, tolerance).is_ok() {
                continue;
            }
            // They stay, until there is memory; what was taken last fits.
            let kept = self.chunks.push(&mut list, entry);
            if let Some(level) = self.levels.get_mut(level)
                && let Some(again) = level.slots.get_mut(place)
            {
                *again = Slot { list, ..slot };
                level.occupied |= 1 << place;
            }
            return kept.and(Err(NoMemory));
        }
        Ok(())
    }

    /// Drops the entries that no timer has a use for, and puts the others
    /// where they belong. Not done where there is no memory for it.
    fn sweep<T: Timers>(&mut self, timers: &T) {
        let mut kept = Vec::new();
        if kept.try_reserve_exact(self.armed).is_err() || self.near.try_reserve(self.armed).is_err()
        {
            return;
        }
        let mut keep = |entry: Entry| {
            let Some(node) = timers.node(entry.id()).filter(|node| node.has_entry(entry.key))
            else {
                return;
            };
            node.forget_entry();
            if let Some(deadline) = node.deadline() {
                kept.push(Entry::new(deadline, node.seq(), entry.id()));
            }
        };
        self.run.drain(..).for_each(&mut keep);
        self.near.drain().for_each(|Reverse(entry)| keep(entry));
        let slots: Vec<_> = self.occupied().collect();
        for (level, place) in slots {
            let mut list = self.take(level, place);
            while let Some(entry) = self.chunks.pop(&mut list) {
                keep(entry);
            }
        }
        self.give_back_memory();
        self.entries = kept.len();
        for entry in kept {
            let Some(node) = timers.node(entry.id()) else { continue };
            if self.insert(entry, node.tolerance()).is_err() {
                // There is room in the heap, which takes all times.
                self.near.push(Reverse(entry));
                self.slack = 0;
            }
            node.set_entry(entry.key);
        }
    }

    /// There are no entries in the wheel.
    fn give_back_memory(&mut self) {
        self.chunks.clear();
        if self.run.capacity() > 1024 {
            self.run = Vec::new();
            self.sorted = Vec::new();
        }
        if self.near.capacity() > 1024 && self.near.is_empty() {
            self.near = BinaryHeap::new();
        }
    }
}

#[cfg(test)]
mod tests;
