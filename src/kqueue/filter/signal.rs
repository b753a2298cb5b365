//! SIGNAL: a signal came, so many times since the last event.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::source::signal::DETACHED;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict};
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

    fn attach(&self, store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
        sources.signals.attach(store, &sources.set, id)
    }

    fn detach(&self, store: &mut Store, sources: &mut Sources, id: u32) {
        sources.signals.detach(store, &sources.set, id);
    }

    fn enabled(&self, store: &mut Store, sources: &mut Sources, id: u32, on: bool) {
        sources.signals.set_enabled(store, id, on);
    }

    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        match i64::try_from(sources.signals.take_count(store, id)).unwrap_or(i64::MAX) {
            0 => Verdict::False,
            data => Verdict::True(Outcome { data, ..Outcome::default() }),
        }
    }
}
