//! A slot's state, in one word.
//!
//! From the low end: pins 30 bits, or while free the next free slot; then
//! the flags; kind 5 bits; generation 24 bits.
//!
//! ```text
//! free --insert--> live --close--> closing --last unpin--> free, next
//! generation
//! ```
//!
//! Pins are only added while live. The thread whose unpin takes a closing
//! slot's last pin is the only one left that can touch the payload: it frees.

use super::bits::{Handle, Kind};

const PIN_BITS: u32 = 30;
const PIN_MASK: u64 = (1 << PIN_BITS) - 1;
/// One pin.
pub(super) const PIN: u64 = 1;

/// The payload was pinned when the process forked, by a thread whose stack
/// may still refer to it: its memory is never freed in the child.
pub(super) const ORPHAN: u64 = 1 << PIN_BITS;
/// A panic unwound through a call that had it pinned.
pub(super) const POISONED: u64 = 1 << (PIN_BITS + 1);
/// Belongs to the parent of this forked process.
pub(super) const INHERITED: u64 = 1 << (PIN_BITS + 2);
pub(super) const CLOSING: u64 = 1 << (PIN_BITS + 3);
const LIVE: u64 = 1 << (PIN_BITS + 4);
const KIND_SHIFT: u32 = PIN_BITS + 5;
const GENERATION_SHIFT: u32 = KIND_SHIFT + 5;

/// The word of a live slot that has nothing else to it.
#[inline]
pub(super) fn live(handle: Handle) -> u64 {
    u64::from(handle.generation) << GENERATION_SHIFT
        | u64::from(handle.kind.code()) << KIND_SHIFT
        | LIVE
}

/// The word of a free slot.
pub(super) fn free(generation: u32, next: u32) -> u64 {
    u64::from(generation) << GENERATION_SHIFT | u64::from(next)
}

/// Everything but the pins and what does not matter to a user.
#[inline]
pub(super) fn identity(word: u64) -> u64 {
    word & !(PIN_MASK | ORPHAN)
}

/// Whether the word is that of `handle`'s object, closing or not.
#[inline]
pub(super) fn is(word: u64, handle: Handle) -> bool {
    word >> (PIN_BITS + 4) == live(handle) >> (PIN_BITS + 4)
}

pub(super) fn is_live(word: u64) -> bool {
    word & LIVE != 0
}

pub(super) fn pins(word: u64) -> u64 {
    word & PIN_MASK
}

/// Without pins, as a fork leaves it.
pub(super) fn unpinned(word: u64) -> u64 {
    word & !PIN_MASK
}

/// Whether another pin would not fit.
#[inline]
pub(super) fn is_full(word: u64) -> bool {
    word & PIN_MASK == PIN_MASK
}

pub(super) fn generation(word: u64) -> u32 {
    (word >> GENERATION_SHIFT) as u32
}

pub(super) fn kind(word: u64) -> Option<Kind> {
    Kind::from_code(word >> KIND_SHIFT & 0x1f)
}

/// While free: the next free slot.
pub(super) fn next(word: u64) -> u32 {
    pins(word) as u32
}
