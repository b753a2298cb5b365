//! Cancellation of threads: pthread_cancel(3).
//!
//! The C library ends a cancelled thread by unwinding it, which frames of Rust
//! do not survive. System calls are made by syscall(2), which is no
//! cancellation point; where the program's code runs inside a call, or a
//! function of the C library that is one, cancellation is disabled.

use std::ffi::c_int;
use std::marker::PhantomData;

/// Of the GNU C library and of musl.
const PTHREAD_CANCEL_DISABLE: c_int = 1;

// Not in the libc crate for this system.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// While it exists the thread is not cancelled: a request for that stays
/// pending.
#[must_use]
pub(crate) struct Uncancelled {
    before: c_int,
    /// It is the thread's that made it.
    of_thread: PhantomData<*mut ()>,
}

impl Uncancelled {
    #[inline]
    pub fn begin() -> Self {
        let mut before = 0;
        // SAFETY: a valid state, and a place for the one before.
        unsafe { pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &raw mut before) };
        Self { before, of_thread: PhantomData }
    }
}

impl Drop for Uncancelled {
    #[inline]
    fn drop(&mut self) {
        let mut unused = 0;
        // SAFETY: the state that it was in, and a place for the one that is
        // given up.
        unsafe { pthread_setcancelstate(self.before, &raw mut unused) };
    }
}

/// The thread, which is the library's, is never cancelled.
pub(crate) fn disable() {
    std::mem::forget(Uncancelled::begin());
}
