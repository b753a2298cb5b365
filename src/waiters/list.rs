//! The eventfds of an object's waiting threads, and whether it is closed.
//!
//! A thread that waits adds its eventfd first, then looks whether the object
//! is closed, then waits; it removes it before it closes it. Who closes the
//! object says so first, then rings all that are in the list. The list's lock
//! orders the two: the waiting thread sees that it is closed, or is rung.

use crate::sync::{AtomicBool, ForkMutex, Ordering};
use crate::util::alloc::{NoMemory, TryVec};
use std::os::fd::RawFd;

pub(super) struct List {
    eventfds: ForkMutex<Vec<RawFd>>,
    closed: AtomicBool,
}

#[cfg_attr(loom, allow(dead_code))]
impl List {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { eventfds: ForkMutex::new(Vec::new()), closed: AtomicBool::new(false) }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { eventfds: ForkMutex::new(Vec::new()), closed: AtomicBool::new(false) }
    }

    pub fn add(&self, eventfd: RawFd) -> Result<(), NoMemory> {
        self.eventfds.lock().try_push(eventfd).map_err(|_| NoMemory)
    }

    /// Takes out one that was added.
    pub fn remove(&self, eventfd: RawFd) {
        let mut eventfds = self.eventfds.lock();
        if let Some(place) = eventfds.iter().position(|fd| *fd == eventfd) {
            eventfds.swap_remove(place);
        }
    }

    /// Rings all of them.
    pub fn wake(&self, ring: impl Fn(RawFd)) {
        // Under the lock: a thread takes its eventfd out before closing it.
        for fd in self.eventfds.lock().iter() {
            ring(*fd);
        }
    }

    /// Says that the object is closed, and rings all.
    pub fn close(&self, ring: impl Fn(RawFd)) {
        // Release, and Acquire in `is_closed`: a thread that comes back for
        // this sees what the closer did before.
        self.closed.store(true, Ordering::Release);
        self.wake(ring);
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Forgets all of them, in a forked child.
    ///
    /// # Safety
    /// As [`ForkMutex::remake`].
    pub unsafe fn forget(&self) {
        // SAFETY: this function's contract is the same.
        unsafe { self.eventfds.remake(Vec::new()) };
    }
}

/// Waiting threads beside a close, and beside a thread that ends.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicU32, UnsafeCell};
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        LooksFirst,
        RingsFirst,
        RingsWithoutTheLock,
    }

    const EVENTFD: RawFd = 0;

    struct Shared {
        list: List,
        /// How often the eventfd was rung.
        rung: AtomicU32,
        /// Its file: whether it was closed.
        file: UnsafeCell<bool>,
        way: Way,
    }

    // SAFETY: loom watches the accesses to `file`.
    unsafe impl Sync for Shared {}

    impl Shared {
        fn ring(&self) {
            // SAFETY: watched by loom.
            assert!(!self.file.with(|file| unsafe { *file }), "a closed descriptor is rung");
            self.rung.fetch_add(1, Ordering::Release);
        }

        /// Whether it goes to sleep.
        fn wait(&self) -> bool {
            let early = self.list.is_closed();
            self.list.add(EVENTFD).unwrap();
            let is_closed = match self.way {
                Way::LooksFirst => early,
                _ => self.list.is_closed(),
            };
            !is_closed
        }

        /// The thread comes back and ends.
        fn end(&self) {
            self.list.remove(EVENTFD);
            // SAFETY: watched by loom.
            self.file.with_mut(|file| unsafe { *file = true });
        }

        fn close(&self) {
            match self.way {
                Way::RingsFirst => {
                    self.list.wake(|_| self.ring());
                    self.list.closed.store(true, Ordering::Release);
                }
                Way::RingsWithoutTheLock => {
                    self.list.closed.store(true, Ordering::Release);
                    let all = self.list.eventfds.lock().clone();
                    all.iter().for_each(|_| self.ring());
                }
                _ => self.list.close(|_| self.ring()),
            }
        }
    }

    fn shared(way: Way) -> Arc<Shared> {
        let (rung, file) = (AtomicU32::new(0), UnsafeCell::new(false));
        Arc::new(Shared { list: List::new(), rung, file, way })
    }

    fn a_wait_beside_a_close(way: Way) {
        loom::model(move || {
            let shared = shared(way);
            let waiter = {
                let shared = shared.clone();
                thread::spawn(move || shared.wait())
            };
            shared.close();
            let sleeps = waiter.join().unwrap();
            let rung = shared.rung.load(Ordering::Acquire) > 0;
            assert!(!sleeps || rung, "a thread waits in a closed object for ever");
        });
    }

    #[test]
    fn loom_a_thread_that_waits_in_a_closed_object_is_rung() {
        a_wait_beside_a_close(Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn loom_twin_a_look_before_the_eventfd_is_added_misses_a_close() {
        a_wait_beside_a_close(Way::LooksFirst);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn loom_twin_a_ring_before_the_close_is_said_is_missed() {
        a_wait_beside_a_close(Way::RingsFirst);
    }

    fn an_end_beside_a_close(way: Way) {
        loom::model(move || {
            let shared = shared(way);
            let waiter = {
                let shared = shared.clone();
                thread::spawn(move || {
                    shared.wait();
                    shared.end();
                })
            };
            shared.close();
            waiter.join().unwrap();
        });
    }

    #[test]
    fn loom_the_eventfd_of_a_thread_that_ends_is_not_rung() {
        an_end_beside_a_close(Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_ring_without_the_lock_meets_a_closed_eventfd() {
        an_end_beside_a_close(Way::RingsWithoutTheLock);
    }
}
