//! A queue that only watches whether descriptors can be read and written, for
//! callers in the library: it has no handle, and programs cannot find it by its
//! descriptor.

use super::collect::{By, Collect};
use super::event::*;
use super::fd_registry;
use super::queue::{Nature, Queue};
use crate::errno::{Errno, Result, fail};
use crate::sys::clock::Deadline;
use crate::util::alloc::TryVecCopy;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

pub(crate) struct ReadinessQueue(Box<Queue>);

/// Events that are fetched without memory being asked for.
const SMALL: usize = 16;

impl ReadinessQueue {
    pub fn new() -> Result<Self> {
        Ok(Self(Queue::create(Nature::default(), fd_registry::pending)?))
    }

    pub fn fileno(&self) -> RawFd {
        self.0.fd()
    }

    /// Watches a descriptor for both, one or none. On failure it is watched
    /// for nothing new.
    pub fn watch(&self, fd: RawFd, read: bool, write: bool) -> Result<()> {
        let added = self.set(fd, FILTER_READ, read);
        added.and_then(|()| self.set(fd, FILTER_WRITE, write))
    }

    fn set(&self, fd: RawFd, filter: i16, on: bool) -> Result<()> {
        let change = Kevent {
            ident: fd as u64,
            filter,
            flags: if on { EV_ADD } else { EV_DELETE },
            // What is a file is always ready.
            fflags: if filter == FILTER_READ { NOTE_FILE_POLL } else { 0 },
            ..Kevent::default()
        };
        // SAFETY: one entry, which stays.
        let mut changes = unsafe { Changes::new(&raw const change, 1) };
        // SAFETY: there is no room at all.
        let mut sink = unsafe { KeventSink::new(std::ptr::null_mut(), 0) };
        let options = Collect { deadline: Deadline::Now, by: By::Handle };
        match self.0.control(None, &mut changes, &mut sink, options) {
            Err(error) if !on && error.errno == Errno::ENOENT => Ok(()),
            result => result.map(drop),
        }
    }

    /// Waits, and calls `take` with each descriptor that is ready, and whether
    /// it is ready for reading (true) or for writing (false): at most
    /// `capacity` times.
    pub fn wait(
        &self,
        capacity: usize,
        deadline: Deadline,
        mut take: impl FnMut(RawFd, bool),
    ) -> Result<()> {
        let mut small = [MaybeUninit::<Kevent>::uninit(); SMALL];
        let mut large = Vec::new();
        let events = if capacity <= SMALL {
            small.get_mut(..capacity).unwrap_or_default()
        } else {
            if large.try_lengthen(capacity, MaybeUninit::uninit()).is_err() {
                fail!(ENOMEM, "no memory for {} events", capacity as i64);
            }
            large.as_mut_slice()
        };
        // SAFETY: no entries.
        let mut changes = unsafe { Changes::new(std::ptr::null(), 0) };
        // SAFETY: so much room, which stays.
        let mut sink = unsafe { KeventSink::new(events.as_mut_ptr().cast(), capacity) };
        let options = Collect { deadline, by: By::Handle };
        let filled = self.0.control(None, &mut changes, &mut sink, options)?;
        for event in events.iter().take(filled) {
            // SAFETY: that many were filled.
            let event = unsafe { event.assume_init_ref() };
            take(event.ident as RawFd, event.filter == FILTER_READ);
        }
        Ok(())
    }

    pub fn closing(&self) {
        self.0.closing();
    }

    pub fn abandon(&self) {
        self.0.abandon();
    }
}
