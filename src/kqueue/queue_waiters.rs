//! The threads that wait in a queue's epolls, and how they come back.
//!
//! All of it is done with the queue's lock; a thread waits without it. The
//! queue's alarm is in all of its sets and wakes one thread in each: that one
//! has the lock when it has come back, and sets the alarm again for the next,
//! as long as there is one that has to come back. That is all of them when the
//! queue is closed, those that wait in a set that was replaced, and as many as
//! wait by a second handle that was closed: which of them comes first is not
//! known, so that those that need not leave wait again.
//!
//! The closing thread stores that the queue is closed before it takes the lock.
//! A thread that waits looks at that after it has taken the lock. So either the
//! waiting thread is counted here by then, or it sees that the queue is closed.

use crate::util::alloc::{NoMemory, TryVec};

/// `S`: a set of epolls.
pub(super) struct QueueWaiters<S> {
    /// How many wait in the set that is in use.
    waiting: usize,
    /// Sets that were in use before, and how many wait in each.
    retired_sets: Vec<(S, usize)>,
    /// How many are to come back because a second handle was closed.
    draining: usize,
}

/// What becomes of the alarm when a thread has come back.
#[derive(PartialEq, Eq)]
pub(super) enum AlarmAction {
    SetAgain,
    Keep,
    Clear,
}

#[cfg_attr(loom, allow(dead_code))]
impl<S> QueueWaiters<S> {
    pub const fn new() -> Self {
        Self { waiting: 0, retired_sets: Vec::new(), draining: 0 }
    }

    /// How many wait in the set that is in use.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn is_draining(&self) -> bool {
        self.draining > 0
    }

    pub fn retired_sets(&self) -> impl Iterator<Item = &S> {
        self.retired_sets.iter().map(|(set, _)| set)
    }

    /// This thread is going to wait in the set that is in use.
    pub fn enter(&mut self) {
        self.waiting += 1;
    }

    /// Makes room, so that [`Self::retire`] does not fail.
    pub fn expect_retired(&mut self) -> Result<(), NoMemory> {
        if self.waiting > 0 {
            self.retired_sets.try_reserve(1).map_err(|_| NoMemory)?;
        }
        Ok(())
    }

    /// Another set is in use from now on. True: threads wait in this one, and
    /// the alarm is to be set. It goes with the last of them.
    #[must_use]
    pub fn retire(&mut self, set: S) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting > 0 {
            self.retired_sets.push_reserved((set, waiting));
        }
        waiting > 0
    }

    /// A thread has come back from a set: the one in use, or the one that
    /// `is` its. `drained`: because of a second handle. True: others wait in a
    /// set that is not in use.
    pub fn come_back(&mut self, from_in_use: bool, is: impl Fn(&S) -> bool, drained: bool) -> bool {
        let mut others = false;
        if from_in_use {
            self.waiting -= 1;
        } else if let Some(index) = self.retired_sets.iter().position(|(set, _)| is(set))
            && let Some((_, waiting)) = self.retired_sets.get_mut(index)
        {
            *waiting -= 1;
            others = *waiting > 0;
            if !others {
                self.retired_sets.swap_remove(index);
            }
        }
        self.draining -= usize::from(drained && self.draining > 0);
        others
    }

    /// What becomes of the alarm then. `others`: what [`Self::come_back`]
    /// returned.
    pub fn alarm_action(&self, others: bool, is_closed: bool) -> AlarmAction {
        if others || self.draining > 0 || (is_closed && self.waiting > 0) {
            AlarmAction::SetAgain
        } else if self.retired_sets.is_empty() {
            AlarmAction::Clear
        } else {
            AlarmAction::Keep
        }
    }

    /// A second handle was closed, by which so many wait. True: the alarm is to
    /// be set.
    #[must_use]
    pub fn drain(&mut self, waiting: usize) -> bool {
        self.draining += waiting;
        waiting > 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_rings_until_all_have_come_back_that_have_to() {
        let mut waiters = QueueWaiters::new();
        (0..3).for_each(|_| waiters.enter());
        waiters.expect_retired().unwrap();
        assert!(waiters.retire('a') && !waiters.retire('b'));
        waiters.enter();
        assert!(waiters.drain(1) && !waiters.drain(0));
        for (from_in_use, drained, alarm) in [
            (false, false, AlarmAction::SetAgain),
            (true, true, AlarmAction::Keep),
            (false, false, AlarmAction::SetAgain),
            (false, false, AlarmAction::Clear),
        ] {
            let others = waiters.come_back(from_in_use, |set| *set == 'a', drained);
            assert!(waiters.alarm_action(others, false) == alarm);
        }
        assert!(waiters.retired_sets().next().is_none() && !waiters.is_draining());
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
    enum QueueVariant {
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

    struct ModelState {
        waiters: QueueWaiters<usize>,
        in_use: usize,
        /// How many wait by the second handle.
        by_lent: usize,
        alarmed: bool,
    }

    struct ModelQueue {
        state: Mutex<ModelState>,
        /// Whether the alarm is set in a set, and no thread was woken by it.
        rung: [AtomicBool; 2],
        closed: AtomicBool,
        lent_closed: AtomicBool,
        variant: QueueVariant,
    }

    impl ModelQueue {
        fn new(variant: QueueVariant) -> Arc<Self> {
            let state =
                ModelState { waiters: QueueWaiters::new(), in_use: 0, by_lent: 0, alarmed: false };
            Arc::new(Self {
                state: Mutex::new(state),
                rung: [AtomicBool::new(false), AtomicBool::new(false)],
                closed: AtomicBool::new(false),
                lent_closed: AtomicBool::new(false),
                variant,
            })
        }

        fn alarm(&self, state: &mut ModelState) {
            state.alarmed = true;
            // The kernel has one order for this and for the wake-ups: loom has
            // it for read-modify-writes.
            for rung in &self.rung {
                rung.swap(true, Ordering::AcqRel);
            }
        }

        fn is_over(&self, alias: bool) -> bool {
            let lent_closed = alias && self.lent_closed.load(Ordering::Acquire);
            lent_closed || self.closed.load(Ordering::Acquire)
        }

        /// As a call that waits for an event that never comes, until it
        /// returns, sleeps, or lets those go first that are to come back.
        fn wait(&self, alias: bool) -> Call {
            loop {
                let early = self.is_over(alias);
                let mut state = self.state.lock().unwrap();
                let is_over = match self.variant {
                    QueueVariant::ChecksBeforeTheLock => early,
                    _ => self.is_over(alias),
                };
                if is_over {
                    return Call::Over;
                }
                if state.waiters.is_draining() {
                    return Call::Pauses;
                }
                state.waiters.enter();
                state.by_lent += usize::from(alias);
                let set = state.in_use;
                drop(state);
                if !self.is_woken(set) {
                    return Call::Sleeps(set);
                }
                self.come_back(self.state.lock().unwrap(), set, alias);
            }
        }

        fn goes_on(&self, call: Call) -> bool {
            match call {
                Call::Over => false,
                Call::Sleeps(set) => self.is_woken(set),
                Call::Pauses => !self.state.lock().unwrap().waiters.is_draining(),
            }
        }

        fn is_woken(&self, set: usize) -> bool {
            self.rung[set].swap(false, Ordering::AcqRel)
        }

        fn come_back(&self, mut state: MutexGuard<'_, ModelState>, set: usize, alias: bool) {
            let from_in_use = state.in_use == set;
            let drained = alias && self.lent_closed.load(Ordering::Relaxed);
            let others = state.waiters.come_back(from_in_use, |other| *other == set, drained);
            state.by_lent -= usize::from(alias);
            if !state.alarmed || self.variant == QueueVariant::RingsOnce {
                return;
            }
            match state.waiters.alarm_action(others, self.closed.load(Ordering::Relaxed)) {
                AlarmAction::SetAgain => self.alarm(&mut state),
                AlarmAction::Clear => state.alarmed = false,
                AlarmAction::Keep => {}
            }
        }

        fn close(&self) {
            self.closed.store(true, Ordering::Release);
            let mut state = self.state.lock().unwrap();
            if state.waiters.waiting() > 0 {
                self.alarm(&mut state);
            }
        }

        fn close_lent(&self) {
            let mut state = self.state.lock().unwrap();
            self.lent_closed.store(true, Ordering::Release);
            let by_lent = state.by_lent;
            if state.waiters.drain(by_lent) {
                self.alarm(&mut state);
            }
        }

        fn rebuild(&self) {
            let mut state = self.state.lock().unwrap();
            state.waiters.expect_retired().unwrap();
            let old = std::mem::replace(&mut state.in_use, 1);
            if state.waiters.retire(old) && self.variant != QueueVariant::RetiresSilently {
                self.alarm(&mut state);
            }
        }
    }

    /// Each waits by the second handle or not. The closes are made while they
    /// go to sleep; then those are woken that the alarm wakes, one by one.
    fn all_come_back(waiters: &'static [bool], variant: QueueVariant, act: fn(&ModelQueue)) {
        loom::model(move || {
            let queue = ModelQueue::new(variant);
            let threads = waiters.iter().map(|alias| {
                let queue = queue.clone();
                thread::spawn(move || queue.wait(*alias))
            });
            let threads: Vec<_> = threads.collect();
            act(&queue);
            let calls = threads.into_iter().map(|thread| thread.join().unwrap());
            let mut calls: Vec<_> = calls.zip(waiters).collect();
            while let Some((call, alias)) = calls.iter_mut().find(|(call, _)| queue.goes_on(*call))
            {
                if let Call::Sleeps(set) = *call {
                    queue.come_back(queue.state.lock().unwrap(), set, **alias);
                }
                *call = queue.wait(**alias);
            }
            assert!(calls.iter().all(|(call, _)| *call == Call::Over), "a thread waits for ever");
            let state = queue.state.lock().unwrap();
            let left =
                state.waiters.waiting + state.waiters.retired_sets.len() + state.waiters.draining;
            assert_eq!(left, 0);
        });
    }

    #[test]
    fn loom_all_who_wait_in_a_queue_come_back_when_it_is_closed() {
        all_come_back(&[false, false], QueueVariant::AsItIs, ModelQueue::close);
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_a_check_before_the_lock_waits_in_a_closed_queue() {
        all_come_back(&[false], QueueVariant::ChecksBeforeTheLock, ModelQueue::close);
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_an_alarm_that_is_not_passed_on_leaves_one_in_a_closed_queue() {
        all_come_back(&[false, false], QueueVariant::RingsOnce, ModelQueue::close);
    }

    #[test]
    fn loom_who_waits_by_a_second_handle_comes_back_when_it_is_closed() {
        all_come_back(&[true, false], QueueVariant::AsItIs, |queue| {
            queue.close_lent();
            queue.close();
        });
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_an_alarm_that_another_takes_is_passed_on_or_lost() {
        all_come_back(&[true, false], QueueVariant::RingsOnce, |queue| {
            queue.close_lent();
            queue.close();
        });
    }

    #[test]
    fn loom_who_waits_in_a_set_that_was_replaced_comes_back() {
        all_come_back(&[false, false], QueueVariant::AsItIs, |queue| {
            queue.rebuild();
            queue.close();
        });
    }

    #[test]
    #[should_panic(expected = "waits for ever")]
    fn loom_twin_a_set_that_is_replaced_silently_keeps_who_waits_in_it() {
        all_come_back(&[false], QueueVariant::RetiresSilently, |queue| {
            queue.rebuild();
            queue.close();
        });
    }
}
