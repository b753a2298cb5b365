//! Kqueue: BSD's queues of events, on Linux.
//!
//! A queue's descriptor is an epoll, which holds another one with everything
//! that the queue watches (`set`). What is watched for whom is kept here:
//! knotes (`knote`), by filter (`filter`), those of one descriptor together
//! (`registration`). An event of the kernel's, or of a knote's own, is a
//! reason to ask the knote's filter, which says what to deliver (`deliver`).

mod aio;
mod child;
mod control;
mod core;
mod crowd;
mod deliver;
mod event;
mod filter;
mod knote;
mod links;
mod mounts;
mod notes;
mod object;
mod processes;
mod readiness;
mod registration;
mod registry;
mod set;
mod signals;
mod slab;
mod snapshot;
mod timers;

pub(crate) use aio::{Operation, Request};
pub(crate) use control::{By, Collect};
pub(crate) use event::*;
pub(crate) use object::{Kqueue, Use, watchable};
pub(crate) use readiness::Readiness;

use self::core::Core;
use crate::errno::{Errno, Result};
use crate::sync::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, ForkMutex, Ordering};
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::table;
use crate::waiters::Waiters;
use std::os::fd::RawFd;

/// A queue.
pub(crate) struct Queue {
    /// The public epoll; closed when the queue is, if it still is that.
    number: AtomicI32,
    /// The epoll in it. It changes under the lock.
    main: AtomicI32,
    /// `None`: in a child, whose parent was in the middle of a change.
    core: ForkMutex<Option<Core>>,
    closed: AtomicBool,
    /// A forked child goes on using it.
    keep: bool,
    /// The process that the epolls belong to.
    epoch: AtomicU64,
    handle: AtomicI64,
    /// Roughly how many knotes have events.
    active: AtomicI64,
    /// Who is told when it is closed.
    watchers: Waiters,
}

impl Queue {
    /// `keep`: a forked child goes on using it.
    fn create(keep: bool) -> Result<Self> {
        let public = epoll::create()?;
        let core = Core::new()?;
        epoll::add(public.raw(), core.set.main(), set::IN, 0)?;
        public.disown();
        Ok(Self {
            number: AtomicI32::new(public.raw()),
            main: AtomicI32::new(core.set.main()),
            core: ForkMutex::new(Some(core)),
            closed: AtomicBool::new(false),
            keep,
            epoch: AtomicU64::new(table::epoch()),
            handle: AtomicI64::new(0),
            active: AtomicI64::new(0),
            watchers: Waiters::new(),
        })
    }

    fn main(&self) -> RawFd {
        self.main.load(Ordering::Relaxed)
    }

    fn number(&self) -> RawFd {
        self.number.load(Ordering::Relaxed)
    }

    /// Asks the kernel whether a number is this queue's epoll: EBADF, it is
    /// closed; EINVAL, it is no epoll; ENOENT, it is another.
    fn ask_behind(&self, fd: RawFd) -> std::result::Result<(), Errno> {
        // Acquire, and Release where it is changed: the epoll is in the
        // public one.
        let mut main = self.main.load(Ordering::Acquire);
        loop {
            let result = epoll::modify(fd, main, set::IN, 0);
            // It may have been replaced meanwhile.
            let now = self.main.load(Ordering::Acquire);
            if result.is_ok() || now == main {
                return result;
            }
            main = now;
        }
    }

    /// Its own number was closed; this one is a duplicate.
    fn move_to_number(&self, fd: RawFd) {
        self.number.store(fd, Ordering::Relaxed);
    }

    /// How many events it has, at least and roughly; for queues that watch
    /// this one.
    fn pending(&self) -> i64 {
        self.active.load(Ordering::Relaxed).max(1)
    }

    /// Wakes all that wait, to see that it is closed.
    fn closing(&self) {
        // Whoever has the lock after this sees it, and does not wait.
        self.closed.store(true, Ordering::Release);
        let mut core = self.core.lock();
        // A forked child has none of the threads, and its parent's timerfd.
        let is_here = object::is_here(self.epoch.load(Ordering::Relaxed));
        if let Some(core) = core.as_mut().filter(|core| is_here && core.crowd.waiting() > 0) {
            core.alarm();
        }
    }

    /// Replaces the epoll that everything is in, to be rid of what is there
    /// and cannot be reached any more.
    fn rebuild(&self, core: &mut Core) -> std::result::Result<(), Errno> {
        // What it takes to have those that wait come to the new one.
        core.crowd.expect_retired().map_err(|_| Errno::ENOMEM)?;
        let fresh = set::Set::new()?;
        let main = fresh.main();
        epoll::add(self.number(), main, set::IN, 0)?;
        let old = core.move_quietly_to(fresh)?;
        self.main.store(main, Ordering::Release);
        // It goes with the last thread that waits in it, at the latest.
        let _ = epoll::delete(self.number(), old.main());
        if core.crowd.retire(old) {
            core.alarm();
        }
        Ok(())
    }

    /// Closes what is still this queue's; what a program that closes all
    /// descriptors has closed may be somebody else's by now.
    fn release(&self, core: &mut Option<Core>) {
        let number = self.number.swap(-1, Ordering::Relaxed);
        if number < 0 {
            return;
        }
        let is_behind = self.ask_behind(number).is_ok();
        if is_behind {
            drop(Fd::owned(number));
        }
        if let Some(core) = core {
            core.leave_operations(object::is_here(self.epoch.load(Ordering::Relaxed)));
        }
        match core {
            Some(core) => core.release(is_behind),
            None if is_behind => drop(Fd::owned(self.main.load(Ordering::Relaxed))),
            None => {}
        }
        *core = None;
    }
}

impl Core {
    /// Keeps those descriptors from being closed with it that are not its
    /// own any more. `known`: the main epoll is.
    fn release(&mut self, known: bool) {
        let main = self.set.main();
        let ours = |fd: &Fd| set::probe(main, fd.raw()).is_ok();
        self.mounts.check();
        let sources = || {
            let files = self.notes.fd.iter().chain(self.mounts.fd()).chain(&self.links.fd);
            files.chain(self.signals.fds()).chain(self.processes.fds())
        };
        let inner = || self.set.inner_fds().chain(self.timers.fds()).chain(sources());
        let foreign = !known && !inner().any(ours);
        if foreign {
            self.set.disown();
        }
        inner().filter(|fd| foreign || !ours(fd)).for_each(Fd::disown);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        registry::remove(self.number(), self.handle.load(Ordering::Relaxed));
        self.release(&mut self.core.lock());
    }
}

#[cfg(test)]
mod tests;
