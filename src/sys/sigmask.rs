//! The signal mask of a thread.

use super::syscall;

/// The kernel's set of signals, which is smaller than the C library's.
type Set = u64;

/// Puts the thread's mask back when it is dropped.
pub(crate) struct Blocked {
    before: Set,
}

/// Blocks all signals in this thread.
pub(crate) fn block_all() -> Blocked {
    Blocked { before: change(libc::SIG_BLOCK, u64::MAX) }
}

fn change(how: i32, set: Set) -> Set {
    let mut before: Set = 0;
    // SAFETY: two sets of the size that is given; the kernel leaves out what
    // cannot be blocked, and nothing here can fail.
    let _ = unsafe {
        syscall!(SYS_rt_sigprocmask, how, &raw const set, &raw mut before, size_of::<Set>())
    };
    before
}

impl Drop for Blocked {
    fn drop(&mut self) {
        change(libc::SIG_SETMASK, self.before);
    }
}
