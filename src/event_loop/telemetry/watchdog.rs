//! Watchdogs: a thread that reports which callback is stuck.
//!
//! It needs nothing of the loop but what that has published before the
//! callback. It looks again when the callback that is running would have run
//! for too long, or after that time if none is; so it wakes up once in that
//! time. The loop wakes it only when a callback that it reported has returned.

use super::activity::{ASLEEP, Activity, ActivityCell};
use super::stats::NAME;
use crate::errno::{Result, error, fail};
use crate::sync::{AtomicI64, AtomicU32, AtomicU64, Ordering::*};
use crate::sys::park::Parker;
use crate::sys::thread::{STACK_FOR_CALLBACKS, Thread};
use crate::sys::{clock, fork};
use crate::util::try_arc::TryArc;
use std::ffi::{c_char, c_int, c_void};

/// A callback of an event loop that has run for too long.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stuck {
    /// The loop.
    pub r#loop: i64,
    /// Whose callback it is; 0 for a posted call.
    pub watcher: i64,
    /// Since when it runs, on CLOCK_MONOTONIC.
    pub since_ns: i64,
    /// For how long: until now, or in all.
    pub duration_ns: i64,
    /// The EVLOOP_EVENT type of what it was called for.
    pub r#type: c_int,
    /// 0: it is running. 1: it has returned.
    pub returned: c_int,
    /// The watcher's name, NUL-terminated and cut to fit, not inside a
    /// character; empty if it has none.
    pub name: [c_char; 64],
    /// 0; room for later versions.
    pub spare: [u64; 3],
}

const _: () = assert!(size_of::<Stuck>() == 128);

/// What a watchdog's thread may ask of the loop that it watches.
pub(in crate::event_loop) trait WatchedLoop: Sync {
    fn activity(&self) -> &ActivityCell;

    /// A watcher's name, if this is still the loop with this handle.
    fn name_of(&self, handle: i64, watcher: i64) -> [c_char; NAME];
}

pub(in crate::event_loop) type WatchdogCallback = unsafe extern "C" fn(*const Stuck, *mut c_void);

/// How a watchdog was asked for.
#[derive(Clone, Copy)]
pub(in crate::event_loop) struct WatchdogConfig {
    pub limit: i64,
    pub callback: WatchdogCallback,
    pub user_data: *mut c_void,
}

// SAFETY: the program hands them over to be used by another thread.
unsafe impl Send for WatchdogConfig {}
// SAFETY: as above; no thread changes them.
unsafe impl Sync for WatchdogConfig {}

struct WatchdogState {
    config: WatchdogConfig,
    shared: &'static dyn WatchedLoop,
    handle: i64,
    stop: AtomicU32,
    /// The loop's activity when its thread got the watchdog, which reports only
    /// later ones; `NOT_STARTED` before.
    start_seq: AtomicU64,
    /// The sequence number of the callback that was reported, until it has
    /// returned.
    reported_seq: AtomicU64,
    /// When it has.
    ended: AtomicI64,
    /// Where the watchdog's thread waits.
    parker: Parker,
}

/// No sequence number comes after it.
const NOT_STARTED: u64 = u64::MAX;

/// A watchdog, for its loop's thread.
#[derive(Clone)]
pub(in crate::event_loop) struct WatchdogHandle {
    state: TryArc<WatchdogState>,
}

/// A watchdog, in the command queue; gone when this is dropped, which must not
/// be done with a lock: its callback may be running, and take any.
pub(in crate::event_loop) struct Watchdog {
    watchdog_handle: WatchdogHandle,
    thread: Option<Thread>,
    /// The process that has the thread.
    epoch: fork::Epoch,
}

impl WatchdogHandle {
    /// Begins to report the activities after this one. A watchdog that reports
    /// a callback reports its end, too: so it does not begin before the loop's
    /// thread, which is this one, knows the watchdog.
    pub fn begin_at(&self, seq: u64) {
        self.state.start_seq.store(seq, Release);
    }

    /// A callback has returned; on the loop's thread.
    pub fn on_return(&self, seq: u64, now: i64) {
        if self.state.reported_seq.load(SeqCst) == seq {
            self.state.ended.store(now, Relaxed);
            // Release: with the time.
            self.state.reported_seq.store(0, Release);
            self.state.parker.unpark();
        }
    }
}

impl Watchdog {
    pub fn start(
        config: WatchdogConfig,
        shared: &'static dyn WatchedLoop,
        handle: i64,
    ) -> Result<Self> {
        let (stop, reported_seq) = (AtomicU32::new(0), AtomicU64::new(0));
        let (start_seq, ended) = (AtomicU64::new(NOT_STARTED), AtomicI64::new(0));
        let parker = Parker::new();
        let state =
            WatchdogState { config, shared, handle, stop, start_seq, reported_seq, ended, parker };
        let Some(state) = TryArc::new(state) else { fail!(ENOMEM, "no memory for a watchdog") };
        let theirs = state.clone();
        let thread = Thread::start(c"evloop-watchdog", STACK_FOR_CALLBACKS, move || theirs.run());
        match thread {
            Ok(thread) => Ok(Self {
                watchdog_handle: WatchdogHandle { state },
                thread: Some(thread),
                epoch: fork::current(),
            }),
            Err(errno) => Err(error!(errno, "no thread for a watchdog")),
        }
    }

    /// The same in a forked child, where the thread is not.
    fn start_again(&self) -> Result<Self> {
        let WatchdogState { config, shared, handle, .. } = &*self.watchdog_handle.state;
        Self::start(*config, *shared, *handle)
    }

    pub fn handle(&self) -> WatchdogHandle {
        self.watchdog_handle.clone()
    }
}

impl Watchdog {
    /// In a forked child: a watchdog of its own, unless an attempt that failed
    /// later has made that.
    pub fn revive(&self) -> Result<Option<Self>> {
        if self.epoch == fork::current() { Ok(None) } else { self.start_again().map(Some) }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.epoch != fork::current() {
            // The parent's: there is no such thread here.
            return;
        }
        // Release: what was done before is seen by its last look.
        self.watchdog_handle.state.stop.store(1, Release);
        self.watchdog_handle.state.parker.unpark();
        // Unless this is its own callback.
        thread.join();
    }
}

impl WatchdogState {
    /// The thread's life.
    fn run(&self) {
        while !self.is_over() {
            let stuck = self.shared.activity().read().filter(|current| self.is_reportable(current));
            let Some(stuck) = stuck else {
                self.pause(self.config.limit);
                continue;
            };
            let left = stuck.since.saturating_add(self.config.limit) - clock::now_ns();
            // Longer than the limit, not as long.
            if left >= 0 {
                self.pause(left + 1);
            } else {
                self.report(&stuck);
            }
        }
    }

    fn is_reportable(&self, current: &Activity) -> bool {
        // Acquire: the loop's thread stores it before it begins what is ours.
        current.kind != ASLEEP && current.seq > self.start_seq.load(Acquire)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Acquire) != 0
    }

    fn pause(&self, ns: i64) {
        self.parker.park(Some(ns.max(1)));
    }

    /// Reports a callback, and then that it has returned.
    fn report(&self, stuck: &Activity) {
        let activity = self.shared.activity();
        // One of the two sees the other: the loop's thread this store, or this
        // thread that the callback has returned.
        self.reported_seq.store(stuck.seq, SeqCst);
        if !activity.is_at(stuck.seq) {
            self.reported_seq.store(0, Relaxed);
            return;
        }
        // Now: when it has returned its watcher may be closed.
        let name = self.shared.name_of(self.handle, stuck.watcher);
        self.notify(stuck, name, clock::now_ns(), 0);
        while !self.is_over() {
            if self.reported_seq.load(Acquire) == 0 {
                return self.notify(stuck, name, self.ended.load(Relaxed), 1);
            }
            // Woken by the thread that ends the callback, or the watchdog.
            self.parker.park(None);
        }
    }

    fn notify(&self, stuck: &Activity, name: [c_char; NAME], now: i64, returned: c_int) {
        let event = Stuck {
            r#loop: self.handle,
            watcher: stuck.watcher,
            since_ns: stuck.since,
            duration_ns: now.saturating_sub(stuck.since),
            r#type: stuck.kind,
            returned,
            name,
            spare: [0; 3],
        };
        // SAFETY: the program's function and argument, as it promised; no
        // lock is held.
        unsafe { (self.config.callback)(&event, self.config.user_data) };
    }
}
