//! The eventfd that wakes a loop, and how it is closed while others write.
//!
//! Who writes counts itself first, then looks which eventfd there is; who
//! closes takes the eventfd away first, then looks who is counted. All four are
//! sequentially consistent: one of the two sees the other, so that no write
//! goes to a number that was closed, and may be another file's by then.

use crate::sync::{AtomicI32, AtomicU32, Ordering::*, model_order};
use std::os::fd::RawFd;

pub(super) struct Bell {
    /// -1: none.
    eventfd: AtomicI32,
    /// How many are writing to it.
    ringing: AtomicU32,
}

impl Bell {
    pub fn new() -> Self {
        Self { eventfd: AtomicI32::new(-1), ringing: AtomicU32::new(0) }
    }

    pub fn set(&self, eventfd: RawFd) {
        self.eventfd.store(eventfd, SeqCst);
    }

    /// While it is open, whoever asks.
    pub fn eventfd(&self) -> RawFd {
        self.eventfd.load(Relaxed)
    }

    /// Has the eventfd written to, if there is one.
    pub fn ring(&self, write: impl FnOnce(RawFd)) {
        self.ringing.fetch_add(1, SeqCst);
        model_order();
        let eventfd = self.eventfd.load(SeqCst);
        if eventfd >= 0 {
            write(eventfd);
        }
        // Release: the write comes before the close.
        self.ringing.fetch_sub(1, Release);
    }

    /// Takes the eventfd away: when this returns no thread writes to it, and
    /// it can be closed. `wait`: for a thread that is writing.
    pub fn silence(&self, mut wait: impl FnMut()) {
        self.eventfd.store(-1, SeqCst);
        model_order();
        while self.ringing.load(SeqCst) != 0 {
            wait();
        }
    }

    /// In a forked child, where no other thread is writing.
    pub fn forget_ringing(&self) {
        self.ringing.store(0, Relaxed);
    }
}

/// Two that ring, and one that closes.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        LooksFirst,
        LeavesRelaxed,
        ClosesFirst,
    }

    struct Shared {
        bell: Bell,
        /// The file: whether it was closed.
        file: UnsafeCell<bool>,
    }

    // SAFETY: loom watches the accesses to `file`.
    unsafe impl Sync for Shared {}

    impl Shared {
        fn write(&self) {
            // SAFETY: watched by loom.
            let closed = self.file.with(|file| unsafe { *file });
            assert!(!closed, "a write to a descriptor that was closed");
        }

        fn ring(&self, way: Way) {
            let Bell { eventfd, ringing } = &self.bell;
            match way {
                Way::LooksFirst => {
                    let found = eventfd.load(SeqCst);
                    ringing.fetch_add(1, SeqCst);
                    if found >= 0 {
                        self.write();
                    }
                    ringing.fetch_sub(1, Release);
                }
                Way::LeavesRelaxed => {
                    ringing.fetch_add(1, SeqCst);
                    model_order();
                    if eventfd.load(SeqCst) >= 0 {
                        self.write();
                    }
                    ringing.fetch_sub(1, Relaxed);
                }
                _ => self.bell.ring(|_| self.write()),
            }
        }

        fn close(&self, way: Way) {
            if way != Way::ClosesFirst {
                self.bell.silence(thread::yield_now);
            }
            // SAFETY: watched by loom.
            self.file.with_mut(|file| unsafe { *file = true });
            if way == Way::ClosesFirst {
                self.bell.silence(thread::yield_now);
            }
        }
    }

    fn rings_beside_a_close(ringers: usize, way: Way) {
        loom::model(move || {
            let shared = Arc::new(Shared { bell: Bell::new(), file: UnsafeCell::new(false) });
            shared.bell.set(5);
            let ringers = (0..ringers).map(|_| {
                let shared = shared.clone();
                thread::spawn(move || shared.ring(way))
            });
            let ringers: Vec<_> = ringers.collect();
            shared.close(way);
            ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        });
    }

    #[test]
    fn loom_a_ring_never_writes_to_a_closed_descriptor() {
        rings_beside_a_close(2, Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_look_before_the_count_writes_to_a_closed_descriptor() {
        rings_beside_a_close(1, Way::LooksFirst);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_count_that_is_taken_back_relaxed_does_not_order_the_close() {
        rings_beside_a_close(1, Way::LeavesRelaxed);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_close_before_the_silence_meets_a_write() {
        rings_beside_a_close(1, Way::ClosesFirst);
    }
}
