//! The library itself: versions, errors, interruption, handles of any kind.

use std::ffi::{CStr, c_char, c_int, c_void};

use super::arg;
use super::guard::{guard, guard_close};
use super::types::*;
use crate::errno;
use crate::handle;
use crate::sys::SavedErrno;
use crate::sys::interrupt::{self, InterruptMode};

/// The version of the loaded library.
///
/// A program that was built with another header compares it with
/// EVLOOP_VERSION.
///
/// @returns major * 1000000 + minor * 1000 + patch; never negative.
///
/// Signals: safe.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_version() -> c_int {
    EVLOOP_VERSION
}

/// The version of the loaded library, as text.
///
/// @returns a string such as "0.2.0". It belongs to the library, is valid as
///   long as the process lives, and is never NULL.
///
/// Signals: safe.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_version_string() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => text,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// Describes an error in English.
///
/// Unlike strerror(3) it is safe in every thread, does not depend on the
/// locale, and uses the terms of this library: -ESTALE, for instance, is "the
/// handle is not live". evloop_last_error() has more detail.
///
/// @param code a value that a function returned; the sign does not matter.
/// @returns a string such as "EBADF: not an open descriptor"; "success" for 0.
///   It belongs to the library, is valid as long as the process lives, and is
///   never NULL.
///
/// Signals: safe.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_strerror(code: c_int) -> *const c_char {
    errno::describe(code).as_ptr()
}

/// Describes the last failure of the calling thread in one sentence.
///
/// The English sentence names the function, the cause and the values, such as
/// "evloop_epoll_register: fd 7 is already registered with this epoll
/// (EEXIST)". It stays until the next failure of this thread: successes,
/// timeouts and -EAGAIN leave it. A close function leaves it too if it gets 0 or
/// an error code of a constructor instead of a handle: a program may clean up
/// before it asks why the constructor failed. Each thread has its own sentence;
/// the child of a fork keeps that of the forking thread. The sentence is built
/// here, so a failing call costs nothing for it.
///
/// @param buf receives the sentence, always terminated by a NUL byte and cut if
///   it does not fit; may be NULL if cap is 0.
/// @param cap size of buf in bytes.
/// @returns the length of the whole sentence in bytes without its NUL, so a
///   value >= cap means that the sentence was cut; 0, and an empty string, if
///   no call of this thread has failed.
///
/// Errors:
///   -EINVAL    buf is NULL and cap is not 0. Only this failure does not
///              replace the sentence
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

/// Sets what an interrupted wait of the calling thread does.
///
/// - EVLOOP_EINTR_RESTART, the default: a wait that a signal handler interrupts
///   continues with the rest of its timeout, as PEP 475 describes it for
///   Python.
/// - EVLOOP_EINTR_RETURN: the wait returns -EINTR. A language runtime uses it
///   to run its own signal handlers; the caller then waits again for the rest
///   of its timeout.
///
/// A wait of an event loop with EVLOOP_INTERRUPTIBLE returns -EINTR in either
/// mode. Waits of epoll objects and of EPOLL selectors are interrupted without
/// a handler too, by SIGCONT after a stop signal such as SIGSTOP (signal(7)).
///
/// A signal that arrives just before the system call does not interrupt it. A
/// program that must not miss one watches the signal, with evloop_add_signal()
/// or EVFILT_SIGNAL, or its handler writes to a descriptor that the program
/// waits for as well (the self-pipe trick).
///
/// @param mode EVLOOP_EINTR_RESTART or EVLOOP_EINTR_RETURN.
/// @returns the previous mode.
///
/// Errors:
///   -EINVAL    an unknown mode
///   -ENOMEM    no memory to store a thread's first choice
///
/// Threads: affects the calling thread only.
/// Fork: the child's thread keeps the mode.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_set_interrupt_mode(mode: c_int) -> c_int {
    guard("evloop_set_interrupt_mode", || {
        let before = interrupt::set_mode(arg::interrupt_mode(mode)?)?;
        Ok(match before {
            InterruptMode::Restart => EVLOOP_EINTR_RESTART,
            InterruptMode::Return => EVLOOP_EINTR_RETURN,
        })
    })
}

/// Sets a function that decides what interrupted waits of a thread do.
///
/// The library calls it at each interruption, and ignores
/// evloop_set_interrupt_mode() while it is set. An embedder of CPython passes a
/// function that calls PyErr_CheckSignals().
///
/// @param check see evloop_interrupt_check_t; NULL removes the function.
/// @param user_data passed to check; may be NULL. It must stay valid until
///   check is replaced or removed, or the thread ends.
/// @returns 0.
///
/// Errors:
///   -ENOMEM    no memory to store a thread's first choice
///
/// Threads: affects the calling thread only.
/// Fork: the child's thread keeps the function.
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

/// Closes an object of any kind.
///
/// It does the same as the close function of that kind, for wrappers that hold
/// handles of several kinds. Threads that wait in the object return -ESTALE.
///
/// @param handle any live handle.
/// @returns 0.
///
/// Fork: works in the child, and does nothing to the parent's object.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_handle_close(handle: evloop_handle_t) -> c_int {
    guard_close("evloop_handle_close", handle, || handle::close_any(handle).map(|()| 0))
}

/// Returns the kind of an open object.
///
/// It returns -ESTALE if the object is closed. Another thread may close the
/// object before the caller uses the result.
///
/// @param handle any number.
/// @returns EVLOOP_KIND_TFD or another EVLOOP_KIND constant.
///
/// Fork: works in the child, for every kind.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_handle_kind(handle: evloop_handle_t) -> c_int {
    guard("evloop_handle_kind", || Ok(c_int::from(handle::kind_of(handle)?.code())))
}

/// Counts the open objects of a kind, to find leaks.
///
/// @param kind an EVLOOP_KIND constant; EVLOOP_KIND_ANY counts all.
/// @returns the number of open handles at the moment of the call.
///
/// Errors:
///   -EINVAL    an unknown kind
///
/// Fork: the child begins with the parent's objects, until it closes them.
#[unsafe(no_mangle)]
pub extern "C" fn evloop_handle_count(kind: c_int) -> i64 {
    guard("evloop_handle_count", || {
        Ok(match kind {
            EVLOOP_KIND_ANY => handle::count_all(),
            _ => handle::count(arg::kind(kind)?),
        })
    })
}
