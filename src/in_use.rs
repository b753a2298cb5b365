//! Waiting until nothing uses a thing any more, before it is closed or freed.
//!
//! Signal handlers use such things, so that entering and leaving take no lock
//! and wait for nothing. The thread that waits sleeps: with a real-time
//! priority a thread that spun would keep the users from running.

use crate::sync::{AtomicU32, Futex, Ordering::*, model_order};

/// A count of the users of a thing.
///
/// A user first enters, then looks whether the thing is still there, with a
/// sequentially consistent load. The owner first stores, sequentially
/// consistent, that it is gone, then waits. One of the two sees the other.
pub(crate) struct InUse(Futex);

/// The owner waits; the other bits count users.
const WAITED_FOR: u32 = 1 << 31;

/// How often the waiting thread looks before it sleeps: a use is a few dozen
/// instructions and a system call.
const LOOKS: u32 = if cfg!(loom) { 0 } else { 100 };

impl InUse {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self(Futex::new(0))
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self(Futex::new(0))
    }

    #[inline]
    pub fn enter(&self) {
        self.0.word().fetch_add(1, SeqCst);
        model_order();
    }

    #[inline]
    pub fn leave(&self) {
        // Release: pairs with the load in `wait`, so that the use comes
        // before the closing.
        if self.0.word().fetch_sub(1, Release) == WAITED_FOR | 1 {
            self.0.wake_all();
        }
    }

    /// Returns after a moment without users. Only one thread at a time may
    /// wait.
    pub fn wait(&self) {
        model_order();
        for _ in 0..LOOKS {
            if self.0.word().load(SeqCst) == 0 {
                return;
            }
            std::hint::spin_loop();
        }
        loop {
            let seen = self.0.word().fetch_or(WAITED_FOR, SeqCst) | WAITED_FOR;
            if seen == WAITED_FOR {
                break;
            }
            self.0.wait(seen);
        }
        self.0.word().fetch_and(!WAITED_FOR, Relaxed);
    }

    /// Resets the count in a forked child: the users are threads of the parent.
    pub fn forget(&self) {
        self.0.word().store(0, Relaxed);
    }
}

/// Readers of a structure that is changed while they read: the writer frees
/// what it has unlinked after all readers have left that may have seen it.
///
/// There are two sides, so that the writer's wait ends however many readers
/// come: new ones enter one side while the writer waits for the other.
pub(crate) struct Readers {
    side: AtomicU32,
    sides: [InUse; 2],
}

/// A reader inside the structure, until this is dropped.
pub(crate) struct ReadGuard<'a>(&'a InUse);

impl Readers {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { side: AtomicU32::new(0), sides: [InUse::new(), InUse::new()] }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { side: AtomicU32::new(0), sides: [InUse::new(), InUse::new()] }
    }

    fn side(&self, side: u32) -> &InUse {
        let [left, right] = &self.sides;
        if side == 0 { left } else { right }
    }

    /// Enters. The reader follows links with sequentially consistent loads.
    #[inline]
    pub fn enter(&self) -> ReadGuard<'_> {
        // Relaxed: an outdated side is correct, too, as the writer waits for
        // both; it only waits longer.
        let side = self.side(self.side.load(Relaxed));
        side.enter();
        ReadGuard(side)
    }

    /// Returns when all readers have left that may have seen what the writer
    /// unlinked before, with sequentially consistent stores. Only one thread
    /// at a time may wait.
    pub fn wait(&self) {
        let side = self.side.load(Relaxed);
        // Only readers are there that entered with an outdated side.
        self.side(1 - side).wait();
        self.side.store(1 - side, Relaxed);
        self.side(side).wait();
    }

    /// What a twin of a model does in place of [`Self::wait`].
    #[cfg(all(test, loom))]
    pub fn wait_for_one_side(&self) {
        self.side.store(1 - self.side.load(Relaxed), Relaxed);
        self.side(1 - self.side.load(Relaxed)).wait();
    }

    /// Resets the counts in a forked child: the readers are threads of the
    /// parent.
    pub fn forget(&self) {
        self.sides.iter().for_each(InUse::forget);
    }
}

impl Drop for ReadGuard<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::thread;
    use std::sync::atomic::{AtomicBool, AtomicI32};

    fn is_asleep(thread: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/self/task/{thread}/stat"));
        stat.is_ok_and(|stat| stat.contains(") S "))
    }

    #[test]
    fn a_thread_that_waits_for_users_sleeps_until_the_last_one_has_left() {
        let (in_use, waiter, done) = (InUse::new(), AtomicI32::new(0), AtomicBool::new(false));
        in_use.enter();
        in_use.enter();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                waiter.store(thread::id(), SeqCst);
                in_use.wait();
                done.store(true, SeqCst);
            });
            while waiter.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            for _ in 0..2 {
                while !is_asleep(waiter.load(SeqCst)) {
                    std::thread::yield_now();
                }
                assert!(!done.load(SeqCst));
                in_use.leave();
            }
        });
        assert!(done.load(SeqCst));
        in_use.wait();
    }

    #[test]
    fn waiting_for_one_side_does_not_wait_for_readers_of_the_other() {
        let readers = Readers::new();
        for _ in 0..5 {
            let before = readers.enter();
            drop(before);
            readers.wait();
        }
        let _reading = readers.enter();
        readers.side(1 - readers.side.load(SeqCst)).wait();
    }
}

/// Users of a thing, and the owner that closes it.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicI32, UnsafeCell};
    use loom::sync::Arc;
    use loom::thread;

    /// The part of the protocol that a twin leaves out.
    #[derive(Clone, Copy, PartialEq)]
    enum InUseVariant {
        Nothing,
        Waiting,
        Waking,
        /// The Release ordering of leaving.
        Ordering,
        /// Entering before looking.
        Entering,
    }
    use InUseVariant::*;

    /// An eventfd that other threads write to.
    struct ModelWakeup {
        in_use: InUse,
        number: AtomicI32,
        file: UnsafeCell<u32>,
    }

    // SAFETY: loom's cell reports accesses that are not ordered.
    unsafe impl Sync for ModelWakeup {}
    // SAFETY: as above.
    unsafe impl Send for ModelWakeup {}

    impl ModelWakeup {
        fn wake(&self, without: InUseVariant) {
            let early = self.number.load(SeqCst);
            self.in_use.enter();
            let number = if without == Entering { early } else { self.number.load(SeqCst) };
            if number >= 0 {
                self.file.with(|_| {});
            }
            match without {
                Waking => drop(self.in_use.0.word().fetch_sub(1, Release)),
                Ordering => drop(self.in_use.0.word().fetch_sub(1, Relaxed)),
                _ => self.in_use.leave(),
            }
        }

        fn close(&self, without: InUseVariant) {
            self.number.store(-1, SeqCst);
            if without != Waiting {
                self.in_use.wait();
            }
            // As close(2).
            self.file.with_mut(|_| {});
        }
    }

    fn ringing_and_silence(without: InUseVariant) {
        loom::model(move || {
            let wakeup = ModelWakeup {
                in_use: InUse::new(),
                number: AtomicI32::new(3),
                file: UnsafeCell::new(0),
            };
            let wakeup = Arc::new(wakeup);
            let ringers: Vec<_> = (0..2)
                .map(|_| {
                    let wakeup = wakeup.clone();
                    thread::spawn(move || wakeup.wake(without))
                })
                .collect();
            wakeup.close(without);
            ringers.into_iter().for_each(|ringer| ringer.join().unwrap());
        });
    }

    #[test]
    fn loom_an_eventfd_is_not_closed_while_a_thread_writes_to_it() {
        ringing_and_silence(Nothing);
    }

    #[test]
    #[should_panic]
    fn loom_twin_closing_without_waiting_fails() {
        ringing_and_silence(Waiting);
    }

    #[test]
    #[should_panic]
    fn loom_twin_leaving_without_waking_fails() {
        ringing_and_silence(Waking);
    }

    #[test]
    #[should_panic]
    fn loom_twin_leaving_without_release_fails() {
        ringing_and_silence(Ordering);
    }

    #[test]
    #[should_panic]
    fn loom_twin_looking_before_entering_fails() {
        ringing_and_silence(Entering);
    }
}
