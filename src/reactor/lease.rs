//! Whose a loop is at the moment.
//!
//! It belongs to the thread that runs it: that one uses it without a lock, in
//! callbacks too. While nobody runs it, it belongs to whoever holds the lock
//! of the gate, where others leave what they want while somebody does.
//! Starting and ending a run take the lock once each: that is the whole
//! hand-over.

use crate::sync::{AtomicUsize, ForkMutex, MutexGuard, Ordering::Relaxed, UnsafeCell};
use std::ops::{Deref, DerefMut};

pub(super) struct Lease<C, G> {
    /// The thread that runs the loop; 0: none.
    thread: AtomicUsize,
    gate: ForkMutex<Locked<G>>,
    core: UnsafeCell<Option<Box<C>>>,
}

// SAFETY: the core is reached by one thread at a time: see `core`. What of it
// is the program's goes from thread to thread as the program has it.
unsafe impl<C, G: Send> Sync for Lease<C, G> {}

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
            gate: ForkMutex::new(Locked { running: false, gate: G::default() }),
            core: UnsafeCell::new(None),
        }
    }

    /// Whether a thread runs the loop; a thread asks for itself only.
    #[inline(always)]
    pub fn is_run_by(&self, thread: usize) -> bool {
        // Only this thread stores its own number, and takes it away; so no
        // order with anything else is needed.
        self.thread.load(Relaxed) == thread
    }

    pub fn lock(&self) -> MutexGuard<'_, Locked<G>> {
        self.gate.lock()
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

    /// The loop itself, if there is one.
    ///
    /// # Safety
    /// The caller runs the loop, or has the lock while nobody does; and no
    /// other reference to the core is in use while this one is.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn core(&self) -> Option<&mut C> {
        // SAFETY: this function's contract.
        self.core.with_mut(|core| unsafe { (*core).as_deref_mut() })
    }

    /// Puts another loop in, or none; the one before.
    ///
    /// # Safety
    /// As [`Self::core`].
    pub unsafe fn replace(&self, core: Option<Box<C>>) -> Option<Box<C>> {
        // SAFETY: this function's contract.
        self.core.with_mut(|place| std::mem::replace(unsafe { &mut *place }, core))
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
        // SAFETY: nobody else has it.
        unsafe { lease.replace(Some(Box::default())) };
        Arc::new(lease)
    }

    /// As every call on a watcher does it.
    fn call(lease: &Model, me: usize, what: u32) {
        if lease.is_run_by(me) {
            // SAFETY: this thread runs the loop.
            return unsafe { lease.core() }.unwrap().push(what);
        }
        let mut gate = lease.lock();
        if gate.running {
            return gate.push(what);
        }
        // SAFETY: nobody runs it, and this thread has the lock.
        unsafe { lease.core() }.unwrap().push(what);
    }

    /// A run with one callback, which makes one call; false: it was busy.
    fn run(lease: &Model, me: usize, what: u32) -> bool {
        if !lease.begin(&mut lease.lock(), me) {
            return false;
        }
        call(lease, me, what);
        let mut gate = lease.lock();
        // SAFETY: this thread runs the loop.
        unsafe { lease.core() }.unwrap().append(&mut gate);
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
            // SAFETY: nobody runs it, and this thread has the lock.
            let done = unsafe { lease.core() }.unwrap().len() as u32;
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
            let done = unsafe { lease.core() }.unwrap();
            let place = |what| done.iter().position(|one| *one == what).unwrap();
            assert!(place(1) < place(2) && place(10) < place(11) && done.len() == 4);
        });
    }
}
