//! What follows from inotify's events: which watchers are notified, and how the
//! trees change.

use super::queue::QueuedEvent;
use super::state::Files;
use super::subscribers::WatchSubscriber;
use super::types::{ENTERED, ENTRIES, ERROR, FileEvent, GONE, MOVED, REPLACED};
use crate::errno::Errno;
use crate::util::alloc::{TryDeque, TryVec};

/// What a watcher is to be notified of, by places in a tree.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub mask: u32,
    pub errno: Option<Errno>,
    pub location: (i32, &'a [u8]),
    pub before: Option<(i32, &'a [u8])>,
}

/// An entry of a directory, and the end of the event about it in inotify's
/// queue.
#[derive(Clone, Copy)]
pub(super) struct EntryAt<'a> {
    pub watch: i32,
    pub name: &'a [u8],
    pub end: u64,
}

impl<'a> EntryAt<'a> {
    fn of(event: &'a QueuedEvent) -> Self {
        Self { watch: event.watch, name: &event.name, end: event.end }
    }
}

impl<'a> Outgoing<'a> {
    pub fn entry(mask: u32, watch: i32, name: &'a [u8]) -> Self {
        Self { mask, errno: None, location: (watch, name), before: None }
    }
}

// Notifying watchers.
impl Files {
    /// Notifies a watcher of what it asked for, and of what all are notified
    /// of.
    pub(super) fn notify(&mut self, id: u32, outgoing: Outgoing<'_>) {
        const ALWAYS: u32 =
            ERROR | REPLACED | GONE | libc::IN_Q_OVERFLOW | libc::IN_IGNORED | libc::IN_UNMOUNT;
        let Some(watcher) = self.watchers.get(&id) else { return };
        let mask = outgoing.mask & (watcher.mask | ALWAYS);
        if mask == 0 {
            return;
        }
        let both = mask & MOVED == MOVED;
        let name = watcher.below(outgoing.location.0, outgoing.location.1);
        let old_name = match outgoing.before.filter(|_| both) {
            Some((watch, name)) => watcher.below(watch, name),
            None => Ok(Box::default()),
        };
        let has_room = self.outgoing.try_reserve(1).is_ok();
        let (Ok(name), Ok(old_name), true) = (name, old_name, has_room) else {
            return self.set_overflowed(id, outgoing.mask);
        };
        let event = FileEvent {
            mask: mask | outgoing.mask & libc::IN_ISDIR,
            errno: outgoing.errno,
            name,
            old_name,
            ..self.number(0)
        };
        self.outgoing.push_back_reserved((id, event));
    }

    /// There is no memory for an event: that events were lost is reported as
    /// soon as there is.
    fn set_overflowed(&mut self, id: u32, mask: u32) {
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.has_lost = true;
            watcher.has_ended |= mask & libc::IN_IGNORED != 0;
            self.overflowed = true;
        }
    }

    /// A directory, or this entry of it, could not be watched, or not be read.
    pub(super) fn report_failure(&mut self, id: u32, watch: i32, name: &[u8], errno: Errno) {
        self.notify(id, Outgoing { errno: Some(errno), ..Outgoing::entry(ERROR, watch, name) });
    }

    /// Reports the end: nothing comes after it.
    pub(super) fn report_end(&mut self, id: u32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let root = std::mem::replace(&mut watcher.root, -1);
        self.end_rescan(id);
        self.unresolved_moves.retain(|scan| scan.watcher != id);
        self.backlog.drop_watcher(id);
        self.forget(id, root);
        self.notify(id, Outgoing::entry(libc::IN_IGNORED, -1, b""));
    }
}

// What inotify says.
impl Files {
    pub(super) fn take(&mut self, event: &QueuedEvent) {
        match event.mask {
            mask if mask & libc::IN_Q_OVERFLOW != 0 => self.take_overflow(),
            mask if mask & libc::IN_IGNORED != 0 => self.take_end(event.watch),
            _ => self.for_subscribers(event, |files, id| files.take_for(id, event)),
        }
    }

    /// A rename, both of whose directories are watched.
    pub(super) fn take_pair(&mut self, from: &QueuedEvent, to: &QueuedEvent) {
        // Before either half is taken, which may change what is watched.
        let mut others = self.users_of(to);
        others.retain(|subscriber| !self.is_subscriber(subscriber.watcher, from.watch));
        self.for_subscribers(from, |files, id| {
            if files.is_subscriber(id, to.watch) {
                files.take_move(id, from, to)
            } else {
                files.take_for(id, from)
            }
        });
        for subscriber in others {
            self.take_for(subscriber.watcher, to);
        }
    }

    /// Calls `notify` for each watcher that is notified of this event.
    fn for_subscribers(&mut self, event: &QueuedEvent, mut notify: impl FnMut(&mut Self, u32)) {
        for subscriber in self.users_of(event) {
            notify(self, subscriber.watcher);
        }
    }

    fn users_of(&mut self, event: &QueuedEvent) -> Vec<WatchSubscriber> {
        let mut subscribers = Vec::new();
        let Some(watch) = self.watches.get(&event.watch) else { return subscribers };
        let is_later = |subscriber: &WatchSubscriber| event.end > subscriber.since;
        if subscribers.try_extend(watch.subscribers().copied().filter(is_later)).is_err() {
            self.lost = true;
            subscribers.clear();
        }
        subscribers
    }

    fn take_for(&mut self, id: u32, event: &QueuedEvent) {
        if self.take_followed(id, event, None) {
            return;
        }
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let outgoing = Outgoing::entry(event.mask, event.watch, &event.name);
        if event.name.is_empty() {
            let is_root = watcher.root == event.watch;
            // The rest is reported by the watch of the directory that it
            // lies in, in the same tree.
            if is_root || event.mask & libc::IN_UNMOUNT != 0 {
                self.notify(id, outgoing);
            }
            if event.mask & libc::IN_UNMOUNT != 0 {
                self.mark_unmounted(id, event.watch);
            }
            if is_root && event.mask & libc::IN_MOVE_SELF != 0 {
                self.take_root_moved(id);
            }
            return;
        }
        if !watcher.recursive {
            return self.notify(id, outgoing);
        }
        if event.mask & ENTRIES == 0 {
            return self.notify(id, outgoing);
        }
        let displaced = watcher.take_displaced(event.watch, &event.name);
        self.notify(id, outgoing);
        if event.is_directory() {
            self.take_directory(id, event, displaced);
        }
    }

    /// A directory came into another one, or went.
    fn take_directory(&mut self, id: u32, event: &QueuedEvent, displaced: Option<i32>) {
        let entry = EntryAt::of(event);
        if event.mask & MOVED != 0 {
            self.look_up_later(id, event.watch, &event.name);
        }
        match event.mask {
            mask if mask & ENTERED != 0 => self.add_entry(id, entry),
            mask if mask & libc::IN_MOVED_FROM != 0 => self.move_out(id, entry, displaced),
            _ => self.remove_deleted(id, entry),
        }
    }

    /// A rename whose old and new name are both in directories of the watcher.
    fn take_move(&mut self, id: u32, from: &QueuedEvent, to: &QueuedEvent) {
        if self.take_followed(id, from, Some(to)) {
            return;
        }
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let displaced = watcher.take_displaced(from.watch, &from.name);
        watcher.take_displaced(to.watch, &to.name);
        let recursive = watcher.recursive;
        self.notify_move(id, from, to);
        if recursive && to.is_directory() {
            self.look_up_later(id, from.watch, &from.name);
            self.look_up_later(id, to.watch, &to.name);
            self.apply_rename(id, EntryAt::of(from), EntryAt::of(to), displaced);
        }
    }

    pub(super) fn notify_move(&mut self, id: u32, from: &QueuedEvent, to: &QueuedEvent) {
        let Some(watcher) = self.watchers.get(&id) else { return };
        let (before, location) = ((from.watch, &*from.name), (to.watch, &*to.name));
        let both = Outgoing::entry(from.mask | to.mask, location.0, location.1);
        let asked = watcher.mask & MOVED;
        let outgoing =
            if asked == libc::IN_MOVED_FROM { Outgoing { location: before, ..both } } else { both };
        self.notify(id, Outgoing { before: Some(before), ..outgoing });
    }

    /// The root of a watcher has another name: a tree is found by it.
    fn take_root_moved(&mut self, id: u32) {
        let is_tree = self.watchers.get(&id).is_some_and(|watcher| watcher.recursive);
        if is_tree && self.is_root_lost(id) {
            self.report_end(id);
        }
    }

    /// A watch is gone: its file was deleted, or unmounted.
    fn take_end(&mut self, number: i32) {
        let Some(watch) = self.watches.remove(&number) else { return };
        for subscriber in watch.subscribers() {
            let root = self.watchers.get(&subscriber.watcher).map(|watcher| watcher.root);
            if self.take_followed_end(subscriber.watcher, number) {
                continue;
            }
            if root == Some(number) {
                self.report_end(subscriber.watcher);
            } else {
                self.forget_ended(subscriber.watcher, number);
            }
        }
    }
}
