//! Which thread this is, in one instruction, or as the kernel knows it; and
//! whether there are others.

use super::{file, int, syscall};

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

/// The kernel's number of the process.
pub(crate) fn process() -> i32 {
    // SAFETY: no arguments.
    int(unsafe { syscall!(SYS_getpid) }.unwrap_or(0))
}
