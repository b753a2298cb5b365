//! The allocator of the library's Rust code: malloc(3), and a little memory
//! of its own for panics.
//!
//! A panic is a bug of the library, which ends the call and not the process;
//! but Rust's runtime needs memory for it, and ends the process where there is
//! none. So while a thread panics and malloc has nothing, this has a little.

use crate::sync::{AtomicUsize, Ordering::Relaxed};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::ptr;

struct Heap;

#[global_allocator]
static HEAP: Heap = Heap;

/// Room for some dozens of panics; nothing of it is given back.
const ROOM: usize = 8192;

#[repr(align(16))]
struct TestHeap(UnsafeCell<[u8; ROOM]>);

// SAFETY: only its address is used here; the owner of a part of it uses that
// alone.
unsafe impl Sync for TestHeap {}

static POOL: TestHeap = TestHeap(UnsafeCell::new([0; ROOM]));
/// How much of it was given away.
static USED: AtomicUsize = AtomicUsize::new(0);

/// Memory of the pool; null: this is no panic, or there is no more.
#[cold]
fn take(layout: Layout) -> *mut u8 {
    if !std::thread::panicking() || layout.align() > align_of::<TestHeap>() {
        return ptr::null_mut();
    }
    let size = layout.size().next_multiple_of(align_of::<TestHeap>());
    let grow = |used: usize| used.checked_add(size).filter(|end| *end <= ROOM);
    match USED.fetch_update(Relaxed, Relaxed, grow) {
        Ok(offset) => POOL.0.get().cast::<u8>().wrapping_add(offset),
        Err(_) => ptr::null_mut(),
    }
}

fn is_of_pool(memory: *mut u8) -> bool {
    memory.addr().wrapping_sub(POOL.0.get().addr()) < ROOM
}

// SAFETY: the memory is the system's, or a part of the pool that has no other
// owner; it is large and aligned enough.
unsafe impl GlobalAlloc for Heap {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        #[cfg(test)]
        if failing::is_next() {
            return take(layout);
        }
        // SAFETY: this function's contract is the same.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { take(layout) } else { memory }
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !is_of_pool(memory) {
            // SAFETY: the system's; the rest is this function's contract.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let is_ours = is_of_pool(memory);
        #[cfg(test)]
        let is_ours = is_ours || failing::is_next();
        if !is_ours {
            // SAFETY: the system's; the rest is this function's contract.
            let larger = unsafe { System.realloc(memory, layout, size) };
            if !larger.is_null() {
                return larger;
            }
        }
        // SAFETY: as large as the caller says (this function's contract), and
        // with an alignment that is one.
        let fresh = take(unsafe { Layout::from_size_align_unchecked(size, layout.align()) });
        if !fresh.is_null() {
            // SAFETY: both are at least that long, and not the same.
            unsafe { ptr::copy_nonoverlapping(memory, fresh, layout.size().min(size)) };
            // SAFETY: this function's contract: it is the caller's no more.
            unsafe { self.dealloc(memory, layout) };
        }
        fresh
    }
}

/// For tests: has allocations of a thread fail.
#[cfg(test)]
pub(crate) mod failing {
    use std::cell::Cell;

    thread_local! {
        /// How many succeed yet; `None`: all.
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    pub(super) fn is_next() -> bool {
        LEFT.with(|left| match left.get() {
            Some(0) => true,
            Some(more) => {
                left.set(Some(more - 1));
                false
            }
            None => false,
        })
    }

    /// Runs something in whose course all allocations fail but the first ones.
    pub(crate) fn after<R>(count: usize, act: impl FnOnce() -> R) -> R {
        struct Reset;
        impl Drop for Reset {
            fn drop(&mut self) {
                LEFT.set(None);
            }
        }
        LEFT.set(Some(count));
        let _reset = Reset;
        act()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::alloc::*;
    use std::collections::{HashMap, VecDeque};

    #[test]
    fn collections_report_that_there_is_no_memory() {
        let none = failing::after(0, || {
            let (mut vec, mut deque) = (Vec::new(), VecDeque::new());
            let mut map = HashMap::<_, _>::new();
            [
                try_box(1).is_some(),
                try_copy(b"text").is_some(),
                try_array(3, |i| i).is_some(),
                vec.try_push(1).is_ok(),
                vec.try_extend([1, 2].into_iter()).is_ok(),
                deque.try_push_back(1).is_ok(),
                map.try_put(1, 1).is_ok(),
                map.try_entry(1).is_ok(),
            ]
        });
        assert_eq!(none, [false; 8]);
    }

    #[test]
    fn what_was_reserved_is_used_without_memory() {
        let (mut vec, mut map) = (Vec::new(), HashMap::<_, _>::new());
        assert!(vec.try_reserve(3).is_ok() && map.try_reserve(2).is_ok());
        failing::after(0, || {
            (0..3).for_each(|n| vec.push_reserved(n));
            map.insert_reserved(1, 1);
            map.insert_reserved(2, 2);
        });
        assert_eq!((vec.as_slice(), map.len()), ([0, 1, 2].as_slice(), 2));
    }

    #[test]
    fn shrinking_without_memory_leaves_all_as_it_was() {
        let mut vec: Vec<u32> = (0..1000).collect();
        vec.truncate(3);
        let mut deque: VecDeque<u32> = (0..1000).collect();
        deque.drain(..997);
        let mut map: HashMap<u32, u32> = (0..1000).map(|n| (n, n)).collect();
        map.retain(|n, _| *n < 3);
        failing::after(0, || {
            vec.try_shrink(8);
            deque.try_shrink(8);
            map.try_shrink();
        });
        assert!(
            [vec.capacity(), deque.capacity(), map.capacity()]
                .iter()
                .all(|capacity| *capacity >= 1000)
        );
        vec.try_shrink(8);
        deque.try_shrink(8);
        map.try_shrink();
        assert!(deque.capacity() < 100 && deque.iter().eq(&[997, 998, 999]));
        assert!(vec.capacity() < 100 && map.capacity() < 100);
        assert_eq!((vec, map.len()), (vec![0, 1, 2], 3));
    }

    #[test]
    fn a_panic_without_memory_is_caught() {
        // As in the library, which prints nothing. The other tests' hook is
        // put back; one that fails in between prints nothing.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let caught = failing::after(0, || {
            let numbers = std::hint::black_box([1, 2, 3]);
            std::panic::catch_unwind(|| panic!("all of {numbers:?} with more text")).is_err()
        });
        std::panic::set_hook(hook);
        assert!(caught);
        let seen = USED.load(Relaxed);
        assert!(seen > 0 && seen < ROOM, "{seen}");
    }
}
