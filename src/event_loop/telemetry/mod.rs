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
mod trace;
mod trace_json;
mod trace_ring;
mod watchdog;

pub(super) use activity::ActivityCell;
pub(crate) use histogram::least_of as bucket_least;
pub(super) use probe::Probe;
pub(super) use stats::LoopStats;
pub use stats::Stats;
pub(crate) use stats::{
    HistogramKind, set_stats, stats, stats_histogram, stats_percentile, stats_reset,
};
pub(super) use trace::Trace;
pub(crate) use trace::{Output, trace_start, trace_stop};
pub use watchdog::Stuck;
pub(crate) use watchdog::set_watchdog;
pub(super) use watchdog::{Watchdog, WatchdogHandle};

pub(crate) use histogram::BUCKETS;

use super::command::Command;
use super::own_fds::OwnFd;
use super::ownership::Locked;
use super::resolve::Resolved;
use super::shared::CommandQueue;
use super::state::LoopState;
use crate::errno::Result;
use crate::sync::MutexGuard;
use crate::util::alloc::TryVec;
use crate::util::try_arc::TryArc;

/// What a loop's thread begins or ceases to do for telemetry.
pub(super) enum ProbeChange {
    Stats(Option<TryArc<stats::Counters>>),
    Trace(Option<TryArc<trace::TraceRing>>),
    Watchdog(Option<WatchdogHandle>),
}

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

/// In a forked child: what can fail of having the loop watched there, too.
pub(super) fn revive(command_queue: &mut CommandQueue) -> Result<Option<WatchdogHandle>> {
    watchdog::revive(command_queue)
}

impl LoopState {
    /// In a forked child. The parent's trace is the parent's.
    pub fn revive_probe(
        &mut self,
        command_queue: &mut CommandQueue,
        watchdog_handle: Option<WatchdogHandle>,
    ) {
        if let Some(trace) = command_queue.trace.take() {
            trace.forget();
            self.shared.own.set(OwnFd::Trace, -1);
        }
        // By a thread that is not here.
        command_queue.trace_begins = false;
        if let Some(watchdog_handle) = &watchdog_handle {
            // A callback that goes on here was looked at before, too.
            watchdog_handle.begin_at(0);
        }
        self.probe.forget_parent(watchdog_handle);
        self.instrumented = self.probe.is_wanted();
    }

    /// From now on, this is looked at, or no more.
    pub fn change_probe(&mut self, change: ProbeChange) {
        if let ProbeChange::Watchdog(Some(watchdog_handle)) = &change {
            watchdog_handle.begin_at(self.shared.activity.seq());
        }
        self.probe.change(change);
        // Should this be in a callback, see `run_pending_work_counted`.
        self.shared.pending_work.set();
        self.instrumented = self.probe.is_wanted();
    }

    /// The counters were reset; on the loop's thread, or while no thread runs
    /// it.
    fn restart_counting(&mut self) {
        self.probe.restart();
        self.shared.pending_work.set();
    }
}

/// As much of a text as so many bytes hold, and no part of a character.
fn cut(text: &[u8], most: usize) -> &[u8] {
    let goes_on = |i: &usize| text.get(*i).is_some_and(|byte| byte & 0xc0 == 0x80);
    // No character has more than three bytes that go on with it.
    let back = (0..3).take_while(|back| goes_on(&most.saturating_sub(*back))).count();
    text.get(..most - back).unwrap_or(text)
}
