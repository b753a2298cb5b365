//! Lookups beside the reuse of a slot for a watcher of another loop.

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
