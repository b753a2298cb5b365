//! The table: slots that are looked up without a lock, and their freeing.

use super::bits::{Handle, KINDS, Kind, LAST_GENERATION, MAX_SLOTS};
use super::segments::{CAPACITY, Segments};
use super::slot_state;
use crate::sync::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, ForkMutex, Ordering, UnsafeCell};

struct Slot<P> {
    word: AtomicU64,
    index: u32,
    /// The object's, so that asking for it needs no pin.
    descriptor: AtomicI32,
    /// Some while live. Written by the thread that inserts, read by those
    /// that hold a pin, taken by the one that drops the last.
    payload: UnsafeCell<Option<P>>,
}

// SAFETY: the payload is shared between threads by pins (P: Sync), and made
// and dropped by different ones (P: Send); `word` orders those accesses.
unsafe impl<P: Send + Sync> Sync for Slot<P> {}

/// The free slots, in the order in which they became free: a number that was
/// just given up is not the next one issued.
struct FreeList {
    ends: Option<(u32, u32)>,
}

/// A table of objects `P`, by handle.
pub(super) struct Table<P> {
    slots: Segments<Slot<P>>,
    free: ForkMutex<FreeList>,
    /// Slots from here on were never used.
    fresh: AtomicU32,
    open: [AtomicI64; KINDS],
    last_generation: u32,
}

/// Why a lookup failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LookupError {
    /// No such object.
    Stale,
    /// There is one, of this other kind.
    Kind(Kind),
    /// It belongs to the parent process.
    Inherited,
    /// A panic left it in an unknown state.
    Poisoned,
    /// More pins than fit.
    Full,
}

/// The right to use an object: until it is released the object exists.
pub(super) struct Pin<'t, P: Send + Sync> {
    slot: &'t Slot<P>,
}

/// A closing object's slot whose last pin was given up by this thread.
pub(super) struct LastRef<'t, P: Send + Sync> {
    slot: &'t Slot<P>,
}

impl<P: Send + Sync> Table<P> {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self {
            slots: Segments::new(),
            free: ForkMutex::new(FreeList { ends: None }),
            fresh: AtomicU32::new(0),
            open: [const { AtomicI64::new(0) }; KINDS],
            last_generation: LAST_GENERATION,
        }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self {
            slots: Segments::new(),
            free: ForkMutex::new(FreeList { ends: None }),
            fresh: AtomicU32::new(0),
            open: std::array::from_fn(|_| AtomicI64::new(0)),
            last_generation: LAST_GENERATION,
        }
    }

    /// For tests: slots that wear out sooner.
    #[cfg(test)]
    pub fn with_last_generation(last_generation: u32) -> Self {
        Self { last_generation, ..Self::new() }
    }

    /// Puts an object in; gives it back if there is no room for it.
    #[inline]
    pub fn insert(&self, kind: Kind, payload: P, descriptor: i32) -> Result<i64, P> {
        let Some(slot) = self.take_free() else { return Err(payload) };
        let generation = slot_state::generation(slot.word.load(Ordering::Relaxed));
        let handle = Handle { kind, generation, index: slot.index };
        slot.payload.with_mut(|target| {
            // SAFETY: a free slot's payload belongs to the thread that took the
            // slot. (No object is in it that would have to be dropped.)
            unsafe { target.write(Some(payload)) }
        });
        self.count(kind, 1);
        // Release: a thread that sees it sees that the object before is gone.
        slot.descriptor.store(descriptor, Ordering::Release);
        // Release: a thread that finds the slot live sees the payload.
        slot.word.store(slot_state::live(handle), Ordering::Release);
        Ok(handle.pack())
    }

    /// Pins an object of this kind.
    // Every call of the C API begins here and ends in `release`: inlined, the
    // pin stays in registers.
    #[inline(always)]
    pub fn pin(&self, handle: i64, kind: Kind) -> Result<Pin<'_, P>, LookupError> {
        let Some(wanted) = Handle::unpack_as(handle, kind) else {
            return Err(self.kind_of(handle).map_or_else(|stale| stale, LookupError::Kind));
        };
        let slot = self.slots.get(wanted.index).ok_or(LookupError::Stale)?;
        let mut seen = slot.word.load(Ordering::Relaxed);
        loop {
            if slot_state::identity(seen) != slot_state::live(wanted) || slot_state::is_full(seen) {
                return Err(refusal(seen, wanted));
            }
            // Acquire: sees the payload that `insert` wrote.
            match slot.word.compare_exchange_weak(
                seen,
                seen.wrapping_add(slot_state::PIN),
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(Pin { slot }),
                Err(now) => seen = now,
            }
        }
    }

    /// Marks an object closing: there are no new pins from now on, and the
    /// last one frees it. The pin returned is one of them; true: there are
    /// others.
    ///
    /// `kind`: the kind it must have, if any.
    // Inlined for the same reason as `pin`.
    #[inline(always)]
    pub fn close(
        &self,
        handle: i64,
        kind: Option<Kind>,
    ) -> Result<(Pin<'_, P>, bool), LookupError> {
        let wanted = match kind {
            Some(kind) => Handle::unpack_as(handle, kind),
            None => Handle::unpack(handle),
        };
        let Some(wanted) = wanted else {
            return Err(self.kind_of(handle).map_or_else(|stale| stale, LookupError::Kind));
        };
        let slot = self.slots.get(wanted.index).ok_or(LookupError::Stale)?;
        let mut seen = slot.word.load(Ordering::Relaxed);
        loop {
            if !slot_state::is(seen, wanted) || seen & slot_state::CLOSING != 0 {
                return Err(LookupError::Stale);
            }
            if slot_state::is_full(seen) {
                return Err(LookupError::Full);
            }
            let closing = (seen | slot_state::CLOSING).wrapping_add(slot_state::PIN);
            // Acquire: as in `pin`.
            match slot.word.compare_exchange_weak(
                seen,
                closing,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => {
                    self.count(wanted.kind, -1);
                    return Ok((Pin { slot }, slot_state::pins(seen) > 0));
                }
                Err(now) => seen = now,
            }
        }
    }

    /// Gives up a pin. The thread that gives up a closing object's last one has
    /// to `reclaim` it.
    #[inline(always)]
    pub fn release<'t>(&self, pin: Pin<'t, P>) -> Option<LastRef<'t, P>> {
        // Release: our use of the payload is over before another frees it.
        let before = pin.slot.word.fetch_sub(slot_state::PIN, Ordering::Release);
        let last = before & slot_state::CLOSING != 0 && slot_state::pins(before) == 1;
        last.then_some(LastRef { slot: pin.slot })
    }

    /// Frees a slot and gives its object away; or, if a stack may still refer
    /// to the object, has it `abandon`ed and leaves it where it is, for good.
    pub fn reclaim(&self, last: LastRef<'_, P>, abandon: impl Fn(&P)) -> Option<P> {
        let slot = last.slot;
        // Acquire: all other uses of the payload are over.
        let seen = slot.word.load(Ordering::Acquire);
        if seen & slot_state::ORPHAN != 0 {
            // SAFETY: only its last user writes the payload of a closing
            // slot, and this thread is the last user.
            let payload = slot.payload.with(|payload| unsafe { (*payload).as_ref() });
            payload.into_iter().for_each(abandon);
            self.retire(slot);
            return None;
        }
        let payload = slot.payload.with_mut(|payload| {
            // SAFETY: no pin is left and none can be added to a closing slot:
            // this thread is alone with it.
            unsafe { (*payload).take() }
        });
        self.free_slot(slot);
        payload
    }

    /// Neither live nor in the list, for good: its last generation is over.
    fn retire(&self, slot: &Slot<P>) {
        slot.word.store(slot_state::free(self.last_generation, 0), Ordering::Relaxed);
    }

    /// The descriptor of an object of this kind, as it was inserted.
    #[inline]
    pub fn descriptor(&self, handle: i64, kind: Kind) -> Result<i32, LookupError> {
        let Some(wanted) = Handle::unpack_as(handle, kind) else {
            return Err(self.kind_of(handle).map_or_else(|stale| stale, LookupError::Kind));
        };
        let slot = self.slots.get(wanted.index).ok_or(LookupError::Stale)?;
        // Acquire: the object's descriptor, or a later one's.
        let seen = slot.word.load(Ordering::Acquire);
        if slot_state::identity(seen) != slot_state::live(wanted) {
            return Err(refusal(seen, wanted));
        }
        // Acquire: if it is a later object's, the next look sees that ours is
        // gone.
        let descriptor = slot.descriptor.load(Ordering::Acquire);
        let still = slot_state::is(slot.word.load(Ordering::Relaxed), wanted);
        if still { Ok(descriptor) } else { Err(LookupError::Stale) }
    }

    /// The kind of a live object.
    pub fn kind_of(&self, handle: i64) -> Result<Kind, LookupError> {
        let wanted = Handle::unpack(handle).ok_or(LookupError::Stale)?;
        let slot = self.slots.get(wanted.index).ok_or(LookupError::Stale)?;
        let seen = slot.word.load(Ordering::Relaxed);
        let live = slot_state::is(seen, wanted) && seen & slot_state::CLOSING == 0;
        if live { Ok(wanted.kind) } else { Err(LookupError::Stale) }
    }

    /// How many objects of a kind are open.
    pub fn open(&self, kind: Kind) -> i64 {
        self.open.get(usize::from(kind.code())).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// How many objects are open.
    pub fn open_all(&self) -> i64 {
        self.open.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn count(&self, kind: Kind, change: i64) {
        if let Some(count) = self.open.get(usize::from(kind.code())) {
            count.fetch_add(change, Ordering::Relaxed);
        }
    }

    fn take_free(&self) -> Option<&Slot<P>> {
        let mut free = self.free.lock();
        if let Some((head, tail)) = free.ends {
            let slot = self.slots.get(head)?;
            let next = slot_state::next(slot.word.load(Ordering::Relaxed));
            free.ends = (head != tail).then_some((next, tail));
            return Some(slot);
        }
        let index = self.fresh.load(Ordering::Relaxed);
        if index >= MAX_SLOTS.min(CAPACITY) {
            return None;
        }
        let slot = self.slots.ensure(index, |index| Slot {
            index,
            descriptor: AtomicI32::new(-1),
            word: AtomicU64::new(slot_state::free(1, 0)),
            payload: UnsafeCell::new(None),
        })?;
        self.fresh.store(index + 1, Ordering::Relaxed);
        Some(slot)
    }

    /// Makes a slot free for its next generation, or retires it.
    fn free_slot(&self, slot: &Slot<P>) {
        let used = slot_state::generation(slot.word.load(Ordering::Relaxed));
        let mut free = self.free.lock();
        self.append(&mut free, slot, used);
    }

    fn append(&self, free: &mut FreeList, slot: &Slot<P>, used: u32) {
        if used >= self.last_generation {
            return self.retire(slot);
        }
        // Release: a thread that takes the slot sees its payload gone.
        slot.word.store(slot_state::free(used + 1, 0), Ordering::Release);
        free.ends = match free.ends {
            None => Some((slot.index, slot.index)),
            Some((head, tail)) => {
                if let Some(last) = self.slots.get(tail) {
                    let generation = slot_state::generation(last.word.load(Ordering::Relaxed));
                    last.word.store(slot_state::free(generation, slot.index), Ordering::Relaxed);
                }
                Some((head, slot.index))
            }
        };
    }

    /// Sets the table right in a forked child: the threads that held pins or
    /// the lock, or were half-way through a close, do not exist.
    ///
    /// `inherit` says of each object whether it stays the parent's;
    /// `abandon` makes one that was being closed give back its descriptors.
    ///
    /// # Safety
    /// No other thread may be using the table: the first call of a child.
    #[cfg(not(loom))]
    pub unsafe fn after_fork(&self, inherit: impl Fn(&P) -> bool, abandon: impl Fn(&P)) {
        let mut list = FreeList { ends: None };
        for count in &self.open {
            count.store(0, Ordering::Relaxed);
        }
        for index in 0..self.fresh.load(Ordering::Relaxed) {
            let Some(slot) = self.slots.get(index) else { continue };
            let seen = slot.word.load(Ordering::Relaxed);
            let generation = slot_state::generation(seen);
            // SAFETY: no other thread uses the table (this function's
            // contract), so no other thread writes it.
            let payload = slot.payload.with(|payload| unsafe { (*payload).as_ref() });
            match (slot_state::is_live(seen), payload) {
                (true, Some(payload)) if seen & slot_state::CLOSING == 0 => {
                    let mut word = slot_state::unpinned(seen);
                    if slot_state::pins(seen) > 0 {
                        word |= slot_state::ORPHAN;
                    }
                    if inherit(payload) {
                        word |= slot_state::INHERITED;
                    }
                    slot.word.store(word, Ordering::Relaxed);
                    if let Some(kind) = slot_state::kind(seen) {
                        self.count(kind, 1);
                    }
                }
                (true, payload) => {
                    // A stack may refer to it: it stays where it is.
                    payload.into_iter().for_each(&abandon);
                    self.retire(slot);
                }
                // Retired slots have the last generation.
                (false, _) if generation >= self.last_generation => {}
                (false, _) => {
                    // Perhaps half written by an insertion: forgotten.
                    slot.payload.with_mut(|target| {
                        // SAFETY: as above.
                        unsafe { target.write(None) }
                    });
                    self.append(&mut list, slot, generation - 1);
                }
            }
        }
        // SAFETY: no other thread is here, and this one does not hold it.
        unsafe { self.free.remake(list) };
    }
}

#[cold]
fn refusal(seen: u64, wanted: Handle) -> LookupError {
    match () {
        () if !slot_state::is(seen, wanted) || seen & slot_state::CLOSING != 0 => {
            LookupError::Stale
        }
        () if seen & slot_state::INHERITED != 0 => LookupError::Inherited,
        () if seen & slot_state::POISONED != 0 => LookupError::Poisoned,
        () => LookupError::Full,
    }
}

impl<P: Send + Sync> Pin<'_, P> {
    /// The object.
    #[inline]
    pub fn get(&self) -> Option<&P> {
        // SAFETY: this pin keeps the payload from being taken, and nothing
        // else writes it while the slot is live or closing.
        self.slot.payload.with(|payload| unsafe { (*payload).as_ref() })
    }

    /// From now on only closing it is allowed.
    #[cold]
    pub fn poison(&self) {
        self.slot.word.fetch_or(slot_state::POISONED, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
