//! A loop's place: how a loop begins in it and ends, with threads that run it,
//! close it, or come late with its handle; and another loop after it.
//!
//! All of it is done with the gate's lock. Two looks are made without it: a
//! call finds the place by its handle, and looks again when it has the lock;
//! and a callback's end looks whether the loop was closed, by `attention`.
//! A loop that a thread runs is torn down by that thread at the end of its
//! run, any other one by the thread that closes it: by exactly one of them.

use super::lease::{Lease, Locked};
use super::letters::{Letter, Letters};
use super::mailbox::{CLOSED, Mailbox, Wake, Waker};
use super::pending_work::PendingWork;
use super::record_word::Word;
use crate::sync::{AtomicI64, Ordering::*, fence};

/// What of a place has to do with this. What functions take as `_gate` says
/// that the lock is held.
pub(super) struct Place<'a, C, G, P> {
    pub handle: &'a AtomicI64,
    pub lease: &'a Lease<C, G>,
    pub mail: &'a Mailbox<P>,
    pub attention: &'a PendingWork,
}

impl<C, G: Default, P: Send> Place<'_, C, G, P> {
    /// Puts a loop in, which is found from when its record is made live.
    ///
    /// # Safety
    /// The place is empty, or the caller has replaced what was in it.
    pub unsafe fn begin(&self, _gate: &mut Locked<G>, core: Box<C>, handle: i64) {
        self.attention.take();
        // SAFETY: this function's contract: nothing borrows it.
        drop(unsafe { self.lease.replace(Some(core)) });
        self.mail.assign(handle);
        self.handle.store(handle, Relaxed);
    }

    /// Whether it still has the loop that was found before the lock was
    /// taken, by a record of this generation in this state.
    #[inline(always)]
    pub fn still_has(&self, _gate: &Locked<G>, word: &Word, generation: u32, state: u32) -> bool {
        self.handle.load(Relaxed) != 0 && word.is(generation, state)
    }

    /// Closes a loop that a thread runs: nothing finds it from now on, its
    /// watchers neither, and the run ends.
    pub fn close_running<'w, W: Waker>(
        &self,
        _gate: &mut Locked<G>,
        waker: &'w W,
        word: &Word,
    ) -> Option<Wake<'w, W>> {
        let wake = self.mail.leave(waker, self.handle.load(Relaxed), CLOSED);
        word.free();
        self.handle.store(0, Relaxed);
        self.lease.withdraw();
        // After CLOSED, which is looked for when this was seen.
        self.attention.set();
        wake
    }

    /// Ends a run; true: the loop was closed, and is torn down by the caller.
    #[inline(always)]
    pub fn end_run(&self, gate: &mut Locked<G>) -> bool {
        self.lease.end(gate);
        self.mail.peek() & CLOSED != 0
    }

    /// Takes the loop out, so that no later send reaches the next one. `late`
    /// gets what was posted to it; `silence` has it not woken any more.
    ///
    /// # Safety
    /// No thread runs it, and no borrow of the core is in use.
    pub unsafe fn clear(
        &self,
        _gate: &mut Locked<G>,
        late: impl FnMut(Box<Letter<P>>),
        silence: impl FnOnce(),
    ) -> Option<Box<C>> {
        self.handle.store(0, Relaxed);
        self.mail.assign(0);
        // Who posts a call now that has to be destroyed either finds the loop
        // closed after that (see `post_full`), or it is found here.
        fence(SeqCst);
        drop::<Letters<P>>(self.mail.take_letters(0, late));
        silence();
        // SAFETY: this function's contract.
        unsafe { self.lease.replace(None) }
    }
}

/// A run, a close and a late call; and then another loop in the same place.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::event_loop::record_word::LOOP;
    use crate::sync::AtomicU32;
    use loom::sync::Arc;
    use loom::thread;

    const FIRST: i64 = 11;
    const SECOND: i64 = 12;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        LooksBeforeTheLock,
        EndsBeforeTheLock,
    }

    /// The core of a loop is its handle.
    struct Shared {
        handle: AtomicI64,
        lease: Lease<i64, ()>,
        mail: Mailbox<u32>,
        attention: PendingWork,
        word: Word,
        torn_down: AtomicU32,
        way: Way,
    }

    impl Waker for Shared {
        fn wake_loop(&self) -> bool {
            true
        }
    }

    impl Shared {
        fn new(way: Way) -> Arc<Self> {
            let shared = Self {
                handle: AtomicI64::new(0),
                lease: Lease::new(),
                mail: Mailbox::new(),
                attention: PendingWork::new(),
                word: Word::new(),
                torn_down: AtomicU32::new(0),
                way,
            };
            shared.word.begin(1);
            shared.open(FIRST);
            Arc::new(shared)
        }

        fn place(&self) -> Place<'_, i64, (), u32> {
            let Self { handle, lease, mail, attention, .. } = self;
            Place { handle, lease, mail, attention }
        }

        fn open(&self, handle: i64) {
            let mut gate = self.lease.lock();
            // SAFETY: nothing is in it.
            unsafe { self.place().begin(&mut gate, Box::new(handle), handle) };
            drop(gate);
            self.word.set_state(LOOP);
        }

        /// As tear_down, with the lock that is given back; then another loop.
        fn tear_down(&self, mut gate: crate::sync::MutexGuard<'_, Locked<()>>) {
            // SAFETY: no thread runs it, and this one has the lock.
            let core = unsafe { self.place().clear(&mut gate, |_| {}, || {}) };
            drop(gate);
            assert_eq!(core.as_deref(), Some(&FIRST), "torn down twice");
            self.torn_down.fetch_add(1, SeqCst);
            self.open(SECOND);
        }

        /// As evloop_close.
        fn close(&self) {
            let mut gate = self.lease.lock();
            if !gate.running {
                self.word.free();
                return self.tear_down(gate);
            }
            let wake = self.place().close_running(&mut gate, self, &self.word);
            drop(gate);
            drop(wake);
        }

        /// As evloop_run, with one callback.
        fn run(&self) {
            let mut gate = self.lease.lock();
            let has = self.place().still_has(&gate, &self.word, 1, LOOP);
            if !has || !self.lease.begin(&mut gate, 1) {
                return;
            }
            drop(gate);
            // SAFETY: this thread runs it.
            let core = unsafe { self.lease.with(|core| *core) };
            assert_eq!(core, Some(FIRST), "a run goes on in another loop");
            let early = self.mail.peek() & CLOSED != 0;
            let mut gate = self.lease.lock();
            let mut ends = self.place().end_run(&mut gate);
            if self.way == Way::EndsBeforeTheLock {
                ends = early;
            }
            if ends {
                self.tear_down(gate);
            }
        }

        /// As any call by a handle of the first loop.
        fn call(&self) {
            let early = self.handle.load(Relaxed) != 0 && self.word.is(1, LOOP);
            if !early {
                return;
            }
            let gate = self.lease.lock();
            let has = self.place().still_has(&gate, &self.word, 1, LOOP);
            let has = if self.way == Way::LooksBeforeTheLock { early } else { has };
            if has && !gate.running {
                // SAFETY: no thread runs it, and this one has the lock.
                let core = unsafe { self.lease.with(|core| *core) };
                assert_eq!(core, Some(FIRST), "a call reaches another loop");
            }
        }
    }

    fn a_close(way: Way, with_run: bool) {
        loom::model(move || {
            let shared = Shared::new(way);
            let spawn = |act: fn(&Shared)| {
                let shared = shared.clone();
                thread::spawn(move || act(&shared))
            };
            let caller = spawn(Shared::call);
            let runner = with_run.then(|| spawn(Shared::run));
            shared.close();
            caller.join().unwrap();
            runner.into_iter().for_each(|runner| runner.join().unwrap());
            assert_eq!(shared.torn_down.load(SeqCst), 1, "not torn down by one of the two");
            assert_eq!(shared.mail.owner(), SECOND);
            assert!(shared.handle.load(Relaxed) == SECOND && shared.word.is(2, LOOP));
        });
    }

    #[test]
    fn loom_a_closed_loop_is_torn_down_once_and_no_late_call_reaches_the_next() {
        a_close(Way::AsItIs, true);
    }

    #[test]
    #[should_panic(expected = "a call reaches another loop")]
    fn loom_twin_a_handle_that_is_looked_at_before_the_lock_reaches_the_next_loop() {
        a_close(Way::LooksBeforeTheLock, false);
    }

    #[test]
    #[should_panic(expected = "not torn down by one of the two")]
    fn loom_twin_a_run_that_looks_before_it_has_the_lock_leaves_a_closed_loop() {
        a_close(Way::EndsBeforeTheLock, true);
    }

    impl Shared {
        /// As `post_full`, and what it does about a loop that is closed; how many
        /// it found.
        fn post(&self, looks_first: bool) -> u32 {
            let is_open = || self.handle.load(SeqCst) == FIRST;
            let early = is_open();
            drop(self.mail.post(self, Box::new(Letter::new(FIRST, 1))));
            fence(SeqCst);
            if if looks_first { early } else { is_open() } {
                return 0;
            }
            let _gate = self.lease.lock();
            let mut found = 0;
            if self.mail.owner() == 0 {
                drop(self.mail.take_letters(0, |_| found += 1));
            }
            found
        }
    }

    fn a_post_beside_a_close(looks_first: bool) {
        loom::model(move || {
            let shared = Shared::new(Way::AsItIs);
            let poster = {
                let shared = shared.clone();
                thread::spawn(move || shared.post(looks_first))
            };
            let mut gate = shared.lease.lock();
            shared.word.free();
            let mut late = 0;
            // SAFETY: no thread runs it, and this one has the lock.
            drop(unsafe { shared.place().clear(&mut gate, |_| late += 1, || {}) });
            drop(gate);
            let found = poster.join().unwrap() + late;
            assert_eq!(found, 1, "a call that has to be destroyed is lost, or found twice");
        });
    }

    #[test]
    fn loom_a_call_that_is_posted_beside_a_close_is_found_once() {
        a_post_beside_a_close(false);
    }

    #[test]
    #[should_panic(expected = "is lost")]
    fn loom_twin_a_look_before_the_call_is_posted_loses_it() {
        a_post_beside_a_close(true);
    }
}
