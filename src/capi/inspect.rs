//! Questions about a loop and its watchers, for any thread.

use std::ffi::c_int;

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::reactor::{self, WatcherInfo};
use crate::util::Out;

/// Whether something keeps an event loop alive.
///
/// What evloop_run() would return now; nothing is dispatched. These
/// functions can be called from any thread, a watchdog's
/// (evloop_set_watchdog()) too, while the loop waits, runs, or is stuck in a
/// callback: they read what the loop has stored and never wait for it. Asked
/// from another thread than that which runs the loop, the answer may be a
/// moment old, and does not have in it what other threads have asked for
/// since the callback that is running began (but for watchers that they have
/// added or closed). "Why does my loop not end?":
///
///   evloop_dump(loop, 2);
///
/// @param loop a loop.
/// @returns 1 or 0; 1 of a loop with EVLOOP_KEEP_ALIVE. -ECHILD: used after
///   fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any; takes no lock that a callback or a wait
/// holds up. Signals: not safe. Fork: -ECHILD. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_alive(r#loop: evloop_t) -> c_int {
    guard("evloop_alive", || reactor::alive(r#loop).map(c_int::from))
}

/// The watchers of an event loop.
///
/// All that are open, those that are disabled too, in no particular order.
/// One that is added or closed by another thread during the call may be in
/// it or not.
///
/// @param loop a loop.
/// @param out_watchers filled from the front; may be NULL if max is 0.
/// @param max room in out_watchers, in handles; 0 only counts.
/// @returns how many there are, which may be more than max. -EINVAL: max is
///   negative, or out_watchers is NULL. -ECHILD: used after fork. -ESTALE,
///   -EDOM: see "Handles".
///
/// Blocking, threads, signals, fork: as evloop_alive(). Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watchers(
    r#loop: evloop_t,
    out_watchers: *mut evloop_watcher_t,
    max: c_int,
) -> c_int {
    guard("evloop_watchers", || {
        let room = arg::entries(out_watchers, max, "watchers")?;
        let mut out = match room {
            0 => Out::none(),
            // SAFETY: not NULL, so the caller lends room for `max` handles.
            _ => unsafe { Out::new(out_watchers, room) },
        };
        arg::count(reactor::watchers(r#loop, &mut out)?)
    })
}

/// What a watcher is, and how it stands.
///
/// @param watcher a watcher.
/// @param out_info its size is to be set; filled up to that. What is beyond
///   this version's evloop_watcher_info_t becomes 0.
/// @returns 0. -EINVAL: out_info is NULL, or its size less than
///   sizeof(size_t), such as 0: it was not set. -ECHILD: used after fork.
///   -ESTALE, -EDOM: see "Handles".
///
/// Blocking, threads, signals, fork: as evloop_alive(). Since 0.2.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_watcher_info(
    watcher: evloop_watcher_t,
    out_info: *mut WatcherInfo,
) -> c_int {
    guard("evloop_watcher_info", || {
        // SAFETY: NULL, or a structure that begins with its size (C's duty).
        let size = unsafe { arg::out_size(out_info, "out_info") }?;
        let info = WatcherInfo { size, ..reactor::info(watcher)? };
        // SAFETY: as above; as many bytes are writable.
        unsafe { arg::write_sized(out_info, size, info) };
        Ok(0)
    })
}

/// The io watcher of a descriptor.
///
/// @param loop a loop.
/// @param fd a descriptor.
/// @returns the watcher; of several the first that was added, once that is
///   closed one of the others. -ENOENT: none watches it; also if the
///   descriptor that was watched is closed, and the loop has noticed.
///   -EBADF: fd is negative. -ECHILD: used after fork. -ESTALE, -EDOM: see
///   "Handles".
///
/// Blocking, threads, signals, fork: as evloop_alive(). While another thread
/// runs the loop it looks at all of its watchers. Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_find_io(r#loop: evloop_t, fd: c_int) -> evloop_watcher_t {
    guard("evloop_find_io", || reactor::find_io(r#loop, arg::fd(fd)?))
}

/// Write down what an event loop has, in words: why it does not end.
///
/// One line for the loop, then one for each watcher: its kind, handle and
/// name, what it watches, and whether it keeps the loop alive. The text is
/// for people, and may change.
///
///   loop 562949953421313: 2 watchers, 1 keep it alive
///     io 844424930131969 "client": fd 7, events IN, keeps the loop alive
///     timer 844424930131970: due in 0.250000 s, unreferenced, does not keep
///       the loop alive
///
/// (The last two are one line.)
///
/// @param loop a loop.
/// @param fd where to write to; 2 is the standard error output.
/// @returns how many watchers there are in it. -EBADF: fd is not open, or
///   not for writing. -EAGAIN: it does not block, and is full. -EPIPE (no
///   SIGPIPE is raised), -ENOSPC, -EIO (whatever else write(2) says). After
///   a failure some lines may be written. -ECHILD: used after fork. -ESTALE:
///   not a live handle, or closed during the call. -EDOM: see "Handles".
///
/// Blocking: as write(2) to fd. Threads, signals, fork: as evloop_alive().
/// Since 0.2.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_dump(r#loop: evloop_t, fd: c_int) -> c_int {
    guard("evloop_dump", || arg::count(reactor::dump(r#loop, arg::fd(fd)?)?))
}
