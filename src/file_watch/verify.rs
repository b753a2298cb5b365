//! Whether the names that renames changed lead to the directories that they
//! are known to lead to.
//!
//! A tree is followed by what inotify reports, in its order, and read as it is
//! by then: where another thread renames all the time, the one can be taken
//! for the other. So each name that a rename has changed is looked up again,
//! when inotify has nothing more to report.

use super::backlog::Renamed;
use super::node::DirectoryId;
use super::open::is_gone;
use super::path::{c_str, join, terminated};
use super::state::{Files, Watcher};
use crate::sys::directory::{self, To};
use crate::util::alloc::TryDeque;

/// How many names wait to be looked up. More change at once only where they
/// change again and again.
const MOST: usize = 4096;

/// What a name leads to, compared with what is known.
enum Found {
    AsKnown,
    /// Another directory, or one that is not known.
    Other,
    /// No directory, although one is known.
    Nothing,
}

impl Files {
    /// A rename has changed a name, and perhaps another one has since.
    pub(super) fn look_up_later(&mut self, watcher: u32, parent: i32, name: &[u8]) {
        // Without memory for it the tree is followed all the same.
        if self.renamed.len() < MOST
            && !self.is_drained()
            && let Ok(name) = join(name, b"")
        {
            let _ = self.renamed.try_push_back(Renamed { watcher, parent, name });
        }
    }

    /// Looks up the next name, inotify having nothing more to report; false:
    /// none is left.
    pub(super) fn look_up_one(&mut self) -> bool {
        let Some(one) = self.renamed.front() else { return false };
        let found = self.watchers.get(&one.watcher).map_or(Found::AsKnown, |it| it.look_up(one));
        self.read_ahead();
        if !self.queue.is_empty() {
            // What was reported in the middle comes first.
            return true;
        }
        let Some(Renamed { watcher: id, parent, name }) = self.renamed.pop_front() else {
            return false;
        };
        let known = self.watchers.get(&id).and_then(|watcher| watcher.child(parent, &name));
        if matches!(found, Found::AsKnown) {
            return true;
        }
        if let Some(known) = known {
            self.forget(id, known);
        }
        if matches!(found, Found::Other) {
            self.scan(id, parent, &name);
        }
        true
    }
}

impl Watcher {
    fn look_up(&self, one: &Renamed) -> Found {
        if !self.nodes.contains_key(&one.parent) || self.before.is_some() {
            return Found::AsKnown;
        }
        let known = self.child(one.parent, &one.name);
        let identity = known.and_then(|known| self.nodes.get(&known)).map(|node| node.identity);
        let Ok(root) = self.open_root(To::Find) else { return Found::AsKnown };
        let open = || {
            let path = terminated(&self.below(one.parent, &one.name)?)?;
            // One that may not be read was reported, and is not watched.
            let to = if known.is_some() { To::Find } else { To::Read };
            DirectoryId::of(&directory::open_below(root.raw(), c_str(&path)?, to)?)
        };
        match open() {
            Ok(found) if Some(found) == identity => Found::AsKnown,
            Ok(_) => Found::Other,
            Err(errno) if is_gone(errno) && known.is_some() => Found::Nothing,
            Err(_) => Found::AsKnown,
        }
    }
}
