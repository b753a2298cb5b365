//! What is yet to be done for trees.

use super::path::join;
use super::queue::InotifyQueue;
use super::types::{ENTERED, ENTRIES};
use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::fd::Fd;
use crate::util::alloc::{TryDeque, TryMap};
use std::collections::VecDeque;

/// Something to be done for a tree.
pub(super) struct Scan {
    pub watcher: u32,
    /// What is in the directory is reported as new.
    pub reports_new: bool,
    pub step: ScanStep,
}

pub(super) enum ScanStep {
    /// A directory is to be watched, which has this name in another one.
    Enter(i32, Box<[u8]>),
    /// One that is watched is to be read.
    Read(i32),
    /// More of what was taken out of the tree is to be forgotten.
    Forget,
}

/// A directory that is being read.
pub(super) struct DirectoryRead {
    pub watcher: u32,
    pub reports_new: bool,
    pub watch: i32,
    pub directory: Fd,
    /// What inotify has queued of its entries, up to this place: whether the
    /// first of that is that they are new.
    pub reported: Map<Box<[u8]>, bool>,
    pub until: u64,
    /// Some of its entries were reported as new.
    pub has_begun: bool,
}

impl DirectoryRead {
    /// Whether inotify reports an entry as new first.
    pub fn arrives(&self, name: &[u8]) -> bool {
        self.reported.get(name).copied().unwrap_or_default()
    }

    /// Finds what inotify has queued of it since.
    pub fn look_at(&mut self, queue: &InotifyQueue) -> Result<(), Errno> {
        for event in queue.behind(self.until) {
            self.until = event.end;
            if event.watch != self.watch || event.mask & ENTRIES == 0 {
                continue;
            }
            if !self.reported.contains_key(&event.name) {
                self.reported.try_put(join(&event.name, b"")?, event.mask & ENTERED != 0)?;
            }
        }
        Ok(())
    }
}

/// What is yet to be done for trees.
#[derive(Default)]
pub(super) struct Backlog {
    pub scans: VecDeque<Scan>,
    pub reading: Option<DirectoryRead>,
    /// Of a tree that is added, or watched again after a fork: where
    /// something is short none of it is watched.
    pub is_strict: bool,
    pub failure: Option<Errno>,
}

impl Backlog {
    pub fn strict() -> Self {
        Self { is_strict: true, ..Self::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.scans.is_empty() && self.reading.is_none()
    }

    pub fn failure(&self) -> Option<Errno> {
        self.failure
    }

    pub fn push(&mut self, scan: Scan) -> Result<(), Errno> {
        Ok(self.scans.try_push_back(scan)?)
    }

    /// Has directories of this watcher be forgotten before all else; false:
    /// there is no memory to note that.
    pub fn forget_first(&mut self, id: u32) -> bool {
        let has_room = self.scans.try_reserve(1).is_ok();
        if has_room {
            self.scans.push_front_reserved(Scan {
                watcher: id,
                reports_new: false,
                step: ScanStep::Forget,
            });
        }
        has_room
    }

    /// Nothing is to be found for this watcher any more.
    pub fn drop_watcher(&mut self, id: u32) {
        self.scans.retain(|scan| scan.watcher != id || matches!(scan.step, ScanStep::Forget));
        self.reading.take_if(|reading| reading.watcher == id);
    }

    /// In a forked child, which may have closed what is being read: another
    /// file may have its fd.
    pub fn abandon(&mut self) {
        std::mem::forget(self.reading.take());
        *self = Self::default();
    }
}

/// A name in a directory of a watcher's tree.
pub(super) struct Renamed {
    pub watcher: u32,
    pub parent: i32,
    pub name: Box<[u8]>,
}
