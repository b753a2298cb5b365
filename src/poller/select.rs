//! select(2) with lists in place of sets, and no FD_SETSIZE.
//!
//! FD_SETSIZE is a limit of the C library's type; the kernel takes sets of
//! any length. poll(2) would not do: it reports hang-ups that nobody asked
//! for, where select goes on waiting.

use crate::errno::{Errno, Result, error, fail};
use crate::sys::clock::Deadline;
use crate::sys::{fd, select as sys};
use crate::waiters::interrupted;
use std::os::fd::RawFd;

/// Waits and cuts the lists (read, write, except) down to what is ready; how
/// many entries are left.
pub(crate) fn select(mut lists: [&mut Vec<RawFd>; 3], timeout_ns: i64) -> Result<usize> {
    let deadline = Deadline::after(timeout_ns);
    let sets = wait(&lists, deadline)?;
    for (list, set) in lists.iter_mut().zip(&sets) {
        list.retain(|fd| set.contains(*fd));
    }
    Ok(lists.iter().map(|list| list.len()).sum())
}

fn wait(lists: &[&mut Vec<RawFd>; 3], deadline: Deadline) -> Result<[FdSet; 3]> {
    let max = highest(lists)?;
    loop {
        let mut sets = [FdSet::new(max)?, FdSet::new(max)?, FdSet::new(max)?];
        for (set, list) in sets.iter_mut().zip(lists) {
            list.iter().for_each(|fd| set.add(*fd));
        }
        let words = sets.each_mut().map(|set| set.words.as_mut_slice());
        match sys::select(max + 1, words, deadline.left_ns()) {
            Ok(0) if !deadline.passed() => {}
            Ok(_) => return Ok(sets),
            Err(Errno::EINTR) => interrupted()?,
            Err(Errno::EBADF) => return Err(closed(lists)),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The highest descriptor, -1 for none. It must be open: the kernel takes no
/// notice of numbers above the highest it has room for.
fn highest(lists: &[&mut Vec<RawFd>; 3]) -> Result<RawFd> {
    let mut max = -1;
    for fd in lists.iter().flat_map(|list| list.iter()) {
        if *fd < 0 {
            fail!(EBADF, "fd {} is negative", *fd);
        }
        max = max.max(*fd);
    }
    if max >= 0 && !fd::is_open(max) {
        fail!(EBADF, "fd {} is not open", max);
    }
    Ok(max)
}

fn closed(lists: &[&mut Vec<RawFd>; 3]) -> crate::errno::Error {
    let mut all = lists.iter().flat_map(|list| list.iter());
    match all.find(|fd| !fd::is_open(**fd)) {
        Some(fd) => error!(Errno::EBADF, "fd {} is not open", *fd),
        None => Errno::EBADF.into(),
    }
}

/// An fd_set as long as it must be.
struct FdSet {
    words: Vec<u64>,
}

fn place(fd: RawFd) -> (usize, u64) {
    let fd = fd.cast_unsigned();
    ((fd / u64::BITS) as usize, 1 << (fd % u64::BITS))
}

impl FdSet {
    /// With room for the descriptors up to `max`.
    fn new(max: RawFd) -> Result<Self> {
        let len = if max < 0 { 0 } else { place(max).0 + 1 };
        let mut words = Vec::new();
        if words.try_reserve_exact(len).is_err() {
            fail!(ENOMEM, "no memory for descriptors up to {}", max);
        }
        words.resize(len, 0);
        Ok(Self { words })
    }

    fn add(&mut self, fd: RawFd) {
        let (word, bit) = place(fd);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }

    fn contains(&self, fd: RawFd) -> bool {
        let (word, bit) = place(fd);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }
}
