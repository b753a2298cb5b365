//! What inotify says, in order, with the two halves of renames joined.
//!
//! The kernel puts the halves into its queue one after the other, and not at
//! once: other notes may come between, and a reader may find the first alone.
//! So a first half whose other half is not there holds up what comes after it
//! until the queue was read to its end, and a moment longer.

use crate::hash::Set;
use crate::sys::{file, inotify};
use crate::util::alloc::{TryDeque, TrySet};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// How long the other half of a rename is waited for.
const PATIENCE_NS: i64 = 2_000_000;

/// How many notes are read ahead, and how many for the sake of a first half.
const AHEAD: usize = 1024;
const FAR_AHEAD: usize = 65536;

/// A note of inotify's.
pub(super) struct Raw {
    pub watch: i32,
    pub mask: u32,
    pub cookie: u32,
    pub name: Box<[u8]>,
    /// How much inotify had said when it had said this.
    pub end: u64,
    /// When it was read.
    read_at: i64,
}

impl Raw {
    pub fn is_directory(&self) -> bool {
        self.mask & libc::IN_ISDIR != 0
    }
}

/// What to do next.
pub(super) enum Next {
    One(Raw),
    /// A rename, its first half and its other half.
    Pair(Raw, Raw),
    /// Nothing until that time.
    At(i64),
    None,
}

#[derive(Default)]
pub(super) struct Queue {
    notes: VecDeque<Raw>,
    /// The cookies of the second halves among them.
    arrivals: Set<u32>,
    /// How much was read, in bytes.
    read: u64,
    /// What there was no memory for, when there was nothing else.
    lost: Option<Raw>,
}

impl Queue {
    /// How much inotify has said by now.
    pub fn end(&self, inotify: RawFd) -> u64 {
        self.read + u64::try_from(file::readable(inotify).unwrap_or(0)).unwrap_or(0)
    }

    pub fn next(&mut self, inotify: RawFd, now: i64) -> Next {
        let mut is_read = false;
        loop {
            if let Some(lost) = self.lost.take() {
                return Next::One(lost);
            }
            let Some(first) = self.notes.front() else {
                if is_read || !self.fill(inotify, now, AHEAD) && self.lost.is_none() {
                    return Next::None;
                }
                is_read = true;
                continue;
            };
            let is_half = first.mask & libc::IN_MOVED_FROM != 0;
            if is_half && self.arrivals.contains(&first.cookie) {
                return self.pair();
            }
            let due = first.read_at.saturating_add(PATIENCE_NS);
            if !is_half || now >= due {
                break;
            }
            let room = if is_read { FAR_AHEAD } else { AHEAD };
            if !self.fill(inotify, now, room) {
                return if self.notes.len() >= FAR_AHEAD { self.one() } else { Next::At(due) };
            }
            is_read = true;
        }
        self.one()
    }

    fn one(&mut self) -> Next {
        let Some(note) = self.notes.pop_front() else { return Next::None };
        if note.mask & libc::IN_MOVED_TO != 0 {
            self.arrivals.remove(&note.cookie);
        }
        Next::One(note)
    }

    fn pair(&mut self) -> Next {
        let Some(from) = self.notes.pop_front() else { return Next::None };
        self.arrivals.remove(&from.cookie);
        let is_other =
            |note: &Raw| note.mask & libc::IN_MOVED_TO != 0 && note.cookie == from.cookie;
        let place = self.notes.iter().position(is_other);
        match place.and_then(|place| self.notes.remove(place)) {
            Some(to) => Next::Pair(from, to),
            None => Next::One(from),
        }
    }

    /// Reads on, until there are so many notes; whether there were any more.
    fn fill(&mut self, inotify: RawFd, now: i64, room: usize) -> bool {
        // A note has at most this much, and its name.
        let mut buffer = [0; 2048];
        let before = self.notes.len();
        while self.notes.len() < room {
            let mut rest = inotify::read(inotify, &mut buffer);
            if rest.is_empty() {
                break;
            }
            while let Some((note, after)) = inotify::split(rest) {
                self.read += (rest.len() - after.len()) as u64;
                rest = after;
                self.push(&note, now);
            }
        }
        self.notes.len() > before
    }

    fn push(&mut self, note: &inotify::Note<'_>, now: i64) {
        let name = super::join(note.name, b"");
        let room = self.notes.try_reserve(1).is_ok() && self.arrivals.try_reserve(1).is_ok();
        let Ok(name) = name.map_err(drop).and_then(|name| room.then_some(name).ok_or(())) else {
            return self.lose(now);
        };
        if note.mask & libc::IN_MOVED_TO != 0 {
            self.arrivals.insert_reserved(note.cookie);
        }
        let inotify::Note { watch, mask, cookie, .. } = *note;
        self.notes.push_back_reserved(Raw {
            watch,
            mask,
            cookie,
            name,
            end: self.read,
            read_at: now,
        });
    }

    /// There is no memory for a note: as if inotify had had none.
    fn lose(&mut self, now: i64) {
        let end = self.read;
        let overflow = Raw {
            watch: -1,
            mask: libc::IN_Q_OVERFLOW,
            cookie: 0,
            name: Box::default(),
            end,
            read_at: now,
        };
        match self.notes.back_mut() {
            Some(last) => *last = overflow,
            None => self.lost = Some(overflow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn queue(notes: &[(u32, u32)]) -> Queue {
        let mut queue = Queue::default();
        for (mask, cookie) in notes {
            let note = inotify::Note { watch: 1, mask: *mask, cookie: *cookie, name: b"name" };
            queue.push(&note, clock::now_ns());
        }
        queue
    }

    fn says(next: &Next) -> (u32, u32) {
        match next {
            Next::One(note) => (note.mask, 0),
            Next::Pair(from, to) => (from.mask, to.mask),
            Next::At(_) => (0, 1),
            Next::None => (0, 0),
        }
    }

    #[test]
    fn the_halves_of_a_rename_are_joined_whatever_is_between() {
        let (from, to) = (libc::IN_MOVED_FROM, libc::IN_MOVED_TO);
        let mut queue = queue(&[(from, 1), (libc::IN_CREATE, 0), (from, 2), (to, 1), (to, 2)]);
        let now = clock::now_ns();
        assert_eq!(says(&queue.next(-1, now)), (from, to));
        assert_eq!(says(&queue.next(-1, now)), (libc::IN_CREATE, 0));
        assert_eq!(says(&queue.next(-1, now)), (from, to));
        assert_eq!(says(&queue.next(-1, now)), (0, 0));
    }

    #[test]
    fn a_first_half_alone_is_waited_with_and_what_follows_stays_behind_it() {
        let (from, to) = (libc::IN_MOVED_FROM, libc::IN_MOVED_TO);
        let mut queue = queue(&[(from, 1), (libc::IN_CREATE, 0), (to, 7)]);
        let now = clock::now_ns();
        assert_eq!(says(&queue.next(-1, now)), (0, 1));
        assert_eq!(says(&queue.next(-1, now + 2 * PATIENCE_NS)), (from, 0));
        assert_eq!(says(&queue.next(-1, now)), (libc::IN_CREATE, 0));
        assert_eq!(says(&queue.next(-1, now)), (to, 0));
    }
}
