//! A queue's timers: one timer queue and one timerfd for each clock.
//!
//! The timerfd of the monotonic clock is there from the start. It is what all
//! threads that wait are woken by when the queue is closed: that needs no
//! memory, and changes nothing should another file have its fd by then.

use super::super::epoll_set::EpollSet;
use super::super::knote::Knote;
use super::super::slab::Slab;
use super::super::store::Store;
use crate::errno::Errno;
use crate::sys::fd::Fd;
use crate::sys::{clock, memory, timerfd};
use crate::timer_queue::{self, NoMemory, Node, Popped, TimerQueue};
use crate::util::bug_or;
use std::os::fd::RawFd;

/// The clocks.
pub(in super::super) const MONOTONIC: u8 = 0;
pub(in super::super) const REALTIME: u8 = 1;
/// A time of each clock's that has passed.
const PAST: i64 = 1;
const IDS: [i32; 2] = [libc::CLOCK_MONOTONIC, libc::CLOCK_REALTIME];

pub(in super::super) fn now(clock: u8) -> i64 {
    IDS.get(usize::from(clock)).map_or(0, |id| clock::read_ns(*id))
}

struct QueueClock {
    queue: TimerQueue,
    fd: Option<Fd>,
    /// What the timerfd is set to; `None`: nothing, or it has expired.
    set_to: Option<i64>,
    changed: bool,
}

pub(in super::super) struct QueueTimers {
    clocks: [QueueClock; 2],
    seq: u64,
    /// The timerfds may have to be set.
    changed: bool,
    /// Threads that wait are to come back: the monotonic clock's timerfd
    /// stays set to the past.
    alarmed: bool,
}

/// The knotes' nodes, as the timer queue of one clock looks them up. An entry
/// whose knote is not on this clock any more is stale and has no node.
struct KnoteNodes<'a>(&'a Slab<Knote>, u8);

impl timer_queue::NodeLookup for KnoteNodes<'_> {
    fn node(&self, id: u32) -> Option<&Node> {
        self.0.get(id).filter(|knote| knote.clock == self.1).map(|knote| &knote.node)
    }

    fn prefetch(&self, id: u32) {
        if let Some(knote) = self.0.get(id) {
            memory::prefetch(knote);
        }
    }
}

/// Those of all clocks, as far as they are needed.
pub(in super::super) type Timerfds = [Option<Fd>; 2];

fn make_timerfd(index: u8, set: &EpollSet) -> Result<Fd, Errno> {
    let id = IDS.get(usize::from(index)).copied().unwrap_or(-1);
    let fd = timerfd::create(id, true)?;
    set.add_timer(index, fd.raw())?;
    Ok(fd)
}

impl QueueTimers {
    pub const fn new() -> Self {
        let clocks = [const {
            QueueClock { queue: TimerQueue::new(), fd: None, set_to: None, changed: false }
        }; 2];
        Self { clocks, seq: 0, changed: false, alarmed: false }
    }

    /// Wakes a thread that waits in an epoll that watches the timerfd. It
    /// calls this again when it has come back, until no more are to come.
    pub fn alarm(&mut self) {
        let [monotonic, _] = &mut self.clocks;
        if let Some(fd) = &monotonic.fd {
            // It is a timer, so that this needs nothing that could fail.
            let _ = fd.check().map(|fd| timerfd::arm_at(fd, PAST, false));
        }
        self.alarmed = true;
    }

    /// All have come back.
    pub fn end_alarm(&mut self) {
        if std::mem::take(&mut self.alarmed) {
            let [monotonic, _] = &mut self.clocks;
            (monotonic.set_to, monotonic.changed) = (Some(PAST), true);
            self.changed = true;
        }
    }

    /// Has a knote come up at a time of its clock.
    pub fn arm(&mut self, knotes: &Slab<Knote>, id: u32, deadline: i64) -> Result<(), NoMemory> {
        let Some(knote) = knotes.get(id) else { bug_or!(return Ok(())) };
        if self.seq >= timer_queue::MANY {
            self.renumber(knotes);
        }
        self.seq += 1;
        let Some(clock) = self.clocks.get_mut(usize::from(knote.clock)) else {
            bug_or!(return Ok(()))
        };
        let nodes = KnoteNodes(knotes, knote.clock);
        clock.queue.arm_node(&nodes, (id, &knote.node), deadline, self.seq)?;
        let in_time = clock.set_to.is_some_and(|time| time <= deadline);
        self.changed |= clock.change_unless(in_time);
        Ok(())
    }

    /// Gives all that are armed other numbers, in the same order. Without
    /// memory it is left to the next time.
    #[cold]
    fn renumber(&mut self, knotes: &Slab<Knote>) {
        let mut armed = timer_queue::Armed::none();
        for (index, clock) in (0u8..).zip(&self.clocks) {
            if clock.queue.list_armed(&KnoteNodes(knotes, index), &mut armed).is_err() {
                return;
            }
        }
        self.seq = armed.number(|id| knotes.get(id).map(|knote| &knote.node));
        for (index, clock) in (0u8..).zip(&mut self.clocks) {
            clock.queue.renumber(&KnoteNodes(knotes, index));
        }
    }

    pub fn disarm(&mut self, knotes: &Slab<Knote>, id: u32) {
        let Some(knote) = knotes.get(id).filter(|knote| knote.node.deadline().is_some()) else {
            return;
        };
        let Some(clock) = self.clocks.get_mut(usize::from(knote.clock)) else { bug_or!(return) };
        clock.queue.disarm(&KnoteNodes(knotes, knote.clock), id);
        self.changed |= clock.change_unless(true);
    }

    /// Has another epoll watch the timerfds.
    pub fn add_to(&self, set: &EpollSet) -> Result<(), Errno> {
        for (index, clock) in (0u8..).zip(&self.clocks) {
            if let Some(fd) = &clock.fd {
                set.add_timer(index, fd.raw())?;
            }
        }
        Ok(())
    }

    /// The timerfds.
    pub fn fds(&self) -> impl Iterator<Item = &Fd> {
        self.clocks.iter().filter_map(|clock| clock.fd.as_ref())
    }

    /// Other timerfds than these, in another set.
    pub fn fresh(&self, set: &EpollSet) -> Result<Timerfds, Errno> {
        let mut fresh = [None, None];
        for (index, (clock, slot)) in (0u8..).zip(self.clocks.iter().zip(&mut fresh)) {
            if clock.fd.is_some() {
                *slot = Some(make_timerfd(index, set)?);
            }
        }
        Ok(fresh)
    }

    /// In a forked child: those before are the parent's.
    pub fn replace(&mut self, fresh: Timerfds) {
        for (clock, fd) in self.clocks.iter_mut().zip(fresh) {
            clock.fd = fd;
        }
        self.alarmed = false;
        self.forget_setting();
    }

    /// It is not known whether the timerfds have expired: they are set again.
    pub fn forget_setting(&mut self) {
        for clock in &mut self.clocks {
            (clock.set_to, clock.changed) = (None, true);
        }
        self.changed = true;
    }

    fn pop(&mut self, knotes: &Slab<Knote>, index: u8, now: i64) -> Option<u32> {
        let clock = self.clocks.get_mut(usize::from(index))?;
        match clock.queue.pop(&KnoteNodes(knotes, index), now, &mut u32::MAX.clone()) {
            Popped::Due { id, .. } => {
                (clock.changed, self.changed) = (true, true);
                Some(id)
            }
            // Without memory it is tried again at the next wake-up.
            Popped::Later | Popped::None => None,
        }
    }

    /// Whether the timerfds may have to be set.
    pub fn has_changed(&self) -> bool {
        self.changed
    }

    fn has_clock_changed(&self, index: u8) -> bool {
        self.clocks.get(usize::from(index)).is_some_and(|clock| clock.changed)
    }

    /// When a clock's timerfd is to expire.
    fn next(&mut self, knotes: &Slab<Knote>, index: u8) -> Option<i64> {
        self.clocks.get_mut(usize::from(index))?.next(&KnoteNodes(knotes, index))
    }

    fn is_idle(&self) -> bool {
        let [first, second] = &self.clocks;
        first.queue.len() + second.queue.len() == 0
    }

    fn is_empty(&self, index: u8) -> bool {
        self.clocks.get(usize::from(index)).is_none_or(|clock| clock.queue.len() == 0)
    }
}

/// As long as a clock has no more timers than these, it wakes up exactly when
/// the first one is due.
const FEW: usize = 64;

impl QueueClock {
    /// Its timerfd, made at the first need.
    fn open(&mut self, index: u8, set: &EpollSet) -> Result<RawFd, Errno> {
        if let Some(fd) = &self.fd {
            return fd.check().ok_or(Errno::EBADF);
        }
        Ok(self.fd.insert(make_timerfd(index, set)?).raw())
    }

    /// A timer was armed or disarmed. `in_time`: the timerfd is early enough
    /// for it, which is good enough where there are many.
    fn change_unless(&mut self, in_time: bool) -> bool {
        self.changed |= !in_time || self.queue.len() <= FEW;
        self.changed
    }

    /// When to wake up. With few timers exactly when the first one is due;
    /// with many it may be at a time that one was set to before.
    fn next(&mut self, nodes: &KnoteNodes<'_>) -> Option<i64> {
        match self.queue.len() {
            0 => None,
            1..=FEW => self.queue.next_deadline(nodes),
            _ => self.queue.next_wake(),
        }
    }
}

impl QueueTimers {
    /// Whether threads that wait are to come back.
    pub fn is_alarmed(&self) -> bool {
        self.alarmed
    }

    /// Looks for timers that are due.
    #[inline(always)]
    pub fn expire(&mut self, store: &mut Store) {
        if !self.is_idle() {
            self.expire_all(store);
        }
    }

    #[inline(never)]
    fn expire_all(&mut self, store: &mut Store) {
        for clock in [MONOTONIC, REALTIME] {
            if !self.is_empty(clock) {
                self.expire_clock(store, clock, now(clock));
            }
        }
    }

    fn expire_clock(&mut self, store: &mut Store, clock: u8, now: i64) {
        while let Some(id) = self.pop(&store.knotes, clock, now) {
            store.activate(id);
        }
    }

    /// Sets the timerfds to what is due next. What is due by now has an event
    /// after this: a timerfd that is set to a time that has passed becomes
    /// readable only when the kernel comes to its interrupt.
    pub fn set(&mut self, store: &mut Store, set: &EpollSet) -> Result<(), Errno> {
        if !self.changed {
            return Ok(());
        }
        for index in [MONOTONIC, REALTIME] {
            self.set_clock(store, set, index)?;
        }
        self.changed = false;
        Ok(())
    }

    fn set_clock(&mut self, store: &mut Store, set: &EpollSet, index: u8) -> Result<(), Errno> {
        let is_alarm = index == MONOTONIC && self.alarmed;
        if is_alarm || !self.has_clock_changed(index) {
            return Ok(());
        }
        let mut next = self.next(&store.knotes, index);
        let Some(clock) = self.clocks.get(usize::from(index)) else { bug_or!(return Ok(())) };
        if let Some(deadline) = next.filter(|_| next != clock.set_to) {
            let now = now(index);
            if deadline <= now {
                self.expire_clock(store, index, now);
                next = self.next(&store.knotes, index);
            }
        }
        let Some(clock) = self.clocks.get_mut(usize::from(index)) else { bug_or!(return Ok(())) };
        // A failure leaves it to the next call.
        if next != clock.set_to {
            let fd = clock.open(index, set)?;
            match next {
                Some(deadline) => drop(timerfd::arm_at(fd, deadline, false)?),
                None => timerfd::disarm(fd)?,
            }
            clock.set_to = next;
        }
        clock.changed = false;
        Ok(())
    }

    /// Makes sure that a clock has its timerfd.
    pub fn make_timerfd(&mut self, set: &EpollSet, clock: u8) -> Result<(), Errno> {
        match self.clocks.get_mut(usize::from(clock)) {
            Some(known) => known.open(clock, set).map(drop),
            None => Ok(()),
        }
    }

    /// A clock's timerfd has expired: it has to be set again.
    pub fn has_expired(&mut self, clock: usize) {
        if let Some(clock) = self.clocks.get_mut(clock) {
            clock.set_to = None;
            (clock.changed, self.changed) = (true, true);
        }
    }
}

#[cfg(test)]
impl QueueTimers {
    /// As if so many had been armed.
    pub fn set_seq(&mut self, seq: u64) {
        self.seq = seq;
    }
}
