//! sock_diag(7): what a Unix socket that listens has to accept.

use super::fd::Fd;
use super::syscall;
use crate::errno::Errno;

/// Asks about one socket, by its inode, with any cookie.
#[repr(C)]
struct DiagRequest {
    header: libc::nlmsghdr,
    family: u8,
    protocol: u8,
    pad: u16,
    states: u32,
    inode: u32,
    show: u32,
    cookie: [u32; 2],
}

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
/// The header of an answer and what comes before its attributes.
const ANSWER: usize = size_of::<libc::nlmsghdr>() + 16;

/// How many connections wait to be accepted; `None`: the kernel does not report
/// it.
pub(crate) fn unix_backlog(inode: u64) -> Option<u32> {
    let mut buffer = [0u8; 256];
    let length = ask(u32::try_from(inode).ok()?, &mut buffer).ok()?;
    let mut attributes = buffer.get(ANSWER..length)?;
    loop {
        let (length, rest) = attributes.split_first_chunk()?;
        let (kind, value) = rest.split_first_chunk()?;
        if u16::from_ne_bytes(*kind) == UNIX_DIAG_RQLEN {
            return Some(u32::from_ne_bytes(*value.first_chunk()?));
        }
        let length = usize::from(u16::from_ne_bytes(*length)).max(4);
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

fn ask(inode: u32, answer: &mut [u8; 256]) -> Result<usize, Errno> {
    let request = DiagRequest {
        header: libc::nlmsghdr {
            nlmsg_len: size_of::<DiagRequest>() as u32,
            nlmsg_type: SOCK_DIAG_BY_FAMILY,
            nlmsg_flags: libc::NLM_F_REQUEST as u16,
            nlmsg_seq: 0,
            nlmsg_pid: 0,
        },
        family: libc::AF_UNIX as u8,
        protocol: 0,
        pad: 0,
        states: u32::MAX,
        inode,
        show: UDIAG_SHOW_RQLEN,
        cookie: [u32::MAX; 2],
    };
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_socket, libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) }?;
    let fd = Fd::brief(fd)?;
    let (start, size) = (&raw const request, size_of_val(&request));
    // SAFETY: as many readable bytes as said; no address.
    unsafe { syscall!(SYS_sendto, fd.raw(), start, size, 0, 0, 0) }?;
    let (start, size) = (answer.as_mut_ptr(), answer.len());
    // SAFETY: as many writable bytes as said; no address.
    unsafe { syscall!(SYS_recvfrom, fd.raw(), start, size, 0, 0, 0) }
}
