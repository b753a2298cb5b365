//! Signals: what is done with them, masks, signalfd(2).

use super::fd::Fd;
use super::{SavedErrno, syscall, thread};
use crate::errno::Errno;
use crate::sync::{AtomicPtr, Ordering};
use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;
use std::ptr;

pub(crate) use libc::sigaction as Action;

/// The numbers of signals are below this.
pub(crate) const END: usize = 65;

/// A set of signals, as the kernel has it.
pub(crate) type Mask = u64;

pub(crate) const ALL: Mask = Mask::MAX;

pub(crate) fn bit(signal: c_int) -> Mask {
    let shift = signal.checked_sub(1).and_then(|shift| u32::try_from(shift).ok());
    shift.and_then(|shift| 1u64.checked_shl(shift)).unwrap_or(0)
}

/// A function as sigaction(2).
pub(crate) type Sigaction = unsafe extern "C" fn(c_int, *const Action, *mut Action) -> c_int;

/// The function to be called in the place of the C library's; null: that.
static NEXT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());

/// Has dispositions asked for, and changed, by another function than the one
/// that this library was linked with.
pub(crate) fn set_next(next: Sigaction) {
    NEXT.store(next as *mut (), Ordering::Relaxed);
}

/// Calls sigaction(2).
///
/// # Safety
/// As that.
// Through the C library, which keeps two signals for itself and knows what
// the kernel wants besides; no cancellation point.
unsafe fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> Result<(), Errno> {
    let next = NEXT.load(Ordering::Relaxed);
    let result = if next.is_null() {
        // SAFETY: this function's contract.
        unsafe { libc::sigaction(signal, new, old) }
    } else {
        // SAFETY: `set_next` stored a function of this type.
        let next = unsafe { std::mem::transmute::<*mut (), Sigaction>(next) };
        // SAFETY: this function's contract.
        unsafe { next(signal, new, old) }
    };
    if result == 0 { Ok(()) } else { Err(Errno::new(SavedErrno::now().value)) }
}

/// What is done with a signal.
pub(crate) fn query(signal: c_int) -> Result<Action, Errno> {
    let mut old = MaybeUninit::<Action>::zeroed();
    // SAFETY: only the old action is asked for, and there is room for it.
    unsafe { sigaction(signal, ptr::null(), old.as_mut_ptr()) }?;
    // SAFETY: any bytes will do, and zeros are some.
    Ok(unsafe { old.assume_init() })
}

/// Sets what is done with a signal; what was before.
pub(crate) fn set(signal: c_int, action: &Action) -> Result<Action, Errno> {
    let mut old = MaybeUninit::<Action>::zeroed();
    // SAFETY: the caller's handler is one, and lives as long as the process.
    unsafe { sigaction(signal, action, old.as_mut_ptr()) }?;
    // SAFETY: any bytes will do, and zeros are some.
    Ok(unsafe { old.assume_init() })
}

/// An action without flags and mask.
pub(crate) fn action(handler: usize, flags: c_int, mask: Mask) -> Action {
    let action = MaybeUninit::<Action>::zeroed();
    // SAFETY: numbers, a set of bits, and a pointer that may be null.
    let mut action = unsafe { action.assume_init() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    let sa_mask = (&raw mut action.sa_mask).cast::<Mask>();
    // SAFETY: the C library's set begins with the kernel's.
    unsafe { sa_mask.write(mask) };
    action
}

pub(crate) fn mask_of(action: &Action) -> Mask {
    let sa_mask = (&raw const action.sa_mask).cast::<Mask>();
    // SAFETY: the C library's set begins with the kernel's.
    unsafe { sa_mask.read() }
}

/// What the calling thread blocks.
pub(crate) fn blocked() -> Mask {
    let mut old: Mask = 0;
    let size = size_of::<Mask>();
    // SAFETY: only the old mask is asked for. No failure is possible.
    let _ = unsafe { syscall!(SYS_rt_sigprocmask, libc::SIG_SETMASK, 0, &raw mut old, size) };
    old
}

/// Sets what the calling thread blocks; what it blocked before.
pub(crate) fn block(mask: Mask) -> Mask {
    let mut old: Mask = 0;
    let (how, size) = (libc::SIG_SETMASK, size_of::<Mask>());
    // SAFETY: both masks are valid. No failure is possible.
    let _ = unsafe { syscall!(SYS_rt_sigprocmask, how, &raw const mask, &raw mut old, size) };
    old
}

/// Has the calling thread block all signals, until it is dropped.
pub(crate) struct Blocked(Mask);

impl Blocked {
    pub fn all() -> Self {
        Self(block(ALL))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        block(self.0);
    }
}

/// Sends a signal to the calling thread.
pub(crate) fn raise(signal: c_int) {
    // SAFETY: no pointers.
    let _ = unsafe { syscall!(SYS_tgkill, thread::process(), thread::id(), signal) };
}

/// Sends a signal to the process, for a thread that does not block it.
pub(crate) fn send_to_process(signal: c_int) {
    // SAFETY: no arguments.
    let process = unsafe { syscall!(SYS_getpid) }.unwrap_or(0);
    // SAFETY: no pointers. It is this process, which may always be sent one.
    let _ = unsafe { syscall!(SYS_kill, process, signal) };
}

/// A descriptor to read blocked signals from.
pub(crate) fn descriptor(mask: Mask) -> Result<Fd, Errno> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the mask is valid, and of the size said.
    let fd = unsafe { syscall!(SYS_signalfd4, -1isize, &raw const mask, size_of::<Mask>(), flags) };
    Fd::made_by("signalfd(2)", fd)
}

/// Changes which signals can be read from it.
pub(crate) fn set_descriptor(fd: RawFd, mask: Mask) -> Result<(), Errno> {
    // SAFETY: the mask is valid, and of the size said.
    unsafe { syscall!(SYS_signalfd4, fd, &raw const mask, size_of::<Mask>(), 0) }.map(drop)
}

/// Takes the next signals that are pending for the calling thread or the
/// process, with what came with them; fewer than there is room for: there are
/// no more.
pub(crate) fn read_infos(
    fd: RawFd,
    buffer: &mut [MaybeUninit<libc::signalfd_siginfo>],
) -> &[libc::signalfd_siginfo] {
    let (start, size) = (buffer.as_mut_ptr(), size_of_val(buffer));
    // SAFETY: as much room as said.
    let read = unsafe { syscall!(SYS_read, fd, start, size) }.unwrap_or(0);
    let count = (read / size_of::<libc::signalfd_siginfo>()).min(buffer.len());
    // SAFETY: the kernel has filled in that many.
    unsafe { std::slice::from_raw_parts(start.cast(), count) }
}
