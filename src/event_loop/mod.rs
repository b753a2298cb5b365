//! The event loop.
//!
//! What other threads see of a loop: `registry` has all of them, `desk` is one,
//! `place` is how it begins and ends, `lease` says whose it is, `mailbox` is
//! how it is woken, with the `sent_stack` of async watchers, and
//! `pending_work` what it is asked to do before a callback; `named` is the way
//! from a handle to it, `calls` what is asked of watchers, `posts` how calls are
//! posted, `command` how that
//! is left for the thread that runs the loop, and `quick` the short way.
//!
//! What they do not see is the `core`, with its watchers' `record`s in `slots`.
//! `run` is the state machine, on a thread that is `running` it; `quiet` its
//! shortest round, `slow_wait` waits that take more than one system call; `found`
//! sorts out what a wait has found, `dispatch` brings events to their watchers,
//! unless they are `held`. `watcher` is what can be
//! done with all of those; `io`, `always`, `timers` and their `clocks`,
//! `objects`, `process`, `pressure`, `signals` with their `sinks`, `asyncs` and
//! `files` are the sources; `list` has watchers that are called in turn;
//! `details` is what is longer than an event, `check_fds` finds descriptors that
//! were closed too early, `own_fds` says which are
//! not the program's. `inside` is for who wants to see what a loop does,
//! `inspect` what it has, and `inspect_text` says that in words.

mod lease;
mod letters;
mod mailbox;
mod pending_work;
mod place;
mod record_word;
mod sent_stack;

#[cfg(not(loom))]
mod always;
#[cfg(not(loom))]
mod asyncs;
#[cfg(not(loom))]
mod busy_poll;
#[cfg(not(loom))]
mod calls;
#[cfg(all(test, loom))]
#[path = "inside/cells.rs"]
mod cells;
#[cfg(not(loom))]
mod check_fds;
#[cfg(not(loom))]
mod clocks;
mod coalescing;
#[cfg(not(loom))]
mod command;
#[cfg(not(loom))]
mod core;
#[cfg(not(loom))]
mod desk;
#[cfg(not(loom))]
mod destroys;
#[cfg(not(loom))]
mod details;
#[cfg(not(loom))]
mod dispatch;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod files;
#[cfg(not(loom))]
mod flags;
#[cfg(not(loom))]
mod found;
#[cfg(not(loom))]
mod held;
#[cfg(not(loom))]
mod held_queue;
#[cfg(not(loom))]
mod inside;
#[cfg(not(loom))]
mod inspect;
#[cfg(not(loom))]
mod inspect_text;
#[cfg(not(loom))]
mod io;
#[cfg(not(loom))]
mod list;
#[cfg(not(loom))]
mod named;
#[cfg(not(loom))]
mod objects;
#[cfg(not(loom))]
mod own_fds;
#[cfg(not(loom))]
mod posts;
#[cfg(not(loom))]
mod pressure;
#[cfg(not(loom))]
mod process;
#[cfg(all(test, loom))]
#[path = "inside/published.rs"]
mod published;
#[cfg(not(loom))]
pub(crate) mod quick;
#[cfg(not(loom))]
mod quiet;
#[cfg(not(loom))]
mod record;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod revive;
#[cfg(not(loom))]
mod run;
#[cfg(not(loom))]
mod running;
#[cfg(not(loom))]
mod signals;
#[cfg(not(loom))]
mod sinks;
#[cfg(not(loom))]
mod slots;
#[cfg(not(loom))]
mod slow_wait;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(not(loom))]
mod timers;
#[cfg(all(test, loom))]
#[path = "inside/trace_ring.rs"]
mod trace_ring;
#[cfg(not(loom))]
mod watcher;

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
pub(crate) use api::*;
