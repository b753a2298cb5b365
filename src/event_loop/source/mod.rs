//! The sources of events: each has its own data and the operations on it.

pub(super) mod asyncs;
pub(super) mod clocks;
mod coalescing;
pub(super) mod ctx;
pub(super) mod fd_sources;
pub(super) mod files;
pub(super) mod io;
pub(super) mod io_epoll;
mod io_flush;
pub(super) mod io_slot;
mod not_pollable;
pub(super) mod object;
mod parking;
pub(super) mod pending_queue;
pub(super) mod pressure;
pub(super) mod process;
pub(super) mod signals;
pub(super) mod timer_nodes;
pub(super) mod timers;
