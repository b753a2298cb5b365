//! The records that a loop has for its watchers.

use super::record::{self, PER_BLOCK, Record};
use crate::errno::{Result, fail};
use crate::sync::Ordering::Relaxed;

/// Every bit but the header's.
const ALL: u64 = !1;

/// The blocks of a loop. The header of a block says which of its records
/// are free (`data`), which of them was taken last (`flags`), and where the
/// block is in the two lists here (`aux`).
#[derive(Default)]
pub(super) struct Slots {
    blocks: Vec<u32>,
    /// Those with free records.
    partial: Vec<u32>,
    /// How many of those have nothing else.
    empty: usize,
}

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
    pub fn take(&mut self) -> Result<u32> {
        if self.partial.is_empty() {
            self.grow()?;
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
        Some(block * PER_BLOCK + place)
    }

    fn grow(&mut self) -> Result<()> {
        let block = record::take_block()?;
        if let Err(error) = self.adopt(block) {
            record::give_back_block(block);
            return Err(error);
        }
        if let Some(header) = header(block) {
            header.data.store(ALL, Relaxed);
        }
        set_places(block, self.blocks.len() - 1, self.partial.len());
        self.partial.push(block);
        self.empty += 1;
        Ok(())
    }

    /// Takes over a block none of whose records is free.
    pub fn adopt(&mut self, block: u32) -> Result<()> {
        let (all, partial) = (self.blocks.len(), self.partial.len());
        // Every block may come to have free records.
        let room = self.blocks.try_reserve(1).is_ok()
            && self.partial.try_reserve(all + 1 - partial).is_ok();
        let Some(header) = header(block).filter(|_| room) else {
            fail!(ENOMEM, "no memory for a watcher");
        };
        header.data.store(0, Relaxed);
        set_places(block, all, 0);
        self.blocks.push(block);
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
        if before == 0 {
            let (all, _) = places(header);
            set_places(block, all, self.partial.len());
            self.partial.push(block);
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
            self.blocks.shrink_to(2 * self.blocks.len());
        }
        record::give_back_block(block);
    }

    /// All records of the loop, free ones too.
    pub fn all(&self) -> impl Iterator<Item = (u32, &'static Record)> {
        let indices = self.blocks.iter().flat_map(|block| {
            let first = block * PER_BLOCK;
            first + 1..first + PER_BLOCK
        });
        indices.filter_map(|index| Some((index, record::get(index)?)))
    }

    /// Gives back all blocks but those with a record that `keep` wants.
    pub fn tear_down(&mut self, keep: impl Fn(&Record) -> bool) {
        self.partial.clear();
        self.empty = 0;
        for block in self.blocks.drain(..) {
            // One that is kept is lost: somebody may yet write to it.
            if !record::records_of(block).any(&keep) {
                record::give_back_block(block);
            }
        }
    }
}
