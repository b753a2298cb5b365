//! How other threads and signal handlers reach a loop: two words, a stack of
//! async watchers and one of letters.
//!
//! A sender first leaves what it has (a bit of `work`, or a place in one of
//! the stacks), then looks whether the loop sleeps, and rings only then. The loop
//! says that it is about to sleep, then looks once more for what was left.
//! All four are sequentially consistent: one of the two sees the other, so
//! nothing is left lying while the loop sleeps. Whoever takes `asleep` away
//! rings: one ring for each sleep.
//!
//! No locks and no loops that wait for others: a signal handler may send.

use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
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

/// The end of the stack, and of nothing.
pub(super) const NOBODY: u32 = 0;

/// What is delivered once, and may need memory: no signal handler sends it.
pub(super) struct Letter<P> {
    next: *mut Letter<P>,
    /// The loop it is for.
    to: i64,
    content: P,
}

impl<P> Letter<P> {
    pub fn new(to: i64, content: P) -> Self {
        Self { next: ptr::null_mut(), to, content }
    }
}

/// Letters that were taken, or wrote themselves; their owner's.
pub(super) struct Letters<P> {
    first: *mut Letter<P>,
    last: *mut Letter<P>,
    len: usize,
}

// SAFETY: it owns its letters, whose contents may go to other threads.
unsafe impl<P: Send> Send for Letters<P> {}

impl<P> Letters<P> {
    pub fn new() -> Self {
        Self { first: ptr::null_mut(), last: ptr::null_mut(), len: 0 }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    fn put_first(&mut self, mut letter: Box<Letter<P>>) {
        letter.next = self.first;
        self.first = Box::into_raw(letter);
        if self.last.is_null() {
            self.last = self.first;
        }
        self.len += 1;
    }

    pub fn push(&mut self, letter: Box<Letter<P>>) {
        let mut one = Self::new();
        one.put_first(letter);
        self.append(&mut one);
    }

    /// Moves all of another list behind these.
    pub fn append(&mut self, others: &mut Self) {
        if others.first.is_null() {
            return;
        }
        if self.last.is_null() {
            self.first = others.first;
        } else {
            // SAFETY: the last of the list, which this owns.
            unsafe { (*self.last).next = others.first };
        }
        self.last = others.last;
        self.len += others.len;
        (others.first, others.last, others.len) = (ptr::null_mut(), ptr::null_mut(), 0);
    }

    fn take(&mut self) -> Option<Box<Letter<P>>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: made of a box, and this owns it.
        let letter = unsafe { Box::from_raw(self.first) };
        self.first = letter.next;
        if self.first.is_null() {
            self.last = ptr::null_mut();
        }
        self.len = self.len.saturating_sub(1);
        Some(letter)
    }

    /// The content of the next one.
    #[inline]
    pub fn pop(&mut self) -> Option<P> {
        self.take().map(|letter| letter.content)
    }
}

impl<P> Drop for Letters<P> {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

pub(super) struct Mailbox<P> {
    /// The bits and, above them, whose they are: a mailbox is used again for
    /// another loop, whom a late sender must not disturb.
    work: AtomicU64,
    asleep: AtomicU32,
    /// The record on top of the stack of those that were sent to.
    top: AtomicU32,
    /// The letter that came last.
    letters: AtomicPtr<Letter<P>>,
}

/// The links of the stack: a word of each record.
pub(super) trait Links {
    fn set_next(&self, id: u32, next: u32);
}

impl<P: Send> Mailbox<P> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            work: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
            top: AtomicU32::new(NOBODY),
            letters: AtomicPtr::new(ptr::null_mut()),
        }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            work: AtomicU64::new(0),
            asleep: AtomicU32::new(0),
            top: AtomicU32::new(NOBODY),
            letters: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Leaves some work for the loop with this handle; true: the caller has
    /// to ring. `None`: that loop is gone.
    #[must_use]
    pub fn leave(&self, handle: i64, bits: u64) -> Option<bool> {
        let mut work = self.work.load(Relaxed);
        loop {
            if work >> BITS != handle.cast_unsigned() {
                return None;
            }
            // SeqCst: against `sleep`; and so a Release, for what was done.
            match self.work.compare_exchange_weak(work, work | bits, SeqCst, Relaxed) {
                Ok(_) => return Some(self.must_ring()),
                Err(now) => work = now,
            }
        }
    }

    /// Puts a record on the stack, which it is not on; true: the caller has
    /// to ring.
    #[must_use]
    pub fn push(&self, links: &impl Links, id: u32) -> bool {
        let mut top = self.top.load(Relaxed);
        loop {
            links.set_next(id, top);
            // SeqCst: against `sleep`; and so a Release, for what was sent.
            match self.top.compare_exchange_weak(top, id, SeqCst, Relaxed) {
                Ok(_) => return self.must_ring(),
                Err(now) => top = now,
            }
        }
    }

    /// Sends a letter; true: the caller has to ring.
    #[must_use]
    pub fn post(&self, letter: Box<Letter<P>>) -> bool {
        let letter = Box::into_raw(letter);
        let mut last = self.letters.load(Relaxed);
        loop {
            // SAFETY: nobody else knows it yet.
            unsafe { (*letter).next = last };
            // As in `push`.
            match self.letters.compare_exchange_weak(last, letter, SeqCst, Relaxed) {
                Ok(_) => return self.must_ring(),
                Err(now) => last = now,
            }
        }
    }

    #[inline(always)]
    pub fn has_letters(&self) -> bool {
        !self.letters.load(Relaxed).is_null()
    }

    /// Takes all letters for this loop, in the order in which they came.
    pub fn take_letters(&self, owner: i64) -> Letters<P> {
        // Acquire: what their senders wrote.
        let mut stack = Letters::new();
        stack.first = self.letters.swap(ptr::null_mut(), AcqRel);
        let mut taken = Letters::new();
        // The last one is on top: each one goes before the others.
        while let Some(letter) = stack.take() {
            if letter.to == owner {
                taken.put_first(letter);
            }
        }
        taken
    }

    fn must_ring(&self) -> bool {
        model_order();
        self.asleep.load(SeqCst) != 0 && self.asleep.swap(0, SeqCst) != 0
    }

    /// What was left, without taking it.
    #[inline(always)]
    pub fn peek(&self) -> u64 {
        self.work.load(Relaxed) & MASK
    }

    #[inline(always)]
    pub fn has_sent(&self) -> bool {
        self.top.load(Relaxed) != NOBODY
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
        if self.top.load(Relaxed) == NOBODY { NOBODY } else { self.top.swap(NOBODY, AcqRel) }
    }

    /// The loop is about to sleep; false: it must not, something was left.
    #[must_use]
    pub fn sleep(&self) -> bool {
        self.asleep.swap(1, SeqCst);
        model_order();
        let something = self.work.load(SeqCst) & MASK != 0
            || self.top.load(SeqCst) != NOBODY
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

/// Sequentially consistent accesses have one order that all threads agree on;
/// loom only models that of fences.
#[inline(always)]
fn model_order() {
    #[cfg(loom)]
    loom::sync::atomic::fence(SeqCst);
}

/// Every interleaving of senders and a loop.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32 as Counter, Ordering};
    use loom::thread;

    const LOOP: i64 = 77;

    struct Shared {
        mailbox: Mailbox<u32>,
        /// The eventfd: how often it was rung and not heard.
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

        fn ring_if(&self, must: bool) {
            if must {
                self.rings.fetch_add(1, Ordering::Release);
            }
        }

        fn send(&self, id: u32) {
            self.written[id as usize].fetch_add(1, Ordering::Relaxed);
            if self.pending[id as usize].swap(1, Ordering::AcqRel) == 0 {
                self.ring_if(self.mailbox.push(&InShared(self), id));
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
                    thread::spawn(move || shared.ring_if(shared.mailbox.leave(LOOP, bit).unwrap()))
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

    /// Each of these lists is sent by a thread of its own.
    fn every_letter_comes_once_and_in_order(senders: &'static [&'static [u32]]) {
        loom::model(move || {
            let shared = Shared::new();
            let threads = senders.iter().map(|letters| {
                let shared = shared.clone();
                thread::spawn(move || {
                    for letter in *letters {
                        let letter = Box::new(Letter::new(LOOP, *letter));
                        shared.ring_if(shared.mailbox.post(letter));
                    }
                })
            });
            let threads: Vec<_> = threads.collect();
            let mut got = Vec::new();
            while got.len() < 2 {
                shared.sleep();
                let mut letters = shared.mailbox.take_letters(LOOP);
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
