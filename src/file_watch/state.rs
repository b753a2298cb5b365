//! What the file watchers of a loop know.

use super::backlog::{Backlog, Renamed, Scan};
use super::node::DirectoryNode;
use super::places::Follow;
use super::queue::InotifyQueue;
use super::subscribers::InotifyWatch;
use super::types::FileEvent;
use crate::hash::Map;
use crate::sys::fd::Fd;
use crate::sys::{clock, file, fork};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// A file watcher.
pub(super) struct Watcher {
    /// In the order in which they were added.
    pub(super) serial: u64,
    pub(super) mask: u32,
    pub(super) flags: u32,
    pub(super) recursive: bool,
    /// It follows its path.
    pub(super) follow: Option<Follow>,
    /// Of what is watched; absolute.
    pub(super) path: Box<[u8]>,
    /// The watch of that; -1: it is gone.
    pub(super) root: i32,
    pub(super) nodes: Map<i32, DirectoryNode>,
    /// The first of those that are to be forgotten, which are linked; -1:
    /// none.
    pub(super) forgotten: i32,
    /// While they are looked for again: those that there were before.
    pub(super) before: Option<Map<i32, DirectoryNode>>,
    /// What waits for it, in order.
    pub(super) kept: VecDeque<FileEvent>,
    /// It was too much, or there was no memory for it.
    pub(super) has_lost: bool,
    /// Its end was among that.
    pub(super) has_ended: bool,
    /// It is among those that are to get what was kept.
    pub(super) resumes: bool,
}

/// What is yet to be watched of a tree that is being added.
pub(crate) struct PendingTree(pub(super) Backlog);

/// All file watchers of a loop.
#[derive(Default)]
pub(crate) struct Files {
    pub(super) inotify: Option<Fd>,
    pub(super) watches: Map<i32, InotifyWatch>,
    /// By the numbers of their records.
    pub(super) watchers: Map<u32, Watcher>,
    pub(super) queue: InotifyQueue,
    /// Directories that are yet to be watched and read.
    pub(super) backlog: Backlog,
    /// Those that wait for what inotify has yet to report of others, how many
    /// events came since they were looked for, and whether some were renames.
    pub(super) unresolved_moves: VecDeque<Scan>,
    pub(super) since_retry: usize,
    pub(super) has_moved: bool,
    /// Names that renames have changed, to be looked up.
    pub(super) renamed: VecDeque<Renamed>,
    /// Watchers whose trees are read again.
    pub(super) rescanning: Vec<u32>,
    /// How many watchers there were.
    pub(super) serials: u64,
    /// Something could not be followed, as if inotify had lost it.
    pub(super) lost: bool,
    /// Some watchers have lost events for want of memory.
    pub(super) overflowed: bool,
    /// How many watches were removed since the queue was last read to its
    /// end, and those that are to be.
    pub(super) unwatched: usize,
    pub(super) pending_removals: Vec<i32>,
    /// Watchers that are to get what was kept for them, each once.
    pub(super) resuming: VecDeque<u32>,
    /// Events to be delivered, and the watcher of each.
    pub(super) outgoing: VecDeque<(u32, FileEvent)>,
    pub(super) numbers: u64,
    /// The process that has made the inotify.
    pub(super) made_in: fork::Epoch,
}

impl Files {
    pub fn descriptor(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(Fd::raw)
    }

    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Its number, unless the program has closed it.
    pub(super) fn raw(&self) -> RawFd {
        self.inotify.as_ref().and_then(Fd::check).unwrap_or(-1)
    }

    /// An event of nothing in particular.
    pub(super) fn number(&mut self, mask: u32) -> FileEvent {
        self.numbers += 1;
        let (name, old_name) = (Box::default(), Box::default());
        FileEvent { number: self.numbers, mask, errno: None, name, old_name }
    }

    pub(super) fn read_ahead(&mut self) {
        let inotify = self.raw();
        self.queue.read_ahead(inotify, clock::now_ns());
    }

    /// Whether all events of inotify were handled.
    pub(super) fn is_drained(&self) -> bool {
        self.queue.is_empty() && file::readable(self.raw()) == Ok(0)
    }

    /// Where inotify's queue ends now.
    pub(super) fn end_of_queue(&self) -> u64 {
        self.queue.end(self.raw())
    }
}

impl Watcher {
    pub(super) fn has_kept(&self) -> bool {
        !self.kept.is_empty() || self.has_lost || self.has_ended
    }
}
