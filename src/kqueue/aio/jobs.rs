//! The operations of a pool of threads: those that wait for a thread, those
//! that one is at, and those that are done.
//!
//! Used with the pool's lock. Two kinds of eventfds go with it, and are only
//! changed with the lock, too: one that is readable as long as something is
//! done, and one a thread, which calls it off what it is at.

use crate::util::alloc::{NoMemory, TryDeque, TryVec};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// `R`: what is to be done.
pub(super) struct Jobs<R> {
    waiting: VecDeque<(R, u64)>,
    working: Vec<Job>,
    done: VecDeque<(u64, i32)>,
}

/// What a thread is at, and the eventfd that calls it off.
struct Job {
    tag: u64,
    bell: RawFd,
    cancelled: bool,
}

/// How an operation is called off.
#[derive(PartialEq, Eq)]
pub(super) enum Called {
    /// It was not begun, and is done now.
    Done,
    /// The thread with this eventfd is at it.
    Working(RawFd),
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
        let room = self.waiting.try_reserve(1).is_ok()
            && self.working.try_reserve(threads).is_ok()
            && self.done.try_reserve(all).is_ok();
        if room { Ok(()) } else { Err(NoMemory) }
    }

    /// How many wait for a thread.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Adds one for which there is room.
    pub fn submit(&mut self, request: R, tag: u64) {
        self.waiting.push_back_reserved((request, tag));
    }

    /// The next one for a thread with this eventfd.
    pub fn begin(&mut self, bell: RawFd) -> Option<(R, u64)> {
        let (request, tag) = self.waiting.pop_front()?;
        self.working.push_reserved(Job { tag, bell, cancelled: false });
        Some((request, tag))
    }

    /// Whether a thread is to leave off.
    pub fn is_called_off(&self, tag: u64) -> bool {
        self.working.iter().any(|job| job.tag == tag && job.cancelled)
    }

    /// The result of what a thread was at. Its eventfd is to be cleared, and
    /// that of what is done to be rung.
    pub fn end(&mut self, tag: u64, result: i32) {
        self.working.retain(|job| job.tag != tag);
        self.done.push_back_reserved((tag, result));
    }

    /// Calls one off; `result`: of one that was not begun.
    pub fn cancel(&mut self, tag: u64, result: i32) -> Called {
        if let Some(place) = self.waiting.iter().position(|(_, waiting)| *waiting == tag) {
            self.waiting.remove(place);
            self.done.push_back_reserved((tag, result));
            return Called::Done;
        }
        match self.working.iter_mut().find(|job| job.tag == tag) {
            Some(job) => {
                job.cancelled = true;
                Called::Working(job.bell)
            }
            None => Called::Late,
        }
    }

    /// The next that is done. True: it was the last, and the eventfd of what
    /// is done is to be cleared.
    pub fn next_done(&mut self) -> (Option<(u64, i32)>, bool) {
        (self.done.pop_front(), self.done.is_empty())
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
    enum Way {
        AsItIs,
        ClearsWithoutTheLock,
        RingsOffWithoutTheLock,
    }

    const CANCELLED: i32 = -1;
    const DONE: i32 = 7;
    const BELL: RawFd = 3;

    struct Pool {
        jobs: Mutex<Jobs<()>>,
        /// The eventfds: whether they are readable.
        done: AtomicBool,
        bell: AtomicBool,
        way: Way,
    }

    impl Pool {
        fn new(operations: u64, way: Way) -> Arc<Self> {
            let mut jobs = Jobs::new();
            for tag in 1..=operations {
                jobs.expect_one(1).unwrap();
                jobs.submit((), tag);
            }
            let (done, bell) = (AtomicBool::new(false), AtomicBool::new(false));
            Arc::new(Self { jobs: Mutex::new(jobs), done, bell, way })
        }

        /// As Shared::work, until there is nothing to do.
        fn work(&self) {
            let mut jobs = self.jobs.lock().unwrap();
            while let Some(((), tag)) = jobs.begin(BELL) {
                assert!(!self.bell.load(SeqCst), "called off for another one");
                drop(jobs);
                let rung = self.bell.load(SeqCst);
                jobs = self.jobs.lock().unwrap();
                let called_off = rung && jobs.is_called_off(tag);
                jobs.end(tag, if called_off { CANCELLED } else { DONE });
                self.bell.store(false, SeqCst);
                self.done.store(true, SeqCst);
            }
        }

        /// As Pool::cancel.
        fn cancel(&self, tag: u64) {
            let mut jobs = self.jobs.lock().unwrap();
            let called = jobs.cancel(tag, CANCELLED);
            if self.way == Way::RingsOffWithoutTheLock {
                drop(jobs);
                if matches!(called, Called::Working(_)) {
                    self.bell.store(true, SeqCst);
                }
                return;
            }
            match called {
                Called::Done => self.done.store(true, SeqCst),
                Called::Working(bell) => {
                    assert_eq!(bell, BELL);
                    self.bell.store(true, SeqCst);
                }
                Called::Late => {}
            }
        }

        /// As Pool::next_done.
        fn next_done(&self) -> Option<(u64, i32)> {
            let mut jobs = self.jobs.lock().unwrap();
            let (next, is_last) = jobs.next_done();
            if self.way == Way::ClearsWithoutTheLock {
                drop(jobs);
                if is_last {
                    self.done.store(false, SeqCst);
                }
                return next;
            }
            if is_last {
                self.done.store(false, SeqCst);
            }
            next
        }
    }

    fn each_comes_back_once(cancels: Option<u64>, way: Way) {
        loom::model(move || {
            let pool = Pool::new(2, way);
            let worker = {
                let pool = pool.clone();
                thread::spawn(move || pool.work())
            };
            let mut seen = Vec::new();
            if let Some(tag) = cancels {
                pool.cancel(tag);
            }
            seen.extend(pool.next_done());
            worker.join().unwrap();
            // What is readable is collected, and nothing else.
            while pool.done.load(SeqCst) {
                seen.extend(pool.next_done());
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
        each_comes_back_once(None, Way::AsItIs);
    }

    #[test]
    fn loom_an_operation_that_is_called_off_comes_back_and_no_other_is() {
        each_comes_back_once(Some(1), Way::AsItIs);
        each_comes_back_once(Some(2), Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "never reported")]
    fn loom_twin_an_eventfd_that_is_cleared_without_the_lock_loses_an_operation() {
        each_comes_back_once(None, Way::ClearsWithoutTheLock);
    }

    #[test]
    #[should_panic(expected = "called off for another one")]
    fn loom_twin_a_bell_that_is_rung_without_the_lock_calls_off_another_one() {
        each_comes_back_once(Some(1), Way::RingsOffWithoutTheLock);
    }
}
