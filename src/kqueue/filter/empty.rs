//! EMPTY: a socket has nothing left to send.
//!
//! epoll has no such event. A local socket is writable again each time its
//! peer has received something, and that edge is reason to look. TCP says
//! nothing when the last byte was acknowledged, so it is looked at after a
//! millisecond, and then after twice as long each time: as long as there is
//! something to send, and the knote is enabled.
//!
//! `state` is how long the last such pause was, in nanoseconds. After an
//! event it is negative: the complement of the bytes that had been
//! acknowledged by then, which says whether there were more since.

use super::super::epoll_set::*;
use super::super::event::*;
use super::super::knote::{DISABLED, Knote};
use super::super::source::Sources;
use super::super::store::Store;
use super::super::store::no_memory;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use super::ready::{self, PolledFd};
use crate::errno::{Errno, Result, fail};
use crate::sys::file;
use crate::sys::socket::{self, SocketKind, TCP_CLOSE};
use crate::util::alloc::TryVec;
use crate::util::bug_or;
use std::os::fd::RawFd;

pub(super) struct EmptyFilter;

const SHORTEST_NS: i64 = 1_000_000;
const LONGEST_NS: i64 = 20_000_000;

impl Filter for EmptyFilter {
    fn is_of_descriptor(&self) -> bool {
        true
    }

    fn looks_at_file_type(&self) -> bool {
        true
    }

    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, 0)
    }

    fn attach(&self, store: &mut Store, sources: &mut Sources, id: u32) -> Result<()> {
        let registration = store.knotes.get(id).map(|knote| knote.registration);
        let Some(one) = registration.and_then(|id| store.registrations.get(id)) else {
            return Ok(());
        };
        if one.socket.is_none() {
            fail!(EINVAL, "fd {} is no socket", one.fd);
        }
        if file::unsent(one.fd).is_err() && !socket::listens(one.fd) {
            fail!(EINVAL, "fd {} is a socket that does not count what it has to send", one.fd);
        }
        if !is_local(one.socket) {
            sources.empties.try_reserve(1).map_err(|_| no_memory())?;
            sources.empties.push_reserved(id);
        }
        look_unless_writable(store, id);
        Ok(())
    }

    fn detach(&self, _store: &mut Store, sources: &mut Sources, id: u32) {
        sources.empties.retain(|known| *known != id);
    }

    fn enabled(&self, store: &mut Store, sources: &mut Sources, id: u32, on: bool) {
        if on {
            look_unless_writable(store, id);
        } else {
            sources.timers.disarm(&store.knotes, id);
        }
    }

    fn interest(&self, _knote: &Knote) -> (usize, u32) {
        (WRITE_EDGE, OUT)
    }

    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        ready: Option<u32>,
    ) -> Verdict {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Verdict::False) };
        let Some(look) = PolledFd::of(store, knote, ready, OUT) else { return Verdict::Gone };
        let left = match file::unsent(look.fd) {
            Err(Errno::EBADF) => return Verdict::Gone,
            // It listens, and sends nothing.
            result => result.unwrap_or(0),
        };
        if left == 0 || is_over(&look) {
            sources.timers.disarm(&store.knotes, id);
            return Verdict::True(Outcome::default());
        }
        // Of a local socket the last byte is taken off only after the edge.
        if left == 1 || !is_local(look.socket) {
            look_later(store, sources, id);
        }
        Verdict::False
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        let acked = acknowledged_by_peer(store, id);
        let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
        knote.state = !acked;
        if !knote.has(EV_CLEAR) {
            store.activate(id);
        }
    }
}

/// Whether the kernel notifies of all that its peer receives.
fn is_local(socket: Option<SocketKind>) -> bool {
    matches!(
        socket,
        Some(SocketKind::UnixStream | SocketKind::UnixSeqpacket | SocketKind::UnixDatagram)
    )
}

/// There is no edge of a socket that listens, or is being connected.
fn look_unless_writable(store: &mut Store, id: u32) {
    let Some(knote) = store.knotes.get(id) else { bug_or!(return) };
    if PolledFd::of(store, knote, None, OUT).is_some_and(|look| !look.is(OUT)) {
        store.activate(id);
    }
}

/// Looks again after twice the last pause.
fn look_later(store: &mut Store, sources: &mut Sources, id: u32) {
    let Some(knote) = store.knotes.get_mut(id) else { bug_or!(return) };
    knote.state = knote.state.saturating_mul(2).clamp(SHORTEST_NS, LONGEST_NS);
    let pause = knote.state;
    ready::look_later(store, sources, id, pause);
}

/// What was left when a connection broke is not sent any more.
fn is_over(look: &PolledFd) -> bool {
    look.is(HUP | ERR) && socket::tcp_info(look.fd).is_some_and(|info| info.state == TCP_CLOSE)
}

fn acknowledged(fd: RawFd) -> i64 {
    socket::tcp_info(fd).map_or(0, |info| i64::try_from(info.bytes_acked).unwrap_or(i64::MAX))
}

/// How many bytes the peer of a knote's TCP socket has acknowledged.
fn acknowledged_by_peer(store: &Store, id: u32) -> i64 {
    let registration = store.knotes.get(id).map(|knote| knote.registration);
    let one = registration.and_then(|id| store.registrations.get(id));
    one.filter(|one| one.socket == Some(SocketKind::Tcp)).map_or(0, |one| acknowledged(one.fd))
}

/// Looks at those with EV_CLEAR whose event was delivered, as nothing says
/// that the program has written since.
#[inline]
pub(in super::super) fn look_at_drained(store: &mut Store, sources: &mut Sources) {
    if !sources.empties.is_empty() {
        look_at_all_drained(store, sources);
    }
}

fn look_at_all_drained(store: &mut Store, sources: &mut Sources) {
    for index in 0..sources.empties.len() {
        let id = sources.empties.get(index).copied().unwrap_or_default();
        let Some(knote) = store.knotes.get(id) else { continue };
        if knote.state >= 0 || knote.is(DISABLED) || !knote.has(EV_CLEAR) {
            continue;
        }
        let (before, one) = (!knote.state, store.registrations.get(knote.registration));
        if one.is_some_and(|one| file::unsent(one.fd).is_ok_and(|left| left > 0)) {
            look_later(store, sources, id);
        } else if acknowledged_by_peer(store, id) != before {
            store.activate(id);
        }
    }
}
