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
    /// When it was armed (40 bits), and above that the tolerance.
    seq: AtomicU64,
}

const SEQ_BITS: u32 = 40;
const SEQ: u64 = (1 << SEQ_BITS) - 1;
/// A tolerance has so many significant bits.
const DIGITS: u32 = 18;

/// A tolerance in 24 bits: its highest 18, and how far they are shifted.
fn pack(tolerance: i64) -> u64 {
    let tolerance = tolerance.max(0).cast_unsigned();
    let shift = (u64::BITS - tolerance.leading_zeros()).saturating_sub(DIGITS);
    (u64::from(shift) << DIGITS | tolerance >> shift) << SEQ_BITS
}

fn unpack(word: u64) -> i64 {
    let code = word >> SEQ_BITS;
    ((code & ((1 << DIGITS) - 1)) << (code >> DIGITS)).cast_signed()
}

impl Node {
    pub const fn new() -> Self {
        Self { deadline: AtomicI64::new(NONE), entry: AtomicI64::new(NONE), seq: AtomicU64::new(0) }
    }

    /// A new timer's. An entry of the one before is of no use any more.
    pub fn reset(&self) {
        self.deadline.store(NONE, Relaxed);
        self.entry.store(NONE, Relaxed);
        self.seq.store(0, Relaxed);
    }

    /// The same, with its number and its tolerance.
    #[inline(always)]
    pub fn begin(&self, seq: u64, tolerance: i64) {
        self.deadline.store(NONE, Relaxed);
        self.entry.store(NONE, Relaxed);
        self.seq.store(seq & SEQ | pack(tolerance), Relaxed);
    }

    /// When the timer is due, if it is armed.
    #[inline(always)]
    pub fn deadline(&self) -> Option<i64> {
        let deadline = self.deadline.load(Relaxed);
        (deadline != NONE).then_some(deadline)
    }

    #[inline(always)]
    pub fn seq(&self) -> u64 {
        self.seq.load(Relaxed) & SEQ
    }

    /// For a timer that is not armed: the number is the owner's until it is.
    #[inline(always)]
    pub fn set_seq(&self, seq: u64) {
        self.seq.store(self.seq.load(Relaxed) & !SEQ | seq & SEQ, Relaxed);
    }

    /// How much later than its deadline the timer may expire; ns.
    #[inline(always)]
    pub fn tolerance(&self) -> i64 {
        unpack(self.seq.load(Relaxed))
    }

    /// Sets that, rounded down to 18 significant bits; before it is armed.
    pub fn set_tolerance(&self, tolerance: i64) {
        self.seq.store(self.seq.load(Relaxed) & SEQ | pack(tolerance), Relaxed);
    }

    /// A word for an owner that has no timer here.
    #[inline(always)]
    pub fn spare(&self) -> &AtomicU64 {
        &self.seq
    }

    /// Another one.
    #[inline(always)]
    pub fn second_spare(&self) -> &AtomicI64 {
        &self.entry
    }

    /// And a third one.
    #[inline(always)]
    pub fn third_spare(&self) -> &AtomicI64 {
        &self.deadline
    }

    /// Arms it for later than its entry comes up, if it is armed and has one;
    /// false: the queue has to do it.
    #[inline(always)]
    pub fn arm_later(&self, deadline: i64, seq: u64) -> bool {
        let queued = self.deadline.load(Relaxed) != NONE && self.has_entry_until(deadline);
        if queued {
            self.set(deadline, seq);
        }
        queued
    }

    /// Moves an armed timer's deadline back, without changing its place among
    /// those with the same.
    pub fn delay(&self, deadline: i64) {
        self.deadline.store(deadline, Relaxed);
    }

    #[inline(always)]
    pub(super) fn set(&self, deadline: i64, seq: u64) {
        self.deadline.store(deadline, Relaxed);
        self.set_seq(seq);
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

    /// Whatever entry it has is of no use any more.
    #[inline(always)]
    pub fn forget_entry(&self) {
        self.entry.store(NONE, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerances_are_hardly_rounded_and_never_up() {
        for given in (0..63).flat_map(|bit| [(1i64 << bit) - 1, 1 << bit, (1 << bit) / 3 * 4]) {
            let node = Node::new();
            node.set_tolerance(given);
            node.set(1, u64::MAX);
            let kept = node.tolerance();
            assert!(kept <= given && kept >= given - (given >> 17), "{kept} for {given}");
            assert_eq!(node.seq(), SEQ);
        }
    }
}
