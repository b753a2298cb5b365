//! Lists of entries in chunks, from a pool of their own.

use super::NoMemory;
use super::entry::TimerEntry;
use crate::sys::memory;
use crate::util::alloc::TryVec;

/// Entries in a chunk: half a kilobyte of them.
const PER_CHUNK: usize = 31;
/// Chunks are made this many at a time.
const PER_SLAB: usize = 64;
const NONE: u32 = u32::MAX;

struct Chunk {
    entries: [TimerEntry; PER_CHUNK],
    next: u32,
}

/// A list; the entries of its first chunk are counted in it.
#[derive(Clone, Copy)]
pub(super) struct ChunkList {
    first: u32,
    in_first: u32,
    len: u32,
}

/// All chunks, and those that are free.
pub(super) struct Chunks {
    slabs: Vec<Vec<Chunk>>,
    free: u32,
}

impl ChunkList {
    pub const fn new() -> Self {
        Self { first: NONE, in_first: 0, len: 0 }
    }

    pub fn len(&self) -> usize {
        self.len as usize
    }
}

impl Chunks {
    pub const fn new() -> Self {
        Self { slabs: Vec::new(), free: NONE }
    }

    fn get(&self, chunk: u32) -> Option<&Chunk> {
        self.slabs.get(chunk as usize / PER_SLAB)?.get(chunk as usize % PER_SLAB)
    }

    #[inline(always)]
    fn get_mut(&mut self, chunk: u32) -> Option<&mut Chunk> {
        self.slabs.get_mut(chunk as usize / PER_SLAB)?.get_mut(chunk as usize % PER_SLAB)
    }

    #[inline]
    pub fn push(&mut self, list: &mut ChunkList, entry: TimerEntry) -> Result<(), NoMemory> {
        if list.first == NONE || list.in_first as usize == PER_CHUNK {
            let fresh = self.take()?;
            if let Some(chunk) = self.get_mut(fresh) {
                chunk.next = list.first;
            }
            list.first = fresh;
            list.in_first = 0;
        }
        let index = list.in_first as usize;
        let chunk = self.get_mut(list.first).ok_or(NoMemory)?;
        *chunk.entries.get_mut(index).ok_or(NoMemory)? = entry;
        list.in_first += 1;
        list.len += 1;
        Ok(())
    }

    /// Takes any entry; its chunk is only freed once the next is taken, so
    /// that it can be put back.
    #[inline]
    pub fn pop(&mut self, list: &mut ChunkList) -> Option<TimerEntry> {
        if list.in_first == 0 {
            let emptied = list.first;
            let next = self.get(emptied)?.next;
            self.give_back(emptied);
            list.first = next;
            list.in_first = if next == NONE { 0 } else { PER_CHUNK as u32 };
            // The one after it, while the entries of this one are dealt with.
            if let Some(chunk) = self.get(next).and_then(|chunk| self.get(chunk.next)) {
                memory::prefetch_all(chunk);
            }
        }
        let index = list.in_first.checked_sub(1)?;
        let entry = *self.get(list.first)?.entries.get(index as usize)?;
        list.in_first = index;
        list.len -= 1;
        Some(entry)
    }

    pub fn iter(&self, list: &ChunkList) -> impl Iterator<Item = TimerEntry> {
        let (mut chunk, mut left) = (list.first, list.in_first as usize);
        std::iter::from_fn(move || {
            if left == 0 {
                chunk = self.get(chunk)?.next;
                left = PER_CHUNK;
            }
            left -= 1;
            self.get(chunk)?.entries.get(left).copied()
        })
    }

    /// Changes all entries of a list.
    pub fn each_mut(&mut self, list: &ChunkList, change: impl Fn(&mut TimerEntry)) {
        let (mut chunk, mut filled) = (list.first, list.in_first as usize);
        while let Some(Chunk { entries, next }) = self.get_mut(chunk) {
            entries.iter_mut().take(filled).for_each(&change);
            (chunk, filled) = (*next, PER_CHUNK);
        }
    }

    fn take(&mut self) -> Result<u32, NoMemory> {
        if self.free == NONE {
            self.grow()?;
        }
        let taken = self.free;
        self.free = self.get(taken).ok_or(NoMemory)?.next;
        Ok(taken)
    }

    fn give_back(&mut self, chunk: u32) {
        let free = self.free;
        if let Some(freed) = self.get_mut(chunk) {
            freed.next = free;
            self.free = chunk;
        }
    }

    #[cold]
    fn grow(&mut self) -> Result<(), NoMemory> {
        self.slabs.try_reserve(1).map_err(|_| NoMemory)?;
        let mut slab = Vec::new();
        slab.try_reserve_exact(PER_SLAB).map_err(|_| NoMemory)?;
        let first = u32::try_from(self.slabs.len() * PER_SLAB).map_err(|_| NoMemory)?;
        for chunk in first..first + PER_SLAB as u32 {
            let last = chunk + 1 == first + PER_SLAB as u32;
            let next = if last { self.free } else { chunk + 1 };
            slab.push_reserved(Chunk { entries: [TimerEntry::default(); PER_CHUNK], next });
        }
        self.slabs.push_reserved(slab);
        self.free = first;
        Ok(())
    }

    /// How many chunks there are.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.slabs.len() * PER_SLAB
    }

    /// Frees the chunks, when no list is left. What a few timers need is kept:
    /// setting a timer should not fail because it was the only one.
    pub fn clear(&mut self) {
        self.slabs.truncate(1);
        if self.slabs.capacity() > PER_SLAB {
            self.slabs.try_shrink(1);
        }
        self.free = NONE;
        let Some(slab) = self.slabs.first_mut() else { return };
        for (chunk, index) in slab.iter_mut().zip(0..) {
            chunk.next = std::mem::replace(&mut self.free, index);
        }
    }
}
