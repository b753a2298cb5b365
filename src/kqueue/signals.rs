//! A queue's signals: how each is seen, and what rings the queue.

use super::core::Core;
use super::knote::*;
use super::set::Set;
use super::slab::{NONE, Slab};
use crate::errno::{Errno, Result, fail};
use crate::signals::{self, Bell, Subscription};
use crate::sys::eventfd;
use crate::sys::fd::Fd;
use crate::sys::signal::{self, Mask};
use crate::util::alloc::TryVec;
use std::ffi::c_int;
use std::os::fd::RawFd;

/// How a knote's signal is seen.
enum Way {
    /// By a handler, which counts.
    Handler(Subscription),
    /// It is blocked, and taken from the signalfd.
    Blocked(u64),
}

struct Watch {
    knote: u32,
    number: c_int,
    way: Way,
}

pub(super) struct Signals {
    /// Before what they ring.
    watches: Slab<Watch>,
    /// The numbers of those in use.
    list: Vec<u32>,
    bell: Option<Fd>,
    signalfd: Option<Fd>,
}

/// What handlers do to tell a queue.
fn ring_eventfd(number: i64) {
    if let Ok(eventfd) = RawFd::try_from(number) {
        eventfd::signal(eventfd);
    }
}

impl Signals {
    pub const fn new() -> Self {
        Self { watches: Slab::new(), list: Vec::new(), bell: None, signalfd: None }
    }

    pub fn fds(&self) -> impl Iterator<Item = &Fd> {
        self.bell.iter().chain(&self.signalfd)
    }

    /// In a forked child: they are the parent's, too.
    pub fn drop_fds(&mut self) {
        self.bell = None;
        self.signalfd = None;
    }

    /// Has another set watch its descriptors.
    pub fn add_to(&self, set: &Set) -> std::result::Result<(), Errno> {
        if let Some(bell) = &self.bell {
            set.add_signals(bell.raw())?;
        }
        match &self.signalfd {
            Some(signalfd) => set.add_signalfd(signalfd.raw()),
            None => Ok(()),
        }
    }

    /// The signals to be taken from the signalfd.
    fn mask(&self) -> Mask {
        let watches = self.list.iter().filter_map(|id| self.watches.get(*id));
        let blocked = watches.filter(|watch| matches!(watch.way, Way::Blocked(_)));
        blocked.fold(0, |mask, watch| mask | signal::bit(watch.number))
    }

    fn by_handler(&self) -> usize {
        let watches = self.list.iter().filter_map(|id| self.watches.get(*id));
        watches.filter(|watch| matches!(watch.way, Way::Handler(_))).count()
    }
}

impl Core {
    /// In a forked child that keeps the queue: what rings is the parent's,
    /// and so is who counts.
    pub fn renew_watches(&mut self) -> Result<()> {
        let mut list = std::mem::take(&mut self.signals.list);
        // All of them first: what is left of the parent's is used again.
        for id in &mut list {
            *id = self.signals.watches.remove(*id).map_or(NONE, |watch| watch.knote);
            if let Some(knote) = self.knotes.get_mut(*id) {
                knote.state = NONE.into();
            }
        }
        let mut result = Ok(());
        for knote in list {
            result = result.and(self.attach_signal(knote));
        }
        result
    }

    /// Begins to watch a knote's signal: by a signalfd if the calling thread
    /// blocks it, since no handler would run.
    pub fn attach_signal(&mut self, id: u32) -> Result<()> {
        let Some(knote) = self.knotes.get(id) else { return Ok(()) };
        let (number, rings) = (signals::check(knote.ident)?, !knote.is(DISABLED));
        if self.signals.list.try_reserve(1).is_err() {
            fail!(ENOMEM, "no memory to watch signal {}", number);
        }
        let way = match signal::blocked() & signal::bit(number) {
            0 => {
                let bell = self.signal_bell()?;
                let bell = if rings { bell } else { -1 };
                let bell = Bell { ring: ring_eventfd, number: bell.into() };
                Way::Handler(signals::subscribe(number, bell, false)?)
            }
            _ => {
                self.watch_blocked(number)?;
                Way::Blocked(0)
            }
        };
        let Some(watch) = self.signals.watches.insert(Watch { knote: id, number, way }, NONE)
        else {
            fail!(ENOMEM, "no memory to watch signal {}", number);
        };
        self.signals.list.push_reserved(watch);
        if let Some(knote) = self.knotes.get_mut(id) {
            knote.state = watch.into();
        }
        Ok(())
    }

    /// What handlers ring, made at the first need.
    fn signal_bell(&mut self) -> Result<RawFd> {
        if let Some(bell) = &self.signals.bell {
            return Ok(bell.raw());
        }
        let bell = eventfd::create(0)?;
        self.set.add_signals(bell.raw())?;
        Ok(self.signals.bell.insert(bell).raw())
    }

    /// Has the signalfd take a signal, too.
    fn watch_blocked(&mut self, number: c_int) -> Result<()> {
        let mask = self.signals.mask() | signal::bit(number);
        if let Some(known) = &self.signals.signalfd {
            return Ok(signal::set_descriptor(known.raw(), mask)?);
        }
        let fresh = signal::descriptor(mask)?;
        self.set.add_signalfd(fresh.raw())?;
        self.signals.signalfd = Some(fresh);
        Ok(())
    }

    fn watch_of(&self, id: u32) -> Option<u32> {
        let knote = self.knotes.get(id)?;
        u32::try_from(knote.state).ok().filter(|state| *state != NONE)
    }

    /// The last knote closes what it rang, or was taken from.
    pub fn detach_signal(&mut self, id: u32) {
        if let Some(watch) = self.watch_of(id) {
            self.signals.list.retain(|known| *known != watch);
            drop(self.signals.watches.remove(watch));
        }
        if self.signals.by_handler() == 0
            && let Some(bell) = self.signals.bell.take()
        {
            self.set.drop_own(bell.raw());
        }
        let mask = self.signals.mask();
        let Some(known) = &self.signals.signalfd else { return };
        if mask == 0 {
            self.set.drop_own(known.raw());
            self.signals.signalfd = None;
        } else {
            // A set of signals that is smaller than one that was good.
            let _ = signal::set_descriptor(known.raw(), mask);
        }
    }

    /// The count of a knote's signal, which begins anew.
    pub fn take_count(&mut self, id: u32) -> u64 {
        let Some(watch) = self.watch_of(id) else { return 0 };
        match self.signals.watches.get_mut(watch).map(|watch| &mut watch.way) {
            Some(Way::Handler(subscription)) => subscription.take(),
            Some(Way::Blocked(count)) => std::mem::take(count),
            None => 0,
        }
    }

    /// A disabled knote is counted, and does not ring.
    pub fn ring_for(&mut self, id: u32, on: bool) {
        let Some(watch) = self.watch_of(id) else { return };
        // Pending, those of before and after this would be one.
        self.take_signalfd();
        let bell = self.signals.bell.as_ref().filter(|_| on).map_or(-1, Fd::raw);
        let has_count = match self.signals.watches.get(watch).map(|watch| &watch.way) {
            Some(Way::Handler(subscription)) => {
                subscription.set_bell(bell.into());
                subscription.has_count()
            }
            Some(Way::Blocked(count)) => *count > 0,
            None => false,
        };
        if on && has_count {
            self.activate(id);
        }
    }

    /// Handlers have rung, or may have; whether there is something.
    pub fn take_signals(&mut self) -> bool {
        let Some(bell) = &self.signals.bell else { return false };
        // First this: what is counted from now on rings again.
        eventfd::clear(bell.raw());
        let mut counted = false;
        for place in 0..self.signals.list.len() {
            let watch = self.signals.list.get(place).and_then(|id| self.signals.watches.get(*id));
            if let Some(Watch { knote, way: Way::Handler(subscription), .. }) = watch
                && subscription.has_count()
            {
                let knote = *knote;
                counted |= self.knotes.get(knote).is_some_and(|knote| !knote.is(DISABLED));
                self.activate(knote);
            }
        }
        counted
    }

    /// Takes blocked signals that are pending, and counts them: before what
    /// was counted is told.
    pub fn take_signalfd(&mut self) {
        let Some(signalfd) = self.signals.signalfd.as_ref().map(Fd::raw) else { return };
        // What comes faster than it is read is left to the next look.
        const MOST: usize = 1 << 16;
        for number in std::iter::from_fn(|| signal::read(signalfd)).take(MOST) {
            for place in 0..self.signals.list.len() {
                let id = self.signals.list.get(place).copied().unwrap_or(NONE);
                let Some(watch) = self.signals.watches.get_mut(id) else { continue };
                if let Way::Blocked(count) = &mut watch.way
                    && watch.number == number
                {
                    *count += 1;
                    let knote = watch.knote;
                    self.activate(knote);
                }
            }
        }
    }

    /// Puts handlers that the program has put its own over back on top, and
    /// sees what was counted until now.
    #[inline(always)]
    pub fn renew_signals(&mut self) -> Result<()> {
        if self.signals.list.is_empty() { Ok(()) } else { self.renew_all_signals() }
    }

    fn renew_all_signals(&mut self) -> Result<()> {
        for id in &self.signals.list {
            if let Some(Watch { way: Way::Handler(subscription), .. }) =
                self.signals.watches.get(*id)
            {
                subscription.renew()?;
            }
        }
        Ok(())
    }
}
