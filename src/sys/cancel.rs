//! Thread cancellation: kept off while the library must not be left.

use std::ffi::c_int;

// Not in the libc crate for this system.
unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, before: *mut c_int) -> c_int;
}

/// PTHREAD_CANCEL_DISABLE, of the GNU C library and of musl.
const DISABLED: c_int = 1;

/// The calling thread is not cancelled while this exists; a request that
/// comes until then acts at the next cancellation point after it.
#[must_use]
pub(crate) struct Uncancelled {
    before: c_int,
}

impl Uncancelled {
    pub fn begin() -> Self {
        Self { before: set(DISABLED) }
    }
}

impl Drop for Uncancelled {
    fn drop(&mut self) {
        set(self.before);
    }
}

/// The state before.
fn set(state: c_int) -> c_int {
    let mut before = 0;
    // SAFETY: `before` is writable; both states are ones that this function
    // knows, as it returned the other one itself.
    unsafe { pthread_setcancelstate(state, &raw mut before) };
    before
}
