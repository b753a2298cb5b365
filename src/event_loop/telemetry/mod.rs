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
mod text;
pub(super) mod trace;
pub(super) mod trace_json;
mod trace_ring;
mod watchdog;

pub(super) use activity::ActivityCell;
pub(crate) use histogram::least_of as bucket_least;
pub(super) use probe::{CallbackRun, Probe, ProbeChange};
pub(crate) use stats::HistogramKind;
pub(super) use stats::LoopStats;
pub use stats::Stats;
pub(super) use stats::{NAME, short_name};
pub(super) use text::cut;
pub(crate) use trace::Output;
pub(super) use trace::Trace;
pub use watchdog::Stuck;
pub(super) use watchdog::{
    Watchdog, WatchdogCallback, WatchdogConfig, WatchdogHandle, WatchedLoop,
};

pub(crate) use histogram::BUCKETS;
