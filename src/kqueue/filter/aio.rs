//! AIO: an operation that was begun with evloop_kqueue_aio_read and its like
//! is done.
//!
//! `state` is what it returned, or its negative errno.

use super::super::aio::Request;
use super::super::epoll_set;
use super::super::event::*;
use super::super::knote::Knote;
use super::super::slab::NONE;
use super::super::state::QueueState;
use super::super::store::no_memory;
use super::{Filter, Outcome, Verdict};
use crate::errno::{Errno, Result, fail};
use crate::util::alloc::TryMap;

pub(super) struct AioFilter;

impl Filter for AioFilter {
    fn check(&self, knote: &mut Knote) -> Result<()> {
        fail!(EPERM, "ident {}: operations are begun by calls of their own", knote.ident as i64)
    }

    fn touch(&self, state: &mut QueueState, id: u32, change: &Kevent) -> Result<()> {
        match state.store.knotes.get_mut(id) {
            Some(knote) if change.flags & EV_ADD != 0 => self.check(knote),
            // It would be deleted.
            Some(_) if change.flags & EV_FORCEONESHOT != 0 => self.may_delete(state, id),
            _ => Ok(()),
        }
    }

    fn may_delete(&self, state: &QueueState, id: u32) -> Result<()> {
        match state.store.knotes.get(id) {
            Some(knote) if knote.state == IN_FLIGHT => {
                fail!(EBUSY, "operation {} is in flight", knote.ident as i64)
            }
            _ => Ok(()),
        }
    }

    fn evaluate(&self, state: &mut QueueState, id: u32, _ready: Option<u32>) -> Verdict {
        match state.store.knotes.get(id).map(|knote| knote.state) {
            None | Some(IN_FLIGHT) => Verdict::False,
            Some(done) => Verdict::True(Outcome {
                data: done.max(-1),
                fflags: u32::try_from(-done).unwrap_or(0),
                eof: false,
            }),
        }
    }
}

/// Of an operation that is not done yet.
const IN_FLIGHT: i64 = i64::MIN;

impl QueueState {
    /// Begins an operation.
    pub fn begin_operation(&mut self, request: Request, ident: u64, udata: u64) -> Result<()> {
        let change = Kevent { ident, udata, filter: FILTER_AIO, ..Kevent::default() };
        if self.store.index.contains_key(&(ident, FILTER_AIO)) {
            fail!(EEXIST, "operation {} is in flight, or was not collected yet", ident as i64);
        }
        // Before the fd is looked at: the ring's own descriptor may get it.
        self.ensure_aio()?;
        if self.is_own(request.fd) {
            fail!(EINVAL, "fd {} is the library's own", request.fd);
        }
        self.store.index.try_reserve(1).map_err(|_| no_memory())?;
        let mut knote = Knote::new(&change, EV_ONESHOT);
        // io_uring would first wait until that is ready.
        let is_impossible = request.is_impossible();
        knote.state = if is_impossible { Errno::EINVAL.negated().into() } else { IN_FLIGHT };
        let id = self.store.insert(knote)?;
        if is_impossible {
            self.store.index.insert_reserved((ident, FILTER_AIO), id);
            self.store.activate(id);
            return Ok(());
        }
        let tag = epoll_set::word(id, self.store.knotes.generation(id));
        let Some(aio) = &mut self.aio else { return Ok(()) };
        if let Err(error) = aio.submit(request, tag) {
            self.store.knotes.remove(id);
            return Err(error);
        }
        self.store.index.insert_reserved((ident, FILTER_AIO), id);
        // It may be done by now.
        self.take_operations();
        Ok(())
    }

    /// Has an operation end soon.
    pub fn cancel_operation(&mut self, ident: u64) -> Result<()> {
        let id = self.store.index.get(&(ident, FILTER_AIO)).copied().unwrap_or(NONE);
        let state = self.store.knotes.get(id).map(|knote| knote.state);
        let tag = epoll_set::word(id, self.store.knotes.generation(id));
        match (state, &mut self.aio) {
            (Some(IN_FLIGHT), Some(aio)) => aio.cancel(tag),
            (Some(_), _) => Ok(()),
            (None, _) => fail!(ENOENT, "there is no operation {}", ident as i64),
        }
    }

    fn ensure_aio(&mut self) -> Result<()> {
        if self.aio.is_none() {
            let aio = super::super::aio::Aio::new()?;
            aio.add_to(&self.set)?;
            aio.aim_at(&self.set);
            self.aio = Some(aio);
        }
        Ok(())
    }

    /// Takes what is done.
    pub fn take_operations(&mut self) {
        while let Some((tag, result)) = self.aio.as_mut().and_then(|aio| aio.next_done()) {
            let id = tag as u32;
            if let Some(knote) = self.store.knotes.get_mut(id) {
                knote.state = result.into();
                self.store.activate(id);
            }
        }
    }

    /// Ends all that is in flight, where that is this process's, and waits for
    /// it: the memory that was lent for it is its owner's again.
    pub fn leave_operations(&mut self, is_here: bool) {
        let Some(mut aio) = self.aio.take() else { return };
        let is_open = aio.is_intact();
        if !is_here || !is_open {
            // What was begun goes on for the parent; and of a descriptor that
            // is another by now nothing can be asked.
            aio.leave(is_open);
            return self.fail_operations();
        }
        let of_aio = |((_, filter), id): (&(u64, i16), &u32)| {
            let knote = self.store.knotes.get(*id).filter(|_| *filter == FILTER_AIO)?;
            (knote.state == IN_FLIGHT)
                .then(|| epoll_set::word(*id, self.store.knotes.generation(*id)))
        };
        let in_flight = self.store.index.iter().filter_map(of_aio);
        aio.finish(in_flight);
    }

    /// The completions of the operations in flight will not be reported.
    fn fail_operations(&mut self) {
        let in_flight = |state: &Self| {
            let mut of_aio =
                state.store.index.iter().filter(|((_, filter), _)| *filter == FILTER_AIO);
            let pending =
                |id: &u32| state.store.knotes.get(*id).is_some_and(|k| k.state == IN_FLIGHT);
            of_aio.find_map(|(_, id)| pending(id).then_some(*id))
        };
        while let Some(id) = in_flight(self) {
            if let Some(knote) = self.store.knotes.get_mut(id) {
                knote.state = Errno::ECANCELED.negated().into();
            }
            self.store.activate(id);
        }
    }
}
