//! EXCEPT: out-of-band data of a socket.

use super::super::epoll_set::*;
use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use super::ready::{Connection, PolledFd};
use crate::errno::{Result, fail};
use crate::util::bug_or;

pub(super) struct ExceptFilter;

const EVENTS: u32 = PRI | RDHUP;

impl Filter for ExceptFilter {
    fn is_of_descriptor(&self) -> bool {
        true
    }

    fn looks_at_file_type(&self) -> bool {
        true
    }

    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, NOTE_OOB)
    }

    fn attach(&self, store: &mut Store, _sources: &mut Sources, id: u32) -> Result<()> {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Ok(())) };
        match store.registrations.get(knote.registration) {
            Some(one) if one.file_type != libc::S_IFSOCK => {
                fail!(EINVAL, "fd {} is no socket", one.fd)
            }
            _ => Ok(()),
        }
    }

    fn interest(&self, knote: &Knote) -> (usize, u32) {
        let kind = if knote.has(EV_CLEAR) { READ_EDGE } else { LEVEL };
        (kind, if knote.fflags & NOTE_OOB != 0 { EVENTS } else { RDHUP })
    }

    fn evaluate(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        ready: Option<u32>,
    ) -> Verdict {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Verdict::False) };
        let wanted = knote.fflags;
        let Some(look) = PolledFd::of(store, knote, ready, EVENTS) else { return Verdict::Gone };
        let fflags = if look.is(PRI) { NOTE_OOB & wanted } else { 0 };
        let eof = look.is(RDHUP | HUP) && !matches!(look.connection(), Connection::Never);
        match fflags != 0 || eof {
            true => Verdict::True(Outcome { data: 0, fflags, eof }),
            false => Verdict::False,
        }
    }
}
