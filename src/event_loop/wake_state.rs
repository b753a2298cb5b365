//! How other threads and signal handlers reach a loop: two words, a stack of
//! async watchers and one of posted calls.
//!
//! A sender first stores its work (a bit of `work`, or a node in one of the
//! stacks), then looks whether the loop sleeps, and wakes it only then. The
//! loop stores in `asleep` that it is about to sleep, then looks once more for
//! work. All four are sequentially consistent: one of the two sees the other,
//! so no work waits while the loop sleeps. The sender that clears `asleep` gets
//! a [`Wake`], which wakes the loop when it is dropped: no early return can
//! forget it, and there is one wake-up for each sleep.
//!
//! No locks and no loops that wait for others: a signal handler may send.

use super::node_list::{ListNode, NodeList};
use super::pending_stack::{PendingStack, StackLinks};
use crate::errno::Errno;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*, model_order};
use std::ptr;

/// Bits of `work`.
pub(super) const HAS_COMMANDS: u64 = 1;
pub(super) const STOP: u64 = 2;
pub(super) const WAKEUP: u64 = 4;
pub(super) const CLOSED: u64 = 8;
/// A thread waits for the callback that is running to return.
pub(super) const BARRIER: u64 = 16;
/// A handler has seen a signal.
pub(super) const SIGNALS: u64 = 32;
const BITS: u32 = 8;
const MASK: u64 = (1 << BITS) - 1;

pub(super) struct WakeState<P> {
    /// The bits and, above them, whose they are: a wake state is used again for
    /// another loop, which a late sender must not disturb.
    work: AtomicU64,
    asleep: AtomicU32,
    /// The async watchers that were sent to.
    pending: PendingStack,
    /// The node that was posted last.
    posts: AtomicPtr<ListNode<P>>,
}

/// What wakes a sleeping loop.
pub(super) trait Waker {
    /// False: it cannot be woken, as the program has closed its descriptors.
    fn wake_loop(&self) -> bool;
}

/// The duty to wake a loop, if it slept; done when this is dropped. The
/// caller drops it where the loop finds all that it is woken for.
#[must_use]
pub(super) struct Wake<'a, W: Waker>(Option<&'a W>);

impl<W: Waker> Wake<'_, W> {
    /// Wakes it. Returns whether that could be done.
    #[inline(always)]
    pub fn now(mut self) -> Result<(), Errno> {
        match self.0.take() {
            Some(waker) if !waker.wake_loop() => Err(Errno::EBADF),
            _ => Ok(()),
        }
    }
}

impl<W: Waker> Drop for Wake<'_, W> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(waker) = self.0 {
            waker.wake_loop();
        }
    }
}

impl<P: Send> WakeState<P> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            work: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
            pending: PendingStack::new(),
            posts: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            work: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
            pending: PendingStack::new(),
            posts: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Stores some work for the loop with this handle. `None`: that loop is
    /// gone.
    #[must_use]
    pub fn set_pending<'a, W: Waker>(
        &self,
        waker: &'a W,
        handle: i64,
        bits: u64,
    ) -> Option<Wake<'a, W>> {
        let mut work = self.work.load(Relaxed);
        loop {
            if work >> BITS != handle.cast_unsigned() {
                return None;
            }
            // SeqCst: against `sleep`; and so a Release, for what was done.
            match self.work.compare_exchange_weak(work, work | bits, SeqCst, Relaxed) {
                Ok(_) => return Some(self.wake_if_asleep(waker)),
                Err(now) => work = now,
            }
        }
    }

    /// The tag of [`Self::push`], to be read before a watcher is marked.
    #[inline(always)]
    pub fn pending_tag(&self) -> u64 {
        self.pending.tag()
    }

    /// Puts an async watcher that was marked on the stack of its loop.
    /// `None`: that loop is gone.
    #[must_use]
    #[inline(always)]
    pub fn push<'a, W: Waker>(
        &self,
        waker: &'a W,
        links: &impl StackLinks,
        id: u32,
        tag: u64,
    ) -> Option<Wake<'a, W>> {
        self.pending.push(links, id, tag).then(|| self.wake_if_asleep(waker))
    }

    /// Posts a node.
    pub fn post<'a, W: Waker>(&self, waker: &'a W, node: Box<ListNode<P>>) -> Wake<'a, W> {
        let node = Box::into_raw(node);
        let mut last = self.posts.load(Relaxed);
        loop {
            // SAFETY: no other thread knows it yet.
            unsafe { (*node).next = last };
            // As in `set_pending`.
            match self.posts.compare_exchange_weak(last, node, SeqCst, Relaxed) {
                Ok(_) => return self.wake_if_asleep(waker),
                Err(now) => last = now,
            }
        }
    }

    #[inline(always)]
    pub fn has_posts(&self) -> bool {
        !self.posts.load(Relaxed).is_null()
    }

    /// Takes all posts for this loop, in the order in which they came. Those
    /// for another one are `stale`.
    pub fn take_posts(
        &self,
        loop_handle: i64,
        mut stale: impl FnMut(Box<ListNode<P>>),
    ) -> NodeList<P> {
        // Acquire: what their senders wrote.
        let first = self.posts.swap(ptr::null_mut(), AcqRel);
        // SAFETY: they are this thread's alone from now on.
        let mut stack = unsafe { NodeList::from_chain(first) };
        let mut taken = NodeList::new();
        // The last one is on top: each one goes before the others.
        while let Some(node) = stack.take() {
            if node.to() == loop_handle {
                taken.put_first(node);
            } else {
                stale(node);
            }
        }
        taken
    }

    #[inline(always)]
    fn wake_if_asleep<'a, W: Waker>(&self, waker: &'a W) -> Wake<'a, W> {
        model_order();
        let asleep = self.asleep.load(SeqCst) != 0 && self.asleep.swap(0, SeqCst) != 0;
        Wake(asleep.then_some(waker))
    }

    /// What was left, without taking it.
    #[inline(always)]
    pub fn peek(&self) -> u64 {
        self.work.load(Relaxed) & MASK
    }

    #[inline(always)]
    pub fn has_pending_asyncs(&self) -> bool {
        self.pending.has_any()
    }

    /// Whether anything was left.
    pub fn has_work(&self) -> bool {
        self.peek() != 0 || self.has_pending_asyncs() || self.has_posts()
    }

    /// Takes some of what was left; what of it was there.
    pub fn take(&self, bits: u64) -> u64 {
        // Acquire: sees what was done before it was left.
        self.work.fetch_and(!bits, AcqRel) & bits
    }

    /// Takes the whole stack; its top.
    pub fn take_pending_asyncs(&self) -> u32 {
        self.pending.take()
    }

    /// The same, for a loop that is closed: later pushes are refused.
    pub fn close_pending_asyncs(&self) -> u32 {
        self.pending.close()
    }

    /// The loop is about to sleep; false: it must not, something was left.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.asleep.swap(1, SeqCst);
        model_order();
        let something = self.work.load(SeqCst) & MASK != 0
            || self.pending.has_any_in_order()
            || !self.posts.load(SeqCst).is_null();
        if something {
            self.set_awake();
        }
        !something
    }

    /// The loop is awake: no thread has to wake it.
    pub fn set_awake(&self) {
        self.asleep.store(0, Relaxed);
    }

    /// The loop could not be woken: it still sleeps, as far as is known.
    pub fn wake_failed(&self) {
        self.asleep.store(1, Relaxed);
    }

    /// The handle of the loop that it belongs to.
    pub fn loop_handle(&self) -> i64 {
        (self.work.load(Relaxed) >> BITS).cast_signed()
    }

    /// Belongs to the loop with this handle from now on, or to none (0).
    pub fn assign(&self, handle: i64) {
        self.work.store(handle.cast_unsigned() << BITS, Release);
        self.asleep.store(0, Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LOOP: i64 = 77;

    /// The loop does not sleep.
    struct Never;

    impl Waker for Never {
        fn wake_loop(&self) -> bool {
            unreachable!("a loop was woken that does not sleep");
        }
    }

    fn node(to: i64, value: u32) -> Box<ListNode<Box<u32>>> {
        Box::new(ListNode::new(to, Box::new(value)))
    }

    fn values(mut posts: NodeList<Box<u32>>) -> Vec<u32> {
        std::iter::from_fn(|| posts.pop()).map(|value| *value).collect()
    }

    #[test]
    fn posts_of_several_threads_all_come_each_ones_in_order() {
        let wake_state = WakeState::new();
        wake_state.assign(LOOP);
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let wake_state = &wake_state;
                scope.spawn(move || {
                    for number in 0..10 {
                        drop(wake_state.post(&Never, node(LOOP, thread * 100 + number)));
                    }
                });
            }
            while got.len() < 30 {
                got.extend(values(wake_state.take_posts(LOOP, drop)));
            }
        });
        for thread in 0..3 {
            let own: Vec<_> = got.iter().filter(|value| **value / 100 == thread).collect();
            assert!(own.is_sorted() && own.len() == 10, "{got:?}");
        }
    }

    #[test]
    fn posts_for_another_loop_are_dropped() {
        let wake_state = WakeState::new();
        drop(wake_state.post(&Never, node(1, 1)));
        drop(wake_state.post(&Never, node(LOOP, 2)));
        drop(wake_state.post(&Never, node(1, 3)));
        assert_eq!(values(wake_state.take_posts(LOOP, drop)), [2]);
        assert!(!wake_state.has_posts());
    }
}

/// Every interleaving of senders and a loop.
#[cfg(all(test, loom))]
mod loom_models {
    use super::super::pending_stack::END_OF_STACK;
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32 as Counter, Ordering};
    use loom::thread;

    const LOOP: i64 = 77;

    struct WakeModel {
        wake_state: WakeState<u32>,
        /// How often it was woken and did not see it yet.
        wakes: Counter,
        next: [Counter; 3],
        pending: [Counter; 3],
        /// What the senders wrote before they sent.
        written: [Counter; 3],
    }

    struct WakeModelLinks<'a>(&'a WakeModel);

    impl StackLinks for WakeModelLinks<'_> {
        fn set_next(&self, id: u32, next: u32) {
            self.0.next[id as usize].store(next, Ordering::Relaxed);
        }
    }

    impl Waker for WakeModel {
        fn wake_loop(&self) -> bool {
            self.wakes.fetch_add(1, Ordering::Release);
            true
        }
    }

    impl WakeModel {
        fn new() -> Arc<Self> {
            let zeros = || std::array::from_fn(|_| Counter::new(0));
            let wake_state = WakeState::new();
            wake_state.assign(LOOP);
            Arc::new(Self {
                wake_state,
                wakes: Counter::new(0),
                next: zeros(),
                pending: zeros(),
                written: zeros(),
            })
        }

        fn send(&self, id: u32) {
            self.written[id as usize].fetch_add(1, Ordering::Relaxed);
            if self.pending[id as usize].swap(1, Ordering::AcqRel) == 0 {
                let tag = self.wake_state.pending_tag();
                drop(self.wake_state.push(self, &WakeModelLinks(self), id, tag).unwrap());
            }
        }

        /// Sleeps until it is woken; false: it need not have.
        fn sleep(&self) {
            if self.wake_state.sleep() {
                while self.wakes.swap(0, Ordering::Acquire) == 0 {
                    thread::yield_now();
                }
                self.wake_state.set_awake();
            }
        }
    }

    #[test]
    fn loom_no_work_is_left_lying() {
        loom::model(|| {
            let shared = WakeModel::new();
            let senders: Vec<_> = [STOP, HAS_COMMANDS]
                .into_iter()
                .map(|bit| {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        drop(shared.wake_state.set_pending(&*shared, LOOP, bit).unwrap())
                    })
                })
                .collect();
            let mut seen = 0;
            while seen != STOP | HAS_COMMANDS {
                shared.sleep();
                seen |= shared.wake_state.take(STOP | HAS_COMMANDS);
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }

    /// A watcher's close that lost the race for it returns early; then a stop
    /// is sent. The loop may sleep already, or be about to.
    fn an_early_return_then_a_stop(forgets: bool) {
        loom::model(move || {
            let shared = WakeModel::new();
            let sender = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let wake = shared.wake_state.set_pending(&*shared, LOOP, HAS_COMMANDS).unwrap();
                    if forgets {
                        std::mem::forget(wake);
                    } else {
                        drop(wake);
                    }
                    drop(shared.wake_state.set_pending(&*shared, LOOP, STOP).unwrap());
                })
            };
            let asleep = shared.wake_state.sleep();
            sender.join().unwrap();
            let woken = shared.wakes.load(Ordering::Acquire) > 0;
            assert!(!asleep || woken, "the loop sleeps, and no sender will wake it");
        });
    }

    #[test]
    fn loom_an_early_return_does_not_lose_the_wake_up() {
        an_early_return_then_a_stop(false);
    }

    #[test]
    #[should_panic(expected = "no sender will wake it")]
    fn loom_twin_a_wake_up_that_is_forgotten_leaves_the_loop_asleep() {
        an_early_return_then_a_stop(true);
    }

    /// Each of these lists is sent by a thread of its own.
    fn every_post_comes_once_and_in_order(senders: &'static [&'static [u32]]) {
        loom::model(move || {
            let shared = WakeModel::new();
            let threads = senders.iter().map(|posts| {
                let shared = shared.clone();
                thread::spawn(move || {
                    for node in *posts {
                        let node = Box::new(ListNode::new(LOOP, *node));
                        drop(shared.wake_state.post(&*shared, node));
                    }
                })
            });
            let threads: Vec<_> = threads.collect();
            let mut got = Vec::new();
            while got.len() < 2 {
                shared.sleep();
                let mut posts = shared.wake_state.take_posts(LOOP, drop);
                got.extend(std::iter::from_fn(|| posts.pop()));
            }
            let index = |node| got.iter().position(|other| *other == node).unwrap();
            assert!(index(1) < index(2) || senders.len() > 1);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_posts_of_one_thread_come_in_order() {
        every_post_comes_once_and_in_order(&[&[1, 2]]);
    }

    #[test]
    fn loom_posts_of_several_threads_all_come() {
        every_post_comes_once_and_in_order(&[&[1], &[2]]);
    }

    /// Each of these ids is sent to, in order, by a thread of its own.
    fn every_send_is_followed_by_a_look(senders: &'static [&'static [u32]]) {
        loom::model(move || {
            let shared = WakeModel::new();
            let mut wanted = [0; 3];
            senders.iter().copied().flatten().for_each(|id| wanted[*id as usize] += 1);
            let threads = senders.iter().map(|ids| {
                let shared = shared.clone();
                thread::spawn(move || ids.iter().for_each(|id| shared.send(*id)))
            });
            let threads: Vec<_> = threads.collect();
            let mut seen = [0; 3];
            while seen != wanted {
                shared.sleep();
                // As the loop does: first all links, then the flags.
                let mut taken = Vec::new();
                let mut id = shared.wake_state.take_pending_asyncs();
                while id != END_OF_STACK {
                    taken.push(id as usize);
                    id = shared.next[id as usize].load(Ordering::Relaxed);
                }
                for id in taken {
                    shared.pending[id].swap(0, Ordering::AcqRel);
                    seen[id] = shared.written[id].load(Ordering::Relaxed);
                }
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_every_send_to_one_watcher_is_followed_by_a_look() {
        every_send_is_followed_by_a_look(&[&[1, 1]]);
    }

    #[test]
    fn loom_every_send_to_several_is_followed_by_a_look() {
        every_send_is_followed_by_a_look(&[&[1], &[2]]);
    }
}
