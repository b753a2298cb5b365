//! Blocked signals, which are taken from signalfds.
//!
//! The kernel gives each pending signal to one reader. So whichever thread
//! reads it notifies all subscribers, those of other loops and queues, too.

use super::{hub, reading};
use crate::sys::signal;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

/// How many are read at once.
const AT_ONCE: usize = 8;

/// Takes signals that are pending, and of the signalfd; at most so many, or a
/// few more. `awake`: see `Subscriber::notify`.
pub(crate) fn take_pending(signalfd: RawFd, most: usize, awake: i64) {
    let mut buffer = [MaybeUninit::uninit(); AT_ONCE];
    for _ in 0..most.div_ceil(AT_ONCE) {
        let _reading = reading::lock();
        let infos = signal::read_infos(signalfd, &mut buffer);
        for info in infos {
            // SAFETY: with the lock; see `reading::wait`.
            unsafe { hub::notify(&info.into(), awake) };
        }
        if infos.len() < AT_ONCE {
            break;
        }
    }
}
