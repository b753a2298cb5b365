//! Busy polling of network devices' queues: a setting of the loop's epoll.

use crate::errno::{Errno, Result, error};
use crate::event_loop::resolve::resolve;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll::{self, BusyPoll};

/// See evloop_set_busy_poll.
pub(crate) fn set_busy_poll(handle: i64, setting: BusyPoll) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let command_queue = resolved.lock()?;
    epoll::set_busy_poll(command_queue.epoll, setting).map_err(|errno| explain(errno, setting))?;
    // For the sets that take the place of this one.
    resolved.shared.busy_poll.store(setting.pack(), Relaxed);
    Ok(())
}

fn explain(errno: Errno, setting: BusyPoll) -> crate::errno::Error {
    match errno {
        Errno::ENOTSUP => error!(errno, "this kernel cannot busy-poll for an epoll"),
        Errno::EPERM => {
            error!(
                errno,
                "a budget of {} is not allowed to this process",
                i64::from(setting.budget)
            )
        }
        errno => errno.into(),
    }
}
