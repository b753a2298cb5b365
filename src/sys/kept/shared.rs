//! Numbers of descriptors that several threads look at, and signal handlers,
//! while one of them replaces the descriptor.

use crate::sync::{AtomicU64, Ordering::*, model_order};

/// A descriptor, and when it was last known to be intact.
#[derive(Debug)]
pub(super) struct Known {
    /// The descriptor, and the generation of its fd.
    packed: AtomicU64,
    at: AtomicU64,
    /// How many descriptors there had been by then, or another number for
    /// that; 0: it is not known.
    last: AtomicU64,
}

impl Known {
    #[cfg(not(loom))]
    pub const fn new(packed: u64) -> Self {
        Self { packed: AtomicU64::new(packed), at: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    #[cfg(loom)]
    pub fn new(packed: u64) -> Self {
        Self { packed: AtomicU64::new(packed), at: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SeqCst, here and in `set`: see `Wakeup`.
        self.packed.load(SeqCst)
    }

    pub fn set(&self, packed: u64) {
        self.packed.store(packed, SeqCst);
        model_order();
        // SeqCst, and after that: see `note`.
        self.last.store(0, SeqCst);
    }

    /// The moment at which it was known to be intact, if there have been as
    /// many descriptors since.
    #[inline(always)]
    pub fn known_at(&self, last: u64) -> Option<u64> {
        // Acquire: the moment is not older than that.
        (self.last.load(Acquire) == last).then(|| self.at.load(Relaxed))
    }

    /// This one was found to be intact at this moment; false: there is another
    /// one by now.
    pub fn note(&self, packed: u64, index: u64, last: u64) -> bool {
        // First this, then a look whether it is of another one; `set` does
        // both the other way round. Either this sees the other one, or what
        // `set` stores comes last.
        self.at.store(index, Relaxed);
        self.last.store(last, SeqCst);
        model_order();
        let is_same = self.packed.load(SeqCst) == packed;
        if !is_same {
            self.last.store(0, SeqCst);
        }
        is_same
    }
}

/// A descriptor of the process, which threads that make it at the same time
/// race for. Its generation was stored before.
pub(super) struct Raced(AtomicU64);

impl Raced {
    #[cfg(not(loom))]
    pub const fn new(packed: u64) -> Self {
        Self(AtomicU64::new(packed))
    }

    #[cfg(loom)]
    pub fn new(packed: u64) -> Self {
        Self(AtomicU64::new(packed))
    }

    pub fn get(&self) -> u64 {
        // Acquire: the generation that belongs to it.
        self.0.load(Acquire)
    }

    /// Puts another one in its place; or the one that is there by now.
    pub fn replace(&self, before: u64, fresh: u64) -> Result<(), u64> {
        // Release: pairs with the Acquire here and in `get`.
        self.0.compare_exchange(before, fresh, Release, Acquire).map(drop)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_one_descriptor_is_not_known_of_the_next() {
        let known = Known::new(1);
        assert!(known.known_at(7).is_none() && known.note(1, 5, 7));
        assert_eq!((known.known_at(7), known.known_at(8)), (Some(5), None));
        known.set(2);
        assert_eq!(known.known_at(7), None);
        // A thread that asked about the one before comes late.
        assert!(!known.note(1, 5, 7) && known.known_at(7).is_none());
    }

    #[test]
    fn one_of_two_is_put_in_the_place() {
        let raced = Raced::new(0);
        assert_eq!((raced.replace(0, 1), raced.replace(0, 2), raced.get()), (Ok(()), Err(1), 1));
    }
}

#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use crate::sync::AtomicU32;
    use loom::sync::Arc;
    use loom::thread;

    const NOW: u64 = 5;
    const LAST: u64 = 7;
    const FIRST: u64 = 1;
    const NONE: u64 = 0;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        NotesWithoutALook,
        ForgetsFirst,
    }

    /// A thread asks about a descriptor that is taken away.
    fn a_late_note(way: Way) {
        loom::model(move || {
            let known = Arc::new(Known::new(FIRST));
            let asker = {
                let known = known.clone();
                thread::spawn(move || match way {
                    Way::NotesWithoutALook => known.last.store(LAST, SeqCst),
                    _ => drop(known.note(FIRST, NOW, LAST)),
                })
            };
            if way == Way::ForgetsFirst {
                known.last.store(0, SeqCst);
                known.packed.store(NONE, SeqCst);
            } else {
                known.set(NONE);
            }
            asker.join().unwrap();
            assert!(known.known_at(LAST).is_none(), "what is not there is known to be intact");
        });
    }

    #[test]
    fn loom_a_descriptor_that_was_taken_away_is_not_known_to_be_intact() {
        a_late_note(Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "known to be intact")]
    fn loom_twin_a_note_without_a_look_is_of_one_that_was_taken_away() {
        a_late_note(Way::NotesWithoutALook);
    }

    #[test]
    #[should_panic(expected = "known to be intact")]
    fn loom_twin_forgetting_before_the_descriptor_is_replaced_is_undone() {
        a_late_note(Way::ForgetsFirst);
    }

    /// A thread that finds the other's descriptor looks at its generation.
    fn two_that_make_it(is_relaxed: bool) {
        loom::model(move || {
            let shared = Arc::new((Raced::new(NONE), AtomicU32::new(0)));
            let maker = {
                let shared = shared.clone();
                thread::spawn(move || {
                    let (raced, generation) = &*shared;
                    generation.store(1, Relaxed);
                    if is_relaxed {
                        raced.0.compare_exchange(NONE, FIRST, Relaxed, Relaxed).map(drop)
                    } else {
                        raced.replace(NONE, FIRST)
                    }
                })
            };
            let (raced, generation) = &*shared;
            let found = raced.get();
            assert!(found == NONE || generation.load(Relaxed) == 1, "it is taken for an older one");
            maker.join().unwrap().unwrap();
        });
    }

    #[test]
    fn loom_who_finds_a_shared_descriptor_finds_its_generation() {
        two_that_make_it(false);
    }

    #[test]
    #[should_panic(expected = "taken for an older one")]
    fn loom_twin_a_descriptor_that_is_shared_relaxed_has_an_old_generation() {
        two_that_make_it(true);
    }
}
