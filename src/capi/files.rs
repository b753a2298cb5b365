//! Watchers of files: `evloop_add_file*`, and the names in their events.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::{Result, fail};
use crate::reactor::{self, Event, FileRequest, FileRoot, Source, Target};

/// evloop_event_t type: something happened to a file; see evloop_add_file().
pub const EVLOOP_EVENT_FILE: c_int = 16;

/// evloop_add_file(): it was read.
pub const EVLOOP_FILE_ACCESS: u32 = 0x1;
/// evloop_add_file(): it was written to, or truncated.
pub const EVLOOP_FILE_MODIFY: u32 = 0x2;
/// evloop_add_file(): its mode, owner, times, extended attributes or number
/// of links changed.
pub const EVLOOP_FILE_ATTRIB: u32 = 0x4;
/// evloop_add_file(): it was closed by somebody who could write to it.
pub const EVLOOP_FILE_CLOSE_WRITE: u32 = 0x8;
/// evloop_add_file(): it was closed by somebody who could not.
pub const EVLOOP_FILE_CLOSE_NOWRITE: u32 = 0x10;
/// evloop_add_file(): it was opened.
pub const EVLOOP_FILE_OPEN: u32 = 0x20;
/// evloop_add_file(): an entry was moved out of the directory. Together with
/// MOVED_TO: it was renamed.
pub const EVLOOP_FILE_MOVED_FROM: u32 = 0x40;
/// evloop_add_file(): an entry was moved into the directory.
pub const EVLOOP_FILE_MOVED_TO: u32 = 0x80;
/// evloop_add_file(): an entry of the directory was made.
pub const EVLOOP_FILE_CREATE: u32 = 0x100;
/// evloop_add_file(): an entry of the directory was deleted.
pub const EVLOOP_FILE_DELETE: u32 = 0x200;
/// evloop_add_file(): what is watched was deleted, and nobody has it open.
pub const EVLOOP_FILE_DELETE_SELF: u32 = 0x400;
/// evloop_add_file(): what is watched was renamed.
pub const EVLOOP_FILE_MOVE_SELF: u32 = 0x800;
/// evloop_add_file(): all that can be asked for.
pub const EVLOOP_FILE_ALL: u32 = 0xfff;
/// Reported only: the file system was unmounted.
pub const EVLOOP_FILE_UNMOUNT: u32 = 0x2000;
/// Reported only: events were lost; look at the files yourself.
pub const EVLOOP_FILE_OVERFLOW: u32 = 0x4000;
/// Reported only, with EVLOOP_FILE_FOLLOW: another file has the path now, and
/// is watched. Since 0.2.0.
pub const EVLOOP_FILE_REPLACED: u32 = 0x10000;
/// Reported only: nothing more comes, what was watched is gone.
pub const EVLOOP_FILE_IGNORED: u32 = 0x8000;
/// Reported only, with others: it is a directory.
pub const EVLOOP_FILE_ISDIR: u32 = 0x40000000;

/// evloop_add_file() flag: all directories below, too.
pub const EVLOOP_FILE_RECURSIVE: u32 = 0x1;
/// evloop_add_file() flag: what has the path, whatever that is. Since 0.2.0.
pub const EVLOOP_FILE_FOLLOW: u32 = 0x2;
/// evloop_add_file() flag: -ENOTDIR if it is no directory.
pub const EVLOOP_FILE_ONLYDIR: u32 = 0x1000000;
/// evloop_add_file() flag: a symbolic link itself, not where it leads.
pub const EVLOOP_FILE_DONT_FOLLOW: u32 = 0x2000000;

/// Watch a file, a directory, or a tree of directories.
///
/// A file is watched whatever its name becomes; a directory also tells what
/// happens to its entries, but not deeper; with EVLOOP_FILE_RECURSIVE all
/// directories below it are watched too, those that come as well. Changes
/// through a mapping of the file, or by other machines on a network file
/// system, are not seen.
///
/// Event: type EVLOOP_EVENT_FILE; events, the EVLOOP_FILE bit of what
/// happened, and EVLOOP_FILE_ISDIR. evloop_event_name() says to which entry.
/// Each is an event of its own, in the order in which things happened.
///
/// A rename is one event with both MOVED_FROM and MOVED_TO, where the
/// watcher asked for both and hears of both directories; evloop_event_name()
/// is then the new name, evloop_event_old_name() the old one. Else it is one
/// of the two. A MOVED_FROM without its other half comes 2 ms late, with all
/// that follows it, since that half may be on its way; should it take longer,
/// the two are two events.
///
/// An exchange (renameat2(2) with RENAME_EXCHANGE) is two renames, as the
/// kernel reports it: old to new, then new to old. With something outside of
/// what is watched it is a MOVED_FROM and a MOVED_TO of one name, in the
/// order of renameat2()'s arguments, so that the last of them does not say
/// whether the name is still there. A tree follows the directories either
/// way; a program that keeps a copy of it looks at both names again.
///
/// Always told, asked for or not:
/// - EVLOOP_FILE_IGNORED: what is watched is gone (deleted, and closed by
///   all; or unmounted, after EVLOOP_FILE_UNMOUNT). It is the last event: the
///   watcher is disabled, keeps no loop alive, and is good for nothing but
///   closing (enabled, it is told EVLOOP_ERROR with -ENOENT).
/// - EVLOOP_FILE_OVERFLOW: events were lost, since they came faster than they
///   were taken: the kernel keeps max_queued_events for a loop, and 8192 wait
///   for a watcher that is disabled, over its rate limit, or has no callback
///   while evloop_wait() is not called; or since there was no memory for
///   them; or since a large directory was renamed while it was read. After
///   what the kernel lost a recursive watcher has looked for directories
///   again by then, without the loop waiting for all of that: what the
///   program finds from then on is watched.
/// - EVLOOP_ERROR, with the reason in result: a directory of a tree, whose
///   name evloop_event_name() has, cannot be watched. -ENOSPC, -EMFILE,
///   -ENFILE, -ENOMEM: something is used up. -EACCES: the program may not
///   read it. -ENAMETOOLONG: its path is longer than PATH_MAX, 4096. Or what
///   else its file system reports, such as -EIO. The watcher goes on without
///   it, and is not disabled. So it does where a directory could be watched
///   but not be read again after an overflow, be it the tree itself, whose
///   name is empty. Of the directories that are there when the tree is added
///   those are reported for which nothing is used up.
///
/// A tree: what is in a directory that was made, or moved in, is told as
/// CREATE, as it is found when the directory is read after it was watched; of
/// what happened to it before, nothing else is told. An entry that is made
/// while that goes on is told once, unless directories are renamed meanwhile:
/// then it may be told again. Names are those of the time of the event, not
/// of the time when it is told. Of a directory that is moved out, no
/// more is told. Symbolic links are not followed, mounts are; what is
/// mounted in two places is told of in one, and what lay beneath an
/// unmounted file system is watched, and told, as if it was made then. The
/// loop's own reading of directories is told as OPEN, ACCESS and
/// CLOSE_NOWRITE, if that is asked for. The tree is found by its path: when
/// that leads elsewhere, since it was renamed, that is noticed at its own
/// rename, at the next new directory or after an overflow, and is told as
/// EVLOOP_FILE_IGNORED.
///
/// With EVLOOP_FILE_FOLLOW the watcher follows its path, as a program that
/// reloads its configuration wants. Editors save by writing another file and
/// renaming it over the first: what has the name then is watched, and
/// EVLOOP_FILE_REPLACED says so; read the file anew, as of what happened to it
/// before nothing else is told. So it is where the file is deleted and made
/// again, also after some time; where it is not there yet when the watcher is
/// added (but its directory is); and where a symbolic link that lies in its
/// directory comes to lead elsewhere. Until another file has the name the one
/// that had it is watched. IGNORED is not told: the watcher ends when it is
/// closed. To hear of every save ask for CLOSE_WRITE, too:
///
///   evloop_add_file(loop, "/etc/my.conf", EVLOOP_FILE_CLOSE_WRITE,
///                   EVLOOP_FILE_FOLLOW, reload, NULL);
///
/// The directory may be deleted, or renamed, and made again. That a directory
/// further up was renamed is noticed when something happens in the one that
/// was watched. A failure to look the path up is told as EVLOOP_ERROR, once,
/// and it is tried again when something happens.
///
/// What others do with a tree is bounded. Directories are opened from its
/// root by openat2(2), or step by step, and are watched and read by that
/// descriptor: whoever may rename directories, in the tree or above it,
/// cannot make the loop watch, read or report what is outside. (Without
/// /proc inotify has to find a directory by its path, which is looked at
/// before and after: two renames in that moment can deceive it.) This takes
/// two descriptors for a moment, and one more for as long as a large
/// directory is read. A directory that comes into the tree is read, and one
/// that leaves it forgotten, in pieces, some in each iteration; of the names
/// in it none is kept but those of events that were asked for.
///
/// A loop has one inotify for all its watchers, made at the first and closed
/// with the last. Watchers of the same file share its watch; each hears only
/// what it asked for, and nothing that happened before it was added.
///
/// @param loop a loop.
/// @param path of what is to be watched; copied. A relative one is taken
///   from the current directory of now.
/// @param mask EVLOOP_FILE bits, at least one: up to MOVE_SELF.
/// @param flags 0, or EVLOOP_FILE_RECURSIVE, ONLYDIR, DONT_FOLLOW, FOLLOW.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -EINVAL: path is NULL, mask is 0, unknown
///   bits, RECURSIVE with FOLLOW, or FOLLOW and a path that does not end with
///   a name ("/", "..", "directory/"). -ENOENT: there is no such file; with
///   FOLLOW, no such directory. -EACCES: it may not be read, or
///   not be reached. -ENOTDIR: RECURSIVE or ONLYDIR, and it is no directory.
///   -ENAMETOOLONG, -ELOOP: the path. -ENOSPC: the user's max_user_watches
///   is used up. -EMFILE: no descriptor, or none of the user's
///   max_user_instances, is left. -ENFILE. -ENOMEM. (These four also in the
///   middle of a tree, of which then nothing is watched.) -ECHILD: used after
///   fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: for as long as the file system takes to look up the path and,
/// with RECURSIVE, to list all directories; a loop that another thread runs
/// goes on meanwhile, but may wait a little with file events. Threads: any.
/// Signals: not safe. Fork: -ECHILD; evloop_after_fork() watches everything
/// anew, and what happened since the fork is not told. Since 0.1.0. Source:
/// inotify(7).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_file(
    r#loop: evloop_t,
    path: *const c_char,
    mask: u32,
    flags: u32,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_file", || {
        // SAFETY: NULL, or NUL-terminated while this call lasts (this
        // function's contract).
        let path = match unsafe { arg::text(path) }? {
            Some(path) => path,
            None => fail!(EINVAL, "path is NULL"),
        };
        let known = EVLOOP_FILE_DONT_FOLLOW | EVLOOP_FILE_FOLLOW;
        let request = request(FileRoot::Path(path), mask, flags, known)?;
        reactor::add_file(r#loop, &request, Target { callback, user_data })
    })
}

/// Watch the file behind a descriptor.
///
/// Whatever its names are: of a file that was deleted, too. Everything else
/// is as for evloop_add_file(), but for a tree, which is found by the
/// descriptor: it may be renamed. If that is closed while the watcher is
/// open, a tree ends at the next new directory.
///
/// @param loop a loop.
/// @param fd a descriptor, of any kind of opening (O_PATH too); it stays
///   the caller's. Without RECURSIVE it may be closed after the call, except
///   that evloop_after_fork() needs it.
/// @param mask, callback, user_data as evloop_add_file().
/// @param flags 0, or EVLOOP_FILE_RECURSIVE, ONLYDIR.
/// @returns as evloop_add_file(). -EBADF: fd is not open. -ENOTSUP: /proc is
///   not mounted, by which the file is found.
///
/// Blocking, threads, signals and fork: as evloop_add_file(). Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_file_fd(
    r#loop: evloop_t,
    fd: c_int,
    mask: u32,
    flags: u32,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_file_fd", || {
        let request = request(FileRoot::Descriptor(arg::fd(fd)?), mask, flags, 0)?;
        reactor::add_file(r#loop, &request, Target { callback, user_data })
    })
}

fn request(root: FileRoot<'_>, mask: u32, flags: u32, more: u32) -> Result<FileRequest<'_>> {
    arg::flags(flags, EVLOOP_FILE_RECURSIVE | EVLOOP_FILE_ONLYDIR | more)?;
    if mask & !EVLOOP_FILE_ALL != 0 || mask == 0 {
        fail!(EINVAL, "mask is {}; it must be some of {}", mask, EVLOOP_FILE_ALL);
    }
    let recursive = flags & EVLOOP_FILE_RECURSIVE != 0;
    let follows = flags & EVLOOP_FILE_FOLLOW != 0;
    if follows {
        check_followed(root, recursive)?;
    }
    let flags = flags & !(EVLOOP_FILE_RECURSIVE | EVLOOP_FILE_FOLLOW);
    Ok(FileRequest { root, mask, flags, recursive, follows })
}

/// What is followed is found by its name.
fn check_followed(root: FileRoot<'_>, recursive: bool) -> Result<()> {
    if recursive {
        return Err(arg::contradiction("RECURSIVE and FOLLOW"));
    }
    let FileRoot::Path(path) = root else { return Ok(()) };
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    if !path.is_empty() && matches!(name, b"" | b"." | b"..") {
        fail!(EINVAL, "the path does not end with a name that could be followed");
    }
    Ok(())
}

/// Which entry an event of a file watcher is about.
///
/// The path below what is watched: "name", or "directory/name" in a tree;
/// empty for what is watched itself. It may have any bytes but NUL.
///
/// @param event an event of type EVLOOP_EVENT_FILE that its watcher, which
///   is not closed, has delivered.
/// @param buf where the name goes, always ended by a NUL byte, cut if it
///   does not fit; may be NULL when cap is 0.
/// @param cap size of buf in bytes; the path of what is watched is never
///   longer than PATH_MAX, 4096, that of a directory which is too deep for it
///   by one name.
/// @returns the length of the whole name in bytes without its NUL, so a
///   value >= cap means that it was cut. -EINVAL: event is NULL or of
///   another type; buf is NULL and cap is not 0. -ENOENT: the loop has waited
///   since the callback was called, or since evloop_wait() returned the
///   event. -ESTALE: the watcher is closed. -ECHILD: used after fork. -EDOM:
///   see "Handles".
///
/// Blocking: no. Threads: any, that which runs the loop is the one that
/// knows when it waits. Signals: not safe. Fork: -ECHILD. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_event_name(
    event: *const Event,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    guard("evloop_event_name", || {
        // SAFETY: this function's contract.
        unsafe { event_name(event, false, buf, cap) }
    })
}

/// What an entry that was renamed was called before.
///
/// Parameters, result, threads, signals and fork: as evloop_event_name();
/// the name is empty if the event has not both EVLOOP_FILE_MOVED_FROM and
/// EVLOOP_FILE_MOVED_TO. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_event_old_name(
    event: *const Event,
    buf: *mut c_char,
    cap: usize,
) -> c_int {
    guard("evloop_event_old_name", || {
        // SAFETY: this function's contract.
        unsafe { event_name(event, true, buf, cap) }
    })
}

/// # Safety
/// `event` is NULL or valid for reading, `buf` NULL or valid for `cap`
/// bytes.
unsafe fn event_name(
    event: *const Event,
    old: bool,
    buf: *mut c_char,
    cap: usize,
) -> Result<c_int> {
    // SAFETY: NULL or valid (this function's contract).
    let Some(event) = (unsafe { event.as_ref() }) else { fail!(EINVAL, "event is NULL") };
    // SAFETY: NULL or as long as said (this function's contract).
    let mut out = unsafe { arg::bytes_out(buf, cap) }?;
    arg::count(reactor::event_name(event, old, &mut out)?)
}

const _: () = {
    assert!(EVLOOP_EVENT_FILE == Source::File as c_int);
    assert!(EVLOOP_FILE_ACCESS == libc::IN_ACCESS);
    assert!(EVLOOP_FILE_MODIFY == libc::IN_MODIFY);
    assert!(EVLOOP_FILE_ATTRIB == libc::IN_ATTRIB);
    assert!(EVLOOP_FILE_CLOSE_WRITE == libc::IN_CLOSE_WRITE);
    assert!(EVLOOP_FILE_CLOSE_NOWRITE == libc::IN_CLOSE_NOWRITE);
    assert!(EVLOOP_FILE_OPEN == libc::IN_OPEN);
    assert!(EVLOOP_FILE_MOVED_FROM == libc::IN_MOVED_FROM);
    assert!(EVLOOP_FILE_MOVED_TO == libc::IN_MOVED_TO);
    assert!(EVLOOP_FILE_CREATE == libc::IN_CREATE);
    assert!(EVLOOP_FILE_DELETE == libc::IN_DELETE);
    assert!(EVLOOP_FILE_DELETE_SELF == libc::IN_DELETE_SELF);
    assert!(EVLOOP_FILE_MOVE_SELF == libc::IN_MOVE_SELF);
    assert!(EVLOOP_FILE_ALL == libc::IN_ALL_EVENTS);
    assert!(EVLOOP_FILE_UNMOUNT == libc::IN_UNMOUNT);
    assert!(EVLOOP_FILE_OVERFLOW == libc::IN_Q_OVERFLOW);
    assert!(EVLOOP_FILE_IGNORED == libc::IN_IGNORED);
    assert!(EVLOOP_FILE_ISDIR == libc::IN_ISDIR);
    assert!(EVLOOP_FILE_ONLYDIR == libc::IN_ONLYDIR);
    assert!(EVLOOP_FILE_DONT_FOLLOW == libc::IN_DONT_FOLLOW);
    assert!(EVLOOP_ERROR == crate::files::ERROR);
    assert!(EVLOOP_FILE_REPLACED == crate::files::REPLACED);
};
