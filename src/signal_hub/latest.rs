//! The last of several values, from signal handlers to one reader.
//!
//! Handlers in any number of threads put values at the same time, and may
//! interrupt the reader, so that nothing waits. Each value has a cell of its
//! own while it is written or read: a handler never needs the reader's.

use crate::sync::{AtomicU32, Ordering::*, UnsafeCell};
use std::mem::MaybeUninit;

/// One is the last value's, one the reader's, the others handlers'.
const CELLS: u32 = if cfg!(loom) { 3 } else { 8 };
/// No cell.
const NONE: u32 = u32::MAX;

pub(super) struct Latest<T> {
    cells: [UnsafeCell<MaybeUninit<T>>; CELLS as usize],
    /// The cells that are in no use, as bits.
    free: AtomicU32,
    /// The cell of the last value.
    last: AtomicU32,
}

// SAFETY: a cell is touched by the thread that took it; values may go to
// other threads.
unsafe impl<T: Copy + Send> Sync for Latest<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Send> Send for Latest<T> {}

impl<T: Copy> Latest<T> {
    pub fn new() -> Self {
        Self {
            cells: std::array::from_fn(|_| UnsafeCell::new(MaybeUninit::uninit())),
            free: AtomicU32::new((1 << CELLS) - 1),
            last: AtomicU32::new(NONE),
        }
    }

    fn cell(&self, cell: u32) -> Option<&UnsafeCell<MaybeUninit<T>>> {
        self.cells.get(cell as usize)
    }

    /// Takes a free cell; `None`: so many handlers are here at this moment.
    fn take_cell(&self) -> Option<u32> {
        let mut free = self.free.load(Relaxed);
        while free != 0 {
            let cell = free.trailing_zeros();
            // Acquire: pairs with `give_back`; the cell was read before.
            match self.free.compare_exchange_weak(free, free & (free - 1), Acquire, Relaxed) {
                Ok(_) => return Some(cell),
                Err(now) => free = now,
            }
        }
        None
    }

    fn give_back(&self, cell: u32) {
        if cell != NONE {
            // Release: what was read from it was read before.
            self.free.fetch_or(1 << cell, Release);
        }
    }

    /// Makes this the last value, in a handler. A value is only dropped where
    /// those of other handlers come at the same moment, so that one of them
    /// is the last.
    pub fn put(&self, value: &T) {
        let Some(taken) = self.take_cell() else { return };
        let Some(cell) = self.cell(taken) else { return };
        // SAFETY: this handler took the cell.
        cell.with_mut(|cell| unsafe { (*cell).write(*value) });
        // Release: the reader that takes the cell finds the whole value.
        // Acquire: the value that this one replaces was written before its
        // cell is used again.
        self.give_back(self.last.swap(taken, AcqRel));
    }

    /// Takes the last value, if one was put since the last time.
    pub fn take(&self) -> Option<T> {
        // Acquire: pairs with the Release in `put`.
        let taken = self.last.swap(NONE, AcqRel);
        let cell = self.cell(taken)?;
        // SAFETY: the reader took the cell.
        let value = cell.with(|cell| unsafe { cell.read() });
        self.give_back(taken);
        // SAFETY: only cells with a value are the last.
        Some(unsafe { value.assume_init() })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn the_last_value_is_taken_once() {
        let latest = Latest::new();
        assert_eq!(latest.take(), None);
        for round in 0..20 {
            for number in 0..round {
                latest.put(&number);
            }
            assert_eq!(latest.take(), (round > 0).then(|| round - 1));
            assert_eq!(latest.take(), None);
        }
    }

    #[test]
    fn the_newest_value_replaces_all_others_while_the_reader_holds_a_cell() {
        let latest = Latest::new();
        latest.put(&0);
        // As a reader that a handler interrupts.
        let taken = latest.last.swap(NONE, AcqRel);
        (1..100).for_each(|number| latest.put(&number));
        latest.give_back(taken);
        assert_eq!(latest.take(), Some(99));
    }

    #[test]
    fn values_of_several_threads_are_whole_and_in_each_threads_order() {
        const EACH: u64 = 50_000;
        let (latest, over) = (Latest::new(), AtomicBool::new(false));
        let mut seen = [0; 3];
        let mut check = |[thread, number, sum]: [u64; 3]| {
            assert_eq!(thread + number, sum);
            assert!(number > seen[thread as usize]);
            seen[thread as usize] = number;
        };
        std::thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|thread| {
                    let latest = &latest;
                    scope.spawn(move || {
                        (1..=EACH).for_each(|number| {
                            latest.put(&[thread, number, thread + number]);
                        });
                    })
                })
                .collect();
            let over = &over;
            scope.spawn(move || {
                writers.into_iter().for_each(|writer| writer.join().unwrap());
                over.store(true, Release);
            });
            while !over.load(Acquire) {
                latest.take().into_iter().for_each(&mut check);
            }
        });
        latest.take().into_iter().for_each(&mut check);
        assert!(seen.contains(&EACH));
    }
}

/// Handlers that put values, and a reader.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum LatestVariant {
        Nothing,
        /// The Release ordering of publishing a value.
        Ordering,
        /// Keeping the cell until it was read.
        Keeping,
        /// A cell of the reader's own: as a bounded queue has it, the newest
        /// value is dropped while the reader takes one from a full queue.
        Cell,
    }
    use LatestVariant::*;

    impl Latest<u32> {
        fn put_without(&self, value: u32, without: LatestVariant) {
            if without != Ordering {
                return self.put(&value);
            }
            let Some(taken) = self.take_cell() else { return };
            let cell = self.cell(taken).unwrap();
            // SAFETY: as in `put`.
            cell.with_mut(|cell| unsafe { (*cell).write(value) });
            self.give_back(self.last.swap(taken, Acquire));
        }

        fn take_without(&self, without: LatestVariant) -> Option<u32> {
            if without != Keeping {
                return self.take();
            }
            let taken = self.last.swap(NONE, AcqRel);
            let cell = self.cell(taken)?;
            self.give_back(taken);
            // SAFETY: none, which is the point.
            let value = cell.with(|cell| unsafe { cell.read() });
            // SAFETY: as in `take`.
            Some(unsafe { value.assume_init() })
        }
    }

    /// One handler puts 1, then 2, another one 3; the reader takes at any
    /// time, and once more at the end.
    fn model(without: LatestVariant) {
        loom::model(move || {
            let latest = Arc::new(Latest::new());
            if without == Cell {
                let _ = latest.take_cell();
                let _ = latest.take_cell();
            }
            let put = |values: &'static [u32]| {
                let latest = latest.clone();
                thread::spawn(move || {
                    values.iter().for_each(|value| latest.put_without(*value, without));
                })
            };
            let handler = put(&[1, 2]);
            let early = latest.take_without(without);
            handler.join().unwrap();
            let last = latest.take_without(without);
            assert!(early == Some(2) && last.is_none() || last == Some(2));
        });
    }

    /// Two handlers at once.
    fn two_handlers(without: LatestVariant) {
        loom::model(move || {
            let latest = Arc::new(Latest::new());
            let put = |value| {
                let latest = latest.clone();
                thread::spawn(move || latest.put_without(value, without))
            };
            let handlers = [put(1), put(2)];
            let early = latest.take_without(without);
            handlers.into_iter().for_each(|handler| handler.join().unwrap());
            let late = latest.take_without(without);
            assert!(early.is_some() || late.is_some());
            assert!(early != late);
        });
    }

    #[test]
    fn loom_the_newest_value_is_never_dropped() {
        model(Nothing);
    }

    #[test]
    fn loom_one_of_two_concurrent_values_is_the_last() {
        two_handlers(Nothing);
    }

    #[test]
    #[should_panic]
    fn loom_twin_putting_without_release_fails() {
        model(Ordering);
    }

    #[test]
    #[should_panic]
    fn loom_twin_giving_the_cell_back_before_reading_fails() {
        model(Keeping);
    }

    #[test]
    #[should_panic]
    fn loom_twin_without_a_cell_for_the_reader_fails() {
        model(Cell);
    }
}
