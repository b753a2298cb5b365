//! What the handles of loops and watchers lead to, and how it is used.

use super::command::Post;
use super::core::{Core, MANY_NAMES};
use super::desk::{Desk, Gate, POISONED};
use super::event::Destroy;
use super::lease::Locked;
use super::letters::Letters;
use super::record::{self, LIVE, LOOP, Record};
use crate::errno::{Errno, Result, fail};
use crate::handle::{self, Handle, Kind};
use crate::sync::{MutexGuard, Ordering::*};
use crate::sys::cancel::Uncancelled;
use crate::sys::fork;

/// A live handle of a loop or a watcher, and what it leads to.
#[derive(Clone, Copy)]
pub(super) struct Named {
    pub record: &'static Record,
    pub desk: &'static Desk,
    pub handle: Handle,
    state: u32,
}

/// What a handle of this kind leads to, if it is live.
#[inline(always)]
pub(super) fn find(handle: i64, kind: Kind) -> Option<Named> {
    let handle = Handle::unpack_as(handle, kind)?;
    let record = record::get(handle.index)?;
    let state = if matches!(kind, Kind::Loop) { LOOP } else { LIVE };
    let desk = record.desk().filter(|_| record.is(handle, state))?;
    Some(Named { record, desk, handle, state })
}

/// The same, or why not.
#[inline(always)]
pub(super) fn named(handle: i64, kind: Kind) -> Result<Named> {
    match find(handle, kind) {
        Some(named) => Ok(named),
        None => refuse(handle, kind),
    }
}

#[cold]
fn refuse<T>(handle: i64, wanted: Kind) -> Result<T> {
    match handle::kind_of_quietly(handle) {
        Some(kind) if kind != wanted => {
            fail!(EDOM, "handle {} is {}, not {}", handle, kind.name(), wanted.name())
        }
        _ => handle::stale(handle),
    }
}

/// The same without words for the failure, for signal handlers.
pub(super) fn named_quietly(handle: i64, kind: Kind) -> std::result::Result<Named, Errno> {
    match find(handle, kind) {
        Some(named) if named.desk.is_inherited() => Err(Errno::ECHILD),
        Some(named) if named.desk.handle() == 0 => Err(Errno::ESTALE),
        Some(named) => Ok(named),
        None if handle::kind_of_quietly(handle).is_some_and(|other| other != kind) => {
            Err(Errno::EDOM)
        }
        None => Err(Errno::ESTALE),
    }
}

impl Named {
    /// Does something with the loop: `direct` where it may be touched, on the
    /// thread that runs it or if none does; else `remote`, with the gate.
    #[inline(always)]
    pub fn with<R>(
        &self,
        direct: impl FnOnce(&mut Core) -> Result<R>,
        remote: impl FnOnce(&mut Gate) -> Result<R>,
    ) -> Result<R> {
        if self.desk.is_mine() {
            // SAFETY: as was just asked.
            return unsafe { self.with_mine(direct) };
        }
        self.with_lock(direct, remote)
    }

    /// The same of a loop that this thread runs.
    ///
    /// # Safety
    /// It does: `is_mine` of the loop's desk is true.
    #[inline(always)]
    pub unsafe fn with_mine<R>(&self, direct: impl FnOnce(&mut Core) -> Result<R>) -> Result<R> {
        let _poison = Poison(self.desk);
        let act = |core: &mut Core| {
            core.stir();
            if self.desk.has_inbox() {
                // What others asked for before comes before.
                core.receive(&mut self.desk.gate());
                if !self.record.is(self.handle, self.state) {
                    return handle::stale(self.handle.pack());
                }
            }
            direct(core)
        };
        // SAFETY: this thread runs the loop (this function's contract), whose
        // run borrows nothing of the core while a callback, which this call is
        // in, runs.
        unsafe { self.desk.with_core(act) }?
    }

    #[inline(never)]
    fn with_lock<R>(
        &self,
        direct: impl FnOnce(&mut Core) -> Result<R>,
        remote: impl FnOnce(&mut Gate) -> Result<R>,
    ) -> Result<R> {
        let mut gate = self.lock()?;
        if gate.running {
            let _poison = Poison(self.desk);
            let wake = self.desk.leave_work();
            let result = remote(&mut gate);
            drop(gate);
            drop(wake);
            return result;
        }
        self.with_idle(gate, direct)
    }

    /// The same, of a loop that nobody runs, with its gate's lock.
    pub fn with_idle<R>(
        &self,
        mut gate: MutexGuard<'static, Locked<Gate>>,
        direct: impl FnOnce(&mut Core) -> Result<R>,
    ) -> Result<R> {
        let _poison = Poison(self.desk);
        let act = |core: &mut Core| {
            let result = direct(core);
            let closed = core.take_destroys();
            if core.unnamed.len() >= MANY_NAMES || core.unnamed_more {
                core.forget_names(&mut gate);
            }
            // A question changes nothing that the foreign wait should end for.
            (result, closed, core.prepared && core.has_news())
        };
        // SAFETY: no thread runs the loop, and this one has the gate's lock.
        let (result, closed, prepared) = unsafe { self.desk.with_core(act) }?;
        drop(gate);
        notify(closed);
        if prepared {
            self.desk.ring();
        }
        result
    }

    /// Has the loop look again at what it waits for.
    pub fn go_round(&self) -> Result<()> {
        if !self.desk.is_mine() {
            let gate = self.lock()?;
            let wake = self.desk.leave_work();
            drop(gate);
            drop(wake);
        }
        Ok(())
    }

    /// Whether it is live.
    pub fn is_open(&self) -> bool {
        self.record.is(self.handle, self.state)
    }

    /// Whether it can be used, as far as can be told without the lock.
    #[inline]
    pub fn check(&self) -> Result<()> {
        handle::epoch();
        if self.desk.handle() == 0 {
            return handle::stale(self.handle.pack());
        }
        self.check_ours()
    }

    /// The gate of a loop that is still the one that was named, and ours.
    pub fn lock(&self) -> Result<MutexGuard<'static, Locked<Gate>>> {
        let gate = self.lock_any()?;
        self.check_ours()?;
        Ok(gate)
    }

    /// Whether the loop's epoll is what it was; asked before it is changed, where
    /// no run that has asked is going on.
    #[inline]
    pub fn check_epoll(&self, gate: &mut Locked<Gate>) -> Result<()> {
        if self.desk.has_epoll() { Ok(()) } else { self.has_lost_epoll(gate) }
    }

    /// The same where the gate's lock is not held yet.
    #[inline]
    pub fn check_epoll_first(&self) -> Result<()> {
        if self.desk.is_surely_mine() { Ok(()) } else { self.check_epoll_of_other() }
    }

    #[inline(never)]
    fn check_epoll_of_other(&self) -> Result<()> {
        if self.desk.is_mine() || self.desk.has_epoll() {
            return Ok(());
        }
        let mut gate = self.lock()?;
        self.has_lost_epoll(&mut gate)
    }

    #[cold]
    fn has_lost_epoll(&self, gate: &mut Locked<Gate>) -> Result<()> {
        if !gate.running {
            // SAFETY: no thread runs the loop, and this one has the gate's lock.
            unsafe { self.desk.with_core(|core| core.has_own_epoll(gate)) }?;
        }
        fail!(EBADF, "the descriptors of loop {} were closed", self.desk.handle())
    }

    #[inline]
    fn check_ours(&self) -> Result<()> {
        let is_ours = fork::is_surely(self.desk.epoch.load(Relaxed));
        let is_usual = is_ours && self.desk.state.load(Relaxed) & POISONED == 0;
        if is_usual { Ok(()) } else { self.check_closely() }
    }

    #[cold]
    fn check_closely(&self) -> Result<()> {
        if self.desk.epoch.load(Relaxed) != fork::current() {
            let handle = self.handle.pack();
            fail!(ECHILD, "handle {} is {} of the parent process", handle, self.handle.kind.name());
        }
        if self.desk.state.load(Relaxed) & POISONED != 0 {
            let handle = self.handle.pack();
            fail!(ENOTRECOVERABLE, "handle {} was left unusable by a bug of the library", handle);
        }
        Ok(())
    }

    /// The same, of a parent's or a broken one too: for closing.
    pub fn lock_any(&self) -> Result<MutexGuard<'static, Locked<Gate>>> {
        handle::epoch();
        let gate = self.desk.gate();
        let (word, generation) = (self.record.word(), self.handle.generation);
        if !self.desk.place().still_has(&gate, word, generation, self.state) {
            return handle::stale(self.handle.pack());
        }
        Ok(gate)
    }
}

/// Marks a loop whose core a panic left as it happened to be.
struct Poison(&'static Desk);

impl Drop for Poison {
    #[inline]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.state.fetch_or(POISONED, Relaxed);
        }
    }
}

/// What is left of a loop that was closed: whom to tell, and the calls that
/// were not made.
pub(super) struct Closed {
    pub destroys: Letters<Destroy>,
    pub posts: Letters<Post>,
}

impl Closed {
    /// Calls the program's functions; no lock is held.
    pub fn notify(mut self) {
        notify(self.destroys);
        destroy_posts(&mut self.posts);
    }
}

/// Frees what posted calls were for that are not made; no lock is held.
pub(super) fn destroy_posts(posts: &mut Letters<Post>) {
    if posts.is_empty() {
        return;
    }
    let _uncancelled = Uncancelled::begin();
    while let Some(post) = posts.pop() {
        post.destroy();
    }
}

/// Tells the program of watchers that are closed; no lock is held.
pub(super) fn notify(mut closed: Letters<Destroy>) {
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
