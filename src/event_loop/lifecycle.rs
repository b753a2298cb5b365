//! The lifecycle of loops: how one begins in a shared part and ends, with
//! threads that run it, close it, or come late with its handle; and another
//! loop after it.
//!
//! All of it is done with the command queue's lock. Two looks are made without
//! it: a call finds the shared part by its handle, and looks again when it has
//! the lock; and a callback's end looks whether the loop was closed, by
//! `pending_work`. A loop that a thread runs is torn down by that thread at the
//! end of its run, any other one by the thread that closes it: by exactly one
//! of them.

use super::node_list::{ListNode, NodeList};
use super::ownership::{Locked, LoopOwner};
use super::pending_work::PendingWork;
use super::slot::word::SlotWord;
use super::wake_state::{CLOSED, Wake, WakeState, Waker};
use crate::sync::{AtomicI64, Ordering::*, fence};

/// The fields of a shared part that have to do with this. What functions take
/// as `_command_queue` says that the lock is held.
pub(super) struct Lifecycle<'a, C, G, P> {
    pub handle: &'a AtomicI64,
    pub owner: &'a LoopOwner<C, G>,
    pub wake_state: &'a WakeState<P>,
    pub pending_work: &'a PendingWork,
}

impl<C, G: Default, P: Send> Lifecycle<'_, C, G, P> {
    /// Puts a loop in, which is found from when its slot is made live.
    ///
    /// # Safety
    /// The shared part is empty, or the caller has replaced what was in it.
    pub unsafe fn begin(&self, _command_queue: &mut Locked<G>, state: Box<C>, handle: i64) {
        self.pending_work.take();
        // SAFETY: this function's contract: nothing borrows it.
        drop(unsafe { self.owner.replace(Some(state)) });
        self.wake_state.assign(handle);
        self.handle.store(handle, Relaxed);
    }

    /// Whether it still has the loop that was found before the lock was taken,
    /// by a slot of this generation in this state.
    #[inline]
    pub fn still_has(
        &self,
        _command_queue: &Locked<G>,
        word: &SlotWord,
        generation: u32,
        state: u32,
    ) -> bool {
        self.handle.load(Relaxed) != 0 && word.is(generation, state)
    }

    /// Closes a loop that a thread runs: nothing finds it from now on, its
    /// watchers neither, and the run ends.
    pub fn close_running<'w, W: Waker>(
        &self,
        _command_queue: &mut Locked<G>,
        waker: &'w W,
        word: &SlotWord,
    ) -> Option<Wake<'w, W>> {
        let wake = self.wake_state.set_pending(waker, self.handle.load(Relaxed), CLOSED);
        word.free();
        self.handle.store(0, Relaxed);
        self.owner.revoke();
        // After CLOSED, which is looked for when this was seen.
        self.pending_work.set();
        wake
    }

    /// Ends a run; true: the loop was closed, and is torn down by the caller.
    #[inline]
    pub fn end_run(&self, command_queue: &mut Locked<G>) -> bool {
        self.owner.release(command_queue);
        self.wake_state.peek() & CLOSED != 0
    }

    /// Takes the loop out, so that no later send reaches the next one. `late`
    /// gets what was posted to it; `disable_wakeups` has it not woken any more.
    ///
    /// # Safety
    /// No thread runs it, and no borrow of the state is in use.
    pub unsafe fn clear(
        &self,
        _command_queue: &mut Locked<G>,
        late: impl FnMut(Box<ListNode<P>>),
        disable_wakeups: impl FnOnce(),
    ) -> Option<Box<C>> {
        self.handle.store(0, Relaxed);
        self.wake_state.assign(0);
        // Who posts a call now that has to be destroyed either finds the loop
        // closed after that (see `post_full`), or it is found here.
        fence(SeqCst);
        drop::<NodeList<P>>(self.wake_state.take_posts(0, late));
        disable_wakeups();
        // SAFETY: this function's contract.
        unsafe { self.owner.replace(None) }
    }
}

/// A run, a close and a late call; and then another loop in the same shared
/// part.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::event_loop::slot::word::LOOP;
    use crate::sync::AtomicU32;
    use loom::sync::Arc;
    use loom::thread;

    const FIRST: i64 = 11;
    const SECOND: i64 = 12;

    #[derive(Clone, Copy, PartialEq)]
    enum LifecycleVariant {
        AsItIs,
        LooksBeforeTheLock,
        EndsBeforeTheLock,
    }

    /// The state of a loop is its handle.
    struct LifecycleModel {
        handle: AtomicI64,
        owner: LoopOwner<i64, ()>,
        wake_state: WakeState<u32>,
        pending_work: PendingWork,
        word: SlotWord,
        torn_down: AtomicU32,
        variant: LifecycleVariant,
    }

    impl Waker for LifecycleModel {
        fn wake_loop(&self) -> bool {
            true
        }
    }

    impl LifecycleModel {
        fn new(variant: LifecycleVariant) -> Arc<Self> {
            let shared = Self {
                handle: AtomicI64::new(0),
                owner: LoopOwner::new(),
                wake_state: WakeState::new(),
                pending_work: PendingWork::new(),
                word: SlotWord::new(),
                torn_down: AtomicU32::new(0),
                variant,
            };
            shared.word.begin(1);
            shared.open(FIRST);
            Arc::new(shared)
        }

        fn lifecycle(&self) -> Lifecycle<'_, i64, (), u32> {
            let Self { handle, owner, wake_state, pending_work, .. } = self;
            Lifecycle { handle, owner, wake_state, pending_work }
        }

        fn open(&self, handle: i64) {
            let mut command_queue = self.owner.lock();
            // SAFETY: nothing is in it.
            unsafe { self.lifecycle().begin(&mut command_queue, Box::new(handle), handle) };
            drop(command_queue);
            self.word.set_state(LOOP);
        }

        /// As tear_down, with the lock that is given back; then another loop.
        fn tear_down(&self, mut command_queue: crate::sync::MutexGuard<'_, Locked<()>>) {
            // SAFETY: no thread runs it, and this one has the lock.
            let state = unsafe { self.lifecycle().clear(&mut command_queue, |_| {}, || {}) };
            drop(command_queue);
            assert_eq!(state.as_deref(), Some(&FIRST), "torn down twice");
            self.torn_down.fetch_add(1, SeqCst);
            self.open(SECOND);
        }

        /// As evloop_close.
        fn close(&self) {
            let mut command_queue = self.owner.lock();
            if !command_queue.running {
                self.word.free();
                return self.tear_down(command_queue);
            }
            let wake = self.lifecycle().close_running(&mut command_queue, self, &self.word);
            drop(command_queue);
            drop(wake);
        }

        /// As evloop_run, with one callback.
        fn run(&self) {
            let mut command_queue = self.owner.lock();
            let has = self.lifecycle().still_has(&command_queue, &self.word, 1, LOOP);
            if !has || !self.owner.acquire(&mut command_queue, 1) {
                return;
            }
            drop(command_queue);
            // SAFETY: this thread runs it.
            let state = unsafe { self.owner.with(|state| *state) };
            assert_eq!(state, Some(FIRST), "a run goes on in another loop");
            let early = self.wake_state.peek() & CLOSED != 0;
            let mut command_queue = self.owner.lock();
            let mut ends = self.lifecycle().end_run(&mut command_queue);
            if self.variant == LifecycleVariant::EndsBeforeTheLock {
                ends = early;
            }
            if ends {
                self.tear_down(command_queue);
            }
        }

        /// As any call by a handle of the first loop.
        fn call(&self) {
            let early = self.handle.load(Relaxed) != 0 && self.word.is(1, LOOP);
            if !early {
                return;
            }
            let command_queue = self.owner.lock();
            let has = self.lifecycle().still_has(&command_queue, &self.word, 1, LOOP);
            let has =
                if self.variant == LifecycleVariant::LooksBeforeTheLock { early } else { has };
            if has && !command_queue.running {
                // SAFETY: no thread runs it, and this one has the lock.
                let state = unsafe { self.owner.with(|state| *state) };
                assert_eq!(state, Some(FIRST), "a call reaches another loop");
            }
        }
    }

    fn a_close(variant: LifecycleVariant, with_run: bool) {
        loom::model(move || {
            let shared = LifecycleModel::new(variant);
            let spawn = |act: fn(&LifecycleModel)| {
                let shared = shared.clone();
                thread::spawn(move || act(&shared))
            };
            let caller = spawn(LifecycleModel::call);
            let runner = with_run.then(|| spawn(LifecycleModel::run));
            shared.close();
            caller.join().unwrap();
            runner.into_iter().for_each(|runner| runner.join().unwrap());
            assert_eq!(shared.torn_down.load(SeqCst), 1, "not torn down by one of the two");
            assert_eq!(shared.wake_state.loop_handle(), SECOND);
            assert!(shared.handle.load(Relaxed) == SECOND && shared.word.is(2, LOOP));
        });
    }

    #[test]
    fn loom_a_closed_loop_is_torn_down_once_and_no_late_call_reaches_the_next() {
        a_close(LifecycleVariant::AsItIs, true);
    }

    #[test]
    #[should_panic(expected = "a call reaches another loop")]
    fn loom_twin_a_handle_that_is_looked_at_before_the_lock_reaches_the_next_loop() {
        a_close(LifecycleVariant::LooksBeforeTheLock, false);
    }

    #[test]
    #[should_panic(expected = "not torn down by one of the two")]
    fn loom_twin_a_run_that_looks_before_it_has_the_lock_leaves_a_closed_loop() {
        a_close(LifecycleVariant::EndsBeforeTheLock, true);
    }

    impl LifecycleModel {
        /// As `post_full`, and what it does about a loop that is closed; how
        /// many it found.
        fn post(&self, looks_first: bool) -> u32 {
            let is_open = || self.handle.load(SeqCst) == FIRST;
            let early = is_open();
            drop(self.wake_state.post(self, Box::new(ListNode::new(FIRST, 1))));
            fence(SeqCst);
            if if looks_first { early } else { is_open() } {
                return 0;
            }
            let _command_queue = self.owner.lock();
            let mut found = 0;
            if self.wake_state.loop_handle() == 0 {
                drop(self.wake_state.take_posts(0, |_| found += 1));
            }
            found
        }
    }

    fn a_post_beside_a_close(looks_first: bool) {
        loom::model(move || {
            let shared = LifecycleModel::new(LifecycleVariant::AsItIs);
            let poster = {
                let shared = shared.clone();
                thread::spawn(move || shared.post(looks_first))
            };
            let mut command_queue = shared.owner.lock();
            shared.word.free();
            let mut late = 0;
            // SAFETY: no thread runs it, and this one has the lock.
            drop(unsafe { shared.lifecycle().clear(&mut command_queue, |_| late += 1, || {}) });
            drop(command_queue);
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
