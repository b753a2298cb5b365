//! Changes of files: a queue's one inotify.
//!
//! inotify has one watch for a file, however many descriptors it has, so a
//! watch has a list of registrations. It is for what any of them needs.

use super::core::Core;
use super::filter;
use super::knote::*;
use super::slab::NONE;
use crate::errno::Errno;
use crate::sys::fd::Fd;
use crate::sys::inotify;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::os::fd::RawFd;

/// All registrations are told: something was lost.
pub(super) const LOST: u32 = libc::IN_Q_OVERFLOW;

/// A file that is watched.
struct Watch {
    mask: u32,
    /// The first of its registrations.
    first: u32,
}

/// What a registration has here.
#[derive(Clone, Copy)]
pub(super) struct Noted {
    pub watch: i32,
    pub mask: u32,
    /// The next of the same file.
    next: u32,
}

pub(super) const NOT_NOTED: Noted = Noted { watch: -1, mask: 0, next: NONE };

pub(super) struct Notes {
    pub fd: Option<Fd>,
    watches: HashMap<i32, Watch, BuildHasherDefault<Mixer>>,
    /// A watch was removed: inotify has a note about that, which is no event.
    unread: bool,
}

impl Notes {
    pub fn new() -> Self {
        Self { fd: None, watches: HashMap::default(), unread: false }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Self::new();
    }

    fn raw(&self) -> RawFd {
        self.fd.as_ref().map_or(-1, Fd::raw)
    }
}

impl Core {
    /// Has inotify watch for what a descriptor's knotes need now.
    pub fn refresh_notes(&mut self, id: u32) -> Result<(), Errno> {
        let wanted = self.wanted_notes(id);
        let Some(registration) = self.registrations.get_mut(id) else { return Ok(()) };
        let noted = registration.noted;
        if wanted == noted.mask {
            return Ok(());
        }
        registration.noted.mask = wanted;
        let fd = registration.fd;
        let result = match (noted.watch, wanted) {
            (-1, _) => self.add_note(id, fd, wanted),
            (watch, 0) => {
                self.drop_note(id, watch);
                Ok(())
            }
            (watch, _) => self.set_note(watch, fd),
        };
        if result.is_err()
            && let Some(registration) = self.registrations.get_mut(id)
        {
            registration.noted.mask = noted.mask;
        }
        result
    }

    fn wanted_notes(&self, id: u32) -> u32 {
        let Some(registration) = self.registrations.get(id) else { return 0 };
        let mut wanted = 0;
        let mut at = registration.first;
        while let Some(knote) = self.knotes.get(at) {
            if !knote.is(DISABLED) {
                wanted |= filter::of(self, at).notes(knote, registration);
            }
            at = knote.next;
        }
        wanted
    }

    fn add_note(&mut self, id: u32, fd: RawFd, mask: u32) -> Result<(), Errno> {
        if self.notes.fd.is_none() {
            let fresh = inotify::create()?;
            self.set.add_notes(fresh.raw())?;
            self.notes.fd = Some(fresh);
        }
        self.notes.watches.try_reserve(1).map_err(|_| Errno::ENOMEM)?;
        let watch = inotify::watch(self.notes.raw(), fd, mask | libc::IN_MASK_ADD)?;
        let known = self.notes.watches.entry(watch).or_insert(Watch { mask: 0, first: NONE });
        known.mask |= mask;
        let next = std::mem::replace(&mut known.first, id);
        if let Some(registration) = self.registrations.get_mut(id) {
            registration.noted = Noted { watch, mask, next };
        }
        Ok(())
    }

    /// A watch becomes what its registrations need; `fd`: one of them.
    fn set_note(&mut self, watch: i32, fd: RawFd) -> Result<(), Errno> {
        let Some(known) = self.notes.watches.get(&watch) else { return Ok(()) };
        let (mut mask, mut at) = (0, known.first);
        while let Some(registration) = self.registrations.get(at) {
            mask |= registration.noted.mask;
            at = registration.noted.next;
        }
        if mask != known.mask {
            inotify::watch(self.notes.raw(), fd, mask)?;
            if let Some(known) = self.notes.watches.get_mut(&watch) {
                known.mask = mask;
            }
        }
        Ok(())
    }

    /// Takes a registration out of its watch's list. What that is for stays
    /// if there are others: the descriptor may not be the file's any more.
    pub fn drop_note(&mut self, id: u32, watch: i32) {
        let Some(registration) = self.registrations.get_mut(id) else { return };
        let next = std::mem::replace(&mut registration.noted, NOT_NOTED).next;
        let Some(known) = self.notes.watches.get_mut(&watch) else { return };
        if known.first != id {
            let mut at = known.first;
            while let Some(before) = self.registrations.get_mut(at) {
                if before.noted.next == id {
                    before.noted.next = next;
                    return;
                }
                at = before.noted.next;
            }
            return;
        }
        known.first = next;
        if next == NONE {
            self.notes.watches.remove(&watch);
            inotify::unwatch(self.notes.raw(), watch);
            self.notes.unread = true;
        }
    }

    /// Before others look whether the queue is readable.
    pub fn take_unread_notes(&mut self) {
        if std::mem::take(&mut self.notes.unread) {
            self.take_notes();
        }
    }

    /// Tells the knotes what happened to their files.
    pub fn take_notes(&mut self) {
        // A note has at most this much, and its name.
        let mut buffer = [0; 4096];
        loop {
            let mut rest = inotify::read(self.notes.raw(), &mut buffer);
            if rest.is_empty() {
                return;
            }
            while let Some((watch, mask, after)) = inotify::split(rest) {
                self.take_note(watch, mask);
                rest = after;
            }
        }
    }

    fn take_note(&mut self, watch: i32, mask: u32) {
        if mask & LOST != 0 {
            let mut watches = 0;
            while let Some(watch) = self.nth_watch(watches) {
                watches += 1;
                self.tell(watch, LOST);
            }
            return;
        }
        self.tell(watch, mask);
        if mask & libc::IN_IGNORED != 0 {
            let first = self.notes.watches.remove(&watch).map_or(NONE, |known| known.first);
            let mut at = first;
            while let Some(registration) = self.registrations.get_mut(at) {
                at = std::mem::replace(&mut registration.noted, NOT_NOTED).next;
            }
        }
    }

    fn nth_watch(&self, n: usize) -> Option<i32> {
        self.notes.watches.keys().nth(n).copied()
    }

    fn tell(&mut self, watch: i32, mask: u32) {
        let mut id = self.notes.watches.get(&watch).map_or(NONE, |known| known.first);
        while let Some(registration) = self.registrations.get(id) {
            let (next, mut at) = (registration.noted.next, registration.first);
            while let Some(knote) = self.knotes.get(at) {
                let after = knote.next;
                filter::of(self, at).noticed(self, at, mask);
                at = after;
            }
            id = next;
        }
    }
}
