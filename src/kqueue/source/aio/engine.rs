//! Reading, writing and syncing in the background: by io_uring, or by threads
//! where there is none.
//!
//! What is in flight may be using the caller's memory: it is waited for, at
//! the latest when the queue goes.

use super::super::super::epoll_set::EpollSet;
use super::request::Request;
use super::ring::AioRing;
use super::threads::WorkerPool;
use crate::errno::{Errno, Result, fail};
use crate::handle::try_box;
use crate::sys::fd::Fd;
use crate::sys::kept::Identity;
use std::os::fd::RawFd;

/// How many operations of a queue can be in flight.
const MOST: usize = 4096;

/// What does a queue's operations.
pub(super) struct Aio {
    engine: AioEngine,
    in_flight: usize,
}

enum AioEngine {
    AioRing(Box<AioRing>),
    WorkerPool(WorkerPool),
}

impl Aio {
    pub fn new() -> Result<Self> {
        let engine = match AioRing::new(MOST) {
            Ok(ring) => match try_box(ring) {
                Some(ring) => AioEngine::AioRing(ring),
                None => fail!(ENOMEM, "no memory for a ring"),
            },
            // Too many descriptors will not become fewer by doing without.
            Err(errno @ (Errno::EMFILE | Errno::ENFILE)) => return Err(errno.into()),
            // None in this kernel, or not for this process.
            Err(_) => AioEngine::WorkerPool(WorkerPool::new()?),
        };
        Ok(Self { engine, in_flight: 0 })
    }

    /// Has a set report when an operation is done.
    pub fn add_to(&self, set: &EpollSet) -> std::result::Result<(), Errno> {
        match &self.engine {
            AioEngine::AioRing(ring) => set.add_aio(ring.identity().fd()),
            AioEngine::WorkerPool(pool) => set.add_aio_threads(pool.identity().fd()),
        }
    }

    /// Whether a descriptor is its own.
    pub fn is_own(&self, fd: RawFd) -> bool {
        let is_threads = matches!(&self.engine, AioEngine::WorkerPool(pool) if pool.is_own(fd));
        is_threads || self.identity().fd() == fd && self.is_intact()
    }

    /// Has threads wake this set from now on, which it was added to.
    pub fn aim_at(&self, set: &EpollSet) {
        if let AioEngine::WorkerPool(pool) = &self.engine {
            pool.aim_at(set);
        }
    }

    fn identity(&self) -> Identity {
        match &self.engine {
            AioEngine::AioRing(ring) => ring.identity(),
            AioEngine::WorkerPool(pool) => pool.identity(),
        }
    }

    /// Whether its descriptor is what it was.
    pub fn is_intact(&self) -> bool {
        self.identity().is_intact()
    }

    /// Begins one; `tag` comes back when it is done.
    pub fn submit(&mut self, request: Request, tag: u64) -> Result<()> {
        if self.in_flight == MOST {
            fail!(EAGAIN, "{} operations are in flight", MOST as i64);
        }
        match &mut self.engine {
            AioEngine::AioRing(ring) => ring.submit(request, tag)?,
            AioEngine::WorkerPool(pool) => pool.submit(request, tag)?,
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Has one end soon. It still comes back.
    pub fn cancel(&mut self, tag: u64) -> Result<()> {
        match &mut self.engine {
            AioEngine::AioRing(ring) => Ok(ring.cancel(tag)?),
            AioEngine::WorkerPool(pool) => {
                pool.cancel(tag);
                Ok(())
            }
        }
    }

    /// The next that is done: its tag, and what it returned or its negative
    /// errno.
    pub fn next_done(&mut self) -> Option<(u64, i32)> {
        let done = match &mut self.engine {
            AioEngine::AioRing(ring) => ring.next_done(),
            AioEngine::WorkerPool(pool) => pool.next_done(),
        };
        self.in_flight -= usize::from(done.is_some());
        done
    }

    /// In a forked child: it goes on for the parent, and its descriptor, if
    /// that still is one, is closed here.
    pub fn leave(self, is_open: bool) {
        if is_open {
            drop(Fd::owned(self.identity().fd()));
        }
        match self.engine {
            // The box is this process's own.
            AioEngine::AioRing(ring) => std::mem::forget(*ring),
            AioEngine::WorkerPool(pool) => std::mem::forget(pool),
        }
    }

    /// Whether operations wait to be submitted again, and no event will
    /// report when the kernel accepts them.
    pub fn is_stuck(&self) -> bool {
        matches!(&self.engine, AioEngine::AioRing(ring) if ring.is_stuck())
    }

    /// Has all that is in flight end soon, and waits for that: their tags.
    pub fn finish(&mut self, tags: impl Iterator<Item = u64>) {
        // What cannot be cancelled comes to its end by itself.
        tags.for_each(|tag| drop(self.cancel(tag)));
        match &mut self.engine {
            AioEngine::AioRing(ring) => ring.finish(self.in_flight),
            AioEngine::WorkerPool(pool) => pool.finish(),
        }
        self.in_flight = 0;
    }
}
