//! A queue's signals: how each is seen, and what wakes the queue.
//!
//! All knotes of a signal share one subscription, which counts. A knote keeps
//! the count up to which it has delivered, as its state.

use super::super::epoll_set::{self, EpollSet};
use super::super::event::FILTER_SIGNAL;
use super::super::knote::*;
use super::super::store::Store;
use crate::errno::{Errno, Result, fail};
use crate::signal_hub::{self, Handler, Subscription};
use crate::sys::eventfd;
use crate::sys::fd::Fd;
use crate::sys::signal::{self, Mask};
use crate::util::alloc::TryVec;
use crate::util::bug_or;
use crate::util::try_box;
use crate::wakeup::Wakeup;
use std::ffi::c_int;

/// The state of a knote that has no part in a subscription.
pub(in super::super) const DETACHED: i64 = -1;

struct QueueSignalWatch {
    number: c_int,
    /// Before what it wakes.
    subscription: Subscription,
    /// A handler over the program's disposition, where a knote was added by a
    /// thread that does not block the signal.
    handler: Option<Handler>,
    /// It is taken from the signalfd, where one was added by a thread that
    /// does.
    blocked: bool,
    /// How many knotes there are, and how many of them are enabled.
    knotes: usize,
    enabled: usize,
    /// The count up to which the knotes were activated.
    seen: u64,
}

pub(in super::super) struct QueueSignals {
    /// One for each signal.
    watches: Vec<QueueSignalWatch>,
    source: Option<SignalWakeup>,
    signalfd: Option<Fd>,
}

/// What subscriptions wake the queue by.
struct SignalWakeup {
    /// Always readable.
    eventfd: Fd,
    /// Handlers know its address.
    wakeup: Box<Wakeup>,
}

impl SignalWakeup {
    fn new() -> Result<Self> {
        match try_box(Wakeup::new()) {
            Some(wakeup) => Ok(Self { eventfd: eventfd::create(1)?, wakeup }),
            None => fail!(ENOMEM, "no memory to watch signals"),
        }
    }

    /// The number that handlers are given.
    fn number(&self) -> i64 {
        let address = std::ptr::from_ref(&*self.wakeup).expose_provenance();
        // An address of a process is never negative.
        i64::try_from(address).unwrap_or(-1)
    }

    fn aim_at(&self, set: &EpollSet) {
        self.wakeup.aim(set.identity(), self.eventfd.raw());
    }
}

/// What subscriptions do to wake a queue.
fn wake_queue(number: i64) {
    let address = usize::try_from(number).unwrap_or(0);
    let wakeup = std::ptr::with_exposed_provenance::<Wakeup>(address);
    // SAFETY: null, or of a `SignalWakeup`, which goes after all subscriptions
    // that have its number; and those wait for their handlers.
    if let Some(wakeup) = unsafe { wakeup.as_ref() } {
        // Without its descriptors the queue is not woken any more.
        let _ = wakeup.wake(epoll_set::SIGNALS);
    }
}

impl QueueSignals {
    pub const fn new() -> Self {
        Self { watches: Vec::new(), source: None, signalfd: None }
    }

    pub fn fds(&self) -> impl Iterator<Item = &Fd> {
        self.source.iter().map(|source| &source.eventfd).chain(&self.signalfd)
    }

    /// In a forked child: they are the parent's, too.
    pub fn drop_fds(&mut self) {
        self.source = None;
        self.signalfd = None;
    }

    /// Has another set watch its descriptors.
    pub fn add_to(&self, set: &EpollSet) -> std::result::Result<(), Errno> {
        if let Some(source) = &self.source {
            set.add_signals(source.eventfd.raw())?;
        }
        match &self.signalfd {
            Some(signalfd) => set.add_signalfd(signalfd.raw()),
            None => Ok(()),
        }
    }

    /// Has handlers wake this set from now on, which watches its descriptors.
    pub fn aim_at(&self, set: &EpollSet) {
        if let Some(source) = &self.source {
            source.aim_at(set);
        }
    }

    /// The number to wake the queue by.
    fn wakeup(&self) -> i64 {
        self.source.as_ref().map_or(-1, SignalWakeup::number)
    }

    /// The signals to be taken from the signalfd.
    fn mask(&self) -> Mask {
        let blocked = self.watches.iter().filter(|watch| watch.blocked);
        blocked.fold(0, |mask, watch| mask | signal::bit(watch.number))
    }

    fn index_of(&self, number: c_int) -> Option<usize> {
        self.watches.iter().position(|watch| watch.number == number)
    }

    fn get_mut(&mut self, number: c_int) -> Option<&mut QueueSignalWatch> {
        self.watches.iter_mut().find(|watch| watch.number == number)
    }
}

impl QueueSignals {
    /// In a forked child that keeps the queue: what wakes is the parent's, and
    /// so is what counts.
    pub fn renew_watches(&mut self, store: &mut Store, set: &EpollSet) -> Result<()> {
        let watches = std::mem::take(&mut self.watches);
        let mut result = Ok(());
        for QueueSignalWatch { number, .. } in watches {
            each_knote(store, number, |knote| knote.state = DETACHED);
            let mut cursor = first_of(store, number);
            while let Some(knote) = store.knotes.get(cursor) {
                let (id, next) = (cursor, knote.next);
                result = result.and(self.attach(store, set, id));
                cursor = next;
            }
        }
        result
    }

    /// Begins to watch a knote's signal: by a signalfd if the calling thread
    /// blocks it, since no handler would run.
    pub fn attach(&mut self, store: &mut Store, set: &EpollSet, id: u32) -> Result<()> {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        let (number, enabled) = (signal_hub::check(knote.ident)?, !knote.is(DISABLED));
        if self.index_of(number).is_none() {
            self.subscribe(set, number)?;
        }
        let is_blocked = signal::blocked() & signal::bit(number) != 0;
        if let Err(error) = self.have_seen(set, number, is_blocked) {
            self.drop_unused_watch(set, number);
            return Err(error);
        }
        let Some(watch) = self.get_mut(number) else { bug_or!(return Ok(())) };
        watch.knotes += 1;
        if enabled {
            self.count_enabled(number, true);
        }
        // After that: what it counts wakes the queue.
        let count = self.get_mut(number).map_or(0, |watch| watch.subscription.count());
        if let Some(knote) = store.knotes.get_mut(id) {
            knote.state = count.cast_signed();
        }
        Ok(())
    }

    fn subscribe(&mut self, set: &EpollSet, number: c_int) -> Result<()> {
        if self.watches.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory to watch signal {}", number);
        }
        self.make_source(set)?;
        let subscription = signal_hub::subscribe(
            number,
            signal_hub::SignalSink { wake: wake_queue, number: -1 },
            false,
        )?;
        let watch = QueueSignalWatch {
            number,
            subscription,
            handler: None,
            blocked: false,
            knotes: 0,
            enabled: 0,
            seen: 0,
        };
        self.watches.push_reserved(watch);
        Ok(())
    }

    /// Makes sure that a signal is seen, by a handler or the signalfd.
    fn have_seen(&mut self, set: &EpollSet, number: c_int, is_blocked: bool) -> Result<()> {
        if is_blocked {
            self.watch_blocked(set, number)?;
        }
        let Some(watch) = self.get_mut(number) else { bug_or!(return Ok(())) };
        if is_blocked {
            watch.blocked = true;
        } else if watch.handler.is_none() {
            watch.handler = Some(Handler::new(number)?);
        }
        Ok(())
    }

    fn make_source(&mut self, set: &EpollSet) -> Result<()> {
        if self.source.is_none() {
            let source = SignalWakeup::new()?;
            set.add_signals(source.eventfd.raw())?;
            source.aim_at(set);
            self.source = Some(source);
        }
        Ok(())
    }

    /// Has the signalfd take a signal, too.
    fn watch_blocked(&mut self, set: &EpollSet, number: c_int) -> Result<()> {
        let mask = self.mask() | signal::bit(number);
        if let Some(known) = &self.signalfd {
            let known = known.check().ok_or(Errno::EBADF)?;
            return Ok(signal::set_descriptor(known, mask)?);
        }
        let fresh = signal::descriptor(mask)?;
        set.add_signalfd(fresh.raw())?;
        self.signalfd = Some(fresh);
        Ok(())
    }

    /// A knote is enabled, or is not any more: the queue is only woken for
    /// those that are.
    fn count_enabled(&mut self, number: c_int, on: bool) {
        let wakeup = self.wakeup();
        let Some(watch) = self.get_mut(number) else { bug_or!(return) };
        let before = watch.enabled;
        watch.enabled = if on { before + 1 } else { before.saturating_sub(1) };
        if (before > 0) != (watch.enabled > 0) {
            watch.subscription.set_wakeup(if on { wakeup } else { -1 });
        }
    }

    /// The last knote closes what woke it, or was taken from.
    pub fn detach(&mut self, store: &mut Store, set: &EpollSet, id: u32) {
        if let Some(number) = signal_of(store, id) {
            let enabled = store.knotes.get(id).is_some_and(|knote| !knote.is(DISABLED));
            if enabled {
                self.count_enabled(number, false);
            }
            if let Some(knote) = store.knotes.get_mut(id) {
                knote.state = DETACHED;
            }
            if let Some(watch) = self.get_mut(number) {
                watch.knotes -= 1;
            }
            self.drop_unused_watch(set, number);
        }
        if self.watches.is_empty()
            && let Some(source) = self.source.take()
        {
            set.drop_own(source.eventfd.raw());
        }
    }

    fn drop_unused_watch(&mut self, set: &EpollSet, number: c_int) {
        let Some(index) = self.index_of(number) else { return };
        if self.watches.get(index).is_none_or(|watch| watch.knotes > 0) {
            return;
        }
        let watch = self.watches.swap_remove(index);
        if watch.blocked {
            self.unwatch_blocked(set);
        }
    }

    /// The signalfd is for fewer signals from now on.
    fn unwatch_blocked(&mut self, set: &EpollSet) {
        let mask = self.mask();
        let Some(known) = &self.signalfd else { return };
        if mask == 0 {
            set.drop_own(known.raw());
            self.signalfd = None;
        } else {
            // A set of signals that is smaller than one that was good.
            let _ = known.check().map(|known| signal::set_descriptor(known, mask));
        }
    }

    /// The count of a knote's signal since the last time.
    pub fn take_count(&mut self, store: &mut Store, id: u32) -> u64 {
        let Some(number) = signal_of(store, id) else { return 0 };
        let Some(watch) = self.get_mut(number) else { bug_or!(return 0) };
        let count = watch.subscription.count().cast_signed();
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return 0) };
        count.saturating_sub(std::mem::replace(&mut knote.state, count)).unsigned_abs()
    }

    /// A disabled knote is counted, and does not wake the queue.
    pub fn set_enabled(&mut self, store: &mut Store, id: u32, on: bool) {
        let Some(number) = signal_of(store, id) else { return };
        // Pending, those of before and after this would be one.
        self.take_signalfd(store);
        self.count_enabled(number, on);
        let Some(watch) = self.get_mut(number) else { bug_or!(return) };
        let count = watch.subscription.count().cast_signed();
        if on && store.knotes.get(id).is_some_and(|knote| knote.state < count) {
            store.activate(id);
        }
    }

    /// Signals were counted, or may have been: activates their knotes. Whether
    /// one was for a knote that is enabled.
    pub fn take(&mut self, store: &mut Store) -> bool {
        let mut counted = false;
        for index in 0..self.watches.len() {
            let Some(watch) = self.watches.get_mut(index) else { break };
            let (number, count) = (watch.number, watch.subscription.count());
            if std::mem::replace(&mut watch.seen, count) == count {
                continue;
            }
            let mut cursor = first_of(store, number);
            while let Some(knote) = store.knotes.get(cursor) {
                let (id, next) = (cursor, knote.next);
                if knote.state < count.cast_signed() {
                    counted |= !knote.is(DISABLED);
                    store.activate(id);
                }
                cursor = next;
            }
        }
        counted
    }

    /// Takes blocked signals that are pending, for all subscribers of them:
    /// before what was counted is delivered.
    pub fn take_signalfd(&mut self, store: &mut Store) {
        let Some(signalfd) = self.signalfd.as_ref().and_then(Fd::check) else { return };
        // What comes faster than it is read is left to the next look.
        const MOST: usize = 1 << 16;
        signal_hub::take_pending(signalfd, MOST, self.wakeup());
        self.take(store);
    }

    /// Puts handlers that the program has put its own over back on top, and
    /// sees what was counted until now.
    #[inline(always)]
    pub fn renew(&mut self) -> Result<()> {
        if self.watches.is_empty() { Ok(()) } else { self.renew_all() }
    }

    fn renew_all(&mut self) -> Result<()> {
        self.watches.iter().filter_map(|watch| watch.handler.as_ref()).try_for_each(Handler::renew)
    }
}

fn first_of(store: &Store, number: c_int) -> u32 {
    store.first_of(u64::from(number.unsigned_abs()), FILTER_SIGNAL)
}

fn each_knote(store: &mut Store, number: c_int, mut change: impl FnMut(&mut Knote)) {
    let mut cursor = first_of(store, number);
    while let Some(knote) = store.knotes.get_mut(cursor) {
        change(knote);
        cursor = knote.next;
    }
}

/// A knote's signal, if it is watched for it.
fn signal_of(store: &Store, id: u32) -> Option<c_int> {
    let knote = store.knotes.get(id).filter(|knote| knote.state != DETACHED)?;
    c_int::try_from(knote.ident).ok()
}
