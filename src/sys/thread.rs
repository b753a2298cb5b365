//! Which thread this is, in one instruction, or as the kernel knows it;
//! whether there are others; and the library's own threads.

use super::{file, int, signal, syscall};
use crate::errno::Errno;
use std::thread::{Builder, JoinHandle};

/// A number that no other living thread of the process has, never 0.
///
/// The thread pointer: the address of the thread's control block. Asking
/// for a `thread_local!` costs a call in a shared library.
#[inline(always)]
pub(crate) fn current() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the ABI has the thread pointer's own address there.
    unsafe {
        std::arch::asm!("mov {}, fs:0", out(reg) pointer, options(nostack, preserves_flags, readonly, pure));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reading this register is allowed to everyone.
    unsafe {
        std::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, preserves_flags, nomem, pure));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        thread_local!(static HERE: u8 = const { 0 });
        pointer = HERE.try_with(|here| std::ptr::from_ref(here).addr()).unwrap_or(usize::MAX);
    }
    pointer
}

/// Whether the process has no other thread; false where nobody can tell.
pub(crate) fn is_the_only_one() -> bool {
    // A directory for each, besides the two links of every directory.
    file::stat_path(c"/proc/self/task").is_ok_and(|stat| stat.st_nlink == 3)
}

/// The kernel's number of the calling thread.
pub(crate) fn id() -> i32 {
    // SAFETY: no arguments.
    int(unsafe { syscall!(SYS_gettid) }.unwrap_or(0))
}

/// The stack of the library's own threads, one of which calls the program's
/// watchdog. Where none is given, std takes the size from RUST_MIN_STACK,
/// which is not to be trusted in a program that is set-user-id.
const STACK: usize = 2 << 20;

/// Starts a thread of the library's own, which blocks all signals.
pub(crate) fn spawn(
    name: &str,
    body: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, Errno> {
    let builder = Builder::new().name(name.into()).stack_size(STACK);
    // A thread begins with the mask of the one that makes it.
    let before = signal::block(signal::ALL);
    let thread = builder.spawn(body);
    signal::block(before);
    thread.map_err(|error| Errno::new(error.raw_os_error().unwrap_or(libc::EAGAIN)))
}
