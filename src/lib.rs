//! libevloop: waiting on Linux through one C ABI.
//!
//! The public interface is C's and lives in `capi`; include/evloop.h is its
//! reference. docs/design.md explains how the parts work. Dependencies point
//! downward only:
//!
//! ```text
//! capi -> event_loop -> file_watch, poller, timerfd -> timer_queue, handle,
//! wait capi -> kqueue -> signal_hub, timer_queue, handle, wait -> sys -> sync,
//! errno, util
//! ```

// Tests may end where there is no memory.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, clippy::disallowed_types, clippy::disallowed_macros)
)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("libevloop is for 64-bit Linux");

// cargo-c would leave out the second library, the packages and the private
// names of the static one.
#[cfg(cargo_c)]
compile_error!("libevloop is not installed by cargo-c: run `make install` (PREFIX, DESTDIR)");

// The model of the handle table needs nothing of the system.
#[cfg(not(loom))]
mod capi;
#[cfg_attr(loom, allow(dead_code))]
mod errno;
#[cfg_attr(loom, allow(dead_code))]
mod event_loop;
#[cfg(not(loom))]
mod file_watch;
#[cfg_attr(loom, allow(dead_code))]
mod handle;
#[cfg(not(loom))]
mod hash;
#[cfg(all(test, loom))]
#[path = "hash/secret.rs"]
mod hash_secret;
#[cfg_attr(loom, allow(dead_code))]
mod in_use;
#[cfg(all(test, loom))]
#[path = "sys/kept/shared.rs"]
mod kept_shared;
#[cfg(not(loom))]
mod kqueue;
#[cfg(all(test, loom))]
#[path = "kqueue/source/aio/jobs.rs"]
mod kqueue_aio_jobs;
#[cfg(all(test, loom))]
#[path = "kqueue/queue_waiters.rs"]
mod kqueue_queue_waiters;
#[cfg(not(loom))]
mod poller;
mod signal_hub;
#[cfg_attr(loom, allow(dead_code))]
mod sync;
#[cfg(not(loom))]
mod sys;
#[cfg(not(loom))]
mod timer_queue;
#[cfg(not(loom))]
mod timerfd;
#[cfg_attr(loom, allow(dead_code))]
mod util;
#[cfg(not(loom))]
mod wait;
#[cfg(all(test, loom))]
#[path = "wait/list.rs"]
mod waiter_list;
#[cfg(not(loom))]
mod wakeup;
