//! A loop's subscriptions to signals: one for each signal, which all watchers
//! of that signal share, those that other threads add, too.
//!
//! They have a lock of their own, taken after the command queue's if with that.

use crate::errno::{Errno, Result, fail};
use crate::signal_hub::{Handler, NoDefault, Position, SignalSink, Subscription, subscribe};
use crate::sync::ForkMutex;
use crate::sys::fd::Fd;
use crate::sys::signal;
use crate::util::alloc::TryVec;
use std::ffi::c_int;

/// How a watcher's signal is seen.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SignalMode {
    /// By a handler over the program's disposition, the default action
    /// included, or in its place.
    Handler { keeps_default: bool },
    /// It is blocked, and taken from the loop's signalfd.
    Blocked,
}

#[derive(Default)]
pub(super) struct Sinks(Vec<Sink>);

struct Sink {
    signal: c_int,
    /// How many watchers share it, and how many of them need the handler.
    users: usize,
    by_handler: usize,
    /// How many of those take the default action away.
    by_replacing: usize,
    handler: Option<Handler>,
    /// `None` although they do: this signal keeps it.
    no_default: Option<NoDefault>,
    subscription: Subscription,
}

/// What wakes a loop when a signal came, and the loop.
#[derive(Clone, Copy)]
pub(super) struct Waking {
    pub wake: fn(i64),
    pub handle: i64,
}

impl Waking {
    fn subscribe(self, signal: c_int) -> Result<Subscription> {
        subscribe(signal, SignalSink { wake: self.wake, number: self.handle }, true)
    }
}

impl Sinks {
    fn index_of(&self, signal: c_int) -> Option<usize> {
        self.0.iter().position(|sink| sink.signal == signal)
    }

    pub fn get(&mut self, signal: c_int) -> Option<&mut Subscription> {
        self.0.iter_mut().find(|sink| sink.signal == signal).map(|sink| &mut sink.subscription)
    }

    /// Adds a watcher; where it begins.
    fn acquire(&mut self, waking: Waking, signal: c_int, mode: SignalMode) -> Result<Position> {
        if self.index_of(signal).is_none() {
            if self.0.try_reserve(1).is_err() {
                fail!(ENOMEM, "no memory to watch signal {}", signal);
            }
            let subscription = waking.subscribe(signal)?;
            self.0.push_reserved(Sink {
                signal,
                users: 0,
                by_handler: 0,
                by_replacing: 0,
                handler: None,
                no_default: None,
                subscription,
            });
        }
        let result = self.acquire_known(signal, mode);
        self.drop_unused(signal);
        result
    }

    fn acquire_known(&mut self, signal: c_int, mode: SignalMode) -> Result<Position> {
        let Some(sink) = self.0.iter_mut().find(|sink| sink.signal == signal) else {
            return Err(Errno::EINVAL.into());
        };
        if let SignalMode::Handler { keeps_default } = mode {
            match &sink.handler {
                // The program may have put its own action over it.
                Some(handler) => handler.renew()?,
                None => sink.handler = Some(Handler::new(signal)?),
            }
            sink.by_handler += 1;
            if !keeps_default {
                sink.by_replacing += 1;
                sink.replace_default();
            }
        }
        sink.users += 1;
        Ok(sink.subscription.position())
    }

    fn release(&mut self, signal: c_int, mode: SignalMode) {
        let Some(sink) = self.0.iter_mut().find(|sink| sink.signal == signal) else { return };
        sink.users -= 1;
        if let SignalMode::Handler { keeps_default } = mode {
            sink.by_handler -= 1;
            if sink.by_handler == 0 {
                sink.handler = None;
            }
            sink.by_replacing -= usize::from(!keeps_default);
            if sink.by_replacing == 0 {
                sink.no_default = None;
            }
        }
        self.drop_unused(signal);
    }

    fn drop_unused(&mut self, signal: c_int) {
        let index = self.index_of(signal);
        if let Some(index) = index.filter(|index| self.0.get(*index).is_some_and(|s| s.users == 0))
        {
            self.0.swap_remove(index);
        }
    }

    /// In a forked child that goes on with the loop: makes everything again,
    /// as what there is belongs to the parent. The signals for which that
    /// failed, as bits, and why the last of them did. Where something is
    /// short it fails, and can be tried again.
    pub fn revive(&mut self, waking: Waking) -> Result<(u64, Errno)> {
        let mut failed = (0, Errno::ENOMEM);
        for sink in &mut self.0 {
            match sink.revive(waking) {
                Ok(()) => {}
                Err(error) if error.errno.is_shortage() => return Err(error),
                Err(error) => failed = (failed.0 | signal::bit(sink.signal), error.errno),
            }
        }
        Ok(failed)
    }
}

impl Sink {
    fn revive(&mut self, waking: Waking) -> Result<()> {
        if !self.subscription.is_ours() {
            self.handler = None;
            self.no_default = None;
            self.subscription = waking.subscribe(self.signal)?;
        }
        if self.by_handler > 0 && self.handler.is_none() {
            self.handler = Some(Handler::new(self.signal)?);
        }
        if self.by_replacing > 0 {
            self.replace_default();
        }
        Ok(())
    }

    fn replace_default(&mut self) {
        if self.no_default.is_none() {
            self.no_default = NoDefault::new(self.signal);
        }
    }
}

/// A watcher's part of a subscription, until it is dropped.
pub(super) struct Claim {
    sinks: &'static ForkMutex<Sinks>,
    pub signal: c_int,
    pub mode: SignalMode,
}

impl Claim {
    /// For a watcher of an open loop, and where it begins; by a thread that may
    /// touch the loop, or has the command queue's lock.
    pub fn new(
        sinks: &'static ForkMutex<Sinks>,
        waking: Waking,
        signal: c_int,
        mode: SignalMode,
    ) -> Result<(Self, Position)> {
        let position = sinks.lock().acquire(waking, signal, mode)?;
        Ok((Self { sinks, signal, mode }, position))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.sinks.lock().release(self.signal, self.mode);
    }
}

/// A watcher that is about to be the loop's.
pub(super) struct NewSignal {
    pub claim: Claim,
    pub seen: Position,
    /// For its signal alone, where another thread adds it.
    pub signalfd: Option<Fd>,
}
