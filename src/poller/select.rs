//! select(2) with lists, on ppoll(2): no FD_SETSIZE.

use crate::errno::{Errno, Result, error, fail};
use crate::sys::clock::Deadline;
use crate::sys::poll::{entry, ppoll, revents};
use crate::waiters::interrupted;
use std::os::fd::RawFd;

/// What each list asks poll for, and what counts as ready for it: the
/// kernel's own table (POLLIN_SET and its fellows in fs/select.c).
pub(super) const READ: Interest = Interest {
    asked: (libc::POLLIN | libc::POLLRDNORM | libc::POLLRDBAND) as u32,
    also: (libc::POLLHUP | libc::POLLERR) as u32,
};
pub(super) const WRITE: Interest = Interest {
    asked: (libc::POLLOUT | libc::POLLWRNORM | libc::POLLWRBAND) as u32,
    also: libc::POLLERR as u32,
};
const EXCEPT: Interest = Interest { asked: libc::POLLPRI as u32, also: 0 };

#[derive(Clone, Copy)]
pub(super) struct Interest {
    pub asked: u32,
    also: u32,
}

impl Interest {
    pub fn is_met(self, revents: u32) -> bool {
        revents & (self.asked | self.also) != 0
    }
}

/// Waits and cuts the lists (read, write, except) down to what is ready; how
/// many entries are left.
pub(crate) fn select(mut lists: [&mut Vec<RawFd>; 3], timeout_ns: i64) -> Result<usize> {
    let deadline = Deadline::after(timeout_ns);
    let mut fds = entries(&lists)?;
    let ready = loop {
        match ppoll(&mut fds, deadline.left_ns()) {
            Ok(0) if !deadline.passed() => {}
            Ok(ready) => break ready,
            Err(Errno::EINTR) => interrupted()?,
            Err(Errno::EINVAL) => {
                let count = fds.len() as i64;
                fail!(EINVAL, "{} descriptors are more than RLIMIT_NOFILE", count);
            }
            Err(errno) => return Err(errno.into()),
        }
    };
    if let Some(closed) = fds.iter().find(|polled| revents(polled) & libc::POLLNVAL as u32 != 0) {
        return Err(error!(Errno::EBADF, "fd {} is not open", closed.fd));
    }
    for (list, interest) in lists.iter_mut().zip([READ, WRITE, EXCEPT]) {
        list.retain(|fd| ready > 0 && interest.is_met(answer(&fds, *fd)));
    }
    Ok(lists.iter().map(|list| list.len()).sum())
}

/// One entry for each distinct descriptor, in order: duplicates must not
/// count against RLIMIT_NOFILE.
fn entries(lists: &[&mut Vec<RawFd>; 3]) -> Result<Vec<libc::pollfd>> {
    let mut fds = Vec::new();
    let total = lists.iter().map(|list| list.len()).sum();
    if fds.try_reserve_exact(total).is_err() {
        fail!(ENOMEM, "no memory to poll {} descriptors", total as i64);
    }
    for (list, interest) in lists.iter().zip([READ, WRITE, EXCEPT]) {
        for fd in list.iter() {
            if *fd < 0 {
                fail!(EBADF, "fd {} is negative", *fd);
            }
            fds.push(entry(*fd, interest.asked));
        }
    }
    fds.sort_unstable_by_key(|polled| polled.fd);
    fds.dedup_by(|later, first| {
        let same = later.fd == first.fd;
        if same {
            first.events |= later.events;
        }
        same
    });
    Ok(fds)
}

fn answer(fds: &[libc::pollfd], fd: RawFd) -> u32 {
    let place = fds.partition_point(|polled| polled.fd < fd);
    fds.get(place).map_or(0, revents)
}
