//! Lists that are linked through what is in them: to add to one never needs
//! memory.

use std::ptr;

/// What is delivered once, and may need memory: no signal handler sends it.
pub(super) struct Letter<P> {
    pub(super) next: *mut Letter<P>,
    /// The loop it is for, or the watcher it is about.
    to: i64,
    content: P,
}

// SAFETY: the content may go to other threads, and the rest is the list's that
// it is in.
unsafe impl<P: Send> Send for Letter<P> {}

impl<P> Letter<P> {
    pub fn new(to: i64, content: P) -> Self {
        Self { next: ptr::null_mut(), to, content }
    }

    pub fn to(&self) -> i64 {
        self.to
    }

    pub fn content_mut(&mut self) -> &mut P {
        &mut self.content
    }

    pub fn content(&self) -> &P {
        &self.content
    }

    pub fn into_content(self) -> P {
        self.content
    }
}

/// Letters that were taken, or wrote themselves; their owner's.
pub(super) struct Letters<P> {
    first: *mut Letter<P>,
    last: *mut Letter<P>,
    len: usize,
}

// SAFETY: it owns its letters, whose contents may go to other threads. A loop
// has such a list, and goes from thread to thread itself.
unsafe impl<P: Send> Send for Letters<P> {}

impl<P> Letters<P> {
    pub fn new() -> Self {
        Self { first: ptr::null_mut(), last: ptr::null_mut(), len: 0 }
    }

    /// Owns a chain of letters from now on; only to take them again.
    ///
    /// # Safety
    /// Each was made of a box, and nothing else refers to it.
    pub unsafe fn from_chain(first: *mut Letter<P>) -> Self {
        Self { first, last: ptr::null_mut(), len: 0 }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.first.is_null()
    }

    /// Puts one in front of the others.
    pub fn put_first(&mut self, mut letter: Box<Letter<P>>) {
        letter.next = self.first;
        self.first = Box::into_raw(letter);
        if self.last.is_null() {
            self.last = self.first;
        }
        self.len += 1;
    }

    pub fn push(&mut self, letter: Box<Letter<P>>) {
        let mut one = Self::new();
        one.put_first(letter);
        self.append(&mut one);
    }

    /// Moves all of another list behind these.
    pub fn append(&mut self, others: &mut Self) {
        if others.first.is_null() {
            return;
        }
        if self.last.is_null() {
            self.first = others.first;
        } else {
            // SAFETY: the last of the list, which this owns.
            unsafe { (*self.last).next = others.first };
        }
        self.last = others.last;
        self.len += others.len;
        (others.first, others.last, others.len) = (ptr::null_mut(), ptr::null_mut(), 0);
    }

    /// The content of the next one, which stays.
    pub fn first(&self) -> Option<&P> {
        // SAFETY: null, or the first of the list, which this owns.
        unsafe { self.first.as_ref() }.map(|letter| &letter.content)
    }

    pub fn take(&mut self) -> Option<Box<Letter<P>>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: made of a box, and this owns it.
        let letter = unsafe { Box::from_raw(self.first) };
        self.first = letter.next;
        if self.first.is_null() {
            self.last = ptr::null_mut();
        }
        self.len = self.len.saturating_sub(1);
        Some(letter)
    }

    /// The content of the next one.
    #[inline]
    pub fn pop(&mut self) -> Option<P> {
        self.take().map(|letter| letter.content)
    }
}

impl<P> Drop for Letters<P> {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn letter(content: u32) -> Box<Letter<Box<u32>>> {
        Box::new(Letter::new(0, Box::new(content)))
    }

    #[test]
    fn lists_of_letters_are_joined_and_dropped_whole() {
        let mut list = Letters::new();
        list.push(letter(1));
        let mut others = Letters::new();
        others.push(letter(2));
        others.push(letter(3));
        list.append(&mut others);
        list.append(&mut others);
        assert_eq!((list.len(), others.len(), others.is_empty()), (3, 0, true));
        assert_eq!(list.pop().as_deref(), Some(&1));
        list.push(letter(4));
        assert_eq!([(); 3].map(|()| *list.pop().unwrap()), [2, 3, 4]);
        others.push(letter(5));
    }
}
