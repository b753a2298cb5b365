//! The event loop.
//!
//! What other threads see of a loop: `registry` has all of them, `shared` is
//! the part of one that any thread may use, `lifecycle` is how it begins and
//! ends, `ownership` says which thread may touch its state, `wake_state` is how
//! it is woken, with the `pending_stack` of async watchers and `node_list` for
//! posted calls, and `pending_work` what it has to do before the next callback;
//! `resolve` is the way from a handle to it, `api` has the entry points,
//! `posts` is how calls are posted, `command` is what other threads queue for
//! the thread that runs the loop, and `fast_path` the short way of frequent
//! calls.
//!
//! What they do not see is the `state`, with its watchers' `slot`s in
//! `slot_alloc`. `run` is the state machine, on a thread that has the
//! `run_guard`; `fd_rounds` its shortest round, `slow_wait` waits that take
//! more than one system call; `wakeup` deals with what a wait has found,
//! `dispatch` brings events to their watchers, unless they are `pending`.
//! `watcher` is what can be done with all of those; `io`, `not_pollable`,
//! `timers` and their `clocks`, `fd_source`, `process`, `pressure`, `signals`
//! with their `sinks`, `asyncs` and `files` are the sources; `list` has
//! watchers that are called in turn; `payload` is what is longer than an event,
//! `check_fds` finds descriptors that were closed too early, `own_fds` says
//! which are not the program's. `telemetry` shows what a loop does, `inspect`
//! what it has, and `inspect_text` writes that as text.

mod lifecycle;
mod node_list;
mod ownership;
mod pending_stack;
mod pending_work;
mod slot_word;
mod wake_state;

#[cfg(all(test, loom))]
#[path = "telemetry/activity.rs"]
mod activity;
#[cfg(not(loom))]
mod asyncs;
#[cfg(not(loom))]
mod busy_poll;
#[cfg(all(test, loom))]
#[path = "telemetry/cells.rs"]
mod cells;
#[cfg(not(loom))]
mod check_fds;
#[cfg(not(loom))]
mod clocks;
#[cfg(not(loom))]
mod coalescing;
#[cfg(not(loom))]
mod command;
#[cfg(not(loom))]
mod destroys;
#[cfg(not(loom))]
mod dispatch;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
pub(crate) mod fast_path;
#[cfg(not(loom))]
mod fd_rounds;
#[cfg(not(loom))]
mod fd_source;
#[cfg(not(loom))]
mod files;
#[cfg(not(loom))]
mod flags;
#[cfg(not(loom))]
mod inspect;
#[cfg(not(loom))]
mod inspect_text;
#[cfg(not(loom))]
mod io;
#[cfg(not(loom))]
mod list;
#[cfg(not(loom))]
mod not_pollable;
#[cfg(not(loom))]
mod own_fds;
#[cfg(not(loom))]
mod payload;
#[cfg(not(loom))]
mod pending;
#[cfg(not(loom))]
mod pending_queue;
#[cfg(not(loom))]
mod posts;
#[cfg(not(loom))]
mod pressure;
#[cfg(not(loom))]
mod process;
#[cfg(not(loom))]
mod registry;
#[cfg(not(loom))]
mod resolve;
#[cfg(not(loom))]
mod revive;
#[cfg(not(loom))]
mod run;
#[cfg(not(loom))]
mod run_guard;
#[cfg(not(loom))]
mod shared;
#[cfg(not(loom))]
mod signals;
#[cfg(not(loom))]
mod sinks;
#[cfg(not(loom))]
mod slot;
#[cfg(not(loom))]
mod slot_alloc;
#[cfg(not(loom))]
mod slow_wait;
#[cfg(not(loom))]
mod state;
#[cfg(not(loom))]
mod telemetry;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(not(loom))]
mod timers;
#[cfg(all(test, loom))]
#[path = "telemetry/trace_ring.rs"]
mod trace_ring;
#[cfg(not(loom))]
mod wakeup;
#[cfg(not(loom))]
mod watcher;

#[cfg(not(loom))]
mod api;
#[cfg(not(loom))]
pub(crate) use api::*;
