//! What a loop watches besides the program's descriptors: objects of the
//! library (timer file descriptors and kqueues), and descriptors that the
//! library has made for one watcher.

use super::event::Event;
use super::payload::EventPayload;
use crate::errno::{Errno, Result};
use std::os::fd::RawFd;

/// What a watcher watches. Dropped when the watcher is closed, after its
/// descriptor was taken out of the loop's epoll.
pub(crate) trait FdSource: Send {
    fn fd(&self) -> RawFd;

    /// What the program calls it: a handle, or a process id. Of memory
    /// pressure: what `pressure` can describe.
    fn subject(&self) -> i64 {
        0
    }

    /// What the descriptor is registered for.
    fn events(&self) -> u32 {
        libc::EPOLLIN as u32
    }

    /// It is about to be watched by this loop.
    fn begin(&mut self, _loop: i64) -> Result<()> {
        Ok(())
    }

    /// What happened, now that the descriptor is ready for that.
    fn poll(&mut self, ready: u32, event: &mut Event) -> Readiness;

    /// Of a loop whose descriptor others poll: what it became ready for, if
    /// that may have been taken from the loop.
    fn was_consumed(&mut self) -> Option<u32> {
        None
    }

    /// Called before its last event is delivered, and may change that; only if
    /// `poll` asked for it, see [`Readiness::Final`]. Returns the payload, if
    /// that has changed, too.
    fn deliver(&mut self, _event: &mut Event) -> Option<EventPayload> {
        None
    }

    /// Whether the program has closed the object. The close has woken the loop.
    fn is_closed(&self) -> bool {
        false
    }

    /// In a forked child. After an error that is a shortage this can be called
    /// again. Any other error is reported to the watcher, and this is dropped:
    /// it must not close its fd then, which may be another file by now.
    fn revive(&mut self) -> std::result::Result<(), Errno>;

    /// Of a loop whose memory has to stay: gives back its descriptor.
    fn abandon(&self);
}

/// Result of polling a source whose descriptor was ready.
pub(crate) enum Readiness {
    /// There is no event.
    NotReady,
    /// The event is to be delivered.
    Ready,
    /// The event is to be delivered, and is the last one: the descriptor is not
    /// needed any more. With the payload, for which an event has no room; and
    /// whether `deliver` is to be called when the event is delivered.
    Final(EventPayload, bool),
    /// What is watched is gone: this error is reported to the watcher, and the
    /// loop watches it no more.
    Lost(Errno),
}

/// What a watcher watches, and which watcher.
pub(super) struct AddedSource {
    pub index: u32,
    pub fd_source: Box<dyn FdSource>,
}
