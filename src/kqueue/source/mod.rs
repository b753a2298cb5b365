//! What notifies a queue of what no epoll watches for it: each source has its
//! own data and descriptors, and finds out which knotes there is news for.
//!
//! A source uses the store and the epoll set, and no filter. Where only the
//! filter can say what the news means, it returns the news.

pub(super) mod aio;
pub(super) mod mount;
pub(super) mod netdev;
pub(super) mod process;
pub(super) mod signal;
pub(super) mod timer;
pub(super) mod vnode;

use self::aio::Operations;
use self::mount::Mounts;
use self::netdev::NetlinkWatch;
use self::process::Processes;
use self::signal::QueueSignals;
use self::timer::QueueTimers;
use self::vnode::VnodeWatches;
use super::epoll_set::EpollSet;
use super::store::Store;
use crate::errno::Errno;
use std::os::fd::RawFd;

pub(super) struct Sources {
    /// Before the set, which handlers of signals use.
    pub signals: QueueSignals,
    pub set: EpollSet,
    pub timers: QueueTimers,
    pub aio: Operations,
    pub vnode: VnodeWatches,
    pub mounts: Mounts,
    pub netlink: NetlinkWatch,
    pub processes: Processes,
    /// The knotes of the filter EMPTY that the kernel does not notify of
    /// everything.
    pub empties: Vec<u32>,
    /// How many events the queue behind a descriptor has, if it is one.
    pub events_of_queue: EventsOfQueue,
}

pub(super) type EventsOfQueue = fn(RawFd) -> Option<i64>;

impl Sources {
    #[inline]
    pub fn new(set: EpollSet, events_of_queue: EventsOfQueue) -> Self {
        Self {
            signals: QueueSignals::new(),
            set,
            timers: QueueTimers::new(),
            aio: Operations::new(),
            vnode: VnodeWatches::new(),
            mounts: Mounts::new(),
            netlink: NetlinkWatch::new(),
            processes: Processes::new(),
            empties: Vec::new(),
            events_of_queue,
        }
    }

    /// Whether a descriptor is one of theirs, and still is that. (Pidfds, of
    /// which there may be many, are found out by the kernel: see `set_mask`.)
    pub fn is_own(&self, fd: RawFd) -> bool {
        let sources = self.vnode.fd.iter().chain(self.mounts.fds()).chain(&self.netlink.fd);
        let sources = sources.chain(self.signals.fds()).chain(&self.processes.connector);
        sources.chain(self.timers.fds()).any(|own| own.is(fd))
            || self.set.is_own(fd)
            || self.aio.is_own(fd)
    }

    /// Has another set watch their descriptors.
    pub fn add_to(&self, store: &Store, fresh: &EpollSet) -> Result<(), Errno> {
        self.timers.add_to(fresh)?;
        self.signals.add_to(fresh)?;
        self.processes.add_to(store, fresh)?;
        self.aio.add_to(fresh)?;
        if let Some(inotify) = &self.vnode.fd {
            fresh.add_vnode_watches(inotify.raw())?;
        }
        if let Some(mounts) = self.mounts.fd() {
            fresh.add_mounts(mounts.raw())?;
        }
        match &self.netlink.fd {
            Some(links) => fresh.add_netlink(links.raw()),
            None => Ok(()),
        }
    }

    /// Has handlers and threads wake this set from now on; none is waking the
    /// one before any more.
    pub fn aim_wakeups(&self) {
        self.signals.aim_at(&self.set);
        self.aio.aim_at(&self.set);
    }
}
