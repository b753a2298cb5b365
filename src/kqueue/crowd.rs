//! The threads that wait in a queue's epolls, and how they come back.
//!
//! All of it is done with the queue's lock; a thread waits without it. The
//! queue's alarm is in all of its sets and wakes one thread in each: that one
//! has the lock when it has come back, and rings again for the next, as long
//! as there is one that has to come back. That is all of them when the queue
//! is closed, those that wait in a set that was replaced, and as many as wait
//! by a second handle that was closed: which of them comes first is not known,
//! so that those that need not leave wait again.
//!
//! Whether the queue is closed is said before the closer takes the lock, and
//! looked at by who waits after it has taken it: so that either is counted
//! here by then, or sees it.

use crate::util::alloc::{NoMemory, TryVec};

/// `S`: a set of epolls.
pub(super) struct Crowd<S> {
    /// How many wait in the set that is in use.
    waiting: usize,
    /// Sets that were in use before, and how many wait in each.
    retired: Vec<(S, usize)>,
    /// How many are to come back because a second handle was closed.
    leaving: usize,
}

/// What becomes of the alarm when a thread has come back.
#[derive(PartialEq, Eq)]
pub(super) enum Alarm {
    RingsAgain,
    Stays,
    Ends,
}

#[cfg_attr(loom, allow(dead_code))]
impl<S> Crowd<S> {
    pub const fn new() -> Self {
        Self { waiting: 0, retired: Vec::new(), leaving: 0 }
    }

    /// How many wait in the set that is in use.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn has_to_leave(&self) -> bool {
        self.leaving > 0
    }

    pub fn retired(&self) -> impl Iterator<Item = &S> {
        self.retired.iter().map(|(set, _)| set)
    }

    /// This thread is going to wait in the set that is in use.
    pub fn enter(&mut self) {
        self.waiting += 1;
    }

    /// Makes room, so that [`Self::retire`] does not fail.
    pub fn expect_retired(&mut self) -> Result<(), NoMemory> {
        if self.waiting > 0 {
            self.retired.try_reserve(1).map_err(|_| NoMemory)?;
        }
        Ok(())
    }

    /// Another set is in use from now on. True: threads wait in this one, and
    /// the alarm is to ring. It goes with the last of them.
    #[must_use]
    pub fn retire(&mut self, set: S) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting > 0 {
            self.retired.push_reserved((set, waiting));
        }
        waiting > 0
    }

    /// A thread has come back from a set: the one in use, or the one that
    /// `is` its. `leaves`: because of a second handle. True: others wait in a
    /// set that is not in use.
    pub fn come_back(&mut self, from_in_use: bool, is: impl Fn(&S) -> bool, leaves: bool) -> bool {
        let mut others = false;
        if from_in_use {
            self.waiting -= 1;
        } else if let Some(place) = self.retired.iter().position(|(set, _)| is(set))
            && let Some((_, waiting)) = self.retired.get_mut(place)
        {
            *waiting -= 1;
            others = *waiting > 0;
            if !others {
                self.retired.swap_remove(place);
            }
        }
        self.leaving -= usize::from(leaves && self.leaving > 0);
        others
    }

    /// What becomes of the alarm then. `others`: what [`Self::come_back`]
    /// returned.
    pub fn pass_on(&self, others: bool, is_closed: bool) -> Alarm {
        if others || self.leaving > 0 || (is_closed && self.waiting > 0) {
            Alarm::RingsAgain
        } else if self.retired.is_empty() {
            Alarm::Ends
        } else {
            Alarm::Stays
        }
    }

    /// A second handle was closed, by which so many wait. True: the alarm is
    /// to ring.
    #[must_use]
    pub fn send_home(&mut self, waiting: usize) -> bool {
        self.leaving += waiting;
        waiting > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_rings_until_all_have_come_back_that_have_to() {
        let mut crowd = Crowd::new();
        (0..3).for_each(|_| crowd.enter());
        crowd.expect_retired().unwrap();
        assert!(crowd.retire('a') && !crowd.retire('b'));
        crowd.enter();
        assert!(crowd.send_home(1) && !crowd.send_home(0));
        for (from_in_use, leaves, alarm) in [
            (false, false, Alarm::RingsAgain),
            (true, true, Alarm::Stays),
            (false, false, Alarm::RingsAgain),
            (false, false, Alarm::Ends),
        ] {
            let others = crowd.come_back(from_in_use, |set| *set == 'a', leaves);
            assert!(crowd.pass_on(others, false) == alarm);
        }
        assert!(crowd.retired().next().is_none() && !crowd.has_to_leave());
    }
}

/// Threads that wait, beside a close, a close of a second handle, and a set
/// that is replaced.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicBool, Ordering};
    use loom::sync::{Arc, Mutex, MutexGuard};
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        ChecksBeforeTheLock,
        RingsOnce,
        RetiresSilently,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Call {
        Over,
        Sleeps(usize),
        Pauses,
    }

    struct State {
        crowd: Crowd<usize>,
        in_use: usize,
        /// How many wait by the second handle.
        by_lent: usize,
        alarmed: bool,
    }

    struct Queue {
        state: Mutex<State>,
        /// Whether the alarm has rung in a set, and no thread was woken by it.
        rung: [AtomicBool; 2],
        closed: AtomicBool,
        lent_closed: AtomicBool,
        way: Way,
    }

    impl Queue {
        fn new(way: Way) -> Arc<Self> {
            let state = State { crowd: Crowd::new(), in_use: 0, by_lent: 0, alarmed: false };
            Arc::new(Self {
                state: Mutex::new(state),
                rung: [AtomicBool::new(false), AtomicBool::new(false)],
                closed: AtomicBool::new(false),
                lent_closed: AtomicBool::new(false),
                way,
            })
        }

        fn alarm(&self, state: &mut State) {
            state.alarmed = true;
            // The kernel has one order for this and for who is woken: loom has
            // it for read-modify-writes.
            for rung in &self.rung {
                rung.swap(true, Ordering::AcqRel);
            }
        }

        fn is_over(&self, lent: bool) -> bool {
            let lent_closed = lent && self.lent_closed.load(Ordering::Acquire);
            lent_closed || self.closed.load(Ordering::Acquire)
        }

        /// As a call that waits for an event that never comes, until it
        /// returns, sleeps, or lets those go first that are to come back.
        fn wait(&self, lent: bool) -> Call {
            loop {
                let early = self.is_over(lent);
                let mut state = self.state.lock().unwrap();
                let is_over = match self.way {
                    Way::ChecksBeforeTheLock => early,
                    _ => self.is_over(lent),
                };
                if is_over {
                    return Call::Over;
                }
                if state.crowd.has_to_leave() {
                    return Call::Pauses;
                }
                state.crowd.enter();
                state.by_lent += usize::from(lent);
                let set = state.in_use;
                drop(state);
                if !self.is_woken(set) {
                    return Call::Sleeps(set);
                }
                self.come_back(self.state.lock().unwrap(), set, lent);
            }
        }

        fn goes_on(&self, call: Call) -> bool {
            match call {
                Call::Over => false,
                Call::Sleeps(set) => self.is_woken(set),
                Call::Pauses => !self.state.lock().unwrap().crowd.has_to_leave(),
            }
        }

        fn is_woken(&self, set: usize) -> bool {
            self.rung[set].swap(false, Ordering::AcqRel)
        }

        fn come_back(&self, mut state: MutexGuard<'_, State>, set: usize, lent: bool) {
            let from_in_use = state.in_use == set;
            let leaves = lent && self.lent_closed.load(Ordering::Relaxed);
            let others = state.crowd.come_back(from_in_use, |other| *other == set, leaves);
            state.by_lent -= usize::from(lent);
            if !state.alarmed || self.way == Way::RingsOnce {
                return;
            }
            match state.crowd.pass_on(others, self.closed.load(Ordering::Relaxed)) {
                Alarm::RingsAgain => self.alarm(&mut state),
                Alarm::Ends => state.alarmed = false,
                Alarm::Stays => {}
            }
        }

        fn close(&self) {
            self.closed.store(true, Ordering::Release);
            let mut state = self.state.lock().unwrap();
            if state.crowd.waiting() > 0 {
                self.alarm(&mut state);
            }
        }

        fn close_lent(&self) {
            let mut state = self.state.lock().unwrap();
            self.lent_closed.store(true, Ordering::Release);
            let by_lent = state.by_lent;
            if state.crowd.send_home(by_lent) {
                self.alarm(&mut state);
            }
        }

        fn rebuild(&self) {
            let mut state = self.state.lock().unwrap();
            state.crowd.expect_retired().unwrap();
            let old = std::mem::replace(&mut state.in_use, 1);
            if state.crowd.retire(old) && self.way != Way::RetiresSilently {
                self.alarm(&mut state);
            }
        }
    }

    /// Each waits by the second handle or not. The closes are made while they
    /// go to sleep; then those are woken that the alarm wakes, one by one.
    fn all_come_back(waiters: &'static [bool], way: Way, act: fn(&Queue)) {
        loom::model(move || {
            let queue = Queue::new(way);
            let threads = waiters.iter().map(|lent| {
                let queue = queue.clone();
                thread::spawn(move || queue.wait(*lent))
            });
            let threads: Vec<_> = threads.collect();
            act(&queue);
            let calls = threads.into_iter().map(|thread| thread.join().unwrap());
            let mut calls: Vec<_> = calls.zip(waiters).collect();
            while let Some((call, lent)) = calls.iter_mut().find(|(call, _)| queue.goes_on(*call)) {
                if let Call::Sleeps(set) = *call {
                    queue.come_back(queue.state.lock().unwrap(), set, **lent);
                }
                *call = queue.wait(**lent);
            }
            assert!(calls.iter().all(|(call, _)| *call == Call::Over), "a thread waits for ever");
            let state = queue.state.lock().unwrap();
            let left = state.crowd.waiting + state.crowd.retired.len() + state.crowd.leaving;
            assert_eq!(left, 0);
        });
    }

    #[test]
    fn loom_all_who_wait_in_a_queue_come_back_when_it_is_closed() {
        all_come_back(&[false, false], Way::AsItIs, Queue::close);
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_a_check_before_the_lock_waits_in_a_closed_queue() {
        all_come_back(&[false], Way::ChecksBeforeTheLock, Queue::close);
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_an_alarm_that_is_not_passed_on_leaves_one_in_a_closed_queue() {
        all_come_back(&[false, false], Way::RingsOnce, Queue::close);
    }

    #[test]
    fn loom_who_waits_by_a_second_handle_comes_back_when_it_is_closed() {
        all_come_back(&[true, false], Way::AsItIs, |queue| {
            queue.close_lent();
            queue.close();
        });
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_an_alarm_that_another_takes_is_passed_on_or_lost() {
        all_come_back(&[true, false], Way::RingsOnce, |queue| {
            queue.close_lent();
            queue.close();
        });
    }

    #[test]
    fn loom_who_waits_in_a_set_that_was_replaced_comes_back() {
        all_come_back(&[false, false], Way::AsItIs, |queue| {
            queue.rebuild();
            queue.close();
        });
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_a_set_that_is_replaced_silently_keeps_who_waits_in_it() {
        all_come_back(&[false], Way::RetiresSilently, |queue| {
            queue.rebuild();
            queue.close();
        });
    }
}
