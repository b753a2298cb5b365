//! Changes of files: what one inotify reports to a loop's file watchers.
//!
//! inotify has one watch for a file, however often it is asked for, and a
//! watch of a directory says nothing about what lies deeper. So a watch has a
//! list of subscribers, each of which gets only its own bits, and a watcher of
//! a tree has a node for each directory (`tree`), which come and go as the
//! events say (`events`). What inotify says is kept in order, and the halves of
//! renames joined, by `queue`. A watcher may follow its path (`follow`). The
//! watchers' records are the loop's matter.

mod backlog;
mod events;
mod follow;
mod moves;
mod node;
mod open;
mod overflow;
mod path;
mod places;
mod queue;
mod route;
mod scan;
mod state;
mod subscribers;
mod tree;
mod types;
mod verify;
mod watchers;
mod watches;
mod work;

pub(crate) use self::state::{Files, PendingTree};
pub(crate) use self::types::*;
