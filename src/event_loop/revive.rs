//! A loop's copy in a forked child: what it shares with the parent process is
//! made again.
//!
//! Every step can be done again, and descriptors of an attempt that failed
//! are closed by the next one: until all succeed the loop stays the parent's.

use super::command::CommandQueue;
use super::flags::CLOSED_ON_STACK;
use super::own_fds::{OwnFd, give_up};
use super::own_words::{CLOCKS, INTERNAL};
use super::ownership::Locked;
use super::shared::UNKNOWN;
use super::slot::{CLOSING, WatcherSlot};
use super::source::ctx::woken_by;
use super::state::LoopState;
use crate::errno::Result;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{epoll, eventfd, fork};

/// The loop's own descriptors, made for a child. Dropped they are closed.
struct NewFds {
    eventfd: Fd,
    epoll: Fd,
    outer: Option<Fd>,
    clocks: [Option<Fd>; CLOCKS],
    signalfd: Option<Fd>,
    inotify: Option<Fd>,
}

impl LoopState {
    /// Makes everything again that is shared with the parent process. If this
    /// fails nothing is lost, and it can be tried again.
    pub fn revive(&mut self, command_queue: &mut Locked<CommandQueue>) -> Result<()> {
        let fresh = self.fresh_descriptors()?;
        let inotify = self.adopt_descriptors(fresh);
        self.ctx.in_callback = command_queue.running;
        if !command_queue.running {
            self.current = 0;
            self.ctx.collecting = false;
            self.ctx.shared.time.store(UNKNOWN, Relaxed);
            self.timers.settle(&mut self.ctx);
        }
        self.apply_commands(command_queue);
        self.asyncs.find_sent(&mut self.ctx);
        self.finish_closing();
        // Before they are registered: those that are not what they were are
        // not, and some put another file in the place of the parent's.
        self.fd_sources.revive(&mut self.ctx, &mut self.io)?;
        let epoll = self.ctx.epoll();
        self.io.register_all(&mut self.ctx, epoll)?;
        self.io.all_are_registered();
        self.signals.revive(&mut self.ctx)?;
        self.files.revive(&mut self.ctx, inotify)
    }

    /// Watchers that were closed in the child before, or that a thread of the
    /// parent's was about to close.
    fn finish_closing(&mut self) {
        let mut position = usize::MAX;
        // One that is on the stack of those sent to is freed when it is taken
        // off.
        let is_on_stack = |slot: &WatcherSlot| slot.is_pending() && slot.has(CLOSED_ON_STACK);
        let is_closed = |slot: &WatcherSlot| slot.state() == CLOSING && !is_on_stack(slot);
        while let Some((next, index, slot)) = self.ctx.slots.find_before(position, is_closed) {
            position = next;
            self.finish_close(index, slot, true);
        }
    }

    fn fresh_descriptors(&mut self) -> Result<NewFds> {
        let eventfd = eventfd::create(1)?;
        let epoll = woken_by(&eventfd)?;
        let outer = match &self.ctx.outer {
            Some(_) => {
                let outer = epoll::create()?;
                epoll::add(outer.raw(), epoll.raw(), libc::EPOLLIN as u32, INTERNAL)?;
                Some(outer)
            }
            None => None,
        };
        let clocks = self.timers.fresh_clocks(epoll.raw())?;
        let signalfd = self.signals.fresh_signalfd(epoll.raw())?;
        let inotify = self.files.fresh_inotify(&self.ctx, epoll.raw())?;
        Ok(NewFds { eventfd, epoll, outer, clocks, signalfd, inotify })
    }

    /// Puts new descriptors in the place of the old ones; the inotify, which
    /// is not used yet.
    fn adopt_descriptors(&mut self, fresh: NewFds) -> Option<Fd> {
        let NewFds { eventfd, epoll, outer, clocks, signalfd, inotify } = fresh;
        let is_ours = self.made_in == fork::current();
        for (which, fd) in [
            (OwnFd::Eventfd, Some(&eventfd)),
            (OwnFd::Epoll, Some(&epoll)),
            (OwnFd::Outer, outer.as_ref()),
            (OwnFd::Signalfd, signalfd.as_ref()),
            (OwnFd::Inotify, inotify.as_ref()),
        ] {
            self.io.claim_fd(&mut self.ctx, which, fd.map_or(-1, Fd::raw));
        }
        give_up(Some(std::mem::replace(&mut self.ctx.epoll, epoll)), is_ours);
        give_up(Some(std::mem::replace(&mut self.ctx.eventfd, eventfd)), is_ours);
        give_up(std::mem::replace(&mut self.ctx.outer, outer), is_ours);
        give_up(self.signals.replace_signalfd(signalfd), is_ours);
        self.timers.replace_clocks(&mut self.ctx, &mut self.io, clocks, is_ours);
        self.made_in = fork::current();
        inotify
    }
}
