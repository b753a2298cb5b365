//! The kernel's process connector: forks, executions and ends of all
//! processes, through netlink(7).

use super::fd::Fd;
use super::syscall;
use crate::errno::Errno;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

const NETLINK_CONNECTOR: i32 = 11;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;

const FORK: u32 = 1;
const EXEC: u32 = 2;
const EXIT: u32 = 0x8000_0000;

/// What is asked for as room for events, in bytes, and how many messages may
/// be there at most: the kernel doubles the room, and each takes 512 or more.
const ROOM: i32 = 1 << 20;
pub(crate) const MOST: usize = 2 * ROOM as usize / 512;

/// What happened to a process; threads are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcEvent {
    Fork {
        parent: i32,
        child: i32,
    },
    Exec {
        pid: i32,
    },
    /// Its first thread ended, with what the process's status will be.
    Exit {
        pid: i32,
        status: i32,
    },
    Other,
}

/// What is sent: a header of netlink's, one of the connector's, and up to two
/// numbers.
type ConnectorMessage = [u32; 11];
/// What is received has the same headers and at most so much more.
type Message = [u32; 32];

const ACK: usize = 7;
const WHAT: usize = 9;
/// Behind what happened, the processor and the time.
const DATA: usize = 13;

/// `events`: only these.
fn request(operation: u32, events: Option<u32>, ack: u32) -> ConnectorMessage {
    const NLMSG_DONE: u16 = 3;
    let len = size_of::<u32>() * if events.is_some() { 2 } else { 1 };
    let whole = size_of::<[u32; WHAT]>() + len;
    let (header, body) = (pair(NLMSG_DONE, 0), pair(len as u16, 0));
    let events = events.unwrap_or(0);
    [whole as u32, header, 0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, ack, body, operation, events]
}

/// Two short numbers, one behind the other.
fn pair(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

fn send(fd: RawFd, request: &ConnectorMessage) -> Result<(), Errno> {
    let size = word(request, 0) as usize;
    // SAFETY: as many readable bytes as said; to the kernel.
    unsafe { syscall!(SYS_sendto, fd, request.as_ptr(), size, libc::MSG_NOSIGNAL, 0, 0) }.map(drop)
}

/// A socket that gets the events from now on. EPROTONOSUPPORT, EPERM: they
/// cannot be had; ENOTSUP: neither can they, but the kernel does not say so
/// (not in the first namespaces).
pub(crate) fn open() -> Result<Fd, Errno> {
    let socket_type = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_socket, libc::AF_NETLINK, socket_type, NETLINK_CONNECTOR) }?;
    let fd = Fd::made(fd)?;
    // SAFETY: numbers.
    let mut address: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = CN_IDX_PROC;
    // SAFETY: a whole address.
    unsafe { syscall!(SYS_bind, fd.raw(), &raw const address, size_of_val(&address)) }?;
    enlarge(fd.raw());
    let ack = std::process::id();
    send(fd.raw(), &request(LISTEN, None, ack))?;
    acknowledged(fd.raw(), ack.wrapping_add(1))?;
    // Since Linux 6.6; older ones pass over it. Not before: the answer would
    // be among what is left out.
    let _ = send(fd.raw(), &request(LISTEN, Some(FORK | EXEC | EXIT), ack));
    Ok(fd)
}

/// Room for the events of a burst; not all that is asked for may be had.
fn enlarge(fd: RawFd) {
    let (size, level, name) = (ROOM, libc::SOL_SOCKET, libc::SO_RCVBUF);
    // SAFETY: the value is one int.
    let _ =
        unsafe { syscall!(SYS_setsockopt, fd, level, name, &raw const size, size_of_val(&size)) };
}

/// The kernel answers before `send` returns, or not at all.
///
/// Where there is more than was there then, events come, and their flood has
/// taken the answer's place.
fn acknowledged(fd: RawFd, ack: u32) -> Result<(), Errno> {
    for _ in 0..MOST {
        match receive(fd) {
            Ok(message) if word(&message, WHAT) == 0 && word(&message, ACK) == ack => {
                return match Errno::new(word(&message, DATA).cast_signed()) {
                    _ if word(&message, DATA) == 0 => Ok(()),
                    errno => Err(errno),
                };
            }
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(Errno::EAGAIN) => return Err(Errno::ENOTSUP),
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Ends what `open` began.
pub(crate) fn leave(fd: RawFd) {
    // The socket is closed next, whatever becomes of this.
    let _ = send(fd, &request(IGNORE, None, 0));
}

fn word(message: &[u32], index: usize) -> u32 {
    message.get(index).copied().unwrap_or(0)
}

/// The next message; empty, if it is not the kernel's.
fn receive(fd: RawFd) -> Result<Message, Errno> {
    let mut message: Message = [0; 32];
    // SAFETY: numbers.
    let mut from: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut size = size_of_val(&from) as libc::socklen_t;
    let (start, len) = (message.as_mut_ptr(), size_of_val(&message));
    // SAFETY: as much room as said, for both.
    unsafe { syscall!(SYS_recvfrom, fd, start, len, 0, &raw mut from, &raw mut size) }?;
    Ok(if from.nl_pid == 0 { message } else { [0; 32] })
}

/// The next event. EAGAIN: there is none; ENOBUFS: some were lost.
pub(crate) fn next(fd: RawFd) -> Result<ProcEvent, Errno> {
    receive(fd).map(|message| event(&message))
}

fn event(message: &Message) -> ProcEvent {
    let data = |n: usize| word(message, DATA + n).cast_signed();
    match word(message, WHAT) {
        1 if data(2) == data(3) => ProcEvent::Fork { parent: data(1), child: data(3) },
        2 => ProcEvent::Exec { pid: data(1) },
        0x8000_0000 if data(0) == data(1) => ProcEvent::Exit { pid: data(0), status: data(2) },
        _ => ProcEvent::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    fn message(what: u32, data: [u32; 4]) -> Message {
        let mut message = [0; 32];
        message[WHAT] = what;
        message[DATA..DATA + 4].copy_from_slice(&data);
        message
    }

    /// Whether the kernel, of a release such as "6.6.1", filters.
    fn filters(release: &str) -> bool {
        let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
        (numbers.next(), numbers.next()) >= (Some(6), Some(6))
    }

    #[test]
    fn only_what_is_of_use_is_received() {
        // Not every process may open it, and not every kernel has it.
        let Ok(connector) = open() else { return };
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let rename = |name: &CStr| {
            // SAFETY: a NUL-terminated name, of this thread.
            unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) }
        };
        for _ in 0..20 {
            assert_eq!((rename(c"one"), rename(c"other")), (0, 0));
        }
        let mut names = 0;
        while let Ok(message) = receive(connector.raw()) {
            names += u32::from(message[WHAT] == 0x200);
        }
        assert!(names == 0 || !filters(release.trim()), "{names} on {release}");
        leave(connector.raw());
    }

    #[test]
    fn requests_are_as_long_as_they_say() {
        assert_eq!(request(LISTEN, None, 7)[0], 40);
        assert_eq!(request(LISTEN, Some(FORK), 7)[0], 44);
        assert_eq!(request(LISTEN, None, 7)[8], pair(4, 0));
        assert_eq!(request(LISTEN, Some(FORK), 7)[8], pair(8, 0));
    }

    #[test]
    fn threads_are_left_out() {
        let fork = ProcEvent::Fork { parent: 7, child: 9 };
        assert_eq!(event(&message(1, [8, 7, 9, 9])), fork);
        assert_eq!(event(&message(1, [8, 7, 10, 9])), ProcEvent::Other);
        assert_eq!(event(&message(2, [10, 9, 0, 0])), ProcEvent::Exec { pid: 9 });
        let exit = ProcEvent::Exit { pid: 9, status: 256 };
        assert_eq!(event(&message(0x8000_0000, [9, 9, 256, 17])), exit);
        assert_eq!(event(&message(0x8000_0000, [10, 9, 0, 17])), ProcEvent::Other);
        assert_eq!(event(&message(0x200, [9, 9, 0, 0])), ProcEvent::Other);
    }
}
