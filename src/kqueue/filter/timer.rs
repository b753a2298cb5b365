//! TIMER: a number of expirations, since the last event.
//!
//! Expirations are not counted one by one. `state` is when the first that
//! was not delivered is due, or was; how many there are is seen from the
//! clock when they are delivered. So a timer is armed only while it has
//! none, and not while it is disabled. One that has expired for good has
//! `NEVER` there.

use super::super::event::*;
use super::super::knote::{ACTIVE, DISABLED, Knote};
use super::super::source::Sources;
use super::super::source::timer::{self, MONOTONIC, REALTIME};
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use crate::errno::{Result, error, fail};
use crate::util::bug_or;

pub(super) struct TimerFilter;

const NEVER: i64 = i64::MAX;

const UNITS: u32 = NOTE_SECONDS | NOTE_MSECONDS | NOTE_USECONDS | NOTE_NSECONDS;

/// Nanoseconds of a knote's data, saturated.
fn nanoseconds(knote: &Knote) -> Result<i64> {
    let unit = match knote.fflags & UNITS {
        NOTE_SECONDS => 1_000_000_000,
        NOTE_MSECONDS | 0 => 1_000_000,
        NOTE_USECONDS => 1_000,
        NOTE_NSECONDS => 1,
        units => fail!(EINVAL, "fflags {} have more than one unit of time", units),
    };
    Ok(knote.data.saturating_mul(unit))
}

fn is_absolute(knote: &Knote) -> bool {
    knote.fflags & NOTE_ABSTIME != 0
}

/// The clock that its deadlines are times of.
fn clock_of(knote: &Knote) -> u8 {
    if is_absolute(knote) { REALTIME } else { MONOTONIC }
}

/// Whether it goes on after its first expiration.
fn is_periodic(knote: &Knote) -> bool {
    !is_absolute(knote) && !knote.has(EV_ONESHOT)
}

impl TimerFilter {
    /// Has it begin now; it is not armed yet.
    fn start(store: &mut Store, id: u32) -> Result<()> {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Ok(())) };
        let time = nanoseconds(knote)?;
        let clock = clock_of(knote);
        if knote.clock != clock {
            // Its entry is in the other clock's queue.
            knote.node.forget_entry();
            knote.clock = clock;
        }
        knote.state = match is_absolute(knote) {
            true => time,
            false => timer::now(MONOTONIC).saturating_add(time),
        };
        Ok(())
    }

    /// Arms it for when it is due, or has it looked at soon.
    fn rearm(store: &mut Store, sources: &mut Sources, id: u32) {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return) };
        let deadline = knote.state;
        if deadline != NEVER && sources.timers.arm(&store.knotes, id, deadline).is_err() {
            store.activate(id);
        }
    }
}

impl Filter for TimerFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, UNITS | NOTE_ABSTIME)?;
        if knote.data < 0 {
            fail!(EINVAL, "data is {}, negative", knote.data);
        }
        nanoseconds(knote)?;
        if knote.data == 0 && !knote.has(EV_ONESHOT) {
            knote.data = 1;
        }
        if !is_absolute(knote) {
            knote.flags |= EV_CLEAR;
        }
        Ok(())
    }

    fn attach(&self, store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
        let Some(clock) = store.knotes.get(id).map(clock_of) else { return Ok(()) };
        sources.timers.make_timerfd(&sources.set, clock)?;
        Self::start(store, id)?;
        let Some(knote) = store.knotes.get(id).filter(|knote| !knote.is(DISABLED)) else {
            return Ok(());
        };
        let armed = sources.timers.arm(&store.knotes, id, knote.state);
        armed.map_err(|_| error!(crate::errno::Errno::ENOMEM, "no memory for another timer"))
    }

    fn touch(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        change: &Kevent,
    ) -> Result<()> {
        if change.flags & EV_ADD == 0 {
            return Ok(());
        }
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        let mut wanted = Knote::new(change, knote.flags);
        self.check(&mut wanted)?;
        sources.timers.make_timerfd(&sources.set, clock_of(&wanted))?;
        sources.timers.disarm(&store.knotes, id);
        store.deactivate(id);
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Ok(())) };
        (knote.flags, knote.fflags, knote.data) = (wanted.flags, wanted.fflags, wanted.data);
        Self::start(store, id)?;
        if store.knotes.get(id).is_some_and(|knote| !knote.is(DISABLED)) {
            Self::rearm(store, sources, id);
        }
        Ok(())
    }

    fn enabled(&self, store: &mut Store, sources: &mut Sources, id: u32, on: bool) {
        let active = store.knotes.get(id).is_some_and(|knote| knote.is(ACTIVE));
        match on {
            true if !active => Self::rearm(store, sources, id),
            true => {}
            false => sources.timers.disarm(&store.knotes, id),
        }
    }

    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Verdict::False) };
        let late = timer::now(knote.clock).saturating_sub(knote.state);
        if late < 0 {
            Self::rearm(store, sources, id);
            return Verdict::False;
        }
        if !is_periodic(knote) {
            return Verdict::True(Outcome { data: 1, ..Outcome::default() });
        }
        let period = nanoseconds(knote).unwrap_or(1).max(1);
        let count = late / period + 1;
        knote.state = knote.state.saturating_add(count.saturating_mul(period));
        Verdict::True(Outcome { data: count, ..Outcome::default() })
    }

    fn delivered(&self, store: &mut Store, sources: &mut Sources, id: u32) {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        if is_periodic(knote) {
            Self::rearm(store, sources, id);
        } else if knote.has(EV_CLEAR) {
            knote.state = NEVER;
        } else {
            store.activate(id);
        }
    }
}
