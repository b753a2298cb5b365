//! Allocations that report that there is no memory.
//!
//! std's collections end the process where they cannot grow. Here they grow
//! by `try_reserve`, and what was reserved is used by the `*_reserved`
//! methods, which never allocate; or both at once by the `try_*` ones. clippy
//! refuses the others (clippy.toml). This file alone may use them.

#![allow(clippy::disallowed_methods)]
#![cfg_attr(loom, allow(dead_code))]

use std::alloc::Layout;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::ffi::CString;
use std::hash::{BuildHasher, Hash};
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// There is no memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NoMemory;

/// Box::new, which would end the process where there is no memory.
pub(crate) fn try_box<T>(value: T) -> Option<Box<T>> {
    Some(Box::write(try_uninit()?, value))
}

/// A box to be filled by Box::write: what is large is made in it, not on the
/// stack first.
pub(crate) fn try_uninit<T>() -> Option<Box<MaybeUninit<T>>> {
    let layout = Layout::new::<T>();
    let has_room = if layout.size() == 0 {
        NonNull::dangling()
    } else {
        // SAFETY: its size is not 0.
        NonNull::new(unsafe { std::alloc::alloc(layout) })?.cast()
    };
    // SAFETY: allocated here with the layout of a T, or without a size.
    Some(unsafe { Box::from_raw(has_room.as_ptr()) })
}

/// A copy of a slice.
pub(crate) fn try_copy<T: Copy>(from: &[T]) -> Option<Box<[T]>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(from.len()).ok()?;
    copy.extend_from_slice(from);
    Some(copy.into_boxed_slice())
}

/// A copy of some slices, one behind the other.
pub(crate) fn try_concat<'a, T: Copy + 'a>(
    parts: impl Iterator<Item = &'a [T]> + Clone,
) -> Option<Box<[T]>> {
    let mut all = Vec::new();
    all.try_reserve_exact(parts.clone().map(<[T]>::len).sum()).ok()?;
    parts.for_each(|part| all.extend_from_slice(part));
    Some(all.into_boxed_slice())
}

/// A copy of some bytes with a NUL byte behind them; `None`: they have one in
/// them.
pub(crate) fn try_c_string(from: &[u8]) -> Result<CString, Option<NoMemory>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(from.len() + 1).map_err(|_| Some(NoMemory))?;
    copy.extend_from_slice(from);
    // In the room that there is.
    CString::new(copy).map_err(|_| None)
}

/// As many values as there are numbers below `len`, each made from its own.
pub(crate) fn try_array<T>(len: usize, value: impl FnMut(usize) -> T) -> Option<Box<[T]>> {
    let mut array = Vec::new();
    array.try_reserve_exact(len).ok()?;
    array.extend((0..len).map(value));
    Some(array.into_boxed_slice())
}

/// For code that relies on room that was made: a bug if there is none, which
/// then is looked for.
macro_rules! has_room {
    ($collection:expr) => {{
        let has_room = $collection.len() < $collection.capacity();
        debug_assert!(has_room, "no room was made");
        has_room || $collection.try_reserve(1).is_ok()
    }};
}

/// The same of a collection that may have the key already.
fn has_room(len: usize, capacity: usize, is_known: impl FnOnce() -> bool) -> bool {
    let has_room = len < capacity || is_known();
    debug_assert!(has_room, "no room was made");
    has_room
}

/// What a vector does about memory.
pub(crate) trait TryVec<T>: Sized {
    fn try_push(&mut self, value: T) -> Result<(), NoMemory>;
    /// Adds what there is room for.
    fn push_reserved(&mut self, value: T);
    fn try_insert(&mut self, index: usize, value: T) -> Result<(), NoMemory>;
    /// Adds as many as there are.
    fn try_extend(&mut self, values: impl Iterator<Item = T>) -> Result<(), NoMemory>;
    /// Gives back memory, if less than a part of it is used: all but what so
    /// many need.
    fn try_shrink(&mut self, capacity: usize);
}

impl<T> TryVec<T> for Vec<T> {
    #[inline]
    fn try_push(&mut self, value: T) -> Result<(), NoMemory> {
        self.try_reserve(1).map_err(|_| NoMemory)?;
        self.push(value);
        Ok(())
    }

    #[inline(always)]
    fn push_reserved(&mut self, value: T) {
        if has_room!(self) {
            self.push(value);
        }
    }

    fn try_insert(&mut self, index: usize, value: T) -> Result<(), NoMemory> {
        self.try_reserve(1).map_err(|_| NoMemory)?;
        self.insert(index.min(self.len()), value);
        Ok(())
    }

    fn try_extend(&mut self, values: impl Iterator<Item = T>) -> Result<(), NoMemory> {
        self.try_reserve(values.size_hint().0).map_err(|_| NoMemory)?;
        for value in values {
            self.try_push(value)?;
        }
        Ok(())
    }

    fn try_shrink(&mut self, capacity: usize) {
        // Not by shrink_to, which ends the process if even that fails.
        let mut smaller = Self::new();
        if smaller.try_reserve_exact(capacity.max(self.len())).is_ok() {
            smaller.append(self);
            *self = smaller;
        }
    }
}

/// Copies of values, for types that have them.
pub(crate) trait TryVecCopy<T: Copy> {
    fn try_copy_from(&mut self, from: &[T]) -> Result<(), NoMemory>;
    /// Makes it longer, with this value in each new place.
    fn try_lengthen(&mut self, len: usize, value: T) -> Result<(), NoMemory>;
}

impl<T: Copy> TryVecCopy<T> for Vec<T> {
    fn try_copy_from(&mut self, from: &[T]) -> Result<(), NoMemory> {
        self.try_reserve(from.len()).map_err(|_| NoMemory)?;
        self.extend_from_slice(from);
        Ok(())
    }

    fn try_lengthen(&mut self, len: usize, value: T) -> Result<(), NoMemory> {
        let more = len.saturating_sub(self.len());
        self.try_reserve(more).map_err(|_| NoMemory)?;
        self.resize(self.len() + more, value);
        Ok(())
    }
}

/// What a queue does about memory.
pub(crate) trait TryDeque<T> {
    fn try_push_back(&mut self, value: T) -> Result<(), NoMemory>;
    fn push_back_reserved(&mut self, value: T);
    fn push_front_reserved(&mut self, value: T);
    fn insert_reserved(&mut self, index: usize, value: T);
    /// As that of [`TryVec`].
    fn try_shrink(&mut self, capacity: usize);
}

impl<T> TryDeque<T> for VecDeque<T> {
    fn try_push_back(&mut self, value: T) -> Result<(), NoMemory> {
        self.try_reserve(1).map_err(|_| NoMemory)?;
        self.push_back(value);
        Ok(())
    }

    fn push_back_reserved(&mut self, value: T) {
        if has_room!(self) {
            self.push_back(value);
        }
    }

    fn push_front_reserved(&mut self, value: T) {
        if has_room!(self) {
            self.push_front(value);
        }
    }

    fn insert_reserved(&mut self, index: usize, value: T) {
        if has_room!(self) && index <= self.len() {
            self.insert(index, value);
        }
    }

    fn try_shrink(&mut self, capacity: usize) {
        let mut smaller = Self::new();
        if smaller.try_reserve_exact(capacity.max(self.len())).is_ok() {
            smaller.append(self);
            *self = smaller;
        }
    }
}

/// What a heap does about memory.
pub(crate) trait TryHeap<T> {
    fn push_reserved(&mut self, value: T);
}

impl<T: Ord> TryHeap<T> for BinaryHeap<T> {
    #[inline]
    fn push_reserved(&mut self, value: T) {
        if has_room!(self) {
            self.push(value);
        }
    }
}

/// What a map does about memory.
pub(crate) trait TryMap<K, V> {
    /// What is under a key; the value before, if there was one.
    fn try_put(&mut self, key: K, value: V) -> Result<Option<V>, NoMemory>;
    fn insert_reserved(&mut self, key: K, value: V) -> Option<V>;
    /// What is under a key, made if there is nothing yet.
    fn try_entry(&mut self, key: K) -> Result<&mut V, NoMemory>
    where
        V: Default;
    /// Gives back memory, as far as that can be done with what there is.
    fn try_shrink(&mut self);
}

impl<K: Eq + Hash, V, S: BuildHasher + Default> TryMap<K, V> for HashMap<K, V, S> {
    fn try_put(&mut self, key: K, value: V) -> Result<Option<V>, NoMemory> {
        self.try_reserve(1).map_err(|_| NoMemory)?;
        Ok(self.insert(key, value))
    }

    fn insert_reserved(&mut self, key: K, value: V) -> Option<V> {
        if has_room(self.len(), self.capacity(), || self.contains_key(&key))
            || self.try_reserve(1).is_ok()
        {
            return self.insert(key, value);
        }
        None
    }

    fn try_entry(&mut self, key: K) -> Result<&mut V, NoMemory>
    where
        V: Default,
    {
        self.try_reserve(1).map_err(|_| NoMemory)?;
        Ok(self.entry(key).or_default())
    }

    fn try_shrink(&mut self) {
        let mut smaller = Self::default();
        if smaller.try_reserve(self.len()).is_ok() {
            smaller.extend(self.drain());
            *self = smaller;
        }
    }
}

/// What a set does about memory.
pub(crate) trait TrySet<T> {
    fn insert_reserved(&mut self, value: T);
}

impl<T: Eq + Hash, S: BuildHasher> TrySet<T> for HashSet<T, S> {
    fn insert_reserved(&mut self, value: T) {
        if has_room(self.len(), self.capacity(), || self.contains(&value))
            || self.try_reserve(1).is_ok()
        {
            self.insert(value);
        }
    }
}
