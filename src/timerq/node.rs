//! What the queue keeps with each timer.

use crate::sync::{AtomicI64, AtomicU64, Ordering::Relaxed};

const NONE: i64 = i64::MIN;

/// A timer's deadline, and where its entry is.
///
/// Used by one thread at a time; the fields are atomic because a node may lie
/// in memory that others look at.
pub(crate) struct Node {
    deadline: AtomicI64,
    /// The key of its entry, if it has one.
    entry: AtomicI64,
    seq: AtomicU64,
}

impl Node {
    #[cfg(test)]
    pub fn new() -> Self {
        Self { deadline: AtomicI64::new(NONE), entry: AtomicI64::new(NONE), seq: AtomicU64::new(0) }
    }

    /// A new timer's. An entry of the one before is of no use any more.
    pub fn reset(&self) {
        self.deadline.store(NONE, Relaxed);
        self.entry.store(NONE, Relaxed);
        self.seq.store(0, Relaxed);
    }

    /// When the timer is due, if it is armed.
    #[inline(always)]
    pub fn deadline(&self) -> Option<i64> {
        let deadline = self.deadline.load(Relaxed);
        (deadline != NONE).then_some(deadline)
    }

    #[inline(always)]
    pub fn seq(&self) -> u64 {
        self.seq.load(Relaxed)
    }

    /// For a timer that is not armed: the number is the owner's until it is.
    pub fn set_seq(&self, seq: u64) {
        self.seq.store(seq, Relaxed);
    }

    /// A word for an owner that has no timer here.
    #[inline(always)]
    pub fn spare(&self) -> &AtomicU64 {
        &self.seq
    }

    #[inline(always)]
    pub(super) fn set(&self, deadline: i64, seq: u64) {
        self.deadline.store(deadline, Relaxed);
        self.seq.store(seq, Relaxed);
    }

    #[inline(always)]
    pub(super) fn clear(&self) {
        self.deadline.store(NONE, Relaxed);
    }

    #[inline(always)]
    pub(super) fn has_entry(&self, key: i64) -> bool {
        self.entry.load(Relaxed) == key
    }

    /// Whether it has an entry that comes up by then.
    #[inline(always)]
    pub(super) fn has_entry_until(&self, deadline: i64) -> bool {
        let entry = self.entry.load(Relaxed);
        entry != NONE && entry <= deadline
    }

    #[inline(always)]
    pub(super) fn set_entry(&self, key: i64) {
        self.entry.store(key, Relaxed);
    }

    #[inline(always)]
    pub(super) fn forget_entry(&self) {
        self.entry.store(NONE, Relaxed);
    }
}
