//! Queues in a forked child.
//!
//! The epolls are shared with the parent: what the child changes there, it
//! changes for the parent. So a queue is not the child's, as on BSD; its
//! descriptors are closed there. One that was made to be kept gets epolls of
//! its own, by the first call in the child.

use super::epoll_set::{self, EpollSet};
use super::event::FILTER_SIGNAL;
use super::filter;
use super::queue::Queue;
use super::queue_waiters::QueueWaiters;
use super::registration::NO_WATCHES;
use super::source::signal::DETACHED;
use super::source::timer::Timerfds;
use super::state::QueueState;
use crate::errno::{Error, Result, fail};
use crate::sync::Ordering;
use crate::sys::fd;
use crate::sys::{epoll, fork};

impl Queue {
    /// First call in a child, with no other thread in the library.
    pub(super) fn after_fork(&self) {
        let mend = |state: Option<&mut Option<QueueState>>| match state {
            Some(state) => {
                if !self.keep {
                    self.release(state);
                }
                None
            }
            // Another thread was changing it: it is left where it is.
            None => {
                let mut nothing = None;
                if !self.keep {
                    self.release(&mut nothing);
                }
                Some(nothing)
            }
        };
        // SAFETY: the handle table calls this with no other thread in the
        // library.
        unsafe { self.state.recover(mend) };
    }

    /// Whether a fork caught it in the middle of a change.
    pub(super) fn is_lost(&self) -> bool {
        self.state.lock().is_none()
    }

    /// It was being closed when the process forked, or this is what is left
    /// of a wait that came back in the child.
    pub(super) fn abandon(&self) {
        let mut state = self.state.lock();
        self.release(&mut state);
    }

    /// Gives a queue that is kept all that it needs of the kernel's, if it is
    /// the parent's or was not to be had until now.
    #[inline]
    pub(super) fn revive(&self, state: &mut QueueState) -> Result<()> {
        if !self.is_here() {
            self.replace_epolls(state)?;
        }
        if state.is_reviving { state.renew() } else { Ok(()) }
    }

    /// Gives it epolls of this process's own, under the same number. On
    /// failure it is as before.
    #[cold]
    fn replace_epolls(&self, state: &mut QueueState) -> Result<()> {
        let fd = self.fd();
        if self.verify_fd(fd).is_err() {
            fail!(EBADF, "the queue's fd {} was closed after the fork", fd);
        }
        let public = epoll::create()?;
        let mut fresh = EpollSet::new()?;
        epoll::add(public.raw(), fresh.inner(), epoll_set::IN, 0)?;
        let timers = state.sources.timers.fresh(&fresh)?;
        state.copy_registrations(&mut fresh)?;
        state.sources.processes.add_pidfds_to(&state.store, &fresh)?;
        fd::replace(&public, fd)?;
        self.inner.set(fresh.identity());
        self.epoch.store(fork::current(), Ordering::Relaxed);
        state.leave_parents(fresh, timers);
        Ok(())
    }
}

impl QueueState {
    /// Timerfds and inotify are the parent's, and so are the threads that
    /// wait.
    fn leave_parents(&mut self, fresh: EpollSet, timers: Timerfds) {
        self.sources.aio.leave(&mut self.store, false);
        self.sources.timers.replace(timers);
        self.sources.vnode.clear();
        self.sources.mounts.clear();
        self.sources.netlink.fd = None;
        self.sources.signals.drop_fds();
        self.sources.processes.connector = None;
        self.waiters = QueueWaiters::new();
        self.stale_events = 0;
        self.removed_before = self.store.registrations.removed();
        let mut cursor = 0;
        while let Some(id) = self.store.registrations.next_from(cursor) {
            cursor = id + 1;
            if let Some(registration) = self.store.registrations.get_mut(id) {
                registration.role_watch = NO_WATCHES;
            }
        }
        self.sources.set = fresh;
        self.is_reviving = true;
        // What fails here is attached later.
        let _ = self.sources.signals.renew_watches(&mut self.store, &self.sources.set);
    }

    /// What a queue needs besides epolls: each is made once, and what could
    /// not be had is asked for again by the next call.
    #[cold]
    fn renew(&mut self) -> Result<()> {
        self.attach_signals()?;
        self.sources.processes.renew_connector(&mut self.store, &self.sources.set)?;
        self.renew_vnode_watches()?;
        self.sources.mounts.renew(&self.sources.set)?;
        self.sources.netlink.renew(&mut self.store, &self.sources.set, filter::linked)?;
        self.is_reviving = false;
        Ok(())
    }

    /// Attaches those signals that could not be watched yet.
    fn attach_signals(&mut self) -> Result<()> {
        let mut cursor = 0;
        while let Some(id) = self.store.knotes.next_from(cursor) {
            cursor = id + 1;
            let knote = self.store.knotes.get(id).filter(|knote| knote.filter == FILTER_SIGNAL);
            if knote.is_some_and(|knote| knote.state == DETACHED) {
                self.sources.signals.attach(&mut self.store, &self.sources.set, id)?;
            }
        }
        Ok(())
    }

    fn renew_vnode_watches(&mut self) -> Result<()> {
        let mut cursor = 0;
        while let Some(id) = self.store.registrations.next_from(cursor) {
            cursor = id + 1;
            self.refresh_vnode_watches(id, None).map_err(Error::from)?;
        }
        Ok(())
    }
}
