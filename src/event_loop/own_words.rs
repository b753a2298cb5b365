//! The words of a loop's own registrations with its epoll; those of watchers
//! are their handles, which are below 2^53.

/// The bit of these words. The rest is a number: 0 is what wakes the loop, the
/// numbers of the clocks come next.
pub(super) const INTERNAL: u64 = 1 << 63;

/// How many clocks timers can have.
pub(super) const CLOCKS: usize = 5;

/// The number of the signalfd.
pub(super) const SIGNALFD: usize = CLOCKS + 1;

/// The number of the inotify.
pub(super) const INOTIFY: usize = 32;

/// Whether a word of the kernel's is one of the loop's own.
#[inline(always)]
pub(super) fn is_internal(word: u64) -> bool {
    word & INTERNAL != 0
}
