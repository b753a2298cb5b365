//! rtnetlink(7): the links of network interfaces.

use super::fd::Fd;
use super::syscall;
use crate::errno::Errno;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// A socket that receives every change of an interface, in the network
/// namespace of this thread.
pub(crate) fn links() -> Result<Fd, Errno> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_socket, libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    let fd = Fd::made_by("socket(2)", fd)?;
    let mut address = kernel();
    address.nl_groups = libc::RTMGRP_LINK as u32;
    // SAFETY: a valid address of that size.
    unsafe { syscall!(SYS_bind, fd.raw(), &raw const address, size_of_val(&address)) }?;
    Ok(fd)
}

fn kernel() -> libc::sockaddr_nl {
    // SAFETY: a structure of numbers.
    let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
    address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
    address
}

/// Bytes of a message before what it is about.
const HEADER: usize = size_of::<libc::nlmsghdr>();
/// What a message about an interface begins with: its family, its number and
/// its flags, among others.
const INTERFACE: usize = 16;
const INDEX: usize = 4;
const FLAGS: usize = 8;

/// Asks how an interface is. The answer, or that there is none, is among the
/// messages when this returns.
pub(crate) fn ask(socket: RawFd, index: u32) -> Result<(), Errno> {
    let mut request = [0u8; HEADER + INTERFACE];
    let fields: [(usize, &[u8]); 4] = [
        (0, &((HEADER + INTERFACE) as u32).to_ne_bytes()),
        (4, &libc::RTM_GETLINK.to_ne_bytes()),
        (6, &(libc::NLM_F_REQUEST as u16).to_ne_bytes()),
        (HEADER + INDEX, &index.to_ne_bytes()),
    ];
    for (offset, bytes) in fields {
        if let Some(slot) = request.get_mut(offset..offset + bytes.len()) {
            slot.copy_from_slice(bytes);
        }
    }
    let address = kernel();
    let (to, size) = (&raw const address, size_of_val(&address));
    // SAFETY: as many readable bytes as said, and a valid address.
    unsafe { syscall!(SYS_sendto, socket, request.as_ptr(), request.len(), 0, to, size) }.map(drop)
}

/// A datagram of messages; empty: nothing more, or not the kernel's. ENOBUFS:
/// some were lost.
pub(crate) fn receive(socket: RawFd, buffer: &mut [u8]) -> Result<Option<&[u8]>, Errno> {
    let mut from = MaybeUninit::<libc::sockaddr_nl>::zeroed();
    let mut size = size_of_val(&from) as libc::socklen_t;
    let (start, capacity, flags) = (buffer.as_mut_ptr(), buffer.len(), libc::MSG_DONTWAIT);
    let (address, length) = (from.as_mut_ptr(), &raw mut size);
    // SAFETY: as many writable bytes as said, room for an address.
    let len =
        match unsafe { syscall!(SYS_recvfrom, socket, start, capacity, flags, address, length) } {
            Err(Errno::EAGAIN) => return Ok(None),
            result => result?,
        };
    // SAFETY: zero, or what the kernel wrote: numbers.
    let from = unsafe { from.assume_init() };
    let len = if from.nl_pid == 0 { len } else { 0 };
    Ok(Some(buffer.get(..len).unwrap_or_default()))
}

/// What a message says of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Link {
    pub index: u32,
    pub state: LinkState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum LinkState {
    Up,
    Down,
    /// Its driver does not report it.
    Unknown,
    /// There is no such interface (any more).
    Gone,
}

/// Takes the first message off: what it says, if it is about a link, and the
/// rest.
pub(crate) fn split(bytes: &[u8]) -> Option<(Option<Link>, &[u8])> {
    let len = number(bytes, 0)? as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    // A message that was cut off says what is there.
    let body = bytes.get(HEADER..len.min(bytes.len()))?;
    let rest = bytes.get(len.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    let link = match kind {
        libc::RTM_NEWLINK => changed(body),
        libc::RTM_DELLINK => interface(body).map(gone),
        kind if i32::from(kind) == libc::NLMSG_ERROR => refused(body),
        _ => None,
    };
    Some((link, rest))
}

fn number(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The number of the interface. Of a bridge's ports there are messages that
/// are about the bridge.
fn interface(body: &[u8]) -> Option<u32> {
    let family = i32::from(*body.first()?);
    if family == libc::AF_UNSPEC { number(body, INDEX) } else { None }
}

fn gone(index: u32) -> Link {
    Link { index, state: LinkState::Gone }
}

/// An answer to [`ask`]: an error, and the request.
fn refused(body: &[u8]) -> Option<Link> {
    let errno = number(body, 0)?.cast_signed();
    let request = body.get(4 + HEADER..)?;
    if errno == -libc::ENODEV { interface(request).map(gone) } else { None }
}

fn changed(body: &[u8]) -> Option<Link> {
    let index = interface(body)?;
    let is_on = number(body, FLAGS)? & libc::IFF_UP as u32 != 0;
    let state = match attribute(body.get(INTERFACE..)?, libc::IFLA_OPERSTATE) {
        _ if !is_on => LinkState::Down,
        Some(IF_OPER_UP) => LinkState::Up,
        Some(IF_OPER_UNKNOWN) | None => LinkState::Unknown,
        Some(_) => LinkState::Down,
    };
    Some(Link { index, state })
}

const IF_OPER_UNKNOWN: u8 = 0;
const IF_OPER_UP: u8 = 6;

/// The first byte of an attribute.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<u8> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
        if kind == wanted {
            return rest.get(4).copied();
        }
        rest = rest.get(len.max(4).next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, index: u32, flags: u32, state: u8) -> Vec<u8> {
        let mut bytes = 40u32.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(index.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([5, 0]);
        bytes.extend(libc::IFLA_OPERSTATE.to_ne_bytes());
        bytes.extend([state, 0, 0, 0]);
        bytes
    }

    #[test]
    fn messages_say_how_a_link_is() {
        let up = libc::IFF_UP as u32;
        let said = |kind, family, flags, state| {
            let bytes = message(kind, family, 7, flags, state);
            let (link, rest) = split(&bytes).unwrap();
            assert!(rest.is_empty());
            link.map(|link| (link.index, link.state))
        };
        assert_eq!(said(libc::RTM_NEWLINK, 0, up, 6), Some((7, LinkState::Up)));
        assert_eq!(said(libc::RTM_NEWLINK, 0, up, 2), Some((7, LinkState::Down)));
        assert_eq!(said(libc::RTM_NEWLINK, 0, up, 0), Some((7, LinkState::Unknown)));
        assert_eq!(said(libc::RTM_NEWLINK, 0, 0, 6), Some((7, LinkState::Down)));
        assert_eq!(said(libc::RTM_DELLINK, 0, 0, 0), Some((7, LinkState::Gone)));
        // A port that left a bridge.
        assert_eq!(said(libc::RTM_DELLINK, 7, 0, 0), None);
    }

    #[test]
    fn what_is_cut_off_is_read_as_far_as_it_goes() {
        let mut bytes = message(libc::RTM_NEWLINK, 0, 7, 1, 6);
        bytes[0] = 200;
        let (link, rest) = split(&bytes).unwrap();
        assert_eq!((link.map(|link| link.state), rest.len()), (Some(LinkState::Up), 0));
        for len in 0..bytes.len() {
            let _ = split(&bytes[..len]);
        }
        let mut two = message(libc::RTM_DELLINK, 0, 1, 0, 0);
        two.extend(message(libc::RTM_DELLINK, 0, 2, 0, 0));
        let (_, rest) = split(&two).unwrap();
        assert_eq!(split(rest).unwrap().0, Some(Link { index: 2, state: LinkState::Gone }));
    }
}
