//! Watchers of processes: `evloop_add_process` and how one ended.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::fail;
use crate::event_loop::{self, Event, ProcessEnd, Target};

/// Watches a process, with one event when it ends.
///
/// It may be any process that this one can see, a child or not; also one that
/// has ended but was not waited for. The loop watches it by a pidfd, so it
/// never takes another process with a reused id for it. No handler of SIGCHLD
/// is needed or changed.
///
/// The event has the status of waitpid(2), and the zombie stays until the
/// program waits for it. With EVLOOP_PROCESS_REAP, for children only, the
/// library waits for the child just before it delivers the event; the event has
/// the status that it got. If the watcher is closed before that, the zombie
/// stays the program's.
///
/// Limits of the status:
/// - Without REAP, before Linux 5.17: if a child's first thread ended before
///   others, the status is that of the thread and not of the process.
/// - A process that is not a child: the status is known if this process may
///   inspect it (ptrace(2) access) while it is a zombie or, since Linux 6.15,
///   once its parent has waited for it. The event comes when the process ends,
///   and does not wait for that.
/// - On older kernels the status of a child is unknown if other code has waited
///   for it first, or if SIGCHLD is ignored, so that there are no zombies.
///
/// While a zombie exists no other process gets its id. So with REAP, kill(pid)
/// on the thread that runs the loop cannot hit another process before the event
/// is delivered, if no other code of the program waits for the child and SIGCHLD
/// is not ignored. Without REAP that holds until the program has waited for the
/// child. On another thread, or for a process that is not a child, it does not
/// hold: use pidfd_open(2) and pidfd_send_signal(2).
///
/// For an unknown status event->events has EVLOOP_PROCESS_STATUS_UNKNOWN, and
/// event->result is 0.
///
/// After its event the watcher has closed its descriptor, no longer keeps the
/// loop alive, and does nothing until it is closed. If the process ends while
/// the watcher is disabled, the event comes when it is enabled.
///
/// Event: type EVLOOP_EVENT_PROCESS; result, the wait status: the exit code
/// times 256, or the signal, plus 128 with a core dump; events.
/// evloop_event_process() has more.
///
/// @param loop a loop.
/// @param pid the process.
/// @param flags 0 or EVLOOP_PROCESS_REAP.
/// @param callback called with the event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -EINVAL    pid is 0 or negative
///   -EINVAL    an unknown flag
///   -ESRCH     there is no such process; the id of a thread that is not the id
///              of a process does not count
///   -EPERM     REAP, and the process is not a child, or was already waited for
///   -EMFILE, -ENFILE  a watcher takes a descriptor, until its event
///   -ENOSPC, -ENOMEM
///
/// Fork: after evloop_after_fork() the child's loop continues to watch the
/// processes. They are not its children: it reaps none, and their status is
/// that of any other process. If the child has closed the descriptor there is
/// one event with EVLOOP_ERROR and -EBADF.
/// Source: pidfd_open(2), waitid(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_process(
    r#loop: evloop_t,
    pid: c_int,
    flags: u32,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_process", || {
        arg::flags(flags, EVLOOP_PROCESS_REAP)?;
        if pid <= 0 {
            fail!(EINVAL, "pid is {}, not positive", pid);
        }
        let target = Target { callback, user_data };
        event_loop::add_process(r#loop, pid, flags & EVLOOP_PROCESS_REAP != 0, target)
    })
}

/// Returns how a process ended, and which resources it used.
///
/// It is available from the delivery of the event, to a callback or by
/// evloop_wait(), until the loop has waited again. Outside of callbacks it is
/// not available after its watcher is closed.
///
/// @param event an event of a process watcher: the callback's, or a copy.
/// @param out_process receives it.
/// @returns 0.
///
/// Errors:
///   -EINVAL    event or out_process is NULL
///   -EINVAL    event is of another type, or has EVLOOP_ERROR
///   -ENOENT    the loop has waited since, or there was no memory to keep it
///   -EBUSY     another thread runs the loop
///   -ESTALE    the watcher is closed, and this is not a callback
///
/// Threads: in the callback, or any while no thread runs the loop.
/// Source: waitid(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_event_process(
    event: *const Event,
    out_process: *mut ProcessEnd,
) -> c_int {
    guard("evloop_event_process", || {
        // SAFETY: NULL, or an event (C's duty).
        let event = unsafe { arg::event(event, out_process) }?;
        let process = event_loop::event_process(event)?;
        // SAFETY: not NULL, so valid (C's duty).
        unsafe { arg::write_out(out_process, process) };
        Ok(0)
    })
}
