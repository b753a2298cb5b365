//! Telemetry of a loop: statistics (`stats`), traces (`trace`), and watchdogs,
//! which observe it from another thread (`watchdog`).
//!
//! None of them costs anything while all are off: a loop that is `instrumented`
//! has code paths of its own for each wait and each callback. What the loop is
//! doing is in `activity`; its own thread records all else.

mod activity;
mod cells;
mod histogram;
mod probe;
mod stats;
pub(super) mod trace;
pub(super) mod trace_json;
mod trace_ring;
mod watchdog;

pub(super) use activity::ActivityCell;
pub(crate) use histogram::least_of as bucket_least;
pub(super) use probe::{CallbackRun, Probe};
pub(crate) use stats::HistogramKind;
pub(super) use stats::LoopStats;
pub use stats::Stats;
pub(super) use stats::{NAME, short_name};
pub(crate) use trace::Output;
pub(super) use trace::Trace;
pub use watchdog::Stuck;
pub(super) use watchdog::{
    Watchdog, WatchdogCallback, WatchdogConfig, WatchdogHandle, WatchedLoop,
};

pub(crate) use histogram::BUCKETS;

use crate::util::try_arc::TryArc;

/// What a loop's thread begins or ceases to do for telemetry.
pub(super) enum ProbeChange {
    Stats(Option<TryArc<stats::Counters>>),
    Trace(Option<TryArc<trace::TraceRing>>),
    Watchdog(Option<WatchdogHandle>),
}

/// As much of a text as so many bytes hold, and no part of a character.
pub(super) fn cut(text: &[u8], most: usize) -> &[u8] {
    let goes_on = |i: &usize| text.get(*i).is_some_and(|byte| byte & 0xc0 == 0x80);
    // No character has more than three bytes that go on with it.
    let back = (0..3).take_while(|back| goes_on(&most.saturating_sub(*back))).count();
    text.get(..most - back).unwrap_or(text)
}
