//! Error numbers of the system.

use std::ffi::c_int;
use std::num::NonZeroI32;

/// An error number of the system; positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Errno(NonZeroI32);

impl Errno {
    /// From a number; anything that is none becomes ENOTRECOVERABLE.
    pub const fn new(code: c_int) -> Self {
        match NonZeroI32::new(code) {
            Some(code) if code.get() > 0 => Self(code),
            _ => Self::new(libc::ENOTRECOVERABLE),
        }
    }

    /// What the C API returns for it.
    pub const fn negated(self) -> c_int {
        -self.0.get()
    }

    /// Whether something was used up, of which there may be more later.
    pub const fn is_shortage(self) -> bool {
        matches!(self, Self::ENOMEM | Self::ENOSPC | Self::EMFILE | Self::ENFILE)
    }

    pub const E2BIG: Self = Self::new(libc::E2BIG);
    pub const EAGAIN: Self = Self::new(libc::EAGAIN);
    pub const EBADF: Self = Self::new(libc::EBADF);
    pub const EBUSY: Self = Self::new(libc::EBUSY);
    pub const ECANCELED: Self = Self::new(libc::ECANCELED);
    pub const ECHILD: Self = Self::new(libc::ECHILD);
    pub const EDEADLK: Self = Self::new(libc::EDEADLK);
    pub const EDQUOT: Self = Self::new(libc::EDQUOT);
    pub const EDOM: Self = Self::new(libc::EDOM);
    pub const EEXIST: Self = Self::new(libc::EEXIST);
    pub const EFBIG: Self = Self::new(libc::EFBIG);
    pub const EINTR: Self = Self::new(libc::EINTR);
    pub const EINVAL: Self = Self::new(libc::EINVAL);
    pub const EIO: Self = Self::new(libc::EIO);
    pub const EISDIR: Self = Self::new(libc::EISDIR);
    pub const ELOOP: Self = Self::new(libc::ELOOP);
    pub const EMFILE: Self = Self::new(libc::EMFILE);
    pub const ENFILE: Self = Self::new(libc::ENFILE);
    pub const ENOBUFS: Self = Self::new(libc::ENOBUFS);
    pub const EACCES: Self = Self::new(libc::EACCES);
    pub const ENOSPC: Self = Self::new(libc::ENOSPC);
    pub const ENXIO: Self = Self::new(libc::ENXIO);
    pub const ENODEV: Self = Self::new(libc::ENODEV);
    pub const ENAMETOOLONG: Self = Self::new(libc::ENAMETOOLONG);
    pub const EXDEV: Self = Self::new(libc::EXDEV);
    pub const ENOENT: Self = Self::new(libc::ENOENT);
    pub const ENOMEM: Self = Self::new(libc::ENOMEM);
    pub const ENOSYS: Self = Self::new(libc::ENOSYS);
    pub const ENOTDIR: Self = Self::new(libc::ENOTDIR);
    pub const ENOTRECOVERABLE: Self = Self::new(libc::ENOTRECOVERABLE);
    pub const ENOTSUP: Self = Self::new(libc::ENOTSUP);
    pub const ENOTTY: Self = Self::new(libc::ENOTTY);
    pub const EOVERFLOW: Self = Self::new(libc::EOVERFLOW);
    pub const EPERM: Self = Self::new(libc::EPERM);
    pub const EPIPE: Self = Self::new(libc::EPIPE);
    pub const EROFS: Self = Self::new(libc::EROFS);
    pub const ESPIPE: Self = Self::new(libc::ESPIPE);
    pub const ESRCH: Self = Self::new(libc::ESRCH);
    pub const ESTALE: Self = Self::new(libc::ESTALE);
    pub const ETXTBSY: Self = Self::new(libc::ETXTBSY);
}
