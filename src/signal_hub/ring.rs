//! A bounded queue from signal handlers to one reader, without locks.
//!
//! Handlers in any number of threads put values at the same time. A cell's
//! turn says whether it is to be filled, and for which place in the order, or
//! to be emptied.

use crate::sync::{AtomicUsize, Ordering::*, UnsafeCell};
use crate::util::alloc::try_array;
use std::mem::MaybeUninit;

struct RingCell<T> {
    /// The place that it may be filled for; one more: it is filled for that.
    turn: AtomicUsize,
    value: UnsafeCell<MaybeUninit<T>>,
}

pub(super) struct SiginfoRing<T> {
    cells: Box<[RingCell<T>]>,
    /// The next place to be filled, and to be emptied.
    filled: AtomicUsize,
    emptied: AtomicUsize,
}

// SAFETY: a cell is only touched by the thread whose turn it is; values may go
// to other threads.
unsafe impl<T: Copy + Send> Sync for SiginfoRing<T> {}
// SAFETY: as above.
unsafe impl<T: Copy + Send> Send for SiginfoRing<T> {}

impl<T: Copy> SiginfoRing<T> {
    /// With room for so many values, a power of two; `None`: there is no
    /// memory.
    pub fn new(capacity: usize) -> Option<Self> {
        let cells = try_array(capacity, |index| {
            let value = UnsafeCell::new(MaybeUninit::uninit());
            RingCell { turn: AtomicUsize::new(index), value }
        })?;
        let (filled, emptied) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Some(Self { cells, filled, emptied })
    }

    fn cell(&self, index: usize) -> Option<&RingCell<T>> {
        self.cells.get(index & self.cells.len().wrapping_sub(1))
    }

    /// Appends a value, in a handler; false: there is no room.
    #[must_use]
    pub fn put(&self, value: &T) -> bool {
        let mut index = self.filled.load(Relaxed);
        loop {
            let Some(cell) = self.cell(index) else { return false };
            // Acquire: pairs with the Release in `take`; it was read before.
            let turn = cell.turn.load(Acquire);
            if turn == index {
                let next = index.wrapping_add(1);
                match self.filled.compare_exchange_weak(index, next, Relaxed, Relaxed) {
                    Ok(_) => {
                        // SAFETY: it is this handler's turn.
                        cell.value.with_mut(|cell| unsafe { (*cell).write(*value) });
                        // Release: the reader finds all of it.
                        cell.turn.store(next, Release);
                        return true;
                    }
                    Err(now) => index = now,
                }
            } else if (turn.wrapping_sub(index) as isize) < 0 {
                return false;
            } else {
                index = self.filled.load(Relaxed);
            }
        }
    }

    /// Takes the next value; `None`: there is none, or a handler is about to
    /// fill it. Only one thread at a time may take.
    pub fn take(&self) -> Option<T> {
        let index = self.emptied.load(Relaxed);
        let cell = self.cell(index)?;
        let next = index.wrapping_add(1);
        // Acquire: pairs with the Release in `put`.
        if cell.turn.load(Acquire) != next {
            return None;
        }
        // SAFETY: it is the reader's turn.
        let value = cell.value.with(|cell| unsafe { cell.read() });
        // Release: it is read before it is filled again.
        cell.turn.store(index.wrapping_add(self.cells.len()), Release);
        self.emptied.store(next, Relaxed);
        // SAFETY: it was filled, as its turn said.
        Some(unsafe { value.assume_init() })
    }

    /// The place of the value that is taken next.
    pub fn start(&self) -> usize {
        self.emptied.load(Relaxed)
    }

    /// The place of the value that is put next.
    pub fn end(&self) -> usize {
        self.filled.load(Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn it_keeps_the_order_and_its_size() {
        let ring = SiginfoRing::new(4).unwrap();
        for round in 0..10 {
            assert_eq!((ring.start(), ring.end()), (round * 4, round * 4));
            for number in 0..4 {
                assert!(ring.put(&(round * 10 + number)));
            }
            assert!(!ring.put(&99));
            assert_eq!(ring.end() - ring.start(), 4);
            for number in 0..4 {
                assert_eq!(ring.take(), Some(round * 10 + number));
            }
            assert_eq!(ring.take(), None);
        }
    }

    #[test]
    fn what_several_threads_put_is_taken_once_and_in_their_order() {
        const EACH: usize = 20_000;
        let ring = SiginfoRing::new(8).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..3)
                .map(|sender| {
                    let ring = &ring;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            while !ring.put(&(sender * EACH + number)) {
                                std::thread::yield_now();
                            }
                        }
                    })
                })
                .collect();
            let taker = scope.spawn(|| {
                let mut next = [0; 3];
                loop {
                    let last = over.load(Acquire);
                    match ring.take() {
                        Some(taken) => {
                            let sender = taken / EACH;
                            assert_eq!(taken % EACH, next[sender]);
                            next[sender] += 1;
                        }
                        None if last => return next,
                        None => std::thread::yield_now(),
                    }
                }
            });
            senders.into_iter().for_each(|sender| sender.join().unwrap());
            over.store(true, Release);
            assert_eq!(taker.join().unwrap(), [EACH; 3]);
        });
    }
}

/// Handlers that put values into a ring of two, and the reader.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum SiginfoRingVariant {
        Nothing,
        /// The Release ordering of filling a cell.
        ReleaseOfPut,
        /// The Release ordering of emptying it.
        ReleaseOfTake,
    }
    use SiginfoRingVariant::*;

    impl SiginfoRing<u32> {
        fn put_without(&self, value: u32, without: SiginfoRingVariant) -> bool {
            if without != ReleaseOfPut {
                return self.put(&value);
            }
            let index = self.filled.load(Relaxed);
            let cell = self.cell(index).unwrap();
            let next = index + 1;
            let is_free = cell.turn.load(Acquire) == index;
            if !is_free || self.filled.compare_exchange(index, next, Relaxed, Relaxed).is_err() {
                return false;
            }
            // SAFETY: as in `put`.
            cell.value.with_mut(|cell| unsafe { (*cell).write(value) });
            cell.turn.store(next, Relaxed);
            true
        }

        fn take_without(&self, without: SiginfoRingVariant) -> Option<u32> {
            if without != ReleaseOfTake {
                return self.take();
            }
            let index = self.emptied.load(Relaxed);
            let cell = self.cell(index)?;
            if cell.turn.load(Acquire) != index + 1 {
                return None;
            }
            // SAFETY: as in `take`.
            let value = cell.value.with(|cell| unsafe { cell.read() });
            cell.turn.store(index + self.cells.len(), Relaxed);
            self.emptied.store(index + 1, Relaxed);
            // SAFETY: as in `take`.
            Some(unsafe { value.assume_init() })
        }
    }

    /// Each handler puts its values, in order, and counts what finds no room;
    /// the reader takes so many times. It is a thread of its own, and the
    /// first handler the main one, since loom does not look behind a load for
    /// the access that it depends on.
    fn model(handlers: &'static [&'static [u32]], times: usize, without: SiginfoRingVariant) {
        loom::model(move || {
            let ring = Arc::new(SiginfoRing::new(2).unwrap());
            let put = move |ring: &SiginfoRing<u32>, values: &[u32]| {
                values.iter().filter(|value| !ring.put_without(**value, without)).count()
            };
            let reader = {
                let ring = ring.clone();
                let take = move |_| ring.take_without(without);
                thread::spawn(move || (0..times).filter_map(take).collect::<Vec<_>>())
            };
            let others = handlers.iter().skip(1).map(|values| {
                let ring = ring.clone();
                thread::spawn(move || put(&ring, values))
            });
            let others: Vec<_> = others.collect();
            let mut lost = put(&ring, handlers[0]);
            lost += others.into_iter().map(|other| other.join().unwrap()).sum::<usize>();
            let mut taken = reader.join().unwrap();
            taken.extend(std::iter::from_fn(|| ring.take_without(without)));
            let all = handlers.iter().copied().flatten();
            assert_eq!(taken.len() + lost, all.clone().count());
            assert!(all.filter(|value| taken.contains(value)).count() == taken.len());
            for values in handlers {
                let indices =
                    values.iter().filter_map(|value| taken.iter().position(|other| other == value));
                assert!(indices.is_sorted());
            }
        });
    }

    #[test]
    fn loom_values_are_taken_once_and_in_order_or_counted_as_lost() {
        model(&[&[1, 2, 3]], 2, Nothing);
    }

    #[test]
    fn loom_values_of_two_handlers_are_taken_once_or_counted_as_lost() {
        model(&[&[1, 2], &[3]], 1, Nothing);
    }

    #[test]
    #[should_panic]
    fn loom_twin_filling_without_release_fails() {
        model(&[&[1, 2, 3]], 2, ReleaseOfPut);
    }

    #[test]
    #[should_panic]
    fn loom_twin_emptying_without_release_fails() {
        model(&[&[1, 2, 3]], 2, ReleaseOfTake);
    }
}
