//! How calls use the loop that a handle leads to: its state where they may touch
//! that, else its command queue.

use super::command::CommandQueue;
use super::notify::notify;
use super::ownership::Locked;
use super::resolve::Resolved;
use super::shared::{LoopShared, POISONED};
use super::state::{LoopState, MANY_NAMES};
use crate::errno::{Result, fail};
use crate::handle;
use crate::sync::{MutexGuard, Ordering::*};

impl Resolved {
    /// Does something with the loop: `direct` where it may be touched, on the
    /// thread that runs it or if none does; else `remote`, with the command
    /// queue.
    #[inline(always)]
    pub fn with<R>(
        &self,
        direct: impl FnOnce(&mut LoopState) -> Result<R>,
        remote: impl FnOnce(&mut CommandQueue) -> Result<R>,
    ) -> Result<R> {
        if self.shared.is_mine() {
            // SAFETY: as was just asked.
            return unsafe { self.with_mine(direct) };
        }
        self.with_lock(direct, remote)
    }

    /// The same of a loop that this thread runs.
    ///
    /// # Safety
    /// It does: `is_mine` of the loop's shared part is true.
    #[inline(always)]
    pub unsafe fn with_mine<R>(
        &self,
        direct: impl FnOnce(&mut LoopState) -> Result<R>,
    ) -> Result<R> {
        let _poison = Poison(self.shared);
        let act = |state: &mut LoopState| {
            state.mark_changed();
            if self.shared.has_commands() {
                // What others asked for before comes before.
                state.apply_commands(&mut self.shared.lock_commands());
                if !self.slot.is(self.handle, self.slot_state) {
                    return handle::stale(self.handle.pack());
                }
            }
            direct(state)
        };
        // SAFETY: this thread runs the loop (this function's contract), whose
        // run borrows nothing of the state while a callback, which this call is
        // in, runs.
        unsafe { self.shared.with_state(act) }?
    }

    #[inline(never)]
    fn with_lock<R>(
        &self,
        direct: impl FnOnce(&mut LoopState) -> Result<R>,
        remote: impl FnOnce(&mut CommandQueue) -> Result<R>,
    ) -> Result<R> {
        let mut command_queue = self.lock()?;
        if command_queue.running {
            let _poison = Poison(self.shared);
            let wake = self.shared.set_has_commands();
            let result = remote(&mut command_queue);
            drop(command_queue);
            drop(wake);
            return result;
        }
        self.with_idle(command_queue, direct)
    }

    /// The same, of a loop that no thread runs, with its command queue's lock.
    pub fn with_idle<R>(
        &self,
        mut command_queue: MutexGuard<'static, Locked<CommandQueue>>,
        direct: impl FnOnce(&mut LoopState) -> Result<R>,
    ) -> Result<R> {
        let _poison = Poison(self.shared);
        let act = |state: &mut LoopState| {
            let result = direct(state);
            let closed = state.take_destroys();
            if state.unnamed.len() >= MANY_NAMES || state.unnamed_more {
                state.forget_names(&mut command_queue);
            }
            // A question changes nothing that the foreign wait should end for.
            (result, closed, state.prepared && state.has_news())
        };
        // SAFETY: no thread runs the loop, and this one has the command queue's
        // lock.
        let (result, closed, prepared) = unsafe { self.shared.with_state(act) }?;
        drop(command_queue);
        notify(closed);
        if prepared {
            self.shared.wake();
        }
        result
    }

    /// Whether the loop's epoll is what it was; asked before it is changed,
    /// where no run that has asked is going on.
    #[inline]
    pub fn check_epoll(&self, command_queue: &mut Locked<CommandQueue>) -> Result<()> {
        if self.shared.has_epoll() { Ok(()) } else { self.has_lost_epoll(command_queue) }
    }

    /// The same where the command queue's lock is not held yet.
    #[inline]
    pub fn check_epoll_first(&self) -> Result<()> {
        if self.shared.is_mine_fast() { Ok(()) } else { self.check_epoll_of_other() }
    }

    #[inline(never)]
    fn check_epoll_of_other(&self) -> Result<()> {
        if self.shared.is_mine() || self.shared.has_epoll() {
            return Ok(());
        }
        let mut command_queue = self.lock()?;
        self.has_lost_epoll(&mut command_queue)
    }

    #[cold]
    fn has_lost_epoll(&self, command_queue: &mut Locked<CommandQueue>) -> Result<()> {
        if !command_queue.running {
            // SAFETY: no thread runs the loop, and this one has the command
            // queue's lock.
            unsafe { self.shared.with_state(|state| state.ctx.has_own_epoll(command_queue)) }?;
        }
        fail!(EBADF, "the descriptors of loop {} were closed", self.shared.handle())
    }
}

/// Marks a loop whose state a panic left as it happened to be.
struct Poison(&'static LoopShared);

impl Drop for Poison {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.damage.fetch_or(POISONED, Relaxed);
        }
    }
}
