//! Waiting for a word of memory to change: futex(2).

use super::{clock, syscall};
use crate::sync::{AtomicU32, Ordering::*};
use std::ptr;

/// Where one thread waits to be woken. A wake-up that comes before the wait
/// is kept: the wait then returns at once.
pub(crate) struct Parker {
    woken: AtomicU32,
}

impl Parker {
    pub const fn new() -> Self {
        Self { woken: AtomicU32::new(0) }
    }

    /// Waits until it is woken, or for so long (`None`: without a limit). May
    /// return early.
    pub fn park(&self, timeout_ns: Option<i64>) {
        let timeout = timeout_ns.map(|ns| clock::to_timespec(ns.max(0)));
        let timeout = timeout.as_ref().map_or(ptr::null(), ptr::from_ref);
        // Acquire: what was done before the wake-up.
        if self.woken.swap(0, Acquire) != 0 {
            return;
        }
        let (word, operation) = (self.woken.as_ptr(), libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG);
        // SAFETY: the word lives as long as `self`, the time during the call.
        // It returns at once if the word is not 0 any more.
        let _ = unsafe { syscall!(SYS_futex, word, operation, 0, timeout) };
        self.woken.swap(0, Acquire);
    }

    pub fn unpark(&self) {
        // Release: pairs with the Acquire of `park`.
        if self.woken.swap(1, Release) == 0 {
            let (word, operation) =
                (self.woken.as_ptr(), libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
            // SAFETY: the kernel only looks the address up.
            let _ = unsafe { syscall!(SYS_futex, word, operation, 1) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_before_the_wait_is_kept() {
        let parker = Parker::new();
        parker.unpark();
        parker.unpark();
        parker.park(None);
        parker.park(Some(0));
        std::thread::scope(|scope| {
            scope.spawn(|| parker.unpark());
            parker.park(None);
        });
    }
}
