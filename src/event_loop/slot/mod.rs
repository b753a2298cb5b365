//! Slots of watchers and loops: their words, the pool that they come from, the
//! slots of one loop, and lists that are linked in them.

#[cfg(not(loom))]
pub(super) mod alloc;
#[cfg(not(loom))]
pub(super) mod list;
#[cfg(not(loom))]
pub(super) mod view;
#[cfg(not(loom))]
mod watcher_slot;
pub(super) mod word;

#[cfg(not(loom))]
pub(super) use watcher_slot::*;
