//! The library's handler over a program's disposition.

use super::disposition::Disposition;
use super::hub::{self, Hub, LEVELS, Signal, address, level_of, locked, signal_of};
use crate::errno::{Result, fail};
use crate::handle;
use crate::sync::Ordering::*;
use crate::sys::fork;
use crate::sys::signal::{self, Action};
use std::ffi::c_int;

/// Has a handler of the library's over the disposition of a signal, until
/// this is dropped: the last one puts back what the program asked for.
pub(crate) struct Handler {
    number: c_int,
    /// The process that it belongs to.
    epoch: fork::Epoch,
}

/// Why a handler could not be installed.
pub(super) enum InstallError {
    NoSignal,
    TooManyLevels,
}

impl Handler {
    pub fn new(number: c_int) -> Result<Self> {
        if !hub::prepare_for_forks() {
            fail!(ENOMEM, "no memory to watch signal {}", number);
        }
        let handler = Self { number, epoch: handle::epoch() };
        match locked(|hub| acquire(hub, number)) {
            Ok(()) => Ok(handler),
            Err(refused) => {
                // There is nothing to be put back.
                std::mem::forget(handler);
                refused.explain(number)
            }
        }
    }

    /// Puts the library's handler back over one that the program has put over
    /// it.
    pub fn renew(&self) -> Result<()> {
        let Some(signal) = signal_of(self.number) else { return Ok(()) };
        let found = signal::query(self.number);
        let level = found.ok().and_then(|found| level_of(&found));
        if level == Some(signal.top.load(Relaxed)) {
            return Ok(());
        }
        locked(|hub| install(hub, signal, self.number))
            .or_else(|refused| refused.explain(self.number))
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        if self.epoch == fork::current() {
            locked(|hub| release(hub, self.number));
        }
    }
}

/// Takes the default action of a signal away, until this is dropped: where
/// the library's handler lies over SIG_DFL, nothing more happens.
pub(crate) struct NoDefault {
    signal: &'static Signal,
    /// The process that it belongs to.
    epoch: fork::Epoch,
}

impl NoDefault {
    /// `None`: this signal keeps its default action, as the thread cannot go
    /// on behind it, or the program wants to end.
    pub fn new(number: c_int) -> Option<Self> {
        const KEPT: [c_int; 7] = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGABRT,
            libc::SIGTRAP,
            libc::SIGSYS,
        ];
        let signal = signal_of(number).filter(|_| !KEPT.contains(&number))?;
        // After that: a child's first call takes those of its parent away.
        let epoch = handle::epoch();
        signal.without_default.fetch_add(1, Relaxed);
        Some(Self { signal, epoch })
    }
}

impl Drop for NoDefault {
    fn drop(&mut self) {
        if self.epoch == fork::current() {
            self.signal.without_default.fetch_sub(1, Relaxed);
        }
    }
}

impl InstallError {
    fn explain<T>(self, number: c_int) -> Result<T> {
        match self {
            Self::NoSignal => fail!(EINVAL, "signal {} cannot be watched", number),
            Self::TooManyLevels => {
                fail!(EBUSY, "signal {} has {} handlers, one over the other", number, LEVELS as i64)
            }
        }
    }
}

fn acquire(hub: &mut Hub, number: c_int) -> std::result::Result<(), InstallError> {
    let index = number.unsigned_abs() as usize;
    let Some(signal) = signal_of(number) else { return Err(InstallError::NoSignal) };
    // Before there is a handler: a child that is forked in between restores
    // what this says.
    hub::set_watched(hub, number, true);
    let installed = install(hub, signal, number);
    match hub.users.get_mut(index) {
        Some(users) if installed.is_ok() => *users += 1,
        Some(users) if *users > 0 => {}
        _ => hub::set_watched(hub, number, false),
    }
    installed
}

/// Puts a trampoline of ours over what there is, if that is not one.
pub(super) fn install(
    hub: &mut Hub,
    signal: &Signal,
    number: c_int,
) -> std::result::Result<(), InstallError> {
    let found = signal::query(number).map_err(|_| InstallError::NoSignal)?;
    if let Some(level) = level_of(&found) {
        // Where the program put an older one back, that counts now.
        signal.top.store(level, Release);
    } else {
        wrap(hub, signal, number, &found)?;
    }
    if let Some(installed) = hub.installed.get_mut(number.unsigned_abs() as usize) {
        *installed = true;
    }
    Ok(())
}

fn wrap(
    hub: &Hub,
    signal: &Signal,
    number: c_int,
    found: &Action,
) -> std::result::Result<(), InstallError> {
    let disposition = Disposition::of(found);
    let level = level_for(hub, signal, number, &disposition);
    if level >= LEVELS {
        return Err(InstallError::TooManyLevels);
    }
    signal.wrap(hub, level, &disposition);
    let before = signal.top.swap(level, AcqRel);
    match signal::set(number, &disposition.wrapped_by(address(level), number)) {
        Ok(old) if level_of(&old).is_none() && !Disposition::of(&old).is_same(&disposition) => {
            // Another thread was faster: ours lies over its handler.
            let overtaken = Disposition::of(&old);
            signal.wrap(hub, level, &overtaken);
            // As a moment ago, with other flags.
            let _ = signal::set(number, &overtaken.wrapped_by(address(level), number));
        }
        Ok(_) => {}
        Err(_) => {
            signal.top.store(before, Release);
            return Err(InstallError::NoSignal);
        }
    }
    Ok(())
}

/// The level for a trampoline over a disposition: that which is over the same
/// already, or one that no program can have found.
fn level_for(hub: &Hub, signal: &Signal, number: c_int, found: &Disposition) -> usize {
    let top = signal.top.load(Relaxed);
    let installed = hub.installed.get(number.unsigned_abs() as usize).copied().unwrap_or(false);
    let known =
        signal.saved_actions.iter().take(top + 1).position(|action| action.read().is_same(found));
    known.unwrap_or(if installed { top + 1 } else { top })
}

/// The last one puts back what the program asked for, if our handler is still
/// in place.
fn release(hub: &mut Hub, number: c_int) {
    let index = number.unsigned_abs() as usize;
    let Some(signal) = signal_of(number) else { return };
    let Some(users) = hub.users.get_mut(index).filter(|users| **users > 0) else { return };
    *users -= 1;
    if *users == 0 {
        restore(hub, signal, number);
        hub::set_watched(hub, number, false);
    }
}

fn restore(hub: &mut Hub, signal: &Signal, number: c_int) {
    let Ok(found) = signal::query(number) else { return };
    let Some(level) = level_of(&found) else { return };
    if let Some(action) = signal.saved_action(level)
        && signal::set(number, &action.read().action()).is_ok()
        && let Some(installed) = hub.installed.get_mut(number.unsigned_abs() as usize)
    {
        signal.top.store(level, Release);
        *installed = false;
    }
}
