//! What a timer is set to, in nanoseconds or seconds.

use crate::errno::{Result, fail};
use crate::sys::clock::{self, NS_PER_S};

/// The two times of a timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TfdSetting {
    pub initial_ns: i64,
    pub interval_ns: i64,
}

impl TfdSetting {
    pub fn from_ns(initial_ns: i64, interval_ns: i64) -> Result<Self> {
        for (name, time) in [("initial", initial_ns), ("interval", interval_ns)] {
            if time < 0 {
                fail!(EINVAL, "the {} time of {} ns is negative", name, time);
            }
        }
        Ok(Self { initial_ns, interval_ns })
    }

    pub fn from_seconds(initial_s: f64, interval_s: f64) -> Result<Self> {
        Ok(Self {
            initial_ns: nanoseconds("initial", initial_s)?,
            interval_ns: nanoseconds("interval", interval_s)?,
        })
    }
}

impl From<TfdSetting> for libc::itimerspec {
    fn from(setting: TfdSetting) -> Self {
        Self {
            it_value: clock::to_timespec(setting.initial_ns),
            it_interval: clock::to_timespec(setting.interval_ns),
        }
    }
}

impl From<libc::itimerspec> for TfdSetting {
    fn from(spec: libc::itimerspec) -> Self {
        Self {
            initial_ns: clock::to_ns(&spec.it_value),
            interval_ns: clock::to_ns(&spec.it_interval),
        }
    }
}

/// Rounded up: never early, and what is positive stays positive.
fn nanoseconds(name: &'static str, seconds: f64) -> Result<i64> {
    if seconds.is_nan() {
        fail!(EINVAL, "the {} time is not a number", name);
    }
    if seconds < 0.0 {
        fail!(EINVAL, "the {} time of {} s is negative", name, seconds);
    }
    let ns = (seconds * NS_PER_S as f64).ceil();
    // 2^63 as a double; the largest i64 has none of its own.
    if ns >= i64::MAX as f64 {
        fail!(EOVERFLOW, "the {} time of {} s is out of range", name, seconds);
    }
    Ok(ns as i64)
}

/// Nanoseconds as seconds.
pub(crate) fn seconds(ns: i64) -> f64 {
    ns as f64 / NS_PER_S as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errno::Errno;

    #[test]
    fn seconds_round_up_and_stay_in_range() {
        let ns = |seconds| nanoseconds("initial", seconds).map_err(|error| error.errno);
        assert_eq!(ns(0.25), Ok(250_000_000));
        assert_eq!(ns(1e-10), Ok(1));
        assert_eq!(ns(f64::MIN_POSITIVE), Ok(1));
        assert_eq!(ns(1.0 / 3.0), Ok(333_333_334));
        assert_eq!(ns(-0.0), Ok(0));
        assert_eq!(ns(-1e-10), Err(Errno::EINVAL));
        assert_eq!(ns(f64::NAN), Err(Errno::EINVAL));
        assert_eq!(ns(f64::NEG_INFINITY), Err(Errno::EINVAL));
        assert_eq!(ns(f64::INFINITY), Err(Errno::EOVERFLOW));
        assert_eq!(ns(9_223_372_036.9), Err(Errno::EOVERFLOW));
        assert_eq!(ns(9_223_372_036.0), Ok(9_223_372_036_000_000_000));
    }
}
