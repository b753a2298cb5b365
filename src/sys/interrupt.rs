//! What a wait does when a signal handler interrupted it; per thread.

use super::cancel::Uncancelled;
use crate::errno::Errno;
use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// See `evloop_set_interrupt_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Restart,
    Return,
}

/// See `evloop_set_interrupt_check`.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub call: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub user_data: *mut c_void,
}

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Restart) };
    static CHECK: Cell<Option<Check>> = const { Cell::new(None) };
}

/// The mode before.
pub(crate) fn set_mode(mode: Mode) -> Mode {
    MODE.replace(mode)
}

pub(crate) fn set_check(check: Option<Check>) {
    CHECK.set(check);
}

/// Called by a wait after EINTR, with no lock held: `Ok` to go on waiting.
pub(crate) fn resume() -> Result<(), Errno> {
    let go_on = match CHECK.get() {
        Some(check) => {
            let _uncancelled = Uncancelled::begin();
            // SAFETY: a function of the caller's, who promised that it and its
            // argument are valid until they are replaced.
            unsafe { (check.call)(check.user_data) == 0 }
        }
        None => MODE.get() == Mode::Restart,
    };
    if go_on { Ok(()) } else { Err(Errno::EINTR) }
}
