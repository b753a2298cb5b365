//! What the C API calls.

pub(crate) use super::asyncs::async_send;
pub(crate) use super::busy_poll::set_busy_poll;
pub(crate) use super::calls::{
    add_file, add_io, add_object, add_plain, add_timer, change, event_name, get_name, io_modify,
    io_set, loop_of, set_destroy, set_name, timer_again, timer_remaining, timer_set,
    timer_set_tolerance, watcher_close,
};
pub(crate) use super::clocks::{MONOTONIC, clock_index};
pub(crate) use super::command::Change;
pub(crate) use super::event::Target;
pub use super::event::{Event, Options};
pub(crate) use super::flags::{CLOSED, ERROR, POST, Source};
pub(crate) use super::inside::{
    BUCKETS, Output, Which, bucket_least, set_stats, set_watchdog, stats, stats_histogram,
    stats_percentile, stats_reset, trace_start, trace_stop,
};
pub use super::inside::{Stats, Stuck};
pub use super::inspect::WatcherInfo;
pub(crate) use super::inspect::{alive, find_io, info, watchers};
pub(crate) use super::inspect_text::dump;
pub(crate) use super::objects::Watch;
pub(crate) use super::posts::{post, post_full};
pub(crate) use super::pressure::add_memory_pressure;
pub use super::process::ProcessEnd;
pub(crate) use super::process::{STATUS_UNKNOWN, add_process, event_process};
pub(crate) use super::registry::{close, refuse_own, revive};
pub(crate) use super::run::{Mode, embed_prepare, next_timeout, run, wait};
pub(crate) use super::signals::{add_signal, event_siginfo};
pub(crate) use super::sinks::Way as SignalWay;
pub(crate) use super::slow_wait::{limit_wait, virtual_hold};
pub(crate) use super::timers::{NewTimer, Period, Setting};
pub(crate) use crate::file_watch::{Request as FileRequest, Root as FileRoot};
pub(crate) use crate::sys::pressure::Trigger;

use super::clocks;
use super::command::Command;
use super::core::Core;
use super::desk;
use super::mailbox;
use super::named::{named, named_quietly};
use super::registry;
use crate::errno::{Errno, Result, fail};
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;
use std::os::fd::RawFd;

/// Flags of [`Options`].
pub(crate) const VIRTUAL_TIME: u32 = 1;
pub(crate) const AUTO_ADVANCE: u32 = 2;
pub(crate) const PRECISE: u32 = 4;
pub(crate) const KEEP_ALIVE: u32 = 8;
pub(crate) const INTERRUPTIBLE: u32 = 16;
pub(crate) const CHECK_FDS: u32 = 32;

/// See evloop_create.
pub(crate) fn create(options: &Options) -> Result<i64> {
    if options.flags & (VIRTUAL_TIME | AUTO_ADVANCE) == AUTO_ADVANCE {
        fail!(EINVAL, "AUTO_ADVANCE needs VIRTUAL_TIME");
    }
    if options.virtual_grace_ns > 0 && options.flags & AUTO_ADVANCE == 0 {
        fail!(EINVAL, "virtual_grace_ns needs AUTO_ADVANCE");
    }
    registry::open(|desk| Core::new(desk, options))
}

/// Leaves a bit for the loop. A signal handler may call this.
fn leave(handle: i64, bits: u64) -> std::result::Result<(), Errno> {
    let named = named_quietly(handle, Kind::Loop)?;
    match named.desk.mail.leave(named.desk, handle, bits) {
        None => Err(Errno::ESTALE),
        Some(wake) => wake.now(),
    }
}

/// See evloop_stop.
pub(crate) fn stop(handle: i64) -> std::result::Result<(), Errno> {
    leave(handle, mailbox::STOP)
}

/// See evloop_wakeup.
pub(crate) fn wakeup(handle: i64) -> std::result::Result<(), Errno> {
    leave(handle, mailbox::WAKEUP)
}

/// Something that a loop watches was closed.
pub(super) fn ring_objects(handle: i64) {
    if let Ok(named) = named_quietly(handle, Kind::Loop) {
        named.desk.ring();
    }
}

/// A handler has seen a signal that a loop has watchers of.
pub(super) fn ring_signals(handle: i64) {
    // It is closed, or the parent's: nobody is to be told.
    let _ = leave(handle, mailbox::SIGNALS);
}

/// See evloop_now_ns.
pub(crate) fn now(handle: i64) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.with(
        |core| {
            let known = core.desk.time.load(Relaxed);
            if known != desk::UNKNOWN && !core.virtual_time {
                return Ok(known);
            }
            let now = core.read_clock(clocks::MONOTONIC);
            if core.in_callback {
                core.desk.time.store(now, Relaxed);
            }
            Ok(now)
        },
        |_| Ok(named.desk.now(clocks::MONOTONIC)),
    )
}

/// See evloop_advance_ns.
pub(crate) fn advance(handle: i64, ns: i64) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    if ns < 0 {
        fail!(EINVAL, "ns is {}, negative", ns);
    }
    if !named.desk.is_virtual() {
        fail!(ENOTSUP, "loop {} was not made with VIRTUAL_TIME", handle);
    }
    named.with(
        |core| {
            core.advance(ns);
            Ok(())
        },
        |gate| {
            gate.expect_commands(1)?;
            gate.inbox.push_reserved(Command::Advance(ns));
            Ok(())
        },
    )
}

/// See evloop_fileno.
pub(crate) fn fileno(handle: i64) -> Result<RawFd> {
    let busy = |_: &mut desk::Gate| fail!(EBUSY, "loop {} is running in another thread", handle);
    named(handle, Kind::Loop)?.with(Core::fileno, busy)
}
