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
mod needs;
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
use self::set::Set;
use self::timers::MONOTONIC;
use crate::errno::{Errno, Result};
use crate::handle;
use crate::sync::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, ForkMutex, Ordering};
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::kept::{Identity, SharedIdentity};
use crate::wait::Waiters;
use std::os::fd::RawFd;

/// How a queue is made.
#[derive(Clone, Copy, Default)]
pub(crate) struct Nature {
    /// A forked child goes on using it.
    pub keep: bool,
    /// The program deletes before it closes a descriptor that has duplicates:
    /// what the kernel reports is of the descriptor that was registered.
    pub trusts_fds: bool,
}

/// A queue.
pub(crate) struct Queue {
    /// The public epoll; closed when the queue is, if it still is that.
    number: AtomicI32,
    /// The epoll in it. It changes under the lock.
    main: SharedIdentity,
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
    fn create(nature: Nature) -> Result<Box<Self>> {
        let queue = handle::try_box(Self {
            number: AtomicI32::new(-1),
            main: SharedIdentity::of(Identity::none()),
            core: ForkMutex::new(None),
            closed: AtomicBool::new(false),
            keep: nature.keep,
            epoch: AtomicU64::new(handle::epoch()),
            handle: AtomicI64::new(0),
            active: AtomicI64::new(0),
            watchers: Waiters::new(),
        });
        let Some(queue) = queue else { return Err(Errno::ENOMEM.into()) };
        queue.begin(nature)?;
        Ok(queue)
    }

    /// Fills in a new one where it is: what it has is large, and a call takes
    /// little of the stack.
    fn begin(&self, nature: Nature) -> Result<()> {
        let public = epoll::create()?;
        let mut place = self.core.lock();
        let core = place.insert(Core::new(Set::new()?, nature.trusts_fds));
        core.make_timerfd(MONOTONIC)?;
        epoll::add(public.raw(), core.set.main(), set::IN, 0)?;
        self.main.set(core.set.identity());
        self.number.store(public.raw(), Ordering::Relaxed);
        public.disown();
        Ok(())
    }

    fn main(&self) -> RawFd {
        self.main.get().fd()
    }

    fn number(&self) -> RawFd {
        self.number.load(Ordering::Relaxed)
    }

    /// Asks the kernel whether a number is this queue's epoll: EBADF, it is
    /// closed; EINVAL, it is no epoll; ENOENT, it is another.
    fn ask_behind(&self, fd: RawFd) -> std::result::Result<(), Errno> {
        loop {
            let before = self.main.get();
            // If that was closed, what has its number may lie in any epoll.
            let main = self.main.check().ok_or(Errno::ENOENT)?;
            let result = epoll::modify(fd, main, set::IN, 0);
            // It may have been replaced in the middle, also by one with the
            // same number.
            if result.is_ok() || (self.main.get() == before && before.fd() == main) {
                return result;
            }
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
        self.main.set(core.set.identity());
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
        let main = self.main.get();
        // Not what was known a moment ago.
        if main.is_intact() && self.ask_behind(number).is_ok() {
            drop(Fd::owned(number));
        }
        match core {
            Some(core) => {
                core.leave_operations(object::is_here(self.epoch.load(Ordering::Relaxed)));
            }
            None if main.is_intact() => drop(Fd::owned(main.fd())),
            None => {}
        }
        *core = None;
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
