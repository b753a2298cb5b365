//! The word of a slot: its generation and state, by which handles are checked;
//! and the orders in which a slot's loop is published and read.
//!
//! A lookup reads the pointer to the loop, then the word, or the other way
//! round; whichever it is, the two have to belong together. The pointer is
//! stored with [`PUBLISH`] before the slot is made live and read with [`FIND`]:
//! a thread that reads the pointer of a later loop also sees that the word is
//! not that of the earlier watcher any more, what that loop has been asked to
//! do before, and the whole of what the pointer leads to.

use crate::sync::{AtomicU32, AtomicU64, Ordering, Ordering::*, fence};

/// States of a slot, the low bits of its word.
pub(super) const FREE: u32 = 0;
pub(super) const LIVE: u32 = 1;
/// Closed, but not freed yet by the thread that may.
pub(super) const CLOSING: u32 = 2;
pub(super) const LOOP: u32 = 3;
/// Or-ed to the state of an async watcher: it was sent to, and is on its
/// loop's stack or about to be put there. It is not freed before it is taken
/// off.
const PENDING: u32 = 0x10;
/// Or-ed to CLOSING: another thread closed it, and had no memory for a command
/// to the loop; and it removed the registration with the kernel.
const UNLISTED: u32 = 0x20;
const REMOVED: u32 = 0x40;
/// Or-ed to CLOSING, of an async watcher whose loop is gone: a sender that had
/// marked it, and whose push is refused, frees it.
const LEFT: u32 = 0x80;
/// What says nothing about the state.
const MARKS: u32 = PENDING | UNLISTED | REMOVED | LEFT;
const STATE_BITS: u32 = 8;
const STATE: u32 = (1 << STATE_BITS) - 1;

/// The order in which a slot's pointer to its loop is stored, and read.
pub(super) const PUBLISH: Ordering = Release;
pub(super) const FIND: Ordering = Acquire;

/// generation 24 | state 8. All-zero bytes are a free slot.
pub(super) struct SlotWord(AtomicU32);

const fn word(generation: u32, state: u32) -> u32 {
    generation << STATE_BITS | state
}

impl SlotWord {
    #[cfg(loom)]
    pub fn new() -> Self {
        Self(AtomicU32::new(0))
    }

    /// Free, and of this generation.
    pub fn begin(&self, generation: u32) {
        self.0.store(word(generation, FREE), Relaxed);
    }

    #[inline(always)]
    pub fn generation(&self) -> u32 {
        self.0.load(Relaxed) >> STATE_BITS
    }

    /// Whether it is of this generation, in this state.
    #[inline(always)]
    pub fn is(&self, generation: u32, state: u32) -> bool {
        // Acquire: sees the rest as the thread that made it live left it.
        self.0.load(Acquire) & !MARKS == word(generation, state)
    }

    pub fn state(&self) -> u32 {
        self.0.load(Relaxed) & STATE & !MARKS
    }

    /// The generation, if it is live.
    pub fn live_generation(&self) -> Option<u32> {
        // Acquire: as in `is`.
        let seen = self.0.load(Acquire);
        (seen & STATE & !MARKS == LIVE).then_some(seen >> STATE_BITS)
    }

    /// What `read` finds in the slot while it is live, and the generation: all
    /// that was read belongs to that, but may be a moment old.
    pub fn look<R>(&self, read: impl FnOnce() -> Option<R>) -> Option<(u32, R)> {
        let generation = self.live_generation()?;
        let found = read()?;
        // Acquire: pairs with `begin_contents`.
        fence(Acquire);
        (self.live_generation()? == generation).then_some((generation, found))
    }

    #[inline(always)]
    pub fn set_state(&self, state: u32) {
        // Release: who finds it live sees what was stored before.
        self.0.store(word(self.generation(), state), Release);
    }

    pub fn is_pending(&self) -> bool {
        self.0.load(Relaxed) & PENDING != 0
    }

    /// Marks an async watcher sent to; true: it was not, and the caller has
    /// to put it on its loop's stack. `None`: it is not live any more.
    #[inline(always)]
    pub fn mark_pending(&self, generation: u32) -> Option<bool> {
        let live = word(generation, LIVE);
        let mut seen = self.0.load(Relaxed);
        loop {
            if seen & !PENDING != live {
                return None;
            }
            // Release, and a write even if it is marked already: the thread
            // that takes the mark off sees what the sender wrote before.
            match self.0.compare_exchange_weak(seen, live | PENDING, AcqRel, Relaxed) {
                Ok(_) => return Some(seen & PENDING == 0),
                Err(now) => seen = now,
            }
        }
    }

    /// Marks it sent to again, after the mark was taken off; whether a sender
    /// has marked it since.
    pub fn mark_pending_again(&self) -> bool {
        self.0.fetch_or(PENDING, Relaxed) & PENDING != 0
    }

    /// Takes the mark off; whether it was there.
    pub fn clear_pending(&self) -> bool {
        // Acquire: pairs with the Release of every `send` so far.
        self.0.fetch_and(!PENDING, AcqRel) & PENDING != 0
    }

    /// The same of a sender whose push was refused; true: the loop has left the
    /// slot to it, and it frees it.
    pub fn refuse(&self) -> bool {
        // AcqRel: one of this and `leave_to_sender` comes second.
        self.0.fetch_and(!PENDING, AcqRel) & LEFT != 0
    }

    /// Of a closed watcher whose loop refuses all pushes: whether a sender has
    /// not seen that yet, and frees it. Else the caller does.
    pub fn leave_to_sender(&self) -> bool {
        self.0.fetch_or(LEFT, AcqRel) & PENDING != 0
    }

    /// From live to closing; false: another thread was faster. A read-modify-
    /// write, by the loop's own thread too: so it sees what a thread that was
    /// faster has left for the loop before, and one of the two closes.
    pub fn close(&self, generation: u32) -> bool {
        self.close_with(generation, 0)
    }

    /// The same, where there is no memory for a command to the loop, which
    /// finds what is marked so by a look at all of its watchers.
    pub fn close_unlisted(&self, generation: u32, was_removed: bool) -> bool {
        self.close_with(generation, UNLISTED | if was_removed { REMOVED } else { 0 })
    }

    fn close_with(&self, generation: u32, marks: u32) -> bool {
        let live = word(generation, LIVE);
        let mut seen = self.0.load(Relaxed);
        while seen & !PENDING == live {
            let closing = word(generation, CLOSING) | marks | seen & PENDING;
            match self.0.compare_exchange_weak(seen, closing, AcqRel, Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    pub fn is_unlisted(&self) -> bool {
        self.0.load(Relaxed) & UNLISTED != 0
    }

    /// Takes the mark off; whether the registration was removed.
    pub fn take_unlisted(&self) -> bool {
        self.0.fetch_and(!(UNLISTED | REMOVED), Relaxed) & REMOVED != 0
    }

    /// Whether the thread that closed it removed its registration, which the
    /// loop does not know yet; that is forgotten.
    pub fn take_removed(&self) -> bool {
        self.0.load(Relaxed) & REMOVED != 0 && self.0.fetch_and(!REMOVED, Relaxed) & REMOVED != 0
    }

    /// Free, and of the next generation, which is returned.
    pub fn free(&self) -> u32 {
        let next = self.generation() + 1;
        self.0.store(word(next, FREE), Release);
        next
    }
}

/// Called between taking a slot for a watcher and the first store to it: a
/// thread that reads the new contents then also finds that the slot is not that
/// of the watcher before (see [`SlotWord::look`]).
#[inline(always)]
pub(super) fn begin_contents() {
    fence(Release);
}

/// How many slots of a block are to be freed before it can be given back: by
/// the loop that ends, and by senders that it has left some to.
pub(super) struct Unfreed<'a>(pub &'a AtomicU64);

impl Unfreed<'_> {
    /// More than there are slots in a block.
    const MANY: u64 = 1 << 16;

    /// Before the first one is left to a sender.
    pub fn begin(&self) {
        // Leaving one is a Release.
        self.0.store(Self::MANY, Relaxed);
    }

    /// So many were left; true: none is there any more.
    pub fn are_left(&self, count: u64) -> bool {
        self.take(Self::MANY - count)
    }

    /// One that was left is freed; true: it was the last one.
    pub fn is_last(&self) -> bool {
        self.take(1)
    }

    fn take(&self, count: u64) -> bool {
        // AcqRel: who comes last sees all of them freed.
        self.0.fetch_sub(count, AcqRel) == count
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_threads_closes_and_sees_what_the_other_left() {
        for _ in 0..20 {
            let (word, left) = (SlotWord(AtomicU32::new(word(1, LIVE))), AtomicU32::new(0));
            let (own, other) = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    left.store(1, Relaxed);
                    word.close(1)
                });
                let own = word.close(1);
                assert!(own || left.load(Relaxed) == 1);
                (own, other.join().unwrap())
            });
            assert!(own != other && word.state() == CLOSING);
        }
    }
}

/// Lookups beside the reuse of a slot for a watcher of another loop.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::{AtomicUsize, UnsafeCell};
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    /// What the first and the second loop are called.
    const FIRST: usize = 1;
    const SECOND: usize = 2;

    /// A slot of the first loop, live, of generation 1.
    struct SlotModel {
        word: SlotWord,
        owner: AtomicUsize,
        pool: Mutex<()>,
        /// Of the second loop: whether it was asked to do something.
        commands: AtomicU32,
        /// Of the second loop: its plain contents.
        contents: UnsafeCell<u32>,
    }

    // SAFETY: loom watches the accesses to `contents`, the only field that is
    // not synchronised in itself.
    unsafe impl Sync for SlotModel {}

    impl SlotModel {
        fn new() -> Arc<Self> {
            let slot = Self {
                word: SlotWord(AtomicU32::new(word(1, LIVE))),
                owner: AtomicUsize::new(FIRST),
                pool: Mutex::new(()),
                commands: AtomicU32::new(0),
                contents: UnsafeCell::new(0),
            };
            Arc::new(slot)
        }

        /// The first loop closes its watcher and gives the block back; then it
        /// is taken for the second loop, which was just made, and asked for
        /// something before.
        fn reuse(&self, publish: Ordering) {
            self.word.close(1);
            self.word.free();
            drop(self.pool.lock().unwrap());
            self.word.begin(2);
            // SAFETY: no other thread knows the second loop yet.
            self.contents.with_mut(|contents| unsafe { *contents = 7 });
            self.commands.fetch_or(1, SeqCst);
            self.owner.store(SECOND, publish);
            self.word.set_state(LIVE);
        }
    }

    fn beside_reuse(publish: Ordering, look: impl Fn(&SlotModel) + Send + Sync + Copy + 'static) {
        loom::model(move || {
            let slot = SlotModel::new();
            // Second, so that its loads may have every value.
            let looker = {
                let slot = slot.clone();
                thread::spawn(move || look(&slot))
            };
            slot.reuse(publish);
            looker.join().unwrap();
        });
    }

    /// As a lookup by a handle of generation 1.
    fn look_up(slot: &SlotModel, find: Ordering) {
        let owner = slot.owner.load(find);
        assert!(!(slot.word.is(1, LIVE) && owner == SECOND), "a handle leads to a later loop");
    }

    /// As the owner's fast path: the word, the loop, then its commands.
    fn fast_path(slot: &SlotModel, find: Ordering) {
        let is = slot.word.is(1, LIVE);
        let owner = slot.owner.load(find);
        let commands = slot.commands.load(Relaxed) != 0;
        assert!(!(is && owner == SECOND && !commands), "a fast path overtakes a command");
    }

    /// As a send by a stale handle: what the pointer leads to is looked at
    /// before the word.
    fn look_inside(slot: &SlotModel, find: Ordering) {
        if slot.owner.load(find) == SECOND {
            // SAFETY: written before the pointer was published, and not after.
            let contents = slot.contents.with(|contents| unsafe { *contents });
            assert_eq!(contents, 7);
        }
    }

    #[test]
    fn loom_a_handle_never_leads_to_a_later_loop() {
        beside_reuse(PUBLISH, |slot| look_up(slot, FIND));
    }

    #[test]
    #[should_panic(expected = "leads to a later loop")]
    fn loom_twin_a_relaxed_pointer_pairs_a_handle_with_a_later_loop() {
        beside_reuse(Relaxed, |slot| look_up(slot, Relaxed));
    }

    #[test]
    fn loom_a_fast_path_sees_the_commands_of_the_loop_it_found() {
        beside_reuse(PUBLISH, |slot| fast_path(slot, FIND));
    }

    #[test]
    #[should_panic(expected = "overtakes a command")]
    fn loom_twin_a_relaxed_pointer_overtakes_a_command() {
        beside_reuse(Relaxed, |slot| fast_path(slot, Relaxed));
    }

    #[test]
    fn loom_a_loop_is_whole_for_a_stale_handle() {
        beside_reuse(PUBLISH, |slot| look_inside(slot, FIND));
    }

    #[test]
    #[should_panic(expected = "Causality violation")]
    fn loom_twin_a_relaxed_pointer_leads_to_half_a_loop() {
        beside_reuse(Relaxed, |slot| look_inside(slot, Relaxed));
    }

    /// What a close by another thread leaves and does, and a loop's own thread
    /// that closes the same watcher and uses its slot again.
    struct Closing {
        slot: Arc<SlotModel>,
        wake_state: crate::event_loop::wake_state::WakeState<u32>,
        command_queue: Mutex<Vec<u32>>,
        /// The slot's descriptor.
        fd: AtomicU32,
        plain: bool,
    }

    impl crate::event_loop::wake_state::Waker for Closing {
        fn wake_loop(&self) -> bool {
            true
        }
    }

    const LOOP_HANDLE: i64 = 77;
    const HAS_COMMANDS: u64 = crate::event_loop::wake_state::HAS_COMMANDS;
    const OLD_FD: u32 = 5;
    const NEW_FD: u32 = 6;

    impl Closing {
        /// As watcher_close by another thread than the loop's; whether it was
        /// closed.
        fn remotely(&self) -> bool {
            let mut command_queue = self.command_queue.lock().unwrap();
            let wake = self.wake_state.set_pending(self, LOOP_HANDLE, HAS_COMMANDS);
            let closed = self.slot.word.close(1);
            if closed {
                let fd = self.fd.load(Relaxed);
                assert_eq!(fd, OLD_FD, "the registration of a later watcher is removed");
                command_queue.push(1);
            }
            drop(command_queue);
            drop(wake);
            closed
        }

        /// As the same on the loop's thread, and another watcher in its place.
        fn on_own_thread(&self) -> bool {
            let closed = match self.plain {
                true => {
                    self.slot.word.set_state(CLOSING);
                    true
                }
                false => self.slot.word.close(1),
            };
            if closed {
                self.slot.word.free();
            }
            if self.wake_state.peek() & HAS_COMMANDS != 0 {
                self.wake_state.take(HAS_COMMANDS);
                // What others asked for before comes before.
                for _ in self.command_queue.lock().unwrap().drain(..) {
                    if self.slot.word.is(1, CLOSING) {
                        self.slot.word.free();
                    }
                }
            }
            if self.slot.word.state() == FREE {
                self.fd.store(NEW_FD, Relaxed);
                self.slot.word.set_state(LIVE);
            }
            closed
        }
    }

    fn a_watcher_is_closed_by_two(plain: bool) {
        loom::model(move || {
            let closing = Arc::new(Closing {
                slot: SlotModel::new(),
                wake_state: crate::event_loop::wake_state::WakeState::new(),
                command_queue: Mutex::new(Vec::new()),
                fd: AtomicU32::new(OLD_FD),
                plain,
            });
            closing.wake_state.assign(LOOP_HANDLE);
            let other = {
                let closing = closing.clone();
                thread::spawn(move || closing.remotely())
            };
            let own = closing.on_own_thread();
            let other = other.join().unwrap();
            assert!(own != other, "both have closed it");
        });
    }

    #[test]
    fn loom_one_of_two_closes_and_the_record_is_used_again_after_both() {
        a_watcher_is_closed_by_two(false);
    }

    #[test]
    #[should_panic(expected = "both have closed it")]
    fn loom_twin_a_plain_store_closes_a_watcher_twice() {
        a_watcher_is_closed_by_two(true);
    }

    /// The same, of one that has no memory for a command.
    #[test]
    fn loom_one_of_two_closes_and_its_marks_stay() {
        loom::model(|| {
            let slot = SlotModel::new();
            let closer = {
                let slot = slot.clone();
                thread::spawn(move || slot.word.close_unlisted(1, true))
            };
            let closed = slot.word.close(1);
            let marked = closer.join().unwrap();
            assert!(closed != marked, "one of the two");
            assert_eq!(slot.word.state(), CLOSING);
            assert_eq!(slot.word.is_unlisted(), marked);
            assert_eq!(slot.word.take_unlisted(), marked);
            assert!(!slot.word.is_unlisted() && !slot.word.take_removed());
        });
    }

    /// One of two closers closes; a send beside them is refused, or its mark is
    /// there when the slot is freed.
    #[test]
    fn loom_one_close_wins_and_a_mark_is_not_lost() {
        loom::model(|| {
            let slot = SlotModel::new();
            let closer = {
                let slot = slot.clone();
                thread::spawn(move || slot.word.close(1))
            };
            let sender = {
                let slot = slot.clone();
                thread::spawn(move || slot.word.mark_pending(1))
            };
            let closed = slot.word.close(1);
            let other = closer.join().unwrap();
            assert!(closed != other, "one of the two");
            let sent = sender.join().unwrap();
            assert_eq!(sent == Some(true), slot.word.is_pending());
        });
    }

    /// Two senders that had marked a watcher each, and the end of their loop.
    struct Block {
        words: [SlotWord; 2],
        unfreed: AtomicU64,
        given_back: AtomicU32,
        counts_late: bool,
    }

    impl Block {
        fn discard_new(&self) {
            assert!(self.words.iter().all(|word| word.state() == FREE), "a record is not free");
            self.given_back.fetch_add(1, Relaxed);
        }

        fn refuse(&self, which: usize) {
            if self.words[which].refuse() {
                self.words[which].free();
                if Unfreed(&self.unfreed).is_last() {
                    self.discard_new();
                }
            }
        }

        /// As `slot::give_back_closed`.
        fn end(&self) {
            let unfreed = Unfreed(&self.unfreed);
            unfreed.begin();
            let mut left = 0;
            for word in &self.words {
                // What a look would say that is no read-modify-write.
                let is_left = if self.counts_late {
                    word.is_pending() && {
                        word.leave_to_sender();
                        true
                    }
                } else {
                    word.leave_to_sender()
                };
                if is_left {
                    left += 1;
                } else {
                    word.free();
                }
            }
            if unfreed.are_left(left) {
                self.discard_new();
            }
        }
    }

    fn a_block_with_late_senders(counts_late: bool) {
        loom::model(move || {
            let sent = || SlotWord(AtomicU32::new(word(1, CLOSING) | PENDING));
            let block = Arc::new(Block {
                words: [sent(), sent()],
                unfreed: AtomicU64::new(0),
                given_back: AtomicU32::new(0),
                counts_late,
            });
            let senders = [0, 1].map(|which| {
                let block = block.clone();
                thread::spawn(move || block.refuse(which))
            });
            block.end();
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            assert_eq!(block.given_back.load(Relaxed), 1, "a block is lost, or given back twice");
            assert!(block.words.iter().all(|word| word.generation() == 2), "not freed once");
        });
    }

    #[test]
    fn loom_a_block_is_given_back_once_after_the_last_late_send() {
        a_block_with_late_senders(false);
    }

    #[test]
    #[should_panic(expected = "a block is lost")]
    fn loom_twin_a_look_at_the_mark_before_the_record_is_left_loses_the_block() {
        a_block_with_late_senders(true);
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Look {
        AsItIs,
        WithoutAFence,
        Once,
    }

    /// A question about a watcher whose slot is used again.
    fn a_look_beside_reuse(how: Look) {
        loom::model(move || {
            let shared = Arc::new((SlotWord(AtomicU32::new(word(1, LIVE))), AtomicU32::new(1)));
            let looker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (word, contents) = &*shared;
                    if how == Look::Once {
                        return word.live_generation().map(|g| (g, contents.load(Relaxed)));
                    }
                    word.look(|| Some(contents.load(Relaxed)))
                })
            };
            let (word, contents) = &*shared;
            word.free();
            if how != Look::WithoutAFence {
                begin_contents();
            }
            contents.store(2, Relaxed);
            word.set_state(LIVE);
            let found = looker.join().unwrap();
            let is_its_own = found.is_none_or(|(generation, contents)| generation == contents);
            assert!(is_its_own, "a question is answered with another watcher's contents");
        });
    }

    #[test]
    fn loom_what_is_read_of_a_record_is_of_one_watcher() {
        a_look_beside_reuse(Look::AsItIs);
    }

    #[test]
    #[should_panic(expected = "another watcher's contents")]
    fn loom_twin_contents_that_begin_without_a_fence_are_taken_for_the_last_ones() {
        a_look_beside_reuse(Look::WithoutAFence);
    }

    #[test]
    #[should_panic(expected = "another watcher's contents")]
    fn loom_twin_one_look_at_the_word_is_not_enough() {
        a_look_beside_reuse(Look::Once);
    }
}
