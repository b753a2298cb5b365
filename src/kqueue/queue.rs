//! A queue: what is outside of its lock, and its closing.

use super::epoll_set::{self, EpollSet};
use super::source::timer::MONOTONIC;
use super::source::{EventsOfQueue, Sources};
use super::state::QueueState;
use crate::errno::{Errno, Result};
use crate::handle;
use crate::sync::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, ForkMutex, Ordering};
use crate::sys::fd::Fd;
use crate::sys::kept::{Identity, SharedIdentity};
use crate::sys::{epoll, fork};
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
    fd: AtomicI32,
    /// The epoll in it. It changes under the lock.
    pub inner: SharedIdentity,
    /// `None`: in a child, whose parent was in the middle of a change.
    pub(super) state: ForkMutex<Option<QueueState>>,
    pub closed: AtomicBool,
    /// A forked child goes on using it.
    pub keep: bool,
    /// The process that the epolls belong to.
    pub epoch: AtomicU64,
    pub handle: AtomicI64,
    /// Roughly how many knotes have events.
    pub active: AtomicI64,
    /// Listeners that are notified when it is closed.
    pub watchers: Waiters,
}

impl Queue {
    pub fn create(nature: Nature, events_of_queue: EventsOfQueue) -> Result<Box<Self>> {
        let queue = handle::try_box(Self {
            fd: AtomicI32::new(-1),
            inner: SharedIdentity::of(Identity::none()),
            state: ForkMutex::new(None),
            closed: AtomicBool::new(false),
            keep: nature.keep,
            epoch: AtomicU64::new(handle::epoch()),
            handle: AtomicI64::new(0),
            active: AtomicI64::new(0),
            watchers: Waiters::new(),
        });
        let Some(queue) = queue else { return Err(Errno::ENOMEM.into()) };
        queue.begin(nature, events_of_queue)?;
        Ok(queue)
    }

    /// Fills in a new one where it is: what it has is large, and a call takes
    /// little of the stack.
    fn begin(&self, nature: Nature, events_of_queue: EventsOfQueue) -> Result<()> {
        let public = epoll::create()?;
        let mut locked = self.state.lock();
        let state = locked.insert(QueueState::new(
            Sources::new(EpollSet::new()?, events_of_queue),
            nature.trusts_fds,
        ));
        state.sources.timers.make_timerfd(&state.sources.set, MONOTONIC)?;
        epoll::add(public.raw(), state.sources.set.inner(), epoll_set::IN, 0)?;
        self.inner.set(state.sources.set.identity());
        self.fd.store(public.raw(), Ordering::Relaxed);
        public.set_borrowed();
        Ok(())
    }

    /// Whether this is the process that its epolls belong to.
    pub fn is_here(&self) -> bool {
        fork::current() == self.epoch.load(Ordering::Relaxed)
    }

    pub fn inner(&self) -> RawFd {
        self.inner.get().fd()
    }

    pub fn fd(&self) -> RawFd {
        self.fd.load(Ordering::Relaxed)
    }

    /// Asks the kernel whether a descriptor is this queue's epoll: EBADF, it is
    /// closed; EINVAL, it is no epoll; ENOENT, it is another.
    pub fn verify_fd(&self, fd: RawFd) -> std::result::Result<(), Errno> {
        loop {
            let before = self.inner.get();
            // If that was closed, the file that has its fd may be in any epoll.
            let inner = self.inner.check().ok_or(Errno::ENOENT)?;
            let result = epoll::modify(fd, inner, epoll_set::IN, 0);
            // It may have been replaced in the middle, also by one with the
            // same fd.
            if result.is_ok() || (self.inner.get() == before && before.fd() == inner) {
                return result;
            }
        }
    }

    /// Its own descriptor was closed; this one is a duplicate.
    pub fn rebind_fd(&self, fd: RawFd) {
        self.fd.store(fd, Ordering::Relaxed);
    }

    /// How many events it has, at least and roughly; for queues that watch
    /// this one.
    pub fn pending(&self) -> i64 {
        self.active.load(Ordering::Relaxed).max(1)
    }

    /// Wakes all that wait, to see that it is closed.
    pub fn closing(&self) {
        // A thread that takes the lock after this sees it, and does not wait.
        self.closed.store(true, Ordering::Release);
        let mut state = self.state.lock();
        // A forked child has none of the threads, and its parent's timerfd.
        let is_here = self.is_here();
        if let Some(state) = state.as_mut().filter(|state| is_here && state.waiters.waiting() > 0) {
            state.sources.timers.alarm();
        }
    }

    /// Replaces the epoll that everything is in, to be rid of what is there
    /// and cannot be reached any more.
    pub(super) fn rebuild(&self, state: &mut QueueState) -> std::result::Result<(), Errno> {
        // What it takes to have those that wait come to the new one.
        state.waiters.expect_retired().map_err(|_| Errno::ENOMEM)?;
        let fresh = EpollSet::new()?;
        let inner = fresh.inner();
        epoll::add(self.fd(), inner, epoll_set::IN, 0)?;
        let old = state.move_quietly_to(fresh)?;
        self.inner.set(state.sources.set.identity());
        // It goes with the last thread that waits in it, at the latest.
        let _ = epoll::delete(self.fd(), old.inner());
        if state.waiters.retire(old) {
            state.sources.timers.alarm();
        }
        Ok(())
    }

    /// Closes the descriptors that are still this queue's. A program that
    /// closes all descriptors may have closed them, and another file may have
    /// them by now.
    pub(super) fn release(&self, state: &mut Option<QueueState>) {
        let fd = self.fd.swap(-1, Ordering::Relaxed);
        if fd < 0 {
            return;
        }
        let inner = self.inner.get();
        // Not what was known a moment ago.
        if inner.is_intact() && self.verify_fd(fd).is_ok() {
            drop(Fd::owned(fd));
        }
        match state {
            Some(state) => {
                let is_here = self.is_here();
                state.sources.aio.leave(&mut state.store, is_here);
            }
            None if inner.is_intact() => drop(Fd::owned(inner.fd())),
            None => {}
        }
        *state = None;
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.release(&mut self.state.lock());
    }
}
