//! Watchers of files: `evloop_add_file*`, and the names in their events.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::{Result, fail};
use crate::event_loop::{self, Event, FileRequest, FileRoot, Source, Target};

/// evloop_event_t type: something happened to a file; see evloop_add_file().
pub const EVLOOP_EVENT_FILE: c_int = 16;

/// evloop_add_file(): the file was read.
pub const EVLOOP_FILE_ACCESS: u32 = 0x1;
/// evloop_add_file(): the file was written or truncated.
pub const EVLOOP_FILE_MODIFY: u32 = 0x2;
/// evloop_add_file(): the mode, owner, times, extended attributes or number of
/// links changed.
pub const EVLOOP_FILE_ATTRIB: u32 = 0x4;
/// evloop_add_file(): a descriptor that could write to the file was closed.
pub const EVLOOP_FILE_CLOSE_WRITE: u32 = 0x8;
/// evloop_add_file(): a descriptor that could not write to the file was closed.
pub const EVLOOP_FILE_CLOSE_NOWRITE: u32 = 0x10;
/// evloop_add_file(): the file was opened.
pub const EVLOOP_FILE_OPEN: u32 = 0x20;
/// evloop_add_file(): an entry was moved out of the directory. Together with
/// MOVED_TO: it was renamed.
pub const EVLOOP_FILE_MOVED_FROM: u32 = 0x40;
/// evloop_add_file(): an entry was moved into the directory.
pub const EVLOOP_FILE_MOVED_TO: u32 = 0x80;
/// evloop_add_file(): an entry of the directory was created.
pub const EVLOOP_FILE_CREATE: u32 = 0x100;
/// evloop_add_file(): an entry of the directory was deleted.
pub const EVLOOP_FILE_DELETE: u32 = 0x200;
/// evloop_add_file(): the watched file was deleted, and no process has it open.
pub const EVLOOP_FILE_DELETE_SELF: u32 = 0x400;
/// evloop_add_file(): the watched file was renamed.
pub const EVLOOP_FILE_MOVE_SELF: u32 = 0x800;
/// evloop_add_file(): all bits that can be requested.
pub const EVLOOP_FILE_ALL: u32 = 0xfff;
/// Only reported: the file system was unmounted.
pub const EVLOOP_FILE_UNMOUNT: u32 = 0x2000;
/// Only reported: events were lost; the program has to check the files itself.
pub const EVLOOP_FILE_OVERFLOW: u32 = 0x4000;
/// Only reported, with EVLOOP_FILE_FOLLOW: the path names another file now,
/// which is watched from now on. Since 0.2.0.
pub const EVLOOP_FILE_REPLACED: u32 = 0x10000;
/// Only reported, with EVLOOP_FILE_FOLLOW: the path names no file now; the
/// watcher waits for one. Since 0.2.0.
pub const EVLOOP_FILE_GONE: u32 = 0x20000;
/// Only reported: the watched file is gone; this is the last event.
pub const EVLOOP_FILE_IGNORED: u32 = 0x8000;
/// Only reported, with other bits: it is a directory.
pub const EVLOOP_FILE_ISDIR: u32 = 0x40000000;

/// evloop_add_file() flag: watch all directories below as well.
pub const EVLOOP_FILE_RECURSIVE: u32 = 0x1;
/// evloop_add_file() flag: watch whatever file the path names. Since 0.2.0.
pub const EVLOOP_FILE_FOLLOW: u32 = 0x2;
/// evloop_add_file() flag: -ENOTDIR if it is not a directory.
pub const EVLOOP_FILE_ONLYDIR: u32 = 0x1000000;
/// evloop_add_file() flag: watch a symbolic link itself, not its target.
pub const EVLOOP_FILE_DONT_FOLLOW: u32 = 0x2000000;

/// Watches a file, a directory, or a tree of directories.
///
/// A file is watched under every name that it gets. A directory also reports
/// what happens to its entries, but not deeper. With EVLOOP_FILE_RECURSIVE all
/// directories below are watched too, including those that appear later.
/// Changes through a mapping of the file, or by other machines on a network
/// file system, are not seen.
///
/// Event: type EVLOOP_EVENT_FILE; events, the EVLOOP_FILE bit of what happened,
/// and EVLOOP_FILE_ISDIR. evloop_event_name() returns the entry it happened to.
/// Each change has an event of its own, in the order of the changes.
///
/// Renames. A rename is one event with both MOVED_FROM and MOVED_TO, if the
/// watcher requested both bits and watches both directories.
/// evloop_event_name() returns the new name, evloop_event_old_name() the old
/// one. Otherwise it is one of the two. A MOVED_FROM without its MOVED_TO is
/// delivered 2 ms late, with all events after it, since the other half may
/// still arrive. If that takes longer, they are two events.
///
/// An exchange (renameat2(2) with RENAME_EXCHANGE) is two renames, as the
/// kernel reports it: old to new, then new to old. If one side is outside of
/// what is watched, it is a MOVED_FROM and a MOVED_TO of the same name, in the
/// order of renameat2()'s arguments. So the last of them does not show whether
/// the name still exists. A tree follows the directories in either case; a
/// program that keeps a copy of the tree checks both names again.
///
/// These are always reported, whether requested or not:
/// - EVLOOP_FILE_IGNORED: the watched file is gone (deleted and closed by all
///   processes; or unmounted, after EVLOOP_FILE_UNMOUNT). It is the last event.
///   The watcher is disabled, does not keep the loop alive, and can only be
///   closed. If it is enabled, it gets EVLOOP_ERROR with -ENOENT.
/// - EVLOOP_FILE_OVERFLOW: events were lost. They arrived faster than the loop
///   read them: the kernel keeps max_queued_events for a loop. Or more than
///   8192 were pending for a watcher that is disabled, over its rate limit, or
///   has no callback while evloop_wait() is not called. Or there was no memory
///   for them, or a large directory was renamed while the loop read it. After a
///   loss in the kernel a recursive watcher has scanned for directories again
///   before it reports the overflow, though not all in one iteration: what the
///   program finds from then on is watched.
/// - EVLOOP_ERROR, with the cause in result: a directory of a tree cannot be
///   watched; evloop_event_name() returns its name. -ENOSPC, -EMFILE, -ENFILE,
///   -ENOMEM: a resource is used up. -EACCES: the program may not read it.
///   -ENAMETOOLONG: its path is longer than PATH_MAX, 4096. Or another error of
///   its file system, such as -EIO. The watcher continues without the
///   directory, and stays enabled. The same is reported if a directory could be
///   watched but not be read again after an overflow; the name is empty for the
///   root of the tree. When a tree is added, only errors other than used-up
///   resources are reported for its directories.
///
/// Trees:
/// - The entries of a directory that was created or moved in are reported as
///   CREATE, as the loop finds them when it reads the directory after it has
///   begun to watch it. Earlier changes of these entries are not reported. An
///   entry that is created during the scan is reported once; if directories are
///   renamed during the scan it may be reported again.
/// - Names are those of the time of the change, not of the time of delivery.
/// - Of a directory that is moved out, nothing more is reported.
/// - Symbolic links are not followed; mounts are. A file system that is mounted
///   in two places is reported in one of them. What lay under an unmounted file
///   system is watched, and reported, as if it was created then.
/// - The loop's own reads of directories are reported as OPEN, ACCESS and
///   CLOSE_NOWRITE, if these are requested.
/// - The loop finds the tree by its path. If the path leads elsewhere because
///   of a rename, the loop notices at the rename of the tree itself, at the
///   next new directory, or after an overflow, and reports EVLOOP_FILE_IGNORED.
///
/// With EVLOOP_FILE_FOLLOW the watcher follows its path, as a program needs
/// that reloads its configuration. An editor saves by writing another file and
/// renaming it over the first one. The watcher then watches the new file and
/// reports EVLOOP_FILE_REPLACED. If no file has the path any more, it reports
/// EVLOOP_FILE_GONE and waits for the next file, which is REPLACED; until then
/// it watches the previous file. Neither the file nor its directory has to
/// exist when the watcher is added: then the first event is REPLACED. IGNORED
/// is not reported: the watcher ends when it is closed.
///
/// Read the file again at REPLACED: earlier changes of the new file are not
/// reported. A file that was created there, and not renamed, may be half
/// written: CLOSE_WRITE follows when its writer closes it. To see every save,
/// request CLOSE_WRITE too:
///
///   evloop_add_file(loop, "/etc/my.conf", EVLOOP_FILE_CLOSE_WRITE,
///                   EVLOOP_FILE_FOLLOW, reload, NULL);
///
/// Symbolic links are followed in every directory of the path, unless
/// DONT_FOLLOW is set for the last name. So the target of a link, the link, or
/// a directory of the path may be replaced. The loop does not notice a change
/// - in a directory that the program may not read. If a name is missing in
///   such a directory, the watcher gets EVLOOP_ERROR with -EACCES. For the
///   directory of the given path that is always an error.
/// - of a mount over a directory of the path;
/// - behind the first 512 names of the path, where the names of links count;
/// - by another machine on a network file system.
///
/// A failure to resolve the path is reported once as EVLOOP_ERROR, and the loop
/// tries again when something happens in one of the directories. Nothing else
/// is reported of these directories. Each of them takes an inotify watch, which
/// all watchers of the loop share.
///
/// Security. The loop opens directories from the root of the tree, with
/// openat2(2) or step by step, and watches and reads them by that descriptor.
/// So a user who may rename directories, in the tree or above it, cannot make
/// the loop watch, read or report what is outside. (Without /proc inotify must
/// find a directory by its path. The loop checks the path before and after, and
/// two renames in that moment can deceive it.) This takes two descriptors for a
/// moment, and one more while a large directory is read. The loop reads a
/// directory that comes into the tree, and forgets one that leaves it, in
/// pieces over several iterations. Of the names in it the loop keeps none but
/// those of requested events.
///
/// A loop has one inotify for all its file watchers, opened with the first and
/// closed with the last. Watchers of the same file share its kernel watch. Each
/// gets only the events that it requested, and none from before it was added.
///
/// @param loop a loop.
/// @param path of the file; it is copied. A relative path starts at the current
///   directory at the time of this call.
/// @param mask EVLOOP_FILE bits up to MOVE_SELF, at least one.
/// @param flags 0, or EVLOOP_FILE_RECURSIVE, ONLYDIR, DONT_FOLLOW, FOLLOW.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -EINVAL    path is NULL
///   -EINVAL    mask is 0, or an unknown bit in mask or flags
///   -EINVAL    RECURSIVE with FOLLOW
///   -EINVAL    FOLLOW, and path does not end with a name ("/", "..",
///              "directory/")
///   -ENOENT    there is no such file, and FOLLOW is not set; or path is empty
///   -EACCES    the file may not be read, or path may not be searched
///   -ENOTDIR   RECURSIVE or ONLYDIR, and it is not a directory
///   -ENOTDIR   a name before the last one of path is not a directory
///   -ENAMETOOLONG  path is too long
///   -ELOOP     path has too many symbolic links
///   -ENOSPC    the user's max_user_watches of inotify is used up
///   -EMFILE    no descriptor is left, or the user's max_user_instances is used
///              up
///   -ENFILE, -ENOMEM
/// -ENOSPC, -EMFILE, -ENFILE and -ENOMEM can also occur in the middle of a
/// tree; the call then watches nothing.
///
/// Blocking: while the file system resolves the path and, with RECURSIVE, lists
/// all directories. A loop that another thread runs continues, but its file
/// events may wait a little.
/// Fork: evloop_after_fork() watches everything again; what happened since the
/// fork is not reported.
/// Source: inotify(7).
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
        event_loop::add_file(r#loop, &request, Target { callback, user_data })
    })
}

/// Watches the file behind a descriptor.
///
/// The file is watched whatever its names are, also if it was deleted.
/// Everything else is as with evloop_add_file(), except that the loop finds a
/// tree by the descriptor, so the tree may be renamed. If the descriptor of a
/// tree is closed while the watcher is open, the tree ends at the next new
/// directory.
///
/// @param loop a loop.
/// @param fd a descriptor, opened in any way (O_PATH too); it stays the
///   caller's. Without RECURSIVE it may be closed after the call, but
///   evloop_after_fork() needs it.
/// @param mask, callback, user_data as evloop_add_file().
/// @param flags 0, or EVLOOP_FILE_RECURSIVE, ONLYDIR.
/// @returns the watcher, enabled.
///
/// Errors, besides those of evloop_add_file():
///   -EBADF     fd is not open
///   -ENOTSUP   /proc is not mounted, which the loop needs to find the file
///
/// Blocking, fork: as evloop_add_file().
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
        event_loop::add_file(r#loop, &request, Target { callback, user_data })
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

/// Returns the entry that an event of a file watcher is about.
///
/// It is the path below the watched file: "name", or "directory/name" in a
/// tree; empty for the watched file itself. It may have any bytes but NUL.
///
/// @param event an event of type EVLOOP_EVENT_FILE that its watcher, which is
///   still open, has delivered.
/// @param buf receives the name, always terminated by a NUL byte and cut if it
///   does not fit; may be NULL if cap is 0.
/// @param cap size of buf in bytes. The path of a watched file is never longer
///   than PATH_MAX, 4096; that of a directory which is too deep for that is
///   longer by one name.
/// @returns the length of the whole name in bytes without its NUL, so a value
///   >= cap means that it was cut.
///
/// Errors:
///   -EINVAL    event is NULL or of another type
///   -EINVAL    buf is NULL and cap is not 0
///   -ENOENT    the loop has waited since the callback was called, or since
///              evloop_wait() returned the event
///
/// Threads: any; but only the thread that runs the loop knows when the loop
/// waits.
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

/// Returns the previous name of an entry that was renamed.
///
/// The name is empty if the event does not have both EVLOOP_FILE_MOVED_FROM and
/// EVLOOP_FILE_MOVED_TO.
///
/// Parameters, result, errors and threads: as evloop_event_name().
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
    arg::count(event_loop::event_name(event, old, &mut out)?)
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
    assert!(EVLOOP_ERROR == crate::file_watch::ERROR);
    assert!(EVLOOP_FILE_REPLACED == crate::file_watch::REPLACED);
    assert!(EVLOOP_FILE_GONE == crate::file_watch::GONE);
};
