//! The word that the loop's thread looks at before each callback: something
//! is to be done first. That is a notification of a closed watcher, a thread
//! that waits for the end of a callback, or the end of the loop.

use crate::sync::{AtomicU32, Ordering::*};

pub(super) struct PendingWork(AtomicU32);

impl PendingWork {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Says that there is something to be done. What it is was stored before.
    pub fn set(&self) {
        // Release: the loop's thread, which takes the word first, then sees
        // what it is. A read-modify-write, by the loop's own thread too: a
        // plain store in between would hide an earlier one from `take`.
        self.0.swap(1, Release);
    }

    #[inline(always)]
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    /// Takes the word. The loop's thread looks for what is to be done after
    /// this, never before: what comes in between sets the word again.
    pub fn take(&self) {
        // Acquire: pairs with every `set` so far.
        self.0.swap(0, Acquire);
    }
}

/// A close by another thread, beside other reasons to set the word.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::AtomicU64;
    use loom::sync::Arc;
    use loom::thread;

    const CLOSED: u64 = 8;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        LooksFirst,
        PlainStores,
    }

    struct Loop {
        pending: PendingWork,
        work: AtomicU64,
        way: Way,
    }

    impl Loop {
        fn set(&self) {
            match self.way {
                Way::PlainStores => self.pending.0.store(1, Relaxed),
                _ => self.pending.set(),
            }
        }

        /// As evloop_close by another thread.
        fn close(&self) {
            self.work.fetch_or(CLOSED, SeqCst);
            self.set();
        }

        /// Before a callback; whether the run ends.
        fn ends(&self) -> bool {
            let is_closed = || self.work.load(Relaxed) & CLOSED != 0;
            if !self.pending.is_set() {
                return false;
            }
            if self.way == Way::LooksFirst {
                let closed = is_closed();
                self.pending.take();
                return closed;
            }
            self.pending.take();
            is_closed()
        }
    }

    fn a_close_ends_the_run(way: Way) {
        loom::model(move || {
            let shared =
                Arc::new(Loop { pending: PendingWork::new(), work: AtomicU64::new(0), way });
            let closer = {
                let shared = shared.clone();
                thread::spawn(move || shared.close())
            };
            // The callback's own reason, such as a closed watcher.
            shared.set();
            let mut ended = shared.ends() || shared.ends();
            closer.join().unwrap();
            ended |= shared.ends();
            assert!(ended, "the close is lost: the run goes on for ever");
        });
    }

    #[test]
    fn loom_a_close_beside_other_work_ends_the_run() {
        a_close_ends_the_run(Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "the close is lost")]
    fn loom_twin_a_look_before_the_word_is_taken_loses_a_close() {
        a_close_ends_the_run(Way::LooksFirst);
    }

    #[test]
    #[should_panic(expected = "the close is lost")]
    fn loom_twin_plain_stores_lose_a_close() {
        a_close_ends_the_run(Way::PlainStores);
    }
}
