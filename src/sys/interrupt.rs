//! What a wait does when a signal handler interrupted it; per thread.

use super::cancel::Uncancelled;
use crate::errno::Errno;
use crate::util::per_thread::PerThread;
use crate::util::try_box;
use std::cell::Cell;
use std::ffi::{c_int, c_void};

/// See `evloop_set_interrupt_mode`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum InterruptMode {
    Restart,
    Return,
}

/// See `evloop_set_interrupt_check`.
#[derive(Clone, Copy)]
pub(crate) struct Check {
    pub call: unsafe extern "C" fn(*mut c_void) -> c_int,
    pub user_data: *mut c_void,
}

/// What the calling thread has chosen, if it has.
static CHOICE: PerThread<Cell<Choice>> = PerThread::new();

#[derive(Clone, Copy)]
struct Choice {
    mode: InterruptMode,
    check: Option<Check>,
}

const DEFAULT: Choice = Choice { mode: InterruptMode::Restart, check: None };

fn choice() -> Choice {
    CHOICE.with(|choice| choice.map_or(DEFAULT, Cell::get))
}

/// Changes it; what it was.
fn choose(change: impl FnOnce(&mut Choice)) -> Result<Choice, Errno> {
    let before = choice();
    let mut wanted = before;
    change(&mut wanted);
    let is_stored = CHOICE.with(|choice| choice.map(|choice| choice.set(wanted)).is_some());
    // To choose what all threads begin with needs no memory.
    if is_stored || matches!(wanted, Choice { mode: InterruptMode::Restart, check: None }) {
        return Ok(before);
    }
    let is_stored = try_box(Cell::new(wanted)).is_some_and(|choice| CHOICE.set(choice));
    if is_stored { Ok(before) } else { Err(Errno::ENOMEM) }
}

/// The mode before.
pub(crate) fn set_mode(mode: InterruptMode) -> Result<InterruptMode, Errno> {
    choose(|choice| choice.mode = mode).map(|before| before.mode)
}

pub(crate) fn set_check(check: Option<Check>) -> Result<(), Errno> {
    choose(|choice| choice.check = check).map(drop)
}

/// Called by a wait after EINTR, with no lock held: `Ok` to go on waiting.
pub(crate) fn resume() -> Result<(), Errno> {
    let Choice { mode, check } = choice();
    let go_on = match check {
        Some(check) => {
            let _uncancelled = Uncancelled::begin();
            // SAFETY: a function of the caller's, who promised that it and its
            // argument are valid until they are replaced.
            unsafe { (check.call)(check.user_data) == 0 }
        }
        None => mode == InterruptMode::Restart,
    };
    if go_on { Ok(()) } else { Err(Errno::EINTR) }
}
