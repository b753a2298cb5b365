//! What sockets say of themselves; their pending error is left alone.

use super::file::Buffer;
use super::syscall;
use crate::errno::Errno;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// The beginning of the kernel's structure; unlike the libc crate's it has
/// what came later, all zero where the kernel lacks it.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub(crate) struct TcpInfo {
    pub state: u8,
    others: [u8; 7],
    before: [u32; 4],
    /// Bytes that are not acknowledged; connections to accept, of a socket
    /// that listens.
    pub unacked: u32,
    between: [u32; 10],
    /// Round trip, microseconds; 0 until a connection is made.
    pub rtt: u32,
    after: [u32; 8],
    rates: [u64; 2],
    /// Acknowledged by the peer.
    pub bytes_acked: u64,
    bytes_received: u64,
    pub segs_out: u32,
    pub segs_in: u32,
}

impl TcpInfo {
    /// Whether the end of what this side sends was sent.
    pub fn has_sent_fin(&self) -> bool {
        const FIN_WAIT1: u8 = 4;
        const FIN_WAIT2: u8 = 5;
        const LAST_ACK: u8 = 9;
        const CLOSING: u8 = 11;
        matches!(self.state, FIN_WAIT1 | FIN_WAIT2 | LAST_ACK | CLOSING)
    }
}

/// `TcpInfo::state` of a socket that is not connected.
pub(crate) const TCP_CLOSE: u8 = 7;

fn option<T: Copy>(fd: RawFd, level: i32, name: i32, zero: T) -> Result<T, Errno> {
    let mut value = zero;
    let mut size = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `size` bytes there, of a structure or
    // a number that any bytes are good for.
    unsafe { syscall!(SYS_getsockopt, fd, level, name, &raw mut value, &raw mut size) }?;
    Ok(value)
}

/// `None`: not a TCP socket.
pub(crate) fn tcp_info(fd: RawFd) -> Option<TcpInfo> {
    option(fd, libc::IPPROTO_TCP, libc::TCP_INFO, TcpInfo::default()).ok()
}

/// The kinds of sockets whose bytes the kernel counts in different ways.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Tcp,
    /// MPTCP and SMC.
    OtherStream,
    UnixStream,
    UnixSeqpacket,
    UnixDatagram,
    Vsock,
    /// UDP, raw, packet, netlink, SCTP and all others: FIONREAD, where there
    /// is one, returns the length of the first message.
    Message,
}

/// The kind of a socket, which never changes.
pub(crate) fn kind(fd: RawFd) -> Result<SocketKind, Errno> {
    const AF_SMC: i32 = 43;
    const IPPROTO_MPTCP: i32 = 262;
    let ask = |name| option(fd, libc::SOL_SOCKET, name, 0i32);
    match ask(libc::SO_DOMAIN)? {
        libc::AF_INET | libc::AF_INET6 => match ask(libc::SO_PROTOCOL)? {
            libc::IPPROTO_TCP => Ok(SocketKind::Tcp),
            IPPROTO_MPTCP => Ok(SocketKind::OtherStream),
            _ => Ok(SocketKind::Message),
        },
        libc::AF_UNIX => match ask(libc::SO_TYPE)? {
            libc::SOCK_STREAM => Ok(SocketKind::UnixStream),
            libc::SOCK_SEQPACKET => Ok(SocketKind::UnixSeqpacket),
            _ => Ok(SocketKind::UnixDatagram),
        },
        libc::AF_VSOCK => Ok(SocketKind::Vsock),
        AF_SMC => Ok(SocketKind::OtherStream),
        _ => Ok(SocketKind::Message),
    }
}

/// The memory of a socket, as SO_MEMINFO has it.
pub(crate) struct Memory([u32; 9]);

impl Memory {
    pub fn of(fd: RawFd) -> Result<Self, Errno> {
        const SO_MEMINFO: i32 = 55;
        option(fd, libc::SOL_SOCKET, SO_MEMINFO, [0; 9]).map(Self)
    }

    fn get(&self, index: usize) -> i64 {
        self.0.get(index).copied().map_or(0, i64::from)
    }

    /// What waits to be received takes, the kernel's own structures included.
    /// The sockets of some families do not count it: 0.
    pub fn received(&self) -> i64 {
        self.get(0)
    }

    /// The size of the receive buffer.
    pub fn receive_buffer(&self) -> i64 {
        self.get(1)
    }

    /// How much more the socket takes to send.
    pub fn free_space(&self) -> i64 {
        let (allocated, buffer, queued) = (self.get(2), self.get(3), self.get(5));
        buffer - allocated.max(queued)
    }
}

/// The size of a vsock socket's receive buffer.
pub(crate) fn vsock_buffer(fd: RawFd) -> Result<i64, Errno> {
    const SO_VM_SOCKETS_BUFFER_SIZE: i32 = 0;
    let size = option(fd, libc::AF_VSOCK, SO_VM_SOCKETS_BUFFER_SIZE, 0u64)?;
    Ok(i64::try_from(size).unwrap_or(i64::MAX))
}

/// Whether a TCP socket has its urgent byte among the others.
pub(crate) fn has_urgent_inline(fd: RawFd) -> bool {
    option(fd, libc::SOL_SOCKET, libc::SO_OOBINLINE, 0i32).is_ok_and(|on| on != 0)
}

/// How many bytes of a TCP socket the next receive finds; `None`: more than
/// were looked at. Unlike FIONREAD it skips an urgent byte that comes first.
pub(crate) fn peek_stream(fd: RawFd) -> Result<Option<i64>, Errno> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 512];
    // With MSG_TRUNC the kernel counts the bytes, and copies none.
    let flags = libc::MSG_PEEK | libc::MSG_TRUNC | libc::MSG_DONTWAIT;
    let (start, size) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: as many writable bytes as said.
    let count = unsafe { syscall!(SYS_recvfrom, fd, start, size, flags, 0, 0) }?;
    Ok(i64::try_from(count).ok().filter(|_| count < size))
}

/// Receives or sends as read(2) and write(2) do, but without waiting: EAGAIN.
///
/// # Safety
/// The buffer is writable or readable, as it says, until this returns.
pub(crate) unsafe fn transfer_nowait(fd: RawFd, buffer: Buffer) -> Result<usize, Errno> {
    let (start, count) = buffer.parts();
    let flags = libc::MSG_DONTWAIT;
    match buffer {
        Buffer::Into(..) if count == 0 => Ok(0),
        // SAFETY: this function's contract.
        Buffer::Into(..) => unsafe { syscall!(SYS_recvfrom, fd, start, count, flags, 0, 0) },
        // SAFETY: this function's contract.
        Buffer::From(..) => unsafe { syscall!(SYS_sendto, fd, start, count, flags, 0, 0) },
    }
}

/// Whether a local stream socket was shut down for sending.
pub(crate) fn local_stream_is_shut_down(fd: RawFd) -> bool {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: no bytes are sent, from no buffer.
    let sent = unsafe { syscall!(SYS_sendto, fd, 0, 0, flags, 0, 0) };
    sent == Err(Errno::EPIPE)
}

/// Whether it accepts connections.
pub(crate) fn listens(fd: RawFd) -> bool {
    option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, 0i32).is_ok_and(|on| on != 0)
}

/// Whether it has, or had, a peer.
pub(crate) fn has_peer(fd: RawFd) -> bool {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: room for every address.
    unsafe { syscall!(SYS_getpeername, fd, address.as_mut_ptr(), &raw mut size) }.is_ok()
}
