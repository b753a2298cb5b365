//! Running a loop: its states, and what happens in each.
//!
//! ```text
//! idle --begin--> prepare --> arm --> wait --> dispatch --+--> exit --end--> idle
//!                    ^                                    |
//!                    +------------------------------------+
//! ```
//!
//! `prepare` calls the prepare watchers; `arm` submits changes to the kernel
//! and sets the timers; `wait` is the only place where a loop blocks;
//! `dispatch` runs all other callbacks. Embedded in another loop, `wait` is
//! that loop's, and a run ends before it and begins again after it.

use super::clock_ids::MONOTONIC;
use super::event::{Event, INTERRUPTIBLE};
use super::flags::Source;
use super::resolve::resolve;
use super::run_guard::RunGuard;
use super::shared;
use super::source::clocks::Until;
use super::state::LoopState;
use super::wake_state;
use crate::errno::{Errno, Result, fail};
use crate::handle::Kind;
use crate::sync::Ordering::{Relaxed, Release};
use crate::sys::epoll;
use crate::util::Out;
use crate::wait::interrupted;

/// What a run is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunMode {
    UntilDone,
    Once,
    NoWait,
    /// Nanoseconds; negative: no limit.
    For(i64),
    /// After a wait by the loop that this one is embedded in.
    Embedded,
}

/// The delay before the loop retries work for which it had no memory; ns.
const RETRY_NS: i64 = 10_000_000;

/// When a run ends, besides being stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Nothing is left that keeps the loop alive, or the time is over.
    Done,
    /// Something happened.
    Dispatched,
    /// There is an event for evloop_wait, or the time is over.
    Pending,
    /// One iteration.
    Once,
}

/// See evloop_run.
pub(crate) fn run(handle: i64, mode: RunMode) -> Result<bool> {
    let run = RunGuard::begin(resolve(handle, Kind::Loop)?)?;
    // SAFETY: no other reference to the state.
    unsafe { run.state() }.begin(false);
    let result = match mode {
        RunMode::UntilDone => run.drive(Until::Ever, Goal::Done),
        RunMode::For(0) => run.drive(Until::Now, Goal::Once),
        RunMode::For(duration) => run.drive(run.until(duration), Goal::Done),
        RunMode::Once => run.drive(Until::Ever, Goal::Dispatched),
        RunMode::NoWait => run.drive(Until::Now, Goal::Once),
        RunMode::Embedded => run.embedded(),
    };
    let result = match mode {
        RunMode::UntilDone | RunMode::For(_) => result.and_then(|()| run.in_turn(Source::Exit)),
        _ => result,
    };
    run.is_stopped();
    run.finish(result)
}

/// See evloop_wait.
pub(crate) fn wait(handle: i64, out: &mut Out<Event>, timeout_ns: i64) -> Result<()> {
    let run = RunGuard::begin(resolve(handle, Kind::Loop)?)?;
    // SAFETY: no other reference to the state.
    unsafe { run.state() }.begin(true);
    let until = if timeout_ns == 0 { Until::Now } else { run.until(timeout_ns) };
    let waited = run.drive(until, Goal::Pending);
    if !run.has_pending() {
        // Else a later wait returns 0 for the stop, when it has no events.
        run.is_stopped();
    }
    run.finish(waited)?;
    // SAFETY: as above.
    let state = unsafe { run.state() };
    while !out.is_full()
        && let Some(event) = state.take_pending()
    {
        out.push(event);
    }
    Ok(())
}

/// See evloop_embed_prepare. Returns whether something can be dispatched
/// without a wait.
pub(crate) fn embed_prepare(handle: i64) -> Result<bool> {
    let run = RunGuard::begin(resolve(handle, Kind::Loop)?)?;
    // SAFETY: no other reference to the state.
    unsafe { run.state() }.begin(false);
    let prepared = run.in_turn(Source::Prepare).and_then(|()| {
        run.check_before_embedding();
        run.arm(Until::Ever)
    });
    let timeout = match prepared {
        Ok(timeout) => timeout,
        Err(error) => return run.finish(Err(error)),
    };
    run.finish(Ok(()))?;
    // SAFETY: as above.
    unsafe { run.state() }.prepared = true;
    // The loop counts as asleep from here on: a thread that queues something
    // wakes it.
    let sleeps = run.shared.wake_state.sleep();
    // SAFETY: as above.
    let state = unsafe { run.state() };
    // Virtual time has no timer that would end the foreign wait.
    let ends = timeout.is_some_and(|timeout| timeout == 0 || state.ctx.virtual_time);
    let due = ends || state.files.is_active() || !sleeps;
    if due && !state.ctx.virtual_time {
        // For foreign loops that look at nothing but the descriptor. (Virtual
        // time jumps only when it finds nothing.)
        run.shared.wake();
    }
    Ok(due)
}

impl LoopState {
    fn begin(&mut self, collecting: bool) {
        self.ctx.in_callback = true;
        self.ctx.collecting = collecting;
        if self.instrumented {
            self.probe_begin();
        }
        if collecting {
            self.files.collect(&mut self.ctx);
        }
        if std::mem::take(&mut self.prepared) {
            self.ctx.shared.wake_state.set_awake();
        }
    }

    /// Defer watchers that were waiting before this iteration are called in
    /// it.
    #[inline]
    fn admit_deferred(&mut self) {
        if self.deferred > 0 {
            let watchers = self.lists.defer.iter();
            watchers.for_each(|(_, slot)| slot.unset(super::flags::NEXT_TIME));
        }
    }

    /// Whether the loop has to prepare its next wait: a change is not submitted
    /// to the kernel yet, or there is something to dispatch.
    pub fn has_news(&self) -> bool {
        self.io.is_dirty()
            || self.timers.recheck != 0
            || self.timers.is_arming()
            || self.is_busy()
            || self.files.is_active()
    }

    /// Whether there is something to dispatch without a wait, idle watchers
    /// included.
    #[inline]
    pub fn is_busy(&self) -> bool {
        self.idlers > 0 || self.has_something()
    }

    /// As `is_busy`, without idle watchers: they do not keep virtual time from
    /// advancing.
    #[inline]
    pub fn has_something(&self) -> bool {
        !self.posts.is_empty()
            || !self.batch.is_empty()
            || self.asyncs.has_drained()
            || self.signals.due
            || !self.ctx.failures.is_empty()
            || self.deferred > 0
            || self.timers.clock_changed
            || self.files.is_due()
            || !self.io.not_pollable.is_empty() && self.io.not_pollable.is_any_ready()
    }
}

impl RunGuard {
    /// The end of a wait that begins now; `duration` in ns, negative: no limit.
    fn until(&self, duration: i64) -> Until {
        if duration < 0 {
            return Until::Ever;
        }
        // SAFETY: no other reference to the state.
        let now = unsafe { self.state() }.ctx.read_clock(MONOTONIC);
        Until::Time(now.saturating_add(duration))
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Now => true,
            Until::Ever => false,
            // SAFETY: no other reference to the state.
            Until::Time(time) => unsafe { self.state() }.ctx.read_clock(MONOTONIC) >= time,
        }
    }

    #[inline(always)]
    fn is_alive(&self) -> bool {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if self.shared.has_commands() {
            state.apply_commands(&mut self.shared.lock_commands());
        }
        state.is_alive()
    }

    /// Whether the run was stopped. Clears the request to stop.
    #[inline(always)]
    fn is_stopped(&self) -> bool {
        self.shared.wake_state.peek() & wake_state::STOP != 0
            && self.shared.wake_state.take(wake_state::STOP) != 0
    }

    fn has_dispatched(&self) -> bool {
        // SAFETY: no other reference to the state.
        unsafe { self.state() }.dispatched > 0
    }

    fn has_pending(&self) -> bool {
        // SAFETY: no other reference to the state.
        unsafe { self.state() }.has_pending()
    }

    /// Iterates until the goal is reached, or the loop is stopped.
    fn drive(&self, until: Until, goal: Goal) -> Result<()> {
        loop {
            // Events that are pending already end the wait at once.
            if goal == Goal::Pending && self.has_pending() || self.is_stopped() {
                return Ok(());
            }
            let alive = self.is_alive();
            if goal == Goal::Done && !alive {
                return Ok(());
            }
            let until = if alive { until } else { Until::Now };
            let woken = self.iterate(until)?;
            if goal == Goal::Done && until == Until::Ever {
                self.run_fd_rounds()?;
            }
            let reached = match goal {
                Goal::Done => until != Until::Ever && self.is_over(until),
                Goal::Once => true,
                Goal::Pending => woken || self.has_pending() || self.is_over(until),
                Goal::Dispatched => woken || until == Until::Now || self.has_dispatched(),
            };
            if reached {
                return Ok(());
            }
        }
    }

    fn embedded(&self) -> Result<()> {
        if self.is_stopped() {
            return Ok(());
        }
        self.arm(Until::Now)?;
        let found = self.wait_embedded()?;
        self.shared.wake_state.take(wake_state::WAKEUP);
        self.dispatch(found)
    }

    /// Ends a run. Returns whether the loop is still alive.
    fn finish(&self, result: Result<()>) -> Result<bool> {
        // In a forked child that has not revived the loop nothing is touched.
        self.check_process()?;
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        state.timers.settle(&mut state.ctx);
        if state.instrumented {
            state.probe_end();
        }
        state.ctx.in_callback = false;
        state.current = 0;
        result?;
        self.check()?;
        // SAFETY: as above.
        Ok(unsafe { self.state() }.is_alive())
    }

    /// Runs one iteration. Returns whether the loop was asked to wake up.
    #[inline(always)]
    fn iterate(&self, mut until: Until) -> Result<bool> {
        // SAFETY: no other reference to the state.
        if !unsafe { self.state() }.lists.prepare.is_empty() {
            self.in_turn(Source::Prepare)?;
            if !self.is_alive() {
                // The prepare watchers have closed all that the loop would wait
                // for.
                until = Until::Now;
            }
        }
        let timeout = self.arm(until)?;
        // SAFETY: no other reference to the state.
        let found = match unsafe { self.state() }.slow_waits {
            0 => self.poll(timeout)?,
            _ => self.wait_slowly(timeout, until)?,
        };
        let wake_state = &self.shared.wake_state;
        let woken =
            wake_state.peek() & wake_state::WAKEUP != 0 && wake_state.take(wake_state::WAKEUP) != 0;
        self.dispatch(found)?;
        Ok(woken)
    }

    /// Prepares a wait. Returns its timeout in ns; `None`: no limit.
    #[inline]
    fn arm(&self, until: Until) -> Result<Option<i64>> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.timers.is_arming() {
            state.timers.settle(&mut state.ctx);
        }
        if state.io.is_dirty() || self.shared.has_commands() {
            let mut command_queue = self.shared.lock_commands();
            state.apply_commands(&mut command_queue);
            state.forget_names(&mut command_queue);
            state.timers.settle(&mut state.ctx);
            state.io.flush(&mut state.ctx);
        }
        // The wake state shows a request before the requesting thread has set
        // `pending_work`. In between the loop would not sleep: with a real-time
        // priority it would keep that thread from running. So the loop handles
        // the request now, which waits for the command queue's lock that the
        // thread holds.
        let is_asked =
            self.shared.wake_state.peek() & (wake_state::CLOSED | wake_state::BARRIER) != 0;
        if is_asked || self.has_pending_work() {
            self.run_pending_work()?;
        }
        // SAFETY: as above.
        let state = unsafe { self.state() };
        self.shared.time.store(shared::UNKNOWN, Relaxed);
        state.admit_deferred();
        let mut timeout = match state.ctx.virtual_time {
            true => state.arm_virtual(until),
            false => {
                let watched = !state.lists.clock_change.is_empty();
                state.timers.arm_clocks(&mut state.ctx, until, watched)
            }
        };
        if state.files.needs_arming() {
            timeout = state.files.arm(&mut state.ctx, timeout);
        }
        if state.is_busy() || state.ctx.collecting && state.has_pending() {
            return Ok(Some(0));
        }
        if state.timers.is_arming() {
            return Ok(Some(timeout.map_or(RETRY_NS, |timeout| timeout.min(RETRY_NS))));
        }
        Ok(timeout)
    }

    /// Waits, or polls if the loop must not sleep. Returns the number of
    /// events.
    #[inline]
    pub fn poll(&self, timeout: Option<i64>) -> Result<usize> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if timeout == Some(0) || !self.shared.wake_state.sleep() {
            let look = |state: &mut LoopState| match state.io.not_pollable.is_empty() {
                true => wait_for(state, Some(0)),
                false => state.poll_beside_not_pollable(),
            };
            let result =
                if state.instrumented { self.wait_instrumented(false, look) } else { look(state) };
            return match result {
                // SAFETY: no other reference to the state.
                Ok(found) => Ok(unsafe { self.state() }.find_unreported(found)),
                Err(errno) => self.explain(errno),
            };
        }
        self.sleep_until(timeout)
    }

    /// Sleeps in the kernel, after `sleep` of the wake state. Returns the
    /// number of events.
    #[inline(always)]
    pub fn sleep_until(&self, timeout: Option<i64>) -> Result<usize> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        // Release: a fork that sees it finds the state as it is now.
        self.shared.waiting.store(1, Release);
        let wait = |state: &mut LoopState| wait_for(state, timeout);
        let result =
            if state.instrumented { self.wait_instrumented(true, wait) } else { wait(state) };
        self.shared.waiting.store(0, Release);
        self.shared.wake_state.set_awake();
        result.or_else(|errno| self.explain(errno))
    }

    /// Handles a wait that failed. Returns 0 events if the run goes on after a
    /// signal, otherwise the error of the run.
    #[cold]
    fn explain(&self, errno: Errno) -> Result<usize> {
        self.check()?;
        match errno {
            Errno::EINTR => {
                if self.shared.options.load(Relaxed) & INTERRUPTIBLE != 0 {
                    fail!(EINTR, "a signal handler interrupted the wait");
                }
                interrupted()?;
                self.check()?;
                Ok(0)
            }
            Errno::EBADF | Errno::EINVAL => {
                // SAFETY: no other reference to the state.
                let state = unsafe { self.state() };
                state.ctx.lose_epoll(&mut self.shared.lock_commands());
                fail!(EBADF, "the descriptors of loop {} were closed", self.shared.handle())
            }
            errno => Err(errno.into()),
        }
    }
}

impl LoopState {
    /// Completes a poll: finds timers that have expired although the kernel has
    /// not reported it yet, and events that a foreign loop has consumed.
    /// Returns the number of events.
    #[inline]
    fn find_unreported(&mut self, found: usize) -> usize {
        if found == 0 {
            self.timers.find_expired();
        }
        if self.ctx.is_given_away() {
            self.fd_sources.add_consumed(&mut self.events, found)
        } else {
            found
        }
    }
}

impl LoopState {
    /// Polls, and leaves room for the turns of descriptors that are always
    /// ready.
    #[cold]
    fn poll_beside_not_pollable(&mut self) -> std::result::Result<usize, Errno> {
        let capacity = self.io.not_pollable.kernel_share(self.events.len());
        if capacity == 0 {
            return Ok(0);
        }
        let epoll = self.ctx.epoll();
        let out = self.events.get_mut(..capacity).unwrap_or_default();
        epoll::wait(epoll, out, Some(0)).map(<[_]>::len)
    }
}

/// Waits in the loop's epoll and stores the events in `state.events`. Returns
/// their number.
#[inline(always)]
fn wait_for(state: &mut LoopState, timeout: Option<i64>) -> std::result::Result<usize, Errno> {
    epoll::wait(state.ctx.epoll(), &mut state.events, timeout).map(<[_]>::len)
}
