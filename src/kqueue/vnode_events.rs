//! What happens to the files that a queue watches: inotify's events, as notices
//! for knotes.

use super::event::*;
use super::filter;
use super::registration::*;
use super::slab::NONE;
use super::snapshot::FileSnapshot;
use super::source::vnode::{ENTRIES, PendingMove, snapshot};
use super::state::QueueState;
use crate::sys::inotify::{self, InotifyEvent};

impl QueueState {
    /// Notifies the knotes of what happened to their files.
    pub fn take_vnode_events(&mut self) {
        if std::mem::replace(&mut self.sources.vnode.is_reading, true) {
            return;
        }
        self.sources.vnode.has_ended = false;
        // An event of inotify has at most this size, with its name.
        let mut buffer = [0; 2048];
        // Bounded, since another process may cause events all the time: the
        // rest makes the queue readable again.
        for _ in 0..64 {
            let mut rest = inotify::read(self.sources.vnode.raw(), &mut buffer);
            if rest.is_empty() {
                break;
            }
            while let Some((event, after)) = inotify::split(rest) {
                self.take_vnode_event(event);
                rest = after;
            }
        }
        self.take_moved();
        self.sources.vnode.is_reading = false;
    }

    /// Reads the events that inotify queues for watches that were removed:
    /// they would make the queue readable.
    pub fn take_ended(&mut self) {
        if self.sources.vnode.has_ended {
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
            self.sources.vnode.moved = Some(PendingMove { watch, cookie: event.cookie, notes });
            return;
        }
        let is_other_half =
            |moved: &mut PendingMove| moved.watch == watch && moved.cookie == event.cookie;
        let notes = if event.mask & libc::IN_MOVED_TO == 0 {
            NOTE_WRITE | link
        } else if self.sources.vnode.moved.take_if(is_other_half).is_some() {
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
        let id = self.sources.vnode.first(watch, Role::File);
        let (Some(known), Some(now)) =
            (self.sources.vnode.watches.get(&watch), snapshot(&self.store, id))
        else {
            return 0;
        };
        if known.seen.differs_in_subdirectories(&now) { NOTE_LINK } else { 0 }
    }

    /// The half of a rename whose other half is elsewhere.
    fn take_moved(&mut self) {
        if let Some(PendingMove { watch, notes, .. }) = self.sources.vnode.moved.take() {
            let seen = self.diff(watch, 0);
            self.notify(watch, notes | seen);
        }
    }

    /// One of the directories in this one was removed.
    fn look_at_children(&mut self, watch: i32) {
        let mut id = self.sources.vnode.first(watch, Role::Parent);
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
        if is_whole { next } else { self.sources.vnode.first(watch, role) }
    }

    /// A directory was moved: it lies in another now.
    fn reattach_parent(&mut self, watch: i32) {
        let mut id = self.sources.vnode.first(watch, Role::File);
        while self.store.registrations.get(id).is_some() {
            let next = self.store.role_watch(id, Role::File).next;
            let parent = self.store.role_watch(id, Role::Parent);
            if parent.watch >= 0 {
                self.sources.vnode.drop_watch(&mut self.store, &self.sources.set, id, Role::Parent);
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
            if watch < 0 || self.sources.vnode.first(watch, Role::File) != id {
                continue;
            }
            self.reattach_parent(watch);
            if let Some(now) = self.current_snapshot(watch)
                && let Some(known) = self.sources.vnode.watches.get_mut(&watch)
            {
                let notes = std::mem::replace(&mut known.seen, now).possible(&now);
                self.each_of_watch(watch, |state, id| {
                    filter::of_id(&state.store, id).may_have_missed(&mut state.store, id, notes);
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
            .sources
            .vnode
            .watches
            .get(&watch)
            .map_or(FileSnapshot::NOTHING, |known| known.seen);
        loop {
            let id = self.sources.vnode.first(watch, Role::File);
            if self.store.registrations.get(id).is_none() {
                break;
            }
            match snapshot(&self.store, id) {
                Some(now) if now.has_no_name() => self.begin_again(id, seen),
                _ => self.forget(id),
            }
        }
        loop {
            let id = self.sources.vnode.first(watch, Role::Parent);
            if self.store.registrations.get(id).is_none() {
                break;
            }
            self.sources.vnode.drop_watch(&mut self.store, &self.sources.set, id, Role::Parent);
        }
    }

    /// The watch of a file that is open is over: it gets another one. `seen`:
    /// how it was.
    fn begin_again(&mut self, id: u32, seen: FileSnapshot) {
        let role_watch = self.store.role_watch(id, Role::File);
        self.store.set_role_watch(id, Role::File, NO_WATCH);
        self.sources.vnode.take_from_list(&mut self.store, id, Role::File, role_watch);
        // There is no caller to report a failure to.
        let _ = self.add_vnode_watch(id, Role::File, role_watch.mask);
        let RoleWatch { watch, next, .. } = self.store.role_watch(id, Role::File);
        if let Some(known) = self.sources.vnode.watches.get_mut(&watch)
            && (known.first, next) == ([id, NONE], NONE)
        {
            known.seen = seen;
        }
        self.look_at(watch);
        self.sources.vnode.end_unless_used(&self.sources.set, role_watch.watch);
    }

    /// Looks at a file whose changes inotify does not report, or not yet.
    pub fn look_at(&mut self, watch: i32) {
        let Some(now) = self.current_snapshot(watch) else { return };
        let Some(known) = self.sources.vnode.watches.get_mut(&watch) else { return };
        let notes = known.seen.take_unreported(&now, known.mask & libc::IN_MODIFY != 0);
        if notes != 0 {
            self.notify(watch, notes);
        }
    }

    /// What happened, of what inotify calls so.
    fn diff(&mut self, watch: i32, mask: u32) -> u32 {
        let Some(now) = self.current_snapshot(watch) else { return 0 };
        self.sources.vnode.watches.get_mut(&watch).map_or(0, |known| known.seen.take(&now, mask))
    }

    /// How a watch's file is.
    fn current_snapshot(&mut self, watch: i32) -> Option<FileSnapshot> {
        loop {
            let id = self.sources.vnode.first(watch, Role::File);
            self.store.registrations.get(id)?;
            match snapshot(&self.store, id) {
                Some(now) => return Some(now),
                // The descriptor is another's by now.
                None => self.forget(id),
            }
        }
    }

    fn notify(&mut self, watch: i32, notes: u32) {
        self.each_of_watch(watch, |state, id| {
            filter::of_id(&state.store, id).noticed(&mut state.store, id, notes)
        });
    }

    /// For each knote of a watch's file.
    fn each_of_watch(&mut self, watch: i32, act: impl Fn(&mut Self, u32)) {
        let mut id = self.sources.vnode.first(watch, Role::File);
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
