//! inotify's watches and their subscribers.

use super::node::DirectoryId;
use super::path::{c_str, terminated};
use super::state::{Files, Watcher};
use super::subscribers::{InotifyWatch, WatchSubscriber};
use super::types::{AT_A_TIME, ENTERED};
use crate::errno::Errno;
use crate::sys::directory::{self, To};
use crate::sys::fd::Fd;
use crate::sys::inotify::{self, Of};
use crate::util::alloc::{TryMap, TryVec};
use std::ffi::CStr;
use std::os::fd::RawFd;

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
        let identity = DirectoryId::of(directory)?;
        let check = || {
            let found = directory::open(path, flags & libc::IN_DONT_FOLLOW == 0, To::Find)?;
            if DirectoryId::of(&found)? == identity { Ok(()) } else { Err(Errno::ENOENT) }
        };
        check()?;
        let number = self.join_path(id, path, flags | libc::IN_ONLYDIR)?;
        check().map(|()| number).inspect_err(|_| {
            if !self.watchers.get(&id).is_some_and(|watcher| watcher.uses(number)) {
                self.unsubscribe(id, number);
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
        let subscriber = WatchSubscriber { watcher: id, mask, serial, since };
        let added = self.watches.try_entry(number)?.add(subscriber);
        if added.is_err() {
            self.end_unless_used(number);
        }
        added.map(|()| number)
    }

    fn subscriber(&self, id: u32, number: i32) -> Option<&WatchSubscriber> {
        self.watches.get(&number)?.subscriber(self.watchers.get(&id)?.serial)
    }

    pub(super) fn is_subscriber(&self, id: u32, number: i32) -> bool {
        self.subscriber(id, number).is_some()
    }

    /// From where in inotify's queue on a watch is for a watcher.
    pub(super) fn since(&self, id: u32, number: i32) -> u64 {
        self.subscriber(id, number).map_or(0, |subscriber| subscriber.since)
    }

    pub(super) fn unsubscribe(&mut self, id: u32, number: i32) {
        let Some(serial) = self.watchers.get(&id).map(|watcher| watcher.serial) else { return };
        if let Some(watch) = self.watches.get_mut(&number) {
            watch.remove(serial);
            if !self.end_unless_used(number) {
                self.shrink(number);
            }
        }
    }

    fn end_unless_used(&mut self, number: i32) -> bool {
        let ends = self.watches.get(&number).is_some_and(InotifyWatch::is_unused);
        if ends {
            self.watches.remove(&number);
            self.unwatch(number);
        }
        ends
    }

    /// Each watch that is removed is an event in inotify's queue: not more of
    /// them than that has room for.
    fn unwatch(&mut self, number: i32) {
        let is_much = self.unwatched >= AT_A_TIME;
        if is_much && self.pending_removals.try_reserve(1).is_ok() {
            self.pending_removals.push_reserved(number);
        } else {
            self.unwatched += 1;
            inotify::unwatch(self.raw(), number);
        }
    }

    /// The queue was read: removes some more; false: there are none.
    pub(super) fn unwatch_more(&mut self) -> bool {
        self.unwatched = 0;
        let more = !self.pending_removals.is_empty();
        while self.unwatched < AT_A_TIME
            && let Some(number) = self.pending_removals.pop()
        {
            // Unless it is wanted again.
            if !self.watches.contains_key(&number) {
                self.unwatched += 1;
                inotify::unwatch(self.raw(), number);
            }
        }
        more
    }

    /// Makes a watch ask for what its subscribers want, and no more. That needs
    /// an open file: where the file cannot be opened the watch stays as it is.
    fn shrink(&mut self, number: i32) {
        let Some(watch) = self.watches.get(&number).filter(|watch| watch.is_wider()) else {
            return;
        };
        let wanted = watch.wanted();
        let by = watch
            .subscribers()
            .next()
            .and_then(|subscriber| self.watchers.get(&subscriber.watcher));
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
        let tree = ENTERED | libc::IN_MOVED_FROM | libc::IN_MOVE_SELF;
        self.mask | if self.recursive { tree } else { 0 }
    }

    /// Whether it is a subscriber of a watch.
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
