//! Questions about a loop and its watchers, for any thread.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::event_loop::{self, WatcherInfo};
use crate::util::Out;

/// Returns whether something keeps an event loop alive.
///
/// It is what evloop_run() would return now; nothing is dispatched.
///
/// Every thread can call the functions of this section, also that of a watchdog
/// (evloop_set_watchdog()), while the loop waits, runs, or is stuck in a
/// callback. They read what the loop has stored and never wait for the loop. On
/// a thread that does not run the loop the result may be slightly old. It does
/// not include what other threads have requested since the current callback
/// began, except watchers that they have added or closed.
///
/// To find out why a loop does not end:
///
///   evloop_dump(loop, 2);
///
/// @param loop a loop.
/// @returns 1 or 0; 1 for a loop with EVLOOP_KEEP_ALIVE.
///
/// Threads: any; takes no lock that a callback or a wait holds.
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_alive(r#loop: evloop_t) -> c_int {
    guard("evloop_alive", || event_loop::alive(r#loop).map(c_int::from))
}

/// Returns the watchers of an event loop.
///
/// They are all open watchers, disabled ones included, in no particular order.
/// A watcher that another thread adds or closes during the call may be included
/// or not.
///
/// @param loop a loop.
/// @param out_watchers filled from the front; may be NULL if max is 0.
/// @param max size of out_watchers, in handles; 0 only counts.
/// @returns the number of watchers, which may be more than max.
///
/// Errors:
///   -EINVAL    max is negative
///   -EINVAL    out_watchers is NULL, and max is not 0
///
/// Threads: as evloop_alive().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watchers(
    r#loop: evloop_t,
    out_watchers: *mut evloop_watcher_t,
    max: c_int,
) -> c_int {
    guard("evloop_watchers", || {
        let capacity = arg::entries(out_watchers, max, "watchers")?;
        let mut out = match capacity {
            0 => Out::none(),
            // SAFETY: not NULL, so the caller lends room for `max` handles.
            _ => unsafe { Out::new(out_watchers, capacity) },
        };
        arg::count(event_loop::watchers(r#loop, &mut out)?)
    })
}

/// Returns the properties and the state of a watcher.
///
/// @param watcher a watcher.
/// @param out_info set its size first; it is filled up to that. What is beyond
///   this version's evloop_watcher_info_t becomes 0.
/// @returns 0.
///
/// Errors:
///   -EINVAL    out_info is NULL
///   -EINVAL    size is less than sizeof(size_t), such as 0: it was not set
///
/// Threads: as evloop_alive().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_info(
    watcher: evloop_watcher_t,
    out_info: *mut WatcherInfo,
) -> c_int {
    guard("evloop_watcher_info", || {
        // SAFETY: NULL, or a structure that begins with its size (C's duty).
        let size = unsafe { arg::out_size(out_info, "out_info") }?;
        let info = WatcherInfo { size, ..event_loop::info(watcher)? };
        // SAFETY: as above; as many bytes are writable.
        unsafe { arg::write_sized(out_info, size, info) };
        Ok(0)
    })
}

/// Returns the io watcher of a descriptor.
///
/// @param loop a loop.
/// @param fd a descriptor.
/// @returns the watcher. Of several it is the first that was added or, after
///   that is closed, one of the others.
///
/// Errors:
///   -ENOENT    no watcher watches fd; also if the watched descriptor is closed
///              and the loop has noticed
///   -EBADF     fd is negative
///
/// Threads: as evloop_alive(). While another thread runs the loop, this
/// searches all of its watchers.
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_find_io(r#loop: evloop_t, fd: c_int) -> evloop_watcher_t {
    guard("evloop_find_io", || event_loop::find_io(r#loop, arg::fd(fd)?))
}

/// Writes a list of an event loop's watchers as text.
///
/// One line describes the loop. Then each watcher has a line: its kind, handle
/// and name, what it watches, and whether it keeps the loop alive. For a file
/// that is its absolute path, at most the last 128 bytes of it, with flags and
/// bits. The text is for people, and may change.
///
///   loop 562949953421313: 3 watchers, 2 keep it alive
///     io 844424930131969 "client": fd 7, events IN, keeps the loop alive
///     timer 844424930131970: due in 0.250000 s, unreferenced, does not keep
///       the loop alive
///     file 844424930131971: path "/etc/my.conf" FOLLOW, events CLOSE_WRITE,
///       keeps the loop alive
///
/// (The last two of either are one line.)
///
/// @param loop a loop.
/// @param fd where to write to; 2 is standard error.
/// @returns the number of watchers in the list.
///
/// Errors. After a failure some lines may be written:
///   -EBADF     fd is not open, or not for writing
///   -EAGAIN    fd does not block, and is full
///   -EPIPE     fd is a pipe without a reader; no SIGPIPE is raised
///   -ENOSPC, -EIO  fd cannot be written to; also other errors of write(2)
///
/// Blocking: as write(2) to fd.
/// Threads: as evloop_alive().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_dump(r#loop: evloop_t, fd: c_int) -> c_int {
    guard("evloop_dump", || arg::count(event_loop::dump(r#loop, arg::fd(fd)?)?))
}
