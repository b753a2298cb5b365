//! The listeners of an object, and whether it is closed.
//!
//! A thread that waits adds itself first, then looks whether the object is
//! closed, then waits; it removes itself before it closes what it is woken by.
//! The closing thread first stores that, then wakes all that are in the list.
//! The list's lock orders the two: a waiting thread sees that the object is
//! closed, or is woken.

use crate::sync::{AtomicBool, ForkMutex, Ordering};
use crate::util::alloc::{NoMemory, TryVec};

/// `L`: a listener.
pub(super) struct ListenerList<L> {
    listeners: ForkMutex<Vec<L>>,
    closed: AtomicBool,
}

#[cfg_attr(loom, allow(dead_code))]
impl<L: Copy> ListenerList<L> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { listeners: ForkMutex::new(Vec::new()), closed: AtomicBool::new(false) }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { listeners: ForkMutex::new(Vec::new()), closed: AtomicBool::new(false) }
    }

    pub fn add(&self, listener: L) -> Result<(), NoMemory> {
        self.listeners.lock().try_push(listener).map_err(|_| NoMemory)
    }

    /// Takes out one that was added.
    pub fn remove(&self, is: impl Fn(L) -> bool) {
        let mut listeners = self.listeners.lock();
        if let Some(index) = listeners.iter().position(|listener| is(*listener)) {
            listeners.swap_remove(index);
        }
    }

    /// Wakes all of them.
    pub fn wake(&self, wake: impl Fn(L)) {
        // Under the lock: a thread takes itself out before it closes what it
        // is woken by.
        self.listeners.lock().iter().for_each(|listener| wake(*listener));
    }

    /// Says that the object is closed, and wakes all.
    pub fn close(&self, wake: impl Fn(L)) {
        // Release, and Acquire in `is_closed`: a thread that comes back for
        // this sees what the closer did before.
        self.closed.store(true, Ordering::Release);
        self.wake(wake);
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
        unsafe { self.listeners.remake(Vec::new()) };
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::AtomicU32;

    #[test]
    fn a_thread_that_waits_sees_the_close_or_is_woken() {
        for _ in 0..20 {
            let (list, woken) = (ListenerList::new(), AtomicU32::new(0));
            let sleeps = std::thread::scope(|scope| {
                let waiter = scope.spawn(|| {
                    list.add(1).unwrap();
                    !list.is_closed()
                });
                list.close(|_| {
                    woken.fetch_add(1, Ordering::Relaxed);
                });
                waiter.join().unwrap()
            });
            assert!(!sleeps || woken.load(Ordering::Relaxed) == 1);
            list.remove(|listener| listener == 1);
            list.close(|_| unreachable!("it was taken out"));
        }
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
    enum WaitVariant {
        AsItIs,
        LooksFirst,
        RingsFirst,
        RingsWithoutTheLock,
    }

    const LISTENER: u32 = 0;

    struct ModelObject {
        list: ListenerList<u32>,
        /// How often the thread was woken.
        woken: AtomicU32,
        /// What it is woken by: whether it was closed.
        file: UnsafeCell<bool>,
        variant: WaitVariant,
    }

    // SAFETY: loom watches the accesses to `file`.
    unsafe impl Sync for ModelObject {}

    impl ModelObject {
        fn wake_thread(&self) {
            // SAFETY: watched by loom.
            assert!(!self.file.with(|file| unsafe { *file }), "a closed descriptor is rung");
            self.woken.fetch_add(1, Ordering::Release);
        }

        /// Whether it goes to sleep.
        fn wait(&self) -> bool {
            let early = self.list.is_closed();
            self.list.add(LISTENER).unwrap();
            let is_closed = match self.variant {
                WaitVariant::LooksFirst => early,
                _ => self.list.is_closed(),
            };
            !is_closed
        }

        /// The thread comes back and ends.
        fn end(&self) {
            self.list.remove(|listener| listener == LISTENER);
            // SAFETY: watched by loom.
            self.file.with_mut(|file| unsafe { *file = true });
        }

        fn close(&self) {
            match self.variant {
                WaitVariant::RingsFirst => {
                    self.list.wake(|_| self.wake_thread());
                    self.list.closed.store(true, Ordering::Release);
                }
                WaitVariant::RingsWithoutTheLock => {
                    self.list.closed.store(true, Ordering::Release);
                    let all = self.list.listeners.lock().clone();
                    all.iter().for_each(|_| self.wake_thread());
                }
                _ => self.list.close(|_| self.wake_thread()),
            }
        }
    }

    fn shared(variant: WaitVariant) -> Arc<ModelObject> {
        let (woken, file) = (AtomicU32::new(0), UnsafeCell::new(false));
        Arc::new(ModelObject { list: ListenerList::new(), woken, file, variant })
    }

    fn a_wait_beside_a_close(variant: WaitVariant) {
        loom::model(move || {
            let shared = shared(variant);
            let waiter = {
                let shared = shared.clone();
                thread::spawn(move || shared.wait())
            };
            shared.close();
            let sleeps = waiter.join().unwrap();
            let woken = shared.woken.load(Ordering::Acquire) > 0;
            assert!(!sleeps || woken, "a thread waits in a closed object for ever");
        });
    }

    #[test]
    fn loom_a_thread_that_waits_in_a_closed_object_is_rung() {
        a_wait_beside_a_close(WaitVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn loom_twin_a_look_before_the_thread_is_added_misses_a_close() {
        a_wait_beside_a_close(WaitVariant::LooksFirst);
    }

    #[test]
    #[should_panic(expected = "for ever")]
    fn loom_twin_a_ring_before_the_close_is_said_is_missed() {
        a_wait_beside_a_close(WaitVariant::RingsFirst);
    }

    fn an_end_beside_a_close(variant: WaitVariant) {
        loom::model(move || {
            let shared = shared(variant);
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
    fn loom_the_epoll_of_a_thread_that_ends_is_not_rung() {
        an_end_beside_a_close(WaitVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_ring_without_the_lock_meets_a_closed_epoll() {
        an_end_beside_a_close(WaitVariant::RingsWithoutTheLock);
    }
}
