//! Opening the directories of a tree, while other processes may rename what
//! lies on the way.
//!
//! A path may lead elsewhere from one system call to the next, and through a
//! symbolic link out of the tree. So a directory is opened once, from the
//! tree's root and without following links; it is compared with the one that
//! is meant; and it is watched and read by that descriptor alone.

use super::node::DirectoryId;
use super::path::{c_str, join, terminated};
use super::state::{Files, Watcher};
use crate::errno::Errno;
use crate::sys::directory::{self, To};
use crate::sys::fd::Fd;

/// Whether this is no failure to report: the directory is gone, or what has
/// its name is no directory in the tree any more.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::EXDEV)
}

impl Watcher {
    /// The root, if its path still leads to what is watched.
    pub(super) fn open_root(&self, to: To) -> Result<Fd, Errno> {
        let path = terminated(&self.path)?;
        let follow = self.flags & libc::IN_DONT_FOLLOW == 0;
        self.compare(self.root, directory::open(c_str(&path)?, follow, to)?)
    }

    /// A directory of the tree, if it is where it is known to be.
    pub(super) fn open_directory(&self, watch: i32, to: To) -> Result<Fd, Errno> {
        if watch == self.root {
            return self.open_root(to);
        }
        let root = self.open_root(To::Find)?;
        let path = terminated(&self.below(watch, b"")?)?;
        self.compare(watch, directory::open_below(root.raw(), c_str(&path)?, to)?)
    }

    fn compare(&self, watch: i32, found: Fd) -> Result<Fd, Errno> {
        let node = self.nodes.get(&watch).ok_or(Errno::ENOENT)?;
        if DirectoryId::of(&found)? == node.identity { Ok(found) } else { Err(Errno::ENOENT) }
    }

    /// The path of an entry, as the system wants it; no longer than that can
    /// be.
    pub(super) fn full_path(&self, parent: i32, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let path = terminated(&join(&self.path, &self.below(parent, name)?)?)?;
        if path.len() > libc::PATH_MAX as usize {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(path)
    }
}

impl Files {
    /// Whether a directory is where it is known to be. An error: that cannot
    /// be found out now.
    pub(super) fn is_in_place(&self, id: u32, watch: i32) -> Result<bool, Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(true) };
        match watcher.open_directory(watch, To::Find) {
            Ok(_) => Ok(true),
            Err(errno) if is_gone(errno) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Whether the path of a tree leads to something else.
    pub(super) fn is_root_lost(&self, id: u32) -> bool {
        let Some(watcher) = self.watchers.get(&id) else { return false };
        watcher.root >= 0 && self.is_in_place(id, watcher.root) == Ok(false)
    }
}
