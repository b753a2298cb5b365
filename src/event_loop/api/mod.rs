//! The entry points of event loops: what the C API calls.

pub(super) mod loops;
pub(super) mod watchers;

pub(crate) use super::asyncs::async_send;
pub(crate) use super::busy_poll::set_busy_poll;
pub(crate) use super::clocks::{MONOTONIC, clock_index};
pub(crate) use super::command::Change;
pub(crate) use super::event::Target;
pub use super::event::{Event, Options};
pub(crate) use super::fd_source::ObjectRef;
pub(crate) use super::flags::{CLOSED, ERROR, POST, Source};
pub use super::inspect::WatcherInfo;
pub(crate) use super::inspect::{alive, find_io, info, watchers};
pub(crate) use super::inspect_text::dump;
pub(crate) use super::posts::{post, post_full};
pub(crate) use super::pressure::add_memory_pressure;
pub use super::process::ProcessEnd;
pub(crate) use super::process::{STATUS_UNKNOWN, add_process, event_process};
pub(crate) use super::registry::{close, refuse_own, revive};
pub(crate) use super::run::{RunMode, embed_prepare, next_timeout, run, wait};
pub(crate) use super::signals::{add_signal, event_siginfo};
pub(crate) use super::sinks::SignalMode;
pub(crate) use super::slow_wait::{limit_wait, virtual_hold};
pub(crate) use super::telemetry::{
    BUCKETS, HistogramKind, Output, bucket_least, set_stats, set_watchdog, stats, stats_histogram,
    stats_percentile, stats_reset, trace_start, trace_stop,
};
pub use super::telemetry::{Stats, Stuck};
pub(crate) use super::timers::{NewTimer, Period, TimerSetting};
pub(crate) use crate::file_watch::{WatchRequest as FileRequest, WatchRoot as FileRoot};
pub(crate) use crate::sys::pressure::Trigger;
pub(crate) use watchers::{
    add_file, add_io, add_object, add_plain, add_timer, change, event_name, get_name, io_modify,
    io_set, loop_of, set_destroy, set_name, timer_again, timer_remaining, timer_set,
    timer_set_tolerance, watcher_close,
};

pub(crate) use loops::{
    AUTO_ADVANCE, CHECK_FDS, INTERRUPTIBLE, KEEP_ALIVE, PRECISE, VIRTUAL_TIME, advance, create,
    fileno, now, stop, wakeup,
};
