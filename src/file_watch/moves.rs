//! What becomes of a tree's directories by what inotify reports: in its order,
//! whatever has their names by now.

use super::events::EntryAt;
use super::node::About;
use super::path::join;
use super::queue::{InotifyQueue, QueuedEvent};
use super::state::{Files, Watcher};
use super::subscribers::InotifyWatch;
use crate::errno::Errno;
use crate::hash::Map;

/// Which directory a rename moved.
enum Mover {
    This(i32),
    /// That one, or one that had the name before.
    Unsure(i32),
    /// One that is not watched.
    Unknown,
}

/// Whether it is known which directory a rename moved, of those that it may
/// have moved for some watcher.
pub(super) fn is_settled(
    (watches, watchers): (&Map<i32, InotifyWatch>, &Map<u32, Watcher>),
    queue: &InotifyQueue,
    from: &QueuedEvent,
    end: u64,
) -> bool {
    let Some(watch) = watches.get(&from.watch).filter(|_| from.is_directory()) else { return true };
    let (mut is_settled, mut last) = (true, -1);
    for watcher in watch.subscribers().filter_map(|subscriber| watchers.get(&subscriber.watcher)) {
        // Mostly it is the same one for all.
        for mover in watcher.may_have_moved(from) {
            if std::mem::replace(&mut last, mover) == mover {
                continue;
            }
            match queue.has_moved(mover, from.watch, end) {
                Some(true) => return true,
                known => is_settled &= known.is_some(),
            }
        }
    }
    is_settled
}

impl Files {
    /// Which of the watched directories a rename moved out of its place; the
    /// events of its halves end at `end`.
    fn mover(&self, id: u32, from: EntryAt<'_>, displaced: Option<i32>, end: u64) -> Mover {
        let Some(watcher) = self.watchers.get(&id) else { return Mover::Unknown };
        let has_moved = |watch: &i32| self.queue.has_moved(*watch, from.watch, end) == Some(true);
        match watcher.about(from.watch, from.name, from.end) {
            About::This(child) | About::Unsure(child) if has_moved(&child) => Mover::This(child),
            about => match (displaced.filter(has_moved), about) {
                (Some(displaced), _) => Mover::This(displaced),
                (None, About::Unsure(child)) => Mover::Unsure(child),
                // The directory that has the name got it when another lost it.
                (None, _) => Mover::Unknown,
            },
        }
    }

    /// A directory was moved inside the tree. What is known of names follows
    /// inotify's order, whatever has those names by now.
    pub(super) fn apply_rename(
        &mut self,
        id: u32,
        from: EntryAt<'_>,
        to: EntryAt<'_>,
        displaced: Option<i32>,
    ) {
        match self.mover(id, from, displaced, to.end) {
            Mover::This(child) => {
                if let Some(watcher) = self.watchers.get_mut(&id) {
                    watcher.unlink(child);
                }
                self.displace_entry(id, to);
                if self.relink(id, child, to).is_err() {
                    self.forget(id, child);
                    self.scan(id, to.watch, to.name);
                }
            }
            Mover::Unsure(child) => {
                self.forget(id, child);
                self.scan(id, from.watch, from.name);
                self.add_entry(id, to);
            }
            Mover::Unknown => self.add_entry(id, to),
        }
        self.has_moved = true;
    }

    /// A name becomes another directory's. If the directory that has the name
    /// was found there later, inotify will report how it came there.
    fn displace_entry(&mut self, id: u32, to: EntryAt<'_>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match (watcher.about(to.watch, to.name, to.end), watcher.child(to.watch, to.name)) {
            (About::This(child), _) => watcher.displace(to.watch, child),
            (_, Some(child)) => self.forget(id, child),
            (_, None) => {}
        }
    }

    fn relink(&mut self, id: u32, watch: i32, to: EntryAt<'_>) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        watcher.link(watch, to.watch, to.name)?;
        if let Some(node) = watcher.nodes.get_mut(&watch) {
            (node.since, node.sure) = (to.end, to.end);
        }
        Ok(())
    }

    /// A directory of a tree was moved out of it.
    pub(super) fn move_out(&mut self, id: u32, from: EntryAt<'_>, displaced: Option<i32>) {
        match self.mover(id, from, displaced, from.end) {
            Mover::This(child) => self.forget(id, child),
            Mover::Unsure(child) => {
                self.forget(id, child);
                self.scan(id, from.watch, from.name);
            }
            Mover::Unknown => {}
        }
        self.has_moved = true;
    }

    /// One is new. If it replaced another, that was empty, and its watch may
    /// go later; or it was exchanged for it.
    pub(super) fn add_entry(&mut self, id: u32, entry: EntryAt<'_>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match watcher.about(entry.watch, entry.name, entry.end) {
            About::This(child) => watcher.displace(entry.watch, child),
            About::Unsure(child) => self.forget(id, child),
            About::Another => {}
        }
        self.scan(id, entry.watch, entry.name);
    }

    /// A directory was deleted. inotify may end its watch later, when no
    /// process has it open; its name is free.
    pub(super) fn remove_deleted(&mut self, id: u32, entry: EntryAt<'_>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match watcher.about(entry.watch, entry.name, entry.end) {
            About::This(child) => watcher.unlink(child),
            About::Unsure(child) => {
                self.forget(id, child);
                self.scan(id, entry.watch, entry.name);
            }
            About::Another => {}
        }
    }

    /// The watch of a directory is gone. If a file system was unmounted, there
    /// is another directory beneath.
    pub(super) fn forget_ended(&mut self, id: u32, watch: i32) {
        let node = self.watchers.get(&id).and_then(|watcher| watcher.nodes.get(&watch));
        let beneath =
            node.filter(|node| node.is_unmounted).map(|node| (node.parent, join(&node.name, b"")));
        self.forget(id, watch);
        match beneath {
            Some((parent, Ok(name))) => self.scan(id, parent, &name),
            Some((_, Err(_))) => self.lost = true,
            None => {}
        }
    }

    pub(super) fn mark_unmounted(&mut self, id: u32, watch: i32) {
        let watcher = self.watchers.get_mut(&id);
        if let Some(node) = watcher.and_then(|watcher| watcher.nodes.get_mut(&watch)) {
            node.is_unmounted = true;
        }
    }
}
