//! Waits that are more than one system call: of loops whose virtual time
//! jumps, or that check their descriptors.

use super::clock_ids::MONOTONIC;
use super::own_words::CLOCKS;
use super::run_guard::RunGuard;
use super::source::clocks::Until;
use super::state::{CHECKS, LoopState, WAIT_LIMITED};
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;
use crate::sys::clock;

/// How often they are.
const CHECK_NS: i64 = 100_000_000;

impl LoopState {
    /// The limit of the wait that is about to begin, which is used up.
    fn take_limit(&mut self) -> i64 {
        self.slow_waits &= !WAIT_LIMITED;
        std::mem::replace(&mut self.wait_limit, i64::MAX)
    }

    /// Whether virtual time must not jump.
    pub fn is_time_held(&self) -> bool {
        self.ctx.shared.holds.load(Relaxed) > 0
    }

    /// How much longer nothing may happen before virtual time jumps.
    pub fn grace_left(&mut self) -> i64 {
        if self.grace == 0 {
            return 0;
        }
        let now = clock::now_ns();
        let until = *self.grace_until.get_or_insert(now.saturating_add(self.grace));
        until.saturating_sub(now).max(0)
    }

    /// Before a wait in virtual time: no timer of the kernel's is to be set. How
    /// long it may be.
    #[cold]
    pub fn arm_virtual(&mut self, until: Until) -> Option<i64> {
        self.timers.recheck = 0;
        self.timers.renumber_if_many(self.ctx.shared);
        self.virtual_timeout(until)
    }

    fn virtual_timeout(&mut self, until: Until) -> Option<i64> {
        let now = self.ctx.read_clock(MONOTONIC);
        let mut due = false;
        for index in 0..CLOCKS {
            let wake = self.timers.next_wake(&self.ctx, index);
            if wake.is_some_and(|wake| wake <= now && wake != i64::MAX) {
                self.timers.due |= 1 << index;
                due = true;
            }
        }
        due |= self.ctx.suspended.iter().any(|(until, _)| *until <= now);
        let over = matches!(until, Until::Now) || matches!(until, Until::Time(time) if time <= now);
        if due || over {
            return Some(0);
        }
        if self.auto_advance && !self.is_time_held() && self.next_jump(until).is_some() {
            return Some(self.grace_left());
        }
        None
    }

    /// Where virtual time jumps to if there is nothing to do now.
    fn next_jump(&mut self, until: Until) -> Option<i64> {
        let timer = self.timers.next_virtual(&self.ctx);
        let resume = self.ctx.suspended.iter().map(|(until, _)| *until);
        let next = resume.chain(timer).min().filter(|next| *next != i64::MAX);
        match (next, until) {
            (_, Until::Now) => None,
            (Some(next), Until::Time(time)) => Some(next.min(time)),
            (None, Until::Time(time)) => Some(time),
            (next, Until::Ever) => next,
        }
    }

    /// Whether nothing is ready, or due, so that virtual time may go on.
    fn has_nothing(&mut self, found: usize) -> bool {
        if found > 0
            || self.has_something()
            || self.files.is_active()
            || self.ctx.shared.wake_state.has_work()
        {
            return false;
        }
        let now = self.ctx.read_clock(MONOTONIC);
        let due =
            self.timers.next_virtual(&self.ctx).is_some_and(|next| next <= now && next != i64::MAX);
        !due && !self.ctx.suspended.iter().any(|(until, _)| *until <= now)
    }

    /// After a wait: with nothing to do, virtual time goes on.
    fn jump(&mut self, found: usize, until: Until) {
        if !self.has_nothing(found) {
            self.grace_until = None;
            return;
        }
        if self.is_time_held() || self.grace_left() > 0 {
            return;
        }
        self.grace_until = None;
        if let Some(next) = self.next_jump(until)
            && next > self.ctx.read_clock(MONOTONIC)
        {
            self.ctx.shared.virtual_now.store(next, Relaxed);
            // Marks what is due now.
            self.virtual_timeout(Until::Now);
        }
    }
}

impl RunGuard {
    /// The wait of an iteration; how many events there are.
    #[cold]
    pub fn wait_slowly(&self, timeout: Option<i64>, until: Until) -> Result<usize> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        let timeout = match state.take_limit() {
            i64::MAX => timeout,
            limit => Some(timeout.map_or(limit, |timeout| timeout.min(limit))),
        };
        let found = match state.slow_waits & CHECKS {
            0 => self.poll(timeout)?,
            _ => self.wait_checking(timeout)?,
        };
        // SAFETY: as above.
        let state = unsafe { self.state() };
        if state.auto_advance {
            state.jump(found, until);
        }
        Ok(found)
    }

    /// A look at what is ready, after a wait of another loop.
    pub fn wait_embedded(&self) -> Result<usize> {
        let found = self.poll(Some(0))?;
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        state.take_limit();
        if state.auto_advance {
            state.jump(found, Until::Ever);
        }
        Ok(found)
    }

    /// Before a wait of another loop.
    pub fn check_before_embedding(&self) {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if state.slow_waits & CHECKS != 0 {
            state.check_fds();
        }
    }

    /// Waits, and checks the descriptors periodically until the wait ends.
    fn wait_checking(&self, timeout: Option<i64>) -> Result<usize> {
        let end = timeout.map(|timeout| clock::now_ns().saturating_add(timeout));
        loop {
            // SAFETY: no other reference to the state.
            let state = unsafe { self.state() };
            state.check_fds();
            let left = end.map_or(i64::MAX, |end| end.saturating_sub(clock::now_ns()).max(0));
            let piece = if state.ctx.failures.is_empty() { left.min(CHECK_NS) } else { 0 };
            let found = self.poll(Some(piece))?;
            if found > 0 || piece == left || piece == 0 || self.shared.wake_state.has_work() {
                return Ok(found);
            }
            if self.has_pending_work() {
                return Ok(0);
            }
        }
    }
}
