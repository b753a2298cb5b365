//! The ways of a loop that is instrumented: around each wait and each callback.

use super::dispatch::invoke;
use super::event::{Callback, Destroy, Event};
use super::node_list::NodeList;
use super::run_guard::RunGuard;
use super::state::LoopState;
use crate::errno::{Errno, Result};
use std::ffi::c_void;

impl RunGuard {
    /// Whether this is a forked child that has not revived the loop: it has no
    /// use for telemetry, and the locks are not its own.
    #[inline(always)]
    fn is_lost(&self) -> bool {
        self.has_forked() && self.shared.is_inherited()
    }

    /// Calls a callback of a loop that is instrumented, and no more.
    fn call_instrumented(&self, callback: Callback, event: &Event, user_data: *mut c_void) {
        // SAFETY: no other reference to the state, and not kept.
        let state = unsafe { self.state() };
        state.probe_flush();
        let began =
            state.probe.before_callback(&state.ctx.shared.activity, event, state.ctx.virtual_time);
        // SAFETY: no reference into the state is in use.
        unsafe { invoke(callback, event, user_data) };
        if self.is_lost() {
            return;
        }
        // SAFETY: as above.
        let state = unsafe { self.state() };
        state.probe.after_callback(
            &state.ctx.shared.activity,
            event,
            &began,
            state.ctx.virtual_time,
        );
        state.probe_flush();
    }

    /// Calls the callback of a descriptor, right after another one or a wait,
    /// where it is only counted.
    #[inline(always)]
    pub fn call_counted(
        &self,
        callback: Callback,
        event: &Event,
        user_data: *mut c_void,
    ) -> Result<()> {
        // SAFETY: no reference into the state is in use.
        unsafe { invoke(callback, event, user_data) };
        if self.has_pending_work() {
            return self.run_pending_work_counted(event);
        }
        // SAFETY: no other reference to the state, and not kept.
        let state = unsafe { self.state() };
        if state.probe.sample(event.watcher) {
            state.probe_flush();
        }
        Ok(())
    }

    /// After a callback that has done something unusual: perhaps forked, or
    /// changed the telemetry.
    #[cold]
    #[inline(never)]
    fn run_pending_work_counted(&self, event: &Event) -> Result<()> {
        // SAFETY: no other reference to the state, and not kept.
        let state = unsafe { self.state() };
        if !self.is_lost() && state.instrumented {
            if state.probe.restarted {
                state.probe.last = state.probe.now();
                state.probe.begin_counted();
            } else {
                state.probe.sample(event.watcher);
            }
            state.probe_flush();
        }
        self.run_pending_work()
    }

    #[inline(never)]
    pub fn call_one_instrumented(
        &self,
        callback: Callback,
        event: &Event,
        user_data: *mut c_void,
    ) -> Result<()> {
        self.call_instrumented(callback, event, user_data);
        self.run_pending_work_if_any()
    }

    /// Notifies the destroy callbacks of closed watchers.
    #[cold]
    pub fn notify_instrumented(&self, mut closed: NodeList<Destroy>) {
        while let Some(Destroy { target, event }) = closed.pop() {
            if let Some(callback) = target.callback {
                self.call_instrumented(callback, &event, target.user_data);
            }
        }
    }

    /// Waits, or only looks.
    #[inline(never)]
    pub fn wait_instrumented(
        &self,
        may_sleep: bool,
        wait: impl FnOnce(&mut LoopState) -> std::result::Result<usize, Errno>,
    ) -> std::result::Result<usize, Errno> {
        // SAFETY: no other reference to the state; nor below.
        let state = unsafe { self.state() };
        state.probe_flush();
        state.probe.before_wait(
            &state.ctx.shared.activity,
            may_sleep,
            state.ctx.fds_only,
            state.dispatched,
        );
        let result = wait(state);
        // A signal handler may have forked.
        if !self.is_lost() {
            let found = result.as_ref().copied().unwrap_or_default();
            state.probe.after_wait(&state.ctx.shared.activity, may_sleep, found);
        }
        result
    }
}
