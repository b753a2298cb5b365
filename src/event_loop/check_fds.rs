//! Finding descriptors that were closed, or replaced, while they are watched:
//! EVLOOP_CHECK_FDS.
//!
//! Registering a descriptor once more is refused as long as it is the one that
//! is registered, and arms nothing. Where the kernel takes it, the fd is
//! another file by now.

use super::event::CHECK_FDS;
use super::slot::WatcherSlot;
use super::slot::view;
use super::source::io_slot;
use super::state::LoopState;
use crate::errno::{self, Errno, Error, Value};
use crate::handle::Kind;
use crate::sys::epoll;
use std::os::fd::RawFd;

impl LoopState {
    /// Checks all descriptors that are watched. What was lost fails its
    /// watchers.
    #[cold]
    pub fn check_fds(&mut self) {
        let shared = self.ctx.shared;
        // With the lock no other thread removes a registration during this.
        let mut command_queue = shared.lock_commands();
        self.apply_commands(&mut command_queue);
        let mut is_lost = false;
        for fd in 0..self.io.limit() {
            is_lost |= self.is_replaced(fd);
        }
        drop(command_queue);
        self.io.not_pollable.verify_all(&mut self.ctx);
        if is_lost {
            // The kernel may still have the old file, under its old fd.
            self.rebuild();
        }
    }

    pub fn checks_fds(&self) -> bool {
        self.options & CHECK_FDS != 0
    }

    fn is_replaced(&mut self, fd: RawFd) -> bool {
        let Some((index, first)) = self.io.first(fd) else { return false };
        if !io_slot::has_registration(first) {
            return false;
        }
        let word = first.handle(Kind::Watcher, index).cast_unsigned();
        let is_replaced = match epoll::add(self.ctx.epoll(), fd, 0, word) {
            Ok(()) => {
                let _ = epoll::delete(self.ctx.epoll(), fd);
                true
            }
            Err(Errno::EBADF | Errno::EPERM) => true,
            // It is the one that is registered; or that cannot be found out.
            Err(_) => false,
        };
        if is_replaced {
            self.io.lost(&mut self.ctx, fd, Errno::EBADF);
        }
        is_replaced
    }

    /// Has evloop_last_error() say whose descriptor was lost.
    #[cold]
    pub fn explain_loss(&self, handle: i64, slot: &WatcherSlot) {
        const NAMELESS: &str = "fd {} was closed, or is another file by now; watcher {} watched it";
        const NAMED: &str =
            "fd {} was closed, or is another file by now; watcher {} '{}' watched it";
        let fd = view::fd_of(slot);
        let command_queue = self.ctx.shared.lock_commands();
        let _ = match command_queue.names.get(&handle) {
            None => Error::new(Errno::EBADF, NAMELESS, &[fd.into(), handle.into()]),
            Some(name) => {
                Error::new(Errno::EBADF, NAMED, &[fd.into(), handle.into(), Value::name(name)])
            }
        };
        errno::record("evloop_run");
    }
}
