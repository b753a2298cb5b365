//! Calls of evloop_kqueue_control: applying changes, waiting, collecting
//! events.

use super::deliver::{AT_ONCE, EventBuffer};
use super::event::*;
use super::fd_registry;
use super::filter;
use super::object::AliasHandle;
use super::queue::Queue;
use super::queue_waiters::AlarmAction;
use super::source::aio::Request;
use super::state::QueueState;
use crate::errno::{Errno, Error, Result, error, fail};
use crate::sync::{MutexGuard, Ordering};
use crate::sys::clock::Deadline;
use crate::sys::epoll::{self, Event};
use crate::sys::thread;
use crate::wait;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// Whether a call names its queue by the handle or by the descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// By its handle. The call that closes the queue wakes the waiting thread,
    /// and a wait that a signal interrupts goes on or returns, as the thread
    /// has it set.
    Handle,
    /// By its descriptor, as on BSD. A wait that a signal interrupts returns,
    /// and the kernel does not report that the descriptor was closed.
    Descriptor(RawFd),
}

/// How to wait for events.
#[derive(Clone, Copy)]
pub(crate) struct Collect {
    pub deadline: Deadline,
    pub by: By,
}

/// A queue's state, locked.
struct LockedQueue<'a>(MutexGuard<'a, Option<QueueState>>);

impl LockedQueue<'_> {
    fn state(&mut self) -> Result<&mut QueueState> {
        match self.0.as_mut() {
            Some(state) => Ok(state),
            None => fail!(ECHILD, "the queue is the parent process's"),
        }
    }
}

impl Queue {
    /// Applies the changes, then waits for events if there is room for any.
    /// Returns the number of events. A call that fails delivers none.
    #[inline(always)]
    pub(super) fn control(
        &self,
        by: Option<&AliasHandle>,
        changes: &mut Changes,
        sink: &mut KeventSink,
        options: Collect,
    ) -> Result<usize> {
        let result = self.apply_and_collect(by, changes, sink, options);
        if result.is_err() {
            sink.take_back();
        }
        result
    }

    fn apply_and_collect(
        &self,
        by: Option<&AliasHandle>,
        changes: &mut Changes,
        sink: &mut KeventSink,
        options: Collect,
    ) -> Result<usize> {
        if !sink.is_full() {
            // A queue that is named by its descriptor was looked at just now.
            fd_registry::sweep_now_and_then(usize::from(matches!(options.by, By::Descriptor(_))));
        }
        let (mut locked, rest) = self.apply(self.lock(by)?, by, changes, sink)?;
        if sink.filled() > 0 || sink.is_full() || rest {
            let state = locked.state()?;
            // Where that fails, a call that collects reports it.
            let _ = state.sources.signals.renew();
            self.settle(state)?;
            return Ok(sink.filled());
        }
        self.collect(locked, by, sink, options)
    }

    /// Begins an operation whose end is an event with this ident.
    pub(super) fn begin_operation(
        &self,
        by: Option<&AliasHandle>,
        request: Request,
        ident: u64,
        udata: u64,
    ) -> Result<()> {
        let mut locked = self.lock(by)?;
        let state = locked.state()?;
        state.begin_operation(request, ident, udata)?;
        // The operation has begun even if this fails: the next call settles the
        // queue.
        let _ = self.settle(state);
        Ok(())
    }

    /// Cancels an operation.
    pub(super) fn cancel_operation(&self, by: Option<&AliasHandle>, ident: u64) -> Result<()> {
        let mut locked = self.lock(by)?;
        let state = locked.state()?;
        state.sources.aio.cancel(&state.store, ident)?;
        state.sources.aio.take(&mut state.store);
        self.settle(state)
    }

    /// Applies the changes. What fails, and what asks for a receipt, gets an
    /// entry; true: there was no room for a receipt, and the rest was not
    /// applied.
    fn apply<'a>(
        &'a self,
        mut locked: LockedQueue<'a>,
        by: Option<&AliasHandle>,
        changes: &mut Changes,
        sink: &mut KeventSink,
    ) -> Result<(LockedQueue<'a>, bool)> {
        while let Some(change) = changes.take() {
            let mut result = self.change(locked.state()?, &change);
            if lacks_descriptors(&result) {
                // The sweep looks at other queues: no queue may be locked.
                drop(locked);
                fd_registry::sweep();
                locked = self.lock(by)?;
                result = self.change(locked.state()?, &change);
            }
            if result.is_ok() && change.flags & EV_RECEIPT == 0 {
                continue;
            }
            let errno = result.as_ref().err().map_or(0, |error| -error.errno.negated());
            let entry = Kevent { flags: EV_ERROR, data: errno.into(), ..change };
            match sink.push_entry(entry) {
                Ok(true) => {}
                Ok(false) if result.is_ok() => return Ok((locked, true)),
                pushed => {
                    // The changes before have their effect all the same.
                    self.settle(locked.state()?)?;
                    pushed?;
                    return result.map(|()| (locked, true));
                }
            }
        }
        Ok((locked, false))
    }

    fn change(&self, state: &mut QueueState, change: &Kevent) -> Result<()> {
        state.change(change).map_err(|error| match error.errno {
            // The kernel calls it a circle.
            Errno::ELOOP if self.verify_fd(change.ident as RawFd).is_ok() => {
                error!(Errno::EINVAL, "fd {} is the queue itself", change.ident as RawFd)
            }
            _ => error,
        })
    }

    /// Collects events. A call makes all its deliveries without giving up the
    /// lock: none is made twice, and none has to be undone.
    fn collect<'a>(
        &'a self,
        mut locked: LockedQueue<'a>,
        by: Option<&AliasHandle>,
        sink: &mut KeventSink,
        options: Collect,
    ) -> Result<usize> {
        let mut buffer = [MaybeUninit::uninit(); AT_ONCE];
        let mut listens = matches!(options.by, By::Descriptor(_));
        loop {
            let state = locked.state()?;
            // In this round the call has delivered nothing yet.
            sink.call_seq = state.next_call_seq();
            if let Err(error) = state.sources.signals.renew() {
                self.settle(state)?;
                return Err(error);
            }
            filter::look_at_drained(&mut state.store, &mut state.sources);
            state.first_look(sink);
            let is_quiet = sink.filled() == 0 && state.store.active.is_empty();
            let mut more = true;
            if is_quiet && !matches!(options.deadline, Deadline::Now) {
                self.settle(state)?;
                let slice = match (state.sources.aio.is_stuck(), listens) {
                    (true, _) => STUCK_NS,
                    (false, true) => LISTEN_NS,
                    (false, false) => i64::MAX,
                };
                let left = at_most(options.deadline, slice);
                (locked, more) = self.wait(locked, by, options.by, left, (&mut buffer, sink))?;
            }
            let state = locked.state()?;
            if more
                && let Err(errno) = state.take_ready(&mut buffer, sink)
                && sink.filled() == 0
            {
                self.settle(state)?;
                return Err(errno.into());
            }
            state.sources.timers.expire(&mut state.store);
            state.take_active(sink);
            // If this fails for want of memory or descriptors, it is retried
            // later.
            let is_fresh = state.needs_other_set() && self.rebuild(state).is_ok();
            if is_fresh && sink.filled() == 0 {
                continue;
            }
            if sink.filled() > 0 || options.deadline.passed() {
                // What cannot be set now is set by the next call.
                let _ = self.settle(state);
                return Ok(sink.filled());
            }
            // The kernel wakes one thread at a time, and the last that began to
            // wait first. So this one pauses while others have to leave.
            let must_pause = state.has_many_stale_events() || state.waiters.is_draining();
            drop(locked);
            if must_pause {
                // The set could not be rebuilt, or other threads leave first.
                wait::pause(options.deadline, || interrupted(options.by))?;
            }
            if let By::Descriptor(fd) = options.by {
                fd_registry::look_at(fd);
                // In a process with one thread the fd cannot be closed during
                // the wait.
                listens = !thread::is_the_only_one();
            }
            locked = self.lock(by)?;
        }
    }

    /// Waits, and takes what the kernel has reported; true: it may have more.
    fn wait<'a>(
        &'a self,
        locked: LockedQueue<'a>,
        by: Option<&AliasHandle>,
        whose: By,
        left: Option<i64>,
        (buffer, sink): (&mut EventBuffer, &mut KeventSink),
    ) -> Result<(LockedQueue<'a>, bool)> {
        let wanted = sink.left().min(AT_ONCE);
        let out = buffer.get_mut(..wanted).unwrap_or_default();
        let mut locked = locked;
        let removed = locked.state()?.store.registrations.removed();
        let (mut locked, result) = self.wait_unlocked(locked, by, out, left)?;
        let state = locked.state()?;
        sink.call_seq = state.next_call_seq();
        match result {
            // An event may be of an earlier registration. So the events only
            // activate knotes, and those that are ready are delivered from the
            // list of active ones.
            Ok(events) if state.store.registrations.may_have_come_again(removed) => {
                state.take_events(events, &mut KeventSink::none());
                Ok((locked, true))
            }
            Ok(events) => {
                let unknown = state.take_events(events, sink);
                Ok((locked, unknown > 0 || events.len() == wanted))
            }
            // The signal that interrupted the wait may be one that a knote
            // watches.
            Err(Errno::EINTR) if state.sources.signals.take(&mut state.store) => {
                Ok((locked, false))
            }
            Err(Errno::EINTR) => {
                drop(locked);
                interrupted(whose)?;
                Ok((self.lock(by)?, false))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits without the lock. Returns what the kernel has reported, which may
    /// be outdated when the lock is taken again.
    #[inline]
    fn wait_unlocked<'a, 'b>(
        &'a self,
        mut locked: LockedQueue<'a>,
        by: Option<&AliasHandle>,
        buffer: &'b mut [MaybeUninit<Event>],
        left: Option<i64>,
    ) -> Result<(LockedQueue<'a>, std::result::Result<&'b [Event], Errno>)> {
        let state = locked.state()?;
        let inner = state.sources.set.inner();
        state.waiters.enter();
        if let Some(by) = by {
            by.waiting.fetch_add(1, Ordering::Relaxed);
        }
        drop(locked);
        let result = epoll::wait(inner, buffer, left);
        if !self.is_here() {
            fail!(ECHILD, "the process forked during the wait, and this is the child");
        }
        let mut locked = LockedQueue(self.state.lock());
        let state = locked.state()?;
        self.come_back(state, by, inner);
        if let Err(error) = self.check(by) {
            // The kernel reports an edge once: other threads deliver these
            // events.
            state.take_events(result.unwrap_or_default(), &mut KeventSink::none());
            let _ = self.settle(state);
            return Err(error);
        }
        Ok((locked, result))
    }

    /// Counts out a thread that has waited in this epoll, by this handle.
    fn come_back(&self, state: &mut QueueState, by: Option<&AliasHandle>, inner: RawFd) {
        let leaves = by.is_some_and(|by| by.closed.load(Ordering::Relaxed));
        let in_use = inner == state.sources.set.inner();
        let others = state.waiters.come_back(in_use, |set| set.inner() == inner, leaves);
        if let Some(by) = by {
            by.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if state.sources.timers.is_alarmed() {
            self.alarm_action(state, others);
        }
    }

    /// The alarm wakes one thread at a time: the next one, if there is one
    /// that has to come back. `others`: there is, in a set before this one.
    fn alarm_action(&self, state: &mut QueueState, others: bool) {
        match state.waiters.alarm_action(others, self.closed.load(Ordering::Relaxed)) {
            AlarmAction::SetAgain => state.sources.timers.alarm(),
            AlarmAction::Clear => state.sources.timers.end_alarm(),
            AlarmAction::Keep => {}
        }
    }

    /// A second handle was closed: those that wait by it come back.
    pub(super) fn wake_alias(&self, alias: &AliasHandle) {
        let mut state = self.state.lock();
        alias.closed.store(true, Ordering::Release);
        let waiting = usize::try_from(alias.waiting.load(Ordering::Relaxed)).unwrap_or(0);
        if let Some(state) = state.as_mut()
            && state.waiters.drain(waiting)
        {
            state.sources.timers.alarm();
        }
    }

    /// The state; unless it is closed.
    #[inline(always)]
    fn lock(&self, by: Option<&AliasHandle>) -> Result<LockedQueue<'_>> {
        let mut locked = LockedQueue(self.state.lock());
        // Checked with the lock held: a thread that closes the queue, and finds
        // the lock free, only wakes the threads that already wait.
        self.check(by)?;
        if self.keep {
            self.revive(locked.state()?)?;
        }
        if !locked.state()?.sources.set.is_intact() {
            fail!(EBADF, "the descriptors of the queue were closed");
        }
        Ok(locked)
    }

    fn check(&self, by: Option<&AliasHandle>) -> Result<()> {
        let lent_closed = by.is_some_and(|by| by.closed.load(Ordering::Acquire));
        if lent_closed || self.closed.load(Ordering::Acquire) {
            fail!(ESTALE, "the queue was closed during the call");
        }
        Ok(())
    }

    /// Updates the queue's readability and timers before the lock is given up:
    /// the queue is readable while there is an event.
    #[inline(always)]
    fn settle(&self, state: &mut QueueState) -> Result<()> {
        // Whether any of what follows has something to do.
        let is_settled = state.store.active.is_empty()
            && self.active.load(Ordering::Relaxed) == 0
            && !state.sources.set.is_raised()
            && !state.sources.timers.has_changed()
            && !state.sources.vnode.has_ended;
        if is_settled { Ok(()) } else { self.settle_rest(state) }
    }

    fn settle_rest(&self, state: &mut QueueState) -> Result<()> {
        state.take_ended();
        let timers_set = state.sources.timers.set(&mut state.store, &state.sources.set);
        let active = state.store.active.len();
        self.active.store(active as i64, Ordering::Relaxed);
        if active == 0 {
            state.sources.set.clear();
        } else {
            state.sources.set.raise();
        }
        timers_set.map_err(Error::from)
    }
}

fn lacks_descriptors(result: &Result<()>) -> bool {
    let errno = result.as_ref().err().map(|error| error.errno);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
}

/// The delay before a stuck operation is retried; ns.
const STUCK_NS: i64 = 10_000_000;
/// How often a waiting thread checks whether the queue's fd was closed; ns.
const LISTEN_NS: i64 = 250_000_000;

fn at_most(deadline: Deadline, slice: i64) -> Option<i64> {
    let left = deadline.left_ns();
    if slice < i64::MAX { Some(left.map_or(slice, |left| left.min(slice))) } else { left }
}

fn interrupted(by: By) -> Result<()> {
    match by {
        By::Handle => wait::interrupted(),
        By::Descriptor(_) => fail!(EINTR, "a signal handler interrupted the wait"),
    }
}

impl QueueState {
    /// Delivers active knotes before the kernel's events, unless it is the
    /// kernel's turn. The two take turns where there is no room for both.
    #[inline]
    fn first_look(&mut self, sink: &mut KeventSink) {
        if std::mem::take(&mut self.kernel_first) {
            return;
        }
        if !self.store.active.is_empty() {
            self.sources.signals.take_signalfd(&mut self.store);
        }
        self.take_active(sink);
        self.kernel_first = sink.is_full();
    }

    /// Whether the set of epolls is to be rebuilt, for one of two reasons:
    ///
    /// * the kernel keeps reporting events of registrations that were removed;
    /// * so many registrations were removed that generations will soon repeat.
    ///   Then an event that is left of a closed descriptor could be taken for
    ///   another's.
    fn needs_other_set(&self) -> bool {
        self.has_many_stale_events() || self.store.registrations.has_used_many(self.removed_before)
    }

    /// Whether the kernel keeps reporting events of registrations that were
    /// removed. The set is rebuilt when these events have cost about as much
    /// as rebuilding it does.
    fn has_many_stale_events(&self) -> bool {
        const FEW: usize = 16;
        self.stale_events > self.store.registrations.len() / 4 + FEW
    }
}
