//! A list that signal handlers walk while other threads change it.
//!
//! Walking takes no lock. Changes are made under the lock of the module; an
//! node that was removed keeps its link, so that a handler that stands on it
//! gets on, and is freed when no handler can stand on it any more.

use crate::in_use::Readers;
use crate::sync::{AtomicPtr, Ordering::*};
use std::ptr::{self, NonNull};

pub(super) struct HandlerListNode<T> {
    next: AtomicPtr<HandlerListNode<T>>,
    /// Only used under the lock.
    before: AtomicPtr<HandlerListNode<T>>,
    pub value: T,
}

pub(super) struct HandlerList<T> {
    first: AtomicPtr<HandlerListNode<T>>,
}

impl<T> HandlerListNode<T> {
    pub fn new(value: T) -> Self {
        let (next, before) = (AtomicPtr::new(ptr::null_mut()), AtomicPtr::new(ptr::null_mut()));
        Self { next, before, value }
    }
}

impl<T> HandlerList<T> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { first: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Inserts a node at the front.
    ///
    /// # Safety
    /// The caller has the lock. The node is valid and in no list, and stays
    /// valid until it was removed.
    pub unsafe fn insert(&self, node: NonNull<HandlerListNode<T>>) {
        let next = self.first.load(Relaxed);
        // SAFETY: valid, by this function's contract.
        let one = unsafe { node.as_ref() };
        one.next.store(next, Relaxed);
        one.before.store(ptr::null_mut(), Relaxed);
        // SAFETY: null, or a node of the list, valid by the contract.
        if let Some(next) = unsafe { next.as_ref() } {
            next.before.store(node.as_ptr(), Relaxed);
        }
        // Release: a handler that finds it finds all of it.
        self.first.store(node.as_ptr(), Release);
    }

    /// Removes a node, and waits until no handler can see it any more.
    ///
    /// # Safety
    /// The caller has the lock. The node was inserted into this list.
    pub unsafe fn remove(&self, node: NonNull<HandlerListNode<T>>, readers: &Readers) {
        // SAFETY: this function's contract.
        unsafe { self.unlink(node) };
        readers.wait();
    }

    /// # Safety
    /// As [`Self::remove`].
    unsafe fn unlink(&self, node: NonNull<HandlerListNode<T>>) {
        // SAFETY: in the list, so it is valid.
        let one = unsafe { node.as_ref() };
        let (next, before) = (one.next.load(Relaxed), one.before.load(Relaxed));
        // SAFETY: null, or a node of the list.
        let link = unsafe { before.as_ref() }.map_or(&self.first, |before| &before.next);
        // SeqCst: against `Readers::enter`; and a Release, as the next node
        // may not have been seen there before.
        link.store(next, SeqCst);
        // SAFETY: null, or a node of the list.
        if let Some(next) = unsafe { next.as_ref() } {
            next.before.store(before, Relaxed);
        }
    }

    /// Visits all nodes.
    ///
    /// # Safety
    /// No node is freed before the caller is through: it has entered the
    /// readers, or the thread that frees one waits for it in another way.
    pub unsafe fn each(&self, mut visit: impl FnMut(&T)) {
        let mut cursor = self.first.load(SeqCst);
        // SAFETY: null, or a node that is not freed before the caller left.
        while let Some(node) = unsafe { cursor.as_ref() } {
            visit(&node.value);
            cursor = node.next.load(SeqCst);
        }
    }

    /// Forgets all nodes, in a forked child: they are the parent's.
    pub fn forget(&self) {
        self.first.store(ptr::null_mut(), Relaxed);
    }
}

/// Handlers that walk a list while its nodes come and go.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum ListVariant {
        Nothing,
        /// Waiting for handlers before a node is freed.
        Waiting,
        /// Waiting for the handlers of one of the two sides.
        OtherSide,
    }

    struct ModelSubscriber(UnsafeCell<u32>);

    struct ModelSignal {
        list: HandlerList<ModelSubscriber>,
        readers: Readers,
        lock: Mutex<()>,
    }

    fn subscriber() -> HandlerListNode<ModelSubscriber> {
        HandlerListNode::new(ModelSubscriber(UnsafeCell::new(0)))
    }

    impl ModelSignal {
        /// A handler: it looks at each subscriber.
        fn arrives(&self) {
            let _reading = self.readers.enter();
            // SAFETY: the readers were entered.
            unsafe { self.list.each(|one| one.0.with(|_| {})) };
        }

        fn insert(&self, node: &HandlerListNode<ModelSubscriber>) {
            let _locked = self.lock.lock().unwrap();
            // SAFETY: with the lock; the node outlives its time in the list.
            unsafe { self.list.insert(NonNull::from(node)) };
        }

        fn remove(&self, node: &HandlerListNode<ModelSubscriber>, without: ListVariant) {
            let _locked = self.lock.lock().unwrap();
            // SAFETY: as above; freeing is a write, which loom compares with
            // the handlers' reads.
            unsafe { self.list.unlink(NonNull::from(node)) };
            match without {
                Nothing => self.readers.wait(),
                Waiting => {}
                OtherSide => self.readers.wait_for_one_side(),
            }
            node.value.0.with_mut(|_| {});
        }
    }

    use ListVariant::*;

    /// What the closing thread does to two subscribers.
    fn model(handlers: usize, without: ListVariant) {
        loom::model(move || {
            let entries = Arc::new([subscriber(), subscriber()]);
            let signal = ModelSignal {
                list: HandlerList::new(),
                readers: Readers::new(),
                lock: Mutex::new(()),
            };
            let signal = Arc::new(signal);
            entries.iter().for_each(|node| signal.insert(node));
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
