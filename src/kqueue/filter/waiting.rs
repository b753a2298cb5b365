//! How many bytes wait in a socket to be received.
//!
//! FreeBSD counts all of them. FIONREAD does so for streams only: of other
//! sockets it returns the length of the first message. Programs that read
//! until they have used up `data` must not stop while something waits, so
//! the count here is an upper bound where the kernel does not say the sum.

use super::super::epoll_set::*;
use super::ready::PolledFd;
use crate::sys::file;
use crate::sys::socket::{self, Memory, SocketKind};

/// What the kernel needs for a message besides its bytes, at least: its
/// structures sk_buff and skb_shared_info.
const OVERHEAD: i64 = 72 * size_of::<usize>() as i64;

/// A local datagram socket's messages are in the buffers of their senders,
/// which are as large as this by default.
const SEND_BUFFER: i64 = 212_992;
/// So many of them, each of another sender, may wait in a socket without a
/// peer: net.unix.max_dgram_qlen is 10 by default.
const SENDERS: i64 = 16;

/// The bytes that wait, or a bound above them; a message that is empty
/// counts as one byte. `first`: what FIONREAD said, if anything.
pub(super) fn count(look: &PolledFd, kind: SocketKind, first: Option<i64>) -> i64 {
    match (kind, first) {
        (SocketKind::Tcp, Some(count)) => past_urgent(look, count).max(is_certain(look)),
        (
            SocketKind::OtherStream
            | SocketKind::UnixStream
            | SocketKind::UnixSeqpacket
            | SocketKind::Vsock,
            Some(count),
        ) => count.max(is_certain(look)),
        _ if look.is(IN) => messages(look, kind, first),
        _ => 0,
    }
}

/// 1 if there is something for sure: readiness may also be the end.
fn is_certain(look: &PolledFd) -> i64 {
    i64::from(look.is(IN) && !look.is_old && !look.is(RDHUP | HUP))
}

/// FIONREAD counts up to the mark of an urgent byte.
fn past_urgent(look: &PolledFd, count: i64) -> i64 {
    let received = || Memory::of(look.fd).map_or(count, |memory| memory.received());
    match count {
        0 if look.is(IN) && file::is_at_mark(look.fd) => match socket::peek_stream(look.fd) {
            Ok(Some(count)) => count,
            Ok(None) => received(),
            Err(_) => 0,
        },
        // The kernel does not say how many there are beyond it.
        1.. if look.is(PRI) && !socket::has_urgent_inline(look.fd) => received().max(count),
        _ => count,
    }
}

fn messages(look: &PolledFd, kind: SocketKind, first: Option<i64>) -> i64 {
    let least = first.unwrap_or(0).max(is_certain(look));
    let Ok(memory) = Memory::of(look.fd) else { return least };
    let received = memory.received();
    match first {
        _ if least == 0 && received == 0 => 0,
        _ if received == 0 => least.saturating_add(capacity(look, kind, &memory)),
        // There is not memory enough for a second one.
        Some(first) if received < first + 2 * OVERHEAD => least,
        _ => least.max(received),
    }
}

/// How much fits into a socket that does not count what it has received.
fn capacity(look: &PolledFd, kind: SocketKind, memory: &Memory) -> i64 {
    let buffer = memory.receive_buffer();
    match kind {
        SocketKind::Vsock => socket::vsock_buffer(look.fd).unwrap_or(buffer),
        SocketKind::UnixDatagram if socket::has_peer(look.fd) => buffer.max(SEND_BUFFER),
        SocketKind::UnixDatagram => buffer.max(SEND_BUFFER).saturating_mul(SENDERS),
        _ => buffer,
    }
}
