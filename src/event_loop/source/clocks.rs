//! The clocks of timers, and how long a loop may sleep.
//!
//! Each clock has a queue and, unless time is virtual, a timerfd, which is
//! set only when something is due earlier than it is set to.

use crate::errno::{Errno, Result, fail};
use crate::event_loop::clock_ids::{MONOTONIC, NEVER, REALTIME, clock_id, read};
use crate::event_loop::own_fds::{OwnFd, give_up};
use crate::event_loop::own_words::{CLOCKS, INTERNAL};
use crate::event_loop::source::coalescing::Pace;
use crate::event_loop::source::ctx::SourceCtx;
use crate::event_loop::source::io::Io;
use crate::event_loop::source::timer_nodes::TimerNodes;
use crate::event_loop::source::timers::TimerSource;
use crate::sync::Ordering::Relaxed;
use crate::sys::fd::Fd;
use crate::sys::{clock, epoll, timerfd};
use crate::timer_queue::TimerQueue;
use crate::timerfd::cannot_create;
use std::os::fd::RawFd;

/// How long one wait may last.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::event_loop) enum Until {
    Now,
    /// A time of the loop.
    Time(i64),
    Ever,
}

/// With `precise`, how much earlier the loop wakes up for a timer, and spins.
const SPIN_NS: i64 = 120_000;
/// Where timers are dense the loop wakes up for them once in this time: else
/// it would do nothing but set its timer.
const DENSE_NS: i64 = 50_000;
/// The timer of a clock.
pub(in crate::event_loop) fn create_fd(clock: usize) -> Result<Fd> {
    let id = clock_id(clock);
    match timerfd::create(id, true) {
        Ok(fd) => Ok(fd),
        Err(Errno::EINVAL) => fail!(ENOTSUP, "this system has no clock {}", id),
        Err(errno) => Err(cannot_create(errno, id)),
    }
}

pub(in crate::event_loop) struct LoopClock {
    pub queue: TimerQueue,
    pub fd: Option<Fd>,
    /// What the timerfd is set to, at most; [`NEVER`]: it has expired.
    pub armed: i64,
    /// When a loop that is awake has something due. It may sleep longer, where
    /// timers share wake-ups.
    due_at: i64,
    /// From when on timers count that are set in this iteration.
    pub base: Option<i64>,
    /// The time at which those were queued.
    pub settled: Option<i64>,
    /// When timers were last looked for.
    pub looked: i64,
    pub pace: Pace,
}

impl LoopClock {
    pub const fn new() -> Self {
        Self {
            queue: TimerQueue::new(),
            fd: None,
            armed: NEVER,
            due_at: NEVER,
            base: None,
            settled: None,
            looked: i64::MIN,
            pace: Pace::new(),
        }
    }

    /// What is due at this time is looked for; how many wake-ups timers have
    /// saved for that.
    #[inline]
    pub fn look(&mut self, now: i64) -> u32 {
        self.looked = now;
        self.pace.look(now)
    }
}

impl TimerSource {
    /// Makes the timer of a clock, if it is not there yet.
    pub fn ensure_clock(&mut self, ctx: &mut SourceCtx, io: &mut Io, clock: usize) -> Result<()> {
        if ctx.virtual_time || self.clock(clock).fd.is_some() {
            return Ok(());
        }
        let fd = create_fd(clock)?;
        self.adopt_clock(ctx, io, clock, fd)
    }

    pub fn adopt_clock(
        &mut self,
        ctx: &mut SourceCtx,
        io: &mut Io,
        clock: usize,
        fd: Fd,
    ) -> Result<()> {
        if self.clock(clock).fd.is_none() {
            self.register_clock(ctx.own_epoll()?, clock, fd.raw())?;
            io.claim_fd(ctx, OwnFd::Clock(clock), fd.raw());
            self.clock(clock).fd = Some(fd);
            let ready = ctx.shared.clocks.load(Relaxed);
            ctx.shared.clocks.store(ready | 1 << clock, Relaxed);
        }
        Ok(())
    }

    /// New timers of the clocks that have one, for a forked child.
    pub fn fresh_clocks(&mut self, epoll: RawFd) -> Result<[Option<Fd>; CLOCKS]> {
        let mut fresh = [const { None }; CLOCKS];
        for (index, fresh) in fresh.iter_mut().enumerate() {
            if self.clock(index).fd.is_some() {
                let fd = create_fd(index)?;
                self.register_clock(epoll, index, fd.raw())?;
                *fresh = Some(fd);
            }
        }
        Ok(fresh)
    }

    pub fn replace_clocks(
        &mut self,
        ctx: &mut SourceCtx,
        io: &mut Io,
        fresh: [Option<Fd>; CLOCKS],
        is_ours: bool,
    ) {
        for (index, fresh) in fresh.into_iter().enumerate() {
            let number = fresh.as_ref().map_or(-1, Fd::raw);
            io.claim_fd(ctx, OwnFd::Clock(index), number);
            let clock = self.clock(index);
            give_up(std::mem::replace(&mut clock.fd, fresh), is_ours);
            clock.armed = NEVER;
            self.due |= 1 << index;
        }
    }

    pub fn register_clock(&self, epoll: RawFd, clock: usize, fd: RawFd) -> Result<()> {
        // Edge-triggered, and never read: setting it makes it ready again.
        let events = (libc::EPOLLIN | libc::EPOLLET) as u32;
        Ok(epoll::add(epoll, fd, events, INTERNAL | (1 + clock as u64))?)
    }

    /// The time at which what is due on a clock is looked for.
    pub fn expiry_time(&mut self, ctx: &mut SourceCtx, clock: usize) -> i64 {
        // What is set to the end of time is set to never.
        let now = ctx.read_clock(clock).min(i64::MAX - 1);
        if !ctx.precise || ctx.virtual_time {
            return now;
        }
        let Some(wake) = self.next_wake(ctx, clock) else { return now };
        let mut now = now;
        while now < wake && wake - now <= SPIN_NS && ctx.shared.wake_state.peek() == 0 {
            std::hint::spin_loop();
            now = ctx.read_clock(clock);
        }
        now
    }

    /// Sets the timers; how long to wait then. `watched`: the loop has to know
    /// of steps of the wall clock.
    #[inline]
    pub fn arm_clocks(&mut self, ctx: &mut SourceCtx, until: Until, watched: bool) -> Option<i64> {
        let mut due = self.due != 0;
        let recheck = if ctx.suspended.is_empty() { self.recheck } else { u32::MAX };
        if recheck != 0 {
            self.renumber_if_many(ctx.shared);
            due |= self.set_clocks(ctx, recheck, watched);
        }
        match until {
            _ if due => Some(0),
            Until::Now => Some(0),
            Until::Ever => None,
            Until::Time(time) => Some(time.saturating_sub(clock::now_ns()).max(0)),
        }
    }

    /// Sets the timers of some clocks; true: something is due already.
    fn set_clocks(&mut self, ctx: &mut SourceCtx, recheck: u32, watched: bool) -> bool {
        let mut due = false;
        let resume = ctx.suspended.iter().map(|(until, _)| *until).min();
        self.recheck = 0;
        for index in (0..CLOCKS).filter(|index| recheck & 1 << index != 0) {
            let mut wake = self.next_wake(ctx, index);
            if index == MONOTONIC {
                wake = match (wake, resume) {
                    (Some(wake), Some(resume)) => Some(wake.min(resume)),
                    (wake, resume) => wake.or(resume),
                };
            }
            let wanted = index == REALTIME && watched;
            due |= self.set_clock(ctx, index, (wake, resume.unwrap_or(NEVER)), wanted);
        }
        due
    }

    /// Sets a clock's timer, if it would come too late; true: something is
    /// due already. `wake`: when something is due, which timers may share, but
    /// not for longer than `until`.
    ///
    /// What is due is found by reading the clock. A timerfd that is armed for
    /// a time in the past becomes ready by an interrupt, which may come after
    /// the next wait, and with real-time priorities long after it.
    fn set_clock(
        &mut self,
        ctx: &mut SourceCtx,
        index: usize,
        (wake, until): (Option<i64>, i64),
        wanted: bool,
    ) -> bool {
        if self.due & 1 << index != 0 {
            // Once that is dealt with.
            self.recheck |= 1 << index;
            return true;
        }
        let precise = ctx.precise;
        let entry = self.clock(index);
        let settled = entry.settled.take();
        let wake = match wake {
            Some(wake) => {
                let wake = if precise { wake.saturating_sub(SPIN_NS) } else { wake };
                if settled.is_some_and(|now| wake <= now) || wake <= read(index) {
                    self.due |= 1 << index;
                    return true;
                }
                entry.due_at = wake;
                let dense = entry.looked.saturating_add(DENSE_NS);
                if precise { wake } else { self.coalesce(ctx, index, wake, until).max(dense) }
            }
            None if wanted => NEVER - 1,
            None => return false,
        };
        let entry = self.clock(index);
        if entry.armed <= wake {
            return false;
        }
        let Some(fd) = entry.fd.as_ref() else { return false };
        let set_at = |fd| timerfd::arm_at(fd, wake, index == REALTIME);
        let due = match fd.check().ok_or(Errno::EBADF).and_then(set_at) {
            Ok(stepped) => {
                entry.armed = wake;
                self.clock_changed |= stepped;
                stepped
            }
            Err(_) => self.lose_clock(ctx),
        };
        if due {
            self.due |= 1 << index;
        }
        due
    }

    /// The program has closed a timerfd of the loop's, which cannot go on
    /// without.
    #[cold]
    fn lose_clock(&mut self, ctx: &mut SourceCtx) -> bool {
        let shared = ctx.shared;
        ctx.lose_epoll(&mut shared.lock_commands());
        true
    }

    /// After a wait of zero that found nothing: finds the timers that have
    /// expired by reading their clocks. A thread that never sleeps, with a
    /// real-time priority, can keep the kernel from reporting them at all.
    pub fn find_expired(&mut self) {
        for index in 0..CLOCKS {
            let entry = self.clock(index);
            if entry.armed < NEVER - 1 && entry.armed.min(entry.due_at) <= read(index) {
                entry.armed = NEVER;
                self.due |= 1 << index;
            }
        }
    }

    /// When the next timer of a clock is due, at the latest.
    pub fn next_wake(&mut self, ctx: &SourceCtx, clock: usize) -> Option<i64> {
        let virtual_time = ctx.virtual_time;
        let queue = &mut self.clock(clock).queue;
        if queue.len() == 0 {
            return None;
        }
        if virtual_time {
            queue.next_deadline(&TimerNodes(ctx.shared, clock))
        } else {
            queue.next_wake()
        }
    }

    /// The earliest deadline of a clock, exactly.
    pub fn next_exact(&mut self, ctx: &SourceCtx, clock: usize) -> Option<i64> {
        self.clock(clock).queue.next_deadline(&TimerNodes(ctx.shared, clock))
    }

    /// The earliest deadline of all, in virtual time.
    pub fn next_virtual(&mut self, ctx: &SourceCtx) -> Option<i64> {
        (0..CLOCKS).filter_map(|clock| self.next_wake(ctx, clock)).min()
    }
}
