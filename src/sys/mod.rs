//! System calls: one file per facility, `Result<_, Errno>` everywhere.
//!
//! All go through syscall(2), which unlike the C library's wrappers is no
//! cancellation point: a thread cancelled in the middle of a call would leave
//! its pins and locks behind.

pub(crate) mod cancel;
pub(crate) mod clock;
pub(crate) mod connector;
pub(crate) mod diag;
pub(crate) mod directory;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod fd;
pub(crate) mod file;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod inotify;
pub(crate) mod interrupt;
pub(crate) mod kept;
pub(crate) mod memory;
pub(crate) mod mounts;
pub(crate) mod netlink;
pub(crate) mod park;
pub(crate) mod pidfd;
pub(crate) mod poll;
pub(crate) mod pressure;
mod raw_fd;
pub(crate) mod select;
pub(crate) mod signal;
pub(crate) mod sigpipe;
pub(crate) mod socket;
pub(crate) mod thread;
pub(crate) mod timerfd;
pub(crate) mod tsc;

use crate::errno::Errno;
use std::ffi::{c_int, c_long};

/// What syscall(2) has returned.
#[inline]
fn outcome(result: c_long) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| last_errno())
}

#[cold]
fn last_errno() -> Errno {
    Errno::new(SavedErrno::now().value)
}

/// The C library's errno at some time. The C API promises not to touch it,
/// but system calls, locks and memory allocation do.
pub(crate) struct SavedErrno {
    location: *mut c_int,
    value: c_int,
}

impl SavedErrno {
    #[inline]
    pub fn now() -> Self {
        // SAFETY: always a valid address, this thread's.
        let location = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        Self { location, value: unsafe { *location } }
    }

    /// Gives errno a value, which is what one part of the C API promises.
    pub fn set(value: c_int) {
        Self { value, ..Self::now() }.restore();
    }

    #[inline]
    pub fn restore(&self) {
        // SAFETY: this thread's errno, as the type cannot leave the thread.
        unsafe { *self.location = self.value };
    }
}

/// `syscall!(SYS_close, fd)`: makes one system call, which is unsafe.
///
/// # Safety
/// The arguments must be all that this system call looks at: nothing is added
/// to them. What they point to must be valid for as long as it says.
macro_rules! syscall {
    ($number:ident $(, $arg:expr)* $(,)?) => {
        $crate::sys::syscall!((libc::$number) $(, $arg)*)
    };
    (($number:expr) $(, $arg:expr)* $(,)?) => {
        $crate::sys::outcome(libc::syscall($number $(, $arg as usize)*))
    };
}
use syscall;

/// A number the kernel returned that fits an int: descriptors and counts.
fn int(result: usize) -> i32 {
    i32::try_from(result).unwrap_or(i32::MAX)
}
