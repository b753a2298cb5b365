//! Signals: who watches which, and what came that was not delivered yet.
//!
//! A handler of the library's, or a signalfd that the loop has for all its
//! watchers of that kind, tells that something is there. What came stays with
//! its watcher until it is delivered, and goes back there if it cannot be:
//! where the watcher is disabled, over its rate limit, or has a record that
//! was not taken yet.

use super::api::ring_signals;
use super::calls::fresh_at;
use super::command::Command;
use super::core::{Core, INTERNAL};
use super::details::{self, Content, Details};
use super::dispatch::live;
use super::event::{Event, Target};
use super::flags::*;
use super::named::named;
use super::own_fds::OwnFd;
use super::record::{self, Record};
use super::running::Run;
use crate::errno::{Errno, Result, fail};
use crate::signals::{self, Bell, QUEUED, Siginfo, Subscription};
use crate::sync::Ordering::Relaxed;
use crate::sys::epoll;
use crate::sys::fd::Fd;
use crate::sys::signal::{self, Mask};
use crate::table::Kind;
use crate::util::alloc::TryVec;
use std::cell::Cell;
use std::collections::VecDeque;
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The number of the signalfd among the loop's own descriptors: behind the
/// eventfd and the clocks.
pub(super) const SIGNALFD: usize = super::desk::CLOCKS + 1;

/// How many signals one iteration takes from the signalfd, and how many real-
/// time signals it delivers to one watcher.
const MOST: usize = QUEUED;
/// How many one call reads.
const AT_ONCE: usize = 8;

/// Something to be told to a watcher.
struct News {
    /// Greater than those of all that came before.
    number: u64,
    count: u64,
    info: Siginfo,
}

/// How a watcher's signal is seen.
pub(super) enum Way {
    /// By a handler; none where the system refused that after a fork.
    Handler(Option<Subscription>),
    /// It is blocked, and taken from the signalfd.
    Blocked,
}

struct Watch {
    index: u32,
    signal: c_int,
    way: Way,
    /// What came and is not delivered; of a standard signal one at most.
    waiting: VecDeque<News>,
    /// Real-time signals that there was no room for.
    lost: u64,
    /// What came with the last standard signal that a handler told of.
    last: Siginfo,
}

#[derive(Default)]
pub(super) struct Signals {
    list: Vec<Watch>,
    signalfd: Option<Fd>,
    /// Some watcher may have something to be told.
    pub due: bool,
}

/// See evloop_add_signal.
pub(crate) fn add_signal(
    handle: i64,
    number: c_int,
    by_descriptor: bool,
    target: Target,
) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.check()?;
    let signal = signals::check(i64::from(number).cast_unsigned())?;
    let way = if by_descriptor {
        check_blocked(signal)?;
        Way::Blocked
    } else {
        let bell = Bell { ring: ring_signals, number: handle };
        Way::Handler(Some(signals::subscribe(signal, bell, true)?))
    };
    // Taken by one of the two.
    let watch = Cell::new(Some(Watch::new(signal, way)));
    named.with(
        |core| core.add_signal(watch.take(), target),
        |gate| {
            let Some(mut watch) = watch.take() else { return Err(Errno::EINVAL.into()) };
            let signalfd = match watch.way {
                Way::Blocked => Some(signal::descriptor(signal::bit(signal))?),
                Way::Handler(_) => None,
            };
            let fresh = fresh_at(gate, &named, Source::Signal, target)?;
            watch.index = fresh.index;
            fresh.record.aux.store(u64::from(signal.unsigned_abs()), Relaxed);
            let handle = fresh.handle();
            let command = Command::AddSignal(handle, NewSignal { watch, signalfd });
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

/// A watcher that another thread than the loop's has added.
pub(super) struct NewSignal {
    watch: Watch,
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
    fn new(signal: c_int, way: Way) -> Self {
        let last = Siginfo { signo: signal, ..Siginfo::default() };
        Self { index: 0, signal, way, waiting: VecDeque::new(), lost: 0, last }
    }

    fn is_blocked(&self) -> bool {
        matches!(self.way, Way::Blocked)
    }

    /// Takes in what a handler has told.
    fn collect(&mut self, details: &mut Details) {
        let Way::Handler(Some(subscription)) = &self.way else { return };
        let count = subscription.take();
        if signals::is_real_time(self.signal) {
            self.lost = self.lost.saturating_add(subscription.take_lost());
            while self.waiting.len() < MOST
                && let Way::Handler(Some(subscription)) = &self.way
                && let Some(info) = subscription.next()
            {
                self.keep(News { number: details.number(), count: 1, info: (&info).into() });
            }
            return;
        }
        // A handler puts what came before it counts: there is one for each
        // count, here or from the last time.
        while let Some(info) = subscription.next() {
            self.last = (&info).into();
        }
        if count > 0 {
            self.keep(News { number: details.number(), count, info: self.last });
        }
    }

    /// What came by the signalfd.
    fn came(&mut self, details: &mut Details, info: Siginfo) {
        if signals::is_real_time(self.signal) && self.waiting.len() >= MOST {
            self.lost = self.lost.saturating_add(1);
        } else {
            self.keep(News { number: details.number(), count: 1, info });
        }
    }

    /// Keeps what is to be told: in its place, if it was on its way already.
    fn keep(&mut self, news: News) {
        if !signals::is_real_time(self.signal)
            && let Some(waiting) = self.waiting.front_mut()
        {
            waiting.count = waiting.count.saturating_add(news.count);
            if news.number > waiting.number {
                (waiting.number, waiting.info) = (news.number, news.info);
            }
            return;
        }
        if self.waiting.try_reserve(1).is_err() {
            self.lost = self.lost.saturating_add(news.count);
            return;
        }
        details::insert(&mut self.waiting, news, |news| news.number);
    }
}

impl Core {
    fn signal_place(&self, index: u32) -> Option<usize> {
        self.signals.list.iter().position(|watch| watch.index == index)
    }

    fn add_signal(&mut self, watch: Option<Watch>, target: Target) -> Result<i64> {
        let Some(mut watch) = watch else { return Err(Errno::EINVAL.into()) };
        let fresh = self.fresh(Source::Signal, target)?;
        watch.index = fresh.index;
        fresh.record.aux.store(u64::from(watch.signal.unsigned_abs()), Relaxed);
        match self.take_in(watch, None) {
            Ok(()) => Ok(self.publish(&fresh)),
            Err(error) => {
                self.give_back(&fresh);
                Err(error)
            }
        }
    }

    /// One that another thread has added; its record is live.
    pub fn signal_added(&mut self, new: NewSignal) -> Result<()> {
        self.take_in(new.watch, new.signalfd)
    }

    fn take_in(&mut self, watch: Watch, signalfd: Option<Fd>) -> Result<()> {
        if self.signals.list.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory to watch signal {}", watch.signal);
        }
        if watch.is_blocked() {
            self.watch_blocked(watch.signal, signalfd)?;
        }
        self.signals.list.push_reserved(watch);
        self.signals.due = true;
        Ok(())
    }

    /// Has the signalfd take a signal, too; `fresh` is one for that alone.
    fn watch_blocked(&mut self, number: c_int, fresh: Option<Fd>) -> Result<()> {
        let mask = self.signals.mask() | signal::bit(number);
        if let Some(known) = &self.signals.signalfd {
            return Ok(signal::set_descriptor(known.raw(), mask)?);
        }
        let fresh = match fresh {
            Some(fresh) => fresh,
            None => signal::descriptor(mask)?,
        };
        register_signalfd(self.epoll(), fresh.raw())?;
        self.fd_is_ours(OwnFd::Signalfd, fresh.raw());
        self.signals.signalfd = Some(fresh);
        Ok(())
    }

    pub fn signal_close(&mut self, index: u32) {
        let Some(place) = self.signal_place(index) else { return };
        let watch = self.signals.list.remove(place);
        // Another one took its place, and may be passed over.
        self.signals.due = true;
        let mask = self.signals.mask();
        let Some(known) = self.signals.signalfd.as_ref().filter(|_| watch.is_blocked()) else {
            return;
        };
        if mask == 0 {
            let _ = epoll::delete(self.epoll(), known.raw());
            self.desk.own.set(OwnFd::Signalfd, -1);
            self.signals.signalfd = None;
        } else {
            // A set of signals that is smaller than one that was good.
            let _ = signal::set_descriptor(known.raw(), mask);
        }
    }

    /// Takes blocked signals that are pending.
    pub fn take_signalfd(&mut self) {
        let Some(signalfd) = self.signals.signalfd.as_ref().map(Fd::raw) else { return };
        let mut room = [MaybeUninit::uninit(); AT_ONCE];
        for _ in 0..MOST / AT_ONCE {
            let infos = signal::read_infos(signalfd, &mut room);
            for info in infos {
                let info = Siginfo::from(info);
                let of_it = |watch: &&mut Watch| watch.is_blocked() && watch.signal == info.signo;
                for watch in self.signals.list.iter_mut().filter(of_it) {
                    watch.came(&mut self.details, info);
                }
                self.signals.due = true;
            }
            if infos.len() < AT_ONCE {
                break;
            }
        }
    }

    /// The next event of a watcher that something is waiting for.
    #[inline(always)]
    fn next_signal(&mut self, place: usize, handle: i64) -> Option<Event> {
        let watch = self.signals.list.get_mut(place)?;
        watch.collect(&mut self.details);
        let mut event = Event::new(handle, Source::Signal as i32);
        if let Some(news) = watch.waiting.pop_front() {
            event.count = news.count;
            event.result = watch.signal;
            event.reserved = self.details.put(news.number, handle, Content::Signal(news.info));
        } else if watch.lost > 0 {
            event.count = std::mem::take(&mut watch.lost);
            event.events = ERROR;
            event.result = Errno::EOVERFLOW.negated();
        } else {
            return None;
        }
        Some(event)
    }

    /// An event that was not seen: what it told waits again.
    pub fn signal_put_back(&mut self, index: u32, event: &Event) {
        let content = self.details.take(event.reserved);
        self.signals.due = true;
        let place = self.signal_place(index);
        let Some(watch) = place.and_then(|place| self.signals.list.get_mut(place)) else { return };
        if event.events & ERROR != 0 {
            watch.lost = watch.lost.saturating_add(event.count);
            return;
        }
        let info = match content {
            Some(Content::Signal(info)) => info,
            _ => watch.last,
        };
        watch.keep(News { number: event.reserved, count: event.count, info });
    }

    /// A record of a signal is about to be seen. What came to the watcher
    /// meanwhile belongs to it, or is the next record.
    pub fn signal_taken(&mut self, index: u32, record: &Record, event: &mut Event) {
        self.details.set_held(event.reserved, false);
        let Some(place) = self.signal_place(index) else { return };
        if record.flags.load(Relaxed) & (ENABLED | SUSPENDED | LIMITED) != ENABLED {
            self.signals.due = true;
            return;
        }
        let Some(later) = self.next_signal(place, event.watcher) else { return };
        if later.events & ERROR != 0 || signals::is_real_time(event.result) {
            // It takes the place of the one that was taken.
            self.hold(later);
            return;
        }
        let _ = self.details.take(event.reserved);
        (event.count, event.reserved) = (event.count.saturating_add(later.count), later.reserved);
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
        let handle = self.desk.handle();
        // All of them first: what is left of the parent's is used again.
        for watch in &mut self.signals.list {
            watch.forget();
        }
        for place in 0..self.signals.list.len() {
            let watch = self.signals.list.get_mut(place).filter(|watch| !watch.is_blocked());
            let Some(watch) = watch else { continue };
            let index = watch.index;
            match watch.subscribe_anew(handle) {
                Ok(()) => {}
                Err(errno) if errno.is_shortage() => return Err(errno.into()),
                Err(errno) => {
                    if let Some(record) = record::get(index) {
                        self.fail(record.handle(Kind::Watcher, index), errno);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Watch {
    /// In a forked child: the one before is the parent's.
    fn subscribe_anew(&mut self, handle: i64) -> std::result::Result<(), Errno> {
        let bell = Bell { ring: ring_signals, number: handle };
        let fresh = signals::subscribe(self.signal, bell, true).map_err(|error| error.errno)?;
        self.way = Way::Handler(Some(fresh));
        Ok(())
    }

    /// In a forked child: what came was the parent's.
    fn forget(&mut self) {
        self.waiting.clear();
        self.lost = 0;
        if let Way::Handler(subscription) = &mut self.way {
            *subscription = None;
        }
    }
}

impl Signals {
    /// The signals to be taken from the signalfd.
    fn mask(&self) -> Mask {
        let blocked = self.list.iter().filter(|watch| watch.is_blocked());
        blocked.fold(0, |mask, watch| mask | signal::bit(watch.signal))
    }

    /// See `Core::abandon`.
    pub fn abandon(&self) {
        self.signalfd.iter().for_each(Fd::abandon);
    }
}

fn register_signalfd(epoll: RawFd, signalfd: RawFd) -> Result<()> {
    Ok(epoll::add(epoll, signalfd, libc::EPOLLIN as u32, INTERNAL | SIGNALFD as u64)?)
}

impl Run {
    /// Delivers the signals that came.
    pub fn signals(&self) -> Result<()> {
        // SAFETY: no other reference to the core; nor below.
        let signals = unsafe { &mut self.core().signals };
        if !std::mem::take(&mut signals.due) {
            return Ok(());
        }
        for place in 0.. {
            // SAFETY: as above.
            let watch = unsafe { self.core() }.signals.list.get(place);
            let Some(index) = watch.map(|watch| watch.index) else { break };
            self.signals_of(place, index)?;
        }
        Ok(())
    }

    fn signals_of(&self, place: usize, index: u32) -> Result<()> {
        let Some(record) = record::get(index) else { return Ok(()) };
        let handle = record.handle(Kind::Watcher, index);
        for _ in 0..MOST {
            if live(handle).is_none()
                || record.flags.load(Relaxed) & (ENABLED | SUSPENDED | HELD) != ENABLED
            {
                return Ok(());
            }
            // SAFETY: no other reference to the core.
            let core = unsafe { self.core() };
            // A callback may have closed another.
            let is_it = core.signals.list.get(place).is_some_and(|watch| watch.index == index);
            let Some(event) = (if is_it { core.next_signal(place, handle) } else { None }) else {
                return Ok(());
            };
            self.emit(event, record)?;
        }
        // SAFETY: as above.
        unsafe { self.core() }.signals.due = true;
        Ok(())
    }
}
