//! Whose a loop is at the moment.
//!
//! It belongs to the thread that runs it: that one uses it without a lock, in
//! callbacks too. While nobody runs it, it belongs to whoever holds the lock
//! of the gate, where others leave what they want while somebody does.
//! Starting and ending a run take the lock once each: that is the whole
//! hand-over.

use crate::sync::{AtomicPtr, AtomicUsize, ForkMutex, LineBreak, MutexGuard, Ordering::Relaxed};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// What the loop's thread reads in each call that a callback makes is apart
/// from the lock that others take.
#[repr(C)]
pub(super) struct Lease<C, G> {
    /// The thread that runs the loop; 0: none.
    thread: AtomicUsize,
    /// Made of a box; null: none. All borrows of the core come from this one
    /// pointer, so that none of them ends the others: a run keeps a copy while
    /// its callbacks make calls that borrow the core, too.
    core: AtomicPtr<C>,
    /// Borrowed with the core, for loom to see.
    #[cfg(loom)]
    borrow: crate::sync::UnsafeCell<()>,
    owns: PhantomData<Box<C>>,
    _others: LineBreak,
    gate: ForkMutex<Locked<G>>,
}

// SAFETY: the core is borrowed by one thread at a time (contract of `with` and
// `pointer`), on whichever thread has the lease: it goes from one to the other
// (C: Send), and is never shared. The gate is in a mutex.
unsafe impl<C: Send, G: Send> Sync for Lease<C, G> {}

/// The gate, and whether somebody runs the loop.
#[derive(Default)]
pub(super) struct Locked<G> {
    pub running: bool,
    gate: G,
}

impl<G> Deref for Locked<G> {
    type Target = G;

    fn deref(&self) -> &G {
        &self.gate
    }
}

impl<G> DerefMut for Locked<G> {
    fn deref_mut(&mut self) -> &mut G {
        &mut self.gate
    }
}

impl<C, G: Default> Lease<C, G> {
    pub fn new() -> Self {
        Self {
            thread: AtomicUsize::new(0),
            core: AtomicPtr::new(ptr::null_mut()),
            #[cfg(loom)]
            borrow: crate::sync::UnsafeCell::new(()),
            owns: PhantomData,
            _others: LineBreak,
            gate: ForkMutex::new(Locked { running: false, gate: G::default() }),
        }
    }

    /// Whether a thread runs the loop; a thread asks for itself only.
    #[inline(always)]
    pub fn is_run_by(&self, thread: usize) -> bool {
        // No other thread stores this thread's number, so a thread that finds it here
        // has begun a run and not ended it. Others may only take it away, when
        // they close the loop (`withdraw`): whether that is seen at once does
        // not matter, as the core stays until the run has ended. So no order
        // with anything else is needed.
        self.thread.load(Relaxed) == thread
    }

    pub fn lock(&self) -> MutexGuard<'_, Locked<G>> {
        self.gate.lock()
    }

    #[cfg(not(loom))]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Locked<G>>> {
        self.gate.try_lock()
    }

    /// Begins a run, with the lock; false: somebody runs the loop.
    #[must_use]
    pub fn begin(&self, gate: &mut Locked<G>, thread: usize) -> bool {
        if gate.running {
            return false;
        }
        gate.running = true;
        self.thread.store(thread, Relaxed);
        true
    }

    /// Ends a run, with the lock; from here on that is what the core needs.
    pub fn end(&self, gate: &mut Locked<G>) {
        self.thread.store(0, Relaxed);
        gate.running = false;
    }

    /// The thread that runs the loop is to use it like any other from now on.
    pub fn withdraw(&self) {
        self.thread.store(0, Relaxed);
    }

    /// In a forked child, the thread that ran the loop goes on to.
    pub fn take_over(&self, thread: usize) {
        self.thread.store(thread, Relaxed);
    }

    /// Borrows the loop itself, if there is one, for as long as `act` takes.
    ///
    /// # Safety
    /// The caller runs the loop, or has the lock while nobody does; and no
    /// other borrow of the core is in use before this one has ended. So `act`
    /// runs none of the program's code, which may make calls that borrow it.
    #[inline(always)]
    pub unsafe fn with<R>(&self, act: impl FnOnce(&mut C) -> R) -> Option<R> {
        #[cfg(loom)]
        let _borrow = self.borrow.get_mut();
        // SAFETY: null, or made of a box that lives until `replace`; the rest
        // is this function's contract.
        unsafe { self.core.load(Relaxed).as_mut() }.map(act)
    }

    /// Where the loop is, for the thread that runs it: valid until it is replaced. Borrows
    /// that are made of it have the contract of [`Self::with`].
    pub fn pointer(&self) -> Option<NonNull<C>> {
        NonNull::new(self.core.load(Relaxed))
    }

    /// Puts another loop in, or none; the one before.
    ///
    /// # Safety
    /// As [`Self::with`].
    pub unsafe fn replace(&self, core: Option<Box<C>>) -> Option<Box<C>> {
        let fresh = core.map_or(ptr::null_mut(), Box::into_raw);
        #[cfg(loom)]
        let _borrow = self.borrow.get_mut();
        let before = self.core.swap(fresh, Relaxed);
        // SAFETY: made of a box by this function, and no longer borrowed (its
        // contract).
        (!before.is_null()).then(|| unsafe { Box::from_raw(before) })
    }

    /// Sets the lock right in a forked child; as [`ForkMutex::recover`].
    ///
    /// # Safety
    /// As that.
    #[cfg(not(loom))]
    pub unsafe fn recover(&self, mend: impl FnOnce(Option<&mut Locked<G>>) -> Option<Locked<G>>) {
        // SAFETY: this function's contract is the same.
        unsafe { self.gate.recover(mend) };
    }
}

impl<C, G> Drop for Lease<C, G> {
    fn drop(&mut self) {
        let core = self.core.load(Relaxed);
        if !core.is_null() {
            // SAFETY: made of a box by `replace`; no other thread is here.
            drop(unsafe { Box::from_raw(core) });
        }
    }
}

/// What Miri finds to be undefined unless all borrows come from one pointer.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Model = Lease<Vec<u32>, Vec<u32>>;

    /// As a run of a loop, with a callback after each use of the core.
    fn run(lease: &Model, me: usize, callback: impl Fn(u32)) -> usize {
        assert!(lease.begin(&mut lease.lock(), me));
        let Some(mut core) = lease.pointer() else { return 0 };
        for turn in 0..3 {
            // SAFETY: this thread runs the loop, and this is used no more once
            // the callback runs.
            unsafe { core.as_mut() }.push(turn);
            callback(turn);
        }
        // SAFETY: as above.
        let len = unsafe { core.as_ref() }.len();
        lease.end(&mut lease.lock());
        len
    }

    #[test]
    fn a_run_goes_on_with_the_core_that_its_callbacks_have_changed() {
        let lease = Model::new();
        // SAFETY: no other thread has it.
        unsafe { lease.replace(Some(Box::default())) };
        let callback = |turn| {
            assert!(lease.is_run_by(1) && !lease.is_run_by(2));
            // SAFETY: this thread runs the loop, and the run borrows nothing.
            unsafe { lease.with(|core| core.push(turn + 10)) }.unwrap();
        };
        assert_eq!(run(&lease, 1, callback), 6);
        // SAFETY: no thread runs it.
        let core = unsafe { lease.replace(None) };
        assert_eq!(core.as_deref(), Some(&vec![0, 10, 1, 11, 2, 12]));
        assert!(lease.pointer().is_none());
    }

    #[test]
    fn the_core_goes_from_thread_to_thread_with_the_runs() {
        let lease = Model::new();
        // SAFETY: no other thread has it.
        unsafe { lease.replace(Some(Box::default())) };
        std::thread::scope(|scope| {
            scope.spawn(|| run(&lease, 1, |_| {})).join().unwrap();
            scope.spawn(|| run(&lease, 2, |_| {})).join().unwrap();
        });
        let _gate = lease.lock();
        // SAFETY: no thread runs it, and this one has the lock.
        assert_eq!(unsafe { lease.with(|core| core.len()) }, Some(6));
    }
}

/// Runs that begin and end, and calls from threads that do not run the loop.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// What was asked for, and what was done.
    type Asked = Vec<u32>;
    type Model = Lease<Asked, Asked>;

    fn model() -> Arc<Model> {
        let lease = Model::new();
        // SAFETY: no other thread has it.
        unsafe { lease.replace(Some(Box::default())) };
        Arc::new(lease)
    }

    /// As every call on a watcher does it.
    fn call(lease: &Model, me: usize, what: u32) {
        if lease.is_run_by(me) {
            // SAFETY: this thread runs the loop.
            return unsafe { lease.with(|core| core.push(what)) }.unwrap();
        }
        let mut gate = lease.lock();
        if gate.running {
            return gate.push(what);
        }
        // SAFETY: no thread runs it, and this one has the lock.
        unsafe { lease.with(|core| core.push(what)) }.unwrap();
    }

    /// A run with one callback, which makes one call; false: it was busy.
    fn run(lease: &Model, me: usize, what: u32) -> bool {
        if !lease.begin(&mut lease.lock(), me) {
            return false;
        }
        call(lease, me, what);
        let mut gate = lease.lock();
        // SAFETY: this thread runs the loop.
        unsafe { lease.with(|core| core.append(&mut gate)) }.unwrap();
        lease.end(&mut gate);
        true
    }

    /// loom reports it if two threads are in the core at once.
    #[test]
    fn loom_runs_and_calls_never_meet_in_the_core_and_nothing_is_lost() {
        loom::model(|| {
            let lease = model();
            let runner = |me: usize| {
                let lease = lease.clone();
                thread::spawn(move || u32::from(run(&lease, me, me as u32)))
            };
            let (first, second) = (runner(1), runner(2));
            call(&lease, 3, 3);
            let ran = first.join().unwrap() + second.join().unwrap();
            assert!(ran >= 1, "both were told that the other one runs it");
            let gate = lease.lock();
            assert!(!gate.running && !lease.is_run_by(1) && !lease.is_run_by(2));
            // SAFETY: no thread runs it, and this one has the lock.
            let done = unsafe { lease.with(|core| core.len()) }.unwrap() as u32;
            assert_eq!((done, gate.len()), (ran + 1, 0));
        });
    }

    /// One thread runs it twice while another calls twice: in order.
    #[test]
    fn loom_calls_of_a_thread_keep_their_order_over_runs() {
        loom::model(|| {
            let lease = model();
            let runner = {
                let lease = lease.clone();
                thread::spawn(move || {
                    assert!(run(&lease, 1, 10));
                    assert!(run(&lease, 1, 11));
                })
            };
            call(&lease, 2, 1);
            call(&lease, 2, 2);
            runner.join().unwrap();
            let _gate = lease.lock();
            // SAFETY: as above.
            let done = unsafe { lease.with(|core| core.clone()) }.unwrap();
            let place = |what| done.iter().position(|one| *one == what).unwrap();
            assert!(place(1) < place(2) && place(10) < place(11) && done.len() == 4);
        });
    }
}
