//! inotify's watches, and who uses them.

use super::open::{Identity, c_str, terminated};
use super::{AT_A_TIME, Files, Watcher};
use crate::errno::Errno;
use crate::sys::directory::{self, To};
use crate::sys::fd::Fd;
use crate::sys::inotify::{self, Of};
use crate::util::alloc::{TryMap, TryVec};
use std::ffi::CStr;
use std::os::fd::RawFd;

/// A watcher that hears what a watch says.
#[derive(Clone, Copy)]
pub(super) struct User {
    pub watcher: u32,
    /// What it wants inotify to say.
    mask: u32,
    /// The order in which watchers were added.
    serial: u64,
    /// What was said before this place of inotify's queue is not for it.
    pub since: u64,
}

/// No watcher: this user has left.
const LEFT: u32 = u32::MAX;

/// A watch of inotify's.
#[derive(Default)]
pub(super) struct Watch {
    /// What inotify was asked for.
    mask: u32,
    /// In the order in which the watchers were added. Those that have left
    /// keep their places until they are the most.
    users: Vec<User>,
    left: usize,
}

impl Watch {
    pub fn users(&self) -> impl Iterator<Item = &User> {
        self.users.iter().filter(|user| user.watcher != LEFT)
    }

    pub fn is_unused(&self) -> bool {
        self.users.len() == self.left
    }

    fn place_of(&self, serial: u64) -> Result<usize, usize> {
        self.users.binary_search_by_key(&serial, |user| user.serial)
    }

    fn user(&self, serial: u64) -> Option<&User> {
        let user = self.users.get(self.place_of(serial).ok()?)?;
        (user.watcher != LEFT).then_some(user)
    }

    fn add(&mut self, user: User) -> Result<(), Errno> {
        match self.place_of(user.serial) {
            Err(place) => self.users.try_insert(place, user)?,
            Ok(place) => {
                if let Some(before) = self.users.get_mut(place) {
                    self.left -= usize::from(before.watcher == LEFT);
                    *before = user;
                }
            }
        }
        self.mask |= user.mask;
        Ok(())
    }

    /// A user wants these bits, too.
    fn widen(&mut self, serial: u64, mask: u32) {
        let place = self.place_of(serial).unwrap_or(usize::MAX);
        if let Some(user) = self.users.get_mut(place) {
            user.mask |= mask;
            self.mask |= mask;
        }
    }

    fn remove(&mut self, serial: u64) {
        let place = self.place_of(serial).unwrap_or(usize::MAX);
        let Some(user) = self.users.get_mut(place).filter(|user| user.watcher != LEFT) else {
            return;
        };
        user.watcher = LEFT;
        self.left += 1;
        if self.left > self.users.len() / 2 {
            self.users.retain(|user| user.watcher != LEFT);
            self.left = 0;
        }
    }

    /// Whether inotify was asked for more than the users want.
    fn is_wider(&self) -> bool {
        let mut missing = self.mask;
        // The first few have it all, mostly.
        self.users().all(|user| {
            missing &= !user.mask;
            missing != 0
        })
    }

    fn wanted(&self) -> u32 {
        self.users().fold(0, |mask, user| mask | user.mask)
    }
}

impl Files {
    /// Has what a path leads to watched; its watch's number.
    pub(super) fn join_path(&mut self, id: u32, path: &CStr, flags: u32) -> Result<i32, Errno> {
        self.join_watch(id, |inotify, mask| inotify::watch_path(inotify, path, mask | flags))
    }

    /// Has an open directory watched. `path` and `flags` are only used where
    /// there is no /proc, by which inotify finds an open file.
    pub(super) fn join_directory(
        &mut self,
        id: u32,
        directory: &Fd,
        path: &CStr,
        flags: u32,
    ) -> Result<i32, Errno> {
        let by_descriptor = self.join_watch(id, |inotify, mask| {
            inotify::watch(inotify, Of::File(directory.raw()), mask | libc::IN_ONLYDIR)
        });
        match by_descriptor {
            Err(Errno::ENOENT) => self.join_without_proc(id, directory, path, flags),
            joined => joined,
        }
    }

    /// The same by its path, which has to lead to it before and after.
    fn join_without_proc(
        &mut self,
        id: u32,
        directory: &Fd,
        path: &CStr,
        flags: u32,
    ) -> Result<i32, Errno> {
        let identity = Identity::of(directory)?;
        let check = || {
            let found = directory::open(path, flags & libc::IN_DONT_FOLLOW == 0, To::Find)?;
            if Identity::of(&found)? == identity { Ok(()) } else { Err(Errno::ENOENT) }
        };
        check()?;
        let number = self.join_path(id, path, flags | libc::IN_ONLYDIR)?;
        check().map(|()| number).inspect_err(|_| {
            if !self.watchers.get(&id).is_some_and(|watcher| watcher.uses(number)) {
                self.leave_watch(id, number);
            }
        })
    }

    fn join_watch(
        &mut self,
        id: u32,
        watch: impl FnOnce(RawFd, u32) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        let wanted = self.watchers.get(&id).map_or(0, Watcher::wanted);
        self.join_watch_for(id, wanted, watch)
    }

    /// Watches a directory for these bits; ENOTDIR: it is a symbolic link, too.
    pub(super) fn join_above(&mut self, id: u32, path: &CStr, mask: u32) -> Result<i32, Errno> {
        let flags = libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW;
        self.join_watch_for(id, mask, |inotify, mask| {
            inotify::watch_path(inotify, path, mask | flags)
        })
    }

    fn join_watch_for(
        &mut self,
        id: u32,
        mask: u32,
        watch: impl FnOnce(RawFd, u32) -> Result<i32, Errno>,
    ) -> Result<i32, Errno> {
        self.watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let Some(watcher) = self.watchers.get(&id) else { return Err(Errno::ENOENT) };
        let serial = watcher.serial;
        let number = watch(self.raw(), mask | libc::IN_MASK_ADD)?;
        if watcher.uses(number) {
            if let Some(watch) = self.watches.get_mut(&number) {
                watch.widen(serial, mask);
            }
            return Ok(number);
        }
        let since = if self.watches.contains_key(&number) { self.end_of_queue() } else { 0 };
        let user = User { watcher: id, mask, serial, since };
        let added = self.watches.try_entry(number)?.add(user);
        if added.is_err() {
            self.end_unless_used(number);
        }
        added.map(|()| number)
    }

    fn user(&self, id: u32, number: i32) -> Option<&User> {
        self.watches.get(&number)?.user(self.watchers.get(&id)?.serial)
    }

    pub(super) fn is_user(&self, id: u32, number: i32) -> bool {
        self.user(id, number).is_some()
    }

    /// From where in inotify's queue on a watch is for a watcher.
    pub(super) fn since(&self, id: u32, number: i32) -> u64 {
        self.user(id, number).map_or(0, |user| user.since)
    }

    pub(super) fn leave_watch(&mut self, id: u32, number: i32) {
        let Some(serial) = self.watchers.get(&id).map(|watcher| watcher.serial) else { return };
        if let Some(watch) = self.watches.get_mut(&number) {
            watch.remove(serial);
            if !self.end_unless_used(number) {
                self.shrink(number);
            }
        }
    }

    fn end_unless_used(&mut self, number: i32) -> bool {
        let ends = self.watches.get(&number).is_some_and(Watch::is_unused);
        if ends {
            self.watches.remove(&number);
            self.unwatch(number);
        }
        ends
    }

    /// Each watch that is removed is a note in inotify's queue: not more of
    /// them than that has room for.
    fn unwatch(&mut self, number: i32) {
        let is_much = self.unwatched >= AT_A_TIME;
        if is_much && self.leaving.try_reserve(1).is_ok() {
            self.leaving.push_reserved(number);
        } else {
            self.unwatched += 1;
            inotify::unwatch(self.raw(), number);
        }
    }

    /// The queue was read: removes some more; false: there are none.
    pub(super) fn unwatch_more(&mut self) -> bool {
        self.unwatched = 0;
        let more = !self.leaving.is_empty();
        while self.unwatched < AT_A_TIME
            && let Some(number) = self.leaving.pop()
        {
            // Unless it is wanted again.
            if !self.watches.contains_key(&number) {
                self.unwatched += 1;
                inotify::unwatch(self.raw(), number);
            }
        }
        more
    }

    /// A watch is for what its users want, and no more. That can only be said
    /// of an open file: where it cannot be opened the watch stays as it is.
    fn shrink(&mut self, number: i32) {
        let Some(watch) = self.watches.get(&number).filter(|watch| watch.is_wider()) else {
            return;
        };
        let wanted = watch.wanted();
        let by = watch.users().next().and_then(|user| self.watchers.get(&user.watcher));
        let Some(file) = by.and_then(|watcher| watcher.open_watched(number).ok()) else { return };
        if self.is_watched_by(&file, number)
            && inotify::watch(self.raw(), Of::File(file.raw()), wanted) == Ok(number)
            && let Some(watch) = self.watches.get_mut(&number)
        {
            watch.mask = wanted;
        }
    }

    /// Whether an open file is what a watch is of.
    fn is_watched_by(&self, file: &Fd, number: i32) -> bool {
        let known = libc::IN_DELETE_SELF | libc::IN_MASK_ADD;
        match inotify::watch(self.raw(), Of::File(file.raw()), known) {
            Ok(found) if !self.watches.contains_key(&found) => {
                inotify::unwatch(self.raw(), found);
                false
            }
            found => found == Ok(number),
        }
    }
}

impl Watcher {
    /// What inotify is asked for.
    pub(super) fn wanted(&self) -> u32 {
        let tree = super::ENTERED | libc::IN_MOVED_FROM | libc::IN_MOVE_SELF;
        self.mask | if self.recursive { tree } else { 0 }
    }

    /// Whether it is a user of a watch.
    fn uses(&self, number: i32) -> bool {
        let was_node = self.before.as_ref().is_some_and(|before| before.contains_key(&number));
        was_node || self.nodes.contains_key(&number)
    }

    fn open_watched(&self, number: i32) -> Result<Fd, Errno> {
        if self.recursive {
            return self.open_directory(number, To::Find);
        }
        let path = terminated(&self.path)?;
        directory::open_any(c_str(&path)?, self.flags & libc::IN_DONT_FOLLOW == 0)
    }
}
