//! Changes of a loop's registrations that other threads' commands come into: a
//! new descriptor, and one that is lost.

use super::command::RegisteredAs;
use super::slot::WatcherSlot;
use super::source::io_epoll::{is_ours, register};
use super::state::LoopState;
use crate::errno::{Errno, Result};
use std::os::fd::RawFd;

impl LoopState {
    /// Registers a new watcher's descriptor, on the loop's thread.
    pub fn io_register(&mut self, fd: RawFd, events: u32, handle: i64) -> Result<RegisteredAs> {
        let shared = self.ctx.shared;
        loop {
            let registered = register(shared, self.ctx.epoll(), fd, events, handle)?;
            if shared.has_commands() {
                // Another thread has only just added, or closed, another one.
                self.apply_commands(&mut shared.lock_commands());
                match registered {
                    RegisteredAs::Alone(_) => return self.io.unsure(&mut self.ctx, fd, events),
                    RegisteredAs::Shared if self.io.first(fd).is_none() => continue,
                    _ => {}
                }
            }
            return match (registered, self.io.first(fd)) {
                (RegisteredAs::Shared, None) => is_ours(fd),
                (RegisteredAs::Shared, Some(_)) => {
                    self.io.may_join(fd, events, 0).map(|()| registered)
                }
                _ => Ok(registered),
            };
        }
    }

    /// Replaces the loop's epoll by a new one, without the registrations that
    /// no watcher has and that cannot be removed. If this fails, the loop
    /// tries again when it notices them again.
    pub fn rebuild(&mut self) {
        self.io.stale_rounds = 0;
        let shared = self.ctx.shared;
        let mut command_queue = shared.lock_commands();
        self.apply_commands(&mut command_queue);
        if !self.ctx.has_own_epoll(&mut command_queue) {
            return;
        }
        for fd in 0..self.io.limit() {
            self.io.verify(&mut self.ctx, fd);
        }
        let Ok(fresh) = self.ctx.fresh_epoll() else { return };
        for clock in 0..crate::event_loop::own_words::CLOCKS {
            let fd = self.timers.clock(clock).fd.as_ref().map(|fd| fd.raw());
            if fd.is_some_and(|fd| self.timers.register_clock(fresh.raw(), clock, fd).is_err()) {
                return;
            }
        }
        if self
            .signals
            .register(fresh.raw())
            .and(self.files.register(&self.ctx, fresh.raw()))
            .is_err()
        {
            return;
        }
        self.io.lost(&mut self.ctx, fresh.raw(), Errno::EBADF);
        let raw = fresh.raw();
        if self.io.register_all(&mut self.ctx, raw).is_ok() && self.ctx.replace_epoll(fresh).is_ok()
        {
            self.io.all_are_registered();
            command_queue.epoll = raw;
        }
        drop(command_queue);
        // A thread that closed an object may have woken the loop in the epoll
        // before.
        self.fd_sources.check(&mut self.ctx, &mut self.io);
    }

    /// Looks whether a watcher's descriptor is still the one that was
    /// registered.
    pub fn io_check(&mut self, slot: &WatcherSlot) {
        let Some(fd) = self.io.missing(&self.ctx, slot) else { return };
        // Or another thread has closed a watcher of it, and removed its
        // registration: that is known with the command queue's lock.
        let shared = self.ctx.shared;
        let mut command_queue = shared.lock_commands();
        self.apply_commands(&mut command_queue);
        let is_there = self.io.verify(&mut self.ctx, fd);
        drop(command_queue);
        if !is_there {
            self.rebuild();
        }
    }
}
