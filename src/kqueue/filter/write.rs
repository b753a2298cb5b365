//! WRITE: there is room to write.

use super::super::epoll_set::*;
use super::super::event::*;
use super::super::knote::Knote;
use super::super::source::Sources;
use super::super::store::Store;
use super::contract::{Filter, Outcome, Verdict, reject_unknown};
use super::ready::{self, Connection, PolledFd};
use crate::errno::{Errno, Result};
use crate::sys::file;
use crate::sys::socket::{self, SocketKind};
use crate::util::bug_or;
use std::os::fd::RawFd;

pub(super) struct WriteFilter;

/// How often it is looked whether there is as much room as was asked for:
/// the kernel says that there is some, and then no more.
const LOOK_NS: i64 = 10_000_000;

impl Filter for WriteFilter {
    fn is_of_descriptor(&self) -> bool {
        true
    }

    fn check(&self, knote: &mut Knote) -> Result<()> {
        reject_unknown(knote, NOTE_LOWAT)
    }

    fn interest(&self, knote: &Knote) -> (usize, u32) {
        (if ready::is_edge(knote) { WRITE_EDGE } else { LEVEL }, OUT)
    }

    fn evaluate(
        &self,
        store: &mut Store,
        sources: &mut Sources,
        id: u32,
        ready: Option<u32>,
    ) -> Verdict {
        let Some(knote) = store.knotes.get(id) else { bug_or!(return Verdict::False) };
        let low = if knote.fflags & NOTE_LOWAT != 0 { knote.data } else { 1 };
        let Some(look) = PolledFd::of(store, knote, ready, OUT) else { return Verdict::Gone };
        if look.is_file {
            return Verdict::True(Outcome::default());
        }
        let connection = look.connection();
        if matches!(connection, Connection::Never) {
            return Verdict::False;
        }
        let is_pipe = look.file_type == libc::S_IFIFO;
        if look.is(HUP) || (is_pipe && look.is(ERR)) || is_shut_down(&look) {
            return Verdict::True(ready::ended(0, &connection));
        }
        let space = match space(&look) {
            Ok(space) => space,
            Err(_) => return Verdict::Gone,
        };
        match look.ready & (OUT | ERR) {
            0 => Verdict::False,
            OUT if space.cast_unsigned() < low.max(0).cast_unsigned() => {
                ready::look_later(store, sources, id, LOOK_NS);
                Verdict::False
            }
            _ => Verdict::True(Outcome { data: space, ..Outcome::default() }),
        }
    }

    fn delivered(&self, store: &mut Store, _sources: &mut Sources, id: u32) {
        ready::look_again(store, id);
    }
}

/// Whether the program itself has said that it will send no more. The kernel
/// calls that writable, and does not say so of sockets that keep messages.
fn is_shut_down(look: &PolledFd) -> bool {
    match look.socket {
        _ if !look.is(OUT) => false,
        Some(SocketKind::Tcp) => socket::tcp_info(look.fd).is_some_and(|info| info.has_sent_fin()),
        Some(SocketKind::UnixStream) => socket::local_stream_is_shut_down(look.fd),
        _ => false,
    }
}

/// How many bytes can be written now; 1 where the kernel does not report that.
fn space(look: &PolledFd) -> std::result::Result<i64, Errno> {
    match look.file_type {
        libc::S_IFSOCK => Ok(socket::Memory::of(look.fd)?.free_space().max(1)),
        libc::S_IFIFO => Ok((file::pipe_size(look.fd)? - file::readable(look.fd)?).max(1)),
        libc::S_IFCHR => match file::unsent(look.fd) {
            Ok(unsent) => Ok((i64::from(libc::PIPE_BUF as i32) - unsent).max(1)),
            Err(Errno::EBADF) => Err(Errno::EBADF),
            Err(_) => Ok(1),
        },
        _ => Ok(room_of_counter(look.fd).unwrap_or(1)),
    }
}

/// What an eventfd takes until it is full, in 64 bits without a sign.
fn room_of_counter(fd: RawFd) -> Option<i64> {
    let mut buffer = [0; 512];
    let text = file::info(fd, &mut buffer).ok()?;
    let count = ready::number_in(text, "eventfd-count:", 16)?;
    Some((u64::MAX - 1).wrapping_sub(count).cast_signed())
}
