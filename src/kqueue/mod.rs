//! Kqueue: BSD's queues of events, on Linux.
//!
//! A queue's descriptor is an epoll, which holds another one with everything
//! that the queue watches (`set`). What is watched for whom is kept here:
//! knotes (`knote`), by filter (`filter`), those of one descriptor together
//! (`registration`). An event of the kernel's, or of a knote's own, is a
//! reason to ask the knote's filter, which says what to deliver (`deliver`).

mod aio;
mod control;
mod core;
mod deliver;
mod event;
mod filter;
mod knote;
mod registration;
mod set;
mod slab;
mod timers;

pub(crate) use aio::{Operation, Request};
pub(crate) use control::OnSignal;
pub(crate) use event::*;

use self::core::Core;
use crate::errno::Result;
use crate::sync::{AtomicBool, ForkMutex, Ordering};
use crate::sys::fd::Fd;
use crate::sys::{epoll, eventfd, fork};
use crate::table::{self, Kind, Object, Shared};
use std::os::fd::RawFd;

/// A queue.
pub(crate) struct Queue {
    public: Fd,
    core: ForkMutex<Core>,
    closed: AtomicBool,
    epoch: fork::Epoch,
}

impl Queue {
    pub fn create() -> Result<Self> {
        let public = epoll::create()?;
        let core = Core::new()?;
        epoll::add(public.raw(), core.set.main(), set::IN, 0)?;
        Ok(Self {
            public,
            core: ForkMutex::new(core),
            closed: AtomicBool::new(false),
            epoch: table::epoch(),
        })
    }
}

impl Shared for Queue {
    fn closing(&self) {
        // Release, and Acquire in `lock`: who is woken sees it.
        self.closed.store(true, Ordering::Release);
        let core = self.core.lock();
        if let Ok(alarm) = eventfd::always_readable(self.epoch) {
            core.set.alarm(alarm);
        }
    }

    fn descriptor(&self) -> RawFd {
        self.public.raw()
    }

    fn survives_fork(&self) -> bool {
        false
    }

    fn abandon(&self) {
        self.public.abandon();
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let mut core = self.core.lock();
        if fork::current() == self.epoch {
            core.end_operations();
        } else {
            // The parent's go on.
            std::mem::forget(core.aio.take());
        }
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for Queue {
    const KIND: Kind = Kind::Kqueue;
}
