//! Watchers of signals: `evloop_add_signal` and what came with one.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::reactor::{self, Event, SignalWay as Way, Target};
use crate::signals::Siginfo;

/// Watch a signal.
///
/// There are two ways. By default a handler of the library's is put over
/// what the program does with the signal. A handler of the program's still
/// runs, and SIG_IGN still ignores; the default action is replaced: a SIGTERM
/// that is watched does not end the process. It is replaced from this call
/// until the watcher is closed, also while the watcher is disabled or over
/// its rate limit, and in a loop that no thread runs. With
/// EVLOOP_SIGNAL_KEEP_DEFAULT the default action happens as well, unless
/// another watcher of the signal replaces it. SIGABRT, SIGBUS, SIGFPE,
/// SIGILL, SIGSEGV, SIGSYS and SIGTRAP always keep it. What was there before
/// is back when the last watcher of the signal is closed. A handler that the
/// program installs while the signal is watched takes the library's place,
/// and the watcher hears nothing, unless it calls the one that sigaction(2)
/// has returned, or the program's calls of sigaction(2) come to
/// evloop_bsd_sigaction(). With EVLOOP_SIGNAL_FD the signal is taken from a
/// signalfd; it has to be blocked, in all threads, or it does what it does
/// otherwise.
///
/// A handler is not the same as none: calls that are never resumed (poll,
/// nanosleep, epoll_wait) are interrupted; a program that is executed without
/// a fork(), or by posix_spawn() or vfork(), finds the default where the
/// signal was ignored; and SIGTTIN and SIGTTOU, which the kernel does not
/// send to who ignores them, then hold up what uses the terminal from the
/// background. EVLOOP_SIGNAL_FD has none of that.
///
///                      the handler               EVLOOP_SIGNAL_FD
///   handlers           run as before             none, it is blocked
///   SIG_IGN            seen                      seen
///   SIG_DFL            replaced, see above       does not happen
///   blocked            seen once unblocked       must be
///   to the process     seen                      seen, once
///   to one thread      seen                      only to that which runs
///                                                the loop
///   several watchers   each gets each, of all loops and kqueues, however
///                      it is seen
///   counts             each run of the handler   each reading: the kernel
///                                                keeps one of each standard
///                                                signal until it is read
///   descriptors        none                      one for each loop
///
/// Standard signals are counted: event->count says how many came since the
/// last event, and evloop_event_siginfo() tells of the last. Real-time
/// signals are an event each, in their order. Up to 512 of each signal wait
/// for the loop, and 512 more for each watcher; what is beyond is counted, and
/// reported by one event with EVLOOP_ERROR and -EOVERFLOW in event->result,
/// event->count saying how many were lost.
///
/// A signal that comes while the loop is not waiting is not missed, nor one
/// while the watcher is disabled or over its rate limit: it is told later.
/// The watcher keeps the loop alive while it is enabled; see
/// evloop_watcher_unref().
///
/// Event: type EVLOOP_EVENT_SIGNAL, result (the signal), count.
///
/// @param loop a loop.
/// @param signum the signal, from 1 to 64.
/// @param flags EVLOOP_SIGNAL_FD, or EVLOOP_SIGNAL_KEEP_DEFAULT, which adds
///   nothing to the former; else 0.
/// @param callback called with each event, on the thread that runs the
///   loop, outside of signal handlers; NULL: see evloop_wait().
/// @param user_data handed to callback, and in the event's data; may be
///   NULL.
/// @returns the watcher, enabled. -EINVAL: no signal, SIGKILL, SIGSTOP, one
///   that the C library keeps for itself, or an unknown flag. -EBUSY:
///   SIGNAL_FD, and the calling thread has not blocked the signal; or 16
///   handlers lie over one another. -EMFILE, -ENFILE: the first with
///   SIGNAL_FD takes a descriptor. -ENOSPC, -ENOMEM: as evloop_add_io().
///   -ECHILD: used after fork. -ESTALE, -EDOM: see "Handles".
///
/// Blocking: no. Threads: any. Closed by another thread than that which runs
/// the loop, what was there before is put back before the loop next
/// dispatches. Signals: not safe. Fork: -ECHILD; in a child of fork() the
/// signal does what it did before it was watched, the default action
/// included, so that a child can be ended; and its parent's loop does not
/// hear of it; after evloop_after_fork() the loop of the child hears of
/// the child's signals, and not of those that came before the fork. Since
/// 0.1.0. Source: sigaction(2), signalfd(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_signal(
    r#loop: evloop_t,
    signum: c_int,
    flags: u32,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_signal", || {
        arg::flags(flags, EVLOOP_SIGNAL_FD | EVLOOP_SIGNAL_KEEP_DEFAULT)?;
        let keeps_default = flags & EVLOOP_SIGNAL_KEEP_DEFAULT != 0;
        let by_descriptor = flags & EVLOOP_SIGNAL_FD != 0;
        let way = if by_descriptor { Way::Blocked } else { Way::Handler { keeps_default } };
        reactor::add_signal(r#loop, signum, way, Target { callback, user_data })
    })
}

/// What came with a signal.
///
/// It is there from when the event was delivered, to a callback or by
/// evloop_wait(), until the loop has waited again; outside of callbacks not
/// once its watcher is closed.
/// Of several standard signals in one event it is that of the last.
///
/// @param event an event of a signal watcher: the callback's, or a copy.
/// @param out_info receives it.
/// @returns 0. -EINVAL: event or out_info is NULL, or event is of another
///   type, or has EVLOOP_ERROR. -ENOENT: the loop has waited since; or there
///   was no memory to keep it. -EBUSY: another thread runs the loop.
///   -ECHILD: used after fork. -ESTALE: outside of callbacks, the watcher is
///   closed. -EDOM: see "Handles".
///
/// Blocking: no. Threads: in the callback, or any while nobody runs the
/// loop. Signals: not safe. Fork: -ECHILD. Since 0.1.0. Source:
/// sigaction(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_event_siginfo(
    event: *const Event,
    out_info: *mut Siginfo,
) -> c_int {
    guard("evloop_event_siginfo", || {
        // SAFETY: NULL, or an event (C's duty).
        let event = unsafe { arg::event(event, out_info) }?;
        let info = reactor::event_siginfo(event)?;
        // SAFETY: not NULL, so valid (C's duty).
        unsafe { arg::write_out(out_info, info) };
        Ok(0)
    })
}
