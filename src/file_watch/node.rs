//! A directory of a watcher, and what identifies it.

use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::fd::Fd;
use crate::sys::file;

/// The device and inode of a directory. No other one has them while it is
/// watched.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct DirectoryId(u64, u64);

impl DirectoryId {
    pub fn of(fd: &Fd) -> Result<Self, Errno> {
        let stat = file::stat(fd.raw())?;
        Ok(Self(stat.st_dev, stat.st_ino))
    }
}

/// A directory that is watched, or the one file that is.
pub(super) struct DirectoryNode {
    /// The watch of the directory that it lies in; -1: none, it is the root.
    pub parent: i32,
    pub name: Box<[u8]>,
    /// Those in it, by their names.
    pub children: Map<Box<[u8]>, i32>,
    pub identity: DirectoryId,
    /// The directory in it whose name another one got, by the last change of
    /// its entries: replaced, or half of an exchange.
    pub displaced: Option<i32>,
    /// Its name was looked up between these two positions of inotify's queue:
    /// the events before the first are about others that had the name.
    pub since: u64,
    pub sure: u64,
    /// Its file system was unmounted.
    pub is_unmounted: bool,
}

impl DirectoryNode {
    /// The same, before it is read.
    pub fn without_children(&self) -> Self {
        let (name, children) = (Box::default(), Map::default());
        Self { name, children, displaced: None, ..*self }
    }
}

/// Which directory an event is about, of those that have a name one after
/// another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// The one that is known under it.
    This(i32),
    /// That one, or one before: the event came while the name was looked up.
    Unsure(i32),
    /// One before, or one that is not known.
    Another,
}
