//! What evloop_kqueue_control does: changes, then events.

use super::aio::{Aio, Request};
use super::core::Core;
use super::crowd::Alarm;
use super::event::*;
use super::object::{Lent, is_here};
use super::{Queue, registry};
use crate::errno::{Errno, Error, Result, error, fail};
use crate::sync::{MutexGuard, Ordering};
use crate::sys::clock::Deadline;
use crate::sys::epoll::{self, Event};
use crate::sys::thread;
use crate::wait;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// How many events the kernel is asked for at once: they are on the stack of
/// a thread that waits.
pub(super) const AT_ONCE: usize = 64;

/// What a queue is waited for by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    /// Whoever closes it tells, and an interrupted wait goes on as the thread
    /// has it set.
    Handle,
    /// As on BSD: a wait that is interrupted returns, and nobody tells that
    /// the number was closed.
    Number(RawFd),
}

/// How to wait for events.
#[derive(Clone, Copy)]
pub(crate) struct Collect {
    pub deadline: Deadline,
    pub by: By,
}

/// A queue's state, locked.
struct Locked<'a>(MutexGuard<'a, Option<Core>>);

impl Locked<'_> {
    fn core(&mut self) -> Result<&mut Core> {
        match self.0.as_mut() {
            Some(core) => Ok(core),
            None => fail!(ECHILD, "the queue is the parent process's"),
        }
    }
}

/// Room for what the kernel reports at once.
pub(super) type Room = [MaybeUninit<Event>; AT_ONCE];

impl Queue {
    /// Applies the changes, then waits for events, if there is room for any;
    /// how many there are. What fails leaves the room as it was.
    #[inline(always)]
    pub(super) fn control(
        &self,
        by: Option<&Lent>,
        changes: &mut Changes,
        sink: &mut Sink,
        how: Collect,
    ) -> Result<usize> {
        let result = self.apply_and_collect(by, changes, sink, how);
        if result.is_err() {
            sink.take_back();
        }
        result
    }

    fn apply_and_collect(
        &self,
        by: Option<&Lent>,
        changes: &mut Changes,
        sink: &mut Sink,
        how: Collect,
    ) -> Result<usize> {
        if !sink.is_full() {
            // Its own, if it has one, was looked at just now.
            registry::sweep_now_and_then(usize::from(matches!(how.by, By::Number(_))));
        }
        let (mut locked, rest) = self.apply(self.lock(by)?, by, changes, sink)?;
        if sink.filled() > 0 || sink.is_full() || rest {
            let core = locked.core()?;
            // Where that fails, a call that collects says so.
            let _ = core.renew_signals();
            self.settle(core)?;
            return Ok(sink.filled());
        }
        self.collect(locked, by, sink, how)
    }

    /// Begins an operation whose end is an event with this ident.
    pub(super) fn begin_operation(
        &self,
        by: Option<&Lent>,
        request: Request,
        ident: u64,
        udata: u64,
    ) -> Result<()> {
        let mut locked = self.lock(by)?;
        let core = locked.core()?;
        core.begin_operation(request, ident, udata)?;
        // It has begun, whatever becomes of this: the next call settles it.
        let _ = self.settle(core);
        Ok(())
    }

    /// Has an operation end soon.
    pub(super) fn cancel_operation(&self, by: Option<&Lent>, ident: u64) -> Result<()> {
        let mut locked = self.lock(by)?;
        let core = locked.core()?;
        core.cancel_operation(ident)?;
        core.take_operations();
        self.settle(core)
    }

    /// Applies the changes. What fails, and what asks for a receipt, gets an
    /// entry; true: there was no room for a receipt, and the rest was not
    /// applied.
    fn apply<'a>(
        &'a self,
        mut locked: Locked<'a>,
        by: Option<&Lent>,
        changes: &mut Changes,
        sink: &mut Sink,
    ) -> Result<(Locked<'a>, bool)> {
        while let Some(change) = changes.take() {
            let mut result = self.change(locked.core()?, &change);
            if lacks_descriptors(&result) {
                // Other queues are looked at with none locked.
                drop(locked);
                registry::sweep();
                locked = self.lock(by)?;
                result = self.change(locked.core()?, &change);
            }
            if result.is_ok() && change.flags & EV_RECEIPT == 0 {
                continue;
            }
            let errno = result.as_ref().err().map_or(0, |error| -error.errno.negated());
            let entry = Kevent { flags: EV_ERROR, data: errno.into(), ..change };
            if !sink.push_entry(entry)? {
                if result.is_err() {
                    self.settle(locked.core()?)?;
                }
                return result.map(|()| (locked, true));
            }
        }
        Ok((locked, false))
    }

    fn change(&self, core: &mut Core, change: &Kevent) -> Result<()> {
        core.change(change).map_err(|error| match error.errno {
            // The kernel calls it a circle.
            Errno::ELOOP if self.ask_behind(change.ident as RawFd).is_ok() => {
                error!(Errno::EINVAL, "fd {} is the queue itself", change.ident as RawFd)
            }
            _ => error,
        })
    }

    /// All that one call delivers it delivers without giving up the lock, so
    /// that nothing comes twice and nothing has to be given back.
    fn collect<'a>(
        &'a self,
        mut locked: Locked<'a>,
        by: Option<&Lent>,
        sink: &mut Sink,
        how: Collect,
    ) -> Result<usize> {
        let mut room = [MaybeUninit::uninit(); AT_ONCE];
        let mut listens = matches!(how.by, By::Number(_));
        loop {
            let core = locked.core()?;
            // It has delivered nothing yet.
            sink.pass = core.next_pass();
            core.renew_signals()?;
            core.look_at_drained();
            core.first_look(sink);
            let is_quiet = sink.filled() == 0 && core.active.is_empty();
            let mut more = true;
            if is_quiet && !matches!(how.deadline, Deadline::Now) {
                self.settle(core)?;
                let slice = match (core.is_stuck(), listens) {
                    (true, _) => STUCK_NS,
                    (false, true) => LISTEN_NS,
                    (false, false) => i64::MAX,
                };
                let left = at_most(how.deadline, slice);
                (locked, more) = self.wait(locked, by, how.by, left, (&mut room, sink))?;
            }
            let core = locked.core()?;
            if more
                && let Err(errno) = core.take_ready(&mut room, sink)
                && sink.filled() == 0
            {
                return Err(errno.into());
            }
            core.expire_timers();
            core.take_active(sink);
            // Without memory, or descriptors, it is tried again.
            let is_fresh = core.needs_other_set() && self.rebuild(core).is_ok();
            if is_fresh && sink.filled() == 0 {
                continue;
            }
            if sink.filled() > 0 || how.deadline.passed() {
                // What cannot be set now is set by the next call.
                let _ = self.settle(core);
                return Ok(sink.filled());
            }
            // Those that are leaving are woken one by one, and the last that
            // has come to wait first.
            let is_in_vain = core.has_many_strays() || core.crowd.has_to_leave();
            drop(locked);
            if is_in_vain {
                // There is no other set to be had, or others go first.
                wait::pause(how.deadline, || interrupted(how.by))?;
            }
            if let By::Number(number) = how.by {
                registry::look_at(number);
                // Nobody else is there to close it.
                listens = !thread::is_the_only_one();
            }
            locked = self.lock(by)?;
        }
    }

    /// Waits, and takes what the kernel has reported; true: it may have more.
    fn wait<'a>(
        &'a self,
        locked: Locked<'a>,
        by: Option<&Lent>,
        whose: By,
        left: Option<i64>,
        (room, sink): (&mut Room, &mut Sink),
    ) -> Result<(Locked<'a>, bool)> {
        let wanted = sink.left().min(AT_ONCE);
        let places = room.get_mut(..wanted).unwrap_or_default();
        let mut locked = locked;
        let removed = locked.core()?.registrations.removed();
        let (mut locked, result) = self.wait_unlocked(locked, by, places, left)?;
        let core = locked.core()?;
        sink.pass = core.next_pass();
        match result {
            // They may be of others by now: they are looked at, and what is
            // ready is delivered from there.
            Ok(events) if core.registrations.may_have_come_again(removed) => {
                core.take_events(events, &mut Sink::none());
                Ok((locked, true))
            }
            Ok(events) => {
                let unknown = core.take_events(events, sink);
                Ok((locked, unknown > 0 || events.len() == wanted))
            }
            // The signal may be what is waited for.
            Err(Errno::EINTR) if core.take_signals() => Ok((locked, false)),
            Err(Errno::EINTR) => {
                drop(locked);
                interrupted(whose)?;
                Ok((self.lock(by)?, false))
            }
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits, while others may have the lock; what the kernel has reported,
    /// which may be outdated by now.
    #[inline]
    fn wait_unlocked<'a, 'b>(
        &'a self,
        mut locked: Locked<'a>,
        by: Option<&Lent>,
        room: &'b mut [MaybeUninit<Event>],
        left: Option<i64>,
    ) -> Result<(Locked<'a>, std::result::Result<&'b [Event], Errno>)> {
        let core = locked.core()?;
        let main = core.set.main();
        core.crowd.enter();
        if let Some(by) = by {
            by.waiting.fetch_add(1, Ordering::Relaxed);
        }
        drop(locked);
        let result = epoll::wait(main, room, left);
        if !is_here(self.epoch.load(Ordering::Relaxed)) {
            fail!(ECHILD, "the process forked during the wait, and this is the child");
        }
        let mut locked = Locked(self.core.lock());
        let core = locked.core()?;
        self.come_back(core, by, main);
        if let Err(error) = self.check(by) {
            // What the kernel will not say again is for the others.
            core.take_events(result.unwrap_or_default(), &mut Sink::none());
            let _ = self.settle(core);
            return Err(error);
        }
        Ok((locked, result))
    }

    /// After a wait in this epoll, by this handle.
    fn come_back(&self, core: &mut Core, by: Option<&Lent>, main: RawFd) {
        let leaves = by.is_some_and(|by| by.closed.load(Ordering::Relaxed));
        let in_use = main == core.set.main();
        let others = core.crowd.come_back(in_use, |set| set.main() == main, leaves);
        if let Some(by) = by {
            by.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        if core.is_alarmed() {
            self.pass_on(core, others);
        }
    }

    /// The alarm wakes one thread at a time: the next one, if there is one
    /// that has to come back. `others`: there is, in a set before this one.
    fn pass_on(&self, core: &mut Core, others: bool) {
        match core.crowd.pass_on(others, self.closed.load(Ordering::Relaxed)) {
            Alarm::RingsAgain => core.alarm(),
            Alarm::Ends => core.end_alarm(),
            Alarm::Stays => {}
        }
    }

    /// A second handle was closed: those that wait by it come back.
    pub(super) fn send_home(&self, lent: &Lent) {
        let mut core = self.core.lock();
        lent.closed.store(true, Ordering::Release);
        let waiting = usize::try_from(lent.waiting.load(Ordering::Relaxed)).unwrap_or(0);
        if let Some(core) = core.as_mut()
            && core.crowd.send_home(waiting)
        {
            core.alarm();
        }
    }

    /// The state; unless it is closed.
    #[inline(always)]
    fn lock(&self, by: Option<&Lent>) -> Result<Locked<'_>> {
        let mut locked = Locked(self.core.lock());
        // Not before: who closes it, and finds the lock free, wakes those
        // that wait by then.
        self.check(by)?;
        if self.keep {
            self.revive(locked.core()?)?;
        }
        if !locked.core()?.set.is_intact() {
            fail!(EBADF, "the descriptors of the queue were closed");
        }
        Ok(locked)
    }

    fn check(&self, by: Option<&Lent>) -> Result<()> {
        let lent_closed = by.is_some_and(|by| by.closed.load(Ordering::Acquire));
        if lent_closed || self.closed.load(Ordering::Acquire) {
            fail!(ESTALE, "the queue was closed during the call");
        }
        Ok(())
    }

    /// Before others look: the queue is readable while there is an event.
    #[inline(always)]
    fn settle(&self, core: &mut Core) -> Result<()> {
        // Whether any of what follows has something to do.
        let is_settled = core.active.is_empty()
            && self.active.load(Ordering::Relaxed) == 0
            && !core.set.is_rung()
            && !core.timers.has_changed()
            && !core.notes.has_ended();
        if is_settled { Ok(()) } else { self.settle_rest(core) }
    }

    fn settle_rest(&self, core: &mut Core) -> Result<()> {
        core.take_ended();
        let timers_set = core.set_timers();
        let active = core.active.len();
        self.active.store(active as i64, Ordering::Relaxed);
        if active == 0 {
            core.set.silence();
        } else {
            core.set.ring();
        }
        timers_set.map_err(Error::from)
    }
}

fn lacks_descriptors(result: &Result<()>) -> bool {
    let errno = result.as_ref().err().map(|error| error.errno);
    matches!(errno, Some(Errno::EMFILE | Errno::ENFILE))
}

/// How soon what is stuck is tried again.
const STUCK_NS: i64 = 10_000_000;
/// How often it is looked whether another thread has closed the queue's
/// number.
const LISTEN_NS: i64 = 250_000_000;

fn at_most(deadline: Deadline, slice: i64) -> Option<i64> {
    let left = deadline.left_ns();
    if slice < i64::MAX { Some(left.map_or(slice, |left| left.min(slice))) } else { left }
}

fn interrupted(by: By) -> Result<()> {
    match by {
        By::Handle => wait::interrupted(),
        By::Number(_) => fail!(EINTR, "a signal handler interrupted the wait"),
    }
}

impl Core {
    /// Something is to be tried again, though nothing tells when.
    #[inline]
    fn is_stuck(&self) -> bool {
        self.aio.as_ref().is_some_and(Aio::is_stuck)
    }

    /// The list of those with events, and the kernel's, take turns in having
    /// the first place, where there is not enough for both.
    #[inline]
    fn first_look(&mut self, sink: &mut Sink) {
        if std::mem::take(&mut self.kernel_first) {
            return;
        }
        if !self.active.is_empty() {
            self.take_signalfd();
        }
        self.take_active(sink);
        self.kernel_first = sink.is_full();
    }

    /// Whether the kernel goes on reporting what nobody knows any more, or
    /// what is left of descriptors that were closed may soon be taken for
    /// others: their generations come again one day.
    fn needs_other_set(&self) -> bool {
        self.has_many_strays() || self.registrations.has_used_many(self.removed_before)
    }

    /// The kernel goes on reporting what nobody knows any more: a set is
    /// made anew when that has cost about as much.
    fn has_many_strays(&self) -> bool {
        const FEW: usize = 16;
        self.strays > self.registrations.len() / 4 + FEW
    }
}
