//! Timer file descriptors that a loop watches.
//!
//! Closing one removes it from the kernel's set without a word. So the loop
//! keeps it from being freed, and is rung when it is closed.

use super::core::Core;
use super::event::Event;
use super::flags::ERROR;
use crate::errno::{Errno, Result};
use crate::table::{self, Kind, Pinned};
use crate::timerfd::Timer;
use std::os::fd::RawFd;

/// A timer that is watched; not freed, and heard of, while this exists.
pub(super) struct Watched {
    handle: i64,
    timer: Pinned<Timer>,
    eventfd: RawFd,
}

impl Watched {
    pub fn new(handle: i64, eventfd: RawFd) -> Result<Self> {
        let timer = table::pin::<Timer>(handle)?;
        timer.watch(eventfd)?;
        Ok(Self { handle, timer, eventfd })
    }

    fn is_closed(&self) -> bool {
        table::kind_of_quietly(self.handle).is_none()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.timer.unwatch(self.eventfd);
    }
}

impl Core {
    /// Keeps a watched timer with its watcher.
    pub fn keep_tfd(&mut self, index: u32, watched: Watched) -> Result<()> {
        if self.tfds.try_reserve(1).is_err() {
            return Err(Errno::ENOMEM.into());
        }
        self.tfds.insert(index, watched);
        Ok(())
    }

    /// Tells the watchers whose timers were closed. The loop was rung.
    pub fn look_at_tfds(&mut self) {
        let closed = |(index, watched): (&u32, &Watched)| watched.is_closed().then_some(*index);
        while let Some(index) = self.tfds.iter().find_map(closed) {
            if let Some(record) = super::record::get(index) {
                self.io_gone(index, record);
                self.fail(record.handle(Kind::Watcher, index), Errno::ESTALE);
            }
            // Its descriptor is closed here.
            self.tfds.remove(&index);
        }
    }

    /// In a forked child, with another eventfd.
    pub fn revive_tfds(&mut self) {
        let eventfd = self.eventfd();
        for watched in self.tfds.values_mut() {
            if let Ok(again) = Watched::new(watched.handle, eventfd) {
                // The one before was forgotten in the fork, as all pins were.
                std::mem::forget(std::mem::replace(watched, again));
            }
        }
        self.look_at_tfds();
    }
}

/// Reads a timer; false: there is nothing to tell.
pub(super) fn read(core: &mut Core, index: u32, event: &mut Event) -> bool {
    let Some(watched) = core.tfds.get(&index) else { return false };
    match watched.timer.wait(0) {
        Ok(0) => return false,
        Ok(expirations) => event.count = expirations,
        Err(error) if error.errno == Errno::ESTALE => {
            core.look_at_tfds();
            return false;
        }
        Err(error) => {
            event.events = ERROR;
            event.result = error.errno.negated();
        }
    }
    true
}
