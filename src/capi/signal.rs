//! Watchers of signals: `evloop_add_signal` and what came with one.

use std::ffi::{c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::event_loop::{self, Event, SignalMode, Target};
use crate::signal_hub::Siginfo;

/// Watches a signal.
///
/// There are two ways to watch it.
///
/// Without EVLOOP_SIGNAL_FD the library installs a handler over what the
/// program does with the signal:
/// - A handler of the program still runs, and SIG_IGN still ignores.
/// - The default action is replaced: a watched SIGTERM does not end the
///   process. It is replaced from this call until the watcher is closed, also
///   while the watcher is disabled or over its rate limit, and in a loop that
///   no thread runs.
/// - With EVLOOP_SIGNAL_KEEP_DEFAULT the default action happens as well, unless
///   another watcher of the signal replaces it. SIGABRT, SIGBUS, SIGFPE,
///   SIGILL, SIGSEGV, SIGSYS and SIGTRAP always keep it.
/// - When the last watcher of the signal is closed, the previous disposition is
///   back.
/// - A handler that the program installs later replaces the library's, and the
///   watcher gets no events. It does get them if that handler calls the one
///   that sigaction(2) has returned, or if the program's calls of sigaction(2)
///   go through evloop_bsd_sigaction().
///
/// With EVLOOP_SIGNAL_FD the loop reads the signal from a signalfd. The signal
/// must be blocked in all threads; otherwise it does what it does without a
/// watcher.
///
/// A handler has side effects, which EVLOOP_SIGNAL_FD does not have:
/// - It interrupts calls that are never resumed (poll, nanosleep, epoll_wait).
/// - A program that is executed without a fork(), or by posix_spawn() or
///   vfork(), finds the default where the signal was ignored.
/// - The kernel does not send SIGTTIN and SIGTTOU to a process that ignores
///   them; with a handler they stop a background process that uses the
///   terminal.
///
/// The two ways compared:
///
///                      the handler               EVLOOP_SIGNAL_FD
///   handlers           run as before             none, it is blocked
///   SIG_IGN            delivered                 delivered
///   SIG_DFL            replaced, see above       does not happen
///   blocked            delivered once unblocked  must be
///   sent to process    delivered                 delivered once
///   sent to a thread   delivered                 delivered if that thread
///                                                runs the loop
///   several watchers   each gets each, of all loops and kqueues, with either
///                      way
///   counts             each run of the handler   each read: the kernel keeps
///                                                one of each standard signal
///                                                until it is read
///   descriptors        none                      one for each loop
///
/// Standard signals are counted: event->count is how many arrived since the
/// last event, and evloop_event_siginfo() describes the last one. Each
/// real-time signal has an event of its own, in their order. The library keeps
/// up to 512 of each signal for the loop, and 512 more for each watcher. It
/// counts those beyond, and reports them with one event with EVLOOP_ERROR and
/// result -EOVERFLOW, where event->count is how many were lost.
///
/// A signal that arrives while the loop does not wait, or while the watcher is
/// disabled or over its rate limit, is not missed: it is delivered later. The
/// watcher keeps the loop alive while it is enabled; see
/// evloop_watcher_unref().
///
/// Event: type EVLOOP_EVENT_SIGNAL, result (the signal), count.
///
/// @param loop a loop.
/// @param signum the signal, from 1 to 64.
/// @param flags 0, EVLOOP_SIGNAL_FD or EVLOOP_SIGNAL_KEEP_DEFAULT; both
///   together are the same as EVLOOP_SIGNAL_FD.
/// @param callback called with each event, on the thread that runs the loop and
///   outside of signal handlers; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -EINVAL    signum is less than 1 or greater than 64
///   -EINVAL    SIGKILL, SIGSTOP, or a signal that the C library reserves
///   -EINVAL    an unknown flag
///   -EBUSY     SIGNAL_FD, and the calling thread has not blocked the signal
///   -EBUSY     the signal's chain already has 16 handlers of the library: the
///              program has put its own between them that often
///   -EMFILE, -ENFILE  the first watcher with SIGNAL_FD takes a descriptor
///   -ENOSPC, -ENOMEM
///
/// Threads: any. If a thread closes the watcher that does not run the loop, the
/// previous disposition is back before the loop next dispatches.
/// Fork: in a child of fork() the signal does what it did before it was
/// watched, the default action included, so that a child can be ended; the
/// parent's loop does not see the child's signals. After evloop_after_fork()
/// the child's loop sees the child's signals, and not those from before the
/// fork.
/// Source: sigaction(2), signalfd(2).
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
        let mode =
            if by_descriptor { SignalMode::Blocked } else { SignalMode::Handler { keeps_default } };
        event_loop::add_signal(r#loop, signum, mode, Target { callback, user_data })
    })
}

/// Returns what arrived with a signal.
///
/// It is available from the delivery of the event, to a callback or by
/// evloop_wait(), until the loop has waited again. Outside of callbacks it is
/// not available after its watcher is closed. If one event has several standard
/// signals it describes the last.
///
/// @param event an event of a signal watcher: the callback's, or a copy.
/// @param out_info receives it.
/// @returns 0.
///
/// Errors:
///   -EINVAL    event or out_info is NULL
///   -EINVAL    event is of another type, or has EVLOOP_ERROR
///   -ENOENT    the loop has waited since, or there was no memory to keep it
///   -EBUSY     another thread runs the loop
///   -ESTALE    the watcher is closed, and this is not a callback
///
/// Threads: in the callback, or any while no thread runs the loop.
/// Source: sigaction(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_event_siginfo(
    event: *const Event,
    out_info: *mut Siginfo,
) -> c_int {
    guard("evloop_event_siginfo", || {
        // SAFETY: NULL, or an event (C's duty).
        let event = unsafe { arg::event(event, out_info) }?;
        let info = event_loop::event_siginfo(event)?;
        // SAFETY: not NULL, so valid (C's duty).
        unsafe { arg::write_out(out_info, info) };
        Ok(0)
    })
}
