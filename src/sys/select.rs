//! pselect6(2).

use super::{clock, syscall};
use crate::errno::Errno;
use std::ptr;

/// Waits for the descriptors below `count` in the sets (read, write,
/// except), and leaves the ready ones in; `None` waits for ever.
///
/// Each set has a bit for every descriptor below `count`, or more. (An
/// fd_set is words of a long, which has 64 bits here.)
pub(crate) fn select(
    count: i32,
    sets: [&mut [u64]; 3],
    timeout_ns: Option<i64>,
) -> Result<usize, Errno> {
    let mut timeout = timeout_ns.map(clock::to_timespec);
    let timeout = timeout.as_mut().map_or(ptr::null_mut(), ptr::from_mut);
    let [read, write, except] = sets.map(|set| set.as_mut_ptr());
    // SAFETY: the sets are as long as `count` asks for, the timeout is valid
    // or NULL (the kernel may write what is left to it), no signal mask.
    unsafe { syscall!(SYS_pselect6, count, read, write, except, timeout, 0) }
}
