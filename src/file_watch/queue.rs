//! What inotify says, in order, with the two halves of renames joined.
//!
//! The kernel puts the halves into its queue one after the other, and not at
//! once: other events may come between, and a reader may find the first alone.
//! So a first half whose other half is not there holds up what comes after it
//! until the queue was read to its end, and a moment longer.
//!
//! The halves do not say which directory was renamed, and names do not either:
//! "a to b, b to a" is a rename and back, or an exchange of two directories.
//! IN_MOVE_SELF says it, of a directory that is watched: the kernel queues it
//! right behind the halves, before it changes either directory again.

use super::path::join;
use super::types::ENTRIES;
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

/// How many events are read ahead, and how many for the sake of a first half.
const AHEAD: usize = 1024;
const FAR_AHEAD: usize = 65536;

/// How many events of others may come between a rename and its IN_MOVE_SELF.
const BETWEEN: usize = 1024;

/// An event of inotify's.
pub(super) struct QueuedEvent {
    pub watch: i32,
    pub mask: u32,
    pub cookie: u32,
    pub name: Box<[u8]>,
    /// Where the event ends in inotify's queue, in bytes from the beginning.
    pub end: u64,
    /// When it was read.
    read_at: i64,
}

impl QueuedEvent {
    pub fn is_directory(&self) -> bool {
        self.mask & libc::IN_ISDIR != 0
    }
}

/// What to do next.
pub(super) enum Next {
    One(QueuedEvent),
    /// A rename, its first half and its other half.
    Pair(QueuedEvent, QueuedEvent),
    /// Nothing until that time.
    At(i64),
    None,
}

#[derive(Default)]
pub(super) struct InotifyQueue {
    events: VecDeque<QueuedEvent>,
    /// The cookies of the second halves among them.
    arrivals: Set<u32>,
    /// How much was read, in bytes.
    read: u64,
    /// What there was no memory for, when there was nothing else.
    lost: Option<QueuedEvent>,
}

impl InotifyQueue {
    /// Whether everything that was read is dealt with.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.lost.is_none()
    }

    /// What was read and not dealt with, from a place of inotify's queue on.
    pub fn behind(&self, end: u64) -> impl Iterator<Item = &QueuedEvent> {
        self.events.range(self.events.partition_point(|event| event.end <= end)..)
    }

    /// Reads on, though it is not time to deal with that.
    pub fn read_ahead(&mut self, inotify: RawFd, now: i64) {
        self.fill(inotify, now, FAR_AHEAD);
    }

    /// Where inotify's queue ends now: the bytes that were read, and those that
    /// can be read.
    pub fn end(&self, inotify: RawFd) -> u64 {
        self.read + u64::try_from(file::readable(inotify).unwrap_or(0)).unwrap_or(0)
    }

    /// The next event. `is_settled`: whether it is known which directory a
    /// rename moved, by its first half and the end of its other half.
    pub fn next(
        &mut self,
        inotify: RawFd,
        now: i64,
        is_settled: impl Fn(&Self, &QueuedEvent, u64) -> bool,
    ) -> Next {
        let mut is_read = false;
        loop {
            if let Some(lost) = self.lost.take() {
                return Next::One(lost);
            }
            let Some(first) = self.events.front() else {
                if is_read || !self.fill(inotify, now, AHEAD) && self.lost.is_none() {
                    return Next::None;
                }
                is_read = true;
                continue;
            };
            if first.mask & libc::IN_MOVED_FROM == 0 {
                return self.one();
            }
            let end = self.other_half(first).map(|(_, event)| event.end);
            if end.is_some_and(|end| is_settled(self, first, end)) {
                return self.pair();
            }
            let patience = if end.is_some() { SETTLING_NS } else { PATIENCE_NS };
            let due = first.read_at.saturating_add(patience);
            if self.fill(inotify, now, FAR_AHEAD) {
                continue;
            }
            if now < due && self.events.len() < FAR_AHEAD {
                return Next::At(due);
            }
            return if end.is_some() { self.pair() } else { self.one() };
        }
    }

    fn other_half(&self, from: &QueuedEvent) -> Option<(usize, &QueuedEvent)> {
        let is_other = |event: &QueuedEvent| {
            event.mask & libc::IN_MOVED_TO != 0 && event.cookie == from.cookie
        };
        let mut events = self.events.iter().enumerate();
        let is_there = self.arrivals.contains(&from.cookie);
        is_there.then(|| events.find(|(_, event)| is_other(event))).flatten()
    }

    /// Whether a rename moved this directory out of its parent; the events of
    /// its halves end at `end`. `None`: the event that shows it may yet come.
    pub fn has_moved(&self, watch: i32, parent: i32, end: u64) -> Option<bool> {
        for (count, event) in self.behind(end).enumerate() {
            if event.watch == watch && event.mask & libc::IN_MOVE_SELF != 0 {
                return Some(true);
            }
            if count >= BETWEEN || event.watch == parent && event.mask & ENTRIES != 0 {
                return Some(false);
            }
        }
        None
    }

    fn one(&mut self) -> Next {
        let Some(event) = self.events.pop_front() else { return Next::None };
        if event.mask & libc::IN_MOVED_TO != 0 {
            self.arrivals.remove(&event.cookie);
        }
        Next::One(event)
    }

    fn pair(&mut self) -> Next {
        let index = self.events.front().and_then(|from| self.other_half(from)).map(|(i, _)| i);
        let to = index.and_then(|index| self.events.remove(index));
        let Some(from) = self.events.pop_front() else { return Next::None };
        self.arrivals.remove(&from.cookie);
        match to {
            Some(to) => Next::Pair(from, to),
            None => Next::One(from),
        }
    }

    /// Reads on, until there are so many events; whether there were any more.
    fn fill(&mut self, inotify: RawFd, now: i64, capacity: usize) -> bool {
        // An event has at most this much, and its name.
        let mut buffer = [0; 2048];
        let before = self.events.len();
        while self.events.len() < capacity {
            let mut rest = inotify::read(inotify, &mut buffer);
            if rest.is_empty() {
                break;
            }
            while let Some((event, after)) = inotify::split(rest) {
                self.read += (rest.len() - after.len()) as u64;
                rest = after;
                self.push(&event, now);
            }
        }
        self.events.len() > before
    }

    fn push(&mut self, event: &inotify::InotifyEvent<'_>, now: i64) {
        let name = join(event.name, b"");
        let has_room = self.events.try_reserve(1).is_ok() && self.arrivals.try_reserve(1).is_ok();
        let Ok(name) = name.map_err(drop).and_then(|name| has_room.then_some(name).ok_or(()))
        else {
            return self.set_lost(now);
        };
        if event.mask & libc::IN_MOVED_TO != 0 {
            self.arrivals.insert_reserved(event.cookie);
        }
        let inotify::InotifyEvent { watch, mask, cookie, .. } = *event;
        self.events.push_back_reserved(QueuedEvent {
            watch,
            mask,
            cookie,
            name,
            end: self.read,
            read_at: now,
        });
    }

    /// There is no memory for an event: as if inotify had had none.
    fn set_lost(&mut self, now: i64) {
        let end = self.read;
        let overflow = QueuedEvent {
            watch: -1,
            mask: libc::IN_Q_OVERFLOW,
            cookie: 0,
            name: Box::default(),
            end,
            read_at: now,
        };
        match self.events.back_mut() {
            Some(last) => *last = overflow,
            None => self.lost = Some(overflow),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    /// Events of watch 1, or of another one.
    fn queue(events: &[(u32, u32)]) -> InotifyQueue {
        let watched: Vec<_> = events.iter().map(|(mask, cookie)| (1, *mask, *cookie)).collect();
        queue_of(&watched)
    }

    fn queue_of(events: &[(i32, u32, u32)]) -> InotifyQueue {
        let mut queue = InotifyQueue::default();
        for (watch, mask, cookie) in events {
            let (watch, mask, cookie) = (*watch, *mask, *cookie);
            queue.read += 16;
            queue.push(
                &inotify::InotifyEvent { watch, mask, cookie, name: b"name" },
                clock::now_ns(),
            );
        }
        queue
    }

    fn says(next: &Next) -> (u32, u32) {
        match next {
            Next::One(event) => (event.mask, 0),
            Next::Pair(from, to) => (from.mask, to.mask),
            Next::At(_) => (0, 1),
            Next::None => (0, 0),
        }
    }

    fn settled(_: &InotifyQueue, _: &QueuedEvent, _: u64) -> bool {
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
        let is_settled =
            |queue: &InotifyQueue, _: &QueuedEvent, end: u64| queue.has_moved(7, 1, end).is_some();
        assert_eq!(says(&queue.next(-1, now, is_settled)), (0, 1));
        queue.push(
            &inotify::InotifyEvent { watch: 7, mask: libc::IN_MOVE_SELF, cookie: 0, name: b"" },
            now,
        );
        queue.events[2].end += 16;
        assert_eq!(says(&queue.next(-1, now, is_settled)), (from, to));
        assert_eq!(says(&queue.next(-1, now, is_settled)), (libc::IN_MOVE_SELF, 0));
    }
}
