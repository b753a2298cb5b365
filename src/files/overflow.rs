//! After inotify has lost something: trees are read again.

use super::notes::Told;
use super::tree::is_gone;
use super::{ERROR, Files, Watcher};
use crate::util::alloc::TryVec;

impl Files {
    /// Reads a watcher's directories again, after what it may have missed.
    /// The watches stay: each one that is removed is another note.
    fn renew(&mut self, id: u32) {
        self.scans.retain(|scan| scan.watcher != id);
        self.claims.retain(|scan| scan.watcher != id);
        let Some(watcher) = self.watchers.get_mut(&id) else { return };
        watcher.before = Some(std::mem::take(&mut watcher.nodes));
        self.renewing = true;
        let mut scans = std::mem::take(&mut self.scans);
        let attached = self.attach(id, false, &mut scans);
        self.scans = scans;
        match attached {
            Ok(()) => {}
            Err(errno) if is_gone(errno) => self.tell_end(id),
            Err(errno) => {
                // As it was, which is better than nothing.
                if let Some(watcher) = self.watchers.get_mut(&id)
                    && let Some(before) = watcher.before.take()
                {
                    watcher.nodes = before;
                }
                self.scans.retain(|scan| scan.watcher != id);
                self.tell(id, Told { errno: Some(errno), ..Told::entry(ERROR, -1, b"") });
                self.tell(id, Told::entry(libc::IN_Q_OVERFLOW, -1, b""));
            }
        }
    }

    /// All that were lost in an overflow are found: what has no place now is
    /// watched no more.
    pub(super) fn finish_renewals(&mut self) {
        let renewed = |(id, one): (&u32, &Watcher)| one.before.is_some().then_some(*id);
        while let Some(id) = self.watchers.iter().find_map(renewed) {
            let Some(watcher) = self.watchers.get_mut(&id) else { return };
            let mut before = watcher.before.take().unwrap_or_default();
            before.retain(|number, _| !watcher.nodes.contains_key(number));
            for number in before.into_keys() {
                self.leave_watch(id, number);
            }
            // After that: of what the program finds then nothing is missed.
            self.tell(id, Told::entry(libc::IN_Q_OVERFLOW, -1, b""));
        }
        self.renewing = false;
    }

    /// inotify has lost some: everything may be other than it was.
    pub(super) fn take_overflow(&mut self) {
        let mut ids = Vec::new();
        let watched = self.watchers.iter().filter(|(_, one)| one.root >= 0);
        if ids.try_extend(watched.map(|(id, _)| *id)).is_err() {
            self.lost = true;
            return;
        }
        for id in ids {
            if self.watchers.get(&id).is_some_and(|watcher| watcher.recursive) {
                self.renew(id);
            } else {
                self.tell(id, Told::entry(libc::IN_Q_OVERFLOW, -1, b""));
            }
        }
    }
}
