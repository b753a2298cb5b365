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

/// One ready descriptor, as the waits of all interfaces report it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The descriptor, as it was registered.
    pub fd: i32,
    /// What it is ready for: the bits of the interface that reports it.
    pub events: u32,
    /// The data of its registration.
    pub data: u64,
}
