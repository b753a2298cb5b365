//! A loop while a thread runs it.

use super::core::Core;
use super::desk::{Desk, POISONED, UNKNOWN};
use super::mailbox;
use super::named::{Named, notify};
use super::registry::tear_down;
use crate::errno::{Result, fail};
use crate::handle;
use crate::sync::Ordering::*;
use crate::sys::cancel::Uncancelled;
use crate::sys::{fork, thread};
use std::cell::Cell;
use std::ptr::NonNull;

/// A run of a loop on this thread; ends when it is dropped.
pub(super) struct Run {
    pub desk: &'static Desk,
    named: Named,
    /// The lease's, which stays there while this exists.
    core: NonNull<Core>,
    forks: Cell<fork::Watch>,
    /// Last: callbacks are called until the very end.
    _uncancelled: Uncancelled,
}

impl Run {
    pub fn begin(named: Named) -> Result<Self> {
        let uncancelled = Uncancelled::begin();
        let desk = named.desk;
        if desk.is_mine() {
            fail!(EBUSY, "loop {} is running: this is one of its callbacks", named.handle.pack());
        }
        let mut gate = named.lock()?;
        named.check_epoll(&mut gate)?;
        if !desk.lease.begin(&mut gate, thread::current()) {
            fail!(EBUSY, "loop {} is running in another thread", named.handle.pack());
        }
        let Some(core) = desk.lease.pointer() else {
            desk.lease.end(&mut gate);
            return handle::stale(named.handle.pack());
        };
        let act = |core: &mut Core| {
            core.receive(&mut gate);
            core.forget_names(&mut gate);
        };
        // SAFETY: this thread runs the loop, and nothing else borrows it yet.
        unsafe { desk.with_core(act) }?;
        let forks = Cell::new(fork::Watch::begin());
        Ok(Self { desk, named, core, forks, _uncancelled: uncancelled })
    }

    /// Borrows the loop itself: once more for each use, and never while code
    /// of the program's runs, whose calls borrow it, too.
    ///
    /// # Safety
    /// No other borrow of the core is used again, neither before this one was
    /// used last nor after it.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn core(&self) -> &mut Core {
        let mut core = self.core;
        // SAFETY: this thread runs the loop; else as this function's.
        unsafe { core.as_mut() }
    }

    /// Whether there is something to be done before the next callback.
    #[inline(always)]
    pub fn is_attention_due(&self) -> bool {
        self.desk.attention.is_set() || self.forks.get().has_forked()
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
            fail!(ESTALE, "loop {} was closed during its run", self.named.handle.pack());
        }
        Ok(())
    }

    #[inline]
    pub fn check_process(&self) -> Result<()> {
        if self.desk.epoch.load(Relaxed) != fork::current() {
            let handle = self.named.handle.pack();
            fail!(ECHILD, "a callback of loop {} forked, and this is the child", handle);
        }
        if self.forks.get().has_forked() {
            self.forks.set(fork::Watch::begin());
        }
        Ok(())
    }

    #[inline]
    pub fn is_closed(&self) -> bool {
        self.desk.mail.peek() & mailbox::CLOSED != 0
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.desk.epoch.load(Relaxed) != fork::current() {
            // A child in which nobody revived the loop. Should somebody yet,
            // nobody runs it.
            handle::epoch();
            let mut gate = self.desk.gate();
            self.desk.lease.end(&mut gate);
            // SAFETY: the run is over, and this thread has the gate's lock.
            unsafe { self.core() }.in_callback = false;
            return;
        }
        if std::thread::panicking() {
            self.desk.state.fetch_or(POISONED, Relaxed);
        }
        let mut gate = self.desk.gate();
        self.desk.time.store(UNKNOWN, Relaxed);
        let is_closed = self.desk.place().end_run(&mut gate);
        self.desk.answer(&mut gate);
        // SAFETY: the run is over, and this thread has the gate's lock.
        let core = unsafe { self.core() };
        core.receive(&mut gate);
        core.forget_names(&mut gate);
        if is_closed {
            return tear_down(self.desk, gate).notify();
        }
        let closed = core.take_destroys();
        drop(gate);
        notify(closed);
    }
}
