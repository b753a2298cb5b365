//! A list that signal handlers walk while other threads change it.
//!
//! Walking takes no lock. Changes are made under the lock of the module; an
//! entry that was removed keeps its link, so that a handler that stands on it
//! gets on, and is freed when no handler can stand on it any more.

use crate::in_use::Readers;
use crate::sync::{AtomicPtr, Ordering::*};
use std::ptr::{self, NonNull};

pub(super) struct Entry<T> {
    next: AtomicPtr<Entry<T>>,
    /// Only used under the lock.
    before: AtomicPtr<Entry<T>>,
    pub value: T,
}

pub(super) struct List<T> {
    first: AtomicPtr<Entry<T>>,
}

impl<T> Entry<T> {
    pub fn new(value: T) -> Self {
        let (next, before) = (AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut()));
        Self { next, before, value }
    }
}

impl<T> List<T> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Inserts an entry at the front.
    ///
    /// # Safety
    /// The caller has the lock. The entry is valid and in no list, and stays
    /// valid until it was removed.
    pub unsafe fn insert(&self, entry: NonNull<Entry<T>>) {
        let next = self.first.load(Relaxed);
        // SAFETY: valid, by this function's contract.
        let one = unsafe { entry.as_ref() };
        one.next.store(next, Relaxed);
        one.before.store(ptr::null_mut(), Relaxed);
        // SAFETY: null, or an entry of the list, valid by the contract.
        if let Some(next) = unsafe { next.as_ref() } {
            next.before.store(entry.as_ptr(), Relaxed);
        }
        // Release: a handler that finds it finds all of it.
        self.first.store(entry.as_ptr(), Release);
    }

    /// Removes an entry, and waits until no handler can see it any more.
    ///
    /// # Safety
    /// The caller has the lock. The entry was inserted into this list.
    pub unsafe fn remove(&self, entry: NonNull<Entry<T>>, readers: &Readers) {
        // SAFETY: this function's contract.
        unsafe { self.unlink(entry) };
        readers.wait();
    }

    /// # Safety
    /// As [`Self::remove`].
    unsafe fn unlink(&self, entry: NonNull<Entry<T>>) {
        // SAFETY: in the list, so it is valid.
        let one = unsafe { entry.as_ref() };
        let (next, before) = (one.next.load(Relaxed), one.before.load(Relaxed));
        // SAFETY: null, or an entry of the list.
        let link = unsafe { before.as_ref() }.map_or(&self.first, |before| &before.next);
        // SeqCst: against `Readers::enter`; and a Release, as the next entry
        // may not have been seen there before.
        link.store(next, SeqCst);
        // SAFETY: null, or an entry of the list.
        if let Some(next) = unsafe { next.as_ref() } {
            next.before.store(before, Relaxed);
        }
    }

    /// Visits all entries.
    ///
    /// # Safety
    /// No entry is freed before the caller is through: it has entered the
    /// readers, or the thread that frees one waits for it in another way.
    pub unsafe fn each(&self, mut visit: impl FnMut(&T)) {
        let mut at = self.first.load(SeqCst);
        // SAFETY: null, or an entry that is not freed before the caller left.
        while let Some(entry) = unsafe { at.as_ref() } {
            visit(&entry.value);
            at = entry.next.load(SeqCst);
        }
    }

    /// Forgets all entries, in a forked child: they are the parent's.
    pub fn forget(&self) {
        self.first.store(ptr::null_mut(), Relaxed);
    }
}

/// Handlers that walk a list while its entries come and go.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum Without {
        Nothing,
        /// Waiting for handlers before an entry is freed.
        Waiting,
        /// Waiting for the handlers of one of the two sides.
        OtherSide,
    }

    struct Subscriber(UnsafeCell<u32>);

    struct Signal {
        list: List<Subscriber>,
        readers: Readers,
        lock: Mutex<()>,
    }

    fn subscriber() -> Entry<Subscriber> {
        Entry::new(Subscriber(UnsafeCell::new(0)))
    }

    impl Signal {
        /// A handler: it looks at each subscriber.
        fn arrives(&self) {
            let _reading = self.readers.enter();
            // SAFETY: the readers were entered.
            unsafe { self.list.each(|one| one.0.with(|_| {})) };
        }

        fn insert(&self, entry: &Entry<Subscriber>) {
            let _locked = self.lock.lock().unwrap();
            // SAFETY: with the lock; the entry outlives its time in the list.
            unsafe { self.list.insert(NonNull::from(entry)) };
        }

        fn remove(&self, entry: &Entry<Subscriber>, without: Without) {
            let _locked = self.lock.lock().unwrap();
            // SAFETY: as above; freeing is a write, which loom compares with
            // the handlers' reads.
            unsafe { self.list.unlink(NonNull::from(entry)) };
            match without {
                Nothing => self.readers.wait(),
                Waiting => {}
                OtherSide => self.readers.wait_for_one_side(),
            }
            entry.value.0.with_mut(|_| {});
        }
    }

    use Without::*;

    /// What the closing thread does to two subscribers.
    fn model(handlers: usize, without: Without) {
        loom::model(move || {
            let entries = Arc::new([subscriber(), subscriber()]);
            let signal =
                Signal { list: List::new(), readers: Readers::new(), lock: Mutex::new(()) };
            let signal = Arc::new(signal);
            entries.iter().for_each(|entry| signal.insert(entry));
            let handlers: Vec<_> = (0..handlers)
                .map(|_| {
                    let (signal, entries) = (signal.clone(), entries.clone());
                    thread::spawn(move || {
                        signal.arrives();
                        drop(entries);
                    })
                })
                .collect();
            let [first, second] = &*entries;
            signal.remove(first, without);
            signal.remove(second, without);
            handlers.into_iter().for_each(|handler| handler.join().unwrap());
            assert!(signal.list.first.load(Relaxed).is_null());
        });
    }

    #[test]
    fn loom_no_subscriber_is_freed_under_a_handler() {
        model(1, Nothing);
    }

    #[test]
    fn loom_no_subscriber_is_freed_under_two_handlers() {
        model(2, Nothing);
    }

    #[test]
    #[should_panic]
    fn loom_twin_freeing_without_waiting_fails() {
        model(1, Waiting);
    }

    #[test]
    #[should_panic]
    fn loom_twin_waiting_for_one_side_fails() {
        model(1, OtherSide);
    }
}
