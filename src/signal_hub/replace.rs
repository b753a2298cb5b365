//! sigaction(2) for programs whose calls of it come here: what they ask for
//! goes under the library's handler, which stays where it is.
//!
//! A signal handler may call this. So it takes the lock of the module only,
//! see there, and allocates nothing.

use super::disposition::Disposition;
use super::handler::install;
use super::hub::{Hub, address, is_locked_here, is_ours, is_watched, level_of, locked, signal_of};
use crate::errno::Errno;
use crate::sync::Ordering::Release;
use crate::sys::signal::{self, Action, Sigaction};
use std::ffi::c_int;

type ActionResult = std::result::Result<Action, Errno>;

/// Changes, or asks for, what the program does with a signal; what it did
/// before. `next` is the function that the library's own changes go through
/// from now on, as the usual one leads here.
pub(crate) fn sigaction(next: Sigaction, number: c_int, new: Option<&Action>) -> ActionResult {
    signal::set_next(next);
    // The library's own call, which did not know the next one before.
    let is_our_own = is_locked_here() || new.is_some_and(|new| level_of(new).is_some());
    if is_our_own || !is_watched(number) || !is_ours() {
        return plainly(number, new, is_our_own);
    }
    locked(|hub| saved_actions(hub, number, new))
}

/// Of a signal that is not watched here; or by the library itself.
fn plainly(number: c_int, new: Option<&Action>, is_our_own: bool) -> ActionResult {
    let old = match new {
        Some(new) => signal::set(number, new)?,
        None => signal::query(number)?,
    };
    if is_our_own {
        return Ok(old);
    }
    if new.is_some() && is_watched(number) && is_ours() {
        // Another thread has begun to watch it.
        locked(|hub| recover(hub, number));
    }
    Ok(asked_for(number, old))
}

/// With the lock: the program's disposition under our handler.
fn saved_actions(hub: &mut Hub, number: c_int, new: Option<&Action>) -> ActionResult {
    let found = signal::query(number)?;
    let Some(new) = new else { return Ok(asked_for(number, found)) };
    let Some((signal, level)) = signal_of(number).zip(level_of(&found)) else {
        // One that was installed by other ways is over ours, or ours is just
        // taken away.
        let old = signal::set(number, new)?;
        recover(hub, number);
        return Ok(old);
    };
    let old = asked_for(number, found);
    let new = Disposition::of(new).as_the_kernel_keeps_it();
    signal.wrap(hub, level, &new);
    signal.top.store(level, Release);
    signal::set(number, &new.wrapped_by(address(level), number))?;
    Ok(old)
}

/// Puts our handler over the program's, if it is not there and still has
/// users; where that cannot be, the next kevent says so.
fn recover(hub: &mut Hub, number: c_int) {
    let is_used = hub.users.get(number.unsigned_abs() as usize).is_some_and(|users| *users > 0);
    if let Some(signal) = signal_of(number).filter(|_| is_used) {
        let _ = install(hub, signal, number);
    }
}

/// What the program asked for, where the kernel has our handler.
fn asked_for(number: c_int, found: Action) -> Action {
    let action =
        signal_of(number).zip(level_of(&found)).and_then(|(one, level)| one.saved_action(level));
    action.map_or(found, |action| action.read().action())
}
