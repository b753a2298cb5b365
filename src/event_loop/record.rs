//! The records of watchers and loops: what their handles lead to.
//!
//! 64 bytes each, in memory that is never unmapped and holds nothing but
//! atomics, so that any handle can be looked at from any thread at any time,
//! without a lock or a count. A record's word says whether a handle is still
//! the one it was issued for; all else in it belongs to the thread that may
//! change its loop.
//!
//! Records come in blocks of a page. A loop takes whole blocks, so that it
//! knows all its watchers, and gives those back that are empty. The memory
//! of an unused block goes back to the system; which generations it has used
//! is remembered.

use super::desk::Desk;
use super::event::{Callback, Target};
pub(super) use super::record_word::{CLOSING, LIVE, LOOP, begin_contents};
use super::record_word::{FIND, PUBLISH, Unfreed, Word};
use crate::errno::{Result, fail};
use crate::handle::{Handle, Kind, LAST_GENERATION, MAX_SLOTS};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, ForkMutex, Ordering::*};
use crate::sys::memory;
use crate::timer_queue::Node;
use crate::util::alloc::{TryDeque, TryVec};
use std::collections::VecDeque;
use std::ptr;

/// Records in a block; the first of them is its header.
pub(super) const PER_BLOCK: u32 = 64;
const BLOCK_BYTES: usize = PER_BLOCK as usize * size_of::<Record>();
const BLOCKS: u32 = MAX_SLOTS / PER_BLOCK;
/// Blocks of the first segment; each segment is twice the last.
const FIRST: u32 = 64;
const SEGMENTS: usize = 13;

/// A watcher, or a loop.
#[repr(C, align(64))]
pub(super) struct Record {
    word: Word,
    pub flags: AtomicU32,
    desk: AtomicPtr<Desk>,
    callback: AtomicPtr<()>,
    pub data: AtomicU64,
    /// A timer's period; an io watcher's events and descriptor; an async
    /// watcher's state.
    pub aux: AtomicU64,
    /// A timer's; other sources have other uses for its words.
    pub node: Node,
}

const _: () = assert!(size_of::<Record>() == 64);

struct Segment(AtomicPtr<Record>);

static RECORDS: [Segment; SEGMENTS] =
    [const { Segment(AtomicPtr::new(ptr::null_mut())) }; SEGMENTS];

static POOL: ForkMutex<Pool> =
    ForkMutex::new(Pool { free: VecDeque::new(), base: 0, generations: Vec::new() });

struct Pool {
    /// Blocks that were given back, in that order.
    free: VecDeque<u32>,
    /// The first block that is this pool's: those before were lost in a fork.
    base: u32,
    /// Of each block that was used, the first generation that it has not.
    generations: Vec<u32>,
}

/// One more than the greatest block that was ever taken.
static USED: AtomicU32 = AtomicU32::new(0);

/// The segment of a block, how many blocks it has, and the place in it.
#[inline(always)]
fn locate(block: u32) -> (usize, u32, u32) {
    // A block is below 2^18: nothing here overflows, and nothing checks that.
    let shifted = (block & (BLOCKS - 1)).wrapping_add(FIRST);
    let segment = (shifted.leading_zeros() ^ 31).wrapping_sub(FIRST.trailing_zeros());
    let len = FIRST.wrapping_shl(segment);
    (segment as usize, len, shifted.wrapping_sub(len))
}

/// The record with this index, if its segment exists.
#[inline(always)]
pub(super) fn get(index: u32) -> Option<&'static Record> {
    let (segment, _, block) = locate(index / PER_BLOCK);
    // Acquire: the segment was mapped by the thread that published it.
    let start = RECORDS.get(segment)?.0.load(Acquire);
    if start.is_null() {
        return None;
    }
    // Inside the segment: nothing overflows here either.
    let place = block.wrapping_mul(PER_BLOCK).wrapping_add(index % PER_BLOCK);
    // SAFETY: inside the segment.
    let record = unsafe { start.add(place as usize) };
    // SAFETY: mapped for ever; all-zero bytes are a valid record.
    Some(unsafe { &*record })
}

fn ensure(block: u32) -> Option<()> {
    let (segment, len, _) = locate(block);
    let start = &RECORDS.get(segment)?.0;
    if start.load(Relaxed).is_null() {
        let fresh = memory::map(len as usize * BLOCK_BYTES).ok()?;
        // Release: pairs with the Acquire in `get`.
        start.store(fresh.cast(), Release);
    }
    Some(())
}

/// Takes a block out of the pool; all its records are free. `desk`: the loop
/// whose watchers they will be, if they are for watchers.
pub(super) fn take_block(desk: Option<&'static Desk>) -> Result<u32> {
    give_back_late();
    let mut pool = POOL.lock();
    if let Some(block) = pool.free.pop_front() {
        let generation = pool.generation(block).copied();
        begin(block, generation.unwrap_or(LAST_GENERATION), desk);
        return Ok(block);
    }
    let block = pool.base + pool.generations.len() as u32;
    let room = pool.generations.try_reserve(1).is_ok();
    // So that giving it back needs no memory.
    let returns = pool.generations.len() + 1 - pool.free.len();
    let room = room && pool.free.try_reserve(returns).is_ok();
    if block >= BLOCKS || !room || ensure(block).is_none() {
        fail!(ENOMEM, "no memory, or no handle, for a watcher");
    }
    pool.generations.push_reserved(1);
    begin(block, 1, desk);
    Ok(block)
}

/// Prepares the records of a block that was taken: their generation, and in
/// the header the loop they belong to.
fn begin(block: u32, generation: u32, desk: Option<&'static Desk>) {
    for record in records_of(block) {
        record.word.begin(generation);
    }
    if let Some(header) = get(block * PER_BLOCK) {
        header.desk.store(desk.map_or(ptr::null_mut(), |d| ptr::from_ref(d).cast_mut()), PUBLISH);
    }
    USED.fetch_max(block + 1, Relaxed);
}

/// The blocks that are for watchers of this loop; a thread that does not run
/// it may miss one that is being taken.
pub(super) fn blocks_of(desk: &'static Desk) -> impl Iterator<Item = u32> {
    (0..USED.load(Relaxed)).filter(move |block| {
        let header = get(block * PER_BLOCK);
        header.and_then(Record::desk).is_some_and(|owner| ptr::eq(owner, desk))
    })
}

/// The records of a block.
pub(super) fn records_of(block: u32) -> impl Iterator<Item = &'static Record> {
    let first = block * PER_BLOCK;
    (first + 1..first + PER_BLOCK).filter_map(get)
}

/// The same, with their indices.
pub(super) fn indexed_records_of(block: u32) -> impl Iterator<Item = (u32, &'static Record)> {
    let first = block * PER_BLOCK;
    (first + 1..first + PER_BLOCK).filter_map(|index| Some((index, get(index)?)))
}

/// The blocks that senders are the last to have freed a record of, linked by
/// their headers (`data`). A sender may be a signal handler: it takes no lock.
static LATE: AtomicU32 = AtomicU32::new(NO_BLOCK);
const NO_BLOCK: u32 = u32::MAX;

/// Gives back a block of a loop that has ended, whose watchers are all closed
/// and to which every push is refused from now on. Those that a sender has
/// marked are freed by that sender, when its push is refused.
pub(super) fn give_back_closed(block: u32) {
    let Some(header) = get(block * PER_BLOCK) else { return };
    let unfreed = Unfreed(&header.aux);
    unfreed.begin();
    let is_open = |record: &&Record| matches!(record.state(), LIVE | CLOSING);
    let mut left = 0;
    for record in records_of(block).filter(is_open) {
        if record.word.leave_to_sender() {
            left += 1;
        } else {
            record.free();
        }
    }
    if unfreed.are_left(left) {
        give_back_block(block);
    }
}

/// Takes the mark off a watcher whose loop has refused it. A signal handler
/// may do this.
pub(super) fn refuse_sent(index: u32, record: &Record) {
    if !record.word.refuse() {
        return;
    }
    record.free();
    let block = index / PER_BLOCK;
    let Some(header) = get(block * PER_BLOCK) else { return };
    if Unfreed(&header.aux).is_last() {
        let mut first = LATE.load(Relaxed);
        loop {
            header.data.store(first.into(), Relaxed);
            // Release: who takes it finds the link, and all records free.
            match LATE.compare_exchange_weak(first, block, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }
}

/// Gives back the blocks that senders have left.
pub(super) fn give_back_late() {
    if LATE.load(Relaxed) == NO_BLOCK {
        return;
    }
    let mut block = LATE.swap(NO_BLOCK, Acquire);
    while let Some(header) = get(block.wrapping_mul(PER_BLOCK)).filter(|_| block != NO_BLOCK) {
        let next = header.data.load(Relaxed) as u32;
        give_back_block(block);
        block = next;
    }
}

/// Gives back a block whose records are all free.
pub(super) fn give_back_block(block: u32) {
    let used = records_of(block).map(|record| record.word.generation()).max();
    let Some(first) = get(block * PER_BLOCK) else { return };
    // SAFETY: a block of ours, page-aligned as mmap made its segment; stale
    // handles may look at it, as atomics, and find generation 0.
    let wiped = unsafe { memory::wipe(ptr::from_ref(first).cast_mut().cast(), BLOCK_BYTES) };
    // Not touched where it was: that would take the memory again.
    if !wiped {
        begin(block, 0, None);
    }
    let mut pool = POOL.lock();
    let used = used.unwrap_or(LAST_GENERATION);
    let Some(generation) = pool.generation(block) else { return };
    *generation = used;
    // One that has used up its generations is never used again.
    if used < LAST_GENERATION {
        pool.free.push_back_reserved(block);
    }
}

impl Pool {
    fn generation(&mut self, block: u32) -> Option<&mut u32> {
        self.generations.get_mut(block.checked_sub(self.base)? as usize)
    }
}

/// For the first call of a forked child, while no other thread is here.
///
/// # Safety
/// As [`ForkMutex::recover`].
pub(super) unsafe fn after_fork() {
    let mend = |pool: Option<&mut Pool>| match pool {
        Some(_) => None,
        // A thread was taking or giving back a block: which, nobody knows.
        // Those that were used are not used again.
        None => Some(Pool { free: VecDeque::new(), base: first_unused(), generations: Vec::new() }),
    };
    // SAFETY: this function's contract is the same.
    unsafe { POOL.recover(mend) };
}

/// The first block of the first segment that does not exist.
fn first_unused() -> u32 {
    let unmapped = RECORDS.iter().position(|segment| segment.0.load(Relaxed).is_null());
    let unmapped = unmapped.unwrap_or(SEGMENTS) as u32;
    FIRST * ((1 << unmapped) - 1)
}

impl Record {
    /// Whether it is what the handle was issued for, in this state.
    #[inline(always)]
    pub fn is(&self, handle: Handle, state: u32) -> bool {
        self.word.is(handle.generation, state)
    }

    pub fn word(&self) -> &Word {
        &self.word
    }

    pub fn state(&self) -> u32 {
        self.word.state()
    }

    /// What `read` finds in the record of a live watcher of this loop, and the
    /// watcher's generation; from any thread. All that was read belongs to
    /// that watcher, but may be a moment old.
    pub fn look<R>(&self, desk: &Desk, read: impl FnOnce(&Self) -> R) -> Option<(u32, R)> {
        self.word.look(|| {
            self.desk().filter(|owner| ptr::eq(*owner, desk))?;
            Some(read(self))
        })
    }

    pub fn is_sent(&self) -> bool {
        self.word.is_sent()
    }

    /// See [`Word::send`].
    #[inline(always)]
    pub fn send(&self, handle: Handle) -> Option<bool> {
        self.word.send(handle.generation)
    }

    /// See [`Word::send_again`].
    pub fn send_again(&self) -> bool {
        self.word.send_again()
    }

    /// See [`Word::receive`].
    pub fn receive(&self) -> bool {
        self.word.receive()
    }

    /// The handle that leads here now.
    #[inline(always)]
    pub fn handle(&self, kind: Kind, index: u32) -> i64 {
        Handle { kind, generation: self.word.generation(), index }.pack()
    }

    #[inline(always)]
    pub fn set_state(&self, state: u32) {
        self.word.set_state(state);
    }

    /// See [`Word::close`].
    pub fn close(&self, handle: Handle) -> bool {
        self.word.close(handle.generation)
    }

    /// See [`Word::close_unlisted`].
    pub fn close_unlisted(&self, handle: Handle, was_removed: bool) -> bool {
        self.word.close_unlisted(handle.generation, was_removed)
    }

    pub fn is_unlisted(&self) -> bool {
        self.word.is_unlisted()
    }

    /// See [`Word::take_unlisted`].
    pub fn take_unlisted(&self) -> bool {
        self.word.take_unlisted()
    }

    /// See [`Word::take_removed`].
    pub fn take_removed(&self) -> bool {
        self.word.take_removed()
    }

    /// Free, and of the next generation; false: it has none, and must not be
    /// used again.
    pub fn free(&self) -> bool {
        self.word.free() < LAST_GENERATION
    }

    pub fn is_worn_out(&self) -> bool {
        self.word.generation() >= LAST_GENERATION
    }

    /// Its loop's; `None` only while it is not in use.
    #[inline(always)]
    pub fn desk(&self) -> Option<&'static Desk> {
        let desk = self.desk.load(FIND);
        // SAFETY: null, or a desk, which is never freed.
        unsafe { desk.as_ref() }
    }

    pub fn set_desk(&self, desk: &'static Desk) {
        self.desk.store(ptr::from_ref(desk).cast_mut(), PUBLISH);
    }

    pub fn set_target(&self, target: Target) {
        self.set_callback(target.callback);
        self.data.store(target.user_data.expose_provenance() as u64, Relaxed);
    }

    fn set_callback(&self, callback: Option<Callback>) {
        let callback = callback.map_or(ptr::null_mut(), |callback| callback as *mut ());
        self.callback.store(callback, Relaxed);
    }

    #[inline(always)]
    pub fn callback(&self) -> Option<Callback> {
        let callback = self.callback.load(Relaxed);
        // SAFETY: null, or a callback that `set_callback` stored.
        unsafe { std::mem::transmute::<*mut (), Option<Callback>>(callback) }
    }

    /// Where the event of a watcher without a callback is held; in the place
    /// of the callback, which nothing calls then.
    pub fn held_place(&self) -> u64 {
        self.callback.load(Relaxed).addr() as u64
    }

    pub fn set_held_place(&self, place: u64) {
        self.callback.store(ptr::without_provenance_mut(place as usize), Relaxed);
    }

    #[inline(always)]
    pub fn user_data(&self) -> *mut std::ffi::c_void {
        ptr::with_exposed_provenance_mut(self.data.load(Relaxed) as usize)
    }

    /// Whether all of these flags are set.
    #[inline(always)]
    pub fn has(&self, flags: u32) -> bool {
        self.flags.load(Relaxed) & flags == flags
    }

    // Plain loads and stores: only who may change the loop changes flags.
    #[inline(always)]
    pub fn set(&self, flags: u32) {
        self.flags.store(self.flags.load(Relaxed) | flags, Relaxed);
    }

    #[inline(always)]
    pub fn unset(&self, flags: u32) {
        self.flags.store(self.flags.load(Relaxed) & !flags, Relaxed);
    }
}
