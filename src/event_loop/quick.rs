//! The calls that callbacks make most often, the way they mostly go.
//!
//! Each does what it is asked if that is as simple as it mostly is: on the
//! loop's own thread, with nothing that others asked for before. If not, it
//! does nothing and says so, and the way of all calls is taken. What is here
//! cannot fail and calls nobody.

use super::core::Core;
use super::desk::Desk;
use super::event::Target;
use super::flags::*;
use super::io;
use super::record::{self, LIVE, LOOP, Record};
use super::timers::NewTimer;
use crate::handle::{Handle, Kind};
use crate::sync::Ordering::Relaxed;

/// A live watcher of the loop that this thread runs, or that loop.
struct AtHand<'a> {
    index: u32,
    record: &'static Record,
    flags: u32,
    core: &'a mut Core,
}

/// What a handle leads to, if the loop is at hand.
#[inline(always)]
fn find(handle: i64, kind: Kind) -> Option<(u32, &'static Record, &'static Desk)> {
    let handle = Handle::unpack_as(handle, kind)?;
    let record = record::get(handle.index)?;
    let state = if matches!(kind, Kind::Loop) { LOOP } else { LIVE };
    if !record.is(handle, state) {
        return None;
    }
    let desk = record.desk()?;
    let is_at_hand = desk.is_surely_mine() && !desk.has_inbox();
    is_at_hand.then_some((handle.index, record, desk))
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
fn at_hand<R>(handle: i64, kind: Kind, act: impl FnOnce(AtHand<'_>) -> R) -> Option<R> {
    let Some((index, record, desk)) = find(handle, kind) else { return elsewhere() };
    let flags = record.flags.load(Relaxed);
    let act = |core: &mut Core| {
        core.stir();
        act(AtHand { index, record, flags, core })
    };
    // SAFETY: this thread runs the loop, whose run borrows nothing of the core
    // while a callback, which this call is in, runs.
    unsafe { desk.lease.with(act) }
}

/// See evloop_add_timer; of a relative one.
#[inline(always)]
pub(crate) fn add_timer(handle: i64, new: &NewTimer, target: Target) -> Option<i64> {
    if new.setting.absolute || new.setting.initial < 0 || target.callback.is_none() {
        return None;
    }
    at_hand(handle, Kind::Loop, |AtHand { core, .. }| {
        let Core { timers, slots, .. } = core;
        let (index, record, flags) = timers.start(new, || slots.take_at_hand())?;
        record.flags.store(flags | COUNTED, Relaxed);
        record.set_desk(core.desk);
        record.set_target(target);
        record.set_state(LIVE);
        core.active = core.active.wrapping_add(1);
        core.desk.count(1);
        Some(record.handle(Kind::Watcher, index))
    })?
}

/// See evloop_timer_again; of a timer that is queued.
#[inline(always)]
pub(crate) fn timer_again(handle: i64) -> bool {
    const MASK: u32 = SOURCE | ENABLED | AGAIN | RELATIVE | SET | HELD;
    const SIMPLE: u32 = Source::Timer as u32 | ENABLED | AGAIN | RELATIVE | SET;
    at_hand(handle, Kind::Watcher, |AtHand { index, record, flags, core }| {
        flags & MASK == SIMPLE && core.timers.start_again(index, record, flags)
    })
    .unwrap_or(false)
}

/// See evloop_watcher_enable and evloop_watcher_disable; of an io watcher.
#[inline(always)]
pub(crate) fn set_enabled(handle: i64, enable: bool) -> bool {
    const MASK: u32 = SOURCE | UNREF | MASKED | ALWAYS | DEAD | SPENT | HELD | EXTRA | UNTAKEN;
    at_hand(handle, Kind::Watcher, |AtHand { index, record, flags, core }| {
        if flags & MASK != Source::Io.bits() {
            return false;
        }
        if (flags & ENABLED != 0) == enable {
            return true;
        }
        if flags & DIRTY == 0 && !core.io.note_dirty(index) {
            return false;
        }
        let rearm = if enable { REARM } else { 0 };
        record.flags.store((flags ^ (ENABLED | COUNTED)) | DIRTY | rearm, Relaxed);
        let active = core.active;
        core.active = if enable { active.wrapping_add(1) } else { active.wrapping_sub(1) };
        true
    })
    .unwrap_or(false)
}

/// See evloop_io_modify; of the only watcher of its descriptor.
#[inline(always)]
pub(crate) fn io_modify(handle: i64, events: u32) -> bool {
    const MASK: u32 = SOURCE | SHARED | ONESHOT | ALWAYS | DEAD | SPENT | UNTAKEN;
    at_hand(handle, Kind::Watcher, |AtHand { index, record, flags, core }| {
        if flags & MASK != Source::Io.bits() || !io::may_change_quietly(record, events) {
            return false;
        }
        if flags & DIRTY == 0 && !core.io.note_dirty(index) {
            return false;
        }
        io::set_events(record, events);
        record.flags.store(flags | DIRTY | REARM, Relaxed);
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
    at_hand(handle, Kind::Watcher, |AtHand { record, flags, core, .. }| {
        let wanted = if keeps_alive { flags & !UNREF } else { flags | UNREF };
        if wanted != flags {
            record.flags.store(wanted, Relaxed);
            core.count_liveness(record);
        }
    })
    .is_some()
}

/// See evloop_watcher_set_data.
#[inline(always)]
pub(crate) fn set_data(handle: i64, data: u64) -> bool {
    at_hand(handle, Kind::Watcher, |AtHand { record, .. }| record.data.store(data, Relaxed))
        .is_some()
}

/// See evloop_watcher_loop.
#[inline(always)]
pub(crate) fn loop_of(handle: i64) -> Option<i64> {
    at_hand(handle, Kind::Watcher, |AtHand { core, .. }| core.desk.handle())
}
