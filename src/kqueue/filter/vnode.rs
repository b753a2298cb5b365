//! VNODE: a file was changed, or used.
//!
//! What has happened is kept in `state` until it is delivered, whether it is
//! enabled or not.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::registration::Registration;
use super::super::source::Sources;
use super::super::source::mount::Mounts;
use super::super::source::vnode::{ENTRIES, NEEDED, PARENT};
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::sys::{file, mounts};
use crate::util::bug_or;
use std::os::fd::RawFd;

pub(super) struct VnodeFilter;

const KNOWN: u32 = NOTE_DELETE
    | NOTE_WRITE
    | NOTE_EXTEND
    | NOTE_ATTRIB
    | NOTE_LINK
    | NOTE_RENAME
    | NOTE_REVOKE
    | NOTE_OPEN
    | NOTE_CLOSE
    | NOTE_CLOSE_WRITE
    | NOTE_READ;

/// In `state`, besides the notes: the file system was unmounted.
const REVOKED: i64 = 1 << 16;
/// In `state`: it is one of those that the table of mounts is watched for.
const HOLDS: i64 = 1 << 17;
/// In `state`: from here on, the number of the file's mount, and 1.
const MOUNT: u32 = 24;

/// What inotify calls the notes, of files that are no directories.
const OF_FILES: [(u32, u32); 8] = [
    (NOTE_DELETE | NOTE_LINK, libc::IN_ATTRIB),
    (NOTE_WRITE | NOTE_EXTEND, libc::IN_MODIFY),
    // Truncating is one, too.
    (NOTE_ATTRIB, libc::IN_ATTRIB | libc::IN_MODIFY),
    (NOTE_RENAME, libc::IN_MOVE_SELF),
    (NOTE_OPEN, libc::IN_OPEN),
    (NOTE_CLOSE, libc::IN_CLOSE_NOWRITE),
    (NOTE_CLOSE_WRITE, libc::IN_CLOSE_WRITE),
    (NOTE_READ, libc::IN_ACCESS),
];

/// The same of directories.
const OF_DIRECTORIES: [(u32, u32); 8] = [
    // Moved, it lies in another directory.
    (NOTE_DELETE, libc::IN_ATTRIB | libc::IN_MOVE_SELF | PARENT),
    (NOTE_WRITE | NOTE_LINK, ENTRIES),
    (NOTE_EXTEND, libc::IN_MOVED_FROM | libc::IN_MOVED_TO),
    (NOTE_ATTRIB, libc::IN_ATTRIB),
    (NOTE_RENAME, libc::IN_MOVE_SELF),
    (NOTE_OPEN, libc::IN_OPEN),
    (NOTE_CLOSE, libc::IN_CLOSE_NOWRITE),
    (NOTE_READ, libc::IN_ACCESS),
];

impl Filter for VnodeFilter {
    fn is_of_descriptor(&self) -> bool {
        true
    }

    fn looks_at_file_type(&self) -> bool {
        true
    }

    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, KNOWN)
    }

    fn attach(&self, store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        let Some(registration) = store.registrations.get(knote.registration) else {
            return Ok(());
        };
        possible(registration)?;
        hold_mounts(store, sources, id)
    }

    fn touch(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        change: &Kevent,
    ) -> Result<()> {
        self.take_over(store, id, change)?;
        hold_mounts(store, sources, id)
    }

    fn detach(&self, store: &mut Store, sources: &mut Sources, id: u32) {
        if store.knotes.get(id).is_some_and(|knote| knote.state & HOLDS != 0) {
            sources.mounts.release(&sources.set);
        }
    }

    fn vnode_interest(&self, knote: &Knote, registration: &Registration) -> u32 {
        let is_directory = registration.file_type == libc::S_IFDIR;
        let table = if is_directory { OF_DIRECTORIES } else { OF_FILES };
        let wanted = table.iter().filter(|(notes, _)| knote.fflags & notes != 0);
        wanted.fold(NEEDED, |mask, (_, bits)| mask | bits)
    }

    fn noticed(&self, store: &mut Store, id: u32, notes: u32) {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        // One bit that was asked for brings all that happened with it.
        if notes & knote.fflags != 0 {
            knote.state |= i64::from(notes & KNOWN);
            store.activate(id);
        }
    }

    fn may_have_missed(&self, store: &mut Store, id: u32, notes: u32) {
        let wanted = store.knotes.get(id).map_or(0, |knote| knote.fflags);
        self.noticed(store, id, notes & wanted);
    }

    fn mounted(&self, store: &mut Store, mounts: &Mounts, id: u32, notes: u32) {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        let is_known = knote.state >> MOUNT != 0;
        let mount = (knote.state >> MOUNT) - 1;
        if notes & VQ_UNMOUNT == 0 || !is_known || mounts.has(mount.cast_unsigned()) {
            return;
        }
        knote.state |= i64::from(NOTE_REVOKE & knote.fflags) | REVOKED;
        store.activate(id);
    }

    fn evaluate(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Verdict::False) };
        let (fflags, eof) = (knote.state as u32 & KNOWN, knote.state & REVOKED != 0);
        match fflags != 0 || eof {
            true => Verdict::True(Outcome { data: 0, fflags, eof }),
            false => Verdict::False,
        }
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        if knote.has(EV_CLEAR) {
            knote.state &= !(i64::from(KNOWN) | REVOKED);
        } else {
            store.activate(id);
        }
    }
}

/// Refuses what is no file, and files of which inotify reports nothing.
fn possible(registration: &Registration) -> Result<()> {
    let fd = registration.fd;
    match registration.file_type {
        libc::S_IFDIR | libc::S_IFLNK | libc::S_IFBLK | libc::S_IFCHR => Ok(()),
        libc::S_IFREG if is_memory(fd) => {
            fail!(ENOTSUP, "fd {} is of memory: the kernel does not report its changes", fd)
        }
        libc::S_IFREG => Ok(()),
        libc::S_IFIFO if file::file_system(fd) != Ok(PIPES) => Ok(()),
        _ => fail!(EINVAL, "fd {} is not of a file", fd),
    }
}

const PIPES: i64 = 0x5049_5045;

/// Whether it is from memfd_create(2): on one of the file systems of the
/// kernel's own, without a name.
fn is_memory(fd: RawFd) -> bool {
    const PREFIX: &[u8] = b"/memfd:";
    const TYPES: [i64; 2] = [libc::TMPFS_MAGIC, libc::HUGETLBFS_MAGIC];
    let mut name = [0; PREFIX.len()];
    file::stat(fd).is_ok_and(|stat| stat.st_nlink == 0)
        && file::file_system(fd).is_ok_and(|kind| TYPES.contains(&kind))
        && file::name(fd, &mut name).is_ok_and(|name| name == PREFIX)
}

/// REVOKE is seen from the table of mounts.
fn hold_mounts(store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
    let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
    if knote.fflags & NOTE_REVOKE == 0 || knote.state & HOLDS != 0 {
        return Ok(());
    }
    let fd = store.registrations.get(knote.registration).map_or(-1, |one| one.fd);
    sources.mounts.hold(&sources.set).map_err(explain)?;
    let mount = mounts::of(fd).filter(|mount| sources.mounts.has(*mount));
    if let Some(knote) = store.knotes.get_mut(id) {
        let number = mount.and_then(|mount| i64::try_from(mount).ok());
        knote.state |= HOLDS | number.map_or(0, |number| (number + 1) << MOUNT);
    }
    Ok(())
}

/// What the table of mounts cannot be had for.
pub(super) fn explain(errno: Errno) -> Error {
    match errno {
        Errno::ENOTSUP => error!(errno, "there is no /proc to see the mounts in"),
        _ => errno.into(),
    }
}
