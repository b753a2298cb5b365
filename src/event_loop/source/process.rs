//! Processes: a watcher has the pidfd of one, and its event is the last that
//! comes of it.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::event::Event;
use crate::event_loop::fd_source::{FdSource, Readiness};
use crate::event_loop::own_fds::{OwnFds, WatcherFd};
use crate::event_loop::payload::EventPayload;
use crate::event_loop::process_end::Ended;
use crate::handle;
use crate::sys::fd::Fd;
use crate::sys::pidfd;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// The bit of an event's `events`: how it ended is not known.
pub(crate) const STATUS_UNKNOWN: u32 = 1;

struct ProcessSource {
    pidfd: WatcherFd,
    pid: c_int,
    /// It is waited for when it has ended.
    reap: bool,
}

fn open(pid: c_int) -> Result<Fd> {
    match pidfd::open(pid) {
        Ok(pidfd) => Ok(pidfd),
        // What has this number is a thread.
        Err(Errno::ESRCH | Errno::EINVAL | Errno::ENOENT) => {
            fail!(ESRCH, "there is no process {}", pid)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// What watches a process, for a loop with these descriptors of its own.
pub(in crate::event_loop) fn process_source(
    pid: c_int,
    reap: bool,
    own: &'static OwnFds,
) -> Result<Box<dyn FdSource>> {
    let pidfd = WatcherFd::new(open(pid)?, own)?;
    if reap && pidfd::wait(pidfd.raw(), libc::WNOWAIT) == Err(Errno::ECHILD) {
        fail!(EPERM, "process {} is no child of this one, which cannot reap it", pid);
    }
    match handle::try_box(ProcessSource { pidfd, pid, reap }) {
        Some(process) => Ok(process),
        None => fail!(ENOMEM, "no memory to watch process {}", pid),
    }
}

impl ProcessSource {
    fn end(&self) -> Ended {
        let waited = pidfd::wait(self.pidfd.raw(), libc::WNOWAIT).ok().flatten();
        let (status, usage) = match waited {
            Some((status, usage)) => (Some(status), Some(usage)),
            None => (pidfd::status(self.pidfd.raw(), self.pid), None),
        };
        Ended { pid: self.pid, status, usage }
    }
}

impl FdSource for ProcessSource {
    fn fd(&self) -> RawFd {
        self.pidfd.raw()
    }

    fn subject(&self) -> i64 {
        self.pid.into()
    }

    fn poll(&mut self, _ready: u32, event: &mut Event) -> Readiness {
        let ended = self.end();
        match ended.status {
            Some(status) => event.result = status,
            None => event.events = STATUS_UNKNOWN,
        }
        Readiness::Final(EventPayload::Process(ended), self.reap)
    }

    fn deliver(&mut self, event: &mut Event) -> Option<EventPayload> {
        // Other code of the program may have waited for it.
        let (status, usage) = pidfd::wait(self.pidfd.raw(), 0).ok().flatten()?;
        // Before Linux 5.17 WNOWAIT returns how the first thread ended, which
        // need not have been the last one to end.
        event.result = status;
        event.events &= !STATUS_UNKNOWN;
        let (status, usage) = (Some(status), Some(usage));
        Some(EventPayload::Process(Ended { pid: self.pid, status, usage }))
    }

    fn revive(&mut self) -> std::result::Result<(), Errno> {
        if pidfd::is_of(self.pidfd.raw(), self.pid)? {
            return Ok(());
        }
        self.pidfd.set_borrowed();
        Err(Errno::EBADF)
    }

    fn abandon(&self) {
        if pidfd::is_of(self.pidfd.raw(), self.pid) == Ok(true) {
            self.pidfd.close_now();
        }
    }
}
