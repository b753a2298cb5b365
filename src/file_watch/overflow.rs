//! After inotify has lost something: trees are read again.

use super::backlog::{Scan, ScanStep};
use super::events::Outgoing;
use super::node::DirectoryNode;
use super::state::{Files, Watcher};
use crate::errno::Errno;
use crate::hash::Map;
use crate::util::alloc::{TryMap, TryVec};

impl Files {
    /// Reads a watcher's directories again, after what it may have missed.
    /// The watches stay: each one that is removed is another event.
    fn rescan(&mut self, id: u32) -> Result<(), Errno> {
        self.backlog.drop_watcher(id);
        self.unresolved_moves.retain(|scan| scan.watcher != id);
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        self.rescanning.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let step = ScanStep::Read(watcher.root);
        self.backlog.push(Scan { watcher: id, reports_new: false, step })?;
        watcher.begin_rescan()?;
        self.rescanning.push_reserved(id);
        Ok(())
    }

    /// What has no place in the tree now is watched no more.
    pub(super) fn end_rescan(&mut self, id: u32) -> bool {
        let Some(watcher) = self.watchers.get_mut(&id) else { return false };
        let Some(before) = watcher.before.take() else { return false };
        for number in before.into_keys() {
            if !self.is_known(id, number) {
                self.unsubscribe(id, number);
            }
        }
        true
    }

    /// All that were lost in an overflow are found.
    pub(super) fn finish_rescans(&mut self) {
        for id in std::mem::take(&mut self.rescanning) {
            // After that: of what the program finds then nothing is missed.
            if self.end_rescan(id) {
                self.notify(id, Outgoing::entry(libc::IN_Q_OVERFLOW, -1, b""));
            }
        }
    }

    /// inotify has lost some: everything may be other than it was.
    pub(super) fn take_overflow(&mut self) {
        let mut ids = Vec::new();
        let watched = self.watchers.iter().filter(|(_, one)| one.is_watching());
        if ids.try_extend(watched.map(|(id, _)| *id)).is_err() {
            self.lost = true;
            return;
        }
        for id in ids {
            if !self.watchers.get(&id).is_some_and(|watcher| watcher.recursive) {
                self.look_again(id);
                self.notify(id, Outgoing::entry(libc::IN_Q_OVERFLOW, -1, b""));
            } else if self.rescan(id).is_err() {
                self.lost = true;
            }
        }
    }

    /// A directory cannot be opened now, but was watched before an overflow:
    /// it is still, and what was in it may be there. False: it was not known.
    pub(super) fn enter_as_before(&mut self, id: u32, parent: i32, name: &[u8]) -> bool {
        let before = self.watchers.get(&id).and_then(|watcher| watcher.before.as_ref());
        let above = before.and_then(|before| before.get(&parent));
        let Some(number) = above.and_then(|above| above.children.get(name)).copied() else {
            return false;
        };
        self.take_back(id, parent, name, number)
    }

    /// The same of all that was in a directory which cannot be read now.
    pub(super) fn read_as_before(&mut self, id: u32, watch: i32) -> bool {
        let Some(node) = self.node_before(id, watch) else { return false };
        let children = std::mem::take(&mut node.children);
        for (name, number) in &children {
            self.take_back(id, watch, name, *number);
        }
        if let Some(node) = self.node_before(id, watch) {
            node.children = children;
        }
        true
    }

    fn node_before(&mut self, id: u32, watch: i32) -> Option<&mut DirectoryNode> {
        self.watchers.get_mut(&id)?.before.as_mut()?.get_mut(&watch)
    }

    fn take_back(&mut self, id: u32, parent: i32, name: &[u8], number: i32) -> bool {
        if self.is_known(id, number) {
            return false;
        }
        let Some(node) = self.node_before(id, number) else { return false };
        let known = (node.since, node.identity);
        let taken = self
            .insert(id, number, (parent, name), known)
            .and_then(|()| self.read_later(id, number, false));
        self.lost |= taken.is_err();
        true
    }
}

impl Watcher {
    /// Of the directories only the root is known, until the others are found.
    fn begin_rescan(&mut self) -> Result<(), Errno> {
        let Some(root) = self.nodes.get(&self.root).map(DirectoryNode::without_children) else {
            return Err(Errno::ENOENT);
        };
        let mut fresh = Map::default();
        fresh.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        if let Some(before) = &mut self.before {
            // Those of an earlier overflow that were not found yet stay.
            before.try_reserve(self.nodes.len()).map_err(|_| Errno::ENOMEM)?;
        }
        fresh.insert_reserved(self.root, root);
        let nodes = std::mem::replace(&mut self.nodes, fresh);
        match &mut self.before {
            Some(before) => {
                for (number, node) in nodes {
                    before.insert_reserved(number, node);
                }
            }
            None => self.before = Some(nodes),
        }
        Ok(())
    }
}
