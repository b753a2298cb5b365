//! Blocked signals, which are taken from signalfds.
//!
//! The kernel gives each pending signal to one reader. So whichever thread
//! reads it notifies all subscribers, those of other loops and queues, too.

use super::hub;
use crate::sync::ForkMutex;
use crate::sys::signal;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// How many are read at once.
const AT_ONCE: usize = 8;

/// Held by the thread that reads a signalfd: what another thread reads later
/// is not notified earlier. The lock of the hub would not do, as no signals
/// are blocked here.
static READING: ForkMutex<()> = ForkMutex::new(());

/// Takes signals that are pending, and of the signalfd; at most so many, or a
/// few more. `awake`: see `Subscriber::notify`.
pub(crate) fn take_pending(signalfd: RawFd, most: usize, awake: i64) {
    let mut buffer = [MaybeUninit::uninit(); AT_ONCE];
    for _ in 0..most.div_ceil(AT_ONCE) {
        let _reading = READING.lock();
        let infos = signal::read_infos(signalfd, &mut buffer);
        for info in infos {
            // SAFETY: with the lock; see `wait`.
            unsafe { hub::notify(&info.into(), awake) };
        }
        if infos.len() < AT_ONCE {
            break;
        }
    }
}

/// Returns when no thread looks any more at a subscriber that was removed
/// before. The caller does not have the lock of the hub: a thread here may be
/// interrupted by a handler that waits for that.
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
