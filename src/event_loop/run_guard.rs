//! A loop while a thread runs it.

use super::notify::notify;
use super::registry::tear_down;
use super::resolve::Resolved;
use super::shared::{LoopShared, POISONED, UNKNOWN};
use super::state::LoopState;
use super::wake_state;
use crate::errno::{Result, fail};
use crate::handle;
use crate::sync::Ordering::*;
use crate::sys::cancel::Uncancelled;
use crate::sys::{fork, thread};
use std::cell::Cell;
use std::ptr::NonNull;

/// A run of a loop on this thread; ends when it is dropped.
pub(super) struct RunGuard {
    pub shared: &'static LoopShared,
    resolved: Resolved,
    /// The owner's, which stays there while this exists.
    state: NonNull<LoopState>,
    forks: Cell<fork::ForkWatch>,
    /// Last: callbacks are called until the very end.
    _uncancelled: Uncancelled,
}

impl RunGuard {
    pub fn begin(resolved: Resolved) -> Result<Self> {
        let uncancelled = Uncancelled::begin();
        let shared = resolved.shared;
        if shared.is_mine() {
            fail!(
                EBUSY,
                "loop {} is running: this is one of its callbacks",
                resolved.handle.pack()
            );
        }
        let mut command_queue = resolved.lock()?;
        resolved.check_epoll(&mut command_queue)?;
        if !shared.owner.acquire(&mut command_queue, thread::current()) {
            fail!(EBUSY, "loop {} is running in another thread", resolved.handle.pack());
        }
        let Some(state) = shared.state_owner().pointer() else {
            shared.owner.release(&mut command_queue);
            return handle::stale(resolved.handle.pack());
        };
        let act = |state: &mut LoopState| {
            state.apply_commands(&mut command_queue);
            state.forget_names(&mut command_queue);
        };
        // SAFETY: this thread runs the loop, and nothing else borrows it yet.
        unsafe { shared.with_state(act) }?;
        let forks = Cell::new(fork::ForkWatch::begin());
        Ok(Self { shared, resolved, state, forks, _uncancelled: uncancelled })
    }

    /// Borrows the loop itself: once more for each use, and never while code
    /// of the program's runs, whose calls borrow it, too.
    ///
    /// # Safety
    /// No other borrow of the state is used again, neither before this one was
    /// used last nor after it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn state(&self) -> &mut LoopState {
        let mut state = self.state;
        // SAFETY: this thread runs the loop; else as this function's.
        unsafe { state.as_mut() }
    }

    /// Whether there is something to be done before the next callback.
    #[inline(always)]
    pub fn has_pending_work(&self) -> bool {
        self.shared.pending_work.is_set() || self.forks.get().has_forked()
    }

    /// Whether this is a child of the process that the run began in.
    #[inline(always)]
    pub fn has_forked(&self) -> bool {
        self.forks.get().has_forked()
    }

    /// Whether the loop is still to be run by this thread, in this process;
    /// to be asked after user code ran.
    #[inline]
    pub fn check(&self) -> Result<()> {
        self.check_process()?;
        if self.is_closed() {
            fail!(ESTALE, "loop {} was closed during its run", self.resolved.handle.pack());
        }
        Ok(())
    }

    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.shared.epoch.load(Relaxed) != fork::current() {
            let handle = self.resolved.handle.pack();
            fail!(ECHILD, "a callback of loop {} forked, and this is the child", handle);
        }
        if self.forks.get().has_forked() {
            self.forks.set(fork::ForkWatch::begin());
        }
        Ok(())
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.shared.wake_state.peek() & wake_state::CLOSED != 0
    }
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        if self.shared.epoch.load(Relaxed) != fork::current() {
            // A forked child that has not revived the loop. If it does so
            // later, no thread runs the loop.
            handle::epoch();
            let mut command_queue = self.shared.lock_commands();
            self.shared.owner.release(&mut command_queue);
            // SAFETY: the run is over, and this thread has the command queue's
            // lock.
            unsafe { self.state() }.ctx.in_callback = false;
            return;
        }
        if std::thread::panicking() {
            self.shared.damage.fetch_or(POISONED, Relaxed);
        }
        let mut command_queue = self.shared.lock_commands();
        self.shared.time.store(UNKNOWN, Relaxed);
        let is_closed = self.shared.lifecycle().end_run(&mut command_queue);
        self.shared.complete_barrier(&mut command_queue);
        // SAFETY: the run is over, and this thread has the command queue's
        // lock.
        let state = unsafe { self.state() };
        state.apply_commands(&mut command_queue);
        state.forget_names(&mut command_queue);
        if is_closed {
            return tear_down(self.shared, command_queue).notify();
        }
        let closed = state.take_destroys();
        drop(command_queue);
        notify(closed);
    }
}
