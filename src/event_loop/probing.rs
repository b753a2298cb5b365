//! What a loop's own thread does for telemetry, where it has the state.

use super::command::CommandQueue;
use super::event::Event;
use super::own_fds::OwnFd;
use super::state::LoopState;
use super::telemetry::{CallbackRun, ProbeChange, WatchdogHandle};

impl LoopState {
    /// A run begins.
    #[cold]
    pub fn probe_begin(&mut self) {
        self.probe.begin();
    }

    /// A run ends.
    #[cold]
    pub fn probe_end(&mut self) {
        self.probe_flush();
        let now = self.probe.now();
        self.probe.end_iteration(now, self.dispatched);
    }

    /// Timers that are due are looked for now; how many wake-ups they have
    /// saved.
    #[cold]
    pub fn probe_timers(&mut self, saved: u32) {
        self.probe_flush();
        self.probe.on_timers(saved);
    }

    /// An event was kept for evloop_wait.
    #[cold]
    pub fn probe_pending(&mut self, event: &Event) {
        self.probe_flush();
        self.probe.last = self.probe.now();
        self.probe.count(event, self.ctx.virtual_time);
    }

    /// The same of one that was closed: by a callback, or with the command
    /// queue's lock.
    #[cold]
    pub fn probe_closed(&mut self, event: &Event) {
        self.probe.count(event, self.ctx.virtual_time);
    }

    /// Flushes the samples.
    pub fn probe_flush(&mut self) {
        self.probe.flush_samples();
        if let Some(took) = self.probe.longest.take() {
            note_longest(&mut self.ctx.shared.lock_commands(), &took);
        }
    }

    /// The same, with the command queue's lock.
    #[cold]
    pub fn probe_flush_locked(&mut self, command_queue: &mut CommandQueue) {
        self.probe.flush_samples();
        if let Some(took) = self.probe.longest.take() {
            note_longest(command_queue, &took);
        }
    }

    /// In a forked child. The parent's trace is the parent's.
    pub fn revive_probe(
        &mut self,
        command_queue: &mut CommandQueue,
        watchdog_handle: Option<WatchdogHandle>,
    ) {
        if let Some(trace) = command_queue.trace.take() {
            trace.forget();
            self.ctx.shared.own.set(OwnFd::Trace, -1);
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
            watchdog_handle.begin_at(self.ctx.shared.activity.seq());
        }
        self.probe.change(change);
        // Should this be in a callback, see `run_pending_work_counted`.
        self.ctx.shared.pending_work.set();
        self.instrumented = self.probe.is_wanted();
    }

    /// The counters were reset; on the loop's thread, or while no thread runs
    /// it.
    pub fn restart_counting(&mut self) {
        self.probe.restart();
        self.ctx.shared.pending_work.set();
    }
}

/// A callback took longer than all before.
#[cold]
fn note_longest(command_queue: &mut CommandQueue, took: &CallbackRun) {
    let CommandQueue { names, stats, .. } = command_queue;
    if let Some(loop_stats) = stats {
        let name = names.get(&took.watcher).map(|name| &**name).unwrap_or_default();
        loop_stats.note_longest(took, name);
    }
}
