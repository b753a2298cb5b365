//! Objects of the library that a loop watches: timer file descriptors and
//! kqueues.
//!
//! Closing one removes it from the kernel's set without a word. So the loop
//! keeps it from being freed, and is rung when it is closed.

use super::core::Core;
use super::event::Event;
use super::flags::ERROR;
use crate::errno::{Errno, Result};
use crate::table::{self, Kind};
use crate::waiters::Watchable;
use std::os::fd::RawFd;

/// An object to watch.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    pub handle: i64,
    /// Its descriptor.
    pub fd: RawFd,
    /// Keeps it from being freed.
    pub pin: fn(i64) -> Result<Box<dyn Watchable>>,
}

/// An object that is watched; not freed, and heard of, while this exists.
pub(super) struct Watched {
    watch: Watch,
    object: Box<dyn Watchable>,
    eventfd: RawFd,
}

impl Watched {
    pub fn new(watch: Watch, eventfd: RawFd) -> Result<Self> {
        let object = (watch.pin)(watch.handle)?;
        object.watch(eventfd)?;
        Ok(Self { watch, object, eventfd })
    }

    fn is_closed(&self) -> bool {
        table::kind_of_quietly(self.watch.handle).is_none()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.object.unwatch(self.eventfd);
    }
}

impl Core {
    /// Keeps a watched object with its watcher.
    pub fn keep_object(&mut self, index: u32, watched: Watched) -> Result<()> {
        if self.objects.try_reserve(1).is_err() {
            return Err(Errno::ENOMEM.into());
        }
        self.objects.insert(index, watched);
        Ok(())
    }

    /// Tells the watchers whose objects were closed. The loop was rung.
    pub fn look_at_objects(&mut self) {
        let closed = |(index, watched): (&u32, &Watched)| watched.is_closed().then_some(*index);
        while let Some(index) = self.objects.iter().find_map(closed) {
            if let Some(record) = super::record::get(index) {
                self.io_gone(index, record);
                self.fail(record.handle(Kind::Watcher, index), Errno::ESTALE);
            }
            // Its descriptor is closed here.
            self.objects.remove(&index);
        }
    }

    /// In a forked child, with another eventfd.
    pub fn revive_objects(&mut self) {
        let eventfd = self.eventfd();
        for watched in self.objects.values_mut() {
            if let Ok(again) = Watched::new(watched.watch, eventfd) {
                // The one before was forgotten in the fork, as all pins were.
                std::mem::forget(std::mem::replace(watched, again));
            }
        }
        self.look_at_objects();
    }
}

/// Asks an object what happened; false: there is nothing to tell.
pub(super) fn ask(core: &mut Core, index: u32, event: &mut Event) -> bool {
    let Some(watched) = core.objects.get(&index) else { return false };
    match watched.object.take() {
        Ok(0) => return false,
        Ok(count) => event.count = count,
        Err(error) if error.errno == Errno::ESTALE => {
            core.look_at_objects();
            return false;
        }
        Err(error) => {
            event.events = ERROR;
            event.result = error.errno.negated();
        }
    }
    true
}
