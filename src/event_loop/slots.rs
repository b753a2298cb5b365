//! The records that a loop has for its watchers.

use super::desk::Desk;
use super::record::{self, PER_BLOCK, Record};
use crate::errno::{Result, fail};
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::{NoMemory, TryVec};

/// Every bit but the header's.
const ALL: u64 = !1;

/// The blocks of a loop. The header of a block says which of its records
/// are free (`data`), which of them was taken last (`flags`), and where the
/// block is in the two lists here (`aux`).
pub(super) struct Slots {
    blocks: Vec<u32>,
    /// Those with free records.
    partial: Vec<u32>,
    /// How many of those have nothing else.
    empty: usize,
    /// The first of the blocks that are the loop's, but for which there was no
    /// memory yet in the lists. Their headers say which is next (`aux`).
    pending: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self { blocks: Vec::new(), partial: Vec::new(), empty: 0, pending: NO_BLOCK }
    }
}

const NO_BLOCK: u32 = u32::MAX;
/// Instead of which record was taken last: the block is in neither list.
const PENDING: u32 = u32::MAX;

/// So many blocks without a watcher in them a loop keeps: what comes and goes
/// again and again should not cost a fault of a page each time.
const SPARE: usize = 16;

fn header(block: u32) -> Option<&'static Record> {
    record::get(block * PER_BLOCK)
}

fn places(header: &Record) -> (usize, usize) {
    let places = header.aux.load(Relaxed);
    ((places >> 32) as usize, (places & 0xffff_ffff) as usize)
}

fn set_places(block: u32, all: usize, partial: usize) {
    if let Some(header) = header(block) {
        header.aux.store((all as u64) << 32 | partial as u64, Relaxed);
    }
}

impl Slots {
    /// A free record.
    #[inline]
    pub fn take(&mut self, desk: &'static Desk) -> Result<u32> {
        if self.partial.is_empty() {
            self.grow(desk)?;
        }
        match self.take_at_hand() {
            Some(index) => Ok(index),
            None => fail!(ENOMEM, "no memory for a watcher"),
        }
    }

    /// The same, if there is one.
    #[inline(always)]
    pub fn take_at_hand(&mut self) -> Option<u32> {
        let block = *self.partial.last()?;
        let header = header(block)?;
        let free = header.data.load(Relaxed);
        // The next one after the last: what was just freed comes last.
        let after = free & (u64::MAX << (header.flags.load(Relaxed) & 63) << 1);
        let place = if after != 0 { after.trailing_zeros() } else { free.trailing_zeros() };
        let left = free & !(1 << place);
        self.empty -= usize::from(free == ALL);
        header.data.store(left, Relaxed);
        header.flags.store(place, Relaxed);
        if left == 0 {
            self.partial.pop();
        }
        record::begin_contents();
        Some(block * PER_BLOCK + place)
    }

    fn grow(&mut self, desk: &'static Desk) -> Result<()> {
        let block = record::take_block(Some(desk))?;
        if let Err(error) = self.list(block, ALL) {
            record::give_back_block(block);
            return Err(error.into());
        }
        Ok(())
    }

    /// Takes over a block none of whose records is free.
    pub fn adopt(&mut self, block: u32) {
        if self.list(block, 0).is_err()
            && let Some(header) = header(block)
        {
            header.data.store(0, Relaxed);
            header.flags.store(PENDING, Relaxed);
            header.aux.store(self.pending.into(), Relaxed);
            self.pending = block;
        }
    }

    /// Tries again what there was no memory for.
    #[inline]
    pub fn settle(&mut self) {
        while self.pending != NO_BLOCK {
            let block = self.pending;
            let Some(header) = header(block) else { return };
            let next = header.aux.load(Relaxed) as u32;
            if self.list(block, header.data.load(Relaxed)).is_err() {
                return;
            }
            self.pending = next;
        }
    }

    /// Lists a block whose records are free that have a bit in `free`.
    fn list(&mut self, block: u32, free: u64) -> std::result::Result<(), NoMemory> {
        let (all, partial) = (self.blocks.len(), self.partial.len());
        // Every block may come to have free records.
        let room = self.blocks.try_reserve(1).is_ok()
            && self.partial.try_reserve(all + 1 - partial).is_ok();
        let header = header(block).filter(|_| room).ok_or(NoMemory)?;
        header.data.store(free, Relaxed);
        header.flags.store(0, Relaxed);
        set_places(block, all, partial);
        self.blocks.push_reserved(block);
        if free != 0 {
            self.partial.push_reserved(block);
        }
        self.empty += usize::from(free == ALL);
        Ok(())
    }

    /// Makes a record free for its next use.
    #[inline]
    pub fn give_back(&mut self, index: u32) {
        let Some(record) = record::get(index) else { return };
        if !record.free() {
            return;
        }
        let block = index / PER_BLOCK;
        let Some(header) = header(block) else { return };
        let before = header.data.load(Relaxed);
        let free = before | 1 << (index % PER_BLOCK);
        header.data.store(free, Relaxed);
        if header.flags.load(Relaxed) == PENDING {
            return;
        }
        if before == 0 {
            let (all, _) = places(header);
            set_places(block, all, self.partial.len());
            self.partial.push_reserved(block);
        }
        if free == ALL {
            self.empty += 1;
            if self.empty > SPARE {
                self.release(block);
            }
        }
    }

    /// Gives back a block all of whose records are free.
    fn release(&mut self, block: u32) {
        let Some((all, partial)) = header(block).map(places) else { return };
        self.empty -= 1;
        self.blocks.swap_remove(all);
        if let Some(moved) = self.blocks.get(all)
            && let Some((_, partial)) = header(*moved).map(places)
        {
            set_places(*moved, all, partial);
        }
        self.partial.swap_remove(partial);
        if let Some(moved) = self.partial.get(partial)
            && let Some((all, _)) = header(*moved).map(places)
        {
            set_places(*moved, all, partial);
        }
        if self.blocks.capacity() > 4 * self.blocks.len() + 64 {
            self.blocks.try_shrink(2 * self.blocks.len());
        }
        record::give_back_block(block);
    }

    /// All records of the loop, free ones too.
    pub fn all(&self) -> impl Iterator<Item = (u32, &'static Record)> {
        self.all_blocks().flat_map(record::indexed_records_of)
    }

    fn all_blocks(&self) -> impl Iterator<Item = u32> {
        self.blocks.iter().copied().chain(self.pending_blocks())
    }

    fn pending_blocks(&self) -> impl Iterator<Item = u32> + use<> {
        let mut next = self.pending;
        std::iter::from_fn(move || {
            let block = (next != NO_BLOCK).then_some(next)?;
            next = header(block)?.aux.load(Relaxed) as u32;
            Some(block)
        })
    }

    /// The last record that is like that, of the blocks before this place and
    /// of those that are in no list; and the place behind its block. What was
    /// found may be given back before the next call.
    pub fn find_before(
        &self,
        place: usize,
        is_it: impl Fn(&Record) -> bool,
    ) -> Option<(usize, u32, &'static Record)> {
        // Where a block is released, one takes its place that was behind it,
        // and looked at.
        for place in (0..place.min(self.blocks.len())).rev() {
            let block = self.blocks.get(place).copied()?;
            if let Some((index, record)) =
                record::indexed_records_of(block).find(|(_, record)| is_it(record))
            {
                return Some((place + 1, index, record));
            }
        }
        let (index, record) = self
            .pending_blocks()
            .flat_map(record::indexed_records_of)
            .find(|(_, record)| is_it(record))?;
        Some((0, index, record))
    }

    /// Gives back all blocks, of a loop whose watchers are all closed and that
    /// refuses all that is sent to them.
    pub fn tear_down(&mut self) {
        while self.pending != NO_BLOCK {
            let block = self.pending;
            self.pending = header(block).map_or(NO_BLOCK, |header| header.aux.load(Relaxed) as u32);
            record::give_back_closed(block);
        }
        self.partial.clear();
        self.empty = 0;
        self.blocks.drain(..).for_each(record::give_back_closed);
    }
}
