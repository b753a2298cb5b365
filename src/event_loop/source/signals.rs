//! Signals: who watches which, and what came that was not delivered yet.
//!
//! All watchers of a signal in a loop share one subscription, however the
//! signal is seen (`sinks`). What came is taken from there once, and passed to
//! each of them. What a watcher cannot have now waits: a standard signal is a
//! difference of two counts, a real-time signal is kept with the watcher. It
//! goes back there if it cannot be delivered: where the watcher is disabled,
//! over its rate limit, or has a record that was not taken yet.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::event::Event;
use crate::event_loop::flags::*;
use crate::event_loop::own_fds::OwnFd;
use crate::event_loop::own_words::{INTERNAL, SIGNALFD};
use crate::event_loop::payload::{self, EventPayload, Payloads};
use crate::event_loop::resolve::wake_for_signal;
use crate::event_loop::shared::LoopShared;
use crate::event_loop::sinks::{Claim, NewSignal, SignalMode, Waking};
use crate::event_loop::slot::list::WatcherList;
use crate::event_loop::slot::{self, WatcherSlot};
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::io::Io;
use crate::handle::Kind;
use crate::hash::Map;
use crate::signal_hub::{self, Position, QUEUED, Siginfo};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::signal::{self, Mask};
use crate::util::alloc::{TryMap, TryVec};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// How many signals one iteration takes from the signalfd, and how many real-
/// time signals it takes of one number; as many wait with a watcher.
pub(in crate::event_loop) const MAX_PER_ROUND: usize = QUEUED;

/// How a loop is woken when a signal came.
fn waking(shared: &LoopShared) -> Waking {
    Waking { wake: wake_for_signal, handle: shared.handle() }
}

/// A part of the subscription of a loop; see [`Claim::new`].
pub(in crate::event_loop) fn claim(
    shared: &'static LoopShared,
    signal: c_int,
    mode: SignalMode,
) -> Result<(Claim, Position)> {
    Claim::new(&shared.sinks, waking(shared), signal, mode)
}

/// A real-time signal that waits with its watcher.
struct QueuedSignal {
    /// Greater than those of all that came before.
    number: u64,
    info: Siginfo,
}

struct SignalWatcher {
    /// Where its signal is in `SignalSource::list`.
    signal: usize,
    claim: Claim,
    /// Up to where it has what came.
    seen: Position,
    /// Real-time signals that came and are not delivered.
    waiting: VecDeque<QueuedSignal>,
    /// Real-time signals that there was no room for.
    lost: u64,
}

/// A signal that has, or had, watchers.
struct WatchedSignal {
    signal: c_int,
    watchers: WatcherList,
    /// The watcher that is next, while what came is passed to all of them.
    next: u32,
    /// How many of them take it from the signalfd.
    blocked: usize,
    /// A watcher may have something to be delivered though nothing came.
    due: bool,
    /// How many came, and were lost, when it was last looked at.
    count: u64,
    lost: u64,
    /// What came with the last standard signal.
    last: Siginfo,
}

#[derive(Default)]
pub(in crate::event_loop) struct SignalSource {
    /// One of each signal; they stay, so that their places do.
    list: Vec<WatchedSignal>,
    watchers: Map<u32, SignalWatcher>,
    signalfd: Option<Fd>,
    /// Room for the real-time signals that are passed on.
    buffer: Vec<Siginfo>,
    /// Some signal may have something to be delivered.
    pub due: bool,
}

/// The real-time signals that came since the last look.
pub(in crate::event_loop) struct SignalBatch {
    infos: Vec<Siginfo>,
    /// The place of the first.
    first: usize,
    lost: u64,
}

impl SignalWatcher {
    /// Takes in the real-time signals that came, as far as they are its.
    fn take_in(&mut self, batch: &SignalBatch, payloads: &mut Payloads) {
        let skipped = self.seen.index.saturating_sub(batch.first).min(batch.infos.len());
        for info in batch.infos.iter().skip(skipped) {
            let number = payloads.number();
            self.enqueue(QueuedSignal { number, info: *info });
        }
        self.seen.index = self.seen.index.max(batch.first + batch.infos.len());
        self.lost = self.lost.saturating_add(batch.lost.saturating_sub(self.seen.lost));
        self.seen.lost = self.seen.lost.max(batch.lost);
    }

    /// Keeps a real-time signal: in its place, if it was on its way already.
    fn enqueue(&mut self, queued: QueuedSignal) {
        if self.waiting.len() >= MAX_PER_ROUND || self.waiting.try_reserve(1).is_err() {
            self.lost = self.lost.saturating_add(1);
        } else {
            payload::insert(&mut self.waiting, queued, |queued| queued.number);
        }
    }

    fn take_waiting(&mut self) -> Option<QueuedSignal> {
        let queued = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            // Mostly nothing waits.
            self.waiting = VecDeque::new();
        }
        Some(queued)
    }
}

impl SignalSource {
    /// Takes over a watcher.
    pub fn added(
        &mut self,
        ctx: &mut SourceCtx,
        io: &mut Io,
        index: u32,
        slot: &WatcherSlot,
        new: NewSignal,
    ) -> Result<()> {
        let NewSignal { claim, seen, signalfd } = new;
        let signal = self.position_of(claim.signal)?;
        let capacity = if signal_hub::is_real_time(claim.signal) { MAX_PER_ROUND } else { 0 };
        let signals = &mut *self;
        if signals.watchers.try_reserve(1).is_err() || signals.buffer.try_reserve(capacity).is_err()
        {
            fail!(ENOMEM, "no memory to watch signal {}", claim.signal);
        }
        let is_blocked = claim.mode == SignalMode::Blocked;
        if is_blocked {
            self.watch_blocked(ctx, io, claim.signal, signalfd)?;
        }
        if let Some(entry) = self.list.get_mut(signal) {
            entry.watchers.push(index, slot);
            entry.blocked += usize::from(is_blocked);
        }
        let watcher = SignalWatcher { signal, claim, seen, waiting: VecDeque::new(), lost: 0 };
        self.watchers.insert_reserved(index, watcher);
        self.note_due(index);
        Ok(())
    }

    /// Where a signal is in the list.
    fn position_of(&mut self, signal: c_int) -> Result<usize> {
        let list = &mut self.list;
        if let Some(position) = list.iter().position(|entry| entry.signal == signal) {
            return Ok(position);
        }
        if list.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory to watch signal {}", signal);
        }
        let last = Siginfo { signo: signal, ..Siginfo::default() };
        let (watchers, next) = (WatcherList::default(), 0);
        let (blocked, due, count, lost) = (0, false, 0, 0);
        list.push_reserved(WatchedSignal {
            signal,
            watchers,
            next,
            blocked,
            due,
            count,
            lost,
            last,
        });
        Ok(list.len() - 1)
    }

    /// Has a watcher looked at in this iteration, or the next one.
    pub fn note_due(&mut self, index: u32) {
        let Some(watcher) = self.watchers.get(&index) else { return };
        if let Some(entry) = self.list.get_mut(watcher.signal) {
            entry.due = true;
        }
        self.due = true;
    }

    /// Has the signalfd take a signal, too; `fresh` is one for that alone.
    fn watch_blocked(
        &mut self,
        ctx: &mut SourceCtx,
        io: &mut Io,
        number: c_int,
        fresh: Option<Fd>,
    ) -> Result<()> {
        let mask = self.mask() | signal::bit(number);
        if let Some(known) = &self.signalfd {
            let known = known.check().ok_or(Errno::EBADF)?;
            return Ok(signal::set_descriptor(known, mask)?);
        }
        let fresh = match fresh {
            Some(fresh) => fresh,
            None => signal::descriptor(mask)?,
        };
        register_signalfd(ctx.own_epoll()?, fresh.raw())?;
        io.claim_fd(ctx, OwnFd::Signalfd, fresh.raw());
        self.signalfd = Some(fresh);
        Ok(())
    }

    pub fn close(&mut self, ctx: &mut SourceCtx, index: u32, slot: &WatcherSlot) {
        let Some(watcher) = self.watchers.remove(&index) else { return };
        let Some(entry) = self.list.get_mut(watcher.signal) else { return };
        if entry.next == index {
            entry.next = WatcherList::after(slot);
        }
        entry.watchers.remove(slot);
        if watcher.claim.mode == SignalMode::Blocked {
            entry.blocked -= 1;
            if entry.blocked == 0 {
                self.unwatch_blocked(ctx);
            }
        }
        if self.watchers.is_empty() {
            self.watchers.try_shrink();
            self.buffer = Vec::new();
        }
    }

    /// The signalfd is for fewer signals from now on.
    fn unwatch_blocked(&mut self, ctx: &mut SourceCtx) {
        let mask = self.mask();
        let Some(known) = &self.signalfd else { return };
        if mask == 0 {
            let _ = epoll::delete(ctx.epoll(), known.raw());
            ctx.shared.own.set(OwnFd::Signalfd, -1);
            self.signalfd = None;
        } else if let Some(known) = known.check() {
            // A set of signals that is smaller than one that was good.
            let _ = signal::set_descriptor(known, mask);
        }
    }

    /// Takes blocked signals that are pending, for all who subscribe to them.
    pub fn take_signalfd(&mut self, ctx: &mut SourceCtx) {
        if let Some(signalfd) = self.signalfd.as_ref().and_then(Fd::check) {
            signal_hub::take_pending(signalfd, MAX_PER_ROUND, ctx.shared.handle());
            self.due = true;
        }
    }

    /// Takes what came of a signal; `None`: nothing since the last time,
    /// unless it is `due`.
    fn take_batch(
        &mut self,
        ctx: &mut SourceCtx,
        position: usize,
        due: bool,
    ) -> Option<SignalBatch> {
        let SignalSource { list, buffer, due: some_due, .. } = &mut *self;
        let entry = list.get_mut(position)?;
        let mut sinks = ctx.shared.sinks.lock();
        let subscription = sinks.get(entry.signal)?;
        // In this order: what came with a signal is there before its count.
        let (count, lost) = (subscription.count(), subscription.lost());
        if !due && (count, lost) == (entry.count, entry.lost) {
            return None;
        }
        (entry.count, entry.lost) = (count, lost);
        let first = subscription.next_index();
        let mut infos = Vec::new();
        if !signal_hub::is_real_time(entry.signal) {
            if let Some(info) = subscription.take() {
                entry.last = info;
            }
            return Some(SignalBatch { infos, first, lost });
        }
        std::mem::swap(&mut infos, buffer);
        while infos.len() < MAX_PER_ROUND
            && infos.try_reserve(1).is_ok()
            && let Some(info) = subscription.take()
        {
            infos.push_reserved(info);
        }
        entry.due |= infos.len() >= MAX_PER_ROUND;
        *some_due |= entry.due;
        Some(SignalBatch { infos, first, lost })
    }

    /// The next event of a watcher that something is waiting for.
    pub fn next_event(&mut self, ctx: &mut SourceCtx, index: u32, handle: i64) -> Option<Event> {
        let watcher = self.watchers.get_mut(&index)?;
        let entry = self.list.get(watcher.signal)?;
        let mut event = Event::new(handle, Source::Signal as i32);
        event.result = entry.signal;
        if signal_hub::is_real_time(entry.signal) {
            if let Some(queued) = watcher.take_waiting() {
                event.count = 1;
                event.reserved =
                    ctx.payloads.put(queued.number, handle, EventPayload::Signal(queued.info));
                return Some(event);
            }
            if watcher.lost == 0 {
                return None;
            }
            event.count = std::mem::take(&mut watcher.lost);
            event.events = ERROR;
            event.result = Errno::EOVERFLOW.negated();
            return Some(event);
        }
        event.count = entry.count.saturating_sub(watcher.seen.count);
        if event.count == 0 {
            return None;
        }
        watcher.seen.count = entry.count;
        event.reserved = ctx.payloads.add(handle, EventPayload::Signal(entry.last));
        Some(event)
    }

    /// An event that was not seen: what it stands for waits again.
    pub fn requeue(&mut self, ctx: &mut SourceCtx, index: u32, event: &Event) {
        let payload = ctx.payloads.take(event.reserved);
        self.note_due(index);
        let Some(watcher) = self.watchers.get_mut(&index) else { return };
        if event.events & ERROR != 0 {
            watcher.lost = watcher.lost.saturating_add(event.count);
        } else if signal_hub::is_real_time(event.result) {
            let info = match payload {
                Some(EventPayload::Signal(info)) => info,
                _ => Siginfo { signo: event.result, ..Siginfo::default() },
            };
            watcher.enqueue(QueuedSignal { number: event.reserved, info });
        } else {
            watcher.seen.count = watcher.seen.count.saturating_sub(event.count);
        }
    }

    /// A record of a signal is about to be seen. What came to the watcher
    /// since then belongs to it, or is the next record, which is returned.
    pub fn taken(
        &mut self,
        ctx: &mut SourceCtx,
        index: u32,
        slot: &WatcherSlot,
        event: &mut Event,
    ) -> Option<Event> {
        ctx.payloads.set_retained(event.reserved, false);
        if slot.flags.load(Relaxed) & (ENABLED | RATE_LIMITED_NOW | HAS_RATE_LIMIT) != ENABLED {
            self.note_due(index);
            return None;
        }
        self.pass_on(ctx, index);
        let later = self.next_event(ctx, index, event.watcher)?;
        if later.events & ERROR != 0 || signal_hub::is_real_time(event.result) {
            // It takes the place of the one that was taken.
            return Some(later);
        }
        let _ = ctx.payloads.take(event.reserved);
        (event.count, event.reserved) = (event.count.saturating_add(later.count), later.reserved);
        None
    }

    /// Passes on what came of the signal of a watcher, outside of an
    /// iteration.
    fn pass_on(&mut self, ctx: &mut SourceCtx, index: u32) {
        let Some(watcher) = self.watchers.get(&index) else { return };
        let position = watcher.signal;
        let Some(batch) = self.take_batch(ctx, position, false) else { return };
        // The others' events are for the next iteration.
        self.note_due(index);
        if !batch.infos.is_empty() || batch.lost > 0 {
            self.each_watcher(ctx, position, |watcher, payloads| watcher.take_in(&batch, payloads));
        }
        self.return_buffer(batch);
    }

    fn each_watcher(
        &mut self,
        ctx: &mut SourceCtx,
        position: usize,
        mut change: impl FnMut(&mut SignalWatcher, &mut Payloads),
    ) {
        let watchers = self.list.get(position).map(|entry| entry.watchers.iter());
        for (index, _) in watchers.into_iter().flatten() {
            if let Some(watcher) = self.watchers.get_mut(&index) {
                change(watcher, &mut ctx.payloads);
            }
        }
    }

    pub fn return_buffer(&mut self, mut batch: SignalBatch) {
        if batch.infos.capacity() > 0 && !self.watchers.is_empty() {
            batch.infos.clear();
            self.buffer = batch.infos;
        }
    }

    /// The signalfd, too, in another set.
    pub fn register(&self, epoll: RawFd) -> Result<()> {
        match &self.signalfd {
            Some(signalfd) => register_signalfd(epoll, signalfd.raw()),
            None => Ok(()),
        }
    }

    /// A new signalfd, for a forked child, if there is one.
    pub fn fresh_signalfd(&self, epoll: RawFd) -> Result<Option<Fd>> {
        let mask = self.mask();
        if mask == 0 {
            return Ok(None);
        }
        let fresh = signal::descriptor(mask)?;
        register_signalfd(epoll, fresh.raw())?;
        Ok(Some(fresh))
    }

    pub fn replace_signalfd(&mut self, fresh: Option<Fd>) -> Option<Fd> {
        std::mem::replace(&mut self.signalfd, fresh)
    }

    /// In a forked child, to which no signal was delivered yet.
    pub fn revive(&mut self, ctx: &mut SourceCtx) -> Result<()> {
        let (failed, errno) = ctx.shared.sinks.lock().revive(waking(ctx.shared))?;
        for entry in &mut self.list {
            (entry.count, entry.lost) = (0, 0);
        }
        let mut watchers = std::mem::take(&mut self.watchers);
        for (index, watcher) in &mut watchers {
            watcher.forget();
            let has_failed = failed & signal::bit(watcher.claim.signal) != 0;
            if let Some(slot) = slot::get(*index).filter(|_| has_failed) {
                ctx.fail(slot.handle(Kind::Watcher, *index), errno);
            }
        }
        self.watchers = watchers;
        Ok(())
    }
}

impl SignalWatcher {
    /// In a forked child: what came was the parent's.
    fn forget(&mut self) {
        self.waiting = VecDeque::new();
        (self.lost, self.seen) = (0, Position::default());
    }
}

impl SignalSource {
    /// How many signals have, or had, watchers.
    pub fn count(&self) -> usize {
        self.list.len()
    }

    /// Passes on what came to one of the signal's watchers.
    pub fn take_in(&mut self, ctx: &mut SourceCtx, index: u32, batch: &SignalBatch) {
        if let Some(watcher) = self.watchers.get_mut(&index) {
            watcher.take_in(batch, &mut ctx.payloads);
        }
    }

    /// The signals to be taken from the signalfd.
    fn mask(&self) -> Mask {
        let blocked = self.list.iter().filter(|entry| entry.blocked > 0);
        blocked.fold(0, |mask, entry| mask | signal::bit(entry.signal))
    }

    /// See `LoopState::abandon`.
    pub fn abandon(&self) {
        self.signalfd.iter().for_each(Fd::close_now);
    }
}

fn register_signalfd(epoll: RawFd, signalfd: RawFd) -> Result<()> {
    Ok(epoll::add(epoll, signalfd, libc::EPOLLIN as u32, INTERNAL | SIGNALFD as u64)?)
}

impl SignalSource {
    /// Begins passing on what came of a signal, if there is something.
    pub fn begin(&mut self, ctx: &mut SourceCtx, position: usize) -> Option<SignalBatch> {
        let due = std::mem::take(&mut self.list.get_mut(position)?.due);
        let batch = self.take_batch(ctx, position, due)?;
        let entry = self.list.get_mut(position)?;
        entry.next = entry.watchers.first();
        Some(batch)
    }

    /// The next watcher of the signal; callbacks may close any of them.
    pub fn next_watcher(&mut self, position: usize) -> Option<(u32, &'static WatcherSlot)> {
        let entry = self.list.get_mut(position)?;
        let index = entry.next;
        let slot = slot::get(index).filter(|_| index != 0)?;
        entry.next = WatcherList::after(slot);
        Some((index, slot))
    }
}
