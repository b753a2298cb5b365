//! What sockets say of themselves; their pending error is left alone.

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
    bytes: [u64; 2],
    pub segs_out: u32,
    pub segs_in: u32,
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

/// How much more a socket takes to send.
pub(crate) fn free_space(fd: RawFd) -> Result<i64, Errno> {
    const SO_MEMINFO: i32 = 55;
    const WMEM_ALLOC: usize = 2;
    const SNDBUF: usize = 3;
    const WMEM_QUEUED: usize = 5;
    let info = option(fd, libc::SOL_SOCKET, SO_MEMINFO, [0u32; 9])?;
    let at = |place: usize| info.get(place).copied().map_or(0, i64::from);
    Ok(at(SNDBUF) - at(WMEM_ALLOC).max(at(WMEM_QUEUED)))
}

/// Whether it has, or had, a peer.
pub(crate) fn has_peer(fd: RawFd) -> bool {
    let mut address = MaybeUninit::<libc::sockaddr_storage>::uninit();
    let mut size = size_of_val(&address) as libc::socklen_t;
    // SAFETY: room for every address.
    unsafe { syscall!(SYS_getpeername, fd, address.as_mut_ptr(), &raw mut size) }.is_ok()
}
