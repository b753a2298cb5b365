//! How a process ended.

use crate::sys::pidfd::Usage;
use std::ffi::c_int;

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
    pub(super) fn report(&self) -> ProcessEnd {
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
