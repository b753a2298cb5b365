//! What a file looked like, and what must have happened to it since.
//!
//! inotify says that a file was modified, or that something of its
//! attributes was; how, is seen from the file.

use super::event::*;

/// A file at some time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FileSnapshot {
    is_directory: bool,
    links: u64,
    size: i64,
    /// Mode, owner and group.
    access: (u32, u32, u32),
}

/// What cannot be counted in names.
const UNCOUNTED: u32 = NOTE_WRITE
    | NOTE_EXTEND
    | NOTE_ATTRIB
    | NOTE_RENAME
    | NOTE_OPEN
    | NOTE_CLOSE
    | NOTE_CLOSE_WRITE
    | NOTE_READ;

impl FileSnapshot {
    pub const NOTHING: Self = Self { is_directory: false, links: 0, size: 0, access: (0, 0, 0) };

    // The number of links has another width on some machines.
    #[allow(clippy::useless_conversion)]
    pub fn of(stat: &libc::stat) -> Self {
        Self {
            is_directory: stat.st_mode & libc::S_IFMT == libc::S_IFDIR,
            links: stat.st_nlink.into(),
            size: stat.st_size,
            access: (stat.st_mode, stat.st_uid, stat.st_gid),
        }
    }

    /// A directory's own name is gone, or another's number of names changed.
    fn links(&self, now: &Self) -> u32 {
        match now.links {
            0 if self.links > 0 => NOTE_DELETE,
            links if self.is_directory || links == self.links => 0,
            links if links > self.links => NOTE_LINK,
            _ => NOTE_DELETE | NOTE_LINK,
        }
    }

    fn size(&self, now: &Self) -> u32 {
        match now.size {
            _ if self.is_directory => 0,
            size if size > self.size => NOTE_EXTEND,
            // Only truncating does that: an attribute, as FreeBSD has it.
            size if size < self.size => NOTE_ATTRIB,
            _ => 0,
        }
    }

    /// What happened, of what inotify calls so. That much is known from now
    /// on; the rest is for the next event of inotify.
    pub fn take(&mut self, now: &Self, mask: u32) -> u32 {
        let mut notes = 0;
        if self.is_directory || mask & libc::IN_ATTRIB != 0 {
            notes |= self.links(now);
            self.links = now.links;
        }
        if mask & libc::IN_ATTRIB != 0 {
            if notes == 0 || self.access != now.access {
                notes |= NOTE_ATTRIB;
            }
            self.access = now.access;
        }
        if mask & libc::IN_MODIFY != 0 {
            notes |= NOTE_WRITE | self.size(now);
            self.size = now.size;
        }
        notes
    }

    pub fn has_no_name(&self) -> bool {
        self.links == 0
    }

    /// What happened that inotify does not report, or not yet. `sizes`: the
    /// size of the file counts, too.
    pub fn take_unreported(&mut self, now: &Self, sizes: bool) -> u32 {
        let mut notes = self.links(now);
        self.links = now.links;
        let size = if sizes { self.size(now) } else { 0 };
        if size != 0 {
            notes |= NOTE_WRITE | size;
            self.size = now.size;
        }
        notes
    }

    /// What may have happened, where inotify lost events. Only the number of
    /// names is certain. The rest of the snapshot may already contain a change
    /// that was not reported, because another event updated it.
    pub fn possible(&self, now: &Self) -> u32 {
        let links = if self.is_directory { NOTE_LINK } else { 0 };
        UNCOUNTED | links | self.links(now)
    }

    /// A subdirectory came or went.
    pub fn differs_in_subdirectories(&self, now: &Self) -> bool {
        self.is_directory && self.links != now.links
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: FileSnapshot =
        FileSnapshot { is_directory: false, links: 2, size: 10, access: (0o100_644, 1, 1) };

    #[test]
    fn what_happened_is_seen_from_the_file() {
        let notes = |now: FileSnapshot, mask| FILE.clone().take(&now, mask);
        assert_eq!(notes(FILE, libc::IN_ATTRIB), NOTE_ATTRIB);
        assert_eq!(notes(FileSnapshot { links: 3, ..FILE }, libc::IN_ATTRIB), NOTE_LINK);
        let one_left = FileSnapshot { links: 1, ..FILE };
        assert_eq!(notes(one_left, libc::IN_ATTRIB), NOTE_DELETE | NOTE_LINK);
        assert_eq!(notes(FileSnapshot { links: 0, ..FILE }, libc::IN_ATTRIB), NOTE_DELETE);
        let both = FileSnapshot { links: 3, access: (0o100_600, 1, 1), ..FILE };
        assert_eq!(notes(both, libc::IN_ATTRIB), NOTE_LINK | NOTE_ATTRIB);
        assert_eq!(notes(FILE, libc::IN_MODIFY), NOTE_WRITE);
        let longer = FileSnapshot { size: 11, ..FILE };
        assert_eq!(notes(longer, libc::IN_MODIFY), NOTE_WRITE | NOTE_EXTEND);
        let shorter = FileSnapshot { size: 0, ..FILE };
        assert_eq!(notes(shorter, libc::IN_MODIFY), NOTE_WRITE | NOTE_ATTRIB);
    }

    #[test]
    fn links_of_a_directory_are_its_subdirectories() {
        let directory = FileSnapshot { is_directory: true, ..FILE };
        let now = |links| FileSnapshot { links, ..directory };
        assert_eq!(directory.clone().take(&now(3), libc::IN_ATTRIB), NOTE_ATTRIB);
        assert_eq!(directory.clone().take(&now(0), 0), NOTE_DELETE);
    }

    #[test]
    fn what_was_not_said_yet_is_left() {
        let mut seen = FILE;
        let now = FileSnapshot { links: 3, size: 11, access: (0o100_600, 1, 1), ..FILE };
        assert_eq!(seen.take(&now, libc::IN_OPEN), 0);
        assert_eq!(seen.take(&now, libc::IN_MODIFY), NOTE_WRITE | NOTE_EXTEND);
        assert_eq!(seen.take(&now, libc::IN_ATTRIB), NOTE_LINK | NOTE_ATTRIB);
        assert_eq!(seen.take(&now, libc::IN_MODIFY), NOTE_WRITE);
        let mut seen = FILE;
        assert_eq!(seen.take_unreported(&now, true), NOTE_LINK | NOTE_WRITE | NOTE_EXTEND);
        assert_eq!(seen.take_unreported(&now, true), 0);
        assert_eq!(seen.take(&now, libc::IN_ATTRIB), NOTE_ATTRIB);
    }

    #[test]
    fn what_was_lost_is_what_is_possible() {
        assert_eq!(FILE.possible(&FILE), UNCOUNTED);
        let unlinked = FileSnapshot { links: 0, ..FILE };
        assert_eq!(FILE.possible(&unlinked), UNCOUNTED | NOTE_DELETE);
    }
}
