//! The slots that a loop has for its watchers.

use crate::errno::{Result, fail};
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::{self, PER_BLOCK, WatcherSlot};
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::{NoMemory, TryVec};

/// Every bit but the header's.
const ALL: u64 = !1;

/// The blocks of a loop. The header of a block says which of its slots are free
/// (`data`), which of them was taken last (`flags`), and where the block is in
/// the two lists here (`aux`).
pub(in crate::event_loop) struct SlotAlloc {
    blocks: Vec<u32>,
    /// Those with free slots.
    partial: Vec<u32>,
    /// How many of those have nothing else.
    empty: usize,
    /// The first of the blocks that are the loop's, but for which there was no
    /// memory yet in the lists. Their headers say which is next (`aux`).
    pending: u32,
}

impl Default for SlotAlloc {
    fn default() -> Self {
        Self { blocks: Vec::new(), partial: Vec::new(), empty: 0, pending: NO_BLOCK }
    }
}

const NO_BLOCK: u32 = u32::MAX;
/// Instead of which slot was taken last: the block is in neither list.
const UNLISTED: u32 = u32::MAX;

/// So many blocks without a watcher in them a loop keeps: what comes and goes
/// again and again should not cost a fault of a page each time.
const SPARE: usize = 16;

fn header(block: u32) -> Option<&'static WatcherSlot> {
    slot::get(block * PER_BLOCK)
}

fn positions(header: &WatcherSlot) -> (usize, usize) {
    let positions = header.aux.load(Relaxed);
    ((positions >> 32) as usize, (positions & 0xffff_ffff) as usize)
}

fn set_list_positions(block: u32, all: usize, partial: usize) {
    if let Some(header) = header(block) {
        header.aux.store((all as u64) << 32 | partial as u64, Relaxed);
    }
}

impl SlotAlloc {
    /// A free slot.
    #[inline]
    pub fn alloc(&mut self, shared: &'static LoopShared) -> Result<u32> {
        if self.partial.is_empty() {
            self.grow(shared)?;
        }
        match self.try_alloc() {
            Some(index) => Ok(index),
            None => fail!(ENOMEM, "no memory for a watcher"),
        }
    }

    /// The same, if there is one.
    #[inline(always)]
    pub fn try_alloc(&mut self) -> Option<u32> {
        let block = *self.partial.last()?;
        let header = header(block)?;
        let free = header.data.load(Relaxed);
        // The next one after the last: what was just freed comes last.
        let after = free & (u64::MAX << (header.flags.load(Relaxed) & 63) << 1);
        let bit = if after != 0 { after.trailing_zeros() } else { free.trailing_zeros() };
        let left = free & !(1 << bit);
        self.empty -= usize::from(free == ALL);
        header.data.store(left, Relaxed);
        header.flags.store(bit, Relaxed);
        if left == 0 {
            self.partial.pop();
        }
        slot::begin_contents();
        Some(block * PER_BLOCK + bit)
    }

    fn grow(&mut self, shared: &'static LoopShared) -> Result<()> {
        let block = slot::take_block(Some(shared))?;
        if let Err(error) = self.list(block, ALL) {
            slot::free_block(block);
            return Err(error.into());
        }
        Ok(())
    }

    /// Takes over a block none of whose slots is free.
    pub fn attach_block(&mut self, block: u32) {
        if self.list(block, 0).is_err()
            && let Some(header) = header(block)
        {
            header.data.store(0, Relaxed);
            header.flags.store(UNLISTED, Relaxed);
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

    /// Lists a block whose slots are free that have a bit in `free`.
    fn list(&mut self, block: u32, free: u64) -> std::result::Result<(), NoMemory> {
        let (all, partial) = (self.blocks.len(), self.partial.len());
        // Every block may come to have free slots.
        let has_room = self.blocks.try_reserve(1).is_ok()
            && self.partial.try_reserve(all + 1 - partial).is_ok();
        let header = header(block).filter(|_| has_room).ok_or(NoMemory)?;
        header.data.store(free, Relaxed);
        header.flags.store(0, Relaxed);
        set_list_positions(block, all, partial);
        self.blocks.push_reserved(block);
        if free != 0 {
            self.partial.push_reserved(block);
        }
        self.empty += usize::from(free == ALL);
        Ok(())
    }

    /// Makes a slot free for its next use.
    #[inline]
    pub fn free(&mut self, index: u32) {
        let Some(slot) = slot::get(index) else { return };
        if !slot.free() {
            return;
        }
        let block = index / PER_BLOCK;
        let Some(header) = header(block) else { return };
        let before = header.data.load(Relaxed);
        let free = before | 1 << (index % PER_BLOCK);
        header.data.store(free, Relaxed);
        if header.flags.load(Relaxed) == UNLISTED {
            return;
        }
        if before == 0 {
            let (all, _) = positions(header);
            set_list_positions(block, all, self.partial.len());
            self.partial.push_reserved(block);
        }
        if free == ALL {
            self.empty += 1;
            if self.empty > SPARE {
                self.detach_block(block);
            }
        }
    }

    /// Gives back a block all of whose slots are free.
    fn detach_block(&mut self, block: u32) {
        let Some((all, partial)) = header(block).map(positions) else { return };
        self.empty -= 1;
        self.blocks.swap_remove(all);
        if let Some(moved) = self.blocks.get(all)
            && let Some((_, partial)) = header(*moved).map(positions)
        {
            set_list_positions(*moved, all, partial);
        }
        self.partial.swap_remove(partial);
        if let Some(moved) = self.partial.get(partial)
            && let Some((all, _)) = header(*moved).map(positions)
        {
            set_list_positions(*moved, all, partial);
        }
        if self.blocks.capacity() > 4 * self.blocks.len() + 64 {
            self.blocks.try_shrink(2 * self.blocks.len());
        }
        slot::free_block(block);
    }

    /// All slots of the loop, free ones too.
    pub fn all(&self) -> impl Iterator<Item = (u32, &'static WatcherSlot)> {
        self.all_blocks().flat_map(slot::indexed_slots_of)
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

    /// The last slot that is like that, of the blocks before this place and of
    /// those that are in no list; and the place behind its block. What was
    /// found may be given back before the next call.
    pub fn find_before(
        &self,
        position: usize,
        is_it: impl Fn(&WatcherSlot) -> bool,
    ) -> Option<(usize, u32, &'static WatcherSlot)> {
        // Where a block is released, one takes its place that was behind it,
        // and looked at.
        for position in (0..position.min(self.blocks.len())).rev() {
            let block = self.blocks.get(position).copied()?;
            if let Some((index, slot)) = slot::indexed_slots_of(block).find(|(_, slot)| is_it(slot))
            {
                return Some((position + 1, index, slot));
            }
        }
        let (index, slot) =
            self.pending_blocks().flat_map(slot::indexed_slots_of).find(|(_, slot)| is_it(slot))?;
        Some((0, index, slot))
    }

    /// Gives back all blocks, of a loop whose watchers are all closed and that
    /// refuses all that is sent to them.
    pub fn tear_down(&mut self) {
        while self.pending != NO_BLOCK {
            let block = self.pending;
            self.pending = header(block).map_or(NO_BLOCK, |header| header.aux.load(Relaxed) as u32);
            slot::give_back_closed(block);
        }
        self.partial.clear();
        self.empty = 0;
        self.blocks.drain(..).for_each(slot::give_back_closed);
    }
}
