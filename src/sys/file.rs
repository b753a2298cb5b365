//! What files and pipes say of themselves.

use super::fd::Fd;
pub(crate) use super::raw_fd::read_start;
use super::{int, poll, syscall};
use crate::errno::Errno;
use crate::sync::{AtomicBool, Ordering};
use std::ffi::{CStr, c_int};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

pub(crate) fn stat(fd: RawFd) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: room for what the kernel fills in.
    unsafe { syscall!(SYS_fstat, fd, stat.as_mut_ptr()) }?;
    // SAFETY: it was filled in.
    Ok(unsafe { stat.assume_init() })
}

/// The device and the inode of an open file; eventfds and their like share
/// one.
pub(crate) fn identity(fd: RawFd) -> Option<(u64, u64)> {
    stat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}

/// The same of a path.
pub(crate) fn stat_path(path: &CStr) -> Result<libc::stat, Errno> {
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    let (directory, flags) = (libc::AT_FDCWD, 0);
    // SAFETY: a NUL-terminated path, and room for what the kernel fills in.
    unsafe { syscall!(SYS_newfstatat, directory, path.as_ptr(), stat.as_mut_ptr(), flags) }?;
    // SAFETY: it was filled in.
    Ok(unsafe { stat.assume_init() })
}

/// What /proc says of a descriptor: its first few lines.
pub(crate) fn info(fd: RawFd, buffer: &mut [u8; 512]) -> Result<&str, Errno> {
    let mut path = [0u8; 40];
    // Room for every number, and for the NUL byte behind it.
    let _ = write!(path.as_mut_slice(), "/proc/self/fdinfo/{fd}");
    let path = CStr::from_bytes_until_nul(&path).unwrap_or_default();
    Ok(str::from_utf8(read_start(path, buffer)?).unwrap_or_default())
}

/// What a line of that, the one that begins so, says.
pub(crate) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

/// A file to write to, made for this user alone if it is not there, and empty.
///
/// A symbolic link is ELOOP: another user may have put it there. A FIFO that
/// has no reader is ENXIO, and a file of which another process has a lease is
/// EAGAIN: nothing is waited for.
pub(crate) fn create(path: &CStr) -> Result<Fd, Errno> {
    let careful = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | careful;
    // SAFETY: the path is NUL-terminated.
    let file = unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) }?;
    Fd::made(file)
}

/// Writes all of it, however long that takes.
pub(crate) fn write_all(fd: RawFd, mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        // SAFETY: as many readable bytes as said.
        match unsafe { syscall!(SYS_write, fd, bytes.as_ptr(), bytes.len()) } {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut fds = [poll::entry(fd, libc::POLLOUT as u32)];
                // If it is interrupted it is tried again.
                let _ = poll::ppoll(&mut fds, None);
            }
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Where the next read begins.
pub(crate) fn position(fd: RawFd) -> Result<i64, Errno> {
    // SAFETY: no pointers; nothing is moved.
    let position = unsafe { syscall!(SYS_lseek, fd, 0, libc::SEEK_CUR) }?;
    Ok(i64::try_from(position).unwrap_or(i64::MAX))
}

/// How many bytes can be read, as the kind of file has it.
pub(crate) fn readable(fd: RawFd) -> Result<i64, Errno> {
    ask(fd, libc::FIONREAD)
}

/// Whether the next byte of a socket is the urgent one.
pub(crate) fn is_at_mark(fd: RawFd) -> bool {
    const SIOCATMARK: libc::Ioctl = 0x8905;
    ask(fd, SIOCATMARK).is_ok_and(|answer| answer != 0)
}

/// How many bytes a terminal has yet to send.
pub(crate) fn unsent(fd: RawFd) -> Result<i64, Errno> {
    ask(fd, libc::TIOCOUTQ)
}

fn ask(fd: RawFd, request: libc::Ioctl) -> Result<i64, Errno> {
    let mut count: c_int = 0;
    // SAFETY: these requests write one int.
    unsafe { syscall!(SYS_ioctl, fd, request, &raw mut count) }?;
    Ok(count.into())
}

/// How many bytes a pipe takes when it is empty.
pub(crate) fn pipe_size(fd: RawFd) -> Result<i64, Errno> {
    // SAFETY: no pointers.
    let size = unsafe { syscall!(SYS_fcntl, fd, libc::F_GETPIPE_SZ) }?;
    Ok(int(size).into())
}

/// The type of the file system that it is on.
pub(crate) fn file_system(fd: RawFd) -> Result<i64, Errno> {
    let mut stat = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: room for what the kernel fills in.
    unsafe { syscall!(SYS_fstatfs, fd, stat.as_mut_ptr()) }?;
    // SAFETY: it was filled in.
    let kind = unsafe { stat.assume_init() }.f_type;
    // Signed in glibc, unsigned in musl.
    #[allow(clippy::unnecessary_cast)]
    Ok(kind as i64)
}

/// The beginning of what /proc calls the file, as the kernel prints it.
pub(crate) fn name(fd: RawFd, buffer: &mut [u8]) -> Result<&[u8], Errno> {
    let mut path = [0u8; 32];
    // Room for every number, and for the NUL byte behind it.
    let _ = write!(path.as_mut_slice(), "/proc/self/fd/{fd}");
    let (directory, path, len) = (libc::AT_FDCWD, path.as_ptr(), buffer.len());
    // SAFETY: the path is NUL-terminated, as many writable bytes as said.
    let len = unsafe { syscall!(SYS_readlinkat, directory, path, buffer.as_mut_ptr(), len) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// What a symbolic link leads to; EINVAL: it is none.
pub(crate) fn link_target<'a>(path: &CStr, buffer: &'a mut [u8]) -> Result<&'a [u8], Errno> {
    let (directory, path, len) = (libc::AT_FDCWD, path.as_ptr(), buffer.len());
    // SAFETY: the path is NUL-terminated, as many writable bytes as said.
    let len = unsafe { syscall!(SYS_readlinkat, directory, path, buffer.as_mut_ptr(), len) }?;
    Ok(buffer.get(..len).unwrap_or_default())
}

/// Whether RWF_NOWAIT is known not to work here.
static NO_NOWAIT: AtomicBool = AtomicBool::new(false);

/// The memory that a program lends to be read into, or to be written.
#[derive(Clone, Copy)]
pub(crate) enum Buffer {
    Into(*mut u8, usize),
    From(*const u8, usize),
}

impl Buffer {
    pub fn is_empty(self) -> bool {
        self.parts().1 == 0
    }

    /// The address, and as many bytes as one call can take.
    pub fn parts(self) -> (usize, usize) {
        let (start, count) = match self {
            Self::Into(start, count) => (start.expose_provenance(), count),
            Self::From(start, count) => (start.expose_provenance(), count),
        };
        (start, count.min(i32::MAX as usize))
    }
}

/// Reads or writes at a place in the file; `offset` negative: where its
/// position is. It waits as long as the file has it.
///
/// # Safety
/// The buffer is writable or readable, as it says, until this returns.
pub(crate) unsafe fn transfer(fd: RawFd, buffer: Buffer, offset: i64) -> Result<usize, Errno> {
    let (start, count) = buffer.parts();
    let number = match (buffer, offset < 0) {
        (Buffer::Into(..), true) => libc::SYS_read,
        (Buffer::Into(..), false) => libc::SYS_pread64,
        (Buffer::From(..), true) => libc::SYS_write,
        (Buffer::From(..), false) => libc::SYS_pwrite64,
    };
    // SAFETY: this function's contract.
    unsafe { syscall!((number), fd, start, count, offset) }
}

/// The same without waiting: EAGAIN, it would have to. `None`: this file, or
/// this kernel, cannot do it so.
///
/// # Safety
/// As of [`transfer`].
pub(crate) unsafe fn transfer_nowait(
    fd: RawFd,
    buffer: Buffer,
    offset: i64,
) -> Option<Result<usize, Errno>> {
    if NO_NOWAIT.load(Ordering::Relaxed) {
        return None;
    }
    let (start, iov_len) = buffer.parts();
    let vector = libc::iovec { iov_base: std::ptr::with_exposed_provenance_mut(start), iov_len };
    let vector = (&raw const vector).expose_provenance();
    let number = match buffer {
        Buffer::Into(..) => libc::SYS_preadv2,
        Buffer::From(..) => libc::SYS_pwritev2,
    };
    // The offset comes in two halves, of which the second is for 32 bits.
    let (low, high, flags) = (offset.max(-1), 0, libc::RWF_NOWAIT);
    // SAFETY: this function's contract.
    match unsafe { syscall!((number), fd, vector, 1, low, high, flags) } {
        Err(Errno::ENOTSUP) => None,
        Err(Errno::ENOSYS | Errno::EPERM) => {
            NO_NOWAIT.store(true, Ordering::Relaxed);
            None
        }
        result => Some(result),
    }
}

/// Whether a file has a way to be written, or read, at all: an epoll and a
/// pidfd have none. If that cannot be known it has.
pub(crate) fn can_be_used(fd: RawFd, writing: bool) -> bool {
    let number = if writing { libc::SYS_writev } else { libc::SYS_readv };
    // SAFETY: no buffers: the kernel looks at how the file was opened and at
    // what it can do, and then there is nothing to be done.
    let nothing = unsafe { syscall!((number), fd, 0, 0) };
    nothing != Err(Errno::EINVAL)
}

/// Whether a descriptor was opened for writing, or for reading.
pub(crate) fn is_open_for(fd: RawFd, writing: bool) -> Result<bool, Errno> {
    // SAFETY: F_GETFL only looks.
    let flags = int(unsafe { syscall!(SYS_fcntl, fd, libc::F_GETFL) }?);
    Ok(flags & libc::O_PATH == 0
        && match flags & libc::O_ACCMODE {
            libc::O_RDONLY => !writing,
            libc::O_WRONLY => writing,
            _ => true,
        })
}

/// Has what was written reach the disk; `data_only`: but for what is not
/// needed to read it again.
pub(crate) fn sync(fd: RawFd, data_only: bool) -> Result<usize, Errno> {
    let number = if data_only { libc::SYS_fdatasync } else { libc::SYS_fsync };
    // SAFETY: no pointers.
    unsafe { syscall!((number), fd) }
}
