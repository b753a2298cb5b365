//! Watchers that follow their path: what has it is watched, whatever that is.
//!
//! Besides that file the directory in which it lies is watched. Whenever an
//! entry of the directory changes (any: one may be a symbolic link that the
//! path leads through), the path is looked up again. inotify says by the
//! number of the watch whether it still leads to the same file. Where the
//! directory is not there the nearest one above it is watched instead, until
//! it is.

use super::notes::Told;
use super::open::{Identity, c_str, terminated};
use super::queue::Raw;
use super::{ENTRIES, Files, REPLACED, Watcher};
use crate::errno::Errno;

/// What a directory on the path is watched for.
const ABOVE: u32 = ENTRIES | libc::IN_MOVE_SELF | libc::IN_DELETE_SELF;

/// How often the directory is looked for again, if it comes and goes.
const TRIES: usize = 3;

pub(super) struct Follow {
    /// The watch of the directory; -1: none.
    above: i32,
    /// It is being added.
    is_new: bool,
    /// Why the path could not be looked up last, which was told.
    failed: Option<Errno>,
}

impl Follow {
    pub fn new() -> Self {
        Self { above: -1, is_new: true, failed: None }
    }

    /// In a forked child: nothing is watched.
    pub fn forget(&mut self) {
        self.above = -1;
    }
}

/// Whether a path leads to nothing now.
fn is_absent(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR)
}

impl Watcher {
    /// Whether it may be told something, now or later.
    pub(super) fn is_watching(&self) -> bool {
        self.root >= 0 || self.follow.is_some()
    }

    fn above(&self) -> i32 {
        self.follow.as_ref().map_or(-1, |follow| follow.above)
    }
}

impl Files {
    /// Has what a new watcher follows watched. Of the file itself it may be
    /// that it is not there yet.
    pub(super) fn attach_follower(&mut self, id: u32) -> Result<(), Errno> {
        let is_there = self.watch_above(id)?;
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        let is_new =
            watcher.follow.as_mut().is_some_and(|follow| std::mem::take(&mut follow.is_new));
        if is_new && !is_there {
            return Err(Errno::ENOENT);
        }
        match self.watch_followed(id) {
            Err(errno) if errno == Errno::ENOENT || !is_new && is_absent(errno) => Ok(()),
            watched => watched.map(drop),
        }
    }

    /// Watches what has the path; whether that is another file.
    fn watch_followed(&mut self, id: u32) -> Result<bool, Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(false) };
        let (path, flags, before) = (terminated(&watcher.path)?, watcher.flags, watcher.root);
        let root = self.join_path(id, c_str(&path)?, flags)?;
        if root == before {
            return Ok(false);
        }
        self.know(id, root)?;
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.root = root;
        }
        self.forget_unless_used(id, before);
        Ok(true)
    }

    /// Watches the directory of the path, or the nearest one above it that is
    /// there; whether it is the directory itself.
    fn watch_above(&mut self, id: u32) -> Result<bool, Errno> {
        let mut found = (-1, false);
        for _ in 0..TRIES {
            let again = self.join_nearest(id)?;
            if again == found {
                break;
            }
            let before = self.watchers.get(&id).map_or(-1, Watcher::above);
            self.know(id, again.0)?;
            if let Some(follow) = self.watchers.get_mut(&id).and_then(|one| one.follow.as_mut()) {
                follow.above = again.0;
            }
            if before != again.0 {
                self.forget_unless_used(id, before);
            }
            found = again;
            if found.1 {
                break;
            }
            // It may have come while the one above it was not watched yet.
        }
        Ok(found.1)
    }

    fn join_nearest(&mut self, id: u32) -> Result<(i32, bool), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Err(Errno::ENOENT) };
        let mut path = terminated(&watcher.path)?;
        let mut is_nearest = true;
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            // There was a name behind it, or the NUL byte.
            path.truncate(slash.max(1));
            let above = terminated(&path)?;
            match self.join_above(id, c_str(&above)?, ABOVE) {
                Err(errno) if is_absent(errno) && slash > 0 => is_nearest = false,
                joined => return joined.map(|number| (number, is_nearest)),
            }
        }
        Err(Errno::ENOENT)
    }

    /// Takes a watch among those of a watcher.
    fn know(&mut self, id: u32, number: i32) -> Result<(), Errno> {
        let is_known = self.watchers.get(&id).is_some_and(|one| one.nodes.contains_key(&number));
        if is_known { Ok(()) } else { self.insert(id, number, (-1, b""), (0, Identity::default())) }
    }

    fn forget_unless_used(&mut self, id: u32, number: i32) {
        let is_used = |watcher: &Watcher| watcher.root == number || watcher.above() == number;
        if number >= 0 && !self.watchers.get(&id).is_some_and(is_used) {
            self.forget(id, number);
        }
    }

    /// Looks up again what a following watcher follows.
    pub(super) fn look_again(&mut self, id: u32) {
        if self.watchers.get(&id).is_none_or(|watcher| watcher.follow.is_none()) {
            return;
        }
        let result = self.watch_above(id).and_then(|_| self.watch_followed(id));
        let failed = result.err().filter(|errno| !is_absent(*errno));
        let Some(follow) = self.watchers.get_mut(&id).and_then(|one| one.follow.as_mut()) else {
            return;
        };
        let before = std::mem::replace(&mut follow.failed, failed);
        match failed {
            Some(errno) if before != failed => self.tell_failure(id, -1, b"", errno),
            _ if result == Ok(true) => self.tell(id, Told::entry(REPLACED, -1, b"")),
            _ => {}
        }
    }

    /// Whether a watch is of the directory in which lies what is followed.
    pub(super) fn is_above(&self, id: u32, number: i32) -> bool {
        number >= 0 && self.watchers.get(&id).is_some_and(|one| one.above() == number)
    }

    /// Deals with a note about the directory of what is followed; false: it
    /// is about something else, too.
    pub(super) fn take_above(&mut self, id: u32, note: &Raw) -> bool {
        if !self.is_above(id, note.watch) {
            return false;
        }
        let is_root = self.watchers.get(&id).is_some_and(|one| one.root == note.watch);
        if note.mask & ABOVE != 0 {
            self.look_again(id);
        }
        !is_root
    }

    /// A watch has ended; false: it is not that of a watcher which follows its
    /// path.
    pub(super) fn take_followed_end(&mut self, id: u32, number: i32) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else { return false };
        let Some(follow) = &mut watcher.follow else { return false };
        if watcher.root == number {
            watcher.root = -1;
        }
        if follow.above == number {
            follow.above = -1;
        }
        self.forget(id, number);
        self.look_again(id);
        true
    }
}
