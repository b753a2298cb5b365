//! The library itself: versions, errors, interruption, handles of any kind.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::arg;
use super::guard::guard;
use super::types::*;
use crate::errno;
use crate::sys::SavedErrno;
use crate::sys::interrupt::{self, Mode};
use crate::table;

/// The version of the library that is running.
///
/// A program that was built with another header compares it with
/// EVLOOP_VERSION.
///
/// @returns major * 1000000 + minor * 1000 + patch; never negative.
///
/// Blocking: no. Threads: any. Signals: safe. Fork: any process.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_version() -> c_int {
    EVLOOP_VERSION
}

/// The version of the library that is running, as text.
///
/// @returns a string such as "0.2.0" that lives as long as the process and
///   belongs to the library; never NULL.
///
/// Blocking: no. Threads: any. Signals: safe. Fork: any process.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_version_string() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// What a return value means, in English.
///
/// Unlike strerror(3) it is safe in every thread, does not depend on the
/// locale and speaks of this library: -ESTALE, for instance, is "the handle
/// is not live". evloop_last_error() says more.
///
/// @param code a value that a function returned; the sign does not matter.
/// @returns a string such as "EBADF: not an open descriptor" that lives as
///   long as the process and belongs to the library; never NULL. For 0 it
///   is "success".
///
/// Blocking: no. Threads: any. Signals: safe. Fork: any process.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_strerror(code: c_int) -> *const c_char {
    errno::describe(code).as_ptr()
}

/// The last failure of a call by this thread, as one English sentence.
///
/// The sentence names the function, what was wrong and the values, such as
/// "evloop_epoll_register: fd 7 is already registered with this epoll
/// (EEXIST)". It stays until the next failure of this thread: successes,
/// timeouts and -EAGAIN leave it. It is put into words here, so failing
/// calls cost nothing for it.
///
/// @param buf where the sentence goes, always ended by a NUL byte, cut if
///   it does not fit; may be NULL when cap is 0.
/// @param cap size of buf in bytes.
/// @returns the length of the whole sentence in bytes without its NUL, so a
///   value >= cap means that it was cut; 0 (and an empty string) if no call
///   of this thread has failed. -EINVAL: buf is NULL and cap is not 0 (the
///   one failure that does not replace the sentence).
///
/// Blocking: no. Threads: any, each has its own. Signals: not safe. Fork:
/// the child keeps the forking thread's sentence. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_last_error(buf: *mut c_char, cap: usize) -> c_int {
    let errno_before = SavedErrno::now();
    // SAFETY: the caller lends `cap` writable bytes at `buf` (checked for NULL).
    let length = match unsafe { arg::bytes_out(buf, cap) } {
        Ok(mut out) => errno::last_error_into(&mut out),
        Err(error) => error.errno.negated(),
    };
    errno_before.restore();
    length
}

/// Choose what an interrupted wait of this thread does (default: RESTART).
///
/// With EVLOOP_EINTR_RESTART a wait that a signal handler interrupted goes on
/// with what is left of its timeout (as PEP 475 has it for Python). With
/// EVLOOP_EINTR_RETURN it returns -EINTR, which a language runtime wants, to
/// run its own handlers; the caller then resumes with the rest of its
/// timeout. (Waits of event loops made with EVLOOP_INTERRUPTIBLE return it
/// whatever was chosen here.) A signal that arrives just before the system
/// call does not interrupt it: a program that must not miss one watches the
/// signal, by evloop_add_signal() or EVFILT_SIGNAL, or writes to a descriptor
/// in its handler and waits for that too (the self-pipe trick).
/// Waits of epoll objects and of EPOLL selectors are interrupted without a
/// handler too, by SIGCONT after a stop signal such as SIGSTOP (signal(7)).
///
/// @param mode EVLOOP_EINTR_RESTART or EVLOOP_EINTR_RETURN.
/// @returns the mode before. -EINVAL: an unknown mode. -ENOMEM: no memory to
///   keep a thread's first choice.
///
/// Blocking: no. Threads: any; holds for the calling thread only. Signals:
/// not safe. Fork: the child's thread keeps the mode. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_set_interrupt_mode(mode: c_int) -> c_int {
    guard("evloop_set_interrupt_mode", || {
        let before = interrupt::set_mode(arg::interrupt_mode(mode)?)?;
        Ok(match before {
            Mode::Restart => EVLOOP_EINTR_RESTART,
            Mode::Return => EVLOOP_EINTR_RETURN,
        })
    })
}

/// Have a function decide what an interrupted wait of this thread does.
///
/// While one is set it is asked at each interruption, whatever
/// evloop_set_interrupt_mode() says. An embedder of CPython passes a
/// function that calls PyErr_CheckSignals().
///
/// @param check see evloop_interrupt_check_t; NULL removes it.
/// @param user_data handed to check as it is, may be NULL. It must stay
///   valid until check is replaced or removed, or the thread ends.
/// @returns 0. -ENOMEM: no memory to keep a thread's first choice.
///
/// Blocking: no. Threads: any; holds for the calling thread only. Signals:
/// not safe. Fork: the child's thread keeps it. Since 0.1.0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn evloop_set_interrupt_check(
    check: evloop_interrupt_check_t,
    user_data: *mut c_void,
) -> c_int {
    guard("evloop_set_interrupt_check", || {
        interrupt::set_check(check.map(|call| interrupt::Check { call, user_data }))?;
        Ok(0)
    })
}

/// Close an object of any kind.
///
/// The same as the close function of its kind, for wrappers that hold
/// handles of several kinds.
///
/// @param handle any live handle.
/// @returns 0. -ESTALE: not a live handle (closed before, or never one).
///
/// Blocking: no. Threads: any; threads that wait in the object return
/// -ESTALE. Signals: not safe. Fork: works in the child, and does nothing
/// to the parent's object. Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_handle_close(handle: evloop_handle_t) -> c_int {
    guard("evloop_handle_close", || table::close_any(handle).map(|()| 0))
}

/// What kind of object a handle names, and whether it is still open.
///
/// @param handle any number.
/// @returns EVLOOP_KIND_TFD or another EVLOOP_KIND constant. -ESTALE: not a
///   live handle. (It may of course be closed by another thread before the
///   answer is used.)
///
/// Blocking: no. Threads: any. Signals: not safe. Fork: works in the child.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_handle_kind(handle: evloop_handle_t) -> c_int {
    guard("evloop_handle_kind", || Ok(c_int::from(table::kind_of(handle)?.code())))
}

/// How many objects of a kind are open now, for finding leaks.
///
/// @param kind an EVLOOP_KIND constant; EVLOOP_KIND_ANY counts all.
/// @returns the number of open handles. -EINVAL: an unknown kind.
///
/// Blocking: no. Threads: any; a snapshot. Signals: not safe. Fork: the
/// child starts with the parent's number, until it closes them.
/// Since 0.1.0.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_handle_count(kind: c_int) -> i64 {
    guard("evloop_handle_count", || {
        Ok(match kind {
            EVLOOP_KIND_ANY => table::count_all(),
            _ => table::count(arg::kind(kind)?),
        })
    })
}
