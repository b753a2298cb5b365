//! PROC: a process ended, forked, executed another program; and, tracked,
//! its children too.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::slab::NONE;
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use crate::errno::{Result, fail};
use crate::util::bug_or;

pub(super) struct ProcessFilter;

const KNOWN: u32 = NOTE_EXIT | NOTE_FORK | NOTE_EXEC | NOTE_TRACK | NOTE_EXITSTATUS;
/// FreeBSD lets them be said, as it says them in events.
const SAID: u32 = NOTE_TRACKERR | NOTE_CHILD | NOTE_EXITUNKNOWN;

impl Filter for ProcessFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, KNOWN | SAID | NOTE_PROC_OTHERS)?;
        let others = knote.fflags & NOTE_PROC_OTHERS & !(KNOWN | SAID);
        if others != 0 {
            fail!(ENOTSUP, "fflags {} are not supported", others);
        }
        knote.flags |= EV_CLEAR;
        knote.state = NONE.into();
        Ok(())
    }

    fn attach(&self, store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
        sources.processes.attach(store, &sources.set, id)
    }

    fn touch(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        change: &Kevent,
    ) -> Result<()> {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        let mut wanted = Knote::new(change, knote.flags);
        self.check(&mut wanted)?;
        sources.processes.listen_for(store, &sources.set, id, wanted.fflags)?;
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return Ok(())) };
        (knote.flags, knote.fflags, knote.data) = (wanted.flags, wanted.fflags, wanted.data);
        Ok(())
    }

    fn detach(&self, store: &mut Store, sources: &mut Sources, id: u32) {
        sources.processes.detach(store, &sources.set, id);
    }

    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        let Some(report) = sources.processes.report(store, id) else { return Verdict::False };
        if report.is_over
            && let Some(knote) = store.knotes.get_mut(id)
        {
            knote.flags |= EV_ONESHOT;
        }
        Verdict::True(Outcome { data: report.data, fflags: report.fflags, eof: report.is_over })
    }
}
