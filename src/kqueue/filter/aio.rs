//! AIO: an operation that was begun with evloop_kqueue_aio_read and its like
//! is done.
//!
//! `state` is what it returned, or its negative errno.

use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::source::aio::IN_FLIGHT;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict};
use crate::errno::{Result, fail};

pub(super) struct AioFilter;

impl Filter for AioFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        fail!(EPERM, "ident {}: operations are begun by calls of their own", knote.ident as i64)
    }

    fn touch(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        change: &Kevent,
    ) -> Result<()> {
        match store.knotes.get_mut(id) {
            Some(knote) if change.flags & EV_ADD != 0 => self.check(knote),
            // It would be deleted.
            Some(_) if change.flags & EV_FORCEONESHOT != 0 => self.may_delete(store, id),
            _ => Ok(()),
        }
    }

    fn may_delete(&self, store: &Store, id: u32) -> Result<()> {
        match store.knotes.get(id) {
            Some(knote) if knote.state == IN_FLIGHT => {
                fail!(EBUSY, "operation {} is in flight", knote.ident as i64)
            }
            _ => Ok(()),
        }
    }

    fn evaluate(
        &self,
        store: &mut Store,
        _sources: &mut Sources,
        id: u32,
        _ready: Option<u32>,
    ) -> Verdict {
        match store.knotes.get(id).map(|knote| knote.state) {
            None | Some(IN_FLIGHT) => Verdict::False,
            Some(done) => Verdict::True(Outcome {
                data: done.max(-1),
                fflags: u32::try_from(-done).unwrap_or(0),
                eof: false,
            }),
        }
    }
}
