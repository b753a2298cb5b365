//! The slots of io watchers: which of them share a descriptor, and what the
//! kernel has for it.

use crate::errno::{Result, fail};
use crate::event_loop::flags::*;
use crate::event_loop::slot::view::{interest, set_interest};
use crate::event_loop::slot::{self, CLOSING, WatcherSlot};
use crate::sync::Ordering::Relaxed;
use std::os::fd::RawFd;

pub(super) const EPOLLONESHOT: u32 = libc::EPOLLONESHOT as u32;
pub(super) const EPOLLEXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;
pub(super) const EPOLLET: u32 = libc::EPOLLET as u32;
/// What is always reported.
pub(super) const ALWAYS_REPORTED: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
/// A registration that is reported once at most, and then no more: what the
/// kernel makes of a ONESHOT one that was reported.
pub(super) const DISARMED: u32 = EPOLLONESHOT;
/// No mask: the registration has to be changed, whatever it is.
pub(super) const UNKNOWN: u32 = u32::MAX;
/// No mask: there may be no registration, as another thread removed it.
pub(super) const ABSENT: u32 = u32::MAX - 1;

/// The mask that the kernel has (of a first watcher).
pub(super) fn mask(slot: &WatcherSlot) -> u32 {
    slot.node.spare().load(Relaxed) as u32
}

pub(super) fn set_mask(slot: &WatcherSlot, mask: u32) {
    let others = slot.node.spare().load(Relaxed) & !0xffff_ffff;
    slot.node.spare().store(others | u64::from(mask), Relaxed);
}

/// Whether the kernel has a registration for a first watcher's descriptor, as
/// far as the loop knows.
pub(in crate::event_loop) fn has_registration(slot: &WatcherSlot) -> bool {
    mask(slot) != ABSENT
}

/// The next watcher of the same descriptor; 0: none.
pub(super) fn next(slot: &WatcherSlot) -> u32 {
    (slot.node.spare().load(Relaxed) >> 32) as u32
}

/// The same, with its slot.
pub(super) fn following(slot: &WatcherSlot) -> Option<(u32, &'static WatcherSlot)> {
    let next = next(slot);
    Some((next, linked(next)?))
}

/// The slot of an index that is 0 where there is none.
#[inline]
pub(super) fn linked(index: u32) -> Option<&'static WatcherSlot> {
    if index == 0 { None } else { slot::get(index) }
}

pub(super) fn set_next(slot: &WatcherSlot, next: u32) {
    let mask = slot.node.spare().load(Relaxed) & 0xffff_ffff;
    slot.node.spare().store(u64::from(next) << 32 | mask, Relaxed);
}

/// The watcher before it; 0: it is the first, or not in a list.
pub(super) fn before(slot: &WatcherSlot) -> u32 {
    slot.node.second_spare().load(Relaxed) as u32
}

/// Whether it is the first watcher of its descriptor, or in no list.
pub(in crate::event_loop) fn is_first(slot: &WatcherSlot) -> bool {
    before(slot) == 0
}

pub(super) fn set_before(slot: &WatcherSlot, before: u32) {
    slot.node.second_spare().store(before.into(), Relaxed);
}

/// Refuses what epoll would only refuse at the wait.
pub(in crate::event_loop) fn check_events(events: u32) -> Result<()> {
    let rdhup = libc::EPOLLRDHUP as u32;
    if events & EPOLLEXCLUSIVE != 0 && events & (EPOLLONESHOT | rdhup) != 0 {
        fail!(EINVAL, "EXCLUSIVE goes with neither ONESHOT nor RDHUP; events are {}", events);
    }
    Ok(())
}

/// Whether a change of a watcher's events to these needs no more than a change
/// of its registration.
#[inline(always)]
pub(in crate::event_loop) fn is_simple_change(slot: &WatcherSlot, events: u32) -> bool {
    let plain = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;
    (interest(slot).1 | events) & !(plain as u32) == 0
}

#[inline(always)]
pub(in crate::event_loop) fn set_events(slot: &WatcherSlot, events: u32) {
    set_interest(slot, interest(slot).0, events);
}

/// Says in a new slot what it watches.
pub(in crate::event_loop) fn fill(slot: &WatcherSlot, fd: RawFd, events: u32) {
    set_interest(slot, fd, events);
    slot.node.spare().store(0, Relaxed);
    set_before(slot, 0);
    if events & EPOLLONESHOT != 0 {
        slot.set(ONESHOT);
    }
}

pub(super) fn is_exclusive(mask: u32) -> bool {
    mask < ABSENT && mask & EPOLLEXCLUSIVE != 0
}

/// Whether a watcher of a chain still counts.
pub(super) fn is_open(slot: &WatcherSlot) -> bool {
    slot.state() != CLOSING
}
