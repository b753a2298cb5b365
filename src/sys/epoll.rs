//! epoll(7).

use super::fd::{self, Fd};
use super::{clock, file, poll, syscall};
use crate::errno::Errno;
use crate::sync::{AtomicBool, Ordering};
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

pub(crate) use libc::epoll_event as Event;

pub(crate) fn create() -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_epoll_create1, libc::EPOLL_CLOEXEC) };
    Fd::made_by("epoll_create1(2)", fd)
}

/// ELOOP: they would nest in a circle, or too deep.
pub(crate) fn add(epoll: RawFd, fd: RawFd, events: u32, cookie: u64) -> Result<(), Errno> {
    match ctl(epoll, libc::EPOLL_CTL_ADD, fd, events, cookie) {
        Err(Errno::EINVAL) if would_nest(epoll, fd, events) => Err(Errno::ELOOP),
        result => result,
    }
}

/// Whether it is the nesting that is refused, which older kernels (5.10, say)
/// may call EINVAL, as they call other things.
#[cold]
fn would_nest(epoll: RawFd, fd: RawFd, events: u32) -> bool {
    let is_epoll = |fd| {
        let mut name = [0; 64];
        file::name(fd, &mut name).is_ok_and(|name| name == b"anon_inode:[eventpoll]")
    };
    events & libc::EPOLLEXCLUSIVE as u32 == 0
        && is_epoll(epoll)
        && is_epoll(fd)
        && !fd::are_one(epoll, fd)
}

pub(crate) fn modify(epoll: RawFd, fd: RawFd, events: u32, cookie: u64) -> Result<(), Errno> {
    ctl(epoll, libc::EPOLL_CTL_MOD, fd, events, cookie)
}

pub(crate) fn delete(epoll: RawFd, fd: RawFd) -> Result<(), Errno> {
    ctl(epoll, libc::EPOLL_CTL_DEL, fd, 0, 0)
}

fn ctl(epoll: RawFd, operation: i32, fd: RawFd, events: u32, cookie: u64) -> Result<(), Errno> {
    let mut event = Event { events, u64: cookie };
    // SAFETY: the event is valid for the call.
    unsafe { syscall!(SYS_epoll_ctl, epoll, operation, fd, &raw mut event) }.map(drop)
}

/// How an epoll polls the queues of network devices itself.
#[derive(Clone, Copy)]
pub(crate) struct BusyPoll {
    pub usecs: u32,
    /// Packets at a time; 0: the kernel's default.
    pub budget: u16,
    pub prefer: bool,
}

impl BusyPoll {
    /// Not 0.
    pub fn pack(self) -> u64 {
        1 | u64::from(self.prefer) << 1 | u64::from(self.budget) << 16 | u64::from(self.usecs) << 32
    }

    pub fn unpack(word: u64) -> Option<Self> {
        let (usecs, budget) = ((word >> 32) as u32, (word >> 16) as u16);
        (word != 0).then_some(Self { usecs, budget, prefer: word & 2 != 0 })
    }
}

/// ENOTSUP: before Linux 6.9, or without CONFIG_NET_RX_BUSY_POLL. EPERM: a
/// budget above the kernel's weight, without CAP_NET_ADMIN.
pub(crate) fn set_busy_poll(epoll: RawFd, setting: BusyPoll) -> Result<(), Errno> {
    /// The kernel's struct epoll_params.
    #[repr(C)]
    struct Params {
        usecs: u32,
        budget: u16,
        prefer: u8,
        padding: u8,
    }
    /// _IOW(0x8a, 1, struct epoll_params).
    const EPIOCSPARAMS: u32 = 0x4008_8a01;
    let BusyPoll { usecs, budget, prefer } = setting;
    let params = Params { usecs, budget, prefer: prefer.into(), padding: 0 };
    // SAFETY: the parameters are valid for the call.
    match unsafe { syscall!(SYS_ioctl, epoll, EPIOCSPARAMS, &raw const params) } {
        Ok(_) => Ok(()),
        // What it does not know.
        Err(Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS) => Err(Errno::ENOTSUP),
        Err(errno) => Err(errno),
    }
}

/// Waits into `buffer`; the events filled in. `None` waits for ever.
///
/// It may return none before the time is out, where another thread was
/// faster: the caller looks at its deadline.
pub(crate) fn wait(
    epoll: RawFd,
    buffer: &mut [MaybeUninit<Event>],
    timeout_ns: Option<i64>,
) -> Result<&[Event], Errno> {
    let capacity = buffer.len().min(i32::MAX as usize / size_of::<Event>());
    let start = buffer.as_mut_ptr();
    let filled = wait_raw(epoll, start, capacity, timeout_ns)?;
    let filled = buffer.get(..filled).unwrap_or_default();
    // SAFETY: the kernel filled that many events.
    Ok(unsafe { &*(&raw const *filled as *const [Event]) })
}

/// Detects a full round of an epoll's ready list: what stays ready goes to the
/// end of the list, so that all was reported when any of it comes again.
#[derive(Default)]
pub(crate) struct RoundDetector {
    count: usize,
    first: u64,
    /// The first may not stay ready: of every number of events that is a
    /// power of two, the last.
    anchor: u64,
}

impl RoundDetector {
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether the round is over; these events came next.
    pub fn is_over(&mut self, events: &[Event]) -> bool {
        events.iter().any(|event| self.comes_again(event.u64))
    }

    /// An event with this word came next.
    pub fn comes_again(&mut self, word: u64) -> bool {
        if self.count > 0 && (word == self.first || word == self.anchor) {
            return true;
        }
        self.count += 1;
        if self.count == 1 {
            self.first = word;
        }
        if self.count.is_power_of_two() {
            self.anchor = word;
        }
        false
    }

    /// How many came before any came again.
    pub fn length(&self) -> usize {
        self.count
    }
}

/// Whether epoll_pwait2(2) is known not to work here.
static NO_PWAIT2: AtomicBool = AtomicBool::new(false);

fn wait_raw(
    epoll: RawFd,
    start: *mut MaybeUninit<Event>,
    capacity: usize,
    timeout_ns: Option<i64>,
) -> Result<usize, Errno> {
    let milliseconds = match timeout_ns {
        None => -1,
        Some(0) => 0,
        Some(ns) => return wait_for(epoll, start, capacity, ns),
    };
    // SAFETY: `room` events fit at `start`; no mask.
    unsafe { syscall!(SYS_epoll_pwait, epoll, start, capacity, milliseconds, 0, 0) }
}

/// Waits for a time that is not 0.
fn wait_for(
    epoll: RawFd,
    start: *mut MaybeUninit<Event>,
    capacity: usize,
    timeout_ns: i64,
) -> Result<usize, Errno> {
    let timeout = clock::to_timespec(timeout_ns);
    if !NO_PWAIT2.load(Ordering::Relaxed) {
        let timeout = &raw const timeout;
        // SAFETY: `room` events fit at `start`; the timeout is valid; no mask.
        match unsafe { syscall!(SYS_epoll_pwait2, epoll, start, capacity, timeout, 0, 0) } {
            // A kernel before 5.11; a sandbox that does not know the call.
            Err(Errno::ENOSYS | Errno::EPERM) => NO_PWAIT2.store(true, Ordering::Relaxed),
            result => return result,
        }
    }
    // epoll_pwait only knows milliseconds; ppoll on the epoll descriptor
    // waits to the nanosecond.
    poll::ppoll(&mut [poll::entry(epoll, libc::POLLIN as u32)], Some(timeout_ns))?;
    // SAFETY: as above, without a timeout.
    unsafe { syscall!(SYS_epoll_pwait, epoll, start, capacity, 0, 0, 0) }
}
