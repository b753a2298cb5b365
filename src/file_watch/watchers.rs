//! File watchers: added, removed, and what is kept for them.

use super::backlog::Backlog;
use super::node::DirectoryId;
use super::path::{absolute, c_str, terminated};
use super::places::Follow;
use super::queue::InotifyQueue;
use super::state::{Files, PendingTree, Watcher};
use super::types::*;
use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::directory::{self, To};
use crate::sys::fd::{self, Fd};
use crate::sys::fork;
use crate::util::alloc::{TryDeque, TryMap, TryVec};
use std::collections::VecDeque;
use std::ffi::CStr;

// The inotify itself, which is made at the first watcher and closed with the
// last.
impl Files {
    /// Has this inotify be the one that is used.
    pub fn open(&mut self, inotify: Fd) {
        self.inotify = Some(inotify);
        self.made_in = fork::current();
    }

    /// After the last watcher: all that is left.
    pub fn close(&mut self) -> Option<Fd> {
        let inotify = self.inotify.take();
        *self = Self { numbers: self.numbers, ..Self::default() };
        inotify
    }

    /// In a forked child: watches everything again, with an inotify that is
    /// not the parent's. Where something is short this fails, and nothing is
    /// lost: it can be called again.
    pub fn revive(&mut self, inotify: Fd) -> Result<(), Errno> {
        let before = self.inotify.replace(inotify);
        if self.made_in != fork::current() {
            // The child may have closed it, and another file may have its fd.
            std::mem::forget(before);
        }
        self.made_in = fork::current();
        self.watches.clear();
        self.queue = InotifyQueue::default();
        self.backlog.abandon();
        self.unresolved_moves.clear();
        self.renamed.clear();
        self.rescanning.clear();
        self.pending_removals.clear();
        self.unwatched = 0;
        let events = self.outgoing.len();
        let revived = self.watch_all_again();
        if revived.is_err() {
            // What has ended has; the rest is found again.
            let mut index = 0;
            self.outgoing.retain(|(_, event)| {
                index += 1;
                index <= events || event.is_last()
            });
        }
        revived
    }

    fn watch_all_again(&mut self) -> Result<(), Errno> {
        let mut ids = Vec::new();
        let watched = self.watchers.iter().filter(|(_, one)| one.is_watching());
        ids.try_extend(watched.map(|(id, _)| *id))?;
        for id in ids {
            if let Some(watcher) = self.watchers.get_mut(&id) {
                watcher.nodes.clear();
                watcher.forgotten = -1;
                watcher.before = None;
                if let Some(follow) = &mut watcher.follow {
                    follow.forget();
                    watcher.root = -1;
                }
            }
            match self.watch_again(id) {
                Err(errno) if errno.is_shortage() => return Err(errno),
                Err(_) => self.report_end(id),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn watch_again(&mut self, id: u32) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let path = terminated(&watcher.path)?;
        let mut rest = PendingTree(Backlog::strict());
        self.with_pending_tree(&mut rest, |files| files.attach(id, c_str(&path)?))?;
        while self.do_some(&mut rest, usize::MAX)? {}
        Ok(())
    }
}

// Watchers.
impl Files {
    /// Adds a watcher; all of it, or nothing. The inotify is there. Of a tree
    /// the directories are yet to be watched, by [`Files::add_more`].
    pub fn add(&mut self, id: u32, request: &WatchRequest<'_>) -> Result<PendingTree, Errno> {
        self.watchers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        // For each there is room in the list: what is kept can be delivered.
        let more = self.watchers.len() + 1 - self.resuming.len().min(self.watchers.len());
        self.resuming.try_reserve(more).map_err(|_| Errno::ENOMEM)?;
        let path = absolute(request.root)?;
        // Once by the path that was given: the absolute one may be another's.
        let given = match request.root {
            WatchRoot::Path(given) => terminated(given)?,
            WatchRoot::Descriptor(_) => terminated(&path)?,
        };
        self.watchers.insert_reserved(id, self.new_watcher(request, path));
        self.serials += 1;
        let mut rest = PendingTree(Backlog::strict());
        let added = self.with_pending_tree(&mut rest, |files| files.attach(id, c_str(&given)?));
        if added.is_err() {
            self.remove(id);
        }
        added.map(|()| rest).map_err(|errno| match (request.root, errno) {
            (WatchRoot::Descriptor(fd), Errno::ENOENT) if !fd::is_open(fd) => Errno::EBADF,
            (WatchRoot::Descriptor(_), Errno::ENOENT) => Errno::ENOTSUP,
            _ => errno,
        })
    }

    fn new_watcher(&self, request: &WatchRequest<'_>, path: Box<[u8]>) -> Watcher {
        Watcher {
            serial: self.serials,
            mask: request.mask,
            flags: request.flags | if request.recursive { libc::IN_ONLYDIR } else { 0 },
            recursive: request.recursive,
            follow: request.follows.then(Follow::new),
            path,
            root: -1,
            nodes: Map::default(),
            forgotten: -1,
            before: None,
            kept: VecDeque::new(),
            has_lost: false,
            has_ended: false,
            resumes: false,
        }
    }

    /// Has the root of a watcher watched, and of a tree read later.
    fn attach(&mut self, id: u32, path: &CStr) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        if watcher.follow.is_some() {
            return self.attach_follower(id);
        }
        let (flags, recursive) = (watcher.flags, watcher.recursive);
        let since = self.end_of_queue();
        let (root, identity) = if recursive {
            let follow = flags & libc::IN_DONT_FOLLOW == 0;
            let directory = directory::open(path, follow, To::Find)?;
            let identity = DirectoryId::of(&directory)?;
            (self.join_directory(id, &directory, path, flags)?, identity)
        } else {
            (self.join_path(id, path, flags)?, DirectoryId::default())
        };
        self.insert(id, root, (-1, b""), (since, identity))?;
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.root = root;
        }
        if recursive { self.read_later(id, root, false) } else { Ok(()) }
    }

    /// Watches some more of a tree that is being added; false: that was all.
    /// `at_most`: what that may take, in events' time.
    pub fn add_more(
        &mut self,
        id: u32,
        rest: &mut PendingTree,
        at_most: usize,
    ) -> Result<bool, Errno> {
        let added = self.do_some(rest, at_most);
        if added.is_err() {
            self.remove(id);
        }
        added
    }

    /// Does something with another backlog in the place of the loop's.
    fn with_pending_tree<T>(
        &mut self,
        rest: &mut PendingTree,
        act: impl FnOnce(&mut Self) -> T,
    ) -> T {
        std::mem::swap(&mut self.backlog, &mut rest.0);
        let result = act(self);
        std::mem::swap(&mut self.backlog, &mut rest.0);
        result
    }

    fn do_some(&mut self, rest: &mut PendingTree, at_most: usize) -> Result<bool, Errno> {
        self.with_pending_tree(rest, |files| {
            let mut left = at_most;
            while left > 0 && !files.backlog.is_empty() && files.backlog.failure().is_none() {
                left = left.saturating_sub(files.step());
            }
            match files.backlog.failure() {
                Some(errno) => Err(errno),
                None => Ok(!files.backlog.is_empty()),
            }
        })
    }

    pub fn remove(&mut self, id: u32) {
        self.detach(id);
        self.forget_watcher(id);
    }

    /// What a watcher was added with; the path is absolute.
    pub fn request_of(&self, id: u32) -> Option<WatchRequest<'_>> {
        let watcher = self.watchers.get(&id)?;
        let (mask, flags, recursive) = (watcher.mask, watcher.flags, watcher.recursive);
        let (root, follows) = (WatchRoot::Path(&watcher.path), watcher.follow.is_some());
        Some(WatchRequest { root, mask, flags, recursive, follows })
    }

    /// Whether there are watches that are yet to be removed.
    pub fn has_pending_removals(&self) -> bool {
        !self.pending_removals.is_empty()
    }

    /// Whether it is the only one that there is.
    pub fn is_only(&self, id: u32) -> bool {
        self.watchers.len() == 1 && self.watchers.contains_key(&id)
    }

    /// Removes a watcher and leaves inotify as it is: inotify is closed now, or
    /// it is the parent process's.
    pub fn forget_watcher(&mut self, id: u32) {
        if self.watchers.remove(&id).is_some_and(|watcher| watcher.resumes) {
            self.resuming.retain(|resuming| *resuming != id);
        }
        self.outgoing.retain(|(whose, _)| *whose != id);
    }

    /// Keeps an event for a watcher that is not notified now.
    pub fn keep(&mut self, id: u32, event: FileEvent) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let is_full = watcher.kept.len() >= WAITING && !event.is_last();
        if is_full || watcher.kept.try_reserve(1).is_err() {
            watcher.has_lost = true;
            watcher.has_ended |= event.is_last();
            return;
        }
        // Some come back, and are older than others that are there.
        let index = watcher.kept.partition_point(|kept| kept.number < event.number);
        watcher.kept.insert_reserved(index, event);
    }

    /// The next note that was kept for a watcher.
    pub fn next_kept(&mut self, id: u32) -> Option<FileEvent> {
        let watcher = self.watchers.get_mut(&id)?;
        let event = watcher.kept.pop_front();
        let lost = watcher.has_lost && event.as_ref().is_none_or(FileEvent::is_last);
        if !lost {
            return event.or_else(|| self.take_unkept_end(id));
        }
        // What there was no room for came before the end.
        watcher.has_lost = false;
        if let Some(last) = event {
            watcher.kept.push_front_reserved(last);
        }
        Some(self.number(libc::IN_Q_OVERFLOW))
    }

    fn take_unkept_end(&mut self, id: u32) -> Option<FileEvent> {
        let watcher = self.watchers.get_mut(&id)?;
        let ended = std::mem::take(&mut watcher.has_ended);
        ended.then(|| self.number(libc::IN_IGNORED))
    }

    pub fn has_kept(&self, id: u32) -> bool {
        self.watchers.get(&id).is_some_and(Watcher::has_kept)
    }

    /// Has a watcher get what is kept for it; false: there is nothing.
    pub fn resume(&mut self, id: u32) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id).filter(|one| one.has_kept()) else {
            return false;
        };
        if !std::mem::replace(&mut watcher.resumes, true) {
            // Room was made when it was added.
            self.resuming.push_back_reserved(id);
        }
        true
    }

    /// The same of all watchers; false: nothing is kept for any.
    pub fn resume_all(&mut self) -> bool {
        let keepers = self.watchers.iter_mut().filter(|(_, one)| one.has_kept() && !one.resumes);
        for (id, watcher) in keepers {
            watcher.resumes = true;
            self.resuming.push_back_reserved(*id);
        }
        !self.resuming.is_empty()
    }

    /// The same of those that have lost events for want of memory.
    pub fn resume_overflowed(&mut self) {
        if std::mem::take(&mut self.overflowed) {
            self.resume_all();
        }
    }

    /// The first of them.
    pub fn resuming(&self) -> Option<u32> {
        self.resuming.front().copied()
    }

    /// It has got all of it, or cannot get it now.
    pub fn has_resumed(&mut self) {
        let first = self.resuming.pop_front().and_then(|id| self.watchers.get_mut(&id));
        if let Some(watcher) = first {
            watcher.resumes = false;
        }
    }

    /// The next event to be delivered, and its watcher.
    pub fn next_outgoing(&mut self) -> Option<(u32, FileEvent)> {
        self.outgoing.pop_front()
    }
}
