//! USER: events that the program triggers itself.
//!
//! Whether it is triggered is whether it is active.

use super::super::core::Core;
use super::super::event::*;
use super::super::knote::{ACTIVE, Knote};
use super::{Filter, Outcome, Verdict};
use crate::errno::Result;

pub(super) struct User;

impl Filter for User {
    fn check(&self, _knote: &mut Knote) -> Result<()> {
        Ok(())
    }

    fn attach(&self, core: &mut Core, id: u32) -> Result<()> {
        let Some(knote) = core.knotes.get_mut(id) else { return Ok(()) };
        let triggered = knote.fflags & NOTE_TRIGGER != 0;
        knote.fflags &= NOTE_FFLAGSMASK;
        if triggered {
            core.activate(id);
        }
        Ok(())
    }

    fn touch(&self, core: &mut Core, id: u32, change: &Kevent) -> Result<()> {
        let Some(knote) = core.knotes.get_mut(id) else { return Ok(()) };
        let fflags = change.fflags & NOTE_FFLAGSMASK;
        knote.fflags = match change.fflags & NOTE_FFCTRLMASK {
            NOTE_FFAND => knote.fflags & fflags,
            NOTE_FFOR => knote.fflags | fflags,
            NOTE_FFCOPY => fflags,
            _ => knote.fflags,
        };
        knote.data = change.data;
        if change.fflags & NOTE_TRIGGER != 0 {
            core.activate(id);
        } else if change.flags & EV_CLEAR != 0 {
            core.deactivate(id);
        }
        Ok(())
    }

    fn evaluate(&self, core: &mut Core, id: u32, _ready: Option<u32>) -> Verdict {
        match core.knotes.get(id) {
            Some(knote) => {
                Verdict::True(Outcome { data: knote.data, fflags: knote.fflags, eof: false })
            }
            None => Verdict::False,
        }
    }

    fn delivered(&self, core: &mut Core, id: u32) {
        if core.knotes.get(id).is_some_and(|knote| !knote.has(EV_CLEAR) && !knote.is(ACTIVE)) {
            core.activate(id);
        }
    }
}
