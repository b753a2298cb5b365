//! What inotify says, in order, with the two halves of renames joined.
//!
//! The kernel puts the halves into its queue one after the other, and not at
//! once: other notes may come between, and a reader may find the first alone.
//! So a first half whose other half is not there holds up what comes after it
//! until the queue was read to its end, and a moment longer.
//!
//! The halves do not say which directory was renamed, and names do not either:
//! "a to b, b to a" is a rename and back, or an exchange of two directories.
//! IN_MOVE_SELF says it, of a directory that is watched: the kernel queues it
//! right behind the halves, before it changes either directory again.

use super::ENTRIES;
use crate::hash::Set;
use crate::sys::{file, inotify};
use crate::util::alloc::{TryDeque, TrySet};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// How long the other half of a rename is waited for. Most that have none were
/// moved out of what is watched, and what comes after them waits, too.
const PATIENCE_NS: i64 = 2_000_000;
/// How long the IN_MOVE_SELF of a rename is waited for. It always comes, if
/// the directory is watched; a virtual machine may halt the kernel before it.
const SETTLING_NS: i64 = 100_000_000;

/// How many notes are read ahead, and how many for the sake of a first half.
const AHEAD: usize = 1024;
const FAR_AHEAD: usize = 65536;

/// How many notes of others may come between a rename and its IN_MOVE_SELF.
const BETWEEN: usize = 1024;

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
    /// Whether everything that was read is dealt with.
    pub fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.lost.is_none()
    }

    /// What was read and not dealt with, from a place of inotify's queue on.
    pub fn behind(&self, end: u64) -> impl Iterator<Item = &Raw> {
        self.notes.range(self.notes.partition_point(|note| note.end <= end)..)
    }

    /// Reads on, though it is not time to deal with that.
    pub fn read_ahead(&mut self, inotify: RawFd, now: i64) {
        self.fill(inotify, now, FAR_AHEAD);
    }

    /// How much inotify has said by now.
    pub fn end(&self, inotify: RawFd) -> u64 {
        self.read + u64::try_from(file::readable(inotify).unwrap_or(0)).unwrap_or(0)
    }

    /// The next note. `is_settled`: whether it is known which directory a
    /// rename moved, by its first half and the end of its other half.
    pub fn next(
        &mut self,
        inotify: RawFd,
        now: i64,
        is_settled: impl Fn(&Self, &Raw, u64) -> bool,
    ) -> Next {
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
            if first.mask & libc::IN_MOVED_FROM == 0 {
                return self.one();
            }
            let end = self.other_half(first).map(|(_, note)| note.end);
            if end.is_some_and(|end| is_settled(self, first, end)) {
                return self.pair();
            }
            let patience = if end.is_some() { SETTLING_NS } else { PATIENCE_NS };
            let due = first.read_at.saturating_add(patience);
            if self.fill(inotify, now, FAR_AHEAD) {
                continue;
            }
            if now < due && self.notes.len() < FAR_AHEAD {
                return Next::At(due);
            }
            return if end.is_some() { self.pair() } else { self.one() };
        }
    }

    fn other_half(&self, from: &Raw) -> Option<(usize, &Raw)> {
        let is_other =
            |note: &Raw| note.mask & libc::IN_MOVED_TO != 0 && note.cookie == from.cookie;
        let mut notes = self.notes.iter().enumerate();
        let is_there = self.arrivals.contains(&from.cookie);
        is_there.then(|| notes.find(|(_, note)| is_other(note))).flatten()
    }

    /// Whether a rename moved this directory out of its parent; the events of
    /// its halves end at `end`. `None`: the event that says so may yet come.
    pub fn has_moved(&self, watch: i32, parent: i32, end: u64) -> Option<bool> {
        for (count, note) in self.behind(end).enumerate() {
            if note.watch == watch && note.mask & libc::IN_MOVE_SELF != 0 {
                return Some(true);
            }
            if count >= BETWEEN || note.watch == parent && note.mask & ENTRIES != 0 {
                return Some(false);
            }
        }
        None
    }

    fn one(&mut self) -> Next {
        let Some(note) = self.notes.pop_front() else { return Next::None };
        if note.mask & libc::IN_MOVED_TO != 0 {
            self.arrivals.remove(&note.cookie);
        }
        Next::One(note)
    }

    fn pair(&mut self) -> Next {
        let place = self.notes.front().and_then(|from| self.other_half(from)).map(|(at, _)| at);
        let to = place.and_then(|place| self.notes.remove(place));
        let Some(from) = self.notes.pop_front() else { return Next::None };
        self.arrivals.remove(&from.cookie);
        match to {
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

    /// Notes of watch 1, or of another one.
    fn queue(notes: &[(u32, u32)]) -> Queue {
        let watched: Vec<_> = notes.iter().map(|(mask, cookie)| (1, *mask, *cookie)).collect();
        queue_of(&watched)
    }

    fn queue_of(notes: &[(i32, u32, u32)]) -> Queue {
        let mut queue = Queue::default();
        for (watch, mask, cookie) in notes {
            let (watch, mask, cookie) = (*watch, *mask, *cookie);
            queue.read += 16;
            queue.push(&inotify::Note { watch, mask, cookie, name: b"name" }, clock::now_ns());
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

    fn settled(_: &Queue, _: &Raw, _: u64) -> bool {
        true
    }

    #[test]
    fn the_halves_of_a_rename_are_joined_whatever_is_between() {
        let (from, to) = (libc::IN_MOVED_FROM, libc::IN_MOVED_TO);
        let mut queue = queue(&[(from, 1), (libc::IN_CREATE, 0), (from, 2), (to, 1), (to, 2)]);
        let now = clock::now_ns();
        assert_eq!(says(&queue.next(-1, now, settled)), (from, to));
        assert_eq!(says(&queue.next(-1, now, settled)), (libc::IN_CREATE, 0));
        assert_eq!(says(&queue.next(-1, now, settled)), (from, to));
        assert_eq!(says(&queue.next(-1, now, settled)), (0, 0));
    }

    #[test]
    fn a_first_half_alone_is_waited_with_and_what_follows_stays_behind_it() {
        let (from, to) = (libc::IN_MOVED_FROM, libc::IN_MOVED_TO);
        let mut queue = queue(&[(from, 1), (libc::IN_CREATE, 0), (to, 7)]);
        let now = clock::now_ns();
        assert_eq!(says(&queue.next(-1, now, settled)), (0, 1));
        assert_eq!(says(&queue.next(-1, now + 2 * PATIENCE_NS, settled)), (from, 0));
        assert_eq!(says(&queue.next(-1, now, settled)), (libc::IN_CREATE, 0));
        assert_eq!(says(&queue.next(-1, now, settled)), (to, 0));
    }

    #[test]
    fn which_directory_was_renamed_is_known_when_its_watch_says_so() {
        let (from, to, itself) = (libc::IN_MOVED_FROM, libc::IN_MOVED_TO, libc::IN_MOVE_SELF);
        let rename = [(1, from, 1), (1, to, 1)];
        let has_moved = |behind: &[(i32, u32, u32)]| {
            queue_of(&[&rename[..], behind].concat()).has_moved(7, 1, 32)
        };
        assert_eq!(has_moved(&[]), None);
        assert_eq!(has_moved(&[(2, libc::IN_CREATE, 0), (7, libc::IN_ATTRIB, 0)]), None);
        assert_eq!(has_moved(&[(7, itself, 0)]), Some(true));
        assert_eq!(
            has_moved(&[(2, libc::IN_CREATE, 0), (8, itself, 0), (7, itself, 0)]),
            Some(true)
        );
        assert_eq!(has_moved(&[(1, from, 2), (1, to, 2), (7, itself, 0)]), Some(false));
    }

    #[test]
    fn a_rename_is_waited_with_until_it_is_known_what_it_moved() {
        let (from, to) = (libc::IN_MOVED_FROM, libc::IN_MOVED_TO);
        let mut queue = queue(&[(from, 1), (to, 1)]);
        let now = clock::now_ns();
        let is_settled = |queue: &Queue, _: &Raw, end: u64| queue.has_moved(7, 1, end).is_some();
        assert_eq!(says(&queue.next(-1, now, is_settled)), (0, 1));
        queue
            .push(&inotify::Note { watch: 7, mask: libc::IN_MOVE_SELF, cookie: 0, name: b"" }, now);
        queue.notes[2].end += 16;
        assert_eq!(says(&queue.next(-1, now, is_settled)), (from, to));
        assert_eq!(says(&queue.next(-1, now, is_settled)), (libc::IN_MOVE_SELF, 0));
    }
}
