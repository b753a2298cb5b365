//! futex(2): a thread sleeps until a word changes.
//!
//! A signal handler may wake such threads: this is a system call and nothing
//! else.

use super::syscall;

/// Sleeps while the word has this value; until it is woken, or earlier.
pub(crate) fn wait(word: *const u32, expected: u32) {
    // SAFETY: the kernel reads the word, and answers EFAULT where it cannot;
    // no timeout.
    let _ = unsafe { syscall!(SYS_futex, word, WAIT, expected, 0) };
}

/// Wakes all threads that sleep because of the word.
pub(crate) fn wake_all(word: *const u32) {
    // SAFETY: only the address counts, and nothing is read there: the word
    // may be gone already.
    let _ = unsafe { syscall!(SYS_futex, word, WAKE, i32::MAX) };
}

const WAIT: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
const WAKE: i32 = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
