//! Queues in a forked child.
//!
//! The epolls are shared with the parent: what the child changes there, it
//! changes for the parent. So a queue is not the child's, as on BSD; its
//! descriptors are closed there. One that was made to be kept gets epolls of
//! its own, by the first call in the child.

use super::Queue;
use super::core::Core;
use super::notes::NOT_NOTED;
use super::set::{self, Set};
use crate::errno::{Error, Result, fail};
use crate::sync::Ordering;
use crate::sys::fd;
use crate::sys::{epoll, eventfd, fork};

impl Queue {
    /// First call in a child, with no other thread in the library.
    pub(super) fn after_fork(&self) {
        let mend = |core: Option<&mut Option<Core>>| match core {
            Some(core) => {
                if !self.keep {
                    self.release(core);
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
        unsafe { self.core.recover(mend) };
    }

    /// Whether a fork caught it in the middle of a change.
    pub(super) fn is_lost(&self) -> bool {
        self.core.lock().is_none()
    }

    /// It was being closed when the process forked, or this is what is left
    /// of a wait that came back in the child.
    pub(super) fn abandon(&self) {
        let mut core = self.core.lock();
        self.release(&mut core);
    }

    /// Gives a queue that is kept epolls of this process's own, under the
    /// same number.
    pub(super) fn revive(&self, core: &mut Core) -> Result<()> {
        let number = self.number();
        if self.ask_behind(number).is_err() {
            fail!(EBADF, "the queue's fd {} was closed after the fork", number);
        }
        // As in `create`.
        eventfd::always_readable()?;
        let public = epoll::create()?;
        let fresh = Set::new()?;
        epoll::add(public.raw(), fresh.main(), set::IN, 0)?;
        core.leave_parents();
        // Not closed before the number is this process's.
        let _old = core.move_to(fresh)?;
        fd::replace(&public, number)?;
        self.main.set(core.set.identity());
        self.epoch.store(fork::current(), Ordering::Relaxed);
        core.renew_watches()?;
        core.renew_connector();
        core.renew_notes()?;
        core.renew_mounts()?;
        Ok(core.renew_links()?)
    }
}

impl Core {
    /// Timerfds and inotify are the parent's, and so are the threads that
    /// wait.
    fn leave_parents(&mut self) {
        self.leave_operations(false);
        self.timers.forget_fds();
        self.notes.clear();
        self.mounts.clear();
        self.links.fd = None;
        self.signals.drop_fds();
        self.processes.connector = None;
        self.retired.clear();
        self.leaving = 0;
        let mut at = 0;
        while let Some(id) = self.registrations.next_from(at) {
            at = id + 1;
            if let Some(registration) = self.registrations.get_mut(id) {
                registration.noted = NOT_NOTED;
            }
        }
    }

    fn renew_notes(&mut self) -> Result<()> {
        let mut at = 0;
        while let Some(id) = self.registrations.next_from(at) {
            at = id + 1;
            self.refresh_notes(id).map_err(Error::from)?;
        }
        Ok(())
    }
}
