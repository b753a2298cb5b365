//! Changes of files: what a loop's file watchers are told, by one inotify.
//!
//! inotify has one watch for a file, however often it is asked for, and a
//! watch of a directory says nothing about what lies deeper. So a watch has a
//! list of users, each of which hears only its own bits, and a watcher of a
//! tree has a node for each directory (`tree`), which come and go as the
//! notes say (`notes`). What inotify says is kept in order, and the halves of
//! renames joined, by `queue`. The watchers' records are the loop's matter.

mod notes;
mod overflow;
mod queue;
mod tree;
mod watches;

use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::fd::{self, Fd};
use crate::sys::{clock, directory, inotify};
use crate::util::alloc::{TryDeque, TryMap, TryVec, TryVecCopy, try_concat};
use queue::{Next, Queue};
use std::collections::VecDeque;
use std::ffi::CStr;
use std::os::fd::RawFd;
use tree::{Node, Scan};

/// The bits of notes that inotify does not have, or that are asked for.
pub(crate) const ERROR: u32 = 0x100_0000;
const ENTERED: u32 = libc::IN_CREATE | libc::IN_MOVED_TO;
const MOVED: u32 = libc::IN_MOVED_FROM | libc::IN_MOVED_TO;

/// How many notes are taken at a time, and how many wait for a watcher.
const AT_A_TIME: usize = 1024;
const WAITING: usize = 8192;

/// How many notes' time it takes to read a directory.
const SCAN: usize = 8;

/// How long after there was no memory for something it is tried again.
const LATER_NS: i64 = 10_000_000;

/// What is to be watched.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub root: Root<'a>,
    pub mask: u32,
    /// IN_ONLYDIR and IN_DONT_FOLLOW.
    pub flags: u32,
    pub recursive: bool,
}

#[derive(Clone, Copy)]
pub(crate) enum Root<'a> {
    Path(&'a [u8]),
    Descriptor(RawFd),
}

/// What a watcher is told.
pub(crate) struct Note {
    /// Their order.
    pub number: u64,
    /// Bits of inotify, or ERROR.
    pub mask: u32,
    /// With ERROR.
    pub errno: Option<Errno>,
    /// The path below what is watched; empty: that itself.
    pub name: Box<[u8]>,
    /// With both halves of a rename: what it was before.
    pub old_name: Box<[u8]>,
}

impl Note {
    /// Whether it is the last one of its watcher.
    pub fn is_last(&self) -> bool {
        self.mask & libc::IN_IGNORED != 0
    }
}

/// Somebody who hears what a watch says.
#[derive(Clone, Copy)]
struct User {
    watcher: u32,
    /// What was said before this place of inotify's queue is not for it.
    since: u64,
}

/// A watch of inotify's.
#[derive(Default)]
struct Watch {
    mask: u32,
    users: Vec<User>,
}

struct Watcher {
    mask: u32,
    flags: u32,
    recursive: bool,
    /// Of what is watched; absolute.
    path: Box<[u8]>,
    /// The watch of that; -1: it is gone.
    root: i32,
    nodes: Map<i32, Node>,
    /// While they are looked for again: those that there were before.
    before: Option<Map<i32, Node>>,
    /// What waits for it, in order.
    kept: VecDeque<Note>,
    /// It was too much, or there was no memory for it.
    has_lost: bool,
    /// Its end was among that.
    has_ended: bool,
}

/// What is yet to be watched of a tree that is being added.
pub(crate) struct Rest(VecDeque<Scan>);

/// All file watchers of a loop.
#[derive(Default)]
pub(crate) struct Files {
    inotify: Option<Fd>,
    watches: Map<i32, Watch>,
    /// By the numbers of their records.
    watchers: Map<u32, Watcher>,
    queue: Queue,
    /// Directories that are yet to be watched and read.
    scans: VecDeque<Scan>,
    /// Those that wait for what inotify has yet to tell of others.
    claims: VecDeque<Scan>,
    /// Some trees are read again.
    renewing: bool,
    /// Something could not be followed, as if inotify had lost it.
    lost: bool,
    /// Some watchers were told less than they are to be.
    missed: bool,
    /// How many watches were removed since the queue was last read to its
    /// end, and those that are to be.
    unwatched: usize,
    leaving: Vec<i32>,
    /// What is to be told, and whom.
    told: VecDeque<(u32, Note)>,
    numbers: u64,
}

/// When there is more to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum More {
    /// When inotify says something.
    Nothing,
    Now,
    /// At this time of CLOCK_MONOTONIC.
    At(i64),
}

// The inotify itself, which is made at the first watcher and closed with the
// last.
impl Files {
    pub fn descriptor(&self) -> Option<RawFd> {
        self.inotify.as_ref().map(Fd::raw)
    }

    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Has this inotify be the one that is used.
    pub fn open(&mut self, inotify: Fd) {
        self.inotify = Some(inotify);
    }

    /// After the last watcher: all that is left.
    pub fn close(&mut self) -> Option<Fd> {
        let inotify = self.inotify.take();
        *self = Self { numbers: self.numbers, ..Self::default() };
        inotify
    }

    /// Its number, unless the program has closed it.
    fn raw(&self) -> RawFd {
        self.inotify.as_ref().and_then(Fd::check).unwrap_or(-1)
    }

    /// In a forked child: everything is watched anew, with an inotify that is
    /// not the parent's, which may be closed here, its number another's.
    pub fn revive(&mut self, inotify: Fd) {
        std::mem::forget(self.inotify.replace(inotify));
        self.watches.clear();
        self.queue = Queue::default();
        self.scans.clear();
        self.claims.clear();
        self.leaving.clear();
        let mut ids = Vec::new();
        if ids.try_extend(self.watchers.keys().copied()).is_err() {
            self.lose_all();
            return;
        }
        for id in ids {
            if let Some(watcher) = self.watchers.get_mut(&id)
                && watcher.root >= 0
            {
                watcher.nodes.clear();
                watcher.before = None;
                self.watch_anew(id);
            }
        }
    }

    fn watch_anew(&mut self, id: u32) {
        let mut scans = VecDeque::new();
        if self.attach(id, false, &mut scans).is_err() {
            return self.tell_end(id);
        }
        while let Some(scan) = scans.pop_front() {
            self.enter_or_tell(scan, &mut scans);
        }
    }

    /// Nothing can be watched any more, nor anybody told so by a note: there
    /// is no memory.
    fn lose_all(&mut self) {
        for watcher in self.watchers.values_mut() {
            (watcher.has_lost, watcher.has_ended) = (true, watcher.root >= 0);
            watcher.root = -1;
            watcher.nodes.clear();
        }
        self.missed = true;
    }
}

// Watchers.
impl Files {
    /// Adds a watcher; all of it, or nothing. The inotify is there. Of a tree
    /// the directories are yet to be watched, by [`Files::add_more`].
    pub fn add(&mut self, id: u32, request: &Request<'_>) -> Result<Rest, Errno> {
        self.watchers.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let watcher = Watcher {
            mask: request.mask,
            flags: request.flags | if request.recursive { libc::IN_ONLYDIR } else { 0 },
            recursive: request.recursive,
            path: absolute(request.root)?,
            root: -1,
            nodes: Map::default(),
            before: None,
            kept: VecDeque::new(),
            has_lost: false,
            has_ended: false,
        };
        self.watchers.insert_reserved(id, watcher);
        let mut rest = Rest(VecDeque::new());
        let added = self.attach(id, true, &mut rest.0);
        if added.is_err() {
            self.remove(id);
        }
        added.map(|()| rest).map_err(|errno| match (request.root, errno) {
            (Root::Descriptor(fd), Errno::ENOENT) if !fd::is_open(fd) => Errno::EBADF,
            (Root::Descriptor(_), Errno::ENOENT) => Errno::ENOTSUP,
            _ => errno,
        })
    }

    /// Watches some more of a tree that is being added; false: that was all.
    pub fn add_more(&mut self, id: u32, rest: &mut Rest, at_most: usize) -> Result<bool, Errno> {
        let added = self.attach_some(&mut rest.0, at_most);
        if added.is_err() {
            self.remove(id);
        }
        added
    }

    pub fn remove(&mut self, id: u32) {
        self.detach(id);
        self.watchers.remove(&id);
        self.told.retain(|(whose, _)| *whose != id);
    }

    /// Whether there are watches that are yet to be removed.
    pub fn has_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Whether it is the only one that there is.
    pub fn is_only(&self, id: u32) -> bool {
        self.watchers.len() == 1 && self.watchers.contains_key(&id)
    }

    /// The same where inotify is the parent process's, and must not be told,
    /// or is closed now.
    pub fn forget_watcher(&mut self, id: u32) {
        self.watchers.remove(&id);
        self.told.retain(|(whose, _)| *whose != id);
    }

    /// Keeps a note for a watcher that is not told anything now.
    pub fn keep(&mut self, id: u32, note: Note) {
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        let is_full = watcher.kept.len() >= WAITING && !note.is_last();
        if is_full || watcher.kept.try_reserve(1).is_err() {
            watcher.has_lost = true;
            watcher.has_ended |= note.is_last();
            return;
        }
        // Some come back, and are older than others that are there.
        let place = watcher.kept.partition_point(|kept| kept.number < note.number);
        watcher.kept.insert_reserved(place, note);
    }

    /// The next note that was kept for a watcher.
    pub fn next_kept(&mut self, id: u32) -> Option<Note> {
        let watcher = self.watchers.get_mut(&id)?;
        let note = watcher.kept.pop_front();
        let lost = watcher.has_lost && note.as_ref().is_none_or(Note::is_last);
        if !lost {
            return note.or_else(|| self.take_unkept_end(id));
        }
        // What there was no room for came before the end.
        watcher.has_lost = false;
        if let Some(last) = note {
            watcher.kept.push_front_reserved(last);
        }
        Some(self.number(libc::IN_Q_OVERFLOW))
    }

    fn take_unkept_end(&mut self, id: u32) -> Option<Note> {
        let watcher = self.watchers.get_mut(&id)?;
        let ended = std::mem::take(&mut watcher.has_ended);
        ended.then(|| self.number(libc::IN_IGNORED))
    }

    /// Whether some watchers are to be told that something was lost.
    pub fn has_missed(&self) -> bool {
        self.missed
    }

    pub fn missed_is_known(&mut self) {
        self.missed = false;
    }

    pub fn has_kept(&self, id: u32) -> bool {
        self.watchers
            .get(&id)
            .is_some_and(|one| !one.kept.is_empty() || one.has_lost || one.has_ended)
    }

    /// All watchers that something is kept for.
    pub fn keepers(&self) -> impl Iterator<Item = u32> {
        self.watchers.keys().copied().filter(|id| self.has_kept(*id))
    }

    /// The next note to be told, and whom.
    pub fn next_told(&mut self) -> Option<(u32, Note)> {
        self.told.pop_front()
    }

    /// A note of nothing in particular.
    fn number(&mut self, mask: u32) -> Note {
        self.numbers += 1;
        let (name, old_name) = (Box::default(), Box::default());
        Note { number: self.numbers, mask, errno: None, name, old_name }
    }
}

// What happens.
impl Files {
    /// Reads what inotify says, and finds out what there is to tell: no more
    /// than is taken at a time.
    pub fn work(&mut self) -> More {
        let mut left = AT_A_TIME;
        while left > 0 {
            if self.told.len() >= AT_A_TIME {
                return More::Now;
            }
            if let Some(scan) = self.scans.pop_front() {
                let mut scans = std::mem::take(&mut self.scans);
                self.enter_or_tell(scan, &mut scans);
                self.scans = scans;
                left = left.saturating_sub(SCAN);
                continue;
            }
            if self.renewing {
                self.finish_renewals();
            }
            if std::mem::take(&mut self.lost) {
                self.take_overflow();
                if self.lost {
                    // When there may be memory again.
                    return More::At(clock::now_ns().saturating_add(LATER_NS));
                }
                continue;
            }
            left -= 1;
            match self.queue.next(self.raw(), clock::now_ns()) {
                Next::One(note) => self.take(&note),
                Next::Pair(from, to) => self.take_pair(&from, &to),
                Next::At(time) => return More::At(time),
                Next::None if self.unwatch_more() => return More::Now,
                Next::None => return More::Nothing,
            }
        }
        More::Now
    }

    /// Where inotify's queue ends now.
    fn end_of_queue(&self) -> u64 {
        self.queue.end(self.raw())
    }

    /// Has a file watched for these bits, too; its watch's number.
    fn watch(&self, path: &[u8], mask: u32) -> Result<i32, Errno> {
        let path = CStr::from_bytes_with_nul(path).map_err(|_| Errno::ENOENT)?;
        inotify::watch_path(self.raw(), path, mask | libc::IN_MASK_ADD)
    }
}

/// The path of what is to be watched, whatever the current directory will be.
fn absolute(root: Root<'_>) -> Result<Box<[u8]>, Errno> {
    // Not on the stack, of which a call takes little.
    let mut room = Vec::new();
    let mut number = [0u8; 32];
    let (before, path) = match root {
        Root::Path(path) if path.starts_with(b"/") => (&[][..], path),
        Root::Path(b"") => return Err(Errno::ENOENT),
        Root::Path(path) => {
            room.try_lengthen(libc::PATH_MAX as usize, 0)?;
            (directory::current(&mut room)?, path)
        }
        Root::Descriptor(fd) => (&[][..], proc_path(fd, &mut number)),
    };
    let before = before.split(|byte| *byte == 0).next().unwrap_or_default();
    join(before, path)
}

fn proc_path(fd: RawFd, room: &mut [u8; 32]) -> &[u8] {
    use std::io::Write as _;
    let mut rest = &mut room[..];
    // Room for every number.
    let _ = write!(rest, "/proc/self/fd/{fd}");
    let left = rest.len();
    room.get(..32 - left).unwrap_or_default()
}

/// A path below another one; either may be empty.
fn join(above: &[u8], below: &[u8]) -> Result<Box<[u8]>, Errno> {
    let between: &[u8] = if above.is_empty() || below.is_empty() { b"" } else { b"/" };
    try_concat([above, between, below].into_iter()).ok_or(Errno::ENOMEM)
}
