//! inotify's watches and their subscribers.

use super::open::{DirectoryId, c_str, terminated};
use super::{AT_A_TIME, Files, Watcher};
use crate::errno::Errno;
use crate::sys::directory::{self, To};
use crate::sys::fd::Fd;
use crate::sys::inotify::{self, Of};
use crate::util::alloc::{TryMap, TryVec};
use std::ffi::CStr;
use std::os::fd::RawFd;

/// A watcher that gets a watch's events.
#[derive(Clone, Copy)]
pub(super) struct WatchSubscriber {
    pub watcher: u32,
    /// The events that it wants of inotify.
    mask: u32,
    /// The order in which watchers were added.
    serial: u64,
    /// Events before this position of inotify's queue are not for it.
    pub since: u64,
}

/// No watcher: this one has unsubscribed.
const UNSUBSCRIBED: u32 = u32::MAX;

/// A watch of inotify's.
#[derive(Default)]
pub(super) struct InotifyWatch {
    /// What inotify was asked for.
    mask: u32,
    /// In the order in which the watchers were added. Those that have left
    /// keep their places until they are the most.
    subscribers: Vec<WatchSubscriber>,
    unsubscribed: usize,
}

impl InotifyWatch {
    pub fn subscribers(&self) -> impl Iterator<Item = &WatchSubscriber> {
        self.subscribers.iter().filter(|subscriber| subscriber.watcher != UNSUBSCRIBED)
    }

    pub fn is_unused(&self) -> bool {
        self.subscribers.len() == self.unsubscribed
    }

    fn index_of(&self, serial: u64) -> Result<usize, usize> {
        self.subscribers.binary_search_by_key(&serial, |subscriber| subscriber.serial)
    }

    fn subscriber(&self, serial: u64) -> Option<&WatchSubscriber> {
        let subscriber = self.subscribers.get(self.index_of(serial).ok()?)?;
        (subscriber.watcher != UNSUBSCRIBED).then_some(subscriber)
    }

    fn add(&mut self, subscriber: WatchSubscriber) -> Result<(), Errno> {
        match self.index_of(subscriber.serial) {
            Err(index) => self.subscribers.try_insert(index, subscriber)?,
            Ok(index) => {
                if let Some(before) = self.subscribers.get_mut(index) {
                    self.unsubscribed -= usize::from(before.watcher == UNSUBSCRIBED);
                    *before = subscriber;
                }
            }
        }
        self.mask |= subscriber.mask;
        Ok(())
    }

    /// A user wants these bits, too.
    fn widen(&mut self, serial: u64, mask: u32) {
        let index = self.index_of(serial).unwrap_or(usize::MAX);
        if let Some(subscriber) = self.subscribers.get_mut(index) {
            subscriber.mask |= mask;
            self.mask |= mask;
        }
    }

    fn remove(&mut self, serial: u64) {
        let index = self.index_of(serial).unwrap_or(usize::MAX);
        let Some(subscriber) =
            self.subscribers.get_mut(index).filter(|subscriber| subscriber.watcher != UNSUBSCRIBED)
        else {
            return;
        };
        subscriber.watcher = UNSUBSCRIBED;
        self.unsubscribed += 1;
        if self.unsubscribed > self.subscribers.len() / 2 {
            self.subscribers.retain(|subscriber| subscriber.watcher != UNSUBSCRIBED);
            self.unsubscribed = 0;
        }
    }

    /// Whether inotify was asked for more than the subscribers want.
    fn is_wider(&self) -> bool {
        let mut missing = self.mask;
        // The first few have it all, mostly.
        self.subscribers().all(|subscriber| {
            missing &= !subscriber.mask;
            missing != 0
        })
    }

    fn wanted(&self) -> u32 {
        self.subscribers().fold(0, |mask, subscriber| mask | subscriber.mask)
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
        let tree = super::ENTERED | libc::IN_MOVED_FROM | libc::IN_MOVE_SELF;
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
