//! Entry points of loops: how they are made, stopped, woken and asked.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::clocks;
use crate::event_loop::command::Command;
use crate::event_loop::event::Options;
use crate::event_loop::registry;
use crate::event_loop::resolve::{resolve, resolve_signal_safe};
use crate::event_loop::shared;
use crate::event_loop::state::LoopState;
use crate::event_loop::wake_state;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;
use std::os::fd::RawFd;

/// Flags of [`Options`].
pub(crate) const VIRTUAL_TIME: u32 = 1;
pub(crate) const AUTO_ADVANCE: u32 = 2;
pub(crate) const PRECISE: u32 = 4;
pub(crate) const KEEP_ALIVE: u32 = 8;
pub(crate) const INTERRUPTIBLE: u32 = 16;
pub(crate) const CHECK_FDS: u32 = 32;

/// See evloop_create.
pub(crate) fn create(options: &Options) -> Result<i64> {
    if options.flags & (VIRTUAL_TIME | AUTO_ADVANCE) == AUTO_ADVANCE {
        fail!(EINVAL, "AUTO_ADVANCE needs VIRTUAL_TIME");
    }
    if options.virtual_grace_ns > 0 && options.flags & AUTO_ADVANCE == 0 {
        fail!(EINVAL, "virtual_grace_ns needs AUTO_ADVANCE");
    }
    registry::open(|shared| LoopState::new(shared, options))
}

/// Sets a bit of the loop's wake state. A signal handler may call this.
fn set_pending(handle: i64, bits: u64) -> std::result::Result<(), Errno> {
    let resolved = resolve_signal_safe(handle, Kind::Loop)?;
    match resolved.shared.wake_state.set_pending(resolved.shared, handle, bits) {
        None => Err(Errno::ESTALE),
        Some(wake) => wake.now(),
    }
}

/// See evloop_stop.
pub(crate) fn stop(handle: i64) -> std::result::Result<(), Errno> {
    set_pending(handle, wake_state::STOP)
}

/// See evloop_wakeup.
pub(crate) fn wakeup(handle: i64) -> std::result::Result<(), Errno> {
    set_pending(handle, wake_state::WAKEUP)
}

/// Something that a loop watches was closed.
pub(in crate::event_loop) fn wake_for_object(handle: i64) {
    if let Ok(resolved) = resolve_signal_safe(handle, Kind::Loop) {
        resolved.shared.wake();
    }
}

/// A handler has seen a signal that a loop has watchers of.
pub(in crate::event_loop) fn wake_for_signal(handle: i64) {
    // This fails if the loop is closed or the parent's: no loop is to be woken.
    let _ = set_pending(handle, wake_state::SIGNALS);
}

/// See evloop_now_ns.
pub(crate) fn now(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.with(
        |state| {
            let known = state.shared.time.load(Relaxed);
            if known != shared::UNKNOWN && !state.virtual_time {
                return Ok(known);
            }
            let now = state.read_clock(clocks::MONOTONIC);
            if state.in_callback {
                state.shared.time.store(now, Relaxed);
            }
            Ok(now)
        },
        |_| Ok(resolved.shared.now(clocks::MONOTONIC)),
    )
}

/// See evloop_advance_ns.
pub(crate) fn advance(handle: i64, ns: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    if ns < 0 {
        fail!(EINVAL, "ns is {}, negative", ns);
    }
    if !resolved.shared.is_virtual() {
        fail!(ENOTSUP, "loop {} was not made with VIRTUAL_TIME", handle);
    }
    resolved.with(
        |state| {
            state.advance(ns);
            Ok(())
        },
        |command_queue| {
            command_queue.reserve_commands(1)?;
            command_queue.commands.push_reserved(Command::Advance(ns));
            Ok(())
        },
    )
}

/// See evloop_fileno.
pub(crate) fn fileno(handle: i64) -> Result<RawFd> {
    let busy =
        |_: &mut shared::CommandQueue| fail!(EBUSY, "loop {} is running in another thread", handle);
    resolve(handle, Kind::Loop)?.with(LoopState::fileno, busy)
}
