//! How a timer is set.

use super::clock_ids::{MONOTONIC, REALTIME};
use super::flags::*;
use crate::errno::{Errno, Error, error};

/// What a timer does about expirations that it missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Period {
    Skip,
    Burst,
    Delay,
}

/// How a timer is set; nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TimerSetting {
    pub absolute: bool,
    pub period: Period,
    /// Negative: not at all.
    pub initial: i64,
    pub interval: i64,
}

impl TimerSetting {
    pub fn may_start_again(&self) -> bool {
        self.interval > 0 || !self.absolute
    }

    /// The flags of a timer that is set like this, in this queue.
    pub(super) fn flags(&self, queue: usize, relative: bool) -> u32 {
        let mut flags = (queue as u32) << QUEUE_SHIFT;
        flags |= if relative { RELATIVE } else { 0 };
        flags |= if self.may_start_again() { AGAIN } else { 0 };
        flags
            | match (self.interval, self.period) {
                (0, _) => 0,
                (_, Period::Skip) => PERIODIC,
                (_, Period::Burst) => PERIODIC | BURST,
                (_, Period::Delay) => PERIODIC | DELAY,
            }
    }

    /// From when it is started again to when it expires.
    pub fn period_ns(&self) -> i64 {
        if self.interval > 0 { self.interval } else { self.initial }
    }
}

/// A timer to be made; see evloop_add_timer.
#[derive(Clone, Copy)]
pub(crate) struct NewTimer {
    pub clock: usize,
    pub setting: TimerSetting,
    pub tolerance: i64,
}

/// A relative timer on the wall clock is not affected by its steps: it
/// counts on the clock that has none, as the kernel's do.
pub(super) fn queue_of(clock: usize, setting: &TimerSetting) -> usize {
    if clock == REALTIME && !setting.absolute { MONOTONIC } else { clock }
}

/// The error for a timer that cannot be started again.
pub(super) fn never_relative() -> Error {
    error!(Errno::EINVAL, "the timer was not set to a relative time before")
}
