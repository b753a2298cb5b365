//! What evloop_kqueue_control does: changes, then events.

use super::Queue;
use super::aio::{Aio, Request};
use super::core::Core;
use super::event::*;
use crate::errno::{Errno, Result, fail};
use crate::sync::{MutexGuard, Ordering};
use crate::sys::clock::Deadline;
use crate::sys::epoll::{self, Event};
use crate::sys::fork;
use crate::waiters;
use std::mem::MaybeUninit;

/// Events that are fetched without memory being asked for.
const SMALL: usize = 64;

/// Whether an interrupted wait goes on, as the thread has it set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnSignal {
    AsSet,
    #[allow(dead_code)]
    Return,
}

impl Queue {
    /// Applies the changes, then waits for events, if there is room for any;
    /// how many there are.
    pub fn control(
        &self,
        changes: &mut Changes,
        sink: &mut Sink,
        deadline: Deadline,
        on_signal: OnSignal,
    ) -> Result<usize> {
        self.apply(changes, sink)?;
        if sink.filled() > 0 || sink.is_full() {
            return Ok(sink.filled());
        }
        self.collect(sink, deadline, on_signal)
    }

    /// Begins an operation whose end is an event with this ident.
    pub fn begin_operation(&self, request: Request, ident: u64, udata: u64) -> Result<()> {
        let mut core = self.lock()?;
        core.begin_operation(request, ident, udata)?;
        core.settle()
    }

    /// Has an operation end soon.
    pub fn cancel_operation(&self, ident: u64) -> Result<()> {
        let mut core = self.lock()?;
        core.cancel_operation(ident)?;
        core.take_operations();
        core.settle()
    }

    /// Applies the changes. What fails, and what asks for a receipt, gets an
    /// entry; without room for it the rest is not applied.
    fn apply(&self, changes: &mut Changes, sink: &mut Sink) -> Result<()> {
        let Some(first) = changes.take() else { return Ok(()) };
        let mut core = self.lock()?;
        let mut next = Some(first);
        while let Some(change) = next {
            let result = core.change(&change);
            let errno = result.as_ref().err().map_or(0, |error| -error.errno.negated());
            if result.is_err() || change.flags & EV_RECEIPT != 0 {
                let entry = Kevent { flags: EV_ERROR, data: errno.into(), ..change };
                if !sink.push(entry) {
                    core.settle()?;
                    return result;
                }
            }
            next = changes.take();
        }
        core.settle_for(sink)
    }

    fn collect(&self, sink: &mut Sink, deadline: Deadline, on_signal: OnSignal) -> Result<usize> {
        let mut small = [MaybeUninit::<Event>::uninit(); SMALL];
        let mut large = Vec::new();
        loop {
            let (main, room, at_once, stuck) = {
                let mut core = self.lock()?;
                core.begin(sink);
                if sink.is_full() {
                    return core.end(sink);
                }
                if sink.filled() == 0 {
                    core.settle()?;
                }
                let at_once = sink.filled() > 0 || !core.active.is_empty();
                let stuck = core.aio.as_ref().is_some_and(Aio::is_stuck);
                (core.set.main(), core.most_events().min(sink.left()), at_once, stuck)
            };
            let timeout = if at_once { Some(0) } else { at_most(deadline.left_ns(), stuck) };
            let result = epoll::wait(main, buffer(&mut small, &mut large, room)?, timeout);
            if fork::current() != self.epoch {
                fail!(ECHILD, "the process forked during the wait, and this is the child");
            }
            if matches!(result, Err(Errno::EINTR)) && !at_once {
                interrupted(on_signal)?;
            }
            let mut core = self.lock()?;
            match result {
                Ok(events) => core.take_events(events, sink),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            core.finish(sink);
            if sink.filled() > 0 || deadline.passed() {
                return core.end(sink);
            }
        }
    }

    /// The state; unless the queue is closed.
    fn lock(&self) -> Result<MutexGuard<'_, Core>> {
        if self.closed.load(Ordering::Acquire) {
            fail!(ESTALE, "the queue was closed during the call");
        }
        Ok(self.core.lock())
    }
}

/// What is stuck is tried again after a while.
fn at_most(left_ns: Option<i64>, stuck: bool) -> Option<i64> {
    const SLICE_NS: i64 = 10_000_000;
    if stuck { Some(left_ns.map_or(SLICE_NS, |left| left.min(SLICE_NS))) } else { left_ns }
}

fn interrupted(on_signal: OnSignal) -> Result<()> {
    match on_signal {
        OnSignal::AsSet => waiters::interrupted(),
        OnSignal::Return => fail!(EINTR, "a signal handler interrupted the wait"),
    }
}

/// Room for so many events of the kernel's.
fn buffer<'a>(
    small: &'a mut [MaybeUninit<Event>; SMALL],
    large: &'a mut Vec<MaybeUninit<Event>>,
    room: usize,
) -> Result<&'a mut [MaybeUninit<Event>]> {
    if room <= SMALL {
        return Ok(small.get_mut(..room).unwrap_or_default());
    }
    if large.try_reserve_exact(room.saturating_sub(large.len())).is_err() {
        fail!(ENOMEM, "no memory for {} events", room as i64);
    }
    large.resize(room, MaybeUninit::uninit());
    Ok(large)
}

impl Core {
    /// How many events the kernel can have.
    fn most_events(&self) -> usize {
        const OWN: usize = 16;
        self.registrations.len() + self.strays + OWN
    }

    /// The first look of a collecting call.
    fn begin(&mut self, sink: &mut Sink) {
        self.pass = self.pass.wrapping_add(1);
        self.take_operations();
        self.expire_timers();
        if std::mem::take(&mut self.kernel_first) {
            return;
        }
        self.take_active(sink);
        self.kernel_first = sink.is_full();
    }

    /// The look after the kernel was asked.
    fn finish(&mut self, sink: &mut Sink) {
        self.expire_timers();
        self.take_active(sink);
    }

    /// The end of a collecting call.
    fn end(&mut self, sink: &Sink) -> Result<usize> {
        // What cannot be set now is set by the next call.
        let _ = self.settle();
        Ok(sink.filled())
    }

    /// Before others look: the queue is readable while there is an event.
    fn settle(&mut self) -> Result<()> {
        if self.active.is_empty() {
            self.set.silence();
        } else {
            self.set.ring()?;
        }
        Ok(self.set_timers()?)
    }

    /// After changes: unless the same call goes on to collect.
    fn settle_for(&mut self, sink: &Sink) -> Result<()> {
        if sink.filled() > 0 || sink.is_full() { self.settle() } else { Ok(()) }
    }
}
