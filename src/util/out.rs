//! Room for results that the caller of the C API lends.

use std::ptr;

/// An array of the caller's, filled from the front.
///
/// An address and a length, not a slice: code of the program's may run before
/// the call returns (an interrupt check, a callback), and look at its own
/// array; and C need not have initialised it.
pub(crate) struct Out<T> {
    start: *mut T,
    capacity: usize,
    filled: usize,
}

impl<T: Copy> Out<T> {
    /// # Safety
    /// `capacity` entries at `start` are writable, and readable once they were
    /// written, for as long as this is used.
    pub unsafe fn new(start: *mut T, capacity: usize) -> Self {
        Self { start, capacity, filled: 0 }
    }

    /// No room.
    pub fn none() -> Self {
        Self { start: ptr::null_mut(), capacity: 0, filled: 0 }
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    pub fn filled(&self) -> usize {
        self.filled
    }

    pub fn is_full(&self) -> bool {
        self.filled >= self.capacity
    }

    /// False: it is full.
    pub fn push(&mut self, value: T) -> bool {
        if self.is_full() {
            return false;
        }
        self.filled += 1;
        self.set(self.filled - 1, value);
        true
    }

    /// One of those that were filled.
    pub fn get(&self, index: usize) -> Option<T> {
        if index >= self.filled {
            return None;
        }
        // SAFETY: less than `capacity` entries on.
        let slot = unsafe { self.start.add(index) };
        // SAFETY: writable (contract of `new`), and was written.
        Some(unsafe { slot.read() })
    }

    /// Replaces one of those that were filled.
    pub fn set(&mut self, index: usize, value: T) {
        if index < self.filled {
            // SAFETY: less than `capacity` entries on.
            let slot = unsafe { self.start.add(index) };
            // SAFETY: writable (contract of `new`).
            unsafe { slot.write(value) };
        }
    }

    /// Keeps only the first ones.
    pub fn truncate(&mut self, filled: usize) {
        self.filled = self.filled.min(filled);
    }

    /// Does something with all that were filled, among which is no code of
    /// the program's.
    pub fn with_filled<R>(&mut self, act: impl FnOnce(&mut [T]) -> R) -> R {
        if self.filled == 0 {
            return act(&mut []);
        }
        // SAFETY: that many were written, and are the library's alone while
        // `act` runs.
        act(unsafe { std::slice::from_raw_parts_mut(self.start, self.filled) })
    }
}

impl Out<u8> {
    /// Adds as much of a text as there is room for, and one byte more.
    pub fn push_text(&mut self, text: &[u8]) {
        for byte in text {
            if self.filled + 1 >= self.capacity {
                return;
            }
            self.push(*byte);
        }
    }

    /// Ends a text with a NUL byte, for which there is room if there is any.
    pub fn end_text(&mut self) {
        self.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_filled_from_the_front_and_no_further() {
        let mut array = [0; 3];
        // SAFETY: three entries, which stay.
        let mut out = unsafe { Out::new(array.as_mut_ptr(), 2) };
        assert!(out.push(5) && out.push(6) && !out.push(7));
        assert_eq!((out.get(1), out.get(2), out.filled()), (Some(6), None, 2));
        out.set(0, 8);
        out.truncate(1);
        out.set(1, 9);
        out.with_filled(|filled| assert_eq!(filled, [8]));
        assert_eq!(array, [8, 6, 0]);
    }

    #[test]
    fn a_text_is_cut_and_terminated() {
        for (capacity, expected) in [(0, "####"), (1, "\0###"), (3, "ab\0#"), (4, "abc\0")] {
            let mut array = *b"####";
            // SAFETY: as many bytes as the array has at most.
            let mut out = unsafe { Out::new(array.as_mut_ptr(), capacity) };
            out.push_text(b"ab");
            out.push_text(b"c");
            out.end_text();
            assert_eq!(array, expected.as_bytes());
        }
    }

    /// What Miri finds to be undefined where the array is borrowed as a slice.
    #[test]
    fn the_program_may_look_at_its_array_while_it_is_lent() {
        let mut array = [0; 4];
        let start = array.as_mut_ptr();
        let a_callback = |i: usize| {
            let slot = start.wrapping_add(i);
            // SAFETY: inside the array, which is initialised.
            unsafe { slot.read() }
        };
        // SAFETY: four entries, which stay.
        let mut out = unsafe { Out::new(start, 4) };
        fn fill(out: &mut Out<i32>, mut a_callback: impl FnMut(usize) -> i32) {
            for i in 0..4 {
                out.push(i as i32 + 10);
                assert_eq!(a_callback(i), i as i32 + 10);
            }
        }
        fill(&mut out, a_callback);
        out.with_filled(|filled| filled.reverse());
        assert_eq!(a_callback(0), 13);
    }
}
