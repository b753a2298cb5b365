//! A queue's signals: how each is seen, and what rings the queue.

use super::core::Core;
use super::knote::*;
use super::set::{self, Set};
use super::slab::{NONE, Slab};
use crate::errno::{Errno, Result, fail};
use crate::signals::{self, Bell, Subscription};
use crate::sys::eventfd;
use crate::sys::fd::Fd;
use crate::sys::signal::{self, Mask};
use crate::sys::wakeup::Wakeup;
use crate::util::alloc::TryVec;
use crate::util::try_box;
use std::ffi::c_int;

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
    source: Option<Source>,
    signalfd: Option<Fd>,
}

/// What handlers wake the queue by.
struct Source {
    /// Always readable.
    eventfd: Fd,
    /// Handlers know its address.
    wakeup: Box<Wakeup>,
}

impl Source {
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

    fn aim_at(&self, set: &Set) {
        self.wakeup.aim(set.identity(), self.eventfd.raw());
    }
}

/// What handlers do to tell a queue.
fn wake_queue(number: i64) {
    let address = usize::try_from(number).unwrap_or(0);
    let wakeup = std::ptr::with_exposed_provenance::<Wakeup>(address);
    // SAFETY: null, or of a `Source`, which goes after all subscriptions that
    // have its number; and those wait for their handlers.
    if let Some(wakeup) = unsafe { wakeup.as_ref() } {
        // Without its descriptors the queue is not woken any more.
        let _ = wakeup.wake(set::SIGNALS);
    }
}

impl Signals {
    pub const fn new() -> Self {
        Self { watches: Slab::new(), list: Vec::new(), source: None, signalfd: None }
    }

    /// In a forked child: they are the parent's, too.
    pub fn drop_fds(&mut self) {
        self.source = None;
        self.signalfd = None;
    }

    /// Has another set watch its descriptors.
    pub fn add_to(&self, set: &Set) -> std::result::Result<(), Errno> {
        if let Some(source) = &self.source {
            set.add_signals(source.eventfd.raw())?;
        }
        match &self.signalfd {
            Some(signalfd) => set.add_signalfd(signalfd.raw()),
            None => Ok(()),
        }
    }

    /// Has handlers wake this set from now on, which watches its descriptors.
    pub fn aim_at(&self, set: &Set) {
        if let Some(source) = &self.source {
            source.aim_at(set);
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
                let source = self.signal_source()?;
                let bell = Bell { ring: wake_queue, number: if rings { source } else { -1 } };
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

    /// The number that handlers are given, made at the first need.
    fn signal_source(&mut self) -> Result<i64> {
        if let Some(source) = &self.signals.source {
            return Ok(source.number());
        }
        let source = Source::new()?;
        self.set.add_signals(source.eventfd.raw())?;
        source.aim_at(&self.set);
        Ok(self.signals.source.insert(source).number())
    }

    /// Has the signalfd take a signal, too.
    fn watch_blocked(&mut self, number: c_int) -> Result<()> {
        let mask = self.signals.mask() | signal::bit(number);
        if let Some(known) = &self.signals.signalfd {
            let known = known.check().ok_or(Errno::EBADF)?;
            return Ok(signal::set_descriptor(known, mask)?);
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
            && let Some(source) = self.signals.source.take()
        {
            self.set.drop_own(source.eventfd.raw());
        }
        let mask = self.signals.mask();
        let Some(known) = &self.signals.signalfd else { return };
        if mask == 0 {
            self.set.drop_own(known.raw());
            self.signals.signalfd = None;
        } else if let Some(known) = known.check() {
            // A set of signals that is smaller than one that was good.
            let _ = signal::set_descriptor(known, mask);
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
        let source = self.signals.source.as_ref().filter(|_| on).map_or(-1, Source::number);
        let has_count = match self.signals.watches.get(watch).map(|watch| &watch.way) {
            Some(Way::Handler(subscription)) => {
                subscription.set_bell(source);
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
        let Some(signalfd) = self.signals.signalfd.as_ref().and_then(Fd::check) else { return };
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
