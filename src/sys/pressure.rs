//! Pressure stall information: a trigger at /proc/pressure/memory, or at a
//! control group's memory.pressure.

use super::fd::Fd;
use super::{file, poll, syscall};
use crate::errno::Errno;
use std::ffi::CStr;
use std::io::Write as _;
use std::os::fd::RawFd;

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

/// Why a file cannot be watched.
pub(crate) enum Refusal {
    /// It has no pressure of memory; nothing was written to it.
    OtherFile,
    /// It cannot be opened.
    Path(Errno),
    /// The kernel does not take the trigger.
    Trigger(Errno),
}

impl Refusal {
    pub fn errno(&self) -> Errno {
        match *self {
            Self::OtherFile => Errno::EINVAL,
            Self::Path(errno) | Self::Trigger(errno) => errno,
        }
    }
}

/// Sets a trigger; it is there as long as its descriptor, which is ready for
/// EPOLLPRI once for each time that it fires. With it, the [`total`] before.
pub(crate) fn watch(path: &CStr, trigger: &Trigger) -> Result<(Fd, u64), Refusal> {
    let file = open(path)?;
    let before = total(file.raw(), trigger.full).map_err(|_| Refusal::OtherFile)?;
    let mut text = [0u8; 64];
    let mut rest = &mut text[..];
    let kind = if trigger.full { "full" } else { "some" };
    // Room for every number, and for the NUL byte behind them.
    let _ = write!(rest, "{kind} {} {}", trigger.stall, trigger.window);
    let len = 64 - rest.len() + 1;
    // SAFETY: as many readable bytes as said.
    unsafe { syscall!(SYS_write, file.raw(), text.as_ptr(), len) }.map_err(Refusal::Trigger)?;
    Ok((file, before))
}

/// Opens a file of memory pressure, and nothing else: opening a device or a
/// FIFO may have effects.
fn open(path: &CStr) -> Result<Fd, Refusal> {
    // Closed at once: a descriptor more may be one too many.
    check_type(Fd::brief(open_as(path, libc::O_PATH)?).map_err(Refusal::Path)?.raw())?;
    let file = open_as(path, libc::O_RDWR | libc::O_NONBLOCK | libc::O_NOCTTY)?;
    let file = Fd::made(file).map_err(Refusal::Path)?;
    // The path may lead elsewhere by now.
    check_type(file.raw())?;
    let mut name = [0u8; 1024];
    let name = file::name(file.raw(), &mut name).unwrap_or_default();
    // Those of other resources are the same in all but their names.
    let others: [&[u8]; 6] =
        [b"/cpu", b"/io", b"/irq", b"/cpu.pressure", b"/io.pressure", b"/irq.pressure"];
    if others.iter().any(|other| name.ends_with(other)) {
        return Err(Refusal::OtherFile);
    }
    Ok(file)
}

fn open_as(path: &CStr, flags: i32) -> Result<usize, Refusal> {
    let flags = flags | libc::O_CLOEXEC;
    // SAFETY: the path is NUL-terminated.
    match unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) } {
        Ok(fd) => Ok(fd),
        Err(Errno::EISDIR) => Err(Refusal::OtherFile),
        Err(errno) => Err(Refusal::Path(errno)),
    }
}

/// Whether it is on one of the two file systems that have files of pressure.
fn check_type(fd: RawFd) -> Result<(), Refusal> {
    match file::file_system(fd) {
        Ok(libc::PROC_SUPER_MAGIC | libc::CGROUP2_SUPER_MAGIC) => Ok(()),
        _ => Err(Refusal::OtherFile),
    }
}

/// Whether a trigger has fired since this was asked, or it was polled, before.
pub(crate) fn has_fired(file: RawFd) -> bool {
    let mut fds = [poll::entry(file, libc::POLLPRI as u32)];
    poll::look(&mut fds).is_ok_and(|ready| ready > 0)
        && fds.iter().all(|entry| poll::revents(entry) == libc::POLLPRI as u32)
}

/// For how long tasks were stalled, in microseconds, since the file is there.
pub(crate) fn total(file: RawFd, full: bool) -> Result<u64, Errno> {
    let mut text = [0u8; 256];
    let (start, capacity) = (text.as_mut_ptr(), text.len());
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_pread64, file, start, capacity, 0) }?;
    parse(text.get(..len).unwrap_or_default(), full).ok_or(Errno::EINVAL)
}

fn parse(text: &[u8], full: bool) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let kind = if full { "full avg10=" } else { "some avg10=" };
    let line = text.lines().find(|line| line.starts_with(kind))?;
    line.rsplit_once(" total=")?.1.parse().ok()
}

/// Whether the kernel counts the stall of a trigger rightly that this thread
/// sets. It begins those of threads without CAP_SYS_RESOURCE with a wrong
/// total, so that the first stall of any length fires them.
pub(crate) fn counts_rightly() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_RESOURCE: u32 = 24;
    // For a thread, which is this one; three words for 32 capabilities each,
    // of which the first is what is effective.
    let header = [VERSION_3, 0];
    let mut words = [0u32; 6];
    // SAFETY: the header and the words are what this version asks for.
    let asked = unsafe { syscall!(SYS_capget, header.as_ptr(), words.as_mut_ptr()) };
    let [effective, ..] = words;
    asked.is_ok() && effective & 1 << CAP_SYS_RESOURCE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_totals_of_both_lines_are_found() {
        let text = b"some avg10=0.00 avg60=0.12 avg300=0.00 total=62254\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=54850\n";
        assert_eq!((parse(text, false), parse(text, true)), (Some(62254), Some(54850)));
    }

    #[test]
    fn what_is_no_file_of_pressure_has_no_total() {
        let texts: [&[u8]; 5] = [
            b"",
            b"some avg10=0.00\n",
            b"some avg10=0.00 avg60=0.00 avg300=0.00 total=\n",
            b"some avg10=0.00 avg60=0.00 avg300=0.00 total=-1\n",
            b"full avg10=\xff avg60=0.00 avg300=0.00 total=1\n",
        ];
        for text in texts {
            assert_eq!((parse(text, false), parse(text, true)), (None, None));
        }
    }
}
