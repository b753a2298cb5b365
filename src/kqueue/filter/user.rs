//! USER: events that the program triggers itself.
//!
//! Whether it is triggered is whether it is active.

use super::super::event::*;
use super::super::knote::{ACTIVE, Knote};
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict};
use crate::errno::Result;
use crate::util::bug_or;

pub(super) struct UserFilter;

impl Filter for UserFilter {
    fn check(&self, _knote: &mut Knote) -> Result<()> {
        Ok(())
    }

    fn attach(&self, store: &mut Store, _sources: &mut Sources, id: u32) -> Result<()> {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Ok(())) };
        let triggered = knote.fflags & NOTE_TRIGGER != 0;
        knote.fflags &= NOTE_FFLAGSMASK;
        if triggered {
            store.activate(id);
        }
        Ok(())
    }

    fn touch(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        change: &Kevent,
    ) -> Result<()> {
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Ok(())) };
        let fflags = change.fflags & NOTE_FFLAGSMASK;
        knote.fflags = match change.fflags & NOTE_FFCTRLMASK {
            NOTE_FFAND => knote.fflags & fflags,
            NOTE_FFOR => knote.fflags | fflags,
            NOTE_FFCOPY => fflags,
            _ => knote.fflags,
        };
        knote.data = change.data;
        if change.fflags & NOTE_TRIGGER != 0 {
            store.activate(id);
        } else if change.flags & EV_CLEAR != 0 {
            store.deactivate(id);
        }
        Ok(())
    }

    fn evaluate(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        match store.knotes.get(id) {
            Some(knote) => {
                Verdict::True(Outcome { data: knote.data, fflags: knote.fflags, eof: false })
            }
            None => Verdict::False,
        }
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        if store.knotes.get(id).is_some_and(|knote| !knote.has(EV_CLEAR) && !knote.is(ACTIVE)) {
            store.activate(id);
        }
    }
}
