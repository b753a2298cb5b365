//! The directories of a watcher: one, or all of a tree.

use super::notes::Told;
use super::{ENTERED, Files, User, Watch, Watcher, join};
use crate::errno::Errno;
use crate::sys::{directory, inotify};
use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::CStr;

/// A directory that is watched, or the one file that is.
pub(super) struct Node {
    /// The watch of the directory that it lies in; -1: none, it is the root.
    parent: i32,
    name: Box<[u8]>,
    /// Those in it, by their names.
    pub children: HashMap<Box<[u8]>, i32>,
    seen: Option<Seen>,
}

/// What was found in a directory when it was read: up to there inotify may
/// tell of it once more.
struct Seen {
    until: u64,
    names: HashSet<Box<[u8]>>,
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
fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP)
}

/// Whether a directory can be left out, of a tree that is added: the program
/// may not read it.
fn is_closed(errno: Errno) -> bool {
    matches!(errno, Errno::EACCES | Errno::EPERM)
}

impl Watcher {
    /// What inotify is asked for.
    fn wanted(&self) -> u32 {
        let tree = ENTERED | libc::IN_MOVED_FROM | libc::IN_MOVE_SELF;
        self.mask | if self.recursive { tree } else { 0 }
    }

    /// The path of an entry of a directory, below what is watched.
    pub fn below(&self, watch: i32, name: &[u8]) -> Result<Box<[u8]>, Errno> {
        let mut names = Vec::new();
        let mut at = self.nodes.get(&watch);
        while let Some(node) = at.filter(|node| node.parent >= 0) {
            names.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            names.push(&*node.name);
            at = self.nodes.get(&node.parent);
        }
        let len = names.iter().map(|name| name.len() + 1).sum::<usize>();
        let mut path = Vec::new();
        path.try_reserve_exact(len + name.len()).map_err(|_| Errno::ENOMEM)?;
        for name in names.into_iter().rev() {
            path.extend_from_slice(name);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        if name.is_empty() {
            path.pop();
        }
        Ok(path.into_boxed_slice())
    }

    /// The same, as the system wants it.
    fn path(&self, watch: i32, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let path = join(&self.path, &self.below(watch, name)?)?;
        let mut path = path.into_vec();
        path.try_reserve_exact(1).map_err(|_| Errno::ENOMEM)?;
        path.push(0);
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

    /// Takes a directory out of the one that it lies in.
    fn unlink(&mut self, watch: i32) {
        let Some(node) = self.nodes.get_mut(&watch) else { return };
        let (parent, name) = (node.parent, std::mem::take(&mut node.name));
        if let Some(parent) = self.nodes.get_mut(&parent)
            && parent.children.get(&name) == Some(&watch)
        {
            parent.children.remove(&name);
        }
    }

    /// Puts it into another one.
    fn link(&mut self, watch: i32, parent: i32, name: &[u8]) -> Result<(), Errno> {
        let (key, name) = (join(name, b"")?, join(name, b"")?);
        if let Some(above) = self.nodes.get_mut(&parent) {
            above.children.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
            above.children.insert(key, watch);
        }
        if let Some(node) = self.nodes.get_mut(&watch) {
            (node.parent, node.name) = (parent, name);
        }
        Ok(())
    }
}

// Watches and their users.
impl Files {
    /// Has a file be watched for a watcher; its watch's number.
    fn join_watch(&mut self, id: u32, path: &[u8], flags: u32) -> Result<i32, Errno> {
        let wanted = self.watchers.get(&id).map_or(0, Watcher::wanted);
        self.watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let number = self.watch(path, wanted | flags)?;
        let end = if self.watches.contains_key(&number) { self.end_of_queue() } else { 0 };
        let known = self.watches.entry(number).or_insert(Watch { mask: 0, users: Vec::new() });
        if known.users.iter().any(|user| user.watcher == id) {
            return Ok(number);
        }
        if known.users.try_reserve(1).is_err() {
            self.end_unless_used(number);
            return Err(Errno::ENOMEM);
        }
        known.mask |= wanted;
        known.users.push(User { watcher: id, since: end });
        Ok(number)
    }

    fn leave_watch(&mut self, id: u32, number: i32) {
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
            inotify::unwatch(self.raw(), number);
        }
        ends
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

// Trees.
impl Files {
    /// Has all of a watcher's files watched. `strict`: or fails.
    pub(super) fn attach(&mut self, id: u32, strict: bool) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let (path, flags, recursive) = (watcher.path(-1, b"")?, watcher.flags, watcher.recursive);
        let root = self.join_watch(id, &path, flags)?;
        if let Err(errno) = self.insert(id, root, -1, b"") {
            self.leave_watch(id, root);
            return Err(errno);
        }
        if let Some(watcher) = self.watchers.get_mut(&id) {
            watcher.root = root;
        }
        if !recursive {
            return Ok(());
        }
        let mut scans = VecDeque::new();
        self.list(id, root, false, &mut scans)?;
        while let Some(scan) = scans.pop_front() {
            let failed = self.enter(&scan, &mut scans).err();
            match failed.filter(|errno| !is_gone(*errno)) {
                None => {}
                Some(errno) if strict && !is_closed(errno) => return Err(errno),
                Some(errno) => self.tell_failure(&scan, errno),
            }
        }
        Ok(())
    }

    /// Nothing of a watcher's is watched any more.
    pub(super) fn detach(&mut self, id: u32) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        watcher.root = -1;
        let nodes = std::mem::take(&mut watcher.nodes);
        for number in nodes.into_keys() {
            self.leave_watch(id, number);
        }
        self.scans.retain(|scan| scan.watcher != id);
    }

    fn insert(&mut self, id: u32, watch: i32, parent: i32, name: &[u8]) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Err(Errno::ENOENT) };
        watcher.nodes.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let node = Node { parent, name: Box::default(), children: HashMap::new(), seen: None };
        watcher.nodes.insert(watch, node);
        let linked = watcher.link(watch, parent, name);
        if linked.is_err() {
            watcher.nodes.remove(&watch);
        }
        linked
    }

    /// Does a scan that is due; what fails is told.
    pub(super) fn enter_or_tell(&mut self, scan: &Scan, scans: &mut VecDeque<Scan>) {
        match self.enter(scan, scans) {
            Ok(()) => {}
            Err(errno) if is_gone(errno) => {
                // Or the whole tree has another path.
                if self.is_root_lost(scan.watcher) {
                    self.end(scan.watcher, scans);
                }
            }
            Err(errno) => self.tell_failure(scan, errno),
        }
    }

    fn end(&mut self, id: u32, scans: &mut VecDeque<Scan>) {
        scans.retain(|scan| scan.watcher != id);
        self.tell_end(id);
    }

    pub(super) fn is_root_lost(&self, id: u32) -> bool {
        let Some(watcher) = self.watchers.get(&id) else { return false };
        let Ok(path) = watcher.path(-1, b"") else { return false };
        self.probe(&path, watcher.flags) != Some(watcher.root)
    }

    /// Watches a directory, and reads it.
    fn enter(&mut self, scan: &Scan, scans: &mut VecDeque<Scan>) -> Result<(), Errno> {
        const FLAGS: u32 = libc::IN_ONLYDIR | libc::IN_DONT_FOLLOW;
        let Scan { watcher: id, parent, ref name, tells } = *scan;
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        if !watcher.nodes.contains_key(&parent) {
            return Ok(());
        }
        let path = watcher.path(parent, name)?;
        let number = self.join_watch(id, &path, FLAGS)?;
        if self.watchers.get(&id).is_some_and(|watcher| watcher.nodes.contains_key(&number)) {
            return self.enter_again(scan, number);
        }
        if let Err(errno) = self.insert(id, number, parent, name) {
            self.leave_watch(id, number);
            return Err(errno);
        }
        self.list(id, number, tells, scans).inspect_err(|_| self.forget(id, number))
    }

    /// A directory is one that is watched already.
    fn enter_again(&mut self, scan: &Scan, number: i32) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&scan.watcher) else { return Ok(()) };
        if watcher.child(scan.parent, &scan.name) == Some(number) {
            return Ok(());
        }
        // It was moved; or it has two places, by a mount.
        let before = watcher.path(number, b"")?;
        if self.probe(&before, libc::IN_DONT_FOLLOW) == Some(number) {
            return Ok(());
        }
        self.relink(scan.watcher, number, scan.parent, &scan.name)
    }

    fn relink(&mut self, id: u32, watch: i32, parent: i32, name: &[u8]) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get_mut(&id) else { return Ok(()) };
        watcher.unlink(watch);
        watcher.link(watch, parent, name)
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
        let mut room = directory::Room::new();
        let mut names = HashSet::new();
        loop {
            let mut rest = directory::read(&directory, &mut room)?;
            if rest.is_empty() {
                break;
            }
            while let Some((entry, after)) = directory::split(rest) {
                rest = after;
                if entry.is_dots() {
                    continue;
                }
                let is_directory = entry.is_directory(&directory);
                if tells {
                    names.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                    names.insert(join(entry.name, b"")?);
                    let kind = if is_directory { libc::IN_ISDIR } else { 0 };
                    self.tell(id, Told::entry(libc::IN_CREATE | kind, watch, entry.name));
                }
                if is_directory {
                    scans.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
                    let name = join(entry.name, b"")?;
                    scans.push_back(Scan { watcher: id, parent: watch, name, tells });
                }
            }
        }
        let until = self.end_of_queue();
        let node = self.watchers.get_mut(&id).and_then(|watcher| watcher.nodes.get_mut(&watch));
        if let Some(node) = node.filter(|_| tells) {
            node.seen = Some(Seen { until, names });
        }
        Ok(())
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
            if rest.try_reserve(children.len()).is_ok() {
                rest.extend(children.into_values());
            }
            next = rest.pop();
        }
    }

    /// A directory was moved inside the tree.
    pub(super) fn follow(&mut self, id: u32, from: (i32, &[u8]), to: (i32, &[u8])) {
        let Some(watcher) = self.watchers.get(&id) else { return };
        let child = watcher.child(from.0, from.1);
        let path = watcher.path(to.0, to.1);
        let found = path.ok().and_then(|path| self.probe(&path, libc::IN_DONT_FOLLOW));
        // It may have been moved on by now, and its name be another's.
        let moved = child.filter(|child| found == Some(*child));
        let linked = moved.map(|child| self.relink(id, child, to.0, to.1));
        if !matches!(linked, Some(Ok(()))) {
            self.scan(id, to.0, to.1);
        }
    }

    /// A directory of a tree was moved out of it.
    pub(super) fn lose(&mut self, id: u32, parent: i32, name: &[u8]) {
        let child = self.watchers.get(&id).and_then(|watcher| watcher.child(parent, name));
        if let Some(child) = child {
            self.forget(id, child);
        }
    }

    /// A directory is new in a tree: it is to be watched, and what is in it
    /// told.
    pub(super) fn scan(&mut self, id: u32, parent: i32, name: &[u8]) {
        if let Ok(name) = join(name, b"")
            && self.scans.try_reserve(1).is_ok()
        {
            self.scans.push_back(Scan { watcher: id, parent, name, tells: true });
        }
    }
}
