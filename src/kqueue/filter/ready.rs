//! What READ and WRITE have in common: the type of the file, what poll(2)
//! says, whether a connection was made.

use super::super::epoll_set::*;
use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::Outcome;
use crate::sys::socket::{self, TCP_CLOSE};
use crate::sys::{clock, file, poll};
use std::os::fd::RawFd;

/// A descriptor at the moment of a delivery.
#[derive(Clone, Copy)]
pub(super) struct PolledFd {
    pub fd: RawFd,
    pub file_type: u32,
    /// The kind of a socket.
    pub socket: Option<socket::SocketKind>,
    /// No epoll takes it.
    pub is_file: bool,
    /// Bits of epoll, which are those of poll.
    pub ready: u32,
    /// They were true a moment ago, and may not be any more.
    pub is_old: bool,
}

impl PolledFd {
    /// `None`: it is not even a descriptor any more.
    pub fn of(store: &Store, knote: &Knote, ready: Option<u32>, events: u32) -> Option<Self> {
        let one = store.registrations.get(knote.registration)?;
        let look = Self {
            fd: one.fd,
            file_type: one.file_type,
            socket: one.socket,
            is_file: one.is_file,
            ready: ready.unwrap_or(0),
            is_old: true,
        };
        if ready.is_some() || one.is_file { Some(look) } else { look.again(events) }
    }

    /// Asks the kernel.
    pub fn again(self, events: u32) -> Option<Self> {
        let mut fds = [poll::entry(self.fd, events)];
        poll::look(&mut fds).ok()?;
        let ready = fds.first().map_or(0, poll::revents);
        let open = ready & libc::POLLNVAL as u32 == 0;
        open.then_some(Self { ready, is_old: false, ..self })
    }

    pub fn is(&self, bits: u32) -> bool {
        self.ready & bits != 0
    }

    /// Whether a socket was never connected: Linux reports such a socket as
    /// hung up, BSD as not ready. Also what its pending error must be, as far
    /// as that can be found out without consuming the program's error.
    pub fn connection(&self) -> Connection {
        if self.socket.is_none() || !self.is(HUP) {
            return Connection::Other;
        }
        match socket::tcp_info(self.fd) {
            Some(info) if info.state != TCP_CLOSE => Connection::Other,
            Some(info) if info.segs_out == 0 && info.segs_in == 0 => Connection::Never,
            Some(_) if !self.is(ERR) => Connection::Other,
            Some(info) if info.rtt > 0 => Connection::Failed(libc::ECONNRESET),
            Some(info) if info.segs_in > 0 => Connection::Failed(libc::ECONNREFUSED),
            Some(_) => Connection::Other,
            None if self.is(RDHUP | ERR) || socket::has_peer(self.fd) => Connection::Other,
            None => Connection::Never,
        }
    }
}

pub(super) enum Connection {
    Never,
    Failed(i32),
    Other,
}

/// The event of something that ended.
pub(super) fn ended(data: i64, connection: &Connection) -> Outcome {
    let fflags = match connection {
        Connection::Failed(errno) => errno.cast_unsigned(),
        _ => 0,
    };
    Outcome { data, fflags, eof: true }
}

/// Whether the kernel is to report what happens, and not what is.
pub(super) fn is_edge(knote: &Knote) -> bool {
    knote.has(EV_CLEAR) || knote.fflags & NOTE_LOWAT != 0
}

/// Has a knote looked at again after a time, where the kernel would not report
/// a change.
pub(super) fn look_later(store: &mut Store, sources: &mut Sources, id: u32, after_ns: i64) {
    let deadline = clock::now_ns().saturating_add(after_ns);
    if sources.timers.arm(&store.knotes, id, deadline).is_err() {
        store.activate(id);
    }
}

/// After a delivery: what the kernel does not report again, though it may
/// still be so, is looked at again by the next call.
pub(super) fn look_again(store: &mut Store, id: u32) {
    let Some(knote) = store.knotes.get(id).filter(|knote| !knote.has(EV_CLEAR)) else {
        return;
    };
    let is_file = store.registrations.get(knote.registration).is_some_and(|one| one.is_file);
    if is_file || is_edge(knote) {
        store.activate(id);
    }
}

/// A number of what /proc says of a descriptor.
pub(super) fn number_in(info: &str, name: &str, radix: u32) -> Option<u64> {
    u64::from_str_radix(file::field(info, name)?, radix).ok()
}
