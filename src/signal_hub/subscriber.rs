//! A subscriber of a signal: a loop or a kqueue, for all that it has on that
//! signal.
//!
//! Counts only grow; the owner remembers up to where it has delivered, for
//! each watcher or knote. So any number of them cost a handler no more than
//! one.

use super::counted::Counted;
use super::latest::Latest;
use super::ring::SiginfoRing;
use super::siginfo::Siginfo;
use crate::handle::try_box;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::ffi::c_int;

/// How many real-time signals wait for their owner.
pub(crate) const QUEUED: usize = 512;

/// The sink that wakes an owner: a number of its own is passed to the function.
/// It runs in signal handlers, for processes that the subscription belongs to.
#[derive(Clone, Copy)]
pub(crate) struct SignalSink {
    pub wake: fn(i64),
    /// Below 0: it is not called.
    pub number: i64,
}

/// What came with the signals.
pub(super) enum SiginfoStore {
    NotKept,
    /// Standard signals are counted, and the last one's is kept.
    Last(Box<Latest<Siginfo>>),
    /// Real-time signals are one event each.
    Each(SiginfoRing<Siginfo>),
}

pub(super) struct Subscriber {
    pub counted: Counted,
    /// Real-time signals that there was no room for.
    pub lost: AtomicU64,
    wake: fn(i64),
    pub siginfo: SiginfoStore,
}

/// Whether each of these is an event of its own.
pub(crate) fn is_real_time(number: c_int) -> bool {
    number >= 32
}

impl SiginfoStore {
    fn new(number: c_int) -> Option<Self> {
        if is_real_time(number) {
            Some(Self::Each(SiginfoRing::new(QUEUED)?))
        } else {
            try_box(Latest::new()).map(Self::Last)
        }
    }
}

impl Subscriber {
    pub fn new(number: c_int, wakeup: SignalSink, keeps_siginfo: bool) -> Option<Self> {
        let siginfo =
            if keeps_siginfo { SiginfoStore::new(number)? } else { SiginfoStore::NotKept };
        Some(Self {
            counted: Counted::new(wakeup.number),
            lost: AtomicU64::new(0),
            wake: wakeup.wake,
            siginfo,
        })
    }

    /// A signal came, says a handler, or a thread that read a signalfd; the
    /// owner with the number `awake` needs no waking.
    pub fn notify(&self, info: Option<&Siginfo>, awake: i64) {
        match (&self.siginfo, info) {
            (SiginfoStore::Last(last), Some(info)) => last.put(info),
            (SiginfoStore::Each(all), Some(info)) if !all.put(info) => {
                self.lost.fetch_add(1, Relaxed);
            }
            _ => {}
        }
        if let Some(number) = self.counted.add().filter(|number| *number != awake) {
            (self.wake)(number);
        }
    }
}
