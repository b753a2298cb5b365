//! The process-wide handle table: every object of the C API is in it.
//!
//! Lookups take no lock. A call pins the object it works on, for as long as
//! it needs it, waits included. Closing marks the object, and wakes the threads
//! that wait in it; the call that gives up the last pin frees it.

mod bits;
mod segments;
mod slot_state;
mod slots;

#[cfg(not(loom))]
mod global;
#[cfg(not(loom))]
pub(crate) use bits::{Handle, LAST_GENERATION, MAX_SLOTS, stale};
#[cfg(not(loom))]
pub(crate) use global::*;
