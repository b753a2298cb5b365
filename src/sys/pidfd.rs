//! Processes: pidfds, and how a process ended.

use super::fd::Fd;
use super::{poll, syscall};
use crate::errno::Errno;
use std::ffi::c_int;
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// A descriptor of a process, readable from when it ends.
pub(crate) fn open(pid: i32) -> Result<Fd, Errno> {
    // SAFETY: no pointers.
    let fd = unsafe { syscall!(SYS_pidfd_open, pid, 0) };
    Fd::made_by("pidfd_open(2)", fd)
}

pub(crate) fn has_ended(pidfd: RawFd) -> bool {
    let mut fds = [poll::entry(pidfd, libc::POLLIN as u32)];
    poll::look(&mut fds).is_ok_and(|ready| ready > 0)
}

/// Whether a process still runs, or has ended and was not waited for.
fn is_there(pidfd: RawFd) -> bool {
    // SAFETY: signal 0 is only an attempt; no information to go with it.
    let result = unsafe { syscall!(SYS_pidfd_send_signal, pidfd, 0, 0, 0) };
    matches!(result, Ok(_) | Err(Errno::EPERM))
}

/// How a process ended, as waitpid(2) would say it; `None`: that cannot be
/// known, or not yet. It stays to be waited for.
pub(crate) fn status(pidfd: RawFd, pid: i32) -> Option<c_int> {
    of_child(pidfd).or_else(|| of_reaped(pidfd)).or_else(|| of_zombie(pidfd, pid))
}

fn of_child(pidfd: RawFd) -> Option<c_int> {
    wait(pidfd, libc::WNOWAIT).ok().flatten().map(|(status, _)| status)
}

/// What a process has used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Usage {
    pub user_ns: i64,
    pub system_ns: i64,
    /// In bytes.
    pub max_rss: i64,
}

/// Waits for a child that has ended, or only looks at it (WNOWAIT); `None`:
/// it has not. ECHILD: it is no child, or was waited for.
pub(crate) fn wait(pidfd: RawFd, flags: c_int) -> Result<Option<(c_int, Usage)>, Errno> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL | flags;
    let (start, used) = (info.as_mut_ptr(), usage.as_mut_ptr());
    // SAFETY: room for the information and the usage.
    unsafe { syscall!(SYS_waitid, libc::P_PIDFD, pidfd, start, options, used) }?;
    // SAFETY: all zero, or filled in.
    let info = unsafe { info.assume_init() };
    // SAFETY: as above.
    let usage = unsafe { usage.assume_init() };
    // SAFETY: that of a SIGCHLD, or zero.
    let status = unsafe { info.si_status() };
    let status = match info.si_code {
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_KILLED => status,
        libc::CLD_DUMPED => status | 0x80,
        _ => return Ok(None),
    };
    let ns = |time: libc::timeval| {
        time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_usec * 1000)
    };
    let usage = Usage {
        user_ns: ns(usage.ru_utime),
        system_ns: ns(usage.ru_stime),
        max_rss: usage.ru_maxrss.saturating_mul(1024),
    };
    Ok(Some((status, usage)))
}

/// Whether an fd still is the pidfd of this process, which may have ended.
/// An error only where something is short.
pub(crate) fn is_of(fd: RawFd, pid: i32) -> Result<bool, Errno> {
    let mut buffer = [0; 512];
    let lines = match super::file::info(fd, &mut buffer) {
        Ok(lines) => lines,
        Err(errno) if errno.is_shortage() => return Err(errno),
        Err(_) => return Ok(false),
    };
    let found = super::file::field(lines, "Pid:").and_then(|found| found.parse::<i32>().ok());
    // The kernel does not report the id of a process that was waited for.
    Ok(found.is_some_and(|found| found == pid || found == -1))
}

/// The beginning of the kernel's structure.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    others: [u64; 1],
    ids: [u32; 11],
    exit_code: i32,
}

/// Of one that was waited for, by whomever; since Linux 6.15.
fn of_reaped(pidfd: RawFd) -> Option<c_int> {
    const PIDFD_GET_INFO: u32 = 0xc040_ff0b;
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: a structure of the size that is part of the request.
    unsafe { syscall!(SYS_ioctl, pidfd, PIDFD_GET_INFO, &raw mut info) }.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// How a process ended that was not waited for, if this process may look at it.
fn of_zombie(pidfd: RawFd, pid: i32) -> Option<c_int> {
    let mut path = [0u8; 32];
    // Room for every number, and for the NUL byte behind it.
    let _ = write!(path.as_mut_slice(), "/proc/{pid}/stat");
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path is NUL-terminated.
    let file = unsafe { syscall!(SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) }.ok()?;
    let file = Fd::brief(file).ok()?;
    let mut buffer = [0u8; 1024];
    // SAFETY: as many writable bytes as said.
    let len = unsafe { syscall!(SYS_read, file.raw(), buffer.as_mut_ptr(), buffer.len()) }.ok()?;
    let code = exit_code(buffer.get(..len)?)?;
    // The kernel shows 0 to a process that may not look. While the process is
    // there, no other process has its id.
    let known = code != 0 || may_look(pid);
    (known && is_there(pidfd)).then_some(code)
}

/// The last number of proc_pid_stat(5), of a process that has ended.
fn exit_code(line: &[u8]) -> Option<c_int> {
    const FROM_STATE: usize = 49;
    let after_name = line.rsplit(|byte| *byte == b')').next()?;
    let mut fields = str::from_utf8(after_name).ok()?.split_ascii_whitespace();
    let state = fields.next()?;
    let code = fields.nth(FROM_STATE - 1)?;
    matches!(state, "Z" | "X").then(|| code.parse().ok()).flatten()
}

/// Whether the kernel lets this process look at the state of another.
fn may_look(pid: i32) -> bool {
    const KCMP_VM: i32 = 1;
    // SAFETY: no arguments.
    let me = unsafe { syscall!(SYS_getpid) }.unwrap_or(0);
    // SAFETY: no pointers.
    unsafe { syscall!(SYS_kcmp, me, pid, KCMP_VM, 0, 0) }.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_of_a_zombie_is_the_last_number() {
        let line = b"10552 (a ) b) Z 10551 10538 2621 0 -1 4227148 16 0 0 0 0 0 0 0 20 0 1 0 \
            3109379 0 0 18446744073709551615 0 0 0 0 0 0 0 0 0 1 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 \
            0 1792\n";
        assert_eq!(exit_code(line), Some(1792));
        assert_eq!(exit_code(b"1 (a) R 0 0"), None);
    }

    #[test]
    fn a_status_that_is_not_there_yet_is_not_known() {
        let me = i32::try_from(std::process::id()).unwrap();
        let pidfd = open(me).unwrap();
        assert_eq!(status(pidfd.raw(), me), None);
    }
}
