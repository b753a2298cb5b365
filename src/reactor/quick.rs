//! The calls that callbacks make most often, the way they mostly go.
//!
//! Each does what it is asked if that is as simple as it mostly is: on the
//! loop's own thread, with nothing that others asked for before. If not, it
//! does nothing and says so, and the way of all calls is taken. What is here
//! cannot fail and calls nobody.

use super::core::Core;
use super::event::Target;
use super::flags::*;
use super::io;
use super::record::{self, LIVE, LOOP, Record};
use super::timers::NewTimer;
use crate::sync::Ordering::Relaxed;
use crate::table::{Handle, Kind};

/// A live watcher of the loop that this thread runs, or that loop.
struct AtHand {
    index: u32,
    record: &'static Record,
    flags: u32,
    core: &'static mut Core,
}

/// What a handle leads to, if the loop is at hand.
#[inline(always)]
fn at_hand(handle: i64, kind: Kind) -> Option<AtHand> {
    let handle = Handle::unpack_as(handle, kind)?;
    let record = record::get(handle.index)?;
    let state = if matches!(kind, Kind::Loop) { LOOP } else { LIVE };
    if !record.is(handle, state) {
        return None;
    }
    let desk = record.desk()?;
    if !desk.is_surely_mine() || desk.has_inbox() {
        return None;
    }
    // SAFETY: this thread runs the loop; a callback, so nobody else refers to
    // the core, and the functions here do not keep it.
    let core = unsafe { desk.core() }.ok()?;
    core.stir();
    Some(AtHand { index: handle.index, record, flags: record.flags.load(Relaxed), core })
}

/// See evloop_add_timer; of a relative one.
#[inline(always)]
pub(crate) fn add_timer(handle: i64, new: &NewTimer, target: Target) -> Option<i64> {
    if new.setting.absolute || new.setting.initial < 0 {
        return None;
    }
    let AtHand { core, .. } = at_hand(handle, Kind::Loop)?;
    let Core { timers, slots, .. } = core;
    let (index, record, flags) = timers.start(new, || slots.take_at_hand())?;
    let records = if target.callback.is_none() { RECORDS } else { 0 };
    record.flags.store(flags | records | COUNTED, Relaxed);
    record.set_desk(core.desk);
    record.set_target(target);
    record.set_state(LIVE);
    core.active = core.active.wrapping_add(1);
    core.desk.count(1);
    Some(record.handle(Kind::Watcher, index))
}

/// See evloop_timer_again; of a timer that is queued.
#[inline(always)]
pub(crate) fn timer_again(handle: i64) -> bool {
    const MASK: u32 = SOURCE | ENABLED | AGAIN | RELATIVE | SET | HELD;
    const SIMPLE: u32 = Source::Timer as u32 | ENABLED | AGAIN | RELATIVE | SET;
    match at_hand(handle, Kind::Watcher) {
        Some(at) if at.flags & MASK == SIMPLE => {
            at.core.timers.start_again(at.index, at.record, at.flags)
        }
        _ => false,
    }
}

/// See evloop_watcher_enable and evloop_watcher_disable; of an io watcher.
#[inline(always)]
pub(crate) fn set_enabled(handle: i64, enable: bool) -> bool {
    const MASK: u32 = SOURCE | UNREF | MASKED | ALWAYS | DEAD | SPENT | HELD | EXTRA;
    let Some(AtHand { index, record, flags, core }) = at_hand(handle, Kind::Watcher) else {
        return false;
    };
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
    core.active = if enable { core.active.wrapping_add(1) } else { core.active.wrapping_sub(1) };
    true
}

/// See evloop_io_modify; of the only watcher of its descriptor.
#[inline(always)]
pub(crate) fn io_modify(handle: i64, events: u32) -> bool {
    const MASK: u32 = SOURCE | SHARED | ONESHOT | ALWAYS | DEAD | SPENT;
    let Some(AtHand { index, record, flags, core }) = at_hand(handle, Kind::Watcher) else {
        return false;
    };
    if flags & MASK != Source::Io.bits() || !io::may_change_quietly(record, events) {
        return false;
    }
    if flags & DIRTY == 0 && !core.io.note_dirty(index) {
        return false;
    }
    io::set_events(record, events);
    record.flags.store(flags | DIRTY | REARM, Relaxed);
    true
}

/// See evloop_watcher_ref and evloop_watcher_unref.
#[inline(always)]
pub(crate) fn set_ref(handle: i64, keeps_alive: bool) -> bool {
    let Some(AtHand { record, flags, core, .. }) = at_hand(handle, Kind::Watcher) else {
        return false;
    };
    let wanted = if keeps_alive { flags & !UNREF } else { flags | UNREF };
    if wanted != flags {
        record.flags.store(wanted, Relaxed);
        core.count_liveness(record);
    }
    true
}

/// See evloop_watcher_set_data.
#[inline(always)]
pub(crate) fn set_data(handle: i64, data: u64) -> bool {
    let Some(AtHand { record, .. }) = at_hand(handle, Kind::Watcher) else { return false };
    record.data.store(data, Relaxed);
    true
}

/// See evloop_watcher_loop.
#[inline(always)]
pub(crate) fn loop_of(handle: i64) -> Option<i64> {
    Some(at_hand(handle, Kind::Watcher)?.core.desk.handle())
}
