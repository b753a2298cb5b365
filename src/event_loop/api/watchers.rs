//! What is asked of watchers from outside their loop's code, by any thread:
//! done at once where the loop may be touched, else queued in its command
//! queue.

use crate::errno::{Result, fail};
use crate::event_loop::api::add::remote_deadline;
use crate::event_loop::command::{Change, Command, CommandQueue};
use crate::event_loop::event::{Destroy, Target};
use crate::event_loop::flags::*;
use crate::event_loop::resolve::{Resolved, resolve};
use crate::event_loop::slot::view::{fd_of, is_registered};
use crate::event_loop::source::io_slot;
use crate::event_loop::state::LoopState;
use crate::event_loop::timer_setting::{self, TimerSetting};
use crate::handle::{self, Kind};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::util::Out;
use crate::util::alloc::{TryMap, TryVec, try_copy};
use std::cell::Cell;

/// Makes a change to a watcher.
#[inline]
pub(crate) fn change(handle: i64, change: Change) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    resolved.with(
        |state| state.change(resolved.handle.index, resolved.slot, change),
        |command_queue| {
            command_queue.reserve_commands(1)?;
            command_queue.commands.push_reserved(Command::Change(handle, change));
            Ok(())
        },
    )
}

fn of_source(handle: i64, source: Source) -> Result<Resolved> {
    let found = resolve(handle, Kind::Watcher)?;
    if Source::of(found.slot.flags.load(Relaxed)) == source {
        return Ok(found);
    }
    // Or it was closed by now, and is another watcher's.
    resolve(handle, Kind::Watcher)?;
    let wanted = if source == Source::Io { "an io watcher" } else { "a timer" };
    fail!(EINVAL, "watcher {} is not {}", handle, wanted)
}

/// See evloop_io_modify.
pub(crate) fn io_modify(handle: i64, events: u32) -> Result<()> {
    of_source(handle, Source::Io)?;
    io_slot::check_events(events)?;
    change(handle, Change::Events(events))
}

/// See evloop_io_set.
pub(crate) fn io_set(handle: i64, events: u32) -> Result<()> {
    of_source(handle, Source::Io)?;
    io_slot::check_events(events)?;
    change(handle, Change::IoSet(events))
}

/// See evloop_timer_set_tolerance.
pub(crate) fn timer_set_tolerance(handle: i64, tolerance: i64) -> Result<()> {
    of_source(handle, Source::Timer)?;
    change(handle, Change::Tolerance(tolerance))
}

/// See evloop_timer_set.
pub(crate) fn timer_set(handle: i64, setting: TimerSetting) -> Result<()> {
    let resolved = of_source(handle, Source::Timer)?;
    resolved.with(
        |state| state.set_timer(resolved.handle.index, resolved.slot, &setting, None),
        |command_queue| {
            command_queue.reserve_commands(2)?;
            let clock = resolved.slot.flags.load(Relaxed) >> CLOCK_SHIFT & CLOCK_MASK;
            let deadline = remote_deadline(command_queue, &resolved, clock as usize, &setting)?;
            command_queue.commands.push_reserved(Command::Set(handle, setting, deadline));
            Ok(())
        },
    )
}

/// See evloop_timer_again.
#[inline]
pub(crate) fn timer_again(handle: i64) -> Result<()> {
    let resolved = of_source(handle, Source::Timer)?;
    resolved.with(
        |state| state.timers.again(&mut state.ctx, resolved.handle.index, resolved.slot, None),
        |command_queue| {
            command_queue.reserve_commands(1)?;
            let flags = resolved.slot.flags.load(Relaxed);
            let mut queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
            let mut period = resolved.slot.aux.load(Relaxed).cast_signed();
            let mut allowed = flags & AGAIN != 0;
            // What was asked for and not done yet counts, too.
            if let Some(setting) =
                command_queue.commands.iter().rev().find_map(|c| c.sets(handle)?.0)
            {
                queue =
                    timer_setting::queue_of((flags >> CLOCK_SHIFT & CLOCK_MASK) as usize, &setting);
                period = setting.period_ns();
                allowed = setting.initial >= 0 && setting.may_start_again();
            }
            if !allowed {
                return Err(timer_setting::never_relative());
            }
            let now = resolved.shared.now(queue);
            command_queue
                .commands
                .push_reserved(Command::Again(handle, now.saturating_add(period)));
            Ok(())
        },
    )
}

/// See evloop_timer_remaining_ns.
pub(crate) fn timer_remaining(handle: i64) -> Result<i64> {
    let resolved = of_source(handle, Source::Timer)?;
    resolved.with(
        |state| Ok(state.timers.remaining(&state.ctx, resolved.handle.index, resolved.slot)),
        |command_queue| {
            let flags = resolved.slot.flags.load(Relaxed);
            let mut queue = (flags >> QUEUE_SHIFT & CLOCK_MASK) as usize;
            let mut deadline = resolved.slot.node.deadline().filter(|_| flags & SET != 0);
            // What was asked for and not done yet counts, too.
            if let Some((setting, asked)) =
                command_queue.commands.iter().rev().find_map(|c| c.sets(handle))
            {
                if let Some(setting) = setting {
                    let clock = (flags >> CLOCK_SHIFT & CLOCK_MASK) as usize;
                    queue = timer_setting::queue_of(clock, &setting);
                }
                deadline = asked;
            }
            let now = resolved.shared.now(queue);
            Ok(deadline.map_or(i64::MAX, |deadline| deadline.saturating_sub(now).max(0)))
        },
    )
}

/// See evloop_watcher_loop.
pub(crate) fn loop_of(handle: i64) -> Result<i64> {
    let resolved = resolve(handle, Kind::Watcher)?;
    resolved.with(|state| Ok(state.ctx.shared.handle()), |_| Ok(resolved.shared.handle()))
}

/// See evloop_watcher_set_name.
pub(crate) fn set_name(handle: i64, name: Option<&[u8]>) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    let bytes = name.unwrap_or_default();
    let Some(copy) = try_copy(bytes) else {
        fail!(ENOMEM, "no memory for a name of {} bytes", bytes.len() as i64);
    };
    let mut command_queue = resolved.lock()?;
    if name.is_none() {
        command_queue.names.remove(&handle);
        return Ok(());
    }
    if command_queue.names.try_put(handle, copy).is_err() {
        fail!(ENOMEM, "no memory for a name");
    }
    drop(command_queue);
    // So that closing it forgets the name; if it was closed by now:
    change(handle, Change::Named).inspect_err(|_| {
        resolved.shared.lock_commands().names.remove(&handle);
    })
}

/// See evloop_watcher_get_name.
pub(crate) fn get_name(handle: i64, out: &mut Out<u8>) -> Result<usize> {
    let resolved = resolve(handle, Kind::Watcher)?;
    let command_queue = resolved.lock()?;
    let name = command_queue.names.get(&handle).map(|name| &**name).unwrap_or_default();
    out.push_text(name);
    out.end_text();
    Ok(name.len())
}

/// See evloop_watcher_set_destroy.
pub(crate) fn set_destroy(handle: i64, target: Target) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    // Taken by one of the two.
    let node = Cell::new(Some(Destroy::of(handle, target)?));
    resolved.with(
        |state| match node.take() {
            Some(node) => state.set_destroy(resolved.handle.index, resolved.slot, node),
            None => Ok(()),
        },
        |command_queue| {
            command_queue.reserve_commands(1)?;
            if let Some(node) = node.take() {
                command_queue.commands.push_reserved(Command::Destroy(node));
            }
            Ok(())
        },
    )
}

/// See evloop_watcher_close.
pub(crate) fn watcher_close(handle: i64, wait: bool) -> Result<()> {
    let resolved = resolve(handle, Kind::Watcher)?;
    if resolved.shared.is_mine() {
        let close = |state: &mut LoopState| {
            if wait && state.current == handle {
                fail!(EDEADLK, "watcher {} would wait for its own callback", handle);
            }
            state.close(&resolved)
        };
        // SAFETY: as was just asked.
        return unsafe { resolved.with_mine(close) };
    }
    let mut command_queue = resolved.lock_any()?;
    if resolved.shared.is_inherited() {
        close_inherited(&resolved);
        return Ok(());
    }
    // An epoll that is not the loop's any more is not changed.
    let _ = resolved.check_epoll(&mut command_queue);
    if !command_queue.running {
        return resolved.with_idle(command_queue, |state| state.close(&resolved));
    }
    let wake = resolved.shared.set_has_commands();
    let closed = close_remotely(&mut command_queue, &resolved);
    if wait && closed.is_ok() {
        drop(wake);
        resolved.shared.wait_for_callback(command_queue);
    } else {
        drop(command_queue);
        drop(wake);
    }
    closed
}

/// Closes a watcher of a loop that another thread runs.
fn close_remotely(command_queue: &mut CommandQueue, resolved: &Resolved) -> Result<()> {
    let slot = resolved.slot;
    let flags = slot.flags.load(Relaxed);
    let deregistered = Source::of(flags).is_descriptor() && is_registered(flags);
    // Closing does not fail: without memory for a command the slot says it.
    let is_listed = command_queue.reserve_commands(1).is_ok();
    let is_closed = match is_listed {
        true => slot.close(resolved.handle),
        false => slot.close_unlisted(resolved.handle, deregistered),
    };
    if !is_closed {
        return handle::stale(resolved.handle.pack());
    }
    resolved.shared.count_from_outside(-1);
    if deregistered && resolved.shared.has_epoll() {
        // If others watch it, too, the loop registers it again for them.
        // Closed before, perhaps: then the kernel knows it no more.
        let _ = epoll::delete(command_queue.epoll, fd_of(slot));
    }
    if is_listed {
        command_queue.commands.push_reserved(Command::Close(resolved.handle.pack(), deregistered));
    } else {
        command_queue.unlisted = true;
    }
    Ok(())
}

/// Closes a watcher of the parent's loop, in a child, where that loop cannot
/// be touched: only the handle.
fn close_inherited(resolved: &Resolved) {
    if resolved.slot.close(resolved.handle) {
        resolved.shared.count_from_outside(-1);
    }
}
