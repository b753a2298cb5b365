//! Watchdogs: a thread that tells which callback is stuck.
//!
//! It needs nothing of the loop but what that has published before the
//! callback. It looks again when the callback that is running would have run
//! for too long, or after that time if none is; so it wakes up once in that
//! time. The loop wakes it only when a callback that it told of has returned.

use super::published::{ASLEEP, Glance};
use super::stats::{NAME, short_name};
use super::{Look, tell};
use crate::errno::{Result, error, fail};
use crate::event_loop::desk::{Desk, Gate};
use crate::event_loop::named::named;
use crate::handle::Kind;
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

type WatchdogCallback = unsafe extern "C" fn(*const Stuck, *mut c_void);

/// How a watchdog was asked for.
#[derive(Clone, Copy)]
struct Order {
    limit: i64,
    callback: WatchdogCallback,
    user_data: *mut c_void,
}

// SAFETY: the program hands them over to be used by another thread.
unsafe impl Send for Order {}
// SAFETY: as above; nobody changes them.
unsafe impl Sync for Order {}

struct Shared {
    order: Order,
    desk: &'static Desk,
    handle: i64,
    stop: AtomicU32,
    /// What the loop was at when its thread heard of the watchdog, which is
    /// told of what comes after that; `NOT_YET` before.
    heard_at: AtomicU64,
    /// The turn of the callback that was told of, until it has returned.
    told: AtomicU64,
    /// When it has.
    ended: AtomicI64,
    /// Where the watchdog's thread waits.
    parker: Parker,
}

/// No turn comes after it.
const NOT_YET: u64 = u64::MAX;

/// A watchdog, for its loop's thread.
#[derive(Clone)]
pub(in crate::event_loop) struct Dog {
    shared: TryArc<Shared>,
}

/// A watchdog, at the gate; gone when this is dropped, which must not be done
/// with a lock: its callback may be running, and take any.
pub(in crate::event_loop) struct Watchdog {
    dog: Dog,
    thread: Option<Thread>,
    /// The process that has the thread.
    epoch: fork::Epoch,
}

impl Dog {
    /// Whoever is told of a callback is told of its end, too: so not before
    /// the loop's thread, which is this one, knows whom to tell.
    pub fn heard_at(&self, turn: u64) {
        self.shared.heard_at.store(turn, Release);
    }

    /// A callback has returned; on the loop's thread.
    pub fn has_returned(&self, turn: u64, now: i64) {
        if self.shared.told.load(SeqCst) == turn {
            self.shared.ended.store(now, Relaxed);
            // Release: with the time.
            self.shared.told.store(0, Release);
            self.shared.parker.unpark();
        }
    }
}

impl Watchdog {
    fn start(order: Order, desk: &'static Desk, handle: i64) -> Result<Self> {
        let (stop, told) = (AtomicU32::new(0), AtomicU64::new(0));
        let (heard_at, ended) = (AtomicU64::new(NOT_YET), AtomicI64::new(0));
        let parker = Parker::new();
        let shared = Shared { order, desk, handle, stop, heard_at, told, ended, parker };
        let Some(shared) = TryArc::new(shared) else { fail!(ENOMEM, "no memory for a watchdog") };
        let theirs = shared.clone();
        let thread = Thread::start(c"evloop-watchdog", STACK_FOR_CALLBACKS, move || theirs.watch());
        match thread {
            Ok(thread) => {
                Ok(Self { dog: Dog { shared }, thread: Some(thread), epoch: fork::current() })
            }
            Err(errno) => Err(error!(errno, "no thread for a watchdog")),
        }
    }

    /// The same in a forked child, where the thread is not.
    pub fn start_again(&self) -> Result<Self> {
        let Shared { order, desk, handle, .. } = &*self.dog.shared;
        Self::start(*order, desk, *handle)
    }

    pub fn dog(&self) -> Dog {
        self.dog.clone()
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
        self.dog.shared.stop.store(1, Release);
        self.dog.shared.parker.unpark();
        // Unless this is its own callback.
        thread.join();
    }
}

impl Shared {
    /// The thread's life.
    fn watch(&self) {
        while !self.is_over() {
            let stuck = self.desk.published.look().filter(|glance| self.is_for_us(glance));
            let Some(stuck) = stuck else {
                self.pause(self.order.limit);
                continue;
            };
            let left = stuck.since.saturating_add(self.order.limit) - clock::now_ns();
            // Longer than the limit, not as long.
            if left >= 0 {
                self.pause(left + 1);
            } else {
                self.tell_of(&stuck);
            }
        }
    }

    fn is_for_us(&self, glance: &Glance) -> bool {
        // Acquire: the loop's thread stores it before it begins what is ours.
        glance.kind != ASLEEP && glance.turn > self.heard_at.load(Acquire)
    }

    fn is_over(&self) -> bool {
        self.stop.load(Acquire) != 0
    }

    fn pause(&self, ns: i64) {
        self.parker.park(Some(ns.max(1)));
    }

    /// Tells of a callback, and that it has returned.
    fn tell_of(&self, stuck: &Glance) {
        let published = &self.desk.published;
        // One of the two sees the other: this, or the loop's thread that the
        // callback has returned.
        self.told.store(stuck.turn, SeqCst);
        if !published.is_at(stuck.turn) {
            self.told.store(0, Relaxed);
            return;
        }
        // Now: when it has returned its watcher may be closed.
        let name = self.name_of(stuck.watcher);
        self.say(stuck, name, clock::now_ns(), 0);
        while !self.is_over() {
            if self.told.load(Acquire) == 0 {
                return self.say(stuck, name, self.ended.load(Relaxed), 1);
            }
            // Woken by who ends the callback, or the watchdog.
            self.parker.park(None);
        }
    }

    fn name_of(&self, watcher: i64) -> [c_char; NAME] {
        let gate = self.desk.gate();
        // The desk may be another loop's by now.
        let ours = self.desk.mail.owner() == self.handle;
        let name = gate.names.get(&watcher).filter(|_| ours);
        short_name(name.map(|name| &**name).unwrap_or_default())
    }

    fn say(&self, stuck: &Glance, name: [c_char; NAME], now: i64, returned: c_int) {
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
        unsafe { (self.order.callback)(&event, self.order.user_data) };
    }
}

/// See evloop_set_watchdog.
pub(crate) fn set_watchdog(
    handle: i64,
    limit: i64,
    callback: Option<WatchdogCallback>,
    user_data: *mut c_void,
) -> Result<()> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    let fresh = match callback.filter(|_| limit > 0) {
        Some(callback) => {
            let order = Order { limit, callback, user_data };
            Some(Watchdog::start(order, named.desk, handle)?)
        }
        None => None,
    };
    let mut gate = named.lock()?;
    gate.expect_commands(1)?;
    let dog = fresh.as_ref().map(Watchdog::dog);
    let before = std::mem::replace(&mut gate.watchdog, fresh);
    let told = tell(&named, gate, Look::Watchdog(dog));
    // Without the lock; waits for its callback.
    drop(before);
    told
}

/// In a forked child: a watchdog of its own; what its loop's thread needs.
pub(in crate::event_loop) fn revive(gate: &mut Gate) -> Result<Option<Dog>> {
    let Some(watchdog) = &gate.watchdog else { return Ok(None) };
    if watchdog.epoch == fork::current() {
        // Made by an attempt that failed later.
        return Ok(Some(watchdog.dog()));
    }
    let fresh = watchdog.start_again()?;
    let dog = fresh.dog();
    gate.watchdog = Some(fresh);
    Ok(Some(dog))
}
