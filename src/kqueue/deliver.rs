//! From what the kernel reports, and from the list of knotes with events, to
//! the caller's array.

use super::epoll_set::{self, EventSource};
use super::event::*;
use super::filter::{self, Verdict};
use super::knote::*;
use super::slab::NONE;
use super::state::QueueState;
use crate::errno::Errno;
use crate::sys::epoll::{self, Event, RoundDetector};
use crate::util::bug_or;
use std::mem::MaybeUninit;

/// How many events the kernel is asked for at once: they are on the stack of
/// a thread that waits.
pub(super) const AT_ONCE: usize = 64;

/// Room for what the kernel reports at once.
pub(super) type EventBuffer = [MaybeUninit<Event>; AT_ONCE];

impl QueueState {
    /// Fills in a knote's event, if there is one; `ready`: what an epoll has
    /// just reported of its descriptor. False: there is no room.
    fn deliver(&mut self, id: u32, ready: Option<u32>, sink: &mut KeventSink) -> bool {
        if sink.is_full() {
            return false;
        }
        if ready.is_none() && self.is_gone(id) {
            return true;
        }
        let Some(knote) = self.store.knotes.get(id) else { bug_or!(return true) };
        let (filter, forced) = (filter::of(knote), knote.is(FORCED));
        let verdict = filter.evaluate(&mut self.store, &mut self.sources, id, ready);
        let outcome = match verdict {
            Verdict::True(outcome) => outcome,
            Verdict::False if forced => filter::Outcome::default(),
            Verdict::False => return true,
            Verdict::Gone => {
                self.is_gone(id);
                return true;
            }
        };
        let Some(knote) = self.store.knotes.get_mut(id) else { bug_or!(return true) };
        knote.call_seq = sink.call_seq;
        knote.status &= !FORCED;
        let mut event = knote.event();
        (event.data, event.fflags) = (outcome.data, outcome.fflags);
        if outcome.eof {
            event.flags |= EV_EOF;
        }
        let (oneshot, dispatch) = (knote.has(EV_ONESHOT), knote.has(EV_DISPATCH));
        sink.push(event);
        if oneshot {
            self.remove(id);
            return true;
        }
        filter.delivered(&mut self.store, &mut self.sources, id);
        if dispatch {
            self.set_enabled(id, false);
            self.refresh_quietly(id);
        }
        true
    }

    /// Whether a knote's descriptor is not what it was; then it is forgotten.
    fn is_gone(&mut self, id: u32) -> bool {
        let registration = self.store.knotes.get(id).map_or(NONE, |knote| knote.registration);
        let gone = registration != NONE && self.verify(registration).is_err();
        if gone {
            self.forget(registration);
        }
        gone
    }

    /// After a delivery: what the kernel refuses is a descriptor that is not
    /// there any more.
    fn refresh_quietly(&mut self, id: u32) {
        let registration = self.store.knotes.get(id).map_or(NONE, |knote| knote.registration);
        match self.refresh(registration, NONE, NONE) {
            Err(Errno::EBADF | Errno::ENOENT) => self.forget(registration),
            // There is no memory to have it watched again: it is not lost, as
            // it is looked at again.
            Err(_) => self.store.activate(id),
            Ok(_) => {}
        }
    }

    /// Takes what the list of those with events has, each once.
    #[inline]
    pub fn take_active(&mut self, sink: &mut KeventSink) {
        if !self.store.active.is_empty() {
            self.take_all_active(sink);
        }
    }

    fn take_all_active(&mut self, sink: &mut KeventSink) {
        let mut left = self.store.active.len();
        while left > 0 && !sink.is_full() {
            left -= 1;
            let id = self.store.active.first();
            let Some(knote) = self.store.knotes.get(id) else { return };
            let (forced, done) = (knote.is(FORCED), knote.call_seq == sink.call_seq);
            self.store.active.remove(&mut self.store.knotes, id);
            if done {
                // Delivered by this call, and still so: for the next one.
                self.store.active.append(&mut self.store.knotes, id);
                continue;
            }
            self.store.deactivate(id);
            if forced && let Some(knote) = self.store.knotes.get_mut(id) {
                knote.status |= FORCED;
            }
            self.deliver(id, None, sink);
        }
    }

    /// Takes what the kernel has to report now, as far as there is room.
    pub fn take_ready(
        &mut self,
        buffer: &mut EventBuffer,
        sink: &mut KeventSink,
    ) -> Result<(), Errno> {
        let (mut rounds, mut left) = (RoundDetector::new(), None);
        while left != Some(0) && !sink.is_full() {
            let wanted = sink.left().min(buffer.len());
            let out = buffer.get_mut(..wanted).unwrap_or_default();
            let events = epoll::wait(self.sources.set.inner(), out, Some(0))?;
            let is_over = rounds.is_over(events);
            // The queue's lock is held from the wait on, so no other thread
            // can have removed a registration in between: an event of an
            // unknown one will be reported again.
            self.stale_events += self.take_events(events, sink);
            if events.len() < wanted {
                break;
            }
            left = match left {
                Some(left) => Some(usize::saturating_sub(left, events.len())),
                None if !is_over => None,
                None if self.waiters.waiting() == 0 => Some(0),
                // Each thread that waits may have moved so many behind what
                // came first. They come with the next round, unless they are
                // moved again: then that thread is about to return them.
                None => Some(rounds.length() + self.waiters.waiting() * buffer.len()),
            };
        }
        Ok(())
    }

    /// Takes what the kernel has reported; how many of it were registrations
    /// that are not known any more.
    pub fn take_events(&mut self, events: &[Event], sink: &mut KeventSink) -> usize {
        let mut unknown = 0;
        for (event, next) in events.iter().zip(1..) {
            if let Some(next) = events.get(next).map(epoll_set::source)
                && let EventSource::Registration(id, _) = next
            {
                self.store.registrations.prefetch(id);
            }
            match epoll_set::source(event) {
                EventSource::Registration(id, generation) => {
                    let kind = self.store.kind_in_inner(id);
                    let known = self.take_registration((id, generation), kind, event.events, sink);
                    unknown += usize::from(!known);
                }
                EventSource::Nested(kind) => self.take_nested(kind, sink),
                EventSource::ReadyEvent(seq) => self.sources.set.was_delivered(seq),
                EventSource::Timer(clock) => self.sources.timers.has_expired(clock),
                source => self.take_source(&source),
            }
        }
        unknown
    }

    /// Has a source look what it has, and the filters judge it.
    fn take_source(&mut self, source: &EventSource) {
        let Self { store, sources, .. } = self;
        let set = &sources.set;
        match *source {
            EventSource::Vnode => self.take_vnode_events(),
            EventSource::Mounts => filter::take_mounts(store, sources),
            EventSource::Netlink => sources.netlink.take(store, filter::linked),
            EventSource::Signals => drop(sources.signals.take(store)),
            EventSource::Signalfd => sources.signals.take_signalfd(store),
            EventSource::Aio => sources.aio.take(store),
            EventSource::Connector => sources.processes.take_connector(store, set),
            EventSource::Process(id, generation) => {
                sources.processes.take_end(store, set, (id, generation));
            }
            EventSource::Registration(..)
            | EventSource::Nested(_)
            | EventSource::ReadyEvent(_)
            | EventSource::Timer(_) => {}
        }
    }

    /// Takes what an epoll in the inner one has.
    fn take_nested(&mut self, kind: usize, sink: &mut KeventSink) {
        let Some(epoll) = self.sources.set.nested(kind) else { return };
        let mut buffer = [MaybeUninit::uninit(); 64];
        let mut rounds = RoundDetector::new();
        while !sink.is_full() {
            let wanted = sink.left().min(buffer.len());
            let out = buffer.get_mut(..wanted).unwrap_or_default();
            let Ok(events) = epoll::wait(epoll, out, Some(0)) else { return };
            for event in events {
                if let EventSource::Registration(id, generation) = epoll_set::source(event)
                    && !self.take_registration((id, generation), kind, event.events, sink)
                {
                    self.stale_events += 1;
                }
            }
            if events.len() < wanted || rounds.is_over(events) {
                return;
            }
        }
    }

    /// Whether this call has delivered all level-triggered knotes that the
    /// report is about.
    fn is_delivered(&self, first: u32, ready: u32, sink: &KeventSink) -> bool {
        let (mut cursor, mut delivered) = (first, false);
        while let Some(knote) = self.store.knotes.get(cursor) {
            let (kind, interest) = filter::of(knote).interest(knote);
            let meant = interest | epoll_set::ERR | epoll_set::HUP;
            if kind == epoll_set::LEVEL && ready & meant != 0 && !knote.is(DISABLED) {
                if knote.call_seq != sink.call_seq {
                    return false;
                }
                delivered = true;
            }
            cursor = knote.next;
        }
        delivered
    }

    /// `ready`: what the kernel reported of this kind of its registration.
    /// False: it is not known.
    fn take_registration(
        &mut self,
        (id, generation): (u32, u32),
        kind: usize,
        ready: u32,
        sink: &mut KeventSink,
    ) -> bool {
        let Some(registration) = self.store.registrations.get_of(id, generation) else {
            return false;
        };
        self.store.knotes.prefetch(registration.first);
        let may_be_delivered =
            kind == epoll_set::LEVEL && sink.filled() > 0 && registration.is_level();
        if may_be_delivered && self.is_delivered(registration.first, ready, sink) {
            return true;
        }
        // A duplicate of what was closed may be reported, and another file may
        // have the descriptor by now; unless the program prevents that.
        if !self.trusts_fds && registration.verify(&self.sources.set).is_err() {
            self.forget(id);
            self.stale_events += 1;
            return true;
        }
        let (mut cursor, is_level) = (registration.first, registration.is_level());
        // That there is an event, now or later.
        let mut wanted = false;
        while let Some(knote) = self.store.knotes.get(cursor) {
            let (id, next, before) = (cursor, knote.next, sink.filled());
            let (its_kind, interest) = filter::of(knote).interest(knote);
            let meant = interest | epoll_set::ERR | epoll_set::HUP;
            cursor = next;
            if its_kind != kind || ready & meant == 0 || knote.is(DISABLED) {
                continue;
            }
            if knote.call_seq == sink.call_seq {
                wanted = true;
                if kind != epoll_set::LEVEL {
                    // The kernel does not report the edge again.
                    self.store.activate(id);
                }
            } else if self.deliver(id, Some(ready), sink) {
                wanted |= sink.filled() > before;
            } else {
                wanted = true;
                self.store.activate(id);
            }
        }
        if !(wanted && is_level) {
            self.was_reported(id, wanted);
        }
        true
    }
}
