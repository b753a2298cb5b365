//! READ: there is something to read.

use super::super::epoll_set::*;
use super::super::event::*;
use super::super::knote::{DISABLED, Knote};
use super::super::registration::Registration;
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use super::ready::{self, Connection, PolledFd};
use super::waiting;
use crate::errno::{Errno, Result};
use crate::sys::{diag, file, socket};
use crate::util::bug_or;
use std::os::fd::RawFd;

pub(super) struct ReadFilter;

/// How often the size of a file is checked that inotify may not watch; ns. A
/// process may have a descriptor of a file that it may not open.
const GROWTH_NS: i64 = 100_000_000;

const EVENTS: u32 = IN | RDHUP;
/// The events that a descriptor is polled for. An urgent byte is no event of
/// this filter, but changes how many bytes can be read.
const ASKED: u32 = EVENTS | PRI;

impl Filter for ReadFilter {
    fn is_of_descriptor(&self) -> bool {
        true
    }

    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, NOTE_LOWAT | NOTE_FILE_POLL)
    }

    fn interest(&self, knote: &Knote) -> (usize, u32) {
        (if ready::is_edge(knote) { READ_EDGE } else { LEVEL }, EVENTS)
    }

    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        ready: Option<u32>,
    ) -> Verdict {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Verdict::False) };
        let Some(look) = PolledFd::of(store, knote, ready, ASKED) else { return Verdict::Gone };
        let low = if knote.fflags & NOTE_LOWAT != 0 { knote.data } else { 1 };
        if look.is_file {
            let verdict = in_file(&look, knote.fflags & NOTE_FILE_POLL != 0);
            let is_notified = store
                .registrations
                .get(knote.registration)
                .is_some_and(Registration::has_vnode_watch)
                || look.file_type != libc::S_IFREG;
            if matches!(verdict, Verdict::False) && !is_notified {
                ready::look_later(store, sources, id, GROWTH_NS);
            }
            return verdict;
        }
        match (file::readable(look.fd), look.socket) {
            (Err(Errno::EBADF), _) => Verdict::Gone,
            (Err(Errno::EINVAL), Some(_)) => listening(look),
            (found, Some(kind)) => socket(look, kind, found.ok(), low),
            (Ok(count), None) => stream(look, count, low),
            (Err(_), None) if look.file_type == libc::S_IFIFO => Verdict::Gone,
            // The kernel does not count bytes for this kind of file.
            (Err(_), None) => counted(sources, look),
        }
    }

    fn vnode_interest(&self, knote: &Knote, registration: &Registration) -> u32 {
        let grows = registration.is_file && registration.file_type == libc::S_IFREG;
        if grows && !knote.is(DISABLED) { libc::IN_MODIFY } else { 0 }
    }

    fn noticed(&self, store: &mut Store, id: u32, notes: u32) {
        if notes & NOTE_WRITE != 0 {
            store.activate(id);
        }
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        ready::look_again(store, id);
    }
}

/// Evaluates a descriptor whose bytes can be counted.
fn stream(look: PolledFd, count: i64, low: i64) -> Verdict {
    let connection = look.connection();
    if matches!(connection, Connection::Never) {
        return Verdict::False;
    }
    if look.is(RDHUP | HUP) {
        return Verdict::True(ready::ended(count, &connection));
    }
    if look.is(ERR) || (count > 0 && count >= low) {
        return Verdict::True(Outcome { data: count, ..Outcome::default() });
    }
    if count > 0 || !look.is(IN) {
        return Verdict::False;
    }
    // Another thread has read the bytes, or it is the end of a terminal's file.
    match look.again(ASKED) {
        Some(now) if now.is(RDHUP | HUP | ERR) && look.is_old => stream(now, count, low),
        Some(now) if !now.is(IN) => Verdict::False,
        // A pipe is never readable without bytes: this is another file by now.
        Some(now) if now.file_type == libc::S_IFIFO => Verdict::Gone,
        Some(_) => Verdict::True(Outcome::default()),
        None => Verdict::Gone,
    }
}

/// Evaluates a socket. `first`: the result of FIONREAD, if the kind has it.
fn socket(look: PolledFd, kind: socket::SocketKind, first: Option<i64>, low: i64) -> Verdict {
    if first.is_none() && socket::listens(look.fd) {
        return listening(look);
    }
    let is_doubtful = first.unwrap_or(0) == 0 && look.is(IN) && look.is_old;
    let look = match is_doubtful.then(|| look.again(ASKED)) {
        // Another thread has read the data, or the first message is empty.
        Some(Some(now)) => now,
        Some(None) => return Verdict::Gone,
        None => look,
    };
    let count = waiting::count(&look, kind, first);
    if count == 0 && !look.is(RDHUP | HUP | ERR) {
        return Verdict::False;
    }
    stream(look, count, low)
}

/// Evaluates a listening socket: `data` is the number of connections.
fn listening(look: PolledFd) -> Verdict {
    if look.is(HUP) {
        return Verdict::True(Outcome { eof: true, ..Outcome::default() });
    }
    let backlog = match socket::tcp_info(look.fd) {
        Some(info) => Some(info.unacked),
        None => file::stat(look.fd).ok().and_then(|stat| diag::unix_backlog(stat.st_ino)),
    };
    // Where the kernel does not count them, a readable socket has one.
    let backlog = backlog.map_or(1, i64::from);
    match look.is(IN | ERR) && backlog > 0 {
        true => Verdict::True(Outcome { data: backlog, ..Outcome::default() }),
        false => Verdict::False,
    }
}

/// Evaluates a descriptor whose bytes cannot be counted: eventfds, timerfds,
/// queues and the like.
fn counted(sources: &Sources, look: PolledFd) -> Verdict {
    let Some(now) = look.again(EVENTS) else { return Verdict::Gone };
    match now.ready & (IN | RDHUP | HUP | ERR) {
        0 => Verdict::False,
        bits if bits & (RDHUP | HUP) != 0 => {
            Verdict::True(Outcome { eof: true, ..Outcome::default() })
        }
        _ => Verdict::True(Outcome { data: counter(sources, now.fd), ..Outcome::default() }),
    }
}

/// The count that a read of an eventfd or a timerfd would return, or the number
/// of events of a queue; 1 for others.
fn counter(sources: &Sources, fd: RawFd) -> i64 {
    if let Some(pending) = (sources.events_of_queue)(fd) {
        return pending;
    }
    let mut buffer = [0; 512];
    let Ok(text) = file::info(fd, &mut buffer) else { return 1 };
    let ticks = || ready::number_in(text, "ticks:", 10);
    let count = ready::number_in(text, "eventfd-count:", 16).or_else(ticks);
    count.unwrap_or(1).cast_signed()
}

/// Evaluates a file: `data` is the distance from its position to its end, which
/// may be negative. Devices that epoll does not take are always ready.
fn in_file(look: &PolledFd, always: bool) -> Verdict {
    if look.file_type != libc::S_IFREG && look.file_type != libc::S_IFDIR {
        return Verdict::True(Outcome::default());
    }
    let Ok(stat) = file::stat(look.fd) else { return Verdict::Gone };
    let data = stat.st_size.saturating_sub(file::position(look.fd).unwrap_or(0));
    match data != 0 || always {
        true => Verdict::True(Outcome { data, ..Outcome::default() }),
        false => Verdict::False,
    }
}
