//! Finding the directories of a tree: each is watched first and read then, so
//! that what comes into it in between is found, or reported by inotify.
//!
//! A directory may have any number of entries, which others decide. So it is
//! read a piece at a time, and of its files nothing is kept. Which of them
//! inotify will report as new is known by what it has queued.

use super::backlog::{DirectoryRead, Scan, ScanStep};
use super::events::Outgoing;
use super::node::DirectoryId;
use super::open::is_gone;
use super::path::{c_str, join, terminated};
use super::state::Files;
use super::types::AT_A_TIME;
use crate::errno::Errno;
use crate::hash::Map;
use crate::sys::directory::{self, DirectoryEntry, DirentBuffer, To};
use crate::sys::fd::Fd;
use crate::util::alloc::TryDeque;
use std::ffi::CStr;

/// Directories that wait for inotify to report renames; more are as if it had
/// lost something.
const MAX_UNRESOLVED: usize = 8192;

/// What an entry of a directory costs that is one itself, in events' time, and
/// what anything else does that is to be opened.
const ENTER: usize = 4;
const OPEN: usize = 8;

// What is done.
impl Files {
    /// Does a part of what there is to do; what that took, in events' time.
    pub(super) fn step(&mut self) -> usize {
        let is_first = |scan: &Scan| matches!(scan.step, ScanStep::Forget);
        if !self.backlog.scans.front().is_some_and(is_first)
            && let Some(reading) = self.backlog.reading.take()
        {
            return OPEN + self.read_on(reading);
        }
        let Some(scan) = self.backlog.scans.pop_front() else { return 0 };
        let done = match &scan.step {
            ScanStep::Enter(parent, name) => self.enter(&scan, *parent, name),
            ScanStep::Read(watch) => self.begin_reading(&scan, *watch),
            ScanStep::Forget => {
                if self.forget_more(scan.watcher) && !self.backlog.forget_first(scan.watcher) {
                    while self.forget_more(scan.watcher) {}
                }
                return AT_A_TIME / 8;
            }
        };
        if let Err(errno) = done {
            self.fail_scan(scan, errno);
        }
        OPEN
    }

    fn enter(&mut self, scan: &Scan, parent: i32, name: &[u8]) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&scan.watcher) else { return Ok(()) };
        // Should another one have the name by now, inotify will report it
        // after it has reported what became of the one that is known.
        if !watcher.nodes.contains_key(&parent) || watcher.child(parent, name).is_some() {
            return Ok(());
        }
        let above = watcher.open_directory(parent, To::Find)?;
        let name = terminated(name)?;
        self.enter_from(&above, (scan.watcher, scan.reports_new), parent, c_str(&name)?)
    }

    /// Watches an entry of an open directory, which is one itself. If the
    /// entry is gone, inotify will report what became of it.
    fn enter_from(
        &mut self,
        above: &Fd,
        (id, reports_new): (u32, bool),
        parent: i32,
        c_name: &CStr,
    ) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&id) else { return Ok(()) };
        let name = c_name.to_bytes();
        let path = watcher.full_path(parent, name)?;
        let since = self.end_of_queue();
        let found = match directory::open_entry(above.raw(), c_name, To::Find) {
            Err(errno) if is_gone(errno) => return Ok(()),
            found => found?,
        };
        let identity = DirectoryId::of(&found)?;
        let mut number = self.join_directory(id, &found, c_str(&path)?, libc::IN_DONT_FOLLOW)?;
        if self.is_known(id, number) {
            if !self.is_stale(id, number) {
                // It was moved, which inotify has yet to report; or it has
                // two places, by a mount.
                return self.enter_later((id, reports_new), parent, name);
            }
            self.forget(id, number);
            number = self.join_directory(id, &found, c_str(&path)?, libc::IN_DONT_FOLLOW)?;
        }
        self.insert(id, number, (parent, name), (since, identity))?;
        self.read_later(id, number, reports_new)
    }

    fn enter_later(
        &mut self,
        (watcher, reports_new): (u32, bool),
        parent: i32,
        name: &[u8],
    ) -> Result<(), Errno> {
        let step = ScanStep::Enter(parent, join(name, b"")?);
        self.defer_move(Scan { watcher, reports_new, step });
        Ok(())
    }

    pub(super) fn is_known(&self, id: u32, number: i32) -> bool {
        self.watchers.get(&id).is_some_and(|watcher| watcher.nodes.contains_key(&number))
    }

    /// Whether a directory is not where it is known to be, and inotify has
    /// nothing more to report about that.
    fn is_stale(&self, id: u32, number: i32) -> bool {
        self.is_in_place(id, number) == Ok(false) && self.is_drained()
    }

    pub(super) fn read_later(
        &mut self,
        id: u32,
        watch: i32,
        reports_new: bool,
    ) -> Result<(), Errno> {
        let scan = Scan { watcher: id, reports_new, step: ScanStep::Read(watch) };
        self.backlog.push(scan).inspect_err(|_| self.forget(id, watch))
    }

    fn begin_reading(&mut self, scan: &Scan, watch: i32) -> Result<(), Errno> {
        let Some(watcher) = self.watchers.get(&scan.watcher) else { return Ok(()) };
        if !watcher.nodes.contains_key(&watch) {
            return Ok(());
        }
        let directory = watcher.open_directory(watch, To::Read)?;
        let (watcher, reports_new, reported) = (scan.watcher, scan.reports_new, Map::default());
        let until = self.since(watcher, watch);
        let has_begun = false;
        let reading =
            DirectoryRead { watcher, reports_new, watch, directory, reported, until, has_begun };
        self.backlog.reading = Some(reading);
        Ok(())
    }

    /// Reads some more of a directory; what that took.
    fn read_on(&mut self, mut reading: DirectoryRead) -> usize {
        if !self.is_known(reading.watcher, reading.watch) {
            return 0;
        }
        let mut buffer = DirentBuffer::new();
        let mut rest = match self.read_entries(&mut reading, &mut buffer) {
            Ok([]) => return 0,
            Ok(entries) => entries,
            Err(errno) => {
                self.stop_reading(&reading, errno);
                return 0;
            }
        };
        reading.has_begun = reading.reports_new;
        let mut cost = 0;
        while let Some((entry, after)) = directory::split(rest)
            && self.backlog.failure.is_none()
        {
            rest = after;
            cost += self.take_entry(&reading, &entry);
        }
        self.backlog.reading = Some(reading);
        cost
    }

    fn read_entries<'a>(
        &mut self,
        reading: &mut DirectoryRead,
        buffer: &'a mut DirentBuffer,
    ) -> Result<&'a [u8], Errno> {
        let entries = match directory::read(&reading.directory, buffer) {
            // It was deleted, for which it had to be empty.
            Err(Errno::ENOENT) => return Ok(&[]),
            read => read?,
        };
        // What inotify reports of these it has queued by now.
        self.read_ahead();
        reading.look_at(&self.queue)?;
        // Had it been moved out of the tree before they came, they would be
        // none of the tree's.
        let is_reported = reading.reports_new && !entries.is_empty();
        if is_reported && !self.is_in_place(reading.watcher, reading.watch)? {
            return Err(Errno::ENOENT);
        }
        Ok(entries)
    }

    /// A directory that was being read cannot be read on. When it can it is
    /// read from the beginning, but nothing is reported twice: what was not
    /// yet is lost.
    fn stop_reading(&mut self, reading: &DirectoryRead, errno: Errno) {
        let DirectoryRead { watcher, watch, has_begun, .. } = *reading;
        if has_begun && is_gone(errno) {
            self.notify(watcher, Outgoing::entry(libc::IN_Q_OVERFLOW, -1, b""));
        }
        let reports_new = reading.reports_new && !has_begun;
        self.fail_scan(Scan { watcher, reports_new, step: ScanStep::Read(watch) }, errno);
    }

    fn take_entry(&mut self, reading: &DirectoryRead, entry: &DirectoryEntry<'_>) -> usize {
        let DirectoryRead { watcher: id, reports_new, watch, .. } = *reading;
        let name = entry.name.to_bytes();
        // What came while it is read is reported, and watched, in its turn.
        if entry.is_dots() || reading.arrives(name) {
            return 0;
        }
        let is_directory = entry.is_directory(&reading.directory);
        if reports_new {
            let kind = if is_directory { libc::IN_ISDIR } else { 0 };
            self.notify(id, Outgoing::entry(libc::IN_CREATE | kind, watch, name));
        }
        let is_there =
            || self.watchers.get(&id).is_some_and(|one| one.child(watch, name).is_some());
        if !is_directory || is_there() {
            return usize::from(reports_new);
        }
        match self.enter_from(&reading.directory, (id, reports_new), watch, entry.name) {
            Ok(()) => {}
            // Its path leads elsewhere, as far as it is known.
            Err(errno) if is_gone(errno) => {
                self.lost |= self.enter_later((id, reports_new), watch, name).is_err();
            }
            Err(errno) => self.fail_entry(id, watch, name, errno),
        }
        ENTER
    }
}

// What cannot be done.
impl Files {
    fn fail_scan(&mut self, scan: Scan, errno: Errno) {
        let id = scan.watcher;
        if is_gone(errno) {
            return self.lose_place(scan);
        }
        match scan.step {
            ScanStep::Forget => {}
            ScanStep::Enter(parent, name) => self.fail_entry(id, parent, &name, errno),
            ScanStep::Read(watch)
                if self.is_strict_about(errno) || self.is_strict_root(id, watch) =>
            {
                self.backlog.failure = Some(errno);
            }
            ScanStep::Read(watch) => {
                let was_before = self.read_as_before(id, watch);
                self.report_failure(id, watch, b"", errno);
                if !was_before {
                    self.forget(id, watch);
                }
            }
        }
    }

    /// A directory in another one cannot be watched.
    fn fail_entry(&mut self, id: u32, parent: i32, name: &[u8], errno: Errno) {
        if self.is_strict_about(errno) {
            self.backlog.failure = Some(errno);
        } else if !self.enter_as_before(id, parent, name) {
            self.report_failure(id, parent, name, errno);
        }
    }

    /// Whether it is the root of a tree that is added, which is read for that.
    fn is_strict_root(&self, id: u32, watch: i32) -> bool {
        let is_root = self.watchers.get(&id).is_some_and(|watcher| watcher.root == watch);
        self.backlog.is_strict && is_root
    }

    fn is_strict_about(&self, errno: Errno) -> bool {
        self.backlog.is_strict && errno.is_shortage()
    }

    /// A directory is not where it is known to be: it is gone; or it, or one
    /// that it lies in, was renamed, which inotify has yet to report; or the
    /// path of the whole tree leads elsewhere.
    fn lose_place(&mut self, scan: Scan) {
        let id = scan.watcher;
        if self.is_root_lost(id) {
            if self.backlog.is_strict {
                self.backlog.failure = Some(Errno::ENOENT);
                return;
            }
            return self.report_end(id);
        }
        self.defer_move(scan);
    }

    /// A directory cannot be watched, or read, until inotify has reported what
    /// became of another one.
    fn defer_move(&mut self, scan: Scan) {
        // It is looked at once more when that was read to its end.
        self.has_moved |= !self.is_drained();
        if self.unresolved_moves.len() >= MAX_UNRESOLVED
            || self.unresolved_moves.try_push_back(scan).is_err()
        {
            self.lost = true;
        }
    }

    /// Looks again for the directories that waited, where inotify has reported
    /// renames since; false: none, or none waits. `is_drained`: it has nothing
    /// more to report now. Else they are not looked for more often than what
    /// it reports takes time.
    pub(super) fn retry_moves(&mut self, is_drained: bool) -> bool {
        let is_time = is_drained || self.since_retry >= self.unresolved_moves.len();
        if self.unresolved_moves.is_empty() || !self.has_moved || !is_time {
            return false;
        }
        (self.has_moved, self.since_retry) = (false, 0);
        while let Some(scan) = self.unresolved_moves.pop_front() {
            if self.backlog.push(scan).is_err() {
                self.lost = true;
                break;
            }
        }
        true
    }

    /// A directory is new in a tree: it is to be watched, and what is in it
    /// reported.
    pub(super) fn scan(&mut self, id: u32, parent: i32, name: &[u8]) {
        let pushed = join(name, b"").and_then(|name| {
            let step = ScanStep::Enter(parent, name);
            self.backlog.push(Scan { watcher: id, reports_new: true, step })
        });
        self.lost |= pushed.is_err();
    }
}
