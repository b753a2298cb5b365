//! Another set of epolls in a queue, which watches all that the one before did.

use super::epoll_set::*;
use super::filter;
use super::knote::*;
use super::slab::NONE;
use super::state::QueueState;
use crate::errno::Errno;
use crate::sys::epoll::{self, RoundDetector};
use crate::util::bug_or;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

impl QueueState {
    /// Has another set of epolls watch everything that still is what it was.
    /// What was reported is not reported again; the old set. On failure it is
    /// as before.
    pub fn move_quietly_to(&mut self, mut fresh: EpollSet) -> Result<EpollSet, Errno> {
        self.copy_registrations(&mut fresh)?;
        // What the new epolls report at once was reported before: it is
        // discarded. What the old epolls have yet to report was not. In this
        // order no event is lost between the two sets, and an event that
        // occurs between the steps is in both.
        self.each_report(fresh.epolls(), |_, _, _| {});
        self.sources.add_to(&self.store, &fresh)?;
        self.each_report(self.sources.set.epolls(), Self::activate_edges);
        self.each_report(fresh.epolls(), Self::activate_edges);
        self.stale_events = 0;
        self.removed_before = self.store.registrations.removed();
        // An expiry of a timerfd may have been reported to either set.
        self.sources.timers.forget_setting();
        let old = std::mem::replace(&mut self.sources.set, fresh);
        self.sources.aim_wakeups();
        // Those may have been woken by way of the old one.
        self.sources.signals.take(&mut self.store);
        self.sources.aio.take(&mut self.store);
        Ok(old)
    }

    /// Registrations of descriptors that were closed do not come along.
    pub fn copy_registrations(&mut self, fresh: &mut EpollSet) -> Result<(), Errno> {
        let mut cursor = 0;
        while let Some(id) = self.store.registrations.next_from(cursor) {
            cursor = id + 1;
            if self.verify(id).is_err() {
                self.forget(id);
                continue;
            }
            self.copy_to(fresh, id)?;
        }
        Ok(())
    }

    /// Takes what a set's epolls report of registrations, all of it; `take`
    /// is given the registration, its generation and kind.
    fn each_report(
        &mut self,
        epolls: [(usize, RawFd); KINDS + 1],
        take: impl Fn(&mut Self, (u32, u32), usize),
    ) {
        let mut buffer = [MaybeUninit::uninit(); 64];
        for (kind, epoll) in epolls {
            let mut rounds = RoundDetector::new();
            while let Ok(events) = epoll::wait(epoll, &mut buffer, Some(0))
                && !events.is_empty()
            {
                for event in events {
                    if let EventSource::Registration(id, generation) = source(event) {
                        let kind = if kind < KINDS { kind } else { self.store.kind_in_inner(id) };
                        take(self, (id, generation), kind);
                    }
                }
                if rounds.is_over(events) {
                    break;
                }
            }
        }
    }

    /// Activates the knotes whose events the kernel does not report again.
    fn activate_edges(&mut self, (id, generation): (u32, u32), kind: usize) {
        let known = self.store.registrations.get_of(id, generation);
        if known.is_some_and(|one| one.is_edge(kind)) {
            self.activate_all(id, kind);
        }
    }

    /// Has all knotes that this kind of registration is for looked at.
    fn activate_all(&mut self, id: u32, kind: usize) {
        let mut cursor = self.store.registrations.get(id).map_or(NONE, |one| one.first);
        while let Some(knote) = self.store.knotes.get(cursor) {
            let (id, next) = (cursor, knote.next);
            if filter::of(knote).interest(knote).0 == kind && !knote.is(DISABLED) {
                self.store.activate(id);
            }
            cursor = next;
        }
    }

    fn copy_to(&self, fresh: &mut EpollSet, id: u32) -> Result<(), Errno> {
        let Some(registration) = self.store.registrations.get(id) else { bug_or!(return Ok(())) };
        for (kind, mask) in registration.masks.into_iter().enumerate() {
            fresh.set(self.store.epoll_entry(id, kind), registration.fd, 0, mask)?;
        }
        Ok(())
    }
}
