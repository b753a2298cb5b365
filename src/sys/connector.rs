//! The kernel's process connector: forks, executions and ends of all
//! processes, through netlink(7).

use super::fd::Fd;
use super::{int, syscall};
use crate::errno::Errno;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

const NETLINK_CONNECTOR: i32 = 11;
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;

/// What happened to a process; threads are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
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

/// What is sent: a header of netlink's, one of the connector's, a number.
type Request = [u32; 10];
/// What is received has the same headers and at most so much more.
type Message = [u32; 32];

const ACK: usize = 7;
const WHAT: usize = 9;
/// Behind what happened, the processor and the time.
const DATA: usize = 13;

fn request(operation: u32, ack: u32) -> Request {
    const NLMSG_DONE: u16 = 3;
    let (whole, len) = (size_of::<Request>() as u32, size_of::<u32>() as u16);
    let (header, body) = (pair(NLMSG_DONE, 0), pair(len, 0));
    [whole, header, 0, 0, CN_IDX_PROC, CN_VAL_PROC, 0, ack, body, operation]
}

/// Two short numbers, one behind the other.
fn pair(first: u16, second: u16) -> u32 {
    let ([a, b], [c, d]) = (first.to_ne_bytes(), second.to_ne_bytes());
    u32::from_ne_bytes([a, b, c, d])
}

fn send(fd: RawFd, request: &Request) -> Result<(), Errno> {
    let size = size_of_val(request);
    // SAFETY: as many readable bytes as said; to the kernel.
    unsafe { syscall!(SYS_sendto, fd, request.as_ptr(), size, libc::MSG_NOSIGNAL, 0, 0) }.map(drop)
}

/// A socket that gets all events from now on. EPROTONOSUPPORT, EPERM: they
/// cannot be had; ENOTSUP: neither can they, but the kernel does not say so
/// (not in the first namespaces).
pub(crate) fn open() -> Result<Fd, Errno> {
    let sort = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_socket, libc::AF_NETLINK, sort, NETLINK_CONNECTOR) }?;
    let fd = Fd::kept(int(fd))?;
    // SAFETY: numbers.
    let mut address: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
    address.nl_family = libc::AF_NETLINK as u16;
    address.nl_groups = CN_IDX_PROC;
    // SAFETY: a whole address.
    unsafe { syscall!(SYS_bind, fd.raw(), &raw const address, size_of_val(&address)) }?;
    enlarge(fd.raw());
    let ack = std::process::id();
    send(fd.raw(), &request(LISTEN, ack))?;
    acknowledged(fd.raw(), ack.wrapping_add(1))?;
    Ok(fd)
}

/// Room for the events of a burst; not all that is asked for may be had.
fn enlarge(fd: RawFd) {
    let size: i32 = 1 << 20;
    let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
    // SAFETY: the value is one int.
    let _ =
        unsafe { syscall!(SYS_setsockopt, fd, level, name, &raw const size, size_of_val(&size)) };
}

/// The kernel answers before `send` returns, or not at all.
fn acknowledged(fd: RawFd, ack: u32) -> Result<(), Errno> {
    loop {
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
}

/// Ends what `open` began.
pub(crate) fn leave(fd: RawFd) {
    // The socket is closed next, whatever becomes of this.
    let _ = send(fd, &request(IGNORE, 0));
}

fn word(message: &Message, place: usize) -> u32 {
    message.get(place).copied().unwrap_or(0)
}

/// The next message of the kernel's.
fn receive(fd: RawFd) -> Result<Message, Errno> {
    loop {
        let mut message: Message = [0; 32];
        // SAFETY: numbers.
        let mut from: libc::sockaddr_nl = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut size = size_of_val(&from) as libc::socklen_t;
        let (start, len) = (message.as_mut_ptr(), size_of_val(&message));
        // SAFETY: as much room as said, for both.
        unsafe { syscall!(SYS_recvfrom, fd, start, len, 0, &raw mut from, &raw mut size) }?;
        if from.nl_pid == 0 {
            return Ok(message);
        }
    }
}

/// The next event. EAGAIN: there is none; ENOBUFS: some were lost.
pub(crate) fn next(fd: RawFd) -> Result<Event, Errno> {
    receive(fd).map(|message| event(&message))
}

fn event(message: &Message) -> Event {
    let data = |n: usize| word(message, DATA + n).cast_signed();
    match word(message, WHAT) {
        1 if data(2) == data(3) => Event::Fork { parent: data(1), child: data(3) },
        2 => Event::Exec { pid: data(1) },
        0x8000_0000 if data(0) == data(1) => Event::Exit { pid: data(0), status: data(2) },
        _ => Event::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(what: u32, data: [u32; 4]) -> Message {
        let mut message = [0; 32];
        message[WHAT] = what;
        message[DATA..DATA + 4].copy_from_slice(&data);
        message
    }

    #[test]
    fn threads_are_left_out() {
        let fork = Event::Fork { parent: 7, child: 9 };
        assert_eq!(event(&message(1, [8, 7, 9, 9])), fork);
        assert_eq!(event(&message(1, [8, 7, 10, 9])), Event::Other);
        assert_eq!(event(&message(2, [10, 9, 0, 0])), Event::Exec { pid: 9 });
        let exit = Event::Exit { pid: 9, status: 256 };
        assert_eq!(event(&message(0x8000_0000, [9, 9, 256, 17])), exit);
        assert_eq!(event(&message(0x8000_0000, [10, 9, 0, 17])), Event::Other);
        assert_eq!(event(&message(0x200, [9, 9, 0, 0])), Event::Other);
    }
}
