//! The word of a slot: its generation and state, by which handles are checked;
//! and the orders in which a slot's loop is published and read.
//!
//! A lookup reads the pointer to the loop, then the word, or the other way
//! round; whichever it is, the two have to belong together. The pointer is
//! stored with [`PUBLISH`] before the slot is made live and read with [`FIND`]:
//! a thread that reads the pointer of a later loop also sees that the word is
//! not that of the earlier watcher any more, what that loop has been asked to
//! do before, and the whole of what the pointer leads to.

use crate::sync::{AtomicU32, AtomicU64, Ordering, Ordering::*, fence};

/// States of a slot, the low bits of its word.
pub(in crate::event_loop) const FREE: u32 = 0;
pub(in crate::event_loop) const LIVE: u32 = 1;
/// Closed, but not freed yet by the thread that may.
pub(in crate::event_loop) const CLOSING: u32 = 2;
pub(in crate::event_loop) const LOOP: u32 = 3;
/// Or-ed to the state of an async watcher: it was sent to, and is on its
/// loop's stack or about to be put there. It is not freed before it is taken
/// off.
const PENDING: u32 = 0x10;
/// Or-ed to CLOSING: another thread closed it, and had no memory for a command
/// to the loop; and it removed the registration with the kernel.
const UNLISTED: u32 = 0x20;
const REMOVED: u32 = 0x40;
/// Or-ed to CLOSING, of an async watcher whose loop is gone: a sender that had
/// marked it, and whose push is refused, frees it.
const LEFT: u32 = 0x80;
/// What says nothing about the state.
const MARKS: u32 = PENDING | UNLISTED | REMOVED | LEFT;
const STATE_BITS: u32 = 8;
const STATE: u32 = (1 << STATE_BITS) - 1;

/// The order in which a slot's pointer to its loop is stored, and read.
pub(in crate::event_loop) const PUBLISH: Ordering = Release;
pub(in crate::event_loop) const FIND: Ordering = Acquire;

/// generation 24 | state 8. All-zero bytes are a free slot.
pub(in crate::event_loop) struct SlotWord(AtomicU32);

const fn word(generation: u32, state: u32) -> u32 {
    generation << STATE_BITS | state
}

impl SlotWord {
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Free, and of this generation.
    pub fn begin(&self, generation: u32) {
        self.0.store(word(generation, FREE), Relaxed);
    }

    #[inline(always)]
    pub fn generation(&self) -> u32 {
        self.0.load(Relaxed) >> STATE_BITS
    }

    /// Whether it is of this generation, in this state.
    #[inline(always)]
    pub fn is(&self, generation: u32, state: u32) -> bool {
        // Acquire: sees the rest as the thread that made it live left it.
        self.0.load(Acquire) & !MARKS == word(generation, state)
    }

    pub fn state(&self) -> u32 {
        self.0.load(Relaxed) & STATE & !MARKS
    }

    /// The generation, if it is live.
    pub fn live_generation(&self) -> Option<u32> {
        // Acquire: as in `is`.
        let seen = self.0.load(Acquire);
        (seen & STATE & !MARKS == LIVE).then_some(seen >> STATE_BITS)
    }

    /// What `read` finds in the slot while it is live, and the generation: all
    /// that was read belongs to that, but may be a moment old.
    pub fn look<R>(&self, read: impl FnOnce() -> Option<R>) -> Option<(u32, R)> {
        let generation = self.live_generation()?;
        let found = read()?;
        // Acquire: pairs with `begin_contents`.
        fence(Acquire);
        (self.live_generation()? == generation).then_some((generation, found))
    }

    #[inline(always)]
    pub fn set_state(&self, state: u32) {
        // Release: who finds it live sees what was stored before.
        self.0.store(word(self.generation(), state), Release);
    }

    pub fn is_pending(&self) -> bool {
        self.0.load(Relaxed) & PENDING != 0
    }

    /// Marks an async watcher sent to; true: it was not, and the caller has
    /// to put it on its loop's stack. `None`: it is not live any more.
    #[inline(always)]
    pub fn mark_pending(&self, generation: u32) -> Option<bool> {
        let live = word(generation, LIVE);
        let mut seen = self.0.load(Relaxed);
        loop {
            if seen & !PENDING != live {
                return None;
            }
            // Release, and a write even if it is marked already: the thread
            // that takes the mark off sees what the sender wrote before.
            match self.0.compare_exchange_weak(seen, live | PENDING, AcqRel, Relaxed) {
                Ok(_) => return Some(seen & PENDING == 0),
                Err(now) => seen = now,
            }
        }
    }

    /// Marks it sent to again, after the mark was taken off; whether a sender
    /// has marked it since.
    pub fn mark_pending_again(&self) -> bool {
        self.0.fetch_or(PENDING, Relaxed) & PENDING != 0
    }

    /// Takes the mark off; whether it was there.
    pub fn clear_pending(&self) -> bool {
        // Acquire: pairs with the Release of every `send` so far.
        self.0.fetch_and(!PENDING, AcqRel) & PENDING != 0
    }

    /// The same of a sender whose push was refused; true: the loop has left the
    /// slot to it, and it frees it.
    pub fn refuse(&self) -> bool {
        // AcqRel: one of this and `leave_to_sender` comes second.
        self.0.fetch_and(!PENDING, AcqRel) & LEFT != 0
    }

    /// Of a closed watcher whose loop refuses all pushes: whether a sender has
    /// not seen that yet, and frees it. Else the caller does.
    pub fn leave_to_sender(&self) -> bool {
        self.0.fetch_or(LEFT, AcqRel) & PENDING != 0
    }

    /// From live to closing; false: another thread was faster. A read-modify-
    /// write, by the loop's own thread too: so it sees what a thread that was
    /// faster has left for the loop before, and one of the two closes.
    pub fn close(&self, generation: u32) -> bool {
        self.close_with(generation, 0)
    }

    /// The same, where there is no memory for a command to the loop, which
    /// finds what is marked so by a look at all of its watchers.
    pub fn close_unlisted(&self, generation: u32, was_removed: bool) -> bool {
        self.close_with(generation, UNLISTED | if was_removed { REMOVED } else { 0 })
    }

    fn close_with(&self, generation: u32, marks: u32) -> bool {
        let live = word(generation, LIVE);
        let mut seen = self.0.load(Relaxed);
        while seen & !PENDING == live {
            let closing = word(generation, CLOSING) | marks | seen & PENDING;
            match self.0.compare_exchange_weak(seen, closing, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    pub fn is_unlisted(&self) -> bool {
        self.0.load(Relaxed) & UNLISTED != 0
    }

    /// Takes the mark off; whether the registration was removed.
    pub fn take_unlisted(&self) -> bool {
        self.0.fetch_and(!(UNLISTED | REMOVED), Relaxed) & REMOVED != 0
    }

    /// Whether the thread that closed it removed its registration, which the
    /// loop does not know yet; that is forgotten.
    pub fn take_removed(&self) -> bool {
        self.0.load(Relaxed) & REMOVED != 0 && self.0.fetch_and(!REMOVED, Relaxed) & REMOVED != 0
    }

    /// Free, and of the next generation, which is returned.
    pub fn free(&self) -> u32 {
        let next = self.generation() + 1;
        self.0.store(word(next, FREE), Release);
        next
    }
}

/// Called between taking a slot for a watcher and the first store to it: a
/// thread that reads the new contents then also finds that the slot is not that
/// of the watcher before (see [`SlotWord::look`]).
#[inline(always)]
pub(in crate::event_loop) fn begin_contents() {
    fence(Release);
}

/// How many slots of a block are to be freed before it can be given back: by
/// the loop that ends, and by senders that it has left some to.
pub(in crate::event_loop) struct Unfreed<'a>(pub &'a AtomicU64);

impl Unfreed<'_> {
    /// More than there are slots in a block.
    const MANY: u64 = 1 << 16;

    /// Before the first one is left to a sender.
    pub fn begin(&self) {
        // Leaving one is a Release.
        self.0.store(Self::MANY, Relaxed);
    }

    /// So many were left; true: none is there any more.
    pub fn are_left(&self, count: u64) -> bool {
        self.take(Self::MANY - count)
    }

    /// One that was left is freed; true: it was the last one.
    pub fn is_last(&self) -> bool {
        self.take(1)
    }

    fn take(&self, count: u64) -> bool {
        // AcqRel: who comes last sees all of them freed.
        self.0.fetch_sub(count, AcqRel) == count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_threads_closes_and_sees_what_the_other_left() {
        for _ in 0..20 {
            let (word, left) = (SlotWord(AtomicU32::new(word(1, LIVE))), AtomicU32::new(0));
            let (own, other) = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    left.store(1, Relaxed);
                    word.close(1)
                });
                let own = word.close(1);
                assert!(own || left.load(Relaxed) == 1);
                (own, other.join().unwrap())
            });
            assert!(own != other && word.state() == CLOSING);
        }
    }
}

#[cfg(all(test, loom))]
#[path = "word_models.rs"]
mod loom_models;
