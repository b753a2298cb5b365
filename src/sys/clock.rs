//! The clocks, and deadlines on CLOCK_MONOTONIC.

pub(crate) const NS_PER_S: i64 = 1_000_000_000;

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn now_ns() -> i64 {
    read_ns(libc::CLOCK_MONOTONIC)
}

/// The same as of the last tick of the kernel, some milliseconds ago at most:
/// cheaper to read.
pub(crate) fn coarse_ns() -> i64 {
    read_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds of a clock that always exists.
pub(crate) fn read_ns(clock: libc::clockid_t) -> i64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is writable. A clock that does not exist leaves it at 0.
    unsafe { libc::clock_gettime(clock, &mut now) };
    to_ns(&now)
}

/// Nanoseconds of a time of the kernel, saturated.
pub(crate) fn to_ns(time: &libc::timespec) -> i64 {
    time.tv_sec.saturating_mul(NS_PER_S).saturating_add(time.tv_nsec)
}

/// A time of the kernel; `ns` is not negative.
pub(crate) fn to_timespec(ns: i64) -> libc::timespec {
    libc::timespec { tv_sec: ns / NS_PER_S, tv_nsec: ns % NS_PER_S }
}

/// The end of a wait.
#[derive(Clone, Copy)]
pub(crate) enum Deadline {
    /// Do not wait at all; the clock is not even read.
    Now,
    /// At this time of CLOCK_MONOTONIC.
    At(i64),
    Never,
}

impl Deadline {
    /// From a timeout of the C API: negative for ever, 0 not at all.
    pub fn after(timeout_ns: i64) -> Self {
        match timeout_ns {
            0 => Self::Now,
            ..0 => Self::Never,
            _ => Self::At(now_ns().saturating_add(timeout_ns)),
        }
    }

    pub fn passed(self) -> bool {
        match self {
            Self::Now => true,
            Self::At(time) => now_ns() >= time,
            Self::Never => false,
        }
    }

    /// Nanoseconds left, not negative; `None`: for ever.
    pub fn left_ns(self) -> Option<i64> {
        match self {
            Self::Now => Some(0),
            Self::At(time) => Some(time.saturating_sub(now_ns()).max(0)),
            Self::Never => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_do_not_overflow() {
        let far = Deadline::after(i64::MAX);
        assert!(!far.passed());
        assert!(far.left_ns().unwrap() > 200 * 365 * 86400 * NS_PER_S);
        assert!(Deadline::after(-5).left_ns().is_none());
        assert!(Deadline::after(0).passed());
        assert!(Deadline::At(0).left_ns() == Some(0));
    }
}
