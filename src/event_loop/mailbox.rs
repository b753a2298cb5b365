//! How other threads and signal handlers reach a loop: two words, a stack of
//! async watchers and one of letters.
//!
//! A sender first leaves what it has (a bit of `work`, or a place in one of
//! the stacks), then looks whether the loop sleeps, and rings only then. The loop
//! says that it is about to sleep, then looks once more for what was left.
//! All four are sequentially consistent: one of the two sees the other, so
//! nothing is left lying while the loop sleeps. The sender that takes `asleep`
//! away gets a [`Wake`], which wakes the loop when it is dropped: no early
//! return can forget it, and there is one wake-up for each sleep.
//!
//! No locks and no loops that wait for others: a signal handler may send.

use super::letters::{Letter, Letters};
use super::sent_stack::{Links, SentStack};
use crate::errno::Errno;
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*, model_order};
use std::ptr;

/// Bits of `work`.
pub(super) const INBOX: u64 = 1;
pub(super) const STOP: u64 = 2;
pub(super) const WAKEUP: u64 = 4;
pub(super) const CLOSED: u64 = 8;
/// Somebody waits for the callback that is running to return.
pub(super) const ASKED: u64 = 16;
/// A handler has seen a signal.
pub(super) const SIGNALS: u64 = 32;
const BITS: u32 = 8;
const MASK: u64 = (1 << BITS) - 1;

pub(super) struct Mailbox<P> {
    /// The bits and, above them, whose they are: a mailbox is used again for
    /// another loop, whom a late sender must not disturb.
    work: AtomicU64,
    asleep: AtomicU32,
    /// The async watchers that were sent to.
    sent: SentStack,
    /// The letter that came last.
    letters: AtomicPtr<Letter<P>>,
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
    /// Wakes it, for a caller that has to hear whether that could be done.
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

impl<P: Send> Mailbox<P> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            work: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
            sent: SentStack::new(),
            letters: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            work: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
            sent: SentStack::new(),
            letters: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Leaves some work for the loop with this handle. `None`: that loop is
    /// gone.
    #[must_use]
    pub fn leave<'a, W: Waker>(&self, waker: &'a W, handle: i64, bits: u64) -> Option<Wake<'a, W>> {
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
    pub fn sent_tag(&self) -> u64 {
        self.sent.tag()
    }

    /// Puts an async watcher that was marked on the stack of its loop.
    /// `None`: that loop is gone.
    #[must_use]
    #[inline(always)]
    pub fn push<'a, W: Waker>(
        &self,
        waker: &'a W,
        links: &impl Links,
        id: u32,
        tag: u64,
    ) -> Option<Wake<'a, W>> {
        self.sent.push(links, id, tag).then(|| self.wake_if_asleep(waker))
    }

    /// Sends a letter.
    pub fn post<'a, W: Waker>(&self, waker: &'a W, letter: Box<Letter<P>>) -> Wake<'a, W> {
        let letter = Box::into_raw(letter);
        let mut last = self.letters.load(Relaxed);
        loop {
            // SAFETY: nobody else knows it yet.
            unsafe { (*letter).next = last };
            // As in `leave`.
            match self.letters.compare_exchange_weak(last, letter, SeqCst, Relaxed) {
                Ok(_) => return self.wake_if_asleep(waker),
                Err(now) => last = now,
            }
        }
    }

    #[inline(always)]
    pub fn has_letters(&self) -> bool {
        !self.letters.load(Relaxed).is_null()
    }

    /// Takes all letters for this loop, in the order in which they came. Those
    /// for another one are `stale`.
    pub fn take_letters(&self, owner: i64, mut stale: impl FnMut(Box<Letter<P>>)) -> Letters<P> {
        // Acquire: what their senders wrote.
        let first = self.letters.swap(ptr::null_mut(), AcqRel);
        // SAFETY: they are this thread's alone from now on.
        let mut stack = unsafe { Letters::from_chain(first) };
        let mut taken = Letters::new();
        // The last one is on top: each one goes before the others.
        while let Some(letter) = stack.take() {
            if letter.to() == owner {
                taken.put_first(letter);
            } else {
                stale(letter);
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
    pub fn has_sent(&self) -> bool {
        self.sent.has_any()
    }

    /// Whether anything was left.
    pub fn has_work(&self) -> bool {
        self.peek() != 0 || self.has_sent() || self.has_letters()
    }

    /// Takes some of what was left; what of it was there.
    pub fn take(&self, bits: u64) -> u64 {
        // Acquire: sees what was done before it was left.
        self.work.fetch_and(!bits, AcqRel) & bits
    }

    /// Takes the whole stack; its top.
    pub fn take_sent(&self) -> u32 {
        self.sent.take()
    }

    /// The same, for a loop that is closed: later pushes are refused.
    pub fn close_sent(&self) -> u32 {
        self.sent.close()
    }

    /// The loop is about to sleep; false: it must not, something was left.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.asleep.swap(1, SeqCst);
        model_order();
        let something = self.work.load(SeqCst) & MASK != 0
            || self.sent.has_any_in_order()
            || !self.letters.load(SeqCst).is_null();
        if something {
            self.wake();
        }
        !something
    }

    /// The loop is awake: nobody needs to ring.
    pub fn wake(&self) {
        self.asleep.store(0, Relaxed);
    }

    /// The loop could not be rung: it still sleeps, as far as is known.
    pub fn not_rung(&self) {
        self.asleep.store(1, Relaxed);
    }

    /// The handle of the loop that it belongs to.
    pub fn owner(&self) -> i64 {
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

    fn letter(to: i64, content: u32) -> Box<Letter<Box<u32>>> {
        Box::new(Letter::new(to, Box::new(content)))
    }

    fn contents(mut letters: Letters<Box<u32>>) -> Vec<u32> {
        std::iter::from_fn(|| letters.pop()).map(|content| *content).collect()
    }

    #[test]
    fn letters_of_several_threads_all_come_each_ones_in_order() {
        let mailbox = Mailbox::new();
        mailbox.assign(LOOP);
        let mut got = Vec::new();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let mailbox = &mailbox;
                scope.spawn(move || {
                    for number in 0..10 {
                        drop(mailbox.post(&Never, letter(LOOP, thread * 100 + number)));
                    }
                });
            }
            while got.len() < 30 {
                got.extend(contents(mailbox.take_letters(LOOP, drop)));
            }
        });
        for thread in 0..3 {
            let own: Vec<_> = got.iter().filter(|content| **content / 100 == thread).collect();
            assert!(own.is_sorted() && own.len() == 10, "{got:?}");
        }
    }

    #[test]
    fn letters_for_another_loop_are_dropped() {
        let mailbox = Mailbox::new();
        drop(mailbox.post(&Never, letter(1, 1)));
        drop(mailbox.post(&Never, letter(LOOP, 2)));
        drop(mailbox.post(&Never, letter(1, 3)));
        assert_eq!(contents(mailbox.take_letters(LOOP, drop)), [2]);
        assert!(!mailbox.has_letters());
    }
}

/// Every interleaving of senders and a loop.
#[cfg(all(test, loom))]
mod loom_models {
    use super::super::sent_stack::NOBODY;
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32 as Counter, Ordering};
    use loom::thread;

    const LOOP: i64 = 77;

    struct Shared {
        mailbox: Mailbox<u32>,
        /// How often it was rung and not heard.
        rings: Counter,
        next: [Counter; 3],
        pending: [Counter; 3],
        /// What the senders wrote before they sent.
        written: [Counter; 3],
    }

    struct InShared<'a>(&'a Shared);

    impl Links for InShared<'_> {
        fn set_next(&self, id: u32, next: u32) {
            self.0.next[id as usize].store(next, Ordering::Relaxed);
        }
    }

    impl Waker for Shared {
        fn wake_loop(&self) -> bool {
            self.rings.fetch_add(1, Ordering::Release);
            true
        }
    }

    impl Shared {
        fn new() -> Arc<Self> {
            let zeros = || std::array::from_fn(|_| Counter::new(0));
            let mailbox = Mailbox::new();
            mailbox.assign(LOOP);
            Arc::new(Self {
                mailbox,
                rings: Counter::new(0),
                next: zeros(),
                pending: zeros(),
                written: zeros(),
            })
        }

        fn send(&self, id: u32) {
            self.written[id as usize].fetch_add(1, Ordering::Relaxed);
            if self.pending[id as usize].swap(1, Ordering::AcqRel) == 0 {
                let tag = self.mailbox.sent_tag();
                drop(self.mailbox.push(self, &InShared(self), id, tag).unwrap());
            }
        }

        /// Sleeps until it is rung; false: it need not have.
        fn sleep(&self) {
            if self.mailbox.sleep() {
                while self.rings.swap(0, Ordering::Acquire) == 0 {
                    thread::yield_now();
                }
                self.mailbox.wake();
            }
        }
    }

    #[test]
    fn loom_no_work_is_left_lying() {
        loom::model(|| {
            let shared = Shared::new();
            let senders: Vec<_> = [STOP, INBOX]
                .into_iter()
                .map(|bit| {
                    let shared = shared.clone();
                    thread::spawn(move || drop(shared.mailbox.leave(&*shared, LOOP, bit).unwrap()))
                })
                .collect();
            let mut seen = 0;
            while seen != STOP | INBOX {
                shared.sleep();
                seen |= shared.mailbox.take(STOP | INBOX);
            }
            senders.into_iter().for_each(|sender| sender.join().unwrap());
        });
    }

    /// A watcher's close that lost the race for it returns early; then a stop
    /// is sent. The loop may sleep already, or be about to.
    fn an_early_return_then_a_stop(forgets: bool) {
        loom::model(move || {
            let shared = Shared::new();
            let sender = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let wake = shared.mailbox.leave(&*shared, LOOP, INBOX).unwrap();
                    if forgets {
                        std::mem::forget(wake);
                    } else {
                        drop(wake);
                    }
                    drop(shared.mailbox.leave(&*shared, LOOP, STOP).unwrap());
                })
            };
            let asleep = shared.mailbox.sleep();
            sender.join().unwrap();
            let rung = shared.rings.load(Ordering::Acquire) > 0;
            assert!(!asleep || rung, "the loop sleeps, and no sender will wake it");
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
    fn every_letter_comes_once_and_in_order(senders: &'static [&'static [u32]]) {
        loom::model(move || {
            let shared = Shared::new();
            let threads = senders.iter().map(|letters| {
                let shared = shared.clone();
                thread::spawn(move || {
                    for letter in *letters {
                        let letter = Box::new(Letter::new(LOOP, *letter));
                        drop(shared.mailbox.post(&*shared, letter));
                    }
                })
            });
            let threads: Vec<_> = threads.collect();
            let mut got = Vec::new();
            while got.len() < 2 {
                shared.sleep();
                let mut letters = shared.mailbox.take_letters(LOOP, drop);
                got.extend(std::iter::from_fn(|| letters.pop()));
            }
            let place = |letter| got.iter().position(|other| *other == letter).unwrap();
            assert!(place(1) < place(2) || senders.len() > 1);
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }

    #[test]
    fn loom_letters_of_one_thread_come_in_order() {
        every_letter_comes_once_and_in_order(&[&[1, 2]]);
    }

    #[test]
    fn loom_letters_of_several_threads_all_come() {
        every_letter_comes_once_and_in_order(&[&[1], &[2]]);
    }

    /// Each of these ids is sent to, in order, by a thread of its own.
    fn every_send_is_followed_by_a_look(senders: &'static [&'static [u32]]) {
        loom::model(move || {
            let shared = Shared::new();
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
                let mut id = shared.mailbox.take_sent();
                while id != NOBODY {
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
