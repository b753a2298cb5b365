//! How many signals came for an owner, and the owner that a handler wakes.

use crate::sync::{AtomicI64, AtomicU64, Ordering::*, model_order};

/// A handler counts, then looks which owner to wake. An owner that is to be
/// woken stores that, then looks at the count. All four are sequentially
/// consistent: one of the two sees the other.
pub(super) struct Counted {
    count: AtomicU64,
    /// The owner's number; below 0: it is not woken.
    number: AtomicI64,
}

impl Counted {
    #[cfg(not(loom))]
    pub const fn new(number: i64) -> Self {
        Self { count: AtomicU64::new(0), number: AtomicI64::new(number) }
    }

    #[cfg(loom)]
    pub fn new(number: i64) -> Self {
        Self { count: AtomicU64::new(0), number: AtomicI64::new(number) }
    }

    /// Counts one signal, whose data was stored before. Returns the owner to
    /// wake, if it is to be woken.
    pub fn add(&self) -> Option<i64> {
        // And a Release: a thread that sees the count finds the signal's data.
        self.count.fetch_add(1, SeqCst);
        model_order();
        let number = self.number.load(SeqCst);
        (number >= 0).then_some(number)
    }

    pub fn count(&self) -> u64 {
        self.count.load(SeqCst)
    }

    /// An owner that is to be woken looks at the count after this.
    pub fn set_number(&self, number: i64) {
        self.number.store(number, SeqCst);
        model_order();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_woken_while_it_has_a_number() {
        let counted = Counted::new(-1);
        assert_eq!((counted.add(), counted.count()), (None, 1));
        counted.set_number(7);
        assert_eq!((counted.add(), counted.count()), (Some(7), 2));
    }
}

/// A signal beside an owner that is about to wait.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    fn a_signal_beside_a_wait(looks_first: bool) {
        loom::model(move || {
            let counted = Arc::new(Counted::new(-1));
            let handler = {
                let counted = counted.clone();
                thread::spawn(move || counted.add().is_some())
            };
            let early = counted.count();
            counted.set_number(7);
            let count = if looks_first { early } else { counted.count() };
            let wakes = handler.join().unwrap();
            assert!(count > 0 || wakes, "the owner waits, and the signal came");
        });
    }

    #[test]
    fn loom_a_signal_is_counted_or_wakes_its_owner() {
        a_signal_beside_a_wait(false);
    }

    #[test]
    #[should_panic(expected = "the owner waits")]
    fn loom_twin_a_look_before_the_owner_can_be_woken_misses_a_signal() {
        a_signal_beside_a_wait(true);
    }
}
