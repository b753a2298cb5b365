//! Timer file descriptors: seconds and nanoseconds, reads that can be woken.

mod setting;

pub(crate) use setting::{TfdSetting, seconds};

use crate::errno::{Errno, Error, Result, error, fail};
use crate::handle::{self, Kind, Object, Pinned, TableObject};
use crate::sync::ForkMutex;
use crate::sys::clock::Deadline;
use crate::sys::fd::{self, Fd};
use crate::sys::{file, poll, timerfd as sys};
use crate::wait::{Listener, Waiters, Watchable, interrupted};
use std::ffi::c_int;
use std::os::fd::RawFd;

/// A timer file descriptor.
pub(crate) struct Timer {
    fd: Fd,
    /// Known if we created it.
    clockid: Option<c_int>,
    waiters: Waiters,
    /// Held for a look and a read together where the kernel cannot read a
    /// timer without blocking.
    reading: ForkMutex<()>,
}

impl Timer {
    pub fn create(clockid: c_int, nonblocking: bool) -> Result<Self> {
        match sys::create(clockid, nonblocking) {
            Ok(fd) => Ok(Self::new(fd, Some(clockid))),
            Err(errno) => Err(cannot_create(errno, clockid)),
        }
    }

    /// The descriptor stays the caller's.
    pub fn adopt(fd: RawFd) -> Result<Self> {
        sys::gettime(fd).map_err(|errno| explain(errno, fd))?;
        Ok(Self::new(Fd::borrowed(fd), None))
    }

    /// From now on the descriptor is not closed with the object; which it is.
    pub fn give_fd_away(&self) -> RawFd {
        self.fd.set_borrowed();
        self.fd.raw()
    }

    /// From now on the descriptor is closed with the object.
    pub fn own_fd(&self) {
        self.fd.set_owned();
    }

    fn new(fd: Fd, clockid: Option<c_int>) -> Self {
        Self { fd, clockid, waiters: Waiters::new(), reading: ForkMutex::new(()) }
    }

    fn fileno(&self) -> RawFd {
        self.fd.raw()
    }

    /// The descriptor, unless the program has closed it.
    #[inline]
    fn open_fd(&self) -> Result<RawFd> {
        self.fd.check().ok_or_else(|| explain(Errno::EBADF, self.fileno()))
    }

    /// Sets the timer; what it was set to before.
    pub fn settime(&self, flags: u32, new: TfdSetting) -> Result<TfdSetting> {
        let old =
            sys::settime(self.open_fd()?, flags, &new.into()).map_err(|errno| match errno {
                Errno::ECANCELED => {
                    error!(errno, "the clock was stepped since the last read; the new time is set")
                }
                _ => explain(errno, self.fileno()),
            })?;
        Ok(old.into())
    }

    pub fn gettime(&self) -> Result<TfdSetting> {
        let now = sys::gettime(self.open_fd()?).map_err(|errno| explain(errno, self.fileno()))?;
        Ok(now.into())
    }

    pub fn clockid(&self) -> Result<c_int> {
        match self.clockid {
            Some(clockid) => Ok(clockid),
            None => clock_of(self.fileno()),
        }
    }

    pub fn set_ticks(&self, ticks: u64) -> Result<()> {
        sys::set_ticks(self.open_fd()?, ticks).map_err(|errno| match errno {
            Errno::EINVAL => error!(errno, "the number of expirations cannot be set to 0"),
            Errno::ENOTTY => {
                error!(Errno::ENOTSUP, "this kernel lacks CONFIG_CHECKPOINT_RESTORE")
            }
            _ => explain(errno, self.fileno()),
        })
    }

    /// The expirations; waits for the first unless O_NONBLOCK is set.
    pub fn read(&self) -> Result<u64> {
        if let Some(ticks) = self.try_read()? {
            return Ok(ticks);
        }
        if fd::is_nonblocking(self.fileno()).map_err(|errno| explain(errno, self.fileno()))? {
            return Err(Errno::EAGAIN.into());
        }
        self.wait(-1)
    }

    /// The expirations, 0 if the time ran out first.
    pub fn wait(&self, timeout_ns: i64) -> Result<u64> {
        let mut guard = self.waiters.enter(Deadline::after(timeout_ns));
        let mut fds = [poll::entry(self.fileno(), libc::POLLIN as u32), poll::entry(-1, 0)];
        loop {
            guard.check()?;
            let over = guard.is_over();
            if let Some(ticks) = self.try_read()? {
                return Ok(ticks);
            }
            if over {
                return Ok(0);
            }
            guard.poll(&mut fds)?;
        }
    }

    /// The expirations, if there are any; does not wait.
    fn try_read(&self) -> Result<Option<u64>> {
        let fd = self.open_fd()?;
        let result = match sys::read_nowait(fd) {
            Some(result) => result,
            None => self.read_if_ready(),
        };
        match result {
            Ok(ticks) => Ok(Some(ticks)),
            Err(Errno::EAGAIN) => Ok(None),
            // Only from a read that another reader made block, see below.
            Err(Errno::EINTR) => interrupted().map(|()| None),
            Err(errno) => Err(explain(errno, fd)),
        }
    }

    /// Without preadv2: a poll and a read, one thread at a time. (A program
    /// that reads the descriptor itself in between can still make it block.)
    fn read_if_ready(&self) -> std::result::Result<u64, Errno> {
        let _alone = self.reading.lock();
        let mut look = [poll::entry(self.fileno(), libc::POLLIN as u32)];
        let ready = poll::look(&mut look)?;
        if ready == 0 { Err(Errno::EAGAIN) } else { sys::read(self.fileno()) }
    }
}

impl TableObject for Timer {
    fn closing(&self) {
        self.waiters.close();
    }

    fn descriptor(&self) -> RawFd {
        self.fileno()
    }

    fn survives_fork(&self) -> bool {
        true
    }

    fn after_fork(&self) {
        // SAFETY: called while no other thread is in the library.
        unsafe { self.waiters.after_fork() };
        // SAFETY: as above.
        unsafe { self.reading.remake(()) };
    }

    fn abandon(&self) {
        self.fd.close_now();
    }
}

// SAFETY: the only type of this kind.
unsafe impl Object for Timer {
    const KIND: Kind = Kind::Tfd;
}

/// Why there is no timer on a clock.
pub(crate) fn cannot_create(errno: Errno, clockid: c_int) -> Error {
    match errno {
        Errno::EINVAL => error!(errno, "there are no timers on clock {}", clockid),
        Errno::EPERM if needs_privilege(clockid) => {
            error!(errno, "clock {} needs CAP_WAKE_ALARM", clockid)
        }
        errno => errno.into(),
    }
}

/// Whether it is this clock that is refused, and not every timer.
fn needs_privilege(clockid: c_int) -> bool {
    matches!(clockid, libc::CLOCK_REALTIME_ALARM | libc::CLOCK_BOOTTIME_ALARM)
        && sys::create(libc::CLOCK_MONOTONIC, true).is_ok()
}

fn explain(errno: Errno, fd: RawFd) -> Error {
    match errno {
        Errno::EBADF => error!(errno, "fd {} is not open", fd),
        Errno::EINVAL => error!(errno, "fd {} is not a timer file descriptor", fd),
        Errno::ECANCELED => error!(errno, "the clock of fd {} was stepped", fd),
        _ => errno.into(),
    }
}

/// The clock of a timer that something else created, as /proc reports it.
fn clock_of(fd: RawFd) -> Result<c_int> {
    if !fd::is_open(fd) {
        return Err(explain(Errno::EBADF, fd));
    }
    let mut buffer = [0; 512];
    let text = match file::info(fd, &mut buffer) {
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)) => return Err(errno.into()),
        text => text.unwrap_or_default(),
    };
    match file::field(text, "clockid:").and_then(|number| number.parse().ok()) {
        Some(clockid) => Ok(clockid),
        None => fail!(ENOTSUP, "/proc does not report the clock of fd {}", fd),
    }
}

impl Watchable for Pinned<Timer> {
    fn watch(&self, listener: Listener) -> Result<()> {
        self.waiters.watch(listener)
    }

    fn unwatch(&self, listener: Listener) {
        self.waiters.unwatch(listener);
    }

    fn take(&self) -> Result<u64> {
        self.wait(0)
    }
}

/// A timer for who watches it.
pub(crate) fn watchable(handle: i64) -> Result<Box<dyn Watchable>> {
    match handle::try_box(handle::pin::<Timer>(handle)?) {
        Some(timer) => Ok(timer),
        None => Err(Errno::ENOMEM.into()),
    }
}
