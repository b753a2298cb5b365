//! Kqueue: BSD's queues of events, on Linux.
//!
//! A queue's descriptor is an epoll, which holds another one with everything
//! that the queue watches (`epoll_set`). From the bottom up:
//!
//! * `knote`, `registration`, `store`: what is watched, as data;
//! * `source`: what notifies the queue of what no epoll watches for it;
//! * `filter`: whether a knote has an event, decided on the store and sources;
//! * `state`, `refresh`, `vnode_watch`, `vnode_events`, `rebuild`: what the
//!   kernel watches for the knotes;
//! * `change`, `deliver`: a change comes in, an event goes out;
//! * `queue`, `collect`, `fork`: the lock, waiting, and forked children;
//! * `fd_registry`, `object`, `readiness`: what the rest of the library has.

mod change;
mod collect;
mod deliver;
mod epoll_set;
mod event;
mod fd_registry;
mod filter;
mod fork;
mod knote;
mod needs;
mod object;
mod queue;
mod queue_waiters;
mod readiness;
mod rebuild;
mod refresh;
mod registration;
mod slab;
mod snapshot;
mod source;
mod state;
mod store;
mod vnode_events;
mod vnode_watch;

pub(crate) use collect::{By, Collect};
pub(crate) use event::*;
pub(crate) use object::{Kqueue, Use, watchable};
pub(crate) use queue::Nature;
pub(crate) use readiness::ReadinessQueue;
pub(crate) use source::aio::{Operation, Request};

#[cfg(test)]
mod tests;
