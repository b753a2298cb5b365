//! What came with a signal, in the one form that programs get.

use libc::siginfo_t as Info;
use std::ffi::c_int;

/// What arrived with a signal. signo and code determine which fields have a
/// meaning, as sigaction(2) says of siginfo_t; the others are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Siginfo {
    /// The signal's number.
    pub signo: c_int,
    /// Where it comes from: SI_USER (0) for kill(2), SI_QUEUE (-1) for
    /// sigqueue(3), CLD_EXITED and others; 0x80 for the kernel itself.
    pub code: c_int,
    /// si_errno, which is hardly ever set.
    pub error: c_int,
    /// Kill, sigqueue, SIGCHLD: the sender, or the child.
    pub pid: c_int,
    /// The real user id of that.
    pub uid: u32,
    /// SIGCHLD: the exit status or the signal.
    pub status: c_int,
    /// Sigqueue, timers: si_value, as an int.
    pub value_int: c_int,
    /// POSIX timers: how many expirations were missed.
    pub overrun: c_int,
    /// Sigqueue, timers: si_value, as a pointer.
    pub value_ptr: u64,
    /// SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP: the address.
    pub addr: u64,
    /// SIGIO: si_band.
    pub band: i64,
    /// SIGCHLD: the child's processor time in clock ticks, its own.
    pub utime: i64,
    /// SIGCHLD: the same, the system's.
    pub stime: i64,
    /// SIGIO: the descriptor; else 0, also where there is none.
    pub fd: c_int,
    /// POSIX timers: the kernel's number of the timer.
    pub timerid: c_int,
    /// SIGSYS: the number of the system call.
    pub syscall: c_int,
    /// SIGSYS: AUDIT_ARCH of the call.
    pub arch: u32,
    /// 0; room for later versions.
    pub spare: [u64; 5],
}

const _: () = assert!(size_of::<Siginfo>() == 128);

/// What the kernel fills in.
enum Layout {
    Kill,
    Timer,
    Queue,
    Child,
    Fault,
    Poll,
    System,
}

/// As the kernel decides it.
fn layout(signo: c_int, code: c_int) -> Layout {
    /// Codes of the kernel's own are between SI_USER and this.
    const SI_KERNEL: c_int = 0x80;
    const MOST_OF_POLL: c_int = 6;
    match (signo, code) {
        (_, libc::SI_TIMER) => Layout::Timer,
        (_, libc::SI_SIGIO) => Layout::Poll,
        (_, libc::SI_TKILL) => Layout::Kill,
        (_, ..0) => Layout::Queue,
        (_, 0 | SI_KERNEL..) => Layout::Kill,
        (libc::SIGCHLD, _) => Layout::Child,
        (libc::SIGSYS, _) => Layout::System,
        (libc::SIGILL | libc::SIGFPE | libc::SIGSEGV | libc::SIGBUS | libc::SIGTRAP, _) => {
            Layout::Fault
        }
        // Of whatever signal F_SETSIG chose.
        (_, ..=MOST_OF_POLL) => Layout::Poll,
        _ => Layout::Kill,
    }
}

/// A siginfo_t as numbers; what depends on the signal begins here.
const UNION: usize = 4;
const WORDS: usize = size_of::<Info>() / size_of::<u32>();

impl From<&Info> for Siginfo {
    fn from(info: &Info) -> Self {
        // SAFETY: it consists of ints, without gaps.
        let words = unsafe { std::mem::transmute::<Info, [u32; WORDS]>(*info) };
        let int = |index: usize| words.get(UNION + index).copied().unwrap_or(0);
        let signed = |index: usize| int(index).cast_signed();
        let long = |index: usize| {
            let [a, b, c, d] = int(index).to_ne_bytes();
            let [e, f, g, h] = int(index + 1).to_ne_bytes();
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        };
        let base = Self {
            signo: info.si_signo,
            code: info.si_code,
            error: info.si_errno,
            ..Self::default()
        };
        let sender = Self { pid: signed(0), uid: int(1), ..base };
        match layout(info.si_signo, info.si_code) {
            Layout::Kill => sender,
            Layout::Queue => Self { value_int: signed(2), value_ptr: long(2), ..sender },
            Layout::Timer => Self {
                timerid: signed(0),
                overrun: signed(1),
                value_int: signed(2),
                value_ptr: long(2),
                ..base
            },
            Layout::Child => Self {
                status: signed(2),
                utime: long(4).cast_signed(),
                stime: long(6).cast_signed(),
                ..sender
            },
            Layout::Fault => Self { addr: long(0), ..base },
            Layout::Poll => Self { band: long(0).cast_signed(), fd: signed(2), ..base },
            Layout::System => Self { addr: long(0), syscall: signed(2), arch: int(3), ..base },
        }
    }
}

impl From<&libc::signalfd_siginfo> for Siginfo {
    fn from(info: &libc::signalfd_siginfo) -> Self {
        Self {
            signo: info.ssi_signo.cast_signed(),
            code: info.ssi_code,
            error: info.ssi_errno,
            pid: info.ssi_pid.cast_signed(),
            uid: info.ssi_uid,
            status: info.ssi_status,
            value_int: info.ssi_int,
            overrun: info.ssi_overrun.cast_signed(),
            value_ptr: info.ssi_ptr,
            addr: if info.ssi_call_addr != 0 { info.ssi_call_addr } else { info.ssi_addr },
            band: i64::from(info.ssi_band),
            utime: info.ssi_utime.cast_signed(),
            stime: info.ssi_stime.cast_signed(),
            fd: info.ssi_fd,
            timerid: info.ssi_tid.cast_signed(),
            syscall: info.ssi_syscall,
            arch: info.ssi_arch,
            ..Self::default()
        }
    }
}
