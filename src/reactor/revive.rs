//! A loop in a forked child: everything is made again that is shared with the
//! parent process.

use super::core::{Core, INTERNAL, woken_by};
use super::desk::{self, Gate};
use super::lease::Locked;
use super::own_fds::OwnFd;
use super::record::{CLOSING, Record};
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{epoll, eventfd, fork};

impl Core {
    /// Makes everything again that is shared with the parent process. With an
    /// error it can be called again, and goes on with what is left.
    pub fn revive(&mut self, gate: &mut Locked<Gate>) -> Result<()> {
        if self.made_in != fork::current() {
            self.revive_descriptors()?;
        }
        let inotify = self.fresh_inotify(self.epoll())?;
        self.in_callback = gate.running;
        if !gate.running {
            self.current = 0;
            self.collecting = false;
            self.desk.time.store(desk::UNKNOWN, Relaxed);
            self.settle();
        }
        self.receive(gate);
        self.finish_closing();
        // Before they are registered: those that are not what they were are
        // not, and some put another file in the place of the parent's.
        self.revive_objects()?;
        self.register_all(self.epoll())?;
        self.all_are_registered();
        self.revive_signals();
        self.revive_files(inotify);
        Ok(())
    }

    /// Watchers that a thread of the parent's was about to close.
    fn finish_closing(&mut self) {
        let mut place = usize::MAX;
        let is_closed = |record: &Record| record.state() == CLOSING && !record.is_sent();
        while let Some((next, index, record)) = self.slots.find_before(place, is_closed) {
            place = next;
            self.finish_close(index, record, true);
        }
    }

    /// The loop's own descriptors.
    fn revive_descriptors(&mut self) -> Result<()> {
        let eventfd = eventfd::create(1)?;
        let fresh = woken_by(&eventfd)?;
        let outer = match &self.outer {
            Some(_) => {
                let outer = epoll::create()?;
                epoll::add(outer.raw(), fresh.raw(), libc::EPOLLIN as u32, INTERNAL)?;
                Some(outer)
            }
            None => None,
        };
        self.revive_clocks(fresh.raw())?;
        self.fd_is_ours(OwnFd::Eventfd, eventfd.raw());
        self.fd_is_ours(OwnFd::Epoll, fresh.raw());
        self.fd_is_ours(OwnFd::Outer, outer.as_ref().map_or(-1, Fd::raw));
        let old = (
            std::mem::replace(&mut self.epoll, fresh),
            std::mem::replace(&mut self.eventfd, eventfd),
            std::mem::replace(&mut self.outer, outer),
        );
        // The child may have closed them, and use the numbers for others.
        std::mem::forget(old);
        self.made_in = fork::current();
        Ok(())
    }
}
