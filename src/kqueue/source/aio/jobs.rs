//! The operations of a pool of threads: those that wait for a thread, those
//! that one is at, and those that are done.
//!
//! Used with the pool's lock. A thread first adds a result, then wakes the
//! queue, which takes all results after it has seen the wake-up. The queue
//! first marks an operation that it cancels, then wakes the threads that wait.
//! Each of these has stored that it waits before it looks for the mark.

use crate::util::alloc::{NoMemory, TryDeque, TryVec};
use std::collections::VecDeque;

/// `R`: what is to be done.
pub(super) struct Jobs<R> {
    waiting: VecDeque<(R, u64)>,
    working: Vec<AioJob>,
    done: VecDeque<(u64, i32)>,
}

/// What a thread is at.
struct AioJob {
    tag: u64,
    cancelled: bool,
}

/// How an operation is called off.
#[derive(PartialEq, Eq)]
pub(super) enum Called {
    /// It was not begun, and is done now.
    Done,
    /// A thread is at it.
    Working,
    /// It is done already.
    Late,
}

#[cfg_attr(loom, allow(dead_code))]
impl<R> Jobs<R> {
    pub const fn new() -> Self {
        Self { waiting: VecDeque::new(), working: Vec::new(), done: VecDeque::new() }
    }

    /// Makes room for another one, all the way to its end.
    pub fn expect_one(&mut self, threads: usize) -> Result<(), NoMemory> {
        let all = self.waiting.len() + self.working.len() + self.done.len() + 1;
        let has_room = self.waiting.try_reserve(1).is_ok()
            && self.working.try_reserve(threads).is_ok()
            && self.done.try_reserve(all).is_ok();
        if has_room { Ok(()) } else { Err(NoMemory) }
    }

    /// How many wait for a thread.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds one for which there is room.
    pub fn submit(&mut self, request: R, tag: u64) {
        self.waiting.push_back_reserved((request, tag));
    }

    /// The next one, for a thread.
    pub fn begin(&mut self) -> Option<(R, u64)> {
        let (request, tag) = self.waiting.pop_front()?;
        self.working.push_reserved(AioJob { tag, cancelled: false });
        Some((request, tag))
    }

    /// Whether a thread is to leave off.
    pub fn is_called_off(&self, tag: u64) -> bool {
        self.working.iter().any(|job| job.tag == tag && job.cancelled)
    }

    /// The result of what a thread was at.
    pub fn end(&mut self, tag: u64, result: i32) {
        self.working.retain(|job| job.tag != tag);
        self.done.push_back_reserved((tag, result));
    }

    /// Calls one off; `result`: of one that was not begun.
    pub fn cancel(&mut self, tag: u64, result: i32) -> Called {
        if let Some(index) = self.waiting.iter().position(|(_, waiting)| *waiting == tag) {
            self.waiting.remove(index);
            self.done.push_back_reserved((tag, result));
            return Called::Done;
        }
        match self.working.iter_mut().find(|job| job.tag == tag) {
            Some(job) => {
                job.cancelled = true;
                Called::Working
            }
            None => Called::Late,
        }
    }

    /// The next that is done.
    pub fn next_done(&mut self) -> Option<(u64, i32)> {
        self.done.pop_front()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_called_off_once_wherever_it_is() {
        let mut jobs = Jobs::new();
        for tag in 1..=3 {
            jobs.expect_one(1).unwrap();
            jobs.submit((), tag);
        }
        assert_eq!(jobs.begin(), Some(((), 1)));
        assert!(jobs.cancel(1, -1) == Called::Working && jobs.is_called_off(1));
        assert!(jobs.cancel(2, -1) == Called::Done && !jobs.is_called_off(2));
        jobs.end(1, -1);
        assert!(jobs.cancel(1, -1) == Called::Late);
        let done: Vec<_> = std::iter::from_fn(|| jobs.next_done()).collect();
        assert_eq!((done, jobs.waiting()), (vec![(2, -1), (1, -1)], 1));
    }
}

/// A thread that does what there is, beside one that calls off and collects.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicBool, Ordering::SeqCst};
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum AioVariant {
        AsItIs,
        WakesFirst,
        TakesFirst,
        LooksFirst,
    }

    const CANCELLED: i32 = -1;
    const DONE: i32 = 7;

    struct ModelPool {
        jobs: Mutex<Jobs<()>>,
        /// The queue was woken, and has not looked since.
        woken: AtomicBool,
        /// The thread waits, and is woken by a thread that cancels something.
        waits: AtomicBool,
        called: AtomicBool,
        variant: AioVariant,
    }

    impl ModelPool {
        fn new(operations: u64, variant: AioVariant) -> Arc<Self> {
            let mut jobs = Jobs::new();
            for tag in 1..=operations {
                jobs.expect_one(1).unwrap();
                jobs.submit((), tag);
            }
            let no = || AtomicBool::new(false);
            Arc::new(Self {
                jobs: Mutex::new(jobs),
                woken: no(),
                waits: no(),
                called: no(),
                variant,
            })
        }

        // Swaps: the kernel has one order for waking and being woken.
        fn wake_queue(&self) {
            self.woken.swap(true, SeqCst);
        }

        /// As Shared::work, until there is nothing to do.
        fn work(&self) {
            loop {
                let Some(((), tag)) = self.jobs.lock().unwrap().begin() else { return };
                if self.variant == AioVariant::WakesFirst {
                    self.wake_queue();
                }
                self.jobs.lock().unwrap().end(tag, DONE);
                if self.variant != AioVariant::WakesFirst {
                    self.wake_queue();
                }
            }
        }

        /// As Pool::cancel.
        fn cancel(&self, tag: u64) {
            let called = self.jobs.lock().unwrap().cancel(tag, CANCELLED);
            match called {
                Called::Done => self.wake_queue(),
                Called::Working if self.waits.swap(false, SeqCst) => {
                    self.called.swap(true, SeqCst);
                }
                _ => {}
            }
        }

        /// As a collecting call that found the queue woken, or did not.
        fn collect(&self, seen: &mut Vec<(u64, i32)>) {
            let woken = self.variant != AioVariant::TakesFirst && self.woken.swap(false, SeqCst);
            if woken || self.variant == AioVariant::TakesFirst {
                while let Some(done) = { self.jobs.lock().unwrap().next_done() } {
                    seen.push(done);
                }
            }
            if self.variant == AioVariant::TakesFirst {
                self.woken.swap(false, SeqCst);
            }
        }

        /// As Shared::wait of an operation that nothing but a call ends;
        /// whether the thread is woken, or has seen the call.
        fn wait(&self, tag: u64) -> bool {
            let early = self.jobs.lock().unwrap().is_called_off(tag);
            self.waits.swap(true, SeqCst);
            match self.variant {
                AioVariant::LooksFirst => early,
                _ => self.jobs.lock().unwrap().is_called_off(tag),
            }
        }
    }

    fn each_comes_back_once(cancels: Option<u64>, variant: AioVariant) {
        loom::model(move || {
            let pool = ModelPool::new(2, variant);
            let worker = {
                let pool = pool.clone();
                thread::spawn(move || pool.work())
            };
            let mut seen = Vec::new();
            if let Some(tag) = cancels {
                pool.cancel(tag);
            }
            pool.collect(&mut seen);
            worker.join().unwrap();
            if pool.woken.load(SeqCst) {
                pool.collect(&mut seen);
            }
            let mut tags: Vec<_> = seen.iter().map(|(tag, _)| *tag).collect();
            tags.sort_unstable();
            assert_eq!(tags, [1, 2], "an operation is done and never reported");
            let left_off = |(tag, result)| result == DONE || cancels == Some(tag);
            assert!(seen.into_iter().all(left_off), "another one was called off");
        });
    }

    #[test]
    fn loom_each_operation_comes_back_once() {
        each_comes_back_once(None, AioVariant::AsItIs);
    }

    #[test]
    fn loom_an_operation_that_is_called_off_comes_back_and_no_other_is() {
        each_comes_back_once(Some(1), AioVariant::AsItIs);
        each_comes_back_once(Some(2), AioVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "never reported")]
    fn loom_twin_a_queue_that_is_woken_before_the_result_is_there_misses_it() {
        each_comes_back_once(None, AioVariant::WakesFirst);
    }

    #[test]
    #[should_panic(expected = "never reported")]
    fn loom_twin_a_wake_up_that_is_cleared_after_the_results_are_taken_loses_one() {
        each_comes_back_once(None, AioVariant::TakesFirst);
    }

    fn a_wait_is_called_off(variant: AioVariant) {
        loom::model(move || {
            let pool = ModelPool::new(1, variant);
            let ((), tag) = pool.jobs.lock().unwrap().begin().unwrap();
            let waiting = {
                let pool = pool.clone();
                thread::spawn(move || pool.wait(tag))
            };
            pool.cancel(tag);
            let seen = waiting.join().unwrap();
            assert!(seen || pool.called.load(SeqCst), "a thread waits for ever");
        });
    }

    #[test]
    fn loom_a_thread_that_waits_is_called_off() {
        a_wait_is_called_off(AioVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_a_look_before_the_thread_says_that_it_waits_misses_the_call() {
        a_wait_is_called_off(AioVariant::LooksFirst);
    }
}
