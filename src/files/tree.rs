//! The directories of a watcher: one, or all of a tree.

use super::notes::{Place, Told};
use super::{ENTERED, Files, Watcher, join};
use crate::errno::Errno;
use crate::hash::{Map, Set};
use crate::sys::directory;
use crate::sys::fd::Fd;
use crate::util::alloc::{TryDeque, TryMap, TrySet, TryVec, try_concat};
use std::collections::VecDeque;
use std::ffi::CStr;

/// A directory that is watched, or the one file that is.
pub(super) struct Node {
    /// The watch of the directory that it lies in; -1: none, it is the root.
    parent: i32,
    name: Box<[u8]>,
    /// Those in it, by their names.
    pub children: Map<Box<[u8]>, i32>,
    seen: Option<Seen>,
    /// Its name was found out between these places of inotify's queue: what
    /// was said before the first is about others that had the name.
    since: u64,
    sure: u64,
    /// Its file system was unmounted.
    is_unmounted: bool,
}

/// Which directory a note is about, of those that have a name one after
/// another.
#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    /// The one that is known under it.
    This(i32),
    /// That one, or one before: it was said while the name was looked up.
    Unsure(i32),
    /// One before, or one that is not known.
    Another,
}

/// What was found in a directory when it was read: up to there inotify may
/// tell of it once more.
struct Seen {
    until: u64,
    names: Set<Box<[u8]>>,
}

/// A directory that is to be watched, and read.
pub(super) struct Scan {
    pub watcher: u32,
    pub parent: i32,
    pub name: Box<[u8]>,
    /// What is in it is told as new.
    pub tells: bool,
}

/// What is no failure: the directory is gone, or is none any more.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
}

/// Whether a directory can be left out, of a tree that is added: the program
/// may not read it.
fn is_closed(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM)
}

/// A path of names from the last to the first, and of one behind them. It has
/// just the room that it needs: to give some back may take memory.
fn join_all(names: &[&[u8]], last: &[u8]) -> Result<Box<[u8]>, Errno> {
    let names = names.iter().rev().flat_map(|name| [*name, b"/".as_slice()]);
    try_concat(names.chain([last])).ok_or(Errno::ENOMEM)
}

impl Watcher {
    /// What inotify is asked for.
    pub(super) fn wanted(&self) -> u32 {
        let tree = ENTERED | libc::IN_MOVED_FROM | libc::IN_MOVE_SELF;
        self.mask | if self.recursive { tree } else { 0 }
    }

    /// The path of an entry of a directory, below what is watched.
    pub fn below(&self, watch: i32, name: &[u8]) -> Result<Box<[u8]>, Errno> {
        let mut names = Vec::new();
        let mut at = self.nodes.get(&watch);
        while let Some(node) = at.filter(|node| node.parent >= 0) {
            names.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            names.push_reserved(&*node.name);
            at = self.nodes.get(&node.parent);
        }
        if name.is_empty()
            && let Some((first, rest)) = names.split_first()
        {
            return join_all(rest, first);
        }
        join_all(&names, name)
    }

    /// The same, as the system wants it.
    pub(super) fn path(&self, watch: i32, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let path = join(&self.path, &self.below(watch, name)?)?;
        let mut path = path.into_vec();
        path.try_reserve_exact(1).map_err(|_| Errno::ENOMEM)?;
        path.push_reserved(0);
        Ok(path)
    }

    /// Whether inotify tells of an entry that was told of when its directory
    /// was read. `arrives`: as one that is new.
    pub fn was_seen(&mut self, watch: i32, name: &[u8], end: u64, arrives: bool) -> bool {
        let Some(node) = self.nodes.get_mut(&watch) else { return false };
        let Some(seen) = &mut node.seen else { return false };
        if end > seen.until {
            node.seen = None;
            return false;
        }
        seen.names.remove(name) && arrives
    }

    fn child(&self, parent: i32, name: &[u8]) -> Option<i32> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// Which directory somebody speaks of who had said this by `end`.
    fn about(&self, parent: i32, name: &[u8], end: u64) -> About {
        let Some(child) = self.child(parent, name) else { return About::Another };
        match self.nodes.get(&child) {
            Some(node) if end > node.sure => About::This(child),
            Some(node) if end > node.since => About::Unsure(child),
            _ => About::Another,
        }
    }

    /// Takes a directory out of the one that it lies in. It has its path
    /// still, for what is yet to be told of it.
    fn unlink(&mut self, watch: i32) {
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

    /// Whether a directory is another one, or lies in it.
    fn is_below(&self, watch: i32, above: i32) -> bool {
        let mut at = watch;
        while at != above {
            let Some(node) = self.nodes.get(&at) else { return false };
            at = node.parent;
        }
        true
    }

    /// Puts it into another one, whose circle it must not close.
    fn link(&mut self, watch: i32, parent: i32, name: &[u8]) -> Result<(), Errno> {
        if self.is_below(parent, watch) {
            return Err(Errno::ELOOP);
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

// Trees.
impl Files {
    /// Has the root of a watcher watched, and of a tree read; what is yet to
    /// be watched. `strict`: all of it, or fails.
    pub(super) fn attach(
        &mut self,
        id: u32,
        strict: bool,
        scans: &mut VecDeque<Scan>,
    ) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let (path, flags, recursive) = (watcher.path(-1, b"")?, watcher.flags, watcher.recursive);
        let since = self.end_of_queue();
        let root = self.join_watch(id, &path, flags)?;
        if let Err(errno) = self.insert(id, root, (-1, b""), since) {
            self.leave_watch(id, root);
            return Err(errno);
        }
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.root = root;
        }
        if !recursive {
            return Ok(());
        }
        match self.list(id, root, false, scans) {
            Err(errno) if !strict && !is_gone(errno) => {
                self.list_as_before(id, root, scans);
                let scan = Scan { watcher: id, parent: -1, name: Box::default(), tells: false };
                self.tell_failure(&scan, errno);
                Ok(())
            }
            listed => listed,
        }
    }

    /// Watches some more of a tree that is being added; false: that was all.
    pub(super) fn attach_some(
        &mut self,
        scans: &mut VecDeque<Scan>,
        at_most: usize,
    ) -> Result<bool, Errno> {
        for _ in 0..at_most {
            let Some(scan) = scans.pop_front() else { return Ok(false) };
            match self.enter(&scan, scans) {
                Err(errno) if !is_gone(errno) && !is_closed(errno) => return Err(errno),
                entered => self.look_at(scan, entered, scans),
            }
        }
        Ok(true)
    }

    /// Nothing of a watcher's is watched any more.
    pub(super) fn detach(&mut self, id: u32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        watcher.root = -1;
        let nodes = std::mem::take(&mut watcher.nodes);
        let before = watcher.before.take().unwrap_or_default();
        for number in nodes.into_keys().chain(before.into_keys()) {
            self.leave_watch(id, number);
        }
        self.scans.retain(|scan| scan.watcher != id);
        self.claims.retain(|scan| scan.watcher != id);
    }

    fn insert(&mut self, id: u32, watch: i32, at: (i32, &[u8]), since: u64) -> Result<(), Errno> {
        let sure = self.end_of_queue();
        let Some(watcher) = self.watchers.get_mut(&id) else { return Err(Errno::ENOENT) };
        watcher.nodes.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let (parent, name, children) = (at.0, Box::default(), Map::default());
        let (seen, is_unmounted) = (None, false);
        let node = Node { parent, name, children, seen, since, sure, is_unmounted };
        watcher.nodes.insert_reserved(watch, node);
        let linked = watcher.link(watch, at.0, at.1);
        if linked.is_err() {
            watcher.nodes.remove(&watch);
        }
        linked
    }

    /// Does a scan that is due; what fails is told.
    pub(super) fn enter_or_tell(&mut self, scan: Scan, scans: &mut VecDeque<Scan>) {
        let entered = self.enter(&scan, scans);
        self.look_at(scan, entered, scans);
    }

    /// What comes of a scan's failure.
    fn look_at(&mut self, scan: Scan, entered: Result<(), Errno>, scans: &mut VecDeque<Scan>) {
        match entered {
            Ok(()) => {}
            Err(errno) if is_gone(errno) => {
                // Or the whole tree has another path, or the directory that
                // it lies in, of which inotify has yet to tell.
                if self.is_root_lost(scan.watcher) {
                    scans.retain(|other| other.watcher != scan.watcher);
                    self.tell_end(scan.watcher);
                } else if !self.is_in_place(scan.watcher, scan.parent) {
                    self.claim(scan);
                }
            }
            Err(errno) => self.tell_failure(&scan, errno),
        }
    }

    pub(super) fn is_root_lost(&self, id: u32) -> bool {
        let Some(watcher) = self.watchers.get(&id) else { return false };
        watcher.root >= 0 && !self.is_in_place(id, watcher.root)
    }

    /// Whether the path of a directory leads to it now.
    fn is_in_place(&self, id: u32, watch: i32) -> bool {
        let Some(watcher) = self.watchers.get(&id) else { return true };
        let Ok(path) = watcher.path(watch, b"") else { return true };
        let flags = if watch == watcher.root { watcher.flags } else { libc::IN_DONT_FOLLOW };
        self.probe(&path, flags) == Some(watch)
    }

    /// Watches a directory, and reads it.
    fn enter(&mut self, scan: &Scan, scans: &mut VecDeque<Scan>) -> Result<(), Errno> {
        const FLAGS: u32 = libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW;
        let Scan { watcher: id, parent, ref name, tells } = *scan;
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        // Should another one have the name by now, inotify will say so when
        // it has said what became of the one that is known.
        if !watcher.nodes.contains_key(&parent) || watcher.child(parent, name).is_some() {
            return Ok(());
        }
        let path = watcher.path(parent, name)?;
        let since = self.end_of_queue();
        let number = self.join_watch(id, &path, FLAGS)?;
        let is_known = |watcher: &Watcher| watcher.nodes.contains_key(&number);
        let is_known = self.watchers.get(&id).is_some_and(is_known);
        if !self.is_in_place(id, parent) {
            if !is_known {
                self.leave_watch(id, number);
            }
            return Err(Errno::ENOENT);
        }
        if is_known {
            // It was moved, which inotify has yet to tell; or it has two
            // places, by a mount.
            let name = join(name, b"")?;
            self.claim(Scan { watcher: id, parent, name, tells });
            return Ok(());
        }
        if let Err(errno) = self.insert(id, number, (parent, name), since) {
            self.leave_watch(id, number);
            return Err(errno);
        }
        match self.list(id, number, tells, scans) {
            Err(errno) if is_gone(errno) || !self.list_as_before(id, number, scans) => {
                self.forget(id, number);
                Err(errno)
            }
            listed => listed,
        }
    }

    /// A directory cannot be read now, but was before an overflow: what was
    /// in it may be there still. False: it was not known.
    fn list_as_before(&mut self, id: u32, watch: i32, scans: &mut VecDeque<Scan>) -> bool {
        let Some(before) = self.watchers.get(&id).and_then(|one| one.before.as_ref()) else {
            return false;
        };
        let Some(node) = before.get(&watch) else { return false };
        if scans.try_reserve(node.children.len()).is_err() {
            return false;
        }
        for name in node.children.keys() {
            let Ok(name) = join(name, b"") else { return false };
            scans.push_back_reserved(Scan { watcher: id, parent: watch, name, tells: false });
        }
        true
    }

    /// A directory cannot be watched until inotify has told what became of
    /// another one.
    fn claim(&mut self, scan: Scan) {
        if self.claims.try_reserve(1).is_ok() {
            self.claims.push_back_reserved(scan);
        } else {
            self.lost = true;
        }
    }

    /// Inotify has told something of directories: looks again for those that
    /// waited for it.
    fn claim_again(&mut self, id: u32) {
        if self.scans.try_reserve(self.claims.len()).is_err() {
            self.lost = true;
            return;
        }
        for _ in 0..self.claims.len() {
            let Some(scan) = self.claims.pop_front() else { return };
            let list = if scan.watcher == id { &mut self.scans } else { &mut self.claims };
            list.push_back_reserved(scan);
        }
    }

    /// Reads a directory that is watched by now: what came into it before is
    /// found here.
    fn list(
        &mut self,
        id: u32,
        watch: i32,
        tells: bool,
        scans: &mut VecDeque<Scan>,
    ) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let path = watcher.path(watch, b"")?;
        let path = CStr::from_bytes_with_nul(&path).map_err(|_| Errno::ENOENT)?;
        let follow = watcher.root == watch && watcher.flags & libc::IN_DONT_FOLLOW == 0;
        let directory = directory::open(path, follow)?;
        if !self.is_in_place(id, watch) {
            return Err(Errno::ENOENT);
        }
        let mut names = Set::default();
        self.read_entries(&directory, (id, watch, tells), &mut names, scans)?;
        let until = self.end_of_queue();
        let node = self.watchers.get_mut(&id).and_then(|watcher| watcher.nodes.get_mut(&watch));
        if let Some(node) = node.filter(|_| tells) {
            node.seen = Some(Seen { until, names });
        }
        Ok(())
    }

    fn read_entries(
        &mut self,
        directory: &Fd,
        (id, watch, tells): (u32, i32, bool),
        names: &mut Set<Box<[u8]>>,
        scans: &mut VecDeque<Scan>,
    ) -> Result<(), Errno> {
        let mut room = directory::Room::new();
        loop {
            let mut rest = directory::read(directory, &mut room)?;
            if rest.is_empty() {
                return Ok(());
            }
            while let Some((entry, after)) = directory::split(rest) {
                rest = after;
                if entry.is_dots() {
                    continue;
                }
                let is_directory = entry.is_directory(directory);
                if tells {
                    names.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                    names.insert_reserved(join(entry.name, b"")?);
                    let kind = if is_directory { libc::IN_ISDIR } else { 0 };
                    self.tell(id, Told::entry(libc::IN_CREATE | kind, watch, entry.name));
                }
                if is_directory {
                    scans.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                    let name = join(entry.name, b"")?;
                    scans.push_back_reserved(Scan { watcher: id, parent: watch, name, tells });
                }
            }
        }
    }

    /// A directory is not in the tree any more, nor what is in it.
    pub(super) fn forget(&mut self, id: u32, watch: i32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        watcher.unlink(watch);
        let mut next = Some(watch);
        let mut rest = Vec::new();
        while let Some(number) = next {
            let node = self.watchers.get_mut(&id).and_then(|one| one.nodes.remove(&number));
            self.leave_watch(id, number);
            let children = node.map(|node| node.children).unwrap_or_default();
            let _ = rest.try_extend(children.into_values());
            next = rest.pop();
        }
    }

    /// A directory was moved inside the tree. What is known of names follows
    /// inotify's order, whatever has those names by now.
    pub(super) fn follow(&mut self, id: u32, from: Place<'_>, to: Place<'_>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match watcher.about(from.watch, from.name, from.end) {
            About::This(child) => {
                watcher.unlink(child);
                self.make_way(id, to);
                if self.relink(id, child, to).is_err() {
                    self.forget(id, child);
                    self.scan(id, to.watch, to.name);
                }
            }
            About::Unsure(child) => {
                self.forget(id, child);
                self.scan(id, from.watch, from.name);
                self.arrive(id, to);
            }
            About::Another => self.arrive(id, to),
        }
        self.claim_again(id);
    }

    /// A name becomes another directory's. If one that has it was found there
    /// later, inotify will tell how it came there.
    fn make_way(&mut self, id: u32, to: Place<'_>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match (watcher.about(to.watch, to.name, to.end), watcher.child(to.watch, to.name)) {
            // It was empty, and is deleted.
            (About::This(child), _) => watcher.unlink(child),
            (_, Some(child)) => self.forget(id, child),
            (_, None) => {}
        }
    }

    fn relink(&mut self, id: u32, watch: i32, to: Place<'_>) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        watcher.link(watch, to.watch, to.name)?;
        if let Some(node) = watcher.nodes.get_mut(&watch) {
            (node.since, node.sure) = (to.end, to.end);
        }
        Ok(())
    }

    /// A directory of a tree was moved out of it.
    pub(super) fn lose(&mut self, id: u32, from: Place<'_>) {
        let Some(watcher) = self.watchers.get(&id) else { return };
        match watcher.about(from.watch, from.name, from.end) {
            About::This(child) => self.forget(id, child),
            About::Unsure(child) => {
                self.forget(id, child);
                self.scan(id, from.watch, from.name);
            }
            About::Another => {}
        }
        self.claim_again(id);
    }

    /// One is new. If it replaced another, that was empty, and its watch may
    /// go later.
    pub(super) fn arrive(&mut self, id: u32, at: Place<'_>) {
        self.bury(id, at);
        self.scan(id, at.watch, at.name);
    }

    /// One was deleted. Its watch may go later, when nobody has it open; its
    /// name is free.
    pub(super) fn bury(&mut self, id: u32, at: Place<'_>) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        match watcher.about(at.watch, at.name, at.end) {
            About::This(child) => watcher.unlink(child),
            About::Unsure(child) => {
                self.forget(id, child);
                self.scan(id, at.watch, at.name);
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

    pub(super) fn note_unmount(&mut self, id: u32, watch: i32) {
        let watcher = self.watchers.get_mut(&id);
        if let Some(node) = watcher.and_then(|watcher| watcher.nodes.get_mut(&watch)) {
            node.is_unmounted = true;
        }
    }

    /// A directory is new in a tree: it is to be watched, and what is in it
    /// told.
    fn scan(&mut self, id: u32, parent: i32, name: &[u8]) {
        if let Ok(name) = join(name, b"")
            && self.scans.try_reserve(1).is_ok()
        {
            self.scans.push_back_reserved(Scan { watcher: id, parent, name, tells: true });
        } else {
            self.lost = true;
        }
    }
}
