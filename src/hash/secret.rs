//! Two numbers that belong together and are made at first use, without a lock:
//! a fork in the middle must not leave one behind.

use crate::sync::{AtomicU64, Ordering::*};

/// A state and a factor. Threads that make them at the same time make the same.
pub(super) struct Secret {
    state: AtomicU64,
    /// 0 until both are there.
    factor: AtomicU64,
}

impl Secret {
    #[cfg(not(loom))]
    pub const fn new() -> Self {
        Self { state: AtomicU64::new(0), factor: AtomicU64::new(0) }
    }

    #[cfg(loom)]
    pub fn new() -> Self {
        Self { state: AtomicU64::new(0), factor: AtomicU64::new(0) }
    }

    /// The state and the factor, if they were made.
    #[inline(always)]
    pub fn get(&self) -> Option<(u64, u64)> {
        // Acquire, and before the state: a thread that finds the factor finds
        // the state, too.
        let factor = self.factor.load(Acquire);
        (factor != 0).then(|| (self.state.load(Relaxed), factor))
    }

    pub fn set(&self, state: u64, factor: u64) {
        self.state.store(state, Relaxed);
        // Release: pairs with `get`.
        self.factor.store(factor, Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_there_once_it_was_made() {
        let secret = Secret::new();
        assert_eq!(secret.get(), None);
        secret.set(2, 3);
        assert_eq!(secret.get(), Some((2, 3)));
    }
}

/// The first uses of two threads.
#[cfg(all(test, loom))]
mod loom_models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    #[derive(Clone, Copy, PartialEq)]
    enum Way {
        AsItIs,
        StateFirst,
        Relaxed,
    }

    const STATE: u64 = 2;
    const FACTOR: u64 = 3;

    /// As `get`, in the order in which it was done before.
    fn get(secret: &Secret, way: Way) -> Option<(u64, u64)> {
        match way {
            Way::AsItIs => secret.get(),
            Way::StateFirst => {
                let state = secret.state.load(Relaxed);
                let factor = secret.factor.load(Acquire);
                (factor != 0).then_some((state, factor))
            }
            Way::Relaxed => {
                let factor = secret.factor.load(Relaxed);
                (factor != 0).then(|| (secret.state.load(Relaxed), factor))
            }
        }
    }

    /// What a thread makes hashes with.
    fn hasher(secret: &Secret, way: Way) -> (u64, u64) {
        get(secret, way).unwrap_or_else(|| {
            secret.set(STATE, FACTOR);
            (STATE, FACTOR)
        })
    }

    fn two_first_uses(way: Way) {
        loom::model(move || {
            let secret = Arc::new(Secret::new());
            let other = {
                let secret = secret.clone();
                thread::spawn(move || hasher(&secret, way))
            };
            let all = [hasher(&secret, way), hasher(&secret, way), other.join().unwrap()];
            assert_eq!(all, [(STATE, FACTOR); 3], "two threads hash a key differently");
        });
    }

    #[test]
    fn loom_all_threads_have_the_same_secret() {
        two_first_uses(Way::AsItIs);
    }

    #[test]
    #[should_panic(expected = "hash a key differently")]
    fn loom_twin_a_state_that_is_loaded_first_is_not_the_factors() {
        two_first_uses(Way::StateFirst);
    }

    #[test]
    #[should_panic(expected = "hash a key differently")]
    fn loom_twin_a_relaxed_factor_comes_without_its_state() {
        two_first_uses(Way::Relaxed);
    }
}
