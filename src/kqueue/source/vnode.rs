//! Changes of files: the inotify instance of a queue.
//!
//! inotify has one watch for a file, however many descriptors the file has, so
//! a watch has a list of registrations. Its mask is what any of them needs.
//! inotify reports the removal of an open directory not to the watch of that
//! directory, but to the watch of the directory that it lies in. So a
//! registration can have a watch of its parent directory, too.

use super::super::epoll_set::EpollSet;
use super::super::registration::*;
use super::super::slab::NONE;
use super::super::snapshot::FileSnapshot;
use super::super::store::Store;
use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::fd::{self, Fd};
use crate::sys::inotify::{self, Of};
use crate::sys::{epoll, file};
use std::os::fd::RawFd;

/// For filters: the directory that the file lies in is watched for removals,
/// besides what bits of inotify say. No bit of inotify.
pub(in super::super) const PARENT: u32 = 1 << 16;

/// For filters: without these it is not what it is to be. No bit of inotify.
pub(in super::super) const NEEDED: u32 = 1 << 17;

/// What a change of a directory's entries is.
pub(in super::super) const ENTRIES: u32 =
    libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO;

/// A watch, and its list of registrations in each role.
#[derive(Clone, Copy)]
pub(in super::super) struct VnodeWatch {
    pub mask: u32,
    pub first: [u32; 2],
    /// The file, when it was looked at last; if it is a registration's file.
    pub seen: FileSnapshot,
}

pub(in super::super) const FRESH: VnodeWatch =
    VnodeWatch { mask: 0, first: [NONE; 2], seen: FileSnapshot::NOTHING };

impl Default for VnodeWatch {
    fn default() -> Self {
        FRESH
    }
}

/// A name that was moved out of a directory, and perhaps into it.
pub(in super::super) struct PendingMove {
    pub watch: i32,
    pub cookie: u32,
    pub notes: u32,
}

pub(in super::super) struct VnodeWatches {
    pub fd: Option<Fd>,
    pub watches: Map<i32, VnodeWatch>,
    pub moved: Option<PendingMove>,
    /// Its events are being read just now.
    pub is_reading: bool,
    /// A watch was taken away, which inotify reports, too.
    pub has_ended: bool,
}

impl VnodeWatches {
    pub fn new() -> Self {
        let watches = Map::default();
        Self { fd: None, watches, moved: None, is_reading: false, has_ended: false }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Its descriptor, unless the program has closed it.
    pub fn raw(&self) -> RawFd {
        self.fd.as_ref().and_then(Fd::check).unwrap_or(-1)
    }

    /// The first registration of a watch's list.
    pub fn first(&self, watch: i32, role: Role) -> u32 {
        let known = self.watches.get(&watch);
        known.and_then(|known| known.first.get(role as usize)).copied().unwrap_or(NONE)
    }
}

/// Watches a file by way of /proc. Where that reports ENOENT, the error is
/// EBADF if the descriptor is not open, and ENOTSUP if it is.
pub(in super::super) fn watch(inotify: RawFd, of: Of, mask: u32) -> Result<i32, Errno> {
    let (Of::File(fd) | Of::Parent(fd)) = of;
    match inotify::watch(inotify, of, mask) {
        Err(Errno::ENOENT) if !fd::is_open(fd) => Err(Errno::EBADF),
        Err(Errno::ENOENT) => Err(Errno::ENOTSUP),
        result => result,
    }
}

impl VnodeWatches {
    /// Makes the inotify instance at the first need.
    pub fn open(&mut self, set: &EpollSet) -> Result<(), Errno> {
        if self.fd.is_none() {
            let fresh = inotify::create()?;
            set.add_vnode_watches(fresh.raw())?;
            self.fd = Some(fresh);
        }
        Ok(())
    }

    /// Without a watch the inotify instance goes.
    pub fn close_if_unused(&mut self, set: &EpollSet) {
        if self.watches.is_empty()
            && let Some(fd) = &self.fd
        {
            // A forked child may hold it open.
            let _ = epoll::delete(set.inner(), fd.raw());
            self.fd = None;
            self.has_ended = false;
        }
    }

    /// A watch becomes what its registrations need. `by` is the file of one
    /// of them; without it any is taken that still is of this file.
    pub fn set_mask(&mut self, store: &Store, number: i32, by: Option<Of>) -> Result<(), Errno> {
        let Some(known) = self.watches.get(&number).copied() else { return Ok(()) };
        let (mask, any) = needed(store, &known);
        let Some(of) = by.or(any).filter(|_| mask != known.mask) else { return Ok(()) };
        let set = watch(self.raw(), of, mask)?;
        if set == number {
            if let Some(known) = self.watches.get_mut(&number) {
                known.mask = mask;
            }
            return Ok(());
        }
        // The descriptor was another's by then.
        self.restore_watch(set, of);
        Err(Errno::EBADF)
    }

    /// A watch that was set by mistake becomes again what it was.
    fn restore_watch(&mut self, other: i32, of: Of) {
        match self.watches.get(&other) {
            Some(known) => {
                let _ = watch(self.raw(), of, known.mask | libc::IN_MASK_ADD);
            }
            None => self.end_watch(other),
        }
    }

    fn end_watch(&mut self, watch: i32) {
        inotify::unwatch(self.raw(), watch);
        self.has_ended = true;
    }

    /// A registration goes.
    pub fn drop_all(&mut self, store: &mut Store, set: &EpollSet, id: u32) {
        self.drop_watch(store, set, id, Role::File);
        self.drop_watch(store, set, id, Role::Parent);
    }

    pub fn drop_watch(&mut self, store: &mut Store, set: &EpollSet, id: u32, role: Role) {
        let role_watch = store.role_watch(id, role);
        if role_watch.watch < 0 {
            return;
        }
        store.set_role_watch(id, role, NO_WATCH);
        self.take_from_list(store, id, role, role_watch);
        if !self.end_unless_used(set, role_watch.watch) {
            // Too much is as good: it only costs time.
            let _ = self.set_mask(store, role_watch.watch, None);
        }
    }

    /// A watch without registrations goes; true: it had none.
    pub fn end_unless_used(&mut self, set: &EpollSet, watch: i32) -> bool {
        let ends = self.watches.get(&watch).is_some_and(|known| known.first == [NONE; 2]);
        if ends {
            self.watches.remove(&watch);
            self.end_watch(watch);
            self.close_if_unused(set);
        }
        ends
    }

    pub fn take_from_list(
        &mut self,
        store: &mut Store,
        id: u32,
        role: Role,
        role_watch: RoleWatch,
    ) {
        let Some(known) = self.watches.get_mut(&role_watch.watch) else { return };
        let Some(first) = known.first.get_mut(role as usize) else { return };
        let mut cursor = *first;
        if cursor == id {
            *first = role_watch.next;
            return;
        }
        while store.registrations.get(cursor).is_some() {
            let before = store.role_watch(cursor, role);
            if before.next == id {
                store.set_role_watch(cursor, role, RoleWatch { next: role_watch.next, ..before });
                return;
            }
            cursor = before.next;
        }
    }
}

/// The file of a registration, in a role.
pub(in super::super) fn file_of(store: &Store, id: u32, role: Role) -> Of {
    let fd = store.registrations.get(id).map_or(-1, |one| one.fd);
    if role == Role::File { Of::File(fd) } else { Of::Parent(fd) }
}

/// What a watch has to be for, and a file to set it by.
fn needed(store: &Store, known: &VnodeWatch) -> (u32, Option<Of>) {
    let (mut mask, mut any) = (0, None);
    for (role, first) in [Role::File, Role::Parent].into_iter().zip(known.first) {
        let mut cursor = first;
        while let Some(registration) = store.registrations.get(cursor) {
            let role_watch = store.role_watch(cursor, role);
            mask |= role_watch.mask;
            if any.is_none() && registration.compare().is_ok() {
                any = Some(file_of(store, cursor, role));
            }
            cursor = role_watch.next;
        }
    }
    (mask, any)
}

/// How a registration's file is; `None`: the descriptor is another's.
pub(in super::super) fn snapshot(store: &Store, id: u32) -> Option<FileSnapshot> {
    let registration = store.registrations.get(id)?;
    let stat = file::stat(registration.fd).ok()?;
    registration.is_of(&stat).then(|| FileSnapshot::of(&stat))
}
