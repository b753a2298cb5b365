//! Counters that a loop's thread adds to and others read.
//!
//! They only grow, and are never set back: who wants to count anew remembers
//! what they were. A time that a loop slept is added when the sleep is over,
//! after its end was published. Who reads takes a sleep that goes on into
//! account, and must not find it in the counter, too.

use super::published::{ASLEEP, Glance, Published};
use crate::sync::{AtomicU64, Ordering::*};
use crate::util::alloc::try_array;

pub(super) struct Cells(Box<[AtomicU64]>);

impl Cells {
    /// So many, all 0; `None`: there is no memory.
    pub fn new(count: usize) -> Option<Self> {
        Some(Self(try_array(count, |_| AtomicU64::new(0))?))
    }

    /// Adds to a cell; on the loop's thread.
    #[inline(always)]
    pub fn add(&self, at: usize, more: u64) {
        if let Some(cell) = self.0.get(at) {
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    /// The same, of a time; after the end of what took it was published.
    #[inline(always)]
    pub fn add_time(&self, at: usize, ns: i64) {
        if let Some(cell) = self.0.get(at) {
            // Release: who finds the time sees that end.
            cell.store(cell.load(Relaxed).wrapping_add(ns.cast_unsigned()), Release);
        }
    }

    pub fn read(&self, at: usize) -> u64 {
        // Acquire: pairs with `add_time`.
        self.0.get(at).map_or(0, |cell| cell.load(Acquire))
    }

    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|cell| cell.load(Acquire))
    }

    /// The sleep that is going on, if any, and the time asleep without it,
    /// which is in this cell. `counts`: whether that sleep will be added.
    pub fn asleep(
        &self,
        at: usize,
        published: &Published,
        counts: impl Fn() -> bool,
    ) -> (Option<Glance>, u64) {
        loop {
            let glance = published.look().filter(|glance| glance.kind == ASLEEP && counts());
            let before = self.read(at);
            // It must not be in it already.
            if glance.is_none_or(|glance| published.is_at(glance.turn)) {
                return (glance, before);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_is_going_on_or_counted_and_never_both() {
        const NS: i64 = 100;
        let (published, cells) = (Published::new(), Cells::new(1).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..50 {
                    published.enter(ASLEEP, 0, 0);
                    published.leave();
                    cells.add_time(0, NS);
                }
            });
            for _ in 0..50 {
                // Turns are 3, 7, 11 and so on: so many sleeps came before.
                if let (Some(sleep), counted) = cells.asleep(0, &published, || true) {
                    assert_eq!(sleep.turn / 4 * NS.cast_unsigned(), counted);
                }
            }
        });
        assert_eq!(cells.read(0), 50 * NS.cast_unsigned());
    }
}

/// A thread that reads while the loop's thread wakes up and counts its sleep.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        AddsRelaxed,
        AddsFirst,
    }

    const NS: i64 = 100;

    fn wake_up(published: &Published, cells: &Cells, way: Way) {
        match way {
            Way::AsItIs => {
                published.leave();
                cells.add_time(0, NS);
            }
            Way::AddsRelaxed => {
                published.leave();
                cells.add(0, NS.cast_unsigned());
            }
            Way::AddsFirst => {
                cells.add_time(0, NS);
                published.leave();
            }
        }
    }

    fn a_sleep_counts_once(way: Way) {
        loom::model(move || {
            let shared = Arc::new((Published::new(), Cells::new(1).unwrap()));
            shared.0.enter(ASLEEP, 0, 0);
            // Second, so that its loads may have every value.
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || shared.1.asleep(0, &shared.0, || true))
            };
            wake_up(&shared.0, &shared.1, way);
            let (sleep, counted) = reader.join().unwrap();
            assert!(sleep.is_none() || counted == 0, "a sleep is counted twice");
        });
    }

    #[test]
    fn loom_a_sleep_that_ends_is_counted_once() {
        a_sleep_counts_once(Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "counted twice")]
    fn loom_twin_a_time_that_is_added_relaxed_is_counted_twice() {
        a_sleep_counts_once(Way::AddsRelaxed);
    }

    #[test]
    #[should_panic(expected = "counted twice")]
    fn loom_twin_a_time_that_is_added_before_the_end_is_counted_twice() {
        a_sleep_counts_once(Way::AddsFirst);
    }
}
