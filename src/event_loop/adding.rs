//! Adding watchers, on the thread that may touch the loop's state.

use super::clock_ids;
use super::command::RegisteredAs;
use super::event::Target;
use super::fd_source::FdSource;
use super::flags::*;
use super::shared::LoopShared;
use super::sinks::{NewSignal, SignalMode};
use super::slot::{self, LIVE, WatcherSlot};
use super::source::{io_slot, signals};
use super::state::LoopState;
use super::timer_setting::{self, TimerSetting};
use crate::errno::{Result, fail};
use crate::file_watch::WatchRequest;
use crate::handle::Kind;
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// A new slot for a watcher, filled in but not live.
pub(super) struct NewWatcher {
    pub index: u32,
    pub slot: &'static WatcherSlot,
}

impl NewWatcher {
    pub fn new(
        shared: &'static LoopShared,
        index: u32,
        source: Source,
        target: Target,
    ) -> Result<Self> {
        let Some(slot) = slot::get(index) else { fail!(ENOMEM, "no memory for a watcher") };
        let records = if target.callback.is_none() { RECORDS } else { 0 };
        slot.flags.store(source.bits() | ENABLED | records, Relaxed);
        slot.set_shared(shared);
        slot.set_target(target);
        Ok(Self { index, slot })
    }

    pub fn handle(&self) -> i64 {
        self.slot.handle(Kind::Watcher, self.index)
    }
}

impl LoopState {
    #[inline]
    pub fn new_watcher(&mut self, source: Source, target: Target) -> Result<NewWatcher> {
        let index = self.ctx.slots.alloc(self.ctx.shared)?;
        let fresh = NewWatcher::new(self.ctx.shared, index, source, target)?;
        if target.callback.is_none() && !self.ctx.pending.expect_watcher() {
            self.discard_new(&fresh);
            fail!(ENOMEM, "no memory for a watcher's events");
        }
        Ok(fresh)
    }

    pub fn discard_new(&mut self, fresh: &NewWatcher) {
        self.forget_slot(fresh.slot);
        self.ctx.slots.free(fresh.index);
    }

    #[inline]
    pub fn publish(&mut self, fresh: &NewWatcher) -> i64 {
        fresh.slot.set_state(LIVE);
        self.ctx.shared.count(1);
        self.ctx.count_liveness(fresh.slot);
        fresh.handle()
    }

    pub fn add_io(
        &mut self,
        source: Source,
        fd: RawFd,
        events: u32,
        target: Target,
        fd_source: Option<Box<dyn FdSource>>,
    ) -> Result<i64> {
        let fresh = self.new_watcher(source, target)?;
        io_slot::fill(fresh.slot, fd, events);
        set_subject(fresh.slot, fd_source.as_deref());
        let added = self.begin_fd_source(&fresh, fd_source).and_then(|()| {
            let registered = self.io_register(fd, events, fresh.handle())?;
            let added = self.io.added(&mut self.ctx, fresh.index, fresh.slot, registered);
            if added.is_err() && matches!(registered, RegisteredAs::Alone(_)) {
                let _ = epoll::delete(self.ctx.epoll(), fd);
            }
            added
        });
        match added {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.fd_sources.take(fresh.index);
                self.discard_new(&fresh);
                Err(error)
            }
        }
    }

    fn begin_fd_source(
        &mut self,
        fresh: &NewWatcher,
        fd_source: Option<Box<dyn FdSource>>,
    ) -> Result<()> {
        let Some(mut fd_source) = fd_source else { return Ok(()) };
        fd_source.begin(self.ctx.shared.handle())?;
        self.fd_sources.insert(fresh.index, fd_source)
    }

    pub fn add_timer(
        &mut self,
        clock: usize,
        setting: &TimerSetting,
        tolerance: i64,
        target: Target,
    ) -> Result<i64> {
        let fresh = self.new_watcher(Source::Timer, target)?;
        prepare_timer(fresh.slot, clock, setting);
        let tolerance = if tolerance == 0 { self.timers.tolerance } else { tolerance };
        fresh.slot.node.set_tolerance(tolerance);
        match self.set_timer(fresh.index, fresh.slot, setting, None) {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.uncount(fresh.slot);
                self.discard_new(&fresh);
                Err(error)
            }
        }
    }

    pub fn add_plain(&mut self, source: Source, target: Target) -> Result<i64> {
        if source == Source::ClockChange {
            self.ensure_clock(clock_ids::REALTIME)?;
        }
        let fresh = self.new_watcher(source, target)?;
        if source == Source::Async {
            fresh.slot.aux.store(0, Relaxed);
        }
        if let Err(error) = self.add_to_list(fresh.index, fresh.slot) {
            self.discard_new(&fresh);
            return Err(error);
        }
        Ok(self.publish(&fresh))
    }

    pub fn add_signal(&mut self, signal: c_int, mode: SignalMode, target: Target) -> Result<i64> {
        let (claim, seen) = signals::claim(self.ctx.shared, signal, mode)?;
        let fresh = self.new_watcher(Source::Signal, target)?;
        fresh.slot.node.third_spare().store(signal.into(), Relaxed);
        let new = NewSignal { claim, seen, signalfd: None };
        match self.signals.added(&mut self.ctx, &mut self.io, fresh.index, fresh.slot, new) {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.discard_new(&fresh);
                Err(error)
            }
        }
    }

    pub fn add_file(&mut self, request: &WatchRequest<'_>, target: Target) -> Result<i64> {
        let fresh = self.new_watcher(Source::File, target)?;
        let added = self.files.add(&mut self.ctx, fresh.index, request);
        if let Err(error) = added {
            self.discard_new(&fresh);
            return Err(error);
        }
        self.files.added(&mut self.ctx, &mut self.io, fresh.index);
        Ok(self.publish(&fresh))
    }

    /// A tree that another thread was adding is there.
    pub fn publish_file(&mut self, fresh: &NewWatcher) -> i64 {
        self.files.added(&mut self.ctx, &mut self.io, fresh.index);
        self.publish(fresh)
    }

    /// Or is not.
    pub fn give_up_file(&mut self, fresh: &NewWatcher) {
        self.ctx.shared.files.lock().give_up(self.ctx.epoll(), fresh.index);
        self.discard_new(fresh);
    }
}

pub(super) fn prepare_timer(slot: &WatcherSlot, clock: usize, setting: &TimerSetting) {
    let queue = timer_setting::queue_of(clock, setting);
    slot.set((clock as u32) << CLOCK_SHIFT | (queue as u32) << QUEUE_SHIFT);
    slot.node.reset();
    slot.aux.store(0, Relaxed);
}

/// Notes what an object watcher watches, for threads that ask.
pub(super) fn set_subject(slot: &WatcherSlot, fd_source: Option<&dyn FdSource>) {
    let subject = fd_source.map_or(0, FdSource::subject);
    slot.node.third_spare().store(subject, Relaxed);
}
