//! The directories that a followed path leads through.

use super::queue::QueuedEvent;
use super::types::ENTRIES;
use crate::errno::Errno;

/// What a directory is watched for: what becomes of itself, and also of its
/// entries.
pub(super) const ITSELF: u32 = libc::IN_MOVE_SELF | libc::IN_DELETE_SELF;
pub(super) const BOTH: u32 = ITSELF | ENTRIES;

/// A directory on the route, and which of its entries the route uses.
#[derive(PartialEq, Eq)]
pub(super) struct RoutePlace {
    pub watch: i32,
    pub mask: u32,
    /// Empty: its entries are not watched.
    pub name: Box<[u8]>,
}

impl RoutePlace {
    /// Whether the route may be another one after this event.
    pub fn concerns(&self, event: &QueuedEvent) -> bool {
        event.watch == self.watch
            && if event.name.is_empty() {
                event.mask & ITSELF != 0
            } else {
                event.mask & ENTRIES != 0 && may_be_same(&event.name, &self.name)
            }
    }
}

/// Some file systems ignore case, in all alphabets.
fn may_be_same(one: &[u8], other: &[u8]) -> bool {
    one.eq_ignore_ascii_case(other) || !one.is_ascii() && !other.is_ascii()
}

/// What a watcher that follows its path knows of it.
pub(super) struct Follow {
    /// The directories that the path leads through.
    pub places: Vec<RoutePlace>,
    /// From where in inotify's queue on the file is what is followed.
    pub since: u64,
    /// It is being added.
    pub is_new: bool,
    /// The path leads to no file.
    pub is_gone: bool,
    /// Why the path could not be looked up last, which was reported.
    pub failed: Option<Errno>,
}

impl Follow {
    pub fn new() -> Self {
        Self { places: Vec::new(), since: 0, is_new: true, is_gone: false, failed: None }
    }

    /// In a forked child: nothing is watched.
    pub fn forget(&mut self) {
        self.places.clear();
    }

    /// What a directory is watched for; 0: it is not on the route.
    pub fn wanted(&self, watch: i32) -> u32 {
        let indices = self.places.iter().filter(|index| index.watch == watch);
        indices.fold(0, |mask, index| mask | index.mask)
    }
}
