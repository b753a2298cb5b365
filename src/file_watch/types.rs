//! What is asked of the file watchers, and what they report.

use crate::errno::Errno;
use std::os::fd::RawFd;

/// The bits of events that inotify does not have, or that are asked for.
pub(crate) const ERROR: u32 = 0x100_0000;
pub(crate) const REPLACED: u32 = 0x1_0000;
pub(crate) const GONE: u32 = 0x2_0000;
pub(super) const ENTERED: u32 = libc::IN_CREATE | libc::IN_MOVED_TO;
pub(super) const MOVED: u32 = libc::IN_MOVED_FROM | libc::IN_MOVED_TO;
/// What changes the entries of a directory.
pub(super) const ENTRIES: u32 = libc::IN_CREATE | libc::IN_DELETE | MOVED;

/// How many events are taken at a time, and how many wait for a watcher.
pub(super) const AT_A_TIME: usize = 1024;
pub(super) const WAITING: usize = 8192;

/// How long after there was no memory for something it is tried again.
pub(crate) const LATER_NS: i64 = 10_000_000;

/// What is to be watched.
#[derive(Clone, Copy)]
pub(crate) struct WatchRequest<'a> {
    pub root: WatchRoot<'a>,
    pub mask: u32,
    /// IN_ONLYDIR and IN_DONT_FOLLOW.
    pub flags: u32,
    pub recursive: bool,
    /// What has the path is watched, whatever that is.
    pub follows: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum WatchRoot<'a> {
    Path(&'a [u8]),
    Descriptor(RawFd),
}

/// An event for a watcher.
pub(crate) struct FileEvent {
    /// Their order.
    pub number: u64,
    /// Bits of inotify, or ERROR.
    pub mask: u32,
    /// With ERROR.
    pub errno: Option<Errno>,
    /// The path below what is watched; empty: that itself.
    pub name: Box<[u8]>,
    /// With both halves of a rename: what it was before.
    pub old_name: Box<[u8]>,
}

impl FileEvent {
    /// Whether it is the last one of its watcher.
    pub fn is_last(&self) -> bool {
        self.mask & libc::IN_IGNORED != 0
    }
}

/// When there is more to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// When inotify has events.
    Nothing,
    Now,
    /// At this time of CLOCK_MONOTONIC.
    At(i64),
}
