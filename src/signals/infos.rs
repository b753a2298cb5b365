//! What came with signals, from the handlers to one who subscribed.
//!
//! A queue of a fixed size without locks: handlers in any number of threads
//! put into it at the same time. Each cell says whose turn it is: a handler's
//! to fill it for a place in the order, or to be emptied.

use crate::errno::{Result, fail};
use crate::sync::{AtomicUsize, Ordering::*, UnsafeCell};
use crate::table::try_box;
use crate::util::alloc::try_array;
use std::mem::MaybeUninit;

pub(super) type Info = libc::siginfo_t;

struct Cell {
    /// The place that it may be filled for; one more: it is filled for that.
    turn: AtomicUsize,
    info: UnsafeCell<MaybeUninit<Info>>,
}

pub(super) struct Infos {
    cells: Box<[Cell]>,
    /// The next place to be filled, and to be emptied.
    filled: AtomicUsize,
    emptied: AtomicUsize,
}

// SAFETY: a cell is only touched by who has its turn; numbers may go
// anywhere.
unsafe impl Sync for Infos {}

impl Infos {
    /// With room for so many, a power of two.
    pub fn new(room: usize) -> Result<Box<Self>> {
        let cells = try_array(room, |place| {
            let info = UnsafeCell::new(MaybeUninit::uninit());
            Cell { turn: AtomicUsize::new(place), info }
        });
        let Some(cells) = cells else {
            fail!(ENOMEM, "no memory for {} signals", room as i64);
        };
        let (filled, emptied) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let infos = Self { cells, filled, emptied };
        match try_box(infos) {
            Some(infos) => Ok(infos),
            None => fail!(ENOMEM, "no memory for {} signals", room as i64),
        }
    }

    /// Empty, whatever it was; nobody else is at it.
    pub fn clear(&self) {
        for (place, cell) in self.cells.iter().enumerate() {
            cell.turn.store(place, Relaxed);
        }
        self.emptied.store(0, Relaxed);
        // Release: who finds it cleared finds all of it so.
        self.filled.store(0, Release);
    }

    fn cell(&self, place: usize) -> Option<&Cell> {
        self.cells.get(place & self.cells.len().wrapping_sub(1))
    }

    /// In a handler. False: there is no room.
    pub fn put(&self, info: &Info) -> bool {
        let mut place = self.filled.load(Relaxed);
        loop {
            let Some(cell) = self.cell(place) else { return false };
            // Acquire: it was read by who emptied it.
            let turn = cell.turn.load(Acquire);
            if turn == place {
                let next = place.wrapping_add(1);
                match self.filled.compare_exchange_weak(place, next, Relaxed, Relaxed) {
                    Ok(_) => {
                        // SAFETY: it is this handler's turn.
                        cell.info.with_mut(|cell| unsafe { (*cell).write(*info) });
                        // Release: who finds it filled finds all of it.
                        cell.turn.store(next, Release);
                        return true;
                    }
                    Err(now) => place = now,
                }
            } else if (turn.wrapping_sub(place) as isize) < 0 {
                return false;
            } else {
                place = self.filled.load(Relaxed);
            }
        }
    }

    /// The next one; none: empty, or a handler is about to fill it.
    pub fn take(&self) -> Option<Info> {
        let mut place = self.emptied.load(Relaxed);
        loop {
            let cell = self.cell(place)?;
            let next = place.wrapping_add(1);
            // Acquire: pairs with the Release of who filled it.
            let turn = cell.turn.load(Acquire);
            if turn == next {
                match self.emptied.compare_exchange_weak(place, next, Relaxed, Relaxed) {
                    Ok(_) => {
                        // SAFETY: it is this one's turn.
                        let filled = cell.info.with(|cell| unsafe { cell.read() });
                        // SAFETY: it was filled, as its turn says.
                        let info = unsafe { filled.assume_init() };
                        // Release: it is read before it is filled again.
                        cell.turn.store(place.wrapping_add(self.cells.len()), Release);
                        return Some(info);
                    }
                    Err(now) => place = now,
                }
            } else if (turn.wrapping_sub(next) as isize) < 0 {
                return None;
            } else {
                place = self.emptied.load(Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    fn info(number: i32) -> Info {
        // SAFETY: numbers.
        let mut info: Info = unsafe { std::mem::zeroed() };
        info.si_signo = number;
        info
    }

    #[test]
    fn it_keeps_the_order_and_its_size() {
        let infos = Infos::new(4).unwrap();
        for round in 0..10 {
            for number in 0..4 {
                assert!(infos.put(&info(round * 10 + number)));
            }
            assert!(!infos.put(&info(99)));
            for number in 0..4 {
                assert_eq!(infos.take().unwrap().si_signo, round * 10 + number);
            }
            assert!(infos.take().is_none());
        }
        assert!(infos.put(&info(5)));
        infos.clear();
        assert!(infos.take().is_none());
    }

    #[test]
    fn what_several_threads_put_is_taken_once_and_in_their_order() {
        const EACH: i32 = 20_000;
        let infos = Infos::new(8).unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let senders: Vec<_> = (0..3)
                .map(|sender| {
                    let infos = &infos;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            while !infos.put(&info(sender * EACH + number)) {
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
                    match infos.take() {
                        Some(taken) => {
                            let sender = (taken.si_signo / EACH) as usize;
                            assert_eq!(taken.si_signo % EACH, next[sender]);
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
