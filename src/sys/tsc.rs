//! The processor's time stamp counter: read in half the time of a clock.
//!
//! Used where the kernel itself takes its time from that counter, so that it
//! runs evenly and alike on all processors; else the clock is read. How fast
//! it counts is measured against the clock, again and again at growing
//! distances: a time that was worked out is never far from one that was read.

use super::clock;
use super::raw_fd;
use crate::sync::{AtomicU32, Ordering::Relaxed};

/// Whether the counter can be used: see [`is_usable`].
static USABLE: AtomicU32 = AtomicU32::new(UNKNOWN);
const UNKNOWN: u32 = 0;
const YES: u32 = 1;
const NO: u32 = 2;

/// How long the first measurement takes.
const FIRST_NS: i64 = 20_000;
/// After how many ticks the clock is read again: at first, and at last.
const NEAR: u64 = 1 << 17;
const FAR: u64 = 1 << 28;
/// More ticks than two readings of the counter around one of the clock take.
const INTERRUPTED: u64 = 1000;
/// Bits behind the point of a rate.
const POINT: u32 = 32;

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) struct TscClock {
    usable: bool,
    /// Nanoseconds of a tick.
    rate: u64,
    base: u64,
    base_ns: i64,
    /// The clock is read when so many ticks have passed.
    horizon: u64,
}

impl TscClock {
    pub fn new() -> Self {
        let mut ticks = Self { usable: false, rate: 0, base: 0, base_ns: 0, horizon: NEAR };
        if is_usable()
            && let Some((base, base_ns)) = both()
        {
            while clock::now_ns() - base_ns < FIRST_NS {
                std::hint::spin_loop();
            }
            if let Some((ticks_now, now)) = both()
                && let Some(rate) = rate(ticks_now.wrapping_sub(base), now - base_ns)
            {
                (ticks.base, ticks.base_ns) = (ticks_now, now);
                (ticks.usable, ticks.rate) = (true, rate);
            }
        }
        ticks
    }

    /// A reading, to be put into nanoseconds soon.
    #[inline]
    pub fn reading(&self) -> u64 {
        if self.usable { read() } else { clock::now_ns().cast_unsigned() }
    }

    /// The time of a reading that is not older than the last look.
    #[inline]
    pub fn time_of(&self, reading: u64) -> i64 {
        if !self.usable {
            return reading.cast_signed();
        }
        // Of a virtual machine that went elsewhere it may be anything.
        let passed = u128::from(reading.wrapping_sub(self.base));
        self.base_ns.wrapping_add(((passed * u128::from(self.rate)) >> POINT) as i64)
    }

    /// Nanoseconds of one unit of a reading, times 2^32.
    pub fn rate(&self) -> u64 {
        if self.usable { self.rate } else { 1 << POINT }
    }

    /// Whether the clock should be looked at, since this is the time.
    #[inline]
    pub fn is_far(&self, reading: u64) -> bool {
        // Huge, should it ever go backwards.
        self.usable && reading.wrapping_sub(self.base) > self.horizon
    }

    /// Reads the clock, and measures the counter; the time and its reading.
    #[cold]
    #[inline(never)]
    pub fn look(&mut self) -> (i64, u64) {
        let Some((ticks, now)) = both() else {
            let reading = read();
            return (self.time_of(reading), reading);
        };
        let measured = rate(ticks.wrapping_sub(self.base), now - self.base_ns);
        // Not if the system slept, or a virtual machine went elsewhere.
        if let Some(rate) = measured.filter(|rate| rate.abs_diff(self.rate) < self.rate / 64) {
            self.rate = rate;
            self.horizon = (self.horizon * 8).min(FAR);
        }
        (self.base, self.base_ns) = (ticks, now);
        (now, ticks)
    }
}

/// A time for [`is_recent`], and whether the counter can be used; else it is
/// the same for some milliseconds. A signal handler may ask for it.
pub(crate) fn stamp() -> (u64, bool) {
    let usable = USABLE.load(Relaxed) == YES;
    (if usable { read() } else { clock::coarse_ns().cast_unsigned() }, usable)
}

/// Whether less than about a millisecond has passed since a stamp of the
/// counter's.
#[inline]
pub(crate) fn is_recent(stamp: u64) -> bool {
    const SHIFT: u32 = if cfg!(target_arch = "aarch64") { 15 } else { 21 };
    // Huge, should it ever go backwards.
    read().wrapping_sub(stamp) >> SHIFT == 0
}

/// Finds out whether the counter can be used, for [`stamp`], which opens no
/// file.
pub(crate) fn prepare() {
    is_usable();
}

fn rate(ticks: u64, ns: i64) -> Option<u64> {
    let ns = u128::try_from(ns).ok()? << POINT;
    u64::try_from(ns.checked_div(ticks.into())?).ok().filter(|rate| *rate > 0)
}

/// The counter and the clock at one time; `None`: this thread is interrupted
/// too often.
fn both() -> Option<(u64, i64)> {
    for _ in 0..8 {
        let before = read();
        let now = clock::now_ns();
        let took = read().wrapping_sub(before);
        if took < INTERRUPTED {
            return Some((before.wrapping_add(took / 2), now));
        }
    }
    None
}

#[inline]
fn read() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every such processor has it, and the kernel has not forbidden
    // it if it takes its own time from it (see `is_usable`).
    unsafe {
        std::arch::x86_64::_rdtsc()
    }
    #[cfg(target_arch = "aarch64")]
    {
        let count: u64;
        // SAFETY: as above; it only reads.
        unsafe {
            std::arch::asm!("mrs {}, cntvct_el0", out(reg) count, options(nostack, preserves_flags, nomem));
        }
        count
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    0
}

/// Whether the kernel takes its time from the counter.
fn is_usable() -> bool {
    let known = USABLE.load(Relaxed);
    if known != UNKNOWN {
        return known == YES;
    }
    let path = c"/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let name = match () {
        () if cfg!(target_arch = "x86_64") => &b"tsc"[..],
        () if cfg!(target_arch = "aarch64") => b"arch_sys_counter",
        () => b"",
    };
    let mut text = [0; 32];
    let read = raw_fd::read_start(path, &mut text).unwrap_or_default();
    let usable = !name.is_empty() && read.trim_ascii() == name;
    USABLE.store(if usable { YES } else { NO }, Relaxed);
    usable
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_follow_the_clock() {
        let mut ticks = TscClock::new();
        let start = clock::now_ns();
        while clock::now_ns() - start < 20_000_000 {
            let before = clock::now_ns();
            let reading = ticks.reading();
            let far = ticks.is_far(reading);
            let now = if far { ticks.look().0 } else { ticks.time_of(reading) };
            let after = clock::now_ns();
            // The counter's reading is not ordered with the others.
            let slack = 5_000 + (after - before);
            assert!(now >= before - slack && now <= after + slack, "{before} {now} {after}");
        }
    }
}
