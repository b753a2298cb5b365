//! Registering descriptors with a loop's epoll, by any thread.

use crate::errno::{Errno, Error, Result, error, fail};
use crate::event_loop::command::{Command, CommandQueue, RegisteredAs};
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot;
use crate::event_loop::slot::view::fd_of;
use crate::handle::{Handle, Kind};
use crate::sys::epoll;
use std::os::fd::RawFd;

fn explain(errno: Errno, fd: RawFd) -> Error {
    match errno {
        Errno::EBADF => error!(errno, "fd {} is not open", fd),
        Errno::EINVAL => error!(errno, "fd {} cannot be watched like that", fd),
        Errno::ELOOP => {
            error!(errno, "fd {} is an epoll that leads back here, or too deep or too often", fd)
        }
        errno => errno.into(),
    }
}

/// Registers a new watcher's descriptor; any thread may, with the command
/// queue's lock or the loop.
pub(in crate::event_loop) fn register(
    shared: &LoopShared,
    epoll: RawFd,
    fd: RawFd,
    events: u32,
    handle: i64,
) -> Result<RegisteredAs> {
    match epoll::add(epoll, fd, events, handle.cast_unsigned()) {
        Ok(()) if shared.own.has_unregistered(fd) => {
            let _ = epoll::delete(epoll, fd);
            is_ours(fd)
        }
        Ok(()) => Ok(RegisteredAs::Alone(events)),
        Err(errno) => not_alone(shared, fd, errno),
    }
}

/// The kernel takes none of the loop's own for another one.
#[cold]
fn not_alone(shared: &LoopShared, fd: RawFd, errno: Errno) -> Result<RegisteredAs> {
    match errno {
        // A watcher's own descriptor may be refused for these, too.
        Errno::ENOMEM | Errno::ENOSPC => Err(explain(errno, fd)),
        _ if shared.own.has(fd) => is_ours(fd),
        Errno::EEXIST => Ok(RegisteredAs::Shared),
        Errno::EPERM => Ok(RegisteredAs::NotPollable),
        errno => Err(explain(errno, fd)),
    }
}

pub(in crate::event_loop) fn is_ours<T>(fd: RawFd) -> Result<T> {
    fail!(EINVAL, "fd {} is the loop's own", fd)
}

/// Whether a change was refused because the descriptor is closed; or closed,
/// and the fd used again, perhaps for a file that no epoll takes.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::EBADF | Errno::ENOENT | Errno::EPERM)
}

/// The loop has removed the registration of a descriptor: perhaps that of a
/// watcher in here.
pub(super) fn on_deregistered(command_queue: &mut CommandQueue, fd: RawFd) {
    for command in &mut command_queue.commands {
        if let Command::AddIo(handle, registered) | Command::AddObject(handle, registered, _) =
            command
            && matches!(registered, RegisteredAs::Alone(_))
            && is_fd_of(*handle, fd)
        {
            *registered = RegisteredAs::Shared;
        }
    }
}

/// Whether a descriptor is that of a watcher, which may be closed already.
pub(super) fn is_fd_of(handle: i64, fd: RawFd) -> bool {
    let slot = Handle::unpack_as(handle, Kind::Watcher).and_then(|h| slot::get(h.index));
    slot.is_some_and(|slot| fd_of(slot) == fd)
}
