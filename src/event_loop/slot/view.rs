//! What the slots of watchers of certain kinds say.

use super::WatcherSlot;
use crate::event_loop::event::Event;
use crate::event_loop::flags::*;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use std::os::fd::RawFd;

const EPOLLET: u32 = libc::EPOLLET as u32;

/// What an io watcher watches: kept in its slot.
#[inline(always)]
pub(in crate::event_loop) fn interest(slot: &WatcherSlot) -> (RawFd, u32) {
    let aux = slot.aux.load(Relaxed);
    (aux as u32 as RawFd, (aux >> 32) as u32)
}

pub(in crate::event_loop) fn set_interest(slot: &WatcherSlot, fd: RawFd, events: u32) {
    slot.aux.store(u64::from(events) << 32 | u64::from(fd.cast_unsigned()), Relaxed);
}

#[inline(always)]
pub(in crate::event_loop) fn fd_of(slot: &WatcherSlot) -> RawFd {
    interest(slot).0
}

pub(in crate::event_loop) fn events_of(slot: &WatcherSlot) -> u32 {
    interest(slot).1
}

/// Whether the kernel's set has a watcher's descriptor, as far as its flags
/// show, and not for other watchers only.
pub(in crate::event_loop) fn is_registered(flags: u32) -> bool {
    flags & (NOT_POLLABLE | FD_LOST | UNTAKEN | JOINS) == 0
}

pub(in crate::event_loop) fn is_edge(slot: &WatcherSlot) -> bool {
    interest(slot).1 & EPOLLET != 0
}

/// Whether an async watcher that was sent to is not on the stack of those.
pub(in crate::event_loop) fn is_unlinked(flags: u32) -> bool {
    Source::of(flags) == Source::Async && flags & UNLINKED != 0
}
/// The event of a watcher that is closed.
pub(in crate::event_loop) fn closed_event(index: u32, slot: &WatcherSlot) -> Event {
    let mut event = Event::new(slot.handle(Kind::Watcher, index), CLOSED);
    event.data = slot.data.load(Relaxed);
    event
}
