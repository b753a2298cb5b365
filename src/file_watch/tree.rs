//! The directories of a watcher: one, or all of a tree.

use super::node::{About, DirectoryId, DirectoryNode};
use super::path::join;
use super::queue::QueuedEvent;
use super::state::{Files, Watcher};
use super::types::AT_A_TIME;
use crate::errno::Errno;
use crate::hash::Map;
use crate::util::alloc::{TryMap, TryVec, try_concat};

/// A path of names from the last to the first, and of one behind them. It has
/// just the room that it needs: to give some back may take memory.
fn join_all(names: &[&[u8]], last: &[u8]) -> Result<Box<[u8]>, Errno> {
    let names = names.iter().rev().flat_map(|name| [*name, b"/".as_slice()]);
    try_concat(names.chain([last])).ok_or(Errno::ENOMEM)
}

impl Watcher {
    /// The path of an entry of a directory, below what is watched.
    pub fn below(&self, watch: i32, name: &[u8]) -> Result<Box<[u8]>, Errno> {
        let mut names = Vec::new();
        let mut cursor = self.nodes.get(&watch);
        while let Some(node) = cursor.filter(|node| node.parent >= 0) {
            names.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            names.push_reserved(&*node.name);
            cursor = self.nodes.get(&node.parent);
        }
        if name.is_empty()
            && let Some((first, rest)) = names.split_first()
        {
            return join_all(rest, first);
        }
        join_all(&names, name)
    }

    pub(super) fn child(&self, parent: i32, name: &[u8]) -> Option<i32> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// Which directory is meant by an event of this name that ends at `end` in
    /// inotify's queue.
    pub(super) fn about(&self, parent: i32, name: &[u8], end: u64) -> About {
        let Some(child) = self.child(parent, name) else { return About::Another };
        match self.nodes.get(&child) {
            Some(node) if end > node.sure => About::This(child),
            Some(node) if end > node.since => About::Unsure(child),
            _ => About::Another,
        }
    }

    /// The entries of a directory change: forgets which one in it had lost its
    /// name just before. That one, if the change is about this name.
    pub fn take_displaced(&mut self, watch: i32, name: &[u8]) -> Option<i32> {
        let displaced = self.displaced(watch, name);
        self.nodes.get_mut(&watch)?.displaced = None;
        displaced
    }

    fn displaced(&self, watch: i32, name: &[u8]) -> Option<i32> {
        let displaced = self.nodes.get(&watch)?.displaced?;
        let node = self.nodes.get(&displaced)?;
        (node.parent == watch && *node.name == *name).then_some(displaced)
    }

    /// The directories that may have been renamed: the one that has the name,
    /// and the one that had it just before.
    pub(super) fn may_have_moved(&self, from: &QueuedEvent) -> impl Iterator<Item = i32> {
        let child = match self.about(from.watch, &from.name, from.end) {
            About::This(child) | About::Unsure(child) => Some(child),
            About::Another => None,
        };
        child.into_iter().chain(self.displaced(from.watch, &from.name))
    }

    /// A name becomes another directory's. The one that had it is deleted,
    /// or exchanged: then the next change of the entries says what became of
    /// it.
    pub(super) fn displace(&mut self, watch: i32, child: i32) {
        self.unlink(child);
        if let Some(node) = self.nodes.get_mut(&watch) {
            node.displaced = Some(child);
        }
    }

    /// Takes a directory out of the one that it lies in. It keeps its path,
    /// for the events about it that are yet to be reported.
    pub(super) fn unlink(&mut self, watch: i32) {
        let Some(node) = self.nodes.get_mut(&watch) else { return };
        let (parent, name) = (node.parent, std::mem::take(&mut node.name));
        if let Some(parent) = self.nodes.get_mut(&parent)
            && parent.children.get(&name) == Some(&watch)
        {
            parent.children.remove(&name);
        }
        if let Some(node) = self.nodes.get_mut(&watch) {
            node.name = name;
        }
    }

    fn insert(
        &mut self,
        watch: i32,
        node: DirectoryNode,
        location: (i32, &[u8]),
    ) -> Result<(), Errno> {
        self.nodes.try_put(watch, node)?;
        self.link(watch, location.0, location.1).inspect_err(|_| drop(self.nodes.remove(&watch)))
    }

    /// Puts what is in a directory into the list of what is to be forgotten,
    /// which goes through the parents of its directories.
    fn forget_children(&mut self, node: DirectoryNode) {
        for child in node.children.into_values() {
            if let Some(node) = self.nodes.get_mut(&child) {
                node.parent = std::mem::replace(&mut self.forgotten, child);
            }
        }
    }

    /// Whether a directory is another one, or lies in it.
    fn is_below(&self, watch: i32, above: i32) -> bool {
        let mut cursor = watch;
        while cursor != above {
            let Some(node) = self.nodes.get(&cursor) else { return false };
            cursor = node.parent;
        }
        true
    }

    /// Puts it into another one, whose circle it must not close.
    pub(super) fn link(&mut self, watch: i32, parent: i32, name: &[u8]) -> Result<(), Errno> {
        if self.is_below(parent, watch) {
            return Err(Errno::ELOOP);
        }
        if parent >= 0 && !self.nodes.contains_key(&parent) {
            return Err(Errno::ENOENT);
        }
        let (key, name) = (join(name, b"")?, join(name, b"")?);
        if let Some(above) = self.nodes.get_mut(&parent) {
            above.children.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            above.children.insert_reserved(key, watch);
        }
        if let Some(node) = self.nodes.get_mut(&watch) {
            (node.parent, node.name) = (parent, name);
        }
        Ok(())
    }
}

// The directories of watchers.
impl Files {
    /// Takes a directory, or a file, that is watched into a watcher; where
    /// that fails it is not watched.
    pub(super) fn insert(
        &mut self,
        id: u32,
        watch: i32,
        location: (i32, &[u8]),
        (since, identity): (u64, DirectoryId),
    ) -> Result<(), Errno> {
        let sure = self.end_of_queue();
        let Some(watcher) = self.watchers.get_mut(&id) else { return Err(Errno::ENOENT) };
        let node = DirectoryNode {
            parent: location.0,
            name: Box::default(),
            children: Map::default(),
            identity,
            displaced: None,
            since,
            sure,
            is_unmounted: false,
        };
        watcher.insert(watch, node, location).inspect_err(|_| self.unsubscribe(id, watch))
    }

    /// A directory is not in the tree any more, nor what is in it, which may
    /// be much: that goes in pieces, before anything else is done.
    pub(super) fn forget(&mut self, id: u32, watch: i32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        watcher.unlink(watch);
        let Some(node) = watcher.nodes.remove(&watch) else { return };
        let is_first = watcher.forgotten < 0;
        watcher.forget_children(node);
        let has_more = watcher.forgotten >= 0;
        self.unsubscribe(id, watch);
        if has_more && is_first && !self.backlog.forget_first(id) {
            while self.forget_more(id) {}
        }
    }

    /// Forgets some more; false: that was all.
    pub(super) fn forget_more(&mut self, id: u32) -> bool {
        for _ in 0..AT_A_TIME / 8 {
            let Some(watcher) = self.watchers.get_mut(&id) else { return false };
            let watch = watcher.forgotten;
            let Some(node) = watcher.nodes.remove(&watch) else {
                watcher.forgotten = -1;
                return false;
            };
            watcher.forgotten = node.parent;
            watcher.forget_children(node);
            self.unsubscribe(id, watch);
        }
        true
    }

    /// Nothing of a watcher's is watched any more.
    pub(super) fn detach(&mut self, id: u32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        watcher.root = -1;
        let nodes = std::mem::take(&mut watcher.nodes);
        let before = watcher.before.take().unwrap_or_default();
        for number in nodes.into_keys().chain(before.into_keys()) {
            self.unsubscribe(id, number);
        }
        self.backlog.drop_watcher(id);
        self.unresolved_moves.retain(|scan| scan.watcher != id);
    }
}
