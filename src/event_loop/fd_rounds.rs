//! Rounds in which there is nothing but ready descriptors.
//!
//! Most loops wait for descriptors most of the time. An iteration of theirs
//! needs no look at timers, posts, lists and whatever else there may be, as
//! long as nothing was changed since the last full iteration found none of it
//! worth a look. Whatever changes a loop on its own thread ends that
//! ([`LoopState::mark_changed`]); what others leave is in the wake state, which
//! is looked at before each wait and after it.

use super::own_words::is_internal;
use super::run_guard::RunGuard;
use super::shared;
use super::state::LoopState;
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;

impl LoopState {
    /// Something of the loop is changed: the next iteration is a full one.
    #[inline(always)]
    pub fn mark_changed(&mut self) {
        self.ctx.fds_only = false;
    }

    /// Whether nothing but descriptors can bring events, as far as the loop's
    /// own thread knows.
    fn allows_fd_rounds(&self) -> bool {
        let lists = self.lists.prepare.is_empty() && self.lists.check.is_empty();
        self.slow_waits == 0
            && !self.ctx.collecting
            && self.ctx.active > 0
            && self.prioritized == 0
            && lists
            && self.ctx.suspended.is_empty()
            && self.timers.due == 0
            && self.timers.recheck == 0
            && self.io.not_pollable.is_empty()
            && !self.has_news()
    }

    /// Whether one of the events found is of the loop's own descriptors.
    #[inline]
    fn has_internal_event(&self, found: usize) -> bool {
        let mut all = 0;
        for event in self.events.iter().take(found) {
            // SAFETY: the kernel filled in as many as were found.
            all |= unsafe { event.assume_init_ref() }.u64;
        }
        is_internal(all)
    }
}

impl RunGuard {
    /// Goes round, without a limit of time, until there is more to do than to
    /// call the callbacks of ready descriptors; right after an iteration.
    pub fn run_fd_rounds(&self) -> Result<()> {
        // SAFETY: no other reference to the state.
        let state = unsafe { self.state() };
        if self.has_pending_work() || !state.allows_fd_rounds() {
            return Ok(());
        }
        state.ctx.fds_only = true;
        loop {
            self.shared.time.store(shared::UNKNOWN, Relaxed);
            if !self.shared.wake_state.sleep() {
                return Ok(());
            }
            let found = self.sleep_until(None)?;
            // SAFETY: as above; not kept.
            let state = unsafe { self.state() };
            if found == 0 || self.shared.wake_state.has_work() || state.has_internal_event(found) {
                return self.dispatch(found);
            }
            state.dispatched = 0;
            self.descriptors(found)?;
            // SAFETY: as above.
            if !unsafe { self.state() }.ctx.fds_only {
                return self.finish_round(found);
            }
        }
    }
}
