//! Lists that are linked through what is in them: to add to one never needs
//! memory.

use std::ptr;

/// What is delivered once, and may need memory: no signal handler sends it.
pub(super) struct ListNode<P> {
    pub(super) next: *mut ListNode<P>,
    /// The loop it is for, or the watcher it is about.
    to: i64,
    value: P,
}

// SAFETY: the content may go to other threads, and the rest is the list's that
// it is in.
unsafe impl<P: Send> Send for ListNode<P> {}

impl<P> ListNode<P> {
    pub fn new(to: i64, value: P) -> Self {
        Self { next: ptr::null_mut(), to, value }
    }

    pub fn to(&self) -> i64 {
        self.to
    }

    pub fn value_mut(&mut self) -> &mut P {
        &mut self.value
    }

    pub fn value(&self) -> &P {
        &self.value
    }

    pub fn into_value(self) -> P {
        self.value
    }
}

/// A list of nodes, which it owns.
pub(super) struct NodeList<P> {
    first: *mut ListNode<P>,
    last: *mut ListNode<P>,
    len: usize,
}

// SAFETY: it owns its nodes, whose contents may go to other threads. A loop has
// such a list, and goes from thread to thread itself.
unsafe impl<P: Send> Send for NodeList<P> {}

impl<P> Default for NodeList<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> NodeList<P> {
    pub fn new() -> Self {
        Self { first: ptr::null_mut(), last: ptr::null_mut(), len: 0 }
    }

    /// Owns a chain of nodes from now on; only to take them again.
    ///
    /// # Safety
    /// Each was made of a box, and nothing else refers to it.
    pub unsafe fn from_chain(first: *mut ListNode<P>) -> Self {
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
    pub fn put_first(&mut self, mut node: Box<ListNode<P>>) {
        node.next = self.first;
        self.first = Box::into_raw(node);
        if self.last.is_null() {
            self.last = self.first;
        }
        self.len += 1;
    }

    pub fn push(&mut self, node: Box<ListNode<P>>) {
        let mut one = Self::new();
        one.put_first(node);
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
        unsafe { self.first.as_ref() }.map(|node| &node.value)
    }

    pub fn take(&mut self) -> Option<Box<ListNode<P>>> {
        if self.first.is_null() {
            return None;
        }
        // SAFETY: made of a box, and this owns it.
        let node = unsafe { Box::from_raw(self.first) };
        self.first = node.next;
        if self.first.is_null() {
            self.last = ptr::null_mut();
        }
        self.len = self.len.saturating_sub(1);
        Some(node)
    }

    /// The content of the next one.
    #[inline]
    pub fn pop(&mut self) -> Option<P> {
        self.take().map(|node| node.value)
    }
}

impl<P> Drop for NodeList<P> {
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn node(value: u32) -> Box<ListNode<Box<u32>>> {
        Box::new(ListNode::new(0, Box::new(value)))
    }

    #[test]
    fn lists_are_joined_and_dropped_whole() {
        let mut list = NodeList::new();
        list.push(node(1));
        let mut others = NodeList::new();
        others.push(node(2));
        others.push(node(3));
        list.append(&mut others);
        list.append(&mut others);
        assert_eq!((list.len(), others.len(), others.is_empty()), (3, 0, true));
        assert_eq!(list.pop().as_deref(), Some(&1));
        list.push(node(4));
        assert_eq!([(); 3].map(|()| *list.pop().unwrap()), [2, 3, 4]);
        others.push(node(5));
    }
}
