//! Watchers of memory pressure: `evloop_add_memory_pressure`.

use std::ffi::{c_char, c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno::{Result, fail};
use crate::event_loop::{self, Source, Target, Trigger};

/// evloop_event_t type: memory is short; see evloop_add_memory_pressure().
pub const EVLOOP_EVENT_MEMORY_PRESSURE: c_int = 17;

/// evloop_add_memory_pressure(): at least one task was stalled.
pub const EVLOOP_PRESSURE_SOME: c_int = 0;
/// evloop_add_memory_pressure(): all tasks that were not idle were stalled at
/// the same time.
pub const EVLOOP_PRESSURE_FULL: c_int = 1;

/// Watches for a shortage of memory.
///
/// The loop calls the callback when tasks were stalled for lack of memory for
/// stall_ns of any window_ns, at most once in a window. It is the time to free
/// caches, before the system gets slow or a process is killed. A shortage while
/// the watcher is disabled is reported when it is enabled.
///
/// Without CAP_SYS_RESOURCE the kernel checks only every 2 s, and at first
/// reports stalls of any length. The loop then compares the total in the file,
/// and calls the callback only if tasks were stalled for stall_ns since the
/// watcher was added or was called.
///
/// A watcher takes two descriptors.
///
/// Event: type EVLOOP_EVENT_MEMORY_PRESSURE. With EVLOOP_ERROR and result
/// -ENODEV the control group is gone and the watcher is disabled; close it.
///
/// @param loop a loop.
/// @param path of the memory.pressure of a control group (version 2); NULL: the
///   whole system's, /proc/pressure/memory.
/// @param kind EVLOOP_PRESSURE_SOME or EVLOOP_PRESSURE_FULL.
/// @param stall_ns how much of a window; rounded up to microseconds.
/// @param window_ns 500 ms to 10 s, in nanoseconds. Without CAP_SYS_RESOURCE a
///   multiple of 2 s.
/// @param callback called with each event; NULL: see evloop_wait().
/// @param user_data passed to callback, and in the event's data; may be NULL.
/// @returns the watcher, enabled.
///
/// Errors:
///   -ENOTSUP   the kernel has no pressure stall information (CONFIG_PSI),
///              psi=0 has disabled it, or the kernel accepts no trigger for
///              another reason
///   -EINVAL    an unknown kind
///   -EINVAL    a window that is not allowed, or a stall that is not between 1
///              ns and the window
///   -EINVAL    path leads to anything but a file of memory pressure, such as a
///              FIFO, a directory or /proc/pressure/cpu; the call neither waits
///              for it nor writes to it
///   -EACCES, -EPERM, -EROFS  the file is not writable. On kernels older than
///              6.4 also without CAP_SYS_RESOURCE
///   -ENOENT, -ENOTDIR, -ELOOP, -ENAMETOOLONG  path cannot be resolved
///   -EMFILE, -ENFILE, -ENOSPC, -ENOMEM
///
/// Fork: evloop_after_fork() opens the file again, so path must still lead
/// there from the current directory.
/// Source: the kernel's Documentation/accounting/psi.rst.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_add_memory_pressure(
    r#loop: evloop_t,
    path: *const c_char,
    kind: c_int,
    stall_ns: i64,
    window_ns: i64,
    callback: evloop_callback_t,
    user_data: *mut c_void,
) -> evloop_watcher_t {
    guard("evloop_add_memory_pressure", || {
        // SAFETY: NULL, or NUL-terminated while this call lasts (this
        // function's contract).
        let path = unsafe { arg::text(path) }?;
        let full = is_of_all(kind)?;
        let us = |ns: i64| ns / 1000 + i64::from(ns % 1000 > 0);
        let trigger = Trigger { full, stall: us(stall_ns), window: us(window_ns) };
        event_loop::add_memory_pressure(r#loop, path, trigger, Target { callback, user_data })
    })
}

/// Whether a kind of pressure is that of all tasks.
fn is_of_all(kind: c_int) -> Result<bool> {
    match kind {
        EVLOOP_PRESSURE_SOME => Ok(false),
        EVLOOP_PRESSURE_FULL => Ok(true),
        _ => fail!(EINVAL, "kind of pressure {} is unknown", kind),
    }
}

const _: () = assert!(EVLOOP_EVENT_MEMORY_PRESSURE == Source::MemoryPressure as c_int);
