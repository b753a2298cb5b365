//! The entry points of event loops: what the C API calls.

mod add;
mod busy_poll;
mod events;
pub(crate) mod fast_path;
mod inspect;
mod inspect_text;
mod loops;
mod posts;
mod registry;
mod telemetry;
mod watchers;

pub(crate) use super::clock_ids::{MONOTONIC, clock_index};
pub(crate) use super::command::Change;
pub(crate) use super::event::Target;
pub use super::event::{Event, Options};
pub(crate) use super::flags::{CLOSED, ERROR, POST, Source};
pub use super::process_end::ProcessEnd;
pub(crate) use super::registry::refuse_own;
pub(crate) use super::run::{RunMode, embed_prepare, run, wait};
pub(crate) use super::sinks::SignalMode;
pub(crate) use super::source::object::ObjectRef;
pub(crate) use super::source::process::STATUS_UNKNOWN;
pub(crate) use super::telemetry::{BUCKETS, HistogramKind, Output, bucket_least};
pub use super::telemetry::{Stats, Stuck};
pub(crate) use super::timer_setting::{NewTimer, Period, TimerSetting};
pub(crate) use crate::file_watch::{WatchRequest as FileRequest, WatchRoot as FileRoot};
pub(crate) use crate::sys::pressure::Trigger;
pub(crate) use add::{
    add_file, add_io, add_memory_pressure, add_object, add_plain, add_process, add_signal,
    add_timer,
};
pub(crate) use busy_poll::set_busy_poll;
pub(crate) use events::{event_name, event_process, event_siginfo};
pub(crate) use fast_path::async_send;
pub use inspect::WatcherInfo;
pub(crate) use inspect::{alive, find_io, info, watchers};
pub(crate) use inspect_text::dump;
pub(crate) use posts::{post, post_full};
pub(crate) use registry::{close, revive};
pub(crate) use telemetry::{
    set_stats, set_watchdog, stats, stats_histogram, stats_percentile, stats_reset, trace_start,
    trace_stop,
};
pub(crate) use watchers::{
    change, get_name, io_modify, io_set, loop_of, set_destroy, set_name, timer_again,
    timer_remaining, timer_set, timer_set_tolerance, watcher_close,
};

pub(crate) use super::event::{
    AUTO_ADVANCE, CHECK_FDS, INTERRUPTIBLE, KEEP_ALIVE, PRECISE, VIRTUAL_TIME,
};
pub(crate) use loops::{
    advance, create, fileno, limit_wait, next_timeout, now, stop, virtual_hold, wakeup,
};
