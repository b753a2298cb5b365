//! The slots of watchers and loops: what their handles lead to.
//!
//! 64 bytes each, in memory that is never unmapped and holds nothing but
//! atomics, so that any handle can be looked at from any thread at any time,
//! without a lock or a count. A slot's word says whether a handle is still the
//! one it was issued for; all else in it belongs to the thread that may change
//! its loop.
//!
//! Slots come in blocks of a page. A loop takes whole blocks, so that it knows
//! all its watchers, and gives those back that are empty. The memory of an
//! unused block goes back to the system; which generations it has used is
//! remembered.

pub(in crate::event_loop) use super::word::{CLOSING, LIVE, LOOP, begin_contents};
use super::word::{FIND, PUBLISH, SlotWord, Unfreed};
use crate::errno::{Result, fail};
use crate::event_loop::event::{Callback, Target};
use crate::event_loop::shared::LoopShared;
use crate::handle::{Handle, Kind, LAST_GENERATION, MAX_SLOTS};
use crate::sync::{AtomicPtr, AtomicU32, AtomicU64, ForkMutex, Ordering::*};
use crate::sys::memory;
use crate::timer_queue::Node;
use crate::util::alloc::{TryDeque, TryVec};
use std::collections::VecDeque;
use std::ptr;

/// Slots in a block; the first of them is its header.
pub(in crate::event_loop) const PER_BLOCK: u32 = 64;
const BLOCK_BYTES: usize = PER_BLOCK as usize * size_of::<WatcherSlot>();
const BLOCKS: u32 = MAX_SLOTS / PER_BLOCK;
/// Blocks of the first segment; each segment is twice the last.
const FIRST: u32 = 64;
const SEGMENTS: usize = 13;

/// A watcher, or a loop.
#[repr(C, align(64))]
pub(in crate::event_loop) struct WatcherSlot {
    word: SlotWord,
    pub flags: AtomicU32,
    shared: AtomicPtr<LoopShared>,
    callback: AtomicPtr<()>,
    pub data: AtomicU64,
    /// A timer's period; an io watcher's events and descriptor; an async
    /// watcher's state.
    pub aux: AtomicU64,
    /// A timer's; other sources have other uses for its words.
    pub node: Node,
}

const _: () = assert!(size_of::<WatcherSlot>() == 64);

struct SlotSegment(AtomicPtr<WatcherSlot>);

static SEGMENT_LIST: [SlotSegment; SEGMENTS] =
    [const { SlotSegment(AtomicPtr::new(ptr::null_mut())) }; SEGMENTS];

static POOL: ForkMutex<SlotPool> =
    ForkMutex::new(SlotPool { free: VecDeque::new(), base: 0, generations: Vec::new() });

struct SlotPool {
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

/// The slot with this index, if its segment exists.
#[inline(always)]
pub(in crate::event_loop) fn get(index: u32) -> Option<&'static WatcherSlot> {
    let (segment, _, block) = locate(index / PER_BLOCK);
    // Acquire: the segment was mapped by the thread that published it.
    let start = SEGMENT_LIST.get(segment)?.0.load(Acquire);
    if start.is_null() {
        return None;
    }
    // Inside the segment: nothing overflows here either.
    let position = block.wrapping_mul(PER_BLOCK).wrapping_add(index % PER_BLOCK);
    // SAFETY: inside the segment.
    let slot = unsafe { start.add(position as usize) };
    // SAFETY: mapped for ever; all-zero bytes are a valid slot.
    Some(unsafe { &*slot })
}

/// A live watcher, by the word of an event.
#[inline(always)]
pub(in crate::event_loop) fn live(handle: i64) -> Option<(u32, &'static WatcherSlot)> {
    let handle = Handle::unpack_as(handle, Kind::Watcher)?;
    let slot = get(handle.index)?;
    slot.is(handle, LIVE).then_some((handle.index, slot))
}

fn ensure(block: u32) -> Option<()> {
    let (segment, len, _) = locate(block);
    let start = &SEGMENT_LIST.get(segment)?.0;
    if start.load(Relaxed).is_null() {
        let fresh = memory::map(len as usize * BLOCK_BYTES).ok()?;
        // Release: pairs with the Acquire in `get`.
        start.store(fresh.cast(), Release);
    }
    Some(())
}

/// Takes a block out of the pool; all its slots are free. `shared`: the loop
/// whose watchers they will be, if they are for watchers.
pub(in crate::event_loop) fn take_block(shared: Option<&'static LoopShared>) -> Result<u32> {
    give_back_late();
    let mut pool = POOL.lock();
    if let Some(block) = pool.free.pop_front() {
        let generation = pool.generation(block).copied();
        begin(block, generation.unwrap_or(LAST_GENERATION), shared);
        return Ok(block);
    }
    let block = pool.base + pool.generations.len() as u32;
    let has_room = pool.generations.try_reserve(1).is_ok();
    // So that giving it back needs no memory.
    let returns = pool.generations.len() + 1 - pool.free.len();
    let has_room = has_room && pool.free.try_reserve(returns).is_ok();
    if block >= BLOCKS || !has_room || ensure(block).is_none() {
        fail!(ENOMEM, "no memory, or no handle, for a watcher");
    }
    pool.generations.push_reserved(1);
    begin(block, 1, shared);
    Ok(block)
}

/// Prepares the slots of a block that was taken: their generation, and in the
/// header the loop they belong to.
fn begin(block: u32, generation: u32, shared: Option<&'static LoopShared>) {
    for slot in slots_of(block) {
        slot.word.begin(generation);
    }
    if let Some(header) = get(block * PER_BLOCK) {
        header
            .shared
            .store(shared.map_or(ptr::null_mut(), |d| ptr::from_ref(d).cast_mut()), PUBLISH);
    }
    USED.fetch_max(block + 1, Relaxed);
}

/// The blocks that are for watchers of this loop; a thread that does not run
/// it may miss one that is being taken.
pub(in crate::event_loop) fn blocks_of(shared: &'static LoopShared) -> impl Iterator<Item = u32> {
    (0..USED.load(Relaxed)).filter(move |block| {
        let header = get(block * PER_BLOCK);
        header.and_then(WatcherSlot::shared).is_some_and(|owner| ptr::eq(owner, shared))
    })
}

/// The slots of a block.
pub(in crate::event_loop) fn slots_of(block: u32) -> impl Iterator<Item = &'static WatcherSlot> {
    let first = block * PER_BLOCK;
    (first + 1..first + PER_BLOCK).filter_map(get)
}

/// The same, with their indices.
pub(in crate::event_loop) fn indexed_slots_of(
    block: u32,
) -> impl Iterator<Item = (u32, &'static WatcherSlot)> {
    let first = block * PER_BLOCK;
    (first + 1..first + PER_BLOCK).filter_map(|index| Some((index, get(index)?)))
}

/// The blocks that senders are the last to have freed a slot of, linked by
/// their headers (`data`). A sender may be a signal handler: it takes no lock.
static LATE: AtomicU32 = AtomicU32::new(NO_BLOCK);
const NO_BLOCK: u32 = u32::MAX;

/// Gives back a block of a loop that has ended, whose watchers are all closed
/// and to which every push is refused from now on. Those that a sender has
/// marked are freed by that sender, when its push is refused.
pub(in crate::event_loop) fn give_back_closed(block: u32) {
    let Some(header) = get(block * PER_BLOCK) else { return };
    let unfreed = Unfreed(&header.aux);
    unfreed.begin();
    let is_open = |slot: &&WatcherSlot| matches!(slot.state(), LIVE | CLOSING);
    let mut left = 0;
    for slot in slots_of(block).filter(is_open) {
        if slot.word.leave_to_sender() {
            left += 1;
        } else {
            slot.free();
        }
    }
    if unfreed.are_left(left) {
        free_block(block);
    }
}

/// Takes the mark off a watcher whose loop has refused it. A signal handler
/// may do this.
pub(in crate::event_loop) fn refuse_sent(index: u32, slot: &WatcherSlot) {
    if !slot.word.refuse() {
        return;
    }
    slot.free();
    let block = index / PER_BLOCK;
    let Some(header) = get(block * PER_BLOCK) else { return };
    if Unfreed(&header.aux).is_last() {
        let mut first = LATE.load(Relaxed);
        loop {
            header.data.store(first.into(), Relaxed);
            // Release: who takes it finds the link, and all slots free.
            match LATE.compare_exchange_weak(first, block, Release, Relaxed) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }
}

/// Gives back the blocks that senders have left.
pub(in crate::event_loop) fn give_back_late() {
    if LATE.load(Relaxed) == NO_BLOCK {
        return;
    }
    let mut block = LATE.swap(NO_BLOCK, Acquire);
    while let Some(header) = get(block.wrapping_mul(PER_BLOCK)).filter(|_| block != NO_BLOCK) {
        let next = header.data.load(Relaxed) as u32;
        free_block(block);
        block = next;
    }
}

/// Gives back a block whose slots are all free.
pub(in crate::event_loop) fn free_block(block: u32) {
    let used = slots_of(block).map(|slot| slot.word.generation()).max();
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

impl SlotPool {
    fn generation(&mut self, block: u32) -> Option<&mut u32> {
        self.generations.get_mut(block.checked_sub(self.base)? as usize)
    }
}

/// For the first call of a forked child, while no other thread is here.
///
/// # Safety
/// As [`ForkMutex::recover`].
pub(in crate::event_loop) unsafe fn after_fork() {
    let mend = |pool: Option<&mut SlotPool>| match pool {
        Some(_) => None,
        // A thread was taking or giving back a block; which one is not known.
        // Those that were used are not used again.
        None => {
            Some(SlotPool { free: VecDeque::new(), base: first_unused(), generations: Vec::new() })
        }
    };
    // SAFETY: this function's contract is the same.
    unsafe { POOL.recover(mend) };
}

/// The first block of the first segment that does not exist.
fn first_unused() -> u32 {
    let unmapped = SEGMENT_LIST.iter().position(|segment| segment.0.load(Relaxed).is_null());
    let unmapped = unmapped.unwrap_or(SEGMENTS) as u32;
    FIRST * ((1 << unmapped) - 1)
}

impl WatcherSlot {
    /// Whether it is what the handle was issued for, in this state.
    #[inline(always)]
    pub fn is(&self, handle: Handle, state: u32) -> bool {
        self.word.is(handle.generation, state)
    }

    pub fn word(&self) -> &SlotWord {
        &self.word
    }

    pub fn state(&self) -> u32 {
        self.word.state()
    }

    /// What `read` finds in the slot of a live watcher of this loop, and the
    /// watcher's generation; from any thread. All that was read belongs to that
    /// watcher, but may be a moment old.
    pub fn read_live<R>(
        &self,
        shared: &LoopShared,
        read: impl FnOnce(&Self) -> R,
    ) -> Option<(u32, R)> {
        self.word.look(|| {
            self.shared().filter(|owner| ptr::eq(*owner, shared))?;
            Some(read(self))
        })
    }

    pub fn is_pending(&self) -> bool {
        self.word.is_pending()
    }

    /// See [`SlotWord::mark_pending`].
    #[inline(always)]
    pub fn mark_pending(&self, handle: Handle) -> Option<bool> {
        self.word.mark_pending(handle.generation)
    }

    /// See [`SlotWord::mark_pending_again`].
    pub fn mark_pending_again(&self) -> bool {
        self.word.mark_pending_again()
    }

    /// See [`SlotWord::clear_pending`].
    pub fn clear_pending(&self) -> bool {
        self.word.clear_pending()
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

    /// See [`SlotWord::close`].
    pub fn close(&self, handle: Handle) -> bool {
        self.word.close(handle.generation)
    }

    /// See [`SlotWord::close_unlisted`].
    pub fn close_unlisted(&self, handle: Handle, was_removed: bool) -> bool {
        self.word.close_unlisted(handle.generation, was_removed)
    }

    pub fn is_unlisted(&self) -> bool {
        self.word.is_unlisted()
    }

    /// See [`SlotWord::take_unlisted`].
    pub fn take_unlisted(&self) -> bool {
        self.word.take_unlisted()
    }

    /// See [`SlotWord::take_removed`].
    pub fn take_removed(&self) -> bool {
        self.word.take_removed()
    }

    /// Free, and of the next generation; false: it has none, and must not be
    /// used again.
    pub fn free(&self) -> bool {
        self.word.free() < LAST_GENERATION
    }

    pub fn is_exhausted(&self) -> bool {
        self.word.generation() >= LAST_GENERATION
    }

    /// Its loop's; `None` only while it is not in use.
    #[inline(always)]
    pub fn shared(&self) -> Option<&'static LoopShared> {
        let shared = self.shared.load(FIND);
        // SAFETY: null, or a shared part, which is never freed.
        unsafe { shared.as_ref() }
    }

    pub fn set_shared(&self, shared: &'static LoopShared) {
        self.shared.store(ptr::from_ref(shared).cast_mut(), PUBLISH);
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

    /// Where the event of a watcher without a callback is pending; in the place
    /// of the callback, which nothing calls then.
    pub fn pending_index(&self) -> u64 {
        self.callback.load(Relaxed).addr() as u64
    }

    pub fn set_pending_index(&self, position: u64) {
        self.callback.store(ptr::without_provenance_mut(position as usize), Relaxed);
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
