//! inotify's watches, and who hears of them.

use super::{AT_A_TIME, Files, User, Watcher};
use crate::errno::Errno;
use crate::sys::inotify;
use crate::util::alloc::{TryMap, TryVec};
use std::ffi::CStr;

impl Files {
    /// Has a file be watched for a watcher; its watch's number.
    pub(super) fn join_watch(&mut self, id: u32, path: &[u8], flags: u32) -> Result<i32, Errno> {
        let wanted = self.watchers.get(&id).map_or(0, Watcher::wanted);
        self.watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let number = self.watch(path, wanted | flags)?;
        let end = if self.watches.contains_key(&number) { self.end_of_queue() } else { 0 };
        let known = self.watches.try_entry(number)?;
        if known.users.iter().any(|user| user.watcher == id) {
            return Ok(number);
        }
        if known.users.try_reserve(1).is_err() {
            self.end_unless_used(number);
            return Err(Errno::ENOMEM);
        }
        known.mask |= wanted;
        known.users.push_reserved(User { watcher: id, since: end });
        Ok(number)
    }

    pub(super) fn leave_watch(&mut self, id: u32, number: i32) {
        if let Some(watch) = self.watches.get_mut(&number) {
            watch.users.retain(|user| user.watcher != id);
            if !self.end_unless_used(number) {
                self.shrink(number);
            }
        }
    }

    fn end_unless_used(&mut self, number: i32) -> bool {
        let ends = self.watches.get(&number).is_some_and(|watch| watch.users.is_empty());
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

    /// A watch is for what its users want, and no more, where that can be
    /// said: inotify has to be told by a path.
    fn shrink(&mut self, number: i32) {
        let Some(watch) = self.watches.get(&number) else { return };
        let watchers = watch.users.iter().filter_map(|user| self.watchers.get(&user.watcher));
        let mask = watchers.fold(0, |mask, watcher| mask | watcher.wanted());
        let Some(by) = watch.users.first().filter(|_| mask != watch.mask) else { return };
        let Some(watcher) = self.watchers.get(&by.watcher) else { return };
        let flags = if watcher.root == number { watcher.flags } else { libc::IN_DONT_FOLLOW };
        let Ok(path) = watcher.path(number, b"") else { return };
        // The path may lead to another file by now.
        if self.probe(&path, flags) != Some(number) {
            return;
        }
        let Ok(path) = CStr::from_bytes_with_nul(&path) else { return };
        let set = inotify::watch_path(self.raw(), path, mask | flags);
        if set == Ok(number)
            && let Some(watch) = self.watches.get_mut(&number)
        {
            watch.mask = mask;
        }
    }

    /// Which watch a path leads to, of those that there are.
    pub(super) fn probe(&self, path: &[u8], flags: u32) -> Option<i32> {
        let number = self.watch(path, libc::IN_DELETE_SELF | flags).ok()?;
        if self.watches.contains_key(&number) {
            return Some(number);
        }
        inotify::unwatch(self.raw(), number);
        None
    }
}
