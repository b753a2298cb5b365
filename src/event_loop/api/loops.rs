//! Entry points of loops: how they are made, stopped, woken and asked.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::api::registry;
use crate::event_loop::clock_ids;
use crate::event_loop::command::{Command, CommandQueue};
use crate::event_loop::event::{AUTO_ADVANCE, Options, VIRTUAL_TIME};
use crate::event_loop::own_words;
use crate::event_loop::resolve::{resolve, set_pending};
use crate::event_loop::shared;
use crate::event_loop::state::LoopState;
use crate::event_loop::wake_state;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::util::alloc::TryVec;
use std::ffi::c_int;
use std::os::fd::RawFd;

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

/// See evloop_stop.
pub(crate) fn stop(handle: i64) -> std::result::Result<(), Errno> {
    set_pending(handle, wake_state::STOP)
}

/// See evloop_wakeup.
pub(crate) fn wakeup(handle: i64) -> std::result::Result<(), Errno> {
    set_pending(handle, wake_state::WAKEUP)
}

/// See evloop_now_ns.
pub(crate) fn now(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.with(
        |state| {
            let known = state.ctx.shared.time.load(Relaxed);
            if known != shared::UNKNOWN && !state.ctx.virtual_time {
                return Ok(known);
            }
            let now = state.ctx.read_clock(clock_ids::MONOTONIC);
            if state.ctx.in_callback {
                state.ctx.shared.time.store(now, Relaxed);
            }
            Ok(now)
        },
        |_| Ok(resolved.shared.now(clock_ids::MONOTONIC)),
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
    let busy = |_: &mut CommandQueue| fail!(EBUSY, "loop {} is running in another thread", handle);
    resolve(handle, Kind::Loop)?.with(LoopState::fileno, busy)
}

/// See evloop_virtual_hold.
pub(crate) fn virtual_hold(handle: i64, change: c_int) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.check()?;
    if !matches!(change, 1 | -1) {
        fail!(EINVAL, "change is {}, neither 1 nor -1", change);
    }
    if !resolved.shared.is_virtual() {
        fail!(ENOTSUP, "loop {} was not made with VIRTUAL_TIME", handle);
    }
    let changed = |holds: i64| holds.checked_add(change.into()).filter(|holds| *holds >= 0);
    match resolved.shared.holds.fetch_update(Relaxed, Relaxed, changed) {
        // The last one is gone: the time may jump.
        Ok(1) if change < 0 => resolved.recheck_wait(),
        Ok(_) => Ok(()),
        Err(_) => fail!(EINVAL, "loop {} is not held", handle),
    }
}

/// See evloop_limit_wait_ns.
pub(crate) fn limit_wait(handle: i64, ns: i64) -> Result<()> {
    let resolved = resolve(handle, Kind::Loop)?;
    let limit = |state: &mut LoopState| {
        state.wait_limit = state.wait_limit.min(ns);
        state.slow_waits |= crate::event_loop::state::WAIT_LIMITED;
        Ok(())
    };
    resolved.with(limit, |_| fail!(EBUSY, "loop {} is running in another thread", handle))
}

/// See evloop_next_timeout_ns.
pub(crate) fn next_timeout(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Loop)?;
    resolved.with(
        |state| {
            if !state.ctx.in_callback {
                state.timers.settle(&mut state.ctx);
            }
            if state.is_busy() || state.has_pending() || state.ctx.shared.wake_state.has_work() {
                return Ok(0);
            }
            let mut least = state
                .timers
                .next_unsettled(&state.ctx)
                .min(state.files.left())
                .min(state.wait_limit);
            for clock in 0..own_words::CLOCKS {
                if let Some(wake) = state.timers.next_exact(&state.ctx, clock) {
                    least = least.min(wake.saturating_sub(state.ctx.read_clock(clock)).max(0));
                }
            }
            let now = state.ctx.read_clock(clock_ids::MONOTONIC);
            let resume =
                state.ctx.suspended.iter().map(|(until, _)| until.saturating_sub(now).max(0));
            Ok(resume.min().map_or(least, |resume| resume.min(least)))
        },
        |_| fail!(EBUSY, "loop {} is running in another thread", handle),
    )
}
