//! A queue's knotes, by their idents and descriptors, and those with events.

use super::epoll_set::*;
use super::event::*;
use super::knote::*;
use super::needs::Need;
use super::registration::*;
use super::slab::{NONE, Slab};
use crate::errno::{Errno, Error, Result, error};
use crate::util::alloc::TryMap;
use crate::util::bug_or;

/// How many knotes a queue has at most: so many a timer queue can distinguish.
const MOST: u32 = 1 << 24;

pub(super) struct Store {
    pub knotes: Slab<Knote>,
    pub index: Index,
    specific: SpecificIndex,
    pub registrations: Slab<Registration>,
    pub active: ActiveList,
}

impl Store {
    pub fn new() -> Self {
        Self {
            knotes: Slab::new(),
            index: Index::default(),
            specific: SpecificIndex::default(),
            registrations: Slab::new(),
            active: ActiveList::new(),
        }
    }

    /// Forgets which calls delivered the knotes.
    #[cold]
    pub fn forget_calls(&mut self) {
        let mut cursor = 0;
        while let Some(id) = self.knotes.next_from(cursor) {
            cursor = id + 1;
            if let Some(knote) = self.knotes.get_mut(id) {
                knote.call_seq = 0;
            }
        }
    }

    /// The first knote of an ident that is no descriptor.
    #[inline]
    pub fn first_of(&self, ident: u64, filter: i16) -> u32 {
        self.index.get(&(ident, filter)).copied().unwrap_or(NONE)
    }

    /// The number of a new knote, which is linked next. ENOMEM.
    #[inline]
    pub fn insert(&mut self, knote: Knote) -> Result<u32> {
        self.knotes.insert(knote, MOST).ok_or_else(no_memory)
    }

    /// Takes a knote out; nothing is watched for it any more. Its
    /// registration.
    pub fn remove(&mut self, id: u32) -> u32 {
        self.deactivate(id);
        self.forget_need(id);
        let Some(knote) = self.knotes.get(id) else { bug_or!(return NONE) };
        let (ident, filter, udata) = (knote.ident, knote.filter, knote.udata);
        let is_specific = knote.has(EV_UDATA_SPECIFIC);
        let (registration, previous, next) = (knote.registration, knote.previous, knote.next);
        self.set_next(previous, registration, (ident, filter), next);
        if let Some(next) = self.knotes.get_mut(next) {
            next.previous = previous;
        }
        if is_specific && self.specific.get(&(ident, filter, udata)) == Some(&id) {
            self.specific.remove(&(ident, filter, udata));
        }
        self.knotes.remove(id);
        registration
    }

    pub fn reserve_index(&mut self) -> Result<()> {
        self.index.try_reserve(1).map_err(|_| no_memory())?;
        self.specific.try_reserve(1).map_err(|_| no_memory())
    }

    /// The knote that a change means, of a list of knotes.
    pub fn find(&self, first: u32, change: &Kevent) -> Option<u32> {
        if change.flags & EV_UDATA_SPECIFIC != 0 {
            return self.specific.get(&(change.ident, change.filter, change.udata)).copied();
        }
        let mut id = first;
        // Those that have their udata in their key come last.
        while let Some(knote) = self.knotes.get(id)
            && !knote.has(EV_UDATA_SPECIFIC)
        {
            if knote.filter == change.filter {
                return Some(id);
            }
            id = knote.next;
        }
        None
    }

    /// Puts a new knote where it is found; there is room for it.
    pub fn link(&mut self, id: u32, change: &Kevent) {
        let Some(knote) = self.knotes.get(id) else { bug_or!(return) };
        let (registration, is_specific) = (knote.registration, knote.has(EV_UDATA_SPECIFIC));
        let (mut before, mut after) = (NONE, self.first_beside(registration, change));
        while is_specific
            && let Some(knote) = self.knotes.get(after)
            && !knote.has(EV_UDATA_SPECIFIC)
        {
            // There are few: one for each filter.
            (before, after) = (after, knote.next);
        }
        if is_specific {
            self.specific.insert_reserved((change.ident, change.filter, change.udata), id);
        }
        if let Some(knote) = self.knotes.get_mut(id) {
            (knote.previous, knote.next) = (before, after);
        }
        self.set_next(before, registration, (change.ident, change.filter), id);
        if let Some(knote) = self.knotes.get_mut(after) {
            knote.previous = id;
        }
    }

    /// The first knote of a descriptor, or of the same ident and filter.
    fn first_beside(&self, registration: u32, change: &Kevent) -> u32 {
        match self.registrations.get(registration) {
            Some(registration) => registration.first,
            None => self.first_of(change.ident, change.filter),
        }
    }

    /// Has a knote followed by another one; without one before, that is the
    /// first.
    fn set_next(&mut self, before: u32, registration: u32, key: (u64, i16), next: u32) {
        if let Some(before) = self.knotes.get_mut(before) {
            before.next = next;
        } else if let Some(registration) = self.registrations.get_mut(registration) {
            registration.first = next;
        } else if next == NONE {
            self.index.remove(&key);
        } else {
            self.index.insert_reserved(key, next);
        }
    }

    /// It has, or may have, an event.
    pub fn activate(&mut self, id: u32) {
        let Some(knote) = self.knotes.get_mut(id) else { bug_or!(return) };
        knote.status |= ACTIVE;
        if !knote.is(QUEUED | DISABLED) {
            self.active.append(&mut self.knotes, id);
        }
    }

    /// It has no event any more.
    pub fn deactivate(&mut self, id: u32) {
        let Some(knote) = self.knotes.get_mut(id) else { bug_or!(return) };
        knote.status &= !(ACTIVE | FORCED);
        if knote.is(QUEUED) {
            self.active.remove(&mut self.knotes, id);
        }
    }

    fn forget_need(&mut self, id: u32) {
        let Some(knote) = self.knotes.get_mut(id) else { bug_or!(return) };
        if let Some(registration) = self.registrations.get_mut(knote.registration) {
            registration.needs.change(std::mem::take(&mut knote.need), Need::default());
        }
    }

    /// Where a kind of a registration is, and its word.
    pub fn epoll_entry(&self, registration: u32, kind: usize) -> EpollEntry {
        let in_inner = self.registrations.get(registration).is_some_and(|one| one.in_inner == kind);
        let word = word(registration, self.registrations.generation(registration));
        EpollEntry { kind, in_inner, word }
    }

    /// Which kind of its registration is in the inner epoll.
    pub fn kind_in_inner(&self, id: u32) -> usize {
        self.registrations.get(id).map_or(KINDS, |registration| registration.in_inner)
    }

    /// Whether no epoll takes it.
    pub fn is_file(&self, id: u32) -> bool {
        self.registrations.get(id).is_some_and(|one| one.is_file)
    }

    /// How the kernel has each kind of a registration.
    pub fn masks(&self, id: u32) -> Masks {
        self.registrations.get(id).map_or([0; KINDS], |one| one.masks)
    }

    /// What a registration has of inotify, in a role.
    pub fn role_watch(&self, id: u32, role: Role) -> RoleWatch {
        let registration = self.registrations.get(id);
        registration.and_then(|one| one.role_watch.get(role as usize)).copied().unwrap_or(NO_WATCH)
    }

    pub fn set_role_watch(&mut self, id: u32, role: Role, role_watch: RoleWatch) {
        if let Some(registration) = self.registrations.get_mut(id)
            && let Some(slot) = registration.role_watch.get_mut(role as usize)
        {
            *slot = role_watch;
        }
    }
}

pub(super) fn no_memory() -> Error {
    error!(Errno::ENOMEM, "no memory for another knote")
}
