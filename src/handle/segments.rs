//! An array that grows without moving: segments, each twice the last.

use crate::sync::{AtomicPtr, Ordering};
use crate::util::alloc::try_array;
use std::marker::PhantomData;
use std::ptr;

/// Entries of the first segment. Few in a model, whose every entry costs.
const FIRST: u32 = if cfg!(loom) { 2 } else { 64 };
/// Enough for every index of a handle.
const SEGMENTS: usize = 19;
/// How many entries there can be.
pub(super) const CAPACITY: u32 = FIRST * ((1 << SEGMENTS) - 1);

pub(super) struct Segments<T> {
    starts: [AtomicPtr<T>; SEGMENTS],
    /// It owns entries: only as shareable as they are.
    owns: PhantomData<T>,
}

/// The segment of an index, its length, and the place in it.
#[inline]
fn locate(index: u32) -> (usize, u32, u32) {
    let shifted = index + FIRST;
    let segment = shifted.ilog2() - FIRST.ilog2();
    let len = FIRST << segment;
    (segment as usize, len, shifted - len)
}

impl<T> Segments<T> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { starts: [const { AtomicPtr::new(ptr::null_mut()) }; SEGMENTS], owns: PhantomData }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { starts: std::array::from_fn(|_| AtomicPtr::new(ptr::null_mut())), owns: PhantomData }
    }

    /// The entry, if its segment exists.
    #[inline]
    pub fn get(&self, index: u32) -> Option<&T> {
        if index >= CAPACITY {
            return None;
        }
        let (segment, _, offset) = locate(index);
        // Acquire: the segment was filled in by the thread that published it.
        let start = self.starts.get(segment)?.load(Ordering::Acquire);
        if start.is_null() {
            return None;
        }
        // SAFETY: `offset` is inside the segment.
        let entry = unsafe { start.add(offset as usize) };
        // SAFETY: segments are initialised and live as long as `self`.
        Some(unsafe { &*entry })
    }

    /// Makes the segment of an index, each entry by its index; `None`: no
    /// memory. One thread at a time.
    pub fn ensure(&self, index: u32, mut entry: impl FnMut(u32) -> T) -> Option<&T> {
        if index >= CAPACITY {
            return None;
        }
        let (segment, len, _) = locate(index);
        let start = self.starts.get(segment)?;
        if start.load(Ordering::Relaxed).is_null() {
            let first = len - FIRST;
            let fresh = try_array(len as usize, |i| entry(first + i as u32))?;
            let fresh = Box::into_raw(fresh);
            // Release: pairs with the Acquire in `get`.
            start.store(fresh.cast(), Ordering::Release);
        }
        self.get(index)
    }
}

impl<T> Drop for Segments<T> {
    fn drop(&mut self) {
        for (segment, start) in self.starts.iter().enumerate() {
            let start = start.load(Ordering::Relaxed);
            if !start.is_null() {
                let slice = ptr::slice_from_raw_parts_mut(start, (FIRST as usize) << segment);
                // SAFETY: made by `ensure` with that length, dropped once.
                drop(unsafe { Box::from_raw(slice) });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_its_own_place() {
        let mut expected = (0, FIRST, 0);
        for index in 0..if cfg!(miri) { 2000 } else { 100_000 } {
            assert_eq!(locate(index), expected);
            expected.2 += 1;
            if expected.2 == expected.1 {
                expected = (expected.0 + 1, expected.1 * 2, 0);
            }
        }
        assert_eq!(locate(CAPACITY - 1).0, SEGMENTS - 1);
    }

    #[test]
    fn entries_appear_with_their_segment_and_stay() {
        let segments = Segments::new();
        assert!(segments.get(0).is_none());
        let first = ptr::from_ref(segments.ensure(70, |_| 7u32).unwrap());
        assert!(segments.get(0).is_none());
        assert!(segments.ensure(5000, |index| index).is_some());
        assert_eq!(segments.get(70).map(ptr::from_ref), Some(first));
        assert_eq!(segments.get(191), Some(&7));
        assert_eq!(segments.get(5001), Some(&5001));
        assert!(segments.get(CAPACITY).is_none());
        assert!(segments.ensure(u32::MAX, |_| 1).is_none());
    }
}
