//! A queue's state.

use super::epoll_set::EpollSet;
use super::queue_waiters::QueueWaiters;
use super::source::Sources;
use super::store::Store;
use crate::wait;
use std::os::fd::RawFd;

/// Everything that is under a queue's lock.
pub(super) struct QueueState {
    pub store: Store,
    pub sources: Sources,
    /// See [`Nature`](super::Nature).
    pub trusts_fds: bool,
    /// The number of the collecting call, counted each time that one has the
    /// lock.
    pub call_seq: u32,
    /// The list of those with events had the last call for itself: the next
    /// one asks the kernel first.
    pub kernel_first: bool,
    /// The threads that wait in its set, or in a set before it.
    pub waiters: QueueWaiters<EpollSet>,
    /// Reported events of registrations that do not exist any more.
    pub stale_events: usize,
    /// How many registrations had been removed when the set was made.
    pub removed_before: u64,
    /// In a forked child: some of what it had of the kernel's is not made
    /// again yet.
    pub is_reviving: bool,
}

impl QueueState {
    #[inline]
    pub fn new(sources: Sources, trusts_fds: bool) -> Self {
        Self {
            store: Store::new(),
            sources,
            trusts_fds,
            call_seq: 0,
            kernel_first: false,
            waiters: QueueWaiters::new(),
            stale_events: 0,
            removed_before: 0,
            is_reviving: false,
        }
    }

    /// A number for a collecting call, from now until it gives up the lock.
    #[inline]
    pub fn next_call_seq(&mut self) -> u32 {
        self.call_seq = self.call_seq.wrapping_add(1);
        if self.call_seq == 0 {
            // The numbers have all been used: no knote is to have one of those
            // that come again.
            self.store.forget_calls();
            self.call_seq = 1;
        }
        self.call_seq
    }

    /// Whether a descriptor is one of those that the queue is made of, and
    /// still is that.
    pub fn is_own(&self, fd: RawFd) -> bool {
        self.sources.is_own(fd)
            || self.waiters.retired_sets().any(|set| set.is_own(fd))
            || wait::is_own(fd)
    }
}
