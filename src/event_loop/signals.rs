//! Signals: who watches which, and what came that was not delivered yet.
//!
//! All watchers of a signal in a loop share one subscription, however the
//! signal is seen (`sinks`). What came is taken from there once, and passed to
//! each of them. What a watcher cannot have now waits: a standard signal is a
//! difference of two counts, a real-time signal is kept with the watcher. It
//! goes back there if it cannot be delivered: where the watcher is disabled,
//! over its rate limit, or has a record that was not taken yet.

use super::calls::fresh_at;
use super::command::Command;
use super::core::{Core, INTERNAL};
use super::details::{self, Content, Details};
use super::dispatch::live;
use super::event::{Event, Target};
use super::flags::*;
use super::list::List;
use super::named::named;
use super::own_fds::OwnFd;
use super::record::{self, Record};
use super::running::Run;
use super::sinks::{Claim, Way};
use crate::errno::{Errno, Result, fail};
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

/// The number of the signalfd among the loop's own descriptors: behind the
/// eventfd and the clocks.
pub(super) const SIGNALFD: usize = super::desk::CLOCKS + 1;

/// How many signals one iteration takes from the signalfd, and how many real-
/// time signals it takes of one number; as many wait with a watcher.
const MOST: usize = QUEUED;

/// A real-time signal that waits with its watcher.
struct News {
    /// Greater than those of all that came before.
    number: u64,
    info: Siginfo,
}

struct Watch {
    /// Where its signal is in `Signals::list`.
    signal: usize,
    claim: Claim,
    /// Up to where it has what came.
    at: Position,
    /// Real-time signals that came and are not delivered.
    waiting: VecDeque<News>,
    /// Real-time signals that there was no room for.
    lost: u64,
}

/// A signal that has, or had, watchers.
struct Watched {
    signal: c_int,
    watchers: List,
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
pub(super) struct Signals {
    /// One of each signal; they stay, so that their places do.
    list: Vec<Watched>,
    watches: Map<u32, Watch>,
    signalfd: Option<Fd>,
    /// Room for the real-time signals that are passed on.
    room: Vec<Siginfo>,
    /// Some signal may have something to be delivered.
    pub due: bool,
}

/// The real-time signals that came since the last look.
struct Came {
    infos: Vec<Siginfo>,
    /// The place of the first.
    first: usize,
    lost: u64,
}

/// See evloop_add_signal.
pub(crate) fn add_signal(handle: i64, number: c_int, way: Way, target: Target) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    let signal = signal_hub::check(i64::from(number).cast_unsigned())?;
    if way == Way::Blocked {
        check_blocked(signal)?;
    }
    named.with(
        |core| core.add_signal(signal, way, target),
        |gate| {
            let signalfd = match way {
                Way::Blocked => Some(signal::descriptor(signal::bit(signal))?),
                Way::Handler { .. } => None,
            };
            let (claim, at) = Claim::new(named.desk, signal, way)?;
            let fresh = fresh_at(gate, &named, Source::Signal, target)?;
            fresh.record.node.third_spare().store(signal.into(), Relaxed);
            let command = Command::AddSignal(fresh.handle(), NewSignal { claim, at, signalfd });
            Ok(gate.publish(&fresh, &named, command))
        },
    )
}

/// See evloop_event_siginfo.
pub(crate) fn event_siginfo(event: &Event) -> Result<Siginfo> {
    match details::of(event, Source::Signal)? {
        Content::Signal(info) => Ok(info),
        Content::Process(_) => details::forgotten(event),
    }
}

/// A watcher that is about to be the loop's.
pub(super) struct NewSignal {
    claim: Claim,
    at: Position,
    /// For its signal alone, where another thread adds it.
    signalfd: Option<Fd>,
}

fn check_blocked(signal: c_int) -> Result<()> {
    if signal::query(signal).is_err() {
        fail!(EINVAL, "signal {} cannot be watched", signal);
    }
    if signal::blocked() & signal::bit(signal) == 0 {
        fail!(EBUSY, "this thread has not blocked signal {}", signal);
    }
    Ok(())
}

impl Watch {
    /// Takes in the real-time signals that came, as far as they are its.
    fn take_in(&mut self, came: &Came, details: &mut Details) {
        let skipped = self.at.place.saturating_sub(came.first).min(came.infos.len());
        for info in came.infos.iter().skip(skipped) {
            let number = details.number();
            self.keep(News { number, info: *info });
        }
        self.at.place = self.at.place.max(came.first + came.infos.len());
        self.lost = self.lost.saturating_add(came.lost.saturating_sub(self.at.lost));
        self.at.lost = self.at.lost.max(came.lost);
    }

    /// Keeps a real-time signal: in its place, if it was on its way already.
    fn keep(&mut self, news: News) {
        if self.waiting.len() >= MOST || self.waiting.try_reserve(1).is_err() {
            self.lost = self.lost.saturating_add(1);
        } else {
            details::insert(&mut self.waiting, news, |news| news.number);
        }
    }

    fn take_waiting(&mut self) -> Option<News> {
        let news = self.waiting.pop_front()?;
        if self.waiting.is_empty() {
            // Mostly nothing waits.
            self.waiting = VecDeque::new();
        }
        Some(news)
    }
}

impl Core {
    fn add_signal(&mut self, signal: c_int, way: Way, target: Target) -> Result<i64> {
        let (claim, at) = Claim::new(self.desk, signal, way)?;
        let fresh = self.fresh(Source::Signal, target)?;
        fresh.record.node.third_spare().store(signal.into(), Relaxed);
        let new = NewSignal { claim, at, signalfd: None };
        match self.signal_added(fresh.index, fresh.record, new) {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.give_back(&fresh);
                Err(error)
            }
        }
    }

    /// Takes over a watcher.
    pub fn signal_added(&mut self, index: u32, record: &Record, new: NewSignal) -> Result<()> {
        let NewSignal { claim, at, signalfd } = new;
        let signal = self.signal_place(claim.signal)?;
        let room = if signal_hub::is_real_time(claim.signal) { MOST } else { 0 };
        let signals = &mut self.signals;
        if signals.watches.try_reserve(1).is_err() || signals.room.try_reserve(room).is_err() {
            fail!(ENOMEM, "no memory to watch signal {}", claim.signal);
        }
        let is_blocked = claim.way == Way::Blocked;
        if is_blocked {
            self.watch_blocked(claim.signal, signalfd)?;
        }
        if let Some(watched) = self.signals.list.get_mut(signal) {
            watched.watchers.push(index, record);
            watched.blocked += usize::from(is_blocked);
        }
        let watch = Watch { signal, claim, at, waiting: VecDeque::new(), lost: 0 };
        self.signals.watches.insert_reserved(index, watch);
        self.signal_due(index);
        Ok(())
    }

    /// Where a signal is in the list.
    fn signal_place(&mut self, signal: c_int) -> Result<usize> {
        let list = &mut self.signals.list;
        if let Some(place) = list.iter().position(|watched| watched.signal == signal) {
            return Ok(place);
        }
        if list.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory to watch signal {}", signal);
        }
        let last = Siginfo { signo: signal, ..Siginfo::default() };
        let (watchers, next) = (List::default(), 0);
        let (blocked, due, count, lost) = (0, false, 0, 0);
        list.push_reserved(Watched { signal, watchers, next, blocked, due, count, lost, last });
        Ok(list.len() - 1)
    }

    /// Has a watcher looked at in this iteration, or the next one.
    pub fn signal_due(&mut self, index: u32) {
        let Some(watch) = self.signals.watches.get(&index) else { return };
        if let Some(watched) = self.signals.list.get_mut(watch.signal) {
            watched.due = true;
        }
        self.signals.due = true;
    }

    /// Has the signalfd take a signal, too; `fresh` is one for that alone.
    fn watch_blocked(&mut self, number: c_int, fresh: Option<Fd>) -> Result<()> {
        let mask = self.signals.mask() | signal::bit(number);
        if let Some(known) = &self.signals.signalfd {
            let known = known.check().ok_or(Errno::EBADF)?;
            return Ok(signal::set_descriptor(known, mask)?);
        }
        let fresh = match fresh {
            Some(fresh) => fresh,
            None => signal::descriptor(mask)?,
        };
        register_signalfd(self.own_epoll()?, fresh.raw())?;
        self.fd_is_ours(OwnFd::Signalfd, fresh.raw());
        self.signals.signalfd = Some(fresh);
        Ok(())
    }

    pub fn signal_close(&mut self, index: u32, record: &Record) {
        let Some(watch) = self.signals.watches.remove(&index) else { return };
        let Some(watched) = self.signals.list.get_mut(watch.signal) else { return };
        if watched.next == index {
            watched.next = List::after(record);
        }
        watched.watchers.remove(record);
        if watch.claim.way == Way::Blocked {
            watched.blocked -= 1;
            if watched.blocked == 0 {
                self.unwatch_blocked();
            }
        }
        if self.signals.watches.is_empty() {
            self.signals.watches.try_shrink();
            self.signals.room = Vec::new();
        }
    }

    /// The signalfd is for fewer signals from now on.
    fn unwatch_blocked(&mut self) {
        let mask = self.signals.mask();
        let Some(known) = &self.signals.signalfd else { return };
        if mask == 0 {
            let _ = epoll::delete(self.epoll(), known.raw());
            self.desk.own.set(OwnFd::Signalfd, -1);
            self.signals.signalfd = None;
        } else if let Some(known) = known.check() {
            // A set of signals that is smaller than one that was good.
            let _ = signal::set_descriptor(known, mask);
        }
    }

    /// Takes blocked signals that are pending, for all who subscribe to them.
    pub fn take_signalfd(&mut self) {
        if let Some(signalfd) = self.signals.signalfd.as_ref().and_then(Fd::check) {
            signal_hub::take_pending(signalfd, MOST, self.desk.handle());
            self.signals.due = true;
        }
    }

    /// Takes what came of a signal; `None`: nothing since the last time,
    /// unless it is `due`.
    fn take_signals(&mut self, place: usize, due: bool) -> Option<Came> {
        let Signals { list, room, due: some_due, .. } = &mut self.signals;
        let watched = list.get_mut(place)?;
        let sinks = self.desk.sinks.lock();
        let subscription = sinks.get(watched.signal)?;
        // In this order: what came with a signal is there before its count.
        let (count, lost) = (subscription.count(), subscription.lost());
        if !due && (count, lost) == (watched.count, watched.lost) {
            return None;
        }
        (watched.count, watched.lost) = (count, lost);
        let first = subscription.place();
        let mut infos = Vec::new();
        if !signal_hub::is_real_time(watched.signal) {
            if let Some(info) = subscription.take() {
                watched.last = info;
            }
            return Some(Came { infos, first, lost });
        }
        std::mem::swap(&mut infos, room);
        while infos.len() < MOST
            && infos.try_reserve(1).is_ok()
            && let Some(info) = subscription.take()
        {
            infos.push_reserved(info);
        }
        watched.due |= infos.len() >= MOST;
        *some_due |= watched.due;
        Some(Came { infos, first, lost })
    }

    /// The next event of a watcher that something is waiting for.
    fn next_signal(&mut self, index: u32, handle: i64) -> Option<Event> {
        let watch = self.signals.watches.get_mut(&index)?;
        let watched = self.signals.list.get(watch.signal)?;
        let mut event = Event::new(handle, Source::Signal as i32);
        event.result = watched.signal;
        if signal_hub::is_real_time(watched.signal) {
            if let Some(news) = watch.take_waiting() {
                event.count = 1;
                event.reserved = self.details.put(news.number, handle, Content::Signal(news.info));
                return Some(event);
            }
            if watch.lost == 0 {
                return None;
            }
            event.count = std::mem::take(&mut watch.lost);
            event.events = ERROR;
            event.result = Errno::EOVERFLOW.negated();
            return Some(event);
        }
        event.count = watched.count.saturating_sub(watch.at.count);
        if event.count == 0 {
            return None;
        }
        watch.at.count = watched.count;
        event.reserved = self.details.add(handle, Content::Signal(watched.last));
        Some(event)
    }

    /// An event that was not seen: what it stands for waits again.
    pub fn signal_put_back(&mut self, index: u32, event: &Event) {
        let content = self.details.take(event.reserved);
        self.signal_due(index);
        let Some(watch) = self.signals.watches.get_mut(&index) else { return };
        if event.events & ERROR != 0 {
            watch.lost = watch.lost.saturating_add(event.count);
        } else if signal_hub::is_real_time(event.result) {
            let info = match content {
                Some(Content::Signal(info)) => info,
                _ => Siginfo { signo: event.result, ..Siginfo::default() },
            };
            watch.keep(News { number: event.reserved, info });
        } else {
            watch.at.count = watch.at.count.saturating_sub(event.count);
        }
    }

    /// A record of a signal is about to be seen. What came to the watcher
    /// since then belongs to it, or is the next record.
    pub fn signal_taken(&mut self, index: u32, record: &Record, event: &mut Event) {
        self.details.set_held(event.reserved, false);
        if record.flags.load(Relaxed) & (ENABLED | SUSPENDED | LIMITED) != ENABLED {
            return self.signal_due(index);
        }
        self.pass_on_signal(index);
        let Some(later) = self.next_signal(index, event.watcher) else { return };
        if later.events & ERROR != 0 || signal_hub::is_real_time(event.result) {
            // It takes the place of the one that was taken.
            self.hold(later);
            return;
        }
        let _ = self.details.take(event.reserved);
        (event.count, event.reserved) = (event.count.saturating_add(later.count), later.reserved);
    }

    /// Passes on what came of the signal of a watcher, outside of an
    /// iteration.
    fn pass_on_signal(&mut self, index: u32) {
        let Some(watch) = self.signals.watches.get(&index) else { return };
        let place = watch.signal;
        let Some(came) = self.take_signals(place, false) else { return };
        // The others' events are for the next iteration.
        self.signal_due(index);
        if !came.infos.is_empty() || came.lost > 0 {
            self.each_signal_watch(place, |watch, details| watch.take_in(&came, details));
        }
        self.give_room_back(came);
    }

    fn each_signal_watch(
        &mut self,
        place: usize,
        mut change: impl FnMut(&mut Watch, &mut Details),
    ) {
        let watchers = self.signals.list.get(place).map(|watched| watched.watchers.iter());
        for (index, _) in watchers.into_iter().flatten() {
            if let Some(watch) = self.signals.watches.get_mut(&index) {
                change(watch, &mut self.details);
            }
        }
    }

    fn give_room_back(&mut self, mut came: Came) {
        if came.infos.capacity() > 0 && !self.signals.watches.is_empty() {
            came.infos.clear();
            self.signals.room = came.infos;
        }
    }

    /// The signalfd, too, in another set.
    pub fn register_signals(&self, epoll: RawFd) -> Result<()> {
        match &self.signals.signalfd {
            Some(signalfd) => register_signalfd(epoll, signalfd.raw()),
            None => Ok(()),
        }
    }

    /// A new signalfd, for a forked child, if there is one.
    pub fn fresh_signalfd(&self, epoll: RawFd) -> Result<Option<Fd>> {
        let mask = self.signals.mask();
        if mask == 0 {
            return Ok(None);
        }
        let fresh = signal::descriptor(mask)?;
        register_signalfd(epoll, fresh.raw())?;
        Ok(Some(fresh))
    }

    pub fn replace_signalfd(&mut self, fresh: Option<Fd>) -> Option<Fd> {
        std::mem::replace(&mut self.signals.signalfd, fresh)
    }

    /// In a forked child, to which no signal was delivered yet.
    pub fn revive_signals(&mut self) -> Result<()> {
        let (failed, errno) = self.desk.sinks.lock().revive(self.desk.handle())?;
        for watched in &mut self.signals.list {
            (watched.count, watched.lost) = (0, 0);
        }
        let mut watches = std::mem::take(&mut self.signals.watches);
        for (index, watch) in &mut watches {
            watch.forget();
            let has_failed = failed & signal::bit(watch.claim.signal) != 0;
            if let Some(record) = record::get(*index).filter(|_| has_failed) {
                self.fail(record.handle(Kind::Watcher, *index), errno);
            }
        }
        self.signals.watches = watches;
        Ok(())
    }
}

impl Watch {
    /// In a forked child: what came was the parent's.
    fn forget(&mut self) {
        self.waiting = VecDeque::new();
        (self.lost, self.at) = (0, Position::default());
    }
}

impl Signals {
    /// The signals to be taken from the signalfd.
    fn mask(&self) -> Mask {
        let blocked = self.list.iter().filter(|watched| watched.blocked > 0);
        blocked.fold(0, |mask, watched| mask | signal::bit(watched.signal))
    }

    /// See `Core::abandon`.
    pub fn abandon(&self) {
        self.signalfd.iter().for_each(Fd::abandon);
    }
}

fn register_signalfd(epoll: RawFd, signalfd: RawFd) -> Result<()> {
    Ok(epoll::add(epoll, signalfd, libc::EPOLLIN as u32, INTERNAL | SIGNALFD as u64)?)
}

impl Core {
    /// Begins passing on what came of a signal, if there is something.
    fn begin_signal(&mut self, place: usize) -> Option<Came> {
        let due = std::mem::take(&mut self.signals.list.get_mut(place)?.due);
        let came = self.take_signals(place, due)?;
        let watched = self.signals.list.get_mut(place)?;
        watched.next = watched.watchers.first();
        Some(came)
    }

    /// The next watcher of the signal; callbacks may close any of them.
    fn next_signal_watcher(&mut self, place: usize) -> Option<(u32, &'static Record)> {
        let watched = self.signals.list.get_mut(place)?;
        let index = watched.next;
        let record = record::get(index).filter(|_| index != 0)?;
        watched.next = List::after(record);
        Some((index, record))
    }
}

impl Run {
    /// Delivers the signals that came.
    pub fn signals(&self) -> Result<()> {
        // SAFETY: no other reference to the core; nor below.
        let signals = unsafe { &mut self.core().signals };
        if !std::mem::take(&mut signals.due) {
            return Ok(());
        }
        for place in 0..signals.list.len() {
            // SAFETY: as above.
            let Some(came) = unsafe { self.core() }.begin_signal(place) else { continue };
            // SAFETY: as above.
            while let Some((index, record)) = unsafe { self.core() }.next_signal_watcher(place) {
                self.signals_of(index, record, &came)?;
            }
            // SAFETY: as above.
            unsafe { self.core() }.give_room_back(came);
        }
        Ok(())
    }

    fn signals_of(&self, index: u32, record: &Record, came: &Came) -> Result<()> {
        let handle = record.handle(Kind::Watcher, index);
        // SAFETY: no other reference to the core; nor below.
        let core = unsafe { self.core() };
        if let Some(watch) = core.signals.watches.get_mut(&index) {
            watch.take_in(came, &mut core.details);
        }
        for _ in 0..MOST {
            let is_ready = record.flags.load(Relaxed) & (ENABLED | SUSPENDED | HELD) == ENABLED;
            if live(handle).is_none() || !is_ready {
                return Ok(());
            }
            // SAFETY: as above.
            let Some(event) = (unsafe { self.core() }).next_signal(index, handle) else {
                return Ok(());
            };
            self.emit(event, record)?;
        }
        // SAFETY: as above.
        unsafe { self.core() }.signal_due(index);
        Ok(())
    }
}
