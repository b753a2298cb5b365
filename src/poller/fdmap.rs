//! A map from descriptors to how they are registered.
//!
//! A radix tree over the 31 bits of a descriptor, made of atomics: whatever
//! instant a fork catches a writer at, the child finds valid memory and every
//! entry but the one being written as it was. (No hash map can promise that,
//! and poll sets go on working in the child.) Its owner locks it; the
//! atomics are not for sharing it without a lock.

use crate::errno::{Result, fail};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::alloc::{Layout, alloc_zeroed};
use std::os::fd::RawFd;

/// How a descriptor is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FdEntry {
    pub events: u32,
    /// For the owner's use.
    pub tag: u32,
    pub data: u64,
}

const WORDS: usize = LEAF / 64;
const LEAF: usize = 1 << 8;
const BRANCH: usize = 1 << 8;
const ROOT: usize = 1 << 7;

#[derive(Default)]
struct FdCell {
    events: AtomicU32,
    tag: AtomicU32,
    data: AtomicU64,
}

struct Leaf {
    /// Which cells are in use.
    used: [AtomicU64; WORDS],
    cells: [FdCell; LEAF],
}

struct Branch<T> {
    children: [AtomicPtr<T>; BRANCH],
}

type RootBranch = Branch<Branch<Leaf>>;

pub(super) struct FdMap {
    roots: [AtomicPtr<RootBranch>; ROOT],
    len: AtomicUsize,
}

/// A type whose all-zero bytes are a valid, empty value.
///
/// # Safety
/// They must be.
unsafe trait Zeroed {}
// SAFETY: an array of null pointers.
unsafe impl<T> Zeroed for Branch<T> {}
// SAFETY: arrays of integers.
unsafe impl Zeroed for Leaf {}

/// The child behind a pointer, if there is one.
fn child<T>(pointer: &AtomicPtr<T>) -> Option<&T> {
    // Acquire, and Release in `child_or_new`: the child's zeroes come first.
    let child = pointer.load(Ordering::Acquire);
    // SAFETY: NULL, or made by `child_or_new` and freed only by `free`.
    unsafe { child.as_ref() }
}

fn child_or_new<T: Zeroed>(pointer: &AtomicPtr<T>) -> Result<&T> {
    match child(pointer) {
        Some(child) => Ok(child),
        None => new_child(pointer),
    }
}

#[cold]
fn new_child<T: Zeroed>(pointer: &AtomicPtr<T>) -> Result<&T> {
    // SAFETY: the layout is not of size 0.
    let fresh = unsafe { alloc_zeroed(Layout::new::<T>()) };
    pointer.store(fresh.cast(), Ordering::Release);
    match child(pointer) {
        Some(child) => Ok(child),
        None => fail!(ENOMEM, "no memory to register a descriptor"),
    }
}

/// Frees a child that has no children itself.
fn free<T>(pointer: &AtomicPtr<T>) {
    let child = pointer.load(Ordering::Relaxed);
    if !child.is_null() {
        // SAFETY: made by alloc_zeroed with T's layout, which is Box's.
        drop(unsafe { Box::from_raw(child) });
    }
}

/// The places of a descriptor in root, branches and leaf.
fn path(fd: RawFd) -> [usize; 4] {
    let fd = fd.cast_unsigned() as usize;
    [fd >> 24 & (ROOT - 1), fd >> 16 & (BRANCH - 1), fd >> 8 & (BRANCH - 1), fd & (LEAF - 1)]
}

impl FdMap {
    pub const fn new() -> Self {
        Self {
            roots: [const { AtomicPtr::new(std::ptr::null_mut()) }; ROOT],
            len: AtomicUsize::new(0),
        }
    }

    pub fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn leaf(&self, fd: RawFd) -> Option<&Leaf> {
        if fd < 0 {
            return None;
        }
        let [a, b, c, _] = path(fd);
        let root = child(self.roots.get(a)?)?;
        let branch = child(root.children.get(b)?)?;
        child(branch.children.get(c)?)
    }

    fn leaf_or_new(&self, fd: RawFd) -> Result<Option<&Leaf>> {
        let [a, b, c, _] = path(fd);
        let Some(slot) = self.roots.get(a) else { return Ok(None) };
        let Some(slot) = child_or_new(slot)?.children.get(b) else { return Ok(None) };
        let Some(slot) = child_or_new(slot)?.children.get(c) else { return Ok(None) };
        child_or_new(slot).map(Some)
    }

    pub fn get(&self, fd: RawFd) -> Option<FdEntry> {
        self.leaf(fd)?.get(fd)
    }

    /// Makes sure that `set_reserved` has the memory it needs.
    pub fn reserve(&self, fd: RawFd) -> Result<()> {
        self.leaf_or_new(fd).map(drop)
    }

    /// Registers it, or replaces how it is registered.
    pub fn set(&self, fd: RawFd, entry: FdEntry) -> Result<()> {
        let leaf = self.leaf_or_new(fd)?;
        self.set_in(leaf, fd, entry);
        Ok(())
    }

    /// The same after `reserve`; true: it is new.
    pub fn set_reserved(&self, fd: RawFd, entry: FdEntry) -> bool {
        self.set_in(self.leaf(fd), fd, entry)
    }

    fn set_in(&self, leaf: Option<&Leaf>, fd: RawFd, entry: FdEntry) -> bool {
        let is_new = leaf.is_some_and(|leaf| leaf.set(fd, entry));
        if is_new {
            self.len.store(self.len() + 1, Ordering::Relaxed);
        }
        is_new
    }

    pub fn remove(&self, fd: RawFd) -> bool {
        let removed = self.leaf(fd).is_some_and(|leaf| leaf.remove(fd));
        if removed {
            self.len.store(self.len() - 1, Ordering::Relaxed);
        }
        removed
    }

    /// In the order of the numbers.
    pub fn for_each(&self, mut visit: impl FnMut(RawFd, FdEntry)) {
        self.for_each_leaf(|base, leaf| {
            for index in 0..LEAF as i32 {
                let fd = base | index;
                if let Some(entry) = leaf.get(fd) {
                    visit(fd, entry);
                }
            }
        });
    }

    /// For a forked child: the number of entries may have been caught
    /// between an entry and its count.
    pub fn recount(&self) {
        let mut len = 0;
        self.for_each(|_, _| len += 1);
        self.len.store(len, Ordering::Relaxed);
    }

    fn for_each_leaf(&self, mut visit: impl FnMut(RawFd, &Leaf)) {
        for (a, root) in (0..).zip(&self.roots) {
            let Some(root) = child(root) else { continue };
            for (b, branch) in (0..).zip(&root.children) {
                let Some(branch) = child(branch) else { continue };
                for (c, leaf) in (0..).zip(&branch.children) {
                    if let Some(leaf) = child(leaf) {
                        visit(a << 24 | b << 16 | c << 8, leaf);
                    }
                }
            }
        }
    }
}

impl Drop for FdMap {
    fn drop(&mut self) {
        for root_place in &self.roots {
            let Some(root) = child(root_place) else { continue };
            for branch_place in &root.children {
                let Some(branch) = child(branch_place) else { continue };
                branch.children.iter().for_each(free);
                free(branch_place);
            }
            free(root_place);
        }
    }
}

impl Leaf {
    fn locate(&self, fd: RawFd) -> Option<(&AtomicU64, u64, &FdCell)> {
        let [.., index] = path(fd);
        Some((self.used.get(index / 64)?, 1 << (index % 64), self.cells.get(index)?))
    }

    fn get(&self, fd: RawFd) -> Option<FdEntry> {
        let (used, bit, cell) = self.locate(fd)?;
        // Acquire, and Release in `set`: the entry is written before its bit.
        (used.load(Ordering::Acquire) & bit != 0).then(|| FdEntry {
            events: cell.events.load(Ordering::Relaxed),
            tag: cell.tag.load(Ordering::Relaxed),
            data: cell.data.load(Ordering::Relaxed),
        })
    }

    /// Whether it is new.
    fn set(&self, fd: RawFd, entry: FdEntry) -> bool {
        let Some((used, bit, cell)) = self.locate(fd) else { return false };
        cell.events.store(entry.events, Ordering::Relaxed);
        cell.tag.store(entry.tag, Ordering::Relaxed);
        cell.data.store(entry.data, Ordering::Relaxed);
        let before = used.load(Ordering::Relaxed);
        used.store(before | bit, Ordering::Release);
        before & bit == 0
    }

    /// Whether it was there.
    fn remove(&self, fd: RawFd) -> bool {
        let Some((used, bit, _)) = self.locate(fd) else { return false };
        let before = used.load(Ordering::Relaxed);
        used.store(before & !bit, Ordering::Relaxed);
        before & bit != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn descriptor() -> impl Strategy<Value = RawFd> {
        prop_oneof![
            0..40,
            250..260,
            65_530..65_540,
            (1 << 24) - 3..(1 << 24) + 3,
            i32::MAX - 3..i32::MAX
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_a_plain_map(steps in prop::collection::vec((descriptor(), any::<Option<(u32, u64)>>()), 0..200)) {
            let map = FdMap::new();
            let mut model = BTreeMap::new();
            for (fd, step) in steps {
                match step {
                    Some((events, data)) => {
                        let entry = FdEntry { events, tag: events ^ 1, data };
                        map.set(fd, entry).unwrap();
                        model.insert(fd, entry);
                    }
                    None => prop_assert_eq!(map.remove(fd), model.remove(&fd).is_some()),
                }
                prop_assert_eq!(map.get(fd), model.get(&fd).copied());
                prop_assert_eq!(map.len(), model.len());
            }
            let mut seen = Vec::new();
            map.for_each(|fd, entry| seen.push((fd, entry)));
            prop_assert_eq!(seen, model.into_iter().collect::<Vec<_>>());
        }
    }
}
