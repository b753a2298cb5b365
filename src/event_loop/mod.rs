//! The event loop.
//!
//! From the bottom up; the suite `layers` fails where a file uses what stands
//! above it.
//!
//! * `flags`, `event`, `payload`, `process_end`, `fd_source`, `timer_setting`,
//!   `clock_ids`, `own_words`, `node_list`: what the parts of a loop exchange.
//! * `telemetry`: statistics, traces and watchdogs. It is handed times, and
//!   knows no loop.
//! * `shared`, the part of a loop that any thread may use: with `ownership`
//!   (which thread may touch its state), `wake_state` and its `pending_stack`
//!   (how it is woken), `pending_work` (what comes before the next callback),
//!   `lifecycle` (how loops begin and end), `command` (what other threads queue),
//!   `own_fds`, `file_state` and `sinks` (what any thread that adds a watcher of
//!   files or signals uses). It knows nothing of the state.
//! * `slot`: the slots of watchers, and what handles lead to.
//! * `source`: the sources of events; each has its own data, and is handed a
//!   `SourceCtx`.
//! * `state`: the loop itself, which one thread may touch at a time.
//! * `watcher`: commands and what they ask for, changes and closing. `pending` has
//!   what is not delivered at once, `destroys` notifications of closed watchers;
//!   `registrations` changes what the kernel watches where other threads come
//!   into it, `adding` adds watchers, `check_fds` finds descriptors that were
//!   closed too early, `probing` is what telemetry needs of the state.
//! * `resolve` and `access`: the way from a handle to a loop and into its state;
//!   `registry` has all loops, `notify` what is called when one is closed,
//!   `revive` makes a child's copy a loop again.
//! * `run`, the state machine, on a thread that has the `run_guard`; `wakeup` sorts
//!   what a wait has found, `dispatch` calls callbacks of descriptors and timers,
//!   `collect` takes what the other sources have; `fd_rounds` is the shortest
//!   round, `slow_wait` has waits of more than one system call, `instrumented` the
//!   ways of a loop that is observed.
//! * `api`: the entry points.

mod lifecycle;
mod node_list;
mod ownership;
mod pending_stack;
mod pending_work;
mod slot;
mod wake_state;

#[cfg(not(loom))]
mod access;
#[cfg(all(test, loom))]
#[path = "telemetry/activity.rs"]
mod activity;
#[cfg(not(loom))]
mod adding;
#[cfg(all(test, loom))]
#[path = "telemetry/cells.rs"]
mod cells;
#[cfg(not(loom))]
mod check_fds;
#[cfg(not(loom))]
mod clock_ids;
#[cfg(not(loom))]
mod collect;
#[cfg(not(loom))]
mod command;
#[cfg(not(loom))]
mod destroys;
#[cfg(not(loom))]
mod dispatch;
#[cfg(not(loom))]
mod event;
#[cfg(not(loom))]
mod fd_rounds;
#[cfg(not(loom))]
mod fd_source;
#[cfg(not(loom))]
mod file_state;
#[cfg(not(loom))]
mod flags;
#[cfg(not(loom))]
mod instrumented;
#[cfg(not(loom))]
mod notify;
#[cfg(not(loom))]
mod own_fds;
#[cfg(not(loom))]
mod own_words;
#[cfg(not(loom))]
mod payload;
#[cfg(not(loom))]
mod pending;
#[cfg(not(loom))]
mod probing;
#[cfg(not(loom))]
mod process_end;
#[cfg(not(loom))]
mod registrations;
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
mod sinks;
#[cfg(not(loom))]
mod slow_wait;
#[cfg(not(loom))]
mod source;
#[cfg(not(loom))]
mod state;
#[cfg(not(loom))]
mod telemetry;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
#[cfg(not(loom))]
mod timer_setting;
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
