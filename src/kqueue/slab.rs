//! Records by number; a number that is used again has another generation.

use crate::sys::memory;
use crate::util::alloc::TryVec;

/// No record has this number.
pub(super) const NONE: u32 = u32::MAX;

/// Aligned, so that what a record has first is found with one cache miss.
#[repr(C, align(64))]
struct SlabSlot<T> {
    generation: u32,
    /// The next free one, while it is free.
    next: u32,
    value: Option<T>,
}

pub(super) struct Slab<T> {
    slots: Vec<SlabSlot<T>>,
    free: u32,
    len: usize,
    /// How many there were that are no more.
    removed: u64,
}

/// Generations fit in 31 bits.
const GENERATIONS: u32 = (1 << 31) - 1;

impl<T> Slab<T> {
    pub const fn new() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0, removed: 0 }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn removed(&self) -> u64 {
        self.removed
    }

    /// Whether a generation may have come again since so many were removed.
    pub fn may_have_come_again(&self, removed_before: u64) -> bool {
        self.removed - removed_before >= GENERATIONS.into()
    }

    /// Whether half of all generations may have been used since so many were
    /// removed.
    pub fn has_used_many(&self, removed_before: u64) -> bool {
        self.removed - removed_before >= u64::from(GENERATIONS) / 2
    }

    /// All numbers are below this.
    pub fn end(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(NONE)
    }

    /// The number of a new record; `None`: there is no memory, or `limit`
    /// numbers are in use.
    pub fn insert(&mut self, value: T, limit: u32) -> Option<u32> {
        if let Some(slot) = self.slots.get_mut(self.free as usize) {
            let id = self.free;
            self.free = slot.next;
            slot.value = Some(value);
            self.len += 1;
            return Some(id);
        }
        let id = u32::try_from(self.slots.len()).ok().filter(|id| *id < limit)?;
        self.slots.try_reserve(1).ok()?;
        self.slots.push_reserved(SlabSlot { generation: 1, next: NONE, value: Some(value) });
        self.len += 1;
        Some(id)
    }

    pub fn remove(&mut self, id: u32) -> Option<T> {
        let slot = self.slots.get_mut(id as usize)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation % GENERATIONS + 1;
        slot.next = self.free;
        self.free = id;
        self.len -= 1;
        self.removed += 1;
        Some(value)
    }

    #[inline]
    pub fn get(&self, id: u32) -> Option<&T> {
        self.slots.get(id as usize)?.value.as_ref()
    }

    /// The same, if it is of this generation.
    #[inline]
    pub fn get_of(&self, id: u32, generation: u32) -> Option<&T> {
        let slot = self.slots.get(id as usize).filter(|slot| slot.generation == generation)?;
        slot.value.as_ref()
    }

    #[inline]
    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        self.slots.get_mut(id as usize)?.value.as_mut()
    }

    /// It will be looked at soon.
    #[inline]
    pub fn prefetch(&self, id: u32) {
        if let Some(slot) = self.slots.get(id as usize) {
            memory::prefetch(slot);
        }
    }

    /// The first number in use, from this one on.
    pub fn next_from(&self, from: u32) -> Option<u32> {
        let rest = self.slots.get(from as usize..)?;
        let ahead = rest.iter().position(|slot| slot.value.is_some())?;
        Some(from + ahead as u32)
    }

    pub fn generation(&self, id: u32) -> u32 {
        self.slots.get(id as usize).map_or(0, |slot| slot.generation)
    }
}

#[cfg(test)]
impl<T> Slab<T> {
    /// As if so many had been removed.
    pub fn set_removed(&mut self, removed: u64) {
        self.removed = removed;
    }

    /// As if a number had been used so often.
    pub fn set_generation(&mut self, id: u32, generation: u32) {
        self.slots[id as usize].generation = generation;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_begin_again_and_are_never_0() {
        let mut slab = Slab::new();
        let id = slab.insert('a', 1).unwrap();
        slab.set_generation(id, GENERATIONS - 1);
        for expected in [GENERATIONS, 1, 2] {
            slab.remove(id);
            assert_eq!(slab.insert('b', 1), Some(id));
            assert_eq!(slab.generation(id), expected);
        }
        assert!(!slab.may_have_come_again(0));
        slab.set_removed(GENERATIONS.into());
        assert!(slab.may_have_come_again(0) && !slab.may_have_come_again(1));
        assert!(slab.has_used_many(1 << 30) && !slab.has_used_many((1 << 30) + 1));
    }

    #[test]
    fn numbers_come_again_with_another_generation() {
        let mut slab = Slab::new();
        let (a, b) = (slab.insert('a', 2).unwrap(), slab.insert('b', 2).unwrap());
        assert_eq!((a, b, slab.insert('c', 2)), (0, 1, None));
        let before = slab.generation(a);
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!((slab.remove(a), slab.len()), (None, 1));
        assert_eq!(slab.insert('d', 2), Some(a));
        assert_ne!(slab.generation(a), before);
        assert_eq!((slab.get(a), slab.get(NONE)), (Some(&'d'), None));
        assert_eq!((slab.next_from(1), slab.next_from(2)), (Some(b), None));
    }
}
