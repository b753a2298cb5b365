//! What the handles of loops and watchers lead to, and how it is used.

use super::command::Post;
use super::event::Destroy;
use super::node_list::NodeList;
use super::ownership::Locked;
use super::shared::{CommandQueue, LoopShared, POISONED};
use super::slot::{self, LIVE, LOOP, WatcherSlot};
use super::state::{LoopState, MANY_NAMES};
use crate::errno::{Errno, Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::sync::{MutexGuard, Ordering::*};
use crate::sys::cancel::Uncancelled;
use crate::sys::fork;

/// A live handle of a loop or a watcher, and what it leads to.
#[derive(Clone, Copy)]
pub(super) struct Resolved {
    pub slot: &'static WatcherSlot,
    pub shared: &'static LoopShared,
    pub handle: Handle,
    slot_state: u32,
}

/// What a handle of this kind leads to, if it is live.
#[inline(always)]
pub(super) fn try_resolve(handle: i64, kind: Kind) -> Option<Resolved> {
    let handle = Handle::unpack_as(handle, kind)?;
    let slot = slot::get(handle.index)?;
    let slot_state = if matches!(kind, Kind::Loop) { LOOP } else { LIVE };
    let shared = slot.shared().filter(|_| slot.is(handle, slot_state))?;
    Some(Resolved { slot, shared, handle, slot_state })
}

/// The same, or why not.
#[inline(always)]
pub(super) fn resolve(handle: i64, kind: Kind) -> Result<Resolved> {
    match try_resolve(handle, kind) {
        Some(resolved) => Ok(resolved),
        None => lookup_error(handle, kind),
    }
}

#[cold]
fn lookup_error<T>(handle: i64, wanted: Kind) -> Result<T> {
    match handle::kind_of_quietly(handle) {
        Some(kind) if kind != wanted => {
            fail!(EDOM, "handle {} is {}, not {}", handle, kind.name(), wanted.name())
        }
        _ => handle::stale(handle),
    }
}

/// The same without words for the failure, for signal handlers.
pub(super) fn resolve_signal_safe(handle: i64, kind: Kind) -> std::result::Result<Resolved, Errno> {
    match try_resolve(handle, kind) {
        Some(resolved) if resolved.shared.is_inherited() => Err(Errno::ECHILD),
        Some(resolved) if resolved.shared.handle() == 0 => Err(Errno::ESTALE),
        Some(resolved) => Ok(resolved),
        None if handle::kind_of_quietly(handle).is_some_and(|other| other != kind) => {
            Err(Errno::EDOM)
        }
        None => Err(Errno::ESTALE),
    }
}

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

    /// Has the loop look again at what it waits for.
    pub fn recheck_wait(&self) -> Result<()> {
        if !self.shared.is_mine() {
            let command_queue = self.lock()?;
            let wake = self.shared.set_has_commands();
            drop(command_queue);
            drop(wake);
        }
        Ok(())
    }

    /// Whether it is live.
    pub fn is_open(&self) -> bool {
        self.slot.is(self.handle, self.slot_state)
    }

    /// Whether it can be used, as far as can be seen without the lock.
    #[inline]
    pub fn check(&self) -> Result<()> {
        handle::epoch();
        if self.shared.handle() == 0 {
            return handle::stale(self.handle.pack());
        }
        self.check_ours()
    }

    /// The command queue of a loop that is still the one that was named, and
    /// ours.
    pub fn lock(&self) -> Result<MutexGuard<'static, Locked<CommandQueue>>> {
        let command_queue = self.lock_any()?;
        self.check_ours()?;
        Ok(command_queue)
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
            unsafe { self.shared.with_state(|state| state.has_own_epoll(command_queue)) }?;
        }
        fail!(EBADF, "the descriptors of loop {} were closed", self.shared.handle())
    }

    #[inline]
    fn check_ours(&self) -> Result<()> {
        let is_ours = fork::is_current_fast(self.shared.epoch.load(Relaxed));
        let is_usual = is_ours && self.shared.damage.load(Relaxed) & POISONED == 0;
        if is_usual { Ok(()) } else { self.check_closely() }
    }

    #[cold]
    fn check_closely(&self) -> Result<()> {
        if self.shared.epoch.load(Relaxed) != fork::current() {
            let handle = self.handle.pack();
            fail!(ECHILD, "handle {} is {} of the parent process", handle, self.handle.kind.name());
        }
        if self.shared.damage.load(Relaxed) & POISONED != 0 {
            let handle = self.handle.pack();
            fail!(ENOTRECOVERABLE, "handle {} was left unusable by a bug of the library", handle);
        }
        Ok(())
    }

    /// The same, of a parent's or a broken one too: for closing.
    pub fn lock_any(&self) -> Result<MutexGuard<'static, Locked<CommandQueue>>> {
        handle::epoch();
        let command_queue = self.shared.lock_commands();
        let (word, generation) = (self.slot.word(), self.handle.generation);
        if !self.shared.lifecycle().still_has(&command_queue, word, generation, self.slot_state) {
            return handle::stale(self.handle.pack());
        }
        Ok(command_queue)
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

/// What is left of a loop that was closed: the destroy callbacks to notify, and
/// the posted calls that were not made.
pub(super) struct ClosedLoop {
    pub destroys: NodeList<Destroy>,
    pub posts: NodeList<Post>,
}

impl ClosedLoop {
    /// Calls the program's functions; no lock is held.
    pub fn notify(mut self) {
        notify(self.destroys);
        destroy_posts(&mut self.posts);
    }
}

/// Calls the destroy functions of posted calls that are not made; no lock is
/// held.
pub(super) fn destroy_posts(posts: &mut NodeList<Post>) {
    if posts.is_empty() {
        return;
    }
    let _uncancelled = Uncancelled::begin();
    while let Some(post) = posts.pop() {
        post.destroy();
    }
}

/// Notifies the destroy callbacks of closed watchers; no lock is held.
pub(super) fn notify(mut closed: NodeList<Destroy>) {
    if closed.is_empty() {
        return;
    }
    let _uncancelled = Uncancelled::begin();
    while let Some(Destroy { target, event }) = closed.pop() {
        if let Some(callback) = target.callback {
            // SAFETY: the program's function and argument, as it promised.
            unsafe { callback(&event, target.user_data) };
        }
    }
}
