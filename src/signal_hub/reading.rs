//! The lock of the thread that reads a signalfd.

use crate::sync::{ForkMutex, MutexGuard};

/// Held by the thread that reads a signalfd: what another thread reads later
/// is not notified earlier. The lock of the hub would not do, as no signals
/// are blocked here.
static READING: ForkMutex<()> = ForkMutex::new(());

/// Until it is dropped no other thread reads a signalfd, and [`wait`] waits.
pub(super) fn lock() -> MutexGuard<'static, ()> {
    READING.lock()
}

/// Returns when no thread looks any more at a subscriber that was removed
/// before. The caller does not have the lock of the hub: a thread that reads
/// may be interrupted by a handler that waits for that.
pub(super) fn wait() {
    drop(READING.lock());
}

/// For the first call of a forked child.
///
/// # Safety
/// As [`ForkMutex::remake`].
pub(super) unsafe fn after_fork() {
    // SAFETY: this function's contract.
    unsafe { READING.remake(()) };
}
