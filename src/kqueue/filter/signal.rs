//! SIGNAL: a signal came, so many times since the last event.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::signals::DETACHED;
use super::super::state::QueueState;
use super::{Filter, Outcome, Verdict};
use crate::errno::{Result, fail};
use crate::signal_hub;

pub(super) struct SignalFilter;

impl Filter for SignalFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        signal_hub::check(knote.ident)?;
        if knote.fflags != 0 {
            fail!(EINVAL, "fflags {} are unknown to the filter", knote.fflags);
        }
        knote.flags |= EV_CLEAR;
        knote.state = DETACHED;
        Ok(())
    }

    fn attach(&self, state: &mut QueueState, id: u32) -> Result<()> {
        state.attach_signal(id)
    }

    fn detach(&self, state: &mut QueueState, id: u32) {
        state.detach_signal(id);
    }

    fn enabled(&self, state: &mut QueueState, id: u32, on: bool) {
        state.signal_enabled(id, on);
    }

    fn evaluate(&self, state: &mut QueueState, id: u32, _ready: Option<u32>) -> Verdict {
        match i64::try_from(state.take_count(id)).unwrap_or(i64::MAX) {
            0 => Verdict::False,
            data => Verdict::True(Outcome { data, ..Outcome::default() }),
        }
    }
}
