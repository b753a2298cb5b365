//! What the handles of loops and watchers lead to.

use super::command::CommandQueue;
use super::ownership::Locked;
use super::shared::{LoopShared, POISONED};
use super::slot::{self, LIVE, LOOP, WatcherSlot};
use super::wake_state;
use crate::errno::{Errno, Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::sync::{MutexGuard, Ordering::*};
use crate::sys::fork;

/// A live handle of a loop or a watcher, and what it leads to.
#[derive(Clone, Copy)]
pub(super) struct Resolved {
    pub slot: &'static WatcherSlot,
    pub shared: &'static LoopShared,
    pub handle: Handle,
    pub slot_state: u32,
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

    #[inline]
    pub fn check_ours(&self) -> Result<()> {
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

/// Something that a loop watches was closed.
pub(super) fn wake_for_object(handle: i64) {
    if let Ok(resolved) = resolve_signal_safe(handle, Kind::Loop) {
        resolved.shared.wake();
    }
}

/// Sets a bit of the loop's wake state. A signal handler may call this.
pub(super) fn set_pending(handle: i64, bits: u64) -> std::result::Result<(), Errno> {
    let resolved = resolve_signal_safe(handle, Kind::Loop)?;
    match resolved.shared.wake_state.set_pending(resolved.shared, handle, bits) {
        None => Err(Errno::ESTALE),
        Some(wake) => wake.now(),
    }
}

/// A handler has seen a signal that a loop has watchers of.
pub(super) fn wake_for_signal(handle: i64) {
    // This fails if the loop is closed or the parent's: no loop is to be woken.
    let _ = set_pending(handle, wake_state::SIGNALS);
}
