//! Watchers of processes: `evloop_add_process` and how one ended.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::fail;
use crate::reactor::{self, Event, ProcessEnd, Target};

/// Watch a process: told once, when it ends.
///
/// Any process that this one can see, a child or not; also one that has
/// ended already, while nobody has waited for it. It is watched by a pidfd:
/// if its number becomes another process's, that is not taken for it. No
/// handler of SIGCHLD is needed, or touched.
///
/// How it ended is told as waitpid(2) does, without taking it away from
/// that: the zombie stays until the program waits for it. With
/// EVLOOP_PROCESS_REAP, for children only, the library waits for it, just
/// before the event is delivered; close the watcher before that and the
/// zombie stays the program's. The event has the status that was waited for.
/// Without it, before Linux 5.17, that of a child whose first thread ended
/// before others is how that thread ended, not how the process did. Of a
/// process that is no child the status is known if this one may look at it
/// (ptrace(2) access) while it is a zombie, or on Linux 6.15 and newer once
/// its parent has waited for it; the event comes when it ends and does not
/// wait for that. Also unknown is that of a child of whom somebody else has
/// taken it first, on older kernels; or where SIGCHLD is ignored, so that
/// there are no zombies. Then event->events has
/// EVLOOP_PROCESS_STATUS_UNKNOWN, and event->result is 0.
///
/// While a zombie is there no other process gets its id. So with REAP,
/// kill(pid) on the thread that runs the loop cannot hit another process
/// before the event was delivered, if nothing else in the program waits for
/// the child and SIGCHLD is not ignored. Without REAP that holds until the
/// program has waited for it. On another thread, and of a process that is no
/// child, it never does: use pidfd_open(2) and pidfd_send_signal(2).
///
/// After its event the watcher has given up its descriptor, and does nothing
/// until it is closed; it does not keep the loop alive any more. Ended while
/// it was disabled, it is told when it is enabled.
///
/// Event: type EVLOOP_EVENT_PROCESS, result (the wait status: the exit code
/// times 256, or the signal, plus 128 with a core dump), events. More about
/// it: evloop_event_process().
///
/// @param loop a loop.
/// @param pid the process.
/// @param flags 0 or EVLOOP_PROCESS_REAP.
/// @param callback called with the event; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -EINVAL: pid is 0 or negative, or an
///   unknown flag. -ESRCH: there is no such process (a thread's id that is
///   no process's is none). -EPERM: REAP, and it is no child, or was waited
///   for already. -EMFILE, -ENFILE: each watcher takes a descriptor, until
///   its event. -ENOSPC, -ENOMEM: as evloop_add_io(). -ECHILD: used after
///   fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: -ECHILD; after
/// evloop_after_fork() the loop of the child goes on to watch, but those are
/// not its children: it reaps none, and knows the status as of any other.
/// Where the child has closed the descriptor there is one event with
/// EVLOOP_ERROR and -EBADF. Since 0.1.0. Source: pidfd_open(2), waitid(2).
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
        reactor::add_process(r#loop, pid, flags & EVLOOP_PROCESS_REAP != 0, target)
    })
}

/// How a process ended, and what it has used.
///
/// It is there from when the event was delivered, to a callback or by
/// evloop_wait(), until the loop has waited again; outside of callbacks not
/// once its watcher is closed.
///
/// @param event an event of a process watcher: the callback's, or a copy.
/// @param out_process receives it.
/// @returns 0. -EINVAL: event or out_process is NULL, or event is of another
///   type, or has EVLOOP_ERROR. -ENOENT: the loop has waited since; or there
///   was no memory to keep it. -EBUSY: another thread runs the loop.
///   -ECHILD: used after fork. -ESTALE: outside of callbacks, the watcher is
///   closed. -EDOM: see "Handles".
///
/// Blocking: no. Threads: in the callback, or any while nobody runs the
/// loop. Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source: waitid(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_event_process(
    event: *const Event,
    out_process: *mut ProcessEnd,
) -> c_int {
    guard("evloop_event_process", || {
        // SAFETY: NULL, or an event (C's duty).
        let event = unsafe { arg::event(event, out_process) }?;
        let process = reactor::event_process(event)?;
        // SAFETY: not NULL, so valid (C's duty).
        unsafe { arg::write_out(out_process, process) };
        Ok(0)
    })
}
