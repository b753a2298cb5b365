//! The event loop.
//!
//! `desk` is what other threads see of a loop, and how it is handed from
//! thread to thread; `core` is what they do not see. `record` holds watchers,
//! `run` is the state machine, `dispatch` brings events to their watchers;
//! `io` and `timers` are the two large kinds of sources, `watcher` is what
//! can be done with all of them, and `command` how others ask for it.

mod lease;
mod mailbox;

#[cfg(not(loom))]
mod asyncs;
#[cfg(not(loom))]
mod calls;
#[cfg(not(loom))]
mod clocks;
#[cfg(not(loom))]
mod command;
#[cfg(not(loom))]
mod core;
#[cfg(not(loom))]
mod desk;
#[cfg(not(loom))]
mod dispatch;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod flags;
#[cfg(not(loom))]
mod held;
#[cfg(not(loom))]
mod io;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
pub(crate) mod quick;
#[cfg(not(loom))]
mod quiet;
#[cfg(not(loom))]
mod record;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod run;
#[cfg(not(loom))]
mod running;
#[cfg(not(loom))]
mod slots;
#[cfg(not(loom))]
mod tfd;
#[cfg(not(loom))]
mod timers;
#[cfg(not(loom))]
mod watcher;

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
pub(crate) use api::*;
