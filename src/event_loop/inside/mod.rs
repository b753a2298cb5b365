//! Seeing inside a loop: what it counts (`stats`), what it writes down
//! (`trace`), and who looks after it from another thread (`watchdog`).
//!
//! Nothing of it costs anything while nobody looks: a loop that is `watched`
//! goes ways of its own at each wait and each callback. What it is at is
//! `published`; all else is said by its own thread.

mod cells;
mod histogram;
mod published;
mod stats;
mod trace;
mod trace_file;
mod trace_ring;
mod watch;
mod watchdog;

pub(crate) use histogram::least_of as bucket_least;
pub(super) use published::Published;
pub(super) use stats::Kept;
pub use stats::Stats;
pub(crate) use stats::{Which, set_stats, stats, stats_histogram, stats_percentile, stats_reset};
pub(super) use trace::Trace;
pub(crate) use trace::{Output, trace_start, trace_stop};
pub(super) use watch::Watch;
pub use watchdog::Stuck;
pub(crate) use watchdog::set_watchdog;
pub(super) use watchdog::{Dog, Watchdog};

pub(crate) use histogram::BUCKETS;

use super::command::Command;
use super::core::Core;
use super::desk::Gate;
use super::lease::Locked;
use super::named::Named;
use super::own_fds::OwnFd;
use crate::errno::Result;
use crate::sync::MutexGuard;
use crate::util::alloc::TryVec;
use crate::util::try_arc::TryArc;

/// What a loop's thread is to do for those who look, or no more.
pub(super) enum Look {
    Stats(Option<TryArc<stats::Counters>>),
    Trace(Option<TryArc<trace::Ring>>),
    Watchdog(Option<Dog>),
}

/// Has the loop's thread know of a change, for which there is room at the
/// gate; with the gate's lock.
fn tell(named: &Named, mut gate: MutexGuard<'static, Locked<Gate>>, look: Look) -> Result<()> {
    if named.desk.is_mine() {
        let act = |core: &mut Core| {
            // What others asked for before comes before.
            core.receive(&mut gate);
            core.look(look);
        };
        // SAFETY: this thread runs the loop, whose run borrows nothing of the
        // core while a callback, which this call is in, runs.
        return unsafe { named.desk.with_core(act) };
    }
    if !gate.running {
        return named.with_idle(gate, |core| {
            core.look(look);
            Ok(())
        });
    }
    let wake = named.desk.leave_work();
    gate.inbox.push_reserved(Command::Look(look));
    drop(gate);
    drop(wake);
    Ok(())
}

/// Has what is pending worked up, if this is the loop's own thread; with the
/// gate's lock.
fn settle(named: &Named, gate: &mut Gate) -> Result<()> {
    on_own_thread(named, |core| core.watch_pending_at(gate))
}

/// Does something with the loop, if this is its own thread.
fn on_own_thread(named: &Named, act: impl FnOnce(&mut Core)) -> Result<()> {
    if named.desk.is_mine() {
        // SAFETY: this thread runs the loop, whose run borrows nothing of the
        // core while a callback, which this call is in, runs.
        unsafe { named.desk.with_core(act) }?;
    }
    Ok(())
}

/// In a forked child: what can fail of having the loop watched there, too.
pub(super) fn revive(gate: &mut Gate) -> Result<Option<Dog>> {
    watchdog::revive(gate)
}

impl Core {
    /// In a forked child. The parent's trace is the parent's.
    pub fn revive_watch(&mut self, gate: &mut Gate, dog: Option<Dog>) {
        if let Some(trace) = gate.trace.take() {
            trace.forget();
            self.desk.own.set(OwnFd::Trace, -1);
        }
        // By a thread that is not here.
        gate.trace_begins = false;
        if let Some(dog) = &dog {
            // A callback that goes on here was looked at before, too.
            dog.heard_at(0);
        }
        self.watch.forget_parent(dog);
        self.watched = self.watch.is_wanted();
    }

    /// From now on, this is looked at, or no more.
    pub fn look(&mut self, look: Look) {
        if let Look::Watchdog(Some(dog)) = &look {
            dog.heard_at(self.desk.published.turn());
        }
        self.watch.change(look);
        // Should this be in a callback, see `attend_counted`.
        self.desk.attention.set();
        self.watched = self.watch.is_wanted();
    }

    /// What was counted is set back; on the loop's thread, or while nobody
    /// runs it.
    fn counts_anew(&mut self) {
        self.watch.anew();
        self.desk.attention.set();
    }
}

/// As much of a text as so many bytes hold, and no part of a character.
fn cut(text: &[u8], most: usize) -> &[u8] {
    let goes_on = |at: &usize| text.get(*at).is_some_and(|byte| byte & 0xc0 == 0x80);
    // No character has more than three bytes that go on with it.
    let back = (0..3).take_while(|back| goes_on(&most.saturating_sub(*back))).count();
    text.get(..most - back).unwrap_or(text)
}
