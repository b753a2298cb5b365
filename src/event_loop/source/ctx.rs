//! What the sources of a loop share: slots, what keeps the loop alive, failures,
//! events for evloop_wait, and the loop's epoll. A source has its own data and
//! is handed this; it knows nothing else of the loop.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::command::CommandQueue;
use crate::event_loop::event::{Destroy, Event};
use crate::event_loop::flags::*;
use crate::event_loop::node_list::ListNode;
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::own_words::INTERNAL;
use crate::event_loop::payload::Payloads;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::slot::alloc::SlotAlloc;
use crate::event_loop::slot::{self, WatcherSlot};
use crate::event_loop::source::pending_queue::PendingQueue;
use crate::handle::Kind;
use crate::hash::Map;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll::{self, BusyPoll};
use crate::sys::fd::Fd;
use crate::util::alloc::{TryDeque, TryMap};
use crate::wakeup;
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// What is rarely said about a watcher.
#[derive(Default)]
pub(in crate::event_loop) struct Extra {
    pub priority: i32,
    pub limit: Option<Limit>,
    pub destroy: Option<Box<ListNode<Destroy>>>,
    /// What a disabled timer is set to.
    pub parked: i64,
    /// Which file a descriptor was of that is always ready.
    pub file: Option<(u64, u64)>,
    /// What happened while the watcher was suspended.
    pub deferred_event: Option<Event>,
    /// Where it is in `SourceCtx::suspended`, if it is there.
    pub suspended_at: usize,
}

impl Extra {
    /// Keeps what happened, with what was kept before.
    pub fn defer_event(&mut self, event: &Event) {
        match &mut self.deferred_event {
            Some(deferred_event) => deferred_event.merge(event),
            None => self.deferred_event = Some(*event),
        }
    }
}

/// A rate limit, and the interval that is going on.
#[derive(Clone, Copy)]
pub(in crate::event_loop) struct Limit {
    pub interval: i64,
    pub burst: i32,
    pub since: i64,
    pub count: i32,
}

pub(in crate::event_loop) struct SourceCtx {
    pub shared: &'static LoopShared,
    pub virtual_time: bool,
    pub precise: bool,
    pub epoll: Fd,
    /// Always readable; see `wakeup`.
    pub eventfd: Fd,
    /// What evloop_fileno gave away; the epoll is in it.
    pub outer: Option<Fd>,
    pub slots: SlotAlloc,
    pub extras: Map<u32, Extra>,
    pub payloads: Payloads,
    /// How many watchers keep the loop alive.
    pub active: usize,
    /// Events for evloop_wait.
    pub pending: PendingQueue,
    /// Failures to be reported; and whether there are more, for which this had
    /// no room. It is not empty then. The watchers of both are marked.
    pub failures: VecDeque<(i64, Errno)>,
    pub failures_more: bool,
    /// Watchers over their rate limit, and until when.
    pub suspended: Vec<(i64, u32)>,
    /// A run is going on: who calls is a callback.
    pub in_callback: bool,
    /// Nothing was changed since an iteration that found no need for another
    /// full one; see `fd_rounds`.
    pub fds_only: bool,
    /// Records are asked for by evloop_wait, not only kept.
    pub collecting: bool,
}

impl SourceCtx {
    #[inline(always)]
    pub fn epoll(&self) -> RawFd {
        self.epoll.raw()
    }

    /// The epoll, if it still is the loop's: for what is done outside of a run,
    /// too.
    pub fn own_epoll(&self) -> Result<RawFd> {
        match self.epoll.check() {
            Some(epoll) => Ok(epoll),
            None => fail!(EBADF, "the descriptors of loop {} were closed", self.shared.handle()),
        }
    }

    /// Has other threads wake the loop in its epoll.
    pub fn be_woken(&self) {
        self.shared.wake_in(self.epoll.identity(), self.eventfd.raw());
    }

    /// Whether others may poll the descriptor for embedding.
    pub fn is_given_away(&self) -> bool {
        self.outer.is_some()
    }

    /// Puts another set in the place of this one.
    pub fn replace_epoll(&mut self, fresh: Fd) -> Result<()> {
        if let Some(outer) = &self.outer {
            epoll::add(outer.raw(), fresh.raw(), libc::EPOLLIN as u32, INTERNAL)?;
            let _ = epoll::delete(outer.raw(), self.epoll());
        }
        self.shared.own.set(OwnFd::Epoll, fresh.raw());
        let before = std::mem::replace(&mut self.epoll, fresh);
        self.be_woken();
        drop(before);
        Ok(())
    }

    /// A new set, in which the loop can be woken.
    pub fn fresh_epoll(&self) -> Result<Fd> {
        let fresh = woken_by(&self.eventfd)?;
        if let Some(setting) = BusyPoll::unpack(self.shared.busy_poll.load(Relaxed)) {
            // It only makes things faster: a failure is none.
            let _ = epoll::set_busy_poll(fresh.raw(), setting);
        }
        Ok(fresh)
    }

    /// Whether the epoll is what it was. If the program has closed it, or put
    /// another file in its place, what has its fd now is left alone.
    pub fn has_own_epoll(&mut self, command_queue: &mut CommandQueue) -> bool {
        let is_intact = self.epoll.is_intact() && self.epoll() >= 0;
        if !is_intact {
            self.lose_epoll(command_queue);
        }
        is_intact
    }

    /// The loop can wait no more: every wait says so from now on.
    pub fn lose_epoll(&mut self, command_queue: &mut CommandQueue) {
        self.shared.lose_epoll();
        self.fds_only = false;
        command_queue.epoll = -1;
        // These fds are the program's.
        self.shared.own.clear();
        self.epoll = Fd::borrowed(-1);
    }

    /// More about a watcher, made if there is nothing yet.
    pub fn extra(&mut self, index: u32, slot: &WatcherSlot) -> Result<&mut Extra> {
        // Each of them may come to be suspended.
        let more = (self.extras.len() + 1).saturating_sub(self.suspended.len());
        let has_room = self.suspended.try_reserve(more).is_ok();
        match self.extras.try_entry(index) {
            Ok(extra) if has_room => {
                slot.set(EXTRA);
                Ok(extra)
            }
            _ => fail!(ENOMEM, "no memory for a watcher"),
        }
    }

    /// Has a failure reported as an event of the watcher.
    pub fn fail(&mut self, handle: i64, errno: Errno) {
        self.shared.failures.store(1, Relaxed);
        let slot = slot::live(handle).map(|(_, slot)| slot);
        if slot.is_some_and(|slot| slot.has(FAILED)) {
            // A watcher that fails again before that is reported fails once.
            return;
        }
        // There is room for some always.
        let is_listed = self.failures.try_push_back((handle, errno)).is_ok();
        if let Some(slot) = slot {
            slot.set(FAILED);
            self.failures_more |= !is_listed;
        }
    }

    /// Finds the failures for which there was no room, as far as there is
    /// some now.
    #[cold]
    pub fn list_failures(&mut self) {
        self.failures_more = false;
        // Those that are marked then are not listed.
        self.mark_failures(false);
        for (index, slot) in self.slots.all().filter(|(_, slot)| slot.has(FAILED)) {
            // What it was is not known any more, but why it is not.
            let errno = if slot.has(FD_LOST) { Errno::EBADF } else { Errno::ENOMEM };
            let handle = slot.handle(Kind::Watcher, index);
            if self.failures.try_push_back((handle, errno)).is_err() {
                self.failures_more = true;
                break;
            }
        }
        self.mark_failures(true);
    }

    /// Marks the watchers whose failures are listed, or takes the marks off.
    fn mark_failures(&self, marked: bool) {
        for (handle, _) in &self.failures {
            if let Some((_, slot)) = slot::live(*handle) {
                if marked { slot.set(FAILED) } else { slot.unset(FAILED) }
            }
        }
    }

    /// Counts a watcher among those that keep the loop alive, or not.
    #[inline]
    pub fn count_liveness(&mut self, slot: &WatcherSlot) {
        let flags = slot.flags.load(Relaxed);
        let wanted = keeps_alive(flags);
        if wanted && flags & COUNTED == 0 {
            slot.set(COUNTED);
            self.active += 1;
        } else if !wanted && flags & COUNTED != 0 {
            slot.unset(COUNTED);
            self.active -= 1;
        }
    }

    /// Reports EBADF to a watcher whose descriptor is gone, when the program
    /// enables it or changes its events.
    pub fn fail_if_fd_lost(&mut self, index: u32, slot: &WatcherSlot) {
        if slot.has(FD_LOST | ENABLED) && !slot.has(FINISHED) {
            self.fail(slot.handle(Kind::Watcher, index), Errno::EBADF);
        }
    }

    /// The time of a clock, or virtual time.
    pub fn read_clock(&self, clock: usize) -> i64 {
        self.shared.now(clock)
    }

    /// Cancels the pending record of a watcher that is not of a descriptor or a
    /// file, and is stopped or set again.
    pub fn cancel_record(&mut self, index: u32, slot: &WatcherSlot) {
        if slot.has(HAS_PENDING) {
            slot.unset(HAS_PENDING);
            self.pending.remove(slot.pending_index(), slot.handle(Kind::Watcher, index));
        }
    }
}

/// A new set, and in it what its waiters are woken by.
pub(in crate::event_loop) fn woken_by(eventfd: &Fd) -> std::result::Result<Fd, Errno> {
    let fresh = epoll::create()?;
    wakeup::register(fresh.raw(), eventfd.raw(), INTERNAL)?;
    Ok(fresh)
}
