//! A queue's operations: reading, writing and syncing in the background. Each
//! is a knote, whose state is what the operation returned.

mod engine;
mod jobs;
mod request;
mod ring;
mod threads;

pub(crate) use self::request::{Operation, Request};

use self::engine::Aio;
use super::super::epoll_set::{self, EpollSet};
use super::super::event::*;
use super::super::knote::Knote;
use super::super::store::{Store, no_memory};
use crate::errno::{Errno, Result, fail};
use crate::util::alloc::TryMap;
use std::os::fd::RawFd;

/// Of an operation that is not done yet.
pub(in super::super) const IN_FLIGHT: i64 = i64::MIN;

/// The operations, and what does them: made at the first.
pub(in super::super) struct Operations(Option<Aio>);

impl Operations {
    pub const fn new() -> Self {
        Self(None)
    }

    /// Makes what does operations.
    pub fn open(&mut self, set: &EpollSet) -> Result<()> {
        if self.0.is_none() {
            let aio = Aio::new()?;
            aio.add_to(set)?;
            aio.aim_at(set);
            self.0 = Some(aio);
        }
        Ok(())
    }

    /// Has another set report what is done.
    pub fn add_to(&self, set: &EpollSet) -> std::result::Result<(), Errno> {
        self.0.as_ref().map_or(Ok(()), |aio| aio.add_to(set))
    }

    /// Has threads wake another set, which it was added to.
    pub fn aim_at(&self, set: &EpollSet) {
        if let Some(aio) = &self.0 {
            aio.aim_at(set);
        }
    }

    /// Whether a descriptor is one of its own.
    pub fn is_own(&self, fd: RawFd) -> bool {
        self.0.as_ref().is_some_and(|aio| aio.is_own(fd))
    }

    /// Whether operations wait to be submitted again, and no event will
    /// report when the kernel accepts them.
    pub fn is_stuck(&self) -> bool {
        self.0.as_ref().is_some_and(Aio::is_stuck)
    }

    /// Begins an operation, whose ident no other one has.
    pub fn begin(
        &mut self,
        store: &mut Store,
        request: Request,
        (ident, udata): (u64, u64),
    ) -> Result<()> {
        let change = Kevent { ident, udata, filter: FILTER_AIO, ..Kevent::default() };
        store.index.try_reserve(1).map_err(|_| no_memory())?;
        let mut knote = Knote::new(&change, EV_ONESHOT);
        // io_uring would first wait until that is ready.
        let is_impossible = request.is_impossible();
        knote.state = if is_impossible { Errno::EINVAL.negated().into() } else { IN_FLIGHT };
        let id = store.insert(knote)?;
        if is_impossible {
            store.index.insert_reserved((ident, FILTER_AIO), id);
            store.activate(id);
            return Ok(());
        }
        let Some(aio) = &mut self.0 else { return Ok(()) };
        if let Err(error) = aio.submit(request, tag(store, id)) {
            store.knotes.remove(id);
            return Err(error);
        }
        store.index.insert_reserved((ident, FILTER_AIO), id);
        // It may be done by now.
        self.take(store);
        Ok(())
    }

    /// Has an operation end soon.
    pub fn cancel(&mut self, store: &Store, ident: u64) -> Result<()> {
        let id = store.first_of(ident, FILTER_AIO);
        match (store.knotes.get(id).map(|knote| knote.state), &mut self.0) {
            (Some(IN_FLIGHT), Some(aio)) => aio.cancel(tag(store, id)),
            (Some(_), _) => Ok(()),
            (None, _) => fail!(ENOENT, "there is no operation {}", ident as i64),
        }
    }

    /// Takes what is done.
    pub fn take(&mut self, store: &mut Store) {
        while let Some((tag, result)) = self.0.as_mut().and_then(Aio::next_done) {
            let id = tag as u32;
            if let Some(knote) = store.knotes.get_mut(id) {
                knote.state = result.into();
                store.activate(id);
            }
        }
    }

    /// Ends all that is in flight, where that is this process's, and waits for
    /// it: the memory that was lent for it is its owner's again.
    pub fn leave(&mut self, store: &mut Store, is_here: bool) {
        let Some(mut aio) = self.0.take() else { return };
        let is_open = aio.is_intact();
        if !is_here || !is_open {
            // What was begun goes on for the parent; and of a descriptor that
            // is another by now nothing can be asked.
            aio.leave(is_open);
            return fail_all(store);
        }
        aio.finish(in_flight(store).map(|id| tag(store, id)));
    }
}

/// What comes back when a knote's operation is done.
fn tag(store: &Store, id: u32) -> u64 {
    epoll_set::word(id, store.knotes.generation(id))
}

/// The knotes of operations in flight.
fn in_flight(store: &Store) -> impl Iterator<Item = u32> {
    let of_aio = store.index.iter().filter(|((_, filter), _)| *filter == FILTER_AIO);
    let pending = |id: &u32| store.knotes.get(*id).is_some_and(|one| one.state == IN_FLIGHT);
    of_aio.map(|(_, id)| *id).filter(pending)
}

/// The completions of the operations in flight will not be reported.
fn fail_all(store: &mut Store) {
    loop {
        let Some(id) = in_flight(store).next() else { return };
        if let Some(knote) = store.knotes.get_mut(id) {
            knote.state = Errno::ECANCELED.negated().into();
        }
        store.activate(id);
    }
}
