//! The entries of a timer queue, and the ticks that they belong to.

/// A tick is 2^16 ns.
pub(super) const TICK_BITS: u32 = 16;
pub(super) const ID_BITS: u32 = 24;

/// A timer's place in the order: its deadline when it was put there, and
/// below it when it was armed (40 bits) and which it is (24 bits).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub(super) struct TimerEntry {
    pub key: i64,
    pub tag: u64,
}

impl TimerEntry {
    pub fn new(key: i64, seq: u64, id: u32) -> Self {
        Self { key, tag: seq << ID_BITS | u64::from(id) }
    }

    pub fn id(self) -> u32 {
        (self.tag & ((1 << ID_BITS) - 1)) as u32
    }

    pub fn is_exact(self, deadline: i64, seq: u64) -> bool {
        self == Self::new(deadline, seq, self.id())
    }

    /// The tick it belongs to; the order of times is that of ticks.
    pub fn tick(self) -> u64 {
        tick_of(self.key)
    }
}

pub(super) fn tick_of(time: i64) -> u64 {
    (time.cast_unsigned() ^ 1 << 63) >> TICK_BITS
}

/// The first time of a tick.
pub(super) fn time_of(tick: u64) -> i64 {
    (tick << TICK_BITS ^ 1 << 63).cast_signed()
}
