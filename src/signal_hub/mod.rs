//! Signals that are counted for loops and kqueues, while the program's own
//! dispositions go on working.
//!
//! Each signal has a list of subscribers. A signal is seen in one of two ways:
//! by a handler of the library's over the program's disposition, or by a
//! thread that reads a signalfd of blocked signals. However it was seen, all
//! subscribers of the signal count it.

mod counted;
mod disposition;
mod latest;
mod list;
mod ring;

#[cfg(not(loom))]
mod handler;
#[cfg(not(loom))]
mod hub;
#[cfg(not(loom))]
mod pending;
#[cfg(not(loom))]
mod reading;
#[cfg(not(loom))]
mod replace;
#[cfg(not(loom))]
mod siginfo;
#[cfg(not(loom))]
mod subscriber;
#[cfg(not(loom))]
mod subscription;

#[cfg(not(loom))]
pub use self::siginfo::Siginfo;
#[cfg(not(loom))]
pub(crate) use self::{
    handler::{Handler, NoDefault},
    hub::check,
    pending::take_pending,
    replace::sigaction,
    subscriber::{QUEUED, SignalSink, is_real_time},
    subscription::{Position, Subscription, subscribe},
};
