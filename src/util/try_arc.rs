//! A value with several owners, made where there is memory for it.

use super::try_box;
use crate::sync::{AtomicUsize, Ordering};
use std::ops::Deref;
use std::ptr::NonNull;

/// std's Arc, whose making can fail; without weak references.
pub(crate) struct TryArc<T>(NonNull<Inner<T>>);

struct Inner<T> {
    owners: AtomicUsize,
    value: T,
}

// SAFETY: the owners, on whatever threads, share the value (T: Sync), and the
// last of them drops it (T: Send).
unsafe impl<T: Send + Sync> Send for TryArc<T> {}
// SAFETY: as above; a reference to an owner is enough to make another one.
unsafe impl<T: Send + Sync> Sync for TryArc<T> {}

impl<T> TryArc<T> {
    /// `None`: there is no memory.
    pub fn new(value: T) -> Option<Self> {
        let inner = try_box(Inner { owners: AtomicUsize::new(1), value })?;
        Some(Self(NonNull::from(Box::leak(inner))))
    }

    fn inner(&self) -> &Inner<T> {
        // SAFETY: it lives as long as it has an owner, which `self` is.
        unsafe { self.0.as_ref() }
    }
}

impl<T> Clone for TryArc<T> {
    fn clone(&self) -> Self {
        // Relaxed: the caller has an owner, which keeps it alive.
        self.inner().owners.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl<T> Deref for TryArc<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner().value
    }
}

impl<T> Drop for TryArc<T> {
    fn drop(&mut self) {
        // Release: what this owner did comes before the value is dropped.
        // Acquire: the last owner sees what all others did.
        if self.inner().owners.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: made of a box, and no other owner is left.
            drop(unsafe { Box::from_raw(self.0.as_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CountsDrops<'a>(&'a AtomicUsize);

    impl Drop for CountsDrops<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_owner_drops_the_value_on_whatever_thread() {
        static DROPS: AtomicUsize = AtomicUsize::new(0);
        let first = TryArc::new(CountsDrops(&DROPS)).unwrap();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let own = first.clone();
                std::thread::spawn(move || drop(own.clone()))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(DROPS.load(Ordering::Relaxed), 0);
        drop(first);
        assert_eq!(DROPS.load(Ordering::Relaxed), 1);
    }
}
