//! The clocks that timers can have, in the order of their queues.

use super::own_words::CLOCKS;
use crate::sys::clock;

/// The second number is the clock that shows the same time and can always be
/// read.
const CLOCK_IDS: [(i32, i32); CLOCKS] = [
    (libc::CLOCK_MONOTONIC, libc::CLOCK_MONOTONIC),
    (libc::CLOCK_REALTIME, libc::CLOCK_REALTIME),
    (libc::CLOCK_BOOTTIME, libc::CLOCK_BOOTTIME),
    (libc::CLOCK_REALTIME_ALARM, libc::CLOCK_REALTIME),
    (libc::CLOCK_BOOTTIME_ALARM, libc::CLOCK_BOOTTIME),
];
pub(crate) const MONOTONIC: usize = 0;
pub(super) const REALTIME: usize = 1;
pub(super) const NEVER: i64 = i64::MAX;

/// The queue of a clock of the system.
pub(crate) fn clock_index(id: i32) -> Option<usize> {
    CLOCK_IDS.iter().position(|(clock, _)| *clock == id)
}

/// The system's number of a queue's clock.
pub(super) fn clock_id(clock: usize) -> i32 {
    CLOCK_IDS.get(clock).map_or(-1, |(id, _)| *id)
}

pub(super) fn read(clock: usize) -> i64 {
    CLOCK_IDS.get(clock).map_or(0, |(_, id)| clock::read_ns(*id))
}
