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
pub(crate) mod select;
pub(crate) mod signal;
pub(crate) mod socket;
pub(crate) mod thread;
pub(crate) mod ticks;
pub(crate) mod timerfd;

use crate::errno::Errno;
use std::ffi::{c_int, c_long};

/// Makes one system call.
///
/// # Safety
/// The arguments must be what that system call asks for; what they point to
/// must be valid for as long as it says.
unsafe fn raw(number: c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let [a, b, c, d, e, f] = args;
    // SAFETY: the caller vouches for the arguments.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    usize::try_from(result).map_err(|_| Errno::new(SavedErrno::now().value))
}

/// The C library's errno at some time. The C API promises not to touch it,
/// but system calls, locks and memory allocation do.
pub(crate) struct SavedErrno {
    place: *mut c_int,
    value: c_int,
}

impl SavedErrno {
    #[inline]
    pub fn now() -> Self {
        // SAFETY: always a valid address, this thread's.
        let place = unsafe { libc::__errno_location() };
        // SAFETY: as above.
        Self { place, value: unsafe { *place } }
    }

    /// Gives errno a value, which is what one part of the C API promises.
    pub fn set(value: c_int) {
        Self { value, ..Self::now() }.restore();
    }

    #[inline]
    pub fn restore(&self) {
        // SAFETY: this thread's errno, as the type cannot leave the thread.
        unsafe { *self.place = self.value };
    }
}

/// `syscall!(SYS_close, fd)`: an unsafe call of [`raw`].
macro_rules! syscall {
    (@ $number:ident, $a:expr, $b:expr, $c:expr, $d:expr, $e:expr, $f:expr $(, 0)*) => {
        $crate::sys::raw(
            libc::$number,
            [$a as usize, $b as usize, $c as usize, $d as usize, $e as usize, $f as usize],
        )
    };
    ($number:ident $(, $arg:expr)* $(,)?) => {
        $crate::sys::syscall!(@ $number $(, $arg)*, 0, 0, 0, 0, 0, 0)
    };
}
use syscall;

/// A number the kernel returned that fits an int: descriptors and counts.
fn int(result: usize) -> i32 {
    i32::try_from(result).unwrap_or(i32::MAX)
}
