//! Changes of files: the inotify instance of a queue.
//!
//! inotify has one watch for a file, however many descriptors the file has, so
//! a watch has a list of registrations. Its mask is what any of them needs.
//! inotify reports the removal of an open directory not to the watch of that
//! directory, but to the watch of the directory that it lies in. So a
//! registration can have a watch of its parent directory, too.

use super::event::*;
use super::filter;
use super::knote::*;
use super::registration::*;
use super::slab::NONE;
use super::snapshot::FileSnapshot;
use super::state::QueueState;
use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::fd::{self, Fd};
use crate::sys::file;
use crate::sys::inotify::{self, InotifyEvent, Of};
use crate::util::alloc::TryMap;
use std::os::fd::RawFd;

/// For filters: the directory that the file lies in is watched for removals,
/// besides what bits of inotify say. No bit of inotify.
pub(super) const PARENT: u32 = 1 << 16;

/// For filters: without these it is not what it is to be. No bit of inotify.
pub(super) const NEEDED: u32 = 1 << 17;

/// What a change of a directory's entries is.
pub(super) const ENTRIES: u32 =
    libc::IN_CREATE | libc::IN_DELETE | libc::IN_MOVED_FROM | libc::IN_MOVED_TO;

/// A watch, and its list of registrations in each role.
#[derive(Clone, Copy)]
struct VnodeWatch {
    mask: u32,
    first: [u32; 2],
    /// The file, when it was looked at last; if it is a registration's file.
    seen: FileSnapshot,
}

const FRESH: VnodeWatch = VnodeWatch { mask: 0, first: [NONE; 2], seen: FileSnapshot::NOTHING };

impl Default for VnodeWatch {
    fn default() -> Self {
        FRESH
    }
}

/// A name that was moved out of a directory, and perhaps into it.
struct PendingMove {
    watch: i32,
    cookie: u32,
    notes: u32,
}

pub(super) struct VnodeWatches {
    pub fd: Option<Fd>,
    watches: Map<i32, VnodeWatch>,
    moved: Option<PendingMove>,
    /// Its events are being read just now.
    is_reading: bool,
    /// A watch was taken away, which inotify reports, too.
    has_ended: bool,
}

impl VnodeWatches {
    pub fn new() -> Self {
        let watches = Map::default();
        Self { fd: None, watches, moved: None, is_reading: false, has_ended: false }
    }

    /// Whether inotify has yet to report watches that were removed.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Its descriptor, unless the program has closed it.
    fn raw(&self) -> RawFd {
        self.fd.as_ref().and_then(Fd::check).unwrap_or(-1)
    }

    fn first(&self, watch: i32, role: Role) -> u32 {
        let known = self.watches.get(&watch);
        known.and_then(|known| known.first.get(role as usize)).copied().unwrap_or(NONE)
    }
}

/// Watches a file by way of /proc. Where that reports ENOENT, the error is
/// EBADF if the descriptor is not open, and ENOTSUP if it is.
fn watch(inotify: RawFd, of: Of, mask: u32) -> Result<i32, Errno> {
    let (Of::File(fd) | Of::Parent(fd)) = of;
    match inotify::watch(inotify, of, mask) {
        Err(Errno::ENOENT) if !fd::is_open(fd) => Err(Errno::EBADF),
        Err(Errno::ENOENT) => Err(Errno::ENOTSUP),
        result => result,
    }
}

// What is watched.
impl QueueState {
    /// Has inotify watch for what a descriptor's knotes need now. `changed`:
    /// the only knote that needs something else than before; `None`: perhaps
    /// all.
    pub fn refresh_vnode_watches(&mut self, id: u32, changed: Option<u32>) -> Result<(), Errno> {
        let wanted = self.wanted_vnode_bits(id, changed);
        if wanted == 0 && !self.has_vnode_watches(id) {
            return Ok(());
        }
        match self.refresh_role(id, Role::File, wanted & !(PARENT | NEEDED)) {
            Err(Errno::EACCES | Errno::ENOTSUP) if wanted & NEEDED == 0 => {}
            result => result?,
        }
        let parent = if wanted & PARENT != 0 { libc::IN_DELETE | libc::IN_ONLYDIR } else { 0 };
        self.refresh_role(id, Role::Parent, parent)
    }

    fn wanted_vnode_bits(&self, id: u32, changed: Option<u32>) -> u32 {
        let Some(registration) = self.store.registrations.get(id) else { return 0 };
        let of = |knote: &Knote| filter::of(knote).vnode_interest(knote, registration);
        let changed_one = changed.and_then(|changed| self.store.knotes.get(changed));
        let mut wanted = changed_one.filter(|knote| knote.registration == id).map_or(0, of);
        let mut cursor = registration.first;
        // The others need no more than what is watched for.
        while (changed.is_none() || !self.covers_vnode_bits(id, wanted))
            && let Some(knote) = self.store.knotes.get(cursor)
        {
            wanted |= of(knote);
            cursor = knote.next;
        }
        wanted
    }

    /// Whether this is all that is watched for, or more.
    fn covers_vnode_bits(&self, id: u32, wanted: u32) -> bool {
        let parent = self.store.role_watch(id, Role::Parent).mask != 0;
        self.store.role_watch(id, Role::File).mask & !wanted == 0
            && (!parent || wanted & PARENT != 0)
    }

    fn has_vnode_watches(&self, id: u32) -> bool {
        let registration = self.store.registrations.get(id);
        registration.is_some_and(|one| one.role_watch.iter().any(|role_watch| role_watch.mask != 0))
    }

    /// Before a change of a descriptor: what has happened until now is not
    /// for what comes, and what was closed is forgotten.
    pub fn prepare_vnode_watches(&mut self, ident: u64) {
        let known = self.store.index.get(&(ident, DESCRIPTOR)).copied();
        let Some(id) = known.filter(|id| {
            self.store.registrations.get(*id).is_some_and(Registration::has_vnode_watch)
        }) else {
            return;
        };
        self.take_vnode_events();
        if self.store.registrations.get(id).is_some_and(|one| one.compare().is_err()) {
            self.forget(id);
        }
    }

    fn refresh_role(&mut self, id: u32, role: Role, wanted: u32) -> Result<(), Errno> {
        let role_watch = self.store.role_watch(id, role);
        if wanted == role_watch.mask {
            return Ok(());
        }
        if role_watch.watch < 0 {
            return self.add_vnode_watch(id, role, wanted);
        }
        if wanted == 0 {
            self.drop_vnode_watch(id, role);
            return Ok(());
        }
        self.store.set_role_watch(id, role, RoleWatch { mask: wanted, ..role_watch });
        self.look_at(role_watch.watch);
        let result = self.set_vnode_watch(role_watch.watch, Some(self.of(id, role)));
        if result.is_err() {
            // The list may be another by now.
            let now = self.store.role_watch(id, role);
            self.store.set_role_watch(id, role, RoleWatch { mask: role_watch.mask, ..now });
        }
        result
    }

    fn of(&self, id: u32, role: Role) -> Of {
        let fd = self.store.registrations.get(id).map_or(-1, |one| one.fd);
        if role == Role::File { Of::File(fd) } else { Of::Parent(fd) }
    }

    fn open_inotify(&mut self) -> Result<(), Errno> {
        if self.vnode_watches.fd.is_none() {
            let fresh = inotify::create()?;
            self.set.add_vnode_watches(fresh.raw())?;
            self.vnode_watches.fd = Some(fresh);
        }
        Ok(())
    }

    fn add_vnode_watch(&mut self, id: u32, role: Role, mask: u32) -> Result<(), Errno> {
        // Another's by now?
        self.store.registrations.get(id).map_or(Ok(()), Registration::compare)?;
        let watch = self.join_watch(self.of(id, role), mask)?;
        if self.store.registrations.get(id).is_none_or(|one| one.is_gone) {
            // It was closed, as was just seen.
            self.end_unless_used(watch);
            return Err(Errno::EBADF);
        }
        let now = self.snapshot(id);
        let is_first = self.vnode_watches.first(watch, Role::File) == NONE;
        let known = self.vnode_watches.watches.try_entry(watch)?;
        if let Some(now) = now.filter(|_| is_first && role == Role::File) {
            known.seen = now;
        }
        if let Some(first) = known.first.get_mut(role as usize) {
            let next = std::mem::replace(first, id);
            self.store.set_role_watch(id, role, RoleWatch { watch, mask, next });
        }
        Ok(())
    }

    /// A watch of a file, for these bits too: an old one, or a new one. The
    /// registrations that had it are notified first of what happened before.
    fn join_watch(&mut self, of: Of, mask: u32) -> Result<i32, Errno> {
        loop {
            self.open_inotify()?;
            let added = self.vnode_watches.watches.try_reserve(1).map_err(|_| Errno::ENOMEM);
            let added =
                added.and_then(|()| watch(self.vnode_watches.raw(), of, mask | libc::IN_MASK_ADD));
            let number = added.inspect_err(|_| self.close_inotify())?;
            let Some(known) = self.vnode_watches.watches.get_mut(&number) else {
                self.vnode_watches.watches.insert_reserved(number, VnodeWatch { mask, ..FRESH });
                return Ok(number);
            };
            known.mask |= mask;
            self.take_vnode_events();
            self.look_at(number);
            if self.vnode_watches.watches.contains_key(&number) {
                return Ok(number);
            }
            // Those that had it turned out to be gone, and it with them.
        }
    }

    /// The last watch was taken away.
    fn close_inotify(&mut self) {
        if self.vnode_watches.watches.is_empty()
            && let Some(fd) = &self.vnode_watches.fd
        {
            // A forked child may hold it open.
            let _ = crate::sys::epoll::delete(self.set.inner(), fd.raw());
            self.vnode_watches.fd = None;
            self.vnode_watches.has_ended = false;
        }
    }

    /// A watch becomes what its registrations need. `by` is the file of one
    /// of them; without it any is taken that still is of this file.
    fn set_vnode_watch(&mut self, number: i32, by: Option<Of>) -> Result<(), Errno> {
        let Some(known) = self.vnode_watches.watches.get(&number).copied() else { return Ok(()) };
        let (mask, any) = self.needed(&known);
        let Some(of) = by.or(any).filter(|_| mask != known.mask) else { return Ok(()) };
        let set = watch(self.vnode_watches.raw(), of, mask)?;
        if set == number {
            if let Some(known) = self.vnode_watches.watches.get_mut(&number) {
                known.mask = mask;
            }
            return Ok(());
        }
        // The descriptor was another's by then.
        self.restore_watch(set, of);
        Err(Errno::EBADF)
    }

    /// What a watch has to be for, and a file to set it by.
    fn needed(&self, known: &VnodeWatch) -> (u32, Option<Of>) {
        let (mut mask, mut any) = (0, None);
        for (role, first) in [Role::File, Role::Parent].into_iter().zip(known.first) {
            let mut cursor = first;
            while let Some(registration) = self.store.registrations.get(cursor) {
                let role_watch = self.store.role_watch(cursor, role);
                mask |= role_watch.mask;
                if any.is_none() && registration.compare().is_ok() {
                    any = Some(self.of(cursor, role));
                }
                cursor = role_watch.next;
            }
        }
        (mask, any)
    }

    /// A watch that was set by mistake becomes again what it was.
    fn restore_watch(&mut self, other: i32, of: Of) {
        match self.vnode_watches.watches.get(&other) {
            Some(known) => {
                let _ = watch(self.vnode_watches.raw(), of, known.mask | libc::IN_MASK_ADD);
            }
            None => self.end_watch(other),
        }
    }

    fn end_watch(&mut self, watch: i32) {
        inotify::unwatch(self.vnode_watches.raw(), watch);
        self.vnode_watches.has_ended = true;
    }

    /// A registration goes.
    pub fn drop_vnode_watches(&mut self, id: u32) {
        self.drop_vnode_watch(id, Role::File);
        self.drop_vnode_watch(id, Role::Parent);
    }

    fn drop_vnode_watch(&mut self, id: u32, role: Role) {
        let role_watch = self.store.role_watch(id, role);
        if role_watch.watch < 0 {
            return;
        }
        self.store.set_role_watch(id, role, NO_WATCH);
        self.take_from_list(id, role, role_watch);
        if !self.end_unless_used(role_watch.watch) {
            // Too much is as good: it only costs time.
            let _ = self.set_vnode_watch(role_watch.watch, None);
        }
    }

    fn end_unless_used(&mut self, watch: i32) -> bool {
        let ends =
            self.vnode_watches.watches.get(&watch).is_some_and(|known| known.first == [NONE; 2]);
        if ends {
            self.vnode_watches.watches.remove(&watch);
            self.end_watch(watch);
            self.close_inotify();
        }
        ends
    }

    fn take_from_list(&mut self, id: u32, role: Role, role_watch: RoleWatch) {
        let Some(known) = self.vnode_watches.watches.get_mut(&role_watch.watch) else { return };
        let Some(first) = known.first.get_mut(role as usize) else { return };
        let mut cursor = *first;
        if cursor == id {
            *first = role_watch.next;
            return;
        }
        while self.store.registrations.get(cursor).is_some() {
            let before = self.store.role_watch(cursor, role);
            if before.next == id {
                self.store.set_role_watch(
                    cursor,
                    role,
                    RoleWatch { next: role_watch.next, ..before },
                );
                return;
            }
            cursor = before.next;
        }
    }
}

// What happens.
impl QueueState {
    /// Notifies the knotes of what happened to their files.
    pub fn take_vnode_events(&mut self) {
        if std::mem::replace(&mut self.vnode_watches.is_reading, true) {
            return;
        }
        self.vnode_watches.has_ended = false;
        // An event of inotify has at most this size, with its name.
        let mut buffer = [0; 2048];
        // Bounded, since another process may cause events all the time: the
        // rest makes the queue readable again.
        for _ in 0..64 {
            let mut rest = inotify::read(self.vnode_watches.raw(), &mut buffer);
            if rest.is_empty() {
                break;
            }
            while let Some((event, after)) = inotify::split(rest) {
                self.take_vnode_event(event);
                rest = after;
            }
        }
        self.take_moved();
        self.vnode_watches.is_reading = false;
    }

    /// Reads the events that inotify queues for watches that were removed:
    /// they would make the queue readable.
    pub fn take_ended(&mut self) {
        if self.vnode_watches.has_ended {
            self.take_vnode_events();
        }
    }

    fn take_vnode_event(&mut self, event: InotifyEvent<'_>) {
        let watch = event.watch;
        match event.mask {
            mask if mask & libc::IN_Q_OVERFLOW != 0 => self.take_lost(),
            mask if mask & libc::IN_IGNORED != 0 => self.take_end(watch),
            mask if mask & ENTRIES != 0 => self.take_entry(event),
            // Of an entry of a directory: not what is asked for.
            _ if !event.name.is_empty() => {}
            mask => {
                let notes = direct_bits(mask) | self.diff(watch, mask);
                self.notify(watch, notes);
                if mask & libc::IN_MOVE_SELF != 0 {
                    self.reattach_parent(watch);
                }
            }
        }
    }

    /// A change of a directory's entries.
    fn take_entry(&mut self, event: InotifyEvent<'_>) {
        let watch = event.watch;
        let is_directory = event.mask & libc::IN_ISDIR != 0;
        let link = if is_directory { NOTE_LINK } else { 0 };
        if event.mask & libc::IN_MOVED_FROM != 0 {
            self.take_moved();
            let notes = NOTE_WRITE | NOTE_EXTEND | link;
            self.vnode_watches.moved = Some(PendingMove { watch, cookie: event.cookie, notes });
            return;
        }
        let is_other_half =
            |moved: &mut PendingMove| moved.watch == watch && moved.cookie == event.cookie;
        let notes = if event.mask & libc::IN_MOVED_TO == 0 {
            NOTE_WRITE | link
        } else if self.vnode_watches.moved.take_if(is_other_half).is_some() {
            NOTE_WRITE | self.replaced(watch)
        } else {
            NOTE_WRITE | NOTE_EXTEND | link
        };
        let seen = self.diff(watch, 0);
        self.notify(watch, notes | seen);
        if event.mask & libc::IN_DELETE != 0 && is_directory {
            self.look_at_children(watch);
        }
    }

    /// A name was moved inside a directory, perhaps over a subdirectory's.
    fn replaced(&mut self, watch: i32) -> u32 {
        let id = self.vnode_watches.first(watch, Role::File);
        let (Some(known), Some(now)) = (self.vnode_watches.watches.get(&watch), self.snapshot(id))
        else {
            return 0;
        };
        if known.seen.differs_in_subdirectories(&now) { NOTE_LINK } else { 0 }
    }

    /// The half of a rename whose other half is elsewhere.
    fn take_moved(&mut self) {
        if let Some(PendingMove { watch, notes, .. }) = self.vnode_watches.moved.take() {
            let seen = self.diff(watch, 0);
            self.notify(watch, notes | seen);
        }
    }

    /// One of the directories in this one was removed.
    fn look_at_children(&mut self, watch: i32) {
        let mut id = self.vnode_watches.first(watch, Role::Parent);
        while self.store.registrations.get(id).is_some() {
            let (next, own) = (
                self.store.role_watch(id, Role::Parent).next,
                self.store.role_watch(id, Role::File).watch,
            );
            self.look_at(own);
            id = self.next_of(watch, Role::Parent, next);
        }
    }

    /// The next of a list; where that turned out to be gone, the first again.
    fn next_of(&self, watch: i32, role: Role, next: u32) -> u32 {
        let is_whole = next == NONE || self.store.registrations.get(next).is_some();
        if is_whole { next } else { self.vnode_watches.first(watch, role) }
    }

    /// A directory was moved: it lies in another now.
    fn reattach_parent(&mut self, watch: i32) {
        let mut id = self.vnode_watches.first(watch, Role::File);
        while self.store.registrations.get(id).is_some() {
            let next = self.store.role_watch(id, Role::File).next;
            let parent = self.store.role_watch(id, Role::Parent);
            if parent.watch >= 0 {
                self.drop_vnode_watch(id, Role::Parent);
                // There is no caller to report a failure to.
                let _ = self.add_vnode_watch(id, Role::Parent, parent.mask);
            }
            id = self.next_of(watch, Role::File, next);
        }
        self.look_at(watch);
    }

    /// inotify could not keep everything.
    fn take_lost(&mut self) {
        let mut cursor = 0;
        while let Some(id) = self.store.registrations.next_from(cursor) {
            cursor = id + 1;
            let watch = self.store.role_watch(id, Role::File).watch;
            if watch < 0 || self.vnode_watches.first(watch, Role::File) != id {
                continue;
            }
            self.reattach_parent(watch);
            if let Some(now) = self.current_snapshot(watch)
                && let Some(known) = self.vnode_watches.watches.get_mut(&watch)
            {
                let notes = std::mem::replace(&mut known.seen, now).possible(&now);
                self.each_of_watch(watch, |state, id| {
                    filter::of_id(state, id).may_have_missed(state, id, notes);
                });
            }
        }
    }

    /// inotify has ended a watch. Mostly the file is not open any more, and
    /// another file may have its descriptor by now. But inotify also ends the
    /// watch of an open file that loses its last name, if that is not the name
    /// that the file was opened by.
    fn take_end(&mut self, watch: i32) {
        let seen = self
            .vnode_watches
            .watches
            .get(&watch)
            .map_or(FileSnapshot::NOTHING, |known| known.seen);
        loop {
            let id = self.vnode_watches.first(watch, Role::File);
            if self.store.registrations.get(id).is_none() {
                break;
            }
            match self.snapshot(id) {
                Some(now) if now.has_no_name() => self.begin_again(id, seen),
                _ => self.forget(id),
            }
        }
        loop {
            let id = self.vnode_watches.first(watch, Role::Parent);
            if self.store.registrations.get(id).is_none() {
                break;
            }
            self.drop_vnode_watch(id, Role::Parent);
        }
    }

    /// The watch of a file that is open is over: it gets another one. `seen`:
    /// how it was.
    fn begin_again(&mut self, id: u32, seen: FileSnapshot) {
        let role_watch = self.store.role_watch(id, Role::File);
        self.store.set_role_watch(id, Role::File, NO_WATCH);
        self.take_from_list(id, Role::File, role_watch);
        // There is no caller to report a failure to.
        let _ = self.add_vnode_watch(id, Role::File, role_watch.mask);
        let RoleWatch { watch, next, .. } = self.store.role_watch(id, Role::File);
        if let Some(known) = self.vnode_watches.watches.get_mut(&watch)
            && (known.first, next) == ([id, NONE], NONE)
        {
            known.seen = seen;
        }
        self.look_at(watch);
        self.end_unless_used(role_watch.watch);
    }

    /// Looks at a file whose changes inotify does not report, or not yet.
    fn look_at(&mut self, watch: i32) {
        let Some(now) = self.current_snapshot(watch) else { return };
        let Some(known) = self.vnode_watches.watches.get_mut(&watch) else { return };
        let notes = known.seen.take_unreported(&now, known.mask & libc::IN_MODIFY != 0);
        if notes != 0 {
            self.notify(watch, notes);
        }
    }

    /// What happened, of what inotify calls so.
    fn diff(&mut self, watch: i32, mask: u32) -> u32 {
        let Some(now) = self.current_snapshot(watch) else { return 0 };
        self.vnode_watches.watches.get_mut(&watch).map_or(0, |known| known.seen.take(&now, mask))
    }

    /// How a watch's file is.
    fn current_snapshot(&mut self, watch: i32) -> Option<FileSnapshot> {
        loop {
            let id = self.vnode_watches.first(watch, Role::File);
            self.store.registrations.get(id)?;
            match self.snapshot(id) {
                Some(now) => return Some(now),
                // The descriptor is another's by now.
                None => self.forget(id),
            }
        }
    }

    fn snapshot(&self, id: u32) -> Option<FileSnapshot> {
        let registration = self.store.registrations.get(id)?;
        let stat = file::stat(registration.fd).ok()?;
        registration.is_of(&stat).then(|| FileSnapshot::of(&stat))
    }

    fn notify(&mut self, watch: i32, notes: u32) {
        self.each_of_watch(watch, |state, id| filter::of_id(state, id).noticed(state, id, notes));
    }

    /// For each knote of a watch's file.
    fn each_of_watch(&mut self, watch: i32, act: impl Fn(&mut Self, u32)) {
        let mut id = self.vnode_watches.first(watch, Role::File);
        while let Some(registration) = self.store.registrations.get(id) {
            let mut cursor = registration.first;
            while let Some(knote) = self.store.knotes.get(cursor) {
                let after = knote.next;
                act(self, cursor);
                cursor = after;
            }
            id = self.store.role_watch(id, Role::File).next;
        }
    }
}

/// The notes that follow from inotify's event without a look at the file.
fn direct_bits(mask: u32) -> u32 {
    const TABLE: [(u32, u32); 5] = [
        (libc::IN_MOVE_SELF, NOTE_RENAME),
        (libc::IN_OPEN, NOTE_OPEN),
        (libc::IN_CLOSE_NOWRITE, NOTE_CLOSE),
        (libc::IN_CLOSE_WRITE, NOTE_CLOSE_WRITE),
        (libc::IN_ACCESS, NOTE_READ),
    ];
    let said = TABLE.iter().filter(|(bit, _)| mask & bit != 0);
    said.fold(0, |notes, (_, note)| notes | note)
}
