//! A short sorted list of descriptors that can run out of memory politely.

use crate::errno::{Result, fail};
use crate::util::alloc::TryVec;
use std::os::fd::RawFd;

pub(super) struct FdList(Vec<RawFd>);

impl FdList {
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, fd: RawFd) -> bool {
        self.0.binary_search(&fd).is_ok()
    }

    /// Adds it, if it is not there.
    pub fn insert(&mut self, fd: RawFd) -> Result<()> {
        if let Err(index) = self.0.binary_search(&fd)
            && self.0.try_insert(index, fd).is_err()
        {
            fail!(ENOMEM, "no memory to register fd {}", fd);
        }
        Ok(())
    }

    /// Whether it was there.
    pub fn remove(&mut self, fd: RawFd) -> bool {
        let index = self.0.binary_search(&fd);
        index.map(|index| self.0.remove(index)).is_ok()
    }

    /// The one after `fd`, in a circle.
    pub fn after(&self, fd: RawFd) -> Option<RawFd> {
        let index = self.0.partition_point(|other| *other <= fd);
        self.0.get(index).or(self.0.first()).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_goes_round() {
        let mut list = FdList::new();
        assert_eq!(list.after(3), None);
        for fd in [5, 2, 9, 5] {
            list.insert(fd).unwrap();
        }
        assert_eq!(list.len(), 3);
        assert_eq!([-1, 2, 5, 9].map(|fd| list.after(fd)), [Some(2), Some(5), Some(9), Some(2)]);
        assert!(list.contains(9) && list.remove(9) && !list.remove(9) && !list.is_empty());
    }
}
