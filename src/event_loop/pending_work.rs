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

/// Requests for the end of the current callback, and how many of them were
/// answered. Part of the command queue: used with its lock. Who asks leaves its
/// request, then `BARRIER` for the loop, then sets the word; the loop's thread
/// takes the word, then `BARRIER`, then has the lock and answers all that have
/// asked.
#[derive(Default, Clone, Copy)]
pub(super) struct Barrier {
    requested: u64,
    completed: u64,
}

impl Barrier {
    /// The number of a new one.
    pub fn request(&mut self) -> u64 {
        self.requested += 1;
        self.requested
    }

    pub fn is_completed(&self, number: u64) -> bool {
        self.completed >= number
    }

    /// Answers all; whether there were any.
    #[inline(always)]
    pub fn complete(&mut self) -> bool {
        let any = self.completed != self.requested;
        self.completed = self.requested;
        any
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicU64;

    #[test]
    fn what_was_stored_before_the_word_is_found_after_it() {
        let (pending, work) = (PendingWork::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for bit in 0..8 {
                    work.fetch_or(1 << bit, Relaxed);
                    pending.set();
                }
            });
            let mut seen = 0;
            while seen != 0xff {
                if pending.is_set() {
                    pending.take();
                    seen |= work.load(Relaxed);
                } else {
                    std::thread::yield_now();
                }
            }
        });
    }

    #[test]
    fn all_requests_so_far_are_completed_at_once() {
        let mut barrier = Barrier::default();
        let (first, second) = (barrier.request(), barrier.request());
        assert!(!barrier.is_completed(first) && barrier.complete() && !barrier.complete());
        assert!(barrier.is_completed(second) && !barrier.is_completed(barrier.requested + 1));
    }
}

/// A close by another thread, beside other reasons to set the word.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::AtomicU64;
    use loom::sync::{Arc, Condvar, Mutex};
    use loom::thread;

    const CLOSED: u64 = 8;

    #[derive(Clone, Copy, PartialEq)]
    enum CloseVariant {
        AsItIs,
        LooksFirst,
        PlainStores,
    }

    struct Loop {
        pending: PendingWork,
        work: AtomicU64,
        variant: CloseVariant,
    }

    impl Loop {
        fn set(&self) {
            match self.variant {
                CloseVariant::PlainStores => self.pending.0.store(1, Relaxed),
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
            if self.variant == CloseVariant::LooksFirst {
                let closed = is_closed();
                self.pending.take();
                return closed;
            }
            self.pending.take();
            is_closed()
        }
    }

    fn a_close_ends_the_run(variant: CloseVariant) {
        loom::model(move || {
            let shared =
                Arc::new(Loop { pending: PendingWork::new(), work: AtomicU64::new(0), variant });
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
        a_close_ends_the_run(CloseVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "the close is lost")]
    fn loom_twin_a_look_before_the_word_is_taken_loses_a_close() {
        a_close_ends_the_run(CloseVariant::LooksFirst);
    }

    #[test]
    #[should_panic(expected = "the close is lost")]
    fn loom_twin_plain_stores_lose_a_close() {
        a_close_ends_the_run(CloseVariant::PlainStores);
    }

    #[derive(Clone, Copy, PartialEq)]
    enum BarrierVariant {
        AsItIs,
        SetsFirst,
        LooksFirst,
    }

    const BARRIER: u64 = 16;

    struct Callback {
        pending: PendingWork,
        work: AtomicU64,
        command_queue: Mutex<Barrier>,
        completed: Condvar,
        variant: BarrierVariant,
    }

    impl Callback {
        /// As LoopShared::wait_for_callback.
        fn wait_for_its_end(&self) {
            let mut command_queue = self.command_queue.lock().unwrap();
            let number = command_queue.request();
            if self.variant == BarrierVariant::SetsFirst {
                self.pending.set();
                self.work.fetch_or(BARRIER, SeqCst);
            } else {
                self.work.fetch_or(BARRIER, SeqCst);
                self.pending.set();
            }
            while !command_queue.is_completed(number) {
                command_queue = self.completed.wait(command_queue).unwrap();
            }
        }

        /// As RunGuard::run_pending_work, if that is due.
        fn end(&self) {
            if !self.pending.is_set() {
                return;
            }
            let early = self.work.load(Relaxed) & BARRIER != 0;
            self.pending.take();
            let is_requested = match self.variant {
                BarrierVariant::LooksFirst => early,
                _ => self.work.load(Relaxed) & BARRIER != 0,
            };
            if is_requested && self.work.fetch_and(!BARRIER, AcqRel) & BARRIER != 0 {
                let mut command_queue = self.command_queue.lock().unwrap();
                if command_queue.complete() {
                    self.completed.notify_all();
                }
            }
        }
    }

    /// `askers` wait for the end of a callback; the loop calls others after it
    /// until all of them have gone.
    fn all_are_answered(askers: usize, variant: BarrierVariant) {
        loom::model(move || {
            let callback = Arc::new(Callback {
                pending: PendingWork::new(),
                work: AtomicU64::new(0),
                command_queue: Mutex::new(Barrier::default()),
                completed: Condvar::new(),
                variant,
            });
            let askers = (0..askers).map(|_| {
                let callback = callback.clone();
                thread::spawn(move || callback.wait_for_its_end())
            });
            let askers: Vec<_> = askers.collect();
            // The first end may come too early for them. A later one, which
            // sees all that was stored, does not.
            callback.end();
            let all = askers.len() as u64;
            while callback.command_queue.lock().unwrap().requested < all {
                thread::yield_now();
            }
            callback.end();
            let command_queue = callback.command_queue.lock().unwrap();
            assert!(
                command_queue.is_completed(all),
                "a thread waits for the end of a callback for ever"
            );
            drop(command_queue);
            askers.into_iter().for_each(|asker| asker.join().unwrap());
        });
    }

    #[test]
    fn loom_all_who_ask_for_the_end_of_a_callback_are_answered() {
        all_are_answered(2, BarrierVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn loom_twin_a_word_that_is_set_before_the_request_is_left_loses_it() {
        all_are_answered(1, BarrierVariant::SetsFirst);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn loom_twin_a_look_before_the_word_is_taken_loses_a_request() {
        all_are_answered(1, BarrierVariant::LooksFirst);
    }
}
