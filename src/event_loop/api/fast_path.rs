//! Fast paths of the calls that callbacks make most often.
//!
//! Each does what the caller asks for if the usual conditions hold: the call is
//! on the loop's own thread, other threads have no commands queued, and the
//! watcher needs nothing unusual. If not, it does nothing and says so, and the
//! caller takes the general path. The functions here cannot fail, and call no
//! function of the program.

use crate::errno::Errno;
use crate::event_loop::event::Target;
use crate::event_loop::flags::*;
use crate::event_loop::resolve::resolve_signal_safe;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::{self, LIVE, LOOP, WatcherSlot};
use crate::event_loop::source::asyncs::SlotLinks;
use crate::event_loop::source::io_slot;
use crate::event_loop::state::LoopState;
use crate::event_loop::timer_setting::NewTimer;
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;

/// A live watcher of the loop that this thread runs, or that loop.
struct OwnedHere<'a> {
    index: u32,
    slot: &'static WatcherSlot,
    flags: u32,
    state: &'a mut LoopState,
}

/// What a handle leads to, if the loop is at hand.
#[inline(always)]
fn find(handle: i64, kind: Kind) -> Option<(u32, &'static WatcherSlot, &'static LoopShared)> {
    let handle = Handle::unpack_as(handle, kind)?;
    let slot = slot::get(handle.index)?;
    let slot_state = if matches!(kind, Kind::Loop) { LOOP } else { LIVE };
    if !slot.is(handle, slot_state) {
        return None;
    }
    let shared = slot.shared()?;
    let is_at_hand = shared.is_mine_fast() && !shared.has_commands();
    is_at_hand.then_some((handle.index, slot, shared))
}

/// The answer where it is not. Cold: else so many conditions make the compiler
/// take what is done at hand for rare, and not inline it.
#[cold]
#[inline(never)]
fn elsewhere<R>() -> Option<R> {
    None
}

/// Does something with what a handle leads to, if the loop is at hand.
#[inline(always)]
fn owned_here<R>(handle: i64, kind: Kind, act: impl FnOnce(OwnedHere<'_>) -> R) -> Option<R> {
    let Some((index, slot, shared)) = find(handle, kind) else { return elsewhere() };
    let flags = slot.flags.load(Relaxed);
    let act = |state: &mut LoopState| {
        state.mark_changed();
        act(OwnedHere { index, slot, flags, state })
    };
    // SAFETY: this thread runs the loop, whose run borrows nothing of the state
    // while a callback, which this call is in, runs.
    unsafe { shared.state_owner().with(act) }
}

/// See evloop_add_timer; of a relative one.
#[inline(always)]
pub(crate) fn add_timer(handle: i64, new: &NewTimer, target: Target) -> Option<i64> {
    if new.setting.absolute || new.setting.initial < 0 || target.callback.is_none() {
        return None;
    }
    owned_here(handle, Kind::Loop, |OwnedHere { state, .. }| {
        let LoopState { timers, ctx, .. } = state;
        let (index, slot, flags) = timers.start(new, || ctx.slots.try_alloc())?;
        slot.flags.store(flags | COUNTED, Relaxed);
        slot.set_shared(state.ctx.shared);
        slot.set_target(target);
        slot.set_state(LIVE);
        state.ctx.active = state.ctx.active.wrapping_add(1);
        state.ctx.shared.count(1);
        Some(slot.handle(Kind::Watcher, index))
    })?
}

/// See evloop_timer_again; of a timer that is queued.
#[inline(always)]
pub(crate) fn timer_again(handle: i64) -> bool {
    const MASK: u32 = SOURCE | ENABLED | AGAIN | RELATIVE | SET | HAS_PENDING;
    const SIMPLE: u32 = Source::Timer as u32 | ENABLED | AGAIN | RELATIVE | SET;
    owned_here(handle, Kind::Watcher, |OwnedHere { index, slot, flags, state }| {
        flags & MASK == SIMPLE && state.timers.start_again(index, slot, flags)
    })
    .unwrap_or(false)
}

/// See evloop_watcher_enable and evloop_watcher_disable; of an io watcher.
#[inline(always)]
pub(crate) fn set_enabled(handle: i64, enable: bool) -> bool {
    const MASK: u32 = SOURCE
        | UNREF
        | SUPPRESSED
        | NOT_POLLABLE
        | FD_LOST
        | AUTO_DISABLED
        | HAS_PENDING
        | EXTRA
        | UNTAKEN;
    owned_here(handle, Kind::Watcher, |OwnedHere { index, slot, flags, state }| {
        if flags & MASK != Source::Io.bits() {
            return false;
        }
        if (flags & ENABLED != 0) == enable {
            return true;
        }
        if flags & DIRTY == 0 && !state.io.note_dirty(index) {
            return false;
        }
        let rearm = if enable { REARM } else { 0 };
        slot.flags.store((flags ^ (ENABLED | COUNTED)) | DIRTY | rearm, Relaxed);
        let active = state.ctx.active;
        state.ctx.active = if enable { active.wrapping_add(1) } else { active.wrapping_sub(1) };
        true
    })
    .unwrap_or(false)
}

/// See evloop_io_modify; of the only watcher of its descriptor.
#[inline(always)]
pub(crate) fn io_modify(handle: i64, events: u32) -> bool {
    const MASK: u32 = SOURCE | SHARED | ONESHOT | NOT_POLLABLE | FD_LOST | AUTO_DISABLED | UNTAKEN;
    owned_here(handle, Kind::Watcher, |OwnedHere { index, slot, flags, state }| {
        if flags & MASK != Source::Io.bits() || !io_slot::is_simple_change(slot, events) {
            return false;
        }
        if flags & DIRTY == 0 && !state.io.note_dirty(index) {
            return false;
        }
        io_slot::set_events(slot, events);
        slot.flags.store(flags | DIRTY | REARM, Relaxed);
        true
    })
    .unwrap_or(false)
}

/// See evloop_io_set.
#[inline(always)]
pub(crate) fn io_set(handle: i64, events: u32) -> bool {
    match events {
        0 => set_enabled(handle, false),
        events => io_modify(handle, events) && set_enabled(handle, true),
    }
}

/// See evloop_watcher_ref and evloop_watcher_unref.
#[inline(always)]
pub(crate) fn set_ref(handle: i64, keeps_alive: bool) -> bool {
    owned_here(handle, Kind::Watcher, |OwnedHere { slot, flags, state, .. }| {
        let wanted = if keeps_alive { flags & !UNREF } else { flags | UNREF };
        if wanted != flags {
            slot.flags.store(wanted, Relaxed);
            state.ctx.count_liveness(slot);
        }
    })
    .is_some()
}

/// See evloop_watcher_set_data.
#[inline(always)]
pub(crate) fn set_data(handle: i64, data: u64) -> bool {
    owned_here(handle, Kind::Watcher, |OwnedHere { slot, .. }| slot.data.store(data, Relaxed))
        .is_some()
}

/// See evloop_watcher_loop.
#[inline(always)]
pub(crate) fn loop_of(handle: i64) -> Option<i64> {
    owned_here(handle, Kind::Watcher, |OwnedHere { state, .. }| state.ctx.shared.handle())
}

/// See evloop_async_send. A signal handler may call this.
#[inline(always)]
pub(crate) fn async_send(handle: i64) -> std::result::Result<(), Errno> {
    let Some(resolved) = Handle::unpack_as(handle, Kind::Watcher) else {
        return refuse_send(handle);
    };
    let Some(slot) = slot::get(resolved.index) else { return refuse_send(handle) };
    let is_async = Source::of(slot.flags.load(Relaxed)) == Source::Async;
    let Some(shared) = slot.shared().filter(|shared| is_async && shared.is_usable()) else {
        return refuse_send(handle);
    };
    let tag = shared.wake_state.pending_tag();
    match slot.mark_pending(resolved) {
        None => refuse_send(handle),
        Some(false) => Ok(()),
        Some(true) => match shared.wake_state.push(shared, &SlotLinks, resolved.index, tag) {
            Some(wake) => wake.now(),
            None => {
                // The loop was closed since, and has left the slot to this.
                slot::refuse_sent(resolved.index, slot);
                Err(Errno::ESTALE)
            }
        },
    }
}

#[cold]
fn refuse_send(handle: i64) -> std::result::Result<(), Errno> {
    resolve_signal_safe(handle, Kind::Watcher)?;
    Err(Errno::EINVAL)
}
