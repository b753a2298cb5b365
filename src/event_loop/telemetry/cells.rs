//! Counters that a loop's thread adds to and others read.
//!
//! They only grow, and are never reset: a reset remembers what they were. A
//! time that a loop slept is added when the sleep is over, after its end was
//! published. Who reads takes a sleep that goes on into account, and must not
//! find it in the counter, too.

use super::activity::{ASLEEP, Activity, ActivityCell};
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
    pub fn add(&self, i: usize, more: u64) {
        if let Some(cell) = self.0.get(i) {
            cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
        }
    }

    /// The same, of a time; after the end of what took it was published.
    #[inline(always)]
    pub fn add_time(&self, i: usize, ns: i64) {
        if let Some(cell) = self.0.get(i) {
            // Release: who finds the time sees that end.
            cell.store(cell.load(Relaxed).wrapping_add(ns.cast_unsigned()), Release);
        }
    }

    pub fn read(&self, i: usize) -> u64 {
        // Acquire: pairs with `add_time`.
        self.0.get(i).map_or(0, |cell| cell.load(Acquire))
    }

    /// All of them.
    pub fn each(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|cell| cell.load(Acquire))
    }

    /// The sleep that is going on, if any, and the time asleep without it,
    /// which is in this cell. `counts`: whether that sleep will be added.
    pub fn asleep(
        &self,
        i: usize,
        activity: &ActivityCell,
        counts: impl Fn() -> bool,
    ) -> (Option<Activity>, u64) {
        loop {
            let current = activity.read().filter(|current| current.kind == ASLEEP && counts());
            let before = self.read(i);
            // It must not be in it already.
            if current.is_none_or(|current| activity.is_at(current.seq)) {
                return (current, before);
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
        let (activity, cells) = (ActivityCell::new(), Cells::new(1).unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..50 {
                    activity.enter(ASLEEP, 0, 0);
                    activity.exit();
                    cells.add_time(0, NS);
                }
            });
            for _ in 0..50 {
                // Sequence numbers are 3, 7, 11 and so on: so many sleeps came
                // before.
                if let (Some(sleep), counted) = cells.asleep(0, &activity, || true) {
                    assert_eq!(sleep.seq / 4 * NS.cast_unsigned(), counted);
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
    enum CellsVariant {
        AsItIs,
        AddsRelaxed,
        AddsFirst,
    }

    const NS: i64 = 100;

    fn wake_up(activity: &ActivityCell, cells: &Cells, variant: CellsVariant) {
        match variant {
            CellsVariant::AsItIs => {
                activity.exit();
                cells.add_time(0, NS);
            }
            CellsVariant::AddsRelaxed => {
                activity.exit();
                cells.add(0, NS.cast_unsigned());
            }
            CellsVariant::AddsFirst => {
                cells.add_time(0, NS);
                activity.exit();
            }
        }
    }

    fn a_sleep_counts_once(variant: CellsVariant) {
        loom::model(move || {
            let shared = Arc::new((ActivityCell::new(), Cells::new(1).unwrap()));
            shared.0.enter(ASLEEP, 0, 0);
            // Second, so that its loads may have every value.
            let reader = {
                let shared = shared.clone();
                thread::spawn(move || shared.1.asleep(0, &shared.0, || true))
            };
            wake_up(&shared.0, &shared.1, variant);
            let (sleep, counted) = reader.join().unwrap();
            assert!(sleep.is_none() || counted == 0, "a sleep is counted twice");
        });
    }

    #[test]
    fn loom_a_sleep_that_ends_is_counted_once() {
        a_sleep_counts_once(CellsVariant::AsItIs);
    }

    #[test]
    #[should_panic(expected = "counted twice")]
    fn loom_twin_a_time_that_is_added_relaxed_is_counted_twice() {
        a_sleep_counts_once(CellsVariant::AddsRelaxed);
    }

    #[test]
    #[should_panic(expected = "counted twice")]
    fn loom_twin_a_time_that_is_added_before_the_end_is_counted_twice() {
        a_sleep_counts_once(CellsVariant::AddsFirst);
    }
}
