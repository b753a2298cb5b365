//! Waiting for descriptors: select, poll, epoll, /dev/poll and selectors.
//!
//! Every file has the same order: the object, its registrations, its wait,
//! what the handle table asks of it.

pub(crate) mod devpoll;
pub(crate) mod epoll;
mod fdlist;
mod fdmap;
pub(crate) mod poll;
pub(crate) mod select;
pub(crate) mod selector;

use std::mem::MaybeUninit;

/// One ready descriptor, as the waits of all interfaces report it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The descriptor, as it was registered.
    pub fd: i32,
    /// What it is ready for; the bits of the interface that was asked.
    pub events: u32,
    /// What was given at its registration.
    pub data: u64,
}

/// The caller's array, filled from the front.
struct Sink<'a> {
    room: &'a mut [MaybeUninit<Ready>],
    filled: usize,
}

impl<'a> Sink<'a> {
    fn new(room: &'a mut [MaybeUninit<Ready>]) -> Self {
        Self { room, filled: 0 }
    }

    fn is_full(&self) -> bool {
        self.filled >= self.room.len()
    }

    /// The caller looks at `is_full` first.
    fn push(&mut self, ready: Ready) {
        if let Some(place) = self.room.get_mut(self.filled) {
            place.write(ready);
            self.filled += 1;
        }
    }
}
