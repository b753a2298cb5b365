//! Running a loop: its states, and what happens in each.
//!
//! ```text
//! idle --begin--> prepare --> arm --> wait --> dispatch --+--> exit --end--> idle
//!                    ^                                    |
//!                    +------------------------------------+
//! ```
//!
//! `prepare` calls the prepare watchers; `arm` tells the kernel of changes
//! and sets the timers; `wait` is the only place where a loop blocks;
//! `dispatch` calls everybody else. Embedded in another loop, `wait` is that
//! loop's, and a run ends before it and begins again after it.

use super::clocks::{MONOTONIC, Until};
use super::core::Core;
use super::desk;
use super::event::Event;
use super::flags::Source;
use super::mailbox;
use super::named::named;
use super::running::Run;
use crate::errno::{Errno, Result, fail};
use crate::handle::Kind;
use crate::sync::Ordering::{Relaxed, Release};
use crate::sys::epoll;
use crate::util::Out;
use crate::wait::interrupted;

/// What a run is to do.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    UntilDone,
    Once,
    NoWait,
    /// Nanoseconds; negative: no limit.
    For(i64),
    /// After a wait by somebody else.
    Embedded,
}

/// How soon what found no memory is tried again.
const RETRY_NS: i64 = 10_000_000;

/// When a run ends, besides being stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goal {
    /// Nothing is left that keeps the loop alive, or the time is over.
    Done,
    /// Something happened.
    Dispatched,
    /// There is an event for evloop_wait, or the time is over.
    Held,
    /// One iteration.
    Once,
}

/// See evloop_run.
pub(crate) fn run(handle: i64, mode: Mode) -> Result<bool> {
    let run = Run::begin(named(handle, Kind::Loop)?)?;
    // SAFETY: no other reference to the core.
    unsafe { run.core() }.begin(false);
    let result = match mode {
        Mode::UntilDone => run.drive(Until::Ever, Goal::Done),
        Mode::For(0) => run.drive(Until::Now, Goal::Once),
        Mode::For(duration) => run.drive(run.until(duration), Goal::Done),
        Mode::Once => run.drive(Until::Ever, Goal::Dispatched),
        Mode::NoWait => run.drive(Until::Now, Goal::Once),
        Mode::Embedded => run.embedded(),
    };
    let result = match mode {
        Mode::UntilDone | Mode::For(_) => result.and_then(|()| run.in_turn(Source::Exit)),
        _ => result,
    };
    run.is_stopped();
    run.finish(result)
}

/// See evloop_wait.
pub(crate) fn wait(handle: i64, out: &mut Out<Event>, timeout_ns: i64) -> Result<()> {
    let run = Run::begin(named(handle, Kind::Loop)?)?;
    // SAFETY: no other reference to the core.
    unsafe { run.core() }.begin(true);
    let until = if timeout_ns == 0 { Until::Now } else { run.until(timeout_ns) };
    let waited = run.drive(until, Goal::Held);
    run.is_stopped();
    run.finish(waited)?;
    // SAFETY: as above.
    let core = unsafe { run.core() };
    while !out.is_full()
        && let Some(event) = core.take_held()
    {
        out.push(event);
    }
    Ok(())
}

/// See evloop_embed_prepare; whether there is something to dispatch already.
pub(crate) fn embed_prepare(handle: i64) -> Result<bool> {
    let run = Run::begin(named(handle, Kind::Loop)?)?;
    // SAFETY: no other reference to the core.
    unsafe { run.core() }.begin(false);
    let prepared = run.in_turn(Source::Prepare).and_then(|()| {
        run.check_before_embedding();
        run.arm(Until::Ever)
    });
    let timeout = match prepared {
        Ok(timeout) => timeout,
        Err(error) => return run.finish(Err(error)),
    };
    run.finish(Ok(()))?;
    // SAFETY: as above.
    unsafe { run.core() }.prepared = true;
    // It sleeps from here on: whoever leaves something rings.
    let sleeps = run.desk.mail.sleep();
    // SAFETY: as above.
    let core = unsafe { run.core() };
    // Virtual time has no timer that would end the foreign wait.
    let ends = timeout.is_some_and(|timeout| timeout == 0 || core.virtual_time);
    let due = ends || core.files.is_active() || !sleeps;
    if due && !core.virtual_time {
        // For foreign loops that look at nothing but the descriptor. (Virtual
        // time jumps only when it finds nothing.)
        run.desk.ring();
    }
    Ok(due)
}

impl Core {
    fn begin(&mut self, collecting: bool) {
        self.in_callback = true;
        self.collecting = collecting;
        if self.watched {
            self.watch_begin();
        }
        if collecting {
            self.collect_notes();
        }
        if std::mem::take(&mut self.prepared) {
            self.desk.mail.wake();
        }
    }

    /// Defer watchers that were waiting before this iteration are called in
    /// it.
    #[inline]
    fn admit_deferred(&mut self) {
        if self.deferred > 0 {
            let watchers = self.lists.defer.iter();
            watchers.for_each(|(_, record)| record.unset(super::flags::NEXT_TIME));
        }
    }

    /// Whether something was done since the loop was got ready for a wait that
    /// the kernel was not told of.
    pub fn has_news(&self) -> bool {
        self.is_dirty()
            || self.timers.recheck != 0
            || self.timers.is_arming()
            || self.is_busy()
            || self.files.is_active()
    }

    /// Whether something is to be dispatched that needs no waiting for.
    #[inline]
    fn is_busy(&self) -> bool {
        self.idlers > 0 || self.has_something()
    }

    /// The same, but for idle watchers, which do not keep virtual time from
    /// going on.
    #[inline]
    pub fn has_something(&self) -> bool {
        !self.posts.is_empty()
            || self.has_sent()
            || self.signals.due
            || !self.failures.is_empty()
            || self.deferred > 0
            || self.clock_changed
            || self.files.is_due()
            || !self.io.always.is_empty() && self.io.always.is_any_ready()
    }
}

impl Run {
    /// When a time from now is over.
    fn until(&self, duration: i64) -> Until {
        if duration < 0 {
            return Until::Ever;
        }
        // SAFETY: no other reference to the core.
        let now = unsafe { self.core() }.read_clock(MONOTONIC);
        Until::Time(now.saturating_add(duration))
    }

    fn is_over(&self, until: Until) -> bool {
        match until {
            Until::Now => true,
            Until::Ever => false,
            // SAFETY: no other reference to the core.
            Until::Time(time) => unsafe { self.core() }.read_clock(MONOTONIC) >= time,
        }
    }

    #[inline(always)]
    fn is_alive(&self) -> bool {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if self.desk.has_inbox() {
            core.receive(&mut self.desk.gate());
        }
        core.is_alive()
    }

    /// Whether the run was stopped; that is then used up.
    #[inline(always)]
    fn is_stopped(&self) -> bool {
        self.desk.mail.peek() & mailbox::STOP != 0 && self.desk.mail.take(mailbox::STOP) != 0
    }

    fn has_dispatched(&self) -> bool {
        // SAFETY: no other reference to the core.
        unsafe { self.core() }.dispatched > 0
    }

    fn has_held(&self) -> bool {
        // SAFETY: no other reference to the core.
        unsafe { self.core() }.has_held()
    }

    /// Goes round until the goal is reached, or the loop is stopped.
    fn drive(&self, until: Until, goal: Goal) -> Result<()> {
        loop {
            // What is there already is not waited for.
            if goal == Goal::Held && self.has_held() || self.is_stopped() {
                return Ok(());
            }
            let alive = self.is_alive();
            if goal == Goal::Done && !alive {
                return Ok(());
            }
            let until = if alive { until } else { Until::Now };
            let woken = self.iterate(until)?;
            if goal == Goal::Done && until == Until::Ever {
                self.go_round_quietly()?;
            }
            let reached = match goal {
                Goal::Done => until != Until::Ever && self.is_over(until),
                Goal::Once => true,
                Goal::Held => woken || self.has_held() || self.is_over(until),
                Goal::Dispatched => woken || until == Until::Now || self.has_dispatched(),
            };
            if reached {
                return Ok(());
            }
        }
    }

    fn embedded(&self) -> Result<()> {
        if self.is_stopped() {
            return Ok(());
        }
        self.arm(Until::Now)?;
        let found = self.wait_embedded()?;
        self.desk.mail.take(mailbox::WAKEUP);
        self.dispatch(found)
    }

    /// Ends the work of a run: whether anything is left.
    fn finish(&self, result: Result<()>) -> Result<bool> {
        // In a child that nobody made the loop's process nothing is touched.
        self.check_process()?;
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        core.settle();
        if core.watched {
            core.watch_end();
        }
        core.in_callback = false;
        core.current = 0;
        result?;
        self.check()?;
        // SAFETY: as above.
        Ok(unsafe { self.core() }.is_alive())
    }

    /// One time round; whether the loop was woken up.
    #[inline(always)]
    fn iterate(&self, until: Until) -> Result<bool> {
        // SAFETY: no other reference to the core.
        if !unsafe { self.core() }.lists.prepare.is_empty() {
            self.in_turn(Source::Prepare)?;
        }
        let timeout = self.arm(until)?;
        // SAFETY: no other reference to the core.
        let found = match unsafe { self.core() }.slow_waits {
            0 => self.poll(timeout)?,
            _ => self.wait_slowly(timeout, until)?,
        };
        let mail = &self.desk.mail;
        let woken = mail.peek() & mailbox::WAKEUP != 0 && mail.take(mailbox::WAKEUP) != 0;
        self.dispatch(found)?;
        Ok(woken)
    }

    /// Gets everything ready for a wait; how long it may be.
    #[inline]
    fn arm(&self, until: Until) -> Result<Option<i64>> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if core.timers.is_arming() {
            core.settle();
        }
        if core.is_dirty() || self.desk.has_inbox() {
            let mut gate = self.desk.gate();
            core.receive(&mut gate);
            core.forget_names(&mut gate);
            core.settle();
            core.flush();
        }
        // Or it is about to be: until its thread has set the word the loop
        // would not sleep, and with a real-time priority it would keep that
        // thread from doing so. What is done then waits for the gate's lock,
        // which that thread has.
        let is_asked = self.desk.mail.peek() & (mailbox::CLOSED | mailbox::ASKED) != 0;
        if is_asked || self.is_attention_due() {
            self.attend()?;
        }
        // SAFETY: as above.
        let core = unsafe { self.core() };
        self.desk.time.store(desk::UNKNOWN, Relaxed);
        core.admit_deferred();
        let mut timeout = core.arm_timers(until);
        if core.files.needs_arming() {
            timeout = core.arm_files(timeout);
        }
        if core.is_busy() || core.collecting && core.has_held() {
            return Ok(Some(0));
        }
        if core.timers.is_arming() {
            return Ok(Some(timeout.map_or(RETRY_NS, |timeout| timeout.min(RETRY_NS))));
        }
        Ok(timeout)
    }

    /// Waits; how many events there are.
    #[inline]
    pub fn poll(&self, timeout: Option<i64>) -> Result<usize> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        if timeout == Some(0) || !self.desk.mail.sleep() {
            let look = |core: &mut Core| match core.io.always.is_empty() {
                true => wait_for(core, Some(0)),
                false => core.look_beside_always(),
            };
            let result = if core.watched { self.wait_watched(false, look) } else { look(core) };
            return match result {
                // SAFETY: no other reference to the core.
                Ok(found) => Ok(unsafe { self.core() }.find_unreported(found)),
                Err(errno) => self.explain(errno),
            };
        }
        self.sleep_until(timeout)
    }

    /// Waits, after `sleep` of the mailbox.
    #[inline(always)]
    pub fn sleep_until(&self, timeout: Option<i64>) -> Result<usize> {
        // SAFETY: no other reference to the core.
        let core = unsafe { self.core() };
        // Release: a fork that sees it finds the core as it is now.
        self.desk.waiting.store(1, Release);
        let wait = |core: &mut Core| wait_for(core, timeout);
        let result = if core.watched { self.wait_watched(true, wait) } else { wait(core) };
        self.desk.waiting.store(0, Release);
        self.desk.mail.wake();
        result.or_else(|errno| self.explain(errno))
    }

    /// A wait that found nothing for this reason.
    #[cold]
    fn explain(&self, errno: Errno) -> Result<usize> {
        self.check()?;
        match errno {
            Errno::EINTR => {
                if self.desk.options.load(Relaxed) & super::INTERRUPTIBLE != 0 {
                    fail!(EINTR, "a signal handler interrupted the wait");
                }
                interrupted()?;
                self.check()?;
                Ok(0)
            }
            Errno::EBADF | Errno::EINVAL => {
                // SAFETY: no other reference to the core.
                let core = unsafe { self.core() };
                core.lose_epoll(&mut self.desk.gate());
                fail!(EBADF, "the descriptors of loop {} were closed", self.desk.handle())
            }
            errno => Err(errno.into()),
        }
    }
}

impl Core {
    /// After a wait of zero: finds what the kernel does not report, or to
    /// others. How many events there are then.
    #[inline]
    fn find_unreported(&mut self, found: usize) -> usize {
        if found == 0 {
            self.find_expired();
        }
        if self.is_given_away() { self.add_taken(found) } else { found }
    }
}

/// How many events there are, which are then in their array.
#[inline(always)]
fn wait_for(core: &mut Core, timeout: Option<i64>) -> std::result::Result<usize, Errno> {
    epoll::wait(core.epoll(), &mut core.events, timeout).map(<[_]>::len)
}

/// See evloop_next_timeout_ns.
pub(crate) fn next_timeout(handle: i64) -> Result<i64> {
    let named = named(handle, Kind::Loop)?;
    named.with(
        |core| {
            if !core.in_callback {
                core.settle();
            }
            if core.is_busy() || core.has_held() || core.desk.mail.has_work() {
                return Ok(0);
            }
            let mut least = core.next_unsettled().min(core.files.left()).min(core.wait_limit);
            for clock in 0..desk::CLOCKS {
                if let Some(wake) = core.next_exact(clock) {
                    least = least.min(wake.saturating_sub(core.read_clock(clock)).max(0));
                }
            }
            let now = core.read_clock(MONOTONIC);
            let resume = core.suspended.iter().map(|(until, _)| until.saturating_sub(now).max(0));
            Ok(resume.min().map_or(least, |resume| resume.min(least)))
        },
        |_| fail!(EBUSY, "loop {} is running in another thread", handle),
    )
}
