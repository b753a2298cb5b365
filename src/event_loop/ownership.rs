//! Ownership of a loop's state.
//!
//! The state belongs to the thread that runs the loop: that thread uses it
//! without a lock, in callbacks too. During a run other threads queue commands
//! in the command queue, with its lock. While no thread runs the loop, the
//! state belongs to the thread that holds that lock. Starting and ending a run
//! take the lock once each: that is the whole hand-over.

use crate::sync::{AtomicPtr, AtomicUsize, ForkMutex, LineBreak, MutexGuard, Ordering::Relaxed};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

/// What the loop's thread reads in each call that a callback makes is apart
/// from the lock that others take.
#[repr(C)]
pub(super) struct LoopOwner<C, G> {
    /// The thread that runs the loop; 0: none.
    thread: AtomicUsize,
    /// Made of a box; null: none. All borrows of the state come from this one
    /// pointer, so that none of them ends the others: a run keeps a copy while
    /// its callbacks make calls that borrow the state, too.
    state: AtomicPtr<C>,
    /// Borrowed with the state, for loom to see.
    #[cfg(loom)]
    borrow: crate::sync::UnsafeCell<()>,
    owns: PhantomData<Box<C>>,
    _others: LineBreak,
    command_queue: ForkMutex<Locked<G>>,
}

// SAFETY: the state is borrowed by one thread at a time (contract of `with` and
// `pointer`), on whichever thread owns it: it goes from one to the other (C:
// Send), and is never shared. The command queue is in a mutex.
unsafe impl<C: Send, G: Send> Sync for LoopOwner<C, G> {}

/// The command queue, and whether a thread runs the loop.
#[derive(Default)]
pub(super) struct Locked<G> {
    pub running: bool,
    command_queue: G,
}

impl<G> Deref for Locked<G> {
    type Target = G;

    fn deref(&self) -> &G {
        &self.command_queue
    }
}

impl<G> DerefMut for Locked<G> {
    fn deref_mut(&mut self) -> &mut G {
        &mut self.command_queue
    }
}

impl<C, G: Default> LoopOwner<C, G> {
    pub fn new() -> Self {
        Self {
            thread: AtomicUsize::new(0),
            state: AtomicPtr::new(ptr::null_mut()),
            #[cfg(loom)]
            borrow: crate::sync::UnsafeCell::new(()),
            owns: PhantomData,
            _others: LineBreak,
            command_queue: ForkMutex::new(Locked { running: false, command_queue: G::default() }),
        }
    }

    /// Whether a thread runs the loop; a thread asks for itself only.
    #[inline(always)]
    pub fn is_run_by(&self, thread: usize) -> bool {
        // No other thread stores this thread's number, so a thread that finds
        // it here has begun a run and not ended it. Others may only take it
        // away, when they close the loop (`revoke`): whether that is seen at
        // once does not matter, as the state stays until the run has ended. So
        // no order with anything else is needed.
        self.thread.load(Relaxed) == thread
    }

    pub fn lock(&self) -> MutexGuard<'_, Locked<G>> {
        self.command_queue.lock()
    }

    #[cfg(not(loom))]
    pub fn try_lock(&self) -> Option<MutexGuard<'_, Locked<G>>> {
        self.command_queue.try_lock()
    }

    /// Begins a run, with the lock; false: a thread runs the loop already.
    #[must_use]
    pub fn acquire(&self, command_queue: &mut Locked<G>, thread: usize) -> bool {
        if command_queue.running {
            return false;
        }
        command_queue.running = true;
        self.thread.store(thread, Relaxed);
        true
    }

    /// Ends a run, with the lock; from here on that is what the state needs.
    pub fn release(&self, command_queue: &mut Locked<G>) {
        self.thread.store(0, Relaxed);
        command_queue.running = false;
    }

    /// The thread that runs the loop is to use it like any other from now on.
    pub fn revoke(&self) {
        self.thread.store(0, Relaxed);
    }

    /// In a forked child, the thread that ran the loop goes on to.
    pub fn adopt(&self, thread: usize) {
        self.thread.store(thread, Relaxed);
    }

    /// Borrows the loop itself, if there is one, for as long as `act` takes.
    ///
    /// # Safety
    /// The caller runs the loop, or has the lock while no thread does; and no
    /// other borrow of the state is in use before this one has ended. So `act`
    /// runs none of the program's code, which may make calls that borrow it.
    #[inline(always)]
    pub unsafe fn with<R>(&self, act: impl FnOnce(&mut C) -> R) -> Option<R> {
        #[cfg(loom)]
        let _borrow = self.borrow.get_mut();
        // SAFETY: null, or made of a box that lives until `replace`; the rest
        // is this function's contract.
        unsafe { self.state.load(Relaxed).as_mut() }.map(act)
    }

    /// Where the loop is, for the thread that runs it: valid until it is
    /// replaced. Borrows that are made of it have the contract of
    /// [`Self::with`].
    pub fn pointer(&self) -> Option<NonNull<C>> {
        NonNull::new(self.state.load(Relaxed))
    }

    /// Puts another loop in, or none; the one before.
    ///
    /// # Safety
    /// As [`Self::with`].
    pub unsafe fn replace(&self, state: Option<Box<C>>) -> Option<Box<C>> {
        let fresh = state.map_or(ptr::null_mut(), Box::into_raw);
        #[cfg(loom)]
        let _borrow = self.borrow.get_mut();
        let before = self.state.swap(fresh, Relaxed);
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
        unsafe { self.command_queue.recover(mend) };
    }
}

impl<C, G> Drop for LoopOwner<C, G> {
    fn drop(&mut self) {
        let state = self.state.load(Relaxed);
        if !state.is_null() {
            // SAFETY: made of a box by `replace`; no other thread is here.
            drop(unsafe { Box::from_raw(state) });
        }
    }
}

/// What Miri finds to be undefined unless all borrows come from one pointer.
#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Model = LoopOwner<Vec<u32>, Vec<u32>>;

    /// As a run of a loop, with a callback after each use of the state.
    fn run(owner: &Model, me: usize, callback: impl Fn(u32)) -> usize {
        assert!(owner.acquire(&mut owner.lock(), me));
        let Some(mut state) = owner.pointer() else { return 0 };
        for round in 0..3 {
            // SAFETY: this thread runs the loop, and this is used no more once
            // the callback runs.
            unsafe { state.as_mut() }.push(round);
            callback(round);
        }
        // SAFETY: as above.
        let len = unsafe { state.as_ref() }.len();
        owner.release(&mut owner.lock());
        len
    }

    #[test]
    fn a_run_goes_on_with_the_state_that_its_callbacks_have_changed() {
        let owner = Model::new();
        // SAFETY: no other thread has it.
        unsafe { owner.replace(Some(Box::default())) };
        let callback = |round| {
            assert!(owner.is_run_by(1) && !owner.is_run_by(2));
            // SAFETY: this thread runs the loop, and the run borrows nothing.
            unsafe { owner.with(|state| state.push(round + 10)) }.unwrap();
        };
        assert_eq!(run(&owner, 1, callback), 6);
        // SAFETY: no thread runs it.
        let state = unsafe { owner.replace(None) };
        assert_eq!(state.as_deref(), Some(&vec![0, 10, 1, 11, 2, 12]));
        assert!(owner.pointer().is_none());
    }

    #[test]
    fn the_state_goes_from_thread_to_thread_with_the_runs() {
        let owner = Model::new();
        // SAFETY: no other thread has it.
        unsafe { owner.replace(Some(Box::default())) };
        std::thread::scope(|scope| {
            scope.spawn(|| run(&owner, 1, |_| {})).join().unwrap();
            scope.spawn(|| run(&owner, 2, |_| {})).join().unwrap();
        });
        let _gate = owner.lock();
        // SAFETY: no thread runs it, and this one has the lock.
        assert_eq!(unsafe { owner.with(|state| state.len()) }, Some(6));
    }
}

/// Runs that begin and end, and calls from threads that do not run the loop.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// What was asked for, and what was done.
    type Commands = Vec<u32>;
    type Model = LoopOwner<Commands, Commands>;

    fn model() -> Arc<Model> {
        let owner = Model::new();
        // SAFETY: no other thread has it.
        unsafe { owner.replace(Some(Box::default())) };
        Arc::new(owner)
    }

    /// As every call on a watcher does it.
    fn call(owner: &Model, me: usize, what: u32) {
        if owner.is_run_by(me) {
            // SAFETY: this thread runs the loop.
            return unsafe { owner.with(|state| state.push(what)) }.unwrap();
        }
        let mut command_queue = owner.lock();
        if command_queue.running {
            return command_queue.push(what);
        }
        // SAFETY: no thread runs it, and this one has the lock.
        unsafe { owner.with(|state| state.push(what)) }.unwrap();
    }

    /// A run with one callback, which makes one call; false: it was busy.
    fn run(owner: &Model, me: usize, what: u32) -> bool {
        if !owner.acquire(&mut owner.lock(), me) {
            return false;
        }
        call(owner, me, what);
        let mut command_queue = owner.lock();
        // SAFETY: this thread runs the loop.
        unsafe { owner.with(|state| state.append(&mut command_queue)) }.unwrap();
        owner.release(&mut command_queue);
        true
    }

    /// loom reports it if two threads are in the state at once.
    #[test]
    fn loom_runs_and_calls_never_meet_in_the_state_and_nothing_is_lost() {
        loom::model(|| {
            let owner = model();
            let runner = |me: usize| {
                let owner = owner.clone();
                thread::spawn(move || u32::from(run(&owner, me, me as u32)))
            };
            let (first, second) = (runner(1), runner(2));
            call(&owner, 3, 3);
            let ran = first.join().unwrap() + second.join().unwrap();
            assert!(ran >= 1, "each run was refused because of the other");
            let command_queue = owner.lock();
            assert!(!command_queue.running && !owner.is_run_by(1) && !owner.is_run_by(2));
            // SAFETY: no thread runs it, and this one has the lock.
            let done = unsafe { owner.with(|state| state.len()) }.unwrap() as u32;
            assert_eq!((done, command_queue.len()), (ran + 1, 0));
        });
    }

    /// One thread runs it twice while another calls twice: in order.
    #[test]
    fn loom_calls_of_a_thread_keep_their_order_over_runs() {
        loom::model(|| {
            let owner = model();
            let runner = {
                let owner = owner.clone();
                thread::spawn(move || {
                    assert!(run(&owner, 1, 10));
                    assert!(run(&owner, 1, 11));
                })
            };
            call(&owner, 2, 1);
            call(&owner, 2, 2);
            runner.join().unwrap();
            let _gate = owner.lock();
            // SAFETY: as above.
            let done = unsafe { owner.with(|state| state.clone()) }.unwrap();
            let position = |what| done.iter().position(|one| *one == what).unwrap();
            assert!(position(1) < position(2) && position(10) < position(11) && done.len() == 4);
        });
    }
}
