//! select(2) with lists in place of sets, and no FD_SETSIZE.
//!
//! FD_SETSIZE is a limit of the C library's type; the kernel takes sets of
//! any length. poll(2) would not do: it reports hang-ups that the caller did
//! not ask for, where select goes on waiting.

use crate::errno::{Errno, Error, Result, error, fail};
use crate::sys::clock::Deadline;
use crate::sys::{fd, select as sys};
use crate::util::alloc::TryVecCopy;
use crate::wait::interrupted;
use std::os::fd::RawFd;

/// Waits and cuts the lists (read, write, except) down to what is ready; how
/// many entries are left.
pub(crate) fn select(mut lists: [&mut Vec<RawFd>; 3], timeout_ns: i64) -> Result<usize> {
    let deadline = Deadline::after(timeout_ns);
    let mut sets = FdSets::new(highest(&lists)?)?;
    wait(&lists, &mut sets, deadline)?;
    for (list, set) in lists.iter_mut().zip(sets.split()) {
        list.retain(|fd| contains(set, *fd));
    }
    Ok(lists.iter().map(|list| list.len()).sum())
}

fn wait(lists: &[&mut Vec<RawFd>; 3], sets: &mut FdSets, deadline: Deadline) -> Result<()> {
    loop {
        sets.add(lists);
        let count = sets.count;
        match sys::select(count, sets.split(), deadline.left_ns()) {
            Ok(0) if !deadline.passed() => {}
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => interrupted()?,
            Err(Errno::EBADF) => return Err(closed(lists)),
            Err(errno) => return Err(errno.into()),
        }
        sets.words.fill(0);
    }
}

/// The highest descriptor, -1 for none.
fn highest(lists: &[&mut Vec<RawFd>; 3]) -> Result<RawFd> {
    // The kernel's table of descriptors never has room for fewer; above what
    // it has room for, select(2) takes no notice of a number.
    const ALWAYS_NOTICED: RawFd = 64;
    let mut max = -1;
    for fd in lists.iter().flat_map(|list| list.iter()) {
        if *fd < 0 {
            fail!(EBADF, "fd {} is negative", *fd);
        }
        max = max.max(*fd);
    }
    if max >= ALWAYS_NOTICED && !fd::is_open(max) {
        fail!(EBADF, "fd {} is not open", max);
    }
    Ok(max)
}

fn closed(lists: &[&mut Vec<RawFd>; 3]) -> Error {
    let mut all = lists.iter().flat_map(|list| list.iter());
    match all.find(|fd| !fd::is_open(**fd)) {
        Some(fd) => error!(Errno::EBADF, "fd {} is not open", *fd),
        None => Errno::EBADF.into(),
    }
}

/// Three fd_sets (read, write, except), as long as they must be.
struct FdSets {
    /// Descriptors below this one have a bit.
    count: RawFd,
    /// One set behind the other.
    words: Vec<u64>,
}

fn locate(fd: RawFd) -> (usize, u64) {
    let fd = fd.cast_unsigned();
    ((fd / u64::BITS) as usize, 1 << (fd % u64::BITS))
}

fn contains(set: &[u64], fd: RawFd) -> bool {
    let (word, bit) = locate(fd);
    set.get(word).is_some_and(|word| word & bit != 0)
}

impl FdSets {
    /// With room for the descriptors up to `max`.
    fn new(max: RawFd) -> Result<Self> {
        let len = if max < 0 { 0 } else { 3 * (locate(max).0 + 1) };
        let mut words = Vec::new();
        if words.try_lengthen(len, 0).is_err() {
            fail!(ENOMEM, "no memory for descriptors up to {}", max);
        }
        // An open descriptor is not the largest number of its type.
        Ok(Self { count: max.saturating_add(1), words })
    }

    fn split(&mut self) -> [&mut [u64]; 3] {
        let len = self.words.len() / 3;
        let (read, rest) = self.words.split_at_mut(len);
        let (write, except) = rest.split_at_mut(len);
        [read, write, except]
    }

    /// To sets that are empty.
    fn add(&mut self, lists: &[&mut Vec<RawFd>; 3]) {
        for (set, list) in self.split().into_iter().zip(lists) {
            for (word, bit) in list.iter().map(|fd| locate(*fd)) {
                if let Some(word) = set.get_mut(word) {
                    *word |= bit;
                }
            }
        }
    }
}
