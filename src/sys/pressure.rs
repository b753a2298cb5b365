//! Pressure stall information: a trigger at /proc/pressure/memory, or at a
//! control group's memory.pressure.

use super::fd::Fd;
use super::{int, syscall};
use crate::errno::Errno;
use std::ffi::CStr;
use std::io::Write as _;

/// Where the whole system's pressure is.
pub(crate) const SYSTEM: &CStr = c"/proc/pressure/memory";

/// When a trigger fires.
#[derive(Clone, Copy)]
pub(crate) struct Trigger {
    /// All tasks stalled at once, not only some.
    pub full: bool,
    /// So much of each window, in microseconds.
    pub stall: i64,
    pub window: i64,
}

/// Sets a trigger; it is there as long as its descriptor, which is ready for
/// EPOLLPRI once for each time that it fires. EINVAL too for what is no
/// pressure file, which is not written to.
pub(crate) fn watch(path: &CStr, trigger: &Trigger) -> Result<Fd, Errno> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: the path is NUL-terminated.
    let fd = unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) }?;
    let file = Fd::kept(int(fd))?;
    let mut start = [0u8; 10];
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_read, file.raw(), start.as_mut_ptr(), start.len()) };
    match len {
        Ok(10) if start == *b"some avg10" => {}
        Ok(_) | Err(Errno::EAGAIN) => return Err(Errno::EINVAL),
        Err(errno) => return Err(errno),
    }
    let mut text = [0u8; 64];
    let mut rest = &mut text[..];
    let kind = if trigger.full { "full" } else { "some" };
    // Room for every number, and for the NUL byte behind them.
    let _ = write!(rest, "{kind} {} {}", trigger.stall, trigger.window);
    let len = 64 - rest.len() + 1;
    // SAFETY: as many readable bytes as said.
    unsafe { syscall!(SYS_write, file.raw(), text.as_ptr(), len) }?;
    Ok(file)
}
