//! What is in a handle: kind 5 bits, generation 24, index 24, from the top.

use crate::errno::Result;
use crate::errno::fail;

/// A kind of object. The numbers are part of the ABI (EVLOOP_KIND_*) and of
/// every handle; 0 is no kind, so that 0 is no handle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Kind {
    Tfd = 1,
    Loop = 2,
    Watcher = 3,
    Poll = 4,
    Epoll = 5,
    DevPoll = 6,
    Kqueue = 7,
    Selector = 8,
}

impl Kind {
    /// All of them, with what a sentence calls them.
    const ALL: [(Self, &'static str); 8] = [
        (Self::Tfd, "a timer file descriptor"),
        (Self::Loop, "an event loop"),
        (Self::Watcher, "a watcher"),
        (Self::Poll, "a poll set"),
        (Self::Epoll, "an epoll object"),
        (Self::DevPoll, "a /dev/poll object"),
        (Self::Kqueue, "a kqueue"),
        (Self::Selector, "a selector"),
    ];

    pub fn code(self) -> u8 {
        self as u8
    }

    pub fn from_code(code: u64) -> Option<Self> {
        Self::ALL.iter().map(|(kind, _)| *kind).find(|kind| u64::from(kind.code()) == code)
    }

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("an object", |(_, name)| name)
    }
}

/// How many codes fit into a handle.
pub(crate) const KINDS: usize = 1 << KIND_BITS;

const INDEX_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;
const KIND_BITS: u32 = 5;

/// One more than the largest index.
pub(crate) const MAX_SLOTS: u32 = 1 << INDEX_BITS;
/// The last generation; a slot that has used it up is retired.
pub(crate) const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

/// A handle, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Handle {
    pub kind: Kind,
    pub generation: u32,
    pub index: u32,
}

impl Handle {
    pub fn pack(self) -> i64 {
        let high = u64::from(self.kind.code()) << GENERATION_BITS | u64::from(self.generation);
        (high << INDEX_BITS | u64::from(self.index)).cast_signed()
    }

    pub fn unpack(handle: i64) -> Option<Self> {
        let code = handle.cast_unsigned() >> (GENERATION_BITS + INDEX_BITS);
        Self::unpack_as(handle, Kind::from_code(code)?)
    }

    /// Only if it is of this kind: the short way of the calls.
    #[inline]
    pub fn unpack_as(handle: i64, kind: Kind) -> Option<Self> {
        let bits = handle.cast_unsigned();
        let generation = (bits >> INDEX_BITS) as u32 & LAST_GENERATION;
        let index = bits as u32 & (MAX_SLOTS - 1);
        let is_kind = bits >> (GENERATION_BITS + INDEX_BITS) == u64::from(kind.code());
        is_kind.then_some(Self { kind, generation, index })
    }
}

/// The error for a number that names nothing.
#[cold]
pub(crate) fn stale<T>(handle: i64) -> Result<T> {
    match handle {
        0 => fail!(ESTALE, "0 is not a handle"),
        ..0 => fail!(ESTALE, "{} is not a handle but an error code of a constructor", handle),
        _ if Handle::unpack(handle).is_none() => fail!(ESTALE, "{} is not a handle", handle),
        _ => fail!(ESTALE, "handle {} is closed, or was never one", handle),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_handle_survives_a_double() {
        let handle =
            Handle { kind: Kind::Selector, generation: LAST_GENERATION, index: MAX_SLOTS - 1 }
                .pack();
        assert!(handle < 1 << 53);
        assert_eq!((handle as f64) as i64, handle);
        assert!(KINDS as i64 * (1 << 48) <= 1 << 53);
    }

    proptest! {
        #[test]
        fn packing_loses_nothing(code in 0u64..8, generation in 0..=LAST_GENERATION, index in 0..MAX_SLOTS) {
            let kind = Kind::ALL[code as usize].0;
            let handle = Handle { kind, generation, index };
            prop_assert!(handle.pack() > 0);
            prop_assert_eq!(Handle::unpack(handle.pack()), Some(handle));
        }

        #[test]
        fn any_number_is_looked_at_safely(number: i64) {
            if let Some(handle) = Handle::unpack(number) {
                prop_assert_eq!(handle.pack(), number);
            }
        }
    }
}
