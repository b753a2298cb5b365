//! Entry points of telemetry: statistics, traces and watchdogs.

use crate::errno::{Result, fail};
use crate::event_loop::command::{Command, CommandQueue};
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::ownership::Locked;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::state::LoopState;
use crate::event_loop::telemetry::trace::{self, Names, Trace, cannot_write};
use crate::event_loop::telemetry::trace_json;
use crate::event_loop::telemetry::{
    BUCKETS, HistogramKind, LoopStats, Output, ProbeChange, Stats, Watchdog, WatchdogCallback,
    WatchdogConfig, WatchdogHandle, cut,
};
use crate::handle::Kind;
use crate::sync::MutexGuard;
use crate::util::Out;
use crate::util::alloc::{TryMap, TryVec, try_copy};
use std::ffi::c_void;

/// Has the loop's thread know of a change, for which there is room in the
/// command queue; with the command queue's lock.
fn send_probe_change(
    resolved: &Resolved,
    mut command_queue: MutexGuard<'static, Locked<CommandQueue>>,
    change: ProbeChange,
) -> Result<()> {
    if resolved.shared.is_mine() {
        let act = |state: &mut LoopState| {
            // What others asked for before comes before.
            state.apply_commands(&mut command_queue);
            state.change_probe(change);
        };
        // SAFETY: this thread runs the loop, whose run borrows nothing of the
        // state while a callback, which this call is in, runs.
        return unsafe { resolved.shared.with_state(act) };
    }
    if !command_queue.running {
        return resolved.with_idle(command_queue, |state| {
            state.change_probe(change);
            Ok(())
        });
    }
    let wake = resolved.shared.set_has_commands();
    command_queue.commands.push_reserved(Command::Probe(change));
    drop(command_queue);
    drop(wake);
    Ok(())
}

/// Flushes the samples, if this is the loop's own thread; with the command
/// queue's lock.
fn flush_probe(resolved: &Resolved, command_queue: &mut CommandQueue) -> Result<()> {
    on_own_thread(resolved, |state| state.probe_flush_locked(command_queue))
}

/// Does something with the loop, if this is its own thread.
fn on_own_thread(resolved: &Resolved, act: impl FnOnce(&mut LoopState)) -> Result<()> {
    if resolved.shared.is_mine() {
        // SAFETY: this thread runs the loop, whose run borrows nothing of the
        // state while a callback, which this call is in, runs.
        unsafe { resolved.shared.with_state(act) }?;
    }
    Ok(())
}

fn stats_of(command_queue: &mut CommandQueue, handle: i64) -> Result<&mut LoopStats> {
    match &mut command_queue.stats {
        Some(loop_stats) => Ok(loop_stats),
        None => fail!(ENOENT, "loop {} has never counted: see evloop_set_stats", handle),
    }
}

/// See evloop_set_stats.
pub(crate) fn set_stats(handle: i64, on: bool) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    flush_probe(&resolved, &mut command_queue)?;
    if command_queue.stats.as_ref().is_some_and(|loop_stats| loop_stats.on) == on {
        return Ok(());
    }
    command_queue.reserve_commands(1)?;
    if on && command_queue.stats.is_none() {
        command_queue.stats = Some(LoopStats::new()?);
    }
    let loop_stats = stats_of(&mut command_queue, handle)?;
    loop_stats.on = on;
    if on {
        loop_stats.reset(&resolved.shared.activity);
    }
    let counters = on.then(|| loop_stats.counters.clone());
    send_probe_change(&resolved, command_queue, ProbeChange::Stats(counters))
}

/// See evloop_stats.
pub(crate) fn stats(handle: i64) -> Result<Stats> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    flush_probe(&resolved, &mut command_queue)?;
    Ok(stats_of(&mut command_queue, handle)?.fill(&resolved.shared.activity))
}

/// See evloop_stats_reset.
pub(crate) fn stats_reset(handle: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    flush_probe(&resolved, &mut command_queue)?;
    stats_of(&mut command_queue, handle)?.reset(&resolved.shared.activity);
    on_own_thread(&resolved, LoopState::restart_counting)
}

/// See evloop_stats_histogram; how many buckets there are.
pub(crate) fn stats_histogram(
    handle: i64,
    which: HistogramKind,
    out: &mut Out<u64>,
) -> Result<usize> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    flush_probe(&resolved, &mut command_queue)?;
    let loop_stats = stats_of(&mut command_queue, handle)?;
    for count in loop_stats.histogram(which) {
        out.push(*count);
    }
    Ok(BUCKETS)
}

/// See evloop_stats_percentile_ns.
pub(crate) fn stats_percentile(handle: i64, which: HistogramKind, percent: f64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    flush_probe(&resolved, &mut command_queue)?;
    let loop_stats = stats_of(&mut command_queue, handle)?;
    match loop_stats.percentile(which, percent) {
        Some(ns) => Ok(ns),
        None => fail!(ENOENT, "loop {} has counted none of these yet", handle),
    }
}

/// See evloop_trace_start.
pub(crate) fn trace_start(handle: i64, output: Output<'_>, most: i32) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let ring = trace::new_ring(most)?;
    claim(&mut *resolved.lock()?, handle)?;
    let file = output.open();
    // If the loop was closed since, it has nothing that was claimed.
    let mut command_queue = resolved.lock()?;
    command_queue.trace_begins = false;
    let file = file?;
    command_queue.reserve_commands(1)?;
    let trace = Trace::new(ring.clone(), file);
    resolved.shared.own.set(OwnFd::Trace, trace.fd());
    command_queue.trace = Some(trace);
    send_probe_change(&resolved, command_queue, ProbeChange::Trace(Some(ring)))
}

/// Before a file is emptied, which takes its time: one at a time.
fn claim(command_queue: &mut CommandQueue, handle: i64) -> Result<()> {
    if command_queue.trace.is_some() || command_queue.trace_begins {
        fail!(EEXIST, "a trace of loop {} is being made already", handle);
    }
    command_queue.trace_begins = true;
    Ok(())
}

/// See evloop_trace_stop; how many events are missing in the file.
pub(crate) fn trace_stop(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    let mut command_queue = resolved.lock()?;
    command_queue.reserve_commands(1)?;
    let activity = resolved.shared.activity.read();
    let ring = match &mut command_queue.trace {
        Some(trace) if !trace.stopping => {
            trace.stopping = true;
            trace.ring.clone()
        }
        _ => fail!(ENOENT, "no trace of loop {} is being made", handle),
    };
    send_probe_change(&resolved, command_queue, ProbeChange::Trace(None))?;
    let read = ring.read();
    let mut command_queue = resolved.lock()?;
    // If the loop was closed since, the trace was written then.
    let Some(trace) = &mut command_queue.trace else { return crate::handle::stale(handle) };
    // Without memory it can be stopped again.
    trace.stopping = false;
    let (entries, dropped) = read?;
    let handles = entries.iter().map(|(_, entry)| entry.handle);
    let names = names_of(&command_queue, handles.chain(activity.map(|activity| activity.watcher)))?;
    let Some(trace) = command_queue.trace.take() else { return crate::handle::stale(handle) };
    resolved.shared.own.set(OwnFd::Trace, -1);
    drop(command_queue);
    match trace.write(entries, dropped, &names, activity) {
        Ok(()) => Ok(dropped.cast_signed()),
        Err(errno) => Err(cannot_write(errno, handle)),
    }
}

/// Copies of the names of these watchers.
fn names_of(command_queue: &CommandQueue, handles: impl Iterator<Item = i64>) -> Result<Names> {
    let mut names = Names::default();
    for handle in handles {
        let Some(name) = command_queue.names.get(&handle).filter(|_| !names.contains_key(&handle))
        else {
            continue;
        };
        let copied = try_copy(cut(name, trace_json::NAME))
            .is_some_and(|copy| names.try_put(handle, copy).is_ok());
        if !copied {
            fail!(ENOMEM, "no memory for the names of watchers");
        }
    }
    Ok(names)
}
/// See evloop_set_watchdog.
pub(crate) fn set_watchdog(
    handle: i64,
    limit: i64,
    callback: Option<WatchdogCallback>,
    user_data: *mut c_void,
) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let fresh = match callback.filter(|_| limit > 0) {
        Some(callback) => {
            let config = WatchdogConfig { limit, callback, user_data };
            Some(Watchdog::start(config, resolved.shared, handle)?)
        }
        None => None,
    };
    let mut command_queue = resolved.lock()?;
    command_queue.reserve_commands(1)?;
    let watchdog_handle = fresh.as_ref().map(Watchdog::handle);
    let before = std::mem::replace(&mut command_queue.watchdog, fresh);
    let sent = send_probe_change(&resolved, command_queue, ProbeChange::Watchdog(watchdog_handle));
    // Without the lock; waits for its callback.
    drop(before);
    sent
}

/// In a forked child: what can fail of having the loop watched there, too.
pub(super) fn revive(command_queue: &mut CommandQueue) -> Result<Option<WatchdogHandle>> {
    let Some(watchdog) = &command_queue.watchdog else { return Ok(None) };
    if let Some(fresh) = watchdog.revive()? {
        command_queue.watchdog = Some(fresh);
    }
    Ok(command_queue.watchdog.as_ref().map(Watchdog::handle))
}
