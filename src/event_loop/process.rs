//! Processes: a watcher has the pidfd of one, and its event is the last that
//! comes of it.

use super::api::watchers::add_fd_source;
use super::event::{Event, Target};
use super::fd_source::{FdSource, Readiness};
use super::flags::Source;
use super::own_fds::WatcherFd;
use super::payload::{self, EventPayload};
use super::resolve::resolve;
use crate::errno::{Errno, Result, fail};
use crate::handle::{self, Kind};
use crate::sys::fd::Fd;
use crate::sys::pidfd::{self, Usage};
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

/// How a process ended, and which resources it used.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ProcessEnd {
    /// The process id, which may be another process's by now.
    pub pid: c_int,
    /// EVLOOP_PROCESS_EXITED, KILLED, DUMPED; 0: not known.
    pub how: c_int,
    /// EXITED: what it returned from main or gave to exit(3), 0 to 255.
    /// KILLED, DUMPED: the signal that ended it. Else 0.
    pub status: c_int,
    /// 0.
    pub reserved: c_int,
    /// Processor time of its own, and of its children that it has waited
    /// for, in nanoseconds; -1: not known, as it was no child.
    pub user_ns: i64,
    /// The same, the system's on its behalf.
    pub system_ns: i64,
    /// The most memory that it had at a time, in bytes; -1: not known.
    pub max_rss: i64,
    /// 0; room for later versions.
    pub spare: [u64; 3],
}

const _: () = assert!(size_of::<ProcessEnd>() == 64);

/// How a process ended.
#[derive(Clone, Copy)]
pub(crate) struct Ended {
    pub pid: c_int,
    pub status: Option<c_int>,
    pub usage: Option<Usage>,
}

impl Ended {
    fn report(&self) -> ProcessEnd {
        let (how, status) = match self.status {
            None => (0, 0),
            Some(status) if libc::WIFEXITED(status) => {
                (libc::CLD_EXITED, libc::WEXITSTATUS(status))
            }
            Some(status) if libc::WCOREDUMP(status) => (libc::CLD_DUMPED, libc::WTERMSIG(status)),
            Some(status) => (libc::CLD_KILLED, libc::WTERMSIG(status)),
        };
        let usage = self.usage.unwrap_or(Usage { user_ns: -1, system_ns: -1, max_rss: -1 });
        ProcessEnd {
            pid: self.pid,
            how,
            status,
            reserved: 0,
            user_ns: usage.user_ns,
            system_ns: usage.system_ns,
            max_rss: usage.max_rss,
            spare: [0; 3],
        }
    }
}

/// See evloop_event_process.
pub(crate) fn event_process(event: &Event) -> Result<ProcessEnd> {
    match payload::of(event, Source::Process)? {
        EventPayload::Process(ended) => Ok(ended.report()),
        EventPayload::Signal(_) => payload::forgotten(event),
    }
}

/// See evloop_add_process.
pub(crate) fn add_process(handle: i64, pid: c_int, reap: bool, target: Target) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    let pidfd = WatcherFd::new(open(pid)?, &resolved.shared.own)?;
    if reap && pidfd::wait(pidfd.raw(), libc::WNOWAIT) == Err(Errno::ECHILD) {
        fail!(EPERM, "process {} is no child of this one, which cannot reap it", pid);
    }
    match handle::try_box(ProcessSource { pidfd, pid, reap }) {
        Some(process) => add_fd_source(handle, Source::Process, process, target),
        None => fail!(ENOMEM, "no memory to watch process {}", pid),
    }
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
