//! Changes of files: a queue's one inotify.
//!
//! inotify has one watch for a file, however many descriptors it has, so a
//! watch has a list of registrations. It is for what any of them needs. An
//! open directory is told nothing when it is removed; the directory that it
//! lies in is, so a registration can have a watch of that, too.

use super::core::Core;
use super::event::*;
use super::filter;
use super::knote::*;
use super::registration::Registration;
use super::slab::NONE;
use super::snapshot::Snapshot;
use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::fd::{self, Fd};
use crate::sys::file;
use crate::sys::inotify::{self, Note, Of};
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

/// What a registration has a watch of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    File,
    Parent,
}

/// A watch, and its list of registrations in each role.
#[derive(Clone, Copy)]
struct Watch {
    mask: u32,
    first: [u32; 2],
    /// The file, when it was looked at last; if it is somebody's file.
    seen: Snapshot,
}

const FRESH: Watch = Watch { mask: 0, first: [NONE; 2], seen: Snapshot::NOTHING };

impl Default for Watch {
    fn default() -> Self {
        FRESH
    }
}

/// What a registration has here, in one role.
#[derive(Clone, Copy)]
pub(super) struct Noted {
    pub watch: i32,
    mask: u32,
    /// The next of the same watch.
    next: u32,
}

const NOT: Noted = Noted { watch: -1, mask: 0, next: NONE };
pub(super) const NOT_NOTED: [Noted; 2] = [NOT; 2];

/// A name that was moved out of a directory, and perhaps into it.
struct Moved {
    watch: i32,
    cookie: u32,
    notes: u32,
}

pub(super) struct Notes {
    pub fd: Option<Fd>,
    watches: Map<i32, Watch>,
    moved: Option<Moved>,
    /// They are being taken just now.
    is_busy: bool,
    /// A watch was taken away, which inotify reports, too.
    has_ended: bool,
}

impl Notes {
    pub fn new() -> Self {
        let watches = Map::default();
        Self { fd: None, watches, moved: None, is_busy: false, has_ended: false }
    }

    /// Whether it is to be told of watches that were taken away.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    /// Its number, unless the program has closed it.
    fn raw(&self) -> RawFd {
        self.fd.as_ref().and_then(Fd::check).unwrap_or(-1)
    }

    fn first(&self, watch: i32, role: Role) -> u32 {
        let known = self.watches.get(&watch);
        known.and_then(|known| known.first.get(role as usize)).copied().unwrap_or(NONE)
    }
}

/// What can be had of /proc tells apart a descriptor that is not there.
fn watch(inotify: RawFd, of: Of, mask: u32) -> Result<i32, Errno> {
    let (Of::File(fd) | Of::Parent(fd)) = of;
    match inotify::watch(inotify, of, mask) {
        Err(Errno::ENOENT) if !fd::is_open(fd) => Err(Errno::EBADF),
        Err(Errno::ENOENT) => Err(Errno::ENOTSUP),
        result => result,
    }
}

// What is watched.
impl Core {
    /// Has inotify watch for what a descriptor's knotes need now. `changed`: the
    /// only knote that needs something else than before; `None`: perhaps all.
    pub fn refresh_notes(&mut self, id: u32, changed: Option<u32>) -> Result<(), Errno> {
        let wanted = self.wanted_notes(id, changed);
        if wanted == 0 && !self.has_notes(id) {
            return Ok(());
        }
        match self.refresh_role(id, Role::File, wanted & !(PARENT | NEEDED)) {
            Err(Errno::EACCES | Errno::ENOTSUP) if wanted & NEEDED == 0 => {}
            result => result?,
        }
        let parent = if wanted & PARENT != 0 { libc::IN_DELETE | libc::IN_ONLYDIR } else { 0 };
        self.refresh_role(id, Role::Parent, parent)
    }

    fn wanted_notes(&self, id: u32, changed: Option<u32>) -> u32 {
        let Some(registration) = self.registrations.get(id) else { return 0 };
        let of = |knote: &Knote| filter::of(knote).notes(knote, registration);
        let changed_one = changed.and_then(|changed| self.knotes.get(changed));
        let mut wanted = changed_one.filter(|knote| knote.registration == id).map_or(0, of);
        let mut at = registration.first;
        // The others need no more than what is watched for.
        while (changed.is_none() || !self.covers_notes(id, wanted))
            && let Some(knote) = self.knotes.get(at)
        {
            wanted |= of(knote);
            at = knote.next;
        }
        wanted
    }

    /// Whether this is all that is watched for, or more.
    fn covers_notes(&self, id: u32, wanted: u32) -> bool {
        let parent = self.noted(id, Role::Parent).mask != 0;
        self.noted(id, Role::File).mask & !wanted == 0 && (!parent || wanted & PARENT != 0)
    }

    fn has_notes(&self, id: u32) -> bool {
        let registration = self.registrations.get(id);
        registration.is_some_and(|one| one.noted.iter().any(|noted| noted.mask != 0))
    }

    fn noted(&self, id: u32, role: Role) -> Noted {
        let registration = self.registrations.get(id);
        registration.and_then(|one| one.noted.get(role as usize)).copied().unwrap_or(NOT)
    }

    fn set_noted(&mut self, id: u32, role: Role, noted: Noted) {
        if let Some(registration) = self.registrations.get_mut(id)
            && let Some(place) = registration.noted.get_mut(role as usize)
        {
            *place = noted;
        }
    }

    /// Before a change of a descriptor: what has happened until now is not
    /// for what comes, and what was closed is forgotten.
    pub fn prepare_notes(&mut self, ident: u64) {
        let known = self.index.get(&(ident, DESCRIPTOR)).copied();
        let Some(id) = known.filter(|id| self.is_noted(*id)) else { return };
        self.take_notes();
        if self.registrations.get(id).is_some_and(|one| one.compare().is_err()) {
            self.forget(id);
        }
    }

    /// Whether inotify watches the file of a registration.
    pub fn is_noted(&self, id: u32) -> bool {
        self.noted(id, Role::File).watch >= 0
    }

    fn refresh_role(&mut self, id: u32, role: Role, wanted: u32) -> Result<(), Errno> {
        let noted = self.noted(id, role);
        if wanted == noted.mask {
            return Ok(());
        }
        if noted.watch < 0 {
            return self.add_note(id, role, wanted);
        }
        if wanted == 0 {
            self.drop_note(id, role);
            return Ok(());
        }
        self.set_noted(id, role, Noted { mask: wanted, ..noted });
        self.look_at(noted.watch);
        let result = self.set_note(noted.watch, Some(self.of(id, role)));
        if result.is_err() {
            // The list may be another by now.
            let now = self.noted(id, role);
            self.set_noted(id, role, Noted { mask: noted.mask, ..now });
        }
        result
    }

    fn of(&self, id: u32, role: Role) -> Of {
        let fd = self.registrations.get(id).map_or(-1, |one| one.fd);
        if role == Role::File { Of::File(fd) } else { Of::Parent(fd) }
    }

    fn open_notes(&mut self) -> Result<(), Errno> {
        if self.notes.fd.is_none() {
            let fresh = inotify::create()?;
            self.set.add_notes(fresh.raw())?;
            self.notes.fd = Some(fresh);
        }
        Ok(())
    }

    fn add_note(&mut self, id: u32, role: Role, mask: u32) -> Result<(), Errno> {
        // Another's by now?
        self.registrations.get(id).map_or(Ok(()), Registration::compare)?;
        let watch = self.join_watch(self.of(id, role), mask)?;
        if self.registrations.get(id).is_none_or(|one| one.is_gone) {
            // It was closed, as was just seen.
            self.end_unless_used(watch);
            return Err(Errno::EBADF);
        }
        let now = self.snapshot(id);
        let is_first = self.notes.first(watch, Role::File) == NONE;
        let known = self.notes.watches.try_entry(watch)?;
        if let Some(now) = now.filter(|_| is_first && role == Role::File) {
            known.seen = now;
        }
        if let Some(first) = known.first.get_mut(role as usize) {
            let next = std::mem::replace(first, id);
            self.set_noted(id, role, Noted { watch, mask, next });
        }
        Ok(())
    }

    /// A watch of a file, for these bits too: an old one, or a new one. What
    /// has happened before was told to those that had it.
    fn join_watch(&mut self, of: Of, mask: u32) -> Result<i32, Errno> {
        loop {
            self.open_notes()?;
            let added = self.notes.watches.try_reserve(1).map_err(|_| Errno::ENOMEM);
            let added = added.and_then(|()| watch(self.notes.raw(), of, mask | libc::IN_MASK_ADD));
            let number = added.inspect_err(|_| self.close_notes())?;
            let Some(known) = self.notes.watches.get_mut(&number) else {
                self.notes.watches.insert_reserved(number, Watch { mask, ..FRESH });
                return Ok(number);
            };
            known.mask |= mask;
            self.take_notes();
            self.look_at(number);
            if self.notes.watches.contains_key(&number) {
                return Ok(number);
            }
            // Those that had it turned out to be gone, and it with them.
        }
    }

    /// The last watch was taken away.
    fn close_notes(&mut self) {
        if self.notes.watches.is_empty()
            && let Some(fd) = &self.notes.fd
        {
            // A forked child may hold it open.
            let _ = crate::sys::epoll::delete(self.set.main(), fd.raw());
            self.notes.fd = None;
            self.notes.has_ended = false;
        }
    }

    /// A watch becomes what its registrations need. `by` is the file of one
    /// of them; without it any is taken that still is of this file.
    fn set_note(&mut self, number: i32, by: Option<Of>) -> Result<(), Errno> {
        let Some(known) = self.notes.watches.get(&number).copied() else { return Ok(()) };
        let (mask, any) = self.needed(&known);
        let Some(of) = by.or(any).filter(|_| mask != known.mask) else { return Ok(()) };
        let set = watch(self.notes.raw(), of, mask)?;
        if set == number {
            if let Some(known) = self.notes.watches.get_mut(&number) {
                known.mask = mask;
            }
            return Ok(());
        }
        // The descriptor was another's by then.
        self.give_back(set, of);
        Err(Errno::EBADF)
    }

    /// What a watch has to be for, and a file to set it by.
    fn needed(&self, known: &Watch) -> (u32, Option<Of>) {
        let (mut mask, mut any) = (0, None);
        for (role, first) in [Role::File, Role::Parent].into_iter().zip(known.first) {
            let mut at = first;
            while let Some(registration) = self.registrations.get(at) {
                let noted = self.noted(at, role);
                mask |= noted.mask;
                if any.is_none() && registration.compare().is_ok() {
                    any = Some(self.of(at, role));
                }
                at = noted.next;
            }
        }
        (mask, any)
    }

    /// A watch that was set by mistake becomes again what it was.
    fn give_back(&mut self, other: i32, of: Of) {
        match self.notes.watches.get(&other) {
            Some(known) => {
                let _ = watch(self.notes.raw(), of, known.mask | libc::IN_MASK_ADD);
            }
            None => self.end_watch(other),
        }
    }

    fn end_watch(&mut self, watch: i32) {
        inotify::unwatch(self.notes.raw(), watch);
        self.notes.has_ended = true;
    }

    /// A registration goes.
    pub fn drop_notes(&mut self, id: u32) {
        self.drop_note(id, Role::File);
        self.drop_note(id, Role::Parent);
    }

    fn drop_note(&mut self, id: u32, role: Role) {
        let noted = self.noted(id, role);
        if noted.watch < 0 {
            return;
        }
        self.set_noted(id, role, NOT);
        self.take_from_list(id, role, noted);
        if !self.end_unless_used(noted.watch) {
            // Too much is as good: it only costs time.
            let _ = self.set_note(noted.watch, None);
        }
    }

    fn end_unless_used(&mut self, watch: i32) -> bool {
        let ends = self.notes.watches.get(&watch).is_some_and(|known| known.first == [NONE; 2]);
        if ends {
            self.notes.watches.remove(&watch);
            self.end_watch(watch);
            self.close_notes();
        }
        ends
    }

    fn take_from_list(&mut self, id: u32, role: Role, noted: Noted) {
        let Some(known) = self.notes.watches.get_mut(&noted.watch) else { return };
        let Some(first) = known.first.get_mut(role as usize) else { return };
        let mut at = *first;
        if at == id {
            *first = noted.next;
            return;
        }
        while self.registrations.get(at).is_some() {
            let before = self.noted(at, role);
            if before.next == id {
                self.set_noted(at, role, Noted { next: noted.next, ..before });
                return;
            }
            at = before.next;
        }
    }
}

// What happens.
impl Core {
    /// Tells the knotes what happened to their files.
    pub fn take_notes(&mut self) {
        if std::mem::replace(&mut self.notes.is_busy, true) {
            return;
        }
        self.notes.has_ended = false;
        // A note has at most this much, and its name.
        let mut buffer = [0; 2048];
        // Who writes all the time cannot keep it here: the rest comes again.
        for _ in 0..64 {
            let mut rest = inotify::read(self.notes.raw(), &mut buffer);
            if rest.is_empty() {
                break;
            }
            while let Some((note, after)) = inotify::split(rest) {
                self.take_note(note);
                rest = after;
            }
        }
        self.take_moved();
        self.notes.is_busy = false;
    }

    /// What inotify says of watches that were taken away would make the
    /// queue readable.
    pub fn take_ended(&mut self) {
        if self.notes.has_ended {
            self.take_notes();
        }
    }

    fn take_note(&mut self, note: Note<'_>) {
        let watch = note.watch;
        match note.mask {
            mask if mask & libc::IN_Q_OVERFLOW != 0 => self.take_lost(),
            mask if mask & libc::IN_IGNORED != 0 => self.take_end(watch),
            mask if mask & ENTRIES != 0 => self.take_entry(note),
            // Of an entry of a directory: not what is asked for.
            _ if !note.name.is_empty() => {}
            mask => {
                let notes = direct(mask) | self.observe(watch, mask);
                self.tell(watch, notes);
                if mask & libc::IN_MOVE_SELF != 0 {
                    self.follow(watch);
                }
            }
        }
    }

    /// A change of a directory's entries.
    fn take_entry(&mut self, note: Note<'_>) {
        let watch = note.watch;
        let is_directory = note.mask & libc::IN_ISDIR != 0;
        let link = if is_directory { NOTE_LINK } else { 0 };
        if note.mask & libc::IN_MOVED_FROM != 0 {
            self.take_moved();
            let notes = NOTE_WRITE | NOTE_EXTEND | link;
            self.notes.moved = Some(Moved { watch, cookie: note.cookie, notes });
            return;
        }
        let is_other_half = |moved: &mut Moved| moved.watch == watch && moved.cookie == note.cookie;
        let notes = if note.mask & libc::IN_MOVED_TO == 0 {
            NOTE_WRITE | link
        } else if self.notes.moved.take_if(is_other_half).is_some() {
            NOTE_WRITE | self.replaced(watch)
        } else {
            NOTE_WRITE | NOTE_EXTEND | link
        };
        let seen = self.observe(watch, 0);
        self.tell(watch, notes | seen);
        if note.mask & libc::IN_DELETE != 0 && is_directory {
            self.look_at_children(watch);
        }
    }

    /// A name was moved inside a directory, perhaps over a subdirectory's.
    fn replaced(&mut self, watch: i32) -> u32 {
        let id = self.notes.first(watch, Role::File);
        let (Some(known), Some(now)) = (self.notes.watches.get(&watch), self.snapshot(id)) else {
            return 0;
        };
        if known.seen.differs_in_subdirectories(&now) { NOTE_LINK } else { 0 }
    }

    /// The half of a rename whose other half is elsewhere.
    fn take_moved(&mut self) {
        if let Some(Moved { watch, notes, .. }) = self.notes.moved.take() {
            let seen = self.observe(watch, 0);
            self.tell(watch, notes | seen);
        }
    }

    /// One of the directories in this one was removed.
    fn look_at_children(&mut self, watch: i32) {
        let mut id = self.notes.first(watch, Role::Parent);
        while self.registrations.get(id).is_some() {
            let (next, own) = (self.noted(id, Role::Parent).next, self.noted(id, Role::File).watch);
            self.look_at(own);
            id = self.next_of(watch, Role::Parent, next);
        }
    }

    /// The next of a list; where that turned out to be gone, the first again.
    fn next_of(&self, watch: i32, role: Role, next: u32) -> u32 {
        let is_whole = next == NONE || self.registrations.get(next).is_some();
        if is_whole { next } else { self.notes.first(watch, role) }
    }

    /// A directory was moved: it lies in another now.
    fn follow(&mut self, watch: i32) {
        let mut id = self.notes.first(watch, Role::File);
        while self.registrations.get(id).is_some() {
            let next = self.noted(id, Role::File).next;
            let parent = self.noted(id, Role::Parent);
            if parent.watch >= 0 {
                self.drop_note(id, Role::Parent);
                // There is nobody to be told of a failure.
                let _ = self.add_note(id, Role::Parent, parent.mask);
            }
            id = self.next_of(watch, Role::File, next);
        }
        self.look_at(watch);
    }

    /// inotify could not keep everything.
    fn take_lost(&mut self) {
        let mut at = 0;
        while let Some(id) = self.registrations.next_from(at) {
            at = id + 1;
            let watch = self.noted(id, Role::File).watch;
            if watch < 0 || self.notes.first(watch, Role::File) != id {
                continue;
            }
            self.follow(watch);
            if let Some(now) = self.see(watch)
                && let Some(known) = self.notes.watches.get_mut(&watch)
            {
                let notes = std::mem::replace(&mut known.seen, now).possible(&now);
                self.each_of_watch(watch, |core, id| {
                    filter::of_id(core, id).may_have_missed(core, id, notes);
                });
            }
        }
    }

    /// A watch is over. Nobody has its file open any more, mostly, and its
    /// number may be another file's by now; but so it is also when a file
    /// loses its last name, if that is not the one that it was opened by.
    fn take_end(&mut self, watch: i32) {
        let seen = self.notes.watches.get(&watch).map_or(Snapshot::NOTHING, |known| known.seen);
        loop {
            let id = self.notes.first(watch, Role::File);
            if self.registrations.get(id).is_none() {
                break;
            }
            match self.snapshot(id) {
                Some(now) if now.has_no_name() => self.begin_again(id, seen),
                _ => self.forget(id),
            }
        }
        loop {
            let id = self.notes.first(watch, Role::Parent);
            if self.registrations.get(id).is_none() {
                break;
            }
            self.drop_note(id, Role::Parent);
        }
    }

    /// The watch of a file that is open is over: it gets another one. `seen`:
    /// how it was.
    fn begin_again(&mut self, id: u32, seen: Snapshot) {
        let noted = self.noted(id, Role::File);
        self.set_noted(id, Role::File, NOT);
        self.take_from_list(id, Role::File, noted);
        // There is nobody to be told of a failure.
        let _ = self.add_note(id, Role::File, noted.mask);
        let Noted { watch, next, .. } = self.noted(id, Role::File);
        if let Some(known) = self.notes.watches.get_mut(&watch)
            && (known.first, next) == ([id, NONE], NONE)
        {
            known.seen = seen;
        }
        self.look_at(watch);
        self.end_unless_used(noted.watch);
    }

    /// Looks at a file of whose changes inotify says nothing, or not yet.
    fn look_at(&mut self, watch: i32) {
        let Some(now) = self.see(watch) else { return };
        let Some(known) = self.notes.watches.get_mut(&watch) else { return };
        let notes = known.seen.take_unsaid(&now, known.mask & libc::IN_MODIFY != 0);
        if notes != 0 {
            self.tell(watch, notes);
        }
    }

    /// What happened, of what inotify calls so.
    fn observe(&mut self, watch: i32, mask: u32) -> u32 {
        let Some(now) = self.see(watch) else { return 0 };
        self.notes.watches.get_mut(&watch).map_or(0, |known| known.seen.take(&now, mask))
    }

    /// How a watch's file is.
    fn see(&mut self, watch: i32) -> Option<Snapshot> {
        loop {
            let id = self.notes.first(watch, Role::File);
            self.registrations.get(id)?;
            match self.snapshot(id) {
                Some(now) => return Some(now),
                // The descriptor is another's by now.
                None => self.forget(id),
            }
        }
    }

    fn snapshot(&self, id: u32) -> Option<Snapshot> {
        let registration = self.registrations.get(id)?;
        let stat = file::stat(registration.fd).ok()?;
        registration.is_of(&stat).then(|| Snapshot::of(&stat))
    }

    fn tell(&mut self, watch: i32, notes: u32) {
        self.each_of_watch(watch, |core, id| filter::of_id(core, id).noticed(core, id, notes));
    }

    /// For each knote of a watch's file.
    fn each_of_watch(&mut self, watch: i32, act: impl Fn(&mut Self, u32)) {
        let mut id = self.notes.first(watch, Role::File);
        while let Some(registration) = self.registrations.get(id) {
            let mut at = registration.first;
            while let Some(knote) = self.knotes.get(at) {
                let after = knote.next;
                act(self, at);
                at = after;
            }
            id = self.noted(id, Role::File).next;
        }
    }
}

/// What inotify says without a look at the file.
fn direct(mask: u32) -> u32 {
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
