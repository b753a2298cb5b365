//! The stack of a loop's async watchers that were sent to.
//!
//! It is linked through the watchers' slots and holds the top one. A loop's
//! shared part, and with it its stack, is used again for other loops, so the
//! word carries a tag that changes with each. A sender reads the tag, marks the
//! watcher, then pushes it with that tag: if the loop was closed in between,
//! the push is refused, and the next loop never adopts a watcher of the last.
//!
//! The tag is read before the watcher is marked, and marking fails for a
//! watcher that is closed. A closed loop closes its watchers before the tag
//! changes. So a watcher that was marked is pushed with its own loop's tag.

use crate::sync::{AtomicU64, Ordering::*};

/// The end of the stack, and of nothing.
pub(super) const END_OF_STACK: u32 = 0;

/// Bits of an index into the slots; the tag is above them.
const ID_BITS: u32 = 24;
const ID: u64 = (1 << ID_BITS) - 1;

#[cfg(not(loom))]
const _: () = assert!(crate::handle::MAX_SLOTS as u64 <= ID + 1);

/// The links of the stack: a word of each slot.
pub(super) trait StackLinks {
    fn set_next(&self, id: u32, next: u32);
}

/// tag 40 | index of the top slot 24. Tags come round after 2^40 loops in one
/// place: in 12.7 days if each lived for a microsecond, and making one takes
/// many times as long. A sender would have to stand still for all that time.
pub(super) struct PendingStack(AtomicU64);

impl PendingStack {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    #[inline]
    pub fn tag(&self) -> u64 {
        // The marking that follows is a Release, which no earlier load passes.
        self.0.load(Relaxed) >> ID_BITS
    }

    /// Pushes a slot that is not on the stack; false: the loop of this tag is
    /// gone, and nothing was pushed.
    #[must_use]
    #[inline]
    pub fn push(&self, links: &impl StackLinks, id: u32, tag: u64) -> bool {
        let mut top = self.0.load(Relaxed);
        loop {
            if top >> ID_BITS != tag {
                return false;
            }
            links.set_next(id, (top & ID) as u32);
            let pushed = tag << ID_BITS | u64::from(id);
            // SeqCst: against the wake state's `sleep`; and so a Release, for
            // what was sent.
            match self.0.compare_exchange_weak(top, pushed, SeqCst, Relaxed) {
                Ok(_) => return true,
                Err(now) => top = now,
            }
        }
    }

    #[inline]
    pub fn has_any(&self) -> bool {
        self.0.load(Relaxed) & ID != 0
    }

    /// The same, in one order with the senders' pushes.
    pub fn has_any_in_order(&self) -> bool {
        self.0.load(SeqCst) & ID != 0
    }

    /// Takes the whole stack; its top. Only the loop does this.
    pub fn take(&self) -> u32 {
        if !self.has_any() {
            return END_OF_STACK;
        }
        // Acquire: what the senders wrote. Senders leave the tag as it is.
        (self.0.fetch_and(!ID, AcqRel) & ID) as u32
    }

    /// Takes the whole stack and changes the tag, for a loop whose watchers
    /// are all closed: every later push is refused.
    pub fn close(&self) -> u32 {
        let mut top = self.0.load(Relaxed);
        loop {
            let next = (top >> ID_BITS).wrapping_add(1) << ID_BITS;
            match self.0.compare_exchange_weak(top, next, AcqRel, Relaxed) {
                Ok(_) => return (top & ID) as u32,
                Err(now) => top = now,
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    struct None;

    impl StackLinks for None {
        fn set_next(&self, _: u32, _: u32) {}
    }

    #[test]
    fn a_push_with_the_last_tag_is_refused_when_tags_begin_again() {
        let last = (1 << (u64::BITS - ID_BITS)) - 1;
        let stack = PendingStack(AtomicU64::new((last - 1) << ID_BITS));
        for tag in [last - 1, last, 0, 1] {
            assert_eq!(stack.tag(), tag);
            assert!(stack.push(&None, 7, tag));
            assert_eq!(stack.close(), 7);
            assert!(!stack.push(&None, 7, tag) && !stack.has_any());
        }
    }
}

/// A sender against a loop that is closed and another in its place.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    use loom::thread;

    const LIVE: u32 = 1;
    const CLOSED: u32 = 2;
    const PENDING: u32 = 0x10;
    const ID: u32 = 7;

    /// A loop's shared part, and an async watcher of its first loop.
    struct LoopModel {
        stack: PendingStack,
        word: AtomicU32,
        next: AtomicU32,
        refused: AtomicBool,
    }

    impl StackLinks for LoopModel {
        fn set_next(&self, _: u32, next: u32) {
            self.next.store(next, Ordering::Relaxed);
        }
    }

    impl LoopModel {
        /// As `async_send`.
        fn send(&self, tag_first: bool) {
            let early = self.stack.tag();
            let live = self.word.compare_exchange(
                LIVE,
                LIVE | PENDING,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if live.is_err() {
                return;
            }
            // A read-modify-write: loom does not reorder a plain load with a
            // later store of another thread.
            let late = || self.stack.0.fetch_or(0, Ordering::Relaxed) >> ID_BITS;
            let tag = if tag_first { early } else { late() };
            if !self.stack.push(self, ID, tag) {
                self.word.fetch_and(!PENDING, Ordering::AcqRel);
                self.refused.store(true, Ordering::Relaxed);
            }
        }

        /// As the end of a loop; how many it took off the stack.
        fn tear_down(&self, close_first: bool) -> u32 {
            let close = || {
                let mut seen = self.word.load(Ordering::Relaxed);
                while let Err(now) = self.word.compare_exchange(
                    seen,
                    CLOSED | seen & PENDING,
                    Ordering::AcqRel,
                    Ordering::Relaxed,
                ) {
                    seen = now;
                }
            };
            if close_first {
                close();
            }
            let top = self.stack.close();
            if !close_first {
                close();
            }
            if top == END_OF_STACK {
                return 0;
            }
            self.word.fetch_and(!PENDING, Ordering::AcqRel);
            1
        }
    }

    fn a_late_sender(tag_first: bool, close_first: bool) {
        loom::model(move || {
            let the_loop = Arc::new(LoopModel {
                stack: PendingStack::new(),
                word: AtomicU32::new(LIVE),
                next: AtomicU32::new(END_OF_STACK),
                refused: AtomicBool::new(false),
            });
            let sender = {
                let the_loop = the_loop.clone();
                thread::spawn(move || the_loop.send(tag_first))
            };
            let taken = the_loop.tear_down(close_first);
            sender.join().unwrap();
            // What the next loop finds.
            assert_eq!(
                the_loop.stack.take(),
                END_OF_STACK,
                "the next loop adopts the last one's watcher"
            );
            let refused = the_loop.refused.load(Ordering::Relaxed);
            assert!(!(taken == 1 && refused));
            assert_eq!(the_loop.word.load(Ordering::Relaxed), CLOSED);
        });
    }

    #[test]
    fn loom_a_late_send_never_reaches_the_next_loop() {
        a_late_sender(true, true);
    }

    #[test]
    #[should_panic(expected = "the next loop adopts")]
    fn loom_twin_a_tag_that_is_read_after_the_mark_reaches_the_next_loop() {
        a_late_sender(false, true);
    }

    #[test]
    #[should_panic(expected = "the next loop adopts")]
    fn loom_twin_watchers_that_are_closed_after_the_stack_reach_the_next_loop() {
        a_late_sender(true, false);
    }
}
